//! Bodies of requests, of which nothing is lost that a client still sends.
//!
//! A client that cannot write its request whole may never look at the answer: Go's reports a broken pipe. So whatever a
//! route leaves unread is read before its answer goes out, up to what Go's servers read.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Most that is read of a body that nobody wants, in bytes.
const DRAINED: usize = 256 << 10;
/// Longest that is waited for it.
const PATIENCE: Duration = Duration::from_secs(5);

type Slot = Arc<Mutex<Option<Incoming>>>;

/// The body of a request.
#[derive(Debug)]
pub struct RequestBody {
    /// What was read ahead.
    known: Option<Bytes>,
    /// What is on its way; none once all of it is known.
    rest: Option<Incoming>,
    /// Where `rest` goes when nobody wants it any more.
    left: Slot,
    /// The client sends nothing before it is told to go on.
    waits: bool,
    /// Nobody may read a document from it.
    withheld: bool,
}

/// What is left of a request's body once its route is done with it.
#[derive(Debug)]
pub struct Leftover(Slot);

/// Why a body could not be read whole.
#[derive(Debug)]
pub enum ReadError {
    /// It is larger than allowed.
    TooLarge,
    /// It ended early or is malformed; the text says how.
    Broken(String),
}

impl RequestBody {
    /// Wraps a request's body. The second value is to be drained before the answer is sent.
    pub fn wrap(request: http::Request<Incoming>) -> (http::Request<RequestBody>, Leftover) {
        let slot = Slot::default();
        let left = Arc::clone(&slot);
        let waits = request
            .headers()
            .get(EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        (
            request.map(|rest| RequestBody { known: None, rest: Some(rest), left, waits, withheld: false }),
            Leftover(slot),
        )
    }

    /// Says that it was not shown to those who had to see it: from now on nobody may read a document from it.
    pub fn withhold(&mut self) {
        self.withheld = true;
    }

    /// Whether it was not shown to those who had to see it.
    pub fn is_withheld(&self) -> bool {
        self.withheld
    }

    /// Reads all of it, which may be `cap` bytes at most, and keeps it for whoever reads it next.
    pub async fn read_ahead(&mut self, cap: usize) -> Result<Bytes, ReadError> {
        match Limited::new(&mut *self, cap).collect().await {
            Ok(collected) => {
                let bytes = collected.to_bytes();
                self.known = Some(bytes.clone());
                Ok(bytes)
            }
            Err(error) if error.is::<LengthLimitError>() => Err(ReadError::TooLarge),
            Err(error) => Err(ReadError::Broken(error.to_string())),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(bytes) = self.known.take().filter(|bytes| !bytes.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        // Reading is what tells the client to go on.
        self.waits = false;
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.known.as_ref().is_none_or(Bytes::is_empty) && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.known, &self.rest) {
            (None, Some(rest)) => rest.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // One that waits to be told to go on sends nothing, and sees the refusal.
        if let Some(rest) = self.rest.take().filter(|rest| !self.waits && !rest.is_end_stream()) {
            *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
        }
    }
}

impl Leftover {
    /// Reads what is left and forgets it. Does nothing while somebody still reads the body.
    pub async fn drain(self) {
        let left = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(rest) = left {
            // Larger, broken or slow: then the client has to do without.
            let _ = tokio::time::timeout(PATIENCE, Limited::new(rest, DRAINED).collect()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Response, StatusCode};
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::*;

    /// Sends `request` to a route that reads as much of the body ahead as `cap` says, and gives what comes back.
    async fn exchange(request: Vec<u8>, cap: usize, breaks_off: bool) -> String {
        let (mut client, server) = UnixStream::pair().unwrap();
        let service = service_fn(move |request: http::Request<Incoming>| async move {
            let (mut request, leftover) = RequestBody::wrap(request);
            let text = if cap == 0 {
                "nothing".to_owned()
            } else {
                match request.body_mut().read_ahead(cap).await {
                    Ok(bytes) => {
                        // It is there again for the next reader.
                        let again = request.body_mut().collect().await.unwrap().to_bytes();
                        assert_eq!(again, bytes);
                        format!("{} bytes", bytes.len())
                    }
                    Err(error) => format!("{error:?}"),
                }
            };
            drop(request);
            leftover.drain().await;
            let mut response = Response::new(http_body_util::Full::new(Bytes::from(text)));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            Ok::<_, Infallible>(response)
        });
        let served = tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service),
        );
        client.write_all(&request).await.unwrap();
        if breaks_off {
            client.shutdown().await.unwrap();
        }
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        // A body that breaks off ends the connection with an error.
        let _ = served.await.unwrap();
        answer
    }

    fn post(length: usize, header: &str) -> Vec<u8> {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{header}\r\n"
        );
        [head.as_bytes(), &vec![b'x'; length]].concat()
    }

    #[tokio::test]
    async fn what_nobody_reads_is_read_before_the_answer() {
        for length in [0, 1, 200 << 10, DRAINED] {
            let answer = exchange(post(length, ""), 0, false).await;
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("nothing"), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_client_that_waits_is_not_told_to_go_on() {
        let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
        let answer = exchange(head.into(), 0, false).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        let answer = exchange([head.as_bytes(), b"123456789"].concat(), 9, false).await;
        assert!(answer.starts_with("HTTP/1.1 100 ") && answer.ends_with("9 bytes"), "{answer}");
    }

    #[tokio::test]
    async fn what_is_read_ahead_is_whole_or_refused() {
        assert!(exchange(post(5000, ""), 5000, false).await.ends_with("5000 bytes"));
        assert!(exchange(post(5001, ""), 5000, false).await.ends_with("TooLarge"));
        let chunked = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
        let whole = exchange([chunked, "2\r\nde\r\n0\r\n\r\n"].concat().into(), 100, false).await;
        assert!(whole.ends_with("5 bytes"), "{whole}");
        // Nobody is left to hear of it: what counts is that it is not taken for the whole.
        let mut short = post(100, "");
        short.truncate(short.len() - 1);
        for broken in [chunked.as_bytes().to_vec(), short] {
            let answer = exchange(broken, 100, true).await;
            assert!(answer.is_empty() || answer.contains("Broken("), "{answer}");
        }
    }
}
