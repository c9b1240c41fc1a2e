//! The harness: parts the test binary plays, a machine with a launcher, cases, and looks at what is
//! left behind.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::future::Future;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use wbuild_exec::namespace::{self, Entered};
use wbuild_exec::runtime::{self, ProbeOptions};
use wbuild_exec::{
    ExecSpec, Exit, Launcher, LauncherOptions, MountKind, MountSpec, RunningStep, RuntimeInfo,
    Source, Step, launcher_main, output, spec,
};
use wbuild_graph::Failure;

/// Why a test did not run.
pub struct Skip(pub String);

type Test = fn(&Machine) -> Result<(), Skip>;

const LAUNCHER: &str = "__launcher";
const SEARCH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

static FILTERS: OnceLock<Vec<String>> = OnceLock::new();

fn search() -> Vec<PathBuf> {
    SEARCH.iter().map(PathBuf::from).collect()
}

/// Whether a test was named on the command line.
pub fn asked_for(name: &str) -> bool {
    FILTERS.get().is_some_and(|filters| filters.iter().any(|filter| filter == name))
}

/// Plays the part the arguments ask for; by default runs the tests.
pub fn main(tests: &[(&str, Test)]) {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.first().and_then(|first| first.to_str()) {
        Some(LAUNCHER) => std::process::exit(launcher_main(&args[0], &args[1..])),
        Some("__main") => play_main(&args[1..]),
        _ => {}
    }
    let words: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let filters: Vec<String> =
        words.iter().filter(|word| !word.starts_with('-')).cloned().collect();
    if words.iter().any(|word| word == "--list") {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return;
    }
    FILTERS.get_or_init(|| filters.clone());
    let runtimes = runtime::find(&search());
    let lacking = if runtimes.is_empty() {
        Some("neither crun nor runc is installed".to_owned())
    } else if runtime::find_program("busybox", &search()).is_none() {
        Some("busybox is not installed".to_owned())
    } else {
        None
    };
    // Before any thread: this process takes the part of wbuild's main.
    let entered = match lacking {
        Some(why) => Err(why),
        None => namespace::enter(&search()).map_err(|failure| failure.to_string()),
    };
    let entered = match entered {
        Ok(entered) => entered,
        Err(why) => return skip("containers", &why),
    };
    let mut failed = 0;
    for runtime in runtimes {
        let machine = match Machine::new(runtime.clone(), entered.clone()) {
            Ok(machine) => machine,
            Err(why) => {
                skip(runtime.kind.as_str(), &why.to_string());
                continue;
            }
        };
        for (name, test) in tests {
            let wanted = filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()));
            if !wanted {
                continue;
            }
            let start = Instant::now();
            let run = std::panic::AssertUnwindSafe(|| test(&machine));
            let verdict = match std::panic::catch_unwind(run) {
                Ok(Ok(())) => match machine.leftovers() {
                    left if left.is_empty() => "ok",
                    left => {
                        eprintln!("left mounted: {left:?}");
                        failed += 1;
                        "FAILED"
                    }
                },
                Ok(Err(Skip(why))) => {
                    skip(name, &why);
                    "skipped"
                }
                Err(_) => {
                    failed += 1;
                    "FAILED"
                }
            };
            println!("test {} {name} ... {verdict} ({:?})", runtime.kind, start.elapsed());
        }
    }
    if failed > 0 {
        println!("{failed} failed");
        std::process::exit(101);
    }
}

fn skip(name: &str, why: &str) {
    eprintln!("skipped: {name}: {why}");
    assert!(
        std::env::var_os("WBUILD_TEST_REQUIRE").is_none_or(|value| value != "1"),
        "{name} was skipped where it must not be: {why}"
    );
}

/// The part of a main process that is to be killed: `<runtime> <marker> <root>`.
fn play_main(args: &[OsString]) -> ! {
    let word = |n: usize| args[n].to_str().unwrap().to_owned();
    let (kind, marker, root) = (word(0), word(1), PathBuf::from(word(2)));
    let entered = namespace::enter(&search()).unwrap();
    let runtime = runtime::find(&search()).into_iter().find(|r| r.kind.as_str() == kind).unwrap();
    let machine = Machine::new(runtime, entered).unwrap();
    machine.block_on(async {
        let mut running = Vec::new();
        for _ in 0..3 {
            let mut case = machine.case();
            case.set_root(Source::Path(fs::File::open(&root).unwrap().into()));
            let script = format!("setsid sleep {marker} & sleep {marker}; true");
            running.push(case.begin(&script));
        }
        std::io::stdout().write_all(b"ready\n").unwrap();
        std::io::stdout().flush().unwrap();
        let (mut first, ..) = running.remove(0);
        let _ = first.wait().await;
    });
    std::process::exit(3)
}

/// A machine with one runtime and a launcher for it.
pub struct Machine {
    pub runtime: RuntimeInfo,
    entered: Entered,
    tokio: tokio::runtime::Runtime,
    launcher: Launcher,
    launchers: Vec<i32>,
    markers: AtomicU32,
}

impl Machine {
    fn new(runtime: RuntimeInfo, entered: Entered) -> Result<Machine, Failure> {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let launcher = tokio.block_on(Launcher::start(options(&runtime)))?;
        let launchers = launchers();
        Ok(Machine { runtime, entered, tokio, launcher, launchers, markers: AtomicU32::new(0) })
    }

    pub async fn start_launcher(&self) -> Launcher {
        Launcher::start(options(&self.runtime)).await.unwrap()
    }

    pub fn launcher(&self) -> &Launcher {
        &self.launcher
    }

    /// Processes of this machine's launcher.
    pub fn known_launchers(&self) -> &[i32] {
        &self.launchers
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.tokio.block_on(future)
    }

    /// Runs something that needs to be within tokio.
    pub fn enter<T>(&self, run: impl FnOnce() -> T) -> T {
        let _guard = self.tokio.enter();
        run()
    }

    /// The runtime is the one that is preferred.
    pub fn is_first(&self) -> bool {
        runtime::find(&search()).first() == Some(&self.runtime)
    }

    pub fn rootless(&self) -> bool {
        self.entered != Entered::Root
    }

    /// Only one user can be mapped.
    pub fn one_id(&self) -> bool {
        matches!(&self.entered, Entered::User { single: Some(_), .. })
    }

    pub fn probe_options(&self) -> ProbeOptions {
        ProbeOptions {
            search: search(),
            exe: "/proc/self/exe".into(),
            subcommand: LAUNCHER.into(),
            user_namespace: self.entered.step_user_namespace(),
        }
    }

    /// A number that no other process has among its arguments.
    pub fn marker(&self) -> String {
        let n = self.markers.fetch_add(1, Ordering::SeqCst);
        format!("7{:06}.{n:03}{:09}", std::process::id() % 1_000_000, rand() % 1_000_000_000)
    }

    /// A case with a root of its own.
    pub fn case(&self) -> Case<'_> {
        self.case_with(busybox_root(), None)
    }

    /// A case in a root that others use.
    pub fn case_in(&self, root: &tempfile::TempDir) -> Case<'_> {
        self.case_with(tempfile::tempdir().unwrap(), Some(root.path().to_owned()))
    }

    fn case_with(&self, own: tempfile::TempDir, shared: Option<PathBuf>) -> Case<'_> {
        let mut exec = ExecSpec::new(Vec::new());
        exec.user_namespace = self.entered.step_user_namespace();
        exec.env = vec![("PATH".into(), "/bin:/sbin:/usr/bin:/usr/sbin".into())];
        Case {
            machine: self,
            exec,
            keep: RefCell::new(None),
            own,
            shared,
            root: RefCell::new(None),
            slots: RefCell::new(BTreeMap::new()),
        }
    }

    /// Mounts of steps that the launcher still has.
    fn leftovers(&self) -> Vec<String> {
        self.block_on(self.launcher.drained());
        self.launchers
            .iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok())
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .filter(|line| {
                let place = line.split(' ').nth(4).unwrap_or("");
                place.contains("/rootfs") || place.contains("/m0")
            })
            .collect()
    }
}

pub fn options(runtime: &RuntimeInfo) -> LauncherOptions {
    LauncherOptions {
        exe: "/proc/self/exe".into(),
        subcommand: LAUNCHER.into(),
        runtime: runtime.clone(),
        grace: Duration::from_secs(1),
        handlers: Vec::new(),
    }
}

fn rand() -> u64 {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap();
    u64::from_ne_bytes(bytes)
}

/// A step about to be run.
pub struct Case<'m> {
    machine: &'m Machine,
    pub exec: ExecSpec,
    pub keep: RefCell<Option<Box<dyn std::any::Any + Send>>>,
    own: tempfile::TempDir,
    shared: Option<PathBuf>,
    root: RefCell<Option<Source>>,
    slots: RefCell<BTreeMap<String, Source>>,
}

impl Case<'_> {
    /// Directory of the root.
    pub fn root(&self) -> &Path {
        self.shared.as_deref().unwrap_or(self.own.path())
    }

    /// Uses something else as the root.
    pub fn set_root(&mut self, root: Source) {
        *self.root.borrow_mut() = Some(root);
    }

    /// Mounts a source.
    pub fn mount(&mut self, target: &str, readonly: bool, source: Source) {
        let slot = u32::try_from(self.slots.borrow().len()).unwrap() + 1;
        self.slots.borrow_mut().insert(spec::slot_token(slot), source);
        self.exec
            .mounts
            .push(MountSpec { target: target.into(), kind: MountKind::Slot { slot, readonly } });
    }

    /// The step, and the ends to read. Needs tokio. A case gives its sources to the first step.
    pub fn step(&self, args: &[&str]) -> (Step, Receiver, Receiver) {
        let mut exec = self.exec.clone();
        if !args.is_empty() {
            exec.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        }
        let (stdout, out) = output::pipe().unwrap();
        let (stderr, err) = output::pipe().unwrap();
        let root = self.root.borrow_mut().take();
        let open = || Source::Path(fs::File::open(self.root()).unwrap().into());
        let step = Step {
            spec: spec::base(&exec).unwrap(),
            root: root.unwrap_or_else(open),
            slots: self.slots.take(),
            stdout,
            stderr,
            keep: self.keep.take(),
        };
        (step, out, err)
    }

    /// Starts a shell script.
    pub fn begin(&self, script: &str) -> (RunningStep, Receiver, Receiver) {
        let (step, out, err) = self.step(&["/bin/sh", "-c", script]);
        (self.machine.launcher.begin(step).unwrap(), out, err)
    }

    /// Runs a shell script.
    pub fn sh(&self, script: &str) -> Output {
        self.finish(&["/bin/sh", "-c", script])
    }

    /// Runs the spec's own program.
    pub fn run(&self) -> Output {
        self.finish(&[])
    }

    fn finish(&self, args: &[&str]) -> Output {
        self.finish_with(&self.machine.launcher, args)
    }

    /// Runs a program with another launcher than the machine's.
    pub fn finish_with(&self, launcher: &Launcher, args: &[&str]) -> Output {
        self.machine.block_on(async {
            let (step, out, err) = self.step(args);
            let (result, stdout, stderr) =
                tokio::join!(launcher.run(step), read_all(out), read_all(err));
            Output { result, stdout, stderr }
        })
    }
}

/// What came of a step.
#[derive(Debug)]
pub struct Output {
    pub result: Result<Exit, Failure>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Output {
    pub fn exit(&self) -> i32 {
        self.result.as_ref().unwrap_or_else(|failure| panic!("{failure}: {self:?}")).code
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

pub async fn read_all(mut reader: Receiver) -> Vec<u8> {
    let mut data = Vec::new();
    reader.read_to_end(&mut data).await.unwrap();
    data
}

/// Reads one line.
pub async fn read_line(reader: &mut Receiver) -> String {
    let mut line = Vec::new();
    let read = async {
        while line.last() != Some(&b'\n') {
            let byte = reader.read_u8().await.unwrap();
            line.push(byte);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read).await.expect("the step says something");
    String::from_utf8(line).unwrap()
}

/// Makes a root with busybox.
pub fn busybox_root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "run"] {
        fs::create_dir(root.join(name)).unwrap();
        fs::set_permissions(root.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
    }
    let busybox = runtime::find_program("busybox", &search()).unwrap();
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for applet in "[ awk cat chroot cut dd df echo env false grep head hostname id ls mkdir mknod mount ping \
        printf readlink renice sed setsid sh sleep sort stat tail test touch tr true umount unshare wc"
        .split_ascii_whitespace()
    {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    dir
}

/// Makes a detached overlay mount; the first lower directory is the topmost.
pub fn overlay(lower: &[&Path], upper: &Path, work: &Path, userxattr: bool) -> OwnedFd {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen,
    };
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for dir in lower {
        fsconfig_set_string(&context, "lowerdir+", *dir).unwrap();
    }
    fsconfig_set_string(&context, "upperdir", upper).unwrap();
    fsconfig_set_string(&context, "workdir", work).unwrap();
    if userxattr {
        fsconfig_set_flag(&context, "userxattr").unwrap();
    }
    fsconfig_create(&context).unwrap();
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
}

/// Everything below a directory, sorted.
pub fn listing(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, prefix: &str, out: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            out.push(name.clone());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{name}/"), out);
            }
        }
    }
    let mut out = Vec::new();
    walk(dir, "", &mut out);
    out.sort();
    out
}

/// Content and times of a file.
pub fn fingerprint(path: &Path) -> (Vec<u8>, std::time::SystemTime) {
    (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap())
}

pub fn poll_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    done()
}

/// All processes but this one: number and arguments.
fn processes() -> Vec<(i32, Vec<String>)> {
    let own = i32::try_from(std::process::id()).unwrap();
    let mut all: Vec<(i32, Vec<String>)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let args =
                line.split(|byte| *byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned());
            (pid != own).then(|| (pid, args.collect()))
        })
        .collect();
    all.sort();
    all
}

/// Processes with a text among their arguments.
pub fn processes_with(text: &str) -> Vec<i32> {
    processes()
        .into_iter()
        .filter(|(_, args)| args.iter().any(|arg| arg.contains(text)))
        .map(|(pid, _)| pid)
        .collect()
}

/// Processes that run a container of this process's launchers.
pub fn runtime_processes(name: &str) -> Vec<i32> {
    let launchers = launchers();
    processes()
        .into_iter()
        .filter(|(pid, args)| {
            args.iter().any(|arg| arg == "run")
                && args.iter().any(|arg| arg.starts_with("--bundle="))
                && parent(*pid).is_some_and(|parent| launchers.contains(&parent))
                && !name.is_empty()
        })
        .map(|(pid, _)| pid)
        .collect()
}

/// Launcher processes of this process, both stages.
pub fn launchers() -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap();
    let all: Vec<i32> = processes()
        .into_iter()
        .filter(|(_, args)| args.get(1).is_some_and(|arg| arg == LAUNCHER))
        .map(|(pid, _)| pid)
        .collect();
    let mine = |pid: i32| {
        parent(pid).is_some_and(|up| up == own || (all.contains(&up) && parent(up) == Some(own)))
    };
    all.iter().copied().filter(|pid| mine(*pid)).collect()
}

/// Whether a process is there and no zombie.
pub fn alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    stat.rsplit_once(')').is_none_or(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The only child of a process.
pub fn child_of(pid: i32) -> Option<i32> {
    processes().into_iter().map(|(child, _)| child).find(|child| parent(*child) == Some(pid))
}

/// Processor time in milliseconds.
pub struct CpuTimes {
    pub own: f64,
    pub launcher: f64,
    /// Of children that the launcher has waited for.
    pub children: f64,
}

/// Processor time of this process and its launcher (proc_pid_stat(5), in ticks of 10 ms).
pub fn cpu_times(machine: &Machine) -> CpuTimes {
    let ticks = |pid: &str, fields: [usize; 2]| -> f64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let rest: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
        fields.iter().map(|field| rest[field - 3].parse::<f64>().unwrap() * 10.0).sum()
    };
    let second = machine.known_launchers().iter().max().unwrap().to_string();
    CpuTimes {
        own: ticks("self", [14, 15]),
        launcher: ticks(&second, [14, 15]),
        children: ticks(&second, [16, 17]),
    }
}

/// Names of all control groups.
pub fn cgroup_directories() -> Vec<String> {
    fn walk(dir: &Path, out: &mut Vec<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                out.push(entry.path().display().to_string());
                walk(&entry.path(), out);
            }
        }
    }
    let mut out = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), &mut out);
    out.retain(|path| path.contains("step"));
    out.sort();
    out
}
