//! A file as text again: one line for each command, blocks indented.
//!
//! What is printed says the same as what was parsed. Comments that describe nothing are gone.

use wbuild_dockerfile::Text;

use crate::ast::{Earthfile, Kind, Recipe, Statement};

/// Prints a file that was parsed without errors.
pub fn print(file: &Earthfile) -> String {
    let mut out = String::new();
    if let Some(version) = &file.version {
        lines(&mut out, 0, &version.comments);
        line(&mut out, 0, &version.line);
    }
    statements(&mut out, 0, &file.base);
    for recipe in &file.targets {
        self::recipe(&mut out, recipe);
    }
    for recipe in &file.functions {
        self::recipe(&mut out, recipe);
    }
    out
}

fn line(out: &mut String, depth: usize, text: &str) {
    out.extend(std::iter::repeat_n("    ", depth));
    out.push_str(text);
    out.push('\n');
}

fn lines(out: &mut String, depth: usize, comments: &[Text]) {
    for comment in comments {
        line(out, depth, format!("# {}", comment.as_str()).trim_end());
    }
}

fn recipe(out: &mut String, recipe: &Recipe) {
    out.push('\n');
    lines(out, 0, &recipe.comments);
    line(out, 0, &format!("{}:", recipe.name));
    if let Some(marker) = &recipe.marker {
        line(out, 1, marker);
    }
    statements(out, 1, &recipe.body);
}

fn statements(out: &mut String, depth: usize, statements: &[Statement]) {
    for statement in statements {
        lines(out, depth, &statement.comments);
        if !matches!(statement.kind, Kind::If { .. }) {
            line(out, depth, &statement.line);
        }
        match &statement.kind {
            Kind::If { branches, otherwise } => {
                for branch in branches {
                    line(out, depth, &branch.line);
                    self::statements(out, depth + 1, &branch.body);
                }
                if let Some(body) = otherwise {
                    line(out, depth, "ELSE");
                    self::statements(out, depth + 1, body);
                }
            }
            Kind::For { body, .. } | Kind::Wait(body) | Kind::With { body, .. } => {
                self::statements(out, depth + 1, body);
            }
            Kind::Try { body, finally } => {
                self::statements(out, depth + 1, body);
                if !finally.is_empty() {
                    line(out, depth, "FINALLY");
                    self::statements(out, depth + 1, finally);
                }
            }
            _ => continue,
        }
        line(out, depth, "END");
    }
}
