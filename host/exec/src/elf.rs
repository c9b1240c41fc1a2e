//! What kind of program a file is: enough of ELF (elf(5)) and of `#!` to say whether this machine
//! can run it.

use std::os::fd::BorrowedFd;

use wbuild_graph::Failure;

use crate::inroot;

/// Bytes of a file that are looked at.
const HEAD: usize = 4096;

/// Scripts whose interpreter is a script, at most (the kernel's own limit is 4).
const MAX_SCRIPTS: usize = 4;

/// What the head of a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// An ELF file for this machine (`x86_64`, `aarch64`, ..., or `machine-<n>`).
    Elf {
        /// As `uname -m` names it.
        machine: String,
        /// Asks for no dynamic loader.
        is_static: bool,
    },
    /// A script and its interpreter.
    Script(String),
    /// Anything else.
    Other,
}

/// Reads the head of a file.
pub fn format(head: &[u8]) -> Format {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
        let text = String::from_utf8_lossy(line);
        return match text.split_ascii_whitespace().next() {
            Some(interpreter) => Format::Script(interpreter.to_owned()),
            None => Format::Other,
        };
    }
    elf(head).unwrap_or(Format::Other)
}

fn elf(head: &[u8]) -> Option<Format> {
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let wide = match head.get(4)? {
        1 => false,
        2 => true,
        _ => return None,
    };
    let big = match head.get(5)? {
        1 => false,
        2 => true,
        _ => return None,
    };
    let number = |at: usize, len: usize| -> Option<u64> {
        let bytes = head.get(at..at.checked_add(len)?)?;
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if big { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) })
    };
    let machine = match (number(18, 2)?, wide, big) {
        (62, true, _) => "x86_64".to_owned(),
        (3, ..) => "i386".to_owned(),
        (183, _, false) => "aarch64".to_owned(),
        (40, _, false) => "arm".to_owned(),
        (243, true, _) => "riscv64".to_owned(),
        (21, _, false) => "ppc64le".to_owned(),
        (21, _, true) => "ppc64".to_owned(),
        (22, true, _) => "s390x".to_owned(),
        (258, true, _) => "loongarch64".to_owned(),
        (8, true, false) => "mips64el".to_owned(),
        (number, ..) => format!("machine-{number}"),
    };
    // Program headers: is there a PT_INTERP among them?
    let (offset, size, count) = if wide {
        (number(32, 8)?, number(54, 2)?, number(56, 2)?)
    } else {
        (number(28, 4)?, number(42, 2)?, number(44, 2)?)
    };
    let mut is_static = true;
    for index in 0..count {
        let at = offset.checked_add(index.checked_mul(size)?)?;
        match number(usize::try_from(at).ok()?, 4) {
            Some(3) => is_static = false,
            Some(_) => {}
            // Headers beyond what was read: it cannot be told, so do not promise.
            None => is_static = false,
        }
    }
    Some(Format::Elf { machine, is_static })
}

/// Describes the program a step starts, and if that is a script, its interpreter, and so on:
/// `elf:<machine>`, `script:<interpreter>`, `missing`, `other`. `path` is the step's `PATH`, used for
/// a name without a slash.
pub fn entry_format(
    root: BorrowedFd<'_>,
    program: &str,
    cwd: &str,
    path: &str,
) -> Result<Vec<String>, Failure> {
    let mut chain = Vec::new();
    let mut program = program.to_owned();
    for _ in 0..=MAX_SCRIPTS {
        let places: Vec<String> = if program.starts_with('/') {
            vec![program.clone()]
        } else if program.contains('/') {
            vec![format!("{cwd}/{program}")]
        } else {
            path.split(':').map(|dir| format!("{dir}/{program}")).collect()
        };
        let mut head = None;
        for place in places {
            // What cannot be opened is not the program, as for a shell that searches PATH.
            if let Ok(Some(found)) = inroot::read_head(root, &place, HEAD) {
                head = Some(found);
                break;
            }
        }
        let Some(head) = head else {
            chain.push("missing".to_owned());
            return Ok(chain);
        };
        match format(&head) {
            Format::Elf { machine, .. } => {
                chain.push(format!("elf:{machine}"));
                return Ok(chain);
            }
            Format::Script(interpreter) => {
                chain.push(format!("script:{interpreter}"));
                program = interpreter;
            }
            Format::Other => {
                chain.push("other".to_owned());
                return Ok(chain);
            }
        }
    }
    Ok(chain)
}

/// Whether a program of this machine needs no dynamic loader, so that it runs in any root.
pub fn is_static(program: &std::path::Path) -> bool {
    let head = std::fs::File::open(program).and_then(|file| {
        let mut head = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, HEAD as u64), &mut head)?;
        Ok(head)
    });
    head.is_ok_and(|head| matches!(format(&head), Format::Elf { is_static: true, .. }))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tells_programs_apart() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let Format::Elf { machine, is_static } = format(&own[..HEAD]) else { panic!("no ELF") };
        assert_eq!(machine, std::env::consts::ARCH);
        assert!(!is_static);
        assert_eq!(format(b"#!/bin/sh -e\nx"), Format::Script("/bin/sh".to_owned()));
        assert_eq!(format(b"#! /usr/bin/env python\n"), Format::Script("/usr/bin/env".to_owned()));
        for other in [&b"#!\n"[..], b"", b"\x7fELF", b"text"] {
            assert_eq!(format(other), Format::Other);
        }
    }

    #[test]
    fn follows_scripts_to_their_interpreter_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        std::fs::copy("/proc/self/exe", dir.path().join("usr/bin/real")).unwrap();
        std::os::unix::fs::symlink("/usr/bin/real", dir.path().join("usr/bin/sh")).unwrap();
        std::fs::write(dir.path().join("run"), "#!/usr/bin/sh\n").unwrap();
        std::fs::write(dir.path().join("lost"), "#!/no/where\n").unwrap();
        std::fs::write(dir.path().join("self"), "#!/self\n").unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let ask =
            |program: &str| entry_format(root.as_fd(), program, "/", "/bin:/usr/bin").unwrap();
        let elf = format!("elf:{}", std::env::consts::ARCH);
        assert_eq!(ask("sh"), [elf.as_str()]);
        assert_eq!(ask("./run"), ["script:/usr/bin/sh", elf.as_str()]);
        assert_eq!(ask("/lost"), ["script:/no/where", "missing"]);
        assert_eq!(ask("nothing"), ["missing"]);
        assert_eq!(ask("/self").len(), MAX_SCRIPTS + 1);
    }

    proptest! {
        #[test]
        fn any_head_is_described_without_panic(mut head: Vec<u8>, elf: bool, wide: bool) {
            if elf {
                head.splice(0..0, [0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1]);
            }
            let _ = format(&head);
        }
    }
}
