//! Image references: `[registry/]repository[:tag][@digest]`.
//!
//! A [`Reference`] that exists is normalised: the registry is explicit and lower case (`docker.io`
//! where none was written; one that only capitals show to be a registry keeps them), one-component
//! names of docker.io get `library/`, and a reference without tag and digest has the tag `latest`.
//! Both forms in which it is written name the same image again. The grammar is that of the distribution project
//! (reference.md) with sha256 as the only digest algorithm.

use std::fmt;
use std::str::FromStr;

use wbuild_graph::Digest;

use crate::error::{Error, Result};

/// The registry of references that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// Longest `registry/repository`, in bytes (distribution reference grammar).
const MAX_NAME: usize = 255;

/// A normalised image reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and optional port, lower case unless capitals alone show that it is one; `docker.io` for
    /// Docker Hub.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path below the registry, e.g. `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; absent only when there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The pinned digest; wins over the tag.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What identifies the manifest in a request: the digest, else the tag.
    pub fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The same reference pinned to `digest`; the tag is kept for people.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Reference { digest: Some(digest), ..self.clone() }
    }

    /// What a tag or a digest names in the same repository.
    pub fn at(&self, target: &str) -> Result<Self> {
        let (registry, repository) = (self.registry.clone(), self.repository.clone());
        if target.contains(':') {
            let digest = target.parse::<Digest>();
            let bad = |error| Error::invalid("no valid digest").because(error);
            return Ok(Reference {
                registry,
                repository,
                tag: None,
                digest: Some(digest.map_err(bad)?),
            });
        }
        if !is_tag(target) {
            let shown: String = target.chars().take(128).flat_map(char::escape_debug).collect();
            return Err(Error::invalid(format!("\"{shown}\" is no tag")));
        }
        Ok(Reference { registry, repository, tag: Some(target.to_owned()), digest: None })
    }

    /// The same reference without its digest; the tag becomes `latest` where there was none.
    #[must_use]
    pub fn without_digest(&self) -> Self {
        let tag = self.tag.clone().or_else(|| Some("latest".to_owned()));
        Reference { digest: None, tag, ..self.clone() }
    }

    /// The short form people write: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        let mut out = String::new();
        if self.registry == DEFAULT_REGISTRY {
            // Only a name that normalises back to itself may be shortened.
            match self.repository.split_once('/') {
                Some(("library", rest)) if !rest.contains('/') => out.push_str(rest),
                Some((first, _)) if names_a_registry(first) => out.push_str(&self.name()),
                _ => out.push_str(&self.repository),
            }
        } else {
            out.push_str(&self.name());
        }
        self.push_suffix(&mut out);
        out
    }

    fn push_suffix(&self, out: &mut String) {
        if let Some(tag) = &self.tag {
            out.push(':');
            out.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            out.push('@');
            out.push_str(&digest.to_string());
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = self.name();
        self.push_suffix(&mut out);
        f.write_str(&out)
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |reason: &str| {
            let shown: String = text.chars().take(120).flat_map(char::escape_debug).collect();
            Error::invalid(format!("invalid image reference \"{shown}\": {reason}"))
        };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let digest = digest
                    .parse::<Digest>()
                    .map_err(|error| bad("after @ a digest is expected").because(error))?;
                (rest, Some(digest))
            }
        };
        // A colon after the last slash starts a tag; one before it belongs to a port.
        let tag_colon = rest.rfind(':').filter(|colon| rest.rfind('/').is_none_or(|s| s < *colon));
        let (name, tag) = match tag_colon {
            Some(colon) => (&rest[..colon], Some(&rest[colon + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(bad(
                "a tag is at most 128 letters, digits, '_', '.' and '-', and starts with neither \
                 '.' nor '-'",
            ));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if names_a_registry(first) => {
                let lower = first.to_ascii_lowercase();
                // Where capitals alone show that it is a registry, they have to stay.
                (if names_a_registry(&lower) { lower } else { first.to_owned() }, rest)
            }
            _ => (DEFAULT_REGISTRY.to_owned(), name),
        };
        if !is_registry(&registry) {
            return Err(bad("the registry is not a host name with an optional port"));
        }
        let registry =
            if registry == "index.docker.io" { DEFAULT_REGISTRY.to_owned() } else { registry };
        if name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad("64 hex digits are an image id, not a name"));
        }
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            let hint = format!("write it in lower case: {}", text.to_lowercase());
            return Err(bad("the repository name must be lower case").hint(hint));
        }
        if !repository.split('/').all(is_repository_component) {
            return Err(bad(
                "each part of the repository name is lower-case letters and digits, joined by \
                 single '.', one or two '_', or any number of '-'",
            ));
        }
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(bad("the name is longer than 255 characters"));
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Reference { registry, repository, tag, digest })
    }
}

/// Whether the first component of a name is a registry rather than a part of the repository.
fn names_a_registry(first: &str) -> bool {
    first.contains(['.', ':'])
        || first == "localhost"
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

pub(crate) fn is_registry(text: &str) -> bool {
    let (host, port) = split_port(text);
    if let Some(port) = port
        && (port.is_empty()
            || !port.bytes().all(|b| b.is_ascii_digit())
            || port.parse::<u16>().is_err())
    {
        return false;
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !host.is_empty()
        && host.split('.').all(|part| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        })
}

/// Host and port of `host[:port]`, where the host may be a bracketed IPv6 address.
pub(crate) fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rfind(':') {
        Some(colon) if !text[colon..].contains(']') => (&text[..colon], Some(&text[colon + 1..])),
        _ => (text, None),
    }
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
        && text.bytes().next().is_some_and(word)
}

fn is_repository_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !bytes.first().is_some_and(plain) || !bytes.last().is_some_and(plain) {
        return false;
    }
    bytes.chunk_by(|a, b| plain(a) == plain(b)).all(|run| {
        plain(&run[0]) || matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-')
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const D: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    #[test]
    fn normalises() {
        for (text, full, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3", "docker.io/library/alpine:3", "alpine:3"),
            ("foo/bar", "docker.io/foo/bar:latest", "foo/bar:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
            ("127.0.0.1:5000/x/y:z", "127.0.0.1:5000/x/y:z", "127.0.0.1:5000/x/y:z"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("Reg.Example/x", "reg.example/x:latest", "reg.example/x:latest"),
            // Without the capitals it would be a name of docker.io.
            ("UPPER/x", "UPPER/x:latest", "UPPER/x:latest"),
            ("UPPER:5000/x", "upper:5000/x:latest", "upper:5000/x:latest"),
            (
                "docker.io/localhost/x",
                "docker.io/localhost/x:latest",
                "docker.io/localhost/x:latest",
            ),
            ("docker.io/a.b/x", "docker.io/a.b/x:latest", "docker.io/a.b/x:latest"),
            ("a__b--c.d_e", "docker.io/library/a__b--c.d_e:latest", "a__b--c.d_e:latest"),
            ("x:5000", "docker.io/library/x:5000", "x:5000"),
        ] {
            let reference: Reference = text.parse().expect(text);
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
        }
        let pinned: Reference = format!("alpine@{D}").parse().expect("digest");
        assert_eq!(pinned.to_string(), format!("docker.io/library/alpine@{D}"));
        assert_eq!((pinned.tag(), pinned.target().as_str()), (None, D));
        let both: Reference = format!("alpine:3@{D}").parse().expect("tag and digest");
        assert_eq!((both.tag(), both.target().as_str()), (Some("3"), D));
        assert_eq!(both.without_digest().to_string(), "docker.io/library/alpine:3");
    }

    #[test]
    fn refuses() {
        let long_name = "a".repeat(250);
        let long_tag = format!("a:{}", "t".repeat(129));
        let id = &D[7..];
        for bad in [
            "",
            "Alpine",
            "a b",
            "a/",
            "/a",
            "a//b",
            "a:",
            "a:.x",
            "a:-x",
            "a:b:c",
            "a@",
            "a@sha256:00",
            "a@sha512:00",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "reg.example:99999/a",
            "reg.example:/a",
            "reg_x.y/a",
            "[::1/a",
            "[zz]:1/a",
            "a:ü",
            "ü",
            "a\0",
            "..",
            "a/../b",
            "reg.example/",
            &long_name,
            &long_tag,
            id,
            "http://reg.example/a",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?} must be refused");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_is_stable(text in "\\PC{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let full = reference.to_string();
                prop_assert_eq!(full.parse::<Reference>().expect("normal form parses"), reference.clone());
                prop_assert_eq!(reference.familiar().parse::<Reference>().expect("familiar form parses"), reference);
            }
        }

        #[test]
        fn accepts_what_the_grammar_makes(
            registry in prop::option::of("([a-z0-9]{1,8}\\.[a-z]{2,5}|localhost)(:[1-9][0-9]{0,3})?"),
            parts in prop::collection::vec("[a-z0-9]{1,6}([._]|__|-{1,3})[a-z0-9]{1,6}", 1..4),
            tag in prop::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
            pinned in any::<bool>(),
        ) {
            // A first component with a dot would be read as the registry.
            let mut text = registry.clone().unwrap_or_else(|| "docker.io".to_owned());
            text.push('/');
            text.push_str(&parts.join("/"));
            if let Some(tag) = &tag { text.push(':'); text.push_str(tag); }
            if pinned { text.push('@'); text.push_str(D); }
            let reference: Reference = text.parse().expect("made by the grammar");
            prop_assert_eq!(reference.to_string().parse::<Reference>().expect("normal form"), reference.clone());
            prop_assert_eq!(reference.digest().is_some(), pinned);
            if let Some(tag) = &tag { prop_assert_eq!(reference.tag(), Some(tag.as_str())); }
            if let Some(registry) = &registry { prop_assert_eq!(reference.registry(), registry.as_str()); }
        }
    }
}
