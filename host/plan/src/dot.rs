//! Plans as DOT, for graphviz: `wbuild plan --format dot . | dot -Tsvg`.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{Node, Output, Plan};

/// The longest label, in characters.
const LABEL: usize = 80;

/// The plan as a directed graph: boxes are nodes, arrows lead to what uses them.
pub fn render(plan: &Plan) -> String {
    let mut out = String::from(
        "digraph plan {\n  rankdir=LR;\n  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\"];\n",
    );
    for node in &plan.nodes {
        let label = if node.name.is_empty() { summary(node) } else { node.name.clone() };
        let place = node.spans.first().map_or(String::new(), |place| format!("\n{place}"));
        let colour = match node.op.as_str() {
            "exec" => "#dbe9f6",
            "file" | "merge" | "diff" => "#eeeeee",
            _ => "#e2f0d9",
        };
        let _ = writeln!(
            out,
            "  n{} [label={}, fillcolor=\"{colour}\"];",
            node.id,
            quoted(&format!("{} {}\n{}{place}", node.id, node.op, clip(&label)))
        );
    }
    for node in &plan.nodes {
        for (at, input) in node.inputs.iter().enumerate() {
            let role = role(node, at);
            let _ = writeln!(out, "  n{} -> n{} [label={}];", input.node, node.id, quoted(&role));
        }
    }
    let mut result = 0;
    let mut end = |root: Option<Output>, label: String| {
        let _ = writeln!(
            out,
            "  r{result} [shape=ellipse, fillcolor=\"#fff2cc\", label={}];",
            quoted(&label)
        );
        if let Some(root) = root {
            let _ = writeln!(out, "  n{} -> r{result};", root.node);
        }
        result += 1;
    };
    let results = &plan.results;
    for image in &results.images {
        end(image.root, format!("image {}\n{}", image.name, image.platform));
    }
    for files in &results.files {
        end(Some(files.root), format!("files {}\n{}", files.name, files.path));
    }
    for (outputs, label) in [(&results.required, "required"), (&results.effects, "effect")] {
        for output in outputs {
            end(Some(*output), label.to_owned());
        }
    }
    if let Some(fails) = results.fails {
        end(Some(fails), "failure".to_owned());
    }
    out.push_str("}\n");
    out
}

/// What a node without a name is.
fn summary(node: &Node) -> String {
    let text = |name: &str| node.fields.get(name).and_then(Value::as_str).unwrap_or_default();
    match node.op.as_str() {
        "image" => text("reference").to_owned(),
        "local" => text("context").to_owned(),
        "git" | "http" => text("url").to_owned(),
        _ => String::new(),
    }
}

/// The part that an input has, by the field that refers to it.
pub(crate) fn role(node: &Node, input: usize) -> String {
    let is = |value: &Value| value.get("input").and_then(Value::as_u64) == Some(input as u64);
    for (name, value) in &node.fields {
        if is(value) {
            return name.clone();
        }
        let Value::Array(items) = value else { continue };
        for item in items {
            if is(item) {
                return String::new();
            }
            if item.get("from").is_some_and(is) {
                return match item.get("target").and_then(Value::as_str) {
                    Some("/") if name == "mounts" => "root".to_owned(),
                    Some(target) if name == "mounts" => target.to_owned(),
                    _ => "copy".to_owned(),
                };
            }
        }
    }
    String::new()
}

fn clip(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(LABEL) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// A quoted string of DOT: only quotes and backslashes mean anything in it, and control characters
/// have no place there.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
