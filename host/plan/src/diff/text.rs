//! A difference for people.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Change, Difference, NodeId};

/// The longest value that is shown on one line, in characters.
const LINE: usize = 160;
/// The most lines of a text that are shown.
const LINES: usize = 40;

/// The difference as text; empty if the same is built.
pub fn render(difference: &Difference) -> String {
    let mut out = String::new();
    let mut nodes = |mark: char, nodes: &[NodeId]| {
        for node in nodes {
            let _ = writeln!(out, "{mark} {}", heading(node));
        }
    };
    nodes('-', &difference.removed);
    nodes('+', &difference.added);
    for changed in &difference.changed {
        let _ = writeln!(out, "~ {}", heading(&changed.what));
        changed.fields.iter().for_each(|field| change(&mut out, field));
    }
    if !difference.follows.is_empty() {
        let _ = writeln!(out, "the same on another base:");
        for node in &difference.follows {
            let _ = writeln!(out, "  {}", heading(node));
        }
    }
    for result in &difference.results {
        let what = &result.what;
        let _ = writeln!(out, "result {}", format!("{} {}", what.op, what.name).trim_end());
        result.fields.iter().for_each(|field| change(&mut out, field));
    }
    if !difference.pins.is_empty() {
        out.push_str("names that stand for something else\n");
        difference.pins.iter().for_each(|pin| change(&mut out, pin));
    }
    if !difference.frontend.is_empty() {
        out.push_str("the frontend is another, which by itself changes nothing\n");
        difference.frontend.iter().for_each(|field| change(&mut out, field));
    }
    out
}

fn heading(node: &NodeId) -> String {
    let name = node.name.lines().next().unwrap_or_default();
    let more = if node.name.lines().nth(1).is_some() { " …" } else { "" };
    let at = node.at.as_deref().map_or(String::new(), |at| format!("  ({at})"));
    // What has a name says what it is in it.
    let op = if name.is_empty() || !name.starts_with('[') {
        format!("{} ", node.op)
    } else {
        String::new()
    };
    format!("{op}{name}{more}{at}").trim_end().to_owned()
}

fn change(out: &mut String, change: &Change) {
    let Change { field, old, new } = change;
    if let (Some(Value::String(old)), Some(Value::String(new))) = (old, new)
        && (old.contains('\n') || new.contains('\n'))
    {
        let _ = writeln!(out, "    {field}:");
        return lines(out, old, new);
    }
    let (old, new) = (old.as_ref().map(value), new.as_ref().map(value));
    let _ = match (old, new) {
        (Some(old), Some(new)) if old.chars().count() + new.chars().count() > LINE / 2 => {
            writeln!(out, "    {field}:\n      - {old}\n      + {new}")
        }
        (Some(old), Some(new)) => writeln!(out, "    {field}: {old} is now {new}"),
        (Some(old), None) => writeln!(out, "    {field}: {old} is gone"),
        (None, Some(new)) => writeln!(out, "    {field}: {new} is new"),
        (None, None) => Ok(()),
    };
}

/// Texts of several lines: those between what both begin and end with.
fn lines(out: &mut String, old: &str, new: &str) {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let ahead = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - ahead;
    let behind = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b);
    let behind = behind.count();
    if ahead > 0 {
        let _ = writeln!(out, "        {}", clip(old[ahead - 1]));
    }
    for (mark, list) in [('-', &old), ('+', &new)] {
        let list = &list[ahead..list.len() - behind];
        for line in list.iter().take(LINES) {
            let _ = writeln!(out, "      {mark} {}", clip(line));
        }
        if list.len() > LINES {
            let _ = writeln!(out, "      {mark} … {} more lines", list.len() - LINES);
        }
    }
}

fn value(value: &Value) -> String {
    clip(&value.to_string())
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(LINE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
