//! A frontend that imports an interface no wbuild host has. It must be refused before it runs,
//! with a message that names the interface.

mod bindings {
    // Generated: the component ABI is made of raw pointers.
    #![allow(unsafe_code, missing_docs)]
    wit_bindgen::generate!({
        path: ["../../../wit/types", "../../../wit/frontend", "wit"],
        world: "hostile:extra/plugin",
        generate_all,
    });
    export!(Hostile with_types_in self);
    use super::Hostile;
}

use bindings::exports::wbuild::frontend::build::{Failure, Guest};
use bindings::hostile::extra::thing;

struct Hostile;

impl Guest for Hostile {
    fn build() -> Result<(), Failure> {
        let kind = thing::take().to_string();
        Err(Failure {
            kind,
            message: "this must never run".to_owned(),
            retryable: false,
            diagnostics: Vec::new(),
            attrs: Vec::new(),
        })
    }
}
