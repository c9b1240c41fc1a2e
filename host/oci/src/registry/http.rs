//! Requests with our own redirects, retries and limits.

use std::time::Duration;

use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::OnceCell;

use super::auth::{Auth, MAX_TOKEN_ANSWER, Scope, check_target, refused_credentials, show_url};
use super::challenge::parse_challenges;
use super::{ClientOptions, Retries};
use crate::error::{Error, ErrorKind, Result};

/// Most redirects that are followed for one request.
const MAX_REDIRECTS: usize = 6;
/// Longest wait that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(8);
/// Bytes of an error's body that are read.
const MAX_ERROR_BODY: usize = 8 << 10;

/// One request to a registry.
pub(super) struct Request<'a> {
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
    options: ClientOptions,
    plain: OnceCell<reqwest::Client>,
    tls: OnceCell<reqwest::Client>,
}

impl Http {
    pub(super) fn new(options: ClientOptions) -> Self {
        Http { options, plain: OnceCell::new(), tls: OnceCell::new() }
    }

    pub(super) fn retries(&self) -> Retries {
        self.options.retries
    }

    /// The client for a URL's scheme. Reading the roots of the system takes milliseconds, so it waits
    /// for the first request that needs them.
    async fn client(&self, url: &Url) -> Result<&reqwest::Client> {
        if url.scheme() != "https" {
            let build = || async { self.build(rustls::RootCertStore::empty()) };
            return self.plain.get_or_try_init(build).await;
        }
        let build = || async {
            let extra = self.options.extra_roots.clone();
            let roots = tokio::task::spawn_blocking(move || roots(&extra)).await;
            self.build(roots.expect("reading certificates does not panic")?)
        };
        self.tls.get_or_try_init(build).await
    }

    fn build(&self, roots: rustls::RootCertStore) -> Result<reqwest::Client> {
        let failed = |e: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Unavailable, format!("cannot set up the registry client: {e}"))
        };
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| failed(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .user_agent(self.options.user_agent.clone())
            .connect_timeout(self.options.connect_timeout)
            .read_timeout(self.options.stall_timeout)
            .pool_max_idle_per_host(8);
        if let Some(proxy) = &self.options.https_proxy {
            let skip = self.options.no_proxy.as_deref().and_then(reqwest::NoProxy::from_string);
            let proxy = reqwest::Proxy::https(proxy).map_err(|e| failed(&e))?.no_proxy(skip);
            builder = builder.proxy(proxy);
        }
        builder.build().map_err(|e| failed(&e))
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
            if attempt >= self.options.retries.attempts {
                return Err(error);
            }
            tokio::time::sleep(wait.unwrap_or_else(|| self.options.retries.delay(attempt))).await;
        }
    }

    /// One try, with the answer to a challenge.
    async fn authenticated(&self, auth: &Auth, request: &Request<'_>) -> Result<Response> {
        let known = auth.known(request.scope).await;
        let response = self.redirected(request, known.as_ref()).await?;
        let at_home = same_origin(response.url(), &request.url);
        if response.status() != StatusCode::UNAUTHORIZED || !at_home {
            return Ok(response);
        }
        let mut challenges = Vec::new();
        for value in response.headers().get_all(WWW_AUTHENTICATE) {
            challenges.extend(parse_challenges(value.to_str().unwrap_or_default())?);
        }
        if challenges.is_empty() {
            return Ok(response);
        }
        let registry = &request.scope.registry;
        let header =
            auth.answer(request.scope, &request.url, &challenges, known.as_ref(), self).await?;
        let response = self.redirected(request, Some(&header)).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && same_origin(response.url(), &request.url)
        {
            let basic = header.to_str().is_ok_and(|h| h.starts_with("Basic "));
            return Err(if basic { refused_credentials(registry) } else { denied(request) });
        }
        Ok(response)
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
            let mut builder = self.client(&url).await?.request(request.method.clone(), url.clone());
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
        registry: &str,
        url: &Url,
        header: Option<HeaderValue>,
        form: Option<&[(&str, String)]>,
    ) -> Result<Vec<u8>> {
        let what = format!("a token for {registry}");
        let client = self.client(url).await?;
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
            return body(response, MAX_TOKEN_ANSWER, &what).await;
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

/// The roots of the operating system (`SSL_CERT_FILE` and `SSL_CERT_DIR` override them) and those given
/// as PEM.
fn roots(extra: &[Vec<u8>]) -> Result<rustls::RootCertStore> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let mut store = rustls::RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    store.add_parsable_certificates(system.certs);
    for pem in extra {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let bad = |e: &dyn std::fmt::Display| {
                Error::invalid(format!("a given root certificate is malformed: {e}"))
            };
            store.add(certificate.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
        }
    }
    if store.is_empty() {
        let error = Error::new(
            ErrorKind::Unavailable,
            "there are no root certificates to check registries with",
        );
        return Err(
            error.hint("install the package ca-certificates, or point SSL_CERT_FILE at a bundle")
        );
    }
    Ok(store)
}

fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// The whole body, at most `limit` bytes.
pub(super) async fn body(mut response: Response, limit: usize, what: &str) -> Result<Vec<u8>> {
    let too_large = || Error::limit(format!("{what} is larger than {limit} bytes"));
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let url = response.url().clone();
    let mut out = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| transport_error(what, &url, e))? {
        if out.len() + chunk.len() > limit {
            return Err(too_large());
        }
        out.extend_from_slice(&chunk);
    }
    Ok(out)
}

pub(super) fn transport_error(what: &str, url: &Url, error: reqwest::Error) -> Error {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    // The URL may hold a signature; the message names the host only.
    let error = error.without_url();
    if is_certificate_error(&error) {
        // Trying again would not help, and the cause lies with trust rather than with the network.
        let message = format!("cannot get {what}: the certificate of {host}{port} is not accepted");
        return Error::new(ErrorKind::Denied, message)
            .because(error)
            .hint("add the registry's authority to the system's certificates, or point SSL_CERT_FILE at it");
    }
    Error::new(ErrorKind::Unavailable, format!("cannot get {what} from {host}{port}"))
        .because(error)
}

fn is_certificate_error(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        // An I/O error hands out the source of what it wraps, not what it wraps.
        let inner = error.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref());
        let found = match inner {
            Some(inner) => inner.downcast_ref::<rustls::Error>(),
            None => error.downcast_ref::<rustls::Error>(),
        };
        if matches!(found, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        next = error.source();
    }
    false
}

fn denied(request: &Request<'_>) -> Error {
    let (what, registry) = (request.what, &request.scope.registry);
    let message = format!("{registry} denies access to {what}, or it does not exist");
    Error::new(ErrorKind::Denied, message)
        .hint(format!("check the name; if it is private, log in with: docker login {registry}"))
}

async fn status_error(request: &Request<'_>, response: Response) -> Error {
    let (what, status) = (request.what, response.status());
    let host = response.url().host_str().unwrap_or_default().to_owned();
    let at_home = same_origin(response.url(), &request.url);
    let detail = if request.method == Method::HEAD { None } else { error_detail(response).await };
    let because = |error: Error| match detail {
        Some(detail) => error.because(detail),
        None => error,
    };
    match status.as_u16() {
        404 if at_home => {
            because(Error::new(ErrorKind::NotFound, format!("{what} does not exist")))
        }
        401 | 403 if at_home => because(denied(request)),
        429 => because(Error::new(
            ErrorKind::Unavailable,
            format!("{host} limits requests for {what}"),
        ))
        .hint("log in for a higher limit, or try again later"),
        _ => {
            let kind =
                if is_temporary(status) { ErrorKind::Unavailable } else { ErrorKind::Invalid };
            because(Error::new(kind, format!("{host} answers {status} for {what}")))
        }
    }
}

/// What a registry says of its error (distribution, "Error Codes"), made harmless for a terminal.
async fn error_detail(response: Response) -> Option<String> {
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
