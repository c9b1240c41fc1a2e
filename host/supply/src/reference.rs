//! How a plugin is named: on the command line, in a project's file, in a definition's syntax line.
//!
//! ```text
//! ./my.wasm, dir/x, x.wasm           a component file: it has a / or ends in .wasm
//! steps                              an alias of the project, else the bundled one of that name
//! builtin:steps                      always the bundled one
//! oci://registry/ns/name[:tag][@sha256:…]   an artifact of a registry
//! https://host/path#sha256:…         a file of a web server, and what it has to be
//! ```
//!
//! Invariant: a reference that exists can be asked for; nothing after [`PluginRef::parse`] looks at
//! the text again. [`PluginRef::to_string`] gives a text that is read as the same reference, for all
//! but files.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use wbuild_graph::{Digest, Failure};
use wbuild_oci::Reference;

/// Longest text of a reference, in bytes.
pub const MAX_REFERENCE: usize = 2048;

const OCI: &str = "oci://";
const BUILTIN: &str = "builtin:";

/// Which plugin is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PluginRef {
    /// Part of this program, whatever a project calls so.
    Bundled(String),
    /// What the project calls so, else the bundled one.
    Named(String),
    /// A component file.
    File {
        /// As written.
        shown: String,
        /// Where it is: the real path, whatever links and dots led to it.
        path: PathBuf,
    },
    /// An artifact in a registry.
    Registry(Reference),
    /// A file on a web server.
    Web(WebRef),
}

/// A file on a web server, and what it has to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WebRef {
    /// `https://…`, without the fragment.
    pub url: String,
    /// Of the component.
    pub digest: Digest,
}

impl PluginRef {
    /// Reads a reference. Paths begin at `cwd`.
    ///
    /// # Errors
    ///
    /// It is none; says what is missing.
    pub fn parse(text: &OsStr, cwd: &Path) -> Result<PluginRef, Failure> {
        let shown = text.to_string_lossy();
        if shown.is_empty() {
            return Err(Failure::invalid("the name of a plugin is empty"));
        }
        if let Some(remote) = PluginRef::remote(&shown)? {
            return Ok(remote);
        }
        if let Some(name) = shown.strip_prefix(BUILTIN) {
            if !is_name(name) {
                return Err(Failure::invalid(format!("{shown:?} is no name of a plugin"))
                    .hint("builtin: is followed by the name of a bundled plugin"));
            }
            return Ok(PluginRef::Bundled(name.to_owned()));
        }
        if shown.contains('/') || shown.ends_with(".wasm") {
            let path = real_path(&cwd.join(text));
            return Ok(PluginRef::File { path, shown: shown.into_owned() });
        }
        Ok(PluginRef::Named(shown.into_owned()))
    }

    /// Reads a reference to something elsewhere, by its scheme; none for what has no scheme.
    ///
    /// # Errors
    ///
    /// It has a scheme and is wrong.
    pub fn remote(text: &str) -> Result<Option<PluginRef>, Failure> {
        let shown: String = text.chars().take(200).collect();
        if text.len() > MAX_REFERENCE {
            return Err(Failure::invalid(format!(
                "the name of a plugin is longer than {MAX_REFERENCE} bytes: {shown:?}…"
            )));
        }
        if let Some(rest) = text.strip_prefix(OCI) {
            return PluginRef::image(rest).map(Some);
        }
        if text.starts_with("http://") {
            return Err(Failure::invalid(format!("{shown:?} would be fetched without encryption"))
                .hint("plugins are fetched from https://…#sha256:… or oci://…"));
        }
        if text.starts_with("https://") {
            return web(text).map(|web| Some(PluginRef::Web(web)));
        }
        match text.split_once("://") {
            Some((scheme, _)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+') => {
                Err(Failure::invalid(format!(
                    "plugins are not fetched from {scheme}:// ({shown:?})"
                ))
                .hint("known are oci://REGISTRY/NAME[:TAG] and https://HOST/PATH#sha256:…"))
            }
            _ => Ok(None),
        }
    }

    /// An artifact of a registry, as images are named: without a registry it is one of docker.io.
    ///
    /// # Errors
    ///
    /// It is no reference of an image.
    pub fn image(text: &str) -> Result<PluginRef, Failure> {
        let reference: Reference = text.parse().map_err(Failure::from)?;
        Ok(PluginRef::Registry(reference))
    }

    /// Whether it has to be fetched.
    pub fn is_remote(&self) -> bool {
        matches!(self, PluginRef::Registry(_) | PluginRef::Web(_))
    }

    /// Whether it is the bundled plugin of this name.
    pub fn is_bundled(&self, wanted: &str) -> bool {
        matches!(self, PluginRef::Bundled(name) if name == wanted)
    }

    /// What its versions have in common: the name without tag, digest and hash. Policies, buckets of
    /// values and signatures go by it.
    pub fn source(&self) -> String {
        match self {
            PluginRef::Bundled(name) | PluginRef::Named(name) => name.clone(),
            PluginRef::File { path, .. } => path.display().to_string(),
            PluginRef::Registry(reference) => format!("{OCI}{}", reference.name()),
            PluginRef::Web(web) => web.url.clone(),
        }
    }

    /// As the user knows it.
    pub fn shown(&self) -> String {
        match self {
            PluginRef::Bundled(name) => name.clone(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for PluginRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PluginRef::Bundled(name) => write!(f, "{BUILTIN}{name}"),
            PluginRef::Named(name) => f.write_str(name),
            PluginRef::File { shown, .. } => f.write_str(shown),
            PluginRef::Registry(reference) => write!(f, "{OCI}{reference}"),
            PluginRef::Web(WebRef { url, digest }) => write!(f, "{url}#{digest}"),
        }
    }
}

/// The path that an absolute path really is, however it is written: policies go by it, and what they
/// have decided about is what is opened. Of what is not there, as far as there is something.
pub(crate) fn real_path(path: &Path) -> PathBuf {
    let mut rest = PathBuf::new();
    for there in path.ancestors() {
        match (std::fs::canonicalize(there), there.file_name()) {
            // Not `join`: of nothing it makes a slash at the end.
            (Ok(real), _) => return real.components().chain(rest.components()).collect(),
            (Err(_), Some(name)) => rest = Path::new(name).join(rest),
            // It ends in `..`, below what is not there: nothing can be opened so.
            (Err(_), None) => return path.to_owned(),
        }
    }
    path.to_owned()
}

/// What an alias and a bundled plugin may be called.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&text.len())
        && text.bytes().all(plain)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !text.ends_with(".wasm")
}

fn web(text: &str) -> Result<WebRef, Failure> {
    let shown: String = text.chars().take(200).collect();
    let Some((url, fragment)) = text.split_once('#') else {
        return Err(Failure::invalid(format!("{shown:?} does not say which file it is to be"))
            .hint("add what sha256sum says of the file: https://…#sha256:DIGEST"));
    };
    let digest: Digest = fragment.parse().map_err(|error| {
        Failure::invalid(format!("the hash in {shown:?} is none"))
            .cause(&error)
            .hint("expected #sha256: and 64 hexadecimal digits, as sha256sum prints them")
    })?;
    let parsed: reqwest::Url = url
        .parse()
        .map_err(|error| Failure::invalid(format!("{shown:?} is no URL")).cause(&error))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(Failure::invalid("the URL of a plugin holds a user or a password")
            .hint("credentials do not belong into names: they would be shown and kept"));
    }
    // Said the one way that it is asked for, so that policies see what is asked.
    Ok(WebRef { url: parsed.to_string(), digest })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<PluginRef, Failure> {
        PluginRef::parse(OsStr::new(text), Path::new("/w"))
    }

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn paths_and_names() {
        assert_eq!(parse("steps").expect("name"), PluginRef::Named("steps".into()));
        assert_eq!(parse("builtin:steps").expect("name"), PluginRef::Bundled("steps".into()));
        for (text, path) in
            [("x.wasm", "/w/x.wasm"), ("./x", "/w/x"), ("/abs/p.wasm", "/abs/p.wasm")]
        {
            let want = PluginRef::File { shown: text.into(), path: path.into() };
            assert_eq!(parse(text).expect(text), want);
        }
    }

    #[test]
    fn a_file_has_one_path_however_it_is_written() {
        let folder = tempfile::tempdir().expect("a directory");
        let root = folder.path().canonicalize().expect("a path");
        std::fs::create_dir(root.join("a")).expect("a directory");
        std::fs::write(root.join("a/p.wasm"), "").expect("a file");
        std::os::unix::fs::symlink("a", root.join("link")).expect("a link");
        std::os::unix::fs::symlink("a/p.wasm", root.join("p.wasm")).expect("a link");
        let real = root.join("a/p.wasm").display().to_string();
        for text in ["a/p.wasm", "./a//p.wasm", "a/../a/p.wasm", "link/p.wasm", "p.wasm"] {
            let parsed = PluginRef::parse(OsStr::new(text), &root).expect(text);
            assert_eq!((parsed.source(), parsed.to_string()), (real.clone(), text.to_owned()));
        }
        let absent = PluginRef::parse(OsStr::new("link/../link/x/y.wasm"), &root).expect("a name");
        assert_eq!(absent.source(), root.join("a/x/y.wasm").display().to_string());
    }

    #[test]
    fn elsewhere() {
        for (text, shown, source) in [
            ("oci://r.example/a/b", "oci://r.example/a/b:latest", "oci://r.example/a/b"),
            ("oci://R.example:5000/a:1", "oci://r.example:5000/a:1", "oci://r.example:5000/a"),
            (
                &format!("oci://r.example/a/b:1@sha256:{HEX}"),
                &format!("oci://r.example/a/b:1@sha256:{HEX}"),
                "oci://r.example/a/b",
            ),
            ("oci://team/x:2", "oci://docker.io/team/x:2", "oci://docker.io/team/x"),
            (
                &format!("https://H.example/a/../b.wasm#sha256:{HEX}"),
                &format!("https://h.example/b.wasm#sha256:{HEX}"),
                "https://h.example/b.wasm",
            ),
        ] {
            let parsed = parse(text).expect(text);
            assert!(parsed.is_remote());
            assert_eq!((&*parsed.to_string(), &*parsed.source()), (shown, source), "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        for (text, says) in [
            ("", "empty"),
            ("builtin:", "no name"),
            ("builtin:a/b", "no name"),
            ("https://h.example/x.wasm", "which file"),
            ("https://h.example/x.wasm#", "hash"),
            ("https://h.example/x.wasm#sha256:12", "hash"),
            (&format!("https://u:p@h.example/x#sha256:{HEX}"), "password"),
            (&format!("https:///#sha256:{HEX}#x"), "hash"),
            (&format!("http://h.example/x#sha256:{HEX}"), "encryption"),
            ("ftp://h.example/x", "ftp://"),
            ("oci://", "empty"),
            ("oci://r.example/UPPER", "lower case"),
            ("oci://r.example/a@sha256:0", "digest"),
        ] {
            let failure = parse(text).expect_err(text);
            assert!(failure.to_string().contains(says), "{text}: {failure}");
        }
        let failure = parse("https://h.example/x.wasm").expect_err("no hash");
        assert!(failure.hints[0].contains("#sha256:"), "{failure:?}");
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_so_that_it_is_read_again(
            text in "(oci://|https://|builtin:|)[a-zA-Z0-9./:@#_%-]{0,40}(#sha256:[0-9a-f]{64})?"
        ) {
            if let Ok(parsed) = parse(&text) {
                let again = parse(&parsed.to_string()).expect("it was written by us");
                match &parsed {
                    PluginRef::File { .. } => prop_assert_eq!(again.source(), parsed.source()),
                    _ => prop_assert_eq!(again, parsed),
                }
            }
        }
    }
}
