//! Expanding words.

use std::collections::BTreeMap;

use wbuild_dockerfile::expand::{Options, expand};

use crate::seeds;

/// The first byte chooses how the word is read. Then comes the word, and after a NUL byte each the
/// variables, `name=value`.
pub fn check(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let Ok(rest) = std::str::from_utf8(rest) else { return };
    let split = |escape| Options { split: true, ..Options::word(escape) };
    let options = [
        split('\\'),
        split('`'),
        Options::heredoc(),
        Options::display('\\'),
        Options::display('`'),
    ][usize::from(choice % 5)];
    let mut parts = rest.split('\0');
    let word = parts.next().unwrap_or_default();
    let env: BTreeMap<String, String> = parts
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let result = expand(word, options, &env);
    assert_eq!(result, expand(word, options, &env), "it differs each time");
    let special = |c| matches!(c, '$' | '\'' | '"') || c == options.escape;
    match result {
        Err(error) => {
            assert!(word.contains(special), "{word:?} failed with nothing to expand");
            assert!(!error.message.is_empty());
            assert!(error.at.start <= error.at.end && error.at.end <= word.len(), "{error:?}");
            assert!(word.is_char_boundary(error.at.start), "{error:?}");
            assert!(word.is_char_boundary(error.at.end), "{error:?}");
        }
        Ok(expansion) => {
            for name in &expansion.used {
                assert!(env.contains_key(name), "{name} is not set but was used");
            }
            for (name, at) in &expansion.unset {
                assert!(!env.contains_key(name), "{name} is set");
                assert!(
                    word[at.clone()].contains(name.as_str()),
                    "{name} does not stand at {at:?}"
                );
            }
            assert!(expansion.words.iter().all(|word| !word.is_empty()));
            // Only white space between the words is lost.
            let mut joined: Vec<char> = expansion.words.iter().flat_map(|w| w.chars()).collect();
            joined.retain(|c| !c.is_whitespace());
            let mut whole: Vec<char> = expansion.text.chars().collect();
            whole.retain(|c| !c.is_whitespace());
            if !options.split {
                whole.clear();
            }
            assert_eq!(joined, whole, "the words are not the text");
            if !word.contains(special) {
                assert_eq!(expansion.text, word, "there is nothing to expand");
            }
            if options.keep_unset && env.is_empty() {
                assert_eq!(expansion.text, word, "nothing is set, so it is shown as it is");
            }
        }
    }
    let quoted = format!("'{word}'");
    if !word.contains('\'')
        && let Ok(expansion) = expand(&quoted, Options::word('\\'), &env)
    {
        assert_eq!(expansion.text, word, "a word in single quotes stays");
    }
}

/// All lines of the case folders, read in each way, with a few variables.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for case in seeds::cases() {
        let text = String::from_utf8_lossy(&case.dockerfile).into_owned();
        for (number, line) in text.lines().filter(|line| line.contains('$')).enumerate() {
            let word = line.split_once(' ').map_or(line, |(_, rest)| rest);
            let mut seed = vec![(number % 5) as u8];
            seed.extend_from_slice(word.as_bytes());
            seed.extend_from_slice(b"\0a=1\0VERSION=1.2.3\0empty=\0path=/usr/lib:/lib");
            seeds.push(seed);
        }
    }
    seeds
}
