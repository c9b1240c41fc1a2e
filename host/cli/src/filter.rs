//! The conditions of `--filter`, which choose among what is kept.
//!
//! `KEY=VALUE` (or `==`), `KEY!=VALUE`, `KEY~=REGEX`, and `KEY` alone for what is true or false.
//! Several must all hold. The keys and types are those of BuildKit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use regex::Regex;
use wbuild_store::{Choice, UsageEntry};

use wbuild_supply::suggest;

use crate::units;

/// Types that something kept can have.
const TYPES: [&str; 6] =
    ["internal", "frontend", "source.local", "source.git.checkout", "exec.cachemount", "regular"];
const TEXTS: [(&str, Text); 4] = [
    ("id", Text::Id),
    ("parents", Text::Parents),
    ("description", Text::Description),
    ("type", Text::Type),
];
const FLAGS: [(&str, Flag); 5] = [
    ("inuse", Flag::InUse),
    ("mutable", Flag::Mutable),
    ("immutable", Flag::Immutable),
    ("shared", Flag::Shared),
    ("private", Flag::Private),
];
/// The key that is no condition on a thing itself, and its name in older programs.
const UNTIL: [&str; 2] = ["until", "unused-for"];

/// What `--filter` says.
#[derive(Clone, Debug)]
pub enum Filter {
    /// Not used for so long.
    Until(Duration),
    /// A condition on a text.
    Text(Text, Matcher),
    /// A condition on what is true or false, and which of both.
    Flag(Flag, bool),
}

/// What is compared with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// Its id; the beginning is enough.
    Id,
    /// The ids of what it lies on.
    Parents,
    /// What it is to people.
    Description,
    /// Its type.
    Type,
}

/// What is true or false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// A running build needs it.
    InUse,
    /// It may still change.
    Mutable,
    /// It may not.
    Immutable,
    /// Several results need it.
    Shared,
    /// At most one does.
    Private,
}

/// How a text is compared.
#[derive(Clone, Debug)]
pub enum Matcher {
    /// It is this.
    Is(String),
    /// It is not this.
    IsNot(String),
    /// This is found in it.
    Matches(Regex),
}

impl Filter {
    /// Whether something meets the condition; ages are for others to judge.
    pub fn matches(&self, entry: &UsageEntry) -> bool {
        match self {
            Filter::Until(_) => true,
            Filter::Text(Text::Id, matcher) => matcher.holds(&[&entry.id], |id, text| {
                // As long as it is not ambiguous to people, nobody types all of it.
                id.starts_with(text)
                    || id.strip_prefix("sha256:").is_some_and(|hex| hex.starts_with(text))
            }),
            Filter::Text(text, matcher) => {
                let values: Vec<&str> = match text {
                    Text::Parents => entry.parents.iter().map(String::as_str).collect(),
                    Text::Description => vec![&entry.description],
                    Text::Type | Text::Id => vec![entry.record_type()],
                };
                matcher.holds(&values, |value, text| value == text)
            }
            Filter::Flag(flag, wanted) => {
                let is = match flag {
                    Flag::InUse => entry.in_use,
                    Flag::Mutable => entry.is_mutable(),
                    Flag::Immutable => !entry.is_mutable(),
                    Flag::Shared => entry.shared,
                    Flag::Private => !entry.shared,
                };
                is == *wanted
            }
        }
    }
}

/// What meets all conditions; ages are for others to judge. None if there is no condition.
pub fn choice(filters: &[Filter]) -> Option<Choice> {
    let conditions = filters.iter().filter(|filter| !matches!(filter, Filter::Until(_)));
    let conditions: Vec<Filter> = conditions.cloned().collect();
    (!conditions.is_empty()).then(|| {
        Choice::new(move |entry| conditions.iter().all(|condition| condition.matches(entry)))
    })
}

impl Matcher {
    fn holds(&self, values: &[&str], same: impl Fn(&str, &str) -> bool) -> bool {
        match self {
            Matcher::Is(text) => values.iter().any(|value| same(value, text)),
            Matcher::IsNot(text) => !values.iter().any(|value| same(value, text)),
            Matcher::Matches(regex) => values.iter().any(|value| regex.is_match(value)),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Is,
    IsNot,
    Matches,
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operator::Is => "=",
            Operator::IsNot => "!=",
            Operator::Matches => "~=",
        })
    }
}

/// Key, operator and value; the latter two are missing in a key alone.
fn split(text: &str) -> (&str, Option<(Operator, &str)>) {
    let Some((key, value)) = text.split_once('=') else { return (text, None) };
    let (key, operator) = match key.as_bytes().last() {
        Some(b'!') => (&key[..key.len() - 1], Operator::IsNot),
        Some(b'~') => (&key[..key.len() - 1], Operator::Matches),
        _ => (key, Operator::Is),
    };
    (key, Some((operator, value.strip_prefix('=').unwrap_or(value))))
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        let (key, rest) = split(text);
        if UNTIL.contains(&key) {
            return match rest {
                Some((Operator::Is, value)) => Ok(Filter::Until(units::parse_duration(value)?)),
                _ => Err("expected until=DURATION, e.g. until=24h".to_owned()),
            };
        }
        if let Some((_, flag)) = FLAGS.iter().find(|(name, _)| *name == key) {
            let wanted = match rest {
                None => true,
                Some((Operator::Is, "true" | "1")) | Some((Operator::IsNot, "false" | "0")) => true,
                Some((Operator::Is, "false" | "0")) | Some((Operator::IsNot, "true" | "1")) => {
                    false
                }
                Some(_) => return Err(format!("expected {key}, {key}=true or {key}=false")),
            };
            return Ok(Filter::Flag(*flag, wanted));
        }
        let Some((_, name)) = TEXTS.iter().find(|(name, _)| *name == key) else {
            let known = || {
                let texts = TEXTS.iter().map(|(name, _)| *name);
                UNTIL[..1].iter().copied().chain(texts).chain(FLAGS.iter().map(|(name, _)| *name))
            };
            let close = suggest::nearest(key, known())
                .map_or_else(String::new, |close| format!("; did you mean {close}?"));
            let known: Vec<_> = known().collect();
            return Err(format!("unknown filter {key:?}; known: {}{close}", known.join(", ")));
        };
        let Some((operator, value)) = rest else {
            return Err(format!("expected {key}=VALUE, {key}!=VALUE or {key}~=REGEX"));
        };
        if *name == Text::Type && operator != Operator::Matches && !TYPES.contains(&value) {
            return Err(format!("unknown type {value:?}; known: {}", TYPES.join(", ")));
        }
        let matcher = match operator {
            Operator::Is => Matcher::Is(value.to_owned()),
            Operator::IsNot => Matcher::IsNot(value.to_owned()),
            Operator::Matches => Matcher::Matches(
                Regex::new(value)
                    .map_err(|error| format!("{value:?} is no expression: {error}"))?,
            ),
        };
        Ok(Filter::Text(*name, matcher))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use wbuild_store::UsageKind;

    use super::*;

    fn entry() -> UsageEntry {
        UsageEntry {
            kind: UsageKind::Snapshot,
            id: "0123456789abcdef".into(),
            size_bytes: 1,
            last_used: SystemTime::UNIX_EPOCH,
            description: "RUN make all".into(),
            in_use: false,
            shared: true,
            results: 2,
            parents: vec!["feed".into(), "beef".into()],
            created: 0,
        }
    }

    #[test]
    fn conditions() {
        for (text, want) in [
            ("id=0123", true),
            ("id==0123456789abcdef", true),
            ("id=123", false),
            ("id!=0123", false),
            ("id~=def$", true),
            ("parents=beef", true),
            ("parents!=beef", false),
            ("parents~=^b", true),
            ("description=RUN make all", true),
            ("description=RUN", false),
            ("description~=RUN .* all", true),
            ("description~=", true),
            ("type=regular", true),
            ("type!=regular", false),
            ("type~=^source", false),
            ("inuse", false),
            ("inuse=false", true),
            ("inuse!=true", true),
            ("mutable", false),
            ("immutable=1", true),
            ("shared", true),
            ("private", false),
            ("private=0", true),
            ("until=24h", true),
        ] {
            let filter: Filter = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(filter.matches(&entry()), want, "{text}");
        }
        let cache = UsageEntry {
            kind: UsageKind::Cache,
            description: "cache mount".into(),
            id: "sha256:feed".into(),
            ..entry()
        };
        for text in ["type=exec.cachemount", "mutable", "id=feed", "id=sha256:fe"] {
            assert!(text.parse::<Filter>().expect(text).matches(&cache), "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_says_what_is() {
        for (text, says) in [
            ("", "known: until, id"),
            ("descripton=x", "did you mean description?"),
            ("id", "id=VALUE"),
            ("until", "until=24h"),
            ("until!=24h", "until=24h"),
            ("until=soon", "duration"),
            ("shared=maybe", "shared=true"),
            ("shared~=t", "shared=true"),
            ("type=layer", "exec.cachemount"),
            ("description~=(", "no expression"),
        ] {
            let error = text.parse::<Filter>().expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
