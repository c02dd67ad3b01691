//! The rules that every way of keeping writable layers follows, tried on each on the real kernel.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, FileTimes};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use berth_archive::changes::{self, Kind};
use berth_archive::extract::{Extractor, Options as Extraction, fixup};
use berth_archive::pack;
use berth_oci::{Digest, chain_ids};
use berth_storage::{Driver, Error, Layer, Options, Snapshot, Storage, Wish};
use berth_sys::ids::{Mappings, Range};
use formatted::{Formatted, SHARING};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use tar::EntryType;
use tempfile::TempDir;

#[path = "snapshots/formatted.rs"]
mod formatted;

const DRIVERS: [Driver; 2] = [Driver::Overlay, Driver::Copy];

fn open(temp: &TempDir, driver: Driver) -> Arc<Storage> {
    let options = Options { driver: Some(driver), ..Options::default() };
    Storage::open(temp.path().join("root"), options).unwrap()
}

/// Runs a rule on a fresh data root of each driver, and on one of copies on each file system that shares contents.
fn each(rule: impl Fn(&TempDir, Arc<Storage>)) {
    for driver in DRIVERS {
        let temp = tempfile::tempdir().unwrap();
        let storage = open(&temp, driver);
        assert_eq!((storage.driver(), storage.overlay_problem()), (driver, None));
        rule(&temp, storage);
    }
    for kind in SHARING {
        let disk = Formatted::new(kind);
        let temp = tempfile::tempdir_in(disk.path()).unwrap();
        rule(&temp, open(&temp, Driver::Copy));
    }
}

/// Stores layers from their tars, the lowest first, on top of `below`. Gives their diff IDs.
fn unpack(storage: &Storage, below: &[Digest], tars: &[Vec<u8>]) -> Vec<Digest> {
    let mut lease = storage.lease();
    let mut diffs = below.to_vec();
    for tar in tars {
        let staging = storage.layers().stage().unwrap();
        let options = Extraction { marks: storage.layers().marks(), ..Extraction::default() };
        let extractor = Extractor::new(staging.open().unwrap(), options).record(staging.meta().unwrap());
        let made = extractor.layer(tar.as_slice()).unwrap();
        let parent = chain_ids(&diffs).pop();
        let lower = parent.as_ref().map_or_else(Vec::new, |parent| storage.layers().paths(parent).unwrap());
        fixup(staging.open().unwrap().as_fd(), &made.fixups, &lower).unwrap();
        diffs.push(made.diff_id.clone());
        let chain = chain_ids(&diffs).pop().unwrap();
        let layer = Layer { chain, parent, diff: made.diff_id, size: made.content };
        storage.layers().commit(staging, &layer, &mut lease).unwrap();
    }
    // The test holds what it stores by snapshots.
    std::mem::forget(lease);
    diffs
}

/// The root of a container, as it sees it.
struct Mounted {
    path: PathBuf,
    mount: Option<OwnedFd>,
}

fn mount(snapshot: &Snapshot) -> Mounted {
    let Some(work) = &snapshot.work else {
        return Mounted { path: snapshot.upper.clone(), mount: None };
    };
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    // As the engine does it: the mark of a volatile upper that was mounted once.
    let _ = fs::remove_dir_all(work.join("work/incompat"));
    let set = |key: &str, value: &Path| rustix::mount::fsconfig_set_string(&context, key, value).unwrap();
    for lower in &snapshot.lower {
        set("lowerdir+", lower);
    }
    set("upperdir", &snapshot.upper);
    set("workdir", work);
    for key in ["metacopy", "redirect_dir", "index", "xino"] {
        set(key, Path::new("off"));
    }
    rustix::mount::fsconfig_set_flag(&context, "volatile").unwrap();
    rustix::mount::fsconfig_create(&context).unwrap();
    let mount =
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let path = Path::new("/proc/self/fd").join(mount.as_raw_fd().to_string());
    Mounted { path, mount: Some(mount) }
}

/// A mount that has a path, until it is dropped.
struct Placed(PathBuf);

impl Placed {
    fn new(mounted: &Mounted, path: PathBuf) -> Placed {
        fs::create_dir(&path).unwrap();
        let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(mounted.mount.as_ref().unwrap(), "", CWD, &path, flags).unwrap();
        Placed(path)
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// Everything that can be told of a tree, by path.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mut text = format!(
                "{:o} {}:{} {}.{}",
                metadata.mode(),
                metadata.uid(),
                metadata.gid(),
                metadata.mtime(),
                metadata.mtime_nsec()
            );
            if metadata.is_dir() {
                pending.push(path.clone());
            } else {
                text += &format!(" {} {} {:x}", metadata.nlink(), metadata.size(), metadata.rdev());
            }
            if metadata.is_file() {
                text += &format!(" {}", Digest::of(&fs::read(&path).unwrap()));
            }
            if metadata.is_symlink() {
                text += &format!(" -> {:?}", fs::read_link(&path).unwrap());
            }
            let mut names = [0; 4096];
            let length = rustix::fs::llistxattr(&path, &mut names[..]).unwrap();
            let mut names: Vec<_> =
                names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
            names.sort_unstable();
            for name in names {
                let name = std::str::from_utf8(name).unwrap();
                let mut value = [0; 4096];
                let length = rustix::fs::lgetxattr(&path, name, &mut value[..]).unwrap();
                text += &format!(" {name}={:?}", &value[..length]);
            }
            found.insert(path.strip_prefix(root).unwrap().to_owned(), text);
        }
    }
    found
}

fn difference(a: &BTreeMap<PathBuf, String>, b: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let keys: HashSet<_> = a.keys().chain(b.keys()).collect();
    let differing = keys.into_iter().filter(|key| a.get(*key) != b.get(*key));
    differing.map(|key| format!("{}: {:?} / {:?}", key.display(), a.get(key), b.get(key))).collect()
}

struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Tar {
        Tar(tar::Builder::new(Vec::new()))
    }

    fn header(kind: EntryType, size: usize) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o751 } else { 0o640 });
        header.set_uid(70_000);
        header.set_gid(12);
        header.set_mtime(1_500_000_000);
        header.set_size(size as u64);
        header
    }

    fn file(mut self, name: &str, data: &[u8]) -> Tar {
        self.0.append_data(&mut Self::header(EntryType::Regular, data.len()), name, data).unwrap();
        self
    }

    fn attribute(mut self, name: &str, value: &[u8]) -> Tar {
        self.0.append_pax_extensions([(&*format!("SCHILY.xattr.{name}"), value)]).unwrap();
        self
    }

    fn link(mut self, kind: EntryType, name: &str, target: &str) -> Tar {
        self.0.append_link(&mut Self::header(kind, 0), name, target).unwrap();
        self
    }

    fn node(mut self, kind: EntryType, name: &str, device: (u32, u32)) -> Tar {
        let mut header = Self::header(kind, 0);
        header.set_device_major(device.0).unwrap();
        header.set_device_minor(device.1).unwrap();
        self.0.append_data(&mut header, name, std::io::empty()).unwrap();
        self
    }

    fn directory(self, name: &str) -> Tar {
        self.node(EntryType::Directory, name, (0, 0))
    }

    fn end(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// Three layers with all that one can say of another.
fn layers() -> Vec<Vec<u8>> {
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut holes = vec![0; 1 << 20];
    holes[..3].copy_from_slice(b"top");
    let base = Tar::new()
        .directory("a/")
        .file("a/gone", b"gone")
        .file("a/kept", b"kept")
        .directory("a/full/")
        .file("a/full/old", b"old")
        .directory("a/twice/")
        .file("a/twice/old", b"old")
        .file("a/becomes-directory", b"file")
        .directory("a/becomes-file/")
        .file("a/becomes-file/x", b"x")
        .file("a/one", b"linked")
        .link(EntryType::Link, "a/two", "a/one")
        .link(EntryType::Symlink, "a/symbolic", "../../etc/one")
        .node(EntryType::Char, "a/null", (1, 3))
        .node(EntryType::Block, "a/disk", (7, 1))
        .node(EntryType::Fifo, "a/fifo", (0, 0))
        .attribute("user.text", b"a\0b")
        .attribute("trusted.text", b"t")
        .attribute("security.capability", capability)
        .file("a/attributes", b"with attributes")
        .attribute("user.directory", b"d")
        .directory("a/attributed/")
        .file("a/holes", &holes)
        .file(&format!("a/{}", "n".repeat(255)), b"long")
        .directory("same-x/")
        .file("same-x/file", b"1")
        .directory("same-y/")
        .file("same-y/file", b"2")
        .file("z/implied", b"");
    let middle = Tar::new()
        .file("a/.wh.gone", b"")
        .directory("a/full/")
        .file("a/full/.wh..wh..opq", b"")
        .file("a/full/new", b"new")
        .file("a/.wh.twice", b"")
        .directory("a/becomes-directory/")
        .file("a/becomes-directory/x", b"x")
        .file("a/becomes-file", b"file")
        .link(EntryType::Link, "a/three", "a/one")
        .link(EntryType::Link, "a/four", "a/null");
    let top =
        Tar::new().file("a/twice/new", b"again").file("a/gone", b"back").file("a/becomes-file", b"other");
    vec![base.end(), middle.end(), top.end()]
}

fn container(storage: &Storage, id: &str, diffs: &[Digest]) -> Snapshot {
    storage.snapshots().create(id, chain_ids(diffs).last()).unwrap();
    storage.snapshots().mounts(id).unwrap()
}

#[test]
fn all_show_the_same_image() {
    let mut seen = Vec::new();
    let temps = DRIVERS.map(|_| tempfile::tempdir().unwrap());
    for (temp, driver) in temps.iter().zip(DRIVERS) {
        let storage = open(temp, driver);
        let diffs = unpack(&storage, &[], &layers());
        let mounted = mount(&container(&storage, "one", &diffs));
        let path = |name: &str| mounted.path.join("a").join(name);
        assert_eq!(fs::read(path("gone")).unwrap(), b"back");
        assert_eq!(fs::read_dir(path("full")).unwrap().count(), 1, "what an opaque directory hides is gone");
        assert_eq!(fs::read_dir(path("twice")).unwrap().count(), 1);
        assert!(path("becomes-directory").is_dir() && path("becomes-file").is_file());
        assert_eq!(fs::metadata(path("one")).unwrap().nlink(), 2);
        assert!(fs::metadata(path("holes")).unwrap().blocks() < 512, "holes stay holes");
        assert!(fs::metadata(path("disk")).unwrap().file_type().is_block_device());
        let mut all = listing(&mounted.path);
        for implied in ["a/twice", "z"] {
            let text = all.get_mut(Path::new(implied)).unwrap();
            *text = text.split('.').next().unwrap().rsplit_once(' ').unwrap().0.to_owned();
        }
        seen.push(all);
    }
    assert!(seen[0].len() > 25);
    assert_eq!(difference(&seen[0], &seen[1]), [""; 0]);
}

/// What a container does to its files; the time of what it makes is always the same.
fn work(root: &Path) {
    let path = |name: &str| root.join(name);
    fs::write(path("a/kept"), "changed").unwrap();
    fs::remove_file(path("a/gone")).unwrap();
    fs::remove_dir_all(path("a/full")).unwrap();
    fs::remove_dir_all(path("a/becomes-directory")).unwrap();
    fs::write(path("a/becomes-directory"), "a file again").unwrap();
    fs::remove_file(path("a/becomes-file")).unwrap();
    fs::create_dir(path("a/becomes-file")).unwrap();
    fs::remove_dir_all(path("a/twice")).unwrap();
    fs::create_dir(path("a/twice")).unwrap();
    fs::set_permissions(path("a/holes"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::remove_file(path("a/symbolic")).unwrap();
    symlink("../../etc/two", path("a/symbolic")).unwrap();
    rustix::fs::setxattr(path("a/attributes"), "user.text", b"other", XattrFlags::empty()).unwrap();
    rustix::fs::mknodat(CWD, path("a/tty"), FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(5, 0))
        .unwrap();
    fs::create_dir_all(path("b/deep")).unwrap();
    fs::write(path("b/deep/er"), "new").unwrap();
    fs::hard_link(path("b/deep/er"), path("b/link")).unwrap();
    drop(UnixListener::bind(path("a/socket")));
    // Bytes of the same number at the same time, and two files of one look that exchange their places.
    let time = fs::metadata(path("a/three")).unwrap().modified().unwrap();
    let file = File::options().write(true).open(path("a/three")).unwrap();
    file.write_all_at(b"LINKED", 0).unwrap();
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
    fs::rename(path("same-x/file"), path("same-x/other")).unwrap();
    fs::rename(path("same-y/file"), path("same-x/file")).unwrap();
    fs::rename(path("same-x/other"), path("same-y/file")).unwrap();
    let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for name in
        ["b/deep/er", "b/deep", "b", "a/kept", "a/becomes-directory", "a/becomes-file", "a/twice", "a"]
    {
        let times = FileTimes::new().set_modified(made);
        File::open(path(name)).unwrap().set_times(times).unwrap();
    }
}

#[test]
fn all_tell_the_same_changes_and_make_the_same_layer_of_them() {
    let (told, made) = (std::sync::Mutex::new(Vec::new()), std::sync::Mutex::new(Vec::new()));
    each(|_, storage| {
        let diffs = unpack(&storage, &[], &layers());
        let first = container(&storage, "one", &diffs);
        let (upper, lower) = (first.written().unwrap(), first.image().unwrap());
        assert_eq!(changes::changes(&upper, &lower, &HashSet::new()).unwrap(), [], "nothing has changed");
        let mut empty = Vec::new();
        pack::layer::pack(&upper, &lower, &Default::default(), &mut empty).unwrap();
        assert_eq!(empty, [0; 1024], "an empty layer");
        assert_eq!(storage.snapshots().size("one").unwrap(), 0);

        let mounted = mount(&first);
        work(&mounted.path);
        let wanted = listing(&mounted.path);
        drop(mounted);
        let found = changes::changes(&upper, &lower, &HashSet::new()).unwrap();
        let mut layer = Vec::new();
        pack::layer::pack(&upper, &lower, &Default::default(), &mut layer).unwrap();
        let options = pack::layer::Options { latest: Some(0), changed: true, ..Default::default() };
        let mut timeless = Vec::new();
        pack::layer::pack(&upper, &lower, &options, &mut timeless).unwrap();
        made.lock().unwrap().push(timeless);
        let diffs = unpack(&storage, &diffs, &[layer]);
        let again = container(&storage, "two", &diffs);
        let mut got = listing(&mount(&again).path);
        // No archive can bring it.
        got.insert("a/socket".into(), wanted[Path::new("a/socket")].clone());
        let mut wanted = wanted;
        for tree in [&mut wanted, &mut got] {
            // It is made with the time of the day, as the engine makes it.
            for name in ["a/tty", "a/symbolic", "same-x", "same-y", "b/link"] {
                tree.remove(Path::new(name));
            }
        }
        assert_eq!(difference(&wanted, &got), [""; 0]);
        let text = |(path, kind): &(Vec<u8>, Kind)| format!("{kind:?} {}", String::from_utf8_lossy(path));
        told.lock().unwrap().push(found.iter().map(text).collect::<Vec<_>>());
    });
    let told = told.into_inner().unwrap();
    assert!(told[0].contains(&"Deleted a/gone".to_owned()), "{told:?}");
    assert_eq!(told[0], told[1]);
    let [one, other] = [0, 1].map(|index| names(&made.lock().unwrap()[index]));
    assert_eq!(one, other);
    let made = made.into_inner().unwrap();
    assert!(made[0] == made[1], "the same tar but for times");
}

/// The names in a tar, in their order.
fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap();
    entries.map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned()).collect()
}

#[test]
fn a_container_writes_for_itself_alone_and_its_size_is_what_it_wrote() {
    each(|temp, storage| {
        let diffs = unpack(&storage, &[], &layers());
        let (one, two) = (container(&storage, "one", &diffs), container(&storage, "two", &diffs));
        let before = listing(&mount(&two).path);
        let mounted = mount(&one);
        fs::write(mounted.path.join("new"), vec![7; 100_000]).unwrap();
        fs::hard_link(mounted.path.join("new"), mounted.path.join("link")).unwrap();
        fs::write(mounted.path.join("a/kept"), "0123456789").unwrap();
        drop(mounted);
        assert_eq!(storage.snapshots().size("one").unwrap(), 100_010);
        assert_eq!(storage.snapshots().size("two").unwrap(), 0);
        assert_eq!(difference(&before, &listing(&mount(&two).path)), [""; 0]);
        let driver = storage.driver();
        drop(storage);
        let storage = open(temp, driver);
        assert_eq!(storage.snapshots().mounts("one").unwrap(), one);
        assert_eq!(fs::read(mount(&one).path.join("a/kept")).unwrap(), b"0123456789");
        storage.snapshots().remove("one").unwrap();
        storage.settle();
        assert!(!one.upper.exists() && two.upper.exists());
        assert_eq!(storage.snapshots().list().unwrap(), ["two"]);
    });
}

#[test]
fn the_root_is_the_images_and_names_are_checked() {
    each(|_, storage| {
        let mut header = Tar::header(EntryType::Directory, 0);
        header.set_mode(0o711);
        let mut tar = Tar::new();
        tar.0.append_data(&mut header, "./", std::io::empty()).unwrap();
        let diffs = unpack(&storage, &[], &[tar.end()]);
        let root = fs::metadata(mount(&container(&storage, "one", &diffs)).path).unwrap();
        assert_eq!((root.mode() & 0o7777, root.uid()), (0o711, 70_000));
        let snapshots = storage.snapshots();
        assert!(matches!(snapshots.create("one", None), Err(Error::Exists { .. })));
        for bad in ["", "..", "a/b", "a\0b"] {
            assert!(matches!(snapshots.create(bad, None), Err(Error::BadIdentifier(_))), "{bad:?}");
        }
        let missing = Digest::of(b"nothing");
        assert!(matches!(snapshots.create("two", Some(&missing)), Err(Error::NotFound { .. })));
        assert!(matches!(snapshots.mounts("two"), Err(Error::NotFound { .. })));
        snapshots.create("bare", None).unwrap();
        let bare = fs::metadata(mount(&snapshots.mounts("bare").unwrap()).path).unwrap();
        assert_eq!((bare.mode() & 0o7777, bare.uid()), (0o755, 0));
        let lease = snapshots.acquire("one").unwrap();
        assert!(matches!(snapshots.acquire("one"), Err(Error::Held { .. })));
        drop(lease);
        snapshots.acquire("one").unwrap();
    });
}

#[test]
fn what_a_crash_left_of_a_container_goes() {
    each(|temp, storage| {
        let driver = storage.driver();
        let kept = container(&storage, "kept", &unpack(&storage, &[], &layers()));
        let orphan = kept.upper.parent().unwrap().parent().unwrap().join("half");
        drop(storage);
        fs::create_dir_all(orphan.join("root/deep")).unwrap();
        let storage = open(temp, driver);
        storage.settle();
        assert!(!orphan.exists());
        assert!(mount(&kept).path.join("a/kept").exists());
    });
}

#[test]
fn a_full_disk_leaves_nothing_half_made() {
    let temp = tempfile::tempdir().unwrap();
    let storage = open(&temp, Driver::Copy);
    let diffs = unpack(&storage, &[], &layers());
    container(&storage, "kept", &diffs);
    drop(storage);
    let options =
        Options { driver: Some(Driver::Copy), keep_free_bytes: Some(u64::MAX / 2), ..Options::default() };
    let storage = Storage::open(temp.path().join("root"), options).unwrap();
    let error = storage.snapshots().create("one", chain_ids(&diffs).last()).unwrap_err();
    assert!(error.is_disk_full(), "{error}");
    assert_eq!(storage.snapshots().list().unwrap(), ["kept"]);
    assert_eq!(fs::read_dir(temp.path().join("root/vfs/containers")).unwrap().count(), 1);
}

#[test]
fn owned_copies_are_others_on_the_disk_and_the_same_to_their_readers() {
    let temp = tempfile::tempdir().unwrap();
    let range = |outside| vec![Range { inside: 0, outside, count: 1 << 31 }];
    let owners = Mappings { users: range(100_000), groups: range(300_000) };
    let open = |owners: Option<Mappings>| {
        let options = Options { driver: Some(Driver::Copy), owners, ..Options::default() };
        Storage::open(temp.path().join("root"), options).unwrap()
    };
    assert!(!Storage::has_owners(&temp.path().join("root")));
    let storage = open(Some(owners.clone()));
    assert!(Storage::has_owners(&temp.path().join("root")));
    let diffs = unpack(&storage, &[], &layers());
    let plain = container(&storage, "plain", &diffs);
    let owned = Wish { owned: true, ..Wish::default() };
    storage.snapshots().create_with("owned", chain_ids(&diffs).last(), owned).unwrap();
    drop(storage);
    // Whoever opens it, and how.
    let storage = open(None);
    let owned = storage.snapshots().mounts("owned").unwrap();
    assert_eq!((owned.owners.as_deref(), plain.owners.as_deref()), (Some(&owners), None));
    let tar = |snapshot: &Snapshot| {
        let mut tar = Vec::new();
        pack::pack(&snapshot.merged().unwrap(), &mut tar).unwrap();
        tar
    };
    assert!(tar(&owned) == tar(&plain), "the same files");
    for entry in ["", "a", "a/one", "a/null", "a/gone"] {
        let of = |snapshot: &Snapshot| fs::symlink_metadata(snapshot.upper.join(entry)).unwrap();
        let (on_disk, inside) = (of(&owned), of(&plain));
        assert_eq!(
            (on_disk.uid(), on_disk.gid()),
            (inside.uid() + 100_000, inside.gid() + 300_000),
            "{entry}"
        );
    }
    let differs = |snapshot: &Snapshot| {
        changes::changes(&snapshot.written().unwrap(), &snapshot.image().unwrap(), &HashSet::new()).unwrap()
    };
    assert_eq!(differs(&owned), []);
    // What a container makes belongs on the disk to whom its users are there.
    for (snapshot, uid, gid) in [(&owned, 100_007, 300_008), (&plain, 7, 8)] {
        let path = snapshot.upper.join("a/made");
        fs::write(&path, "x").unwrap();
        fs::File::open(&path)
            .unwrap()
            .set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH))
            .unwrap();
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
        let folder = fs::File::open(snapshot.upper.join("a")).unwrap();
        folder.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH)).unwrap();
    }
    let expected = [(b"a".to_vec(), Kind::Modified), (b"a/made".to_vec(), Kind::Added)];
    assert_eq!(differs(&owned), expected);
    let layer = |snapshot: &Snapshot| {
        let (upper, lower) = (snapshot.written().unwrap(), snapshot.image().unwrap());
        let mut tar = Vec::new();
        pack::layer::pack(&upper, &lower, &Default::default(), &mut tar).unwrap();
        tar
    };
    assert!(layer(&owned) == layer(&plain), "the same layer");
    assert_eq!(storage.snapshots().size("owned").unwrap(), storage.snapshots().size("plain").unwrap());
}

#[test]
fn overlays_of_layers_have_no_other_owners() {
    let temp = tempfile::tempdir().unwrap();
    let owners = Some(Mappings::default());
    let asked = Options { driver: Some(Driver::Overlay), owners: owners.clone(), ..Options::default() };
    let error = Storage::open(temp.path().join("root"), asked).unwrap_err().to_string();
    assert!(error.contains("users of containers need a copy of all files"), "{error}");
    // Nor does a data root with layers become another one.
    fs::create_dir_all(temp.path().join("root/layers/0123")).unwrap();
    Storage::open(temp.path().join("root"), Options { owners, ..Options::default() }).unwrap_err();
}

#[test]
fn data_of_two_drivers_is_kept_apart() {
    let temp = tempfile::tempdir().unwrap();
    for driver in [Driver::Overlay, Driver::Copy, Driver::Overlay, Driver::Copy] {
        let storage = open(&temp, driver);
        let name = format!("of-{}", driver.name());
        if storage.snapshots().list().unwrap().is_empty() {
            storage.snapshots().create(&name, None).unwrap();
        }
        assert_eq!(storage.snapshots().list().unwrap(), [name]);
    }
    let one = open(&temp, Driver::Copy);
    let busy = Storage::open(temp.path().join("root"), Options::default()).unwrap_err();
    assert!(matches!(busy, Error::RootInUse { .. }), "the lock is of all of it: {busy}");
    drop(one);
}

#[test]
fn overlayfs_is_found_not_to_work_on_an_overlay() {
    let temp = tempfile::tempdir().unwrap();
    let storage = open(&temp, Driver::Overlay);
    storage.snapshots().create("outer", None).unwrap();
    let outer = mount(&storage.snapshots().mounts("outer").unwrap());
    let loose = Storage::open(outer.path.join("data"), Options::default()).unwrap_err();
    assert!(matches!(loose, Error::RootRefused { .. } | Error::File { .. }), "{loose}");
    let place = Placed::new(&outer, temp.path().join("place"));
    let root = place.0.join("data");
    let inner = Storage::open(&root, Options::default()).unwrap();
    assert_eq!(inner.driver(), Driver::Copy);
    assert!(!inner.overlay_problem().unwrap().is_empty());
    let diffs = unpack(&inner, &[], &layers());
    let mounted = mount(&container(&inner, "one", &diffs));
    assert_eq!(fs::read(mounted.path.join("a/gone")).unwrap(), b"back");
    drop(inner);
    let asked = Options { driver: Some(Driver::Overlay), ..Options::default() };
    let error = Storage::open(&root, asked).unwrap_err().to_string();
    assert!(
        error.starts_with("error initializing graphdriver: prerequisites for driver not satisfied"),
        "{error}"
    );
    // What is there for overlayfs is not passed over.
    fs::create_dir(root.join("layers/0123")).unwrap();
    Storage::open(&root, Options::default()).unwrap_err();
}

#[test]
fn copies_share_contents_where_the_file_system_can() {
    const SIZE: usize = 24 << 20;
    // Nothing that could be compressed or left out.
    let mut state = 1u64;
    let mut content = Vec::with_capacity(SIZE);
    while content.len() < SIZE {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        content.extend_from_slice(&state.to_be_bytes()[..4]);
    }
    for kind in SHARING {
        let disk = Formatted::new(kind);
        let temp = tempfile::tempdir_in(disk.path()).unwrap();
        let storage = open(&temp, Driver::Copy);
        let diffs = unpack(&storage, &[], &[Tar::new().file("large", &content).end()]);
        let before = disk.free();
        let copies: Vec<PathBuf> = ["one", "two", "three"]
            .map(|id| container(&storage, id, &diffs).upper.join("large"))
            .into_iter()
            .collect();
        let taken = before.saturating_sub(disk.free());
        assert!(taken < SIZE as u64 / 2, "{kind}: three copies took {taken} bytes");
        for copy in &copies {
            let extents = formatted::extents(copy);
            assert!(
                !extents.is_empty() && extents.iter().all(|flags| flags.contains("shared")),
                "{kind}: {extents:?}"
            );
        }
        // What one of them writes is its own.
        let file = File::options().write(true).open(&copies[0]).unwrap();
        file.write_all_at(&[0xaa; 4096], 0).unwrap();
        file.sync_all().unwrap();
        assert!(formatted::extents(&copies[0]).iter().any(|flags| !flags.contains("shared")), "{kind}");
        assert!(fs::read(&copies[1]).unwrap() == content, "{kind}");
    }
}
