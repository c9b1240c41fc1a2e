//! Between the language's records and those of wit/types, field by field.

use crate::bindings::exports::wbuild::frontend::describe;
use crate::bindings::wbuild::types::types as wit;
use wbuild_dockerfile::describe::{Parameter, Target};
use wbuild_dockerfile::{Diagnostic, Failure, Label, Platform, Severity, Span};

pub fn span_out(span: Span) -> wit::Span {
    wit::Span { source: span.source, start: span.start, end: span.end }
}

pub fn platform_out(platform: &Platform) -> wit::Platform {
    wit::Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

pub fn platform_in(platform: wit::Platform) -> Platform {
    let mut normal =
        Platform::new(&platform.os, &platform.architecture, platform.variant.as_deref());
    normal.os_version = platform.os_version;
    normal.os_features = platform.os_features;
    normal
}

pub fn diagnostic_out(diagnostic: Diagnostic) -> wit::Diagnostic {
    let label = |label: Label| wit::Label {
        at: span_out(label.at),
        text: label.text,
        primary: label.primary,
    };
    wit::Diagnostic {
        severity: match diagnostic.severity {
            Severity::Error => wit::Severity::Error,
            Severity::Warning => wit::Severity::Warning,
            Severity::Note => wit::Severity::Note,
            Severity::Help => wit::Severity::Help,
        },
        code: Some(diagnostic.code.into_owned()).filter(|code| !code.is_empty()),
        message: diagnostic.message,
        labels: diagnostic.labels.into_iter().map(label).collect(),
        help: diagnostic.help,
        url: diagnostic.url,
        attrs: diagnostic.attrs,
    }
}

pub fn failure_out(failure: Failure) -> wit::Failure {
    wit::Failure {
        kind: failure.kind,
        message: failure.message,
        retryable: failure.retryable,
        // The host keeps no more of them.
        diagnostics: failure.diagnostics.into_iter().take(1000).map(diagnostic_out).collect(),
        attrs: failure.attrs,
    }
}

pub fn target_out(target: Target) -> describe::Target {
    let mut attrs = vec![("base".to_owned(), target.base)];
    attrs.extend(target.platform.map(|platform| ("platform".to_owned(), platform)));
    describe::Target {
        name: target.name,
        summary: target.summary,
        is_default: target.is_default,
        at: Some(span_out(target.at)),
        attrs,
    }
}

pub fn parameter_out(parameter: Parameter) -> describe::Parameter {
    describe::Parameter {
        kind: parameter.kind.to_owned(),
        name: parameter.name,
        summary: parameter.summary,
        value: parameter.default,
        required: parameter.required,
        at: parameter.at.map(span_out),
        attrs: Vec::new(),
    }
}

/// The host's failures about a node may carry no place; the language then adds one.
pub fn failure_in(failure: wit::Failure) -> Failure {
    let label = |label: wit::Label| Label {
        at: Span { source: label.at.source, start: label.at.start, end: label.at.end },
        text: label.text,
        primary: label.primary,
    };
    let diagnostic = |diagnostic: wit::Diagnostic| Diagnostic {
        severity: match diagnostic.severity {
            wit::Severity::Error => Severity::Error,
            wit::Severity::Warning => Severity::Warning,
            wit::Severity::Note => Severity::Note,
            wit::Severity::Help => Severity::Help,
        },
        code: diagnostic.code.unwrap_or_default().into(),
        message: diagnostic.message,
        labels: diagnostic.labels.into_iter().map(label).collect(),
        help: diagnostic.help,
        url: diagnostic.url,
        attrs: diagnostic.attrs,
    };
    Failure {
        kind: failure.kind,
        message: failure.message,
        retryable: failure.retryable,
        diagnostics: failure.diagnostics.into_iter().map(diagnostic).collect(),
        attrs: failure.attrs,
    }
}
