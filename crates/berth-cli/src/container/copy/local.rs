//! This machine's end of a copy.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::sync::atomic::Ordering;

use berth_archive::copy::{self, Options, Owner, Rename, path};
use berth_client::{Client, ResponseBody};
use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

use super::progress::Progress;
use super::resource::{Prepared, Resource, prepare};
use super::{input, native};
use crate::failure::{Failure, Outcome, causes, plain};
use crate::pieces::{self, Pieces};

/// How many pieces wait for a slow disk.
const AHEAD: usize = 4;
/// Links that may lead to a destination, as in Docker.
const LINKS: usize = 11;

const TAR: &str = "application/x-tar";

/// Refuses a destination where nothing can be written, before anything is asked of the daemon.
pub fn check_output(to: &[u8]) -> Outcome {
    let parent = path::directory(&path::clean(to));
    if matches!(fs::metadata(native(&parent)), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        let parent = native(&parent).display().to_string();
        return Err(Failure::new(format!("invalid output path: directory {parent:?} does not exist")));
    }
    let Ok(meta) = fs::metadata(native(to)) else { return Ok(()) };
    if meta.file_type().is_char_device() || meta.file_type().is_block_device() {
        let to = native(to).display().to_string();
        return Err(Failure::new(format!(
            "invalid output path: {to:?} must be a directory or a regular file: got a device"
        )));
    }
    Ok(())
}

/// What is to be copied from here.
pub fn source(given: &[u8], follow: bool) -> Outcome<Resource> {
    let (resolved, name) = if follow {
        super::resource::rebased(given, canonical(given)?)
    } else {
        let start = given.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (directory, last) = given.split_at(start);
        let mut resolved = canonical(directory)?;
        if !resolved.ends_with(b"/") {
            resolved.push(b'/');
        }
        resolved.extend_from_slice(last);
        let renamed = given.ends_with(b"/") && path::base(given) != path::base(&resolved);
        (resolved, if renamed { path::base(given).to_vec() } else { Vec::new() })
    };
    let meta = fs::symlink_metadata(native(&resolved)).map_err(|error| lstat(&resolved, &error))?;
    Ok(Resource { path: resolved, exists: true, directory: meta.is_dir(), name })
}

fn lstat(path: &[u8], error: &io::Error) -> Failure {
    Failure::io(format_args!("lstat {}", native(path).display()), error)
}

/// A path without links. As Go tells it, an error names the first part that is missing.
fn canonical(given: &[u8]) -> Outcome<Vec<u8>> {
    fs::canonicalize(native(given)).map(|path| path.into_os_string().into_vec()).map_err(|error| {
        let whole = path::absolute(given);
        let ends = whole.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let missing = ends.chain([whole.len()]).find(|end| fs::metadata(native(&whole[..*end])).is_err());
        lstat(&whole[..missing.unwrap_or(whole.len())], &error)
    })
}

/// Bytes of all files at and below a path; none if that cannot be told.
pub fn content_size(top: &[u8]) -> Option<i64> {
    let meta = fs::symlink_metadata(native(top)).ok()?;
    let length = |meta: &fs::Metadata| i64::try_from(meta.len()).unwrap_or(i64::MAX);
    if !meta.is_dir() {
        return Some(if meta.is_file() { length(&meta) } else { 0 });
    }
    let (mut total, mut pending) = (0i64, vec![native(top).to_owned()]);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).ok()? {
            let entry = entry.ok()?;
            let meta = entry.metadata().ok()?;
            if meta.is_dir() {
                pending.push(entry.path());
            } else if meta.is_file() {
                total = total.saturating_add(length(&meta));
            }
        }
    }
    Some(total)
}

/// What is sent to a container.
pub enum Source {
    /// A tar from standard input, as it is.
    Input,
    /// A file or directory, under this name.
    Tree {
        /// Where it is.
        path: Vec<u8>,
        /// What it is called in the archive.
        name: Vec<u8>,
    },
}

impl Source {
    /// Sends it as the body of a request.
    pub async fn send(self, client: &Client, request: &str, progress: &Progress) -> Outcome {
        let (out, body) = pieces::channel(progress.counter());
        let is_tree = matches!(self, Self::Tree { .. });
        // A thread that reads standard input may never end: it is not waited for.
        let (told, outcome) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = told.send(self.write(out));
        });
        let sent = client.put_stream(request, TAR, body).await;
        match sent {
            Ok(()) => Ok(()),
            // What the daemon says counts, unless it is only that the archive had no end.
            Err(error @ berth_client::Error::Server { .. }) => Err(error.into()),
            Err(error) if is_tree => match outcome.await {
                Ok(Err(failure)) => Err(failure),
                _ => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    fn write(self, mut out: Pieces) -> Outcome {
        let failed = |error: io::Error| Failure::new(plain(&error));
        match self {
            Self::Input => {
                let copied = io::copy(&mut input(), &mut out).and_then(|_| out.send());
                copied.map_err(|error| out.carrier().fail(error, failed))
            }
            Self::Tree { path, name } => {
                let root = File::open("/").map_err(failed)?;
                let packed = copy::pack(root.as_fd(), &path, &name, &mut out).map_err(io::Error::other);
                packed
                    .and_then(|()| out.send())
                    .map_err(|error| out.carrier().fail(error, |error| Failure::new(causes(&error))))
            }
        }
    }
}

/// What stands at a destination, links followed.
fn destination(given: &[u8]) -> Outcome<Resource> {
    let mut to = given.to_vec();
    for _ in 0..LINKS {
        match fs::symlink_metadata(native(&to)) {
            Ok(meta) if meta.is_symlink() => {
                let target = fs::read_link(native(&to)).map_err(|error| lstat(&to, &error))?;
                to = super::beside(&to, &target.into_os_string().into_vec());
            }
            Ok(meta) => {
                return Ok(Resource { path: to, exists: true, directory: meta.is_dir(), name: Vec::new() });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = path::split_entry(&to).0;
                let meta = fs::metadata(native(&parent)).map_err(|error| {
                    Failure::io(format_args!("stat {}", native(&parent).display()), &error)
                })?;
                if !meta.is_dir() {
                    return Err(Failure::new("not a directory"));
                }
                return Ok(Resource { path: to, ..Resource::default() });
            }
            Err(error) => return Err(lstat(&to, &error)),
        }
    }
    Err(Failure::new(format!("too many symlinks in {}", native(given).display())))
}

/// Unpacks what comes from a container.
pub async fn unpack(mut archive: ResponseBody, from: &Resource, to: &[u8], progress: &Progress) -> Outcome {
    let to = destination(to)?;
    let Prepared { directory, name } = prepare(from, &to)?;
    let base = path::split_entry(&from.path).1;
    let followed = (!from.name.is_empty()).then(|| Rename { from: base, to: from.name.clone() });
    let renames = followed.into_iter().chain(name).collect();
    let options = Options { atomic: true, owner: Owner::Caller, renames, ..Options::default() };
    let (sender, receiver) = mpsc::channel::<Bytes>(AHEAD);
    let unpacked = tokio::task::spawn_blocking(move || into_directory(&directory, &options, receiver));
    let moved = progress.counter();
    let fetched = async {
        // Nobody receives any more once unpacking has failed.
        while let Some(chunk) = archive.chunk().await? {
            moved.fetch_add(i64::try_from(chunk.len()).unwrap_or(0), Ordering::Relaxed);
            if sender.send(chunk).await.is_err() {
                break;
            }
        }
        drop(sender);
        Ok::<(), Failure>(())
    };
    let fetched = fetched.await;
    let unpacked = unpacked.await.unwrap_or_else(|error| Err(Failure::new(error.to_string())));
    fetched.and(unpacked)
}

fn into_directory(directory: &[u8], options: &Options, parts: mpsc::Receiver<Bytes>) -> Outcome {
    let root = File::open(native(directory))
        .map_err(|error| Failure::io(format_args!("open {}", native(directory).display()), &error))?;
    let parts = Parts { parts, part: Bytes::new() };
    copy::unpack(root.as_fd(), b"", options, parts).map_err(|error| match error {
        berth_archive::Error::Overwrite { old, name, new, .. } => {
            let directory = native(directory).display().to_string();
            Failure::new(berth_archive::Error::Overwrite { old, name, new, directory }.to_string())
        }
        error => Failure::new(causes(&error)),
    })
}

/// What is received, as a reader. An archive that is cut has no end, which whoever reads it notices.
struct Parts {
    parts: mpsc::Receiver<Bytes>,
    part: Bytes,
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.parts.blocking_recv() {
                Some(part) => self.part = part,
                None => return Ok(0),
            }
        }
        let length = self.part.len().min(buffer.len());
        self.part.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
