//! Volumes: made, shown, removed, mounted, filled.
//!
//! A volume's row and directory are the storage's; which containers have it is a row too. Here is what lies between:
//! names and options in Docker's words, volumes that are mounts themselves, and what an image brings into a new one.

mod archive;
mod driver;
mod external;
mod mounted;
mod options;
mod populate;
mod prune;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use berth_api::StringMap;
use berth_api::filter::Filters;
use berth_api::volume::{CreateRequest, ListResponse, Volume};
use berth_storage::{Storage, VolumeRecord, VolumeRemoval, Wish};
use jiff::Timestamp;

use crate::blocking::blocking;
use crate::create::mounts::{VolumeWish, volume_name};
use crate::engine::Parts;
use crate::event::{Event, VolumeEvent};
use crate::images::truth;
use crate::life::prune::is_labelled;
use crate::list::filter::check_known;
use crate::list::pattern;
use crate::{Engine, Error, name};

pub(crate) use driver::Drivers;
pub(crate) use mounted::is_the_hosts;
pub(crate) use options::Options;
pub(crate) use populate::Preparation;
pub(crate) use prune::size;

/// The driver that is no plugin.
pub(crate) const LOCAL: &str = "local";
/// The label of volumes that were made without a name.
pub(crate) const ANONYMOUS: &str = "com.docker.volume.anonymous";
const LIST_FILTERS: [&str; 5] = ["dangling", "driver", "label", "label!", "name"];

/// What goes on with volumes that no row tells.
pub(crate) struct Volumes {
    storage: Arc<Storage>,
    /// Other drivers than the local one.
    pub drivers: Drivers,
    /// Creations of containers that are about to have a volume: it must not go meanwhile.
    held: Mutex<HashMap<String, usize>>,
    /// One lock for each volume in use, and for each that is being looked at. It is held while the volume is mounted or filled, which may take long.
    turns: Mutex<HashMap<String, Arc<Mutex<Users>>>>,
    /// Which volumes each user needs mounted.
    needs: Mutex<HashMap<String, BTreeSet<String>>>,
}

/// Who needs a volume mounted at its place on the host: containers that run, and whoever copies.
type Users = HashSet<String>;

impl Volumes {
    pub(crate) fn new(storage: &Arc<Storage>) -> Self {
        Self {
            storage: Arc::clone(storage),
            drivers: Drivers::default(),
            held: Mutex::default(),
            turns: Mutex::default(),
            needs: Mutex::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, name: &str) -> Turn<'_> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let users = Arc::clone(turns.entry(name.to_owned()).or_default());
        Turn { volumes: self, name: name.to_owned(), users }
    }

    /// Keeps a volume, or its name if there is none yet, from being removed.
    fn hold(&self, name: &str) -> Held<'_> {
        *self.held().entry(name.to_owned()).or_default() += 1;
        Held { volumes: self, name: name.to_owned() }
    }

    /// Makes a volume unless there is one of the name; also whether it was made.
    fn ensure(&self, name: &str, wish: &VolumeWish) -> Result<(VolumeRecord, bool), Error> {
        if let Some(found) = self.existing(name, &wish.driver)? {
            return Ok((found, false));
        }
        let elsewhere = || self.drivers.search(name).map(|(driver, _)| driver);
        match wish.driver.as_str() {
            LOCAL => self.make(name, wish),
            "" => match elsewhere() {
                Some(driver) => self.make_external(name, &driver, wish),
                None => self.make(name, wish),
            },
            driver => self.make_external(name, driver, wish),
        }
    }

    /// Makes a volume of the local driver.
    fn make(&self, name: &str, wish: &VolumeWish) -> Result<(VolumeRecord, bool), Error> {
        volume_name(name)?;
        let failed = |why: String| Error::InvalidParameter(format!("create {name}: {why}"));
        let options =
            Options::parse(wish.options.as_ref(), self.storage.enforces_quotas()).map_err(failed)?;
        let new = VolumeRecord {
            name: name.to_owned(),
            driver: LOCAL.to_owned(),
            created: Timestamp::now(),
            labels: wish.labels.clone(),
            options: wish.options.clone(),
        };
        // What is mounted there has owners of its own.
        let wish = Wish { limit: options.size, owned: !options.needs_mount() };
        let made = self.storage.volumes().create(&new, wish)?;
        let found = self.storage.volumes().get(name)?.ok_or_else(|| Error::NoSuchVolume(name.to_owned()))?;
        Ok((found, made))
    }

    /// Removes a volume that nobody has or is about to have; returns its driver. With `force`, one of a plugin is
    /// forgotten even if the plugin fails.
    fn remove(&self, name: &str, force: bool) -> Result<String, Error> {
        let in_use = |users: &[String]| {
            let users = if users.is_empty() { String::new() } else { format!(" - [{}]", users.join(", ")) };
            Error::Conflict(format!("remove {name}: volume is in use{users}"))
        };
        let Some(record) = self.storage.volumes().get(name)? else {
            return self.remove_found(name);
        };
        if let Some(users) = self.storage.volumes().users()?.get(name) {
            return Err(in_use(&users.iter().cloned().collect::<Vec<_>>()));
        }
        // Nothing of what is mounted there must be removed with it.
        let turn = self.turn(name);
        let users = turn.lock();
        if !users.is_empty() {
            return Err(in_use(&[]));
        }
        if self.held().contains_key(name) {
            return Err(in_use(&[]));
        }
        match record.driver.as_str() {
            LOCAL => mounted::unmount(&self.storage.volumes().directory(name))?,
            _ => self.remove_external(&record, force)?,
        }
        let held = self.held();
        if held.contains_key(name) && record.driver == LOCAL {
            return Err(in_use(&[]));
        }
        match self.storage.volumes().remove(name)? {
            VolumeRemoval::Removed => {
                self.drivers.forget(name);
                Ok(record.driver)
            }
            VolumeRemoval::Missing => Err(Error::NoSuchVolume(name.to_owned())),
            VolumeRemoval::InUse(users) => Err(in_use(&users)),
        }
    }
}

impl Volumes {
    /// Removes a container's row, and those of `volumes` that nobody else has; returns these, with their drivers.
    pub(crate) fn remove_with(
        &self,
        container: &str,
        volumes: &[String],
    ) -> Result<Vec<(String, String)>, Error> {
        let mut going = Vec::new();
        // Whoever is about to have one holds it; the lock keeps it so until they are gone.
        let turns: Vec<_> = volumes.iter().map(|name| self.turn(name)).collect();
        let mut locked = Vec::new();
        for (name, turn) in volumes.iter().zip(&turns) {
            let users = turn.lock();
            if users.is_empty() && !self.held().contains_key(name) {
                going.push(name.clone());
                locked.push(users);
            }
        }
        let others = self.storage.volumes().users()?;
        let is_shared =
            |name: &String| others.get(name).is_some_and(|users| users.iter().any(|user| user != container));
        going.retain(|name| !is_shared(name) && self.goes(name));
        for name in going.iter().filter(|name| self.drivers.known(name).is_none()) {
            mounted::unmount(&self.storage.volumes().directory(name))?;
        }
        let held = self.held();
        going.retain(|name| !held.contains_key(name));
        let gone = self.storage.containers().remove_with(container, &going)?;
        let with_driver = |name: String| {
            let driver = self.drivers.of(&name);
            self.drivers.forget(&name);
            (name, driver)
        };
        Ok(gone.into_iter().map(with_driver).collect())
    }
}

/// The lock of one volume. It is forgotten with the last who has it, unless it says that somebody uses the volume.
struct Turn<'a> {
    volumes: &'a Volumes,
    name: String,
    users: Arc<Mutex<Users>>,
}

impl Turn<'_> {
    /// Waits for those who mount, fill or remove the volume.
    fn lock(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.volumes.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let is_idle = match self.users.try_lock() {
            Ok(users) => users.is_empty(),
            Err(TryLockError::Poisoned(users)) => users.into_inner().is_empty(),
            Err(TryLockError::WouldBlock) => false,
        };
        // The map's and this one: nobody gets another while the map is locked.
        if is_idle && Arc::strong_count(&self.users) == 2 {
            turns.remove(&self.name);
        }
    }
}

/// Keeps a volume from being removed.
struct Held<'a> {
    volumes: &'a Volumes,
    name: String,
}

impl Held<'_> {
    /// Whether nobody else is about to have it.
    fn is_alone(&self) -> bool {
        self.volumes.held().get(&self.name) == Some(&1)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut held = self.volumes.held();
        if let Some(count) = held.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.name);
            }
        }
    }
}

impl Parts {
    /// Makes a volume for nobody yet, unless there is one of the name. Blocks.
    pub(crate) fn ensure_volume(&self, name: &str, wish: &VolumeWish) -> Result<VolumeRecord, Error> {
        let _held = self.volumes.hold(name);
        let (record, made) = self.volumes.ensure(name, wish)?;
        if made {
            self.tell_volume(name, record.driver.clone(), VolumeEvent::Create);
        }
        Ok(record)
    }

    /// A volume as clients see it.
    pub(crate) fn shown_volume(&self, record: VolumeRecord) -> Volume {
        // As in Docker, to the second.
        let second = Timestamp::new(record.created.as_second(), 0).unwrap_or_default();
        Volume {
            created_at: Some(second.into()),
            scope: self.volumes.drivers.scope(&record.name),
            driver: record.driver,
            labels: record.labels,
            status: None,
            mountpoint: self.volume_dir(&record.name).display().to_string(),
            name: record.name,
            options: record.options,
            usage_data: None,
        }
    }

    pub(crate) fn tell_volume(&self, name: &str, driver: String, event: VolumeEvent) {
        self.events.publish(Event::Volume { name: name.to_owned(), driver, event });
    }

    fn volume_list(&self, filters: &Filters) -> Result<ListResponse, Error> {
        check_known(filters, &LIST_FILTERS)?;
        let dangling = truth(filters, "dangling")?;
        let users = self.storage.volumes().users()?;
        let (mut found, warnings) = self.volumes.all()?;
        found.retain(|volume| is_wanted(volume, filters) && is_used(&users, dangling, &volume.name));
        let volumes = found.into_iter().map(|record| self.shown_volume(record)).collect();
        Ok(ListResponse { volumes, warnings: (!warnings.is_empty()).then_some(warnings) })
    }
}

fn is_used(users: &BTreeMap<String, BTreeSet<String>>, dangling: Option<bool>, name: &str) -> bool {
    dangling.is_none_or(|dangling| users.contains_key(name) != dangling)
}

fn is_wanted(volume: &VolumeRecord, filters: &Filters) -> bool {
    let any = |name: &str, fits: &dyn Fn(&str) -> bool| !filters.has(name) || filters.get(name).any(fits);
    any("driver", &|wanted| wanted == volume.driver)
        && any("name", &|wanted| pattern::matches(wanted, &volume.name))
        && is_labelled(filters, volume.labels.as_ref())
}

impl Engine {
    /// Makes a volume, or shows the one that has the name.
    pub async fn volume_create(&self, request: CreateRequest) -> Result<Volume, Error> {
        let parts = Arc::clone(&self.parts);
        blocking(move || {
            let CreateRequest { mut name, driver, driver_opts, mut labels, .. } = request;
            if name.is_empty() {
                name = name::new_id()
                    .map_err(|source| Error::Io { operation: "name a volume".into(), source })?;
                labels.get_or_insert_default().insert(ANONYMOUS.to_owned(), String::new());
            }
            let wish = VolumeWish { driver, options: driver_opts, labels, ..VolumeWish::default() };
            let record = parts.ensure_volume(&name, &wish)?;
            Ok(parts.shown_volume(record))
        })
        .await
    }

    /// All volumes that satisfy the filters, by name.
    pub async fn volume_list(&self, filters: Filters) -> Result<ListResponse, Error> {
        let parts = Arc::clone(&self.parts);
        blocking(move || parts.volume_list(&filters)).await
    }

    /// A volume.
    pub async fn volume_inspect(&self, name: &str) -> Result<Volume, Error> {
        let (parts, name) = (Arc::clone(&self.parts), name.to_owned());
        blocking(move || {
            let (record, described) = parts.volumes.described(&name)?;
            let shown = parts.shown_volume(record);
            Ok(Volume {
                status: described.as_ref().and_then(|volume| volume.status.clone()),
                created_at: match &described {
                    Some(described) => described.created_at.map(Into::into),
                    None => shown.created_at,
                },
                ..shown
            })
        })
        .await
    }

    /// Removes a volume that no container has. With `force`, that there is none is no error, nor that a plugin fails to
    /// remove it.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<(), Error> {
        let (parts, name) = (Arc::clone(&self.parts), name.to_owned());
        blocking(move || match parts.volumes.remove(&name, force) {
            Ok(driver) => {
                parts.tell_volume(&name, driver, VolumeEvent::Destroy);
                Ok(())
            }
            Err(Error::NoSuchVolume(_)) if force => Ok(()),
            Err(error) => Err(error),
        })
        .await
    }

    /// Gives a volume that no container has another name.
    pub async fn volume_rename(&self, old: &str, new: &str) -> Result<Volume, Error> {
        let (parts, old, new) = (Arc::clone(&self.parts), old.to_owned(), new.to_owned());
        blocking(move || {
            volume_name(&new)?;
            let _held = parts.volumes.hold(&new);
            parts.volumes.rename(&old, &new)?;
            parts.tell_volume(&new, LOCAL.to_owned(), VolumeEvent::Rename { old });
            let record = parts.storage.volumes().get(&new)?.ok_or(Error::NoSuchVolume(new))?;
            Ok(parts.shown_volume(record))
        })
        .await
    }
}

impl Volumes {
    fn rename(&self, old: &str, new: &str) -> Result<(), Error> {
        let in_use = |user: &str| Error::Conflict(format!("rename {old}: volume is in use - [{user}]"));
        if let Some(known) = self.drivers.known(old) {
            let why = format!("rename {old}: volumes of driver {:?} keep their names", known.driver);
            return Err(Error::InvalidParameter(why));
        }
        let turn = self.turn(old);
        let users = turn.lock();
        if let Some(user) = users.iter().next() {
            return Err(in_use(user));
        }
        if self.storage.volumes().get(old)?.is_some() {
            mounted::unmount(&self.storage.volumes().directory(old))?;
        }
        if self.held().contains_key(old) {
            return Err(in_use("a container that is being created"));
        }
        match self.storage.volumes().rename(old, new) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::NoSuchVolume(old.to_owned())),
            Err(berth_storage::Error::Exists { .. }) => {
                Err(Error::Conflict(format!("rename {old}: volume name {new} is already in use")))
            }
            Err(berth_storage::Error::Held { owner, .. }) => Err(in_use(&owner)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a volume was made without a name.
pub(crate) fn is_anonymous(labels: Option<&StringMap>) -> bool {
    labels.is_some_and(|labels| labels.contains_key(ANONYMOUS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes(temp: &tempfile::TempDir) -> Volumes {
        Volumes::new(&Storage::open(temp.path().join("root"), Default::default()).unwrap())
    }

    fn wish(driver: &str) -> VolumeWish {
        VolumeWish { driver: driver.into(), ..VolumeWish::default() }
    }

    #[test]
    fn names_are_checked_and_the_local_driver_has_two() {
        let temp = tempfile::tempdir().unwrap();
        let volumes = volumes(&temp);
        assert_eq!(
            volumes.ensure("a b", &wish("")).unwrap_err().to_string(),
            "create a b: \"a b\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        );
        for name in ["../up", ".x", "", "a/b", "a\0b"] {
            let text = volumes.ensure(name, &wish("local")).unwrap_err().to_string();
            assert!(text.contains("If you intended to pass a host directory, use absolute path"), "{text}");
        }
        let text = volumes.ensure("x", &wish("")).unwrap_err().to_string();
        assert_eq!(
            text,
            "create x: volume name is too short, names should be at least two alphanumeric characters"
        );
        assert!(volumes.ensure("ab", &wish("")).unwrap().1);
        assert!(!volumes.ensure("ab", &wish("local")).unwrap().1);
    }

    #[test]
    fn locks_are_forgotten_that_nobody_has() {
        let temp = tempfile::tempdir().unwrap();
        let volumes = volumes(&temp);
        let count = || volumes.turns.lock().unwrap().len();
        let (one, same) = (volumes.turn("a"), volumes.turn("a"));
        drop(one);
        assert_eq!(count(), 1, "somebody else has it");
        drop(same);
        assert_eq!(count(), 0);
        volumes.keep("a", "user");
        volumes.keep("b", "user");
        assert!(volumes.turn("a").lock().contains("user"));
        assert_eq!(count(), 2);
        volumes.release("user");
        assert_eq!(count(), 0);
    }

    #[test]
    fn what_is_held_stays() {
        let temp = tempfile::tempdir().unwrap();
        let volumes = volumes(&temp);
        volumes.ensure("ab", &wish("")).unwrap();
        let first = volumes.hold("ab");
        assert!(first.is_alone());
        let second = volumes.hold("ab");
        assert!(!first.is_alone());
        drop(first);
        assert_eq!(volumes.remove("ab", false).unwrap_err().to_string(), "remove ab: volume is in use");
        assert!(volumes.rename("ab", "cd").is_err());
        drop(second);
        volumes.rename("ab", "cd").unwrap();
        assert_eq!(volumes.remove("ab", false).unwrap_err().to_string(), "get ab: no such volume");
        volumes.remove("cd", false).unwrap();
    }

    #[test]
    fn filters_select() {
        let volume = VolumeRecord {
            name: "data-1".into(),
            driver: LOCAL.into(),
            created: Timestamp::UNIX_EPOCH,
            labels: Some([("a".to_owned(), "1".to_owned())].into()),
            options: None,
        };
        let users = BTreeMap::from([("data-1".to_owned(), BTreeSet::new())]);
        for (text, expected) in [
            ("{}", true),
            (r#"{"name":["ata"]}"#, true),
            (r#"{"name":["^ata"]}"#, false),
            (r#"{"driver":["local"]}"#, true),
            (r#"{"driver":["other"]}"#, false),
            (r#"{"label":["a=1"]}"#, true),
            (r#"{"label!":["a"]}"#, false),
            (r#"{"dangling":["true"]}"#, false),
            (r#"{"dangling":["0"]}"#, true),
        ] {
            let filters = Filters::parse(text).unwrap();
            let dangling = truth(&filters, "dangling").unwrap();
            let found = is_wanted(&volume, &filters) && is_used(&users, dangling, &volume.name);
            assert_eq!(found, expected, "{text}");
        }
        let bad = check_known(&Filters::parse(r#"{"size":["1"]}"#).unwrap(), &LIST_FILTERS).unwrap_err();
        assert_eq!(bad.to_string(), "invalid filter 'size'");
    }
}
