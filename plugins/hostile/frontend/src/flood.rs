//! Calls one function of the host for ever, whatever it answers: that a call is refused must cost the
//! host as little as that it is not. What ends it is a limit.
//!
//! Options:
//!
//! ```text
//! function   its place in the WIT: "graph.image", "exec-op.env", "exec-op.constructor"
//! size       bytes of each text and each list of bytes; 64 KiB if absent
//! items      items of each other list; 1 if absent
//! keys       "unknown": attributes have keys that nobody knows, of that size
//! word       where one of a few words is wanted, a wrong one of so many bytes; else a right one
//! platform   bytes of each text of a platform; 1 if absent
//! handles    "held": each call has a handle of its own, which is kept; else all have one
//! ```

use std::hint::black_box;

use crate::bindings::wbuild::frontend::diagnostics;
use crate::bindings::wbuild::frontend::graph::{self, ExecOp, FileOp, LocalSource, Output};
use crate::bindings::wbuild::frontend::inspect::{self, ImageRequest, Outcome, SourceRequest};
use crate::bindings::wbuild::frontend::request::{self, NamedContext};
use crate::bindings::wbuild::frontend::results;
use crate::bindings::wbuild::types::log::log;
use crate::bindings::wbuild::types::types::{Diagnostic, Failure, Label, Platform, Severity, Span};
use crate::{failure, good_file};

/// What calls are given.
struct Given {
    text: String,
    data: Vec<u8>,
    texts: Vec<String>,
    attrs: Vec<(String, String)>,
    /// In place of one of a few words.
    word: Option<String>,
    output: Output,
    outputs: Vec<Output>,
    platform: Platform,
    span: Span,
    items: usize,
    held: bool,
}

impl Given {
    fn new() -> Result<Given, Failure> {
        let number = |name: &str, or: usize| {
            request::opt(name).map_or(Ok(or), |text| {
                text.parse().map_err(|_| failure("invalid", &format!("{name} is no number")))
            })
        };
        let (size, items) = (number("size", 64 << 10)?, number("items", 1)?);
        let word = Some(number("word", 0)?).filter(|size| *size > 0);
        let part = "x".repeat(number("platform", 1)?);
        let unknown = request::opt("keys").as_deref() == Some("unknown");
        let text = "x".repeat(size);
        let pair = match unknown {
            true => (text.clone(), String::new()),
            false => ("x-flood".to_owned(), text.clone()),
        };
        let output = good_file()?;
        Ok(Given {
            data: vec![b'x'; size],
            texts: vec![text.clone(); items],
            attrs: vec![pair; items],
            word: word.map(|size| "x".repeat(size)),
            output,
            outputs: vec![output; items],
            platform: Platform {
                os: part.clone(),
                architecture: part.clone(),
                variant: Some(part.clone()),
                os_version: Some(part.clone()),
                os_features: vec![part],
            },
            span: Span { source: 0, start: 0, end: 1 },
            items,
            held: request::opt("handles").as_deref() == Some("held"),
            text,
        })
    }

    fn word<'a>(&'a self, good: &'a str) -> &'a str {
        self.word.as_deref().unwrap_or(good)
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

    fn execs<U>(&self, call: impl Fn(&ExecOp) -> U) -> ! {
        self.each(|| ExecOp::new(&["true".to_owned()]), call)
    }

    fn files<U>(&self, call: impl Fn(&FileOp) -> U) -> ! {
        self.each(|| FileOp::new(None), call)
    }

    fn locals<U>(&self, call: impl Fn(&LocalSource) -> U) -> ! {
        self.each(|| LocalSource::new("context"), call)
    }

    fn outcomes<U>(&self, call: impl Fn(&Outcome) -> U) -> Result<(), Failure> {
        // One that is refused floods as well as one that is not.
        inspect::outcome_of(self.output)?;
        self.each(|| inspect::outcome_of(self.output).ok(), |outcome| outcome.as_ref().map(&call))
    }

    fn contexts<U>(&self, call: impl Fn(&NamedContext) -> U) -> Result<(), Failure> {
        let main = || request::context("context", None);
        main()?.ok_or_else(|| failure("not-found", "there is no main context"))?;
        self.each(|| main().ok().flatten(), |context| context.as_ref().map(&call))
    }
}

/// A function without handles; what it answers is kept only if it is one.
fn forever<U>(mut call: impl FnMut() -> U) -> ! {
    loop {
        black_box(call());
    }
}

fn holding<U>(mut call: impl FnMut() -> U) -> ! {
    let mut held = Vec::new();
    loop {
        held.push(call());
    }
}

/// Calls what the option `function` says.
pub(crate) fn flood() -> Result<(), Failure> {
    let function = request::opt("function").unwrap_or_default();
    let given = Given::new()?;
    match function.split_once('.') {
        Some(("graph", name)) => in_graph(name, &given),
        Some(("local-source", name)) => of_local_source(name, &given),
        Some(("exec-op", name)) => of_exec_op(name, &given),
        Some(("file-op", name)) => of_file_op(name, &given),
        Some(("inspect", name)) => in_inspect(name, &given)?,
        Some(("outcome", name)) => of_outcome(name, &given)?,
        Some(("request", name)) => in_request(name, &given),
        Some(("named-context", name)) => of_named_context(name, &given)?,
        Some(("diagnostics", name)) => in_diagnostics(name, &given),
        Some(("results", name)) => in_results(name, &given),
        Some(("log", "log")) => forever(|| log(Severity::Warning, &given.text)),
        _ => {}
    }
    Err(failure("unsupported", &format!("no function is called {function:?}")))
}

fn in_graph(name: &str, given: &Given) {
    let Given { text, attrs, output, outputs, platform, .. } = given;
    match name {
        "image" => forever(|| graph::image(text, Some(platform), attrs)),
        "git" => forever(|| graph::git(text, text, attrs)),
        "http" => forever(|| graph::http(text, given.word.as_deref(), attrs)),
        "local" => forever(|| graph::local(LocalSource::new(text))),
        "source" => forever(|| graph::source(text, Some(platform), attrs)),
        "exec" => forever(|| graph::exec(ExecOp::new(&given.texts))),
        "file" => forever(|| {
            let files = FileOp::new(Some(*output));
            files.mkdir(text, attrs);
            graph::file(files)
        }),
        "merge" => forever(|| graph::merge(outputs, attrs)),
        "diff" => forever(|| graph::diff(Some(*output), Some(*output), attrs)),
        "annotate" => {
            let spans = vec![given.span; given.items];
            forever(|| graph::annotate(*output, text, &spans, attrs))
        }
        "ignore-cache" => forever(|| graph::ignore_cache(*output)),
        "same-work" => forever(|| graph::same_work(*output, *output)),
        _ => {}
    }
}

fn of_local_source(name: &str, given: &Given) {
    let Given { text, attrs, output, .. } = given;
    match name {
        "constructor" => holding(|| LocalSource::new(text)),
        "include" => given.locals(|local| local.include(text)),
        "exclude" => given.locals(|local| local.exclude(text, Some(given.span))),
        "follow" => given.locals(|local| local.follow(text)),
        "after" => given.locals(|local| local.after(*output)),
        "attrs" => given.locals(|local| local.attrs(attrs)),
        _ => {}
    }
}

fn of_exec_op(name: &str, given: &Given) {
    let Given { text, attrs, output, .. } = given;
    match name {
        "constructor" => holding(|| ExecOp::new(&given.texts)),
        "env" => given.execs(|op| op.env(attrs)),
        "volatile-env" => given.execs(|op| op.volatile_env(attrs)),
        "cwd" => given.execs(|op| op.cwd(text)),
        "user" => given.execs(|op| op.user(text)),
        "hostname" => given.execs(|op| op.hostname(text)),
        "platform" => given.execs(|op| op.platform(&given.platform)),
        "network" => given.execs(|op| op.network(given.word("none"))),
        "security" => given.execs(|op| op.security(given.word("sandbox"))),
        "add-host" => given.execs(|op| op.add_host(text, text)),
        "ulimit" => given.execs(|op| op.ulimit(text, -1, -1)),
        "device" => given.execs(|op| op.device(text, true)),
        "resources" => given.execs(|op| op.resources(attrs)),
        "valid-exit-codes" => {
            let codes = vec![7; given.items];
            given.execs(|op| op.valid_exit_codes(&codes))
        }
        "capture" => given.execs(|op| op.capture(u32::MAX)),
        "bind" => {
            let access = given.word("rw");
            given.execs(|op| op.bind(text, Some(*output), text, access, attrs))
        }
        "cache-dir" => {
            let sharing = given.word("shared");
            given.execs(|op| op.cache_dir(text, text, sharing, Some(*output), attrs))
        }
        "tmpfs" => given.execs(|op| op.tmpfs(text, attrs)),
        "secret-file" => given.execs(|op| op.secret_file(text, text, true, attrs)),
        "secret-env" => given.execs(|op| op.secret_env(text, text, true)),
        "ssh" => given.execs(|op| op.ssh(text, text, true, attrs)),
        "attrs" => given.execs(|op| op.attrs(attrs)),
        _ => {}
    }
}

fn of_file_op(name: &str, given: &Given) {
    let Given { text, texts, attrs, output, .. } = given;
    match name {
        "constructor" => holding(|| FileOp::new(Some(*output))),
        "names-from" => given.files(|files| files.names_from(*output)),
        "mark" => given.files(|files| files.mark(given.span)),
        "copy" => given.files(|files| files.copy(*output, texts, text, attrs)),
        "write" => given.files(|files| files.write(text, &given.data, attrs)),
        "mkdir" => given.files(|files| files.mkdir(text, attrs)),
        "remove" => given.files(|files| files.remove(text, attrs)),
        "symlink" => given.files(|files| files.symlink(text, text, attrs)),
        _ => {}
    }
}

fn in_inspect(name: &str, given: &Given) -> Result<(), Failure> {
    let Given { text, attrs, output, outputs, items, .. } = given;
    match name {
        "resolve-images" => {
            let platform = Some(given.platform.clone());
            // Many requests or many attributes, not both.
            let attrs = attrs[..1].to_vec();
            let one = ImageRequest { reference: text.clone(), platform, attrs };
            let requests = vec![one; *items];
            forever(|| inspect::resolve_images(&requests))
        }
        "resolve-sources" => {
            let one = SourceRequest {
                kind: given.word("git").to_owned(),
                url: text.clone(),
                reference: text.clone(),
                attrs: attrs[..1].to_vec(),
            };
            let requests = vec![one; *items];
            forever(|| inspect::resolve_sources(&requests))
        }
        "read-file" => forever(|| inspect::read_file(*output, text, 0, u32::MAX)),
        "stat" => forever(|| inspect::stat(*output, text, attrs)),
        "read-dir" => forever(|| inspect::read_dir(*output, text, Some(text), u32::MAX, attrs)),
        "start" => forever(|| inspect::start(outputs)),
        "evaluate" => forever(|| inspect::evaluate(outputs)),
        "outcome-of" => {
            inspect::outcome_of(*output)?;
            holding(|| inspect::outcome_of(*output).ok())
        }
        _ => {}
    }
    Ok(())
}

fn of_outcome(name: &str, given: &Given) -> Result<(), Failure> {
    let stream = given.word("stdout");
    match name {
        "exit-code" => given.outcomes(Outcome::exit_code),
        "size" => given.outcomes(|outcome| outcome.size(stream)),
        "truncated" => given.outcomes(|outcome| outcome.truncated(stream)),
        "read" => given.outcomes(|outcome| outcome.read(stream, 0, u32::MAX)),
        _ => Ok(()),
    }
}

fn in_request(name: &str, given: &Given) {
    let text = &given.text;
    match name {
        "definition" => forever(request::definition),
        "opt" => forever(|| request::opt(text)),
        "opts" => forever(|| request::opts(given.word(""))),
        "targets" => forever(request::targets),
        "build-platform" => forever(request::build_platform),
        "target-platforms" => forever(request::target_platforms),
        "context" => holding(|| request::context(given.word("context"), Some(&given.platform))),
        "context-names" => forever(request::context_names),
        "has-secret" => forever(|| request::has_secret(text)),
        "has-ssh" => forever(|| request::has_ssh(text)),
        "epoch" => forever(request::epoch),
        "supports" => forever(|| request::supports(text)),
        _ => {}
    }
}

fn of_named_context(name: &str, given: &Given) -> Result<(), Failure> {
    match name {
        "kind" => given.contexts(NamedContext::kind),
        "identifier" => given.contexts(NamedContext::identifier),
        "root" => given.contexts(NamedContext::root),
        "config" => given.contexts(NamedContext::config),
        "attrs" => given.contexts(NamedContext::attrs),
        _ => Ok(()),
    }
}

fn in_diagnostics(name: &str, given: &Given) {
    let Given { text, attrs, span, items, .. } = given;
    match name {
        "add-source" => {
            let mut data = given.data.clone();
            let mut n = 0u64;
            forever(|| {
                // Each differs, so that none can be shared.
                n += 1;
                data.splice(..data.len().min(8), n.to_le_bytes());
                diagnostics::add_source(text, text, &data)
            })
        }
        "map-source" => {
            let ranges = vec![(*span, *span); *items];
            forever(|| diagnostics::map_source(&ranges))
        }
        "report" => {
            let label = Label { at: *span, text: text.clone(), primary: true };
            let diagnostic = Diagnostic {
                severity: Severity::Warning,
                code: Some(text.clone()),
                message: text.clone(),
                labels: vec![label; *items],
                help: Some(text.clone()),
                url: Some(text.clone()),
                attrs: attrs.clone(),
            };
            forever(|| diagnostics::report(&diagnostic))
        }
        _ => {}
    }
}

fn in_results(name: &str, given: &Given) {
    let Given { text, texts, attrs, output, platform, .. } = given;
    let platform = Some(platform);
    match name {
        "image" => {
            let config = format!("{{\"x\":\"{text}\"}}");
            let config = given.word(&config);
            forever(|| results::image(text, platform, Some(*output), config, attrs))
        }
        "files" => forever(|| results::files(text, platform, *output, text, attrs)),
        "require" => forever(|| results::require(*output)),
        "attest" => forever(|| results::attest(text, platform, text, *output, text, attrs)),
        "effect" => forever(|| results::effect(text, *output)),
        "fail-after" => forever(|| results::fail_after(*output)),
        "publish" => forever(|| results::publish(texts)),
        _ => {}
    }
}
