//! Builds for several platforms by an ordinary user, and in a container.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::{Result, ensure};
use wbuild_tests::base;
use wbuild_tests::run::Run;
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::skip;
use wbuild_tests::unprivileged::{Container, RANGE, USER, Unprivileged, WBUILD, Who};

use crate::Test;
use crate::platforms::{any, every_platform, platforms, runs_everywhere};

pub const TESTS: &[Test] = &[
    ("every_platform_runs_for_an_ordinary_user", ordinary_user),
    ("an_ordinary_user_with_one_id_runs_every_platform", one_id),
    ("commands_on_the_machine_run_with_the_users_rights", commands_on_the_machine),
    ("every_platform_runs_in_a_container", container),
    ("a_container_with_one_id_runs_every_platform", container_with_one_id),
    ("a_container_that_is_not_let_says_what_it_takes", container_not_let),
    ("a_state_directory_on_an_overlay_says_what_to_do", state_on_an_overlay),
];

/// Builds [`every_platform`] as somebody.
fn everywhere(sandbox: &Sandbox, who: Who) -> Result<()> {
    let index = base::index()?;
    let unprivileged = Unprivileged::new(sandbox, who)?;
    let (any, platforms) = (any(unprivileged.path(&index)?), platforms());
    let args = [WBUILD, "build", "--progress=plain", &any, "-o", "out"];
    let args = args.into_iter().chain(["--platform", platforms.as_str(), "context"]);
    runs_everywhere(sandbox, &mut unprivileged.command(args)?)
}

fn ordinary_user() -> Result<()> {
    let sandbox = every_platform()?;
    everywhere(&sandbox, Who::User { ranges: true })?;
    // Where the XDG base directory specification has them.
    for place in ["home/.local/state/wbuild", "home/.cache/wbuild/code", "out"] {
        let owner = sandbox.path(place).metadata()?.uid();
        ensure!(owner == USER, "{place} is {owner}'s");
    }
    Ok(())
}

fn commands_on_the_machine() -> Result<()> {
    let file = "VERSION 0.8\nt:\n    LOCALLY\n    RUN cat made && echo more >> made && echo x > new\n    SAVE ARTIFACT made AS LOCAL copy\n";
    let sandbox = Sandbox::with("locally-user", &[("Earthfile", file), ("made", "mine\n")])?;
    let unprivileged = Unprivileged::new(&sandbox, Who::User { ranges: true })?;
    let args = [WBUILD, "--progress=plain", "--allow=client.exec", "context+t"];
    Run::of(&mut unprivileged.command(args)?)?.success()?.says("mine")?;
    for name in ["made", "new", "copy"] {
        let owner = sandbox.path("context").join(name).metadata()?.uid();
        ensure!(owner == USER, "{name} is {owner}'s");
    }
    ensure!(std::fs::read_to_string(sandbox.path("context/copy"))? == "mine\nmore\n");
    Ok(())
}

/// How a build of [`with_programs`] starts: with one program, which is root's.
const START: &str = "FROM scratch\nARG TARGETARCH\nCOPY --chmod=755 $TARGETARCH /bin/busybox\n";

/// A context with programs of several platforms.
fn with_programs(name: &str) -> Result<Sandbox> {
    let sandbox = Sandbox::new(name)?;
    for (name, debian) in [("arm64", "arm64"), ("s390x", "s390x"), ("386", "i386")] {
        std::fs::copy(base::program_of(debian)?, sandbox.path("context").join(name))?;
    }
    Ok(sandbox)
}

/// Builds for several platforms, also what takes more than one id.
fn with_one_id(name: &str, who: Who) -> Result<()> {
    skip::need_program("qemu-aarch64-static")?;
    let index = base::index()?;
    let sandbox = with_programs(name)?;
    let run = |args: &str| format!("RUN [\"/bin/busybox\", \"sh\", \"-c\", \"{args}\"]\n");
    let nested = run("/bin/busybox uname -m > /machine; /bin/busybox id -u >> /machine");
    sandbox.write("Dockerfile", &format!("{START}{nested}"))?;
    sandbox.write("owners", &format!("{START}{}", run("/bin/busybox chown 1000:50 /bin")))?;
    sandbox.write("users", "FROM any\nRUN true\n")?;

    let unprivileged = Unprivileged::new(&sandbox, who)?;
    let any = any(unprivileged.path(&index)?);
    let build = |args: &[&str]| -> Result<Run> {
        let start = [WBUILD, "build", "--progress=plain", &any, "-o", "out", "--platform"];
        let args = start.into_iter().chain(args.iter().copied()).chain(["context"]);
        Run::of(&mut unprivileged.command(args)?)
    };
    build(&["linux/arm64,linux/s390x,linux/386"])?.success()?;
    for (platform, machine) in [("arm64", "aarch64"), ("s390x", "s390x"), ("386", "i686")] {
        let path = sandbox.path("out").join(format!("linux_{platform}/machine"));
        let text = std::fs::read_to_string(path)?;
        ensure!(text == format!("{machine}\n0\n"), "{platform}: {text}");
    }
    // A step that wants another owner, and a base that has one.
    let run = build(&["linux/arm64", "-f", "context/owners"])?.expect(1)?;
    run.says("steps have one user only here")?;
    let run = build(&["linux/arm64", "-f", "context/users"])?.expect(1)?;
    run.says("cannot change the owner of \"home/app\"")?;
    run.says("give the user more subordinate ids in /etc/subuid and /etc/subgid")
}

fn one_id() -> Result<()> {
    with_one_id("one-id", Who::User { ranges: false })
}

/// Its user namespace and `CAP_SYS_ADMIN` in that are all it takes: seccomp is as Docker has it, parts
/// of `/proc` are hidden, there is no device of the machine.
fn container() -> Result<()> {
    let sandbox = every_platform()?;
    everywhere(&sandbox, Who::Container(Container::default()))?;
    let owner = sandbox.path("out").metadata()?.uid();
    ensure!(owner == RANGE, "the output is {owner}'s");
    Ok(())
}

/// One that has no more, and one without `CAP_SYS_ADMIN`, whose root is an ordinary user to the kernel.
fn container_with_one_id() -> Result<()> {
    let one = Container { ids: 1, ..Container::default() };
    let ordinary =
        Container { admin: false, filtered: false, unmasked: true, ..Container::default() };
    for container in [one, ordinary] {
        with_one_id("container-one", Who::Container(container))?;
    }
    Ok(())
}

fn container_not_let() -> Result<()> {
    for (container, remedy) in [
        (Container { admin: false, ..Container::default() }, "give that CAP_SYS_ADMIN"),
        (
            Container { admin: false, filtered: false, ..Container::default() },
            "systempaths=unconfined",
        ),
    ] {
        let sandbox = with_programs("not-let")?;
        let run = "RUN [\"/bin/busybox\", \"true\"]\n";
        sandbox.write("Dockerfile", &format!("{START}{run}"))?;
        let unprivileged = Unprivileged::new(&sandbox, Who::Container(container))?;
        for platform in ["linux/386", "linux/arm64"] {
            let args = [WBUILD, "build", "--progress=plain", "--platform", platform, "context"];
            let run = Run::of(&mut unprivileged.command(args)?)?.expect(1)?;
            run.says(remedy)?;
            run.never_says("warning")?;
        }
    }
    Ok(())
}

/// As the root of a container mostly is.
fn state_on_an_overlay() -> Result<()> {
    skip::need_root()?;
    let sandbox = Sandbox::with("overlay", &[("Dockerfile", "FROM base\nRUN true\n")])?;
    for folder in ["lower", "upper", "work"] {
        std::fs::create_dir(sandbox.path(folder))?;
    }
    let script = "mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay /mnt && exec \"$@\"";
    let mut build = sandbox.build_command(&[])?;
    build.env("WBUILD_STATE_DIR", "/mnt/state");
    let mut command = Command::new(skip::need_program("unshare")?);
    command
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(build.get_program())
        .args(build.get_args())
        .current_dir(sandbox.folder())
        .envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let run = Run::of(&mut command)?.expect(1)?;
    run.says("use a state directory on another file system with --state-dir")
}
