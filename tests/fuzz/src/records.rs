//! Documents of cache records, as a registry or a web server may send them.

use std::collections::BTreeSet;

use cache_records::document::{self, MAX_BYTES, MAX_CHAIN, MAX_KEYS};
use cache_records::{Hash, Layer, PER_KEY, Record, Table};

/// The input is a document; also with the checksum that it should have.
pub fn check(data: &[u8]) {
    look_at(data);
    let mut mended = data.to_vec();
    document::mend(&mut mended);
    look_at(&mended);
}

fn look_at(data: &[u8]) {
    let Ok(records) = document::decode(data) else { return };
    assert!(data.len() <= MAX_BYTES);
    for record in &records {
        assert!((1..=MAX_KEYS).contains(&record.keys.len()));
        assert!(record.layers.len() <= MAX_CHAIN);
    }
    assert_eq!(document::encode(&records), data, "there is one way to write it");
    // Found by its keys, whatever it says: the newest first, and never too many.
    let table: Table = records.iter().cloned().collect();
    let keys: BTreeSet<&Hash> = records.iter().flat_map(|record| &record.keys).collect();
    for key in keys {
        let found: Vec<&Record> = table.find(key).collect();
        assert!((1..=PER_KEY).contains(&found.len()));
        assert!(found.iter().all(|record| record.keys.contains(key)));
        assert!(found.is_sorted_by(|a, b| a.created >= b.created));
    }
    let again = document::encode(table.records());
    let read = document::decode(&again).expect("what a table holds can be written");
    assert_eq!(read.len(), table.len());
}

/// Documents of no, of one and of several records that share keys and layers.
pub fn seeds() -> Vec<Vec<u8>> {
    let layer = |n: u8| {
        std::rc::Rc::new(Layer {
            digest: Hash([n; 32]),
            size: 1 << n,
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
            diff_id: (n > 1).then_some(Hash([n + 1; 32])),
            uncompressed_size: (n > 2).then_some(300),
            attrs: vec![("compression".to_owned(), "gzip".to_owned())],
        })
    };
    let record = |n: u8| Record {
        id: Hash([n / 2; 32]),
        attrs: vec![("output-index".to_owned(), n.to_string())],
        created: 1_700_000_000 + u64::from(n),
        keys: (0..=n).map(|key| Hash([key; 32])).collect(),
        layers: (0..n).map(layer).collect(),
    };
    let records: Vec<Record> = (0..5).map(record).collect();
    [0, 1, 5].iter().map(|count| document::encode(&records[..*count])).collect()
}
