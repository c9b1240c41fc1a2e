//! The canonical encoding of everything that is hashed.
//!
//! Format, version 1. A value is a sequence of fields; each field is a tag byte and a payload:
//!
//! | tag | payload |
//! | --- | --- |
//! | `s` | length as u64 little endian, bytes |
//! | `i` | i64 little endian |
//! | `b` | one byte, 0 or 1 |
//! | `d` | 32 bytes of a digest |
//! | `l` | number of elements as u64 little endian; the elements follow |
//! | `0` / `1` | an absent / a present optional; the value follows |
//! | `e` | a variant: its name as by `s`, then its fields |
//!
//! A hashed value starts with a domain (`s`), so that no two kinds of value share a digest. Any
//! change to an encoding changes its domain's version suffix. Golden vectors in the tests pin it.

use crate::op::*;
use crate::{Attrs, Digest, Platform};

/// Collects fields, then hashes them.
#[derive(Debug)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// Starts a value of the kind `domain`, e.g. `wbuild.vertex.v1`.
    pub fn new(domain: &str) -> Self {
        let mut encoder = Encoder { bytes: Vec::with_capacity(256) };
        encoder.str(domain);
        encoder
    }

    /// A byte string.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.push(b's');
        self.bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(value);
        self
    }

    /// A text.
    pub fn str(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// A number.
    pub fn int(&mut self, value: i64) -> &mut Self {
        self.bytes.push(b'i');
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A truth value.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.bytes.extend_from_slice(&[b'b', u8::from(value)]);
        self
    }

    /// A digest.
    pub fn digest(&mut self, value: &Digest) -> &mut Self {
        self.bytes.push(b'd');
        self.bytes.extend_from_slice(value.as_bytes());
        self
    }

    /// An optional value.
    pub fn option<T>(&mut self, value: Option<T>, field: impl FnOnce(&mut Self, T)) -> &mut Self {
        match value {
            None => self.bytes.push(b'0'),
            Some(value) => {
                self.bytes.push(b'1');
                field(self, value);
            }
        }
        self
    }

    /// A list.
    pub fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut field: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        self.bytes.push(b'l');
        self.bytes.extend_from_slice(&(items.len() as u64).to_le_bytes());
        for item in items {
            field(self, item);
        }
        self
    }

    /// A variant's name; its fields follow.
    pub fn variant(&mut self, name: &str) -> &mut Self {
        self.bytes.push(b'e');
        self.str(name)
    }

    /// Ordered texts.
    pub fn strs(&mut self, items: &[String]) -> &mut Self {
        self.list(items.iter(), |e, item| {
            e.str(item);
        })
    }

    /// Ordered pairs.
    pub fn pairs(&mut self, items: &[(String, String)]) -> &mut Self {
        self.list(items.iter(), |e, (k, v)| {
            e.str(k).str(v);
        })
    }

    /// The digest of all fields so far.
    pub fn finish(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// The encoded bytes, for golden vectors.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Which inputs a key describes by the content that the op reads of them. The parts of the op that
/// only select that content (source paths, include and exclude patterns, subpaths) are then left
/// out: the content says it all, and renaming a source file does not matter.
pub trait ByContent {
    /// Whether `input` is described by content.
    fn by_content(&self, input: Input) -> bool;
}

/// No input is described by content.
#[derive(Clone, Copy, Debug)]
pub struct ByDefinition;

impl ByContent for ByDefinition {
    fn by_content(&self, _: Input) -> bool {
        false
    }
}

impl ByContent for Vec<bool> {
    fn by_content(&self, input: Input) -> bool {
        self.get(input as usize).copied().unwrap_or(false)
    }
}

impl Op {
    /// Appends everything of the op that may change its result.
    pub fn encode(&self, e: &mut Encoder, content: &dyn ByContent) {
        match self {
            Op::Source(source) => source.encode(e.variant("source")),
            Op::Exec(exec) => exec.encode(e.variant("exec"), content),
            Op::File(file) => file.encode(e.variant("file"), content),
            Op::Merge => {
                e.variant("merge");
            }
            Op::Diff { lower, upper } => {
                e.variant("diff");
                e.option(*lower, input).option(*upper, input);
            }
        }
    }
}

fn input(e: &mut Encoder, index: Input) {
    e.int(i64::from(index));
}

fn text(e: &mut Encoder, text: &str) {
    e.str(text);
}

fn attrs(e: &mut Encoder, attrs: &Attrs) {
    e.pairs(&attrs.0);
}

/// Appends a platform.
pub fn platform(e: &mut Encoder, platform: &Platform) {
    e.str(&platform.os).str(&platform.architecture);
    e.option(platform.variant.as_deref(), text).option(platform.os_version.as_deref(), text);
    e.strs(&platform.os_features);
}

impl SourceOp {
    fn encode(&self, e: &mut Encoder) {
        match self {
            SourceOp::Image { reference, platform: wanted, attrs: more } => {
                e.variant("image").str(reference);
                platform(e, wanted);
                attrs(e, more);
            }
            SourceOp::Local(local) => {
                e.variant("local").str(&local.name).strs(&local.include);
                e.list(local.exclude.iter(), |e, p| text(e, &p.pattern)).strs(&local.follow);
                attrs(e, &local.attrs);
            }
            SourceOp::Git { url, reference, attrs: more } => {
                e.variant("git").str(url).str(reference);
                attrs(e, more);
            }
            SourceOp::Http { url, checksum, attrs: more } => {
                e.variant("http").str(url).option(checksum.as_ref(), |e, d| {
                    e.digest(d);
                });
                attrs(e, more);
            }
            SourceOp::Other { identifier, platform: wanted, attrs: more } => {
                e.variant("other").str(identifier).option(wanted.as_ref(), platform);
                attrs(e, more);
            }
        }
    }
}

fn mount_mode(e: &mut Encoder, mode: &MountMode) {
    e.option(mode.mode, |e, m| {
        e.int(i64::from(m));
    });
    e.int(i64::from(mode.uid)).int(i64::from(mode.gid));
}

impl ExecOp {
    fn encode(&self, e: &mut Encoder, content: &dyn ByContent) {
        e.strs(&self.args).pairs(&self.env).str(&self.cwd).str(&self.user).str(&self.hostname);
        platform(e, &self.platform);
        e.variant(match self.network {
            Network::Sandbox => "sandbox",
            Network::None => "none",
            Network::Host => "host",
        });
        e.variant(match self.security {
            Security::Sandbox => "sandbox",
            Security::Insecure => "insecure",
            Security::Client => "client",
        });
        e.pairs(&self.add_hosts);
        e.list(self.ulimits.iter(), |e, u| {
            e.str(&u.name).int(u.soft).int(u.hard);
        });
        e.list(self.devices.iter(), |e, (name, required)| {
            e.str(name).bool(*required);
        });
        e.list(self.valid_exit_codes.iter(), |e, code| {
            e.int(i64::from(*code));
        });
        e.option(self.capture, |e, limit| {
            e.int(i64::from(limit));
        });
        e.list(self.mounts.iter(), |e, mount| mount.encode(e, content));
        e.list(self.secret_env.iter(), |e, s| {
            e.str(&s.name).str(&s.id).bool(s.required);
        });
        attrs(e, &self.attrs);
    }
}

impl Mount {
    fn encode(&self, e: &mut Encoder, content: &dyn ByContent) {
        e.str(&self.target);
        match &self.kind {
            MountKind::Bind { source, subpath, access } => {
                e.variant("bind").option(*source, input);
                if !source.is_some_and(|s| content.by_content(s)) {
                    e.str(subpath);
                }
                e.variant(match access {
                    Access::Ro => "ro",
                    Access::Rw => "rw",
                    Access::Discard => "discard",
                });
            }
            // The seed only matters for a new directory, and what a cache holds is in no key.
            MountKind::Cache { id, sharing, readonly, mode, .. } => {
                e.variant("cache").str(id).variant(match sharing {
                    Sharing::Shared => "shared",
                    Sharing::Private => "private",
                    Sharing::Locked => "locked",
                });
                e.bool(*readonly);
                mount_mode(e, mode);
            }
            MountKind::Tmpfs { size, mode } => {
                e.variant("tmpfs").option(*size, |e, s| {
                    e.int(i64::try_from(s).unwrap_or(i64::MAX));
                });
                mount_mode(e, mode);
            }
            MountKind::Secret { id, required, mode } => {
                e.variant("secret").str(id).bool(*required);
                mount_mode(e, mode);
            }
            MountKind::Ssh { id, required, mode } => {
                e.variant("ssh").str(id).bool(*required);
                mount_mode(e, mode);
            }
        }
    }
}

fn entry_opts(e: &mut Encoder, opts: &EntryOpts) {
    e.option(opts.chown.as_deref(), text).option(opts.mode.as_deref(), text);
    e.option(opts.timestamp, |e, t| {
        e.int(t);
    });
}

impl FileOp {
    fn encode(&self, e: &mut Encoder, content: &dyn ByContent) {
        e.option(self.base, input).option(self.names_from, input);
        e.list(self.actions.iter(), |e, action| match &action.kind {
            FileActionKind::Copy { source, paths, target, opts } => {
                e.variant("copy").int(i64::from(*source)).str(target);
                entry_opts(e, &opts.entry);
                e.bool(opts.create_dest).bool(opts.replace);
                e.bool(opts.keep_times).bool(opts.keep_owner);
                e.variant(match opts.unpack {
                    Unpack::Never => "never",
                    Unpack::Auto => "auto",
                    Unpack::Always => "always",
                });
                if content.by_content(*source) {
                    e.variant("content");
                } else {
                    e.variant("paths").strs(paths);
                    e.bool(opts.follow_links).bool(opts.contents_only).bool(opts.wildcard);
                    e.bool(opts.parents).bool(opts.allow_missing);
                    e.strs(&opts.include).strs(&opts.exclude).strs(&opts.required);
                }
            }
            FileActionKind::Write { path, data, opts } => {
                e.variant("write").str(path).bytes(data);
                entry_opts(e, opts);
            }
            FileActionKind::Mkdir { path, parents, opts } => {
                e.variant("mkdir").str(path).bool(*parents);
                entry_opts(e, opts);
            }
            FileActionKind::Remove { path, wildcard, allow_missing } => {
                e.variant("remove").str(path).bool(*wildcard).bool(*allow_missing);
            }
            FileActionKind::Symlink { path, target, opts } => {
                e.variant("symlink").str(path).str(target);
                entry_opts(e, opts);
            }
        });
    }
}
