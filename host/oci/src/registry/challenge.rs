//! The `WWW-Authenticate` header (RFC 9110, section 11.6.1).

use crate::error::{Error, Result};

/// Longest header that is read, in bytes.
const MAX_HEADER: usize = 8 << 10;

/// One way in which a server lets itself be convinced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// E.g. `basic` or `bearer`, lower case.
    pub scheme: String,
    /// Parameters, names in lower case, in order; none occurs twice.
    pub params: Vec<(String, String)>,
}

impl Challenge {
    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Reads all challenges of one header value.
pub fn parse_challenges(header: &str) -> Result<Vec<Challenge>> {
    let bad = |reason: &str| Error::invalid(format!("malformed WWW-Authenticate header: {reason}"));
    if header.len() > MAX_HEADER {
        return Err(Error::limit("a WWW-Authenticate header is too long"));
    }
    let mut input = Input { text: header.as_bytes(), at: 0 };
    let mut out: Vec<Challenge> = Vec::new();
    loop {
        input.skip(|b| matches!(b, b' ' | b'\t' | b','));
        if input.peek().is_none() {
            return Ok(out);
        }
        let word = input.take(is_token);
        if word.is_empty() {
            return Err(bad("a name is missing"));
        }
        let name = String::from_utf8_lossy(word).to_ascii_lowercase();
        let after_word = input.at;
        input.skip(is_blank);
        if input.peek() == Some(b'=') && !out.is_empty() {
            let challenge = out.last_mut().expect("checked");
            input.at += 1;
            input.skip(is_blank);
            let value = match input.peek() {
                Some(b'"') => input.quoted().ok_or_else(|| bad("a quoted value does not end"))?,
                _ => {
                    let value = input.take(is_token);
                    if value.is_empty() {
                        return Err(bad("a value is missing"));
                    }
                    String::from_utf8_lossy(value).into_owned()
                }
            };
            if challenge.get(&name).is_some() {
                return Err(bad("a parameter occurs twice"));
            }
            challenge.params.push((name, value));
            input.skip(is_blank);
            if input.peek().is_some_and(|b| b != b',') {
                return Err(bad("a comma is missing"));
            }
            continue;
        }
        out.push(Challenge { scheme: name, params: Vec::new() });
        // A scheme may be followed by one bare value instead of parameters; nothing we answer to.
        if input.at > after_word {
            let start = input.at;
            input.take(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
            input.take(|b| b == b'=');
            let value_end = input.at;
            input.skip(is_blank);
            let alone = value_end > start && input.peek().is_none_or(|b| b == b',');
            if !alone {
                input.at = start;
            }
        } else if input.peek().is_some_and(|b| b != b',') {
            return Err(bad("a scheme is followed by neither a blank nor a comma"));
        }
    }
}

struct Input<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let start = self.at;
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) {
        self.take(wanted);
    }

    fn quoted(&mut self) -> Option<String> {
        let mut out = Vec::new();
        self.at += 1;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(String::from_utf8_lossy(&out).into_owned()),
                b'\\' => {
                    out.push(self.peek()?);
                    self.at += 1;
                }
                other => out.push(other),
            }
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_registries_send() {
        let one = parse_challenges(
            r#"Bearer realm="https://auth.example/token",service="reg, \"x\"",scope="repository:a/b:pull,push""#,
        )
        .expect("valid");
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].scheme, "bearer");
        assert_eq!(one[0].get("realm"), Some("https://auth.example/token"));
        assert_eq!(one[0].get("service"), Some(r#"reg, "x""#));
        assert_eq!(one[0].get("scope"), Some("repository:a/b:pull,push"));

        let several =
            parse_challenges(r#"Negotiate, NTLM abc==, Basic realm=x , BEARER Realm = "y",a=b"#)
                .expect("valid");
        let schemes: Vec<&str> = several.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "ntlm", "basic", "bearer"]);
        assert_eq!(several[2].get("realm"), Some("x"));
        assert_eq!(several[3].params.len(), 2);
        assert!(parse_challenges("").expect("nothing").is_empty());
    }

    #[test]
    fn refuses_malformed_headers() {
        for bad in [
            r#"Bearer realm="x"#,
            "Bearer a=b, realm=",
            r#"Bearer realm="a" service="b""#,
            "=",
            r#"Bearer realm="a",realm="b""#,
            "Bearer\"x\"",
            &"a".repeat(9000),
            "Bearer realm=\"x\\",
        ] {
            assert!(parse_challenges(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,60}", other in "[A-Za-z]{0,6} ?([a-z]{0,4}=\"?[a-z,\\\\\"= ]{0,8}\"?,? ?){0,4}") {
            let _ = parse_challenges(&text);
            let _ = parse_challenges(&other);
        }

        #[test]
        fn what_is_written_is_read(challenges in prop::collection::vec(
            ("[a-z][a-z0-9]{0,8}", prop::collection::btree_map("[a-z]{1,6}", "[ -~]{0,12}", 1..4)), 1..4)
        ) {
            let mut header = Vec::new();
            for (scheme, params) in &challenges {
                let params: Vec<String> = params.iter().map(|(key, value)| {
                    format!("{key}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
                }).collect();
                header.push(format!("{scheme} {}", params.join(", ")));
            }
            let read = parse_challenges(&header.join(", ")).expect("well formed");
            let want: Vec<Challenge> = challenges.into_iter().map(|(scheme, params)| {
                Challenge { scheme, params: params.into_iter().collect() }
            }).collect();
            prop_assert_eq!(read, want);
        }
    }
}
