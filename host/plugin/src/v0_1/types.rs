//! `wbuild:types@0.1`: conversions of the vocabulary that all packages share, and the log.

use wbuild_graph::{Attrs, Diagnostic, Failure, FailureKind, Label, Platform, Severity, Span};

use crate::bounds;
use crate::limits::{pairs_size, texts_size};
use crate::state::{Capabilities, GuestState};

/// Generated from `wit/types`; the other packages' bindings refer to these types.
#[allow(missing_docs, unsafe_code, clippy::all)]
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/types",
        inline: "
            package wbuild:host;
            world shared { import wbuild:types/log@0.1.0; }
        ",
        imports: { default: trappable },
    });
}

pub(crate) use bindings::wbuild::types::{log, types as wit};

impl<C: Capabilities> wit::Host for GuestState<C> {}

impl<C: Capabilities> log::Host for GuestState<C> {
    fn log(&mut self, severity: wit::Severity, text: String) -> wasmtime::Result<()> {
        self.caps()?;
        self.say(severity_in(severity), text);
        Ok(())
    }
}

pub(crate) fn severity_in(severity: wit::Severity) -> Severity {
    match severity {
        wit::Severity::Error => Severity::Error,
        wit::Severity::Warning => Severity::Warning,
        wit::Severity::Note => Severity::Note,
        wit::Severity::Help => Severity::Help,
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

pub(crate) fn platform_in(platform: wit::Platform) -> Platform {
    Platform {
        os_version: platform.os_version,
        os_features: platform.os_features,
        ..Platform::new(&platform.os, &platform.architecture, platform.variant.as_deref())
    }
}

pub(crate) fn platform_out(platform: Platform) -> wit::Platform {
    wit::Platform {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant,
        os_version: platform.os_version,
        os_features: platform.os_features,
    }
}

pub(crate) fn span_in(span: wit::Span) -> Span {
    Span { source: span.source, start: span.start, end: span.end }
}

fn span_out(span: Span) -> wit::Span {
    wit::Span { source: span.source, start: span.start, end: span.end }
}

pub(crate) use wbuild_graph::draft::digest as digest_in;

/// Bytes the host spends on a diagnostic.
pub(crate) fn diagnostic_size(diagnostic: &wit::Diagnostic) -> usize {
    let texts = [&diagnostic.code, &diagnostic.help, &diagnostic.url];
    let labels = diagnostic.labels.iter().map(|label| size_of::<Label>() + label.text.len());
    texts_size([&diagnostic.message])
        + texts_size(texts.into_iter().flatten())
        + labels.sum::<usize>()
        + pairs_size(&diagnostic.attrs)
}

pub(crate) fn diagnostic_in(diagnostic: wit::Diagnostic) -> Diagnostic {
    let label = |label: wit::Label| Label {
        at: span_in(label.at),
        text: label.text,
        primary: label.primary,
    };
    bounds::diagnostic(Diagnostic {
        severity: severity_in(diagnostic.severity),
        code: diagnostic.code,
        message: diagnostic.message,
        labels: diagnostic.labels.into_iter().take(bounds::TEXT_ITEMS).map(label).collect(),
        help: diagnostic.help,
        url: diagnostic.url,
        attrs: Attrs(diagnostic.attrs),
    })
}

fn diagnostic_out(diagnostic: Diagnostic) -> wit::Diagnostic {
    wit::Diagnostic {
        severity: severity_out(diagnostic.severity),
        code: diagnostic.code,
        message: diagnostic.message,
        labels: diagnostic
            .labels
            .into_iter()
            .map(|label| wit::Label {
                at: span_out(label.at),
                text: label.text,
                primary: label.primary,
            })
            .collect(),
        help: diagnostic.help,
        url: diagnostic.url,
        attrs: diagnostic.attrs.0,
    }
}

/// Attribute that carries a host's hint through a guest and back.
const HINT: &str = "hint";
/// Attribute of `failure.attrs` for what caused it.
const CAUSE: &str = "cause";

/// What a guest reports, or passes on from the host.
pub(crate) fn failure_in(failure: wit::Failure) -> Failure {
    let mut out = Failure::new(FailureKind::from_name(&failure.kind), failure.message);
    out.retryable = failure.retryable;
    let diagnostics = failure.diagnostics.into_iter().take(bounds::TEXT_ITEMS);
    out.diagnostics = diagnostics.map(diagnostic_in).collect();
    for (key, value) in failure.attrs.into_iter().take(bounds::TEXT_ITEMS) {
        match key.as_str() {
            CAUSE => out.causes.push(value),
            HINT => out.hints.push(value),
            _ => out.attrs.push(key, value),
        }
    }
    bounds::failure(out)
}

/// What a capability answers. Nothing is lost when a guest hands it back.
pub(crate) fn failure_out(failure: Failure) -> wit::Failure {
    let mut attrs = failure.attrs.0;
    attrs.extend(failure.causes.into_iter().map(|cause| (CAUSE.to_owned(), cause)));
    attrs.extend(failure.hints.into_iter().map(|hint| (HINT.to_owned(), hint)));
    wit::Failure {
        kind: failure.kind.as_str().to_owned(),
        message: failure.message,
        retryable: failure.retryable,
        diagnostics: failure.diagnostics.into_iter().map(diagnostic_out).collect(),
        attrs,
    }
}

/// An answer for a guest.
pub(crate) fn answer<T>(result: Result<T, Failure>) -> wasmtime::Result<Result<T, wit::Failure>> {
    Ok(result.map_err(failure_out))
}

/// Answers for a guest, one for each question.
pub(crate) fn answers_out<T, U>(
    results: Vec<Result<T, Failure>>,
    convert: impl Fn(T) -> U,
) -> Vec<Result<U, wit::Failure>> {
    results.into_iter().map(|result| result.map(&convert).map_err(failure_out)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::TEXT_BYTES;

    #[test]
    fn a_failure_survives_the_way_through_a_guest() {
        let failure = Failure::new(FailureKind::ExecFailed, "RUN make failed")
            .context("stage build")
            .hint("run it again")
            .attr("exit-code", "2");
        assert_eq!(failure_in(failure_out(failure.clone())), failure);
    }

    #[test]
    fn an_unknown_kind_is_internal_and_texts_are_bounded() {
        let wit = wit::Failure {
            kind: "martian".into(),
            message: "é".repeat(TEXT_BYTES),
            retryable: false,
            diagnostics: Vec::new(),
            attrs: vec![("k".into(), "v".into())],
        };
        let failure = failure_in(wit);
        assert_eq!(failure.kind, FailureKind::Internal);
        assert!(failure.message.len() <= TEXT_BYTES + 4, "{}", failure.message.len());
        assert!(failure.message.ends_with('…'));
        assert_eq!(failure.attrs.get("k"), Some("v"));
    }

    #[test]
    fn platforms_are_normalised_on_the_way_in() {
        let wit = wit::Platform {
            os: "Linux".into(),
            architecture: "aarch64".into(),
            variant: Some("v8".into()),
            os_version: None,
            os_features: vec!["x".into()],
        };
        let platform = platform_in(wit);
        assert_eq!(platform.to_string(), "linux/arm64");
        assert_eq!(platform.os_features, ["x"]);
        assert_eq!(platform_in(platform_out(platform.clone())), platform);
    }
}
