//! Nothing is said that no test has seen: every code has a case, and so has every sentence.
//!
//! The sentences are found in the sources of the crate: string literals that hold words. Each must
//! stand in a golden file, its placeholders filled in.

mod support;

use std::path::Path;

use support::literals::{Literal, literals};
use wbuild_dockerfile::Code;

/// What no golden can hold, with the reason.
const UNSEEN: [(&str, &str); 5] = [
    ("the host did not answer for every image", "only a host that breaks its contract is told so"),
    ("the definition cannot be built", "there is always an error that says why"),
    ("this is not closed by `{stop}`", "said of the `${` that is open instead"),
    ("this is not closed by `}`", "likewise"),
    ("is not closed by `}`", "likewise"),
];

/// The text of all files of this name below a folder, or of this ending.
fn texts(folder: &Path, ending: &str, out: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            texts(&path, ending, out);
        } else if path.to_string_lossy().ends_with(ending) {
            let text = std::fs::read_to_string(&path).expect("the file can be read");
            out.push((path.display().to_string(), text));
        }
    }
}

fn goldens() -> Vec<String> {
    let mut out = Vec::new();
    texts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), "expect.txt", &mut out);
    out.iter().flat_map(|(_, text)| text.lines().map(str::to_owned)).collect()
}

#[test]
fn every_code_has_a_case() {
    let goldens = goldens();
    let seen = |code: &Code| {
        let shown = format!("[{}]: ", code.name());
        goldens.iter().any(|line| line.contains(&shown))
    };
    let unseen: Vec<&str> =
        Code::ALL.iter().filter(|code| !seen(code)).map(|code| code.name()).collect();
    assert!(unseen.is_empty(), "no case in tests/errors shows {unseen:?}");
}

#[test]
fn every_sentence_has_a_case() {
    let goldens = goldens();
    let mut sources = Vec::new();
    texts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), ".rs", &mut sources);
    let mut unseen = Vec::new();
    // Pages have a test of their own.
    for (file, source) in sources.iter().filter(|(file, _)| !file.contains("/catalogue/")) {
        for Literal { line, text } in literals(source) {
            let pieces = pieces(&text);
            let words = pieces.iter().flat_map(|piece| piece.split_whitespace());
            let words = words.filter(|word| word.chars().filter(|c| c.is_alphabetic()).count() > 1);
            let excused = UNSEEN.iter().any(|(known, _)| *known == text);
            let shown = |line: &String| line.contains(&text) || holds(line, &pieces);
            if words.count() < 3 || excused || goldens.iter().any(shown) {
                continue;
            }
            unseen.push(format!("{file}:{line}: {text}"));
        }
    }
    assert!(unseen.is_empty(), "no golden file shows\n{}", unseen.join("\n"));
}

/// A text without its placeholders.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' if chars.next_if_eq(&'{').is_none() => {
                chars.by_ref().find(|c| *c == '}');
                pieces.push(String::new());
            }
            '}' => drop(chars.next_if_eq(&'}')),
            _ => pieces.last_mut().expect("there is one").push(c),
        }
    }
    pieces
}

/// Whether a line holds all pieces, in order.
fn holds(line: &str, pieces: &[String]) -> bool {
    let mut rest = line;
    pieces.iter().all(|piece| match rest.find(piece.as_str()) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}
