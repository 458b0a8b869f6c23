//! TLS by rustls. The certificate can be read anew while the server runs; connections keep theirs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("--tls-cert {}: {message}", path.display())]
    Certificate { path: PathBuf, message: String },
    #[error("--tls-key {}: {message}", path.display())]
    Key { path: PathBuf, message: String },
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Tls {
    files: Arc<Files>,
    acceptor: TlsAcceptorDebug,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

/// An acceptor shows nothing of itself.
#[derive(Clone)]
struct TlsAcceptorDebug(TlsAcceptor);

impl std::fmt::Debug for TlsAcceptorDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor")
    }
}

impl Tls {
    /// Reads a chain of certificates and the key of the first, both in PEM.
    pub fn open(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let current = RwLock::new(read(&certificate, &key)?);
        let files = Arc::new(Files {
            certificate,
            key,
            current,
        });
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has both versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&files) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            files,
            acceptor: TlsAcceptorDebug(TlsAcceptor::from(Arc::new(config))),
        })
    }

    /// Reads the files anew. If they cannot be used, the certificate stays as it is.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = read(&self.files.certificate, &self.files.key)?;
        let mut current = self
            .files
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = fresh;
        Ok(())
    }

    /// The files of the certificate and of the key.
    pub fn files(&self) -> [&Path; 2] {
        [&self.files.certificate, &self.files.key]
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor.0
    }
}

impl ResolvesServerCert for Files {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current))
    }
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let of_certificate = |message: String| TlsError::Certificate {
        path: certificate.to_owned(),
        message,
    };
    let of_key = |message: String| TlsError::Key {
        path: key.to_owned(),
        message,
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| of_certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(of_certificate("no certificate in PEM form".to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| of_key(error.to_string()))?;
    let provider = rustls::crypto::ring::default_provider();
    let pair = CertifiedKey::from_der(chain, secret, &provider);
    // A key of another certificate is noticed here.
    pair.map(Arc::new)
        .map_err(|error| of_key(error.to_string()))
}
