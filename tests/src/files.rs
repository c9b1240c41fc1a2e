//! A web server on a loopback port that keeps what is PUT to it, and goes wrong as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// E.g. `PUT`.
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// How an answer goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// Another status, with no body.
    Status(u16),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// A redirect to this URL.
    Redirect(String),
    /// Another body, announced as it is.
    Body(Vec<u8>),
    /// The right answer, after so many milliseconds.
    Late(u64),
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    seen: Vec<Seen>,
    /// By method and beginning of the path; each happens once.
    mishaps: VecDeque<(String, String, Mishap)>,
    /// What `Authorization` has to be.
    authorization: Option<String>,
}

/// See the module. Its threads end with the test's process.
pub struct FileServer {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl FileServer {
    /// Starts one that is empty.
    pub fn start() -> FileServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    // A client that goes away is none of its business.
                    let _ = serve(client, &shared);
                });
            }
        });
        FileServer { address, state }
    }

    /// The URL of a path, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    /// Lets the next request of a method to a path that begins so go wrong.
    pub fn next(&self, method: &str, path: &str, mishap: Mishap) {
        self.lock().mishaps.push_back((method.to_owned(), path.to_owned(), mishap));
    }

    /// Wants this in `Authorization` from now on.
    pub fn require(&self, authorization: &str) {
        self.lock().authorization = Some(authorization.to_owned());
    }

    /// What it was asked, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// The paths of its files.
    pub fn paths(&self) -> Vec<String> {
        self.lock().files.keys().cloned().collect()
    }

    /// A file, if there is one.
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.lock().files.get(path).cloned()
    }

    /// Puts a file there, or takes it away.
    pub fn set(&self, path: &str, data: Option<Vec<u8>>) {
        let mut state = self.lock();
        match data {
            Some(data) => state.files.insert(path.to_owned(), data),
            None => state.files.remove(path),
        };
    }
}

fn serve(client: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut client = client;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let seen = Seen { method: method.to_owned(), path: path.to_owned(), headers };
        let (late, answer) = answer(&mut state.lock().expect("lock"), &seen, body);
        thread::sleep(late);
        let (status, extra, data, cut) = answer;
        let length = data.len();
        write!(client, "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n{extra}\r\n")?;
        if seen.method != "HEAD" {
            client.write_all(&data[..cut.unwrap_or(length).min(length)])?;
        }
        client.flush()?;
        if cut.is_some() {
            return client.shutdown(Shutdown::Both);
        }
    }
}

/// Status, further headers, body, and after how much of it the connection ends.
type Answer = (u16, String, Vec<u8>, Option<usize>);

/// An answer, and how late it comes.
fn answer(state: &mut State, seen: &Seen, body: Vec<u8>) -> (Duration, Answer) {
    state.seen.push(seen.clone());
    let mishap = state
        .mishaps
        .iter()
        .position(|(method, path, _)| *method == seen.method && seen.path.starts_with(path))
        .and_then(|at| state.mishaps.remove(at))
        .map(|(_, _, mishap)| mishap);
    let none = Duration::ZERO;
    match mishap {
        Some(Mishap::Status(status)) => (none, (status, String::new(), Vec::new(), None)),
        Some(Mishap::Redirect(url)) => {
            (none, (307, format!("location: {url}\r\n"), Vec::new(), None))
        }
        Some(Mishap::Body(data)) => (none, (200, String::new(), data, None)),
        Some(Mishap::Cut(after)) => (none, right(state, seen, body, Some(after))),
        Some(Mishap::Late(time)) => (Duration::from_millis(time), right(state, seen, body, None)),
        None => (none, right(state, seen, body, None)),
    }
}

/// What it is to answer.
fn right(state: &mut State, seen: &Seen, body: Vec<u8>, cut: Option<usize>) -> Answer {
    if state.authorization.as_ref().is_some_and(|it| seen.headers.get("authorization") != Some(it))
    {
        return (401, String::new(), Vec::new(), None);
    }
    match seen.method.as_str() {
        "PUT" => {
            let status =
                if state.files.insert(seen.path.clone(), body).is_some() { 204 } else { 201 };
            (status, String::new(), Vec::new(), cut)
        }
        "GET" | "HEAD" => match state.files.get(&seen.path) {
            None => (404, String::new(), b"nothing here".to_vec(), cut),
            Some(data) => {
                let range = seen.headers.get("range");
                let from =
                    range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
                match from {
                    Some(from) if from < data.len() => {
                        let (last, all) = (data.len() - 1, data.len());
                        let extra = format!("content-range: bytes {from}-{last}/{all}\r\n");
                        (206, extra, data[from..].to_vec(), cut)
                    }
                    _ => (200, String::new(), data.clone(), cut),
                }
            }
        },
        _ => (405, String::new(), Vec::new(), cut),
    }
}
