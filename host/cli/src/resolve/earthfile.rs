//! An artifact of an Earthfile, `wbuild +target/path [DEST]`: where it goes.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::args::BuildArgs;
use crate::environment::Environment;
use crate::exit::Fault;

/// The option that says what the artifact is to be called.
pub const NAME: &str = "artifact-name";

/// Where an artifact goes.
#[derive(Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The directory.
    pub directory: PathBuf,
    /// A name in place of its own.
    pub name: Option<String>,
}

/// Where the artifact goes that is asked for, if one is.
pub fn artifact(
    args: &BuildArgs,
    earthfile: bool,
    environment: &Environment,
) -> Result<Option<Artifact>, Fault> {
    let named = args.target.as_deref().is_some_and(|target| target.contains('/'));
    if !(earthfile && named) {
        return match args.artifact || args.artifact_dest.is_some() {
            true => Err(Fault::usage("--artifact needs an artifact of an Earthfile")
                .hint("for example: wbuild --artifact +target/path")),
            false => Ok(None),
        };
    }
    if args.push || args.load {
        return Err(Fault::usage("an artifact is no image that could be pushed or loaded")
            .hint("build its target: wbuild --push +target"));
    }
    let Some(dest) = &args.artifact_dest else {
        return Ok(Some(Artifact { directory: environment.cwd.clone(), name: None }));
    };
    if !args.outputs.is_empty() {
        return Err(Fault::usage("--output says already where the artifact goes"));
    }
    let path = environment.absolute(Path::new(dest));
    if dest.as_bytes().ends_with(b"/") || dest == "." || dest == ".." || path.is_dir() {
        return Ok(Some(Artifact { directory: path, name: None }));
    }
    let parts = path.parent().zip(path.file_name().and_then(|name| name.to_str()));
    let (directory, name) = parts.ok_or_else(|| {
        Fault::input(format!("the destination {} is not valid UTF-8", path.display()))
    })?;
    Ok(Some(Artifact { directory: directory.to_owned(), name: Some(name.to_owned()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir(dir.path().join("there")).expect("directory");
        let environment = Environment::of_parts(dir.path(), &[]);
        let asked = |target: &str, dest: Option<&str>| {
            let (target, artifact_dest) = (Some(target.to_owned()), dest.map(Into::into));
            let args = BuildArgs { target, artifact_dest, ..BuildArgs::default() };
            artifact(&args, true, &environment)
        };
        for (dest, directory, name) in [
            (None, "", None),
            (Some("."), "", None),
            (Some("there"), "there", None),
            (Some("new/"), "new", None),
            (Some("new"), "", Some("new")),
            (Some("there/new"), "there", Some("new")),
        ] {
            let got = asked("t/file", dest).expect("a place").expect("an artifact");
            let path = |path: &Path| path.components().collect::<PathBuf>();
            assert_eq!(path(&got.directory), path(&dir.path().join(directory)), "{dest:?}");
            assert_eq!(got.name.as_deref(), name, "{dest:?}");
        }
        assert_eq!(asked("t", None).expect("no artifact"), None);
        assert!(asked("t", Some("x")).is_err());
    }
}
