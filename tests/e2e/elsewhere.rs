//! Caches elsewhere: in a real registry, in directories, in images.
//!
//! Two state directories stand for two machines: `state`, and `b`, which is empty at first.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use wbuild_tests::base;
use wbuild_tests::case::same_trees;
use wbuild_tests::registry::{PASSWORD, Registry, Request, Settings, USER};
use wbuild_tests::run::{DEADLINE, Run};
use wbuild_tests::sandbox::Sandbox;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("an_empty_machine_runs_nothing", an_empty_machine_runs_nothing),
    ("what_is_read_comes_and_is_right", what_is_read_comes_and_is_right),
    ("only_what_follows_a_change_runs", only_what_follows_a_change_runs),
    ("results_only_or_everything", results_only_or_everything),
    ("registries_that_do_not_work", registries_that_do_not_work),
    ("blobs_that_were_changed", blobs_that_were_changed),
    ("exports_that_fail", exports_that_fail),
    ("ctrl_c_in_an_export", ctrl_c_in_an_export),
    ("with_tls_and_a_password", with_tls_and_a_password),
    ("without_looking_anything_up", without_looking_anything_up),
    ("a_directory_does_not_grow", a_directory_does_not_grow),
    ("several_at_once", several_at_once),
    ("within_an_image", within_an_image),
    ("an_export_that_nobody_answers", an_export_that_nobody_answers),
];

// What a step prints is not in its name.
const FILE: &str = "FROM IMAGE AS tools\n\
    RUN echo tool > /tool && touch /other && echo \"ran\"-tool\n\
    FROM IMAGE\n\
    COPY early /early\n\
    RUN cat /early > /one && rm /etc/group && echo \"ran\"-one\n\
    COPY late /late\n\
    COPY --from=tools /tool /tool\n\
    RUN cat /late > /two && echo \"ran\"-two\n";
const STEPS: [&str; 6] =
    ["RUN echo tool", "COPY early", "RUN cat /early", "COPY late", "COPY --from", "RUN cat /late"];

/// A registry that holds the base image, and a sandbox that builds on it.
fn start(name: &str, file: &str) -> Result<(Sandbox, Registry)> {
    let sandbox = Sandbox::with(name, &[("early", "early\n"), ("late", "late\n")])?;
    let registry = Registry::start(&sandbox.path("registry"), false)?;
    registry.push(&format!("{}:latest", base::layout()?.display()), "library/base:1")?;
    let image = format!("{}/library/base:1", registry.host());
    sandbox.write("Dockerfile", &file.replace("IMAGE", &image))?;
    Ok((sandbox, registry))
}

fn ends(run: &Run) -> Result<Vec<String>> {
    STEPS.iter().map(|step| run.end_of(step)).collect()
}

fn all_found(run: &Run) -> Result<()> {
    ensure!(ends(run)?.iter().all(|end| end == "CACHED"), "{}", run.stderr);
    run.never_says("ran-")
}

/// The layers of what a tag names.
fn layers(registry: &Registry, name: &str) -> Result<BTreeSet<String>> {
    let manifest = registry.manifest(name)?;
    let layers = manifest["layers"].as_array().context("a manifest has layers")?;
    Ok(layers.iter().filter_map(|layer| Some(layer["digest"].as_str()?.to_owned())).collect())
}

/// What of these was fetched.
fn fetched(registry: &Registry, layers: &BTreeSet<String>) -> Result<Vec<Request>> {
    let mut requests = registry.requests()?;
    requests.retain(|request| {
        request.method == "GET" && layers.iter().any(|layer| request.path.ends_with(layer.as_str()))
    });
    Ok(requests)
}

fn an_empty_machine_runs_nothing() -> Result<()> {
    let (sandbox, mut registry) = start("elsewhere", FILE)?;
    let host = registry.host();
    let (cache, tag) = (format!("{host}/cache/app:1"), format!("-t={host}/team/app:1"));
    let to = format!("--cache-to=type=registry,ref={cache},mode=max");
    let run = sandbox.build(&[&to, &tag, "--push"])?.success()?;
    run.says(&format!("export cache to {cache}"))?;
    let built = registry.manifest("team/app:1")?;
    let mut known = layers(&registry, "cache/app:1")?;
    known.extend(layers(&registry, "team/app:1")?);

    registry.restart()?;
    let from = format!("--cache-from={cache}");
    let run = sandbox.build(&["--state-dir=b", &from, &to, &tag, "--push"])?.success()?;
    all_found(&run)?;
    run.says(&format!("CACHED from {cache}"))?;
    ensure!(registry.manifest("team/app:1")? == built, "another image was pushed");
    let moved = fetched(&registry, &known)?;
    ensure!(moved.is_empty(), "layers were fetched: {moved:?}");
    let sends = |r: &Request| matches!(r.method.as_str(), "PATCH" | "POST");
    let sent: Vec<_> = registry.requests()?.into_iter().filter(sends).collect();
    ensure!(sent.is_empty(), "{sent:?}");

    // In another repository of the registry they are taken over.
    registry.restart()?;
    let other = format!("-t={host}/other/app:1");
    let run = sandbox.build(&["--state-dir=c", &from, &other, "--push"])?.success()?;
    all_found(&run)?;
    ensure!(registry.manifest("other/app:1")? == built, "another image was pushed");
    let moved = fetched(&registry, &known)?;
    ensure!(moved.is_empty(), "layers were fetched: {moved:?}");

    // What was found is kept: from now on nobody is asked.
    let run = sandbox.build(&["--state-dir=b"])?.success()?;
    all_found(&run)?;
    run.never_says("CACHED from")
}

fn what_is_read_comes_and_is_right() -> Result<()> {
    let (sandbox, registry) = start("elsewhere-read", FILE)?;
    let host = registry.host();
    for compression in ["gzip", "zstd", "uncompressed"] {
        let cache = format!("{host}/cache/{compression}");
        let to = format!("--cache-to=type=registry,ref={cache},mode=max,compression={compression}");
        let (_, built) = sandbox.tree(&[&to])?;
        let state = format!("--state-dir={compression}");
        let (run, found) = sandbox.tree(&[&state, &format!("--cache-from={cache}")])?;
        all_found(&run)?;
        run.says("fetch ")?;
        same_trees(("built", &built), ("found", &found))?;
        // As an image it is the one that would have been built.
        let (_, built) = sandbox.image("built", &[])?;
        let (_, found) = sandbox.image("found", &[&state])?;
        ensure!(built.digest == found.digest, "{compression}: another image");
    }
    Ok(())
}

fn only_what_follows_a_change_runs() -> Result<()> {
    let (sandbox, registry) = start("elsewhere-change", FILE)?;
    let cache = format!("{}/cache/app", registry.host());
    let to = format!("--cache-to=type=registry,ref={cache},mode=max");
    let from = format!("--cache-from={cache}");
    sandbox.build(&[&to])?.success()?;
    sandbox.write("late", "later\n")?;
    let run = sandbox.build(&["--state-dir=b", &from, &to])?.success()?;
    let expected = ["CACHED", "CACHED", "CACHED", "DONE", "DONE", "DONE"];
    ensure!(ends(&run)? == expected, "{}", run.stderr);
    run.says("ran-two")?;
    run.never_says("ran-one")?;
    // What b has written has all of it again, although most of it was only found.
    let run = sandbox.build(&["--state-dir=c", &from])?.success()?;
    all_found(&run)?;
    sandbox.write("late", "last\n")?;
    let run = sandbox.build(&["--state-dir=d", &from])?.success()?;
    ensure!(ends(&run)? == expected, "{}", run.stderr);
    Ok(())
}

fn results_only_or_everything() -> Result<()> {
    let (sandbox, registry) = start("elsewhere-mode", FILE)?;
    let host = registry.host();
    let mut counts = Vec::new();
    for mode in ["min", "max"] {
        let to = format!("--cache-to=type=registry,ref={host}/cache/{mode},mode={mode}");
        sandbox.build(&[&to])?.success()?;
        counts.push(layers(&registry, &format!("cache/{mode}:latest"))?.len());
    }
    let base = base_layers()?;
    ensure!(counts == [base + 5, base + 6], "{counts:?}");
    // With the result alone the tools are made anew where something of it has changed.
    sandbox.write("late", "later\n")?;
    let from = format!("--cache-from={host}/cache/min");
    let run = sandbox.build(&["--state-dir=b", &from])?.success()?;
    let expected = ["DONE", "CACHED", "CACHED", "DONE", "DONE", "DONE"];
    ensure!(ends(&run)? == expected, "{}", run.stderr);
    Ok(())
}

fn base_layers() -> Result<usize> {
    Ok(wbuild_tests::image::Image::of_layout(&base::layout()?)?.layers.len())
}

/// A server on a loopback port that answers every request in one way, or never.
fn server(answer: Option<&'static str>) -> Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let host = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { break };
            match answer {
                Some(answer) => {
                    let mut request = [0; 4096];
                    let _ = connection.read(&mut request);
                    let _ = connection.write_all(answer.as_bytes());
                }
                None => silent.push(connection),
            }
        }
    });
    Ok(host)
}

fn registries_that_do_not_work() -> Result<()> {
    let (sandbox, registry) = start("elsewhere-broken", FILE)?;
    let wrong = server(Some(
        "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    ))?;
    let garbage = server(Some(
        "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.oci.image.manifest.v1+json\r\n\
         content-length: 7\r\nconnection: close\r\n\r\n{\"a\":1}",
    ))?;
    let places = [
        // Nobody listens.
        "127.0.0.1:1/cache/app".to_owned(),
        format!("{wrong}/cache/app"),
        format!("{garbage}/cache/app"),
        format!("{}/cache/app", server(None)?),
        // An image without a cache.
        format!("{}/library/base:1", registry.host()),
    ];
    for (number, cache) in places.iter().enumerate() {
        let began = Instant::now();
        let state = format!("--state-dir=broken{number}");
        let run = sandbox.build(&[&state, &format!("--cache-from={cache}")])?.success()?;
        run.says(&format!("the cache {cache} is not used"))?;
        run.says("ran-two")?;
        ensure!(began.elapsed() < Duration::from_secs(60), "{cache} took {:?}", began.elapsed());
    }
    // What is not there yet is nothing to speak of.
    let nothing = format!("--cache-from={}/cache/nothing", registry.host());
    let run = sandbox.build(&["--state-dir=b", &nothing])?.success()?;
    run.never_says("warning")?;
    run.says("ran-two")
}

/// Changes every blob of a registry that is one of `layers`.
fn spoil(
    registry: &Path,
    layers: &BTreeSet<String>,
    change: impl Fn(&Path) -> Result<()>,
) -> Result<()> {
    let mut changed = 0;
    for layer in layers {
        let hex = layer.trim_start_matches("sha256:");
        let blobs = registry.join("data/docker/registry/v2/blobs/sha256");
        let blob = blobs.join(&hex[..2]).join(hex).join("data");
        if blob.exists() {
            change(&blob)?;
            changed += 1;
        }
    }
    ensure!(changed > 0, "no blob was changed");
    Ok(())
}

fn blobs_that_were_changed() -> Result<()> {
    let (sandbox, registry) = start("elsewhere-spoilt", FILE)?;
    let cache = format!("{}/cache/app", registry.host());
    let (_, built) = sandbox.tree(&[&format!(
        "--cache-to=type=registry,ref={cache},mode=max,compression=uncompressed"
    )])?;
    let mut known = layers(&registry, "cache/app:latest")?;
    // The base stays.
    for layer in layers(&registry, "library/base:1")? {
        known.remove(&layer);
    }
    let from = format!("--cache-from={cache}");
    let longer = |blob: &Path| Ok(std::fs::write(blob, "something else")?);
    let flipped = |blob: &Path| {
        let mut bytes = std::fs::read(blob)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Ok(std::fs::write(blob, bytes)?)
    };
    let absent = |blob: &Path| Ok(std::fs::remove_file(blob)?);
    type Change<'a> = (&'a str, &'a dyn Fn(&Path) -> Result<()>);
    let changes: [Change<'_>; 3] =
        [("flipped", &flipped), ("longer", &longer), ("absent", &absent)];
    for (state, change) in changes {
        spoil(&sandbox.path("registry"), &known, change)?;
        let (run, found) = sandbox.tree(&[&format!("--state-dir={state}"), &from])?;
        run.says("cannot be had from the cache")?;
        run.says("ran-two")?;
        same_trees(("built", &built), (state, &found))?;
    }
    Ok(())
}

fn exports_that_fail() -> Result<()> {
    let sandbox =
        Sandbox::with("elsewhere-export", &[("Dockerfile", "FROM base\nRUN echo x > /x\n")])?;
    let to = "--cache-to=type=registry,ref=127.0.0.1:1/cache/app";
    let run = sandbox.build(&[to])?;
    ensure!(run.code == 1, "{}", run.stderr);
    run.says("cannot export the cache to 127.0.0.1:1/cache/app")?;
    run.says("ignore-error=true")?;
    let (run, _) = sandbox.image("image", &[&format!("{to},ignore-error=true")])?;
    run.says("the build goes on")?;
    for (to, said) in [
        ("type=inline,mode=max", "mode=max of type=inline"),
        ("type=registry,ref=UPPER", "UPPER"),
        ("type=local,dest=d,image-manifest=false", "image-manifest=false"),
        ("type=local,dest=d,colour=red", "colour"),
        ("type=gha", "no bundled cache backend named \"gha\""),
    ] {
        let run = sandbox.build(&[&format!("--cache-to={to}")])?;
        ensure!(run.code != 0, "{to}: {}", run.stderr);
        run.says(said)?;
    }
    Ok(())
}

fn an_export_that_nobody_answers() -> Result<()> {
    let sandbox =
        Sandbox::with("elsewhere-silent", &[("Dockerfile", "FROM base\nRUN echo x > /x\n")])?;
    // It takes the connection, and that is all.
    let to = format!("--cache-to=type=registry,ref={}/cache/app", server(None)?);
    let began = Instant::now();
    let run = sandbox.build(&[&to])?.expect(1)?;
    run.says("it did not answer in 10 seconds")?;
    let (run, _) = sandbox.image("image", &[&format!("{to},ignore-error=true")])?;
    run.says("the build goes on")?;
    ensure!(began.elapsed() < Duration::from_secs(60), "it took {:?}", began.elapsed());
    Ok(())
}

fn ctrl_c_in_an_export() -> Result<()> {
    let sandbox =
        Sandbox::with("elsewhere-ctrl-c", &[("Dockerfile", "FROM base\nRUN echo x > /x\n")])?;
    let to = format!("--cache-to={}/cache/app", server(None)?);
    let mut build = sandbox.start_build(&[&to])?;
    build.wait_for(" [2/2] RUN echo x > /x\n")?;
    // Its server takes the connection and never answers.
    std::thread::sleep(Duration::from_secs(2));
    ensure!(!build.has_ended()?, "it ended too early: {}", build.stderr_so_far());
    let signalled = Instant::now();
    build.signal(Signal::INT)?;
    build.wait(DEADLINE)?.expect(130)?;
    ensure!(signalled.elapsed() < Duration::from_secs(10), "it took {:?}", signalled.elapsed());
    // What was built is kept.
    let run = sandbox.build(&[])?.success()?;
    ensure!(run.end_of("RUN echo x")? == "CACHED", "{}", run.stderr);
    Ok(())
}

fn with_tls_and_a_password() -> Result<()> {
    let file = "FROM base\nRUN echo x > /x\n";
    let sandbox = Sandbox::with("elsewhere-tls", &[("Dockerfile", file)])?;
    let settings = Settings { password: true, tls: true };
    let registry = Registry::with(&sandbox.path("registry"), settings)?;
    let host = registry.host();
    let trust = format!("[registry.\"{host}\"]\nca = [\"{}\"]\n", registry.authority().display());
    std::fs::write(sandbox.path("registries.toml"), trust)?;
    let build = |state: &str, option: &str, password: &str| -> Result<Run> {
        let folder = sandbox.path("docker");
        std::fs::create_dir_all(&folder)?;
        let auth = STANDARD.encode(format!("{USER}:{password}"));
        let config = format!("{{\"auths\": {{\"{host}\": {{\"auth\": \"{auth}\"}}}}}}");
        std::fs::write(folder.join("config.json"), config)?;
        let (state, option) =
            (format!("--state-dir={state}"), format!("{option}={host}/cache/app"));
        let mut command =
            sandbox.build_command(&[&state, &option, "--registry-config=registries.toml"])?;
        Run::of(command.env("DOCKER_CONFIG", &folder))
    };
    build("state", "--cache-to", "wrong horse")?.expect(1)?.never_says("wrong horse")?;
    build("state", "--cache-to", PASSWORD)?.success()?;
    let run = build("b", "--cache-from", PASSWORD)?.success()?;
    run.says("CACHED from ")?;
    // Refused, it is done without.
    let run = build("c", "--cache-from", "wrong horse")?.success()?;
    run.never_says("wrong horse")?;
    run.says("is not used")
}

fn without_looking_anything_up() -> Result<()> {
    let (sandbox, registry) = start("elsewhere-no-cache", FILE)?;
    let cache = format!("{}/cache/app", registry.host());
    let to = format!("--cache-to=type=registry,ref={cache},mode=max");
    let from = format!("--cache-from={cache}");
    sandbox.build(&[&to])?.success()?;
    let run = sandbox.build(&["--state-dir=b", "--no-cache", &from, &to])?.success()?;
    run.never_says("CACHED from")?;
    run.says("ran-one")?;
    // What was made anew was written.
    let run = sandbox.build(&["--state-dir=c", &from])?.success()?;
    all_found(&run)
}

/// Files in the blobs of a layout.
fn blobs(layout: &Path) -> Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(layout.join("blobs/sha256"))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn a_directory_does_not_grow() -> Result<()> {
    let sandbox = Sandbox::with(
        "elsewhere-local",
        &[("Dockerfile", &FILE.replace("IMAGE", "base")), ("early", "e"), ("late", "0")],
    )?;
    let to = "--cache-to=type=local,dest=cache,mode=max";
    sandbox.build(&[to])?.success()?;
    let first = blobs(&sandbox.path("cache"))?;
    for round in 1..4 {
        sandbox.write("late", &round.to_string())?;
        sandbox.build(&[to])?.success()?;
        let now = blobs(&sandbox.path("cache"))?;
        ensure!(now.len() == first.len() && now != first, "round {round}: {now:?} after {first:?}");
    }
    let run = sandbox.build(&["--state-dir=b", "--cache-from=type=local,src=cache"])?.success()?;
    all_found(&run)?;
    // Moved, it is the same.
    std::fs::rename(sandbox.path("cache"), sandbox.path("moved"))?;
    let run = sandbox.build(&["--state-dir=c", "--cache-from=type=local,src=moved"])?.success()?;
    all_found(&run)?;
    let run = sandbox.build(&["--state-dir=d", "--cache-from=type=local,src=cache"])?.success()?;
    run.says("is not used")?;
    // Kept, if that is wanted.
    sandbox.write("late", "kept")?;
    sandbox.build(&["--cache-to=type=local,dest=moved,mode=max,reset=false"])?.success()?;
    ensure!(blobs(&sandbox.path("moved"))?.len() > first.len());
    Ok(())
}

fn several_at_once() -> Result<()> {
    let (sandbox, registry) = start("elsewhere-several", FILE)?;
    let (one, two) =
        (format!("{}/cache/one", registry.host()), format!("{}/cache/two:x", registry.host()));
    let to = [
        format!("--cache-to={one}"),
        format!(
            "--cache-to=type=registry,ref={two},mode=max,compression=zstd,force-compression=true"
        ),
        "--cache-to=type=local,dest=three".to_owned(),
    ];
    sandbox.build(&[&to[0], &to[1], &to[2]])?.success()?;
    // The first that has it is taken, wherever the others are.
    let from = [
        "--cache-from=127.0.0.1:1/nowhere".to_owned(),
        "--cache-from=type=local,src=three".to_owned(),
        format!("--cache-from={two}"),
    ];
    let run = sandbox.build(&["--state-dir=b", &from[0], &from[1], &from[2]])?.success()?;
    all_found(&run)?;
    run.says("three")?;
    let run = sandbox.build(&["--state-dir=c", &from[0], &from[2], &from[1]])?.success()?;
    all_found(&run)?;
    run.says(&format!("CACHED from {two}"))
}

fn within_an_image() -> Result<()> {
    let (sandbox, registry) = start("elsewhere-inline", FILE)?;
    let name = format!("{}/team/app:1", registry.host());
    let (tag, inline) = (format!("-t={name}"), "--cache-to=type=inline");
    sandbox.build(&[&tag, "--push", inline])?.success()?;
    let built = registry.manifest("team/app:1")?;
    let from = format!("--cache-from={name}");
    let run = sandbox.build(&["--state-dir=b", &from, &tag, "--push", inline])?.success()?;
    all_found(&run)?;
    run.says(&format!("CACHED from {name}"))?;
    ensure!(registry.manifest("team/app:1")? == built, "another image was pushed");
    // U8 of a chain: what lies before the change is found.
    sandbox.write("late", "later\n")?;
    let (run, _) = sandbox.tree(&["--state-dir=c", &from])?;
    let expected = ["DONE", "CACHED", "CACHED", "DONE", "DONE", "DONE"];
    ensure!(ends(&run)? == expected, "{}", run.stderr);
    // It belongs to this image, not to those that are built on it.
    sandbox.write("Dockerfile", &format!("FROM {name}\nRUN echo x > /x\n"))?;
    let (_, image) = sandbox.image("image", &[])?;
    ensure!(image.config.get("wbuild.cache.v1").is_none(), "{}", image.config);
    Ok(())
}
