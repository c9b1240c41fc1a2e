//! Other frontends that a frontend calls, as a case says they answer. None of them runs: what a call
//! yields is one node of the graph for each platform, which shows what was asked.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Deserialize;
use wbuild_api::extension::{
    DiagnosticsCap as _, FilesResult, GraphCap as _, ImageResult, NestedBuild, NestedCap,
    NestedResult,
};
use wbuild_api::yielded::check_config;
use wbuild_graph::op::SourceOp;
use wbuild_graph::{Attrs, Edge, Failure, NodeMeta, Op, Platform, SourceFile};

use crate::bench::lock;
use crate::staged::Staged;
use crate::tree::Tree;

/// By which nodes that stand for calls are known.
const SCHEME: &str = "frontend://";

/// A frontend that is called and does not run.
#[derive(Clone, Debug, Default)]
pub struct FakeFrontend {
    /// The config of the image that it yields for each platform; without one it yields files.
    pub config: Option<String>,
    /// What is in the image, or in the files.
    pub files: Tree,
    /// With what it fails instead.
    pub fails: Option<String>,
}

impl FakeFrontend {
    /// One that yields an image with this config.
    pub fn image(config: &str) -> Self {
        FakeFrontend { config: Some(config.to_owned()), ..FakeFrontend::default() }
    }

    /// One that yields files, which are none yet.
    pub fn files() -> Self {
        FakeFrontend::default()
    }

    /// One that fails.
    pub fn failing(message: &str) -> Self {
        FakeFrontend { fails: Some(message.to_owned()), ..FakeFrontend::default() }
    }

    /// A file of what it yields.
    #[must_use]
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.files = self.files.file(path, text);
        self
    }
}

/// The same in a `case.toml`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FrontendFile {
    config: Option<serde_json::Value>,
    files: BTreeMap<String, String>,
    fails: Option<String>,
}

impl FrontendFile {
    pub(crate) fn frontend(self) -> FakeFrontend {
        let files = self.files.iter().fold(Tree::new(), |tree, (path, text)| tree.file(path, text));
        let config = self.config.map(|config| config.to_string());
        FakeFrontend { config, files, fails: self.fails }
    }
}

/// What stands in the graph for what a call yields for a platform.
fn node(request: &NestedBuild, platform: &Platform) -> Op {
    let mut attrs = Attrs::default();
    if let Some((name, data)) = &request.definition {
        attrs.push("definition", format!("{name} {:?}", String::from_utf8_lossy(data)));
    }
    for (name, context) in &request.contexts {
        let root = crate::snapshot::edge(context.root);
        let with = if context.config.is_some() { " with its config" } else { "" };
        attrs.push("context", format!("{name} {root}{with}"));
    }
    request.handed_on.iter().for_each(|name| attrs.push("hand-on", name));
    request.targets.iter().for_each(|name| attrs.push("target", name));
    for (name, value) in request.options.iter() {
        attrs.push("option", format!("{name}={value}"));
    }
    let identifier = format!("{SCHEME}{}", request.frontend);
    Op::Source(SourceOp::Other { identifier, platform: Some(platform.clone()), attrs })
}

impl Staged {
    /// The files that a call has yielded, if it is a call that an identifier stands for.
    pub(crate) fn yielded_by(&self, identifier: &str) -> Option<Tree> {
        let called = self.case.frontends.get(identifier.strip_prefix(SCHEME)?)?;
        Some(called.files.clone())
    }

    fn call(&self, request: &NestedBuild) -> Result<NestedResult, Failure> {
        let name = &request.frontend;
        let Some(called) = self.case.frontends.get(name) else {
            return Err(Failure::not_found(format!("there is no frontend {name}"))
                .hint(format!("the case may have one: [frontends.\"{name}\"]")));
        };
        for (_, context) in &request.contexts {
            lock(&self.bench.definition).check_edge(context.root)?;
        }
        if let Some(message) = &called.fails {
            return Err(Failure::invalid(message));
        }
        if let Some((name, data)) = &request.definition {
            // As all do; what is registered after it is numbered so.
            let (name, language, text) = (name.clone(), String::new(), data.as_slice().into());
            self.bench.add_source(SourceFile { name, language, text })?;
        }
        let platforms = match &request.platforms[..] {
            [] => &self.case.platforms,
            platforms => platforms,
        };
        let mut result = NestedResult::default();
        for platform in platforms {
            let root = self.insert_call(request, platform)?;
            let (name, attrs) = (String::new(), Attrs::default());
            let platform = Some(platform.clone());
            match &called.config {
                Some(config) => {
                    check_config(config)?;
                    let (root, config) = (Some(root), config.clone());
                    result.images.push(ImageResult { name, platform, root, config, attrs });
                }
                None => {
                    let path = "/".to_owned();
                    result.files.push(FilesResult { name, platform, root, path, attrs });
                }
            }
        }
        Ok(result)
    }

    fn insert_call(&self, request: &NestedBuild, platform: &Platform) -> Result<Edge, Failure> {
        let outputs = self.bench.insert(node(request, platform), Vec::new())?;
        let root = outputs.first().copied().ok_or_else(|| Failure::internal("no output"))?;
        let (name, spans) = (format!("call {}", request.frontend), request.asked_at.clone());
        self.bench.annotate(root, NodeMeta { name, spans, ..NodeMeta::default() })?;
        Ok(root)
    }
}

#[async_trait]
impl NestedCap for Staged {
    async fn build(&self, requests: Vec<NestedBuild>) -> Vec<Result<NestedResult, Failure>> {
        requests.iter().map(|request| self.call(request)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wbuild_api::extension::Frontend;
    use wbuild_frontend::{Build, Call, ImageConfig, Result, Source, State};

    use super::*;
    use crate::Case;

    wbuild_frontend::frontend!(build);

    /// Calls two, builds on what one yields, and registers a source after.
    fn build(build: &Build) -> Result<()> {
        let source = build.definition("")?;
        let platform = &build.platforms()[0];
        let lib = State::scratch().files().write("/lib", "l").done()?;
        let config = ImageConfig::new(platform).env("A", "1");
        let image = Call::new("images")
            .definition("inner", "FROM base")
            .context(&State::scratch())
            .named_context("base", &lib, Some(&config))
            .hand_on("lib")
            .target("t")
            .option("o", "v")
            .arg("V", "2")
            .platform(platform)
            .at(source.span(0..4));
        let files = Call::new("files");
        let called = Call::all([image, files]).into_iter().collect::<Result<Vec<_>>>()?;
        let [image, files] = &called[..] else { panic!("two answers") };
        let base = image.image(platform)?;
        assert_eq!(base.state.get_env("P"), Some("/bin"));
        assert_eq!(base.state.get_dir(), "/w");
        let made = &files.files[0];
        assert_eq!(made.state.read("/f", 10)?.as_deref(), Some(&b"file"[..]));
        Source::new("later", "", b"text")?;
        let root = base.state.files().copy(&made.state, "/f", "/f").done()?;
        assert_eq!(root.read("/bin/tool", 10)?.as_deref(), Some(&b"tool"[..]));
        build.image(&root, &base.config).done()
    }

    const CONFIG: &str = r#"{"os":"linux","config":{"Env":["P=/bin"],"WorkingDir":"/w"}}"#;

    fn case() -> Case {
        Case::new("text")
            .frontend("images", FakeFrontend::image(CONFIG).file("/bin/tool", "tool"))
            .frontend("files", FakeFrontend::files().file("/f", "file"))
    }

    #[test]
    fn a_call_is_seen_in_the_graph_and_what_it_yields_is_built_upon() {
        let frontend: Arc<dyn Frontend> = Arc::new(frontend());
        let (run, differs) = pollster::block_on(case().run_thrice(&frontend));
        assert_eq!(differs, None);
        let graph = run.snapshot.expect_success().graph_text();
        let shown = "\
#2 source call images
  other frontend://images linux/amd64
  definition inner \"FROM base\"
  context context #1
  context base #0 with its config
  hand-on lib
  target t
  option o=v
  option build-arg:V=2
  spans 0:0-4
#3 source call files
  other frontend://files linux/amd64
";
        assert!(graph.contains(shown), "{graph}");
        // The graph can be made of the trace, in which nobody called made anything.
        let trace = run.trace.expect("it ended");
        let again = wbuild_graph::dump::dump(&trace.graph().expect("a graph"));
        let (_, after) = graph.split_once("#4 ").expect("a node after the calls");
        assert!(again.ends_with(after), "{again}");
    }

    #[test]
    fn what_a_case_does_not_have_says_what_to_add() {
        let text = Case::new("text").frontend("files", FakeFrontend::files()).run(frontend());
        let told = text.expect_failure();
        assert!(told.contains("there is no frontend images"), "{told}");
        assert!(told.contains("the case may have one: [frontends.\"images\"]"), "{told}");
        assert!(told.contains("--> definition:1:1 `text`"), "the place that asks: {told}");
    }

    #[test]
    fn one_that_fails_fails_its_caller() {
        let case = case().frontend("files", FakeFrontend::failing("no such stage"));
        let told = case.run(frontend()).expect_failure();
        assert!(told.contains("no such stage"), "{told}");
    }
}
