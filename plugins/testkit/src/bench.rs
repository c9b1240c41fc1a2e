//! The half of a host that needs no machine: the graph as it grows, texts, results and the log. The
//! rules are the engine's, from `wbuild-graph` and `wbuild-api`.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use wbuild_api::extension::{
    DiagnosticsCap, FilesResult, GraphCap, ImageResult, LogCap, ResultsCap,
};
use wbuild_api::nodes::{self, Rights};
use wbuild_api::request::{DefaultNetwork, Entitlement};
use wbuild_api::texts::Texts;
use wbuild_api::yielded::{self, Yielded};
use wbuild_graph::op::SourceOp;
use wbuild_graph::{
    Definition, Diagnostic, Edge, Failure, GraphLimits, NodeMeta, Op, Platform, Severity,
    SourceFile, Span,
};

/// See the module.
pub(crate) struct Bench {
    pub(crate) definition: Mutex<Definition>,
    pub(crate) texts: Mutex<Texts>,
    pub(crate) reports: Mutex<Vec<Diagnostic>>,
    pub(crate) yielded: Mutex<Yielded>,
    pub(crate) log: Mutex<Vec<(Severity, String)>>,
    /// Names that a local source may have; none = any.
    pub(crate) locals: Option<BTreeSet<String>>,
    pub(crate) allow: BTreeSet<Entitlement>,
    pub(crate) network: DefaultNetwork,
    pub(crate) in_directory: bool,
    pub(crate) first: Platform,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bench {
    /// One that knows nothing of a machine and refuses nothing because of it.
    pub(crate) fn new(limits: GraphLimits, first: Platform) -> Self {
        Bench {
            definition: Mutex::new(Definition::new("test", limits)),
            texts: Mutex::default(),
            reports: Mutex::default(),
            yielded: Mutex::default(),
            log: Mutex::default(),
            locals: None,
            allow: Entitlement::ALL.into(),
            network: DefaultNetwork::default(),
            in_directory: true,
            first,
        }
    }
}

impl GraphCap for Bench {
    fn insert(&self, op: Op, inputs: Vec<Edge>) -> Result<Vec<Edge>, Failure> {
        let (allow, network) = (&self.allow, self.network);
        Rights { allow, network, in_directory: self.in_directory }.check(&op)?;
        if let Op::Source(SourceOp::Local(source)) = &op
            && self.locals.as_ref().is_some_and(|known| !known.contains(&source.name))
        {
            return Err(nodes::no_such_context(&source.name));
        }
        nodes::insert(&mut lock(&self.definition), op, inputs)
    }

    fn annotate(&self, at: Edge, mut meta: NodeMeta) -> Result<(), Failure> {
        lock(&self.texts).resolve_node(&mut meta);
        lock(&self.definition).annotate(at.node, meta)
    }

    fn ignore_cache(&self, at: Edge) -> Result<(), Failure> {
        lock(&self.definition).ignore_cache(at.node)
    }

    fn same_work(&self, at: Edge, other: Edge) -> Result<bool, Failure> {
        nodes::same_work(&mut lock(&self.definition), at, other)
    }
}

impl DiagnosticsCap for Bench {
    fn add_source(&self, source: SourceFile) -> Result<u32, Failure> {
        lock(&self.texts).add(source)
    }

    fn map_source(&self, generated: Span, original: Span) -> Result<(), Failure> {
        lock(&self.texts).map(generated, original)
    }

    fn report(&self, diagnostic: Diagnostic) -> Result<(), Failure> {
        let diagnostic = lock(&self.texts).report(diagnostic)?;
        lock(&self.reports).push(diagnostic);
        Ok(())
    }
}

#[async_trait]
impl ResultsCap for Bench {
    fn image(&self, image: ImageResult) -> Result<(), Failure> {
        lock(&self.yielded).image(&lock(&self.definition), image, &self.first)
    }

    fn files(&self, files: FilesResult) -> Result<(), Failure> {
        lock(&self.yielded).files(&lock(&self.definition), files)
    }

    fn require(&self, at: Edge) -> Result<(), Failure> {
        lock(&self.yielded).require(&lock(&self.definition), at)
    }

    fn attest(&self, kind: String, _: FilesResult) -> Result<(), Failure> {
        yielded::attest(&kind)
    }

    fn effect(&self, name: String, at: Edge) -> Result<(), Failure> {
        lock(&self.yielded).effect(&mut lock(&self.definition), &name, at)
    }

    fn fail_after(&self, at: Edge) -> Result<(), Failure> {
        lock(&self.yielded).fail_after(&lock(&self.definition), at)
    }

    async fn publish(&self, names: Vec<String>) -> Result<(), Failure> {
        let mut yielded = lock(&self.yielded);
        yielded.named(&names)?;
        yielded.publish(&names, Vec::new());
        Ok(())
    }
}

impl LogCap for Bench {
    fn log(&self, severity: Severity, text: String) {
        lock(&self.log).push((severity, text));
    }
}
