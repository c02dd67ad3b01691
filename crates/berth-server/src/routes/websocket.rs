//! Attaching by websocket: what browsers can speak. The daemon copies between the frames and one end of a socket pair,
//! whose other end goes to the engine.

use std::os::fd::OwnedFd;

use berth_api::version::ApiVersion;
use berth_engine::op;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Outcome;
use crate::answer;
use crate::body::Body;
use crate::call::{Call, Query};
use crate::failure::Failure;

/// Size of one read of a container's output, and so of the frames that are sent.
const CHUNK: usize = 16 << 10;
/// Largest message that a client may send.
const LARGEST_MESSAGE: usize = 16 << 20;

/// Whether frames hold text instead of bytes, as they did before API 1.28.
fn is_text(version: ApiVersion) -> bool {
    version < ApiVersion::new(1, 28)
}

fn parameters(query: &Query, version: ApiVersion) -> op::Attach {
    // Before API 1.42 the streams could not be chosen.
    let chosen = |name: &str| version < ApiVersion::new(1, 42) || query.flag(name);
    op::Attach {
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        stdin: chosen("stdin"),
        stdout: chosen("stdout"),
        stderr: chosen("stderr"),
        detach_keys: query.given("detachKeys").map(str::to_owned),
        // Frames of a websocket are not framed again.
        raw: true,
    }
}

pub async fn attach(call: Call, name: &str) -> Outcome {
    let operation = parameters(&call.query, call.version);
    let pending = call.engine.attach(name, operation).await?;
    let response = switch(call.headers())?;
    let internal = |what: &str, error: std::io::Error| {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot {what}: {error}"))
    };
    let (ours, theirs) = UnixStream::pair().map_err(|error| internal("make a pair of sockets", error))?;
    let theirs = theirs.into_std().map_err(|error| internal("hand a socket on", error))?;
    let text = is_text(call.version);
    let name = name.to_owned();
    tokio::spawn(async move {
        let upgraded = match hyper::upgrade::on(call.request).await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                return tracing::debug!(%error, "a client went away before its stream began");
            }
        };
        let config = WebSocketConfig::default()
            .max_message_size(Some(LARGEST_MESSAGE))
            .max_frame_size(Some(LARGEST_MESSAGE));
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let copied = copy(socket, ours, text);
        let (connected, ended) = tokio::join!(pending.connect(OwnedFd::from(theirs), Vec::new()), copied);
        if let Err(error) = connected {
            tracing::warn!(container = name, %error, "a client could not be attached");
        }
        if let Err(error) = ended {
            tracing::debug!(container = name, %error, "a websocket ended early");
        }
    });
    Ok(response)
}

/// The answer that changes the connection into a websocket (RFC 6455, section 4.2.2), if that is what is asked for.
fn switch(headers: &HeaderMap) -> Result<Response<Body>, Failure> {
    let has = |name: http::HeaderName, wanted: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case(wanted)))
    };
    if !has(CONNECTION, "upgrade") || !has(UPGRADE, "websocket") {
        return Err(Failure::invalid("not websocket protocol"));
    }
    if !has(SEC_WEBSOCKET_VERSION, "13") {
        return Err(Failure::invalid("missing or bad WebSocket Version"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| Failure::invalid("mismatch challenge/response"))?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| Failure::invalid("mismatch challenge/response"))?;
    let mut response = answer::with(StatusCode::SWITCHING_PROTOCOLS, None, Body::empty());
    let answered = response.headers_mut();
    answered.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answered.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answered.insert(SEC_WEBSOCKET_ACCEPT, accept);
    // Nothing here has protocols; a client that names just one is told that it is spoken, as by Docker.
    if let Some(protocol) = headers.get(SEC_WEBSOCKET_PROTOCOL)
        && !protocol.as_bytes().contains(&b',')
    {
        answered.insert(SEC_WEBSOCKET_PROTOCOL, protocol.clone());
    }
    Ok(response)
}

/// Copies both ways until the client closes the websocket or the container's streams end.
async fn copy<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    container: UnixStream,
    text: bool,
) -> Result<(), Error> {
    let (mut frames, mut messages) = socket.split();
    let (output, input) = container.into_split();
    let closed = tokio::select! {
        // The client's end comes first: it takes the container's input with it.
        closed = take_input(&mut messages, input) => closed,
        sent = send_output(&mut frames, output, text) => sent,
    };
    // Says goodbye, and answers the client's, if it can still hear that.
    closed.and(match frames.close().await {
        Err(Error::ConnectionClosed | Error::AlreadyClosed) => Ok(()),
        other => other,
    })
}

async fn take_input<S: AsyncRead + AsyncWrite + Unpin>(
    messages: &mut SplitStream<WebSocketStream<S>>,
    mut input: OwnedWriteHalf,
) -> Result<(), Error> {
    // Without input of its own, the container takes what is sent to it and forgets it.
    let mut taken = true;
    while let Some(message) = messages.next().await {
        let bytes: Bytes = match message? {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return Ok(()),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        taken = taken && input.write_all(&bytes).await.is_ok();
    }
    Ok(())
}

async fn send_output<S: AsyncRead + AsyncWrite + Unpin>(
    frames: &mut SplitSink<WebSocketStream<S>, Message>,
    mut output: OwnedReadHalf,
    text: bool,
) -> Result<(), Error> {
    let mut chunk = BytesMut::new();
    loop {
        chunk.reserve(CHUNK);
        let length = output.read_buf(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        let message = if text {
            Message::text(characters(&mut chunk))
        } else {
            Message::binary(chunk.split().freeze())
        };
        if !message.is_empty() {
            frames.send(message).await?;
        }
    }
}

/// Takes all whole characters; what is no UTF-8 becomes the character that stands for that. The beginning of one more
/// stays for what follows.
fn characters(bytes: &mut BytesMut) -> String {
    let mut text = String::with_capacity(bytes.len());
    loop {
        match std::str::from_utf8(bytes) {
            Ok(rest) => {
                text.push_str(rest);
                bytes.clear();
                return text;
            }
            Err(error) => {
                let whole = bytes.split_to(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(&whole));
                // Without a length the end is cut off: more may come.
                let Some(wrong) = error.error_len() else { return text };
                let _ = bytes.split_to(wrong);
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn the_handshake_is_that_of_the_rfc() {
        let asked = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let response = switch(&headers(&asked)).unwrap_or_else(|failure| panic!("{}", failure.message));
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for missing in 0..asked.len() {
            let mut less = asked.to_vec();
            less.remove(missing);
            assert_eq!(switch(&headers(&less)).err().unwrap().status, StatusCode::BAD_REQUEST, "{less:?}");
        }
    }

    #[test]
    fn streams_are_chosen_since_a_version() {
        let query = Query::parse("stream=1&stdout=1");
        let new = parameters(&query, ApiVersion::NEWEST);
        assert_eq!(
            (new.stdin, new.stdout, new.stderr, new.stream, new.logs),
            (false, true, false, true, false)
        );
        let old = parameters(&query, ApiVersion::new(1, 41));
        assert!(old.stdin && old.stdout && old.stderr);
        assert!(is_text(ApiVersion::new(1, 27)) && !is_text(ApiVersion::new(1, 28)));
    }

    #[test]
    fn characters_are_not_cut() {
        let mut bytes = BytesMut::from("aé".as_bytes());
        bytes.truncate(2);
        assert_eq!(characters(&mut bytes), "a");
        bytes.extend_from_slice(&[0xa9, b'b', 0xff, b'c']);
        assert_eq!(characters(&mut bytes), "éb\u{fffd}c");
        assert!(bytes.is_empty());
        assert_eq!(characters(&mut bytes), "");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_holds_its_own_output_back_alone() {
        let (client, server) = tokio::io::duplex(1 << 10);
        let (mut container, theirs) = UnixStream::pair().unwrap();
        let socket = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
        let copied = tokio::spawn(copy(socket, theirs, false));
        let flood = async { while container.write_all(&[7; 4096]).await.is_ok() {} };
        let patience = std::time::Duration::from_millis(300);
        assert!(tokio::time::timeout(patience, flood).await.is_err(), "it is not gathered here");
        drop(client);
        copied.await.unwrap().unwrap_err();
        // The container's end learns of it.
        while container.write_all(&[7; 4096]).await.is_ok() {}
    }
}
