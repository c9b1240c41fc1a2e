//! A frontend that asks for `nested` and builds itself through it, without end: under the name in
//! the option `self`, or the build argument of that name. Without a grant it must be refused; with one, at the host's depth limit.

mod bindings {
    // Generated: the component ABI is made of raw pointers.
    #![allow(unsafe_code, missing_docs)]
    wit_bindgen::generate!({
        path: ["../../../wit/types", "../../../wit/frontend"],
        world: "wbuild:frontend/frontend-full",
        generate_all,
    });
    export!(Hostile with_types_in self);
    use super::Hostile;
}

use bindings::exports::wbuild::frontend::{build, describe};
use bindings::wbuild::frontend::nested::{self, NestedBuild};
use bindings::wbuild::frontend::request;
use bindings::wbuild::types::types::{Attrs, Failure};

struct Hostile;

impl build::Guest for Hostile {
    fn build() -> Result<(), Failure> {
        let name = request::opt("self").or_else(|| request::opt("build-arg:self"));
        let name = name.unwrap_or_else(|| "hostile-nested".to_owned());
        let deeper = NestedBuild::new(&name);
        deeper.options(&[("self".to_owned(), name)]);
        nested::build(vec![deeper]).remove(0).map(drop)
    }
}

impl describe::Guest for Hostile {
    fn targets(_: Attrs) -> Result<Vec<describe::Target>, Failure> {
        Ok(Vec::new())
    }

    fn parameters(_: Option<String>, _: Attrs) -> Result<Vec<describe::Parameter>, Failure> {
        Ok(Vec::new())
    }

    fn check(_: Option<String>, _: Attrs) -> Result<(), Failure> {
        Ok(())
    }

    fn methods() -> Result<Vec<describe::Method>, Failure> {
        Ok(Vec::new())
    }

    fn call(method: String, _: Option<String>, _: Attrs) -> Result<String, Failure> {
        Err(Failure {
            kind: "unsupported".to_owned(),
            message: format!("no method {method:?}"),
            retryable: false,
            diagnostics: Vec::new(),
            attrs: Vec::new(),
        })
    }
}
