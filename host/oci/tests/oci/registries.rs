//! The registry client against docker-registry, filled by skopeo.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use wbuild_graph::Platform;
use wbuild_oci::layout::{Export, write_oci_dir};
use wbuild_oci::media::{DOCKER_LAYER_GZIP, DOCKER_MANIFEST, MediaFamily, OCI_MANIFEST};
use wbuild_oci::registry::{
    Anonymous, Client, ClientOptions, Credentials, DockerConfig, DockerCredentials, Host, Proxies,
    Retries, Trust,
};
use wbuild_oci::{ErrorKind, Reference};

use crate::layouts::{image, names, two_layers};
use crate::support::*;
use crate::tls::{self, Pair};

/// bcrypt of `s3cret-pass`, at the lowest cost.
const HTPASSWD: &str = "alice:$2b$04$abcdefghijklmnopqrstuuaUNpTaGyHErb7YklXKRt/SEtSLxPST6\n";

/// A registry that ends with the test.
struct Registry {
    child: Child,
    port: u16,
    _temp: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// `None` where docker-registry is not installed.
    fn start(passwords: bool, tls: Option<&Pair>) -> Option<Self> {
        let temp = tempfile::tempdir().expect("temp");
        // Freed just before use; a race with another process is unlikely and would show at once.
        let port =
            TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound").port();
        let data = temp.path().join("data");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {data:?}}}\n"
        );
        config.push_str(&format!("http:\n  addr: 127.0.0.1:{port}\n  secret: test\n"));
        if let Some(tls) = tls {
            config.push_str(&format!(
                "  tls: {{certificate: {:?}, key: {:?}}}\n",
                tls.certificate, tls.key
            ));
        }
        if passwords {
            let file = temp.path().join("htpasswd");
            fs::write(&file, HTPASSWD).expect("temp");
            config.push_str(&format!("auth:\n  htpasswd: {{realm: test, path: {file:?}}}\n"));
        }
        let file = temp.path().join("config.yml");
        fs::write(&file, config).expect("temp");
        let log = fs::File::create(temp.path().join("log")).expect("temp");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
            Err(e) => panic!("cannot start docker-registry: {e}"),
        };
        let registry = Registry { child, port, _temp: temp };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "docker-registry does not come up");
            thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("127.0.0.1:{}/{rest}", self.port).parse().expect("a reference")
    }
}

fn client(credentials: Arc<dyn Credentials>) -> Client {
    let retries =
        Retries { attempts: 3, first: Duration::from_millis(10), most: Duration::from_millis(50) };
    Client::new(ClientOptions { retries, ..ClientOptions::default() }, credentials)
}

/// A layout with `multi` (two platforms) and `single`.
fn make_layout(path: &Path) -> (Export, Export) {
    let blobs = two_layers();
    let two = vec![
        image("linux/amd64", &blobs, MediaFamily::Oci),
        image("linux/arm64", &blobs, MediaFamily::Oci),
    ];
    let multi = Export::new(MediaFamily::Oci, two, names(&["app:multi"]), None).expect("export");
    let single = vec![image("linux/amd64", &blobs, MediaFamily::Oci)];
    let single =
        Export::new(MediaFamily::Oci, single, names(&["app:single"]), None).expect("export");
    fs::create_dir(path).expect("fresh");
    for export in [&multi, &single] {
        write_oci_dir(&[export], &blobs, open_dir(path).as_fd()).expect("written");
    }
    (multi, single)
}

/// Copies from the layout into the registry; `None` without skopeo.
fn push(layout: &Path, tag: &str, to: &Reference, more: &[&str]) -> Option<()> {
    let (from, to) = (format!("oci:{}:{tag}", layout.display()), format!("docker://{to}"));
    let mut args = vec!["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"];
    // Nor may it look for credentials of its own.
    if !more.contains(&"--dest-creds") {
        args.push("--dest-no-creds");
    }
    args.extend_from_slice(more);
    args.extend_from_slice(&[&from, &to]);
    let output = run("skopeo", &args)?;
    assert_ran("skopeo copy", &output);
    Some(())
}

#[tokio::test]
async fn images_are_pulled() {
    let test = "images_are_pulled";
    let Some(registry) = Registry::start(false, None) else {
        return skip(test, "there is no docker-registry");
    };
    let temp = tempfile::tempdir().expect("temp");
    let layout = temp.path().join("layout");
    let (multi, single) = make_layout(&layout);
    let (to_multi, to_docker) =
        (registry.reference("team/app:multi"), registry.reference("team/docker:v2"));
    if push(&layout, "multi", &to_multi, &["--all"]).is_none() {
        return skip(test, "there is no skopeo");
    }
    push(&layout, "single", &to_docker, &["--format", "v2s2"]).expect("there a moment ago");

    let client = client(Arc::new(Anonymous));
    let resolved = client.resolve(&to_multi).await.expect("resolved");
    assert_eq!(resolved.digest, multi.root().digest);
    assert!(resolved.is_index());
    for (n, platform) in ["linux/amd64", "linux/arm64"].iter().enumerate() {
        let platform: Platform = platform.parse().expect("platform");
        let pinned = to_multi.with_digest(resolved.digest);
        let meta = client.image(&pinned, &platform).await.expect("pulled");
        assert_eq!(meta.pin(), multi.root().digest);
        assert_eq!(meta.manifest_descriptor.media_type, OCI_MANIFEST);
        assert_eq!(meta.config, multi.images()[n].config);
        let blobs = two_layers();
        let (mut one, mut two) = (Vec::new(), Vec::new());
        let layers = &meta.manifest.layers;
        let both = tokio::join!(
            client.blob(&pinned, &layers[0], &mut one),
            client.blob(&pinned, &layers[1], &mut two)
        );
        assert!(both.0.is_ok() && both.1.is_ok());
        assert_eq!((one, two), (blobs.0[0].1.clone(), blobs.0[1].1.clone()));
    }
    let s390x: Platform = "linux/s390x".parse().expect("platform");
    let error = client.image(&to_multi, &s390x).await.expect_err("no such platform");
    assert_eq!(error.kind(), ErrorKind::NotFound);

    let amd64: Platform = "linux/amd64".parse().expect("platform");
    let meta = client.image(&to_docker, &amd64).await.expect("Docker's types are accepted");
    assert_eq!(meta.manifest_descriptor.media_type, DOCKER_MANIFEST);
    assert_eq!(meta.manifest.layers[0].media_type, DOCKER_LAYER_GZIP);
    assert_eq!(meta.config.diff_ids(), single.images()[0].config.diff_ids());

    for absent in ["team/app:none", "team/none:latest"] {
        let error = client.resolve(&registry.reference(absent)).await.expect_err(absent);
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    // A port that nobody gets by chance.
    let gone = "127.0.0.1:1/a/b".parse().expect("a reference");
    let error = client.resolve(&gone).await.expect_err("nobody listens any more");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(wbuild_graph::Failure::from(error).retryable);
}

#[tokio::test]
async fn passwords_are_used() {
    let test = "passwords_are_used";
    let Some(registry) = Registry::start(true, None) else {
        return skip(test, "there is no docker-registry");
    };
    let temp = tempfile::tempdir().expect("temp");
    let layout = temp.path().join("layout");
    let (_, single) = make_layout(&layout);
    let reference = registry.reference("private/app:v1");
    if push(&layout, "single", &reference, &["--dest-creds", "alice:s3cret-pass"]).is_none() {
        return skip(test, "there is no skopeo");
    }
    let docker = |password: &str| {
        let text = format!(
            r#"{{"auths":{{"http://127.0.0.1:{}/v2/":{{"username":"alice","password":"{password}"}}}}}}"#,
            registry.port
        );
        let config = DockerConfig::parse(&text).expect("valid");
        client(Arc::new(DockerCredentials::new(config, None)))
    };
    let platform: Platform = "linux/amd64".parse().expect("platform");
    let meta = docker("s3cret-pass").image(&reference, &platform).await.expect("with the password");
    assert_eq!(meta.pin(), single.root().digest);
    for client in [docker("wrong"), client(Arc::new(Anonymous))] {
        let error = client.image(&reference, &platform).await.expect_err("without it");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(!wbuild_graph::Failure::from(error).hints.is_empty());
    }
}

/// A proxy that leads every tunnel to `port`.
fn tunnel(port: u16) -> u16 {
    use std::io::{BufRead, BufReader};
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let own = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = BufReader::new(client.try_clone().expect("a socket"));
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                    line.clear();
                }
                let mut client = client;
                let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)) else { return };
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("answers");
                let (mut up, mut down) =
                    (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
                thread::spawn(move || std::io::copy(&mut reader, &mut up));
                let _ = std::io::copy(&mut server, &mut down);
            });
        }
    });
    own
}

#[tokio::test]
async fn certificates_are_checked() {
    let test = "certificates_are_checked";
    let temp = tempfile::tempdir().expect("temp");
    let make = |name| tls::make(temp.path(), name);
    let (Some(ours), Some(other)) = (make("ours"), make("other")) else {
        return skip(test, "there is no openssl");
    };
    let Some(registry) = Registry::start(false, Some(&ours)) else {
        return skip(test, "there is no docker-registry");
    };
    let layout = temp.path().join("layout");
    let (_, single) = make_layout(&layout);
    if push(&layout, "single", &registry.reference("a/b:v1"), &[]).is_none() {
        return skip(test, "there is no skopeo");
    }
    let proxy = format!("http://127.0.0.1:{}", tunnel(registry.port));
    let client = |roots: &[&PathBuf]| {
        let extra_roots = roots.iter().map(|path| fs::read(path).expect("made")).collect();
        let retries = Retries { attempts: 1, ..Retries::default() };
        let proxies = Proxies { https: Some(proxy.clone()), ..Proxies::default() };
        let options = ClientOptions { proxies, retries, ..ClientOptions::default() };
        let trust = Trust { extra_roots, ..Trust::default() };
        let host = Host { trust, ..Host::default() };
        let names = ["registry.test", "other.test"].map(str::to_owned);
        let hosts: BTreeMap<_, _> = names.map(|name| (name, host.clone())).into();
        Client::with_hosts(options, Arc::new(Anonymous), Arc::new(hosts))
    };
    let reference: Reference = "registry.test/a/b:v1".parse().expect("a reference");
    let found = client(&[&ours.certificate]).resolve(&reference).await.expect("trusted");
    assert_eq!(found.digest, single.root().digest);
    let elsewhere: Reference = "other.test/a/b:v1".parse().expect("a reference");
    for (name, roots, reference) in [
        ("unknown authority", &other.certificate, &reference),
        ("another name", &ours.certificate, &elsewhere),
    ] {
        let error = client(&[roots]).resolve(reference).await.expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Denied, "{name}: {error}");
        let shown = wbuild_graph::Failure::from(error).to_string();
        assert!(shown.contains("certificate"), "{name}: {shown}");
    }
}
