//! The whole output of a step, for displays that show only its end while it runs. Small output
//! stays in memory, the rest goes to a file without a name, which vanishes with this process.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// Up to here output stays in memory, in bytes.
const IN_MEMORY: usize = 256 << 10;

/// See the module.
#[derive(Debug, Default)]
pub struct Spool {
    memory: Vec<u8>,
    file: Option<File>,
    lost: bool,
}

impl Spool {
    /// Appends a line.
    pub fn line(&mut self, line: &[u8]) {
        if self.lost {
            return;
        }
        self.memory.extend_from_slice(line);
        self.memory.push(b'\n');
        if self.memory.len() > IN_MEMORY && self.spill().is_err() {
            // No room for a file: what is in memory is kept, what follows is not.
            self.lost = true;
        }
    }

    fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile()?),
        };
        file.write_all(&self.memory)?;
        self.memory.clear();
        Ok(())
    }

    /// Writes everything to `out`, with a note if something is missing.
    pub fn copy_to(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(0))?;
            let mut buffer = vec![0; 64 << 10];
            loop {
                let count = file.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                out.write_all(&buffer[..count])?;
            }
            file.seek(SeekFrom::End(0))?;
        }
        out.write_all(&self.memory)?;
        if self.lost {
            writeln!(out, "(the rest of the output is lost: no room for a temporary file)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_everything_in_order() {
        let mut spool = Spool::default();
        let mut want = Vec::new();
        for number in 0..20_000 {
            let line = format!("line {number} with some text behind it to make it longer");
            spool.line(line.as_bytes());
            want.extend_from_slice(line.as_bytes());
            want.push(b'\n');
        }
        assert!(spool.file.is_some(), "large output goes to a file");
        for _ in 0..2 {
            let mut got = Vec::new();
            spool.copy_to(&mut got).expect("copy");
            assert!(got == want);
        }
    }
}
