//! Many records: the store opens at once, and an index that was lost is filled from them in seconds.

mod crash;

use std::time::{Duration, Instant};

use crash::{key, open, scratch};
use wbuild_store::Record;

/// Another number: `WBUILD_RECORDS`.
const RECORDS: u64 = 3_000;
/// What a tenth of a millisecond for each of them comes to, and as much again for a busy machine.
const EACH: Duration = Duration::from_micros(200);
const BATCH: usize = 200;

#[test]
fn child_process() {
    crash::run_child_if_asked(|| {});
}

#[test]
fn a_lost_index_is_filled_from_the_records_quickly() {
    let records = crash::rounds("WBUILD_RECORDS", RECORDS);
    let dir = scratch();
    let store = open(dir.path(), "boot");
    for n in 0..records {
        let record = Record {
            keys: vec![key(n, 0), key(n, 1)],
            description: format!("RUN step {n}"),
            ..Record::default()
        };
        store.put_record(&record).unwrap();
    }
    store.seal().unwrap();
    drop(store);
    let started = Instant::now();
    let store = open(dir.path(), "boot");
    assert!(store.get_record(&key(records / 2, 1)).unwrap().is_some());
    let opened = started.elapsed();
    assert!(opened < Duration::from_secs(2), "{opened:?}");

    let started = Instant::now();
    let all = store.records().unwrap();
    assert_eq!(all.len() as u64, records);
    let bucket = store.kv().unwrap().open_bucket("keys").unwrap();
    for batch in all.chunks(BATCH) {
        let changes: Vec<_> = batch
            .iter()
            .flat_map(|record| &record.keys)
            .map(|key| (key.0.as_bytes().to_vec(), Some(b"result".to_vec())))
            .collect();
        bucket.apply(&changes).unwrap();
    }
    store.seal().unwrap();
    let filled = started.elapsed();
    eprintln!("{records} records: opened in {opened:?}, index filled in {filled:?}");
    let most = EACH * u32::try_from(records).unwrap() + Duration::from_secs(1);
    assert!(filled < most, "{filled:?} of at most {most:?}");
}
