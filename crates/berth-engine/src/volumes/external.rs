//! Volumes that plugins keep: a row each, as others have, and the plugin's own idea of whether they are there.

use std::path::PathBuf;

use berth_storage::{VolumeRecord, VolumeRemoval, Wish};
use jiff::Timestamp;

use super::driver::{Described, Drivers, not_found};
use super::{LOCAL, Volumes};
use crate::Error;
use crate::create::mounts::VolumeWish;

impl Volumes {
    /// Learns from the rows which volumes plugins keep.
    pub(crate) fn learn(&self) -> Result<(), Error> {
        for record in self.storage.volumes().list()? {
            if record.driver != LOCAL {
                self.drivers.note(&record.name, &record.driver, |_| ());
            }
        }
        Ok(())
    }

    /// Where a volume's content is; empty for one of a plugin that has not said so.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        match self.drivers.known(name) {
            Some(known) => known.place,
            None => self.storage.volumes().directory(name),
        }
    }

    /// The volume of this name, if it is there, and of the driver that is asked for; empty for any. What its plugin has
    /// lost and nobody uses is forgotten.
    pub(super) fn existing(&self, name: &str, wanted: &str) -> Result<Option<VolumeRecord>, Error> {
        let conflict =
            |why: String| Error::Conflict(format!("create {name}: {why}: volume name must be unique"));
        let Some(found) = self.storage.volumes().get(name)? else { return Ok(None) };
        if !matches!(wanted, "" | LOCAL) && wanted != found.driver {
            self.drivers.find(wanted).map_err(|error| not_found(name, wanted, &error))?;
        }
        if found.driver != LOCAL {
            // Not while it is being removed.
            let turn = self.turn(name);
            let _users = turn.lock();
            let driver = &found.driver;
            let there = self.drivers.find(driver).and_then(|driver| driver.get(name)).map_err(|error| {
                conflict(format!(
                    "found reference to volume '{name}' in driver '{driver}', but got an error while checking the driver: {error}"
                ))
            })?;
            match there {
                Some(described) => self.drivers.heard(driver, &described),
                None => return self.lost(name).map(|()| None),
            }
        }
        if !wanted.is_empty() && wanted != found.driver {
            return Err(conflict(format!("driver '{}' already has volume '{name}'", found.driver)));
        }
        Ok(Some(found))
    }

    /// Forgets a volume that its plugin has no more.
    fn lost(&self, name: &str) -> Result<(), Error> {
        match self.storage.volumes().remove(name)? {
            VolumeRemoval::InUse(_) => Err(Error::Conflict(format!(
                "create {name}: found references to volume '{name}' in driver '{}' but the volume was not found in the driver -- you may need to remove containers referencing this volume or force remove the volume to re-create it: volume name must be unique",
                self.drivers.of(name)
            ))),
            VolumeRemoval::Removed | VolumeRemoval::Missing => {
                self.drivers.forget(name);
                Ok(())
            }
        }
    }

    /// Makes a volume of a plugin, or takes up the one that it has.
    pub(super) fn make_external(
        &self,
        name: &str,
        driver: &str,
        wish: &VolumeWish,
    ) -> Result<(VolumeRecord, bool), Error> {
        if !berth_storage::Volumes::can_have(name) {
            let why = "the name of a volume is one of a directory, and does not begin with a dot";
            return Err(Error::InvalidParameter(format!("create {name}: {why}")));
        }
        let found = self.drivers.find(driver).map_err(|error| not_found(name, driver, &error))?;
        let failed = |error| Error::Volume(format!("create {name}: {error}"));
        if !found.get(name).is_ok_and(|there| there.is_some()) {
            found.create(name, wish.options.as_ref()).map_err(failed)?;
        }
        let new = VolumeRecord {
            name: name.to_owned(),
            driver: driver.to_owned(),
            created: Timestamp::now(),
            labels: wish.labels.clone(),
            options: wish.options.clone(),
        };
        // Its directory stays empty: what it holds is the plugin's affair.
        let made = self.storage.volumes().create(&new, Wish::default())?;
        let record = self.storage.volumes().get(name)?;
        let record = record.ok_or_else(|| Error::NoSuchVolume(name.to_owned()))?;
        self.drivers.note(name, driver, |known| known.scope.clone_from(&found.scope));
        Ok((record, made))
    }

    /// Has a plugin remove a volume. `Ok` if the row may go.
    pub(super) fn remove_external(&self, record: &VolumeRecord, force: bool) -> Result<(), Error> {
        let name = &record.name;
        let removed = self.drivers.find(&record.driver).and_then(|driver| driver.remove(name));
        match removed {
            Err(error) if force => {
                tracing::warn!(name, %error, "a volume is forgotten that its driver did not remove");
                Ok(())
            }
            other => other.map_err(|error| Error::Volume(format!("remove {name}: {error}"))),
        }
    }

    /// Removes a volume that no row tells of, if an active plugin has it; returns the plugin's name.
    pub(super) fn remove_found(&self, name: &str) -> Result<String, Error> {
        let (driver, described) =
            self.drivers.search(name).ok_or_else(|| Error::NoSuchVolume(name.to_owned()))?;
        let record = found(&driver, &described);
        self.remove_external(&record, false)?;
        self.drivers.forget(name);
        Ok(driver)
    }

    /// Whether a volume without a name can go with its container: a plugin has to remove its own first.
    pub(super) fn goes(&self, name: &str) -> bool {
        let Some(known) = self.drivers.known(name) else { return true };
        match self.drivers.find(&known.driver).and_then(|driver| driver.remove(name)) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(name, %error, "a volume stays whose driver did not remove it");
                false
            }
        }
    }

    /// A volume, with what its plugin tells about it.
    pub(super) fn described(&self, name: &str) -> Result<(VolumeRecord, Option<Described>), Error> {
        let missing = || Error::NoSuchVolume(name.to_owned());
        let Some(record) = self.storage.volumes().get(name)? else {
            let (driver, described) = self.drivers.search(name).ok_or_else(missing)?;
            let record = found(&driver, &described);
            return Ok((record, Some(described)));
        };
        if record.driver == LOCAL {
            return Ok((record, None));
        }
        let failed = |error| Error::Volume(format!("get {name}: {error}"));
        let there = self.drivers.find(&record.driver).and_then(|driver| driver.get(name)).map_err(failed)?;
        let described = there.ok_or_else(missing)?;
        self.drivers.heard(&record.driver, &described);
        Ok((record, Some(described)))
    }

    /// All volumes by name, those included that plugins made by themselves; and what plugins failed to tell.
    pub(super) fn all(&self) -> Result<(Vec<VolumeRecord>, Vec<String>), Error> {
        let mut records = self.storage.volumes().list()?;
        let mut warnings = Vec::new();
        let known = records.iter().map(|record| record.driver.as_str()).filter(|driver| *driver != LOCAL);
        let mut drivers: std::collections::BTreeSet<String> = known.map(str::to_owned).collect();
        drivers.extend(self.drivers.active().into_keys());
        for name in drivers {
            let listed = self.drivers.find(&name).and_then(|driver| driver.list());
            match listed {
                Ok(listed) => {
                    records.retain(|record| {
                        record.driver != name || listed.iter().any(|volume| volume.name == record.name)
                    });
                    for volume in &listed {
                        // The first volume of a name counts.
                        if !records.iter().any(|record| record.name == volume.name) {
                            records.push(found(&name, volume));
                        }
                        if records.iter().any(|one| one.name == volume.name && one.driver == name) {
                            self.drivers.heard(&name, volume);
                        }
                    }
                }
                Err(error) => warnings.push(format!("list {name}: {error}")),
            }
        }
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((records, warnings))
    }
}

/// What stands for a volume that a plugin has and no row tells of.
fn found(driver: &str, described: &Described) -> VolumeRecord {
    VolumeRecord {
        name: described.name.clone(),
        driver: driver.to_owned(),
        created: described.created_at.unwrap_or_default(),
        labels: None,
        options: None,
    }
}

impl Drivers {
    /// Notes what a driver says about one of its volumes.
    pub(super) fn heard(&self, driver: &str, described: &Described) {
        let scope = self.active().get(driver).map(|driver| driver.scope.clone()).unwrap_or_default();
        self.note(&described.name, driver, |known| {
            known.scope = scope;
            if !described.mountpoint.is_empty() {
                known.place = PathBuf::from(&described.mountpoint);
            }
        });
    }

    /// Whether a volume is this host's or everybody's: `local` or `global`.
    pub(super) fn scope(&self, volume: &str) -> String {
        let scope = self.known(volume).map(|known| known.scope).filter(|scope| !scope.is_empty());
        scope.unwrap_or_else(|| LOCAL.to_owned())
    }
}
