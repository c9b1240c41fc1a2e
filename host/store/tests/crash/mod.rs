//! What the crash tests share: a child process that works on a store at random and acknowledges
//! after each seal, and the judge that knows what must still be there after its death.
//!
//! The child is this test binary again, told by environment variables. Its lines on standard error
//! begin with `@`:
//!
//! ```text
//! @ready              the store is open
//! @try N V            from here on version V of result N may be found
//! @kv N V             the same for the index
//! @evict              from here on anything may be missing
//! @ack                everything tried before is durable
//! ```

// Each test binary uses its own part.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use wbuild_graph::{BlobDigest, CacheKey, Digest, ResultId};
use wbuild_store::{
    BlobRef, Bounds, FsckOptions, LayerRecord, LockWait, OpenOptions, OutputRecord, PruneFilter,
    Record, Store,
};

/// How many times a rig does its work: `usual`, unless this variable says another number
/// (`sh tests/long.sh crash` sets them).
pub fn rounds(variable: &str, usual: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")),
        Err(_) => usual,
    }
}

/// How many different results the child makes.
const RESULTS: u64 = 24;
const BUCKET: &str = "crash";

/// A small generator: the same seed gives the same work.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

/// The bytes of one part of a version of a result; its size varies with the version.
fn content(part: &str, n: u64, version: u64) -> Vec<u8> {
    let length = 10 + (version % 5) as usize * 1500;
    Rng::new(n ^ version).next().to_le_bytes().repeat(length / 8 + 1)[..length]
        .iter()
        .copied()
        .chain(format!("{part} {n} {version}").into_bytes())
        .collect()
}

pub fn key(n: u64, alias: u64) -> CacheKey {
    CacheKey(Digest::of(format!("key {n} {alias}").as_bytes()))
}

fn result_id(n: u64, version: u64) -> ResultId {
    ResultId(Digest::of(&content("id", n, version)))
}

pub fn open(dir: &Path, boot: &str) -> Store {
    let options = OpenOptions {
        boot_id: Some(boot.to_owned()),
        owner: "crash test".into(),
        wait: LockWait::Timeout(Duration::from_secs(10)),
        ..OpenOptions::default()
    };
    Store::open(dir, options).expect("a store opens after any crash")
}

fn say(text: &str) {
    // One write: a line is there or not.
    let _ = std::io::stderr().write_all(format!("@{text}\n").as_bytes());
}

/// A folder for the state: in memory where there is such a place. A kill leaves the page cache as
/// it is, so the disk plays no part, and others that use it do not slow the test down.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a writable place")
}

// ---- the child ----

/// To be called first by the test named `child_process`: works until it is killed, if this process
/// is a child; else returns at once.
pub fn run_child_if_asked(prepare: impl FnOnce()) {
    let Ok(dir) = std::env::var("WBUILD_CRASH_DIR") else { return };
    let seed = std::env::var("WBUILD_CRASH_SEED").unwrap().parse().unwrap();
    let boot = std::env::var("WBUILD_CRASH_BOOT").unwrap();
    let store = open(Path::new(&dir), &boot);
    say("ready");
    prepare();
    // An injected failure ends the child in the ordinary way.
    let error = work(&store, &mut Rng::new(seed)).unwrap_err();
    say(&format!("failed {error}"));
}

fn work(store: &Store, rng: &mut Rng) -> wbuild_store::Result<()> {
    loop {
        for _ in 0..=rng.below(4) {
            let n = rng.below(RESULTS);
            match rng.below(20) {
                0..=7 => build(store, n, rng)?,
                8..=10 => update(store, n)?,
                11..=13 => index(store, n, rng.next())?,
                14..=15 => store.save_context(&n.to_string(), &content("ctx", n, n))?,
                16..=17 => {
                    if let Some(record) = store.get_record(&key(n, 1))? {
                        store.view(&record.snapshots().take(1).collect::<Vec<_>>())?;
                    }
                }
                18 => {
                    store.prune(&PruneFilter::default())?;
                }
                _ => {
                    if rng.below(4) == 0 {
                        say("evict");
                        let filter = PruneFilter {
                            keep: Some(Bounds::at_most(150_000)),
                            ..PruneFilter::default()
                        };
                        store.prune(&filter)?;
                    }
                }
            }
        }
        store.seal()?;
        say("ack");
    }
}

fn build(store: &Store, n: u64, rng: &mut Rng) -> wbuild_store::Result<()> {
    let version = rng.next();
    // Built on another result now and then: chains share layers.
    let base = store.get_record(&key(rng.below(RESULTS), 0))?;
    let mut layers: Vec<LayerRecord> = match &base {
        Some(base) if base.outputs[0].layers.len() < 4 => base.outputs[0].layers.clone(),
        _ => Vec::new(),
    };
    let builder = store.begin_snapshot()?;
    let flags = OFlags::WRONLY | OFlags::CREATE;
    let fd = rustix::fs::openat(builder.fs(), "data", flags, Mode::RUSR).expect("a new directory");
    std::fs::File::from(fd).write_all(&content("file", n, version)).expect("room for a small file");
    let layer = builder.commit()?;
    layers.push(LayerRecord { snapshot: Some(*layer), ..LayerRecord::default() });
    let config = content("config", n, version);
    let mut ingest = store.ingest(1 << 20)?;
    config.chunks(700).try_for_each(|chunk| ingest.append(chunk))?;
    let config = ingest.commit(None, None)?;
    say(&format!("try {n} {version}"));
    store.put_record(&Record {
        keys: vec![key(n, 0), key(n, 1)],
        outputs: vec![OutputRecord { result_id: None, layers }],
        description: format!("{n} {version}"),
        attachments: vec![BlobRef {
            media_type: "config".into(),
            digest: config.digest,
            size: config.size,
        }],
        ..Record::default()
    })
}

/// What an export does: archives of the layers, and the result's id.
fn update(store: &Store, n: u64) -> wbuild_store::Result<()> {
    let Some(record) = store.get_record(&key(n, 0))? else { return Ok(()) };
    let (found, version) = parse(&record.description);
    let blob = content("blob", found, version);
    let digest = store.put_blob(&blob)?;
    store.update_record(&key(n, 0), |record| {
        // Somebody else may have replaced it meanwhile in a real build; here nobody can.
        record.outputs[0].result_id = Some(result_id(found, version));
        let top = record.outputs[0].layers.last_mut().expect("every result has a layer");
        let size = blob.len() as u64;
        top.blob = Some(BlobRef { media_type: "layer".into(), digest, size });
    })?;
    Ok(())
}

fn index(store: &Store, n: u64, version: u64) -> wbuild_store::Result<()> {
    let bucket = store.kv()?.open_bucket(BUCKET)?;
    say(&format!("kv {n} {version}"));
    let value = content("kv", n, version);
    let mut pair = version.to_le_bytes().to_vec();
    pair.extend_from_slice(&value);
    bucket.apply(&[(n.to_be_bytes().to_vec(), Some(pair))])
}

fn parse(description: &str) -> (u64, u64) {
    let (n, version) = description.split_once(' ').expect("the child's form");
    (n.parse().unwrap(), version.parse().unwrap())
}

// ---- the parent ----

/// A running child.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
    reader: std::thread::JoinHandle<()>,
}

/// Starts the child and waits until it has opened the store.
pub fn start(dir: &Path, seed: u64, boot: &str, variables: &[(&str, String)]) -> Running {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child_process", "--nocapture", "--test-threads=1"])
        .env("WBUILD_CRASH_DIR", dir)
        .env("WBUILD_CRASH_SEED", seed.to_string())
        .env("WBUILD_CRASH_BOOT", boot)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    for (name, value) in variables {
        command.env(name, value);
    }
    let mut child = command.spawn().unwrap();
    let output = child.stderr.take().unwrap();
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let running = Running { child, lines, seen: Vec::new(), reader };
    match running.lines.recv_timeout(Duration::from_secs(30)) {
        Ok(line) if line == "@ready" => {}
        other => panic!("the child did not start: {other:?}"),
    }
    running
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Waits until something was acknowledged.
    pub fn wait_for_ack(&mut self) {
        while self.seen.last().is_none_or(|line| line != "@ack") {
            let line = self.lines.recv_timeout(Duration::from_secs(30));
            self.seen.push(line.expect("the child works"));
        }
    }

    /// Waits for the end and gives all lines.
    pub fn finish(mut self) -> Vec<String> {
        // A child that neither fails nor dies within this time never will.
        for _ in 0..6000 {
            if self.child.try_wait().unwrap().is_some() {
                self.reader.join().unwrap();
                self.seen.extend(self.lines.try_iter());
                return self.seen;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        panic!("the child did not end");
    }
}

/// What may and what must be found.
#[derive(Default)]
pub struct Judge {
    /// Acknowledged version, then all tried since.
    acked: BTreeMap<u64, u64>,
    tried: BTreeMap<u64, BTreeSet<u64>>,
    kv_acked: BTreeMap<u64, u64>,
    kv_tried: BTreeMap<u64, BTreeSet<u64>>,
    generation: Option<String>,
    /// Acknowledgements seen, to know that the test tested something.
    pub acks: usize,
}

impl Judge {
    /// Learns from the lines of a child.
    pub fn learn(&mut self, lines: &[String]) {
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        let mut kv_last: BTreeMap<u64, u64> = BTreeMap::new();
        for line in lines {
            let Some(line) = line.strip_prefix('@') else { continue };
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["try", n, version] => {
                    let (n, version) = (n.parse().unwrap(), version.parse().unwrap());
                    last.insert(n, version);
                    self.tried.entry(n).or_default().insert(version);
                }
                ["kv", n, version] => {
                    let (n, version) = (n.parse().unwrap(), version.parse().unwrap());
                    kv_last.insert(n, version);
                    self.kv_tried.entry(n).or_default().insert(version);
                }
                // Evicted records are no loss, but what is found must still be right.
                ["evict"] => {
                    for (n, version) in std::mem::take(&mut self.acked) {
                        self.tried.entry(n).or_default().insert(version);
                    }
                    last.clear();
                }
                ["ack"] => {
                    self.acks += 1;
                    for (n, version) in std::mem::take(&mut last) {
                        self.acked.insert(n, version);
                        self.tried.remove(&n);
                    }
                    for (n, version) in std::mem::take(&mut kv_last) {
                        self.kv_acked.insert(n, version);
                        self.kv_tried.remove(&n);
                    }
                }
                _ => {}
            }
        }
    }

    /// Checks everything in the store against what was said.
    pub fn check(&mut self, store: &Store, context: &str) {
        let report =
            store.fsck(FsckOptions { verify_blobs: true, repair: false }).expect("fsck runs");
        assert!(report.is_clean(), "{context}: {:?}", report.problems);
        for n in 0..RESULTS {
            for alias in 0..2 {
                let found = store.get_record(&key(n, alias)).unwrap();
                let acked = self.acked.get(&n).copied();
                let Some(record) = found else {
                    assert_eq!(acked, None, "{context}: acknowledged result {n}.{alias} is lost");
                    continue;
                };
                let (of, version) = parse(&record.description);
                assert_eq!(of, n, "{context}: a result under a foreign key");
                let tried = self.tried.get(&n).is_some_and(|tried| tried.contains(&version));
                assert!(
                    acked == Some(version) || tried,
                    "{context}: result {n}.{alias} has version {version}, acknowledged {acked:?}"
                );
                check_content(store, &record, n, version, context);
            }
        }
        self.check_index(store, context);
    }

    fn check_index(&mut self, store: &Store, context: &str) {
        if !store.path().join("index/sled").exists() {
            assert!(self.kv_acked.is_empty(), "{context}: the index is gone");
            return;
        }
        let bucket = store.kv().unwrap().open_bucket(BUCKET).unwrap();
        let generation = bucket.generation().unwrap();
        if self.generation.as_ref().is_some_and(|known| *known != generation) {
            // Damaged and begun anew: allowed, as long as it says so.
            self.kv_acked.clear();
            self.kv_tried.clear();
        }
        self.generation = Some(generation);
        let keys: Vec<_> = (0..RESULTS).map(|n| n.to_be_bytes().to_vec()).collect();
        for (n, value) in (0..RESULTS).zip(bucket.get_many(&keys).unwrap()) {
            let acked = self.kv_acked.get(&n).copied();
            let Some(value) = value else {
                assert_eq!(acked, None, "{context}: acknowledged pair {n} is lost");
                continue;
            };
            let (version, value) = value.split_first_chunk().expect("the child's form");
            let version = u64::from_le_bytes(*version);
            let tried = self.kv_tried.get(&n).is_some_and(|tried| tried.contains(&version));
            assert!(acked == Some(version) || tried, "{context}: pair {n} has {version}");
            assert!(value == content("kv", n, version), "{context}: pair {n} is damaged");
        }
    }
}

fn check_content(store: &Store, record: &Record, n: u64, version: u64, context: &str) {
    let top = record.outputs[0].layers.last().expect("every result has a layer");
    let view = store.view(&[top.snapshot.expect("of a snapshot")]).unwrap();
    let fd = rustix::fs::openat(&view, "data", OFlags::RDONLY, Mode::empty());
    let mut bytes = Vec::new();
    std::fs::File::from(fd.expect("its file")).read_to_end(&mut bytes).unwrap();
    assert!(bytes == content("file", n, version), "{context}: files of result {n} are damaged");
    let config = store.read_blob(&record.attachments[0].digest, 1 << 20).unwrap();
    assert!(config == Some(content("config", n, version)), "{context}: config of {n}");
    if let Some(id) = record.outputs[0].result_id {
        assert_eq!(id, result_id(n, version), "{context}: result id of {n}");
    }
    if let Some(blob) = &top.blob {
        let expected = content("blob", n, version);
        assert_eq!(blob.digest, BlobDigest(Digest::of(&expected)), "{context}: archive of {n}");
        // It may have been evicted by itself; then it is made again. It is never wrong.
        if let Some(bytes) = store.read_blob(&blob.digest, 1 << 20).unwrap() {
            assert!(bytes == expected, "{context}: archive of {n}");
        }
    }
}
