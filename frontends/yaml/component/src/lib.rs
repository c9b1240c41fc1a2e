//! The YAML frontend as a component.
//!
//! All that is about the form lives in `wbuild-yaml`, which knows nothing of WebAssembly. The host over
//! the plugin interface is that of Dockerfiles, the same source.

#[path = "../../../dockerfile/component/src/bridge.rs"]
mod bridge;
#[path = "../../../dockerfile/component/src/convert.rs"]
mod convert;

mod bindings {
    // Generated: the component ABI is made of raw pointers.
    #![allow(unsafe_code, missing_docs)]
    wit_bindgen::generate!({
        path: ["../../../wit/types", "../../../wit/frontend"],
        world: "wbuild:frontend/frontend-describe",
        generate_all,
    });
    export!(Component with_types_in self);
    use super::Component;
}

use bindings::exports::wbuild::frontend::{build, describe};
use bindings::wbuild::types::types as wit;
use bridge::{Attrs, Bridge};
use convert::failure_out;
use wbuild_dockerfile::describe as lang;

struct Component;

impl build::Guest for Component {
    fn build() -> Result<(), wit::Failure> {
        wbuild_yaml::build(&mut Bridge::default()).map_err(failure_out)
    }
}

impl describe::Guest for Component {
    fn targets(_opts: Attrs) -> Result<Vec<describe::Target>, wit::Failure> {
        let targets = wbuild_yaml::targets(&mut Bridge::default()).map_err(failure_out)?;
        Ok(targets.into_iter().map(convert::target_out).collect())
    }

    fn parameters(
        target: Option<String>,
        _opts: Attrs,
    ) -> Result<Vec<describe::Parameter>, wit::Failure> {
        let found = wbuild_yaml::parameters(&mut Bridge::default(), target.as_deref())
            .map_err(failure_out)?;
        Ok(found.into_iter().map(convert::parameter_out).collect())
    }

    fn check(target: Option<String>, _opts: Attrs) -> Result<(), wit::Failure> {
        wbuild_yaml::check(&mut Bridge::default(), target.as_deref()).map_err(failure_out)
    }

    fn methods() -> Result<Vec<describe::Method>, wit::Failure> {
        let method = |(name, summary)| describe::Method { name, summary, attrs: Vec::new() };
        Ok(lang::methods().into_iter().map(method).collect())
    }

    fn call(method: String, _: Option<String>, _args: Attrs) -> Result<String, wit::Failure> {
        lang::call(&method).map_err(failure_out)
    }
}
