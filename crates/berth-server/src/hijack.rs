//! Connections given away to a container's streams.
//!
//! A client that asks for an upgrade gets 101, and its connection goes to the engine whole, with what was read from
//! it beyond the request: no byte of a stream passes the daemon. One that does not ask (old clients, plain HTTP
//! tools) gets 200 and the stream as the answer's body; the daemon copies between that and one end of a socket
//! pair, whose other end goes to the engine.

use std::os::fd::OwnedFd;

use berth_api::stream::{MULTIPLEXED_STREAM, RAW_STREAM};
use berth_api::version::ApiVersion;
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::answer;
use crate::body::Body;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::incoming::RequestBody;

/// Size of one read from a stream that passes the daemon.
const CHUNK: usize = 16 << 10;

/// The content type of a stream of a container, by its terminal and the client's version.
pub fn content_type(tty: bool, version: ApiVersion) -> &'static str {
    if tty || version < ApiVersion::new(1, 42) { RAW_STREAM } else { MULTIPLEXED_STREAM }
}

/// Answers `request` with a stream. Once the answer's head is sent, `connect` gets the connection, and what was read
/// from it already.
pub fn hijack<F, R>(
    request: http::Request<RequestBody>,
    content_type: &'static str,
    connect: F,
) -> Result<Response<Body>, Failure>
where
    F: FnOnce(OwnedFd, Vec<u8>) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    if !wants_upgrade(&request) {
        return proxy(request, content_type, connect);
    }
    tokio::spawn(async move {
        match take(request).await {
            Ok((descriptor, read)) => connect(descriptor, read).await,
            Err(error) => tracing::debug!(%error, "a client went away before its stream began"),
        }
    });
    let mut response = answer::with(
        StatusCode::SWITCHING_PROTOCOLS,
        Some(HeaderValue::from_static(content_type)),
        Body::empty(),
    );
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("tcp"));
    Ok(response)
}

/// As in Docker, `Upgrade` alone says it; not all clients send `Connection: Upgrade` with it.
fn wants_upgrade(request: &http::Request<RequestBody>) -> bool {
    request.headers().contains_key(UPGRADE)
}

/// Waits until the head of the answer is sent, and takes the connection out of HTTP.
async fn take(
    request: http::Request<RequestBody>,
) -> Result<(OwnedFd, Vec<u8>), Box<dyn std::error::Error + Send + Sync>> {
    let upgraded = hyper::upgrade::on(request).await?;
    let parts = upgraded
        .downcast::<TokioIo<Connection>>()
        .map_err(|_| "the connection is not of the kind that was accepted")?;
    Ok((parts.io.into_inner().into_descriptor()?, parts.read_buf.into()))
}

/// Answers with the stream as a body.
fn proxy<F, R>(
    request: http::Request<RequestBody>,
    content_type: &'static str,
    connect: F,
) -> Result<Response<Body>, Failure>
where
    F: FnOnce(OwnedFd, Vec<u8>) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let pair = || -> std::io::Result<(UnixStream, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((ours, theirs.into_std()?.into()))
    };
    let (ours, theirs) = pair().map_err(|error| {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot make a pair of sockets: {error}"))
    })?;
    let (output, mut input) = ours.into_split();
    let mut body = request.into_body();
    tokio::spawn(async move {
        connect(theirs, Vec::new()).await;
    });
    tokio::spawn(async move {
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data()
                && input.write_all(&data).await.is_err()
            {
                return;
            }
        }
        // Dropping this half shuts it down: the end of the request's body is the end of the input.
    });
    let stream = futures_util::stream::unfold(output, |mut output| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        match output.read_buf(&mut chunk).await {
            Ok(length) if length > 0 => Some((Bytes::from(chunk), output)),
            _ => None,
        }
    });
    let mut response = answer::stream(content_type, Body::stream(stream));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_follow_terminal_and_version() {
        assert_eq!(content_type(true, ApiVersion::NEWEST), RAW_STREAM);
        assert_eq!(content_type(false, ApiVersion::NEWEST), MULTIPLEXED_STREAM);
        assert_eq!(content_type(false, ApiVersion::new(1, 41)), RAW_STREAM);
        assert_eq!(content_type(false, ApiVersion::new(1, 42)), MULTIPLEXED_STREAM);
    }
    /// Serves one connection whose requests are all hijacked by an echo that first says what had been read.
    async fn serve_echo(connection: UnixStream) {
        let service = hyper::service::service_fn(|request| async move {
            let (request, _leftover) = RequestBody::wrap(request);
            let connect = |descriptor: OwnedFd, read: Vec<u8>| async move {
                let mut stream =
                    UnixStream::from_std(std::os::unix::net::UnixStream::from(descriptor)).unwrap();
                stream.write_all(&read).await.unwrap();
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.unwrap();
                stream.write_all(&rest).await.unwrap();
            };
            let response = hijack(request, RAW_STREAM, connect).unwrap_or_else(Failure::into_response);
            Ok::<_, std::convert::Infallible>(response)
        });
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(Connection::Unix(connection)), service)
            .with_upgrades()
            .await
            .unwrap();
    }

    /// Sends `request`, ends the input, and returns everything that comes back.
    async fn talk(request: &str) -> String {
        let (mut client, server) = UnixStream::pair().unwrap();
        let served = tokio::spawn(serve_echo(server));
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        served.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn an_upgraded_connection_is_given_away_with_what_was_read() {
        let answer = talk(
            "POST /attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\nearly",
        )
        .await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let head = head.to_ascii_lowercase();
        for line in ["connection: upgrade", "upgrade: tcp", "content-type: application/vnd.docker.raw-stream"]
        {
            assert!(head.contains(line), "{head}");
        }
        assert_eq!(body, "early");
    }

    #[tokio::test]
    async fn without_an_upgrade_the_stream_is_the_body() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let served = tokio::spawn(serve_echo(server));
        let request = "POST /attach HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        served.await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(body.contains("hello"), "{body}");
    }
}
