//! Requests: what may be asked, where redirects may lead, when it is tried again.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION,
    RANGE,
};
use reqwest::{Body, Method, RequestBuilder, Response, Url};
use wbuild_api::extension::{HttpBody, HttpRequest};
use wbuild_api::session::RegistryAuth;
use wbuild_graph::{Attrs, Digest, Failure, FailureKind, decode};
use wbuild_http::{
    FileBody, Moving, Retries, is_temporary, retry_after, same_origin, show_url, transport_error,
};

use super::{Http, authority};

/// Most redirects of one request.
const MAX_REDIRECTS: usize = 10;
/// Longest wait for an answer in which nothing moves.
const STALL: Duration = Duration::from_secs(60);
/// Longest wait for an answer that a backend may ask for.
const MAX_TIMEOUT: Duration = Duration::from_secs(600);
/// Most repetitions.
const MAX_RETRIES: u32 = 5;
/// Longest URL.
const MAX_URL: usize = 8 << 10;
/// Most headers of a request.
const MAX_HEADERS: usize = 100;

/// Headers that the host sets, or that are about the connection.
const OWN_HEADERS: [&str; 16] = [
    "host",
    "authorization",
    "proxy-authorization",
    "proxy-authenticate",
    "proxy-connection",
    "cookie",
    "set-cookie",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "content-length",
    "upgrade",
    "expect",
    "accept-encoding",
];

/// A request that may be sent, also more than once.
pub(super) struct Prepared {
    pub(super) method: Method,
    url: Url,
    headers: HeaderMap,
    authorization: Option<HeaderValue>,
    content: Content,
    timeout: Option<Duration>,
    retries: Retries,
    follow: bool,
    /// In messages.
    pub(super) what: String,
}

/// What it carries.
enum Content {
    Nothing,
    Bytes(Bytes),
    File { file: Arc<File>, digest: Digest, from: u64, length: u64, size: u64 },
}

/// Checks a request and looks up what belongs to it.
pub(super) async fn prepare(http: &Http, request: HttpRequest) -> Result<Prepared, Failure> {
    let method = method(&request.method)?;
    let url = url(&request.url)?;
    http.origin(&url)?;
    let headers = headers(&request.headers)?;
    decode::only_known(
        &request.attrs,
        "http.send",
        &["timeout-ms", "retries", "follow-redirects"],
    )?;
    let timeout = number(&request.attrs, "timeout-ms", MAX_TIMEOUT.as_millis())?;
    let retries = number(&request.attrs, "retries", MAX_RETRIES.into())?.unwrap_or(0);
    let follow = match request.attrs.get("follow-redirects") {
        None | Some("true") => true,
        Some("false") => false,
        Some(other) => {
            let message = format!("follow-redirects is neither true nor false: {other:?}");
            return Err(Failure::invalid(message));
        }
    };
    let authorization = match &request.authorize {
        Some((kind, _)) => authorization(http, &url, kind).await?,
        None => None,
    };
    let what = format!("{method} {}", show_url(&url));
    Ok(Prepared {
        method,
        headers,
        authorization,
        content: content(http, request.body).await?,
        timeout: timeout.map(Duration::from_millis),
        retries: Retries {
            attempts: 1 + u32::try_from(retries).unwrap_or(MAX_RETRIES),
            ..Retries::default()
        },
        follow,
        what,
        url,
    })
}

fn method(text: &str) -> Result<Method, Failure> {
    let plain =
        !text.is_empty() && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_uppercase());
    match text {
        // One is for proxies, the other hands back what the host has added.
        "CONNECT" | "TRACE" => {}
        _ if plain => {
            if let Ok(method) = Method::from_bytes(text.as_bytes()) {
                return Ok(method);
            }
        }
        _ => {}
    }
    let shown: String = text.chars().take(32).collect();
    Err(Failure::new(FailureKind::Denied, format!("{shown:?} is no method of requests")))
}

fn url(text: &str) -> Result<Url, Failure> {
    let bad = || {
        let shown: String = text.chars().take(200).collect();
        Failure::invalid(format!("{shown:?} is no absolute http or https URL"))
    };
    if text.len() > MAX_URL {
        return Err(bad());
    }
    let url = Url::parse(text).map_err(|_| bad())?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(bad());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Failure::invalid("a URL may not hold a user").hint("use outgoing.authorize"));
    }
    Ok(url)
}

fn headers(attrs: &Attrs) -> Result<HeaderMap, Failure> {
    let mut out = HeaderMap::new();
    for (name, value) in attrs.iter() {
        let lower = name.to_ascii_lowercase();
        if OWN_HEADERS.contains(&&*lower) || lower.starts_with("sec-") {
            let message = format!("the header {lower} is set by wbuild, not by a cache backend");
            return Err(Failure::new(FailureKind::Denied, message));
        }
        let bad = || {
            let shown: String = name.chars().take(100).collect();
            Failure::invalid(format!("{shown:?} is no header, or its value is none"))
        };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let value = HeaderValue::from_str(value).map_err(|_| bad())?;
        out.append(name, value);
        if out.len() > MAX_HEADERS {
            let message = format!("a request has more than {MAX_HEADERS} headers");
            return Err(Failure::new(FailureKind::Limit, message));
        }
    }
    Ok(out)
}

fn number(attrs: &Attrs, key: &str, most: u128) -> Result<Option<u64>, Failure> {
    let Some(text) = attrs.get(key) else { return Ok(None) };
    let number = text.parse::<u64>().ok().filter(|number| u128::from(*number) <= most);
    let bad = || Failure::invalid(format!("{key} is a number up to {most}, not {text:?}"));
    number.map(Some).ok_or_else(bad)
}

/// What identifies the user to the origin of a URL, if there is something.
async fn authorization(http: &Http, url: &Url, kind: &str) -> Result<Option<HeaderValue>, Failure> {
    use base64::Engine as _;
    let (basic, bearer) = match kind {
        "basic" => (true, false),
        "bearer" => (false, true),
        "registry" => (true, true),
        _ => {
            let shown: String = kind.chars().take(100).collect();
            let message = format!("requests cannot be authorized by {shown:?}");
            return Err(
                Failure::unsupported(message).hint("expected one of: basic, bearer, registry")
            );
        }
    };
    let host = authority(url);
    let text = match http.session.registry_auth(&host).await? {
        None => return Ok(None),
        Some(RegistryAuth::Basic { username, password }) if basic => {
            let pair = format!("{username}:{password}");
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        }
        Some(RegistryAuth::Bearer(token)) if bearer => format!("Bearer {token}"),
        Some(_) => {
            let message = format!("the credential for {host} is none of the kind {kind:?}");
            return Err(Failure::new(FailureKind::Denied, message));
        }
    };
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| Failure::invalid(format!("the credential for {host} is no text")))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

async fn content(http: &Http, body: HttpBody) -> Result<Content, Failure> {
    let (digest, offset, length) = match body {
        HttpBody::None => return Ok(Content::Nothing),
        HttpBody::Small(data) => return Ok(Content::Bytes(data.into())),
        HttpBody::Blob { digest, offset, length } => (digest, offset, length),
    };
    let gone = || Failure::new(FailureKind::Gone, format!("the blob {digest} is not here"));
    let blob = http.shelf.take(&digest.0).await?.ok_or_else(gone)?;
    let rest = blob.size.checked_sub(offset);
    let fits = rest.filter(|rest| length.is_none_or(|length| length <= *rest));
    let rest = fits.ok_or_else(|| {
        Failure::invalid(format!("the blob {digest} has only {} bytes", blob.size))
    })?;
    Ok(Content::File {
        file: Arc::new(blob.file),
        digest: digest.0,
        from: offset,
        length: length.unwrap_or(rest),
        size: blob.size,
    })
}

impl Prepared {
    /// Whether its answer can be taken up in the middle.
    pub(super) fn resumable(&self) -> bool {
        self.method == Method::GET && !self.headers.contains_key(RANGE)
    }

    /// Sends it until there is an answer, or trying has no point; with `range`, for a part.
    pub(super) async fn answer(
        &self,
        http: &Http,
        range: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let sent = self.redirected(http, range).await;
            let last = attempt >= self.retries.attempts;
            let wait = match &sent {
                Ok(response) if !last && is_temporary(response.status()) => {
                    retry_after(response.headers())
                }
                Err(failure) if !last && failure.kind == FailureKind::Unavailable => None,
                _ => return sent,
            };
            tokio::time::sleep(wait.unwrap_or_else(|| self.retries.delay(attempt))).await;
        }
    }

    /// Follows redirects that keep method and body, as far as the grant goes.
    async fn redirected(
        &self,
        http: &Http,
        range: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        let mut url = self.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.transmit(http, &url, range).await?;
            let follow = match response.status().as_u16() {
                307 | 308 => true,
                301..=303 => self.method == Method::GET || self.method == Method::HEAD,
                _ => false,
            };
            if !follow || !self.follow {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok()).ok_or_else(|| {
                Failure::invalid(format!("{}: a redirect that leads nowhere", self.what))
            })?;
            if next.scheme() == "http" && url.scheme() == "https" {
                let message = format!("{}: a redirect to where it is not encrypted", self.what);
                return Err(Failure::new(FailureKind::Denied, message));
            }
            http.origin(&next)?;
            url = next;
        }
        Err(Failure::invalid(format!("{}: more than {MAX_REDIRECTS} redirects", self.what)))
    }

    async fn transmit(
        &self,
        http: &Http,
        url: &Url,
        range: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        let client = http.clients(url).await?.client(url).await?;
        let mut request = client.request(self.method.clone(), url.clone());
        request = request.headers(self.headers.clone());
        request = request.header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(range) = range {
            request = request.header(RANGE, range.clone());
        }
        if let Some(authorization) = &self.authorization
            && same_origin(url, &self.url)
        {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let moving = Arc::new(Moving::default());
        let request = self.with_content(http, request, &moving);
        let sending = moving.watch(request.send(), STALL);
        let answer = match self.timeout {
            Some(timeout) => tokio::time::timeout(timeout, sending).await.ok().flatten(),
            None => sending.await,
        };
        match answer {
            Some(Ok(response)) => Ok(response),
            Some(Err(error)) => Err(match moving.failed() {
                Some(error) => {
                    Failure::internal(format!("{}: its file fails", self.what)).cause(&error)
                }
                None => transport_error(&format!("the answer to {}", self.what), url, error).into(),
            }),
            None => {
                let message = format!("{}: there is no answer", self.what);
                let mut failure = Failure::new(FailureKind::Unavailable, message);
                failure.retryable = true;
                Err(failure)
            }
        }
    }

    fn with_content(
        &self,
        http: &Http,
        request: RequestBuilder,
        moving: &Arc<Moving>,
    ) -> RequestBuilder {
        match &self.content {
            Content::Nothing => match self.method.as_str() {
                // Servers want to be told that nothing comes.
                "PUT" | "POST" | "PATCH" => request.header(CONTENT_LENGTH, 0),
                _ => request,
            },
            Content::Bytes(bytes) => request.body(bytes.clone()),
            Content::File { file, digest, from, length, size } => {
                let (progress, digest, from, size) =
                    (Arc::clone(&http.progress), *digest, *from, *size);
                let sent: Arc<dyn Fn(u64) + Send + Sync> =
                    Arc::new(move |bytes| progress(&digest, from + bytes, size));
                let body = FileBody::start(file, from, *length, &sent, moving);
                request.body(Body::wrap(body))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_asked_is_asked() {
        for good in ["GET", "PUT", "HEAD", "PROPFIND"] {
            assert!(method(good).is_ok(), "{good}");
        }
        for bad in ["", "get", "CONNECT", "TRACE", "GET /\r\n", "A B"] {
            assert_eq!(method(bad).expect_err(bad).kind, FailureKind::Denied);
        }
        assert!(url("https://example.org/a?b").is_ok());
        let long = format!("https://example.org/{}", "x".repeat(MAX_URL));
        for bad in
            ["", "/a", "ftp://a/b", "file:///etc/passwd", "https://u:p@a/", "https://u@a/", &long]
        {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_of_the_host_are_the_hosts() {
        let one = |name: &str, value: &str| headers(&Attrs(vec![(name.into(), value.into())]));
        for good in ["If-Match", "X-Anything", "Content-Type", "Range"] {
            assert!(one(good, "x").is_ok(), "{good}");
        }
        for own in ["Host", "AUTHORIZATION", "Cookie", "connection", "Content-Length", "Sec-Fetch"]
        {
            assert_eq!(one(own, "x").expect_err(own).kind, FailureKind::Denied);
        }
        for (name, value) in [("a b", "x"), ("", "x"), ("x", "a\r\nhost: b"), ("x", "\0")] {
            assert_eq!(one(name, value).expect_err(name).kind, FailureKind::Invalid);
        }
    }
}
