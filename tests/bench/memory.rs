//! The most memory that wbuild holds while it moves one layer of 4 GB.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use wbuild_tests::registry::Registry;

use super::{Bench, floors};

impl Bench {
    /// Export as an archive and into a registry, and pull from there.
    pub fn memory4g(&self) -> Result<()> {
        let context = self.sandbox.path("large");
        std::fs::create_dir_all(&context)?;
        let megabytes = (4096.0 * self.options.scale) as u64;
        large_file(&context.join("file"), megabytes)?;
        std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY file /\n")?;
        let folder = self.sandbox.path("registry");
        floors::remove(&folder)?;
        let registry = Registry::start(&folder, false)?;
        let image = format!("{}/large:1", registry.host());
        let reader = self.sandbox.path("reader.Dockerfile");
        std::fs::write(&reader, format!("FROM {image}\nCOPY Dockerfile /\n"))?;
        let archive = self.sandbox.path("large.tar");
        let cases: [(&str, Vec<String>); 5] = [
            ("export uncompressed", vec![archive_output(&archive, "uncompressed")]),
            ("export gzip", vec![archive_output(&archive, "gzip")]),
            ("export zstd", vec![archive_output(&archive, "zstd")]),
            ("push gzip", vec![format!("--output=type=registry,name={image}")]),
            ("pull gzip", vec![format!("--file={}", reader.display())]),
        ];
        for (name, args) in cases {
            self.forget()?;
            let most = self.peak(&args, &context)?;
            println!("memory4g, {name:<20} {:>6} MB at most", most >> 20);
            floors::remove(&self.sandbox.path("state"))?;
            let _ = std::fs::remove_file(&archive);
        }
        floors::remove(&context)
    }

    /// The most memory a build had at once, in bytes. The kernel keeps it as long as the process
    /// lives, so it is looked at until the end.
    fn peak(&self, args: &[String], context: &std::path::Path) -> Result<u64> {
        let mut command = self.sandbox.wbuild(["build", "--quiet"])?;
        command.args(args).arg(context).stdout(std::process::Stdio::null());
        let mut child = command.spawn().context("cannot start wbuild")?;
        let mut most = 0;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            let text = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
            let line = text.ok().and_then(|text| {
                let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
                line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
            });
            most = most.max(line.unwrap_or(0) << 10);
            std::thread::sleep(Duration::from_millis(10));
        };
        anyhow::ensure!(status.success(), "wbuild {args:?} ended with {status}");
        Ok(most)
    }
}

fn archive_output(archive: &std::path::Path, compression: &str) -> String {
    format!("--output=type=oci,compression={compression},dest={}", archive.display())
}

/// Bytes of which a compressor saves about a half, in no long pattern.
fn large_file(path: &std::path::Path, megabytes: u64) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..megabytes << 17 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.write_all(&(state & 0x0f0f_0f0f_0f0f_0f0f).to_le_bytes())?;
    }
    Ok(out.flush()?)
}
