//! What plans look like, and that the page about them says so. `WBUILD_BLESS=1` writes what is there.

mod graphs;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wbuild_plan::{Plan, dot, text};

fn at(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn golden(name: &str, got: &str) {
    let path = at("tests/cases").join(name);
    if std::env::var_os("WBUILD_BLESS").is_some() {
        std::fs::write(&path, got).expect("write");
        return;
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(got, want, "{}; WBUILD_BLESS=1 accepts it", path.display());
}

#[test]
fn every_field_in_every_form() {
    let (plan, definition, sources) = graphs::everything();
    let json = plan.to_json();
    golden("everything.json", &json);
    golden("everything.dot", &dot::render(&plan));
    golden("everything.txt", &text::render(&plan, &definition, &sources));
    assert_eq!(Plan::from_json(json.as_bytes()), Ok(plan.clone()), "it is read as it was written");
    let needed = plan.clone().only_needed();
    assert_eq!((plan.nodes.len(), needed.nodes.len()), (10, 6));
    assert_eq!(Plan::from_json(needed.to_json().as_bytes()), Ok(needed));
}

/// The keys of all objects but those whose keys are not ours.
fn keys(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| keys(value, out)),
        Value::Object(object) => {
            for (key, value) in object {
                out.insert(key.clone());
                if key != "config" {
                    keys(value, out);
                }
            }
        }
        _ => {}
    }
}

#[test]
fn the_page_names_every_key_and_no_other() {
    let page = std::fs::read_to_string(at("docs/plan.md")).expect("page");
    let said: BTreeSet<String> = page
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| `")?.split_once("` |").map(|(name, _)| name.to_owned())
        })
        .collect();
    let mut there = BTreeSet::new();
    keys(&serde_json::to_value(graphs::everything().0).expect("JSON"), &mut there);
    assert_eq!(said, there);
    assert!(page.contains(&format!("version {}", wbuild_plan::VERSION)));
}

#[test]
fn what_is_no_plan_is_refused() {
    let (plan, ..) = graphs::everything();
    let good = serde_json::to_value(&plan).expect("JSON");
    type Spoil = fn(&mut Value);
    let cases: [(&str, Spoil); 7] = [
        ("version 2", |plan| plan["version"] = 2.into()),
        ("no plan", |plan| plan["nodes"][0]["colour"] = "red".into()),
        ("no plan", |plan| plan["nodes"][0]["digest"] = "md5:1".into()),
        ("is not in order", |plan| plan["nodes"][1]["id"] = 0.into()),
        ("which is not there", |plan| plan["nodes"][5]["inputs"][0]["node"] = 5.into()),
        ("which is not there", |plan| plan["results"]["images"][0]["root"]["node"] = 99.into()),
        ("no plan", |plan| *plan = Value::Null),
    ];
    for (message, spoil) in cases {
        let mut bad = good.clone();
        spoil(&mut bad);
        let failure = Plan::from_json(bad.to_string().as_bytes()).expect_err(message);
        assert!(failure.to_string().contains(message), "{message}: {failure}");
    }
}

#[test]
fn differences() {
    let mut cases: Vec<_> = std::fs::read_dir(at("tests/cases/diff"))
        .expect("cases")
        .map(|entry| entry.expect("entry").path())
        .collect();
    cases.sort();
    assert!(cases.len() >= 10);
    for case in cases {
        let name = case.file_name().expect("name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&case).expect("case");
        let (given, _) = text.split_once("=== expect\n").unwrap_or((&text, ""));
        let (old, new) = given.split_once("=== new\n").expect("two graphs");
        let old = graphs::read(old.strip_prefix("=== old\n").expect("old"));
        let new = graphs::read(new);
        let difference = wbuild_plan::diff::compare(old.clone(), new);
        let rendered = wbuild_plan::diff::render(&difference);
        assert_eq!(rendered.is_empty(), difference.is_empty(), "{name}");
        golden(&format!("diff/{name}"), &format!("{given}=== expect\n{rendered}"));
        let same = wbuild_plan::diff::compare(old.clone(), old);
        assert!(same.is_empty() && same.frontend.is_empty(), "{name}: {same:?}");
    }
}
