//! What a container has changed of its image: the writable layer of an overlay, compared with what is below it.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Stat};

use crate::Result;
use crate::marks::Marks;
use crate::overlay::{Found, Opened, Overlay, Place, join};

/// How a path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is another, or something beneath it is.
    Modified,
    /// It was not there.
    Added,
    /// It is gone.
    Deleted,
}

/// Paths without a leading slash, sorted by their parts, so that directories come before what they hold.
pub type Changes = Vec<(Vec<u8>, Kind)>;

/// Compares `upper` (one layer, or a whole tree made from those below) with `lower` (all below it). Paths in `hidden`, without a leading slash, and what they
/// hold, are not looked at. Blocks.
///
/// As Docker does it, a directory counts as modified if its mode or owner differ or something beneath it does, and a
/// file also by size and time of modification. What vanishes meanwhile counts as unchanged.
///
/// # Errors
/// File errors.
pub fn changes(upper: &Overlay, lower: &Overlay, hidden: &HashSet<Vec<u8>>) -> Result<Changes> {
    let mut walk = Walk { upper, lower, hidden, found: BTreeMap::new(), pending: Vec::new() };
    walk.pending.push(Visit {
        place: upper.root(),
        below: Some(lower.root()),
        covered: matches!(upper.marks(), Marks::Whole { .. }),
    });
    while let Some(visit) = walk.pending.pop() {
        walk.directory(&visit)?;
    }
    Ok(walk.finish())
}

/// Bytes of the files in `upper` that are not as they are in `lower`, as Docker counts what a container wrote: every
/// inode once, directories as nothing. Blocks.
///
/// # Errors
/// File errors.
pub fn written(upper: &Overlay, lower: &Overlay) -> Result<u64> {
    let mut seen = HashSet::new();
    let mut total = 0;
    let mut directory: Option<(Vec<u8>, Option<OwnedFd>)> = None;
    for (path, _) in changes(upper, lower, &HashSet::new())?.iter().filter(|(_, kind)| *kind != Kind::Deleted)
    {
        let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], &path[..]),
        };
        if directory.as_ref().is_none_or(|(open, _)| open != folder) {
            directory = Some((folder.to_vec(), upper.open_top(folder)));
        }
        let Some((_, Some(open))) = &directory else { continue };
        // What vanishes meanwhile is not counted.
        let Ok(stat) = rustix::fs::statat(open, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let is_file = FileType::from_raw_mode(stat.st_mode) != FileType::Directory;
        if is_file && (stat.st_nlink == 1 || seen.insert((stat.st_dev, stat.st_ino))) {
            total += u64::try_from(stat.st_size).unwrap_or(0);
        }
    }
    Ok(total)
}

struct Walk<'a> {
    upper: &'a Overlay,
    lower: &'a Overlay,
    hidden: &'a HashSet<Vec<u8>>,
    /// By path with slashes as NUL, which sorts by parts.
    found: BTreeMap<Vec<u8>, Kind>,
    pending: Vec<Visit>,
}

/// A directory of the writable layer.
struct Visit {
    place: Place,
    /// What is below it, if that is a directory.
    below: Option<Place>,
    /// Whether one above it is opaque, so that nothing of `below` is seen.
    covered: bool,
}

impl Walk<'_> {
    fn directory(&mut self, visit: &Visit) -> Result<()> {
        let (place, below) = (&visit.place, visit.below.as_ref());
        let here = self.upper.enter(place)?;
        let marks = self.upper.marks();
        let opaque = here.top().map(|top| marks.is_opaque(top)).transpose()?;
        let covered = visit.covered || opaque == Some(true);
        let old = below.map(|below| self.lower.enter(below)).transpose()?;
        let mut names = HashSet::new();
        for (name, found) in here.raw_entries()? {
            let path = join(&place.path, name.to_bytes());
            if self.hidden.contains(&path) {
                names.insert(name);
                continue;
            }
            let before = old.as_ref().map(|old| old.find(&name)).transpose()?.flatten();
            if marks.is_whiteout(&found.stat) {
                if before.is_some() {
                    self.note(&path, Kind::Deleted);
                }
                names.insert(name);
                continue;
            }
            match (&old, before) {
                (Some(old), Some(before)) if !same((&here, &found), (old, &before), &name)? => {
                    self.note(&path, Kind::Modified);
                }
                (Some(_), Some(_)) => {}
                _ => self.note(&path, Kind::Added),
            }
            if let Some(inside) = here.below(place, &name, &found)? {
                let beneath = match (&old, below, before) {
                    (Some(old), Some(below), Some(before)) => old.below(below, &name, &before)?,
                    _ => None,
                };
                self.pending.push(Visit { place: inside, below: beneath, covered });
            }
            names.insert(name);
        }
        if let Some(old) = old
            && covered
        {
            self.hidden_below(place, &old, &names)?;
        }
        Ok(())
    }

    /// What an opaque directory hides is gone.
    fn hidden_below(&mut self, place: &Place, old: &Opened, names: &HashSet<CString>) -> Result<()> {
        for (name, _) in old.entries()? {
            if !names.contains(&name) {
                self.note(&join(&place.path, name.to_bytes()), Kind::Deleted);
            }
        }
        Ok(())
    }

    fn note(&mut self, path: &[u8], kind: Kind) {
        self.found.insert(swapped(path, b'/', 0), kind);
    }

    /// Adds the directories above every change.
    fn finish(mut self) -> Changes {
        let mut above = HashSet::new();
        for path in self.found.keys() {
            let mut rest = path.as_slice();
            while let Some(end) = rest.iter().rposition(|byte| *byte == 0) {
                rest = &rest[..end];
                if !above.insert(rest.to_vec()) {
                    break;
                }
            }
        }
        for path in above {
            self.found.entry(path).or_insert(Kind::Modified);
        }
        self.found.into_iter().map(|(path, kind)| (swapped(&path, 0, b'/'), kind)).collect()
    }
}

fn swapped(path: &[u8], from: u8, to: u8) -> Vec<u8> {
    path.iter().map(|byte| if *byte == from { to } else { *byte }).collect()
}

/// Whether a name is as it was, as far as that can be told without reading it.
pub(crate) fn same(new: (&Opened, &Found), old: (&Opened, &Found), name: &CStr) -> Result<bool> {
    let (a, b) = (&new.1.stat, &old.1.stat);
    let alike = a.st_mode == b.st_mode
        && (a.st_uid, a.st_gid) == (b.st_uid, b.st_gid)
        && a.st_rdev == b.st_rdev
        && (new.1.kind() == FileType::Directory || (a.st_size == b.st_size && same_time(a, b)));
    if !alike || new.1.kind() != FileType::RegularFile {
        return Ok(alike);
    }
    let capability = c"security.capability";
    Ok(new.0.attribute(new.1, name, capability)? == old.0.attribute(old.1, name, capability)?)
}

/// Archives may have kept whole seconds only.
fn same_time(a: &Stat, b: &Stat) -> bool {
    let nanoseconds = (a.st_mtime_nsec, b.st_mtime_nsec);
    a.st_mtime == b.st_mtime && (nanoseconds.0 == nanoseconds.1 || nanoseconds.0 == 0 || nanoseconds.1 == 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use rustix::fs::{CWD, Mode, XattrFlags};

    use super::*;

    fn whiteout(path: &Path) {
        rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    }

    fn opaque(path: &Path) {
        rustix::fs::setxattr(path, c"trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn compared(root: &Path, hidden: &[&str]) -> Vec<String> {
        let upper = Overlay::open([root.join("upper")]).unwrap();
        let lower = Overlay::open([root.join("two"), root.join("one")]).unwrap();
        let hidden = hidden.iter().map(|path| path.as_bytes().to_vec()).collect();
        let shown = |(path, kind): (Vec<u8>, Kind)| {
            let letter = match kind {
                Kind::Modified => "C",
                Kind::Added => "A",
                Kind::Deleted => "D",
            };
            format!("{letter} {}", String::from_utf8(path).unwrap())
        };
        changes(&upper, &lower, &hidden).unwrap().into_iter().map(shown).collect()
    }

    #[test]
    fn every_kind_of_change_is_seen() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        for layer in ["upper", "two", "one"] {
            fs::create_dir(root.join(layer)).unwrap();
        }
        write(&root.join("one/etc/passwd"), "root");
        write(&root.join("one/etc/deep/kept"), "k");
        write(&root.join("two/etc/gone"), "g");
        write(&root.join("one/hidden-by-two"), "x");
        whiteout(&root.join("two/hidden-by-two"));
        write(&root.join("two/emptied/a/b"), "b");
        write(&root.join("two/emptied/c"), "c");
        write(&root.join("two/becomes-file/x"), "x");
        assert_eq!(compared(root, &[]), [""; 0]);

        write(&root.join("upper/etc/deep/new"), "n");
        write(&root.join("upper/etc/passwd"), "root and more");
        whiteout(&root.join("upper/etc/gone"));
        whiteout(&root.join("upper/never-was"));
        write(&root.join("upper/hidden-by-two"), "again");
        write(&root.join("upper/emptied/a/z"), "z");
        opaque(&root.join("upper/emptied"));
        write(&root.join("upper/becomes-file"), "now a file");
        write(&root.join("upper/mnt/volume/inside"), "not shown");
        write(&root.join("upper/mnt/beside"), "shown");
        write(&root.join("upper/only/mount"), "");
        let expected = [
            "C becomes-file",
            "C emptied",
            "C emptied/a",
            "D emptied/a/b",
            "A emptied/a/z",
            "D emptied/c",
            "C etc",
            "C etc/deep",
            "A etc/deep/new",
            "D etc/gone",
            "C etc/passwd",
            "A hidden-by-two",
            "A mnt",
            "A mnt/beside",
            "A only",
        ];
        assert_eq!(compared(root, &["mnt/volume", "only/mount"]), expected);
    }

    #[test]
    fn what_was_copied_up_and_not_changed_is_not_shown() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        for layer in ["upper", "two", "one"] {
            fs::create_dir_all(root.join(layer).join("d")).unwrap();
        }
        for layer in ["upper", "one"] {
            write(&root.join(layer).join("d/f"), "same");
            let file = fs::File::open(root.join(layer).join("d/f")).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(9)).unwrap();
        }
        assert_eq!(compared(root, &[]), [""; 0]);
        fs::set_permissions(root.join("upper/d"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(compared(root, &[]), ["C d"]);
        fs::set_permissions(root.join("upper/d/f"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(compared(root, &[]), ["C d", "C d/f"]);
    }

    #[test]
    fn links_lead_nowhere_but_into_the_view() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        fs::create_dir_all(root.join("one/run")).unwrap();
        fs::create_dir_all(root.join("two/var")).unwrap();
        fs::create_dir(root.join("upper")).unwrap();
        symlink("/run", root.join("two/var/run")).unwrap();
        symlink("../../../../etc", root.join("two/out")).unwrap();
        symlink("loop", root.join("two/loop")).unwrap();
        let view = Overlay::open(["upper", "two", "one"].map(|name| root.join(name))).unwrap();
        let resolve = |path: &str| String::from_utf8(view.resolve(path.as_bytes()).unwrap()).unwrap();
        assert_eq!(resolve("/var/run/x/../y"), "run/y");
        assert_eq!(resolve("/out/passwd"), "etc/passwd");
        assert_eq!(resolve("/missing/deep"), "missing/deep");
        assert_eq!(resolve("/../.."), "");
        assert!(view.resolve(b"/loop").is_err());
    }
}
