//! The finished components, against the reviewed list of what they ask for.

use std::collections::BTreeMap;

use xtask::component::Surface;
use xtask::guests::{dist, golden_entry, golden_file, list};
use xtask::workspace_root;

/// The golden list by component: a line with a name, then indented lines.
fn golden() -> BTreeMap<String, String> {
    let path = golden_file(&workspace_root());
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let mut entries: BTreeMap<String, String> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if !line.starts_with(' ') {
            name = line.to_owned();
        }
        let entry = entries.entry(name.clone()).or_default();
        entry.push_str(line);
        entry.push('\n');
    }
    entries
}

#[test]
fn every_component_imports_and_exports_exactly_what_the_golden_list_says() {
    let root = workspace_root();
    let mut golden = golden();
    let mut problems = Vec::new();
    for guest in list(&root).expect("cargo metadata") {
        let path = dist(&root).join(format!("{}.wasm", guest.name));
        let Ok(bytes) = std::fs::read(&path) else {
            panic!("{} is not built; run: cargo xtask guests", guest.name);
        };
        let surface = Surface::read(&bytes).expect("a valid component");
        let present = golden_entry(&guest.name, &surface);
        match golden.remove(&guest.name) {
            Some(wanted) if wanted == present => {}
            Some(wanted) => problems.push(format!("wanted:\n{wanted}present:\n{present}")),
            None => problems.push(format!("not in the list:\n{present}")),
        }
    }
    problems.extend(golden.into_keys().map(|name| format!("in the list, but no guest: {name}")));
    assert!(
        problems.is_empty(),
        "{}\nIf this is what you want, run: cargo xtask guests --bless",
        problems.join("\n")
    );
}

#[test]
fn no_component_imports_anything_foreign_but_the_one_that_is_about_it() {
    for (name, entry) in golden() {
        let foreign: Vec<&str> = entry
            .lines()
            .filter_map(|line| line.strip_prefix("  import "))
            .filter(|import| !import.starts_with("wbuild:"))
            .collect();
        let allowed: &[&str] =
            if name == "hostile-import" { &["hostile:extra/thing@0.1.0"] } else { &[] };
        assert_eq!(foreign, allowed, "{name}");
    }
}

#[test]
fn no_component_tells_where_it_was_built() {
    let root = workspace_root();
    let mut places = vec![root.display().to_string()];
    places.extend(["CARGO_HOME", "HOME"].into_iter().filter_map(|name| std::env::var(name).ok()));
    // A home of "/" would be found everywhere.
    places.retain(|place| place.len() > 1);
    for guest in list(&root).expect("cargo metadata") {
        let path = dist(&root).join(format!("{}.wasm", guest.name));
        let Ok(bytes) = std::fs::read(&path) else {
            panic!("{} is not built; run: cargo xtask guests", guest.name);
        };
        for place in &places {
            let place = format!("{place}/");
            let found = bytes.windows(place.len()).any(|window| window == place.as_bytes());
            assert!(!found, "{} holds the path {place}", guest.name);
        }
    }
}
