//! Calls one function of the host for ever, whatever it answers, as the keys of `open`'s config say:
//!
//! ```text
//! x-flood    its place in the WIT: "kv.apply", "bucket.scan", "outgoing.constructor"
//! x-size     bytes of each text and each list of bytes; 64 KiB if absent
//! x-items    items of each other list; 1 if absent
//! x-handles  "held": each call has a handle of its own, which is kept; else all have one
//! ```

use std::hint::black_box;

use crate::bindings::wbuild::cache::blobs::{self, Blob, Descriptor};
use crate::bindings::wbuild::cache::http::{self, Incoming, Outgoing};
use crate::bindings::wbuild::cache::kv::Bucket;
use crate::bindings::wbuild::cache::repository;
use crate::bindings::wbuild::types::log::log;
use crate::bindings::wbuild::types::types::Severity;

/// What calls are given.
struct Given {
    text: String,
    data: Vec<u8>,
    texts: Vec<String>,
    attrs: Vec<(String, String)>,
    layers: Vec<Descriptor>,
    items: usize,
    held: bool,
}

const DIGEST: &str = "sha256:00000000000000000000000000000000000000000000000000000000deadbeef";

impl Given {
    /// Calls a method of handles.
    fn each<T, U>(&self, make: impl Fn() -> T, call: impl Fn(&T) -> U) -> ! {
        let mut handles = vec![make()];
        loop {
            if self.held {
                handles.push(make());
            }
            black_box(handles.last().map(&call));
        }
    }

    fn requests<U>(&self, call: impl Fn(&Outgoing) -> U) -> ! {
        self.each(request, call)
    }

    fn buckets<U>(&self, call: impl Fn(&Bucket) -> U) -> ! {
        let bucket = || Bucket::open("flood").ok();
        self.each(bucket, |bucket| bucket.as_ref().map(&call))
    }

    fn blobs<U>(&self, call: impl Fn(&Blob) -> U) -> ! {
        let blob = || blobs::write_small("text/plain", b"flood").ok();
        self.each(blob, |blob| blob.as_ref().map(&call))
    }

    fn answers<U>(&self, call: impl Fn(&Incoming) -> U) -> ! {
        let answer = || http::send(vec![request()]).pop()?.ok();
        self.each(answer, |answer| answer.as_ref().map(&call))
    }

    /// A function without handles, or one that answers with them.
    fn forever<U>(&self, call: impl Fn() -> U) -> ! {
        let mut held = Vec::new();
        loop {
            let answer = black_box(call());
            if self.held {
                held.push(answer);
            }
        }
    }
}

fn request() -> Outgoing {
    Outgoing::new("GET", "https://flood.example/")
}

/// Calls `function`; comes back only if there is none of that name.
pub(crate) fn flood(function: &str, option: impl Fn(&str) -> Option<String>) {
    let number = |name: &str, or| option(name).and_then(|text| text.parse().ok()).unwrap_or(or);
    let (size, items) = (number("x-size", 64 << 10), number("x-items", 1));
    let text = "x".repeat(size);
    let layer = Descriptor {
        media_type: text.clone(),
        digest: DIGEST.to_owned(),
        size: 7,
        diff_id: None,
        uncompressed_size: None,
        attrs: vec![("x-flood".to_owned(), text.clone())],
    };
    let given = Given {
        data: vec![b'x'; size],
        texts: vec![text.clone(); items],
        attrs: vec![("x-flood".to_owned(), text.clone()); items],
        layers: vec![layer; items],
        items,
        held: option("x-handles").as_deref() == Some("held"),
        text,
    };
    match function.split_once('.') {
        Some(("blobs" | "blob", name)) => of_blobs(name, &given),
        Some(("bucket", name)) => of_bucket(name, &given),
        Some(("repository", name)) => in_repository(name, &given),
        Some(("outgoing", name)) => of_outgoing(name, &given),
        Some(("incoming", name)) => of_incoming(name, &given),
        Some(("http", "send")) => {
            given.forever(|| http::send((0..given.items).map(|_| request()).collect()))
        }
        Some(("log", "log")) => given.forever(|| log(Severity::Warning, &given.text)),
        _ => {}
    }
}

fn of_blobs(name: &str, given: &Given) {
    match name {
        "descriptor" => given.blobs(Blob::descriptor),
        "open" => given.forever(|| blobs::open(DIGEST)),
        "read" => given.blobs(|blob| blobs::read(blob, 0, u32::MAX)),
        "write-small" => given.forever(|| blobs::write_small(&given.text, &given.data)),
        _ => {}
    }
}

fn of_bucket(name: &str, given: &Given) {
    let Given { data, items, .. } = given;
    match name {
        "open" => given.forever(|| Bucket::open("flood")),
        "generation" => given.buckets(Bucket::generation),
        "get-many" => {
            let keys = vec![data.clone(); *items];
            given.buckets(|bucket| bucket.get_many(&keys))
        }
        "scan" => given.buckets(|bucket| bucket.scan(data, Some(data), u32::MAX)),
        "apply" => {
            let changes = vec![(data.clone(), Some(data.clone())); *items];
            given.buckets(|bucket| bucket.apply(&changes))
        }
        "clear" => given.buckets(Bucket::clear),
        _ => {}
    }
}

fn in_repository(name: &str, given: &Given) {
    let Given { text, texts, data, layers, .. } = given;
    match name {
        "resolve" => given.forever(|| repository::resolve(text)),
        "pull" => given.forever(|| repository::pull(layers)),
        "push" => given.forever(|| repository::push(layers)),
        "publish" => given.forever(|| repository::publish(None, text, data)),
        "retain" => given.forever(|| repository::retain(texts)),
        _ => {}
    }
}

fn of_outgoing(name: &str, given: &Given) {
    let Given { text, data, attrs, .. } = given;
    match name {
        "constructor" => {
            let mut held = Vec::new();
            loop {
                held.push(Outgoing::new(text, text));
            }
        }
        "header" => given.requests(|request| request.header(text, text)),
        "authorize" => given.requests(|request| request.authorize(text, attrs)),
        "body-small" => given.requests(|request| request.body_small(data)),
        "body-blob" => {
            if let Ok(blob) = blobs::write_small("text/plain", b"flood") {
                given.requests(|request| request.body_blob(&blob, 0, None));
            }
        }
        "attrs" => given.requests(|request| request.attrs(attrs)),
        _ => {}
    }
}

fn of_incoming(name: &str, given: &Given) {
    match name {
        "status" => given.answers(Incoming::status),
        "headers" => given.answers(Incoming::headers),
        "url" => given.answers(Incoming::url),
        "body-small" => given.answers(|answer| answer.body_small(1 << 20)),
        "body-blob" => given.answers(|answer| answer.body_blob(&given.layers[0])),
        _ => {}
    }
}
