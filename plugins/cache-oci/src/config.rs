//! What the user says of a cache.

/// Where records are read and written, and what becomes of what was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The tag that stands for the cache.
    pub tag: String,
    /// What is read instead of what the tag names: one version of the cache.
    pub digest: Option<String>,
    /// What nothing leads to any more is removed after an export.
    pub reset: bool,
}

impl Config {
    /// Reads the options. `ref`, `src` and `dest` say to the host where the cache is; here only tag and
    /// digest of `ref` matter.
    pub fn parse(attrs: &[(String, String)]) -> Result<Config, (&'static str, String)> {
        let mut config = Config { tag: "latest".to_owned(), digest: None, reset: true };
        for (key, value) in attrs {
            match key.as_str() {
                "ref" => {
                    let (tag, digest) = version_of(value);
                    if let Some(tag) = tag {
                        config.tag = tag.to_owned();
                    }
                    config.digest = digest.map(str::to_owned);
                }
                "tag" => config.tag.clone_from(value),
                "digest" => config.digest = Some(value.clone()),
                "reset" => {
                    config.reset = match value.as_str() {
                        "true" => true,
                        "false" => false,
                        _ => {
                            let message = format!("reset is true or false, not {value:?}");
                            return Err(("invalid", message));
                        }
                    }
                }
                "src" | "dest" => {}
                key if key.starts_with("x-") => {}
                _ => return Err(("unsupported", format!("backend.open knows no key {key:?}"))),
            }
        }
        Ok(config)
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
        let parse = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
            Config::parse(&pairs)
        };
        let config = |tag: &str, digest: Option<&str>, reset| Config {
            tag: tag.to_owned(),
            digest: digest.map(str::to_owned),
            reset,
        };
        assert_eq!(parse(&[]), Ok(config("latest", None, true)));
        assert_eq!(parse(&[("ref", "r.test:1/a:b"), ("x-y", "z")]), Ok(config("b", None, true)));
        assert_eq!(
            parse(&[("dest", "d"), ("tag", "t"), ("reset", "false"), ("digest", "d")]),
            Ok(config("t", Some("d"), false))
        );
        assert_eq!(parse(&[("reset", "maybe")]).expect_err("no").0, "invalid");
        assert_eq!(parse(&[("colour", "red")]).expect_err("no").0, "unsupported");
    }
}
