//! What a backend reaches of the content store: what the host has named to it and what has come from
//! where it was granted. Everything else is as if it was not here, neither to be read nor to be sent.

use wbuild_api::extension::{HttpBody, HttpRequest, NewManifest};
use wbuild_graph::FailureKind;
use wbuild_oci::layout::LayoutWriter;
use wbuild_oci::media::OCI_MANIFEST;

use super::*;

/// A failure's words about `digest`, with the digest left out.
fn words(failure: &Failure, digest: &Digest) -> String {
    failure.to_string().replace(&digest.hex(), "…").replace(&digest.short().to_string(), "…")
}

/// A manifest that claims `layer` for its config.
fn manifest(layer: &LayerDescriptor) -> Vec<u8> {
    let config = serde_json::json!({
        "mediaType": "x/y",
        "digest": layer.digest.to_string(),
        "size": layer.size,
    });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config,
        "layers": [],
    });
    manifest.to_string().into_bytes()
}

/// What all ways there are say to a request for `layer`, which none of them may fulfil.
async fn tried(world: &World, host: &CacheHost, layer: &LayerDescriptor) -> Vec<String> {
    let mut said = Vec::new();
    let digest = &layer.digest;
    assert_eq!(host.blobs.open(*digest), None);
    let failure = host.blobs.read(*digest, 0, 10).expect_err("it is not reachable");
    said.push(words(&failure, digest));
    if let Some(repository) = &host.repository {
        for answers in
            [repository.push(vec![layer.clone()]).await, repository.pull(vec![layer.clone()]).await]
        {
            let failure = answers[0].as_ref().expect_err("it is not reachable");
            assert_eq!(failure.kind, FailureKind::Gone, "{failure}");
            said.push(words(failure, digest));
        }
    }
    if let (Some(http), Place::Web(server)) = (&host.http, &world.place) {
        let put = HttpRequest {
            method: "PUT".to_owned(),
            url: server.url("/cache/stolen"),
            body: HttpBody::Blob { digest: BlobDigest(*digest), offset: 0, length: None },
            ..HttpRequest::default()
        };
        let failure = http.send(vec![put]).await.remove(0).expect_err("it is not reachable");
        said.push(words(&failure, digest));
        // Nor by saying that a server has sent it.
        server.set("/cache/lie", Some(vec![b'x'; usize::try_from(layer.size).expect("small")]));
        let get = HttpRequest {
            method: "GET".to_owned(),
            url: server.url("/cache/lie"),
            ..HttpRequest::default()
        };
        let answer = http.send(vec![get]).await.remove(0).expect("an answer");
        let failure = http.body_blob(answer.id, layer.clone()).await.expect_err("it is another");
        // It names the digest of what has come.
        said.push(format!("{:?}", failure.kind));
        assert_eq!(server.file("/cache/stolen"), None);
    }
    assert_eq!(host.blobs.open(*digest), None);
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_named_is_not_here() {
    for world in World::all() {
        let (name, store) = (world.name(), world.store("store"));
        let host = world.host(&Shelf::new(store.clone()));
        let private = layer(&store, &much(3));
        let absent = described(&much(4));
        let (here, nowhere) =
            (tried(&world, &host, &private).await, tried(&world, &host, &absent).await);
        assert_eq!(here, nowhere, "{name}: it can be told whether a blob is here");
        if !matches!(world.place, Place::Local | Place::Web(_)) {
            assert_eq!(world.blob(&private.digest), None, "{name}: it was sent away");
        }
        assert!(held(&store, private.digest).is_some(), "{name}");
    }
}

/// A build that was cut off has left the beginning of a layer: who has the rest does not have it all.
#[tokio::test(flavor = "multi_thread")]
async fn part_of_what_nobody_named_does_not_help() {
    for world in World::elsewhere() {
        let (name, store) = (world.name(), world.store("store"));
        let content = much(5);
        let layer = described(&content);
        let mut left = store.resume(&BlobDigest(layer.digest), layer.size).expect("begins");
        left.append(&content[..400_000]).expect("writes");
        drop(left);
        let host = world.host(&Shelf::new(store.clone()));
        tried(&world, &host, &layer).await;
        if let Place::Web(server) = &world.place {
            let asked: Vec<_> = server
                .seen()
                .into_iter()
                .filter_map(|seen| seen.headers.get("range").cloned())
                .collect();
            assert!(asked.is_empty(), "{name}: {asked:?}");
        }
        let left = store.resume(&BlobDigest(layer.digest), layer.size).expect("is there");
        assert_eq!(left.size(), 400_000, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_named_or_has_come_is_here() {
    for world in World::all() {
        let (name, store) = (world.name(), world.store("store"));
        let shelf = Shelf::new(store.clone());
        let host = world.host(&shelf);
        let named = layer(&store, &much(6));
        shelf.name([&named]);
        let info = host.blobs.open(named.digest).expect(name);
        assert_eq!(info.size, named.size, "{name}");
        let own = host.blobs.write_small("x/y".to_owned(), b"own".to_vec()).expect(name);
        assert!(host.blobs.open(own.digest.0).is_some(), "{name}");
        let Some(repository) = &host.repository else { continue };
        assert_eq!(repository.push(vec![named.clone()]).await, [Ok(())], "{name}");
        assert!(world.blob(&named.digest).is_some(), "{name}");
        let manifest = NewManifest {
            tag: Some("main".to_owned()),
            media_type: OCI_MANIFEST.to_owned(),
            data: manifest(&named),
        };
        repository.publish(manifest).await.expect(name);
        drop(host);
        // Another build's instance: nothing was named to it, but the place has it.
        let host = world.host(&Shelf::new(store.clone()));
        assert_eq!(host.blobs.open(named.digest), None, "{name}");
        let repository = host.repository.as_ref().expect("there was one");
        assert_eq!(repository.pull(vec![named.clone()]).await, [Ok(())], "{name}");
        assert!(host.blobs.open(named.digest).is_some(), "{name}");
    }
}

/// What a registry has sent once it need not send again; another repository has to show that it has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_comes_once_from_a_registry() {
    let Some(mut world) = World::registry() else { return };
    let (from, to) = (world.store("from"), world.store("to"));
    let document = layer(&from, b"a list of records");
    let shelf = Shelf::new(from);
    shelf.name([&document]);
    let cap = world.host(&shelf).repository.expect("a registry");
    assert_eq!(cap.push(vec![document.clone()]).await, [Ok(())]);
    // It is in the store for another reason.
    to.put_blob(b"a list of records").expect("a blob");
    let pull = async |world: &World| {
        let cap = world.host(&Shelf::new(to.clone())).repository.expect("a registry");
        cap.pull(vec![document.clone()]).await.remove(0)
    };
    assert_eq!(pull(&world).await, Ok(()));
    let Place::Registry(registry) = &mut world.place else { panic!("a registry") };
    registry.stop().expect("stops");
    assert_eq!(pull(&world).await, Ok(()));
    let stranger = described(b"another list");
    to.put_blob(b"another list").expect("a blob");
    let cap = world.host(&Shelf::new(to.clone())).repository.expect("a registry");
    let failure = cap.pull(vec![stranger]).await.remove(0).expect_err("nobody has shown it");
    assert_eq!(failure.kind, FailureKind::Unavailable, "{failure}");
}

/// Records that a backend claims make nothing reachable, but what the host then asks it for.
#[tokio::test(flavor = "multi_thread")]
async fn the_host_names_what_it_asks_for() {
    for world in World::elsewhere() {
        let (name, store) = (world.name(), world.store("store"));
        let private = layer(&store, &much(8));
        let entry = record("r", &["k"], 1, std::slice::from_ref(&private));
        let backend = world.open(&store, "write", &[]).await;
        backend.push_all(std::slice::from_ref(&entry)).await;
        backend.0.save(vec![entry]).await.expect(name);
        backend.0.commit().await.expect(name);
        drop(backend);
        let backend = world.open(&store, "read", &[]).await;
        assert_eq!(backend.ids(key("k")).await, [id("r")], "{name}");
        let fetched = backend.0.fetch(vec![private.clone()]).await.expect(name);
        assert_eq!(fetched, [Ok(())], "{name}");
    }
}

/// An image layout does not lend its name to what is only in the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_in_a_manifest_makes_nothing_reachable() {
    let world = World::oci().remove(0);
    let Place::Directory(path) = &world.place else { panic!("a directory") };
    let store = world.store("store");
    let private = layer(&store, &much(9));
    let dir = File::open(path).expect("a directory").into();
    let writer = LayoutWriter::try_lock(dir).expect("locks").expect("nobody else");
    writer.put_manifest(Some("main"), OCI_MANIFEST, &manifest(&private)).expect("puts");
    drop(writer);
    let host = world.host(&Shelf::new(store));
    let repository = host.repository.as_ref().expect("a directory");
    let found = repository.resolve("main".to_owned()).await.expect("reads").expect("is there");
    assert!(host.blobs.open(found.digest).is_some(), "the manifest itself has come");
    tried(&world, &host, &private).await;
}
