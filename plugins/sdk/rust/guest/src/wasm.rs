//! The records of `wbuild:types`, in and out of a component, and how its exports begin and end.

use wbuild_graph::{Attrs, Diagnostic, Failure, FailureKind, Label, Platform, Severity, Span};

/// Generated: the component ABI is made of raw pointers.
#[allow(unsafe_code, missing_docs, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../../wit/types",
        inline: "
            package wbuild:sdk-guest;
            world guest { import wbuild:types/types@0.1.0; import wbuild:types/log@0.1.0; }
        ",
        generate_all,
        // What this crate converts itself is little of what there is.
        generate_unused_types: true,
    });
}

pub use bindings::wbuild::types::log as wit_log;
pub use bindings::wbuild::types::types as wit;

/// A place, for the host.
pub fn span_out(span: Span) -> wit::Span {
    wit::Span { source: span.source, start: span.start, end: span.end }
}

/// A place, from the host.
pub fn span_in(span: wit::Span) -> Span {
    Span { source: span.source, start: span.start, end: span.end }
}

/// A platform, for the host.
pub fn platform_out(platform: &Platform) -> wit::Platform {
    wit::Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

/// A platform, from the host, which hands out what is normalised.
pub fn platform_in(platform: wit::Platform) -> Platform {
    Platform {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant,
        os_version: platform.os_version,
        os_features: platform.os_features,
    }
}

fn severity_out(severity: Severity) -> wit::Severity {
    match severity {
        Severity::Error => wit::Severity::Error,
        Severity::Warning => wit::Severity::Warning,
        Severity::Note => wit::Severity::Note,
        Severity::Help => wit::Severity::Help,
    }
}

/// A diagnostic, for the host.
pub fn diagnostic_out(diagnostic: Diagnostic) -> wit::Diagnostic {
    let label = |label: Label| wit::Label {
        at: span_out(label.at),
        text: label.text,
        primary: label.primary,
    };
    wit::Diagnostic {
        severity: severity_out(diagnostic.severity),
        code: diagnostic.code,
        message: diagnostic.message,
        labels: diagnostic.labels.into_iter().map(label).collect(),
        help: diagnostic.help,
        url: diagnostic.url,
        attrs: diagnostic.attrs.0,
    }
}

fn diagnostic_in(diagnostic: wit::Diagnostic) -> Diagnostic {
    let label = |label: wit::Label| Label {
        at: span_in(label.at),
        text: label.text,
        primary: label.primary,
    };
    Diagnostic {
        severity: match diagnostic.severity {
            wit::Severity::Error => Severity::Error,
            wit::Severity::Warning => Severity::Warning,
            wit::Severity::Note => Severity::Note,
            wit::Severity::Help => Severity::Help,
        },
        code: diagnostic.code,
        message: diagnostic.message,
        labels: diagnostic.labels.into_iter().map(label).collect(),
        help: diagnostic.help,
        url: diagnostic.url,
        attrs: Attrs(diagnostic.attrs),
    }
}

/// A failure, for the host. Causes and hints travel as attributes (wit/types, `failure.attrs`).
pub fn failure_out(failure: Failure) -> wit::Failure {
    let mut attrs = failure.attrs.0;
    attrs.extend(failure.causes.into_iter().map(|cause| ("cause".to_owned(), cause)));
    attrs.extend(failure.hints.into_iter().map(|hint| ("hint".to_owned(), hint)));
    wit::Failure {
        kind: failure.kind.as_str().to_owned(),
        message: failure.message,
        retryable: failure.retryable,
        // The host keeps no more of them.
        diagnostics: failure.diagnostics.into_iter().take(1000).map(diagnostic_out).collect(),
        attrs,
    }
}

/// A failure, from the host.
pub fn failure_in(failure: wit::Failure) -> Failure {
    let mut out = Failure::new(FailureKind::from_name(&failure.kind), failure.message);
    out.retryable = failure.retryable;
    out.diagnostics = failure.diagnostics.into_iter().map(diagnostic_in).collect();
    for (key, value) in failure.attrs {
        match key.as_str() {
            "cause" => out.causes.push(value),
            "hint" => out.hints.push(value),
            _ => out.attrs.push(key, value),
        }
    }
    out
}

/// What the host answers.
///
/// # Errors
///
/// Those of the host.
pub fn answer<T, U>(
    answer: Result<T, wit::Failure>,
    convert: impl FnOnce(T) -> U,
) -> Result<U, Failure> {
    answer.map(convert).map_err(failure_in)
}

/// A line for the user.
pub fn log(severity: Severity, text: &str) {
    wit_log::log(severity_out(severity), text);
}

/// The instance ends with a panic, so all that the host would see is a trap: says what and where.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|info| log(Severity::Error, &info.to_string())));
}

/// Does what an export is for.
///
/// # Errors
///
/// Those of `call`, as the host takes them.
pub fn run<T>(call: impl FnOnce() -> crate::Result<T>) -> Result<T, wit::Failure> {
    report_panics();
    call().map_err(|error| failure_out(error.into_failure()))
}
