//! Connections: accepted, served, and given away.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

use crate::certificate::Peer;
use crate::listen::Listener;
use crate::routes::{self, Serving};

/// Upper bound of a request's head.
const HEAD: usize = 64 << 10;
/// Upper bound of what is read at once. hyper allocates as much for the next part as the last ones filled, while those
/// are on their way: larger buffers go back to the kernel each time, and are faulted in again page by page.
const READ: usize = (16 << 10) - 1;
/// How long a client has to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Accepts and serves connections until `stop` changes. Requests under way are finished by `tasks`.
///
/// With `tls`, those over TCP are encrypted.
pub async fn serve(
    listener: Listener,
    tls: Option<TlsAcceptor>,
    serving: Arc<Serving>,
    mut stop: watch::Receiver<bool>,
    tasks: TaskTracker,
) {
    // Held to the end: its drop removes the socket's file.
    let (acceptor, _file) = match Acceptor::new(listener) {
        Ok(parts) => parts,
        Err(error) => {
            tracing::error!(%error, "cannot accept connections");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = acceptor.accept() => accepted,
            _ = stop.changed() => return,
        };
        match accepted {
            Ok(connection) => {
                let (tls, serving, stop) = (tls.clone(), Arc::clone(&serving), stop.clone());
                tasks.spawn(async move {
                    match secure(connection, tls).await {
                        Ok(connection) => converse(connection, serving, stop).await,
                        Err(error) => tracing::info!(%error, "TLS handshake error"),
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: others will be closed.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Agrees on TLS, if there is to be any on this connection.
async fn secure(connection: Connection, tls: Option<TlsAcceptor>) -> io::Result<Connection> {
    match (connection, tls) {
        (Connection::Tcp(stream), Some(tls)) => {
            let agreed = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await;
            Ok(Connection::Tls(Box::new(agreed.map_err(|_| io::ErrorKind::TimedOut)??)))
        }
        (connection, _) => Ok(connection),
    }
}

/// Serves one connection until either side is done with it, or it is given away.
async fn converse(connection: Connection, serving: Arc<Serving>, mut stop: watch::Receiver<bool>) {
    let peer = connection.peer().map(Arc::new);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (serving, peer) = (Arc::clone(&serving), peer.clone());
        // Boxed, so that an idle connection holds no room for the largest route.
        Box::pin(async move { Ok::<_, Infallible>(routes::answer(&serving, peer.as_deref(), request).await) })
    });
    let served = hyper::server::conn::http1::Builder::new()
        .max_buf_size(HEAD)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(connection), service)
        .with_upgrades();
    tokio::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        _ = stop.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}

enum Acceptor {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Acceptor {
    fn new(listener: Listener) -> io::Result<(Self, Option<crate::listen::SocketFile>)> {
        Ok(match listener {
            Listener::Unix(listener, file) => (Self::Unix(UnixListener::from_std(listener)?), file),
            Listener::Tcp(listener) => (Self::Tcp(TcpListener::from_std(listener)?), None),
        })
    }

    async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Unix(listener) => Ok(Connection::Unix(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let stream = listener.accept().await?.0;
                stream.set_nodelay(true)?;
                Ok(Connection::Tcp(stream))
            }
        }
    }
}

/// A connection of either kind.
pub enum Connection {
    /// On a unix socket.
    Unix(UnixStream),
    /// On a TCP socket.
    Tcp(TcpStream),
    /// On a TCP socket, encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Who the client is, if it showed a certificate that was verified.
    fn peer(&self) -> Option<Peer> {
        match self {
            Self::Tls(stream) => Peer::of(stream.get_ref().1.peer_certificates()?),
            Self::Unix(_) | Self::Tcp(_) => None,
        }
    }

    fn read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }

    /// The descriptor, taken out of the event loop. It stays non-blocking. An encrypted connection has none that
    /// others could use: what is given is one end of a pair, and this process copies between the other end and the
    /// connection.
    pub fn into_descriptor(self) -> io::Result<OwnedFd> {
        Ok(match self {
            Self::Unix(stream) => stream.into_std()?.into(),
            Self::Tcp(stream) => stream.into_std()?.into(),
            Self::Tls(mut stream) => {
                let (mut ours, theirs) = UnixStream::pair()?;
                tokio::spawn(async move {
                    if let Err(error) = tokio::io::copy_bidirectional(&mut stream, &mut ours).await {
                        tracing::debug!(%error, "an encrypted stream ended early");
                    }
                });
                theirs.into_std()?.into()
            }
        })
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() <= READ {
            return self.get_mut().read(context, buffer);
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(READ));
        ready!(self.get_mut().read(context, &mut part))?;
        let length = part.filled().len();
        buffer.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
