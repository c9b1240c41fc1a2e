//! Requests that send something.
//!
//! Invariants:
//!
//! - A body is read from its file in pieces while it is sent, and never held whole.
//! - What makes no progress for the stall timeout is given up; how long a whole body takes does not
//!   matter.
//! - A credential goes to the registry's own origin only, wherever a `Location` or a redirect leads,
//!   and these may lead only to where [`check_target`] allows.
//! - Every refusal becomes an error that names the registry, the status and what to do.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue, LOCATION};
use reqwest::{Body, Method, Response, StatusCode, Url};
use wbuild_http::{FileBody, Moving, is_temporary, retry_after, same_origin};

use super::Inner;
use super::auth::{Scope, check_target, refused_credentials};
use super::hosts::Site;
use super::http::{MAX_REDIRECTS, error_detail, transport_error};
use crate::error::{Error, ErrorKind, Result};

/// How much longer a registry may take to answer what completes a blob: it may have to hash or move
/// all of it.
const SETTLING: u32 = 5;

/// What a request carries.
#[derive(Clone)]
pub(super) enum Payload {
    Bytes(Bytes),
    /// A part of a file, whole if `from` is 0 and `length` its size.
    File {
        file: Arc<File>,
        from: u64,
        length: u64,
        /// Told of the bytes passed on, from `from`.
        sent: Arc<dyn Fn(u64) + Send + Sync>,
    },
}

impl Payload {
    pub(super) fn empty() -> Payload {
        Payload::Bytes(Bytes::new())
    }
}

/// One request that sends something.
pub(super) struct Outgoing<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    /// The registry: only its own origin gets credentials.
    pub(super) site: &'a Site,
    pub(super) scope: &'a Scope,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) payload: Payload,
    /// The answer may take longer, as it completes a blob.
    pub(super) completes: bool,
    /// What is done, in messages: `push …`.
    pub(super) what: &'a str,
}

/// An answer that is no success.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) error: Error,
    /// How long the registry asks to wait.
    pub(super) wait: Option<Duration>,
}

impl Inner {
    /// Sends a request once, with the answer to a challenge if there is one.
    pub(super) async fn send_once(
        &self,
        request: &Outgoing<'_>,
    ) -> Result<std::result::Result<Response, Refusal>> {
        let at_home = same_origin(&request.url, &request.site.origin);
        let known = if at_home { self.auth.known(request.scope).await } else { None };
        let mut response = self.redirected(request, known.as_ref()).await?;
        let (auth, scope, site) = (&self.auth, request.scope, request.site);
        if at_home
            && let Some(header) =
                self.http.answer(auth, scope, site, known.as_ref(), &response).await?
        {
            response = self.redirected(request, Some(&header)).await?;
            let basic = header.to_str().is_ok_and(|h| h.starts_with("Basic "));
            if response.status() == StatusCode::UNAUTHORIZED && basic {
                return Err(refused_credentials(&scope.registry, response.status()));
            }
        }
        if response.status().is_success() {
            return Ok(Ok(response));
        }
        let (status, wait) = (response.status(), retry_after(response.headers()));
        let error = refusal(request, response).await;
        Ok(Err(Refusal { status, error, wait }))
    }

    /// Sends a request that may be sent again, until it succeeds or trying has no point. Statuses that
    /// `expected` accepts are handed out.
    pub(super) async fn send(
        &self,
        request: &Outgoing<'_>,
        expected: impl Fn(StatusCode) -> bool,
    ) -> Result<std::result::Result<Response, Refusal>> {
        let retries = self.http.retries();
        let mut attempt = 0;
        loop {
            let (error, wait) = match self.send_once(request).await {
                Ok(Ok(response)) => return Ok(Ok(response)),
                Ok(Err(refusal)) if expected(refusal.status) => return Ok(Err(refusal)),
                Ok(Err(Refusal { status, error, wait })) if is_temporary(status) => (error, wait),
                Ok(Err(refusal)) => return Err(refusal.error),
                Err(error) if error.kind() == ErrorKind::Unavailable => (error, None),
                Err(error) => return Err(error),
            };
            attempt += 1;
            if attempt >= retries.attempts {
                return Err(error);
            }
            tokio::time::sleep(wait.unwrap_or_else(|| retries.delay(attempt))).await;
        }
    }

    /// Follows redirects that keep method and body. The credential stays behind at the first step to
    /// another origin.
    async fn redirected(
        &self,
        request: &Outgoing<'_>,
        header: Option<&HeaderValue>,
    ) -> Result<Response> {
        let registry = &request.scope.registry;
        let (mut url, mut header) = (request.url.clone(), header);
        for _ in 0..=MAX_REDIRECTS {
            let response = self.transmit(request, &url, header).await?;
            let follow = match response.status().as_u16() {
                307 | 308 => true,
                301..=303 => request.method == Method::HEAD || request.method == Method::GET,
                _ => false,
            };
            if !follow {
                return Ok(response);
            }
            url = location(request.site, &url, &response)?;
            if !same_origin(&url, &request.site.origin) {
                header = None;
            }
        }
        Err(Error::invalid(format!("{registry} redirects more than {MAX_REDIRECTS} times")))
    }

    async fn transmit(
        &self,
        request: &Outgoing<'_>,
        url: &Url,
        header: Option<&HeaderValue>,
    ) -> Result<Response> {
        let client = request.site.sender(url).await?;
        let mut builder = client.request(request.method.clone(), url.clone());
        for (name, value) in &request.headers {
            builder = builder.header(name, value.clone());
        }
        if let Some(header) = header {
            builder = builder.header(AUTHORIZATION, header.clone());
        }
        let moving = Arc::new(Moving::default());
        let builder = match &request.payload {
            Payload::Bytes(bytes) => builder.body(bytes.clone()),
            Payload::File { file, from, length, sent } => {
                let body = FileBody::start(file, *from, *length, sent, &moving);
                builder.body(Body::wrap(body))
            }
        };
        let stall = request.site.stall_timeout * if request.completes { SETTLING } else { 1 };
        match moving.watch(builder.send(), stall).await {
            Some(Ok(response)) => Ok(response),
            Some(Err(error)) => Err(match moving.failed() {
                Some(error) => Error::io(format!("cannot {}: its file fails", request.what), error),
                None => cut(request, url, error),
            }),
            None => Err(stalled(request, stall)),
        }
    }
}

/// Where an answer leads, if that is allowed.
pub(super) fn location(site: &Site, base: &Url, response: &Response) -> Result<Url> {
    let registry = &site.name;
    let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
    let next = location.and_then(|l| base.join(l).ok()).ok_or_else(|| {
        Error::invalid(format!("{registry} does not say where to send a blob (no valid Location)"))
    })?;
    check_target(registry, &site.origin, &next, "place for uploads")?;
    if next.scheme() == "http" && base.scheme() == "https" {
        let message = format!("{registry} wants a blob sent to where it would not be encrypted");
        return Err(Error::new(ErrorKind::Denied, message));
    }
    Ok(next)
}

fn stalled(request: &Outgoing<'_>, stall: Duration) -> Error {
    let (registry, what, seconds) = (&request.scope.registry, request.what, stall.as_secs_f32());
    let message = format!("cannot {what}: {registry} has not moved for {seconds} s");
    Error::new(ErrorKind::Unavailable, message)
        .hint("check the network and the registry; blobs that arrived are not sent again")
}

/// What it means that a request got no answer. A server that does not like a body may hang up before
/// all of it is sent, and its answer is lost.
fn cut(request: &Outgoing<'_>, url: &Url, error: reqwest::Error) -> Error {
    let large = matches!(request.payload, Payload::File { .. }) && !error.is_connect();
    let error = transport_error(&format!("{}'s answer", request.scope.registry), url, error);
    let error = Error::new(error.kind(), format!("cannot {}", request.what)).because(error);
    if large {
        error.hint("a proxy in front of the registry may limit how much or how long is sent")
    } else {
        error
    }
}

/// The error that a status stands for.
async fn refusal(request: &Outgoing<'_>, response: Response) -> Error {
    let registry = &request.scope.registry;
    let (what, status, url) = (request.what, response.status(), response.url().clone());
    let server = if same_origin(&url, &request.site.origin) {
        registry.clone()
    } else {
        format!("{} (where {registry} sends us)", url.host_str().unwrap_or_default())
    };
    let detail = if request.method == Method::HEAD { None } else { error_detail(response).await };
    let repository = &request.scope.repository;
    let (kind, hint) = match status.as_u16() {
        401 => (
            ErrorKind::Denied,
            format!("log in with an account that may push: docker login {registry}"),
        ),
        403 => (
            ErrorKind::Denied,
            format!(
                "check that {repository} exists, and log in with an account that may push to it: \
                 docker login {registry}"
            ),
        ),
        404 => (
            ErrorKind::NotFound,
            format!("check the name {repository}; the registry may want it to be created first"),
        ),
        405 | 501 => (
            ErrorKind::Denied,
            format!("{registry} seems to be for pulling only; push to another registry"),
        ),
        413 => (
            ErrorKind::Limit,
            "raise the limit for requests of the registry, or of the proxy in front of it \
             (nginx: client_max_body_size)"
                .to_owned(),
        ),
        429 => (ErrorKind::Unavailable, "try again later, or log in for a higher limit".to_owned()),
        507 => (ErrorKind::Invalid, "the registry has no space left; free some there".to_owned()),
        _ if is_temporary(status) => (
            ErrorKind::Unavailable,
            "try again later; if it stays, the registry's log says more".to_owned(),
        ),
        300..=399 => (
            ErrorKind::Invalid,
            "a redirect like this loses what is sent; push to where it leads".to_owned(),
        ),
        _ => (ErrorKind::Invalid, "the registry's log says more".to_owned()),
    };
    let error = Error::new(kind, format!("cannot {what}: {server} answers {status}")).hint(hint);
    match detail {
        Some(detail) => error.because(detail),
        None => error,
    }
}
