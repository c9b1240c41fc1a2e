//! The nearest earlier run of a step, and what is different from it.

use std::collections::{BTreeMap, HashMap};

use wbuild_api::explain::{Change, Explanation};
use wbuild_graph::{CacheKey, NameParts};

use super::ingredients::{DIGEST, Ingredients, InputFacts};
use super::manifest::Manifest;

/// A step whose text is another is still the same one if no more than this is different: the command,
/// what it stands on, and something of the instruction that was changed with it.
const ALIKE: usize = 3;

/// Of steps with other texts so many are looked at on either side of a position: a build may have
/// thousands of steps.
const NEIGHBOURS: usize = 16;

/// Earlier runs, and what they are found by.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The newest last.
    runs: Vec<Ingredients>,
    keys: HashMap<CacheKey, usize>,
    /// By kind and text.
    texts: HashMap<(String, String), Vec<usize>>,
    /// By kind and stage, with their positions, sorted.
    stages: BTreeMap<(String, String), Vec<(u32, usize)>>,
}

impl Known {
    pub(super) fn new(runs: Vec<Ingredients>) -> Known {
        let mut known = Known { runs, ..Known::default() };
        for (index, run) in known.runs.iter().enumerate() {
            known.keys.extend(run.keys.iter().map(|key| (*key, index)));
            known.texts.entry((run.kind.clone(), run.text.clone())).or_default().push(index);
            let stage = (run.kind.clone(), stage(&run.stage).to_owned());
            known.stages.entry(stage).or_default().push((run.position, index));
        }
        known.stages.values_mut().for_each(|runs| runs.sort_unstable());
        known
    }

    pub(super) fn runs(&self) -> &[Ingredients] {
        &self.runs
    }

    /// Those that may have been `now` before. The same text tells a step, also where its stage has
    /// got another name; else it is one near its place in its stage.
    fn candidates(&self, now: &Ingredients) -> Vec<&Ingredients> {
        let mut found = Vec::new();
        let by_text = self.texts.get(&(now.kind.clone(), now.text.clone()));
        found.extend(by_text.into_iter().flatten().copied());
        if !found.iter().any(|index| same_stage(&self.runs[*index].stage, &now.stage)) {
            for ((kind, stage), runs) in &self.stages {
                if *kind != now.kind || !same_stage(stage, &now.stage) {
                    continue;
                }
                let from = runs.partition_point(|(position, _)| *position < now.position);
                let after = runs.partition_point(|(position, _)| *position <= now.position);
                let near = from.saturating_sub(NEIGHBOURS)..(after + NEIGHBOURS).min(runs.len());
                found.extend(runs[near].iter().map(|(_, index)| *index));
            }
        }
        found.sort_unstable();
        found.dedup();
        // The newest.
        found.drain(..found.len().saturating_sub(4 * NEIGHBOURS));
        found.into_iter().map(|index| &self.runs[index]).collect()
    }
}

/// Why `now` was not found among what is known.
pub(super) fn explain(
    now: &Ingredients,
    known: &Known,
    files: &dyn Fn(&str) -> Option<Manifest>,
) -> Explanation {
    // The newest of those that would have been the answer.
    if let Some(gone) = now.keys.iter().filter_map(|key| known.keys.get(key)).max() {
        return Explanation::Gone { made: known.runs[*gone].made };
    }
    let differences =
        |before| differing_fields(now, before).count() + differing_inputs(now, before).count();
    // Of equally near ones the newest, which comes last.
    let nearest = known.candidates(now).into_iter().rev().min_by_key(|before| {
        let other_text = usize::from(now.text != before.text);
        (differences(before) + other_text, now.position.abs_diff(before.position))
    });
    match nearest {
        Some(before) if now.text == before.text || differences(before) <= ALIKE => {
            Explanation::Changed { made: before.made, changes: changes(now, before, files) }
        }
        _ => Explanation::New,
    }
}

/// The stage without the platform.
fn stage(text: &str) -> &str {
    text.rsplit(' ').next().filter(|word| !word.contains('/')).unwrap_or_default()
}

/// Whether two steps may be of one stage, whatever the platform. Where there is one stage only, names
/// of steps do not say it.
fn same_stage(a: &str, b: &str) -> bool {
    let (a, b) = (stage(a), stage(b));
    a == b || a.is_empty() || b.is_empty()
}

fn changes(
    now: &Ingredients,
    before: &Ingredients,
    files: &dyn Fn(&str) -> Option<Manifest>,
) -> Vec<Change> {
    let mut changes: Vec<Change> = differing_fields(now, before).map(value).collect();
    changes.extend(differing_inputs(now, before).map(|(before, now)| input(before, now, files)));
    if changes.is_empty() {
        changes.push(Change::Other);
    }
    changes
}

type Difference<'a> = (String, Option<&'a str>, Option<&'a str>);

/// Fields by name; of those that have one name, in their order.
fn by_name(ingredients: &Ingredients) -> BTreeMap<(&str, usize), &str> {
    let mut fields = BTreeMap::new();
    for (name, value) in &ingredients.fields {
        let mut number = 1;
        while fields.contains_key(&(name.as_str(), number)) {
            number += 1;
        }
        fields.insert((name.as_str(), number), value.as_str());
    }
    fields
}

fn differing_fields<'a>(
    now: &'a Ingredients,
    before: &'a Ingredients,
) -> impl Iterator<Item = Difference<'a>> {
    let (now, before) = (by_name(now), by_name(before));
    let mut found = Vec::new();
    for (key, value) in &now {
        let old = before.get(key).copied();
        if old != Some(*value) {
            found.push((named(*key), old, Some(*value)));
        }
    }
    for (key, value) in before.iter().filter(|(key, _)| !now.contains_key(*key)) {
        found.push((named(*key), Some(*value), None));
    }
    found.into_iter()
}

fn named((name, number): (&str, usize)) -> String {
    match number {
        1 => name.to_owned(),
        _ => format!("{name} ({number})"),
    }
}

fn value((name, before, after): Difference<'_>) -> Change {
    let shown = |text: Option<&str>| text.is_none_or(|text| !text.starts_with(DIGEST));
    match shown(before) && shown(after) {
        true => Change::Value {
            name,
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        },
        false => Change::Hidden { name },
    }
}

type Inputs<'a> = (Option<&'a InputFacts>, Option<&'a InputFacts>);

/// Inputs by their part, of those that have one part in their order.
fn differing_inputs<'a>(
    now: &'a Ingredients,
    before: &'a Ingredients,
) -> impl Iterator<Item = Inputs<'a>> {
    let numbered = |inputs: &'a [InputFacts]| -> BTreeMap<(&'a str, usize), &'a InputFacts> {
        let mut all = BTreeMap::new();
        for input in inputs {
            let earlier = all.keys().filter(|(role, _)| *role == input.role).count();
            all.insert((input.role.as_str(), earlier), input);
        }
        all
    };
    let (now, before) = (numbered(&now.inputs), numbered(&before.inputs));
    let mut found = Vec::new();
    for (key, input) in &now {
        let old = before.get(key).copied();
        if old.is_none_or(|old| old.value != input.value) {
            found.push((old, Some(*input)));
        }
    }
    found.extend(
        before.iter().filter(|(key, _)| !now.contains_key(*key)).map(|(_, old)| (Some(*old), None)),
    );
    found.into_iter()
}

fn input(
    before: Option<&InputFacts>,
    now: Option<&InputFacts>,
    files: &dyn Fn(&str) -> Option<Manifest>,
) -> Change {
    if let (Some(before), Some(now)) = (before, now)
        && let (Some(old), Some(new)) = (&before.files, &now.files)
        && let (Some(old), Some(new)) = (files(old), files(new))
        && let Some(change) = new.changes(&old, &now.name)
    {
        return change;
    }
    let role = now.or(before).map(|input| input.role.clone()).unwrap_or_default();
    let name =
        |input: Option<&InputFacts>| input.map(|input| input.name.clone()).unwrap_or_default();
    let (mut before, after) = (name(before), name(now));
    // A step that has only got another number is the same one.
    let (old, new) = (NameParts::of(&before), NameParts::of(&after));
    if (old.stage, old.text) == (new.stage, new.text) {
        before.clone_from(&after);
    }
    Change::Input { role, before, after }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wbuild_graph::Digest;

    fn step(position: u32, text: &str, made: u64, base: &str) -> Ingredients {
        let key = format!("{text} on {base}");
        Ingredients {
            kind: "exec".into(),
            stage: "build".into(),
            position,
            text: format!("RUN {text}"),
            keys: vec![CacheKey(Digest::of(key.as_bytes()))],
            made,
            fields: vec![("command".into(), text.into()), ("variable A".into(), "1".into())],
            op: text.into(),
            inputs: vec![InputFacts {
                role: "base".into(),
                name: "the step before".into(),
                value: base.into(),
                files: None,
            }],
        }
    }

    fn told(now: &Ingredients, known: &[Ingredients]) -> Explanation {
        explain(now, &Known::new(known.to_vec()), &|_| None)
    }

    fn command(before: &str, after: &str) -> Change {
        Change::Value {
            name: "command".into(),
            before: Some(before.into()),
            after: Some(after.into()),
        }
    }

    #[test]
    fn the_nearest_earlier_run_is_compared() {
        let known =
            [step(2, "make", 1, "x"), step(3, "make test", 1, "y"), step(2, "make", 2, "z")];
        assert_eq!(told(&step(2, "make", 9, "new"), &[]), Explanation::New);
        // The same command on another base: the newest run of it.
        let base = |name: &str| Change::Input {
            role: "base".into(),
            before: name.into(),
            after: name.into(),
        };
        let changes = vec![base("the step before")];
        assert_eq!(
            told(&step(2, "make", 9, "new"), &known),
            Explanation::Changed { made: 2, changes: changes.clone() }
        );
        // A line was put above it.
        assert_eq!(
            told(&step(4, "make test", 9, "new"), &known),
            Explanation::Changed { made: 1, changes }
        );
        // The command is another, and the base one of those known.
        assert_eq!(
            told(&step(2, "make -j", 9, "z"), &known),
            Explanation::Changed { made: 2, changes: vec![command("make", "make -j")] }
        );
        // Nothing is different.
        assert_eq!(told(&step(2, "make", 9, "x"), &known), Explanation::Gone { made: 1 });
    }

    #[test]
    fn a_step_that_has_little_in_common_is_another_one() {
        let known = [step(2, "make", 1, "x")];
        let mut now = step(2, "other", 9, "y");
        let two = |why| matches!(why, Explanation::Changed { changes, .. } if changes.len() == 2);
        assert!(two(told(&now, &known)));
        now.fields.extend([("user".into(), "a".into()), ("network".into(), "none".into())]);
        assert_eq!(told(&now, &known), Explanation::New);
        // With the same text it is the same, however much is different.
        now.text = "RUN make".into();
        assert!(matches!(told(&now, &known), Explanation::Changed { .. }));
    }

    /// Each of many steps finds its own earlier run without a look at all others.
    #[test]
    fn many_steps_are_compared_with_few() {
        let run = |n: u32, base: &str| {
            let mut run = step(2 + n % 10, &format!("make {n}"), u64::from(n), base);
            run.stage = format!("stage{}", n / 10);
            run
        };
        let known = Known::new((0..2000).map(|n| run(n, "x")).collect());
        for n in 0..2000 {
            let now = run(n, "y");
            assert_eq!(known.candidates(&now).len(), 1);
            let why = explain(&now, &known, &|_| None);
            assert!(matches!(why, Explanation::Changed { made, .. } if made == u64::from(n)));
            let mut edited = now;
            edited.text = "RUN other".into();
            assert!(known.candidates(&edited).len() <= 2 * NEIGHBOURS + 1);
        }
    }

    #[test]
    fn stages_and_platforms() {
        for (a, b, same) in [
            ("build", "build", true),
            ("build", "test", false),
            ("", "stage-0", true),
            ("linux/arm64 build", "build", true),
            ("linux/arm64 build", "linux/amd64 test", false),
            ("linux/arm64", "test", true),
        ] {
            assert_eq!(same_stage(a, b), same, "{a} {b}");
            assert_eq!(same_stage(b, a), same, "{b} {a}");
        }
    }

    #[test]
    fn values_that_are_hidden_stay_hidden_and_what_has_no_name_is_said() {
        let known = step(2, "make", 1, "x");
        let mut now = step(2, "make", 9, "x");
        now.keys = vec![CacheKey(Digest::of(b"another"))];
        let one = |now: &Ingredients| match told(now, std::slice::from_ref(&known)) {
            Explanation::Changed { changes, .. } => changes,
            other => panic!("{other:?}"),
        };
        assert_eq!(one(&now), [Change::Other]);
        now.fields[1].1 = format!("{DIGEST}123");
        assert_eq!(one(&now), [Change::Hidden { name: "variable A".into() }]);
        now.fields.pop();
        let gone =
            Change::Value { name: "variable A".into(), before: Some("1".into()), after: None };
        assert_eq!(one(&now), [gone]);
    }
}
