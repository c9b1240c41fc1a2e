//! What is said at the end: why a build failed, and what its sources are warned of. How it is drawn is
//! `wbuild::render`'s.

use std::fmt::Write as _;

use wbuild::render::{self, FailedStep};
use wbuild_api::event::{BuildReport, BuildStats};
use wbuild_graph::{Diagnostic, Failure, SourceMap};

use crate::progress::model::Step;
use crate::terminal;
use crate::units;
use style::{Paint, Style};

pub use wbuild::render::{SHORT, excerpt, style};

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
    pub fn failure(&self, failure: &Failure, step: Option<&Step>) -> String {
        let step = step.map(|step| FailedStep {
            number: step.number,
            name: step.name.clone(),
            spans: step.spans.clone(),
            tail: step.tail.iter().cloned().collect(),
            lines: step.lines,
        });
        self.renderer().failure(failure, step.as_ref())
    }

    /// Messages about the sources, one after the other; of several kinds the gravest come last, next
    /// to where people look.
    pub fn diagnostics(&self, diagnostics: &[Diagnostic]) -> String {
        self.renderer().diagnostics(diagnostics)
    }

    fn renderer(&self) -> render::Report<'_> {
        let Report { style, sources, output_was_shown } = *self;
        render::Report { style, sources, output_was_shown }
    }
}

/// What a build that succeeded leaves to be said.
pub fn success(report: &BuildReport, style: Style, kept_in_cache_only: bool) -> String {
    let mut out = String::new();
    for image in &report.images {
        let names = image.names.join(", ");
        match (image.digest.or(image.config), names.is_empty()) {
            (Some(digest), true) => {
                let _ = writeln!(out, "image {digest}");
            }
            (Some(digest), false) => {
                let _ = writeln!(out, "image {digest} {}", terminal::plain_line(names.as_bytes()));
            }
            (None, _) => {}
        }
    }
    if kept_in_cache_only {
        let word = style.paint(Paint::Note, "note");
        let _ = writeln!(
            out,
            "{word}: the result stays in the cache; --output says where else it goes, \
             e.g. --output type=oci,dest=image.tar"
        );
    }
    out
}

/// The numbers of `--stats`.
pub fn stats(stats: &BuildStats) -> String {
    let BuildStats { steps_run, steps_cached, frontend_memo_hit, total_ms, frontend_ms } = stats;
    let memo = if *frontend_memo_hit { "not run, nothing it read has changed" } else { "run" };
    format!(
        "steps run     {steps_run}\n\
         steps cached  {steps_cached}\n\
         frontend      {memo}, {frontend_ms} ms\n\
         total         {total} ({total_ms} ms)\n",
        total = units::seconds(*total_ms),
    )
}
