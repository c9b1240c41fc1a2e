//! The state directory, and what is the same wherever a build runs.

use anyhow::{Context as _, Result, ensure};
use wbuild_tests::machine;
use wbuild_tests::run::{DEADLINE, Run};
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::skip;

use crate::Test;
use crate::platforms::registered;

pub const TESTS: &[Test] = &[
    ("use_and_prune", use_and_prune),
    ("nothing_is_used_yet", nothing_is_used_yet),
    ("doctor", doctor),
    ("doctor_of_platforms", doctor_of_platforms),
    ("images_are_reproducible", images_are_reproducible),
    ("times_are_clamped", times_are_clamped),
    ("two_builds_at_once", two_builds_at_once),
    ("looking_while_a_build_runs", looking_while_a_build_runs),
    ("secrets_leave_no_trace", secrets_leave_no_trace),
    ("an_ssh_agent_is_lent_as_the_step_asks", an_ssh_agent_is_lent_as_the_step_asks),
    ("agents_are_handed_to_steps", agents_are_handed_to_steps),
    ("steps_see_nothing_of_the_machine", steps_see_nothing_of_the_machine),
    ("usage_errors", usage_errors),
];

fn use_and_prune() -> Result<()> {
    let sandbox = Sandbox::with(
        "prune",
        &[(
            "Dockerfile",
            "FROM base\nRUN --mount=type=cache,target=/c head -c 2000000 /dev/zero > /c/f && \
             head -c 3000000 /dev/zero > /f\n",
        )],
    )?;
    let (run, first) = sandbox.image("image", &[])?;
    ensure!(run.end_of("RUN --mount")? == "DONE", "{}", run.stderr);
    let used = || -> Result<u64> {
        let usage = sandbox.run(["du", "--json"])?.success()?.json()?;
        let total = usage["total_bytes"].as_u64().unwrap_or(0);
        let entries = usage["entries"].as_array().map_or(&[][..], |entries| &entries[..]);
        let sum: u64 = entries.iter().filter_map(|entry| entry["size_bytes"].as_u64()).sum();
        ensure!(total == sum, "{usage}");
        Ok(total)
    };
    ensure!(used()? > 5_000_000, "{} bytes are used", used()?);
    ensure!(sandbox.run(["du"])?.success()?.text()?.contains("RUN"), "steps are not named");

    // It asks, and nobody can answer here.
    ensure!(sandbox.run(["prune"])?.code != 0, "it did not ask");
    sandbox.run(["prune", "--force", "--filter", "until=1h"])?.success()?;
    ensure!(used()? > 5_000_000, "what was just used is gone");
    sandbox.run(["prune", "--force"])?.success()?;
    let after = used()?;
    ensure!(after < 5_000_000, "{after} bytes are left");
    sandbox.run(["prune", "--force", "--all"])?.success()?;
    // Empty directories, and the like.
    ensure!(used()? < 500_000, "{} bytes are left after --all", used()?);

    let (run, second) = sandbox.image("image", &[])?;
    ensure!(run.end_of("RUN --mount")? == "DONE", "{}", run.stderr);
    ensure!(first.tree == second.tree, "another result");
    Ok(())
}

fn nothing_is_used_yet() -> Result<()> {
    let sandbox = Sandbox::new("no-state")?;
    let usage = sandbox.run(["du", "--json"])?.success()?.json()?;
    ensure!(usage["total_bytes"] == 0, "{usage}");
    sandbox.run(["prune", "--force"])?.success()?;
    ensure!(!sandbox.path("state/records").exists(), "looking has made a state directory");
    Ok(())
}

fn doctor() -> Result<()> {
    let sandbox = Sandbox::new("doctor")?;
    let seen = sandbox.run(["doctor", "--json"])?;
    let report = seen.json()?;
    ensure!(seen.code == i32::from(report["works"] == false), "exit code {}", seen.code);
    let checks = report["checks"].as_array().map_or(&[][..], |checks| &checks[..]);
    for name in ["runtime", "overlayfs", "user namespaces", "cgroups"] {
        ensure!(checks.iter().any(|check| check["name"] == name), "{name}: {report}");
    }
    for check in checks {
        ensure!(check["state"] != "missing" || check["fix"].is_string(), "no remedy: {check}");
    }
    sandbox.run(["doctor"])?.expect(seen.code)?;
    Ok(())
}

/// It says what a build does, and nothing is registered on the machine for it.
fn doctor_of_platforms() -> Result<()> {
    let sandbox = Sandbox::new("doctor-platforms")?;
    let before = registered()?;
    let report = sandbox.run(["doctor", "--platforms", "--json"])?.success()?.json()?;
    ensure!(registered()? == before, "{:?} became {:?}", before, registered()?);
    let all = report["platforms"].as_array().context("platforms")?;
    let of = |name: &str| all.iter().find(|it| it["platform"] == name).context("not asked");
    let own = of("linux/amd64")?;
    if cfg!(target_arch = "x86_64") {
        ensure!(own["how"] == "native" && own["ran"] == true, "{own}");
        ensure!(of("linux/386")?["how"] == "personality", "{report}");
    }
    for answer in all {
        let remedy = answer["fixes"].as_array().is_some_and(|fixes| !fixes.is_empty());
        ensure!(answer["works"] == true || remedy, "no remedy: {answer}");
    }
    let run = sandbox.run(["doctor", "--platforms=linux/sparc64"])?.expect(1)?;
    ensure!(run.text()?.contains("QEMU does not emulate linux/sparc64"), "{}", run.text()?);
    skip::need_program("qemu-aarch64-static")?;
    let arm = of("linux/arm64")?;
    ensure!(arm["how"] == "own-handler" && arm["ran"] == true, "{arm}");
    let path = arm["emulators"][0]["path"].as_str().unwrap_or_default();
    ensure!(path.ends_with("/qemu-aarch64-static"), "{arm}");
    // As a runtime that cannot be used shows, something was run.
    let mut command = sandbox.wbuild(["doctor", "--platforms=linux/arm64"])?;
    let run = Run::of(command.env("WBUILD_RUNTIME", "/bin/false"))?.expect(1)?;
    ensure!(run.text()?.starts_with("no   linux/arm64"), "{}", run.text()?);
    Ok(())
}

/// Something of everything that ends in an image.
const MANY: &str = "FROM base AS one\n\
    COPY data /data\n\
    RUN mkdir -p /out/d && cp /data/* /out && ln /out/a /out/hard && ln -s a /out/soft\n\
    FROM base\n\
    COPY --from=one --chown=3:4 /out /out\n\
    RUN rm /etc/group && echo text > /out/d/late\n\
    WORKDIR /made/by/workdir\n\
    ADD data/a /added\n\
    LABEL a=b\n";

/// Entries of history that its last stage makes.
const MANY_ENTRIES: usize = 5;

fn many(name: &str) -> Result<Sandbox> {
    Sandbox::with(name, &[("Dockerfile", MANY), ("data/a", "a"), ("data/b", "b")])
}

fn images_are_reproducible() -> Result<()> {
    let mut digests = Vec::new();
    for (name, jobs) in [("reproducible-1", "1"), ("reproducible-2", "8")] {
        let sandbox = many(name)?;
        let mut command = sandbox.build_command(&[
            "-j",
            jobs,
            "-t=same:name",
            "-o=type=oci,tar=false,dest=image",
            "-o=type=docker,dest=docker.tar",
            "-o=type=tar,dest=files.tar",
        ])?;
        Run::of(command.env("SOURCE_DATE_EPOCH", "1600000000"))?.success()?;
        let image = wbuild_tests::image::Image::of_layout(&sandbox.path("image"))?;
        let sum = |file: &str| -> Result<String> {
            Ok(wbuild_tests::image::sha256(&std::fs::read(sandbox.path(file))?))
        };
        digests.push((image.digest, sum("docker.tar")?, sum("files.tar")?));
        // So that what takes times from the clock would differ.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    ensure!(digests[0] == digests[1], "{digests:?}");
    Ok(())
}

fn times_are_clamped() -> Result<()> {
    let epoch = 1_600_000_000;
    let sandbox = many("clamped")?;
    let mut command = sandbox
        .build_command(&["-o=type=oci,tar=false,dest=image", "-o=type=tar,dest=files.tar"])?;
    Run::of(command.env("SOURCE_DATE_EPOCH", epoch.to_string()))?.success()?;
    let mut archive = tar::Archive::new(std::fs::File::open(sandbox.path("files.tar"))?);
    for entry in archive.entries()? {
        let entry = entry?;
        ensure!(entry.header().mtime()? <= epoch, "{:?} is younger", entry.path()?);
    }
    let image = wbuild_tests::image::Image::of_layout(&sandbox.path("image"))?;
    let time = "2020-09-13T12:26:40Z";
    ensure!(image.config["created"] == time, "{}", image.config["created"]);
    // That of the base stays.
    let history = image.config["history"].as_array().map_or(&[][..], |entries| &entries[..]);
    let (base, own) = history.split_at(history.len() - MANY_ENTRIES);
    ensure!(own.iter().all(|entry| entry["created"] == time), "{own:?}");
    ensure!(!base.is_empty() && base.iter().all(|entry| entry["created"] != time), "{base:?}");
    Ok(())
}

fn two_builds_at_once() -> Result<()> {
    let sandbox = Sandbox::with(
        "two-builds",
        &[(
            "Dockerfile",
            "FROM base\nRUN echo begun && sleep 2 && cat /proc/sys/kernel/random/uuid > /id\n",
        )],
    )?;
    let mut first = sandbox.start_build(&["-o=type=oci,tar=false,dest=one"])?;
    first.wait_for(" begun\n")?;
    let impatient = sandbox.build(&["--no-wait"])?.expect(1)?;
    ensure!(!impatient.stderr.contains("begun"), "it did not fail at once");
    let mut second = sandbox.start_build(&["-o=type=oci,tar=false,dest=two"])?;
    second.wait_for("waiting")?;
    let (first, second) = (first.wait(DEADLINE)?.success()?, second.wait(DEADLINE)?.success()?);
    ensure!(first.end_of("RUN echo")? == "DONE", "{}", first.stderr);
    ensure!(second.end_of("RUN echo")? == "CACHED", "{}", second.stderr);
    let read = |name: &str| wbuild_tests::image::Image::of_layout(&sandbox.path(name));
    ensure!(read("one")?.digest == read("two")?.digest, "two different images");
    Ok(())
}

fn looking_while_a_build_runs() -> Result<()> {
    let sandbox =
        Sandbox::with("looking", &[("Dockerfile", "FROM base\nRUN echo begun && sleep 3\n")])?;
    let mut build = sandbox.start_build(&[])?;
    build.wait_for(" begun\n")?;
    let started = std::time::Instant::now();
    sandbox.run(["du"])?.success()?;
    sandbox.run(["doctor"])?;
    sandbox.run(["plugin", "inspect", "native"])?.success()?;
    ensure!(started.elapsed().as_secs() < 3, "they waited for the build");
    build.wait(DEADLINE)?.success()?;
    Ok(())
}

fn an_ssh_agent_is_lent_as_the_step_asks() -> Result<()> {
    let look = "test \"$(stat -c '%a %u:%g %F' $SSH_AUTH_SOCK)\" =";
    let sandbox = Sandbox::with(
        "ssh-agent",
        &[(
            "Dockerfile",
            &format!(
                "FROM base\n\
                 RUN --mount=type=ssh {look} '600 0:0 socket'\n\
                 RUN --mount=type=ssh,mode=0660,uid=12,gid=34 {look} '660 12:34 socket'\n\
                 RUN --mount=type=ssh,target=/agent {look} '600 0:0 socket'\n\
                 USER 12:34\n\
                 RUN --mount=type=ssh,uid=12,gid=34 test -w $SSH_AUTH_SOCK\n\
                 RUN --mount=type=ssh,id=other test ! -e /run/buildkit\n"
            ),
        )],
    )?;
    // Not in the sandbox: the path of a socket has at most 107 bytes.
    let folder = tempfile::tempdir()?;
    let agent = folder.path().join("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&agent)?;
    let ssh = format!("--ssh=default={}", agent.display());
    let args = [&ssh, "-o=type=oci,tar=false,dest=image"];
    let run = sandbox.build(&args)?.success()?;
    run.never_says("SSH_AUTH_SOCK is not set")?;
    let image = wbuild_tests::image::Image::of_layout(&sandbox.path("image"))?;
    let left = image.tree.0.keys().find(|path| path.starts_with("/run") || *path == "/agent");
    ensure!(left.is_none(), "the mount left {left:?}");
    // The agent is lent, it is no part of what the step is.
    let run = sandbox.build(&args)?.success()?;
    ensure!(run.end_of("660 12:34")? == "CACHED", "{}", run.stderr);
    Ok(())
}

fn secrets_leave_no_trace() -> Result<()> {
    const SECRET: &str = "s3cr3t-c0rrect-h0rse-battery";
    let sandbox = Sandbox::with(
        "secrets",
        &[(
            "Dockerfile",
            "FROM base\n\
             RUN --mount=type=secret,id=key grep -c battery /run/secrets/key > /seen\n\
             RUN --mount=type=secret,id=word,env=WORD test ${#WORD} = 28 && \
             echo length ${#WORD}\n\
             RUN test ! -e /run/secrets/key && test -z \"$WORD\"\n",
        )],
    )?;
    std::fs::write(sandbox.path("key"), SECRET)?;
    let args = [
        "--secret=id=key,src=key",
        "--secret=id=word,env=THE_WORD",
        "-o=type=oci,tar=false,dest=image",
    ];
    let mut command = sandbox.build_command(&args)?;
    let run = Run::of(command.env("THE_WORD", SECRET))?.success()?;
    run.never_says(SECRET)?;
    let image = wbuild_tests::image::Image::of_layout(&sandbox.path("image"))?;
    ensure!(!image.config.to_string().contains(SECRET), "it is in the config");
    let run_folder = image.tree.0.keys().find(|path| path.starts_with("/run"));
    ensure!(run_folder.is_none(), "the mount left {run_folder:?}");
    for folder in ["state", "image"] {
        let found = machine::files_with(&sandbox.path(folder), SECRET)?;
        ensure!(found.is_empty(), "it is in {found}");
    }

    // Another value does not run the step again; none at all fails where it is required.
    std::fs::write(sandbox.path("key"), "another")?;
    let mut command = sandbox.build_command(&args)?;
    let run = Run::of(command.env("THE_WORD", SECRET))?.success()?;
    ensure!(run.end_of("grep -c")? == "CACHED", "{}", run.stderr);
    sandbox.write(
        "Dockerfile",
        "FROM base\nRUN --mount=type=secret,id=missing,required=true cat /run/secrets/missing\n",
    )?;
    sandbox.build(&[])?.expect(1)?.says("missing")?;
    Ok(())
}

fn agents_are_handed_to_steps() -> Result<()> {
    let sandbox = Sandbox::with(
        "agent",
        &[(
            "Dockerfile",
            "FROM base\n\
             RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && \
             echo $SSH_AUTH_SOCK > /default\n\
             RUN --mount=type=ssh,id=other,target=/agent test -S /agent && \
             echo $SSH_AUTH_SOCK > /other\n\
             RUN --mount=type=ssh,id=absent test ! -e \"$SSH_AUTH_SOCK\"\n\
             RUN test -z \"$SSH_AUTH_SOCK\"; cat /default /other\n",
        )],
    )?;
    let socket = sandbox.path("s");
    let _agent = std::os::unix::net::UnixListener::bind(&socket)?;
    let args = [format!("--ssh=default={}", socket.display()), "--ssh=other=s".to_owned()];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (run, image) = sandbox.image("image", &args)?;
    run.says(" /run/buildkit/ssh_agent.0\n")?;
    run.says(" /agent\n")?;
    for path in ["/run", "/agent"] {
        ensure!(!image.tree.0.contains_key(path), "{path} is in the image");
    }
    sandbox.write("Dockerfile", "FROM base\nRUN --mount=type=ssh,required=true true\n")?;
    sandbox.build(&[])?.expect(1)?.says("ssh")
}

fn steps_see_nothing_of_the_machine() -> Result<()> {
    let sandbox = Sandbox::with(
        "isolation",
        &[(
            "Dockerfile",
            "FROM base\n\
             RUN env | sort && ls /proc | grep -c '^[0-9]' && hostname && \
             cat /proc/self/status | grep -E '^(CapEff|NoNewPrivs|Seccomp):' && \
             (mount -t tmpfs none /mnt 2>&1 || true) && cat /proc/mounts | cut -d' ' -f2,3 | sort\n\
             RUN --network=none ls /sys/class/net\n",
        )],
    )?;
    let mut command = sandbox.build_command(&[])?;
    let run = Run::of(command.env("VISIBLE_TO_NOBODY", "x"))?.success()?;
    run.never_says("VISIBLE_TO_NOBODY")?;
    // Docker's default capabilities; a filter of system calls.
    run.says("00000000a80425fb")?;
    ensure!(
        run.stderr.lines().any(|line| line.contains("Seccomp:") && line.trim_end().ends_with('2')),
        "no filter:\n{}",
        run.stderr
    );
    run.never_says(&sandbox.path("state").display().to_string())?;
    let interfaces: Vec<&str> = run
        .stderr
        .lines()
        .skip_while(|line| !line.contains("RUN --network=none"))
        .filter_map(|line| line.splitn(3, ' ').nth(2))
        .filter(|line| !line.contains(' ') && !line.ends_with('s'))
        .collect();
    ensure!(interfaces == ["lo"], "{interfaces:?}:\n{}", run.stderr);
    Ok(())
}

fn usage_errors() -> Result<()> {
    let sandbox = Sandbox::with("usage", &[("Dockerfile", "FROM base\n")])?;
    for (args, text) in [
        (&["build", "--nonsense", "context"][..], "--nonsense"),
        (&["build", "-o", "type=flying", "context"], "flying"),
        (&["build", "--platform", "a/b/c/d", "context"], "a/b/c/d"),
        (&["bulid", "context"], "context"),
    ] {
        sandbox.run(args)?.expect(2)?.says(text)?;
    }
    for (args, text) in
        [(&["build", "nowhere"][..], "nowhere"), (&["build", "-f", "nofile", "context"], "nofile")]
    {
        sandbox.run(args)?.expect(1)?.says(text)?;
    }
    ensure!(sandbox.run(["--help"])?.success()?.text()?.contains("Exit codes"), "no help");
    ensure!(sandbox.run(["version"])?.success()?.text()?.starts_with("wbuild "), "no version");
    Ok(())
}
