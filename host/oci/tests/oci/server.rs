//! An HTTP server for tests that says whatever it is told to, and notes what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path with query.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// First byte of a Range header, 0 without one.
    pub fn from(&self) -> usize {
        let range = self.header("range").and_then(|r| r.strip_prefix("bytes=")).unwrap_or("0-");
        range.trim_end_matches('-').parse().expect("the client asks for open ranges")
    }
}

/// What to answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Value of Content-Length where it is a lie; `None` tells the truth.
    pub length: Option<usize>,
    /// Sent without a length, ending with the connection.
    pub open_end: bool,
    /// Nothing more is sent after this many bytes of the body, and the connection stays open.
    pub stall: Option<usize>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, length, stall) = (Vec::new(), None, None);
        Answer { status, headers, body: body.into(), length, open_end: false, stall }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn redirect(to: impl Into<String>) -> Self {
        Answer::new(307, "").header("Location", to)
    }

    /// 401 with a challenge.
    pub fn challenge(text: impl Into<String>) -> Self {
        Answer::new(401, "").header("WWW-Authenticate", text)
    }
}

/// Listens until the process ends; a test process does not live long.
pub struct Server {
    pub address: SocketAddr,
    scheme: &'static str,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// A server on `ip` (any of 127.0.0.0/8) with a free port.
    pub fn start(ip: &str, answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::listen(ip, None, answer)
    }

    /// One that speaks TLS, with a certificate that nobody trusts.
    pub fn start_tls(ip: &str, answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::listen(ip, Some(crate::tls::config(None)), answer)
    }

    /// A server with this configuration for TLS, if it is to speak it.
    pub fn listen(
        ip: &str,
        tls: Option<Arc<rustls::ServerConfig>>,
        answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("loopback");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let answer = Arc::new(answer);
        let scheme = if tls.is_some() { "https" } else { "http" };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (noted, answer, tls) = (Arc::clone(&noted), Arc::clone(&answer), tls.clone());
                thread::spawn(move || match tls {
                    None => serve(stream, &noted, &*answer),
                    Some(config) => {
                        let session = rustls::ServerConnection::new(config).expect("a session");
                        let stream = rustls::StreamOwned::new(session, stream);
                        serve(stream, &noted, &*answer);
                    }
                });
            }
        });
        Server { address, scheme, asked }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic while held").clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// A reference to `rest` at this registry.
    pub fn reference(&self, rest: &str) -> wbuild_oci::Reference {
        format!("{}/{rest}", self.address).parse().expect("a reference")
    }
}

fn serve(stream: impl Read + Write, noted: &Mutex<Vec<Asked>>, answer: &dyn Fn(&Asked) -> Answer) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split(' ');
    let (method, target) =
        (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        if let Some((name, value)) = line.trim_end().split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length: usize = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let asked =
        Asked { method, target, headers, body: String::from_utf8_lossy(&body).into_owned() };
    noted.lock().expect("no panic while held").push(asked.clone());
    let answer = answer(&asked);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    if !answer.open_end {
        head.push_str(&format!(
            "Content-Length: {}\r\n",
            answer.length.unwrap_or(answer.body.len())
        ));
    }
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut stream = reader.into_inner();
    // The client may hang up at any time.
    let _ = stream.write_all(head.as_bytes());
    if asked.method == "HEAD" {
        return;
    }
    if let Some(stall) = answer.stall {
        let _ = stream.write_all(&answer.body[..stall]);
        thread::sleep(Duration::from_secs(20));
        return;
    }
    let _ = stream.write_all(&answer.body).and_then(|()| stream.flush());
}
