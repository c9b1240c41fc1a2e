//! Running a process: mounts from inputs, the runner's plan, output, and the layers it leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use wbuild_api::extension::{Job, MountView, Outcome};
use wbuild_exec::spec::{self, files};
use wbuild_exec::stubs::{self, TargetKind};
use wbuild_exec::{Content, ExecSpec, MountSpec, Source, Step, output, user};
use wbuild_graph::op::{Access, ExecOp, Mount, MountKind, MountMode, Network, Sharing};
use wbuild_graph::{Diagnostic, Failure, FailureKind, Platform, Severity};
use wbuild_solver::SolveVertex;
use wbuild_store::{CacheOwner, CacheSharing, Lease, SnapshotBuilder, SnapshotId};
use wbuild_tree::path::RelPath;
use wbuild_tree::root::Root;

use crate::blocking;
use crate::launch::{self, Launch};
use crate::ops::agent::LentAgent;
use crate::ops::cache_mount::{self, CacheMount};
use crate::ops::content::ReadAgain;
use crate::ops::file;
use crate::solved::{Layer, Output, Solved, Tree};
use crate::worker::BuildWorker;

/// The largest secret, in bytes.
const SECRET_LIMIT: usize = 512 << 10;
/// Bytes read of a pipe at once.
const CHUNK: usize = 64 << 10;

/// A writable tree of a running step.
struct Writable {
    builder: SnapshotBuilder,
    below: Arc<Tree>,
}

/// What has to outlive the step's processes.
#[derive(Default)]
struct Keep {
    leases: Vec<Lease>,
    caches: Vec<CacheMount>,
    /// Stub layers, trees whose writes are dropped, folders of sockets.
    discarded: Vec<SnapshotBuilder>,
    agents: Vec<LentAgent>,
}

/// Collects what a step is made of.
struct Assembly<'a> {
    worker: &'a BuildWorker,
    inputs: &'a [Output],
    slots: BTreeMap<String, Source>,
    mounts: Vec<MountSpec>,
    views: Vec<MountView>,
    secret_env: Vec<(String, String)>,
    keep: Keep,
    /// Of the cache directories taken so far, by name.
    cache_paths: BTreeMap<String, std::path::PathBuf>,
    /// In the order of the op's `rw` binds.
    outputs: Vec<Writable>,
    /// What was imported of local directories.
    read: ReadAgain,
}

/// Runs the process of `exec`.
pub(crate) async fn run(
    worker: &BuildWorker,
    vertex: &SolveVertex,
    exec: &ExecOp,
    inputs: &[Output],
) -> Result<Arc<Solved>, Failure> {
    let mut assembly = Assembly {
        worker,
        inputs,
        slots: BTreeMap::new(),
        mounts: Vec::new(),
        views: Vec::new(),
        secret_env: Vec::new(),
        keep: Keep::default(),
        cache_paths: BTreeMap::new(),
        outputs: Vec::new(),
        read: ReadAgain::default(),
    };
    // Locks before a slot, in one order for everybody: nobody waits for a lock while holding a slot
    // that its holder needs, and no two wait for each other.
    let cache_names = assembly.cache_names(vertex, exec);
    let mut caches = assembly.lock_caches(exec, &cache_names).await?;
    let _slot = worker.exec_slots.acquire().await.expect("the semaphore is never closed");
    for secret in &exec.secret_env {
        if let Some(value) = secret_value(worker, &secret.id, secret.required).await? {
            let value = String::from_utf8(value).map_err(|_| {
                Failure::invalid(format!(
                    "the secret {:?} is no text, so it cannot be a variable",
                    secret.id
                ))
            })?;
            assembly.secret_env.push((secret.name.clone(), value));
        }
    }
    let (root, rest) = exec.mounts.split_first().expect("checked when the node was inserted");
    let MountKind::Bind { source, access, .. } = &root.kind else {
        return Err(Failure::internal("the root of a process is not a bind"));
    };
    let root_tree = assembly.tree(*source)?;
    let root_view = worker.view(&root_tree).await?;
    wbuild_exec::check_root(root_view.as_fd())?;
    // Outputs come in the order of the binds, and the root is the first.
    let root_place = assembly.outputs.len();
    for (mount, cache) in rest.iter().zip(&cache_names[1..]) {
        assembly.mount(mount, cache, &mut caches).await?;
    }
    assembly.read.check(worker, vertex, inputs)?;
    let network = match exec.network {
        // The build's ordinary network is the host's.
        Network::Sandbox | Network::Host => Network::Host,
        Network::None => Network::None,
    };
    let hostname = match exec.hostname.as_str() {
        "" => "wbuild".to_owned(),
        name => name.to_owned(),
    };
    assembly.system_files(&hostname, &exec.add_hosts, network)?;

    let identity = match exec.user.as_str() {
        "" => user::root(root_view.as_fd())?,
        name => user::resolve(root_view.as_fd(), name)?,
    };
    let mut env = exec.env.clone();
    for (name, value) in [("HOME", &identity.home), ("HOSTNAME", &hostname)] {
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.to_owned(), value.clone()));
        }
    }
    let path = env.iter().rev().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
    let entry_format =
        wbuild_exec::elf::entry_format(root_view.as_fd(), &exec.args[0], &exec.cwd, path)?;
    let mut exec_spec = ExecSpec::new(exec.args.clone());
    exec_spec.env = env;
    exec_spec.cwd.clone_from(&exec.cwd);
    exec_spec.user = identity;
    exec_spec.hostname = hostname;
    exec_spec.network = network;
    exec_spec.security = exec.security;
    exec_spec.readonly_root = *access == Access::Ro;
    exec_spec.mounts.clone_from(&assembly.mounts);
    exec_spec.ulimits.clone_from(&exec.ulimits);
    exec_spec.user_namespace.clone_from(&worker.launchers.user_namespace);
    if let Some(size) = exec.attrs.get("shm-size") {
        exec_spec.shm_size = size.parse().map_err(|_| {
            Failure::invalid(format!("shm-size is a number of bytes, not {size:?}"))
        })?;
    }
    let job = Job {
        mounts: assembly.views.clone(),
        entry_format,
        ..launch::job(&exec_spec, &exec.platform)
    };
    let foreign = worker.foreign.of(vertex.digest, &exec.platform);
    let (runners, launchers) = (&worker.runners, &worker.launchers);
    let launch = launch::plan(runners, launchers, exec_spec, job, foreign).await?;
    let Launch { spec: mut final_spec, handlers, warnings, without, .. } = launch;
    if let Some((foreign, failure)) = without {
        worker.steps.warning(vertex.digest, without_emulators(&foreign, &failure));
    }
    for warning in warnings {
        worker.steps.warning(vertex.digest, warning);
    }
    // What is in no key is not shown to runners either.
    let late = exec.volatile_env.iter().chain(&assembly.secret_env);
    spec::late::add_env(&mut final_spec, late)?;

    let root_source = assembly.root(&root_tree, &root_view, *access, root_place).await?;
    drop(root_view);
    let Assembly { slots, keep, outputs, .. } = assembly;
    let (stdout, stdout_reader) = output::pipe()?;
    let (stderr, stderr_reader) = output::pipe()?;
    let launcher = worker.launchers.get(handlers).await?;
    let outputs = Arc::new(std::sync::Mutex::new(outputs));
    let step = Step {
        spec: final_spec,
        root: root_source,
        slots,
        stdout,
        stderr,
        keep: Some(Box::new((keep, Arc::clone(&outputs)))),
    };
    let limit = exec.capture.unwrap_or(0) as usize;
    let times_full = worker.room.times_full();
    let (exit, stdout, stderr) = tokio::join!(
        launcher.run(step),
        drain(worker, vertex, stdout_reader, 1, limit),
        drain(worker, vertex, stderr_reader, 2, limit),
    );
    let exit = exit?;
    let outcome = match ended(exec, exit.code, stdout, stderr) {
        Ok(outcome) => outcome,
        // While what it wrote is still there.
        Err(failure) => return Err(worker.room.mark(failure, times_full).await),
    };
    let writables =
        std::mem::take(&mut *outputs.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let now = worker.settings.now;
    let trees = blocking(move || -> Result<Vec<Output>, Failure> {
        writables
            .into_iter()
            .map(|writable| {
                let (snapshot, lease) = writable.builder.commit()?.into_parts();
                let mut layers = writable.below.layers.clone();
                layers.push(Layer::made(snapshot, lease, now));
                Ok(Output::Tree(Tree::new(layers)))
            })
            .collect()
    })
    .await?;
    Ok(Solved::new(trees, outcome))
}

/// Bytes of a command that a failure shows.
const COMMAND_SHOWN: usize = 4096;

/// Whether a process ended well.
pub(crate) fn check_exit(exec: &ExecOp, code: i32) -> Result<(), Failure> {
    let good = match &exec.valid_exit_codes[..] {
        [] => code == 0,
        codes => codes.contains(&code),
    };
    if good {
        return Ok(());
    }
    let mut command = exec.args.join(" ");
    // A frontend may look at many results that fail with this.
    if command.len() > COMMAND_SHOWN {
        command.truncate(command.floor_char_boundary(COMMAND_SHOWN));
        command.push('…');
    }
    let message = format!("process {command:?} did not complete successfully: exit code: {code}");
    Err(Failure::new(FailureKind::ExecFailed, message).attr("exit-code", code.to_string()))
}

/// First bytes of a stream, and whether there was more.
type Kept = (Vec<u8>, bool);

/// What a process that has ended comes to: an outcome if it was captured, else it must have ended
/// well.
pub(super) fn ended(
    exec: &ExecOp,
    exit_code: i32,
    (stdout, stdout_truncated): Kept,
    (stderr, stderr_truncated): Kept,
) -> Result<Option<Arc<Outcome>>, Failure> {
    if exec.capture.is_none() {
        return check_exit(exec, exit_code).map(|()| None);
    }
    let outcome = Outcome { exit_code, stdout, stdout_truncated, stderr, stderr_truncated };
    Ok(Some(Arc::new(outcome)))
}

/// Says that programs of other platforms cannot run in a step that has some.
fn without_emulators(foreign: &BTreeSet<Platform>, failure: &Failure) -> Diagnostic {
    let platforms: Vec<String> = foreign.iter().map(ToString::to_string).collect();
    Diagnostic {
        severity: Severity::Warning,
        code: Some("no-emulators".to_owned()),
        message: format!(
            "programs for {} cannot run in this step: {failure}",
            platforms.join(", ")
        ),
        labels: Vec::new(),
        help: failure.hints.first().cloned(),
        url: None,
        attrs: wbuild_graph::Attrs::default(),
    }
}

/// Reads a pipe to its end: everything is shown, the first `limit` bytes are kept.
pub(super) async fn drain(
    worker: &BuildWorker,
    vertex: &SolveVertex,
    mut pipe: Receiver,
    stream: u8,
    limit: usize,
) -> Kept {
    let mut buffer = vec![0; CHUNK];
    let (mut kept, mut truncated) = (Vec::new(), false);
    // A pipe that cannot be read has ended as far as this step is concerned.
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        worker.steps.output(vertex.digest, stream, &buffer[..count]);
        let room = limit - kept.len();
        truncated |= limit > 0 && count > room;
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    (kept, truncated)
}

/// A secret's value; none if the client does not offer it and need not.
pub(crate) async fn secret_value(
    worker: &BuildWorker,
    id: &str,
    required: bool,
) -> Result<Option<Vec<u8>>, Failure> {
    let value = worker.session.secret(id).await?;
    match value {
        None if required => Err(Failure::not_found(format!("the secret {id:?} is not given"))
            .hint(format!("give it with --secret id={id},src=FILE or --secret id={id},env=NAME"))),
        Some(value) if value.len() > SECRET_LIMIT => Err(Failure::new(
            FailureKind::Limit,
            format!("the secret {id:?} has more than {SECRET_LIMIT} bytes"),
        )),
        value => Ok(value),
    }
}

impl Assembly<'_> {
    fn tree(&self, source: Option<u32>) -> Result<Arc<Tree>, Failure> {
        match source {
            None => Ok(Tree::new(Vec::new())),
            Some(input) => match self.inputs.get(input as usize) {
                Some(Output::Tree(tree)) => Ok(Arc::clone(tree)),
                Some(Output::Local(_)) => Err(Failure::unsupported(
                    "a local directory cannot be the root of a process: copy from it first",
                )),
                None => Err(Failure::internal("a mount refers to an input that is not there")),
            },
        }
    }

    /// The name of each mount's cache directory; empty for other mounts. Mounts of one id that want
    /// another owner or mode, or begin with other files, have directories of their own, as a
    /// directory cannot be what all of them want.
    fn cache_names(&self, vertex: &SolveVertex, exec: &ExecOp) -> Vec<String> {
        let name = |mount: &Mount| {
            let MountKind::Cache { id, seed, seed_path, mode, .. } = &mount.kind else {
                return String::new();
            };
            let mut name = id.clone();
            if self.worker.cache_mounts.contains_key(id) {
                // A directory of the client's is as it is.
                return name;
            }
            let owner = cache_owner(mode);
            if owner != CacheOwner::default() {
                let CacheOwner { mode, uid, gid } = owner;
                name.push_str(&format!(" (mode {mode:04o}, owner {uid}:{gid})"));
            }
            if let Some(seed) = seed {
                // Known, as it is part of the step's keys.
                let content = match self.inputs.get(*seed as usize) {
                    Some(Output::Tree(tree)) => tree.result_id.get().map(|id| id.0),
                    _ => self.worker.keyed(vertex, *seed as usize).map(|content| content.0),
                };
                let content = content.map_or(String::new(), |digest| digest.short());
                name.push_str(&format!(" (begins with {content} {seed_path})"));
            }
            name
        };
        exec.mounts.iter().map(name).collect()
    }

    /// Takes all cache directories of the op, by name, before anything else is held.
    async fn lock_caches(
        &self,
        exec: &ExecOp,
        names: &[String],
    ) -> Result<BTreeMap<String, CacheMount>, Failure> {
        let mut wanted: BTreeMap<String, (CacheSharing, CacheOwner)> = BTreeMap::new();
        for (mount, name) in exec.mounts.iter().zip(names) {
            if let MountKind::Cache { sharing, mode, .. } = &mount.kind {
                let sharing = match sharing {
                    Sharing::Shared => CacheSharing::Shared,
                    Sharing::Private => CacheSharing::Private,
                    Sharing::Locked => CacheSharing::Locked,
                };
                // Of several mounts of one directory the strictest says how it is shared.
                let of_directory =
                    wanted.entry(name.clone()).or_insert_with(|| (sharing, cache_owner(mode)));
                of_directory.0 = of_directory.0.max(sharing);
            }
        }
        let mut taken = BTreeMap::new();
        for (id, (sharing, owner)) in wanted {
            let dir = CacheMount::take(self.worker, &id, sharing, owner).await?;
            taken.insert(id, dir);
        }
        Ok(taken)
    }

    fn add_slot(&mut self, target: &str, source: Source, readonly: bool, kind: &str) {
        let slot =
            u32::try_from(self.views.len()).expect("mounts are limited by the graph's limits");
        self.slots.insert(spec::slot_token(slot), source);
        self.mounts.push(MountSpec {
            target: target.to_owned(),
            kind: wbuild_exec::MountKind::Slot { slot, readonly },
        });
        self.views.push(MountView {
            slot,
            target: target.to_owned(),
            kind: kind.to_owned(),
            readonly,
            attrs: wbuild_graph::Attrs::default(),
        });
    }

    async fn mount(
        &mut self,
        mount: &Mount,
        cache: &str,
        caches: &mut BTreeMap<String, CacheMount>,
    ) -> Result<(), Failure> {
        let target = mount.target.as_str();
        match &mount.kind {
            MountKind::Bind { source, subpath, access } => {
                let local = source.and_then(|input| match self.inputs.get(input as usize) {
                    Some(Output::Local(local)) => Some((input, Arc::clone(local))),
                    _ => None,
                });
                let tree = match local {
                    // What is mounted is what was hashed: a copy, as ignore rules apply and the
                    // directory may change meanwhile.
                    Some((input, local)) => {
                        let (layer, digest) = file::import(self.worker, local, subpath).await?;
                        self.read.note(input, digest);
                        Tree::new(vec![layer])
                    }
                    None => self.tree(*source)?,
                };
                let readonly = *access == Access::Ro;
                let fd = if readonly {
                    // A mount, not the layer's own directory, which only the step's own mount
                    // options would protect.
                    let snapshots = self.worker.snapshots(&tree).await?;
                    let store = self.worker.store.clone();
                    let view = blocking(move || store.view_mount(&snapshots)).await?;
                    let (fd, lease) = view.into_parts();
                    self.keep.leases.push(lease);
                    fd
                } else {
                    self.writable(&tree, None, *access == Access::Rw).await?
                };
                let source = below(fd, subpath).await?;
                self.add_slot(target, source, readonly, "bind");
            }
            MountKind::Cache { seed, seed_path, readonly, .. } => {
                if let Some(mut dir) = caches.remove(cache) {
                    Box::pin(cache_mount::restore(self.worker, cache, &mut dir)).await?;
                    if dir.is_fresh() {
                        if let Some(seed) = seed {
                            let from = self.inputs.get(*seed as usize).ok_or_else(|| {
                                Failure::internal("a cache mount's seed is not there")
                            })?;
                            file::seed(self.worker, from, seed_path, &dir.path()).await?;
                        }
                        dir.mark_ready()?;
                    }
                    self.cache_paths.insert(cache.to_owned(), dir.path());
                    self.keep.caches.push(dir);
                }
                // Two mounts of one name share the directory that was taken for it.
                let path = self.cache_paths.get(cache).ok_or_else(|| {
                    Failure::internal(format!(
                        "no directory was taken for the cache mount {cache:?}"
                    ))
                })?;
                let fd = open_path(path)?;
                self.add_slot(target, Source::Path(fd), *readonly, "cache");
            }
            MountKind::Tmpfs { size, mode } => {
                self.mounts.push(MountSpec {
                    target: target.to_owned(),
                    kind: wbuild_exec::MountKind::Tmpfs { size: *size, mode: mode.mode },
                });
            }
            MountKind::Secret { id, required, mode } => {
                if let Some(value) = secret_value(self.worker, id, *required).await? {
                    let content = Content {
                        data: value.into(),
                        mode: mode.mode.unwrap_or(0o400),
                        uid: mode.uid,
                        gid: mode.gid,
                    };
                    self.add_slot(target, Source::Content(content), true, "secret");
                }
            }
            MountKind::Ssh { id, required, mode } => match self.worker.session.ssh_socket(id) {
                Some(path) => {
                    let folder = self.worker.store.begin_snapshot()?;
                    let (agent, socket) = LentAgent::lend(folder.fs(), path, mode)?;
                    self.keep.discarded.push(folder);
                    self.keep.agents.push(agent);
                    self.add_slot(target, Source::Path(socket), false, "ssh");
                }
                None if *required => {
                    return Err(Failure::not_found(format!("the ssh agent {id:?} is not given"))
                        .hint(format!("give it with --ssh {id}")));
                }
                None => {}
            },
        }
        Ok(())
    }

    /// `/etc/hosts` and `/etc/resolv.conf`, unless the step mounts its own.
    fn system_files(
        &mut self,
        hostname: &str,
        hosts: &[(String, String)],
        network: Network,
    ) -> Result<(), Failure> {
        let resolv = match network {
            Network::None => String::new(),
            _ => files::resolv_conf(self.worker.launchers.resolv_conf(), false),
        };
        let texts = [("/etc/hosts", files::hosts(hostname, hosts)?), ("/etc/resolv.conf", resolv)];
        for (path, text) in texts {
            if !self.mounts.iter().any(|mount| mount.target == path) {
                let content = Content::readable(text.into_bytes());
                self.add_slot(path, Source::Content(content), true, "file");
            }
        }
        Ok(())
    }

    /// A writable overlay over a tree. `keep`: its writes become an output.
    async fn writable(
        &mut self,
        tree: &Arc<Tree>,
        stubs: Option<OwnedFd>,
        keep: bool,
    ) -> Result<OwnedFd, Failure> {
        let snapshots: Vec<SnapshotId> = self.worker.snapshots(tree).await?;
        let store = self.worker.store.clone();
        let (fd, lease, builder) = blocking(move || -> Result<_, Failure> {
            let builder = store.begin_snapshot()?;
            let (fd, lease) = store.writable(&snapshots, &builder, stubs)?.into_parts();
            Ok((fd, lease, builder))
        })
        .await?;
        self.keep.leases.push(lease);
        if keep {
            self.outputs.push(Writable { builder, below: Arc::clone(tree) });
        } else {
            self.keep.discarded.push(builder);
        }
        Ok(fd)
    }

    /// The root with its mount points, and its place among the outputs.
    async fn root(
        &mut self,
        tree: &Arc<Tree>,
        view: &wbuild_store::View,
        access: Access,
        place: usize,
    ) -> Result<Source, Failure> {
        let stub_builder = self.worker.store.begin_snapshot()?;
        let is_file = |mount: &MountSpec| match &mount.kind {
            wbuild_exec::MountKind::Slot { slot, .. } => {
                self.slots.get(&spec::slot_token(*slot)).is_some_and(is_file)
            }
            wbuild_exec::MountKind::Tmpfs { .. } => false,
        };
        let targets: Vec<stubs::Target<'_>> = stubs::SYSTEM_TARGETS
            .into_iter()
            .chain(self.mounts.iter().map(|mount| stubs::Target {
                path: &mount.target,
                kind: if is_file(mount) { TargetKind::File } else { TargetKind::Directory },
            }))
            .collect();
        let made = stubs::make(view.as_fd(), &targets, stub_builder.fs())?;
        let stub_layer = if made.needed {
            let fd = stub_builder.fs().try_clone_to_owned().map_err(|error| {
                Failure::internal("cannot duplicate a directory descriptor").cause(&error)
            })?;
            self.keep.discarded.push(stub_builder);
            Some(fd)
        } else {
            None
        };
        let fd = self.writable(tree, stub_layer, access == Access::Rw).await?;
        if access == Access::Rw {
            let root = self.outputs.pop().expect("just pushed");
            self.outputs.insert(place, root);
        }
        Ok(Source::Mount(fd))
    }
}

/// Owner and mode of a new cache directory.
fn cache_owner(mode: &MountMode) -> CacheOwner {
    CacheOwner { mode: mode.mode.unwrap_or(0o755), uid: mode.uid, gid: mode.gid }
}

/// Whether a source is a file, not a directory.
fn is_file(source: &Source) -> bool {
    match source {
        Source::Content(_) => true,
        Source::Below { is_file, .. } => *is_file,
        Source::Mount(fd) | Source::Path(fd) => rustix::fs::fstat(fd).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory
        }),
    }
}

/// The part of a detached mount that a step sees.
async fn below(mount: OwnedFd, subpath: &str) -> Result<Source, Failure> {
    let path = RelPath::clean(subpath)?;
    if path.is_root() {
        return Ok(Source::Mount(mount));
    }
    let subpath = subpath.to_owned();
    blocking(move || -> Result<Source, Failure> {
        let missing =
            || Failure::not_found(format!("the source of a mount, {subpath:?}, does not exist"));
        let duplicate = mount.try_clone().map_err(|error| {
            Failure::internal("cannot duplicate a directory descriptor").cause(&error)
        })?;
        let root = Root::from_fd(duplicate, "the source of a mount");
        let found = root.follow(&path, true)?;
        let stat = found.stat.ok_or_else(missing)?;
        let path = String::from_utf8(found.path.as_bytes().to_vec()).map_err(|_| {
            Failure::unsupported(format!("the source of a mount, {subpath:?}, is not UTF-8"))
        })?;
        Ok(Source::Below { mount, path, is_file: !stat.is_dir() })
    })
    .await
}

fn open_path(path: &std::path::Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| Failure::internal(format!("cannot open {}", path.display())).cause(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_a_command_and_no_megabytes() {
        let message = |arg: String| {
            let exec = ExecOp::new(vec!["echo".to_owned(), arg]);
            check_exit(&exec, 1).expect_err("it failed").message
        };
        let said = "process \"echo é\" did not complete successfully: exit code: 1";
        assert_eq!(message("é".to_owned()), said);
        let room = COMMAND_SHOWN - "echo ".len();
        assert!(!message("x".repeat(room)).contains('…'));
        assert!(message("x".repeat(room + 1)).contains("x…\""));
        assert!(message("é".repeat(1 << 20)).len() < COMMAND_SHOWN + 100);
    }
}
