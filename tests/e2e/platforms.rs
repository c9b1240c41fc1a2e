//! Builds for several platforms, with real programs of theirs under QEMU.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::FlockOperation;
use wbuild_tests::image::Image;
use wbuild_tests::peer::{self, Docker};
use wbuild_tests::registry::Registry;
use wbuild_tests::run::{DEADLINE, Run, Running};
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::skip;
use wbuild_tests::{base, machine};

use crate::Test;

pub const TESTS: &[Test] = &[
    ("every_platform_runs_its_programs", every_platform_runs_its_programs),
    ("programs_see_the_processor_that_qemu_shows", cpuinfo),
    ("newer_processors_are_run_as_far_as_this_one_goes", levels),
    ("the_capability_check_runs", capability_check),
    ("stages_of_the_build_platform_run_once", stages_of_the_build_platform_run_once),
    ("programs_of_other_images_run_in_a_native_stage", programs_of_other_images),
    ("caches_elsewhere_hold_all_platforms", caches_elsewhere),
    ("an_emulated_program_that_crashes_ends_its_step", crashes),
    ("a_last_stage_may_be_of_another_platform", other_last_stage),
    ("an_image_without_the_platform_says_what_it_has", platform_not_there),
    ("no_emulator_is_an_error_with_the_remedy", no_emulator),
    ("emulators_that_cannot_be_set_up", not_set_up),
    ("docker_makes_the_same_of_every_platform", docker),
];

/// What `uname -m` says, by platform. QEMU's ARM of 32 bits is of version 7, whatever is asked for.
const MACHINES: [(&str, &str); 8] = [
    ("linux/amd64", "x86_64"),
    ("linux/386", "i686"),
    ("linux/arm/v5", "armv7l"),
    ("linux/arm/v7", "armv7l"),
    ("linux/arm64", "aarch64"),
    ("linux/ppc64le", "ppc64le"),
    ("linux/riscv64", "riscv64"),
    ("linux/s390x", "s390x"),
];

/// Builds with the image for several platforms as `any`.
fn build(sandbox: &Sandbox, args: &[&str]) -> Result<Run> {
    let any = any(base::index()?);
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
    let sandbox = every_platform()?;
    let (any, platforms) = (any(base::index()?), platforms());
    let args = [any.as_str(), "-o", "out", "--platform", &platforms];
    runs_everywhere(&sandbox, &mut sandbox.build_command(&args)?)?;
    let again = sandbox.build(&args)?.success()?;
    let ran = again.steps().into_iter().filter(|step| step.name.contains("RUN"));
    let ran: Vec<String> = ran.filter(|step| step.end != "CACHED").map(|step| step.name).collect();
    ensure!(ran.is_empty(), "{ran:?} ran again");
    Ok(())
}

/// A build that has programs of the image `any` run: nested, as scripts, with other rights.
pub fn every_platform() -> Result<Sandbox> {
    skip::need_program("qemu-aarch64-static")?;
    Sandbox::with(
        "platforms",
        &[
            ("script", "#!/bin/sh\nsh -c 'echo nested: $(uname -m)'\n"),
            (
                "Dockerfile",
                "FROM any\n\
                 COPY --chmod=755 script /usr/bin/script\n\
                 RUN uname -m > /machine && script > /script\n\
                 RUN mkdir -p /tmp/x && chown app:staff /tmp/x && stat -c '%U %G' /tmp/x > /owner\n\
                 RUN sed -i s/^root:x:/root::/ /etc/passwd\n\
                 COPY --from=any --chmod=4755 /bin/busybox /setuid/su\n\
                 COPY --from=any /bin/busybox /plain/su\n\
                 USER app\n\
                 RUN id -u > /tmp/id; /setuid/su -c 'id -u' > /tmp/setuid\n\
                 RUN /plain/su -c 'id -u' > /tmp/plain 2>&1; echo $? >> /tmp/plain\n\
                 RUN [\"script\"]\n\
                 RUN echo now''look && sleep 2\n",
            ),
        ],
    )
}

/// The option that gives a build the image `any`.
pub fn any(index: impl AsRef<Path>) -> String {
    format!("--build-context=any=oci-layout://{}", index.as_ref().display())
}

/// All of them, as the option has it.
pub fn platforms() -> String {
    MACHINES.map(|(platform, _)| platform).join(",")
}

/// Runs a command that builds [`every_platform`] for [`platforms`] into `out`; looks at what becomes of
/// the machine meanwhile, and at the results.
pub fn runs_everywhere(sandbox: &Sandbox, command: &mut Command) -> Result<()> {
    let before = registered()?;
    let mut running = Running::start(command)?;
    // What it says is not what the step is called.
    running.wait_for("nowlook")?;
    ensure!(!running.has_ended()?, "it ended too early to be looked at");
    let during = registered()?;
    running.wait(DEADLINE)?.success()?;
    for then in [during, registered()?] {
        ensure!(then == before, "{before:?} became {then:?}");
    }
    for (platform, machine) in MACHINES {
        let is = |path: &str, want: &str| made(sandbox, platform, path, want);
        is("machine", machine)?;
        is("script", &format!("nested: {machine}"))?;
        is("owner", "app staff")?;
        is("tmp/id", "1000")?;
        is("tmp/setuid", "0")?;
        is("tmp/plain", "su: must be suid to work properly\n1")?;
    }
    Ok(())
}

/// What a program reads in a step is what the emulator shows it outside of one.
fn cpuinfo() -> Result<()> {
    let sandbox = Sandbox::with(
        "cpuinfo",
        &[("Dockerfile", "FROM any\nRUN cat /proc/cpuinfo > /cpuinfo\n")],
    )?;
    let emulated = [
        ("linux/arm64", "qemu-aarch64-static", "arm64"),
        ("linux/ppc64le", "qemu-ppc64le-static", "ppc64el"),
        ("linux/riscv64", "qemu-riscv64-static", "riscv64"),
        ("linux/s390x", "qemu-s390x-static", "s390x"),
    ];
    let platforms = emulated.map(|(platform, ..)| platform).join(",");
    build(&sandbox, &["-o", "out", "--platform", &platforms])?.success()?;
    // What processors run at changes from one look to the next.
    let steady = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.contains("MHz")).map(str::to_owned).collect()
    };
    for (platform, emulator, debian) in emulated {
        let program = base::program_of(debian)?;
        let mut command = Command::new(skip::need_program(emulator)?);
        let shown = Run::of(command.arg(program).args(["cat", "/proc/cpuinfo"]))?.success()?;
        let path = sandbox.path("out").join(platform.replace('/', "_")).join("cpuinfo");
        let (read, shown) = (steady(&std::fs::read_to_string(path)?), steady(shown.text()?));
        ensure!(!read.is_empty() && read == shown, "{platform}: {read:?} instead of {shown:?}");
    }
    Ok(())
}

/// The variants of amd64 are levels, of which a processor runs its own and all below.
fn levels() -> Result<()> {
    let flags = std::fs::read_to_string("/proc/cpuinfo")?;
    let has = |flag: &str| flags.split_ascii_whitespace().any(|word| word == flag);
    let highest = match (has("avx512vl"), has("avx2"), has("sse4_2")) {
        (true, ..) => 4,
        (_, true, _) => 3,
        (.., true) => 2,
        _ => 1,
    };
    let sandbox = Sandbox::with(
        "levels",
        &[(
            "Dockerfile",
            "FROM any\n\
             ARG TARGETARCH TARGETVARIANT\n\
             RUN echo $TARGETARCH $TARGETVARIANT $(uname -m) > /level\n",
        )],
    )?;
    for level in 2..=4 {
        let platform = format!("linux/amd64/v{level}");
        let output = "type=local,dest=out,platform-split=true";
        let run = build(&sandbox, &["-o", output, "--platform", &platform])?;
        if level <= highest {
            run.success()?;
            made(&sandbox, &platform, "level", &format!("amd64 v{level} x86_64"))?;
        } else {
            run.expect(1)?.says("need a newer processor")?;
        }
    }
    Ok(())
}

/// The example, as it is, with a busybox of every platform.
fn capability_check() -> Result<()> {
    skip::need_program("qemu-aarch64-static")?;
    let sandbox = Sandbox::new("capability")?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/platforms/Dockerfile");
    std::fs::copy(example, sandbox.path("context/Dockerfile"))?;
    let busybox = format!("--build-context=busybox=oci-layout://{}", base::index()?.display());
    let before = registered()?;
    sandbox.build(&[&busybox, "-o", "out"])?.success()?;
    ensure!(registered()? == before, "{:?} became {:?}", before, registered()?);
    let report = std::fs::read_to_string(sandbox.path("out/report"))?;
    // The step is amd64's, so a program of 386 hears of amd64.
    let want =
        [("amd64", "x86_64"), ("arm64", "aarch64"), ("arm-v7", "armv7l"), ("i386", "x86_64")];
    ensure!(report.lines().count() == want.len(), "{report}");
    for (line, (name, machine)) in report.lines().zip(want) {
        let words: Vec<&str> = line.split(' ').collect();
        let good =
            words[0] == format!("{name}:") && words[1] == "Linux" && words.contains(&machine);
        ensure!(good, "{report}");
    }
    // A warning about platforms in FROM would be about the purpose of the file.
    sandbox.build(&[&busybox, "--check"])?.success()?;
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
    let names = MACHINES.map(|(platform, _)| platform.replace("linux/", "").replace('/', "-"));
    let mut dockerfile = String::new();
    for ((platform, _), name) in MACHINES.iter().zip(&names) {
        dockerfile.push_str(&format!("FROM --platform={platform} any AS of-{name}\n"));
    }
    dockerfile.push_str("FROM any\n");
    for name in &names {
        dockerfile.push_str(&format!("COPY --from=of-{name} /bin/busybox /{name}/busybox\n"));
    }
    let names = names.join(" ");
    dockerfile.push_str(&format!("RUN for n in {names}; do /$n/busybox uname -m; done > /all\n"));
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

/// The first process of a step cannot be killed by a signal of its own, which QEMU counts on.
fn crashes() -> Result<()> {
    let sandbox = Sandbox::with(
        "crashes",
        &[("Dockerfile", "FROM any\nARG SIGNAL\nRUN kill -$SIGNAL $$\n")],
    )?;
    for (platform, signal, code) in
        [("linux/arm64", "SEGV", 139), ("linux/s390x", "ABRT", 134), ("linux/arm/v7", "BUS", 135)]
    {
        let args = [format!("--platform={platform}"), format!("--build-arg=SIGNAL={signal}")];
        let run = build(&sandbox, &args.each_ref().map(String::as_str))?.expect(1)?;
        run.says(&code.to_string())?;
    }
    Ok(())
}

/// The image is what its base is, whatever was built for.
fn other_last_stage() -> Result<()> {
    let sandbox = Sandbox::with(
        "other-last",
        &[
            ("Dockerfile", "FROM --platform=linux/arm64 any\nCOPY Dockerfile /\n"),
            ("older", "FROM any\nCOPY Dockerfile /\n"),
        ],
    )?;
    for (file, platform, expected) in [
        ("Dockerfile", "linux/amd64", ("arm64", None)),
        // The nearest that the base has.
        ("older", "linux/arm/v6", ("arm", Some("v5"))),
    ] {
        let (file, platform) = (format!("context/{file}"), format!("--platform={platform}"));
        let args = [platform.as_str(), "-f", &file, "-o", "type=docker,dest=image.tar"];
        build(&sandbox, &args)?.success()?;
        let image = Image::of_docker_tar(&sandbox.path("image.tar"))?;
        let said = (image.config["architecture"].as_str(), image.config["variant"].as_str());
        ensure!(said == (Some(expected.0), expected.1), "{said:?} for {platform}");
    }
    Ok(())
}

fn platform_not_there() -> Result<()> {
    let sandbox = Sandbox::with("absent", &[("Dockerfile", "FROM any\n")])?;
    let run = build(&sandbox, &["--platform=linux/mips64le"])?.expect(1)?;
    for (platform, _) in MACHINES {
        run.says(platform)?;
    }
    run.says("linux/mips64le")
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

/// Where the kernel does not let a user namespace have handlers of its own.
fn not_set_up() -> Result<()> {
    skip::need_program("qemu-aarch64-static")?;
    let strace = skip::need_program("strace")?;
    let _none = machine::handlers(FlockOperation::LockShared)?;
    let sandbox = Sandbox::with(
        "not-set-up",
        &[
            ("Dockerfile", "FROM any\nRUN true\n"),
            (
                "mixed",
                "FROM --platform=linux/arm64 any AS foreign\n\
                 FROM any\n\
                 COPY --from=foreign /bin/busybox /foreign\n\
                 RUN uname -m > /machine; /foreign true || echo refused >> /machine\n",
            ),
        ],
    )?;
    let any = any(base::index()?);
    let refused = |args: &[&str]| -> Result<Run> {
        let args: Vec<&str> = [any.as_str()].into_iter().chain(args.iter().copied()).collect();
        let build = sandbox.build_command(&args)?;
        let mut command = Command::new(&strace);
        command
            .args(["-f", "-qq", "-o", "/dev/null", "-P", "/proc/sys/fs/binfmt_misc"])
            .args(["-e", "trace=mount", "-e", "inject=mount:error=EPERM"])
            .arg(build.get_program())
            .args(build.get_args())
            .current_dir(sandbox.folder())
            .env_clear()
            .envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Run::of(&mut command)
    };
    let run = refused(&["--platform=linux/arm64"])?.expect(1)?;
    run.says("cannot set up emulators for this step")?;
    run.says("cannot mount binfmt_misc")?;
    run.says("register the emulators for the whole machine, with the flag F")?;
    run.never_says("warning")?;
    // A step that only has such programs may not need them.
    let run = refused(&["-f", "context/mixed", "-o", "out"])?.success()?;
    run.says("warning[no-emulators]: programs for linux/arm64 cannot run in this step")?;
    let machine = std::fs::read_to_string(sandbox.path("out/machine"))?;
    ensure!(machine == "x86_64\nrefused\n", "{machine}");
    Ok(())
}

/// One image for each platform by a docker daemon with emulators, whose BuildKit writes no index.
fn docker() -> Result<()> {
    let sandbox = Sandbox::with(
        "peer",
        &[(
            "Dockerfile",
            "FROM any\n\
             ARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT BUILDPLATFORM\n\
             ENV MADE_FOR=$TARGETPLATFORM\n\
             RUN uname -m > /machine && sh -c 'uname -s' > /nested\n\
             RUN echo \"$TARGETOS $TARGETARCH $TARGETVARIANT $BUILDPLATFORM\" > /arguments\n\
             RUN mkdir -p /made/by && chown app:staff /made && ln -s by /made/link\n\
             USER app\n\
             RUN id > /tmp/id\n\
             CMD [\"uname\", \"-m\"]\n",
        )],
    )?;
    let index = base::index()?;
    let docker = Docker::with_emulators()?;
    let mut failures = String::new();
    for (platform, _) in MACHINES {
        let compared = || -> Result<()> {
            docker.load("any", &index, platform)?;
            let args = ["--platform", platform];
            let theirs = docker.build(&sandbox, [], &args)?;
            let (_, ours) = sandbox.image("image", &[&any(&index), "--platform", platform])?;
            // It has the processor's own name there.
            let accepted = match platform {
                "linux/386" => vec!["docker: /machine".to_owned()],
                _ => Vec::new(),
            };
            peer::compare("docker", &accepted, &ours, &theirs)?;
            for key in ["os", "architecture", "variant"] {
                let of = |image: &Image| image.config[key].clone();
                ensure!(of(&ours) == of(&theirs), "{key}: {}, {}", of(&ours), of(&theirs));
            }
            Ok(())
        };
        if let Err(error) = compared() {
            failures.push_str(&format!("{platform}: {error:#}\n"));
        }
    }
    ensure!(failures.is_empty(), "{failures}");
    Ok(())
}
