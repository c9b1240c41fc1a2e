//! What every cache backend promises to the host (wit/cache, interface `backend`), tried over any place
//! that one keeps its cache in: values, or real stores and servers.

use std::sync::Arc;

use async_trait::async_trait;
use wbuild_api::extension::{CacheBackend, LayerDescriptor, RecordEntry};
use wbuild_graph::{Attrs, CacheKey, DiffId, Digest, Failure, FailureKind, ResultId};

/// Where a cache is kept, and the machines that use it. All are empty in the beginning.
#[async_trait]
pub trait Place: Send + Sync {
    /// The backend on a machine, opened to `read` or `write`.
    async fn open(&self, machine: &str, mode: &str) -> Result<Arc<dyn CacheBackend>, Failure>;
    /// Puts a blob into the content store of a machine.
    fn put(&self, machine: &str, content: &[u8]);
    /// What the content store of a machine has of a blob.
    fn held(&self, machine: &str, digest: &Digest) -> Option<Vec<u8>>;
    /// Machines share the cache, and layers come from one to the other by it.
    fn is_shared(&self) -> bool;
}

/// A promise: what it is called, and how it is tried. `Ok` with a note where a backend may leave
/// something out and does.
pub struct Promise {
    /// A sentence.
    pub name: &'static str,
    tried: for<'a> fn(&'a dyn Place) -> Tried<'a>,
}

type Tried<'a> =
    std::pin::Pin<Box<dyn Future<Output = Result<Option<String>, String>> + Send + 'a>>;

impl Promise {
    /// Tries it in a place that nothing else has used.
    ///
    /// # Errors
    ///
    /// What was answered instead.
    pub async fn keep(&self, place: &dyn Place) -> Result<Option<String>, String> {
        (self.tried)(place).await
    }
}

/// All promises.
pub static PROMISES: [Promise; 9] = [
    Promise { name: "an empty cache knows nothing", tried: |place| Box::pin(empty(place)) },
    Promise {
        name: "what is saved is found by every key, newest first",
        tried: |place| Box::pin(found_by_every_key(place)),
    },
    Promise {
        name: "what was saved is found before it is committed",
        tried: |place| Box::pin(found_at_once(place)),
    },
    Promise {
        name: "an equal record becomes an alias, and saving again changes nothing",
        tried: |place| Box::pin(aliases(place)),
    },
    Promise { name: "layers are where they are wanted", tried: |place| Box::pin(layers(place)) },
    Promise { name: "what is nowhere is gone", tried: |place| Box::pin(nowhere(place)) },
    Promise {
        name: "a backend for reading writes nothing",
        tried: |place| Box::pin(reading(place)),
    },
    Promise { name: "records are pruned by age and name", tried: |place| Box::pin(pruning(place)) },
    Promise { name: "many results are no matter", tried: |place| Box::pin(many(place)) },
];

type Kept = Result<Option<String>, String>;

/// The machine that most is tried on.
const HERE: &str = "here";
/// Another one.
const THERE: &str = "there";

/// A key by a name.
pub fn key(name: &str) -> CacheKey {
    CacheKey(Digest::of(format!("key {name}").as_bytes()))
}

/// A result by a name.
pub fn id(name: &str) -> ResultId {
    ResultId(Digest::of(format!("result {name}").as_bytes()))
}

/// What the host says of a layer of these bytes.
pub fn layer(content: &[u8]) -> LayerDescriptor {
    let mut attrs = Attrs::default();
    attrs.push("compression", "gzip");
    LayerDescriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
        digest: Digest::of(content),
        size: content.len() as u64,
        diff_id: Some(DiffId(Digest::of(&[content, b" unpacked"].concat()))),
        uncompressed_size: Some(2 * content.len() as u64),
        attrs,
    }
}

fn here(place: &dyn Place, content: &[u8]) -> LayerDescriptor {
    place.put(HERE, content);
    layer(content)
}

/// A record of a result.
pub fn record(name: &str, keys: &[&str], created: u64, layers: &[LayerDescriptor]) -> RecordEntry {
    let mut attrs = Attrs::default();
    attrs.push("kind", "result");
    attrs.push("output-index", "0");
    RecordEntry {
        keys: keys.iter().map(|name| key(name)).collect(),
        id: id(name),
        layers: layers.to_vec(),
        created,
        attrs,
    }
}

fn failed(what: &str) -> impl FnOnce(Failure) -> String {
    move |failure| format!("{what} fails: {failure}")
}

async fn opened(place: &dyn Place, mode: &str) -> Result<Arc<dyn CacheBackend>, String> {
    place.open(HERE, mode).await.map_err(failed("opening it"))
}

/// Exports records with their layers, as a build does.
async fn export(place: &dyn Place, records: &[RecordEntry]) -> Result<(), String> {
    let backend = opened(place, "write").await?;
    let layers: Vec<LayerDescriptor> =
        records.iter().flat_map(|record| record.layers.clone()).collect();
    for answer in backend.push(layers).await.map_err(failed("pushing"))? {
        answer.map_err(failed("pushing a layer"))?;
    }
    backend.save(records.to_vec()).await.map_err(failed("saving"))?;
    backend.commit().await.map(drop).map_err(failed("committing"))
}

async fn find(
    backend: &Arc<dyn CacheBackend>,
    keys: Vec<CacheKey>,
) -> Result<Vec<Vec<RecordEntry>>, String> {
    let count = keys.len();
    let found = backend.find(keys).await.map_err(failed("finding"))?;
    same("the number of lists", &found.len(), &count)?;
    Ok(found)
}

async fn ids(backend: &Arc<dyn CacheBackend>, name: &str) -> Result<Vec<ResultId>, String> {
    let found = find(backend, vec![key(name)]).await?;
    Ok(found.into_iter().flatten().map(|record| record.id).collect())
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, want: &T) -> Result<(), String> {
    match got == want {
        true => Ok(()),
        false => Err(format!("{what}: it answers {got:?}, and not {want:?}")),
    }
}

fn kind<T>(what: &str, answer: Result<T, Failure>, want: FailureKind) -> Result<Failure, String> {
    match answer {
        Ok(_) => Err(format!("{what} does not fail")),
        Err(failure) if failure.kind == want => Ok(failure),
        Err(failure) => {
            let (got, want) = (failure.kind.as_str(), want.as_str());
            Err(format!("{what} fails with the kind {got:?} instead of {want:?}: {failure}"))
        }
    }
}

async fn empty(place: &dyn Place) -> Kept {
    for mode in ["read", "write"] {
        let backend = opened(place, mode).await?;
        let found = find(&backend, vec![key("a"), key("b"), key("a")]).await?;
        same("three unknown keys", &found, &vec![Vec::new(); 3])?;
        find(&backend, Vec::new()).await?;
    }
    Ok(None)
}

async fn found_by_every_key(place: &dyn Place) -> Kept {
    let layers: Vec<_> = (0..3u8).map(|n| here(place, &[n; 100])).collect();
    let records = [
        record("old", &["one", "two"], 10, &layers[..1]),
        record("new", &["one"], 30, &layers),
        record("middle", &["one", "three"], 20, &[]),
    ];
    export(place, &records).await?;
    let backend = opened(place, "read").await?;
    let found = find(&backend, vec![key("two"), key("none"), key("one"), key("three")]).await?;
    let ids: Vec<Vec<ResultId>> =
        found.iter().map(|list| list.iter().map(|record| record.id).collect()).collect();
    let want =
        vec![vec![id("old")], vec![], vec![id("new"), id("middle"), id("old")], vec![id("middle")]];
    same("four keys", &ids, &want)?;
    // Nothing of a record is lost or changed; keys have no order.
    for (found, saved) in found[2].iter().zip([&records[1], &records[2], &records[0]]) {
        let sorted = |record: &RecordEntry| {
            let mut keys = record.keys.clone();
            keys.sort();
            RecordEntry { keys, ..record.clone() }
        };
        same("a record that was saved", &sorted(found), &sorted(saved))?;
    }
    Ok(None)
}

async fn found_at_once(place: &dyn Place) -> Kept {
    export(place, &[record("before", &["k"], 10, &[])]).await?;
    let backend = opened(place, "write").await?;
    backend.save(vec![record("now", &["k"], 20, &[])]).await.map_err(failed("saving"))?;
    same("the key", &ids(&backend, "k").await?, &vec![id("now"), id("before")])?;
    Ok(None)
}

async fn aliases(place: &dyn Place) -> Kept {
    let layers = [here(place, b"layer")];
    let (one, two) = (record("r", &["one"], 10, &layers), record("r", &["two"], 10, &layers));
    let mut other = record("r", &["one"], 10, &layers);
    other.attrs.push("exit-code", "1");
    for round in 1..=3 {
        let backend = opened(place, "write").await?;
        for answer in backend.push(layers.to_vec()).await.map_err(failed("pushing"))? {
            answer.map_err(failed("pushing a layer"))?;
        }
        for record in [&one, &two, &one, &other] {
            backend.save(vec![record.clone()]).await.map_err(failed("saving"))?;
        }
        backend.commit().await.map_err(failed("committing"))?;
        let backend = opened(place, "read").await?;
        let what = format!("two records of one id, saved {round} times");
        same(&what, &ids(&backend, "one").await?, &vec![id("r"); 2])?;
        let found = find(&backend, vec![key("two")]).await?.remove(0);
        same("records of the alias", &found.len(), &1)?;
        same("its attributes", &found[0].attrs, &two.attrs)?;
        same("its layers", &found[0].layers, &layers.to_vec())?;
    }
    Ok(None)
}

/// Enough bytes that they come in several pieces.
pub fn much(seed: u8) -> Vec<u8> {
    (0..600_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed).collect()
}

async fn layers(place: &dyn Place) -> Kept {
    let contents = [b"small".to_vec(), much(1), much(2), Vec::new()];
    let layers: Vec<_> = contents.iter().map(|content| here(place, content)).collect();
    export(place, &[record("r", &["k"], 1, &layers)]).await?;
    if !place.is_shared() {
        let backend = opened(place, "read").await?;
        for answer in backend.fetch(layers).await.map_err(failed("fetching"))? {
            answer.map_err(failed("fetching a layer that is here"))?;
        }
        return Ok(Some("of this machine only".to_owned()));
    }
    let backend = place.open(THERE, "read").await.map_err(failed("opening it"))?;
    let found = find(&backend, vec![key("k")]).await?.remove(0);
    let found = found.into_iter().next().ok_or("another machine does not find the record")?;
    same("the layers of the record", &found.layers, &layers)?;
    for layer in &layers {
        same("moved before it was asked for", &place.held(THERE, &layer.digest), &None)?;
    }
    for _ in 0..2 {
        for answer in backend.fetch(found.layers.clone()).await.map_err(failed("fetching"))? {
            answer.map_err(failed("fetching a layer"))?;
        }
    }
    for (layer, content) in layers.iter().zip(contents) {
        if place.held(THERE, &layer.digest) != Some(content) {
            return Err(format!("a layer of {} bytes has not come", layer.size));
        }
    }
    // Who writes need not have what is there.
    let backend = place.open("bare", "write").await.map_err(failed("opening it"))?;
    for answer in backend.push(layers).await.map_err(failed("pushing"))? {
        answer.map_err(failed("pushing a layer that is there already"))?;
    }
    Ok(None)
}

async fn nowhere(place: &dyn Place) -> Kept {
    export(place, &[record("r", &["k"], 1, &[here(place, b"here")])]).await?;
    let backend = opened(place, "write").await?;
    let wanted = vec![layer(b"nowhere"), layer(b"here")];
    for (what, answers) in [
        ("pushing", backend.push(wanted.clone()).await),
        ("fetching", backend.fetch(wanted.clone()).await),
    ] {
        let mut answers = answers.map_err(failed(what))?;
        same("the number of answers", &answers.len(), &2)?;
        let last = answers.pop().expect("two");
        last.map_err(failed(&format!("{what} what is here, beside what is nowhere,")))?;
        let first = answers.pop().expect("two");
        kind(&format!("{what} what is nowhere"), first, FailureKind::Gone)?;
    }
    Ok(None)
}

async fn reading(place: &dyn Place) -> Kept {
    export(place, &[record("r", &["k"], 1, &[])]).await?;
    let backend = opened(place, "read").await?;
    let saved = backend.save(vec![record("s", &["k"], 2, &[])]).await;
    kind("saving to one for reading", saved, FailureKind::Denied)?;
    kind("committing one for reading", backend.commit().await, FailureKind::Denied)?;
    same("the key", &ids(&backend, "k").await?, &vec![id("r")])?;
    Ok(None)
}

async fn pruning(place: &dyn Place) -> Kept {
    let records: Vec<_> = (0..3u64)
        .map(|n| record(&n.to_string(), &["k"], 10 * (n + 1), &[here(place, &[n as u8; 50])]))
        .collect();
    export(place, &records).await?;
    let backend = opened(place, "write").await?;
    let mut options = Attrs::default();
    options.push("older-than", "25");
    options.push("keep", id("0").to_string());
    let pruned = match backend.prune(options).await {
        Err(failure) if failure.kind == FailureKind::Unsupported => {
            return Ok(Some(format!("not offered: {failure}")));
        }
        pruned => pruned.map_err(failed("pruning"))?,
    };
    let said = (pruned.get("removed"), pruned.get("kept"));
    same("what was removed and kept", &said, &(Some("1"), Some("2")))?;
    let backend = opened(place, "read").await?;
    same("the key afterwards", &ids(&backend, "k").await?, &vec![id("2"), id("0")])?;
    Ok(None)
}

async fn many(place: &dyn Place) -> Kept {
    let layers: Vec<_> = (0..20u8).map(|n| here(place, &[n; 50])).collect();
    let records: Vec<RecordEntry> = (0..200)
        .map(|n| {
            let name = n.to_string();
            record(&name, &[&name], n as u64, &layers[..n % 20])
        })
        .collect();
    let backend = opened(place, "write").await?;
    for answer in backend.push(layers).await.map_err(failed("pushing"))? {
        answer.map_err(failed("pushing a layer"))?;
    }
    for part in records.chunks(60) {
        backend.save(part.to_vec()).await.map_err(failed("saving"))?;
    }
    backend.commit().await.map_err(failed("committing"))?;
    let backend = opened(place, "read").await?;
    let keys: Vec<CacheKey> = records.iter().map(|record| record.keys[0]).collect();
    for (list, saved) in find(&backend, keys).await?.iter().zip(&records) {
        same("one of 200 keys", &list.as_slice(), &std::slice::from_ref(saved))?;
    }
    Ok(None)
}
