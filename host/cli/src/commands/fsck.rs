//! `wbuild fsck`.
//!
//! `--json` prints an object: `state_dir`, the numbers `records`, `sealed_records`, `snapshots`,
//! `layers_compared`, `layers_unknown`, `blobs`, `documents`, `clean` (whether nothing damaged is
//! left), and `problems`. Of a problem: `kind`, `path`, `detail`, `harmless` (the ordinary trace of a
//! crash), and after a repair `set_aside`, where it lies now, or `removed`.

use serde_json::{Value, json};
use wbuild_cli::args::FsckArgs;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::terminal;
use wbuild_graph::Failure;
use wbuild_store::{FsckHelp, FsckOptions, FsckReport, Problem, Remedy, Store};

/// Runs the command. Waits for a build only if it is to repair.
pub fn run(args: &FsckArgs, environment: &Environment) -> Result<Exit, Fault> {
    let dir = environment.state_dir(args.state.state_dir.as_deref())?;
    let store: Option<Store> = match args.repair && dir.exists() {
        true => Some(super::open_to_change(&dir, "wbuild fsck --repair", environment)?),
        false => super::open_to_look(&dir, environment)?,
    };
    let report = match &store {
        Some(store) => check(store, args)?,
        // Nothing has been built here yet.
        None => FsckReport::default(),
    };
    let clean = if args.repair { report.is_repaired() } else { report.is_clean() };
    let exit = if clean { Exit::Success } else { Exit::Failed };
    if args.json {
        let problems: Vec<Value> = report.problems.iter().map(to_json).collect();
        super::print_json(&json!({
            "state_dir": dir,
            "records": report.records,
            "sealed_records": report.sealed_records,
            "snapshots": report.snapshots,
            "layers_compared": report.layers_compared,
            "layers_unknown": report.layers_unknown,
            "blobs": report.blobs,
            "documents": report.documents,
            "clean": clean,
            "problems": problems,
        }))?;
        return Ok(exit);
    }
    let mut text: String = report.problems.iter().map(line).collect();
    text.push_str(&summary(&report, args, clean));
    terminal::print(text.as_bytes())?;
    Ok(exit)
}

fn check(store: &Store, args: &FsckArgs) -> Result<FsckReport, Fault> {
    let scratch = tempfile::tempdir()
        .map_err(|error| Fault::input("cannot make a temporary directory").cause(&error))?;
    let options = FsckOptions { verify_blobs: args.verify, repair: args.repair };
    let layer = |layer: wbuild_store::StoredLayer<'_>| wbuild_engine::check::layer(layer);
    let help = FsckHelp {
        layer: args.verify.then_some(&layer as &wbuild_store::LayerCheck<'_>),
        scratch: Some(scratch.path()),
    };
    let report = store.fsck_with(options, help).map_err(Failure::from)?;
    if args.repair {
        store.close_account().map_err(Failure::from)?;
    }
    Ok(report)
}

fn line(problem: &Problem) -> String {
    let Problem { kind, path, detail, remedy } = problem;
    let done = match remedy {
        Remedy::SetAside(to) => format!("; set aside: {}", to.display()),
        Remedy::Removed => "; removed".to_owned(),
        Remedy::None if kind.is_harmless() => " (harmless)".to_owned(),
        Remedy::None => String::new(),
    };
    terminal::plain(&format!("{}: {}: {detail}{done}", kind.as_str(), path.display()))
        .replace('\n', " ")
        + "\n"
}

fn summary(report: &FsckReport, args: &FsckArgs, clean: bool) -> String {
    let mut text = format!(
        "{} records, {} layers, {} blobs, {} documents\n",
        report.records, report.snapshots, report.blobs, report.documents
    );
    if args.verify && report.layers_unknown > 0 {
        text.push_str(&format!(
            "{} layers have nothing to be compared with\n",
            report.layers_unknown
        ));
    }
    text.push_str(match (clean, args.repair) {
        (true, false) => "nothing is damaged\n",
        (true, true) => "nothing damaged is left\n",
        (false, false) => "--repair sets aside what is damaged\n",
        (false, true) => "what is not ours was left alone\n",
    });
    text
}

fn to_json(problem: &Problem) -> Value {
    let Problem { kind, path, detail, remedy } = problem;
    let mut value = json!({
        "kind": kind.as_str(),
        "path": path,
        "detail": detail,
        "harmless": kind.is_harmless(),
    });
    match remedy {
        Remedy::None => {}
        Remedy::SetAside(to) => value["set_aside"] = json!(to),
        Remedy::Removed => value["removed"] = json!(true),
    }
    value
}
