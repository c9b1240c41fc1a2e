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
//! left is this file: what a backend does, and what it says to the server.

use std::collections::BTreeSet;

use wbuild_cache::http::{self, Request, Response};
use wbuild_cache::{
    Attrs, Blob, Cache, Config, Error, FailureKind, Hash, Layer, Record, Result, Severity, Table,
    document, log,
};

// Makes the component. It imports what is used, and asks for a grant of no more than that: of `blobs`,
// `http` and `log`, and neither of `kv` nor of `repository`.
wbuild_cache::cache!(CacheHttp);

/// Requests sent at once. The host holds a connection for every answer whose body is not read yet, and
/// refuses more than 64.
const BATCH: usize = 16;

/// One cache on a server, for one direction and one build. Calls never overlap.
struct CacheHttp {
    /// Ends with a slash.
    url: String,
    /// How the host is to identify the user; none = not at all.
    auth: Option<String>,
    /// What the host has saved; sent by `commit`.
    saved: Table,
}

impl Cache for CacheHttp {
    fn open(mut config: Config) -> Result<CacheHttp> {
        let mut url = config.need("url")?;
        let auth = config.take("auth");
        if let Some(other) = auth.as_deref().filter(|auth| !matches!(*auth, "basic" | "bearer")) {
            return Err(Error::invalid(format!("auth is basic or bearer, not {other:?}")));
        }
        // An option that is not known is a mistake of the user's, and never ignored.
        config.finish()?;
        if !url.ends_with('/') {
            url.push('/');
        }
        Ok(CacheHttp { url, auth, saved: Table::default() })
    }

    /// What cannot be read is a miss with a warning: the build runs the step and saves a new record.
    fn find(&mut self, keys: &[Hash]) -> Result<Vec<Vec<Record>>> {
        let mut found = Vec::with_capacity(keys.len());
        for batch in keys.chunks(BATCH) {
            for (key, mut table) in batch.iter().zip(self.records_of(batch)?) {
                self.saved.find(key).cloned().for_each(|record| table.add(record));
                // Newest first, and only what has this key: the host would take anything else for a
                // lie, and do without this backend.
                found.push(table.find(key).cloned().collect());
            }
        }
        Ok(found)
    }

    /// Streams layers into the content store. The host checks digest and size on the way, and asks for
    /// the rest of a body that breaks off.
    fn fetch(&mut self, layers: &[Layer]) -> Vec<Result<Blob>> {
        let mut blobs = Vec::with_capacity(layers.len());
        for batch in layers.chunks(BATCH) {
            let requests = batch.iter().map(|layer| self.request("GET", &blob_path(layer)));
            let answers = http::send(requests.collect());
            blobs.extend(batch.iter().zip(answers).map(|(layer, answer)| {
                let answer = answer?;
                match answer.status() {
                    200 => answer.into_layer(layer),
                    // `Gone` makes the hit a miss. It is no failure of the cache.
                    404 | 410 => Err(gone(format!("the server lacks {}", layer.digest))),
                    _ => Err(unexpected(&answer)),
                }
            }));
        }
        blobs
    }

    /// Only noted here; what is sent at once is sent cheaper. A record may be saved again with other
    /// keys, which `Table` makes one record of.
    fn save(&mut self, records: Vec<Record>) -> Result<()> {
        records.into_iter().for_each(|record| self.saved.add(record));
        Ok(())
    }

    /// Sends layers that the server lacks, from the content store to the socket.
    fn push(&mut self, layers: &[Layer]) -> Vec<Result<()>> {
        layers.chunks(BATCH).flat_map(|batch| self.push_batch(batch)).collect()
    }

    /// Writes the records: for each key what the server has and what is new. Two builds that write one
    /// key at the same time lose one of their records, which is a miss later on and no more.
    fn commit(&mut self) -> Result<Attrs> {
        let saved = std::mem::take(&mut self.saved);
        let keys: BTreeSet<Hash> =
            saved.records().flat_map(|record| record.keys.iter().copied()).collect();
        let keys: Vec<Hash> = keys.into_iter().collect();
        for batch in keys.chunks(BATCH) {
            let mut requests = Vec::with_capacity(batch.len());
            for (key, mut table) in batch.iter().zip(self.records_of(batch)?) {
                saved.find(key).cloned().for_each(|record| table.add(record));
                // Too large to be read again: the oldest go.
                table.shrink(|t| document::encode(t.find(key)).len() <= document::MAX_BYTES);
                let body = document::encode(table.find(key));
                requests.push(self.request("PUT", &record_path(key)).body(body));
            }
            for answer in http::send(requests) {
                stored(&answer?)?;
            }
        }
        Ok(vec![("records".to_owned(), saved.len().to_string())])
    }

    // A web server does not say what it holds, so nothing is pruned: what is old has to be removed there.
}

impl CacheHttp {
    /// A request for something below the URL. The host refuses it if the URL leads anywhere but to
    /// what the user wrote into the options.
    fn request(&self, method: &str, path: &str) -> Request {
        let request = Request::new(method, format!("{}{path}", self.url)).retries(2);
        match &self.auth {
            // The credential itself never comes here.
            Some(kind) => request.authorize(kind),
            None => request,
        }
    }

    fn push_batch(&self, batch: &[Layer]) -> Vec<Result<()>> {
        let asked = batch.iter().map(|layer| self.request("HEAD", &blob_path(layer)));
        let present = http::send(asked.collect());
        let mut answers: Vec<Result<()>> = Vec::with_capacity(batch.len());
        let (mut sending, mut sent) = (Vec::new(), Vec::new());
        for (at, (layer, answer)) in batch.iter().zip(present).enumerate() {
            answers.push(answer.and_then(|answer| match answer.status() {
                200 if answer.header("content-length") == Some(layer.size.to_string()) => Ok(()),
                // There, but of another size: what an upload that broke off has left.
                200 | 404 | 410 => {
                    let gone = || gone(format!("{} is neither there nor here", layer.digest));
                    let blob = Blob::open(&layer.digest).ok_or_else(gone)?;
                    sending.push(self.request("PUT", &blob_path(layer)).blob(blob, 0, None));
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
    }

    /// What the server has for some keys, in order.
    fn records_of(&self, keys: &[Hash]) -> Result<Vec<Table>> {
        let requests = keys.iter().map(|key| self.request("GET", &record_path(key)));
        let mut tables = Vec::with_capacity(keys.len());
        for (key, answer) in keys.iter().zip(http::send(requests.collect())) {
            let answer = answer?;
            let records = match answer.status() {
                200 => {
                    let most = u32::try_from(document::MAX_BYTES).unwrap_or(u32::MAX);
                    let url = answer.url();
                    document::decode(&answer.into_bytes(most)?).unwrap_or_else(|why| {
                        log(Severity::Warning, &format!("{url} is passed over: {why}"));
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

fn blob_path(layer: &Layer) -> String {
    format!("blobs/{}", layer.digest.hex())
}

/// Whether a PUT was taken.
fn stored(answer: &Response) -> Result<()> {
    match answer.status() {
        200 | 201 | 204 => Ok(()),
        _ => Err(unexpected(answer)),
    }
}

/// What a status means that is not the expected one.
fn unexpected(answer: &Response) -> Error {
    let kind = match answer.status() {
        401 | 403 | 405 => FailureKind::Denied,
        507 => FailureKind::Limit,
        500..=599 | 408 | 429 => FailureKind::Unavailable,
        _ => FailureKind::Invalid,
    };
    Error::new(kind, format!("{} answers {}", answer.url(), answer.status()))
}

fn gone(message: String) -> Error {
    Error::new(FailureKind::Gone, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What all backends promise, over a server in memory.
    #[test]
    fn promises() {
        wbuild_testkit::backend::check("tests/cases", cache());
    }

    #[test]
    fn options_are_checked() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        for (options, message) in [
            (vec![], "the option url is missing"),
            (
                vec![pair("url", "https://a"), pair("auth", "none")],
                "auth is basic or bearer, not \"none\"",
            ),
            (vec![pair("url", "https://a"), pair("tag", "x")], "there is no option \"tag\""),
        ] {
            let failure = CacheHttp::open(Config::new(false, options)).err().expect(message);
            assert_eq!(failure.as_failure().message, message);
        }
    }
}
