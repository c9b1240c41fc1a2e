//! Repositories on this machine that somebody works in.
//!
//! Others may have written what lies there, its configuration above all: an archive may bring a `.git`
//! along. So only commands that look up references and objects are run, in the way that everything is
//! ([`crate::Git`]): whatever the configuration names as a program, none of it runs.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wbuild_graph::{Failure, FailureKind};

use crate::commit::{CommitFacts, plain};
use crate::explain::own_words;
use crate::name::{ObjectId, RefName};
use crate::program::{Call, Git, Input, Limits};
use crate::remote::{Remote, Scheme};

/// Longest file that says where a repository is, in bytes.
const LONGEST: u64 = 8192;
/// Longest time of a command.
const TIME: Duration = Duration::from_secs(60);
/// Largest output of a command: the references that lead to one commit.
const OUTPUT: usize = 16 << 20;

/// What is known of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The commit that is checked out; none before the first one.
    pub commit: Option<ObjectId>,
    /// What that says of itself.
    pub about: CommitFacts,
    /// The branch that is checked out, without `refs/heads/`.
    pub branch: Option<String>,
    /// All references that lead to the commit, sorted.
    pub refs: Vec<RefName>,
    /// The address of `origin`, without what may be secret.
    pub source: Option<String>,
}

/// The top of the work tree that a directory lies in: the nearest directory from there upwards that
/// holds a repository, without links in its path.
pub fn work_tree(directory: &Path) -> Option<PathBuf> {
    let directory = fs::canonicalize(directory).ok()?;
    directory.ancestors().find(|above| repository(above).is_some()).map(Path::to_owned)
}

/// The repository of a work tree: `.git`, or what a file of this name leads to.
fn repository(top: &Path) -> Option<PathBuf> {
    let place = top.join(".git");
    let found = fs::metadata(&place).ok()?;
    if found.is_dir() {
        return place.join("HEAD").symlink_metadata().is_ok().then_some(place);
    }
    if !found.is_file() || found.len() > LONGEST {
        return None;
    }
    let text = fs::read_to_string(&place).ok()?;
    let path = text.strip_prefix("gitdir:")?.trim();
    (!path.is_empty()).then(|| top.join(path))
}

impl Git {
    /// What is known of the repository whose work tree has this top. `home` is an empty directory.
    /// None if there is no repository.
    ///
    /// # Errors
    /// Git cannot be run, or not read the repository.
    pub async fn facts(&self, top: &Path, home: &Path) -> Result<Option<Facts>, Failure> {
        let Some(dir) = repository(top) else { return Ok(None) };
        let git = self.clone().with_limits(Limits { output: OUTPUT, ..self.limits });
        git.check_version(home).await?;
        let here = Here { git, dir, home };
        let mut facts = Facts::default();
        let head = here.run(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).await?;
        facts.commit = ObjectId::parse(&head);
        let branch = here.run(&["symbolic-ref", "--quiet", "HEAD"]).await?;
        facts.branch =
            branch.strip_prefix("refs/heads/").map(plain).filter(|name| !name.is_empty());
        let origin = here.run(&["config", "--get", "remote.origin.url"]).await?;
        facts.source = Some(without_secrets(&origin)).filter(|source| !source.is_empty());
        let Some(commit) = &facts.commit else { return Ok(Some(facts)) };
        let object = here.output(&["cat-file", "commit", commit.as_str()]).await?;
        facts.about = CommitFacts::parse(&object);
        let points = format!("--points-at={commit}");
        let refs = here.run(&["for-each-ref", "--format=%(refname)", &points]).await?;
        facts.refs = refs.lines().filter_map(RefName::parse).collect();
        Ok(Some(facts))
    }
}

/// One repository, and git.
struct Here<'a> {
    git: Git,
    dir: PathBuf,
    home: &'a Path,
}

impl Here<'_> {
    /// What a command says, without white space around; nothing if it ends with 1, which says that
    /// there is none.
    async fn run(&self, args: &[&str]) -> Result<String, Failure> {
        let output = self.output(args).await?;
        Ok(String::from_utf8_lossy(&output).trim().to_owned())
    }

    async fn output(&self, args: &[&str]) -> Result<Vec<u8>, Failure> {
        let ended = self
            .git
            .run(Call {
                dir: &self.dir,
                home: self.home,
                args: args.iter().map(OsString::from).collect(),
                env: vec![("GIT_PAGER", "cat".into())],
                settings: Vec::new(),
                protocols: "none",
                input: Input::Nothing,
                time: TIME,
            })
            .await?;
        match ended.status.code() {
            Some(0) => Ok(ended.output),
            Some(1) => Ok(Vec::new()),
            _ => {
                let what = args.first().copied().unwrap_or_default();
                let words = own_words(&ended.messages);
                Err(Failure::new(FailureKind::Invalid, format!("git {what} failed: {words}")))
            }
        }
    }
}

/// An address as git has it, without what may be secret.
fn without_secrets(address: &str) -> String {
    match Remote::parse(address) {
        // A query may hold a token.
        Ok(remote) if remote.scheme().is_http() => remote.to_string(),
        Ok(remote) if remote.scheme() == Scheme::Ssh => remote.url(),
        _ => {
            let address = plain(address);
            let Some((scheme, rest)) = address.split_once("://") else { return address };
            let (host, path) = rest.split_once('/').map_or((rest, None), |(h, p)| (h, Some(p)));
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            let path = path.map(|path| format!("/{path}")).unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_no_secrets() {
        for (address, want) in [
            ("https://u:p@h.org/a.git", "https://h.org/a.git"),
            ("https://token@h.org/a.git?private=x", "https://h.org/a.git"),
            ("git@github.com:bar/buz.git", "git@github.com:bar/buz.git"),
            ("ssh://git:p@h.org/a", "ssh://git@h.org/a"),
            ("/srv/git/a.git", "/srv/git/a.git"),
            ("../a.git", "../a.git"),
            ("file:///srv/a.git", "file:///srv/a.git"),
            ("foo://u:p@h/x@y", "foo://h/x@y"),
            ("foo://u:p@h", "foo://h"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(address), want, "{address}");
        }
    }

    #[test]
    fn work_trees_are_found_from_below() {
        let dir = tempfile::tempdir().expect("directory");
        let top = fs::canonicalize(dir.path()).expect("a path");
        let make = |path: &str| fs::create_dir_all(top.join(path)).expect("directory");
        make("repo/.git");
        make("repo/a/b/.git");
        make("repo/linked/x");
        make("other");
        fs::write(top.join("repo/.git/HEAD"), "ref: refs/heads/main\n").expect("file");
        fs::write(top.join("repo/linked/.git"), "gitdir: ../.git/worktrees/x\n").expect("file");
        fs::write(top.join("other/.git"), "something else").expect("file");
        std::os::unix::fs::symlink(top.join("repo/a"), top.join("other/link")).expect("link");
        for (from, want) in [
            ("repo", Some("repo")),
            // An empty directory of this name is no repository.
            ("repo/a/b", Some("repo")),
            ("repo/linked/x", Some("repo/linked")),
            ("other/link", Some("repo")),
        ] {
            assert_eq!(work_tree(&top.join(from)), want.map(|want| top.join(want)), "{from}");
        }
        let above = work_tree(&top);
        assert_eq!(work_tree(&top.join("other")), above);
        assert_eq!(work_tree(&top.join("none")), None);
        let leads_to = repository(&top.join("repo/linked")).expect("a repository");
        assert_eq!(leads_to, top.join("repo/linked/../.git/worktrees/x"));
    }
}
