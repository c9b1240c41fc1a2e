//! A small pipeline tool with a syntax of its own, and wbuild inside.
//!
//! ```text
//! # NAME: FROM | COMMAND | ARTIFACTS
//! compile: golang:1.22 | go build -o /out/app . | /out/app
//! check: compile | test -x /out/app
//! ```
//!
//! `FROM` is an image or a step above; a step on an image sees the sources in `/src` and works there,
//! one on another step goes on with its files. Steps that do not stand on each other run at the same
//! time, what is known is not run again, and artifacts are written when all has succeeded.
//!
//! ```sh
//! cargo run -p wbuild --example pipeline -- pipeline.txt . out
//! ```

use std::collections::BTreeMap;
use std::process::ExitCode;

use wbuild::graph::op::{
    Access, CopyOpts, ExecOp, FileAction, FileActionKind, FileOp, LocalSource, Mount, MountKind,
    SourceOp,
};
use wbuild::graph::{Edge, NodeMeta, Op, SourceFile, Span};
use wbuild::{
    Context, Diagnostic, Event, Failure, FilesResult, FrontendHost, ImageRequest, Output, StepEnd,
};

fn main() -> ExitCode {
    // Before anything else: this process may be the one that launches steps.
    let process = wbuild::init();
    let mut args = std::env::args().skip(1);
    let (Some(file), Some(sources), Some(out)) = (args.next(), args.next(), args.next()) else {
        eprintln!("usage: pipeline FILE SOURCES OUT [STATE [IMAGE=LAYOUT]...]");
        return ExitCode::from(2);
    };
    let state = args.next().unwrap_or_else(|| "pipeline-state".to_owned());
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("cannot read {file}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut builder = process
        .builder(state)
        .owner("pipeline")
        .frontend(wbuild::native("pipeline", pipeline))
        .definition(file, text)
        .context(sources.as_str())
        .output(Output::files(out));
    for image in args {
        let Some((name, layout)) = image.split_once('=') else { continue };
        builder = builder.build_context(name, Context::OciLayout(layout.into(), None));
    }
    let (builder, mut events) = builder.events();
    let progress = std::thread::spawn(move || {
        let mut names = BTreeMap::new();
        while let Some(event) = events.blocking_next() {
            match event {
                Event::StepDefined { step, name, .. } => {
                    names.insert(step, name);
                }
                Event::StepLog { step, data, .. } => {
                    print!("{} | {}", names[&step], String::from_utf8_lossy(&data));
                }
                Event::StepEnded { step, how, .. } => {
                    let how = match how {
                        StepEnd::Done => "done",
                        StepEnd::Cached => "known",
                        StepEnd::Failed(_) => "failed",
                        StepEnd::Cancelled => "given up",
                    };
                    println!("{}: {how}", names[&step]);
                }
                _ => {}
            }
        }
    });
    let result = builder.build_blocking();
    progress.join().expect("it does not panic");
    match result {
        Ok(built) => {
            println!("ran {} steps, knew {}", built.stats.steps_run, built.stats.steps_cached);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// One line.
struct Step<'a> {
    name: &'a str,
    from: &'a str,
    command: &'a str,
    artifacts: Vec<&'a str>,
    at: Span,
}

fn parse(text: &str, source: u32) -> Result<Vec<Step<'_>>, Failure> {
    let mut steps = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let at = Span { source, start: offset(start), end: offset(start + line.trim_end().len()) };
        start += line.len();
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut parts = line.split(" | ").map(str::trim);
        let head = parts.next().and_then(|head| head.split_once(": "));
        let (Some((name, from)), Some(command)) = (head, parts.next()) else {
            return Err(at_line(Failure::invalid("this is no step: NAME: FROM | COMMAND"), at));
        };
        let artifacts = parts.next().unwrap_or_default().split_whitespace().collect();
        steps.push(Step { name, from: from.trim(), command, artifacts, at });
    }
    Ok(steps)
}

/// The frontend: makes the graph of a pipeline.
async fn pipeline(host: FrontendHost) -> Result<(), Failure> {
    let file = host.request.definition()?;
    let text = String::from_utf8_lossy(&file.data).into_owned();
    let source = SourceFile {
        name: file.name,
        language: "pipeline".to_owned(),
        text: text.as_bytes().into(),
    };
    let source = host.diagnostics.add_source(source)?;
    let sources = Op::Source(SourceOp::Local(LocalSource {
        name: "context".to_owned(),
        ..LocalSource::default()
    }));
    let sources = host.graph.insert(sources, Vec::new())?[0];
    let mut done: BTreeMap<&str, Edge> = BTreeMap::new();
    let mut artifacts = Vec::new();
    for step in parse(&text, source)? {
        let root = match done.get(step.from) {
            Some(root) => *root,
            None => {
                let image = image(&host, step.from).await;
                copy(
                    &host,
                    Some(image.map_err(|failure| at_line(failure, step.at))?),
                    &[(sources, "/")],
                    "/src/",
                )?
            }
        };
        let root = run(&host, root, &step)?;
        artifacts.extend(step.artifacts.iter().map(|path| (root, *path)));
        // A step whose files nobody wants must succeed all the same.
        host.results.require(root)?;
        done.insert(step.name, root);
    }
    if artifacts.is_empty() {
        return Ok(());
    }
    let root = copy(&host, None, &artifacts, "/")?;
    host.results.files(FilesResult {
        name: String::new(),
        platform: None,
        root,
        path: "/".to_owned(),
        attrs: Default::default(),
    })
}

/// An image by its name; a context of that name stands for it.
async fn image(host: &FrontendHost, name: &str) -> Result<Edge, Failure> {
    let platform = host.request.build_platform();
    let (reference, attrs) = match host.request.context(name.to_owned(), None)? {
        Some(context) => (context.identifier, context.attrs),
        None => (name.to_owned(), Default::default()),
    };
    let request =
        ImageRequest { reference, platform: Some(platform.clone()), attrs: attrs.clone() };
    let info = host.inspect.resolve_images(vec![request]).await.remove(0)?;
    let op = SourceOp::Image { reference: info.reference, platform, attrs };
    Ok(host.graph.insert(Op::Source(op), Vec::new())?[0])
}

fn copy(
    host: &FrontendHost,
    base: Option<Edge>,
    sources: &[(Edge, &str)],
    target: &str,
) -> Result<Edge, Failure> {
    let inputs: Vec<Edge> =
        base.into_iter().chain(sources.iter().map(|(source, _)| *source)).collect();
    let first = u32::from(base.is_some());
    let copy = |(source, (_, path)): (u32, &(Edge, &str))| FileAction {
        mark: None,
        kind: FileActionKind::Copy {
            source,
            paths: vec![(*path).to_owned()],
            target: target.to_owned(),
            opts: CopyOpts {
                create_dest: true,
                contents_only: true,
                keep_times: true,
                ..CopyOpts::default()
            },
        },
    };
    let actions = (first..).zip(sources).map(copy).collect();
    let op = FileOp { base: base.map(|_| 0), names_from: None, actions };
    Ok(host.graph.insert(Op::File(op), inputs)?[0])
}

fn run(host: &FrontendHost, root: Edge, step: &Step<'_>) -> Result<Edge, Failure> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let bind = MountKind::Bind { source: Some(0), subpath: String::new(), access: Access::Rw };
    let exec = ExecOp {
        env: vec![("PATH".to_owned(), path.to_owned())],
        cwd: "/src".to_owned(),
        platform: host.request.build_platform(),
        mounts: vec![Mount { target: "/".to_owned(), kind: bind }],
        ..ExecOp::new(["/bin/sh", "-ec", step.command].map(str::to_owned).into())
    };
    let output = host.graph.insert(Op::Exec(Box::new(exec)), vec![root])?[0];
    let name = step.name.to_owned();
    host.graph.annotate(output, NodeMeta { name, spans: vec![step.at], ..NodeMeta::default() })?;
    Ok(output)
}

/// Shows a failure at a line.
fn at_line(mut failure: Failure, at: Span) -> Failure {
    if failure.diagnostics.is_empty() {
        failure.diagnostics.push(Diagnostic {
            severity: wbuild::graph::Severity::Error,
            code: None,
            message: failure.message.clone(),
            labels: vec![wbuild::graph::Label { at, text: String::new(), primary: true }],
            help: None,
            url: None,
            attrs: Default::default(),
        });
    }
    failure
}
