//! Caches elsewhere: `--cache-from`, `--cache-to`, `--cache-mount`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wbuild_api::request::CacheSpec;

use crate::args::cache::{CacheArg, CacheMountArg};
use crate::environment::Environment;
use crate::exit::Fault;

/// Keys whose values are directories of this machine.
const DIRECTORIES: [&str; 2] = ["src", "dest"];

/// Resolves imports or exports; `option` names them in messages.
pub fn resolve(
    args: &[CacheArg],
    option: &str,
    environment: &Environment,
) -> Result<Vec<CacheSpec>, Fault> {
    args.iter().map(|arg| one(arg, option, environment)).collect()
}

fn one(arg: &CacheArg, option: &str, environment: &Environment) -> Result<CacheSpec, Fault> {
    let CacheArg { backend, attrs } = arg;
    let needed = match (backend.as_str(), option) {
        ("registry", _) => Some(("ref", "ref=REGISTRY/NAME:TAG")),
        ("local", "--cache-from") => Some(("src", "src=DIR")),
        ("local", _) => Some(("dest", "dest=DIR")),
        (CacheSpec::INLINE, "--cache-from") => {
            return Err(Fault::usage(
                "type=inline of --cache-from: what is in an image is found by its name",
            )
            .hint("name the image: --cache-from REGISTRY/NAME:TAG"));
        }
        _ => None,
    };
    if let Some((key, example)) = needed
        && attrs.get(key).is_none_or(str::is_empty)
    {
        return Err(Fault::usage(format!("type={backend} of {option} needs {key}"))
            .hint(format!("add {example}")));
    }
    let mut attrs = attrs.clone();
    for (key, value) in &mut attrs.0 {
        if DIRECTORIES.contains(&key.as_str()) {
            let path = environment.absolute(Path::new(value)).into_os_string();
            *value = path.into_string().map_err(|_| {
                Fault::input(format!("{key} of {option} is not valid UTF-8: {value}"))
            })?;
        }
    }
    Ok(CacheSpec { backend: backend.clone(), attrs })
}

/// Directories that stand in for cache mounts. One that is missing is made: whoever keeps them from
/// one machine to the next has none at first.
pub fn mounts(
    args: &[CacheMountArg],
    environment: &Environment,
) -> Result<BTreeMap<String, PathBuf>, Fault> {
    let mut out = BTreeMap::new();
    for CacheMountArg { id, directory } in args {
        let path = environment.absolute(directory);
        std::fs::create_dir_all(&path).map_err(|error| {
            let shown = directory.display();
            Fault::input(format!("cannot use {shown} as the cache mount {id:?}")).cause(&error)
        })?;
        if out.insert(id.clone(), path).is_some() {
            return Err(Fault::usage(format!("--cache-mount gives {id:?} two directories")));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches() {
        let environment = Environment::of_parts(Path::new("/work"), &[]);
        let resolve = |option: &str, text: &str| {
            let found = resolve(&[text.parse().expect(text)], option, &environment)?;
            Ok::<_, Fault>(found.into_iter().next().expect("one"))
        };
        let (from, to) = ("--cache-from", "--cache-to");
        let found = resolve(from, "type=local,src=d").expect("a directory");
        assert_eq!(found.attrs.get("src"), Some("/work/d"));
        assert_eq!(found.shown(), "/work/d");
        assert_eq!(resolve(to, "a/b:c").expect("a name").shown(), "a/b:c");
        assert_eq!(resolve(to, "type=inline").expect("inline").shown(), "type=inline");
        for (option, bad) in [
            (from, "type=inline"),
            (from, "type=local,dest=d"),
            (to, "type=local,src=d"),
            (to, "type=registry"),
            (to, "type=registry,ref="),
        ] {
            assert!(resolve(option, bad).is_err(), "{option} {bad}");
        }
    }

    #[test]
    fn directories_of_mounts_are_made() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let environment = Environment::of_parts(dir.path(), &[]);
        let args = |texts: &[&str]| -> Vec<CacheMountArg> {
            texts.iter().map(|text| text.parse().expect(text)).collect()
        };
        let found = mounts(&args(&["go=a/b", "npm=c"]), &environment).expect("two");
        assert_eq!(found["go"], dir.path().join("a/b"));
        assert!(dir.path().join("a/b").is_dir() && found.len() == 2);
        assert!(mounts(&args(&["go=a", "go=c"]), &environment).is_err());
        std::fs::write(dir.path().join("file"), "").expect("file");
        assert!(mounts(&args(&["go=file"]), &environment).is_err());
    }
}
