//! Values in the form in which the tools of the field write them into an image's history.
//!
//! `docker history` and its kin show these strings, and people compare them between builders, so
//! they follow the conventions of Go's formatted printing: `%q` for commands, `%v` for the rest.

/// A string in double quotes, what cannot be printed escaped.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        push_escaped(&mut out, c);
    }
    out.push('"');
    out
}

/// A list of quoted strings: `["a" "b"]`.
pub(crate) fn quoted_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|text| quoted(text)).collect();
    format!("[{}]", quoted.join(" "))
}

/// A list of plain strings: `[a b]`.
pub(crate) fn plain_list(list: &[String]) -> String {
    format!("[{}]", list.join(" "))
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '\\' | '"' => {
            out.push('\\');
            out.push(c);
        }
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        c if printable(c) => out.push(c),
        c if u32::from(c) < 0x80 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
    }
}

fn printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // The standard library knows which characters can be printed, but says so only by escaping
    // them; behind another character it leaves combining marks alone.
    let mut text = String::from("x");
    text.push(c);
    text.escape_debug().nth(1) == Some(c)
}

/// A span of time: `1m30s`, `500ms`, `0s`.
pub(crate) fn duration(nanoseconds: i64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    if total == 0 {
        return "0s".to_owned();
    }
    if total < SECOND {
        let (unit, name) = match total {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{sign}{}{name}", decimal(total, unit));
    }
    let (hours, minutes) = (total / (3600 * SECOND), total / (60 * SECOND) % 60);
    let seconds = decimal(total % (60 * SECOND), SECOND);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

fn decimal(number: u64, unit: u64) -> String {
    let fraction = number % unit;
    if fraction == 0 {
        return (number / unit).to_string();
    }
    let digits = unit.ilog10() as usize;
    let fraction = format!("{fraction:0digits$}");
    format!("{}.{}", number / unit, fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings() {
        for (text, expect) in [
            ("a b", r#""a b""#),
            ("a\"b\\", r#""a\"b\\""#),
            ("\n\t\x1b\x7f", r#""\n\t\x1b\x7f""#),
            ("ü€😀", "\"ü€😀\""),
            ("e\u{301}", "\"e\u{301}\""),
            ("\u{a0}\u{200b}", r#""\u00a0\u200b""#),
            ("\u{e0001}", r#""\U000e0001""#),
        ] {
            assert_eq!(quoted(text), expect);
        }
        assert_eq!(quoted_list(&["a".to_owned(), "b c".to_owned()]), r#"["a" "b c"]"#);
        assert_eq!(quoted_list(&[]), "[]");
    }

    #[test]
    fn times() {
        for (time, expect) in [
            (0, "0s"),
            (30_000_000_000, "30s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (1_500_000_000, "1.5s"),
            (500_000_000, "500ms"),
            (1_500_000, "1.5ms"),
            (60_001_000_000, "1m0.001s"),
        ] {
            assert_eq!(duration(time), expect);
        }
    }
}
