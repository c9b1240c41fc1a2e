//! What the capability `http` lets through.

use reqwest::header::HeaderMap;
use wbuild_api::extension::{HttpBody, HttpCap, HttpRequest, HttpResponse};
use wbuild_graph::FailureKind;
use wbuild_tests::files::{Mishap, Seen};

use super::*;

/// Two servers, of which one is granted.
struct Web {
    granted: FileServer,
    other: FileServer,
    store: Store,
    shelf: Shelf,
    http: Arc<dyn HttpCap>,
    _folder: tempfile::TempDir,
}

fn web(user: Option<RegistryAuth>) -> Web {
    let (granted, other) = (FileServer::start(), FileServer::start());
    let folder = tempfile::tempdir().expect("a directory");
    let store = Store::open(folder.path().join("store"), OpenOptions::default()).expect("a store");
    let origins = [
        Url::parse(&granted.url("/cache/")).expect("a URL"),
        // Not one that can be asked.
        Url::parse("file:///etc/").expect("a URL"),
    ];
    let shelf = Shelf::new(store.clone());
    let http = http::granted(shelf.clone(), Arc::new(User(user)), &origins, silent());
    Web { granted, other, store, shelf, http, _folder: folder }
}

fn get(url: &str) -> HttpRequest {
    HttpRequest { method: "GET".to_owned(), url: url.to_owned(), ..HttpRequest::default() }
}

impl Web {
    async fn one(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        self.http.send(vec![request]).await.pop().expect("an answer")
    }

    fn last(&self) -> Seen {
        self.granted.seen().pop().expect("it was asked")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_granted_origins_are_asked_wherever_it_leads() {
    let web = web(None);
    web.granted.set("/x", Some(b"here".to_vec()));
    web.other.set("/x", Some(b"there".to_vec()));
    let port = web.granted.address.port();
    for url in [
        web.other.url("/x"),
        format!("https://127.0.0.1:{port}/x"),
        format!("http://localhost:{port}/x"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "file:///etc/passwd".to_owned(),
        format!("http://user:password@127.0.0.1:{port}/x"),
        "/x".to_owned(),
    ] {
        let failure = web.one(get(&url)).await.expect_err(&url);
        assert!(matches!(failure.kind, FailureKind::Denied | FailureKind::Invalid), "{failure}");
    }
    web.granted.next("GET", "/go", Mishap::Redirect(web.other.url("/x")));
    let failure = web.one(get(&web.granted.url("/go"))).await.expect_err("it leads out");
    assert_eq!(failure.kind, FailureKind::Denied);
    assert!(web.other.seen().is_empty(), "it was never asked");
    // Without following, the answer is the redirect.
    web.granted.next("GET", "/go", Mishap::Redirect(web.other.url("/x")));
    let mut request = get(&web.granted.url("/go"));
    request.attrs.push("follow-redirects", "false");
    assert_eq!(web.one(request).await.expect("an answer").status, 307);
    // Within the origin it goes on.
    web.granted.next("GET", "/go", Mishap::Redirect("/x".to_owned()));
    let answer = web.one(get(&web.granted.url("/go"))).await.expect("an answer");
    assert_eq!((answer.status, answer.url), (200, web.granted.url("/x")));
    assert_eq!(web.http.body_small(answer.id, 100).await, Ok(b"here".to_vec()));
    let again = web.http.body_small(answer.id, 100).await.expect_err("once");
    assert_eq!(again.kind, FailureKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_end() {
    let web = web(None);
    for _ in 0..12 {
        web.granted.next("GET", "/round", Mishap::Redirect("/round".to_owned()));
    }
    let failure = web.one(get(&web.granted.url("/round"))).await.expect_err("it never ends");
    assert!(failure.message.ends_with("more than 10 redirects"), "{failure}");
    assert_eq!(web.granted.seen().len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_takes_no_longer_than_it_may() {
    let web = web(None);
    web.granted.set("/x", Some(b"x".to_vec()));
    for _ in 0..2 {
        web.granted.next("GET", "/x", Mishap::Late(3000));
    }
    let mut request = get(&web.granted.url("/x"));
    request.attrs.push("timeout-ms", "100");
    let failure = web.one(request.clone()).await.expect_err("it is late");
    assert_eq!((failure.kind, failure.retryable), (FailureKind::Unavailable, true), "{failure}");
    request.attrs.push("retries", "1");
    assert_eq!(web.one(request).await.expect("the second is in time").status, 200);
    for (key, value) in [("timeout-ms", "600001"), ("retries", "6"), ("retries", "often")] {
        let mut request = get(&web.granted.url("/x"));
        request.attrs.push(key, value);
        assert_eq!(web.one(request).await.expect_err(value).kind, FailureKind::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_sets_is_the_hosts() {
    let web = web(None);
    for name in ["Host", "Authorization", "Cookie", "Connection", "Content-Length"] {
        let mut request = get(&web.granted.url("/x"));
        request.headers.push(name, "mine");
        let failure = web.one(request).await.expect_err(name);
        assert_eq!(failure.kind, FailureKind::Denied, "{failure}");
    }
    assert!(web.granted.seen().is_empty());
    let mut request = get(&web.granted.url("/x"));
    request.headers.push("X-Mine", "mine");
    assert_eq!(web.one(request).await.expect("an answer").status, 404);
    let seen = web.last();
    assert_eq!(seen.headers.get("x-mine").map(String::as_str), Some("mine"));
    assert_eq!(seen.headers.get("host"), Some(&web.granted.address.to_string()));
    for (method, attr) in [("TRACE", None), ("GET", Some(("colour", "red")))] {
        let mut request = get(&web.granted.url("/x"));
        request.method = method.to_owned();
        if let Some((key, value)) = attr {
            request.attrs.push(key, value);
        }
        web.one(request).await.expect_err(method);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credential_is_the_sessions_and_of_its_kind() {
    let basic = RegistryAuth::Basic { username: "u".into(), password: "p".into() };
    let bearer = RegistryAuth::Bearer("t".into());
    let identity = RegistryAuth::IdentityToken("i".into());
    for (user, kind, sent) in [
        (None, "basic", Ok(None)),
        (Some(basic.clone()), "basic", Ok(Some("Basic dTpw"))),
        (Some(basic.clone()), "registry", Ok(Some("Basic dTpw"))),
        (Some(basic.clone()), "bearer", Err(FailureKind::Denied)),
        (Some(bearer.clone()), "bearer", Ok(Some("Bearer t"))),
        (Some(bearer), "registry", Ok(Some("Bearer t"))),
        (Some(identity), "registry", Err(FailureKind::Denied)),
        (Some(basic), "aws-sigv4", Err(FailureKind::Unsupported)),
    ] {
        let web = web(user.clone());
        let mut request = get(&web.granted.url("/x"));
        request.authorize = Some((kind.to_owned(), Attrs::default()));
        match (web.one(request).await, sent) {
            (Ok(_), Ok(sent)) => {
                let seen = web.last().headers.get("authorization").cloned();
                assert_eq!(seen.as_deref(), sent, "{kind}");
            }
            (Err(failure), Err(kind)) => assert_eq!(failure.kind, kind, "{failure}"),
            (answer, _) => panic!("{kind} with {user:?}: {answer:?}", user = user.is_some()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_go_between_socket_and_store() {
    let web = web(None);
    let content = much(3);
    let digest = web.store.put_blob(&content).expect("puts");
    web.shelf.name([&described(&content)]);
    let put = |offset, length| HttpRequest {
        method: "PUT".to_owned(),
        body: HttpBody::Blob { digest, offset, length },
        ..get(&web.granted.url("/blob"))
    };
    assert_eq!(web.one(put(0, None)).await.expect("an answer").status, 201);
    assert_eq!(web.granted.file("/blob"), Some(content.clone()));
    assert_eq!(web.one(put(100_000, Some(5))).await.expect("an answer").status, 204);
    assert_eq!(web.granted.file("/blob"), Some(content[100_000..100_005].to_vec()));
    for (offset, length) in [(content.len() as u64 + 1, None), (1, Some(content.len() as u64))] {
        assert_eq!(web.one(put(offset, length)).await.expect_err("no").kind, FailureKind::Invalid);
    }
    let nowhere = HttpRequest {
        body: HttpBody::Blob { digest: BlobDigest(Digest::of(b"no")), offset: 0, length: None },
        ..put(0, None)
    };
    assert_eq!(web.one(nowhere).await.expect_err("gone").kind, FailureKind::Gone);

    let other = much(4);
    web.granted.set("/other", Some(other.clone()));
    let expect = described(&other);
    for (what, wrong) in [
        ("digest", LayerDescriptor { digest: Digest::of(b"no"), ..expect.clone() }),
        ("smaller", LayerDescriptor { size: expect.size - 1, ..expect.clone() }),
        ("larger", LayerDescriptor { size: expect.size + 1, ..expect.clone() }),
    ] {
        let answer = web.one(get(&web.granted.url("/other"))).await.expect("an answer");
        let failure = web.http.body_blob(answer.id, wrong.clone()).await.expect_err(what);
        assert_ne!(failure.kind, FailureKind::Internal, "{what}: {failure}");
        assert_eq!(held(&web.store, wrong.digest), None, "{what}");
    }
    let answer = web.one(get(&web.granted.url("/other"))).await.expect("an answer");
    web.http.body_blob(answer.id, expect.clone()).await.expect("it is the one");
    assert_eq!(held(&web.store, expect.digest), Some(other));
    // What is no success is no blob, whatever it holds.
    let answer = web.one(get(&web.granted.url("/none"))).await.expect("an answer");
    let expect = described(b"nothing here");
    let failure = web.http.body_blob(answer.id, expect).await.expect_err("a page");
    assert_eq!(failure.kind, FailureKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn few_answers_wait_and_those_that_are_dropped_do_not_count() {
    let web = web(None);
    web.granted.set("/big", Some(much(1)));
    let many = |count| (0..count).map(|_| get(&web.granted.url("/big"))).collect::<Vec<_>>();
    let answers = web.http.send(many(70)).await;
    let (open, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((open.len(), refused.len()), (64, 6));
    assert_eq!(refused[0].as_ref().expect_err("too many").kind, FailureKind::Limit);
    for answer in open.into_iter().flatten() {
        web.http.forget(answer.id);
    }
    let answers = web.http.send(many(2)).await;
    let ids: Vec<u64> = answers.into_iter().flatten().map(|answer| answer.id).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(web.http.body_small(ids[0], 1000).await.expect_err("long").kind, FailureKind::Limit);
    assert_eq!(web.http.body_small(ids[1], 1 << 20).await, Ok(much(1)));
    // Nothing waits of a HEAD, or of what is small.
    web.granted.set("/small", Some(b"small".to_vec()));
    for url in ["/small", "/big"] {
        let mut request = get(&web.granted.url(url));
        request.method = if url == "/big" { "HEAD" } else { "GET" }.to_owned();
        let requests = vec![request; 70];
        assert!(web.http.send(requests).await.iter().all(Result::is_ok), "{url}");
    }
}

#[test]
fn a_backend_sees_no_cookies() {
    let mut headers = HeaderMap::new();
    headers.append("set-cookie", "a=b".parse().expect("a value"));
    headers.append("etag", "\"1\"".parse().expect("a value"));
    headers.append("x-bytes", b"\xff".as_slice().try_into().expect("a value"));
    let seen = super::super::http::headers(&headers).expect("few");
    assert_eq!(seen.0, [("etag".to_owned(), "\"1\"".to_owned())]);
    headers.append("x-long", "x".repeat(64 << 10).parse().expect("a value"));
    let failure = super::super::http::headers(&headers).expect_err("a lot");
    assert_eq!(failure.kind, FailureKind::Limit);
}
