//! The hardened OCI runtime spec that every step starts from.
//!
//! [`ExecSpec`] says what a process is to see; [`base`] turns it into a spec whose root and mount
//! sources are tokens (`root`, `slot:<n>`), never paths: the launcher puts the paths in.
//!
//! Invariants:
//!
//! - Confined as Docker confines by default: the same 14 capabilities (bounding, effective,
//!   permitted; none inheritable or ambient), the same masked and read-only paths, an allow-list of
//!   system calls with the same effect ([`seccomp`]). `no_new_privileges` is off, as there, because
//!   `sudo` and `su` in builds need it off.
//! - No host path, no hook, no device, no change of the OOM score, no raised limit that was not
//!   asked for.
//! - The same `ExecSpec` gives the same spec, and [`to_json`] the same bytes.

pub mod bpf;
pub mod capabilities;
pub mod files;
pub mod late;
pub mod seccomp;

use std::path::PathBuf;

/// An OCI runtime spec.
pub use oci_spec::runtime::Spec;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxBuilder, LinuxCapabilities, LinuxCapabilitiesBuilder,
    LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
    ProcessBuilder, RootBuilder, SpecBuilder, UserBuilder,
};
use wbuild_graph::Failure;
use wbuild_graph::op::{Network, Security, Ulimit};

use crate::user::Identity;

/// Token of the root in a base spec.
pub const ROOT_TOKEN: &str = "root";

/// Docker's size of `/dev/shm` in bytes.
pub const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// Number of the group `tty` in every distribution.
const TTY: u32 = 5;

/// Token of the mount source with number `slot`.
pub fn slot_token(slot: u32) -> String {
    format!("slot:{slot}")
}

/// Something mounted for a step, besides the system mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSpec {
    /// Absolute path in the container.
    pub target: String,
    /// What is there.
    pub kind: MountKind,
}

/// Kinds of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// The source with this number; see [`crate::Step::slots`].
    Slot {
        /// Number of the source.
        slot: u32,
        /// Writes are refused.
        readonly: bool,
    },
    /// Memory.
    Tmpfs {
        /// In bytes; none = half of the machine's memory.
        size: Option<u64>,
        /// Permission bits; none = 1777.
        mode: Option<u32>,
    },
}

/// A user namespace of the step's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserNamespace {
    /// Ids inside, ids of the namespace the launcher runs in, how many. An extent must lie within
    /// one extent of the outer map (the kernel refuses others with `EPERM`).
    pub uids: Vec<IdMap>,
    /// The same for groups.
    pub gids: Vec<IdMap>,
}

/// One extent of an id map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// What a process is to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments; not empty.
    pub args: Vec<String>,
    /// In order; a later one of a name wins.
    pub env: Vec<(String, String)>,
    /// Absolute path; made if missing.
    pub cwd: String,
    /// Resolved; see [`crate::user`].
    pub user: Identity,
    /// Host name; not empty.
    pub hostname: String,
    /// `Sandbox` and `Host` share the network of the machine, `None` has loopback only.
    pub network: Network,
    /// `Insecure` holds every capability the launcher has, unfiltered and unmasked.
    pub security: Security,
    /// The root cannot be written.
    pub readonly_root: bool,
    /// In order; a later one hides an earlier one at or above its path.
    pub mounts: Vec<MountSpec>,
    /// Limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// Bytes of `/dev/shm`.
    pub shm_size: u64,
    /// Needed where the launcher itself runs in a user namespace, and for private emulation.
    pub user_namespace: Option<UserNamespace>,
    /// Architecture of the machine, as in platforms (`amd64`).
    pub architecture: String,
}

impl ExecSpec {
    /// A process with everything else at its default.
    pub fn new(args: Vec<String>) -> Self {
        ExecSpec {
            args,
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: Identity { home: "/".to_owned(), ..Identity::default() },
            hostname: "wbuild".to_owned(),
            network: Network::Sandbox,
            security: Security::Sandbox,
            readonly_root: false,
            mounts: Vec::new(),
            ulimits: Vec::new(),
            shm_size: DEFAULT_SHM_SIZE,
            user_namespace: None,
            architecture: wbuild_graph::Platform::host().architecture,
        }
    }
}

/// Hidden from confined processes, as in Docker.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Read-only for confined processes, as in Docker.
const READONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Builds the base spec. Fails on a path that is not absolute, a NUL byte, an empty argument list,
/// an unknown limit.
pub fn base(exec: &ExecSpec) -> Result<Spec, Failure> {
    if exec.args.is_empty() {
        return Err(Failure::invalid("a process needs at least a program to run"));
    }
    let confined = match exec.security {
        Security::Sandbox => true,
        // The latter is never run in a container.
        Security::Insecure | Security::Client => false,
    };
    let mut env = Vec::with_capacity(exec.env.len());
    for (name, value) in &exec.env {
        if name.is_empty() || name.contains('=') {
            return Err(Failure::invalid(format!("invalid environment variable name {name:?}")));
        }
        env.push(format!("{name}={value}"));
    }
    for text in exec.args.iter().chain(&env).chain([&exec.hostname]) {
        if text.contains('\0') {
            return Err(Failure::invalid(
                "an argument, variable or host name of a process contains a NUL byte",
            ));
        }
    }
    let user = UserBuilder::default()
        .uid(exec.user.uid)
        .gid(exec.user.gid)
        .additional_gids(exec.user.additional_gids.clone())
        .build()
        .expect("every field has a default");
    let mut process = ProcessBuilder::default()
        .terminal(false)
        .user(user)
        .args(exec.args.clone())
        .env(env)
        .cwd(PathBuf::from(absolute("working directory", &exec.cwd)?))
        .no_new_privileges(false)
        .capabilities(process_capabilities(exec, confined))
        .build()
        .expect("every field has a default");
    process.set_rlimits((!exec.ulimits.is_empty()).then(|| rlimits(exec)).transpose()?);

    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(exec))
        .masked_paths(if confined { paths(MASKED) } else { Vec::new() })
        .readonly_paths(if confined { paths(READONLY) } else { Vec::new() })
        .build()
        .expect("every field has a default");
    // The builder's default denies devices through a cgroup; steps have no cgroup of their own.
    linux.set_resources(None);
    if confined {
        let rules = seccomp::rules(&capabilities::DEFAULT, &exec.architecture);
        linux.set_seccomp(Some(seccomp::section(&rules, &exec.architecture)));
    }
    if let Some(namespace) = &exec.user_namespace {
        linux.set_uid_mappings(Some(mappings(&namespace.uids)));
        linux.set_gid_mappings(Some(mappings(&namespace.gids)));
    }

    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(
            RootBuilder::default()
                .path(ROOT_TOKEN)
                .readonly(exec.readonly_root)
                .build()
                .expect("every field has a default"),
        )
        .process(process)
        .hostname(exec.hostname.clone())
        .mounts(mounts(exec, confined)?)
        .linux(linux)
        .build()
        .expect("every field has a default");
    spec.set_annotations(None);
    Ok(spec)
}

/// The spec as JSON with sorted keys and capabilities, so that equal specs are equal bytes (the
/// specification's own types keep both in hash tables).
pub fn to_json(spec: &Spec) -> serde_json::Value {
    fn sort(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(map) => {
                map.sort_keys();
                map.values_mut().for_each(sort);
            }
            serde_json::Value::Array(list) => list.iter_mut().for_each(sort),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(spec).expect("a spec has only string keys");
    if let Some(sets) =
        value.pointer_mut("/process/capabilities").and_then(serde_json::Value::as_object_mut)
    {
        for set in sets.values_mut().filter_map(serde_json::Value::as_array_mut) {
            set.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
    }
    sort(&mut value);
    value
}

fn paths(list: &[&str]) -> Vec<String> {
    list.iter().map(|path| (*path).to_owned()).collect()
}

/// An absolute path without NUL. `..` is left to the runtime, which resolves inside the root.
fn absolute<'a>(what: &str, path: &'a str) -> Result<&'a str, Failure> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Failure::invalid(format!(
            "the {what} {path:?} of a process is no absolute path"
        ))
        .attr("path", path));
    }
    Ok(path)
}

fn process_capabilities(exec: &ExecSpec, confined: bool) -> LinuxCapabilities {
    let held: Capabilities = if confined {
        capabilities::DEFAULT.into_iter().collect()
    } else {
        own_capabilities().into_iter().collect()
    };
    // A process of another user starts with none in effect; it gets them through setuid programs.
    let effective = if exec.user.uid == 0 { held.clone() } else { Capabilities::new() };
    LinuxCapabilitiesBuilder::default()
        .bounding(held)
        .permitted(effective.clone())
        .effective(effective)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
        .expect("every field has a default")
}

/// What the calling process may pass on.
fn own_capabilities() -> Vec<Capability> {
    capabilities::BY_NUMBER
        .into_iter()
        .enumerate()
        .filter(|(number, _)| {
            rustix::thread::CapabilitySet::from_bits(1 << number).is_some_and(|bit| {
                rustix::thread::capabilities(None).is_ok_and(|sets| sets.permitted.contains(bit))
            })
        })
        .map(|(_, (_, capability))| capability)
        .collect()
}

fn namespaces(exec: &ExecSpec) -> Vec<LinuxNamespace> {
    let mut types = vec![
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ];
    match exec.network {
        Network::None => types.push(LinuxNamespaceType::Network),
        Network::Sandbox | Network::Host => {}
    }
    if exec.user_namespace.is_some() {
        types.push(LinuxNamespaceType::User);
    }
    types
        .into_iter()
        .map(|typ| {
            LinuxNamespaceBuilder::default().typ(typ).build().expect("every field has a default")
        })
        .collect()
}

fn mappings(maps: &[IdMap]) -> Vec<LinuxIdMapping> {
    maps.iter()
        .map(|map| {
            LinuxIdMappingBuilder::default()
                .container_id(map.inside)
                .host_id(map.outside)
                .size(map.count)
                .build()
                .expect("every field has a default")
        })
        .collect()
}

fn mount(target: &str, typ: &str, source: &str, options: &[&str]) -> Mount {
    MountBuilder::default()
        .destination(target)
        .typ(typ)
        .source(source)
        .options(options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
        .build()
        .expect("every field has a default")
}

fn mounts(exec: &ExecSpec, confined: bool) -> Result<Vec<Mount>, Failure> {
    let shm = format!("size={}", exec.shm_size);
    let sys = if confined { "ro" } else { "rw" };
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    // Terminals belong to the group tty, where there is such a group.
    let covers = |map: &IdMap| map.inside <= TTY && TTY - map.inside < map.count;
    if exec.user_namespace.as_ref().is_none_or(|n| n.gids.iter().any(covers)) {
        pts.push("gid=5");
    }
    let mut list = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &pts),
    ];
    // A new sysfs shows a network namespace and may be mounted only by its owner; a user namespace
    // without one of its own gets the view that exists.
    let foreign_network = exec.user_namespace.is_some() && exec.network != Network::None;
    list.push(if foreign_network {
        mount("/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", sys])
    } else {
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sys])
    });
    list.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    list.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]));
    for entry in &exec.mounts {
        let target = absolute("mount target", &entry.target)?;
        list.push(match &entry.kind {
            MountKind::Slot { slot, readonly } => {
                let access = if *readonly { "ro" } else { "rw" };
                mount(target, "bind", &slot_token(*slot), &["rbind", "rprivate", access])
            }
            MountKind::Tmpfs { size, mode } => {
                let mode = format!("mode={:o}", mode.unwrap_or(0o1777) & 0o7777);
                let size = size.map(|size| format!("size={size}"));
                let mut options = vec!["nosuid", "nodev", mode.as_str()];
                options.extend(size.as_deref());
                mount(target, "tmpfs", "tmpfs", &options)
            }
        });
    }
    Ok(list)
}

fn rlimits(exec: &ExecSpec) -> Result<Vec<PosixRlimit>, Failure> {
    let mut limits: Vec<PosixRlimit> = Vec::new();
    for ulimit in &exec.ulimits {
        let typ = match ulimit.name.as_str() {
            "as" => PosixRlimitType::RlimitAs,
            "core" => PosixRlimitType::RlimitCore,
            "cpu" => PosixRlimitType::RlimitCpu,
            "data" => PosixRlimitType::RlimitData,
            "fsize" => PosixRlimitType::RlimitFsize,
            "locks" => PosixRlimitType::RlimitLocks,
            "memlock" => PosixRlimitType::RlimitMemlock,
            "msgqueue" => PosixRlimitType::RlimitMsgqueue,
            "nice" => PosixRlimitType::RlimitNice,
            "nofile" => PosixRlimitType::RlimitNofile,
            "nproc" => PosixRlimitType::RlimitNproc,
            "rss" => PosixRlimitType::RlimitRss,
            "rtprio" => PosixRlimitType::RlimitRtprio,
            "rttime" => PosixRlimitType::RlimitRttime,
            "sigpending" => PosixRlimitType::RlimitSigpending,
            "stack" => PosixRlimitType::RlimitStack,
            other => {
                return Err(Failure::invalid(format!("unknown limit {other:?}"))
                    .hint("known: as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"));
            }
        };
        let value = |number: i64| match number {
            -1 => Ok(u64::MAX),
            number => u64::try_from(number).map_err(|_| {
                Failure::invalid(format!("limit {} of {number} is below -1", ulimit.name))
            }),
        };
        let (soft, hard) = (value(ulimit.soft)?, value(ulimit.hard)?);
        if soft > hard {
            return Err(Failure::invalid(format!(
                "soft limit of {} ({}) is above the hard one ({})",
                ulimit.name, ulimit.soft, ulimit.hard
            )));
        }
        // Runtimes refuse a repeated type; the later one is meant.
        limits.retain(|limit| limit.typ() != typ);
        limits.push(
            PosixRlimitBuilder::default()
                .typ(typ)
                .soft(soft)
                .hard(hard)
                .build()
                .expect("every field has a default"),
        );
    }
    Ok(limits)
}
