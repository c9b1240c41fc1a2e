//! `wbuild plan` and `wbuild plan diff` as users run them. Nothing is run, so no container runtime is
//! needed and no root.

mod common;

use common::project::{Project, streams};
use serde_json::Value;

fn plan(project: &Project, args: &[&str]) -> Value {
    let args: Vec<&str> = [&["plan", "-q", "--format", "json"], args].concat();
    serde_json::from_str(&project.good(&args).0).expect("JSON")
}

#[test]
fn a_plan_builds_nothing_and_says_all() {
    let project = Project::new();
    project.write(
        "Dockerfile",
        "FROM scratch AS build\nCOPY src /src\nRUN --mount=type=secret,id=k [\"/never\"]\n\
         FROM scratch AS unused\nCOPY src /unused\nFROM scratch\nCOPY --from=build /src /src\n",
    );
    let (text, _) = project.good(&["plan", "-q", "."]);
    for part in
        ["RUN --mount=type=secret", "args [\"/never\"]", "spans Dockerfile:3", "image linux/"]
    {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    assert!(!text.contains("unused"), "no result needs it:\n{text}");
    let (dot, _) = project.good(&["plan", "-q", "--format=dot", "."]);
    assert!(dot.starts_with("digraph") && dot.ends_with("}\n"), "{dot}");
    let seen = plan(&project, &["."]);
    assert_eq!(seen["frontend"]["name"], "dockerfile");
    assert_eq!(seen["nodes"][2]["spans"][0]["line"], 3, "{seen}");
    let all = plan(&project, &["--all", "--target=unused", "."]);
    assert!(all["nodes"].as_array().is_some_and(|nodes| nodes.len() >= 2), "{all}");
}

/// The same bytes from the frontend and from its trace, in another place, for another process.
#[test]
fn the_same_inputs_give_the_same_bytes() {
    let (one, other) = (Project::new(), Project::new());
    let args = ["plan", "-q", "--format", "json", "--stats", "."];
    let (first, err) = one.good(&args);
    assert!(err.contains("frontend      run,"), "{err}");
    let (again, err) = one.good(&args);
    assert!(err.contains("not run, nothing it read has changed"), "{err}");
    let (elsewhere, _) = other.good(&args);
    assert_eq!(first, again);
    assert_eq!(first, elsewhere);
}

#[test]
fn outputs_are_not_written_and_what_makes_no_sense_is_refused() {
    let project = Project::new();
    project.good(&["plan", "-q", "-o", "out", "-t", "x", "."]);
    assert!(!project.path("out").exists());
    for args in [&["plan", "--check", "."][..], &["plan", "--iidfile", "x", "."]] {
        project.bad(args, 2);
    }
    project.write("Dockerfile", "FROM scratch\nCOPPY a b\n");
    let err = project.bad(&["plan", "."], 1);
    assert!(err.contains("COPPY"), "{err}");
}

#[test]
fn differences_have_a_status() {
    let project = Project::new();
    let (old, _) = project.good(&["plan", "-q", "--format", "json", "."]);
    project.write("old.json", &old);
    assert_eq!(project.good(&["plan", "diff", "old.json", "."]).0, "");
    project.write("new.Dockerfile", "FROM scratch\nCOPY src /other\nLABEL a=b\n");
    let output = project.run(&["plan", "diff", "old.json", "new.Dockerfile"]);
    let (out, _) = streams(&output);
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(out.contains("COPY src /other  (new.Dockerfile:2)"), "{out}");
    assert!(out.contains("\"/src\" is now \"/other\""), "{out}");
    let output = project.run(&["plan", "diff", "--json", "old.json", "new.Dockerfile"]);
    let seen: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(seen["changed"].as_array().map(Vec::len), Some(1), "{seen}");

    project.write("Broken", "FROM\n");
    project.write("later.json", &old.replacen("\"version\": 1", "\"version\": 9", 1));
    for (name, said) in
        [("none", "cannot read the plan none"), ("later.json", "version 9"), ("Broken", "FROM")]
    {
        let err = project.bad(&["plan", "diff", "old.json", name], 2);
        assert!(err.contains(said), "{name}: {err}");
    }
}
