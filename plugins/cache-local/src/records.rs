//! Which records there are and how they are found.
//!
//! Two buckets:
//!
//! ```text
//! records   cache key   ->  names of records, each with the time it was made
//! results   record name ->  the record
//! ```
//!
//! A record's name is its result id and a mark of its attributes: saving an equal result under
//! further keys makes aliases of one record, while the same result with other facts (say, another
//! output index) is a record of its own.
//!
//! Invariants:
//! - `results` is written before `records` names it and cleared after, so a crash between the two
//!   leaves a record that nothing names (prune removes it) and never a name without a record. A
//!   name without a record, as after damage, is passed over.
//! - A record that no key names any more is removed at once.
//! - A key has at most [`PER_KEY`] records, the newest: a step that yields something else on every
//!   run must not grow the cache for ever.

use std::collections::{BTreeMap, BTreeSet};

use cache_records::{PER_KEY, PruneOptions, Pruned};

use crate::bindings::exports::wbuild::cache::backend::RecordEntry;
use crate::encoding::{decode_index, decode_record, encode_attrs, encode_index, encode_record};

/// Pairs read by one scan, and values by one question.
const PAGE: u32 = 512;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A bucket of byte strings, ordered by key.
pub trait Kv {
    /// Why an access failed.
    type Error;

    /// The values of `keys`, in order.
    fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Self::Error>;
    /// At most `limit` pairs whose keys follow `after`.
    fn scan(&self, after: Option<&[u8]>, limit: u32) -> Result<Vec<Pair>, Self::Error>;
    /// Sets (or, for `None`, removes) all of them or nothing.
    fn apply(&self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), Self::Error>;
}

/// The records in two buckets.
pub struct Records<K> {
    /// Bucket `records`.
    pub index: K,
    /// Bucket `results`.
    pub results: K,
}

impl<K: Kv> Records<K> {
    /// The records of each key, newest first, and how many could not be read.
    pub fn find(&self, keys: &[String]) -> Result<(Vec<Vec<RecordEntry>>, usize), K::Error> {
        let mut unreadable = 0;
        let mut indexes = Vec::with_capacity(keys.len());
        for value in values(&self.index, keys)? {
            indexes.push(match value.as_deref().map(decode_index) {
                None => Vec::new(),
                Some(Some(index)) => index,
                Some(None) => {
                    unreadable += 1;
                    Vec::new()
                }
            });
        }
        let names: Vec<String> = indexes
            .iter()
            .flatten()
            .map(|(_, name)| name.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let mut records = BTreeMap::new();
        for (name, value) in names.iter().zip(values(&self.results, &names)?) {
            match value.as_deref().map(decode_record) {
                None => {}
                Some(None) => unreadable += 1,
                Some(Some(record)) => {
                    records.insert(name.as_str(), record);
                }
            }
        }
        let found = keys
            .iter()
            .zip(&indexes)
            .map(|(key, index)| {
                let mut found: Vec<RecordEntry> = index
                    .iter()
                    .filter_map(|(_, name)| records.get(name.as_str()))
                    .filter(|record| record.keys.contains(key))
                    .cloned()
                    .collect();
                // Stable: of two made at one time the one saved later comes first (see `save`).
                found.sort_by_key(|record| std::cmp::Reverse(record.created));
                found
            })
            .collect();
        Ok((found, unreadable))
    }

    /// Adds records. A record that is there already gets the new keys, layers and time.
    pub fn save(&self, entries: &[RecordEntry]) -> Result<(), K::Error> {
        let mut indexes = self.load_indexes(entries.iter().flat_map(|entry| &entry.keys))?;
        // Records that may have to make room are loaded too: they lose a key.
        let names: BTreeSet<String> = entries
            .iter()
            .map(name_of)
            .chain(indexes.values().flatten().map(|(_, name)| name.clone()))
            .collect();
        let mut records = self.load_records(names)?;

        let mut touched = BTreeSet::new();
        for entry in entries {
            let name = name_of(entry);
            let mut record = entry.clone();
            if let Some(present) = records.get(&name) {
                record.created = record.created.max(present.created);
                record.keys.extend(present.keys.iter().cloned());
            }
            let mut seen = BTreeSet::new();
            record.keys.retain(|key| seen.insert(key.clone()));
            for key in &entry.keys {
                let index = indexes.entry(key.clone()).or_default();
                index.retain(|(_, other)| *other != name);
                index.insert(0, (record.created, name.clone()));
                index.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
            }
            records.insert(name.clone(), record);
            touched.insert(name);
        }
        for (key, index) in &mut indexes {
            for (_, name) in index.drain(PER_KEY.min(index.len())..) {
                if let Some(record) = records.get_mut(&name) {
                    record.keys.retain(|other| other != key);
                }
                touched.insert(name);
            }
        }

        let (removed, kept): (Vec<_>, Vec<_>) = touched
            .into_iter()
            .filter_map(|name| records.get(&name).map(|record| (name, record)))
            .partition(|(_, record)| record.keys.is_empty());
        let written: Vec<_> = kept
            .iter()
            .map(|(name, record)| (name.as_bytes().to_vec(), Some(encode_record(record))))
            .collect();
        let named: Vec<_> = indexes
            .iter()
            .map(|(key, index)| (key.as_bytes().to_vec(), Some(encode_index(index))))
            .collect();
        let cleared: Vec<_> =
            removed.iter().map(|(name, _)| (name.as_bytes().to_vec(), None)).collect();
        self.results.apply(&written)?;
        self.index.apply(&named)?;
        if cleared.is_empty() { Ok(()) } else { self.results.apply(&cleared) }
    }

    /// Removes what `options` says, and what is unreadable or unnamed.
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned, K::Error> {
        // Pass 1: the index decides what is named; names without a record are dropped with it.
        let mut staying = BTreeSet::new();
        let mut pruned = Pruned::default();
        let mut all = BTreeSet::new();
        self.each_page(&self.results, |pairs| {
            for (name, value) in pairs {
                let record = decode_record(&value);
                if record.is_some_and(|record| !options.removes(&record.id, record.created)) {
                    staying.insert(name.clone());
                }
                all.insert(name);
            }
            Ok(())
        })?;
        let mut named = BTreeSet::new();
        self.each_page(&self.index, |pairs| {
            let mut changes = Vec::new();
            for (key, value) in pairs {
                let index = decode_index(&value).unwrap_or_default();
                let left: Vec<_> = index
                    .iter()
                    .filter(|(_, name)| staying.contains(name.as_bytes()))
                    .cloned()
                    .collect();
                named.extend(left.iter().map(|(_, name)| name.as_bytes().to_vec()));
                if left.is_empty() {
                    changes.push((key, None));
                } else if left.len() < index.len() {
                    changes.push((key, Some(encode_index(&left))));
                }
            }
            if changes.is_empty() { Ok(()) } else { self.index.apply(&changes) }
        })?;
        // Pass 2: records that no key names any more.
        let gone: Vec<_> = all
            .iter()
            .filter(|name| !named.contains(*name))
            .map(|name| (name.clone(), None))
            .collect();
        pruned.removed = gone.len();
        pruned.kept = all.len() - gone.len();
        for page in gone.chunks(PAGE as usize) {
            self.results.apply(page)?;
        }
        Ok(pruned)
    }

    fn load_indexes<'a>(
        &self,
        keys: impl Iterator<Item = &'a String>,
    ) -> Result<BTreeMap<String, crate::encoding::Index>, K::Error> {
        let keys: Vec<String> = keys.cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let found = values(&self.index, &keys)?;
        let indexes =
            found.iter().map(|value| value.as_deref().and_then(decode_index).unwrap_or_default());
        Ok(keys.into_iter().zip(indexes).collect())
    }

    fn load_records(
        &self,
        names: BTreeSet<String>,
    ) -> Result<BTreeMap<String, RecordEntry>, K::Error> {
        let names: Vec<String> = names.into_iter().collect();
        let found = values(&self.results, &names)?;
        let records = found.iter().map(|value| value.as_deref().and_then(decode_record));
        Ok(names
            .into_iter()
            .zip(records)
            .filter_map(|(name, record)| Some((name, record?)))
            .collect())
    }

    /// Hands every pair of a bucket to `page`, some at a time. `page` may change the bucket.
    fn each_page(
        &self,
        bucket: &K,
        mut page: impl FnMut(Vec<Pair>) -> Result<(), K::Error>,
    ) -> Result<(), K::Error> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let pairs = bucket.scan(after.as_deref(), PAGE)?;
            // Fewer than asked for need not be the end: the host may have limits of its own.
            let Some((last, _)) = pairs.last() else { return Ok(()) };
            after = Some(last.clone());
            page(pairs)?;
        }
    }
}

/// The name under which a record is kept.
fn name_of(record: &RecordEntry) -> String {
    // FNV-1a over the attributes: tells equal from different, nobody gains by a collision, since
    // whoever can save a record under an id can replace it anyway.
    let mark = encode_attrs(&record.attrs).iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{}#{mark:016x}", record.id)
}

/// The values of keys, some at a time: one answer of the host has a bound.
fn values<K: Kv>(bucket: &K, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, K::Error> {
    let mut found = Vec::with_capacity(keys.len());
    for some in keys.chunks(PAGE as usize) {
        let some: Vec<Vec<u8>> = some.iter().map(|key| key.as_bytes().to_vec()).collect();
        found.extend(bucket.get_many(&some)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::ops::Bound;

    use super::*;

    /// A bucket in memory that refuses to write once its budget of batches is used up.
    struct Memory {
        map: RefCell<BTreeMap<Vec<u8>, Vec<u8>>>,
        batches: Cell<usize>,
    }

    #[derive(Debug, PartialEq)]
    struct Refused;

    impl Memory {
        fn new() -> Self {
            Memory { map: RefCell::default(), batches: Cell::new(usize::MAX) }
        }
    }

    impl Kv for &Memory {
        type Error = Refused;

        fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Refused> {
            Ok(keys.iter().map(|key| self.map.borrow().get(key).cloned()).collect())
        }

        fn scan(&self, after: Option<&[u8]>, limit: u32) -> Result<Vec<Pair>, Refused> {
            // A host limit below what is asked for.
            let limit = limit.min(3) as usize;
            let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.to_vec()));
            let map = self.map.borrow();
            Ok(map
                .range((from, Bound::Unbounded))
                .take(limit)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect())
        }

        fn apply(&self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), Refused> {
            self.batches.set(self.batches.get().checked_sub(1).ok_or(Refused)?);
            for (key, value) in changes {
                match value {
                    Some(value) => self.map.borrow_mut().insert(key.clone(), value.clone()),
                    None => self.map.borrow_mut().remove(key),
                };
            }
            Ok(())
        }
    }

    fn entry(id: &str, keys: &[&str], created: u64) -> RecordEntry {
        RecordEntry {
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            id: id.to_owned(),
            layers: Vec::new(),
            created,
            attrs: vec![("kind".to_owned(), "result".to_owned())],
        }
    }

    fn ids(records: &Records<&Memory>, key: &str) -> Vec<String> {
        let (mut found, unreadable) = records.find(&[key.to_owned()]).expect("reads");
        assert_eq!(unreadable, 0);
        found.remove(0).into_iter().map(|record| record.id).collect()
    }

    /// Every name in the index has a record that has the key, and every record is named.
    fn consistent(records: &Records<&Memory>) {
        let mut named = BTreeSet::new();
        for (key, value) in records.index.map.borrow().iter() {
            let index = decode_index(value).expect("readable");
            assert!(!index.is_empty() && index.len() <= PER_KEY);
            for (_, name) in index {
                let results = records.results.map.borrow();
                let record =
                    decode_record(results.get(name.as_bytes()).expect("named")).expect("readable");
                assert!(record.keys.iter().any(|k| k.as_bytes() == key));
                named.insert(name.into_bytes());
            }
        }
        let all: BTreeSet<Vec<u8>> = records.results.map.borrow().keys().cloned().collect();
        assert_eq!(all, named);
    }

    #[test]
    fn finds_by_every_key_newest_first_in_the_order_asked() {
        let (index, results) = (Memory::new(), Memory::new());
        let records = Records { index: &index, results: &results };
        records
            .save(&[
                entry("a", &["k1", "k2"], 10),
                entry("b", &["k1"], 20),
                entry("c", &["k1"], 15),
            ])
            .expect("saves");
        consistent(&records);
        assert_eq!(ids(&records, "k1"), ["b", "c", "a"]);
        assert_eq!(ids(&records, "k2"), ["a"]);
        let asked = ["k2", "none", "k1"].map(str::to_owned);
        let (found, _) = records.find(&asked).expect("reads");
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 3]);
    }

    #[test]
    fn an_equal_result_becomes_an_alias() {
        let (index, results) = (Memory::new(), Memory::new());
        let records = Records { index: &index, results: &results };
        records.save(&[entry("a", &["k1"], 10)]).expect("saves");
        records.save(&[entry("a", &["k2"], 5)]).expect("saves");
        consistent(&records);
        assert_eq!(results.map.borrow().len(), 1);
        let (found, _) = records.find(&["k1".to_owned(), "k2".to_owned()]).expect("reads");
        assert_eq!(found[0], found[1]);
        assert_eq!(found[0][0].keys, ["k2", "k1"]);
        assert_eq!(found[0][0].created, 10, "the newer time stays");
    }

    #[test]
    fn the_same_result_with_other_facts_is_another_record() {
        let (index, results) = (Memory::new(), Memory::new());
        let records = Records { index: &index, results: &results };
        let mut second = entry("a", &["k2"], 10);
        second.attrs.push(("output-index".to_owned(), "1".to_owned()));
        records.save(&[entry("a", &["k1"], 10), second.clone()]).expect("saves");
        consistent(&records);
        let (found, _) = records.find(&["k1".to_owned(), "k2".to_owned()]).expect("reads");
        assert_eq!(found[0][0].attrs.len(), 1);
        assert_eq!(found[1], [second]);
    }

    #[test]
    fn a_key_keeps_only_the_newest() {
        let (index, results) = (Memory::new(), Memory::new());
        let records = Records { index: &index, results: &results };
        for created in 0..40 {
            let keys: &[&str] = if created == 0 { &["k", "other"] } else { &["k"] };
            records.save(&[entry(&format!("r{created}"), keys, created)]).expect("saves");
            consistent(&records);
        }
        let found = ids(&records, "k");
        assert_eq!(found.len(), PER_KEY);
        assert_eq!(found[0], "r39");
        assert_eq!(ids(&records, "other"), ["r0"], "still named by another key");
        assert_eq!(results.map.borrow().len(), PER_KEY + 1);
    }

    #[test]
    fn a_batch_larger_than_the_bound_keeps_the_newest_of_it() {
        let (index, results) = (Memory::new(), Memory::new());
        let records = Records { index: &index, results: &results };
        let batch: Vec<_> = (0..100).map(|n| entry(&format!("r{n:02}"), &["k"], n)).collect();
        records.save(&batch).expect("saves");
        consistent(&records);
        assert_eq!(ids(&records, "k")[0], "r99");
        assert_eq!(results.map.borrow().len(), PER_KEY);
    }

    #[test]
    fn a_crash_between_writes_leaves_no_name_without_a_record() {
        for batches in 0..6 {
            let (index, results) = (Memory::new(), Memory::new());
            let records = Records { index: &index, results: &results };
            let batch: Vec<_> =
                (0..PER_KEY as u64).map(|n| entry(&format!("old{n}"), &["k"], n)).collect();
            records.save(&batch).expect("saves");
            // The budget of one bucket at a time: each write of the second save fails once.
            let failing = if batches % 2 == 0 { &results } else { &index };
            failing.batches.set(batches / 2);
            let saved = records.save(&[entry("new", &["k"], 99)]);
            failing.batches.set(usize::MAX);
            for (_, value) in index.map.borrow().iter() {
                for (_, name) in decode_index(value).expect("readable") {
                    assert!(
                        results.map.borrow().contains_key(name.as_bytes()),
                        "{batches}: {name}"
                    );
                }
            }
            if saved.is_ok() {
                assert_eq!(ids(&records, "k")[0], "new");
            }
            records.prune(&PruneOptions::default()).expect("prunes");
            consistent(&records);
        }
    }

    #[test]
    fn damage_is_a_miss() {
        let (index, results) = (Memory::new(), Memory::new());
        let records = Records { index: &index, results: &results };
        records.save(&[entry("a", &["k1"], 1), entry("b", &["k2"], 1)]).expect("saves");
        let name = name_of(&entry("a", &[], 1)).into_bytes();
        results.map.borrow_mut().insert(name, b"\x01garbage".to_vec());
        index.map.borrow_mut().insert(b"k2".to_vec(), b"\x09".to_vec());
        let (found, unreadable) = records.find(&["k1".to_owned(), "k2".to_owned()]).expect("reads");
        assert_eq!((found, unreadable), (vec![Vec::new(), Vec::new()], 2));
        assert_eq!(records.prune(&PruneOptions::default()), Ok(Pruned { removed: 2, kept: 0 }));
        consistent(&records);
        records.save(&[entry("a", &["k1"], 2)]).expect("saves anew");
        assert_eq!(ids(&records, "k1"), ["a"]);
    }

    #[test]
    fn prune_keeps_what_it_is_told() {
        let options = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> =
                pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            PruneOptions::parse(&pairs).expect("valid")
        };
        for (given, left) in [
            (&[][..], &["a", "b", "c"][..]),
            (&[("older-than", "15")], &["b", "c"]),
            (&[("older-than", "15"), ("keep", "a")], &["a", "b", "c"]),
            (&[("older-than", "18446744073709551615")], &[]),
            (&[("keep", "b"), ("keep", "c")], &["b", "c"]),
            (&[("keep", "nothing of ours")], &[]),
        ] {
            let (index, results) = (Memory::new(), Memory::new());
            let records = Records { index: &index, results: &results };
            records
                .save(&[
                    entry("a", &["k", "ka"], 10),
                    entry("b", &["k", "kb"], 20),
                    entry("c", &["k"], 30),
                ])
                .expect("saves");
            let pruned = records.prune(&options(given)).expect("prunes");
            assert_eq!(pruned, Pruned { removed: 3 - left.len(), kept: left.len() }, "{given:?}");
            let mut found = ids(&records, "k");
            found.sort();
            assert_eq!(found, left, "{given:?}");
            consistent(&records);
        }
        let bad = [("older-than".to_owned(), "yesterday".to_owned())];
        assert!(PruneOptions::parse(&bad).is_err());
    }
}
