//! What the keys of a step are made of, in words: the fields of its op by name, and its inputs.
//!
//! Invariant: nothing that is secret. Secrets have names here, and variables whose names say that
//! they hold one have a digest for a value.

use serde::{Deserialize, Serialize};
use wbuild_graph::encode::Encoder;
use wbuild_graph::op::{
    Access, CopyOpts, EntryOpts, ExecOp, FileActionKind, FileOp, Mount, MountKind, Network,
    Security, SourceOp, Unpack,
};
use wbuild_graph::{CacheKey, Digest, Op, Platform};

/// Longer texts are kept as digests, in bytes.
const TEXT_LIMIT: usize = 4 << 10;
/// Begins the value of a field that is kept as a digest.
pub(super) const DIGEST: &str = "\0";

/// What one step's keys were made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ingredients {
    /// Of the op: `exec`, `file`, …
    pub(super) kind: String,
    /// Stage (with platform, where there are several) and position in it, from the step's name.
    pub(super) stage: String,
    pub(super) position: u32,
    /// The rest of the name.
    pub(super) text: String,
    /// Definition key, and result key if it has inputs.
    pub(super) keys: Vec<CacheKey>,
    /// When, in seconds since 1970.
    pub(super) made: u64,
    /// Name and value. A name that comes twice is told by its order.
    pub(super) fields: Vec<(String, String)>,
    /// Of the whole op: what is different and in no field shows here.
    pub(super) op: String,
    pub(super) inputs: Vec<InputFacts>,
}

/// An input, as it counts for the result key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InputFacts {
    /// What part it has: `base`, `source`, `mount /x`.
    pub(super) role: String,
    /// What it is: the name of a step, an image with its digest, a context.
    pub(super) name: String,
    /// Result id, or content of what is read.
    pub(super) value: String,
    /// The manifest of what is read has this name; see the document.
    pub(super) files: Option<String>,
}

/// The kind of an op.
pub(super) fn kind(op: &Op) -> &'static str {
    match op {
        Op::Source(_) => "source",
        Op::Exec(_) => "exec",
        Op::File(_) => "file",
        Op::Merge => "merge",
        Op::Diff { .. } => "diff",
    }
}

/// Digest of everything of an op that is in its keys.
pub(super) fn op_digest(op: &Op, by_content: &Vec<bool>) -> String {
    let mut e = Encoder::new("explain");
    op.encode(&mut e, by_content);
    e.finish().short()
}

/// The fields of an op that are in its keys, as people name them. `by_content`: as for the keys.
pub(super) fn fields(op: &Op, by_content: &[bool]) -> Vec<(String, String)> {
    let mut fields = Fields { out: Vec::new(), by_content };
    match op {
        Op::Source(source) => fields.source(source),
        Op::Exec(exec) => fields.exec(exec),
        Op::File(file) => fields.file(file),
        Op::Merge | Op::Diff { .. } => {}
    }
    fields.out
}

/// The part that input number `input` has in an op.
pub(super) fn role(op: &Op, input: usize) -> String {
    let is = |other: &Option<u32>| other.is_some_and(|other| other as usize == input);
    match op {
        Op::Exec(exec) => {
            let mount = exec.mounts.iter().find(|mount| match &mount.kind {
                MountKind::Bind { source, .. } => is(source),
                MountKind::Cache { seed, .. } => is(seed),
                _ => false,
            });
            match mount {
                Some(mount) if mount.target != "/" => format!("mount {}", mount.target),
                _ => "base".to_owned(),
            }
        }
        Op::File(file) if is(&file.base) => "base".to_owned(),
        Op::File(file) if is(&file.names_from) => "names of users".to_owned(),
        Op::File(_) => "source".to_owned(),
        Op::Merge => "layers".to_owned(),
        Op::Diff { .. } | Op::Source(_) => "input".to_owned(),
    }
}

struct Fields<'a> {
    out: Vec<(String, String)>,
    by_content: &'a [bool],
}

impl Fields<'_> {
    fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let value = value.into();
        let value = if value.len() > TEXT_LIMIT { hidden(value.as_bytes()) } else { value };
        self.out.push((name.into(), value));
    }

    /// One that is left out where it has its usual value.
    fn unless_empty(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.add(name, value);
        }
    }

    fn pairs(&mut self, kind: &str, pairs: &[(String, String)]) {
        for (name, value) in pairs {
            let value = if is_secret(name) { hidden(value.as_bytes()) } else { value.clone() };
            self.add(format!("{kind} {name}"), value);
        }
    }

    fn platform(&mut self, platform: &Platform) {
        self.add("platform", platform.to_string());
    }

    fn source(&mut self, source: &SourceOp) {
        match source {
            // The name does not count for the key; what it leads to is added by who knows.
            SourceOp::Image { platform, .. } => self.platform(platform),
            SourceOp::Local(local) => self.add("context", &local.name),
            SourceOp::Git { url, reference, attrs } => {
                self.add("repository", url);
                self.add("reference", reference);
                self.pairs("option", &attrs.0);
            }
            SourceOp::Http { url, attrs, .. } => {
                self.add("URL", url);
                self.pairs("option", &attrs.0);
            }
            SourceOp::Other { identifier, attrs, .. } => {
                self.add("source", identifier);
                self.pairs("option", &attrs.0);
            }
        }
    }

    fn exec(&mut self, exec: &ExecOp) {
        match &exec.args[..] {
            [shell, flags @ .., command]
                if flags.last().is_some_and(|flag| flag.starts_with('-')) =>
            {
                self.add("command", command);
                self.add("shell", [std::slice::from_ref(shell), flags].concat().join(" "));
            }
            args => self.add("command", args.join(" ")),
        }
        self.pairs("variable", &exec.env);
        self.add("working directory", &exec.cwd);
        self.unless_empty("user", &exec.user);
        self.unless_empty("host name", &exec.hostname);
        self.platform(&exec.platform);
        if exec.network != Network::Sandbox {
            self.add("network", format!("{:?}", exec.network).to_lowercase());
        }
        if exec.security != Security::Sandbox {
            self.add("security", format!("{:?}", exec.security).to_lowercase());
        }
        self.pairs("host", &exec.add_hosts);
        for limit in &exec.ulimits {
            self.add(format!("limit {}", limit.name), format!("{}:{}", limit.soft, limit.hard));
        }
        for (device, required) in &exec.devices {
            self.add(format!("device {device}"), format!("required {required}"));
        }
        if !exec.valid_exit_codes.is_empty() {
            self.add("valid exit codes", format!("{:?}", exec.valid_exit_codes));
        }
        if let Some(limit) = exec.capture {
            self.add("kept output", limit.to_string());
        }
        for mount in exec.mounts.iter().filter(|mount| mount.target != "/") {
            let described = self.mount(mount);
            self.add(format!("mount {}", mount.target), described);
        }
        for secret in &exec.secret_env {
            let text = format!("secret {} required {}", secret.id, secret.required);
            self.add(format!("variable {}", secret.name), text);
        }
        for (key, value) in exec.attrs.iter() {
            match key.strip_prefix(crate::keyed_secrets::ATTR) {
                Some(id) => self.add(format!("secret {id}"), hidden(value.as_bytes())),
                None => self.add(key, value),
            }
        }
    }

    fn mount(&self, mount: &Mount) -> String {
        let mode = |mode: &wbuild_graph::op::MountMode| {
            let bits = mode.mode.map_or(String::new(), |bits| format!(" mode {bits:04o}"));
            match (mode.uid, mode.gid) {
                (0, 0) => bits,
                (uid, gid) => format!("{bits} owner {uid}:{gid}"),
            }
        };
        match &mount.kind {
            MountKind::Bind { source, subpath, access } => {
                let by_content = source.is_some_and(|s| self.reads_content(s));
                let path = if by_content { "" } else { subpath };
                let access = match access {
                    Access::Ro => "read only",
                    Access::Rw => "read and write",
                    Access::Discard => "writes are dropped",
                };
                format!("bind {path} {access}")
            }
            MountKind::Cache { id, sharing, readonly, mode: owner, .. } => {
                let sharing = format!("{sharing:?}").to_lowercase();
                let access = if *readonly { " read only" } else { "" };
                format!("cache {id} {sharing}{access}{}", mode(owner))
            }
            MountKind::Tmpfs { size, mode: owner } => {
                let size = size.map_or(String::new(), |size| format!(" of {size} bytes"));
                format!("tmpfs{size}{}", mode(owner))
            }
            MountKind::Secret { id, required, mode: owner } => {
                format!("secret {id} required {required}{}", mode(owner))
            }
            MountKind::Ssh { id, required, mode: owner } => {
                format!("ssh agent {id} required {required}{}", mode(owner))
            }
        }
    }

    fn reads_content(&self, input: u32) -> bool {
        self.by_content.get(input as usize).copied().unwrap_or(false)
    }

    fn file(&mut self, file: &FileOp) {
        for action in &file.actions {
            match &action.kind {
                FileActionKind::Copy { source, paths, target, opts } => {
                    if !self.reads_content(*source) {
                        self.add("source paths", paths.join(" "));
                        self.selection(opts);
                    }
                    self.add("target", target);
                    self.entry(&opts.entry);
                    for (set, name) in [
                        (opts.create_dest, "makes parents of the target"),
                        (opts.replace, "replaces the target"),
                        (opts.keep_times, "keeps times"),
                        (opts.keep_owner, "keeps owners"),
                        (opts.unpack != Unpack::Never, "unpacks archives"),
                    ] {
                        if set {
                            self.add(name, "yes");
                        }
                    }
                }
                FileActionKind::Write { path, data, opts } => {
                    let text = std::str::from_utf8(data).map(str::to_owned);
                    self.add(format!("content of {path}"), text.unwrap_or_else(|_| hidden(data)));
                    self.entry(opts);
                }
                FileActionKind::Mkdir { path, opts, .. } => {
                    self.add("directory", path);
                    self.entry(opts);
                }
                FileActionKind::Remove { path, .. } => self.add("removed", path),
                FileActionKind::Symlink { path, target, opts } => {
                    self.add(format!("link {path}"), target);
                    self.entry(opts);
                }
            }
        }
    }

    fn selection(&mut self, opts: &CopyOpts) {
        self.unless_empty("include", opts.include.join(" "));
        self.unless_empty("exclude", opts.exclude.join(" "));
        self.unless_empty("required", opts.required.join(" "));
    }

    fn entry(&mut self, opts: &EntryOpts) {
        self.unless_empty("owner", opts.chown.clone().unwrap_or_default());
        self.unless_empty("mode", opts.mode.clone().unwrap_or_default());
        self.unless_empty("time", opts.timestamp.map_or(String::new(), |time| time.to_string()));
    }
}

/// A value that is compared and not shown.
fn hidden(value: &[u8]) -> String {
    format!("{DIGEST}{}", Digest::of(value).short())
}

/// Whether a variable is called like one that holds a secret.
fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 10] = [
        "apikey",
        "auth",
        "cert",
        "credential",
        "key",
        "pass",
        "private",
        "pwd",
        "secret",
        "token",
    ];
    let name = name.to_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever changes the key changes something that is kept, and secrets are not.
    #[test]
    fn every_change_of_an_op_shows_and_no_secret_does() {
        let base = || {
            let args = ["/bin/sh", "-c", "make"].map(str::to_owned).to_vec();
            let mut exec = ExecOp::new(args);
            exec.env = vec![("A".into(), "1".into()), ("API_TOKEN".into(), "s3cret".into())];
            exec
        };
        type Mutate = fn(&mut ExecOp);
        let mutations: [(&str, Mutate); 9] = [
            ("command", |op| op.args[2] = "make all".into()),
            ("shell", |op| op.args[0] = "/bin/bash".into()),
            ("variable A", |op| op.env[0].1 = "2".into()),
            ("variable API_TOKEN", |op| op.env[1].1 = "other".into()),
            ("working directory", |op| op.cwd = "/src".into()),
            ("user", |op| op.user = "app".into()),
            ("network", |op| op.network = Network::None),
            ("host db", |op| op.add_hosts.push(("db".into(), "1.2.3.4".into()))),
            ("mount /s", |op| {
                let mode = Default::default();
                let kind = MountKind::Secret { id: "x".into(), required: true, mode };
                op.mounts.push(Mount { target: "/s".into(), kind });
            }),
        ];
        let told = |exec: ExecOp| fields(&Op::Exec(Box::new(exec)), &[]);
        let before = told(base());
        assert!(!format!("{before:?}").contains("s3cret"), "{before:?}");
        for (name, mutate) in mutations {
            let mut exec = base();
            mutate(&mut exec);
            let after = told(exec);
            let changed: Vec<_> = after
                .iter()
                .filter(|field| !before.contains(field))
                .map(|(name, _)| name.as_str())
                .collect();
            assert_eq!(changed, [name]);
        }
        let digest = |user: &str| {
            let mut exec = base();
            exec.user = user.into();
            op_digest(&Op::Exec(Box::new(exec)), &Vec::new())
        };
        assert_ne!(digest("a"), digest("b"));
        assert_eq!(digest("a"), digest("a"));
    }
}
