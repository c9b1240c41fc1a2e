//! A loop of kills: builds of one state directory are ended by SIGKILL at random moments.
//!
//! What must hold after each: nothing of the build is left on the machine, the next build works and
//! gives the right files, and what was acknowledged (exit code 0) before is still found, also when
//! the machine has started anew in between (another boot id), which drops what was not on disk.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::image::Image;
use crate::machine;
use crate::run::{DEADLINE, Run, Running};
use crate::sandbox::Sandbox;

/// What a loop has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Builds killed before their end.
    pub killed: u32,
    /// Builds that had ended before the kill.
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

/// Kills `kills` builds in a sandbox, whose state directory may hold anything before. The moments
/// are spread over the time that a whole build takes; `seed` chooses them.
pub fn run(sandbox: &Sandbox, kills: u32, seed: u64) -> Result<Seen> {
    sandbox.write("Dockerfile", FILE)?;
    for file in 0..60 {
        sandbox.write(&format!("d{}/f{file}", file % 3), &format!("{file}\n").repeat(500))?;
    }
    let mut random = seed;
    let mut seen = Seen::default();
    let mut boot = 0_u32;
    let mut usual = Duration::from_millis(500);
    for round in 0..kills {
        let boot_id = format!("boot-{boot}");
        let mut killed = start(sandbox, round, &boot_id, &[])?;
        // A linear congruential generator (Knuth's MMIX constants) is random enough.
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let most = u64::try_from(usual.as_micros()).unwrap_or(u64::MAX).max(1);
        std::thread::sleep(Duration::from_micros((random >> 20) % most));
        if killed.has_ended()? {
            seen.too_late += 1;
        } else {
            killed.signal(Signal::KILL)?;
            seen.killed += 1;
        }
        killed.wait(DEADLINE).with_context(|| format!("round {round}"))?;
        machine::nothing_left(&sandbox.path("state").display().to_string())
            .with_context(|| format!("round {round}"))?;

        let whole = build(sandbox, round, &boot_id)?;
        usual = whole.took;
        check_files(sandbox, round).with_context(|| format!("round {round}"))?;
        // It was acknowledged, so it outlives the machine's running.
        boot += 1;
        let again = build(sandbox, round, &format!("boot-{boot}"))?;
        for step in again.steps() {
            ensure!(
                step.end != "DONE" || !step.name.contains(" RUN ") && !step.name.contains(" COPY "),
                "round {round}: {:?} was acknowledged and is lost:\n{}",
                step.name,
                again.stderr
            );
        }
    }
    Ok(seen)
}

fn start(sandbox: &Sandbox, round: u32, boot_id: &str, args: &[&str]) -> Result<Running> {
    let round = format!("--build-arg=ROUND={round}");
    let args: Vec<&str> = args.iter().copied().chain([round.as_str()]).collect();
    Running::start(sandbox.build_command(&args)?.env("WBUILD_BOOT_ID", boot_id))
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
