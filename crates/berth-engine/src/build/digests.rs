//! Digests of files that an earlier build has read: those of a context stay between builds, and are replaced, never changed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags};
use sha2::{Digest as _, Sha256};

/// Bytes read at a time.
const PIECE: usize = 64 << 10;
/// Bytes of one that is kept.
const RECORD: usize = IDENTITY + size_of::<Sum>();
/// Bytes of what a file is known by.
const IDENTITY: usize = size_of::<Identity>();
/// The most that are kept.
const MOST: usize = 1 << 20;
/// Files that are read by more than one thread: for fewer bytes none is begun.
const SEVERAL: u64 = 4 << 20;

pub(super) use berth_session::Sum;

/// Says whether to go on.
pub(super) type GoOn<'a> = &'a (dyn Fn() -> bool + Sync);

/// What a file is known by: its number, which another one may get when it is gone, but not with the same time of birth; its
/// size, and when it was changed.
type Identity = [u64; 5];

/// What the kernel says of a file, the time of its birth included, which the standard library does not tell everywhere.
pub(super) struct About(Statx);

impl About {
    /// Of the file at a path; of a link itself.
    pub fn at(path: &Path) -> io::Result<About> {
        About::look(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Of an open file.
    pub fn of(file: &File) -> io::Result<About> {
        About::look(file, Path::new(""), AtFlags::EMPTY_PATH)
    }

    fn look(from: impl std::os::fd::AsFd, path: &Path, flags: AtFlags) -> io::Result<About> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        Ok(About(rustix::fs::statx(from, path, flags, wanted)?))
    }

    /// Its kind.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode())
    }

    /// Its kind and permissions, as in `st_mode`.
    pub fn mode(&self) -> u32 {
        self.0.stx_mode.into()
    }

    /// Its user and group.
    pub fn owner(&self) -> (u32, u32) {
        (self.0.stx_uid, self.0.stx_gid)
    }

    /// Which device it is, as in `st_rdev`.
    pub fn device(&self) -> u64 {
        rustix::fs::makedev(self.0.stx_rdev_major, self.0.stx_rdev_minor)
    }

    /// What it is known by; none where the file system does not tell when it was born.
    fn identity(&self) -> Option<Identity> {
        let about = &self.0;
        let told = StatxFlags::from_bits_retain(about.stx_mask).contains(StatxFlags::BTIME);
        let whole = |time: rustix::fs::StatxTimestamp| {
            time.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec.into()).cast_unsigned()
        };
        let device = rustix::fs::makedev(about.stx_dev_major, about.stx_dev_minor);
        let times = (whole(about.stx_btime), whole(about.stx_mtime));
        told.then_some([device, about.stx_ino, times.0, about.stx_size, times.1])
    }
}

/// Digests by what files are known by. Whether each was of use is remembered, so that the others can go.
#[derive(Debug, Default)]
pub(super) struct Digests {
    known: Mutex<HashMap<Identity, (Sum, bool)>>,
    changed: AtomicBool,
}

impl Digests {
    /// What was kept in a file; nothing if that cannot be read.
    pub fn read(path: &Path) -> Digests {
        let bytes = fs::read(path).unwrap_or_default();
        let known = bytes.chunks_exact(RECORD).map(|record| {
            let mut identity = Identity::default();
            for (number, bytes) in identity.iter_mut().zip(record.chunks_exact(8)) {
                *number = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
            }
            let mut sum = Sum::default();
            sum.copy_from_slice(&record[IDENTITY..]);
            (identity, (sum, false))
        });
        Digests { known: Mutex::new(known.collect()), changed: AtomicBool::new(false) }
    }

    /// Keeps them in a file, if there are new ones. If there are too many, those that were not asked for go.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        if !self.changed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let known = self.lock();
        let all = known.len() <= MOST;
        let mut bytes = Vec::with_capacity(known.len().min(MOST) * RECORD);
        for (identity, (sum, _)) in known.iter().filter(|(_, (_, used))| all || *used).take(MOST) {
            identity.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
            bytes.extend_from_slice(sum);
        }
        fs::write(path, bytes)
    }

    /// The digest of a regular file, read if it is not known.
    pub fn of(&self, path: &Path, about: &About, go_on: GoOn<'_>) -> io::Result<Sum> {
        if let Some(identity) = about.identity()
            && let Some((sum, used)) = self.lock().get_mut(&identity)
        {
            *used = true;
            return Ok(*sum);
        }
        let sum = sum(path, go_on)?;
        self.keep(about, sum);
        Ok(sum)
    }

    /// Remembers the digest of a file.
    pub fn keep(&self, about: &About, sum: Sum) {
        if let Some(identity) = about.identity() {
            self.lock().insert(identity, (sum, true));
            self.changed.store(true, Ordering::Relaxed);
        }
    }

    /// Reads those of some files that are not known, several at once.
    pub fn learn(&self, files: &[(&Path, &About)], go_on: GoOn<'_>) -> io::Result<()> {
        let unknown: Vec<_> = {
            let known = self.lock();
            let is_new = |about: &About| about.identity().is_some_and(|one| !known.contains_key(&one));
            files.iter().filter(|(_, about)| is_new(about)).collect()
        };
        if unknown.iter().map(|(_, about)| about.0.stx_size).sum::<u64>() < SEVERAL {
            return Ok(());
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((path, about)) = unknown.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.of(path, about, go_on)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            others.into_iter().fold(own, |outcome, other| {
                outcome.and(
                    other.join().unwrap_or_else(|_| Err(io::Error::other("a thread that reads files ended"))),
                )
            })
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Identity, (Sum, bool)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The digest of a file's content.
fn sum(path: &Path, go_on: GoOn<'_>) -> io::Result<Sum> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; PIECE];
    let mut hash = Sha256::new();
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(length) => hash.update(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn about(path: &Path) -> (PathBuf, About) {
        (path.to_owned(), About::at(path).unwrap())
    }

    fn all(files: &[(PathBuf, About)]) -> Vec<(&Path, &About)> {
        files.iter().map(|(path, about)| (path.as_path(), about)).collect()
    }

    #[test]
    fn what_is_known_is_not_read_again_and_another_file_is() {
        let temp = tempfile::tempdir().unwrap();
        let (kept, file) = (temp.path().join("kept"), temp.path().join("file"));
        fs::write(&file, "one").unwrap();
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        let digests = Digests::read(&kept);
        let ask = |digests: &Digests| {
            let (path, about) = about(&file);
            digests.of(&path, &about, &|| true).unwrap()
        };
        let first = ask(&digests);
        assert_eq!(first, <Sum>::from(Sha256::digest("one")));
        digests.write(&kept).unwrap();

        // Written in place, with the time that it had: nobody does that here, and so nobody notices.
        let again = Digests::read(&kept);
        fs::write(&file, "two").unwrap();
        File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        assert_eq!(ask(&again), first);
        again.write(&temp.path().join("nothing new")).unwrap();
        assert!(!temp.path().join("nothing new").exists());

        // Another file of the name, size and time.
        let other = temp.path().join("other");
        fs::write(&other, "two").unwrap();
        File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
        fs::rename(&other, &file).unwrap();
        assert_eq!(ask(&Digests::read(&kept)), <Sum>::from(Sha256::digest("two")));
    }

    #[test]
    fn several_are_read_at_once_and_an_end_ends_it() {
        let temp = tempfile::tempdir().unwrap();
        let files: Vec<_> = (0..9)
            .map(|number| {
                let path = temp.path().join(number.to_string());
                fs::write(&path, vec![number; 1 << 20]).unwrap();
                about(&path)
            })
            .collect();
        let digests = Digests::default();
        let ended = digests.learn(&all(&files), &|| false).unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::Interrupted);
        digests.learn(&all(&files), &|| true).unwrap();
        assert_eq!(digests.lock().len(), files.len());
        for (number, (path, about)) in files.iter().enumerate() {
            let expected = Sha256::digest(vec![u8::try_from(number).unwrap(); 1 << 20]);
            assert_eq!(digests.of(path, about, &|| false).unwrap(), <Sum>::from(expected));
        }
        let mut gone: Vec<_> = files.into_iter().take(5).collect();
        gone[4].0 = temp.path().join("missing");
        assert!(Digests::default().learn(&all(&gone), &|| true).is_err());
    }
}
