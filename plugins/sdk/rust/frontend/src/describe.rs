//! Questions about a definition, of editors and of the command line.

use wbuild_api::extension::{Parameter, Target};
use wbuild_graph::{Attrs, Failure};

use crate::{Build, Result};

/// What a frontend answers about a definition without building it. Implement what it has an answer
/// for, and name the type in [`crate::frontend!`].
pub trait Describe {
    /// What can be built, in the order of the definition.
    fn targets(&self, build: &Build) -> Result<Vec<Target>> {
        let _ = build;
        Ok(Vec::new())
    }

    /// What a target takes from outside.
    fn parameters(&self, build: &Build, target: Option<&str>) -> Result<Vec<Parameter>> {
        let _ = (build, target);
        Ok(Vec::new())
    }

    /// Looks for what is doubtful: findings are warnings, an error says that it cannot be built.
    fn check(&self, build: &Build, target: Option<&str>) -> Result<()> {
        let _ = (build, target);
        Ok(())
    }

    /// Further methods of this frontend: names and summaries.
    fn methods(&self, build: &Build) -> Result<Vec<(String, String)>> {
        let _ = build;
        Ok(Vec::new())
    }

    /// Answers a method, as JSON.
    fn call(
        &self,
        build: &Build,
        method: &str,
        target: Option<&str>,
        args: &Attrs,
    ) -> Result<String> {
        let _ = (build, target, args);
        Err(Failure::unsupported(format!("this frontend has no method {method:?}")).into())
    }
}
