//! Caches elsewhere, over the real store and a backend that keeps all in memory and can be made to lie.
//! No processes are run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use async_trait::async_trait;
use wbuild_engine::event::{Event, StepEnd};
use wbuild_engine::extension::{
    CacheBackend, CacheHost, CachePlugin, FrontendHost, LayerDescriptor, PluginIdentity,
    RecordEntry,
};
use wbuild_engine::request::{CacheSpec, OutputDest, OutputKind};
use wbuild_graph::{Attrs, CacheKey, Digest, Edge, Failure, FailureKind, Op};

mod place;

use place::*;

/// What a backend does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// It cannot be opened.
    Closed,
    /// It never answers.
    Hangs,
    /// It answers for fewer keys than it was asked for.
    Short,
    /// Every blob is gone.
    Gone,
    /// It says that blobs came, and none did.
    Pretends,
    /// A layer's blob is another layer's.
    Swapped,
    /// A layer says that it has another diff id.
    OtherDiffId,
    /// A layer is of no known kind.
    OtherKind,
    /// A record is there for keys it does not have.
    OtherKeys,
    /// It takes nothing.
    Full,
}

/// What is elsewhere.
#[derive(Default)]
struct Kept {
    entries: Vec<RecordEntry>,
    blobs: HashMap<Digest, Vec<u8>>,
    /// Names of calls.
    calls: Vec<&'static str>,
}

#[derive(Clone)]
struct Memory {
    kept: Arc<Mutex<Kept>>,
    fault: Fault,
}

impl Memory {
    fn new(fault: Fault) -> Memory {
        Memory { kept: Arc::default(), fault }
    }

    fn with(&self, fault: Fault) -> Memory {
        Memory { kept: Arc::clone(&self.kept), fault }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("kept")
    }
}

#[async_trait]
impl CachePlugin for Memory {
    fn identity(&self) -> PluginIdentity {
        identity("memory")
    }

    async fn connect(&self, host: CacheHost) -> Result<Arc<dyn CacheBackend>, Failure> {
        Ok(Arc::new(Connected { memory: self.clone(), host }))
    }
}

struct Connected {
    memory: Memory,
    host: CacheHost,
}

impl Connected {
    fn told(&self, mut entry: RecordEntry, key: CacheKey) -> RecordEntry {
        let other = |digest: Digest| {
            let kept = self.memory.kept();
            *kept.blobs.keys().find(|known| **known != digest).expect("another blob")
        };
        for layer in &mut entry.layers {
            match self.memory.fault {
                Fault::Swapped => layer.digest = other(layer.digest),
                Fault::OtherDiffId => layer.diff_id = Some(wbuild_graph::DiffId(Digest::of(b"x"))),
                Fault::OtherKind => layer.media_type = "application/octet-stream".to_owned(),
                _ => {}
            }
        }
        if self.memory.fault == Fault::OtherKeys {
            entry.keys = vec![CacheKey(Digest::of(key.digest().hex().as_bytes()))];
        }
        entry
    }
}

#[async_trait]
impl CacheBackend for Connected {
    async fn open(&self, mode: String, config: Attrs) -> Result<(), Failure> {
        assert_eq!(config.get("mode"), None, "that is the engine's");
        assert_eq!(config.get("name"), Some("x"), "that is the backend's");
        self.memory.kept().calls.push(if mode == "read" { "read" } else { "write" });
        match self.memory.fault {
            Fault::Closed => Err(Failure::new(FailureKind::Denied, "closed")),
            _ => Ok(()),
        }
    }

    async fn find(&self, keys: Vec<CacheKey>) -> Result<Vec<Vec<RecordEntry>>, Failure> {
        self.memory.kept().calls.push("find");
        match self.memory.fault {
            Fault::Hangs => std::future::pending().await,
            Fault::Short => return Ok(Vec::new()),
            _ => {}
        }
        let entries = self.memory.kept().entries.clone();
        let found = keys.iter().map(|key| {
            let mut of: Vec<RecordEntry> =
                entries.iter().filter(|entry| entry.keys.contains(key)).cloned().collect();
            if self.memory.fault == Fault::OtherKeys {
                of.clone_from(&entries);
            }
            of.into_iter().map(|entry| self.told(entry, *key)).collect()
        });
        Ok(found.collect())
    }

    async fn fetch(
        &self,
        layers: Vec<LayerDescriptor>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        self.memory.kept().calls.push("fetch");
        let fetch = |layer: LayerDescriptor| {
            let blob = self.memory.kept().blobs.get(&layer.digest).cloned();
            match (self.memory.fault, blob) {
                (Fault::Gone, _) | (_, None) => Err(Failure::new(FailureKind::Gone, "gone")),
                (Fault::Pretends, _) => Ok(()),
                (_, Some(blob)) => self.host.blobs.write_small(layer.media_type, blob).map(|_| ()),
            }
        };
        Ok(layers.into_iter().map(fetch).collect())
    }

    async fn save(&self, entries: Vec<RecordEntry>) -> Result<(), Failure> {
        self.memory.kept().entries.extend(entries);
        Ok(())
    }

    async fn push(
        &self,
        layers: Vec<LayerDescriptor>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        let push = |layer: LayerDescriptor| {
            if self.memory.fault == Fault::Full {
                return Err(Failure::new(FailureKind::Limit, "full"));
            }
            if self.memory.kept().blobs.contains_key(&layer.digest) {
                return Ok(());
            }
            let size = u32::try_from(layer.size).expect("small");
            let data = self.host.blobs.read(layer.digest, 0, size)?;
            self.memory.kept().blobs.insert(layer.digest, data);
            Ok(())
        };
        Ok(layers.into_iter().map(push).collect())
    }

    async fn commit(&self) -> Result<Attrs, Failure> {
        self.memory.kept().calls.push("commit");
        Ok(Attrs::default())
    }

    async fn prune(&self, _: Attrs) -> Result<Attrs, Failure> {
        Ok(Attrs::default())
    }
}

fn spec(attrs: &[(&str, &str)]) -> CacheSpec {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let attrs = attrs.iter().chain(&[("name", "x")]).map(pair).collect();
    CacheSpec { backend: "memory".to_owned(), attrs: Attrs(attrs) }
}

/// An empty machine that may use what is elsewhere, and writes its result to `out`.
fn machine(memory: &Memory) -> Place {
    let mut place = Place::new();
    place.remotes.insert("memory".to_owned(), Arc::new(memory.clone()));
    place.write("f", "content");
    place.output(OutputKind::Local, OutputDest::Directory(place.path("out")), &[]);
    place
}

/// A side stage whose file goes into the result, which has two layers of its own.
fn stages(host: &FrontendHost) -> Result<(), Failure> {
    let side = file(host, None, None, write("/origin", "of the side"));
    let base = file(host, None, None, write("/base", "of the base"));
    let context = local(host);
    let copied = file(host, Some(base), Some(context), copy(1, "/f", "/f"));
    yield_image(host, file(host, Some(copied), Some(side), copy(1, "/origin", "/side")))
}

/// Steps of vertices that were found, and that ran.
fn counts(place: &Place) -> (usize, usize) {
    let log = place.log.0.lock().expect("log");
    let mut named = HashMap::new();
    let (mut found, mut ran) = (0, 0);
    for event in &*log {
        match event {
            Event::StepDefined { step, name, .. } => drop(named.insert(*step, name == "step")),
            Event::StepEnded { step, how, .. } if named.get(step) == Some(&true) => match how {
                StepEnd::Cached => found += 1,
                StepEnd::Done => ran += 1,
                _ => {}
            },
            _ => {}
        }
    }
    (found, ran)
}

fn read(place: &Place, name: &str) -> String {
    std::fs::read_to_string(place.path("out").join(name)).expect(name)
}

/// What is elsewhere after a build of [`stages`].
async fn exported(attrs: &[(&str, &str)]) -> Memory {
    let memory = Memory::new(Fault::Nothing);
    let mut first = machine(&memory);
    first.request.cache_to = vec![spec(attrs)];
    first.build(stages).await.expect("built");
    assert_eq!(counts(&first), (0, 4));
    assert_eq!(memory.kept().calls, ["write", "commit"]);
    memory
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_exported_is_found_on_another_machine() {
    if !privileged("what_was_exported_is_found_on_another_machine") {
        return;
    }
    let memory = exported(&[("mode", "max")]).await;
    let mut second = machine(&memory);
    second.request.cache_from = vec![spec(&[])];
    second.build(stages).await.expect("built");
    assert_eq!(counts(&second), (4, 0));
    for (name, text) in [("side", "of the side"), ("base", "of the base"), ("f", "content")] {
        assert_eq!(read(&second, name), text);
    }
    let places: Vec<Option<String>> = {
        let log = second.log.0.lock().expect("log");
        let from = |event: &Event| match event {
            Event::StepEnded { how: StepEnd::Cached, from, .. } => Some(from.clone()),
            _ => None,
        };
        log.iter().filter_map(from).collect()
    };
    assert!(places.contains(&Some("type=memory".to_owned())), "{places:?}");
    // From now on it is like what was made here.
    second.request.cache_from = Vec::new();
    let calls = memory.kept().calls.len();
    second.build(stages).await.expect("built");
    assert_eq!(counts(&second), (4, 0));
    assert_eq!(memory.kept().calls.len(), calls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_fetched_that_nobody_reads() {
    if !privileged("nothing_is_fetched_that_nobody_reads") {
        return;
    }
    let memory = exported(&[("mode", "max")]).await;
    let mut second = machine(&memory);
    second.request.outputs.clear();
    second.request.cache_from = vec![spec(&[])];
    second.request.cache_to = vec![spec(&[("mode", "max")])];
    let records = memory.kept().entries.len();
    second.build(stages).await.expect("built");
    let kept = memory.kept();
    assert!(!kept.calls.contains(&"fetch"), "{:?}", kept.calls);
    // What was found is written again, with all below it.
    assert_eq!(kept.entries.len(), 2 * records);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_change_runs_what_follows_only() {
    if !privileged("a_late_change_runs_what_follows_only") {
        return;
    }
    let memory = exported(&[("mode", "max")]).await;
    let mut second = machine(&memory);
    second.write("f", "changed");
    second.request.cache_from = vec![spec(&[])];
    second.build(stages).await.expect("built");
    assert_eq!(counts(&second), (2, 2), "the base and the side are found");
    assert_eq!(
        (read(&second, "f"), read(&second, "side")),
        ("changed".into(), "of the side".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_results_alone_or_everything() {
    if !privileged("the_results_alone_or_everything") {
        return;
    }
    for (attrs, records) in [(&[][..], 3), (&[("mode", "min")], 3), (&[("mode", "max")], 4)] {
        let memory = exported(attrs).await;
        assert_eq!(memory.kept().entries.len(), records, "{attrs:?}");
        assert_eq!(memory.kept().blobs.len(), records, "{attrs:?}");
    }
    // Of what was exported only what the result has is there: the side runs again.
    let memory = exported(&[("mode", "min")]).await;
    let mut second = machine(&memory);
    second.write("f", "changed");
    second.request.cache_from = vec![spec(&[])];
    second.build(stages).await.expect("built");
    assert_eq!(counts(&second), (1, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_is_broken_or_lies_costs_time_only() {
    if !privileged("a_cache_that_is_broken_or_lies_costs_time_only") {
        return;
    }
    let memory = exported(&[("mode", "max")]).await;
    for fault in [
        Fault::Closed,
        Fault::Hangs,
        Fault::Short,
        Fault::Gone,
        Fault::Pretends,
        Fault::Swapped,
        Fault::OtherDiffId,
        Fault::OtherKind,
        Fault::OtherKeys,
    ] {
        let mut second = machine(&memory.with(fault));
        second.request.cache_from = vec![spec(&[])];
        let began = Instant::now();
        second.build(stages).await.unwrap_or_else(|error| panic!("{fault:?}: {}", error.failure));
        assert!(began.elapsed().as_secs() < 20, "{fault:?} took {:?}", began.elapsed());
        for (name, text) in [("side", "of the side"), ("base", "of the base"), ("f", "content")] {
            assert_eq!(read(&second, name), text, "{fault:?}");
        }
        let silent = [Fault::OtherKind, Fault::OtherKeys].contains(&fault);
        assert_eq!(second.log.warnings() > 0, !silent, "{fault:?}");
        // And nothing of it is left: with its own records the machine needs nobody.
        second.request.cache_from = Vec::new();
        second.build(stages).await.expect("built");
        assert_eq!(counts(&second).1, 0, "{fault:?}");
        assert_eq!(second.log.warnings(), 0, "{fault:?}");
    }
}

/// Stacks layers without reading them.
fn stack(host: &FrontendHost) -> Edge {
    let part = |name: &str| file(host, None, None, write(&format!("/{name}"), name));
    let merge = |inputs: Vec<Edge>| host.graph.insert(Op::Merge, inputs).expect("merge")[0];
    let below = merge(vec![part("one"), part("two")]);
    let context = local(host);
    merge(vec![below, file(host, None, Some(context), copy(0, "/f", "/f"))])
}

/// A stack that nobody reads before it is written.
fn unread(host: &FrontendHost) -> Result<(), Failure> {
    yield_image(host, stack(host))
}

/// And one that is read of.
fn stacked(host: &FrontendHost) -> Result<(), Failure> {
    let linked = stack(host);
    yield_image(host, file(host, Some(linked), Some(linked), copy(1, "/one", "/copied")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_that_were_stacked_unread_are_made_anew_where_they_are_gone() {
    if !privileged("layers_that_were_stacked_unread_are_made_anew") {
        return;
    }
    let memory = Memory::new(Fault::Nothing);
    let mut first = machine(&memory);
    first.request.cache_to = vec![spec(&[("mode", "max")])];
    first.build(stacked).await.expect("built");
    for (fault, change) in [(Fault::Gone, false), (Fault::Gone, true), (Fault::Swapped, true)] {
        let mut second = machine(&memory.with(fault));
        if change {
            // What is stacked on top is another, so that what lies below is stacked anew.
            second.write("f", "changed");
        }
        second.request.cache_from = vec![spec(&[])];
        let built = second.build(stacked).await;
        built.unwrap_or_else(|error| panic!("{fault:?} {change}: {}", error.failure));
        for (name, text) in [("one", "one"), ("two", "two"), ("copied", "one")] {
            assert_eq!(read(&second, name), text, "{fault:?} {change}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_whose_layers_nobody_has_any_more_is_made_anew_when_it_is_written() {
    if !privileged("a_stack_whose_layers_nobody_has_any_more_is_made_anew") {
        return;
    }
    let memory = Memory::new(Fault::Nothing);
    let mut first = machine(&memory);
    first.request.cache_to = vec![spec(&[("mode", "max")])];
    first.build(unread).await.expect("built");
    // Named by this build, and not asked for any more.
    for (asked, change) in [(true, false), (true, true), (false, false), (false, true)] {
        for kind in [OutputKind::Local, OutputKind::Oci] {
            let mut second = machine(&memory);
            second.request.cache_from = vec![spec(&[])];
            // The records come, and no layer.
            let outputs = std::mem::take(&mut second.request.outputs);
            second.build(unread).await.expect("built");
            second.request.outputs = outputs;
            if kind == OutputKind::Oci {
                second.output(kind, OutputDest::File(second.path("out.tar")), &[]);
            }
            if change {
                second.write("f", "changed");
            }
            let fault = if asked { Fault::Gone } else { Fault::Nothing };
            second.remotes.insert("memory".to_owned(), Arc::new(memory.with(fault)));
            second.request.cache_from.truncate(usize::from(asked));
            let built = second.build(unread).await;
            built.unwrap_or_else(|error| panic!("{asked} {change} {kind:?}: {}", error.failure));
            if kind == OutputKind::Local {
                let f = if change { "changed" } else { "content" };
                for (name, text) in [("one", "one"), ("two", "two"), ("f", f)] {
                    assert_eq!(read(&second, name), text, "{asked} {change}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_that_two_caches_have_lost_is_made_anew() {
    if !privileged("a_stack_that_two_caches_have_lost_is_made_anew") {
        return;
    }
    let memory = Memory::new(Fault::Nothing);
    let mut first = machine(&memory);
    first.request.cache_to = vec![spec(&[("mode", "max")])];
    first.build(unread).await.expect("built");
    let mut second = machine(&memory);
    second.remotes.insert("another".to_owned(), Arc::new(memory.with(Fault::Gone)));
    second.remotes.insert("memory".to_owned(), Arc::new(memory.with(Fault::Gone)));
    let another = CacheSpec { backend: "another".to_owned(), ..spec(&[]) };
    second.request.cache_from = vec![spec(&[]), another];
    second.output(OutputKind::Oci, OutputDest::File(second.path("out.tar")), &[]);
    // What the first has lost is found in the second, and is gone there, too.
    second.build(unread).await.unwrap_or_else(|error| panic!("{}", error.failure));
    assert_eq!(counts(&second).1, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_fails_fails_the_build_unless_it_may() {
    if !privileged("an_export_that_fails_fails_the_build_unless_it_may") {
        return;
    }
    for fault in [Fault::Closed, Fault::Full] {
        let memory = Memory::new(fault);
        let mut place = machine(&memory);
        place.request.cache_to = vec![spec(&[])];
        let error = place.build(stages).await.expect_err("failed");
        assert!(error.step.is_some() && error.failure.message.contains("export the cache"));
        place.request.cache_to = vec![spec(&[("ignore-error", "true")])];
        place.build(stages).await.expect("built");
        assert_eq!(place.log.warnings(), 1, "{fault:?}");
        assert_eq!(read(&place, "f"), "content");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_export_cannot_do_is_refused_before_anything_runs() {
    if !privileged("what_an_export_cannot_do_is_refused_before_anything_runs") {
        return;
    }
    for attrs in [
        ("mode", "middle"),
        ("compression", "rar"),
        ("compression-level", "high"),
        ("ignore-error", "perhaps"),
        ("oci-mediatypes", "false"),
        ("image-manifest", "false"),
    ] {
        let mut place = machine(&Memory::new(Fault::Nothing));
        place.request.cache_to = vec![spec(&[attrs])];
        place.build(stages).await.expect_err("refused");
        assert_eq!(counts(&place), (0, 0), "{attrs:?}");
    }
}
