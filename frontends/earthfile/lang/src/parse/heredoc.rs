//! Here-documents, which the language does not have: files from Dockerfiles bring them along.

use wbuild_dockerfile::lexer::shown;

use super::{Parser, is_header};
use crate::Code;
use crate::lex::Line;

/// The word that ends a here-document, if this begins one.
fn terminator(word: &str) -> Option<&str> {
    let at = word.find("<<")?;
    let before_is_number = word[..at].bytes().all(|b| b.is_ascii_digit());
    let rest = word[at + 2..].strip_prefix('-').unwrap_or(&word[at + 2..]);
    let name = rest.trim_matches(['"', '\'']);
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (before_is_number && plain && !name.is_empty()).then_some(name)
}

impl Parser {
    /// Reports a here-document, and moves past its lines.
    pub(super) fn heredoc(&mut self, line: &Line) -> bool {
        let Some((word, name)) = line.words[1..]
            .iter()
            .find_map(|word| terminator(word).map(|name| (word, name.to_owned())))
        else {
            return false;
        };
        let lines: Vec<Line> = self.lines.clone().take_while(|line| !is_header(line)).collect();
        let Some(end) = lines.iter().position(|line| line.text.as_str() == name) else {
            return false;
        };
        let message = format!("there are no here-documents, so nothing ends {}", shown(word));
        let help = match line.words[0].as_str() {
            "RUN" => "join commands with `&&`; text may stand in quotes over several lines",
            _ => "write the text to a file with RUN, in quotes over several lines",
        };
        self.error(Code::UnexpectedArgument, word.span(), message, help);
        for _ in 0..=end {
            self.lines.next();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::terminator;

    #[test]
    fn what_begins_a_here_document() {
        for (word, expect) in [
            ("<<EOF", Some("EOF")),
            ("<<-EOF", Some("EOF")),
            ("<<\"E_1\"", Some("E_1")),
            ("3<<'EOF'", Some("EOF")),
            ("<<<x", None),
            ("<<", None),
            ("a<<EOF", None),
            ("$((1<<2))", None),
        ] {
            assert_eq!(terminator(word), expect, "{word}");
        }
    }
}
