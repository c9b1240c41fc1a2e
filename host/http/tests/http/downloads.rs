//! Downloads from a server that follows a script, over real connections on this machine.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue};
use wbuild_http::{
    Clients, Download, Downloaded, Error, ErrorKind, Options, Reach, Retries, Sink, Validators,
    download,
};

/// Answers one request after the other with what the script says, each on a connection of its own.
struct Server {
    url: Url,
    /// Requests as they came: their lines.
    seen: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Server {
    fn new(script: Vec<String>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/dir/file", listener.local_addr().expect("an address"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::clone(&seen);
        std::thread::spawn(move || {
            for answer in script {
                let Ok((mut stream, _)) = listener.accept() else { return };
                requests.lock().expect("no panic").push(request(&stream));
                // Closing is the end of an answer without a length, and the cut of one with.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Server { url: Url::parse(&url).expect("a URL"), seen }
    }

    fn requests(&self) -> Vec<Vec<String>> {
        self.seen.lock().expect("no panic").clone()
    }

    /// The value of a header of request number `index`.
    fn header(&self, index: usize, name: &str) -> Option<String> {
        self.requests()[index].iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    }
}

fn request(stream: &TcpStream) -> Vec<String> {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.take_while(|line| !line.is_empty()).collect()
}

/// An answer that is the last on its connection.
fn answer(status: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n{body}")
}

fn whole(headers: &[&str], body: &str) -> String {
    let length = format!("Content-Length: {}", body.len());
    answer("200 OK", &[headers, &[&length]].concat(), body)
}

#[derive(Default)]
struct Memory {
    data: Vec<u8>,
    begun: u32,
}

impl Sink for Memory {
    fn begin(&mut self, _: Option<u64>) -> io::Result<()> {
        self.data.clear();
        self.begun += 1;
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.data.extend_from_slice(data);
        Ok(())
    }
}

struct Wish<'a> {
    known: Option<&'a Validators>,
    authorization: Option<&'static str>,
    limit: u64,
    reach: Reach,
}

impl Default for Wish<'_> {
    fn default() -> Self {
        Wish { known: None, authorization: None, limit: 1 << 20, reach: Reach::Everything }
    }
}

async fn get(url: &Url, wish: Wish<'_>) -> Result<(Downloaded, Memory), Error> {
    let stall_timeout = Duration::from_secs(2);
    let clients = Clients::new(Options { reach: wish.reach, stall_timeout, ..Options::default() });
    let short = Duration::from_millis(1);
    let retries = Retries { attempts: 3, first: short, most: short };
    let wanted = Download {
        url,
        what: "the file",
        headers: HeaderMap::new(),
        authorization: wish.authorization.map(HeaderValue::from_static),
        known: wish.known,
        limit: wish.limit,
    };
    let mut memory = Memory::default();
    let done = download(&clients, retries, &wanted, &mut memory).await?;
    Ok((done, memory))
}

fn etag(tag: &str) -> Validators {
    Validators { etag: Some(tag.to_owned()), modified: None }
}

#[tokio::test]
async fn a_file_and_what_tells_its_version() {
    let server = Server::new(vec![whole(
        &["ETag: \"v1\"", "Last-Modified: Tue, 15 Nov 1994 12:45:26 GMT"],
        "content",
    )]);
    let (done, memory) = get(&server.url, Wish::default()).await.expect("a file");
    let modified = Some("Tue, 15 Nov 1994 12:45:26 GMT".to_owned());
    let etag = Some("\"v1\"".to_owned());
    assert_eq!(done, Downloaded::New(Validators { etag, modified }));
    assert_eq!(memory.data, b"content");
    assert_eq!(server.header(0, "accept-encoding").as_deref(), Some("identity"));
    assert_eq!(server.header(0, "if-none-match"), None);
}

#[tokio::test]
async fn a_version_that_is_known_is_not_sent_again() {
    let server = Server::new(vec![answer("304 Not Modified", &[], "")]);
    let known = etag("\"v1\"");
    let wish = Wish { known: Some(&known), ..Wish::default() };
    let (done, memory) = get(&server.url, wish).await.expect("an answer");
    assert_eq!((done, memory.begun), (Downloaded::Unchanged, 0));
    assert_eq!(server.header(0, "if-none-match").as_deref(), Some("\"v1\""));

    // Without a tag the date is asked about.
    let server = Server::new(vec![answer("304 Not Modified", &[], "")]);
    let date = "Tue, 15 Nov 1994 12:45:26 GMT";
    let known = Validators { etag: None, modified: Some(date.to_owned()) };
    let wish = Wish { known: Some(&known), ..Wish::default() };
    assert_eq!(get(&server.url, wish).await.expect("an answer").0, Downloaded::Unchanged);
    assert_eq!(server.header(0, "if-modified-since").as_deref(), Some(date));
}

#[tokio::test]
async fn a_server_that_sends_tags_and_does_not_heed_them_is_believed_its_tag() {
    for (known, sent) in [("\"v1\"", "\"v1\""), ("\"v1\"", "W/\"v1\""), ("W/\"v1\"", "\"v1\"")] {
        let server = Server::new(vec![whole(&[&format!("ETag: {sent}")], "content")]);
        let known = etag(known);
        let wish = Wish { known: Some(&known), ..Wish::default() };
        assert_eq!(get(&server.url, wish).await.expect("an answer").0, Downloaded::Unchanged);
    }
    let server = Server::new(vec![whole(&["ETag: \"v2\""], "new")]);
    let known = etag("\"v1\"");
    let wish = Wish { known: Some(&known), ..Wish::default() };
    let (done, memory) = get(&server.url, wish).await.expect("an answer");
    assert_eq!((done, &*memory.data), (Downloaded::New(etag("\"v2\"")), &b"new"[..]));
}

#[tokio::test]
async fn nobody_confirms_a_version_that_was_not_named() {
    let nameless = Validators::default();
    for known in [None, Some(&nameless)] {
        let server = Server::new(vec![answer("304 Not Modified", &[], "")]);
        let wish = Wish { known, ..Wish::default() };
        let error = get(&server.url, wish).await.map(|_| ()).expect_err("an error");
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    }
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_broke() {
    let cut = answer("200 OK", &["ETag: \"v1\"", "Content-Length: 10"], "01234");
    let rest = answer(
        "206 Partial Content",
        &["ETag: \"v1\"", "Content-Range: bytes 5-9/10", "Content-Length: 5"],
        "56789",
    );
    let server = Server::new(vec![cut, rest]);
    let (done, memory) = get(&server.url, Wish::default()).await.expect("a file");
    assert_eq!(done, Downloaded::New(etag("\"v1\"")));
    assert_eq!((memory.begun, &*memory.data), (1, &b"0123456789"[..]));
    assert_eq!(server.header(1, "range").as_deref(), Some("bytes=5-"));
    assert_eq!(server.header(1, "if-range").as_deref(), Some("\"v1\""));
}

#[tokio::test]
async fn a_cut_download_begins_again_where_its_version_is_not_certain() {
    // A weak tag promises too little, and without one nothing is promised.
    for tag in ["ETag: W/\"v1\"", "X-None: 1"] {
        let cut = answer("200 OK", &[tag, "Content-Length: 10"], "01234");
        let server = Server::new(vec![cut, whole(&[tag], "abcdefghij")]);
        let (_, memory) = get(&server.url, Wish::default()).await.expect("a file");
        assert_eq!((memory.begun, &*memory.data), (2, &b"abcdefghij"[..]));
        assert_eq!(server.header(1, "range"), None);
    }
    // The file changed in between: the server sends all of it.
    let cut = answer("200 OK", &["ETag: \"v1\"", "Content-Length: 10"], "01234");
    let server = Server::new(vec![cut, whole(&["ETag: \"v2\""], "new")]);
    let (done, memory) = get(&server.url, Wish::default()).await.expect("a file");
    assert_eq!((done, &*memory.data), (Downloaded::New(etag("\"v2\"")), &b"new"[..]));
}

#[tokio::test]
async fn another_part_than_was_asked_for_is_refused() {
    for headers in [
        ["ETag: \"v1\"", "Content-Range: bytes 4-9/10"],
        ["ETag: \"v2\"", "Content-Range: bytes 5-9/10"],
        ["ETag: \"v1\"", "X-None: 1"],
    ] {
        let cut = answer("200 OK", &["ETag: \"v1\"", "Content-Length: 10"], "01234");
        let part = answer("206 Partial Content", &headers, "56789");
        let server = Server::new(vec![cut, part]);
        let error = get(&server.url, Wish::default()).await.map(|_| ()).expect_err("an error");
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    }
    // A part that nobody asked for.
    let part = answer("206 Partial Content", &["Content-Range: bytes 0-4/10"], "01234");
    let server = Server::new(vec![part]);
    let error = get(&server.url, Wish::default()).await.map(|_| ()).expect_err("an error");
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn temporary_errors_are_tried_again_and_others_are_not() {
    let busy = || answer("503 Service Unavailable", &["Retry-After: 0"], "");
    let server = Server::new(vec![busy(), busy(), whole(&[], "content")]);
    let (_, memory) = get(&server.url, Wish::default()).await.expect("the third try succeeds");
    assert_eq!(memory.data, b"content");

    let server = Server::new(vec![busy(), busy(), busy(), whole(&[], "content")]);
    let error = get(&server.url, Wish::default()).await.map(|_| ()).expect_err("given up");
    assert_eq!((error.kind, server.requests().len()), (ErrorKind::Unavailable, 3));

    for (status, kind) in [
        ("404 Not Found", ErrorKind::NotFound),
        ("410 Gone", ErrorKind::NotFound),
        ("401 Unauthorized", ErrorKind::Denied),
        ("403 Forbidden", ErrorKind::Denied),
        ("418 I'm a teapot", ErrorKind::Invalid),
        ("204 No Content", ErrorKind::Invalid),
    ] {
        let server = Server::new(vec![answer(status, &[], ""), whole(&[], "content")]);
        let error = get(&server.url, Wish::default()).await.map(|_| ()).expect_err("an error");
        assert_eq!((error.kind, server.requests().len()), (kind, 1), "{status}");
    }
}

#[tokio::test]
async fn a_file_has_a_longest_length() {
    let known = whole(&[], "0123456789");
    let unknown = answer("200 OK", &[], "0123456789");
    for script in [known, unknown] {
        let server = Server::new(vec![script]);
        let wish = Wish { limit: 9, ..Wish::default() };
        let error = get(&server.url, wish).await.map(|_| ()).expect_err("too long");
        assert_eq!(error.kind, ErrorKind::Limit);
    }
}

#[tokio::test]
async fn a_credential_stays_with_its_origin() {
    let other = Server::new(vec![whole(&[], "content")]);
    let location = format!("Location: {}", other.url);
    let first = Server::new(vec![
        answer("302 Found", &["Location: /elsewhere"], ""),
        answer("307 Temporary Redirect", &[&location], ""),
    ]);
    let wish = Wish { authorization: Some("Bearer canary"), ..Wish::default() };
    let (_, memory) = get(&first.url, wish).await.expect("a file");
    assert_eq!(memory.data, b"content");
    for request in 0..2 {
        let sent = first.header(request, "authorization");
        assert_eq!(sent.as_deref(), Some("Bearer canary"));
    }
    assert_eq!(first.requests()[1][0], "GET /elsewhere HTTP/1.1");
    assert_eq!(other.header(0, "authorization"), None);
    assert!(!format!("{:?}", other.requests()).contains("canary"));
}

#[tokio::test]
async fn redirects_end_and_lead_somewhere() {
    let turn = || answer("302 Found", &["Location: /dir/file"], "");
    let server = Server::new((0..20).map(|_| turn()).collect());
    let error = get(&server.url, Wish::default()).await.map(|_| ()).expect_err("a circle");
    assert_eq!((error.kind, server.requests().len()), (ErrorKind::Invalid, 11));
    for (location, kind) in [
        ("X-None: 1", ErrorKind::Invalid),
        ("Location: http://", ErrorKind::Invalid),
        ("Location: file:///etc/passwd", ErrorKind::Denied),
        ("Location: ftp://127.0.0.1/", ErrorKind::Denied),
    ] {
        let server = Server::new(vec![answer("302 Found", &[location], "")]);
        let error = get(&server.url, Wish::default()).await.map(|_| ()).expect_err(location);
        assert_eq!(error.kind, kind, "{location}: {error}");
    }
}

#[tokio::test]
async fn what_may_not_be_reached_is_not_connected_to() {
    let server = Server::new(vec![whole(&[], "secret")]);
    let port = server.url.port().expect("a port");
    for host in ["127.0.0.1", "127.1", "localhost", "[::ffff:127.0.0.1]"] {
        let url = Url::parse(&format!("http://{host}:{port}/")).expect("a URL");
        let wish = Wish { reach: Reach::Public, ..Wish::default() };
        let error = get(&url, wish).await.map(|_| ()).expect_err(host);
        assert_eq!(error.kind, ErrorKind::OutOfReach, "{host}: {error}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let url = Url::parse(&url).expect("a URL");
    let connections = std::thread::spawn(move || {
        listener.incoming().take(3).filter_map(Result::ok).collect::<Vec<_>>()
    });
    let error = get(&url, Wish::default()).await.map(|_| ()).expect_err("silence");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    drop(connections);
}
