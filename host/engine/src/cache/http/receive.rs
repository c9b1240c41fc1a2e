//! Bodies of answers on their way into the content store.

use bytes::{Buf as _, Bytes};
use reqwest::header::{CONTENT_RANGE, HeaderValue};
use reqwest::{Response, StatusCode};
use wbuild_graph::{Failure, FailureKind};
use wbuild_http::{Retries, transport_error};
use wbuild_oci::media::Descriptor;
use wbuild_oci::registry::BlobSink;

use super::{Body, Http, Waiting};
use crate::source::receive::Receiver;

/// Progress that makes up for a cut: a server that gives less before each is given up.
const GOOD_PROGRESS: u64 = 64 << 10;

/// Takes a body for the blob it is expected to be.
pub(super) async fn blob(http: &Http, body: Body, wanted: &Descriptor) -> Result<(), Failure> {
    let report = |bytes| (http.progress)(&wanted.digest, bytes, wanted.size);
    let (mut receiver, writing) = http.shelf.receive(wanted, &report).await?;
    let fetching = async move {
        let sink = &mut receiver;
        match body {
            Body::Here(data) => {
                sink.restart().await.map_err(|error| not_kept(&error))?;
                check_size(&format!("the blob {}", wanted.digest), data.len() as u64, wanted)?;
                sink.write(data.into()).await.map_err(|error| not_kept(&error))
            }
            Body::Waits(waiting) => waiting.resumed(http, sink, wanted).await,
        }
    };
    writing.beside(fetching).await
}

fn not_kept(error: &std::io::Error) -> Failure {
    Failure::internal("cannot keep the body of an answer").cause(error)
}

fn check_size(what: &str, size: u64, wanted: &Descriptor) -> Result<(), Failure> {
    if size == wanted.size {
        return Ok(());
    }
    Err(Failure::invalid(format!("{what} has {size} bytes instead of {}", wanted.size)))
}

impl Waiting {
    /// Reads the body, and asks for the rest where it breaks off.
    async fn resumed(
        self,
        http: &Http,
        sink: &mut Receiver<'_>,
        wanted: &Descriptor,
    ) -> Result<(), Failure> {
        let Waiting { response, request } = self;
        let what = &request.what;
        if let Some(length) = response.content_length() {
            check_size(what, length, wanted)?;
        }
        let retries = Retries::default();
        let (mut good, mut failures) = (sink.size(), 0);
        let mut skip = sink.size();
        // Whether what an earlier build has left of it is right is seen at the end.
        let mut foreign = skip > 0;
        let mut next = Some(response);
        loop {
            let error = match next.take() {
                Some(response) => part(response, skip, sink, wanted, what).await?,
                None => None,
            };
            let have = sink.size();
            if have >= wanted.size {
                if !foreign || !request.resumable() || is(sink, wanted).await? {
                    return Ok(());
                }
                sink.restart().await.map_err(|error| not_kept(&error))?;
                (foreign, good, failures, skip) = (false, 0, 0, 0);
                next = Some(request.answer(http, None).await?);
                continue;
            }
            let short = || {
                let size = wanted.size;
                Failure::invalid(format!("{what}: the blob ends after {have} of {size} bytes"))
            };
            if have >= good + GOOD_PROGRESS {
                (good, failures) = (have, 0);
            }
            failures += 1;
            if failures >= retries.attempts || !request.resumable() {
                return Err(error.unwrap_or_else(short));
            }
            tokio::time::sleep(retries.delay(failures)).await;
            let range = HeaderValue::from_str(&format!("bytes={have}-")).expect("a header");
            let response = match request.answer(http, Some(&range)).await {
                Ok(response) => response,
                Err(failure) if failure.kind == FailureKind::Unavailable => continue,
                Err(failure) => return Err(failure),
            };
            skip = match response.status() {
                StatusCode::PARTIAL_CONTENT => {
                    let said = response.headers().get(CONTENT_RANGE);
                    let said = said.and_then(|range| range.to_str().ok()).unwrap_or_default();
                    if !said.starts_with(&format!("bytes {have}-")) {
                        return Err(Failure::invalid(format!("{what}: another part is answered")));
                    }
                    0
                }
                // No ranges here: what there is comes once more.
                StatusCode::OK => have,
                status if wbuild_http::is_temporary(status) => continue,
                status => {
                    let message = format!("{what}: the answer to the rest is {status}");
                    return Err(Failure::invalid(message));
                }
            };
            next = Some(response);
        }
    }
}

/// Whether what has come is the blob.
async fn is(sink: &mut Receiver<'_>, wanted: &Descriptor) -> Result<bool, Failure> {
    let digest = sink.digest().await.map_err(|error| not_kept(&error))?;
    Ok(digest == wanted.digest)
}

/// Reads one answer; that its connection broke is no failure yet.
async fn part(
    mut response: Response,
    mut skip: u64,
    sink: &mut Receiver<'_>,
    wanted: &Descriptor,
    what: &str,
) -> Result<Option<Failure>, Failure> {
    let url = response.url().clone();
    loop {
        let mut fresh: Bytes = match response.chunk().await {
            Ok(Some(fresh)) => fresh,
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(transport_error(what, &url, error).into())),
        };
        let passed = skip.min(fresh.len() as u64);
        skip -= passed;
        fresh.advance(usize::try_from(passed).expect("part of a chunk"));
        if fresh.is_empty() {
            continue;
        }
        if fresh.len() as u64 > wanted.size - sink.size() {
            let size = wanted.size;
            return Err(Failure::invalid(format!("{what} has more than {size} bytes")));
        }
        sink.write(fresh).await.map_err(|error| not_kept(&error))?;
    }
}
