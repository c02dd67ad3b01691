//! Where requests go, and how connections to there are opened.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{HeaderValue, PROXY_AUTHORIZATION};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::proxy::Proxy;
use crate::{Error, Result};

/// Time to open a connection.
pub(crate) const CONNECT: Duration = Duration::from_secs(30);
/// Time between two signs of life.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);

/// Bytes that are read at once, and of a head at most. Larger ones are slower: what has more than 26 KB, musl's allocator
/// gives back to the kernel each time, and has to fault in again.
const BUFFER: usize = 24 << 10;
/// How long bytes may wait for the other end to say that they came (`TCP_USER_TIMEOUT` of tcp(7)).
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// The body of a request.
pub(crate) type Outgoing = UnsyncBoxBody<Bytes, io::Error>;

/// Extension of a request with a long body: bytes of it that were sent. While they grow, the answer is waited for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent(pub Arc<AtomicU64>);

/// A connection, whatever it goes through.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Where to connect to. Two are the same if what may be sent to the one may be sent to the other: the same host by the same
/// way, with the same TLS settings, and so with the same trust and the same certificate of the client.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub host: String,
    pub port: u16,
    /// None: plain HTTP.
    pub tls: Option<Arc<ClientConfig>>,
    /// What is in between.
    pub via: Option<Via>,
}

/// A proxy in between.
#[derive(Debug, Clone)]
pub(crate) struct Via {
    pub proxy: Proxy,
    /// None: plain HTTP.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Endpoint {
    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Opens a connection, for which there is so much time.
    pub async fn connect(&self, within: Duration, operation: &str) -> Result<SendRequest<Outgoing>> {
        let mut stream = self.open(within).await?;
        if let Some(settings) = &self.tls {
            if let Some(Via { proxy, .. }) = &self.via {
                let failed = |source| Error::Connect { authority: self.authority(), source };
                let agreed = timeout(CONNECT, self.tunnel(&mut stream, proxy)).await;
                agreed.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
            }
            stream = Box::new(secure(stream, &self.host, || self.authority(), settings).await?);
        }
        let failed = |source| Error::Http { operation: operation.to_owned(), source };
        let mut http = Builder::new();
        http.max_buf_size(BUFFER);
        let (sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // It ends when an answer is not read to its end, or when nobody can send any more.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a registry's connection ended");
            }
        });
        Ok(sender)
    }

    /// Addresses a request as whoever is at the other end of the connection wants it.
    pub fn address(&self, request: &mut Request<Outgoing>, operation: &str) -> Result<()> {
        match (&self.tls, &self.via) {
            (None, Some(via)) => {
                self.address_to_proxy(request, &via.proxy).map_err(|error| Error::malformed(operation, error))
            }
            _ => Ok(()),
        }
    }

    /// A connection to the host, or to what is in between.
    async fn open(&self, within: Duration) -> Result<Box<dyn Wire>> {
        let (host, port) = match &self.via {
            Some(Via { proxy, .. }) => (proxy.host.as_str(), proxy.port),
            None => (self.host.as_str(), self.port),
        };
        let failed = |source| Error::Connect {
            authority: match &self.via {
                Some(Via { proxy, .. }) => format!("{} by the proxy {}", self.authority(), proxy.authority()),
                None => self.authority(),
            },
            source,
        };
        let connected = timeout(within, TcpStream::connect((host, port))).await;
        let stream = connected.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
        // The first request is small, and its answer awaited.
        stream.set_nodelay(true).map_err(failed)?;
        // A connection that was kept may lead nowhere by now, and nobody says so.
        let patience = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(&stream, patience)
            .map_err(|error| failed(error.into()))?;
        match &self.via {
            Some(Via { proxy, tls: Some(settings) }) => {
                Ok(Box::new(secure(stream, host, || proxy.authority(), settings).await?))
            }
            _ => Ok(Box::new(stream)),
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
    async fn tunnel(&self, stream: &mut (impl Wire + ?Sized), proxy: &Proxy) -> io::Result<()> {
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
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        let Self { host, port, tls, via } = self;
        *host == other.host
            && *port == other.port
            && is_same(tls.as_ref(), other.tls.as_ref())
            && *via == other.via
    }
}

impl PartialEq for Via {
    fn eq(&self, other: &Self) -> bool {
        let Self { proxy, tls } = self;
        *proxy == other.proxy && is_same(tls.as_ref(), other.tls.as_ref())
    }
}

/// Whether two settings are one and the same.
fn is_same(one: Option<&Arc<ClientConfig>>, other: Option<&Arc<ClientConfig>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// Speaks TLS over a connection to `host`, which people know as `authority`.
async fn secure<S: Wire>(
    stream: S,
    host: &str,
    authority: impl Fn() -> String,
    settings: &Arc<ClientConfig>,
) -> Result<TlsStream<S>> {
    let failed = |source| Error::Tls { authority: authority(), source };
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(io::Error::other(error)))?;
    let handshake = TlsConnector::from(Arc::clone(settings)).connect(name, stream);
    match timeout(CONNECT, handshake).await {
        Ok(outcome) => outcome.map_err(failed),
        Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}
