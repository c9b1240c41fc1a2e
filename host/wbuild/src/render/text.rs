//! Text made safe for a terminal, and its width.

use unicode_width::UnicodeWidthChar;

/// Text from outside as one line that does nothing to a terminal but show letters: escape
/// sequences go, tabs become spaces, other control characters and invalid UTF-8 become `\u{fffd}`.
/// Of a line that was overwritten (carriage returns) the last state that says something is kept.
pub fn plain_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches(['\r', '\n']);
    let last = text.rsplit('\r').find(|part| !part.is_empty()).unwrap_or("");
    plain(last)
}

/// As [`plain_line`], for text that may have several lines: line feeds stay.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut column = 0;
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => match chars.peek() {
                // CSI: parameters and intermediates up to a final byte (ECMA-48, 5.4).
                Some('[') => {
                    chars.next();
                    while let Some(c) = chars.next_if(|c| ('\x20'..='\x7e').contains(c)) {
                        if ('\x40'..='\x7e').contains(&c) {
                            break;
                        }
                    }
                }
                // OSC and the other strings: up to BEL or ESC \.
                Some(']' | 'P' | '^' | '_' | 'X') => {
                    chars.next();
                    while let Some(c) = chars.next_if(|c| *c != '\n') {
                        if c == '\x07' {
                            break;
                        }
                        if c == '\x1b' {
                            chars.next_if_eq(&'\\');
                            break;
                        }
                    }
                }
                // Two-character sequences, e.g. `ESC 7`, and a lone escape at the end.
                Some('\x30'..='\x7e') => {
                    chars.next();
                }
                _ => {}
            },
            '\n' => {
                out.push('\n');
                column = 0;
            }
            '\t' => {
                let spaces = TAB - column % TAB;
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\r' => {}
            c if is_hazard(c) => {
                out.push('\u{fffd}');
                column += 1;
            }
            c => {
                out.push(c);
                column += c.width().unwrap_or(0);
            }
        }
    }
    out
}

/// Columns between tab stops where we expand tabs.
pub const TAB: usize = 4;

/// Control characters, and the characters that change the direction of text around them (a source
/// line must not look different from what it is).
fn is_hazard(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Columns that `text` takes.
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// At most `columns` columns of `text`; what was cut shows as `…`.
pub fn truncate(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let next = c.width().unwrap_or(0);
        if used + next + 1 > columns {
            break;
        }
        out.push(c);
        used += next;
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_tame() {
        for (raw, want) in [
            (&b"plain"[..], "plain"),
            (b"\x1b[31mred\x1b[0m end\n", "red end"),
            (b"\x1b]0;title\x07after", "after"),
            (b"\x1b]8;;http://x\x1b\\link", "link"),
            (b"a\tb", "a   b"),
            (b"abcd\te", "abcd    e"),
            (b" 10%\r 50%\r100%\r\n", "100%"),
            (b"bell\x07 nul\0", "bell\u{fffd} nul\u{fffd}"),
            (b"\xff", "\u{fffd}"),
            (b"\x1b", ""),
            (b"\x1b[", ""),
            (b"\x1b[999", ""),
            (b"\x1b7saved", "saved"),
            ("\u{9b}31mC1".as_bytes(), "\u{fffd}31mC1"),
            ("bidi \u{202e}x".as_bytes(), "bidi \u{fffd}x"),
        ] {
            assert_eq!(plain_line(raw), want, "{raw:?}");
        }
        assert_eq!(plain("a\nb\x1b[2J"), "a\nb");
    }

    #[test]
    fn truncates_by_columns() {
        assert_eq!(truncate("abc", 3), "abc");
        assert_eq!(truncate("abcd", 3), "ab…");
        assert_eq!(truncate("日本語", 6), "日本語");
        assert_eq!(truncate("日本語", 5), "日本…");
        assert_eq!(truncate("日本語", 4), "日…");
        assert_eq!(truncate("abc", 0), "");
    }
}
