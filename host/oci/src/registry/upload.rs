//! One blob on its way into a repository (distribution specification, "Pushing blobs").
//!
//! A blob is sent only if it is not there and cannot be mounted. A small one goes in one request, a
//! larger one in chunks, so that a cut costs at most a chunk: the registry is asked how far it got,
//! and the rest follows. A registry that has forgotten the upload gets the blob once more from its
//! start, one that takes no chunks gets it in one request.
//!
//! What ends: cuts, restarts and retreats count against [`Retries`](super::Retries) until the registry
//! has more of the blob than ever before.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE,
};
use reqwest::{Method, Response, StatusCode, Url};
use wbuild_graph::Digest;
use wbuild_http::is_temporary;

use super::auth::{Access, Scope};
use super::hosts::Site;
use super::send::{Outgoing, Payload, Refusal, location};
use super::{DIGEST_HEADER, Inner, header};
use crate::error::{Error, ErrorKind, Result};
use crate::media::Descriptor;
use crate::reference::Reference;

/// The largest chunk that is sent because the registry wants no smaller one.
const MAX_CHUNK: u64 = 1 << 30;

/// Progress that makes up for a cut: a registry that takes less before each is given up.
const GOOD_PROGRESS: u64 = 64 << 10;

/// The smallest chunk a registry takes.
const CHUNK_MIN: &str = "oci-chunk-min-length";

/// A repository that blobs are sent to.
pub(super) struct Repository<'a> {
    pub(super) inner: &'a Inner,
    pub(super) reference: &'a Reference,
    /// The registry itself; mirrors are for pulling.
    pub(super) site: Arc<Site>,
    scope: Scope,
}

/// The content of a blob.
#[derive(Clone)]
pub(super) enum Content {
    Bytes(Bytes),
    File(Arc<std::fs::File>),
}

/// An upload the registry has opened.
struct Session {
    url: Url,
    /// Bytes the registry has.
    offset: u64,
    chunk: u64,
    /// It was taken up again after a cut.
    resumed: bool,
}

/// Why a step of an upload did not get anywhere.
enum Stumble {
    /// There is no point in going on.
    Fatal(Error),
    /// The registry may have kept what it got.
    Cut(Error, Option<Duration>),
    /// The registry does not know the upload any more.
    Lost(Error),
    /// It does not take the blob in parts.
    NoParts(Error),
}

impl<'a> Repository<'a> {
    pub(super) async fn new(inner: &'a Inner, reference: &'a Reference) -> Result<Self> {
        let site = Arc::clone(&inner.sites.route(reference.registry()).await?.origin.site);
        Ok(Repository { inner, reference, site, scope: scope(reference, Access::Push) })
    }

    fn at(&self, path: &str) -> Result<Url> {
        let repository = self.reference.repository();
        self.site.origin.join(&format!("/v2/{repository}/{path}")).map_err(|error| {
            let name = self.reference.name();
            Error::invalid(format!("{name} has no valid address")).because(error)
        })
    }

    pub(super) fn outgoing<'b>(
        &'b self,
        method: Method,
        path: &str,
        what: &'b str,
    ) -> Result<Outgoing<'b>> {
        Ok(self.outgoing_to(method, self.at(path)?, what))
    }

    fn outgoing_to<'b>(&'b self, method: Method, url: Url, what: &'b str) -> Outgoing<'b> {
        Outgoing {
            method,
            url,
            site: &self.site,
            scope: &self.scope,
            headers: Vec::new(),
            payload: Payload::empty(),
            completes: false,
            what,
        }
    }

    /// Whether the repository has the blob.
    pub(super) async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let name = self.reference.name();
        let what = format!("ask {name} for the blob {}", digest.short());
        let request = self.outgoing(Method::HEAD, &format!("blobs/{digest}"), &what)?;
        Ok(self.inner.send(&request, |status| status == StatusCode::NOT_FOUND).await?.is_ok())
    }

    /// Takes the blob over from another repository of the registry, if that works. Not everybody may
    /// pull there, and some registries do not offer it: then the blob is sent.
    pub(super) async fn mount(&self, digest: &Digest, from: &str) -> Result<bool> {
        let what = format!("mount the blob {} from {from}", digest.short());
        let mut request = self.outgoing(Method::POST, "blobs/uploads/", &what)?;
        request.url.query_pairs_mut().append_pair("mount", &digest.to_string());
        request.url.query_pairs_mut().append_pair("from", from);
        let scope = scope(self.reference, Access::Mount(from.to_owned()));
        request.scope = &scope;
        match self.inner.send_once(&request).await {
            Ok(Ok(response)) if response.status() == StatusCode::CREATED => {
                self.same_digest(digest, response.headers(), &what)?;
                Ok(true)
            }
            // An upload that nobody goes on with; or a refusal, which the upload will meet again if it
            // is more than one of this mount.
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Mismatch => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Sends a blob. `sent` is told how many of its bytes went out.
    pub(super) async fn upload(
        &self,
        descriptor: &Descriptor,
        content: &Content,
        sent: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<()> {
        let name = self.reference.name();
        let what = format!("push the blob {} to {name}", descriptor.digest.short());
        let blob = Upload { to: self, descriptor, content, sent, what };
        blob.run().await
    }

    /// Compares what the registry says it has got with what it was given.
    pub(super) fn same_digest(
        &self,
        digest: &Digest,
        headers: &HeaderMap,
        what: &str,
    ) -> Result<()> {
        let Some(said) = header(headers, DIGEST_HEADER) else { return Ok(()) };
        if said.parse() == Ok(*digest) {
            return Ok(());
        }
        let said: String = said.chars().take(100).flat_map(char::escape_debug).collect();
        let registry = self.reference.registry();
        let message =
            format!("cannot {what}: {registry} says it has got {said} instead of {digest}");
        Err(Error::new(ErrorKind::Mismatch, message)
            .hint("something between here and the registry changes what is sent"))
    }
}

struct Upload<'a> {
    to: &'a Repository<'a>,
    descriptor: &'a Descriptor,
    content: &'a Content,
    sent: Arc<dyn Fn(u64) + Send + Sync>,
    what: String,
}

impl Upload<'_> {
    async fn run(&self) -> Result<()> {
        let size = self.descriptor.size;
        let retries = self.to.inner.http.retries();
        let mut session = self.open().await?;
        // A chunk of its own would only cost a request more.
        let mut parts = size > session.chunk;
        let (mut best, mut failures) = (0, 0);
        loop {
            let before = session.offset;
            let (error, wait, lost) = match self.advance(&mut session, parts).await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    if session.offset >= size || session.offset >= best + GOOD_PROGRESS {
                        (best, failures) = (session.offset, 0);
                    }
                    if session.offset >= size || session.offset >= before + GOOD_PROGRESS {
                        continue;
                    }
                    let registry = self.to.reference.registry();
                    let (what, offset) = (&self.what, session.offset);
                    let message =
                        format!("cannot {what}: {registry} stays at {offset} of {size} bytes");
                    (Error::new(ErrorKind::Unavailable, message), None, false)
                }
                Err(Stumble::Fatal(error)) => return Err(error),
                Err(Stumble::Cut(error, wait)) => (error, wait, false),
                Err(Stumble::Lost(error)) => (error, None, true),
                Err(Stumble::NoParts(error)) if !parts => return Err(error),
                Err(Stumble::NoParts(_)) => {
                    parts = false;
                    session = self.open().await?;
                    continue;
                }
            };
            failures += 1;
            if failures >= retries.attempts {
                return Err(error);
            }
            tokio::time::sleep(wait.unwrap_or_else(|| retries.delay(failures))).await;
            if !lost && self.resume(&mut session).await? {
                if session.offset >= best + GOOD_PROGRESS {
                    (best, failures) = (session.offset, 0);
                }
                // What cannot go in parts begins again.
                if session.offset == 0 || session.offset == size || parts {
                    continue;
                }
            }
            // What was not answered may have arrived.
            if self.to.has_blob(&self.descriptor.digest).await? {
                return Ok(());
            }
            session = self.open().await?;
        }
    }

    /// Opens an upload.
    async fn open(&self) -> Result<Session> {
        let mut request = self.to.outgoing(Method::POST, "blobs/uploads/", &self.what)?;
        request.headers = vec![(CONTENT_LENGTH, HeaderValue::from_static("0"))];
        let response = self.to.inner.send(&request, |_| false).await?.map_err(|r| r.error)?;
        let registry = self.to.reference.registry();
        if response.status() != StatusCode::ACCEPTED {
            let (what, status) = (&self.what, response.status());
            let message = format!("cannot {what}: {registry} answers {status} instead of 202");
            return Err(Error::invalid(message).hint("is this a container registry?"));
        }
        let url = location(&self.to.site, response.url(), &response)?;
        let least = header(response.headers(), CHUNK_MIN).and_then(|least| least.parse().ok());
        let chunk = least.unwrap_or(0).min(MAX_CHUNK).max(self.to.site.upload_chunk);
        Ok(Session { url, offset: 0, chunk, resumed: false })
    }

    /// The next request; whether the blob is complete.
    async fn advance(&self, session: &mut Session, parts: bool) -> Result<bool, Stumble> {
        let size = self.descriptor.size;
        let (from, rest) = (session.offset, size - session.offset);
        let length = if parts { rest.min(session.chunk) } else { rest };
        let last = length == 0 || !parts;
        let method = if last { Method::PUT } else { Method::PATCH };
        let mut request = self.to.outgoing_to(method, session.url.clone(), &self.what);
        if last {
            let digest = self.descriptor.digest.to_string();
            request.url.query_pairs_mut().append_pair("digest", &digest);
            request.completes = true;
        }
        if length > 0 {
            request
                .headers
                .push((CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")));
        }
        if !last {
            request.headers.push((CONTENT_RANGE, number_range(from, from + length - 1)));
        }
        request.headers.push((CONTENT_LENGTH, length.into()));
        request.payload = self.payload(from, length);
        match self.to.inner.send_once(&request).await {
            Ok(Ok(response)) if last => {
                let (digest, headers) = (&self.descriptor.digest, response.headers());
                self.to.same_digest(digest, headers, &self.what).map_err(Stumble::Fatal)?;
                if response.status() != StatusCode::CREATED
                    && response.status() != StatusCode::NO_CONTENT
                {
                    return Err(self.confused(&response));
                }
                Ok(true)
            }
            Ok(Ok(response)) => {
                self.took(session, &response, from + length).map_err(Stumble::Fatal)?;
                Ok(false)
            }
            Ok(Err(refusal)) => Err(self.refused(refusal, parts && !last, session.resumed)),
            Err(error) if error.kind() == ErrorKind::Unavailable => Err(Stumble::Cut(error, None)),
            Err(error) => Err(Stumble::Fatal(error)),
        }
    }

    fn payload(&self, from: u64, length: u64) -> Payload {
        let before = from;
        match self.content {
            Content::Bytes(bytes) => {
                let end = usize::try_from(from + length).unwrap_or(usize::MAX).min(bytes.len());
                let from = usize::try_from(from).unwrap_or(usize::MAX).min(end);
                (self.sent)(end as u64);
                Payload::Bytes(bytes.slice(from..end))
            }
            Content::File(file) => {
                let sent = Arc::clone(&self.sent);
                let sent = Arc::new(move |bytes| sent(before + bytes));
                Payload::File { file: Arc::clone(file), from, length, sent }
            }
        }
    }

    /// What follows from a status that is no success.
    fn refused(&self, refusal: Refusal, part: bool, resumed: bool) -> Stumble {
        let Refusal { status, error, wait } = refusal;
        match status.as_u16() {
            _ if is_temporary(status) => Stumble::Cut(error, wait),
            // BLOB_UPLOAD_UNKNOWN
            404 => Stumble::Lost(error),
            // The registry has another idea of how far it is.
            416 => Stumble::Cut(error, None),
            // What was put together from parts was put together wrongly.
            400 if resumed => Stumble::Lost(error),
            400 | 405 | 411 | 415 | 501 if part => Stumble::NoParts(error),
            _ => Stumble::Fatal(error),
        }
    }

    fn confused(&self, response: &Response) -> Stumble {
        let (what, status) = (&self.what, response.status());
        let registry = self.to.reference.registry();
        let message = format!("cannot {what}: {registry} answers {status} instead of 201");
        Stumble::Fatal(Error::invalid(message).hint("is this a container registry?"))
    }

    /// Notes where the rest goes, and how much the registry has got of at most `most` bytes.
    fn took(&self, session: &mut Session, response: &Response, most: u64) -> Result<()> {
        let registry = self.to.reference.registry();
        if response.headers().contains_key(reqwest::header::LOCATION) {
            session.url = location(&self.to.site, &session.url, response)?;
        }
        let Some(range) = header(response.headers(), RANGE.as_str()) else {
            session.offset = most;
            return Ok(());
        };
        let have = received(range).filter(|have| *have <= most).ok_or_else(|| {
            let range: String = range.chars().take(60).flat_map(char::escape_debug).collect();
            let what = &self.what;
            Error::invalid(format!(
                "cannot {what}: {registry} says it has got \"{range}\" of {most} bytes"
            ))
        })?;
        session.offset = have;
        Ok(())
    }

    /// Asks how far an upload is; whether the registry still knows it.
    async fn resume(&self, session: &mut Session) -> Result<bool> {
        let most = self.descriptor.size;
        let request = self.to.outgoing_to(Method::GET, session.url.clone(), &self.what);
        match self.to.inner.send(&request, |status| !is_temporary(status)).await {
            Ok(Ok(response)) => {
                if !response.headers().contains_key(RANGE) {
                    return Ok(false);
                }
                self.took(session, &response, most)?;
                session.resumed = true;
                Ok(true)
            }
            // Whatever is the matter, a new upload will show it.
            Ok(Err(_)) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Unavailable => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// `Content-Range` as uploads have it: no unit and no total.
fn number_range(first: u64, last: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("{first}-{last}")).expect("digits")
}

/// The bytes a registry has, by its `Range`: the offset of the last one. Nothing at all is `0-0` too;
/// if it was one byte, that is sent again.
fn received(range: &str) -> Option<u64> {
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let (first, last) = range.split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    if first.trim() != "0" {
        return None;
    }
    if last == 0 { Some(0) } else { last.checked_add(1) }
}

fn scope(reference: &Reference, access: Access) -> Scope {
    let (registry, repository) = (reference.registry(), reference.repository());
    Scope { registry: registry.to_owned(), repository: repository.to_owned(), access }
}

/// A header of the media type.
pub(super) fn media_type(text: &str) -> Result<(HeaderName, HeaderValue)> {
    let value = HeaderValue::from_str(text)
        .map_err(|e| Error::invalid(format!("{text:?} is no media type")).because(e))?;
    Ok((CONTENT_TYPE, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, want) in [
            ("0-0", Some(0)),
            ("0-1", Some(2)),
            ("bytes=0-99", Some(100)),
            ("0-18446744073709551615", None),
            ("1-5", None),
            ("0", None),
            ("0--1", None),
            ("", None),
        ] {
            assert_eq!(received(text), want, "{text}");
        }
        assert_eq!(number_range(16, 31), "16-31");
    }
}
