//! `--check` and `--call` with the bundled frontend. Nothing is built, so no step need be able to run.

mod common;

use common::project::{Project, streams};
use serde_json::Value;

const DOUBTFUL: &str = "\
# base holds the text
FROM scratch as base
COPY notes.md /

FROM base AS app
# VERSION of the program
ARG VERSION=1
ENV NAME $VERSION$VERSON
RUN --mount=type=secret,id=token,required=true ./app
";

fn doubtful() -> Project {
    let project = Project::new();
    project.write("Dockerfile", DOUBTFUL);
    project.write(".dockerignore", "*.md\n");
    project
}

fn json(project: &Project, args: &[&str], code: i32) -> Value {
    let output = project.run(args);
    let (out, err) = streams(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}{err}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}\n{out}"))
}

#[test]
fn a_check_names_what_is_doubtful_and_where() {
    let project = doubtful();
    let report = json(&project, &["build", "--call=check,format=json", "."], 1);
    let warnings = report["warnings"].as_array().expect("warnings");
    let found: Vec<(&str, u64, u64)> = warnings
        .iter()
        .map(|warning| {
            let start = &warning["location"]["ranges"][0]["start"];
            let number = |name: &str| start[name].as_u64().expect("a number");
            let rule = warning["ruleName"].as_str().expect("a name");
            assert!(!warning["description"].as_str().unwrap_or_default().is_empty(), "{warning}");
            (rule, number("line"), number("character"))
        })
        .collect();
    assert_eq!(
        found,
        [
            ("FromAsCasing", 2, 13),
            ("CopyIgnoredFile", 3, 5),
            ("LegacyKeyValueFormat", 8, 4),
            ("UndefinedVar", 8, 17),
        ]
    );

    let output = project.run(&["build", "--check", "."]);
    let (text, _) = streams(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("Dockerfile: 4 warnings found\n"), "{text}");
    assert!(text.contains("did you mean `VERSION`?"), "{text}");

    let (text, _) = project.good(&[
        "build",
        "--check",
        "--target=base",
        "--build-arg",
        "BUILDKIT_DOCKERFILE_CHECK=skip=FromAsCasing,CopyIgnoredFile",
        ".",
    ]);
    assert_eq!(text, "Dockerfile: no warnings found\n");
}

#[test]
fn findings_can_be_made_errors() {
    let project = Project::new();
    project.write("Dockerfile", "# check=error=true\nFROM scratch as x\n");
    for args in [&["build", "."][..], &["build", "--check", "."]] {
        let output = project.run(args);
        let (out, err) = streams(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}\n{out}{err}");
        assert!((out + &err).contains("FromAsCasing"), "{args:?}\n{err}");
        assert!(err.contains("makes findings errors"), "{args:?}\n{err}");
    }
}

#[test]
fn a_check_says_what_keeps_a_file_from_being_built() {
    let project = Project::new();
    project.write("Dockerfile", "FROM scratch as x\nFROM localhost:1/nothing\n");
    let report = json(&project, &["build", "--call=check,format=json", "."], 1);
    assert_eq!(report["warnings"][0]["ruleName"], "FromAsCasing", "{report}");
    assert_eq!(report["buildError"]["location"]["ranges"][0]["start"]["line"], 2, "{report}");
}

#[test]
fn targets_and_what_they_take() {
    let project = doubtful();
    let report = json(&project, &["build", "--call=targets,format=json", "."], 0);
    let targets = report["targets"].as_array().expect("targets");
    let shown: Vec<String> = targets
        .iter()
        .map(|target| {
            let text = |name: &str| target[name].as_str().unwrap_or_default();
            format!("{} {} {:?}", text("name"), text("base"), text("description"))
        })
        .collect();
    assert_eq!(shown, ["base scratch \"holds the text\"", "app base \"\""]);
    assert_eq!(targets[1]["default"], true, "{report}");

    let outline = json(&project, &["build", "--call=outline,format=json", "."], 0);
    assert_eq!(outline["name"], "app", "{outline}");
    assert_eq!(outline["args"][0]["name"], "VERSION", "{outline}");
    assert_eq!(outline["args"][0]["value"], "1", "{outline}");
    assert_eq!(outline["args"][0]["description"], "of the program", "{outline}");
    assert_eq!(outline["secrets"][0]["name"], "token", "{outline}");
    assert_eq!(outline["secrets"][0]["required"], true, "{outline}");
}

#[test]
fn rules_are_listed() {
    let project = Project::new();
    let rules = json(&project, &["build", "--call=rules,format=json", "."], 0);
    let known = rules.as_array().expect("a list");
    assert_eq!(known.len(), 22);
    assert!(known.iter().any(|rule| rule["name"] == "UndefinedVar"), "{rules}");
    let error = project.bad(&["build", "--call=rulse", "."], 1);
    assert!(error.contains("did you mean rules?"), "{error}");
}
