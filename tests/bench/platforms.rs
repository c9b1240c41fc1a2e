//! Steps of other processors beside QEMU run by hand, and one build for several platforms beside the
//! same for one.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use wbuild_tests::peer::Docker;
use wbuild_tests::run::Run;
use wbuild_tests::skip;

use super::{Bench, Times};

impl Bench {
    /// The workloads `emulated` and `compile`: a step that does nothing, and one that works.
    pub fn emulated(&self) -> Result<()> {
        let index = wbuild_tests::base::index()?;
        let qemu = skip::need_program("qemu-aarch64-static")?;
        let docker = if self.options.docker { Some(Docker::with_emulators()?) } else { None };
        if let Some(docker) = &docker {
            docker.load("any", &index, "linux/arm64")?;
        }
        let busybox = wbuild_tests::base::program_of("arm64")?;
        let starts = self.median_of(|| {
            Ok(Run::of(Command::new(&qemu).arg(&busybox).arg("true"))?.success()?.took)
        })?;
        self.step("emulated", &[], starts, docker.as_ref())?;
        let (root, made) = (self.path("compile").join("emulated"), self.sandbox.path("big.s"));
        let compiles = self.median_of(|| {
            let mut command = Command::new(&qemu);
            command.arg("-L").arg(&root).arg(root.join("usr/lib/gcc/aarch64-linux-gnu/12/cc1"));
            command
                .args(["-fpreprocessed", "-quiet", "-O2"])
                .arg(self.path("compile").join("big.c"));
            Ok(Run::of(command.arg("-o").arg(&made))?.success()?.took)
        })?;
        self.step("compile", &["--target=emulated"], compiles, docker.as_ref())?;
        for target in ["--target=cross", "--target=native"] {
            self.build("compile", &[target, &nonce("first", 0)])?;
            let times = Times::of(
                self.options.runs,
                |_| Ok(()),
                |run| self.build("compile", &[target, &nonce("ours", run)]),
            )?;
            self.show(&format!("compile, {target}"), &times, None);
        }
        Ok(())
    }

    /// A build whose last step runs, and is one of arm64.
    fn step(
        &self,
        workload: &str,
        more: &[&str],
        by_hand: Duration,
        docker: Option<&Docker>,
    ) -> Result<()> {
        let with = |args: &[&str], nonce: &str| -> Vec<String> {
            let all = args.iter().chain(more).chain([&"--platform=linux/arm64", &nonce]);
            all.map(|arg| (*arg).to_owned()).collect()
        };
        let ours = |nonce: &str| {
            let args = with(&[&any()?], nonce);
            self.build(workload, &args.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let context = self.path(workload).display().to_string();
        let theirs = |nonce: &str| -> Result<Duration> {
            let mut args = with(&["build", "--quiet", "--network=host"], nonce);
            args.push(context.clone());
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            Ok(docker.context("there is a peer")?.client(&args)?.success()?.took)
        };
        let runs = self.options.runs;
        ours(&nonce("first", 0))?;
        let times = Times::of(runs, |_| Ok(()), |run| ours(&nonce("ours", run)))?;
        self.show(&format!("{workload}, arm64"), &times, Some(("qemu", by_hand)));
        if docker.is_some() {
            theirs(&nonce("first", 0))?;
            let peer = Times::of(runs, |_| Ok(()), |run| theirs(&nonce("theirs", run)))?;
            self.show("  docker", &peer, Some(("wbuild", times.median())));
        }
        Ok(())
    }

    /// Four platforms, whose common stage takes nearly all the time.
    pub fn everywhere(&self) -> Result<()> {
        let build = |platforms: &str, nonce: &str| {
            let layout = format!("type=oci,dest={}", self.sandbox.path("image.tar").display());
            let platforms = format!("--platform={platforms}");
            self.build("everywhere", &[&any()?, &platforms, nonce, "--output", &layout])
        };
        let four = "linux/amd64,linux/386,linux/arm64,linux/arm/v7";
        build(four, &nonce("first", 0))?;
        let runs = self.options.runs;
        let one = Times::of(runs, |_| Ok(()), |run| build("linux/amd64", &nonce("one", run)))?;
        self.show("everywhere, 1 platform", &one, None);
        let all = Times::of(runs, |_| Ok(()), |run| build(four, &nonce("four", run)))?;
        self.show("everywhere, 4 platforms", &all, Some(("one", one.median())));
        Ok(())
    }
}

/// The option that gives a build the image for several platforms.
fn any() -> Result<String> {
    Ok(format!("--build-context=any=oci-layout://{}", wbuild_tests::base::index()?.display()))
}

/// The option that makes the step of every run another one.
fn nonce(kind: &str, run: usize) -> String {
    format!("--build-arg=NONCE={kind}-{run}-{}", std::process::id())
}
