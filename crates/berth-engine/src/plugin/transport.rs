//! One request to a plugin.

use std::path::Path;
use std::sync::Arc;

use berth_tls::{Identity, ServerName, Trust};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::discovery::{Address, Tls};

/// What plugins speak.
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.docker.plugins.v1.2+json");
/// The host's name in requests that go to a unix socket.
const NOBODY: &str = "plugin.moby.localhost";
/// Largest answer of a plugin, in bytes.
const LARGEST: usize = 4 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum Failed {
    /// Nobody listens there: nothing was sent.
    Unreachable(String),
    /// The conversation broke off.
    Broken(String),
}

fn unreachable(error: impl ToString) -> Failed {
    Failed::Unreachable(error.to_string())
}

fn broken(error: impl ToString) -> Failed {
    Failed::Broken(error.to_string())
}

impl Address {
    /// Posts `body` to `/method` on a new connection.
    pub async fn post(&self, method: &str, body: Bytes) -> Result<(StatusCode, Bytes), Failed> {
        match self {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| {
                    unreachable(format!("dial unix {}: connect: {error}", path.display()))
                })?;
                exchange(stream, NOBODY, method, body).await
            }
            Address::Tcp(address) => {
                let stream = connect(address).await?;
                exchange(stream, address, method, body).await
            }
            Address::Tls(address, tls) => {
                let settings = tls.settings().map_err(broken)?;
                let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(broken)?;
                let stream = connect(address).await?;
                let stream = TlsConnector::from(Arc::new(settings)).connect(name, stream).await;
                exchange(stream.map_err(broken)?, address, method, body).await
            }
        }
    }
}

async fn connect(address: &str) -> Result<TcpStream, Failed> {
    let stream = TcpStream::connect(address).await;
    stream.map_err(|error| unreachable(format!("dial tcp {address}: connect: {error}")))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    method: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Failed> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request = Request::post(format!("/{method}"))
        .header(HOST, host)
        .header(ACCEPT, MEDIA_TYPE)
        .header(CONTENT_TYPE, MEDIA_TYPE)
        // Also where it is zero.
        .header(CONTENT_LENGTH, body.len())
        .body(Full::new(body))
        .map_err(broken)?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        match Limited::new(response.into_body(), LARGEST).collect().await {
            Ok(body) => Ok((status, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(broken(format!("the answer is larger than {LARGEST} bytes")))
            }
            Err(error) => Err(broken(error)),
        }
    };
    tokio::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        // The connection's end may come before the end of a body that was read from it.
        _ = connection => answered.await,
    }
}

impl Tls {
    fn settings(&self) -> std::io::Result<ClientConfig> {
        let trust = if self.insecure_skip_verify || self.authority.is_empty() {
            Trust::Anyone
        } else {
            Trust::Authorities(berth_tls::authorities(Path::new(&self.authority))?)
        };
        let identity = (!self.certificate.is_empty())
            .then(|| Identity::read(Path::new(&self.certificate), Path::new(&self.key)));
        berth_tls::client(trust, identity.transpose()?)
    }
}
