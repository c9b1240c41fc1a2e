//! `steps`: a small frontend, and an example of how to write one.
//!
//! A steps file holds one step a line; blank lines and lines that start with `#` are skipped:
//!
//! ```text
//! from IMAGE            begin with an image, or with nothing: `scratch`. Comes first, once
//! run COMMAND           run a shell command; what it changes becomes a layer
//! env NAME=VALUE        set a variable for the steps that follow and in the image
//! env NAME=$(COMMAND)   the same with what the command prints, without trailing newlines;
//!                       the command must succeed, its changes to files are dropped
//! if COMMAND            the steps up to `else` or `end` happen only if the command succeeds;
//! else                  its changes to files are dropped
//! end
//! copy SRC DST          copy from the build context; a DST that ends in `/` is a directory
//! workdir PATH          make a directory and run the following steps in it
//! cmd COMMAND           what a container of the image runs by default, through /bin/sh
//! ```
//!
//! `if` and `$(…)` ask the host to solve what stands above them before the rest of the graph is
//! made. Every step is annotated with its line, so that the host can show the line when the step
//! fails long after this component has returned. [`syntax`] reads the file and calls no host.

mod syntax;

mod bindings {
    // Generated: the component ABI is made of raw pointers.
    #![allow(unsafe_code, missing_docs)]
    wit_bindgen::generate!({
        path: ["../../wit/types", "../../wit/frontend"],
        world: "wbuild:frontend/frontend",
        generate_all,
    });
    export!(Steps with_types_in self);
    use super::Steps;
}

use std::ops::Range;

use bindings::exports::wbuild::frontend::build::Guest;
use bindings::wbuild::frontend::diagnostics::add_source;
use bindings::wbuild::frontend::graph::{
    self, ExecOp, FileOp, LocalSource, Output, Platform, Span,
};
use bindings::wbuild::frontend::{inspect, request, results};
use bindings::wbuild::types::types::{Diagnostic, Failure, Label, Severity};
use serde_json::{Value as Json, json};
use syntax::{Step, StepKind, Value};

/// How much of a command's output `$(…)` may take.
const CAPTURE: u32 = 64 * 1024;

struct Steps;

impl Guest for Steps {
    fn build() -> Result<(), Failure> {
        let file = request::definition()?;
        let source = add_source(&file.name, "steps", &file.data)?;
        let steps =
            syntax::parse(&file.data).map_err(|e| failure("invalid", e.message, source, &e.at))?;
        for platform in request::target_platforms() {
            let mut stage = Stage::new(source, platform);
            stage.steps(&steps)?;
            let config = stage.config.to_string();
            results::image("", Some(&stage.platform), stage.root, &config, &[])?;
        }
        Ok(())
    }
}

/// The image so far, for one platform.
struct Stage {
    source: u32,
    platform: Platform,
    root: Option<Output>,
    env: Vec<(String, String)>,
    cwd: String,
    config: Json,
}

impl Stage {
    fn new(source: u32, platform: Platform) -> Self {
        let mut config = json!({ "architecture": platform.architecture, "os": platform.os, "config": {}, "history": [] });
        if let Some(variant) = &platform.variant {
            config["variant"] = json!(variant);
        }
        Stage { source, platform, root: None, env: Vec::new(), cwd: "/".to_owned(), config }
    }

    fn steps(&mut self, steps: &[Step]) -> Result<(), Failure> {
        for step in steps {
            self.step(step).map_err(|failure| self.at(failure, &step.at))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), Failure> {
        match &step.kind {
            StepKind::From(image) => self.from(image, step)?,
            StepKind::Run(command) => {
                self.root = Some(self.exec(command, None, step)?);
                self.history(step, true);
            }
            StepKind::Env(name, value) => {
                let value = match value {
                    Value::Text(text) => text.clone(),
                    Value::Output(command) => self.output_of(command, step)?,
                };
                self.env.retain(|(other, _)| other != name);
                self.env.push((name.clone(), value));
                let env: Vec<String> = self.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
                self.config["config"]["Env"] = json!(env);
                self.history(step, false);
            }
            StepKind::If { condition, then, otherwise } => {
                let at = self.exec(condition, Some(0), step)?;
                let holds = inspect::outcome_of(at)?.exit_code() == 0;
                self.steps(if holds { then } else { otherwise })?;
            }
            StepKind::Copy { from, to } => {
                let files = FileOp::new(self.root);
                // One that is no directory of the caller's is there already.
                let ready = request::context("context", None)?.and_then(|context| context.root());
                let context = match ready {
                    Some(root) => root,
                    None => graph::local(LocalSource::new("context"))?,
                };
                files.copy(
                    context,
                    std::slice::from_ref(from),
                    &syntax::join(&self.cwd, to),
                    &[
                        option("create-dest"),
                        option("wildcard"),
                        option("contents-only"),
                        option("keep-times"),
                    ],
                );
                self.root = Some(self.file(files, step)?);
                self.history(step, true);
            }
            StepKind::Workdir(path) => {
                self.cwd = syntax::join(&self.cwd, path);
                let files = FileOp::new(self.root);
                files.mkdir(&self.cwd, &[option("parents")]);
                self.root = Some(self.file(files, step)?);
                self.config["config"]["WorkingDir"] = json!(self.cwd);
                self.history(step, true);
            }
            StepKind::Cmd(command) => {
                self.config["config"]["Cmd"] = json!(["/bin/sh", "-c", command]);
                self.history(step, false);
            }
        }
        Ok(())
    }

    fn from(&mut self, image: &str, step: &Step) -> Result<(), Failure> {
        if image == "scratch" {
            return Ok(());
        }
        // A context of this name, if the caller gives one, stands for the image.
        let (reference, attrs) = match request::context(image, Some(&self.platform))? {
            Some(context) if matches!(&*context.kind(), "image" | "oci-layout") => {
                (context.identifier(), context.attrs())
            }
            Some(context) => {
                let message = format!("the context {image} is no image but {}", context.kind());
                return Err(failure("invalid", message, self.source, &step.at));
            }
            None => (image.to_owned(), Vec::new()),
        };
        let request = inspect::ImageRequest {
            reference,
            platform: Some(self.platform.clone()),
            attrs: attrs.clone(),
        };
        let info = inspect::resolve_images(&[request]).remove(0)?;
        let root = graph::image(&info.reference, Some(&self.platform), &attrs)?;
        self.name(root, step)?;
        self.root = Some(root);
        let bad = |what: String| {
            failure("invalid", format!("the config of {image} {what}"), self.source, &step.at)
        };
        let config: Json = serde_json::from_str(&info.config)
            .map_err(|error| bad(format!("is not JSON: {error}")))?;
        if !config.is_object() || !(config["config"].is_object() || config["config"].is_null()) {
            return Err(bad("is no OCI image config".to_owned()));
        }
        self.config = config;
        // The host lists the layers itself.
        if let Some(config) = self.config.as_object_mut() {
            config.remove("rootfs");
        }
        for variable in self.config["config"]["Env"].as_array().into_iter().flatten() {
            if let Some((name, value)) = variable.as_str().and_then(|text| text.split_once('=')) {
                self.env.push((name.to_owned(), value.to_owned()));
            }
        }
        if let Some(cwd) =
            self.config["config"]["WorkingDir"].as_str().filter(|cwd| !cwd.is_empty())
        {
            self.cwd = cwd.to_owned();
        }
        Ok(())
    }

    /// A shell command on the root as it is. With `capture`, any exit code is a result.
    fn exec(&self, command: &str, capture: Option<u32>, step: &Step) -> Result<Output, Failure> {
        let op = ExecOp::new(&["/bin/sh", "-c", command].map(str::to_owned));
        op.env(&self.env);
        op.cwd(&self.cwd);
        op.platform(&self.platform);
        op.bind("/", self.root, "", "rw", &[]);
        if let Some(limit) = capture {
            op.capture(limit);
        }
        let root = graph::exec(op)?.remove(0);
        self.name(root, step)?;
        Ok(root)
    }

    /// What a command prints.
    fn output_of(&self, command: &str, step: &Step) -> Result<String, Failure> {
        let outcome = inspect::outcome_of(self.exec(command, Some(CAPTURE), step)?)?;
        let fail = |kind, message| Err(failure(kind, message, self.source, &step.at));
        match outcome.exit_code() {
            0 => {}
            code => {
                return fail("exec-failed", format!("`{command}` failed with exit code {code}"));
            }
        }
        if outcome.truncated("stdout")? {
            return fail("limit", format!("`{command}` printed more than {CAPTURE} bytes"));
        }
        let printed = outcome.read("stdout", 0, outcome.size("stdout")?)?;
        match String::from_utf8(printed) {
            Ok(text) => Ok(text.trim_end_matches('\n').to_owned()),
            Err(_) => fail("invalid", format!("`{command}` printed bytes that are not UTF-8")),
        }
    }

    fn file(&self, files: FileOp, step: &Step) -> Result<Output, Failure> {
        let root = graph::file(files)?;
        self.name(root, step)?;
        Ok(root)
    }

    fn name(&self, at: Output, step: &Step) -> Result<(), Failure> {
        graph::annotate(at, &step.text, &[span(self.source, &step.at)], &[])
    }

    fn history(&mut self, step: &Step, layer: bool) {
        let mut entry = json!({ "created_by": step.text });
        if !layer {
            entry["empty_layer"] = json!(true);
        }
        match self.config["history"].as_array_mut() {
            Some(history) => history.push(entry),
            None => self.config["history"] = json!([entry]),
        }
    }

    /// Shows a failure of the host at the step that asked for it.
    fn at(&self, mut failure: Failure, at: &Range<usize>) -> Failure {
        if failure.diagnostics.is_empty() {
            failure.diagnostics.push(diagnostic(&failure.message, self.source, at));
        }
        failure
    }
}

fn option(name: &str) -> (String, String) {
    (name.to_owned(), "true".to_owned())
}

fn span(source: u32, at: &Range<usize>) -> Span {
    let offset = |at: usize| u32::try_from(at).expect("a definition file is smaller than 4 GiB");
    Span { source, start: offset(at.start), end: offset(at.end) }
}

fn diagnostic(message: &str, source: u32, at: &Range<usize>) -> Diagnostic {
    let label = Label { at: span(source, at), text: String::new(), primary: true };
    Diagnostic {
        severity: Severity::Error,
        code: None,
        message: message.to_owned(),
        labels: vec![label],
        help: None,
        url: None,
        attrs: Vec::new(),
    }
}

fn failure(kind: &str, message: String, source: u32, at: &Range<usize>) -> Failure {
    let diagnostics = vec![diagnostic(&message, source, at)];
    Failure { kind: kind.to_owned(), message, retryable: false, diagnostics, attrs: Vec::new() }
}
