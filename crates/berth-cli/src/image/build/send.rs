//! What a build sends, and how much of it is told.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_api::auth::AuthConfig;
use berth_archive::compress;
use berth_client::{Client, Query, ResponseBody};
use berth_session::Progress;

use super::context::{Directory, Source};
use super::offer::{self, CONTEXT, Offered};
use super::output::Style;
use crate::credentials;
use crate::failure::{Failure, Outcome, causes};
use crate::format::human::long_size;
use crate::image::progress::To;
use crate::pieces::{self, Pieces};

const TAR: &str = "application/x-tar";
/// The header with all accounts that the user has, for whatever images the build needs.
const ACCOUNTS: &str = "x-registry-config";
/// Between two counts on a terminal.
const TICK: Duration = Duration::from_millis(100);

/// How a context is sent.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Compressed by gzip.
    pub compress: bool,
    /// What is shown of it.
    pub style: Style,
    /// And where.
    pub to: To,
}

/// A build that goes on.
pub struct Begun {
    /// What the daemon tells of it.
    pub answer: ResponseBody,
    /// The bytes that were sent, if there was something to send.
    pub sent: Option<Arc<AtomicI64>>,
}

/// Tells of a quiet build that failed how much was sent for it.
pub fn tell_failed(sent: &AtomicI64) {
    let _ = write!(io::stderr(), "{}\r\r\n", told(sent));
}

fn told(sent: &AtomicI64) -> String {
    format!("Sending build context to Docker daemon {:>8}", long_size(sent.load(Ordering::Relaxed)))
}

/// Asks for a build, and sends it what it needs; the answer tells of its course.
///
/// # Errors
/// The daemon refuses; the context cannot be read.
pub async fn send(
    client: &Client,
    request: &str,
    source: Source,
    accounts: &BTreeMap<String, AuthConfig>,
    manner: Manner,
) -> Outcome<Begun> {
    let accounts = credentials::encoded(accounts)?;
    if matches!(source, Source::Remote { .. }) {
        let answer = client.post_for_stream_with(request, ACCOUNTS, &accounts).await?;
        return Ok(Begun { answer, sent: None });
    }
    let moved = Arc::new(AtomicI64::new(0));
    let (out, body) = pieces::channel(Arc::clone(&moved));
    let shown = Shown { moved: Arc::clone(&moved), manner, last: None };
    let out = Counted { out, shown };
    // A thread that reads standard input may never end: it is not waited for.
    let (told, outcome) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = told.send(write(source, out, manner.compress));
    });
    match client.post_stream_with(request, TAR, (ACCOUNTS, &accounts), body).await {
        Ok(answer) => Ok(Begun { answer, sent: Some(moved) }),
        // What the daemon says counts.
        Err(error @ berth_client::Error::Server { .. }) => {
            if manner.style == Style::Quiet {
                tell_failed(&moved);
            }
            Err(error.into())
        }
        Err(error) => match outcome.await {
            Ok(Err(failure)) => Err(failure),
            _ => Err(error.into()),
        },
    }
}

/// Asks for a build, and offers it what it needs by a session: the files of a directory, of which the daemon takes those that
/// it does not have, and what else is offered. An archive is sent with the request as ever.
///
/// # Errors
/// As [`send`].
pub async fn by_session(
    client: &Client,
    query: Query,
    source: Source,
    mut offered: Offered,
    accounts: &BTreeMap<String, AuthConfig>,
    manner: Manner,
) -> Outcome<Begun> {
    let Source::Directory(directory) = source else {
        let id = offer::open(client, offered).await?;
        return send(client, &query.set("session", &id).on("/build"), source, accounts, manner).await;
    };
    let moved = Arc::new(AtomicI64::new(0));
    let shown = Mutex::new(Shown { moved: Arc::clone(&moved), manner, last: None });
    let progress = move |progress| {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Progress::Moved(bytes) => {
                shown.moved.fetch_add(i64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
                shown.tick();
            }
            Progress::Whole => shown.end(),
        }
    };
    let Directory { path, ignore, inserts, .. } = directory;
    let directory = berth_session::Directory { path, ignore, inserts, progress: Box::new(progress) };
    offered.directories.insert(CONTEXT.to_owned(), directory);
    let id = offer::open(client, offered).await?;
    let request = query.set("remote", "client-session").set("session", &id).on("/build");
    let answer = client.post_for_stream_with(&request, ACCOUNTS, &credentials::encoded(accounts)?).await;
    if matches!(answer, Err(berth_client::Error::Server { .. })) && manner.style == Style::Quiet {
        tell_failed(&moved);
    }
    Ok(Begun { answer: answer?, sent: Some(moved) })
}

fn write(source: Source, mut out: Counted, compress: bool) -> Outcome {
    let written = match compress {
        true => {
            compress::gzip(&mut out, |blocks| content(source, blocks)).map_err(io::Error::other).flatten()
        }
        false => content(source, &mut out),
    };
    let shown =
        |error: io::Error| Failure::new(format!("unable to send the build context: {}", causes(&error)));
    written.and_then(|()| out.end()).map_err(|error| out.out.carrier().fail(error, shown))
}

fn content(source: Source, out: &mut impl Write) -> io::Result<()> {
    match source {
        Source::Directory(Directory { path, ignore, inserts, .. }) => {
            let root = File::open(path)?;
            berth_archive::context::pack(root.as_fd(), &ignore, inserts, out).map_err(io::Error::other)
        }
        Source::Archive { mut input, .. } => io::copy(&mut input, out).map(drop),
        // It is not here.
        Source::Remote { .. } => Ok(()),
    }
}

/// Counts what is sent, for whoever looks.
struct Counted {
    out: Pieces,
    shown: Shown,
}

impl Counted {
    fn end(&mut self) -> io::Result<()> {
        self.out.send()?;
        self.shown.end();
        Ok(())
    }
}

/// What is shown of how much was sent.
struct Shown {
    moved: Arc<AtomicI64>,
    manner: Manner,
    /// When a terminal was told last.
    last: Option<Instant>,
}

impl Shown {
    /// Something was sent.
    fn tick(&mut self) {
        if self.manner.style.is_terminal() && self.last.is_none_or(|last| last.elapsed() >= TICK) {
            self.last = Some(Instant::now());
            self.show("\r");
        }
    }

    /// All was sent.
    fn end(&self) {
        // As Docker's client ends the line.
        self.show(if self.manner.style.is_terminal() { "\r\n" } else { "\r\r\n" });
    }

    fn show(&self, end: &str) {
        if !self.manner.style.tells_context() {
            return;
        }
        let text = format!("{}{end}", told(&self.moved));
        // Whoever does not see it does not miss it.
        let _ = match self.manner.to {
            To::Stdout => write!(io::stdout(), "{text}").and_then(|()| io::stdout().flush()),
            To::Stderr => write!(io::stderr(), "{text}"),
            To::Nowhere => Ok(()),
        };
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.shown.tick();
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
