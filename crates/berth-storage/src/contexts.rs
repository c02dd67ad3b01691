//! Files that clients sent for builds, kept so that the next build of the same directory is sent only what changed.
//!
//! What is in use is a [`Scratch`] and nowhere else, so that nobody else changes it meanwhile and a crash leaves nothing that
//! is half done; what is kept is moved as a whole. Nothing is synced: what an earlier boot wrote is not believed.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use berth_oci::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, Scratch, Shared};

/// Where they are in the data root.
pub(crate) const DIRECTORY: &str = "contexts";
/// What is known of one, beside its files.
const ABOUT: &str = "about.json";
/// All of them together take no more than this part of the file system.
const PART: u64 = 10;
/// Nor more than this, in bytes.
const CEILING: u64 = 20 << 30;
/// The most of them.
const MOST: usize = 64;

/// Access to files that clients sent for builds.
#[derive(Clone, Copy, Debug)]
pub struct Contexts<'a> {
    shared: &'a Arc<Shared>,
}

/// One that is kept and not in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptContext {
    /// Its name.
    pub key: String,
    /// Bytes of its files, whoever else has them.
    pub size: u64,
    /// What it is, for users.
    pub description: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was used last.
    pub used: Timestamp,
    /// How often it was used.
    pub uses: u64,
}

#[derive(Serialize, Deserialize)]
struct About {
    boot: String,
    size: u64,
    description: String,
    created: Timestamp,
    used: Timestamp,
    uses: u64,
}

impl<'a> Contexts<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Takes what is kept under a name: it is the caller's alone. None if there is nothing, or nothing that can be believed.
    ///
    /// # Errors
    /// File errors.
    pub fn take(&self, key: &Digest) -> Result<Option<Scratch>> {
        let name = format!("{DIRECTORY}/{}", key.hex());
        if self.about(key.hex()).is_none() {
            self.shared.root.trash(&name)?;
            return Ok(None);
        }
        Scratch::adopt(self.shared, &name)
    }

    /// Keeps a directory, which others may take then, in the place of what is kept under its name. Old ones go if there are
    /// too many. A directory that was kept before keeps its age.
    ///
    /// # Errors
    /// File errors; the directory is gone then.
    pub fn keep(&self, key: &Digest, scratch: Scratch, size: u64, description: &str) -> Result<()> {
        let path = scratch.path().join(ABOUT);
        let failed = |error| Error::file("writing", &path, error);
        let before: Option<About> = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let now = Timestamp::now();
        let about = About {
            boot: crate::boot_id()?,
            size,
            description: description.to_owned(),
            created: before.as_ref().map_or(now, |before| before.created),
            used: now,
            uses: before.map_or(0, |before| before.uses) + 1,
        };
        let text = serde_json::to_vec(&about).map_err(|error| failed(error.into()))?;
        fs::write(&path, text).map_err(failed)?;
        let name = format!("{DIRECTORY}/{}", key.hex());
        self.shared.root.trash(&name)?;
        scratch.keep(&name)?;
        self.shared.waker.wake();
        self.bound()
    }

    /// Bytes of what is kept under a name that no layer has, too: what is free without it. None is 0. Blocks: all of its
    /// files are looked at.
    ///
    /// # Errors
    /// File errors.
    pub fn own_size(&self, key: &str) -> Result<u64> {
        let directory = match self.shared.root.open_directory(&format!("{DIRECTORY}/{key}")) {
            // Somebody has taken it meanwhile.
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            directory => directory?,
        };
        berth_archive::tree::own_size(directory.as_fd()).map_err(|error| Error::file("measuring", key, error))
    }

    /// All that are kept and not in use, those first that were not used for longest.
    ///
    /// # Errors
    /// File errors.
    pub fn list(&self) -> Result<Vec<KeptContext>> {
        let mut all = Vec::new();
        for key in self.shared.root.list(DIRECTORY)? {
            // One that is taken meanwhile has nothing to tell.
            let Some(about) = self.about(&key) else { continue };
            let About { size, description, created, used, uses, .. } = about;
            all.push(KeptContext { key, size, description, created, used, uses });
        }
        all.sort_by_key(|kept| kept.used);
        Ok(all)
    }

    /// Removes one; whether it was there.
    ///
    /// # Errors
    /// File errors.
    pub fn remove(&self, key: &str) -> Result<bool> {
        let removed = !key.contains('/') && self.shared.root.trash(&format!("{DIRECTORY}/{key}"))?;
        self.shared.waker.wake();
        Ok(removed)
    }

    /// What is known of one, if it can be believed.
    fn about(&self, key: &str) -> Option<About> {
        let text = fs::read(self.directory().join(key).join(ABOUT)).ok()?;
        let about: About = serde_json::from_slice(&text).ok()?;
        (about.boot == crate::boot_id().ok()?).then_some(about)
    }

    fn directory(&self) -> PathBuf {
        self.shared.root.path().join(DIRECTORY)
    }

    /// Removes what is too much.
    fn bound(&self) -> Result<()> {
        let ceiling = (self.shared.root.file_system_size()? / PART).min(CEILING);
        let all = self.list()?;
        let (mut count, mut total) = (all.len(), all.iter().map(|kept| kept.size).sum::<u64>());
        for kept in all {
            if count <= MOST && total <= ceiling {
                break;
            }
            self.remove(&kept.key)?;
            (count, total) = (count - 1, total - kept.size);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Storage};

    #[test]
    fn what_is_taken_is_nobody_elses() {
        let temp = tempfile::tempdir().unwrap();
        let storage = Storage::open(temp.path(), Options::default()).unwrap();
        let contexts = storage.contexts();
        let key = Digest::of(b"a directory");
        assert!(contexts.take(&key).unwrap().is_none());
        let scratch = storage.scratch().unwrap();
        fs::write(scratch.path().join("file"), "content").unwrap();
        fs::write(scratch.path().join("shared"), "with a layer").unwrap();
        fs::hard_link(scratch.path().join("shared"), temp.path().join("layer")).unwrap();
        contexts.keep(&key, scratch, 7, "a directory").unwrap();
        let kept = contexts.list().unwrap();
        assert_eq!((kept.len(), kept[0].size, kept[0].uses), (1, 7, 1));
        let about = fs::metadata(temp.path().join(DIRECTORY).join(key.hex()).join(ABOUT)).unwrap().len();
        assert_eq!(contexts.own_size(key.hex()).unwrap() - about, 7);

        let taken = contexts.take(&key).unwrap().unwrap();
        assert_eq!(fs::read_to_string(taken.path().join("file")).unwrap(), "content");
        assert!(contexts.take(&key).unwrap().is_none() && contexts.list().unwrap().is_empty());
        contexts.keep(&key, taken, 8, "a directory").unwrap();
        let again = contexts.list().unwrap();
        assert_eq!((again[0].uses, again[0].created), (2, kept[0].created));
        assert!(contexts.remove(&again[0].key).unwrap());
        assert!(!contexts.remove(&again[0].key).unwrap());
        assert!(!contexts.remove("../layers").unwrap());
    }

    #[test]
    fn there_are_not_too_many_and_none_of_an_earlier_boot() {
        let temp = tempfile::tempdir().unwrap();
        let storage = Storage::open(temp.path(), Options::default()).unwrap();
        let contexts = storage.contexts();
        let key = |number: usize| Digest::of(&number.to_le_bytes());
        for number in 0..=MOST {
            contexts.keep(&key(number), storage.scratch().unwrap(), 1, "x").unwrap();
        }
        assert_eq!(contexts.list().unwrap().len(), MOST);
        assert!(contexts.take(&key(0)).unwrap().is_none());
        contexts.keep(&key(0), storage.scratch().unwrap(), u64::MAX / 2, "too large").unwrap();
        assert!(contexts.list().unwrap().is_empty());

        contexts.keep(&key(1), storage.scratch().unwrap(), 1, "x").unwrap();
        let about = temp.path().join(DIRECTORY).join(key(1).hex()).join(ABOUT);
        let text = fs::read_to_string(&about).unwrap().replace(&crate::boot_id().unwrap(), "another");
        fs::write(&about, text).unwrap();
        assert!(contexts.take(&key(1)).unwrap().is_none());
        assert!(!about.exists());
    }
}
