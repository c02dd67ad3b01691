//! `COPY` and `ADD`: files into an image, without any process in it.

mod share;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use berth_archive::copy::{self, ModeChange, Options, Owner};
use berth_archive::decompress;
use berth_build::solve::Copying;
use berth_image::NewLayer;
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use tokio_util::sync::CancellationToken;

use super::cancel::Cancelling;
use super::exclude::Exclude;
use super::executor::Worker;
use super::gather::{Files, Source};
use super::mounted::Mounted;
use super::tree;
use crate::Error;

/// How files are written into an image.
pub(super) struct Manner {
    /// To whom they belong; none for whom they belong to already.
    owner: Option<(u32, u32)>,
    mode: Option<ModeChange>,
    exclude: Exclude,
}

impl Manner {
    /// What an instruction asks for. `root` has the names of users.
    pub fn new(copying: &Copying, root: BorrowedFd<'_>) -> Result<Manner, Error> {
        Ok(Manner {
            // Files of an image keep their owners.
            owner: match &copying.chown {
                Some(text) => Some(owner(root, text)?),
                None if copying.from.is_some() => None,
                None => Some((0, 0)),
            },
            mode: copying.chmod.as_deref().map(mode).transpose()?,
            exclude: Exclude::new(&copying.exclude)?,
        })
    }

    /// All of it, as text.
    pub fn text(&self) -> String {
        format!("{:?} {:?}", self.owner, self.mode)
    }
}

/// Copies files into an image, and gives the layer that they make. Blocks.
pub(super) fn copy(
    worker: &Worker,
    mut target: Mounted,
    copying: &Copying,
    files: &Files,
    manner: Manner,
) -> Result<Option<NewLayer>, Error> {
    let failed = |error: Error| match error {
        Error::Storage(_) => error,
        other => Error::Files(format!("failed to copy files: {other}")),
    };
    if share::all(worker, &mut target, copying, files, &manner).map_err(failed)? {
        return target.layer(worker);
    }
    let into = Into {
        root: target.root()?,
        destination: copying.destination.as_bytes(),
        must: copying.destination.ends_with('/'),
        manner: &manner,
        cancelled: &worker.cancelled,
    };
    for source in &files.sources {
        worker.check()?;
        let from = match (&source.root, &files.image, worker.context.as_deref()) {
            (Some(root), _, _) => root.as_fd(),
            (None, Some(image), _) => image.root()?,
            (None, None, Some(context)) => context.root(),
            (None, None, None) => return Err(Error::Files("missing build context".into())),
        };
        into.source(from, source).map_err(failed)?;
    }
    target.layer(worker)
}

/// Permissions, in octal digits or as chmod(1) writes changes.
fn mode(text: &str) -> Result<ModeChange, Error> {
    ModeChange::read(text).ok_or_else(|| {
        Error::InvalidParameter(format!(
            "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
        ))
    })
}

/// `user[:group]`, names or numbers. A user alone stands for the group of the same name or number.
fn owner(root: BorrowedFd<'_>, text: &str) -> Result<(u32, u32), Error> {
    let failed = |error: berth_runtime::user::Error| {
        Error::InvalidParameter(format!("unable to convert uid/gid chown string to host mapping: {error}"))
    };
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if !group.is_empty() {
        let found = berth_runtime::user::resolve(root, &format!("{user}:{group}"), &[]).map_err(failed)?;
        return Ok((found.uid, found.gid));
    }
    let found = berth_runtime::user::resolve(root, user, &[]).map_err(failed)?;
    let same = berth_runtime::user::resolve(root, &format!("{user}:{user}"), &[]);
    Ok((found.uid, same.map_or(found.uid, |same| same.gid)))
}

/// Where files go.
struct Into<'a> {
    root: BorrowedFd<'a>,
    destination: &'a [u8],
    /// Whether it has to be a directory.
    must: bool,
    manner: &'a Manner,
    cancelled: &'a CancellationToken,
}

impl Into<'_> {
    fn source(&self, from: BorrowedFd<'_>, source: &Source) -> Result<(), Error> {
        let destination = self.parents(from, source)?;
        if source.directory {
            return self.directory(from, source, &destination);
        }
        let failed = |error: io::Error| tree::failed("open", &source.name, &error);
        if source.unpack
            && is_regular(from, &source.path)
            && tree::is_archive(from, &source.path).map_err(failed)?
        {
            return self.archive(from, source, &destination);
        }
        let (directory, name) = if self.must || source.parents.is_some() || self.is_directory()? {
            (destination.as_slice(), source.name.as_slice())
        } else {
            tree::split(&destination)
        };
        let (directory, _) = self.make(directory)?;
        self.pour(from, &source.path, name, &directory)
    }

    /// Where a source goes. The directories that come along with it are made there, as they are where it comes from.
    fn parents(&self, from: BorrowedFd<'_>, source: &Source) -> Result<Vec<u8>, Error> {
        let mut destination = self.destination.to_vec();
        let Some(parents) = &source.parents else { return Ok(destination) };
        self.make(&destination)?;
        let mut original = parents.base.clone();
        for part in parents.below.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            original = copy::path::join(&original, part);
            destination = copy::path::join(&destination, part);
            let (made, new) = self.make(&destination)?;
            if new {
                self.like(from, &original, &made)?;
            }
        }
        Ok(destination)
    }

    /// What a directory holds goes into the destination, which gets its permissions if it is new.
    fn directory(&self, from: BorrowedFd<'_>, source: &Source, destination: &[u8]) -> Result<(), Error> {
        let (directory, new) = self.make(destination)?;
        self.pour(from, &source.path, b".", &directory)?;
        if new { self.like(from, &source.path, &directory) } else { Ok(()) }
    }

    /// Gives a new directory the owner and the permissions of another one.
    fn like(&self, from: BorrowedFd<'_>, original: &[u8], made: &[u8]) -> Result<(), Error> {
        let failed = |error: io::Error| tree::failed("chmod", made, &error);
        let stat =
            copy::follow(from, original).and_then(|real| copy::look(from, &real)).map_err(failed)?.stat;
        let directory = copy::opened(self.root, made, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        let (uid, gid) = self.manner.owner.unwrap_or((stat.st_uid, stat.st_gid));
        let mode = stat.st_mode & 0o7777;
        let mode = self.manner.mode.as_ref().map_or(mode, |change| change.apply(mode, true));
        rustix::fs::fchown(&directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .and_then(|()| rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode)))
            .map_err(|error| failed(error.into()))
    }

    fn archive(&self, from: BorrowedFd<'_>, source: &Source, destination: &[u8]) -> Result<(), Error> {
        let (directory, _) = self.make(destination)?;
        let file =
            tree::open(from, &source.path).map_err(|error| tree::failed("open", &source.name, &error))?;
        let options = Options { replace: true, ..Options::default() };
        let reader = Cancelling::new(decompress::reader(file)?, self.cancelled);
        Ok(copy::unpack(self.root, &directory, &options, reader)?)
    }

    fn is_directory(&self) -> Result<bool, Error> {
        let failed = |error: io::Error| tree::failed("stat", self.destination, &error);
        let real = copy::follow(self.root, self.destination).map_err(failed)?;
        match copy::look(self.root, &real) {
            Ok(found) => Ok(found.kind() == FileType::Directory),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(false)
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn make(&self, path: &[u8]) -> Result<(Vec<u8>, bool), Error> {
        let made = tree::make_directories(self.root, path, self.manner.owner.unwrap_or((0, 0)));
        made.map_err(|error| tree::failed("mkdir", path, &error))
    }

    fn pour(&self, from: BorrowedFd<'_>, path: &[u8], name: &[u8], directory: &[u8]) -> Result<(), Error> {
        let owner = self.manner.owner.map_or(Owner::Archive, |(uid, gid)| Owner::Fixed(uid, gid));
        let mode = self.manner.mode.clone();
        let options = Options { replace: true, owner, mode, ..Options::default() };
        let skip = |path: &[u8]| self.manner.exclude.skips(path);
        pour(from, path, name, (self.root, directory), &options, &skip, self.cancelled)
    }
}

/// Copies one file, or what a directory holds, under a name into a directory. Blocks until `cancelled`.
pub(super) fn pour(
    from: BorrowedFd<'_>,
    path: &[u8],
    name: &[u8],
    (root, directory): (BorrowedFd<'_>, &[u8]),
    options: &Options,
    skip: &(dyn Fn(&[u8]) -> bool + Sync),
    cancelled: &CancellationToken,
) -> Result<(), Error> {
    let failed = |source| Error::Io { operation: "make a pipe".into(), source };
    let (reader, mut writer) = io::pipe().map_err(failed)?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || {
            let mut out = io::BufWriter::with_capacity(64 << 10, &mut writer);
            copy::pack_selected(from, path, name, skip, &mut out)
        });
        let reader = io::BufReader::with_capacity(64 << 10, Cancelling::new(reader, cancelled));
        let unpacked = copy::unpack(root, directory, options, reader);
        let packed = packing.join().unwrap_or_else(|_| {
            Err(berth_archive::Error::Read(io::Error::other("the thread that reads files ended")))
        });
        // A writer that nobody reads from fails because of that.
        unpacked?;
        Ok(packed?)
    })
}

fn is_regular(root: BorrowedFd<'_>, path: &[u8]) -> bool {
    copy::look(root, path).is_ok_and(|found| found.kind() == FileType::RegularFile)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_copy_that_nobody_wants_ends() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        for directory in [&from, &to] {
            fs::create_dir(directory).unwrap();
        }
        // Longer than what a pipe and the buffers at its ends hold.
        fs::File::create(from.join("file")).unwrap().set_len(64 << 20).unwrap();
        let cancelled = CancellationToken::new();
        let wanted = CancellationToken::new();
        let (from, root) = (fs::File::open(&from).unwrap(), fs::File::open(&to).unwrap());
        let copied = |token| {
            pour(from.as_fd(), b"/", b".", (root.as_fd(), b"/"), &Options::default(), &|_| false, token)
        };
        cancelled.cancel();
        assert!(copied(&cancelled).is_err());
        assert!(fs::metadata(to.join("file")).map_or(0, |about| about.len()) < 64 << 20);
        copied(&wanted).unwrap();
        assert_eq!(fs::metadata(to.join("file")).unwrap().len(), 64 << 20);
    }
}
