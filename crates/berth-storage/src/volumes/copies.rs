//! New volumes whose files share their contents with those of another one.

use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};

use berth_archive::marks::Marks;
use berth_archive::overlay::Overlay as View;
use berth_archive::replica;

use super::{DATA, STAGED, VolumeRecord, Volumes, check, insert, owner, relative};
use crate::snapshots::Wish;
use crate::{Error, Result, Shared, projects};

impl Volumes<'_> {
    /// Makes the volume `new` with all that the volume `from` holds; contents are shared until one of both is written. What
    /// is written meanwhile is in it or not. A crash leaves all of it or nothing. Blocks.
    ///
    /// # Errors
    /// [`Error::NoSharing`] on a file system without reflinks; [`Error::Exists`], [`Error::Held`] for the new name;
    /// [`Error::NotFound`] for the old one; [`Error::NoQuotas`]; [`Error::Archive`] with what the copy failed at.
    pub fn copy(&self, from: &str, new: &VolumeRecord, limit: Option<u64>) -> Result<()> {
        check(from)?;
        check(&new.name)?;
        let taken = || Error::Exists { kind: "volume", id: new.name.clone() };
        let (_making, path) = {
            let _structure = self.shared.structure();
            if self.get(from)?.is_none() {
                return Err(Error::not_found("volume", from));
            }
            if self.get(&new.name)?.is_some() {
                return Err(taken());
            }
            let making = Making::begin(self.shared, &new.name)?;
            let path = relative(&new.name);
            self.shared.root.trash(&path)?;
            (making, path)
        };
        let made = self.fill(from, new, limit).and_then(|()| {
            let _structure = self.shared.structure();
            self.shared.write(|transaction| insert(transaction, new))
        });
        if made.is_err() {
            let abandoned =
                self.shared.write(|transaction| projects::abandon(transaction, &owner(&new.name)));
            if let Err(error) = abandoned.and_then(|()| self.shared.root.trash(&path)) {
                tracing::warn!(%error, "a half-made volume stays until the next start");
            }
            self.shared.waker.wake();
        }
        made
    }

    /// What a crash leaves before the end of it is empty, and is swept.
    fn fill(&self, from: &str, new: &VolumeRecord, limit: Option<u64>) -> Result<()> {
        let name = &new.name;
        self.directories(name, Wish { limit, owned: false })?;
        if let Some(owners) = self.owners(from)? {
            crate::owners::write(&self.shared.root.path().join(relative(name)), &owners)?;
        }
        let staged = self.stage(name)?;
        let target = self.shared.root.open_directory(&format!("{}/{STAGED}", relative(name)))?;
        let source = self.shared.root.path().join(relative(from)).join(DATA);
        let failed = |error| Error::archive("copying a volume to", &staged, error);
        if !replica::shares(target.as_fd()).map_err(failed)? {
            return Err(Error::NoSharing(self.shared.root.path().to_owned()));
        }
        let view = View::open_marked([(&source, Marks::Whole { made: None })]).map_err(failed)?;
        self.shared.root.check_space(self.shared.keep_free_bytes)?;
        // Where there is a limit, what is free in the directory is what is left of that.
        let keep_free = if limit.is_some() { 0 } else { self.shared.keep_free_bytes };
        let options = replica::Options { keep_free, ..Default::default() };
        replica::copy(&view, target.as_fd(), &options).map_err(failed)?;
        self.publish(name)
    }
}

/// The name of a volume that is being made: nobody else makes one of it meanwhile.
#[derive(Debug)]
struct Making {
    shared: Arc<Shared>,
    name: String,
}

impl Making {
    fn begin(shared: &Arc<Shared>, name: &str) -> Result<Self> {
        let mut names = shared.copied_volumes.lock().unwrap_or_else(PoisonError::into_inner);
        if !names.insert(name.to_owned()) {
            return Err(held(name));
        }
        Ok(Self { shared: Arc::clone(shared), name: name.to_owned() })
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let mut names = self.shared.copied_volumes.lock().unwrap_or_else(PoisonError::into_inner);
        names.remove(&self.name);
    }
}

/// Refuses the name of a volume that is being made.
pub(super) fn check_free(shared: &Shared, name: &str) -> Result<()> {
    let names = shared.copied_volumes.lock().unwrap_or_else(PoisonError::into_inner);
    if names.contains(name) { Err(held(name)) } else { Ok(()) }
}

fn held(name: &str) -> Error {
    Error::Held { kind: "volume", id: name.to_owned(), owner: "a snapshot that is being made".to_owned() }
}
