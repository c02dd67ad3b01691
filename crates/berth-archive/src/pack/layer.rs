//! The writable layer of an overlay as the tar of an image's layer: its marks of removed names and of opaque directories
//! become those of the OCI image specification (layer.md).

use std::collections::{BTreeMap, HashSet};
use std::ffi::{CStr, CString};
use std::io::Write;
use std::os::fd::AsFd as _;

use rustix::fs::{FileType, Stat};
use tar::EntryType;

use super::{Attributes, Entries, Head, Packer};
use crate::changes::same;
use crate::marks::Marks;
use crate::overlay::{Found, Opened, Overlay, Place, join};
use crate::{Error, Result};

/// What the name of a removed file begins with.
const WHITEOUT: &[u8] = b".wh.";
/// The file that marks an opaque directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Writes `upper` (one layer, or a whole tree made from those below) as a layer on top of `lower` (all below it). Paths in
/// `hidden`, without a leading slash, and what they hold, are left out. Blocks. What vanishes meanwhile is left out.
///
/// A directory that is as it was below is written only for what lies in it. That something hidden was put into it is no
/// change of it.
///
/// # Errors
/// File errors; a failed write; a name that would mean a removal in a layer.
pub fn pack(upper: &Overlay, lower: &Overlay, hidden: &HashSet<Vec<u8>>, out: impl Write) -> Result<()> {
    pack_until(upper, lower, hidden, None, out)
}

/// As [`pack`]; no time of modification after `latest`, in seconds, is told.
///
/// # Errors
/// As [`pack`].
pub fn pack_until(
    upper: &Overlay,
    lower: &Overlay,
    hidden: &HashSet<Vec<u8>>,
    latest: Option<i64>,
    out: impl Write,
) -> Result<()> {
    let spoilt = hidden.iter().map(|path| parent(path).to_vec()).collect();
    let mut walk = Walk {
        packer: Packer::new(out, true).until(latest),
        lower,
        marks: upper.marks(),
        hidden,
        spoilt,
        held: BTreeMap::new(),
    };
    let root = upper.root();
    walk.root(&upper.enter(&root)?)?;
    let mut levels = vec![Level { place: root, below: Some(lower.root()), left: None }];
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
    /// Directories whose time of modification says nothing.
    spoilt: HashSet<Vec<u8>>,
    /// Directories that are as they were, and not yet written.
    held: BTreeMap<Vec<u8>, (Stat, Attributes)>,
}

/// A directory of the writable layer on the way down.
struct Level {
    place: Place,
    /// The directory below it.
    below: Option<Place>,
    /// What is not yet looked at; none before it was listed.
    left: Option<Entries>,
}

impl<W: Write> Walk<'_, W> {
    /// The root is written if its mode, owner or attributes are others.
    fn root(&mut self, here: &Opened) -> Result<()> {
        let below = self.lower.enter(&self.lower.root())?;
        let (Some((new, kept)), Some((before, old))) = (here.itself()?, below.itself()?) else {
            return Ok(());
        };
        if !alike(&new, &before) || kept != old {
            let head = Head { kind: EntryType::Directory, link: Vec::new(), size: 0 };
            self.packer.head(&new, b".", &head, &kept)?;
        }
        Ok(())
    }

    /// Writes what is left of a directory up to the first one in it, which is returned, or to the end.
    fn advance(&mut self, upper: &Overlay, level: &mut Level) -> Result<Option<Level>> {
        let Level { place, below, left } = level;
        let here = upper.enter(place)?;
        let old = below.as_ref().map(|below| self.lower.enter(below)).transpose()?;
        let left = match left {
            Some(left) => left,
            none => {
                let mut entries = here.raw_entries()?;
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                if let (Marks::Whole { .. }, Some(old)) = (self.marks, &old) {
                    self.removed(&here, old, &entries, &place.path)?;
                }
                none.insert(entries.into_iter())
            }
        };
        for (name, found) in left {
            let path = join(&place.path, name.to_bytes());
            if self.hidden.contains(&path) {
                continue;
            }
            if name.to_bytes().starts_with(WHITEOUT) {
                return Err(Error::refused(&path, "in a layer its name would mean a removal"));
            }
            if self.marks.is_whiteout(&found.stat) {
                self.mark(&found.stat, &place.path, &[WHITEOUT, name.to_bytes()].concat(), 0)?;
            } else if found.kind() == FileType::Directory {
                let before = old.as_ref().map(|old| old.find(&name)).transpose()?.flatten();
                let before = before.filter(|before| before.kind() == FileType::Directory);
                let beneath = match (&old, &below, &before) {
                    (Some(old), Some(below), Some(before)) => old.below(below, &name, before)?,
                    _ => None,
                };
                let before = old.as_ref().zip(before);
                let inside = self.subdirectory(&here, place, (&name, &found, path), before, beneath)?;
                if inside.is_some() {
                    return Ok(inside);
                }
            } else if !self.is_as_made(&here, old.as_ref(), (&name, &found))? {
                self.above(&path)?;
                self.packer.entry(&here, &name, &found, &path)?;
            }
        }
        Ok(None)
    }

    /// Writes a directory, or holds it back if it is as it was.
    fn subdirectory(
        &mut self,
        here: &Opened,
        place: &Place,
        (name, found, path): (&CStr, &Found, Vec<u8>),
        before: Option<(&Opened, Found)>,
        beneath: Option<Place>,
    ) -> Result<Option<Level>> {
        let Some(inner) = here.below(place, name, found)? else { return Ok(None) };
        let directory = match crate::tree::open_directory(here.directory(found), name) {
            Ok(directory) => directory,
            // Something else took its name meanwhile.
            Err(_) => return Ok(None),
        };
        let whole = matches!(self.marks, Marks::Whole { .. });
        let opaque = !whole && self.marks.is_opaque(directory.as_fd())?;
        let kept = here.attributes(found, name)?;
        let unchanged = match before {
            Some((old, before)) if !opaque => {
                alike(&found.stat, &before.stat)
                    && (found.stat.st_mtime == before.stat.st_mtime || self.spoilt.contains(&path))
                    && kept == old.attributes(&before, name)?
            }
            _ => false,
        };
        if unchanged {
            self.held.insert(path, (found.stat, kept));
        } else {
            self.above(&path)?;
            self.write_directory(&path, &found.stat, &kept)?;
            if opaque {
                self.mark(&found.stat, &path, OPAQUE, 0o600)?;
            }
        }
        Ok(Some(Level { place: inner, below: if opaque { None } else { beneath }, left: None }))
    }

    /// Marks what a whole tree does not have any more.
    fn removed(
        &mut self,
        here: &Opened,
        old: &Opened,
        entries: &[(CString, Found)],
        directory: &[u8],
    ) -> Result<()> {
        let Some((stat, _)) = here.itself()? else { return Ok(()) };
        for (name, _) in old.entries()? {
            let there = entries.binary_search_by(|(entry, _)| entry.cmp(&name)).is_ok();
            if !there && !self.hidden.contains(&join(directory, name.to_bytes())) {
                self.mark(&stat, directory, &[WHITEOUT, name.to_bytes()].concat(), 0)?;
            }
        }
        Ok(())
    }

    /// Whether a file of a whole tree is still the one that was put there.
    fn is_as_made(
        &self,
        here: &Opened,
        old: Option<&Opened>,
        (name, found): (&CStr, &Found),
    ) -> Result<bool> {
        let (Marks::Whole { made }, Some(old)) = (self.marks, old) else { return Ok(false) };
        let Some(before) = old.find(name)? else { return Ok(false) };
        let (seconds, nanoseconds) = made.unwrap_or((i64::MAX, 0));
        let changed = (found.stat.st_ctime, i64::try_from(found.stat.st_ctime_nsec).unwrap_or(0));
        if changed >= (seconds, nanoseconds) || !same((here, found), (old, &before), name)? {
            return Ok(false);
        }
        // Whoever exchanges two directories does not touch what is in them.
        let link = |opened: &Opened, found: &Found| match found.kind() {
            FileType::Symlink => opened.link(found, name),
            _ => Ok(Vec::new()),
        };
        Ok(link(here, found)? == link(old, &before)?
            && here.attributes(found, name)? == old.attributes(&before, name)?)
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

    /// Writes an empty file that stands for something else.
    fn mark(&mut self, stat: &Stat, directory: &[u8], name: &[u8], mode: u32) -> Result<()> {
        let path = join(directory, name);
        self.above(&path)?;
        let mut stat = *stat;
        stat.st_mode = mode;
        (stat.st_uid, stat.st_gid) = (0, 0);
        let head = Head { kind: EntryType::Regular, link: Vec::new(), size: 0 };
        self.packer.head(&stat, &path, &head, &[])
    }
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
        let mut tar = Vec::new();
        pack(&upper, &lower, &hidden, &mut tar).unwrap();
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
        for expected in [".wh.gone", "emptied/", "emptied/.wh..wh..opq", "emptied/new", "etc/", "touched/"] {
            assert!(names.iter().any(|name| name == expected), "{expected} in {names:?}");
        }
        for unchanged in ["./", "kept/", "kept/deep/", "etc/hosts", "volume/", "volume/secret", "gone"] {
            assert!(!names.iter().any(|name| name == unchanged), "{unchanged} in {names:?}");
        }
        assert!(!names.iter().any(|name| name.starts_with(".wh.volume")));
        let emptied = names.iter().position(|name| name == "emptied/").unwrap();
        assert_eq!(names[emptied + 1..emptied + 3], ["emptied/.wh..wh..opq", "emptied/new"]);
    }

    #[test]
    fn a_name_that_means_a_removal_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        for layer in ["upper", "lower"] {
            fs::create_dir(temp.path().join(layer)).unwrap();
        }
        fs::write(temp.path().join("upper/.wh.x"), "").unwrap();
        let open = |name: &str| Overlay::open([temp.path().join(name)]).unwrap();
        let error = pack(&open("upper"), &open("lower"), &HashSet::new(), Vec::new()).unwrap_err();
        assert!(error.to_string().contains(".wh.x"), "{error}");
    }
}
