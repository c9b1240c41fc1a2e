//! A disk that can lose its power: an ext4 file system in an image file.
//!
//! The cut is the file system's own shutdown (`EXT4_IOC_SHUTDOWN` without a flush of the journal, as
//! xfstests cuts power): from that moment on nothing reaches the image, whatever the size, and what
//! only the page cache knew is lost. Mounting again replays the journal as a machine that starts
//! does. Needs root and loop devices.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::machine;
use crate::run::Run;

/// See the module. Unmounted and removed when dropped.
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// An empty one of so many bytes, of which only those in use take space.
    pub fn new(folder: &Path, bytes: u64) -> Result<Disk> {
        let (image, mount) = (folder.join("disk.img"), folder.join("disk"));
        std::fs::create_dir_all(&mount)?;
        File::create(&image)?.set_len(bytes)?;
        let options = "nodiscard,lazy_itable_init=1,lazy_journal_init=1";
        run("mkfs.ext4", &["-q", "-F", "-E", options, &image.to_string_lossy()])?;
        let disk = Disk { image, mount };
        disk.attach()?;
        Ok(disk)
    }

    /// Where its files are.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Everything written so far outlives a cut.
    pub fn sync(&self) -> Result<()> {
        Ok(rustix::fs::syncfs(File::open(&self.mount)?)?)
    }

    /// Cuts the power. Every later write fails.
    pub fn cut(&self) -> Result<()> {
        shutdown(&File::open(&self.mount)?).context("cannot shut the file system down")
    }

    /// What follows a cut: the machine starts and mounts the disk. Nothing may use it any more.
    pub fn restart(&self) -> Result<()> {
        run("umount", &[&self.mount.to_string_lossy()])?;
        // A mount namespace that anything else made meanwhile keeps the old file system, which would
        // be mounted again as it is: cut.
        machine::nothing_left(&self.mount.to_string_lossy())?;
        self.attach()
    }

    fn attach(&self) -> Result<()> {
        run("mount", &["-o", "loop", &self.image.to_string_lossy(), &self.mount.to_string_lossy()])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", &[&self.mount.to_string_lossy()]);
        let _ = std::fs::remove_file(&self.image);
        let _ = std::fs::remove_dir(&self.mount);
    }
}

/// A small file system in memory. Unmounted when dropped. Needs root.
pub struct Small(PathBuf);

impl Small {
    /// One with these options of tmpfs, such as `size=20m,nr_inodes=500`.
    pub fn new(at: &Path, options: &str) -> Result<Small> {
        std::fs::create_dir_all(at)?;
        run("mount", &["-t", "tmpfs", "-o", options, "small", &at.to_string_lossy()])?;
        Ok(Small(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", &self.0.to_string_lossy()]);
    }
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    Run::of(Command::new(program).args(args))?.success()?;
    Ok(())
}

#[allow(unsafe_code)]
fn shutdown(root: &File) -> rustix::io::Result<()> {
    use rustix::ioctl::{Setter, ioctl, opcode};
    const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
    const NO_LOG_FLUSH: u32 = 2;
    // SAFETY: the opcode is that of linux/ext4.h, which takes a pointer to a 32-bit number of flags
    // and only reads it.
    unsafe { ioctl(root, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) }
}
