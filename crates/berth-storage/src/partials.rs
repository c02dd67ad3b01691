//! Blobs that came in part: what interrupted downloads left for whoever goes on with them, until they are old or somebody
//! wants the room.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::root::PARTIAL;
use crate::{Blobs, Error, Result, Shared};

/// How long a partly received blob waits for somebody to go on with it.
const AGE: Duration = Duration::from_secs(24 * 3600);
/// How often the housekeeper looks.
const PAUSE: Duration = Duration::from_secs(3600);
/// The kind of claim that a writer of a blob has.
pub(crate) const CLAIM: &str = "blob";

/// A blob that came in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialBlob {
    /// The digits of its digest.
    pub name: String,
    /// Bytes that came.
    pub size: u64,
    /// When the last of them came.
    pub modified: Timestamp,
    /// Whether a download goes on with it now, so that it stays.
    pub held: bool,
}

impl Blobs<'_> {
    /// All blobs that came in part.
    ///
    /// # Errors
    /// File errors.
    pub fn partial(&self) -> Result<Vec<PartialBlob>> {
        list(self.shared())
    }

    /// Removes what came of a blob, unless a download goes on with it; whether it is gone by this.
    ///
    /// # Errors
    /// File errors.
    pub fn forget(&self, name: &str) -> Result<bool> {
        forget(self.shared(), name)
    }
}

fn list(shared: &Shared) -> Result<Vec<PartialBlob>> {
    let mut all = Vec::new();
    for name in shared.root.list(PARTIAL)? {
        // One that is complete meanwhile is none any more.
        let path = shared.root.path().join(PARTIAL).join(&name);
        let Ok(metadata) = std::fs::metadata(path) else { continue };
        let modified = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
        all.push(PartialBlob {
            size: metadata.len(),
            modified: modified.unwrap_or_default(),
            held: shared.leases.is_claimed(CLAIM, &name),
            name,
        });
    }
    Ok(all)
}

fn forget(shared: &Shared, name: &str) -> Result<bool> {
    // Whoever comes for it in this moment tries again.
    match shared.leases.claim(CLAIM, name, "its removal") {
        Ok(_claim) => {
            let is_gone = shared.root.trash(&format!("{PARTIAL}/{name}"))?;
            shared.waker.wake();
            Ok(is_gone)
        }
        Err(Error::Held { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Forgets those with which nobody went on for long. Whether any are left.
pub(crate) fn forget_old(shared: &Shared) -> Result<bool> {
    let now = Timestamp::now();
    let mut is_any = false;
    for partial in list(shared)? {
        let age = Duration::try_from(now.duration_since(partial.modified)).unwrap_or_default();
        let is_gone = age > AGE && forget(shared, &partial.name)?;
        is_any |= !is_gone;
    }
    Ok(is_any)
}

/// When the housekeeper looks for old ones.
#[derive(Debug)]
pub(crate) struct Watch {
    next: Instant,
    is_any: bool,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self { next: Instant::now(), is_any: false }
    }

    /// How long the housekeeper may sleep.
    pub(crate) fn sleep(&self) -> Option<Duration> {
        self.is_any.then(|| self.next.saturating_duration_since(Instant::now()))
    }

    /// Forgets old ones, if it is time to look.
    pub(crate) fn work(&mut self, shared: &Shared) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + PAUSE;
        self.is_any = forget_old(shared).unwrap_or_else(|error| {
            tracing::warn!(%error, "old parts of blobs are not removed");
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use berth_oci::Digest;

    use super::*;
    use crate::{BlobKind, BlobWriter, Expected, Options, Storage};

    fn begin(storage: &Storage, content: &[u8]) -> BlobWriter {
        let expected = Expected { digest: Digest::of(content), size: None };
        let mut writer = storage.blobs().writer(BlobKind::Layer, expected).unwrap();
        writer.write(content).unwrap();
        writer.flush().unwrap();
        writer
    }

    #[test]
    fn parts_are_counted_and_go_when_they_are_old_or_unwanted() {
        let temp = tempfile::tempdir().unwrap();
        let storage = Storage::open(temp.path().join("root"), Options::default()).unwrap();
        drop([begin(&storage, b"old"), begin(&storage, b"recent")]);
        let held = begin(&storage, b"held");
        let held_name = Digest::of(b"held").hex().to_owned();
        let sizes = || {
            let mut all: Vec<_> =
                storage.blobs().partial().unwrap().iter().map(|part| (part.size, part.held)).collect();
            all.sort_unstable();
            all
        };
        assert_eq!(sizes(), [(3, false), (4, true), (6, false)]);
        let before = SystemTime::now() - AGE - Duration::from_secs(60);
        for content in [&b"old"[..], b"held"] {
            let path = storage.root().join(PARTIAL).join(Digest::of(content).hex());
            File::options().append(true).open(path).unwrap().set_modified(before).unwrap();
        }
        assert!(forget_old(&storage.shared).unwrap(), "some are left");
        assert_eq!(sizes(), [(4, true), (6, false)], "old, and nobody goes on with it");
        assert!(!storage.blobs().forget(&held_name).unwrap());
        assert!(storage.blobs().forget(Digest::of(b"recent").hex()).unwrap());
        drop(held);
        assert!(!forget_old(&storage.shared).unwrap());
        assert_eq!(sizes(), []);
        assert!(!storage.blobs().forget(&held_name).unwrap(), "it is gone already");
    }
}
