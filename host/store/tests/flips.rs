//! Bits that rot: one is changed in a file of any kind that the store keeps. Whatever is read then is
//! right or not found, a check finds the damage, and after a repair everything is well.

mod crash;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crash::{Rng, key, open, scratch};
use rustix::fs::{Mode, OFlags};
use wbuild_graph::{BlobDigest, ContentDigest, Digest};
use wbuild_store::{
    BlobRef, FsckHelp, FsckOptions, Gc, LayerRecord, LayerState, Limits, OutputRecord, Record,
    Remedy, Space, Store, StoredLayer,
};

/// Another number: `WBUILD_FLIPS`.
const FLIPS: u64 = 200;
const RESULTS: u64 = 6;
const BUCKET: &str = "flips";

fn text(part: &str, n: u64) -> Vec<u8> {
    format!("{part} {n} ").repeat(40 + n as usize * 7).into_bytes()
}

/// Everything that a store holds, made durable.
fn fill(store: &Store) {
    for n in 0..RESULTS {
        let builder = store.begin_snapshot().unwrap();
        let flags = OFlags::WRONLY | OFlags::CREATE;
        let fd = rustix::fs::openat(builder.fs(), "data", flags, Mode::RUSR).unwrap();
        std::io::Write::write_all(&mut std::fs::File::from(fd), &text("file", n)).unwrap();
        let layer = builder.commit().unwrap();
        let config = store.put_blob(&text("config", n)).unwrap();
        store
            .put_record(&Record {
                keys: vec![key(n, 0), key(n, 1)],
                outputs: vec![OutputRecord {
                    layers: vec![LayerRecord {
                        snapshot: Some(*layer),
                        content_digest: Some(ContentDigest(Digest::of(&text("file", n)))),
                        ..LayerRecord::default()
                    }],
                    ..OutputRecord::default()
                }],
                description: format!("result {n}"),
                attachments: vec![BlobRef {
                    media_type: "config".into(),
                    digest: config,
                    size: text("config", n).len() as u64,
                }],
                ..Record::default()
            })
            .unwrap();
        store.save_context(&n.to_string(), &text("context", n)).unwrap();
        let bucket = store.kv().unwrap().open_bucket(BUCKET).unwrap();
        bucket.apply(&[(n.to_be_bytes().to_vec(), Some(text("pair", n)))]).unwrap();
    }
    store.seal().unwrap();
    let limits = Limits { max_used: Some(Space::Percent(100)), ..Limits::default() };
    store.collect(&Gc { limits, since: SystemTime::now() }).unwrap();
    store.close_account().unwrap();
}

/// The digest of a layer's only file, or of nothing.
fn content(files: impl AsFd) -> Digest {
    let fd = rustix::fs::openat(files, "data", OFlags::RDONLY, Mode::empty());
    let bytes = fd.map(|fd| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::fs::File::from(fd), &mut bytes).unwrap();
        bytes
    });
    Digest::of(&bytes.unwrap_or_default())
}

fn check_layer(layer: StoredLayer<'_>) -> wbuild_store::Result<LayerState> {
    let wanted = layer.record.content_digest.expect("every layer has one").0;
    Ok(match content(&layer.files) == wanted {
        true => LayerState::Good,
        false => LayerState::Damaged("another content".into()),
    })
}

fn fsck(store: &Store, repair: bool) -> wbuild_store::FsckReport {
    let scratch = tempfile::tempdir().unwrap();
    let options = FsckOptions { verify_blobs: true, repair };
    let help = FsckHelp { layer: Some(&check_layer), scratch: Some(scratch.path()) };
    store.fsck_with(options, help).unwrap()
}

/// Reads everything there is. What is found must be right; answers how much was not found.
fn read_all(store: &Store, context: &str) -> usize {
    let mut missing = 0;
    for n in 0..RESULTS {
        for alias in 0..2 {
            let Some(record) = store.get_record(&key(n, alias)).unwrap() else {
                missing += 1;
                continue;
            };
            assert_eq!(record.description, format!("result {n}"), "{context}");
            match store.read_blob(&record.attachments[0].digest, 1 << 20) {
                Ok(None) | Err(_) => missing += 1,
                Ok(Some(bytes)) => assert!(bytes == text("config", n), "{context}"),
            }
        }
        match store.load_context(&n.to_string()).unwrap() {
            None => missing += 1,
            Some(bytes) => assert!(bytes == text("context", n), "{context}"),
        }
    }
    let bucket = store.kv().unwrap().open_bucket(BUCKET).unwrap();
    for (n, found) in (0..RESULTS).zip(
        bucket
            .get_many(&(0..RESULTS).map(|n| n.to_be_bytes().to_vec()).collect::<Vec<_>>())
            .unwrap(),
    ) {
        match found {
            None => missing += 1,
            Some(bytes) => assert!(bytes == text("pair", n), "{context}"),
        }
    }
    missing
}

fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// The stored files of each kind, with the bytes in use.
fn files(state: &Path) -> BTreeMap<&'static str, Vec<PathBuf>> {
    let mut out: BTreeMap<_, Vec<PathBuf>> = BTreeMap::new();
    let mut folders = vec![state.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let below = path.strip_prefix(state).unwrap().to_string_lossy().into_owned();
            let kind = match below.split('/').next().unwrap() {
                "FORMAT" => "format",
                "seals" => "seals",
                "usage" => "usage",
                "blobs" => "blob",
                "snapshots" => "layer",
                "records" => "record",
                "contexts" => "document",
                "index" if path.is_dir() => "",
                "index" if below.ends_with("/epochs") => "epochs",
                "index" if below.ends_with("/db") => "index",
                _ => continue,
            };
            match path.is_dir() {
                true => folders.push(path),
                false => out.entry(kind).or_default().push(path),
            }
        }
    }
    out.values_mut().for_each(|files| files.sort());
    out
}

#[test]
fn child_process() {
    crash::run_child_if_asked(|| {});
}

#[test]
fn no_flipped_bit_gives_a_wrong_answer_and_a_check_finds_it() {
    let dir = scratch();
    let good = dir.path().join("good");
    {
        let store = open(&good, "boot-1");
        fill(&store);
        assert_eq!(read_all(&store, "before"), 0);
        store.close_account().unwrap();
    }
    let kinds = files(&good);
    assert_eq!(kinds.len(), 9, "{:?}", kinds.keys());
    let mut rng = Rng::new(u64::from(std::process::id()));
    let mut unseen: BTreeMap<&str, u32> = BTreeMap::new();
    let flips = crash::rounds("WBUILD_FLIPS", FLIPS);
    for flip in 0..flips {
        let (kind, files) = kinds.iter().nth(flip as usize % kinds.len()).unwrap();
        let from = &files[rng.below(files.len() as u64) as usize];
        let state = dir.path().join("state");
        copy(&good, &state);
        let path = state.join(from.strip_prefix(&good).unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        // The index's file is longer than what is in it.
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let (at, bit) = (rng.below(used as u64) as usize, rng.below(8));
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, bytes).unwrap();
        let context = format!("flip {flip}: bit {bit} of byte {at} of {}", from.display());
        flipped(kind, &state, &context, &mut unseen);
        std::fs::remove_dir_all(&state).unwrap();
    }
    // Parts of the index's file that are superseded, and a file that only says how much is used and
    // is measured anew, are nothing that could be missed.
    let others: Vec<_> = unseen.keys().filter(|kind| !["index", "usage"].contains(*kind)).collect();
    eprintln!("{flips} flips, of no consequence: {unseen:?}");
    assert!(others.is_empty(), "not found: {unseen:?}");
}

fn flipped<'a>(kind: &&'a str, state: &Path, context: &str, unseen: &mut BTreeMap<&'a str, u32>) {
    let options = |boot: &str| wbuild_store::OpenOptions {
        boot_id: Some(boot.into()),
        wait: wbuild_store::LockWait::Fail,
        ..wbuild_store::OpenOptions::default()
    };
    // Another boot: what was sealed must hold by itself.
    let store = match Store::open(state, options("boot-2")) {
        Ok(store) => store,
        Err(error) => {
            assert_eq!(*kind, "format", "{context}: {error}");
            return;
        }
    };
    assert_ne!(*kind, "format", "{context}: it opens");
    let before = fsck(&store, false);
    let found = !before.problems.is_empty();
    let missing = read_all(&store, context);
    if !found && missing == 0 {
        *unseen.entry(*kind).or_default() += 1;
    }
    let repaired = fsck(&store, true);
    assert!(repaired.is_repaired(), "{context}: {repaired:?}");
    for problem in &repaired.problems {
        if let Remedy::SetAside(to) = &problem.remedy {
            assert!(to.exists(), "{context}: {problem:?}");
        }
    }
    let after = fsck(&store, false);
    assert!(after.problems.is_empty(), "{context}: {after:?}");
    // What is left is right, files included, and what is made again is found.
    read_all(&store, context);
    for n in 0..RESULTS {
        if let Some(record) = store.get_record(&key(n, 0)).unwrap() {
            let view = store.view(&record.snapshots().collect::<Vec<_>>()).unwrap();
            assert_eq!(content(&view), Digest::of(&text("file", n)), "{context}");
        }
    }
    fill(&store);
    assert_eq!(read_all(&store, context), 0, "{context}: after it was made again");
    let blob = BlobDigest(Digest::of(&text("config", 0)));
    assert_eq!(store.verify_blob(&blob).unwrap(), wbuild_store::BlobCheck::Good, "{context}");
}
