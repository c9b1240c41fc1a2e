//! The process that runs a plugin, or compiles one.

mod caps;
mod link;

use std::ffi::OsString;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wbuild_api::extension::{CacheBackend, CacheHost, FrontendHost, RunnerHost};
use wbuild_graph::Failure;
use wbuild_plugin::{Adopter, Border, Compiler, Limits, Plugin, PluginKind};

use self::caps::Remote;
use self::link::Link;
use crate::confine::{self, Resources, Stage, WithoutLandlock};
use crate::protocol::{Done, FromChild, Start, Task};

/// First argument of a child that runs a plugin.
pub(crate) const RUN: &str = "run";
/// First argument of a child that looks at one.
pub(crate) const READ: &str = "read";
/// First argument of a child that compiles one.
pub(crate) const COMPILE: &str = "compile";
/// Third argument where a kernel without Landlock is accepted.
pub(crate) const UNLOCKED: &str = "without-landlock";
/// Third argument else.
pub(crate) const LOCKED: &str = "with-landlock";

/// Exit code of a child that could not do its work and has said why.
const FAILED: i32 = 1;
/// Exit code of a child that has a bug.
pub(crate) const PANICKED: i32 = 101;
/// Memory that a compiler may use, in bytes.
const COMPILER_MEMORY: u64 = 3 << 30;

/// Runs the child whose arguments, after the hidden subcommand, are `args`. Answers its exit code.
/// To be called before the process has a second thread.
pub fn child_main(args: &[OsString]) -> i32 {
    // A backtrace would open files.
    std::panic::set_hook(Box::new(|_| std::process::exit(PANICKED)));
    let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    let [mode, parent, landlock] = words[..] else { return PANICKED };
    let without = match landlock {
        UNLOCKED => WithoutLandlock::Accept,
        _ => WithoutLandlock::Refuse,
    };
    let detached = confine::detach(parent.parse().unwrap_or(0));
    let link = Arc::new(Link::inherited());
    let ended = detached.and_then(|()| match mode {
        RUN => run(&link, without),
        READ => read(&link, without),
        COMPILE => compile(&link, without),
        _ => Err(gone()),
    });
    match ended {
        // Nothing is torn down: that would take system calls for nothing.
        Ok(()) => std::process::exit(0),
        Err(failure) => {
            link.say(&FromChild::Done(Err(failure)));
            FAILED
        }
    }
}

fn read(link: &Link, without: WithoutLandlock) -> Result<(), Failure> {
    let (name, bytes) = component(link, without, || Ok(()))?.0;
    link.say(&FromChild::Done(Border::read(&name, &bytes).map(Done::Border)));
    Ok(())
}

fn compile(link: &Link, without: WithoutLandlock) -> Result<(), Failure> {
    let ((name, bytes), compiler) = component(link, without, Compiler::new)?;
    link.say(&FromChild::Done(compiler.compile(&name, &bytes).map(Done::Code)));
    Ok(())
}

/// The component that a child is given, with its name; read once everything is given up that can be.
/// What `prepare` makes is made just before.
fn component<T>(
    link: &Link,
    without: WithoutLandlock,
    prepare: impl FnOnce() -> Result<T, Failure>,
) -> Result<((String, Vec<u8>), T), Failure> {
    let (name, seconds): (String, u64) = link.hear().ok_or_else(gone)?;
    let component = confine::given()?;
    let cpu = Some(Duration::from_secs(seconds));
    confine::renounce(Resources { memory: COMPILER_MEMORY, cpu })?;
    confine::landlock(None, without)?;
    let prepared = prepare()?;
    let size = component.metadata().map_err(|error| unread(&error))?.len();
    confine::seccomp(Stage::Running)?;
    let mut bytes = vec![0; usize::try_from(size).map_err(|error| unread(&error))?];
    component.read_exact_at(&mut bytes, 0).map_err(|error| unread(&error))?;
    Ok(((name, bytes), prepared))
}

fn gone() -> Failure {
    Failure::internal("nothing was asked of a plugin's process")
}

fn unread(error: &dyn std::error::Error) -> Failure {
    Failure::internal("a plugin's process cannot read what it was given").cause(&error)
}

/// What the process may use, whatever its guest says.
fn resources(kind: PluginKind, limits: &Limits) -> Resources {
    let held = limits.memory_bytes.saturating_add(limits.buffered_bytes.saturating_mul(2));
    Resources {
        memory: u64::try_from(held).unwrap_or(u64::MAX),
        // A backend's is by call, which the parent looks after.
        cpu: (kind != PluginKind::Cache).then(|| limits.cpu * 2 + Duration::from_secs(1)),
    }
}

fn run(link: &Arc<Link>, without: WithoutLandlock) -> Result<(), Failure> {
    let Start { known, repository, http, facts, task } = link.hear().ok_or_else(gone)?;
    let code = confine::given()?;
    confine::renounce(resources(known.kind(), &known.limits()))?;
    confine::landlock(Some(&code), without)?;
    let adopter = Adopter::new(known.kind(), known.limits())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| Failure::internal("a plugin's process has no runtime").cause(&error))?;
    confine::seccomp(Stage::Loading)?;
    let begin = Instant::now();
    let plugin = adopter.adopt(&known, &code)?;
    let loaded = begin.elapsed();
    confine::seccomp(Stage::Running)?;
    let remote = Arc::new(Remote { link: Arc::clone(link), facts });
    runtime.block_on(async {
        if matches!(task, Task::Connect) {
            return serve(link, &plugin, &remote, repository, http).await;
        }
        let done = match task {
            Task::Measure => {
                let started = plugin.start_times(3).await;
                let started = started.map(|times| times.iter().min().map_or(0, nanoseconds));
                Ok(Done::Measured(nanoseconds(&loaded), started))
            }
            task => once(&plugin, &remote, task).await,
        };
        link.say(&FromChild::Done(done));
        Ok(())
    })
}

fn nanoseconds(time: &Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Does what is done once in a fresh instance.
async fn once(plugin: &Plugin, remote: &Arc<Remote>, task: Task) -> Result<Done, Failure> {
    Ok(match task {
        Task::Build => {
            plugin.frontend()?.build(frontend_host(remote)).await?;
            Done::Nothing
        }
        Task::Describe(query) => {
            Done::Described(plugin.frontend()?.describe(frontend_host(remote), query).await?)
        }
        Task::Supports(platforms) => {
            Done::Offers(plugin.runner()?.supports(runner_host(remote), platforms).await?)
        }
        Task::MakePlan(job) => {
            Done::Plan(Box::new(plugin.runner()?.make_plan(runner_host(remote), *job).await?))
        }
        _ => return Err(gone()),
    })
}

/// Serves a cache backend for as long as the parent asks.
async fn serve(
    link: &Link,
    plugin: &Plugin,
    remote: &Arc<Remote>,
    repository: bool,
    http: bool,
) -> Result<(), Failure> {
    let host = CacheHost {
        kv: Arc::clone(remote) as _,
        blobs: Arc::clone(remote) as _,
        repository: repository.then(|| Arc::clone(remote) as _),
        http: http.then(|| Arc::clone(remote) as _),
        log: Arc::clone(remote) as _,
    };
    let backend = plugin.cache()?.connect(host).await?;
    link.say(&FromChild::Done(Ok(Done::Nothing)));
    while let Some(task) = link.hear() {
        let done = call(&*backend, task).await;
        link.say(&FromChild::Done(done));
    }
    Ok(())
}

async fn call(backend: &dyn CacheBackend, task: Task) -> Result<Done, Failure> {
    Ok(match task {
        Task::Open(mode, config) => {
            backend.open(mode, config).await?;
            Done::Nothing
        }
        Task::Find(keys) => Done::Records(backend.find(keys).await?),
        Task::Fetch(layers) => Done::Each(backend.fetch(layers).await?),
        Task::Save(entries) => {
            backend.save(entries).await?;
            Done::Nothing
        }
        Task::Push(layers) => Done::Each(backend.push(layers).await?),
        Task::Commit => Done::Attrs(backend.commit().await?),
        Task::Prune(options) => Done::Attrs(backend.prune(options).await?),
        _ => return Err(gone()),
    })
}

fn frontend_host(remote: &Arc<Remote>) -> FrontendHost {
    FrontendHost {
        graph: Arc::clone(remote) as _,
        inspect: Arc::clone(remote) as _,
        request: Arc::clone(remote) as _,
        diagnostics: Arc::clone(remote) as _,
        results: Arc::clone(remote) as _,
        nested: Arc::clone(remote) as _,
        log: Arc::clone(remote) as _,
    }
}

fn runner_host(remote: &Arc<Remote>) -> RunnerHost {
    RunnerHost {
        machine: Arc::clone(remote) as _,
        clamp: Arc::clone(remote) as _,
        log: Arc::clone(remote) as _,
    }
}
