//! A frontend that asks for `nested` and, without a grant, must be refused. With one it builds itself
//! through it, without end: under the name in the option `self`, or the build argument of that name;
//! what ends it is the host's limit of depth. With the option `function` it calls that one function
//! for ever instead, see [`flood`].

mod flood;

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
        if let Some(function) = request::opt("function") {
            return flood::flood(&function);
        }
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
        Err(failure("unsupported", format!("no method {method:?}")))
    }
}

fn failure(kind: &str, message: String) -> Failure {
    Failure {
        kind: kind.to_owned(),
        message,
        retryable: false,
        diagnostics: Vec::new(),
        attrs: Vec::new(),
    }
}
