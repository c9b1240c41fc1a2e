//! What `--progress json` writes: every kind of event, pinned, and that the page about them says so.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use wbuild_api::event::{
    BuildReport, BuildStats, Event, ImageDescriptor, ImageReport, StepEnd, StepId,
};
use wbuild_api::explain::{Change, Explanation, FileChange, FileChangeKind, KeyKind, RecordSource};
use wbuild_cli::answer::lint::Findings;
use wbuild_cli::exit::Exit;
use wbuild_cli::progress::json;
use wbuild_graph::{
    Attrs, CacheKey, Diagnostic, Digest, Failure, FailureKind, Label, Severity, SourceMap, Span,
};

/// The number of a kind of event: a new kind does not compile until it has one here.
fn kind(event: &Event) -> usize {
    match event {
        Event::StepDefined { .. } => 0,
        Event::StepStarted { .. } => 1,
        Event::StepLog { .. } => 2,
        Event::StepProgress { .. } => 3,
        Event::StepWarning { .. } => 4,
        Event::StepExplained { .. } => 5,
        Event::StepEnded { .. } => 6,
        Event::Diagnostic { .. } => 7,
        Event::PluginLog { .. } => 8,
        Event::Evicted { .. } => 9,
        Event::Waiting { .. } => 10,
    }
}
const KINDS: usize = 11;

fn text(text: &str) -> String {
    text.to_owned()
}

fn diagnostic() -> Diagnostic {
    let at = Span { source: 0, start: 3, end: 7 };
    Diagnostic {
        severity: Severity::Warning,
        code: Some(text("JSONArgsRecommended")),
        message: text("a message"),
        labels: vec![Label { at, text: text("here"), primary: true }],
        help: Some(text("do this")),
        url: Some(text("https://example.org/rule")),
        attrs: Attrs(vec![(text("detail"), text("what the rule is"))]),
    }
}

fn failure() -> Failure {
    let mut failure = Failure::new(FailureKind::ExecFailed, "process \"make\" failed")
        .hint("try this")
        .attr("exit-code", "2");
    failure.causes.push(text("it ended with 2"));
    failure.diagnostics.push(diagnostic());
    failure
}

fn every_event() -> Vec<Event> {
    let step = StepId(1);
    let key = CacheKey(Digest::of(b"key"));
    let value = |before: Option<&str>, after: Option<&str>| Change::Value {
        name: text("command"),
        before: before.map(text),
        after: after.map(text),
    };
    let explained = |why| Event::StepExplained { step, why };
    let found =
        |by, from| explained(Explanation::Found { by, key, from, made: Some(1_700_000_000) });
    let ended = |how, from| Event::StepEnded { step, how, from, at_ms: 9 };
    let log = |stream, data: &[u8]| Event::StepLog { step, stream, data: data.into(), at_ms: 5 };
    let files = vec![
        FileChange { path: text("src/a"), how: FileChangeKind::New },
        FileChange { path: text("src/b"), how: FileChangeKind::Gone },
        FileChange { path: text("src/c"), how: FileChangeKind::Content },
        FileChange { path: text("src/d/"), how: FileChangeKind::Metadata },
    ];
    let changes = vec![
        value(Some("make"), Some("make all")),
        value(None, Some("new")),
        value(Some("old"), None),
        Change::Hidden { name: text("variable TOKEN") },
        Change::Input { role: text("base"), before: text("a"), after: text("b") },
        Change::Files { of: text("the build context ."), files, more: 3 },
        Change::Other,
    ];
    vec![
        Event::Waiting { holder: text("pid 7: wbuild build .") },
        Event::StepDefined {
            step,
            name: text("[build 2/3] RUN make"),
            spans: vec![Span { source: 0, start: 12, end: 20 }],
        },
        Event::StepStarted { step, at_ms: 4 },
        log(1, b"cc -c \"a.c\"\n"),
        log(2, b"\xff\xfe"),
        Event::StepProgress { step, item: text("sha256:1"), current: 10, total: Some(20) },
        Event::StepProgress { step, item: text("context"), current: 10, total: None },
        Event::StepWarning { step, diagnostic: diagnostic() },
        found(KeyKind::Definition, RecordSource::Local),
        found(KeyKind::Result, RecordSource::ThisBuild),
        found(KeyKind::Result, RecordSource::Backend),
        found(KeyKind::Result, RecordSource::Elsewhere(text("cache.example/x"))),
        explained(Explanation::NotNeeded),
        explained(Explanation::CacheIgnored),
        explained(Explanation::New),
        explained(Explanation::Gone { made: 1_700_000_000 }),
        explained(Explanation::Changed { made: 1_700_000_000, changes }),
        ended(StepEnd::Done, None),
        ended(StepEnd::Cached, None),
        ended(StepEnd::Cached, Some(text("cache.example/x"))),
        ended(StepEnd::Cancelled, None),
        ended(StepEnd::Failed(failure()), None),
        Event::Diagnostic { diagnostic: diagnostic() },
        Event::PluginLog {
            plugin: text("dockerfile"),
            severity: Severity::Note,
            text: text("it says this"),
        },
        Event::Evicted {
            freed_bytes: 1,
            recent_bytes: 2,
            used_bytes: 3,
            max_bytes: Some(4),
            min_free_bytes: 5,
        },
    ]
}

/// The lines of a build in which everything happens, and both ways in which it can end.
fn lines() -> String {
    let events = every_event();
    let kinds: BTreeSet<usize> = events.iter().map(kind).collect();
    assert_eq!(kinds, (0..KINDS).collect(), "every kind of event is here");
    let mut out = json::begin();
    events.iter().for_each(|event| out.push_str(&json::line(event)));
    let descriptor = ImageDescriptor {
        media_type: text("application/vnd.oci.image.manifest.v1+json"),
        digest: Digest::of(b"manifest"),
        size: 7,
        annotations: BTreeMap::from([(text("a"), text("b"))]),
    };
    let image = ImageReport {
        image: text("+app"),
        names: vec![text("example.org/app:1")],
        digest: Some(Digest::of(b"manifest")),
        config: Some(Digest::of(b"config")),
        descriptor: Some(descriptor),
    };
    let sources = SourceMap::default();
    let stats = BuildStats { steps_run: 1, total_ms: 2, ..BuildStats::default() };
    let report = BuildReport { images: vec![image], sources: sources.clone(), stats };
    out.push_str(&json::succeeded(&report, &Findings::of(&[], &sources)));
    out.push_str(&json::failed(&failure(), Some(StepId(1)), Exit::Failed, "error: …\n"));
    out
}

#[test]
fn every_kind_of_event() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/events/all.jsonl");
    common::Goldens::default().check(&path, &lines());
}

/// Names of events and of objects on the page, with the keys that it gives them; those of events with
/// `event ` before them.
fn page() -> BTreeMap<String, BTreeSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.md");
    let page = std::fs::read_to_string(path).expect("the page");
    assert!(page.contains(&format!("version {}", json::VERSION)), "the page has the version");
    let words = |cell: &str| -> BTreeSet<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let row = |before: &str, line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = format!("{before}{}", cells.next()?.trim_end_matches('`'));
        Some((name, words(cells.next()?)))
    };
    let (events, values) = page.split_once("## Values").expect("two parts");
    let events = events.lines().filter_map(|line| row("event ", line));
    events.chain(values.lines().filter_map(|line| row("", line))).collect()
}

/// The keys of objects by what they are: an event by its name, others by the key that holds them.
fn collect(name: &str, value: &Value, out: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        Value::Array(list) => list.iter().for_each(|item| collect(name, item, out)),
        Value::Object(object) => {
            let keys = object.keys().filter(|key| *key != "event").cloned();
            out.entry(name.to_owned()).or_default().extend(keys);
            for (key, value) in object {
                let kind = match key.as_str() {
                    "spans" | "at" => "span",
                    "diagnostics" => "diagnostic",
                    "labels" => "label",
                    "failed" => "failure",
                    "images" => "image",
                    "changes" => "change",
                    "files" => "file",
                    // Theirs, or a name in one of the forms that a value has.
                    "annotations" | "how" | "from" => match value.get("failed") {
                        Some(failed) => {
                            collect("failure", failed, out);
                            continue;
                        }
                        None => continue,
                    },
                    other => other,
                };
                collect(kind, value, out);
            }
        }
        _ => {}
    }
}

#[test]
fn the_page_names_what_there_is() {
    let mut there = BTreeMap::new();
    for line in lines().lines() {
        let value: Value = serde_json::from_str(line).expect("JSON");
        let name = value["event"].as_str().expect("a name").to_owned();
        collect(&format!("event {name}"), &value, &mut there);
    }
    let page = page();
    let names = |map: &BTreeMap<String, BTreeSet<String>>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&page), names(&there));
    for (name, keys) in &there {
        assert_eq!(&page[name], keys, "of {name}");
    }
}
