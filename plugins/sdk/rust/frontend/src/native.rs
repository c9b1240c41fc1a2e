//! A frontend that is compiled into a program instead of to a component.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use wbuild_api::describe::{Description, MethodInfo, Outline, Query};
use wbuild_api::extension::{Frontend, FrontendHost, PluginIdentity};
use wbuild_graph::{Digest, Failure};

use wbuild_guest::native::{enter, panic_text};

use crate::{Build, Describe, Result};

/// A frontend made by [`crate::frontend!`], for tests and for programs that embed it: it is an
/// ordinary [`Frontend`], so whatever runs a component runs it, too.
///
/// Each build runs on a thread of its own, as an instance of a component does; statics are shared,
/// as nothing of a component is.
#[derive(Clone, Copy)]
pub struct Native {
    name: &'static str,
    build: fn(&Build) -> Result<()>,
    describe: Option<&'static (dyn Describe + Sync)>,
    digest: Option<Digest>,
}

impl std::fmt::Debug for Native {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Native").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Native {
    /// A frontend that only builds.
    pub const fn new(name: &'static str, build: fn(&Build) -> Result<()>) -> Self {
        Native { name, build, describe: None, digest: None }
    }

    /// One that answers questions, too.
    #[must_use]
    pub const fn describing(self, describe: &'static (dyn Describe + Sync)) -> Self {
        Native { describe: Some(describe), ..self }
    }

    /// Names what it is by a digest of its own, for an engine that remembers what it did: any change
    /// of what it does must be a change of the digest. Without, it is the file of the program and the
    /// time that it was made.
    #[must_use]
    pub const fn identified_by(self, digest: Digest) -> Self {
        Native { digest: Some(digest), ..self }
    }

    async fn run<T: Send + 'static>(
        &self,
        host: FrontendHost,
        call: impl FnOnce(&Build) -> Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let (asks, mut questions) = futures_channel::mpsc::unbounded();
        let thread = std::thread::Builder::new()
            .name(self.name.to_owned())
            .spawn(move || {
                let call = || enter(host, asks, || call(&Build::new()));
                catch_unwind(AssertUnwindSafe(call))
            })
            .map_err(|error| Failure::internal("cannot start a thread").cause(&error))?;
        while let Some(question) = questions.next().await {
            question.await;
        }
        match thread.join().unwrap_or_else(|panic| resume_unwind(panic)) {
            Ok(result) => result.map_err(crate::Error::into_failure),
            Err(panic) => {
                let Some(text) = panic_text(&*panic) else { return Err(Failure::cancelled()) };
                Err(Failure::internal(format!("the frontend {} panicked: {text}", self.name))
                    .attr("plugin", self.name))
            }
        }
    }
}

/// Of this program: what the frontend does may differ between any two of them. By its file and the time
/// that it was made, as reading all of it takes longer than most builds of a test.
fn program() -> Digest {
    static DIGEST: OnceLock<Digest> = OnceLock::new();
    *DIGEST.get_or_init(|| {
        let path = std::env::current_exe().unwrap_or_default();
        let made = std::fs::metadata(&path).and_then(|file| Ok((file.len(), file.modified()?)));
        Digest::of(format!("{path:?} {made:?}").as_bytes())
    })
}

#[async_trait]
impl Frontend for Native {
    fn identity(&self) -> PluginIdentity {
        let digest = self.digest.unwrap_or_else(program);
        PluginIdentity::bundled(self.name, digest, crate::WIT_VERSION)
    }

    async fn build(&self, host: FrontendHost) -> Result<(), Failure> {
        self.run(host, self.build).await
    }

    fn describes(&self) -> bool {
        self.describe.is_some()
    }

    async fn describe(&self, host: FrontendHost, query: Query) -> Result<Description, Failure> {
        let Some(describe) = self.describe else {
            return Err(query.unsupported(self.name));
        };
        self.run(host, move |build| {
            Ok(match query {
                Query::Check { target } => {
                    describe.check(build, target.as_deref())?;
                    Description::Check
                }
                Query::Targets => Description::Targets { targets: describe.targets(build)? },
                Query::Outline { target } => {
                    let parameters = describe.parameters(build, target.as_deref())?;
                    let wanted = |known: &wbuild_api::describe::Target| match &target {
                        Some(name) => known.name == *name,
                        None => known.is_default,
                    };
                    let target = describe.targets(build)?.into_iter().find(wanted);
                    Description::Outline(Outline { target, parameters })
                }
                Query::Methods => {
                    let method = |(name, summary)| MethodInfo { name, summary };
                    let methods = describe.methods(build)?.into_iter().map(method).collect();
                    Description::Methods { methods }
                }
                Query::Call { method, target, args } => Description::Call {
                    output: describe.call(build, &method, target.as_deref(), &args)?,
                },
            })
        })
        .await
    }
}
