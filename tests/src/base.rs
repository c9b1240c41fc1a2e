//! The image that cases start from: a static busybox of the distribution, made by wbuild itself.
//!
//! Made once for a program and a busybox, under a lock, because several test processes may ask.
//! [`index`] is the same for several platforms.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::packages;
use crate::run::Run;
use crate::skip;

/// Time of everything in it, seconds since 1970.
pub const EPOCH: u64 = 1_700_000_000;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    app:x:1000:1001:an application:/home/app:/bin/sh\n\
    nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\napp:x:1001:\nstaff:x:50:app\nnogroup:x:65534:\n";

/// The OCI layout of the image. Skips where there is no busybox.
pub fn layout() -> Result<PathBuf> {
    static LAYOUT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let busybox = skip::need_program("busybox")?;
    LAYOUT
        .get_or_init(|| make(&busybox).map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!("cannot make the base image: {error}"))
}

fn make(busybox: &Path) -> Result<PathBuf> {
    let folder = crate::scratch()?.join("base");
    std::fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;

    let wbuild = crate::wbuild_program()?;
    let stamp = format!("3 {} {}", identity(&wbuild)?, identity(busybox)?);
    let (layout, stamp_file) = (folder.join("layout"), folder.join("stamp"));
    if std::fs::read_to_string(&stamp_file).is_ok_and(|made_of| made_of == stamp) {
        return Ok(layout);
    }
    for old in ["layout", "context", "state"] {
        let _ = std::fs::remove_dir_all(folder.join(old));
    }
    let context = folder.join("context");
    std::fs::create_dir(&context)?;
    write_rootfs(busybox, busybox, &context.join("rootfs.tar"))?;
    build(&wbuild, &folder, "FROM scratch\nADD rootfs.tar /\n", &[])?;
    std::fs::write(&stamp_file, stamp)?;
    Ok(layout)
}

/// Builds the layout of `folder` from its context.
fn build(wbuild: &Path, folder: &Path, dockerfile: &str, options: &[&str]) -> Result<()> {
    let context = folder.join("context");
    let rest = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         CMD [\"sh\"]\n";
    std::fs::write(context.join("Dockerfile"), format!("{dockerfile}{rest}"))?;
    Run::of(
        Command::new(wbuild)
            .args(["build", "--progress", "plain"])
            .arg(format!("--output=type=oci,tar=false,dest={}", folder.join("layout").display()))
            .arg("--tag=base:latest")
            .args(options)
            .arg(&context)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", folder)
            .env("SOURCE_DATE_EPOCH", EPOCH.to_string())
            .env("WBUILD_STATE_DIR", folder.join("state"))
            .env("WBUILD_CACHE_DIR", crate::scratch()?.join("code-cache")),
    )?
    .success()?;
    Ok(())
}

/// Platforms of [`index`] besides that of the machine, and Debian's names of their architectures.
pub const FOREIGN: [(&str, &str); 7] = [
    ("linux/386", "i386"),
    ("linux/arm/v5", "armel"),
    ("linux/arm/v7", "armhf"),
    ("linux/arm64", "arm64"),
    ("linux/ppc64le", "ppc64el"),
    ("linux/riscv64", "riscv64"),
    ("linux/s390x", "s390x"),
];

/// The OCI layout of the image for this machine and for [`FOREIGN`], of Debian's packages. Skips where
/// they cannot be had.
pub fn index() -> Result<PathBuf> {
    static LAYOUT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let busybox = skip::need_program("busybox")?;
    if cfg!(not(target_arch = "x86_64")) {
        return skip::skip("the image for several platforms is made on amd64");
    }
    LAYOUT
        .get_or_init(|| make_index(&busybox).map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!("cannot make the image for several platforms: {error}"))
}

fn make_index(busybox: &Path) -> Result<PathBuf> {
    let folder = crate::scratch()?.join("index");
    let context = folder.join("context");
    std::fs::create_dir_all(&context)?;
    let lock = File::create(folder.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;

    let wbuild = crate::wbuild_program()?;
    let stamp = format!("2 {} {}", identity(&wbuild)?, identity(busybox)?);
    let (layout, stamp_file) = (folder.join("layout"), folder.join("stamp"));
    if std::fs::read_to_string(&stamp_file).is_ok_and(|made_of| made_of == stamp) {
        return Ok(layout);
    }
    let _ = std::fs::remove_dir_all(&layout);
    let mut platforms = vec!["linux/amd64"];
    let root = |platform: &str| {
        let name = platform.trim_start_matches("linux/").replace('/', "");
        context.join(format!("rootfs-{name}.tar"))
    };
    write_rootfs(busybox, busybox, &root("linux/amd64"))?;
    for (platform, debian) in FOREIGN {
        let program = program_of(debian)?;
        write_rootfs(&program, busybox, &root(platform))?;
        platforms.push(platform);
    }
    let dockerfile = "FROM scratch\nARG TARGETARCH TARGETVARIANT\n\
        ADD rootfs-$TARGETARCH$TARGETVARIANT.tar /\n";
    build(&wbuild, &folder, dockerfile, &["--platform", &platforms.join(",")])?;
    std::fs::write(&stamp_file, stamp)?;
    Ok(layout)
}

/// The busybox of one of [`FOREIGN`], by Debian's name of its architecture.
pub fn program_of(debian: &str) -> Result<PathBuf> {
    let root = packages::unpacked(debian, &["busybox-static"])?;
    // Newer releases have no /bin of its own.
    let places = ["bin", "usr/bin"].map(|bin| root.join(bin).join("busybox"));
    places.into_iter().find(|path| path.exists()).context("the package has no busybox")
}

/// Changes when the file does.
fn identity(path: &Path) -> Result<String> {
    let meta = std::fs::metadata(path).with_context(|| format!("no {}", path.display()))?;
    let modified = meta.modified()?.duration_since(UNIX_EPOCH)?;
    Ok(format!("{} {} {}", path.display(), meta.len(), modified.as_nanos()))
}

/// `lister` says what applets there are, since `busybox` may not run here.
fn write_rootfs(busybox: &Path, lister: &Path, to: &Path) -> Result<()> {
    let applets = Run::of(Command::new(lister).arg("--list"))?.success()?;
    let program = std::fs::read(busybox)?;
    ensure!(!needs_interpreter(&program), "{} is not static", busybox.display());

    let mut archive = tar::Builder::new(File::create(to)?);
    let header = |kind, mode| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(EPOCH);
        header.set_size(0);
        header
    };
    for (path, mode) in [
        ("bin/", 0o755),
        ("dev/", 0o755),
        ("etc/", 0o755),
        ("home/", 0o755),
        ("home/app/", 0o750),
        ("proc/", 0o755),
        ("root/", 0o700),
        ("sys/", 0o755),
        ("tmp/", 0o1777),
        ("usr/", 0o755),
        ("usr/bin/", 0o755),
        ("var/", 0o755),
    ] {
        let mut header = header(tar::EntryType::Directory, mode);
        if path == "home/app/" {
            header.set_uid(1000);
            header.set_gid(1001);
        }
        archive.append_data(&mut header, path, &b""[..])?;
    }
    let files: [(&str, u32, &[u8]); 3] = [
        ("bin/busybox", 0o755, &program),
        ("etc/passwd", 0o644, PASSWD.as_bytes()),
        ("etc/group", 0o644, GROUP.as_bytes()),
    ];
    for (path, mode, content) in files {
        let mut header = header(tar::EntryType::Regular, mode);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content)?;
    }
    for applet in applets.text()?.lines().filter(|applet| *applet != "busybox") {
        let mut header = header(tar::EntryType::Symlink, 0o777);
        archive.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    archive.finish()?;
    Ok(())
}

/// Whether an ELF program has a program header of the type `PT_INTERP` (elf(5)), 64 bit little
/// endian; other programs are taken to be static, and steps show whether they are.
fn needs_interpreter(elf: &[u8]) -> bool {
    let number = |at: usize, len: usize| {
        elf.get(at..at + len).map_or(0, |bytes| {
            bytes.iter().rev().fold(0_usize, |value, byte| (value << 8) | usize::from(*byte))
        })
    };
    if !elf.starts_with(&[0x7f, b'E', b'L', b'F', 2, 1]) {
        return false;
    }
    let (table, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    (0..count).any(|index| number(table + index * size, 4) == 3)
}
