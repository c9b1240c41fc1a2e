//! What this machine offers to builds, what it lacks, and the command that helps.
//!
//! [`Facts::gather`] looks; everything else is pure. Runners see a part of it
//! ([`Facts::features`]), `wbuild doctor` prints [`Facts::checks`].

use std::fs;
use std::path::PathBuf;

use wbuild_graph::{Attrs, Platform};

use crate::elf;
use crate::namespace::{self, Lack};
use crate::runtime::{RuntimeInfo, RuntimeKind, find_program};
use crate::spec::capabilities;

/// How control groups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// Version 2 only.
    V2,
    /// Version 1 only.
    V1,
    /// Both.
    Hybrid,
    /// Not at all.
    None,
}

impl Cgroups {
    /// Reads `/proc/mounts` (proc_pid_mounts(5)).
    pub fn of_mounts(mounts: &str) -> Cgroups {
        let kinds = |kind: &str| {
            mounts.lines().any(|line| line.split_ascii_whitespace().nth(2) == Some(kind))
        };
        match (kinds("cgroup"), kinds("cgroup2")) {
            (true, true) => Cgroups::Hybrid,
            (true, false) => Cgroups::V1,
            (false, true) => Cgroups::V2,
            (false, false) => Cgroups::None,
        }
    }

    /// For people and for runners.
    pub fn as_str(self) -> &'static str {
        match self {
            Cgroups::V2 => "v2",
            Cgroups::V1 => "v1",
            Cgroups::Hybrid => "hybrid",
            Cgroups::None => "none",
        }
    }
}

/// An emulator for another architecture's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emulator {
    /// As in platforms, e.g. `arm64`.
    pub architecture: String,
    /// As QEMU names it, e.g. `aarch64`.
    pub machine: String,
    /// Its program.
    pub path: PathBuf,
    /// Runs in any root.
    pub is_static: bool,
}

/// A handler the kernel has for programs of a kind (binfmt_misc).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    /// As registered.
    pub name: String,
    /// In use.
    pub enabled: bool,
    /// The program that is run.
    pub interpreter: String,
    /// Letters; `F` = usable inside containers, whatever their root holds.
    pub flags: String,
}

impl Handler {
    /// Reads a file of `/proc/sys/fs/binfmt_misc` (the kernel's admin-guide/binfmt-misc).
    pub fn parse(name: &str, text: &str) -> Option<Handler> {
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Some(Handler {
            name: name.to_owned(),
            enabled: text.lines().next()? == "enabled",
            interpreter: field("interpreter ")?.to_owned(),
            flags: field("flags:")?.to_owned(),
        })
    }
}

/// QEMU's name of a machine and the architecture as in platforms.
const EMULATED: [(&str, &str); 10] = [
    ("aarch64", "arm64"),
    ("arm", "arm"),
    ("i386", "386"),
    ("loongarch64", "loong64"),
    ("mips64", "mips64"),
    ("mips64el", "mips64le"),
    ("ppc64le", "ppc64le"),
    ("riscv64", "riscv64"),
    ("s390x", "s390x"),
    ("x86_64", "amd64"),
];

/// What is known of the machine.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Release of the kernel, e.g. `6.18.4`.
    pub kernel: String,
    /// Platforms whose programs run without help, best first.
    pub native: Vec<Platform>,
    /// This process is root.
    pub root: bool,
    /// The kernel has overlayfs.
    pub overlay: bool,
    /// overlayfs takes layers one by one (`lowerdir+`), hundreds of them; unknown where this process
    /// may not try.
    pub overlay_append: Option<bool>,
    /// Ordinary users may make user namespaces; otherwise why not.
    pub user_namespaces: Result<(), String>,
    /// `newuidmap`, `newgidmap` and lines for this user in `/etc/subuid` and `/etc/subgid`; otherwise
    /// what lacks.
    pub subordinate_ids: Result<(), Lack>,
    /// See [`Cgroups`].
    pub cgroups: Cgroups,
    /// Emulators that are installed, by architecture.
    pub emulators: Vec<Emulator>,
    /// The kernel has binfmt_misc.
    pub binfmt: bool,
    /// Handlers of the kernel, by name.
    pub handlers: Vec<Handler>,
    /// Where git is, which fetches repositories.
    pub git: Option<PathBuf>,
    /// Capabilities this process lacks, by number.
    pub lacking: Vec<&'static str>,
}

/// How good a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Good,
    /// Builds work, but less well, or some do not.
    Limited,
    /// Builds that run anything do not work.
    Missing,
}

/// A line of a check-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How good it is.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// Commands that help, each complete; the first whose program exists is the one to show.
    pub fixes: Vec<String>,
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

impl Facts {
    /// Looks at the machine. `search` are directories with programs. Runs nothing and mounts nothing:
    /// it is part of each build that runs a step.
    pub fn gather(search: &[PathBuf]) -> Facts {
        let filesystems = read("/proc/filesystems").unwrap_or_default();
        let overlay_append = try_append();
        let overlay = overlay_append.is_some()
            || filesystems.lines().any(|line| line.trim_end().ends_with("\toverlay"));
        let mask = rustix::thread::capabilities(None).map_or(0, |sets| sets.effective.bits());
        let last = read("/proc/sys/kernel/cap_last_cap")
            .and_then(|text| text.parse().ok())
            .unwrap_or(capabilities::BY_NUMBER.len() - 1);
        let held = capabilities::from_mask(mask);
        Facts {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            native: native(),
            root: rustix::process::geteuid().is_root(),
            overlay,
            overlay_append,
            user_namespaces: user_namespaces(read),
            subordinate_ids: namespace::subordinate_ids(search),
            cgroups: Cgroups::of_mounts(&read("/proc/mounts").unwrap_or_default()),
            emulators: emulators(search),
            binfmt: std::path::Path::new(BINFMT).is_dir(),
            handlers: handlers(),
            git: find_program("git", search),
            lacking: capabilities::BY_NUMBER
                .iter()
                .take(last + 1)
                .map(|(name, _)| *name)
                .filter(|name| !held.iter().any(|(have, _)| have == name))
                .collect(),
        }
    }

    /// The kernel's handler for programs of a platform, by the name QEMU's packages register.
    pub fn handler_for(&self, platform: &Platform) -> Option<&Handler> {
        let machines = EMULATED.iter().filter(|(_, arch)| *arch == platform.architecture);
        let names: Vec<String> = machines.map(|(machine, _)| format!("qemu-{machine}")).collect();
        self.handlers.iter().find(|h| h.enabled && names.contains(&h.name))
    }

    /// What a runner may know, without any path of the machine: the names of wit/runner, interface
    /// `machine`, each with the value `true` or absent.
    pub fn features(&self) -> Attrs {
        let mut attrs = Attrs::default();
        let userns = self.root || self.user_namespaces.is_ok();
        for (name, offered) in [
            ("rootless", !self.root),
            ("userns", userns),
            ("cgroup-v2", self.cgroups == Cgroups::V2),
            // Since 6.7.
            ("binfmt-userns", userns && self.binfmt && kernel_at_least(&self.kernel, 6, 7)),
            ("overlay", self.overlay),
            ("personality", true),
        ] {
            if offered {
                attrs.push(name, "true");
            }
        }
        attrs
    }

    /// The check-up, in the order in which things matter. `runtimes` are those found, best first.
    pub fn checks(&self, runtimes: &[RuntimeInfo]) -> Vec<Check> {
        let mut checks = vec![check_runtime(runtimes)];
        if let Some(warned) = runtimes.first().filter(|runtime| !runtime.warnings.is_empty()) {
            checks.push(Check {
                name: "runtime security",
                state: State::Limited,
                detail: warned.warnings.join("; "),
                fixes: install("crun", "crun"),
            });
        }
        checks.push(Check {
            name: "kernel",
            state: if kernel_at_least(&self.kernel, 5, 11) { State::Good } else { State::Missing },
            detail: format!("{} (5.11 or later is needed)", self.kernel),
            fixes: Vec::new(),
        });
        checks.push(match (self.overlay, self.overlay_append) {
            (true, Some(false)) => Check {
                name: "overlayfs",
                state: State::Limited,
                detail: "there, but not for images of very many layers (needs Linux 6.8)"
                    .to_owned(),
                fixes: Vec::new(),
            },
            (true, _) => Check {
                name: "overlayfs",
                state: State::Good,
                detail: "there".to_owned(),
                fixes: Vec::new(),
            },
            (false, _) => Check {
                name: "overlayfs",
                // The kernel may load it when it is first asked for, which only root can try here.
                state: if self.root { State::Missing } else { State::Limited },
                detail: "the kernel does not list it: builds need it".to_owned(),
                fixes: vec!["modprobe overlay".to_owned()],
            },
        });
        checks.push(self.check_namespaces());
        if !self.root {
            checks.push(match &self.subordinate_ids {
                Ok(()) => Check {
                    name: "subordinate ids",
                    state: State::Good,
                    detail: "newuidmap and ranges are there".to_owned(),
                    fixes: Vec::new(),
                },
                Err(why) => Check {
                    name: "subordinate ids",
                    state: State::Limited,
                    detail: format!("{why}: files of a build can have one owner only"),
                    fixes: match why {
                        Lack::Program(_) => install("uidmap", "shadow-utils"),
                        Lack::Range(_) => vec![
                            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \
                             \"$USER\""
                                .to_owned(),
                        ],
                    },
                },
            });
        }
        checks.push(Check {
            name: "cgroups",
            state: if self.cgroups == Cgroups::V2 { State::Good } else { State::Limited },
            detail: match self.cgroups {
                Cgroups::V2 => "version 2".to_owned(),
                other => format!(
                    "{}: steps run, limits on memory and processes do not apply",
                    other.as_str()
                ),
            },
            fixes: Vec::new(),
        });
        checks.push(self.check_emulators());
        checks.push(match &self.git {
            Some(path) => Check {
                name: "git",
                state: State::Good,
                detail: path.display().to_string(),
                fixes: Vec::new(),
            },
            None => Check {
                name: "git",
                state: State::Limited,
                detail: "not installed: git repositories cannot be fetched".to_owned(),
                fixes: install("git", "git"),
            },
        });
        if self.root {
            checks.push(self.check_capabilities());
        }
        checks
    }

    fn check_namespaces(&self) -> Check {
        match (&self.user_namespaces, self.root) {
            (Ok(()), _) => Check {
                name: "user namespaces",
                state: State::Good,
                detail: "allowed".to_owned(),
                fixes: Vec::new(),
            },
            (Err(why), root) => Check {
                name: "user namespaces",
                state: if root { State::Limited } else { State::Missing },
                detail: why.clone(),
                fixes: vec![
                    "sysctl -w user.max_user_namespaces=28633".to_owned(),
                    "sysctl -w kernel.unprivileged_userns_clone=1".to_owned(),
                    "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0".to_owned(),
                ],
            },
        }
    }

    fn check_emulators(&self) -> Check {
        let usable: Vec<&str> = self
            .emulators
            .iter()
            .filter(|e| e.is_static)
            .map(|e| e.architecture.as_str())
            .collect();
        let kernel: Vec<&str> = self
            .handlers
            .iter()
            .filter(|handler| handler.enabled && handler.flags.contains('F'))
            .map(|handler| handler.name.as_str())
            .collect();
        let native: Vec<String> = self.native.iter().map(ToString::to_string).collect();
        let mut detail = format!("native: {}", native.join(", "));
        if !usable.is_empty() {
            detail += &format!("; QEMU for {}", usable.join(", "));
        }
        if !kernel.is_empty() {
            detail += &format!("; handlers of the kernel: {}", kernel.join(", "));
        }
        let none = usable.is_empty() && kernel.is_empty();
        Check {
            name: "platforms",
            state: if none { State::Limited } else { State::Good },
            detail,
            fixes: if none { install("qemu-user-static", "qemu-user-static") } else { Vec::new() },
        }
    }

    fn check_capabilities(&self) -> Check {
        let needed = [
            "CAP_SYS_ADMIN",
            "CAP_SETUID",
            "CAP_SETGID",
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
        ];
        let missing = |names: &[&str]| names.iter().any(|name| self.lacking.contains(name));
        let useful =
            ["CAP_MKNOD", "CAP_SETFCAP", "CAP_SYS_RESOURCE", "CAP_SYS_CHROOT", "CAP_FSETID"];
        let state = if missing(&needed) {
            State::Missing
        } else if missing(&useful) {
            State::Limited
        } else {
            State::Good
        };
        let detail = if self.lacking.is_empty() {
            "all".to_owned()
        } else {
            format!("without {}", self.lacking.join(", "))
        };
        Check { name: "capabilities of root", state, detail, fixes: Vec::new() }
    }
}

/// The ways to install a package.
fn install(debian: &str, fedora: &str) -> Vec<String> {
    vec![format!("apt-get install -y {debian}"), format!("dnf install -y {fedora}")]
}

/// Compares `major.minor` of a kernel's release.
fn kernel_at_least(release: &str, major: u32, minor: u32) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(a)), Some(Ok(b))) => (a, b) >= (major, minor),
        _ => false,
    }
}

fn check_runtime(runtimes: &[RuntimeInfo]) -> Check {
    match runtimes {
        [] => Check {
            name: "runtime",
            state: State::Missing,
            detail: "neither crun nor runc is installed: nothing can be run".to_owned(),
            fixes: install("crun", "crun"),
        },
        [first, ..] => {
            let all: Vec<String> = runtimes
                .iter()
                .map(|r| format!("{} {} ({})", r.kind, r.version, r.path.display()))
                .collect();
            let slow = first.kind != RuntimeKind::Crun;
            Check {
                name: "runtime",
                state: if slow { State::Limited } else { State::Good },
                detail: all.join(", ")
                    + if slow { "; crun starts steps four times faster" } else { "" },
                fixes: if slow { install("crun", "crun") } else { Vec::new() },
            }
        }
    }
}

/// Asks overlayfs whether it knows the option; `None` where this process may not ask.
fn try_append() -> Option<bool> {
    let flags = rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC;
    let context = rustix::mount::fsopen("overlay", flags).ok()?;
    Some(rustix::mount::fsconfig_set_string(&context, "lowerdir+", "/").is_ok())
}

/// What this machine runs without help; see [`Facts::native`]. Cheap, unlike [`Facts::gather`].
pub fn native() -> Vec<Platform> {
    let cpu = read("/proc/cpuinfo").unwrap_or_default();
    let compat = fs::metadata("/proc/sys/abi/vsyscall32").is_ok();
    native_platforms(&Platform::host(), &cpu, compat)
}

/// Platforms that run without help: the machine's own, higher variants its processor has, and its
/// 32 bit mode.
fn native_platforms(host: &Platform, cpuinfo: &str, compat: bool) -> Vec<Platform> {
    let mut platforms = vec![host.clone()];
    if host.architecture == "amd64" {
        let flags: Vec<&str> = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("flags")?.split_once(':'))
            .map(|(_, flags)| flags.split_ascii_whitespace().collect())
            .unwrap_or_default();
        // The x86-64 psABI's micro-architecture levels, in the kernel's spelling.
        let levels: [(&str, &[&str]); 3] = [
            ("v2", &["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"]),
            ("v3", &["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"]),
            ("v4", &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]),
        ];
        for (variant, needs) in levels {
            if !needs.iter().all(|need| flags.contains(need)) {
                break;
            }
            platforms.push(Platform::new("linux", "amd64", Some(variant)));
        }
        if compat {
            platforms.push(Platform::new("linux", "386", None));
        }
    }
    platforms
}

fn user_namespaces(read: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    let is = |path: &str, value: &str| read(path).as_deref() == Some(value);
    if read("/proc/sys/user/max_user_namespaces").is_none() {
        return Err("the kernel has none".to_owned());
    }
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return Err("user.max_user_namespaces is 0".to_owned());
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return Err("kernel.unprivileged_userns_clone is 0".to_owned());
    }
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return Err("kernel.apparmor_restrict_unprivileged_userns is 1".to_owned());
    }
    Ok(())
}

fn emulators(search: &[PathBuf]) -> Vec<Emulator> {
    EMULATED
        .iter()
        .filter_map(|(machine, architecture)| {
            let path = find_program(&format!("qemu-{machine}-static"), search)
                .or_else(|| find_program(&format!("qemu-{machine}"), search))?;
            let is_static = elf::is_static(&path);
            Some(Emulator {
                architecture: (*architecture).to_owned(),
                machine: (*machine).to_owned(),
                path,
                is_static,
            })
        })
        .collect()
}

/// Where binfmt_misc is mounted; a directory once the kernel has it.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

fn handlers() -> Vec<Handler> {
    let dir = BINFMT;
    let mut handlers: Vec<Handler> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            if matches!(name.as_str(), "register" | "status") {
                return None;
            }
            Handler::parse(&name, &read(&format!("{dir}/{name}"))?)
        })
        .collect();
    handlers.sort_by(|a, b| a.name.cmp(&b.name));
    handlers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_how_cgroups_are_mounted() {
        let v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n";
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(Cgroups::of_mounts(v1), Cgroups::V1);
        assert_eq!(Cgroups::of_mounts(v2), Cgroups::V2);
        assert_eq!(Cgroups::of_mounts(&format!("{v1}{v2}")), Cgroups::Hybrid);
        assert_eq!(Cgroups::of_mounts("cgroup2 /cgroup ext4 rw 0 0\n"), Cgroups::None);
    }

    #[test]
    fn reads_handlers_of_the_kernel() {
        let text = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OPF\noffset 0\nmagic 7f45\nmask ff\n";
        let handler = Handler::parse("qemu-aarch64", text).unwrap();
        assert!(handler.enabled && handler.flags == "OPF");
        assert_eq!(handler.interpreter, "/usr/bin/qemu-aarch64-static");
        assert_eq!(Handler::parse("status", "enabled\n"), None);
    }

    #[test]
    fn knows_what_runs_natively() {
        let host = Platform::new("linux", "amd64", None);
        let v3 = "processor : 0\nflags\t\t: cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave\n";
        let names = |cpu: &str, compat| -> Vec<String> {
            native_platforms(&host, cpu, compat).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            names(v3, true),
            ["linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/386"]
        );
        assert_eq!(names("", false), ["linux/amd64"]);
        assert!(kernel_at_least("6.18.44-fc", 6, 7) && !kernel_at_least("6.1.0-13-amd64", 6, 7));
        assert!(kernel_at_least("7.0", 6, 7) && !kernel_at_least("x", 1, 0));
    }

    #[test]
    fn says_why_user_namespaces_are_off() {
        let with = |name: &'static str, value: &'static str| {
            user_namespaces(move |path| {
                if path.ends_with(name) {
                    Some(value.to_owned())
                } else {
                    path.ends_with("max_user_namespaces").then(|| "100".to_owned())
                }
            })
        };
        assert!(with("max_user_namespaces", "0").is_err());
        assert!(with("unprivileged_userns_clone", "0").is_err());
        assert!(with("apparmor_restrict_unprivileged_userns", "1").is_err());
        assert!(with("unprivileged_userns_clone", "1").is_ok());
    }

    #[test]
    fn every_shortcoming_has_a_state_and_the_gravest_a_fix() {
        let nothing = Facts {
            kernel: "6.1.0".to_owned(),
            native: vec![Platform::host()],
            root: false,
            overlay: false,
            overlay_append: None,
            user_namespaces: Err("off".to_owned()),
            subordinate_ids: Err(Lack::Program("newuidmap")),
            cgroups: Cgroups::Hybrid,
            emulators: Vec::new(),
            binfmt: true,
            handlers: Vec::new(),
            git: None,
            lacking: vec!["CAP_SYS_RESOURCE"],
        };
        let checks = nothing.checks(&[]);
        for check in &checks {
            let fixable = !matches!(check.name, "kernel" | "cgroups");
            assert_eq!(!check.fixes.is_empty(), fixable, "{check:?}");
        }
        assert_eq!(checks[0].state, State::Missing);
        let no_range = Err(Lack::Range("/etc/subuid has no line for this user".to_owned()));
        let checks = Facts { subordinate_ids: no_range, ..nothing.clone() }.checks(&[]);
        let ids = checks.iter().find(|check| check.name == "subordinate ids").unwrap();
        assert!(ids.detail.contains("/etc/subuid") && ids.fixes[0].contains("usermod"), "{ids:?}");
        let root = Facts { root: true, ..nothing };
        let offered: Vec<(String, String)> = root.features().0;
        let offered: Vec<&str> = offered.iter().map(|(name, _)| name.as_str()).collect();
        assert!(root.checks(&[]).iter().any(|c| c.detail.contains("CAP_SYS_RESOURCE")));
        assert_eq!(offered, ["userns", "personality"]);
        let newer = Facts { kernel: "6.7.0".to_owned(), ..root }.features();
        assert_eq!(newer.get("binfmt-userns"), Some("true"));
        let here = Facts::gather(&["/usr/bin".into(), "/usr/sbin".into(), "/bin".into()]);
        assert!(!here.checks(&[]).is_empty() && here.native.contains(&Platform::host()));
    }
}
