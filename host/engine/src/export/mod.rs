//! Exporters: turn what the frontend yielded into what the client asked for.
//!
//! Deterministic: the same results give the same bytes, whatever the number of threads, except for
//! dates, which SOURCE_DATE_EPOCH fixes.

mod allocate;
pub(crate) mod annotations;
pub(crate) mod attrs;
mod cache;
mod daemon;
mod files;
mod image;
mod layers;
mod mirror;
mod names;
mod registry;

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, try_join, try_join_all};
use wbuild_api::event::ImageReport;
use wbuild_api::request::{BuildRequest, OutputDest, OutputKind, OutputSpec};
use wbuild_graph::{Edge, Failure, NodeId, Op};

use crate::job::Job;
use crate::ops::exec::check_exit;
use crate::solved::Solved;
use wbuild_api::yielded::Batch;

/// Refuses outputs that cannot work, before anything is built for them.
pub(crate) fn check(request: &BuildRequest) -> Result<(), Failure> {
    for output in &request.outputs {
        match output.kind {
            OutputKind::Image => registry::check(request, output)?,
            OutputKind::Oci | OutputKind::Docker => image::check(request, output)?,
            OutputKind::Local | OutputKind::Tar => files::check(output)?,
            OutputKind::CacheOnly => {}
        }
    }
    cache::check(request)
}

/// Refuses outputs that go to a Docker which does not answer, before anything is built for it.
pub(crate) async fn reach(request: &BuildRequest) -> Result<(), Failure> {
    for output in &request.outputs {
        if let OutputDest::Daemon(endpoint) = &output.dest {
            daemon::reach(endpoint).await?;
        }
    }
    Ok(())
}

/// Refuses, once the frontend has said what there is, outputs that would have nothing to write. No
/// step has to run to know that.
pub(crate) fn settle(job: &Job) -> Result<(), Failure> {
    let (whole, effects) = {
        let yielded = job.yielded();
        if yielded.fails().is_some() {
            // What was saved until then is written, whatever that is.
            return Ok(());
        }
        (yielded.whole(), !yielded.effects().is_empty())
    };
    let request = job.request();
    for image in &whole.images {
        names::check(image)?;
    }
    for output in &request.outputs {
        if !output.kind.is_image() {
            if output.kind != OutputKind::CacheOnly {
                files::settle(output, &whole)?;
            }
            continue;
        }
        names::check_distinct(job, output, &whole)?;
        match output.kind {
            OutputKind::Image => registry::settle(job, output, &whole, effects)?,
            _ => image::settle(output, &whole)?,
        }
        if whole.main().is_none() && !names::given(request, output)?.is_empty() {
            return Err(nothing_to_name(&whole));
        }
    }
    if whole.main().is_none() && !request.tags.is_empty() {
        return Err(nothing_to_name(&whole));
    }
    Ok(())
}

/// There are names for an image that there is none of.
fn nothing_to_name(whole: &Batch) -> Failure {
    Failure::invalid("there is no image that the names given could be for").hint(others(whole))
}

/// What there is instead of an image of the build's own.
fn others(whole: &Batch) -> String {
    let names: Vec<&str> = whole.images.iter().map(|image| image.name.as_str()).collect();
    match names.len() {
        0 => "choose an output of type local or tar for its files".to_owned(),
        1..=20 => format!("build one of these by itself: {}", names.join(", ")),
        many => format!("build one of its {many} images by itself"),
    }
}

/// How often results are made anew whose layers turn out to be gone when they are written.
const ATTEMPTS: usize = 3;

/// When something is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// While the frontend waits.
    Now,
    /// When the build ends.
    End,
}

/// Writes what goes by these names, and runs the effects so far, while the frontend waits.
pub(crate) fn publish<'j>(
    job: &'j Arc<Job>,
    names: &'j [String],
) -> BoxFuture<'j, Result<(), Failure>> {
    // Boxed, as what the frontend calls is of a build that has called the frontend.
    published(job, names).boxed()
}

async fn published(job: &Arc<Job>, names: &[String]) -> Result<(), Failure> {
    let (batch, fails) = {
        let yielded = job.yielded();
        (yielded.named(names)?, yielded.fails().is_some())
    };
    if fails {
        return Ok(());
    }
    for image in &batch.images {
        names::check(image)?;
    }
    let whole = job.yielded().whole();
    for output in job.request().outputs.iter().filter(|output| output.kind.is_image()) {
        // Also of those that were published before.
        names::check_distinct(job, output, &whole)?;
    }
    let reports = write(job, &batch, When::Now).boxed().await?;
    job.yielded().publish(names, reports);
    run_effects(job).boxed().await
}

/// Solves everything that was yielded, then writes every output, and caches elsewhere beside them;
/// pushes, and runs effects. What was published is not written again.
pub(crate) async fn export(job: &Arc<Job>) -> Result<Vec<ImageReport>, Failure> {
    let (batch, fails, mut reports) = {
        let yielded = job.yielded();
        (yielded.rest(), yielded.fails(), yielded.reports())
    };
    reports.extend(write(job, &batch, When::End).boxed().await?);
    if let Some(at) = fails {
        fail(job, at).boxed().await?;
    }
    run_effects(job).boxed().await?;
    if reports.is_empty() && job.request().identify {
        reports.extend(image::identify(job).await?);
    }
    Ok(reports)
}

/// Fails if this captured process has failed. It is to run again in the next build.
async fn fail(job: &Arc<Job>, at: Edge) -> Result<(), Failure> {
    let solved = job.solve(at).await?;
    let (checked, digest) = {
        let mut definition = job.definition();
        let (Op::Exec(exec), Some(outcome)) = (&definition.vertex(at.node).op, &solved.outcome)
        else {
            return Err(Failure::internal("what the build fails with is no captured process"));
        };
        (check_exit(exec, outcome.exit_code), definition.digest(at.node))
    };
    if checked.is_err() {
        job.forget(at, &solved).await?;
        job.steps().blame(digest);
    }
    checked
}

/// Runs the effects that have not run, one after the other, if the client pushes.
async fn run_effects(job: &Arc<Job>) -> Result<(), Failure> {
    if !job.pushes() {
        return Ok(());
    }
    loop {
        let Some(at) = job.yielded().next_effect() else { return Ok(()) };
        job.solve(at).boxed().await?;
    }
}

/// What effects stand on, as far as no effect is in that: it has to succeed before anything is pushed.
fn below_effects(job: &Job) -> Vec<Edge> {
    if !job.pushes() {
        return Vec::new();
    }
    let effects = job.yielded().effects().to_vec();
    let definition = job.definition();
    let mut tainted: HashSet<NodeId> = effects.iter().map(|edge| edge.node).collect();
    for id in definition.ids() {
        if definition.vertex(id).inputs.iter().any(|input| tainted.contains(&input.node)) {
            tainted.insert(id);
        }
    }
    let inputs = effects.iter().flat_map(|edge| &definition.vertex(edge.node).inputs);
    inputs.filter(|input| !tainted.contains(&input.node)).copied().collect()
}

/// Solves a part of what was yielded, or the rest, and writes it.
async fn write(job: &Arc<Job>, batch: &Batch, when: When) -> Result<Vec<ImageReport>, Failure> {
    let mut roots = batch.roots();
    roots.extend(below_effects(job));
    let whole = job.yielded().whole();
    if when == When::End {
        roots.extend(whole.roots());
        roots.extend(job.yielded().required());
    }
    cache::begin(job)?;
    for attempt in 1.. {
        let solved: Vec<Arc<Solved>> =
            try_join_all(roots.iter().map(|edge| job.solve(*edge).boxed())).await?;
        let caches = async {
            match when {
                When::Now => Ok(()),
                When::End => cache::export(job, &roots).await,
            }
        };
        let written = try_join(outputs(job, batch, &whole, when).boxed(), caches.boxed()).await;
        let failure = match written {
            Ok((reports, ())) => return Ok(reports),
            Err(failure) => failure,
        };
        let mut lost: Vec<(Edge, Arc<Solved>)> = Vec::new();
        for (edge, solved) in roots.iter().zip(solved) {
            if let Some(output) = solved.outputs.get(edge.index as usize)
                && job.worker().is_lost(output)?
            {
                lost.push((*edge, solved));
            }
        }
        if lost.is_empty() || attempt == ATTEMPTS {
            return Err(failure);
        }
        for (edge, solved) in lost {
            if let Some(output) = solved.outputs.get(edge.index as usize) {
                job.worker().count_losses(output).await;
            }
            job.forget(edge, &solved).await?;
        }
    }
    unreachable!("the last attempt returns")
}

/// Whether a part can be written to an output, and another one added later. Others are written once,
/// with everything.
fn takes_parts(output: &OutputSpec) -> Result<bool, Failure> {
    Ok(match (output.kind, &output.dest) {
        (OutputKind::Image, _) | (_, OutputDest::Daemon(_)) => true,
        (OutputKind::Oci, OutputDest::Directory(_)) => true,
        (OutputKind::Local, _) => !files::deletes(output)?,
        _ => false,
    })
}

async fn outputs(
    job: &Arc<Job>,
    batch: &Batch,
    whole: &Batch,
    when: When,
) -> Result<Vec<ImageReport>, Failure> {
    let (mut reports, mut pushes) = (Vec::new(), Vec::new());
    for output in &job.request().outputs {
        let parts = takes_parts(output)?;
        if when == When::Now && !parts {
            continue;
        }
        let batch = if parts { batch } else { whole };
        match output.kind {
            OutputKind::Image => {
                let (written, to_push) = registry::export(job, output, batch).boxed().await?;
                reports.extend(written);
                pushes.extend(to_push);
            }
            OutputKind::Oci | OutputKind::Docker if batch.images.is_empty() => {}
            OutputKind::Oci | OutputKind::Docker => {
                reports.extend(image::export(job, output, batch).boxed().await?);
            }
            OutputKind::Local | OutputKind::Tar => {
                files::export(job, output, batch, whole).await?;
            }
            OutputKind::CacheOnly => {}
        }
    }
    // Everybody sees what is pushed, so everything else goes before it; and nothing of a build that
    // fails is seen.
    if job.yielded().fails().is_none() {
        for push in pushes {
            registry::push(job, push).boxed().await?;
        }
    }
    Ok(reports)
}
