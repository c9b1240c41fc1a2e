//! Properties that hold for any input.

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use support::recorder::Recorder;
use wbuild_dockerfile::expand::{Options, expand};
use wbuild_dockerfile::{Failure, Span, describe, parse, parse_ignore, parse_trigger};

/// Text that is likely to come near the rules.
fn dockerfile_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "FROM ",
        "RUN ",
        "COPY ",
        "ADD ",
        "ENV ",
        "ARG ",
        "LABEL ",
        "CMD ",
        "ONBUILD ",
        "HEALTHCHECK ",
        "EXPOSE ",
        "VOLUME ",
        "SHELL ",
        "WORKDIR ",
        "USER ",
        "a",
        "b=c",
        "--mount=type=cache,target=/x",
        "--mount=",
        "--from=",
        "FROM scratch\n",
        "\nCOPY --from= a b\n",
        "\nRUN --mount=type=bind,from=,target=/x a\n",
        "\nCOPY --from=0 / /\n",
        "--link",
        "--",
        "\\",
        "\\\n",
        "`\n",
        "\n",
        "\r\n",
        "#",
        "# escape=`\n",
        "# check=skip=all;",
        "<<EOF",
        "<<-\"E F\"",
        "<< EOF",
        "EOF\n",
        "\t",
        " ",
        "\"",
        "'",
        "[\"a\", \"b\"]",
        "[",
        "]",
        "$a",
        "${a",
        "}",
        "${a:-",
        "${a/",
        "=",
        ",",
        "AS ",
        "ü",
        "\u{feff}",
        "\u{a0}",
        "CMD",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn check_spans(problems: &[wbuild_dockerfile::Diagnostic], length: usize) {
    for problem in problems {
        for label in &problem.labels {
            let Span { start, end, .. } = label.at;
            assert!(start <= end && end as usize <= length, "{problem:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check_spans(&parse(0, &bytes).problems, bytes.len());
        let _ = parse_ignore(0, &bytes);
    }

    #[test]
    fn parsing_what_looks_like_a_file_never_panics(text in dockerfile_like()) {
        let parsed = parse(0, text.as_bytes());
        check_spans(&parsed.problems, text.len());
        for stage in &parsed.file.stages {
            prop_assert!(stage.span.start <= stage.span.end && stage.span.end as usize <= text.len());
            for instruction in &stage.instructions {
                let span = instruction.span;
                prop_assert!(span.start <= span.end && span.end as usize <= text.len());
            }
        }
        let _ = parse_trigger(0, &text);
    }

    #[test]
    fn building_never_panics_and_is_deterministic(text in dockerfile_like()) {
        let text = format!("FROM scratch AS a\n{text}").into_bytes();
        let request = "image a {\"os\":\"linux\",\"rootfs\":{\"diff_ids\":[\"1\"]}}";
        let build = || Recorder::new(text.clone(), request).run();
        prop_assert_eq!(build(), build());
    }

    #[test]
    fn a_check_finds_what_a_build_finds(text in dockerfile_like()) {
        let text = format!("FROM scratch AS a\n{text}").into_bytes();
        let request = "image a {\"os\":\"linux\",\"rootfs\":{\"diff_ids\":[\"1\"]}}";
        let report = |work: &dyn Fn(&mut Recorder) -> Result<(), Failure>| {
            let mut recorder = Recorder::new(text.clone(), request);
            recorder.quiet = true;
            recorder.attempt(|recorder| work(recorder));
            recorder.out
        };
        let checked = report(&|recorder| describe::check(recorder, None));
        let built = report(&|recorder| wbuild_dockerfile::build(recorder));
        // What a build does not need may end a check before it comes to what the build needs.
        if !checked.contains("failed (") {
            for finding in built.split("\n\n").filter(|part| part.starts_with("warning[")) {
                prop_assert!(checked.contains(finding), "not found: {finding}");
            }
        }
        report(&|recorder| describe::targets(recorder).map(drop));
        report(&|recorder| describe::parameters(recorder, None).map(drop));
    }

    #[test]
    fn expanding_never_panics(word in "[$a-c{}:/#%?*'\"\\\\`! +=-]{0,40}") {
        let env = BTreeMap::from([("a".to_owned(), "x y/z".to_owned()), ("b".to_owned(), String::new())]);
        for options in [Options::word('\\'), Options::word('`'), Options::heredoc(), Options::display('\\')] {
            if let Err(error) = expand(&word, options, &env) {
                prop_assert!(error.at.start <= error.at.end && error.at.end <= word.len());
                prop_assert!(word.is_char_boundary(error.at.start) && word.is_char_boundary(error.at.end));
            }
        }
    }

    #[test]
    fn a_word_without_special_characters_stays(word in "[a-zA-Z0-9_./ü -]{0,30}") {
        let expanded = expand(&word, Options::word('\\'), &BTreeMap::new()).expect("nothing to expand");
        prop_assert_eq!(expanded.text, word);
    }

    #[test]
    fn a_quoted_word_stays(word in "[^'\\x00]{0,30}") {
        let quoted = format!("'{word}'");
        let expanded = expand(&quoted, Options::word('\\'), &BTreeMap::new()).expect("quoted");
        prop_assert_eq!(expanded.text, word);
    }
}
