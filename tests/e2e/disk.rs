//! What is kept on the disk: the ceiling, full disks, `du`, `prune`, `fsck`, and several commands at
//! once on one state directory.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use wbuild_tests::disk::Small;
use wbuild_tests::image::Image;
use wbuild_tests::machine;
use wbuild_tests::registry::Registry;
use wbuild_tests::run::{DEADLINE, Run};
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::skip;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("the_ceiling_holds", the_ceiling_holds),
    ("policies_by_type", policies_by_type),
    ("more_than_the_ceiling", more_than_the_ceiling),
    ("a_full_disk_gives_way", a_full_disk_gives_way),
    ("no_more_files_gives_way", no_more_files_gives_way),
    ("room_is_made_while_a_step_runs", room_is_made_while_a_step_runs),
    ("room_is_made_for_an_export", room_is_made_for_an_export),
    ("another_disk_that_is_full", another_disk_that_is_full),
    ("du_is_what_the_file_system_says", du_is_what_the_file_system_says),
    ("prune_by_filters", prune_by_filters),
    ("prune_by_space", prune_by_space),
    ("damage_is_found_and_repaired", damage_is_found_and_repaired),
    ("damage_that_an_export_meets", damage_that_an_export_meets),
    ("a_damaged_index_is_begun_anew", a_damaged_index_is_begun_anew),
    ("several_commands_wait_for_each_other", several_commands_wait_for_each_other),
];

/// What a directory takes on the disk, each inode once.
fn on_disk(folder: &Path) -> Result<u64> {
    let mut command = if skip::is_root() {
        Command::new("du")
    } else {
        // The files of an ordinary user's builds belong to other ids of theirs.
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--map-auto", "du"]);
        command
    };
    let run = Run::of(command.args(["-s", "-B1"]).arg(folder))?.success()?;
    let text = run.text()?;
    text.split('\t').next().and_then(|n| n.parse().ok()).with_context(|| text.to_owned())
}

/// A step that leaves so many megabytes that no compression makes smaller, a result for each name.
const LEAVES: &str = "FROM base\nARG NAME\nARG MEGABYTES\n\
    RUN head -c ${MEGABYTES}000000 /dev/urandom > /$NAME\n";

fn leave(sandbox: &Sandbox, name: &str, megabytes: u32, args: &[&str]) -> Result<Run> {
    let (name, megabytes) = (format!("NAME={name}"), format!("MEGABYTES={megabytes}"));
    let fixed = ["--build-arg", &name, "--build-arg", &megabytes];
    sandbox.build(&fixed.iter().chain(args).copied().collect::<Vec<_>>())
}

fn the_ceiling_holds() -> Result<()> {
    let sandbox = Sandbox::with("ceiling", &[("Dockerfile", LEAVES)])?;
    let config = sandbox.path("home/.config/wbuild");
    std::fs::create_dir_all(&config)?;
    std::fs::write(config.join("config.toml"), "[cache]\nmax = \"40MB\"\nmin-free = \"0\"\n")?;
    let mut evicted = 0;
    for round in 0..8 {
        let name = format!("n{round}");
        let run = leave(&sandbox, &name, 9, &[])?.success()?;
        evicted += usize::from(run.stderr.contains("unused the longest"));
        run.never_says("did not fit")?;
        let used = on_disk(&sandbox.path("state"))?;
        ensure!(used <= 40_000_000, "{used} bytes after round {round}");
        let again = leave(&sandbox, &name, 9, &[])?.success()?;
        ensure!(again.end_of("RUN head")? == "CACHED", "the newest is gone:\n{}", again.stderr);
    }
    ensure!((1..7).contains(&evicted), "evicted {evicted} times");
    // What is said with the build counts more than what the file says.
    leave(&sandbox, "last", 1, &["--cache-max=15MB"])?
        .success()?
        .says("at most 15.0 MB are kept")?;
    let used = on_disk(&sandbox.path("state"))?;
    ensure!(used <= 15_000_000, "{used} bytes are left");
    let fault = leave(&sandbox, "last", 1, &["--cache-max=0"])?.expect(2)?;
    fault.says("100% is no limit")
}

fn policies_by_type() -> Result<()> {
    let file = |name: &str| {
        format!(
            "FROM base\nRUN --mount=type=cache,id={name},target=/c \
             head -c 3000000 /dev/urandom > /c/f && echo {name} > /{name}\n"
        )
    };
    let sandbox = Sandbox::new("policies")?;
    let config = sandbox.path("home/.config/wbuild");
    std::fs::create_dir_all(&config)?;
    let write = |text: &str| std::fs::write(config.join("config.toml"), text);
    let build = |name: &str| {
        sandbox.write("Dockerfile", &file(name))?;
        sandbox.build(&[])?.success()
    };
    let mounts = || -> Result<usize> {
        let shown = sandbox.run(["du", "--json", "--filter=type=exec.cachemount"])?;
        Ok(shown.success()?.json()?["entries"].as_array().map_or(0, Vec::len))
    };
    build("a")?;
    build("b")?;
    ensure!(mounts()? == 2);
    let of_mounts = "[[cache.policy]]\nfilter = [\"type=exec.cachemount\"]\n";
    write(&format!("{of_mounts}keep-for = \"1h\"\n"))?;
    build("a")?.never_says("removed")?;
    ensure!(mounts()? == 2, "they are younger");
    // A look at all of it costs time, so there is one in ten minutes.
    write(&format!("{of_mounts}max = \"4MB\"\n"))?;
    build("a")?.never_says("removed")?;
    std::fs::remove_file(sandbox.path("state/policies"))?;
    build("a")?.says("as the policies of config.toml say")?;
    ensure!(mounts()? == 1, "the other is left");
    for name in ["a", "b"] {
        let run = build(name)?;
        ensure!(run.end_of("RUN")? == "CACHED", "{name}: {}", run.stderr);
    }
    Ok(())
}

fn more_than_the_ceiling() -> Result<()> {
    let sandbox = Sandbox::with("too-large", &[("Dockerfile", LEAVES)])?;
    let run = leave(&sandbox, "large", 30, &["--cache-max=20MB", "-o=out"])?.success()?;
    run.says("did not fit")?;
    ensure!(sandbox.path("out/large").metadata()?.len() == 30_000_000, "no result");
    let used = on_disk(&sandbox.path("state"))?;
    ensure!(used <= 20_000_000, "{used} bytes are left");
    Ok(())
}

/// Builds on a small file system: what is kept makes way, and only what can never fit fails.
fn gives_way(name: &str, options: &str, step: &str, impossible: &str) -> Result<()> {
    skip::need_root()?;
    let file = format!("FROM base\nARG NAME\nRUN {step}\n");
    let sandbox = Sandbox::with(name, &[("Dockerfile", &file)])?;
    let _disk = Small::new(&sandbox.path("state"), options)?;
    let build = |name: &str| sandbox.build(&["--build-arg", &format!("NAME={name}"), "-j1"]);
    let mut made_way = 0;
    for round in 0..6 {
        let name = format!("n{round}");
        let run = build(&name)?.success().with_context(|| name.clone())?;
        made_way += usize::from(run.stderr.contains("unused the longest"));
        let again = build(&name)?.success()?;
        ensure!(again.end_of("RUN")? == "CACHED", "{name} is gone:\n{}", again.stderr);
    }
    ensure!(made_way > 0, "there was room for everything");

    sandbox.write("Dockerfile", &format!("FROM base\nRUN {impossible}\n"))?;
    let run = sandbox.build(&[])?.expect(1)?;
    run.says("--cache-max")?;
    sandbox.write("Dockerfile", &file)?;
    build("after")?.success().context("after a disk that was full")?;

    // Full to the brim, by something that is not wbuild's: it opens and prunes.
    let brim = sandbox.path("state/damaged");
    std::fs::create_dir_all(&brim)?;
    let mut number = 0;
    while std::fs::write(brim.join(number.to_string()), vec![1; 60_000]).is_ok() {
        number += 1;
    }
    sandbox.run(["fsck"])?.success()?;
    sandbox.run(["du"])?.success()?;
    sandbox.run(["prune", "--all", "--force"])?.success()?;
    build("at last")?.success()?;
    Ok(())
}

fn a_full_disk_gives_way() -> Result<()> {
    gives_way(
        "full-disk",
        "size=60m",
        "head -c 20000000 /dev/zero > \"/$NAME\"",
        "head -c 90000000 /dev/zero > /x",
    )
}

fn no_more_files_gives_way() -> Result<()> {
    gives_way(
        "full-inodes",
        "size=200m,nr_inodes=3000",
        "for i in $(seq 700); do : > \"/$NAME$i\"; done",
        "for i in $(seq 5000); do : > /x$i || exit 1; done",
    )
}

fn room_is_made_while_a_step_runs() -> Result<()> {
    skip::need_root()?;
    let sandbox = Sandbox::with("short-of-room", &[("Dockerfile", LEAVES)])?;
    let _disk = Small::new(&sandbox.path("state"), "size=80m")?;
    let config = sandbox.path("config.toml");
    std::fs::write(&config, "[cache]\nmin-free = \"40MB\"\nreserved = \"1MB\"\n")?;
    leave(&sandbox, "old", 25, &[])?.success()?;
    sandbox.write(
        "Dockerfile",
        "FROM base\nRUN head -c 25000000 /dev/zero > /f && echo written && sleep 4 && echo slept\n",
    )?;
    let mut command = sandbox.build_command(&[])?;
    let run = Run::of(command.env("WBUILD_CONFIG", &config))?.success()?;
    let at = |text: &str| run.stderr.find(text).with_context(|| format!("{text}: {}", run.stderr));
    // The first finds of these are the lines that the step printed, behind its command.
    let evicted = at("unused the longest")?;
    let slept = run.stderr.rfind(" slept").context("the step did not end")?;
    ensure!(at(" written")? < evicted && evicted < slept, "{}", run.stderr);
    Ok(())
}

/// Limits that only a full disk brings about, and a small disk in `disk`.
fn without_limits(sandbox: &Sandbox) -> Result<()> {
    let config = sandbox.path("home/.config/wbuild");
    std::fs::create_dir_all(&config)?;
    let limits = "[cache]\nmax = \"100%\"\nmin-free = \"0\"\nreserved = \"0\"\n";
    Ok(std::fs::write(config.join("config.toml"), limits)?)
}

fn room_is_made_for_an_export() -> Result<()> {
    skip::need_root()?;
    let sandbox = Sandbox::with("export-room", &[("Dockerfile", LEAVES)])?;
    without_limits(&sandbox)?;
    let _disk = Small::new(&sandbox.path("disk"), "size=100m")?;
    let state = "--state-dir=disk/state";
    for (number, output) in [
        "type=tar,dest=disk/out",
        "type=oci,dest=disk/out,compression=uncompressed",
        "type=local,dest=disk/folder",
    ]
    .into_iter()
    .enumerate()
    {
        leave(&sandbox, "old", 40, &[state])?.success()?;
        let name = format!("new{number}");
        leave(&sandbox, &name, 20, &[state])?.success()?;
        let filler = std::fs::File::create(sandbox.path("disk/filler"))?;
        let disk = rustix::fs::statvfs(sandbox.path("disk"))?;
        // Less than the result takes.
        let left = disk.f_bavail * disk.f_frsize;
        rustix::fs::fallocate(
            &filler,
            rustix::fs::FallocateFlags::empty(),
            0,
            left.saturating_sub(10_000_000).max(1),
        )?;
        let run = leave(&sandbox, &name, 20, &[state, "-o", output])?.success();
        let run = run.with_context(|| output.to_owned())?;
        ensure!(run.end_of("RUN head")? == "CACHED", "{output}: {}", run.stderr);
        run.says("unused the longest").with_context(|| output.to_owned())?;
        run.never_says("ERROR")?;
        for made in ["disk/out", "disk/filler"] {
            let _ = std::fs::remove_file(sandbox.path(made));
        }
        let _ = std::fs::remove_dir_all(sandbox.path("disk/folder"));
    }
    Ok(())
}

fn another_disk_that_is_full() -> Result<()> {
    skip::need_root()?;
    let sandbox = Sandbox::with("export-elsewhere", &[("Dockerfile", LEAVES)])?;
    let _disk = Small::new(&sandbox.path("disk"), "size=5m")?;
    leave(&sandbox, "n", 9, &[])?.success()?;
    for output in ["type=tar,dest=disk/out", "type=oci,dest=disk/out", "type=local,dest=disk/out"] {
        let run = leave(&sandbox, "n", 9, &["-o", output])?.expect(1)?;
        run.says("is not the one that wbuild keeps things on")
            .with_context(|| output.to_owned())?;
        run.never_says("unused the longest")?;
        let _ = std::fs::remove_dir_all(sandbox.path("disk/out"));
    }
    // Nothing was given up for it.
    let run = leave(&sandbox, "n", 9, &[])?.success()?;
    ensure!(run.end_of("RUN head")? == "CACHED", "{}", run.stderr);
    Ok(())
}

fn du_is_what_the_file_system_says() -> Result<()> {
    let sandbox = Sandbox::with(
        "du",
        &[
            (
                "Dockerfile",
                "FROM base AS one\n\
                 RUN mkdir /d && for i in $(seq 50); do echo $i > /d/$i; done && ln /d/1 /d/hard\n\
                 RUN --mount=type=cache,target=/c head -c 3000000 /dev/zero > /c/f && ln /c/f /c/g\n\
                 FROM one AS two\nRUN echo two > /two\n\
                 FROM one\nCOPY --from=two /two /\nCOPY big /\n",
            ),
            ("big", &"x".repeat(2_000_000)),
        ],
    )?;
    sandbox.image("image", &[])?;
    sandbox.image("image", &[])?;
    let usage =
        || -> Result<serde_json::Value> { sandbox.run(["du", "--json"])?.success()?.json() };
    let (shown, there) = (usage()?, on_disk(&sandbox.path("state"))?);
    ensure!(shown["total_bytes"] == there, "{} is shown, {there} is there", shown["total_bytes"]);
    let entries = shown["entries"].as_array().context("entries")?;
    let sizes: Vec<_> = entries.iter().filter_map(|entry| entry["size_bytes"].as_u64()).collect();
    ensure!(sizes.is_sorted_by(|a, b| a >= b), "not by size: {sizes:?}");
    ensure!(sizes.iter().sum::<u64>() == there, "the sum is another");
    let find = |text: &str| {
        let found =
            entries.iter().find(|e| e["description"].as_str().is_some_and(|d| d.contains(text)));
        found.with_context(|| format!("no {text:?} in {shown}"))
    };
    let first = find("RUN mkdir")?;
    ensure!(first["shared"] == true && first["results"].as_u64() >= Some(3), "{first}");
    let last = find("RUN echo two")?;
    ensure!(last["shared"] == false && last["type"] == "regular", "{last}");
    let cache = find("cache mount")?;
    let size = cache["size_bytes"].as_u64().unwrap_or(0);
    ensure!((3_000_000..3_500_000).contains(&size), "a hard link counts twice: {cache}");
    ensure!(cache["type"] == "exec.cachemount" && cache["mutable"] == true, "{cache}");

    let text = sandbox.run(["du"])?.success()?;
    for word in ["Shared:", "Private:", "Reclaimable:", "Total:", "RESULTS"] {
        ensure!(text.text()?.contains(word), "{word}: {}", text.text()?);
    }
    let some = sandbox.run(["du", "--json", "--filter=type=exec.cachemount"])?.success()?.json()?;
    ensure!(some["entries"].as_array().map(Vec::len) == Some(1), "{some}");
    let verbose = sandbox.run(["du", "--verbose", "--filter=description~=RUN mkdir"])?.success()?;
    for word in ["ID: ", "Parent: ", "Created: ", "Mutable:     false", "Shared:      true"] {
        ensure!(verbose.text()?.contains(word), "{word}: {}", verbose.text()?);
    }
    Ok(())
}

fn prune_by_filters() -> Result<()> {
    let sandbox = Sandbox::with(
        "prune-filters",
        &[(
            "Dockerfile",
            "FROM base\nRUN echo one > /one\n\
             RUN --mount=type=cache,id=mount,target=/c echo two > /c/two\nRUN echo three > /three\n",
        )],
    )?;
    let build = || sandbox.build(&[])?.success();
    let prune = |filters: &[&str]| -> Result<Vec<String>> {
        let filters = filters.iter().map(|filter| format!("--filter={filter}"));
        let args = ["prune", "--force", "--json"].map(str::to_owned).into_iter().chain(filters);
        let report = sandbox.run(args)?.success()?.json()?;
        let removed = report["removed"].as_array().cloned().unwrap_or_default();
        let name = |e: &serde_json::Value| e["description"].as_str().unwrap_or_default().to_owned();
        Ok(removed.iter().map(name).collect())
    };
    build()?;
    ensure!(prune(&["type=exec.cachemount"])? == ["cache mount"], "not the cache mount alone");
    ensure!(prune(&["type=exec.cachemount", "until=1h"])?.is_empty(), "both must hold");
    let run = build()?;
    ensure!(run.end_of("RUN echo one")? == "CACHED", "{}", run.stderr);
    // The last of the chain goes alone; what it was built on stays, and so does what is in between.
    let gone = prune(&["description~=echo three", "private", "type!=internal"])?;
    ensure!(gone.len() == 1 && gone[0].contains("three"), "{gone:?}");
    let run = build()?;
    ensure!(run.end_of("RUN echo three")? == "DONE", "{}", run.stderr);
    ensure!(run.end_of("RUN echo one")? == "CACHED", "{}", run.stderr);
    sandbox.run(["prune", "--force", "--filter=descripton=x"])?.expect(2)?.says("description")
}

fn prune_by_space() -> Result<()> {
    let sandbox = Sandbox::with("prune-space", &[("Dockerfile", LEAVES)])?;
    for name in ["a", "b", "c", "d"] {
        leave(&sandbox, name, 5, &[])?.success()?;
    }
    let used = || on_disk(&sandbox.path("state"));
    let prune =
        |args: &[&str]| sandbox.run(["prune", "--force"].iter().chain(args).copied())?.success();
    let before = used()?;
    prune(&["--max-used-space=100%", "--min-free-space=1B"])?;
    ensure!(used()?.abs_diff(before) < 50_000, "it was below the limits");
    let ceiling = before - 7_000_000;
    prune(&[&format!("--max-used-space={ceiling}")])?;
    ensure!((ceiling - 6_000_000..=ceiling).contains(&used()?), "{} of {ceiling}", used()?);
    let run = leave(&sandbox, "d", 5, &[])?.success()?;
    ensure!(run.end_of("RUN head")? == "CACHED", "the newest is gone");
    // So much is never free, but what is reserved stays.
    let kept = used()? - 3_000_000;
    prune(&["--min-free-space=100%", &format!("--reserved-space={kept}")])?;
    ensure!((kept - 6_000_000..=kept).contains(&used()?), "{} of {kept}", used()?);
    prune(&["--keep-storage=1MB"])?.says("--max-used-space")?;
    ensure!(used()? < 1_000_000, "{} bytes are left", used()?);
    Ok(())
}

/// Changes a byte in the middle of a file.
fn flip(path: &Path) -> Result<()> {
    let mut bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    Ok(std::fs::write(path, bytes)?)
}

/// The files below a folder whose path ends like this.
fn files(folder: &Path, ends: &str) -> Result<Vec<std::path::PathBuf>> {
    let mut command = Command::new("find");
    let run = Run::of(command.arg(folder).args(["-type", "f", "-path", &format!("*{ends}")]))?;
    Ok(run.success()?.text()?.lines().map(Into::into).collect())
}

fn damage_is_found_and_repaired() -> Result<()> {
    skip::need_root()?;
    let sandbox = Sandbox::with(
        "damage",
        &[("Dockerfile", "FROM base\nRUN echo wrong or right > /made\nRUN cat /made > /copy\n")],
    )?;
    let (_, first) = sandbox.image("image", &[])?;
    let verify = || sandbox.run(["fsck", "--verify", "--json"]);
    let report = verify()?.success()?.json()?;
    ensure!(
        report["clean"] == true && report["problems"].as_array().is_some_and(Vec::is_empty),
        "{report}"
    );
    let compared = report["layers_compared"].as_u64().unwrap_or(0);
    ensure!(compared >= 2, "{report}");

    for (what, files, kind) in [
        ("a step's layer", files(&sandbox.path("state/snapshots"), "/fs/made")?, "damaged-layer"),
        (
            "the base's layer",
            files(&sandbox.path("state/snapshots"), "/bin/busybox")?,
            "damaged-layer",
        ),
        ("a blob", files(&sandbox.path("state/blobs"), "")?, "damaged-blob"),
        ("a record", files(&sandbox.path("state/records"), "")?, "damaged-record"),
        ("a document", files(&sandbox.path("state/contexts"), "/memo-*")?, "damaged-document"),
        ("the seals", files(&sandbox.path("state"), "/state/seals")?, "damaged-seals"),
    ] {
        let Some(file) = files.first() else { anyhow::bail!("there is no file for {what}") };
        flip(file)?;
        let report = verify()?.expect(1)?.json()?;
        let problems = report["problems"].as_array().cloned().unwrap_or_default();
        ensure!(problems.iter().any(|problem| problem["kind"] == kind), "{what}: {report}");
        let repaired = sandbox.run(["fsck", "--verify", "--repair"])?.success()?;
        ensure!(repaired.text()?.contains("set aside"), "{what}: {}", repaired.text()?);
        verify()?.success().with_context(|| format!("{what} after the repair"))?;
        let (_, again) = sandbox.image("image", &[]).with_context(|| what.to_owned())?;
        ensure!(again.tree == first.tree, "{what}: another result");
    }
    ensure!(sandbox.path("state/damaged").read_dir()?.count() >= 6, "what was damaged is gone");
    sandbox.run(["prune", "--all", "--force"])?.success()?;
    ensure!(sandbox.path("state/damaged").read_dir()?.count() == 0, "a prune leaves it");
    Ok(())
}

fn damage_that_an_export_meets() -> Result<()> {
    let sandbox = Sandbox::with("damage-export", &[("Dockerfile", LEAVES)])?;
    let registry = Registry::start(&sandbox.path("registry"), false)?;
    let tag = format!("-t={}/team/app:1", registry.host());
    leave(&sandbox, "n", 1, &["-o", "type=oci,tar=false,dest=image"])?.success()?;
    let first = Image::of_layout(&sandbox.path("image"))?;
    let mut blobs = Vec::new();
    for blob in files(&sandbox.path("state/blobs"), "")? {
        let size = blob.metadata()?.len();
        blobs.push((size, blob));
    }
    let (_, largest) = blobs.into_iter().max().context("no blobs")?;
    flip(&largest)?;
    for output in
        [&["-o", "type=oci,dest=out"][..], &["-o", "type=docker,dest=out"], &[&tag, "--push"]]
    {
        let run = leave(&sandbox, "n", 1, output)?.expect(1)?;
        run.says("wbuild fsck --verify --repair").with_context(|| format!("{output:?}"))?;
    }
    sandbox.run(["fsck", "--verify", "--repair"])?.success()?;
    leave(&sandbox, "n", 1, &[&tag, "--push", "-o", "type=oci,tar=false,dest=again"])?.success()?;
    let again = Image::of_layout(&sandbox.path("again"))?;
    ensure!(again.digest == first.digest, "another image");
    Ok(())
}

fn a_damaged_index_is_begun_anew() -> Result<()> {
    let sandbox = Sandbox::with("index", &[("Dockerfile", "FROM base\nRUN echo x > /x\n")])?;
    // Found by the index alone.
    let args = ["--no-record-aliases"];
    sandbox.build(&args)?.success()?;
    let run = sandbox.build(&args)?.success()?;
    ensure!(run.end_of("RUN echo")? == "CACHED", "{}", run.stderr);
    sandbox.run(["fsck"])?.success()?;
    // The file is longer than what is in it.
    let database = sandbox.path("state/index/sled/db");
    let mut bytes = std::fs::read(&database)?;
    let end = bytes.iter().rposition(|byte| *byte != 0).context("an empty database")?;
    bytes[end / 2] ^= 0x10;
    std::fs::write(&database, bytes)?;
    sandbox.run(["fsck"])?.expect(1)?;
    sandbox.run(["fsck", "--repair"])?.success()?;
    sandbox.run(["fsck"])?.success()?;
    ensure!(sandbox.path("state/index/sled.bad-1").is_dir(), "it was not put aside");
    let run = sandbox.build(&args)?.success()?;
    ensure!(run.end_of("RUN echo")? == "CACHED", "not filled from the records:\n{}", run.stderr);
    Ok(())
}

fn several_commands_wait_for_each_other() -> Result<()> {
    let sandbox =
        Sandbox::with("waiting", &[("Dockerfile", "FROM base\nRUN echo begun && sleep 1000\n")])?;
    let mut first = sandbox.start_build(&[])?;
    first.wait_for(" begun\n")?;
    let holder = format!("process {} (wbuild build", first.id().as_raw_nonzero());
    sandbox.write("Dockerfile", "FROM base\nRUN echo quick > /q\n")?;
    let mut second = sandbox.start_build(&[])?;
    let mut third = sandbox.start_build(&[])?;
    let mut prune = wbuild_tests::run::Running::start(&mut sandbox.wbuild(["prune", "--force"])?)?;
    let mut repair = wbuild_tests::run::Running::start(&mut sandbox.wbuild(["fsck", "--repair"])?)?;
    for waiting in [&mut second, &mut third, &mut prune, &mut repair] {
        waiting.wait_for("waiting for another build")?;
        waiting.wait_for(&holder)?;
    }
    // Who only looks does not wait.
    sandbox.run(["du"])?.success()?;
    sandbox.run(["fsck"])?.success()?;
    // One of those that wait may go, and the one that works may die: the others get their turn.
    second.signal(Signal::KILL)?;
    second.wait(DEADLINE)?.expect(137)?;
    first.signal(Signal::KILL)?;
    first.wait(DEADLINE)?.expect(137)?;
    for waited in [third, prune, repair] {
        waited.wait(DEADLINE)?.success()?;
    }
    machine::nothing_left(&sandbox.path("state").display().to_string())?;
    sandbox.build(&[])?.success()?;
    sandbox.run(["fsck", "--verify"])?.success()?;
    Ok(())
}
