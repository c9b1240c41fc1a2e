//! What a run says and is told in texts: sources, messages about places in them, options. What is
//! refused is refused here, whoever the host is.

use wbuild_graph::{
    Attrs, Diagnostic, Failure, FailureKind, NodeMeta, SourceFile, SourceMap, Span,
};

/// The most sources and messages of one build.
const SOURCES: usize = 10_000;
const DIAGNOSTICS: usize = 10_000;
/// The most bytes of all sources together.
const SOURCE_BYTES: usize = 64 << 20;
/// The most ranges of generated sources.
const MAPPED: usize = 100_000;

/// The sources of one build, and how many messages there were.
#[derive(Debug, Default)]
pub struct Texts {
    sources: SourceMap,
    bytes: usize,
    mapped: Vec<(Span, Span)>,
    reported: usize,
}

fn limit(message: String) -> Failure {
    Failure::new(FailureKind::Limit, message)
}

impl Texts {
    /// `diagnostics.add-source`
    pub fn add(&mut self, source: SourceFile) -> Result<u32, Failure> {
        if self.sources.len() >= SOURCES {
            return Err(limit(format!("more than {SOURCES} sources were registered")));
        }
        // One that is registered twice counts twice: it is compared with all others.
        self.bytes = self.bytes.saturating_add(source.text.len());
        if self.bytes > SOURCE_BYTES {
            return Err(limit(format!("the sources have more than {SOURCE_BYTES} bytes")));
        }
        Ok(self.sources.add(source))
    }

    /// `diagnostics.map-source`, of one range.
    pub fn map(&mut self, generated: Span, original: Span) -> Result<(), Failure> {
        if self.mapped.len() >= MAPPED {
            return Err(limit(format!("more than {MAPPED} mapped ranges")));
        }
        self.mapped.push((generated, original));
        Ok(())
    }

    /// `diagnostics.report`: as it is to be shown.
    pub fn report(&mut self, mut diagnostic: Diagnostic) -> Result<Diagnostic, Failure> {
        if self.reported >= DIAGNOSTICS {
            return Err(limit(format!("more than {DIAGNOSTICS} diagnostics were reported")));
        }
        self.reported += 1;
        self.resolve(&mut diagnostic);
        Ok(diagnostic)
    }

    /// What a place in a generated source stands for: byte for byte where both ranges are of one
    /// length, else the whole range. Other places stand for themselves.
    pub fn place(&self, at: Span) -> Span {
        let inside = |generated: &Span| {
            generated.source == at.source && generated.start <= at.start && at.end <= generated.end
        };
        match self.mapped.iter().rev().find(|(generated, _)| inside(generated)) {
            Some((generated, original)) => within(at, *generated, *original),
            None => at,
        }
    }

    /// The same for all places of a message.
    pub fn resolve(&self, diagnostic: &mut Diagnostic) {
        diagnostic.labels.iter_mut().for_each(|label| label.at = self.place(label.at));
    }

    /// The same for all places of a node.
    pub fn resolve_node(&self, meta: &mut NodeMeta) {
        meta.spans.iter_mut().for_each(|span| *span = self.place(*span));
    }

    /// The same for all places of a failure.
    pub fn resolve_failure(&self, failure: &mut Failure) {
        failure.diagnostics.iter_mut().for_each(|diagnostic| self.resolve(diagnostic));
    }

    /// The sources by index.
    pub fn sources(&self) -> &SourceMap {
        &self.sources
    }

    /// Takes over sources that were registered elsewhere.
    pub fn set_sources(&mut self, sources: SourceMap) {
        self.sources = sources;
    }
}

/// What a place in a generated range stands for.
fn within(at: Span, generated: Span, original: Span) -> Span {
    let length = |span: Span| span.end.checked_sub(span.start);
    if length(generated) != length(original) {
        return original;
    }
    let moved = |offset: u32| original.start.saturating_add(offset - generated.start);
    Span { source: original.source, start: moved(at.start), end: moved(at.end) }
}

/// Options whose names begin with `prefix`, without it.
pub fn options_of(options: &Attrs, prefix: &str) -> Attrs {
    let of_prefix =
        options.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?, value)));
    Attrs(of_prefix.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use wbuild_graph::{Label, Severity};

    use super::*;

    fn span(source: u32, start: u32, end: u32) -> Span {
        Span { source, start, end }
    }

    #[test]
    fn places_in_a_generated_source_are_shown_where_they_come_from() {
        let mut texts = Texts::default();
        texts.map(span(1, 0, 10), span(0, 5, 15)).expect("mapped");
        texts.map(span(1, 4, 6), span(2, 0, 9)).expect("mapped");
        for (at, shown) in [
            (span(1, 0, 3), span(0, 5, 8)),
            (span(1, 4, 5), span(2, 0, 9)),
            (span(1, 9, 11), span(1, 9, 11)),
            (span(0, 1, 2), span(0, 1, 2)),
        ] {
            let label = Label { at, text: String::new(), primary: true };
            let diagnostic = Diagnostic {
                severity: Severity::Error,
                code: None,
                message: String::new(),
                labels: vec![label],
                help: None,
                url: None,
                attrs: Attrs::default(),
            };
            assert_eq!(texts.report(diagnostic).expect("reported").labels[0].at, shown);
        }
    }

    #[test]
    fn texts_have_limits() {
        let mut texts = Texts::default();
        let source = |name: &str, size: usize| SourceFile {
            name: name.to_owned(),
            language: String::new(),
            text: vec![b' '; size].into(),
        };
        assert_eq!(texts.add(source("a", SOURCE_BYTES)), Ok(0));
        let failure = texts.add(source("a", 1)).expect_err("too much");
        assert_eq!(failure.kind, FailureKind::Limit);
    }
}
