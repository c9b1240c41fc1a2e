//! Directories of `RUN --mount=type=cache`: who shares which one, and what they begin with. See also
//! `caching.rs` for how steps that share one wait for each other.

use anyhow::{Result, ensure};
use wbuild_tests::run::DEADLINE;
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::tree::{Node, Tree};

use crate::Test;

pub const TESTS: &[Test] = &[
    ("the_target_is_the_id", the_target_is_the_id),
    ("owners_and_modes_are_as_asked_for", owners_and_modes_are_as_asked_for),
    ("another_seed_is_another_directory", another_seed_is_another_directory),
    ("namespaces_are_apart", namespaces_are_apart),
    ("locked_and_shared_users_exclude_each_other", locked_and_shared_users_exclude_each_other),
    ("builds_at_once_lose_nothing", builds_at_once_lose_nothing),
    ("a_failed_step_keeps_what_it_wrote", a_failed_step_keeps_what_it_wrote),
    ("cache_mounts_go_along_with_a_cache", cache_mounts_go_along),
    ("directories_as_cache_mounts", directories_as_cache_mounts),
];

/// Fails unless a file has this many bytes.
fn size(tree: &Tree, path: &str, expected: u64) -> Result<()> {
    let node = &tree.get(path)?.node;
    let Node::File { size, .. } = node else { anyhow::bail!("{path} is {node:?}") };
    ensure!(*size == expected, "{path} has {size} bytes, not {expected}:\n{}", tree.listing());
    Ok(())
}

fn the_target_is_the_id() -> Result<()> {
    let sandbox = Sandbox::with(
        "cache-target",
        &[(
            "Dockerfile",
            "FROM base\n\
             RUN --mount=type=cache,target=/a/b echo 1 > /a/b/x\n\
             RUN --mount=type=cache,target=/a/../a/b/ cp /a/b/x /same\n\
             RUN --mount=type=cache,target=/other,id=/a/b cp /other/x /by-id\n\
             RUN --mount=type=cache,target=/other test ! -e /other/x && echo > /apart\n",
        )],
    )?;
    let (_, image) = sandbox.image("image", &[])?;
    for path in ["/same", "/by-id"] {
        size(&image.tree, path, 2)?;
    }
    size(&image.tree, "/apart", 1)
}

fn owners_and_modes_are_as_asked_for() -> Result<()> {
    // A directory that root has made must not be what a step of another user gets.
    let sandbox = Sandbox::with(
        "cache-owner",
        &[(
            "Dockerfile",
            "FROM base\n\
             RUN --mount=type=cache,id=c,target=/c echo root > /c/of-root\n\
             USER 1000:1001\n\
             RUN --mount=type=cache,id=c,target=/c,uid=1000,gid=1001,mode=0700 \
                 test ! -e /c/of-root && echo app > /c/of-app && stat -c '%a %u %g' /c > /tmp/owner\n\
             RUN --mount=type=cache,id=c,target=/c,uid=1000,gid=1001,mode=0700 cp /c/of-app /tmp/again\n\
             USER root\n\
             RUN --mount=type=cache,id=c,target=/c test ! -e /c/of-app && cp /c/of-root /tmp/root\n\
             RUN --mount=type=cache,id=c,target=/c,mode=0755,uid=0,gid=0 cp /c/of-root /tmp/default\n",
        )],
    )?;
    let (_, image) = sandbox.image("image", &[])?;
    size(&image.tree, "/tmp/owner", "700 1000 1001\n".len() as u64)?;
    size(&image.tree, "/tmp/again", 4)?;
    size(&image.tree, "/tmp/root", 5)?;
    size(&image.tree, "/tmp/default", 5)
}

fn another_seed_is_another_directory() -> Result<()> {
    let file = |seed: &str| {
        format!(
            "FROM base AS seed\nRUN mkdir -p /s && printf {seed} > /s/file\n\
             FROM base\n\
             RUN --mount=type=cache,id=c,target=/c,from=seed,source=/s \
                 cat /c/file /c/log > /got 2>/dev/null; echo {seed} >> /c/log\n\
             RUN --mount=type=cache,id=c,target=/c,from=seed,source=/s cp /c/log /log\n\
             RUN --mount=type=cache,id=c,target=/c ls /c > /unseeded\n"
        )
    };
    let sandbox = Sandbox::with("cache-seed", &[("Dockerfile", &file("one"))])?;
    let (_, image) = sandbox.image("image", &[])?;
    size(&image.tree, "/got", 3)?;
    size(&image.tree, "/log", 4)?;
    size(&image.tree, "/unseeded", 0)?;
    // It begins with what the stage holds now.
    sandbox.write("Dockerfile", &file("other"))?;
    let (_, image) = sandbox.image("image", &[])?;
    size(&image.tree, "/got", 5)?;
    size(&image.tree, "/log", 6)?;
    // And what was there is there still.
    let once_more = file("one").replace("got 2>", "got2 2>");
    sandbox.write("Dockerfile", &once_more)?;
    let (_, image) = sandbox.image("image", &[])?;
    size(&image.tree, "/got2", 3 + 4)
}

fn namespaces_are_apart() -> Result<()> {
    let sandbox = Sandbox::with(
        "cache-namespace",
        &[(
            "Dockerfile",
            "FROM base\nARG STEP\nRUN --mount=type=cache,target=/c echo >> /c/log; cp /c/log /log\n",
        )],
    )?;
    let mut step = 0;
    for (namespace, lines) in [("", 1), ("one", 1), ("two", 1), ("one", 2), ("", 2)] {
        step += 1;
        let argument = format!("--build-arg=STEP={step}");
        let namespace = format!("--build-arg=BUILDKIT_CACHE_MOUNT_NS={namespace}");
        let (_, image) = sandbox.image("image", &[&argument, &namespace])?;
        size(&image.tree, "/log", lines)?;
    }
    Ok(())
}

fn locked_and_shared_users_exclude_each_other() -> Result<()> {
    // The locked one stays long enough for the other to come in if it could.
    let inside = "mkdir /m/inside && sleep 0.5 && rmdir /m/inside && echo done > /done";
    let stage = |name: &str, sharing: &str| {
        format!(
            "FROM base AS {name}\n\
             RUN --mount=type=cache,id=one,sharing={sharing},target=/m : {name}; {inside}\n"
        )
    };
    let file = format!(
        "{}{}{}FROM scratch\nCOPY --from=a /done /a\nCOPY --from=b /done /b\nCOPY --from=c /done /c\n",
        stage("a", "locked"),
        stage("b", "shared"),
        stage("c", "locked"),
    );
    let sandbox = Sandbox::with("cache-exclusive", &[("Dockerfile", &file)])?;
    sandbox.image("image", &["--jobs", "4"])?;
    Ok(())
}

fn builds_at_once_lose_nothing() -> Result<()> {
    // Reads, waits, writes: what two do at the same time is lost.
    let sandbox = Sandbox::with(
        "cache-builds",
        &[(
            "Dockerfile",
            "FROM base\nARG BUILD\n\
             RUN --mount=type=cache,target=/c,sharing=locked \
                 n=$(cat /c/n 2>/dev/null || echo 0); sleep 0.2; echo $((n+1)) > /c/n; cp /c/n /n\n",
        )],
    )?;
    let builds: Vec<_> = (0..4)
        .map(|build| sandbox.start_build(&[&format!("--build-arg=BUILD={build}")]))
        .collect::<Result<_>>()?;
    for build in builds {
        build.wait(DEADLINE)?.success()?;
    }
    let (run, _) = sandbox.tree(&["--build-arg=BUILD=last"])?;
    let tree = Tree::of_tar(&run.stdout[..])?;
    size(&tree, "/n", 2)?;
    let mut archive = run.stdout.windows(2).filter(|bytes| *bytes == b"5\n");
    ensure!(archive.next().is_some(), "the fifth build did not count to five");
    Ok(())
}

fn a_failed_step_keeps_what_it_wrote() -> Result<()> {
    let file = |run: &str| format!("FROM base\nRUN --mount=type=cache,target=/c {run}\n");
    let sandbox = Sandbox::with("cache-failed", &[("Dockerfile", &file("echo > /c/x; exit 1"))])?;
    sandbox.build(&[])?.expect(1)?;
    sandbox.write("Dockerfile", &file("cp /c/x /x"))?;
    size(&sandbox.image("image", &[])?.1.tree, "/x", 1)
}

fn cache_mounts_go_along() -> Result<()> {
    let file = |comment: &str| {
        format!(
            "FROM base\nRUN --mount=type=cache,id=log,target=/c --mount=type=cache,id=own,target=/o \
             --mount=type=cache,id=log,target=/u,uid=1000 touch /u/{comment}; ls /u > /user; \
             echo {comment} >> /c/log; mkdir -p /c/d && ln -sf ../log /c/d/link; \
             touch /o/{comment}; cat /c/log > /log; ls /o > /own\n"
        )
    };
    let sandbox = Sandbox::with("elsewhere-mounts", &[("Dockerfile", &file("one"))])?;
    let run = sandbox.build(&["--cache-to=type=local,dest=cache,mounts=log;nothing"])?.success()?;
    run.says("there is no cache mount \"nothing\"")?;
    sandbox.write("Dockerfile", &file("two"))?;
    let from = "--cache-from=type=local,src=cache";
    let (run, tree) = sandbox.tree(&["--state-dir=b", from])?;
    run.says("restore the cache mount log")?;
    size(&tree, "/log", 8)?;
    size(&tree, "/own", 4)?;
    // That of another owner goes along, too.
    size(&tree, "/user", 8)?;
    // What is here is not replaced.
    sandbox.write("Dockerfile", &file("three"))?;
    let (run, _) = sandbox.tree(&["--state-dir=b", from])?;
    run.never_says("restore the cache mount")
}

fn directories_as_cache_mounts() -> Result<()> {
    let file = |comment: &str| {
        format!(
            "FROM base AS seed\nRUN mkdir /seed && echo seeded > /seed/log\nFROM base\n\
             RUN --mount=type=cache,id=log,target=/c,from=seed,source=/seed \
             echo {comment} >> /c/log; cat /c/log > /log\n"
        )
    };
    let sandbox = Sandbox::with("elsewhere-bound", &[("Dockerfile", &file("one"))])?;
    let args = ["--cache-mount=log=host/log", "--state-dir=b"];
    sandbox.build(&args)?.success()?;
    let log = || std::fs::read_to_string(sandbox.path("host/log/log"));
    ensure!(log()? == "seeded\none\n", "{}", log()?);
    std::fs::write(sandbox.path("host/log/log"), "from outside\n")?;
    sandbox.write("Dockerfile", &file("two"))?;
    sandbox.build(&args)?.success()?;
    ensure!(log()? == "from outside\ntwo\n", "{}", log()?);
    // Other builds have their own.
    sandbox.write("Dockerfile", &file("three"))?;
    sandbox.build(&["--state-dir=b"])?.success()?;
    ensure!(log()? == "from outside\ntwo\n", "{}", log()?);
    Ok(())
}
