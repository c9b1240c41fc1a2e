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
mod registry;

use std::sync::Arc;

use futures_util::future::{try_join, try_join_all};
use wbuild_api::event::ImageReport;
use wbuild_api::request::{BuildRequest, OutputDest, OutputKind};
use wbuild_graph::{Edge, Failure};

use crate::job::Job;
use crate::solved::Solved;

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

/// How often results are made anew whose layers turn out to be gone when they are written.
const ATTEMPTS: usize = 3;

/// Solves everything that was yielded, then writes every output, and caches elsewhere beside them.
pub(crate) async fn export(job: &Arc<Job>) -> Result<Vec<ImageReport>, Failure> {
    let roots = roots(job);
    cache::begin(job)?;
    for attempt in 1.. {
        let solved: Vec<Arc<Solved>> =
            try_join_all(roots.iter().map(|edge| job.solve(*edge))).await?;
        let written = try_join(outputs(job), cache::export(job, &roots)).await;
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

/// All that the frontend has yielded, and what must succeed besides.
fn roots(job: &Job) -> Vec<Edge> {
    let images = job.images().into_iter().filter_map(|image| image.root);
    let files = job.files().into_iter().map(|files| files.root);
    images.chain(files).chain(job.required()).collect()
}

async fn outputs(job: &Arc<Job>) -> Result<Vec<ImageReport>, Failure> {
    let mut reports = Vec::new();
    for output in &job.request().outputs {
        match output.kind {
            OutputKind::Image => reports.push(registry::export(job, output).await?),
            OutputKind::Oci | OutputKind::Docker => {
                reports.push(image::export(job, output).await?);
            }
            OutputKind::Local | OutputKind::Tar => files::export(job, output).await?,
            OutputKind::CacheOnly => {}
        }
    }
    if reports.is_empty() && job.request().identify {
        reports.extend(image::identify(job).await?);
    }
    Ok(reports)
}
