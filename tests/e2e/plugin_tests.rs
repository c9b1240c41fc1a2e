//! What an author of a frontend has: cases, traces, and a language on top of another.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::tree::Node;

use crate::Test;
use crate::plugins::component;

pub const TESTS: &[Test] = &[
    ("cases_of_components", cases_of_components),
    ("a_case_that_is_not_as_expected", a_case_that_is_not_as_expected),
    ("the_engine_makes_the_graph_of_the_case", the_engine_makes_the_graph_of_the_case),
    ("a_trace_is_answered_again", a_trace_is_answered_again),
    ("a_dockerfile_with_includes", a_dockerfile_with_includes),
    ("a_frontend_that_calls_another", a_frontend_that_calls_another),
];

fn cases(frontend: &str) -> PathBuf {
    let folder = if frontend == "many" { "plugins/examples" } else { "frontends" };
    wbuild_tests::workspace().join(folder).join(frontend).join("tests/cases")
}

/// The same cases that run natively.
fn cases_of_components() -> Result<()> {
    let sandbox = Sandbox::new("cases")?;
    for frontend in ["steps", "include", "many"] {
        let (component, cases) = (component(frontend)?, cases(frontend));
        let (component, cases) = (component.display().to_string(), cases.display().to_string());
        let run = sandbox.run(["plugin", "test", &component, "--cases", &cases])?.success()?;
        for part in ["ok ", "calls", "ms of processor", "of memory"] {
            ensure!(run.text()?.contains(part), "no {part:?} in:\n{}", run.text()?);
        }
        run.says("all as expected")?;
        let run = sandbox.run(["plugin", "test", "--json", &component, "--cases", &cases])?;
        let rows = run.success()?.json()?;
        let rows = rows.as_array().context("a list")?;
        ensure!(!rows.is_empty() && rows.iter().all(|row| row["ok"] == true), "{rows:?}");
        ensure!(rows.iter().all(|row| row["memory_bytes"].as_u64() > Some(0)), "{rows:?}");
    }
    Ok(())
}

fn a_case_that_is_not_as_expected() -> Result<()> {
    let sandbox = Sandbox::with(
        "case",
        &[
            ("tests/cases/one/case.toml", ""),
            ("tests/cases/one/x.steps", "from scratch\nworkdir /a\n"),
        ],
    )?;
    let folder = sandbox.path("context/tests/cases").display().to_string();
    let test = |more: &[&str]| {
        sandbox.run([&["plugin", "test", "steps", "--cases", &folder], more].concat())
    };
    let run = test(&[])?.expect(1)?;
    ensure!(run.text()?.contains("there is no expected"), "{}", run.text()?);
    ensure!(test(&["--update"])?.success()?.text()?.contains("updated"));
    test(&[])?.success()?;
    sandbox.write("tests/cases/one/x.steps", "from scratch\nworkdir /b\n")?;
    let run = test(&[])?.expect(1)?;
    for line in ["-   mkdir \"/a\" parents", "+   mkdir \"/b\" parents"] {
        ensure!(run.text()?.contains(line), "no {line:?} in:\n{}", run.text()?);
    }
    // It would never be run.
    sandbox.write("tests/cases/two/x.steps", "from scratch\n")?;
    test(&[])?.expect(1)?.says("two is no case")?;
    Ok(())
}

fn the_engine_makes_the_graph_of_the_case() -> Result<()> {
    let sandbox = Sandbox::new("case-graph")?;
    let case = cases("steps").join("platforms");
    let definition = case.join("hello.steps").display().to_string();
    let run = sandbox.run([
        "plugin",
        "trace",
        "steps",
        "-f",
        &definition,
        "--platform=linux/amd64,linux/arm/v7",
        sandbox.folder().to_str().context("a path")?,
    ])?;
    let trace = wbuild_testkit::Trace::from_json(run.success()?.text()?)?;
    let graph = wbuild_graph::dump::dump(&trace.graph()?);
    let expected = std::fs::read_to_string(case.join("expected"))?;
    let section = expected.strip_prefix("== graph\n").context("a graph")?;
    let (section, _) = section.split_once("\n== ").context("results")?;
    ensure!(graph == section, "the engine made\n{graph}\nand the case\n{section}");
    Ok(())
}

fn a_trace_is_answered_again() -> Result<()> {
    let file = "from scratch\nworkdir /a\ncopy data /a/\n";
    let sandbox = Sandbox::with("trace", &[("Steps", file), ("data", "x\n")])?;
    let context = sandbox.path("context").display().to_string();
    let definition = sandbox.path("context/Steps").display().to_string();
    let trace = sandbox.path("trace.json").display().to_string();
    let record = ["plugin", "trace", "-o", &trace, "steps", "-f", &definition, &context];
    sandbox.run(record)?.success()?;
    let first = std::fs::read_to_string(&trace)?;
    // Recorded anew even though nothing has changed, and the same.
    sandbox.run(record)?.success()?;
    ensure!(std::fs::read_to_string(&trace)? == first, "two traces differ");

    let run = sandbox.run(["plugin", "trace", "--replay", &trace, "steps"])?.success()?;
    ensure!(run.text()?.contains("mkdir \"/a\" parents"), "{}", run.text()?);
    run.says("as in the trace")?;
    // Another frontend asks for other things.
    let run = sandbox.run(["plugin", "trace", "--replay", &trace, "dockerfile"])?.expect(1)?;
    run.says("it asked what is not in the trace")?;

    // What fails has a trace, too.
    sandbox.write("Steps", "from scratch\nfly\n")?;
    sandbox.run(record)?.expect(1)?.says("fly")?;
    let run = sandbox.run(["plugin", "trace", "--replay", &trace, "steps"])?.success()?;
    ensure!(run.text()?.contains("== failure"), "{}", run.text()?);
    Ok(())
}

fn a_dockerfile_with_includes() -> Result<()> {
    let sandbox = Sandbox::with(
        "include",
        &[
            ("Dockerfile", "FROM base\nINCLUDE parts/tools\nCOPY data /\n"),
            ("parts/tools", "# shared\nINCLUDE parts/env\nRUN echo \"$WHO\" > /who\n"),
            ("parts/env", "ENV WHO=everybody\n"),
            ("data", "x\n"),
        ],
    )?;
    let frontend = format!("--frontend={}", component("include")?.display());
    let (_, image) = sandbox.image("image", &[&frontend])?;
    let who = &image.tree.get("/who")?.node;
    ensure!(matches!(who, Node::File { size: 10, .. }), "/who is {who:?}");
    image.tree.get("/data")?;

    // What fails is shown in the file that it stands in.
    sandbox.write("parts/tools", "# shared\nINCLUDE parts/env\nRUN exit 3\n")?;
    sandbox.build(&[&frontend])?.expect(1)?.says("parts/tools:3")?;
    sandbox.write("parts/env", "ENV\n")?;
    sandbox.build(&[&frontend])?.expect(1)?.says("parts/env:1")?;
    Ok(())
}

/// With the words of the SDK, and with its grant.
fn a_frontend_that_calls_another() -> Result<()> {
    let sandbox = Sandbox::with(
        "many",
        &[
            ("images", "# shared\napi api/Dockerfile VERSION=2\nweb web/Dockerfile\n"),
            (
                "api/Dockerfile",
                "FROM base\nARG VERSION\nRUN echo \"$VERSION\" > /version\nCOPY data /\n",
            ),
            ("web/Dockerfile", "FROM scratch\nCOPY data /web\n"),
            ("data", "x\n"),
        ],
    )?;
    let many = component("many")?.display().to_string();
    let frontend = format!("--frontend={many}");
    sandbox.build(&[&frontend, "-f", "context/images"])?.expect(1)?.says("nested = true")?;
    let policy = sandbox.path("home/.config/wbuild");
    std::fs::create_dir_all(&policy)?;
    let entry = format!("[[plugin]]\nmatch = \"{many}\"\nnested = true\n");
    std::fs::write(policy.join("policy.toml"), entry)?;
    let args = [&*frontend, "-f", "context/images"];
    let (_, image) = sandbox.image("api", &[&args[..], &["--target=api"]].concat())?;
    let version = &image.tree.get("/version")?.node;
    ensure!(matches!(version, Node::File { size: 2, .. }), "/version is {version:?}");
    image.tree.get("/data")?;
    // All of them, with what they are called in the manifests.
    sandbox.build(&[&args[..], &["-o", "type=oci,tar=false,dest=all"]].concat())?.success()?;
    let index = std::fs::read(sandbox.path("all/index.json"))?;
    let index: serde_json::Value = serde_json::from_slice(&index)?;
    let mut titles = Vec::new();
    for manifest in index["manifests"].as_array().context("manifests")? {
        let digest = manifest["digest"].as_str().context("a digest")?.replace(':', "/");
        let manifest = std::fs::read(sandbox.path(format!("all/blobs/{digest}")))?;
        let manifest: serde_json::Value = serde_json::from_slice(&manifest)?;
        titles.push(manifest["annotations"]["org.opencontainers.image.title"].clone());
    }
    ensure!(titles == ["api", "web"], "{titles:?}");

    // What the called one made is not in a trace, and what comes after is numbered as it was.
    let context = sandbox.path("context").display().to_string();
    let definition = sandbox.path("context/images").display().to_string();
    let trace = sandbox.path("trace.json").display().to_string();
    let layout = wbuild_tests::base::layout()?;
    let base = format!("--build-context=base=oci-layout://{}", layout.display());
    let record = ["plugin", "trace", "-o", &trace, &many, "-f", &definition, &base, &context];
    sandbox.run(record)?.success()?;
    let replay = ["plugin", "trace", "--replay", &trace, &many];
    sandbox.run(replay)?.success()?.says("as in the trace")?;

    // A step that fails is shown in both files.
    sandbox.write("api/Dockerfile", "FROM base\nRUN exit 3\n")?;
    let run = sandbox.build(&args)?.expect(1)?;
    run.says("api/Dockerfile:2")?;
    run.says("images:2")?;
    Ok(())
}
