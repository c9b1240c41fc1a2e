//! Records in memory.
//!
//! Invariants: records differ in id or attributes; a record has a key, and can be part of a document; a
//! key has at most [`PER_KEY`] records, the newest: a step that yields something else on every run must
//! not grow the cache for ever.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use crate::document::{MAX_CHAIN, MAX_KEYS};
use crate::prune::{PruneOptions, Pruned};
use crate::{Attrs, Hash, Layer, Record};

/// How many records one key may have.
pub const PER_KEY: usize = 16;

/// What tells records apart.
type Name = (Hash, Attrs);

/// Records, found by their keys.
#[derive(Debug, Default)]
pub struct Table {
    records: BTreeMap<Name, Record>,
    /// Newest first; of two made at one time the one that was added later.
    index: HashMap<Hash, Vec<Name>>,
    layers: HashSet<Rc<Layer>>,
}

impl Table {
    /// Adds a record. One that is there already gets the new keys, layers and time. One that is too
    /// large for a document is forgotten at once.
    pub fn add(&mut self, mut record: Record) {
        if record.keys.is_empty() || record.layers.len() > MAX_CHAIN {
            return;
        }
        for layer in &mut record.layers {
            // Chains of hundreds of layers have most of them in common.
            match self.layers.get(&**layer) {
                Some(known) => *layer = Rc::clone(known),
                None => {
                    self.layers.insert(Rc::clone(layer));
                }
            }
        }
        let name = (record.id, record.attrs.clone());
        if let Some(present) = self.records.remove(&name) {
            record.created = record.created.max(present.created);
            record.keys.extend(present.keys);
        }
        // Which ones go does not matter: nobody has so many.
        while record.keys.len() > MAX_KEYS {
            record.keys.pop_last();
        }
        let keys = record.keys.clone();
        self.records.insert(name.clone(), record);
        for key in keys {
            let names = self.index.entry(key).or_default();
            names.retain(|other| *other != name);
            names.insert(0, name.clone());
            names.sort_by_key(|name| Reverse(self.records[name].created));
            for dropped in names.split_off(PER_KEY.min(names.len())) {
                let record = self.records.get_mut(&dropped).expect("the index names records");
                record.keys.remove(&key);
                if record.keys.is_empty() {
                    self.records.remove(&dropped);
                }
            }
        }
    }

    /// The records of a key, newest first.
    pub fn find(&self, key: &Hash) -> impl Iterator<Item = &Record> {
        self.index.get(key).into_iter().flatten().map(|name| &self.records[name])
    }

    /// All records, by id and attributes.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Removes records that are not wanted.
    pub fn retain(&mut self, wanted: impl Fn(&Record) -> bool) {
        self.records.retain(|_, record| wanted(record));
        for names in self.index.values_mut() {
            names.retain(|name| self.records.contains_key(name));
        }
        self.index.retain(|_, names| !names.is_empty());
    }

    /// Removes what options say.
    pub fn prune(&mut self, options: &PruneOptions) -> Pruned {
        let before = self.len();
        self.retain(|record| !options.removes(&record.id.to_string(), record.created));
        Pruned { removed: before - self.len(), kept: self.len() }
    }

    /// Removes the oldest records until `fits` says that what is left fits.
    pub fn shrink(&mut self, fits: impl Fn(&Table) -> bool) -> usize {
        let before = self.len();
        while !self.is_empty() && !fits(self) {
            let mut times: Vec<u64> = self.records.values().map(|record| record.created).collect();
            times.sort_unstable();
            // A tenth at a time, and at least those of one moment.
            let oldest = times[times.len() / 10];
            self.retain(|record| record.created > oldest);
        }
        before - self.len()
    }
}

impl FromIterator<Record> for Table {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Table {
        let mut table = Table::default();
        records.into_iter().for_each(|record| table.add(record));
        table
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary;

    fn record(id: u8, keys: &[u8], created: u64) -> Record {
        Record {
            id: Hash([id; 32]),
            attrs: Vec::new(),
            created,
            keys: keys.iter().map(|key| Hash([*key; 32])).collect(),
            layers: Vec::new(),
        }
    }

    fn ids(table: &Table, key: u8) -> Vec<u8> {
        table.find(&Hash([key; 32])).map(|record| record.id.0[0]).collect()
    }

    fn consistent(table: &Table) {
        for (name, record) in &table.records {
            assert_eq!(*name, (record.id, record.attrs.clone()));
            assert!(!record.keys.is_empty());
            for key in &record.keys {
                assert!(table.index[key].contains(name));
            }
        }
        for (key, names) in &table.index {
            assert!((1..=PER_KEY).contains(&names.len()));
            assert!(names.iter().all(|name| table.records[name].keys.contains(key)));
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
            let times: Vec<_> = names.iter().map(|name| table.records[name].created).collect();
            assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
        }
    }

    #[test]
    fn finds_by_every_key_newest_first() {
        let table: Table =
            [record(1, &[1, 2], 10), record(2, &[1], 20), record(3, &[1], 15), record(4, &[1], 15)]
                .into_iter()
                .collect();
        consistent(&table);
        assert_eq!(ids(&table, 1), [2, 4, 3, 1]);
        assert_eq!(ids(&table, 2), [1]);
        assert_eq!(ids(&table, 3), []);
    }

    #[test]
    fn an_equal_result_becomes_an_alias_and_other_facts_another_record() {
        let mut table = Table::default();
        table.add(record(1, &[1], 10));
        table.add(record(1, &[2], 5));
        let mut other = record(1, &[2], 7);
        other.attrs.push(("output-index".into(), "1".into()));
        table.add(other);
        consistent(&table);
        assert_eq!(table.len(), 2);
        assert_eq!(table.find(&Hash([1; 32])).next().expect("found").created, 10);
        assert_eq!(ids(&table, 2), [1, 1]);
    }

    #[test]
    fn a_key_keeps_only_the_newest() {
        let mut table = Table::default();
        for created in 0..40 {
            let keys: &[u8] = if created == 0 { &[1, 2] } else { &[1] };
            table.add(record(created, keys, created.into()));
            consistent(&table);
        }
        assert_eq!(ids(&table, 1)[0], 39);
        assert_eq!(ids(&table, 2), [0], "still named by another key");
        assert_eq!(table.len(), PER_KEY + 1);
    }

    #[test]
    fn what_is_too_much_loses_the_oldest() {
        let mut table: Table = (0..100).map(|n| record(n, &[n], n.into())).collect();
        assert_eq!(table.shrink(|table| table.len() <= 50), 50);
        consistent(&table);
        assert!(table.records().all(|record| record.created >= 50));
        assert_eq!(table.shrink(|_| false), 50, "it ends");
    }

    #[test]
    fn prune_keeps_what_it_is_told() {
        let name = |n: u8| ("keep".to_owned(), Hash([n; 32]).to_string());
        let older = |time: &str| ("older-than".to_owned(), time.to_owned());
        for (options, left) in [
            (vec![], &[1, 2, 3][..]),
            (vec![older("15")], &[2, 3]),
            (vec![older("15"), name(1)], &[1, 2, 3]),
            (vec![name(2), name(3)], &[2, 3]),
            (vec![name(9)], &[]),
        ] {
            let records = [record(1, &[1], 10), record(2, &[1], 20), record(3, &[1], 30)];
            let mut table: Table = records.into_iter().collect();
            let parsed = PruneOptions::parse(&options).expect("valid");
            let pruned = table.prune(&parsed);
            assert_eq!(pruned, Pruned { removed: 3 - left.len(), kept: left.len() }, "{options:?}");
            let mut found = ids(&table, 1);
            found.sort_unstable();
            assert_eq!(found, left, "{options:?}");
            consistent(&table);
        }
        assert!(PruneOptions::parse(&[older("yesterday")]).is_err());
    }

    proptest! {
        #[test]
        fn it_stays_consistent(records in prop::collection::vec(arbitrary::record(), 0..60)) {
            let mut table = Table::default();
            for record in &records {
                table.add(record.clone());
                consistent(&table);
            }
            let before: Vec<Record> = table.records().cloned().collect();
            for record in &before {
                table.add(record.clone());
            }
            consistent(&table);
            let after: Vec<Record> = table.records().cloned().collect();
            prop_assert_eq!(before, after, "adding what is there changes nothing");
        }
    }
}
