//! Layers as they come, honest and hostile: what they become on the disk, and what they cannot touch. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use berth_archive::extract::{Extracted, Extractor, Limits, Options, fixup};
use berth_archive::{Error, decompress, meta};
use tar::{EntryType, Header};
use tempfile::TempDir;

/// A tar in the making, whose headers may say anything.
struct Tar(Vec<u8>);

impl Tar {
    fn new() -> Tar {
        Tar(Vec::new())
    }

    fn header(kind: EntryType, name: &[u8], size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header
    }

    fn add(mut self, mut header: Header, data: &[u8]) -> Tar {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &[u8]) -> Tar {
        let header = Tar::header(EntryType::Regular, name.as_bytes(), data.len() as u64);
        self.add(header, data)
    }

    fn directory(self, name: &str, mode: u32) -> Tar {
        let mut header = Tar::header(EntryType::Directory, name.as_bytes(), 0);
        header.set_mode(mode);
        self.add(header, b"")
    }

    fn link(self, kind: EntryType, name: &str, target: &str) -> Tar {
        let mut header = Tar::header(kind, name.as_bytes(), 0);
        header.set_link_name_literal(target).unwrap();
        self.add(header, b"")
    }

    fn pax(self, records: &[(&str, &str)]) -> Tar {
        let mut body = Vec::new();
        for (name, value) in records {
            let rest = name.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length = rest + length.to_string().len();
            }
            writeln!(body, "{length} {name}={value}").unwrap();
        }
        let header = Tar::header(EntryType::XHeader, b"pax", body.len() as u64);
        self.add(header, &body)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// A directory to unpack into, with a file beside it that nothing may touch.
struct Place {
    work: TempDir,
}

impl Place {
    fn new() -> Place {
        let work = tempfile::tempdir().unwrap();
        fs::create_dir(work.path().join("root")).unwrap();
        fs::write(work.path().join("canary"), "alive").unwrap();
        Place { work }
    }

    fn root(&self) -> PathBuf {
        self.work.path().join("root")
    }

    fn unpack(&self, tar: &[u8]) -> Result<Extracted, Error> {
        self.unpack_within(tar, Options::default())
    }

    fn unpack_within(&self, tar: &[u8], options: Options) -> Result<Extracted, Error> {
        let directory = File::open(self.root()).unwrap().into();
        Extractor::new(directory, options).layer(decompress::reader(tar)?)
    }

    /// Unpacks what must be refused, for a reason that contains `text`.
    #[track_caller]
    fn refuses(&self, tar: &[u8], text: &str) {
        let error = self.unpack(tar).expect_err("it was unpacked").to_string();
        assert!(error.contains(text), "no {text:?} in {error:?}");
        self.is_intact();
    }

    #[track_caller]
    fn is_intact(&self) {
        assert_eq!(fs::read_to_string(self.work.path().join("canary")).unwrap(), "alive");
        assert_eq!(fs::read_dir(self.work.path()).unwrap().count(), 2);
    }
}

#[test]
fn attributes_arrive_as_they_were() {
    let mut setuid = Tar::header(EntryType::Regular, b"bin/su", 4);
    setuid.set_mode(0o4755);
    setuid.set_gid(42);
    let tar = Tar::new()
        .directory("bin", 0o1777)
        .add(setuid, b"root")
        .pax(&[
            ("mtime", "1000000000.123456789"),
            ("uid", "3000000000"),
            ("SCHILY.xattr.user.note", "a=b\nc"),
        ])
        .file("bin/file", b"x")
        .link(EntryType::Symlink, "bin/link", "/etc/passwd")
        .link(EntryType::Link, "bin/hard", "bin/file")
        .add(Tar::header(EntryType::Fifo, b"fifo", 0), b"")
        .end();
    let place = Place::new();
    let extracted = place.unpack(&tar).unwrap();
    assert_eq!((extracted.entries, extracted.size), (6, tar.len() as u64));
    let at = |name: &str| fs::symlink_metadata(place.root().join(name)).unwrap();
    assert_eq!(at("bin").permissions().mode() & 0o7777, 0o1777);
    assert_eq!((at("bin/su").permissions().mode() & 0o7777, at("bin/su").gid()), (0o4755, 42));
    let file = at("bin/file");
    assert_eq!((file.mtime(), file.mtime_nsec(), file.uid()), (1_000_000_000, 123_456_789, 3_000_000_000));
    assert_eq!((file.nlink(), at("bin/hard").ino()), (2, file.ino()));
    assert_eq!(fs::read_link(place.root().join("bin/link")).unwrap(), Path::new("/etc/passwd"));
    assert!(at("fifo").file_type().is_fifo());
    let mut value = [0_u8; 16];
    let length = rustix::fs::getxattr(place.root().join("bin/file"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..length], b"a=b\nc");
}

#[test]
fn whiteouts_become_what_overlayfs_understands() {
    let tar = Tar::new()
        .directory("dir", 0o755)
        .file("dir/.wh.gone", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"n")
        .end();
    let place = Place::new();
    place.unpack(&tar).unwrap();
    let gone = fs::symlink_metadata(place.root().join("dir/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0_u8; 4];
    let length =
        rustix::fs::getxattr(place.root().join("opaque"), "trusted.overlay.opaque", &mut value).unwrap();
    assert_eq!(&value[..length], b"y");
    assert!(!place.root().join("dir/.wh.gone").exists());
}

#[test]
fn what_leads_out_of_the_root_is_refused() {
    let long = "a/".repeat(600) + "f";
    for (tar, text) in [
        (Tar::new().file("../canary", b"dead").end(), "../canary"),
        (Tar::new().file("a/../../canary", b"dead").end(), "canary"),
        (Tar::new().link(EntryType::Symlink, "out", "..").file("out/canary", b"dead").end(), "out/canary"),
        (Tar::new().link(EntryType::Symlink, "out", "..").file("out/.wh.canary", b"").end(), "out"),
        (Tar::new().link(EntryType::Link, "hard", "../canary").end(), "hard"),
        (Tar::new().file(".wh...", b"").end(), ".wh"),
        (Tar::new().pax(&[("path", &long)]).file("x", b"").end(), "limit"),
        (Tar::new().pax(&[("uid", "4294967295")]).file("x", b"").end(), "owner"),
        (Tar::new().pax(&[("uid", "4294967296")]).file("x", b"").end(), "owner"),
        (Tar::new().pax(&[("size", "99999999999999999999")]).file("x", b"").end(), "size"),
        (Tar::new().add(Tar::header(EntryType::new(b'V'), b"volume", 0), b"").end(), "type"),
    ] {
        Place::new().refuses(&tar, text);
    }
}

#[test]
fn ten_links_in_a_chain_are_not_followed() {
    let mut tar = Tar::new();
    for n in 0..10 {
        let target = if n == 9 { "..".to_owned() } else { format!("l{}", n + 1) };
        tar = tar.link(EntryType::Symlink, &format!("l{n}"), &target);
    }
    Place::new().refuses(&tar.file("l0/canary", b"dead").end(), "l0/canary");
}

#[test]
fn an_absolute_name_is_one_of_the_root() {
    let place = Place::new();
    place.unpack(&Tar::new().file("/etc/motd", b"hello").end()).unwrap();
    assert_eq!(fs::read(place.root().join("etc/motd")).unwrap(), b"hello");
}

#[test]
fn a_file_that_becomes_a_directory_and_back_is_the_last_of_them() {
    let place = Place::new();
    let tar = Tar::new()
        .file("x", b"1")
        .directory("x", 0o700)
        .file("x/y", b"2")
        .file("x", b"3")
        .link(EntryType::Symlink, "s", "/")
        .directory("s", 0o755)
        .file("s/inside", b"4")
        .end();
    place.unpack(&tar).unwrap();
    assert_eq!(fs::read(place.root().join("x")).unwrap(), b"3");
    assert_eq!(fs::read(place.root().join("s/inside")).unwrap(), b"4");
    place.is_intact();
}

#[test]
fn hard_links_find_their_files_in_the_layers_below() {
    let (below, above) = (Place::new(), Place::new());
    below.unpack(&Tar::new().directory("d", 0o750).file("d/file", b"content").end()).unwrap();
    let extracted = above.unpack(&Tar::new().link(EntryType::Link, "d/again", "d/file").end()).unwrap();
    assert!(!extracted.fixups.is_empty());
    let directory = File::open(above.root()).unwrap();
    fixup(directory.as_fd(), &extracted.fixups, &[below.root()]).unwrap();
    assert_eq!(fs::read(above.root().join("d/again")).unwrap(), b"content");
    // The directory that the archive only implied looks as it does below.
    assert_eq!(fs::metadata(above.root().join("d")).unwrap().permissions().mode() & 0o777, 0o750);
    let missing = above.unpack(&Tar::new().link(EntryType::Link, "e", "nowhere").end());
    let failed = missing.and_then(|made| fixup(directory.as_fd(), &made.fixups, &[below.root()]));
    assert!(failed.unwrap_err().to_string().contains('e'));
}

#[test]
fn what_is_cut_is_an_error_wherever_it_is_cut() {
    let tar = Tar::new().file("a", &[7; 700]).link(EntryType::Symlink, "b", "a").file("c", b"end").end();
    // Behind the last entry only zeros are missing.
    for cut in (1..tar.len() - 1024).step_by(97).filter(|cut| cut % 512 != 0) {
        assert!(Place::new().unpack(&tar[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn limits_hold() {
    let mut many = Tar::new();
    for n in 0..20 {
        many = many.file(&format!("f{n}"), b"");
    }
    let limits = Limits { entries: 10, ..Limits::default() };
    let options = Options { limits, ..Options::default() };
    let error = Place::new().unpack_within(&many.end(), options).unwrap_err();
    assert!(error.to_string().contains("entries"), "{error}");
    let options = Options { keep_free_bytes: u64::MAX, ..Options::default() };
    let error = Place::new().unpack_within(&Tar::new().file("f", b"x").end(), options).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
}

#[test]
fn a_recorded_layer_is_rebuilt_byte_for_byte() {
    let place = Place::new();
    let tar = Tar::new()
        .directory("d", 0o755)
        .file("d/zeros", &vec![0; 200_000])
        .pax(&[("mtime", "1.5"), ("SCHILY.xattr.user.x", "y")])
        .file("d/file", b"content")
        .link(EntryType::Link, "d/hard", "d/file")
        .file("d/.wh.gone", b"")
        .file("d/file", b"which replaces the first")
        .end();
    let record = place.work.path().join("record");
    let directory = File::open(place.root()).unwrap().into();
    let file = File::create(&record).unwrap();
    Extractor::new(directory, Options::default()).record(file).layer(tar.as_slice()).unwrap();
    let mut rebuilt = Vec::new();
    let directory = File::open(place.root()).unwrap();
    let mut record = File::open(&record).unwrap();
    meta::rebuild(&mut record, directory.as_fd(), place.work.path(), &mut rebuilt).unwrap();
    assert!(rebuilt == tar, "{} and {} bytes", rebuilt.len(), tar.len());
    assert_eq!(meta::length(&mut record).unwrap(), tar.len() as u64);
}

#[test]
fn the_extended_headers_of_one_entry_are_bounded_together() {
    let value = "v".repeat(60_000);
    let mut tar = Tar::new();
    for n in 0..40 {
        tar = tar.pax(&[(&format!("SCHILY.xattr.user.n{n}"), &value)]);
    }
    Place::new().refuses(&tar.file("f", b"").end(), "extended headers");
}

#[test]
fn a_link_leaves_the_time_of_its_directory() {
    let (below, above) = (Place::new(), Place::new());
    below.unpack(&Tar::new().directory("d", 0o755).file("d/file", b"content").end()).unwrap();
    let of = |place: &Place| fs::metadata(place.root().join("d")).unwrap().mtime();
    for explicit in [true, false] {
        let above = if explicit { &above } else { &Place::new() };
        let tar = if explicit { Tar::new().directory("d", 0o755) } else { Tar::new() };
        let made = above.unpack(&tar.link(EntryType::Link, "d/again", "d/file").end()).unwrap();
        fixup(File::open(above.root()).unwrap().as_fd(), &made.fixups, &[below.root()]).unwrap();
        assert_eq!(of(above), of(&below), "explicit: {explicit}");
    }
}

#[test]
fn a_whiteout_does_not_hide_a_link_of_its_own_layer() {
    let (below, above) = (Place::new(), Place::new());
    below.unpack(&Tar::new().file("file", b"content").end()).unwrap();
    let tar = Tar::new().link(EntryType::Link, "again", "file").file(".wh.again", b"").end();
    let made = above.unpack(&tar).unwrap();
    let directory = File::open(above.root()).unwrap();
    fixup(directory.as_fd(), &made.fixups, &[below.root()]).unwrap();
    assert_eq!(fs::read(above.root().join("again")).unwrap(), b"content");
}

#[test]
fn a_directory_that_only_marks_imply_is_nothing_of_its_layer() {
    let place = Place::new();
    let tar = Tar::new()
        .file("gone/deep/.wh.x", b"")
        .file("gone/opaque/.wh..wh..opq", b"")
        .file(".wh.gone", b"")
        .file("kept/deep/.wh.x", b"")
        .file("kept/file", b"k")
        .file(".wh.kept", b"")
        .directory("named", 0o755)
        .file("named/.wh.x", b"")
        .file(".wh.named", b"")
        .file("linked/.wh.x", b"")
        .link(EntryType::Link, "linked/again", "below")
        .file(".wh.linked", b"")
        .end();
    let extracted = place.unpack(&tar).unwrap();
    let gone = fs::symlink_metadata(place.root().join("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for kept in ["kept/deep", "named", "linked"] {
        assert!(place.root().join(kept).is_dir(), "{kept}");
    }
    let implied: Vec<_> = extracted.fixups.implied.iter().map(|path| String::from_utf8_lossy(path)).collect();
    assert_eq!(implied, ["", "kept", "kept/deep", "linked"]);
}

#[test]
fn no_whiteouts_stay_where_nothing_shows_through() {
    let place = Place::new();
    let tar = Tar::new()
        .file("d/.wh.before", b"")
        .file("d/deep/.wh.before", b"")
        .file("d/.wh..wh..opq", b"")
        .file("d/.wh.after", b"")
        .file("other/.wh.x", b"")
        .file("d-not/.wh.x", b"")
        .file("gone/.wh.x", b"")
        .file("gone", b"now a file")
        .end();
    place.unpack(&tar).unwrap();
    let names = |path: &str| {
        let entries = fs::read_dir(place.root().join(path)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((names("d"), names("d/deep")), (vec!["deep".to_owned()], vec![]));
    assert_eq!((names("other"), names("d-not")), (vec!["x".to_owned()], vec!["x".to_owned()]));
}

#[test]
fn devices_and_capabilities_arrive() {
    let mut null = Tar::header(EntryType::Char, b"null", 0);
    null.set_device_major(1).unwrap();
    null.set_device_minor(3).unwrap();
    // A version 2 capability set with cap_net_raw, which no UTF-8 rule breaks.
    let capability = "\u{1}\0\0\u{2}\0\u{20}\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let tar = Tar::new()
        .add(null, b"")
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.trusted.overlay.opaque", "y"),
        ])
        .file("ping", b"x")
        .end();
    let place = Place::new();
    place.unpack(&tar).unwrap();
    let null = fs::symlink_metadata(place.root().join("null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
    let ping = place.root().join("ping");
    let mut value = [0_u8; 32];
    let length = rustix::fs::getxattr(&ping, "security.capability", &mut value).unwrap();
    assert_eq!(&value[..length], capability.as_bytes());
    assert!(rustix::fs::getxattr(&ping, "trusted.overlay.opaque", &mut value).is_err());
}
