//! URLs of git repositories, in `ADD` and as contexts: which are some, and what they ask for.
//!
//! Pure: no I/O, no dependencies; the host and frontends take a URL apart alike.

mod hosted;

pub use hosted::Hosted;

/// A git repository as a URL names it: `url#ref:subdir`, or `url?ref=…&subdir=…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitSource {
    /// Without fragment and without the query that is ours.
    pub url: String,
    /// Branch, tag or commit; empty means the default branch.
    pub reference: String,
    /// Directory that stands for the whole; empty means all of it.
    pub subdir: String,
    /// What the commit must be, or begin with; empty means any.
    pub checksum: String,
    /// Keep `.git`.
    pub keep_git_dir: Option<bool>,
    /// Fetch submodules too.
    pub submodules: Option<bool>,
    /// Where times of files come from.
    pub mtime: Option<String>,
    /// Ask for the commit of `checksum` rather than for the reference.
    pub fetch_by_commit: Option<bool>,
}

impl GitSource {
    /// Attributes for the graph. `keep` holds where the URL does not say.
    pub fn attrs(&self, keep: bool) -> Vec<(String, String)> {
        let mut attrs = Vec::new();
        let mut add = |name: &str, value: &str| attrs.push((name.to_owned(), value.to_owned()));
        if !self.subdir.is_empty() {
            add("subdir", &self.subdir);
        }
        if !self.checksum.is_empty() {
            add("checksum", &self.checksum);
        }
        if self.keep_git_dir.unwrap_or(keep) {
            add("keep-git-dir", "true");
        }
        if self.submodules == Some(false) {
            add("submodules", "false");
        }
        if let Some(mtime) = &self.mtime {
            add("mtime", mtime);
        }
        if self.fetch_by_commit == Some(true) {
            add("fetch-by-commit", "true");
        }
        attrs
    }
}

/// Takes a git URL apart; none if it is no git repository.
pub fn git_source(text: &str) -> Option<GitSource> {
    let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (base, query) = address.split_once('?').unwrap_or((address, ""));
    let scheme = base.split_once("://").map(|(scheme, _)| scheme);
    let is_git = match scheme {
        Some("git" | "ssh") => true,
        Some("http" | "https") => base.ends_with(".git"),
        Some(_) => false,
        None => is_scp_style(base),
    };
    if !is_git {
        return None;
    }
    let mut git = GitSource { url: base.to_owned(), ..GitSource::default() };
    if !fragment.is_empty() {
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        git.reference = reference.to_owned();
        git.subdir = subdir.to_owned();
    }
    let mut kept = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let on = || Some(!matches!(value, "0" | "false"));
        match name {
            "ref" => git.reference = value.to_owned(),
            "tag" => git.reference = format!("refs/tags/{value}"),
            "branch" => git.reference = format!("refs/heads/{value}"),
            "subdir" => git.subdir = value.to_owned(),
            "checksum" | "commit" => git.checksum = value.to_owned(),
            "keep-git-dir" => git.keep_git_dir = on(),
            "submodules" => git.submodules = on(),
            "mtime" => git.mtime = Some(value.to_owned()),
            "fetch-by-commit" => git.fetch_by_commit = on(),
            _ => kept.push(pair),
        }
    }
    if !kept.is_empty() {
        git.url = format!("{base}?{}", kept.join("&"));
    }
    Some(git)
}

/// `user@host:path`.
fn is_scp_style(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    let word = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    word(user) && word(host) && !path.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_git_from_files() {
        for (text, expect) in [
            ("https://example.org/a.tar.gz", None),
            ("https://example.org/a.git", Some(("https://example.org/a.git", "", ""))),
            (
                "https://example.org/a.git#v1:sub/dir",
                Some(("https://example.org/a.git", "v1", "sub/dir")),
            ),
            ("https://example.org/a.git#:sub", Some(("https://example.org/a.git", "", "sub"))),
            (
                "https://example.org/a.git?branch=b&x=y",
                Some(("https://example.org/a.git?x=y", "refs/heads/b", "")),
            ),
            ("git@example.org:a/b.git", Some(("git@example.org:a/b.git", "", ""))),
            ("ssh://git@example.org/a", Some(("ssh://git@example.org/a", "", ""))),
            ("src/a@b:c", None),
            ("a.git", None),
        ] {
            let got = git_source(text);
            let got =
                got.as_ref().map(|g| (g.url.as_str(), g.reference.as_str(), g.subdir.as_str()));
            assert_eq!(got, expect, "{text}");
        }
    }
}
