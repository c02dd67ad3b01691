//! Bodies of requests that are read as they go.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use crate::client::lock;
use crate::connection::{Outgoing, Sent};

/// What is known of a body while it goes. Copies share it.
#[derive(Debug, Clone)]
pub(crate) struct Going {
    /// Bytes that were sent.
    pub sent: Sent,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
enum State {
    /// Read and sent.
    Wanted,
    /// Nobody wants the rest.
    Unwanted,
    /// It could not be read.
    Unread(io::Error),
}

impl Going {
    /// A body of these parts.
    pub fn new(parts: BoxStream<'static, io::Result<Bytes>>) -> (Self, Outgoing) {
        let going = Self { sent: Sent::default(), state: Arc::new(Mutex::new(State::Wanted)) };
        let shared = going.clone();
        let frames = parts.map(move |part| shared.next(part));
        (going, StreamBody::new(frames).boxed_unsync())
    }

    fn next(&self, part: io::Result<Bytes>) -> io::Result<Frame<Bytes>> {
        let mut state = lock(&self.state);
        match part {
            // An error ends the connection, and with it the sending.
            _ if !matches!(*state, State::Wanted) => Err(io::ErrorKind::BrokenPipe.into()),
            Ok(bytes) => {
                self.sent.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Ok(Frame::data(bytes))
            }
            Err(error) => {
                let kind = error.kind();
                *state = State::Unread(error);
                Err(kind.into())
            }
        }
    }

    /// Why the body could not be read, if so: that is told as such, and not as a broken connection.
    pub fn failure(&self) -> Option<io::Error> {
        match std::mem::replace(&mut *lock(&self.state), State::Wanted) {
            State::Unread(error) => Some(error),
            State::Wanted | State::Unwanted => None,
        }
    }

    /// Sends no more of it: the answer came first, and says that this was the wrong place or time.
    pub fn stop(&self) {
        *lock(&self.state) = State::Unwanted;
    }
}
