//! All files of the image again for each container: for file systems on which overlayfs cannot work.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_archive::marks::Marks;
use berth_archive::overlay::Overlay as View;
use berth_archive::replica;
use berth_sys::ids::Mappings;
use rustix::fs::{Mode, Timespec, Timestamps};

use super::{Snapshot, Way};
use crate::{Error, Result};

/// The container's root.
const ROOT: &str = "root";
/// An empty file whose time of modification is that at which the copy was complete, by the file system's clock.
const MADE: &str = "made";
/// How long to wait for the file system's clock to move on: it does so at least every hundredth of a second.
const TICK: Duration = Duration::from_millis(1);
/// Looks at most: a clock that stands still is no reason to wait for ever.
const TICKS: u32 = 100;

/// Whole copies.
#[derive(Debug)]
pub(crate) struct Copy;

impl Way for Copy {
    fn marks(&self) -> Marks {
        Marks::Plain
    }

    fn directories(&self) -> &'static [(&'static str, u32)] {
        &[(ROOT, 0o755)]
    }

    fn fill(
        &self,
        directory: &Path,
        lower: &[PathBuf],
        keep_free: u64,
        owners: Option<&Mappings>,
    ) -> Result<()> {
        let root = directory.join(ROOT);
        let failed = |error| Error::archive("copying the image to", &root, error);
        let view = View::open_marked(lower.iter().map(|path| (path, Marks::Plain))).map_err(failed)?;
        let target = File::open(&root).map_err(|error| Error::file("opening", &root, error))?;
        let options = replica::Options { keep_free, owners, ..Default::default() };
        replica::copy(&view, std::os::fd::AsFd::as_fd(&target), &options).map_err(failed)?;
        if let Some(owners) = owners {
            crate::owners::write(directory, owners)?;
        }
        stamp(&directory.join(MADE))?;
        // The row that comes next may outlive a crash of the host, and then its files must be there.
        rustix::fs::syncfs(&target).map_err(|error| Error::file("syncing", &root, error))
    }

    fn snapshot(&self, directory: &Path, lower: Vec<PathBuf>) -> Result<Snapshot> {
        let made = std::fs::metadata(directory.join(MADE)).ok();
        let made = made.map(|metadata| (metadata.mtime(), metadata.mtime_nsec()));
        Ok(Snapshot {
            lower,
            upper: directory.join(ROOT),
            work: None,
            owners: crate::owners::read(directory)?.map(Arc::new),
            marks: (Marks::Whole { made }, Marks::Plain),
        })
    }

    fn written(&self, snapshot: &Snapshot) -> Result<u64> {
        let failed = |error| Error::archive("measuring", &snapshot.upper, error);
        let (upper, lower) = (snapshot.written().map_err(failed)?, snapshot.image().map_err(failed)?);
        berth_archive::changes::written(&upper, &lower).map_err(failed)
    }
}

/// Leaves a file with a time that is later than that of every change before, and not later than that of any after.
fn stamp(path: &Path) -> Result<()> {
    let failed = |error: rustix::io::Errno| Error::file("marking the time in", path, error);
    let file = File::create_new(path).map_err(|error| Error::file("creating", path, error))?;
    let now = || -> Result<(i64, i64)> {
        rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        let metadata = file.metadata().map_err(|error| Error::file("examining", path, error))?;
        Ok((metadata.ctime(), metadata.ctime_nsec()))
    };
    let before = now()?;
    let mut after = before;
    for _ in 0..TICKS {
        after = now()?;
        if after > before {
            break;
        }
        std::thread::sleep(TICK);
    }
    let time = Timespec { tv_sec: after.0, tv_nsec: after.1 };
    rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time }).map_err(failed)
}
