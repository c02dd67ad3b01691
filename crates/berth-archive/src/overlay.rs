//! The merged view of overlay layers, read without a mount: what a container's root holds, whether it runs or not.
//!
//! It is what overlayfs shows with its format options off, as Berth mounts it: whiteouts, opaque directories, and no
//! redirects. Every name is resolved beneath the directory of one layer, and no symbolic link is followed. No
//! descriptor is kept from one directory to the next, so that depth costs none.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use berth_sys::ids::Mappings;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::marks::Marks;
use crate::pack::{Attributes, attributes};
use crate::{Error, Result, owned};

/// Links followed at most by [`Overlay::resolve`], as in the kernel.
const LINKS_MAX: usize = 40;

/// Layers, the top one first.
#[derive(Debug)]
pub struct Overlay {
    layers: Vec<Layer>,
}

/// A layer, or a directory of one.
#[derive(Debug)]
struct Layer {
    directory: OwnedFd,
    marks: Marks,
    /// Set where the owners on the disk are those outside of a user namespace; they are shown as inside.
    owners: Option<Arc<Mappings>>,
}

/// A directory of the merged view: its path without a leading slash, and the layers that are seen there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The path; empty for the root.
    pub path: Vec<u8>,
    layers: Vec<usize>,
}

/// A directory of the merged view, open.
#[derive(Debug)]
pub struct Opened {
    /// Each with the number of its layer.
    directories: Vec<(usize, Layer)>,
}

/// A name in a directory of the merged view.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// What it is.
    pub stat: Stat,
    /// Which of the directories has it.
    index: usize,
}

impl Found {
    /// The kind of file.
    #[must_use]
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

impl Overlay {
    /// Opens layers with overlayfs's marks, the top one first.
    ///
    /// # Errors
    /// A layer that cannot be opened.
    pub fn open<P: AsRef<Path>>(layers: impl IntoIterator<Item = P>) -> Result<Self> {
        Self::open_marked(layers.into_iter().map(|path| (path, Marks::Overlay)))
    }

    /// Opens layers, each with its own kind of marks, the top one first. What is below a whole tree is not looked at.
    ///
    /// # Errors
    /// A layer that cannot be opened.
    pub fn open_marked<P: AsRef<Path>>(layers: impl IntoIterator<Item = (P, Marks)>) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |(path, marks): (P, Marks)| {
            rustix::fs::open(path.as_ref(), flags, Mode::empty())
                .map(|directory| Layer { directory, marks, owners: None })
                .map_err(|error| Error::file("opening", path.as_ref().as_os_str().as_bytes(), error))
        };
        Ok(Self { layers: layers.into_iter().map(open).collect::<Result<_>>()? })
    }

    /// Says that the owners in the top layer are those outside of a user namespace. They are shown as inside.
    #[must_use]
    pub fn with_owners(mut self, owners: Option<&Arc<Mappings>>) -> Self {
        if let Some(top) = self.layers.first_mut() {
            top.owners = owners.cloned();
        }
        self
    }

    /// The root of the merged view.
    #[must_use]
    pub fn root(&self) -> Place {
        let whole = self.layers.iter().position(|layer| matches!(layer.marks, Marks::Whole { .. }));
        Place { path: Vec::new(), layers: (0..whole.map_or(self.layers.len(), |index| index + 1)).collect() }
    }

    /// Opens a directory; one that has gone meanwhile is empty.
    ///
    /// # Errors
    /// File errors.
    pub fn enter(&self, place: &Place) -> Result<Opened> {
        let mut directories = Vec::with_capacity(place.layers.len());
        for &number in &place.layers {
            let layer = &self.layers[number];
            match open_beneath(layer.directory.as_fd(), &place.path) {
                Ok(directory) => {
                    let owners = layer.owners.clone();
                    directories.push((number, Layer { directory, marks: layer.marks, owners }));
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(Error::file("opening", &place.path, error)),
            }
        }
        Ok(Opened { directories })
    }

    /// The marks of the top layer.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.layers.first().map_or_else(Marks::default, |layer| layer.marks)
    }

    /// Opens a directory of the top layer, if it has it.
    pub(crate) fn open_top(&self, path: &[u8]) -> Option<OwnedFd> {
        open_beneath(self.layers.first()?.directory.as_fd(), path).ok()
    }

    /// Where `path` leads in the merged view: symbolic links followed inside it, `..` never above it. What is missing
    /// stays as it is named.
    ///
    /// # Errors
    /// File errors; a loop of links.
    pub fn resolve(&self, path: &[u8]) -> Result<Vec<u8>> {
        let mut remaining: Vec<Vec<u8>> = parts(path).rev().map(<[u8]>::to_vec).collect();
        let mut places = vec![self.root()];
        let mut links = 0;
        while let Some(name) = remaining.pop() {
            if name == b".." {
                places.truncate(places.len().saturating_sub(1).max(1));
                continue;
            }
            let place = places.last().cloned().unwrap_or_else(|| self.root());
            let here = self.enter(&place)?;
            let name = c_name(&name)?;
            let found = here.find(&name)?;
            if let Some(found) = found
                && found.kind() == FileType::Symlink
            {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Error::file("resolving", path, Errno::LOOP));
                }
                let target = here.link(&found, &name)?;
                if target.starts_with(b"/") {
                    places.truncate(1);
                }
                remaining.extend(parts(&target).rev().map(<[u8]>::to_vec));
                continue;
            }
            let below = found.map(|found| here.below(&place, &name, &found)).transpose()?.flatten();
            let missing = || Place { path: join(&place.path, name.to_bytes()), layers: Vec::new() };
            places.push(below.unwrap_or_else(missing));
        }
        Ok(places.pop().map(|place| place.path).unwrap_or_default())
    }
}

impl Opened {
    /// One directory that is no layer: what its names are, they are.
    pub(crate) fn plain(directory: OwnedFd) -> Self {
        Self { directories: vec![(0, Layer { directory, marks: Marks::Whole { made: None }, owners: None })] }
    }

    /// What a name of the top layer is, if it is there; the mark of a removed one too.
    pub(crate) fn examine(&self, name: &CStr) -> Result<Option<Found>> {
        let Some((_, layer)) = self.directories.first() else { return Ok(None) };
        Ok(layer.examine(name)?.map(|stat| Found { stat, index: 0 }))
    }

    /// All names with what they are, in the order of their bytes.
    ///
    /// # Errors
    /// File errors.
    pub fn entries(&self) -> Result<Vec<(CString, Found)>> {
        let mut names: BTreeMap<CString, Option<Found>> = BTreeMap::new();
        for (index, (_, layer)) in self.directories.iter().enumerate() {
            let marks = layer.marks;
            let failed = |error| Error::file("listing", b"a directory", error);
            for entry in Dir::read_from(&layer.directory).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name();
                if name == c"." || name == c".." || marks.is_mark(name) || names.contains_key(name) {
                    continue;
                }
                if let Some(stat) = layer.examine(name)? {
                    let found = (!marks.is_whiteout(&stat)).then_some(Found { stat, index });
                    names.insert(name.to_owned(), found);
                }
            }
        }
        Ok(names.into_iter().filter_map(|(name, found)| Some((name, found?))).collect())
    }

    /// All names of the top layer, marks of removed names among them.
    pub(crate) fn raw_entries(&self) -> Result<Vec<(CString, Found)>> {
        let Some((_, layer)) = self.directories.first() else { return Ok(Vec::new()) };
        let entries = directory_entries(&layer.directory)?.into_iter();
        let entries = entries.filter(|(name, _)| !layer.marks.is_mark(name));
        Ok(entries.map(|(name, stat)| (name, Found { stat: layer.shown(stat), index: 0 })).collect())
    }

    /// The directory in the top layer, if there is one.
    pub(crate) fn top(&self) -> Option<BorrowedFd<'_>> {
        self.directories.first().map(|(_, layer)| layer.directory.as_fd())
    }

    /// What the directory itself is in the top layer, with its extended attributes, if there is one.
    pub(crate) fn itself(&self) -> Result<Option<(Stat, Attributes)>> {
        let Some((_, layer)) = self.directories.first() else { return Ok(None) };
        let stat = rustix::fs::fstat(&layer.directory)
            .map_err(|error| Error::file("examining", b"a directory", error))?;
        Ok(Some((layer.shown(stat), layer.attributes(c".")?)))
    }

    /// What a name is, if it is there.
    ///
    /// # Errors
    /// File errors.
    pub fn find(&self, name: &CStr) -> Result<Option<Found>> {
        for (index, (_, layer)) in self.directories.iter().enumerate() {
            if let Some(stat) = layer.examine(name)? {
                return Ok((!layer.marks.is_whiteout(&stat)).then_some(Found { stat, index }));
            }
        }
        Ok(None)
    }

    /// The directory `name` in `place`, which this is; none if it is no directory, or has gone.
    ///
    /// # Errors
    /// File errors.
    pub fn below(&self, place: &Place, name: &CStr, found: &Found) -> Result<Option<Place>> {
        if found.kind() != FileType::Directory {
            return Ok(None);
        }
        let mut layers = Vec::new();
        for (number, layer) in &self.directories[found.index..] {
            match crate::tree::open_directory(layer.directory.as_fd(), name) {
                Ok(child) => {
                    layers.push(*number);
                    if layer.marks.is_opaque(child.as_fd())? {
                        break;
                    }
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::NOENT) => {}
                    // A file or whiteout hides what is below it.
                    Some(Errno::NOTDIR | Errno::LOOP) => break,
                    _ => return Err(Error::file("opening", name.to_bytes(), error)),
                },
            }
        }
        Ok((!layers.is_empty()).then(|| Place { path: join(&place.path, name.to_bytes()), layers }))
    }

    /// The directory of the layer that has what was found.
    #[must_use]
    pub fn directory(&self, found: &Found) -> BorrowedFd<'_> {
        self.directories[found.index].1.directory.as_fd()
    }

    /// What the kernel says of a file that was found, with the owner as it is shown.
    pub(crate) fn shown(&self, found: &Found, stat: Stat) -> Stat {
        self.directories[found.index].1.shown(stat)
    }

    /// All extended attributes of what was found that mean something elsewhere.
    pub(crate) fn attributes(&self, found: &Found, name: &CStr) -> Result<Attributes> {
        self.directories[found.index].1.attributes(name)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// File errors.
    pub fn link(&self, found: &Found, name: &CStr) -> Result<Vec<u8>> {
        rustix::fs::readlinkat(self.directory(found), name, Vec::new())
            .map(CString::into_bytes)
            .map_err(|error| Error::file("reading the link", name.to_bytes(), error))
    }

    /// An extended attribute of what was found, if it has it.
    ///
    /// # Errors
    /// File errors.
    pub fn attribute(&self, found: &Found, name: &CStr, attribute: &CStr) -> Result<Option<Vec<u8>>> {
        let mut path = crate::tree::proc_path(self.directory(found)).into_bytes();
        path.push(b'/');
        path.extend_from_slice(name.to_bytes());
        let mut value = Vec::with_capacity(1024);
        loop {
            let read = rustix::fs::lgetxattr(&*path, attribute, rustix::buffer::spare_capacity(&mut value));
            match read {
                Ok(_) => {
                    let owners = self.directories[found.index].1.owners.as_ref();
                    return Ok(Some(match owners {
                        Some(ids) => owned::value_inside(ids, attribute.to_bytes(), value),
                        None => value,
                    }));
                }
                Err(Errno::RANGE) if value.capacity() < 1 << 16 => value.reserve_exact(1 << 16),
                Err(Errno::NODATA | Errno::NOTSUP | Errno::NOENT) => return Ok(None),
                Err(error) => return Err(Error::file("reading an attribute of", name.to_bytes(), error)),
            }
        }
    }
}

impl Layer {
    fn shown(&self, stat: Stat) -> Stat {
        self.owners.as_ref().map_or(stat, |ids| owned::stat_inside(ids, stat))
    }

    fn examine(&self, name: &CStr) -> Result<Option<Stat>> {
        Ok(examine(&self.directory, name)?.map(|stat| self.shown(stat)))
    }

    fn attributes(&self, name: &CStr) -> Result<Attributes> {
        let kept = attributes::all(self.directory.as_fd(), name)?;
        Ok(match &self.owners {
            Some(ids) => owned::inside(ids, kept),
            None => kept,
        })
    }
}

pub(crate) fn open_beneath(layer: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let path = if path.is_empty() { b"." } else { path };
    loop {
        match rustix::fs::openat2(layer, OsStr::from_bytes(path), flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// All names of a directory, marks of removed names among them.
pub(crate) fn directory_entries(directory: &OwnedFd) -> Result<Vec<(CString, Stat)>> {
    let failed = |error| Error::file("listing", b"a directory", error);
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name != c"."
            && name != c".."
            && let Some(stat) = examine(directory, name)?
        {
            entries.push((name.to_owned(), stat));
        }
    }
    Ok(entries)
}

fn examine(directory: &OwnedFd, name: &CStr) -> Result<Option<Stat>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(Error::file("examining", name.to_bytes(), error)),
    }
}

/// A name below a directory's path.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

fn c_name(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| Error::file("resolving", name, Errno::INVAL))
}
