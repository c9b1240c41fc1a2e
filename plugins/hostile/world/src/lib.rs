//! A good component that is none of wbuild's: it exports nothing that a host would call. It must
//! be refused with a message that says what it exports instead.

mod bindings {
    // Generated: the component ABI is made of raw pointers.
    #![allow(unsafe_code, missing_docs)]
    wit_bindgen::generate!({ path: "wit", world: "hostile:other/other", generate_all });
    export!(Hostile with_types_in self);
    use super::Hostile;
}

use bindings::exports::hostile::other::voice::Guest;

struct Hostile;

impl Guest for Hostile {
    fn shout(text: String) -> String {
        text.to_uppercase()
    }
}
