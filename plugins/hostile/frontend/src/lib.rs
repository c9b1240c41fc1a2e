//! A frontend that misbehaves as the option `behaviour` says. What must happen is in the right
//! column; "answered" means that the host gives a failure, which this component hands on.
//!
//! ```text
//! ok                 nothing wrong: one image with one small file
//! nothing            returns without any result                     a valid, empty build
//! fail               returns a failure of kind opt("kind")          the build fails with it
//! trap               panics                                         trap
//! spin               computes for ever                              CPU limit
//! spin-host-calls    calls cheap host functions for ever            CPU limit
//! recursion          recurses for ever                              trap (stack)
//! alloc              takes 10 GiB in pieces of 16 MiB               memory limit
//! huge-string        passes a string of 96 MiB                      answered or trap (limit)
//! bad-utf8           passes a string that is not UTF-8              trap
//! early-drop         uses a handle after dropping it                trap
//! forged-handle      uses a handle it was never given               trap
//! handle-flood       holds 1,000,000 builders                       handle limit
//! flood-log          writes 10,000,000 log lines                    limited, then ok
//! flood-diagnostics  reports 10,000,000 diagnostics                 limited
//! flood-sources      registers 1,000,000 sources of 1 MiB           limited
//! deep-graph         a chain of 1,000,000 nodes                     answered (limit)
//! wide-graph         one merge of 4,000,000 inputs                  answered (limit)
//! big-file           a file of 512 MiB in pieces, within the graph  answered (limit)
//! brim               has the host hold 60 MiB, then passes 23       host memory
//! outcomes           holds opt("count") outcomes of an exec         host memory
//! list               lists opt("count") entries                     host memory
//! pieces             a file op of opt("count") files of 1 MiB        answered (limit)
//! crumbs             a file op of opt("count") empty directories    answered (limit)
//! forged-output      uses output { node: 999, index: 0 }            answered
//! forged-index       uses output { node: 0, index: 7 }              answered
//! forged-span        reports a span outside of any source           survives, then ok
//! read-path          reads opt("path"), default ../../etc/passwd    answered
//! read-link          reads through a link to ../../../etc/passwd    answered
//! bad-path           writes to a path with a NUL byte               answered
//! unknown-key        passes an attribute nobody knows               answered (unsupported)
//! empty-exec         runs a process without arguments               answered
//! bad-config         an image config that is no JSON                answered
//! flood              calls opt("function") for ever, see [`flood`]  a limit
//! ```
//!
//! Asked about the definition instead of building it, it does one of these (see [`describe`]):
//!
//! ```text
//! ok                 one target, one parameter, one method; calls answer their arguments
//! fail               returns a failure of kind opt("kind")          the question fails with it
//! trap               panics                                         trap
//! spin               computes for ever                              CPU limit
//! huge-answer        answers with texts of 96 MiB                   memory held for it
//! many-answers       answers with 20,000 items                      limited
//! long-texts         answers with texts of 1 MiB                    cut
//! forged-span        answers with spans outside of any source       survives
//! ```

mod describe;
mod flood;

mod bindings {
    // Generated: the component ABI is made of raw pointers.
    #![allow(unsafe_code, missing_docs)]
    wit_bindgen::generate!({
        path: ["../../../wit/types", "../../../wit/frontend"],
        world: "wbuild:frontend/frontend-describe",
        generate_all,
    });
    export!(Hostile with_types_in self);
    use super::Hostile;
}

use std::hint::black_box;

use bindings::exports::wbuild::frontend::build::Guest;
use bindings::wbuild::frontend::diagnostics::{add_source, report};
use bindings::wbuild::frontend::graph::{self, ExecOp, FileOp, Output, Span};
use bindings::wbuild::frontend::{inspect, request, results};
use bindings::wbuild::types::log::log;
use bindings::wbuild::types::types::{Diagnostic, Failure, Label, Severity};

struct Hostile;

const MIB: usize = 1024 * 1024;

impl Guest for Hostile {
    fn build() -> Result<(), Failure> {
        let behaviour = request::opt("behaviour").unwrap_or_else(|| "ok".to_owned());
        match behaviour.as_str() {
            "ok" => {}
            "nothing" => return Ok(()),
            "fail" => {
                let kind = request::opt("kind").unwrap_or_else(|| "invalid".to_owned());
                return Err(failure(&kind, "failed as it was told to"));
            }
            "trap" => panic!("a hostile frontend gives up"),
            "spin" => spin(),
            "spin-host-calls" => spin_host_calls(),
            "recursion" => {
                black_box(recurse(0));
            }
            "alloc" => alloc(),
            "huge-string" => {
                graph::annotate(good_file()?, &"x".repeat(96 * MIB), &[], &[])?;
            }
            "bad-utf8" => log(Severity::Note, &not_utf8()),
            "early-drop" => dangling_handle().cwd("/"),
            "forged-handle" => forged_handle().cwd("/"),
            "handle-flood" => handle_flood(),
            "flood-log" => {
                (0..10_000_000).for_each(|n| log(Severity::Warning, &format!("line {n}")))
            }
            "flood-diagnostics" => {
                (0..10_000_000).for_each(|n| report(&diagnostic(&format!("number {n}"), &[])))
            }
            "flood-sources" => flood_sources()?,
            "deep-graph" => deep_graph()?,
            "wide-graph" => {
                graph::merge(&vec![good_file()?; 4_000_000], &[])?;
            }
            "big-file" => big_file()?,
            "brim" => brim()?,
            "outcomes" => outcomes(count()?)?,
            "list" => {
                inspect::read_dir(good_file()?, "/", None, count()?, &[])?;
            }
            "pieces" => {
                let piece = vec![7u8; MIB];
                file_of(|files, n| files.write(&format!("/{n}"), &piece, &[]))?;
            }
            "crumbs" => file_of(|files, n| files.mkdir(&format!("/{n}"), &[]))?,
            "forged-output" => return image(Some(Output { node: 999, index: 0 })),
            "forged-index" => return image(Some(Output { index: 7, ..good_file()? })),
            "forged-span" => forged_spans()?,
            "read-path" => {
                let path = request::opt("path").unwrap_or_else(|| "../../etc/passwd".to_owned());
                read(good_file()?, &path)?;
            }
            "read-link" => {
                let files = FileOp::new(None);
                files.symlink("/link", "../../../../../../../../etc/passwd", &[]);
                read(graph::file(files)?, "/link")?;
            }
            "bad-path" => {
                let files = FileOp::new(None);
                files.write("/a\0b", b"x", &[]);
                graph::file(files)?;
            }
            "unknown-key" => {
                graph::image(
                    "scratch.example/none",
                    None,
                    &[("no-such-key".to_owned(), String::new())],
                )?;
            }
            "empty-exec" => {
                graph::exec(ExecOp::new(&[]))?;
            }
            "bad-config" => return results::image("", None, Some(good_file()?), "{", &[]),
            "flood" => flood::flood()?,
            other => return Err(failure("invalid", &format!("no behaviour is called {other:?}"))),
        }
        image(Some(good_file()?))
    }
}

fn good_file() -> Result<Output, Failure> {
    let files = FileOp::new(None);
    files.write("/hello", b"hello\n", &[]);
    graph::file(files)
}

fn image(root: Option<Output>) -> Result<(), Failure> {
    let platform = request::build_platform();
    let config = format!(
        r#"{{"architecture":"{}","os":"{}","config":{{}},"history":[{{"created_by":"hostile"}}]}}"#,
        platform.architecture, platform.os
    );
    results::image("", Some(&platform), root, &config, &[])
}

fn spin() {
    let mut n = 0u64;
    loop {
        n = black_box(n.wrapping_mul(3).wrapping_add(1));
    }
}

fn spin_host_calls() {
    loop {
        black_box(request::epoch());
    }
}

// The point is that it does not end.
#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 16]);
    let below = recurse(depth + 1);
    // Used after the call, so that no compiler makes a loop of this.
    black_box(&frame);
    below
}

fn alloc() {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    for n in 0..640u32 {
        pieces.push(vec![n as u8 | 1; 16 * MIB]);
        black_box(&pieces);
    }
}

fn handle_flood() {
    let args = ["true".to_owned()];
    let held: Vec<ExecOp> = (0..1_000_000).map(|_| ExecOp::new(&args)).collect();
    black_box(&held);
}

fn flood_sources() -> Result<(), Failure> {
    let mut text = vec![b'x'; MIB];
    for n in 0..1_000_000u32 {
        // Each differs, so that none can be shared.
        text[..4].copy_from_slice(&n.to_le_bytes());
        add_source(&format!("source {n}"), "", &text)?;
    }
    Ok(())
}

fn deep_graph() -> Result<(), Failure> {
    let mut top = good_file()?;
    for n in 0..1_000_000 {
        let files = FileOp::new(Some(top));
        files.mkdir(&format!("/{n}"), &[]);
        top = graph::file(files)?;
    }
    image(Some(top))
}

fn big_file() -> Result<(), Failure> {
    let piece = vec![7u8; MIB];
    let files = FileOp::new(None);
    for n in 0..512 {
        files.write(&format!("/{n}"), &piece, &[]);
    }
    image(Some(graph::file(files)?))
}

fn brim() -> Result<(), Failure> {
    let piece = vec![7u8; MIB];
    let files = FileOp::new(None);
    (0..60).for_each(|n| files.write(&format!("/{n}"), &piece, &[]));
    // The guest's own memory is full too.
    let ballast = vec![1u8; 30 * MIB];
    graph::annotate(good_file()?, &"x".repeat(23 * MIB), &[], &[])?;
    black_box((files, ballast));
    Ok(())
}

fn count() -> Result<u32, Failure> {
    let count = request::opt("count").and_then(|text| text.parse().ok());
    count.ok_or_else(|| failure("invalid", "the option count is no number"))
}

fn file_of(add: impl Fn(&FileOp, u32)) -> Result<(), Failure> {
    let files = FileOp::new(None);
    (0..count()?).for_each(|n| add(&files, n));
    graph::file(files).map(drop)
}

fn outcomes(count: u32) -> Result<(), Failure> {
    let at = good_file()?;
    let held: Result<Vec<_>, _> = (0..count).map(|_| inspect::outcome_of(at)).collect();
    held.map(|held| drop(black_box(held)))
}

fn forged_spans() -> Result<(), Failure> {
    let source = add_source("small", "", b"four")?;
    for span in [
        Span { source, start: 2, end: 4_000_000_000 },
        Span { source, start: 3, end: 1 },
        Span { source: 4_000_000_000, start: 0, end: 1 },
    ] {
        report(&diagnostic("nowhere", &[span]));
    }
    Ok(())
}

/// Hands on the host's refusal; that something was read is said in the log.
fn read(at: Output, path: &str) -> Result<(), Failure> {
    let data = inspect::read_file(at, path, 0, 4096)?;
    log(Severity::Error, &format!("read {} bytes of {path}", data.len()));
    Ok(())
}

fn diagnostic(message: &str, spans: &[Span]) -> Diagnostic {
    let label = |at: &Span| Label { at: *at, text: String::new(), primary: true };
    Diagnostic {
        severity: Severity::Warning,
        code: None,
        message: message.to_owned(),
        labels: spans.iter().map(label).collect(),
        help: None,
        url: None,
        attrs: Vec::new(),
    }
}

fn failure(kind: &str, message: &str) -> Failure {
    Failure {
        kind: kind.to_owned(),
        message: message.to_owned(),
        retryable: false,
        diagnostics: Vec::new(),
        attrs: Vec::new(),
    }
}

// What the ABI allows and the bindings do not: breaking its rules is what is to be tested.
#[allow(unsafe_code)]
fn not_utf8() -> String {
    // SAFETY: none; only its bytes are read, by the host.
    unsafe { String::from_utf8_unchecked(vec![b'a', 0xff, 0xfe]) }
}

#[allow(unsafe_code)]
fn dangling_handle() -> ExecOp {
    let op = ExecOp::new(&["true".to_owned()]);
    let number = op.handle();
    drop(op);
    // SAFETY: none; the host refuses the number.
    unsafe { ExecOp::from_handle(number) }
}

#[allow(unsafe_code)]
fn forged_handle() -> ExecOp {
    // SAFETY: none; the host refuses the number.
    unsafe { ExecOp::from_handle(12_345) }
}
