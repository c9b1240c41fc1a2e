//! What a frontend yields and what becomes of it: several images, publishing, effects, failures behind
//! the results. No processes are run.

mod place;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use place::{Place, copy, file, local, privileged, write, yield_image};
use wbuild_engine::event::{BuildReport, StepEnd};
use wbuild_engine::extension::{FilesResult, FrontendHost, ImageResult};
use wbuild_engine::request::{OutputDest, OutputKind};
use wbuild_graph::op::{Access, ExecOp, Mount, MountKind};
use wbuild_graph::{Attrs, Edge, Failure, FailureKind, Op};

fn image(
    host: &FrontendHost,
    name: &str,
    root: Edge,
    attrs: &[(&str, &str)],
) -> Result<(), Failure> {
    host.results.image(ImageResult {
        name: name.to_owned(),
        platform: None,
        root: Some(root),
        config: "{}".to_owned(),
        attrs: Attrs(attrs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()),
    })
}

fn files(host: &FrontendHost, name: &str, root: Edge) -> Result<(), Failure> {
    let (name, path) = (name.to_owned(), "/".to_owned());
    host.results.files(FilesResult { name, platform: None, root, path, attrs: Attrs::default() })
}

fn publish(host: &FrontendHost, names: &[&str]) -> Result<(), Failure> {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let published = host.results.publish(names);
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(published))
}

/// A process that could not run here.
fn process(host: &FrontendHost, capture: Option<u32>) -> Edge {
    process_on(host, None, capture)
}

fn process_on(host: &FrontendHost, on: Option<Edge>, capture: Option<u32>) -> Edge {
    let (source, subpath) = (on.map(|_| 0), String::new());
    let root = Mount {
        target: "/".to_owned(),
        kind: MountKind::Bind { source, subpath, access: Access::Rw },
    };
    let exec = ExecOp { capture, mounts: vec![root], ..ExecOp::new(vec!["true".to_owned()]) };
    host.graph.insert(Op::Exec(Box::new(exec)), on.into_iter().collect()).expect("a process")[0]
}

fn named(host: &FrontendHost, path: &str) -> Edge {
    file(host, None, None, write(path, path))
}

fn layout_names(layout: &Path) -> Vec<String> {
    let index = std::fs::read(layout.join("index.json")).expect("an index");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    let name = |entry: &serde_json::Value| {
        entry["annotations"]["io.containerd.image.name"].as_str().unwrap_or("none").to_owned()
    };
    let mut names: Vec<String> =
        index["manifests"].as_array().expect("manifests").iter().map(name).collect();
    names.sort();
    names
}

fn layout(place: &mut Place, name: &str) {
    let dest = OutputDest::Directory(place.path(name));
    place.output(OutputKind::Oci, dest, &[("tar", "false")]);
}

fn images(report: &BuildReport) -> Vec<(&str, Vec<&str>)> {
    let names = report.images.iter().map(|image| image.names.iter().map(String::as_str).collect());
    report.images.iter().map(|image| &*image.image).zip(names).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_have_their_own_names_and_the_main_one_those_of_the_client() {
    if !privileged("images_have_their_own_names_and_the_main_one_those_of_the_client") {
        return;
    }
    let mut place = Place::new();
    layout(&mut place, "layout");
    place.request.tags = vec!["given".to_owned()];
    let frontend = |host: &FrontendHost| {
        image(host, "a", named(host, "/a"), &[("tag", "a:1"), ("push-tag", "a:2")])?;
        image(host, "", named(host, "/main"), &[("annotation", "key=value")])?;
        image(host, "b", named(host, "/b"), &[])
    };
    let report = place.build(frontend).await.expect("built");
    let (given, one, two) =
        ("docker.io/library/given:latest", "docker.io/library/a:1", "docker.io/library/a:2");
    assert_eq!(images(&report), [("", vec![given]), ("a", vec![one, two]), ("b", vec![])]);
    assert_eq!(layout_names(&place.path("layout")), [one, two, given, "none"]);
    let digest = report.images[0].digest.expect("a digest").hex();
    let manifest = std::fs::read(place.path("layout/blobs/sha256").join(digest)).expect("there");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!(manifest["annotations"]["key"], "value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_nowhere_to_go_is_refused_before_a_step_runs() {
    if !privileged("what_has_nowhere_to_go_is_refused_before_a_step_runs") {
        return;
    }
    let mut place = Place::new();
    let other = |host: &FrontendHost| image(host, "a", named(host, "/a"), &[("tag", "a")]);
    let main = |host: &FrontendHost| yield_image(host, named(host, "/main"));
    let directory = OutputDest::Directory(place.path("out"));
    // Names for an image that is not there.
    place.request.tags = vec!["given".to_owned()];
    let failure = place.build(other).await.expect_err("no image").failure;
    assert!(failure.hints[0].contains("by itself: a"), "{failure}");
    place.request.tags.clear();
    place.output(OutputKind::Local, directory, &[]);
    place.build(other).await.expect_err("no files");
    place.output(OutputKind::Image, OutputDest::Nowhere, &[("push", "true")]);
    for failure in [
        place.build(other).await.expect_err("nothing to push").failure,
        place.build(main).await.expect_err("nothing to push").failure,
    ] {
        assert!(failure.message.contains("nowhere to push"), "{failure}");
    }
    layout(&mut place, "layout");
    let twice = |host: &FrontendHost| {
        image(host, "a", named(host, "/a"), &[("tag", "x")])?;
        image(host, "b", named(host, "/b"), &[("push-tag", "x:latest")])
    };
    let failure = place.build(twice).await.expect_err("one name for two").failure;
    assert!(failure.message.contains("both called x"), "{failure}");
    for (key, value) in
        [("push", "true"), ("index", "perhaps"), ("annotation", "no pair"), ("tag", "A B")]
    {
        let attrs = move |host: &FrontendHost| image(host, "", named(host, "/a"), &[(key, value)]);
        place.build(attrs).await.expect_err(key);
    }
    assert!(!place.log.ends().contains(&StepEnd::Done), "a step has run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_is_there_at_once_and_not_written_again() {
    if !privileged("what_is_published_is_there_at_once_and_not_written_again") {
        return;
    }
    let mut place = Place::new();
    let out = place.path("out");
    place.output(OutputKind::Local, OutputDest::Directory(out.clone()), &[]);
    let runs: Arc<AtomicUsize> = Arc::default();
    for _ in 0..2 {
        let (inside, runs) = (out.clone(), Arc::clone(&runs));
        let frontend = move |host: &FrontendHost| {
            runs.fetch_add(1, Ordering::SeqCst);
            files(host, "early", named(host, "/early"))?;
            files(host, "late", named(host, "/late"))?;
            assert!(publish(host, &["never"]).is_err(), "there is none of this name");
            publish(host, &["early"])?;
            assert!(inside.join("early").exists() && !inside.join("late").exists());
            std::fs::remove_file(inside.join("early")).expect("removed");
            assert!(files(host, "early", named(host, "/more")).is_err(), "it is complete");
            Ok(())
        };
        place.build_as("publisher".to_owned(), frontend).await.expect("built");
        assert!(out.join("late").exists() && !out.join("early").exists(), "it was written again");
        std::fs::remove_dir_all(&out).expect("removed");
    }
    // It is done anew in each build, by the frontend.
    assert_eq!(runs.load(Ordering::SeqCst), 2);

    // One name cannot be published for two images.
    layout(&mut place, "layout");
    let frontend = |host: &FrontendHost| {
        image(host, "a", named(host, "/a"), &[("tag", "x")])?;
        publish(host, &["a"])?;
        image(host, "b", named(host, "/b"), &[("tag", "x")])?;
        publish(host, &["b"])
    };
    let failure = place.build(frontend).await.expect_err("one name for two").failure;
    assert!(failure.message.contains("both called x"), "{failure}");
    assert_eq!(layout_names(&place.path("layout")), ["docker.io/library/x:latest"]);

    // What is written once holds everything.
    let archive = place.path("out.tar");
    place.output(OutputKind::Tar, OutputDest::File(archive.clone()), &[]);
    let there = archive.clone();
    let frontend = move |host: &FrontendHost| {
        files(host, "early", named(host, "/early"))?;
        files(host, "late", named(host, "/late"))?;
        publish(host, &["early"])?;
        assert!(!there.exists());
        Ok(())
    };
    place.build(frontend).await.expect("built");
    let bytes = std::fs::read(&archive).expect("archive");
    for name in ["early", "late"] {
        assert!(bytes.windows(name.len()).any(|window| window == name.as_bytes()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_effect_stands_on_succeeds_before_anything_is_pushed() {
    if !privileged("what_an_effect_stands_on_succeeds_before_anything_is_pushed") {
        return;
    }
    let mut place = Place::new();
    place.output(OutputKind::Image, OutputDest::Nowhere, &[("push", "true")]);
    let frontend = |host: &FrontendHost| {
        let missing = file(host, None, Some(local(host)), copy(0, "/missing", "/f"));
        let first = process_on(host, Some(missing), None);
        host.results.effect("first".to_owned(), first)?;
        host.results.effect("second".to_owned(), process_on(host, Some(first), None))?;
        // Nobody listens there.
        image(host, "", named(host, "/f"), &[("push-tag", "127.0.0.1:1/app")])
    };
    let failure = place.build(frontend).await.expect_err("there is no such file").failure;
    assert!(failure.to_string().contains("missing"), "{failure}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_processes_have_effects_and_failures() {
    if !privileged("only_processes_have_effects_and_failures") {
        return;
    }
    let mut place = Place::new();
    let frontend = |host: &FrontendHost| {
        let (root, plain) = (named(host, "/f"), process(host, None));
        for refused in [
            host.results.effect("files".to_owned(), root),
            host.results.effect("nothing".to_owned(), Edge { index: 7, ..plain }),
            host.results.fail_after(root),
            host.results.fail_after(plain),
        ] {
            assert_eq!(refused.expect_err("refused").kind, FailureKind::Invalid);
        }
        yield_image(host, root)
    };
    place.build(frontend).await.expect("built");
    // It does not run unless the client pushes, however often the trace is replayed.
    let frontend = |host: &FrontendHost| {
        host.results.effect("never".to_owned(), process(host, None))?;
        yield_image(host, named(host, "/f"))
    };
    for memo in [false, true] {
        let report = place.build_as("effects".to_owned(), frontend).await.expect("built");
        assert_eq!(report.stats.frontend_memo_hit, memo);
    }
    place.output(OutputKind::Image, OutputDest::Nowhere, &[("push", "true")]);
    // There is nothing to run processes with here, so it has been tried.
    place.build_as("effects".to_owned(), frontend).await.expect_err("it ran");
}
