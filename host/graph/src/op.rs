//! Ops: the kinds of work a vertex can be. A superset of what BuildKit's low-level graph can say, so
//! that such a graph translates without loss.
//!
//! An op names its inputs by index into [`crate::Vertex::inputs`]. Fields marked *not in any key*
//! are left out of [`Op::encode`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Attrs, Platform, Span};

/// Index into a vertex's inputs.
pub type Input = u32;

/// The most bytes of an image's config.
pub const IMAGE_CONFIG_BYTES: u64 = 4 << 20;

/// A kind of work and its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Brings files in from outside. No inputs, one output.
    Source(SourceOp),
    /// Runs a process. One output for each `Access::Rw` bind, in order.
    Exec(Box<ExecOp>),
    /// Makes one layer by file actions. One output.
    File(FileOp),
    /// Stacks the inputs' layers. One output.
    Merge,
    /// What the second input has and the first has not. One output. `lower` none = empty.
    Diff {
        /// The tree to compare with.
        lower: Option<Input>,
        /// The tree whose additions are wanted; none = empty.
        upper: Option<Input>,
    },
}

/// Where files come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceOp {
    /// A container image. Keys: `resolve`, `checksum`, `layer-limit`, `store`.
    Image {
        /// As written, or normalised by the frontend.
        reference: String,
        /// Wanted platform.
        platform: Platform,
        /// See above.
        attrs: Attrs,
    },
    /// A directory the client lends.
    Local(LocalSource),
    /// A git repository.
    Git {
        /// Without credentials.
        url: String,
        /// Branch, tag or commit.
        reference: String,
        /// See wit/frontend, `graph.git`.
        attrs: Attrs,
    },
    /// One file over http(s).
    Http {
        /// Without credentials.
        url: String,
        /// Expected content.
        checksum: Option<crate::Digest>,
        /// See wit/frontend, `graph.http`.
        attrs: Attrs,
    },
    /// A scheme that the host's policy knows.
    Other {
        /// `scheme://…`.
        identifier: String,
        /// Wanted platform.
        platform: Option<Platform>,
        /// Passed on.
        attrs: Attrs,
    },
}

/// A pattern that hides paths of a local source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnorePattern {
    /// Ignore-file syntax; `!` re-includes.
    pub pattern: String,
    /// The line that says so; *not in any key*.
    pub at: Option<Span>,
}

/// A directory the client lends, with what is visible of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalSource {
    /// The context's name.
    pub name: String,
    /// Empty = everything.
    pub include: Vec<String>,
    /// Last match wins.
    pub exclude: Vec<IgnorePattern>,
    /// Paths whose symlinks' targets are visible too.
    pub follow: Vec<String>,
    /// Open for later.
    pub attrs: Attrs,
}

/// What network a process sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// The build's ordinary network.
    #[default]
    Sandbox,
    /// Loopback only.
    None,
    /// The host's own; an entitlement.
    Host,
}

/// How a process is confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// Confined.
    #[default]
    Sandbox,
    /// Privileged; an entitlement.
    Insecure,
    /// Not at all: a process of the client's, in its directory; an entitlement.
    Client,
}

/// What a bind mount may do with its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read only.
    Ro,
    /// Writes become an output of the vertex.
    Rw,
    /// Writes are dropped when the process ends.
    Discard,
}

/// How builds share a cache mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// Several writers at once.
    #[default]
    Shared,
    /// A writer that comes second gets a directory of its own.
    Private,
    /// A writer that comes second waits.
    Locked,
}

/// Owner and mode of a mount made by the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountMode {
    /// Permission bits; none = the kind's default.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Something a process sees at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub target: String,
    /// What is there.
    pub kind: MountKind,
}

/// Kinds of mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountKind {
    /// Files of an input.
    Bind {
        /// None = an empty directory.
        source: Option<Input>,
        /// Path inside the source.
        subpath: String,
        /// See [`Access`].
        access: Access,
    },
    /// A directory that outlives builds; its content is *not in any key*.
    Cache {
        /// Builds that use one id share one directory.
        id: String,
        /// See [`Sharing`].
        sharing: Sharing,
        /// What a new directory starts with.
        seed: Option<Input>,
        /// Path inside the seed.
        seed_path: String,
        /// Writes are refused.
        readonly: bool,
        /// Owner and mode of a new directory.
        mode: MountMode,
    },
    /// Memory.
    Tmpfs {
        /// In bytes.
        size: Option<u64>,
        /// Owner and mode.
        mode: MountMode,
    },
    /// A secret as a file; the value is *not in any key*.
    Secret {
        /// What the client calls it.
        id: String,
        /// Fail if the client does not offer it.
        required: bool,
        /// Owner and mode.
        mode: MountMode,
    },
    /// A socket of the client's ssh agent.
    Ssh {
        /// What the client calls it.
        id: String,
        /// Fail if the client does not offer it.
        required: bool,
        /// Owner and mode.
        mode: MountMode,
    },
}

/// A limit of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// E.g. `nofile`.
    pub name: String,
    /// Soft limit; -1 = none.
    pub soft: i64,
    /// Hard limit; -1 = none.
    pub hard: i64,
}

/// A secret as an environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEnv {
    /// Variable.
    pub name: String,
    /// What the client calls it.
    pub id: String,
    /// Fail if the client does not offer it.
    pub required: bool,
}

/// Runs a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOp {
    /// Program and arguments; not empty.
    pub args: Vec<String>,
    /// In order; a later one of a name wins.
    pub env: Vec<(String, String)>,
    /// Seen by the process, *not in any key*.
    pub volatile_env: Vec<(String, String)>,
    /// Absolute path.
    pub cwd: String,
    /// `user[:group]`, resolved in the root at run time; empty = root.
    pub user: String,
    /// Empty = the host's default.
    pub hostname: String,
    /// Where the process runs.
    pub platform: Platform,
    /// See [`Network`].
    pub network: Network,
    /// See [`Security`].
    pub security: Security,
    /// Name and address.
    pub add_hosts: Vec<(String, String)>,
    /// Limits.
    pub ulimits: Vec<Ulimit>,
    /// CDI names, and whether each is required.
    pub devices: Vec<(String, bool)>,
    /// *Not in any key*.
    pub resources: Attrs,
    /// Empty = only 0 is success.
    pub valid_exit_codes: Vec<i32>,
    /// Keep exit code and this many bytes of each stream as the result; any exit code is one.
    pub capture: Option<u32>,
    /// The first targets `/`.
    pub mounts: Vec<Mount>,
    /// Secrets as variables.
    pub secret_env: Vec<SecretEnv>,
    /// Open for later.
    pub attrs: Attrs,
}

impl ExecOp {
    /// A process with everything else at its default.
    pub fn new(args: Vec<String>) -> Self {
        ExecOp {
            args,
            env: Vec::new(),
            volatile_env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            hostname: String::new(),
            platform: Platform::host(),
            network: Network::default(),
            security: Security::default(),
            add_hosts: Vec::new(),
            ulimits: Vec::new(),
            devices: Vec::new(),
            resources: Attrs::default(),
            valid_exit_codes: Vec::new(),
            capture: None,
            mounts: Vec::new(),
            secret_env: Vec::new(),
            attrs: Attrs::default(),
        }
    }
}

/// When an archive is unpacked by a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unpack {
    /// Copied as it is.
    #[default]
    Never,
    /// If its content is an archive.
    Auto,
    /// It must be an archive.
    Always,
}

/// Owner, mode and time of what an action makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryOpts {
    /// `user[:group]`, names looked up in `names_from`.
    pub chown: Option<String>,
    /// Octal or symbolic.
    pub mode: Option<String>,
    /// Seconds since 1970.
    pub timestamp: Option<i64>,
}

/// How a copy is done. Defaults are those of an empty option list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOpts {
    /// Owner, mode, time.
    pub entry: EntryOpts,
    /// Make missing parents of the target.
    pub create_dest: bool,
    /// A source that is a symlink stands for what it points to.
    pub follow_links: bool,
    /// A source directory stands for what is in it.
    pub contents_only: bool,
    /// Source paths are patterns.
    pub wildcard: bool,
    /// Keep the source's directories below the pivot `./`.
    pub parents: bool,
    /// Only what matches.
    pub include: Vec<String>,
    /// Not what matches.
    pub exclude: Vec<String>,
    /// Each must be there; `.` means each of the paths, so that a pattern matches something.
    pub required: Vec<String>,
    /// Archives.
    pub unpack: Unpack,
    /// Keep the source's times.
    pub keep_times: bool,
    /// Keep the source's owners.
    pub keep_owner: bool,
    /// A source that is missing is no error.
    pub allow_missing: bool,
    /// What is at the target already goes first.
    pub replace: bool,
}

/// One step of a file op.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAction {
    /// Where the source text says so; *not in any key*.
    pub mark: Option<Span>,
    /// What to do.
    pub kind: FileActionKind,
}

/// Kinds of file actions. Paths are absolute in the layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileActionKind {
    /// Copies from an input.
    Copy {
        /// Where from.
        source: Input,
        /// Paths or patterns.
        paths: Vec<String>,
        /// Ends in `/` = a directory.
        target: String,
        /// How.
        opts: CopyOpts,
    },
    /// Writes a file.
    Write {
        /// Where.
        path: String,
        /// Its content.
        data: Vec<u8>,
        /// Owner, mode, time.
        opts: EntryOpts,
    },
    /// Makes a directory.
    Mkdir {
        /// Where.
        path: String,
        /// Also its parents; no error if it is there.
        parents: bool,
        /// Owner, mode, time.
        opts: EntryOpts,
    },
    /// Removes a path and what is below it.
    Remove {
        /// Where.
        path: String,
        /// The path is a pattern.
        wildcard: bool,
        /// Nothing there is no error.
        allow_missing: bool,
    },
    /// Makes a symlink.
    Symlink {
        /// Where.
        path: String,
        /// What it says.
        target: String,
        /// Owner, time.
        opts: EntryOpts,
    },
}

/// Makes one layer by file actions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOp {
    /// What the layer lies on; none = empty.
    pub base: Option<Input>,
    /// Where user and group names are looked up; none = the base.
    pub names_from: Option<Input>,
    /// In order.
    pub actions: Vec<FileAction>,
}

impl Op {
    /// Number of outputs.
    pub fn outputs(&self) -> u32 {
        match self {
            Op::Exec(exec) => {
                let rw = |m: &&Mount| matches!(m.kind, MountKind::Bind { access: Access::Rw, .. });
                u32::try_from(exec.mounts.iter().filter(rw).count()).unwrap_or(u32::MAX)
            }
            Op::Source(_) | Op::File(_) | Op::Merge | Op::Diff { .. } => 1,
        }
    }

    /// The input indices the op refers to.
    pub fn references(&self) -> BTreeSet<Input> {
        let mut out = BTreeSet::new();
        match self {
            Op::Source(_) | Op::Merge => {}
            Op::Diff { lower, upper } => out.extend(lower.iter().chain(upper).copied()),
            Op::Exec(exec) => {
                for mount in &exec.mounts {
                    match &mount.kind {
                        MountKind::Bind { source, .. } => out.extend(*source),
                        MountKind::Cache { seed, .. } => out.extend(*seed),
                        _ => {}
                    }
                }
            }
            Op::File(file) => {
                out.extend(file.base.iter().chain(&file.names_from).copied());
                for action in &file.actions {
                    if let FileActionKind::Copy { source, .. } = &action.kind {
                        out.insert(*source);
                    }
                }
            }
        }
        out
    }

    /// For each of `inputs` inputs, whether the op reads no more of it than certain files, so that
    /// their content describes the input: sources of copies, and read-only binds below the root.
    pub fn content_inputs(&self, inputs: usize) -> Vec<bool> {
        let mut by_content = vec![false; inputs];
        let mut whole = vec![false; inputs];
        let mark = |set: &mut Vec<bool>, input: Input| {
            if let Some(slot) = set.get_mut(input as usize) {
                *slot = true;
            }
        };
        match self {
            Op::Source(_) => {}
            Op::Merge => whole.fill(true),
            Op::Diff { lower, upper } => {
                lower.iter().chain(upper).for_each(|input| mark(&mut whole, *input));
            }
            Op::Exec(exec) => {
                for mount in &exec.mounts {
                    match &mount.kind {
                        MountKind::Bind { source: Some(input), access, .. } => {
                            let part = mount.target != "/" && *access != Access::Rw;
                            mark(if part { &mut by_content } else { &mut whole }, *input);
                        }
                        // The seed of a cache mount is in no key, like the content of the mount.
                        MountKind::Cache { seed: Some(input), .. } => mark(&mut whole, *input),
                        _ => {}
                    }
                }
            }
            Op::File(file) => {
                file.base.iter().chain(&file.names_from).for_each(|i| mark(&mut whole, *i));
                for action in &file.actions {
                    if let FileActionKind::Copy { source, .. } = &action.kind {
                        mark(&mut by_content, *source);
                    }
                }
            }
        }
        by_content.iter().zip(&whole).map(|(part, whole)| *part && !whole).collect()
    }
}
