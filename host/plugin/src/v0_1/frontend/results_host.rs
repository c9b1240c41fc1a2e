//! Interfaces `diagnostics` and `results`: what a frontend says and yields.

use wbuild_api::extension::{FilesResult, ImageResult};
use wbuild_graph::{Attrs, SourceFile};

use super::bindings::wbuild::frontend::{diagnostics, graph, results};
use super::{State, edge_in};
use crate::limits::{Pairs, pairs_size, platform_size, texts_size};
use crate::state::refuse;
use crate::v0_1::types::{answer, diagnostic_in, diagnostic_size, platform_in, span_in, wit};

impl diagnostics::Host for State {
    fn add_source(
        &mut self,
        name: String,
        language: String,
        text: Vec<u8>,
    ) -> wasmtime::Result<Result<u32, wit::Failure>> {
        self.meter.message(texts_size([&name, &language]) + text.len())?;
        let source = SourceFile { name, language, text: text.into() };
        answer(self.caps()?.diagnostics.add_source(source))
    }

    fn map_source(
        &mut self,
        ranges: Vec<(wit::Span, wit::Span)>,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        // A preprocessor maps every line: bounded by bytes, not by the number of messages.
        self.meter.charge(ranges.len() * size_of::<[wit::Span; 2]>())?;
        let diagnostics = &self.caps()?.diagnostics;
        let ranges = ranges.into_iter();
        let ranges = ranges.map(|(generated, original)| (span_in(generated), span_in(original)));
        answer(diagnostics.map_sources(ranges.collect()))
    }

    fn report(&mut self, diagnostic: wit::Diagnostic) -> wasmtime::Result<()> {
        self.meter.message(diagnostic_size(&diagnostic))?;
        self.caps()?.diagnostics.report(diagnostic_in(diagnostic)).map_err(refuse)
    }
}

impl results::Host for State {
    fn image(
        &mut self,
        name: String,
        platform: Option<wit::Platform>,
        root: Option<graph::Output>,
        config: String,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        let platform = platform.map(platform_in);
        let texts = texts_size([&name, &config]);
        let platform_bytes = platform.as_ref().map_or(0, platform_size);
        self.meter.message(texts + platform_bytes + pairs_size(&attrs))?;
        answer(self.caps()?.results.image(ImageResult {
            name,
            platform,
            root: root.map(edge_in),
            config,
            attrs: Attrs(attrs),
        }))
    }

    fn files(
        &mut self,
        name: String,
        platform: Option<wit::Platform>,
        root: graph::Output,
        path: String,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        let platform = platform.map(platform_in);
        let texts = texts_size([&name, &path]);
        let platform_bytes = platform.as_ref().map_or(0, platform_size);
        self.meter.message(texts + platform_bytes + pairs_size(&attrs))?;
        answer(self.caps()?.results.files(FilesResult {
            name,
            platform,
            root: edge_in(root),
            path,
            attrs: Attrs(attrs),
        }))
    }

    fn require(&mut self, at: graph::Output) -> wasmtime::Result<Result<(), wit::Failure>> {
        self.meter.message(0)?;
        answer(self.caps()?.results.require(edge_in(at)))
    }

    fn attest(
        &mut self,
        name: String,
        platform: Option<wit::Platform>,
        kind: String,
        root: graph::Output,
        path: String,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        let platform = platform.map(platform_in);
        let texts = texts_size([&name, &kind, &path]);
        let platform_bytes = platform.as_ref().map_or(0, platform_size);
        self.meter.message(texts + platform_bytes + pairs_size(&attrs))?;
        let statement =
            FilesResult { name, platform, root: edge_in(root), path, attrs: Attrs(attrs) };
        answer(self.caps()?.results.attest(kind, statement))
    }

    fn effect(
        &mut self,
        name: String,
        at: graph::Output,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        self.meter.message(texts_size([&name]))?;
        answer(self.caps()?.results.effect(name, edge_in(at)))
    }

    fn fail_after(&mut self, at: graph::Output) -> wasmtime::Result<Result<(), wit::Failure>> {
        self.meter.message(0)?;
        answer(self.caps()?.results.fail_after(edge_in(at)))
    }

    async fn publish(&mut self, names: Vec<String>) -> wasmtime::Result<Result<(), wit::Failure>> {
        self.meter.batch(names.len())?;
        self.meter.charge(texts_size(&names))?;
        let results = self.caps()?.results.clone();
        answer(results.publish(names).await)
    }
}
