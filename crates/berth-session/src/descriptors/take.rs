//! The receiver's end.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use berth_sys::socket;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{BATCH, Invitation, MARKS, PATIENCE, SECRET};
use crate::Error;
use crate::tree::Incoming;

/// The most threads.
const THREADS: usize = 4;
/// Bytes read at a time.
const PIECE: usize = 64 << 10;
/// Bytes of a file that is worth the disk's attention by itself.
const LARGE: u64 = 256 << 10;
/// Bytes of a file between two words about it.
const BETWEEN: u64 = 32 << 20;

/// What comes of files that are wanted.
pub(crate) enum Taken {
    /// So many bytes of one are there.
    Part(u64),
    /// One is there, with its digest.
    Whole(Incoming),
    /// There is no descriptor of one.
    Absent(Incoming),
    /// It cannot go on.
    Failed(Error),
}

/// Threads that write what they are given, as long as this is there.
pub(crate) struct Taking {
    shared: Arc<Shared>,
    taken: mpsc::Receiver<Taken>,
    under_way: usize,
}

struct Shared {
    wanted: Mutex<Wanted>,
    more: Condvar,
}

struct Wanted {
    files: VecDeque<Incoming>,
    /// One for each thread that is at work.
    connections: Vec<Arc<OwnedFd>>,
    over: bool,
}

impl Taking {
    /// Follows an invitation; `most` files are under way at once. None if nobody is there: the sender is on another host. Blocks
    /// for some seconds at most.
    pub fn begin(invitation: &Invitation, most: usize) -> Option<Taking> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
        let met = (0..threads).map_while(|_| match meet(invitation) {
            Ok(connection) => Some(Arc::new(connection)),
            Err(error) => {
                tracing::debug!(%error, "files are not handed over");
                None
            }
        });
        let connections: Vec<_> = met.collect();
        if connections.is_empty() {
            return None;
        }
        let wanted = Wanted { files: VecDeque::new(), connections: connections.clone(), over: false };
        let shared = Arc::new(Shared { wanted: Mutex::new(wanted), more: Condvar::new() });
        let (tell, taken) = mpsc::channel(most + 1);
        for connection in connections {
            let (own, tell) = (Arc::clone(&shared), tell.clone());
            let begun = std::thread::Builder::new().name("taking files".into()).spawn({
                let connection = Arc::clone(&connection);
                move || work(&own, &connection, &tell)
            });
            if begun.is_err() {
                // Nothing is wanted yet.
                shared.leave(&connection);
            }
        }
        Some(Taking { shared, taken, under_way: 0 })
    }

    /// How many files are wanted and not there.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Wants one; gives it back if nobody is left to write it.
    pub fn want(&mut self, incoming: Incoming) -> Result<(), Incoming> {
        let mut wanted = self.shared.lock();
        if wanted.over {
            return Err(incoming);
        }
        wanted.files.push_back(incoming);
        drop(wanted);
        self.shared.more.notify_one();
        self.under_way += 1;
        Ok(())
    }

    /// What comes next. Waits for as long as nothing does.
    pub async fn next(&mut self) -> Taken {
        match self.taken.recv().await {
            Some(taken) => {
                self.under_way -= usize::from(!matches!(taken, Taken::Part(_)));
                taken
            }
            // All threads have ended, and nothing is wanted of them.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let mut wanted = self.shared.lock();
        wanted.over = true;
        wanted.files.clear();
        wanted.connections.iter().for_each(socket::close);
        drop(wanted);
        self.shared.more.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next files for one thread: its share of those that are wanted. Waits for them; none when it is over.
    fn next(&self) -> Option<Vec<Incoming>> {
        let waiting = |wanted: &mut Wanted| wanted.files.is_empty() && !wanted.over;
        let mut wanted = self.more.wait_while(self.lock(), waiting).unwrap_or_else(PoisonError::into_inner);
        let share = wanted.files.len().div_ceil(wanted.connections.len().max(1)).min(BATCH);
        let files: Vec<_> = wanted.files.drain(..share).collect();
        (!files.is_empty()).then_some(files)
    }

    /// A thread ends. Gives what nobody is left for.
    fn leave(&self, connection: &Arc<OwnedFd>) -> VecDeque<Incoming> {
        let mut wanted = self.lock();
        wanted.connections.retain(|one| !Arc::ptr_eq(one, connection));
        wanted.over |= wanted.connections.is_empty();
        if wanted.over { std::mem::take(&mut wanted.files) } else { VecDeque::new() }
    }
}

/// Connects to the sender, who must know the secret, too.
fn meet(invitation: &Invitation) -> io::Result<OwnedFd> {
    let connection = socket::connect_abstract(&invitation.name(), PATIENCE)?;
    socket::send(&connection, invitation.of_taker(), &[])?;
    if socket::receive(&connection, SECRET)?.bytes != invitation.of_giver() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "somebody else is there"));
    }
    socket::wait_for(&connection, None)?;
    Ok(connection)
}

fn work(shared: &Shared, connection: &Arc<OwnedFd>, tell: &mpsc::Sender<Taken>) {
    let mut piece = vec![0; PIECE];
    while let Some(batch) = shared.next() {
        let files = match ask(connection, &batch) {
            Ok(files) => files,
            Err(error) => {
                tracing::debug!(%error, "files are not handed over any more");
                let left = batch.into_iter().chain(shared.leave(connection));
                left.for_each(|incoming| drop(tell.blocking_send(Taken::Absent(incoming))));
                return;
            }
        };
        for (mut incoming, file) in batch.into_iter().zip(files) {
            let taken = match file.map(|file| fill(&mut incoming, &file, &mut piece, tell)) {
                None | Some(Ok(false)) => Taken::Absent(incoming),
                Some(Ok(true)) => Taken::Whole(incoming),
                Some(Err(error)) => Taken::Failed(error),
            };
            if tell.blocking_send(taken).is_err() {
                return;
            }
        }
    }
}

/// Asks for files: one, or none, for each.
fn ask(connection: &OwnedFd, batch: &[Incoming]) -> io::Result<Vec<Option<File>>> {
    // Whatever is told has a number that fits: it was checked when it was told.
    let numbers = batch.iter().map(|incoming| u32::try_from(incoming.number()).unwrap_or(u32::MAX));
    socket::send(connection, &numbers.flat_map(u32::to_le_bytes).collect::<Vec<_>>(), &[])?;
    let socket::Message { bytes: marks, fds } = socket::receive(connection, BATCH)?;
    let given = marks.iter().filter(|&&mark| mark == MARKS[1]).count();
    if marks.len() != batch.len() || given != fds.len() || !marks.iter().all(|mark| MARKS.contains(mark)) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that is none"));
    }
    let mut fds = fds.into_iter();
    Ok(marks.iter().map(|&mark| if mark == MARKS[1] { fds.next().map(File::from) } else { None }).collect())
}

/// Writes a file as another one is now, or as much of it as there is. `false` if this process may not read it, though its
/// client may, as with many file systems of users: nothing is written then.
fn fill(
    incoming: &mut Incoming,
    file: &File,
    piece: &mut [u8],
    tell: &mpsc::Sender<Taken>,
) -> Result<bool, Error> {
    let path = incoming.path().to_vec();
    let Ok(about) = file.metadata() else { return Ok(false) };
    // Nothing else may be waited for.
    if !about.is_file() {
        let path = String::from_utf8_lossy(&path);
        return Err(Error::refused(format!("{path:?} is no regular file")));
    }
    let (mut hash, mut told) = (Sha256::new(), 0);
    while !incoming.is_whole() {
        // The other end has this descriptor, too, and with it its offset.
        let length = match file.read_at(piece, incoming.length()) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) if incoming.length() == 0 => return Ok(false),
            Err(error) => return Err(Error::file("reading", &path, error)),
        };
        let written = incoming.write(&piece[..length])?;
        hash.update(&piece[..written]);
        if incoming.length() - told >= BETWEEN {
            told = incoming.length();
            // Nobody may be interested any more.
            let part = Taken::Part(BETWEEN);
            tell.blocking_send(part).map_err(|_| Error::Call("the build is over".into()))?;
        }
    }
    incoming.learn(hash.finalize().into());
    if incoming.length() >= LARGE {
        incoming.write_back();
    }
    Ok(true)
}
