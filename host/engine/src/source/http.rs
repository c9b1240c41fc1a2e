//! Files over HTTP: `ADD https://…`, archives as contexts.
//!
//! A URL is asked for once a build, and what it yields is pinned by its digest, so two URLs of one
//! file are one source. With a checksum nothing is asked: the checksum is the pin, and the file is
//! fetched when something reads it. Of every other URL the version is kept that was last seen; if
//! the server says that it is the newest, nothing is transferred.
//!
//! The time of the file is that of the server's version and in no key.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use wbuild_api::session::Session;
use wbuild_graph::encode::Encoder;
use wbuild_graph::{Attrs, BlobDigest, Digest, Failure, FailureKind, decode};
use wbuild_http::{
    Clients, Download, Downloaded, Options, Reach, Retries, Sink, Validators, download, show_url,
};
use wbuild_store::{DocumentKind, Ingest, Lease, Store};
use wbuild_tree::layer::WriteOptions;
use wbuild_tree::path::RelPath;
use wbuild_tree::stat::Timestamp;

use crate::blocking;
use crate::cancel::CancelOnDrop;
use crate::ops::file::write_layer;
use crate::solved::{Solved, Tree};
use crate::source::registry::proxies;
use crate::steps::{InternalStep, Steps};

/// Largest file that is fetched, in bytes.
const LIMIT: u64 = 64 << 30;
/// Mode of the file unless the source says otherwise (Dockerfile reference, `ADD`).
const MODE: u32 = 0o600;

/// What a source asks for.
struct Asked {
    url: Url,
    checksum: Option<Digest>,
    headers: Vec<(String, String)>,
    auth_header_secret: Option<String>,
    filename: String,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Asked {
    fn new(url: &str, checksum: Option<&Digest>, attrs: &Attrs) -> Result<Asked, Failure> {
        let mut headers = Vec::new();
        for (key, value) in attrs.iter() {
            match (key, key.strip_prefix("header.")) {
                ("filename" | "mode" | "uid" | "gid" | "auth-header-secret", _) => {}
                _ if key.starts_with("x-") => {}
                // What else is sent could change what comes in ways that no key knows.
                (_, Some(name))
                    if matches!(&*name.to_ascii_lowercase(), "accept" | "user-agent") =>
                {
                    headers.push((name.to_ascii_lowercase(), value.to_owned()));
                }
                _ => {
                    return Err(Failure::unsupported(format!(
                        "graph.http does not know the key {key:?}"
                    )));
                }
            }
        }
        headers.sort();
        let parsed = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some())
            .ok_or_else(|| Failure::invalid(format!("{url:?} is no http or https URL")))?;
        let path = parsed.path_segments().and_then(|mut names| names.next_back());
        let filename = attrs.get("filename").or(path).filter(|name| !name.is_empty());
        let filename = filename.unwrap_or("__unnamed__").to_owned();
        let names = RelPath::clean(&filename)?;
        if names.names().count() != 1 || names.as_bytes() != filename.as_bytes() {
            return Err(Failure::invalid(format!("{filename:?} is not the name of a file")));
        }
        let number = |key: &str| match attrs.get(key).map(str::parse::<u32>) {
            None => Ok(0),
            Some(Ok(number)) => Ok(number),
            Some(Err(_)) => Err(Failure::invalid(format!("{key} of a download is no number"))),
        };
        Ok(Asked {
            url: parsed,
            checksum: checksum.copied(),
            headers,
            auth_header_secret: attrs.get("auth-header-secret").map(str::to_owned),
            filename,
            mode: decode::octal_mode(attrs, "mode")?.unwrap_or(MODE),
            uid: number("uid")?,
            gid: number("gid")?,
        })
    }

    /// What is sent, apart from credentials: equal requests have equal answers.
    fn request(&self) -> Request {
        (self.url.to_string(), self.headers.clone(), self.auth_header_secret.clone())
    }

    /// In messages: without what may be secret.
    fn shown(&self) -> String {
        show_url(&self.url)
    }
}

/// URL, headers, and the secret that authorises.
type Request = (String, Vec<(String, String)>, Option<String>);

/// A version of a file, as it is kept between builds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Version {
    digest: Digest,
    etag: Option<String>,
    modified: Option<String>,
}

impl Version {
    fn validators(&self) -> Validators {
        Validators { etag: self.etag.clone(), modified: self.modified.clone() }
    }
}

/// What a URL yields in this build.
struct Found {
    version: Version,
    /// Keeps the file, if it was fetched.
    _lease: Option<Lease>,
}

/// The downloads of one build.
pub(crate) struct Downloads {
    store: Store,
    session: Arc<dyn Session>,
    steps: Arc<Steps>,
    clients: Clients,
    found: Mutex<HashMap<Request, Arc<OnceCell<Arc<Found>>>>>,
}

impl Downloads {
    pub(crate) fn new(
        store: Store,
        session: Arc<dyn Session>,
        steps: Arc<Steps>,
        reach: Reach,
    ) -> Downloads {
        let proxies = proxies(&*session);
        let clients = Clients::new(Options { reach, proxies, ..Options::default() });
        Downloads { store, session, steps, clients, found: Mutex::default() }
    }

    /// What keys a download: the file and how it is laid down, wherever it comes from.
    pub(crate) async fn pin(
        &self,
        url: &str,
        checksum: Option<&Digest>,
        attrs: &Attrs,
    ) -> Result<Digest, Failure> {
        let asked = Asked::new(url, checksum, attrs)?;
        let digest = match asked.checksum {
            Some(checksum) => checksum,
            None => self.find(&asked).await?.version.digest,
        };
        // Every field is named: a new one has to be thought of. How a file is asked for does not
        // count, once it is known.
        #[rustfmt::skip]
        let Asked {
            url: _, checksum: _, headers: _, auth_header_secret: _, filename, mode, uid, gid,
        } = &asked;
        Ok(Encoder::new("wbuild.http-pin.v1")
            .digest(&digest)
            .str(filename)
            .int(i64::from(*mode))
            .int(i64::from(*uid))
            .int(i64::from(*gid))
            .finish())
    }

    /// For frontends: the digest, and `last-modified` in seconds since 1970 where the server says so.
    pub(crate) async fn resolve(
        &self,
        url: &str,
        attrs: &Attrs,
    ) -> Result<(Digest, Option<u64>), Failure> {
        let asked = Asked::new(url, None, attrs)?;
        let found = self.find(&asked).await?;
        Ok((found.version.digest, found.version.modified.as_deref().and_then(http_date)))
    }

    /// The file as a layer.
    pub(crate) async fn fetch(
        &self,
        url: &str,
        checksum: Option<&Digest>,
        attrs: &Attrs,
        now: u64,
    ) -> Result<Arc<Solved>, Failure> {
        let asked = Asked::new(url, checksum, attrs)?;
        let wanted = match asked.checksum {
            Some(checksum) => checksum,
            None => self.find(&asked).await?.version.digest,
        };
        let there = self.store.open_blob(&BlobDigest(wanted))?;
        let known = self.kept(&asked)?.filter(|version| version.digest == wanted);
        let (blob, modified, _lease) = match there {
            Some(blob) => (blob, known.and_then(|version| version.modified), None),
            None => {
                let (version, lease) = self.download(&asked, None).await?.ok_or_else(|| {
                    Failure::internal("a server confirms a version that nobody has named")
                })?;
                let found = version.digest;
                if found != wanted {
                    return Err(match asked.checksum {
                        Some(_) => mismatch(&asked, found, wanted),
                        None => Failure::new(
                            FailureKind::Changed,
                            format!("{} has changed while it was built from", asked.shown()),
                        ),
                    });
                }
                let gone = || Failure::new(FailureKind::Gone, "a download is gone");
                let blob = self.store.open_blob(&BlobDigest(found))?.ok_or_else(gone)?;
                (blob, version.modified, Some(lease))
            }
        };
        let time = modified.as_deref().and_then(http_date).unwrap_or(0);
        let time = i64::try_from(time).map_or(Timestamp::from_secs(0), Timestamp::from_secs);
        let (store, (_cancel, work)) = (self.store.clone(), CancelOnDrop::new());
        let layer = blocking(move || {
            write_layer(&store, None, now, &work, None, |writer| {
                let options = WriteOptions {
                    mode: asked.mode,
                    uid: asked.uid,
                    gid: asked.gid,
                    timestamp: Some(time),
                    follow_links: false,
                };
                Ok(writer.write_file_from(&asked.filename, blob.file.as_fd(), &options)?)
            })
        })
        .await?;
        Ok(Solved::tree(Tree::new(vec![layer])))
    }

    /// What a URL yields now; asked once a build.
    async fn find(&self, asked: &Asked) -> Result<Arc<Found>, Failure> {
        let slot = {
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(found.entry(asked.request()).or_default())
        };
        let find = || async {
            let known = self.kept(asked)?;
            Ok::<_, Failure>(Arc::new(match self.download(asked, known.as_ref()).await? {
                Some((version, lease)) => Found { version, _lease: Some(lease) },
                None => Found {
                    version: known.ok_or_else(|| {
                        Failure::internal("a server confirms a version that nobody has named")
                    })?,
                    _lease: None,
                },
            }))
        };
        slot.get_or_try_init(find).await.cloned()
    }

    /// Fetches the file unless `known` is still its version.
    async fn download(
        &self,
        asked: &Asked,
        known: Option<&Version>,
    ) -> Result<Option<(Version, Lease)>, Failure> {
        let what = asked.shown();
        let mut headers = HeaderMap::new();
        for (name, value) in &asked.headers {
            let bad = || Failure::invalid(format!("the header {name} of {what} is malformed"));
            let name = HeaderName::try_from(name).map_err(|_| bad())?;
            headers.insert(name, HeaderValue::try_from(value).map_err(|_| bad())?);
        }
        let validators = known.map(Version::validators);
        let wanted = Download {
            url: &asked.url,
            what: &what,
            headers,
            authorization: self.authorization(asked).await?,
            known: validators.as_ref(),
            limit: LIMIT,
        };
        let mut sink = ToStore {
            store: &self.store,
            steps: &self.steps,
            what: &what,
            ingest: None,
            step: None,
            length: None,
        };
        let result = download(&self.clients, Retries::default(), &wanted, &mut sink).await;
        let ToStore { ingest, step, .. } = sink;
        let result = result.map_err(|error| explain(asked, error));
        match (&result, step) {
            (Ok(_), Some(step)) => step.done(),
            (Err(failure), Some(step)) => step.fetch_failed(failure),
            (_, None) => {}
        }
        let Downloaded::New(validators) = result? else { return Ok(None) };
        let ingest =
            ingest.ok_or_else(|| Failure::internal("a download ended that never began"))?;
        let (info, lease) = ingest.commit(None, None)?.into_parts();
        let version =
            Version { digest: info.digest.0, etag: validators.etag, modified: validators.modified };
        self.keep(asked, &version)?;
        Ok(Some((version, lease)))
    }

    /// The credential for the URL's host, from the secrets that `docker build` looks at.
    async fn authorization(&self, asked: &Asked) -> Result<Option<HeaderValue>, Failure> {
        let host = asked.url.host_str().unwrap_or_default();
        let header = async |id: &str, prefix: &str| -> Result<Option<HeaderValue>, Failure> {
            let Some(secret) = self.session.secret(id).await? else { return Ok(None) };
            let mut value = prefix.as_bytes().to_vec();
            value.extend_from_slice(secret.trim_ascii_end());
            let mut value = HeaderValue::from_bytes(&value).map_err(|_| {
                Failure::invalid(format!("the secret {id} cannot be sent in a header"))
            })?;
            value.set_sensitive(true);
            Ok(Some(value))
        };
        if let Some(id) = &asked.auth_header_secret {
            let missing = || {
                Failure::not_found(format!("the secret {id} is not there"))
                    .hint(format!("give it with --secret id={id},src=FILE"))
            };
            return header(id, "").await?.ok_or_else(missing).map(Some);
        }
        if let Some(value) = header(&format!("HTTP_AUTH_TOKEN_{host}"), "Bearer ").await? {
            return Ok(Some(value));
        }
        header(&format!("HTTP_AUTH_HEADER_{host}"), "").await
    }

    fn kept(&self, asked: &Asked) -> Result<Option<Version>, Failure> {
        let data = self.store.load_document(DocumentKind::Pin, &document(asked))?;
        Ok(data.and_then(|data| serde_json::from_slice(&data).ok()))
    }

    fn keep(&self, asked: &Asked, version: &Version) -> Result<(), Failure> {
        let data = serde_json::to_vec(version)
            .map_err(|error| Failure::internal("cannot keep what a URL stood for").cause(&error))?;
        Ok(self.store.save_document(DocumentKind::Pin, &document(asked), &data)?)
    }
}

/// Names what is kept of a URL. The URL may hold secrets, so only its digest is written down.
fn document(asked: &Asked) -> String {
    let (url, headers, secret) = asked.request();
    let mut e = Encoder::new("wbuild.http-request.v1");
    e.str(&url);
    e.list(headers.iter(), |e, (name, value)| {
        e.str(name).str(value);
    });
    e.option(secret.as_deref(), |e, secret| {
        e.str(secret);
    });
    format!("http {}", e.finish())
}

/// Adds what can be done about it.
fn explain(asked: &Asked, error: wbuild_http::Error) -> Failure {
    let host = asked.url.host_str().unwrap_or_default();
    let hint = match error.kind {
        wbuild_http::ErrorKind::OutOfReach => "to allow it: --allow network.private".to_owned(),
        wbuild_http::ErrorKind::Denied if error.hint.is_none() => format!(
            "a credential can be given with --secret id=HTTP_AUTH_TOKEN_{host},src=FILE (a bearer \
             token) or HTTP_AUTH_HEADER_{host} (a whole header)"
        ),
        _ => return error.into(),
    };
    Failure::from(error).hint(hint)
}

fn mismatch(asked: &Asked, found: Digest, wanted: Digest) -> Failure {
    Failure::invalid(format!("{} has the checksum {found}, not {wanted}", asked.shown()))
        .hint("if the file was meant to change, write its new checksum")
}

/// A date of HTTP (RFC 9110, section 5.6.7) in seconds since 1970; none before that, or if it is none.
fn http_date(text: &str) -> Option<u64> {
    let since = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_secs())
}

/// Writes a download into the store, and shows it as a step.
struct ToStore<'a> {
    store: &'a Store,
    steps: &'a Arc<Steps>,
    what: &'a str,
    ingest: Option<Ingest>,
    step: Option<InternalStep>,
    length: Option<u64>,
}

impl Sink for ToStore<'_> {
    fn begin(&mut self, length: Option<u64>) -> io::Result<()> {
        let what = self.what;
        self.ingest = Some(self.store.ingest(LIMIT).map_err(io::Error::other)?);
        self.step.get_or_insert_with(|| self.steps.internal(&format!("fetch {what}")));
        self.length = length;
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        let ingest = self.ingest.as_mut().expect("a sink is written to after it began");
        ingest.append(data).map_err(io::Error::other)?;
        if let Some(step) = &self.step {
            step.progress(self.what, ingest.size(), self.length);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(url: &str, attrs: &[(&str, &str)]) -> Result<Asked, Failure> {
        let mut all = Attrs::default();
        for (key, value) in attrs {
            all.push(*key, *value);
        }
        Asked::new(url, None, &all)
    }

    #[test]
    fn what_a_source_asks_for_is_checked() {
        let plain = asked("https://example.org/dir/file?x#y", &[]).expect("a URL");
        assert_eq!((&*plain.filename, plain.mode, plain.uid), ("file", 0o600, 0));
        let all = [("filename", "f"), ("mode", "0755"), ("uid", "7"), ("header.Accept", "a/b")];
        let all = asked("http://example.org/", &all).expect("a URL");
        assert_eq!((&*all.filename, all.mode, all.uid), ("f", 0o755, 7));
        assert_eq!(all.headers, [("accept".to_owned(), "a/b".to_owned())]);
        assert_eq!(asked("http://example.org", &[]).expect("a URL").filename, "__unnamed__");
        for (url, key, value) in [
            ("file:///etc/passwd", "uid", "0"),
            ("http://", "uid", "0"),
            ("nonsense", "uid", "0"),
            ("http://a/f", "filename", ".."),
            ("http://a/f", "filename", "a/b"),
            ("http://a/f", "filename", "/a"),
            ("http://a/f", "mode", "rw"),
            ("http://a/f", "uid", "-1"),
            ("http://a/f", "header.cookie", "x"),
            ("http://a/f", "colour", "red"),
        ] {
            assert!(asked(url, &[(key, value)]).is_err(), "{url} {key}={value}");
        }
    }

    #[test]
    fn hints_say_what_helps() {
        use wbuild_http::{Error, ErrorKind};
        let asked = asked("http://10.0.0.1/f", &[]).expect("a URL");
        let hint = |kind| format!("{:?}", explain(&asked, Error::new(kind, "no")));
        assert!(hint(ErrorKind::OutOfReach).contains("--allow network.private"));
        // Who was let in and is refused by the server needs a credential.
        let denied = hint(ErrorKind::Denied);
        assert!(denied.contains("HTTP_AUTH_TOKEN_10.0.0.1") && !denied.contains("--allow"));
        assert!(!hint(ErrorKind::NotFound).contains("--"));
    }

    #[test]
    fn dates_of_all_three_forms_are_read() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(http_date(text), Some(784_111_777), "{text}");
        }
        for text in ["", "yesterday", "1994-11-06T08:49:37Z", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(http_date(text), None, "{text}");
        }
    }
}
