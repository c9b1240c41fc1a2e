//! Plugins in another process: what that process is told of a component that this one has read and
//! compiled.

use std::fs::File;

use serde::{Deserialize, Serialize};
use wbuild_graph::{Digest, Failure};

use crate::code_cache::deserialize_inherited;
use crate::error::Subject;
use crate::host::{Bytes, Plugin, PluginHost};
use crate::load::{Grants, Outline};
use crate::{Limits, PluginKind};

/// What is known of a component without its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Known {
    name: String,
    digest: Digest,
    outline: Outline,
    grants: Grants,
    kind: PluginKind,
    limits: Limits,
}

impl Plugin {
    /// What another process has to know, to run it as a plugin of this kind.
    pub fn known(&self, kind: PluginKind) -> Known {
        Known {
            name: self.name().to_owned(),
            digest: self.digest(),
            outline: Outline { manifest: None, ..self.inner.outline().clone() },
            grants: self.grants.clone(),
            kind,
            limits: self.limits(kind),
        }
    }

    /// What it was granted.
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// What a plugin of this kind may use.
    pub fn limits(&self, kind: PluginKind) -> Limits {
        self.grants.limits(kind, self.inner.limits(kind))
    }
}

impl Known {
    /// As which kind it is run.
    pub fn kind(&self) -> PluginKind {
        self.kind
    }

    /// What it may use.
    pub fn limits(&self) -> Limits {
        self.limits
    }
}

/// Hosts one plugin that another process has read and compiled, and keeps nothing.
pub struct Adopter(PluginHost);

impl Adopter {
    /// Starts the engine and its thread: from then on no further thread is started.
    ///
    /// # Errors
    ///
    /// When the engine cannot start.
    pub fn new(kind: PluginKind, limits: Limits) -> Result<Adopter, Failure> {
        // A directory that cannot be: nothing is looked for, and nothing kept.
        let mut options = crate::PluginHostOptions::new("/proc/nothing/here");
        match kind {
            PluginKind::Frontend => options.frontend_limits = limits,
            PluginKind::Runner => options.runner_limits = limits,
            PluginKind::Cache => options.cache_limits = limits,
        }
        let host = PluginHost::new(options);
        host.shared.runtime()?.start().map_err(|error| {
            Failure::internal("the clock of the WebAssembly engine cannot start").cause(&error)
        })?;
        Ok(Adopter(host))
    }

    /// The plugin. `code` is what [`Plugin::code`] answered; it is opened once more, by its
    /// descriptor.
    ///
    /// # Errors
    ///
    /// When the code is that of another engine.
    pub fn adopt(&self, known: &Known, code: &File) -> Result<Plugin, Failure> {
        let engine = self.0.shared.runtime()?.engine();
        let Known { name, digest, outline, grants, kind, limits } = known;
        let component = deserialize_inherited(engine, code)
            .map_err(|error| Subject { kind: *kind, name, limits }.invalid(&error))?;
        let bytes = Bytes::Embedded(&[]);
        let plugin = self.0.plugin(name, *digest, bytes, outline.clone(), Some(component));
        Ok(plugin.granted(grants.clone()))
    }
}
