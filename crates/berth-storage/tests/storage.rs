//! The life of stored things, through the public interface.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use berth_oci::{Digest, chain_ids};
use berth_storage::{
    BlobKind, ContainerRecord, Error, Expected, ImageRecord, Layer, Options, Source, Storage, Tag,
};
use jiff::Timestamp;
use tempfile::TempDir;

fn open(temp: &TempDir) -> Arc<Storage> {
    Storage::open(temp.path().join("root"), Options::default()).unwrap()
}

fn store() -> (TempDir, Arc<Storage>) {
    let temp = tempfile::tempdir().unwrap();
    let storage = open(&temp);
    (temp, storage)
}

fn expected(content: &[u8]) -> Expected {
    Expected { digest: Digest::of(content), size: Some(content.len() as u64) }
}

/// Stores an image of layers with one file each, named `names`.
fn image(storage: &Storage, layers: &[&str], names: &[&str]) -> ImageRecord {
    child(storage, layers, names, None)
}

/// The same of an image that was made from another.
fn child(storage: &Storage, layers: &[&str], names: &[&str], from: Option<&Digest>) -> ImageRecord {
    let mut lease = storage.lease();
    let diffs: Vec<Digest> = layers.iter().map(|content| Digest::of(content.as_bytes())).collect();
    let mut parent = None;
    for ((chain, diff), content) in chain_ids(&diffs).into_iter().zip(&diffs).zip(layers) {
        let staging = storage.layers().stage().unwrap();
        fs::write(staging.path().join("file"), content).unwrap();
        let layer = Layer { chain: chain.clone(), parent, diff: diff.clone(), size: content.len() as u64 };
        storage.layers().commit(staging, &layer, &mut lease).unwrap();
        parent = Some(chain);
    }
    let config = format!("config of {layers:?}").into_bytes();
    let manifest = format!("manifest of {layers:?}").into_bytes();
    for document in [&config, &manifest] {
        storage.blobs().put(&Digest::of(document), document, &mut lease).unwrap();
    }
    let target = Digest::of(&manifest);
    let record = ImageRecord {
        id: Digest::of(&config),
        chain: parent,
        size: 7,
        created: Some(Timestamp::UNIX_EPOCH),
        parent: from.cloned(),
        labels: None,
    };
    let names: Vec<Tag> =
        names.iter().map(|name| Tag { name: (*name).to_owned(), target: target.clone() }).collect();
    storage.images().put(&record, &[Source { manifest: target, index: None }], &names).unwrap();
    record
}

fn container(id: &str, name: &str) -> ContainerRecord {
    ContainerRecord {
        id: id.to_owned(),
        name: name.to_owned(),
        image_id: "image".to_owned(),
        created: Timestamp::from_millisecond(1_700_000_000_123).unwrap(),
        state: "{}".to_owned(),
        config: "{\"a\":1}".to_owned(),
    }
}

#[test]
fn r20_the_root_is_closed_to_others_and_held_by_one_process() {
    let (temp, storage) = store();
    let root = temp.path().join("root");
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o7777, 0o700);
    let error = Storage::open(&root, Options::default()).unwrap_err();
    assert!(error.to_string().contains(&format!("is in use by process {}", std::process::id())), "{error}");
    drop(storage);
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    drop(open(&temp));
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o7777, 0o700);
}

#[test]
fn a_blob_is_stored_only_if_it_is_what_was_announced() {
    let (_temp, storage) = store();
    let mut lease = storage.lease();
    let mut writer = storage.blobs().writer(BlobKind::Layer, expected(b"right")).unwrap();
    writer.write(b"wrong").unwrap();
    assert!(matches!(writer.commit(&mut lease), Err(Error::DigestMismatch { .. })));
    let mut writer = storage.blobs().writer(BlobKind::Layer, expected(b"right")).unwrap();
    assert_eq!(writer.offset(), 0, "what failed the check is gone");
    assert!(matches!(writer.write(b"right and more"), Err(Error::SizeMismatch { .. })));
    drop(writer);
    assert!(storage.blobs().get(&Digest::of(b"right")).unwrap().is_none());
}

#[test]
fn an_interrupted_blob_is_gone_on_with_even_after_a_restart() {
    let (temp, storage) = store();
    let mut writer = storage.blobs().writer(BlobKind::Layer, expected(b"first second")).unwrap();
    assert!(matches!(
        storage.blobs().writer(BlobKind::Layer, expected(b"first second")),
        Err(Error::Held { .. })
    ));
    writer.write(b"first ").unwrap();
    drop(writer);
    drop(storage);
    let storage = open(&temp);
    let mut lease = storage.lease();
    let mut writer = storage.blobs().writer(BlobKind::Layer, expected(b"first second")).unwrap();
    assert_eq!(writer.offset(), 6);
    writer.write(b"second").unwrap();
    writer.commit(&mut lease).unwrap();
    let mut content = String::new();
    storage.blobs().open(&Digest::of(b"first second")).unwrap().read_to_string(&mut content).unwrap();
    assert_eq!(content, "first second");
}

#[test]
fn the_reserve_of_free_space_is_kept() {
    let temp = tempfile::tempdir().unwrap();
    let options = Options { keep_free_bytes: Some(u64::MAX), ..Options::default() };
    let storage = Storage::open(temp.path().join("root"), options).unwrap();
    assert!(storage.layers().stage().unwrap_err().is_disk_full());
    let mut writer = storage.blobs().writer(BlobKind::Layer, expected(b"x")).unwrap();
    assert!(writer.write(b"x").unwrap_err().is_disk_full());
}

#[test]
fn images_share_layers_until_the_last_one_goes() {
    let (temp, storage) = store();
    let one = image(&storage, &["base", "one"], &["docker.io/library/one:latest"]);
    let two = image(&storage, &["base", "two"], &["docker.io/library/two:latest"]);
    assert_eq!(storage.layers().list().unwrap().len(), 3);
    let paths = storage.layers().paths(one.chain.as_ref().unwrap()).unwrap();
    assert_eq!(fs::read_to_string(paths[0].join("file")).unwrap(), "one");
    assert_eq!(fs::read_to_string(paths[1].join("file")).unwrap(), "base");
    let removed = storage.images().remove(&one.id).unwrap();
    assert_eq!((removed.layers.len(), removed.names.len()), (1, 1));
    assert!(storage.images().get(&one.id).unwrap().is_none());
    storage.images().remove(&two.id).unwrap();
    assert!(storage.layers().list().unwrap().is_empty());
    assert!(storage.blobs().list(BlobKind::Document).unwrap().is_empty());
    storage.settle();
    assert_eq!(fs::read_dir(temp.path().join("root/staging/trash")).unwrap().count(), 0);
    assert!(matches!(storage.images().remove(&two.id), Err(Error::NotFound { .. })));
}

#[test]
fn images_are_found_by_name_id_and_prefix() {
    let (_temp, storage) = store();
    let one = image(&storage, &["a"], &["docker.io/library/x:1", "docker.io/library/x:2"]);
    let two = image(&storage, &["b"], &["docker.io/library/x:2"]);
    let images = storage.images();
    assert_eq!(images.by_name("docker.io/library/x:1").unwrap().unwrap(), one);
    assert_eq!(images.by_name("docker.io/library/x:2").unwrap().unwrap(), two, "the name has moved");
    assert_eq!(images.by_prefix(&one.id.hex()[..12]).unwrap().unwrap(), one);
    assert!(matches!(images.by_prefix(""), Err(Error::Ambiguous { .. })));
    assert!(images.by_prefix("nothex").unwrap().is_none());
    assert_eq!(images.names(&one.id).unwrap().len(), 1);
    assert!(images.untag("docker.io/library/x:1").unwrap());
    assert!(!images.untag("docker.io/library/x:1").unwrap());
    assert_eq!(images.list().unwrap().len(), 2);
    assert_eq!(images.sources(&one.id).unwrap().len(), 1);
}

#[test]
fn what_a_lease_or_a_snapshot_holds_is_not_collected() {
    let (_temp, storage) = store();
    let image = image(&storage, &["a", "b"], &[]);
    let chain = image.chain.clone().unwrap();
    let id = "c".repeat(64);
    storage.snapshots().create(&id, Some(&chain)).unwrap();
    assert!(storage.images().remove(&image.id).unwrap().layers.is_empty());
    let mut lease = storage.lease();
    assert!(storage.layers().hold(&chain, &mut lease).unwrap());
    storage.snapshots().remove(&id).unwrap();
    assert!(storage.collect().unwrap().is_empty());
    drop(lease);
    assert_eq!(storage.collect().unwrap().len(), 2);
}

#[test]
fn container_names_are_unique() {
    let (_temp, storage) = store();
    storage.containers().put(&container("a1", "web")).unwrap();
    let error = storage.containers().put(&container("b2", "web")).unwrap_err();
    assert!(matches!(&error, Error::NameInUse { name, by } if name == "web" && by == "a1"), "{error}");
    let mut renamed = container("a1", "db");
    renamed.state = "{\"running\":true}".to_owned();
    storage.containers().put(&renamed).unwrap();
    assert_eq!(storage.containers().by_name("db").unwrap().unwrap(), renamed);
    assert!(storage.containers().by_name("web").unwrap().is_none());
    storage.containers().put(&container("b2", "web")).unwrap();
    assert_eq!(storage.containers().list().unwrap().len(), 2);
    storage.containers().remove("a1").unwrap();
    storage.containers().remove("a1").unwrap();
    assert!(storage.containers().get("a1").unwrap().is_none());
}

#[test]
fn a_snapshot_has_one_owner_and_the_images_root_mode() {
    let (_temp, storage) = store();
    let image = image(&storage, &["a"], &[]);
    let chain = image.chain.unwrap();
    let layer = storage.layers().paths(&chain).unwrap().remove(0);
    fs::set_permissions(&layer, fs::Permissions::from_mode(0o711)).unwrap();
    let snapshots = storage.snapshots();
    snapshots.create("c1", Some(&chain)).unwrap();
    assert!(matches!(snapshots.create("c1", None), Err(Error::Exists { .. })));
    let mounts = snapshots.mounts("c1").unwrap();
    assert_eq!(mounts.lower, [layer]);
    assert_eq!(fs::metadata(&mounts.upper).unwrap().permissions().mode() & 0o7777, 0o711);
    let lease = snapshots.acquire("c1").unwrap();
    assert!(matches!(snapshots.acquire("c1"), Err(Error::Held { .. })));
    drop(lease);
    snapshots.acquire("c1").unwrap();
    fs::write(mounts.upper.join("big"), vec![1; 100_000]).unwrap();
    assert!(snapshots.size("c1").unwrap() >= 100_000);
    snapshots.remove("c1").unwrap();
    assert!(!mounts.upper.exists());
    snapshots.create("c2", None).unwrap();
    assert_eq!(snapshots.mounts("c2").unwrap().lower.len(), 1);
    for bad in ["", "..", "a/b", "a\0b"] {
        assert!(matches!(snapshots.create(bad, None), Err(Error::BadIdentifier(_))), "{bad:?}");
    }
    let missing = Digest::of(b"nothing");
    assert!(matches!(snapshots.create("c3", Some(&missing)), Err(Error::NotFound { .. })));
}

#[test]
fn a_start_removes_what_a_crash_left_and_nothing_else() {
    let (temp, storage) = store();
    let kept = image(&storage, &["a"], &["docker.io/library/a:1"]);
    storage.snapshots().create("kept", kept.chain.as_ref()).unwrap();
    drop(storage);
    let root = temp.path().join("root");
    let orphan = "0".repeat(64);
    for directory in ["layers", "containers"] {
        fs::create_dir_all(root.join(directory).join(&orphan).join("fs")).unwrap();
    }
    fs::write(root.join("blobs/sha256").join(&orphan), b"x").unwrap();
    fs::create_dir_all(root.join("staging/half-done/fs/deep")).unwrap();
    let storage = open(&temp);
    storage.settle();
    for path in ["layers", "containers", "blobs/sha256"] {
        assert!(!root.join(path).join(&orphan).exists(), "{path}");
    }
    assert!(!root.join("staging/half-done").exists());
    assert!(storage.layers().paths(kept.chain.as_ref().unwrap()).unwrap()[0].join("file").exists());
    assert!(storage.snapshots().mounts("kept").unwrap().upper.exists());
    assert_eq!(storage.blobs().read(&kept.id).unwrap(), b"config of [\"a\"]");
}

#[test]
fn compressed_layers_are_bounded_by_use() {
    let temp = tempfile::tempdir().unwrap();
    let options = Options { blob_cache_bytes: Some(10), ..Options::default() };
    let storage = Storage::open(temp.path().join("root"), options).unwrap();
    for content in [b"12345", b"67890", b"abcde"] {
        let mut writer = storage.blobs().writer(BlobKind::Layer, expected(content)).unwrap();
        writer.write(content).unwrap();
        writer.commit(&mut storage.lease()).unwrap();
    }
    storage.collect().unwrap();
    assert_eq!(storage.blobs().list(BlobKind::Layer).unwrap().len(), 2);
}

#[test]
fn settings_are_kept_by_collection() {
    let (temp, storage) = store();
    storage.kv().put("network", "a", "1").unwrap();
    storage.kv().put("network", "a", "2").unwrap();
    storage.kv().put("other", "a", "3").unwrap();
    drop(storage);
    let storage = open(&temp);
    assert_eq!(storage.kv().get("network", "a").unwrap().unwrap(), "2");
    assert_eq!(storage.kv().list("network").unwrap(), [("a".to_owned(), "2".to_owned())]);
    storage.kv().remove("network", "a").unwrap();
    assert!(storage.kv().get("network", "a").unwrap().is_none());
}

#[test]
fn parents_are_known_until_they_go() {
    let (temp, storage) = store();
    let base = image(&storage, &["a"], &["docker.io/library/a:1"]);
    let top = child(&storage, &["a", "b"], &[], Some(&base.id));
    assert_eq!(storage.images().children(&base.id).unwrap(), std::slice::from_ref(&top.id));
    let listed = storage.images().listed().unwrap();
    let of = |id| listed.iter().find(|image| image.record.id == id).unwrap();
    assert!(of(base.id.clone()).has_children && !of(top.id.clone()).has_children);
    assert_eq!(of(base.id.clone()).names, ["docker.io/library/a:1"]);
    drop(storage);
    let storage = open(&temp);
    assert_eq!(storage.images().get(&top.id).unwrap().unwrap().parent.as_ref(), Some(&base.id));
    storage.images().remove(&base.id).unwrap();
    assert_eq!(storage.images().get(&top.id).unwrap().unwrap().parent, None);
    // A parent that has gone meanwhile is none.
    storage.images().remove(&top.id).unwrap();
    let top = child(&storage, &["a", "b"], &[], Some(&base.id));
    assert_eq!(storage.images().get(&top.id).unwrap().unwrap().parent, None);
    // One that goes as a platform of its name is none either.
    let base = image(&storage, &["a"], &["docker.io/library/a:1"]);
    let other = child(&storage, &["a", "c"], &[], Some(&base.id));
    storage.images().remove_variant(&base.id, &[]).unwrap();
    assert_eq!(storage.images().get(&other.id).unwrap().unwrap().parent, None);
}

#[test]
fn uses_and_names_of_images_are_dated() {
    let (_temp, storage) = store();
    let base = image(&storage, &["a"], &[]);
    let before = storage.images().listed().unwrap()[0].used;
    assert_eq!(storage.images().named_at(&base.id).unwrap(), None);
    storage.images().touch(&base.id).unwrap();
    assert_eq!(storage.images().listed().unwrap()[0].used, before, "within a minute nothing is written");
    storage.images().touch(&Digest::of(b"absent")).unwrap();
    let tag = Tag { name: "docker.io/library/a:1".into(), target: base.id.clone() };
    storage.images().tag(&base.id, &tag).unwrap();
    let named = storage.images().named_at(&base.id).unwrap().unwrap();
    assert!(named >= before);
    image(&storage, &["a"], &["docker.io/library/a:1"]);
    assert_eq!(storage.images().named_at(&base.id).unwrap(), Some(named), "it had the name already");
}

#[test]
fn the_cache_shrinks_by_itself_once_an_image_is_stored() {
    let temp = tempfile::tempdir().unwrap();
    let options = Options { blob_cache_bytes: Some(10), ..Options::default() };
    let storage = Storage::open(temp.path().join("root"), options).unwrap();
    for content in [b"12345", b"67890", b"abcde"] {
        let mut writer = storage.blobs().writer(BlobKind::Layer, expected(content)).unwrap();
        writer.write(content).unwrap();
        writer.commit(&mut storage.lease()).unwrap();
    }
    let image = image(&storage, &["a"], &[]);
    storage.settle();
    assert_eq!(storage.blobs().total(BlobKind::Layer).unwrap(), 10);
    assert!(!storage.blobs().read(&image.id).unwrap().is_empty(), "documents stay");
}

#[test]
fn the_default_bound_of_the_cache_is_a_tenth_and_what_is_read_stays() {
    let (_temp, storage) = store();
    let mut writer = storage.blobs().writer(BlobKind::Layer, expected(b"12345")).unwrap();
    writer.write(b"12345").unwrap();
    let mut lease = storage.lease();
    writer.commit(&mut lease).unwrap();
    storage.collect().unwrap();
    assert_eq!(storage.blobs().total(BlobKind::Layer).unwrap(), 5, "far below a tenth of the disk");
    let held = storage.blobs().cached().unwrap();
    assert!(held[0].held);
    assert_eq!(
        (storage.blobs().shrink(0).unwrap(), storage.blobs().evict(&held[0].digest).unwrap()),
        (0, false)
    );
    drop(lease);
    assert_eq!(storage.blobs().shrink(0).unwrap(), 5);
    assert!(!storage.blobs().evict(&held[0].digest).unwrap());
    let document = image(&storage, &["a"], &[]).id;
    assert!(!storage.blobs().evict(&document).unwrap(), "documents are no cache");
}
