//! What a git source asks for.

use wbuild_git::{Found, ObjectId, Remote, Revision, commit_prefix};
use wbuild_graph::{Attrs, Failure, decode};

/// What a source can be told.
const KEYS: [&str; 10] = [
    "subdir",
    "checksum",
    "keep-git-dir",
    "submodules",
    "mtime",
    "fetch-by-commit",
    "auth-token-secret",
    "auth-header-secret",
    "ssh",
    "known-hosts",
];
/// A repository, and the ids of what it is shown.
pub(super) type Question = (Remote, [Option<String>; 4]);

/// What a source asks for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) remote: Remote,
    pub(super) revision: Revision,
    /// The beginning of the commit that it must be, or all of it.
    pub(super) checksum: Option<String>,
    pub(super) subdir: String,
    pub(super) keep_git_dir: bool,
    pub(super) submodules: bool,
    pub(super) commit_time: bool,
    pub(super) token_secret: Option<String>,
    pub(super) header_secret: Option<String>,
    pub(super) ssh: Option<String>,
    pub(super) known_hosts: Option<String>,
}

impl Asked {
    pub(super) fn new(url: &str, reference: &str, attrs: &Attrs) -> Result<Asked, Failure> {
        decode::only_known(attrs, "graph.git", &KEYS)?;
        let text = |key: &str| attrs.get(key).filter(|value| !value.is_empty());
        let switch = |key: &str, default: bool| match attrs.get(key) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(value) => Err(Failure::invalid(format!("{key} of a git source is {value:?}"))
                .hint("expected true or false")),
        };
        let checksum = text("checksum").map(|checksum| {
            commit_prefix(checksum).ok_or_else(|| {
                Failure::invalid(format!("{checksum:?} is not the checksum of a commit"))
                    .hint("write the commit, or at least 7 of its digits")
            })
        });
        let checksum = checksum.transpose()?;
        let commit_time = match text("mtime") {
            None | Some("checkout") => false,
            Some("commit") => true,
            Some(other) => {
                return Err(Failure::invalid(format!("mtime of a git source is {other:?}"))
                    .hint("expected checkout or commit"));
            }
        };
        // A checksum alone says which commit is meant.
        let revision = match (reference, &checksum) {
            ("", Some(checksum)) => Revision::parse(checksum)?,
            (reference, _) => Revision::parse(reference)?,
        };
        let fetch_by_commit = switch("fetch-by-commit", false)?;
        let whole = checksum.as_deref().and_then(ObjectId::parse);
        if fetch_by_commit && whole.is_none() && !matches!(revision, Revision::Commit(_)) {
            return Err(Failure::invalid("fetch-by-commit of a git source needs a whole commit")
                .hint("write checksum= and all digits of the commit"));
        }
        Ok(Asked {
            remote: Remote::parse(url)?,
            revision: whole.filter(|_| fetch_by_commit).map_or(revision, Revision::Commit),
            checksum,
            subdir: wbuild_git::clean_directory(text("subdir").unwrap_or_default())?,
            keep_git_dir: switch("keep-git-dir", false)?,
            submodules: switch("submodules", true)?,
            commit_time,
            token_secret: text("auth-token-secret").map(str::to_owned),
            header_secret: text("auth-header-secret").map(str::to_owned),
            ssh: text("ssh").map(str::to_owned),
            known_hosts: text("known-hosts").map(str::to_owned),
        })
    }

    /// Equal questions have equal answers.
    pub(super) fn question(&self) -> Question {
        let Asked { token_secret, header_secret, ssh, known_hosts, .. } = self;
        let shown = [token_secret, header_secret, ssh, known_hosts];
        (self.remote.clone(), shown.map(Option::clone))
    }

    /// A directory is a tree without history.
    pub(super) fn has_git_dir(&self) -> bool {
        self.keep_git_dir && self.subdir.is_empty()
    }

    /// Fails unless the commit is the one that was promised.
    pub(super) fn verify(&self, found: &Found) -> Result<(), Failure> {
        let Some(checksum) = &self.checksum else { return Ok(()) };
        let ids = [Some(&found.commit), found.tag.as_ref()];
        if ids.into_iter().flatten().any(|id| id.as_str().starts_with(checksum.as_str())) {
            return Ok(());
        }
        let (remote, commit) = (&self.remote, &found.commit);
        let what = match &found.name {
            Some(name) => format!("{} of {remote}", name.short()),
            None => remote.to_string(),
        };
        Err(Failure::invalid(format!("{what} is the commit {commit}, not {checksum}"))
            .hint("if it was meant to move, write the new commit"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789012345678901234567890123456789";

    fn asked(reference: &str, attrs: &[(&str, &str)]) -> Result<Asked, Failure> {
        let mut all = Attrs::default();
        for (key, value) in attrs {
            all.push(*key, *value);
        }
        Asked::new("https://example.org/a.git", reference, &all)
    }

    #[test]
    fn what_a_source_asks_for_is_checked() {
        let plain = asked("", &[]).expect("a source");
        assert_eq!(plain.revision, Revision::Default);
        assert!(plain.submodules && !plain.keep_git_dir && !plain.commit_time);
        let commit = Revision::Commit(ObjectId::parse(COMMIT).expect("an id"));
        // A checksum alone is the commit that is meant.
        assert_eq!(asked("", &[("checksum", COMMIT)]).expect("a source").revision, commit);
        let fetched = [("checksum", COMMIT), ("fetch-by-commit", "true")];
        assert_eq!(asked("main", &fetched).expect("a source").revision, commit);
        let kept = asked("main", &[("keep-git-dir", "true")]).expect("a source");
        assert!(kept.has_git_dir());
        let below = [("keep-git-dir", "true"), ("subdir", "/a/../b/")];
        let below = asked("main", &below).expect("a source");
        assert!(!below.has_git_dir() && below.subdir == "b");
        for (reference, key, value) in [
            ("-x", "subdir", ""),
            ("main", "checksum", "abc"),
            ("main", "checksum", "-0123456"),
            ("main", "keep-git-dir", "maybe"),
            ("main", "submodules", "1"),
            ("main", "mtime", "yesterday"),
            ("main", "fetch-by-commit", "true"),
            ("main", "subdir", "a/.git"),
            ("main", "colour", "red"),
        ] {
            assert!(asked(reference, &[(key, value)]).is_err(), "{reference} {key}={value}");
        }
    }

    #[test]
    fn a_promised_commit_must_come() {
        let id = |text: &str| ObjectId::parse(text).expect("an id");
        let tag = "1".repeat(40);
        let found = Found { commit: id(COMMIT), name: None, tag: Some(id(&tag)) };
        for (checksum, right) in
            [(COMMIT, true), (&COMMIT[..7], true), (&tag[..8], true), ("2222222", false)]
        {
            let asked = asked("main", &[("checksum", checksum)]).expect("a source");
            assert_eq!(asked.verify(&found).is_ok(), right, "{checksum}");
        }
    }
}
