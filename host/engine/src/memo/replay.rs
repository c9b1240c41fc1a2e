//! Later runs: the calls of a trace are made again.

use wbuild_api::extension::FrontendHost;
use wbuild_graph::Diagnostic;

use crate::job::Job;
use crate::nested::FindFrontend as _;

use super::trace::{self, Call, Question, Told, Trace};

/// Makes the calls of a trace. False as soon as an answer is another or a call is refused; the
/// caller then takes back what was done.
pub(super) async fn replay(trace: &Trace, host: &FrontendHost, job: &Job) -> bool {
    let mut reports: Vec<&Diagnostic> = Vec::new();
    for call in &trace.calls {
        let holds = match call {
            Call::Asked(question, answer) => ask(host, job, question).await == *answer,
            Call::Insert(op, inputs) => host.graph.insert(op.clone(), inputs.clone()).is_ok(),
            Call::Annotate(at, meta) => host.graph.annotate(*at, meta.clone()).is_ok(),
            Call::IgnoreCache(at) => host.graph.ignore_cache(*at).is_ok(),
            Call::AddSource(source) => host.diagnostics.add_source(source.file()).is_ok(),
            Call::MapSource(generated, original) => {
                host.diagnostics.map_source(*generated, *original).is_ok()
            }
            Call::Report(diagnostic) => {
                reports.push(diagnostic);
                true
            }
            Call::Image(image) => host.results.image(image.clone()).is_ok(),
            Call::Files(files) => host.results.files(files.clone()).is_ok(),
            Call::Require(at) => host.results.require(*at).is_ok(),
            Call::Effect(name, at) => host.results.effect(name.clone(), *at).is_ok(),
            Call::FailAfter(at) => host.results.fail_after(*at).is_ok(),
        };
        if !holds {
            return false;
        }
    }
    // The user sees them, so they wait until all is known to hold. They were accepted the first
    // time, and there are no more of them now.
    reports.into_iter().all(|diagnostic| host.diagnostics.report(diagnostic.clone()).is_ok())
}

/// Asks the host what the frontend asked.
async fn ask(host: &FrontendHost, job: &Job, question: &Question) -> Told {
    let (inspect, request) = (&host.inspect, &host.request);
    match question.clone() {
        Question::Frontend(name) => {
            trace::frontend(&job.find(&name).await.map(|callee| callee.frontend))
        }
        Question::ResolveImages(images) => trace::images(&inspect.resolve_images(images).await),
        Question::ResolveSources(sources) => {
            trace::sources(&inspect.resolve_sources(sources).await)
        }
        Question::ReadFile(at, path, offset, length) => {
            trace::bytes(&inspect.read_file(at, path, offset, length).await)
        }
        Question::Stat(at, path) => trace::result(inspect.stat(at, path).await.as_ref()),
        Question::ReadDir(at, query) => trace::result(inspect.read_dir(at, query).await.as_ref()),
        Question::Evaluate(at) => trace::solved(&inspect.evaluate(at).await),
        Question::OutcomeOf(at) => {
            trace::result(inspect.outcome_of(at).await.as_ref().map(AsRef::as_ref))
        }
        Question::SameWork(at, other) => trace::result(host.graph.same_work(at, other).as_ref()),
        Question::Definition => trace::definition(&request.definition()),
        Question::Opt(name) => trace::plain(&request.opt(name).await),
        Question::Opts(prefix) => trace::plain(&request.opts(prefix).await),
        Question::Targets => trace::plain(&request.targets()),
        Question::BuildPlatform => trace::plain(&request.build_platform()),
        Question::TargetPlatforms => trace::plain(&request.target_platforms()),
        Question::Context(name, platform) => {
            trace::result(request.context(name, platform).as_ref())
        }
        Question::ContextNames => trace::plain(&request.context_names()),
        Question::HasSecret(id) => trace::plain(&request.has_secret(id)),
        Question::HasSsh(id) => trace::plain(&request.has_ssh(id)),
        Question::Epoch => trace::plain(&request.epoch()),
        Question::Supports(feature) => trace::plain(&request.supports(feature)),
    }
}
