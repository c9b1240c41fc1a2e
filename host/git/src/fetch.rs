//! What a server offers, and getting it.

use std::collections::BTreeMap;

use wbuild_graph::{Failure, FailureKind};

use crate::explain::explain;
use crate::name::{ObjectId, RefName, Revision, commit_prefix};
use crate::program::Input;
use crate::remote::Remote;
use crate::repository::Repository;
use crate::transport::Access;

/// How many similar names an error tells.
const NEAR: usize = 5;

/// A reference of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// What it leads to: a commit, or the object of an annotated tag.
    object: ObjectId,
    /// What an annotated tag leads to.
    peeled: Option<ObjectId>,
}

/// What a server offers, as it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertised {
    /// What `HEAD` leads to: the object, and the branch if it says so.
    head: Option<(ObjectId, Option<RefName>)>,
    refs: BTreeMap<RefName, Offered>,
}

/// What a revision stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The commit, unless the server hides what a tag leads to.
    pub commit: ObjectId,
    /// The reference that leads to it.
    pub name: Option<RefName>,
    /// The object of an annotated tag.
    pub tag: Option<ObjectId>,
}

impl Advertised {
    /// Reads the output of `git ls-remote --symref`. Lines that make no sense are left out, above all
    /// names that no reference can have.
    pub fn parse(output: &[u8]) -> Advertised {
        let mut offered = Advertised::default();
        let mut target = None;
        for line in output.split(|byte| *byte == b'\n') {
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let Some((value, name)) = line.split_once('\t') else { continue };
            if let Some(leads_to) = value.strip_prefix("ref: ") {
                if name == "HEAD" {
                    target = RefName::parse(leads_to);
                }
                continue;
            }
            let Some(object) = ObjectId::parse(value) else { continue };
            if name == "HEAD" {
                offered.head = Some((object, target.take()));
            } else if let Some(tag) = name.strip_suffix("^{}") {
                let tag = RefName::parse(tag).and_then(|tag| offered.refs.get_mut(&tag));
                if let Some(tag) = tag {
                    tag.peeled = Some(object);
                }
            } else if let Some(name) = RefName::parse(name) {
                offered.refs.insert(name, Offered { object, peeled: None });
            }
        }
        offered
    }

    /// What a revision stands for: of references of one name the one in full, then branches, then
    /// tags. None if there is none.
    pub fn find(&self, revision: &Revision) -> Option<Found> {
        let name = match revision {
            Revision::Commit(id) => {
                return Some(Found { commit: id.clone(), name: None, tag: None });
            }
            Revision::Default => {
                let (commit, name) = self.head.clone()?;
                // A branch that the server does not offer cannot be fetched by name.
                let name = name.filter(|name| self.refs.contains_key(name));
                return Some(Found { commit, name, tag: None });
            }
            Revision::Name(name) => name,
        };
        ["", "refs/", "refs/heads/", "refs/tags/"].iter().find_map(|prefix| {
            let name = RefName::parse(&format!("{prefix}{name}"))?;
            let offered = self.refs.get(&name)?;
            Some(match &offered.peeled {
                Some(commit) => Found {
                    commit: commit.clone(),
                    tag: Some(offered.object.clone()),
                    name: Some(name),
                },
                None => Found { commit: offered.object.clone(), tag: None, name: Some(name) },
            })
        })
    }

    /// That there is no such reference, and which there are.
    pub fn missing(&self, remote: &Remote, revision: &Revision) -> Failure {
        let name = match revision {
            Revision::Name(name) => name,
            _ if self.refs.is_empty() => {
                return Failure::not_found(format!("{remote} has no commits"));
            }
            _ => {
                let message = format!("{remote} does not say what its default branch is");
                return Failure::not_found(message).hint("name a branch: URL#BRANCH");
            }
        };
        let failure = Failure::not_found(format!("{remote} has no branch or tag {name}"));
        let short = name.rsplit('/').next().unwrap_or(name);
        let mut near: Vec<(usize, &str)> = self
            .refs
            .keys()
            .map(RefName::short)
            .filter(|other| !other.starts_with("refs/"))
            .map(|other| (distance(name, other), other))
            .filter(|(far, other)| {
                *far <= name.chars().count().div_ceil(3) || other.contains(short)
            })
            .collect();
        near.sort_unstable();
        near.dedup();
        let near: Vec<&str> = near.iter().take(NEAR).map(|(_, name)| *name).collect();
        match near.is_empty() {
            true => failure,
            false => failure.hint(format!("similar names there: {}", near.join(", "))),
        }
    }
}

/// How many characters have to change (Levenshtein), of names of up to 200 characters.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(200).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().take(200).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            let least = changed.min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], least);
        }
    }
    row[other.len()]
}

/// What to fetch.
#[derive(Clone, Debug)]
pub struct Want<'a> {
    /// The commit that must come.
    pub commit: &'a ObjectId,
    /// A reference that led to it a moment ago. Some servers give nothing else.
    pub name: Option<&'a RefName>,
    /// The object of an annotated tag that must come, too.
    pub tag: Option<&'a ObjectId>,
}

impl Repository {
    /// Asks a server what it offers.
    ///
    /// # Errors
    /// `Denied` and `NotFound` as the server says; `Unavailable` if it cannot be asked.
    pub async fn advertised(
        &self,
        remote: &Remote,
        access: &Access,
    ) -> Result<Advertised, Failure> {
        let output = self.talk(remote, access, &["ls-remote", "--symref", "--quiet"], &[]).await?;
        Ok(Advertised::parse(&output))
    }

    /// Brings a commit and its tree here, if they are not here.
    ///
    /// # Errors
    /// As [`Repository::advertised`]; `NotFound` if the server does not have it.
    pub async fn fetch(
        &self,
        remote: &Remote,
        access: &Access,
        want: &Want<'_>,
    ) -> Result<(), Failure> {
        if self.has(want).await? {
            return Ok(());
        }
        self.take_format_of(want.commit).await?;
        let mut tried = Ok(());
        // By its name first, as every server gives that. It may lead elsewhere by now.
        let by_name = want.name.map(RefName::as_str);
        // A tag cannot be had by its id alone: what it leads to comes along.
        let by_id = want.tag.unwrap_or(want.commit).as_str();
        for source in by_name.into_iter().chain([by_id]) {
            let spec = format!("+{source}:refs/wbuild/incoming");
            tried =
                self.talk(remote, access, &fetch_args(Some("--depth=1")), &[&spec]).await.map(drop);
            match &tried {
                Ok(()) if self.arrived(want).await? => return Ok(()),
                Err(failure) if failure.kind != FailureKind::NotFound => return tried,
                _ => {}
            }
        }
        // Servers may give only what branches and tags lead to, whole.
        self.fetch_all(remote, access).await?;
        if self.arrived(want).await? {
            return Ok(());
        }
        let missing = Failure::not_found(format!("{remote} has no commit {}", want.commit))
            .hint("it must be reachable from a branch or a tag");
        Err(match tried {
            Err(failure) => missing.cause(&failure),
            Ok(()) => missing,
        })
    }

    /// The commit that an abbreviation stands for: of those that are here, or of all that the server
    /// has.
    ///
    /// # Errors
    /// As [`Repository::fetch`]; `NotFound` if there is none, or more than one.
    pub async fn expand(
        &self,
        remote: &Remote,
        access: &Access,
        prefix: &str,
    ) -> Result<Option<ObjectId>, Failure> {
        let Some(prefix) = commit_prefix(prefix) else { return Ok(None) };
        if let Some(commit) = self.commit_of(&prefix).await? {
            return Ok(Some(commit));
        }
        self.fetch_all(remote, access).await?;
        self.commit_of(&prefix).await
    }

    async fn fetch_all(&self, remote: &Remote, access: &Access) -> Result<(), Failure> {
        let heads = "+refs/heads/*:refs/wbuild/heads/*";
        let tags = "+refs/tags/*:refs/wbuild/tags/*";
        let args = fetch_args(self.is_shallow().then_some("--unshallow"));
        self.talk(remote, access, &args, &[heads, tags]).await.map(drop)
    }

    async fn commit_of(&self, prefix: &str) -> Result<Option<ObjectId>, Failure> {
        let revision = format!("{prefix}^{{commit}}");
        let args = ["rev-parse", "--verify", "--quiet", "--end-of-options", &revision];
        let ended = self.local(&args, Input::Nothing, Vec::new()).await?;
        let found = String::from_utf8_lossy(&ended.output);
        // An ambiguous one is none; which they are is said by nobody but the repository.
        Ok(ObjectId::parse(found.trim_end()).filter(|_| ended.status.success()))
    }

    /// Whether what is wanted is here, and marked as such.
    ///
    /// # Errors
    /// Git cannot be run.
    pub async fn has(&self, want: &Want<'_>) -> Result<bool, Failure> {
        for id in [Some(want.commit), want.tag].into_iter().flatten() {
            let mark = mark(id);
            let args = ["rev-parse", "--verify", "--quiet", "--end-of-options", &mark];
            let ended = self.local(&args, Input::Nothing, Vec::new()).await?;
            if ended.output.trim_ascii_end() != id.as_str().as_bytes() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Marks what was wanted, if it has come.
    async fn arrived(&self, want: &Want<'_>) -> Result<bool, Failure> {
        let mut marks = String::new();
        for (id, kind) in [(Some(want.commit), "commit"), (want.tag, "tag")] {
            let Some(id) = id else { continue };
            let args = ["cat-file", "-t", id.as_str()];
            let ended = self.local(&args, Input::Nothing, Vec::new()).await?;
            if ended.output.trim_ascii_end() != kind.as_bytes() {
                return Ok(false);
            }
            marks.push_str(&format!("update {} {id}\n", mark(id)));
        }
        let input = Input::Bytes(marks.into_bytes());
        self.checked(&["update-ref", "--stdin"], input, Vec::new()).await?;
        Ok(true)
    }

    /// Runs a command that talks to a server: `args`, then its URL, then `more`. Again, if the server
    /// cannot answer now.
    async fn talk(
        &self,
        remote: &Remote,
        access: &Access,
        args: &[&str],
        more: &[&str],
    ) -> Result<Vec<u8>, Failure> {
        let retries = self.git.limits.retries;
        let mut failures = 0;
        loop {
            match self.talk_once(remote, access, args, more).await {
                Err(failure) if failure.retryable && failures + 1 < retries.attempts => {
                    failures += 1;
                    tokio::time::sleep(retries.delay(failures)).await;
                }
                result => return result,
            }
        }
    }

    async fn talk_once(
        &self,
        remote: &Remote,
        access: &Access,
        args: &[&str],
        more: &[&str],
    ) -> Result<Vec<u8>, Failure> {
        let way = self.git.way(remote, access, self.home()).await?;
        let mut all: Vec<_> = args.iter().map(Into::into).collect();
        all.push("--".into());
        all.push(way.url.clone().into());
        all.extend(more.iter().map(Into::into));
        let mut call = self.call(all, Input::Nothing);
        call.env = way.env;
        call.settings = way.settings;
        call.protocols = way.protocols;
        call.time = self.git.limits.transfer;
        let running = self.git.run(call);
        let ended = self.watched(&way.gate, running).await?;
        match ended.status.success() {
            true => Ok(ended.output),
            false => Err(explain(remote, access, way.gate.take_failure(), &ended.messages)),
        }
    }
}

/// `git fetch` with what it needs beside settings.
fn fetch_args(depth: Option<&'static str>) -> Vec<&'static str> {
    let mut args = vec!["fetch", "--quiet", "--no-tags", "--force", "--no-write-fetch-head"];
    args.extend(["--no-auto-maintenance", "--no-recurse-submodules"]);
    args.extend(depth);
    args
}

/// The reference that says that an object and all it needs are here.
fn mark(id: &ObjectId) -> String {
    format!("refs/wbuild/here/{id}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    fn found(offered: &Advertised, name: &str) -> Option<(String, Option<String>)> {
        let found = offered.find(&Revision::parse(name).ok()?)?;
        Some((found.commit.to_string(), found.name.map(|name| name.as_str().to_owned())))
    }

    #[test]
    fn names_from_a_server_are_references_or_nothing() {
        let text = format!(
            "ref: -x\tHEAD\n{ONE}\tHEAD\n{ONE}\trefs/heads/main\n{TWO}\trefs/heads/-x\n\
             {TWO}\t--upload-pack=x\n{TWO}\trefs/heads/a..b\nnonsense\n-1\trefs/heads/bad\n\
             {ONE}\trefs/tags/v1\n{TWO}\trefs/tags/v1^{{}}\n{TWO}\trefs/tags/none^{{}}\n"
        );
        let offered = Advertised::parse(text.as_bytes());
        assert_eq!(found(&offered, ""), Some((ONE.to_owned(), None)));
        assert_eq!(offered.refs.len(), 2);
        let tag = offered.find(&Revision::Name("v1".to_owned())).expect("a tag");
        assert_eq!((tag.commit.as_str(), tag.tag.expect("annotated").as_str()), (TWO, ONE));
        // A branch that is said to be the default and is not there.
        let text = format!("ref: refs/heads/gone\tHEAD\n{ONE}\tHEAD\n");
        assert_eq!(found(&Advertised::parse(text.as_bytes()), ""), Some((ONE.to_owned(), None)));
    }

    #[test]
    fn similar_names_are_told() {
        let text = format!(
            "{ONE}\trefs/heads/main\n{ONE}\trefs/heads/release-2\n{ONE}\trefs/pull/1/head\n"
        );
        let offered = Advertised::parse(text.as_bytes());
        let remote = Remote::parse("https://h/a").expect("a URL");
        let hints = |name: &str| {
            offered.missing(&remote, &Revision::parse(name).expect("a name")).hints.join("")
        };
        assert!(hints("mian").ends_with(": main"), "{}", hints("mian"));
        assert!(hints("release").ends_with(": release-2"));
        assert!(hints("zzzzzz").is_empty());
        assert!(hints("").contains("URL#BRANCH"));
    }

    proptest! {
        #[test]
        fn any_answer_is_read(text in "((ref: )?[-a-z/.^{}]{0,20}|[0-9a-f]{40})(\t[-A-Za-z/.^{}~]{0,20})?\n{0,2}") {
            let offered = Advertised::parse(text.as_bytes());
            for name in offered.refs.keys() {
                prop_assert!(name.as_str().starts_with("refs/") && !name.as_str().contains("/-"));
            }
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            Advertised::parse(&bytes);
        }
    }
}
