//! What the layers of an image add, change and remove, and which of their bytes no longer show because a layer above has
//! other files in their place.
//!
//! All layers are walked together, one directory at a time, so that memory does not grow with the number of files (but for
//! those with several names).

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::marks::Marks;
use crate::overlay::{directory_entries, join, open_beneath};
use crate::{Error, Result};

/// Files and the bytes in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Files, directories, links and all else that has a name.
    pub entries: u64,
    /// Bytes of the files; each counts once, however many names it has.
    pub bytes: u64,
}

/// What one layer does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// What was not there below it.
    pub added: Tally,
    /// What takes the place of something below it.
    pub changed: Tally,
    /// What is hidden by its removal, and still takes its bytes below.
    pub removed: Tally,
    /// Bytes of its own files that layers above overwrite or remove.
    pub wasted: u64,
}

/// A file that takes room and does not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wasted {
    /// Its path, without a leading slash.
    pub path: Vec<u8>,
    /// Its bytes.
    pub bytes: u64,
    /// The layer that has it, from 0 for the lowest.
    pub layer: usize,
    /// The layer that hides it.
    pub hidden_by: usize,
}

/// What layers do to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of each layer, the lowest first.
    pub layers: Vec<Share>,
    /// The largest files that do not show, the largest first.
    pub largest: Vec<Wasted>,
}

/// Looks through the directories of an image's layers with their marks, the lowest first; names up to `largest` of the files that are
/// wasted. Blocks for as long as there are many files.
///
/// # Errors
/// File errors.
pub fn report<P: AsRef<Path>>(
    layers: impl IntoIterator<Item = P>,
    marks: Marks,
    largest: usize,
) -> Result<Report> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: P| {
        let path = path.as_ref();
        rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| Error::file("opening", path.as_os_str().as_encoded_bytes(), error))
    };
    let roots = layers.into_iter().map(open).collect::<Result<Vec<OwnedFd>>>()?;
    let all = (0..roots.len()).collect();
    let mut walk = Walk {
        report: Report { layers: vec![Share::default(); roots.len()], largest: Vec::new() },
        roots,
        marks,
        most: largest,
        links: HashMap::new(),
        pending: vec![Visit { path: Vec::new(), layers: all, hidden_by: None }],
    };
    while let Some(visit) = walk.pending.pop() {
        walk.directory(&visit)?;
    }
    walk.settle_links();
    walk.report.largest.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
    walk.report.largest.truncate(largest);
    Ok(walk.report)
}

/// A directory as some layers have it together.
struct Visit {
    path: Vec<u8>,
    /// The layers that make it up, the lowest first.
    layers: Vec<usize>,
    /// The layer that hides all of it.
    hidden_by: Option<usize>,
}

/// What a name stands for, up to some layer.
enum Entry {
    File { layer: usize, stat: Stat },
    Directory { layers: Vec<usize> },
}

/// A file with several names in one layer.
struct Linked {
    bytes: u64,
    shown: bool,
    path: Vec<u8>,
    hidden_by: usize,
}

struct Walk {
    roots: Vec<OwnedFd>,
    report: Report,
    marks: Marks,
    most: usize,
    /// By layer and inode.
    links: HashMap<(usize, u64), Linked>,
    pending: Vec<Visit>,
}

impl Walk {
    fn directory(&mut self, visit: &Visit) -> Result<()> {
        let mut names: BTreeMap<CString, Entry> = BTreeMap::new();
        for &layer in &visit.layers {
            let directory = open_beneath(self.roots[layer].as_fd(), &visit.path)
                .map_err(|error| Error::file("opening", &visit.path, error))?;
            if self.marks.is_opaque(directory.as_fd())? {
                for (name, entry) in std::mem::take(&mut names) {
                    self.hide(&join(&visit.path, name.to_bytes()), entry, layer, true);
                }
            }
            let marks = self.marks;
            for (name, stat) in
                directory_entries(&directory)?.into_iter().filter(|(name, _)| !marks.is_mark(name))
            {
                self.name(visit, &mut names, layer, name, stat);
            }
        }
        for (name, entry) in names {
            let path = join(&visit.path, name.to_bytes());
            match (entry, visit.hidden_by) {
                (Entry::Directory { layers }, hidden_by) => {
                    if let Some(by) = hidden_by {
                        self.report.layers[by].removed.entries += 1;
                    }
                    self.pending.push(Visit { path, layers, hidden_by });
                }
                (Entry::File { layer, stat }, Some(by)) => self.waste(path, layer, &stat, by, true),
                (Entry::File { layer, stat }, None) => self.show(layer, &stat),
            }
        }
        Ok(())
    }

    /// One name of a layer in a directory.
    fn name(
        &mut self,
        visit: &Visit,
        names: &mut BTreeMap<CString, Entry>,
        layer: usize,
        name: CString,
        stat: Stat,
    ) {
        let path = || join(&visit.path, name.to_bytes());
        if self.marks.is_whiteout(&stat) {
            if let Some(entry) = names.remove(&name) {
                self.hide(&path(), entry, layer, true);
            }
            return;
        }
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if let (Some(Entry::Directory { layers }), true) = (names.get_mut(&name), is_directory) {
            layers.push(layer);
            return;
        }
        let bytes = self.bytes(layer, &stat, is_directory);
        let before = names.remove(&name);
        let share = &mut self.report.layers[layer];
        let tally = if before.is_some() { &mut share.changed } else { &mut share.added };
        tally.entries += 1;
        tally.bytes += bytes;
        if let Some(entry) = before {
            self.hide(&path(), entry, layer, false);
        }
        let entry = match is_directory {
            true => Entry::Directory { layers: vec![layer] },
            false => Entry::File { layer, stat },
        };
        names.insert(name, entry);
    }

    /// The bytes of a file, if this is the first of its names.
    fn bytes(&mut self, layer: usize, stat: &Stat, is_directory: bool) -> u64 {
        let bytes = size(stat);
        if is_directory {
            return 0;
        }
        if stat.st_nlink < 2 {
            return bytes;
        }
        let linked = Linked { bytes, shown: false, path: Vec::new(), hidden_by: layer };
        match self.links.entry((layer, stat.st_ino)) {
            std::collections::hash_map::Entry::Occupied(_) => 0,
            std::collections::hash_map::Entry::Vacant(vacant) => vacant.insert(linked).bytes,
        }
    }

    /// What a name stood for shows no more; `removed`: nothing takes its place.
    fn hide(&mut self, path: &[u8], entry: Entry, by: usize, removed: bool) {
        match entry {
            Entry::File { layer, stat } => self.waste(path.to_vec(), layer, &stat, by, removed),
            Entry::Directory { layers } => {
                self.report.layers[by].removed.entries += u64::from(removed);
                self.pending.push(Visit { path: path.to_vec(), layers, hidden_by: Some(by) });
            }
        }
    }

    fn show(&mut self, layer: usize, stat: &Stat) {
        if let Some(linked) = self.links.get_mut(&(layer, stat.st_ino)).filter(|_| stat.st_nlink > 1) {
            linked.shown = true;
        }
    }

    fn waste(&mut self, path: Vec<u8>, layer: usize, stat: &Stat, by: usize, removed: bool) {
        let tally = &mut self.report.layers[by].removed;
        tally.entries += u64::from(removed);
        if stat.st_nlink > 1
            && let Some(linked) = self.links.get_mut(&(layer, stat.st_ino))
        {
            // It is wasted only if none of its names shows in the end.
            if linked.path.is_empty() || by > linked.hidden_by {
                (linked.path, linked.hidden_by) = (path, by);
            }
            return;
        }
        let bytes = size(stat);
        if removed {
            tally.bytes += bytes;
        }
        self.note(Wasted { path, bytes, layer, hidden_by: by });
    }

    fn note(&mut self, wasted: Wasted) {
        self.report.layers[wasted.layer].wasted += wasted.bytes;
        if wasted.bytes == 0 {
            return;
        }
        let largest = &mut self.report.largest;
        largest.push(wasted);
        // Sorted now and then only: the list stays short, and each file costs little.
        if largest.len() > 2 * self.most + 16 {
            largest.sort_by_key(|file| std::cmp::Reverse(file.bytes));
            largest.truncate(self.most);
        }
    }

    fn settle_links(&mut self) {
        for ((layer, _), linked) in std::mem::take(&mut self.links) {
            if !linked.shown && !linked.path.is_empty() {
                let Linked { bytes, path, hidden_by, .. } = linked;
                self.report.layers[hidden_by].removed.bytes += bytes;
                self.note(Wasted { path, bytes, layer, hidden_by });
            }
        }
    }
}

/// Bytes of what a file's inode holds.
fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, XattrFlags};

    use super::*;

    fn whiteout(path: &Path) {
        rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    }

    fn write(path: &Path, size: usize) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![b'x'; size]).unwrap();
    }

    fn tally(entries: u64, bytes: u64) -> Tally {
        Tally { entries, bytes }
    }

    #[test]
    fn what_is_overwritten_and_removed_is_wasted() {
        let temp = tempfile::tempdir().unwrap();
        let layer = |n: usize| temp.path().join(n.to_string());
        for (path, size) in [("kept", 1), ("changed", 10), ("gone", 100), ("dir/a", 1000), ("dir/b", 2000)] {
            write(&layer(0).join(path), size);
        }
        write(&layer(1).join("changed"), 11);
        write(&layer(1).join("new"), 50_000);
        whiteout(&layer(1).join("gone"));
        write(&layer(1).join("dir/a"), 5);
        write(&layer(2).join("dir"), 3);
        whiteout(&layer(2).join("new"));
        // Of nothing there is nothing to remove.
        whiteout(&layer(2).join("absent"));
        let report = report((0..3).map(layer), Marks::Overlay, 3).unwrap();
        let [zero, one, two] = &report.layers[..] else { panic!("{report:?}") };
        assert_eq!((zero.added, zero.changed, zero.removed), (tally(6, 3111), tally(0, 0), tally(0, 0)));
        assert_eq!(zero.wasted, 10 + 100 + 1000 + 2000);
        assert_eq!((one.added, one.changed, one.removed), (tally(1, 50_000), tally(2, 16), tally(1, 100)));
        assert_eq!(one.wasted, 50_000 + 5);
        assert_eq!((two.added, two.changed), (tally(0, 0), tally(1, 3)));
        assert_eq!(two.removed, tally(3, 50_000 + 5 + 2000));
        assert_eq!(two.wasted, 0);
        let largest: Vec<_> = report.largest.iter().map(|file| (&file.path[..], file.hidden_by)).collect();
        assert_eq!(largest, [(&b"new"[..], 2), (b"dir/b", 2), (b"dir/a", 1)]);
    }

    #[test]
    fn names_of_one_file_are_wasted_together_and_opaque_directories_hide() {
        let temp = tempfile::tempdir().unwrap();
        let layer = |n: usize| temp.path().join(n.to_string());
        write(&layer(0).join("one"), 100);
        fs::hard_link(layer(0).join("one"), layer(0).join("two")).unwrap();
        write(&layer(0).join("dir/deep/file"), 7);
        fs::create_dir_all(layer(1).join("dir")).unwrap();
        rustix::fs::setxattr(layer(1).join("dir"), c"trusted.overlay.opaque", b"y", XattrFlags::empty())
            .unwrap();
        whiteout(&layer(1).join("one"));
        let first = report((0..2).map(layer), Marks::Overlay, 10).unwrap();
        assert_eq!(first.layers[0].added, tally(5, 107));
        assert_eq!(first.layers[0].wasted, 7, "the other name still shows");
        assert_eq!(first.layers[1].removed, tally(3, 7));
        whiteout(&layer(1).join("two"));
        let second = report((0..2).map(layer), Marks::Overlay, 10).unwrap();
        assert_eq!(second.layers[0].wasted, 107);
        assert_eq!(second.layers[1].removed, tally(4, 107));
        assert_eq!(report(Vec::<&Path>::new(), Marks::Overlay, 1).unwrap(), Report::default());
    }
}
