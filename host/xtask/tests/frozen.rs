//! Released WIT versions stay what they are: a component that was built against one of them runs on
//! every later host of the same series.
//!
//! `wit/frozen/<version>/` holds each released version as it was. What is in `wit/` must still be
//! its successor: a host that offers the new worlds can run each component made for the old ones.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use wit_component::semver_check;
use wit_parser::{PackageId, Resolve};
use xtask::wit::PACKAGES;
use xtask::workspace_root;

/// The text of a package.
type Read<'r> = &'r dyn Fn(&str) -> String;

fn in_folder(folder: PathBuf) -> impl Fn(&str) -> String {
    move |package| {
        let path = folder.join(package).join(format!("{package}.wit"));
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    }
}

fn push(
    resolve: &mut Resolve,
    read: Read,
    edit: impl Fn(&str) -> String,
) -> Result<Vec<PackageId>> {
    PACKAGES
        .iter()
        .map(|package| {
            resolve
                .push_str(format!("{package}.wit"), &edit(&read(package)))
                .with_context(|| format!("package {package}"))
        })
        .collect()
}

/// Fails unless all worlds of `old` are still served by those of `new`.
fn compatible(old: Read, new: Read) -> Result<()> {
    let mut resolve = Resolve::default();
    // Two packages of one name and version cannot be told apart; versions do not count below.
    let aside = |text: &str| text.replace("@0.1.", "@0.0.");
    let old = push(&mut resolve, old, aside)?;
    let new = push(&mut resolve, new, str::to_owned)?;
    for (old, new) in old.into_iter().zip(new) {
        for (name, world) in resolve.packages[old].worlds.clone() {
            let successor = resolve.packages[new]
                .worlds
                .get(&name)
                .copied()
                .with_context(|| format!("the world {name} is gone"))?;
            semver_check(resolve.clone(), world, successor).with_context(|| {
                format!("components of the world {name} would not run any more")
            })?;
        }
    }
    Ok(())
}

fn versions(root: &Path) -> Vec<PathBuf> {
    let folder = root.join("wit/frozen");
    let entries = std::fs::read_dir(&folder).expect("wit/frozen");
    entries.map(|entry| entry.expect("an entry of wit/frozen").path()).collect()
}

#[test]
fn components_of_every_released_version_can_be_served() {
    let root = workspace_root();
    let versions = versions(&root);
    assert!(!versions.is_empty(), "wit/frozen holds no version");
    for version in versions {
        compatible(&in_folder(version.clone()), &in_folder(root.join("wit")))
            .unwrap_or_else(|error| panic!("{}: {error:#}", version.display()));
    }
}

/// What may happen inside a series and what may not: package, text, what it becomes.
const HARMLESS: &[(&str, &str, &str)] = &[
    // A function, a method and a type more in what the host offers.
    (
        "frontend",
        "epoch: func() -> option<u64>;",
        "epoch: func() -> option<u64>;\n  zone: func() -> string;",
    ),
    (
        "frontend",
        "cwd: func(path: string);",
        "cwd: func(path: string);\n    nice: func(level: s32);",
    ),
    (
        "runner",
        "features: func() -> attrs;",
        "features: func() -> attrs;\n  record load { one: f64 }",
    ),
    // An interface more, that a world offers.
    (
        "frontend",
        "world imports {",
        "interface clock { now: func() -> u64; }\nworld imports {\n  import clock;",
    ),
    // A world more.
    ("cache", "world local-cache {", "world tiny-cache { export backend; }\nworld local-cache {"),
    // An export that a world does not ask for any more.
    ("frontend", "include frontend;\n  export describe;", "include frontend;"),
];

const BREAKING: &[(&str, &str, &str)] = &[
    // Another signature.
    ("frontend", "epoch: func() -> option<u64>;", "epoch: func() -> option<s64>;"),
    ("frontend", "cwd: func(path: string);", "cwd: func(directory: string);"),
    ("frontend", "cwd: func(path: string);", "cwd: func(path: string, make: bool);"),
    // Gone.
    ("frontend", "epoch: func() -> option<u64>;", ""),
    ("frontend", "cwd: func(path: string);", ""),
    ("cache", "import http;", ""),
    // Records and enums are closed.
    (
        "frontend",
        "record output { node: u32, index: u32 }",
        "record output { node: u32, index: u32, kind: u8 }",
    ),
    (
        "frontend",
        "enum entry-kind { file, directory,",
        "enum entry-kind { file, socket, directory,",
    ),
    ("types", "record span { source: u32,", "record span { file: u32,"),
    (
        "types",
        "enum severity { error, warning, note, help }",
        "enum severity { error, warning, note }",
    ),
    // A function more that components would have to export.
    (
        "frontend",
        "build: func() -> result<_, failure>;\n}",
        "build: func() -> result<_, failure>;\n  version: func() -> string;\n}",
    ),
    (
        "cache",
        "commit: func(options: attrs) -> result<attrs, failure>;",
        "commit: func(options: attrs) -> result<attrs, failure>;\n  close: func();",
    ),
    ("runner", "export planner;", "export planner;\n  export job;"),
    // A world that is called something else.
    ("cache", "world remote-cache {", "world far-cache {"),
];

#[test]
fn additions_are_told_from_breaks() {
    let present = in_folder(workspace_root().join("wit"));
    let cases =
        HARMLESS.iter().map(|case| (case, true)).chain(BREAKING.iter().map(|case| (case, false)));
    for ((package, text, becomes), harmless) in cases {
        let changed = |asked: &str| {
            let whole = present(asked);
            if asked != *package {
                return whole;
            }
            assert_eq!(whole.matches(text).count(), 1, "{text:?} in {package}");
            whole.replace(text, becomes)
        };
        let answer = compatible(&present, &changed);
        assert_eq!(answer.is_ok(), harmless, "{text:?} as {becomes:?}: {answer:?}");
    }
}
