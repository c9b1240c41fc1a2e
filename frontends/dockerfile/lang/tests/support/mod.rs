//! What the golden tests share: case folders, a renderer of diagnostics, a recording host.
#![allow(dead_code)]

pub mod dump;
pub mod literals;
pub mod pages;
pub mod recorder;
pub mod words;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use wbuild_dockerfile::{Diagnostic, Severity};

/// The config of an image that has files.
pub const IMAGE: &str =
    r#"{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":["sha256:1"]}}"#;

/// Case folders below `tests/<kind>`, in order of their names.
pub fn cases(kind: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(kind);
    let entries = std::fs::read_dir(&root).expect("the folder of cases can be read");
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert!(!folders.is_empty(), "no cases in {}", root.display());
    folders
}

/// Compares with `expect.txt` of a case, or writes it if `UPDATE=1` is set.
pub fn compare(case: &Path, got: &str, failed: &mut Vec<String>) {
    check_golden(&case.join("expect.txt"), got, failed);
}

/// Compares with a file, or writes it if `UPDATE=1` is set.
pub fn check_golden(file: &Path, got: &str, failed: &mut Vec<String>) {
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(file, got).expect("the golden file can be written");
        return;
    }
    let expect = std::fs::read_to_string(file).unwrap_or_default();
    if expect != got {
        let parts = file.components().rev().take(2).collect::<Vec<_>>();
        let name = parts.iter().rev().collect::<PathBuf>().display().to_string();
        let (mut expect, mut got) = (expect.lines(), got.lines());
        let mut number = 1;
        let difference = loop {
            match (expect.next(), got.next()) {
                (Some(a), Some(b)) if a == b => number += 1,
                (a, b) => break format!("line {number}\n  expected: {a:?}\n  got:      {b:?}"),
            }
        };
        failed.push(format!("{name}: {difference}"));
    }
}

/// Fails with all that differed.
pub fn finish(failed: Vec<String>) {
    assert!(
        failed.is_empty(),
        "{} cases are not as expected (UPDATE=1 rewrites golden files):\n{}",
        failed.len(),
        failed.join("\n")
    );
}

/// A registered text.
pub struct Source {
    pub name: String,
    pub text: Vec<u8>,
}

/// Diagnostics as plain text, with the lines they are about.
pub fn render(diagnostics: &[Diagnostic], sources: &[Source]) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        let severity = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
            Severity::Help => "help",
        };
        let code = &diagnostic.code;
        writeln!(out, "{severity}[{code}]: {}", diagnostic.message).expect("a String takes all");
        for label in &diagnostic.labels {
            let source = &sources[label.at.source as usize];
            let sign = if label.primary { '^' } else { '-' };
            excerpt(&mut out, source, label.at.start as usize, label.at.end as usize, sign);
            if !label.text.is_empty() {
                out.truncate(out.trim_end().len());
                writeln!(out, " {}", label.text).expect("a String takes all");
            }
        }
        if let Some(help) = &diagnostic.help {
            writeln!(out, "  help: {help}").expect("a String takes all");
        }
        out.push('\n');
    }
    out
}

fn excerpt(out: &mut String, source: &Source, start: usize, end: usize, sign: char) {
    let mut at = 0;
    let mut first = true;
    for (number, line) in source.text.split_inclusive(|b| *b == b'\n').enumerate() {
        let next = at + line.len();
        let touches = start < next.max(at + 1) && (end > at || start >= at) && start <= next;
        let after = start >= next && next != source.text.len();
        if touches && !after && (end > at || start == end) {
            if first {
                writeln!(out, " --> {}:{}", source.name, number + 1).expect("a String takes all");
                first = false;
            }
            let text = String::from_utf8_lossy(line);
            let text = text.trim_end_matches(['\n', '\r']);
            let from = start.saturating_sub(at).min(line.len());
            let to = end.min(next).saturating_sub(at).max(from);
            let column = String::from_utf8_lossy(&line[..from]).chars().count();
            let marked = String::from_utf8_lossy(&line[from..to]);
            let width = marked.trim_end_matches(['\n', '\r']).chars().count().max(1);
            writeln!(out, "{:4} | {text}", number + 1).expect("a String takes all");
            let blanks = " ".repeat(column);
            let signs = sign.to_string().repeat(width);
            writeln!(out, "     | {blanks}{signs}").expect("a String takes all");
        }
        at = next;
        if at >= end.max(start + 1) {
            break;
        }
    }
}
