//! Commands run by somebody with fewer rights than root of the machine: an ordinary user, or root of
//! a container with a user namespace. Needs root to set up.
//!
//! Both find wbuild and what tests share below `/mnt`, of a mount namespace of their own: so it does
//! not matter where this folder lies, and nothing of the machine is changed, not even the lines of
//! `/etc/subuid`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::run::Run;
use crate::sandbox::Sandbox;
use crate::skip;

/// wbuild, as these commands see it.
pub const WBUILD: &str = "/mnt/wbuild";
/// [`crate::scratch`], as these commands see it.
const SCRATCH: &str = "/mnt/e2e";

/// The user, whom no machine has.
pub const USER: u32 = 61_000;
/// The first of the ids that are the user's besides its own, or of those of a container.
pub const RANGE: u32 = 2_000_000;
/// How many there are.
const IDS: u32 = 65_536;

/// Who runs a command.
#[derive(Clone, Copy, Debug)]
pub enum Who {
    /// An ordinary user.
    User {
        /// There are lines in `/etc/subuid` and `/etc/subgid`.
        ranges: bool,
    },
    /// Root of a container.
    Container(Container),
}

/// A container as engines make it, with a user namespace: 14 capabilities, parts of `/proc` hidden,
/// the default seccomp profile. But for what is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Container {
    /// `CAP_SYS_ADMIN`, in its user namespace.
    pub admin: bool,
    /// All of `/proc` is visible.
    pub unmasked: bool,
    /// Docker's default seccomp profile. Without it there is none.
    pub filtered: bool,
    /// Ids it has.
    pub ids: u32,
}

impl Default for Container {
    fn default() -> Container {
        Container { admin: true, unmasked: false, filtered: true, ids: IDS }
    }
}

/// Gives up all but `/mnt/e2e` and `/mnt/wbuild`, as one argument after the other says.
const SET_UP: &str = "set -e\n\
    mount -t tmpfs -o mode=755 none /mnt\n\
    mkdir /mnt/e2e\n\
    : > /mnt/wbuild\n\
    mount --bind \"$1\" /mnt/e2e\n\
    mount --bind \"$2\" /mnt/wbuild\n\
    shift 2\n";

/// `passwd`, ids, folder, then the command.
const AS_USER: &str = "mount --bind \"$1\" /etc/passwd\n\
    mount --bind \"$2\" /etc/subuid\n\
    mount --bind \"$2\" /etc/subgid\n\
    cd \"$3\"\n\
    shift 3\n\
    exec setpriv --reuid=61000 --regid=61000 --clear-groups \"$@\"\n";

/// The bundle, and the container's name. crun does not like control groups of two versions.
const AS_CONTAINER: &str = "mount -t tmpfs none /sys/fs/cgroup\n\
    exec crun --root /mnt/crun --cgroup-manager=disabled run --bundle \"$1\" \"$2\"\n";

/// A sandbox's files become those of whoever it is, and all of it is seen at another place.
pub struct Unprivileged<'a> {
    sandbox: &'a Sandbox,
    who: Who,
}

impl<'a> Unprivileged<'a> {
    /// Gives the sandbox away.
    pub fn new(sandbox: &'a Sandbox, who: Who) -> Result<Unprivileged<'a>> {
        skip::need_root()?;
        let owner = match who {
            Who::User { .. } => USER,
            Who::Container(_) => RANGE,
        };
        let mut command = Command::new("chown");
        command.arg("-R").arg(format!("{owner}:{owner}")).arg(sandbox.folder());
        Run::of(&mut command)?.success()?;
        Ok(Unprivileged { sandbox, who })
    }

    /// A path below [`crate::scratch`] as it is seen there.
    pub fn path(&self, path: &Path) -> Result<String> {
        let below = path.strip_prefix(crate::scratch()?)?;
        Ok(Path::new(SCRATCH).join(below).to_str().context("a path is not UTF-8")?.to_owned())
    }

    /// A command, in the sandbox's folder and with no environment but PATH and HOME.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Command> {
        let folder = self.path(self.sandbox.folder())?;
        let home = format!("HOME={folder}/home");
        let path = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";
        let mut command = Command::new(skip::need_program("unshare")?);
        command.args(["--mount", "sh", "-c"]);
        let mut prepared = |script: &str| -> Result<()> {
            command.arg(format!("{SET_UP}{script}")).arg("sh");
            command.arg(crate::scratch()?).arg(crate::wbuild_program()?);
            Ok(())
        };
        match self.who {
            Who::User { ranges } => {
                skip::need_program("setpriv")?;
                skip::need_program("newuidmap")?;
                prepared(AS_USER)?;
                let write = |name: &str, text: String| -> Result<PathBuf> {
                    let path = self.sandbox.path(name);
                    std::fs::write(&path, text)?;
                    Ok(path)
                };
                let known = std::fs::read_to_string("/etc/passwd")?;
                let line = format!("builder:x:{USER}:{USER}::/nonexistent:/bin/sh\n");
                let ids = if ranges { format!("builder:{RANGE}:{IDS}\n") } else { String::new() };
                command.arg(write("passwd", known + &line)?).arg(write("ids", ids)?);
                command.args([folder.as_str(), "env", "-i", path, &home]).args(args);
            }
            Who::Container(container) => {
                skip::need_program("crun")?;
                prepared(AS_CONTAINER)?;
                let args = args.into_iter().map(|arg| arg.as_ref().to_string_lossy().into_owned());
                let mut spec = container.spec()?;
                spec["process"]["args"] = args.collect();
                spec["process"]["env"] = json!([path, home]);
                spec["process"]["cwd"] = json!(folder);
                let bundle = self.sandbox.path("bundle");
                container.write_root(&bundle.join("root"), &mut spec)?;
                std::fs::write(bundle.join("config.json"), spec.to_string())?;
                command.arg(self.path(&bundle)?).arg("wbuild-test");
            }
        }
        Ok(command)
    }
}

impl Container {
    /// An OCI runtime spec but for the command.
    fn spec(&self) -> Result<Value> {
        let mut capabilities = vec![
            "CAP_AUDIT_WRITE",
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_FSETID",
            "CAP_KILL",
            "CAP_MKNOD",
            "CAP_NET_BIND_SERVICE",
            "CAP_NET_RAW",
            "CAP_SETFCAP",
            "CAP_SETGID",
            "CAP_SETPCAP",
            "CAP_SETUID",
            "CAP_SYS_CHROOT",
        ];
        if self.admin {
            capabilities.push("CAP_SYS_ADMIN");
        }
        let (masked, readonly) = if self.unmasked { (json!([]), json!([])) } else { hidden() };
        let ids = json!([{ "containerID": 0, "hostID": RANGE, "size": self.ids }]);
        let mut terminals = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
        if self.ids > 5 {
            terminals.push("gid=5");
        }
        let plain = ["nosuid", "noexec", "nodev"];
        Ok(json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "noNewPrivileges": false,
                "capabilities": {
                    "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                },
            },
            "root": { "path": "root" },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc", "options": plain },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                  "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                  "options": terminals },
                { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                  "options": ["nosuid", "noexec", "nodev", "mode=1777"] },
                { "destination": "/sys", "type": "sysfs", "source": "sysfs",
                  "options": ["nosuid", "noexec", "nodev", "ro"] },
                { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
                  "options": ["nosuid", "nodev", "mode=1777"] },
                { "destination": SCRATCH, "type": "bind", "source": SCRATCH,
                  "options": ["rbind", "rprivate"] },
                { "destination": WBUILD, "type": "bind", "source": WBUILD,
                  "options": ["rbind", "rprivate", "ro"] },
            ],
            "linux": {
                "namespaces": [
                    { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" },
                    { "type": "cgroup" }, { "type": "network" }, { "type": "user" },
                ],
                "uidMappings": ids,
                "gidMappings": ids,
                "maskedPaths": masked,
                "readonlyPaths": readonly,
                "seccomp": if self.filtered { self.seccomp(&capabilities)? } else { Value::Null },
            },
        }))
    }

    /// The default profile of Podman, which every tool of its family brings along; made as strict as
    /// Docker's: what makes namespaces and mounts is for `CAP_SYS_ADMIN`.
    fn seccomp(&self, capabilities: &[&str]) -> Result<Value> {
        const PROFILE: &str = "/usr/share/containers/seccomp.json";
        let Ok(text) = std::fs::read(PROFILE) else {
            return skip::skip(format!("there is no {PROFILE}"));
        };
        let profile: Value = serde_json::from_slice(&text).context(PROFILE)?;
        let has = |rule: &Value, kind: &str| -> Vec<bool> {
            let wanted = rule[kind]["caps"].as_array().into_iter().flatten();
            wanted.map(|cap| capabilities.iter().any(|have| cap == have)).collect()
        };
        let refused = |name: &Value| !self.admin && ADMINS.iter().any(|admins| name == admins);
        let mut rules = Vec::new();
        for rule in profile["syscalls"].as_array().into_iter().flatten() {
            let arches = rule["includes"]["arches"].as_array();
            if arches.is_some_and(|arches| !arches.iter().any(|arch| arch == "amd64"))
                || has(rule, "includes").contains(&false)
                || has(rule, "excludes").contains(&true)
            {
                continue;
            }
            let names = rule["names"].as_array().into_iter().flatten();
            let names: Vec<&Value> = names.filter(|name| !refused(name)).collect();
            let mut made = json!({ "names": names, "action": rule["action"] });
            for key in ["args", "errnoRet"] {
                if !rule[key].is_null() {
                    made[key] = rule[key].clone();
                }
            }
            rules.push(made);
        }
        if !self.admin {
            let namespaces = 0x7e02_0000_u32;
            rules.push(json!({ "names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
                { "index": 0, "value": namespaces, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" },
            ]}));
        }
        Ok(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": rules,
        }))
    }

    /// The machine's own programs, read-only.
    fn write_root(&self, root: &Path, spec: &mut Value) -> Result<()> {
        std::fs::create_dir_all(root)?;
        for name in ["proc", "dev", "sys", "tmp", "mnt", "run", "var"] {
            std::fs::create_dir_all(root.join(name))?;
        }
        for name in ["usr", "etc", "bin", "sbin", "lib", "lib64"] {
            let (from, to) = (Path::new("/").join(name), root.join(name));
            if let Ok(target) = std::fs::read_link(&from) {
                let _ = std::os::unix::fs::symlink(target, to);
            } else if from.is_dir() {
                std::fs::create_dir_all(to)?;
                let mount = json!({ "destination": from, "type": "bind", "source": from,
                    "options": ["rbind", "rprivate", "ro"] });
                spec["mounts"].as_array_mut().expect("it is a list").push(mount);
            }
        }
        let mut command = Command::new("chown");
        command.args(["-Rh", &format!("{RANGE}:{RANGE}")]).arg(root);
        Run::of(&mut command)?.success()?;
        Ok(())
    }
}

/// Calls that Docker's profile leaves to `CAP_SYS_ADMIN`.
const ADMINS: [&str; 19] = [
    "bpf",
    "clone",
    "clone3",
    "fanotify_init",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "perf_event_open",
    "quotactl",
    "setdomainname",
    "setns",
    "umount",
    "umount2",
    "unshare",
];

/// What engines hide of `/proc` and `/sys`, and what they make read-only.
fn hidden() -> (Value, Value) {
    (
        json!([
            "/proc/acpi",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/sched_debug",
            "/proc/scsi",
            "/sys/firmware",
        ]),
        json!(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
    )
}
