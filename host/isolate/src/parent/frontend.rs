//! Frontends in a child, and what a child may ask on their behalf.

use std::sync::Arc;

use async_trait::async_trait;
use wbuild_api::describe::{Description, Outline, Query};
use wbuild_api::extension::{Frontend, FrontendHost, LogCap, PluginIdentity};
use wbuild_graph::{Attrs, Failure, Platform, decode};
use wbuild_plugin::answers::{self, files_size};
use wbuild_plugin::limits::{Meter, READ_BYTES, platform_size};
use wbuild_plugin::{Plugin, PluginKind, bounds};

use super::process::Program;
use super::session::{Answer, Answers, Ended, Session, answer, claim};
use crate::protocol::{Call, Done, Facts, FrontendCall, Start, Task};

/// A frontend whose guest runs in a process of its own; a fresh one for each build.
pub(super) struct IsolatedFrontend {
    pub(super) program: Arc<Program>,
    pub(super) plugin: Plugin,
    /// The same in this process, for what needs no guest.
    pub(super) inner: Arc<dyn Frontend>,
    /// Whether it may call others.
    pub(super) nested: bool,
}

impl IsolatedFrontend {
    async fn run(&self, host: FrontendHost, task: Task) -> Result<Done, Failure> {
        let kind = PluginKind::Frontend;
        let request = &host.request;
        let facts = Facts {
            targets: request.targets(),
            build_platform: request.build_platform(),
            target_platforms: request.target_platforms(),
            context_names: request.context_names(),
            epoch: request.epoch(),
        };
        let known = self.plugin.known(kind);
        let start = Start { known, repository: false, http: false, facts: Some(facts), task };
        let session = Session::start(&self.program, &self.plugin, &start).await?;
        let mut answers = FrontendAnswers { host, nested: self.nested };
        let (_, done) = session.finish(&mut answers).await?;
        done
    }

    fn odd(&self) -> Failure {
        let name = self.plugin.name();
        Failure::internal(format!("the frontend {name} answered another question"))
            .attr("plugin", name)
    }
}

#[async_trait]
impl Frontend for IsolatedFrontend {
    fn identity(&self) -> PluginIdentity {
        self.inner.identity()
    }

    async fn build(&self, host: FrontendHost) -> Result<(), Failure> {
        match self.run(host, Task::Build).await? {
            Done::Nothing => Ok(()),
            _ => Err(self.odd()),
        }
    }

    fn describes(&self) -> bool {
        self.inner.describes()
    }

    async fn describe(&self, host: FrontendHost, query: Query) -> Result<Description, Failure> {
        if !self.describes() {
            return Err(query.unsupported(&self.identity().name));
        }
        let described = match self.run(host, Task::Describe(query.clone())).await? {
            Done::Described(described) => described,
            _ => return Err(self.odd()),
        };
        let fits = matches!(
            (&query, &described),
            (Query::Check { .. }, Description::Check)
                | (Query::Targets, Description::Targets { .. })
                | (Query::Outline { .. }, Description::Outline(_))
                | (Query::Methods, Description::Methods { .. })
                | (Query::Call { .. }, Description::Call { .. })
        );
        if fits { Ok(bounded(described)) } else { Err(self.odd()) }
    }
}

/// A description no larger than one that comes from a guest.
fn bounded(description: Description) -> Description {
    let targets = |mut targets: Vec<wbuild_api::describe::Target>| {
        targets.truncate(bounds::ANSWERS);
        for target in &mut targets {
            target.name = bounds::text(std::mem::take(&mut target.name));
            target.summary = bounds::text(std::mem::take(&mut target.summary));
            target.attrs = bounds::attrs(std::mem::take(&mut target.attrs));
        }
        targets
    };
    match description {
        Description::Targets { targets: all } => Description::Targets { targets: targets(all) },
        Description::Outline(Outline { target, mut parameters }) => {
            parameters.truncate(bounds::ANSWERS);
            for parameter in &mut parameters {
                for text in [&mut parameter.kind, &mut parameter.name, &mut parameter.summary] {
                    *text = bounds::text(std::mem::take(text));
                }
                parameter.default = parameter.default.take().map(bounds::text);
                parameter.attrs = bounds::attrs(std::mem::take(&mut parameter.attrs));
            }
            let target = targets(target.into_iter().collect()).pop();
            Description::Outline(Outline { target, parameters })
        }
        Description::Methods { mut methods } => {
            methods.truncate(bounds::ANSWERS);
            for method in &mut methods {
                method.name = bounds::text(std::mem::take(&mut method.name));
                method.summary = bounds::text(std::mem::take(&mut method.summary));
            }
            Description::Methods { methods }
        }
        other @ (Description::Check | Description::Call { .. }) => other,
    }
}

struct FrontendAnswers {
    host: FrontendHost,
    nested: bool,
}

/// Bytes that a text costs.
fn text(text: &str) -> usize {
    size_of::<String>() + text.len()
}

fn pairs(attrs: &Attrs) -> usize {
    attrs.iter().map(|(key, value)| text(key) + text(value)).sum()
}

fn platform(platform: &Option<Platform>) -> usize {
    platform.as_ref().map_or(0, platform_size)
}

impl Answers for FrontendAnswers {
    fn log(&self) -> &dyn LogCap {
        &*self.host.log
    }

    async fn answer(&mut self, call: Call, meter: &mut Meter) -> Answer {
        let Call::Frontend(call) = call else { return claim("a call of another kind of plugin") };
        let host = &self.host;
        match call {
            FrontendCall::Insert(op, inputs) => {
                // The rest is checked by the graph, for every op and whoever inserts it.
                if let Err(failure) = decode::claimed(&op) {
                    return claim(failure.message);
                }
                answer(&host.graph.insert(op, inputs))
            }
            FrontendCall::Annotate(at, meta) => {
                let group = meta.group.as_ref().map_or(0, |(id, name)| text(id) + text(name));
                meter.charge(text(&meta.name) + meta.spans.len() * 12 + group)?;
                answer(&host.graph.annotate(at, meta))
            }
            FrontendCall::IgnoreCache(at) => answer(&host.graph.ignore_cache(at)),
            FrontendCall::SameWork(at, other) => answer(&host.graph.same_work(at, other)),
            FrontendCall::ResolveImages(requests) => {
                answer(&answers::resolve_images(&*host.inspect, requests, meter).await?)
            }
            FrontendCall::ResolveSources(requests) => {
                answer(&answers::resolve_sources(&*host.inspect, requests, meter).await?)
            }
            FrontendCall::ReadFile(at, path, offset, length) => {
                let length = length.min(READ_BYTES);
                answer(&host.inspect.read_file(at, path, offset, length).await)
            }
            FrontendCall::Stat(at, path) => answer(&host.inspect.stat(at, path).await),
            FrontendCall::ReadDir(at, query) => {
                answer(&answers::read_dir(&*host.inspect, at, query, meter).await?)
            }
            FrontendCall::StartSolving(at) => {
                meter.batch(at.len())?;
                host.inspect.start(at);
                answer(&())
            }
            FrontendCall::Evaluate(at) => {
                answer(&answers::evaluate(&*host.inspect, at, meter).await?)
            }
            FrontendCall::OutcomeOf(at) => answer(&host.inspect.outcome_of(at).await),
            FrontendCall::Nested(requests) => {
                if !self.nested {
                    return claim("a call of another frontend, which it was not granted");
                }
                answer(&answers::nested(&*host.nested, requests, meter).await?)
            }
            call => self.request_or_result(call, meter).await,
        }
    }
}

impl FrontendAnswers {
    async fn request_or_result(&self, call: FrontendCall, meter: &mut Meter) -> Answer {
        let FrontendHost { request, diagnostics, results, .. } = &self.host;
        match call {
            FrontendCall::Definition => answer(&request.definition()),
            FrontendCall::Opt(name) => answer(&request.opt(name).await),
            FrontendCall::Opts(prefix) => answer(&request.opts(prefix).await),
            FrontendCall::Context(name, platform) => answer(&request.context(name, platform)),
            FrontendCall::HasSecret(id) => answer(&request.has_secret(id)),
            FrontendCall::HasSsh(id) => answer(&request.has_ssh(id)),
            FrontendCall::Supports(feature) => answer(&request.supports(feature)),
            FrontendCall::AddSource(source) => {
                meter.message(text(&source.name) + text(&source.language) + source.text.len())?;
                answer(&diagnostics.add_source(source))
            }
            FrontendCall::MapSources(ranges) => {
                meter.charge(size_of_val(&*ranges))?;
                answer(&diagnostics.map_sources(ranges))
            }
            FrontendCall::Report(diagnostic) => {
                meter.message(answers::diagnostic_size(&diagnostic))?;
                let reported = diagnostics.report(bounds::diagnostic(diagnostic));
                reported.map_err(Ended::Failure).and_then(|()| answer(&Ok::<(), Failure>(())))
            }
            FrontendCall::Image(image) => {
                let texts = text(&image.name) + text(&image.config) + platform(&image.platform);
                meter.message(texts + pairs(&image.attrs))?;
                answer(&results.image(image))
            }
            FrontendCall::Files(files) => {
                meter.message(files_size(&files))?;
                answer(&results.files(files))
            }
            FrontendCall::Require(at) => {
                meter.message(0)?;
                answer(&results.require(at))
            }
            FrontendCall::Attest(kind, files) => {
                meter.message(text(&kind) + files_size(&files))?;
                answer(&results.attest(kind, files))
            }
            FrontendCall::Effect(name, at) => {
                meter.message(text(&name))?;
                answer(&results.effect(name, at))
            }
            FrontendCall::FailAfter(at) => {
                meter.message(0)?;
                answer(&results.fail_after(at))
            }
            FrontendCall::Publish(names) => {
                meter.batch(names.len())?;
                meter.charge(names.iter().map(|name| text(name)).sum())?;
                answer(&results.publish(names).await)
            }
            _ => claim("a call that is answered elsewhere"),
        }
    }
}
