//! Where the definition and the main context are: PATH, `--file`, standard input.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

use wbuild_api::request::{ContextSpec, DefinitionSource};

use super::{Directory, context};
use crate::args::BuildArgs;
use crate::args::command;
use crate::environment::Environment;
use crate::exit::Fault;
use crate::plugin_name::PluginName;
use crate::suggest::nearest;

/// A definition from standard input is at most this long, in bytes.
pub const MAX_DEFINITION: u64 = 16 << 20;

/// The definition and the main context.
#[derive(Debug)]
pub struct Inputs {
    /// For the request.
    pub definition: DefinitionSource,
    /// The directory that holds the definition, if it is a file.
    pub definition_directory: Option<Directory>,
    /// For the request, name `context`.
    pub context: ContextSpec,
    /// PATH as written.
    pub context_shown: String,
}

/// Names that a definition has in a context directory, the first wins; by the frontend that the
/// command line names.
fn default_names(frontend: Option<&PluginName>) -> [&'static str; 2] {
    match frontend {
        Some(PluginName::Bundled(name)) if name == "steps" => ["Stepsfile", "stepsfile"],
        _ => ["Dockerfile", "dockerfile"],
    }
}

/// Finds the definition and the context.
pub fn find(
    args: &BuildArgs,
    frontend: Option<&PluginName>,
    environment: &Environment,
    stdin: &mut dyn Read,
) -> Result<Inputs, Fault> {
    let path = args.path.as_deref().filter(|path| !path.is_empty()).ok_or_else(|| {
        Fault::usage("the build context is missing")
            .hint("give a directory, e.g. `wbuild .`; `wbuild --help` shows more")
    })?;
    let file = args.file.as_deref();
    if path == "-" {
        return without_context(file, stdin);
    }
    let shown = path.to_string_lossy().into_owned();
    let remote = path.to_str().and_then(context::remote);
    let (spec, directory) = match remote {
        Some(spec) => (spec, None),
        None => {
            let directory = main_directory(path, &shown, environment)?;
            (ContextSpec::Local(directory.clone()), Some(directory))
        }
    };
    let (definition, definition_directory) = match (file, &directory) {
        (Some(file), _) if file == Path::new("-") => {
            let definition = read_inline(stdin, || {
                Fault::input("standard input holds an archive, not a definition")
                    .hint("--file names the definition; the context is a directory")
            })?;
            (definition, None)
        }
        (Some(file), _) => {
            let (definition, directory) =
                named_file(file, directory.as_deref(), &shown, environment)?;
            (definition, Some(directory))
        }
        (None, Some(directory)) => {
            let names = default_names(frontend);
            (
                in_directory(directory, &shown, &names)?,
                Some(Directory { path: directory.clone(), shown: shown.clone() }),
            )
        }
        (None, None) => {
            return Err(Fault::not_yet(format!("the definition cannot be read from {shown} yet"))
                .hint("fetch it first, or name a local definition with --file"));
        }
    };
    Ok(Inputs { definition, definition_directory, context: spec, context_shown: shown })
}

/// `wbuild -`: a definition on standard input and nothing else.
fn without_context(file: Option<&Path>, stdin: &mut dyn Read) -> Result<Inputs, Fault> {
    if file.is_some() {
        return Err(Fault::not_yet("a context cannot be read from standard input yet")
            .hint("unpack it and give the directory"));
    }
    Ok(Inputs {
        definition: read_inline(stdin, || {
            Fault::not_yet("a context cannot be read from standard input yet")
                .hint("unpack the archive and give the directory")
        })?,
        definition_directory: None,
        context: ContextSpec::Empty,
        context_shown: "-".to_owned(),
    })
}

/// Reads the definition; `archive` says what an archive in its place means.
fn read_inline(
    stdin: &mut dyn Read,
    archive: impl FnOnce() -> Fault,
) -> Result<DefinitionSource, Fault> {
    let mut data = Vec::new();
    stdin.take(MAX_DEFINITION + 1).read_to_end(&mut data).map_err(|error| {
        Fault::input("cannot read the definition from standard input").cause(&error)
    })?;
    if is_archive(&data) {
        return Err(archive());
    }
    if data.len() as u64 > MAX_DEFINITION {
        return Err(Fault::input(format!(
            "the definition on standard input is longer than {} MiB",
            MAX_DEFINITION >> 20
        )));
    }
    if data.iter().all(u8::is_ascii_whitespace) {
        return Err(Fault::input("the definition on standard input is empty"));
    }
    Ok(DefinitionSource::Inline { name: "-".to_owned(), data })
}

/// gzip (RFC 1952), bzip2, xz, zstd, or tar with the magic of POSIX (at 257).
fn is_archive(data: &[u8]) -> bool {
    let compressed: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    compressed.iter().any(|magic| data.starts_with(magic)) || data.get(257..262) == Some(b"ustar")
}

fn main_directory(path: &OsStr, shown: &str, environment: &Environment) -> Result<PathBuf, Fault> {
    let absolute = environment.absolute(Path::new(path));
    match std::fs::metadata(&absolute) {
        Ok(found) if found.is_dir() => Ok(absolute),
        Ok(_) => Err(Fault::input(format!("the build context {shown} is a file, not a directory"))
            .hint(format!("to build from that file: wbuild --file {shown} DIR"))),
        Err(error) => {
            let fault =
                Fault::input(format!("cannot find the build context {shown}")).cause(&error);
            let command = command();
            let names = command.get_subcommands().map(clap::Command::get_name);
            Err(match nearest(shown, names) {
                Some(near) => fault.hint(format!("did you mean the command `wbuild {near}`?")),
                None => fault,
            })
        }
    }
}

fn in_directory(directory: &Path, shown: &str, names: &[&str]) -> Result<DefinitionSource, Fault> {
    for name in names {
        let path = directory.join(name);
        match std::fs::metadata(&path) {
            Ok(found) if found.is_file() => {
                return Ok(DefinitionSource::File {
                    directory: directory.to_owned(),
                    name: (*name).to_owned(),
                });
            }
            Ok(_) => return Err(Fault::input(format!("{} is not a file", join(shown, name)))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(
                    Fault::input(format!("cannot read {}", join(shown, name))).cause(&error)
                );
            }
        }
    }
    let fault = Fault::input(format!("cannot find {} in {shown}", names.join(" or ")));
    let others = candidates(directory);
    Err(match &others[..] {
        [] => fault.hint("name the definition with --file, or give another directory"),
        [first, ..] => {
            let listed: Vec<String> = others.iter().map(|name| join(shown, name)).collect();
            fault
                .hint(format!("there is {}", listed.join(", ")))
                .hint(format!("for example: wbuild --file {} {shown}", join(shown, first)))
        }
    })
}

/// A path as the user would write it.
fn join(directory: &str, name: &str) -> String {
    match directory {
        "." => name.to_owned(),
        other => format!("{}/{name}", other.trim_end_matches('/')),
    }
}

/// Files of a directory that look like a definition, at most five, sorted.
fn candidates(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            let lower = name.to_lowercase();
            (lower.contains("dockerfile") || lower.contains("containerfile"))
                && !lower.ends_with("ignore")
        })
        .collect();
    found.sort();
    found.truncate(5);
    found
}

/// `--file FILE`, relative to the working directory as everywhere on a command line.
fn named_file(
    file: &Path,
    context: Option<&Path>,
    context_shown: &str,
    environment: &Environment,
) -> Result<(DefinitionSource, Directory), Fault> {
    let shown = file.display().to_string();
    if file.to_str().is_some_and(|text| context::remote(text).is_some()) {
        return Err(Fault::not_yet(format!("the definition cannot be read from {shown} yet"))
            .hint("fetch it first"));
    }
    let path = environment.absolute(file);
    let found = std::fs::metadata(&path).map_err(|error| {
        let fault = Fault::input(format!("cannot find the definition {shown}")).cause(&error);
        // The classic builder looked into the context, and many scripts rely on it.
        match context.map(|context| context.join(file)) {
            Some(inside) if file.is_relative() && inside.is_file() => {
                fault.hint(format!("did you mean --file {}?", join(context_shown, &shown)))
            }
            _ => fault,
        }
    })?;
    if found.is_dir() {
        return Err(Fault::input(format!("the definition {shown} is a directory"))
            .hint(format!("name the file in it, e.g. --file {}", join(&shown, "Dockerfile"))));
    }
    if !found.is_file() {
        return Err(Fault::input(format!("the definition {shown} is not a regular file"))
            .hint("pipe it: --file -"));
    }
    let path = inside_its_directory(path);
    let parts = path.parent().zip(path.file_name().and_then(OsStr::to_str));
    let (directory, name) = parts.ok_or_else(|| {
        Fault::input(format!("the name of the definition {shown} is not valid UTF-8"))
    })?;
    let directory_shown = match file.parent() {
        Some(parent) if parent != Path::new("") => parent.display().to_string(),
        _ => ".".to_owned(),
    };
    let source = DefinitionSource::File { directory: directory.to_owned(), name: name.to_owned() };
    Ok((source, Directory { path: directory.to_owned(), shown: directory_shown }))
}

/// A directory is lent as a closed tree, so a link that leads out of it is followed here.
fn inside_its_directory(path: PathBuf) -> PathBuf {
    let parent = path.parent().and_then(|parent| std::fs::canonicalize(parent).ok());
    match (std::fs::canonicalize(&path), parent) {
        (Ok(real), Some(parent)) if !real.starts_with(&parent) => real,
        _ => path,
    }
}
