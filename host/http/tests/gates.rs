//! Gates, over real connections on this machine.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use wbuild_http::{ErrorKind, Gate, GateLimits, Proxies, Reach};

/// A server that answers each connection with its request, backwards.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || {
                let mut word = [0; 4];
                while stream.read_exact(&mut word).is_ok() {
                    word.reverse();
                    let _ = stream.write_all(&word);
                }
            });
        }
    });
    port
}

fn open(gate: &Gate) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, gate.port())).expect("the gate");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

/// Asks for a connection; the code of the answer, none if the gate hangs up.
fn ask(stream: &mut TcpStream, command: u8, kind: u8, address: &[u8], port: u16) -> Option<u8> {
    stream.write_all(&[5, 1, 0]).ok()?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).ok()?;
    let request = [&[5, command, 0, kind][..], address, &port.to_be_bytes()].concat();
    stream.write_all(&request).ok()?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).ok()?;
    Some(answer[1])
}

fn name(name: &str) -> Vec<u8> {
    [&[u8::try_from(name.len()).expect("short")], name.as_bytes()].concat()
}

fn talk(stream: &mut TcpStream) -> Option<[u8; 4]> {
    stream.write_all(b"abcd").ok()?;
    let mut word = [0; 4];
    stream.read_exact(&mut word).ok()?;
    Some(word)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_made_to_what_is_asked_for() {
    let port = server();
    let gate = Gate::anywhere(Reach::Everything, GateLimits::default(), Proxies::default(), "http")
        .await
        .expect("a gate");
    for (kind, address) in [(1, vec![127, 0, 0, 1]), (3, name("localhost")), (3, name("127.0.0.1"))]
    {
        let mut stream = open(&gate);
        assert_eq!(ask(&mut stream, 1, kind, &address, port), Some(0));
        assert_eq!(talk(&mut stream).as_ref(), Some(b"dcba"));
    }
    assert_eq!(gate.received(), 12);
    assert!(gate.take_failure().is_none());
    // A way to one place asks nothing.
    let gate = Gate::to(Reach::Everything, GateLimits::default(), "localhost", port).await;
    let gate = gate.expect("a gate");
    let mut stream = open(&gate);
    assert_eq!(talk(&mut stream).as_ref(), Some(b"dcba"));
    // It ends with its connections.
    drop(gate);
    assert_eq!(talk(&mut stream), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inner_addresses_are_not_reached() {
    let port = server();
    let gate = Gate::anywhere(Reach::Public, GateLimits::default(), Proxies::default(), "http")
        .await
        .expect("a gate");
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
    for (kind, address) in [
        (1, vec![127, 0, 0, 1]),
        (1, vec![169, 254, 169, 254]),
        (1, vec![10, 0, 0, 1]),
        (4, mapped.to_vec()),
        (4, [vec![0; 15], vec![1]].concat()),
        (3, name("localhost")),
        (3, name("LOCALHOST.")),
        (3, name("127.0.0.1")),
        (3, name("[::1]")),
        (3, name("2130706433")),
        (3, name("127.1")),
    ] {
        assert_eq!(ask(&mut open(&gate), 1, kind, &address, port), Some(2), "{address:?}");
        let failure = gate.take_failure().expect("a reason");
        assert_eq!(failure.kind, ErrorKind::OutOfReach, "{address:?}");
    }
    let gate = Gate::to(Reach::Public, GateLimits::default(), "127.0.0.1", port).await;
    assert_eq!(talk(&mut open(&gate.expect("a gate"))), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_requests_are_refused() {
    let port = server();
    let gate = Gate::anywhere(Reach::Everything, GateLimits::default(), Proxies::default(), "http")
        .await
        .expect("a gate");
    // To listen, to pass datagrams on; an address of a kind that is none; what is no SOCKS 5.
    assert_eq!(ask(&mut open(&gate), 2, 1, &[127, 0, 0, 1], port), Some(7));
    assert_eq!(ask(&mut open(&gate), 3, 1, &[127, 0, 0, 1], port), Some(7));
    assert_eq!(ask(&mut open(&gate), 1, 9, &[127, 0, 0, 1], port), None);
    let mut stream = open(&gate);
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    assert!(!matches!(stream.read(&mut [0; 1]), Ok(1)));
    assert_eq!(gate.received(), 0);
    // Where nobody listens.
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let free = nobody.local_addr().expect("an address").port();
    drop(nobody);
    assert_eq!(ask(&mut open(&gate), 1, 1, &[127, 0, 0, 1], free), Some(4));
    assert_eq!(gate.take_failure().expect("a reason").kind, ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_in_is_limited() {
    let port = server();
    let limits = GateLimits { bytes: 10, ..GateLimits::default() };
    let gate = Gate::to(Reach::Everything, limits, "127.0.0.1", port).await.expect("a gate");
    let mut stream = open(&gate);
    assert!(talk(&mut stream).is_some() && talk(&mut stream).is_some());
    assert_eq!(talk(&mut stream), None);
    assert_eq!(gate.take_failure().expect("a reason").kind, ErrorKind::Limit);
    let limits = GateLimits { stall: Duration::from_millis(100), ..GateLimits::default() };
    let gate = Gate::to(Reach::Everything, limits, "127.0.0.1", port).await.expect("a gate");
    let mut stream = open(&gate);
    stream.write_all(b"abc").expect("sent");
    assert!(!matches!(stream.read(&mut [0; 1]), Ok(1)));
    assert_eq!(gate.take_failure().expect("a reason").kind, ErrorKind::Unavailable);
}

/// A proxy that leads everybody to one server, if they say who they are; it notes what it is asked.
fn proxy(server: u16, auth: Option<&'static str>) -> (u16, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (asked, heads) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut near = stream.expect("a connection");
            let asked = asked.clone();
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && near.read_exact(&mut byte).is_ok() {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let known = auth.is_none_or(|auth| head.contains(auth));
                let _ = asked.send(head);
                if !known {
                    let _ = near.write_all(b"HTTP/1.1 407 Who?\r\n\r\n");
                    return;
                }
                let mut far = TcpStream::connect(("127.0.0.1", server)).expect("the server");
                let _ = near.write_all(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n");
                let mut word = [0; 4];
                while near.read_exact(&mut word).is_ok() {
                    far.write_all(&word).expect("sent");
                    far.read_exact(&mut word).expect("an answer");
                    let _ = near.write_all(&word);
                }
            });
        }
    });
    (port, heads)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_in_between() {
    let server = server();
    let (port, heads) = proxy(server, Some("Proxy-Authorization: Basic dTpw"));
    let with = |url: String, except: &str| Proxies {
        https: Some(url),
        http: None,
        except: Some(except.to_owned()),
    };
    let open_gate = async |reach, proxies| {
        Gate::anywhere(reach, GateLimits::default(), proxies, "https").await.expect("a gate")
    };
    // The proxy may lie inside although nothing else may be reached there.
    let proxies = with(format!("http://u:p@127.0.0.1:{port}"), "");
    let gate = open_gate(Reach::Public, proxies.clone()).await;
    let mut stream = open(&gate);
    assert_eq!(ask(&mut stream, 1, 3, &name("git.example"), 8443), Some(0));
    assert_eq!(talk(&mut stream).as_ref(), Some(b"dcba"));
    let head = heads.recv().expect("a request");
    assert!(
        head.starts_with("CONNECT git.example:8443 HTTP/1.1\r\nHost: git.example:8443\r\n"),
        "{head}"
    );
    // What leads inside is not handed over; this machine and exceptions are asked directly.
    for inner in ["10.0.0.1", "169.254.169.254", "localhost", "127.0.0.1", "2130706433"] {
        assert_eq!(ask(&mut open(&gate), 1, 3, &name(inner), 443), Some(2), "{inner}");
        assert_eq!(gate.take_failure().expect("a reason").kind, ErrorKind::OutOfReach, "{inner}");
    }
    let gate = open_gate(Reach::Everything, proxies).await;
    let mut stream = open(&gate);
    assert_eq!(ask(&mut stream, 1, 3, &name("localhost"), server), Some(0));
    assert_eq!(talk(&mut stream).as_ref(), Some(b"dcba"));
    assert!(heads.try_recv().is_err());
    // One that wants to know who asks.
    let gate = open_gate(Reach::Public, with(format!("127.0.0.1:{port}"), "")).await;
    assert_eq!(ask(&mut open(&gate), 1, 3, &name("git.example"), 443), Some(4));
    let failure = gate.take_failure().expect("a reason");
    assert_eq!(failure.kind, ErrorKind::Denied);
    let gate = open_gate(Reach::Public, with("https://127.0.0.1:1".to_owned(), "")).await;
    assert_eq!(ask(&mut open(&gate), 1, 3, &name("git.example"), 443), Some(4));
    assert!(gate.take_failure().expect("a reason").hint.is_some());
}
