//! Certificates for tests, made by openssl.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::{assert_ran, run};

/// A certificate and its key, as PEM files.
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Makes a certificate for `127.0.0.1` and `registry.test` that is its own authority, and its key;
/// `None` without openssl.
pub fn make(folder: &Path, name: &str) -> Option<Pair> {
    let (certificate, key) =
        (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let (c, k) = (certificate.to_str().expect("utf-8"), key.to_str().expect("utf-8"));
    let args = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=registry.test",
        "-addext",
        "subjectAltName=DNS:registry.test,IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-keyout",
        k,
        "-out",
        c,
    ];
    let output = run("openssl", &args)?;
    assert_ran("openssl req", &output);
    Some(Pair { certificate, key })
}

/// The pair of the servers of this process; `None` without openssl.
pub fn server_pair() -> Option<&'static Pair> {
    static MADE: OnceLock<Option<(tempfile::TempDir, Pair)>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("temp");
        let pair = make(folder.path(), "server")?;
        Some((folder, pair))
    });
    made.as_ref().map(|(_, pair)| pair)
}

/// What a server needs to speak TLS; with `clients` it takes only who shows that certificate. Needs
/// openssl.
pub fn config(clients: Option<&Pair>) -> Arc<rustls::ServerConfig> {
    let pair = server_pair().expect("openssl is there");
    let certificates = |pair: &Pair| {
        CertificateDer::pem_file_iter(&pair.certificate)
            .expect("a file")
            .collect::<Result<Vec<_>, _>>()
            .expect("certificates")
    };
    let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates(clients) {
                roots.add(certificate).expect("a root");
            }
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                provider,
            );
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    Arc::new(builder.with_single_cert(certificates(pair), key).expect("a pair"))
}
