//! Repositories as references name them, without a scheme: `host/org/repo/dir:tag`.

/// A directory of a repository, at a branch, tag or commit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hosted {
    /// Host and path of the repository, as written: `example.org/org/repo`.
    pub repository: String,
    /// The directory in it; empty for its top.
    pub directory: String,
    /// Branch, tag or commit; empty means the default branch.
    pub reference: String,
}

impl Hosted {
    /// Takes a reference apart. The repository ends with the first part that ends in `.git`, else it
    /// is the two parts behind the host. Parts that are `.` are left out. Says what is wrong if it
    /// names none.
    ///
    /// # Errors
    /// One sentence without its subject, the reference.
    pub fn parse(text: &str) -> Result<Hosted, &'static str> {
        let path_begins = text.find('/').ok_or("names no repository of its host")?;
        let (path, reference) = match text[path_begins..].split_once(':') {
            Some((path, reference)) => (&text[..path_begins + path.len()], reference),
            None => (text, ""),
        };
        if text.ends_with(':') {
            return Err("has an empty tag");
        }
        let (host, names) = path.split_once('/').unwrap_or((path, ""));
        if !is_host(host) {
            return Err("does not begin with the name of a host");
        }
        let names: Vec<&str> = names.split('/').filter(|name| *name != ".").collect();
        let plain =
            |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'~' | b'+');
        if names.iter().any(|name| matches!(*name, "" | "..")) {
            return Err("has a part without a name");
        }
        let named = names.iter().position(|name| name.ends_with(".git") && name.len() > 4);
        let length = named.map_or(2, |at| at + 1);
        if names.len() < length {
            return Err("names no repository of its host");
        }
        let (repository, directory) = names.split_at(length);
        if !repository.iter().all(|name| name.bytes().all(plain) && !name.starts_with('-')) {
            return Err("has characters that a repository's address has not");
        }
        Ok(Hosted {
            repository: format!("{host}/{}", repository.join("/")),
            directory: directory.join("/"),
            reference: reference.to_owned(),
        })
    }

    /// Whether a text that may also be a path means a repository: its first part can only be a host.
    pub fn is_meant(text: &str) -> bool {
        let host = text.split('/').next().unwrap_or_default();
        let named = host.contains(['.', ':']) && !host.starts_with('.') || host == "localhost";
        named && text.contains('/') && !text.contains("://") && is_host(host)
    }

    /// Where the repository is fetched from: over HTTPS; on this machine, as registries are, over HTTP.
    pub fn url(&self) -> String {
        let host = self.repository.split('/').next().unwrap_or_default();
        let name = host.split(':').next().unwrap_or_default();
        let scheme = if name == "localhost" || is_loopback(name) { "http" } else { "https" };
        let end = if self.repository.ends_with(".git") { "" } else { ".git" };
        format!("{scheme}://{}{end}", self.repository)
    }
}

/// `127.…` in four numbers.
fn is_loopback(host: &str) -> bool {
    host.starts_with("127.") && host.parse::<std::net::Ipv4Addr>().is_ok()
}

/// A name or an IPv4 address, perhaps with a port.
fn is_host(text: &str) -> bool {
    let (name, port) = text.split_once(':').unwrap_or((text, "1"));
    let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    !name.is_empty()
        && !name.starts_with(['-', '.'])
        && name.bytes().all(word)
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_end_where_they_do() {
        for (text, repository, directory, reference, url) in [
            ("github.com/o/r", "github.com/o/r", "", "", "https://github.com/o/r.git"),
            ("github.com/o/r/a/b:v1", "github.com/o/r", "a/b", "v1", "https://github.com/o/r.git"),
            ("github.com/./o/r/./a/.", "github.com/o/r", "a", "", "https://github.com/o/r.git"),
            ("h.org/o/r:john/work", "h.org/o/r", "", "john/work", "https://h.org/o/r.git"),
            (
                "gitlab.com/g/s/r.git/d",
                "gitlab.com/g/s/r.git",
                "d",
                "",
                "https://gitlab.com/g/s/r.git",
            ),
            ("h/r.git/d", "h/r.git", "d", "", "https://h/r.git"),
            ("h:8443/o/r:1", "h:8443/o/r", "", "1", "https://h:8443/o/r.git"),
            ("localhost:80/a.git", "localhost:80/a.git", "", "", "http://localhost:80/a.git"),
            ("127.0.0.1:80/a/b", "127.0.0.1:80/a/b", "", "", "http://127.0.0.1:80/a/b.git"),
            ("127.org/a/b", "127.org/a/b", "", "", "https://127.org/a/b.git"),
        ] {
            let got = Hosted::parse(text).expect(text);
            let parts = (&*got.repository, &*got.directory, &*got.reference);
            assert_eq!(parts, (repository, directory, reference), "{text}");
            assert_eq!(got.url(), url, "{text}");
        }
        for bad in [
            "h", "h/r", "h//r", "h/o/../r", "./.", "h/.", "h/o/r:", "-h/o/r", "h:x/o/r", "h:0/o/r",
            "a b/o/r", "h/o/r#x", "h/o?/r", "h/-o/r", "",
        ] {
            assert!(Hosted::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_no_repositories() {
        for text in ["github.com/o/r", "h:80/r", "localhost/o/r", "127.0.0.1/x"] {
            assert!(Hosted::is_meant(text), "{text}");
        }
        for text in ["dir/x", "./h.org/x", "../x", "/h.org/x", "h.org", "https://h.org/x", "~.a/b"]
        {
            assert!(!Hosted::is_meant(text), "{text}");
        }
    }
}
