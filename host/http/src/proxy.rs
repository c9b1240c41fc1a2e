//! Proxies, as the variables `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` name them.

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::header::HeaderValue;
use reqwest::{NoProxy, Proxy, Url};

use crate::error::{Error, ErrorKind, Result};

/// This machine is never asked through a proxy: there is another "this machine".
const ALWAYS_DIRECT: &str = "localhost,127.0.0.0/8,::1/128";

/// Through whom servers are asked. Nothing of the environment is used unless it is handed in.
#[derive(Clone, Default)]
pub struct Proxies {
    /// URL of the proxy for HTTPS; it may hold a name and a password.
    pub https: Option<String>,
    /// URL of the proxy for plain HTTP.
    pub http: Option<String>,
    /// Who is asked directly: comma separated names (with all below them), addresses, networks, or
    /// `*` for everybody.
    pub except: Option<String>,
}

impl std::fmt::Debug for Proxies {
    /// A proxy's URL may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let set = |proxy: &Option<String>| if proxy.is_some() { "set" } else { "none" };
        write!(f, "Proxies(https: {}, http: {})", set(&self.https), set(&self.http))
    }
}

impl Proxies {
    /// The proxy that a URL of a scheme is asked through, unless it is an exception.
    fn of_scheme(&self, scheme: &str) -> Option<&str> {
        let all = self.except.as_deref().unwrap_or_default();
        let proxy = if scheme == "https" { &self.https } else { &self.http };
        // The client's own matching knows the star for names only.
        proxy.as_deref().filter(|p| !p.is_empty() && all.split(',').all(|e| e.trim() != "*"))
    }

    /// Whether a proxy may stand between us and a URL.
    pub(crate) fn concern(&self, url: &Url) -> bool {
        self.of_scheme(url.scheme()).is_some()
    }

    /// The proxy that a URL is asked through, and what it gets as `Proxy-Authorization`.
    pub(crate) fn between(&self, url: &Url) -> Result<Option<(Url, Option<HeaderValue>)>> {
        let Some(proxy) = self.of_scheme(url.scheme()) else { return Ok(None) };
        let proxy = parse(url.scheme(), proxy)?;
        let given = self.except.as_deref().unwrap_or_default();
        let matcher =
            Matcher::builder().all(proxy.as_str()).no(format!("{ALWAYS_DIRECT},{given}")).build();
        let Ok(target) = url.as_str().parse() else { return Ok(None) };
        let found = matcher.intercept(&target);
        Ok(found.map(|found| (proxy, found.basic_auth().cloned())))
    }

    /// For the client to be built.
    pub(crate) fn rules(&self) -> Result<Vec<Proxy>> {
        let direct = || {
            let given = self.except.as_deref().unwrap_or_default();
            NoProxy::from_string(&format!("{ALWAYS_DIRECT},{given}"))
        };
        let mut rules = Vec::new();
        for scheme in ["https", "http"] {
            let Some(proxy) = self.of_scheme(scheme) else { continue };
            let url = parse(scheme, proxy)?;
            let rule = if scheme == "https" { Proxy::https(url) } else { Proxy::http(url) };
            rules.push(rule.map_err(|_| bad(scheme))?.no_proxy(direct()));
        }
        Ok(rules)
    }

    /// The names of the proxies' hosts.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let proxies = ["https", "http"].into_iter().filter_map(|scheme| {
            let url = parse(scheme, self.of_scheme(scheme)?).ok()?;
            Some(url.host_str()?.to_ascii_lowercase())
        });
        proxies.collect()
    }
}

/// As everybody reads the variables: without a scheme it is `http`.
fn parse(scheme: &str, proxy: &str) -> Result<Url> {
    let text = if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}") };
    let url = Url::parse(&text).map_err(|_| bad(scheme))?;
    let known = matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
    if known { Ok(url) } else { Err(bad(scheme)) }
}

/// The URL may hold a password, so it is not shown.
fn bad(scheme: &str) -> Error {
    let message = format!("the URL of the proxy for {scheme} cannot be used");
    Error::new(ErrorKind::Invalid, message)
        .hint("expected HOST:PORT, http://HOST:PORT or https://HOST:PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(https: &str, except: &str) -> Proxies {
        let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
        Proxies { https: text(https), http: None, except: text(except) }
    }

    #[test]
    fn urls_of_proxies_are_read_as_elsewhere() {
        for (url, host) in [
            ("proxy.corp:3128", Some("proxy.corp")),
            ("http://proxy.corp:3128", Some("proxy.corp")),
            ("https://user:secret@10.0.0.1", Some("10.0.0.1")),
            ("socks5://proxy.corp", None),
            ("http://", None),
            ("a b", None),
        ] {
            let proxies = proxies(url, "");
            assert_eq!(proxies.hosts().first().map(String::as_str), host, "{url}");
            let rules = proxies.rules();
            assert_eq!(rules.is_ok(), host.is_some(), "{url}");
            let shown = format!("{proxies:?} {rules:?}");
            assert!(rules.is_ok() || !shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn the_proxy_between_us_and_a_server() {
        let between = |proxy: &str, except: &str, url: &str| {
            let found = proxies(proxy, except).between(&Url::parse(url).expect("a URL"));
            let (proxy, auth) = found.expect("a proxy")?;
            let auth = auth.map(|auth| auth.to_str().expect("text").to_owned());
            Some((proxy.host_str().expect("a host").to_owned(), auth))
        };
        let basic = Some("Basic dTpw".to_owned());
        let found = between("http://u:p@proxy.corp:3128", "", "https://example.org:8443/");
        assert_eq!(found, Some(("proxy.corp".to_owned(), basic)));
        for (except, url) in [
            ("", "http://example.org/"),
            ("", "https://127.0.0.1:8443/"),
            ("", "https://[::1]/"),
            ("", "https://localhost/"),
            ("example.org", "https://git.example.org/"),
            ("10.0.0.0/8", "https://10.1.2.3/"),
            ("*", "https://example.org/"),
        ] {
            assert_eq!(between("proxy.corp", except, url), None, "{except} {url}");
        }
        assert!(between("proxy.corp", "example.com", "https://example.org/").is_some());
    }

    #[test]
    fn exceptions() {
        let url = Url::parse("https://example.org/").expect("a URL");
        let plain = Url::parse("http://example.org/").expect("a URL");
        assert!(proxies("p:1", "").concern(&url));
        assert!(!proxies("p:1", "").concern(&plain));
        assert!(!proxies("p:1", "a, *").concern(&url));
        assert!(!proxies("", "").concern(&url));
    }
}
