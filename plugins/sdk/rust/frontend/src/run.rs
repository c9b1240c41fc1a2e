//! Processes.

use wbuild_graph::{Attrs, Edge, FailureKind, Platform};

use crate::state::{Meta, annotations};
use crate::{Error, Result, State, sys};

/// Program and arguments of a command line for `/bin/sh`.
pub fn sh(command: impl Into<String>) -> [String; 3] {
    ["/bin/sh".to_owned(), "-c".to_owned(), command.into()]
}

/// A process on a [`State`], see [`State::run`]. It has the environment, directory, user and platform
/// of the state.
#[derive(Clone, Debug)]
#[must_use = "nothing comes of it until `done`, `outcome` or `outputs`"]
pub struct Run {
    state: State,
    args: Vec<String>,
    env: Vec<(String, String)>,
    volatile: Vec<(String, String)>,
    cwd: Option<String>,
    user: Option<String>,
    platform: Option<Platform>,
    mounts: Vec<Mount>,
    secrets: Vec<(String, String, bool)>,
    settings: Vec<Setting>,
    /// What happens to the root: its writes are kept unless said otherwise.
    root: &'static str,
    ignore_cache: bool,
    meta: Meta,
}

/// What is said once to the builder.
#[derive(Clone, Debug)]
enum Setting {
    Network(String),
    Security(String),
    Hostname(String),
    Host(String, String),
    Ulimit(String, i64, i64),
    Device(String, bool),
    Resource(String, String),
    ExitCodes(Vec<i32>),
    Attr(String, String),
}

impl Run {
    pub(crate) fn new(state: State, args: Vec<String>) -> Self {
        Run {
            state,
            args,
            env: Vec::new(),
            volatile: Vec::new(),
            cwd: None,
            user: None,
            platform: None,
            mounts: Vec::new(),
            secrets: Vec::new(),
            settings: Vec::new(),
            root: "rw",
            ignore_cache: false,
            meta: Meta::default(),
        }
    }

    annotations!();

    /// A variable for this process alone.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// A variable that is part of no key: proxies, times.
    pub fn volatile_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.volatile.push((name.into(), value.into()));
        self
    }

    /// The directory for this process alone, seen from the state's.
    pub fn dir(mut self, path: &str) -> Self {
        self.cwd = Some(crate::path::join(self.state.get_dir(), path));
        self
    }

    /// Who this process runs as.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// What this process is for.
    pub fn platform(mut self, platform: &Platform) -> Self {
        self.platform = Some(platform.clone());
        self
    }

    /// Something that it sees at a path.
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// A secret of the caller's as a variable.
    pub fn secret_env(mut self, name: &str, id: &str, required: bool) -> Self {
        self.secrets.push((name.to_owned(), id.to_owned(), required));
        self
    }

    /// What it writes to the root is dropped: the state that comes of it is the one before, except
    /// for mounts.
    pub fn discard_root(mut self) -> Self {
        self.root = "discard";
        self
    }

    fn set(mut self, setting: Setting) -> Self {
        self.settings.push(setting);
        self
    }

    /// `sandbox`, `none` or `host`.
    pub fn network(self, mode: &str) -> Self {
        self.set(Setting::Network(mode.to_owned()))
    }

    /// `sandbox`, `insecure` or `client`; the latter two need an entitlement.
    pub fn security(self, mode: &str) -> Self {
        self.set(Setting::Security(mode.to_owned()))
    }

    /// What it takes the machine to be called.
    pub fn hostname(self, name: &str) -> Self {
        self.set(Setting::Hostname(name.to_owned()))
    }

    /// A line of its `/etc/hosts`.
    pub fn host(self, name: &str, address: &str) -> Self {
        self.set(Setting::Host(name.to_owned(), address.to_owned()))
    }

    /// A limit, by its name as of setrlimit; -1 is none.
    pub fn ulimit(self, name: &str, soft: i64, hard: i64) -> Self {
        self.set(Setting::Ulimit(name.to_owned(), soft, hard))
    }

    /// A device, by its CDI name; needs an entitlement.
    pub fn device(self, name: &str, required: bool) -> Self {
        self.set(Setting::Device(name.to_owned(), required))
    }

    /// A key of `exec-op.resources`.
    pub fn resource(self, key: &str, value: impl Into<String>) -> Self {
        self.set(Setting::Resource(key.to_owned(), value.into()))
    }

    /// Exit codes that are success, instead of 0 alone.
    pub fn exit_codes(self, codes: &[i32]) -> Self {
        self.set(Setting::ExitCodes(codes.to_vec()))
    }

    /// A key of `exec-op.attrs`.
    pub fn attr(self, key: &str, value: impl Into<String>) -> Self {
        self.set(Setting::Attr(key.to_owned(), value.into()))
    }

    /// Do not look its result up; save it all the same.
    pub fn ignore_cache(mut self) -> Self {
        self.ignore_cache = true;
        self
    }

    fn insert(self, capture: Option<u32>) -> Result<(State, Vec<Edge>)> {
        let (state, scope) = (&self.state, self.state.scope());
        let op = sys::ExecOp::new(self.args);
        let env: Vec<_> = scope.env.iter().chain(&self.env).cloned().collect();
        op.env(&env);
        if !self.volatile.is_empty() {
            op.volatile_env(&self.volatile);
        }
        op.cwd(self.cwd.as_deref().unwrap_or(&scope.cwd));
        let user = self.user.as_deref().unwrap_or(&scope.user);
        if !user.is_empty() {
            op.user(user);
        }
        if let Some(platform) = self.platform.as_ref().or(scope.platform.as_ref()) {
            op.platform(platform);
        }
        for setting in &self.settings {
            match setting {
                Setting::Network(mode) => op.network(mode),
                Setting::Security(mode) => op.security(mode),
                Setting::Hostname(name) => op.hostname(name),
                Setting::Host(name, address) => op.add_host(name, address),
                Setting::Ulimit(name, soft, hard) => op.ulimit(name, *soft, *hard),
                Setting::Device(name, required) => op.device(name, *required),
                Setting::Resource(key, value) => {
                    op.resources(Attrs(vec![(key.clone(), value.clone())]));
                }
                Setting::ExitCodes(codes) => op.valid_exit_codes(codes),
                Setting::Attr(key, value) => op.attrs(Attrs(vec![(key.clone(), value.clone())])),
            }
        }
        op.bind("/", state.edge(), "", self.root, Attrs::default());
        if let Some(limit) = capture {
            op.capture(limit);
        }
        self.mounts.into_iter().for_each(|mount| mount.add(&op));
        self.secrets.iter().for_each(|(name, id, required)| op.secret_env(name, id, *required));
        let outputs = sys::exec(op);
        // The places are the node's, so one output is as good as another.
        let first = outputs.as_ref().map_err(Clone::clone).and_then(|outputs| {
            let none = "a process that keeps nothing it writes has no result";
            outputs.first().copied().ok_or_else(|| wbuild_graph::Failure::invalid(none))
        });
        let first = self.meta.apply(first)?;
        if self.ignore_cache {
            sys::ignore_cache(first)?;
        }
        Ok((self.state, outputs?))
    }

    /// Makes the node; the state after it.
    pub fn done(self) -> Result<State> {
        let kept = self.root == "rw";
        let (state, outputs) = self.insert(None)?;
        Ok(if kept { state.with_root(outputs.first().copied()) } else { state })
    }

    /// Makes the node; the root if it is kept, and then what was written to every mount that keeps
    /// it, in order.
    pub fn outputs(self) -> Result<Vec<State>> {
        let (state, outputs) = self.insert(None)?;
        Ok(outputs.into_iter().map(|edge| state.with_root(Some(edge))).collect())
    }

    /// Makes the node, of which any exit code is a result, and runs it: for conditions and for
    /// commands whose output is wanted. Keeps at most `limit` bytes of each stream, and
    /// [`Outcome::after`] is the state after it.
    pub fn outcome(self, limit: u32) -> Result<Outcome> {
        let command = self.args.join(" ");
        let (state, outputs) = self.insert(Some(limit))?;
        let edge = outputs[0];
        let told = sys::outcome_of(edge)?;
        Ok(Outcome {
            command,
            limit,
            exit_code: told.exit_code,
            stdout: told.stdout.clone(),
            stderr: told.stderr.clone(),
            truncated: told.stdout_truncated,
            after: state.with_root(Some(edge)),
        })
    }

    /// Whether it succeeds. What it changes is dropped.
    pub fn succeeds(self) -> Result<bool> {
        Ok(self.outcome(0)?.exit_code == 0)
    }
}

/// What a process did whose exit code was asked for.
#[derive(Clone, Debug)]
pub struct Outcome {
    command: String,
    limit: u32,
    /// 128 + signal number if a signal ended it.
    pub exit_code: i32,
    /// The first bytes of its standard output.
    pub stdout: Vec<u8>,
    /// The first bytes of its standard error.
    pub stderr: Vec<u8>,
    /// There was more on standard output.
    pub truncated: bool,
    /// The state after it.
    pub after: State,
}

impl Outcome {
    /// What it printed, without line ends behind it, as a shell's `$(…)` gives it.
    ///
    /// # Errors
    ///
    /// When it did not succeed, printed more than was kept, or printed what is not UTF-8.
    pub fn text(&self) -> Result<String> {
        let command = &self.command;
        if self.exit_code != 0 {
            let message = format!("`{command}` failed with exit code {}", self.exit_code);
            let mut error = Error::new(FailureKind::ExecFailed, message);
            let said = String::from_utf8_lossy(&self.stderr);
            if let Some(last) = said.trim_end().lines().next_back() {
                error = error.help(format!("it said: {last}"));
            }
            return Err(error);
        }
        if self.truncated {
            let message = format!("`{command}` printed more than {} bytes", self.limit);
            return Err(Error::new(FailureKind::Limit, message));
        }
        let text = std::str::from_utf8(&self.stdout)
            .map_err(|_| Error::invalid(format!("`{command}` printed bytes that are not UTF-8")))?;
        Ok(text.trim_end_matches('\n').to_owned())
    }
}

/// Something that a process sees at a path.
#[derive(Clone, Debug)]
pub struct Mount {
    target: String,
    kind: Kind,
    opts: Attrs,
}

#[derive(Clone, Debug)]
enum Kind {
    Bind { source: Option<Edge>, subpath: String, access: &'static str },
    Cache { id: String, sharing: String, seed: Option<Edge> },
    Tmpfs,
    Secret { id: String, required: bool },
    Ssh { id: String, required: bool },
}

impl Mount {
    fn new(target: &str, kind: Kind) -> Self {
        Mount { target: target.to_owned(), kind, opts: Attrs::default() }
    }

    /// Files of a state, read-only.
    pub fn bind(source: &State, target: &str) -> Self {
        let (source, subpath) = (source.edge(), String::new());
        Mount::new(target, Kind::Bind { source, subpath, access: "ro" })
    }

    /// A directory that outlives builds, shared by all that name this id.
    pub fn cache(id: &str, target: &str) -> Self {
        let (id, sharing) = (id.to_owned(), "shared".to_owned());
        Mount::new(target, Kind::Cache { id, sharing, seed: None })
    }

    /// Memory.
    pub fn tmpfs(target: &str) -> Self {
        Mount::new(target, Kind::Tmpfs)
    }

    /// A secret of the caller's, as a file.
    pub fn secret(id: &str, target: &str) -> Self {
        Mount::new(target, Kind::Secret { id: id.to_owned(), required: false })
    }

    /// A socket of the caller's ssh agent.
    pub fn ssh(id: &str, target: &str) -> Self {
        Mount::new(target, Kind::Ssh { id: id.to_owned(), required: false })
    }

    /// Of a bind: this directory or file of the source.
    #[must_use]
    pub fn subpath(mut self, path: &str) -> Self {
        if let Kind::Bind { subpath, .. } = &mut self.kind {
            *subpath = path.to_owned();
        }
        self
    }

    fn access(mut self, mode: &'static str) -> Self {
        if let Kind::Bind { access, .. } = &mut self.kind {
            *access = mode;
        }
        self
    }

    /// Of a bind: what is written to it is an output of the process, see [`Run::outputs`].
    #[must_use]
    pub fn writable(self) -> Self {
        self.access("rw")
    }

    /// Of a bind: it can be written, and that is dropped.
    #[must_use]
    pub fn discard(self) -> Self {
        self.access("discard")
    }

    /// Of a cache: `shared`, `private` or `locked`.
    #[must_use]
    pub fn sharing(mut self, mode: &str) -> Self {
        if let Kind::Cache { sharing, .. } = &mut self.kind {
            *sharing = mode.to_owned();
        }
        self
    }

    /// Of a cache: what a new directory starts with.
    #[must_use]
    pub fn seed(mut self, state: &State) -> Self {
        if let Kind::Cache { seed, .. } = &mut self.kind {
            *seed = state.edge();
        }
        self
    }

    /// Of a secret or an agent: the process fails without it.
    #[must_use]
    pub fn required(mut self) -> Self {
        if let Kind::Secret { required, .. } | Kind::Ssh { required, .. } = &mut self.kind {
            *required = true;
        }
        self
    }

    /// A key of its kind: `mode`, `uid`, `gid`, `size`, `readonly`, `seed-path`.
    #[must_use]
    pub fn opt(mut self, key: &str, value: impl Into<String>) -> Self {
        self.opts.push(key, value);
        self
    }

    fn add(self, op: &sys::ExecOp) {
        let (target, opts) = (&self.target, self.opts);
        match self.kind {
            Kind::Bind { source, subpath, access } => {
                op.bind(target, source, &subpath, access, opts);
            }
            Kind::Cache { id, sharing, seed } => op.cache_dir(target, &id, &sharing, seed, opts),
            Kind::Tmpfs => op.tmpfs(target, opts),
            Kind::Secret { id, required } => op.secret_file(target, &id, required, opts),
            Kind::Ssh { id, required } => op.ssh(target, &id, required, opts),
        }
    }
}
