//! What came of a run, as text that can be kept and compared.

use std::fmt::Write as _;

use wbuild_api::yielded::Yielded;
use wbuild_graph::dump::dump;
use wbuild_graph::{Definition, Diagnostic, Edge, Failure, Platform, Severity, SourceMap};

use crate::bench::{Bench, lock};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The graph, with what nothing needs.
    pub graph: Definition,
    /// Sources of diagnostics.
    pub sources: SourceMap,
    /// What was reported.
    pub reports: Vec<Diagnostic>,
    /// Lines for the user.
    pub log: Vec<(Severity, String)>,
    /// How it ended.
    pub result: Result<(), Failure>,
    results: String,
}

impl Snapshot {
    pub(crate) fn take(bench: &Bench, result: Result<(), Failure>) -> Snapshot {
        let texts = lock(&bench.texts);
        let result = result.map_err(|mut failure| {
            texts.resolve_failure(&mut failure);
            failure
        });
        Snapshot {
            graph: lock(&bench.definition).clone(),
            sources: texts.sources().clone(),
            reports: lock(&bench.reports).clone(),
            log: lock(&bench.log).clone(),
            result,
            results: results(&lock(&bench.yielded)),
        }
    }

    /// All of it, in sections; one that has nothing in it is left out.
    pub fn text(&self) -> String {
        let mut out = String::new();
        section(&mut out, "graph", &dump(&self.graph));
        section(&mut out, "results", &self.results);
        let mut said = String::new();
        self.reports.iter().for_each(|report| diagnostic(&mut said, report, &self.sources));
        section(&mut out, "diagnostics", &said);
        if let Err(failure) = &self.result {
            section(&mut out, "failure", &self::failure(failure, &self.sources));
        }
        let mut log = String::new();
        for (severity, text) in &self.log {
            let _ = writeln!(log, "{}: {text}", severity_name(*severity));
        }
        section(&mut out, "log", &log);
        out
    }

    /// The graph alone.
    pub fn graph_text(&self) -> String {
        dump(&self.graph)
    }

    /// The failure as people see it.
    ///
    /// # Panics
    ///
    /// When the build succeeded.
    pub fn expect_failure(&self) -> String {
        match &self.result {
            Ok(()) => panic!("the build succeeded:\n{}", self.text()),
            Err(failure) => self::failure(failure, &self.sources),
        }
    }

    /// That it succeeded.
    ///
    /// # Panics
    ///
    /// When it did not.
    #[must_use]
    pub fn expect_success(self) -> Snapshot {
        if self.result.is_err() {
            panic!("the build failed: {}", self.expect_failure());
        }
        self
    }
}

fn section(out: &mut String, name: &str, text: &str) {
    if !text.is_empty() {
        let _ = write!(out, "{}== {name}\n{text}", if out.is_empty() { "" } else { "\n" });
    }
}

/// An output, as graphs name it.
pub(crate) fn edge(at: Edge) -> String {
    match at.index {
        0 => format!("#{}", at.node.0),
        index => format!("#{}.{index}", at.node.0),
    }
}

fn of(platform: Option<&Platform>) -> String {
    platform.map(|platform| format!(" {platform}")).unwrap_or_default()
}

fn results(yielded: &Yielded) -> String {
    let mut out = String::new();
    let whole = yielded.whole();
    for part in whole.images.iter().flat_map(|image| &image.parts) {
        let root = part.root.map_or("nothing".to_owned(), edge);
        let _ = writeln!(out, "image {:?}{} {root}", part.name, of(part.platform.as_ref()));
        for (key, value) in part.attrs.iter() {
            let _ = writeln!(out, "  {key} {value}");
        }
        match serde_json::from_str::<serde_json::Value>(&part.config) {
            Ok(config) => {
                let pretty = serde_json::to_string_pretty(&config).unwrap_or_default();
                pretty.lines().for_each(|line| {
                    let _ = writeln!(out, "  {line}");
                });
            }
            Err(_) => {
                let _ = writeln!(out, "  {}", part.config);
            }
        }
    }
    for files in &whole.files {
        let (root, platform) = (edge(files.root), of(files.platform.as_ref()));
        let _ = writeln!(out, "files {:?}{platform} {root} {}", files.name, files.path);
        for (key, value) in files.attrs.iter() {
            let _ = writeln!(out, "  {key} {value}");
        }
    }
    for (what, edges) in [("require", yielded.required()), ("effect", yielded.effects())] {
        for at in edges {
            let _ = writeln!(out, "{what} {}", edge(*at));
        }
    }
    if let Some(at) = yielded.fails() {
        let _ = writeln!(out, "fail-after {}", edge(at));
    }
    out
}

pub(crate) fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
        Severity::Help => "help",
    }
}

pub(crate) fn diagnostic(out: &mut String, told: &Diagnostic, sources: &SourceMap) {
    let code = told.code.as_ref().map(|code| format!("[{code}]")).unwrap_or_default();
    let _ = writeln!(out, "{}{code}: {}", severity_name(told.severity), told.message);
    places(out, told, sources);
}

fn places(out: &mut String, told: &Diagnostic, sources: &SourceMap) {
    for label in &told.labels {
        let place = match sources.get(label.at.source) {
            Some(source) => {
                let from = source.position(label.at.start);
                let to = (label.at.end as usize).min(source.text.len());
                let text = source.text.get(label.at.start as usize..to).unwrap_or_default();
                let text = String::from_utf8_lossy(text);
                let line = text.lines().next().unwrap_or_default();
                format!("{}:{}:{} `{line}`", source.name, from.line, from.column)
            }
            None => "nowhere".to_owned(),
        };
        let arrow = if label.primary { "-->" } else { "..." };
        let text = if label.text.is_empty() { String::new() } else { format!(" {}", label.text) };
        let _ = writeln!(out, "  {arrow} {place}{text}");
    }
    for (name, text) in [("help", &told.help), ("url", &told.url)] {
        if let Some(text) = text {
            let _ = writeln!(out, "  {name}: {text}");
        }
    }
}

/// A failure, with its places.
pub(crate) fn failure(failure: &Failure, sources: &SourceMap) -> String {
    let mut out = format!("{}: {}\n", failure.kind.as_str(), failure.message);
    for cause in &failure.causes {
        let _ = writeln!(out, "  because: {cause}");
    }
    for hint in &failure.hints {
        let _ = writeln!(out, "  hint: {hint}");
    }
    for told in &failure.diagnostics {
        if told.message != failure.message {
            let _ = writeln!(out, "  {}: {}", severity_name(told.severity), told.message);
        }
        places(&mut out, told, sources);
    }
    out
}
