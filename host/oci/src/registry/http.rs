//! Requests with our own redirects, retries and limits.

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RANGE,
    WWW_AUTHENTICATE,
};
use reqwest::{Method, Response, StatusCode, Url};
use wbuild_http::{Retries, body, is_temporary, retry_after, same_origin, show_url};

use super::auth::{Auth, MAX_TOKEN_ANSWER, Scope, check_target, refused_credentials};
use super::challenge::parse_challenges;
use super::hosts::Site;
use crate::error::{Error, ErrorKind, Result};

/// Most redirects that are followed for one request.
pub(super) const MAX_REDIRECTS: usize = 6;
/// Bytes of an error's body that are read.
const MAX_ERROR_BODY: usize = 8 << 10;

/// One request to a registry.
pub(super) struct Request<'a> {
    pub(super) site: &'a Site,
    /// Tries in all.
    pub(super) attempts: u32,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) scope: &'a Scope,
    pub(super) accept: Option<HeaderValue>,
    /// First byte wanted; 0 for all.
    pub(super) from: u64,
    /// What is asked for, in messages.
    pub(super) what: &'a str,
}

pub(super) struct Http {
    retries: Retries,
}

impl Http {
    pub(super) fn new(retries: Retries) -> Self {
        Http { retries }
    }

    pub(super) fn retries(&self) -> Retries {
        self.retries
    }

    /// Sends `request`, authenticating, following redirects and retrying as needed, and returns a
    /// response with a success status.
    pub(super) async fn send(&self, auth: &Auth, request: &Request<'_>) -> Result<Response> {
        let mut attempt = 0;
        loop {
            let (error, wait) = match self.authenticated(auth, request).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => {
                    let wait = retry_after(response.headers());
                    let temporary = is_temporary(response.status());
                    let error = status_error(request, response).await;
                    if !temporary {
                        return Err(error);
                    }
                    (error, wait)
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => (error, None),
                Err(error) => return Err(error),
            };
            attempt += 1;
            if attempt >= request.attempts {
                return Err(error);
            }
            tokio::time::sleep(wait.unwrap_or_else(|| self.retries.delay(attempt))).await;
        }
    }

    /// One try, with the answer to a challenge.
    async fn authenticated(&self, auth: &Auth, request: &Request<'_>) -> Result<Response> {
        let known = auth.known(request.scope).await;
        let response = self.redirected(request, known.as_ref()).await?;
        let (scope, site) = (request.scope, request.site);
        let answered = self.answer(auth, scope, site, known.as_ref(), &response).await?;
        let Some(header) = answered else { return Ok(response) };
        let registry = &request.scope.registry;
        let response = self.redirected(request, Some(&header)).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && same_origin(response.url(), &request.url)
        {
            let basic = header.to_str().is_ok_and(|h| h.starts_with("Basic "));
            let status = response.status();
            return Err(if basic {
                refused_credentials(registry, status)
            } else {
                denied(request, status)
            });
        }
        Ok(response)
    }

    /// The answer to the challenge in `response`, if there is one that comes from the site itself.
    /// `known` is what the request carried.
    pub(super) async fn answer(
        &self,
        auth: &Auth,
        scope: &Scope,
        site: &Site,
        known: Option<&HeaderValue>,
        response: &Response,
    ) -> Result<Option<HeaderValue>> {
        let at_home = same_origin(response.url(), &site.origin);
        if response.status() != StatusCode::UNAUTHORIZED || !at_home {
            return Ok(None);
        }
        let mut challenges = Vec::new();
        for value in response.headers().get_all(WWW_AUTHENTICATE) {
            challenges.extend(parse_challenges(value.to_str().unwrap_or_default())?);
        }
        if challenges.is_empty() {
            return Ok(None);
        }
        Ok(Some(auth.answer(scope, site, &challenges, known, self).await?))
    }

    /// Follows redirects. The credential stays behind at the first step to another origin.
    async fn redirected(
        &self,
        request: &Request<'_>,
        header: Option<&HeaderValue>,
    ) -> Result<Response> {
        let registry = &request.scope.registry;
        let mut url = request.url.clone();
        let mut header = header;
        for _ in 0..=MAX_REDIRECTS {
            let client = request.site.client(&url).await?;
            let mut builder = client
                .request(request.method.clone(), url.clone())
                .header(ACCEPT_ENCODING, "identity");
            if let Some(accept) = &request.accept {
                builder = builder.header(ACCEPT, accept.clone());
            }
            if request.from > 0 {
                builder = builder.header(RANGE, format!("bytes={}-", request.from));
            }
            if let Some(header) = header {
                builder = builder.header(AUTHORIZATION, header.clone());
            }
            let response =
                builder.send().await.map_err(|e| transport_error(request.what, &url, e))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            let next = location.and_then(|l| url.join(l).ok()).ok_or_else(|| {
                Error::invalid(format!("{registry} answers with a redirect that leads nowhere"))
            })?;
            check_target(registry, &request.url, &next, "place of this content")?;
            if next.scheme() == "http" && url.scheme() == "https" {
                let shown = show_url(&next);
                let message = format!("{registry} redirects to {shown}, which is not encrypted");
                return Err(Error::new(ErrorKind::Denied, message));
            }
            if !same_origin(&next, &request.url) {
                header = None;
            }
            url = next;
        }
        Err(Error::invalid(format!("{registry} redirects more than {MAX_REDIRECTS} times")))
    }

    /// Asks a token service, once: who asked for the token tries again as a whole. No redirect is
    /// followed: it would carry the credential on.
    pub(super) async fn token(
        &self,
        site: &Site,
        url: &Url,
        header: Option<HeaderValue>,
        form: Option<&[(&str, String)]>,
    ) -> Result<Vec<u8>> {
        let registry = &site.name;
        let what = format!("a token for {registry}");
        let client = site.client(url).await?;
        let mut builder = match form {
            None => client.get(url.clone()),
            Some(form) => {
                let mut encoded = Url::parse("x:").expect("a URL");
                encoded.query_pairs_mut().extend_pairs(form.iter().map(|(k, v)| (k, v)));
                let body = encoded.query().unwrap_or_default().to_owned();
                client
                    .post(url.clone())
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(body)
            }
        };
        if let Some(header) = header {
            builder = builder.header(AUTHORIZATION, header);
        }
        let response = builder.send().await.map_err(|e| transport_error(&what, url, e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(body(response, MAX_TOKEN_ANSWER, &what).await?);
        }
        let message = format!("the token service {} answers {status}", show_url(url));
        let kind = match status {
            status if is_temporary(status) => ErrorKind::Unavailable,
            status if status.is_client_error() => ErrorKind::Denied,
            _ => ErrorKind::Invalid,
        };
        let error = Error::new(kind, message);
        Err(if kind == ErrorKind::Denied {
            error.hint(format!("log in with: docker login {registry}"))
        } else {
            error
        })
    }
}

/// What it means that a request for `what` got no answer, or not all of it.
pub(super) fn transport_error(what: &str, url: &Url, error: reqwest::Error) -> Error {
    wbuild_http::transport_error(what, url, error).into()
}

fn denied(request: &Request<'_>, status: StatusCode) -> Error {
    let (what, registry) = (request.what, &request.scope.registry);
    let message = format!(
        "{registry} denies access to {what}, or it does not exist (its answer is {status})"
    );
    Error::new(ErrorKind::Denied, message)
        .hint(format!("check the name; if it is private, log in with: docker login {registry}"))
}

async fn status_error(request: &Request<'_>, response: Response) -> Error {
    let (what, status) = (request.what, response.status());
    let host = response.url().host_str().unwrap_or_default().to_owned();
    let at_home = same_origin(response.url(), &request.url);
    let detail = if request.method == Method::HEAD { None } else { error_detail(response).await };
    let error = match status.as_u16() {
        404 if at_home => {
            let message = format!("{what} does not exist ({host} answers {status})");
            Error::new(ErrorKind::NotFound, message)
        }
        401 | 403 if at_home => denied(request, status),
        // More was asked for than there is: what was begun elsewhere is not the begin of this.
        416 if request.from > 0 => {
            let from = request.from;
            let message = format!("{host} answers {status}: {what} has no more than {from} bytes");
            Error::new(ErrorKind::Mismatch, message)
        }
        429 => {
            let message = format!("{host} answers {status}: it limits requests for {what}");
            Error::new(ErrorKind::Unavailable, message)
                .hint("log in for a higher limit, or try again later")
        }
        _ => {
            let kind =
                if is_temporary(status) { ErrorKind::Unavailable } else { ErrorKind::Invalid };
            Error::new(kind, format!("{host} answers {status} for {what}"))
        }
    };
    match detail {
        Some(detail) => error.because(detail),
        None => error,
    }
}

/// What a registry says of its error (distribution, "Error Codes"), made harmless for a terminal.
pub(super) async fn error_detail(response: Response) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Detail>,
    }
    #[derive(serde::Deserialize)]
    struct Detail {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let bytes = body(response, MAX_ERROR_BODY, "the error").await.ok()?;
    let errors: Errors = serde_json::from_slice(&bytes).ok()?;
    let first = errors.errors.into_iter().next()?;
    let text = format!("{}: {}", first.code, first.message);
    Some(text.chars().take(300).flat_map(char::escape_debug).collect())
}
