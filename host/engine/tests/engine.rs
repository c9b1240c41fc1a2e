//! The engine over the real store, with frontends and contexts written here. No processes are run.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use wbuild_engine::event::StepEnd;
use wbuild_engine::extension::{
    CacheBackend, CacheHost, CachePlugin, FilesResult, FrontendHost, LayerDescriptor,
    PluginIdentity, RecordEntry,
};
use wbuild_engine::request::{ContextSpec, OutputDest, OutputKind};
use wbuild_graph::op::{FileActionKind, LocalSource, SourceOp};
use wbuild_graph::{Attrs, CacheKey, Digest, Edge, Failure, FailureKind, Op, Platform, ResultId};

mod place;

use place::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_that_changes_between_key_and_copy_is_never_stored_under_the_old_key() {
    if !privileged("a_context_that_changes_between_key_and_copy") {
        return;
    }
    let mut place = Place::new();
    place.write("f", "old");
    // It is opened for the key, and again for the copy.
    place.context(|opened, path| {
        if opened == 1 {
            std::fs::write(path.join("f"), "new").expect("changed");
        }
    });
    let error = place.build(copy_of_context).await.expect_err("changed");
    assert_eq!(error.failure.kind, FailureKind::Changed, "{}", error.failure);
    assert!(error.step.is_some(), "it has a place");

    place.write("f", "old");
    place.context(|_, _| {});
    place.output(OutputKind::Local, OutputDest::Directory(place.path("out")), &[]);
    place.build(copy_of_context).await.expect("built");
    assert_eq!(std::fs::read_to_string(place.path("out/f")).expect("exported"), "old");
    place.build(copy_of_context).await.expect("built");
    assert!(place.log.ends().contains(&StepEnd::Cached));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_under_another_name_is_another_file_where_the_target_is_a_directory() {
    if !privileged("a_file_under_another_name") {
        return;
    }
    let mut place = Place::new();
    for name in ["a", "b"] {
        place.write(name, "same");
        place.output(OutputKind::Local, OutputDest::Directory(place.path(name)), &[]);
        let path = format!("/{name}");
        let frontend = move |host: &FrontendHost| {
            let base = file(host, None, None, write("/d/other", "x"));
            let context = local(host);
            yield_image(host, file(host, Some(base), Some(context), copy(1, &path, "/d")))
        };
        place.build(frontend).await.expect("built");
        assert!(place.path(name).join("d").join(name).exists(), "/d/{name} was copied");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_unpacked_for_many_keys_at_once() {
    if !privileged("images_are_unpacked_for_many_keys_at_once") {
        return;
    }
    let mut place = Place::new();
    for n in 0..8 {
        let layout = OutputDest::Directory(place.path(&format!("layout{n}")));
        place.output(OutputKind::Oci, layout, &[("tar", "false")]);
        let frontend = move |host: &FrontendHost| {
            yield_image(host, file(host, None, None, write("/f", &n.to_string())))
        };
        place.build(frontend).await.expect("built");
    }
    std::fs::remove_dir_all(place.path("state")).expect("forgotten");
    for n in 0..8 {
        let directory = place.path(&format!("layout{n}"));
        let context = ContextSpec::OciLayout { directory, reference: None };
        place.request.contexts.insert(format!("base{n}"), context);
    }
    place.output(OutputKind::Local, OutputDest::Directory(place.path("out")), &[]);
    let frontend = |host: &FrontendHost| {
        let stages = (0..8).map(|n| {
            let image = SourceOp::Image {
                reference: format!("base{n}"),
                platform: Platform::host(),
                attrs: Attrs(vec![("store".to_owned(), format!("oci-layout:base{n}"))]),
            };
            let image = host.graph.insert(Op::Source(image), Vec::new()).expect("image")[0];
            file(host, None, Some(image), copy(0, "/f", &format!("/{n}")))
        });
        let stages: Vec<Edge> = stages.collect();
        yield_image(host, host.graph.insert(Op::Merge, stages)?[0])
    };
    place.build(frontend).await.expect("built");
    for n in 0..8 {
        let text = std::fs::read_to_string(place.path(&format!("out/{n}"))).expect("copied");
        assert_eq!(text, n.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_of_an_included_path_lead_to_what_they_mean() {
    if !privileged("links_of_an_included_path_lead_to_what_they_mean") {
        return;
    }
    let mut place = Place::new();
    place.write("real", "x");
    place.write("hidden", "x");
    std::os::unix::fs::symlink("real", place.path("context/link")).expect("link");
    for (path, follow, good) in
        [("/link", true, true), ("/link", false, false), ("/hidden", true, false)]
    {
        let frontend = move |host: &FrontendHost| {
            let source = LocalSource {
                name: "context".to_owned(),
                include: vec!["link".to_owned()],
                follow: if follow { vec!["link".to_owned()] } else { Vec::new() },
                ..LocalSource::default()
            };
            let context = host.graph.insert(Op::Source(SourceOp::Local(source)), Vec::new())?[0];
            let mut action = copy(0, path, "/f");
            if let FileActionKind::Copy { opts, .. } = &mut action.kind {
                opts.follow_links = true;
            }
            yield_image(host, file(host, None, Some(context), action))
        };
        assert_eq!(place.build(frontend).await.is_ok(), good, "{path} {follow}");
    }
}

#[tokio::test]
async fn outputs_that_cannot_work_are_refused_before_the_build() {
    let file = |name: &str| OutputDest::File(PathBuf::from(name));
    for (kind, dest, attr) in [
        (OutputKind::Oci, file("x"), ("bogus", "1")),
        (OutputKind::Oci, file("x"), ("compression", "lzw")),
        (OutputKind::Oci, file("x"), ("name", "Not/A Name")),
        (OutputKind::Oci, file("x"), ("rewrite-timestamp", "maybe")),
        (OutputKind::Oci, OutputDest::Nowhere, ("compression", "zstd")),
        (OutputKind::Docker, OutputDest::Directory("x".into()), ("compression", "zstd")),
        (OutputKind::Local, OutputDest::Stdout, ("platform-split", "true")),
        (OutputKind::Tar, file("x"), ("platform-split", "maybe")),
    ] {
        let mut place = Place::new();
        place.output(kind, dest.clone(), &[attr]);
        let refused = place.build(|_| panic!("the frontend runs")).await;
        refused.expect_err(&format!("{kind:?} {dest:?} {attr:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressing_a_base_anew_keeps_its_diff_ids() {
    if !privileged("compressing_a_base_anew_keeps_its_diff_ids") {
        return;
    }
    let mut place = Place::new();
    place.output(OutputKind::Oci, OutputDest::Directory(place.path("base")), &[("tar", "false")]);
    let base = |host: &FrontendHost| yield_image(host, file(host, None, None, write("/f", "x")));
    place.build(base).await.expect("built");
    let context = ContextSpec::OciLayout { directory: place.path("base"), reference: None };
    place.request.contexts.insert("base".to_owned(), context);
    let mut found = Vec::new();
    for compression in ["gzip", "zstd", "uncompressed", "gzip"] {
        let dest = place.path(&format!("out-{compression}"));
        let attrs = [("tar", "false"), ("compression", compression), ("force-compression", "true")];
        place.output(OutputKind::Oci, OutputDest::Directory(dest.clone()), &attrs);
        let frontend = |host: &FrontendHost| {
            let image = SourceOp::Image {
                reference: "base".to_owned(),
                platform: Platform::host(),
                attrs: Attrs(vec![("store".to_owned(), "oci-layout:base".to_owned())]),
            };
            let image = host.graph.insert(Op::Source(image), Vec::new()).expect("image")[0];
            yield_image(host, file(host, Some(image), None, write("/g", "y")))
        };
        let report = place.build(frontend).await.expect("built");
        let config = report.images[0].config.expect("config").hex();
        let config = std::fs::read(dest.join("blobs/sha256").join(config)).expect("config");
        let config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
        found.push(config["rootfs"]["diff_ids"].to_string());
    }
    assert_eq!(found[0].matches("sha256:").count(), 2, "{}", found[0]);
    assert!(found.iter().all(|ids| *ids == found[0]), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_results_are_the_files_below_their_paths() {
    if !privileged("file_results_are_the_files_below_their_paths") {
        return;
    }
    let mut place = Place::new();
    place.output(OutputKind::Tar, OutputDest::File(place.path("out.tar")), &[]);
    let frontend = |host: &FrontendHost| {
        let root = file(host, None, None, write("/sub/deep/f", "x"));
        host.results.files(FilesResult {
            name: String::new(),
            platform: None,
            root,
            path: "/sub".to_owned(),
            attrs: Attrs::default(),
        })
    };
    place.build(frontend).await.expect("built");
    let tar = std::fs::read(place.path("out.tar")).expect("tar");
    let mut reader = wbuild_oci::layer::TarReader::new(&tar[..], Default::default());
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().expect("entry") {
        names.push(String::from_utf8(entry.path.clone()).expect("UTF-8"));
    }
    let names: Vec<&str> = names.iter().map(|name| name.trim_end_matches('/')).collect();
    assert_eq!(names, ["deep", "deep/f"]);
}

/// A backend that answers every question with one record, or fails.
struct Liar {
    fails: bool,
    known: Arc<Mutex<Vec<RecordEntry>>>,
}

#[async_trait]
impl CachePlugin for Liar {
    fn identity(&self) -> PluginIdentity {
        identity("liar")
    }

    async fn connect(&self, _: CacheHost) -> Result<Arc<dyn CacheBackend>, Failure> {
        Ok(Arc::new(Liar { fails: self.fails, known: Arc::clone(&self.known) }))
    }
}

#[async_trait]
impl CacheBackend for Liar {
    async fn open(&self, _: String, _: Attrs) -> Result<(), Failure> {
        Ok(())
    }

    async fn find(&self, keys: Vec<CacheKey>) -> Result<Vec<Vec<RecordEntry>>, Failure> {
        if self.fails {
            return Err(Failure::internal("the backend is broken"));
        }
        let known = self.known.lock().expect("known").clone();
        Ok(keys.iter().map(|_| known.clone()).collect())
    }

    async fn fetch(&self, _: Vec<LayerDescriptor>) -> Result<Vec<Result<(), Failure>>, Failure> {
        Ok(Vec::new())
    }

    async fn save(&self, entries: Vec<RecordEntry>) -> Result<(), Failure> {
        assert!(entries.iter().all(|entry| entry.id != ResultId(Digest::of(b""))));
        self.known.lock().expect("known").extend(entries);
        Ok(())
    }

    async fn push(&self, _: Vec<LayerDescriptor>) -> Result<Vec<Result<(), Failure>>, Failure> {
        Ok(Vec::new())
    }

    async fn commit(&self) -> Result<Attrs, Failure> {
        Ok(Attrs::default())
    }

    async fn prune(&self, _: Attrs) -> Result<Attrs, Failure> {
        Ok(Attrs::default())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_backend_that_lies_or_fails_costs_a_miss() {
    if !privileged("a_cache_backend_that_lies_or_fails_costs_a_miss") {
        return;
    }
    let mut place = Place::new();
    place.record_aliases = false;
    let known = Arc::default();
    for (text, fails) in [("one", false), ("two", false), ("three", true)] {
        place.caches = vec![Arc::new(Liar { fails, known: Arc::clone(&known) })];
        place.output(OutputKind::Local, OutputDest::Directory(place.path(text)), &[]);
        let frontend =
            move |host: &FrontendHost| yield_image(host, file(host, None, None, write("/f", text)));
        place.build(frontend).await.expect("built");
        assert_eq!(std::fs::read_to_string(place.path(text).join("f")).expect("file"), text);
        assert_eq!(place.log.warnings(), usize::from(fails));
    }
    // The truth is believed.
    place.caches = vec![Arc::new(Liar { fails: false, known })];
    let frontend =
        |host: &FrontendHost| yield_image(host, file(host, None, None, write("/f", "one")));
    place.build(frontend).await.expect("built");
    assert_eq!(place.log.ends().first(), Some(&StepEnd::Cached));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frontend_from_a_file_is_not_trusted_with_names() {
    if !privileged("a_frontend_from_a_file_is_not_trusted_with_names") {
        return;
    }
    let mut place = Place::new();
    place.output(OutputKind::Oci, OutputDest::File(place.path("out.tar")), &[]);
    let named = |host: &FrontendHost| {
        let mut attrs = Attrs::default();
        attrs.push("tag", "example/app:1");
        let (name, config) = (String::new(), "{}".to_owned());
        let root = Some(file(host, None, None, write("/f", "file")));
        host.results.image(wbuild_engine::extension::ImageResult {
            name,
            platform: None,
            root,
            config,
            attrs,
        })
    };
    place.build_as("own".to_owned(), named).await.expect("one that came with the program is");
    for own in ["/a/own.wasm", "oci://registry.example/own", ""] {
        let failure = place.build_from(own, named).await.expect_err(own).failure;
        assert_eq!(failure.kind, FailureKind::Denied, "{own}");
        let message = "the frontend calls its image \"example/app:1\", which is not granted";
        assert_eq!(failure.message, message, "{own}");
    }
}
