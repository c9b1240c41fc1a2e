//! Benchmarks: wbuild, the physical floor of each workload beside it, and if asked for another
//! builder, one after the other in one run.
//!
//! ```text
//! cargo run --release -p wbuild-tests --bin wbuild-bench -- [--runs N] [--only NAME,…]
//!     [--scale F] [--peer docker] [--kills N | --power-cuts N] [--dir DIR]
//! ```
//!
//! Measures the wbuild that cargo built beside it (`WBUILD_BIN` names another). Figures are wall
//! times of whole processes in milliseconds; compare those of one run only. `--kills` then ends so
//! many builds by SIGKILL on the state directory that the figures were measured on, and checks that
//! nothing that was acknowledged is lost; `--power-cuts` measures on a disk of its own (root and
//! loop devices needed) and then cuts its power so many times.

mod caches;
mod earthfiles;
mod floors;
mod memory;
mod platforms;
mod registries;
mod workloads;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use wbuild_tests::container::Container;
use wbuild_tests::disk::Disk;
use wbuild_tests::kills;
use wbuild_tests::peer::Docker;
use wbuild_tests::run::Run;
use wbuild_tests::sandbox::Sandbox;

struct Options {
    runs: usize,
    only: Vec<String>,
    scale: f64,
    docker: bool,
    kills: u32,
    power_cuts: u32,
    dir: Option<PathBuf>,
}

fn options() -> Result<Options> {
    let mut options = Options {
        runs: 5,
        only: Vec::new(),
        scale: 1.0,
        docker: false,
        kills: 0,
        power_cuts: 0,
        dir: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--runs" => options.runs = value()?.parse().context("--runs")?,
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            "--scale" => options.scale = value()?.parse().context("--scale")?,
            "--kills" => options.kills = value()?.parse().context("--kills")?,
            "--power-cuts" => options.power_cuts = value()?.parse().context("--power-cuts")?,
            "--dir" => options.dir = Some(value()?.into()),
            "--peer" => match value()?.as_str() {
                "docker" => options.docker = true,
                other => bail!("no peer {other:?}; there is docker"),
            },
            other => bail!("unknown option {other:?}; see the top of tests/bench/main.rs"),
        }
    }
    ensure!(options.runs > 0, "--runs must not be 0");
    Ok(options)
}

/// Size of the disk that loses its power, in bytes.
const DISK: u64 = 16 << 30;

fn main() -> Result<()> {
    let options = options()?;
    let folder = match &options.dir {
        Some(dir) => dir.clone(),
        None => wbuild_tests::scratch()?.join("bench"),
    };
    let contexts = prepare_contexts(&folder, &options)?;
    // Outlives what is on it.
    let disk = match options.power_cuts {
        0 => None,
        _ => Some(Disk::new(&folder, DISK)?),
    };
    let sandbox = match &disk {
        Some(disk) => Sandbox::below(disk.path(), "bench")?,
        None => Sandbox::new("bench")?,
    };
    let docker = if options.docker {
        let docker = Docker::start()?;
        docker.load_base()?;
        Some(docker)
    } else {
        None
    };
    println!("{}", wbuild_tests::wbuild_program()?.display());
    println!("{} runs each, scale {}, load {}", options.runs, options.scale, load());
    println!("{:<26} {:>9} {:>9} {:>9}   {:>7}  floor, ms", "ms", "min", "median", "max", "×floor");
    let container = Container::prepare()?;
    let bench = Bench { options, contexts, sandbox, docker, container, aside: RefCell::new(0) };
    bench.all()?;
    println!("load {}", load());
    let seed = u64::from(std::process::id());
    let ended = |rounds: u32, disk: Option<&Disk>| -> Result<()> {
        let started = Instant::now();
        let seen = kills::run(&bench.sandbox, rounds, seed, disk)?;
        println!("{seen:?} in {:.0?}: nothing acknowledged was lost", started.elapsed());
        Ok(())
    };
    if bench.options.kills > 0 {
        ended(bench.options.kills, None)?;
    }
    if bench.options.power_cuts > 0 {
        ended(bench.options.power_cuts, disk.as_ref())?;
    }
    Ok(())
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Writes the contexts that are not there yet.
fn prepare_contexts(folder: &Path, options: &Options) -> Result<PathBuf> {
    let contexts = folder.join(format!("contexts-{}", options.scale));
    for (name, write) in workloads::ALL {
        let to = contexts.join(name);
        if ["Dockerfile", "Earthfile"].iter().any(|name| to.join(name).is_file()) {
            continue;
        }
        let part = contexts.join(format!("{name}.part"));
        floors::remove(&part)?;
        write(&part, options.scale)?;
        std::fs::rename(&part, &to)?;
    }
    Ok(contexts)
}

/// Wall times of several runs.
struct Times(Vec<Duration>);

impl Times {
    /// Each time `before` and then, timed, `measured`.
    fn of(
        runs: usize,
        mut before: impl FnMut(usize) -> Result<()>,
        mut measured: impl FnMut(usize) -> Result<Duration>,
    ) -> Result<Times> {
        let mut times = Vec::new();
        for run in 0..runs {
            before(run)?;
            times.push(measured(run)?);
        }
        times.sort();
        Ok(Times(times))
    }

    fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }
}

struct Bench {
    options: Options,
    contexts: PathBuf,
    sandbox: Sandbox,
    docker: Option<Docker>,
    container: Option<Container>,
    /// How many things were set aside.
    aside: RefCell<usize>,
}

/// A build that changes nothing is short: it is run more often.
const SHORT: usize = 3;

impl Bench {
    fn all(&self) -> Result<()> {
        self.when("tiny", Self::tiny)?;
        self.when("noop", Self::noop)?;
        self.when("run1", Self::run1)?;
        self.when("run50", Self::run50)?;
        self.when("parallel8", Self::parallel8)?;
        self.when("context", Self::context)?;
        self.when("copyfrom10k", Self::copyfrom10k)?;
        self.when("parse2000", Self::parse2000)?;
        self.when("graph500", Self::graph500)?;
        self.when("targets100", Self::targets100)?;
        self.when("conditions20", Self::conditions20)?;
        self.when("caches", Self::caches)?;
        self.when("export500", Self::export500)?;
        self.when("push500", Self::push500)?;
        self.when("pull500", Self::pull500)?;
        self.when("emulated", Self::emulated)?;
        self.when("everywhere", Self::everywhere)?;
        self.when("memory4g", Self::memory4g)
    }

    fn when(&self, name: &str, measure: fn(&Self) -> Result<()>) -> Result<()> {
        if self.options.only.is_empty() || self.options.only.iter().any(|only| only == name) {
            measure(self).with_context(|| format!("the workload {name}"))?;
        }
        Ok(())
    }

    fn path(&self, workload: &str) -> PathBuf {
        self.contexts.join(workload)
    }

    /// wbuild on a workload: how long it took.
    fn build(&self, workload: &str, args: &[&str]) -> Result<Duration> {
        Ok(self.run(workload, args)?.took)
    }

    /// wbuild on a workload.
    fn run(&self, workload: &str, args: &[&str]) -> Result<Run> {
        let base = format!("base=oci-layout://{}", wbuild_tests::base::layout()?.display());
        let context = self.path(workload).display().to_string();
        let all: Vec<&str> = ["build", "--progress=plain", "--build-context", &base]
            .into_iter()
            .chain(args.iter().copied())
            .chain([context.as_str()])
            .collect();
        Run::of(&mut self.sandbox.wbuild(all)?)?.success()
    }

    fn forget(&self) -> Result<()> {
        floors::remove(&self.sandbox.path("state"))
    }

    /// Docker's BuildKit on a workload, if it is asked for.
    fn peer(&self, workload: &str, args: &[&str]) -> Result<Option<Duration>> {
        let Some(docker) = &self.docker else { return Ok(None) };
        let context = self.path(workload).display().to_string();
        let all: Vec<&str> = ["build", "--quiet", "--network=host"]
            .into_iter()
            .chain(args.iter().copied())
            .chain([context.as_str()])
            .collect();
        Ok(Some(docker.client(&all)?.success()?.took))
    }

    /// Like [`Bench::forget`] without a removal: ext4 gives an inode that was freed in the last
    /// minute to nobody, and steps over each of them when it makes a file. Removing thousands of
    /// files costs the build after it more than all its own work.
    fn set_aside(&self) -> Result<()> {
        self.put_aside(&self.sandbox.path("state"))
    }

    fn put_aside(&self, path: &Path) -> Result<()> {
        if path.exists() {
            let aside = self.aside.replace_with(|number| *number + 1);
            std::fs::rename(path, self.sandbox.path(format!("aside-{aside}")))?;
        }
        Ok(())
    }

    /// Removes what was set aside.
    fn clear_aside(&self) -> Result<()> {
        let count = self.aside.take();
        (0..count)
            .try_for_each(|number| floors::remove(&self.sandbox.path(format!("aside-{number}"))))
    }

    fn forget_peer(&self) -> Result<()> {
        if let Some(docker) = &self.docker {
            docker.client(&["builder", "prune", "--all", "--force"])?.success()?;
        }
        Ok(())
    }

    fn show(&self, name: &str, times: &Times, floor: Option<(&str, Duration)>) {
        let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1_000.0);
        let (ratio, floor) = match floor {
            Some((what, floor)) => {
                let ratio = times.median().as_secs_f64() / floor.as_secs_f64();
                (format!("{ratio:.2}"), format!("{what} {}", ms(floor)))
            }
            None => (String::new(), String::new()),
        };
        println!(
            "{name:<26} {:>9} {:>9} {:>9}   {ratio:>7}  {floor}",
            ms(times.0[0]),
            ms(times.median()),
            ms(times.0[times.0.len() - 1])
        );
    }

    /// Measures wbuild, then the peer the same way, and shows both.
    fn compare(
        &self,
        name: &str,
        runs: usize,
        floor: Option<(&str, Duration)>,
        before: impl Fn(usize) -> Result<()>,
        ours: impl Fn(usize) -> Result<Duration>,
        theirs: impl Fn(usize) -> Result<Option<Duration>>,
    ) -> Result<()> {
        let times = Times::of(runs, &before, &ours)?;
        self.show(name, &times, floor);
        if self.docker.is_some() {
            let peer = Times::of(runs, &before, |run| theirs(run)?.context("there is a peer"))?;
            self.show("  docker", &peer, Some(("wbuild", times.median())));
        }
        Ok(())
    }

    fn median_of(&self, measured: impl Fn() -> Result<Duration>) -> Result<Duration> {
        Ok(Times::of(self.options.runs, |_| Ok(()), |_| measured())?.median())
    }

    /// The floor of so many steps that do nothing.
    fn runtime(&self, count: u32) -> Result<Option<(&'static str, Duration)>> {
        let Some(container) = &self.container else { return Ok(None) };
        Ok(Some(("crun", self.median_of(|| container.times(count))?)))
    }

    /// A build of a known definition.
    fn unchanged(&self, name: &str, workload: &str, floor: (&str, Duration)) -> Result<()> {
        self.build(workload, &[])?;
        self.peer(workload, &[])?;
        self.compare(
            name,
            self.options.runs * SHORT,
            Some(floor),
            |_| Ok(()),
            |_| self.build(workload, &[]),
            |_| self.peer(workload, &[]),
        )
    }

    fn tiny(&self) -> Result<()> {
        let floor = self.median_of(floors::process)?;
        self.unchanged("noop, 2 steps", "tiny", ("fork+exec", floor))
    }

    fn noop(&self) -> Result<()> {
        let floor = self.median_of(|| floors::stat_walk(&self.path("noop")))?;
        self.unchanged("noop, 21 steps", "noop", ("stat walk", floor))
    }

    fn run1(&self) -> Result<()> {
        self.uncached("run1, not cached", "run1", self.runtime(1)?)
    }

    fn run50(&self) -> Result<()> {
        self.uncached("run50, not cached", "run50", self.runtime(50)?)
    }

    fn parallel8(&self) -> Result<()> {
        let floor = Some(("sleep", Duration::from_secs(1)));
        // Sleepers need no processor: as many as there are stages.
        self.build("parallel8", &["--jobs=8"])?;
        self.peer("parallel8", &[])?;
        self.compare(
            "parallel8, not cached",
            self.options.runs,
            floor,
            |_| Ok(()),
            |_| self.build("parallel8", &["--no-cache", "--jobs=8"]),
            |_| self.peer("parallel8", &["--no-cache"]),
        )
    }

    /// A build whose base is known and whose steps run.
    fn uncached(&self, name: &str, workload: &str, floor: Option<(&str, Duration)>) -> Result<()> {
        self.build(workload, &[])?;
        self.peer(workload, &[])?;
        self.compare(
            name,
            self.options.runs,
            floor,
            |_| Ok(()),
            |_| self.build(workload, &["--no-cache"]),
            |_| self.peer(workload, &["--no-cache"]),
        )
    }

    fn context(&self) -> Result<()> {
        let context = self.path("context");
        let copied = self.sandbox.path("copied");
        // Read once, so that nobody's first run pays for the disk.
        floors::copy(&context, &copied, false)?;
        let copy = self.median_of(|| floors::copy(&context, &copied, false))?;
        self.compare(
            "context, first",
            self.options.runs,
            Some(("cp -a", copy)),
            |_| self.forget().and_then(|()| self.forget_peer()),
            |_| self.build("context", &[]),
            |_| self.peer("context", &[]),
        )?;

        let walk = self.median_of(|| floors::stat_walk(&context))?;
        self.unchanged("context, unchanged", "context", ("stat walk", walk))?;

        // Every run changes it, for both builders alike.
        let changed = context.join("src/d0/s0/f0.txt");
        let original = std::fs::read(&changed)?;
        let change = |mark: &str, run: usize| -> Result<()> {
            std::fs::write(&changed, format!("{mark} {run} {}", std::process::id()))?;
            Ok(())
        };
        let result = self.compare(
            "context, one file changed",
            self.options.runs,
            Some(("stat walk", walk)),
            |_| Ok(()),
            |run| change("ours", run).and_then(|()| self.build("context", &[])),
            |run| change("theirs", run).and_then(|()| self.peer("context", &[])),
        );
        std::fs::write(&changed, original)?;
        result
    }

    fn copyfrom10k(&self) -> Result<()> {
        self.build("copyfrom10k", &[])?;
        self.peer("copyfrom10k", &[])?;
        let files = self.sandbox.path("files");
        self.build("copyfrom10k", &[&format!("--output={}", files.display())])?;
        let copied = self.sandbox.path("copied");
        let copy = self.median_of(|| floors::copy(&files, &copied, false))?;
        let links = self.median_of(|| floors::copy(&files, &copied, true))?;
        let nonce = |run: usize| format!("--build-arg=NONCE={}-{run}", std::process::id());
        self.compare(
            "copyfrom10k",
            self.options.runs,
            Some(("cp -a", copy)),
            |_| Ok(()),
            |run| self.build("copyfrom10k", &[&nonce(run)]),
            |run| self.peer("copyfrom10k", &[&nonce(run)]),
        )?;
        println!("  as hard links, cp -al: {:.1}", links.as_secs_f64() * 1_000.0);
        Ok(())
    }

    /// Without the peer: the time of Debian's BuildKit grows with the square of the instructions.
    fn parse2000(&self) -> Result<()> {
        let floor = Some(("fork+exec", self.median_of(floors::process)?));
        self.build("parse2000", &[])?;
        let runs = self.options.runs;
        let times = Times::of(runs * SHORT, |_| Ok(()), |_| self.build("parse2000", &[]))?;
        self.show("parse2000, unchanged", &times, floor);
        let argument = |run: usize| format!("--build-arg=V0={}-{run}", std::process::id());
        let times = Times::of(runs, |_| Ok(()), |run| self.build("parse2000", &[&argument(run)]))?;
        self.show("parse2000, other argument", &times, floor);
        Ok(())
    }

    /// 500 vertices that are next to no work: what a vertex costs.
    fn graph500(&self) -> Result<()> {
        let work = self.sandbox.path("records");
        let records = self.median_of(|| floors::records(&work, 500))?;
        self.compare(
            "graph500, cold",
            self.options.runs,
            Some(("500 renames, syncfs", records)),
            |_| self.set_aside(),
            |_| self.build("graph500", &[]),
            |_| self.peer("graph500", &["--no-cache"]),
        )?;
        self.clear_aside()?;
        let walk = self.median_of(|| floors::stat_walk(&self.path("graph500")))?;
        self.unchanged("graph500, unchanged", "graph500", ("stat walk", walk))
    }

    fn export500(&self) -> Result<()> {
        let context = self.path("export500");
        let file = self.sandbox.path("out.tar");
        for compression in ["uncompressed", "gzip", "zstd"] {
            let floor = self.median_of(|| floors::archive(&context, &file, compression))?;
            let output =
                format!("--output=type=oci,compression={compression},dest={}", file.display());
            // Compressed layers are kept: without the state they are made anew.
            let times = Times::of(
                self.options.runs,
                |_| {
                    self.forget()?;
                    self.build("export500", &[])?;
                    Ok(())
                },
                |_| self.build("export500", &[&output]),
            )?;
            let what = if compression == "gzip" { "tar | pigz" } else { "tar" };
            self.show(&format!("export500, {compression}"), &times, Some((what, floor)));
            // Not even copied before.
            let times = Times::of(
                self.options.runs,
                |_| self.forget(),
                |_| self.build("export500", &[&output]),
            )?;
            self.show(&format!("export500, {compression}, new"), &times, Some((what, floor)));
            let again =
                Times::of(self.options.runs, |_| Ok(()), |_| self.build("export500", &[&output]))?;
            self.show(&format!("export500, {compression} again"), &again, None);
        }
        let folder = self.sandbox.path("out");
        let copied = self.sandbox.path("copied");
        let copy = self.median_of(|| floors::copy(&context, &copied, false))?;
        let output = format!("--output=type=local,dest={}", folder.display());
        let peer_output = output.clone();
        self.compare(
            "export500, local",
            self.options.runs,
            Some(("cp -a", copy)),
            |_| floors::remove(&folder),
            |_| self.build("export500", &[&output]),
            |_| self.peer("export500", &[&peer_output]),
        )
    }
}
