//! The process that has plugins run in others.

mod cache;
mod compile;
mod frontend;
mod inspect;
mod process;
mod runner;
mod session;

use std::fs::File;
use std::io::Seek as _;
use std::sync::Arc;

use wbuild_api::extension::{CachePlugin, Frontend, Runner};
use wbuild_graph::Failure;
use wbuild_plugin::{Compile, Plugin};

use self::cache::IsolatedCache;
use self::compile::Compilers;
use self::frontend::IsolatedFrontend;
pub use self::process::Program;
use self::runner::IsolatedRunner;
use crate::confine::WithoutLandlock;

/// Makes plugins what the engine asks for, like [`Plugin`] itself, but with their guests in other
/// processes. Starts nothing until one is called.
#[derive(Clone, Debug)]
pub struct Isolator {
    program: Arc<Program>,
}

impl Isolator {
    /// Children are instances of `program`.
    pub fn new(program: Program) -> Isolator {
        Isolator { program: Arc::new(program) }
    }

    /// A compiler that works in children: see [`wbuild_plugin::PluginHostOptions::compiler`]. Also on
    /// a kernel without Landlock: else it would work here, confined by nothing.
    pub fn compiler(&self) -> Arc<dyn Compile> {
        let without_landlock = WithoutLandlock::Accept;
        Arc::new(Compilers(Arc::new(Program { without_landlock, ..(*self.program).clone() })))
    }

    /// As [`Plugin::frontend`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn frontend(&self, plugin: &Plugin) -> Result<Arc<dyn Frontend>, Failure> {
        let inner = plugin.frontend()?;
        let nested = plugin.grants().nested;
        let (program, plugin) = (Arc::clone(&self.program), plugin.clone());
        Ok(Arc::new(IsolatedFrontend { program, plugin, inner, nested }))
    }

    /// As [`Plugin::runner`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn runner(&self, plugin: &Plugin) -> Result<Arc<dyn Runner>, Failure> {
        let inner = plugin.runner()?;
        let (program, plugin) = (Arc::clone(&self.program), plugin.clone());
        Ok(Arc::new(IsolatedRunner { program, plugin, inner }))
    }

    /// As [`Plugin::cache`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn cache(&self, plugin: &Plugin) -> Result<Arc<dyn CachePlugin>, Failure> {
        let inner = plugin.cache()?;
        let (program, plugin) = (Arc::clone(&self.program), plugin.clone());
        Ok(Arc::new(IsolatedCache { program, plugin, inner }))
    }
}

/// The compiled code of a plugin, open for reading only.
async fn code_of(plugin: &Plugin) -> Result<File, Failure> {
    plugin.code().await?.ok_or_else(|| {
        Failure::new(
            wbuild_graph::FailureKind::Unavailable,
            format!(
                "the compiled code of {} cannot be kept, so no process can be given it",
                plugin.name()
            ),
        )
        .hint("the directory of compiled code must be this user's own and closed to others")
    })
}

/// A file without a name, open for reading only.
fn read_only(fill: impl FnOnce(&mut File) -> std::io::Result<()>) -> std::io::Result<File> {
    use std::os::fd::AsRawFd as _;
    let mut file = tempfile::tempfile()?;
    fill(&mut file)?;
    file.rewind()?;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
