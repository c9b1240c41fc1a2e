//! Questions about a definition: what a frontend that is asked may look at, and that nothing is
//! built. Over the real store, with a frontend written here.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use wbuild_engine::describe::{DescribeReport, Description, Query};
use wbuild_engine::event::{BuildError, Event, EventSink};
use wbuild_engine::extension::{
    Frontend, FrontendHost, ImageResult, PluginIdentity, ReadDir, Target,
};
use wbuild_engine::request::{BuildRequest, DefaultNetwork, DefinitionSource};
use wbuild_engine::session::{BuildContext, RegistryAuth, Session};
use wbuild_engine::{Engine, EngineOptions, Plugins, Reader};
use wbuild_graph::op::{EntryOpts, FileAction, FileActionKind, FileOp, LocalSource, SourceOp};
use wbuild_graph::{
    Attrs, Diagnostic, Digest, Edge, Failure, FailureKind, Op, Platform, Severity, SourceFile,
};

#[derive(Default)]
struct Log(Mutex<Vec<Event>>);

impl EventSink for Log {
    fn event(&self, event: Event) {
        self.0.lock().expect("log").push(event);
    }
}

/// Lends one directory as every local context.
struct Client(PathBuf);

struct Directory(PathBuf);

impl BuildContext for Directory {
    fn identity(&self) -> Option<String> {
        Some(self.0.display().to_string())
    }

    fn display(&self) -> String {
        ".".to_owned()
    }

    fn open(&self) -> Result<OwnedFd, Failure> {
        Ok(std::fs::File::open(&self.0).expect("the context is there").into())
    }
}

#[async_trait]
impl Session for Client {
    fn id(&self) -> String {
        "test".to_owned()
    }

    fn context(&self, _: &str) -> Option<Arc<dyn BuildContext>> {
        Some(Arc::new(Directory(self.0.clone())))
    }

    fn has_secret(&self, _: &str) -> bool {
        false
    }

    async fn secret(&self, _: &str) -> Result<Option<Vec<u8>>, Failure> {
        Ok(None)
    }

    fn has_ssh(&self, _: &str) -> bool {
        false
    }

    fn ssh_socket(&self, _: &str) -> Option<PathBuf> {
        None
    }

    async fn known_hosts(&self) -> Result<Vec<u8>, Failure> {
        Ok(Vec::new())
    }

    async fn registry_auth(&self, _: &str) -> Result<Option<RegistryAuth>, Failure> {
        Ok(None)
    }
}

/// Looks at all it can reach, whatever it is asked, and says how that went.
struct Curious;

fn context(host: &FrontendHost) -> Edge {
    let source = LocalSource { name: "context".to_owned(), ..LocalSource::default() };
    host.graph.insert(Op::Source(SourceOp::Local(source)), Vec::new()).expect("context")[0]
}

fn image(host: &FrontendHost) -> Edge {
    let source = SourceOp::Image {
        reference: "registry.invalid/none".to_owned(),
        platform: Platform::host(),
        attrs: Attrs::default(),
    };
    host.graph.insert(Op::Source(source), Vec::new()).expect("image")[0]
}

fn step(host: &FrontendHost) -> Edge {
    let (path, data, opts) = ("/x".to_owned(), b"x".to_vec(), EntryOpts::default());
    let kind = FileActionKind::Write { path, data, opts };
    let actions = vec![FileAction { mark: None, kind }];
    let op = FileOp { base: None, names_from: None, actions };
    host.graph.insert(Op::File(op), Vec::new()).expect("step")[0]
}

#[async_trait]
impl Frontend for Curious {
    fn identity(&self) -> PluginIdentity {
        let (name, digest) = ("curious".to_owned(), Digest::of(b"curious"));
        PluginIdentity::bundled(&name, digest, "0.1.0")
    }

    async fn build(&self, _: FrontendHost) -> Result<(), Failure> {
        panic!("nothing is to be built")
    }

    async fn describe(&self, host: FrontendHost, query: Query) -> Result<Description, Failure> {
        if query == Query::Methods {
            return Err(Failure::invalid("asked for it"));
        }
        let (context, image, step) = (context(&host), image(&host), step(&host));
        let inspect = &host.inspect;
        let ignored = inspect.read_file(context, ".dockerignore".to_owned(), 0, 99).await?;
        let found = inspect.stat(context, "/.dockerignore".to_owned()).await?;
        assert!(found.is_some_and(|entry| entry.size == 4));
        // A context that is to be read after a step.
        let source = LocalSource { name: "context".to_owned(), ..LocalSource::default() };
        let behind = host.graph.insert(Op::Source(SourceOp::Local(source)), vec![step])?[0];
        for at in [image, step, behind] {
            let path = "/".to_owned();
            let query =
                ReadDir { path: path.clone(), after: None, limit: 9, opts: Attrs::default() };
            for refused in [
                inspect.read_file(at, path.clone(), 0, 9).await.map(drop),
                inspect.stat(at, path).await.map(drop),
                inspect.read_dir(at, query).await.map(drop),
                inspect.outcome_of(at).await.map(drop),
            ] {
                assert_eq!(refused.expect_err("refused").kind, FailureKind::Denied);
            }
        }
        let answers = inspect.evaluate(vec![step, context, image, Edge { index: 7, ..step }]).await;
        let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(|e| e.kind)).collect();
        let [denied, invalid] = [FailureKind::Denied, FailureKind::Invalid].map(Some);
        assert_eq!(kinds, [denied, None, denied, invalid]);
        inspect.start(vec![step, context, image]);

        host.results.image(ImageResult {
            name: String::new(),
            platform: None,
            root: Some(step),
            config: "{}".to_owned(),
            attrs: Attrs::default(),
        })?;
        let text = ignored.into();
        host.diagnostics.add_source(SourceFile {
            name: "Testfile".to_owned(),
            language: String::new(),
            text,
        })?;
        host.diagnostics.report(Diagnostic {
            severity: Severity::Warning,
            code: Some("TestRule".to_owned()),
            message: "found".to_owned(),
            labels: Vec::new(),
            help: None,
            url: None,
            attrs: Attrs::default(),
        })?;
        let target = Target { name: "t".to_owned(), ..Target::default() };
        Ok(Description::Targets { targets: vec![target] })
    }
}

async fn ask(query: Query, log: &Arc<Log>) -> Result<DescribeReport, Box<BuildError>> {
    let dir = tempfile::tempdir().expect("directory");
    let context = dir.path().join("context");
    std::fs::create_dir(&context).expect("context");
    std::fs::write(context.join(".dockerignore"), "x\ny\n").expect("ignore file");
    let options = EngineOptions {
        state_dir: dir.path().join("state"),
        launcher: (PathBuf::from("/proc/self/exe"), "none".to_owned()),
        runtime: None,
        search: Vec::new(),
        user_namespace: None,
        record_aliases: true,
        wait: true,
        owner: "test".to_owned(),
        boot_id: None,
        limits: Default::default(),
        policies: Vec::new(),
    };
    let events = Arc::clone(log) as Arc<dyn EventSink>;
    let engine = Engine::open(options, Arc::clone(&events)).await.expect("opened");
    let request = BuildRequest {
        definition: DefinitionSource::Inline { name: "test".to_owned(), data: Vec::new() },
        options: Attrs::default(),
        targets: Vec::new(),
        platforms: Vec::new(),
        contexts: BTreeMap::new(),
        tags: Vec::new(),
        outputs: Vec::new(),
        identify: false,
        pull: false,
        no_cache: false,
        source_date_epoch: None,
        network: DefaultNetwork::Host,
        add_hosts: Vec::new(),
        allow: Default::default(),
        max_parallelism: None,
        cache_from: Vec::new(),
        cache_to: Vec::new(),
        cache_mounts: BTreeMap::new(),
        explain: false,
        keyed_secrets: Default::default(),
    };
    let frontend = Reader::Frontend(Arc::new(Curious));
    let plugins = Plugins {
        frontend,
        runners: Vec::new(),
        caches: Vec::new(),
        remotes: BTreeMap::new(),
        nested: Arc::new(|name: &str| Err(Failure::not_found(format!("no frontend {name}")))),
    };
    let session = Arc::new(Client(context));
    engine.describe(request, query, session, plugins, events, CancellationToken::new()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contexts_may_be_looked_at_and_nothing_is_built() {
    let log = Arc::new(Log::default());
    let report = ask(Query::Targets, &log).await.expect("answered");
    let Description::Targets { targets } = &report.description else { panic!("{report:?}") };
    assert_eq!(targets[0].name, "t");
    assert_eq!(report.sources.get(0).expect("registered").name, "Testfile");
    assert_eq!(report.stats.steps_run, 0, "reading a context is no step: it has no name");
    let events = log.0.lock().expect("log");
    let found = events.iter().any(
        |event| matches!(event, Event::Diagnostic { diagnostic } if diagnostic.message == "found"),
    );
    assert!(found, "{events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_fails_has_its_failure() {
    let log = Arc::new(Log::default());
    let error = ask(Query::Methods, &log).await.expect_err("failed");
    assert_eq!(error.failure.message, "asked for it");
    assert_eq!(error.step, None);
}
