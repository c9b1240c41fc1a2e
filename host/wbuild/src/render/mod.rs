//! Failures and messages for people, with the lines of the definition that they are about.
//!
//! A failed build ends with the step's last output, the message, the excerpt of the source, causes
//! and hints, in this order, and nothing after it. Rendering is pure: values in, text out.

pub mod excerpt;
pub mod style;
pub mod text;

use std::fmt::Write as _;

use wbuild_graph::{Diagnostic, Failure, Label, Severity, SourceMap, Span};

use excerpt::{Excerpt, Mark};
use style::{Paint, Style};
use text::{plain, plain_line};

/// A step's output is shown whole up to here, in lines; the report shows the end of longer ones.
pub const SHORT: usize = 30;
/// Lines shown of a longer output.
const TAIL: usize = 20;
/// Notes that a failure may bring along; what is beyond is counted.
const MAX_NOTES: usize = 20;

/// The step that failed, as far as a display knows it.
#[derive(Clone, Debug, Default)]
pub struct FailedStep {
    /// In the order of definition, from 1.
    pub number: usize,
    /// Free of control characters.
    pub name: String,
    /// Where the source says so.
    pub spans: Vec<Span>,
    /// The last lines of its output.
    pub tail: Vec<Vec<u8>>,
    /// Lines of output in all.
    pub lines: u64,
}

/// How a failed build ends.
pub struct Report<'a> {
    /// Colours or none.
    pub style: Style,
    /// For excerpts.
    pub sources: &'a SourceMap,
    /// The output of steps has been shown in full above the report.
    pub output_was_shown: bool,
}

impl Report<'_> {
    /// A failure, with the step that failed if there is one.
    pub fn failure(&self, failure: &Failure, step: Option<&FailedStep>) -> String {
        let mut out = String::new();
        if let Some(step) = step {
            self.output(step, &mut out);
        }
        let message = message(failure, step);
        let heading = self.style.paint(Paint::Error, "error");
        let _ = writeln!(out, "{heading}: {}", self.style.paint(Paint::Strong, &message));

        let errors: Vec<&Diagnostic> = failure.diagnostics.iter().take(MAX_NOTES).collect();
        if errors.iter().all(|diagnostic| diagnostic.labels.is_empty()) {
            // Nothing points anywhere: the step's own place does.
            let spans = step.map_or(&[][..], |step| &step.spans);
            self.places(spans, &mut out);
        }
        for diagnostic in &errors {
            // The message of the only diagnostic is often the failure's.
            if diagnostic.message != failure.message {
                let _ = writeln!(out, "{}", self.headline(diagnostic));
            }
            self.labels(diagnostic, 2, &mut out);
            self.notes(diagnostic, &mut out);
        }
        if failure.diagnostics.len() > MAX_NOTES {
            let _ = writeln!(out, "  … and {} more", failure.diagnostics.len() - MAX_NOTES);
        }
        for cause in &failure.causes {
            self.note("cause", Paint::Note, cause, &mut out);
        }
        if let Some(status) = unsaid_status(failure) {
            self.note("status", Paint::Note, &status, &mut out);
        }
        let mut hints: Vec<&str> = failure.hints.iter().map(String::as_str).collect();
        if hints.is_empty() {
            hints.extend(status_hint(failure));
        }
        for hint in hints {
            self.note("hint", Paint::Hint, hint, &mut out);
        }
        out
    }

    /// Messages about the sources, one after the other; of several kinds the gravest come last, next
    /// to where people look.
    pub fn diagnostics(&self, diagnostics: &[Diagnostic]) -> String {
        let mut sorted: Vec<&Diagnostic> = diagnostics.iter().collect();
        // `Severity` sorts by gravity, the gravest first; the sort keeps the order of equals.
        sorted.sort_by_key(|diagnostic| std::cmp::Reverse(diagnostic.severity));
        let mut out = String::new();
        for diagnostic in sorted {
            let _ = writeln!(out, "{}", self.headline(diagnostic));
            self.labels(diagnostic, 0, &mut out);
            self.notes(diagnostic, &mut out);
            out.push('\n');
        }
        out
    }

    fn headline(&self, diagnostic: &Diagnostic) -> String {
        let (word, paint) = grade(diagnostic.severity);
        let code = match &diagnostic.code {
            Some(code) => format!("[{}]", plain_line(code.as_bytes())),
            None => String::new(),
        };
        let message = plain(&diagnostic.message);
        let word = self.style.paint(paint, &format!("{word}{code}"));
        format!("{word}: {}", self.style.paint(Paint::Strong, &message))
    }

    fn output(&self, step: &FailedStep, out: &mut String) {
        let lines: Vec<String> = step.tail.iter().map(|line| plain_line(line)).collect();
        if lines.is_empty() {
            return;
        }
        let total = usize::try_from(step.lines).unwrap_or(usize::MAX);
        let whole = total <= SHORT && lines.len() == total;
        let shown = if whole { &lines[..] } else { &lines[lines.len().saturating_sub(TAIL)..] };
        let bar = self.style.paint(Paint::Frame, "|");
        let _ = writeln!(
            out,
            "{}",
            self.style.paint(Paint::Strong, &format!("#{} {}", step.number, step.name))
        );
        if !whole {
            let place = if self.output_was_shown { "; all of it is above" } else { "" };
            let note = format!("  (the last {} of {total} lines{place})", shown.len());
            let _ = writeln!(out, "{}", self.style.paint(Paint::Dim, &note));
        }
        for line in shown {
            let _ = writeln!(out, "  {bar} {line}");
        }
        out.push('\n');
    }

    /// Excerpts of the places that made a step.
    fn places(&self, spans: &[Span], out: &mut String) {
        let labels: Vec<Label> =
            spans.iter().map(|at| Label { at: *at, text: String::new(), primary: true }).collect();
        self.excerpts(&labels, 2, Mark::Lines, Paint::Error, out);
    }

    fn labels(&self, diagnostic: &Diagnostic, context: usize, out: &mut String) {
        let mark = match diagnostic.severity {
            Severity::Error => Mark::LinesAndCarets,
            Severity::Warning | Severity::Note | Severity::Help => Mark::Carets,
        };
        let (_, paint) = grade(diagnostic.severity);
        self.excerpts(&diagnostic.labels, context, mark, paint, out);
    }

    /// One excerpt for each source, the source of the first primary label first.
    fn excerpts(
        &self,
        labels: &[Label],
        context: usize,
        mark: Mark,
        paint: Paint,
        out: &mut String,
    ) {
        let mut order: Vec<u32> = Vec::new();
        let (primary, related): (Vec<&Label>, Vec<&Label>) =
            labels.iter().partition(|label| label.primary);
        for label in primary.iter().chain(&related) {
            if !order.contains(&label.at.source) {
                order.push(label.at.source);
            }
        }
        for index in order {
            // A span into a source that nobody registered has nothing to show.
            let Some(source) = self.sources.get(index) else { continue };
            let labels: Vec<&Label> =
                labels.iter().filter(|label| label.at.source == index).collect();
            Excerpt { style: self.style, source, labels, context, mark, paint }.render(out);
        }
    }

    fn notes(&self, diagnostic: &Diagnostic, out: &mut String) {
        if let Some(detail) = diagnostic.attrs.get("detail") {
            self.note("note", Paint::Note, detail, out);
        }
        if let Some(help) = &diagnostic.help {
            self.note("help", Paint::Hint, help, out);
        }
        if let Some(url) = &diagnostic.url {
            self.note("see", Paint::Note, url, out);
        }
    }

    fn note(&self, word: &str, paint: Paint, text: &str, out: &mut String) {
        let indent = " ".repeat(word.len() + 4);
        for (index, line) in plain(text.trim_end()).lines().enumerate() {
            let _ = match index {
                0 => writeln!(out, "  {}: {line}", self.style.paint(paint, word)),
                _ => writeln!(out, "{indent}{line}"),
            };
        }
    }
}

/// What failed, with the step unless the message names it. A message that holds the step's command
/// (`process "/bin/sh -c make" …` of `[2/2] RUN make`) needs only the place before it.
fn message(failure: &Failure, step: Option<&FailedStep>) -> String {
    let message = plain(&failure.message);
    let Some(name) = step.map(|step| step.name.as_str()) else { return message };
    if message.contains(name) {
        return message;
    }
    let place = name.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match place {
        Some((place, rest)) => match rest.split_once(' ') {
            Some((verb, command)) if message.contains(command) => {
                format!("[{place}] {verb}: {message}")
            }
            _ => format!("{name}: {message}"),
        },
        None => format!("{name}: {message}"),
    }
}

/// The word and the colour of a severity.
fn grade(severity: Severity) -> (&'static str, Paint) {
    match severity {
        Severity::Error => ("error", Paint::Error),
        Severity::Warning => ("warning", Paint::Warning),
        Severity::Note => ("note", Paint::Note),
        Severity::Help => ("help", Paint::Hint),
    }
}

/// The exit code or signal of a failed process, unless the message says it already.
fn unsaid_status(failure: &Failure) -> Option<String> {
    let said = |number: &str| {
        let texts = std::iter::once(&failure.message).chain(&failure.causes);
        texts.flat_map(|text| text.split(|c: char| !c.is_ascii_digit())).any(|word| word == number)
    };
    for (key, words) in [("exit-code", "exit code"), ("signal", "ended by signal")] {
        if let Some(number) = failure.attrs.get(key)
            && !said(number)
        {
            return Some(format!("{words} {}", plain_line(number.as_bytes())));
        }
    }
    None
}

/// What exit codes usually mean by the conventions of shells and of the kernel.
fn status_hint(failure: &Failure) -> Option<&'static str> {
    match failure.attrs.get("exit-code")? {
        "126" => Some("126 usually says that a file was found but cannot be executed"),
        "127" => Some("127 usually says that a command was not found in the image"),
        "137" => Some("137 usually says that the process was killed, often for lack of memory"),
        "139" => Some("139 usually says that the process accessed memory it must not"),
        _ => None,
    }
}
