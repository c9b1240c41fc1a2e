//! End-to-end tests: the program wbuild, real containers, real tools beside it.
//!
//! One test per case folder (`case::<name>`), one more for those that other builders build too
//! (`buildah::<name>`, `docker::all_cases`), and scenarios of more than one build. A test that
//! cannot run here says
//! `skipped: <test>: <reason>`; see [`wbuild_tests::skip`].

mod cache_mounts;
mod caching;
mod contexts;
mod disk;
mod document;
mod downloads;
mod earthfile;
mod earthfile_language;
mod earthfile_outputs;
mod earthfile_references;
mod elsewhere;
mod embedding;
mod explain;
mod git;
mod imagetools;
mod interruption;
mod keys;
mod monorepo;
mod outputs;
mod platforms;
mod plugin_languages;
mod plugin_tests;
mod plugins;
mod pushing;
mod registries;
mod rootless;
mod runtimes;
mod secrets;
mod state;
mod supply;

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use wbuild_tests::case::Case;
use wbuild_tests::image::Image;
use wbuild_tests::peer::{self, Buildah, Docker};
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::skip::{self, Skip};

/// A test with a name.
type Test = (&'static str, fn() -> Result<()>);

/// Scenarios, by module.
const AREAS: &[(&str, &[Test])] = &[
    ("cache_mounts", cache_mounts::TESTS),
    ("caching", caching::TESTS),
    ("contexts", contexts::TESTS),
    ("disk", disk::TESTS),
    ("document", document::TESTS),
    ("downloads", downloads::TESTS),
    ("earthfile", earthfile::TESTS),
    ("earthfile_language", earthfile_language::TESTS),
    ("earthfile_outputs", earthfile_outputs::TESTS),
    ("earthfile_references", earthfile_references::TESTS),
    ("elsewhere", elsewhere::TESTS),
    ("embedding", embedding::TESTS),
    ("explain", explain::TESTS),
    ("git", git::TESTS),
    ("imagetools", imagetools::TESTS),
    ("interruption", interruption::TESTS),
    ("keys", keys::TESTS),
    ("monorepo", monorepo::TESTS),
    ("outputs", outputs::TESTS),
    ("platforms", platforms::TESTS),
    ("plugin_languages", plugin_languages::TESTS),
    ("plugin_tests", plugin_tests::TESTS),
    ("plugins", plugins::TESTS),
    ("pushing", pushing::TESTS),
    ("registries", registries::TESTS),
    ("rootless", rootless::TESTS),
    ("secrets", secrets::TESTS),
    ("state", state::TESTS),
    ("supply", supply::TESTS),
];

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for case in Case::all().expect("the case folders are readable") {
        let folder = case.clone();
        trials.push(trial(format!("case::{}", case.name), move || folder.check()));
        let peer = case.peer().expect("the case folders are readable");
        if peer.is_some_and(|accepted| !accepted.iter().any(|line| line == "buildah: skip")) {
            trials.push(trial(format!("buildah::{}", case.name), move || buildah(&case)));
        }
    }
    trials.push(trial("docker::all_cases".to_owned(), docker));
    for (area, tests) in AREAS {
        for (name, test) in *tests {
            trials.push(trial(format!("{area}::{name}"), *test));
        }
    }
    // What only `tests/long.sh` runs.
    if std::env::var_os("WBUILD_LONG").is_some_and(|value| value == "1") {
        for (name, test) in plugin_languages::LONG.iter().chain(runtimes::LONG) {
            trials.push(trial(format!("plugin_languages::{name}"), *test));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(name: String, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let shown = name.clone();
    Trial::test(name, move || match test() {
        Ok(()) => Ok(()),
        Err(error) => match error.downcast_ref::<Skip>() {
            Some(reason) if !skip::is_failure() => {
                eprintln!("skipped: {shown}: {reason}");
                Ok(())
            }
            Some(reason) => Err(Failed::from(format!("must not be skipped here: {reason}"))),
            None => Err(Failed::from(format!("{error:#}"))),
        },
    })
}

/// Builds a case with wbuild and with buildah, and compares.
fn buildah(case: &Case) -> Result<()> {
    let sandbox = case.sandbox()?;
    let buildah = Buildah::with_base(&sandbox.path("buildah"))?;
    let ours = built(case, &sandbox)?;
    let theirs = buildah.build(&sandbox, case)?;
    peer::compare("buildah", &case.peer()?.unwrap_or_default(), &ours, &theirs)
}

/// Builds all cases of other builders with one docker daemon, and compares.
fn docker() -> Result<()> {
    let docker = Docker::start()?;
    docker.load_base()?;
    let mut failures = String::new();
    for case in Case::all()? {
        let Some(accepted) = case.peer()? else { continue };
        if accepted.iter().any(|line| line == "docker: skip") {
            continue;
        }
        let sandbox = case.sandbox()?;
        let ours = built(&case, &sandbox)?;
        let compared = docker
            .build_case(&sandbox, &case)
            .and_then(|theirs| peer::compare("docker", &accepted, &ours, &theirs));
        if let Err(error) = compared {
            failures.push_str(&format!("{}: {error:#}\n", case.name));
        }
    }
    ensure!(failures.is_empty(), "{failures}");
    Ok(())
}

fn built(case: &Case, sandbox: &Sandbox) -> Result<Image> {
    case.build(sandbox)?.success()?;
    Image::of_layout(&sandbox.path("image"))
}
