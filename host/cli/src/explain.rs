//! Explanations in words: why a step ran, where a result came from; and which step is meant.
//!
//! Values that may hold anything are quoted, all else is freed of control characters.

use std::fmt::Write as _;

use wbuild_api::explain::{
    Change, Explained, Explanation, FileChange, FileChangeKind, KeyKind, RecordSource,
    StepExplained, StepOutcome,
};

use crate::exit::Fault;
use crate::{terminal, units};

/// Of a long value so many characters are shown around the first difference.
const AROUND: usize = 40;

/// An explanation, a line each reason. `now`: to say how long ago, in seconds since 1970.
pub fn lines(why: &Explanation, now: Option<u64>) -> Vec<String> {
    let ago = |made: u64| match now {
        Some(now) => format!(" (made {} ago)", units::age(now.saturating_sub(made))),
        None => String::new(),
    };
    match why {
        Explanation::Found { by, key, from, made } => {
            let place = match from {
                RecordSource::ThisBuild => "an equal step of this build has made it".to_owned(),
                RecordSource::Local => "in the state directory".to_owned(),
                RecordSource::Backend => "through a cache backend".to_owned(),
                RecordSource::Elsewhere(place) => format!("in {}", clean(place)),
            };
            let key = key.digest().short();
            let ago = made.map(ago).unwrap_or_default();
            vec![match by {
                KeyKind::Definition => format!("found by its definition key {key}: {place}{ago}"),
                KeyKind::Result => format!(
                    "found by its result key {key}: {place}{ago}; what it stands on and reads is the same"
                ),
            }]
        }
        Explanation::NotNeeded => vec!["not needed: a step that is built on it was found".into()],
        Explanation::CacheIgnored => vec!["the cache was not to be used for it".into()],
        Explanation::New => vec!["no earlier run of it is known".into()],
        Explanation::Gone { made } => {
            vec![format!("nothing has changed, but its result{} is no longer there", ago(*made))]
        }
        Explanation::Changed { changes, .. } => changes.iter().flat_map(change).collect(),
    }
}

fn change(change: &Change) -> Vec<String> {
    match change {
        Change::Value { name, before, after } => {
            let name = clean(name);
            vec![match (before, after) {
                (Some(before), Some(after)) => {
                    let (before, after) = around(before, after);
                    format!("{name}: {before:?} is now {after:?}")
                }
                (None, Some(after)) => format!("{name} is new: {:?}", around("", after).1),
                (Some(before), None) => format!("{name} is gone: {:?}", around(before, "").0),
                (None, None) => format!("{name} has changed"),
            }]
        }
        Change::Hidden { name } => {
            vec![format!("{} has changed (the value is not shown)", clean(name))]
        }
        Change::Input { role, before, after } => {
            let (role, before, after) = (clean(role), input(before), input(after));
            vec![match (before.is_empty(), after.is_empty()) {
                (true, _) => format!("{role} is new: {after}"),
                (_, true) => format!("{role} is gone: {before}"),
                _ if before == after => format!("{role}: the result of {after} has changed"),
                _ => format!("{role}: {before} is now {after}"),
            }]
        }
        Change::Files { of, files, more } => {
            let of = clean(of);
            let file = |FileChange { path, how }: &FileChange| {
                let how = match how {
                    FileChangeKind::New => "is new",
                    FileChangeKind::Gone => "is gone",
                    FileChangeKind::Content => "has changed",
                    FileChangeKind::Metadata => "has another mode or owner",
                };
                format!("{} {how} in {of}", clean(if path.is_empty() { "/" } else { path }))
            };
            let mut lines: Vec<String> = files.iter().map(file).collect();
            if *more > 0 {
                lines.push(format!("and {more} more in {of}"));
            }
            lines
        }
        Change::Other => vec!["something else of the step has changed".into()],
    }
}

fn clean(text: &str) -> String {
    terminal::plain_line(text.as_bytes())
}

/// What an input is: digests are shortened.
fn input(name: &str) -> String {
    let name = clean(name);
    match name.split_once("@sha256:") {
        Some((reference, digest)) => {
            format!("{reference}@sha256:{}…", digest.chars().take(12).collect::<String>())
        }
        None => name,
    }
}

/// The parts of two texts around the first difference.
fn around(before: &str, after: &str) -> (String, String) {
    let same = before.chars().zip(after.chars()).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(AROUND);
    let part = |text: &str| {
        let mut out = String::new();
        if from > 0 {
            out.push('…');
        }
        let mut rest = text.chars().skip(from);
        out.extend(rest.by_ref().take(3 * AROUND));
        if rest.next().is_some() {
            out.push('…');
        }
        out
    };
    (part(before), part(after))
}

/// Steps in words. `now` in seconds since 1970.
pub fn text(explained: &Explained, steps: &[&StepExplained], now: u64) -> String {
    let ago = |at: u64| units::age(now.saturating_sub(at));
    let mut out = format!("{}\n", clean(&explained.definition));
    // Writing to memory does not fail.
    let _ = match explained.unchanged_at {
        None => writeln!(out, "built {} ago", ago(explained.at)),
        Some(at) => writeln!(
            out,
            "built {} ago, every step found as before; last with changes {} ago:",
            ago(at),
            ago(explained.at)
        ),
    };
    for step in steps {
        let end = match step.end {
            StepOutcome::Done => "DONE",
            StepOutcome::Cached => "CACHED",
            StepOutcome::Failed => "FAILED",
            StepOutcome::Cancelled => "CANCELLED",
        };
        let at = step
            .at
            .as_ref()
            .map_or(String::new(), |at| format!(" ({}:{})", clean(&at.file), at.line));
        let _ = writeln!(out, "\n#{} {end} {}{at}", step.number, clean(&step.name));
        for line in step.why.iter().flat_map(|why| lines(why, Some(now))) {
            let _ = writeln!(out, "    {line}");
        }
    }
    out
}

/// The step that is meant by `wanted`: its number (`3`, `#3`), a line of the definition
/// (`Dockerfile:7`, `:7`), or a part of its name (`[build 3/5]`, `npm ci`).
///
/// # Errors
///
/// It is none, or more than one.
pub fn find<'a>(explained: &'a Explained, wanted: &str) -> Result<&'a StepExplained, Fault> {
    let steps = &explained.steps;
    let number = wanted.strip_prefix('#').unwrap_or(wanted).parse::<u32>().ok();
    if let Some(step) = steps.iter().find(|step| Some(step.number) == number) {
        return Ok(step);
    }
    let lower = wanted.to_lowercase();
    let mut found: Vec<&StepExplained> =
        steps.iter().filter(|step| step.name.to_lowercase().contains(&lower)).collect();
    if found.is_empty()
        && let Some((file, line)) = wanted.rsplit_once(':')
        && let Ok(line) = line.parse::<usize>()
    {
        let there = |step: &&StepExplained| {
            step.at.as_ref().is_some_and(|at| {
                (file.is_empty() || at.file == file || at.file.ends_with(&format!("/{file}")))
                    && (at.line..=at.last).contains(&line)
            })
        };
        found = steps.iter().filter(there).collect();
    }
    let list = |steps: &[&StepExplained]| {
        let names = steps.iter().map(|step| format!("#{} {}", step.number, clean(&step.name)));
        names.collect::<Vec<_>>().join("\n        ")
    };
    match found[..] {
        [step] => Ok(step),
        [] => Err(Fault::input(format!("no step of the last build is called {wanted:?}"))
            .hint(format!("its steps are:\n        {}", list(&steps.iter().collect::<Vec<_>>())))),
        _ => Err(Fault::input(format!("{} steps are called {wanted:?}", found.len()))
            .hint(format!("give the number, or more of the name:\n        {}", list(&found)))),
    }
}

#[cfg(test)]
mod tests {
    use wbuild_api::explain::Place;
    use wbuild_graph::{CacheKey, Digest};

    use super::*;

    fn step(number: u32, name: &str, line: usize) -> StepExplained {
        StepExplained {
            number,
            name: name.into(),
            at: Some(Place { file: "dir/Dockerfile".into(), line, last: line + 1 }),
            end: StepOutcome::Done,
            why: Some(Explanation::New),
        }
    }

    #[test]
    fn a_step_is_found_by_number_place_and_name() {
        let steps = vec![
            step(1, "[build 1/3] FROM alpine:3", 1),
            step(4, "[build 2/3] RUN make", 3),
            step(5, "[build 3/3] RUN make 4", 5),
        ];
        let explained = Explained { steps, ..Explained::default() };
        for (wanted, number) in [
            ("1", 1),
            ("#4", 4),
            ("4", 4),
            ("build 2/3", 4),
            ("run MAKE 4", 5),
            ("Dockerfile:4", 4),
            ("dir/Dockerfile:6", 5),
            (":1", 1),
            ("alpine:3", 1),
        ] {
            assert_eq!(find(&explained, wanted).expect(wanted).number, number, "{wanted}");
        }
        for (wanted, said) in
            [("make", "2 steps are called"), ("build", "3 steps"), ("x", "no step")]
        {
            let fault = find(&explained, wanted).expect_err(wanted);
            assert!(fault.failure.message.contains(said), "{}", fault.failure.message);
            assert!(fault.failure.hints[0].contains("#5 [build 3/3] RUN make 4"), "{wanted}");
        }
        for wanted in ["other:4", ":9", "ockerfile:4"] {
            assert!(find(&explained, wanted).is_err(), "{wanted}");
        }
    }

    #[test]
    fn reasons_are_said_in_words() {
        let key = CacheKey(Digest::of(b"key"));
        let found = |by, from| Explanation::Found { by, key, from, made: Some(40) };
        let changed = |changes| Explanation::Changed { made: 1, changes };
        let value = |before: Option<&str>, after: Option<&str>| Change::Value {
            name: "variable A".into(),
            before: before.map(Into::into),
            after: after.map(Into::into),
        };
        let input = |before: &str, after: &str| Change::Input {
            role: "base".into(),
            before: before.into(),
            after: after.into(),
        };
        let file = |path: &str, how| FileChange { path: path.into(), how };
        let image = |digit: &str| format!("alpine@sha256:{}", digit.repeat(64));
        let long = |end: &str| format!("{}{end}{}", "x".repeat(100), "y".repeat(200));
        for (why, expected) in [
            (
                found(KeyKind::Definition, RecordSource::Local),
                "found by its definition key 2c70e12b7a06: in the state directory (made 1 minute ago)",
            ),
            (
                found(KeyKind::Result, RecordSource::ThisBuild),
                "found by its result key 2c70e12b7a06: an equal step of this build has made it \
                 (made 1 minute ago); what it stands on and reads is the same",
            ),
            (
                found(KeyKind::Definition, RecordSource::Elsewhere("r.example/c:1".into())),
                "found by its definition key 2c70e12b7a06: in r.example/c:1 (made 1 minute ago)",
            ),
            (
                Explanation::Gone { made: 40 },
                "nothing has changed, but its result (made 1 minute ago) is no longer there",
            ),
            (
                changed(vec![value(Some("1"), Some("2\x1b"))]),
                "variable A: \"1\" is now \"2\\u{1b}\"",
            ),
            (changed(vec![value(None, Some("2"))]), "variable A is new: \"2\""),
            (changed(vec![value(Some("1"), None)]), "variable A is gone: \"1\""),
            (
                changed(vec![input(&image("a"), &image("b"))]),
                "base: alpine@sha256:aaaaaaaaaaaa… is now alpine@sha256:bbbbbbbbbbbb…",
            ),
            (changed(vec![input("RUN x", "RUN x")]), "base: the result of RUN x has changed"),
            (
                changed(vec![Change::Files {
                    of: "the build context .".into(),
                    files: vec![
                        file("a", FileChangeKind::Content),
                        file("b\n", FileChangeKind::New),
                    ],
                    more: 3,
                }]),
                "a has changed in the build context .|b is new in the build context .|\
                 and 3 more in the build context .",
            ),
        ] {
            assert_eq!(lines(&why, Some(100)).join("|"), expected);
        }
        let (before, after) = around(&long("a"), &long("b"));
        assert_eq!(before.chars().count(), 3 * AROUND + 2);
        assert!(before.starts_with(&format!("…{}ay", "x".repeat(AROUND))), "{before}");
        assert!(after.starts_with(&format!("…{}by", "x".repeat(AROUND))), "{after}");
    }
}
