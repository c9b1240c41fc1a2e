//! Real repositories from real servers on this machine.

#[path = "../../../tests/src/git.rs"]
#[allow(dead_code, missing_docs)]
mod server;
mod support;

use std::path::{Path, PathBuf};

use server::{Behaviour, Daemon, Repo};
use support::{Place, get, id, remote};
use wbuild_git::{Access, GitDir, Remote, Repository, Revision, Want};
use wbuild_graph::FailureKind;

async fn find(kept: &Repository, remote: &Remote, name: &str) -> wbuild_git::Found {
    let offered = kept.advertised(remote, &Access::default()).await.expect("an answer");
    offered.find(&Revision::parse(name).expect("a name")).expect(name)
}

fn read(path: PathBuf) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A repository with a bit of everything.
fn usual(place: &Place) -> (Repo, String, String) {
    let repo = place.repo("a.git");
    repo.write("file", "one\n").expect("file");
    let first = repo.commit("first").expect("commit");
    repo.git(["tag", "light"]).expect("tag");
    repo.git(["tag", "-a", "-m", "a tag", "v1"]).expect("tag");
    repo.write("file", "two\n").expect("file");
    repo.write("sub/dir/deep", "deep\n").expect("file");
    repo.write("sub/win.bat", "a\nb\n").expect("file");
    repo.write(".gitattributes", "*.bat text eol=crlf\n*.lfs filter=lfs diff=lfs\n").expect("file");
    repo.write("big.lfs", "version https://git-lfs.github.com/spec/v1\n").expect("file");
    repo.write("-x", "dash").expect("file");
    std::os::unix::fs::symlink("sub/dir", repo.path().join("link")).expect("link");
    repo.write("run", "#!/bin/sh\n").expect("file");
    let run = repo.path().join("run");
    std::fs::set_permissions(run, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("mode");
    let second = repo.commit("second").expect("commit");
    (repo, first, second)
}

#[tokio::test]
async fn branches_tags_and_commits() {
    let place = Place::new();
    let (repo, first, second) = usual(&place);
    repo.git(["branch", "old", &first]).expect("branch");
    repo.git(["branch", "light", &second]).expect("branch");
    let server = place.http();
    let remote = remote(&server.url("a.git"));
    let kept = place.kept().await;
    for (name, commit) in [
        ("", &second),
        ("main", &second),
        ("HEAD", &second),
        ("refs/heads/old", &first),
        ("heads/old", &first),
        ("v1", &first),
        ("tags/light", &first),
        // A branch before a tag.
        ("light", &second),
        (&*first, &first),
    ] {
        let found = find(&kept, &remote, name).await;
        assert_eq!(found.commit, id(commit), "{name}");
        assert_eq!(found.tag.is_some(), name == "v1", "{name}");
    }
    let prefix = &first[..10];
    let expanded = kept.expand(&remote, &Access::default(), prefix).await.expect("an answer");
    assert_eq!(expanded, Some(id(&first)));
    let none = kept.expand(&remote, &Access::default(), "0123456789").await.expect("an answer");
    assert_eq!(none, None);
}

#[tokio::test]
async fn files_are_as_the_commit_says() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let (_, first, second) = usual(&place);
    let server = place.http();
    let remote = remote(&server.url("a.git"));
    let kept = place.kept().await;
    let out = place.out("whole");
    assert_eq!(get(&kept, &remote, "main", "", &out).await.expect("files"), id(&second));
    assert_eq!(read(out.join("file")), "two\n");
    assert_eq!(read(out.join("sub/win.bat")), "a\r\nb\r\n");
    assert_eq!(read(out.join("big.lfs")), "version https://git-lfs.github.com/spec/v1\n");
    assert_eq!(read(out.join("-x")), "dash");
    assert_eq!(std::fs::read_link(out.join("link")).expect("a link"), Path::new("sub/dir"));
    let mode = |name: &str| std::fs::metadata(out.join(name)).expect(name).permissions().mode();
    assert_eq!((mode("run") & 0o111 != 0, mode("file") & 0o111 != 0), (true, false));
    assert!(!out.join(".git").exists());

    // Attributes from above count in a directory, too.
    let out = place.out("below");
    get(&kept, &remote, "main", "/sub/./dir/..", &out).await.expect("files");
    assert_eq!(read(out.join("sub/win.bat")), "a\r\nb\r\n");
    assert!(!out.join("file").exists() && out.join("sub/dir/deep").exists());
    // An older commit afterwards.
    let out = place.out("old");
    assert_eq!(get(&kept, &remote, "v1", "", &out).await.expect("files"), id(&first));
    assert_eq!(read(out.join("file")), "one\n");
    for (dir, kind) in [
        ("none", FailureKind::NotFound),
        ("link", FailureKind::Invalid),
        ("file", FailureKind::Invalid),
        ("link/x", FailureKind::NotFound),
        (".git", FailureKind::Invalid),
    ] {
        let failure = kept.tree(&id(&second), dir).await.expect_err(dir);
        assert_eq!(failure.kind, kind, "{dir}: {failure}");
    }
    kept.close().expect("closed");
}

#[tokio::test]
async fn what_is_here_is_not_asked_for_again() {
    let place = Place::new();
    let (repo, first, second) = usual(&place);
    let server = place.http();
    let remote = remote(&server.url("a.git"));
    let kept = place.kept().await;
    let access = Access::default();
    let (first, second) = (id(&first), id(&second));
    let tag = id(&repo.git(["rev-parse", "v1"]).expect("a tag"));
    let wants = [
        Want { commit: &second, name: None, tag: None },
        Want { commit: &first, name: None, tag: Some(&tag) },
        Want { commit: &first, name: None, tag: None },
    ];
    for (number, want) in wants.iter().enumerate() {
        // The commit comes with the tag.
        assert_eq!(kept.has(want).await, Ok(number == 2), "{number}");
        kept.fetch(&remote, &access, want).await.expect("fetched");
        server.take_requests();
        kept.fetch(&remote, &access, want).await.expect("here");
        assert!(server.take_requests().is_empty(), "{number}");
    }
    kept.close().expect("closed");
    let kept = place.kept().await;
    for want in &wants {
        assert_eq!(kept.has(want).await, Ok(true));
    }
}

#[tokio::test]
async fn servers_that_give_only_what_references_lead_to() {
    let place = Place::new();
    let repo = place.repo("a.git");
    repo.git(["config", "uploadpack.allowAnySHA1InWant", "false"]).expect("configured");
    let first = id(&repo.commit("first").expect("commit"));
    let second = id(&repo.commit("second").expect("commit"));
    repo.commit("third").expect("commit");
    let server = place.http();
    server.behave(Behaviour { old: true, ..Behaviour::default() });
    let remote = remote(&server.url("a.git"));
    let kept = place.kept().await;
    for commit in [&first, &second] {
        let want = Want { commit, name: None, tag: None };
        kept.fetch(&remote, &Access::default(), &want).await.expect("fetched");
        kept.tree(commit, "").await.expect("a tree");
    }
    let nowhere = id("1111111111111111111111111111111111111111");
    let want = Want { commit: &nowhere, name: None, tag: None };
    let failure = kept.fetch(&remote, &Access::default(), &want).await.expect_err("nowhere");
    assert_eq!(failure.kind, FailureKind::NotFound, "{failure}");
}

#[tokio::test]
async fn a_reference_that_moves_meanwhile() {
    let place = Place::new();
    let (repo, _, second) = usual(&place);
    let server = place.http();
    let remote = remote(&server.url("a.git"));
    let kept = place.kept().await;
    let found = find(&kept, &remote, "main").await;
    repo.commit("third").expect("commit");
    let want = Want { commit: &found.commit, name: found.name.as_ref(), tag: None };
    kept.fetch(&remote, &Access::default(), &want).await.expect("fetched");
    assert_eq!(found.commit, id(&second));
    kept.tree(&found.commit, "sub").await.expect("a tree");
}

#[tokio::test]
async fn kills_and_damage() {
    let place = Place::new();
    let (_, first, second) = usual(&place);
    let server = place.http();
    let remote = remote(&server.url("a.git"));
    let kept = place.kept().await;
    get(&kept, &remote, "v1", "", &place.out("first")).await.expect("files");
    // What a git that was killed leaves. It was not closed, so it is looked for.
    drop(kept);
    let dir = place.path("kept/repository");
    for name in ["shallow.lock", "packed-refs.lock", "HEAD.lock", "refs/wbuild/incoming.lock"] {
        std::fs::write(dir.join(name), "").expect("a lock");
    }
    let mark = format!("refs/wbuild/here/{second}.lock");
    std::fs::write(dir.join(mark), "").expect("a lock");
    std::fs::write(dir.join("objects/pack/tmp_pack_x"), "half").expect("a pack");
    let kept = place.kept().await;
    get(&kept, &remote, "main", "", &place.out("second")).await.expect("files");
    assert!(!dir.join("objects/pack/tmp_pack_x").exists());
    // Given up at many moments.
    for delay in 0..30 {
        let dir = place.path(&format!("kept-{delay}"));
        std::fs::create_dir(&dir).expect("directory");
        let kept = Repository::open(&place.git, &dir).await.expect("opened");
        let commit = id(&second);
        let want = Want { commit: &commit, name: None, tag: None };
        let access = Access::default();
        let fetching = kept.fetch(&remote, &access, &want);
        let _ = tokio::time::timeout(std::time::Duration::from_millis(delay * 4), fetching).await;
        drop(kept);
        let kept = Repository::open(&place.git, &dir).await.expect("opened");
        let out = place.out(&format!("after-{delay}"));
        get(&kept, &remote, "main", "", &out).await.expect("files");
        assert!(out.join("sub/dir/deep").exists());
    }
    // A pack that was cut short: an error that says so, and a new beginning.
    for pack in std::fs::read_dir(dir.join("objects/pack")).expect("packs") {
        let path = pack.expect("a pack").path();
        if path.extension().is_some_and(|extension| extension == "pack") {
            std::fs::remove_file(&path).expect("removed");
            std::fs::write(&path, "PACK").expect("written");
        }
    }
    let failure = kept.tree(&id(&second), "").await.expect_err("damaged");
    assert_eq!(failure.kind, FailureKind::Gone);
    kept.reset().await.expect("reset");
    let commit = id(&first);
    assert_eq!(kept.has(&Want { commit: &commit, name: None, tag: None }).await, Ok(false));
    get(&kept, &remote, "v1", "", &place.out("anew")).await.expect("files");
}

#[tokio::test]
async fn the_git_protocol() {
    let place = Place::new();
    let (_, _, second) = usual(&place);
    let daemon = Daemon::start(&place.path("served")).expect("a daemon");
    let remote = remote(&daemon.url("a.git"));
    let kept = place.kept().await;
    let out = place.out("git");
    assert_eq!(get(&kept, &remote, "", "", &out).await.expect("files"), id(&second));
    let other = support::remote(&daemon.url("none.git"));
    let failure = kept.advertised(&other, &Access::default()).await.expect_err("nothing there");
    assert!(matches!(failure.kind, FailureKind::NotFound | FailureKind::Denied), "{failure}");
}

#[tokio::test]
async fn servers_that_are_busy_are_asked_again() {
    let place = Place::new();
    let (_, _, second) = usual(&place);
    let server = place.http();
    let remote = remote(&server.url("a.git"));
    let kept = place.kept().await;
    server.behave(Behaviour { busy: 2, ..Behaviour::default() });
    assert_eq!(find(&kept, &remote, "main").await.commit, id(&second));
    server.behave(Behaviour { busy: 100, ..Behaviour::default() });
    server.take_requests();
    let failure = kept.advertised(&remote, &Access::default()).await.expect_err("busy");
    assert_eq!((failure.kind, server.take_requests().len()), (FailureKind::Unavailable, 3));
}

#[tokio::test]
async fn repositories_with_longer_ids() {
    let place = Place::new();
    let repo = Repo::sha256(place.path("served/a.git")).expect("a repository");
    repo.write("file", "content").expect("file");
    let first = id(&repo.commit("first").expect("commit"));
    repo.write("file", "more").expect("file");
    let second = id(&repo.commit("second").expect("commit"));
    assert_eq!(second.as_str().len(), 64);
    let server = place.http();
    let remote = remote(&server.url("a.git"));
    let kept = place.kept().await;
    let out = place.out("main");
    assert_eq!(get(&kept, &remote, "main", "", &out).await.expect("files"), second);
    let about = GitDir { remote: &remote, name: None, tag: None };
    kept.write_git_dir(&second, &about, &out).await.expect("a .git");
    let status = server::git(&out).args(["status", "--porcelain"]).output().expect("git");
    assert!(status.status.success() && status.stdout.is_empty(), "{status:?}");
    let out = place.out("first");
    get(&kept, &remote, first.as_str(), "", &out).await.expect("files");
    assert_eq!(read(out.join("file")), "content");
}

/// A proxy that leads everybody to one port.
fn proxy(server: String) -> u16 {
    use std::io::{BufRead as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut far = std::net::TcpStream::connect(&server).expect("the server");
            std::thread::spawn(move || {
                let mut line = String::new();
                let mut reader = std::io::BufReader::new(&stream);
                while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                    line.clear();
                }
                let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                let mut back = far.try_clone().expect("a copy");
                let mut near = stream.try_clone().expect("a copy");
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut back, &mut near);
                    let _ = near.shutdown(std::net::Shutdown::Both);
                });
                let _ = std::io::copy(&mut (&stream), &mut far);
            });
        }
    });
    port
}

#[tokio::test]
async fn through_a_proxy() {
    let place = Place::new();
    let (_, _, second) = usual(&place);
    let server = place.http();
    let proxy = Some(format!("127.0.0.1:{}", proxy(server.host())));
    let proxies = wbuild_http::Proxies { http: proxy, ..Default::default() };
    let git = support::program(wbuild_http::Reach::Public).with_proxies(proxies);
    let kept = Repository::open(&git, &place.path("kept")).await.expect("opened");
    // A name that only the proxy knows.
    let remote = remote("http://git.invalid:8080/a.git");
    let out = place.out("proxy");
    assert_eq!(get(&kept, &remote, "main", "", &out).await.expect("files"), id(&second));
    assert!(server.take_requests().iter().all(|asked| asked.header("host") == "git.invalid:8080"));
}
