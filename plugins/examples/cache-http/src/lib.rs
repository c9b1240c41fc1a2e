//! An example for authors of cache backends: a cache on any web server that takes GET, HEAD and PUT
//! (WebDAV, nginx with `dav_methods PUT`, an artifact store).
//!
//! ```sh
//! wbuild build --cache-from type=./cache-http.wasm,url=https://cache.example/team/ \
//!              --cache-to   type=./cache-http.wasm,url=https://cache.example/team/ .
//! ```
//!
//! Below the URL it keeps
//!
//! ```text
//! records/<key>     the records of one key, as a document (cache_records::document)
//! blobs/<digest>    layers
//! ```
//!
//! so that a question costs one small request for each key, and layers are shared by everything that has
//! them. Whoever can write there can make up records: as every cache, it has to be trusted.
//!
//! What a backend does not have to care about: connections, TLS, proxies, credentials, redirects,
//! repetitions, and whether a layer is the right one. The host does all of it (see wit/cache). What is
//! left is this file. It has three parts: the functions of the interface, what they say to the server,
//! and helpers.

// ---- bindings ----------------------------------------------------------------------------------

mod bindings {
    // Generated: the component ABI is made of raw pointers.
    #![allow(unsafe_code, missing_docs)]
    wit_bindgen::generate!({
        path: ["../../../wit/types", "../../../wit/cache"],
        // Asks for a grant of what it imports. Only what is used is imported: this component uses
        // `blobs`, `http` and `log`, and so gets neither `kv` nor `repository`.
        world: "wbuild:cache/remote-cache",
        generate_all,
    });
    export!(CacheHttp with_types_in self);
    use super::CacheHttp;
}

use std::cell::RefCell;
use std::collections::BTreeSet;

use bindings::exports::wbuild::cache::backend::{Attrs, Guest, RecordEntry};
use bindings::wbuild::cache::blobs::{self, Blob, Descriptor};
use bindings::wbuild::cache::http::{self, Incoming, Outgoing};
use bindings::wbuild::types::log::log;
use bindings::wbuild::types::types::{Failure, Severity};
use cache_records::{Hash, Table, document};

// `record_in`, `record_out` and `hash_in`: between the types of these bindings and those of
// `cache_records`, which know nothing of components and can be tested without one.
cache_records::border!(RecordEntry, Descriptor);

/// Requests sent at once. The host holds a connection for every answer whose body is not read yet, and
/// refuses more than 64.
const BATCH: usize = 16;

struct CacheHttp;

/// What `open` made. One instance serves one cache, direction and build, and its calls never overlap,
/// so a cell is all the state needs.
struct Session {
    /// Ends with a slash.
    url: String,
    /// How the host is to identify the user; none = not at all.
    auth: Option<String>,
    writable: bool,
    /// What the host has saved; sent by `commit`.
    saved: Table,
}

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

// ---- the interface -----------------------------------------------------------------------------

impl Guest for CacheHttp {
    /// Checks the options. Nothing is asked of the server yet: a build that finds everything in the
    /// cache of its own machine should not wait for one elsewhere.
    fn open(mode: String, config: Attrs) -> Result<(), Failure> {
        let writable = match mode.as_str() {
            "read" => false,
            "write" => true,
            other => return Err(invalid(format!("mode {other:?} is neither read nor write"))),
        };
        let (mut url, mut auth) = (None, None);
        for (key, value) in config {
            match key.as_str() {
                "url" => url = Some(value),
                "auth" if matches!(value.as_str(), "basic" | "bearer") => auth = Some(value),
                "auth" => {
                    return Err(invalid(format!("auth is basic or bearer, not {value:?}")));
                }
                key if key.starts_with("x-") => {}
                // An option that is not known is a mistake of the user's, and never ignored.
                _ => return Err(failure("unsupported", format!("there is no option {key:?}"))),
            }
        }
        let mut url = url.ok_or_else(|| invalid("the option url is missing".to_owned()))?;
        if !url.ends_with('/') {
            url.push('/');
        }
        SESSION.set(Some(Session { url, auth, writable, saved: Table::default() }));
        Ok(())
    }

    /// One list for each key, in order. What cannot be read is a miss with a warning: the build runs
    /// the step and saves a new record.
    fn find(keys: Vec<String>) -> Result<Vec<Vec<RecordEntry>>, Failure> {
        with(false, |session| {
            let hashes = keys.iter().map(|key| hash(key)).collect::<Result<Vec<_>, _>>()?;
            let mut found = Vec::with_capacity(hashes.len());
            for batch in hashes.chunks(BATCH) {
                for (key, present) in batch.iter().zip(session.records_of(batch)?) {
                    let mut table = present;
                    session.saved.find(key).cloned().for_each(|record| table.add(record));
                    // Newest first, and only what has this key: the host would take anything else
                    // for a lie, and do without this backend.
                    found.push(table.find(key).map(record_out).collect());
                }
            }
            Ok(found)
        })
    }

    /// Streams layers into the content store. The host checks digest and size on the way, and asks for
    /// the rest of a body that breaks off.
    fn fetch(layers: Vec<Descriptor>) -> Vec<Result<Blob, Failure>> {
        each_batch(false, &layers, |session, batch| {
            let requests = batch.iter().map(|layer| session.request("GET", &blob_path(layer)));
            let answers = http::send(requests.collect());
            let blob = |(layer, answer): (&Descriptor, Result<Incoming, Failure>)| {
                let answer = answer?;
                match answer.status() {
                    200 => answer.body_blob(layer),
                    // "gone" makes the hit a miss. It is no failure of the cache.
                    404 | 410 => Err(failure("gone", format!("the server lacks {}", layer.digest))),
                    _ => Err(unexpected(&answer)),
                }
            };
            batch.iter().zip(answers).map(blob).collect()
        })
    }

    /// Only noted here; what is sent at once is sent cheaper. A record may be saved again with other
    /// keys, which `Table` makes one record of.
    fn save(entries: Vec<RecordEntry>) -> Result<(), Failure> {
        with(true, |session| {
            for entry in entries {
                session.saved.add(record_in(entry).map_err(invalid)?);
            }
            Ok(())
        })
    }

    /// Sends layers that the server lacks, from the content store to the socket.
    fn push(layers: Vec<Descriptor>) -> Vec<Result<(), Failure>> {
        each_batch(true, &layers, |session, batch| {
            let asked = batch.iter().map(|layer| session.request("HEAD", &blob_path(layer)));
            let present = http::send(asked.collect());
            let mut answers: Vec<Result<(), Failure>> = Vec::with_capacity(batch.len());
            let mut sending = Vec::new();
            let mut sent = Vec::new();
            for (at, (layer, answer)) in batch.iter().zip(present).enumerate() {
                answers.push(answer.and_then(|answer| match answer.status() {
                    200 if header(&answer, "content-length") == Some(layer.size.to_string()) => {
                        Ok(())
                    }
                    // There, but of another size: what an upload that broke off has left.
                    200 | 404 | 410 => {
                        let gone = || {
                            failure("gone", format!("{} is neither there nor here", layer.digest))
                        };
                        let blob = blobs::open(&layer.digest).ok_or_else(gone)?;
                        let request = session.request("PUT", &blob_path(layer));
                        request.body_blob(&blob, 0, None);
                        sending.push(request);
                        sent.push(at);
                        Ok(())
                    }
                    _ => Err(unexpected(&answer)),
                }));
            }
            for (at, answer) in sent.into_iter().zip(http::send(sending)) {
                answers[at] = answer.and_then(|answer| stored(&answer));
            }
            answers
        })
    }

    /// Writes the records: for each key what the server has and what is new. Two builds that write one
    /// key at the same time lose one of their records, which is a miss later on and no more.
    fn commit(_options: Attrs) -> Result<Attrs, Failure> {
        with(true, |session| {
            let saved = std::mem::take(&mut session.saved);
            let keys: BTreeSet<Hash> =
                saved.records().flat_map(|record| record.keys.iter().copied()).collect();
            let keys: Vec<Hash> = keys.into_iter().collect();
            for batch in keys.chunks(BATCH) {
                let mut requests = Vec::with_capacity(batch.len());
                for (key, mut table) in batch.iter().zip(session.records_of(batch)?) {
                    saved.find(key).cloned().for_each(|record| table.add(record));
                    // Too large to be read again: the oldest go.
                    table.shrink(|t| document::encode(t.find(key)).len() <= document::MAX_BYTES);
                    let request = session.request("PUT", &record_path(key));
                    request.body_small(&document::encode(table.find(key)));
                    requests.push(request);
                }
                for answer in http::send(requests) {
                    stored(&answer?)?;
                }
            }
            Ok(vec![("records".to_owned(), saved.len().to_string())])
        })
    }

    /// A web server does not say what it holds, so what is old has to be removed there.
    fn prune(_options: Attrs) -> Result<Attrs, Failure> {
        let message = "a web server cannot be asked for old records; remove old files there";
        Err(failure("unsupported", message.to_owned()))
    }
}

// ---- the server --------------------------------------------------------------------------------

impl Session {
    /// A request for something below the URL. The host refuses it if the URL leads anywhere but to
    /// what the user wrote into the options.
    fn request(&self, method: &str, path: &str) -> Outgoing {
        let request = Outgoing::new(method, &format!("{}{path}", self.url));
        if let Some(kind) = &self.auth {
            // The credential itself never comes here.
            request.authorize(kind, &[]);
        }
        request.attrs(&[("retries".to_owned(), "2".to_owned())]);
        request
    }

    /// What the server has for some keys, in order.
    fn records_of(&self, keys: &[Hash]) -> Result<Vec<Table>, Failure> {
        let requests = keys.iter().map(|key| self.request("GET", &record_path(key)));
        let mut tables = Vec::with_capacity(keys.len());
        for (key, answer) in keys.iter().zip(http::send(requests.collect())) {
            let answer = answer?;
            let records = match answer.status() {
                200 => {
                    let most = u32::try_from(document::MAX_BYTES).unwrap_or(u32::MAX);
                    let body = answer.body_small(most)?;
                    document::decode(&body).unwrap_or_else(|why| {
                        let message = format!("{} is passed over: {why}", answer.url());
                        log(Severity::Warning, &message);
                        Vec::new()
                    })
                }
                404 | 410 => Vec::new(),
                _ => return Err(unexpected(&answer)),
            };
            // Somebody may have put the document of one key in the place of another's.
            tables.push(records.into_iter().filter(|record| record.keys.contains(key)).collect());
        }
        Ok(tables)
    }
}

fn record_path(key: &Hash) -> String {
    format!("records/{}", key.hex())
}

fn blob_path(layer: &Descriptor) -> String {
    format!("blobs/{}", layer.digest.trim_start_matches("sha256:"))
}

fn header(answer: &Incoming, name: &str) -> Option<String> {
    answer.headers().into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Whether a PUT was taken.
fn stored(answer: &Incoming) -> Result<(), Failure> {
    match answer.status() {
        200 | 201 | 204 => Ok(()),
        _ => Err(unexpected(answer)),
    }
}

/// What a status means that is not the expected one.
fn unexpected(answer: &Incoming) -> Failure {
    let kind = match answer.status() {
        401 | 403 | 405 => "denied",
        507 => "limit",
        500..=599 | 408 | 429 => "unavailable",
        _ => "invalid",
    };
    failure(kind, format!("{} answers {}", answer.url(), answer.status()))
}

// ---- helpers -----------------------------------------------------------------------------------

/// Runs `action` on the session, if there is one and its mode allows it.
fn with<T>(
    writes: bool,
    action: impl FnOnce(&mut Session) -> Result<T, Failure>,
) -> Result<T, Failure> {
    SESSION.with_borrow_mut(|session| match session {
        None => Err(invalid("the backend was not opened".to_owned())),
        Some(session) if writes && !session.writable => {
            Err(failure("denied", "the backend was opened for reading".to_owned()))
        }
        Some(session) => action(session),
    })
}

/// Acts on layers, a batch at a time; one answer each, in order.
fn each_batch<T>(
    writes: bool,
    layers: &[Descriptor],
    action: impl Fn(&mut Session, &[Descriptor]) -> Vec<Result<T, Failure>>,
) -> Vec<Result<T, Failure>> {
    let acted = with(writes, |session| {
        Ok(layers.chunks(BATCH).flat_map(|batch| action(session, batch)).collect())
    });
    acted.unwrap_or_else(|failure| layers.iter().map(|_| Err(failure.clone())).collect())
}

fn hash(text: &str) -> Result<Hash, Failure> {
    hash_in(text).map_err(invalid)
}

fn invalid(message: String) -> Failure {
    failure("invalid", message)
}

fn failure(kind: &str, message: String) -> Failure {
    Failure {
        kind: kind.to_owned(),
        message,
        retryable: kind == "unavailable",
        diagnostics: Vec::new(),
        attrs: Vec::new(),
    }
}
