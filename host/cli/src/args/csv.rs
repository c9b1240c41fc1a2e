//! Option values of the form `key=value,key=value`: one record of RFC 4180 CSV, so that a value
//! with a comma can be quoted: `type=oci,"dest=a,b.tar"`.

use std::fmt;

/// The fields of one value.
pub fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut field = String::new();
    let mut chars = text.chars().peekable();
    loop {
        if field.is_empty() && chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next() {
                    Some('"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                    Some('"') => break,
                    Some(c) => field.push(c),
                    None => return Err("a quote is not closed".to_owned()),
                }
            }
            match chars.next() {
                None => break,
                Some(',') => out.push(std::mem::take(&mut field)),
                Some(c) => {
                    return Err(format!("expected a comma after a closing quote, found {c:?}"));
                }
            }
            continue;
        }
        match chars.next() {
            None => break,
            Some(',') => out.push(std::mem::take(&mut field)),
            Some('"') => {
                return Err("a quote inside a field that does not begin with one".to_owned());
            }
            Some(c) => field.push(c),
        }
    }
    out.push(field);
    Ok(out)
}

/// The fields of one value, split at the first `=`; keys in lower case, as docker has them, but for
/// those of annotations, which are other people's names.
pub fn pairs(text: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let key = |key: &str| match key.trim() {
        key if key.starts_with("annotation") => key.to_owned(),
        key => key.to_ascii_lowercase(),
    };
    let split = |field: String| match field.split_once('=') {
        Some((name, value)) => (key(name), Some(value.to_owned())),
        None => (key(&field), None),
    };
    Ok(fields(text)?.into_iter().map(split).collect())
}

/// A list of names for a message: `a, b or c`.
pub struct OneOf<'a>(pub &'a [&'a str]);

impl fmt::Display for OneOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            [one] => f.write_str(one),
            [init @ .., last] => write!(f, "{} or {last}", init.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_records() {
        for (text, want) in [
            ("a", Ok(vec!["a"])),
            ("", Ok(vec![""])),
            ("a,b=c,", Ok(vec!["a", "b=c", ""])),
            ("type=oci,\"dest=a,b.tar\"", Ok(vec!["type=oci", "dest=a,b.tar"])),
            ("\"say \"\"hi\"\"\",x", Ok(vec!["say \"hi\"", "x"])),
            ("\"\"", Ok(vec![""])),
            ("\"a", Err(())),
            ("\"a\"b", Err(())),
            ("a\"b", Err(())),
        ] {
            let got = fields(text);
            match want {
                Ok(want) => assert_eq!(got.expect(text), want, "{text}"),
                Err(()) => assert!(got.is_err(), "{text}"),
            }
        }
    }

    #[test]
    fn splits_pairs() {
        assert_eq!(
            pairs("Type=oci,dest=a=b,x"),
            Ok(vec![
                ("type".into(), Some("oci".into())),
                ("dest".into(), Some("a=b".into())),
                ("x".into(), None)
            ])
        );
        assert_eq!(OneOf(&["a", "b", "c"]).to_string(), "a, b or c");
    }
}
