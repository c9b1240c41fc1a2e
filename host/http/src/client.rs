//! Clients, and what all requests have in common.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use tokio::sync::OnceCell;

use crate::error::{Error, ErrorKind, Result};
use crate::proxy::Proxies;
use crate::reach::{Forbidden, Lookup, Reach, Resolver, forbidden};
use crate::tls::{self, Trust};

/// Longest wait that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(6);

/// How often and how fast a failed request is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// Tries in all, at least 1.
    pub attempts: u32,
    /// Wait before the second try; doubled each time, at most `most`.
    pub first: Duration,
    /// Longest wait.
    pub most: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Retries { attempts: 5, first: Duration::from_millis(250), most: Duration::from_secs(8) }
    }
}

impl Retries {
    /// The wait after so many failures.
    pub fn delay(&self, failures: u32) -> Duration {
        self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.most)
    }
}

/// What [`Clients`] are set up with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sent with every request.
    pub user_agent: String,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest time in which nothing arrives.
    pub stall_timeout: Duration,
    /// Whom to trust.
    pub trust: Trust,
    /// Through whom to ask.
    pub proxies: Proxies,
    /// What may be connected to.
    pub reach: Reach,
    /// Looks names up in place of the system.
    pub lookup: Option<Lookup>,
    /// A socket that all requests go through, whatever host their URLs name.
    pub unix_socket: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            user_agent: concat!("wbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(60),
            trust: Trust::default(),
            proxies: Proxies::default(),
            reach: Reach::Everything,
            lookup: None,
            unix_socket: None,
        }
    }
}

/// Sends requests; connections are shared. Use one within one tokio runtime.
pub struct Clients {
    options: Options,
    plain: OnceCell<reqwest::Client>,
    tls: OnceCell<reqwest::Client>,
}

impl Clients {
    /// Nothing is read or sent yet.
    pub fn new(options: Options) -> Self {
        Clients { options, plain: OnceCell::new(), tls: OnceCell::new() }
    }

    /// The client for a URL, after a look at whether the URL may be reached. It follows no redirect.
    /// Reading the roots of the system takes milliseconds, so it waits for the first request that
    /// needs them.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfReach`]: see [`Reach`]; [`ErrorKind::Unavailable`]: there are no roots, or what
    /// the options say cannot be used.
    pub async fn client(&self, url: &Url) -> Result<&reqwest::Client> {
        self.check(url).await?;
        if url.scheme() != "https" {
            let build = || async { self.build(tls::without_roots()?) };
            return self.plain.get_or_try_init(build).await;
        }
        let build = || async {
            let trust = self.options.trust.clone();
            let config = tokio::task::spawn_blocking(move || tls::config(&trust)).await;
            self.build(config.expect("reading certificates does not panic")?)
        };
        self.tls.get_or_try_init(build).await
    }

    async fn check(&self, url: &Url) -> Result<()> {
        let options = &self.options;
        options.reach.check(url)?;
        match options.proxies.concern(url) {
            true => {
                handed_over(options.reach, &options.proxies, options.lookup.as_ref(), url).await
            }
            false => Ok(()),
        }
    }

    fn build(&self, tls: rustls::ClientConfig) -> Result<reqwest::Client> {
        let options = &self.options;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .user_agent(options.user_agent.clone())
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.stall_timeout)
            .pool_max_idle_per_host(8);
        if options.reach != Reach::Everything || options.lookup.is_some() {
            builder = builder.dns_resolver(Arc::new(Resolver {
                reach: options.reach,
                proxies: options.proxies.hosts(),
                lookup: options.lookup.clone(),
            }));
        }
        if let Some(path) = &options.unix_socket {
            builder = builder.unix_socket(path.clone());
        }
        for rule in options.proxies.rules()? {
            builder = builder.proxy(rule);
        }
        builder.build().map_err(|e| {
            Error::new(ErrorKind::Unavailable, format!("cannot set up the HTTP client: {e}"))
        })
    }
}

/// Checks a URL that is to be asked through a proxy.
///
/// The proxy looks the name up and decides. A name that leads inside from here is not given to it all
/// the same, and neither is its own: our look-ups make an exception for that one.
pub(crate) async fn handed_over(
    reach: Reach,
    proxies: &Proxies,
    lookup: Option<&Lookup>,
    url: &Url,
) -> Result<()> {
    if reach == Reach::Everything {
        return Ok(());
    }
    let host = url.host_str().unwrap_or_default();
    let own = proxies.hosts().iter().any(|proxy| proxy.eq_ignore_ascii_case(host));
    if own || reach.leads_inside(host, lookup).await {
        return Err(forbidden(host).into());
    }
    Ok(())
}

/// Whether two URLs have scheme, host and port in common: a credential for one is one for the other.
pub fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// Whether the same request may succeed later.
pub fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// How long the server asks to wait, within reason.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// The whole body, at most `limit` bytes.
///
/// # Errors
/// [`ErrorKind::Limit`] if it is longer; see [`transport_error`].
pub async fn body(mut response: Response, limit: usize, what: &str) -> Result<Vec<u8>> {
    let too_large = || Error::new(ErrorKind::Limit, format!("{what} is larger than {limit} bytes"));
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

/// What it means that a request for `what` got no answer, or not all of it.
pub fn transport_error(what: &str, url: &Url, error: reqwest::Error) -> Error {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    // The URL may hold a signature; the message names the host only.
    let error = error.without_url();
    if let Some(forbidden) = cause::<Forbidden>(&error) {
        return Error::new(ErrorKind::OutOfReach, format!("cannot get {what}: {forbidden}"));
    }
    if matches!(cause::<rustls::Error>(&error), Some(rustls::Error::InvalidCertificate(_))) {
        // Trying again would not help, and the cause lies with trust rather than with the network.
        let message = format!("cannot get {what}: the certificate of {host}{port} is not accepted");
        return Error::new(ErrorKind::Denied, message).because(error).hint(
            "add its authority to the system's certificates, or point SSL_CERT_FILE at it; for a \
                 registry, name it with the key ca in registries.toml",
        );
    }
    if matches!(cause::<rustls::Error>(&error), Some(rustls::Error::AlertReceived(alert))
        if wants_certificate(*alert))
    {
        let message =
            format!("cannot get {what}: {host}{port} wants to know who asks, and refuses");
        return Error::new(ErrorKind::Denied, message)
            .because(error)
            .hint("a registry gets a client certificate by the key keypair in registries.toml");
    }
    Error::new(ErrorKind::Unavailable, format!("cannot get {what} from {host}{port}"))
        .because(error)
}

/// Whether a server broke off for lack of a client certificate that it takes.
fn wants_certificate(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription as A;
    matches!(
        alert,
        A::CertificateRequired
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateUnknown
            | A::CertificateExpired
            | A::CertificateRevoked
            | A::UnknownCA
            | A::AccessDenied
    )
}

/// The first cause of a kind.
fn cause<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // An I/O error hands out the source of what it wraps, not what it wraps.
        let inner = error.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref());
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// A URL without what may be secret: user, query and fragment.
pub fn show_url(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    let path: String = url.path().chars().take(200).collect();
    format!("{}://{host}{port}{path}", url.scheme())
}
