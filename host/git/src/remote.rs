//! Where a repository is.

use std::fmt;

use url::{Host, Url};
use wbuild_graph::Failure;

/// Longest URL, in bytes.
const LONGEST: usize = 4096;

/// How a repository is reached. There are no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// `https://`.
    Https,
    /// `http://`.
    Http,
    /// `git://`.
    Git,
    /// `ssh://`, `user@host:path`.
    Ssh,
}

impl Scheme {
    /// As git names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Https => "https",
            Scheme::Http => "http",
            Scheme::Git => "git",
            Scheme::Ssh => "ssh",
        }
    }

    /// The port where none is given.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Https => 443,
            Scheme::Http => 80,
            Scheme::Git => 9418,
            Scheme::Ssh => 22,
        }
    }

    /// HTTP, with or without TLS.
    pub fn is_http(self) -> bool {
        matches!(self, Scheme::Https | Scheme::Http)
    }
}

/// The address of a repository, taken apart and checked. Shown without what may be secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Remote {
    scheme: Scheme,
    user: Option<String>,
    password: Option<String>,
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    host: String,
    port: Option<u16>,
    /// With its leading slash; as in `host:path` if `is_scp`. Of HTTP with the query.
    path: String,
    /// `user@host:path`: the path is relative to the user's directory there.
    is_scp: bool,
}

impl Remote {
    /// Reads a URL, or `user@host:path`.
    ///
    /// # Errors
    /// `Denied` if it is of another scheme, `Invalid` if it is malformed.
    pub fn parse(text: &str) -> Result<Remote, Failure> {
        let shown = || without_credentials(text);
        let invalid = |why: &str| {
            Failure::invalid(format!("{} is not the URL of a git repository: {why}", shown()))
        };
        if text.len() > LONGEST {
            return Err(invalid("it is too long"));
        }
        if text.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'\\') || hides_control(text) {
            return Err(invalid("it holds white space, a backslash or a control character"));
        }
        if text.starts_with('-') {
            return Err(invalid("it begins with a dash"));
        }
        let scheme = match text.split_once("://") {
            None => return Remote::scp(text).ok_or_else(|| {
                invalid("expected https://, http://, ssh://, git:// or user@host:path")
            }),
            Some((scheme, _)) => match scheme.to_ascii_lowercase().as_str() {
                "https" => Scheme::Https,
                "http" => Scheme::Http,
                "git" => Scheme::Git,
                "ssh" => Scheme::Ssh,
                _ => {
                    let message = format!("git may not fetch {}", shown());
                    return Err(Failure::new(wbuild_graph::FailureKind::Denied, message)
                        .hint("repositories are fetched over https, http, ssh and git"));
                }
            },
        };
        let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
        let host = match url.host() {
            Some(Host::Domain(name)) if is_host_name(name) => name.to_ascii_lowercase(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => format!("[{address}]"),
            _ => return Err(invalid("its host is malformed")),
        };
        let part = |text: &str| (!text.is_empty()).then(|| decoded(text));
        let user = part(url.username());
        let password = url.password().and_then(part);
        if !scheme.is_http() && user.as_deref().is_some_and(|user| !is_user_name(user)) {
            return Err(invalid("its user is malformed"));
        }
        let path = match (url.path(), url.query().filter(|_| scheme.is_http())) {
            ("" | "/", _) => return Err(invalid("it has no path")),
            (path, Some(query)) => format!("{path}?{query}"),
            (path, None) => path.to_owned(),
        };
        let port = url.port().filter(|port| *port != scheme.default_port());
        if port == Some(0) {
            return Err(invalid("its port is 0"));
        }
        Ok(Remote { scheme, user, password, host, port, path, is_scp: false })
    }

    fn scp(text: &str) -> Option<Remote> {
        let (place, path) = text.split_once(':')?;
        let (user, host) = match place.split_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, place),
        };
        // Git runs a helper that is named before two colons.
        let path_is_good = !path.is_empty() && !path.starts_with([':', '-']);
        let user_is_good = user.is_none_or(is_user_name);
        (path_is_good && user_is_good && is_host_name(host)).then(|| Remote {
            scheme: Scheme::Ssh,
            user: user.map(str::to_owned),
            password: None,
            host: host.to_ascii_lowercase(),
            port: None,
            path: path.to_owned(),
            is_scp: !path.starts_with('/'),
        })
    }

    /// The repository that a submodule's URL names: by itself, or relative to this one.
    ///
    /// # Errors
    /// As [`Remote::parse`]; `Invalid` if it leads above the root.
    pub fn join(&self, url: &str) -> Result<Remote, Failure> {
        if !(url.starts_with("./") || url.starts_with("../") || url == "." || url == "..") {
            return Remote::parse(url);
        }
        let above = || {
            Failure::invalid(format!("the URL {url:?} of a submodule leads above {self}"))
        };
        let path = self.path.split('?').next().unwrap_or_default();
        let mut names: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        let mut rest = url;
        loop {
            rest = rest.trim_start_matches('/');
            if let Some(after) = rest.strip_prefix("../") {
                names.pop().filter(|name| !name.is_empty()).ok_or_else(above)?;
                rest = after;
            } else if let Some(after) = rest.strip_prefix("./") {
                rest = after;
            } else {
                break;
            }
        }
        match rest {
            ".." => drop(names.pop().filter(|name| !name.is_empty()).ok_or_else(above)?),
            "" | "." => {}
            rest => names.push(rest),
        }
        let mut joined = self.clone();
        joined.path = names.join("/");
        // Checked like any other; the credentials of the parent go with it, for its host is the same.
        let again = Remote::parse(&joined.url())?;
        Ok(Remote { user: joined.user, password: joined.password, ..again })
    }

    /// How it is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host as in the URL: with its port, unless that is the usual one.
    pub fn host_and_port(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(self.scheme.default_port())
    }

    /// The user that the URL names.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password that the URL holds.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// Whether scheme, host and port are those of `other`: a credential for one is one for the other.
    pub fn same_origin(&self, other: &Remote) -> bool {
        (self.scheme, &self.host, self.port) == (other.scheme, &other.host, other.port)
    }

    /// The URL without password, and without user where that is a credential (of HTTP).
    pub fn url(&self) -> String {
        self.at(&self.host_and_port())
    }

    /// The same on another host.
    pub(crate) fn at(&self, host: &str) -> String {
        let user = self.user.as_deref().filter(|_| self.scheme == Scheme::Ssh);
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        match self.is_scp {
            true => format!("{user}{host}:{}", self.path),
            false => format!("{}://{user}{host}{}", self.scheme.as_str(), self.path),
        }
    }
}

/// For messages: without user, password and query.
impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url();
        let shown = url.split('?').next().unwrap_or_default();
        f.write_str(&shown.chars().take(200).collect::<String>())
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({self})")
    }
}

/// Text that is no URL as it is shown: what stands before an `@`, and in a query, may be secret.
fn without_credentials(text: &str) -> String {
    let text: String = text.chars().take(200).collect();
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    format!("{:?}", scheme + rest.rsplit_once('@').map_or(rest, |(_, rest)| rest))
}

/// Whether an escape of the URL stands for a control character. Git decodes some parts.
fn hides_control(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.windows(3).any(|window| {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        match (window[0], digit(window[1]), digit(window[2])) {
            (b'%', Some(high), Some(low)) => high < 2 || (high, low) == (7, 15),
            _ => false,
        }
    })
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
        match (byte, digit(ahead.next()), digit(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high << 4 | low).unwrap_or_default());
                bytes = ahead;
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && !text.starts_with(['-', '.'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_user_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+'))
}
