//! Steps in real containers, with every runtime this machine has.
//!
//! The binary brings its own `main`, because it also plays other parts: the launcher, and a main
//! process that is killed. Tests run one after the other; a filter may be given as an argument.
//! `bench` as the filter prints how long steps take.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{Case, Machine, Skip, overlay, poll_until, processes_with};
use wbuild_exec::stubs::{self, SYSTEM_TARGETS, Target, TargetKind};
use wbuild_exec::{Content, MountKind, MountSpec, RuntimeKind, Source, check_root, user};
use wbuild_graph::FailureKind;
use wbuild_graph::op::{Network, Ulimit};

type Result = std::result::Result<(), Skip>;

fn main() {
    support::main(&[
        ("exit_codes_arrive_as_they_are", exit_codes),
        ("environment_user_and_directory_are_as_given", environment),
        ("output_is_complete_and_in_order", output),
        ("a_hundred_megabytes_are_not_clipped", big_output),
        ("stdin_is_empty_and_no_descriptor_leaks", descriptors),
        ("a_program_that_is_not_there_is_a_failure_with_the_reason", missing_program),
        ("network_none_has_loopback_only", network),
        ("binds_are_read_only_or_writable_as_asked", binds),
        ("secrets_are_files_in_memory_with_their_mode_and_owner", secrets),
        ("tmpfs_and_shm_have_their_size_and_mode", memory_mounts),
        ("system_paths_are_masked_and_read_only", masks),
        ("capabilities_are_dockers", capabilities),
        ("system_calls_are_filtered", syscalls),
        ("programs_of_the_32_bit_mode_run_under_the_filter", compat),
        ("handlers_are_for_their_steps_only", handlers),
        ("limits_apply", limits),
        ("insecure_steps_are_unconfined", insecure),
        ("background_processes_end_with_the_step", background),
        ("cancel_kills_a_tree_that_ignores_it", cancel),
        ("cancel_lets_a_process_that_listens_finish", cancel_gently),
        ("cancel_works_at_any_moment", cancel_at_any_moment),
        ("a_dropped_step_goes_and_releases_what_it_held", dropped),
        ("eight_steps_run_at_once", parallel),
        ("a_killed_runtime_takes_its_step_along", killed_runtime),
        ("a_killed_launcher_is_a_failure_not_a_hang", killed_launcher),
        ("a_killed_main_process_leaves_nothing", killed_main),
        ("stub_layers_leave_no_trace", stub_layers),
        ("hostile_images_change_nothing_on_the_host", hostile),
        ("the_probe_finds_a_runtime_that_works", probe),
        ("an_ordinary_user_can_run_steps", ordinary_user),
        ("bench", bench),
    ]);
}

fn exit_codes(machine: &Machine) -> Result {
    for code in [0, 1, 2, 77, 125, 126, 127, 255] {
        let out = machine.case().sh(&format!("exit {code}"));
        assert_eq!(out.exit(), code, "{out:?}");
    }
    let out = machine.case().sh("sh -c 'kill -9 $$'; exit $?");
    assert_eq!(out.exit(), 137, "{out:?}");
    Ok(())
}

fn environment(machine: &Machine) -> Result {
    let mut case = machine.case();
    fs::create_dir_all(case.root().join("srv/dir")).unwrap();
    fs::write(
        case.root().join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nme:x:1000:1001::/home/me:/bin/sh\n",
    )
    .unwrap();
    fs::write(case.root().join("etc/group"), "root:x:0:\nmine:x:1001:\nmore:x:50:me\n").unwrap();
    case.exec.env = vec![
        ("A".into(), "1 2".into()),
        ("B".into(), "x=y".into()),
        ("A".into(), "later".into()),
        ("PATH".into(), "/bin".into()),
    ];
    case.exec.cwd = "/srv/dir".into();
    case.exec.hostname = "a-host".into();
    let script = "echo $A; echo $B; pwd; hostname; id -u; id -g; id -G; umask; grep -vc ':/$' /proc/self/cgroup; env | sort | cut -d= -f1 | tr '\\n' ' '";
    let out = case.sh(script);
    assert_eq!(out.exit(), 0, "{out:?}");
    let text = out.stdout();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..7], ["later", "x=y", "/srv/dir", "a-host", "0", "0", "0"], "{text}");
    assert_eq!(lines[7], "0022");
    // Names of the machine's control groups are not shown.
    assert_eq!(lines[8], "0", "{text}");
    // Nothing of the machine's environment; HOME comes from the runtime, PWD and SHLVL from sh.
    let allowed = ["A", "B", "HOME", "HOSTNAME", "PATH", "PWD", "SHLVL", "container", "_"];
    for name in lines[9].split_whitespace() {
        assert!(allowed.contains(&name), "{name} leaked: {text}");
    }
    if machine.one_id() {
        return Ok(());
    }
    let root = fs::File::open(case.root()).unwrap();
    case.exec.user = user::resolve(root.as_fd(), "me").unwrap();
    assert_eq!(case.exec.user.home, "/home/me");
    let text = case.sh("id -u; id -g; id -G; touch /etc/x || echo refused").stdout();
    assert_eq!(text, "1000\n1001\n1001 50\nrefused\n");
    Ok(())
}

fn output(machine: &Machine) -> Result {
    let script =
        "i=0; while [ $i -lt 2000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; printf end";
    let out = machine.case().sh(script);
    let want = |word: &str| (0..2000).map(|i| format!("{word} {i}\n")).collect::<String>();
    assert_eq!(out.stdout(), want("out") + "end");
    assert_eq!(out.stderr(), want("err"));
    Ok(())
}

fn big_output(machine: &Machine) -> Result {
    let out =
        machine.case().sh("dd if=/dev/zero bs=1000000 count=100 2>/dev/null | tr '\\0' x; echo .");
    assert_eq!(out.exit(), 0);
    assert_eq!(out.stdout.len(), 100_000_002);
    assert!(out.stdout[..100_000_000].iter().all(|byte| *byte == b'x'));
    Ok(())
}

fn descriptors(machine: &Machine) -> Result {
    // A descriptor without close-on-exec in the main process must not reach a step either.
    let leak = fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let out = machine.case().sh(
        "wc -c; ls /proc/self/fd | tr '\\n' ' '; readlink /proc/self/fd/0; test -t 1 || echo plain",
    );
    // runc puts a pipe of its own in between.
    let text = out.stdout();
    let stdin = text.lines().nth(1).unwrap().trim_start_matches("0 1 2 3 ");
    assert!(stdin == "/dev/null" || stdin.starts_with("pipe:"), "{text}");
    assert!(text.starts_with("0\n0 1 2 3 ") && text.ends_with("\nplain\n"), "{text}");
    Ok(())
}

fn missing_program(machine: &Machine) -> Result {
    let mut case = machine.case();
    case.exec.args = vec!["/no/such/program".into()];
    let out = case.run();
    let failure = out.result.expect_err("there is no such program");
    assert_eq!(failure.kind, FailureKind::ExecFailed);
    assert!(failure.causes[0].contains("/no/such/program"), "{failure}");
    // Programs that are there, but that the kernel does not take.
    for (name, text) in [("script", "#!/no/where\n"), ("junk", "no program")] {
        let mut case = machine.case();
        let path = case.root().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        case.exec.args = vec![format!("/{name}")];
        let out = case.run();
        let said = match &out.result {
            Err(failure) => failure.causes.join(" "),
            Ok(exit) => {
                assert_ne!(exit.code, 0, "{out:?}");
                out.stderr()
            }
        };
        assert!(said.contains(name), "{out:?}");
    }
    // The next step is none the worse for it.
    assert_eq!(machine.case().sh("true").exit(), 0);
    Ok(())
}

fn network(machine: &Machine) -> Result {
    let interfaces = "sed 1,2d /proc/net/dev | cut -d: -f1 | tr -d ' '";
    let mut case = machine.case();
    case.exec.network = Network::None;
    let out = case.sh(&format!("{interfaces}; ping -c1 -W1 127.0.0.1 >/dev/null && echo up"));
    assert_eq!(out.stdout(), "lo\nup\n", "{out:?}");
    let own: Vec<String> = fs::read_to_string("/proc/net/dev")
        .unwrap()
        .lines()
        .skip(2)
        .map(|line| line.split(':').next().unwrap().trim().to_owned())
        .collect();
    let out = machine.case().sh(interfaces);
    assert_eq!(out.stdout().lines().collect::<Vec<_>>(), own);
    Ok(())
}

fn binds(machine: &Machine) -> Result {
    let mut case = machine.case();
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("file"), "content").unwrap();
    fs::create_dir(source.path().join("sub")).unwrap();
    let open = |path: &Path| Source::Path(fs::File::open(path).unwrap().into());
    case.mount("/ro", true, open(source.path()));
    case.mount("/rw", false, open(source.path()));
    case.mount("/one/file", true, open(&source.path().join("file")));
    let out = case.sh(
        "cat /ro/file /one/file; echo; touch /ro/x 2>&1; echo y > /one/file; echo new > /rw/new; cat /ro/new; mkdir /rw/sub/deep && echo made",
    );
    let text = out.stdout();
    assert!(text.starts_with("contentcontent\n"), "{text}");
    assert!(text.contains("Read-only file system") && text.ends_with("new\nmade\n"), "{text}");
    assert_eq!(fs::read_to_string(source.path().join("new")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(source.path().join("file")).unwrap(), "content");
    assert!(!source.path().join("x").exists());
    Ok(())
}

fn secrets(machine: &Machine) -> Result {
    let mut case = machine.case();
    let (uid, mode) = if machine.one_id() { (0, 0o400) } else { (1000, 0o440) };
    case.exec.user.uid = uid;
    case.exec.user.gid = uid;
    let content = Content { data: (*b"canary-5f1d").into(), mode, uid, gid: uid };
    case.mount("/run/secrets/token", true, Source::Content(content));
    case.mount("/etc/hosts", true, Source::Content(Content::readable(*b"1.2.3.4\tx\n")));
    let out = case.sh("cat /run/secrets/token; stat -c ' %a %u %g' /run/secrets/token; cat /etc/hosts; echo z > /run/secrets/token || echo refused");
    assert_eq!(out.stdout(), format!("canary-5f1d {mode:o} {uid} {uid}\n1.2.3.4\tx\nrefused\n"));
    // Nothing of it lies in the root or in this process's view of the file system.
    for place in [case.root().join("run/secrets/token"), "/run/secrets/token".into()] {
        assert!(fs::read(&place).is_ok_and(|data| data.is_empty()) || !place.exists(), "{place:?}");
    }
    Ok(())
}

fn memory_mounts(machine: &Machine) -> Result {
    let mut case = machine.case();
    let tmpfs = |target: &str, size, mode| MountSpec {
        target: target.into(),
        kind: MountKind::Tmpfs { size, mode },
    };
    case.exec.mounts =
        vec![tmpfs("/small", Some(1 << 20), Some(0o750)), tmpfs("/open", None, None)];
    case.exec.shm_size = 2 << 20;
    let out = case.sh(
        "stat -c %a /small /open /dev/shm; df -k /small /dev/shm | awk 'NR>1{print $2}'; dd if=/dev/zero of=/small/x bs=1k count=2000 2>&1 | grep -c 'No space'; touch /open/x && echo ok",
    );
    assert_eq!(out.stdout(), "750\n1777\n1777\n1024\n2048\n1\nok\n");
    Ok(())
}

fn masks(machine: &Machine) -> Result {
    let out = machine.case().sh(
        "cat /proc/keys /proc/timer_list | wc -c; ls -A /proc/acpi /sys/firmware 2>/dev/null | grep -vc :; \
         echo 1 > /proc/sys/kernel/panic; touch /sys/x; mount | grep -E ' on /(sys|proc/sys) ' | cut -d' ' -f3,6 | sed 's/(ro,.*/(ro,/' | sort",
    );
    let text = out.stdout();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "0", "{out:?}");
    assert_eq!(lines[lines.len() - 2..], ["/proc/sys (ro,", "/sys (ro,"], "{out:?}");
    assert_eq!(out.stderr().matches("Read-only file system").count(), 2, "{out:?}");
    Ok(())
}

fn capabilities(machine: &Machine) -> Result {
    let status = "grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status | tr -d '\\t'";
    let text = machine.case().sh(status).stdout();
    let field = |text: &str, name: &str| -> String {
        let line = text.lines().find(|line| line.starts_with(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))[name.len() + 1..].to_owned()
    };
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(field(&text, set), "00000000a80425fb", "{text}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(field(&text, set), "0000000000000000", "{text}");
    }
    assert_eq!(field(&text, "NoNewPrivs"), "0");
    assert_eq!(field(&text, "Seccomp"), "2");
    assert_eq!(field(&text, "Seccomp_filters"), "1");
    if machine.one_id() {
        return Ok(());
    }
    let mut case = machine.case();
    (case.exec.user.uid, case.exec.user.gid) = (1000, 1000);
    let text = case.sh(status).stdout();
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(field(&text, set), "0000000000000000", "{text}");
    }
    assert_eq!(field(&text, "CapBnd"), "00000000a80425fb");
    Ok(())
}

fn syscalls(machine: &Machine) -> Result {
    for refused in [
        "unshare -U true",
        "unshare -m true",
        "mount -t tmpfs x /tmp",
        "umount /dev/shm",
        "hostname other",
    ] {
        let out = machine.case().sh(refused);
        assert_ne!(out.exit(), 0, "{refused}: {out:?}");
        let said = out.stderr().to_lowercase();
        let known = ["not permitted", "permission denied"];
        assert!(known.iter().any(|why| said.contains(why)), "{refused}: {out:?}");
    }
    // An ordinary user may make user namespaces, were it not for the filter.
    if !machine.one_id() {
        let mut case = machine.case();
        (case.exec.user.uid, case.exec.user.gid) = (1000, 1000);
        assert_ne!(case.sh("unshare -U true").exit(), 0);
    }
    let out = machine.case().sh("chroot / true && (sleep 0.01 & wait) && renice 5 $$ && echo fine");
    assert_eq!(out.stdout(), "fine\n", "{out:?}");
    if !machine.rootless() {
        let out = machine.case().sh("mknod /tmp/null c 1 3 && stat -c %t:%T /tmp/null");
        assert_eq!(out.stdout(), "1:3\n", "{out:?}");
    }
    Ok(())
}

/// A program of 97 bytes for i386: `exit(42)` by `int 0x80`.
#[cfg(target_arch = "x86_64")]
fn tiny_386() -> Vec<u8> {
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let code = [0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80];
    let (base, start) = (0x0804_8000u32, 52 + 32);
    for half in [2u16, 3] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, base + start, 52, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    for half in [52u16, 32, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let size = start + code.len() as u32;
    for word in [1, 0, base, base, size, size, 5, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

#[cfg(target_arch = "x86_64")]
fn compat(machine: &Machine) -> Result {
    if !Path::new("/proc/sys/abi/vsyscall32").exists() {
        return Err(Skip("the kernel runs no 32 bit programs".into()));
    }
    let case = machine.case();
    let program = case.root().join("bin/tiny");
    fs::write(&program, tiny_386()).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let out = case.sh("/bin/tiny; echo $?");
    assert_eq!(out.stdout(), "42\n", "{out:?}");
    Ok(())
}

#[cfg(not(target_arch = "x86_64"))]
fn compat(_: &Machine) -> Result {
    Err(Skip("the test program is for x86".into()))
}

fn limits(machine: &Machine) -> Result {
    let mut case = machine.case();
    let ulimit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
    case.exec.ulimits =
        vec![ulimit("nofile", 100, 200), ulimit("core", 0, 0), ulimit("nofile", 64, 128)];
    let out = case.sh("ulimit -Sn; ulimit -Hn; ulimit -c");
    assert_eq!(out.stdout(), "64\n128\n0\n", "{out:?}");
    // Without any, the step has what this process has.
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let out = machine.case().sh("ulimit -Hn");
    assert_eq!(out.stdout().trim(), own.maximum.map_or("unlimited".into(), |n| n.to_string()));
    Ok(())
}

fn insecure(machine: &Machine) -> Result {
    if machine.rootless() {
        return Err(Skip("needs root of the machine".into()));
    }
    let mut case = machine.case();
    case.exec.security = wbuild_graph::op::Security::Insecure;
    let out = case.sh("grep -E '^(Seccomp|CapEff):' /proc/self/status | tr -d '\\t'; mount -t tmpfs x /tmp && touch /tmp/x && echo mounted");
    let own = rustix::thread::capabilities(None).unwrap().permitted.bits();
    assert_eq!(out.stdout(), format!("CapEff:{own:016x}\nSeccomp:0\nmounted\n"), "{out:?}");
    Ok(())
}

fn background(machine: &Machine) -> Result {
    let marker = machine.marker();
    let out = machine
        .case()
        .sh(&format!("setsid sleep {marker} & (sleep {marker} &) ; sleep 0.05; echo done"));
    assert_eq!((out.exit(), out.stdout().as_str()), (0, "done\n"));
    assert_eq!(processes_with(&marker), Vec::<i32>::new());
    Ok(())
}

fn cancel(machine: &Machine) -> Result {
    let marker = machine.marker();
    let script = format!(
        "trap '' TERM INT HUP; n=0; while [ $n -lt 20 ]; do (trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep {marker} & sleep {marker}; :') & n=$((n+1)); done; echo ready; while :; do sleep 1000; done"
    );
    let case = machine.case();
    machine.block_on(async {
        let (mut running, mut stdout, _stderr) = case.begin(&script);
        support::read_line(&mut stdout).await;
        assert!(poll_until(Duration::from_secs(5), || processes_with(&marker).len() >= 40));
        let start = Instant::now();
        running.cancel();
        let failure = running.wait().await.expect_err("it was cancelled");
        assert_eq!(failure.kind, FailureKind::Cancelled);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!(processes_with(&marker), Vec::<i32>::new());
    });
    Ok(())
}

fn cancel_gently(machine: &Machine) -> Result {
    // A runtime may be slower to say which process it has started than that process is to print, and
    // one that nobody has heard of yet is not asked: then the next try, which waits longer, tells.
    let mut last = Vec::new();
    for attempt in 0..10 {
        let case = machine.case();
        last = machine.block_on(async {
            let script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
            let (mut running, mut stdout, _stderr) = case.begin(script);
            support::read_line(&mut stdout).await;
            tokio::time::sleep(Duration::from_millis(10 * attempt)).await;
            running.cancel();
            let failure = running.wait().await.expect_err("it was cancelled");
            assert_eq!(failure.kind, FailureKind::Cancelled);
            support::read_all(stdout).await
        });
        if last == b"bye\n" {
            break;
        }
    }
    assert_eq!(last, b"bye\n");
    // One that is cancelled before it has even started.
    let case = machine.case();
    machine.block_on(async {
        let (mut running, _stdout, _stderr) = case.begin("sleep 1000");
        let start = Instant::now();
        running.cancel();
        assert_eq!(running.wait().await.unwrap_err().kind, FailureKind::Cancelled);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    });
    Ok(())
}

fn cancel_at_any_moment(machine: &Machine) -> Result {
    let marker = machine.marker();
    let root = support::busybox_root();
    for n in 0..40u64 {
        let case = machine.case_in(&root);
        machine.block_on(async {
            let script = format!("sleep {marker} & sleep {marker}; true");
            let (mut running, _stdout, _stderr) = case.begin(&script);
            tokio::time::sleep(Duration::from_micros(n * 500)).await;
            let start = Instant::now();
            running.cancel();
            let outcome = running.wait().await;
            assert_eq!(outcome.unwrap_err().kind, FailureKind::Cancelled);
            assert!(start.elapsed() < Duration::from_secs(5), "{n}: {:?}", start.elapsed());
            assert_eq!(processes_with(&marker), Vec::<i32>::new(), "{n}");
        });
    }
    Ok(())
}

fn dropped(machine: &Machine) -> Result {
    struct Held(Arc<AtomicBool>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let marker = machine.marker();
    let released = Arc::new(AtomicBool::new(false));
    let case = machine.case();
    *case.keep.borrow_mut() = Some(Box::new(Held(Arc::clone(&released))));
    machine.block_on(async {
        let (running, mut stdout, _stderr) = case.begin(&format!("echo ready; sleep {marker}"));
        support::read_line(&mut stdout).await;
        assert!(!released.load(Ordering::SeqCst));
        drop(running);
        tokio::time::timeout(Duration::from_secs(5), machine.launcher().drained()).await.unwrap();
        assert!(released.load(Ordering::SeqCst));
        assert_eq!(processes_with(&marker), Vec::<i32>::new());
    });
    Ok(())
}

fn parallel(machine: &Machine) -> Result {
    // Each waits until all eight are there.
    let meeting = tempfile::tempdir().unwrap();
    let mut cases: Vec<Case<'_>> = (0..8).map(|_| machine.case()).collect();
    for case in &mut cases {
        case.mount("/meet", false, Source::Path(fs::File::open(meeting.path()).unwrap().into()));
    }
    let script = |n: usize| {
        format!(
            "touch /meet/{n}; while [ $(ls /meet | wc -l) -lt 8 ]; do sleep 0.01; done; echo {n}; exit {n}"
        )
    };
    machine.block_on(async {
        let mut steps = Vec::new();
        for (n, case) in cases.iter().enumerate() {
            steps.push(case.begin(&script(n)));
        }
        for (n, (mut running, stdout, _stderr)) in steps.into_iter().enumerate() {
            let exit = tokio::time::timeout(Duration::from_secs(30), running.wait()).await;
            assert_eq!(exit.expect("they met").unwrap().code, i32::try_from(n).unwrap());
            assert_eq!(support::read_all(stdout).await, format!("{n}\n").as_bytes());
        }
    });
    Ok(())
}

fn killed_runtime(machine: &Machine) -> Result {
    let marker = machine.marker();
    let case = machine.case();
    machine.block_on(async {
        let (mut running, mut stdout, _stderr) =
            case.begin(&format!("echo ready; sleep {marker}; true"));
        support::read_line(&mut stdout).await;
        let name = machine.runtime.kind.as_str();
        let runtimes = support::runtime_processes(name);
        assert!(!runtimes.is_empty());
        for pid in runtimes {
            rustix::process::kill_process(
                rustix::process::Pid::from_raw(pid).unwrap(),
                rustix::process::Signal::KILL,
            )
            .unwrap();
        }
        let failure = tokio::time::timeout(Duration::from_secs(10), running.wait()).await.unwrap();
        assert_eq!(failure.unwrap_err().kind, FailureKind::ExecFailed);
        assert_eq!(processes_with(&marker), Vec::<i32>::new());
    });
    assert_eq!(machine.case().sh("echo still here").stdout(), "still here\n");
    Ok(())
}

fn killed_launcher(machine: &Machine) -> Result {
    let marker = machine.marker();
    let case = machine.case();
    machine.block_on(async {
        let launcher = machine.start_launcher().await;
        let before = support::launchers();
        let mine: Vec<i32> =
            before.into_iter().filter(|pid| !machine.known_launchers().contains(pid)).collect();
        assert_eq!(mine.len(), 2, "two stages");
        let (step, mut stdout, _stderr) =
            case.step(&["/bin/sh", "-c", &format!("echo ready; sleep {marker}; true")]);
        let mut running = launcher.begin(step).unwrap();
        support::read_line(&mut stdout).await;
        // The second is the first process of the namespace.
        let pid = rustix::process::Pid::from_raw(*mine.iter().max().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let outcome = tokio::time::timeout(Duration::from_secs(10), running.wait()).await.unwrap();
        assert_eq!(outcome.unwrap_err().kind, FailureKind::Internal);
        let (step, ..) = case.step(&["/bin/true"]);
        assert_eq!(launcher.run(step).await.unwrap_err().kind, FailureKind::Internal);
        launcher.drained().await;
    });
    assert!(poll_until(Duration::from_secs(5), || processes_with(&marker).is_empty()));
    Ok(())
}

fn killed_main(machine: &Machine) -> Result {
    for victim in ["main", "first", "second"] {
        let marker = machine.marker();
        let mounts = fs::read_to_string("/proc/1/mounts").unwrap_or_default();
        let cgroups = support::cgroup_directories();
        let root = support::busybox_root();
        let mut child = std::process::Command::new("/proc/self/exe")
            .args(["__main", machine.runtime.kind.as_str(), &marker])
            .arg(root.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0u8; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        assert_eq!(&ready, b"ready\n");
        assert!(poll_until(Duration::from_secs(10), || processes_with(&marker).len() >= 6));
        let main = i32::try_from(child.id()).unwrap();
        let first = support::child_of(main).expect("stage 1");
        let second = support::child_of(first).expect("stage 2");
        let pid = match victim {
            "main" => main,
            "first" => first,
            _ => second,
        };
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        if victim != "main" {
            // It notices by itself and ends.
            assert_eq!(child.wait().unwrap().code(), Some(3), "{victim}");
        }
        let _ = child.wait();
        // The marker is also an argument of the main process and of the shells.
        assert!(
            poll_until(Duration::from_secs(5), || processes_with(&marker).is_empty()),
            "{victim}: {:?}",
            processes_with(&marker)
        );
        assert!(poll_until(Duration::from_secs(5), || !support::alive(second)));
        assert_eq!(fs::read_to_string("/proc/1/mounts").unwrap_or_default(), mounts);
        assert_eq!(support::cgroup_directories(), cgroups);
        // Nothing holds the root any more.
        root.close().unwrap();
    }
    Ok(())
}

fn stub_layers(machine: &Machine) -> Result {
    let base = support::busybox_root();
    let lower = base.path();
    // A poor root: no /proc, /dev, /sys; /etc/resolv.conf a dangling link; odd modes and times.
    for name in ["proc", "dev", "sys"] {
        fs::remove_dir(lower.join(name)).unwrap();
    }
    symlink("/run/resolve/stub.conf", lower.join("etc/resolv.conf")).unwrap();
    fs::create_dir_all(lower.join("srv/app")).unwrap();
    fs::set_permissions(lower.join("srv/app"), fs::Permissions::from_mode(0o751)).unwrap();
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 1_000_000, tv_nsec: 0 },
        last_modification: rustix::fs::Timespec { tv_sec: 1_000_000, tv_nsec: 0 },
    };
    for name in ["srv/app", "srv", "etc"] {
        rustix::fs::utimensat(
            rustix::fs::CWD,
            lower.join(name),
            &times,
            rustix::fs::AtFlags::empty(),
        )
        .unwrap();
    }
    let work = tempfile::tempdir().unwrap();
    for name in ["stub", "upper", "work"] {
        fs::create_dir(work.path().join(name)).unwrap();
    }
    let mut case = machine.case();
    case.mount(
        "/etc/resolv.conf",
        true,
        Source::Content(Content::readable(*b"nameserver 1.1.1.1\n")),
    );
    case.mount("/etc/hosts", true, Source::Content(Content::readable(*b"127.0.0.1 x\n")));
    let cache = tempfile::tempdir().unwrap();
    let source = Source::Path(fs::File::open(cache.path()).unwrap().into());
    case.mount("/srv/app/cache/deep", false, source);
    let mut targets = SYSTEM_TARGETS.to_vec();
    let file = |path| Target { path, kind: TargetKind::File };
    targets.extend([file("/etc/resolv.conf"), file("/etc/hosts")]);
    targets.push(Target { path: "/srv/app/cache/deep", kind: TargetKind::Directory });
    let view = fs::File::open(lower).unwrap();
    let stub = fs::File::open(work.path().join("stub")).unwrap();
    let made = stubs::make(view.as_fd(), &targets, stub.as_fd()).unwrap();
    assert!(made.needed);

    let mount = overlay(
        &[&work.path().join("stub"), lower],
        &work.path().join("upper"),
        &work.path().join("work"),
        machine.rootless(),
    );
    case.set_root(Source::Mount(mount));
    let out = case.sh("cat /etc/resolv.conf /etc/hosts; stat -c '%a %Y' /srv/app /etc; touch /srv/app/new; echo x > /srv/app/cache/deep/x; ls /proc/self >/dev/null && echo ok");
    assert_eq!(
        out.stdout(),
        "nameserver 1.1.1.1\n127.0.0.1 x\n751 1000000\n755 1000000\nok\n",
        "{out:?}"
    );
    // The upper directory holds what the process wrote and nothing else.
    let listing = support::listing(&work.path().join("upper"));
    assert_eq!(listing, ["srv", "srv/app", "srv/app/new"], "{listing:?}");
    let copied = fs::metadata(work.path().join("upper/srv/app")).unwrap();
    assert_eq!(copied.mode() & 0o7777, 0o751);
    Ok(())
}

fn hostile(machine: &Machine) -> Result {
    let canary = tempfile::tempdir().unwrap();
    fs::write(canary.path().join("canary"), "CANARY-VALUE").unwrap();
    let before = support::listing(canary.path());
    let runtime = support::fingerprint(&machine.runtime.path);
    // The working directory must not be reached through a descriptor of the runtime.
    for n in 3..16 {
        let mut case = machine.case();
        case.exec.cwd = format!("/proc/self/fd/{n}");
        let up = "../".repeat(8);
        let out = case.sh(&format!(
            "cat {up}{0}/canary; echo x > {up}{0}/made; true",
            canary.path().display()
        ));
        assert!(!out.stdout().contains("CANARY"), "descriptor {n}: {out:?}");
    }
    // The runtime must not be run, and so overwritten, from inside.
    for script in [
        "#!/proc/self/exe\n",
        "#!/bin/sh\nexec 3</proc/self/exe; (sleep 0.1; echo x > /proc/1/exe; echo x > /proc/self/fd/3) 2>/dev/null\n",
    ] {
        let mut case = machine.case();
        let evil = case.root().join("evil");
        fs::write(&evil, script).unwrap();
        fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
        case.exec.args = vec!["/evil".into()];
        let _ = case.run();
    }
    assert_eq!(support::fingerprint(&machine.runtime.path), runtime);
    // System directories that are links are refused, by the launcher, too.
    for name in ["dev", "proc", "sys"] {
        let case = machine.case();
        fs::remove_dir(case.root().join(name)).unwrap();
        symlink(canary.path(), case.root().join(name)).unwrap();
        let root = fs::File::open(case.root()).unwrap();
        assert_eq!(check_root(root.as_fd()).unwrap_err().kind, FailureKind::Denied);
        assert_eq!(case.sh("true").result.unwrap_err().kind, FailureKind::Denied);
    }
    // Mount targets that are links to the host's paths stay inside the root.
    let mut case = machine.case();
    symlink(canary.path(), case.root().join("link")).unwrap();
    case.mount("/link/inside", true, Source::Content(Content::readable(*b"secret")));
    let _ = case.sh("true");
    // A device that is a link to a path of the host.
    let case = machine.case();
    symlink(canary.path().join("null"), case.root().join("dev/null")).unwrap();
    symlink(canary.path(), case.root().join("dev/pts")).unwrap();
    let _ = case.sh("true");
    assert_eq!(support::listing(canary.path()), before);
    assert_eq!(fs::read_to_string(canary.path().join("canary")).unwrap(), "CANARY-VALUE");
    Ok(())
}

fn probe(machine: &Machine) -> Result {
    machine.block_on(async {
        let mut options = machine.probe_options();
        let found = wbuild_exec::runtime::probe(&options).await.unwrap();
        assert!(found.is_current());
        let first = wbuild_exec::runtime::find(&options.search).into_iter().next().unwrap();
        assert_eq!(found, first);
        let text = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<wbuild_exec::RuntimeInfo>(&text).unwrap(), found);
        // One that claims to be a runtime and is none.
        let fake = tempfile::tempdir().unwrap();
        let path = fake.path().join("crun");
        fs::write(&path, "#!/bin/sh\n[ \"$1\" = --version ] && echo crun version 99 || exit 5\n")
            .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        options.search.insert(0, fake.path().to_owned());
        let found = wbuild_exec::runtime::probe(&options).await;
        match found {
            Ok(found) => assert_eq!(found.kind, RuntimeKind::Runc),
            Err(failure) => assert!(failure.to_string().contains("99"), "{failure}"),
        }
        options.search = vec![fake.path().join("empty")];
        let failure = wbuild_exec::runtime::probe(&options).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unavailable);
        assert!(failure.hints.iter().any(|hint| hint.contains("crun")));
    });
    Ok(())
}

/// busybox under the name of `cat` "runs" a file by printing it.
fn handlers(machine: &Machine) -> Result {
    let facts = wbuild_exec::facts::Facts::gather(&machine.probe_options().search);
    if facts.features().get("binfmt-userns") != Some("true") {
        return Err(Skip(format!("Linux {} has binfmt_misc for root only", facts.kernel)));
    }
    let busybox =
        wbuild_exec::runtime::find_program("busybox", &machine.probe_options().search).unwrap();
    let handler = |magic: &[u8]| wbuild_exec::Handler {
        name: "cat".to_owned(),
        program: busybox.clone(),
        magic: magic.to_vec(),
        mask: vec![0xff; magic.len()],
        flags: "OC".to_owned(),
    };
    let outside = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let options = |magic: &[u8]| wbuild_exec::LauncherOptions {
        handlers: vec![handler(magic)],
        ..support::options(&machine.runtime)
    };
    let start = |magic: &[u8]| machine.block_on(wbuild_exec::Launcher::start(options(magic)));
    let (first, second) = (start(b"FIRST-").unwrap(), start(b"SECOND-").unwrap());
    let case = || {
        let mut case = machine.case();
        case.exec.user_namespace = Some(wbuild_exec::namespace::same_ids().unwrap());
        for name in ["FIRST", "SECOND"] {
            let program = case.root().join(format!("bin/{name}"));
            fs::write(&program, format!("{name}-program\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        case
    };
    let out = case().finish_with(&first, &["/bin/FIRST"]);
    assert_eq!((out.exit(), out.stdout().as_str()), (0, "FIRST-program\n"), "{out:?}");
    // A program that a program starts; and the other launcher's kind, at the same time.
    let script = "FIRST; sh -c FIRST; SECOND 2>/dev/null; echo $?; id -u; touch /made";
    let made = case();
    let out = made.finish_with(&first, &["/bin/sh", "-c", script]);
    let twice = "FIRST-program\nFIRST-program\n";
    assert!(out.stdout().starts_with(twice) && out.stdout().ends_with("\n0\n"), "{out:?}");
    assert!(!out.stdout().contains("SECOND"), "{out:?}");
    assert_eq!(fs::metadata(made.root().join("made")).unwrap().uid(), 0);
    let out = case().finish_with(&second, &["/bin/SECOND"]);
    assert_eq!((out.exit(), out.stdout().as_str()), (0, "SECOND-program\n"), "{out:?}");
    // Ordinary steps know neither.
    let mut ordinary = case();
    ordinary.exec.user_namespace = machine.probe_options().user_namespace;
    let out = ordinary.sh("FIRST 2>/dev/null; SECOND 2>/dev/null; exit 3");
    assert!(out.exit() == 3 && !out.stdout().contains("program"), "{out:?}");
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), outside);
    Ok(())
}

fn ordinary_user(machine: &Machine) -> Result {
    if machine.rootless() || !machine.is_first() {
        return Ok(());
    }
    let facts = wbuild_exec::facts::Facts::gather(&machine.probe_options().search);
    facts.user_namespaces.map_err(Skip)?;
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // Once more, in a user namespace with one user, with every runtime.
    let output = std::process::Command::new("/proc/self/exe")
        .args(["environment", "output_is", "binds", "secrets", "tmpfs", "masked", "capabilities"])
        .args([
            "filtered",
            "missing",
            "handlers",
            "cancel_kills",
            "leaves_nothing",
            "stub",
            "hostile",
        ])
        .env("TMPDIR", place.path())
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    if let Some(line) = errors.lines().find_map(|line| line.strip_prefix("skipped: containers: ")) {
        return Err(Skip(line.to_owned()));
    }
    assert!(text.lines().filter(|line| line.contains("... ok")).count() >= 10, "{text}");
    Ok(())
}

/// Not a test: prints times.
fn bench(machine: &Machine) -> Result {
    if !support::asked_for("bench") {
        return Ok(());
    }
    let mut report: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for _ in 0..3 {
        let start = Instant::now();
        let launcher = machine.block_on(machine.start_launcher());
        report.entry("launcher start").or_default().push(start.elapsed());
        drop(launcher);
    }
    let root = support::busybox_root();
    let before = support::cpu_times(machine);
    for _ in 0..50 {
        // What the machine takes for any process at all, as a measure of how busy it is.
        let start = Instant::now();
        assert!(std::process::Command::new("/bin/true").status().unwrap().success());
        report.entry("(a plain process)").or_default().push(start.elapsed());
        for (name, network, files) in [
            ("true", Network::Sandbox, 0),
            ("true, 3 files", Network::Sandbox, 3),
            ("true, network none", Network::None, 0),
        ] {
            let mut case = machine.case_in(&root);
            case.exec.network = network;
            for n in 0..files {
                case.mount(
                    &format!("/etc/file{n}"),
                    true,
                    Source::Content(Content::readable(*b"x")),
                );
            }
            let (step, _stdout, _stderr) = machine.enter(|| case.step(&["/bin/true"]));
            let start = Instant::now();
            machine.block_on(machine.launcher().run(step)).unwrap();
            report.entry(name).or_default().push(start.elapsed());
        }
    }
    let after = support::cpu_times(machine);
    let steps = 150.0;
    println!(
        "{} cpu per step: this process {:.2} ms, launcher {:.2} ms, runtime and step {:.2} ms",
        machine.runtime.kind,
        (after.own - before.own) / steps,
        (after.launcher - before.launcher) / steps,
        (after.children - before.children) / steps,
    );
    for (name, mut times) in report {
        times.sort();
        println!(
            "{} {name}: median {:?}, min {:?}",
            machine.runtime.kind,
            times[times.len() / 2],
            times[0]
        );
    }
    Ok(())
}
