//! Values of `--cache-from`, `--cache-to` and `--cache-mount`.

use std::path::PathBuf;
use std::str::FromStr;

use wbuild_graph::Attrs;

use super::csv;

/// Separates the ids of `mounts=`: commas separate attributes.
const IDS: char = ';';

/// `--cache-from`, `--cache-to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheArg {
    /// The backend's name, or the path of a component.
    pub backend: String,
    /// The other keys, in order; `mounts` once for each id.
    pub attrs: Attrs,
}

impl FromStr for CacheArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut attrs = Attrs::default();
        let fields = csv::fields(text)?;
        if let [only] = &fields[..]
            && !only.contains('=')
        {
            if only.trim().is_empty() {
                return Err("expected an image's name, or type=KIND".to_owned());
            }
            attrs.push("ref", only.trim());
            return Ok(CacheArg { backend: "registry".to_owned(), attrs });
        }
        let mut backend = None;
        for (key, value) in csv::pairs(text)? {
            let value =
                value.ok_or_else(|| format!("{key:?} has no value; expected {key}=VALUE"))?;
            match key.as_str() {
                "type" => backend = Some(value),
                "mounts" => {
                    let ids = value.split(IDS).map(str::trim).filter(|id| !id.is_empty());
                    ids.for_each(|id| attrs.push("mounts", id));
                }
                // The last value of a key counts, as everywhere.
                _ => {
                    attrs.0.retain(|(known, _)| *known != key);
                    attrs.push(key, value);
                }
            }
        }
        let backend = backend.filter(|backend| !backend.is_empty()).ok_or(
            "a type is missing: type=registry, local, inline, or a cache backend of your own",
        )?;
        Ok(CacheArg { backend, attrs })
    }
}

/// `--cache-mount`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMountArg {
    /// Of the mount.
    pub id: String,
    /// What stands in for it.
    pub directory: PathBuf,
}

impl FromStr for CacheMountArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((id, directory)) if !id.is_empty() && !directory.is_empty() => {
                Ok(CacheMountArg { id: id.to_owned(), directory: directory.into() })
            }
            _ => Err("expected ID=DIR".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches() {
        for (text, want) in [
            ("user/app", Ok("registry ref=user/app")),
            ("host:5000/a/b:c", Ok("registry ref=host:5000/a/b:c")),
            ("type=inline", Ok("inline")),
            ("Type=local,Dest=a b", Ok("local dest=a b")),
            ("type=registry,ref=x,mode=max,mode=min", Ok("registry ref=x mode=min")),
            ("type=local,\"dest=a,b\"", Ok("local dest=a,b")),
            ("type=./my.wasm,url=https://h/p?q=1", Ok("./my.wasm url=https://h/p?q=1")),
            (
                "type=local,dest=d,mounts=go;/root/.cache,mounts=x",
                Ok("local dest=d mounts=go mounts=/root/.cache mounts=x"),
            ),
            ("", Err("expected an image's name")),
            ("ref=x,mode=max", Err("a type is missing")),
            ("type=,ref=x", Err("a type is missing")),
            ("type=registry,ref", Err("\"ref\" has no value")),
            ("type=registry,\"ref=x", Err("a quote is not closed")),
        ] {
            let got = text.parse::<CacheArg>().map(|arg| {
                let attrs = arg.attrs.iter().map(|(key, value)| format!(" {key}={value}"));
                format!("{}{}", arg.backend, attrs.collect::<String>())
            });
            match want {
                Ok(want) => assert_eq!(got.as_deref(), Ok(want), "{text}"),
                Err(start) => assert!(got.expect_err(text).starts_with(start), "{text}"),
            }
        }
    }

    #[test]
    fn mounts() {
        let arg: CacheMountArg = "/root/.cache=a=b".parse().expect("an id and a directory");
        assert_eq!((arg.id.as_str(), arg.directory), ("/root/.cache", "a=b".into()));
        for bad in ["", "x", "=d", "x="] {
            assert!(bad.parse::<CacheMountArg>().is_err(), "{bad}");
        }
    }
}
