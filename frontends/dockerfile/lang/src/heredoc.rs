//! Finding heredocs in a line and taking their names apart (Dockerfile reference,
//! "Here-documents").

use crate::ast::Heredoc;
use crate::lines::Reader;
use crate::suggest::closest;
use crate::text::shown;
use crate::words;
use crate::{Code, Diagnostic, Span, Text};

/// What a `<<NAME` word says.
struct Marker {
    word: Text,
    name: String,
    quoted: bool,
    strip_tabs: bool,
}

/// Reads the bodies of the heredocs that `line` opens, in order. The second value is the place of
/// the last closing line.
pub(crate) fn read(
    line: &Text,
    reader: &mut Reader<'_>,
    problems: &mut Vec<Diagnostic>,
) -> (Vec<Heredoc>, Option<Span>) {
    let mut heredocs = Vec::new();
    let mut end = None;
    if !line.contains("<<") {
        return (heredocs, end);
    }
    let words = words::quoted(line, '\\');
    let mut at = 0;
    while at < words.len() {
        let word = &words[at];
        at += 1;
        let (marker, detached) = match (marker(word), words.get(at)) {
            (Some(marker), _) => (marker, false),
            // `<< NAME`; but `$((1 << 2))` is no heredoc, so the name must look like one.
            (None, Some(name)) if opener(word) == Some("") && is_plain_name(name) => {
                let mut builder = crate::TextBuilder::like(word);
                builder.push(word, 0..word.len());
                builder.push(name, 0..name.len());
                let Some(marker) = self::marker(&builder.finish()) else { continue };
                (marker, true)
            }
            _ => continue,
        };
        // The shell may mean something else by it.
        if detached && !reader.has_end(&marker.name, marker.strip_tabs) {
            continue;
        }
        match reader.heredoc(&marker.name, marker.strip_tabs) {
            Some((raw, close)) => {
                at += usize::from(detached);
                end = Some(close);
                heredocs.push(Heredoc {
                    word: marker.word,
                    name: marker.name,
                    expand: !marker.quoted,
                    strip_tabs: marker.strip_tabs,
                    raw,
                });
            }
            None => {
                problems.push(unterminated(&marker, reader));
                break;
            }
        }
    }
    (heredocs, end)
}

/// What follows `<<` or `<<-`, perhaps after a file descriptor's number.
fn opener(word: &str) -> Option<&str> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    Some(rest.strip_prefix('-').unwrap_or(rest))
}

fn is_plain_name(word: &Text) -> bool {
    let name = word.trim_matches(['\'', '"']);
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

fn marker(word: &Text) -> Option<Marker> {
    let rest = opener(word)?;
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let strip_tabs = word.contains("<<-");
    let mut name = String::new();
    let mut quote = None;
    let mut quoted = false;
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\'' | '"', None) => {
                quote = Some(c);
                quoted = true;
            }
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => name.extend(chars.next()),
            _ => name.push(c),
        }
    }
    // An open quote would make the rest of the line a name that nobody can have meant.
    (quote.is_none() && !name.is_empty()).then(|| Marker {
        word: word.clone(),
        name,
        quoted,
        strip_tabs,
    })
}

fn unterminated(marker: &Marker, reader: &mut Reader<'_>) -> Diagnostic {
    let here = reader.offset();
    let mut lines = Vec::new();
    while let Some(line) = reader.peek() {
        lines.push(line.as_str().to_owned());
        reader.skip();
    }
    // The rest of the file is most likely the body; reading it as instructions would only bury
    // this message.
    let indented = lines.iter().find(|line| line.trim() == marker.name);
    let help = if indented.is_some() && !marker.strip_tabs {
        format!(
            "the line that ends it must hold {} alone, without blanks around it; with `<<-` it may be indented by tabs",
            shown(&marker.name)
        )
    } else if let Some(near) = closest(&marker.name, lines.iter().map(String::as_str)) {
        format!("there is a line {}; was that meant to end it?", shown(near))
    } else {
        format!("end it by a line that holds {} alone", shown(&marker.name))
    };
    debug_assert!(reader.offset() >= here);
    Diagnostic::error(
        Code::UnterminatedHeredoc,
        marker.word.span(),
        format!("the heredoc {} has no end", shown(&marker.word)),
    )
    .help(help)
}
