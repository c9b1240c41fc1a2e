//! Finding the program that runs containers: crun, else runc.
//!
//! crun comes first because it costs a quarter of runc's time per step. A runtime that is there may
//! still not work on a machine (cgroup layout, kernel, confinement of this process itself), so
//! [`probe`] runs something with it.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wbuild_graph::{Failure, FailureKind};

use crate::fail::OrFail;
use crate::launcher::{Launcher, LauncherOptions};
use crate::mounts::Source;
use crate::spec::{ExecSpec, UserNamespace, base};
use crate::tiny;

/// A kind of OCI runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuntimeKind {
    /// github.com/containers/crun
    Crun,
    /// github.com/opencontainers/runc
    Runc,
}

impl RuntimeKind {
    /// In order of preference.
    pub const ALL: [RuntimeKind; 2] = [RuntimeKind::Crun, RuntimeKind::Runc];

    /// The program's name.
    pub fn as_str(self) -> &'static str {
        match self {
            RuntimeKind::Crun => "crun",
            RuntimeKind::Runc => "runc",
        }
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A runtime on this machine. Serialisable, so that a probe's result can be kept and used while
/// [`RuntimeInfo::is_current`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeInfo {
    /// Which one.
    pub kind: RuntimeKind,
    /// Its program, symlinks resolved.
    pub path: PathBuf,
    /// As it says, e.g. `1.8.1`.
    pub version: String,
    /// What the user should know of it.
    pub warnings: Vec<String>,
    /// Size and modification time in nanoseconds of the program.
    stamp: (u64, i64),
}

impl RuntimeInfo {
    /// Whether the program is still the one that was looked at.
    pub fn is_current(&self) -> bool {
        stamp(&self.path).is_ok_and(|stamp| stamp == self.stamp)
    }
}

fn stamp(path: &Path) -> std::io::Result<(u64, i64)> {
    let meta = std::fs::metadata(path)?;
    let time = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
    Ok((meta.len(), time))
}

/// Looks for a program in directories, in order.
pub fn find_program(name: &str, search: &[PathBuf]) -> Option<PathBuf> {
    search.iter().map(|dir| dir.join(name)).find(|path| {
        std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    })
}

/// Finds the runtimes in the directories `search`, best first, and asks each for its version.
pub fn find(search: &[PathBuf]) -> Vec<RuntimeInfo> {
    RuntimeKind::ALL
        .into_iter()
        .filter_map(|kind| examine(kind, &find_program(kind.as_str(), search)?).ok())
        .collect()
}

/// Asks a program for its version.
pub fn examine(kind: RuntimeKind, path: &Path) -> Result<RuntimeInfo, Failure> {
    let path = std::fs::canonicalize(path).or_fail(format_args!("find {}", path.display()))?;
    let output = Command::new(&path)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .or_fail(format_args!("run {} --version", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(version) = parse_version(kind, &text).filter(|_| output.status.success()) else {
        return Err(Failure::new(
            FailureKind::Unsupported,
            format!("{} does not say that it is {kind}", path.display()),
        ));
    };
    let stamp = stamp(&path).or_fail(format_args!("stat {}", path.display()))?;
    let warnings = warnings(kind, &version);
    Ok(RuntimeInfo { kind, path, version, warnings, stamp })
}

/// The version in what `--version` prints: `<name> version <version>` in the first line.
fn parse_version(kind: RuntimeKind, text: &str) -> Option<String> {
    let mut words = text.lines().next()?.split_ascii_whitespace();
    (words.next()? == kind.as_str() && words.next()? == "version").then_some(())?;
    words.next().map(str::to_owned)
}

/// Known holes of a version, by its number alone: a distribution may have mended some.
fn warnings(kind: RuntimeKind, version: &str) -> Vec<String> {
    if kind != RuntimeKind::Runc {
        return Vec::new();
    }
    let number: Vec<u32> = version
        .split(|c: char| !c.is_ascii_digit())
        .take(3)
        .map_while(|part| part.parse().ok())
        .collect();
    let &[major, minor, patch] = number.as_slice() else {
        return vec![format!("the version {version:?} of runc is not understood")];
    };
    // The first versions in which all of the following are mended.
    let sound = match (major, minor) {
        (1, 3) => patch >= 6,
        (1, 4) => patch >= 3,
        (1, minor) => minor >= 5,
        (major, _) => major > 1,
    };
    if sound {
        return Vec::new();
    }
    let mut holes = Vec::new();
    if (major, minor, patch) < (1, 1, 12) {
        holes.push("CVE-2024-21626");
    }
    if (major, minor, patch) < (1, 1, 14) {
        holes.push("CVE-2024-45310");
    }
    if (major, minor, patch) < (1, 2, 8) || ((1, 3, 0)..(1, 3, 3)).contains(&(major, minor, patch))
    {
        holes.extend(["CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"]);
    }
    holes.push("CVE-2026-41579");
    vec![format!(
        "runc {version} predates the fixes of {}, unless the distribution has added them: install crun, or runc 1.3.6, 1.4.3 or later",
        holes.join(", ")
    )]
}

/// What a probe needs to know.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// Directories to look in, e.g. those of `PATH`.
    pub search: Vec<PathBuf>,
    /// See [`LauncherOptions::exe`].
    pub exe: PathBuf,
    /// See [`LauncherOptions::subcommand`].
    pub subcommand: OsString,
    /// What steps get, if this process runs in a user namespace of its own.
    pub user_namespace: Option<UserNamespace>,
}

/// Finds the first runtime that can run a container here.
pub async fn probe(options: &ProbeOptions) -> Result<RuntimeInfo, Failure> {
    let candidates = find(&options.search);
    let mut failure =
        Failure::new(FailureKind::Unavailable, "no container runtime that works was found");
    if candidates.is_empty() {
        let places: Vec<String> = options.search.iter().map(|d| d.display().to_string()).collect();
        failure.causes.push(format!("neither crun nor runc is in {}", places.join(":")));
    }
    for runtime in candidates {
        match try_runtime(options, &runtime).await {
            Ok(()) => return Ok(runtime),
            Err(why) => {
                failure.causes.push(format!(
                    "{} {}: {why}",
                    runtime.path.display(),
                    runtime.version
                ));
                for hint in why.hints {
                    if !failure.hints.contains(&hint) {
                        failure.hints.push(hint);
                    }
                }
            }
        }
    }
    // Another one might do better, if none of these says what to do.
    if failure.hints.is_empty() {
        failure = failure.hint(
            "install crun (or runc) with the system's package manager, e.g. apt-get install crun",
        );
    }
    let doctor = "`wbuild doctor` shows what this machine offers";
    if failure.hints.iter().all(|hint| hint != doctor) {
        failure = failure.hint(doctor);
    }
    Err(failure)
}

/// Runs a program of a few bytes in a container, which exercises all that a step does.
async fn try_runtime(options: &ProbeOptions, runtime: &RuntimeInfo) -> Result<(), Failure> {
    let launcher = Launcher::start(LauncherOptions {
        exe: options.exe.clone(),
        subcommand: options.subcommand.clone(),
        runtime: runtime.clone(),
        grace: Duration::ZERO,
        handlers: Vec::new(),
    })
    .await?;
    let architecture = wbuild_graph::Platform::host().architecture;
    let (root, args) = match tiny::root(&architecture)? {
        Some(root) => (Source::Mount(root), vec![tiny::PROGRAM.to_owned()]),
        // An architecture without a tiny program: the machine's own root and the runtime itself.
        None => {
            let root = std::fs::File::open("/").or_fail("open /")?;
            let program = runtime.path.display().to_string();
            (Source::Path(root.into()), vec![program, "--version".to_owned()])
        }
    };
    let mut exec = ExecSpec::new(args);
    exec.readonly_root = true;
    exec.user_namespace.clone_from(&options.user_namespace);
    tiny::run(&launcher, base(&exec)?, root).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        let crun = "crun version 1.8.1\ncommit: f8a096be\nrundir: /run/crun\n";
        assert_eq!(parse_version(RuntimeKind::Crun, crun).as_deref(), Some("1.8.1"));
        let runc = "runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1\n";
        assert_eq!(parse_version(RuntimeKind::Runc, runc).as_deref(), Some("1.1.5+ds1"));
        assert_eq!(parse_version(RuntimeKind::Crun, runc), None);
        assert_eq!(parse_version(RuntimeKind::Crun, ""), None);
    }

    #[test]
    fn warns_of_versions_with_known_holes() {
        let cases = [
            ("1.1.5+ds1", 6),
            ("1.1.12", 5),
            ("1.1.14", 4),
            ("1.2.8", 1),
            ("1.3.2", 4),
            ("1.3.3", 1),
            ("1.3.6", 0),
            ("1.4.0-rc.1", 1),
            ("1.4.3", 0),
            ("1.5.0", 0),
            ("2.0.0", 0),
            ("0.9.9", 6),
        ];
        for (version, holes) in cases {
            let warnings = warnings(RuntimeKind::Runc, version);
            let found = warnings.first().map_or(0, |text| text.matches("CVE-").count());
            assert_eq!(found, holes, "{version}: {warnings:?}");
        }
        assert!(!warnings(RuntimeKind::Runc, "unknown").is_empty());
        assert!(warnings(RuntimeKind::Crun, "1.8.1").is_empty());
    }

    #[test]
    fn finds_programs_in_order_and_only_executable_files() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::create_dir_all(a.join("x")).unwrap();
        std::fs::create_dir_all(&b).unwrap();
        std::fs::write(b.join("x"), "").unwrap();
        assert_eq!(find_program("x", &[a.clone(), b.clone()]), None);
        std::fs::set_permissions(b.join("x"), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_program("x", &[a, b.clone()]), Some(b.join("x")));
    }
}
