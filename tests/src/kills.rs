//! Builds of one state directory are ended at random moments, by SIGKILL or by a power cut.
//!
//! What must hold after each: no process and no mount of the build is left on the machine, the next
//! build works, leaves no file and no control group of the one before, and gives the right files, and what was acknowledged (exit code 0) before is still found, also when
//! the machine has started anew in between (another boot id), which drops what was not on disk.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::disk::Disk;
use crate::image::Image;
use crate::machine;
use crate::run::{DEADLINE, Run, Running};
use crate::sandbox::Sandbox;

/// What a loop has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Builds ended before their end.
    pub in_time: u32,
    /// Builds that had come to their end before.
    pub too_late: u32,
}

const FILE: &str = "FROM base AS work\n\
    ARG ROUND\n\
    COPY . /context\n\
    RUN echo $ROUND > /round\n\
    RUN --mount=type=cache,target=/c cp -r /context /copy && echo $ROUND >> /c/rounds\n\
    RUN rm -r /copy/d1 && ln -s /context /link\n\
    FROM base\n\
    COPY --from=work /round /round\n\
    COPY --from=work /copy /copy\n\
    RUN cat /round > /done\n";

/// Ends `rounds` builds in a sandbox, whose state directory may hold anything before, by SIGKILL or,
/// if it lies on a disk, by cutting that disk's power. The moments are spread over the time that a
/// whole build takes; `seed` chooses them.
pub fn run(sandbox: &Sandbox, rounds: u32, seed: u64, disk: Option<&Disk>) -> Result<Seen> {
    sandbox.write("Dockerfile", FILE)?;
    for file in 0..60 {
        sandbox.write(&format!("d{}/f{file}", file % 3), &format!("{file}\n").repeat(500))?;
    }
    std::fs::create_dir_all(sandbox.path("temporary"))?;
    let groups = machine::step_groups();
    // Losing what wbuild only reads would show nothing about wbuild.
    disk.map_or(Ok(()), Disk::sync)?;
    let mut random = seed;
    let mut seen = Seen::default();
    let mut boot = 0_u32;
    let mut usual = Duration::from_millis(500);
    for round in 0..rounds {
        let during = || format!("round {round}");
        let mut ended = start(sandbox, round, &format!("boot-{boot}"), &[])?;
        // A linear congruential generator (Knuth's MMIX constants) is random enough.
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let most = u64::try_from(usual.as_micros()).unwrap_or(u64::MAX).max(1);
        std::thread::sleep(Duration::from_micros((random >> 20) % most));
        disk.map_or(Ok(()), Disk::cut)?;
        if ended.has_ended()? {
            seen.too_late += 1;
        } else {
            ended.signal(Signal::KILL)?;
            seen.in_time += 1;
        }
        ended.wait(DEADLINE).with_context(during)?;
        machine::nothing_left(&sandbox.path("state").display().to_string()).with_context(during)?;
        if let Some(disk) = disk {
            disk.restart()?;
            boot += 1;
            // What the round before was told holds through the cut.
            if let Some(before) = round.checked_sub(1) {
                nothing_runs(sandbox, before, boot).with_context(during)?;
            }
        }

        let whole = build(sandbox, round, &format!("boot-{boot}")).with_context(during)?;
        usual = whole.took;
        nothing_unfinished(sandbox, &groups).with_context(during)?;
        check_files(sandbox, round).with_context(during)?;
        // It was acknowledged: from now on the power may go at any time.
        if let Some(disk) = disk {
            disk.cut()?;
            disk.restart()?;
        }
        boot += 1;
        nothing_runs(sandbox, round, boot).with_context(during)?;
    }
    Ok(seen)
}

/// After the build that follows, no file of the one that was ended is left, and no control group.
fn nothing_unfinished(sandbox: &Sandbox, groups: &BTreeSet<PathBuf>) -> Result<()> {
    for folder in ["state/tmp", "temporary"] {
        let left: Vec<_> = std::fs::read_dir(sandbox.path(folder))?
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .filter(|name| !name.starts_with("partial-"))
            .collect();
        ensure!(left.is_empty(), "left in {folder}: {left:?}");
    }
    let left: Vec<_> = machine::step_groups().difference(groups).cloned().collect();
    ensure!(left.is_empty(), "control groups are left: {left:?}");
    Ok(())
}

/// A round that was acknowledged is found whole.
fn nothing_runs(sandbox: &Sandbox, round: u32, boot: u32) -> Result<()> {
    let again = build(sandbox, round, &format!("boot-{boot}"))?;
    for step in again.steps() {
        ensure!(
            step.end != "DONE" || !step.name.contains(" RUN ") && !step.name.contains(" COPY "),
            "{:?} of round {round} was acknowledged and is lost:\n{}",
            step.name,
            again.stderr
        );
    }
    check_files(sandbox, round)
}

fn start(sandbox: &Sandbox, round: u32, boot_id: &str, args: &[&str]) -> Result<Running> {
    let round = format!("--build-arg=ROUND={round}");
    let args: Vec<&str> = args.iter().copied().chain([round.as_str()]).collect();
    let mut command = sandbox.build_command(&args)?;
    command.env("WBUILD_BOOT_ID", boot_id).env("TMPDIR", sandbox.path("temporary"));
    Running::start(&mut command)
}

fn build(sandbox: &Sandbox, round: u32, boot_id: &str) -> Result<Run> {
    let _ = std::fs::remove_dir_all(sandbox.path("image"));
    let args = ["-o=type=oci,tar=false,compression=uncompressed,dest=image"];
    start(sandbox, round, boot_id, &args)?.wait(DEADLINE)?.success()
}

fn check_files(sandbox: &Sandbox, round: u32) -> Result<()> {
    let tree = Image::of_layout(&sandbox.path("image"))?.tree;
    let content = format!("{round}\n");
    let digest = crate::image::sha256(content.as_bytes());
    for path in ["/round", "/done"] {
        let crate::tree::Node::File { digest: found, .. } = &tree.get(path)?.node else {
            anyhow::bail!("{path} is no file");
        };
        ensure!(digest.ends_with(found.as_str()), "{path} is of another round");
    }
    let files = tree.0.keys().filter(|path| path.starts_with("/copy/d") && path.contains("/f"));
    ensure!(files.count() == 40, "files are missing:\n{}", tree.listing());
    Ok(())
}
