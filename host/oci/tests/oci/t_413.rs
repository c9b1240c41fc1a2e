//! T-413: an error answer to any request ends the pull, soon, with words that name host and status.

use std::time::{Duration, Instant};

use wbuild_oci::ErrorKind;

use crate::content::{Content, Keys, client, pull};
use crate::server::{Answer, Asked, Server};

type Matches = fn(&Asked, &Content) -> bool;

/// Which request is answered with an error.
const REQUESTS: [(&str, Matches); 6] = [
    ("the tag", |asked, _| asked.target.ends_with("/v1")),
    ("the index", |asked, content| asked.method == "GET" && is(asked, &content.index)),
    ("the manifest", |asked, content| is(asked, &content.manifest)),
    ("the config", |asked, content| is(asked, &content.config)),
    ("a layer", |asked, content| is(asked, &content.layers[0])),
    ("a token", |asked, _| asked.target.starts_with("/token")),
];

fn is(asked: &Asked, bytes: &[u8]) -> bool {
    asked.target.ends_with(&wbuild_graph::Digest::of(bytes).hex())
}

#[tokio::test]
async fn t_413_any_error_status_at_any_request() {
    let content = Content::new(&[3_000]);
    let statuses: Vec<u16> = (300..=308)
        .filter(|s| ![301, 302, 303, 307, 308].contains(s))
        .chain(400..=451)
        .chain(500..=511)
        .chain([599])
        .collect();
    for (request, matches) in REQUESTS {
        for &status in &statuses {
            let served = content.clone();
            let server = Server::start("127.0.0.1", move |asked| {
                if matches(asked, &served) {
                    let body = r#"{"errors":[{"code":"SIZE_INVALID","message":"no\u001b[31m"}]}"#;
                    return Answer::new(status, body).header("Retry-After", "0");
                }
                let host = asked.header("host").unwrap_or_default();
                if asked.target.starts_with("/token") {
                    return Answer::new(200, r#"{"token":"t"}"#);
                }
                if asked.header("authorization").is_none() {
                    let realm = format!(r#"Bearer realm="http://{host}/token",service="s""#);
                    return Answer::challenge(realm);
                }
                served.answer(asked)
            });
            let began = Instant::now();
            let name = server.address.to_string();
            let client = client(Keys::of(&[&name]), &[]);
            let error = pull(&client, &server.reference("a/b:v1")).await;
            let error = error.err().unwrap_or_else(|| panic!("{request}: {status}"));
            let took = began.elapsed();
            assert!(took < Duration::from_secs(10), "{request}: {status} took {took:?}");
            let text = error.to_string();
            assert!(text.contains("127.0.0.1"), "{request}, {status}: {text}");
            assert!(text.contains(&status.to_string()), "{request}, {status}: {text}");
            let shown = format!("{text} {error:?}");
            assert!(!shown.contains('\x1b'), "{request}, {status}: {shown}");
            let temporary = [408, 425, 429, 500, 502, 503, 504].contains(&status);
            assert_eq!(error.kind() == ErrorKind::Unavailable, temporary, "{request}: {text}");
            assert!(server.asked().len() <= 40, "{request}, {status}: {}", server.asked().len());
        }
    }
}

#[tokio::test]
async fn t_413_error_answers_without_end() {
    let content = Content::new(&[100]);
    for (name, answer) in [
        ("silent", Answer { stall: Some(0), ..Answer::new(413, [b' '; 100]) }),
        ("long", Answer { open_end: true, ..Answer::new(413, vec![b' '; 8 << 20]) }),
        ("lying", Answer { length: Some(1 << 40), ..Answer::new(413, "x") }),
    ] {
        let served = content.clone();
        let server = Server::start("127.0.0.1", move |asked| match asked.method.as_str() {
            "GET" => answer.clone(),
            _ => served.answer(asked),
        });
        let began = Instant::now();
        let client = client(Keys::default(), &[]);
        let error = pull(&client, &server.reference("a/b:v1")).await.expect_err(name);
        assert!(began.elapsed() < Duration::from_secs(5), "{name}");
        assert!(error.to_string().contains("413"), "{name}: {error}");
    }
}
