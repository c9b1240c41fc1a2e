//! Golden tests, a folder a case: `lower` (the graph and the images that a document becomes), `errors`
//! (what is said of one that cannot be built), `describe` (its targets, and what one takes).
//!
//! Each folder holds `wbuild.yaml` and `expect.txt`; `request.txt` is what the caller asks for and what
//! images there are. `UPDATE=1` rewrites what is expected. Every case of `errors` has a twin, nearly
//! the same document without the mistake, that must succeed: `right`.

mod support;

use std::path::Path;

use support::common::recorder::Recorder;
use support::common::{IMAGE, cases, check_golden, compare, finish};
use support::reference;

fn recorder(text: Vec<u8>, request: &str) -> Recorder {
    let images = ["alpine", "golang"].map(|name| format!("image {name} {IMAGE}\n")).concat();
    let mut recorder = Recorder::new(text, &(images + request));
    recorder.file_name = Some("wbuild.yaml");
    recorder
}

fn read(case: &Path, name: &str) -> Option<Vec<u8>> {
    std::fs::read(case.join(name)).ok()
}

fn of_case(case: &Path, name: &str) -> Recorder {
    let text = read(case, name).unwrap_or_else(|| panic!("{} has no {name}", case.display()));
    let request = String::from_utf8(read(case, "request.txt").unwrap_or_default()).expect("text");
    recorder(text, &request)
}

fn golden(kind: &str, fine: bool) {
    let mut failed = Vec::new();
    for case in cases(kind) {
        let mut recorder = of_case(&case, "wbuild.yaml");
        let built = recorder.attempt(|recorder| wbuild_yaml::build(recorder));
        if built != fine {
            failed.push(format!("{}: {}", case.display(), recorder.out));
            continue;
        }
        compare(&case, &recorder.out, &mut failed);
    }
    finish(failed);
}

#[test]
fn lower() {
    golden("lower", true);
}

#[test]
fn errors() {
    golden("errors", false);
}

#[test]
fn errors_have_twins_that_build() {
    let mut failed = Vec::new();
    for case in cases("errors") {
        let mut twin = of_case(&case, "right");
        if !twin.attempt(|recorder| wbuild_yaml::build(recorder)) {
            failed.push(format!("{}: {}", case.display(), twin.out));
        }
    }
    finish(failed);
}

#[test]
fn describe() {
    let mut failed = Vec::new();
    for case in cases("describe") {
        let mut recorder = of_case(&case, "wbuild.yaml");
        recorder.quiet = true;
        let target = recorder.targets.first().cloned();
        recorder.attempt(|recorder| {
            let targets = wbuild_yaml::targets(recorder)?;
            let parameters = wbuild_yaml::parameters(recorder, target.as_deref())?;
            recorder.quiet = false;
            for target in targets {
                let default = if target.is_default { " (default)" } else { "" };
                recorder.say(format!("target {}{default} {:?}", target.name, target.summary));
            }
            for parameter in parameters {
                let required = if parameter.required { " (required)" } else { "" };
                let (kind, name, value) = (parameter.kind, &parameter.name, &parameter.default);
                recorder.say(format!("{kind} {name} = {value:?}{required}"));
            }
            wbuild_yaml::check(recorder, None)
        });
        compare(&case, &recorder.out, &mut failed);
    }
    finish(failed);
}

/// JSON is YAML, whatever the order of its keys: the same document in both becomes the same.
#[test]
fn json_is_the_same() {
    let yaml = "stages:\n  b:\n    from: a\n    steps:\n      - run: make\n  a:\n    from: alpine\n    env: {A: 1}\n";
    let json = r#"{"stages":{"a":{"env":{"A":1},"from":"alpine"},"b":{"steps":[{"run":"make"}],"from":"a"}}}"#;
    let graph = |text: &str| {
        let mut recorder = recorder(text.as_bytes().to_vec(), "target b\n");
        assert!(recorder.attempt(|recorder| wbuild_yaml::build(recorder)), "{}", recorder.out);
        // All but the lines that say where things stand.
        let lines = recorder.out.lines().filter(|line| !line.trim_start().starts_with('#'));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(graph(yaml), graph(json));
}

/// The page and the JSON Schema are made of the table that documents are checked by.
#[test]
fn page_and_schema_are_those_of_the_code() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut failed = Vec::new();
    let schema = serde_json::to_string_pretty(&reference::schema()).expect("JSON") + "\n";
    check_golden(&docs.join("wbuild.schema.json"), &schema, &mut failed);
    let page = docs.join("yaml.md");
    let text = std::fs::read_to_string(&page).expect("the page");
    let (above, _) = text.split_once("## Keys\n").expect("a section about keys");
    check_golden(&page, &format!("{above}## Keys\n\n{}", reference::page()), &mut failed);
    finish(failed);
}

/// The examples of the page are builds.
#[test]
fn examples_of_the_page_build() {
    let page = include_str!("../../docs/yaml.md");
    let blocks: Vec<&str> = page
        .split("```yaml\n")
        .skip(1)
        .filter_map(|b| b.split_once("```"))
        .map(|(b, _)| b)
        .collect();
    assert!(blocks.len() >= 2);
    for block in blocks {
        let mut recorder = recorder(block.as_bytes().to_vec(), &format!("image * {IMAGE}\n"));
        assert!(
            recorder.attempt(|recorder| wbuild_yaml::build(recorder)),
            "{block}\n{}",
            recorder.out
        );
    }
}

/// What is nested, repeated or large ends in an error and in no time.
#[test]
fn bombs_are_refused() {
    let mut laughs = String::from("x-0: &a0 [a, a, a, a, a, a, a, a, a, a]\n");
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        let list = [alias.as_str(); 10].join(", ");
        laughs += &format!("x-{level}: &a{level} [{list}]\n");
    }
    laughs += "stages: {a: {}}\n";
    let deep_flow = format!("stages: {}", "[".repeat(10_000));
    let deep_block: String = (0..2_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let long = format!("stages: {{a: {{}}}}\n#{}", "x".repeat(5 << 20));
    let many: String = (0..110_000).map(|n| format!("x-{n}: 1\n")).collect();
    let itself = "x-a: &a [*a]\nstages: {a: {}}\n".to_owned();
    let half = "stages: {a: {steps: [{run: \"".to_owned();
    for (name, text) in [
        ("laughs", laughs),
        ("deep flow", deep_flow),
        ("deep block", deep_block),
        ("long", long),
        ("many", many),
        ("itself", itself),
        ("half", half),
    ] {
        let mut recorder = recorder(text.into_bytes(), "");
        let built = recorder.attempt(|recorder| wbuild_yaml::build(recorder));
        assert!(!built, "{name}");
        let codes: Vec<_> = recorder.diagnostics.iter().map(|d| d.code.to_string()).collect();
        assert!(codes.iter().all(|c| c == "too-large" || c == "invalid-yaml"), "{name}: {codes:?}");
    }
}

/// Whatever a document holds, it is read or refused.
#[test]
fn no_document_is_too_strange() {
    let pieces = [
        "stages", ":", " ", "\n", "- ", "{", "}", "[", "]", "&a ", "*a", "<<: ", "'", "\"", "|\n ",
        "é", "\t", "? ", "run", "#", "---\n", "!t ", "~", ",",
    ];
    let mut seed = 1_u64;
    for _ in 0..3_000 {
        let mut text = String::new();
        for _ in 0..24 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text += pieces[(seed >> 33) as usize % pieces.len()];
        }
        let mut recorder = recorder(text.into_bytes(), "");
        recorder.attempt(|recorder| wbuild_yaml::build(recorder));
    }
}
