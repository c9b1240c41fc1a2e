//! Earthfiles that name others: above them, in repositories, by patterns; and what they know of the
//! repository that they lie in.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use wbuild_tests::git::{HttpServer, Repo};
use wbuild_tests::run::Run;
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::skip;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("a_monorepo", a_monorepo),
    ("a_directory_without_repository", a_directory_without_repository),
    ("repositories", repositories),
    ("a_repository_on_the_command_line", a_repository_on_the_command_line),
    ("artifacts_on_the_command_line", artifacts_on_the_command_line),
    ("commits_count_where_they_are_used", commits_count_where_they_are_used),
    ("a_hostile_work_tree", a_hostile_work_tree),
];

/// Builds a target; what it is given stands behind it.
fn target(sandbox: &Sandbox, options: &[&str], words: &[&str]) -> Result<Run> {
    let base = wbuild_tests::base::layout()?;
    let mut command = sandbox.wbuild(["--progress=plain", "--allow=network.private"])?;
    command
        .arg(format!("--build-context=base=oci-layout://{}", base.display()))
        .args(options)
        .args(words);
    Run::of(&mut command)
}

fn read(sandbox: &Sandbox, path: &str) -> Result<String> {
    let path = sandbox.path(Path::new(path));
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

const LIB: &str = "VERSION 0.8\n\
    FROM base\n\
    lib:\n    \
        COPY source.txt /lib.txt\n    \
        RUN echo made-\"lib\" >> /lib.txt\n    \
        SAVE ARTIFACT /lib.txt AS LOCAL built/lib.txt\n\
    GREET:\n    \
        FUNCTION\n    \
        COPY +lib/lib.txt /greeting\n    \
        RUN echo greeted >> /greeting\n";

const API: &str = "VERSION --wildcard-builds --wildcard-copy 0.8\n\
    IMPORT ../../libs/x AS parts\n\
    FROM base\n\
    all:\n    \
        BUILD parts+lib\n    \
        BUILD +program\n    \
        BUILD ./plugins/*+plugin\n\
    program:\n    \
        COPY main.txt parts+lib/lib.txt ./plugins/*+plugin/name-* /work/\n    \
        DO parts+GREET\n    \
        RUN cat /work/* /greeting > /program\n    \
        SAVE ARTIFACT /program AS LOCAL out/program\n";

fn monorepo(name: &str) -> Result<Sandbox> {
    let plugin = |name: &str| {
        format!(
            "VERSION 0.8\nFROM base\nplugin:\n    RUN echo {name} > /name-{name}\n    \
            SAVE ARTIFACT /name-{name} AS LOCAL name\n"
        )
    };
    Sandbox::with(
        name,
        &[
            ("libs/x/Earthfile", LIB),
            ("libs/x/source.txt", "source\n"),
            ("libs/x/.earthlyignore", "hidden\n"),
            ("services/api/Earthfile", API),
            ("services/api/main.txt", "main\n"),
            ("services/api/plugins/b/Earthfile", &plugin("b")),
            ("services/api/plugins/a/Earthfile", &plugin("a")),
            ("services/api/plugins/none/README", ""),
        ],
    )
}

fn a_monorepo() -> Result<()> {
    skip::need_program("git")?;
    let sandbox = monorepo("earth-mono")?;
    Repo::new(sandbox.path("context"))?;
    target(&sandbox, &[], &["context/services/api+all"])?.success()?;
    let got = read(&sandbox, "context/services/api/out/program")?;
    ensure!(got == "source\nmade-lib\nmain\na\nb\nsource\nmade-lib\ngreeted\n", "{got}");
    // What is saved lands beside the Earthfile that says so.
    ensure!(read(&sandbox, "context/libs/x/built/lib.txt")? == "source\nmade-lib\n");
    ensure!(read(&sandbox, "context/services/api/plugins/b/name")? == "b\n");
    // Nothing else was written anywhere.
    let top: Vec<_> = std::fs::read_dir(sandbox.path("context"))?
        .map(|entry| Ok(entry?.file_name().into_string().expect("text")))
        .collect::<Result<_>>()?;
    ensure!(top.iter().all(|name| [".git", "libs", "services"].contains(&&**name)), "{top:?}");
    // From the directory itself, and with nothing changed.
    let again = target(&sandbox, &[], &["./context/services/api/+all"])?.success()?;
    again.says("CACHED")?;
    again.never_says("made-lib")?;
    // Elsewhere it is written by its path from the Earthfile, or from the top.
    target(&sandbox, &["-o", "files"], &["context/services/api+all"])?.success()?;
    ensure!(read(&sandbox, "files/out/program")? == got);
    ensure!(read(&sandbox, "files/plugins/a/name")? == "a\n");
    ensure!(read(&sandbox, "files/libs/x/built/lib.txt")? == "source\nmade-lib\n");
    // Mistakes are shown by the paths that the user knows.
    sandbox.write("libs/x/Earthfile", &LIB.replace("RUN echo", "RUNN echo"))?;
    let run = target(&sandbox, &[], &["context/services/api+all"])?.expect(1)?;
    run.says("../../libs/x/Earthfile:5")?;
    sandbox.write("services/api/Earthfile", &API.replace("../../libs", "../../../libs"))?;
    let run = target(&sandbox, &[], &["context/services/api+all"])?.expect(1)?;
    run.says("`../../../libs/x` leads out of what is built from")?;
    run.says("Earthfile:2")
}

fn a_directory_without_repository() -> Result<()> {
    let sandbox = Sandbox::below(&std::env::temp_dir(), "earth-no-repo")?;
    sandbox.write("a/Earthfile", "VERSION 0.8\nFROM base\nt:\n    BUILD ../b+t\n")?;
    sandbox.write("b/Earthfile", "VERSION 0.8\nFROM base\nt:\n    RUN true\n")?;
    let run = target(&sandbox, &[], &["context/a+t"])?.expect(1)?;
    run.says("`../b` leads out of what is built from")?;
    // The definition by its name, and the directory it is for.
    let named = ["--frontend=earthfile", "-f", "context/a/Earthfile", "--target=t", "context"];
    sandbox.write("a/Earthfile", "VERSION 0.8\nFROM base\nt:\n    BUILD ./b+t\n")?;
    target(&sandbox, &named, &[])?.success()?;
    Ok(())
}

/// A server, and a repository on it: its name in references.
fn served(sandbox: &Sandbox) -> Result<(HttpServer, Repo, String)> {
    std::fs::create_dir(sandbox.path("served"))?;
    let server = HttpServer::start(&sandbox.path("served"))?;
    let repo = Repo::new(sandbox.path("served").join("a.git"))?;
    repo.write("libs/x/Earthfile", LIB)?;
    repo.write("libs/x/source.txt", "first\n")?;
    let main = "VERSION 0.8\n\
        FROM base\n\
        t:\n    \
            ARG EARTHLY_GIT_HASH\n    \
            ARG EARTHLY_TARGET\n    \
            ARG EARTHLY_GIT_AUTHOR\n    \
            ARG EARTHLY_GIT_COMMIT_TIMESTAMP\n    \
            COPY ../libs/x+lib/lib.txt .\n    \
            COPY own.txt .\n    \
            RUN cat lib.txt own.txt > /t && \
                echo $EARTHLY_GIT_HASH $EARTHLY_TARGET $EARTHLY_GIT_AUTHOR \
                $EARTHLY_GIT_COMMIT_TIMESTAMP >> /t\n    \
            SAVE ARTIFACT /t AS LOCAL from-there/t\n";
    repo.write("main/Earthfile", main)?;
    repo.write("main/own.txt", "own\n")?;
    repo.commit("first")?;
    let name = format!("{}/a.git", server.host());
    Ok((server, repo, name))
}

fn repositories() -> Result<()> {
    skip::need_program("git")?;
    let sandbox = Sandbox::new("earth-remote")?;
    let (server, repo, name) = served(&sandbox)?;
    let first = repo.git(["rev-parse", "HEAD"])?;
    repo.git(["tag", "v1"])?;
    repo.write("libs/x/source.txt", "second\n")?;
    let second = repo.commit("second")?;
    let file = format!(
        "VERSION 0.8\n\
        IMPORT {name}/libs/x:v1 AS parts\n\
        FROM base\n\
        all:\n    \
            BUILD {name}/main:v1+t\n    \
            BUILD +newest\n    \
            BUILD +own\n\
        newest:\n    \
            COPY {name}/main+t/t /t\n    \
            SAVE ARTIFACT /t AS LOCAL newest\n\
        own:\n    \
            IMPORT {name}/libs/x:{second} AS newer\n    \
            COPY parts+lib/lib.txt /one\n    \
            DO newer+GREET\n    \
            RUN cat /one /greeting > /both\n    \
            SAVE ARTIFACT /both AS LOCAL own\n"
    );
    sandbox.write("Earthfile", &file)?;
    server.take_requests();
    target(&sandbox, &[], &["context+all"])?.success()?;
    let got = read(&sandbox, "context/from-there/t")?;
    let canonical = format!("{}/main", name.replace(".git", ""));
    let facts = |commit: &str, tag: &str| {
        format!("own\n{commit} {canonical}:{tag}+t a@example.org 1700000000\n")
    };
    ensure!(got == format!("first\nmade-lib\n{}", facts(&first, "v1")), "{got}");
    let got = read(&sandbox, "context/newest")?;
    ensure!(got == format!("second\nmade-lib\n{}", facts(&second, "main")), "{got}");
    let got = read(&sandbox, "context/own")?;
    ensure!(got == "first\nmade-lib\nsecond\nmade-lib\ngreeted\n", "{got}");
    // The server is asked once what its names lead to.
    let asked = server.take_requests();
    let listings = asked.iter().filter(|asked| asked.target.contains("info/refs")).count();
    ensure!(listings <= 4, "{listings} listings for three commits: {asked:#?}");
    let again = target(&sandbox, &[], &["context+all"])?.success()?;
    again.says("CACHED")?;
    again.never_says("made-lib")?;

    for (wrong, says) in [
        (format!("{name}/main+tt"), "there is no target `tt`"),
        (format!("{name}/nowhere+t"), "there is no Earthfile in"),
        (format!("{name}:v2+t"), "has no branch or tag v2"),
        (format!("{}/b.git+t", server.host()), "b.git"),
    ] {
        sandbox.write("Earthfile", &format!("VERSION 0.8\nt:\n    BUILD {wrong}\n"))?;
        let run = target(&sandbox, &[], &["context+t"])?.expect(1)?;
        run.says(says)?;
        run.says("Earthfile:3")?;
    }
    Ok(())
}

fn a_repository_on_the_command_line() -> Result<()> {
    skip::need_program("git")?;
    let sandbox = Sandbox::new("earth-remote-cli")?;
    let (_server, repo, name) = served(&sandbox)?;
    let commit = repo.git(["rev-parse", "HEAD"])?;
    repo.git(["branch", "john/work"])?;
    let word = format!("{name}/main:john/work+t");
    target(&sandbox, &[], &[&word])?.success()?;
    let canonical = word.replace(".git", "");
    let want = format!("first\nmade-lib\nown\n{commit} {canonical} a@example.org 1700000000\n");
    let got = read(&sandbox, "from-there/t")?;
    ensure!(got == want, "{got}");
    target(&sandbox, &[], &[&format!("{name}/libs/x+lib/lib.txt"), "here"])?.success()?;
    ensure!(read(&sandbox, "here")? == "first\nmade-lib\n");
    let run = target(&sandbox, &[], &[&format!("{name}/nowhere+t")])?.expect(1)?;
    run.says("cannot find Earthfile or earthfile in the directory nowhere of")
}

fn artifacts_on_the_command_line() -> Result<()> {
    let sandbox = monorepo("earth-artifact")?;
    let word = "./context/libs/x+lib/lib.txt";
    for (words, at) in [
        (&[word][..], "lib.txt"),
        (&["--artifact", word, "named"], "named"),
        (&["-a", word, "new/"], "new/lib.txt"),
        (&[word, "new"], "new/lib.txt"),
        (&["-o", "files", word], "files/lib.txt"),
        (&["./context/libs/x+lib/*.txt", "all/"], "all/lib.txt"),
    ] {
        target(&sandbox, &[], words)?.success()?;
        let got = read(&sandbox, at)?;
        ensure!(got == "source\nmade-lib\n", "{words:?}: {got}");
        std::fs::remove_file(sandbox.path(at))?;
    }
    ensure!(!sandbox.path("context/libs/x/built").exists(), "AS LOCAL was written, too");
    target(&sandbox, &[], &["./context/libs/x+lib/none"])?.expect(1)?.says("none")?;
    target(&sandbox, &["-a"], &["./context/libs/x+lib"])?.expect(2)?.says("--artifact")
}

fn commits_count_where_they_are_used() -> Result<()> {
    skip::need_program("git")?;
    let sandbox = Sandbox::new("earth-commits")?;
    let repo = Repo::new(sandbox.path("context"))?;
    let file = "VERSION 0.8\n\
        FROM base\n\
        all:\n    \
            BUILD +used\n    \
            BUILD +unused\n\
        used:\n    \
            ARG EARTHLY_GIT_HASH\n    \
            ARG EARTHLY_GIT_BRANCH\n    \
            ARG EARTHLY_GIT_AUTHOR\n    \
            ARG EARTHLY_GIT_COMMIT_TIMESTAMP\n    \
            ARG EARTHLY_GIT_ORIGIN_URL\n    \
            ARG EARTHLY_TARGET_PROJECT_NO_TAG\n    \
            RUN echo ran-\"used\" && echo $EARTHLY_GIT_HASH $EARTHLY_GIT_BRANCH \
                $EARTHLY_GIT_AUTHOR $EARTHLY_GIT_COMMIT_TIMESTAMP $EARTHLY_GIT_ORIGIN_URL \
                $EARTHLY_TARGET_PROJECT_NO_TAG > /facts\n    \
            SAVE ARTIFACT /facts AS LOCAL facts\n\
        unused:\n    \
            RUN echo ran-\"unused\"\n";
    sandbox.write("sub/Earthfile", file)?;
    repo.write(".gitignore", "facts\n")?;
    let first = repo.commit("first")?;
    repo.git(["remote", "add", "origin", "https://me:secret@example.org/o/r.git"])?;
    let facts = |commit: &str| {
        format!(
            "{commit} main a@example.org 1700000000 https://example.org/o/r.git example.org/o/r/sub\n"
        )
    };
    let run = target(&sandbox, &[], &["context/sub+all"])?.success()?;
    run.says("ran-used")?;
    run.says("ran-unused")?;
    run.never_says("secret")?;
    ensure!(read(&sandbox, "context/sub/facts")? == facts(&first));
    let run = target(&sandbox, &[], &["context/sub+all"])?.success()?;
    run.never_says("ran-used")?;
    run.never_says("ran-unused")?;
    let second = repo.commit("second")?;
    let run = target(&sandbox, &[], &["context/sub+all"])?.success()?;
    run.says("ran-used")?;
    run.never_says("ran-unused")?;
    ensure!(read(&sandbox, "context/sub/facts")? == facts(&second));
    Ok(())
}

fn a_hostile_work_tree() -> Result<()> {
    skip::need_program("git")?;
    let file = "VERSION 0.8\nFROM base\nt:\n    ARG EARTHLY_GIT_HASH\n    ARG EARTHLY_GIT_AUTHOR\n    \
        RUN echo $EARTHLY_GIT_HASH > /hash\n    SAVE ARTIFACT /hash AS LOCAL hash\n";
    let sandbox = Sandbox::with("earth-hostile", &[("Earthfile", file)])?;
    let repo = Repo::new(sandbox.path("context"))?;
    let commit = repo.commit("first")?;
    let canary = sandbox.path("canary");
    let run = format!("touch {}", canary.display());
    let config = format!(
        "[core]\n\tfsmonitor = {run}\n\tpager = {run}\n\tsshCommand = {run}\n\
         [gpg]\n\tprogram = {run}\n[log]\n\tshowSignature = true\n\
         [alias]\n\trev-parse = !{run}\n\tconfig = !{run}\n\tcat-file = !{run}\n"
    );
    let path = sandbox.path("context/.git/config");
    let before = std::fs::read_to_string(&path)?;
    std::fs::write(&path, before + &config)?;
    target(&sandbox, &[], &["context+t"])?.success()?;
    ensure!(read(&sandbox, "context/hash")? == format!("{commit}\n"));
    ensure!(!canary.exists(), "something of the configuration ran");
    // One that cannot be read is none, and that is said.
    std::fs::write(&path, "[core\n")?;
    let run = target(&sandbox, &[], &["context+t"])?.success()?;
    run.says("the git repository around the build context is left out")?;
    ensure!(read(&sandbox, "context/hash")? == "\n");
    Ok(())
}
