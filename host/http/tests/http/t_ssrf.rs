//! T-SSRF: a download that may reach the public internet only connects to nothing else, however the
//! address is written, wherever a redirect leads, and whatever a name means from one moment to the next.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderMap;
use wbuild_http::{
    Clients, Download, Downloaded, Error, ErrorKind, Lookup, Options, Proxies, Reach, Retries,
    Sink, download,
};

/// Ways to write what must not be reached; `P` is the port of the listener that nobody may reach.
const FORMS: &[&str] = &[
    // This machine.
    "http://127.0.0.1:P/",
    "http://127.1:P/",
    "http://127.0.1:P/",
    "http://2130706433:P/",
    "http://0x7f000001:P/",
    "http://0x7f.0.0.1:P/",
    "http://0x7f.1:P/",
    "http://0177.0.0.1:P/",
    "http://017700000001:P/",
    "http://127.0.0.1.:P/",
    "http://127.127.127.127:P/",
    "http://0.0.0.0:P/",
    "http://0:P/",
    "http://localhost:P/",
    "http://LocalHost:P/",
    "http://localhost.:P/",
    "http://anything.localhost:P/",
    "http://[::1]:P/",
    "http://[::]:P/",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]:P/",
    "http://[::ffff:127.0.0.1]:P/",
    "http://[::ffff:7f00:1]:P/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:P/",
    "http://[::127.0.0.1]:P/",
    "http://[64:ff9b::127.0.0.1]:P/",
    "http://[2002:7f00:1::1]:P/",
    "http://[2001::80ff:fffe]:P/",
    // Users and what looks like a host.
    "http://user@127.0.0.1:P/",
    "http://user:password@127.0.0.1:P/",
    "http://example.org@127.0.0.1:P/",
    "http://example.org:80@127.0.0.1:P/",
    "http://example.org%2f@127.0.0.1:P/",
    "http://127.0.0.1:P#@example.org/",
    "http://127.0.0.1:P?@example.org/",
    "http://127.0.0.1:P\\@example.org/",
    // Other digits, other dots, blanks, escapes.
    "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1:P/",
    "http://127\u{3002}0\u{3002}0\u{3002}1:P/",
    "http://%31%32%37.0.0.1:P/",
    "http://127.0.\t0.1:P/",
    "  http://127.0.0.1:P/",
    "HTTP:127.0.0.1:P/",
    "http:/\\127.0.0.1:P/",
    // Its links and private networks.
    "http://169.254.169.254/latest/meta-data/",
    "http://0xa9fea9fe/",
    "http://2852039166/",
    "http://[::ffff:169.254.169.254]/",
    "http://[fe80::1]/",
    "http://[fd00:ec2::254]/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://100.64.0.1/",
    "http://[fd12::1]/",
    // With encryption.
    "https://127.0.0.1:P/",
    "https://[::ffff:127.0.0.1]:P/",
    "https://169.254.169.254/",
    // Names that are looked up.
    "http://inside.example:P/",
    "http://metadata.example/",
    "http://both-inside.example:P/",
    "https://inside.example:P/",
];

/// What the names above mean, and some more.
fn lookup() -> Lookup {
    let turn = AtomicUsize::new(0);
    Lookup::new(move |name| {
        let addresses: &[&str] = match name.trim_end_matches('.') {
            "inside.example" => &["127.0.0.1"],
            "metadata.example" => &["169.254.169.254"],
            "both-inside.example" => &["::ffff:127.0.0.1", "10.0.0.1"],
            // Something that is public (RFC 5737: nobody is there), and this machine the next time.
            "turning.example" => match turn.fetch_add(1, Ordering::Relaxed) % 2 {
                0 => &["192.0.2.1"],
                _ => &["127.0.0.1"],
            },
            "of-both-kinds.example" => &["127.0.0.1", "::1", "192.0.2.1"],
            _ => return Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        Ok(addresses.iter().map(|text| text.parse::<IpAddr>().expect("an address")).collect())
    })
}

/// Counts who connects to a port of this machine, by whatever address.
struct Trap {
    port: u16,
    caught: Arc<AtomicUsize>,
}

impl Trap {
    fn new() -> Trap {
        // Both families, where there are two.
        let listener = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0"));
        let listener = listener.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let caught = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&caught);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let _ = lines.take_while(|line| !line.is_empty()).count();
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret");
            }
        });
        Trap { port, caught }
    }

    fn caught(&self) -> usize {
        // What has connected may not have been accepted yet.
        std::thread::sleep(Duration::from_millis(20));
        self.caught.load(Ordering::SeqCst)
    }
}

/// A proxy that stands for the whole internet: it answers each request with a redirect to what it was
/// told last, and notes what it was asked for.
struct Internet {
    url: String,
    location: Arc<Mutex<String>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Internet {
    fn new() -> Internet {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (location, asked) = (Arc::new(Mutex::new(String::new())), Arc::default());
        let (to, noted): (_, Arc<Mutex<Vec<String>>>) = (Arc::clone(&location), Arc::clone(&asked));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                noted.lock().expect("no panic").push(lines.next().unwrap_or_default());
                let _ = lines.take_while(|line| !line.is_empty()).count();
                let to = to.lock().expect("no panic").clone();
                let head = "HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\n";
                let _ = stream.write_all(format!("{head}Location: {to}\r\n\r\n").as_bytes());
            }
        });
        Internet { url, location, asked }
    }
}

#[derive(Default)]
struct Memory(Vec<u8>);

impl Sink for Memory {
    fn begin(&mut self, _: Option<u64>) -> io::Result<()> {
        self.0.clear();
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }
}

async fn get(url: &Url, reach: Reach, proxies: Proxies) -> Result<Vec<u8>, Error> {
    let clients = Clients::new(Options {
        reach,
        proxies,
        lookup: Some(lookup()),
        connect_timeout: Duration::from_millis(200),
        stall_timeout: Duration::from_secs(2),
        ..Options::default()
    });
    let short = Duration::from_millis(1);
    let retries = Retries { attempts: 3, first: short, most: short };
    let wanted = Download {
        url,
        what: "the file",
        headers: HeaderMap::new(),
        authorization: None,
        known: None,
        limit: 1 << 20,
    };
    let mut memory = Memory::default();
    let done = download(&clients, retries, &wanted, &mut memory).await?;
    assert!(matches!(done, Downloaded::New(_)));
    Ok(memory.0)
}

fn through(internet: &Internet) -> Proxies {
    let url = Some(internet.url.clone());
    Proxies { https: url.clone(), http: url, except: None }
}

#[tokio::test]
async fn t_ssrf_no_way_of_writing_it_reaches_what_is_inside() {
    assert!(FORMS.len() >= 40);
    let (trap, internet) = (Trap::new(), Internet::new());
    for form in FORMS {
        let form = form.replace(":P", &format!(":{}", trap.port));
        // What is no URL cannot be asked for.
        let Ok(url) = Url::parse(&form) else { continue };
        for proxies in [Proxies::default(), through(&internet)] {
            let error = get(&url, Reach::Public, proxies).await.expect_err(&form);
            assert_eq!(error.kind, ErrorKind::OutOfReach, "{form}: {error}");
            assert!(!error.message.contains("password"), "{error}");
        }
    }
    assert_eq!(trap.caught(), 0);
    assert!(internet.asked.lock().expect("no panic").is_empty(), "the proxy was asked");
    // The trap works.
    let url = Url::parse(&format!("http://127.0.0.1:{}/", trap.port)).expect("a URL");
    let got = get(&url, Reach::Everything, Proxies::default()).await.expect("reachable");
    assert_eq!((&got[..], trap.caught()), (&b"secret"[..], 1));
}

#[tokio::test]
async fn t_ssrf_no_redirect_leads_inside() {
    let (trap, internet) = (Trap::new(), Internet::new());
    let start = Url::parse("http://public.example/start").expect("a URL");
    for form in FORMS.iter().chain(&["file:///etc/passwd", "gopher://127.0.0.1:P/", "//127.1:P/"]) {
        let form = form.replace(":P", &format!(":{}", trap.port));
        *internet.location.lock().expect("no panic") = form.clone();
        let error = get(&start, Reach::Public, through(&internet)).await.expect_err(&form);
        let refused = [ErrorKind::OutOfReach, ErrorKind::Denied, ErrorKind::Invalid];
        assert!(refused.contains(&error.kind), "{form}: {error}");
    }
    assert_eq!(trap.caught(), 0);
    let asked = internet.asked.lock().expect("no panic");
    // A location in other than ASCII is none, and one that is a path leads back to where it was.
    let home = |line: &&String| line.starts_with("GET http://public.example/");
    let others: Vec<&String> = asked.iter().filter(|line| !home(line)).collect();
    assert!(others.is_empty() && asked.len() >= FORMS.len(), "{others:?}");
}

#[tokio::test]
async fn t_ssrf_a_name_that_changes_its_meaning_leads_nowhere() {
    let trap = Trap::new();
    for name in ["turning.example", "of-both-kinds.example"] {
        let url = Url::parse(&format!("http://{name}:{}/", trap.port)).expect("a URL");
        for _ in 0..4 {
            let error = get(&url, Reach::Public, Proxies::default()).await.expect_err(name);
            let refused = [ErrorKind::OutOfReach, ErrorKind::Unavailable];
            assert!(refused.contains(&error.kind), "{name}: {error}");
        }
    }
    assert_eq!(trap.caught(), 0);
}

#[tokio::test]
async fn proxies_are_used_where_they_should() {
    let (trap, internet) = (Trap::new(), Internet::new());
    *internet.location.lock().expect("no panic") = "http://[".to_owned();
    let port = trap.port;
    for (url, except, direct) in [
        ("http://public.example/".to_owned(), None, false),
        // This machine, and exceptions.
        (format!("http://127.0.0.1:{port}/"), None, true),
        (format!("http://[::1]:{port}/"), None, true),
        (format!("http://inside.example:{port}/"), None, false),
        (format!("http://inside.example:{port}/"), Some("inside.example"), true),
        (format!("http://inside.example:{port}/"), Some(".example"), true),
        (format!("http://inside.example:{port}/"), Some("*"), true),
        (format!("http://inside.example:{port}/"), Some("example.org, 10.0.0.0/8"), false),
    ] {
        internet.asked.lock().expect("no panic").clear();
        let except = except.map(str::to_owned);
        let proxies = Proxies { except, ..through(&internet) };
        let url = Url::parse(&url).expect("a URL");
        let got = get(&url, Reach::Everything, proxies).await;
        assert_eq!(got.is_ok(), direct, "{url}: {got:?}");
        assert_eq!(internet.asked.lock().expect("no panic").is_empty(), direct, "{url}");
    }
}
