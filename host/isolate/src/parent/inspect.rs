//! Looking at plugins: what has to run for that runs in a child.

use std::time::Duration;

use wbuild_api::extension::LogCap;
use wbuild_graph::{Failure, FailureKind, Severity};
use wbuild_plugin::limits::Meter;
use wbuild_plugin::{Plugin, PluginInfo};

use super::Isolator;
use super::session::{Answer, Answers, Session, claim};
use crate::protocol::{Call, Done, Start, Task};

impl Isolator {
    /// As [`Plugin::inspect`], for a plugin of [`wbuild_plugin::PluginHost::load_apart`]: then this
    /// process neither reads nor compiles the component, and runs nothing of it.
    ///
    /// # Errors
    ///
    /// As there; that no process can be confined here.
    pub async fn inspect(&self, plugin: &Plugin) -> Result<PluginInfo, Failure> {
        let mut info = plugin.border();
        let Some(kind) = info.usable() else { return Ok(info) };
        let known = plugin.known(kind);
        let start =
            Start { known, repository: false, http: false, facts: None, task: Task::Measure };
        let session = Session::start(&self.program, plugin, &start).await?;
        plugin.was_compiled(&mut info);
        let measured = match session.finish(&mut Nobody).await {
            Ok((_, measured)) => measured,
            Err(failure) => Err(failure),
        };
        match measured {
            Ok(Done::Measured(loaded, started)) => {
                info.load_time = Some(Duration::from_nanos(loaded));
                match started {
                    Ok(started) => info.instantiate_time = Some(Duration::from_nanos(started)),
                    Err(failure) => info.refusal = Some(wbuild_plugin::bounds::failure(failure)),
                }
            }
            Ok(_) => return Err(Failure::internal("a plugin's process answered another question")),
            // Not the plugin's doing.
            Err(failure) if failure.kind == FailureKind::Unavailable => return Err(failure),
            Err(failure) => info.refusal = Some(failure),
        }
        Ok(info)
    }
}

/// Instances are made and not called: there is nothing to answer.
struct Nobody;

impl LogCap for Nobody {
    fn log(&self, _: Severity, _: String) {}
}

impl Answers for Nobody {
    fn log(&self) -> &dyn LogCap {
        self
    }

    async fn answer(&mut self, _: Call, _: &mut Meter) -> Answer {
        claim("a call of a plugin that was not called")
    }
}
