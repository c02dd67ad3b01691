//! Both ways, against quiet trees and against one that an attacker changes.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::super::pack;
use super::*;

fn open(path: &std::path::Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

fn packed(root: &std::path::Path, path: &str, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    pack(open(root).as_fd(), path.as_bytes(), name.as_bytes(), &mut out).unwrap();
    out
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap();
    entries.map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned()).collect()
}

fn put(root: &std::path::Path, path: &str, tar: &[u8]) -> Result<()> {
    let options = Options { owner: Owner::Caller, ..Options::default() };
    unpack(open(root).as_fd(), path.as_bytes(), &options, tar)
}

fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, text) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(0o640);
        header.set_mtime(1_000_000_000);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let content = if *kind == tar::EntryType::Regular { text.as_bytes() } else { b"" };
        if content.is_empty() {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

const FILE: tar::EntryType = tar::EntryType::Regular;
const DIRECTORY: tar::EntryType = tar::EntryType::Directory;
const LINK: tar::EntryType = tar::EntryType::Symlink;
const HARD: tar::EntryType = tar::EntryType::Link;

fn tree() -> TempDir {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    fs::create_dir_all(root.join("bar/quux")).unwrap();
    fs::write(root.join("foo"), "hello").unwrap();
    fs::write(root.join("bar/quux/baz"), "world").unwrap();
    symlink("quux", root.join("bar/dirsymlink")).unwrap();
    symlink("/", root.join("bar/root")).unwrap();
    symlink("notexist", root.join("bar/notarget")).unwrap();
    temp
}

#[test]
fn names_in_the_archive_are_dockers() {
    let temp = tree();
    let root = temp.path().join("root");
    assert_eq!(names(&packed(&root, "/foo", "foo")), ["foo"]);
    assert_eq!(names(&packed(&root, "/bar/quux", "quux")), ["quux/", "quux/baz"]);
    assert_eq!(names(&packed(&root, "/bar/quux/.", ".")), ["./", "./baz"]);
    assert_eq!(names(&packed(&root, "/bar/dirsymlink", "dirsymlink")), ["dirsymlink"]);
    assert_eq!(names(&packed(&root, "/bar/dirsymlink/", "dirsymlink")), ["dirsymlink/", "dirsymlink/baz"]);
    assert_eq!(names(&packed(&root, "/bar/notarget", "notarget")), ["notarget"]);
    let all = names(&packed(&root, "/", ""));
    assert!(
        ["/", "/foo", "/bar/", "/bar/quux/baz"].iter().all(|name| all.contains(&(*name).to_owned())),
        "{all:?}"
    );
    assert_eq!(names(&packed(&root, "/bar/root/.", ".")).len(), all.len());
}

#[test]
fn everything_comes_back_as_it_was() {
    let temp = tree();
    let root = temp.path().join("root");
    fs::hard_link(root.join("foo"), root.join("bar/twin")).unwrap();
    fs::set_permissions(root.join("foo"), fs::Permissions::from_mode(0o4751)).unwrap();
    std::os::unix::fs::chown(root.join("bar/quux/baz"), Some(12), Some(3_000_000_000)).unwrap();
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, root.join("null"), FileType::CharacterDevice, Mode::RUSR, null).unwrap();
    rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let tar = packed(&root, "/", "");
    let to = temp.path().join("to");
    fs::create_dir(&to).unwrap();
    unpack(open(temp.path()).as_fd(), b"/to", &Options::default(), tar.as_slice()).unwrap();
    let (a, b) = (fs::metadata(to.join("foo")).unwrap(), fs::metadata(to.join("bar/twin")).unwrap());
    assert_eq!((a.ino(), a.mode() & 0o7777), (b.ino(), 0o4751));
    let owned = fs::metadata(to.join("bar/quux/baz")).unwrap();
    assert_eq!((owned.uid(), owned.gid()), (12, 3_000_000_000));
    assert_eq!(fs::metadata(to.join("null")).unwrap().rdev(), null);
    assert!(fs::symlink_metadata(to.join("fifo")).unwrap().file_type().is_fifo());
    assert_eq!(fs::read_link(to.join("bar/root")).unwrap(), std::path::Path::new("/"));
    let time = |root: &std::path::Path| fs::metadata(root.join("bar/quux")).unwrap().mtime();
    assert_eq!(time(&to), time(&root));
}

#[test]
fn files_and_directories_do_not_replace_each_other_unless_allowed() {
    let temp = tree();
    let root = temp.path().join("root");
    let error = put(&root, "/", &archive(&[("bar", FILE, "x")])).unwrap_err();
    assert_eq!(error.to_string(), "cannot overwrite directory \"bar\" with non-directory \"/\"");
    let error = put(&root, "/bar", &archive(&[("quux/baz", DIRECTORY, "")])).unwrap_err();
    assert_eq!(error.to_string(), "cannot overwrite non-directory \"quux/baz\" with directory \"/bar\"");
    let error = put(&root, "/bar", &archive(&[("dirsymlink", DIRECTORY, "")])).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot overwrite non-directory"),
        "a link is no directory: {error}"
    );
    let options = Options { replace: true, owner: Owner::Caller, ..Options::default() };
    let both = archive(&[("bar", FILE, "x"), ("foo", DIRECTORY, "")]);
    unpack(open(&root).as_fd(), b"/", &options, both.as_slice()).unwrap();
    assert!(root.join("bar").is_file() && root.join("foo").is_dir());
}

#[test]
fn links_in_the_way_are_followed_inside_and_links_at_the_end_replaced() {
    let temp = tree();
    let root = temp.path().join("root");
    fs::create_dir(temp.path().join("outside")).unwrap();
    symlink("../../outside", root.join("out")).unwrap();
    symlink(temp.path().join("outside"), root.join("absolute")).unwrap();
    let outside = "out/new";
    put(
        &root,
        "/",
        &archive(&[(outside, FILE, "in"), ("bar/dirsymlink/in", FILE, "i"), ("foo", LINK, "/etc")]),
    )
    .unwrap();
    assert_eq!(fs::read_dir(temp.path().join("outside")).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(root.join("outside/new")).unwrap(), "in");
    assert!(root.join("bar/quux/in").is_file());
    assert_eq!(fs::read_link(root.join("foo")).unwrap(), std::path::Path::new("/etc"));
    put(&root, "/", &archive(&[("foo", FILE, "again")])).unwrap();
    assert!(fs::symlink_metadata(root.join("foo")).unwrap().is_file());
    put(&root, "/", &archive(&[("absolute/deep/file", FILE, "x")])).unwrap();
    assert_eq!(fs::read_dir(temp.path().join("outside")).unwrap().count(), 0);
}

#[test]
fn names_that_lead_out_are_refused() {
    let temp = tree();
    let root = temp.path().join("root");
    for bad in ["../x", "bar/../../x", ".."] {
        let error = put(&root, "/", &archive(&[(bad, FILE, "x")])).unwrap_err();
        assert!(error.to_string().contains("leads upwards"), "{bad}: {error}");
    }
    for bad in ["../x", "/..", "bar/../.."] {
        assert!(put(&root, "/", &archive(&[("hard", HARD, bad)])).is_err(), "{bad}");
    }
    put(&root, "/bar", &archive(&[("/foo/../in", FILE, "x"), ("hard", HARD, "in")])).unwrap();
    assert!(root.join("bar/in").is_file() && root.join("bar/hard").is_file());
}

#[test]
fn a_cut_archive_leaves_no_cut_file() {
    let temp = tree();
    let root = temp.path().join("root");
    let tar = archive(&[("first", FILE, "whole"), ("second", FILE, &"x".repeat(2000))]);
    put(&root, "/", &tar[..512 * 4]).unwrap_err();
    assert!(root.join("first").is_file());
    assert!(!root.join("second").exists());
    put(&root, "/", b"").unwrap();
}

/// One directory is swapped with a link that leads out, as fast as can be, while files are copied both ways (R10).
#[test]
fn r10_swapped_links_lead_nowhere() {
    let temp = tempfile::tempdir().unwrap();
    let (root, outside) = (temp.path().join("root"), temp.path().join("outside"));
    fs::create_dir_all(root.join("dir")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(root.join("dir/file"), "inside").unwrap();
    fs::write(outside.join("file"), "SECRET").unwrap();
    symlink(&outside, root.join("link")).unwrap();
    let (top, stop) = (open(&root), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&top, "dir", &top, "link", exchange).unwrap();
            }
        });
        let content = archive(&[("dir/new", FILE, "mine"), ("dir/x/y", FILE, "mine")]);
        for _ in 0..3000 {
            for path in ["/dir", "/dir/", "/dir/file", "/"] {
                let mut out = Vec::new();
                // It fails where the link stands, which leads to nothing inside.
                let _ = pack(top.as_fd(), path.as_bytes(), b"x", &mut out);
                assert!(!out.windows(6).any(|bytes| bytes == b"SECRET"), "{path}");
            }
            let _ = put(&root, "/", &content);
            let _ = put(&root, "/dir", &content);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["file"]);
}

#[test]
fn names_are_changed_with_what_is_below_them() {
    let of = |from: &str, to: &str, name: &str| {
        let rename = Rename { from: from.as_bytes().to_vec(), to: to.as_bytes().to_vec() };
        String::from_utf8(rename.of(name.as_bytes())).unwrap()
    };
    assert_eq!(of("a", "b", "a/"), "b/");
    assert_eq!(of("a", "b", "a/a"), "b/a");
    assert_eq!(of("a", "b", "ab"), "ab");
    assert_eq!(of(".", "b", "./x"), "b/x");
    assert_eq!(of("/", "b", "/x"), "b/x");
    assert_eq!(of("/", "b", "/"), "b/");
    assert_eq!(of("", "", "/x"), "x");
    let temp = tree();
    let root = temp.path().join("root");
    let tar = archive(&[("old", DIRECTORY, ""), ("old/one", FILE, "1"), ("old/two", HARD, "old/one")]);
    let renames = vec![Rename { from: b"old".to_vec(), to: b"new".to_vec() }];
    let options = Options { owner: Owner::Caller, renames, ..Options::default() };
    unpack(open(&root).as_fd(), b"/", &options, tar.as_slice()).unwrap();
    let inode = |name: &str| fs::metadata(root.join("new").join(name)).unwrap().ino();
    assert_eq!(inode("one"), inode("two"));
}

#[test]
fn what_is_mounted_is_not_removed_from_another_namespace() {
    use berth_sys::{mount, process};
    let temp = tree();
    let root = temp.path().join("root");
    fs::write(temp.path().join("mounted"), "kept").unwrap();
    // A mount namespace of another thread, as a container's is.
    let there = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            process::unshare(process::flags::NEWNS).unwrap();
            let change = mount::Attributes {
                propagation: mount::propagation::PRIVATE,
                recursive: true,
                ..mount::Attributes::default()
            };
            mount::set_attributes(open(std::path::Path::new("/")), change, None).unwrap();
            let file = mount::clone_at(CWD, &temp.path().join("mounted"), false).unwrap();
            mount::attach(file, beneath::open_path(open(&root), Path::new("foo")).unwrap()).unwrap();
            let directory = mount::new_filesystem("tmpfs", &[], 0).unwrap();
            mount::attach(directory, beneath::open_path(open(&root), Path::new("bar/quux")).unwrap())
                .unwrap();
            (open(&root), fs::File::open("/proc/thread-self/ns/mnt").unwrap())
        });
        thread.join().unwrap()
    });
    let options = Options { replace: true, owner: Owner::Caller, ..Options::default() };
    for name in ["foo", "bar/quux", "bar"] {
        let tar = archive(&[(name, FILE, "new")]);
        let error = unpack(there.0.as_fd(), b"/", &options, tar.as_slice()).unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("busy"), "{name}: {error}");
    }
    assert_eq!(fs::read_to_string(root.join("foo")).unwrap(), "hello");
    assert!(root.join("bar/quux/baz").exists());
}

#[test]
fn owners_are_seen_from_inside_a_user_namespace() {
    // Only root gives files away.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let range = |outside| vec![berth_sys::ids::Range { inside: 0, outside, count: 1000 }];
    let ids = Mappings { users: range(100_000), groups: range(200_000) };
    let temp = tree();
    let root = temp.path().join("root");
    std::os::unix::fs::chown(root.join("foo"), Some(100_007), Some(200_008)).unwrap();
    let packed = |path: &[u8]| {
        let mut out = Vec::new();
        super::super::pack_inside(open(&root).as_fd(), path, b"x", &mut out, Some(&ids)).unwrap();
        out
    };
    let owner = |archive: &[u8]| {
        let mut archive = tar::Archive::new(archive);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        (entry.header().uid().unwrap(), entry.header().gid().unwrap())
    };
    let foo = packed(b"/foo");
    assert_eq!(owner(&foo), (7, 8));
    // Root outside is nobody inside.
    let nobodys = packed(b"/bar/quux/baz");
    assert_eq!(owner(&nobodys), (65534, 65534));
    let options = Options { ids: Some(ids.clone()), ..Options::default() };
    unpack(open(&root).as_fd(), b"/bar", &options, &foo[..]).unwrap();
    let found = fs::metadata(root.join("bar/x")).unwrap();
    assert_eq!((found.uid(), found.gid()), (100_007, 200_008));
    let error = unpack(open(&root).as_fd(), b"/bar", &options, &nobodys[..]).unwrap_err();
    assert!(error.to_string().contains("not in the user namespace"), "{error}");
}

/// All names of a directory, in order.
fn listed(directory: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn replace(root: &std::path::Path, tar: impl Read) -> Result<()> {
    let options = Options { replace: true, atomic: true, owner: Owner::Caller, ..Options::default() };
    unpack(open(root).as_fd(), b"/", &options, tar)
}

/// Looks at a tree whenever more of the archive is read.
struct Watched<'a, F> {
    tar: &'a [u8],
    look: F,
}

impl<F: FnMut()> Read for Watched<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.look)();
        let count = self.tar.len().min(buffer.len()).min(4096);
        buffer[..count].copy_from_slice(&self.tar[..count]);
        self.tar = &self.tar[count..];
        Ok(count)
    }
}

#[test]
fn a_file_is_seen_when_it_is_whole() {
    let temp = tree();
    let root = temp.path().join("root");
    let text = "x".repeat(100_000);
    let tar = archive(&[("foo", FILE, &text), ("new", FILE, &text), ("bar/notarget", FILE, &text)]);
    let mut looks = 0;
    let look = || {
        looks += 1;
        let foo = fs::read_to_string(root.join("foo")).unwrap();
        assert!(foo == "hello" || foo == text, "{} bytes", foo.len());
        assert!(
            fs::read_to_string(root.join("new")).is_ok_and(|new| new == text) || !root.join("new").exists()
        );
    };
    replace(&root, Watched { tar: &tar, look }).unwrap();
    assert!(looks > 30, "{looks}");
    assert_eq!(listed(&root), ["bar", "foo", "new"]);
    assert_eq!(listed(&root.join("bar")), ["dirsymlink", "notarget", "quux", "root"]);
    assert_eq!(fs::read_to_string(root.join("bar/notarget")).unwrap(), text);
    assert_eq!(fs::metadata(root.join("foo")).unwrap().mode() & 0o7777, 0o640);
}

#[test]
fn what_was_to_be_replaced_stays_if_the_new_one_fails() {
    let temp = tree();
    let root = temp.path().join("root");
    let text = "x".repeat(100_000);
    // A file over a file, over a directory, and over a link that leads nowhere.
    for name in ["foo", "bar", "bar/notarget", "new"] {
        let tar = archive(&[(name, FILE, &text)]);
        assert!(replace(&root, &tar[..50_000]).is_err());
        assert_eq!(listed(&root), ["bar", "foo"]);
        assert_eq!(fs::read_to_string(root.join("foo")).unwrap(), "hello");
        assert_eq!(listed(&root.join("bar")), ["dirsymlink", "notarget", "quux", "root"]);
    }
    // Nor does a hard link that leads nowhere take its place.
    assert!(replace(&root, archive(&[("foo", HARD, "absent")]).as_slice()).is_err());
    assert_eq!(fs::read_to_string(root.join("foo")).unwrap(), "hello");
    assert!(replace(&root, archive(&[("bar/quux", HARD, "foo/none")]).as_slice()).is_err());
    assert_eq!(listed(&root), ["bar", "foo"]);
    assert_eq!(fs::read_to_string(root.join("bar/quux/baz")).unwrap(), "world");
}

#[test]
fn everything_replaces_everything_and_leaves_nothing_beside() {
    const FIFO: tar::EntryType = tar::EntryType::Fifo;
    for (kind, text) in [(FILE, "x"), (DIRECTORY, ""), (LINK, "where"), (HARD, "bar/quux/baz"), (FIFO, "")] {
        let temp = tree();
        let root = temp.path().join("root");
        fs::create_dir(root.join("empty")).unwrap();
        for name in ["foo", "empty", "bar/dirsymlink", "bar/notarget", "new"] {
            let tar = archive(&[(name, kind, text)]);
            // Once more, over itself.
            for _ in 0..2 {
                replace(&root, tar.as_slice()).unwrap();
                let found = fs::symlink_metadata(root.join(name)).unwrap().file_type();
                let expected = match kind {
                    DIRECTORY => found.is_dir(),
                    LINK => found.is_symlink(),
                    FIFO => found.is_fifo(),
                    _ => found.is_file(),
                };
                assert!(expected, "{name} {kind:?}: {found:?}");
            }
        }
        assert_eq!(listed(&root), ["bar", "empty", "foo", "new"], "{kind:?}");
        assert_eq!(listed(&root.join("bar")), ["dirsymlink", "notarget", "quux", "root"], "{kind:?}");
        assert_eq!(fs::read_to_string(root.join("bar/quux/baz")).unwrap(), "world");
    }
}

#[test]
fn a_hard_link_to_itself_is_nothing() {
    let temp = tree();
    let root = temp.path().join("root");
    let tar = archive(&[("foo", HARD, "./foo"), ("bar/dirsymlink/baz", HARD, "bar/quux/baz")]);
    replace(&root, tar.as_slice()).unwrap();
    put(&root, "/", &archive(&[("foo", HARD, "foo")])).unwrap();
    assert_eq!(fs::read_to_string(root.join("foo")).unwrap(), "hello");
    assert_eq!(fs::read_to_string(root.join("bar/quux/baz")).unwrap(), "world");
    assert_eq!(listed(&root.join("bar/quux")), ["baz"]);
}
