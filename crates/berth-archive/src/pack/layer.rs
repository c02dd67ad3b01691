//! The writable layer of a container as the tar of an image's layer: what it marks as removed, or does not have any more, gets
//! the marks of removed names of the OCI image specification (layer.md).
//!
//! However the layer is kept, the same work makes the same tar: a directory that was removed and made anew is one that lacks
//! names, as it is where nothing is marked.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{CStr, CString};
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;

use rustix::fs::{FileType, Stat};
use tar::EntryType;

use super::{Attributes, Head, Packer};
use crate::changes::same;
use crate::marks::Marks;
use crate::overlay::{Found, Opened, Overlay, Place, join};
use crate::{Error, Result};

/// What the name of a removed file begins with.
const WHITEOUT: &[u8] = b".wh.";
/// Bytes that are compared at a time.
const BUFFER: usize = 64 << 10;

/// What is left out of a layer, or told otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Paths, without a leading slash, that are left out with what they hold.
    pub hidden: Option<&'a HashSet<Vec<u8>>>,
    /// The latest time of modification that is told, in seconds.
    pub latest: Option<i64>,
    /// Whether files that were touched, and are as they were, are left out.
    pub changed: bool,
}

/// Writes `upper` (one layer, or a whole tree made from those below) as a layer on top of `lower` (all below it). Blocks. What
/// vanishes meanwhile is left out.
///
/// A directory that is as it was below is written only for what lies in it. That something hidden was put into it is no
/// change of it.
///
/// # Errors
/// File errors; a failed write; a name that would mean a removal in a layer.
pub fn pack(upper: &Overlay, lower: &Overlay, options: &Options<'_>, out: impl Write) -> Result<()> {
    let none = HashSet::new();
    let hidden = options.hidden.unwrap_or(&none);
    let spoilt = hidden.iter().map(|path| parent(path).to_vec()).collect();
    let mut walk = Walk {
        packer: Packer::new(out, true).until(options.latest),
        lower,
        marks: upper.marks(),
        hidden,
        changed: options.changed,
        spoilt,
        held: BTreeMap::new(),
    };
    let place = upper.root();
    let stat = walk.root(&upper.enter(&place)?)?;
    let covered = matches!(walk.marks, Marks::Whole { .. });
    let mut levels = vec![Level { place, stat, below: Some(lower.root()), covered, left: None }];
    while let Some(level) = levels.last_mut() {
        match walk.advance(upper, level)? {
            Some(inside) => levels.push(inside),
            None => {
                walk.held.remove(&level.place.path);
                levels.pop();
            }
        }
    }
    walk.packer.finish()
}

struct Walk<'a, W> {
    packer: Packer<W>,
    lower: &'a Overlay,
    marks: Marks,
    hidden: &'a HashSet<Vec<u8>>,
    /// Whether what was only touched is left out.
    changed: bool,
    /// Directories whose time of modification says nothing.
    spoilt: HashSet<Vec<u8>>,
    /// Directories that are as they were, and not yet written.
    held: BTreeMap<Vec<u8>, (Stat, Attributes)>,
}

/// A directory of the writable layer on the way down.
struct Level {
    place: Place,
    /// What the directory itself is, if there is one.
    stat: Option<Stat>,
    /// The directory below it.
    below: Option<Place>,
    /// Whether nothing of that is seen: what it does not have is gone.
    covered: bool,
    /// What is not yet looked at; none before it was listed.
    left: Option<std::vec::IntoIter<Name>>,
}

/// A name, and what has it now; nothing if it is gone.
type Name = (CString, Option<Found>);

impl<W: Write> Walk<'_, W> {
    /// The root is written if its mode, owner or attributes are others. Tells what it is.
    fn root(&mut self, here: &Opened) -> Result<Option<Stat>> {
        let below = self.lower.enter(&self.lower.root())?;
        let Some((new, kept)) = here.itself()? else { return Ok(None) };
        if let Some((before, old)) = below.itself()?
            && (!alike(&new, &before) || kept != old)
        {
            let head = Head { kind: EntryType::Directory, link: Vec::new(), size: 0 };
            self.packer.head(&new, b".", &head, &kept)?;
        }
        Ok(Some(new))
    }

    /// Writes what is left of a directory up to the first one in it, which is returned, or to the end.
    fn advance(&mut self, upper: &Overlay, level: &mut Level) -> Result<Option<Level>> {
        let here = upper.enter(&level.place)?;
        let old = level.below.as_ref().map(|below| self.lower.enter(below)).transpose()?;
        let names = match level.left.take() {
            Some(left) => left,
            None => self.names(&here, old.as_ref().filter(|_| level.covered))?.into_iter(),
        };
        for (name, found) in level.left.insert(names) {
            let path = join(&level.place.path, name.to_bytes());
            if self.hidden.contains(&path) {
                continue;
            }
            if name.to_bytes().starts_with(WHITEOUT) {
                return Err(Error::refused(&path, "in a layer its name would mean a removal"));
            }
            let Some(found) = found else {
                self.removed(level.stat.as_ref(), &level.place.path, &name)?;
                continue;
            };
            if found.kind() == FileType::Directory {
                let before = old.as_ref().map(|old| old.find(&name)).transpose()?.flatten();
                let before = before.filter(|before| before.kind() == FileType::Directory);
                let beneath = match (&old, &level.below, &before) {
                    (Some(old), Some(below), Some(before)) => old.below(below, &name, before)?,
                    _ => None,
                };
                let around = (&level.place, level.covered);
                let before = old.as_ref().zip(before);
                let inside = self.subdirectory(&here, around, (&name, &found, path), before, beneath)?;
                if inside.is_some() {
                    return Ok(inside);
                }
            } else if !self.is_as_it_was(&here, old.as_ref(), (&name, &found))? {
                self.above(&path)?;
                self.packer.entry(&here, &name, &found, &path)?;
            }
        }
        Ok(None)
    }

    /// What a directory has, and what is gone from it, in the order of their names; nothing of `covered` is seen through it.
    fn names(&self, here: &Opened, covered: Option<&Opened>) -> Result<Vec<Name>> {
        let mut names = BTreeMap::new();
        if let Some(covered) = covered {
            names.extend(covered.entries()?.into_iter().map(|(name, _)| (name, None)));
        }
        for (name, found) in here.raw_entries()? {
            let there = !self.marks.is_whiteout(&found.stat);
            names.insert(name, there.then_some(found));
        }
        Ok(names.into_iter().collect())
    }

    /// Writes a directory, or holds it back if it is as it was.
    fn subdirectory(
        &mut self,
        here: &Opened,
        (place, covered): (&Place, bool),
        (name, found, path): (&CStr, &Found, Vec<u8>),
        before: Option<(&Opened, Found)>,
        below: Option<Place>,
    ) -> Result<Option<Level>> {
        let Some(inner) = here.below(place, name, found)? else { return Ok(None) };
        let directory = match crate::tree::open_directory(here.directory(found), name) {
            Ok(directory) => directory,
            // Something else took its name meanwhile.
            Err(_) => return Ok(None),
        };
        let covered = covered || self.marks.is_opaque(directory.as_fd())?;
        let kept = here.attributes(found, name)?;
        let unchanged = match before {
            Some((old, before)) => {
                alike(&found.stat, &before.stat)
                    && (found.stat.st_mtime == before.stat.st_mtime || self.spoilt.contains(&path))
                    && kept == old.attributes(&before, name)?
            }
            None => false,
        };
        if unchanged {
            self.held.insert(path, (found.stat, kept));
        } else {
            self.above(&path)?;
            self.write_directory(&path, &found.stat, &kept)?;
        }
        Ok(Some(Level { place: inner, stat: Some(found.stat), below, covered, left: None }))
    }

    /// Whether a file is still the one that was there, or just like it.
    fn is_as_it_was(
        &self,
        here: &Opened,
        old: Option<&Opened>,
        (name, found): (&CStr, &Found),
    ) -> Result<bool> {
        let touched = match self.marks {
            Marks::Whole { made } => {
                let (seconds, nanoseconds) = made.unwrap_or((i64::MAX, 0));
                let changed = (found.stat.st_ctime, i64::try_from(found.stat.st_ctime_nsec).unwrap_or(0));
                changed >= (seconds, nanoseconds)
            }
            Marks::Overlay | Marks::Plain => true,
        };
        // Another name of it may be new.
        if touched && (!self.changed || found.stat.st_nlink > 1) {
            return Ok(false);
        }
        let Some(old) = old else { return Ok(false) };
        let Some(before) = old.find(name)? else { return Ok(false) };
        if !same((here, found), (old, &before), name)? {
            return Ok(false);
        }
        // Of a tree that nobody knows the age of, only the very same file is surely as it was.
        let is_sure = match self.marks {
            Marks::Whole { made: None } => found.stat.st_ino == before.stat.st_ino,
            _ => !touched,
        };
        // Whoever exchanges two directories does not touch what is in them.
        let link = |opened: &Opened, found: &Found| match found.kind() {
            FileType::Symlink => opened.link(found, name),
            _ => Ok(Vec::new()),
        };
        Ok(link(here, found)? == link(old, &before)?
            && here.attributes(found, name)? == old.attributes(&before, name)?
            && (is_sure || same_content((here, found), (old, &before), name)?))
    }

    /// Writes the directories above `path` that were held back, the topmost first.
    fn above(&mut self, path: &[u8]) -> Result<()> {
        for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            if let Some((stat, kept)) = self.held.remove(&path[..end]) {
                self.write_directory(&path[..end], &stat, &kept)?;
            }
        }
        Ok(())
    }

    fn write_directory(&mut self, path: &[u8], stat: &Stat, kept: &Attributes) -> Result<()> {
        let head = Head { kind: EntryType::Directory, link: Vec::new(), size: 0 };
        self.packer.head(stat, path, &head, kept)
    }

    /// Marks a name that is gone from a directory, at the time at which that was changed.
    fn removed(&mut self, stat: Option<&Stat>, directory: &[u8], name: &CStr) -> Result<()> {
        let Some(mut stat) = stat.copied() else { return Ok(()) };
        let path = join(directory, &[WHITEOUT, name.to_bytes()].concat());
        self.above(&path)?;
        stat.st_mode = 0;
        (stat.st_uid, stat.st_gid) = (0, 0);
        let head = Head { kind: EntryType::Regular, link: Vec::new(), size: 0 };
        self.packer.head(&stat, &path, &head, &[])
    }
}

/// Whether two files of the same size, if they are regular, have the same content.
fn same_content(new: (&Opened, &Found), old: (&Opened, &Found), name: &CStr) -> Result<bool> {
    let open = |(opened, found): (&Opened, &Found)| {
        crate::tree::open_regular(opened.directory(found), name).map_err(failed(name))
    };
    if new.1.kind() != FileType::RegularFile {
        return Ok(true);
    }
    let (Some((mut new, _)), Some((mut old, _))) = (open(new)?, open(old)?) else { return Ok(false) };
    let (mut one, mut other) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        let lengths = (fill(&mut new, &mut one), fill(&mut old, &mut other));
        let (length, beside) = (lengths.0.map_err(failed(name))?, lengths.1.map_err(failed(name))?);
        if one[..length] != other[..beside] {
            return Ok(false);
        }
        if length < BUFFER {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn failed(name: &CStr) -> impl Fn(io::Error) -> Error + use<'_> {
    |error| Error::file("comparing", name.to_bytes(), error)
}

fn alike(a: &Stat, b: &Stat) -> bool {
    (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid)
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |slash| &path[..slash])
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
    use std::path::Path;

    use rustix::fs::{CWD, Mode, XattrFlags};

    use super::*;
    use crate::extract::{Extractor, Options, fixup};

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn node(path: &Path, kind: FileType, device: u64) {
        rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
    }

    fn attribute(path: &Path, name: &str, value: &[u8]) {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    }

    /// The lower layer and the upper one of an awkward container.
    fn awkward(root: &Path) {
        for layer in ["upper", "lower", "made"] {
            fs::create_dir(root.join(layer)).unwrap();
        }
        for layer in ["upper", "lower"] {
            for directory in ["etc", "kept/deep", "touched", "emptied"] {
                fs::create_dir_all(root.join(layer).join(directory)).unwrap();
            }
        }
        let (lower, upper) = (root.join("lower"), root.join("upper"));
        write(&lower.join("etc/passwd"), "root");
        write(&lower.join("gone/with/all"), "x");
        write(&lower.join("emptied/old"), "x");
        write(&lower.join("becomes-file/x"), "x");
        node(&upper.join("gone"), FileType::CharacterDevice, 0);
        attribute(&upper.join("emptied"), "trusted.overlay.opaque", b"y");
        attribute(&upper.join("emptied"), "trusted.overlay.origin", b"no");
        write(&upper.join("emptied/new"), "n");
        write(&upper.join("becomes-file"), "file");
        write(&upper.join("etc/passwd"), "root and more");
        write(&upper.join("etc/hosts"), "hidden");
        fs::hard_link(upper.join("etc/passwd"), upper.join("etc/shadow")).unwrap();
        write(&upper.join("volume/secret"), "hidden");
        symlink("../x".repeat(60), upper.join("link")).unwrap();
        attribute(&upper.join("link"), "trusted.odd", b"link");
        node(&upper.join("null"), FileType::CharacterDevice, rustix::fs::makedev(1, 3));
        node(&upper.join("fifo"), FileType::Fifo, 0);
        let long = upper.join("n".repeat(200)).join("m".repeat(200));
        write(&long, "long");
        chown(&long, Some(3_000_000), Some(5)).unwrap();
        fs::set_permissions(&long, fs::Permissions::from_mode(0o4755)).unwrap();
        attribute(&long, "user.text", b"a\nb\0c=");
        use std::os::unix::ffi::OsStrExt as _;
        fs::write(upper.join(std::ffi::OsStr::from_bytes(b"not\xffutf8")), "y").unwrap();
        for (name, at, size) in
            [("holes", 3 << 20, 8 << 20), ("last", (2 << 20) - 3, 2 << 20), ("none", 0, 0)]
        {
            let file = File::create(upper.join(name)).unwrap();
            if size > 0 {
                file.write_all_at(b"end", at).unwrap();
                file.set_len(size).unwrap();
            } else {
                file.set_len(5 << 20).unwrap();
            }
        }
        // All but one directory as they were below.
        for path in ["etc", "kept/deep", "kept", "emptied", "touched", ""] {
            for layer in [&upper, &lower] {
                let seconds = if path == "touched" && *layer == upper { 9 } else { 7 };
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
                File::open(layer.join(path)).unwrap().set_modified(time).unwrap();
            }
        }
    }

    fn packed(root: &Path) -> Vec<u8> {
        let upper = Overlay::open([root.join("upper")]).unwrap();
        let lower = Overlay::open([root.join("lower")]).unwrap();
        let hidden = ["etc/hosts", "volume"].map(|path| path.as_bytes().to_vec()).into();
        let options = super::Options { hidden: Some(&hidden), ..super::Options::default() };
        let mut tar = Vec::new();
        pack(&upper, &lower, &options, &mut tar).unwrap();
        tar
    }

    #[test]
    fn an_awkward_layer_comes_back_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        awkward(root);
        let tar = packed(root);
        assert!(tar.len() < 1 << 20, "holes are not stored: {}", tar.len());
        let made = root.join("made");
        let directory = || rustix::fs::open(&made, rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
        let extracted = Extractor::new(directory(), Options::default()).layer(tar.as_slice()).unwrap();
        fixup(directory().as_fd(), &extracted.fixups, &[root.join("lower")]).unwrap();
        let merged = |top: &str| {
            if top == "upper" {
                fs::remove_file(root.join("upper/etc/hosts")).unwrap();
                fs::remove_dir_all(root.join("upper/volume")).unwrap();
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(7);
                File::open(root.join("upper/etc")).unwrap().set_modified(time).unwrap();
            }
            let view = Overlay::open([root.join(top), root.join("lower")]).unwrap();
            let mut tar = Vec::new();
            super::super::pack(&view, &mut tar).unwrap();
            tar
        };
        assert!(merged("made") == merged("upper"), "the merged views are the same");
        let long = made.join("n".repeat(200)).join("m".repeat(200));
        assert_eq!(fs::metadata(&long).unwrap().uid(), 3_000_000);
        let mut value = [0; 64];
        let length = rustix::fs::lgetxattr(&long, "user.text", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"a\nb\0c=");
        assert_eq!(rustix::fs::lgetxattr(made.join("link"), "trusted.odd", &mut value[..]), Ok(4));
        assert!(
            rustix::fs::lgetxattr(made.join("emptied"), "trusted.overlay.origin", &mut value[..]).is_err()
        );
        for (name, most) in [("holes", 64), ("last", 64), ("none", 0)] {
            let (new, old) = (made.join(name), root.join("upper").join(name));
            assert!(fs::metadata(&new).unwrap().blocks() <= most, "{name} is sparse");
            assert!(fs::read(new).unwrap() == fs::read(old).unwrap(), "{name}");
        }
    }

    #[test]
    fn only_what_changed_is_written() {
        let temp = tempfile::tempdir().unwrap();
        awkward(temp.path());
        let tar = packed(temp.path());
        let mut names = Vec::new();
        let mut archive = tar::Archive::new(tar.as_slice());
        for entry in archive.entries().unwrap() {
            names.push(String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned());
        }
        for expected in [".wh.gone", "emptied/", "emptied/.wh.old", "emptied/new", "etc/", "touched/"] {
            assert!(names.iter().any(|name| name == expected), "{expected} in {names:?}");
        }
        for unchanged in ["./", "kept/", "kept/deep/", "etc/hosts", "volume/", "volume/secret", "gone"] {
            assert!(!names.iter().any(|name| name == unchanged), "{unchanged} in {names:?}");
        }
        assert!(!names.iter().any(|name| name.starts_with(".wh.volume")));
        let emptied = names.iter().position(|name| name == "emptied/").unwrap();
        assert_eq!(names[emptied + 1..emptied + 3], ["emptied/new", "emptied/.wh.old"]);
    }

    #[test]
    fn what_was_only_touched_is_left_out() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        for (layer, three) in [("upper", "three"), ("lower", "THREE")] {
            for (name, text) in [("same", "one"), ("linked", "two"), ("other", three), ("d/moded", "four")] {
                write(&root.join(layer).join(name), text);
            }
            symlink("x", root.join(layer).join("symbolic")).unwrap();
            for name in ["same", "linked", "other", "d/moded", "d", ""] {
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(7);
                File::open(root.join(layer).join(name)).unwrap().set_modified(time).unwrap();
            }
            let times = rustix::fs::Timestamps {
                last_access: rustix::fs::Timespec { tv_sec: 7, tv_nsec: 0 },
                last_modification: rustix::fs::Timespec { tv_sec: 7, tv_nsec: 0 },
            };
            let link = root.join(layer).join("symbolic");
            rustix::fs::utimensat(CWD, &link, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
        fs::hard_link(root.join("upper/linked"), root.join("upper/twin")).unwrap();
        fs::set_permissions(root.join("upper/d/moded"), fs::Permissions::from_mode(0o600)).unwrap();
        let made = |marks, options| {
            let upper = Overlay::open_marked([(root.join("upper"), marks)]).unwrap();
            let lower = Overlay::open([root.join("lower")]).unwrap();
            let mut tar = Vec::new();
            pack(&upper, &lower, &options, &mut tar).unwrap();
            let mut archive = tar::Archive::new(tar.as_slice());
            let names = archive
                .entries()
                .unwrap()
                .map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned());
            names.collect::<Vec<_>>()
        };
        let changed = super::Options { changed: true, ..super::Options::default() };
        let expected = ["d/", "d/moded", "linked", "other", "twin"];
        for marks in [Marks::Overlay, Marks::Whole { made: Some((0, 0)) }] {
            assert_eq!(made(marks, changed), expected, "{marks:?}");
            let all = made(marks, super::Options::default());
            assert!(all.iter().any(|name| name == "same") && all.len() == expected.len() + 2, "{all:?}");
        }
    }

    #[test]
    fn a_directory_that_was_made_anew_lacks_names_and_is_not_opaque() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        for path in [
            "lower/d/gone",
            "lower/d/kept",
            "lower/d/sub/gone",
            "upper/d/kept",
            "upper/d/sub/new",
            "whole/d/kept",
        ] {
            write(&root.join(path), path);
        }
        write(&root.join("whole/d/sub/new"), "upper/d/sub/new");
        fs::write(root.join("whole/d/kept"), "upper/d/kept").unwrap();
        attribute(&root.join("upper/d"), "trusted.overlay.opaque", b"y");
        let made = |name: &str, marks| {
            let upper = Overlay::open_marked([(root.join(name), marks)]).unwrap();
            let lower = Overlay::open([root.join("lower")]).unwrap();
            let mut tar = Vec::new();
            pack(&upper, &lower, &super::Options { latest: Some(0), ..super::Options::default() }, &mut tar)
                .unwrap();
            tar
        };
        let tar = made("upper", Marks::Overlay);
        let mut archive = tar::Archive::new(tar.as_slice());
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned())
            .collect();
        assert_eq!(names, ["d/", "d/.wh.gone", "d/kept", "d/sub/", "d/sub/.wh.gone", "d/sub/new"]);
        assert!(tar == made("whole", Marks::Whole { made: Some((0, 0)) }));
    }

    #[test]
    fn a_tree_of_no_known_age_is_compared_by_content() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        for (name, text) in
            [("lower/other", "one"), ("lower/same", "same"), ("upper/other", "two"), ("upper/same", "same")]
        {
            write(&path(name), text);
        }
        fs::hard_link(path("lower/same"), path("lower/itself")).unwrap();
        fs::hard_link(path("lower/same"), path("upper/itself")).unwrap();
        for name in ["lower/other", "lower/same", "upper/other", "upper/same"] {
            let file = File::options().write(true).open(path(name)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        let upper = Overlay::open_marked([(path("upper"), Marks::Whole { made: None })]).unwrap();
        let lower = Overlay::open([path("lower")]).unwrap();
        let mut tar = Vec::new();
        pack(&upper, &lower, &super::Options::default(), &mut tar).unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned());
        assert_eq!(names.collect::<Vec<_>>(), [Path::new("other")]);
    }

    #[test]
    fn a_name_that_means_a_removal_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        for layer in ["upper", "lower"] {
            fs::create_dir(temp.path().join(layer)).unwrap();
        }
        fs::write(temp.path().join("upper/.wh.x"), "").unwrap();
        let open = |name: &str| Overlay::open([temp.path().join(name)]).unwrap();
        let error = pack(&open("upper"), &open("lower"), &super::Options::default(), Vec::new()).unwrap_err();
        assert!(error.to_string().contains(".wh.x"), "{error}");
    }
}
