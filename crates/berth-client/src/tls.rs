//! TLS below HTTP: which server is believed, and who the client is.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use berth_tls::{Identity, ServerName};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Which servers a client believes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Any at all.
    #[default]
    Anyone,
    /// Those that an authority of this host's own list vouches for.
    System,
    /// Those that the authorities in this PEM file vouch for.
    Authority(PathBuf),
}

/// Certificates of a client, as PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Which servers are believed.
    pub trust: Trust,
    /// The client's certificate and its key; none if the server asks for none.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Reads the files, so that what is wrong with them is known before anything is connected.
    ///
    /// # Errors
    /// A file cannot be read or holds no certificate or key; the file is named.
    pub fn check(&self) -> io::Result<()> {
        self.config().map(drop)
    }

    /// Agrees on TLS with the server at the other end of `stream`, which is to be `address` (`host:port`).
    pub(crate) async fn connect(&self, stream: TcpStream, address: &str) -> io::Result<TlsStream<TcpStream>> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::new(self.config()?));
        connector.connect(name, stream).await
    }

    fn config(&self) -> io::Result<ClientConfig> {
        let trust = match &self.trust {
            Trust::Authority(path) => berth_tls::Trust::Authorities(berth_tls::authorities(path)?),
            // What this host's list holds beside usable certificates does not matter.
            Trust::System => berth_tls::Trust::Authorities(berth_tls::system_authorities(drop)),
            Trust::Anyone => berth_tls::Trust::Anyone,
        };
        let identity = self.identity.as_ref().map(|(certificate, key)| Identity::read(certificate, key));
        let mut config = berth_tls::client(trust, identity.transpose()?)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_missing_are_named() {
        let files = TlsFiles { trust: Trust::Authority("/nonexistent/ca.pem".into()), identity: None };
        assert!(files.config().unwrap_err().to_string().contains("/nonexistent/ca.pem"));
        let files = TlsFiles { trust: Trust::Anyone, identity: Some(("/none/c".into(), "/none/k".into())) };
        assert!(files.config().unwrap_err().to_string().contains("/none/k"));
        assert!(TlsFiles::default().config().is_ok());
        assert!(TlsFiles { trust: Trust::System, identity: None }.config().is_ok());
    }
}
