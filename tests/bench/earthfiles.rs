//! Earthfiles: what planning costs, and what conditions that do not depend on each other cost.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use wbuild_tests::run::Run;

use super::{Bench, SHORT, Times, floors};
use crate::workloads::write;

/// 100 targets of ten commands, each of which takes files from up to three others.
pub fn targets100(to: &Path, _: f64) -> Result<()> {
    let mut text =
        String::from("VERSION 0.8\nFROM base\nARG --global NONCE\nWORKDIR /work\nall:\n");
    for target in 0..100 {
        let _ = writeln!(text, "    BUILD +t{target}");
    }
    for target in 0..100 {
        write(to, &format!("src/f{target}"), format!("file {target}\n").as_bytes())?;
        let _ = write!(
            text,
            "t{target}:\n    ARG SIZE={target}\n    ENV NAME=t{target}\n    COPY src/f{target} ./\n"
        );
        for below in [target / 2, target / 3, target / 7] {
            if below < target {
                let _ = writeln!(text, "    COPY +t{below}/out in{below}");
            }
        }
        let _ = write!(
            text,
            "    LET message=\"$NAME of $SIZE\"\n    LABEL made=$message\n    \
             RUN echo $message $NONCE > out\n    SAVE ARTIFACT out\n"
        );
    }
    write(to, "Earthfile", text.as_bytes())
}

/// How many conditions there are.
const CONDITIONS: usize = 20;

/// Targets whose conditions wait for half a second each.
pub fn conditions20(to: &Path, _: f64) -> Result<()> {
    let mut text = String::from("VERSION 0.8\nFROM base\nARG --global NONCE\nall:\n");
    for target in 0..CONDITIONS {
        let _ = writeln!(text, "    BUILD +t{target}");
    }
    for target in 0..CONDITIONS {
        let _ = write!(
            text,
            "t{target}:\n    IF sleep 0.5 && test {target} -ge 10 && : $NONCE\n        \
             ENV LARGE=yes\n    END\n    SAVE ARTIFACT /etc/passwd\n"
        );
    }
    write(to, "Earthfile", text.as_bytes())
}

impl Bench {
    fn target(&self, workload: &str, args: &[&str], nonce: Option<usize>) -> Result<Run> {
        let base = format!("base=oci-layout://{}", wbuild_tests::base::layout()?.display());
        let target = format!("{}+all", self.path(workload).display());
        // One that was never there.
        let nonce = nonce.map(|run| format!("--NONCE={}-{run}", std::process::id()));
        let all: Vec<&str> =
            ["--progress=plain", "--output=type=cacheonly", "--build-context", &base]
                .into_iter()
                .chain(args.iter().copied())
                .chain([target.as_str()])
                .chain(nonce.as_deref())
                .collect();
        Run::of(&mut self.sandbox.wbuild(all)?)?.success()
    }

    /// Time in the frontend alone, which is not remembered as an argument is another.
    pub(super) fn targets100(&self) -> Result<()> {
        self.target("targets100", &[], None)?;
        let planned = Times::of(
            self.options.runs,
            |_| Ok(()),
            |run| frontend(&self.target("targets100", &["--stats"], Some(run))?),
        )?;
        let floor = self.median_of(floors::process)?;
        self.show("targets100, planned", &planned, Some(("fork+exec", floor)));
        let unchanged = Times::of(
            self.options.runs * SHORT,
            |_| Ok(()),
            |_| Ok(self.target("targets100", &[], None)?.took),
        )?;
        let walk = self.median_of(|| floors::stat_walk(&self.path("targets100")))?;
        self.show("targets100, unchanged", &unchanged, Some(("stat walk", walk)));
        Ok(())
    }

    pub(super) fn conditions20(&self) -> Result<()> {
        self.target("conditions20", &[], None)?;
        let jobs = format!("--jobs={CONDITIONS}");
        let times = Times::of(
            self.options.runs,
            |_| Ok(()),
            |run| Ok(self.target("conditions20", &[&jobs], Some(run))?.took),
        )?;
        self.show("conditions20", &times, Some(("one sleep", Duration::from_millis(500))));
        Ok(())
    }
}

/// What `--stats` says of the frontend.
fn frontend(run: &Run) -> Result<Duration> {
    let said = run.stderr.lines().find_map(|line| line.trim().strip_prefix("frontend "));
    let (how, ms) =
        said.and_then(|said| said.rsplit_once(", ")).context("no line of the frontend")?;
    ensure!(!how.contains("not run"), "the frontend was not run: {how}");
    let ms: f64 = ms.trim_end_matches(" ms").parse().with_context(|| format!("{ms:?}"))?;
    Ok(Duration::from_secs_f64(ms / 1_000.0))
}
