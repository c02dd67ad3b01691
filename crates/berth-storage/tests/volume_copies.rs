//! Volumes that share their files with others, on the real kernel.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use berth_storage::{Error, Options, Storage, VolumeRecord, Wish};
use formatted::{Formatted, SHARING, extents};
use jiff::Timestamp;

#[path = "snapshots/formatted.rs"]
mod formatted;

fn open(disk: &Path) -> Arc<Storage> {
    Storage::open(disk.join("root"), Options::default()).unwrap()
}

fn volume(name: &str) -> VolumeRecord {
    let created = Timestamp::from_millisecond(1_700_000_000_123).unwrap();
    VolumeRecord { name: name.into(), driver: "local".into(), created, labels: None, options: None }
}

#[test]
fn contents_are_shared_until_they_are_written() {
    for kind in SHARING {
        let disk = Formatted::new(kind);
        let storage = open(&disk.path());
        let volumes = storage.volumes();
        volumes.create(&volume("old"), Wish::default()).unwrap();
        let old = volumes.directory("old");
        fs::write(old.join("file"), vec![7; 1 << 20]).unwrap();
        fs::hard_link(old.join("file"), old.join("same")).unwrap();
        fs::create_dir(old.join("d")).unwrap();
        fs::set_permissions(old.join("d"), fs::Permissions::from_mode(0o2711)).unwrap();
        std::os::unix::fs::chown(&old, Some(5), Some(6)).unwrap();
        volumes.copy("old", &volume("new"), None).unwrap();
        let new = volumes.directory("new");
        assert_eq!(volumes.get("new").unwrap(), Some(volume("new")), "{kind}");
        disk.free();
        let flags = extents(&new.join("file"));
        assert!(!flags.is_empty() && flags.iter().all(|flags| flags.contains("shared")), "{kind}: {flags:?}");
        assert_eq!(fs::metadata(new.join("same")).unwrap().nlink(), 2);
        assert_eq!(fs::metadata(new.join("d")).unwrap().mode() & 0o7777, 0o2711);
        assert_eq!((fs::metadata(&new).unwrap().uid(), fs::metadata(&new).unwrap().gid()), (5, 6));
        fs::write(old.join("file"), "changed").unwrap();
        assert_eq!(fs::read(new.join("file")).unwrap(), vec![7; 1 << 20]);
        // It is a volume as any other, also for the next process.
        drop(storage);
        let storage = open(&disk.path());
        assert_eq!(storage.volumes().get("new").unwrap(), Some(volume("new")));
        let names = |error: Error| matches!(error, Error::Exists { .. });
        assert!(names(storage.volumes().copy("old", &volume("new"), None).unwrap_err()));
        let missing = storage.volumes().copy("none", &volume("other"), None).unwrap_err();
        assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
        drop(storage);
    }
}

#[test]
fn where_nothing_can_be_shared_nothing_is_made() {
    let disk = Formatted::new("ext4");
    let storage = open(&disk.path());
    storage.volumes().create(&volume("old"), Wish::default()).unwrap();
    let error = storage.volumes().copy("old", &volume("new"), None).unwrap_err();
    assert!(matches!(error, Error::NoSharing(_)), "{error}");
    assert_eq!(storage.volumes().get("new").unwrap(), None);
    assert!(!disk.path().join("root/volumes/new").exists());
    // The name is free again.
    assert!(storage.volumes().create(&volume("new"), Wish::default()).unwrap());
    drop(storage);
}
