//! Real repositories from real servers on this machine.

#[path = "../../../tests/src/git.rs"]
#[allow(dead_code, missing_docs)]
mod server;

use std::path::{Path, PathBuf};

use server::{Behaviour, Daemon, HttpServer, Repo};
use wbuild_git::{
    Access, Advertised, Authorization, Git, GitDir, Limits, ObjectId, Remote, Repository, Revision,
    Want,
};
use wbuild_graph::{Failure, FailureKind};
use wbuild_http::Reach;

/// A place for servers' repositories, the kept one, and files.
struct Place {
    dir: tempfile::TempDir,
    git: Git,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().expect("directory");
        for name in ["served", "kept", "out"] {
            std::fs::create_dir(dir.path().join(name)).expect("directory");
        }
        Place { dir, git: program(Reach::Everything) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn repo(&self, name: &str) -> Repo {
        Repo::new(self.path("served").join(name)).expect("a repository")
    }

    fn http(&self) -> HttpServer {
        HttpServer::start(&self.path("served")).expect("a server")
    }

    async fn kept(&self) -> Repository {
        Repository::open(&self.git, &self.path("kept")).await.expect("a kept repository")
    }

    /// An empty directory.
    fn out(&self, name: &str) -> PathBuf {
        let out = self.path("out").join(name);
        std::fs::create_dir(&out).expect("directory");
        out
    }
}

fn program(reach: Reach) -> Git {
    let search: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").expect("PATH")).collect();
    let program = search.iter().map(|dir| dir.join("git")).find(|path| path.is_file());
    Git::new(program.expect("git is installed"), &search, reach)
}

fn remote(url: &str) -> Remote {
    Remote::parse(url).expect("a URL")
}

fn id(text: &str) -> ObjectId {
    ObjectId::parse(text).expect("an id")
}

async fn find(kept: &Repository, remote: &Remote, name: &str) -> wbuild_git::Found {
    let offered = kept.advertised(remote, &Access::default()).await.expect("an answer");
    offered.find(&Revision::parse(name).expect("a name")).expect(name)
}

/// Fetches what a name leads to and writes it out.
async fn get(
    kept: &Repository,
    remote: &Remote,
    name: &str,
    dir: &str,
    out: &Path,
) -> Result<ObjectId, Failure> {
    let access = Access::default();
    let offered = kept.advertised(remote, &access).await?;
    let revision = Revision::parse(name)?;
    let found = offered.find(&revision).ok_or_else(|| offered.missing(remote, &revision))?;
    let want = Want { commit: &found.commit, name: found.name.as_ref(), tag: found.tag.as_ref() };
    kept.fetch(remote, &access, &want).await?;
    let tree = kept.tree(&found.commit, dir).await?;
    kept.checkout(&found.commit, &tree, out).await?;
    Ok(found.commit)
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
    std::fs::set_permissions(run, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
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
