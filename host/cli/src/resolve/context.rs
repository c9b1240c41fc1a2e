//! What a context's text means: a directory, an image, a layout, a URL.

use std::path::Path;

use wbuild_api::request::ContextSpec;
use wbuild_git_url::git_source;
use wbuild_graph::Digest;

use crate::environment::Environment;
use crate::exit::Fault;

/// Reads the value of `--build-context NAME=VALUE`, or a PATH that is no directory.
pub fn resolve(text: &str, environment: &Environment) -> Result<ContextSpec, Fault> {
    if let Some(reference) = text.strip_prefix("docker-image://") {
        if reference.is_empty() {
            return Err(Fault::usage("docker-image:// names no image"));
        }
        return Ok(ContextSpec::Image(reference.to_owned()));
    }
    if let Some(layout) = text.strip_prefix("oci-layout://") {
        return oci_layout(layout, environment);
    }
    if text.starts_with("target:") || text.starts_with("input:") {
        return Err(Fault::not_yet(format!("{text:?}: other targets cannot be contexts yet")));
    }
    if let Some(remote) = remote(text) {
        return Ok(remote);
    }
    directory(text, environment).map(ContextSpec::Local)
}

/// A git or http URL.
pub fn remote(text: &str) -> Option<ContextSpec> {
    if git_source(text).is_some() {
        return Some(ContextSpec::Git(text.to_owned()));
    }
    let http = text.starts_with("http://") || text.starts_with("https://");
    http.then(|| ContextSpec::Http(text.to_owned()))
}

/// A directory that exists, as an absolute path.
pub fn directory(text: &str, environment: &Environment) -> Result<std::path::PathBuf, Fault> {
    let path = environment.absolute(Path::new(text));
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => Ok(path),
        Ok(_) => Err(Fault::input(format!("{text} is a file, not a directory"))),
        Err(error) => Err(Fault::input(format!("cannot find the directory {text}")).cause(&error)),
    }
}

/// `DIR`, `DIR:TAG`, `DIR@DIGEST` or `DIR:TAG@DIGEST`, where the digest decides. A directory whose
/// name has a colon is found too.
fn oci_layout(text: &str, environment: &Environment) -> Result<ContextSpec, Fault> {
    let is_dir = |text: &str| environment.absolute(Path::new(text)).is_dir();
    let tag_of = |text: &str| -> Option<(String, String)> {
        let (dir, tag) = text.rsplit_once(':')?;
        (!tag.contains('/') && !tag.is_empty()).then(|| (dir.to_owned(), tag.to_owned()))
    };
    let (rest, digest) = match text.rsplit_once("@") {
        Some((rest, digest)) if digest.starts_with("sha256:") => {
            let digest: Digest = digest
                .parse()
                .map_err(|error| Fault::usage(format!("oci-layout://{text}: {error}")))?;
            (rest, Some(digest.to_string()))
        }
        _ => (text, None),
    };
    let (dir, tag) = match tag_of(rest) {
        Some((dir, tag)) if !is_dir(rest) => (dir, Some(tag)),
        _ => (rest.to_owned(), None),
    };
    if dir.is_empty() {
        return Err(Fault::usage(format!("oci-layout://{text} names no directory")));
    }
    let directory = directory(&dir, environment)?;
    if !directory.join("index.json").is_file() {
        return Err(Fault::input(format!(
            "{dir} is not an OCI image layout: it has no index.json"
        ))
        .hint(
            "an archive must be unpacked first; wbuild writes a layout with \
                   --output type=oci,tar=false,dest=DIR",
        ));
    }
    Ok(ContextSpec::OciLayout { directory, reference: digest.or(tag) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_kinds_apart() {
        let env = Environment::of_parts(Path::new("/"), &[]);
        let git = |text: &str| ContextSpec::Git(text.to_owned());
        let http = |text: &str| ContextSpec::Http(text.to_owned());
        for (text, want) in [
            ("docker-image://alpine:3", ContextSpec::Image("alpine:3".into())),
            ("git://h/x", git("git://h/x")),
            ("git@h:x/y", git("git@h:x/y")),
            ("me@h:x", git("me@h:x")),
            ("https://h/x.git", git("https://h/x.git")),
            ("https://h/x.git#main:sub", git("https://h/x.git#main:sub")),
            ("https://h/x.tar", http("https://h/x.tar")),
            ("tmp", ContextSpec::Local("/tmp".into())),
        ] {
            assert_eq!(resolve(text, &env).expect(text), want);
        }
        for bad in ["docker-image://", "target:x", "no-such-directory-here", "oci-layout://"] {
            assert!(resolve(bad, &env).is_err(), "{bad}");
        }
    }

    #[test]
    fn layouts() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for name in ["plain", "with:colon"] {
            std::fs::create_dir(dir.path().join(name)).expect("directory");
            std::fs::write(dir.path().join(name).join("index.json"), "{}").expect("index");
        }
        std::fs::create_dir(dir.path().join("empty")).expect("directory");
        let env = Environment::of_parts(dir.path(), &[]);
        let digest = Digest::of(b"x").to_string();
        for (text, name, reference) in [
            ("plain", "plain", None),
            ("./plain:1.0", "./plain", Some("1.0")),
            ("with:colon", "with:colon", None),
            ("with:colon:v1", "with:colon", Some("v1")),
            (&format!("plain@{digest}"), "plain", Some(digest.as_str())),
            (&format!("plain:t@{digest}"), "plain", Some(digest.as_str())),
        ] {
            let got = resolve(&format!("oci-layout://{text}"), &env).expect(text);
            let want = ContextSpec::OciLayout {
                directory: dir.path().join(name),
                reference: reference.map(str::to_owned),
            };
            assert_eq!(got, want, "{text}");
        }
        for bad in ["empty", "missing", "plain@sha256:12"] {
            assert!(resolve(&format!("oci-layout://{bad}"), &env).is_err(), "{bad}");
        }
    }
}
