//! Handlers for programs of other machines, in a binfmt_misc of the launcher's user namespace.
//!
//! Linux looks for one in the user namespace of whoever executes a program and in those around it, and
//! takes the first it finds (since 6.7). So steps see these, and nobody else does; they go with the
//! namespace.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use wbuild_graph::Failure;

use super::Handler;
use super::inner::{PLAIN, Step, attempt, mount};
use super::wire;
use crate::fail::OrFail;

const PLACE: &str = "/proc/sys/fs/binfmt_misc";

/// Opens the programs, in order.
pub(super) fn open(handlers: &[Handler]) -> Result<(Vec<wire::Handler>, Vec<OwnedFd>), Failure> {
    let mut told = Vec::new();
    let mut programs = Vec::new();
    for handler in handlers {
        check(handler)?;
        let program = fs::File::open(&handler.program)
            .or_fail(format_args!("open the emulator {}", handler.program.display()))?;
        programs.push(program.into());
        told.push(wire::Handler {
            name: handler.name.clone(),
            magic: handler.magic.clone(),
            mask: handler.mask.clone(),
            flags: handler.flags.clone(),
        });
    }
    Ok((told, programs))
}

/// What the kernel's line format could not carry.
fn check(handler: &Handler) -> Result<(), Failure> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if handler.name.is_empty() || !handler.name.bytes().all(plain) {
        return Err(Failure::invalid(format!("{:?} is no name for an emulator", handler.name)));
    }
    if handler.magic.is_empty() || handler.magic.len() != handler.mask.len() {
        return Err(Failure::invalid("the mask of an emulator is as long as its magic"));
    }
    if let Some(flag) = handler.flags.chars().find(|flag| !matches!(flag, 'O' | 'C' | 'P' | 'F')) {
        return Err(Failure::invalid(format!("unknown flag {flag:?} of an emulator")));
    }
    Ok(())
}

/// Mounts binfmt_misc and registers the handlers. `base` is a directory of this process's own.
pub(super) fn register(handlers: &[wire::Handler], programs: &[OwnedFd], base: &str) -> Step<()> {
    if handlers.is_empty() {
        return Ok(());
    }
    attempt(mount("binfmt_misc", PLACE, "binfmt_misc", PLAIN, ""), "mount binfmt_misc")?;
    for (handler, program) in handlers.iter().zip(programs) {
        let link = format!("{base}/{}", handler.name);
        let done = std::os::unix::fs::symlink(fd_path(program), &link)
            .and_then(|()| fs::write(format!("{PLACE}/register"), line(handler, &link)))
            .and_then(|()| fs::remove_file(&link));
        attempt(done, format!("register the emulator {}", handler.name))?;
    }
    Ok(())
}

fn fd_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// `:name:type:offset:magic:mask:interpreter:flags`. With `F` the program is opened now and found at
/// no path later.
fn line(handler: &wire::Handler, program: &str) -> String {
    let bytes = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("\\x{b:02x}")).collect() };
    let (magic, mask) = (bytes(&handler.magic), bytes(&handler.mask));
    let flags: String = handler.flags.chars().filter(|flag| *flag != 'F').collect();
    format!(":{}:M::{magic}:{mask}:{program}:{flags}F", handler.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_the_kernel_reads_them() {
        let handler = wire::Handler {
            name: "qemu-x".to_owned(),
            magic: b"\x7fELF:".to_vec(),
            mask: vec![0xff, 0, 1, 2, 3],
            flags: "OCF".to_owned(),
        };
        assert_eq!(
            line(&handler, "/run/qemu-x"),
            r":qemu-x:M::\x7f\x45\x4c\x46\x3a:\xff\x00\x01\x02\x03:/run/qemu-x:OCF"
        );
    }

    #[test]
    fn what_a_line_cannot_carry_is_refused() {
        let good = Handler {
            name: "a-b_1".to_owned(),
            program: "/bin/true".into(),
            magic: vec![1],
            mask: vec![1],
            flags: "OCPF".to_owned(),
        };
        assert_eq!(check(&good), Ok(()));
        for bad in [
            Handler { name: String::new(), ..good.clone() },
            Handler { name: "a:b".to_owned(), ..good.clone() },
            Handler { name: "../a".to_owned(), ..good.clone() },
            Handler { magic: Vec::new(), mask: Vec::new(), ..good.clone() },
            Handler { mask: vec![1, 2], ..good.clone() },
            Handler { flags: "D".to_owned(), ..good.clone() },
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }
}
