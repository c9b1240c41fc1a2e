//! Writing the files of a commit into a directory.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use wbuild_graph::{Failure, FailureKind};

use crate::commit::CommitFacts;
use crate::name::{ObjectId, RefName};
use crate::program::Input;
use crate::remote::Remote;
use crate::repository::Repository;
use crate::tree::{Entry, EntryKind, Tree};

/// Longest target of a link, in bytes.
const LONGEST_LINK: u64 = 4096;

/// What a `.git` directory is to say.
#[derive(Clone, Debug)]
pub struct GitDir<'a> {
    /// `origin`.
    pub remote: &'a Remote,
    /// The reference that led to the commit.
    pub name: Option<&'a RefName>,
    /// The object of an annotated tag.
    pub tag: Option<&'a ObjectId>,
}

impl Repository {
    /// Writes the entries of a commit that is here into `into`, a directory that only this call uses
    /// and that holds no links. Submodules become empty directories.
    ///
    /// # Errors
    /// `Gone` if the repository is damaged; `Limit`, `Denied` for what a commit should not hold.
    pub async fn checkout(
        &self,
        commit: &ObjectId,
        tree: &Tree,
        into: &Path,
    ) -> Result<(), Failure> {
        if let Some(link) = tree.of_kind(EntryKind::Link).find(|link| link.size > LONGEST_LINK) {
            let message = format!("the link {:?} is too long", String::from_utf8_lossy(&link.path));
            return Err(Failure::new(FailureKind::Limit, message));
        }
        let index = self.home().join("index");
        let env = || {
            vec![
                ("GIT_INDEX_FILE", OsString::from(&index)),
                ("GIT_WORK_TREE", OsString::from(into)),
            ]
        };
        // All of it, since attributes may stand anywhere above.
        self.checked(&["read-tree", commit.as_str()], Input::Nothing, env()).await?;
        let mut paths = Vec::new();
        for entry in tree.entries.iter().filter(|entry| entry.kind != EntryKind::Submodule) {
            paths.extend_from_slice(&entry.path);
            paths.push(0);
        }
        let args = ["checkout-index", "--force", "--quiet", "-z", "--stdin"];
        self.checked(&args, Input::Bytes(paths), env()).await?;
        let failed = |error: io::Error| {
            Failure::internal("cannot write the files of a git repository").cause(&error)
        };
        for entry in tree.of_kind(EntryKind::Submodule) {
            fs::create_dir_all(below(into, entry)).map_err(failed)?;
        }
        // Last, so that nothing was written through one.
        for entry in tree.of_kind(EntryKind::Link) {
            let place = below(into, entry);
            let target = fs::read(&place).map_err(failed)?;
            fs::remove_file(&place).map_err(failed)?;
            std::os::unix::fs::symlink(OsStr::from_bytes(&target), &place).map_err(failed)?;
        }
        Ok(())
    }

    /// What a commit that is here says of itself.
    ///
    /// # Errors
    /// `Gone` if the repository is damaged.
    pub async fn about(&self, commit: &ObjectId) -> Result<CommitFacts, Failure> {
        let args = ["cat-file", "commit", commit.as_str()];
        Ok(CommitFacts::parse(&self.checked(&args, Input::Nothing, Vec::new()).await?))
    }

    /// Writes `.git` beside the files of a commit: a repository that holds the commit alone, with
    /// nothing of how it came here. Equal commits make equal bytes.
    ///
    /// # Errors
    /// `Gone` if the repository is damaged.
    pub async fn write_git_dir(
        &self,
        commit: &ObjectId,
        about: &GitDir<'_>,
        into: &Path,
    ) -> Result<(), Failure> {
        let dir = into.join(".git");
        let failed =
            |error: io::Error| Failure::internal("cannot write a .git directory").cause(&error);
        let there = async |args: &[&str], input: Input| {
            let env = vec![
                ("GIT_DIR", OsString::from(&dir)),
                ("GIT_INDEX_FILE", OsString::from(dir.join("index"))),
            ];
            self.checked(args, input, env).await.map(drop)
        };
        let format = if commit.as_str().len() == 64 { "sha256" } else { "sha1" };
        let format = format!("--object-format={format}");
        there(&["init", "--quiet", &format], Input::Nothing).await?;
        let url = about.remote.url();
        there(&["config", "remote.origin.url", &url], Input::Nothing).await?;
        let spec = "+refs/heads/*:refs/remotes/origin/*";
        there(&["config", "remote.origin.fetch", spec], Input::Nothing).await?;
        // The commit itself, not what it was made from.
        let args = ["rev-list", "--objects", "--no-walk", "--end-of-options", commit.as_str()];
        let mut objects = self.checked(&args, Input::Nothing, Vec::new()).await?;
        if let Some(tag) = about.tag {
            objects.extend_from_slice(format!("{tag}\n").as_bytes());
        }
        // Neither deltas nor what happens to lie in packs here, so that the same comes out anywhere.
        let pack = dir.join("objects/pack/pack");
        let pack = pack.to_str().ok_or_else(|| Failure::invalid("a path is not UTF-8"))?;
        let args =
            ["pack-objects", "--quiet", "--no-reuse-object", "--window=0", "--threads=1", pack];
        self.checked(&args, Input::Bytes(objects), Vec::new()).await?;
        if self.about(commit).await?.has_parents {
            fs::write(dir.join("shallow"), format!("{commit}\n")).map_err(failed)?;
        }
        if let Some(name) = about.name {
            let object = about.tag.unwrap_or(commit).as_str();
            there(&["update-ref", name.as_str(), object], Input::Nothing).await?;
        }
        there(&["update-ref", "--no-deref", "HEAD", commit.as_str()], Input::Nothing).await?;
        // Without times and numbers of files: git compares contents when it is first asked.
        there(&["read-tree", commit.as_str()], Input::Nothing).await
    }
}

fn below(dir: &Path, entry: &Entry) -> PathBuf {
    dir.join(OsStr::from_bytes(&entry.path))
}
