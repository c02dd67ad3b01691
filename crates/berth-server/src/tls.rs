//! TLS for the API's TCP sockets: the server's certificate, and whose clients may come in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// Where certificates are, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authority of the clients' certificates; none lets in clients without one.
    pub authority: Option<PathBuf>,
    /// The server's certificate and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of the kind.
    #[error("invalid TLS configuration: {what} {path:?}: {reason}")]
    File {
        /// What failed.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Certificate and key do not belong together, or their kind is not spoken.
    #[error(
        "invalid TLS configuration: could not load X509 key pair (cert: {certificate:?}, key: {key:?}): {source}"
    )]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The authority cannot vouch for anybody.
    #[error("invalid TLS configuration: {0}")]
    Authority(String),
}

impl TlsFiles {
    /// Reads the files.
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let pair =
            |source| TlsError::Pair { certificate: self.certificate.clone(), key: self.key.clone(), source };
        let provider = Arc::new(ring::default_provider());
        let chain =
            certificates("could not load X509 key pair: could not read the certificate", &self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| TlsError::File {
            what: "could not load X509 key pair: could not read the key",
            path: self.key.clone(),
            reason: error.to_string(),
        })?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(pair)?;
        let builder = match &self.authority {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates("could not read the authority", path)? {
                    roots.add(certificate).map_err(|error| TlsError::Authority(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| TlsError::Authority(error.to_string()))?,
                )
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |reason: String| TlsError::File { what, path: path.to_owned(), reason };
    let found = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| failed(error.to_string()))?;
    if found.is_empty() { Err(failed("no certificate in it".into())) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_missing_or_empty_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let missing = directory.path().join("missing.pem");
        for certificate in [&empty, &missing] {
            let files = TlsFiles { authority: None, certificate: certificate.clone(), key: missing.clone() };
            let error = files.acceptor().err().unwrap().to_string();
            assert!(
                error.starts_with(
                    "invalid TLS configuration: could not load X509 key pair: could not read the certificate"
                ),
                "{error}"
            );
            assert!(error.contains(certificate.to_str().unwrap()), "{error}");
        }
    }
}
