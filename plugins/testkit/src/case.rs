//! A build as values: what the caller of a frontend has, and what the machine would answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use wbuild_api::request::{DefaultNetwork, Entitlement};
use wbuild_graph::{Attrs, Failure, GraphLimits, Platform};

use crate::frontends::{FakeFrontend, FrontendFile};
use crate::tree::{Node, Tree};

/// One build. Made by a test, or read from a folder.
#[derive(Clone, Debug)]
pub struct Case {
    pub(crate) name: String,
    pub(crate) definition: Vec<u8>,
    pub(crate) options: Attrs,
    pub(crate) targets: Vec<String>,
    pub(crate) platforms: Vec<Platform>,
    pub(crate) build_platform: Platform,
    pub(crate) contexts: BTreeMap<String, Context>,
    pub(crate) images: BTreeMap<String, FakeImage>,
    pub(crate) sources: BTreeMap<String, FakeSource>,
    pub(crate) frontends: BTreeMap<String, FakeFrontend>,
    pub(crate) execs: Vec<FakeExec>,
    pub(crate) secrets: BTreeSet<String>,
    pub(crate) ssh: BTreeSet<String>,
    pub(crate) epoch: Option<u64>,
    pub(crate) allow: BTreeSet<Entitlement>,
    pub(crate) network: DefaultNetwork,
    pub(crate) limits: GraphLimits,
}

/// A named build context.
#[derive(Clone, Debug)]
pub(crate) enum Context {
    /// A directory of the caller's.
    Files(Tree),
    Image(String),
    Git(String),
    Http(String),
}

/// An image of a registry that is not there.
#[derive(Clone, Debug, Default)]
pub struct FakeImage {
    /// Its config, verbatim.
    pub config: String,
    /// Its files.
    pub files: Tree,
    /// What it is there for; empty = everything.
    pub platforms: Vec<Platform>,
}

/// A repository, or a file of a server, that is not there.
#[derive(Clone, Debug, Default)]
pub struct FakeSource {
    /// Commit or checksum.
    pub pin: String,
    /// `tag`, `last-modified` and others.
    pub attrs: Attrs,
    /// Its files.
    pub files: Tree,
}

/// What a process that matches does instead of running.
#[derive(Clone, Debug, Default)]
pub struct FakeExec {
    /// Matches a process with exactly these arguments.
    pub args: Option<Vec<String>>,
    /// Matches a process with this text in one of its arguments.
    pub contains: Option<String>,
    /// Matches a process of this name.
    pub node: Option<String>,
    /// How it ends.
    pub exit_code: i32,
    /// What it prints.
    pub stdout: Vec<u8>,
    /// What it prints.
    pub stderr: Vec<u8>,
    /// What it leaves in its root.
    pub files: Tree,
}

impl FakeExec {
    /// For processes with this text in one of their arguments; ends well, and does nothing.
    pub fn contains(text: &str) -> Self {
        FakeExec { contains: Some(text.to_owned()), ..FakeExec::default() }
    }

    /// Ends with this code.
    #[must_use]
    pub fn exits(self, exit_code: i32) -> Self {
        FakeExec { exit_code, ..self }
    }

    /// Prints this.
    #[must_use]
    pub fn prints(self, text: &str) -> Self {
        FakeExec { stdout: text.as_bytes().to_vec(), ..self }
    }

    /// Leaves this file in its root.
    #[must_use]
    pub fn writes(mut self, path: &str, text: &str) -> Self {
        self.files = self.files.file(path, text);
        self
    }

    /// Whether it is about a process; what is not said matches.
    pub(crate) fn matches(&self, args: &[String], name: &str) -> bool {
        self.args.as_ref().is_none_or(|wanted| wanted == args)
            && self.contains.as_ref().is_none_or(|text| args.iter().any(|arg| arg.contains(text)))
            && self.node.as_ref().is_none_or(|node| node == name)
    }
}

impl Case {
    /// A build of a definition, for linux/amd64 on linux/amd64, with an empty directory as context.
    pub fn new(definition: impl AsRef<[u8]>) -> Self {
        let platform = Platform::new("linux", "amd64", None);
        Case {
            name: "definition".to_owned(),
            definition: definition.as_ref().to_vec(),
            options: Attrs::default(),
            targets: Vec::new(),
            platforms: vec![platform.clone()],
            build_platform: platform,
            contexts: BTreeMap::from([("context".to_owned(), Context::Files(Tree::new()))]),
            images: BTreeMap::new(),
            sources: BTreeMap::new(),
            frontends: BTreeMap::new(),
            execs: Vec::new(),
            secrets: BTreeSet::new(),
            ssh: BTreeSet::new(),
            epoch: None,
            allow: BTreeSet::new(),
            network: DefaultNetwork::default(),
            limits: GraphLimits::default(),
        }
    }

    /// What the user calls the definition.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        Case { name: name.to_owned(), ..self }
    }

    /// An option, as `request.opt` names it.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.push(name, value);
        self
    }

    /// A build argument.
    #[must_use]
    pub fn arg(self, name: &str, value: &str) -> Self {
        self.option(&format!("build-arg:{name}"), value)
    }

    /// A target; may be called several times.
    #[must_use]
    pub fn target(mut self, name: &str) -> Self {
        self.targets.push(name.to_owned());
        self
    }

    /// What to build for, instead of linux/amd64.
    ///
    /// # Panics
    ///
    /// When one is no platform.
    #[must_use]
    pub fn platforms(mut self, platforms: &[&str]) -> Self {
        let parse = |text: &&str| text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        self.platforms = platforms.iter().map(parse).collect();
        self
    }

    /// A file of the main context.
    #[must_use]
    pub fn file(mut self, path: &str, text: impl AsRef<[u8]>) -> Self {
        let context = self.contexts.entry("context".to_owned());
        let context = context.or_insert_with(|| Context::Files(Tree::new()));
        if let Context::Files(tree) = context {
            tree.put(path, Node::File(text.as_ref().into(), 0o644));
        }
        self
    }

    /// A context that is a directory.
    #[must_use]
    pub fn context(mut self, name: &str, files: Tree) -> Self {
        self.contexts.insert(name.to_owned(), Context::Files(files));
        self
    }

    /// An image that can be resolved, by the name it is asked for, with this config.
    #[must_use]
    pub fn image(mut self, reference: &str, config: &str) -> Self {
        let image = FakeImage { config: config.to_owned(), ..FakeImage::default() };
        self.images.insert(reference.to_owned(), image);
        self
    }

    /// A repository or a file of a server.
    #[must_use]
    pub fn source(mut self, url: &str, source: FakeSource) -> Self {
        self.sources.insert(url.to_owned(), source);
        self
    }

    /// Another frontend, by the name that it is called by.
    #[must_use]
    pub fn frontend(mut self, name: &str, frontend: FakeFrontend) -> Self {
        self.frontends.insert(name.to_owned(), frontend);
        self
    }

    /// What a process does instead of running; the first that matches counts.
    #[must_use]
    pub fn exec(mut self, exec: FakeExec) -> Self {
        self.execs.push(exec);
        self
    }

    /// A secret that the caller offers.
    #[must_use]
    pub fn secret(mut self, id: &str) -> Self {
        self.secrets.insert(id.to_owned());
        self
    }

    /// Other bounds of the graph.
    #[must_use]
    pub fn limits(self, limits: GraphLimits) -> Self {
        Case { limits, ..self }
    }

    /// Reads a folder: `case.toml`, the definition, the main context in `context/` if there is one.
    ///
    /// # Errors
    ///
    /// When the folder does not say what it should; the message names the file.
    pub fn read(folder: &Path) -> Result<Case, Failure> {
        let shown = |name: &str| folder.join(name).display().to_string();
        let invalid = |name: &str, error: &dyn std::error::Error| {
            Failure::invalid(format!("cannot read {}", shown(name))).cause(error)
        };
        let toml = match std::fs::read_to_string(folder.join(CASE_FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(invalid(CASE_FILE, &error)),
        };
        let file: CaseFile = toml::from_str(&toml).map_err(|error| invalid(CASE_FILE, &error))?;
        let tree =
            |name: &str| Tree::read_from(&folder.join(name)).map_err(|error| invalid(name, &error));
        let definition = match file.definition {
            Some(name) => name,
            None => only_file(folder)?,
        };
        let data = std::fs::read(folder.join(&definition))
            .map_err(|error| invalid(&definition, &error))?;
        let name = file
            .name
            .unwrap_or_else(|| definition.rsplit('/').next().unwrap_or(&definition).to_owned());
        let mut case = Case { targets: file.targets, epoch: file.epoch, ..Case::new(data) };
        case = case.name(&name);
        case.options = Attrs(file.options.into_iter().collect());
        case.secrets = file.secrets;
        case.ssh = file.ssh;
        case.allow = file.allow;
        if !file.platforms.is_empty() {
            case.platforms = file.platforms;
        }
        if let Some(platform) = file.build_platform {
            case.build_platform = platform;
        }
        if folder.join("context").is_dir() {
            case = case.context("context", tree("context")?);
        }
        for (name, context) in file.contexts {
            let context = match context {
                ContextFile::Dir(directory) => Context::Files(tree(&directory)?),
                ContextFile::Image(reference) => Context::Image(reference),
                ContextFile::Git(url) => Context::Git(url),
                ContextFile::Http(url) => Context::Http(url),
            };
            case.contexts.insert(name, context);
        }
        for (name, image) in file.images {
            let config =
                serde_json::to_string(&image.config).map_err(|error| invalid(CASE_FILE, &error))?;
            let mut files = match &image.dir {
                Some(directory) => tree(directory)?,
                None => Tree::new(),
            };
            image.files.iter().for_each(|(path, text)| {
                files.put(path, Node::File(text.as_bytes().into(), 0o644));
            });
            case.images.insert(name, FakeImage { config, files, platforms: image.platforms });
        }
        for (url, source) in file.sources {
            let files = tree_of(&source.files);
            let attrs = Attrs(source.attrs.into_iter().collect());
            case.sources.insert(url, FakeSource { pin: source.pin, attrs, files });
        }
        let frontends = file.frontends.into_iter();
        case.frontends = frontends.map(|(name, file)| (name, file.frontend())).collect();
        case.execs = file
            .exec
            .into_iter()
            .map(|exec| FakeExec {
                args: exec.args,
                contains: exec.contains,
                node: exec.node,
                exit_code: exec.exit_code,
                stdout: exec.stdout.into_bytes(),
                stderr: exec.stderr.into_bytes(),
                files: tree_of(&exec.files),
            })
            .collect();
        let limits = &mut case.limits;
        limits.nodes = file.limits.nodes.unwrap_or(limits.nodes);
        limits.edges = file.limits.inputs.unwrap_or(limits.edges);
        limits.bytes = file.limits.bytes.unwrap_or(limits.bytes);
        Ok(case)
    }
}

/// What a case has beside its definition.
pub(crate) const CASE_FILE: &str = "case.toml";
/// What is expected of it.
pub(crate) const EXPECTED: &str = "expected";

fn tree_of(files: &BTreeMap<String, String>) -> Tree {
    files.iter().fold(Tree::new(), |tree, (path, text)| tree.file(path, text))
}

/// The definition, where the case does not name it.
fn only_file(folder: &Path) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::invalid(format!("cannot read {}", folder.display())).cause(&error)
    };
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path: PathBuf = entry.map_err(unreadable)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        names.extend(name.filter(|name| path.is_file() && name != CASE_FILE && name != EXPECTED));
    }
    match &names[..] {
        [name] => Ok(name.clone()),
        _ => Err(Failure::invalid(format!(
            "{} has {} files that may be the definition",
            folder.display(),
            names.len()
        ))
        .hint(format!("name it in {CASE_FILE}: definition = \"FILE\""))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[derive(Default)]
struct CaseFile {
    definition: Option<String>,
    name: Option<String>,
    targets: Vec<String>,
    #[serde(deserialize_with = "platforms")]
    platforms: Vec<Platform>,
    #[serde(deserialize_with = "platform")]
    build_platform: Option<Platform>,
    options: BTreeMap<String, String>,
    contexts: BTreeMap<String, ContextFile>,
    images: BTreeMap<String, ImageFile>,
    sources: BTreeMap<String, SourceFile>,
    frontends: BTreeMap<String, FrontendFile>,
    exec: Vec<ExecFile>,
    secrets: BTreeSet<String>,
    ssh: BTreeSet<String>,
    epoch: Option<u64>,
    allow: BTreeSet<Entitlement>,
    limits: LimitsFile,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ContextFile {
    Dir(String),
    Image(String),
    Git(String),
    Http(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(expecting = "a table with config, and if needed files, dir, platforms")]
struct ImageFile {
    config: serde_json::Value,
    #[serde(default)]
    dir: Option<String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "platforms")]
    platforms: Vec<Platform>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(expecting = "a table with pin, and if needed attrs, files")]
struct SourceFile {
    pin: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[serde(expecting = "a table of what a process does")]
struct ExecFile {
    args: Option<Vec<String>>,
    contains: Option<String>,
    node: Option<String>,
    exit_code: i32,
    stdout: String,
    stderr: String,
    files: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsFile {
    nodes: Option<usize>,
    inputs: Option<usize>,
    bytes: Option<usize>,
}

pub(crate) fn platforms<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Vec<Platform>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

fn platform<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Platform>, D::Error> {
    String::deserialize(from)?.parse().map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_all_keys() {
        let manual = crate::tests::manual("## A frontend\n");
        let file: CaseFile = toml::from_str(manual).expect("the keys are known");
        assert!(file.contexts.len() == 4 && file.exec.len() == 2 && file.frontends.len() == 2);
        // None is left out: serde names those that it knows.
        let told = toml::from_str::<CaseFile>("unheard-of = 1").err().expect("unknown").to_string();
        let (_, known) = told.split_once("expected one of ").expect("a list");
        let keys: Vec<&str> = known.lines().next().expect("a line").split(", ").collect();
        assert_eq!(keys.len(), 16, "{known}");
        for key in keys {
            let key = key.trim_matches('`');
            let is_key = |line: &str| {
                line.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '.']))
            };
            let there = manual.contains(&format!("[[{key}]]")) || manual.lines().any(is_key);
            assert!(there, "plugins/docs/cases.md lacks {key}");
        }
    }
}
