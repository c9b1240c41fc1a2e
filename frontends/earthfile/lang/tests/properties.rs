//! Properties that hold for any input.

mod support;

use proptest::prelude::*;
use support::common::IMAGE;
use support::common::recorder::Recorder;
use support::dump::{dump, without_places};
use support::world;
use wbuild_earthfile::{describe, parse, print};

/// Text that is likely to come near the rules.
fn earthfile_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "VERSION 0.8\n",
        "VERSION --try 0.8\n",
        "FROM alpine\n",
        "FROM +a --B=c\n",
        "a:\n",
        "\nbuild:\n",
        "FN:\n    FUNCTION\n",
        "    ",
        "    RUN make\n",
        "    RUN ",
        "    COPY ",
        "    COPY (+a/b --C=d) e\n",
        "    SAVE ARTIFACT a AS LOCAL b\n",
        "    SAVE IMAGE a b\n",
        "    IF [ -f a ]\n",
        "    ELSE\n",
        "    ELSE IF true\n",
        "    END\n",
        "    FOR x IN a b\n",
        "    WAIT\n",
        "    TRY\n",
        "    FINALLY\n",
        "    WITH DOCKER --load=a=(+b --c=d)\n",
        "    BUILD +a --x=$(y z)\n",
        "    ARG a = b\n",
        "    LET a=\"b\"\n",
        "    RUN $a ${b:-c} '$d'\n",
        "    COPY $HOME/$x +a/*.c y\n",
        "    SET a=b\n",
        "    ENV a b\n",
        "    LABEL a=b c = d\n",
        "    DO +FN --a=b\n",
        "    IMPORT ./x AS y\n",
        "    CACHE /x\n",
        "    HOST a 1.2.3.4\n",
        "    CMD [\"a\"]\n",
        "    RUN --mount=type=cache,target=/x --secret A=b -- c\n",
        "# a note\n",
        "    # a note\n",
        " # behind",
        "\\\n",
        "\\",
        "\"",
        "'",
        "$(",
        ")",
        "(",
        "a",
        "b=c",
        " ",
        "\t",
        "\n",
        "\r\n",
        "ü",
        "\u{feff}",
        "+",
        "--",
        "=",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn check(bytes: &[u8]) {
    let parsed = parse(0, bytes);
    for label in parsed.problems.iter().flat_map(|problem| &problem.labels) {
        let (start, end) = (label.at.start, label.at.end);
        assert!(start <= end && end as usize <= bytes.len(), "{label:?}");
    }
    if parsed.failed() {
        return;
    }
    let printed = print(&parsed.file);
    // An escaped blank at the end of a word cannot be printed last: there it continues the line.
    let continued = |line: &str| line.trim_end() != line && line.trim_end().ends_with('\\');
    if printed.lines().any(continued) {
        return;
    }
    let again = parse(0, printed.as_bytes());
    assert!(!again.failed(), "{printed}\n{:?}", again.problems);
    assert_eq!(
        without_places(&dump(&again.file)),
        without_places(&dump(&parsed.file)),
        "{printed}"
    );
    assert_eq!(print(&again.file), printed);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&bytes);
    }

    #[test]
    fn what_looks_like_a_file(text in earthfile_like()) {
        check(text.as_bytes());
        check(format!("VERSION --try 0.8\nFROM a\nb:\n{text}").as_bytes());
    }

    #[test]
    fn building_never_panics_and_is_deterministic(text in earthfile_like()) {
        let request = format!("image * {IMAGE}\ntarget b\noutcome 0 [ -f a ]\noutcome 1 true\noutcome 0 y z => w\n");
        let text = format!("VERSION --try 0.8\nFROM x\na:\n    SAVE ARTIFACT a\nb:\n{text}").into_bytes();
        prop_assert_eq!(world::run(text.clone(), &request), world::run(text, &request));
    }

    #[test]
    fn checks_never_panic_and_are_deterministic(text in earthfile_like()) {
        let text = format!("# check=experimental=all\nVERSION --try 0.7\nFROM $x\na:\n    ENV a=$b\nb:\n{text}");
        let asked = || {
            let mut recorder = Recorder::new(text.clone().into_bytes(), "target b");
            recorder.attempt(|recorder| {
                describe::check(recorder, None)?;
                describe::check(recorder, Some("b"))?;
                describe::parameters(recorder, Some("b")).map(drop)
            });
            recorder.out
        };
        prop_assert_eq!(asked(), asked());
    }

    #[test]
    fn a_line(text in "[a $()'\"\\\\#=+\n-]{0,60}") {
        check(format!("VERSION 0.8\na:\n    RUN {text}\n").as_bytes());
        check(format!("VERSION 0.8\na:\n    LET a = {text}\n").as_bytes());
        check(format!("VERSION 0.8\na:\n    COPY {text}\n").as_bytes());
    }
}
