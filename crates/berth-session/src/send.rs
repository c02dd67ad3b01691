//! Files of a directory, for an end that asks for those that it does not have.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use berth_archive::context::{self, Insert, Listed};
use berth_archive::ignore::Ignore;
use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;
use tonic::Status;

use crate::filter::Filter;
use crate::protocol::fsutil::types::Packet;
use crate::{Entry, Error, Kind, Message};

/// Packets that wait for the other end.
pub(crate) const AHEAD: usize = 16;
/// Bytes of a file in one packet. What is much larger comes from the kernel anew for each, with a page fault for each page.
const PIECE: usize = 16 << 10;
/// Files that are read at the same time.
const READERS: usize = 4;

/// A directory that is offered.
pub struct Directory {
    /// Where it is.
    pub path: PathBuf,
    /// What is left out of it.
    pub ignore: Ignore,
    /// What is not, or not like this, in it.
    pub inserts: Vec<Insert>,
    /// Told of everything that is sent.
    pub progress: Box<dyn Fn(Progress) + Send + Sync>,
}

/// How far a directory is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// These bytes are on their way.
    Moved(usize),
    /// The other end has all that it wants.
    Whole,
}

/// Where a file's content is.
enum Source {
    Path(Vec<u8>),
    Content(Vec<u8>),
}

type Packets = Sender<Result<Packet, Status>>;

/// What one end sends, and what is left to be asked for.
pub(crate) struct Sending {
    directory: Arc<Directory>,
    root: OwnedFd,
    /// By number: each can be asked for once.
    sources: Mutex<HashMap<u32, Source>>,
    packets: Packets,
}

/// Sends what is asked for by `incoming`; `filter` says which files are told.
pub(crate) async fn send<S>(sending: Arc<Sending>, filter: Filter, incoming: S) -> Result<(), Error>
where
    S: Stream<Item = Result<Packet, Status>> + Unpin,
{
    let telling = {
        let sending = Arc::clone(&sending);
        tokio::task::spawn_blocking(move || sending.tell(filter))
    };
    let answered = answer(&sending, incoming);
    tokio::pin!(answered);
    let told = tokio::select! {
        told = telling => told.map_err(|error| Error::Call(error.to_string()))?,
        outcome = &mut answered => return outcome,
    };
    told?;
    answered.await
}

/// Answers what is asked until everything was.
async fn answer<S>(sending: &Arc<Sending>, mut incoming: S) -> Result<(), Error>
where
    S: Stream<Item = Result<Packet, Status>> + Unpin,
{
    let readers = Arc::new(Semaphore::new(READERS));
    let failed: Arc<Mutex<Option<Error>>> = Arc::default();
    while let Some(packet) = incoming.next().await {
        match Message::of(packet?)? {
            Message::Request(number) => {
                let source = lock(&sending.sources).remove(&number);
                let source = source.ok_or_else(|| Error::refused(format!("invalid file id {number}")))?;
                let permit = Arc::clone(&readers).acquire_owned().await;
                if let Some(error) = lock(&failed).take() {
                    return Err(error);
                }
                let (sending, failed) = (Arc::clone(sending), Arc::clone(&failed));
                tokio::task::spawn_blocking(move || {
                    if let Err(error) = sending.content(number, source) {
                        // The other end learns of it now: nobody may ask again.
                        sending.packet(Message::Failed(error.to_string())).ok();
                        *lock(&failed) = Some(error);
                    }
                    drop(permit);
                });
            }
            Message::Finished => {
                (sending.directory.progress)(Progress::Whole);
                let packet = Message::Finished.packet();
                return sending.packets.send(Ok(packet)).await.map_err(|_| gone());
            }
            Message::Failed(text) => return Err(Error::Call(text)),
            _ => return Err(Error::refused("a packet that only the sender may send")),
        }
    }
    Err(gone())
}

impl Sending {
    /// Files of a directory, as packets.
    pub fn new(directory: Arc<Directory>, packets: Packets) -> Result<Arc<Sending>, Error> {
        let root = File::open(&directory.path)
            .map_err(|error| Error::file("opening", directory.path.as_os_str().as_bytes(), error))?;
        Ok(Arc::new(Sending { directory, root: root.into(), sources: Mutex::default(), packets }))
    }

    /// Opens a file that was told; none if its content is to be sent.
    pub fn handed(&self, number: u32) -> Option<File> {
        let path = match lock(&self.sources).get(&number)? {
            Source::Path(path) => path.clone(),
            Source::Content(_) => return None,
        };
        // Whatever is wrong with it is told when it is asked for.
        let file = self.open(&path).ok().flatten()?;
        if is_remote(&file) {
            return None;
        }
        let size = usize::try_from(file.metadata().ok()?.len()).ok()?;
        (self.directory.progress)(Progress::Moved(size));
        Some(file)
    }

    /// Tells of all files. Blocks.
    fn tell(&self, filter: Filter) -> Result<(), Error> {
        let mut number = 0;
        let mut tell = |listed: Listed| {
            let entry = entry(&listed);
            if entry.has_content() {
                let source = match listed.content {
                    Some(content) => Source::Content(content),
                    None => Source::Path(listed.path),
                };
                lock(&self.sources).insert(number, source);
            }
            number += 1;
            let told = self.packet(Message::Entry(Box::new(entry)));
            told.map_err(|_| berth_archive::Error::Read(io::ErrorKind::BrokenPipe.into()))
        };
        let inserts = self.directory.inserts.clone();
        let mut chosen = filter.beneath(self.root.as_fd());
        let mut take = |listed: Listed| chosen.take(listed).into_iter().try_for_each(&mut tell);
        let told = context::list(self.root.as_fd(), &self.directory.ignore, inserts, &mut take);
        if let Err(error) = told {
            let text = chain(&error);
            self.packet(Message::Failed(text.clone()))?;
            return Err(Error::Call(text));
        }
        self.packet(Message::End)
    }

    /// Sends a file's content: as it is now, or as much as is left of it. Blocks.
    fn content(&self, number: u32, source: Source) -> Result<(), Error> {
        match source {
            Source::Content(content) => {
                for piece in content.chunks(PIECE) {
                    self.packet(Message::Data(number, bytes::Bytes::copy_from_slice(piece)))?;
                }
            }
            Source::Path(path) => {
                let failed = |error: io::Error| Error::file("reading", &path, error);
                // What is gone meanwhile has no content.
                let mut file = self.open(&path).map_err(|error| failed(error.into()))?;
                while let Some(open) = &mut file {
                    let mut piece = bytes::BytesMut::zeroed(PIECE);
                    let length = match open.read(&mut piece) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        length => length.map_err(failed)?,
                    };
                    if length == 0 {
                        break;
                    }
                    piece.truncate(length);
                    self.packet(Message::Data(number, piece.freeze()))?;
                }
            }
        }
        self.packet(Message::Data(number, bytes::Bytes::new()))
    }

    /// Opens a regular file, without links on the way; none if there is no such one any more.
    fn open(&self, path: &[u8]) -> rustix::io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let path = std::ffi::OsStr::from_bytes(path);
        let file = loop {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Ok(None),
                other => break other?,
            }
        };
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
        Ok((kind == FileType::RegularFile).then(|| File::from(file)))
    }

    /// Sends a packet once the other end is ready for it. Blocks.
    fn packet(&self, message: Message) -> Result<(), Error> {
        let packet = message.packet();
        (self.directory.progress)(Progress::Moved(packet.encoded_len()));
        self.packets.blocking_send(Ok(packet)).map_err(|_| gone())
    }
}

/// What is told of a file. As in archives of contexts, everything is root's.
fn entry(listed: &Listed) -> Entry {
    let stat = &listed.stat;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Link,
        FileType::Fifo => Kind::Pipe,
        FileType::CharacterDevice => Kind::CharacterDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        _ => Kind::File,
    };
    let is_device = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Entry {
        path: listed.path.clone(),
        kind,
        permissions: stat.st_mode & 0o7777,
        uid: 0,
        gid: 0,
        size: if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        modified: stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanoseconds),
        link: listed.link.clone(),
        device: if is_device {
            (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
        } else {
            (0, 0)
        },
        // Those of a further name are those of the first.
        capability: match kind {
            Kind::File if !listed.link.is_empty() => Vec::new(),
            _ => listed.capability.clone(),
        },
    }
}

/// Whether a file is on a file system that may keep its reader waiting for ever: only this process is to wait for that.
fn is_remote(file: &File) -> bool {
    // NFS, FUSE, CIFS, SMB 2 and 1, 9P, AFS, Ceph and Coda (statfs(2)).
    const REMOTE: [u64; 9] = [
        0x6969,
        0x6573_5546,
        0xff53_4d42,
        0xfe53_4d42,
        0x517b,
        0x0102_1997,
        0x5346_414f,
        0x00c3_6400,
        0x7375_7245,
    ];
    rustix::fs::fstatfs(file).map_or(true, |about| REMOTE.contains(&(about.f_type as u64 & 0xffff_ffff)))
}

fn gone() -> Error {
    Error::Call("the daemon is gone".into())
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
