//! Build contexts: the main one, and those that the caller supplied under names.
//!
//! A named context takes the place of a stage, an image or a `--from` of its name. Local contexts
//! have ignore files; the patterns keep their places, so that the host can say which line hid a
//! file that is missing.

use std::collections::BTreeMap;

use super::Session;
use super::host::{Attrs, Host, ImageRequest, LocalSource, NamedContext, Output};
use super::remote;
use super::stages::Place;
use crate::platform::Platform;
use crate::text::shown;
use crate::{Diagnostic, Failure, Span, ignore};

/// The name of the directory that `COPY` takes files from.
const MAIN: &str = "context";
/// The name of the directory that the file to build is in.
const BESIDE_FILE: &str = "dockerfile";

pub(super) struct Contexts {
    /// Names as the caller gave them, by the form they are compared in.
    names: BTreeMap<String, String>,
    /// Where the file to build is, in the directory it is in.
    path: Option<String>,
    main: Option<Output>,
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
    pub fn new(host: &mut dyn Host, path: Option<String>) -> Self {
        let mut names = BTreeMap::new();
        for name in host.context_names() {
            // The host picks the one for a platform.
            let name = name.split("::").next().unwrap_or_default().to_owned();
            names.insert(familiar(&name), name);
        }
        Contexts { names, path, main: None, entries: Vec::new() }
    }

    /// The image config of a context, and the context's name.
    pub fn config(&self, context: usize) -> Option<(String, String)> {
        let entry = &self.entries[context];
        entry.context.config.clone().map(|config| (entry.name.clone(), config))
    }
}

impl Session<'_> {
    /// Attributes of an image, from the registry or from the layout that a context names.
    pub(super) fn image_attrs(&self, layout: Option<&str>) -> Attrs {
        let mut attrs = Attrs::new();
        if let Some(mode) = &self.request.resolve {
            attrs.push(("resolve".to_owned(), mode.clone()));
        }
        if let Some(name) = layout {
            attrs.push(("store".to_owned(), format!("oci-layout:{name}")));
        }
        attrs
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
        let found = self.host.context(&name, platform).map_err(|f| f.at("named-context", span))?;
        let Some(context) = found else { return Ok(None) };
        let layout = match context.kind.as_str() {
            "image" => None,
            "oci-layout" => Some(name.as_str()),
            _ => {
                let platform = platform.clone();
                self.contexts.entries.push(Entry { name, platform, context, span, root: None });
                return Ok(Some(Place::Context(self.contexts.entries.len() - 1)));
            }
        };
        let attrs = self.image_attrs(layout);
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
        let root = match (found.kind.as_str(), found.root) {
            ("input", Some(root)) => root,
            ("local", _) => {
                let title = format!("[context {name}] load from client");
                self.local(&found.identifier, &title, None)
                    .map_err(|failure| failure.at("named-context", span))?
            }
            ("git", _) => {
                let Some(git) = remote::git_source(&found.identifier) else {
                    let message =
                        format!("{} is not a git repository", shown(&found.identifier));
                    return Err(Diagnostic::error("named-context", span, message).into());
                };
                let attrs = git.attrs(self.request.keep_git_dir);
                let root = self
                    .host
                    .git(&git.url, &git.reference, &attrs)
                    .map_err(|failure| failure.at("named-context", span))?;
                let title = format!("[context {name}] {}", git.url);
                self.host.annotate(root, &title, &[span], &Attrs::new());
                root
            }
            (kind, _) => {
                let message = format!("the context {} is of kind {kind}", shown(&name));
                return Err(Diagnostic::error("unsupported", span, message)
                    .help("give it as a directory, an image, an OCI layout or a git repository")
                    .into());
            }
        };
        self.contexts.entries[context].root = Some(root);
        Ok(root)
    }

    /// The files of the main context.
    pub(super) fn main_context(&mut self) -> Result<Output, Failure> {
        if let Some(root) = self.contexts.main {
            return Ok(root);
        }
        let beside = match self.contexts.path.clone().filter(|path| !path.is_empty()) {
            None => None,
            // An ignore file of its own takes the place of the one in the context.
            Some(path) => {
                let path = format!("{path}.dockerignore");
                self.ignore_file(BESIDE_FILE, &path)?.map(|bytes| (path, bytes))
            }
        };
        let root = self.local(MAIN, "[internal] load build context", beside)?;
        self.contexts.main = Some(root);
        Ok(root)
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
    ) -> Result<Output, Failure> {
        let ignored = match ignored {
            Some(ignored) => Some(ignored),
            None => {
                let path = ".dockerignore";
                self.ignore_file(directory, path)?.map(|bytes| (path.to_owned(), bytes))
            }
        };
        let mut source = LocalSource { name: directory.to_owned(), ..LocalSource::default() };
        if let Some((path, bytes)) = ignored {
            let id = self.host.add_source(&path, "dockerignore", &bytes);
            let patterns = ignore::parse(id, &bytes).map_err(Failure::of)?;
            let patterns = patterns.into_iter().map(|pattern| (pattern.text, Some(pattern.at)));
            source.exclude = patterns.collect();
        }
        let root = self.host.local(&source)?;
        self.host.annotate(root, title, &[], &Attrs::new());
        Ok(root)
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
