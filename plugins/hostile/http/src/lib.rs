//! A cache backend that asks for `http` and, when it is opened, for the URL in `x-url` of its
//! config with headers that only the host may set. Without a grant it must be refused before it
//! runs; with one, the URL is answered by the egress rules and the headers are the host's.

mod bindings {
    // Generated: the component ABI is made of raw pointers.
    #![allow(unsafe_code, missing_docs)]
    wit_bindgen::generate!({
        path: ["../../../wit/types", "../../../wit/cache"],
        world: "wbuild:cache/remote-cache",
        generate_all,
    });
    export!(Hostile with_types_in self);
    use super::Hostile;
}

use bindings::exports::wbuild::cache::backend::{Attrs, Guest, RecordEntry};
use bindings::wbuild::cache::blobs::{Blob, Descriptor};
use bindings::wbuild::cache::http::{self, Outgoing};
use bindings::wbuild::types::log::log;
use bindings::wbuild::types::types::{Failure, Severity};

struct Hostile;

impl Guest for Hostile {
    fn open(_mode: String, config: Attrs) -> Result<(), Failure> {
        let urls = config.iter().filter(|(key, _)| key == "x-url");
        let requests = urls.map(|(_, url)| {
            let request = Outgoing::new("GET", url);
            request.header("Host", "metadata.example");
            request.header("Authorization", "Bearer stolen");
            request.header("Connection", "upgrade");
            request
        });
        for answer in http::send(requests.collect()) {
            let answer = answer?;
            let body = answer.body_small(4096)?;
            log(Severity::Error, &format!("{} answered with {} bytes", answer.url(), body.len()));
        }
        Ok(())
    }

    fn find(keys: Vec<String>) -> Result<Vec<Vec<RecordEntry>>, Failure> {
        Ok(keys.iter().map(|_| Vec::new()).collect())
    }

    fn fetch(_layers: Vec<Descriptor>) -> Vec<Result<Blob, Failure>> {
        Vec::new()
    }

    fn save(_entries: Vec<RecordEntry>) -> Result<(), Failure> {
        Ok(())
    }

    fn push(layers: Vec<Descriptor>) -> Vec<Result<(), Failure>> {
        layers.iter().map(|_| Ok(())).collect()
    }

    fn commit() -> Result<Attrs, Failure> {
        Ok(Vec::new())
    }

    fn prune(_options: Attrs) -> Result<Attrs, Failure> {
        Ok(Vec::new())
    }
}
