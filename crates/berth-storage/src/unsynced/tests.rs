use std::fs;
use std::sync::Arc;

use berth_archive::extract::{Extractor, Options as Extraction};
use berth_oci::chain_ids;
use tempfile::TempDir;

use super::*;
use crate::{ImageRecord, Layer, Options, Source, Storage, Tag};

fn open(temp: &TempDir) -> Arc<Storage> {
    Storage::open(temp.path().join("root"), Options::default()).unwrap()
}

fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap()
}

/// Stores an image of two layers; their chain IDs.
fn store(storage: &Storage, name: &str) -> (ImageRecord, Vec<Digest>) {
    let tars = [tar("below", b"of the base"), tar(name, name.as_bytes())];
    let diffs = tars.each_ref().map(|tar| Digest::of(tar));
    let chains = chain_ids(&diffs);
    let mut lease = storage.lease();
    let mut parent = None;
    for ((tar, diff), chain) in tars.iter().zip(diffs).zip(&chains) {
        let staging = storage.layers().stage().unwrap();
        let extractor = Extractor::new(staging.open().unwrap(), Extraction::default());
        let extracted = extractor.record(staging.meta().unwrap()).layer(&tar[..]).unwrap();
        assert_eq!(extracted.diff_id, diff);
        let layer = Layer { chain: chain.clone(), parent, diff, size: extracted.content };
        storage.layers().commit(staging, &layer, &mut lease).unwrap();
        parent = Some(chain.clone());
    }
    let (config, manifest) = (format!("config of {name}"), format!("manifest of {name}"));
    for document in [&config, &manifest] {
        storage.blobs().put(&Digest::of(document.as_bytes()), document.as_bytes(), &mut lease).unwrap();
    }
    let target = Digest::of(manifest.as_bytes());
    let record = ImageRecord {
        id: Digest::of(config.as_bytes()),
        chain: parent,
        size: 1,
        created: None,
        parent: None,
        labels: None,
    };
    let names = [Tag { name: name.to_owned(), target: target.clone() }];
    storage.images().put(&record, &[Source { manifest: target, index: None }], &names).unwrap();
    (record, chains)
}

fn marks(storage: &Storage) -> Vec<String> {
    crate::garbage::column(&storage.shared, "SELECT boot FROM unsynced").unwrap()
}

/// Waits for the housekeeper, which rests between two syncs.
fn synced(storage: &Storage) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !marks(storage).is_empty() {
        assert!(Instant::now() < deadline, "nothing is synced");
        storage.settle();
    }
}

/// As after a power cut: all came in an earlier boot and is not synced.
fn cut(storage: &Storage) {
    let mark = "INSERT OR REPLACE INTO unsynced (kind, digest, boot)
        SELECT 'layer', chain, 'earlier' FROM layers UNION ALL SELECT 'document', digest, 'earlier' FROM blobs";
    storage
        .shared
        .write(|transaction| transaction.execute(mark, []).map(drop).map_err(failed("marking")))
        .unwrap();
}

fn file_of(storage: &Storage, chain: &Digest, name: &str) -> std::path::PathBuf {
    storage.layers().paths(chain).unwrap()[0].join(name)
}

fn emptied(storage: &Storage, chain: &Digest, name: &str) {
    fs::write(file_of(storage, chain, name), b"").unwrap();
}

#[test]
fn marks_go_once_all_is_synced() {
    let temp = tempfile::tempdir().unwrap();
    let storage = open(&temp);
    store(&storage, "first");
    synced(&storage);
}

#[test]
fn a_sync_does_not_cover_what_comes_later() {
    let temp = tempfile::tempdir().unwrap();
    let storage = open(&temp);
    let layer = Digest::of(b"layer");
    let marked = || storage.shared.write(|transaction| mark(transaction, &storage.shared, "layer", &layer));
    marked().unwrap();
    let first: i64 = storage
        .shared
        .database
        .read(|c| {
            c.query_row("SELECT sequence FROM unsynced", [], |row| row.get(0)).map_err(failed("reading"))
        })
        .unwrap();
    marked().unwrap();
    let count = storage
        .shared
        .write(|t| t.execute("DELETE FROM unsynced WHERE sequence <= ?", [first]).map_err(failed("deleting")))
        .unwrap();
    assert_eq!((count, marks(&storage)), (0, vec![storage.shared.boot.clone()]));
    assert!(sync(&storage.shared).unwrap());
    assert!(marks(&storage).is_empty());
}

#[test]
fn what_a_killed_daemon_left_is_synced_by_the_next_one() {
    let temp = tempfile::tempdir().unwrap();
    let storage = open(&temp);
    let (record, _) = store(&storage, "first");
    synced(&storage);
    let own = storage.shared.boot.clone();
    cut(&storage);
    storage
        .shared
        .write(|t| t.execute("UPDATE unsynced SET boot = ?", [&own]).map(drop).map_err(failed("marking")))
        .unwrap();
    drop(storage);
    let storage = open(&temp);
    synced(&storage);
    assert_eq!(storage.images().get(&record.id).unwrap(), Some(record));
}

#[test]
fn after_a_power_cut_what_is_whole_stays_and_what_is_damaged_goes_with_its_images() {
    let temp = tempfile::tempdir().unwrap();
    let storage = open(&temp);
    let (whole, _) = store(&storage, "whole");
    let (damaged, chains) = store(&storage, "damaged");
    let (lost, _) = store(&storage, "lost");
    synced(&storage);
    emptied(&storage, &chains[1], "damaged");
    fs::write(blobs::path(&storage.shared, &Digest::of(b"manifest of lost")), b"manif").unwrap();
    cut(&storage);
    drop(storage);
    let storage = open(&temp);
    assert_eq!(storage.images().get(&whole.id).unwrap(), Some(whole.clone()));
    assert_eq!(storage.images().get(&damaged.id).unwrap(), None);
    assert_eq!(storage.images().by_name("lost").unwrap(), None);
    assert_eq!(storage.images().get(&lost.id).unwrap(), None);
    assert_eq!(storage.layers().get(&chains[1]).unwrap(), None, "nothing else needs it");
    assert!(marks(&storage).is_empty());
    let (again, _) = store(&storage, "damaged");
    assert_eq!(again, damaged);
    assert_eq!(fs::read(file_of(&storage, &chains[1], "damaged")).unwrap(), b"damaged");
}

#[test]
fn a_damaged_layer_that_a_container_has_is_mended_by_the_next_pull() {
    let temp = tempfile::tempdir().unwrap();
    let storage = open(&temp);
    let (image, chains) = store(&storage, "image");
    storage.snapshots().create("container", Some(&chains[1])).unwrap();
    synced(&storage);
    emptied(&storage, &chains[0], "below");
    cut(&storage);
    drop(storage);
    let storage = open(&temp);
    assert_eq!(storage.images().get(&image.id).unwrap(), None);
    assert!(storage.layers().get(&chains[1]).unwrap().is_some(), "the container's");
    let mut lease = storage.lease();
    assert!(!storage.layers().hold(&chains[1], &mut lease).unwrap(), "what is below it is damaged");
    drop(lease);
    store(&storage, "image");
    assert_eq!(fs::read(file_of(&storage, &chains[0], "below")).unwrap(), b"of the base");
    assert!(storage.layers().hold(&chains[1], &mut storage.lease()).unwrap());
    synced(&storage);
}

#[test]
fn who_asks_waits_until_an_image_is_synced_and_its_marks_are_gone() {
    let temp = tempfile::tempdir().unwrap();
    let storage = open(&temp);
    let (record, _) = store(&storage, "first");
    storage.images().sync(&record.id).unwrap();
    assert!(!is_marked(&storage.shared, &record.id, &storage.shared.boot).unwrap());
    // What a layer below lacks, the image lacks. Nobody else syncs while somebody does.
    for (kind, sql) in [("layer", "SELECT min(chain) FROM layers"), ("document", "SELECT id FROM images")] {
        let object = digest(&crate::garbage::column(&storage.shared, sql).unwrap()[0]).unwrap();
        let marked = || {
            storage.shared.write(|transaction| mark(transaction, &storage.shared, kind, &object))?;
            is_marked(&storage.shared, &record.id, &storage.shared.boot)
        };
        assert!(storage.shared.syncs.one(marked).unwrap(), "{kind}");
        storage.images().sync(&record.id).unwrap();
        assert!(!is_marked(&storage.shared, &record.id, &storage.shared.boot).unwrap(), "{kind}");
    }
    let other = Digest::of(b"another's");
    storage.shared.write(|transaction| mark(transaction, &storage.shared, "layer", &other)).unwrap();
    assert!(
        !is_marked(&storage.shared, &record.id, &storage.shared.boot).unwrap(),
        "others are not waited for"
    );
}

#[test]
fn a_sync_that_goes_on_is_not_the_one_that_is_waited_for() {
    let (syncs, count) = (Syncs::default(), std::sync::atomic::AtomicU32::new(0));
    let counted = || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    };
    std::thread::scope(|scope| {
        let mut other = None;
        let first = || {
            other = Some(scope.spawn(|| syncs.one(counted)));
            counted()
        };
        syncs.one(first).unwrap();
        assert!(other.unwrap().join().unwrap().unwrap());
    });
    assert_eq!(count.into_inner(), 2);
    // One that failed is nobody's.
    let failing = || Err(Error::file("syncing", "x", std::io::Error::other("failed")));
    assert!(syncs.one(failing).is_err());
    assert!(!syncs.one(|| Ok(false)).unwrap());
}

#[test]
fn who_asks_for_what_could_not_be_written_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let storage = open(&temp);
    let (record, _) = store(&storage, "first");
    storage.images().sync(&record.id).unwrap();
    // With a new name, and nothing else to wait for.
    storage.images().tag(&record.id, &Tag { name: "n:1".into(), target: record.id.clone() }).unwrap();
    storage.images().sync(&record.id).unwrap();
    let fail = "INSERT INTO unsynced (kind, digest, boot) SELECT 'layer', min(chain), 'unknown' FROM layers";
    storage.shared.write(|transaction| transaction.execute(fail, []).map_err(failed("failing"))).unwrap();
    let error = storage.images().sync(&record.id).unwrap_err();
    assert!(format!("{error:?}").contains("--no-cache"), "{error:?}");
}

#[test]
fn what_could_not_be_written_stays_marked_until_it_is_read() {
    let temp = tempfile::tempdir().unwrap();
    let storage = open(&temp);
    let (first, _) = store(&storage, "first");
    synced(&storage);
    cut(&storage);
    let before = marks(&storage).len();
    let (second, _) = store(&storage, "second");
    storage.images().sync(&second.id).unwrap();
    assert_eq!(marks(&storage), vec!["earlier"; before]);
    drop(storage);
    let storage = open(&temp);
    assert_eq!(storage.images().get(&first.id).unwrap(), Some(first));
    synced(&storage);
}
