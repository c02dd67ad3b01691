//! Connections that wait for their next request: a handshake is spared for all but the first.

use std::error::Error as _;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use tokio::time::timeout;

use crate::client::lock;
use crate::connection::{Endpoint, Outgoing, SILENCE, Sent};
use crate::{Error, Result};

/// Connections to one endpoint that are kept.
const MOST: usize = 8;
/// Connections that are kept in all.
const MOST_IN_ALL: usize = 64;
/// How long one waits for its next request. Most servers wait longer.
const IDLE: Duration = Duration::from_secs(30);
/// How often those are looked for that have waited too long.
const SWEEP: Duration = Duration::from_secs(5);

/// Connections that were used, each for the next request to where it leads. Copies share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    connections: Vec<Connection>,
    /// Whether somebody looks after them.
    is_swept: bool,
}

/// A connection whose last answer may still be on its way.
#[derive(Debug)]
struct Connection {
    to: Endpoint,
    sender: SendRequest<Outgoing>,
    /// Since when it is known to wait.
    idle: Option<Instant>,
}

impl Pool {
    /// Sends a request that may be sent twice and waits for the answer's head: over a connection that is there, and if that
    /// has ended meanwhile, or there is none, over a new one, which may take `within` to open.
    pub async fn send(
        &self,
        to: &Endpoint,
        request: impl Fn() -> Result<Request<Outgoing>>,
        operation: &str,
        within: Duration,
    ) -> Result<Response<Incoming>> {
        if let Some(sender) = self.take(to) {
            match self.exchange(to, sender, request()?, operation).await {
                Err(Error::Http { source, .. }) if is_gone(&source) => {
                    tracing::debug!(operation, error = %source, "a connection that waited has ended");
                }
                outcome => return outcome,
            }
        }
        self.send_once(to, request()?, operation, within).await
    }

    /// Sends a request that cannot be sent again over a new connection, and waits for the answer's head.
    pub async fn send_once(
        &self,
        to: &Endpoint,
        request: Request<Outgoing>,
        operation: &str,
        within: Duration,
    ) -> Result<Response<Incoming>> {
        let sender = to.connect(within, operation).await?;
        self.exchange(to, sender, request, operation).await
    }

    /// Ends all connections that wait; those in use end with their answers.
    pub fn clear(&self) {
        self.kept().connections.clear();
    }

    async fn exchange(
        &self,
        to: &Endpoint,
        mut sender: SendRequest<Outgoing>,
        mut request: Request<Outgoing>,
        operation: &str,
    ) -> Result<Response<Incoming>> {
        to.address(&mut request, operation)?;
        let sent = request.extensions().get::<Sent>().cloned().unwrap_or_default();
        let mut before = 0;
        let answer = sender.send_request(request);
        tokio::pin!(answer);
        loop {
            if let Ok(outcome) = timeout(SILENCE, &mut answer).await {
                let answer =
                    outcome.map_err(|source| Error::Http { operation: operation.to_owned(), source })?;
                self.keep(to, sender);
                return Ok(answer);
            }
            let now = sent.0.load(Ordering::Relaxed);
            if now == before {
                return Err(Error::Timeout { operation: operation.to_owned(), seconds: SILENCE.as_secs() });
            }
            before = now;
        }
    }

    /// A connection whose last answer was read to its end, and on which nothing came since.
    fn take(&self, to: &Endpoint) -> Option<SendRequest<Outgoing>> {
        let mut kept = self.kept();
        let connections = &mut kept.connections;
        connections.retain(|connection| !connection.sender.is_closed());
        // The one that was used last is the likeliest to be still open.
        let found = connections.iter().rposition(|found| found.to == *to && found.sender.is_ready())?;
        Some(connections.remove(found).sender)
    }

    /// Keeps a connection, whose answer is still to be read.
    fn keep(&self, to: &Endpoint, sender: SendRequest<Outgoing>) {
        let mut kept = self.kept();
        kept.connections.retain(|connection| !connection.sender.is_closed());
        let others = kept.connections.iter().filter(|connection| connection.to == *to).count();
        if others >= MOST || kept.connections.len() >= MOST_IN_ALL {
            return;
        }
        kept.connections.push(Connection { to: to.clone(), sender, idle: None });
        if !std::mem::replace(&mut kept.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.0)
    }
}

/// Ends connections that have waited too long, until none is left.
async fn sweep(kept: Weak<Mutex<Kept>>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(kept) = kept.upgrade() else { return };
        let mut kept = lock(&kept);
        kept.connections.retain_mut(Connection::is_wanted);
        if kept.connections.is_empty() {
            kept.is_swept = false;
            return;
        }
    }
}

impl Connection {
    /// Whether it is in use, or has not waited for too long.
    fn is_wanted(&mut self) -> bool {
        if !self.sender.is_ready() {
            self.idle = None;
            return !self.sender.is_closed();
        }
        self.idle.get_or_insert_with(Instant::now).elapsed() < IDLE
    }
}

/// Whether a connection ended before there was an answer, as one does that the server has closed meanwhile.
fn is_gone(error: &hyper::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut, UnexpectedEof,
    };
    let lost = [BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut, UnexpectedEof];
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let is_lost = source.is_some_and(|source| lost.contains(&source.kind()));
    is_lost || error.is_canceled() || error.is_closed() || error.is_incomplete_message()
}
