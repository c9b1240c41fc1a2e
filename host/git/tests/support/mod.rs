//! Places and short cuts of both test programs.

#![allow(dead_code)]

use std::path::{Path, PathBuf};

use wbuild_git::{Access, Git, ObjectId, Remote, Repository, Revision, Want};
use wbuild_graph::Failure;
use wbuild_http::Reach;

use crate::server::{HttpServer, Repo};

/// A place for servers' repositories, the kept one, and files.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub git: Git,
}

impl Place {
    pub fn new() -> Place {
        let dir = tempfile::tempdir().expect("directory");
        for name in ["served", "kept", "out"] {
            std::fs::create_dir(dir.path().join(name)).expect("directory");
        }
        Place { dir, git: program(Reach::Everything) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn repo(&self, name: &str) -> Repo {
        Repo::new(self.path("served").join(name)).expect("a repository")
    }

    pub fn http(&self) -> HttpServer {
        HttpServer::start(&self.path("served")).expect("a server")
    }

    pub async fn kept(&self) -> Repository {
        Repository::open(&self.git, &self.path("kept")).await.expect("a kept repository")
    }

    /// One of its own.
    pub async fn kept_as(&self, name: &str) -> Repository {
        std::fs::create_dir(self.path(name)).expect("directory");
        Repository::open(&self.git, &self.path(name)).await.expect("a kept repository")
    }

    /// An empty directory.
    pub fn out(&self, name: &str) -> PathBuf {
        let out = self.path("out").join(name);
        std::fs::create_dir(&out).expect("directory");
        out
    }
}

pub fn program(reach: Reach) -> Git {
    let search: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").expect("PATH")).collect();
    let program = search.iter().map(|dir| dir.join("git")).find(|path| path.is_file());
    Git::new(program.expect("git is installed"), &search, reach)
}

pub fn remote(url: &str) -> Remote {
    Remote::parse(url).expect("a URL")
}

pub fn id(text: &str) -> ObjectId {
    ObjectId::parse(text).expect("an id")
}

/// Fetches what a name leads to and writes it out.
pub async fn get(
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
