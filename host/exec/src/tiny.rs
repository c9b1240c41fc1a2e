//! Programs of a few bytes, one for each architecture, that end with code 0: what a runtime, a handler
//! and an emulator are tried with where nothing else for the architecture is here.

use std::os::fd::OwnedFd;
use std::time::Duration;

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use wbuild_graph::{Failure, FailureKind};

use crate::fail::OrFail;
use crate::launcher::{Exit, Launcher, Step};
use crate::mounts::Source;

/// Where the program is in [`root`].
pub const PROGRAM: &str = "/probe";

/// How long it may take: emulators on a busy machine are slow to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// What makes a program of `exit(0)` an architecture's (gABI and the processor supplements).
struct Machine {
    /// As in platforms.
    architecture: &'static str,
    bits: u8,
    big_endian: bool,
    /// `e_machine`
    elf: u16,
    /// `e_flags`
    flags: u32,
    code: Code,
}

enum Code {
    Bytes(&'static [u8]),
    /// Instructions, in the machine's byte order.
    Words(&'static [u32]),
}

const MACHINES: [Machine; 10] = [
    Machine {
        architecture: "amd64",
        bits: 64,
        big_endian: false,
        elf: 62,
        flags: 0,
        // mov eax, 60; xor edi, edi; syscall
        code: Code::Bytes(&[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]),
    },
    Machine {
        architecture: "386",
        bits: 32,
        big_endian: false,
        elf: 3,
        flags: 0,
        // mov eax, 1; xor ebx, ebx; int 0x80
        code: Code::Bytes(&[0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80]),
    },
    Machine {
        architecture: "arm64",
        bits: 64,
        big_endian: false,
        elf: 183,
        flags: 0,
        // mov x8, #93; mov x0, #0; svc #0
        code: Code::Words(&[0xd280_0ba8, 0xd280_0000, 0xd400_0001]),
    },
    Machine {
        architecture: "arm",
        bits: 32,
        big_endian: false,
        elf: 40,
        // EABI 5
        flags: 0x0500_0000,
        // mov r7, #1; mov r0, #0; svc #0
        code: Code::Words(&[0xe3a0_7001, 0xe3a0_0000, 0xef00_0000]),
    },
    Machine {
        architecture: "riscv64",
        bits: 64,
        big_endian: false,
        elf: 243,
        flags: 0,
        // li a7, 93; li a0, 0; ecall
        code: Code::Words(&[0x05d0_0893, 0x0000_0513, 0x0000_0073]),
    },
    Machine {
        architecture: "ppc64le",
        bits: 64,
        big_endian: false,
        elf: 21,
        // ELFv2
        flags: 2,
        // li r0, 1; li r3, 0; sc
        code: Code::Words(&[0x3800_0001, 0x3860_0000, 0x4400_0002]),
    },
    Machine {
        architecture: "s390x",
        bits: 64,
        big_endian: true,
        elf: 22,
        flags: 0,
        // lghi %r2, 0; svc 1
        code: Code::Bytes(&[0xa7, 0x29, 0, 0, 0x0a, 1]),
    },
    Machine {
        architecture: "loong64",
        bits: 64,
        big_endian: false,
        elf: 258,
        // Double precision, object ABI 1
        flags: 0x43,
        // addi.w $a7, $zero, 93; addi.w $a0, $zero, 0; syscall 0
        code: Code::Words(&[0x0281_740b, 0x0280_0004, 0x002b_0000]),
    },
    Machine {
        architecture: "mips64le",
        bits: 64,
        big_endian: false,
        elf: 8,
        // MIPS64 release 2
        flags: 0x8000_0000,
        code: MIPS_N64,
    },
    Machine {
        architecture: "mips64",
        bits: 64,
        big_endian: true,
        elf: 8,
        flags: 0x8000_0000,
        code: MIPS_N64,
    },
];

/// li $v0, 5058; li $a0, 0; syscall
const MIPS_N64: Code = Code::Words(&[0x2402_13c2, 0x2404_0000, 0x0000_000c]);

/// An ELF file (elf(5)) with one segment and the code for `exit(0)`; `None` for an architecture that
/// this crate knows no code for.
fn program(architecture: &str) -> Option<Vec<u8>> {
    let machine = MACHINES.iter().find(|machine| machine.architecture == architecture)?;
    let mut file = Writer { out: Vec::new(), machine };
    let wide = machine.bits == 64;
    let headers: u64 = if wide { 64 + 56 } else { 52 + 32 };
    const BASE: u64 = 0x40_0000;
    let code: Vec<u8> = match machine.code {
        Code::Bytes(bytes) => bytes.to_vec(),
        Code::Words(words) => {
            let mut code = Writer { out: Vec::new(), machine };
            words.iter().for_each(|word| code.word(*word));
            code.out
        }
    };
    file.out.extend(b"\x7fELF");
    file.out.extend([machine.bits / 32, 1 + u8::from(machine.big_endian), 1]);
    file.out.extend([0; 9]);
    // Type (executable), machine, version.
    file.half(2);
    file.half(machine.elf);
    file.word(1);
    // Entry, program headers, no sections.
    for address in [BASE + headers, if wide { 64 } else { 52 }, 0] {
        file.address(address);
    }
    file.word(machine.flags);
    // Sizes and numbers of headers.
    for half in if wide { [64, 56, 1, 0, 0, 0] } else { [52, 32, 1, 0, 0, 0] } {
        file.half(half);
    }
    // The segment: loaded, readable and executable.
    file.word(1);
    if wide {
        file.word(5);
    }
    let size = headers + code.len() as u64;
    for address in [0, BASE, BASE, size, size] {
        file.address(address);
    }
    if !wide {
        file.word(5);
    }
    file.address(0x1000);
    file.out.extend(code);
    Some(file.out)
}

/// Numbers in the order of a machine.
struct Writer<'a> {
    out: Vec<u8>,
    machine: &'a Machine,
}

impl Writer<'_> {
    fn number(&mut self, value: u64, bytes: usize) {
        match self.machine.big_endian {
            true => self.out.extend(&value.to_be_bytes()[8 - bytes..]),
            false => self.out.extend(&value.to_le_bytes()[..bytes]),
        }
    }

    fn half(&mut self, value: u16) {
        self.number(value.into(), 2);
    }

    fn word(&mut self, value: u32) {
        self.number(value.into(), 4);
    }

    fn address(&mut self, value: u64) {
        self.number(value, usize::from(self.machine.bits / 8));
    }
}

/// A root in memory that holds one program for `architecture`, [`PROGRAM`]; `None` where this crate
/// knows none.
///
/// # Errors
///
/// This process may not make file systems.
pub fn root(architecture: &str) -> Result<Option<OwnedFd>, Failure> {
    let Some(program) = program(architecture) else { return Ok(None) };
    let attempt = "make a root in memory to try something with";
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).or_fail(attempt)?;
    rustix::mount::fsconfig_set_string(&context, "mode", "755").or_fail(attempt)?;
    rustix::mount::fsconfig_create(&context).or_fail(attempt)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let root = rustix::mount::fsmount(&context, flags, MountAttrFlags::empty()).or_fail(attempt)?;
    for name in ["dev", "proc", "sys"] {
        rustix::fs::mkdirat(&root, name, Mode::from_raw_mode(0o755)).or_fail(attempt)?;
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let name = PROGRAM.trim_start_matches('/');
    let file =
        rustix::fs::openat(&root, name, flags, Mode::from_raw_mode(0o755)).or_fail(attempt)?;
    std::io::Write::write_all(&mut std::fs::File::from(file), &program).or_fail(attempt)?;
    Ok(Some(root))
}

/// Runs what `spec` says in `root`, without output.
///
/// # Errors
///
/// It cannot be started, does not end, or ends with another code than 0.
pub async fn run(launcher: &Launcher, spec: Spec, root: Source) -> Result<(), Failure> {
    let null = || -> Result<OwnedFd, Failure> {
        let null = std::fs::OpenOptions::new().write(true).open("/dev/null");
        Ok(null.or_fail("open /dev/null")?.into())
    };
    let step = Step {
        spec,
        root,
        slots: Default::default(),
        stdout: null()?,
        stderr: null()?,
        keep: None,
    };
    match tokio::time::timeout(PATIENCE, launcher.run(step)).await {
        Ok(Ok(Exit { code: 0 })) => Ok(()),
        Ok(Ok(exit)) => Err(Failure::internal(format!("it ended with code {}", exit.code))),
        Ok(Err(failure)) => Err(failure),
        Err(_) => {
            let message = format!("it did not end within {} seconds", PATIENCE.as_secs());
            Err(Failure::new(FailureKind::Unavailable, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    /// QEMU reads the headers as the kernel does, and runs the code.
    #[test]
    fn programs_end_with_0_on_their_machines() {
        let qemu = |architecture| match architecture {
            "386" => "i386",
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            "loong64" => "loongarch64",
            "mips64le" => "mips64el",
            other => other,
        };
        let folder = tempfile::tempdir().expect("temporary directory");
        let search: Vec<std::path::PathBuf> = vec!["/usr/bin".into(), "/bin".into()];
        let mut ran = 0;
        for Machine { architecture, .. } in &MACHINES {
            let path = folder.path().join(architecture);
            let program = program(architecture).expect("it is known");
            std::fs::write(&path, &program).expect("file");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("file");
            let name = format!("qemu-{}-static", qemu(architecture));
            let mut command = match crate::runtime::find_program(&name, &search) {
                Some(emulator) => {
                    let mut command = Command::new(emulator);
                    command.arg(&path);
                    command
                }
                None if *architecture == wbuild_graph::Platform::host().architecture => {
                    Command::new(&path)
                }
                None => continue,
            };
            let status = command.status().expect("it starts");
            assert_eq!(status.code(), Some(0), "{architecture}");
            ran += 1;
        }
        assert!(ran > 0, "not even this machine's own program ran");
    }

    #[test]
    fn unknown_machines_have_none() {
        assert_eq!(program("sparc64"), None);
    }
}
