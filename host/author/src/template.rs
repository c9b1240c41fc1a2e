//! New projects.

use std::path::Path;

use wbuild_graph::{Failure, FailureKind};

use crate::build::package;
use crate::files::{SDK, TEMPLATES, VENDORED, below, failed, write, write_wit};
use crate::project::{Kind, Language, check_name};

/// The manual of the cases that are in every template.
const CASES: &[u8] = include_bytes!("../../../plugins/docs/cases.md");
/// Where a template has the name of the project.
const NAME: &str = "@NAME@";

/// Writes a new project into a folder, which must be empty or missing; answers the files, sorted.
pub fn write_project(
    folder: &Path,
    name: &str,
    kind: Kind,
    language: Language,
) -> Result<Vec<String>, Failure> {
    check_name(name)?;
    offered(kind, language)?;
    let occupied = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(failed("look into", folder, &error)),
    };
    if occupied {
        return Err(Failure::new(
            FailureKind::Invalid,
            format!("{} is not empty", folder.display()),
        )
        .hint("name a folder that is not there yet: wbuild plugin new NAME … DIR"));
    }
    let template = format!("{language}/{kind}");
    for (path, bytes) in below(TEMPLATES, &template) {
        // A file of this name would count for the template itself.
        let path = if path == "gitignore" { ".gitignore" } else { path };
        let content = match std::str::from_utf8(bytes) {
            Ok(text) => text.replace(NAME, name).into_bytes(),
            Err(_) => bytes.to_vec(),
        };
        write(&folder.join(path), &content)?;
    }
    write(&folder.join("tests/cases.md"), CASES)?;
    let layer = format!("{language}/wbuild");
    for (path, bytes) in below(SDK, &layer) {
        if wanted(path, kind, language) {
            write(&folder.join("wbuild").join(path), bytes)?;
        }
    }
    if language == Language::Rust {
        // Its interfaces are among the sources.
        for (path, bytes) in VENDORED {
            write(&folder.join("vendor/wbuild").join(path), bytes)?;
        }
    } else {
        write_wit(package(kind), &folder.join("wit"))?;
    }
    let mut files = Vec::new();
    list(folder, folder, &mut files)?;
    files.sort();
    Ok(files)
}

/// Refuses kinds that make no sense in a language, with the reason.
fn offered(kind: Kind, language: Language) -> Result<(), Failure> {
    let reason = match (language, kind) {
        (Language::Python, Kind::Runner | Kind::Cache) => {
            "a component that holds CPython has 18 MB, and one of this kind may have 8 MiB: it is started for every step, or asked for every key"
        }
        (Language::Js, Kind::Runner) => {
            "a plan is made of a process that is lent to the runner, and components of QuickJS do not give back what is lent to them"
        }
        (Language::C, Kind::Cache) => {
            "there is no layer for cache backends in C; begin with the generated bindings (wit-bindgen c), or with another language"
        }
        _ if below(TEMPLATES, &format!("{language}/{kind}")).next().is_none() => {
            "this wbuild has no template for it"
        }
        _ => return Ok(()),
    };
    let others: Vec<&str> = Language::ALL
        .into_iter()
        .filter(|other| *other != language && offered_at_all(kind, *other))
        .map(Language::as_str)
        .collect();
    Err(Failure::unsupported(format!("no {kind} is begun in {language}: {reason}"))
        .hint(format!("--lang {}", others.join(", --lang "))))
}

fn offered_at_all(kind: Kind, language: Language) -> bool {
    below(TEMPLATES, &format!("{language}/{kind}")).next().is_some()
}

/// Whether a file of a language's layer belongs into a project of this kind. The layers are for
/// frontends; others have the bindings alone, and JavaScript has those from its compiler.
fn wanted(path: &str, kind: Kind, language: Language) -> bool {
    if language == Language::C {
        let bindings = path.strip_prefix("gen/").and_then(|file| file.split('.').next());
        return match bindings {
            Some(world) => world == kind.world().replace('-', "_"),
            None => kind == Kind::Frontend || path == "memory.c" || path.starts_with("libc/"),
        };
    }
    kind == Kind::Frontend
}

fn list(top: &Path, folder: &Path, files: &mut Vec<String>) -> Result<(), Failure> {
    let entries = std::fs::read_dir(folder).map_err(|error| failed("list", folder, &error))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            list(top, &path, files)?;
        } else if let Ok(inside) = path.strip_prefix(top) {
            files.push(inside.display().to_string());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Project;

    const KINDS: [Kind; 3] = [Kind::Frontend, Kind::Runner, Kind::Cache];

    #[test]
    fn every_template_is_a_project() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut count = 0;
        for language in Language::ALL {
            for kind in KINDS.into_iter().filter(|kind| offered_at_all(*kind, language)) {
                let place = folder.path().join(format!("{language}-{kind}"));
                let files = write_project(&place, "my-plugin", kind, language).expect("written");
                count += 1;
                for needed in ["README.md", ".gitignore"] {
                    assert!(
                        files.iter().any(|file| file == needed),
                        "{language} {kind}: {files:?}"
                    );
                }
                let project = Project::read(&place).expect("a project");
                assert_eq!((project.kind, project.language), (kind, language));
                assert_eq!(project.name, "my-plugin");
                for file in files.iter().filter(|file| !file.starts_with("vendor/")) {
                    let text = std::fs::read_to_string(place.join(file)).expect("text");
                    assert!(!text.contains(NAME), "{language} {kind}: {file}");
                }
            }
        }
        assert!(count >= 3, "{count} templates");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        for (kind, language) in [
            (Kind::Runner, Language::Python),
            (Kind::Cache, Language::Python),
            (Kind::Cache, Language::C),
            (Kind::Runner, Language::Js),
        ] {
            let place = folder.path().join("new");
            let failure = write_project(&place, "x", kind, language).expect_err("refused");
            assert!(failure.hints.iter().any(|hint| hint.contains("--lang ")), "{failure:?}");
            assert!(!place.exists());
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("thesis.txt"), "years of work").expect("written");
        write_project(folder.path(), "x", Kind::Frontend, Language::Js).expect_err("not empty");
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 1);
    }
}
