//! Repositories over ssh, from a real server. Without one here, or what it needs, nothing is tested;
//! where everything has to be there (`WBUILD_TEST_REQUIRE=1`) that is a failure.

#[path = "../../../tests/src/git.rs"]
#[allow(dead_code, missing_docs)]
mod server;
mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Place, id, remote};
use wbuild_git::{Access, Revision, Want};
use wbuild_graph::{Failure, FailureKind};

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(program: &str, args: &[&str], env: &[(&str, &Path)]) -> String {
    let output = Command::new(program).args(args).envs(env.iter().copied()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A server that lets in who has the key `user` of the place; its port. None if it does not run here.
fn sshd(place: &Place) -> Option<(Running, u16)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let program = folders.find_map(|dir| Some(dir.join("sshd")).filter(|path| path.is_file()))?;
    if rustix::process::geteuid().is_root() {
        // Where it runs as a service the system makes it.
        let _ = std::fs::create_dir("/run/sshd");
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr();
    let port = port.expect("an address").port();
    let at = |name: &str| place.path(name).display().to_string();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
         UsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n",
        at("host"),
        at("user.pub"),
    );
    std::fs::write(place.path("sshd_config"), config).expect("configuration");
    let child = Command::new(program)
        .args(["-D", "-e", "-f", &at("sshd_config")])
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(place.path("sshd.log")).expect("a log"))
        .spawn()
        .ok()?;
    let mut server = Running(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = server.0.try_wait().expect("a process").is_some();
        if ended || Instant::now() > deadline {
            let log = std::fs::read_to_string(place.path("sshd.log")).unwrap_or_default();
            eprintln!("sshd ends: {log}");
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Some((server, port))
}

fn agent(place: &Place, name: &str) -> (Running, PathBuf) {
    let socket = place.path(name);
    let mut command = Command::new("ssh-agent");
    command.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null());
    let agent = Running(command.spawn().expect("ssh-agent"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !socket.exists() {
        assert!(Instant::now() < deadline, "ssh-agent does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    (agent, socket)
}

#[tokio::test]
async fn the_agent_and_known_servers() {
    let place = Place::new();
    for name in ["host", "user"] {
        let file = place.path(name).display().to_string();
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &file], &[]);
    }
    let Some((_server, port)) = sshd(&place) else {
        let required = std::env::var_os("WBUILD_TEST_REQUIRE").is_some_and(|value| value == "1");
        assert!(!required, "must not be skipped here: sshd does not run");
        eprintln!("skipped: the_agent_and_known_servers: sshd does not run here");
        return;
    };
    let (_agent, with_key) = agent(&place, "agent");
    let (_empty, without_key) = agent(&place, "empty");
    let key = place.path("user").display().to_string();
    run("ssh-add", &["-q", &key], &[("SSH_AUTH_SOCK", &with_key)]);

    let repo = place.repo("a b.git");
    repo.write("file", "content").expect("file");
    let commit = id(&repo.commit("first").expect("commit"));
    let user = run("id", &["-un"], &[]);
    let path = repo.path().display().to_string().replace(' ', "%20");
    let remote = remote(&format!("ssh://{user}@127.0.0.1:{port}{path}"));
    let line = |key: &str| {
        let key = std::fs::read_to_string(place.path(key)).expect("a key");
        let words: Vec<&str> = key.split(' ').take(2).collect();
        format!("[127.0.0.1]:{port} {}\n", words.join(" ")).into_bytes()
    };
    let kept = place.kept().await;
    let access = |agent: Option<&PathBuf>, known_hosts: Vec<u8>| Access {
        authorization: None,
        agent: agent.cloned(),
        known_hosts,
    };
    let ask = async |access: &Access| kept.advertised(&remote, access).await;
    let hinted = |failure: Failure, hint: &str| {
        assert_eq!(failure.kind, FailureKind::Denied, "{failure}");
        assert!(failure.hints.iter().any(|text| text.contains(hint)), "{failure:?}");
    };
    let good = access(Some(&with_key), line("host.pub"));
    let offered = ask(&good).await.expect("let in");
    let found = offered.find(&Revision::Default).expect("a commit");
    assert_eq!(found.commit, commit);
    let want = Want { commit: &commit, name: found.name.as_ref(), tag: None };
    kept.fetch(&remote, &good, &want).await.expect("fetched");
    let tree = kept.tree(&commit, "").await.expect("a tree");
    let out = place.out("ssh");
    kept.checkout(&commit, &tree, &out).await.expect("files");
    assert_eq!(std::fs::read_to_string(out.join("file")).expect("file"), "content");

    let unknown = access(Some(&with_key), Vec::new());
    hinted(ask(&unknown).await.expect_err("unknown"), "ssh-keyscan -p");
    // Somebody else answers in its place.
    let other = access(Some(&with_key), line("user.pub"));
    hinted(ask(&other).await.expect_err("another key"), "known_hosts");
    let stranger = access(None, line("host.pub"));
    hinted(ask(&stranger).await.expect_err("no agent"), "--ssh default");
    let no_key = access(Some(&without_key), line("host.pub"));
    hinted(ask(&no_key).await.expect_err("no key"), "ssh-add -l");
}
