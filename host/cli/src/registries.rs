//! The file that says how registries are asked, and what docker's directories of certificates say.
//!
//! The file is read with the command line, so that a mistake in it shows before anything runs;
//! the certificates it names are read when their registry is first asked, for most builds ask few.
//!
//! ```toml
//! [registry."docker.io"]
//! mirrors = ["mirror.example", "cache.example:5000/proxy.docker.io"]
//!
//! [registry."cache.example:5000"]
//! ca = ["/etc/ssl/our-ca.pem"]
//! ```

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use wbuild::session::RegistryHosts;
use wbuild_api::session::{Keypair, RegistryHost};
use wbuild_graph::{Failure, FailureKind};
use wbuild_oci::Reference;
use wbuild_oci::registry::Mirror;
use wbuild_supply::ConfigFile;

use crate::config::{self, read_file};
use crate::environment::{Environment, vars};
use crate::exit::Fault;

/// Where docker looks for certificates.
const DOCKER_CERTIFICATES: &str = "/etc/docker/certs.d";

/// What is said of registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    hosts: BTreeMap<String, Entry>,
    /// Relative paths in the file begin here.
    base: PathBuf,
    /// A directory for each host, with certificates.
    certificates: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    mirrors: Vec<Spanned<String>>,
    http: Option<bool>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    ca: Vec<PathBuf>,
    #[serde(default)]
    keypair: Vec<Pair>,
    #[serde(default)]
    realms: Vec<String>,
    concurrency: Option<NonZeroUsize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    cert: PathBuf,
    key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    registry: BTreeMap<Spanned<String>, Entry>,
}

/// The name that references have for a registry; `None` for what is none.
fn registry_name(text: &str) -> Option<String> {
    // Only a host can stand before the path of an image.
    let reference: Reference = format!("{text}/a/b").parse().ok()?;
    (reference.repository() == "a/b").then(|| reference.registry().to_owned())
}

/// Reads the file that the command line or the environment names, else the user's, else the
/// machine's.
///
/// # Errors
///
/// It is named and not there, or it says what cannot be understood: then the failure shows where.
pub fn read(flag: Option<&Path>, environment: &Environment) -> Result<Registries, Fault> {
    let named = flag.or_else(|| environment.var_os(vars::REGISTRY_CONFIG).map(Path::new));
    let found = config::find(named, "registries.toml", "registry configuration", environment)?;
    let Some(file) = found else { return Ok(Registries::of_docker()) };
    let base = file.path.parent().unwrap_or(Path::new("/")).to_owned();
    Ok(Registries { hosts: parse(&file)?, base, ..Registries::of_docker() })
}

fn parse(file: &ConfigFile) -> Result<BTreeMap<String, Entry>, Fault> {
    let document: Document = file.parse()?;
    let mut hosts = BTreeMap::new();
    for (written, entry) in document.registry {
        let name = registry_name(written.get_ref()).ok_or_else(|| {
            let hint = "expected HOST or HOST:PORT, as in names of images";
            file.wrong(written.span(), "this is no name of a registry", Some(hint))
        })?;
        for mirror in &entry.mirrors {
            mirror.get_ref().parse::<Mirror>().map_err(|_| {
                let hint = "expected HOST[:PORT][/PATH], without https://";
                file.wrong(mirror.span(), "this is no mirror", Some(hint))
            })?;
        }
        if hosts.insert(name.clone(), entry).is_some() {
            let message = format!("there are several entries for {name}");
            return Err(file.wrong(written.span(), &message, None).into());
        }
    }
    Ok(hosts)
}

impl Registries {
    fn of_docker() -> Registries {
        let certificates = Some(PathBuf::from(DOCKER_CERTIFICATES));
        Registries { certificates, ..Registries::default() }
    }

    /// `*.crt` are authorities, and a `*.cert` is a client certificate with a `*.key` beside it.
    fn of_certificates(&self, name: &str, host: &mut RegistryHost) -> Result<(), Failure> {
        let Some(directory) = self.certificates.as_ref().map(|all| all.join(name)) else {
            return Ok(());
        };
        // None, or none for this user.
        let Ok(entries) = std::fs::read_dir(&directory) else { return Ok(()) };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            match path.extension().and_then(std::ffi::OsStr::to_str) {
                Some("crt") => host.authorities.push(self.certificate(name, &path)?),
                Some("cert") => host.keypairs.push(Keypair {
                    certificate: self.certificate(name, &path)?,
                    key: self.certificate(name, &path.with_extension("key"))?,
                }),
                _ => {}
            }
        }
        Ok(())
    }

    fn certificate(&self, name: &str, path: &Path) -> Result<Vec<u8>, Failure> {
        let path = self.base.join(path);
        read_file(&path).map_err(|error| {
            let message =
                format!("cannot read the file {} for the registry {name}", path.display());
            Failure::new(FailureKind::Invalid, message).cause(&error)
        })
    }
}

impl RegistryHosts for Registries {
    /// Fails where a file with certificates or keys cannot be read.
    fn host(&self, name: &str) -> Result<RegistryHost, Failure> {
        let entry = self.hosts.get(name).cloned().unwrap_or_default();
        let mut host = RegistryHost {
            mirrors: entry.mirrors.into_iter().map(Spanned::into_inner).collect(),
            http: entry.http,
            insecure: entry.insecure,
            realms: entry.realms,
            concurrency: entry.concurrency.map(NonZeroUsize::get),
            ..RegistryHost::default()
        };
        for path in &entry.ca {
            host.authorities.push(self.certificate(name, path)?);
        }
        for pair in &entry.keypair {
            host.keypairs.push(Keypair {
                certificate: self.certificate(name, &pair.cert)?,
                key: self.certificate(name, &pair.key)?,
            });
        }
        self.of_certificates(name, &mut host)?;
        Ok(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(base: &Path, text: &str) -> Result<Registries, Fault> {
        let path = base.join("registries.toml");
        std::fs::write(&path, text).expect("file");
        read(Some(&path), &Environment::of_parts(base, &[]))
    }

    #[test]
    fn what_is_said_of_a_host() {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir_all(dir.path().join("certs/own.example:5000")).expect("directory");
        for (name, text) in [
            ("ca.pem", "authority"),
            ("c.pem", "certificate"),
            ("k.pem", "key"),
            ("certs/own.example:5000/ca.crt", "docker's"),
            ("certs/own.example:5000/client.cert", "shown"),
            ("certs/own.example:5000/client.key", "secret"),
            ("certs/own.example:5000/README", "not read"),
        ] {
            std::fs::write(dir.path().join(name), text).expect("file");
        }
        let ca = dir.path().join("ca.pem");
        let text = format!(
            "[registry.\"index.docker.io\"]\n\
             mirrors = [\"mirror.example\", \"cache.example:5000/proxy.docker.io\"]\n\
             [registry.\"Own.example:5000\"]\n\
             http = false\ninsecure = true\nca = [{ca:?}]\nconcurrency = 2\nrealms = [\"sso.net\"]\n\
             [[registry.\"own.example:5000\".keypair]]\nkey = \"k.pem\"\ncert = \"c.pem\"\n"
        );
        let twice = registries(dir.path(), &text).expect_err("one host, two spellings");
        assert!(
            format!("{:?}", twice.failure).contains("keypair")
                || twice.failure.diagnostics.len() == 1
        );
        let text = text.replace("Own.example", "own.example");
        let mut found = registries(dir.path(), &text).expect("a configuration");
        found.certificates = Some(dir.path().join("certs"));
        let hub = found.host("docker.io").expect("nothing to read");
        assert_eq!(hub.mirrors, ["mirror.example", "cache.example:5000/proxy.docker.io"]);
        let own = found.host("own.example:5000").expect("all is there");
        let pair = |certificate: &str, key: &str| Keypair {
            certificate: certificate.into(),
            key: key.into(),
        };
        let want = RegistryHost {
            mirrors: vec![],
            http: Some(false),
            insecure: true,
            authorities: vec!["authority".into(), "docker's".into()],
            keypairs: vec![pair("certificate", "key"), pair("shown", "secret")],
            realms: vec!["sso.net".into()],
            concurrency: Some(2),
        };
        assert_eq!(own, want);
        assert!(!format!("{own:?}").contains("115, 101, 99"), "a key's bytes are not shown");
        assert_eq!(found.host("own.example").expect("another"), RegistryHost::default());
        std::fs::remove_file(dir.path().join("k.pem")).expect("there");
        let failure = found.host("own.example:5000").expect_err("the key is gone");
        assert!(failure.message.contains("k.pem"), "{failure}");
    }

    #[test]
    fn whose_file_is_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::create_dir_all(dir.path().join("xdg/wbuild")).expect("directory");
        for (path, host) in [("xdg/wbuild/registries.toml", "xdg"), ("named.toml", "named")] {
            let text = format!("[registry.\"{host}.example\"]\nhttp = true\n");
            std::fs::write(dir.path().join(path), text).expect("file");
        }
        let read_with = |vars: &[(&str, &str)], flag: Option<&str>| {
            read(flag.map(Path::new), &Environment::of_parts(dir.path(), vars))
        };
        let hosts = |found: Registries| found.hosts.into_keys().collect::<Vec<_>>();
        let xdg = at("xdg");
        let vars = [("XDG_CONFIG_HOME", &*xdg)];
        assert_eq!(hosts(read_with(&vars, None).expect("the user's")), ["xdg.example"]);
        let vars = [("XDG_CONFIG_HOME", &*xdg), ("WBUILD_REGISTRY_CONFIG", "named.toml")];
        assert_eq!(hosts(read_with(&vars, None).expect("by variable")), ["named.example"]);
        let flag = Some("xdg/wbuild/registries.toml");
        assert_eq!(hosts(read_with(&vars, flag).expect("by option")), ["xdg.example"]);
        let fault = read_with(&[], Some("none.toml")).expect_err("not there");
        assert!(fault.failure.message.contains("none.toml"), "{fault}");
    }
}
