//! One request over one connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderValue, PROXY_AUTHORIZATION};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::proxy::Proxy;
use crate::{Error, Result};

/// Time to open a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// Time between two signs of life.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);

/// Bytes that are read at once, and of a head at most. Larger ones are slower: what has more than 26 KB, musl's allocator
/// gives back to the kernel each time, and has to fault in again.
const BUFFER: usize = 24 << 10;

/// The body of a request.
pub(crate) type Outgoing = UnsyncBoxBody<Bytes, io::Error>;

/// Extension of a request with a long body: bytes of it that were sent. While they grow, the answer is waited for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent(pub Arc<AtomicU64>);

/// Where to connect to.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub host: String,
    pub port: u16,
    /// None: plain HTTP.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// What is in between.
    pub proxy: Option<Proxy>,
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
    pub async fn send(&self, mut request: Request<Outgoing>, operation: &str) -> Result<Response<Incoming>> {
        let (host, port) = match &self.proxy {
            Some(proxy) => (proxy.host.as_str(), proxy.port),
            None => (self.host.as_str(), self.port),
        };
        let connect = TcpStream::connect((host, port));
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
            None => {
                if let Some(proxy) = &self.proxy {
                    self.address_to_proxy(&mut request, proxy).map_err(|error| Error::Malformed {
                        operation: operation.to_owned(),
                        reason: error.to_string(),
                    })?;
                }
                self.exchange(stream, request, operation).await
            }
            Some(settings) => {
                let mut stream = stream;
                if let Some(proxy) = &self.proxy {
                    let failed = |source| Error::Connect { authority: self.authority(), source };
                    let agreed = timeout(CONNECT, self.tunnel(&mut stream, proxy)).await;
                    agreed.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
                }
                let stream = self.secure(stream, settings).await?;
                self.exchange(stream, request, operation).await
            }
        }
    }

    /// Puts the whole address into the request, as proxies want it (RFC 9112, 3.2.2).
    fn address_to_proxy(
        &self,
        request: &mut Request<Outgoing>,
        proxy: &Proxy,
    ) -> std::result::Result<(), http::Error> {
        *request.uri_mut() = format!("http://{}{}", self.authority(), request.uri()).parse::<http::Uri>()?;
        if let Some(authorization) = &proxy.authorization {
            let mut value = HeaderValue::from_str(authorization)?;
            value.set_sensitive(true);
            request.headers_mut().insert(PROXY_AUTHORIZATION, value);
        }
        Ok(())
    }

    /// Asks the proxy for a connection to the registry (RFC 9110, 9.3.6).
    async fn tunnel(&self, stream: &mut TcpStream, proxy: &Proxy) -> io::Result<()> {
        /// Longest answer.
        const CAP: usize = 16 << 10;
        let authority = self.authority();
        let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
        if let Some(authorization) = &proxy.authorization {
            request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::with_capacity(512);
        // The registry says nothing before it is spoken to: whatever comes is the proxy's.
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() > CAP || stream.read_buf(&mut head).await? == 0 {
                return Err(io::Error::other("the proxy's answer makes no sense"));
            }
        }
        let line = String::from_utf8_lossy(&head);
        let line = line.lines().next().unwrap_or_default();
        match line.split(' ').nth(1) {
            Some(status) if status.starts_with('2') => Ok(()),
            _ => Err(io::Error::other(format!("the proxy refuses: {line}"))),
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
        request: Request<Outgoing>,
        operation: &str,
    ) -> Result<Response<Incoming>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let failed = |source| Error::Http { operation: operation.to_owned(), source };
        let mut http = http1::Builder::new();
        http.max_buf_size(BUFFER);
        let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // It ends with the answer, or when the answer is dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a registry's connection ended");
            }
        });
        let sent = request.extensions().get::<Sent>().cloned().unwrap_or_default();
        let mut before = 0;
        let answer = sender.send_request(request);
        tokio::pin!(answer);
        loop {
            if let Ok(outcome) = timeout(SILENCE, &mut answer).await {
                return outcome.map_err(failed);
            }
            let now = sent.0.load(Ordering::Relaxed);
            if now == before {
                return Err(Error::Timeout { operation: operation.to_owned(), seconds: SILENCE.as_secs() });
            }
            before = now;
        }
    }
}
