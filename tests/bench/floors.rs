//! The physical floor of a workload: the same work by the plainest means, on the same machine, in
//! the same run.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
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

/// Removes a tree if it is there.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
