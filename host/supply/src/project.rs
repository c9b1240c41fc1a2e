//! `wbuild.toml`: what a project calls its plugins, which files they read, how they are configured.
//!
//! ```toml
//! [frontend.app]
//! source = "oci://registry.example/team/app-frontend:1"
//! files = ["app.yaml", "*.app.yaml"]     # definitions that it reads if nothing else names a frontend
//!
//! [runner.traced]
//! source = "tools/traced.wasm"           # beside this file or below
//!
//! [cache.team]
//! source = "builtin:registry"
//! config = { ref = "registry.example/cache/app" }
//! limits = { memory = "32MiB" }          # may only lower
//! ```
//!
//! A name is for the command line, for definitions, and for frontends that call others; a reference that
//! stands here may be called by itself, too (see [`crate::Supplier::callee`]).
//!
//! It comes with the sources of whoever wrote them, so it is not trusted: it names things, and what a
//! plugin would get by it is asked of the user.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use wbuild_api::names::MAX_PATTERNS;
use wbuild_graph::{Attrs, Failure};
use wbuild_ignore::Matcher;
use wbuild_plugin::PluginKind;

use crate::catalog;
use crate::document::{ConfigFile, Problem};
use crate::limits::{LimitChanges, LimitsTable};
use crate::reference::{PluginRef, is_name};

/// The name of the file.
pub const FILE: &str = "wbuild.toml";
/// What it is in messages.
const WHAT: &str = "project file";
/// Keys of caches that are directories; here they begin at the project's.
const DIRECTORIES: [&str; 2] = ["src", "dest"];
/// The key of caches that does without knowing who a registry is.
const INSECURE: &str = "registry.insecure";
/// Where a directory ends that belongs together.
const TOP: &str = ".git";

/// A project: a directory, with what its file says if it has one.
#[derive(Debug)]
pub struct Project {
    root: PathBuf,
    aliases: BTreeMap<(PluginKind, String), Alias>,
    file: Option<ConfigFile>,
}

/// A name that a project has given to a plugin.
#[derive(Debug)]
pub struct Alias {
    /// The name.
    pub name: String,
    /// What it is used as.
    pub kind: PluginKind,
    /// The plugin itself; never an alias.
    pub source: PluginRef,
    /// What a cache backend is told, unless the user says otherwise.
    pub config: Attrs,
    /// Lower limits.
    pub limits: LimitChanges,
    files: Matcher,
    at: Range<usize>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    frontend: BTreeMap<Spanned<String>, Table>,
    #[serde(default)]
    runner: BTreeMap<Spanned<String>, Table>,
    #[serde(default)]
    cache: BTreeMap<Spanned<String>, Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    source: Spanned<String>,
    files: Option<Spanned<Vec<String>>>,
    config: Option<Spanned<BTreeMap<String, String>>>,
    #[serde(default)]
    limits: LimitsTable,
}

impl Project {
    /// The project that a directory belongs to: of the directory itself and those above it, up to the
    /// top of the repository, the first with a `wbuild.toml`; else the directory.
    ///
    /// # Errors
    ///
    /// There is one that cannot be read or says what is not understood.
    pub fn around(directory: &Path) -> Result<Project, Problem> {
        let above: Vec<&Path> = directory.ancestors().collect();
        let top = above.iter().position(|dir| dir.join(TOP).exists());
        // Without a repository nobody has said that what lies above belongs to it.
        for root in &above[..=top.unwrap_or(0)] {
            if let Some(file) = ConfigFile::first([root.join(FILE)], WHAT)? {
                return Project::read((*root).to_owned(), file);
            }
        }
        Ok(Project { root: directory.to_owned(), aliases: BTreeMap::new(), file: None })
    }

    /// Reads a project's file.
    ///
    /// # Errors
    ///
    /// It says what is not understood; shows where.
    pub fn read(root: PathBuf, file: ConfigFile) -> Result<Project, Problem> {
        let document: Document = file.parse()?;
        let mut aliases = BTreeMap::new();
        for (kind, tables) in [
            (PluginKind::Frontend, document.frontend),
            (PluginKind::Runner, document.runner),
            (PluginKind::Cache, document.cache),
        ] {
            for (name, table) in tables {
                let at = name.span();
                let name = name.into_inner();
                if !is_name(&name) {
                    let hint = "use letters, digits, -, _ and . (and no .wasm at the end)";
                    return Err(file.wrong(at, "this is no name for a plugin", Some(hint)));
                }
                // Whoever writes type=registry means that one, and gives it credentials.
                if kind != PluginKind::Frontend && catalog::names(kind).contains(&&*name) {
                    let message = format!("there is a bundled {kind} of this name");
                    return Err(file.wrong(at, &message, Some("choose another name")));
                }
                let alias = alias(&file, &root, kind, name.clone(), at, table)?;
                aliases.insert((kind, name), alias);
            }
        }
        Ok(Project { root, aliases, file: Some(file) })
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether there is a file that says something.
    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// What it calls so.
    pub fn alias(&self, kind: PluginKind, name: &str) -> Option<&Alias> {
        self.aliases.get(&(kind, name.to_owned()))
    }

    /// All names, sorted by kind and name.
    pub fn aliases(&self) -> impl Iterator<Item = &Alias> {
        self.aliases.values()
    }

    /// The names of its frontends.
    pub fn frontends(&self) -> impl Iterator<Item = &str> {
        self.aliases().filter(|alias| alias.kind == PluginKind::Frontend).map(|alias| &*alias.name)
    }

    /// The frontend that it wants for a definition of this path, if it lies in the project.
    ///
    /// # Errors
    ///
    /// Several frontends want it.
    pub fn frontend_for(&self, definition: &Path) -> Result<Option<PluginRef>, Problem> {
        let Some(file) = &self.file else { return Ok(None) };
        let Ok(below) = definition.strip_prefix(&self.root) else { return Ok(None) };
        let path = below.as_os_str().as_encoded_bytes();
        let mut wanting = self
            .aliases()
            .filter(|alias| alias.kind == PluginKind::Frontend && alias.files.decide(path).matched);
        match (wanting.next(), wanting.next()) {
            (None, _) => Ok(None),
            (Some(one), None) => Ok(Some(PluginRef::Named(one.name.clone()))),
            (Some(one), Some(other)) => {
                let message = format!(
                    "{} is to be read by {} and by {}",
                    below.display(),
                    one.name,
                    other.name
                );
                Err(file.wrong(other.at.clone(), &message, Some("make their files differ")))
            }
        }
    }
}

fn alias(
    file: &ConfigFile,
    root: &Path,
    kind: PluginKind,
    name: String,
    at: Range<usize>,
    table: Table,
) -> Result<Alias, Problem> {
    let Table { source, files, config, limits } = table;
    let wrong = |at: Range<usize>, failure: Failure| {
        let causes = failure.causes.iter().map(|cause| format!(": {cause}")).collect::<String>();
        let hint = failure.hints.first().map(String::as_str);
        file.wrong(at, &format!("{}{causes}", failure.message), hint)
    };
    let parsed = PluginRef::parse(source.get_ref().as_ref(), root)
        .map_err(|failure| wrong(source.span(), failure))?;
    let parsed = match parsed {
        // What it is called by itself; else two projects could name each other's in a circle.
        PluginRef::Named(name) => PluginRef::Bundled(name),
        PluginRef::File { shown, .. } if !is_inside(Path::new(&shown)) => {
            let hint = "name it by its path from this file's directory, without ..";
            return Err(file.wrong(
                source.span(),
                "a component outside of the project",
                Some(hint),
            ));
        }
        other => other,
    };
    let mut patterns = Vec::new();
    if let Some(files) = files {
        if kind != PluginKind::Frontend {
            let message = format!("files are read by frontends, and this is a {kind}");
            return Err(file.wrong(files.span(), &message, None));
        }
        if files.get_ref().len() > MAX_PATTERNS || files.get_ref().iter().any(String::is_empty) {
            return Err(file.wrong(files.span(), "too many patterns, or an empty one", None));
        }
        let anywhere = |text: &String| match text.contains('/') {
            true => text.clone(),
            false => match text.strip_prefix('!') {
                Some(not) => format!("!**/{not}"),
                None => format!("**/{text}"),
            },
        };
        patterns = files.get_ref().iter().map(anywhere).collect();
        if let Err(error) = Matcher::new(&patterns) {
            return Err(file.wrong(files.span(), &error.to_string(), None));
        }
    }
    let files = Matcher::new(&patterns).unwrap_or_default();
    let mut attrs = Attrs::default();
    if let Some(config) = config {
        if kind != PluginKind::Cache {
            let message = format!("only caches are configured here, and this is a {kind}");
            return Err(file.wrong(config.span(), &message, None));
        }
        let at = config.span();
        for (key, value) in config.into_inner() {
            if key == INSECURE {
                let message = "whether a registry may be anybody is for the user to say";
                return Err(file.wrong(at, message, None));
            }
            let path = match DIRECTORIES.contains(&&*key) {
                true => root.join(&value).to_str().map(str::to_owned),
                false => Some(value),
            };
            let wrong = || file.wrong(at.clone(), "a path that is not valid UTF-8", None);
            attrs.push(&key, path.ok_or_else(wrong)?);
        }
    }
    let limits = limits.read(file)?;
    Ok(Alias { name, kind, source: parsed, config: attrs, limits, files, at })
}

/// Whether a path as written stays below where it begins.
fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Project, Problem> {
        Project::read("/p".into(), ConfigFile::new("/p/wbuild.toml".into(), WHAT, text.into()))
    }

    const GOOD: &str = "[frontend.app]\nsource = \"oci://r.example/app:1\"\n\
        files = [\"app.yaml\", \"*.app.yaml\", \"!no.app.yaml\", \"conf/*.x\"]\n\
        [frontend.own]\nsource = \"tools/own.wasm\"\n[runner.mine]\nsource = \"qemu\"\n\
        [cache.team]\nsource = \"builtin:registry\"\nconfig = { ref = \"r.example/c\" }\n\
        limits = { memory = \"1MiB\" }\n";

    #[test]
    fn names_of_a_project() {
        let project = read(GOOD).expect("read");
        let source = |kind, name| project.alias(kind, name).expect(name).source.to_string();
        assert_eq!(source(PluginKind::Frontend, "app"), "oci://r.example/app:1");
        assert_eq!(source(PluginKind::Frontend, "own"), "tools/own.wasm");
        assert_eq!(source(PluginKind::Runner, "mine"), "builtin:qemu");
        assert!(
            project.alias(PluginKind::Cache, "app").is_none(),
            "each kind has names of its own"
        );
        let cache = project.alias(PluginKind::Cache, "team").expect("there");
        assert_eq!(cache.config.get("ref"), Some("r.example/c"));
        assert_eq!(cache.limits.memory, Some(1 << 20));
        assert_eq!(project.frontends().collect::<Vec<_>>(), ["app", "own"]);
    }

    #[test]
    fn files_choose_frontends() {
        let project = read(GOOD).expect("read");
        for (path, want) in [
            ("/p/app.yaml", Some("app")),
            ("/p/deep/in/x.app.yaml", Some("app")),
            ("/p/no.app.yaml", None),
            ("/p/conf/a.x", Some("app")),
            ("/p/deep/conf/a.x", None),
            ("/p/Dockerfile", None),
            ("/elsewhere/app.yaml", None),
        ] {
            let found = project.frontend_for(Path::new(path)).expect(path);
            assert_eq!(found, want.map(|name| PluginRef::Named(name.into())), "{path}");
        }
        let twice = GOOD.replace("own.wasm\"\n", "own.wasm\"\nfiles = [\"app.*\"]\n");
        let problem = read(&twice).expect("read").frontend_for(Path::new("/p/app.yaml"));
        let problem = problem.expect_err("two want it");
        assert!(problem.failure.diagnostics[0].message.contains("by app and by own"), "{problem}");
    }

    #[test]
    fn mistakes_are_shown_where_they_are() {
        for (text, at, says) in [
            ("[frontend.x]\n", "[frontend.x]", "source"),
            ("[frontend.x]\nsource = \"oci://r.example/UP\"\n", "UP", "lower case"),
            ("[frontend.x]\nsource = \"https://e/x\"\n", "\"https://e/x\"", "which file"),
            ("[frontend.x]\nsource = \"../x.wasm\"\n", "\"../x.wasm\"", "outside"),
            ("[frontend.x]\nsource = \"/x.wasm\"\n", "\"/x.wasm\"", "outside"),
            ("[frontend.\"a/b\"]\nsource = \"s\"\n", "\"a/b\"", "no name"),
            ("[runner.x]\nsource = \"s\"\nfiles = [\"f\"]\n", "[\"f\"]", "frontends"),
            ("[runner.x]\nsource = \"s\"\nconfig = {}\n", "{}", "caches"),
            ("[frontend.x]\nsource = \"s\"\nfiles = [\"[\"]\n", "[\"[\"]", ""),
            ("[frontend.x]\nsource = \"s\"\nnested = true\n", "nested", "nested"),
            ("[cache.registry]\nsource = \"s\"\n", "registry", "bundled"),
            ("[runner.qemu]\nsource = \"s\"\n", "qemu", "bundled"),
            (
                "[cache.x]\nsource = \"s\"\nconfig = { \"registry.insecure\" = \"1\" }\n",
                "{",
                "user",
            ),
            ("[plugin.x]\nsource = \"s\"\n", "plugin", "plugin"),
            ("[cache.x]\nsource = \"s\"\nlimits = { cpu = \"x\" }\n", "\"x\"", "duration"),
        ] {
            let problem = read(text).expect_err(text);
            let diagnostic = &problem.failure.diagnostics[0];
            assert!(diagnostic.message.contains(says), "{text}: {diagnostic:?}");
            let span = diagnostic.labels[0].at;
            let found = &text[span.start as usize..span.end as usize];
            assert!(found.contains(at) || at.contains(found), "{text}: {found}");
        }
    }

    #[test]
    fn whose_directory_it_is() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let deep = dir.path().join("a/b");
        std::fs::create_dir_all(&deep).expect("directory");
        std::fs::write(dir.path().join(FILE), "").expect("file");
        let project = Project::around(&deep).expect("no file counts");
        assert_eq!((project.root(), project.has_file()), (&*deep, false));
        std::fs::create_dir(dir.path().join(TOP)).expect("directory");
        let project = Project::around(&deep).expect("that of the repository");
        assert_eq!((project.root(), project.has_file()), (dir.path(), true));
        std::fs::write(dir.path().join("a/wbuild.toml"), "[frontend]\n").expect("file");
        assert_eq!(Project::around(&deep).expect("the nearest").root(), dir.path().join("a"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\[(frontend|cache)\\.[a-z\"]{1,3}\\]\n|source = \"[a-z:/#@]{0,9}\"\n|files = \\[\"[*!a-z\\[]{0,4}\"\\]\n|[a-z=\"{}]{0,5}\n){0,6}") {
            if let Ok(project) = read(&text) {
                for alias in project.aliases() {
                    prop_assert!(!matches!(alias.source, PluginRef::Named(_)));
                }
                let _ = project.frontend_for(Path::new("/p/a"));
            }
        }
    }
}
