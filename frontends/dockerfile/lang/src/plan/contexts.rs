//! Build contexts: the main one, and those that the caller supplied under names.
//!
//! A named context takes the place of a stage, an image or a `--from` of its name. Local contexts
//! have ignore files; the patterns keep their places, so that the host can say which line hid a
//! file that is missing.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use wbuild_git_url::{GitSource, git_source};
use wbuild_ignore::Matcher;

use super::Session;
use super::host::{
    Attrs, CopyAction, FileAction, FileOp, Host, ImageRequest, LocalSource, NamedContext, Output,
};
use super::remote;
use super::stages::Place;
use crate::platform::Platform;
use crate::text::shown;
use crate::{Code, Failure, IgnorePattern, Span, ignore, paths};

/// The name of the directory that `COPY` takes files from.
const MAIN: &str = "context";

pub(super) struct Contexts {
    /// Names as the caller gave them, by the form they are compared in.
    names: BTreeMap<String, String>,
    /// The local directory that holds the file to build, and the file's path in there.
    beside: Option<(String, String)>,
    main: Option<Output>,
    /// What the main context leaves out.
    ignored: Option<Ignored>,
    entries: Vec<Entry>,
}

struct Entry {
    name: String,
    platform: Platform,
    context: NamedContext,
    span: Span,
    root: Option<Output>,
}

/// An image's name in the shortest form, which is how contexts are named after images.
fn familiar(name: &str) -> String {
    let name = name.to_lowercase();
    let short = name.strip_prefix("index.").unwrap_or(&name);
    let short = short.strip_prefix("docker.io/").unwrap_or(short);
    let short = short.strip_prefix("library/").unwrap_or(short);
    short.strip_suffix(":latest").unwrap_or(short).to_owned()
}

impl Contexts {
    pub fn new(host: &mut dyn Host, beside: Option<(String, String)>) -> Self {
        let mut names = BTreeMap::new();
        for name in host.context_names() {
            // The host picks the one for a platform.
            let name = name.split("::").next().unwrap_or_default().to_owned();
            names.insert(familiar(&name), name);
        }
        Contexts { names, beside, main: None, ignored: None, entries: Vec::new() }
    }

    /// What leaves out a path of the main context, once that was opened.
    pub fn ignored(&self, path: &str) -> Option<(&str, &IgnorePattern)> {
        let ignored = self.ignored.as_ref()?;
        Some((&ignored.file, ignored.by(path)?))
    }

    /// The names that the caller gave.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.values().map(String::as_str)
    }

    /// The image config of a context, and the context's name.
    pub fn config(&self, context: usize) -> Option<(String, String)> {
        let entry = &self.entries[context];
        entry.context.config.clone().map(|config| (entry.name.clone(), config))
    }
}

impl Session<'_> {
    /// Attributes of an image besides `attrs`.
    pub(super) fn image_attrs(&self, attrs: &Attrs) -> Attrs {
        let mode = self.request.resolve.iter().map(|mode| ("resolve".to_owned(), mode.clone()));
        mode.chain(attrs.iter().cloned()).collect()
    }

    /// What the caller supplied under a name.
    pub(super) fn named_context(
        &mut self,
        name: &str,
        platform: &Platform,
        span: Span,
    ) -> Result<Option<Place>, Failure> {
        if matches!(name, "scratch" | MAIN) {
            return Ok(None);
        }
        let Some(name) = self.contexts.names.get(&familiar(name)).cloned() else { return Ok(None) };
        let known = self
            .contexts
            .entries
            .iter()
            .position(|entry| entry.name == name && entry.platform == *platform);
        if let Some(known) = known {
            return Ok(Some(Place::Context(known)));
        }
        let found =
            self.host.context(&name, Some(platform)).map_err(|f| f.at(Code::NamedContext, span))?;
        let Some(context) = found else { return Ok(None) };
        if !matches!(context.kind.as_str(), "image" | "oci-layout") {
            let platform = platform.clone();
            self.contexts.entries.push(Entry { name, platform, context, span, root: None });
            return Ok(Some(Place::Context(self.contexts.entries.len() - 1)));
        }
        let attrs = self.image_attrs(&context.attrs);
        let reference = context.identifier;
        let request = ImageRequest { reference, platform: platform.clone(), attrs };
        Ok(Some(Place::Image(self.images.add(request, span))))
    }

    /// The files of a named context.
    pub(super) fn context_root(&mut self, context: usize) -> Result<Output, Failure> {
        let Entry { name, context: found, span, root, .. } = &self.contexts.entries[context];
        if let Some(root) = root {
            return Ok(*root);
        }
        let (name, span, found) = (name.clone(), *span, found.clone());
        let title = format!("[context {name}] load");
        let opened = self.open(&name, &found, &title, None);
        let (root, _) = opened.map_err(|failure| failure.at(Code::NamedContext, span))?;
        self.contexts.entries[context].root = Some(root);
        Ok(root)
    }

    /// A copy of all files of a named context that is a directory, for a stage to stand on: layers lie
    /// on layers only. With the context's name. None for other contexts, whose files are layers.
    pub(super) fn context_copy(
        &mut self,
        context: usize,
        at: Span,
    ) -> Result<Option<(Output, String)>, Failure> {
        let entry = &self.contexts.entries[context];
        if entry.context.kind != "local" {
            return Ok(None);
        }
        let name = entry.name.clone();
        let option = |name: &str, value: String| (name.to_owned(), value);
        let times = match self.request.epoch {
            Some(epoch) => option("timestamp", epoch.to_string()),
            None => option("keep-times", "true".to_owned()),
        };
        let copy = CopyAction {
            source: self.context_root(context)?,
            path: "/".to_owned(),
            target: "/".to_owned(),
            opts: vec![option("contents-only", "true".to_owned()), times],
        };
        let actions = vec![(at, FileAction::Copy(copy))];
        let copied = self.host.file(&FileOp { base: None, names_from: None, actions })?;
        Ok(Some((copied, name)))
    }

    /// The files of the main context.
    pub(super) fn main_context(&mut self) -> Result<Output, Failure> {
        if let Some(root) = self.contexts.main {
            return Ok(root);
        }
        let beside = match self.contexts.beside.clone() {
            None => None,
            // An ignore file of its own takes the place of the one in the context.
            Some((directory, path)) => {
                let path = format!("{path}.dockerignore");
                self.ignore_file(&directory, &path)?.map(|bytes| (path, bytes))
            }
        };
        let title = "[internal] load build context";
        let (root, ignored) = match self.host.context(MAIN, None)? {
            Some(context) => self.open(MAIN, &context, title, beside)?,
            None => self.local(MAIN, title, beside)?,
        };
        self.contexts.main = Some(root);
        self.contexts.ignored = ignored;
        Ok(root)
    }

    fn open(
        &mut self,
        name: &str,
        context: &NamedContext,
        title: &str,
        ignored: Option<(String, Vec<u8>)>,
    ) -> Result<(Output, Option<Ignored>), Failure> {
        let id = &context.identifier;
        let root = match (context.kind.as_str(), context.root) {
            ("local", _) => return self.local(id, title, ignored),
            ("input", Some(root)) => return Ok((root, None)),
            ("git", _) => {
                let git = git_source(id)
                    .unwrap_or_else(|| GitSource { url: id.clone(), ..GitSource::default() });
                let mut attrs = git.attrs(self.request.keep_git_dir);
                attrs.extend(context.attrs.iter().cloned());
                self.host.git(&git.url, &git.reference, &attrs)?
            }
            // A file as it is, also if it is an archive.
            ("http", _) => {
                let mut attrs = vec![("filename".to_owned(), remote::file_name(id))];
                attrs.extend(context.attrs.iter().cloned());
                self.host.http(id, None, &attrs)?
            }
            (kind, _) => {
                let (name, kind) = (shown(name), shown(kind));
                let message = format!("the context {name} is of the unsupported kind {kind}");
                return Err(Failure::new("unsupported", message));
            }
        };
        self.host.annotate(root, title, &[], &Attrs::new());
        Ok((root, None))
    }

    /// A file at the top of a local directory.
    fn ignore_file(&mut self, directory: &str, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        let source = LocalSource {
            name: directory.to_owned(),
            include: vec![path.to_owned()],
            exclude: Vec::new(),
        };
        let absent = |failure: Failure| {
            if failure.kind == "not-found" { Ok(None) } else { Err(failure) }
        };
        let root = match self.host.local(&source) {
            Ok(root) => root,
            Err(failure) => return absent(failure),
        };
        let title = format!("[internal] load {path}");
        self.host.annotate(root, &title, &[], &hidden());
        self.host.read_file(root, path).or_else(absent)
    }

    /// A local directory without what its ignore file names.
    fn local(
        &mut self,
        directory: &str,
        title: &str,
        ignored: Option<(String, Vec<u8>)>,
    ) -> Result<(Output, Option<Ignored>), Failure> {
        let ignored = match ignored {
            Some(ignored) => Some(ignored),
            None => {
                let path = ".dockerignore";
                self.ignore_file(directory, path)?.map(|bytes| (path.to_owned(), bytes))
            }
        };
        let mut source = LocalSource { name: directory.to_owned(), ..LocalSource::default() };
        let mut kept = None;
        if let Some((file, bytes)) = ignored {
            let id = self.host.add_source(&file, "dockerignore", &bytes)?;
            let patterns = ignore::parse(id, &bytes).map_err(Failure::of)?;
            let pair = |pattern: &IgnorePattern| (pattern.text.clone(), Some(pattern.at));
            source.exclude = patterns.iter().map(pair).collect();
            kept = Some(Ignored { file, patterns, matcher: OnceCell::new() });
        }
        let root = self.host.local(&source)?;
        self.host.annotate(root, title, &[], &Attrs::new());
        Ok((root, kept))
    }
}

/// What an ignore file says.
struct Ignored {
    /// Its name.
    file: String,
    patterns: Vec<IgnorePattern>,
    /// Made when it is asked for; none if the file has exceptions, since what is below a directory
    /// cannot be told without the files.
    matcher: OnceCell<Option<Matcher>>,
}

impl Ignored {
    /// The pattern that leaves out a path and all below it.
    fn by(&self, path: &str) -> Option<&IgnorePattern> {
        let matcher = self.matcher.get_or_init(|| {
            let texts: Vec<&str> = self.patterns.iter().map(|pattern| &*pattern.text).collect();
            let exceptions = texts.iter().any(|text| text.starts_with('!'));
            if exceptions { None } else { Matcher::new(&texts).ok() }
        });
        let matcher = matcher.as_ref()?;
        let path = paths::rooted(path);
        if path == "/" {
            // The context itself is no entry of it, so nothing but a pattern for everything counts.
            return self.patterns.iter().find(|p| matches!(&*p.text, "*" | "**" | "**/*"));
        }
        let by = matcher.decide(path.trim_start_matches('/').as_bytes()).by?;
        Some(&self.patterns[by])
    }
}

/// Attributes of nodes that are no step of their own.
pub(super) fn hidden() -> Attrs {
    vec![("hidden".to_owned(), "true".to_owned())]
}

#[cfg(test)]
mod tests {
    use super::familiar;

    #[test]
    fn images_are_named_as_people_do() {
        for (name, expect) in [
            ("alpine", "alpine"),
            ("alpine:latest", "alpine"),
            ("alpine:3.19", "alpine:3.19"),
            ("docker.io/library/alpine:latest", "alpine"),
            ("index.docker.io/library/alpine", "alpine"),
            ("docker.io/me/app", "me/app"),
            ("example.org/library/x", "example.org/library/x"),
        ] {
            assert_eq!(familiar(name), expect, "{name}");
        }
    }
}
