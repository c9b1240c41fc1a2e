//! What the solver needs from the world, over the store and the sources: pins, keys' inputs,
//! look-ups, running, saving. The ops themselves are in [`crate::ops`] and [`crate::source`].

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use wbuild_api::session::Session;
use wbuild_graph::op::{Security, SourceOp};
use wbuild_graph::{CacheKey, ContentDigest, Failure, FailureKind, Op, ResultId, VertexDigest};
use wbuild_solver::{FoundBy, GONE_INPUT, Miss, Pin, SolveVertex, Worker};
use wbuild_store::{Lease, Record, Store};

use crate::cache::CacheLine;
use crate::cache::imports::Imports;
use crate::captured::Captured;
use crate::explain::{self, Explain};
use crate::foreign::Foreign;
use crate::inspect::Inspected;
use crate::launchers::Launchers;
use crate::ops;
use crate::room::Room;
use crate::runners::Runners;
use crate::solved::{self, Output, Solved, Tree};
use crate::source::git::Repositories;
use crate::source::http::Downloads;
use crate::source::image::Images;
use crate::source::local::Locals;
use crate::steps::Steps;

/// The worker of one build.
pub(crate) struct BuildWorker {
    pub(crate) store: Store,
    pub(crate) steps: Arc<Steps>,
    pub(crate) session: Arc<dyn Session>,
    pub(crate) locals: Locals,
    pub(crate) images: Images,
    pub(crate) downloads: Downloads,
    pub(crate) repositories: Repositories,
    pub(crate) caches: CacheLine,
    pub(crate) explain: Explain,
    pub(crate) imports: Imports,
    /// Directories of the client's that stand in for cache mounts.
    pub(crate) cache_mounts: BTreeMap<String, PathBuf>,
    /// Cache mounts that caches elsewhere were asked for, and whether one had them. Held meanwhile.
    pub(crate) restored: tokio::sync::Mutex<BTreeMap<String, bool>>,
    pub(crate) runners: Runners,
    /// Which steps see programs of other architectures.
    pub(crate) foreign: Foreign,
    pub(crate) launchers: Arc<Launchers>,
    pub(crate) settings: Settings,
    /// Processes of steps at once.
    pub(crate) exec_slots: Semaphore,
    /// Reading, hashing and writing of files at once. Whoever holds one waits for nothing else.
    pub(crate) io_slots: Semaphore,
    /// What was read of local directories for keys, by vertex and input: both keys of a vertex are
    /// made of one reading, and what the op then reads must be the same.
    pub(crate) keyed: Mutex<HashMap<(VertexDigest, usize), ContentDigest>>,
    /// The vertex that the main context is, where it is no directory of the client's.
    pub(crate) main_context: OnceLock<VertexDigest>,
    /// Results whose records wait until their layers lack nothing; see [`BuildWorker::settle`].
    pub(crate) unsaved: Mutex<Vec<Arc<Solved>>>,
    /// Hears of each result that is made, if somebody wants to.
    pub(crate) made: OnceLock<UnboundedSender<Arc<Solved>>>,
    pub(crate) room: Arc<Room>,
    pub(crate) captured: Captured,
}

/// What of the request concerns single ops without changing their results. (What does change them
/// is made part of the ops: see [`crate::job::Job::settle`].)
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) source_date_epoch: Option<u64>,
    /// Large files that are copied from a context may stay there: the build makes images, which can
    /// be streamed from it.
    pub(crate) lend: bool,
    /// Seconds since 1970, read once when the build began.
    pub(crate) now: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BuildWorker {
    /// What the keys of `vertex` say that its local input number `input` holds.
    pub(crate) fn keyed(&self, vertex: &SolveVertex, input: usize) -> Option<ContentDigest> {
        lock(&self.keyed).get(&(vertex.digest, input)).copied()
    }

    pub(crate) fn images(&self) -> &Images {
        &self.images
    }

    /// Makes one output's files present.
    pub(crate) async fn materialise(&self, solved: &Solved, index: u32) -> Result<(), Failure> {
        match output(solved, index)? {
            Output::Tree(tree) => self.snapshots(tree).await.map(|_| ()),
            Output::Local(_) => Ok(()),
        }
    }

    /// One output's files, for a frontend to look at.
    pub(crate) async fn inspect(&self, solved: &Solved, index: u32) -> Result<Inspected, Failure> {
        match output(solved, index)? {
            Output::Tree(tree) => {
                let (fd, lease) = self.readable(tree).await?;
                Ok(Inspected::new(fd, "the result", Some(lease)))
            }
            Output::Local(local) => {
                let whole = Inspected::new(local.open()?, &local.display(), None);
                Ok(whole.through(&local.filter))
            }
        }
    }

    /// The same, open for reading (a detached mount is good for looking up and mounting only; what was
    /// opened lives on without it), and with what keeps it.
    pub(crate) async fn readable(&self, tree: &Tree) -> Result<(OwnedFd, Lease), Failure> {
        let view = self.view(tree).await?;
        Ok((view.open_dir()?, view.into_parts().1))
    }

    /// An input's files: a directory, and what keeps it.
    pub(crate) async fn files_of(
        &self,
        output: &Output,
    ) -> Result<(OwnedFd, Option<Lease>), Failure> {
        match output {
            Output::Tree(tree) => {
                let (fd, lease) = self.readable(tree).await?;
                Ok((fd, Some(lease)))
            }
            Output::Local(local) => Ok((local.open()?, None)),
        }
    }
}

/// Output number `index`.
pub(crate) fn output(solved: &Solved, index: u32) -> Result<&Output, Failure> {
    solved
        .outputs
        .get(index as usize)
        .ok_or_else(|| Failure::internal(format!("a solved vertex has no output {index}")))
}

#[async_trait]
impl Worker for BuildWorker {
    type Outputs = Arc<Solved>;

    async fn pin(&self, vertex: &SolveVertex) -> Result<Pin, Failure> {
        match vertex.op() {
            Op::Source(SourceOp::Local(_)) => Ok(Pin::ByContent),
            Op::Source(SourceOp::Image { reference, platform, attrs }) => {
                self.images.pin(reference, platform, attrs).await.map(Pin::Digest)
            }
            Op::Source(SourceOp::Git { url, reference, attrs }) => {
                self.repositories.pin(url, reference, attrs).await.map(Pin::Digest)
            }
            Op::Source(SourceOp::Http { url, checksum, attrs }) => {
                self.downloads.pin(url, checksum.as_ref(), attrs).await.map(Pin::Digest)
            }
            Op::Source(SourceOp::Other { identifier, .. }) => {
                Err(unsupported("source", identifier))
            }
            _ => Err(Failure::internal("only sources are pinned")),
        }
    }

    async fn content_digest(
        &self,
        vertex: &SolveVertex,
        input: usize,
        (outputs, index): (&Arc<Solved>, u32),
    ) -> Result<ContentDigest, Failure> {
        let output = output(outputs, index)?;
        if let Some(known) = self.keyed(vertex, input) {
            return Ok(known);
        }
        let (digest, selections, kind) = ops::content::digest(self, vertex, input, output).await?;
        self.explain.read(vertex.digest, input, selections, kind);
        if matches!(output, Output::Local(_)) {
            lock(&self.keyed).insert((vertex.digest, input), digest);
        }
        Ok(digest)
    }

    async fn result_id(&self, (outputs, index): (&Arc<Solved>, u32)) -> Result<ResultId, Failure> {
        let tree = match output(outputs, index)? {
            Output::Tree(tree) => tree,
            Output::Local(_) => {
                return Err(Failure::internal("a local directory has no result id"));
            }
        };
        if let Some(id) = tree.result_id.get() {
            return Ok(*id);
        }
        let id = solved::result_id(&self.contents(tree).await?);
        let id = *tree.result_id.get_or_init(|| id);
        self.keep_learnt(outputs)?;
        Ok(id)
    }

    async fn lookup(
        &self,
        vertex: &SolveVertex,
        key: CacheKey,
    ) -> Result<Option<Arc<Solved>>, Failure> {
        let found = self.look_here(vertex, key).await?;
        if let Some(found) = &found {
            self.captured.hold(found.outcome.as_deref())?;
        }
        Ok(found)
    }

    async fn alias(&self, outputs: &Arc<Solved>, key: CacheKey) -> Result<(), Failure> {
        let record = {
            let mut record = outputs.record();
            let Some(record) = record.as_mut() else {
                return Ok(());
            };
            if !record.keys.contains(&key) {
                record.keys.push(key);
            }
            record.clone()
        };
        if outputs.is_lent() {
            return Ok(());
        }
        // The key may lead to a later record although this one has it, too.
        if let Some(there) = self.store.record(&key)?
            && solved::same_files(&there.outputs, &record.outputs)
        {
            return Ok(());
        }
        self.store.put_record(&record)?;
        self.caches.announce(outputs);
        Ok(())
    }

    async fn run(
        &self,
        vertex: &SolveVertex,
        inputs: Vec<(Arc<Solved>, u32)>,
    ) -> Result<Arc<Solved>, Failure> {
        let inputs: Vec<Output> = inputs
            .iter()
            .map(|(solved, index)| output(solved, *index).cloned())
            .collect::<Result<_, _>>()?;
        // What stacks layers without a look at them would go on with one that is gone.
        self.check_inputs(&inputs)?;
        let mut attempt = 0;
        loop {
            // Boxed, as all ops together are a deep type.
            match Box::pin(self.run_once(vertex, &inputs)).await {
                Err(failure) if failure.kind == FailureKind::Gone => {
                    return self.check_inputs(&inputs).and(Err(failure));
                }
                Err(failure) if self.room.make(&failure, attempt).await? => attempt += 1,
                result => {
                    let made = result?;
                    self.captured.hold(made.outcome.as_deref())?;
                    return Ok(made);
                }
            }
        }
    }

    async fn save(
        &self,
        vertex: &SolveVertex,
        keys: Vec<CacheKey>,
        outputs: &Arc<Solved>,
    ) -> Result<(), Failure> {
        if matches!(vertex.op(), Op::Source(SourceOp::Image { .. } | SourceOp::Local(_))) {
            // An image is kept as its manifest, its config and its layers.
            return Ok(());
        }
        if matches!(vertex.op(), Op::Exec(exec) if exec.security == Security::Client) {
            // What it did was done on the client's machine.
            return Ok(());
        }
        let record = Record {
            keys,
            outputs: outputs.output_records(),
            outcome: outputs.outcome.as_deref().map(solved::outcome_record),
            created: self.settings.now,
            description: self.steps.meta(vertex.digest).name,
            ..Record::default()
        };
        *outputs.record() = Some(record);
        match outputs.is_lent() {
            true => lock(&self.unsaved).push(Arc::clone(outputs)),
            false => self.put(outputs)?,
        }
        if let Some(made) = self.made.get() {
            // Who wanted to hear of it may be gone.
            let _ = made.send(Arc::clone(outputs));
        }
        Ok(())
    }

    async fn forget(&self, outputs: &Arc<Solved>) -> Result<(), Failure> {
        let Some(record) = outputs.record().clone() else {
            return Ok(());
        };
        for key in &record.keys {
            // A key that leads to nothing valid is cleared as well.
            let there = self.store.record(key)?;
            if there.is_none_or(|there| solved::same_files(&there.outputs, &record.outputs)) {
                self.store.drop_record(key)?;
            }
        }
        Ok(())
    }

    fn found(&self, vertex: &SolveVertex, by: FoundBy, outputs: &Arc<Solved>) {
        self.explain.found(vertex, by, outputs, &self.steps);
    }

    async fn missed(&self, vertex: &SolveVertex, miss: Miss<'_, Arc<Solved>>) {
        let extra = match vertex.op() {
            Op::Source(SourceOp::Image { reference, platform, attrs }) => {
                let resolved = self.images.resolve(reference, platform, attrs).await;
                resolved.ok().map(|image| explain::image_field(reference, &image.manifest))
            }
            Op::Source(_) => miss.keys.first().map(explain::pin_field),
            _ => None,
        };
        let now = self.settings.now;
        self.explain.missed(vertex, miss, extra, now, &self.steps).await;
    }
}

impl BuildWorker {
    /// Fails if an input has layers that are gone, and says which.
    fn check_inputs(&self, inputs: &[Output]) -> Result<(), Failure> {
        for (number, input) in inputs.iter().enumerate() {
            if self.is_lost(input)? {
                return Err(Failure::new(FailureKind::Gone, "the files of a layer are gone")
                    .attr(GONE_INPUT, number.to_string()));
            }
        }
        Ok(())
    }

    /// Does what an op says, once.
    async fn run_once(
        &self,
        vertex: &SolveVertex,
        inputs: &[Output],
    ) -> Result<Arc<Solved>, Failure> {
        match vertex.op() {
            Op::Source(SourceOp::Local(local)) => self.locals.open(local),
            Op::Source(SourceOp::Image { reference, platform, attrs }) => {
                self.images.pull(reference, platform, attrs).await
            }
            Op::Source(SourceOp::Http { url, checksum, attrs }) => {
                self.downloads.fetch(url, checksum.as_ref(), attrs, self.settings.now).await
            }
            Op::Source(SourceOp::Git { url, reference, attrs }) => {
                self.repositories.fetch(url, reference, attrs, self.settings.now).await
            }
            Op::Source(_) => Err(Failure::internal("an unknown source was pinned")),
            Op::Exec(exec) if exec.security == Security::Client => {
                ops::client::run(self, vertex, exec, inputs).await
            }
            Op::Exec(exec) => ops::exec::run(self, vertex, exec, inputs).await,
            Op::File(file) => ops::file::run(self, vertex, file, inputs).await,
            Op::Merge => ops::merge::run(inputs),
            Op::Diff { lower, upper } => ops::merge::diff(*lower, *upper, inputs),
        }
    }

    /// A result by key, from wherever there is one.
    async fn look_here(
        &self,
        vertex: &SolveVertex,
        key: CacheKey,
    ) -> Result<Option<Arc<Solved>>, Failure> {
        if let Op::Source(SourceOp::Image { reference, platform, attrs }) = vertex.op() {
            return self.images.stored(reference, platform, attrs).await;
        }
        if let Some(held) = self.store.get_record(&key)? {
            let (record, lease) = held.into_parts();
            return Ok(Some(Solved::from_record(record, lease)));
        }
        if let Some(found) = self.caches.find(key).await? {
            self.explain.backend(vertex.digest);
            return Ok(Some(found));
        }
        Box::pin(self.look_elsewhere(vertex, key)).await
    }

    /// A result by key from the caches elsewhere. It is stored like one that was made here: the next
    /// build asks nobody.
    async fn look_elsewhere(
        &self,
        vertex: &SolveVertex,
        key: CacheKey,
    ) -> Result<Option<Arc<Solved>>, Failure> {
        let Some(found) = self.imports.find(key).await else { return Ok(None) };
        let description = self.steps.meta(vertex.digest).name;
        self.store.put_record(&Record { description, ..found.record })?;
        let Some(held) = self.store.record(&key)? else { return Ok(None) };
        let (record, lease) = held.into_parts();
        let outputs = Solved::from_record(record, lease);
        // The handle is new.
        let _ = outputs.hearsay.set(found.keys);
        self.caches.announce(&outputs);
        self.steps.found_in(vertex.digest, found.shown);
        Ok(Some(outputs))
    }

    /// Stores a result's record.
    fn put(&self, outputs: &Arc<Solved>) -> Result<(), Failure> {
        let Some(record) = outputs.record().clone() else {
            return Ok(());
        };
        self.store.put_record(&record)?;
        self.caches.announce(outputs);
        Ok(())
    }

    /// Makes records of the results that waited: where a layer has become a blob, that is the layer
    /// (it holds the same, but for times that were clamped); where not, its snapshot is filled.
    pub(crate) async fn settle(&self) -> Result<(), Failure> {
        let unsaved = std::mem::take(&mut *lock(&self.unsaved));
        for outputs in unsaved {
            for layer in outputs.lent_layers() {
                let facts = layer.facts();
                let kept = match &facts.blob {
                    Some(blob) if facts.epoch.is_none() => self.store.has_blob(&blob.digest)?,
                    _ => false,
                };
                match kept {
                    true => {
                        // What the files are, while they can be looked at.
                        self.layer_content(layer).await?;
                        layer.drop_snapshot();
                    }
                    false => self.fill(layer).await?,
                }
            }
            if let Some(record) = outputs.record().as_mut() {
                record.outputs = outputs.output_records();
            }
            self.put(&outputs)?;
        }
        Ok(())
    }

    /// Writes what was learnt of a result's layers back into its record.
    pub(crate) fn keep_learnt(&self, outputs: &Arc<Solved>) -> Result<(), Failure> {
        if outputs.is_lent() {
            return Ok(());
        }
        let learnt = outputs.output_records();
        let keys = {
            let mut record = outputs.record();
            let Some(record) = record.as_mut() else {
                return Ok(());
            };
            if record.outputs == learnt {
                return Ok(());
            }
            record.outputs.clone_from(&learnt);
            record.keys.clone()
        };
        // Some of the keys may lead to a later record by now: what was learnt is not about that.
        for key in keys {
            let mut found = false;
            self.store.update_record(&key, |record| {
                found = solved::same_files(&record.outputs, &learnt);
                if found {
                    record.outputs.clone_from(&learnt);
                }
            })?;
            if found {
                break;
            }
        }
        Ok(())
    }
}

fn unsupported(what: &str, name: &str) -> Failure {
    Failure::unsupported(format!("this version of wbuild cannot use the {what} {name:?}"))
}
