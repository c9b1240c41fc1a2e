//! Files whose blocks are allocated some way ahead of what is written.
//!
//! ext4 delays the allocation of blocks until it writes them to the disk, except that it allocates
//! and writes all of a file at once when that is renamed over another: a wait of 100 ms for 200 MB,
//! while nothing else goes on. What has its blocks already is not waited for. Outputs are not synced
//! either way: what a power cut takes is built again.

use std::fs::File;
use std::io::{self, Write};

use rustix::fs::FallocateFlags;

/// Smaller files are not worth it.
const FIRST: u64 = 4 << 20;
const MOST: u64 = 64 << 20;
/// See statfs(2).
const EXT4: u64 = 0xef53;

/// A new file that is written from its start.
pub(super) struct Allocating {
    file: File,
    written: u64,
    /// Up to where it has blocks; none: not done here.
    allocated: Option<u64>,
}

impl Allocating {
    pub(super) fn new(file: File) -> Allocating {
        #[allow(clippy::unnecessary_cast, reason = "its type depends on the architecture")]
        let ext4 = rustix::fs::fstatfs(&file).is_ok_and(|stat| stat.f_type as u64 == EXT4);
        Allocating { file, written: 0, allocated: ext4.then_some(0) }
    }

    /// Room for what comes next: as much as there is already.
    fn allocate(&mut self, next: u64) {
        let Some(allocated) = self.allocated else { return };
        let end = self.written + next;
        if end < FIRST || end <= allocated {
            return;
        }
        let room = (end - allocated).max(end.min(MOST));
        let done = rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, allocated, room);
        // Where it cannot be, a disk that is nearly full for one, there is still writing.
        self.allocated = done.is_ok().then_some(allocated + room);
    }
}

impl Write for Allocating {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.allocate(data.len() as u64);
        let count = self.file.write(data)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Allocating {
    fn drop(&mut self) {
        if self.allocated.is_some_and(|allocated| allocated > self.written) {
            // Gives back what was too much; until the file goes it is only space.
            let _ = self.file.set_len(self.written);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_file_holds_what_was_written_and_no_space_besides() {
        let directory = tempfile::tempdir().expect("a directory");
        for size in [0, 1, 3 << 20, 5 << 20, 9 << 20] {
            let path = directory.path().join(size.to_string());
            let mut out = Allocating::new(File::create_new(&path).expect("a file"));
            let data: Vec<u8> = (0..size).map(|at: usize| (at / 4096) as u8).collect();
            for piece in data.chunks(1 << 20) {
                out.write_all(piece).expect("written");
            }
            drop(out);
            let mut file = File::open(&path).expect("the file");
            let mut read = Vec::new();
            file.read_to_end(&mut read).expect("read");
            assert!(read == data, "{size}");
            file.sync_all().expect("synced");
            let blocks = file.metadata().expect("metadata").blocks() * 512;
            assert!(blocks <= size as u64 + (64 << 10), "{size}: {blocks}");
        }
    }
}
