//! Where an entry is made before it has its name.
//!
//! What is unpacked atomically is made whole first and then moved over what it replaces. A file has no name meanwhile, so
//! that nothing is left of it whatever happens; what cannot be made so, and a file where the file system has none without
//! names (`O_TMPFILE`), is made beside its place.

use std::ffi::{OsStr, OsString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::into::{ATTEMPTS, Spot, Target, is_directory};
use crate::tree::proc_path;
use crate::{Error, Result};

/// How names begin beside the places of files.
const BESIDE: &str = ".berth-";

/// Where something was made.
pub(super) enum Stage {
    /// In its place.
    InPlace,
    /// In the same directory, under this name.
    Beside(OsString),
    /// It has no name yet.
    Unnamed,
}

impl Stage {
    /// The name of what was made for `spot`.
    pub fn at<'s>(&'s self, spot: Spot<'s>) -> Spot<'s> {
        match self {
            Stage::Beside(name) => Spot { name, ..spot },
            Stage::InPlace | Stage::Unnamed => spot,
        }
    }
}

impl Target<'_> {
    /// Makes an empty file for `name`.
    pub fn begin_file(&mut self, name: &[u8]) -> Result<(OwnedFd, Stage)> {
        let mode = Mode::RUSR | Mode::WUSR;
        if self.options.atomic {
            let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
            if let Ok(made) = rustix::fs::openat(self.spot(name)?.parent, ".", flags, mode) {
                return Ok((made, Stage::Unnamed));
            }
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.begin(name, |spot| rustix::fs::openat(spot.parent, spot.name, flags, mode))
    }

    /// Runs `make` for `name`, or for a name beside it.
    pub fn begin<T>(
        &mut self,
        name: &[u8],
        make: impl Fn(&Spot<'_>) -> rustix::io::Result<T>,
    ) -> Result<(T, Stage)> {
        if self.options.atomic {
            self.beside(name, make)
        } else {
            Ok((self.create(name, make)?, Stage::InPlace))
        }
    }

    fn beside<T>(
        &self,
        name: &[u8],
        make: impl Fn(&Spot<'_>) -> rustix::io::Result<T>,
    ) -> Result<(T, Stage)> {
        for _ in 0..ATTEMPTS {
            let beside = unused();
            match make(&Spot { name: &beside, ..self.spot(name)? }) {
                // Who was killed may have left it.
                Err(Errno::EXIST) => {}
                made => {
                    let made = made.map_err(|error| Error::file("creating", name, error))?;
                    return Ok((made, Stage::Beside(beside)));
                }
            }
        }
        Err(Error::file("creating", name, Errno::EXIST))
    }

    /// Gives a whole file that has no name its own, or one beside that if it is taken.
    pub fn name_file(&self, name: &[u8], file: BorrowedFd<'_>) -> Result<Stage> {
        let path = proc_path(file);
        let link =
            |spot: &Spot<'_>| rustix::fs::linkat(CWD, &path, spot.parent, spot.name, AtFlags::SYMLINK_FOLLOW);
        match link(&self.spot(name)?) {
            Ok(()) => Ok(Stage::InPlace),
            Err(Errno::EXIST) => Ok(self.beside(name, link)?.1),
            Err(error) => Err(Error::file("creating", name, error)),
        }
    }

    /// Puts what was `made` in its place, or removes it if it was not made whole.
    pub fn end(&mut self, name: &[u8], stage: &Stage, made: Result<()>) -> Result<()> {
        let ended = made.and_then(|()| match stage {
            Stage::Beside(beside) => self.move_in(name, beside),
            Stage::InPlace | Stage::Unnamed => Ok(()),
        });
        if ended.is_err() {
            self.discard(name, stage);
        }
        ended
    }

    /// Removes what was made, if it is still there. What went wrong before is the one to tell.
    pub fn discard(&self, name: &[u8], stage: &Stage) {
        if let (Stage::InPlace | Stage::Beside(_), Ok(spot)) = (stage, self.spot(name)) {
            let spot = stage.at(spot);
            let _ = rustix::fs::unlinkat(spot.parent, spot.name, AtFlags::empty());
        }
    }

    fn move_in(&mut self, name: &[u8], beside: &OsStr) -> Result<()> {
        for _ in 0..ATTEMPTS {
            match self.examine(name)? {
                Some(stat) if is_directory(&stat) && self.options.replace => self.clear(name)?,
                Some(_) => self.check_mounts(name)?,
                None => {}
            }
            let spot = self.spot(name)?;
            match rustix::fs::renameat(spot.parent, beside, spot.parent, spot.name) {
                // Taken by a directory since it was looked at.
                Err(Errno::ISDIR) if self.options.replace => {}
                moved => return moved.map_err(|error| Error::file("replacing", name, error)),
            }
        }
        Err(Error::file("replacing", name, Errno::ISDIR))
    }
}

/// A name that nobody uses.
fn unused() -> OsString {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{BESIDE}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)).into()
}
