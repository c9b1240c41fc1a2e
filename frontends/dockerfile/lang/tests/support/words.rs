//! Cases of the expander: `words.txt` of a folder as `expect.txt` shows it.
//!
//! The lines up to the first empty one say how words are read: `env NAME=VALUE`, `escape CHARACTER`
//! and `reading word|heredoc|display`. Each further line is a word, a line that starts with `;` a
//! remark. `¶` stands for a line end, in words, values and results.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use wbuild_dockerfile::expand::{Options, expand};

/// Every word followed by what becomes of it.
pub fn expanded(file: &str) -> String {
    let (head, words) = file.split_once("\n\n").expect("an empty line stands above the words");
    let mut env = BTreeMap::new();
    let mut escape = '\\';
    let mut reading: fn(char) -> Options = Options::word;
    for line in head.lines() {
        match line.split_once(' ').expect("a setting and its value") {
            ("env", pair) => {
                let (name, value) = pair.split_once('=').expect("name=value");
                env.insert(name.to_owned(), value.replace('¶', "\n"));
            }
            ("escape", value) => escape = value.parse().expect("one character"),
            ("reading", "word") => reading = Options::word,
            ("reading", "heredoc") => reading = |_| Options::heredoc(),
            ("reading", "display") => reading = Options::display,
            other => panic!("unknown setting {other:?}"),
        }
    }
    let mut out = String::new();
    let mut say = |text: String| writeln!(out, "{text}").expect("a String takes all");
    for line in words.lines().filter(|line| !line.is_empty()) {
        say(line.to_owned());
        if line.starts_with(';') {
            continue;
        }
        let word = line.replace('¶', "\n");
        let shown = |text: &str| format!("[{}]", text.replace('\n', "¶"));
        match expand(&word, Options { split: true, ..reading(escape) }, &env) {
            Ok(got) => {
                say(format!("  = {}", shown(&got.text)));
                // Mostly the text is one word, or nothing.
                let whole: Vec<String> =
                    Some(got.text).filter(|text| !text.is_empty()).into_iter().collect();
                if got.words != whole {
                    let words: Vec<String> = got.words.iter().map(|word| shown(word)).collect();
                    say(format!("  words {}", words.join(" ")));
                }
                if !got.used.is_empty() {
                    say(format!("  used {}", got.used.into_iter().collect::<Vec<_>>().join(" ")));
                }
                for (name, at) in got.unset {
                    say(format!("  unset {name} in {}", shown(&word[at])));
                }
            }
            Err(error) => {
                say(format!("  error at {}: {}", shown(&word[error.at]), error.message));
                if let Some(help) = error.help {
                    say(format!("  help: {help}"));
                }
            }
        }
    }
    out
}
