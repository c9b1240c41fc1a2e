//! Decoding of what plugins send as strings and option lists into types that cannot be wrong. One
//! place for every WIT version; an unknown key or value is an error that names both.

use crate::op::*;
use crate::{Attrs, Failure, FailureKind, quoted};

/// Fails on a key that is neither known to `function` nor starts with `x-`.
pub fn only_known(attrs: &Attrs, function: &str, known: &[&str]) -> Result<(), Failure> {
    match attrs.unknown(known) {
        None => Ok(()),
        Some(key) => {
            Err(Failure::unsupported(format!("{function} does not know the key {}", quoted(key)))
                .hint(format!("known keys: {}", known.join(", "))))
        }
    }
}

/// Keys of options that stay pairs in an op, by the function that takes them.
pub mod known {
    /// `graph.image`.
    pub const IMAGE: &[&str] = &["resolve", "checksum", "store"];
    /// `graph.git`.
    pub const GIT: &[&str] = &[
        "subdir",
        "checksum",
        "keep-git-dir",
        "submodules",
        "mtime",
        "fetch-by-commit",
        "auth-token-secret",
        "auth-header-secret",
        "ssh",
        "known-hosts",
    ];
    /// `graph.http`, besides `header.*`.
    pub const HTTP: &[&str] = &["filename", "mode", "uid", "gid", "auth-header-secret"];
    /// `exec-op.resources`.
    pub const RESOURCES: &[&str] = &[
        "memory",
        "memory-swap",
        "cpu-shares",
        "cpu-period",
        "cpu-quota",
        "cpuset-cpus",
        "cpuset-mems",
        "cgroup-parent",
    ];
    /// `exec-op.attrs`.
    pub const EXEC: &[&str] = &["shm-size"];
}

/// Most bytes of each stream that an exec keeps.
pub const CAPTURE_BYTES: u32 = 1 << 20;

/// Options of `graph.http`.
pub fn http_attrs(attrs: &Attrs) -> Result<(), Failure> {
    let plain = attrs.iter().filter(|(key, _)| !key.starts_with("header."));
    let plain = plain.map(|(key, value)| (key.to_owned(), value.to_owned()));
    only_known(&Attrs(plain.collect()), "graph.http", known::HTTP)
}

/// How much of each stream an exec keeps.
pub fn capture(limit: u32) -> Result<u32, Failure> {
    if limit > CAPTURE_BYTES {
        let message = format!("exec-op.capture keeps at most {CAPTURE_BYTES} bytes, not {limit}");
        return Err(Failure::new(FailureKind::Limit, message));
    }
    Ok(limit)
}

/// An op that did not come about by the functions of this module, but claims so: that it holds
/// nothing they would have refused.
pub fn claimed(op: &Op) -> Result<(), Failure> {
    match op {
        Op::Source(SourceOp::Image { attrs, .. }) => only_known(attrs, "graph.image", known::IMAGE),
        Op::Source(SourceOp::Git { attrs, .. }) => only_known(attrs, "graph.git", known::GIT),
        Op::Source(SourceOp::Http { attrs, .. }) => http_attrs(attrs),
        Op::Source(SourceOp::Local(local)) => only_known(&local.attrs, "local-source.attrs", &[]),
        Op::Source(SourceOp::Other { .. }) | Op::File(_) | Op::Merge | Op::Diff { .. } => Ok(()),
        Op::Exec(exec) => {
            only_known(&exec.resources, "exec-op.resources", known::RESOURCES)?;
            only_known(&exec.attrs, "exec-op.attrs", known::EXEC)?;
            exec.capture.map_or(Ok(0), capture)?;
            let modes = exec.mounts.iter().filter_map(|mount| match &mount.kind {
                MountKind::Bind { .. } => None,
                MountKind::Cache { mode, .. }
                | MountKind::Tmpfs { mode, .. }
                | MountKind::Secret { mode, .. }
                | MountKind::Ssh { mode, .. } => mode.mode,
            });
            match modes.max() {
                Some(mode) if mode > 0o7777 => {
                    Err(Failure::invalid(format!("{mode:o} is no mode of a mount")))
                }
                _ => Ok(()),
            }
        }
    }
}

fn one_of<T: Copy>(value: &str, what: &str, choices: &[(&str, T)]) -> Result<T, Failure> {
    choices.iter().find(|(name, _)| *name == value).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        Failure::unsupported(format!("unknown {what} {}", quoted(value)))
            .hint(format!("expected one of: {}", names.join(", ")))
    })
}

/// `sandbox`, `none` or `host`.
pub fn network(value: &str) -> Result<Network, Failure> {
    one_of(
        value,
        "network mode",
        &[("sandbox", Network::Sandbox), ("none", Network::None), ("host", Network::Host)],
    )
}

/// `sandbox` or `insecure`.
pub fn security(value: &str) -> Result<Security, Failure> {
    one_of(
        value,
        "security mode",
        &[
            ("sandbox", Security::Sandbox),
            ("insecure", Security::Insecure),
            ("client", Security::Client),
        ],
    )
}

/// `ro`, `rw` or `discard`.
pub fn access(value: &str) -> Result<Access, Failure> {
    one_of(
        value,
        "bind access",
        &[("ro", Access::Ro), ("rw", Access::Rw), ("discard", Access::Discard)],
    )
}

/// `shared`, `private` or `locked`.
pub fn sharing(value: &str) -> Result<Sharing, Failure> {
    one_of(
        value,
        "cache sharing",
        &[("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)],
    )
}

/// `never`, `auto` or `always`.
pub fn unpack(value: &str) -> Result<Unpack, Failure> {
    one_of(
        value,
        "unpack mode",
        &[("never", Unpack::Never), ("auto", Unpack::Auto), ("always", Unpack::Always)],
    )
}

/// A flag: an empty value means true.
pub fn flag(attrs: &Attrs, key: &str) -> Result<bool, Failure> {
    match attrs.get(key) {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(other) => {
            Err(Failure::invalid(format!("{key} is true or false, not {}", quoted(other))))
        }
    }
}

fn number<T: std::str::FromStr>(attrs: &Attrs, key: &str) -> Result<Option<T>, Failure> {
    attrs
        .get(key)
        .map(|text| {
            text.parse().map_err(|_| {
                Failure::invalid(format!("{key} is a number in range, not {}", quoted(text)))
            })
        })
        .transpose()
}

/// Octal permission bits, up to 7777.
pub fn octal_mode(attrs: &Attrs, key: &str) -> Result<Option<u32>, Failure> {
    attrs
        .get(key)
        .map(|text| match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(mode),
            _ => Err(Failure::invalid(format!("{key} is an octal mode, not {}", quoted(text)))),
        })
        .transpose()
}

/// Keys `mode`, `uid`, `gid`.
pub fn mount_mode(attrs: &Attrs) -> Result<MountMode, Failure> {
    Ok(MountMode {
        mode: octal_mode(attrs, "mode")?,
        uid: number(attrs, "uid")?.unwrap_or(0),
        gid: number(attrs, "gid")?.unwrap_or(0),
    })
}

/// Options of a cache mount; see wit/frontend, `exec-op.cache-dir`.
pub fn cache_mount(
    id: String,
    sharing_mode: &str,
    seed: Option<Input>,
    opts: &Attrs,
) -> Result<MountKind, Failure> {
    only_known(opts, "exec-op.cache-dir", &["mode", "uid", "gid", "readonly", "seed-path"])?;
    Ok(MountKind::Cache {
        id,
        sharing: sharing(sharing_mode)?,
        seed,
        seed_path: opts.get("seed-path").unwrap_or("/").to_owned(),
        readonly: flag(opts, "readonly")?,
        mode: mount_mode(opts)?,
    })
}

/// Options of a tmpfs mount; see wit/frontend, `exec-op.tmpfs`.
pub fn tmpfs_mount(opts: &Attrs) -> Result<MountKind, Failure> {
    only_known(opts, "exec-op.tmpfs", &["size", "mode", "uid", "gid"])?;
    Ok(MountKind::Tmpfs { size: number(opts, "size")?, mode: mount_mode(opts)? })
}

/// Keys `chown`, `mode`, `timestamp`.
pub fn entry_opts(attrs: &Attrs) -> Result<EntryOpts, Failure> {
    Ok(EntryOpts {
        chown: attrs.get("chown").map(str::to_owned),
        mode: attrs.get("mode").map(str::to_owned),
        timestamp: number(attrs, "timestamp")?,
    })
}

const ENTRY_KEYS: [&str; 3] = ["chown", "mode", "timestamp"];

/// Options of a write or symlink action.
pub fn write_opts(attrs: &Attrs, function: &str) -> Result<EntryOpts, Failure> {
    only_known(attrs, function, &ENTRY_KEYS)?;
    entry_opts(attrs)
}

/// Options of a mkdir action: those of an entry and `parents`.
pub fn mkdir_opts(attrs: &Attrs) -> Result<(bool, EntryOpts), Failure> {
    only_known(attrs, "file-op.mkdir", &["chown", "mode", "timestamp", "parents"])?;
    Ok((flag(attrs, "parents")?, entry_opts(attrs)?))
}

/// Options of a remove action: `wildcard` and `allow-missing`.
pub fn remove_opts(attrs: &Attrs) -> Result<(bool, bool), Failure> {
    only_known(attrs, "file-op.remove", &["wildcard", "allow-missing"])?;
    Ok((flag(attrs, "wildcard")?, flag(attrs, "allow-missing")?))
}

/// Options of a copy action; see wit/frontend, `file-op.copy`.
pub fn copy_opts(attrs: &Attrs) -> Result<CopyOpts, Failure> {
    let known = [
        "chown",
        "mode",
        "timestamp",
        "create-dest",
        "follow-links",
        "contents-only",
        "wildcard",
        "parents",
        "include",
        "exclude",
        "required",
        "unpack",
        "keep-times",
        "keep-owner",
        "allow-missing",
        "replace",
    ];
    only_known(attrs, "file-op.copy", &known)?;
    let all = |key: &str| attrs.all(key).map(str::to_owned).collect::<Vec<_>>();
    Ok(CopyOpts {
        entry: entry_opts(attrs)?,
        create_dest: flag(attrs, "create-dest")?,
        follow_links: flag(attrs, "follow-links")?,
        contents_only: flag(attrs, "contents-only")?,
        wildcard: flag(attrs, "wildcard")?,
        parents: flag(attrs, "parents")?,
        include: all("include"),
        exclude: all("exclude"),
        required: all("required"),
        unpack: attrs.get("unpack").map_or(Ok(Unpack::Never), unpack)?,
        keep_times: flag(attrs, "keep-times")?,
        keep_owner: flag(attrs, "keep-owner")?,
        allow_missing: flag(attrs, "allow-missing")?,
        replace: flag(attrs, "replace")?,
    })
}
