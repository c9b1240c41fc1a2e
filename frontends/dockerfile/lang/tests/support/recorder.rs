//! A host in memory that writes down what it is asked for.
//!
//! A case's `request.txt` holds one fact a line: `opt name=value`, `platform linux/arm64`,
//! `build-platform linux/amd64`, `target NAME`, `epoch 1`, `image NAME CONFIG-JSON`, `file DIRECTORY PATH CONTENT`
//! (with `\n` for line ends; the directory of a repository is its URL), `context NAME KIND IDENTIFIER`,
//! `directory PATH` of the definition in the main context. `pad N` adds so many bytes of comments
//! to the Dockerfile; `fail CALL MESSAGE` makes all calls of `context`, `local`, `git`, `http` or
//! `image` fail. The image `*` stands for any other. `alike 3 4` says that two nodes are made alike.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use wbuild_dockerfile::{
    DefinitionFile, Diagnostic, Exec, ExecMount, Failure, FileAction, FileOp, Host, ImageInfo,
    ImageRequest, LocalSource, NamedContext, Output, Platform, Span,
};

use super::{Source, render};

/// Records above this size are not carried on, as a real host has its limits too.
const MOST_BYTES: usize = 64 << 20;

#[derive(Default)]
pub struct Recorder {
    pub out: String,
    pub sources: Vec<Source>,
    dockerfile: Vec<u8>,
    opts: Vec<(String, String)>,
    platforms: Vec<Platform>,
    /// What is asked for.
    pub targets: Vec<String>,
    build_platform: Option<Platform>,
    epoch: Option<u64>,
    images: BTreeMap<String, String>,
    files: BTreeMap<(String, String), Vec<u8>>,
    contexts: BTreeMap<String, NamedContext>,
    locals: BTreeMap<u32, String>,
    failing: BTreeMap<String, Failure>,
    /// All that was reported, what ended the build last.
    pub diagnostics: Vec<Diagnostic>,
    nodes: u32,
    /// Where in the main context the definition lies, if it does.
    directory: Option<String>,
    /// What the definition is called, if not Dockerfile.
    pub file_name: Option<&'static str>,
    /// Exit code and output of a command that somebody asks about, by its last word.
    pub outcomes: BTreeMap<String, (i32, String)>,
    /// The last word of each process, by its node.
    pub processes: BTreeMap<u32, String>,
    /// Nodes that are made like others.
    pub alike: BTreeMap<u32, u32>,
    /// Only what is reported is written down, not what is asked for.
    pub quiet: bool,
}

fn platform(text: &str) -> Option<Platform> {
    Platform::parse(text, &Platform::new("linux", "amd64", None))
}

impl Recorder {
    /// # Panics
    /// If a line of the request is no fact.
    pub fn new(dockerfile: Vec<u8>, request: &str) -> Self {
        let (recorder, odd) = Recorder::lenient(dockerfile, request);
        assert!(odd.is_empty(), "these are no facts: {odd:?}");
        recorder
    }

    /// Takes what it can of a request, and returns the lines that are no facts.
    pub fn lenient(dockerfile: Vec<u8>, request: &str) -> (Self, Vec<&str>) {
        let mut recorder = Recorder { dockerfile, ..Recorder::default() };
        let mut odd: Vec<&str> = request.lines().filter(|line| !line.is_empty()).collect();
        odd.retain(|line| recorder.fact(line).is_none());
        if recorder.platforms.is_empty() {
            recorder.platforms.extend(platform("linux/amd64"));
        }
        (recorder, odd)
    }

    fn fact(&mut self, line: &str) -> Option<()> {
        let (word, rest) = line.split_once(' ')?;
        match word {
            "opt" => {
                let (name, value) = rest.split_once('=')?;
                self.opts.push((name.to_owned(), value.to_owned()));
            }
            "platform" => self.platforms.push(platform(rest)?),
            "build-platform" => self.build_platform = Some(platform(rest)?),
            "target" => self.targets.push(rest.to_owned()),
            "directory" => self.directory = Some(rest.to_owned()),
            "epoch" => self.epoch = Some(rest.parse().ok()?),
            "image" => {
                let (name, config) = rest.split_once(' ')?;
                self.images.insert(name.to_owned(), config.to_owned());
            }
            "file" => {
                let (directory, rest) = rest.split_once(' ')?;
                let (path, content) = rest.split_once(' ')?;
                let content = content.replace("\\n", "\n").into_bytes();
                self.files.insert((directory.to_owned(), path.to_owned()), content);
            }
            "context" => {
                let (name, rest) = rest.split_once(' ')?;
                let (kind, identifier) = rest.split_once(' ')?;
                let attrs = match kind {
                    "oci-layout" => vec![("store".to_owned(), format!("oci-layout:{name}"))],
                    _ => Vec::new(),
                };
                // The files and the config of another build; its identifier means nothing here.
                let (root, config) = match kind {
                    "input" => (Some(self.add(format!("input {name}"))), identifier),
                    _ => (None, ""),
                };
                let context = NamedContext {
                    kind: kind.to_owned(),
                    identifier: identifier.to_owned(),
                    root,
                    config: (!config.is_empty()).then(|| config.to_owned()),
                    attrs,
                };
                self.contexts.insert(name.to_owned(), context);
            }
            // `outcome 0 uname -m => x86_64`
            "outcome" => {
                let (code, command) = rest.split_once(' ')?;
                let (command, printed) = command.split_once(" => ").unwrap_or((command, ""));
                let outcome = (code.parse().ok()?, printed.replace("\\n", "\n"));
                self.outcomes.insert(command.to_owned(), outcome);
            }
            "alike" => {
                let (one, other) = rest.split_once(' ')?;
                self.alike.insert(other.parse().ok()?, one.parse().ok()?);
            }
            "pad" => {
                let size: usize = rest.parse().ok()?;
                self.dockerfile.extend(std::iter::repeat_n(b'#', size));
            }
            "fail" => {
                let (call, message) = rest.split_once(' ')?;
                let (call, kind) = call.split_once(':').unwrap_or((call, "not-found"));
                let failure = Failure::new(kind, message.to_owned());
                self.failing.insert(call.to_owned(), failure);
            }
            _ => return None,
        }
        Some(())
    }

    /// Builds and returns what was asked for, or why it failed.
    pub fn run(mut self) -> String {
        self.build();
        self.out
    }

    /// Builds. False if the build failed.
    pub fn build(&mut self) -> bool {
        self.attempt(|recorder| wbuild_dockerfile::build(recorder))
    }

    /// Does something. False if it failed; why is written down.
    pub fn attempt(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Failure>) -> bool {
        let Err(failure) = work(self) else { return true };
        let quiet = std::mem::replace(&mut self.quiet, false);
        self.say(format!("failed ({}): {}", failure.kind, failure.message));
        self.quiet = quiet;
        let rendered = render(&failure.diagnostics, &self.sources);
        self.out.push_str(&rendered);
        self.diagnostics.extend(failure.diagnostics);
        false
    }

    /// Paths of the files that a tree holds.
    pub fn paths(&self, at: Output) -> impl Iterator<Item = &str> {
        let directory = self.locals.get(&at.node);
        let own = move |(place, _): &&(String, String)| Some(place) == directory;
        self.files.keys().filter(own).map(|(_, path)| path.as_str())
    }

    /// The failure that the case asks of a call.
    fn failing(&self, call: &str) -> Result<(), Failure> {
        match self.failing.get(call) {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// Writes something down.
    pub fn say(&mut self, text: impl AsRef<str>) {
        if self.quiet {
            return;
        }
        writeln!(self.out, "{}", text.as_ref()).expect("a String takes all");
    }

    fn add(&mut self, what: String) -> Output {
        self.nodes += 1;
        let node = self.nodes;
        self.say(format!("{node}: {what}"));
        Output { node, index: 0 }
    }
}

fn at(output: Option<Output>) -> String {
    output.map_or("empty".to_owned(), |output| format!("#{}", output.node))
}

fn attrs(attrs: &[(String, String)]) -> String {
    attrs.iter().fold(String::new(), |all, (key, value)| all + &format!(" {key}={value}"))
}

impl Host for Recorder {
    fn definition(&mut self) -> Result<DefinitionFile, Failure> {
        let name = self.file_name.unwrap_or("Dockerfile").to_owned();
        let (path, context) = match &self.directory {
            Some(directory) => (format!("{directory}/{name}"), "context"),
            None => (name.clone(), "dockerfile"),
        };
        let mut attrs = vec![("path".to_owned(), path), ("context".to_owned(), context.to_owned())];
        attrs.extend(self.directory.clone().map(|place| ("directory".to_owned(), place)));
        Ok(DefinitionFile { name, data: self.dockerfile.clone(), attrs })
    }
    fn opt(&mut self, name: &str) -> Option<String> {
        self.opts.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }
    fn opts(&mut self, prefix: &str) -> Vec<(String, String)> {
        let cut = |(key, value): &(String, String)| {
            key.strip_prefix(prefix).map(|key| (key.to_owned(), value.clone()))
        };
        self.opts.iter().filter_map(cut).collect()
    }
    fn targets(&mut self) -> Vec<String> {
        self.targets.clone()
    }
    fn build_platform(&mut self) -> Platform {
        self.build_platform.clone().unwrap_or_else(|| Platform::new("linux", "amd64", None))
    }
    fn target_platforms(&mut self) -> Vec<Platform> {
        self.platforms.clone()
    }
    fn context_names(&mut self) -> Vec<String> {
        self.contexts.keys().cloned().collect()
    }
    fn context(
        &mut self,
        name: &str,
        _: Option<&Platform>,
    ) -> Result<Option<NamedContext>, Failure> {
        self.failing("context")?;
        Ok(self.contexts.get(name).cloned())
    }
    fn epoch(&mut self) -> Option<u64> {
        self.epoch
    }
    fn add_source(&mut self, name: &str, _: &str, text: &[u8]) -> Result<u32, Failure> {
        self.sources.push(Source { name: name.to_owned(), text: text.to_vec() });
        Ok(u32::try_from(self.sources.len() - 1).expect("a few"))
    }
    fn map_source(&mut self, generated: Span, original: Span) -> Result<(), Failure> {
        self.say(format!("map {generated:?} -> {original:?}"));
        Ok(())
    }
    fn report(&mut self, diagnostic: Diagnostic) {
        let rendered = render(std::slice::from_ref(&diagnostic), &self.sources);
        self.out.push_str(&rendered);
        self.diagnostics.push(diagnostic);
    }
    fn resolve_images(&mut self, requests: &[ImageRequest]) -> Vec<Result<ImageInfo, Failure>> {
        self.say("resolve");
        let mut answers = Vec::new();
        for request in requests {
            let shown =
                format!("  {} {}{}", request.reference, request.platform, attrs(&request.attrs));
            self.say(shown);
            let known = self.images.get(&request.reference);
            let config = known.or_else(|| self.images.get("*")).cloned();
            answers.push(match config {
                Some(config) => Ok(ImageInfo {
                    reference: format!("{}@sha256:0", request.reference),
                    platform: request.platform.clone(),
                    config,
                }),
                None => Err(Failure::new("not-found", format!("no image {}", request.reference))),
            });
        }
        answers
    }
    fn read_file(&mut self, at: Output, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        // Of a tree that is no directory of the caller's by its number: `file #3 /PATH CONTENT`.
        let directory =
            self.locals.get(&at.node).cloned().unwrap_or_else(|| format!("#{}", at.node));
        Ok(self.files.get(&(directory, path.to_owned())).cloned())
    }
    fn image(&mut self, request: &ImageRequest) -> Result<Output, Failure> {
        self.failing("image")?;
        let attrs = attrs(&request.attrs);
        Ok(self.add(format!("image {} {}{attrs}", request.reference, request.platform)))
    }
    fn local(&mut self, source: &LocalSource) -> Result<Output, Failure> {
        // Ignore files are looked for before, and need not be there.
        self.failing(if source.include.is_empty() { "local" } else { "ignore-file" })?;
        let mut text = format!("local {}", source.name);
        for pattern in &source.include {
            text += &format!(" +{pattern}");
        }
        for (pattern, at) in &source.exclude {
            let at = at.expect("every pattern stands somewhere");
            text += &format!(" -{pattern}({}..{})", at.start, at.end);
        }
        let output = self.add(text);
        self.locals.insert(output.node, source.name.clone());
        Ok(output)
    }
    fn git(
        &mut self,
        url: &str,
        reference: &str,
        list: &Vec<(String, String)>,
    ) -> Result<Output, Failure> {
        self.failing("git")?;
        let output = self.add(format!("git {url} {reference:?}{}", attrs(list)));
        self.locals.insert(output.node, url.to_owned());
        Ok(output)
    }
    fn http(
        &mut self,
        url: &str,
        checksum: Option<&str>,
        list: &Vec<(String, String)>,
    ) -> Result<Output, Failure> {
        self.failing("http")?;
        Ok(self.add(format!("http {url} {checksum:?}{}", attrs(list))))
    }
    fn exec(&mut self, exec: &Exec) -> Result<Output, Failure> {
        if self.out.len() > MOST_BYTES {
            return Err(Failure::new("limit", "the record is too long"));
        }
        let output = self.add(format!("exec {:?} on {}", exec.args, at(exec.root)));
        self.processes.insert(output.node, exec.args.last().cloned().unwrap_or_default());
        let env: Vec<String> = exec.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        self.say(format!("     env {env:?}"));
        if !exec.volatile_env.is_empty() {
            self.say(format!("     volatile {}", attrs(&exec.volatile_env).trim()));
        }
        let user = if exec.user.is_empty() { "root" } else { &exec.user };
        self.say(format!(
            "     cwd {} user {user} host {} platform {} network {} security {}",
            exec.cwd, exec.hostname, exec.platform, exec.network, exec.security
        ));
        for (name, address) in &exec.add_hosts {
            self.say(format!("     add-host {name} {address}"));
        }
        for limit in &exec.ulimits {
            self.say(format!("     ulimit {limit:?}"));
        }
        if let Some(limit) = exec.capture {
            self.say(format!("     capture {limit}"));
        }
        for mount in &exec.mounts {
            let text = match mount {
                ExecMount::Bind { target, source, subpath, access } => {
                    format!("bind {target} {} {subpath:?} {}", at(*source), access.as_str())
                }
                ExecMount::Cache(cache) => format!(
                    "cache {} id {} {} seed {}{}",
                    cache.target,
                    cache.id,
                    cache.sharing,
                    at(cache.seed),
                    attrs(&cache.opts)
                ),
                ExecMount::Tmpfs { target, opts } => format!("tmpfs {target}{}", attrs(opts)),
                ExecMount::SecretFile { target, id, required, opts } => {
                    format!("secret {target} id {id} required {required}{}", attrs(opts))
                }
                ExecMount::SecretEnv { name, id, required } => {
                    format!("secret-env {name} id {id} required {required}")
                }
                ExecMount::Ssh { target, id, required, opts } => {
                    format!("ssh {target} id {id} required {required}{}", attrs(opts))
                }
            };
            self.say(format!("     {text}"));
        }
        Ok(output)
    }
    fn file(&mut self, op: &FileOp) -> Result<Output, Failure> {
        let names = op.names_from.map(|names| format!(" names from #{}", names.node));
        let output = self.add(format!("file on {}{}", at(op.base), names.unwrap_or_default()));
        for (_, action) in &op.actions {
            let text = match action {
                FileAction::Copy(copy) => format!(
                    "copy #{} {} -> {}{}",
                    copy.source.node,
                    copy.path,
                    copy.target,
                    attrs(&copy.opts)
                ),
                FileAction::Write { path, data, opts } => {
                    format!("write {path} {:?}{}", String::from_utf8_lossy(data), attrs(opts))
                }
                FileAction::Mkdir { path, opts } => format!("mkdir {path}{}", attrs(opts)),
            };
            self.say(format!("     {text}"));
        }
        Ok(output)
    }
    fn merge(&mut self, layers: &[Output]) -> Result<Output, Failure> {
        let layers: Vec<String> = layers.iter().map(|layer| at(Some(*layer))).collect();
        Ok(self.add(format!("merge {}", layers.join(" "))))
    }
    fn annotate(&mut self, at: Output, name: &str, spans: &[Span], list: &Vec<(String, String)>) {
        let spans: Vec<String> =
            spans.iter().map(|s| format!("{}:{}..{}", s.source, s.start, s.end)).collect();
        self.say(format!("     #{} {name:?} {}{}", at.node, spans.join(" "), attrs(list)));
    }
    fn ignore_cache(&mut self, at: Output) -> Result<(), Failure> {
        self.say(format!("     #{} ignores the cache", at.node));
        Ok(())
    }
    fn result(
        &mut self,
        platform: &Platform,
        root: Option<Output>,
        config: &str,
    ) -> Result<(), Failure> {
        let config: serde_json::Value = serde_json::from_str(config).expect("valid JSON");
        let config = serde_json::to_string_pretty(&config).expect("it can be written");
        self.say(format!("result {platform} {}\n{config}", at(root)));
        Ok(())
    }
}
