//! Answering a frontend from a trace, without what answered it then.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use wbuild_api::extension::{
    DefinitionFile, Entry, FrontendHost, ImageInfo, ImageRequest, InspectCap, NamedContext,
    NestedBuild, NestedCap, NestedResult, Outcome, ReadDir, RequestCap, SourceInfo, SourceRequest,
};
use wbuild_graph::{Attrs, Edge, Failure, GraphLimits, Platform};

use crate::bench::{Bench, lock};
use crate::trace::{Call, Trace, fill, fill_sources, next_node, next_source};

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
        Some(self.answer_at(call, args)?.0)
    }

    /// The same, and where in the trace.
    fn answer_at<T: DeserializeOwned>(&self, call: &str, args: Json) -> Option<(T, usize)> {
        let same = |known: &Call| known.call == call && known.args == args;
        let mut used = lock(&self.used);
        let places = || (0..self.calls.len()).filter(|at| same(&self.calls[*at]));
        let place = places().find(|at| !used[*at]).or_else(|| places().next_back());
        if let Some(answer) = place.and_then(|at| {
            used[at] = true;
            Some((serde_json::from_value(self.calls[at].answer.clone()).ok()?, at))
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
        let call = "nested.build";
        let Some((answers, at)) = self.answer_at(call, json!([requests])) else {
            return requests.iter().map(|_| Err(no_answer(call))).collect();
        };
        // What is numbered after them is numbered as it was.
        let nodes = fill(&mut lock(&self.bench.definition), next_node(&self.calls, at));
        let sources = fill_sources(&mut lock(&self.bench.texts), next_source(&self.calls, at));
        match nodes.and(sources) {
            Ok(()) => answers,
            Err(failure) => requests.iter().map(|_| Err(failure.clone())).collect(),
        }
    }
}
