//! Plugins in every language: from `wbuild plugin new` to a build by somebody who only knows the name that
//! they were published under, and the frontends of this repository that are not written in Rust.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use wbuild_tests::image::Image;
use wbuild_tests::languages;
use wbuild_tests::registry::Registry;
use wbuild_tests::run::{Run, Running};
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::tree::Node;
use xtask::toolchain::Toolchain;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("a_frontend_in_rust", a_frontend_in_rust),
    ("a_runner_in_rust", a_runner_in_rust),
    ("a_cache_backend_in_rust", a_cache_backend_in_rust),
    ("a_frontend_in_javascript", a_frontend_in_javascript),
    ("a_frontend_in_c", a_frontend_in_c),
    ("a_cache_backend_in_javascript", a_cache_backend_in_javascript),
    ("a_runner_in_c", a_runner_in_c),
    ("what_makes_no_sense_is_refused", what_makes_no_sense_is_refused),
    ("mistakes_are_shown", mistakes_are_shown),
    ("watching", watching),
    ("package_json", package_json),
    ("tiny", tiny),
];

/// Takes minutes, and installs what few machines have.
pub const LONG: &[Test] =
    &[("a_frontend_in_python", a_frontend_in_python), ("python_app", python_app)];

/// What a language's project needs of the machine, given to a project; skips if it is not there.
fn equip(project: &Path, language: &str) -> Result<()> {
    match language {
        "js" => {
            let modules = languages::node_modules()?;
            std::os::unix::fs::symlink(modules, project.join("node_modules"))?;
        }
        "python" => {
            let environment = languages::python_environment()?;
            std::os::unix::fs::symlink(environment, project.join(".venv"))?;
        }
        _ => languages::need_clang()?,
    }
    Ok(())
}

/// A new project that can be built.
pub fn new(sandbox: &Sandbox, language: &str, kind: &str) -> Result<PathBuf> {
    let args = ["plugin", "new", "mine", "--lang", language, "--kind", kind, "project"];
    sandbox.run(args)?.success()?;
    let project = sandbox.path("project");
    equip(&project, language)?;
    Ok(project)
}

/// Builds the plugin, looks at what is said of it, and runs the cases beside it.
fn build_plugin(sandbox: &Sandbox, project: &Path) -> Result<Value> {
    let said = build_untried(sandbox, project)?;
    sandbox.run(["plugin".as_ref(), "test".as_ref(), project.as_os_str()])?.success()?;
    Ok(said)
}

/// [`build_plugin`] without its cases.
fn build_untried(sandbox: &Sandbox, project: &Path) -> Result<Value> {
    let said = build_project(sandbox, project)?;
    // Runtimes of languages ask for it, and what is compiled does not.
    let wasi = said["imports"].to_string().contains("wasi");
    ensure!(wasi == (said["language"] == "python" || said["language"] == "js"), "{said}");
    Ok(said)
}

/// Builds the plugin; what is said of it.
pub fn build_project(sandbox: &Sandbox, project: &Path) -> Result<Value> {
    let args = ["plugin".as_ref(), "build".as_ref(), "--json".as_ref(), project.as_os_str()];
    let build = Running::start(&mut sandbox.wbuild(args)?)?;
    let said = build.wait(COMPILING)?.success()?.json()?;
    let imports = said["imports"].to_string();
    ensure!(imports.contains("wbuild:"), "{said}");
    ensure!(!imports.contains("nested"), "it asks for a grant: {said}");
    Ok(said)
}

/// The path of the component, as an option's value.
fn component(said: &Value) -> Result<&str> {
    said["path"].as_str().ok_or_else(|| anyhow::anyhow!("no path: {said}"))
}

fn size(image: &Image, path: &str) -> Result<u64> {
    match &image.tree.get(path)?.node {
        Node::File { size, .. } => Ok(*size),
        other => anyhow::bail!("{path} is {other:?}"),
    }
}

/// From nothing to a build, and to a message at a line.
fn a_frontend(language: &str) -> Result<()> {
    let sandbox = sandbox_for(language)?;
    let project = new(&sandbox, language, "frontend")?;
    let said = build_plugin(&sandbox, &project)?;
    ensure!(said["kind"] == "frontend" && said["language"] == language, "{said}");
    ensure!(said["manifest"]["name"] == "mine" && said["manifest"]["version"] == "0.1.0", "{said}");
    builds(&sandbox, component(&said)?)?;
    shipped(&sandbox, component(&said)?)
}

/// A sandbox with definitions for the frontend that all templates but that of Rust begin with.
pub fn sandbox_for(name: &str) -> Result<Sandbox> {
    Sandbox::with(
        name,
        &[
            (
                "definition",
                "base base\nrun echo made > /made\nfiles hello.txt\nstart cat hello.txt\n",
            ),
            ("hello.txt", "hello\n"),
            ("secret.txt", "not for images\n"),
            (".dockerignore", "secret.txt\n"),
            ("wrong", "base base\nfly away\n"),
            ("hidden", "files secret.txt\n"),
            ("absent", "base base\nfiles nothing.txt\n"),
        ],
    )
}

/// Builds those definitions, with their mistakes.
pub fn builds(sandbox: &Sandbox, component: &str) -> Result<()> {
    let frontend = format!("--frontend={component}");
    let (run, image) =
        sandbox.image("image", &[&frontend, "-f", "context/definition", "--label", "a=b"])?;
    ensure!(run.end_of("echo made")? == "DONE", "{}", run.stderr);
    ensure!(
        size(&image, "/made")? == 5 && size(&image, "/app/hello.txt")? == 6,
        "{:?}",
        image.tree
    );
    let config = &image.config["config"];
    ensure!(config["Cmd"].to_string().contains("cat hello.txt"), "{config}");
    ensure!(config["WorkingDir"] == "/app" && config["Labels"]["a"] == "b", "{config}");
    // The command line has its say, and nothing is run again.
    let (run, _) = sandbox.image("again", &[&frontend, "-f", "context/definition"])?;
    ensure!(run.end_of("echo made")? == "CACHED", "{}", run.stderr);

    for (definition, words) in [
        ("wrong", ["fly is no word", "wrong:2"]),
        ("hidden", ["secret.txt", "hidden:1"]),
        ("absent", ["nothing.txt", "absent:2"]),
    ] {
        let file = format!("context/{definition}");
        let run = sandbox.build(&[&frontend, "-f", &file, "-o", "type=cacheonly"])?.expect(1)?;
        for word in words {
            run.says(word)?;
        }
    }
    Ok(())
}

/// Publishes a frontend, and builds `definition` as somebody who has nothing but the name: a state and a
/// cache of their own.
fn shipped(sandbox: &Sandbox, component: &str) -> Result<()> {
    let mut registry = Registry::start(&sandbox.path("registry"), false)?;
    let name = format!("{}/team/mine:1", registry.host());
    let run = sandbox.run(["plugin", "publish", component, &format!("oci://{name}")])?.success()?;
    ensure!(run.text()?.contains(":1@sha256:"), "{}", run.text()?);
    let definition = std::fs::read_to_string(sandbox.path("context/definition"))?;
    sandbox.write("shipped", &format!("# syntax={name}\n{definition}"))?;
    let build = |args: &[&str]| {
        let args = [&["-f", "context/shipped", "-o", "type=cacheonly"], args].concat();
        let mut command = sandbox.build_command(&args)?;
        command
            .env("WBUILD_STATE_DIR", sandbox.path("second-state"))
            .env("WBUILD_CACHE_DIR", sandbox.path("second-cache"));
        Run::of(&mut command)
    };
    let run = build(&[])?.success()?;
    run.says("pinned plugins")?;
    ensure!(run.end_of("echo made")? == "DONE", "{}", run.stderr);
    // From now on nobody is asked.
    registry.stop()?;
    build(&["--locked"])?.success()?;
    build(&["--offline", "--isolate-plugins=none"])?.success()?;
    Ok(())
}

/// The SDK and what it stands on are compiled twice, on a machine that does other things, too.
const COMPILING: Duration = Duration::from_secs(900);

/// A new project in Rust, built, tested as a component and tested natively. The templates are others
/// than those of the other languages.
fn rust_plugin(sandbox: &Sandbox, kind: &str) -> Result<Value> {
    let toolchain = Toolchain::prepare(&wbuild_tests::workspace(), false)?;
    let target = wbuild_tests::scratch()?.join("rust-plugins");
    let home = |name: &str, usual: &str| {
        let set = std::env::var_os(name).map(PathBuf::from);
        set.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(usual)))
    };
    let with_cargo = |mut command: Command| {
        command.env("CARGO_TARGET_DIR", &target);
        for (name, usual) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            command.envs(home(name, usual).map(|path| (name, path)));
        }
        command
    };
    let name = format!("my-{kind}");
    sandbox
        .run(["plugin", "new", &name, "--lang", "rust", "--kind", kind, "project"])?
        .success()?;
    let mut build = with_cargo(sandbox.wbuild(["plugin", "build", "--json", "project"])?);
    let build = Running::start(build.env("RUSTC", &toolchain.rustc))?;
    let said = build.wait(COMPILING)?.success()?.json()?;
    let imports = said["imports"].to_string();
    ensure!(imports.contains("wbuild:") && !imports.contains("wasi"), "{said}");
    sandbox.run(["plugin", "test", "project"])?.success()?;
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet"]).current_dir(sandbox.path("project"));
    Running::start(&mut with_cargo(cargo))?.wait(COMPILING)?.success()?;
    Ok(said)
}

fn a_frontend_in_rust() -> Result<()> {
    let sandbox = Sandbox::with("rust", &[("definition", "base\necho made > /made\n")])?;
    let said = rust_plugin(&sandbox, "frontend")?;
    let frontend = format!("--frontend={}", component(&said)?);
    let (run, _) = sandbox.image("image", &[&frontend, "-f", "context/definition"])?;
    ensure!(run.end_of("echo made")? == "DONE", "{}", run.stderr);
    shipped(&sandbox, component(&said)?)
}

fn a_runner_in_rust() -> Result<()> {
    let dockerfile = "FROM base\nRUN grep -q '^NoNewPrivs:.*1$' /proc/self/status\n";
    let sandbox = Sandbox::with("rust-runner", &[("Dockerfile", dockerfile)])?;
    let said = rust_plugin(&sandbox, "runner")?;
    let runner = format!("--runner={}", component(&said)?);
    let (run, _) = sandbox.image("image", &[&runner])?;
    ensure!(run.end_of("RUN grep")? == "DONE", "{}", run.stderr);
    Ok(())
}

fn a_cache_backend_in_rust() -> Result<()> {
    let files = [("Dockerfile", "FROM base\nRUN echo once > /x\n")];
    let sandbox = Sandbox::with("rust-cache", &files)?;
    let said = rust_plugin(&sandbox, "cache")?;
    let backend = format!("--cache-backend={}", component(&said)?);
    let (run, image) = sandbox.image("first", &[&backend])?;
    ensure!(run.end_of("RUN echo once")? == "DONE", "{}", run.stderr);
    ensure!(size(&image, "/x")? == 5);
    let (run, _) = sandbox.image("second", &[&backend])?;
    ensure!(run.end_of("RUN echo once")? == "CACHED", "{}", run.stderr);
    Ok(())
}

fn a_frontend_in_javascript() -> Result<()> {
    a_frontend("js")
}

fn a_frontend_in_c() -> Result<()> {
    a_frontend("c")
}

fn a_frontend_in_python() -> Result<()> {
    a_frontend("python")
}

fn a_cache_backend_in_javascript() -> Result<()> {
    let sandbox = Sandbox::with("js-cache", &[("Dockerfile", "FROM base\nRUN echo once > /x\n")])?;
    let project = new(&sandbox, "js", "cache")?;
    build_plugin(&sandbox, &project)?;
    // The host finds what it knows by itself first, so the backend says what it is asked.
    let main = std::fs::read_to_string(project.join("main.js"))?;
    let told = main
        .replace(
            "return found.map(",
            "log('note', `found ${found.filter(Boolean).length}`); return found.map(",
        )
        .replace("save(entries) {", "save(entries) { log('note', `saves ${entries.length}`);");
    ensure!(told.matches("log(").count() == 2, "the template has other words: {told}");
    std::fs::write(
        project.join("main.js"),
        format!("import {{ log }} from 'wbuild:types/log@0.1.0';\n{told}"),
    )?;
    let said = build_untried(&sandbox, &project)?;
    let backend = format!("--cache-backend={}", component(&said)?);
    let (run, image) = sandbox.image("first", &[&backend])?;
    ensure!(run.end_of("RUN echo once")? == "DONE", "{}", run.stderr);
    run.says("found 0")?;
    run.says("saves 1")?;
    ensure!(size(&image, "/x")? == 5);
    // Without the host's own records what the backend has saved is found.
    std::fs::remove_dir_all(sandbox.path("state/records"))?;
    std::fs::create_dir(sandbox.path("state/records"))?;
    sandbox.image("second", &[&backend])?.0.says("found 1")?;
    Ok(())
}

fn a_runner_in_c() -> Result<()> {
    let sandbox = Sandbox::with("c-runner", &[("Dockerfile", "FROM base\nRUN echo once > /x\n")])?;
    let project = new(&sandbox, "c", "runner")?;
    let said = build_plugin(&sandbox, &project)?;
    let runner = format!("--runner={}", component(&said)?);
    let (run, image) = sandbox.image("image", &[&runner])?;
    ensure!(run.end_of("RUN echo once")? == "DONE", "{}", run.stderr);
    ensure!(size(&image, "/x")? == 5);
    Ok(())
}

fn what_makes_no_sense_is_refused() -> Result<()> {
    let sandbox = Sandbox::new("refused")?;
    for (language, kind, reason) in [
        ("python", "runner", "8 MiB"),
        ("python", "cache", "8 MiB"),
        ("js", "runner", "lent"),
        ("c", "cache", "no layer"),
    ] {
        let run =
            sandbox.run(["plugin", "new", "x", "--lang", language, "--kind", kind])?.expect(1)?;
        run.says(reason)?;
        run.says("--lang")?;
        ensure!(!sandbox.path("x").exists());
    }
    std::fs::create_dir(sandbox.path("full"))?;
    std::fs::write(sandbox.path("full/mine"), "")?;
    sandbox.run(["plugin", "new", "x", "--lang", "js", "full"])?.expect(1)?.says("not empty")?;
    sandbox.run(["plugin", "new", "../x", "--lang", "js"])?.expect(1)?.says("small letters")?;
    sandbox.run(["plugin", "build", "full"])?.expect(1)?.says("wbuild plugin new")?;
    Ok(())
}

/// Of the code, of the project, and of the machine.
fn mistakes_are_shown() -> Result<()> {
    let sandbox = Sandbox::new("mistakes")?;
    let project = new(&sandbox, "c", "frontend")?;
    let main = std::fs::read_to_string(project.join("main.c"))?;
    std::fs::write(
        project.join("main.c"),
        main.replace("wb_pull(text, platform);", "wb_pull(text, platform"),
    )?;
    let run = sandbox.run(["plugin", "build", "project"])?.expect(1)?;
    run.says("main.c:")?;
    run.says("error: expected")?;
    ensure!(!project.join("build/mine.wasm").exists());

    std::fs::write(project.join("main.c"), &main)?;
    let file = std::fs::read_to_string(project.join("wbuild-plugin.toml"))?;
    std::fs::write(project.join("wbuild-plugin.toml"), format!("{file}world = \"nowhere\"\n"))?;
    sandbox.run(["plugin", "build", "project"])?.expect(1)?.says("no world nowhere")?;
    std::fs::write(project.join("wbuild-plugin.toml"), format!("{file}colour = \"red\"\n"))?;
    sandbox.run(["plugin", "build", "project"])?.expect(1)?.says("colour")?;

    std::fs::write(project.join("wbuild-plugin.toml"), file)?;
    let mut nowhere = sandbox.wbuild(["plugin", "build", "project"])?;
    let run = Run::of(nowhere.env("PATH", sandbox.path("empty")))?.expect(1)?;
    run.says("clang is not on this machine")?;
    run.says("apt-get install clang lld")?;

    // What is tested is what was built.
    sandbox.run(["plugin", "build", "project"])?.success()?;
    let test = |more: &[&str]| sandbox.run([&["plugin", "test", "project"], more].concat());
    let run = test(&[])?.success()?;
    ensure!(!run.stderr.contains("has changed"), "{}", run.stderr);
    let crashing =
        main.replace("wb_pull(text, platform);", "(__builtin_trap(), wb_pull(text, platform));");
    std::fs::write(project.join("main.c"), crashing)?;
    test(&[])?.success()?.says("main.c has changed since")?;
    sandbox.run(["plugin", "build", "project"])?.success()?;
    // A crash has names, and is not what anybody expects.
    let expected = project.join("tests/cases/hello/expected");
    let before = std::fs::read_to_string(&expected)?;
    let run = test(&["--update"])?.expect(1)?;
    for part in ["it crashed, which is not kept", "crashed", "build_build`"] {
        ensure!(run.text()?.contains(part), "no {part:?} in:\n{}", run.text()?);
    }
    ensure!(std::fs::read_to_string(&expected)? == before, "it was kept");
    std::fs::write(
        project.join("main.c"),
        format!(
            "int printf(const char *, ...);\n{}",
            main.replace("wb_pull(text, platform);", "(printf(\"x\"), wb_pull(text, platform));")
        ),
    )?;
    let run = sandbox.run(["plugin", "build", "project"])?.expect(1)?;
    run.says("undefined symbol: printf")?;
    run.says("there is no C library but")?;
    // The folder is as good a name as the component.
    sandbox.run(["plugin", "inspect", "project"])?.success()?;
    Ok(())
}

/// Another plugin, another definition: built and run again, by itself.
fn watching() -> Result<()> {
    let sandbox = Sandbox::with("watch", &[("definition", "files one.txt\n"), ("one.txt", "1\n")])?;
    let project = new(&sandbox, "c", "frontend")?;
    let mut running = Running::start(&mut sandbox.wbuild([
        "plugin",
        "run",
        "--project",
        "project",
        "--watch",
        "context",
        "-f",
        "context/definition",
        "-o",
        "context/out",
        "--progress",
        "plain",
    ])?)?;
    running.wait_for("waiting for changes")?;
    ensure!(sandbox.path("context/out/app/one.txt").is_file(), "{}", running.stderr_so_far());
    sandbox.write("definition", "bogus\n")?;
    running.wait_for("bogus is no word that begins a line")?;
    let main = std::fs::read_to_string(project.join("main.c"))?;
    std::fs::write(
        project.join("main.c"),
        main.replace(" is no word that", " is unheard of, and nothing"),
    )?;
    running.wait_for("bogus is unheard of")?;
    std::fs::write(project.join("main.c"), main.replace("WB_FRONTEND", "WB_FRONT"))?;
    running.wait_for("clang failed")?;
    std::fs::write(project.join("main.c"), &main)?;
    sandbox.write("definition", "files two.txt\n")?;
    sandbox.write("two.txt", "2\n")?;
    while !sandbox.path("context/out/app/two.txt").is_file() {
        ensure!(!running.has_ended()?, "{}", running.stderr_so_far());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Ok(())
}

/// The project of a frontend of this repository, in the sandbox.
fn of_repository(sandbox: &Sandbox, name: &str, language: &str) -> Result<String> {
    let (from, project) =
        (wbuild_tests::workspace().join("frontends").join(name), sandbox.path(name));
    std::fs::create_dir(&project)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let made = ["build", "node_modules", ".venv", "__pycache__"];
        if !made.iter().any(|made| path.ends_with(made)) {
            Run::of(Command::new("cp").arg("-rL").arg(path).arg(&project))?.success()?;
        }
    }
    equip(&project, language)?;
    let said = build_plugin(sandbox, &project)?;
    Ok(format!("--frontend={}", component(&said)?))
}

fn package_json() -> Result<()> {
    let package = r#"{
  "name": "demo", "version": "1.2.3", "license": "MIT",
  "engines": { "node": ">=18" },
  "scripts": {
    "build": "mkdir -p dist && cp src/server.js dist/ && ls node_modules > dist/then",
    "start": "node dist/server.js"
  },
  "dependencies": { "greet": "file:./greet" },
  "devDependencies": { "tool": "file:./tool" },
  "wbuild": { "base": "nodes", "ports": [8080], "env": { "GREETING": "hi" } }
}
"#;
    let lock = r#"{
  "name": "demo", "version": "1.2.3", "lockfileVersion": 3, "requires": true,
  "packages": {
    "": { "name": "demo", "version": "1.2.3", "license": "MIT", "dependencies": { "greet": "file:./greet" },
          "devDependencies": { "tool": "file:./tool" }, "engines": { "node": ">=18" } },
    "greet": { "version": "1.0.0" }, "tool": { "version": "1.0.0", "dev": true },
    "node_modules/greet": { "resolved": "greet", "link": true },
    "node_modules/tool": { "resolved": "tool", "link": true }
  }
}
"#;
    let sandbox = Sandbox::with(
        "package-json",
        &[
            ("package.json", package),
            ("package-lock.json", lock),
            (
                "greet/package.json",
                r#"{ "name": "greet", "version": "1.0.0", "main": "index.js" }"#,
            ),
            ("greet/index.js", "module.exports = () => 'hello';\n"),
            ("tool/package.json", r#"{ "name": "tool", "version": "1.0.0" }"#),
            ("src/server.js", "console.log(require('greet')());\n"),
            ("node_modules/stale/index.js", "of the machine\n"),
        ],
    )?;
    let frontend = of_repository(&sandbox, "package-json", "js")?;
    let nodes = languages::node_image(&sandbox)?;
    let nodes = format!("--build-context=nodes=oci-layout://{}", nodes.display());
    let args = [&*frontend, &*nodes, "-f", "context/package.json"];
    let (run, image) = sandbox.image("image", &args)?;
    ensure!(run.end_of("npm ci")? == "DONE", "{}", run.stderr);
    ensure!(size(&image, "/app/dist/then")? == 11, "the build saw both dependencies");
    ensure!(image.tree.get("/app/node_modules/greet").is_ok());
    ensure!(
        image.tree.get("/app/node_modules/tool").is_err(),
        "what only building needs is left out"
    );
    ensure!(
        image.tree.get("/app/node_modules/stale").is_err(),
        "modules of the machine are left out"
    );
    let config = &image.config["config"];
    ensure!(config["Cmd"] == serde_json::json!(["node", "dist/server.js"]), "{config}");
    ensure!(config["User"] == "1000:1000" && config["WorkingDir"] == "/app", "{config}");
    let env = config["Env"].to_string();
    ensure!(env.contains("NODE_ENV=production") && env.contains("GREETING=hi"), "{config}");
    ensure!(config["ExposedPorts"].get("8080/tcp").is_some(), "{config}");
    ensure!(config["Labels"]["org.opencontainers.image.version"] == "1.2.3", "{config}");

    // Other sources, the same dependencies.
    sandbox.write("src/server.js", "console.log(require('greet')(), 'again');\n")?;
    let (run, _) = sandbox.image("again", &args)?;
    ensure!(run.end_of("npm ci")? == "CACHED", "{}", run.stderr);
    ensure!(run.end_of("npm run build")? == "DONE", "{}", run.stderr);

    // What the command line asks of it.
    let run =
        sandbox.build(&[&*frontend, &*nodes, "-f", "context/package.json", "--call", "targets"])?;
    let run = run.success()?;
    ensure!(run.text()?.contains("dependencies"), "{}", run.text()?);

    for (old, new, words) in [
        ("\"ports\": [8080]", "\"prots\": [8080]", ["prots is no setting", "package.json:10"]),
        (">=18\" },\n", ">=99\" },\n", ["no release of Node.js", "package.json:3"]),
        ("\"name\": \"demo\",", "\"name\": \"demo\"", ["is not JSON", "package.json:"]),
    ] {
        let edited = package.replacen(old, new, 1).replace("\"base\": \"nodes\",", "");
        ensure!(edited != package, "{old:?} is not there");
        sandbox.write("package.json", &edited)?;
        let run = sandbox
            .build(&[&*frontend, "-f", "context/package.json", "-o", "type=cacheonly"])?
            .expect(1)?;
        for word in words {
            run.says(word)?;
        }
    }
    Ok(())
}

fn tiny() -> Result<()> {
    let file = "# comment\nfrom base\ndir /srv\nenv A=1\nrun echo $A > a\ncopy data .\nlabel x=y\nuser app\nstart cat a\n";
    let sandbox = Sandbox::with("tiny", &[("Tiny", file), ("data", "of the context\n")])?;
    let frontend = of_repository(&sandbox, "tiny", "c")?;
    let args = [&*frontend, "-f", "context/Tiny"];
    let (_, image) = sandbox.image("image", &args)?;
    ensure!(size(&image, "/srv/a")? == 2 && size(&image, "/srv/data")? == 15);
    let config = &image.config["config"];
    ensure!(config["WorkingDir"] == "/srv" && config["User"] == "app", "{config}");
    ensure!(
        config["Labels"]["x"] == "y" && config["Env"].to_string().contains("\"A=1\""),
        "{config}"
    );
    ensure!(config["Env"].to_string().contains("PATH="), "the base's variables stay: {config}");

    for (definition, words) in [
        ("from base\nfly away\n", ["fly is no word", "Tiny:2"]),
        ("from base\nrun\n", ["run says nothing", "Tiny:2"]),
        ("from base\nrun exit 3\n", ["exit 3", "Tiny:2"]),
    ] {
        sandbox.write("Tiny", definition)?;
        let run = sandbox
            .build(&[&*frontend, "-f", "context/Tiny", "-o", "type=cacheonly"])?
            .expect(1)?;
        for word in words {
            run.says(word)?;
        }
    }
    Ok(())
}

fn python_app() -> Result<()> {
    let project = "[project]\nname = \"demo\"\nversion = \"1.2\"\nrequires-python = \">=3.10\"\ndependencies = []\n\n\
        [tool.wbuild]\nbase = \"pythons\"\nports = [8080]\n";
    let sandbox = Sandbox::with(
        "python-app",
        &[("pyproject.toml", project), ("main.py", "print('hello')\n"), ("__pycache__/x.pyc", "")],
    )?;
    let frontend = of_repository(&sandbox, "python-app", "python")?;
    let pythons = languages::python_image(&sandbox)?;
    let pythons = format!("--build-context=pythons=oci-layout://{}", pythons.display());
    let args = [&*frontend, &*pythons, "-f", "context/pyproject.toml"];
    let (_, image) = sandbox.image("image", &args)?;
    ensure!(size(&image, "/app/main.py")? == 15 && image.tree.get("/app/__pycache__").is_err());
    let config = &image.config["config"];
    ensure!(config["Cmd"] == serde_json::json!(["/opt/venv/bin/python", "main.py"]), "{config}");
    ensure!(config["Env"].to_string().contains("PATH=/opt/venv/bin:"), "{config}");
    ensure!(config["Labels"]["org.opencontainers.image.version"] == "1.2", "{config}");
    sandbox.write("main.py", "print('hello again')\n")?;
    let (run, _) = sandbox.image("again", &args)?;
    ensure!(run.end_of("make a virtual environment")? == "CACHED", "{}", run.stderr);
    sandbox.write("pyproject.toml", &project.replace("ports", "prots"))?;
    let run = sandbox.build(&args)?.expect(1)?;
    run.says("prots is no setting")?;
    run.says("pyproject.toml:9")?;
    Ok(())
}
