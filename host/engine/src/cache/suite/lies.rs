//! What a registry, a directory or a server may say, and nobody believes: a wrong layer never reaches
//! the store, a wrong list of records is no hit, and the backend lives on or ends in words.

use serde_json::{Value, json};
use wbuild_graph::FailureKind;
use wbuild_oci::layout::LayoutWriter;
use wbuild_oci::media::{Descriptor, OCI_CONFIG, OCI_MANIFEST};
use wbuild_oci::reference::Reference;
use wbuild_tests::files::Mishap;

use super::*;

/// A world with one record of one layer, and that layer.
async fn filled(world: &World) -> (LayerDescriptor, Vec<u8>) {
    let store = world.store("from");
    let content = much(7);
    let layer = layer(&store, &content);
    world.export(&store, &[record("r", &["k"], 1, std::slice::from_ref(&layer))]).await;
    (layer, content)
}

/// What somebody makes of the bytes of a layer.
type Damage = fn(Vec<u8>) -> Vec<u8>;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_layer_is_not_taken() {
    let wrong: [(&str, Damage); 5] = [
        ("another of the same size", |content| vec![0; content.len()]),
        ("one bit", |mut content| {
            content[300_000] ^= 1;
            content
        }),
        ("cut short", |mut content| {
            content.truncate(123_456);
            content
        }),
        ("too long", |mut content| {
            content.push(0);
            content
        }),
        ("empty", |_| Vec::new()),
    ];
    for world in World::elsewhere() {
        let (layer, content) = filled(&world).await;
        for (what, damage) in &wrong {
            let name = format!("{}: {what}", world.name());
            world.set_blob(&layer.digest, Some(&damage(content.clone())));
            let to = world.store("to");
            let backend = world.open(&to, "read", &[]).await;
            let found = backend.find(key("k")).await;
            assert_eq!(found.len(), 1, "{name}");
            let fetched = backend.0.fetch(found[0].layers.clone()).await.expect(&name);
            let failure = fetched[0].as_ref().expect_err(&name);
            assert_ne!(failure.kind, FailureKind::Internal, "{name}: {failure}");
            assert_eq!(held(&to, layer.digest), None, "{name}");
            // The right one is still taken afterwards, by the same backend.
            world.set_blob(&layer.digest, Some(&content));
            let fetched = backend.0.fetch(vec![layer.clone()]).await.expect(&name);
            assert_eq!(fetched, [Ok(())], "{name}");
            assert_eq!(held(&to, layer.digest).as_ref(), Some(&content), "{name}");
            drop(backend);
            drop(to);
            std::fs::remove_dir_all(world.folder.path().join("to")).expect("removes the store");
        }
        world.set_blob(&layer.digest, None);
        let to = world.store("to");
        let backend = world.open(&to, "read", &[]).await;
        let name = world.name();
        let fetched = backend.0.fetch(vec![layer]).await.expect(name);
        let failure = fetched[0].as_ref().expect_err(name);
        assert_eq!(failure.kind, FailureKind::Gone, "{name}: {failure}");
    }
}

/// The manifest of a cache and the document it names.
async fn parts(world: &World) -> (Value, Vec<u8>) {
    let mut digest = String::new();
    if let Place::Directory(path) = &world.place {
        let index = std::fs::read(path.join("index.json")).expect("a layout");
        let index: Value = serde_json::from_slice(&index).expect("JSON");
        digest = index["manifests"][0]["digest"].as_str().expect("a digest").to_owned();
    }
    let manifest = match &world.place {
        Place::Registry(registry) => registry.manifest("team/cache:main").expect("a manifest"),
        _ => {
            let bytes = world.blob(&digest.parse().expect("a digest")).expect("is there");
            serde_json::from_slice(&bytes).expect("JSON")
        }
    };
    let document = manifest["config"]["digest"].as_str().expect("a digest");
    let document = world.blob(&document.parse().expect("a digest")).expect("is there");
    (manifest, document)
}

/// Puts a manifest under the tag, as somebody would who may write there.
async fn plant(world: &World, manifest: &Value, blobs: &[&[u8]]) {
    let bytes = manifest.to_string().into_bytes();
    let media_type = manifest["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_owned();
    match &world.place {
        Place::Directory(path) => {
            let dir = File::open(path).expect("a directory").into();
            let writer = LayoutWriter::try_lock(dir).expect("locks").expect("nobody else");
            for blob in blobs {
                writer.put_blob(&Descriptor::of("x/y", blob), *blob).expect("puts");
            }
            writer.put_manifest(Some("main"), &media_type, &bytes).expect("puts");
        }
        Place::Registry(registry) => {
            let reference: Reference =
                format!("{}/team/cache:main", registry.host()).parse().expect("a reference");
            let client = Client::new(ClientOptions::default(), Arc::new(Anonymous));
            let store = world.store("planted");
            for blob in blobs {
                store.put_blob(blob).expect("puts");
            }
            let nowhere: repository::Elsewhere = Arc::new(|_, _| Vec::new());
            let descriptors = blobs
                .iter()
                .map(|blob| LayerDescriptor { media_type: "x/y".to_owned(), ..described(blob) });
            let descriptors: Vec<LayerDescriptor> = descriptors.collect();
            let shelf = Shelf::new(store);
            shelf.name(&descriptors);
            let cap =
                repository::registry(shelf, client.clone(), reference.clone(), nowhere, silent());
            for pushed in cap.push(descriptors).await {
                pushed.expect("pushes");
            }
            client.push_manifest(&reference, &media_type, &bytes).await.expect("puts");
        }
        _ => unreachable!("it has no manifests"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_records_that_is_none_is_no_hit() {
    for world in World::oci() {
        filled(&world).await;
        let (manifest, document) = parts(&world).await;
        let named = |bytes: &[u8]| {
            let mut manifest = manifest.clone();
            manifest["config"]["digest"] = json!(Digest::of(bytes).to_string());
            manifest["config"]["size"] = json!(bytes.len());
            manifest
        };
        let cut = &document[..document.len() / 2];
        let mut flipped = document.clone();
        flipped[40] ^= 1;
        let foreign = br#"{"layers":[],"records":[]}"#;
        let mut newer = document.clone();
        newer[20] = 2;
        let large = [&document[..21], &vec![0; 5 << 20]].concat();
        let lies: [(&str, &[u8]); 6] = [
            ("cut", cut),
            ("flipped", &flipped),
            ("foreign", foreign),
            ("newer", &newer),
            ("large", &large),
            ("empty", b""),
        ];
        for (what, bytes) in lies {
            let name = format!("{}: {what}", world.name());
            plant(&world, &named(bytes), &[bytes]).await;
            refused(&world, &name).await;
        }
        let mut nowhere = manifest.clone();
        nowhere["config"]["digest"] = json!(Digest::of(b"nowhere").to_string());
        let mut endless = manifest.clone();
        endless["config"]["size"] = json!(5u64 << 40);
        let mut other_size = manifest.clone();
        other_size["config"]["size"] = json!(document.len() + 1);
        let mut image = manifest.clone();
        image["config"]["mediaType"] = json!(OCI_CONFIG);
        let mut artifact = manifest.clone();
        artifact["artifactType"] = json!("application/vnd.buildkit.cacheconfig.v0");
        let lies = [
            ("a document that is nowhere", nowhere),
            ("an endless document", endless),
            ("a document of another size", other_size),
            ("an image", image),
            ("another artifact", artifact),
        ];
        // A registry looks whether a manifest's blobs are there; a directory does not.
        for (what, manifest) in lies {
            let name = format!("{}: {what}", world.name());
            if matches!(world.place, Place::Registry(_)) && what.contains("nowhere") {
                continue;
            }
            plant(&world, &manifest, &[]).await;
            refused(&world, &name).await;
        }
        // What could not be read is replaced by the next export.
        filled(&world).await;
        let backend = world.open(&world.store("again"), "read", &[]).await;
        assert_eq!(backend.ids(key("k")).await, [id("r")], "{}", world.name());
    }
}

/// A reader says what is the matter, and a writer sees an empty cache; neither traps.
async fn refused(world: &World, name: &str) {
    let store = world.store("reader");
    let backend = world.open(&store, "read", &[]).await;
    let failure = backend.0.find(vec![key("k")]).await.expect_err(name);
    assert!(!failure.message.contains("crashed"), "{name}: {failure}");
    assert_ne!(failure.kind, FailureKind::Internal, "{name}: {failure}");
    let backend = world.open(&store, "write", &[]).await;
    let found = backend.0.find(vec![key("k")]).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(found, [Vec::new()], "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_cache_in_the_place_of_a_newer_is_an_older_cache() {
    for world in World::oci() {
        let (name, store) = (world.name(), world.store("from"));
        let layers = [layer(&store, b"old layer"), layer(&store, b"new layer")];
        let backend = world.open(&store, "write", &[("reset", "false")]).await;
        let old = record("old", &["k", "only old"], 1, &layers[..1]);
        backend.push_all(std::slice::from_ref(&old)).await;
        backend.0.save(vec![old]).await.expect(name);
        backend.0.commit().await.expect(name);
        drop(backend);
        let (manifest, _) = parts(&world).await;
        let backend = world.open(&store, "write", &[("reset", "false")]).await;
        let new = record("new", &["k"], 2, &layers[1..]);
        backend.push_all(std::slice::from_ref(&new)).await;
        backend.0.save(vec![new]).await.expect(name);
        backend.0.commit().await.expect(name);
        drop(backend);
        plant(&world, &manifest, &[]).await;
        let to = world.store("to");
        let backend = world.open(&to, "read", &[]).await;
        // Results of a key are all right for it, so the worst is that one is missed.
        assert_eq!(backend.ids(key("k")).await, [id("old")], "{name}");
        assert_eq!(backend.ids(key("only old")).await, [id("old")], "{name}");
        let fetched = backend.0.fetch(layers[..1].to_vec()).await.expect(name);
        assert_eq!(fetched, [Ok(())], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_tags_of_the_repository_are_out_of_reach() {
    for world in World::oci() {
        filled(&world).await;
        let (name, store) = (world.name(), world.store("a"));
        let backend = world.open(&store, "write", &[("tag", "production")]).await;
        let failure = backend.0.find(vec![key("k")]).await.expect_err(name);
        assert_eq!(failure.kind, FailureKind::Denied, "{name}: {failure}");
        assert!(failure.message.contains("\"main\", not \"production\""), "{name}: {failure}");
        backend.0.save(vec![record("r", &["k"], 1, &[])]).await.expect(name);
        let failure = backend.0.commit().await.expect_err(name);
        assert_eq!(failure.kind, FailureKind::Denied, "{name}: {failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_gone_ends_in_words() {
    let Some(mut world) = World::registry() else { return };
    let (layer, _) = filled(&world).await;
    let store = world.store("to");
    let backend = world.open(&store, "read", &[]).await;
    assert_eq!(backend.ids(key("k")).await, [id("r")]);
    let Place::Registry(registry) = &mut world.place else { panic!("a registry") };
    registry.stop().expect("stops");
    let fetched = backend.0.fetch(vec![layer]).await.expect("answers");
    let failure = fetched[0].as_ref().expect_err("it is gone");
    assert_eq!(failure.kind, FailureKind::Unavailable, "{failure}");
    let backend = world.open(&store, "read", &[]).await;
    let failure = backend.0.find(vec![key("k")]).await.expect_err("it is gone");
    assert_eq!(failure.kind, FailureKind::Unavailable, "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_that_goes_wrong_costs_a_miss() {
    let world = World::new(|_| Place::Web(FileServer::start()));
    let (layer, content) = filled(&world).await;
    let Place::Web(server) = &world.place else { unreachable!("it is one") };
    let blob = format!("/cache/blobs/{}", layer.digest.hex());
    let records = "/cache/records/";
    let fresh = |name: &str| world.store(name);

    // What fails once is tried again.
    for (n, mishap) in [Mishap::Status(503), Mishap::Status(500)].into_iter().enumerate() {
        server.next("GET", records, mishap.clone());
        server.next("GET", &blob, mishap);
        let store = fresh(&format!("again{n}"));
        let backend = world.open(&store, "read", &[]).await;
        assert_eq!(backend.ids(key("k")).await, [id("r")]);
        let fetched = backend.0.fetch(vec![layer.clone()]).await.expect("answers");
        assert_eq!(fetched, [Ok(())]);
    }
    // What breaks off is taken up where it broke.
    let store = fresh("cut");
    server.next("GET", &blob, Mishap::Cut(400_000));
    let backend = world.open(&store, "read", &[]).await;
    let fetched = backend.0.fetch(vec![layer.clone()]).await.expect("answers");
    assert_eq!(fetched, [Ok(())]);
    assert_eq!(held(&store, layer.digest).as_ref(), Some(&content));
    let seen = server.seen();
    // What an earlier build has left of it was wrong: it is fetched from the beginning.
    let store = fresh("left");
    let mut left = store.resume(&BlobDigest(layer.digest), layer.size).expect("begins");
    left.append(&[0; 1000]).expect("writes");
    drop(left);
    let backend = world.open(&store, "read", &[]).await;
    let fetched = backend.0.fetch(vec![layer.clone()]).await.expect("answers");
    assert_eq!(fetched, [Ok(())]);
    assert_eq!(held(&store, layer.digest).as_ref(), Some(&content));
    let range = seen.last().and_then(|seen| seen.headers.get("range")).expect("a range");
    let from: usize =
        range.trim_start_matches("bytes=").trim_end_matches('-').parse().expect("one");
    assert!((1..=400_000).contains(&from), "{range}");

    // A page in the place of records is passed over; so are the records of another key.
    let path = server.paths().into_iter().find(|path| path.starts_with(records)).expect("one");
    let right = server.file(&path).expect("is there");
    server.set(&path, Some(b"<html>log in</html>".to_vec()));
    let backend = world.open(&store, "read", &[]).await;
    assert_eq!(backend.ids(key("k")).await, []);
    server.set(&format!("{records}{}", key("other").digest().hex()), Some(right.clone()));
    assert_eq!(backend.ids(key("other")).await, []);
    server.set(&path, Some(right));

    // What stays wrong is a failure with the reason.
    for (mishap, kind) in [
        (Mishap::Status(500), FailureKind::Unavailable),
        (Mishap::Status(403), FailureKind::Denied),
        (Mishap::Redirect("http://127.0.0.1:1/elsewhere".to_owned()), FailureKind::Denied),
        (Mishap::Redirect("https://example.org/".to_owned()), FailureKind::Denied),
        (Mishap::Redirect("file:///etc/passwd".to_owned()), FailureKind::Denied),
        (Mishap::Body(vec![b'x'; 5 << 20]), FailureKind::Limit),
    ] {
        for _ in 0..3 {
            server.next("GET", records, mishap.clone());
        }
        let backend = world.open(&fresh("wrong"), "read", &[]).await;
        let failure = backend.0.find(vec![key("k")]).await.expect_err("it goes wrong");
        assert_eq!(failure.kind, kind, "{mishap:?}: {failure}");
        for _ in 0..2 {
            // Those that were not needed must not hit the next.
            let _ = backend.0.find(vec![key("k")]).await;
        }
    }
    for round in 0..3 {
        server.next("PUT", "/cache/blobs/", Mishap::Status(507));
        let other = super::layer(&store, &much(round));
        let backend = world.open(&store, "write", &[]).await;
        let pushed = backend.0.push(vec![other]).await.expect("answers");
        assert_eq!(pushed[0].as_ref().expect_err("it is full").kind, FailureKind::Limit);
    }
}
