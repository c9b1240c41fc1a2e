//! Contexts and definitions that are no local directory, and results that go into a running Docker.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use wbuild_tests::git::{HttpServer, Repo};
use wbuild_tests::httpd::Httpd;
use wbuild_tests::image::Image;
use wbuild_tests::peer::Docker;
use wbuild_tests::run::{DEADLINE, Run, Running};
use wbuild_tests::sandbox::Sandbox;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("an_archive_behind_a_url", an_archive_behind_a_url),
    ("a_definition_behind_a_url_has_no_context", a_definition_behind_a_url_has_no_context),
    ("a_url_as_the_file", a_url_as_the_file),
    ("a_repository", a_repository),
    ("questions_about_what_is_fetched", questions_about_what_is_fetched),
    ("the_definition_of_a_url_chooses_its_frontend", the_definition_of_a_url_chooses_its_frontend),
    ("an_archive_on_standard_input", an_archive_on_standard_input),
    ("archives_of_every_compression", archives_of_every_compression),
    ("archives_that_cannot_be_unpacked", archives_that_cannot_be_unpacked),
    ("an_archive_that_never_ends_is_given_up", an_archive_that_never_ends_is_given_up),
    ("contexts_per_platform", contexts_per_platform),
    ("load_goes_into_docker", load_goes_into_docker),
    ("load_without_docker", load_without_docker),
];

const ALLOW: &str = "--allow=network.private";

/// wbuild with plain progress and `base`, and nothing else.
fn wbuild(sandbox: &Sandbox, args: &[&str]) -> Result<Command> {
    let base = wbuild_tests::base::layout()?;
    let mut command = sandbox.wbuild(["build"])?;
    command
        .env("WBUILD_PROGRESS", "plain")
        .arg(format!("--build-context=base=oci-layout://{}", base.display()))
        .args(args);
    Ok(command)
}

fn run(sandbox: &Sandbox, args: &[&str]) -> Result<Run> {
    Run::of(&mut wbuild(sandbox, args)?)
}

fn piped(sandbox: &Sandbox, args: &[&str], input: &[u8]) -> Result<Run> {
    Running::start_with_input(&mut wbuild(sandbox, args)?, input)?.wait(DEADLINE)
}

/// A tar of the sandbox's context; `options` for tar, such as `-z`.
fn pack(sandbox: &Sandbox, options: &[&str]) -> Result<Vec<u8>> {
    let mut command = Command::new("tar");
    command.arg("-c").args(options).arg("-C").arg(sandbox.path("context")).arg(".");
    Ok(Run::of(&mut command)?.success()?.stdout)
}

fn content(sandbox: &Sandbox, path: &str) -> Result<String> {
    let path = sandbox.path("out").join(path);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Serves a folder of the sandbox that holds these files.
fn serve(sandbox: &Sandbox, files: &[(&str, &[u8])]) -> Result<Httpd> {
    let folder = sandbox.path("served");
    std::fs::create_dir_all(&folder)?;
    for (name, data) in files {
        std::fs::write(folder.join(name), data)?;
    }
    Httpd::start(&folder)
}

fn an_archive_behind_a_url() -> Result<()> {
    let sandbox = Sandbox::with(
        "context-url",
        &[
            ("Dockerfile", "FROM base\nCOPY . /x\nRUN cat /x/in\n"),
            ("sub/other", "FROM scratch\nCOPY in /other\n"),
            ("sub/wrong", "FROM scratch\n\nCOPY none /\n"),
            ("in", "inside"),
            ("ignored", "there all the same"),
            (".dockerignore", "ignored\n"),
        ],
    )?;
    let server = serve(&sandbox, &[("a.tgz", &pack(&sandbox, &["-z"])?)])?;
    let url = server.url("a.tgz");
    run(&sandbox, &[ALLOW, "-o=out", &url])?.success()?;
    ensure!(content(&sandbox, "x/in")? == "inside", "another file");
    // As with docker build: ignore files are for directories of this machine.
    content(&sandbox, "x/ignored")?;

    let again = run(&sandbox, &[ALLOW, "--stats", "-o=out", &url])?.success()?;
    ensure!(again.end_of("RUN cat")? == "CACHED", "{}", again.stderr);
    again.says("not run, nothing it read has changed")?;
    again.never_says("fetch http")?;

    // --file names files inside; one of this machine is named by its whole path.
    run(&sandbox, &[ALLOW, "-f=sub/other", "-o=out", &url])?.success()?;
    ensure!(content(&sandbox, "other")? == "inside", "another file");
    std::fs::write(sandbox.path("mine"), "FROM scratch\nCOPY in /mine\n")?;
    let mine = format!("-f={}", sandbox.path("mine").display());
    run(&sandbox, &[ALLOW, &mine, "-o=out", &url])?.success()?;
    ensure!(content(&sandbox, "mine")? == "inside", "another file");
    piped(&sandbox, &[ALLOW, "-f=-", "-o=out", &url], b"FROM scratch\nCOPY in /piped\n")?
        .success()?;
    ensure!(content(&sandbox, "piped")? == "inside", "another file");

    let wrong = run(&sandbox, &[ALLOW, "-f=sub/wrong", &url])?.expect(1)?;
    wrong.says("sub/wrong:3:")?;
    wrong.says(">>> COPY none /")?;
    wrong.says("\"/none\" does not exist in the build context")?;
    let none = run(&sandbox, &[ALLOW, "-f=none", &url])?.expect(1)?;
    none.says(&format!("cannot find none in {url}"))?;

    // Another archive: the frontend sees the new definition, whatever it was told before.
    sandbox.write("Dockerfile", "FROM base\nCOPY in /changed\nRUN cat /changed\n")?;
    sandbox.write("in", "inside, and changed")?;
    std::fs::write(sandbox.path("served/a.tgz"), pack(&sandbox, &["-z"])?)?;
    let changed = run(&sandbox, &[ALLOW, "-o=out", &url])?.success()?;
    ensure!(changed.end_of("RUN cat /changed")? == "DONE", "{}", changed.stderr);
    ensure!(content(&sandbox, "changed")? == "inside, and changed", "another file");
    Ok(())
}

fn a_definition_behind_a_url_has_no_context() -> Result<()> {
    let sandbox = Sandbox::new("definition-url")?;
    let server = serve(
        &sandbox,
        &[
            ("good", b"FROM base\nRUN echo from a url > /f\n"),
            ("bad", b"FROM base\nRUN true\nCOPY x /\n"),
            ("wrong", b"FROM base\nRUNN true\n"),
            ("empty", b"  \n"),
        ],
    )?;
    run(&sandbox, &[ALLOW, "-o=out", &server.url("good")])?.success()?;
    ensure!(content(&sandbox, "f")? == "from a url\n", "another file");
    let bad = run(&sandbox, &[ALLOW, &server.url("bad")])?.expect(1)?;
    bad.says("this build has no context to read files from")?;
    bad.says(&format!("{}:3:", server.url("bad")))?;
    bad.says(">>> COPY x /")?;
    let wrong = run(&sandbox, &[ALLOW, &server.url("wrong")])?.expect(1)?;
    wrong.says(&format!("{}:2:1", server.url("wrong")))?;
    wrong.says(">>> RUNN true")?;
    run(&sandbox, &[ALLOW, &server.url("empty")])?.expect(1)?.says("is empty")?;
    // With a definition of its own it would have to be a context.
    let file = run(&sandbox, &[ALLOW, &format!("-f={}", server.url("good")), &server.url("good")])?;
    file.expect(1)?.says("is no archive, so it is no context")?;
    // Not without being told that private addresses may be asked.
    run(&sandbox, &[&server.url("good")])?.expect(1)?.says("--allow network.private")?;
    Ok(())
}

fn a_url_as_the_file() -> Result<()> {
    let sandbox = Sandbox::with("file-url", &[("in", "inside"), ("Dockerfile", "FROM none\n")])?;
    let server = serve(
        &sandbox,
        &[("d", b"FROM scratch\nCOPY in /copied\n"), ("w", b"FROM scratch\nCOPY nothing /\n")],
    )?;
    let file = |name: &str| format!("-f={}", server.url(name));
    run(&sandbox, &[ALLOW, &file("d"), "-o=out", "context"])?.success()?;
    ensure!(content(&sandbox, "copied")? == "inside", "another file");
    let wrong = run(&sandbox, &[ALLOW, &file("w"), "context"])?.expect(1)?;
    wrong.says(&format!("{}:2:6", server.url("w")))?;
    let archive = pack(&sandbox, &[])?;
    piped(&sandbox, &[ALLOW, &file("d"), "-o=out2", "-"], &archive)?.success()?;
    ensure!(std::fs::read_to_string(sandbox.path("out2/copied"))? == "inside", "another file");
    run(&sandbox, &[ALLOW, &file("none"), "context"])?.expect(1)?.says("404")?;
    Ok(())
}

fn a_repository() -> Result<()> {
    wbuild_tests::skip::need_program("git")?;
    let sandbox = Sandbox::new("context-git")?;
    std::fs::create_dir(sandbox.path("served"))?;
    let server = HttpServer::start(&sandbox.path("served"))?;
    let repo = Repo::new(sandbox.path("served/a.git"))?;
    repo.write("Dockerfile", "FROM base\nCOPY . /x\nRUN cat /x/in\n")?;
    repo.write("sub/Dockerfile", "FROM scratch\nCOPY in /sub\n")?;
    repo.write("sub/in", "deeper")?;
    repo.write("wrong", "FROM scratch\nCOPY none /\n")?;
    repo.write(".dockerignore", "in\n")?;
    repo.write("in", "inside")?;
    repo.commit("first")?;
    let url = server.url("a.git");
    run(&sandbox, &[ALLOW, "-o=out", &url])?.success()?;
    ensure!(content(&sandbox, "x/in")? == "inside", "another file");
    ensure!(!sandbox.path("out/x/.git").exists(), "git's own directory was not asked for");
    let again = run(&sandbox, &[ALLOW, "--stats", "-o=out", &url])?.success()?;
    ensure!(again.end_of("RUN cat")? == "CACHED", "{}", again.stderr);
    again.says("not run, nothing it read has changed")?;

    run(&sandbox, &[ALLOW, "-o=out", &format!("{url}#main:sub")])?.success()?;
    ensure!(content(&sandbox, "sub")? == "deeper", "another directory");
    run(&sandbox, &[ALLOW, "-o=out2", "-f=sub/Dockerfile", &url])?.success()?;
    ensure!(std::fs::read_to_string(sandbox.path("out2/sub"))? == "inside", "another context");
    let wrong = run(&sandbox, &[ALLOW, "-f=wrong", &url])?.expect(1)?;
    wrong.says("wrong:2:")?;
    wrong.says("\"/none\" does not exist in the build context")?;
    let keep = "--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1";
    run(&sandbox, &[ALLOW, keep, "-o=out3", &url])?.success()?;
    ensure!(sandbox.path("out3/x/.git").is_dir(), "git's own directory is missing");

    repo.write("Dockerfile", "FROM base\nCOPY in /changed\nRUN cat /changed\n")?;
    repo.commit("second")?;
    let changed = run(&sandbox, &[ALLOW, "-o=out4", &url])?.success()?;
    ensure!(changed.end_of("RUN cat /changed")? == "DONE", "{}", changed.stderr);
    let targets = run(&sandbox, &[ALLOW, "--call=targets", &url])?.success()?;
    ensure!(targets.text()?.contains("(default)"), "{}", targets.text()?);
    Ok(())
}

fn questions_about_what_is_fetched() -> Result<()> {
    let sandbox = Sandbox::with(
        "questions-url",
        &[("Dockerfile", "FROM base AS one\nFROM one as two\nCOPY x /\n"), ("x", "")],
    )?;
    let archive = pack(&sandbox, &[])?;
    let server = serve(&sandbox, &[("a.tar", &archive)])?;
    let targets = run(&sandbox, &[ALLOW, "--call=targets", &server.url("a.tar")])?.success()?;
    ensure!(targets.text()?.contains("two"), "{}", targets.text()?);
    let check = piped(&sandbox, &["--check", "-"], &archive)?.expect(1)?;
    ensure!(check.text()?.contains("FromAsCasing"), "{}", check.text()?);
    Ok(())
}

fn the_definition_of_a_url_chooses_its_frontend() -> Result<()> {
    let sandbox = Sandbox::with(
        "frontend-url",
        &[
            ("Dockerfile", "# syntax=steps\nfrom base\ncopy in /copied\n"),
            ("foreign", "# syntax=127.0.0.1:9/other\nFROM scratch\n"),
            ("official", "# syntax=docker/dockerfile:1\nFROM scratch\nCOPY in /copied\n"),
            ("in", "inside"),
        ],
    )?;
    let archive = pack(&sandbox, &[])?;
    let server = serve(&sandbox, &[("a.tar", &archive)])?;
    run(&sandbox, &[ALLOW, "-o=out", &server.url("a.tar")])?.success()?;
    ensure!(content(&sandbox, "copied")? == "inside", "another file");
    let foreign = piped(&sandbox, &["-f=foreign", "-"], &archive)?.expect(1)?;
    foreign.says("cannot fetch the plugin oci://127.0.0.1:9/other:latest")?;
    foreign.says("foreign:1:10")?;
    let official = piped(&sandbox, &["-f=official", "-o=out", "-"], &archive)?.success()?;
    official.says("the bundled frontend dockerfile stands for docker/dockerfile:1")?;
    Ok(())
}

fn an_archive_on_standard_input() -> Result<()> {
    let sandbox = Sandbox::with(
        "context-stdin",
        &[
            ("Dockerfile", "FROM base\nCOPY --chown=7:8 . /x\nRUN cat /x/in && sleep 0\n"),
            ("sub/other", "FROM scratch\nCOPY . /\n"),
            ("sub/other.dockerignore", "*\n!in\n"),
            ("in", "inside"),
            ("ignored", "not there"),
            (".dockerignore", "ignored\n"),
        ],
    )?;
    let archive = pack(&sandbox, &["--owner=1234"])?;
    piped(&sandbox, &["-o=out", "-"], &archive)?.success()?;
    ensure!(content(&sandbox, "x/in")? == "inside", "another file");
    ensure!(!sandbox.path("out/x/ignored").exists(), "what .dockerignore names was copied");

    // The same archive, and another with the same files: keys are made of what is in it.
    let gzip = pack(&sandbox, &["-z", "--owner=4321"])?;
    for archive in [&archive, &gzip] {
        let again = piped(&sandbox, &["-o=out", "--stats", "-"], archive)?.success()?;
        ensure!(again.end_of("COPY --chown")? == "CACHED", "{}", again.stderr);
        ensure!(again.end_of("RUN cat")? == "CACHED", "{}", again.stderr);
        again.says("not run, nothing it read has changed")?;
    }
    // The directory it was made of has the same files too.
    let directory = run(&sandbox, &["context"])?.success()?;
    ensure!(directory.end_of("RUN cat")? == "CACHED", "{}", directory.stderr);

    // A large file stays in the archive's directory until the image is written, which lives no
    // longer than the build.
    sandbox.write("large", &"large\n".repeat(1 << 20))?;
    sandbox.write("Dockerfile", "FROM base\nCOPY large /large\n")?;
    let with_large = pack(&sandbox, &[])?;
    let image = |name: &str| -> Result<Image> {
        let output = format!("-o=type=oci,tar=false,dest={name}");
        piped(&sandbox, &[&output, "-"], &with_large)?.success()?;
        Image::of_layout(&sandbox.path(name))
    };
    let (first, second) = (image("image")?, image("image-again")?);
    ensure!(first.digest == second.digest, "the same archive makes another image");
    piped(&sandbox, &["-o=out4", "-"], &with_large)?.success()?;
    let large = std::fs::metadata(sandbox.path("out4/large"))?;
    ensure!(large.len() == 6 << 20, "the file has {} bytes", large.len());

    // A file inside, with an ignore file of its own.
    piped(&sandbox, &["-f=sub/other", "-o=out2", "-"], &archive)?.success()?;
    let names: Vec<_> = std::fs::read_dir(sandbox.path("out2"))?
        .map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()))
        .collect::<Result<_>>()?;
    ensure!(names == ["in"], "{names:?}");

    let missing = piped(&sandbox, &["-f=none", "-"], &archive)?.expect(1)?;
    missing.says("cannot find none in -")?;
    // Still a definition where it is none.
    piped(&sandbox, &["-o=out3", "-"], b"FROM base\n")?.success()?;
    // Nothing of it is left.
    let left: Vec<_> = std::fs::read_dir(sandbox.path("state/tmp"))?.collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

fn archives_of_every_compression() -> Result<()> {
    let sandbox =
        Sandbox::with("compressions", &[("Dockerfile", "FROM scratch\nCOPY in /\n"), ("in", "x")])?;
    for (name, option) in
        [("gzip", "-z"), ("bzip2", "-j"), ("xz", "-J"), ("zstd", "--zstd"), ("tar", "--format=v7")]
    {
        if name != "tar" {
            wbuild_tests::skip::need_program(name)?;
        }
        let archive = pack(&sandbox, &[option])?;
        let output = format!("-o={name}");
        piped(&sandbox, &[&output, "-"], &archive)?.success().with_context(|| name.to_owned())?;
        ensure!(std::fs::read(sandbox.path(name).join("in"))? == b"x", "{name}");
    }
    Ok(())
}

fn archives_that_cannot_be_unpacked() -> Result<()> {
    let sandbox = Sandbox::with("bad-archives", &[("Dockerfile", "FROM scratch\n"), ("a", "x")])?;
    let whole = pack(&sandbox, &["-z"])?;
    let cut = piped(&sandbox, &["-"], &whole[..whole.len() / 2])?.expect(1)?;
    cut.says("cannot unpack the build context -")?;

    // A name that leads upwards, and a link that leads out: neither touches what lies outside.
    let victim = sandbox.path("victim");
    std::fs::write(&victim, "untouched")?;
    let mut upwards = Command::new("tar");
    upwards.args(["-cP", "--transform=s,^a$,../victim,", "-C"]);
    upwards.arg(sandbox.path("context")).args(["Dockerfile", "a"]);
    let upwards = Run::of(&mut upwards)?.success()?.stdout;
    piped(&sandbox, &["-"], &upwards)?.expect(1)?.says("leads upwards")?;

    std::os::unix::fs::symlink("/etc", sandbox.path("context/etc"))?;
    sandbox.write("Dockerfile", "FROM scratch\nCOPY etc/hostname /\n")?;
    let link = pack(&sandbox, &[])?;
    piped(&sandbox, &["-"], &link)?.expect(1)?.says("etc/hostname")?;
    ensure!(std::fs::read(&victim)? == b"untouched", "something outside was written");
    Ok(())
}

fn an_archive_that_never_ends_is_given_up() -> Result<()> {
    let sandbox = Sandbox::with("endless", &[("Dockerfile", "FROM scratch\n")])?;
    let archive = pack(&sandbox, &[])?;
    let (reader, mut writer) = std::io::pipe()?;
    std::io::Write::write_all(&mut writer, &archive[..1024])?;
    let mut command = wbuild(&sandbox, &["-"])?;
    command.stdin(reader).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn()?;
    drop(command);
    // It waits: there is somebody who could write more.
    std::thread::sleep(Duration::from_millis(1500));
    ensure!(child.try_wait()?.is_none(), "it ended though more could come");
    let began = Instant::now();
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::INT,
    )?;
    let status = child.wait()?;
    ensure!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    ensure!(status.code() == Some(130), "{status}");
    drop(writer);
    Ok(())
}

fn contexts_per_platform() -> Result<()> {
    let sandbox =
        Sandbox::with("per-platform", &[("Dockerfile", "FROM scratch\nCOPY --from=x f /\n")])?;
    for name in ["amd64", "any"] {
        std::fs::create_dir(sandbox.path(name))?;
        std::fs::write(sandbox.path(name).join("f"), name)?;
    }
    let args = [
        "--build-context=x=any",
        "--build-context=x::linux/amd64=amd64",
        "--platform=linux/amd64,linux/riscv64",
        "-o=out",
        "context",
    ];
    run(&sandbox, &args)?.success()?;
    ensure!(content(&sandbox, "linux_amd64/f")? == "amd64", "another context");
    ensure!(content(&sandbox, "linux_riscv64/f")? == "any", "another context");
    Ok(())
}

fn load_goes_into_docker() -> Result<()> {
    let sandbox =
        Sandbox::with("load", &[("Dockerfile", "FROM base\nCOPY in /\nCMD [\"cat\", \"in\"]\n")])?;
    sandbox.write("in", "inside")?;
    let docker = Docker::start()?;
    let load = |args: &[&str]| {
        let mut command = wbuild(&sandbox, args)?;
        command.env("DOCKER_HOST", docker.address()).arg("context");
        Run::of(&mut command)
    };
    let run =
        load(&["--load", "-t=example/app:1", "-t=example/app:2", "--iidfile=id"])?.success()?;
    ensure!(run.end_of("load into unix://")? == "DONE", "{}", run.stderr);
    let inspect = |name: &str| docker.client(&["image", "inspect", name])?.success()?.json();
    let seen = inspect("example/app:1")?;
    ensure!(seen[0]["Id"] == inspect("example/app:2")?[0]["Id"], "{seen}");
    let id = std::fs::read_to_string(sandbox.path("id"))?;
    ensure!(seen[0]["Id"] == id.trim(), "{id} is {seen}");
    ensure!(seen[0]["Config"]["Cmd"] == serde_json::json!(["cat", "in"]), "{seen}");
    docker.client(&["create", "--name", "it", "example/app:1"])?.success()?;
    let copied = sandbox.path("copied");
    docker.client(&["cp", "it:/in", &copied.to_string_lossy()])?.success()?;
    ensure!(std::fs::read(copied)? == b"inside", "another content");
    // Beside other outputs, and without a name.
    let quiet = load(&["-o=type=docker", "-o=type=oci,dest=x.tar", "-q"])?.success()?;
    docker.client(&["image", "inspect", quiet.text()?.trim()])?.success()?;
    ensure!(sandbox.path("x.tar").exists(), "the other output is missing");
    Ok(())
}

fn load_without_docker() -> Result<()> {
    let sandbox = Sandbox::with("no-docker", &[("Dockerfile", "FROM base\nRUN echo built\n")])?;
    let absent = |address: String| -> Result<Run> {
        let mut command = wbuild(&sandbox, &["--load"])?;
        Run::of(command.env("DOCKER_HOST", address).arg("context"))
    };
    let socket = format!("unix://{}", sandbox.path("none").display());
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    for address in [socket, format!("tcp://127.0.0.1:{port}")] {
        let run = absent(address.clone())?.expect(1)?;
        run.says(&format!("no Docker answers at {address}"))?;
        run.says("--output type=docker,dest=- | docker load")?;
        run.never_says("RUN echo built")?;
    }
    absent("tcp://127.0.0.1".to_owned())?.expect(1)?.says("expected tcp://HOST:PORT")?;
    let far = absent("ssh://example.org".to_owned())?;
    ensure!(far.code != 0, "it cannot be reached: {}", far.stderr);
    far.says("docker load")?;
    Ok(())
}
