//! Patterns over names that have parts between slashes: references, images, URLs.

use wbuild_ignore::glob::Pattern;

/// Most patterns of one list.
pub const MAX_PATTERNS: usize = 1000;

/// A pattern: part by part as file names (`*`, `?`, `[a-z]`), and `**` at the end for everything below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    parts: Vec<Pattern>,
    below: bool,
}

impl NamePattern {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// It is empty, or a part of it is no pattern.
    pub fn new(text: &str) -> Result<NamePattern, String> {
        if text.is_empty() {
            return Err("a pattern that is empty".to_owned());
        }
        let (text, below) = match text.strip_suffix("/**") {
            Some(above) => (above, true),
            None if text == "**" => ("", true),
            None => (text, false),
        };
        if text.contains("**") {
            return Err("** stands only at the end of a pattern, behind a /".to_owned());
        }
        let parts = match text {
            "" => Ok(Vec::new()),
            text => text.split('/').map(|part| Pattern::new(part.as_bytes())).collect(),
        };
        Ok(NamePattern {
            parts: parts.map_err(|error: wbuild_ignore::PatternError| error.to_string())?,
            below,
        })
    }

    /// Whether it covers a name.
    pub fn matches(&self, name: &str) -> bool {
        let parts: Vec<&str> = name.split('/').collect();
        let fits = match self.below {
            true => parts.len() > self.parts.len(),
            false => parts.len() == self.parts.len(),
        };
        fits && self
            .parts
            .iter()
            .zip(&parts)
            .all(|(pattern, part)| pattern.matches(part.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn part_by_part() {
        for (pattern, name, want) in [
            ("oci://r.example/team/*", "oci://r.example/team/x", true),
            ("oci://r.example/team/*", "oci://r.example/team/x/y", false),
            ("oci://r.example/team/**", "oci://r.example/team/x/y", true),
            ("oci://r.example/team/**", "oci://r.example/team", false),
            ("oci://r.example/team/**", "oci://r.example/teams/x", false),
            ("oci://r.example/**", "oci://r.example.evil/team/x", false),
            ("oci://*.example/**", "oci://evil.net/.example/x", false),
            ("**", "anything/at/all", true),
            ("docker.io/library/*", "docker.io/library/alpine", true),
        ] {
            let found = NamePattern::new(pattern).expect(pattern);
            assert_eq!(found.matches(name), want, "{pattern} {name}");
        }
        for bad in ["", "a**", "a/**/b", "[", "a\\"] {
            assert!(NamePattern::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_literal_matches_itself_alone(name in "[a-z:./-]{1,30}", other in "[a-z:./-]{1,30}") {
            let pattern = NamePattern::new(&name).expect("there is nothing special in it");
            prop_assert!(pattern.matches(&name));
            prop_assert_eq!(pattern.matches(&other), name == other);
        }
    }
}
