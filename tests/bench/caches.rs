//! Caches in a registry on this machine: all results into it, and out of it into an empty state.

use std::cell::RefCell;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use wbuild_tests::registry::Registry;

use super::{Bench, Times, floors};

/// What a cache in a registry is made of.
struct Content {
    /// Of all blobs and manifests, as they lie there.
    stored: u64,
    /// A file with all layers, one behind the other, as they are before compression.
    raw: PathBuf,
}

impl Bench {
    /// The workload `caches`: `cachemax` is a build with an export of all results, `cacheimport` a
    /// build out of what was exported.
    pub fn caches(&self) -> Result<()> {
        let folder = self.sandbox.path("registry");
        let registry = RefCell::new(None);
        let empty_registry = || -> Result<()> {
            registry.replace(None);
            self.put_aside(&folder)?;
            registry.replace(Some(Registry::start(&folder, false)?));
            Ok(())
        };
        let reference = || -> Result<String> {
            let registry = registry.borrow();
            Ok(format!("{}/cache:1", registry.as_ref().context("the registry runs")?.host()))
        };
        let export = || -> Result<Duration> {
            let to = format!("--cache-to=type=registry,ref={},mode=max", reference()?);
            self.build("caches", &[&to])
        };
        let import = |more: &[&str]| -> Result<wbuild_tests::run::Run> {
            let from = format!("--cache-from=type=registry,ref={}", reference()?);
            let args: Vec<&str> = [from.as_str()].into_iter().chain(more.iter().copied()).collect();
            self.run("caches", &args)
        };

        empty_registry()?;
        self.set_aside()?;
        export()?;
        let content = {
            let registry = registry.borrow();
            content(registry.as_ref().context("the registry runs")?, self.sandbox.path("raw"))?
        };
        let floor = self.median_of(|| {
            let hashed = floors::hash(&content.raw)?;
            let compressed = floors::compress(&content.raw)?;
            Ok(hashed + compressed + floors::loopback(content.stored)?)
        })?;
        let floor = Some(("sha256, gzip, loopback", floor));
        let runs = self.options.runs;
        let times = Times::of(runs, |_| self.set_aside(), |_| self.build("caches", &[]))?;
        self.show("caches, cold, no export", &times, None);
        let cold = |_| empty_registry().and_then(|()| self.set_aside());
        self.show("cachemax, cold build", &Times::of(runs, cold, |_| export())?, floor);
        let built = |run| {
            cold(run)?;
            self.build("caches", &[]).map(drop)
        };
        self.show("cachemax, results there", &Times::of(runs, built, |_| export())?, floor);
        let again = Times::of(runs, |_| Ok(()), |_| export())?;
        self.show("cachemax, again", &again, Some(("fork+exec", self.median_of(floors::process)?)));

        self.set_aside()?;
        let run = import(&[])?;
        let steps = run.steps();
        let ran: Vec<_> = steps.iter().filter(|step| step.name.contains("RUN ")).collect();
        ensure!(
            !ran.is_empty() && ran.iter().all(|step| step.end == "CACHED"),
            "an import must leave nothing to run:\n{}",
            run.stderr
        );
        let times = Times::of(runs, |_| self.set_aside(), |_| Ok(import(&[])?.took))?;
        let process = self.median_of(floors::process)?;
        self.show("cacheimport", &times, Some(("fork+exec", process)));
        let archive = self.sandbox.path("imported.tar");
        let output = format!("--output=type=oci,dest={}", archive.display());
        let times = Times::of(runs, |_| self.set_aside(), |_| Ok(import(&[&output])?.took))?;
        let bytes = archive.metadata()?.len();
        let floor = self.median_of(|| Ok(floors::loopback(bytes)? + floors::hash(&archive)?))?;
        self.show("cacheimport, as archive", &times, Some(("loopback, sha256", floor)));
        self.clear_aside()
    }
}

/// What lies in a registry. `raw` is the file to write the layers to.
fn content(registry: &Registry, raw: PathBuf) -> Result<Content> {
    let mut out = std::fs::File::create(&raw)?;
    let mut stored = 0;
    for blob in registry.blobs()? {
        let bytes = std::fs::read(&blob)?;
        stored += bytes.len() as u64;
        match bytes.starts_with(&[0x1f, 0x8b]) {
            true => {
                std::io::copy(&mut flate2::read::MultiGzDecoder::new(&bytes[..]), &mut out)?;
            }
            false => out.write_all(&bytes)?,
        }
    }
    ensure!(stored > 0, "nothing was exported");
    Ok(Content { stored, raw })
}
