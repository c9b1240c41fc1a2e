//! A trace as a value, and as bytes: JSON behind a line that names the format.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wbuild_api::extension::{
    DefinitionFile, FilesResult, Frontend, ImageRequest, ImageResult, ReadDir,
};
use wbuild_api::extension::{ImageInfo, SourceInfo, SourceRequest};
use wbuild_graph::{
    Diagnostic, Digest, Edge, Failure, FailureKind, NodeMeta, Op, Platform, SourceFile, Span,
};

/// Changes with the meaning of a trace.
const FORMAT: &[u8] = b"wbuild memo 2\n";
/// A larger trace is not kept, in bytes: reading it would take as long as running the frontend.
const SIZE_LIMIT: usize = 16 << 20;

/// What one run of a frontend did, in order.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Trace {
    pub(super) calls: Vec<Call>,
    /// Bytes that the calls take, about.
    #[serde(skip)]
    size: usize,
}

/// One call of a capability.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Call {
    /// A question, and the digest of its answer, once it is answered.
    Asked(Question, Told),
    Insert(Op, Vec<Edge>),
    Annotate(Edge, NodeMeta),
    IgnoreCache(Edge),
    AddSource(Source),
    MapSource(Span, Span),
    Report(Diagnostic),
    Image(ImageResult),
    Files(FilesResult),
    Require(Edge),
    Effect(String, Edge),
    FailAfter(Edge),
}

/// A source file; numbers, which is how JSON holds bytes, take four times the space of text.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Source {
    name: String,
    language: String,
    text: Text,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Text {
    Utf8(String),
    Bytes(Vec<u8>),
}

impl From<SourceFile> for Source {
    fn from(source: SourceFile) -> Source {
        let text = match std::str::from_utf8(&source.text) {
            Ok(text) => Text::Utf8(text.to_owned()),
            Err(_) => Text::Bytes(source.text.to_vec()),
        };
        Source { name: source.name, language: source.language, text }
    }
}

impl Source {
    /// The file as it was registered.
    pub(super) fn file(&self) -> SourceFile {
        let text = match &self.text {
            Text::Utf8(text) => text.as_bytes(),
            Text::Bytes(bytes) => bytes,
        };
        SourceFile { name: self.name.clone(), language: self.language.clone(), text: text.into() }
    }
}

/// What a frontend may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Question {
    ResolveImages(Vec<ImageRequest>),
    ResolveSources(Vec<SourceRequest>),
    ReadFile(Edge, String, u64, u32),
    Stat(Edge, String),
    ReadDir(Edge, ReadDir),
    Evaluate(Vec<Edge>),
    SameWork(Edge, Edge),
    OutcomeOf(Edge),
    Definition,
    Opt(String),
    Opts(String),
    Targets,
    BuildPlatform,
    TargetPlatforms,
    Context(String, Option<Platform>),
    ContextNames,
    HasSecret(String),
    HasSsh(String),
    Epoch,
    Supports(String),
    /// Which component is called by this name.
    Frontend(String),
}

impl Trace {
    /// Adds a call. False if the trace is too large to be kept by now: then it is not written on,
    /// or a frontend that calls in a loop would fill the memory of this process.
    pub(super) fn push(&mut self, call: Call) -> bool {
        let text = serde_json::to_vec(&call).map_or(SIZE_LIMIT, |text| text.len());
        self.size = self.size.saturating_add(size_of::<Call>()).saturating_add(text);
        self.calls.push(call);
        self.size <= SIZE_LIMIT
    }

    /// None if it is too large to be kept.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut out = FORMAT.to_vec();
        serde_json::to_writer(&mut out, self).ok()?;
        (out.len() <= SIZE_LIMIT).then_some(out)
    }

    /// None if it is of another format or damaged.
    pub(super) fn decode(data: &[u8]) -> Option<Trace> {
        serde_json::from_slice(data.strip_prefix(FORMAT)?).ok()
    }
}

/// The digest of an answer; none if it may be another the next time although nothing has changed.
pub(super) type Told = Option<Digest>;

/// Of an answer that cannot fail.
pub(super) fn plain(answer: &impl Serialize) -> Told {
    serde_json::to_vec(answer).ok().map(|bytes| Digest::of(&bytes))
}

/// Of an answer that may be a failure.
pub(super) fn result(answer: Result<&impl Serialize, &Failure>) -> Told {
    match answer {
        Ok(value) => plain(&("ok", value)),
        Err(failure) if lasting(failure) => plain(&("failed", failure)),
        Err(_) => None,
    }
}

/// Of a list of answers.
fn results<T: Serialize>(answers: &[Result<T, Failure>]) -> Told {
    let all: Option<Vec<Digest>> = answers.iter().map(|answer| result(answer.as_ref())).collect();
    plain(&all?)
}

/// Of what images were resolved to.
pub(super) fn images(answers: &[Result<ImageInfo, Failure>]) -> Told {
    results(answers)
}

/// Of what sources were resolved to.
pub(super) fn sources(answers: &[Result<SourceInfo, Failure>]) -> Told {
    results(answers)
}

/// Of how solving ended.
pub(super) fn solved(answers: &[Result<(), Failure>]) -> Told {
    results(answers)
}

/// Of bytes that were read.
pub(super) fn bytes(answer: &Result<Vec<u8>, Failure>) -> Told {
    result(answer.as_ref().map(|bytes| Digest::of(bytes)).as_ref().map_err(|failure| *failure))
}

/// Of the definition file.
pub(super) fn definition(answer: &Result<DefinitionFile, Failure>) -> Told {
    let digested = answer.as_ref().map(|file| (&file.name, Digest::of(&file.data), &file.attrs));
    result(digested.as_ref().map_err(|failure| *failure))
}

/// Of which component is called.
pub(super) fn frontend(answer: &Result<Arc<dyn Frontend>, Failure>) -> Told {
    let identity = answer.as_ref().map(|frontend| frontend.identity());
    result(identity.as_ref().map_err(|failure| *failure))
}

/// Whether the same question gets the same failure until something changes.
fn lasting(failure: &Failure) -> bool {
    use FailureKind::{Denied, Invalid, NotFound, Unsupported};
    matches!(failure.kind, NotFound | Denied | Invalid | Unsupported) && !failure.retryable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_in_a_loop_fills_a_trace_and_no_memory() {
        let at = Edge { node: wbuild_graph::NodeId(0), index: 0 };
        for text in [0, 10, 100_000] {
            let question = || Call::Asked(Question::Opt("x".repeat(text)), None);
            let effect = || Call::Effect("x".repeat(text), at);
            for call in [&question as &dyn Fn() -> Call, &effect] {
                let (mut trace, mut calls) = (Trace::default(), 0);
                while trace.push(call()) {
                    calls += 1;
                    assert!(calls * (text + size_of::<Call>()) <= SIZE_LIMIT, "no end: {calls}");
                }
                assert!(calls * (text + size_of::<Call>()) > SIZE_LIMIT / 2, "too early: {calls}");
            }
        }
    }
}
