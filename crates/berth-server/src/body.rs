//! Bodies of answers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Frame, SizeHint};

/// A body: all there is, or what comes.
///
/// A stream is dropped when the client goes away, and ends whatever it waits for.
pub enum Body {
    /// Known in full; empty once sent.
    Full(Bytes),
    /// Comes in pieces, each sent at once.
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
    /// Comes in pieces, and may fail on the way: then the connection is cut, so that the client sees that it is not all.
    Fallible(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>),
}

impl Body {
    /// No body.
    pub const fn empty() -> Self {
        Self::Full(Bytes::new())
    }

    /// A body in pieces.
    pub fn stream(stream: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self::Stream(Box::pin(stream))
    }

    /// A body in pieces that may end too early.
    pub fn fallible(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self::Fallible(Box::pin(stream))
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self::Full(bytes.into())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(stream) => {
                stream.as_mut().poll_next(context).map(|item| item.map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Fallible(stream) => {
                stream.as_mut().poll_next(context).map(|item| item.map(|bytes| bytes.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) | Self::Fallible(_) => SizeHint::default(),
        }
    }
}
