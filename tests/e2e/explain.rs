//! `wbuild explain` and `--explain`: why steps ran, and where the results of others came from.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use wbuild_tests::sandbox::Sandbox;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("changed_files_are_named", changed_files_are_named),
    ("changes_of_a_step_are_named", changes_of_a_step_are_named),
    ("what_a_step_stands_on_is_named", what_a_step_stands_on_is_named),
    ("lines_above_a_step_do_not_confuse_it", lines_above_a_step_do_not_confuse_it),
    ("a_failed_step_is_explained", a_failed_step_is_explained),
    ("results_that_are_gone", results_that_are_gone),
    ("where_results_were_found", where_results_were_found),
    ("an_unchanged_build_writes_nothing", an_unchanged_build_writes_nothing),
    ("a_step_is_found_in_several_ways", a_step_is_found_in_several_ways),
    ("builds_are_told_apart_by_their_definition", builds_are_told_apart_by_their_definition),
];

/// The explanation of the last build, by steps.
fn explained(sandbox: &Sandbox) -> Result<Value> {
    sandbox.run(["explain", "--json"])?.success()?.json()
}

/// What is said of the step whose name contains this text.
fn said(sandbox: &Sandbox, step: &str) -> Result<String> {
    let run = sandbox.run(["explain", step])?.success()?;
    let lines = run.text()?.lines().filter_map(|line| line.strip_prefix("    "));
    Ok(lines.collect::<Vec<_>>().join("|"))
}

fn expect(sandbox: &Sandbox, step: &str, expected: &str) -> Result<()> {
    let said = said(sandbox, step)?;
    ensure!(said == expected, "of {step}: expected {expected:?}, it says {said:?}");
    Ok(())
}

const FIRST: &str = "no earlier run of it is known";

fn changed_files_are_named() -> Result<()> {
    let sandbox = Sandbox::with(
        "explain-files",
        &[
            (
                "Dockerfile",
                "FROM base AS build\nCOPY src /src\nRUN cat /src/*/* > /out\n\
                 FROM base\nCOPY --from=build /out /etc/passwd /here/\n\
                 RUN --mount=source=src/main,target=/m cat /m/* > /x\n",
            ),
            ("src/main/a.rs", "a"),
            ("src/main/b.rs", "b"),
            ("src/docs/old.md", "x"),
        ],
    )?;
    sandbox.build(&[])?.success()?;
    for step in ["COPY src", "RUN cat", "COPY --from", "RUN --mount"] {
        expect(&sandbox, step, FIRST)?;
    }
    sandbox.write("src/main/a.rs", "other")?;
    sandbox.write("src/docs/new.md", "x")?;
    std::fs::remove_file(sandbox.path("context/src/docs/old.md"))?;
    std::fs::set_permissions(
        sandbox.path("context/src/main/b.rs"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    sandbox.write("elsewhere", "not read")?;
    sandbox.build(&[])?.success()?;
    expect(
        &sandbox,
        "COPY src",
        "src/docs/new.md is new in the build context context|\
         src/docs/old.md is gone in the build context context|\
         src/main/a.rs has changed in the build context context|\
         src/main/b.rs has another mode or owner in the build context context",
    )?;
    expect(&sandbox, "RUN cat", "base: the result of [build 2/3] COPY src /src has changed")?;
    expect(&sandbox, "COPY --from", "/out has changed in [build 3/3] RUN cat /src/*/* > /out")?;
    let mounted = said(&sandbox, "RUN --mount")?;
    ensure!(mounted.contains("src/main/a.rs has changed in the build context"), "{mounted}");
    ensure!(!mounted.contains("docs"), "it does not read them: {mounted}");
    Ok(())
}

fn changes_of_a_step_are_named() -> Result<()> {
    let file = |lines: &str, run: &str| format!("FROM base\n{lines}\nRUN {run}\n");
    let sandbox = Sandbox::with(
        "explain-changes",
        &[("Dockerfile", &file("ARG A=1\nARG API_TOKEN=x", "echo it > /tmp/x"))],
    )?;
    let first = ["--build-arg=A=1", "--build-arg=API_TOKEN=canary-one"];
    sandbox.build(&first)?.success()?;
    for (lines, run, args, expected) in [
        (
            "ARG A=1",
            "echo it > /tmp/x",
            &["--build-arg=A=2"][..],
            "variable A: \"1\" is now \"2\"|variable API_TOKEN",
        ),
        (
            "ARG A=1\nARG API_TOKEN=x",
            "echo it > /tmp/x",
            &["--build-arg=A=1", "--build-arg=API_TOKEN=canary-two"][..],
            "variable API_TOKEN has changed (the value is not shown)",
        ),
        (
            "ARG A=1\nARG API_TOKEN=x",
            "echo that > /tmp/x",
            &first[..],
            "command: \"echo it > /tmp/x\" is now \"echo that > /tmp/x\"",
        ),
        (
            "USER app\nARG A=1\nARG API_TOKEN=x",
            "echo that > /tmp/x",
            &first[..],
            "user is new: \"app\"",
        ),
        (
            "USER app\nARG A=1\nARG API_TOKEN=x",
            "--network=none echo that > /tmp/x",
            &first[..],
            "network is new: \"none\"",
        ),
        (
            "USER app\nARG A=1\nARG API_TOKEN=x",
            "--network=none --mount=type=tmpfs,target=/t echo that > /tmp/x",
            &first[..],
            "mount /t is new: \"tmpfs\"",
        ),
    ] {
        sandbox.write("Dockerfile", &file(lines, run))?;
        sandbox.build(args)?.success()?;
        let said = said(&sandbox, " echo ")?;
        ensure!(said.starts_with(expected), "expected {expected:?}, it says {said:?}");
        ensure!(!said.contains("canary"), "{said}");
    }
    sandbox.build(&["--no-cache"])?.success()?;
    expect(&sandbox, " echo ", "the cache was not to be used for it")
}

fn what_a_step_stands_on_is_named() -> Result<()> {
    let sandbox = Sandbox::with(
        "explain-base",
        &[("Dockerfile", "FROM image\nRUN echo it > /tmp/x\n"), ("make", "FROM base\n")],
    )?;
    for (name, label) in [("one", "--label=a=1"), ("two", "--label=a=2")] {
        sandbox.image(name, &["-f", "context/make", label])?;
    }
    let context =
        |name: &str| format!("--build-context=image=oci-layout://{}", sandbox.path(name).display());
    sandbox.build(&[&context("one")])?.success()?;
    // Another manifest of the same files changes nothing.
    let run = sandbox.build(&[&context("two")])?.success()?;
    ensure!(run.end_of("RUN echo")? == "CACHED", "{}", run.stderr);
    let all = explained(&sandbox)?;
    let by = &step(&all, "RUN echo")?["why"];
    ensure!(by["why"] == "found" && by["by"] == "result" && by["from"] == "local", "{by}");
    sandbox.write("make", "FROM base\nRUN echo more > /more\n")?;
    sandbox.image("two", &["-f", "context/make"])?;
    sandbox.build(&[&context("two")])?.success()?;
    let said = said(&sandbox, "RUN echo")?;
    ensure!(said.starts_with("base: ") && said.contains("@sha256:"), "{said}");
    ensure!(said.contains("… is now ") && said.matches("@sha256:").count() == 2, "{said}");
    Ok(())
}

/// The step of an explanation whose name contains this text.
fn step<'a>(explained: &'a Value, name: &str) -> Result<&'a Value> {
    let steps = explained["steps"].as_array().context("steps")?;
    let found = steps.iter().find(|step| step["name"].as_str().is_some_and(|n| n.contains(name)));
    found.with_context(|| format!("no step {name}: {explained}"))
}

fn lines_above_a_step_do_not_confuse_it() -> Result<()> {
    let sandbox = Sandbox::with(
        "explain-moved",
        &[("Dockerfile", "FROM base\nRUN echo 1 > /1\nRUN echo 2 > /2\nRUN echo 3 > /3\n")],
    )?;
    sandbox.build(&[])?.success()?;
    sandbox.write(
        "Dockerfile",
        "FROM base\nRUN echo 0 > /0\nRUN echo 1 > /1\nRUN echo 2 > /2\nRUN echo 3 > /3\n",
    )?;
    sandbox.build(&[])?.success()?;
    let said_of_first = said(&sandbox, "echo 1")?;
    ensure!(said_of_first.starts_with("base: "), "{said_of_first}");
    ensure!(said_of_first.contains("is now [2/5] RUN echo 0 > /0"), "{said_of_first}");
    expect(&sandbox, "echo 3", "base: the result of [4/5] RUN echo 2 > /2 has changed")
}

fn a_failed_step_is_explained() -> Result<()> {
    let file = |run: &str| format!("FROM base\nRUN {run}\n");
    let sandbox = Sandbox::with("explain-failed", &[("Dockerfile", &file("exit 0"))])?;
    sandbox.build(&[])?.success()?;
    sandbox.write("Dockerfile", &file("exit 3"))?;
    let run = sandbox.build(&["--explain"])?.expect(1)?;
    run.says("#2 because: command: \"exit 0\" is now \"exit 3\"")?;
    let step = step(&explained(&sandbox)?, "exit 3")?.clone();
    ensure!(step["end"] == "failed", "{step}");
    // What failed is nothing to compare with.
    sandbox.write("Dockerfile", &file("exit 3 # again"))?;
    sandbox.build(&[])?.expect(1)?;
    expect(&sandbox, "exit 3", "command: \"exit 0\" is now \"exit 3 # again\"")
}

fn results_that_are_gone() -> Result<()> {
    let sandbox = Sandbox::with(
        "explain-gone",
        &[("Dockerfile", "FROM base\nCOPY a /a\nRUN cat /a > /b\n"), ("a", "a")],
    )?;
    sandbox.build(&[])?.success()?;
    let records = sandbox.path("state/records");
    std::fs::remove_dir_all(&records)?;
    std::fs::create_dir(&records)?;
    sandbox.build(&[])?.success()?;
    for step in ["COPY a", "RUN cat"] {
        let said = said(&sandbox, step)?;
        ensure!(said.starts_with("nothing has changed, but its result"), "{said}");
    }
    // With all the rest what is known goes, too.
    sandbox.run(["prune", "--all", "--force"])?.success()?;
    sandbox.run(["explain"])?.expect(1)?.says("no build is known in")?;
    sandbox.build(&[])?.success()?;
    expect(&sandbox, "RUN cat", FIRST)
}

fn where_results_were_found() -> Result<()> {
    let sandbox = Sandbox::with(
        "explain-found",
        &[
            (
                "Dockerfile",
                "FROM base AS one\nCOPY a /a\nRUN tr -d x < /a > /b\n\
                 FROM base\nCOPY --from=one /b /b\nRUN cat /b > /c\n",
            ),
            ("a", "a"),
        ],
    )?;
    sandbox.build(&[])?.success()?;
    let run = sandbox.build(&["--explain"])?.success()?;
    run.says("because: found by its definition key")?;
    run.says(": in the state directory")?;
    // A file changes that makes no difference in the end.
    sandbox.write("a", "axx")?;
    sandbox.build(&[])?.success()?;
    let all = explained(&sandbox)?;
    for (name, end, why, by) in [
        ("COPY a", "done", "changed", None),
        ("RUN tr", "done", "changed", None),
        ("COPY --from", "cached", "found", Some("result")),
        ("RUN cat", "cached", "found", Some("result")),
    ] {
        let step = step(&all, name)?;
        ensure!(step["end"] == end && step["why"]["why"] == why, "{step}");
        ensure!(step["why"]["by"].as_str() == by, "{step}");
    }
    let said = said(&sandbox, "RUN cat")?;
    ensure!(said.contains("what it stands on and reads is the same"), "{said}");
    // Through the backend alone.
    let run = sandbox.build(&["--no-record-aliases", "--explain"])?.success()?;
    run.says(": through a cache backend")?;
    let all = explained(&sandbox)?;
    let why = &step(&all, "RUN cat")?["why"];
    ensure!(why["from"] == "backend", "{why}");
    // In a cache elsewhere, into a state directory that has nothing.
    sandbox.build(&["--cache-to=type=local,dest=cache,mode=max"])?.success()?;
    let fresh = ["--state-dir=b", "--cache-from=type=local,src=cache", "--explain"];
    sandbox.build(&fresh)?.success()?.says("because: found by its definition key")?;
    let all = sandbox.run(["explain", "--json", "--state-dir=b"])?.success()?.json()?;
    let from = &step(&all, "RUN cat")?["why"]["from"]["elsewhere"];
    ensure!(from.as_str().is_some_and(|place| place.contains("cache")), "{all}");
    Ok(())
}

/// Names, contents and times of the documents.
fn documents(sandbox: &Sandbox) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(sandbox.path("state/contexts"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        all.insert(name, std::fs::read(entry.path())?);
    }
    Ok(all)
}

fn an_unchanged_build_writes_nothing() -> Result<()> {
    let sandbox = Sandbox::with(
        "explain-unchanged",
        &[("Dockerfile", "FROM base\nCOPY a /a\nRUN cat /a > /b\n"), ("a", "a")],
    )?;
    sandbox.build(&[])?.success()?;
    let before = explained(&sandbox)?;
    ensure!(before["unchanged_at"].is_null(), "{before}");
    // The second build may add what only then is known, such as digests of the context.
    sandbox.build(&[])?.success()?;
    let documents_before = documents(&sandbox)?;
    let explain = documents_before.keys().find(|name| name.starts_with("explain-"));
    let path = sandbox.path("state/contexts").join(explain.context("no document")?);
    let inode = |path: &std::path::Path| -> Result<u64> {
        Ok(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path)?))
    };
    let inode_before = inode(&path)?;
    sandbox.build(&[])?.success()?;
    ensure!(documents(&sandbox)? == documents_before, "a document was written");
    ensure!(inode(&path)? == inode_before, "the document was written again");
    let after = explained(&sandbox)?;
    ensure!(after["unchanged_at"].is_u64(), "{after}");
    ensure!(after["steps"] == before["steps"], "{after}");
    let run = sandbox.run(["explain"])?.success()?;
    ensure!(run.text()?.contains("every step found as before"), "{}", run.text()?);
    // A question is no build.
    let used = std::fs::metadata(&path)?.modified()?;
    sandbox.build(&["--check"])?.success()?;
    ensure!(std::fs::metadata(&path)?.modified()? == used, "the document was marked");
    Ok(())
}

fn a_step_is_found_in_several_ways() -> Result<()> {
    let sandbox = Sandbox::with(
        "explain-step",
        &[("Dockerfile", "FROM base AS build\nRUN echo 1 > /1\nRUN echo 2 \\\n  > /2\n")],
    )?;
    sandbox.run(["explain"])?.expect(1)?.says("no build is known in")?;
    sandbox.build(&[])?.success()?;
    let number = step(&explained(&sandbox)?, "echo 2")?["number"].to_string();
    for way in
        ["echo 2", "[3/3]", "Dockerfile:3", "Dockerfile:4", ":4", &number, &format!("#{number}")]
    {
        let run = sandbox.run(["explain", way])?.success()?;
        ensure!(run.text()?.contains("RUN echo 2"), "{way}: {}", run.text()?);
        ensure!(!run.text()?.contains("RUN echo 1"), "{way}: {}", run.text()?);
    }
    let json = sandbox.run(["explain", "--json", "echo 2"])?.success()?.json()?;
    ensure!(json["steps"].as_array().is_some_and(|steps| steps.len() == 1), "{json}");
    ensure!(json["steps"][0]["at"]["line"] == 3, "{json}");
    let run = sandbox.run(["explain", "echo"])?.expect(1)?;
    run.says("2 steps are called \"echo\"")?;
    run.says("[2/3] RUN echo 1 > /1")?;
    sandbox.run(["explain", "no such"])?.expect(1)?.says("no step of the last build is called")
}

fn builds_are_told_apart_by_their_definition() -> Result<()> {
    let sandbox = Sandbox::with(
        "explain-definitions",
        &[
            ("Dockerfile", "FROM base\nRUN echo 1 > /1\n"),
            ("other", "FROM base\nRUN echo 2 > /2\n"),
        ],
    )?;
    sandbox.build(&[])?.success()?;
    sandbox.build(&["-f", "context/other"])?.success()?;
    // Without the line of the build's age, which two looks at one build may give differently.
    let steps = |args: &[&str]| -> Result<String> {
        let run = sandbox.run(args)?.success()?;
        let lines = run.text()?.lines().filter(|line| !line.starts_with("built "));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    };
    let last = steps(&["explain"])?;
    ensure!(last.contains("echo 2") && !last.contains("echo 1"), "{last}");
    let first = steps(&["explain", "--context", "context"])?;
    ensure!(first.contains("echo 1") && !first.contains("echo 2"), "{first}");
    let other = steps(&["explain", "-f", "context/other", "--context", "context"])?;
    ensure!(other == last, "{other}");
    // Looking does not make it the last build.
    ensure!(steps(&["explain"])? == last);
    sandbox.build(&[])?.success()?;
    ensure!(steps(&["explain"])?.contains("echo 1"), "a build that found all is the last one, too");
    Ok(())
}
