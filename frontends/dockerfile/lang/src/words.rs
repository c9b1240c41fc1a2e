//! Cutting a logical line into keyword, flags and arguments.
//!
//! Each instruction has one of four argument syntaxes: words between blanks (`COPY a b`), words
//! with shell quoting that is kept for the expander (`ENV a="b c"`), a JSON array (`CMD ["a"]`), or
//! the rest of the line as it is (`RUN a && b`).

use crate::{Text, TextBuilder};

/// What separates words of an instruction.
fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// The keyword and the rest of an instruction.
pub fn keyword(line: &Text) -> (Text, Text) {
    let line = line.trimmed();
    let end = line.find(is_blank).unwrap_or(line.len());
    (line.slice(0..end), line.slice(end..line.len()).trimmed())
}

/// A `--name=value` word before the arguments; quotes and escapes are taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Without dashes.
    pub name: Text,
    /// After the `=`.
    pub value: Option<Text>,
    /// The whole word.
    pub word: Text,
}

/// The flags at the start of `rest` and what follows them. A lone `--` ends the flags.
pub fn flags(rest: &Text) -> (Vec<Flag>, Text) {
    let mut flags = Vec::new();
    let mut at = 0;
    loop {
        at += rest[at..].len() - rest[at..].trim_start().len();
        if !rest[at..].starts_with("--") {
            break;
        }
        let (word, end) = unquoted_word(rest, at);
        at = end;
        if word.as_str() == "--" {
            break;
        }
        let end = word.find('=').unwrap_or(word.len());
        let name = word.slice(2..end.max(2));
        let value = (end < word.len()).then(|| word.slice(end + 1..word.len()));
        flags.push(Flag { name, value, word });
    }
    (flags, rest.slice(at..rest.len()).trimmed())
}

/// Reads one word of flags. The escape here is a backslash whatever the file's directive says.
fn unquoted_word(rest: &Text, start: usize) -> (Text, usize) {
    let mut builder = TextBuilder::within(rest, start);
    let mut quote = None;
    let mut chars = rest[start..].char_indices().peekable();
    while let Some((offset, c)) = chars.next() {
        let at = start + offset;
        match (c, quote) {
            (c, None) if c.is_whitespace() => return (builder.finish(), at),
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('\\', _) => {
                if let Some((offset, escaped)) = chars.next() {
                    let end = start + offset + escaped.len_utf8();
                    builder.push_char(escaped, rest, at..end);
                }
            }
            _ => builder.push(rest, at..at + c.len_utf8()),
        }
    }
    (builder.finish(), rest.len())
}

/// Words between blanks; quotes mean nothing.
pub fn blank_separated(rest: &Text) -> Vec<Text> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(offset) = rest[at..].find(|c| !is_blank(c)) {
        let start = at + offset;
        let end = rest[start..].find(is_blank).map_or(rest.len(), |offset| start + offset);
        words.push(rest.slice(start..end));
        at = end;
    }
    words
}

/// Words between white space where quotes and escapes protect it. Both are kept: the expander
/// removes them after it has looked at them.
pub fn quoted(rest: &Text, escape: char) -> Vec<Text> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut end = 0;
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if let Some(start) = start.take() {
                words.push(rest.slice(start..at));
            }
            continue;
        }
        let word = *start.get_or_insert(at);
        end = at + c.len_utf8();
        match quote {
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            match chars.next() {
                Some((at, escaped)) => end = at + escaped.len_utf8(),
                // An escape that escapes nothing is dropped.
                None => {
                    end = at;
                    if word == at {
                        start = None;
                    }
                }
            }
        }
    }
    if let Some(start) = start {
        words.push(rest.slice(start..end.max(start)));
    }
    words
}

/// What came of reading an argument as a JSON array.
#[derive(Debug, PartialEq, Eq)]
pub enum Json {
    /// It is none, so it is text for the shell or words between blanks.
    Other,
    /// It is one, but this element of it is not a string.
    Mixed(Text),
    /// The strings.
    Strings(Vec<Text>),
}

/// Reads the exec form. Only a complete and valid array counts.
pub fn json_array(rest: &Text) -> Json {
    if !rest.trim_start().starts_with('[') {
        return Json::Other;
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(rest) else {
        return Json::Other;
    };
    if let Some(odd) = values.iter().position(|value| !value.is_string()) {
        return Json::Mixed(element(rest, odd));
    }
    // The array is valid and holds strings only, so quotes alternate between opening and closing.
    let mut strings = Vec::with_capacity(values.len());
    let mut at = 0;
    for value in &values {
        let value = value.as_str().unwrap_or_default();
        let Some(open) = rest[at..].find('"').map(|offset| at + offset) else { break };
        let mut close = open + 1;
        while let Some(c) = rest[close..].chars().next().filter(|c| *c != '"') {
            close += c.len_utf8();
            if c == '\\' {
                close += rest[close..].chars().next().map_or(0, char::len_utf8);
            }
        }
        let raw = rest.slice(open + 1..close);
        at = (close + 1).min(rest.len());
        if raw.as_str() == value {
            strings.push(raw);
        } else {
            let mut builder = TextBuilder::like(&raw);
            for c in value.chars() {
                builder.push_char(c, &raw, 0..raw.len());
            }
            strings.push(builder.finish());
        }
    }
    Json::Strings(strings)
}

/// An element of a valid array, as it is written.
fn element(array: &Text, number: usize) -> Text {
    let first = array.find('[').map_or(0, |at| at + 1);
    let (mut start, mut passed, mut depth) = (first, 0, 0_usize);
    let (mut quoted, mut escaped) = (false, false);
    for (offset, c) in array[first..].char_indices() {
        let at = first + offset;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '[' | '{' => depth += 1,
            ',' | ']' if depth == 0 && passed == number => {
                return array.slice(start..at).trimmed();
            }
            ',' if depth == 0 => {
                passed += 1;
                start = at + 1;
            }
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    array.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Text {
        Text::decode(0, 0, text.as_bytes())
    }

    fn strings(words: &[Text]) -> Vec<&str> {
        words.iter().map(|word| word.as_str()).collect()
    }

    #[test]
    fn flags_lose_quotes_and_escapes() {
        let line = text(r#"--a=b --c="d e"\ f --g --'h'=i  --  --j k"#);
        let (flags, rest) = flags(&line);
        let shown: Vec<_> = flags
            .iter()
            .map(|flag| (flag.name.as_str(), flag.value.as_ref().map(|value| value.as_str())))
            .collect();
        assert_eq!(shown, [("a", Some("b")), ("c", Some("d e f")), ("g", None), ("h", Some("i"))]);
        assert_eq!(rest.as_str(), "--j k");
        let value = flags[1].value.as_ref().expect("it has one");
        let span = value.span_of(4..5);
        assert_eq!(&line[span.start as usize..span.end as usize], "f");
    }

    #[test]
    fn quoted_words_keep_their_quotes() {
        for (line, expect) in [
            (r#"a=b c="d e" f='g\' h"#, vec!["a=b", r#"c="d e""#, r"f='g\'", "h"]),
            (r#"a=b\ c d="\"e" "#, vec![r"a=b\ c", r#"d="\"e""#]),
            (r#"a="" ''"#, vec![r#"a="""#, "''"]),
            (r"a\", vec!["a"]),
            (r"a \", vec!["a"]),
            (r#"a="b c"#, vec![r#"a="b c"#]),
            ("", vec![]),
        ] {
            assert_eq!(strings(&quoted(&text(line), '\\')), expect, "{line}");
        }
    }

    #[test]
    fn json_must_be_valid_to_count() {
        let Json::Strings(strings) = json_array(&text(r#" [ "a\"b" , "", "c" ]"#)) else {
            panic!("it is an array of strings");
        };
        assert_eq!(self::strings(&strings), ["a\"b", "", "c"]);
        assert_eq!(json_array(&text("['a']")), Json::Other);
        assert_eq!(json_array(&text(r#"["a"] b"#)), Json::Other);
        assert_eq!(json_array(&text("[ -d x ] && y")), Json::Other);
        for (array, odd) in [
            (r#"["a", 1]"#, "1"),
            (r#"["a,]\"", {"b": [1, "}"]} , 2]"#, r#"{"b": [1, "}"]}"#),
            ("[[]]", "[]"),
            ("[ null ]", "null"),
        ] {
            let Json::Mixed(element) = json_array(&text(array)) else { panic!("{array}") };
            assert_eq!(element.as_str(), odd);
        }
        assert_eq!(json_array(&text("[]")), Json::Strings(vec![]));
    }
}
