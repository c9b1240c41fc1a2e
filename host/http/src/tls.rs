//! Whom to trust, and as whom to appear.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{Error, ErrorKind, Result};

/// How TLS is spoken.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// PEM texts with roots to trust besides those of the system.
    pub extra_roots: Vec<Vec<u8>>,
    /// Do not look at certificates: anybody on the way can read and change what is sent.
    pub insecure: bool,
    /// Certificates for servers that ask who is there; the first that a server takes is shown.
    pub identities: Vec<Identity>,
}

/// A client certificate.
#[derive(Clone)]
pub struct Identity {
    /// PEM text: the certificate, then those that lead to its authority.
    pub certificate: Vec<u8>,
    /// PEM text of its private key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    /// Never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// The configuration for servers that are asked without encryption: no roots are read for it.
pub(crate) fn without_roots() -> Result<ClientConfig> {
    let config = builder()?.with_root_certificates(RootCertStore::empty());
    Ok(config.with_no_client_auth())
}

/// The configuration that `trust` asks for. Reads the roots of the system, so it takes milliseconds.
pub(crate) fn config(trust: &Trust) -> Result<ClientConfig> {
    let builder = if trust.insecure {
        let verifier = Arc::new(Unchecked(provider()));
        builder()?.dangerous().with_custom_certificate_verifier(verifier)
    } else {
        builder()?.with_root_certificates(roots(&trust.extra_roots)?)
    };
    if trust.identities.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let provider = provider();
    let keys: Result<Vec<_>> = trust.identities.iter().map(|i| certified(i, &provider)).collect();
    Ok(builder.with_client_cert_resolver(Arc::new(Identities(keys?))))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn builder() -> Result<Builder> {
    ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(
        |e| Error::new(ErrorKind::Unavailable, format!("cannot set up the HTTP client: {e}")),
    )
}

/// The roots of the operating system and those given as PEM.
fn roots(extra: &[Vec<u8>]) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    store.add_parsable_certificates(system.certs);
    for pem in extra {
        let before = store.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let bad = |e: &dyn std::fmt::Display| {
                let message = format!("a given root certificate is malformed: {e}");
                Error::new(ErrorKind::Invalid, message)
            };
            store.add(certificate.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
        }
        if store.len() == before {
            let message = "a file of root certificates holds no certificate in PEM form";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
    }
    if store.is_empty() {
        let message = "there are no root certificates to check servers with";
        return Err(Error::new(ErrorKind::Unavailable, message)
            .hint("install the package ca-certificates, or point SSL_CERT_FILE at a bundle"));
    }
    Ok(store)
}

fn certified(identity: &Identity, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>> {
    // No cause for the key: it might quote it.
    let bad = |what: &str| Error::new(ErrorKind::Invalid, format!("a client {what}"));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&identity.certificate)
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| bad(&format!("certificate is malformed: {e}")))?;
    if chain.is_empty() {
        return Err(bad("certificate holds no certificate in PEM form"));
    }
    let key = PrivateKeyDer::from_pem_slice(&identity.key)
        .map_err(|_| bad("certificate's key is not a private key in PEM form"))?;
    CertifiedKey::from_der(chain, key, provider)
        .map(Arc::new)
        .map_err(|e| bad(&format!("certificate and its key cannot be used: {e}")))
}

/// Shows the first certificate whose key the server can check.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identities {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.iter().find(|key| key.key.choose_scheme(schemes).is_some()).cloned()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes any certificate; what is signed with it must still be signed with it.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
