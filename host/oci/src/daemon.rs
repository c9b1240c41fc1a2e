//! A running Docker, or what answers like one (Podman): the part of its API that takes in images
//! (Docker Engine API, `/_ping` and `/images/load`).
//!
//! An image goes there as it is written, piece by piece, so memory does not depend on its size.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Response, Url};
use serde::Deserialize;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use wbuild_http::{Clients, Options};

use crate::error::{Error, ErrorKind, Result};

/// Longest wait for a sign of life.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time without an answer while an image is taken in: unpacking a large one takes minutes, in
/// which nothing is said.
const LOADING: Duration = Duration::from_secs(6 * 60 * 60);
/// Longest answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// Pieces on their way.
const PIECES: usize = 4;
/// Bytes of a piece.
const PIECE: usize = 256 << 10;

/// Where a Docker listens, as `DOCKER_HOST` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `unix://PATH`.
    Unix(PathBuf),
    /// `tcp://HOST:PORT`, without TLS.
    Tcp {
        /// Name or address, and port.
        authority: String,
    },
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
            Endpoint::Tcp { authority } => write!(f, "tcp://{authority}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Endpoint> {
        let bad =
            |why: &str| Err(Error::invalid(format!("{text:?} is no address of a Docker: {why}")));
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Endpoint::Unix(path.into())),
            Some(("unix", _)) => bad("the path of a socket is absolute"),
            Some(("tcp" | "http", authority)) => {
                let authority = authority.trim_end_matches('/');
                let parsed = Url::parse(&format!("http://{authority}/")).ok();
                match parsed.filter(|url| url.path() == "/" && url.username().is_empty()) {
                    Some(url) if url.port().is_some() => {
                        Ok(Endpoint::Tcp { authority: authority.to_owned() })
                    }
                    _ => bad("expected tcp://HOST:PORT"),
                }
            }
            _ => bad("expected unix://PATH or tcp://HOST:PORT"),
        }
    }
}

/// A Docker.
pub struct Daemon {
    clients: Clients,
    base: Url,
    endpoint: Endpoint,
}

impl Daemon {
    /// Nothing is sent yet.
    pub fn new(endpoint: Endpoint) -> Result<Daemon> {
        let (host, unix_socket) = match &endpoint {
            Endpoint::Unix(path) => ("docker", Some(path.clone())),
            Endpoint::Tcp { authority } => (authority.as_str(), None),
        };
        let base = Url::parse(&format!("http://{host}/"))
            .map_err(|error| Error::invalid("the address of a Docker is no URL").because(error))?;
        let clients =
            Clients::new(Options { unix_socket, stall_timeout: LOADING, ..Options::default() });
        Ok(Daemon { clients, base, endpoint })
    }

    /// Fails unless it answers.
    pub async fn ping(&self) -> Result<()> {
        let url = self.url("_ping");
        let client = self.clients.client(&url).await?;
        let asked = tokio::time::timeout(PATIENCE, client.get(url).send()).await;
        let response = match asked {
            Ok(response) => response.map_err(|error| self.unreachable(error))?,
            Err(elapsed) => return Err(self.unreachable(elapsed)),
        };
        match response.status().is_success() {
            true => Ok(()),
            false => Err(self.refused(response).await),
        }
    }

    /// Gives it an archive for `docker load`, which comes out of `upload`.
    pub async fn load(&self, upload: Upload) -> Result<()> {
        let mut url = self.url("images/load");
        url.set_query(Some("quiet=1"));
        let client = self.clients.client(&url).await?;
        let request = client
            .post(url)
            .header(CONTENT_TYPE, "application/x-tar")
            .body(reqwest::Body::wrap(upload));
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let answer = wbuild_http::body(response, MAX_ANSWER, "the answer of Docker").await?;
        self.check(&answer)
    }

    /// An answer is a row of JSON objects; what goes wrong after the first byte is one of them.
    fn check(&self, answer: &[u8]) -> Result<()> {
        #[derive(Deserialize)]
        struct Line {
            error: Option<String>,
        }
        for line in serde_json::Deserializer::from_slice(answer).into_iter::<Line>() {
            let line = line.map_err(|error| {
                let message = format!("{} answers with what is no JSON", self.endpoint);
                Error::invalid(message).because(error)
            })?;
            if let Some(error) = line.error {
                let message =
                    format!("{} cannot load the image: {}", self.endpoint, one_line(&error));
                return Err(Error::invalid(message));
            }
        }
        Ok(())
    }

    fn url(&self, path: &str) -> Url {
        self.base.join(path).expect("a relative path makes a URL of a URL")
    }

    fn unreachable(&self, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::new(ErrorKind::Unavailable, format!("no Docker answers at {}", self.endpoint))
            .because(error)
    }

    /// What it says instead of doing what it was asked.
    async fn refused(&self, response: Response) -> Error {
        #[derive(Deserialize)]
        struct Refusal {
            message: String,
        }
        let status = response.status();
        let body = wbuild_http::body(response, MAX_ANSWER, "the answer of Docker").await;
        let said = body.ok().and_then(|body| serde_json::from_slice::<Refusal>(&body).ok());
        let said = said.map(|said| format!(": {}", one_line(&said.message))).unwrap_or_default();
        Error::invalid(format!("{} answers {status}{said}", self.endpoint))
    }
}

/// Foreign text for a message.
fn one_line(text: &str) -> String {
    text.chars().take(1000).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The body of a request that another thread writes.
pub struct Upload {
    pieces: Receiver<Bytes>,
    whole: Arc<AtomicBool>,
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(piece) => Some(Ok(Frame::data(piece))),
            None if self.whole.load(Ordering::Acquire) => None,
            // Not the end: the request is to be broken off.
            None => Some(Err(io::Error::other("the archive was not written to its end"))),
        })
    }
}

/// The other end of an [`Upload`], for a thread that may block. Dropped before [`Uploader::finish`],
/// it breaks the request off.
pub struct Uploader {
    pieces: Sender<Bytes>,
    piece: Vec<u8>,
    whole: Arc<AtomicBool>,
}

/// An upload and what it is written with.
pub fn upload() -> (Uploader, Upload) {
    let (sender, pieces) = channel(PIECES);
    let whole = Arc::new(AtomicBool::new(false));
    let uploader = Uploader { pieces: sender, piece: Vec::new(), whole: Arc::clone(&whole) };
    (uploader, Upload { pieces, whole })
}

impl Uploader {
    /// Ends the body.
    ///
    /// # Errors
    ///
    /// The other side reads no more.
    pub fn finish(mut self) -> io::Result<()> {
        self.send()?;
        self.whole.store(true, Ordering::Release);
        Ok(())
    }

    /// The other side reads no more.
    pub fn is_refused(&self) -> bool {
        self.pieces.is_closed()
    }

    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.pieces.blocking_send(piece).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

impl Write for Uploader {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&data[..taken]);
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for good in ["unix:///var/run/docker.sock", "tcp://127.0.0.1:2375", "tcp://[::1]:2375"] {
            assert_eq!(good.parse::<Endpoint>().expect(good).to_string(), good);
        }
        assert_eq!("http://host:1/".parse::<Endpoint>().expect("http").to_string(), "tcp://host:1");
        for bad in [
            "",
            "unix://",
            "unix://a/b",
            "tcp://",
            "tcp://host",
            "tcp://h:1/x",
            "tcp://u@h:1",
            "ssh://host",
            "npipe:////./pipe/docker",
            "/var/run/docker.sock",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn answers() {
        let daemon = Daemon::new("unix:///d".parse().expect("endpoint")).expect("daemon");
        for good in ["", "{\"stream\":\"Loaded image: a\\n\"}\r\n", "{}{}"] {
            daemon.check(good.as_bytes()).expect(good);
        }
        for (bad, says) in [
            ("{\"stream\":\"x\"}\n{\"error\":\"no\\nspace\"}", "cannot load the image: no space"),
            ("<html>", "no JSON"),
            ("{\"stream\":", "no JSON"),
        ] {
            let error = daemon.check(bad.as_bytes()).expect_err(bad);
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    /// Takes one request off a socket and answers it.
    fn serve(path: &std::path::Path, answer: &'static str) -> std::thread::JoinHandle<Vec<u8>> {
        use std::io::Read as _;
        let listener = std::os::unix::net::UnixListener::bind(path).expect("socket");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
            let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
            // A body that is broken off ends with the connection.
            while !seen.ends_with(b"0\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(0) | Err(_) => return seen,
                    Ok(count) => seen.extend_from_slice(&piece[..count]),
                }
            }
            stream.write_all(answer.as_bytes()).expect("answered");
            seen
        })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_image_goes_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let good = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        let bad = "HTTP/1.1 500 No\r\ncontent-length: 18\r\nconnection: close\r\n\r\n\
                   {\"message\":\"full\"}";
        for (name, answer, whole, says) in [
            ("whole", good, true, None),
            ("refused", bad, true, Some("500 Internal Server Error: full")),
            ("broken", good, false, Some("no Docker answers at unix://")),
        ] {
            let path = dir.path().join(name);
            let server = serve(&path, answer);
            let daemon = Daemon::new(Endpoint::Unix(path)).expect("daemon");
            let (mut out, body) = upload();
            let writer = tokio::task::spawn_blocking(move || {
                out.write_all(&vec![b'x'; 3 * PIECE + 1]).expect("taken");
                if whole {
                    out.finish().expect("taken");
                }
            });
            let loaded = daemon.load(body).await;
            writer.await.expect("the writer ends");
            let seen = server.join().expect("the server ends");
            // What was written before the break may have come; the last chunk (RFC 9112, 7.1) has not.
            let all = seen.iter().filter(|byte| **byte == b'x').count() > 3 * PIECE;
            assert!(all || !whole, "{name}");
            assert_eq!(seen.ends_with(b"0\r\n\r\n"), whole, "{name}");
            match (loaded, says) {
                (Ok(()), None) => {}
                (Err(error), Some(says)) => assert!(error.to_string().contains(says), "{error}"),
                (other, _) => panic!("{name}: {other:?}"),
            }
        }
    }
}
