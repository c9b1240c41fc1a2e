//! What a check has found, and the same for the warnings of a build.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use wbuild_graph::{Diagnostic, Failure, Severity, SourceMap};

use super::{all, compact, location};
use crate::report::Report;
use crate::report::style::{Paint, Style};
use crate::{terminal, units};

/// The findings of a check.
pub struct Findings<'a> {
    /// In the order they were reported.
    warnings: Vec<&'a Diagnostic>,
    sources: &'a SourceMap,
}

impl<'a> Findings<'a> {
    /// Of all messages those that are findings.
    pub fn of(diagnostics: &'a [Diagnostic], sources: &'a SourceMap) -> Self {
        let is_finding = |diagnostic: &&Diagnostic| {
            matches!(diagnostic.severity, Severity::Warning | Severity::Error)
        };
        Findings { warnings: diagnostics.iter().filter(is_finding).collect(), sources }
    }

    /// Whether a message is one of the findings.
    pub fn contains(&self, diagnostic: &Diagnostic) -> bool {
        self.warnings.iter().any(|found| **found == *diagnostic)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.warnings.is_empty()
    }

    /// `frontend.lint`: warnings, sources, and why the definition cannot be built, if it cannot.
    pub fn json(&self, failure: Option<&Failure>) -> Value {
        let mut out = json!({"warnings": self.warnings_json(), "sources": self.sources_json()});
        if let (Some(failure), Value::Object(object)) = (failure, &mut out) {
            let place = failure.diagnostics.iter().find_map(|found| self.location(found));
            let location = place.unwrap_or_else(nowhere);
            let error = json!({"message": failure.message, "location": location});
            object.insert("buildError".to_owned(), error);
        }
        out
    }

    /// The warnings alone.
    pub fn warnings_json(&self) -> Vec<Value> {
        let warning = |found: &&Diagnostic| {
            let mut warning = compact(json!({
                "description": found.attrs.get("detail"),
                "url": found.url,
                "detail": found.message,
                "location": self.location(found).unwrap_or_else(nowhere),
            }));
            if let Value::Object(object) = &mut warning {
                let rule = found.code.clone().unwrap_or_default();
                object.shift_insert(0, "ruleName".to_owned(), rule.into());
            }
            warning
        };
        self.warnings.iter().map(warning).collect()
    }

    /// The sources that places are in.
    pub fn sources_json(&self) -> Vec<Value> {
        let source = |source: &wbuild_graph::SourceFile| {
            compact(json!({
                "filename": source.name,
                "language": source.language,
                "data": STANDARD.encode(&source.text),
            }))
        };
        all(self.sources).map(source).collect()
    }

    fn location(&self, found: &Diagnostic) -> Option<Value> {
        let label = found.labels.iter().find(|label| label.primary).or(found.labels.first())?;
        location(label.at, self.sources)
    }

    /// The findings with the lines they are about, by place, below a line that counts them.
    pub fn text(&self, style: Style) -> String {
        let mut sorted: Vec<Diagnostic> =
            self.warnings.iter().map(|found| (*found).clone()).collect();
        let place = |found: &Diagnostic| {
            let label = found.labels.first()?;
            Some((self.sources.get(label.at.source)?.name.clone(), label.at.start))
        };
        sorted.sort_by_key(place);
        let name = match self.sources.get(0) {
            Some(source) => format!("{}: ", terminal::plain_line(source.name.as_bytes())),
            None => String::new(),
        };
        let report = Report { style, sources: self.sources, output_was_shown: true };
        let listed = report.diagnostics(&sorted);
        let gap = if sorted.is_empty() { "" } else { "\n" };
        format!("{name}{}\n{gap}{}", count(sorted.len()), listed.trim_end_matches('\n'))
            + if sorted.is_empty() { "" } else { "\n" }
    }

    /// A line for each finding, below one that counts them; nothing if there is none.
    pub fn summary(&self, style: Style) -> String {
        if self.is_empty() {
            return String::new();
        }
        let heading = format!("{} (--debug shows more):", count(self.warnings.len()));
        let mut out = format!("{}\n", style.paint(Paint::Warning, &heading));
        for found in &self.warnings {
            let rule = match &found.code {
                Some(code) => format!("{}: ", terminal::plain_line(code.as_bytes())),
                None => String::new(),
            };
            let message = terminal::plain(&found.message).replace('\n', " ");
            out.push_str(&format!(" - {rule}{message}{}\n", self.place(found)));
        }
        out
    }

    /// ` (Dockerfile:3)`
    fn place(&self, found: &Diagnostic) -> String {
        let label = found.labels.iter().find(|label| label.primary).or(found.labels.first());
        let source = label.and_then(|label| Some((label, self.sources.get(label.at.source)?)));
        let Some((label, source)) = source else { return String::new() };
        let name = terminal::plain_line(source.name.as_bytes());
        format!(" ({name}:{})", source.position(label.at.start).line)
    }
}

/// The place of what has none: consumers expect one, and know a negative index.
fn nowhere() -> Value {
    json!({"sourceIndex": -1, "ranges": []})
}

fn count(warnings: usize) -> String {
    match warnings {
        0 => "no warnings found".to_owned(),
        some => format!("{} found", units::count(some, "warning")),
    }
}
