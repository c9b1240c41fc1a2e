//! Syntax lines, one a row, and that no bytes at all make `detect` panic.

use proptest::prelude::*;

use super::*;

const BUNDLED: [&str; 2] = ["dockerfile", "steps"];

#[test]
fn syntax_lines() {
    for (text, want) in [
        ("# syntax=docker/dockerfile:1\nFROM x\n", Some("docker/dockerfile:1")),
        ("#syntax=a\n", Some("a")),
        ("#  SYNTAX \t=\t a \t\r\nFROM x\n", Some("a")),
        ("# syntax=a b c\n", Some("a")),
        ("# syntax=a", Some("a")),
        // Other directives may come first, once each.
        ("# escape=`\n# check=skip=all\n# syntax=a\n", Some("a")),
        ("# escape=`\n# escape=`\n# syntax=a\n", None),
        // The first is the one, whatever follows.
        ("# syntax=a\n# syntax=b\n", Some("a")),
        // Anything else ends the directives.
        ("# a comment\n# syntax=a\n", None),
        ("# key=value\n# syntax=a\n", None),
        ("\n# syntax=a\n", None),
        ("FROM x\n# syntax=a\n", None),
        (" # syntax=a\n", None),
        ("# syntax\n", None),
        ("# syntax=\n", None),
        ("# syntax= \t \n", None),
        ("# 1syntax=a\n", None),
        ("# syn tax=a\n", None),
        // With the mark of other languages.
        ("// syntax=a\n", Some("a")),
        ("//syntax=a b\npackage x\n", Some("a")),
        ("// escape=x\n// syntax=a\n", Some("a")),
        ("/ syntax=a\n", None),
        ("# escape=`\n// syntax=a\n", None),
        // As JSON.
        ("{\"syntax\": \"a\"}", Some("a")),
        ("\n {\"x\": [1], \"syntax\": \"a b\"}\n", Some("a")),
        ("{\"syntax\": \"\\u0061\"}", Some("a")),
        ("{\"syntax\": 1}", None),
        ("{\"syntax\": \"\"}", None),
        ("{\"x\": {\"syntax\": \"a\"}}", None),
        ("[\"syntax\"]", None),
        ("{\"syntax\": \"a\"} x", None),
        // After what is skipped.
        ("\u{feff}# syntax=a\n", Some("a")),
        ("#!/usr/bin/env wbuild\n# syntax=a\n", Some("a")),
        ("\u{feff}#!x\r\n// syntax=a\n", Some("a")),
        ("#!x\n{\"syntax\": \"a\"}\n", Some("a")),
        ("#!x\n#!y\n# syntax=a\n", None),
        ("#! syntax=a", None),
        ("", None),
        ("#", None),
        ("//", None),
    ] {
        let found = detect(text.as_bytes());
        assert_eq!(found.as_ref().map(|found| found.name.as_str()), want, "{text:?}");
        // The place is where the name is written, unless it is written with escapes.
        if let Some(found) = found.filter(|_| !text.contains("\\u")) {
            assert_eq!(text.as_bytes()[found.at], *found.name.as_bytes(), "{text:?}");
        }
    }
}

/// The frontend chosen, with `!` if there is a note; or the failure's message.
fn chosen(text: &str, argument: Option<&str>, contexts: &[(&str, ContextSpec)]) -> String {
    let contexts = contexts.iter().map(|(name, spec)| ((*name).to_owned(), spec.clone())).collect();
    let definition = Definition { name: "Dockerfile", data: text.as_bytes() };
    let known = Known { names: &BUNDLED, default: None };
    match choose(&definition, argument, &contexts, known) {
        Ok(choice) => {
            assert_eq!(
                choice.source.is_none(),
                argument.is_none() && detect(text.as_bytes()).is_none()
            );
            format!("{}{}", choice.frontend.shown(), if choice.note.is_some() { "!" } else { "" })
        }
        Err(fault) => fault.failure.message,
    }
}

#[test]
fn names_of_frontends() {
    let digest = wbuild_graph::Digest::of(b"x");
    for (name, want) in [
        ("docker/dockerfile", "dockerfile!"),
        ("docker/dockerfile:1", "dockerfile!"),
        ("docker/dockerfile:1.7-labs", "dockerfile!"),
        ("docker/dockerfile:labs", "dockerfile!"),
        ("docker.io/docker/dockerfile:1.2.3", "dockerfile!"),
        ("index.docker.io/docker/dockerfile:1", "dockerfile!"),
        (&format!("docker/dockerfile@{digest}"), "dockerfile!"),
        (&format!("docker/dockerfile:1@{digest}"), "dockerfile!"),
        ("docker/dockerfile-upstream:master", "dockerfile!"),
        ("docker/dockerfile-upstream:master-labs", "dockerfile!"),
        ("dockerfile.v0", "dockerfile"),
        ("dockerfile", "dockerfile"),
        ("steps", "steps"),
        ("stepz", "there is no frontend \"stepz\""),
        ("ghcr.io/docker/dockerfile:1", "oci://ghcr.io/docker/dockerfile:1"),
        ("oci://ghcr.io/docker/dockerfile:1", "oci://ghcr.io/docker/dockerfile:1"),
        ("docker/dockerfile-other", "oci://docker.io/docker/dockerfile-other:latest"),
        ("https://example.org/x.wasm", "there is no frontend \"https://example.org/x.wasm\""),
        ("oci://", "there is no frontend \"oci://\""),
        ("builtin:steps", "there is no frontend \"builtin:steps\""),
        ("docker/dockerfile:", "there is no frontend \"docker/dockerfile:\""),
        ("./my.wasm", "there is no frontend \"./my.wasm\""),
    ] {
        assert_eq!(chosen(&format!("# syntax={name}\n"), None, &[]), want, "{name}");
    }
    assert_eq!(chosen("FROM x\n", None, &[]), "dockerfile");
}

#[test]
fn the_argument_and_contexts_win_over_the_line() {
    let image = |name: &str| ContextSpec::Image(name.to_owned());
    let directory = ContextSpec::Local("/tmp".into());
    let line = "# syntax=example.org/other:2\n";
    for (argument, contexts, want) in [
        (Some("steps"), vec![], "steps"),
        (Some(" steps x=y "), vec![], "steps"),
        // Empty is as if it was not there.
        (Some(" "), vec![], "oci://example.org/other:2"),
        (Some("example.org/x"), vec![], "oci://example.org/x:latest"),
        (Some("x"), vec![], "there is no frontend \"x\", which BUILDKIT_SYNTAX names"),
        (None, vec![("example.org/other:2", image("docker/dockerfile:1"))], "dockerfile!"),
        (None, vec![("example.org/other:2", image("steps"))], "steps"),
        (None, vec![("example.org/other:3", image("steps"))], "oci://example.org/other:2"),
        (Some("a/b"), vec![("docker.io/a/b:latest", image("steps"))], "steps"),
        // A replacement is not replaced.
        (
            None,
            vec![("example.org/other:2", image("x")), ("x", image("steps"))],
            "there is no frontend \"x\"",
        ),
        (
            None,
            vec![("example.org/other:2", directory.clone())],
            "the build context example.org/other:2 cannot stand for the frontend example.org/other:2",
        ),
        // The main context is no frontend's.
        (
            Some("context"),
            vec![("context", directory)],
            "there is no frontend \"context\", which BUILDKIT_SYNTAX names",
        ),
    ] {
        assert_eq!(chosen(line, argument, &contexts), want, "{argument:?} {contexts:?}");
    }
}

#[test]
fn a_refusal_shows_the_line() {
    let data = b"# escape=`\n# syntax=a.b/C:1 x\n";
    let definition = Definition { name: "Dockerfile", data };
    let known = Known { names: &BUNDLED, default: None };
    let fault = choose(&definition, None, &BTreeMap::new(), known).expect_err("refused");
    let label = &fault.failure.diagnostics[0].labels[0];
    assert_eq!(&data[label.at.start as usize..label.at.end as usize], b"a.b/C:1");
    assert_eq!(fault.sources.get(label.at.source).expect("registered").name, "Dockerfile");
    let hints = fault.failure.hints.join("\n");
    assert!(hints.contains("lower case") && hints.contains("--frontend dockerfile"), "{hints}");
}

proptest! {
    #[test]
    fn any_bytes_are_looked_at(
        data in prop::collection::vec(
            prop_oneof![
                Just(b"# syntax=".to_vec()), Just(b"//".to_vec()), Just(b"\n".to_vec()),
                Just(b"\xef\xbb\xbf".to_vec()), Just(b"#!".to_vec()), Just(b"{\"syntax\":\"".to_vec()),
                Just(b"\"}".to_vec()), Just(b" = ".to_vec()), Just(b"check".to_vec()),
                prop::collection::vec(any::<u8>(), 0..6),
            ],
            0..12,
        )
    ) {
        let data = data.concat();
        if let Some(found) = detect(&data) {
            prop_assert!(!found.name.is_empty() && !found.name.contains(' '));
            prop_assert!(found.at.start <= found.at.end && found.at.end <= data.len());
        }
        let definition = Definition { name: "d", data: &data };
        let known = Known { names: &BUNDLED, default: None };
        let _ = choose(&definition, None, &BTreeMap::new(), known);
    }
}
