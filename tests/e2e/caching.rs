//! What runs again and what does not.

use anyhow::{Result, ensure};
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::tree::Node;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("only_what_reads_a_changed_file_runs_again", only_what_reads_a_changed_file_runs_again),
    ("equal_results_cut_off_what_follows", equal_results_cut_off_what_follows),
    ("results_are_found_where_one_between_is_gone", results_are_found_where_one_between_is_gone),
    ("two_names_of_one_image_are_one", two_names_of_one_image_are_one),
    ("metadata_runs_nothing", metadata_runs_nothing),
    ("arguments_in_scope_are_in_the_key", arguments_in_scope_are_in_the_key),
    ("no_cache_replaces_results", no_cache_replaces_results),
    ("no_cache_filter_names_stages", no_cache_filter_names_stages),
    ("equal_steps_run_once", equal_steps_run_once),
    ("unused_stages_are_not_looked_at", unused_stages_are_not_looked_at),
    ("stages_run_at_the_same_time", stages_run_at_the_same_time),
    ("cache_mounts_stay", cache_mounts_stay),
    ("locked_cache_mounts_are_used_in_turn", locked_cache_mounts_are_used_in_turn),
    ("private_cache_mounts_are_apart", private_cache_mounts_are_apart),
    ("the_cache_backend_alone_is_enough", the_cache_backend_alone_is_enough),
];

fn only_what_reads_a_changed_file_runs_again() -> Result<()> {
    let sandbox = Sandbox::with(
        "changed-file",
        &[
            (
                "Dockerfile",
                "FROM base\n\
                 COPY a.txt /a\n\
                 RUN cat /a > /a2\n\
                 COPY docs /docs\n\
                 RUN cat /docs/* > /all\n",
            ),
            (".dockerignore", "docs/*.tmp\n"),
            ("a.txt", "a"),
            ("docs/one", "1"),
            ("unrelated", "x"),
        ],
    )?;
    let ends = |run: &wbuild_tests::run::Run| -> Result<[String; 4]> {
        Ok([
            run.end_of("COPY a.txt")?,
            run.end_of("RUN cat /a ")?,
            run.end_of("COPY docs")?,
            run.end_of("RUN cat /docs")?,
        ])
    };
    let (run, _) = sandbox.image("image", &[])?;
    ensure!(ends(&run)? == ["DONE"; 4], "{}", run.stderr);

    // Files that nothing selects, or that are ignored, and times, change nothing.
    sandbox.write("unrelated", "y")?;
    sandbox.write("new", "z")?;
    sandbox.write("docs/scratch.tmp", "t")?;
    sandbox.write("a.txt", "a")?;
    let (run, _) = sandbox.image("image", &[])?;
    ensure!(ends(&run)? == ["CACHED"; 4], "{}", run.stderr);

    sandbox.write("docs/one", "2")?;
    let (run, image) = sandbox.image("image", &[])?;
    ensure!(ends(&run)? == ["CACHED", "CACHED", "DONE", "DONE"], "{}", run.stderr);
    ensure!(matches!(image.tree.get("/all")?.node, Node::File { size: 1, .. }));

    // What was once there is found again.
    sandbox.write("docs/one", "1")?;
    let (run, _) = sandbox.image("image", &[])?;
    ensure!(ends(&run)? == ["CACHED"; 4], "{}", run.stderr);
    Ok(())
}

fn equal_results_cut_off_what_follows() -> Result<()> {
    let sandbox = Sandbox::with(
        "cut-off",
        &[
            (
                "Dockerfile",
                "FROM base AS compile\n\
                 COPY source /source\n\
                 RUN grep -v '^#' /source > /program\n\
                 FROM base\n\
                 COPY --from=compile /program /program\n\
                 RUN cat /program > /installed\n",
            ),
            ("source", "# one\ncode\n"),
        ],
    )?;
    sandbox.image("image", &[])?;
    // Another comment: the stage runs again, and what it hands on is the same.
    sandbox.write("source", "# two\ncode\n")?;
    let (run, _) = sandbox.image("image", &[])?;
    ensure!(run.end_of("RUN grep")? == "DONE", "{}", run.stderr);
    ensure!(run.end_of("COPY --from=compile")? == "CACHED", "{}", run.stderr);
    ensure!(run.end_of("RUN cat")? == "CACHED", "{}", run.stderr);

    sandbox.write("source", "# two\nother code\n")?;
    let (run, _) = sandbox.image("image", &[])?;
    ensure!(run.end_of("RUN cat")? == "DONE", "{}", run.stderr);
    Ok(())
}

/// Removes the records of a step under all their keys; how many names they had.
fn forget(sandbox: &Sandbox, step: &str) -> Result<usize> {
    let mut names = 0;
    for shard in std::fs::read_dir(sandbox.path("state/records"))? {
        for record in std::fs::read_dir(shard?.path())? {
            let path = record?.path();
            let content = std::fs::read(&path)?;
            if content.windows(step.len()).any(|window| window == step.as_bytes()) {
                std::fs::remove_file(&path)?;
                names += 1;
            }
        }
    }
    Ok(names)
}

fn results_are_found_where_one_between_is_gone() -> Result<()> {
    let file = |last: &str| {
        format!("FROM base\nCOPY a /a\nRUN cat /a > /b\nRUN cat /b > /c\nRUN cat /c > {last}\n")
    };
    let sandbox = Sandbox::with("gap", &[("Dockerfile", &file("/d")), ("a", "a")])?;
    let (_, first) = sandbox.image("image", &[])?;
    ensure!(forget(&sandbox, "RUN cat /a > /b")? == 2, "a record has two keys");
    let (run, second) = sandbox.image("image", &[])?;
    for step in ["RUN cat /b", "RUN cat /c"] {
        ensure!(run.end_of(step)? == "CACHED", "{step}:\n{}", run.stderr);
    }
    ensure!(first.digest == second.digest, "another image");
    // A new step on top needs the layers only, and the record of what it stands on has them.
    sandbox.write("Dockerfile", &file("/e"))?;
    let (run, _) = sandbox.image("image", &[])?;
    ensure!(run.end_of("RUN cat /b")? == "CACHED", "{}", run.stderr);
    ensure!(run.end_of("RUN cat /c")? == "DONE", "{}", run.stderr);
    Ok(())
}

fn two_names_of_one_image_are_one() -> Result<()> {
    let file = |name: &str| format!("FROM {name}\nRUN echo > /x\n");
    let sandbox = Sandbox::with("two-names", &[("Dockerfile", &file("one"))])?;
    let base = wbuild_tests::base::layout()?;
    let contexts = ["one", "two"]
        .map(|name| format!("--build-context={name}=oci-layout://{}", base.display()));
    sandbox.build(&[&contexts[0], &contexts[1]])?.success()?;
    sandbox.write("Dockerfile", &file("two"))?;
    let run = sandbox.build(&[&contexts[0], &contexts[1]])?.success()?;
    ensure!(run.end_of("RUN echo")? == "CACHED", "{}", run.stderr);
    // Under both names at the same time.
    sandbox.write(
        "Dockerfile",
        "FROM one AS a\nRUN sleep 1 && cat /proc/sys/kernel/random/uuid > /made\n\
         FROM two AS b\nRUN sleep 1 && cat /proc/sys/kernel/random/uuid > /made\n\
         FROM one\nCOPY --from=a /made /a\nCOPY --from=b /made /b\nRUN cmp /a /b\n",
    )?;
    let run = sandbox.build(&[&contexts[0], &contexts[1]])?.success()?;
    let mut ends: Vec<String> = run
        .steps()
        .into_iter()
        .map(|step| (step.name, step.end))
        .filter(|(name, _)| name.contains("RUN sleep"))
        .map(|(_, end)| end)
        .collect();
    ends.sort();
    ensure!(ends == ["CACHED", "DONE"], "{ends:?}: {}", run.stderr);
    Ok(())
}

fn metadata_runs_nothing() -> Result<()> {
    let file = |label: &str| {
        format!(
            "FROM base\nLABEL a={label}\nEXPOSE 80\nSTOPSIGNAL SIGINT\nCMD [\"{label}\"]\n\
             VOLUME /data/{label}\nRUN echo > /x\n"
        )
    };
    let sandbox = Sandbox::with("metadata", &[("Dockerfile", &file("one"))])?;
    sandbox.image("image", &[])?;
    sandbox.write("Dockerfile", &file("two"))?;
    let (run, image) = sandbox.image("image", &["--label", "b=three"])?;
    ensure!(run.end_of("RUN echo")? == "CACHED", "{}", run.stderr);
    let labels = &image.config["config"]["Labels"];
    ensure!(labels["a"] == "two" && labels["b"] == "three", "{labels}");

    sandbox.write("Dockerfile", &file("two").replace("EXPOSE 80", "ENV X=1"))?;
    let (run, _) = sandbox.image("image", &[])?;
    ensure!(run.end_of("RUN echo")? == "DONE", "{}", run.stderr);
    Ok(())
}

fn arguments_in_scope_are_in_the_key() -> Result<()> {
    let sandbox = Sandbox::with(
        "arguments",
        &[("Dockerfile", "FROM base\nRUN echo before > /b\nARG A=0\nRUN echo after > /a\n")],
    )?;
    sandbox.image("image", &["--build-arg", "A=1"])?;
    let (run, _) = sandbox.image("image", &["--build-arg", "A=2"])?;
    ensure!(run.end_of("RUN echo before")? == "CACHED", "{}", run.stderr);
    ensure!(run.end_of("RUN echo after")? == "DONE", "{}", run.stderr);
    let (run, _) = sandbox.image("image", &["--build-arg", "A=1"])?;
    ensure!(run.end_of("RUN echo after")? == "CACHED", "{}", run.stderr);
    Ok(())
}

/// A step whose result is another each time it runs.
const RANDOM: &str = "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /id\n";

fn no_cache_replaces_results() -> Result<()> {
    let sandbox = Sandbox::with("no-cache", &[("Dockerfile", RANDOM)])?;
    let id = |args: &[&str]| -> Result<Node> {
        Ok(sandbox.image("image", args)?.1.tree.get("/id")?.node.clone())
    };
    let first = id(&[])?;
    ensure!(id(&[])? == first, "the step ran again");
    let second = id(&["--no-cache"])?;
    ensure!(second != first, "the step did not run");
    ensure!(id(&[])? == second, "the older result was used");
    Ok(())
}

fn no_cache_filter_names_stages() -> Result<()> {
    let sandbox = Sandbox::with(
        "no-cache-filter",
        &[(
            "Dockerfile",
            "FROM base AS one\nRUN echo 1 > /one\n\
             FROM base AS two\nRUN echo 2 > /two\n\
             FROM base\nCOPY --from=one /one /\nCOPY --from=two /two /\n",
        )],
    )?;
    sandbox.image("image", &[])?;
    let (run, _) = sandbox.image("image", &["--no-cache-filter", "two"])?;
    ensure!(run.end_of("RUN echo 1")? == "CACHED", "{}", run.stderr);
    ensure!(run.end_of("RUN echo 2")? == "DONE", "{}", run.stderr);
    Ok(())
}

fn equal_steps_run_once() -> Result<()> {
    let sandbox = Sandbox::with(
        "equal-steps",
        &[(
            "Dockerfile",
            "FROM base AS one\nRUN cat /proc/sys/kernel/random/uuid > /id\n\
             FROM base AS two\nRUN cat /proc/sys/kernel/random/uuid > /id\n\
             FROM scratch\nCOPY --from=one /id /one\nCOPY --from=two /id /two\n",
        )],
    )?;
    let (_, image) = sandbox.image("image", &[])?;
    ensure!(
        image.tree.get("/one")?.node == image.tree.get("/two")?.node,
        "the step ran twice:\n{}",
        image.tree.listing()
    );
    Ok(())
}

fn unused_stages_are_not_looked_at() -> Result<()> {
    let sandbox = Sandbox::with(
        "unused-stages",
        &[(
            "Dockerfile",
            "FROM 127.0.0.1:1/no/such:image AS unused\nRUN exit 1\n\
             FROM base AS failing\nRUN exit 1\n\
             FROM base\nRUN echo > /x\n",
        )],
    )?;
    let (run, _) = sandbox.image("image", &[])?;
    run.never_says("no/such")?;
    Ok(())
}

fn stages_run_at_the_same_time() -> Result<()> {
    // Each stage waits for a file that the other one makes: in turn, neither could end.
    let sandbox = two_stages("parallel", |own, other| {
        format!(
            "RUN --mount=type=cache,id=meeting,target=/m touch /m/{own} && \
             for i in $(seq 300); do [ -e /m/{other} ] && echo met > /{own} && exit 0; sleep 0.1; done; exit 1"
        )
    })?;
    sandbox.image("image", &["--jobs", "2"])?;
    Ok(())
}

fn cache_mounts_stay() -> Result<()> {
    let file = |comment: &str| {
        format!(
            "FROM base\nRUN --mount=type=cache,target=/c echo {comment} >> /c/log; cat /c/log > /log\n"
        )
    };
    let sandbox = Sandbox::with("cache-mount", &[("Dockerfile", &file("one"))])?;
    sandbox.image("image", &[])?;
    sandbox.write("Dockerfile", &file("two"))?;
    let (_, image) = sandbox.image("image", &[])?;
    ensure!(
        matches!(image.tree.get("/log")?.node, Node::File { size: 8, .. }),
        "the second step must see what the first one left:\n{}",
        image.tree.listing()
    );
    ensure!(!image.tree.0.contains_key("/c/log"), "the cache is in the image");
    // What is in the cache is no part of the key.
    sandbox.write("Dockerfile", &file("one"))?;
    let (run, _) = sandbox.image("image", &[])?;
    ensure!(run.end_of("RUN --mount")? == "CACHED", "{}", run.stderr);
    Ok(())
}

/// Two stages, `left` and `right`, whose step is `step(own, other)`.
fn two_stages(name: &str, step: impl Fn(&str, &str) -> String) -> Result<Sandbox> {
    let stage = |own: &str, other: &str| format!("FROM base AS {own}\n{}\n", step(own, other));
    let file = format!(
        "{}{}FROM scratch\nCOPY --from=left /left /\nCOPY --from=right /right /\n",
        stage("left", "right"),
        stage("right", "left")
    );
    Sandbox::with(name, &[("Dockerfile", &file)])
}

fn locked_cache_mounts_are_used_in_turn() -> Result<()> {
    // Who finds the other one's mark is not alone; without the lock both would be inside at once, as
    // `stages_run_at_the_same_time` shows.
    let sandbox = two_stages("locked", |own, _| {
        format!(
            "RUN --mount=type=cache,id=one,sharing=locked,target=/m \
             mkdir /m/inside && sleep 0.5 && rmdir /m/inside && echo done > /{own}"
        )
    })?;
    sandbox.image("image", &["--jobs", "2"])?;
    Ok(())
}

fn private_cache_mounts_are_apart() -> Result<()> {
    // They meet in another mount, so that both are inside at once.
    let sandbox = two_stages("private", |own, other| {
        format!(
            "RUN --mount=type=cache,id=meeting,target=/m \
             --mount=type=cache,id=own,sharing=private,target=/p \
             touch /p/{own} /m/{own} && for i in $(seq 300); do \
             [ -e /m/{other} ] && ls /p > /{own} && exit 0; sleep 0.1; done; exit 1"
        )
    })?;
    let (_, image) = sandbox.image("image", &["--jobs", "2"])?;
    for (path, size) in [("/left", 5), ("/right", 6)] {
        let node = &image.tree.get(path)?.node;
        ensure!(matches!(node, Node::File { size: s, .. } if *s == size), "{path}: {node:?}");
    }
    Ok(())
}

fn the_cache_backend_alone_is_enough() -> Result<()> {
    let sandbox = Sandbox::with(
        "backend-alone",
        &[
            (
                "Dockerfile",
                "FROM base AS one\nCOPY a /a\nRUN cat /proc/sys/kernel/random/uuid >> /a\n\
                 FROM base\nCOPY --from=one /a /a\nRUN cat /a > /b\n",
            ),
            ("a", "a"),
        ],
    )?;
    let (_, first) = sandbox.image("image", &[])?;
    let (run, second) = sandbox.image("image", &["--no-record-aliases"])?;
    for step in ["COPY a", "RUN cat /proc", "COPY --from", "RUN cat /a"] {
        ensure!(run.end_of(step)? == "CACHED", "{step}:\n{}", run.stderr);
    }
    ensure!(first.digest == second.digest, "another image was found");
    Ok(())
}
