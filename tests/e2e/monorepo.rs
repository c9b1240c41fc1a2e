//! The example of a monorepo: libraries, services, tests, images for two platforms, conditions.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use wbuild_tests::base;
use wbuild_tests::image::Image;
use wbuild_tests::packages;
use wbuild_tests::run::Run;
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::skip;

use crate::Test;

pub const TESTS: &[Test] = &[("everything_is_built_and_then_remembered", everything)];

/// A small C compiler, and what its programs need.
const PACKAGES: [&str; 4] = ["tcc", "libc6-dev", "libc6", "linux-libc-dev"];

/// The layout of an image for amd64 and arm64 with a C compiler, `cc`, and what it lies in.
fn tools() -> Result<(Sandbox, PathBuf)> {
    let any = base::index()?;
    let sandbox = Sandbox::new("monorepo-tools")?;
    let context = sandbox.path("context");
    for architecture in ["amd64", "arm64"] {
        let root = packages::unpacked(architecture, &PACKAGES)?;
        let copy = context.join(architecture);
        Run::of(Command::new("cp").arg("-a").arg(root).arg(copy))?.success()?;
    }
    let bin = context.join("links/usr/bin");
    std::fs::create_dir_all(&bin)?;
    std::os::unix::fs::symlink("tcc", bin.join("cc"))?;
    sandbox.write("Dockerfile", "FROM any\nARG TARGETARCH\nCOPY $TARGETARCH links /\n")?;
    let layout = sandbox.path("layout");
    sandbox
        .build(&[
            "--platform=linux/amd64,linux/arm64",
            &format!("--build-context=any=oci-layout://{}", any.display()),
            &format!("--output=type=oci,tar=false,dest={}", layout.display()),
        ])?
        .success()?;
    Ok((sandbox, layout))
}

/// Runs the programs of the images, each for both platforms.
fn programs_run(layout: &Path) -> Result<()> {
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json"))?)?;
    let entries = index["manifests"].as_array().context("an index has manifests")?;
    for (name, command, says) in [
        ("greeter", "greeter all of you", "Hello, all of you (3 words)"),
        ("counter", "echo a b c d | counter", "4"),
    ] {
        let of_name = |entry: &&serde_json::Value| entry.to_string().contains(name);
        let entry = entries.iter().find(of_name).with_context(|| format!("no {name}"))?;
        let digest = entry["digest"].as_str().context("an entry has a digest")?;
        let dockerfile = format!("FROM it\nRUN test \"$({command})\" = \"{says}\"\n");
        let sandbox = Sandbox::with("monorepo-run", &[("Dockerfile", &dockerfile)])?;
        let it = format!("--build-context=it=oci-layout://{}@{digest}", layout.display());
        sandbox.build(&["--platform=linux/amd64,linux/arm64", &it])?.success()?;
    }
    Ok(())
}

fn everything() -> Result<()> {
    skip::need_program("qemu-aarch64-static")?;
    let (_lies_in, tools) = tools()?;
    let sandbox = Sandbox::new("monorepo")?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/monorepo");
    let context = sandbox.path("context");
    std::fs::remove_dir(&context)?;
    Run::of(Command::new("cp").arg("-a").arg(example).arg(&context))?.success()?;
    // Directories above a service belong to the build as far as the repository goes.
    Run::of(Command::new(skip::need_program("git")?).args(["init", "-q"]).arg(&context))?
        .success()?;

    let layout = sandbox.path("images");
    let build = || -> Result<Run> {
        let mut command = sandbox.wbuild(["--progress=plain", "--stats"])?;
        command
            .arg(format!("--build-context=tools=oci-layout://{}", tools.display()))
            .arg(format!("--output=type=oci,tar=false,dest={}", layout.display()))
            .arg(format!("--output=type=local,results=files,dest={}", context.display()))
            .arg("context+all")
            .args(["--TOOLS=tools", "--RUNTIME=tools"]);
        Run::of(&mut command)?.success()
    };
    build()?;
    let report = std::fs::read_to_string(context.join("out/test-report.txt"))?;
    ensure!(
        report.lines().count() == 5 && report.lines().all(|line| line.starts_with("ok ")),
        "{report}"
    );

    let images = Image::all_of_layout(&layout)?;
    ensure!(images.len() == 4, "{} images", images.len());
    for image in &images {
        let config = &image.config;
        let entrypoint = config["config"]["Entrypoint"][0].as_str().context("no entrypoint")?;
        let architecture = config["architecture"].as_str().context("no architecture")?;
        let about = config["config"]["Labels"]["about"].as_str();
        ensure!(about == (entrypoint == "greeter").then_some("says hello"), "{about:?}");
        image.tree.get(&format!("/usr/bin/{entrypoint}"))?;
        ensure!(["amd64", "arm64"].contains(&architecture), "for {architecture}");
    }

    programs_run(&layout)?;

    let again = build()?;
    again.says("not run, nothing it read has changed")?;
    again.says("steps run     0")?;

    // A change of one service is one of this service alone.
    sandbox.write("services/greeter/LABEL.txt", "says good morning\n")?;
    let changed = build()?;
    // For each platform the copy of the file, the condition and the value.
    changed.says("steps run     6")?;
    let images = Image::all_of_layout(&layout)?;
    let abouts =
        images.iter().filter_map(|image| image.config["config"]["Labels"]["about"].as_str());
    ensure!(abouts.collect::<Vec<_>>() == ["says good morning"; 2]);

    // A test that fails leaves nothing.
    sandbox.write("services/counter/counter.c", "int main(void) { return 0; }\n")?;
    std::fs::remove_file(context.join("out/test-report.txt"))?;
    let mut command = sandbox.wbuild(["--progress=plain"])?;
    command
        .arg(format!("--build-context=tools=oci-layout://{}", tools.display()))
        .arg("context+all")
        .args(["--TOOLS=tools", "--RUNTIME=tools"]);
    let failed = Run::of(&mut command)?.expect(1)?;
    failed.says("services/counter/Earthfile")?;
    ensure!(!context.join("out/test-report.txt").exists(), "the report was left behind");
    Ok(())
}
