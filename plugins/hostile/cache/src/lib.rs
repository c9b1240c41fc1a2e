//! A local cache backend that lies as the key `x-behaviour` of `open`'s config says. The host must
//! treat every lie as a failure of the backend or as a miss, never as a hit.
//!
//! ```text
//! ok              knows nothing, keeps nothing
//! no-open         fails to open
//! short-find      answers one list too few
//! long-find       answers one list too many
//! wrong-keys      answers with a record that has none of the keys asked for
//! no-keys         answers with a record that has no key at all
//! bad-digest      answers with digests that are no digests
//! huge-find       answers with 100,000 records for each key
//! false-hit       answers with a layer that nobody has; `fetch` says gone
//! short-fetch     as false-hit, and `fetch` answers one too few
//! other-blob      as false-hit, and `fetch` answers with a blob of its own making
//! kv-flood        `save` writes values until it is stopped
//! kv-names        opens buckets named like paths
//! trap, spin      in `find`
//! ```

mod bindings {
    // Generated: the component ABI is made of raw pointers.
    #![allow(unsafe_code, missing_docs)]
    wit_bindgen::generate!({
        path: ["../../../wit/types", "../../../wit/cache"],
        world: "wbuild:cache/local-cache",
        generate_all,
    });
    export!(Hostile with_types_in self);
    use super::Hostile;
}

use std::cell::RefCell;

use bindings::exports::wbuild::cache::backend::{Attrs, Guest, RecordEntry};
use bindings::wbuild::cache::blobs::{self, Blob, Descriptor};
use bindings::wbuild::cache::kv::Bucket;
use bindings::wbuild::types::types::Failure;

struct Hostile;

thread_local! {
    static BEHAVIOUR: RefCell<String> = const { RefCell::new(String::new()) };
}

fn behaviour() -> String {
    BEHAVIOUR.with_borrow(String::clone)
}

const NOBODY: &str = "sha256:00000000000000000000000000000000000000000000000000000000deadbeef";

impl Guest for Hostile {
    fn open(_mode: String, config: Attrs) -> Result<(), Failure> {
        let chosen =
            config.into_iter().find(|(key, _)| key == "x-behaviour").map(|(_, value)| value);
        let chosen = chosen.unwrap_or_else(|| "ok".to_owned());
        match chosen.as_str() {
            "no-open" => return Err(failure("unavailable", "does not want to")),
            "kv-names" => {
                for name in ["../records", "/etc", "a/b", "", ".", "a\0b"] {
                    if Bucket::open(name).is_ok() {
                        return Err(failure(
                            "internal",
                            &format!("the bucket {name:?} was opened"),
                        ));
                    }
                }
            }
            _ => {}
        }
        BEHAVIOUR.set(chosen);
        Ok(())
    }

    fn find(keys: Vec<String>) -> Result<Vec<Vec<RecordEntry>>, Failure> {
        let each =
            |make: &dyn Fn(&String) -> Vec<RecordEntry>| keys.iter().map(make).collect::<Vec<_>>();
        let nothing = || each(&|_| Vec::new());
        Ok(match behaviour().as_str() {
            "short-find" => nothing().into_iter().skip(1).collect(),
            "long-find" => nothing().into_iter().chain([Vec::new()]).collect(),
            "wrong-keys" => each(&|_| vec![entry(&[NOBODY.to_owned()], NOBODY)]),
            "no-keys" => each(&|_| vec![entry(&[], NOBODY)]),
            "bad-digest" => {
                each(&|key| vec![entry(std::slice::from_ref(key), "sha256:../../etc/passwd")])
            }
            "huge-find" => each(&|key| vec![entry(std::slice::from_ref(key), NOBODY); 100_000]),
            "false-hit" | "short-fetch" | "other-blob" => {
                each(&|key| vec![entry(std::slice::from_ref(key), NOBODY)])
            }
            "trap" => panic!("a hostile cache gives up"),
            "spin" => loop {
                std::hint::black_box(());
            },
            _ => nothing(),
        })
    }

    fn fetch(layers: Vec<Descriptor>) -> Vec<Result<Blob, Failure>> {
        let gone =
            |layer: &Descriptor| Err(failure("gone", &format!("nobody has {}", layer.digest)));
        match behaviour().as_str() {
            "short-fetch" => layers.iter().skip(1).map(gone).collect(),
            "other-blob" => {
                let own =
                    || blobs::write_small("application/vnd.oci.image.layer.v1.tar", b"not a layer");
                layers.iter().map(|_| own()).collect()
            }
            _ => layers.iter().map(gone).collect(),
        }
    }

    fn save(_entries: Vec<RecordEntry>) -> Result<(), Failure> {
        if behaviour() == "kv-flood" {
            let bucket = Bucket::open("flood")?;
            let value = vec![1u8; 1 << 20];
            for n in 0..1_000_000u32 {
                bucket.apply(&[(n.to_be_bytes().to_vec(), Some(value.clone()))])?;
            }
        }
        Ok(())
    }

    fn push(layers: Vec<Descriptor>) -> Vec<Result<(), Failure>> {
        layers.iter().map(|_| Ok(())).collect()
    }

    fn commit(_options: Attrs) -> Result<Attrs, Failure> {
        Ok(Vec::new())
    }

    fn prune(_options: Attrs) -> Result<Attrs, Failure> {
        Ok(Vec::new())
    }
}

fn entry(keys: &[String], digest: &str) -> RecordEntry {
    let layer = Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        digest: digest.to_owned(),
        size: u64::MAX,
        diff_id: Some(digest.to_owned()),
        uncompressed_size: Some(u64::MAX),
        attrs: Vec::new(),
    };
    RecordEntry {
        keys: keys.to_vec(),
        id: digest.to_owned(),
        layers: vec![layer],
        created: u64::MAX,
        attrs: vec![("kind".to_owned(), "result".to_owned())],
    }
}

fn failure(kind: &str, message: &str) -> Failure {
    Failure {
        kind: kind.to_owned(),
        message: message.to_owned(),
        retryable: false,
        diagnostics: Vec::new(),
        attrs: Vec::new(),
    }
}
