//! HTTP as a cache backend sees it: requests to the origins of the URLs that the user wrote into its
//! options.
//!
//! - Every hop of a redirect is checked against the grant; what was encrypted does not go on in the
//!   clear.
//! - The backend never sees a credential. It is the one that the session has for the host, and is sent
//!   to the origin of the request's own URL and nowhere else.
//! - Bodies go between socket and content store. What comes is written only behind what is expected:
//!   it has the digest and the size, or it is not there.
//! - An answer whose body waits holds a connection, so few may wait.

mod receive;
mod request;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::future::join_all;
use reqwest::header::{CONTENT_LENGTH, HeaderMap};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::{OnceCell, Semaphore};
use wbuild_api::extension::{HttpCap, HttpRequest, HttpResponse, LayerDescriptor};
use wbuild_api::session::Session;
use wbuild_graph::{Attrs, Failure, FailureKind};
use wbuild_http::{Clients, Options, body, same_origin, show_url};

use self::request::{Prepared, prepare};
use super::repository::Progress;
use super::shelf::Shelf;
use crate::source::registry::{proxies, trust};

/// Requests that are under way at once.
const PARALLEL: usize = 16;
/// Bodies that wait at once.
const WAITING: usize = 64;
/// Bodies of this size are read with the answer, and hold no connection.
const EAGER: usize = 16 << 10;
/// Most bytes of the headers of an answer that a backend sees.
const HEADER_BYTES: usize = 64 << 10;

/// Requests to `origins`, the URLs that the user wrote; of each scheme, host and port count.
pub(crate) fn granted(
    shelf: Shelf,
    session: Arc<dyn Session>,
    origins: &[Url],
    progress: Progress,
) -> Arc<dyn HttpCap> {
    let origins = origins
        .iter()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some())
        .map(|url| Origin { url: url.clone(), clients: OnceCell::new() })
        .collect();
    let waiting = Mutex::default();
    Arc::new(Http { shelf, session, origins, waiting, next: AtomicU64::new(0), progress })
}

struct Http {
    shelf: Shelf,
    session: Arc<dyn Session>,
    origins: Vec<Origin>,
    waiting: Mutex<HashMap<u64, Answer>>,
    next: AtomicU64,
    progress: Progress,
}

struct Origin {
    url: Url,
    clients: OnceCell<Clients>,
}

/// What is left of an answer.
struct Answer {
    status: StatusCode,
    body: Body,
}

enum Body {
    Here(Vec<u8>),
    Waits(Box<Waiting>),
}

/// An answer of which only the head has come.
struct Waiting {
    response: Response,
    request: Prepared,
}

impl Http {
    fn origin(&self, url: &Url) -> Result<&Origin, Failure> {
        self.origins.iter().find(|origin| same_origin(&origin.url, url)).ok_or_else(|| {
            let message = format!("this cache backend was not granted {}", show_url(url));
            let known: Vec<String> =
                self.origins.iter().map(|o| o.url.origin().ascii_serialization()).collect();
            Failure::new(FailureKind::Denied, message)
                .hint(format!("granted are the origins of its options: {}", known.join(", ")))
        })
    }

    /// The clients of an origin, asked as registries.toml says of its host.
    async fn clients(&self, url: &Url) -> Result<&Clients, Failure> {
        let make = || async {
            let host = self.session.registry_host(&authority(url)).await?;
            Ok::<_, Failure>(Clients::new(Options {
                proxies: proxies(&*self.session),
                trust: trust(&host),
                ..Options::default()
            }))
        };
        self.origin(url)?.clients.get_or_try_init(make).await
    }

    async fn send_one(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        let request = prepare(self, request).await?;
        let response = request.answer(self, None).await?;
        let head = HttpResponse {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            status: response.status().as_u16(),
            headers: headers(response.headers())?,
            url: shown(response.url()),
        };
        let length = response.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let bodiless = request.method == Method::HEAD || matches!(head.status, 204 | 304);
        let status = response.status();
        let rest = match length {
            _ if bodiless => Body::Here(Vec::new()),
            Some(length) if length <= EAGER => {
                Body::Here(body(response, EAGER, &request.what).await?)
            }
            _ => Body::Waits(Box::new(Waiting { response, request })),
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = waiting.values().filter(|a| matches!(a.body, Body::Waits(_))).count();
        if matches!(rest, Body::Waits(_)) && connections >= WAITING {
            let message = format!("more than {WAITING} answers of HTTP wait to be read");
            return Err(Failure::new(FailureKind::Limit, message));
        }
        waiting.insert(head.id, Answer { status, body: rest });
        Ok(head)
    }

    fn take(&self, response: u64) -> Result<Answer, Failure> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let read = || Failure::invalid("the body of an answer can be had once");
        waiting.remove(&response).ok_or_else(read)
    }
}

#[async_trait]
impl HttpCap for Http {
    async fn send(&self, requests: Vec<HttpRequest>) -> Vec<Result<HttpResponse, Failure>> {
        let slots = Semaphore::new(PARALLEL);
        let sent = requests.into_iter().map(|request| async {
            let _slot = slots.acquire().await.expect("the semaphore is never closed");
            self.send_one(request).await
        });
        join_all(sent).await
    }

    async fn body_small(&self, response: u64, limit: u32) -> Result<Vec<u8>, Failure> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        match self.take(response)?.body {
            Body::Here(data) if data.len() <= limit => Ok(data),
            Body::Here(_) => {
                let message = format!("the body of an answer is larger than {limit} bytes");
                Err(Failure::new(FailureKind::Limit, message))
            }
            Body::Waits(waiting) => Ok(body(waiting.response, limit, &waiting.request.what).await?),
        }
    }

    async fn body_blob(&self, response: u64, expect: LayerDescriptor) -> Result<(), Failure> {
        let Answer { status, body } = self.take(response)?;
        let wanted = super::repository::wanted(&expect)?;
        if !status.is_success() {
            let message = format!("the answer is {status}, not the blob {}", wanted.digest);
            return Err(Failure::invalid(message));
        }
        receive::blob(self, body, &wanted).await?;
        self.shelf.brought(&wanted.digest).await
    }

    fn forget(&self, response: u64) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&response);
    }
}

/// Host and port as references to registries are written: what credentials are looked up by.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// A URL without a user, which a server may have put there.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// What a backend sees of headers: neither cookies nor what is no text.
pub(super) fn headers(headers: &HeaderMap) -> Result<Attrs, Failure> {
    let mut out = Attrs::default();
    let mut bytes = 0;
    for (name, value) in headers {
        if matches!(name.as_str(), "set-cookie" | "www-authenticate" | "proxy-authenticate") {
            continue;
        }
        let Ok(value) = value.to_str() else { continue };
        bytes += name.as_str().len() + value.len();
        if bytes > HEADER_BYTES {
            let message = format!("an answer has more than {HEADER_BYTES} bytes of headers");
            return Err(Failure::new(FailureKind::Limit, message));
        }
        out.push(name.as_str(), value);
    }
    Ok(out)
}
