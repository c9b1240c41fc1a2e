//! Builds for several platforms, with real programs of theirs under QEMU.

use anyhow::{Context as _, Result, ensure};
use wbuild_tests::base;
use wbuild_tests::registry::Registry;
use wbuild_tests::run::Run;
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::skip;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("every_platform_runs_its_programs", every_platform_runs_its_programs),
    ("stages_of_the_build_platform_run_once", stages_of_the_build_platform_run_once),
    ("programs_of_other_images_run_in_a_native_stage", programs_of_other_images),
    ("caches_elsewhere_hold_all_platforms", caches_elsewhere),
    ("an_image_without_the_platform_says_what_it_has", platform_not_there),
    ("no_emulator_is_an_error_with_the_remedy", no_emulator),
];

/// What `uname -m` says, by platform.
const MACHINES: [(&str, &str); 5] = [
    ("linux/amd64", "x86_64"),
    ("linux/386", "i686"),
    ("linux/arm/v7", "armv7l"),
    ("linux/arm64", "aarch64"),
    ("linux/s390x", "s390x"),
];

/// Builds with the image for several platforms as `any`.
fn build(sandbox: &Sandbox, args: &[&str]) -> Result<Run> {
    let any = format!("--build-context=any=oci-layout://{}", base::index()?.display());
    let args: Vec<&str> = [any.as_str()].into_iter().chain(args.iter().copied()).collect();
    sandbox.build(&args)
}

/// What of emulation everybody on the machine would see.
pub fn registered() -> Result<(String, Vec<String>)> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let entries = std::fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    let lines = mounts.lines().filter(|line| line.contains("binfmt"));
    Ok((lines.collect::<Vec<_>>().join("\n"), names))
}

fn every_platform_runs_its_programs() -> Result<()> {
    skip::need_program("qemu-aarch64-static")?;
    let sandbox = Sandbox::with(
        "platforms",
        &[
            ("script", "#!/bin/sh\nsh -c 'echo nested: $(uname -m)'\n"),
            (
                "Dockerfile",
                "FROM any\n\
                 COPY --chmod=755 script /usr/bin/script\n\
                 RUN uname -m > /machine && script > /script\n\
                 RUN mkdir -p /tmp/x && chown app:staff /tmp/x && stat -c '%U %G' /tmp/x > /owner\n\
                 USER app\n\
                 RUN id -u > /tmp/id\n",
            ),
        ],
    )?;
    let before = registered()?;
    let platforms = MACHINES.map(|(platform, _)| platform).join(",");
    let output = ["-o", "out", "--platform", &platforms];
    build(&sandbox, &output)?.success()?;
    ensure!(registered()? == before, "{:?} became {:?}", before, registered()?);
    for (platform, machine) in MACHINES {
        let is = |path: &str, want: &str| made(&sandbox, platform, path, want);
        is("machine", machine)?;
        is("script", &format!("nested: {machine}"))?;
        is("owner", "app staff")?;
        is("tmp/id", "1000")?;
    }
    let again = build(&sandbox, &output)?.success()?;
    let ran = again.steps().into_iter().filter(|step| step.name.contains("RUN"));
    let ran: Vec<String> = ran.filter(|step| step.end != "CACHED").map(|step| step.name).collect();
    ensure!(ran.is_empty(), "{ran:?} ran again");
    Ok(())
}

/// Checks a file of one platform among the results in `out`.
fn made(sandbox: &Sandbox, platform: &str, path: &str, want: &str) -> Result<()> {
    let path = sandbox.path("out").join(platform.replace('/', "_")).join(path);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    ensure!(text.trim_end() == want, "{}: {text}", path.display());
    Ok(())
}

fn stages_of_the_build_platform_run_once() -> Result<()> {
    let sandbox = Sandbox::with(
        "once",
        &[(
            "Dockerfile",
            "FROM --platform=$BUILDPLATFORM any AS make\n\
             RUN uname -m > /made\n\
             FROM any\n\
             COPY --from=make /made /made\n",
        )],
    )?;
    let platforms = ["linux/arm64", "linux/s390x", "linux/amd64"];
    let run = build(&sandbox, &["--platform", &platforms.join(","), "-o", "out"])?.success()?;
    let heavy = run.steps().into_iter().filter(|step| step.name.contains("RUN uname")).count();
    ensure!(heavy == 1, "{heavy} steps\n{}", run.stderr);
    platforms.iter().try_for_each(|platform| made(&sandbox, platform, "made", "x86_64"))
}

fn caches_elsewhere() -> Result<()> {
    skip::need_program("qemu-aarch64-static")?;
    let sandbox = Sandbox::with(
        "platforms-elsewhere",
        &[
            ("early", "early\n"),
            (
                "Dockerfile",
                "FROM --platform=$BUILDPLATFORM any AS make\n\
                 RUN echo made > /made\n\
                 FROM any\n\
                 COPY early /early\n\
                 RUN uname -m > /machine\n\
                 COPY --from=make /made /made\n",
            ),
        ],
    )?;
    let mut registry = Registry::start(&sandbox.path("registry"), false)?;
    let host = registry.host();
    let both = "--platform=linux/amd64,linux/arm64";
    let tag = format!("-t={host}/team/app:1");
    for (name, mode) in [("min", ",mode=min"), ("max", ",mode=max")] {
        let to = format!("--cache-to=type=registry,ref={host}/cache/{name}{mode}");
        build(&sandbox, &[both, &to])?.success()?;
    }
    build(&sandbox, &[both, &tag, "--push", "--cache-to=type=inline"])?.success()?;
    let pushed = registry.manifest("team/app:1")?;
    registry.restart()?;
    for (name, cache) in [("min", "cache/min"), ("max", "cache/max"), ("inline", "team/app:1")] {
        let (state, from) = (format!("--state-dir={name}"), format!("--cache-from={host}/{cache}"));
        let run = build(&sandbox, &[&state, both, &from, "-o", "out"])?.success()?;
        let ran = run.steps().into_iter().filter(|step| {
            (step.name.contains("RUN") || step.name.contains("COPY")) && step.end != "CACHED"
        });
        let ran: Vec<String> = ran.map(|step| step.name).collect();
        ensure!(ran.is_empty(), "{name}: {ran:?} ran again\n{}", run.stderr);
        for (platform, machine) in [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")] {
            made(&sandbox, platform, "machine", machine).context(name)?;
            made(&sandbox, platform, "made", "made").context(name)?;
        }
        std::fs::remove_dir_all(sandbox.path("out"))?;
        // One alone comes of it, too.
        let (state, arm) = (format!("--state-dir={name}-arm"), "--platform=linux/arm64");
        let run = build(&sandbox, &[&state, arm, &from, "-o", "out/linux_arm64"])?.success()?;
        ensure!(run.end_of("RUN uname")? == "CACHED", "{name}: {}", run.stderr);
        made(&sandbox, "linux/arm64", "machine", "aarch64").context(name)?;
        std::fs::remove_dir_all(sandbox.path("out"))?;
        // As an image it is the one that was built.
        let inline = "--cache-to=type=inline";
        build(&sandbox, &[&state, both, &from, &tag, "--push", inline])?.success()?;
        ensure!(registry.manifest("team/app:1")? == pushed, "{name}: another image");
    }
    Ok(())
}

/// Stages of several platforms, and one that runs what all of them have.
fn programs_of_other_images() -> Result<()> {
    skip::need_program("qemu-aarch64-static")?;
    let mut dockerfile = String::new();
    for (platform, machine) in MACHINES {
        dockerfile.push_str(&format!("FROM --platform={platform} any AS {machine}\n"));
    }
    dockerfile.push_str("FROM any\n");
    for (_, machine) in MACHINES {
        dockerfile.push_str(&format!("COPY --from={machine} /bin/busybox /{machine}/busybox\n"));
    }
    let machines = MACHINES.map(|(_, machine)| machine).join(" ");
    dockerfile
        .push_str(&format!("RUN for m in {machines}; do /$m/busybox uname -m; done > /all\n"));
    let sandbox = Sandbox::with("several", &[("Dockerfile", &dockerfile)])?;
    let before = registered()?;
    build(&sandbox, &["-o", "out"])?.success()?;
    ensure!(registered()? == before, "{:?} became {:?}", before, registered()?);
    let all = std::fs::read_to_string(sandbox.path("out/all"))?;
    // What a program of 32 bits is told is its step's matter, and this step is not of 32.
    let want = MACHINES.map(|(_, machine)| if machine == "i686" { "x86_64" } else { machine });
    ensure!(all.lines().eq(want), "{all}");
    Ok(())
}

fn platform_not_there() -> Result<()> {
    let sandbox = Sandbox::with("absent", &[("Dockerfile", "FROM any\n")])?;
    let run = build(&sandbox, &["--platform=linux/riscv64"])?.expect(1)?;
    for (platform, _) in MACHINES {
        run.says(platform)?;
    }
    run.says("linux/riscv64")
}

fn no_emulator() -> Result<()> {
    let sandbox = Sandbox::with(
        "bare",
        &[("Dockerfile", "FROM any\nRUN true\n"), ("other", "FROM scratch\nRUN [\"/x\"]\n")],
    )?;
    let run = build(&sandbox, &["--platform=linux/arm64", "--runner=native"])?.expect(1)?;
    run.says("no runner can run steps for linux/arm64")?;
    run.says("use a runner that emulates arm64")?;
    let run = build(&sandbox, &["--platform=linux/sparc64", "-f", "context/other"])?.expect(1)?;
    run.says("no runner can run steps for linux/sparc64")?;
    run.says("QEMU does not emulate linux/sparc64")
}
