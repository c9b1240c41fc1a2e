//! Images pushed to a real registry, and what others make of them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use wbuild_tests::base;
use wbuild_tests::case::same_trees;
use wbuild_tests::image::Image;
use wbuild_tests::peer::{Buildah, Docker};
use wbuild_tests::registry::{PASSWORD, Registry, Request, Settings, USER};
use wbuild_tests::run::{DEADLINE, Run};
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::skip;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("what_is_pushed_is_what_was_built", what_is_pushed_is_what_was_built),
    ("nothing_is_sent_twice", nothing_is_sent_twice),
    ("layers_of_a_base_are_mounted", layers_of_a_base_are_mounted),
    ("a_base_of_another_registry", a_base_of_another_registry),
    ("several_names", several_names),
    ("a_registry_that_restarts", a_registry_that_restarts),
    ("with_a_password", with_a_password),
    ("with_tls_and_a_password", with_tls_and_a_password),
    ("by_digest", by_digest),
    ("an_index_and_annotations", an_index_and_annotations),
    ("an_image_that_stays_here", an_image_that_stays_here),
    ("what_cannot_be_pushed", what_cannot_be_pushed),
    ("umoci_and_buildah_take_it", umoci_and_buildah_take_it),
    ("docker_takes_it_and_gives", docker_takes_it_and_gives),
];

/// On the base image of the registry itself, with all that layers can hold.
const FILE: &str = "FROM IMAGE\n\
    COPY --chown=7:8 data /data\n\
    RUN ln /data/one /data/hard && ln -s one /data/soft && chmod 4755 /data/two && rm /etc/group\n\
    ENV GREETING=hello\n\
    CMD [\"cat\", \"/data/one\"]\n";

/// A registry that holds the base image as `library/base:1`, and a sandbox that builds on it.
fn start(name: &str, file: &str) -> Result<(Sandbox, Registry)> {
    let sandbox = Sandbox::with(name, &[("data/one", "first\n"), ("data/two", "second\n")])?;
    let registry = Registry::start(&sandbox.path("registry"), false)?;
    registry.push(&format!("{}:latest", base::layout()?.display()), "library/base:1")?;
    let image = format!("{}/library/base:1", registry.host());
    sandbox.write("Dockerfile", &file.replace("IMAGE", &image))?;
    Ok((sandbox, registry))
}

/// What a registry was asked, with the requests that only look left out.
fn writes(registry: &Registry) -> Result<Vec<Request>> {
    let mut requests = registry.requests()?;
    requests.retain(|request| request.method != "HEAD" && request.method != "GET");
    Ok(requests)
}

fn pulled(sandbox: &Sandbox, registry: &Registry, name: &str) -> Result<Image> {
    let layout = sandbox.path("pulled");
    let _ = std::fs::remove_dir_all(&layout);
    registry.pull(name, &layout)?;
    Image::of_layout(&layout)
}

fn what_is_pushed_is_what_was_built() -> Result<()> {
    let (sandbox, registry) = start("push", FILE)?;
    let name = format!("{}/team/app:1.2", registry.host());
    let tag = format!("-t={name}");
    for (number, compression) in ["gzip", "zstd", "uncompressed"].into_iter().enumerate() {
        let push = format!("-o=type=registry,compression={compression}");
        let layout = format!("-o=type=oci,tar=false,dest=built{number},compression={compression}");
        sandbox.build(&[&tag, &push, &layout, "--metadata-file=metadata.json"])?.success()?;
        let built = Image::of_layout(&sandbox.path(format!("built{number}")))?;
        let there = pulled(&sandbox, &registry, "team/app:1.2")?;
        same_trees(("built", &built.tree), ("pulled", &there.tree))?;
        ensure!(built.config == there.config, "{compression}: the configs differ");
        ensure!(built.digest == there.digest, "{compression}: {:?}", there.digest);
        let written = std::fs::read(sandbox.path("metadata.json"))?;
        let written: Value = serde_json::from_slice(&written)?;
        ensure!(written["containerimage.digest"].as_str() == there.digest.as_deref(), "{written}");
        let descriptor = &written["containerimage.descriptor"];
        ensure!(descriptor["digest"] == written["containerimage.digest"], "{written}");
        ensure!(descriptor["size"].as_u64().is_some_and(|size| size > 0), "{written}");
        ensure!(written["image.name"] == name.as_str(), "{written}");
    }
    // And it is a base like any other.
    sandbox.write("Dockerfile", &format!("FROM {name}\nRUN cat /data/one\n"))?;
    sandbox.build(&["--pull"])?.success()?.says("first")
}

fn nothing_is_sent_twice() -> Result<()> {
    let (sandbox, mut registry) = start("push-twice", FILE)?;
    let tag = format!("-t={}/team/app:1", registry.host());
    sandbox.build(&[&tag, "--push"])?.success()?;
    registry.restart()?;
    sandbox.build(&[&tag, "--push"])?.success()?;
    ensure!(writes(&registry)?.is_empty(), "{:?}", registry.requests()?);
    // Another tag is one manifest.
    sandbox.build(&[&format!("-t={}/team/app:2", registry.host()), "--push"])?.success()?;
    let writes = writes(&registry)?;
    ensure!(writes.len() == 1 && writes[0].path.ends_with("/manifests/2"), "{writes:?}");
    Ok(())
}

fn layers_of_a_base_are_mounted() -> Result<()> {
    // Nothing here reads the base's files.
    let (sandbox, mut registry) = start("push-mount", "FROM IMAGE\nCOPY --link data /data\n")?;
    registry.restart()?;
    sandbox.build(&[&format!("-t={}/team/app:1", registry.host()), "--push"])?.success()?;
    let requests = registry.requests()?;
    let base = Image::of_layout(&base::layout()?)?;
    let layer = &base.layers[0];
    let mounted = requests.iter().filter(|r| r.method == "POST" && r.path.contains("mount="));
    let mounted: Vec<_> = mounted.collect();
    ensure!(mounted.len() == base.layers.len() && mounted[0].status == 201, "{requests:?}");
    let fetched = |r: &Request| r.method == "GET" && r.path.ends_with(layer.as_str());
    ensure!(!requests.iter().any(fetched), "the base was fetched: {requests:?}");
    let image = pulled(&sandbox, &registry, "team/app:1")?;
    ensure!(image.layers[..base.layers.len()] == base.layers[..], "{:?}", image.layers);
    image.tree.get("/bin/busybox")?;
    image.tree.get("/data/one")?;
    Ok(())
}

fn a_base_of_another_registry() -> Result<()> {
    let (sandbox, registry) = start("push-elsewhere", "FROM IMAGE\nCOPY --link data /data\n")?;
    let other = Registry::start(&sandbox.path("other"), false)?;
    let run = sandbox.build(&[&format!("-t={}/team/app:1", other.host()), "--push"])?.success()?;
    // It was not here and has to be sent.
    run.says("pull ")?;
    let image = pulled(&sandbox, &other, "team/app:1")?;
    image.tree.get("/bin/busybox")?;
    drop(registry);
    Ok(())
}

fn several_names() -> Result<()> {
    let (sandbox, mut registry) = start("push-names", FILE)?;
    let other = Registry::start(&sandbox.path("other"), false)?;
    registry.restart()?;
    let (here, there) = (registry.host(), other.host());
    let names = format!("{here}/a/one:1,{here}/a/one:2,{here}/b/two:3,{there}/c/three:4");
    let output = format!("-o=type=image,\"name={names}\",push=true");
    sandbox.build(&[&output])?.success()?;
    let first = registry.manifest("a/one:1")?;
    for (registry, name) in [(&registry, "a/one:2"), (&registry, "b/two:3"), (&other, "c/three:4")]
    {
        ensure!(registry.manifest(name)? == first, "{name} is something else");
        pulled(&sandbox, registry, name)?;
    }
    // The second repository got everything from the first.
    let sent = registry.requests()?.into_iter().filter(|r| r.path.starts_with("/v2/b/two/blobs/"));
    let sent: Vec<_> = sent.filter(|r| r.method == "PATCH" || r.method == "PUT").collect();
    ensure!(sent.is_empty(), "{sent:?}");
    Ok(())
}

fn a_registry_that_restarts() -> Result<()> {
    let (sandbox, mut registry) = start("push-restart", "FROM scratch\nCOPY big /big\n")?;
    // Several chunks that compression does not shrink.
    let mut state = 1u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let data: Vec<u8> = (0..120 << 17).flat_map(|_| next().to_le_bytes()).collect();
    std::fs::write(sandbox.path("context/big"), data)?;
    sandbox.image("built", &["--output=type=cacheonly"])?;
    let tag = format!("-t={}/team/big:1", registry.host());
    let mut build = sandbox.start_build(&[&tag, "--push"])?;
    let deadline = Instant::now() + DEADLINE;
    while !writes(&registry)?.iter().any(|request| request.method == "PATCH") {
        ensure!(Instant::now() < deadline, "nothing is sent: {}", build.stderr_so_far());
        ensure!(!build.has_ended()?, "it ended too early: {}", build.stderr_so_far());
        std::thread::sleep(Duration::from_millis(2));
    }
    registry.restart()?;
    build.wait(DEADLINE)?.success()?;
    let after = writes(&registry)?;
    ensure!(after.iter().any(|r| r.method == "PATCH"), "it had ended before: {after:?}");
    let built = Image::of_layout(&sandbox.path("built"))?;
    ensure!(pulled(&sandbox, &registry, "team/big:1")?.digest == built.digest, "another image");
    Ok(())
}

fn with_a_password() -> Result<()> {
    password("push-password", false)
}

fn with_tls_and_a_password() -> Result<()> {
    password("push-tls", true)
}

/// Docker's configuration with the password of a registry's user.
pub fn write_credentials(folder: &Path, host: &str, password: &str) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let auth = STANDARD.encode(format!("{USER}:{password}"));
    let config = format!("{{\"auths\": {{\"{host}\": {{\"auth\": \"{auth}\"}}}}}}");
    Ok(std::fs::write(folder.join("config.json"), config)?)
}

fn password(name: &str, tls: bool) -> Result<()> {
    let sandbox = Sandbox::with(name, &[("Dockerfile", "FROM scratch\nCOPY x /x\n"), ("x", "x")])?;
    let registry = Registry::with(&sandbox.path("registry"), Settings { password: true, tls })?;
    let host = registry.host();
    let mut trust = String::new();
    if tls {
        let authority = registry.authority();
        trust = format!("[registry.\"{host}\"]\nca = [\"{}\"]\n", authority.display());
    }
    std::fs::write(sandbox.path("registries.toml"), trust)?;
    let name = format!("-t={host}/team/app:1");
    let push = |password: Option<&str>| -> Result<Run> {
        let folder = sandbox.path("docker");
        std::fs::create_dir_all(&folder)?;
        if let Some(password) = password {
            write_credentials(&folder, &host, password)?;
        }
        let arguments = [&name, "--push", "--registry-config=registries.toml"];
        let mut command = sandbox.build_command(&arguments)?;
        Run::of(command.env("DOCKER_CONFIG", &folder))
    };
    push(None)?.expect(1)?.says(&format!("docker login {host}"))?;
    let run = push(Some("wrong horse"))?.expect(1)?;
    run.never_says("wrong horse")?;
    run.says(&host)?;
    push(Some(PASSWORD))?.success()?.never_says(PASSWORD)?;
    pulled(&sandbox, &registry, "team/app:1")?.tree.get("/x")?;
    if tls {
        // Nobody vouches for it; only the output may say that this does not matter.
        let strict = format!("[registry.\"{host}\"]\nhttp = false\n");
        std::fs::write(sandbox.path("registries.toml"), strict)?;
        push(None)?.expect(1)?.says("certificate")?;
        let mut command = sandbox.build_command(&[
            "--registry-config=registries.toml",
            &format!("-o=type=registry,name={host}/team/app:2,registry.insecure=true"),
        ])?;
        Run::of(command.env("DOCKER_CONFIG", sandbox.path("docker")))?.success()?;
    }
    Ok(())
}

fn by_digest() -> Result<()> {
    let (sandbox, registry) = start("push-by-digest", FILE)?;
    let name = format!("{}/team/app", registry.host());
    let output =
        format!("-o=type=image,name={name},push-by-digest=true,name-canonical=true,push=true");
    sandbox.build(&[&output, "--metadata-file=metadata.json"])?.success()?;
    let written: Value = serde_json::from_slice(&std::fs::read(sandbox.path("metadata.json"))?)?;
    let digest = written["containerimage.digest"].as_str().context("it has a digest")?;
    ensure!(written["image.name"] == name.as_str(), "{written}");
    registry.manifest(&format!("team/app@{digest}"))?;
    let tagged = |r: &Request| {
        r.method == "PUT" && r.path.contains("/manifests/") && !r.path.contains("sha256:")
    };
    ensure!(
        !writes(&registry)?.iter().any(|r| r.path.starts_with("/v2/team") && tagged(r)),
        "a tag"
    );
    // A name with a tag asks for two things at once.
    let run = sandbox.build(&[&output, &format!("-t={name}:1")])?.expect(1)?;
    run.says("push-by-digest")
}

fn an_index_and_annotations() -> Result<()> {
    let sandbox = Sandbox::with(
        "push-index",
        &[("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /file\n")],
    )?;
    sandbox.write("amd64", "1")?;
    sandbox.write("arm64", "22")?;
    let registry = Registry::start(&sandbox.path("registry"), false)?;
    let annotations = [
        "--annotation=all=m",
        "--annotation=manifest[linux/arm64]:all=special",
        "--annotation=index:at=i",
        "--annotation=index-descriptor:at=id",
        "--annotation=manifest-descriptor[linux/amd64]:at=md",
    ];
    let tag = format!("-t={}/team/app:1", registry.host());
    let more = ["--platform=linux/amd64,linux/arm64", &tag, "--metadata-file=m.json"];
    let outputs = [
        "-o=type=registry,annotation.From-Output=o",
        "-o=type=oci,tar=false,dest=layout,annotation.From-Output=o",
    ];
    sandbox.build(&[&annotations[..], &more, &outputs].concat())?.success()?;
    let index = registry.manifest("team/app:1")?;
    ensure!(index["annotations"] == serde_json::json!({"at": "i"}), "{index}");
    let entries = index["manifests"].as_array().context("an index")?;
    ensure!(entries[0]["annotations"] == serde_json::json!({"at": "md"}), "{index}");
    ensure!(entries[1].get("annotations").is_none(), "{index}");
    for (entry, all) in entries.iter().zip(["m", "special"]) {
        let digest = entry["digest"].as_str().context("a digest")?;
        let manifest = registry.manifest(&format!("team/app@{digest}"))?;
        let expected = serde_json::json!({"From-Output": "o", "all": all});
        ensure!(manifest["annotations"] == expected, "{manifest}");
    }
    // The layout names the same index, and that name is annotated.
    let top: Value = serde_json::from_slice(&std::fs::read(sandbox.path("layout/index.json"))?)?;
    let entry = &top["manifests"][0];
    let written: Value = serde_json::from_slice(&std::fs::read(sandbox.path("m.json"))?)?;
    ensure!(entry["annotations"]["at"] == "id", "{top}");
    ensure!(entry["digest"] == written["containerimage.digest"], "{top} {written}");
    ensure!(written["containerimage.descriptor"]["annotations"]["at"] == "id", "{written}");
    sandbox.build(&["--annotation=index:a=b", "-o=type=oci,dest=x.tar"])?.expect(1)?.says("index")
}

fn an_image_that_stays_here() -> Result<()> {
    let (sandbox, mut registry) = start("push-not", "FROM IMAGE\nCOPY --link data /data\n")?;
    registry.restart()?;
    let tag = format!("-t={}/team/app:1", registry.host());
    let run = sandbox.build(&[&tag, "-o=type=image"])?.success()?;
    let requests = registry.requests()?;
    ensure!(requests.iter().all(|r| r.path.starts_with("/v2/library/base/")), "{requests:?}");
    let base = Image::of_layout(&base::layout()?)?;
    let fetched = |r: &Request| base.layers.iter().any(|layer| r.path.ends_with(layer.as_str()));
    ensure!(!requests.iter().any(fetched), "the base was fetched: {requests:?}");
    // It is the image that a push sends.
    sandbox.build(&[&tag, "-o=type=image,push=true"])?.success()?;
    let digest = pulled(&sandbox, &registry, "team/app:1")?.digest.context("a digest")?;
    run.says(&digest)
}

fn what_cannot_be_pushed() -> Result<()> {
    let sandbox = Sandbox::with("push-fails", &[("Dockerfile", "FROM scratch\nLABEL a=b\n")])?;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let started = Instant::now();
    let run = sandbox.build(&[&format!("-t={nobody}/app"), "--push"])?.expect(1)?;
    run.says(&nobody.to_string())?;
    ensure!(started.elapsed() < Duration::from_secs(30), "it took {:?}", started.elapsed());
    for (arguments, says) in [
        (&["-o=type=registry"][..], "-t REGISTRY/NAME:TAG"),
        (&["-o=type=image,unpack=true"], "unpack"),
        (&["-o=type=image,name=a@sha256:00,push=true"], "sha256:00"),
        (&["-o=type=registry,name=127.0.0.1:1/a,flavour=x"], "flavour"),
    ] {
        sandbox.build(arguments)?.expect(1)?.says(says)?;
    }
    Ok(())
}

fn umoci_and_buildah_take_it() -> Result<()> {
    skip::need_root()?;
    let umoci = skip::need_program("umoci")?;
    let (sandbox, registry) = start("push-peers", FILE)?;
    let buildah = Buildah::with_base(&sandbox.path("buildah"))?;
    let name = format!("{}/team/app:1", registry.host());
    sandbox.build(&[&format!("-t={name}"), "--push"])?.success()?;
    let image = pulled(&sandbox, &registry, "team/app:1")?;
    let mut command = Command::new(umoci);
    command.args(["unpack", "--image", "pulled:pulled", "bundle"]).current_dir(sandbox.folder());
    Run::of(&mut command)?.success()?;
    for path in image.tree.0.keys() {
        let found = sandbox.path(format!("bundle/rootfs{path}")).symlink_metadata();
        found.with_context(|| format!("umoci did not unpack {path}"))?;
    }
    let run = buildah.run_image(
        &format!("docker://{name}"),
        &["sh", "-c", "cat /data/one; echo $GREETING; stat -c %a /data/two"],
    )?;
    ensure!(run.success()?.text()? == "first\nhello\n4755\n", "another image");
    // What it pushes is a base here.
    let theirs = format!("{}/theirs/base:1", registry.host());
    buildah.push("localhost/base:latest", &theirs)?;
    sandbox.write("Dockerfile", &format!("FROM {theirs}\nRUN echo made on theirs\n"))?;
    sandbox.build(&["--no-cache"])?.success()?.says("made on theirs")
}

fn docker_takes_it_and_gives() -> Result<()> {
    let (sandbox, registry) = start("push-docker", FILE)?;
    let docker = Docker::start()?;
    for types in ["true", "false"] {
        let name = format!("{}/team/app:{types}", registry.host());
        let output = format!("-o=type=registry,oci-mediatypes={types}");
        sandbox.build(&[&format!("-t={name}"), &output])?.success()?;
        docker.client(&["pull", "--quiet", &name])?.success()?;
        let seen = docker.client(&["image", "inspect", &name])?.success()?.json()?;
        let image = pulled(&sandbox, &registry, &format!("team/app:{types}"))?;
        ensure!(seen[0]["Config"]["Env"] == image.config["config"]["Env"], "{seen}");
        ensure!(seen[0]["RootFS"]["Layers"] == image.config["rootfs"]["diff_ids"], "{seen}");
    }
    let theirs = format!("{}/theirs/app:1", registry.host());
    let ours = format!("{}/team/app:true", registry.host());
    docker.client(&["tag", &ours, &theirs])?.success()?;
    docker.client(&["push", "--quiet", &theirs])?.success()?;
    sandbox.write("Dockerfile", &format!("FROM {theirs}\nRUN cat /data/one\n"))?;
    sandbox.build(&["--no-cache"])?.success()?.says("first")
}
