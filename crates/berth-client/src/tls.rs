//! TLS below HTTP: which server is believed, and who the client is.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use berth_tls::{Identity, ServerName, Trust};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Certificates of a client, as PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authority of the server's certificate; none believes any server.
    pub authority: Option<PathBuf>,
    /// The client's certificate and its key; none if the server asks for none.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Agrees on TLS with the server at the other end of `stream`, which is to be `address` (`host:port`).
    pub(crate) async fn connect(&self, stream: TcpStream, address: &str) -> io::Result<TlsStream<TcpStream>> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::new(self.config()?));
        connector.connect(name, stream).await
    }

    fn config(&self) -> io::Result<ClientConfig> {
        let trust = match &self.authority {
            Some(path) => Trust::Authorities(berth_tls::authorities(path)?),
            None => Trust::Anyone,
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
        let files = TlsFiles { authority: Some("/nonexistent/ca.pem".into()), identity: None };
        assert!(files.config().unwrap_err().to_string().contains("/nonexistent/ca.pem"));
        let files = TlsFiles { authority: None, identity: Some(("/none/c".into(), "/none/k".into())) };
        assert!(files.config().unwrap_err().to_string().contains("/none/k"));
        assert!(TlsFiles::default().config().is_ok());
    }
}
