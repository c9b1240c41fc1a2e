//! Earthfiles: targets that hand files to each other, conditions, functions, what is left behind.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use wbuild_tests::git::{HttpServer, Repo};
use wbuild_tests::image::Image;
use wbuild_tests::registry::Registry;
use wbuild_tests::run::Run;
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::skip;
use wbuild_tests::tree::Node;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("artifacts_between_targets_and_directories", artifacts_between_targets_and_directories),
    ("an_image_with_names", an_image_with_names),
    ("names_are_pushed_as_the_file_says", names_are_pushed_as_the_file_says),
    ("repositories_are_cloned", repositories_are_cloned),
    ("conditions_and_loops", conditions_and_loops),
    ("functions_and_variables", functions_and_variables),
    ("caches_and_secrets", caches_and_secrets),
    ("directories_are_copied_as_said", directories_are_copied_as_said),
    ("dockerfiles_are_built_inside", dockerfiles_are_built_inside),
    ("a_dockerfile_that_fails_is_shown", a_dockerfile_that_fails_is_shown),
    ("commands_run_on_this_machine_only_if_allowed", commands_run_on_this_machine_only_if_allowed),
    (
        "a_command_on_this_machine_ends_with_the_build",
        a_command_on_this_machine_ends_with_the_build,
    ),
    ("a_failing_target_leaves_nothing", a_failing_target_leaves_nothing),
    ("targets_are_listed", targets_are_listed),
    ("mistakes_are_shown_where_they_are", mistakes_are_shown_where_they_are),
];

/// Builds a target of the context; what it is given stands behind it.
pub fn target(sandbox: &Sandbox, options: &[&str], target: &str, args: &[&str]) -> Result<Run> {
    let base = wbuild_tests::base::layout()?;
    let mut command = sandbox.wbuild(["--progress=plain"])?;
    command
        .arg(format!("--build-context=base=oci-layout://{}", base.display()))
        .args(options)
        .arg(format!("context{target}"))
        .args(args);
    Run::of(&mut command)
}

pub fn saved(sandbox: &Sandbox, path: &str) -> Result<String> {
    let path = sandbox.path(Path::new("context").join(path));
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn artifacts_between_targets_and_directories() -> Result<()> {
    let file = "VERSION 0.8\n\
        IMPORT ./lib AS parts\n\
        FROM base\n\
        WORKDIR /work\n\
        all:\n    \
            ARG NAME=nobody\n    \
            BUILD +test\n    \
            BUILD +program --NAME=$NAME\n\
        program:\n    \
            ARG NAME\n    \
            COPY main.txt .\n    \
            COPY (parts+lib/lib.txt --KIND=static) ./parts/\n    \
            RUN cat main.txt parts/lib.txt > program && echo \"for $NAME\" >> program && echo ran-\"program\"\n    \
            SAVE ARTIFACT program AS LOCAL out/program.txt\n\
        test:\n    \
            COPY +program/program .\n    \
            RUN grep -q static program && echo ran-\"test\" > report\n    \
            SAVE ARTIFACT report AS LOCAL out/reports/\n";
    let lib = "VERSION 0.8\n\
        FROM base\n\
        lib:\n    \
            ARG --required KIND\n    \
            COPY source.txt /source.txt\n    \
            RUN echo \"$KIND $(cat /source.txt)\" > /lib.txt\n    \
            SAVE ARTIFACT /lib.txt AS LOCAL never.txt\n";
    let sandbox = Sandbox::with(
        "earthfile",
        &[
            ("Earthfile", file),
            ("main.txt", "main\n"),
            ("lib/Earthfile", lib),
            ("lib/source.txt", "part\n"),
        ],
    )?;
    target(&sandbox, &[], "+all", &["--NAME=somebody"])?.success()?.says("ran-program")?;
    ensure!(saved(&sandbox, "out/program.txt")? == "main\nstatic part\nfor somebody\n");
    ensure!(saved(&sandbox, "out/reports/report")? == "ran-test\n");
    // What no chain of BUILD leads to is not left behind.
    ensure!(!sandbox.path("context/lib/never.txt").exists(), "the library's file was left behind");

    // Nothing has changed: nothing runs.
    let again = target(&sandbox, &[], "+all", &["--NAME=somebody"])?.success()?;
    again.never_says("ran-program")?;
    again.says("CACHED")?;
    // What was left behind is no part of what was built from.
    sandbox.write("lib/source.txt", "other\n")?;
    target(&sandbox, &[], "+all", &["--NAME", "somebody"])?.success()?.says("ran-program")?;
    ensure!(saved(&sandbox, "out/program.txt")? == "main\nstatic other\nfor somebody\n");
    // A target of the directory by itself.
    let alone = target(&sandbox, &["-o", "files"], "/lib+lib", &["--KIND=x"])?.success()?;
    alone.never_says("ran-")?;
    ensure!(std::fs::read_to_string(sandbox.path("files/never.txt"))? == "x other\n");
    Ok(())
}

fn an_image_with_names() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        builder:\n    \
            RUN mkdir /built && echo built > /built/file\n    \
            SAVE ARTIFACT /built\n\
        image:\n    \
            ARG PORT=80\n    \
            COPY +builder/built /opt/built\n    \
            ENV GREETING=\"hello $PORT\"\n    \
            EXPOSE $PORT\n    \
            LABEL made.by=earth\n    \
            USER app\n    \
            WORKDIR /opt\n    \
            ENTRYPOINT [\"cat\"]\n    \
            CMD [\"built/file\"]\n    \
            SAVE IMAGE example/app:1 example/app:latest\n";
    let sandbox = Sandbox::with("earth-image", &[("Earthfile", file)])?;
    let output = ["-t", "example/other", "-o", "type=docker,dest=image.tar"];
    target(&sandbox, &output, "+image", &["--PORT=8080"])?.success()?;
    let image = Image::of_docker_tar(&sandbox.path("image.tar"))?;
    ensure!(
        image.names == ["example/other:latest", "example/app:1", "example/app:latest"],
        "{:?}",
        image.names
    );
    let config = &image.config["config"];
    ensure!(config["Entrypoint"][0] == "cat" && config["Cmd"][0] == "built/file", "{config}");
    ensure!(config["User"] == "app" && config["WorkingDir"] == "/opt", "{config}");
    ensure!(config["ExposedPorts"]["8080/tcp"].is_object(), "{config}");
    ensure!(config["Labels"]["made.by"] == "earth", "{config}");
    ensure!(config["Env"].to_string().contains("GREETING=hello 8080"), "{config}");
    let Node::File { size: 6, .. } = image.tree.get("/opt/built/file")?.node else {
        anyhow::bail!("{}", image.tree.listing());
    };
    // Without an output, an image is built and kept to nobody.
    target(&sandbox, &[], "+image", &[])?.success()?;
    ensure!(!sandbox.path("context/opt").exists(), "the image was written to the context");
    Ok(())
}

fn names_are_pushed_as_the_file_says() -> Result<()> {
    let sandbox = Sandbox::new("earth-push")?;
    let registry = Registry::start(&sandbox.path("registry"), false)?;
    let host = registry.host();
    let file = format!(
        "VERSION 0.8\n\
        FROM base\n\
        pushed:\n    \
            RUN echo pushed > /file\n    \
            SAVE IMAGE --push {host}/named:1\n\
        kept:\n    \
            RUN echo kept > /file\n    \
            SAVE IMAGE {host}/kept:1\n"
    );
    sandbox.write("Earthfile", &file)?;
    let layout = |name: &str| sandbox.path(format!("pulled-{name}"));
    for name in ["pushed", "kept"] {
        let tag = format!("{host}/given:{name}");
        target(&sandbox, &["--push", "-t", &tag], &format!("+{name}"), &[])?.success()?;
        registry.pull(&format!("given:{name}"), &layout(name))?;
    }
    registry.pull("named:1", &layout("named"))?;
    let (given, named) =
        (Image::of_layout(&layout("pushed"))?, Image::of_layout(&layout("named"))?);
    ensure!(given.digest == named.digest, "two images were pushed");
    ensure!(registry.pull("kept:1", &layout("no")).is_err(), "a name without --push was pushed");
    Ok(())
}

fn repositories_are_cloned() -> Result<()> {
    skip::need_program("git")?;
    let sandbox = Sandbox::new("earth-git")?;
    std::fs::create_dir(sandbox.path("served"))?;
    let server = HttpServer::start(&sandbox.path("served"))?;
    let repo = Repo::new(sandbox.path("served").join("a.git"))?;
    repo.write("file", "first\n")?;
    repo.commit("first")?;
    let file = format!(
        "VERSION 0.8\n\
        FROM base\n\
        t:\n    \
            GIT CLONE {0} /whole\n    \
            GIT CLONE --branch=main {0} branch\n    \
            RUN test -d /whole/.git && cat /whole/file /branch/file > /got\n    \
            SAVE ARTIFACT /got AS LOCAL got\n",
        server.url("a.git")
    );
    sandbox.write("Earthfile", &file)?;
    target(&sandbox, &["--allow=network.private"], "+t", &[])?.success()?;
    ensure!(saved(&sandbox, "got")? == "first\nfirst\n", "{}", saved(&sandbox, "got")?);
    // Another commit is another input.
    repo.write("file", "second\n")?;
    repo.commit("second")?;
    target(&sandbox, &["--allow=network.private"], "+t", &[])?.success()?;
    ensure!(saved(&sandbox, "got")? == "second\nsecond\n", "{}", saved(&sandbox, "got")?);
    Ok(())
}

fn conditions_and_loops() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        t:\n    \
            COPY data /data\n    \
            LET said=nothing\n    \
            IF grep -q yes /data\n        \
                RUN echo then > /branch\n        \
                SET said=yes\n    \
            ELSE IF [ \"$(cat /data)\" = maybe ]\n        \
                RUN echo perhaps > /branch\n        \
                SET said=\"$(tr a-z A-Z < /data)\"\n    \
            ELSE\n        \
                RUN echo otherwise > /branch\n    \
            END\n    \
            FOR word IN one \"two three\" $(echo four; echo five)\n        \
                RUN echo \"$word\" >> /words\n    \
            END\n    \
            RUN echo \"$said\" >> /branch\n    \
            SAVE ARTIFACT /branch AS LOCAL out/\n    \
            SAVE ARTIFACT /words AS LOCAL out/\n";
    let sandbox = Sandbox::with("earth-if", &[("Earthfile", file), ("data", "yes\n")])?;
    target(&sandbox, &[], "+t", &[])?.success()?;
    ensure!(saved(&sandbox, "out/branch")? == "then\nyes\n", "{}", saved(&sandbox, "out/branch")?);
    ensure!(saved(&sandbox, "out/words")? == "one\ntwo\nthree\nfour\nfive\n");
    for (data, branch) in [("maybe\n", "perhaps\nMAYBE\n"), ("no\n", "otherwise\nnothing\n")] {
        sandbox.write("data", data)?;
        target(&sandbox, &[], "+t", &[])?.success()?;
        ensure!(saved(&sandbox, "out/branch")? == branch, "{}", saved(&sandbox, "out/branch")?);
    }
    Ok(())
}

fn functions_and_variables() -> Result<()> {
    let file = "VERSION 0.8\n\
        ARG --global WHO=all\n\
        FROM base\n\
        GREET:\n    \
            FUNCTION\n    \
            ARG word=hello\n    \
            ARG EARTHLY_TARGET_NAME\n    \
            RUN echo \"$word $WHO from $EARTHLY_TARGET_NAME\" >> /greetings\n\
        t:\n    \
            ARG word=mine\n    \
            ARG TARGETARCH\n    \
            ARG NATIVEARCH\n    \
            DO +GREET\n    \
            DO +GREET --word=bye\n    \
            RUN [ \"$TARGETARCH\" = \"$NATIVEARCH\" ] && echo \"$word\" >> /greetings\n    \
            RUN [\"/bin/sh\", \"-c\", \"echo exec $word >> /greetings\"]\n    \
            RUN --entrypoint sed -i 's/exec/no shell $/' /greetings\n    \
            SAVE ARTIFACT /greetings AS LOCAL greetings\n";
    let sandbox = Sandbox::with("earth-do", &[("Earthfile", file)])?;
    target(&sandbox, &[], "+t", &["--WHO=you"])?.success()?;
    let got = saved(&sandbox, "greetings")?;
    ensure!(got == "hello you from t\nbye you from t\nmine\nno shell $ mine\n", "{got}");
    Ok(())
}

fn caches_and_secrets() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        t:\n    \
            CACHE /cache\n    \
            RUN --no-cache echo x >> /cache/file && wc -l < /cache/file > /count\n    \
            RUN --secret PASS=pass --mount=type=secret,id=pass,target=/s --mount=type=tmpfs,target=/tmp/m \\\n        \
                test \"$PASS\" = \"$(cat /s)\" && test -n \"$PASS\" && touch /tmp/m/x && echo ok > /secret\n    \
            SAVE ARTIFACT /count AS LOCAL count\n    \
            SAVE ARTIFACT /secret AS LOCAL secret\n";
    let sandbox = Sandbox::with("earth-cache", &[("Earthfile", file)])?;
    std::fs::write(sandbox.path("pass"), "word")?;
    for count in ["1\n", "2\n"] {
        target(&sandbox, &["--secret", "id=pass,src=pass"], "+t", &[])?.success()?;
        ensure!(saved(&sandbox, "count")? == count, "{}", saved(&sandbox, "count")?);
    }
    ensure!(saved(&sandbox, "secret")? == "ok\n");
    target(&sandbox, &[], "+t", &[])?.expect(1)?.says("pass")
}

fn directories_are_copied_as_said() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        t:\n    \
            COPY dir /contents/\n    \
            COPY --dir dir /whole/\n    \
            COPY --if-exists nothing /contents/\n    \
            COPY dir/*.txt /matched/\n    \
            RUN find /contents /whole /matched -type f | sort > /list\n    \
            SAVE ARTIFACT /contents /renamed\n    \
            SAVE ARTIFACT /contents/one.txt other/name\n    \
            SAVE ARTIFACT --if-exists /nowhere\n    \
            SAVE ARTIFACT /list AS LOCAL list\n    \
            SAVE ARTIFACT /contents AS LOCAL out\n\
        u:\n    \
            COPY --dir +t/renamed +t/other /got/\n    \
            COPY --chmod=0700 +t/contents/sub/two.md /mode\n    \
            RUN find /got -type f | sort > /list && stat -c %a /mode >> /list\n    \
            SAVE ARTIFACT /list AS LOCAL list2\n";
    let files = [
        ("Earthfile", file),
        ("dir/one.txt", "1"),
        ("dir/sub/two.md", "2"),
        ("dir/hidden.o", "3"),
        (".earthlyignore", "**/*.o\n"),
    ];
    let sandbox = Sandbox::with("earth-copy", &files)?;
    target(&sandbox, &[], "+t", &[])?.success()?;
    let got = saved(&sandbox, "list")?;
    let want = "/contents/one.txt\n/contents/sub/two.md\n/matched/one.txt\n/whole/dir/one.txt\n/whole/dir/sub/two.md\n";
    ensure!(got == want, "{got}");
    ensure!(saved(&sandbox, "out/sub/two.md")? == "2");
    target(&sandbox, &[], "+u", &[])?.success()?;
    let got = saved(&sandbox, "list2")?;
    ensure!(
        got == "/got/other/name\n/got/renamed/one.txt\n/got/renamed/sub/two.md\n700\n",
        "{got}"
    );
    Ok(())
}

fn dockerfiles_are_built_inside() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        all:\n    \
            BUILD +dir\n    \
            BUILD +artifact\n\
        dir:\n    \
            FROM DOCKERFILE --build-arg WHO=earth -f app/docker/My.Dockerfile ./app\n    \
            RUN echo \"$GREETING $(pwd)\" > out && ls /app > names\n    \
            SAVE ARTIFACT out AS LOCAL dir-out\n    \
            SAVE ARTIFACT names AS LOCAL dir-names\n    \
            SAVE ARTIFACT /tool AS LOCAL dir-tool\n\
        context:\n    \
            WORKDIR /context\n    \
            RUN echo made > made && printf 'FROM base\\nCOPY made /got\\nARG X=none\\nENV X=$X\\n' > Dockerfile\n    \
            SAVE ARTIFACT . tree\n\
        artifact:\n    \
            ARG X=given\n    \
            FROM DOCKERFILE --build-arg X +context/tree\n    \
            RUN echo \"$(cat /got) $X\" > /out\n    \
            SAVE ARTIFACT /out AS LOCAL artifact-out\n";
    let dockerfile = "FROM base AS build\n\
        ARG WHO\n\
        COPY source .\n\
        RUN echo \"$(cat source) for $WHO\" > /tool && echo ran-\"tool\"\n\
        FROM base\n\
        COPY --from=build /tool /tool\n\
        COPY . /app\n\
        ENV GREETING=hello\n\
        WORKDIR /work\n";
    let sandbox = Sandbox::with(
        "earth-dockerfile",
        &[
            ("Earthfile", file),
            ("app/docker/My.Dockerfile", dockerfile),
            ("app/source", "source"),
            ("app/left.log", "log"),
            ("app/.dockerignore", "*.log\ndocker\n"),
        ],
    )?;
    target(&sandbox, &[], "+all", &[])?.success()?.says("ran-tool")?;
    ensure!(saved(&sandbox, "dir-out")? == "hello /work\n");
    ensure!(saved(&sandbox, "dir-names")? == "source\n", "{}", saved(&sandbox, "dir-names")?);
    ensure!(saved(&sandbox, "dir-tool")? == "source for earth\n");
    ensure!(saved(&sandbox, "artifact-out")? == "made given\n");

    // Nothing has changed: neither frontend is asked, no step runs.
    let again = target(&sandbox, &["--stats"], "+all", &[])?.success()?;
    again.never_says("ran-tool")?;
    again.says("not run, nothing it read has changed")?;
    // What the Dockerfile says counts.
    sandbox.write("app/docker/My.Dockerfile", &dockerfile.replace("hello", "bye"))?;
    target(&sandbox, &[], "+all", &[])?.success()?.never_says("ran-tool")?;
    ensure!(saved(&sandbox, "dir-out")? == "bye /work\n");
    // And what it copies.
    sandbox.write("app/source", "other")?;
    target(&sandbox, &[], "+all", &[])?.success()?.says("ran-tool")?;
    ensure!(saved(&sandbox, "dir-tool")? == "other for earth\n");

    // One that comes from a file calls no other.
    let component = wbuild_tests::workspace().join("target/guests/dist/earthfile.wasm");
    let component = component.display().to_string();
    let own = ["-f", "context/Earthfile", "--frontend", &component, "--target=dir"];
    let run = sandbox.build(&own)?.expect(1)?;
    run.says("is not granted what it wants")?;
    run.says("it wants to call other frontends")?;
    let run = sandbox.run(["plugin", "inspect", &component])?.success()?;
    ensure!(run.text()?.contains("- call other frontends"), "{}", run.text()?);
    ensure!(run.text()?.contains("without a terminal it is refused"), "{}", run.text()?);
    let run = sandbox.run(["plugin", "inspect", "earthfile"])?.success()?;
    ensure!(run.text()?.contains("- call other frontends"), "{}", run.text()?);
    Ok(())
}

fn a_dockerfile_that_fails_is_shown() -> Result<()> {
    let file = "VERSION 0.8\nt:\n    FROM DOCKERFILE ./app\n    RUN true\n";
    let dockerfile = "FROM base\nRUNN x\n";
    let sandbox =
        Sandbox::with("earth-broken", &[("Earthfile", file), ("app/Dockerfile", dockerfile)])?;
    let run = target(&sandbox, &[], "+t", &[])?.expect(1)?;
    run.says("did you mean `RUN`?")?;
    run.says("app/Dockerfile:2")?;
    run.says("the Dockerfile is built for this line")?;
    run.says("Earthfile:3")?;
    // While a step of it runs.
    sandbox.write("app/Dockerfile", "FROM base\nRUN echo \"it is\" bad && exit 3\n")?;
    let run = target(&sandbox, &[], "+t", &[])?.expect(1)?;
    run.says("it is bad")?;
    run.says("app/Dockerfile:2")?;
    run.says("Earthfile:3")?;
    sandbox.write("Earthfile", "VERSION 0.8\nt:\n    FROM DOCKERFILE -f app/none app\n")?;
    let run = target(&sandbox, &[], "+t", &[])?.expect(1)?;
    run.says("there is no `app/none`")?;
    run.says("Earthfile:3")
}

fn commands_run_on_this_machine_only_if_allowed() -> Result<()> {
    let file = "VERSION 0.8\n\
        IMPORT ./sub\n\
        FROM base\n\
        all:\n    \
            BUILD +here\n    \
            BUILD +inside\n    \
            BUILD sub+there\n\
        here:\n    \
            LOCALLY\n    \
            ARG EARTHLY_LOCALLY\n    \
            ARG DIR=$(pwd)\n    \
            RUN echo \"$EARTHLY_LOCALLY $FROM_OUTSIDE\" > made && echo x >> runs && echo \"ran in\" $DIR\n    \
            IF [ -f made ]\n        \
                RUN echo seen >> made\n    \
            END\n    \
            FOR name IN $(cat names)\n        \
                RUN echo $name >> made\n    \
            END\n    \
            SAVE ARTIFACT made AS LOCAL copy\n\
        inside:\n    \
            COPY +here/made /made\n    \
            RUN cat /made && echo \"in a\" container\n\
        fails:\n    \
            LOCALLY\n    \
            RUN exit 3\n";
    let sub = "VERSION 0.8\nthere:\n    LOCALLY\n    RUN pwd > where\n";
    let sandbox = Sandbox::with(
        "earth-locally",
        &[("Earthfile", file), ("names", "one two"), ("made", "before\n"), ("sub/Earthfile", sub)],
    )?;
    let run = target(&sandbox, &[], "+all", &[])?.expect(1)?;
    run.says("is not granted to this build")?;
    run.says("--allow client.exec")?;
    run.says("Earthfile:11")?;
    ensure!(saved(&sandbox, "made")? == "before\n", "it ran all the same");

    let build = |name: &str| -> Result<Run> {
        let base = wbuild_tests::base::layout()?;
        let mut command = sandbox.wbuild(["--progress=plain", "--allow=client.exec"])?;
        command
            .env("FROM_OUTSIDE", "mine")
            .arg(format!("--build-context=base=oci-layout://{}", base.display()))
            .arg(format!("context+{name}"));
        Run::of(&mut command)
    };
    let run = build("all")?.success()?;
    run.says(&format!("ran in {}", sandbox.path("context").display()))?;
    run.says("in a container")?;
    ensure!(
        saved(&sandbox, "copy")? == "true mine\nseen\none\ntwo\n",
        "{}",
        saved(&sandbox, "copy")?
    );
    let place = sandbox.path("context/sub").display().to_string();
    ensure!(saved(&sandbox, "sub/where")?.trim() == place);
    // They run in every build; what is made of what they leave behind is kept.
    let run = build("all")?.success()?;
    run.says("ran in")?;
    run.never_says("in a container")?;
    ensure!(saved(&sandbox, "runs")? == "x\nx\n");
    // By itself there is nothing to yield.
    build("here")?.success()?.says("ran in")?;
    let run = build("fails")?.expect(1)?;
    run.says("exit code: 3")?;
    run.says("Earthfile:25")
}

fn a_command_on_this_machine_ends_with_the_build() -> Result<()> {
    let file = "VERSION 0.8\nt:\n    LOCALLY\n    RUN echo $$ > pid; sleep 300 & echo $! > child; echo now-\"waiting\"; wait\n";
    let sandbox = Sandbox::with("earth-locally-ends", &[("Earthfile", file)])?;
    let mut command = sandbox.wbuild(["--progress=plain", "--allow=client.exec", "context+t"])?;
    let mut running = wbuild_tests::run::Running::start(&mut command)?;
    running.wait_for("now-waiting")?;
    running.signal(rustix::process::Signal::INT)?;
    running.wait(Duration::from_secs(30))?;
    for name in ["pid", "child"] {
        let process = format!("/proc/{}", saved(&sandbox, name)?.trim());
        let began = Instant::now();
        while Path::new(&process).exists() {
            ensure!(began.elapsed() < Duration::from_secs(10), "{name} is still there");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

fn a_failing_target_leaves_nothing() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        all:\n    \
            BUILD +good\n    \
            BUILD +bad\n\
        good:\n    \
            RUN echo good > /good\n    \
            SAVE ARTIFACT /good AS LOCAL good\n\
        bad:\n    \
            RUN echo \"this is\" bad && exit 3\n";
    let sandbox = Sandbox::with("earth-fails", &[("Earthfile", file)])?;
    let run = target(&sandbox, &[], "+all", &[])?.expect(1)?;
    run.says("this is bad")?;
    run.says("Earthfile:10")?;
    ensure!(!sandbox.path("context/good").exists(), "the good one was left behind");
    Ok(())
}

fn targets_are_listed() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        # build makes the program\n\
        build:\n    \
            RUN true\n\
        # not about this target\n\
        test:\n    \
            FROM --platform=linux/arm64 alpine\n";
    let sandbox = Sandbox::with("earth-list", &[("Earthfile", file)])?;
    let run = target(&sandbox, &["--call=targets,format=json"], "+build", &[])?.success()?;
    let list = run.json()?;
    let text = list.to_string();
    ensure!(text.contains("\"build\"") && text.contains("\"test\""), "{text}");
    ensure!(text.contains("makes the program") && !text.contains("not about"), "{text}");
    let run = target(&sandbox, &["--call=targets"], "+build", &[])?.success()?;
    ensure!(run.text()?.contains("makes the program"), "{}", run.text()?);
    Ok(())
}

fn mistakes_are_shown_where_they_are() -> Result<()> {
    let sandbox = Sandbox::with("earth-errors", &[("Earthfile", "VERSION 0.8\nt:\n    RUNN x\n")])?;
    let run = target(&sandbox, &[], "+t", &[])?.expect(1)?;
    run.says("Earthfile:3")?;
    run.says("did you mean `RUN`?")?;
    sandbox.write(
        "Earthfile",
        "VERSION 0.8\nFROM base\nt:\n    WITH DOCKER\n        RUN x\n    END\n",
    )?;
    let run = target(&sandbox, &[], "+t", &[])?.expect(1)?;
    run.says("there is no Docker daemon in a build")?;
    run.says("Earthfile:4")?;
    target(&sandbox, &[], "+tt", &[])?.expect(1)?.says("there is no target `tt`")?;
    // The command of a value, where it fails.
    sandbox.write("Earthfile", "VERSION 0.8\nFROM base\nt:\n    ARG x=$(echo no; exit 4)\n")?;
    let run = target(&sandbox, &[], "+t", &[])?.expect(1)?;
    run.says("exit code 4")?;
    run.says("Earthfile:4")?;
    // A step that a condition stands on, not the condition.
    sandbox.write(
        "Earthfile",
        "VERSION 0.8\nFROM base\nt:\n    RUN exit 5\n    IF true\n        RUN true\n    END\n",
    )?;
    let run = target(&sandbox, &[], "+t", &[])?.expect(1)?;
    run.says(">>>     RUN exit 5")?;
    run.never_says(">>>     IF true")
}
