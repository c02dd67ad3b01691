//! One request over one connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::{Error, Result};

/// Time to open a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// Time between two signs of life.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);

/// Where to connect to.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub host: String,
    pub port: u16,
    /// None: plain HTTP.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Endpoint {
    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Sends a request and waits for the answer's head.
    pub async fn send(&self, request: Request<Empty<Bytes>>, operation: &str) -> Result<Response<Incoming>> {
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        let stream = match timeout(CONNECT, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => return Err(Error::Connect { authority: self.authority(), source }),
            Err(_) => {
                let source = io::Error::from(io::ErrorKind::TimedOut);
                return Err(Error::Connect { authority: self.authority(), source });
            }
        };
        // The first request is small, and its answer awaited.
        stream.set_nodelay(true).map_err(|source| Error::Connect { authority: self.authority(), source })?;
        match &self.tls {
            None => self.exchange(stream, request, operation).await,
            Some(settings) => {
                let stream = self.secure(stream, settings).await?;
                self.exchange(stream, request, operation).await
            }
        }
    }

    async fn secure(
        &self,
        stream: TcpStream,
        settings: &Arc<rustls::ClientConfig>,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let failed = |source| Error::Tls { authority: self.authority(), source };
        let name =
            ServerName::try_from(self.host.clone()).map_err(|error| failed(io::Error::other(error)))?;
        let handshake = TlsConnector::from(Arc::clone(settings)).connect(name, stream);
        match timeout(CONNECT, handshake).await {
            Ok(outcome) => outcome.map_err(failed),
            Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Empty<Bytes>>,
        operation: &str,
    ) -> Result<Response<Incoming>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let failed = |source| Error::Http { operation: operation.to_owned(), source };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // It ends with the answer, or when the answer is dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a registry's connection ended");
            }
        });
        match timeout(SILENCE, sender.send_request(request)).await {
            Ok(outcome) => outcome.map_err(failed),
            Err(_) => Err(Error::Timeout { operation: operation.to_owned(), seconds: SILENCE.as_secs() }),
        }
    }
}
