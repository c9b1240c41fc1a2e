//! What every implementation must do: the same operations on it and on a plain model.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{
    Kv, KvStore, MAX_BATCH, MAX_BATCH_BYTES, MAX_KEY, MAX_VALUE, MemoryStore, Pair, SledStore,
};
use crate::error::Error;

/// Runs `check` over every implementation, each in a new store.
fn each(check: impl Fn(&str, &dyn KvStore)) {
    check("memory", &MemoryStore::new().unwrap());
    let dir = tempfile::tempdir().unwrap();
    check("sled", &SledStore::new(dir.path().join("index")));
}

fn put(key: &[u8], value: &[u8]) -> super::Change {
    (key.to_vec(), Some(value.to_vec()))
}

fn delete(key: &[u8]) -> super::Change {
    (key.to_vec(), None)
}

fn keys(pairs: &[Pair]) -> Vec<&[u8]> {
    pairs.iter().map(|(key, _)| &key[..]).collect()
}

#[test]
fn values_are_read_back_and_buckets_are_apart() {
    each(|name, store| {
        let a = store.open_bucket("a").unwrap();
        let b = store.open_bucket("b").unwrap();
        a.apply(&[put(b"k", b"1"), put(b"empty", b""), put(b"k", b"2"), delete(b"none")]).unwrap();
        b.apply(&[put(b"k", b"other")]).unwrap();
        let got = a.get_many(&[b"empty".to_vec(), b"no".to_vec(), b"k".to_vec()]).unwrap();
        assert_eq!(got, [Some(vec![]), None, Some(b"2".to_vec())], "{name}");
        let again = store.open_bucket("a").unwrap();
        assert_eq!(again.get_many(&[b"k".to_vec()]).unwrap(), [Some(b"2".to_vec())], "{name}");
        assert_eq!(again.generation().unwrap(), a.generation().unwrap(), "{name}");
        let generation = a.generation().unwrap();
        a.clear().unwrap();
        assert!(a.scan(b"", None, 10).unwrap().is_empty(), "{name}");
        assert_eq!(b.scan(b"", None, 10).unwrap().len(), 1, "{name}");
        assert_eq!(a.generation().unwrap(), generation, "{name}");
        store.commit().unwrap();
    });
}

#[test]
fn one_value_that_is_asked_for_many_times_fills_no_memory() {
    each(|name, store| {
        let bucket = store.open_bucket("s").unwrap();
        bucket.apply(&[put(b"k", &vec![7; MAX_VALUE])]).unwrap();
        let fits = MAX_BATCH_BYTES / MAX_VALUE;
        assert_eq!(bucket.get_many(&vec![b"k".to_vec(); fits]).unwrap().len(), fits, "{name}");
        let error = bucket.get_many(&vec![b"k".to_vec(); fits + 1]).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{name}: {error}");
        // It is no damage.
        assert!(bucket.get_many(&[b"k".to_vec()]).unwrap()[0].is_some(), "{name}");
    });
}

#[test]
fn scans_are_ordered_and_continue_after_a_key() {
    each(|name, store| {
        let bucket = store.open_bucket("s").unwrap();
        let changes: Vec<_> = ["a", "b\0", "b", "b\u{7f}", "bb", "c"]
            .iter()
            .map(|k| put(k.as_bytes(), b"v"))
            .collect();
        bucket.apply(&changes).unwrap();
        let scan = |prefix: &[u8], after: Option<&[u8]>, limit| {
            let pairs = bucket.scan(prefix, after, limit).unwrap();
            keys(&pairs)
                .iter()
                .map(|key| String::from_utf8(key.to_vec()).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(scan(b"b", None, 10), ["b", "b\0", "bb", "b\u{7f}"], "{name}");
        assert_eq!(scan(b"b", None, 2), ["b", "b\0"], "{name}");
        assert_eq!(scan(b"b", Some(b"b\0"), 10), ["bb", "b\u{7f}"], "{name}");
        assert_eq!(scan(b"b", Some(b"a"), 1), ["b"], "{name}");
        assert_eq!(scan(b"", Some(b"bb"), 10), ["b\u{7f}", "c"], "{name}");
        assert!(scan(b"b", Some(b"c"), 10).is_empty(), "{name}");
        assert!(scan(b"", None, 0).is_empty(), "{name}");
    });
}

#[test]
fn limits_hold_and_refused_batches_change_nothing() {
    each(|name, store| {
        let refused = |result: crate::Result<()>| {
            let error = result.unwrap_err();
            assert!(
                matches!(error, Error::TooLarge { .. } | Error::Invalid { .. }),
                "{name}: {error}"
            );
        };
        for bad in [String::new(), "x".repeat(201)] {
            refused(store.open_bucket(&bad).map(|_| ()));
        }
        // Names are opaque; none may reach another bucket or the store's own trees.
        for odd in ["__sled__default", "../x", "b/b", "\0"] {
            store.open_bucket(odd).unwrap().apply(&[put(b"k", odd.as_bytes())]).unwrap();
        }
        let bucket = store.open_bucket("b").unwrap();
        refused(bucket.apply(&[put(b"ok", b""), put(b"", b"")]));
        refused(bucket.apply(&[put(b"ok", b""), put(&[0; MAX_KEY + 1], b"")]));
        refused(bucket.apply(&[put(b"ok", b""), put(b"k", &vec![0; MAX_VALUE + 1])]));
        refused(bucket.apply(&vec![put(b"k", b""); MAX_BATCH + 1]));
        let big = vec![0; MAX_VALUE];
        let too_many: Vec<_> = (0..33u8).map(|n| put(&[n], &big)).collect();
        refused(bucket.apply(&too_many));
        refused(bucket.get_many(&vec![b"k".to_vec(); MAX_BATCH + 1]).map(|_| ()));
        assert!(bucket.scan(b"", None, 10).unwrap().is_empty(), "{name}");
        bucket.apply(&[put(&[7; MAX_KEY], &big)]).unwrap();
        let got = bucket.get_many(&[vec![7; MAX_KEY]]).unwrap();
        assert!(got == [Some(big)], "{name}");
    });
}

#[test]
fn threads_see_whole_batches() {
    each(|name, store| {
        let bucket = store.open_bucket("t").unwrap();
        std::thread::scope(|scope| {
            for writer in 0..3u8 {
                let bucket = &bucket;
                scope.spawn(move || {
                    for round in 0..40u8 {
                        bucket
                            .apply(&[put(b"x", &[writer, round]), put(b"y", &[writer, round])])
                            .unwrap();
                    }
                });
            }
            for _ in 0..100 {
                let got = bucket.get_many(&[b"x".to_vec(), b"y".to_vec()]).unwrap();
                assert_eq!(got[0], got[1], "{name}");
            }
        });
    });
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<super::Change>),
    Clear,
    Commit,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    // Few different keys, so that steps meet.
    let key = vec(0u8..3, 1..3);
    let change = (key, proptest::option::of(vec(any::<u8>(), 0..40)));
    prop_oneof![
        8 => vec(change, 1..6).prop_map(Step::Apply),
        1 => Just(Step::Clear),
        1 => Just(Step::Commit),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn behaves_like_a_map(steps in vec(step(), 1..25)) {
        let dir = tempfile::tempdir().unwrap();
        let memory = MemoryStore::new().unwrap();
        let mut sled = Some(SledStore::new(dir.path().join("index")));
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for step in steps {
            if matches!(step, Step::Reopen) {
                drop(sled.take());
                sled = Some(SledStore::new(dir.path().join("index")));
            }
            let stores: [&dyn KvStore; 2] = [&memory, sled.as_ref().unwrap()];
            for store in stores {
                let bucket = store.open_bucket("m").unwrap();
                match &step {
                    Step::Apply(changes) => bucket.apply(changes).unwrap(),
                    Step::Clear => bucket.clear().unwrap(),
                    Step::Commit => store.commit().unwrap(),
                    Step::Reopen => {}
                }
            }
            match step {
                Step::Apply(changes) => for (key, value) in changes {
                    match value {
                        Some(value) => model.insert(key, value),
                        None => model.remove(&key),
                    };
                },
                Step::Clear => model.clear(),
                Step::Commit | Step::Reopen => {}
            }
            let expected: Vec<_> = model.clone().into_iter().collect();
            for store in stores {
                let bucket: std::sync::Arc<dyn Kv> = store.open_bucket("m").unwrap();
                prop_assert_eq!(bucket.scan(b"", None, 100).unwrap(), expected.clone());
            }
        }
    }
}
