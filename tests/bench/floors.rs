//! The physical floor of a workload: the same work by the plainest means, on the same machine, in
//! the same run.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use wbuild_tests::run::Run;
use wbuild_tests::skip::find_program;

/// How long a program takes, from fork to wait.
fn program(command: &mut Command) -> Result<Duration> {
    let started = Instant::now();
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(started.elapsed())
}

/// One process.
pub fn process() -> Result<Duration> {
    program(&mut Command::new("true"))
}

/// Reading the metadata of every file of a tree.
pub fn stat_walk(root: &Path) -> Result<Duration> {
    let started = Instant::now();
    let mut folders = vec![root.to_owned()];
    let mut count = 0_u64;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            // One statx without following links, as `DirEntry` does it.
            if entry.metadata()?.is_dir() {
                folders.push(entry.path());
            }
            count += 1;
        }
    }
    ensure!(count > 0, "{} is empty", root.display());
    Ok(started.elapsed())
}

/// `cp -a` of a tree, or with `-l` hard links to it.
pub fn copy(from: &Path, to: &Path, links: bool) -> Result<Duration> {
    remove(to)?;
    let mut command = Command::new("cp");
    command.arg("-a");
    if links {
        command.arg("-l");
    }
    let took = program(command.arg(from).arg(to))?;
    remove(to)?;
    Ok(took)
}

/// `tar` of a tree into a file, through a compressor that uses all processors.
pub fn archive(from: &Path, to: &Path, compression: &str) -> Result<Duration> {
    let mut command = Command::new("tar");
    command.arg("-C").arg(from).arg("-cf").arg(to);
    match compression {
        "uncompressed" => {}
        "gzip" => {
            command.arg("-I").arg(if find_program("pigz").is_some() {
                "pigz -6"
            } else {
                "gzip -6"
            });
        }
        "zstd" => {
            command.arg("-I").arg("zstd -3 -T0");
        }
        other => bail!("no floor for {other}"),
    }
    program(command.arg("."))
}

/// So many small files, each written beside its place and renamed, and one sync of them all.
pub fn records(folder: &Path, count: usize) -> Result<Duration> {
    remove(folder)?;
    std::fs::create_dir_all(folder)?;
    let started = Instant::now();
    for number in 0..count {
        let part = folder.join(format!("{number}.part"));
        std::fs::write(&part, [7; 1_000])?;
        std::fs::rename(&part, folder.join(number.to_string()))?;
    }
    rustix::fs::syncfs(std::fs::File::open(folder)?)?;
    let took = started.elapsed();
    remove(folder)?;
    Ok(took)
}

/// The digest of a file.
pub fn hash(file: &Path) -> Result<Duration> {
    program(Command::new("sha256sum").arg(file).stdout(Stdio::null()))
}

/// A file through a gzip that uses all processors.
pub fn compress(file: &Path) -> Result<Duration> {
    let gzip = if find_program("pigz").is_some() { "pigz" } else { "gzip" };
    program(Command::new(gzip).args(["-6", "-c"]).arg(file).stdout(Stdio::null()))
}

/// So many bytes through a TCP connection to this machine, read and thrown away.
pub fn loopback(bytes: u64) -> Result<Duration> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let started = Instant::now();
    let writer = std::thread::spawn(move || -> std::io::Result<u64> {
        let mut to = std::net::TcpStream::connect(address)?;
        std::io::copy(&mut std::io::repeat(7).take(bytes), &mut to)
    });
    let (mut from, _) = listener.accept()?;
    let got = std::io::copy(&mut from, &mut std::io::sink())?;
    let sent = writer.join().map_err(|_| anyhow::anyhow!("the writer died"))??;
    ensure!(got == bytes && sent == bytes, "{got} of {bytes} bytes arrived");
    Ok(started.elapsed())
}

/// `tar` out of a compressed archive into a folder.
pub fn unpack(archive: &Path, to: &Path) -> Result<Duration> {
    remove(to)?;
    std::fs::create_dir_all(to)?;
    let took = program(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(to))?;
    remove(to)?;
    Ok(took)
}

/// The OCI runtime with the smallest container that runs `true`.
pub struct Runtime {
    folder: tempfile::TempDir,
}

impl Runtime {
    /// Makes the container's bundle. None where there is no crun, or no right to use it so.
    pub fn prepare() -> Result<Option<Runtime>> {
        let (Some(_), Some(busybox)) = (find_program("crun"), find_program("busybox")) else {
            return Ok(None);
        };
        let runtime = Runtime { folder: tempfile::tempdir()? };
        let root = runtime.folder.path().join("rootfs");
        for folder in ["bin", "proc", "dev", "sys"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        std::fs::copy(busybox, root.join("bin/true"))?;
        let mut spec: serde_json::Value = {
            let mut command = Command::new("crun");
            Run::of(command.arg("spec").current_dir(runtime.folder.path()))?.success()?;
            serde_json::from_slice(&std::fs::read(runtime.folder.path().join("config.json"))?)?
        };
        spec["process"]["args"] = serde_json::json!(["/bin/true"]);
        spec["process"]["terminal"] = false.into();
        spec["root"]["readonly"] = false.into();
        // Rules for devices make it load a program into the kernel, which not every root may.
        if let Some(linux) = spec["linux"].as_object_mut() {
            linux.shift_remove("resources");
        }
        // The network of the machine, as steps have it.
        if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "network");
        }
        std::fs::write(runtime.folder.path().join("config.json"), spec.to_string())?;
        match runtime.times(1) {
            Ok(_) => Ok(Some(runtime)),
            Err(error) => {
                println!("no floor for RUN steps: {error:#}");
                Ok(None)
            }
        }
    }

    /// Runs it `count` times, one after the other.
    pub fn times(&self, count: u32) -> Result<Duration> {
        // In a mount namespace of its own, where the control groups are those crun can use.
        let script = format!(
            "mount -t cgroup2 none /sys/fs/cgroup && cd {} && date +%s%N && \
             for i in $(seq {count}); do crun run bench-$$-$i || exit 1; done && date +%s%N",
            self.folder.path().display()
        );
        let run = Run::of(Command::new("unshare").args(["-m", "sh", "-c", &script]))?.success()?;
        let times: Vec<u64> = run.text()?.lines().filter_map(|line| line.parse().ok()).collect();
        let [before, after] = times[..] else { bail!("no times: {}", run.text()?) };
        Ok(Duration::from_nanos(after - before))
    }
}

/// Removes a tree if it is there.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
