//! What a project is: `wbuild-plugin.toml`, or what its files say where there is none.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wbuild_graph::Failure;

use crate::files::failed;

/// The file that makes a folder a project.
pub const PROJECT_FILE: &str = "wbuild-plugin.toml";

/// What a plugin is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Turns a user's file into a graph.
    Frontend,
    /// Decides how a process is launched.
    Runner,
    /// Remembers results by key.
    Cache,
}

impl Kind {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Frontend => "frontend",
            Kind::Runner => "runner",
            Kind::Cache => "cache",
        }
    }

    /// The world that is built for if a project names none.
    pub fn world(self) -> &'static str {
        match self {
            Kind::Frontend => "frontend",
            Kind::Runner => "runner",
            Kind::Cache => "local-cache",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a project is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Rust, compiled by cargo.
    Rust,
    /// JavaScript, run by QuickJS inside of the component.
    Js,
    /// Python, run by CPython inside of the component.
    Python,
    /// C, compiled by clang.
    C,
}

impl Language {
    /// All of them.
    pub const ALL: [Language; 4] = [Language::Rust, Language::Js, Language::Python, Language::C];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::Js => "js",
            Language::Python => "python",
            Language::C => "c",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The keys of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    version: Option<String>,
    license: Option<String>,
    description: Option<String>,
    homepage: Option<String>,
    kind: Kind,
    language: Option<Language>,
    world: Option<String>,
    main: Option<String>,
}

/// A project of a plugin.
#[derive(Clone, Debug)]
pub struct Project {
    /// Where it lies.
    pub folder: PathBuf,
    /// Its name, also of the component: `build/NAME.wasm`.
    pub name: String,
    /// What it is used as.
    pub kind: Kind,
    /// What it is written in.
    pub language: Language,
    /// The WIT world that it is built for.
    pub world: String,
    /// The file that is built, where the language has one (JavaScript, Python).
    pub main: String,
    /// What the component says of itself: a JSON object.
    pub manifest: Value,
}

impl Project {
    /// Reads a project. Without a `wbuild-plugin.toml` it is a frontend with the folder's name, in the
    /// language of its files.
    pub fn read(folder: &Path) -> Result<Project, Failure> {
        let folder =
            folder.canonicalize().map_err(|error| failed("find the project", folder, &error))?;
        let path = folder.join(PROJECT_FILE);
        let file = match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str::<File>(&text).map_err(|error| {
                Failure::invalid(format!("{} cannot be read", path.display()))
                    .cause(&error)
                    .hint(format!("keys are name, version, license, description, homepage, kind (frontend, runner or cache), language ({}), world and main", languages()))
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => File {
                name: folder.file_name().map_or("plugin".into(), |name| name.to_string_lossy().into()),
                version: None,
                license: None,
                description: None,
                homepage: None,
                kind: Kind::Frontend,
                language: None,
                world: None,
                main: None,
            },
            Err(error) => return Err(failed("read", &path, &error)),
        };
        check_name(&file.name)?;
        let language = match file.language {
            Some(language) => language,
            None => language_of(&folder)?,
        };
        let main = file.main.unwrap_or_else(|| match language {
            Language::Js => "main.js".to_owned(),
            _ => "app".to_owned(),
        });
        let facts = [
            ("version", file.version),
            ("license", file.license),
            ("description", file.description),
            ("homepage", file.homepage),
        ];
        let mut manifest = json!({ "name": file.name, "kind": file.kind, "language": language });
        for (key, value) in facts {
            if let Some(value) = value {
                manifest[key] = json!(value);
            }
        }
        Ok(Project {
            folder,
            name: file.name,
            kind: file.kind,
            language,
            world: file.world.unwrap_or_else(|| file.kind.world().to_owned()),
            main,
            manifest,
        })
    }

    /// Where the component is put.
    pub fn component(&self) -> PathBuf {
        self.folder.join("build").join(format!("{}.wasm", self.name))
    }
}

/// Refuses what cannot be a file name, a crate and a module alike.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(plain);
    if good {
        return Ok(());
    }
    Err(Failure::invalid(format!("a plugin cannot be called {name:?}")).hint(
        "a name has small letters, digits and -, begins with a letter, and has at most 64 of them",
    ))
}

fn languages() -> String {
    Language::ALL.map(Language::as_str).join(", ")
}

/// By the files at the top of a project.
fn language_of(folder: &Path) -> Result<Language, Failure> {
    let has = |name: &str| folder.join(name).is_file();
    let ends = |end: &str| {
        let entries = std::fs::read_dir(folder).ok().into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.path().extension().is_some_and(|found| found == end))
    };
    if has("Cargo.toml") {
        Ok(Language::Rust)
    } else if has("package.json") || has("main.js") {
        Ok(Language::Js)
    } else if has("pyproject.toml") || has("app.py") {
        Ok(Language::Python)
    } else if ends("c") {
        Ok(Language::C)
    } else {
        Err(Failure::not_found(format!("{} is no project of a plugin", folder.display()))
            .hint(format!(
                "it has no {PROJECT_FILE}, and no Cargo.toml, package.json, pyproject.toml or *.c"
            ))
            .hint("wbuild plugin new NAME makes one"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Project, Failure>) {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = folder.path().join("some-plugin");
        std::fs::create_dir(&inside).expect("made");
        for (name, text) in files {
            std::fs::write(inside.join(name), text).expect("written");
        }
        let project = Project::read(&inside);
        (folder, project)
    }

    #[test]
    fn the_file_says_what_a_project_is() {
        let (_folder, read) = project(&[(
            PROJECT_FILE,
            "name = 'mine'\nversion = '1.2.3'\nlicense = 'MIT'\nkind = 'cache'\nlanguage = 'c'\n",
        )]);
        let project = read.expect("read");
        assert_eq!((project.kind, project.language), (Kind::Cache, Language::C));
        assert_eq!(project.world, "local-cache");
        assert!(project.component().ends_with("some-plugin/build/mine.wasm"));
        assert_eq!(
            project.manifest,
            json!({ "name": "mine", "kind": "cache", "language": "c", "version": "1.2.3", "license": "MIT" })
        );
    }

    #[test]
    fn without_it_the_files_say_the_language() {
        for (file, language) in [
            ("Cargo.toml", Language::Rust),
            ("package.json", Language::Js),
            ("main.js", Language::Js),
            ("pyproject.toml", Language::Python),
            ("app.py", Language::Python),
            ("hello.c", Language::C),
        ] {
            let (_folder, read) = project(&[(file, "")]);
            let project = read.expect(file);
            assert_eq!(project.language, language, "{file}");
            assert_eq!((project.name.as_str(), project.kind), ("some-plugin", Kind::Frontend));
        }
        let (_folder, read) = project(&[("notes.txt", "")]);
        let failure = read.expect_err("nothing to build");
        assert!(failure.hints.iter().any(|hint| hint.contains("plugin new")), "{failure:?}");
    }

    #[test]
    fn mistakes_are_errors() {
        for text in [
            "name = 'x'\nkind = 'frontend'\ncolour = 'red'\n",
            "name = 'x'\nkind = 'backend'\n",
            "name = 'x'\nkind = 'frontend'\nlanguage = 'cobol'\n",
            "kind = 'frontend'\n",
            "name = '../x'\nkind = 'frontend'\nlanguage = 'c'\n",
            "name = [",
        ] {
            let (_folder, read) = project(&[(PROJECT_FILE, text)]);
            read.expect_err(text);
        }
    }

    #[test]
    fn names() {
        for good in ["a", "my-plugin", "x2"] {
            check_name(good).expect(good);
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "a.b", "2a", &"a".repeat(65)] {
            check_name(bad).expect_err(bad);
        }
    }
}
