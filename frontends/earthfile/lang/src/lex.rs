//! From bytes to logical lines of words: quotes, escapes, `$(…)`, continuations and comments.
//!
//! Rules of the language:
//! - a backslash at the end of a line, perhaps followed by blanks and a comment, joins the next line
//!   to it; blank lines and comments in between and the blanks before what follows are dropped;
//! - a `#` that begins a word begins a comment, to the end of the physical line;
//! - single and double quotes and `$(…)` are part of a word and protect what is in them; quotes may
//!   stretch over lines, and what is in them stays as it is;
//! - a backslash makes the next character part of the word, and stays.
//!
//! Nothing is unquoted here: whoever evaluates a word looks at its quotes.

use wbuild_dockerfile::{Diagnostic, Span, Text, TextBuilder};

use crate::Code;

/// How deep `$(…)` may stand inside each other to be seen as such.
const DEPTH: u32 = 64;

/// An instruction with its continued lines joined and its comments removed.
#[derive(Clone, Debug)]
pub struct Line {
    /// The joined text, blanks between words as they are in the file. Not empty.
    pub text: Text,
    /// The words of `text`.
    pub words: Vec<Text>,
    /// Where each word begins in `text`.
    pub starts: Vec<usize>,
    /// From the first to the last word in the source.
    pub span: Span,
    /// Something stands before the first word on its line.
    pub indented: bool,
    /// Comment lines directly above, without `#`.
    pub comments: Vec<Text>,
    /// A quote in it has no end, so its words are not those that were meant.
    pub broken: bool,
}

impl Line {
    /// The text from word `number` on; empty, and placed behind the last word, if there is none.
    pub fn rest(&self, number: usize) -> Text {
        let start = self.starts.get(number).copied().unwrap_or(self.text.len());
        self.text.slice(start..self.text.len())
    }
}

/// Reads logical lines of a file.
pub struct Lexer<'t> {
    file: &'t Text,
    at: usize,
    /// Up to here no `$(` is closed.
    open_shell: usize,
    /// Up to the end of the file no quote of this kind is closed.
    open_quote: [bool; 2],
}

/// What came of looking for the end of something.
enum End {
    At(usize),
    /// There is none.
    Open {
        /// Where the search ended.
        stop: usize,
        /// The `$(` that is not closed, if it is not the quote.
        shell: Option<usize>,
    },
}

impl<'t> Lexer<'t> {
    /// Reads from the start; a byte order mark is skipped.
    pub fn new(file: &'t Text) -> Self {
        let at = if file.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Lexer { file, at, open_shell: 0, open_quote: [false; 2] }
    }

    fn char(&self, at: usize) -> Option<char> {
        self.file[at..].chars().next()
    }

    fn blanks(&self, at: usize) -> usize {
        let rest = &self.file[at..];
        at + (rest.len() - rest.trim_start_matches([' ', '\t']).len())
    }

    /// The end of the physical line, before its line ending.
    fn line_end(&self, at: usize) -> usize {
        self.file[at..].find(['\n', '\r']).map_or(self.file.len(), |offset| at + offset)
    }

    /// Behind the line ending at `at`, if one is there or the file ends.
    fn newline(&self, at: usize) -> Option<usize> {
        let rest = &self.file[at..];
        match rest.as_bytes() {
            [b'\r', b'\n', ..] => Some(at + 2),
            [b'\n' | b'\r', ..] => Some(at + 1),
            [] => Some(at),
            _ => None,
        }
    }

    /// If the backslash at `at` continues the line: where the line goes on.
    fn continuation(&self, at: usize) -> Option<usize> {
        let mut at = self.after_line(at + 1)?;
        while at < self.file.len() {
            match self.after_line(at) {
                Some(next) => at = next,
                None => break,
            }
        }
        Some(self.blanks(at))
    }

    /// The next physical line, if nothing but blanks and a comment is left of this one.
    fn after_line(&self, at: usize) -> Option<usize> {
        let at = self.blanks(at);
        let at = if self.char(at) == Some('#') { self.line_end(at) } else { at };
        self.newline(at)
    }

    /// The next logical line; none at the end of the file.
    pub fn next_line(&mut self, problems: &mut Vec<Diagnostic>) -> Option<Line> {
        let mut comments: Vec<Text> = Vec::new();
        loop {
            if self.at >= self.file.len() {
                return None;
            }
            let start = self.blanks(self.at);
            if self.char(start) == Some('#') {
                let end = self.line_end(start);
                comments.push(self.file.slice(start + 1..end).trimmed());
                self.at = self.newline(end).unwrap_or(end);
                continue;
            }
            if let Some(next) = self.newline(start) {
                comments.clear();
                self.at = next;
                continue;
            }
            let indented = start > self.at;
            if let Some(line) = self.line(start, indented, std::mem::take(&mut comments), problems)
            {
                return Some(line);
            }
        }
    }

    /// Reads a line that begins at `start`. None if it holds nothing but continuations.
    fn line(
        &mut self,
        start: usize,
        indented: bool,
        comments: Vec<Text>,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Line> {
        let mut builder = TextBuilder::within(self.file, start);
        // Kept beside the builder, which does not tell its length.
        let mut length = 0;
        let mut bounds: Vec<(usize, usize)> = Vec::new();
        let mut in_word = false;
        let mut at = start;
        // What is added to the text at once.
        let mut from = start;
        // Up to here everything is part of the word.
        let mut protected = start;
        let mut broken = start;
        while let Some(c) = self.char(at) {
            if let Some(next) = self.newline(at) {
                self.at = next;
                break;
            }
            let mut end = at + c.len_utf8();
            match c {
                ' ' | '\t' if at >= protected => {
                    in_word = false;
                    at = end;
                    continue;
                }
                '#' if !in_word => {
                    at = self.line_end(at);
                    continue;
                }
                '\\' => match self.continuation(at) {
                    Some(next) => {
                        protected = protected.max(if at < protected { next } else { start });
                        if from < at {
                            builder.push(self.file, from..at);
                            length += at - from;
                        }
                        (at, from) = (next, next);
                        continue;
                    }
                    None => end += self.char(end).map_or(0, char::len_utf8),
                },
                '\'' | '"' if at >= broken => match self.quoted(at, c) {
                    End::At(close) => end = close,
                    End::Open { shell, .. } => {
                        problems.push(self.unclosed(at, c, shell));
                        // What is quoted on this line is anybody's guess.
                        broken = self.line_end(at);
                    }
                },
                '$' if at >= protected => protected = self.shell(at).unwrap_or(protected),
                _ => {}
            }
            let place = length + (at - from);
            match bounds.last_mut().filter(|_| in_word) {
                Some((_, stop)) => *stop = place + (end - at),
                None => bounds.push((place, place + (end - at))),
            }
            in_word = true;
            at = end;
        }
        if from < at {
            builder.push(self.file, from..at);
        }
        if self.at < at {
            self.at = at;
        }
        let &(_, stop) = bounds.last()?;
        // The text ends with its last word, without the comment behind it.
        let text = builder.finish();
        let first = bounds[0].0;
        let text = text.slice(first..stop);
        let words: Vec<Text> =
            bounds.iter().map(|(from, to)| text.slice(from - first..to - first)).collect();
        let starts = bounds.iter().map(|(from, _)| from - first).collect();
        let broken = broken > start;
        Some(Line { span: text.span(), text, words, starts, indented, comments, broken })
    }

    fn unclosed(&self, at: usize, quote: char, shell: Option<usize>) -> Diagnostic {
        if let Some(shell) = shell {
            let at = self.file.span_of(shell..shell + 2);
            return Diagnostic::error(Code::UnclosedQuote, at, "this `$(` is not closed").help(
                "close it on the same line, or write a backslash before it if it is meant as text",
            );
        }
        let kind = if quote == '"' { "double" } else { "single" };
        let message = format!("this {kind} quote is not closed");
        Diagnostic::error(Code::UnclosedQuote, self.file.span_of(at..at + 1), message).help(
            "close it, on this line or a later one, or write a backslash before it if it is meant as text",
        )
    }

    /// Behind the closing quote of the one at `at`.
    fn quoted(&mut self, at: usize, quote: char) -> End {
        let kind = usize::from(quote == '"');
        if self.open_quote[kind] {
            return End::Open { stop: self.file.len(), shell: None };
        }
        let end = self.quoted_at(at, quote, 0);
        self.open_quote[kind] = matches!(end, End::Open { shell: None, .. });
        end
    }

    fn quoted_at(&self, at: usize, quote: char, depth: u32) -> End {
        let mut at = at + 1;
        while let Some(c) = self.char(at) {
            let end = at + c.len_utf8();
            at = match c {
                c if c == quote => return End::At(end),
                '\\' => end + self.char(end).map_or(0, char::len_utf8),
                '$' if quote == '"' => match self.shell_at(at, depth) {
                    Some(End::At(close)) => close,
                    Some(open) => return open,
                    None => end,
                },
                _ => end,
            };
        }
        End::Open { stop: at, shell: None }
    }

    /// Behind the `)` of the `$(` at `at`, if it is one and closed. One that is not closed is text.
    fn shell(&mut self, at: usize) -> Option<usize> {
        if at < self.open_shell {
            return None;
        }
        match self.shell_at(at, 0)? {
            End::At(close) => Some(close),
            End::Open { stop, .. } => {
                self.open_shell = stop;
                None
            }
        }
    }

    /// Fails where anything inside of it fails, so that nothing is looked at twice.
    fn shell_at(&self, start: usize, depth: u32) -> Option<End> {
        if !self.file[start..].starts_with("$(") {
            return None;
        }
        let open_at = |stop| Some(End::Open { stop, shell: Some(start) });
        let mut at = start + 2;
        if depth >= DEPTH {
            return open_at(at);
        }
        let mut open = 1_usize;
        while let Some(c) = self.char(at) {
            let end = at + c.len_utf8();
            at = match c {
                ')' if open == 1 => return Some(End::At(end)),
                ')' => {
                    open -= 1;
                    end
                }
                '(' => {
                    open += 1;
                    end
                }
                '\n' | '\r' => return open_at(at),
                '\\' => match self.continuation(at) {
                    Some(next) => next,
                    None => end + self.char(end).map_or(0, char::len_utf8),
                },
                '\'' | '"' => match self.quoted_at(at, c, depth + 1) {
                    End::At(close) => close,
                    End::Open { stop, .. } => return open_at(stop),
                },
                '$' => match self.shell_at(at, depth + 1) {
                    Some(End::At(close)) => close,
                    Some(open) => return Some(open),
                    None => end,
                },
                _ => end,
            };
        }
        open_at(at)
    }
}

/// Behind the `)` that closes the `(` at the start of a text; quotes and escapes protect others.
pub fn closed(text: &str) -> Option<usize> {
    let (mut open, mut quote, mut escaped) = (0_usize, None, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if quote == Some(c) => quote = None,
            _ if quote.is_some() => {}
            '\'' | '"' => quote = Some(c),
            '(' => open += 1,
            ')' if open <= 1 => return Some(at + 1),
            ')' => open -= 1,
            _ => {}
        }
    }
    None
}

/// Words of a text that was joined before: those of a value.
pub fn words(text: &Text) -> Vec<Text> {
    let mut lexer = Lexer::new(text);
    lexer.at = 0;
    let mut problems = Vec::new();
    lexer.next_line(&mut problems).map(|line| line.words).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let file = Text::decode(0, 0, text.as_bytes());
        let mut lexer = Lexer::new(&file);
        let mut problems = Vec::new();
        let mut out = Vec::new();
        while let Some(line) = lexer.next_line(&mut problems) {
            for (word, start) in line.words.iter().zip(&line.starts) {
                assert_eq!(&line.text[*start..start + word.len()], word.as_str());
            }
            let words: Vec<&str> = line.words.iter().map(|word| word.as_str()).collect();
            out.push(format!("{}{}", if line.indented { "  " } else { "" }, words.join("|")));
        }
        out.extend(problems.iter().map(|problem| {
            let at = problem.labels[0].at;
            format!("{} at {}..{}", problem.code, at.start, at.end)
        }));
        out
    }

    #[test]
    fn words_of_lines() {
        for (text, expect) in [
            ("RUN a  b\n\n  RUN c", vec!["RUN|a|b", "  RUN|c"]),
            ("\u{feff}RUN a\r\nRUN b\r", vec!["RUN|a", "RUN|b"]),
            ("RUN a # b \\\nRUN c#d", vec!["RUN|a", "RUN|c#d"]),
            ("RUN a \\\n\n  # x\n\t b\\\n   c", vec!["RUN|a|bc"]),
            ("RUN a \\ # why\n  b", vec!["RUN|a|b"]),
            ("RUN a\\ b \\\"c", vec!["RUN|a\\ b|\\\"c"]),
            ("RUN a\\\\\nRUN b", vec!["RUN|a\\\\", "RUN|b"]),
            ("RUN echo \"a\n # b\\\n\" c", vec!["RUN|echo|\"a\n # b\\\n\"|c"]),
            ("RUN 'a\\'b' c", vec!["RUN|'a\\'b'|c"]),
            ("ARG a=$(x \"y)\" (z) $(w)) b", vec!["ARG|a=$(x \"y)\" (z) $(w))|b"]),
            ("RUN $(a \\\n b) c", vec!["RUN|$(a b)|c"]),
            ("RUN $(a b\nRUN c)", vec!["RUN|$(a|b", "RUN|c)"]),
            ("RUN \"$(a \"b c\")\" d", vec!["RUN|\"$(a \"b c\")\"|d"]),
            ("RUN \"$(a\" b\nRUN b", vec!["RUN|\"$(a\"|b", "RUN|b", "unclosed-quote at 5..7"]),
            ("RUN it's\nRUN b", vec!["RUN|it's", "RUN|b", "unclosed-quote at 6..7"]),
            ("\\\n\n# x", vec![]),
            ("RUN a \\", vec!["RUN|a"]),
        ] {
            assert_eq!(lines(text), expect, "{text:?}");
        }
    }
}
