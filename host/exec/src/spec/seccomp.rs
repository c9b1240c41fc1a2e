//! The system calls a confined process may make.
//!
//! An allow-list with the effect of Docker's default profile, resolved for a set of capabilities
//! and an architecture into rules that need no further conditions. Everything else answers `EPERM`.
//! Rules go two ways: as an OCI `linux.seccomp` section, and compiled ([`super::bpf`]) for runtimes
//! that take a finished filter, because compiling this list takes a runtime longer than starting
//! the container.

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// `EPERM`: what a refused call answers.
pub const EPERM: u32 = 1;
/// `ENOSYS`: makes the C library fall back to an older call.
pub const ENOSYS: u32 = 38;

/// `AF_VSOCK`: reaches a hypervisor around every network namespace.
const AF_VSOCK: u64 = 40;

/// The `CLONE_NEW*` flags that make namespaces (`NS CGROUP UTS IPC USER PID NET`).
const CLONE_NEW: u64 = 0x7e02_0000;

/// Allowed whatever the capabilities: names, separated by spaces.
const ALLOWED: &[&str] = &[
    // Files and directories.
    "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 \
     faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 \
     fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock \
     fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate \
     ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat ioctl lchown \
     lchown32 lgetxattr link linkat listxattr listxattrat llistxattr _llseek lremovexattr \
     lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat \
     open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read \
     readahead readlink readlinkat readv removexattr removexattrat rename renameat \
     renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs \
     statfs64 statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 \
     umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev",
    // Reading the mount table.
    "listmount statmount",
    // Watching and waiting.
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
     epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init \
     inotify_init1 inotify_rm_watch _newselect poll ppoll ppoll_time64 pselect6 \
     pselect6_time64 select signalfd signalfd4",
    // Asynchronous I/O of the first kind; io_uring is left out on purpose, as in Docker.
    "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup \
     io_submit ioprio_get ioprio_set",
    // Memory.
    "brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore \
     mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap \
     pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages",
    // Processes, threads and their attributes.
    "alarm capget capset execve execveat exit exit_group fork get_robust_list \
     get_thread_area getcpu getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups \
     getgroups32 getitimer getpgid getpgrp getpid getppid getpriority getresgid getresgid32 \
     getresuid getresuid32 getrlimit getrusage getsid gettid getuid getuid32 kill pause \
     pidfd_open pidfd_send_signal prctl prlimit64 restart_syscall rseq rt_sigaction \
     rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
     rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max \
     sched_get_priority_min sched_getaffinity sched_getattr sched_getparam \
     sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
     sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
     set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid \
     setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority \
     setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 \
     setrlimit setsid setuid setuid32 sigaltstack signal sigaction sigpending sigprocmask \
     sigreturn sigsuspend sysinfo tgkill times tkill ugetrlimit uname uretprobe vfork wait4 \
     waitid waitpid",
    // Locks between threads and processes.
    "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake ipc mq_getsetattr \
     mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
     mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop \
     semtimedop semtimedop_time64 shmat shmctl shmdt shmget",
    // Sockets; making one is a rule of its own.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom \
     recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown \
     socketcall socketpair",
    // Time. Setting the clock fails in the kernel without the capability.
    "adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
     clock_gettime64 clock_nanosleep clock_nanosleep_time64 gettimeofday nanosleep time \
     timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime \
     timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
     timerfd_settime64",
    // Confining oneself further.
    "landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp",
    // Debuggers and sanitizers; safe since Linux 4.8, which checks seccomp after the tracer.
    "process_vm_readv process_vm_writev ptrace",
    // Randomness.
    "getrandom",
];

/// Allowed on one architecture only.
const BY_ARCHITECTURE: &[(&str, &str)] = &[
    ("amd64", "arch_prctl modify_ldt"),
    ("386", "modify_ldt"),
    (
        "arm64",
        "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    ),
    ("arm", "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2"),
    ("ppc64le", "swapcontext sync_file_range2"),
    ("riscv64", "riscv_flush_icache riscv_hwprobe"),
    ("s390x", "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
];

/// Allowed with a capability.
const BY_CAPABILITY: &[(Capability, &str)] = &[
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog \
         umount umount2 unshare",
    ),
    (Capability::DacReadSearch, "open_by_handle_at"),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module finit_module init_module"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise"),
    (Capability::SysRawio, "iopl ioperm"),
    (Capability::SysTime, "clock_settime clock_settime64 settimeofday stime"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "perf_event_open"),
];

/// Values of personality(2): `PER_LINUX`, `PER_LINUX32`, each with `UNAME26`, and "tell me".
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// When a rule applies, by one argument of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The argument is this number.
    Is {
        /// Counted from 0.
        index: u32,
        /// All 64 bits.
        value: u64,
    },
    /// The argument, taken as the 32 bit `int` the kernel takes it for, is not this number.
    IsNot {
        /// Counted from 0.
        index: u32,
        /// 32 bits.
        value: u64,
    },
    /// None of these bits is set.
    Without {
        /// Counted from 0.
        index: u32,
        /// The bits.
        bits: u64,
    },
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Allow,
    /// It answers this errno.
    Errno(u32),
}

/// A rule for one system call. Several of one call: the first that applies decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As in the kernel's tables.
    pub name: &'static str,
    /// None = always.
    pub check: Option<Check>,
    /// What happens.
    pub verdict: Verdict,
}

/// The rules for a process with at most `capabilities` on an architecture (`amd64`, `arm64`, ...).
/// Sorted by name; a call without a rule that applies answers `EPERM`.
pub fn rules(capabilities: &[Capability], architecture: &str) -> Vec<Rule> {
    let allow = |names: &'static str| {
        let rule = |name| Rule { name, check: None, verdict: Verdict::Allow };
        names.split_ascii_whitespace().map(rule)
    };
    let mut rules: Vec<Rule> = ALLOWED.iter().copied().flat_map(allow).collect();
    for (own, names) in BY_ARCHITECTURE {
        if *own == architecture {
            rules.extend(allow(names));
        }
    }
    for (capability, names) in BY_CAPABILITY {
        if capabilities.contains(capability) {
            rules.extend(allow(names));
        }
    }
    let when = |name, check| Rule { name, check: Some(check), verdict: Verdict::Allow };
    rules.push(when("socket", Check::IsNot { index: 0, value: AF_VSOCK }));
    rules.extend(PERSONALITIES.map(|value| when("personality", Check::Is { index: 0, value })));
    if !capabilities.contains(&Capability::SysAdmin) {
        // s390 takes the flags second.
        let index = u32::from(architecture == "s390x");
        rules.push(when("clone", Check::Without { index, bits: CLONE_NEW }));
        // The flags of clone3 are behind a pointer, out of a filter's sight. ENOSYS sends the C
        // library to clone.
        rules.push(Rule { name: "clone3", check: None, verdict: Verdict::Errno(ENOSYS) });
    }
    rules.sort_by_key(|rule| rule.name);
    rules.dedup();
    rules
}

/// Architectures whose programs run on a machine of this one, its own first.
pub fn architectures(architecture: &str) -> Vec<Arch> {
    match architecture {
        "amd64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86],
        "386" => vec![Arch::ScmpArchX86],
        "arm64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        "arm" => vec![Arch::ScmpArchArm],
        "ppc64le" => vec![Arch::ScmpArchPpc64le],
        "riscv64" => vec![Arch::ScmpArchRiscv64],
        "s390x" => vec![Arch::ScmpArchS390x],
        "loong64" => vec![Arch::ScmpArchLoongarch64],
        _ => vec![Arch::ScmpArchNative],
    }
}

/// The rules as an OCI runtime spec's `linux.seccomp`.
pub fn section(rules: &[Rule], architecture: &str) -> LinuxSeccomp {
    let mut syscalls: Vec<LinuxSyscall> = Vec::new();
    let always: Vec<String> = rules
        .iter()
        .filter(|rule| rule.check.is_none() && rule.verdict == Verdict::Allow)
        .map(|rule| rule.name.to_owned())
        .collect();
    let entry = |names: Vec<String>, verdict: Verdict, args: Option<LinuxSeccompArg>| {
        let mut builder = LinuxSyscallBuilder::default().names(names);
        builder = match verdict {
            Verdict::Allow => builder.action(LinuxSeccompAction::ScmpActAllow),
            Verdict::Errno(errno) => {
                builder.action(LinuxSeccompAction::ScmpActErrno).errno_ret(errno)
            }
        };
        if let Some(arg) = args {
            builder = builder.args(vec![arg]);
        }
        builder.build().expect("every field has a default")
    };
    syscalls.push(entry(always, Verdict::Allow, None));
    for rule in rules {
        if rule.check.is_none() && rule.verdict == Verdict::Allow {
            continue;
        }
        let arg = rule.check.map(|check| {
            let builder = LinuxSeccompArgBuilder::default();
            match check {
                Check::Is { index, value } => {
                    builder.index(index as usize).value(value).op(LinuxSeccompOperator::ScmpCmpEq)
                }
                Check::IsNot { index, value } => {
                    builder.index(index as usize).value(value).op(LinuxSeccompOperator::ScmpCmpNe)
                }
                Check::Without { index, bits } => builder
                    .index(index as usize)
                    .value(bits)
                    .value_two(0u64)
                    .op(LinuxSeccompOperator::ScmpCmpMaskedEq),
            }
            .build()
            .expect("every field has a default")
        });
        syscalls.push(entry(vec![rule.name.to_owned()], rule.verdict, arg));
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(architectures(architecture))
        .syscalls(syscalls)
        .build()
        .expect("every field has a default")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::capabilities;

    #[test]
    fn what_breaks_out_needs_a_capability() {
        let default = rules(&capabilities::DEFAULT, "amd64");
        let plain = |name: &str| {
            default
                .iter()
                .any(|r| r.name == name && r.check.is_none() && r.verdict == Verdict::Allow)
        };
        let refused = "mount umount2 unshare setns bpf perf_event_open init_module finit_module \
             delete_module reboot kexec_load kexec_file_load open_by_handle_at move_mount \
             fsopen fsmount open_tree mount_setattr pivot_root swapon swapoff keyctl add_key \
             request_key io_uring_setup io_uring_enter io_uring_register userfaultfd iopl \
             ioperm acct settimeofday clock_settime sethostname setdomainname syslog quotactl \
             nfsservctl kcmp pidfd_getfd lookup_dcookie uselib ustat sysfs _sysctl clone \
             clone3 socket personality vhangup mbind fanotify_init";
        for name in refused.split_ascii_whitespace() {
            assert!(!plain(name), "{name} is allowed without condition");
        }
        for name in
            ["chroot", "mknod", "ptrace", "fork", "execve", "openat2", "statx", "arch_prctl"]
        {
            assert!(plain(name), "{name} is refused");
        }
        let admin = rules(&[Capability::SysAdmin], "amd64");
        for name in ["mount", "unshare", "clone", "clone3"] {
            assert!(admin.iter().any(|r| r.name == name && r.check.is_none()), "{name}");
        }
        assert!(!admin.iter().any(|r| r.name == "chroot"));
    }

    #[test]
    fn no_call_has_a_condition_and_an_unconditional_rule() {
        for architecture in ["amd64", "386", "arm64", "arm", "riscv64", "s390x", "ppc64le"] {
            for caps in [&capabilities::DEFAULT[..], &[Capability::SysAdmin]] {
                let rules = rules(caps, architecture);
                for pair in rules.windows(2) {
                    let clash = pair[0].name == pair[1].name
                        && (pair[0].check.is_none() || pair[1].check.is_none());
                    assert!(!clash, "{pair:?}");
                }
            }
        }
    }

    #[test]
    fn every_name_is_a_system_call_of_some_architecture() {
        use std::str::FromStr;
        let known = |name: &str| {
            syscalls::x86_64::Sysno::from_str(name).is_ok()
                || syscalls::x86::Sysno::from_str(name).is_ok()
                || syscalls::aarch64::Sysno::from_str(name).is_ok()
                || syscalls::arm::Sysno::from_str(name).is_ok()
                || syscalls::riscv64::Sysno::from_str(name).is_ok()
                || syscalls::s390x::Sysno::from_str(name).is_ok()
                || syscalls::powerpc64::Sysno::from_str(name).is_ok()
        };
        // ARM's private ones, which the compiler knows.
        let exempt = ["breakpoint", "cacheflush", "set_tls"];
        for architecture in ["amd64", "386", "arm64", "arm", "riscv64", "s390x", "ppc64le"] {
            for rule in rules(&capabilities::DEFAULT, architecture) {
                assert!(known(rule.name) || exempt.contains(&rule.name), "{}", rule.name);
            }
        }
    }
}
