//! Planning: the frontend is run, or its trace holds, as in a build, and what it made of the
//! definition is the answer. Nothing of it is built beyond what the frontend itself looks at.
//!
//! What a frontend would publish while it runs is noted instead: a plan writes nothing. So a frontend
//! that fetches again what it has published plans what was there before.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use wbuild_api::event::{BuildError, BuildStats, EventSink};
use wbuild_api::extension::{ImageInfo, ImageRequest, ImageResult, PluginIdentity, SourceRequest};
use wbuild_api::request::BuildRequest;
use wbuild_api::session::Session;
use wbuild_graph::{Definition, Failure, SourceMap};
use wbuild_plan::{FrontendId, Image, Pin, Plan, Results, VERSION};

use crate::build::Served;
use crate::job::Job;
use crate::{Engine, Plugins, inputs, memo};

/// What planning yields.
#[derive(Clone, Debug)]
pub struct PlanReport {
    /// The plan, with all nodes that the frontend has made.
    pub plan: Plan,
    /// The graph it was made of.
    pub definition: Definition,
    /// What spans of the graph point into.
    pub sources: SourceMap,
    /// How long it took, what ran for it, and whether the frontend did.
    pub stats: BuildStats,
    /// Calls of the frontend, or of the trace that stood for it.
    pub calls: u64,
}

/// That a build makes nothing.
pub(crate) fn yielded_nothing() -> Failure {
    Failure::invalid("the frontend yielded nothing")
        .hint("a frontend ends with an image or with files: results.image or results.files of its SDK")
        .hint("what it only describes, and what fails without being looked at, comes to nothing")
}

impl Engine {
    /// Plans. Of the request all that concerns what is built counts; outputs are not written. Cancelling
    /// is as of [`Engine::build`].
    ///
    /// # Errors
    ///
    /// What the frontend fails with, or a step that it looks at.
    pub async fn plan(
        &self,
        request: BuildRequest,
        session: Arc<dyn Session>,
        plugins: Plugins,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<PlanReport, Box<BuildError>> {
        let work =
            async |job: &Arc<Job>, stats: &mut BuildStats| self.lay_out(job, &plugins, stats).await;
        let served = self.serve(request, session, &plugins, events, cancel, work).await?;
        let Served { answer: (plan, definition, calls), sources, stats } = served;
        Ok(PlanReport { plan, definition, sources, stats, calls })
    }

    async fn lay_out(
        &self,
        job: &Arc<Job>,
        plugins: &Plugins,
        stats: &mut BuildStats,
    ) -> Result<(Plan, Definition, u64), Failure> {
        let began = Instant::now();
        job.worker().explain.keep_nothing();
        job.planning().only = true;
        job.settle_secrets().await?;
        let frontend = inputs::settle(job, &plugins.frontend).await?;
        let planned = memo::plan(job, &frontend).await?;
        stats.frontend_memo_hit = planned.held;
        stats.frontend_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if job.yielded().is_empty() {
            return Err(yielded_nothing());
        }
        let definition = job.definition().clone();
        let plan = job.plan(&definition, frontend.identity());
        // Configs of images, digests of files and what was looked at serve the next build.
        self.finish(job).await?;
        Ok((plan, definition, planned.calls))
    }
}

/// What a job notes for plans.
#[derive(Default)]
pub(crate) struct Planning {
    /// Nothing is published.
    pub(crate) only: bool,
    published: Vec<String>,
    pins: BTreeSet<Pin>,
}

impl Planning {
    /// Notes what would be published.
    pub(crate) fn publish(&mut self, names: Vec<String>) {
        self.published.extend(names);
    }

    /// Notes what an image was found to be.
    pub(crate) fn pin_image(&mut self, request: &ImageRequest, info: &ImageInfo) {
        self.pins.insert(Pin {
            kind: "image".to_owned(),
            name: request.reference.clone(),
            reference: String::new(),
            platform: request.platform.as_ref().map(ToString::to_string).unwrap_or_default(),
            pin: info.manifest.to_string(),
        });
    }

    /// Notes what a URL was found to be.
    pub(crate) fn pin_source(&mut self, request: &SourceRequest, pin: &str) {
        self.pins.insert(Pin {
            kind: request.kind.clone(),
            name: request.url.clone(),
            reference: request.reference.clone(),
            platform: String::new(),
            pin: pin.to_owned(),
        });
    }

    /// Forgets what a trace that does not hold has asked for.
    pub(crate) fn forget(&mut self) {
        self.published.clear();
        self.pins.clear();
    }
}

/// The notes of a job, which a panic elsewhere does not spoil.
pub(crate) fn lock(planning: &Mutex<Planning>) -> std::sync::MutexGuard<'_, Planning> {
    planning.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job {
    fn plan(&self, definition: &Definition, identity: PluginIdentity) -> Plan {
        let PluginIdentity { name, digest, wit_version, .. } = identity;
        let yielded = self.yielded();
        let planning = self.planning();
        let image = |image: &ImageResult| Image {
            name: image.name.clone(),
            // Every image that was taken in has one.
            platform: image.platform.as_ref().unwrap_or(&self.target_platforms()[0]).to_string(),
            root: image.root.map(Into::into),
            config: wbuild_plan::config(&image.config),
            attrs: wbuild_plan::attrs(&image.attrs),
        };
        let whole = yielded.whole();
        let files = whole.files.iter().map(|files| wbuild_plan::Files {
            name: files.name.clone(),
            platform: files.platform.as_ref().map(ToString::to_string).unwrap_or_default(),
            root: files.root.into(),
            path: files.path.clone(),
            attrs: wbuild_plan::attrs(&files.attrs),
        });
        let results = Results {
            images: whole.images.iter().flat_map(|image| &image.parts).map(image).collect(),
            files: files.collect(),
            required: yielded.required().iter().map(|edge| (*edge).into()).collect(),
            effects: yielded.effects().iter().map(|edge| (*edge).into()).collect(),
            fails: yielded.fails().map(Into::into),
            published: planning.published.clone(),
        };
        Plan {
            version: VERSION,
            frontend: FrontendId { name, digest, wit: wit_version },
            nodes: wbuild_plan::nodes(definition, self.texts().sources()),
            results,
            pins: planning.pins.iter().cloned().collect(),
        }
    }
}
