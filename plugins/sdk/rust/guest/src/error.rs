//! What goes wrong: an error that may know its place, and that `?` makes of any other.

use std::fmt;

use wbuild_graph::{Attrs, Diagnostic, Failure, FailureKind, Label, Severity, Span};

/// What every function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A [`Failure`] on its way to the host. `?` makes one of any error of the standard kind; a failure of
/// the host stays what it is.
pub struct Error(Box<Failure>);

impl Error {
    /// The input is malformed or contradicts itself: the ordinary error of a frontend.
    pub fn invalid(message: impl Into<String>) -> Self {
        Failure::invalid(message).into()
    }

    /// An error of another kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure::new(kind, message).into()
    }

    /// What kind it is.
    pub fn kind(&self) -> FailureKind {
        self.0.kind
    }

    /// The place in the user's file that it is about; the first that is said counts.
    #[must_use]
    pub fn at(mut self, place: Span) -> Self {
        if self.0.diagnostics.is_empty() {
            let label = Label { at: place, text: String::new(), primary: true };
            let message = self.0.message.clone();
            self.0
                .diagnostics
                .push(Diagnostic { labels: vec![label], ..diagnostic(Severity::Error, message) });
        }
        self
    }

    /// A related place, and what is to be said of it. Comes behind [`Error::at`].
    #[must_use]
    pub fn note(mut self, place: Span, text: impl Into<String>) -> Self {
        if let Some(diagnostic) = self.0.diagnostics.first_mut() {
            diagnostic.labels.push(Label { at: place, text: text.into(), primary: false });
        }
        self
    }

    /// What the user can do about it.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        match self.0.diagnostics.first_mut() {
            Some(diagnostic) if diagnostic.help.is_none() => diagnostic.help = Some(text.into()),
            _ => self.0.hints.push(text.into()),
        }
        self
    }

    /// A stable machine name. Comes behind [`Error::at`].
    #[must_use]
    pub fn code(mut self, code: &str) -> Self {
        if let Some(diagnostic) = self.0.diagnostics.first_mut() {
            diagnostic.code = Some(code.to_owned());
        }
        self
    }

    /// Says what was being done; the message so far becomes the cause.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        self.0.context(message).into()
    }

    /// As the host takes it.
    pub fn into_failure(self) -> Failure {
        *self.0
    }

    /// As the host takes it.
    pub fn as_failure(&self) -> &Failure {
        &self.0
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `Error` itself is no `std::error::Error`, as of every type with such a conversion.
impl<E: std::error::Error + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        let error: Box<dyn std::error::Error> = Box::new(error);
        match error.downcast::<Failure>() {
            Ok(failure) => Error(failure),
            Err(error) => {
                let mut failure = Failure::invalid(error.to_string());
                let mut next = error.source();
                while let Some(cause) = next {
                    failure.causes.push(cause.to_string());
                    next = cause.source();
                }
                Error(Box::new(failure))
            }
        }
    }
}

/// Adds to what went wrong, on the way up.
pub trait ResultExt<T> {
    /// The place in the user's file, if none is known yet.
    fn at(self, place: Span) -> Result<T>;
    /// What was being done.
    fn context(self, message: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for std::result::Result<T, E> {
    fn at(self, place: Span) -> Result<T> {
        self.map_err(|error| error.into().at(place))
    }

    fn context(self, message: impl Into<String>) -> Result<T> {
        self.map_err(|error| error.into().context(message))
    }
}

/// A message without places.
pub fn diagnostic(severity: Severity, message: String) -> Diagnostic {
    Diagnostic {
        severity,
        code: None,
        message,
        labels: Vec::new(),
        help: None,
        url: None,
        attrs: Attrs::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u32) -> Span {
        Span { source: 0, start, end: start + 1 }
    }

    #[test]
    fn the_first_place_counts() {
        let inner: Result<()> = Err(Error::invalid("no").at(span(1)).note(span(2), "there"));
        let failure = inner.at(span(3)).context("step").expect_err("one").into_failure();
        assert_eq!((&*failure.message, &failure.causes[..]), ("step", &["no".to_owned()][..]));
        let places: Vec<_> =
            failure.diagnostics[0].labels.iter().map(|l| (l.at.start, l.primary)).collect();
        assert_eq!(places, [(1, true), (2, false)]);
    }

    #[test]
    fn a_failure_of_the_host_stays_what_it_is() {
        let failure = Failure::not_found("no image").hint("log in").attr("path", "x");
        let through = || -> Result<()> { Err(failure.clone())? };
        assert_eq!(through().expect_err("one").into_failure(), failure);
    }

    #[test]
    fn other_errors_are_about_the_input() {
        let through = || -> Result<u8> { Ok("x".parse::<u8>()?) };
        let error = through().expect_err("one");
        assert_eq!(error.kind(), FailureKind::Invalid);
        assert_eq!(error.to_string(), "invalid digit found in string");
    }
}
