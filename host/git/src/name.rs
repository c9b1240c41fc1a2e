//! Names of objects and references. None of them can be taken for an option.

use std::fmt;

use wbuild_graph::Failure;

/// Longest name of a reference, in bytes.
const LONGEST: usize = 1024;
/// Fewest digits of an abbreviated commit.
const SHORTEST: usize = 7;

/// The id of an object: 40 (SHA-1) or 64 (SHA-256) hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(String);

impl ObjectId {
    /// Reads an id in full.
    pub fn parse(text: &str) -> Option<ObjectId> {
        (matches!(text.len(), 40 | 64) && is_hex(text)).then(|| ObjectId(text.to_ascii_lowercase()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The whole name of a reference, `refs/…`, as git-check-ref-format(1) has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefName(String);

impl RefName {
    /// Reads a whole name.
    pub fn parse(text: &str) -> Option<RefName> {
        (text.starts_with("refs/") && is_ref_path(text)).then(|| RefName(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As people write it: without `refs/heads/` or `refs/tags/`.
    pub fn short(&self) -> &str {
        let name = &self.0;
        name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/")).unwrap_or(name)
    }

    /// Whether it is a tag.
    pub fn is_tag(&self) -> bool {
        self.0.starts_with("refs/tags/")
    }
}

/// What of a repository is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Revision {
    /// What the server's `HEAD` leads to.
    Default,
    /// One commit.
    Commit(ObjectId),
    /// A reference, in full or as people write it; or else an abbreviated commit.
    Name(String),
}

impl Revision {
    /// Reads what stands behind the `#` of a URL.
    ///
    /// # Errors
    /// `Invalid` if nothing can have that name.
    pub fn parse(text: &str) -> Result<Revision, Failure> {
        if text.is_empty() || text == "HEAD" {
            return Ok(Revision::Default);
        }
        if let Some(id) = ObjectId::parse(text) {
            return Ok(Revision::Commit(id));
        }
        if !is_ref_path(text) {
            let shown: String = text.chars().take(200).collect();
            return Err(Failure::invalid(format!("{shown:?} is not the name of a branch or tag")));
        }
        Ok(Revision::Name(text.to_owned()))
    }
}

/// The beginning of a commit's id, or all of it.
pub fn commit_prefix(text: &str) -> Option<String> {
    let fits = (SHORTEST..=64).contains(&text.len()) && is_hex(text);
    fits.then(|| text.to_ascii_lowercase())
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_ref_path(text: &str) -> bool {
    let good = |b: u8| b > b' ' && b != 0x7f && !b"~^:?*[\\".contains(&b);
    text.len() <= LONGEST
        && !text.starts_with('-')
        && text.bytes().all(good)
        && !text.contains("..")
        && !text.contains("@{")
        && text != "@"
        && !text.ends_with('.')
        && text.split('/').all(|name| {
            !name.is_empty() && !name.starts_with(['.', '-']) && !name.ends_with(".lock")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_from_options_and_revisions() {
        for text in ["main", "v1.0", "feature/x", "refs/heads/main", "refs/pull/1/head", "a-b", "é"]
        {
            assert_eq!(Revision::parse(text), Ok(Revision::Name(text.to_owned())), "{text}");
        }
        for text in [
            "-x",
            "--upload-pack=touch",
            "a/-x",
            "a..b",
            "a~1",
            "a^{}",
            "HEAD:x",
            "a b",
            "a\nb",
            "a\0b",
            "*",
            "a?",
            "[a",
            "a\\b",
            "@",
            "a@{1}",
            "a.",
            ".a",
            "a/.b",
            "a.lock",
            "a.lock/b",
            "/a",
            "a/",
            "a//b",
            "\u{7f}",
        ] {
            assert!(Revision::parse(text).is_err(), "{text:?}");
            assert!(
                RefName::parse(&format!("refs/heads/{text}")).is_none() || text == "@",
                "{text:?}"
            );
        }
        assert!(Revision::parse(&"a".repeat(LONGEST + 1)).is_err());
        assert_eq!(Revision::parse(""), Ok(Revision::Default));
        assert_eq!(Revision::parse("HEAD"), Ok(Revision::Default));
    }

    #[test]
    fn commits_are_hexadecimal() {
        let id = "0123456789abcdefABCDEF0123456789abcdef01";
        assert_eq!(ObjectId::parse(id).expect("an id").as_str(), id.to_ascii_lowercase());
        assert!(
            ObjectId::parse(&id[1..]).is_none() && ObjectId::parse(&id.replace('0', "g")).is_none()
        );
        assert!(matches!(Revision::parse(id), Ok(Revision::Commit(_))));
        assert_eq!(commit_prefix("ABCDEF0").as_deref(), Some("abcdef0"));
        for text in ["abcdef", "abcdefg", "-abcdef", ""] {
            assert!(commit_prefix(text).is_none(), "{text}");
        }
    }
}
