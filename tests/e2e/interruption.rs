//! Builds that are ended before their end leave nothing behind and nothing broken.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use wbuild_tests::run::DEADLINE;
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::{kills, machine};

use crate::Test;

pub const TESTS: &[Test] = &[
    ("ctrl_c_in_a_step", ctrl_c_in_a_step),
    ("termination_in_a_step", termination_in_a_step),
    ("ctrl_c_in_several_steps", ctrl_c_in_several_steps),
    ("a_step_that_does_not_want_to_end", a_step_that_does_not_want_to_end),
    ("sigkill_in_a_step", sigkill_in_a_step),
    ("kills_at_random_moments", kills_at_random_moments),
    ("a_failed_step_ends_the_others", a_failed_step_ends_the_others),
    ("background_processes_end_with_the_step", background_processes_end_with_the_step),
];

/// A sleep that no other test's process looks like.
fn sleeper(sandbox: &Sandbox) -> String {
    let unique = sandbox.folder().to_string_lossy();
    let unique: u64 =
        unique.bytes().fold(0, |sum, byte| (sum * 31 + u64::from(byte)) % 1_000_000_007);
    format!("sleep 1000.{unique}")
}

/// Fails if a process, a mount or a step's trace is left of a sandbox's builds.
fn nothing_left(sandbox: &Sandbox, sleep: &str) -> Result<()> {
    machine::nothing_left(&sandbox.path("state").display().to_string())?;
    machine::nothing_left(sleep)
}

fn ended_by(name: &str, signal: Signal, code: i32) -> Result<()> {
    let sandbox = Sandbox::new(name)?;
    let sleep = sleeper(&sandbox);
    let file = format!("FROM base\nRUN echo first > /first\nRUN echo begun && {sleep}\n");
    sandbox.write("Dockerfile", &file)?;
    let mut build = sandbox.start_build(&["-o=type=oci,tar=false,dest=image"])?;
    build.wait_for(" begun\n")?;
    ensure!(!machine::traces_of(&sleep).is_empty(), "the step does not run");
    let signalled = Instant::now();
    build.signal(signal)?;
    let run = build.wait(DEADLINE)?.expect(code)?;
    ensure!(signalled.elapsed() < Duration::from_secs(15), "it took {:?}", signalled.elapsed());
    ensure!(!sandbox.path("image").exists(), "an image was written");
    nothing_left(&sandbox, &sleep)?;
    if code == 130 {
        // What ran is told of even so.
        let told = sandbox.run(["explain"])?.success()?;
        for step in ["RUN echo first", "RUN echo begun"] {
            ensure!(told.text()?.contains(step), "{}", told.text()?);
        }
    }

    // What had ended is kept; the next build works.
    sandbox.write("Dockerfile", &file.replace(&sleep, "true"))?;
    let (next, _) = sandbox.image("image", &[])?;
    ensure!(next.end_of("RUN echo first")? == "CACHED", "{}\n---\n{}", run.stderr, next.stderr);
    Ok(())
}

fn ctrl_c_in_a_step() -> Result<()> {
    ended_by("ctrl-c", Signal::INT, 130)
}

fn termination_in_a_step() -> Result<()> {
    ended_by("termination", Signal::TERM, 130)
}

fn sigkill_in_a_step() -> Result<()> {
    ended_by("sigkill", Signal::KILL, 137)
}

fn ctrl_c_in_several_steps() -> Result<()> {
    let sandbox = Sandbox::new("ctrl-c-several")?;
    let sleep = sleeper(&sandbox);
    let stage = |name: &str| format!("FROM base AS {name}\nRUN echo begun-{name} && {sleep}\n");
    sandbox.write(
        "Dockerfile",
        &format!(
            "{}{}FROM scratch\nCOPY --from=one / /one\nCOPY --from=two / /two\n",
            stage("one"),
            stage("two")
        ),
    )?;
    let mut build = sandbox.start_build(&["--jobs=2"])?;
    build.wait_for(" begun-one\n")?;
    build.wait_for(" begun-two\n")?;
    build.signal(Signal::INT)?;
    build.wait(DEADLINE)?.expect(130)?;
    nothing_left(&sandbox, &sleep)
}

fn a_step_that_does_not_want_to_end() -> Result<()> {
    let sandbox = Sandbox::new("unwilling")?;
    let sleep = sleeper(&sandbox);
    sandbox.write(
        "Dockerfile",
        &format!("FROM base\nRUN trap '' INT TERM HUP; echo begun; setsid {sleep} & while :; do sleep 1; done\n"),
    )?;
    let mut build = sandbox.start_build(&[])?;
    build.wait_for(" begun\n")?;
    build.signal(Signal::INT)?;
    build.wait(DEADLINE)?.expect(130)?;
    nothing_left(&sandbox, &sleep)
}

/// `WBUILD_LEFTOVERS` is another number of kills; `wbuild-bench --kills` does it on a larger state
/// directory.
fn kills_at_random_moments() -> Result<()> {
    let sandbox = Sandbox::new("kills")?;
    let rounds = match std::env::var("WBUILD_LEFTOVERS") {
        Ok(text) => text.parse()?,
        Err(_) => 20,
    };
    let seen = kills::run(&sandbox, rounds, u64::from(std::process::id()), None)?;
    ensure!(seen.in_time > 0, "every build had ended before its kill: {seen:?}");
    Ok(())
}

fn a_failed_step_ends_the_others() -> Result<()> {
    let sandbox = Sandbox::new("failing")?;
    let sleep = sleeper(&sandbox);
    sandbox.write(
        "Dockerfile",
        &format!(
            "FROM base AS long\nRUN --mount=type=cache,id=m,target=/m touch /m/runs && {sleep}\n\
             FROM base AS bad\nRUN --mount=type=cache,id=m,target=/m \
             for i in $(seq 300); do [ -e /m/runs ] && exit 7; sleep 0.1; done\n\
             FROM scratch\nCOPY --from=long / /\nCOPY --from=bad / /\n"
        ),
    )?;
    let run = sandbox.build(&["--jobs=2"])?.expect(1)?;
    run.says("exit code: 7")?;
    nothing_left(&sandbox, &sleep)
}

fn background_processes_end_with_the_step() -> Result<()> {
    let sandbox = Sandbox::new("background")?;
    let sleep = sleeper(&sandbox);
    sandbox
        .write("Dockerfile", &format!("FROM base\nRUN setsid {sleep} > /dev/null 2>&1 & true\n"))?;
    sandbox.build(&[])?.success()?;
    nothing_left(&sandbox, &sleep)
}
