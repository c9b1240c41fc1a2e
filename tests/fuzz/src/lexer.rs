//! Lines and words.

use wbuild_dockerfile::Text;
use wbuild_dockerfile::lexer::{self, Json, Reader};

use crate::seeds;
use crate::source::Source;

const ESCAPES: [char; 2] = ['\\', '`'];

/// The first byte chooses the escape character, the rest is the file.
pub fn check(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let escape = ESCAPES[usize::from(choice % 2)];
    let source = Source::new(0, bytes);
    let mut reader = Reader::new(0, bytes);
    let mut before = 0;
    while let Some(line) = reader.logical(escape) {
        source.check_span(line.span);
        assert!(line.span.start >= before, "lines overlap at {:?}", line.span);
        before = line.span.end;
        assert!(reader.offset() >= before as usize, "the reader stands inside the line it read");
        assert!(!line.text.trim().is_empty(), "an empty line was returned");
        source.check_copy(&line.text);
        line.doc.iter().for_each(|doc| source.check_copy(doc));
        for empty in line.empty {
            source.check_span(empty);
            assert!(empty.start >= line.span.start && empty.end <= reader.offset() as u32);
        }
        words(source, &line.text, escape);
    }
    assert_eq!(reader.offset(), bytes.len(), "the rest of the file was not read");
    assert!(reader.peek().is_none());
    heredocs(source, bytes);
}

fn words(source: Source<'_>, line: &Text, escape: char) {
    let (keyword, rest) = lexer::keyword(line);
    source.check_copy(&keyword);
    source.check_copy(&rest);
    let blank = |c| matches!(c, ' ' | '\t' | '\r' | '\x0b' | '\x0c');
    assert!(!keyword.contains(blank) && rest.trim() == rest.as_str());

    let separated = lexer::blank_separated(&rest);
    separated.iter().for_each(|word| source.check_copy(word));
    let joined: String = separated.iter().map(|word| word.as_str()).collect();
    assert_eq!(joined, rest.replace(blank, ""), "words and blanks are not the whole line");

    let quoted = lexer::quoted(&rest, escape);
    for word in &quoted {
        source.check_copy(word);
        assert!(!word.is_empty(), "an empty word");
        assert!(!word.starts_with(char::is_whitespace));
    }
    if !rest.contains(['\'', '"', escape]) {
        let plain: Vec<&str> = rest.split_whitespace().collect();
        let got: Vec<&str> = quoted.iter().map(|word| word.as_str()).collect();
        assert_eq!(got, plain, "words without quotes are words between white space");
    }

    let (flags, arguments) = lexer::flags(&rest);
    assert!(rest.ends_with(arguments.as_str()));
    source.check_copy(&arguments);
    for flag in flags {
        source.check_text(&flag.word);
        source.check_text(&flag.name);
        flag.value.iter().for_each(|value| source.check_text(value));
        let value = flag.value.map(|value| format!("={value}")).unwrap_or_default();
        assert_eq!(flag.word.as_str(), format!("--{}{value}", flag.name));
    }

    let array = serde_json::from_str::<Vec<serde_json::Value>>(&rest).ok();
    match lexer::json_array(&rest) {
        Json::Other => assert!(array.is_none()),
        Json::Mixed(_) => assert!(array.is_some_and(|a| !a.iter().all(|v| v.is_string()))),
        Json::Strings(strings) => {
            strings.iter().for_each(|text| source.check_text(text));
            let got: Vec<serde_json::Value> = strings.iter().map(|s| s.as_str().into()).collect();
            assert_eq!(Some(got), array);
        }
    }
}

/// Every line of the file as the name that ends a heredoc: the body is what stands before it.
fn heredocs(source: Source<'_>, bytes: &[u8]) {
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    for name in lines.iter().take(20).filter_map(|line| std::str::from_utf8(line).ok()) {
        for strip_tabs in [false, true] {
            let mut reader = Reader::new(0, bytes);
            let start = reader.offset();
            let Some((body, close)) = reader.heredoc(name, strip_tabs) else {
                assert_eq!(reader.offset(), start, "the reader moved for nothing");
                continue;
            };
            source.check_copy(&body);
            source.check_span(close);
            assert_eq!((body.span().start as usize, body.span().end), (start, body.span().end));
            assert!(body.is_empty() || body.ends_with('\n'));
            assert!(body.span().end <= close.start && close.end as usize <= reader.offset());
            let found = &bytes[close.start as usize..close.end as usize];
            let found = std::str::from_utf8(found).expect("it is the name");
            let found = if strip_tabs { found.trim_start_matches('\t') } else { found };
            assert_eq!(found, name);
        }
    }
}

/// The case folders, with either escape.
pub fn seeds() -> Vec<Vec<u8>> {
    let both = |case: &seeds::Case| [0, 1].map(|choice| [&[choice], &case.dockerfile[..]].concat());
    seeds::cases().iter().flat_map(both).collect()
}
