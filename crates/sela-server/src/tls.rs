//! TLS from PEM files, which may be replaced while the server runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Tls as Settings;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the certificate `{}` with the key `{}` cannot be used: {reason}", cert.display(), key.display())]
pub struct TlsError {
    cert: PathBuf,
    key: PathBuf,
    reason: String,
}

/// The certificate in use, and where it came from.
pub(crate) struct Tls {
    cert: PathBuf,
    key: PathBuf,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files, if the settings name them.
    pub(crate) fn open(settings: &Settings) -> Result<Option<Self>, TlsError> {
        let (Some(cert), Some(key)) = (&settings.cert, &settings.key) else {
            return Ok(None);
        };
        Ok(Some(Self {
            config: RwLock::new(Arc::new(read(cert, key)?)),
            cert: cert.clone(),
            key: key.clone(),
        }))
    }

    /// What new connections are to use.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the files again; what cannot be used leaves the certificate there was.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let config = Arc::new(read(&self.cert, &self.key)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }
}

fn read(cert: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let bad = |reason: String| TlsError {
        cert: cert.to_owned(),
        key: key.to_owned(),
        reason,
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| bad(e.to_string()))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|e| bad(e.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
