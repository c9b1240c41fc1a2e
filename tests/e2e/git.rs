//! Git repositories from git's own servers.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use wbuild_tests::git::{Asked, Behaviour, Daemon, HttpServer, Repo, git};
use wbuild_tests::run::{DEADLINE, Run};
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::tree::Node;
use wbuild_tests::{machine, skip};

use crate::Test;

pub const TESTS: &[Test] = &[
    ("files", files),
    ("references", references),
    ("nothing_is_fetched_twice", nothing_is_fetched_twice),
    ("checksums", checksums),
    ("contexts", contexts),
    ("git_directories", git_directories),
    ("submodules", submodules),
    ("private_repositories", private_repositories),
    ("tokens_stay_with_their_host", tokens_stay_with_their_host),
    ("this_machine_is_not_reached_unasked", this_machine_is_not_reached_unasked),
    ("the_git_protocol", the_git_protocol),
    ("certificates", certificates),
    ("times_of_commits", times_of_commits),
    ("what_is_not_there", what_is_not_there),
    ("builds_that_are_ended", builds_that_are_ended),
];

const ALLOW: &str = "--allow=network.private";

/// Repositories, a server, and a sandbox.
struct World {
    sandbox: Sandbox,
    server: HttpServer,
}

impl World {
    fn new(name: &str) -> Result<World> {
        skip::need_program("git")?;
        let sandbox = Sandbox::new(name)?;
        std::fs::create_dir(sandbox.path("served"))?;
        let server = HttpServer::start(&sandbox.path("served"))?;
        Ok(World { sandbox, server })
    }

    fn repo(&self, name: &str) -> Result<Repo> {
        Repo::new(self.sandbox.path("served").join(name))
    }

    /// Writes the Dockerfile; `URL/` stands for the server.
    fn dockerfile(&self, text: &str) -> Result<()> {
        self.sandbox.write("Dockerfile", &text.replace("URL/", &self.server.url("")))
    }

    /// Builds the files into `out`.
    fn out(&self, args: &[&str]) -> Result<Run> {
        let out = self.sandbox.path("out");
        let _ = std::fs::remove_dir_all(&out);
        let dest = format!("-o={}", out.display());
        self.sandbox.build(&[&[ALLOW, &dest], args].concat())
    }

    fn read(&self, path: &str) -> Result<String> {
        let path = self.sandbox.path("out").join(path);
        std::fs::read_to_string(&path)
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
    }
}

fn executable(path: &Path) -> Result<()> {
    Ok(std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o775))?)
}

fn files() -> Result<()> {
    let world = World::new("git-files")?;
    let repo = world.repo("a.git")?;
    repo.write("file", "content\n")?;
    repo.write("sub/run", "#!/bin/sh\n")?;
    executable(&repo.path().join("sub/run"))?;
    std::os::unix::fs::symlink("sub/run", repo.path().join("link"))?;
    repo.write(".dockerignore", "file\n")?;
    repo.commit("first")?;
    world.dockerfile(
        "FROM base\n\
         ADD URL/a.git /whole/\n\
         ADD URL/a.git#main:sub /sub/\n\
         ADD URL/a.git?subdir=sub&branch=main /query/\n\
         ADD --chown=7:8 --chmod=700 --exclude=sub URL/a.git /mine/\n\
         RUN cat /whole/link && /whole/sub/run\n",
    )?;
    let (_, image) = world.sandbox.image("image", &[ALLOW])?;
    let listing = image.tree.listing();
    for (path, mode, owner) in [
        ("/whole/file", 0o644, (0, 0)),
        ("/whole/sub", 0o755, (0, 0)),
        ("/whole/sub/run", 0o755, (0, 0)),
        ("/whole/.dockerignore", 0o644, (0, 0)),
        ("/sub/run", 0o755, (0, 0)),
        ("/query/run", 0o755, (0, 0)),
        ("/mine/file", 0o700, (7, 8)),
    ] {
        let entry = image.tree.get(path)?;
        ensure!(entry.mode == mode, "{path}: {listing}");
        ensure!((entry.uid, entry.gid) == owner, "{path}: {listing}");
    }
    let link = image.tree.get("/whole/link")?;
    ensure!(matches!(&link.node, Node::Symlink(target) if target == "sub/run"), "{listing}");
    for absent in ["/whole/.git", "/mine/sub", "/sub/file"] {
        ensure!(image.tree.get(absent).is_err(), "{absent}: {listing}");
    }
    Ok(())
}

fn references() -> Result<()> {
    let world = World::new("git-references")?;
    let repo = world.repo("a.git")?;
    repo.write("file", "one")?;
    let first = repo.commit("first")?;
    repo.git(["tag", "-a", "-m", "a tag", "v1"])?;
    repo.git(["branch", "old"])?;
    repo.write("file", "two")?;
    repo.commit("second")?;
    for (reference, content) in [
        ("", "two"),
        ("#main", "two"),
        ("#old", "one"),
        ("#v1", "one"),
        ("#refs/tags/v1", "one"),
        ("?tag=v1", "one"),
        ("?branch=old", "one"),
        (&format!("#{first}"), "one"),
        (&format!("#{}", &first[..8]), "one"),
        (&format!("?commit={first}"), "one"),
        (&format!("?branch=main&checksum={first}&fetch-by-commit=1"), "one"),
    ] {
        world.dockerfile(&format!("FROM scratch\nADD URL/a.git{reference} /\n"))?;
        world.out(&[])?.success()?;
        ensure!(world.read("file")? == content, "{reference}");
    }
    Ok(())
}

fn nothing_is_fetched_twice() -> Result<()> {
    let world = World::new("git-cached")?;
    let repo = world.repo("a.git")?;
    repo.write("file", "one\n")?;
    let commit = repo.commit("first")?;
    repo.git(["tag", "v1"])?;
    world.dockerfile("FROM base\nADD URL/a.git#v1 /src\nRUN cat /src/file\n")?;
    let run = world.out(&[])?.success()?;
    run.says("fetch http://")?;
    world.server.take_requests();
    let posts = |world: &World| -> usize {
        let asked = world.server.take_requests();
        asked.iter().filter(|asked| asked.target.ends_with("/git-upload-pack")).count()
    };
    let run = world.out(&[])?.success()?;
    run.never_says("fetch http://")?;
    ensure!(run.end_of("RUN cat")? == "CACHED", "{}", run.stderr);
    // Asked for what there is, once.
    ensure!(posts(&world) <= 1);
    // Another name of the same commit is the same source.
    world.dockerfile("FROM base\nADD URL/a.git /src\nRUN cat /src/file\n")?;
    let run = world.out(&[])?.success()?;
    ensure!(run.end_of("RUN cat")? == "CACHED", "{}", run.stderr);
    // With the whole commit nobody is asked.
    world.server.take_requests();
    world.dockerfile(&format!("FROM base\nADD URL/a.git#{commit} /src\nRUN cat /src/file\n"))?;
    let run = world.out(&[])?.success()?;
    ensure!(run.end_of("RUN cat")? == "CACHED", "{}", run.stderr);
    ensure!(world.server.take_requests().is_empty());
    // A tag that moves is another commit.
    repo.write("file", "two\n")?;
    repo.commit("second")?;
    repo.git(["tag", "-f", "v1"])?;
    world.dockerfile("FROM base\nADD URL/a.git#v1 /src\nRUN cat /src/file\n")?;
    let run = world.out(&[])?.success()?;
    run.says("two")?;
    // A stage with other options of the same commit needs no transfer.
    world.dockerfile("FROM base\nADD --keep-git-dir URL/a.git#v1 /src\n")?;
    let run = world.out(&[])?.success()?;
    run.never_says("fetch http://")?;
    Ok(())
}

fn checksums() -> Result<()> {
    let world = World::new("git-checksums")?;
    let repo = world.repo("a.git")?;
    let first = repo.commit("first")?;
    repo.write("file", "x")?;
    let second = repo.commit("second")?;
    for checksum in [&second[..], &second[..7]] {
        let line = format!("FROM scratch\nADD --checksum={checksum} URL/a.git#main /\n");
        world.dockerfile(&line)?;
        world.out(&[])?.success()?;
    }
    world.dockerfile(&format!("FROM scratch\nADD --checksum={first} URL/a.git#main /\n"))?;
    let run = world.out(&[])?.expect(1)?;
    run.says(&first)?;
    run.says(&second)?;
    run.says("Dockerfile:2")?;
    Ok(())
}

fn contexts() -> Result<()> {
    let world = World::new("git-contexts")?;
    let repo = world.repo("a.git")?;
    repo.write("in", "inside")?;
    repo.write("tree/in", "deeper")?;
    repo.commit("first")?;
    world.dockerfile("FROM scratch\nCOPY in /main\nCOPY --from=other in /other\n")?;
    let url = world.server.url("a.git");
    let out = world.sandbox.path("out");
    let output = format!("-o={}", out.display());
    let context = format!("--build-context=other={url}#main:tree");
    let file = world.sandbox.path("context/Dockerfile").display().to_string();
    world.sandbox.run(["build", ALLOW, &context, "-f", &file, &output, &url])?.success()?;
    ensure!(world.read("main")? == "inside");
    ensure!(world.read("other")? == "deeper");
    Ok(())
}

fn git_directories() -> Result<()> {
    let world = World::new("git-directories")?;
    let repo = world.repo("a.git")?;
    repo.write("a/file", "one\n")?;
    repo.commit("first")?;
    repo.write("win.bat", "a\nb\n")?;
    repo.write(".gitattributes", "*.bat text eol=crlf\n")?;
    std::os::unix::fs::symlink("a/file", repo.path().join("link"))?;
    let commit = repo.commit("second")?;
    repo.git(["tag", "-a", "-m", "a tag", "v1"])?;
    world.dockerfile("FROM scratch\nADD --keep-git-dir=true URL/a.git#v1 /src\n")?;
    world.out(&[])?.success()?;
    let src = world.sandbox.path("out/src");
    let ask = |args: &[&str]| -> Result<String> {
        let output = git(&src).args(args).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    ensure!(ask(&["status", "--porcelain"])?.is_empty(), "{}", ask(&["status"])?);
    ensure!(ask(&["rev-parse", "HEAD"])? == commit);
    ensure!(ask(&["describe", "--tags"])? == "v1");
    ensure!(ask(&["remote", "get-url", "origin"])? == world.server.url("a.git"));
    ensure!(ask(&["log", "--format=%s"])? == "second");
    ask(&["fsck", "--strict"])?;
    ensure!(!src.join(".git/hooks").exists() && !src.join(".git/FETCH_HEAD").exists());
    // The same bytes in a state of its own.
    let layer = |state: &str| -> Result<String> {
        let mut command = world.sandbox.build_command(&[ALLOW, "-o=-"])?;
        command.env("WBUILD_STATE_DIR", world.sandbox.path(state));
        command.env("SOURCE_DATE_EPOCH", "0");
        Ok(wbuild_tests::image::sha256(&Run::of(&mut command)?.success()?.stdout))
    };
    ensure!(layer("state")? == layer("other-state")?, "not reproducible");
    Ok(())
}

fn submodules() -> Result<()> {
    let world = World::new("git-submodules")?;
    let inner = world.repo("inner.git")?;
    inner.write("in", "inner")?;
    let inner_commit = inner.commit("inner")?;
    let middle = world.repo("group/middle.git")?;
    middle
        .write(".gitmodules", "[submodule \"x\"]\n path = deep/inner\n url = ../../inner.git\n")?;
    middle.commit("no link yet")?;
    link(&middle, "deep/inner", &inner_commit)?;
    let middle_commit = middle.git(["rev-parse", "HEAD"])?;
    let outer = world.repo("outer.git")?;
    let url = world.server.url("group/middle.git");
    outer.write(".gitmodules", format!("[submodule \"m\"]\n path = lib\n url = {url}\n"))?;
    outer.write("file", "outer")?;
    outer.commit("no link yet")?;
    link(&outer, "lib", &middle_commit)?;

    world.dockerfile("FROM scratch\nADD URL/outer.git /\n")?;
    world.out(&[])?.success()?;
    ensure!(world.read("file")? == "outer");
    ensure!(world.read("lib/deep/inner/in")? == "inner");

    world.dockerfile("FROM scratch\nADD URL/outer.git?submodules=false /\n")?;
    world.out(&[])?.success()?;
    ensure!(std::fs::read_dir(world.sandbox.path("out/lib"))?.next().is_none());

    // One that nothing is known of.
    link(&outer, "unknown", &middle_commit)?;
    world.dockerfile("FROM scratch\nADD URL/outer.git /\n")?;
    let run = world.out(&[])?.expect(1)?;
    run.says("unknown")?;
    run.says("submodules=false")?;
    Ok(())
}

/// Commits a submodule without an entry of `.gitmodules`.
fn link(repo: &Repo, path: &str, commit: &str) -> Result<()> {
    let entry = format!("160000,{commit},{path}");
    repo.git(["update-index", "--add", "--cacheinfo", &entry])?;
    repo.git(["commit", "--quiet", "-m", "link"])?;
    Ok(())
}

fn private_repositories() -> Result<()> {
    const TOKEN: &str = "s3cr3t-t0ken";
    let world = World::new("git-private")?;
    let repo = world.repo("a.git")?;
    repo.write("file", "private")?;
    repo.commit("first")?;
    let basic = "Basic eC1hY2Nlc3MtdG9rZW46czNjcjN0LXQwa2Vu".to_owned();
    world.server.behave(Behaviour { authorization: Some(basic), ..Behaviour::default() });
    world.dockerfile("FROM scratch\nADD URL/a.git /\n")?;
    let run = world.out(&[])?.expect(1)?;
    run.says(&format!("GIT_AUTH_TOKEN.{}", world.server.host()))?;
    std::fs::write(world.sandbox.path("token"), format!("{TOKEN}\n"))?;
    for id in ["GIT_AUTH_TOKEN".to_owned(), format!("GIT_AUTH_TOKEN.{}", world.server.host())] {
        let secret = format!("--secret=id={id},src=token");
        let run = world.out(&["--no-cache", &secret])?.success()?;
        ensure!(world.read("file")? == "private");
        run.never_says(TOKEN)?;
    }
    // For another host only.
    let run = world.out(&["--secret=id=GIT_AUTH_TOKEN.example.org,src=token"])?.expect(1)?;
    run.never_says(TOKEN)?;
    std::fs::write(world.sandbox.path("token"), "wrong-t0ken")?;
    let run = world.out(&["--secret=id=GIT_AUTH_TOKEN,src=token"])?.expect(1)?;
    run.never_says("wrong-t0ken")?;
    // In nothing that is kept, either.
    let output = std::process::Command::new("grep")
        .args(["-rlE", &format!("{TOKEN}|eC1hY2Nlc3MtdG9rZW4")])
        .arg(world.sandbox.path("state"))
        .output()?;
    ensure!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

fn tokens_stay_with_their_host() -> Result<()> {
    let world = World::new("git-tokens")?;
    let other = HttpServer::start(&world.sandbox.path("served"))?;
    let inner = world.repo("inner.git")?.commit("inner")?;
    let outer = world.repo("outer.git")?;
    let (url, relative) = (other.url("inner.git"), "../inner.git");
    outer.write(
        ".gitmodules",
        format!(
            "[submodule \"a\"]\n path = a\n url = {url}\n\
             [submodule \"b\"]\n path = b\n url = {relative}\n"
        ),
    )?;
    outer.commit("no link yet")?;
    link(&outer, "a", &inner)?;
    link(&outer, "b", &inner)?;
    std::fs::write(world.sandbox.path("token"), "t0ken")?;
    world.dockerfile("FROM scratch\nADD URL/outer.git /\n")?;
    let run = world.out(&["--secret=id=GIT_AUTH_TOKEN,src=token"])?.success()?;
    run.never_says("t0ken")?;
    let has_token = |asked: &Asked| asked.headers.contains_key("authorization");
    let own = world.server.take_requests();
    ensure!(own.iter().any(|asked| asked.target.starts_with("/inner.git")));
    ensure!(own.iter().all(has_token));
    let elsewhere = other.take_requests();
    ensure!(!elsewhere.is_empty() && !elsewhere.iter().any(has_token));
    Ok(())
}

fn this_machine_is_not_reached_unasked() -> Result<()> {
    let world = World::new("git-reach")?;
    world.repo("a.git")?.commit("first")?;
    let daemon = Daemon::start(&world.sandbox.path("served"))?;
    let port =
        daemon.url("").trim_start_matches("git://127.0.0.1:").trim_end_matches('/').to_owned();
    for url in [
        world.server.url("a.git"),
        daemon.url("a.git"),
        format!("ssh://git@127.0.0.1:{port}/a.git"),
        "git@localhost:a.git".to_owned(),
        format!("http://0x7f.1:{}/a.git", world.server.host().rsplit(':').next().unwrap_or("")),
    ] {
        world.sandbox.write("Dockerfile", &format!("FROM scratch\nADD {url} /\n"))?;
        let run = world.sandbox.build(&[])?.expect(1)?;
        run.says("--allow network.private")?;
        run.says("Dockerfile:2")?;
    }
    ensure!(world.server.take_requests().is_empty());
    Ok(())
}

fn the_git_protocol() -> Result<()> {
    let world = World::new("git-protocol")?;
    let repo = world.repo("a.git")?;
    repo.write("file", "content")?;
    repo.commit("first")?;
    let daemon = Daemon::start(&world.sandbox.path("served"))?;
    world.sandbox.write("Dockerfile", &format!("FROM scratch\nADD {} /\n", daemon.url("a.git")))?;
    world.out(&[])?.success()?;
    ensure!(world.read("file")? == "content");
    Ok(())
}

fn certificates() -> Result<()> {
    let world = World::new("git-certificates")?;
    let repo = world.repo("a.git")?;
    repo.write("file", "content")?;
    repo.commit("first")?;
    let at = |name: &str| world.sandbox.path(name).display().to_string();
    let made = std::process::Command::new(skip::need_program("openssl")?)
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-subj", "/CN=git", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"])
        .args(["-keyout", &at("key.pem"), "-out", &at("cert.pem")])
        .output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(at("cert.pem"))?],
            PrivateKeyDer::from_pem_file(at("key.pem"))?,
        )?;
    let config = Arc::new(config);
    let server = HttpServer::serve(&world.sandbox.path("served"), "https", move |stream| {
        let tls = rustls::ServerConnection::new(Arc::clone(&config))?;
        Ok(Box::new(rustls::StreamOwned::new(tls, stream)))
    })?;
    let file = format!("FROM scratch\nADD {} /\n", server.url("a.git"));
    world.sandbox.write("Dockerfile", &file)?;
    let run = world.out(&[])?.expect(1)?;
    run.says("certificate")?;
    run.says("SSL_CERT_FILE")?;
    let output = format!("-o={}", at("out"));
    let mut command = world.sandbox.build_command(&[ALLOW, &output])?;
    Run::of(command.env("SSL_CERT_FILE", at("cert.pem")))?.success()?;
    ensure!(world.read("file")? == "content");
    Ok(())
}

fn times_of_commits() -> Result<()> {
    let world = World::new("git-times")?;
    let repo = world.repo("a.git")?;
    repo.write("dir/file", "content")?;
    repo.commit("first")?;
    let time = |path: &str| -> Result<i64> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(std::fs::symlink_metadata(world.sandbox.path("out").join(path))?.mtime())
    };
    world.dockerfile("FROM scratch\nADD URL/a.git?mtime=commit /src/\n")?;
    world.out(&[])?.success()?;
    ensure!(time("src/dir/file")? == 1_700_000_000, "{}", time("src/dir/file")?);
    // Times are in no content key: without the option only what is copied anew has the present.
    world.dockerfile("FROM scratch\nADD URL/a.git /src/\n")?;
    world.out(&["--no-cache"])?.success()?;
    ensure!(time("src/dir/file")? > 1_700_000_000);
    Ok(())
}

fn what_is_not_there() -> Result<()> {
    let world = World::new("git-not-there")?;
    let repo = world.repo("a.git")?;
    repo.commit("first")?;
    repo.git(["branch", "release-2"])?;
    for (address, said) in [
        ("a.git#mian", "main"),
        ("a.git#release", "release-2"),
        (
            "a.git#0123456789012345678901234567890123456789",
            "0123456789012345678901234567890123456789",
        ),
        ("a.git#main:none", "\"none\""),
        ("none.git", "none.git"),
    ] {
        world.dockerfile(&format!("FROM scratch\nADD URL/{address} /\n"))?;
        let run = world.out(&[])?.expect(1)?;
        run.says(said)?;
        run.says("Dockerfile:2")?;
    }
    Ok(())
}

/// However a build ends, its git ends with it, and the next build finds nothing half done.
fn builds_that_are_ended() -> Result<()> {
    let world = World::new("git-ended")?;
    let repo = world.repo("a.git")?;
    // Takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let silent = format!("http://{}/a.git", silent.local_addr()?);
    let served = world.server.url("a.git");
    for (signal, code) in [(Signal::INT, 130), (Signal::KILL, 137)] {
        // The server is asked, or something is fetched.
        for reference in ["", "#1111111111111111111111111111111111111111"] {
            let file = format!("FROM scratch\nADD {silent}{reference} /\n");
            world.sandbox.write("Dockerfile", &file)?;
            let mut build = world.sandbox.start_build(&[ALLOW, "-o=out"])?;
            while machine::traces_of(&silent).is_empty() {
                ensure!(!build.has_ended()?, "{}", build.stderr_so_far());
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            build.signal(signal)?;
            build.wait(DEADLINE)?.expect(code)?;
            machine::nothing_left(&silent)?;
            machine::nothing_left(&world.sandbox.path("state").display().to_string())?;
            let content = format!("{code}{reference}");
            repo.write("file", &content)?;
            repo.commit("next")?;
            world.sandbox.write("Dockerfile", &format!("FROM scratch\nADD {served} /\n"))?;
            world.out(&[])?.success()?;
            ensure!(world.read("file")? == content);
        }
    }
    Ok(())
}
