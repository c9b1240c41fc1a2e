//! A program with wbuild inside: the example of the crate `wbuild`, with real steps.

use std::process::Command;

use anyhow::{Result, ensure};
use wbuild_tests::run::Run;
use wbuild_tests::sandbox::Sandbox;

use crate::Test;

pub const TESTS: &[Test] = &[("a_pipeline_tool", a_pipeline_tool)];

/// Runs the example on the files of a sandbox.
fn pipeline(sandbox: &Sandbox) -> Result<Run> {
    let program = wbuild_tests::workspace().join("target/debug/examples/pipeline");
    ensure!(
        program.is_file(),
        "no {}; run: cargo build -p wbuild --example pipeline",
        program.display()
    );
    let layout = wbuild_tests::base::layout()?;
    let mut command = Command::new(program);
    command
        .args(["pipeline.txt", "context", "out", "pipeline-state"])
        .arg(format!("base={}", layout.display()))
        .current_dir(sandbox.folder());
    Run::of(&mut command)
}

fn a_pipeline_tool() -> Result<()> {
    let sandbox = Sandbox::with("pipeline", &[("in.txt", "hello\n")])?;
    let file = |check: &str| {
        format!(
            "# a comment\n\
             compile: base | mkdir /out; tr a-z A-Z < in.txt > /out/app; echo compiled | /out/app\n\
             pack: compile | gzip -c /out/app > /out/app.gz | /out/app.gz\n\
             check: compile | {check}\n"
        )
    };
    std::fs::write(sandbox.path("pipeline.txt"), file("grep HELLO /out/app"))?;
    let run = pipeline(&sandbox)?.success()?;
    for said in ["compile | compiled", "check | HELLO", "check: done", "pack: done"] {
        ensure!(run.text()?.contains(said), "no {said:?} in:\n{}", run.text()?);
    }
    ensure!(std::fs::read_to_string(sandbox.path("out/app"))? == "HELLO\n");
    ensure!(sandbox.path("out/app.gz").is_file());

    let run = pipeline(&sandbox)?.success()?;
    ensure!(run.text()?.contains("check: known"), "{}", run.text()?);

    std::fs::write(sandbox.path("pipeline.txt"), file("grep nothing /out/app"))?;
    let run = pipeline(&sandbox)?;
    ensure!(run.code == 1, "{}", run.stderr);
    for said in ["check: ", "--> pipeline.txt:4", "grep nothing"] {
        ensure!(run.stderr.contains(said), "no {said:?} in:\n{}", run.stderr);
    }
    Ok(())
}
