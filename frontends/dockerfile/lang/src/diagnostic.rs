//! Messages about places in a source, and failures that carry them.
//!
//! The shapes follow wit/types, so that a component converts them field by field.

use std::borrow::Cow;

use crate::{Code, Span};

/// What a diagnostic is about: each language has a closed set of these.
pub trait Coded {
    /// The name that users see.
    fn name(&self) -> &'static str;

    /// Where it is explained, if there is such a place.
    fn url(&self) -> Option<String> {
        None
    }
}

/// What a finding of the build checks is about: each language has a closed set of rules.
pub trait CheckRule: Coded + Copy + Ord + 'static {
    /// Every rule.
    const ALL: &'static [Self];

    /// What the rule asks for, in one sentence.
    fn summary(&self) -> &'static str;

    /// It is not looked at unless the settings ask for it.
    fn experimental(&self) -> bool;

    /// The rule of a name.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rule| rule.name() == name)
    }
}

/// How grave a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The build cannot go on.
    Error,
    /// The build goes on; the result may not be what was meant.
    Warning,
    /// Information.
    Note,
    /// Advice.
    Help,
}

/// A place with a text beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub at: Span,
    /// What is to be said of this place; may be empty.
    pub text: String,
    /// The place the message is about, as opposed to a related one.
    pub primary: bool,
}

/// A message about places in the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// See [`Severity`].
    pub severity: Severity,
    /// Stable machine name: that of a [`Code`], e.g. `unknown-flag`, or of a lint rule.
    pub code: Cow<'static, str>,
    /// One sentence without a trailing period.
    pub message: String,
    /// Places.
    pub labels: Vec<Label>,
    /// What to do about it.
    pub help: Option<String>,
    /// Where to read more.
    pub url: Option<String>,
    /// See wit/types, `diagnostic.attrs`.
    pub attrs: Vec<(String, String)>,
}

impl Diagnostic {
    fn new(severity: Severity, code: &'static str, at: Span, message: impl Into<String>) -> Self {
        let labels = vec![Label { at, text: String::new(), primary: true }];
        Diagnostic {
            severity,
            code: Cow::Borrowed(code),
            message: message.into(),
            labels,
            help: None,
            url: None,
            attrs: Vec::new(),
        }
    }

    /// An error at a place.
    pub fn error(code: impl Coded, at: Span, message: impl Into<String>) -> Self {
        Diagnostic { url: code.url(), ..Self::new(Severity::Error, code.name(), at, message) }
    }

    /// A finding of the build checks at a place.
    pub fn warning(rule: impl CheckRule, at: Span, message: impl Into<String>) -> Self {
        Diagnostic {
            url: rule.url(),
            attrs: vec![("detail".to_owned(), rule.summary().to_owned())],
            ..Self::new(Severity::Warning, rule.name(), at, message)
        }
    }

    /// A note at a place.
    pub fn note(code: impl Coded, at: Span, message: impl Into<String>) -> Self {
        Diagnostic { url: code.url(), ..Self::new(Severity::Note, code.name(), at, message) }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says what to do about it, if there is something to say.
    #[must_use]
    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// Puts a text beside the primary place.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Self {
        if let Some(primary) = self.labels.first_mut() {
            primary.text = text.into();
        }
        self
    }

    /// Adds a related place.
    #[must_use]
    pub fn related(mut self, at: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { at, text: text.into(), primary: false });
        self
    }
}

/// A failed operation. `kind` is one of the names of wit/types, `failure.kind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// E.g. `invalid`, `not-found`, `unsupported`.
    pub kind: String,
    /// What was attempted on what.
    pub message: String,
    /// Trying the same again may succeed.
    pub retryable: bool,
    /// Places in the sources.
    pub diagnostics: Vec<Diagnostic>,
    /// See wit/types, `failure.attrs`.
    pub attrs: Vec<(String, String)>,
}

impl Failure {
    /// A failure with a message and nothing else.
    pub fn new(kind: &str, message: impl Into<String>) -> Self {
        Failure {
            kind: kind.to_owned(),
            message: message.into(),
            retryable: false,
            diagnostics: Vec::new(),
            attrs: Vec::new(),
        }
    }

    /// The failure that a list of diagnostics amounts to. Its message is that of the first error.
    pub fn of(diagnostics: Vec<Diagnostic>) -> Self {
        let mut errors = diagnostics.iter().filter(|d| d.severity == Severity::Error);
        let first = errors.next().map_or("the definition cannot be built", |first| &first.message);
        let message = counted(first, errors.count());
        let unsupported = diagnostics
            .iter()
            .filter(|d| d.severity == Severity::Error)
            .all(|d| d.code == Code::Unsupported.name());
        let kind = if unsupported { "unsupported" } else { "invalid" };
        Failure { diagnostics, ..Failure::new(kind, message) }
    }

    /// What several failures amount to, in the order of their places; none if there are none.
    pub fn joined(mut failures: Vec<Failure>) -> Option<Self> {
        let place = |failure: &Failure| {
            let labels = failure.diagnostics.iter().flat_map(|diagnostic| &diagnostic.labels);
            labels.map(|label| label.at).next()
        };
        failures.sort_by_key(place);
        let mut failures = failures.into_iter();
        let mut all = failures.next()?;
        let rest: Vec<Diagnostic> = failures.flat_map(|failure| failure.diagnostics).collect();
        all.message = counted(&all.message, rest.len());
        all.diagnostics.extend(rest);
        Some(all)
    }

    /// Points the failure at a place, unless it already points somewhere.
    #[must_use]
    pub fn at(mut self, code: impl Coded, span: Span) -> Self {
        if self.diagnostics.is_empty() {
            self.diagnostics.push(Diagnostic::error(code, span, self.message.clone()));
        }
        self
    }
}

fn counted(first: &str, more: usize) -> String {
    if more == 0 { first.to_owned() } else { format!("{first} (and {more} more)") }
}

impl From<Diagnostic> for Failure {
    fn from(diagnostic: Diagnostic) -> Self {
        Failure::of(vec![diagnostic])
    }
}
