//! A frontend is not run while it would be told the same.

mod place;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use place::{Place, copy_of_context, local, privileged};
use wbuild_engine::event::Event;
use wbuild_engine::extension::FrontendHost;
use wbuild_engine::request::DefinitionSource;
use wbuild_graph::{Attrs, Diagnostic, Failure, Label, Severity, SourceFile, Span};

/// Copies a file, and asks for an option and for another file; counts its runs.
fn curious(
    runs: Arc<AtomicUsize>,
) -> impl Fn(&FrontendHost) -> Result<(), Failure> + Send + Sync + 'static {
    move |host| {
        runs.fetch_add(1, Ordering::SeqCst);
        let text = host.request.definition()?.data;
        let source = SourceFile {
            name: "test".to_owned(),
            language: String::new(),
            text: text.as_slice().into(),
        };
        let source = host.diagnostics.add_source(source)?;
        let at = Span { source, start: 0, end: 1 };
        host.diagnostics.report(Diagnostic {
            severity: Severity::Warning,
            code: Some("strange".to_owned()),
            message: "this is strange".to_owned(),
            labels: vec![Label { at, text: String::new(), primary: true }],
            help: None,
            url: None,
            attrs: Attrs::default(),
        })?;
        let context = local(host);
        let asked = async {
            host.request.opt("build-arg:A".to_owned()).await;
            host.inspect.read_file(context, "read".to_owned(), 0, 100).await
        };
        let read =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(asked));
        match read {
            Ok(_) => {}
            Err(failure) if failure.kind == wbuild_graph::FailureKind::NotFound => {}
            Err(failure) => return Err(failure),
        }
        copy_of_context(host)
    }
}

struct Memo {
    place: Place,
    runs: Arc<AtomicUsize>,
}

impl Memo {
    fn new() -> Memo {
        let place = Place::new();
        place.write("f", "file");
        Memo { place, runs: Arc::default() }
    }

    fn define(&mut self, text: &str) {
        let (name, data) = ("test".to_owned(), text.as_bytes().to_vec());
        self.place.request.definition = DefinitionSource::Inline { name, data };
    }

    /// Builds, and demands that the frontend was run, or was not.
    async fn build(&mut self, run: bool, why: &str) {
        let before = self.runs.load(Ordering::SeqCst);
        let report = self
            .place
            .build_as("curious".to_owned(), curious(Arc::clone(&self.runs)))
            .await
            .expect("built");
        assert_eq!(self.runs.load(Ordering::SeqCst) - before, usize::from(run), "{why}");
        assert_eq!(report.stats.frontend_memo_hit, !run, "{why}");
        let log = self.place.log.0.lock().expect("log");
        let told = log.iter().filter(|event| matches!(event, Event::Diagnostic { .. })).count();
        assert_eq!(told, 1, "{why}: the user is told once, whether it was run or not");
        assert_eq!(report.sources.len(), 1, "{why}: what a trace has added is taken back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frontend_runs_again_when_an_answer_changes_and_only_then() {
    if !privileged("a_frontend_runs_again_when_an_answer_changes_and_only_then") {
        return;
    }
    let mut memo = Memo::new();
    memo.build(true, "it never ran").await;
    memo.build(false, "nothing has changed").await;
    memo.define("two");
    memo.build(true, "the definition has changed").await;
    memo.build(false, "nothing has changed since").await;
    memo.place.write("read", "now it is there");
    memo.build(true, "a file it looked for is there").await;
    memo.place.write("read", "and different");
    memo.build(true, "a file it read has changed").await;
    memo.build(false, "nothing has changed after that").await;
    memo.place.write("f", "other");
    memo.build(false, "it did not read the file that is copied").await;
    memo.place.request.options.push("build-arg:A", "1");
    memo.build(true, "an option has changed").await;
    memo.place.request.options = Attrs::default();
    memo.build(false, "that trace was kept beside").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_trace_costs_a_run() {
    if !privileged("a_damaged_trace_costs_a_run") {
        return;
    }
    let mut memo = Memo::new();
    memo.build(true, "it never ran").await;
    let contexts = memo.place.path("state").join("contexts");
    let mut damaged = 0;
    for entry in std::fs::read_dir(&contexts).expect("documents") {
        let path = entry.expect("entry").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("memo-")) {
            let mut bytes = std::fs::read(&path).expect("trace");
            *bytes.last_mut().expect("a byte") ^= 1;
            std::fs::write(&path, bytes).expect("written");
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    memo.build(true, "the trace is damaged").await;
    memo.build(false, "it was written anew").await;
}
