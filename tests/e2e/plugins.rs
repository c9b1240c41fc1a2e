//! Frontends, runners and cache backends as components that can be replaced.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::Value;
use wbuild_tests::case::same_trees;
use wbuild_tests::files::FileServer;
use wbuild_tests::run::Run;
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::tree::{Node, Tree};

use crate::Test;

pub const TESTS: &[Test] = &[
    ("bundled_ones_are_listed", bundled_ones_are_listed),
    ("inspection", inspection),
    ("inspection_by_machines", inspection_by_machines),
    ("all_three_by_path", all_three_by_path),
    ("isolated_ones_build_the_same", isolated_ones_build_the_same),
    ("another_frontend", another_frontend),
    ("a_cache_on_a_web_server", a_cache_on_a_web_server),
    ("unknown_names_are_refused", unknown_names_are_refused),
    ("foreign_imports_are_refused", foreign_imports_are_refused),
    ("the_wrong_kind_is_refused", the_wrong_kind_is_refused),
    ("a_file_that_is_no_component", a_file_that_is_no_component),
];

/// A component that `cargo xtask guests` has made.
pub fn component(name: &str) -> Result<PathBuf> {
    let path = wbuild_tests::workspace().join(format!("target/guests/dist/{name}.wasm"));
    ensure!(path.is_file(), "{} is not there; run: cargo xtask guests", path.display());
    Ok(path)
}

fn bundled_ones_are_listed() -> Result<()> {
    let sandbox = Sandbox::new("list")?;
    let list = sandbox.run(["plugin", "list", "--json"])?.success()?.json()?;
    for (kind, name) in [
        ("frontend", "dockerfile"),
        ("frontend", "earthfile"),
        ("frontend", "steps"),
        ("frontend", "yaml"),
        ("runner", "native"),
        ("cache backend", "cache-local"),
        ("cache backend", "registry"),
        ("cache backend", "local"),
    ] {
        let is_it = |row: &Value| row["kind"] == kind && row["name"] == name;
        ensure!(
            list.as_array().is_some_and(|rows| rows.iter().any(is_it)),
            "{kind} {name}: {list}"
        );
    }
    let text = sandbox.run(["plugin", "list"])?.success()?;
    ensure!(text.text()?.contains("dockerfile"), "{}", text.text()?);
    Ok(())
}

fn inspection() -> Result<()> {
    let sandbox = Sandbox::new("inspect")?;
    for (name, kind) in [("dockerfile", "frontend"), ("native", "runner"), ("cache-local", "cache")]
    {
        let path = component(name)?;
        for which in [path.as_os_str(), name.as_ref()] {
            let run = sandbox.run(["plugin".as_ref(), "inspect".as_ref(), which])?.success()?;
            let text = run.text()?.to_lowercase();
            for part in [kind, "0.1.0", "wbuild:types", "ms"] {
                ensure!(text.contains(part), "no {part:?} in:\n{text}");
            }
            ensure!(!text.contains("wasi"), "it imports WASI:\n{text}");
        }
    }
    Ok(())
}

fn inspection_by_machines() -> Result<()> {
    let sandbox = Sandbox::new("inspect-json")?;
    let path = component("steps")?;
    let seen = sandbox
        .run(["plugin".as_ref(), "inspect".as_ref(), "--json".as_ref(), path.as_os_str()])?
        .success()?
        .json()?;
    let text = seen.to_string();
    ensure!(text.contains("wbuild:frontend/graph@0.1.0"), "{seen}");
    ensure!(!text.contains("wasi:"), "{seen}");
    Ok(())
}

fn all_three_by_path() -> Result<()> {
    let sandbox =
        Sandbox::with("by-path", &[("Dockerfile", "FROM base\nRUN echo through files > /x\n")])?;
    let arg = |option: &str, name: &str| -> Result<String> {
        Ok(format!("--{option}={}", component(name)?.display()))
    };
    let args = [
        arg("frontend", "dockerfile")?,
        arg("runner", "native")?,
        arg("cache-backend", "cache-local")?,
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (run, image) = sandbox.image("image", &args)?;
    ensure!(run.end_of("RUN echo")? == "DONE", "{}", run.stderr);
    image.tree.get("/x")?;
    // The same components, so the same keys.
    let (run, _) = sandbox.image("image", &[])?;
    ensure!(run.end_of("RUN echo")? == "CACHED", "{}", run.stderr);
    Ok(())
}

/// Every plugin in a confined process of its own, bundled ones and files.
fn isolated_ones_build_the_same() -> Result<()> {
    let file = "FROM base\nRUN echo isolated > /x\nCOPY data /data\n";
    let sandbox = Sandbox::with("isolated", &[("Dockerfile", file), ("data", "data\n")])?;
    let (run, apart) = sandbox.image("image", &["--isolate-plugins=all"])?;
    ensure!(run.end_of("RUN echo")? == "DONE", "{}", run.stderr);
    apart.tree.get("/x")?;
    let frontend = format!("--frontend={}", component("dockerfile")?.display());
    let (run, image) = sandbox.image("image", &["--isolate-plugins", &frontend])?;
    // The same work, and found by a cache backend in this process.
    ensure!(run.end_of("RUN echo")? == "CACHED", "{}", run.stderr);
    same_trees(("isolated", &apart.tree), ("by path", &image.tree))?;
    // What a frontend says of its definition comes through.
    sandbox.write("Dockerfile", "FROM base\nRUNN x\n")?;
    let run = sandbox.build(&["--isolate-plugins=all"])?.expect(1)?;
    run.says("Dockerfile:2")?;
    run.says("RUNN")?;
    Ok(())
}

fn another_frontend() -> Result<()> {
    let file = "# comment\n\
        from base\n\
        env KERNEL=$(uname -s)\n\
        copy data /data\n\
        if grep -q yes /data\n\
        run echo then > /branch\n\
        else\n\
        run echo otherwise > /branch\n\
        end\n\
        run echo \"$KERNEL\" > /kernel\n\
        workdir /tmp\n\
        cmd cat /branch\n";
    let sandbox = Sandbox::with("steps", &[("Steps", file), ("data", "yes\n")])?;
    let args = ["--frontend", "steps", "-f", "context/Steps"];
    let (_, image) = sandbox.image("image", &args)?;
    let size = |image: &wbuild_tests::image::Image, path: &str| -> Result<u64> {
        match &image.tree.get(path)?.node {
            Node::File { size, .. } => Ok(*size),
            other => anyhow::bail!("{path} is {other:?}"),
        }
    };
    ensure!(size(&image, "/branch")? == 5, "the wrong branch was taken");
    ensure!(size(&image, "/kernel")? == 6, "the output of uname is missing");
    ensure!(image.config["config"]["WorkingDir"] == "/tmp", "{}", image.config);
    let env = image.config["config"]["Env"].to_string();
    ensure!(env.contains("KERNEL=Linux"), "{env}");

    sandbox.write("data", "no\n")?;
    let (_, image) = sandbox.image("image", &args)?;
    ensure!(size(&image, "/branch")? == 10, "the wrong branch was taken");

    sandbox.write("Steps", "from base\nfly away\n")?;
    let args = ["--frontend", "steps", "-f", "context/Steps"];
    let run = sandbox.build(&args)?.expect(1)?;
    run.says("fly")?;
    run.says("Steps:2")?;
    Ok(())
}

/// The example for authors of cache backends, with a server that wants a password.
fn a_cache_on_a_web_server() -> Result<()> {
    let file = "FROM base\n\
        RUN echo one > /one && echo \"ran\"-one\n\
        COPY data /data\n\
        RUN cat /data > /two && echo \"ran\"-two\n";
    let sandbox = Sandbox::with("web-cache", &[("Dockerfile", file), ("data", "data\n")])?;
    let server = FileServer::start();
    server.require("Basic dTpw");
    let wasm = component("cache-http")?;
    let options = format!("type={},url={},auth=basic", wasm.display(), server.url("/team/cache/"));
    let (to, from) = (format!("--cache-to={options},mode=max"), format!("--cache-from={options}"));
    let build = |args: &[&str]| -> Result<Run> {
        let mut command = sandbox.build_command(&[&["-o", "-"], args].concat())?;
        let host = server.address;
        let auth = format!(r#"{{"auths":{{"{host}":{{"auth":"dTpw"}}}}}}"#);
        Run::of(command.env("DOCKER_AUTH_CONFIG", auth))
    };
    let built = Tree::of_tar(&build(&[&to])?.success()?.stdout[..])?;
    let paths = server.paths();
    for folder in ["records", "blobs"] {
        let there = |path: &&String| path.starts_with(&format!("/team/cache/{folder}/"));
        ensure!(paths.iter().filter(there).count() >= 3, "{folder}: {paths:?}");
    }

    // Another machine runs nothing, and gets the same.
    let run = build(&["--state-dir=b", &from])?.success()?;
    run.never_says("ran-")?;
    same_trees(("built", &built), ("found", &Tree::of_tar(&run.stdout[..])?))?;
    // Without the password it runs everything, and says why.
    let run = sandbox.build(&["--state-dir=c", &from])?.success()?;
    run.says("401")?;
    run.says("ran-two")?;
    // Layers that are others are not taken.
    for path in paths.iter().filter(|path| path.contains("/blobs/")) {
        let size = server.file(path).map(|data| data.len()).unwrap_or_default();
        server.set(path, Some(vec![7; size]));
    }
    let run = build(&["--state-dir=d", &from])?.success()?;
    run.says("ran-two")?;
    same_trees(("built", &built), ("built again", &Tree::of_tar(&run.stdout[..])?))?;
    // Without the URL it does not even begin.
    let cache = format!("--cache-to=type={}", wasm.display());
    let run = sandbox.build(&["--state-dir=e", &cache])?.expect(1)?;
    run.says("the option url is missing")
}

fn unknown_names_are_refused() -> Result<()> {
    let sandbox = Sandbox::with("unknown", &[("Dockerfile", "FROM base\n")])?;
    let run = sandbox.build(&["--frontend", "dockerfle"])?.expect(2)?;
    run.says("dockerfle")?;
    run.says("dockerfile")?;
    let run = sandbox.build(&["--runner", "./nowhere.wasm"])?.expect(1)?;
    run.says("nowhere.wasm")?;
    Ok(())
}

fn foreign_imports_are_refused() -> Result<()> {
    let sandbox = Sandbox::with("foreign", &[("Dockerfile", "FROM base\n")])?;
    let option = format!("--frontend={}", component("hostile-import")?.display());
    let run = sandbox.build(&[&option])?.expect(1)?;
    run.says("hostile-import.wasm")?;
    run.says("import")?;
    Ok(())
}

fn the_wrong_kind_is_refused() -> Result<()> {
    let sandbox = Sandbox::with("wrong-kind", &[("Dockerfile", "FROM base\n")])?;
    let option = format!("--frontend={}", component("native")?.display());
    let run = sandbox.build(&[&option])?.expect(1)?;
    run.says("runner")?;
    run.says("frontend")?;
    Ok(())
}

fn a_file_that_is_no_component() -> Result<()> {
    let sandbox = Sandbox::with("no-component", &[("Dockerfile", "FROM base\n")])?;
    for (name, bytes) in [("text.wasm", &b"hello"[..]), ("module.wasm", b"\0asm\x01\0\0\0")] {
        std::fs::write(sandbox.path(name), bytes)?;
        let option = format!("--frontend=./{name}");
        let run = sandbox.build(&[&option])?.expect(1)?;
        run.says(name)?;
    }
    Ok(())
}
