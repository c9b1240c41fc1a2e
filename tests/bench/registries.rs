//! To and from a registry on this machine.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use wbuild_tests::registry::Registry;

use super::{Bench, Times, floors};

/// Files of the workload `export500`, by folder.
const FOLDERS: usize = 5;

impl Bench {
    /// The image of `export500` into a registry: all of it, and again.
    pub fn push500(&self) -> Result<()> {
        let folder = self.sandbox.path("registry");
        let archive = self.sandbox.path("archive.tar.gz");
        floors::archive(&self.path("export500"), &archive, "gzip")?;
        let bytes = archive.metadata()?.len();
        for (name, kept) in [("push500, gzip", true), ("push500, gzip, new", false)] {
            let floor = self.median_of(|| {
                let compressed = floors::archive(&self.path("export500"), &archive, "gzip")?;
                Ok(compressed + floors::loopback(bytes)?)
            })?;
            let registry = RefCell::new(None);
            let times = Times::of(
                self.options.runs,
                |_| {
                    registry.replace(None);
                    floors::remove(&folder)?;
                    registry.replace(Some(Registry::start(&folder, false)?));
                    self.forget()?;
                    if kept {
                        self.build("export500", &[])?;
                    }
                    Ok(())
                },
                |_| self.push(registry.borrow().as_ref(), "export500", "image:1"),
            )?;
            self.show(name, &times, Some(("tar | gzip, loopback", floor)));
            if kept {
                let again = Times::of(
                    self.options.runs,
                    |_| Ok(()),
                    |_| self.push(registry.borrow().as_ref(), "export500", "image:1"),
                )?;
                self.show("push500, again", &again, None);
            }
        }
        Ok(())
    }

    fn push(&self, registry: Option<&Registry>, workload: &str, name: &str) -> Result<Duration> {
        let host = registry.context("the registry runs")?.host();
        self.build(workload, &[&format!("--output=type=registry,name={host}/{name}")])
    }

    /// 500 MB out of a registry, in 1, 5 and 40 layers, until their files are there.
    pub fn pull500(&self) -> Result<()> {
        let folder = self.sandbox.path("registry");
        floors::remove(&folder)?;
        let registry = Registry::start(&folder, false)?;
        let archive = self.sandbox.path("archive.tar.gz");
        floors::archive(&self.path("export500"), &archive, "gzip")?;
        let bytes = archive.metadata()?.len();
        let unpacked = self.sandbox.path("unpacked");
        for layers in [1, 5, 40] {
            let image = format!("{}/layers:{layers}", registry.host());
            let definition = self.sandbox.path("layers.Dockerfile");
            std::fs::write(&definition, copies(layers))?;
            let (file, output) = (
                format!("--file={}", definition.display()),
                format!("--output=type=registry,name={image}"),
            );
            self.build("export500", &[&file, &output])?;
            // A copy into the image needs to know its names, so it is fetched and unpacked.
            let reader = self.sandbox.path("reader.Dockerfile");
            std::fs::write(&reader, format!("FROM {image}\nCOPY Dockerfile /\n"))?;
            let reader = format!("--file={}", reader.display());
            let floor = self.median_of(|| {
                Ok(floors::loopback(bytes)? + floors::unpack(&archive, &unpacked)?)
            })?;
            let times = Times::of(
                self.options.runs,
                |_| self.forget(),
                |_| self.build("export500", &[&reader]),
            )?;
            let name = format!("pull500, {layers} layers");
            self.show(&name, &times, Some(("loopback, tar -x", floor)));
        }
        Ok(())
    }
}

/// The files of `export500` in so many layers.
fn copies(layers: usize) -> String {
    let mut text = String::from("FROM scratch\n");
    match layers {
        1 => text.push_str("COPY . /\n"),
        _ => {
            // Files are called b0 to b99: those that end in one digit are a tenth of a folder.
            let parts = layers / FOLDERS;
            for folder in 0..FOLDERS {
                for part in 0..parts {
                    let pattern = match parts {
                        1 => "*".to_owned(),
                        _ => format!("*[{}]", digits(part, parts)),
                    };
                    let _ = writeln!(text, "COPY l{folder}/{pattern} /l{folder}/");
                }
            }
        }
    }
    text
}

/// The digits that belong to one of `parts` parts.
fn digits(part: usize, parts: usize) -> String {
    ('0'..='9').enumerate().filter(|(n, _)| n % parts == part).map(|(_, digit)| digit).collect()
}
