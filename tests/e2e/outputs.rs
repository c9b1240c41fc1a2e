//! What a build leaves, and that other people's tools open it.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use wbuild_tests::case::same_trees;
use wbuild_tests::image::Image;
use wbuild_tests::peer::{Buildah, Docker};
use wbuild_tests::run::Run;
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::skip;
use wbuild_tests::tree::{Node, Tree};

use crate::Test;

pub const TESTS: &[Test] = &[
    ("all_kinds_hold_the_same", all_kinds_hold_the_same),
    ("nothing_is_written_unless_asked_for", nothing_is_written_unless_asked_for),
    ("a_directory_that_holds_nothing_else", a_directory_that_holds_nothing_else),
    ("standard_output", standard_output),
    ("compressions", compressions),
    ("large_files_are_kept_once", large_files_are_kept_once),
    ("a_large_file_that_changes", a_large_file_that_changes),
    ("ids_and_metadata", ids_and_metadata),
    ("definition_from_standard_input", definition_from_standard_input),
    ("json_progress", json_progress),
    ("an_empty_image", an_empty_image),
    ("several_platforms", several_platforms),
    ("opens_in_skopeo", opens_in_skopeo),
    ("opens_in_umoci", opens_in_umoci),
    ("opens_in_buildah", opens_in_buildah),
    ("opens_in_docker", opens_in_docker),
];

/// Three layers on the base, with a deletion, links, an owner and a mode.
const FILE: &str = "FROM base\n\
    COPY --chown=app:app data /data\n\
    RUN ln /data/one /data/hard && ln -s one /data/soft && chmod 4755 /data/two && rm /etc/group\n\
    WORKDIR /data\n\
    ENV GREETING=hello\n\
    CMD [\"cat\", \"one\"]\n";

fn sample(name: &str) -> Result<Sandbox> {
    Sandbox::with(name, &[("Dockerfile", FILE), ("data/one", "first\n"), ("data/two", "second\n")])
}

fn all_kinds_hold_the_same() -> Result<()> {
    let sandbox = sample("all-kinds")?;
    sandbox
        .build(&[
            "-t=example/app:1.2",
            "-o=type=oci,tar=false,dest=layout",
            "-o=type=oci,dest=layout.tar",
            "-o=type=docker,dest=docker.tar",
            "-o=type=tar,dest=files.tar",
            "-o=type=local,dest=files",
        ])?
        .success()?;
    let layout = Image::of_layout(&sandbox.path("layout"))?;
    let archive = Image::of_layout_tar(&sandbox.path("layout.tar"))?;
    let docker = Image::of_docker_tar(&sandbox.path("docker.tar"))?;
    let files = Tree::of_tar(std::fs::File::open(sandbox.path("files.tar"))?)?;

    ensure!(layout.digest == archive.digest, "directory and tar hold different images");
    ensure!(
        layout.names == ["docker.io/example/app:1.2", "1.2"],
        "the layout calls it {:?}",
        layout.names
    );
    ensure!(docker.names == ["example/app:1.2"], "docker would call it {:?}", docker.names);
    same_trees(("the layout", &layout.tree), ("the docker archive", &docker.tree))?;
    same_trees(("the layout", &layout.tree), ("the tar", &files))?;
    ensure!(layout.config["config"] == docker.config["config"], "the configs differ");

    // A folder has no owners but the user's; the rest must be there.
    for (path, entry) in &layout.tree.0 {
        let on_disk = sandbox.path(format!("files{path}"));
        let meta = on_disk.symlink_metadata().with_context(|| format!("files{path}"))?;
        match &entry.node {
            Node::Directory => ensure!(meta.is_dir(), "{path} is no directory"),
            Node::File { size, .. } => ensure!(meta.len() == *size, "{path} has another size"),
            Node::Symlink(target) => ensure!(
                std::fs::read_link(&on_disk)?.as_os_str() == target.as_str(),
                "{path} points elsewhere"
            ),
            Node::Special(..) => bail!("{path} is a device"),
        }
        if skip::is_root() && !meta.is_symlink() {
            ensure!(meta.mode() & 0o7777 == entry.mode, "{path} has another mode");
        }
    }
    ensure!(!sandbox.path("files/etc/group").exists(), "a removed file is there");
    Ok(())
}

fn nothing_is_written_unless_asked_for() -> Result<()> {
    let sandbox = sample("no-output")?;
    let before = sorted_names(&sandbox)?;
    let run = sandbox.build(&[])?.success()?;
    run.says("cache")?;
    sandbox.build(&["-o=type=cacheonly"])?.success()?;
    let mut after = sorted_names(&sandbox)?;
    after.retain(|name| name != "state");
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(())
}

fn sorted_names(sandbox: &Sandbox) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(sandbox.folder())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn a_directory_that_holds_nothing_else() -> Result<()> {
    let file = "FROM scratch\nARG TARGETARCH\nCOPY x /d/x-$TARGETARCH\n";
    let sandbox = Sandbox::with("mode-delete", &[("Dockerfile", file), ("x", "x")])?;
    let platforms = "--platform=linux/amd64,linux/arm64";
    let old = |path: &str| -> Result<()> {
        let path = sandbox.path(path);
        std::fs::create_dir_all(path.parent().expect("below the sandbox"))?;
        Ok(std::fs::write(path, "old")?)
    };
    for path in ["out/old", "out/linux_amd64/d/old", "out/old.d/deep/old", "out/d/old"] {
        old(path)?;
    }
    sandbox.build(&[platforms, "-o=type=local,dest=out"])?.success()?;
    ensure!(sandbox.path("out/linux_amd64/d/old").exists(), "copying removes nothing");
    sandbox.build(&[platforms, "-o=type=local,dest=out,mode=delete"])?.success()?;
    let all = |path: &str| -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(sandbox.path(path))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    };
    ensure!(all("out")? == ["linux_amd64", "linux_arm64"], "{:?}", all("out"));
    ensure!(all("out/linux_amd64/d")? == ["x-amd64"], "{:?}", all("out/linux_amd64/d"));
    let merged = "-o=type=local,dest=out,mode=delete,platform-split=false";
    sandbox.build(&[platforms, merged])?.success()?;
    ensure!(all("out")? == ["d"] && all("out/d")? == ["x-amd64", "x-arm64"], "{:?}", all("out"));
    // Elsewhere it has to be allowed.
    old("elsewhere/old")?;
    let elsewhere = sandbox.path("elsewhere");
    let output = format!("-o=type=local,mode=delete,dest={}", elsewhere.display());
    let mut command = sandbox.wbuild(["build", "--progress=plain", &output, "."])?;
    Run::of(command.current_dir(sandbox.path("context")))?
        .expect(2)?
        .says("buildx.local.delete")?;
    ensure!(elsewhere.join("old").exists(), "it was removed");
    let allow = "--allow=buildx.local.delete";
    let mut command = sandbox.wbuild(["build", "--progress=plain", allow, &output, "."])?;
    Run::of(command.current_dir(sandbox.path("context")))?.success()?;
    ensure!(!elsewhere.join("old").exists(), "it is still there");
    Ok(())
}

fn standard_output() -> Result<()> {
    let sandbox = sample("standard-output")?;
    let (_, files) = sandbox.tree(&[])?;
    let run = sandbox.build(&["-o=type=oci,dest=-"])?.success()?;
    std::fs::write(sandbox.path("piped.tar"), &run.stdout)?;
    let image = Image::of_layout_tar(&sandbox.path("piped.tar"))?;
    same_trees(("the tar", &files), ("the image", &image.tree))
}

fn compressions() -> Result<()> {
    let sandbox = sample("compressions")?;
    let mut seen = Vec::new();
    for (compression, media_type) in [
        ("uncompressed", "application/vnd.oci.image.layer.v1.tar"),
        ("gzip", "application/vnd.oci.image.layer.v1.tar+gzip"),
        ("zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
    ] {
        let output = format!("-o=type=oci,tar=false,dest={compression},compression={compression}");
        sandbox.build(&[&output])?.success()?;
        let image = Image::of_layout(&sandbox.path(compression))?;
        ensure!(
            image.media_types.last().is_some_and(|last| last == media_type),
            "{compression}: {:?}",
            image.media_types
        );
        seen.push(image);
    }
    let [plain, gzip, zstd] = &seen[..] else { bail!("three were built") };
    same_trees(("plain", &plain.tree), ("gzip", &gzip.tree))?;
    same_trees(("plain", &plain.tree), ("zstd", &zstd.tree))?;
    ensure!(plain.config == gzip.config && plain.config == zstd.config, "the configs differ");
    ensure!(gzip.layer_bytes < plain.layer_bytes, "gzip made it larger");
    Ok(())
}

/// A layer that was made for an image alone is kept as its blob; whatever wants its files later gets
/// the same ones.
fn large_files_are_kept_once() -> Result<()> {
    const COPIED: &str = "FROM scratch AS lower\nCOPY --chmod=4711 big /a/big\nCOPY other /a/\n\
        FROM scratch\nCOPY --from=lower /a/big /copied\nCOPY . /all/\nCOPY big small /b/\n";
    let sandbox = Sandbox::with("large-files", &[("Dockerfile", COPIED), ("small", "s\n")])?;
    sandbox.write(".dockerignore", "*ile\n.*\nmore\n")?;
    let big: String = (0..100_000).map(|n| format!("{n} ")).collect();
    sandbox.write("big", &big)?;
    sandbox.write("other", &big.repeat(2))?;
    // Without an image every layer is laid out.
    let (_, plain) = sandbox.tree(&["--no-cache"])?;
    std::fs::remove_dir_all(sandbox.path("state"))?;
    let (_, image) = sandbox.image("out", &["--no-cache"])?;
    same_trees(("laid out", &plain), ("streamed", &image.tree))?;
    let kept = allocated(&sandbox.path("state/snapshots"))?;
    // `lower` is copied from, so it is laid out; what only the image is made of is not.
    ensure!(kept < 5 * big.len() as u64, "{kept} bytes of files are kept");
    let steps = sandbox.build(&["-o=type=oci,dest=out.tar,compression=zstd"])?.success()?;
    for step in steps.steps() {
        ensure!(step.end == "CACHED" || !step.name.contains("COPY"), "{} ran again", step.name);
    }
    let zstd = Image::of_layout_tar(&sandbox.path("out.tar"))?;
    same_trees(("gzip", &image.tree), ("zstd", &zstd.tree))?;
    let (_, later) = sandbox.tree(&[])?;
    same_trees(("laid out", &plain), ("unpacked", &later))?;
    sandbox.write("more", "FROM scratch AS lower\nCOPY --chmod=4711 big /a/big\n\
        FROM base\nCOPY --from=lower /a /a\nCOPY big small /b/\nRUN cat /a/big /b/big | wc -c > /n\n")?;
    let (_, counted) =
        sandbox.image("out2", &[&format!("-f={}", sandbox.path("context/more").display())])?;
    let lines = counted.tree.get("/n")?;
    ensure!(matches!(&lines.node, Node::File { size, .. } if *size > 6), "{lines:?}");
    Ok(())
}

/// Bytes that the files of a folder take.
fn allocated(folder: &std::path::Path) -> Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.path().symlink_metadata()?;
        total += if meta.is_dir() { allocated(&entry.path())? } else { meta.blocks() * 512 };
    }
    Ok(total)
}

/// What is streamed into an image is what the build was keyed by, or the build fails.
fn a_large_file_that_changes() -> Result<()> {
    const CHANGES: &str = "FROM scratch\nCOPY big /big\nFROM base AS wait\nRUN sleep 3\n\
        FROM scratch\nCOPY --from=0 / /\nCOPY big /big\nCOPY --from=wait /etc /etc\n";
    let sandbox = Sandbox::with("large-file-changes", &[("Dockerfile", CHANGES)])?;
    sandbox.write("big", &"a".repeat(1 << 20))?;
    let mut running = sandbox.start_build(&["-o=type=oci,dest=out.tar"])?;
    running.wait_for("COPY big")?;
    running.wait_for("DONE")?;
    sandbox.write("big", &"b".repeat(1 << 20))?;
    let run = running.wait(std::time::Duration::from_secs(60))?;
    run.expect(1)?.says("changed")?;
    // And the next build is a good one.
    let (_, image) = sandbox.image("out", &[])?;
    ensure!(image.tree.get("/big").is_ok());
    Ok(())
}

fn ids_and_metadata() -> Result<()> {
    let sandbox = sample("ids")?;
    let ask = ["-q", "-t=example/app:1.2", "--iidfile=id", "--metadata-file=metadata.json"];
    let metadata = || -> Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(sandbox.path("metadata.json"))?)?)
    };
    // Nothing is written, and the id is that of the image it would be.
    let before = sandbox.build(&ask)?.success()?;
    ensure!(before.stderr.is_empty(), "-q showed:\n{}", before.stderr);
    let kept = metadata()?;
    ensure!(kept.get("containerimage.digest").is_none(), "{kept}");

    let run = sandbox.build(&[&ask[..], &["-o=type=oci,tar=false,dest=image"]].concat())?;
    let run = run.success()?;
    let image = Image::of_layout(&sandbox.path("image"))?;
    let id = &image.config_digest;
    ensure!(run.text()? == format!("{id}\n"), "-q printed {:?}", run.text());
    ensure!(run.stderr.is_empty(), "-q showed:\n{}", run.stderr);
    ensure!(before.text()? == run.text()?, "without an output -q printed {:?}", before.text());
    ensure!(std::fs::read_to_string(sandbox.path("id"))? == *id, "the id file differs");
    let written = metadata()?;
    ensure!(written["containerimage.digest"].as_str() == image.digest.as_deref(), "{written}");
    for metadata in [kept, written] {
        ensure!(metadata["containerimage.config.digest"] == id.as_str(), "{metadata}");
        ensure!(metadata["image.name"] == "docker.io/example/app:1.2", "{metadata}");
    }
    Ok(())
}

fn definition_from_standard_input() -> Result<()> {
    let sandbox = Sandbox::with("from-input", &[("data", "content")])?;
    let file = b"FROM scratch\nCOPY data /from-context\n";
    sandbox.build_with_input(&["-f=-", "-o=type=oci,tar=false,dest=image"], file)?.success()?;
    let image = Image::of_layout(&sandbox.path("image"))?;
    image.tree.get("/from-context")?;

    // Without a context there is nothing to copy from.
    let mut command =
        sandbox.wbuild(["build", "--progress=plain", "-o=type=tar,dest=x.tar", "-"])?;
    let run = wbuild_tests::run::Running::start_with_input(&mut command, file)?
        .wait(wbuild_tests::run::DEADLINE)?
        .expect(1)?;
    run.says("context")
}

fn json_progress() -> Result<()> {
    let sandbox = Sandbox::with("json", &[("Dockerfile", "FROM base\nRUN echo made it\n")])?;
    let mut command = sandbox.build_command(&[])?;
    let run = Run::of(command.env("WBUILD_PROGRESS", "json"))?.success()?;
    let mut all = String::new();
    for line in run.stderr.lines() {
        let event: Value =
            serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        ensure!(event.is_object(), "{line}");
        all.push_str(line);
    }
    ensure!(all.contains("made it") && all.contains("RUN echo made it"), "{}", run.stderr);
    Ok(())
}

fn an_empty_image() -> Result<()> {
    let sandbox =
        Sandbox::with("empty", &[("Dockerfile", "FROM scratch\nLABEL nothing=inside\n")])?;
    let (_, image) = sandbox.image("image", &[])?;
    ensure!(image.layers.is_empty() && image.tree.0.is_empty(), "{:?}", image.layers);
    ensure!(image.config["config"]["Labels"]["nothing"] == "inside", "{}", image.config);
    Ok(())
}

fn several_platforms() -> Result<()> {
    // Nothing runs, so that no emulator is needed.
    let sandbox = Sandbox::with(
        "platforms",
        &[
            (
                "Dockerfile",
                "FROM scratch\nARG TARGETARCH\nARG TARGETVARIANT\nCOPY for-$TARGETARCH /file\n\
                 LABEL for=$TARGETARCH$TARGETVARIANT\n",
            ),
            ("for-amd64", "1"),
            ("for-arm", "22"),
        ],
    )?;
    let platforms = "--platform=linux/amd64,linux/arm/v7";
    let files = "-o=type=local,dest=files";
    let layout = "-o=type=oci,tar=false,dest=image";
    let run = sandbox.build(&[platforms, layout, files, "--iidfile=id"])?.success()?;
    // Several configs, so the id is the index's.
    let top = std::fs::read_to_string(sandbox.path("image/index.json"))?;
    let id = std::fs::read_to_string(sandbox.path("id"))?;
    ensure!(top.contains(&id), "{id} is not in {top}");
    let images = Image::all_of_layout(&sandbox.path("image"))?;
    let seen: Vec<(&str, &str, usize)> = images
        .iter()
        .map(|image| {
            let text = |value: &'static str| image.config[value].as_str().unwrap_or("");
            let size = match image.tree.0.get("/file").map(|entry| &entry.node) {
                Some(Node::File { size, .. }) => usize::try_from(*size).unwrap_or(0),
                _ => 0,
            };
            (text("architecture"), text("variant"), size)
        })
        .collect();
    ensure!(seen == [("amd64", "", 1), ("arm", "v7", 2)], "{seen:?}\n{}", run.stderr);
    for (folder, content) in [("linux_amd64", "1"), ("linux_arm_v7", "22")] {
        let file = std::fs::read_to_string(sandbox.path("files").join(folder).join("file"))?;
        ensure!(file == content, "{folder} holds {file:?}");
    }
    // That kind of archive cannot hold two.
    sandbox.build(&[platforms, "-o=type=docker,dest=two.tar"])?.expect(1)?.says("platform")
}

fn opens_in_skopeo() -> Result<()> {
    let skopeo = skip::need_program("skopeo")?;
    let sandbox = sample("skopeo")?;
    sandbox
        .build(&[
            "-t=example/app:1.2",
            "-o=type=oci,tar=false,dest=layout",
            "-o=type=oci,dest=layout.tar",
            "-o=type=docker,dest=docker.tar",
        ])?
        .success()?;
    for source in ["oci:layout:1.2", "oci-archive:layout.tar", "docker-archive:docker.tar"] {
        let mut command = Command::new(&skopeo);
        command.args(["inspect", source]).current_dir(sandbox.folder());
        let seen = Run::of(&mut command)?.success()?.json()?;
        let env = seen["Env"].to_string();
        ensure!(env.contains("GREETING=hello"), "{source}: {seen}");
        ensure!(seen["Layers"].as_array().is_some_and(|l| l.len() == 4), "{source}: {seen}");
        // Copying reads and checks every blob.
        let mut command = Command::new(&skopeo);
        command
            .args(["copy", "--quiet", "--insecure-policy", source])
            .arg(format!("dir:{}", sandbox.path("copied").display()))
            .current_dir(sandbox.folder());
        Run::of(&mut command)?.success()?;
    }
    Ok(())
}

fn opens_in_umoci() -> Result<()> {
    skip::need_root()?;
    let umoci = skip::need_program("umoci")?;
    let sandbox = sample("umoci")?;
    let (_, image) = sandbox.image("layout", &["-t=example/app:1.2"])?;
    let mut command = Command::new(umoci);
    command.args(["unpack", "--image", "layout:1.2", "bundle"]).current_dir(sandbox.folder());
    Run::of(&mut command)?.success()?;
    for (path, entry) in &image.tree.0 {
        let meta = sandbox.path(format!("bundle/rootfs{path}")).symlink_metadata();
        let meta = meta.with_context(|| format!("umoci did not unpack {path}"))?;
        ensure!(
            (u64::from(meta.uid()), u64::from(meta.gid())) == (entry.uid, entry.gid),
            "{path} belongs to {}:{}",
            meta.uid(),
            meta.gid()
        );
    }
    ensure!(!sandbox.path("bundle/rootfs/etc/group").exists(), "a removed file is there");
    let config: Value =
        serde_json::from_slice(&std::fs::read(sandbox.path("bundle/config.json"))?)?;
    ensure!(config["process"]["args"] == serde_json::json!(["cat", "one"]), "{config}");
    ensure!(config["process"]["cwd"] == "/data", "{config}");
    Ok(())
}

fn opens_in_buildah() -> Result<()> {
    let sandbox = sample("buildah")?;
    let buildah = Buildah::with_base(&sandbox.path("buildah"))?;
    sandbox
        .build(&[
            "-t=example/app:1.2",
            "-o=type=oci,dest=layout.tar",
            "-o=type=docker,dest=docker.tar",
        ])?
        .success()?;
    for archive in ["oci-archive:layout.tar", "docker-archive:docker.tar"] {
        let (kind, file) = archive.split_once(':').expect("it has a kind");
        let source = format!("{kind}:{}", sandbox.path(file).display());
        let run = buildah.run_image(&source, &["sh", "-c", "cat one; echo $GREETING"])?;
        let run = run.success()?;
        ensure!(run.text()? == "first\nhello\n", "{archive}: {:?}", run.text()?);
    }
    Ok(())
}

fn opens_in_docker() -> Result<()> {
    let sandbox = sample("docker")?;
    let docker = Docker::start()?;
    sandbox.build(&["-t=example/app:1.2", "-o=type=docker,dest=docker.tar"])?.success()?;
    let archive = sandbox.path("docker.tar");
    docker.client(&["load", "--input", &archive.to_string_lossy()])?.success()?;
    let seen = docker.client(&["image", "inspect", "example/app:1.2"])?.success()?.json()?;
    ensure!(seen[0]["Config"]["WorkingDir"] == "/data", "{seen}");
    ensure!(seen[0]["RootFS"]["Layers"].as_array().is_some_and(|l| l.len() == 4), "{seen}");
    // The files, without a container of docker's, which would need more of the machine.
    docker.client(&["create", "--name", "it", "example/app:1.2"])?.success()?;
    let copied = sandbox.path("copied");
    docker.client(&["cp", "it:/data/one", &copied.to_string_lossy()])?.success()?;
    ensure!(std::fs::read(copied)? == b"first\n", "another content");
    Ok(())
}
