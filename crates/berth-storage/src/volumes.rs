//! Volumes: a directory each, a row each, and rows that say which containers have them.
//!
//! A volume's directory is `volumes/<name>`, and what containers see of it is `_data` inside, as in Docker. What holds
//! somebody's data is never swept: a directory without a row becomes a volume again, unless it is empty.

mod copies;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use berth_sys::ids::Mappings;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use rustix::fs::{AtFlags, Mode};

use crate::database::{failed, now};
use crate::snapshots::Wish;
use crate::{Error, Result, Shared, garbage, projects};

/// Labels or options of a volume.
pub type Pairs = BTreeMap<String, String>;

/// What containers see of a volume, in its directory.
const DATA: &str = "_data";
/// What is being copied into a new volume, before anybody sees it.
const STAGED: &str = "_staged";
/// The driver of volumes that were found without a row.
const LOCAL: &str = "local";

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Its name, which is its directory's.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// When it was created, kept to the millisecond.
    pub created: Timestamp,
    /// Its labels; `None` if it was made without saying anything about labels.
    pub labels: Option<Pairs>,
    /// Its driver's options; `None` as with labels.
    pub options: Option<Pairs>,
}

/// What became of a volume that was to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeRemoval {
    /// It is gone.
    Removed,
    /// There is none of that name.
    Missing,
    /// These containers have it.
    InUse(Vec<String>),
}

/// Access to volumes.
#[derive(Clone, Copy, Debug)]
pub struct Volumes<'a> {
    shared: &'a Arc<Shared>,
}

const COLUMNS: &str = "SELECT name, driver, created, labels, options FROM volumes";

impl<'a> Volumes<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Whether a volume can have this name, which becomes its directory's.
    #[must_use]
    pub fn can_have(name: &str) -> bool {
        check(name).is_ok()
    }

    /// Makes a volume with an empty directory, unless there is one of that name; whether it was made.
    ///
    /// # Errors
    /// [`Error::BadIdentifier`] for a name that cannot be a directory's; [`Error::NoQuotas`] for a limit that the file
    /// system cannot keep; file and database errors.
    pub fn create(&self, record: &VolumeRecord, wish: Wish) -> Result<bool> {
        check(&record.name)?;
        let _structure = self.shared.structure();
        if self.get(&record.name)?.is_some() {
            return Ok(false);
        }
        copies::check_free(self.shared, &record.name)?;
        let path = relative(&record.name);
        // What a crash left between directory and row is empty.
        self.shared.root.trash(&path)?;
        let inserted = || self.shared.write(|transaction| insert(transaction, record));
        let made = self.directories(&record.name, wish).and_then(|()| inserted());
        if made.is_err() {
            let abandoned =
                self.shared.write(|transaction| projects::abandon(transaction, &owner(&record.name)));
            if let Err(error) = abandoned.and_then(|()| self.shared.root.trash(&path)) {
                tracing::warn!(%error, "a half-made volume stays until the next start");
            }
        }
        made.map(|()| true)
    }

    /// The directories of a volume. Whatever the umask, what containers see is open to all, and what is above it is not.
    fn directories(&self, name: &str, wish: Wish) -> Result<()> {
        let path = relative(name);
        let owned = self.shared.options.owners.as_ref().filter(|_| wish.owned);
        self.make(&path, 0o701)?;
        if let Some(bytes) = wish.limit {
            // What is made inside belongs to the same project.
            projects::limit(self.shared, &owner(name), std::slice::from_ref(&path), bytes)?;
        }
        self.make(&format!("{path}/{DATA}"), 0o755)?;
        match owned {
            Some(owners) => self.give(name, owners),
            None => Ok(()),
        }
    }

    /// Notes whose the files of a new volume are on the disk, and gives it to their root.
    fn give(&self, name: &str, owners: &Mappings) -> Result<()> {
        crate::owners::write(&self.shared.root.path().join(relative(name)), owners)?;
        let Some((uid, gid)) = owners.outside(0, 0) else { return Ok(()) };
        let data = self.directory(name);
        std::os::unix::fs::chown(&data, Some(uid), Some(gid))
            .map_err(|error| Error::file("changing the owner of", data, error))
    }

    /// Whose the files of a volume are on the disk, if not those whom they belong to inside of containers.
    ///
    /// # Errors
    /// File errors.
    pub fn owners(&self, name: &str) -> Result<Option<Mappings>> {
        check(name)?;
        if self.shared.options.owners.is_none() {
            return Ok(None);
        }
        crate::owners::read(&self.shared.root.path().join(relative(name)))
    }

    fn make(&self, path: &str, mode: u32) -> Result<()> {
        let (root, mode) = (self.shared.root.fd(), Mode::from_raw_mode(mode));
        rustix::fs::mkdirat(root, path, mode)
            .and_then(|()| rustix::fs::chmodat(root, path, mode, AtFlags::empty()))
            .map_err(|error| Error::file("creating", path, error))
    }

    /// The volume of a name.
    ///
    /// # Errors
    /// Database errors.
    pub fn get(&self, name: &str) -> Result<Option<VolumeRecord>> {
        let row = self.shared.database.read(|connection| {
            connection
                .prepare_cached(&format!("{COLUMNS} WHERE name = ?"))
                .and_then(|mut statement| statement.query_row([name], columns).optional())
                .map_err(failed("looking up a volume"))
        })?;
        row.transpose()
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// Database errors.
    pub fn list(&self) -> Result<Vec<VolumeRecord>> {
        let rows: Vec<Result<VolumeRecord>> = self.shared.database.read(|connection| {
            let mut statement = connection
                .prepare_cached(&format!("{COLUMNS} ORDER BY name"))
                .map_err(failed("listing volumes"))?;
            let rows = statement.query_map([], columns);
            rows.and_then(Iterator::collect).map_err(failed("listing volumes"))
        })?;
        rows.into_iter().collect()
    }

    /// The containers that have each volume; volumes that none has are left out.
    ///
    /// # Errors
    /// Database errors.
    pub fn users(&self) -> Result<BTreeMap<String, BTreeSet<String>>> {
        self.shared.database.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT volume, container FROM volume_users")
                .map_err(failed("listing users of volumes"))?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
            let pairs: Vec<(String, String)> =
                rows.and_then(Iterator::collect).map_err(failed("listing users of volumes"))?;
            let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (volume, container) in pairs {
                users.entry(volume).or_default().insert(container);
            }
            Ok(users)
        })
    }

    /// Notes that containers have volumes, as far as both are there: those of a data root that had no such notes.
    ///
    /// # Errors
    /// Database errors.
    pub fn refer(&self, pairs: &[(String, String)]) -> Result<()> {
        self.shared.write(|transaction| {
            pairs.iter().try_for_each(|(volume, container)| insert_user(transaction, volume, container))
        })
    }

    /// Removes a volume that no container has. Nothing may be mounted in its directory.
    ///
    /// # Errors
    /// File and database errors; the volume is then as it was.
    pub fn remove(&self, name: &str) -> Result<VolumeRemoval> {
        let _structure = self.shared.structure();
        let removal = self.shared.write(|transaction| {
            let users = users_of(transaction, name)?;
            if !users.is_empty() {
                return Ok(VolumeRemoval::InUse(users));
            }
            let removed = remove_row(self.shared, transaction, name)?;
            Ok(if removed { VolumeRemoval::Removed } else { VolumeRemoval::Missing })
        })?;
        self.shared.waker.wake();
        Ok(removal)
    }

    /// Gives a volume another name, with its containers' notes; false if there is none of the old name.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is one of the new name; [`Error::Held`] if a container has it; file and database errors.
    pub fn rename(&self, old: &str, new: &str) -> Result<bool> {
        check(new)?;
        let _structure = self.shared.structure();
        copies::check_free(self.shared, new)?;
        self.shared.write(|transaction| {
            let has = |name: &str| {
                transaction
                    .query_row("SELECT 1 FROM volumes WHERE name = ?", [name], |_| Ok(()))
                    .optional()
                    .map(|found| found.is_some())
                    .map_err(failed("looking up a volume"))
            };
            if !has(old)? {
                return Ok(false);
            }
            if has(new)? {
                return Err(Error::Exists { kind: "volume", id: new.to_owned() });
            }
            // Containers name their volumes in what they were created with.
            if let Some(user) = users_of(transaction, old)?.into_iter().next() {
                return Err(Error::Held { kind: "volume", id: old.to_owned(), owner: user });
            }
            transaction
                .execute("UPDATE volumes SET name = ? WHERE name = ?", [new, old])
                .map_err(failed("renaming a volume"))?;
            projects::rename(transaction, &owner(old), &owner(new))?;
            self.shared.root.trash(&relative(new))?;
            let root = self.shared.root.fd();
            rustix::fs::renameat(root, relative(old), root, relative(new))
                .map_err(|error| Error::file("renaming", relative(old), error))?;
            Ok(true)
        })
    }

    /// What containers see of a volume, whether it is there or not.
    #[must_use]
    pub fn directory(&self, name: &str) -> PathBuf {
        self.shared.root.path().join("volumes").join(name).join(DATA)
    }

    /// A new, empty directory that [`Volumes::publish`] makes what containers see of the volume.
    ///
    /// # Errors
    /// [`Error::BadIdentifier`]; file errors.
    pub fn stage(&self, name: &str) -> Result<PathBuf> {
        check(name)?;
        let path = format!("{}/{STAGED}", relative(name));
        self.shared.root.trash(&path)?;
        self.make(&path, 0o755)?;
        Ok(self.shared.root.path().join(path))
    }

    /// Puts what was staged in the place of the volume's directory, which must be empty, at once and after a sync.
    ///
    /// # Errors
    /// File errors; what was staged is gone then.
    pub fn publish(&self, name: &str) -> Result<()> {
        let staged = format!("{}/{STAGED}", relative(name));
        let data = format!("{}/{DATA}", relative(name));
        let root = self.shared.root.fd();
        let moved = self.shared.root.open_directory(&staged).and_then(|directory| {
            rustix::fs::syncfs(directory.as_fd())
                .and_then(|()| rustix::fs::renameat(root, &staged, root, &data))
                .map_err(|error| Error::file("publishing", &data, error))
        });
        if moved.is_err() {
            self.discard(name)?;
        }
        moved
    }

    /// Removes what was staged.
    ///
    /// # Errors
    /// File errors.
    pub fn discard(&self, name: &str) -> Result<()> {
        self.shared.root.trash(&format!("{}/{STAGED}", relative(name))).map(|_| self.shared.waker.wake())
    }
}

fn insert(transaction: &Transaction<'_>, record: &VolumeRecord) -> Result<()> {
    let json = |pairs: &Option<Pairs>| pairs.as_ref().map(|pairs| serde_json::json!(pairs).to_string());
    let row = params![
        record.name,
        record.driver,
        record.created.as_millisecond(),
        json(&record.labels),
        json(&record.options)
    ];
    transaction
        .execute("INSERT INTO volumes (name, driver, created, labels, options) VALUES (?, ?, ?, ?, ?)", row)
        .map(drop)
        .map_err(failed("recording a volume"))
}

/// Notes which volumes a container has.
pub(crate) fn insert_user(transaction: &Transaction<'_>, volume: &str, container: &str) -> Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO volume_users (volume, container)
             SELECT volumes.name, containers.id FROM volumes, containers WHERE volumes.name = ? AND containers.id = ?
             ON CONFLICT DO NOTHING",
        )
        .and_then(|mut statement| statement.execute([volume, container]))
        .map(drop)
        .map_err(failed("recording a volume's user"))
}

/// The containers that have a volume.
pub(crate) fn users_of(transaction: &Transaction<'_>, name: &str) -> Result<Vec<String>> {
    let mut statement = transaction
        .prepare_cached("SELECT container FROM volume_users WHERE volume = ? ORDER BY container")
        .map_err(failed("listing a volume's users"))?;
    let rows = statement.query_map([name], |row| row.get(0));
    rows.and_then(Iterator::collect).map_err(failed("listing a volume's users"))
}

/// Removes a volume's row, and its directory with it; false if there is no such row. A crash before the transaction's
/// end leaves a row without a directory, which the next start removes.
pub(crate) fn remove_row(shared: &Shared, transaction: &Transaction<'_>, name: &str) -> Result<bool> {
    let removed = transaction
        .execute("DELETE FROM volumes WHERE name = ?", [name])
        .map_err(failed("removing a volume"))?;
    if removed == 0 {
        return Ok(false);
    }
    projects::abandon(transaction, &owner(name))?;
    shared.root.trash(&relative(name))?;
    Ok(true)
}

/// Makes rows and directories one again after a crash, and takes up directories that have no row.
pub(crate) fn reconcile(shared: &Arc<Shared>) -> Result<()> {
    let volumes = Volumes::new(shared);
    let known: HashSet<String> = garbage::column(shared, "SELECT name FROM volumes")?.into_iter().collect();
    let found: HashSet<String> = shared.root.list("volumes")?.into_iter().collect();
    let unused = garbage::column(
        shared,
        "SELECT name FROM volumes WHERE name NOT IN (SELECT volume FROM volume_users)",
    )?;
    for name in unused.iter().filter(|name| !found.contains(*name)) {
        tracing::info!(name, "removing the row of a volume that is gone");
        shared.write(|transaction| remove_row(shared, transaction, name))?;
    }
    for name in &found {
        shared.root.trash(&format!("{}/{STAGED}", relative(name)))?;
        if known.contains(name) || check(name).is_err() {
            continue;
        }
        let path = format!("{}/{DATA}", relative(name));
        match shared.root.list(&path) {
            // What a creation had made before its row.
            Ok(content) if content.is_empty() => {
                shared.root.trash(&relative(name))?;
            }
            Ok(_) => {
                tracing::info!(name, "taking up a volume that was found");
                adopt(&volumes, name)?;
            }
            // Less than that, which is empty; or no volume of ours.
            Err(_) => {
                let _ = rustix::fs::unlinkat(shared.root.fd(), relative(name), AtFlags::REMOVEDIR);
            }
        }
    }
    Ok(())
}

/// Makes the row of a directory that is there.
fn adopt(volumes: &Volumes<'_>, name: &str) -> Result<()> {
    // Those without a name were given 32 random bytes.
    let anonymous = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let labels = anonymous.then_some(r#"{"com.docker.volume.anonymous":""}"#);
    volumes.shared.write(|transaction| {
        transaction
            .execute(
                "INSERT INTO volumes (name, driver, created, labels) VALUES (?, ?, ?, ?)",
                params![name, LOCAL, now(), labels],
            )
            .map(drop)
            .map_err(failed("recording a volume"))
    })
}

fn check(name: &str) -> Result<()> {
    let plain =
        !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && !name.contains(['/', '\0']);
    if plain { Ok(()) } else { Err(Error::BadIdentifier(name.to_owned())) }
}

fn relative(name: &str) -> String {
    format!("volumes/{name}")
}

/// Whom a volume's project belongs to.
fn owner(name: &str) -> String {
    format!("volume:{name}")
}

fn columns(row: &Row<'_>) -> rusqlite::Result<Result<VolumeRecord>> {
    let created: i64 = row.get(2)?;
    let (labels, options): (Option<String>, Option<String>) = (row.get(3)?, row.get(4)?);
    let pairs = |text: Option<String>| match text {
        None => Ok(None),
        Some(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|_| Error::Record { what: "labels or options", value: text }),
    };
    let (name, driver) = (row.get(0)?, row.get(1)?);
    Ok(pairs(labels).and_then(|labels| {
        Ok(VolumeRecord {
            name,
            driver,
            created: Timestamp::from_millisecond(created).unwrap_or_default(),
            labels,
            options: pairs(options)?,
        })
    }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{ContainerRecord, Options, Storage};

    fn open(temp: &tempfile::TempDir) -> Arc<Storage> {
        Storage::open(temp.path().join("root"), Options::default()).unwrap()
    }

    fn volume(name: &str) -> VolumeRecord {
        VolumeRecord {
            name: name.into(),
            driver: LOCAL.into(),
            created: Timestamp::from_millisecond(1_700_000_000_123).unwrap(),
            labels: Some(Pairs::from([("a".into(), "1".into())])),
            options: None,
        }
    }

    fn container(id: &str) -> ContainerRecord {
        ContainerRecord {
            id: id.into(),
            name: format!("name-{id}"),
            image_id: String::new(),
            created: Timestamp::UNIX_EPOCH,
            state: "{}".into(),
            config: "{}".into(),
        }
    }

    #[test]
    fn a_volume_is_made_once_and_comes_back() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let storage = open(&temp);
        assert!(storage.volumes().create(&volume("one"), Wish::default()).unwrap());
        assert!(!storage.volumes().create(&volume("one"), Wish::default()).unwrap());
        let directory = storage.volumes().directory("one");
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&directory), mode(directory.parent().unwrap())), (0o755, 0o701));
        drop(storage);
        assert_eq!(open(&temp).volumes().list().unwrap(), [volume("one")]);
    }

    #[test]
    fn what_a_container_has_cannot_be_removed() {
        let temp = tempfile::tempdir().unwrap();
        let storage = open(&temp);
        let volumes = storage.volumes();
        volumes.create(&volume("one"), Wish::default()).unwrap();
        volumes.create(&volume("two"), Wish::default()).unwrap();
        storage.containers().put_with(&container("c"), &["one".into()]).unwrap();
        assert_eq!(volumes.remove("one").unwrap(), VolumeRemoval::InUse(vec!["c".into()]));
        assert!(matches!(volumes.rename("one", "three"), Err(Error::Held { .. })));
        assert_eq!(volumes.users().unwrap()["one"], BTreeSet::from(["c".to_owned()]));
        // The container goes, and with it what no other has.
        storage.containers().put_with(&container("d"), &["two".into()]).unwrap();
        let gone = storage.containers().remove_with("c", &["one".into(), "two".into()]).unwrap();
        assert_eq!(gone, ["one"]);
        assert!(!volumes.directory("one").exists() && volumes.directory("two").exists());
        storage.containers().remove("d").unwrap();
        assert_eq!(volumes.remove("two").unwrap(), VolumeRemoval::Removed);
        assert_eq!(volumes.remove("two").unwrap(), VolumeRemoval::Missing);
    }

    #[test]
    fn names_change() {
        let temp = tempfile::tempdir().unwrap();
        let storage = open(&temp);
        let volumes = storage.volumes();
        volumes.create(&volume("one"), Wish::default()).unwrap();
        volumes.create(&volume("two"), Wish::default()).unwrap();
        fs::write(volumes.directory("one").join("file"), "x").unwrap();
        assert!(matches!(volumes.rename("one", "two"), Err(Error::Exists { .. })));
        assert!(matches!(volumes.rename("one", "../x"), Err(Error::BadIdentifier(_))));
        assert!(volumes.rename("one", "three").unwrap());
        assert!(!volumes.rename("one", "four").unwrap());
        assert_eq!(fs::read_to_string(volumes.directory("three").join("file")).unwrap(), "x");
    }

    #[test]
    fn staged_content_appears_at_once() {
        let temp = tempfile::tempdir().unwrap();
        let storage = open(&temp);
        let volumes = storage.volumes();
        volumes.create(&volume("one"), Wish::default()).unwrap();
        fs::write(volumes.stage("one").unwrap().join("left"), "x").unwrap();
        fs::write(volumes.stage("one").unwrap().join("file"), "x").unwrap();
        volumes.publish("one").unwrap();
        let names: Vec<_> =
            fs::read_dir(volumes.directory("one")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"]);
        // What is there is never hidden.
        fs::write(volumes.stage("one").unwrap().join("other"), "x").unwrap();
        assert!(volumes.publish("one").is_err());
        assert!(volumes.directory("one").join("file").exists());
    }

    #[test]
    fn a_crash_loses_no_data_and_leaves_no_rest() {
        let temp = tempfile::tempdir().unwrap();
        let storage = open(&temp);
        storage.volumes().create(&volume("kept"), Wish::default()).unwrap();
        storage.volumes().create(&volume("gone"), Wish::default()).unwrap();
        storage.volumes().stage("kept").unwrap();
        drop(storage);
        let root = temp.path().join("root/volumes");
        fs::remove_dir_all(root.join("gone")).unwrap();
        fs::create_dir_all(root.join("begun/_data")).unwrap();
        fs::create_dir_all(root.join("hardly")).unwrap();
        fs::create_dir_all(root.join("others/files")).unwrap();
        // Docker keeps one there.
        fs::write(root.join("metadata.db"), "").unwrap();
        fs::create_dir_all(root.join("older/_data")).unwrap();
        fs::write(root.join("older/_data/file"), "x").unwrap();
        let storage = open(&temp);
        let names: Vec<String> = storage.volumes().list().unwrap().into_iter().map(|v| v.name).collect();
        assert_eq!(names, ["kept", "older"]);
        assert!(!root.join("begun").exists() && !root.join("hardly").exists());
        assert!(!root.join("kept/_staged").exists() && root.join("others/files").exists());
        assert!(root.join("metadata.db").exists());
        assert!(root.join("older/_data/file").exists());
    }
}
