//! What a guest that has broken out of WebAssembly would try: native code in a confined process.
//!
//! `probe <number> <mode>` makes one attempt and ends with 0 if the kernel did what was asked, 1 if
//! it refused, 2 if there is no such attempt, 3 if the process could not be confined.

use std::ffi::OsString;

use libc::c_long;
use wbuild_isolate::confine::{self, Resources, Stage, WithoutLandlock};

/// An attempt: its name, the call, and its arguments.
type Attempt = (&'static str, c_long, [c_long; 6]);

fn text(text: &'static [u8]) -> c_long {
    text.as_ptr() as c_long
}

/// Some 50 ways out. Whichever of them succeeds leaves nothing behind: what is written has no name, what
/// is mounted has no place, what is signalled is not told.
fn attempts() -> Vec<Attempt> {
    let (passwd, program, tmp) = (text(b"/etc/passwd\0"), text(b"/bin/true\0"), text(b"/tmp\0"));
    let parent = rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get());
    let parent = c_long::from(parent);
    let none = text(b"\0");
    let buffer = Box::leak(Box::new([0u8; 4096])).as_mut_ptr() as c_long;
    let vector = Box::leak(Box::new([buffer, 16])).as_ptr() as c_long;
    let cwd = c_long::from(libc::AT_FDCWD);
    let here = c_long::from(std::process::id());
    vec![
        ("read a file", libc::SYS_openat, [cwd, passwd, 0, 0, 0, 0]),
        ("write a file", libc::SYS_openat, [cwd, tmp, 0o2020_0001, 0o600, 0, 0]),
        ("open a directory", libc::SYS_openat, [cwd, tmp, 0o200000, 0, 0, 0]),
        ("open by the newer call", libc::SYS_openat2, [cwd, passwd, buffer, 24, 0, 0]),
        ("look at a file", libc::SYS_newfstatat, [cwd, passwd, buffer, 0, 0, 0]),
        ("read a link", libc::SYS_readlinkat, [cwd, text(b"/proc/self/exe\0"), buffer, 99, 0, 0]),
        ("remove a file", libc::SYS_unlinkat, [cwd, text(b"/tmp/no-such\0"), 0, 0, 0, 0]),
        ("rename a file", libc::SYS_renameat2, [cwd, text(b"/tmp/no-such\0"), cwd, tmp, 0, 0]),
        ("make a directory", libc::SYS_mkdirat, [cwd, text(b"/tmp\0"), 0o700, 0, 0, 0]),
        ("change a mode", libc::SYS_fchmod, [1, 0o777, 0, 0, 0, 0]),
        ("a file in memory", libc::SYS_memfd_create, [none, 0, 0, 0, 0, 0]),
        ("an internet socket", libc::SYS_socket, [2, 1, 0, 0, 0, 0]),
        ("a local socket", libc::SYS_socket, [1, 1, 0, 0, 0, 0]),
        ("a pair of sockets", libc::SYS_socketpair, [1, 1, 0, buffer, 0, 0]),
        ("pass a descriptor", libc::SYS_sendmsg, [0, buffer, 0, 0, 0, 0]),
        ("connect", libc::SYS_connect, [0, buffer, 16, 0, 0, 0]),
        ("run a program", libc::SYS_execve, [program, 0, 0, 0, 0, 0]),
        ("run a program by descriptor", libc::SYS_execveat, [cwd, program, 0, 0, 0, 0]),
        ("fork", libc::SYS_clone, [17, 0, 0, 0, 0, 0]),
        ("fork by the newer call", libc::SYS_clone3, [buffer, 64, 0, 0, 0, 0]),
        ("a thread", libc::SYS_clone, [0x0001_0f00, 0, 0, 0, 0, 0]),
        ("new namespaces", libc::SYS_unshare, [0x1000_0000, 0, 0, 0, 0, 0]),
        ("another's namespaces", libc::SYS_setns, [0, 0, 0, 0, 0, 0]),
        ("mount", libc::SYS_mount, [none, text(b"/no-such\0"), text(b"tmpfs\0"), 0, 0, 0]),
        ("mount by the newer call", libc::SYS_fsopen, [text(b"tmpfs\0"), 0, 0, 0, 0, 0]),
        ("change the root", libc::SYS_chroot, [tmp, 0, 0, 0, 0, 0]),
        ("trace the parent", libc::SYS_ptrace, [16, parent, 0, 0, 0, 0]),
        ("read the parent's memory", libc::SYS_process_vm_readv, [parent, vector, 1, vector, 1, 0]),
        (
            "write the parent's memory",
            libc::SYS_process_vm_writev,
            [parent, vector, 1, vector, 1, 0],
        ),
        ("signal the parent", libc::SYS_kill, [parent, 0, 0, 0, 0, 0]),
        ("signal a thread of the parent", libc::SYS_tgkill, [parent, parent, 0, 0, 0, 0]),
        ("signal itself otherwise", libc::SYS_tgkill, [here, here, 0, 0, 0, 0]),
        ("a descriptor of the parent", libc::SYS_pidfd_open, [parent, 0, 0, 0, 0, 0]),
        ("limits of the parent", libc::SYS_prlimit64, [parent, 7, 0, buffer, 0, 0]),
        ("a BPF map", libc::SYS_bpf, [0, buffer, 72, 0, 0, 0]),
        ("io_uring", libc::SYS_io_uring_setup, [4, buffer, 0, 0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [1, 0, 0, 0, 0, 0]),
        ("performance counters", libc::SYS_perf_event_open, [buffer, 0, -1, -1, 0, 0]),
        ("the keyring", libc::SYS_keyctl, [0, -3, 1, 0, 0, 0]),
        ("shared memory", libc::SYS_shmget, [0, 4096, 0o1600, 0, 0, 0]),
        ("a message queue", libc::SYS_msgget, [0, 0o1600, 0, 0, 0, 0]),
        ("memory that others see", libc::SYS_mmap, [0, 4096, 3, 0x21, -1, 0]),
        ("memory to write and run", libc::SYS_mmap, [0, 4096, 7, 0x22, -1, 0]),
        ("dump memory", libc::SYS_prctl, [4, 1, 0, 0, 0, 0]),
        ("the machine's name", libc::SYS_uname, [buffer, 0, 0, 0, 0, 0]),
        ("read the kernel's log", libc::SYS_syslog, [3, buffer, 99, 0, 0, 0]),
        ("load a module", libc::SYS_finit_module, [0, none, 0, 0, 0, 0]),
        ("become another user", libc::SYS_setuid, [1000, 0, 0, 0, 0, 0]),
        ("wait for files", libc::SYS_inotify_init1, [0, 0, 0, 0, 0, 0]),
        ("a terminal's input", libc::SYS_ioctl, [0, 0x5412, none, 0, 0, 0]),
    ]
}

fn confined(mode: &str) -> Result<(), wbuild_graph::Failure> {
    let resources = Resources { memory: 64 << 20, cpu: None };
    match mode {
        "free" => Ok(()),
        // Files alone: what is left if the filter of system calls had a hole.
        "landlock" => {
            confine::renounce(resources)?;
            confine::landlock(None, WithoutLandlock::Refuse)
        }
        _ => {
            confine::renounce(resources)?;
            confine::landlock(None, WithoutLandlock::Accept)?;
            confine::seccomp(Stage::Running)
        }
    }
}

#[allow(unsafe_code)]
pub fn main(args: &[OsString]) -> i32 {
    let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    let [number, mode] = words[..] else { return 2 };
    if number == "memory" {
        // More than is allowed below, and not touched.
        let room = confined(mode).map(|()| Vec::<u8>::new().try_reserve_exact(600 << 20));
        return room.map_or(3, |room| i32::from(room.is_err()));
    }
    let attempts = attempts();
    let Some((name, call, a)) = number.parse().ok().and_then(|n: usize| attempts.get(n)) else {
        return 2;
    };
    if mode == "name" {
        println!("{name}");
        return 0;
    }
    if let Err(failure) = confined(mode) {
        eprintln!("{failure:?}");
        return 3;
    }
    // SAFETY: what the call does is the test; nothing of this process is used after it.
    let answer = unsafe { libc::syscall(*call, a[0], a[1], a[2], a[3], a[4], a[5]) };
    i32::from(answer < 0)
}
