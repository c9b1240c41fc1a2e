//! What `tests/COMPATIBILITY.md` says of the tests.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::{AREAS, Test};

pub const TESTS: &[Test] = &[("every_test_that_is_named_exists", every_test_that_is_named_exists)];

fn every_test_that_is_named_exists() -> Result<()> {
    let text = std::fs::read_to_string(wbuild_tests::workspace().join("tests/COMPATIBILITY.md"))?;
    let mut missing = Vec::new();
    let mut found = 0;
    // The last column of a row: names in backticks.
    for proof in text.lines().filter_map(|line| line.strip_suffix('|')?.rsplit('|').next()) {
        for name in proof.split('`').skip(1).step_by(2) {
            match exists(name).with_context(|| name.to_owned())? {
                Some(true) => found += 1,
                Some(false) => missing.push(name),
                // Said in words, with the file.
                None => {}
            }
        }
    }
    ensure!(missing.is_empty(), "no test is called {missing:?}");
    ensure!(found > 100, "only {found} names were found: is it a table still?");
    Ok(())
}

/// Whether there is a test of this name; none if it is no name of one.
fn exists(name: &str) -> Result<Option<bool>> {
    // A whole group.
    if name.ends_with("::…") || name.ends_with("/NAME") {
        return Ok(None);
    }
    let host = wbuild_tests::workspace().join("host");
    let language = wbuild_tests::workspace().join("frontends/dockerfile/lang/tests");
    if let Some((area, test)) = name.split_once("::") {
        if area == "case" {
            let folder = wbuild_tests::workspace().join("tests/cases/e2e").join(test);
            return Ok(Some(folder.is_dir()));
        }
        if let Some((_, tests)) = AREAS.iter().find(|(name, _)| *name == area) {
            return Ok(Some(tests.iter().any(|(name, _)| *name == test)));
        }
        // `hostile` is a file of its own, the others are crates.
        let folder = host.join(if area == "hostile" { "isolate" } else { area });
        ensure!(folder.is_dir(), "nothing is called {area}");
        let marks = [format!("fn {test}("), format!("\"{test}\"")];
        let inside = |part| any_file(&folder.join(part), &marks);
        return Ok(Some(inside("tests")? || inside("src")?));
    }
    let Some((kind, rest)) = name.split_once('/') else { return Ok(None) };
    let (cases, name) = match kind {
        "cli" => (host.join("cli/tests/cases"), rest.to_owned()),
        "solver" => (host.join("solver/tests/solver/cases"), format!("{rest}.txt")),
        "earthfile" => {
            (wbuild_tests::workspace().join("frontends/earthfile/lang/tests"), rest.to_owned())
        }
        _ => (language.join(kind), rest.to_owned()),
    };
    if !cases.is_dir() {
        return Ok(None);
    }
    match name.strip_suffix('…') {
        Some(begin) => begins(&cases, begin).map(Some),
        None => Ok(Some(cases.join(name).exists())),
    }
}

/// Whether the name of something below a folder begins like this.
fn begins(folder: &Path, begin: &str) -> Result<bool> {
    let (below, begin) = begin.rsplit_once('/').unwrap_or(("", begin));
    for entry in std::fs::read_dir(folder.join(below))? {
        if entry?.file_name().to_string_lossy().starts_with(begin) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a Rust file below a folder holds one of these texts.
fn any_file(folder: &Path, texts: &[String]) -> Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let found = if path.is_dir() {
            any_file(&path, texts)?
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let content = std::fs::read_to_string(&path)?;
            texts.iter().any(|text| content.contains(text))
        } else {
            false
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}
