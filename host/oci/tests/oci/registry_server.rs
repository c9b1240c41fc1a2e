//! A registry for tests that keeps what it is sent in memory, and goes wrong where it is told to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use wbuild_graph::Digest;

/// A request without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub method: String,
    /// Path without query.
    pub path: String,
    pub query: String,
    pub authorization: Option<String>,
    pub content_range: Option<String>,
    pub length: usize,
}

impl Head {
    /// What kind of request this is, whatever it is about.
    pub fn kind(&self) -> &'static str {
        match (&*self.method, &*self.path) {
            ("HEAD", path) if path.contains("/blobs/") => "HEAD blob",
            ("HEAD", _) => "HEAD manifest",
            ("POST", _) if self.query.contains("mount=") => "POST mount",
            ("POST", _) => "POST",
            ("PATCH", _) => "PATCH",
            ("PUT", path) if path.contains("/manifests/") => "PUT manifest",
            ("PUT", _) => "PUT blob",
            ("GET", _) => "GET",
            _ => "other",
        }
    }
}

/// How a request goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It does not.
    None,
    /// This status, before the body is read.
    Status(u16),
    /// As it should, but for these headers.
    Header(&'static str, String),
    /// The connection ends after so many bytes of the body; what came is kept or forgotten with its
    /// upload.
    CutBody(usize, bool),
    /// All is done, and the connection ends without an answer.
    CutAnswer,
    /// Nothing happens any more, and the body is not read.
    Stall,
}

#[derive(Default)]
pub struct State {
    /// By repository and digest.
    pub blobs: BTreeMap<(String, Digest), Vec<u8>>,
    /// By repository and tag or digest.
    pub manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    pub uploads: BTreeMap<String, Vec<u8>>,
    opened: usize,
    pub log: Vec<Head>,
    /// Bytes of bodies that came in.
    pub received: usize,
}

type Faults = dyn Fn(&Head, usize) -> Fault + Send + Sync;

/// Listens until the process ends.
pub struct Registry {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Registry {
    /// One on a port of `ip`; `faults` gets each request and its number.
    pub fn start(ip: &str, faults: impl Fn(&Head, usize) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("loopback");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, faults): (_, Arc<Faults>) = (Arc::clone(&state), Arc::new(faults));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, faults) = (Arc::clone(&shared), Arc::clone(&faults));
                // A client that is gone is no failure.
                thread::spawn(move || serve(stream, &shared, &*faults));
            }
        });
        Registry { address, state }
    }

    /// One without faults.
    pub fn good() -> Self {
        Registry::start("127.0.0.1", |_, _| Fault::None)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    /// How many requests of a kind came.
    pub fn count(&self, kind: &str) -> usize {
        self.state().log.iter().filter(|head| head.kind() == kind).count()
    }

    pub fn reference(&self, rest: &str) -> wbuild_oci::Reference {
        format!("{}/{rest}", self.address).parse().expect("a reference")
    }
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
}

impl Answer {
    fn new(status: u16) -> Self {
        Answer { status, headers: Vec::new() }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<Head> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? <= 2 {
            break;
        }
        if let Some((name, value)) = line.trim_end().split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let path = match headers.remove("content-type") {
        // For manifests; kept with the path so that one field says all.
        Some(kind) if path.contains("/manifests/") => format!("{path}\n{kind}"),
        _ => path.to_owned(),
    };
    Some(Head {
        method,
        path,
        query: query.to_owned(),
        authorization: headers.remove("authorization"),
        content_range: headers.remove("content-range"),
        length,
    })
}

fn serve(stream: TcpStream, state: &Mutex<State>, faults: &Faults) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader)?;
    let number = {
        let mut state = state.lock().expect("no panic while held");
        state.log.push(head.clone());
        state.log.len() - 1
    };
    let fault = faults(&head, number);
    let (cut, keep) = match fault {
        Fault::CutBody(at, keep) if head.length > 0 => (at.min(head.length - 1), keep),
        _ => (head.length, true),
    };
    if let Fault::Status(status) = fault {
        let answer = Answer::new(status).header("Content-Length", "0");
        send(reader.get_mut(), &answer)?;
        // Like a server that lingers: the answer must get through.
        let _ = std::io::copy(&mut reader.take(head.length as u64), &mut std::io::sink());
        return None;
    }
    if matches!(fault, Fault::Stall) {
        thread::sleep(std::time::Duration::from_secs(20));
        return None;
    }
    let mut body = vec![0; cut];
    let read = reader.read_exact(&mut body).is_ok();
    let mut answer = {
        let mut state = state.lock().expect("no panic while held");
        state.received += body.len();
        if cut < head.length || !read {
            let id = head.path.rsplit('/').next().unwrap_or_default();
            if !keep {
                state.uploads.remove(id);
            } else if let Some(upload) = state.uploads.get_mut(id) {
                upload.extend(body);
            }
            return None;
        }
        act(&mut state, &head, body)
    };
    match fault {
        Fault::Header(name, value) => {
            answer.headers.retain(|(known, _)| *known != name);
            answer = answer.header(name, value);
        }
        Fault::CutAnswer => return None,
        _ => {}
    }
    if !answer.headers.iter().any(|(name, _)| *name == "Content-Length") {
        answer = answer.header("Content-Length", "0");
    }
    send(reader.get_mut(), &answer)
}

fn send(stream: &mut TcpStream, answer: &Answer) -> Option<()> {
    let mut text = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes()).ok()
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(pair.replace("%3A", ":").replace("%2F", "/"))
}

/// What a registry does (distribution specification 1.1).
fn act(state: &mut State, head: &Head, body: Vec<u8>) -> Answer {
    let Some(rest) = head.path.strip_prefix("/v2/") else { return Answer::new(404) };
    let method = &*head.method;
    if let Some((repository, target)) = rest.split_once("/manifests/") {
        let (target, kind) = target.split_once('\n').unwrap_or((target, ""));
        let key = (repository.to_owned(), target.to_owned());
        return match method {
            "HEAD" => match state.manifests.get(&key) {
                Some((kind, bytes)) => Answer::new(200)
                    .header("Content-Type", kind)
                    .header("Content-Length", bytes.len().to_string())
                    .header("Docker-Content-Digest", Digest::of(bytes).to_string()),
                None => Answer::new(404),
            },
            "PUT" => {
                let digest = Digest::of(&body).to_string();
                let document = (kind.to_owned(), body);
                state.manifests.insert((repository.to_owned(), digest.clone()), document.clone());
                state.manifests.insert(key, document);
                Answer::new(201).header("Docker-Content-Digest", digest)
            }
            _ => Answer::new(405),
        };
    }
    let Some((repository, rest)) = rest.split_once("/blobs/") else { return Answer::new(404) };
    let Some(id) = rest.strip_prefix("uploads/") else {
        let Ok(digest) = rest.parse::<Digest>() else { return Answer::new(400) };
        let known = state.blobs.contains_key(&(repository.to_owned(), digest));
        return Answer::new(if known { 200 } else { 404 });
    };
    let at = |id: &str| format!("/v2/{repository}/blobs/uploads/{id}?_state=a%2Bb");
    if method == "POST" {
        if let (Some(digest), Some(from)) =
            (parameter(&head.query, "mount"), parameter(&head.query, "from"))
            && let Ok(digest) = digest.parse::<Digest>()
            && let Some(bytes) = state.blobs.get(&(from, digest)).cloned()
        {
            state.blobs.insert((repository.to_owned(), digest), bytes);
            return Answer::new(201).header("Docker-Content-Digest", digest.to_string());
        }
        state.opened += 1;
        let id = state.opened.to_string();
        state.uploads.insert(id.clone(), Vec::new());
        return Answer::new(202).header("Location", at(&id)).header("Range", "0-0");
    }
    let Some(upload) = state.uploads.get_mut(id) else { return Answer::new(404) };
    assert!(head.query.contains("_state=a%2Bb"), "the query of a Location is kept: {head:?}");
    let range = |upload: &Vec<u8>| format!("0-{}", upload.len().saturating_sub(1));
    match method {
        "GET" => Answer::new(204).header("Location", at(id)).header("Range", range(upload)),
        "PATCH" => {
            let (first, end) = (upload.len(), upload.len() + body.len());
            if head.content_range != Some(format!("{first}-{}", end.wrapping_sub(1))) {
                return Answer::new(416).header("Location", at(id)).header("Range", range(upload));
            }
            upload.extend(body);
            Answer::new(202).header("Location", at(id)).header("Range", range(upload))
        }
        "PUT" => {
            let mut bytes = state.uploads.remove(id).expect("it is there");
            bytes.extend(body);
            let digest = Digest::of(&bytes);
            if parameter(&head.query, "digest") != Some(digest.to_string()) {
                return Answer::new(400);
            }
            state.blobs.insert((repository.to_owned(), digest), bytes);
            Answer::new(201).header("Docker-Content-Digest", digest.to_string())
        }
        _ => Answer::new(405),
    }
}
