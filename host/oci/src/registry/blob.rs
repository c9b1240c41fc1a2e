//! Blobs: streamed, taken up where a connection broke, checked at the end.

use std::io;

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use reqwest::header::CONTENT_RANGE;
use reqwest::{Method, StatusCode};
use wbuild_graph::Digest;

use super::hosts::Endpoint;
use super::http::transport_error;
use super::{Client, Wanted};
use crate::error::{Error, ErrorKind, Result};
use crate::media::{Compression, Descriptor, MAX_CONFIG, is_distributable, mismatch};
use crate::reference::Reference;

/// Progress that makes up for a cut connection: a server that gives less before each cut is given up.
const GOOD_PROGRESS: u64 = 64 << 10;

/// Where a blob goes. What it holds counts only when [`Client::blob`] has returned `Ok`.
#[async_trait]
pub trait BlobSink: Send {
    /// How much of the blob is here already, from its beginning: what is written goes behind it.
    fn size(&self) -> u64;

    /// The next bytes. Nothing more is received before there is room for them.
    ///
    /// # Errors
    /// There is no place for them.
    async fn write(&mut self, data: Bytes) -> io::Result<()>;

    /// What is here is of no use: drops all of it.
    ///
    /// # Errors
    /// It cannot be dropped.
    async fn restart(&mut self) -> io::Result<()>;

    /// The digest of everything that is here.
    ///
    /// # Errors
    /// It cannot be read, or something before has failed.
    async fn digest(&mut self) -> io::Result<Digest>;
}

#[async_trait]
impl BlobSink for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    async fn write(&mut self, data: Bytes) -> io::Result<()> {
        self.extend_from_slice(&data);
        Ok(())
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }

    async fn digest(&mut self) -> io::Result<Digest> {
        Ok(Digest::of(self))
    }
}

/// One blob on its way.
struct Transfer<'a> {
    descriptor: &'a Descriptor,
    what: String,
    sink: &'a mut dyn BlobSink,
    /// What is there was sent by somebody else, or in another time.
    foreign: bool,
}

impl Client {
    /// Fetches a small blob, such as a config, into memory.
    pub async fn blob_bytes(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>> {
        if descriptor.size > MAX_CONFIG {
            let digest = descriptor.digest;
            return Err(Error::limit(format!("{digest} is larger than {MAX_CONFIG} bytes")));
        }
        if let Some(bytes) = descriptor.inline() {
            return Ok(bytes);
        }
        let mut bytes = Vec::new();
        self.blob(reference, descriptor, &mut bytes).await?;
        Ok(bytes)
    }

    /// Streams the blob `descriptor` of the repository of `reference` into `sink`, behind what is
    /// there already. A connection that breaks is taken up again where it broke, also with another
    /// mirror.
    ///
    /// `sink` receives each byte once, in order, never more than the descriptor's size, unless what
    /// has come turns out to be wrong: then it is told to begin again. Digest and size are checked at
    /// the end.
    pub async fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        sink: &mut dyn BlobSink,
    ) -> Result<()> {
        let what = format!("blob {} of {}", descriptor.digest, reference.name());
        let foreign = sink.size() > 0;
        let mut transfer = Transfer { descriptor, what, sink, foreign };
        let mut places = self.0.sites.places(reference.registry()).await?;
        loop {
            let place = places.next();
            let result = transfer.from(self, &place, reference).await;
            if let Some(done) = places.settle(&place, result) {
                return done.map_err(|error| undistributed(error, descriptor));
            }
            transfer.foreign = true;
        }
    }
}

impl Transfer<'_> {
    async fn from(
        &mut self,
        client: &Client,
        endpoint: &Endpoint,
        reference: &Reference,
    ) -> Result<()> {
        let _slot = endpoint.site.slots.acquire().await.expect("the semaphore is never closed");
        loop {
            let resumed = self.foreign && self.sink.size() > 0;
            self.foreign = false;
            let error = match self.fetch(client, endpoint, reference).await {
                Err(error) if error.kind() == ErrorKind::Mismatch => error,
                result => return result,
            };
            let what = &self.what;
            self.sink.restart().await.map_err(|e| Error::io(format!("cannot store {what}"), e))?;
            // Who was to blame for it is not known, so this server gets a chance of its own.
            if !resumed {
                return Err(error);
            }
        }
    }

    fn wrong(&self, reason: &str) -> Error {
        Error::new(ErrorKind::Mismatch, format!("{} {reason}", self.what))
    }

    async fn fetch(
        &mut self,
        client: &Client,
        endpoint: &Endpoint,
        reference: &Reference,
    ) -> Result<()> {
        let size = self.descriptor.size;
        if self.sink.size() > size {
            return Err(self.wrong("was begun with too much"));
        }
        let retries = client.0.http.retries();
        let attempts = endpoint.attempts(retries.attempts);
        let (mut good, mut failures) = (self.sink.size(), 0u32);
        // Nobody needs to be asked for an empty one.
        while self.sink.size() < size {
            if failures > 0 {
                tokio::time::sleep(retries.delay(failures)).await;
            }
            let cause = self.attempt(client, endpoint, reference).await?;
            let have = self.sink.size();
            if have == size {
                break;
            }
            if have - good >= GOOD_PROGRESS {
                (good, failures) = (have, 0);
            }
            failures += 1;
            if failures >= attempts {
                let ends = || self.wrong(&format!("ends after {have} of {size} bytes"));
                return Err(cause.unwrap_or_else(ends));
            }
        }
        let what = &self.what;
        let found = self.sink.digest().await;
        let found = found.map_err(|e| Error::io(format!("cannot read {what}"), e))?;
        if found != self.descriptor.digest {
            return Err(mismatch(what, self.descriptor, size, found));
        }
        Ok(())
    }

    /// One request and what comes of it; an error of the connection is no failure yet.
    async fn attempt(
        &mut self,
        client: &Client,
        endpoint: &Endpoint,
        reference: &Reference,
    ) -> Result<Option<Error>> {
        let have = self.sink.size();
        let size = self.descriptor.size;
        let target = self.descriptor.digest.to_string();
        let wanted = Wanted { from: have, ..Wanted::new(Method::GET, "blobs", &target) };
        let host = &endpoint.site.name;
        let mut response = client.request(endpoint, reference, &wanted, &self.what).await?;
        let mut skip = match (response.status(), have) {
            (StatusCode::PARTIAL_CONTENT, 1..) => {
                let range = response.headers().get(CONTENT_RANGE).and_then(|r| r.to_str().ok());
                if !range.is_some_and(|r| r.starts_with(&format!("bytes {have}-"))) {
                    let what = &self.what;
                    let message = format!("{host} answers with another part of {what}");
                    return Err(Error::invalid(message));
                }
                0
            }
            (StatusCode::OK, _) => {
                if let Some(length) = response.content_length()
                    && length != size
                {
                    return Err(self.wrong(&format!("has {length} bytes instead of {size}")));
                }
                // No ranges here: what we have comes once more.
                have
            }
            (status, _) => {
                let what = &self.what;
                return Err(Error::invalid(format!("{host} answers {status} for {what}")));
            }
        };
        let url = response.url().clone();
        loop {
            match response.chunk().await {
                Ok(Some(mut fresh)) => {
                    let passed = skip.min(fresh.len() as u64);
                    skip -= passed;
                    fresh.advance(usize::try_from(passed).expect("part of a chunk"));
                    if fresh.is_empty() {
                        continue;
                    }
                    if fresh.len() as u64 > size - self.sink.size() {
                        return Err(self.wrong(&format!("has more than {size} bytes")));
                    }
                    let what = &self.what;
                    self.sink
                        .write(fresh)
                        .await
                        .map_err(|e| Error::io(format!("cannot store {what}"), e))?;
                }
                Ok(None) => return Ok(None),
                Err(error) => return Ok(Some(transport_error(&self.what, &url, error))),
            }
        }
    }
}

/// Why a layer is not there that its publisher keeps from registries.
fn undistributed(error: Error, descriptor: &Descriptor) -> Error {
    let media_type = &descriptor.media_type;
    if error.kind() != ErrorKind::NotFound
        || Compression::of_media_type(media_type).is_none()
        || is_distributable(media_type)
    {
        return error;
    }
    error.hint(
        "it is a layer that registries need not hold; the places its manifest names are not \
         followed, so use an image without such layers or a registry that holds it",
    )
}
