//! TLS of clients: which servers are believed, and who the client is.
//!
//! Nothing here connects to anything: what comes out is the configuration for whoever does.
#![forbid(unsafe_code)]

mod unverified;

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

pub use rustls::pki_types::ServerName;
use unverified::Unverified;

/// Which servers are believed.
#[derive(Debug)]
pub enum Trust {
    /// Any, whatever it shows.
    Anyone,
    /// Those whose certificate one of these authorities has signed for their name.
    Authorities(RootCertStore),
}

/// Who the client is.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads a certificate and its key from PEM files.
    ///
    /// # Errors
    /// `InvalidData` with the file's name.
    pub fn read(certificate: &Path, key: &Path) -> io::Result<Self> {
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
        Ok(Self { chain: certificates(certificate)?, key: private })
    }

    /// Reads a certificate and its key from PEM texts.
    ///
    /// # Errors
    /// `InvalidData`.
    pub fn parse(certificate: &str, key: &str) -> io::Result<Self> {
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(invalid)?;
        Ok(Self { chain: parse_certificates(certificate)?, key })
    }
}

/// The configuration of a client.
///
/// # Errors
/// When key and certificate do not belong together.
pub fn client(trust: Trust, identity: Option<Identity>) -> io::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match trust {
        Trust::Authorities(roots) => builder.with_root_certificates(roots),
        Trust::Anyone => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified::new(provider)))
        }
    };
    match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain, identity.key).map_err(invalid),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// The system's authorities; one that cannot be read is left out, and `skipped` is told why.
pub fn system_authorities(mut skipped: impl FnMut(String)) -> RootCertStore {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        skipped(error.to_string());
    }
    store.add_parsable_certificates(found.certs);
    store
}

/// The system's authorities as a PEM text, for a process that does not see the system's files.
pub fn system_authorities_text() -> String {
    use base64::Engine as _;
    let mut text = String::new();
    for certificate in rustls_native_certs::load_native_certs().certs {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        text.push_str(&base64::engine::general_purpose::STANDARD.encode(&certificate));
        text.push_str("\n-----END CERTIFICATE-----\n");
    }
    text
}

/// The authorities of a PEM file.
///
/// # Errors
/// `InvalidData` with the file's name, also if it has none.
pub fn authorities(path: &Path) -> io::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| unusable(path, &error))?;
    }
    Ok(store)
}

/// The authorities of a PEM text.
///
/// # Errors
/// `InvalidData`, also if it has none.
pub fn parse_authorities(text: &str) -> io::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    // Of many authorities, one that is of no use is not missed.
    let (added, _) = store.add_parsable_certificates(parse_certificates(text)?);
    if added == 0 { Err(invalid("no usable certificate")) } else { Ok(store) }
}

/// The certificates of a PEM file.
///
/// # Errors
/// `InvalidData` with the file's name, also if it has none.
pub fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(path).map_err(|error| unusable(path, &error))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| unusable(path, &error))?;
    if found.is_empty() { Err(unusable(path, &"no certificate in it")) } else { Ok(found) }
}

fn parse_certificates(text: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(invalid)?;
    if found.is_empty() { Err(invalid("no certificate")) } else { Ok(found) }
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> io::Error {
    invalid(format!("cannot use {}: {error}", path.display()))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_missing_are_named() {
        let text = |error: io::Error| error.to_string();
        assert!(text(authorities(Path::new("/none/ca.pem")).unwrap_err()).contains("/none/ca.pem"));
        let identity = Identity::read(Path::new("/none/c"), Path::new("/none/k"));
        assert!(text(identity.unwrap_err()).contains("/none/k"));
        assert!(client(Trust::Anyone, None).is_ok());
    }

    #[test]
    fn the_systems_authorities_survive_as_text() {
        let store = system_authorities(|_| ());
        if store.is_empty() {
            return;
        }
        assert_eq!(parse_authorities(&system_authorities_text()).unwrap().len(), store.len());
    }

    #[test]
    fn a_file_without_certificates_is_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(authorities(file.path()).unwrap_err().to_string().contains("no certificate in it"));
        assert!(parse_authorities("").is_err() && Identity::parse("", "").is_err());
    }
}
