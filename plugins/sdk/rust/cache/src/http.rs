//! HTTP through the host, to the origins of the URLs that the user wrote into the options. Connections,
//! TLS, proxies, credentials, redirects and repetitions are the host's. See `wit/cache`, interface
//! `http`.

use cache_records::Attrs;

pub use crate::sys::Response;
use crate::{Blob, Result, sys};

/// A request under construction.
#[derive(Debug)]
#[must_use = "it is sent by `send`"]
pub struct Request {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Attrs,
    pub(crate) authorize: Option<String>,
    pub(crate) body: Body,
    pub(crate) attrs: Attrs,
}

/// What a request carries.
#[derive(Debug)]
pub(crate) enum Body {
    None,
    Small(Vec<u8>),
    Blob(Blob, u64, Option<u64>),
}

impl Request {
    /// A request with an upper case method, for an absolute URL without a user.
    pub fn new(method: &str, url: impl Into<String>) -> Request {
        Request {
            method: method.to_owned(),
            url: url.into(),
            headers: Attrs::new(),
            authorize: None,
            body: Body::None,
            attrs: Attrs::new(),
        }
    }

    /// A header. Those of the host (`Host`, `Authorization`, `Cookie`, …) fail the request.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Request {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The host identifies the user: `basic`, `bearer`, or `registry` for whichever there is. The
    /// credential never comes here.
    pub fn authorize(mut self, kind: &str) -> Request {
        self.authorize = Some(kind.to_owned());
        self
    }

    /// Carries a few bytes.
    pub fn body(mut self, data: Vec<u8>) -> Request {
        self.body = Body::Small(data);
        self
    }

    /// Carries a blob, from the content store to the socket; or the part of it from `offset`.
    pub fn blob(mut self, blob: Blob, offset: u64, length: Option<u64>) -> Request {
        self.body = Body::Blob(blob, offset, length);
        self
    }

    /// How often it is repeated, at most 5, when it did not arrive or the server cannot answer now.
    pub fn retries(mut self, count: u32) -> Request {
        self.attrs.push(("retries".to_owned(), count.to_string()));
        self
    }

    /// How long the answer may take to begin.
    pub fn timeout_ms(mut self, timeout: u64) -> Request {
        self.attrs.push(("timeout-ms".to_owned(), timeout.to_string()));
        self
    }
}

/// Sends all in parallel; one answer each, in order. A status of 400 and above is an answer. At most 64
/// bodies may wait to be read.
pub fn send(requests: Vec<Request>) -> Vec<Result<Response>> {
    sys::send(requests)
}

impl Response {
    /// The value of a header; names are in lower case.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers().into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}
