//! Answers authentication challenges, and decides who may see a credential.
//!
//! Rules:
//!
//! - A credential of a registry goes to that registry's origin, or to its token service, and to nobody
//!   else; never through a redirect.
//! - A token service (`realm`) is asked over HTTPS, or over plain HTTP where registry and service are
//!   both on this machine. It may not lie at an address that only this machine or network can reach,
//!   unless the registry does too.
//! - A token service on another host gets the credential only if it belongs to the registry's domain
//!   or the caller trusts it; else it is asked anonymously.
//! - Tokens ask for what is to be done with this one repository (and for a mount, to pull the other).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use tokio::time::Instant;
use wbuild_http::{is_inner, is_loopback, show_url};

use super::challenge::Challenge;
use super::credentials::{Credential, Credentials};
use super::hosts::Site;
use crate::error::{Error, ErrorKind, Result};

/// Largest answer of a token service, in bytes.
pub(super) const MAX_TOKEN_ANSWER: usize = 1 << 20;
/// Longest token, in bytes; it has to fit into a header.
const MAX_TOKEN: usize = 32 << 10;
/// How long a token holds that does not say so (distribution, token.md).
const DEFAULT_LIFE: u64 = 60;
/// Longest time a token is kept, whatever it says.
const MAX_LIFE: u64 = 24 * 3600;

/// Where and for what a request asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    /// As in references.
    pub(super) registry: String,
    pub(super) repository: String,
    pub(super) access: Access,
}

/// What a request wants to do with its repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Access {
    Pull,
    Push,
    /// Push, taking a blob of this other repository.
    Mount(String),
}

impl Scope {
    /// The scopes of a token (distribution, scope.md).
    fn wanted(&self) -> Vec<String> {
        let own = |actions: &str| format!("repository:{}:{actions}", self.repository);
        match &self.access {
            Access::Pull => vec![own("pull")],
            Access::Push => vec![own("pull,push")],
            Access::Mount(from) => vec![own("pull,push"), format!("repository:{from}:pull")],
        }
    }
}

struct Cached {
    header: HeaderValue,
    until: Option<Instant>,
}

/// One cell for each repository; its lock makes parallel requests share one trip to the token service.
type Cell = Arc<tokio::sync::Mutex<Option<Cached>>>;

/// What one registry's requests carry.
pub(super) struct Auth {
    credentials: Arc<dyn Credentials>,
    cells: Mutex<HashMap<Scope, Cell>>,
}

impl Auth {
    pub(super) fn new(credentials: Arc<dyn Credentials>) -> Self {
        Auth { credentials, cells: Mutex::default() }
    }

    fn cell(&self, scope: &Scope) -> Cell {
        let mut cells = self.cells.lock().expect("no panic while held");
        Arc::clone(cells.entry(scope.clone()).or_default())
    }

    /// What worked before for `scope`.
    pub(super) async fn known(&self, scope: &Scope) -> Option<HeaderValue> {
        let cell = self.cell(scope);
        let cached = cell.lock().await;
        let cached = cached.as_ref()?;
        let fresh = cached.until.is_none_or(|until| Instant::now() < until);
        fresh.then(|| cached.header.clone())
    }

    /// A header that answers `challenges`. `refused` is the one the registry has just not accepted.
    pub(super) async fn answer(
        &self,
        scope: &Scope,
        site: &Site,
        challenges: &[Challenge],
        refused: Option<&HeaderValue>,
        client: &super::http::Http,
    ) -> Result<HeaderValue> {
        let cell = self.cell(scope);
        let mut cached = cell.lock().await;
        // While we waited, another request may have got one.
        if let Some(Cached { header, until }) = &*cached
            && Some(header) != refused
            && until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(header.clone());
        }
        *cached = None;
        let registry = &scope.registry;
        let find = |scheme: &str| challenges.iter().find(|c| c.scheme == scheme);
        let fresh = if let Some(challenge) = find("bearer") {
            self.bearer(scope, site, challenge, client).await?
        } else if find("basic").is_some() {
            match self.credentials.lookup(registry).await? {
                Some(Credential::Basic { username, password }) => {
                    Cached { header: basic(&username, &password), until: None }
                }
                Some(Credential::Bearer(token)) => {
                    Cached { header: bearer(&token, registry)?, until: None }
                }
                Some(Credential::Identity(_)) | None => return Err(no_credentials(registry)),
            }
        } else {
            let schemes: Vec<&str> = challenges.iter().map(|c| c.scheme.as_str()).collect();
            let schemes = schemes.join(", ");
            let message = format!(
                "{registry} asks for a kind of authentication that is not known: {schemes}"
            );
            return Err(Error::unsupported(message));
        };
        if Some(&fresh.header) == refused {
            return Err(refused_credentials(registry, StatusCode::UNAUTHORIZED));
        }
        let header = fresh.header.clone();
        *cached = Some(fresh);
        Ok(header)
    }

    async fn bearer(
        &self,
        scope: &Scope,
        site: &Site,
        challenge: &Challenge,
        client: &super::http::Http,
    ) -> Result<Cached> {
        let registry = &scope.registry;
        let realm = challenge.get("realm").unwrap_or_default();
        let mut url = check_realm(registry, &site.origin, realm)?;
        let mut credential = self.credentials.lookup(registry).await?;
        if let Some(Credential::Bearer(token)) = &credential {
            return Ok(Cached { header: bearer(token, registry)?, until: None });
        }
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let withheld = credential.is_some() && !may_see_credentials(site, &host);
        if withheld {
            credential = None;
        }
        let service = challenge.get("service").unwrap_or_default();
        let wanted = scope.wanted();
        let mut form: Vec<_> = match &credential {
            // Of several, the one form has a list and the other a parameter each.
            Some(Credential::Identity(_)) => vec![("scope", wanted.join(" "))],
            _ => wanted.into_iter().map(|scope| ("scope", scope)).collect(),
        };
        if !service.is_empty() {
            form.insert(0, ("service", service.to_owned()));
        }
        let answer = match &credential {
            Some(Credential::Identity(refresh)) => {
                form.push(("grant_type", "refresh_token".to_owned()));
                form.push(("client_id", "wbuild".to_owned()));
                form.push(("refresh_token", refresh.clone()));
                client.token(site, &url, None, Some(&form)).await
            }
            other => {
                {
                    let mut query = url.query_pairs_mut();
                    query.extend_pairs(form.iter().map(|(k, v)| (k, v)));
                }
                let header = match other {
                    Some(Credential::Basic { username, password }) => {
                        Some(basic(username, password))
                    }
                    _ => None,
                };
                client.token(site, &url, header, None).await
            }
        };
        let answer = answer.map_err(|error| {
            if withheld {
                error.hint(format!(
                    "the token service {host} got no credentials, as it is not of the domain of \
                     {registry}; the key realms in registries.toml can allow it"
                ))
            } else {
                error
            }
        })?;
        #[derive(Deserialize)]
        struct Token {
            #[serde(default)]
            token: Option<String>,
            #[serde(default)]
            access_token: Option<String>,
            #[serde(default)]
            expires_in: Option<f64>,
        }
        // No cause: it might quote the token.
        let bad = || {
            Error::invalid(format!("the answer of the token service of {registry} holds no token"))
        };
        let token: Token = serde_json::from_slice(&answer).map_err(|_| bad())?;
        let text = token.token.or(token.access_token).filter(|t| !t.is_empty()).ok_or_else(bad)?;
        let life = match token.expires_in {
            Some(seconds) if seconds.is_finite() && seconds >= 0.0 => {
                (seconds as u64).min(MAX_LIFE)
            }
            _ => DEFAULT_LIFE,
        };
        // Renewed a little early, so that it does not run out on its way.
        let until = Instant::now() + Duration::from_secs(life.saturating_sub(life.min(30) / 3));
        Ok(Cached { header: bearer(&text, registry)?, until: Some(until) })
    }
}

/// Whether a token service on `host` may have the credentials of a registry.
fn may_see_credentials(site: &Site, host: &str) -> bool {
    let own = site.origin.host_str().unwrap_or_default().to_ascii_lowercase();
    own == host
        || same_domain(&own, host)
        || site.realms.iter().any(|realm| realm.eq_ignore_ascii_case(host))
}

fn basic(username: &str, password: &str) -> HeaderValue {
    let encoded = STANDARD.encode(format!("{username}:{password}"));
    secret_header(&format!("Basic {encoded}")).expect("base64 is ASCII")
}

fn bearer(token: &str, registry: &str) -> Result<HeaderValue> {
    let fits = token.len() <= MAX_TOKEN && token.bytes().all(|b| b.is_ascii_graphic());
    let header = if fits { secret_header(&format!("Bearer {token}")) } else { None };
    header.ok_or_else(|| {
        Error::invalid(format!("the token for {registry} is too long or not printable"))
    })
}

/// A header value that is left out of debug output.
fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn no_credentials(registry: &str) -> Error {
    let status = StatusCode::UNAUTHORIZED;
    let message =
        format!("{registry} asks for credentials (its answer is {status}), and there are none");
    Error::new(ErrorKind::Denied, message).hint(format!(
        "log in with: docker login {registry}, or without docker with any tool that writes the same \
         config.json (skopeo login --compat-auth-file ~/.docker/config.json {registry}); or put its \
         content into DOCKER_AUTH_CONFIG"
    ))
}

pub(super) fn refused_credentials(registry: &str, status: StatusCode) -> Error {
    let message = format!("{registry} refuses the credentials (its answer is {status})");
    Error::new(ErrorKind::Denied, message)
        .hint(format!("log in again with: docker login {registry}"))
}

/// Whether two host names belong to one registrable domain, going by their last two labels. Coarse (it
/// takes `co.uk` for a domain), but the registry, which names the service, is known by its certificate.
fn same_domain(one: &str, other: &str) -> bool {
    if address(one).is_some() || address(other).is_some() {
        return false;
    }
    fn domain(host: &str) -> Option<&str> {
        let mut dots = host.rmatch_indices('.').map(|(at, _)| at);
        dots.next()?;
        Some(dots.next().map_or(host, |at| &host[at + 1..]))
    }
    domain(one).is_some() && domain(one) == domain(other)
}

/// The address a host is written as; IPv6 with or without brackets, IPv4 inside of IPv6 taken out.
pub(super) fn address(host: &str) -> Option<IpAddr> {
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let address: IpAddr = host.parse().ok()?;
    Some(address.to_canonical())
}

/// Checks a place that a registry sends us to: by redirect or as token service.
pub(super) fn check_target(registry: &str, origin: &Url, target: &Url, what: &str) -> Result<()> {
    let host = target.host_str().unwrap_or_default();
    let own = origin.host_str().unwrap_or_default();
    let denied = |reason: &str| {
        let shown = show_url(target);
        Error::new(ErrorKind::Denied, format!("{registry} names {shown} as its {what}: {reason}"))
    };
    match target.scheme() {
        "https" => {}
        "http" if origin.scheme() == "http" && is_loopback(own) && is_loopback(host) => {}
        // A registry that the caller allows to be without encryption may keep to itself.
        "http" if origin.scheme() == "http" && own == host => {}
        "http" => return Err(denied("it is not encrypted")),
        _ => return Err(denied("it is neither https nor http")),
    }
    if host.is_empty() || !target.username().is_empty() || target.password().is_some() {
        return Err(denied("it holds a user name, or no host"));
    }
    if is_inner(host) && own != host && !(is_loopback(own) && is_loopback(host)) {
        return Err(denied("only this machine or its own link can reach it"));
    }
    Ok(())
}

fn check_realm(registry: &str, origin: &Url, realm: &str) -> Result<Url> {
    let shown: String = realm.chars().take(200).flat_map(char::escape_debug).collect();
    let url = Url::parse(realm).map_err(|_| {
        Error::invalid(format!(
            "{registry} names \"{shown}\" as its token service, which is no URL"
        ))
    })?;
    check_target(registry, origin, &url, "token service")?;
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::super::{ClientOptions, Host};
    use super::*;

    #[test]
    fn realms() {
        let public = Url::parse("https://reg.example.com").expect("url");
        let local = Url::parse("http://127.0.0.1:5000").expect("url");
        for (origin, realm, allowed) in [
            (&public, "https://auth.example.com/token", true),
            (&public, "https://other.net/token?x=y", true),
            (&public, "http://auth.example.com/token", false),
            (&public, "http://reg.example.com/token", false),
            (&public, "http://127.0.0.1/token", false),
            (&public, "https://127.0.0.1/token", false),
            (&public, "https://localhost/token", false),
            (&public, "https://a.localhost/token", false),
            (&public, "https://169.254.169.254/latest", false),
            (&public, "https://[::ffff:169.254.169.254]/latest", false),
            (&public, "https://0x7f000001/", false),
            (&public, "https://2130706433/", false),
            (&public, "https://[fe80::1]/", false),
            (&public, "https://[fd00:ec2::254]/", false),
            (&public, "https://0.0.0.0/", false),
            (&public, "https://user:pw@auth.example.com/", false),
            (&public, "file:///etc/passwd", false),
            (&public, "", false),
            (&public, "/token", false),
            (&local, "http://127.0.0.1:5001/token", true),
            (&local, "http://127.0.0.2:5001/token", true),
            (&local, "http://10.0.0.1/token", false),
            (&local, "http://169.254.169.254/latest", false),
            (&local, "https://169.254.169.254/latest", false),
            (&local, "http://reg.example.com/token", false),
            (&local, "https://reg.example.com/token", true),
        ] {
            assert_eq!(check_realm("reg", origin, realm).is_ok(), allowed, "{origin} {realm}");
        }
    }

    #[test]
    fn who_sees_credentials() {
        let site = |registry: &str| {
            let realms = vec!["login.sso.net".to_owned()];
            let realms = if registry == "reg.example.com" { realms } else { vec![] };
            let host = Host { realms, ..Host::default() };
            Site::new(registry, &host, &ClientOptions::default()).expect("a host")
        };
        for (registry, host, allowed) in [
            ("docker.io", "auth.docker.io", true),
            ("reg.example.com", "reg.example.com", true),
            ("reg.example.com", "example.com", true),
            ("reg.example.com", "login.sso.net", true),
            ("other.example.com", "login.sso.net", false),
            ("reg.example.com", "example.com.evil.net", false),
            ("reg.example.com", "badexample.com", false),
            ("registry", "evil", false),
            ("127.0.0.1:5000", "127.0.0.1", true),
            ("127.0.0.1:5000", "127.0.0.2", false),
            ("10.0.0.1", "11.0.0.1", false),
        ] {
            assert_eq!(may_see_credentials(&site(registry), host), allowed, "{registry} {host}");
        }
    }

    #[test]
    fn tokens_must_fit_a_header() {
        assert!(bearer("abc.def-_", "r").is_ok());
        for bad in ["a b", "a\r\nX: y", "ü", &"a".repeat(MAX_TOKEN + 1)] {
            assert!(bearer(bad, "r").is_err());
        }
        let shown = format!("{:?}", basic("name", "hidden"));
        assert!(!shown.contains("bmFtZTpoaWRkZW4"), "{shown}");
    }
}
