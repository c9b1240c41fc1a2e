//! The fields of ops by name, without those that have their default.
//!
//! Structs are taken apart in full, so that a field that is added to an op is missed by nobody.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use wbuild_graph::op::{
    Access, CopyOpts, EntryOpts, ExecOp, FileAction, FileActionKind, FileOp, Input, LocalSource,
    Mount, MountKind, MountMode, Network, SecretEnv, Security, Sharing, SourceOp, Ulimit, Unpack,
};
use wbuild_graph::{Attrs, Op};

/// Kind and fields of an op with so many inputs.
pub(crate) fn of(op: &Op, inputs: usize) -> (&'static str, Map<String, Value>) {
    let mut fields = Fields::default();
    let kind = match op {
        Op::Source(source) => fields.source(source),
        Op::Exec(exec) => {
            fields.exec(exec);
            "exec"
        }
        Op::File(file) => {
            fields.file(file);
            "file"
        }
        Op::Merge => {
            let layers = (0..inputs).map(|at| json!({ "input": at })).collect();
            fields.put("layers", Value::Array(layers));
            "merge"
        }
        Op::Diff { lower, upper } => {
            fields.input("lower", lower);
            fields.input("upper", upper);
            "diff"
        }
    };
    (kind, fields.0)
}

/// `KEY=VALUE` of each pair.
pub(crate) fn pairs(pairs: &[(String, String)]) -> Vec<String> {
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// An object that leaves out what has its default.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        let usual = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        if !usual {
            self.0.insert(name.to_owned(), value);
        }
    }

    fn input(&mut self, name: &str, input: &Option<Input>) {
        if let Some(input) = input {
            self.put(name, json!({ "input": input }));
        }
    }

    fn attrs(&mut self, attrs: &Attrs) {
        self.put("attrs", pairs(&attrs.0));
    }

    fn source(&mut self, source: &SourceOp) -> &'static str {
        match source {
            SourceOp::Image { reference, platform, attrs } => {
                self.put("reference", reference.as_str());
                self.put("platform", platform.to_string());
                self.attrs(attrs);
                "image"
            }
            SourceOp::Local(LocalSource { name, include, exclude, follow, attrs }) => {
                let exclude: Vec<_> = exclude.iter().map(|rule| rule.pattern.as_str()).collect();
                self.put("context", name.as_str());
                self.put("include", include.as_slice());
                self.put("exclude", exclude);
                self.put("follow", follow.as_slice());
                self.attrs(attrs);
                "local"
            }
            SourceOp::Git { url, reference, attrs } => {
                self.put("url", url.as_str());
                self.put("reference", reference.as_str());
                self.attrs(attrs);
                "git"
            }
            SourceOp::Http { url, checksum, attrs } => {
                self.put("url", url.as_str());
                self.put("checksum", checksum.map(|checksum| checksum.to_string()));
                self.attrs(attrs);
                "http"
            }
            SourceOp::Other { identifier, platform, attrs } => {
                self.put("identifier", identifier.as_str());
                self.put("platform", platform.as_ref().map(ToString::to_string));
                self.attrs(attrs);
                "other"
            }
        }
    }

    fn exec(&mut self, exec: &ExecOp) {
        let ExecOp {
            args,
            env,
            volatile_env,
            cwd,
            user,
            hostname,
            platform,
            network,
            security,
            add_hosts,
            ulimits,
            devices,
            resources,
            valid_exit_codes,
            capture,
            mounts,
            secret_env,
            attrs,
        } = exec;
        self.put("args", args.as_slice());
        self.put("env", pairs(env));
        self.put("volatile_env", pairs(volatile_env));
        self.put("cwd", cwd.as_str());
        self.put("user", user.as_str());
        self.put("hostname", hostname.as_str());
        self.put("platform", platform.to_string());
        self.put(
            "network",
            match network {
                Network::Sandbox => "",
                Network::None => "none",
                Network::Host => "host",
            },
        );
        self.put(
            "security",
            match security {
                Security::Sandbox => "",
                Security::Insecure => "insecure",
                Security::Client => "client",
            },
        );
        self.put("add_hosts", pairs(add_hosts));
        let limit = |Ulimit { name, soft, hard }: &Ulimit| format!("{name}={soft}:{hard}");
        self.put("ulimits", ulimits.iter().map(limit).collect::<Vec<_>>());
        let device =
            |(name, required): &(String, bool)| json!({"name": name, "required": required});
        self.put("devices", devices.iter().map(device).collect::<Vec<_>>());
        self.put("resources", pairs(&resources.0));
        self.put("valid_exit_codes", valid_exit_codes.as_slice());
        self.put("capture", *capture);
        self.put("mounts", mounts.iter().map(mount).collect::<Vec<_>>());
        let secret = |SecretEnv { name, id, required }: &SecretEnv| json!({"name": name, "id": id, "required": required});
        self.put("secret_env", secret_env.iter().map(secret).collect::<Vec<_>>());
        self.attrs(attrs);
    }

    fn mode(&mut self, MountMode { mode, uid, gid }: &MountMode) {
        self.put("mode", mode.map(|mode| format!("{mode:04o}")));
        if (*uid, *gid) != (0, 0) {
            self.put("owner", format!("{uid}:{gid}"));
        }
    }

    fn file(&mut self, FileOp { base, names_from, actions }: &FileOp) {
        self.input("base", base);
        self.input("names_from", names_from);
        self.put("actions", actions.iter().map(action).collect::<Vec<_>>());
    }

    fn entry(&mut self, EntryOpts { chown, mode, timestamp }: &EntryOpts) {
        self.put("chown", chown.as_deref());
        self.put("mode", mode.as_deref());
        self.put("timestamp", *timestamp);
    }
}

fn mount(Mount { target, kind }: &Mount) -> Value {
    let mut fields = Fields::default();
    fields.put("target", target.as_str());
    match kind {
        MountKind::Bind { source, subpath, access } => {
            fields.put("type", "bind");
            fields.input("from", source);
            fields.put("subpath", subpath.as_str());
            fields.put(
                "access",
                match access {
                    Access::Ro => "ro",
                    Access::Rw => "rw",
                    Access::Discard => "discard",
                },
            );
        }
        MountKind::Cache { id, sharing, seed, seed_path, readonly, mode } => {
            fields.put("type", "cache");
            fields.put("id", id.as_str());
            fields.put(
                "sharing",
                match sharing {
                    Sharing::Shared => "shared",
                    Sharing::Private => "private",
                    Sharing::Locked => "locked",
                },
            );
            fields.input("from", seed);
            fields.put("subpath", seed_path.as_str());
            fields.put("readonly", *readonly);
            fields.mode(mode);
        }
        MountKind::Tmpfs { size, mode } => {
            fields.put("type", "tmpfs");
            fields.put("size", *size);
            fields.mode(mode);
        }
        MountKind::Secret { id, required, mode } => {
            fields.put("type", "secret");
            fields.put("id", id.as_str());
            fields.put("required", *required);
            fields.mode(mode);
        }
        MountKind::Ssh { id, required, mode } => {
            fields.put("type", "ssh");
            fields.put("id", id.as_str());
            fields.put("required", *required);
            fields.mode(mode);
        }
    }
    Value::Object(fields.0)
}

fn action(FileAction { kind, mark: _ }: &FileAction) -> Value {
    let mut fields = Fields::default();
    match kind {
        FileActionKind::Copy { source, paths, target, opts } => {
            fields.put("action", "copy");
            fields.input("from", &Some(*source));
            fields.put("paths", paths.as_slice());
            fields.put("target", target.as_str());
            let CopyOpts {
                entry,
                create_dest,
                follow_links,
                contents_only,
                wildcard,
                parents,
                include,
                exclude,
                required,
                unpack,
                keep_times,
                keep_owner,
                allow_missing,
                replace,
            } = opts;
            fields.entry(entry);
            fields.put("create_dest", *create_dest);
            fields.put("follow_links", *follow_links);
            fields.put("contents_only", *contents_only);
            fields.put("wildcard", *wildcard);
            fields.put("parents", *parents);
            fields.put("include", include.as_slice());
            fields.put("exclude", exclude.as_slice());
            fields.put("required", required.as_slice());
            fields.put(
                "unpack",
                match unpack {
                    Unpack::Never => "",
                    Unpack::Auto => "auto",
                    Unpack::Always => "always",
                },
            );
            fields.put("keep_times", *keep_times);
            fields.put("keep_owner", *keep_owner);
            fields.put("allow_missing", *allow_missing);
            fields.put("replace", *replace);
        }
        FileActionKind::Write { path, data, opts } => {
            fields.put("action", "write");
            fields.put("path", path.as_str());
            match std::str::from_utf8(data) {
                Ok(text) => fields.put("text", text),
                Err(_) => fields.put("base64", STANDARD.encode(data)),
            }
            fields.entry(opts);
        }
        FileActionKind::Mkdir { path, parents, opts } => {
            fields.put("action", "mkdir");
            fields.put("path", path.as_str());
            fields.put("parents", *parents);
            fields.entry(opts);
        }
        FileActionKind::Remove { path, wildcard, allow_missing } => {
            fields.put("action", "remove");
            fields.put("path", path.as_str());
            fields.put("wildcard", *wildcard);
            fields.put("allow_missing", *allow_missing);
        }
        FileActionKind::Symlink { path, target, opts } => {
            fields.put("action", "symlink");
            fields.put("path", path.as_str());
            fields.put("target", target.as_str());
            fields.entry(opts);
        }
    }
    Value::Object(fields.0)
}
