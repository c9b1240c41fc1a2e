//! A frontend in Rust with all of `std`, which on `wasm32-wasip2` is WASI. Each line of the definition
//! is a word for something that a program can ask its system for; what comes of it is a line of the log.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

wit_bindgen::generate!({
    path: ["../../../../wit/types", "../../../../wit/frontend"],
    world: "wbuild:frontend/frontend",
    generate_all,
});

use wbuild::frontend::{graph, request, results};

struct Frontend;

export!(Frontend);

impl exports::wbuild::frontend::build::Guest for Frontend {
    fn build() -> Result<(), wbuild::types::types::Failure> {
        let definition = request::definition()?.data;
        let mut seen = String::new();
        for line in String::from_utf8_lossy(&definition).lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let answer = ask(word, rest);
            println!("{word}: {answer}");
            seen += &format!("{word}: {answer}\n");
        }
        let files = graph::FileOp::new(None);
        files.write("/seen", seen.as_bytes(), &[]);
        let root = graph::file(files)?;
        let platform = request::build_platform();
        let config = format!(
            r#"{{"architecture":"{}","os":"{}","config":{{}}}}"#,
            platform.architecture, platform.os
        );
        results::image("", Some(&platform), Some(root), &config, &[])
    }
}

fn ask(word: &str, rest: &str) -> String {
    match word {
        "time" => format!("{:?}", SystemTime::now().duration_since(UNIX_EPOCH)),
        "clock" => {
            let start = Instant::now();
            format!("{:?}", start.elapsed())
        }
        "sleep" => {
            let start = Instant::now();
            std::thread::sleep(Duration::from_secs(3600));
            format!("{:?}", start.elapsed())
        }
        // As those wait who want to see something in between.
        "deadline" => {
            let end = Instant::now() + Duration::from_secs(3600);
            let mut turns = 0;
            while Instant::now() < end {
                std::thread::sleep(Duration::from_secs(60));
                turns += 1;
            }
            format!("{turns} turns")
        }
        "random" => {
            let words: HashMap<_, _> = (0..20).map(|number| (number, number)).collect();
            format!("{:?}", words.keys().collect::<Vec<_>>())
        }
        "env" => format!("{:?}", std::env::vars().collect::<Vec<_>>()),
        "args" => format!("{:?}", std::env::args().collect::<Vec<_>>()),
        "dir" => format!("{:?}", std::env::current_dir()),
        "set" => {
            unsafe { std::env::set_var("WORD", "set") };
            format!("{:?}", std::env::var("WORD"))
        }
        "read" => format!("{:?}", std::fs::read(rest)),
        "write" => format!("{:?}", std::fs::write(rest, "x")),
        "list" => format!("{:?}", std::fs::read_dir(rest).map(|_| ())),
        "mkdir" => format!("{:?}", std::fs::create_dir_all(rest)),
        "stdin" => {
            let mut text = String::new();
            format!("{:?} {text:?}", std::io::stdin().read_to_string(&mut text))
        }
        "stderr" => format!("{:?}", writeln!(std::io::stderr(), "{rest}")),
        "part" => {
            print!("{rest}");
            format!("{:?}", std::io::stdout().flush())
        }
        "much" => {
            let line = "x".repeat(999) + "\n";
            format!("{:?}", std::io::stdout().write_all(line.repeat(1_000).as_bytes()))
        }
        "terminal" => format!("{:?}", std::io::IsTerminal::is_terminal(&std::io::stdout())),
        "connect" => format!("{:?}", TcpStream::connect(rest)),
        "listen" => format!("{:?}", TcpListener::bind(rest)),
        "udp" => format!("{:?}", UdpSocket::bind(rest)),
        "resolve" => format!("{:?}", rest.to_socket_addrs().map(|all| all.count())),
        "thread" => format!("{:?}", std::thread::Builder::new().spawn(|| ()).map(|_| ())),
        "program" => format!("{:?}", std::process::Command::new(rest).status()),
        "panic" => panic!("{rest}"),
        "exit" => std::process::exit(3),
        other => format!("no word {other}"),
    }
}
