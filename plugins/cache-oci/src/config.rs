//! What the user says of a cache.

use wbuild_cache::{Config, Error, Result};

/// Where records are read and written, and what becomes of what was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The tag that stands for the cache.
    pub tag: String,
    /// What is read instead of what the tag names: one version of the cache.
    pub digest: Option<String>,
    /// What nothing leads to any more is removed after an export.
    pub reset: bool,
}

impl Options {
    /// Takes the options out. `ref`, `src` and `dest` say to the host where the cache is; here only tag
    /// and digest of `ref` matter, and what says them alone counts more.
    pub fn take(config: &mut Config) -> Result<Options> {
        let reference = config.take("ref");
        let (tag, digest) = reference.as_deref().map_or((None, None), version_of);
        let (tag, digest) = (tag.map(str::to_owned), digest.map(str::to_owned));
        for place in ["src", "dest"] {
            config.take(place);
        }
        let reset = match config.take("reset").as_deref() {
            None | Some("true") => true,
            Some("false") => false,
            Some(other) => {
                return Err(Error::invalid(format!("reset is true or false, not {other:?}")));
            }
        };
        Ok(Options {
            tag: config.take("tag").or(tag).unwrap_or_else(|| "latest".to_owned()),
            digest: config.take("digest").or(digest),
            reset,
        })
    }
}

/// Tag and digest of an image reference; a colon before a slash belongs to a port.
fn version_of(reference: &str) -> (Option<&str>, Option<&str>) {
    let (name, digest) = match reference.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (reference, None),
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    (last.split_once(':').map(|(_, tag)| tag), digest)
}

#[cfg(test)]
mod tests {
    use wbuild_cache::FailureKind;

    use super::*;

    #[test]
    fn tags() {
        for (reference, tag, digest) in [
            ("a", None, None),
            ("a:1", Some("1"), None),
            ("localhost:5000/a", None, None),
            ("localhost:5000/a:1", Some("1"), None),
            ("localhost:5000/a@sha256:00", None, Some("sha256:00")),
            ("localhost:5000/a/b:c@sha256:00", Some("c"), Some("sha256:00")),
        ] {
            assert_eq!(version_of(reference), (tag, digest), "{reference}");
        }
    }

    #[test]
    fn options() {
        let take = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
            let mut config = Config::new(true, pairs);
            let options = Options::take(&mut config)?;
            config.finish().map(|()| options)
        };
        let options = |tag: &str, digest: Option<&str>, reset| Options {
            tag: tag.to_owned(),
            digest: digest.map(str::to_owned),
            reset,
        };
        let good = |pairs: &[(&str, &str)]| take(pairs).expect("options");
        assert_eq!(good(&[]), options("latest", None, true));
        assert_eq!(good(&[("ref", "r.test:1/a:b"), ("x-y", "z")]), options("b", None, true));
        assert_eq!(
            good(&[("dest", "d"), ("tag", "t"), ("reset", "false"), ("digest", "d")]),
            options("t", Some("d"), false)
        );
        let refused = |key: &str, value: &str| take(&[(key, value)]).expect_err("refused").kind();
        assert_eq!(refused("reset", "maybe"), FailureKind::Invalid);
        assert_eq!(refused("colour", "red"), FailureKind::Unsupported);
    }
}
