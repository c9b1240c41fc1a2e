//! Frontends in Rust, in the program's own process.

use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use wbuild_api::extension::{Frontend, FrontendHost, PluginIdentity};
use wbuild_graph::{Digest, Failure};

/// A frontend made of a function.
struct Native<F> {
    name: String,
    function: F,
}

/// A frontend that is a function of this program: it reads the definition and options from the host,
/// adds nodes to the graph, and yields results. `name` tells it apart from other frontends of the
/// program.
///
/// What a frontend did is remembered, and it is not called again as long as every question that it
/// asked its host has the same answer. So the function must know nothing else: no files, no
/// environment, no time. Another build of the program is another frontend.
pub fn native<F>(name: impl Into<String>, function: F) -> Arc<dyn Frontend>
where
    F: AsyncFrontend,
{
    Arc::new(Native { name: name.into(), function })
}

/// A function that can be a frontend: `async fn(FrontendHost) -> Result<(), Failure>`.
pub trait AsyncFrontend: Send + Sync + 'static {
    /// Calls it.
    fn call(&self, host: FrontendHost) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl<F, R> AsyncFrontend for F
where
    F: Fn(FrontendHost) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Failure>> + Send,
{
    fn call(&self, host: FrontendHost) -> impl Future<Output = Result<(), Failure>> + Send {
        self(host)
    }
}

#[async_trait]
impl<F: AsyncFrontend> Frontend for Native<F> {
    fn identity(&self) -> PluginIdentity {
        let digest = Digest::of(format!("{}\0{}", *PROGRAM, self.name).as_bytes());
        // Part of the program, so trusted as what comes with it.
        PluginIdentity::bundled(&format!("native:{}", self.name), digest, "")
    }

    async fn build(&self, host: FrontendHost) -> Result<(), Failure> {
        self.function.call(host).await
    }
}

/// What this program is: another one has another file, or the same file at another time.
static PROGRAM: LazyLock<String> = LazyLock::new(|| match std::fs::metadata("/proc/self/exe") {
    Ok(file) => format!(
        "{}:{}:{}:{}.{}",
        file.dev(),
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec()
    ),
    // Nothing to remember it by but this run.
    Err(_) => format!("{}-{:?}", std::process::id(), std::time::SystemTime::now()),
});
