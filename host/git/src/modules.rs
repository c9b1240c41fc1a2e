//! Submodules: what `.gitmodules` says of them.

use std::collections::BTreeMap;

use wbuild_graph::{Failure, FailureKind};

use crate::name::ObjectId;
use crate::program::Input;
use crate::remote::Remote;
use crate::repository::Repository;
use crate::tree::{EntryKind, Tree};

/// Largest `.gitmodules`, in bytes.
const LARGEST: u64 = 1 << 20;

/// A submodule of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submodule {
    /// From the top of the commit; an entry of its tree.
    pub path: Vec<u8>,
    /// Its repository.
    pub remote: Remote,
    /// Its commit.
    pub commit: ObjectId,
}

/// What `.gitmodules` says, by path.
#[derive(Debug, Default)]
struct Described {
    url: Option<String>,
    skip: bool,
}

/// Reads the output of `git config --list -z`. The names of submodules tie lines together and mean
/// nothing else here.
fn described(output: &[u8]) -> BTreeMap<Vec<u8>, Described> {
    let mut by_name: BTreeMap<&[u8], (Option<&[u8]>, Described)> = BTreeMap::new();
    for line in output.split(|byte| *byte == 0) {
        let Some(end) = line.iter().position(|byte| *byte == b'\n') else { continue };
        let (key, value) = (&line[..end], &line[end + 1..]);
        let Some(key) = key.strip_prefix(b"submodule.") else { continue };
        let Some(dot) = key.iter().rposition(|byte| *byte == b'.') else { continue };
        let entry = by_name.entry(&key[..dot]).or_default();
        match &key[dot + 1..] {
            b"path" => entry.0 = Some(value),
            b"url" => entry.1.url = std::str::from_utf8(value).ok().map(str::to_owned),
            b"update" => entry.1.skip = value == b"none",
            _ => {}
        }
    }
    let with_path = |(path, described): (Option<&[u8]>, Described)| {
        let path = path?;
        Some((path.strip_suffix(b"/").unwrap_or(path).to_vec(), described))
    };
    by_name.into_values().filter_map(with_path).collect()
}

impl Repository {
    /// The submodules among the entries of a commit that is here. Those that `.gitmodules` marks as not
    /// to be updated are left out.
    ///
    /// # Errors
    /// `Invalid` if a submodule has no URL, or one that cannot be used.
    pub async fn submodules(
        &self,
        remote: &Remote,
        commit: &ObjectId,
        tree: &Tree,
    ) -> Result<Vec<Submodule>, Failure> {
        if tree.of_kind(EntryKind::Submodule).next().is_none() {
            return Ok(Vec::new());
        }
        let described = self.gitmodules(commit).await?;
        let mut found = Vec::new();
        for entry in tree.of_kind(EntryKind::Submodule) {
            let path = String::from_utf8_lossy(&entry.path);
            let known = described.get(&entry.path);
            if known.is_some_and(|known| known.skip) {
                continue;
            }
            let Some(url) = known.and_then(|known| known.url.as_deref()) else {
                let message = format!("{remote} does not say where its submodule {path:?} is");
                return Err(
                    Failure::invalid(message).hint("to leave submodules out: URL?submodules=false")
                );
            };
            let submodule = remote.join(url).map_err(|failure| {
                failure.context(format!("the submodule {path:?} of {remote} cannot be fetched"))
            })?;
            let commit = entry.id.clone();
            found.push(Submodule { path: entry.path.clone(), remote: submodule, commit });
        }
        Ok(found)
    }

    async fn gitmodules(&self, commit: &ObjectId) -> Result<BTreeMap<Vec<u8>, Described>, Failure> {
        let args = ["ls-tree", "-l", "-z", "--full-tree", commit.as_str(), "--", ".gitmodules"];
        let output = self.checked(&args, Input::Nothing, Vec::new()).await?;
        let Tree { entries } = Tree::parse(&output, &self.git.limits)?;
        let [entry] = &*entries else { return Ok(BTreeMap::new()) };
        if entry.kind != EntryKind::File {
            return Ok(BTreeMap::new());
        }
        if entry.size > LARGEST {
            let message = format!("the file .gitmodules is larger than {LARGEST} bytes");
            return Err(Failure::new(FailureKind::Limit, message));
        }
        let blob = format!("--blob={}", entry.id);
        let args = ["config", "--no-includes", &blob, "--list", "-z"];
        let ended = self.local(&args, Input::Nothing, Vec::new()).await?;
        match ended.status.success() {
            true => Ok(described(&ended.output)),
            false => Err(Failure::invalid("the file .gitmodules is malformed")),
        }
    }
}
