//! From a parsed file to a build graph.
//!
//! 1. read the file and the caller's wishes, parse;
//! 2. for each target platform fill in the `FROM` lines (`globals`), find the stages that the target
//!    needs, and what they start from (`stages`); unneeded stages are not looked at;
//! 3. resolve the images of all platforms in one batch; stored ONBUILD triggers may ask for more;
//! 4. lower the stages in the order of the file (`lower`, `run`, `transfer`, `metadata`).
//!
//! The same walk answers questions about a file (`describe`): on its way it notes what is doubtful
//! (`lint`) and what stages take from outside (`outline`).
//!
//! Everything is deterministic: the same answers of the host give the same calls in the same order.

mod contexts;
mod globals;
pub mod host;
mod lower;
mod metadata;
pub(crate) mod outline;
mod remote;
mod request;
mod run;
mod stages;
mod transfer;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use crate::ast::{Dockerfile, Kind};
use crate::expand::{self, Expansion, Lookup, Options};
use crate::lint::{self, Linter};
use crate::parse::Parsed;
use crate::suggest::did_you_mean;
use crate::text::shown;
use crate::{Code, Diagnostic, Failure, Span, Text};

pub use metadata::expand_ports;

use contexts::Contexts;
use host::{DefinitionFile, Host, ImageInfo, ImageRequest};
use outline::Parameter;
use request::{PROXY_VARIABLES, Request};
use stages::Graph;

/// Builds what the host asks for.
pub fn build(host: &mut dyn Host) -> Result<(), Failure> {
    linted(host, Scope { target: None, all: false }).map(drop)
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    /// Takes the place of the target that the host names.
    pub target: Option<&'a str>,
    /// If no target is named, all stages are looked at, and not those alone that the last one needs.
    pub all: bool,
}

/// Goes through a file and reports what the build checks find.
pub(crate) fn linted(host: &mut dyn Host, scope: Scope<'_>) -> Result<Vec<Parameter>, Failure> {
    let (source, definition, parsed) = read(host)?;
    let mut lint = Linter::new(host, &parsed.file.directives)?;
    lint::text::check(&parsed, &mut lint);
    finish(host, (source, &definition), parsed, lint, scope)
}

/// A file of another language that has become a Dockerfile. How it is written is not looked at.
pub struct Foreign<'a> {
    /// Number of its text.
    pub source: u32,
    /// The file.
    pub definition: &'a DefinitionFile,
    /// What it has become.
    pub file: Dockerfile,
    /// What is built if the host names nothing; none = the last stage.
    pub default: Option<String>,
}

impl Foreign<'_> {
    /// Builds what the host asks for.
    pub fn build(self, host: &mut dyn Host) -> Result<(), Failure> {
        self.linted(host, None, false).map(drop)
    }

    /// Reports what is doubtful: in all stages, or in those that the target needs if one is named.
    pub fn check(self, host: &mut dyn Host, target: Option<&str>) -> Result<(), Failure> {
        self.linted(host, target, true).map(drop)
    }

    /// What a target takes from outside.
    pub fn parameters(
        self,
        host: &mut dyn Host,
        target: Option<&str>,
    ) -> Result<Vec<Parameter>, Failure> {
        let mut lint = Linter::new(host, &self.file.directives)?;
        let target = target.map(str::to_owned).or(self.default);
        let scope = Scope { target: target.as_deref(), all: false };
        walk(host, self.source, self.definition, Parsed::of(self.file), &mut lint, scope)
    }

    fn linted(
        self,
        host: &mut dyn Host,
        target: Option<&str>,
        all: bool,
    ) -> Result<Vec<Parameter>, Failure> {
        let lint = Linter::new(host, &self.file.directives)?;
        let named = !host.targets().is_empty() || host.opt("target").is_some();
        let default = self.default.filter(|_| !named && !all);
        let target = target.or(default.as_deref());
        let parsed = Parsed::of(self.file);
        finish(host, (self.source, self.definition), parsed, lint, Scope { target, all })
    }
}

fn finish(
    host: &mut dyn Host,
    (source, definition): (u32, &DefinitionFile),
    parsed: Parsed,
    mut lint: Linter,
    scope: Scope<'_>,
) -> Result<Vec<Parameter>, Failure> {
    let lowered = walk(host, source, definition, parsed, &mut lint, scope);
    let checked = lint.finish(host);
    let parameters = lowered?;
    checked.map(|()| parameters)
}

/// Goes through a file and finds out what the target takes from outside.
pub(crate) fn parameters(
    host: &mut dyn Host,
    target: Option<&str>,
) -> Result<Vec<Parameter>, Failure> {
    let (source, definition, parsed) = read(host)?;
    // What is doubtful is another question.
    let mut lint = Linter::new(host, &parsed.file.directives)?;
    walk(host, source, &definition, parsed, &mut lint, Scope { target, all: false })
}

/// The file to build.
pub(crate) fn read(host: &mut dyn Host) -> Result<(u32, DefinitionFile, Parsed), Failure> {
    let definition = host.definition()?;
    let source = host.add_source(&definition.name, "dockerfile", &definition.data)?;
    let parsed = crate::parse(source, &definition.data);
    Ok((source, definition, parsed))
}

fn walk(
    host: &mut dyn Host,
    source: u32,
    definition: &DefinitionFile,
    parsed: Parsed,
    lint: &mut Linter,
    scope: Scope<'_>,
) -> Result<Vec<Parameter>, Failure> {
    if parsed.failed() {
        return Err(Failure::of(parsed.problems));
    }
    for problem in parsed.problems {
        host.report(problem);
    }
    let request = Request::read(host, &parsed.file, scope.target)?;
    let attr = |name: &str| {
        let found = definition.attrs.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    };
    let beside = attr("context").zip(attr("path"));
    let mut session = Session {
        file: &parsed.file,
        source,
        contexts: Contexts::new(host, beside),
        images: Images::default(),
        expanded: Cell::new(0),
        request,
        lint,
        host,
    };
    session.note_unused_arguments();
    let all = scope.all && session.request.target.is_none();
    let mut graphs = Vec::new();
    for platform in session.request.target_platforms.clone() {
        graphs.push(Graph::new(&mut session, platform, all)?);
    }
    loop {
        session.resolve_images()?;
        let mut grown = false;
        for graph in &mut graphs {
            grown |= graph.add_triggers(&mut session)?;
        }
        if !grown {
            break;
        }
    }
    let mut parameters = None;
    for graph in &graphs {
        let taken = lower::lower(&mut session, graph)?;
        // What is taken does not depend on the platform but for values of arguments.
        parameters.get_or_insert_with(|| outline::parameters(graph, &taken));
    }
    Ok(parameters.unwrap_or_default())
}

/// Images that are not there of which a stage of a similar name is looked for.
const MOST_HINTS: usize = 20;

/// What all platforms of a build share.
struct Session<'a> {
    host: &'a mut dyn Host,
    file: &'a Dockerfile,
    source: u32,
    request: Request,
    contexts: Contexts,
    images: Images,
    /// How many bytes words have come to so far.
    expanded: Cell<usize>,
    lint: &'a mut Linter,
}

/// How many bytes all words of a build may come to. A few lines of `ENV A=$A$A` would fill any
/// memory.
const MOST_EXPANDED: usize = 64 << 20;

/// The images that stages start from or copy from.
#[derive(Default)]
struct Images {
    index: BTreeMap<ImageRequest, usize>,
    entries: Vec<ImageEntry>,
}

struct ImageEntry {
    request: ImageRequest,
    /// Where it is asked for.
    span: Span,
    info: Option<ImageInfo>,
    /// What to say if it cannot be found.
    hint: Option<String>,
}

impl Images {
    /// The number of an image, which is resolved with the next batch.
    fn add(&mut self, request: ImageRequest, span: Span) -> usize {
        *self.index.entry(request).or_insert_with_key(|request| {
            let (request, info, hint) = (request.clone(), None, None);
            self.entries.push(ImageEntry { request, span, info, hint });
            self.entries.len() - 1
        })
    }

    /// Says what may be the reason if an image cannot be found.
    fn hint(&mut self, image: usize, hint: String) {
        self.entries[image].hint = Some(hint);
    }

    fn info(&self, image: usize) -> (&ImageRequest, &ImageInfo) {
        let entry = &self.entries[image];
        let info = entry.info.as_ref().expect("images are resolved before stages are lowered");
        (&entry.request, info)
    }
}

impl Session<'_> {
    /// Counts an expanded word.
    fn count(&self, word: &Text, expanded: &str) -> Result<(), Diagnostic> {
        self.expanded.set(self.expanded.get() + expanded.len());
        if self.expanded.get() <= MOST_EXPANDED {
            return Ok(());
        }
        let message =
            format!("the words of this build come to more than {} MiB", MOST_EXPANDED >> 20);
        Err(Diagnostic::error(Code::TooLarge, word.span(), message)
            .help("keep long texts in files; a variable that holds itself twice doubles each time"))
    }

    /// Resolves, in one batch, all images that are not resolved yet.
    fn resolve_images(&mut self) -> Result<(), Failure> {
        let open: Vec<usize> = (0..self.images.entries.len())
            .filter(|image| self.images.entries[*image].info.is_none())
            .collect();
        if open.is_empty() {
            return Ok(());
        }
        let requests: Vec<ImageRequest> =
            open.iter().map(|image| self.images.entries[*image].request.clone()).collect();
        let answers = self.host.resolve_images(&requests);
        if answers.len() != requests.len() {
            return Err(Failure::new("internal", "the host did not answer for every image"));
        }
        let mut failures = Vec::new();
        for (image, answer) in open.into_iter().zip(answers) {
            let entry = &mut self.images.entries[image];
            match answer {
                Ok(info) => entry.info = Some(info),
                Err(failure) => {
                    let (span, reference) = (entry.span, entry.request.reference.clone());
                    // Who names so many images that are not there has not misspelt a stage.
                    let few = failures.len() < MOST_HINTS;
                    let hint = entry.hint.clone();
                    let misspelt = || if few { self.misspelt(&reference) } else { None };
                    let help = hint.or_else(misspelt);
                    let mut failure = failure.at(Code::UnresolvedImage, span);
                    if let (Some(help), Some(first)) = (help, failure.diagnostics.first_mut()) {
                        first.help = Some(help);
                    }
                    failures.push(failure);
                }
            }
        }
        Failure::joined(failures).map_or(Ok(()), Err)
    }

    /// The stage or context that was meant by what is taken for an image.
    fn misspelt(&self, reference: &str) -> Option<String> {
        let name = reference.split([':', '@']).next().unwrap_or(reference);
        let stages = self.file.stages.iter().filter_map(|stage| stage.name.as_deref());
        let of = |kind: &str, close| format!("there is a {kind} of a similar name; {close}");
        did_you_mean(name, stages).map(|close| of("stage", close)).or_else(|| {
            did_you_mean(name, self.contexts.names()).map(|close| of("named context", close))
        })
    }

    /// A build argument that nothing declares has no effect; say so, as it is often misspelt.
    fn note_unused_arguments(&mut self) {
        let mut declared: BTreeSet<&str> = BTreeSet::new();
        let stages = self.file.stages.iter().flat_map(|stage| &stage.instructions);
        for instruction in self.file.globals.iter().chain(stages) {
            if let Kind::Arg(declarations) = &instruction.kind {
                declared.extend(declarations.iter().map(|declaration| declaration.name.as_str()));
            }
        }
        // What triggers of a base declare is not known yet.
        let triggers = self.file.stages.iter().any(|stage| {
            stage
                .instructions
                .iter()
                .any(|instruction| matches!(instruction.kind, Kind::Onbuild(_)))
        });
        let silent = |name: &str| {
            PROXY_VARIABLES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
                || name.starts_with("BUILDKIT_")
                || name.starts_with("TARGET")
                || name.starts_with("BUILD")
                || name == request::EPOCH
        };
        for name in self.request.build_args.keys() {
            if triggers || silent(name) || declared.contains(name.as_str()) {
                continue;
            }
            let at = Span { source: self.source, start: 0, end: 0 };
            let mut note = Diagnostic::note(
                Code::UnusedBuildArg,
                at,
                format!("the build argument {} is not declared by any ARG", shown(name)),
            )
            .maybe_help(did_you_mean(name, declared.iter().copied()));
            // It is about the command line, not about a place in the file.
            note.labels.clear();
            self.host.report(note);
        }
    }
}

/// Expands a word of an instruction.
fn expand_word(word: &Text, escape: char, vars: &dyn Lookup) -> Result<Expansion, Diagnostic> {
    expand_text(word, Options::word(escape), vars)
}

/// Expands any text of the file.
fn expand_text(text: &Text, options: Options, vars: &dyn Lookup) -> Result<Expansion, Diagnostic> {
    expand::expand(text, options, vars).map_err(|error| {
        Diagnostic::error(Code::InvalidExpansion, text.span_of(error.at), error.message)
            .maybe_help(error.help)
    })
}
