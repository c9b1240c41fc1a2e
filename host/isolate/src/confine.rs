//! What a child gives up before it looks at anything of the plugin's.
//!
//! Each part alone would do against most of what a taken-over guest could try; together they leave
//! it memory of its own, a clock, and the one socket. In order: stray descriptors are closed, limits
//! set, capabilities dropped, files put out of reach (Landlock), and last all system calls but those
//! of [`RUNNING`] (seccomp). Nothing of it can be taken back: `no_new_privs` is set.
//!
//! Compiled code must become executable, so `mprotect` to PROT_EXEC stays allowed, though never
//! together with PROT_WRITE. Who has taken over a guest runs code of their own anyway; what matters
//! is what it can reach.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::time::Duration;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use wbuild_graph::{Failure, FailureKind};

/// Writable memory of a child besides what its guest may have: engine, stacks, buffers.
const MEMORY: u64 = 96 << 20;
/// Addresses of a child. Memories of guests are reserved, 4 GiB each and guard pages, and mostly
/// never touched; this bounds what page tables can come to.
const ADDRESSES: u64 = 512 << 30;
/// Highest capability there may be (`CapabilitySet` has 64).
const CAPABILITIES: u32 = 64;

/// System calls of a child that runs a plugin or compiles one. Those with conditions are added in
/// [`filter`].
const RUNNING: &[i64] = &[
    // The socket, and what is mapped already.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_close,
    libc::SYS_lseek,
    // Memory; mmap and mprotect have conditions.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Its own threads, which may just have been started; none is started from now on.
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_sched_getaffinity,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals of its own: traps of guests are faults.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Clocks (processor time, the ticker) and random bytes for hash tables.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
];

/// System calls of a child that has yet to map the code it was given.
const LOADING: &[i64] = &[
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    // To go on to `Stage::Running`.
    libc::SYS_prctl,
    libc::SYS_seccomp,
];

/// How far a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It opens and maps the code, which is all that Landlock lets it open.
    Loading,
    /// It runs the guest, or the compiler.
    Running,
}

/// What a child may use.
#[derive(Clone, Copy, Debug)]
pub struct Resources {
    /// Memory of the guest and what is held for it, in bytes.
    pub memory: u64,
    /// Processor time of the whole process; none = what waits for it ends it.
    pub cpu: Option<Duration>,
}

/// What to do on a kernel without Landlock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutLandlock {
    /// Run nothing.
    #[default]
    Refuse,
    /// Rely on the rest.
    Accept,
}

/// What a failure says where this machine cannot confine a process.
pub const UNCONFINED: &str = "cannot confine a plugin's process";

fn failed(what: &str, error: &dyn std::fmt::Display) -> Failure {
    let mut failure = Failure::new(FailureKind::Unavailable, UNCONFINED);
    failure.causes.push(format!("{what}: {error}"));
    failure
}

/// Dies with the parent, leaves its terminal, and keeps no descriptors but the first three. To be
/// called before there is a second thread.
///
/// # Errors
///
/// When the parent is gone, or there is no /proc.
pub fn detach(parent: u32) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| failed("signal at the parent's death", &error))?;
    // It may have died before.
    let present = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if present.map(i64::from) != Some(i64::from(parent)) {
        return Err(failed("the parent", &"it is gone"));
    }
    rustix::process::setsid().map_err(|error| failed("session", &error))?;
    close_stray().map_err(|error| failed("stray descriptors", &error))
}

/// Closes what was inherited by oversight of whoever started wbuild.
#[allow(unsafe_code)]
fn close_stray() -> std::io::Result<()> {
    use std::os::fd::{FromRawFd as _, OwnedFd};
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        if let Some(fd) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) {
            open.push(fd);
        }
    }
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // SAFETY: looked at only, and only here.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        if rustix::io::fcntl_getfd(borrowed).is_ok() {
            // SAFETY: the process has begun just now and has opened nothing itself but the directory
            // that was listed, which is closed and therefore not open any more; nobody else owns
            // these descriptors.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    Ok(())
}

/// Sets limits and drops capabilities.
///
/// # Errors
///
/// When the kernel refuses one of them.
pub fn renounce(resources: Resources) -> Result<(), Failure> {
    let limit = |what: Resource, value: u64| {
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        setrlimit(what, limit).map_err(|error| failed("limits", &error))
    };
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Memlock, 0)?;
    limit(Resource::Msgqueue, 0)?;
    limit(Resource::Nofile, 16)?;
    lower(Resource::As, ADDRESSES)?;
    lower(Resource::Data, resources.memory.saturating_add(MEMORY))?;
    if let Some(cpu) = resources.cpu {
        // A second of grace, so that the signal that ends it is the one that says why.
        let seconds = cpu.as_secs().max(1);
        lower(Resource::Cpu, seconds.saturating_add(1))?;
        let maximum = rustix::process::getrlimit(Resource::Cpu).maximum;
        let current = Some(maximum.map_or(seconds, |maximum| maximum.min(seconds)));
        setrlimit(Resource::Cpu, Rlimit { current, maximum })
            .map_err(|error| failed("limits", &error))?;
    }
    for capability in 0..CAPABILITIES {
        let capability = CapabilitySet::from_bits_retain(1 << capability);
        // Without CAP_SETPCAP there is none to be had by it either: no program is run any more.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, none).map_err(|error| failed("capabilities", &error))?;
    rustix::thread::set_no_new_privs(true).map_err(|error| failed("no_new_privs", &error))
}

/// Sets a limit that may be lower already.
fn lower(what: Resource, value: u64) -> Result<(), Failure> {
    let before = rustix::process::getrlimit(what);
    let value = before.maximum.map_or(value, |maximum| maximum.min(value));
    let limit = Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(what, limit).map_err(|error| failed("limits", &error))
}

/// Puts all files out of reach but `code`, which may be opened for reading; all ports, and processes
/// and sockets outside. For the calling thread and those it starts.
///
/// # Errors
///
/// When the kernel does not do it, and that is not accepted.
pub fn landlock(code: Option<&File>, without: WithoutLandlock) -> Result<(), Failure> {
    let made = || -> Result<RulesetStatus, landlock::RulesetError> {
        let abi = ABI::V6;
        let rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))?
            .handle_access(AccessNet::from_all(abi))?
            .scope(Scope::from_all(abi))?
            .create()?;
        let rules = match code {
            Some(code) => rules.add_rule(PathBeneath::new(code, AccessFs::ReadFile))?,
            None => rules,
        };
        Ok(rules.restrict_self()?.ruleset)
    };
    match made() {
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => Ok(()),
        Ok(RulesetStatus::NotEnforced) if without == WithoutLandlock::Accept => Ok(()),
        Ok(RulesetStatus::NotEnforced) => Err(failed("Landlock", &"the kernel does not have it")
            .hint(
                "use Linux 5.13 or later with `landlock` among its lsm=, or, if the plugin is \
                 trusted, run it in this process: --isolate-plugins=none",
            )),
        Err(error) => Err(failed("Landlock", &error)),
    }
}

/// Denies all threads of the process every system call that a child at this stage does not make.
///
/// # Errors
///
/// When the kernel does not do it.
pub fn seccomp(stage: Stage) -> Result<(), Failure> {
    // Looks for the vDSO when it is first called, by system calls that are not made later.
    let _ = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let program = filter(stage).map_err(|error| failed("seccomp", &error))?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| failed("seccomp", &error))
}

fn filter(stage: Stage) -> Result<BpfProgram, seccompiler::Error> {
    use SeccompCmpOp::{Eq, MaskedEq};
    let when = |argument: u8, operator: SeccompCmpOp, value: i32| {
        let value = u64::from(value.cast_unsigned());
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
    };
    let without =
        |argument: u8, bits: i32| when(argument, MaskedEq(u64::from(bits.cast_unsigned())), 0);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        RUNNING.iter().map(|call| (*call, Vec::new())).collect();
    // Memory of its own, counted by RLIMIT_DATA: shared memory is not.
    let mmap = |not: i32| SeccompRule::new(vec![without(2, not)?, without(3, libc::MAP_SHARED)?]);
    rules.insert(libc::SYS_mmap, vec![mmap(libc::PROT_WRITE)?, mmap(libc::PROT_EXEC)?]);
    let mprotect = |not: i32| SeccompRule::new(vec![without(2, not)?]);
    rules.insert(libc::SYS_mprotect, vec![mprotect(libc::PROT_WRITE)?, mprotect(libc::PROT_EXEC)?]);
    // abort(3).
    let own = when(0, Eq, i32::try_from(std::process::id()).unwrap_or(0))?;
    let abort = SeccompRule::new(vec![own, when(2, Eq, libc::SIGABRT)?])?;
    rules.insert(libc::SYS_tgkill, vec![abort]);
    // Checked builds of the standard library look whether a descriptor that is closed was open.
    let mut fcntl = vec![SeccompRule::new(vec![when(1, Eq, libc::F_GETFD)?])?];
    let name = SeccompRule::new(vec![when(0, Eq, libc::PR_SET_NAME)?])?;
    rules.insert(libc::SYS_prctl, vec![name]);
    if stage == Stage::Loading {
        rules.extend(LOADING.iter().map(|call| (*call, Vec::new())));
        let writes = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE;
        let read = SeccompRule::new(vec![without(2, writes & !libc::O_DIRECTORY)?])?;
        rules.insert(libc::SYS_openat, vec![read]);
        fcntl.push(SeccompRule::new(vec![when(1, Eq, libc::F_DUPFD_CLOEXEC)?])?);
    }
    rules.insert(libc::SYS_fcntl, fcntl);
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?;
    Ok(BpfProgram::try_from(filter)?)
}

/// The descriptor at the place of standard output: what the child was given to read.
///
/// # Errors
///
/// When it cannot be duplicated.
pub(crate) fn given() -> Result<File, Failure> {
    let given = std::io::stdout().as_fd().try_clone_to_owned();
    given.map(File::from).map_err(|error| failed("what is to be read", &error))
}
