//! A directory of the context that becomes the content of an empty one: its files get one more name, and are not written again.
//!
//! Nothing changes them through either name: the context's files are replaced and never written, and so are a layer's.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use berth_archive::copy;
use berth_archive::marks::Marks;
use berth_archive::overlay::Overlay;
use berth_archive::replica;
use berth_build::solve::Copying;
use rustix::fs::{Mode, OFlags};

use super::{Into, Manner};
use crate::Error;
use crate::build::executor::Worker;
use crate::build::gather::{Files, Source};
use crate::build::mounted::Mounted;
use crate::build::tree;

/// Does what an instruction asks for, if it can be done in this way, and says so. Blocks.
pub(super) fn all(
    worker: &Worker,
    target: &mut Mounted,
    copying: &Copying,
    files: &Files,
    manner: &Manner,
) -> Result<bool, Error> {
    let ([source], None, None) = (files.sources.as_slice(), &files.image, worker.request.epoch()) else {
        return Ok(false);
    };
    let plain = source.directory && source.root.is_none() && source.parents.is_none();
    let (Some(context), true, Some(owner), None) =
        (worker.context.as_deref(), plain, manner.owner, &manner.mode)
    else {
        return Ok(false);
    };
    let from = context.root();
    let destination = copying.destination.as_bytes();
    let into = Into { root: target.root()?, destination, must: false, manner, cancelled: &worker.cancelled };
    let Some(place) = into.room(source, from)? else { return Ok(false) };
    let failed = |error: std::io::Error| tree::failed("open", &source.name, &error);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let files = copy::opened(from, &source.path, flags).map_err(failed)?;
    let place = copy::opened(target.upper()?.as_fd(), &place, flags).map_err(failed)?;
    let files = format!("/proc/self/fd/{}", files.as_raw_fd());
    let view = Overlay::open_marked([(&files, Marks::Whole { made: None })])?;
    let skip = |path: &[u8]| manner.exclude.skips(path);
    let go_on = || !worker.cancelled.is_cancelled();
    let options = replica::Options {
        keep_free: worker.parts().storage.keep_free_bytes(),
        owner: Some(owner),
        link: true,
        skip: Some(&skip),
        go_on: Some(&go_on),
        ..replica::Options::default()
    };
    replica::copy_contents(&view, place.as_fd(), &options)?;
    Ok(true)
}

impl Into<'_> {
    /// The directory that the source's files go into, if it holds nothing yet: made if it is missing, and in the writable layer.
    fn room(&self, source: &Source, from: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Error> {
        let (directory, new) = self.make(self.destination)?;
        if new {
            self.like(from, &source.path, &directory)?;
            return Ok(Some(directory));
        }
        let failed = |error: std::io::Error| tree::failed("open", &directory, &error);
        if !tree::names(self.root, &directory).map_err(failed)?.is_empty() {
            return Ok(None);
        }
        // Whatever is changed comes into the writable layer, also if it is as it was.
        let opened =
            copy::opened(self.root, &directory, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        let mode = rustix::fs::fstat(&opened).map(|stat| Mode::from_raw_mode(stat.st_mode & 0o7777));
        mode.and_then(|mode| rustix::fs::fchmod(&opened, mode)).map_err(|error| failed(error.into()))?;
        Ok(Some(directory))
    }
}
