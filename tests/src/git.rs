//! Git repositories and servers for them on loopback ports: git's own, over HTTP, and the git protocol.
//!
//! Stands by itself: the tests of the crate that runs git use this file, too.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// Git by itself: nothing of the user's configuration, fixed names and times.
pub fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "A")
        .env("GIT_AUTHOR_EMAIL", "a@example.org")
        .env("GIT_AUTHOR_DATE", "1700000000 +0000")
        .env("GIT_COMMITTER_NAME", "C")
        .env("GIT_COMMITTER_EMAIL", "c@example.org")
        .env("GIT_COMMITTER_DATE", "1700000000 +0000")
        .env("GIT_CONFIG_COUNT", "3")
        .env("GIT_CONFIG_KEY_0", "init.defaultBranch")
        .env("GIT_CONFIG_VALUE_0", "main")
        .env("GIT_CONFIG_KEY_1", "safe.directory")
        .env("GIT_CONFIG_VALUE_1", "*")
        .env("GIT_CONFIG_KEY_2", "gc.auto")
        .env("GIT_CONFIG_VALUE_2", "0");
    command
}

/// A repository with files, made by git's own commands.
pub struct Repo(PathBuf);

impl Repo {
    /// An empty one.
    pub fn new(path: impl Into<PathBuf>) -> Result<Repo> {
        let path = path.into();
        std::fs::create_dir_all(&path)?;
        let repo = Repo(path);
        repo.init(&[])?;
        Ok(repo)
    }

    /// One whose objects have ids of SHA-256.
    pub fn sha256(path: impl Into<PathBuf>) -> Result<Repo> {
        let path = path.into();
        std::fs::create_dir_all(&path)?;
        let repo = Repo(path);
        repo.init(&["--object-format=sha256"])?;
        Ok(repo)
    }

    fn init(&self, options: &[&str]) -> Result<()> {
        self.git([&["init", "--quiet"], options].concat())?;
        // Any commit may be asked for, as at the large hosts.
        self.git(["config", "uploadpack.allowAnySHA1InWant", "true"])?;
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs a command of git there; what it says, without white space around.
    pub fn git<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        self.git_with_input(args, b"")
    }

    /// The same with bytes for standard input.
    pub fn git_with_input<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Result<String> {
        let mut command = git(&self.0);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start git")?;
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input)?;
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Writes a file; its directories are made.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().expect("it lies in the repository"))?;
        Ok(std::fs::write(path, content)?)
    }

    /// Commits everything that is there; the commit.
    pub fn commit(&self, message: &str) -> Result<String> {
        self.git(["add", "--all"])?;
        self.git(["commit", "--quiet", "--allow-empty", "--message", message])?;
        self.git(["rev-parse", "HEAD"])
    }

    /// Commits a tree that is put together by hand: mode, content (or a commit of mode 160000) and path
    /// of each entry. Git's own checks are passed by.
    pub fn commit_tree(&self, entries: &[(&str, &str, &str)]) -> Result<String> {
        let tree = self.tree(entries)?;
        let commit = self.git(["commit-tree", &tree, "-m", "made by hand"])?;
        self.git(["update-ref", "refs/heads/main", &commit])?;
        Ok(commit)
    }

    /// A tree object with these entries and nothing checked.
    pub fn tree(&self, entries: &[(&str, &str, &str)]) -> Result<String> {
        let mut tree = Vec::new();
        let mut entries = entries.to_vec();
        // As git sorts them.
        entries.sort_by_key(|(mode, _, name)| {
            format!("{name}{}", if *mode == "40000" { "/" } else { "" })
        });
        for (mode, content, name) in &entries {
            let id = match *mode {
                "160000" | "40000" => (*content).to_owned(),
                _ => self.git_with_input(["hash-object", "-w", "--stdin"], content.as_bytes())?,
            };
            tree.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            for pair in id.as_bytes().chunks(2) {
                tree.push(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
            }
        }
        self.git_with_input(["hash-object", "-w", "-t", "tree", "--stdin", "--literally"], &tree)
    }
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Path with query.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
}

impl Asked {
    /// A header; "" if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What a server does.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// The header that every request must have.
    pub authorization: Option<String>,
    /// Requests whose path begins with this are sent to another URL.
    pub redirect: Option<(String, String)>,
    /// So many requests are told to come again later.
    pub busy: u32,
    /// Speaks the first version of the protocol, in which only what references lead to can be had.
    pub old: bool,
    /// What is answered instead of asking git: content type and body, by the end of the path.
    pub canned: Option<(String, String, Vec<u8>)>,
}

/// What is read and written for a connection: the connection itself, or TLS on it.
pub trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// Repositories over HTTP, by `git http-backend`.
pub struct HttpServer {
    port: u16,
    scheme: &'static str,
    asked: Arc<Mutex<Vec<Asked>>>,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl HttpServer {
    /// Offers what lies in `root`. The thread lives as long as the process.
    pub fn start(root: &Path) -> Result<HttpServer> {
        HttpServer::serve(root, "http", |stream| Ok(Box::new(stream)))
    }

    /// The same with another way to make a stream of a connection, for the scheme it stands for.
    pub fn serve(
        root: &Path,
        scheme: &'static str,
        wrap: impl Fn(TcpStream) -> Result<Box<dyn Stream>> + Clone + Send + 'static,
    ) -> Result<HttpServer> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let behaviour = Arc::new(Mutex::new(Behaviour::default()));
        let (log, rules, root) = (Arc::clone(&asked), Arc::clone(&behaviour), root.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let (log, rules, root) = (Arc::clone(&log), Arc::clone(&rules), root.clone());
                let wrap = wrap.clone();
                std::thread::spawn(move || {
                    if let Ok(mut stream) = wrap(stream) {
                        answer(&mut *stream, &root, &log, &rules);
                        let _ = stream.flush();
                    }
                });
            }
        });
        Ok(HttpServer { port, scheme, asked, behaviour })
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}/{path}", self.scheme, self.port)
    }

    /// Host and port.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Does so from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().expect("no panic") = behaviour;
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }
}

fn answer(stream: &mut dyn Stream, root: &Path, log: &Mutex<Vec<Asked>>, rules: &Mutex<Behaviour>) {
    let mut reader = BufReader::new(&mut *stream);
    let Some((method, asked)) = head(&mut reader) else { return };
    let body = body(&mut reader, &asked).unwrap_or_default();
    log.lock().expect("no panic").push(asked.clone());
    let rules = {
        let mut rules = rules.lock().expect("no panic");
        let now = rules.clone();
        rules.busy = now.busy.saturating_sub(1);
        now
    };
    let path = asked.target.split('?').next().unwrap_or_default().to_owned();
    let refuse = rules.authorization.is_some()
        && asked.headers.get("authorization") != rules.authorization.as_ref();
    let response = if let Some((_, to)) = rules.redirect.filter(|(from, _)| path.starts_with(from))
    {
        format!(
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .into_bytes()
    } else if rules.busy > 0 {
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            .to_vec()
    } else if refuse {
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
    } else if let Some((_, kind, body)) = rules.canned.filter(|(end, ..)| path.ends_with(end)) {
        let mut response = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()).into_bytes();
        response.extend(body);
        response
    } else {
        let protocol = if rules.old { "" } else { asked.header("git-protocol") };
        backend(root, &method, &asked, &body, protocol).unwrap_or_default()
    };
    let _ = stream.write_all(&response);
}

fn head(reader: &mut impl BufRead) -> Option<(String, Asked)> {
    let mut lines = reader.lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect();
    Some((method, Asked { target, headers }))
}

fn body(reader: &mut impl BufRead, asked: &Asked) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = asked.headers.get("content-length") {
        reader.take(length.parse()?).read_to_end(&mut body)?;
    } else if asked.headers.contains_key("transfer-encoding") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16)?;
            reader.take(size).read_to_end(&mut body)?;
            reader.read_line(&mut line)?;
            if size == 0 {
                break;
            }
        }
    }
    Ok(body)
}

fn backend(
    root: &Path,
    method: &str,
    asked: &Asked,
    body: &[u8],
    protocol: &str,
) -> Result<Vec<u8>> {
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let mut child = git(root)
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", asked.header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", asked.header("content-encoding"))
        .env("GIT_PROTOCOL", protocol)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take().expect("piped");
    let input = body.to_vec();
    let feed = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output()?.stdout;
    let _ = feed.join();
    let end = output.windows(4).position(|four| four == b"\r\n\r\n").context("no header")?;
    let headers = String::from_utf8_lossy(&output[..end]);
    let status = headers.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    let others = headers.lines().filter(|line| !line.starts_with("Status: "));
    let mut response = format!("HTTP/1.1 {status}\r\n");
    others.for_each(|line| response.push_str(&format!("{line}\r\n")));
    response.push_str(&format!(
        "Content-Length: {}\r\nConnection: close\r\n\r\n",
        output.len() - end - 4
    ));
    let mut response = response.into_bytes();
    response.extend_from_slice(&output[end + 4..]);
    Ok(response)
}

/// Repositories over the git protocol, by `git daemon`. Ended when dropped.
pub struct Daemon {
    process: Child,
    port: u16,
}

impl Daemon {
    /// Offers what lies in `root`.
    pub fn start(root: &Path) -> Result<Daemon> {
        let mut last = None;
        // Another process may take the port between the look and the start: then try another.
        for _ in 0..5 {
            let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            let process = git(root)
                .args(["daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1"])
                .arg(format!("--port={port}"))
                .arg(format!("--base-path={}", root.display()))
                .arg(root)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot start git daemon")?;
            let mut daemon = Daemon { process, port };
            match daemon.wait_until_it_listens() {
                Ok(()) => return Ok(daemon),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("it was tried"))
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            ensure!(self.process.try_wait()?.is_none(), "git daemon ended");
            ensure!(Instant::now() < deadline, "git daemon does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("git://127.0.0.1:{}/{path}", self.port)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
