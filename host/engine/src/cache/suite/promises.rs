//! What every backend promises (`wbuild_testkit::promises`), over real stores and servers, and what those
//! of this repository promise besides.

use wbuild_graph::{CacheKey, FailureKind};
use wbuild_testkit::promises::{PROMISES, Promise};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_is_kept() {
    // Most of the time servers start.
    let tried = PROMISES.iter().map(|promise| {
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || runtime.block_on(kept(promise)))
    });
    for tried in tried.collect::<Vec<_>>() {
        tried.await.expect("is kept");
    }
}

async fn kept(promise: &Promise) {
    for world in World::all() {
        let kept = promise.keep(&world).await;
        let note = kept.unwrap_or_else(|e| panic!("{}: {}: {e}", world.name(), promise.name));
        let left_out = note.is_some_and(|note| note.starts_with("not offered"));
        let may = promise.name.contains("pruned") && matches!(world.place, Place::Web(_));
        assert_eq!(left_out, may, "{}: {}", world.name(), promise.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_whose_layer_is_nowhere_is_left_out() {
    for world in World::oci() {
        let (name, store) = (world.name(), world.store("a"));
        let backend = world.open(&store, "write", &[]).await;
        let whole = record("whole", &["k"], 1, &[layer(&store, b"here")]);
        let part = record("part", &["k"], 2, &[described(b"nowhere"), described(b"here")]);
        backend.0.save(vec![whole, part]).await.expect(name);
        backend.0.commit().await.expect(name);
        let backend = world.open(&store, "read", &[]).await;
        assert_eq!(backend.ids(key("k")).await, [id("whole")], "{name}");
        assert_eq!(
            *world.log.0.lock().expect("lock"),
            ["1 results are not cached: 1 layers are not here"],
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_pruned_by_age_and_name() {
    for world in World::all() {
        let (name, store) = (world.name(), world.store("a"));
        let layers: Vec<_> = (0..3u8).map(|n| layer(&store, &[n; 50])).collect();
        let records: Vec<_> = (0..3)
            .map(|n| record(&n.to_string(), &["k"], 10 * (n as u64 + 1), &layers[n..=n]))
            .collect();
        world.export(&store, &records).await;
        let backend = world.open(&store, "write", &[]).await;
        let mut options = Attrs::default();
        options.push("older-than", "25");
        options.push("keep", id("0").to_string());
        let pruned = backend.0.prune(options).await;
        if matches!(world.place, Place::Web(_)) {
            assert_eq!(pruned.expect_err(name).kind, FailureKind::Unsupported);
            continue;
        }
        let pruned = pruned.expect(name);
        assert_eq!((pruned.get("removed"), pruned.get("kept")), (Some("1"), Some("2")), "{name}");
        let backend = world.open(&store, "read", &[]).await;
        assert_eq!(backend.ids(key("k")).await, [id("2"), id("0")], "{name}");
        if matches!(world.place, Place::Directory(_)) {
            assert!(world.blob(&layers[1].digest).is_none(), "its layer went, too");
            assert!(world.blob(&layers[0].digest).is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_results_are_no_matter() {
    for world in World::all() {
        let (name, store) = (world.name(), world.store("a"));
        // One after another, as the server of the example is asked.
        let count = if matches!(world.place, Place::Web(_)) { 100 } else { 1000 };
        let layers: Vec<_> = (0..20u8).map(|n| layer(&store, &[n; 50])).collect();
        let records: Vec<RecordEntry> = (0..count)
            .map(|n| {
                let name = n.to_string();
                record(&name, &[&name], n as u64, &layers[..n % 20])
            })
            .collect();
        let backend = world.open(&store, "write", &[]).await;
        for part in records.chunks(300) {
            backend.0.save(part.to_vec()).await.expect(name);
        }
        let distinct = layers.iter().map(|layer| layer.digest).collect::<Vec<_>>();
        assert_eq!(distinct.len(), 20);
        let pushed = backend.0.push(layers).await.expect(name);
        assert!(pushed.iter().all(Result::is_ok), "{name}");
        let said = backend.0.commit().await.expect(name);
        assert_eq!(said.get("records"), Some(&*count.to_string()), "{name}");
        let backend = world.open(&store, "read", &[]).await;
        let keys: Vec<CacheKey> = records.iter().map(|record| record.keys[0]).collect();
        let found = backend.0.find(keys).await.expect(name);
        for (list, saved) in found.iter().zip(&records) {
            assert_eq!(list.as_slice(), std::slice::from_ref(saved), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_replaces_the_cache_and_an_empty_one_does_not() {
    for world in World::oci() {
        let (name, store) = (world.name(), world.store("a"));
        let layers = [layer(&store, b"first"), layer(&store, b"second")];
        world.export(&store, &[record("first", &["k"], 1, &layers[..1])]).await;
        world.export(&store, &[record("second", &["k"], 2, &layers[1..])]).await;
        let backend = world.open(&store, "write", &[]).await;
        assert_eq!(backend.ids(key("k")).await, [id("second")], "{name}");
        backend.0.commit().await.expect(name);
        let backend = world.open(&store, "read", &[]).await;
        assert_eq!(backend.ids(key("k")).await, [id("second")], "{name}");
        // A registry does that by itself.
        if matches!(world.place, Place::Directory(_)) {
            assert!(world.blob(&layers[0].digest).is_none(), "what nothing needs is removed");
            let backend = world.open(&store, "write", &[("reset", "false")]).await;
            backend.0.save(vec![record("third", &["k"], 3, &[])]).await.expect(name);
            backend.0.commit().await.expect(name);
            assert!(world.blob(&layers[1].digest).is_some(), "unless it is to stay");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_ends_early_leaves_the_old_cache() {
    for world in World::oci() {
        let (name, store) = (world.name(), world.store("a"));
        let old = [layer(&store, b"old")];
        world.export(&store, &[record("old", &["k"], 1, &old)]).await;
        let backend = world.open(&store, "write", &[]).await;
        let new = record("new", &["k"], 2, &[layer(&store, b"new")]);
        backend.push_all(std::slice::from_ref(&new)).await;
        backend.0.save(vec![new]).await.expect(name);
        drop(backend);
        let to = world.store("to");
        let backend = world.open(&to, "read", &[]).await;
        assert_eq!(backend.ids(key("k")).await, [id("old")], "{name}");
        let fetched = backend.0.fetch(old.to_vec()).await.expect(name);
        assert_eq!(fetched, [Ok(())], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_caches_are_equal_bytes() {
    let mut digests = Vec::new();
    for world in World::oci() {
        let store = world.store("a");
        let layers = [layer(&store, b"one"), layer(&store, b"two")];
        let mut records = vec![
            record("a", &["k", "l"], 1, &layers),
            record("b", &["k"], 2, &layers[1..]),
            record("c", &["m"], 3, &[]),
        ];
        for _ in 0..2 {
            let backend = world.open(&store, "write", &[]).await;
            backend.push_all(&records).await;
            for record in &records {
                backend.0.save(vec![record.clone()]).await.expect("saves");
            }
            let said = backend.0.commit().await.expect("commits");
            digests.push(said.get("digest").expect("a digest").to_owned());
            records.reverse();
        }
        // The manifest is one that others read, too.
        if let Place::Registry(registry) = &world.place {
            let manifest = registry.manifest("team/cache:main").expect("skopeo reads it");
            assert_eq!(manifest["artifactType"], "application/vnd.wbuild.cache.v1");
            assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(2));
        }
    }
    assert_eq!(digests.len(), 4);
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_version_is_read_by_its_digest() {
    let worlds = World::oci();
    let world = &worlds[0];
    let store = world.store("a");
    let backend = world.open(&store, "write", &[("reset", "false")]).await;
    backend.0.save(vec![record("first", &["k"], 1, &[])]).await.expect("saves");
    let said = backend.0.commit().await.expect("commits");
    let digest = said.get("digest").expect("a digest").to_owned();
    // It is written as long as it lives.
    drop(backend);
    let backend = world.open(&store, "write", &[("reset", "false")]).await;
    backend.0.save(vec![record("second", &["k"], 2, &[])]).await.expect("saves");
    backend.0.commit().await.expect("commits");
    let backend = world.open(&store, "read", &[("digest", &digest)]).await;
    assert_eq!(backend.ids(key("k")).await, [id("first")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_to_a_directory_waits_for_who_does() {
    let world = Arc::new(World::oci().remove(0));
    let store = world.store("a");
    let first = world.open(&store, "write", &[]).await;
    let records = [record("first", &["k"], 1, &[layer(&store, b"first")])];
    first.push_all(&records).await;
    let (other, shared) = (store.clone(), Arc::clone(&world));
    let second = tokio::spawn(async move {
        let layers = [layer(&other, b"second")];
        shared.export(&other, &[record("second", &["k"], 2, &layers)]).await;
    });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(!second.is_finished(), "its blobs could be removed as nobody's");
    first.0.save(records.to_vec()).await.expect("saves");
    first.0.commit().await.expect("commits");
    second.await.expect("its turn comes with the commit");
    let backend = world.open(&store, "read", &[]).await;
    assert_eq!(backend.ids(key("k")).await, [id("second")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backend_has_in_hand_stays_in_the_store() {
    for world in World::elsewhere() {
        let (name, from) = (world.name(), world.store("from"));
        let layers = [layer(&from, b"one"), layer(&from, b"two")];
        world.export(&from, &[record("r", &["k"], 1, &layers)]).await;
        let to = world.store("to");
        let everything = wbuild_store::PruneFilter { all: true, ..Default::default() };
        let backend = world.open(&to, "read", &[]).await;
        let fetched = backend.0.fetch(layers.to_vec()).await.expect(name);
        assert_eq!(fetched, [Ok(()), Ok(())], "{name}");
        to.prune(&everything).expect("prunes");
        assert_eq!(held(&to, layers[1].digest).as_deref(), Some(&b"two"[..]), "{name}");
        drop(backend);
        to.prune(&everything).expect("prunes");
        assert_eq!(held(&to, layers[1].digest), None, "{name}");
    }
}
