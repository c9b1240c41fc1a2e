//! A cache backend that asks for everything elsewhere, and uses it as the keys of `open`'s config say.
//! Every answer becomes a line of the log; nothing that it was not granted may be more than a failure.
//!
//! ```text
//! x-url        a URL that is asked for, with headers that only the host may set
//! x-get        a URL that is asked for without them, whose body is then read twice
//! x-requests   so many requests at once, to nowhere
//! x-resolve    a tag or digest that is looked up
//! x-pull       a digest that is pulled, as a layer of 7 bytes; may repeat
//! x-push       the same, pushed
//! x-publish    a manifest of so many bytes, without a tag
//! x-retain     a digest
//! x-flood      a function that is called for ever, see [`flood`]
//! ```

mod flood;

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
use bindings::wbuild::cache::http::{self, Incoming, Outgoing};
use bindings::wbuild::cache::repository;
use bindings::wbuild::types::log::log;
use bindings::wbuild::types::types::{Failure, Severity};

struct Hostile;

fn tell<T: std::fmt::Debug>(call: &str, answers: impl IntoIterator<Item = Result<T, Failure>>) {
    for answer in answers {
        match answer {
            Ok(value) => log(Severity::Note, &format!("{call}: {value:?}")),
            Err(failure) => {
                log(Severity::Error, &format!("{call}: {}: {}", failure.kind, failure.message));
            }
        }
    }
}

impl Guest for Hostile {
    fn open(_mode: String, config: Attrs) -> Result<(), Failure> {
        let all = |key: &str| {
            let pairs = config.iter().filter(move |(name, _)| name == key);
            pairs.map(|(_, value)| value.clone()).collect::<Vec<String>>()
        };
        if let Some(function) = all("x-flood").pop() {
            flood::flood(&function, |key| all(key).pop());
            return Err(failure(&format!("no function is called {function:?}")));
        }
        for url in all("x-url") {
            let request = Outgoing::new("GET", &url);
            request.header("Host", "metadata.example");
            request.header("Authorization", "Bearer stolen");
            request.header("Connection", "upgrade");
            tell(
                "url",
                http::send(vec![request]).into_iter().map(|answer| answer.map(|a| a.url())),
            );
        }
        for url in all("x-get") {
            for answer in http::send(vec![Outgoing::new("GET", &url)]) {
                let body = |answer: &Incoming| answer.body_small(4096).map(|body| body.len());
                match answer {
                    Ok(answer) => tell("get", [body(&answer), body(&answer)]),
                    Err(failure) => tell::<usize>("get", [Err(failure)]),
                }
            }
        }
        for count in all("x-requests") {
            let requests = (0..count.parse::<usize>().unwrap_or(0))
                .map(|_| Outgoing::new("GET", "https://nowhere.example/"));
            let answers = http::send(requests.collect()).into_iter().map(|a| a.map(|a| a.url()));
            tell("requests", answers.take(1));
        }
        for reference in all("x-resolve") {
            tell("resolve", [repository::resolve(&reference).map(|found| found.is_some())]);
        }
        let layers = |digests: Vec<String>| -> Vec<Descriptor> {
            let layer = |digest| Descriptor {
                media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
                digest,
                size: 7,
                diff_id: None,
                uncompressed_size: None,
                attrs: Vec::new(),
            };
            digests.into_iter().map(layer).collect()
        };
        let pulled = layers(all("x-pull"));
        if !pulled.is_empty() {
            let blobs = repository::pull(&pulled).into_iter();
            tell("pull", blobs.map(|blob| blob.map(|blob| blob.descriptor().digest)));
        }
        let pushed = layers(all("x-push"));
        if !pushed.is_empty() {
            tell("push", repository::push(&pushed));
        }
        for size in all("x-publish") {
            let data = vec![b' '; size.parse().unwrap_or(0)];
            tell("publish", [repository::publish(None, "application/json", &data)]);
        }
        let retained = all("x-retain");
        if !retained.is_empty() {
            tell("retain", [repository::retain(&retained)]);
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

    fn commit(_options: Attrs) -> Result<Attrs, Failure> {
        Ok(Vec::new())
    }

    fn prune(_options: Attrs) -> Result<Attrs, Failure> {
        Ok(Vec::new())
    }
}

fn failure(message: &str) -> Failure {
    Failure {
        kind: "unsupported".to_owned(),
        message: message.to_owned(),
        retryable: false,
        diagnostics: Vec::new(),
        attrs: Vec::new(),
    }
}
