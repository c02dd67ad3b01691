//! TLS: which certificates are believed.

use std::io;
use std::path::Path;
use std::sync::Arc;

use berth_tls::Trust;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::RegistryConfig;

/// The TLS settings for one registry.
pub(crate) fn settings(config: &RegistryConfig, authority: &str) -> io::Result<Arc<ClientConfig>> {
    let trust = match config.is_insecure(authority) {
        true => Trust::Anyone,
        false => Trust::Authorities(roots(config, authority)),
    };
    berth_tls::client(trust, None).map(Arc::new)
}

/// The system's authorities, and those for this registry.
fn roots(config: &RegistryConfig, authority: &str) -> RootCertStore {
    let mut store = berth_tls::system_authorities(|error| {
        tracing::debug!(error, "a certificate of the system is left out");
    });
    // The authority is a host and port: it cannot name another directory.
    if !authority.contains('/') && !authority.starts_with('.') {
        for directory in &config.certificates {
            add_directory(&mut store, &directory.join(authority));
        }
    }
    store
}

fn add_directory(store: &mut RootCertStore, directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "crt") {
            continue;
        }
        match CertificateDer::pem_file_iter(&path) {
            Ok(certificates) => {
                store.add_parsable_certificates(certificates.flatten());
            }
            Err(error) => tracing::warn!(path = %path.display(), %error, "cannot read a certificate"),
        }
    }
}
