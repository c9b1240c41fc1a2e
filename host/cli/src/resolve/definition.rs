//! Where the definition and the main context are: PATH, `--file`, standard input.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

use wbuild_api::request::{ContextSpec, DefinitionSource};
use wbuild_git_url::Hosted;
use wbuild_oci::layer::{LOOK, looks_like_archive};
use wbuild_supply::PluginRef;
use wbuild_supply::suggest::nearest;

use super::{Directory, context};
use crate::args::BuildArgs;
use crate::args::command;
use crate::environment::Environment;
use crate::exit::Fault;

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
    /// What the main context is called in messages, if it is a directory.
    pub directory_shown: String,
    /// Where files are written that the definition saves beside itself: its own directory, or the
    /// working directory where it lies elsewhere.
    pub beside: PathBuf,
    /// What was read of an archive on standard input to know that it is one.
    pub archive: Option<Vec<u8>>,
}

/// Names that a definition has in a context directory, the first wins; by the frontend that the
/// command line names.
fn default_names(frontend: Option<&PluginRef>) -> &'static [&'static str] {
    match frontend {
        Some(frontend) if frontend.is_bundled("steps") => &["Stepsfile", "stepsfile"],
        Some(frontend) if frontend.is_bundled("earthfile") => &["Earthfile", "earthfile"],
        Some(frontend) if frontend.is_bundled("yaml") => &["wbuild.yaml", "wbuild.yml"],
        // The name says what reads it, see `wbuild_supply::syntax`.
        None => &["Dockerfile", "dockerfile", "wbuild.yaml", "wbuild.yml"],
        Some(_) => &["Dockerfile", "dockerfile"],
    }
}

/// Finds the definition and the context.
pub fn find(
    args: &BuildArgs,
    frontend: Option<&PluginRef>,
    environment: &Environment,
    stdin: &mut dyn Read,
) -> Result<Inputs, Fault> {
    let path = args.path.as_deref().filter(|path| !path.is_empty()).ok_or_else(|| {
        Fault::usage("the build context is missing")
            .hint("give a directory, e.g. `wbuild .`; `wbuild --help` shows more")
    })?;
    let file = args.file.as_deref();
    let names = default_names(frontend);
    if path == "-" {
        return from_stdin(file, names, environment, stdin);
    }
    let shown = path.to_string_lossy().into_owned();
    let elsewhere = |(definition, definition_directory), context| Inputs {
        definition,
        definition_directory,
        context,
        directory_shown: shown.clone(),
        context_shown: shown.clone(),
        beside: environment.cwd.clone(),
        archive: None,
    };
    if let Some(spec) = path.to_str().and_then(context::remote) {
        if let (true, None, ContextSpec::Git(url)) = (is_earthfile(frontend), file, &spec) {
            let (url, directory) = whole_repository(url);
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let definition = DefinitionSource::InContext { directory, names };
            return Ok(elsewhere((definition, None), ContextSpec::Git(url)));
        }
        let definition = match file {
            Some(file) if file == Path::new("-") => (inline(stdin)?, None),
            file => in_context(file, names, environment)?,
        };
        return Ok(elsewhere(definition, spec));
    }
    let directory = main_directory(path, &shown, environment)?;
    if let (true, None) = (is_earthfile(frontend), file)
        && let Some((top, below)) = around(&directory)
    {
        let DefinitionSource::File { name, .. } = in_directory(&directory, &shown, names)? else {
            return Err(Fault::input(format!("{shown} holds no definition")));
        };
        let definition = DefinitionSource::InContext { directory: below, names: vec![name] };
        return Ok(Inputs {
            definition,
            definition_directory: None,
            directory_shown: top.display().to_string(),
            context: ContextSpec::Local(top),
            context_shown: shown,
            beside: directory,
            archive: None,
        });
    }
    let (definition, definition_directory) = match file {
        Some(file) if file == Path::new("-") => (inline(stdin)?, None),
        Some(file) => match remote_file(file)? {
            Some(url) => (url, None),
            None => {
                let (definition, found) =
                    named_file(file, Some((&directory, &shown)), environment)?;
                (definition, Some(found))
            }
        },
        None => (
            in_directory(&directory, &shown, names)?,
            Some(Directory { path: directory.clone(), shown: shown.clone() }),
        ),
    };
    Ok(Inputs {
        definition,
        definition_directory,
        beside: directory.clone(),
        context: ContextSpec::Local(directory),
        directory_shown: shown.clone(),
        context_shown: shown,
        archive: None,
    })
}

fn is_earthfile(frontend: Option<&PluginRef>) -> bool {
    frontend.is_some_and(|frontend| frontend.is_bundled("earthfile"))
}

/// The git work tree around a directory, and the directory in it. Earthfiles may name others above
/// them; only what is named is read. None if the directory is the whole of it.
fn around(directory: &Path) -> Option<(PathBuf, String)> {
    let top = wbuild_engine::work_tree(directory)?;
    let real = std::fs::canonicalize(directory).ok()?;
    let below = real.strip_prefix(&top).ok()?.to_str()?.to_owned();
    // It is named in an attribute of an output.
    (!below.is_empty() && top.to_str().is_some()).then_some((top, below))
}

/// A repository's URL without the directory of its fragment, and the directory.
fn whole_repository(url: &str) -> (String, String) {
    let (address, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
    let url = match reference {
        "" => address.to_owned(),
        reference => format!("{address}#{reference}"),
    };
    (url, directory.trim_matches('/').to_owned())
}

/// The definition for a context that is not here: a file inside it, an absolute path of this machine,
/// or a URL.
fn in_context(
    file: Option<&Path>,
    names: &[&str],
    environment: &Environment,
) -> Result<(DefinitionSource, Option<Directory>), Fault> {
    let Some(file) = file else {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        return Ok((DefinitionSource::InContext { directory: String::new(), names }, None));
    };
    if let Some(url) = remote_file(file)? {
        return Ok((url, None));
    }
    if file.is_absolute() {
        let (definition, directory) = named_file(file, None, environment)?;
        return Ok((definition, Some(directory)));
    }
    let name = file.to_str().ok_or_else(|| {
        let shown = file.display();
        Fault::input(format!("the name of the definition {shown} is not valid UTF-8"))
    })?;
    let (directory, names) = (String::new(), vec![name.to_owned()]);
    Ok((DefinitionSource::InContext { directory, names }, None))
}

/// `--file https://…`.
fn remote_file(file: &Path) -> Result<Option<DefinitionSource>, Fault> {
    match file.to_str().and_then(context::remote) {
        None => Ok(None),
        Some(ContextSpec::Http(url)) => Ok(Some(DefinitionSource::Url(url))),
        Some(_) => Err(Fault::usage(format!(
            "the definition cannot be the repository {}",
            file.display()
        ))
        .hint("make the repository the context and name the file in it: wbuild --file FILE URL")),
    }
}

/// `wbuild -`: an archive that is the context, or a definition and nothing else.
fn from_stdin(
    file: Option<&Path>,
    names: &[&str],
    environment: &Environment,
    stdin: &mut dyn Read,
) -> Result<Inputs, Fault> {
    if file == Some(Path::new("-")) {
        return Err(Fault::usage("standard input cannot be both the context and the definition")
            .hint("leave out --file: what standard input holds is seen from its beginning"));
    }
    let start = read_up_to(stdin, LOOK as u64)?;
    let shown = "-".to_owned();
    if looks_like_archive(&start) {
        let (definition, definition_directory) = in_context(file, names, environment)?;
        return Ok(Inputs {
            definition,
            definition_directory,
            context: ContextSpec::Archive,
            directory_shown: shown.clone(),
            context_shown: shown,
            beside: environment.cwd.clone(),
            archive: Some(start),
        });
    }
    if let Some(file) = file {
        let file = file.display();
        return Err(Fault::usage(format!(
            "standard input holds no archive, and the definition is to be {file}"
        ))
        .hint("for a context: tar -c . | wbuild -")
        .hint("for a definition on standard input: leave out --file"));
    }
    Ok(Inputs {
        definition: definition(start, stdin)?,
        definition_directory: None,
        context: ContextSpec::Empty,
        directory_shown: shown.clone(),
        context_shown: shown,
        beside: environment.cwd.clone(),
        archive: None,
    })
}

/// The definition on standard input, beside a context.
fn inline(stdin: &mut dyn Read) -> Result<DefinitionSource, Fault> {
    let start = read_up_to(stdin, LOOK as u64)?;
    if looks_like_archive(&start) {
        return Err(Fault::input("standard input holds an archive, not a definition")
            .hint("--file names the definition; an archive can be the context: wbuild -"));
    }
    definition(start, stdin)
}

fn read_up_to(stdin: &mut dyn Read, most: u64) -> Result<Vec<u8>, Fault> {
    let mut data = Vec::new();
    stdin
        .take(most)
        .read_to_end(&mut data)
        .map_err(|error| Fault::input("cannot read standard input").cause(&error))?;
    Ok(data)
}

/// The definition that standard input holds, of which `data` is the beginning.
fn definition(mut data: Vec<u8>, stdin: &mut dyn Read) -> Result<DefinitionSource, Fault> {
    data.extend(read_up_to(stdin, MAX_DEFINITION + 1 - data.len() as u64)?);
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
                None if Hosted::is_meant(shown) => fault.hint(
                    "a repository is two names behind its host, or ends with `.git`: \
                     github.com/org/repo+target",
                ),
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
    let (last, others) = names.split_last().expect("there is a name to look for");
    let listed = [&others.join(", "), *last].map(str::to_owned);
    let listed =
        listed.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" or ");
    let fault = Fault::input(format!("cannot find {listed} in {shown}"));
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
    context: Option<(&Path, &str)>,
    environment: &Environment,
) -> Result<(DefinitionSource, Directory), Fault> {
    let shown = file.display().to_string();
    let path = environment.absolute(file);
    let found = std::fs::metadata(&path).map_err(|error| {
        let fault = Fault::input(format!("cannot find the definition {shown}")).cause(&error);
        // The classic builder looked into the context, and many scripts rely on it.
        match context {
            Some((directory, name)) if file.is_relative() && directory.join(file).is_file() => {
                fault.hint(format!("did you mean --file {}?", join(name, &shown)))
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
