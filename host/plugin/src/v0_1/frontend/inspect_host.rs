//! Interface `inspect`: the questions that wait for the host.

use wasmtime::component::Resource;
use wbuild_api::extension::{Entry, EntryKind, ImageRequest, ReadDir, SourceRequest};
use wbuild_graph::{Attrs, Failure, decode, quoted};

use super::bindings::wbuild::frontend::{graph, inspect};
use super::{OutcomeHandle, State, edge_in};
use crate::answers;
use crate::limits::{Pairs, READ_BYTES};
use crate::v0_1::types::{answer, answers_out, failure_out, platform_in, platform_out, wit};

fn entry_out(entry: Entry) -> inspect::Entry {
    inspect::Entry {
        path: entry.path,
        kind: match entry.kind {
            EntryKind::File => inspect::EntryKind::File,
            EntryKind::Directory => inspect::EntryKind::Directory,
            EntryKind::Symlink => inspect::EntryKind::Symlink,
            EntryKind::Other => inspect::EntryKind::Other,
        },
        size: entry.size,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        link: entry.link,
        attrs: entry.attrs.0,
    }
}

impl inspect::Host for State {
    async fn resolve_images(
        &mut self,
        requests: Vec<inspect::ImageRequest>,
    ) -> wasmtime::Result<Vec<Result<inspect::ImageInfo, wit::Failure>>> {
        let requests = requests
            .into_iter()
            .map(|request| ImageRequest {
                reference: request.reference,
                platform: request.platform.map(platform_in),
                attrs: Attrs(request.attrs),
            })
            .collect();
        let inspect = self.caps()?.inspect.clone();
        let resolved = answers::resolve_images(&*inspect, requests, &self.meter).await?;
        Ok(answers_out(resolved, |info| inspect::ImageInfo {
            reference: info.reference,
            manifest: info.manifest.to_string(),
            platform: platform_out(info.platform),
            config: info.config,
            attrs: info.attrs.0,
        }))
    }

    async fn resolve_sources(
        &mut self,
        requests: Vec<inspect::SourceRequest>,
    ) -> wasmtime::Result<Vec<Result<inspect::SourceInfo, wit::Failure>>> {
        let requests = requests
            .into_iter()
            .map(|request| SourceRequest {
                kind: request.kind,
                url: request.url,
                reference: request.reference,
                attrs: Attrs(request.attrs),
            })
            .collect();
        let inspect = self.caps()?.inspect.clone();
        let resolved = answers::resolve_sources(&*inspect, requests, &self.meter).await?;
        Ok(answers_out(resolved, |info| inspect::SourceInfo { pin: info.pin, attrs: info.attrs.0 }))
    }

    async fn read_file(
        &mut self,
        at: graph::Output,
        path: String,
        offset: u64,
        length: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, wit::Failure>> {
        let inspect = self.caps()?.inspect.clone();
        answer(inspect.read_file(edge_in(at), path, offset, length.min(READ_BYTES)).await)
    }

    async fn stat(
        &mut self,
        at: graph::Output,
        path: String,
        opts: Pairs,
    ) -> wasmtime::Result<Result<Option<inspect::Entry>, wit::Failure>> {
        if let Err(failure) = decode::only_known(&Attrs(opts), "inspect.stat", &[]) {
            return answer(Err(failure));
        }
        let inspect = self.caps()?.inspect.clone();
        answer(inspect.stat(edge_in(at), path).await.map(|entry| entry.map(entry_out)))
    }

    async fn read_dir(
        &mut self,
        at: graph::Output,
        path: String,
        after: Option<String>,
        limit: u32,
        opts: Pairs,
    ) -> wasmtime::Result<Result<Vec<inspect::Entry>, wit::Failure>> {
        let query = ReadDir { path, after, limit, opts: Attrs(opts) };
        if let Err(failure) =
            decode::only_known(&query.opts, "inspect.read-dir", &["pattern", "recursive"])
        {
            return answer(Err(failure));
        }
        let inspect = self.caps()?.inspect.clone();
        let entries = answers::read_dir(&*inspect, edge_in(at), query, &self.meter).await?;
        answer(entries.map(|entries| entries.into_iter().map(entry_out).collect()))
    }

    fn start(&mut self, at: Vec<graph::Output>) -> wasmtime::Result<()> {
        self.meter.batch(at.len())?;
        self.caps()?.inspect.start(at.into_iter().map(edge_in).collect());
        Ok(())
    }

    async fn evaluate(
        &mut self,
        at: Vec<graph::Output>,
    ) -> wasmtime::Result<Vec<Result<(), wit::Failure>>> {
        let at = at.into_iter().map(edge_in).collect();
        let inspect = self.caps()?.inspect.clone();
        Ok(answers_out(answers::evaluate(&*inspect, at, &self.meter).await?, |()| ()))
    }

    async fn outcome_of(
        &mut self,
        at: graph::Output,
    ) -> wasmtime::Result<Result<Resource<OutcomeHandle>, wit::Failure>> {
        let inspect = self.caps()?.inspect.clone();
        match inspect.outcome_of(edge_in(at)).await {
            Ok(outcome) => {
                self.meter.charge(answers::outcome_size(&outcome))?;
                Ok(Ok(self.push(outcome)?))
            }
            Err(failure) => Ok(Err(failure_out(failure))),
        }
    }
}

impl State {
    fn stream<T>(
        &self,
        this: &Resource<OutcomeHandle>,
        stream: &str,
        told: impl FnOnce(&[u8], bool) -> T,
    ) -> wasmtime::Result<Result<T, wit::Failure>> {
        let outcome = self.table.get(this)?;
        match stream {
            "stdout" => answer(Ok(told(&outcome.stdout, outcome.stdout_truncated))),
            "stderr" => answer(Ok(told(&outcome.stderr, outcome.stderr_truncated))),
            other => answer(Err(Failure::unsupported(format!(
                "outcome has no stream {}",
                quoted(other)
            ))
            .hint("expected one of: stdout, stderr"))),
        }
    }
}

impl inspect::HostOutcome for State {
    fn exit_code(&mut self, this: Resource<OutcomeHandle>) -> wasmtime::Result<i32> {
        Ok(self.table.get(&this)?.exit_code)
    }

    fn size(
        &mut self,
        this: Resource<OutcomeHandle>,
        stream: String,
    ) -> wasmtime::Result<Result<u32, wit::Failure>> {
        self.stream(&this, &stream, |bytes, _| u32::try_from(bytes.len()).unwrap_or(u32::MAX))
    }

    fn truncated(
        &mut self,
        this: Resource<OutcomeHandle>,
        stream: String,
    ) -> wasmtime::Result<Result<bool, wit::Failure>> {
        self.stream(&this, &stream, |_, truncated| truncated)
    }

    fn read(
        &mut self,
        this: Resource<OutcomeHandle>,
        stream: String,
        offset: u32,
        length: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, wit::Failure>> {
        self.stream(&this, &stream, |bytes, _| {
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            rest[..rest.len().min(length.min(READ_BYTES) as usize)].to_vec()
        })
    }

    fn drop(&mut self, this: Resource<OutcomeHandle>) -> wasmtime::Result<()> {
        let outcome = self.table.delete(this)?;
        self.meter.release(answers::outcome_size(&outcome));
        Ok(())
    }
}
