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
    /// Written as `user@host:path`: the path is relative to the user's directory there, or holds what
    /// a URL would have to escape.
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
            None => {
                return Remote::scp(text).ok_or_else(|| {
                    invalid("expected https://, http://, ssh://, git:// or user@host:path")
                });
            }
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
        let path_is_good = !matches!(path, "" | "/") && !path.starts_with([':', '-']);
        let user_is_good = user.is_none_or(is_user_name);
        (path_is_good && user_is_good && is_host_name(host)).then(|| Remote {
            scheme: Scheme::Ssh,
            user: user.map(str::to_owned),
            password: None,
            host: host.to_ascii_lowercase(),
            port: None,
            path: path.to_owned(),
            is_scp: !is_plain(path),
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
        let above =
            || Failure::invalid(format!("the URL {url:?} of a submodule leads above {self}"));
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

/// Whether a path means the same in `host:path` and in a URL, where git decodes it.
fn is_plain(path: &str) -> bool {
    let plain =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-' | b'~' | b'+');
    path.starts_with('/')
        && path.bytes().all(plain)
        && !path.split('/').any(|name| matches!(name, "." | ".."))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wbuild_graph::FailureKind;

    use super::*;

    #[test]
    fn what_git_is_told_is_put_together_anew() {
        for (text, url, shown) in [
            ("https://h/a.git", "https://h/a.git", "https://h/a.git"),
            ("HTTPS://H:443/a.git", "https://h/a.git", "https://h/a.git"),
            (
                "https://u:p%40w@h:8443/a.git?k=v",
                "https://h:8443/a.git?k=v",
                "https://h:8443/a.git",
            ),
            ("http://0x7f.1/a", "http://127.0.0.1/a", "http://127.0.0.1/a"),
            ("git://h/a", "git://h/a", "git://h/a"),
            ("ssh://git@h:2222/a", "ssh://git@h:2222/a", "ssh://git@h:2222/a"),
            ("ssh://git:pw@h/a", "ssh://git@h/a", "ssh://git@h/a"),
            ("ssh://[::1]:22/a", "ssh://[::1]/a", "ssh://[::1]/a"),
            ("git@h:a/b.git", "git@h:a/b.git", "git@h:a/b.git"),
            ("h:/a", "ssh://h/a", "ssh://h/a"),
            ("h:/a%20b", "h:/a%20b", "h:/a%20b"),
            ("h:/a/../b", "h:/a/../b", "h:/a/../b"),
        ] {
            let remote = Remote::parse(text).expect(text);
            assert_eq!(
                (remote.url(), remote.to_string()),
                (url.to_owned(), shown.to_owned()),
                "{text}"
            );
        }
        let remote = Remote::parse("https://u:p%40w@h/a.git").expect("a URL");
        assert_eq!((remote.user(), remote.password()), (Some("u"), Some("p@w")));
        assert!(!format!("{remote:?}").contains("p@w"));
    }

    #[test]
    fn no_url_is_an_option_or_another_transport() {
        for text in [
            "",
            "-x",
            "--upload-pack=touch /tmp/x",
            "ext::sh -c touch% /tmp/x",
            "ext::sh",
            "fd::17",
            "file:///etc",
            "FILE:///etc",
            "/etc",
            "./a",
            "../a.git",
            "a",
            "ftp://h/a",
            "git+ssh://h/a",
            "persistent-https://h/a",
            "https::http://h/a",
            "https://",
            "https://h",
            "https:///a",
            "https://-h/a",
            "git://h",
            "git://h:0/a",
            "git://u;x@h/a",
            "ssh://-oProxyCommand=touch/a",
            "ssh://-u@h/a",
            "ssh://h%20-x/a",
            "ssh://u@h/a%0ab",
            "ssh://u@h/%00",
            "ssh://u%0a@h/a",
            "https://u%0d%0a@h/a",
            "-oProxyCommand=x:a",
            "git@-oProxyCommand=x:a",
            "-u@h:a",
            "git@h:-x",
            "git@h::a",
            "git@h:",
            "git@h:/",
            "a b:c",
            "https://h/a b",
            "https://h/a\n",
            "https://h\\@evil/a",
            "https://h/\u{7f}",
        ] {
            assert!(Remote::parse(text).is_err(), "{text:?}");
        }
        assert!(Remote::parse(&format!("https://h/{}", "a".repeat(LONGEST))).is_err());
    }

    #[test]
    fn messages_hold_no_credential() {
        for text in [
            "ftp://user:s3cret@h/a",
            "https://user:s3cret@h h/a",
            "https://user:s3cret@/a",
            "nonsense?token=s3cret",
            "s3cret@",
        ] {
            let failure = Remote::parse(text).expect_err(text);
            assert!(!failure.to_string().contains("s3cret"), "{failure}");
        }
        assert_eq!(Remote::parse("file:///x").expect_err("denied").kind, FailureKind::Denied);
    }

    #[test]
    fn submodules_are_relative_to_their_parents() {
        let at = |text: &str| Remote::parse(text).expect("a URL");
        for (parent, url, expect) in [
            ("https://h/g/a.git", "../b.git", "https://h/g/b.git"),
            ("https://h/g/a.git", "./b", "https://h/g/a.git/b"),
            ("https://h/g/a.git/", "../../b", "https://h/b"),
            ("https://h:81/g/a?x", "../b", "https://h:81/g/b"),
            ("ssh://u@h:22/g/a", "../b", "ssh://u@h/g/b"),
            ("git@h:g/a.git", "../b.git", "git@h:g/b.git"),
            ("https://h/a", "https://other/b", "https://other/b"),
            ("https://h/a", "git@other:b", "git@other:b"),
        ] {
            assert_eq!(
                at(parent).join(url).map(|r| r.url()),
                Ok(expect.to_owned()),
                "{parent} {url}"
            );
        }
        for (parent, url) in [
            ("https://h/a", "../.."),
            ("https://h/a", "../../b"),
            ("https://h/a", ".."),
            ("git@h:a", "../../b"),
            ("git@h:a", "../-x"),
            ("https://h/a", "../b\n"),
            ("https://h/a", "../ext::sh -c x"),
            ("https://h/a", "ext::sh"),
            ("https://h/a", "file:///b"),
            ("https://h/a", "/b"),
            ("https://h/a", "b"),
            ("https://h/a", "-b"),
            ("https://h/a", ""),
        ] {
            assert!(at(parent).join(url).is_err(), "{parent} {url:?}");
        }
        // The password of the parent's host stays with that host.
        let parent = at("https://u:pw@h/g/a");
        assert_eq!(parent.join("../b").expect("relative").password(), Some("pw"));
        assert_eq!(parent.join("https://other/b").expect("absolute").password(), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in ".{0,60}|(https?|ssh|git)://[-a-z%0-9@:/.?#\\[\\]]{0,40}|(u@)?h:/?[-a-z%0-9/.?#:+]{0,20}"
        ) {
            if let Ok(remote) = Remote::parse(&text) {
                let url = remote.url();
                prop_assert!(!url.starts_with('-'));
                // Git runs a helper that is named before two colons, if nothing else is before them.
                let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
                let helper = url.split_once("::").is_some_and(|(name, _)| name.bytes().all(named));
                prop_assert!(!helper, "{url}");
                prop_assert!(url.bytes().all(|b| b > b' ' && b != 0x7f));
                // What is made of it is read as the same thing.
                let again = Remote::parse(&url);
                prop_assert!(again.is_ok(), "{url}");
                prop_assert_eq!(again.map(|again| again.url()), Ok(url));
            }
        }

        #[test]
        fn any_submodule_stays_below_the_host(url in "(\\.\\./|\\./|[-a-z:/@.]){1,12}") {
            let parent = Remote::parse("https://h/g/a").expect("a URL");
            if let Ok(remote) = parent.join(&url)
                && (url.starts_with("./") || url.starts_with("../"))
            {
                prop_assert!(remote.same_origin(&parent), "{url}");
            }
        }
    }
}
