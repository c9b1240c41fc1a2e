//! What counts for a step's key, and what does not.

use anyhow::{Context as _, Result, ensure};
use wbuild_tests::run::Run;
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::tree::Node;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("what_a_step_sees_counts", what_a_step_sees_counts),
    ("what_is_said_of_the_image_does_not_count", what_is_said_of_the_image_does_not_count),
    ("mounted_files_count", mounted_files_count),
    ("modes_of_files_count_and_times_do_not", modes_of_files_count_and_times_do_not),
    ("names_of_sources", names_of_sources),
    ("ids_of_secrets_count", ids_of_secrets_count),
    ("proxies_do_not_count", proxies_do_not_count),
    ("linked_copies_stand_on_any_base", linked_copies_stand_on_any_base),
];

/// Fails unless a step ended this way.
fn ended(run: &Run, step: &str, end: &str) -> Result<()> {
    let actual = run.end_of(step)?;
    ensure!(actual == end, "{step} is {actual} and not {end}:\n{}", run.stderr);
    Ok(())
}

/// Builds a definition once, then with each of these lines before its step, every time from the first
/// one's cache: how the step ends.
fn with_lines(name: &str, lines: &[&str], end: &str) -> Result<()> {
    let file = |line: &str| format!("FROM base\n{line}\nRUN echo it > /tmp/x\n");
    let sandbox = Sandbox::with(name, &[("Dockerfile", &file(""))])?;
    sandbox.build(&[])?.success()?;
    for line in lines {
        sandbox.write("Dockerfile", &file(line))?;
        ended(&sandbox.build(&[])?.success()?, "RUN echo it", end)
            .with_context(|| (*line).to_owned())?;
    }
    Ok(())
}

fn what_a_step_sees_counts() -> Result<()> {
    let lines = [
        "ENV A=1",
        "ENV A=2",
        "ARG A=1\nARG UNUSED=1",
        "USER app",
        "USER 1000:50",
        "SHELL [\"/bin/sh\", \"-e\", \"-c\"]",
        "WORKDIR /tmp",
        "COPY Dockerfile /",
    ];
    with_lines("seen", &lines, "DONE")?;
    // Options of the step itself.
    let file = |options: &str| format!("FROM base\nRUN {options} echo it > /tmp/x\n");
    let sandbox = Sandbox::with("seen-options", &[("Dockerfile", &file(""))])?;
    sandbox.build(&[])?.success()?;
    for (options, end) in [
        ("--network=none", "DONE"),
        ("--mount=type=tmpfs,target=/t", "DONE"),
        ("--mount=type=tmpfs,target=/u", "DONE"),
        // The defaults, written out.
        ("--network=default --security=sandbox", "CACHED"),
    ] {
        sandbox.write("Dockerfile", &file(options))?;
        let run = sandbox.build(&[])?.success()?;
        ended(&run, " echo it", end).with_context(|| options.to_owned())?;
    }
    ended(&sandbox.build(&["--add-host=extra:1.2.3.4"])?.success()?, " echo it", "DONE")
}

fn what_is_said_of_the_image_does_not_count() -> Result<()> {
    let lines = [
        "LABEL a=1",
        "EXPOSE 80",
        "CMD [\"x\"]",
        "ENTRYPOINT [\"x\"]",
        "STOPSIGNAL SIGINT",
        "HEALTHCHECK CMD true",
        "VOLUME /data",
        "ONBUILD RUN false",
        "MAINTAINER somebody",
        "# a comment",
        "WORKDIR /",
    ];
    with_lines("said", &lines, "CACHED")
}

fn mounted_files_count() -> Result<()> {
    let sandbox = Sandbox::with(
        "mounted",
        &[
            (
                "Dockerfile",
                "FROM base AS tools\nCOPY tool other /tools/\n\
                 FROM base\n\
                 RUN --mount=source=dir,target=/d cat /d/* > /context\n\
                 RUN --mount=from=tools,source=/tools/tool,target=/tool cat /tool > /stage\n",
            ),
            ("dir/a", "a"),
            ("tool", "t"),
            ("other", "o"),
        ],
    )?;
    sandbox.build(&[])?.success()?;
    for (path, context, stage) in [
        ("unrelated", "CACHED", "CACHED"),
        ("other", "CACHED", "CACHED"),
        ("tool", "CACHED", "DONE"),
    ] {
        sandbox.write(path, "changed")?;
        let run = sandbox.build(&[])?.success()?;
        ended(&run, "RUN --mount=source=dir", context).with_context(|| path.to_owned())?;
        ended(&run, "RUN --mount=from=tools", stage).with_context(|| path.to_owned())?;
    }
    sandbox.write("dir/a", "changed")?;
    ended(&sandbox.build(&[])?.success()?, "RUN --mount=source=dir", "DONE")
}

fn modes_of_files_count_and_times_do_not() -> Result<()> {
    let sandbox = Sandbox::with(
        "file-modes",
        &[("Dockerfile", "FROM base\nCOPY dir /dir\nRUN ls -l /dir > /list\n"), ("dir/a", "a")],
    )?;
    sandbox.build(&[])?.success()?;
    let file = sandbox.path("context/dir/a");
    std::fs::File::open(&file)?.set_modified(std::time::UNIX_EPOCH)?;
    let run = sandbox.build(&[])?.success()?;
    ended(&run, "COPY dir", "CACHED")?;
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let run = sandbox.build(&[])?.success()?;
    ended(&run, "COPY dir", "DONE")?;
    ended(&run, "RUN ls", "DONE")
}

fn names_of_sources() -> Result<()> {
    let file = |file: &str, dir: &str| {
        format!("FROM base\nCOPY {file} /x\nCOPY {dir} /y\nRUN cat /x /y/* > /all\n")
    };
    let sandbox = Sandbox::with(
        "names",
        &[
            ("Dockerfile", &file("a", "d")),
            ("a", "same"),
            ("b", "same"),
            ("d/f", "1"),
            ("e/f", "1"),
            ("g/other", "1"),
        ],
    )?;
    sandbox.build(&[])?.success()?;
    // The name of a directory is not copied. That of a file might be, where /x is a directory: the copy
    // is made again, and what stands on it is not.
    sandbox.write("Dockerfile", &file("b", "e"))?;
    let run = sandbox.build(&[])?.success()?;
    ended(&run, "COPY e /y", "CACHED")?;
    ended(&run, "RUN cat", "CACHED")?;
    // Names in a directory are.
    sandbox.write("Dockerfile", &file("b", "g"))?;
    let run = sandbox.build(&[])?.success()?;
    ended(&run, "COPY g /y", "DONE")?;
    ended(&run, "RUN cat", "DONE")
}

fn ids_of_secrets_count() -> Result<()> {
    let file = |id: &str| {
        format!("FROM base\nRUN --mount=type=secret,id={id},target=/s test -e /s; echo > /x\n")
    };
    let sandbox = Sandbox::with("secret-ids", &[("Dockerfile", &file("one")), ("key", "1")])?;
    let secrets = ["--secret=id=one,src=context/key", "--secret=id=two,src=context/key"];
    sandbox.build(&secrets)?.success()?;
    sandbox.write("key", "2")?;
    ended(&sandbox.build(&secrets)?.success()?, "RUN --mount", "CACHED")?;
    sandbox.write("Dockerfile", &file("two"))?;
    ended(&sandbox.build(&secrets)?.success()?, "RUN --mount", "DONE")
}

fn proxies_do_not_count() -> Result<()> {
    let file = "FROM base\nRUN echo \"$HTTP_PROXY $http_proxy\" > /seen\n";
    let sandbox = Sandbox::with("proxies", &[("Dockerfile", file)])?;
    let (run, image) = sandbox.image("one", &["--build-arg=HTTP_PROXY=http://one.invalid"])?;
    // Both spellings, a blank, and the end of the line.
    let expected = 2 * "http://one.invalid".len() as u64 + 2;
    ensure!(
        matches!(image.tree.get("/seen")?.node, Node::File { size, .. } if size == expected),
        "{}",
        image.tree.listing()
    );
    ensure!(!image.config.to_string().contains("one.invalid"), "{}", image.config);
    // It needs no declaration; what is spelt otherwise does.
    run.never_says("not declared")?;
    let (run, _) = sandbox.image("two", &["--build-arg=HTTP_PROXY=http://two.invalid"])?;
    ended(&run, "RUN echo", "CACHED")?;
    let run = sandbox.build(&["--build-arg=HTTP_PROXI=http://two.invalid"])?.success()?;
    run.says("`HTTP_PROXI` is not declared by any ARG")
}

fn linked_copies_stand_on_any_base() -> Result<()> {
    let file = |base: &str, link: &str| {
        format!(
            "FROM base\nRUN echo {base} > /base\nCOPY {link} file /a/file\nCOPY {link} --chown=1:2 file /b\n"
        )
    };
    for (link, end) in [("--link", "CACHED"), ("", "DONE")] {
        let sandbox =
            Sandbox::with("linked", &[("Dockerfile", &file("one", link)), ("file", "x")])?;
        sandbox.build(&[])?.success()?;
        sandbox.write("Dockerfile", &file("two", link))?;
        let (run, image) = sandbox.image("image", &[])?;
        let steps: Vec<_> = run
            .steps()
            .into_iter()
            .filter(|step| step.name.contains("COPY") && !step.name.contains("LINK"))
            .collect();
        ensure!(steps.len() == 2 && steps.iter().all(|step| step.end == end), "{}", run.stderr);
        ensure!(image.tree.get("/b")?.uid == 1, "{}", image.tree.listing());
        image.tree.get("/a/file")?;
    }
    Ok(())
}
