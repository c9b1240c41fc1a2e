//! Exporters: turn what the frontend yielded into what the client asked for.
//!
//! Deterministic: the same results give the same bytes, whatever the number of threads, except for
//! dates, which SOURCE_DATE_EPOCH fixes.

mod allocate;
mod annotations;
mod attrs;
mod daemon;
mod files;
mod image;
mod layers;
mod mirror;
mod registry;

use std::sync::Arc;

use futures_util::future::try_join_all;
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
    Ok(())
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

/// Solves everything that was yielded, then writes every output.
pub(crate) async fn export(job: &Arc<Job>) -> Result<Vec<ImageReport>, Failure> {
    let roots: Vec<Edge> = job
        .images()
        .iter()
        .filter_map(|image| image.root)
        .chain(job.files().iter().map(|files| files.root))
        .collect();
    let solved: Vec<Arc<Solved>> = try_join_all(roots.iter().map(|edge| job.solve(*edge))).await?;
    drop(solved);
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
