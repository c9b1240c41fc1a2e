//! What a frontend asked and did, and what it was answered: recorded at the capabilities, whoever they
//! belong to, and answered again without them.
//!
//! Beside the memo of the engine, which keeps digests of answers to know whether they still hold: a
//! trace has the answers themselves, failures included, so that it stands alone.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use wbuild_api::describe::{Description, Query};
use wbuild_api::extension::{
    DefinitionFile, DiagnosticsCap, Entry, FilesResult, Frontend, FrontendHost, GraphCap,
    ImageInfo, ImageRequest, ImageResult, InspectCap, LogCap, NamedContext, NestedBuild, NestedCap,
    NestedResult, Outcome, PluginIdentity, ReadDir, RequestCap, ResultsCap, SourceInfo,
    SourceRequest,
};
use wbuild_api::nodes;
use wbuild_graph::{
    Attrs, Definition, Diagnostic, Edge, Failure, GraphLimits, NodeMeta, Op, Platform, Severity,
    SourceFile, Span,
};

use crate::bench::{Bench, lock};

/// Version of the format.
const VERSION: u32 = 1;
/// Lists of numbers of this length are written as text, if they are one: they are bytes.
const BYTES: usize = 8;
/// By which text in their place is known.
const TEXT: &str = "$text";

/// What a frontend did, from its first question to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Of the format.
    pub version: u32,
    /// Whose it is.
    pub frontend: PluginIdentity,
    /// In order.
    pub calls: Vec<Call>,
    /// How it ended; none if it did not.
    pub ended: Option<Result<(), Failure>>,
}

/// One call of a capability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Interface and function of wit/frontend.
    pub call: String,
    /// Its arguments.
    pub args: Json,
    /// What it was answered.
    pub answer: Json,
}

impl Trace {
    /// As a file.
    pub fn to_json(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        pack(&mut value);
        let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// When it is no trace of a format that is known.
    pub fn from_json(text: &str) -> Result<Trace, Failure> {
        let bad = |error: serde_json::Error| Failure::invalid("it is no trace").cause(&error);
        let mut value: Json = serde_json::from_str(text).map_err(bad)?;
        if value["version"] != json!(VERSION) {
            let message = format!("it is no trace of version {VERSION}");
            return Err(Failure::unsupported(message));
        }
        unpack(&mut value);
        serde_json::from_value(value).map_err(bad)
    }

    /// The graph that was made, by the host that the calls were made of.
    ///
    /// # Errors
    ///
    /// When the calls make none.
    pub fn graph(&self) -> Result<Definition, Failure> {
        let mut graph = Definition::new("trace", GraphLimits::default());
        for call in &self.calls {
            let done = match call.call.as_str() {
                "graph.insert" => {
                    let (op, inputs): (Op, Vec<Edge>) = args(call)?;
                    nodes::insert(&mut graph, op, inputs).map(drop)
                }
                "graph.annotate" => {
                    let (at, meta): (Edge, NodeMeta) = args(call)?;
                    graph.annotate(at.node, meta)
                }
                "graph.ignore-cache" => {
                    let (at,): (Edge,) = args(call)?;
                    graph.ignore_cache(at.node)
                }
                _ => Ok(()),
            };
            // What was refused is not in it, now as then.
            if done.is_err() != call.answer.get("Err").is_some() {
                return Err(Failure::invalid(format!("{} ended otherwise", call.shown())));
            }
        }
        Ok(graph)
    }

    /// The first call in which another trace differs, in words.
    pub fn difference(&self, other: &Trace) -> Option<String> {
        let mut pairs = self.calls.iter().zip(&other.calls).enumerate();
        if let Some((at, (one, two))) = pairs.find(|(_, (one, two))| one != two) {
            return Some(format!("call {}: {} and then {}", at + 1, one.shown(), two.shown()));
        }
        if self.calls.len() != other.calls.len() {
            let (one, two) = (self.calls.len(), other.calls.len());
            return Some(format!("{one} calls and then {two}"));
        }
        (self.ended != other.ended)
            .then(|| format!("ended with {:?} and then {:?}", self.ended, other.ended))
    }
}

impl Call {
    /// In a line.
    pub fn shown(&self) -> String {
        let cut = |value: &Json| {
            let text = value.to_string();
            match text.char_indices().nth(200) {
                Some((at, _)) => format!("{}…", &text[..at]),
                None => text,
            }
        };
        format!("{}{} -> {}", self.call, cut(&self.args), cut(&self.answer))
    }
}

fn args<T: DeserializeOwned>(call: &Call) -> Result<T, Failure> {
    serde_json::from_value(call.args.clone())
        .map_err(|error| Failure::invalid(format!("{} is malformed", call.call)).cause(&error))
}

/// Writes bytes that are text as text.
fn pack(value: &mut Json) {
    match value {
        Json::Array(items) => {
            let byte = |item: &Json| item.as_u64().and_then(|number| u8::try_from(number).ok());
            let bytes: Option<Vec<u8>> = match items.len() >= BYTES {
                true => items.iter().map(byte).collect(),
                false => None,
            };
            match bytes.and_then(|bytes| String::from_utf8(bytes).ok()) {
                Some(text) => *value = json!({ TEXT: text }),
                None => items.iter_mut().for_each(pack),
            }
        }
        Json::Object(fields) => fields.values_mut().for_each(pack),
        _ => {}
    }
}

fn unpack(value: &mut Json) {
    match value {
        Json::Object(fields) if fields.len() == 1 && fields.contains_key(TEXT) => {
            if let Some(text) = fields[TEXT].as_str() {
                *value = text.bytes().map(Json::from).collect();
            }
        }
        Json::Object(fields) => fields.values_mut().for_each(unpack),
        Json::Array(items) => items.iter_mut().for_each(unpack),
        _ => {}
    }
}

fn value(of: &impl Serialize) -> Json {
    // Keys are strings.
    serde_json::to_value(of).unwrap_or_default()
}

// ---- recording ----------------------------------------------------------------------------------

/// A frontend whose builds are recorded.
pub struct Traced {
    inner: Arc<dyn Frontend>,
    trace: Mutex<Option<Trace>>,
}

impl Traced {
    /// Records what this one does.
    pub fn new(inner: Arc<dyn Frontend>) -> Arc<Traced> {
        Arc::new(Traced { inner, trace: Mutex::default() })
    }

    /// What the last build did; none if there was none.
    pub fn trace(&self) -> Option<Trace> {
        lock(&self.trace).clone()
    }
}

#[async_trait]
impl Frontend for Traced {
    fn identity(&self) -> PluginIdentity {
        self.inner.identity()
    }

    async fn build(&self, host: FrontendHost) -> Result<(), Failure> {
        let recorder = Arc::new(Recorder { inner: host, calls: Mutex::default() });
        let result = self.inner.build(recorder.host()).await;
        *lock(&self.trace) = Some(Trace {
            version: VERSION,
            frontend: self.inner.identity(),
            calls: std::mem::take(&mut *lock(&recorder.calls)),
            ended: Some(result.clone()),
        });
        result
    }

    fn describes(&self) -> bool {
        self.inner.describes()
    }

    async fn describe(&self, host: FrontendHost, query: Query) -> Result<Description, Failure> {
        self.inner.describe(host, query).await
    }
}

struct Recorder {
    inner: FrontendHost,
    calls: Mutex<Vec<Call>>,
}

impl Recorder {
    fn host(self: &Arc<Self>) -> FrontendHost {
        FrontendHost {
            graph: Arc::clone(self) as _,
            inspect: Arc::clone(self) as _,
            request: Arc::clone(self) as _,
            diagnostics: Arc::clone(self) as _,
            results: Arc::clone(self) as _,
            nested: Arc::clone(self) as _,
            log: Arc::clone(self) as _,
        }
    }

    fn note<T: Serialize>(&self, call: &str, args: Json, answer: T) -> T {
        let call = Call { call: call.to_owned(), args, answer: value(&answer) };
        lock(&self.calls).push(call);
        answer
    }
}

impl GraphCap for Recorder {
    fn insert(&self, op: Op, inputs: Vec<Edge>) -> Result<Vec<Edge>, Failure> {
        let args = json!([op, inputs]);
        self.note("graph.insert", args, self.inner.graph.insert(op, inputs))
    }

    fn annotate(&self, at: Edge, meta: NodeMeta) -> Result<(), Failure> {
        let args = json!([at, meta]);
        self.note("graph.annotate", args, self.inner.graph.annotate(at, meta))
    }

    fn ignore_cache(&self, at: Edge) -> Result<(), Failure> {
        self.note("graph.ignore-cache", json!([at]), self.inner.graph.ignore_cache(at))
    }

    fn same_work(&self, at: Edge, other: Edge) -> Result<bool, Failure> {
        let answer = self.inner.graph.same_work(at, other);
        self.note("graph.same-work", json!([at, other]), answer)
    }
}

#[async_trait]
impl InspectCap for Recorder {
    async fn resolve_images(&self, requests: Vec<ImageRequest>) -> Vec<Result<ImageInfo, Failure>> {
        let args = json!([requests]);
        self.note("inspect.resolve-images", args, self.inner.inspect.resolve_images(requests).await)
    }

    async fn resolve_sources(
        &self,
        requests: Vec<SourceRequest>,
    ) -> Vec<Result<SourceInfo, Failure>> {
        let args = json!([requests]);
        let answer = self.inner.inspect.resolve_sources(requests).await;
        self.note("inspect.resolve-sources", args, answer)
    }

    async fn read_file(
        &self,
        at: Edge,
        path: String,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>, Failure> {
        let args = json!([at, path, offset, length]);
        let answer = self.inner.inspect.read_file(at, path, offset, length).await;
        self.note("inspect.read-file", args, answer)
    }

    async fn stat(&self, at: Edge, path: String) -> Result<Option<Entry>, Failure> {
        let args = json!([at, path]);
        self.note("inspect.stat", args, self.inner.inspect.stat(at, path).await)
    }

    async fn read_dir(&self, at: Edge, query: ReadDir) -> Result<Vec<Entry>, Failure> {
        let args = json!([at, query]);
        self.note("inspect.read-dir", args, self.inner.inspect.read_dir(at, query).await)
    }

    fn start(&self, at: Vec<Edge>) {
        let args = json!([at]);
        self.note("inspect.start", args, self.inner.inspect.start(at));
    }

    async fn evaluate(&self, at: Vec<Edge>) -> Vec<Result<(), Failure>> {
        let args = json!([at]);
        self.note("inspect.evaluate", args, self.inner.inspect.evaluate(at).await)
    }

    async fn outcome_of(&self, at: Edge) -> Result<Arc<Outcome>, Failure> {
        let answer = self.inner.inspect.outcome_of(at).await;
        self.note("inspect.outcome-of", json!([at]), answer)
    }
}

#[async_trait]
impl RequestCap for Recorder {
    fn definition(&self) -> Result<DefinitionFile, Failure> {
        self.note("request.definition", json!([]), self.inner.request.definition())
    }

    async fn opt(&self, name: String) -> Option<String> {
        let args = json!([name]);
        self.note("request.opt", args, self.inner.request.opt(name).await)
    }

    async fn opts(&self, prefix: String) -> Attrs {
        let args = json!([prefix]);
        self.note("request.opts", args, self.inner.request.opts(prefix).await)
    }

    fn targets(&self) -> Vec<String> {
        self.note("request.targets", json!([]), self.inner.request.targets())
    }

    fn build_platform(&self) -> Platform {
        self.note("request.build-platform", json!([]), self.inner.request.build_platform())
    }

    fn target_platforms(&self) -> Vec<Platform> {
        self.note("request.target-platforms", json!([]), self.inner.request.target_platforms())
    }

    fn context(
        &self,
        name: String,
        platform: Option<Platform>,
    ) -> Result<Option<NamedContext>, Failure> {
        let args = json!([name, platform]);
        self.note("request.context", args, self.inner.request.context(name, platform))
    }

    fn context_names(&self) -> Vec<String> {
        self.note("request.context-names", json!([]), self.inner.request.context_names())
    }

    fn has_secret(&self, id: String) -> bool {
        let args = json!([id]);
        self.note("request.has-secret", args, self.inner.request.has_secret(id))
    }

    fn has_ssh(&self, id: String) -> bool {
        let args = json!([id]);
        self.note("request.has-ssh", args, self.inner.request.has_ssh(id))
    }

    fn epoch(&self) -> Option<u64> {
        self.note("request.epoch", json!([]), self.inner.request.epoch())
    }

    fn supports(&self, feature: String) -> bool {
        let args = json!([feature]);
        self.note("request.supports", args, self.inner.request.supports(feature))
    }
}

impl DiagnosticsCap for Recorder {
    fn add_source(&self, source: SourceFile) -> Result<u32, Failure> {
        let args = json!([source]);
        self.note("diagnostics.add-source", args, self.inner.diagnostics.add_source(source))
    }

    fn map_source(&self, generated: Span, original: Span) -> Result<(), Failure> {
        let answer = self.inner.diagnostics.map_source(generated, original);
        self.note("diagnostics.map-source", json!([generated, original]), answer)
    }

    fn report(&self, diagnostic: Diagnostic) -> Result<(), Failure> {
        let args = json!([diagnostic]);
        self.note("diagnostics.report", args, self.inner.diagnostics.report(diagnostic))
    }
}

#[async_trait]
impl ResultsCap for Recorder {
    fn image(&self, image: ImageResult) -> Result<(), Failure> {
        let args = json!([image]);
        self.note("results.image", args, self.inner.results.image(image))
    }

    fn files(&self, files: FilesResult) -> Result<(), Failure> {
        let args = json!([files]);
        self.note("results.files", args, self.inner.results.files(files))
    }

    fn require(&self, at: Edge) -> Result<(), Failure> {
        self.note("results.require", json!([at]), self.inner.results.require(at))
    }

    fn attest(&self, kind: String, statement: FilesResult) -> Result<(), Failure> {
        let args = json!([kind, statement]);
        self.note("results.attest", args, self.inner.results.attest(kind, statement))
    }

    fn effect(&self, name: String, at: Edge) -> Result<(), Failure> {
        let args = json!([name, at]);
        self.note("results.effect", args, self.inner.results.effect(name, at))
    }

    fn fail_after(&self, at: Edge) -> Result<(), Failure> {
        self.note("results.fail-after", json!([at]), self.inner.results.fail_after(at))
    }

    async fn publish(&self, names: Vec<String>) -> Result<(), Failure> {
        let args = json!([names]);
        self.note("results.publish", args, self.inner.results.publish(names).await)
    }
}

#[async_trait]
impl NestedCap for Recorder {
    async fn build(&self, requests: Vec<NestedBuild>) -> Vec<Result<NestedResult, Failure>> {
        let args = json!([requests]);
        self.note("nested.build", args, self.inner.nested.build(requests).await)
    }
}

impl LogCap for Recorder {
    fn log(&self, severity: Severity, text: String) {
        let args = json!([severity, text]);
        self.note("log.log", args, self.inner.log.log(severity, text));
    }
}

// ---- answering again ----------------------------------------------------------------------------

/// A host that answers from a trace. The graph, the results and the messages are made anew, by the
/// rules of every host; questions are answered as they were.
pub(crate) struct Replayed {
    pub(crate) bench: Arc<Bench>,
    calls: Vec<Call>,
    /// Which calls of the trace have been made.
    used: Mutex<Vec<bool>>,
    /// Questions that the trace has no answer for.
    pub(crate) unanswered: Mutex<Vec<String>>,
}

impl Replayed {
    pub(crate) fn new(trace: &Trace) -> Arc<Replayed> {
        let first = trace.calls.iter().find(|call| call.call == "request.target-platforms");
        let first = first.and_then(|call| {
            let platforms: Vec<Platform> = serde_json::from_value(call.answer.clone()).ok()?;
            platforms.into_iter().next()
        });
        let first = first.unwrap_or_else(|| Platform::new("linux", "amd64", None));
        Arc::new(Replayed {
            bench: Arc::new(Bench::new(GraphLimits::default(), first)),
            used: Mutex::new(vec![false; trace.calls.len()]),
            calls: trace.calls.clone(),
            unanswered: Mutex::default(),
        })
    }

    pub(crate) fn host(self: &Arc<Self>) -> FrontendHost {
        FrontendHost {
            graph: Arc::clone(&self.bench) as _,
            inspect: Arc::clone(self) as _,
            request: Arc::clone(self) as _,
            diagnostics: Arc::clone(&self.bench) as _,
            results: Arc::clone(&self.bench) as _,
            nested: Arc::clone(self) as _,
            log: Arc::clone(&self.bench) as _,
        }
    }

    /// The recorded answer: of the first such question that was not asked again yet, or else of the
    /// last.
    fn answer<T: DeserializeOwned>(&self, call: &str, args: Json) -> Option<T> {
        let same = |known: &Call| known.call == call && known.args == args;
        let mut used = lock(&self.used);
        let places = || (0..self.calls.len()).filter(|at| same(&self.calls[*at]));
        let place = places().find(|at| !used[*at]).or_else(|| places().next_back());
        if let Some(answer) = place.and_then(|at| {
            used[at] = true;
            serde_json::from_value(self.calls[at].answer.clone()).ok()
        }) {
            return Some(answer);
        }
        let mut told = format!("{call}{args}");
        if let Some(at) =
            (0..self.calls.len()).find(|at| !used[*at] && self.calls[*at].call == call)
        {
            told.push_str(&format!("; the trace has {call}{}", self.calls[at].args));
        }
        lock(&self.unanswered).push(told);
        None
    }

    fn result<T: DeserializeOwned>(&self, call: &str, args: Json) -> Result<T, Failure> {
        self.answer(call, args).unwrap_or_else(|| Err(no_answer(call)))
    }

    fn results<T: DeserializeOwned>(
        &self,
        call: &str,
        args: Json,
        count: usize,
    ) -> Vec<Result<T, Failure>> {
        let none = || (0..count).map(|_| Err(no_answer(call))).collect();
        self.answer(call, args).unwrap_or_else(none)
    }
}

fn no_answer(call: &str) -> Failure {
    Failure::internal(format!("the trace has no answer to this {call}"))
}

#[async_trait]
impl InspectCap for Replayed {
    async fn resolve_images(&self, requests: Vec<ImageRequest>) -> Vec<Result<ImageInfo, Failure>> {
        self.results("inspect.resolve-images", json!([requests]), requests.len())
    }

    async fn resolve_sources(
        &self,
        requests: Vec<SourceRequest>,
    ) -> Vec<Result<SourceInfo, Failure>> {
        self.results("inspect.resolve-sources", json!([requests]), requests.len())
    }

    async fn read_file(
        &self,
        at: Edge,
        path: String,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>, Failure> {
        self.result("inspect.read-file", json!([at, path, offset, length]))
    }

    async fn stat(&self, at: Edge, path: String) -> Result<Option<Entry>, Failure> {
        self.result("inspect.stat", json!([at, path]))
    }

    async fn read_dir(&self, at: Edge, query: ReadDir) -> Result<Vec<Entry>, Failure> {
        self.result("inspect.read-dir", json!([at, query]))
    }

    fn start(&self, _at: Vec<Edge>) {}

    async fn evaluate(&self, at: Vec<Edge>) -> Vec<Result<(), Failure>> {
        self.results("inspect.evaluate", json!([at]), at.len())
    }

    async fn outcome_of(&self, at: Edge) -> Result<Arc<Outcome>, Failure> {
        self.result("inspect.outcome-of", json!([at]))
    }
}

#[async_trait]
impl RequestCap for Replayed {
    fn definition(&self) -> Result<DefinitionFile, Failure> {
        self.result("request.definition", json!([]))
    }

    async fn opt(&self, name: String) -> Option<String> {
        self.answer("request.opt", json!([name])).unwrap_or_default()
    }

    async fn opts(&self, prefix: String) -> Attrs {
        self.answer("request.opts", json!([prefix])).unwrap_or_default()
    }

    fn targets(&self) -> Vec<String> {
        self.answer("request.targets", json!([])).unwrap_or_default()
    }

    fn build_platform(&self) -> Platform {
        let asked = self.answer("request.build-platform", json!([]));
        asked.unwrap_or_else(|| self.bench.first.clone())
    }

    fn target_platforms(&self) -> Vec<Platform> {
        let asked = self.answer("request.target-platforms", json!([]));
        asked.unwrap_or_else(|| vec![self.bench.first.clone()])
    }

    fn context(
        &self,
        name: String,
        platform: Option<Platform>,
    ) -> Result<Option<NamedContext>, Failure> {
        self.result("request.context", json!([name, platform]))
    }

    fn context_names(&self) -> Vec<String> {
        self.answer("request.context-names", json!([])).unwrap_or_default()
    }

    fn has_secret(&self, id: String) -> bool {
        self.answer("request.has-secret", json!([id])).unwrap_or_default()
    }

    fn has_ssh(&self, id: String) -> bool {
        self.answer("request.has-ssh", json!([id])).unwrap_or_default()
    }

    fn epoch(&self) -> Option<u64> {
        self.answer("request.epoch", json!([])).unwrap_or_default()
    }

    fn supports(&self, feature: String) -> bool {
        self.answer("request.supports", json!([feature])).unwrap_or_default()
    }
}

#[async_trait]
impl NestedCap for Replayed {
    async fn build(&self, requests: Vec<NestedBuild>) -> Vec<Result<NestedResult, Failure>> {
        self.results("nested.build", json!([requests]), requests.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_text_are_written_as_text_and_come_back() {
        for value in [
            json!({"data": "hello world".bytes().collect::<Vec<u8>>()}),
            json!([
                [1, 2, 3],
                (0..20).collect::<Vec<_>>(),
                vec![255; 9],
                vec!["x"; 9],
                vec![300; 9]
            ]),
        ] {
            let mut packed = value.clone();
            pack(&mut packed);
            assert_ne!(packed, value);
            unpack(&mut packed);
            assert_eq!(packed, value);
        }
    }
}
