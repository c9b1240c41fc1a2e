//! One file from a URL: asked for only if it changed, taken up again where a connection broke.

use std::io;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE, TRANSFER_ENCODING,
};
use reqwest::{Response, StatusCode, Url};

use crate::client::{
    Clients, Retries, is_temporary, retry_after, same_origin, show_url, transport_error,
};
use crate::error::{Error, ErrorKind, Result};

/// Most redirects that are followed for one request.
const MAX_REDIRECTS: usize = 10;
/// Progress that makes up for a cut connection: a server that gives less before each cut is given up.
const GOOD_PROGRESS: u64 = 64 << 10;
/// Longest validator that is kept, in bytes.
const MAX_VALIDATOR: usize = 1 << 10;

/// What a server says of a version of a file (RFC 9110, section 8.8), as it wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// Of `ETag`.
    pub etag: Option<String>,
    /// Of `Last-Modified`.
    pub modified: Option<String>,
}

impl Validators {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| {
            let value = headers.get(name)?.to_str().ok()?.trim();
            (!value.is_empty() && value.len() <= MAX_VALIDATOR).then(|| value.to_owned())
        };
        Validators { etag: text(ETAG), modified: text(LAST_MODIFIED) }
    }

    /// Whether an answer is about the version that these belong to: the comparison for which weak
    /// tags are enough.
    fn same_version(&self, other: &Validators) -> bool {
        let opaque = |etag: &Option<String>| {
            etag.as_deref().map(|tag| tag.strip_prefix("W/").unwrap_or(tag).to_owned())
        };
        self.etag.is_some() && opaque(&self.etag) == opaque(&other.etag)
    }

    /// A tag that promises equal bytes: only such a version can be taken up in the middle.
    fn strong(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| !tag.starts_with("W/"))
    }
}

/// What is to be downloaded.
#[derive(Clone, Debug)]
pub struct Download<'a> {
    /// From where; http or https.
    pub url: &'a Url,
    /// What it is, in messages.
    pub what: &'a str,
    /// Sent along, also to where redirects lead.
    pub headers: HeaderMap,
    /// Sent to the URL's own origin and nowhere else.
    pub authorization: Option<HeaderValue>,
    /// The version that is known already.
    pub known: Option<&'a Validators>,
    /// Most bytes of the file.
    pub limit: u64,
}

/// What came of a download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Downloaded {
    /// The known version is the newest: nothing was written.
    Unchanged,
    /// All of the file was written.
    New(Validators),
}

/// Where a download goes.
pub trait Sink: Send {
    /// The file begins, or begins again: what was written before is dropped. `length` if the server
    /// says so.
    ///
    /// # Errors
    /// There is no place for it.
    fn begin(&mut self, length: Option<u64>) -> io::Result<()>;

    /// The next bytes.
    ///
    /// # Errors
    /// There is no place for them.
    fn write(&mut self, data: &[u8]) -> io::Result<()>;
}

/// What is here so far.
#[derive(Default)]
struct Progress {
    have: u64,
    version: Validators,
}

/// Downloads a file.
///
/// # Errors
/// [`ErrorKind::NotFound`] and [`ErrorKind::Denied`] as the server says; [`ErrorKind::OutOfReach`]:
/// see [`crate::Reach`];
/// [`ErrorKind::Unavailable`] if the last try failed too; [`ErrorKind::Limit`]: it is too long;
/// [`ErrorKind::Invalid`]: the answer makes no sense, or the sink fails.
pub async fn download(
    clients: &Clients,
    retries: Retries,
    wanted: &Download<'_>,
    sink: &mut dyn Sink,
) -> Result<Downloaded> {
    let mut progress = Progress::default();
    let mut failures = 0;
    loop {
        let before = progress.have;
        let (error, wait) = match attempt(clients, wanted, &mut progress, sink).await {
            Ok(done) => return Ok(done),
            Err((error, wait)) if error.kind == ErrorKind::Unavailable => (error, wait),
            Err((error, _)) => return Err(error),
        };
        let gained = progress.have.saturating_sub(before) >= GOOD_PROGRESS;
        failures = if gained { 1 } else { failures + 1 };
        if failures >= retries.attempts {
            return Err(error);
        }
        tokio::time::sleep(wait.unwrap_or_else(|| retries.delay(failures))).await;
    }
}

/// An error, and how long the server asks to wait.
type Tried<T> = std::result::Result<T, (Error, Option<std::time::Duration>)>;

async fn attempt(
    clients: &Clients,
    wanted: &Download<'_>,
    progress: &mut Progress,
    sink: &mut dyn Sink,
) -> Tried<Downloaded> {
    let plain = |error| (error, None);
    let mut headers = wanted.headers.clone();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let resumed = progress.version.strong().filter(|_| progress.have > 0);
    let mut ask = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    match (resumed, wanted.known) {
        (Some(etag), _) => {
            ask(RANGE, &format!("bytes={}-", progress.have));
            ask(IF_RANGE, etag);
        }
        (None, Some(Validators { etag: Some(etag), .. })) => ask(IF_NONE_MATCH, etag),
        (None, Some(Validators { modified: Some(modified), .. })) => {
            ask(IF_MODIFIED_SINCE, modified);
        }
        (None, _) => {}
    }
    let conditional =
        headers.contains_key(IF_NONE_MATCH) || headers.contains_key(IF_MODIFIED_SINCE);
    let mut response = redirected(clients, wanted, &headers).await.map_err(plain)?;
    let version = Validators::of(response.headers());
    let url = response.url().clone();
    match response.status() {
        StatusCode::NOT_MODIFIED if conditional => return Ok(Downloaded::Unchanged),
        StatusCode::PARTIAL_CONTENT if resumed.is_some() => {
            let have = progress.have;
            let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
            if !range.is_some_and(|range| range.starts_with(&format!("bytes {have}-")))
                || !progress.version.same_version(&version)
            {
                return Err(plain(odd(wanted, &url, "another part than was asked for")));
            }
        }
        StatusCode::OK => {
            // Some servers send tags and do not heed them.
            if wanted.known.is_some_and(|known| known.same_version(&version)) {
                return Ok(Downloaded::Unchanged);
            }
            // A body that is framed otherwise may announce what it likes.
            let framed = response.headers().contains_key(TRANSFER_ENCODING);
            let length = response.content_length().filter(|_| !framed);
            if length.is_some_and(|length| length > wanted.limit) {
                return Err(plain(too_long(wanted)));
            }
            sink.begin(length).map_err(|e| plain(no_place(wanted, e)))?;
            *progress = Progress { have: 0, version };
        }
        status => {
            let wait = retry_after(response.headers());
            return Err((status_error(wanted, &url, status), wait));
        }
    }
    loop {
        let chunk = response.chunk().await;
        let Some(chunk) = chunk.map_err(|e| plain(transport_error(wanted.what, &url, e)))? else {
            return Ok(Downloaded::New(std::mem::take(&mut progress.version)));
        };
        if progress.have.saturating_add(chunk.len() as u64) > wanted.limit {
            return Err(plain(too_long(wanted)));
        }
        sink.write(&chunk).map_err(|e| plain(no_place(wanted, e)))?;
        progress.have += chunk.len() as u64;
    }
}

/// Sends a request and follows redirects. The credential stays behind at the first step to another
/// origin, and nothing that was encrypted goes on in the clear.
async fn redirected(
    clients: &Clients,
    wanted: &Download<'_>,
    headers: &HeaderMap,
) -> Result<Response> {
    let mut url = wanted.url.clone();
    let mut authorization = wanted.authorization.as_ref();
    for _ in 0..=MAX_REDIRECTS {
        if !matches!(url.scheme(), "http" | "https") {
            let message = format!("{} is neither http nor https", show_url(&url));
            return Err(Error::new(ErrorKind::Denied, message));
        }
        let mut builder = clients.client(&url).await?.get(url.clone()).headers(headers.clone());
        if let Some(value) = authorization {
            builder = builder.header(AUTHORIZATION, value.clone());
        }
        let response = builder.send().await.map_err(|e| transport_error(wanted.what, &url, e))?;
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(response);
        }
        let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
        let next = location
            .and_then(|location| url.join(location).ok())
            .ok_or_else(|| odd(wanted, &url, "a redirect that leads nowhere"))?;
        if next.scheme() == "http" && url.scheme() == "https" {
            let (from, to) = (show_url(&url), show_url(&next));
            let message = format!("{from} redirects to {to}, which is not encrypted");
            return Err(Error::new(ErrorKind::Denied, message)
                .hint("if that is meant, name the second URL and a checksum"));
        }
        if !same_origin(&next, wanted.url) {
            authorization = None;
        }
        url = next;
    }
    Err(odd(wanted, &url, &format!("more than {MAX_REDIRECTS} redirects")))
}

fn odd(wanted: &Download<'_>, url: &Url, answer: &str) -> Error {
    let host = url.host_str().unwrap_or_default();
    Error::new(ErrorKind::Invalid, format!("{host} answers with {answer} for {}", wanted.what))
}

fn too_long(wanted: &Download<'_>) -> Error {
    let message = format!("{} is larger than {} bytes", wanted.what, wanted.limit);
    Error::new(ErrorKind::Limit, message)
}

fn no_place(wanted: &Download<'_>, error: io::Error) -> Error {
    Error::new(ErrorKind::Invalid, format!("cannot keep {}", wanted.what)).because(error)
}

fn status_error(wanted: &Download<'_>, url: &Url, status: StatusCode) -> Error {
    let host = url.host_str().unwrap_or_default();
    let kind = match status.as_u16() {
        404 | 410 => ErrorKind::NotFound,
        401 | 403 => ErrorKind::Denied,
        _ if is_temporary(status) => ErrorKind::Unavailable,
        _ => ErrorKind::Invalid,
    };
    Error::new(kind, format!("cannot get {}: {host} answers {status}", wanted.what))
}
