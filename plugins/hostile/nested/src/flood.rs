//! Calls one function of `nested` for ever, whatever it answers. What ends it is a limit.
//!
//! Options, as of `hostile-frontend`:
//!
//! ```text
//! function   its place in the WIT: "nested.build", "nested-build.target", "nested-result.images"
//! size       bytes of each text and each list of bytes; 64 KiB if absent
//! items      items of each other list; 1 if absent
//! platform   bytes of each text of a platform; 1 if absent
//! callee     the frontend that is called; "callee" if absent
//! handles    "held": each call has a handle of its own, which is kept; else all have one
//! ```

use std::hint::black_box;

use crate::bindings::wbuild::frontend::graph::{self, FileOp, Output};
use crate::bindings::wbuild::frontend::nested::{self, NestedBuild, NestedResult};
use crate::bindings::wbuild::frontend::request;
use crate::bindings::wbuild::types::types::{Failure, Platform, Span};

/// What calls are given.
struct Given {
    text: String,
    data: Vec<u8>,
    attrs: Vec<(String, String)>,
    output: Output,
    platform: Platform,
    items: usize,
    held: bool,
}

impl Given {
    fn new() -> Result<Given, Failure> {
        let number = |name: &str, or: usize| {
            request::opt(name).and_then(|text| text.parse().ok()).unwrap_or(or)
        };
        let (size, items) = (number("size", 64 << 10), number("items", 1));
        let text = "x".repeat(size);
        let part = "x".repeat(number("platform", 1));
        let files = FileOp::new(None);
        files.write("/hello", b"hello\n", &[]);
        Ok(Given {
            data: vec![b'x'; size],
            attrs: vec![(text.clone(), text.clone()); items],
            output: graph::file(files)?,
            platform: Platform {
                os: part.clone(),
                architecture: part.clone(),
                variant: Some(part.clone()),
                os_version: Some(part.clone()),
                os_features: vec![part],
            },
            items,
            held: request::opt("handles").as_deref() == Some("held"),
            text,
        })
    }

    /// Calls a method of handles.
    fn each<T, U>(&self, make: impl Fn() -> T, call: impl Fn(&T) -> U) -> ! {
        let mut handles = vec![make()];
        loop {
            if self.held {
                handles.push(make());
            }
            black_box(handles.last().map(&call));
        }
    }

    fn requests<U>(&self, call: impl Fn(&NestedBuild) -> U) -> Result<(), Failure> {
        self.each(|| NestedBuild::new("callee"), call)
    }

    fn results<U>(&self, call: impl Fn(&NestedResult) -> U) -> Result<(), Failure> {
        // One that is refused floods as well as one that is not.
        one()?;
        self.each(|| one().ok(), |result| result.as_ref().map(&call))
    }
}

/// What one other frontend yields.
fn one() -> Result<NestedResult, Failure> {
    nested::build(vec![NestedBuild::new("callee")]).remove(0)
}

/// Calls what the option `function` says.
pub(crate) fn flood(function: &str) -> Result<(), Failure> {
    let given = Given::new()?;
    match function.split_once('.') {
        Some(("nested-build", name)) => of_request(name, &given)?,
        Some(("nested-result", "images")) => given.results(NestedResult::images)?,
        Some(("nested-result", "files")) => given.results(NestedResult::files)?,
        Some(("nested", "build")) => build(&given),
        _ => {}
    }
    Err(crate::failure("invalid", format!("no function is called {function:?}")))
}

fn of_request(name: &str, given: &Given) -> Result<(), Failure> {
    let Given { text, data, attrs, output, .. } = given;
    match name {
        "constructor" => {
            let mut held = Vec::new();
            loop {
                held.push(NestedBuild::new(text));
            }
        }
        "definition" => given.requests(|request| request.definition(text, data)),
        "context" => given.requests(|request| request.context(text, *output, Some(text))),
        "hand-on" => given.requests(|request| request.hand_on(text)),
        "target" => given.requests(|request| request.target(text)),
        "platform" => given.requests(|request| request.platform(&given.platform)),
        "options" => given.requests(|request| request.options(attrs)),
        "asked-at" => {
            given.requests(|request| request.asked_at(Span { source: 0, start: 0, end: 1 }))
        }
        _ => Ok(()),
    }
}

fn build(given: &Given) -> ! {
    let callee = request::opt("callee").unwrap_or_else(|| "callee".to_owned());
    let request = || {
        let request = NestedBuild::new(&callee);
        request.definition(&given.text, &given.data);
        request
    };
    let mut held = Vec::new();
    loop {
        let results = black_box(nested::build((0..given.items).map(|_| request()).collect()));
        if given.held {
            held.extend(results);
        }
    }
}
