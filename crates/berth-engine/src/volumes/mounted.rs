//! Volumes that are mounts themselves: mounted at their place on the host while anybody needs them.
//!
//! Containers have their own copy of the mount, so that nothing they see goes with the one on the host; but a file system
//! of memory, or of another host, is one and the same for all only as long as it is mounted somewhere. A daemon that
//! was killed leaves its mounts, and the next one takes them over.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use berth_storage::VolumeRecord;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::options::Flags;
use super::{LOCAL, Options, Volumes};
use crate::Error;
use crate::create::Definition;
use crate::create::mounts::MountSource;
use crate::engine::Parts;
use crate::plugin::PluginError;

impl Volumes {
    /// Sees to it that a volume is mounted until `user` releases it, and says where. Blocks, perhaps on another host.
    pub(crate) fn acquire(&self, record: &VolumeRecord, user: &str) -> Result<PathBuf, Error> {
        if record.driver != LOCAL {
            return self.acquire_external(record, user);
        }
        let failed = |why: String| Error::Volume(format!("failed to mount local volume: {why}"));
        let options = Options::parse(record.options.as_ref(), true).map_err(failed)?;
        let place = self.storage.volumes().directory(&record.name);
        if !options.needs_mount() {
            return Ok(place);
        }
        let turn = self.turn(&record.name);
        let mut users = turn.lock();
        if !is_mounted(&place) {
            mount(&options, &place).map_err(|error| {
                let place = place.display();
                Error::Volume(format!("error while mounting volume '{place}': {error}"))
            })?;
        }
        users.insert(user.to_owned());
        self.note(&record.name, user);
        Ok(place)
    }

    /// A plugin mounts its volumes for each user.
    fn acquire_external(&self, record: &VolumeRecord, user: &str) -> Result<PathBuf, Error> {
        let name = &record.name;
        let failed =
            |why: &dyn std::fmt::Display| Error::Volume(format!("error while mounting volume '': {why}"));
        let driver = self.drivers.find(&record.driver).map_err(|error| failed(&error))?;
        let turn = self.turn(name);
        let mut users = turn.lock();
        let place = match users.contains(user) {
            true => driver.path(name),
            false => driver.mount(name, user).inspect_err(|error| {
                // Nobody else would have it undone.
                if let PluginError::Unanswered { .. } = error
                    && let Err(error) = driver.unmount(name, user)
                {
                    tracing::warn!(name, %error, "a volume may stay mounted");
                }
            }),
        };
        let place = place.map_err(|error| failed(&error))?;
        users.insert(user.to_owned());
        self.note(name, user);
        self.drivers.note(name, &record.driver, |known| known.place.clone_from(&place));
        if !place.is_absolute() {
            return Err(failed(&format!("driver {:?} says that it is at {place:?}", record.driver)));
        }
        Ok(place)
    }

    fn note(&self, name: &str, user: &str) {
        let mut needs = self.needs.lock().unwrap_or_else(PoisonError::into_inner);
        needs.entry(user.to_owned()).or_default().insert(name.to_owned());
    }

    /// Whether [`Volumes::release`] has anything to do.
    pub(crate) fn has_mounted(&self, user: &str) -> bool {
        self.needs.lock().unwrap_or_else(PoisonError::into_inner).contains_key(user)
    }

    /// Keeps a volume from being removed or unmounted until `user` releases it.
    pub(super) fn keep(&self, name: &str, user: &str) {
        self.adopt(name, user);
    }

    /// Notes that a container which an earlier daemon started needs a volume.
    fn adopt(&self, name: &str, user: &str) {
        self.turn(name).lock().insert(user.to_owned());
        self.note(name, user);
    }

    /// Lets go of all that `user` has acquired; what nobody else needs is unmounted. Blocks.
    pub(crate) fn release(&self, user: &str) {
        let needed = self.needs.lock().unwrap_or_else(PoisonError::into_inner).remove(user);
        for name in needed.unwrap_or_default() {
            let turn = self.turn(&name);
            let mut users = turn.lock();
            if !users.remove(user) {
                continue;
            }
            let released = match self.drivers.known(&name) {
                Some(known) => self.release_external(&name, &known.driver, user, users.is_empty()),
                None if users.is_empty() => unmount(&self.storage.volumes().directory(&name)),
                None => Ok(()),
            };
            if let Err(error) = released {
                tracing::warn!(name, %error, "a volume stays mounted");
            }
        }
    }

    fn release_external(&self, name: &str, driver: &str, user: &str, is_last: bool) -> Result<(), Error> {
        let found = self.drivers.find(driver).and_then(|driver| driver.unmount(name, user));
        if is_last {
            self.drivers.note(name, driver, |known| known.place.clear());
        }
        found.map_err(|error| Error::Volume(error.to_string()))
    }

    /// Unmounts what an earlier daemon had mounted and nobody needs. What cannot be unmounted stays. Blocks.
    pub(crate) fn sweep(&self) -> Result<(), Error> {
        for record in self.storage.volumes().list()? {
            let turn = self.turn(&record.name);
            let users = turn.lock();
            if record.driver == LOCAL && record.options.is_some() && users.is_empty() {
                let unmounted = unmount(&self.storage.volumes().directory(&record.name));
                if let Err(error) = unmounted {
                    tracing::warn!(name = record.name, %error, "a volume stays mounted");
                }
            }
        }
        Ok(())
    }
}

impl Parts {
    /// Notes again what a container has that an earlier daemon started.
    pub(crate) fn adopt_volumes(&self, definition: &Definition) {
        for plan in &definition.mounts {
            let MountSource::Volume { name, .. } = &plan.source else { continue };
            let needs_mount = self.storage.volumes().get(name).is_ok_and(|record| {
                record.is_some_and(|record| {
                    record.driver != LOCAL
                        || Options::parse(record.options.as_ref(), true)
                            .is_ok_and(|options| options.needs_mount())
                })
            });
            if needs_mount {
                self.volumes.adopt(name, &definition.id);
            }
        }
    }
}

fn mount(options: &Options, place: &Path) -> Result<(), String> {
    let (device, text) = options.resolved()?;
    let wanted = Flags::parse(&text);
    berth_sys::mount::by_name(&device, place, &options.kind, wanted.flags, &wanted.data)
        .and_then(|()| match wanted.propagation {
            0 => Ok(()),
            propagation => berth_sys::mount::change_propagation(place, propagation),
        })
        .map_err(|error| {
            let mut text = format!("mount {device}:{}", place.display());
            if wanted.flags != 0 {
                text.push_str(&format!(", flags: {:#x}", wanted.flags));
            }
            if !wanted.data.is_empty() {
                text.push_str(&format!(", data: {}", wanted.data));
            }
            let text = format!("{text}: {}", berth_runtime::launch::describe(&error));
            format!("failed to mount local volume: {}", options.without_password(&text))
        })
}

/// Whether what a volume holds is the host's or a plugin's own: others reach it by another path. Nobody's files there are made
/// to belong to others.
pub(crate) fn is_the_hosts(record: &VolumeRecord) -> bool {
    record.driver != LOCAL
        || Options::parse(record.options.as_ref(), true).is_ok_and(|options| options.is_bind())
}

/// Takes away all that is mounted at a place; nothing there, or nothing mounted, is fine. What is mounted is not asked for
/// anything: its server may have gone.
pub(super) fn unmount(place: &Path) -> Result<(), Error> {
    loop {
        let Err(source) = berth_sys::mount::detach(place) else { continue };
        return match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => Ok(()),
            // Who may unmount nothing has mounted nothing.
            Some(Errno::PERM) if !is_mounted(place) => Ok(()),
            _ => Err(Error::Io { operation: format!("unmount {}", place.display()), source }),
        };
    }
}

/// Whether something is mounted at a place; what cannot be examined is, for the engine's own directory can.
fn is_mounted(place: &Path) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    match rustix::fs::statx(CWD, place, flags, StatxFlags::TYPE) {
        Ok(stat) => stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        Err(error) => !matches!(error, Errno::NOENT | Errno::NOTDIR),
    }
}
