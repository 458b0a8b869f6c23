//! The server that is asked.

use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::error::LoadError;

/// Where requests go, and in whose name.
#[derive(Clone)]
pub struct Target {
    pub host: String,
    pub port: u16,
    /// What stands before `/chat/completions`, mostly `/v1`.
    pub prefix: String,
    pub key: Option<String>,
    /// For a whole request.
    pub timeout: Duration,
    pub(crate) tls: Option<TlsConnector>,
}

impl std::fmt::Debug for Target {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("url", &self.url())
            .finish_non_exhaustive()
    }
}

impl Target {
    /// Reads a base URL as SDKs take it, with or without `/v1` at its end.
    pub fn new(url: &str, key: Option<String>, timeout: Duration) -> Result<Self, LoadError> {
        let wrong = |reason: &str| LoadError::Server {
            url: url.to_owned(),
            reason: reason.to_owned(),
        };
        let uri: Uri = url.parse().map_err(|_| wrong("this is no URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("a base URL begins with http:// or https://")),
        };
        let host = uri.host().ok_or_else(|| wrong("there is no host in it"))?;
        let prefix = uri.path().trim_end_matches('/');
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            prefix: if prefix.is_empty() { "/v1" } else { prefix }.to_owned(),
            key,
            timeout,
            tls: is_tls.then(connector),
        })
    }

    /// The base URL.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.prefix)
    }

    /// Host and port as they stand in a header.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// TLS with the certificates that browsers trust.
fn connector() -> TlsConnector {
    let roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the versions that are safe")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_read_as_sdks_read_them() {
        let target = |url| Target::new(url, None, Duration::from_secs(1));
        let told = |url| target(url).map(|target| target.url());
        assert_eq!(
            told("http://127.0.0.1:8000").unwrap(),
            "http://127.0.0.1:8000/v1"
        );
        assert_eq!(
            told("https://a.example/v1/").unwrap(),
            "https://a.example:443/v1"
        );
        assert_eq!(told("http://[::1]:9/x/v1").unwrap(), "http://[::1]:9/x/v1");
        for wrong in ["localhost:8000", "ftp://a", "", "http://"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
        let secret = Target::new("http://a", Some("sk-1".to_owned()), Duration::ZERO);
        assert!(!format!("{secret:?}").contains("sk-1"));
    }
}
