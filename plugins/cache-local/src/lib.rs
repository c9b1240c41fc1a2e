//! The local cache backend: a component of world `wbuild:cache/local-cache` that keeps cache
//! records in the host's key-value buckets. Layers stay where they are, in the host's store.
//!
//! This file is the border: it turns host resources into plain values and back. What a record is
//! and how it is found is in [`records`], how it is written in [`encoding`]; neither calls a host.

mod encoding;
mod records;

mod bindings {
    // Generated: the component ABI is made of raw pointers.
    #![allow(unsafe_code, missing_docs)]
    wit_bindgen::generate!({
        path: ["../../wit/types", "../../wit/cache"],
        world: "wbuild:cache/local-cache",
        generate_all,
        additional_derives: [PartialEq],
    });
    export!(CacheLocal with_types_in self);
    use super::CacheLocal;
}

use std::cell::RefCell;

use bindings::exports::wbuild::cache::backend::{Attrs, Guest, RecordEntry};
use bindings::wbuild::cache::blobs::{self, Blob, Descriptor};
use bindings::wbuild::cache::kv::Bucket;
use bindings::wbuild::types::log::log;
use bindings::wbuild::types::types::{Failure, Severity};
use cache_records::PruneOptions;
use cache_records::session::{self, Need, Opened, writes};
use records::{Kv, Pair, Records};

struct CacheLocal;

/// What `open` made; an instance serves one backend, direction and build.
struct Session {
    records: Records<Bucket>,
    writable: bool,
    saved: usize,
}

impl Opened for Session {
    type Failure = Failure;

    fn is_writable(&self) -> bool {
        self.writable
    }

    fn failure(kind: &str, message: String) -> Failure {
        failure(kind, message)
    }
}

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

impl Guest for CacheLocal {
    fn open(mode: String, config: Attrs) -> Result<(), Failure> {
        let writable = writes(&mode).map_err(|message| failure("invalid", message))?;
        refuse_unknown("backend.open", &config, &[])?;
        let records =
            Records { index: Bucket::open("records")?, results: Bucket::open("results")? };
        SESSION.set(Some(Session { records, writable, saved: 0 }));
        Ok(())
    }

    fn find(keys: Vec<String>) -> Result<Vec<Vec<RecordEntry>>, Failure> {
        with(Need::Read, "find", |session| {
            let (found, unreadable) = session.records.find(&keys)?;
            if unreadable > 0 {
                log(
                    Severity::Warning,
                    &format!("{unreadable} cache records cannot be read and are passed over"),
                );
            }
            Ok(found)
        })
    }

    fn fetch(layers: Vec<Descriptor>) -> Vec<Result<Blob, Failure>> {
        layers.iter().map(present).collect()
    }

    fn save(entries: Vec<RecordEntry>) -> Result<(), Failure> {
        with(Need::Write, "save", |session| {
            session.records.save(&entries)?;
            session.saved += entries.len();
            Ok(())
        })
    }

    fn push(layers: Vec<Descriptor>) -> Vec<Result<(), Failure>> {
        // The backend's layers are the store's own: there is nowhere to push them to.
        layers.iter().map(|layer| present(layer).map(drop)).collect()
    }

    fn commit(_options: Attrs) -> Result<Attrs, Failure> {
        // Batches are durable at the host's next group commit; nothing is buffered here.
        with(Need::Write, "commit", |session| {
            Ok(vec![("records".to_owned(), session.saved.to_string())])
        })
    }

    fn prune(options: Attrs) -> Result<Attrs, Failure> {
        refuse_unknown("backend.prune", &options, &["keep", "older-than"])?;
        let options =
            PruneOptions::parse(&options).map_err(|message| failure("invalid", message))?;
        with(Need::Write, "prune", |session| {
            let pruned = session.records.prune(&options)?;
            Ok(vec![
                ("removed".to_owned(), pruned.removed.to_string()),
                ("kept".to_owned(), pruned.kept.to_string()),
            ])
        })
    }
}

/// Runs `action` on the session, if there is one and its mode allows it.
fn with<T>(
    need: Need,
    call: &str,
    action: impl FnOnce(&mut Session) -> Result<T, Failure>,
) -> Result<T, Failure> {
    session::with(&SESSION, need, call, action)
}

fn present(layer: &Descriptor) -> Result<Blob, Failure> {
    blobs::open(&layer.digest)
        .ok_or_else(|| failure("gone", format!("layer {} is no longer in the store", layer.digest)))
}

fn refuse_unknown(call: &str, attrs: &Attrs, known: &[&str]) -> Result<(), Failure> {
    match attrs.iter().find(|(key, _)| !key.starts_with("x-") && !known.contains(&key.as_str())) {
        None => Ok(()),
        Some((key, _)) => Err(failure("unsupported", format!("{call} knows no key {key:?}"))),
    }
}

fn failure(kind: &str, message: String) -> Failure {
    Failure {
        kind: kind.to_owned(),
        message,
        retryable: false,
        diagnostics: Vec::new(),
        attrs: Vec::new(),
    }
}

impl Kv for Bucket {
    type Error = Failure;

    fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        Bucket::get_many(self, keys)
    }

    fn scan(&self, after: Option<&[u8]>, limit: u32) -> Result<Vec<Pair>, Failure> {
        Bucket::scan(self, &[], after, limit)
    }

    fn apply(&self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), Failure> {
        Bucket::apply(self, changes)
    }
}
