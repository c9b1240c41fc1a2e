//! A way out for programs that connect by themselves.
//!
//! A [`Gate`] listens on a loopback port and connects on behalf of whoever comes there, to what
//! [`Reach`] allows: names are looked up here, and the very addresses that were checked are
//! connected to. What it lets in is counted and limited. It ends, with all its connections, when it
//! is dropped.
//!
//! - [`Gate::anywhere`] speaks SOCKS 5 (RFC 1928) without authentication, for connections only. It asks
//!   a proxy in between where one is named for HTTP.
//! - [`Gate::to`] leads to one place, for programs that know no proxy.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::client::handed_over;
use crate::error::{Error, ErrorKind, Result};
use crate::proxy::Proxies;
use crate::reach::Reach;

/// Connections at a time; further ones wait.
const CONNECTIONS: usize = 32;
/// Longest head of a proxy's answer, in bytes.
const MAX_ANSWER: usize = 16 << 10;
/// Bytes that are passed on at once.
const BUFFER: usize = 64 << 10;

/// What a [`Gate`] allows.
#[derive(Clone, Copy, Debug)]
pub struct GateLimits {
    /// Longest wait for a connection.
    pub connect: Duration,
    /// Longest time in which nothing arrives in either direction.
    pub stall: Duration,
    /// Most bytes that come in, over all connections.
    pub bytes: u64,
}

impl Default for GateLimits {
    fn default() -> Self {
        GateLimits {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(120),
            bytes: 64 << 30,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Gate {
    port: u16,
    state: Arc<State>,
    task: AbortHandle,
}

#[derive(Debug)]
struct State {
    reach: Reach,
    limits: GateLimits,
    /// Where connections lead; none = where they ask to.
    target: Option<(String, u16)>,
    proxies: (Proxies, &'static str),
    received: AtomicU64,
    failure: Mutex<Option<Error>>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gate {
    /// A SOCKS 5 proxy for a program that speaks HTTP. `scheme` is spoken at ports that say nothing of
    /// it: that decides which of `proxies` is in between.
    ///
    /// # Errors
    /// There is no port to listen on.
    pub async fn anywhere(
        reach: Reach,
        limits: GateLimits,
        proxies: Proxies,
        scheme: &'static str,
    ) -> io::Result<Gate> {
        Gate::open(reach, limits, None, (proxies, scheme)).await
    }

    /// A port that stands for a port of `host`.
    ///
    /// # Errors
    /// There is no port to listen on.
    pub async fn to(reach: Reach, limits: GateLimits, host: &str, port: u16) -> io::Result<Gate> {
        Gate::open(reach, limits, Some((host.to_owned(), port)), (Proxies::default(), "")).await
    }

    async fn open(
        reach: Reach,
        limits: GateLimits,
        target: Option<(String, u16)>,
        proxies: (Proxies, &'static str),
    ) -> io::Result<Gate> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let received = AtomicU64::new(0);
        let failure = Mutex::default();
        let state = Arc::new(State { reach, limits, target, proxies, received, failure });
        let task = tokio::spawn(serve(listener, Arc::clone(&state))).abort_handle();
        Ok(Gate { port, state, task })
    }

    /// The port, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes that have come in so far.
    pub fn received(&self) -> u64 {
        self.state.received.load(Ordering::Relaxed)
    }

    /// Why the last connection that failed did so. The program on this side knows only that it did.
    pub fn take_failure(&self) -> Option<Error> {
        self.state.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        match accepted {
            Ok((stream, _)) => {
                let state = Arc::clone(&state);
                connections.spawn(async move { state.connection(stream).await });
            }
            // Out of descriptors, for one: later there may be some.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A connection has ended for a reason that was noted.
struct Failed;

impl State {
    /// Notes why a connection fails, before the program on this side can see that it does.
    fn note(&self, error: Error) -> Failed {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        Failed
    }

    async fn connection(&self, mut near: TcpStream) {
        let far = match &self.target {
            Some((host, port)) => self.connect(host, *port).await.map_err(|error| self.note(error)),
            None => {
                // Who says something else than SOCKS is no program of ours.
                let Ok((host, port)) = asked(&mut near).await else { return };
                let connected = self.connect(&host, port).await;
                let code = match &connected {
                    Ok(_) => 0,
                    Err(error) if error.kind == ErrorKind::OutOfReach => 2,
                    Err(_) => 4,
                };
                let connected = connected.map_err(|error| self.note(error));
                if near.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await.is_err() {
                    return;
                }
                connected
            }
        };
        let Ok(far) = far else { return };
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        // A side that has said all it has to say may still listen; what goes wrong ends both ways.
        let there = self.pass(near_in, far_out, false);
        let back = self.pass(far_in, near_out, true);
        let _: std::result::Result<_, Failed> = tokio::try_join!(there, back);
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream> {
        let connect = async {
            match self.between(host, port).await? {
                Some((proxy, auth)) => through(&proxy, auth.as_ref(), host, port).await,
                None => self.reach.connect(host, port).await,
            }
        };
        match tokio::time::timeout(self.limits.connect, connect).await {
            Ok(result) => result,
            Err(_) => {
                Err(Error::new(ErrorKind::Unavailable, format!("{host}:{port} does not answer")))
            }
        }
    }

    /// The proxy between us and a server.
    async fn between(&self, host: &str, port: u16) -> Result<Option<(Url, Option<HeaderValue>)>> {
        let (proxies, scheme) = &self.proxies;
        let scheme = match port {
            80 => "http",
            443 => "https",
            _ => scheme,
        };
        let bracketed = match host.contains(':') && !host.starts_with('[') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        let Ok(url) = Url::parse(&format!("{scheme}://{bracketed}:{port}/")) else {
            return Ok(None);
        };
        let Some(proxy) = proxies.between(&url)? else { return Ok(None) };
        self.reach.check(&url)?;
        handed_over(self.reach, proxies, None, &url).await?;
        Ok(Some(proxy))
    }

    /// Passes on one direction until its end. A broken connection is an end like any other: the
    /// programs at both sides know what to make of it.
    async fn pass(
        &self,
        mut from: tokio::net::tcp::OwnedReadHalf,
        mut to: tokio::net::tcp::OwnedWriteHalf,
        inwards: bool,
    ) -> std::result::Result<(), Failed> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = match tokio::time::timeout(self.limits.stall, from.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(read)) => read,
                // What waits for an answer is not stalled itself: the other direction is.
                Err(_) if !inwards => continue,
                Err(_) => {
                    let seconds = self.limits.stall.as_secs();
                    let message = format!("the server has said nothing for {seconds} seconds");
                    return Err(self.note(Error::new(ErrorKind::Unavailable, message)));
                }
            };
            if inwards {
                let before = self.received.fetch_add(read as u64, Ordering::Relaxed);
                if before + read as u64 > self.limits.bytes {
                    let message = format!("the server sends more than {} bytes", self.limits.bytes);
                    return Err(self.note(Error::new(ErrorKind::Limit, message)));
                }
            }
            if to.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
        Ok(())
    }
}

/// Connects through a proxy (RFC 9110, section 9.3.6).
async fn through(
    proxy: &Url,
    auth: Option<&HeaderValue>,
    host: &str,
    port: u16,
) -> Result<TcpStream> {
    let failed = |why: &str| {
        let name = proxy.host_str().unwrap_or_default();
        Error::new(ErrorKind::Unavailable, format!("the proxy {name} {why}"))
    };
    if proxy.scheme() != "http" {
        return Err(failed("is one over TLS, which git's connections cannot go through")
            .hint("name one over http, or except the host with NO_PROXY"));
    }
    let place = (proxy.host_str().unwrap_or_default(), proxy.port_or_known_default().unwrap_or(80));
    let mut stream = match Reach::Everything.connect(place.0, place.1).await {
        Ok(stream) => stream,
        Err(error) => return Err(failed("cannot be reached").because(error)),
    };
    let authority = match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
    if let Some(auth) = auth {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(auth.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let talk = async {
        stream.write_all(&request).await?;
        // One by one: what follows the answer is the server's.
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") && answer.len() < MAX_ANSWER {
            answer.push(stream.read_u8().await?);
        }
        io::Result::Ok(answer)
    };
    let answer = talk.await.map_err(|error| failed("hangs up").because(error))?;
    let first = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    match first.split(' ').nth(1) {
        Some(code) if first.starts_with("HTTP/1.") && code.starts_with('2') => Ok(stream),
        Some("407") => {
            let mut error = failed("wants a name and a password");
            error.kind = ErrorKind::Denied;
            Err(error.hint("write them into the proxy's URL: http://NAME:PASSWORD@HOST:PORT"))
        }
        _ => {
            let shown: String = first.chars().take(100).flat_map(char::escape_debug).collect();
            Err(failed(&format!("does not connect to {host}:{port}: {shown}")))
        }
    }
}

/// What a SOCKS client asks to be connected to.
async fn asked(stream: &mut TcpStream) -> io::Result<(String, u16)> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    let [version, methods] = read(stream).await?;
    if version != 5 {
        return Err(wrong());
    }
    let mut offered = vec![0; usize::from(methods)];
    stream.read_exact(&mut offered).await?;
    if !offered.contains(&0) {
        stream.write_all(&[5, 0xff]).await?;
        return Err(wrong());
    }
    stream.write_all(&[5, 0]).await?;
    let [version, command, _, kind] = read(stream).await?;
    if version != 5 {
        return Err(wrong());
    }
    let host = match kind {
        1 => IpAddr::from(Ipv4Addr::from(read::<4>(stream).await?)).to_string(),
        3 => {
            let [length] = read(stream).await?;
            let mut name = vec![0; usize::from(length)];
            stream.read_exact(&mut name).await?;
            String::from_utf8(name).map_err(|_| wrong())?
        }
        4 => IpAddr::from(Ipv6Addr::from(read::<16>(stream).await?)).to_string(),
        _ => return Err(wrong()),
    };
    let port = u16::from_be_bytes(read(stream).await?);
    if command != 1 {
        stream.write_all(&[5, 7, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        return Err(wrong());
    }
    Ok((host, port))
}

async fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

impl Reach {
    /// Connects to what may be reached.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfReach`]; [`ErrorKind::Unavailable`] if nothing answers there.
    pub(crate) async fn connect(self, host: &str, port: u16) -> Result<TcpStream> {
        let unavailable = |error: io::Error| {
            let shown: String = host.chars().take(260).flat_map(char::escape_debug).collect();
            Error::new(ErrorKind::Unavailable, format!("cannot connect to {shown}:{port}"))
                .because(error)
        };
        let addresses: Vec<SocketAddr> =
            self.look_up(host, port, None).await?.map_err(unavailable)?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(unavailable(last))
    }
}
