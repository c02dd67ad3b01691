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

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::marks::Marks;
use crate::{Error, Result};

/// Links followed at most by [`Overlay::resolve`], as in the kernel.
const LINKS_MAX: usize = 40;

/// Layers, the top one first.
#[derive(Debug)]
pub struct Overlay {
    layers: Vec<(OwnedFd, Marks)>,
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
    directories: Vec<(usize, OwnedFd, Marks)>,
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
                .map(|layer| (layer, marks))
                .map_err(|error| Error::file("opening", path.as_ref().as_os_str().as_bytes(), error))
        };
        Ok(Self { layers: layers.into_iter().map(open).collect::<Result<_>>()? })
    }

    /// The root of the merged view.
    #[must_use]
    pub fn root(&self) -> Place {
        let whole = self.layers.iter().position(|(_, marks)| matches!(marks, Marks::Whole { .. }));
        Place { path: Vec::new(), layers: (0..whole.map_or(self.layers.len(), |index| index + 1)).collect() }
    }

    /// Opens a directory; one that has gone meanwhile is empty.
    ///
    /// # Errors
    /// File errors.
    pub fn enter(&self, place: &Place) -> Result<Opened> {
        let mut directories = Vec::with_capacity(place.layers.len());
        for &layer in &place.layers {
            let (root, marks) = &self.layers[layer];
            match open_beneath(root.as_fd(), &place.path) {
                Ok(directory) => directories.push((layer, directory, *marks)),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(Error::file("opening", &place.path, error)),
            }
        }
        Ok(Opened { directories })
    }

    /// The marks of the top layer.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.layers.first().map_or_else(Marks::default, |(_, marks)| *marks)
    }

    /// Opens a directory of the top layer, if it has it.
    pub(crate) fn open_top(&self, path: &[u8]) -> Option<OwnedFd> {
        let (top, _) = self.layers.first()?;
        open_beneath(top.as_fd(), path).ok()
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
        Self { directories: vec![(0, directory, Marks::Whole { made: None })] }
    }

    /// What a name of the top layer is, if it is there; the mark of a removed one too.
    pub(crate) fn examine(&self, name: &CStr) -> Result<Option<Found>> {
        let Some((_, directory, _)) = self.directories.first() else { return Ok(None) };
        Ok(examine(directory, name)?.map(|stat| Found { stat, index: 0 }))
    }

    /// All names with what they are, in the order of their bytes.
    ///
    /// # Errors
    /// File errors.
    pub fn entries(&self) -> Result<Vec<(CString, Found)>> {
        let mut names: BTreeMap<CString, Option<Found>> = BTreeMap::new();
        for (index, (_, directory, marks)) in self.directories.iter().enumerate() {
            let failed = |error| Error::file("listing", b"a directory", error);
            for entry in Dir::read_from(directory).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name();
                if name == c"." || name == c".." || marks.is_mark(name) || names.contains_key(name) {
                    continue;
                }
                if let Some(stat) = examine(directory, name)? {
                    let found = (!marks.is_whiteout(&stat)).then_some(Found { stat, index });
                    names.insert(name.to_owned(), found);
                }
            }
        }
        Ok(names.into_iter().filter_map(|(name, found)| Some((name, found?))).collect())
    }

    /// All names of the top layer, marks of removed names among them.
    pub(crate) fn raw_entries(&self) -> Result<Vec<(CString, Found)>> {
        let Some((_, directory, marks)) = self.directories.first() else { return Ok(Vec::new()) };
        let entries = directory_entries(directory)?.into_iter();
        let entries = entries.filter(|(name, _)| !marks.is_mark(name));
        Ok(entries.map(|(name, stat)| (name, Found { stat, index: 0 })).collect())
    }

    /// The directory in the top layer, if there is one.
    pub(crate) fn top(&self) -> Option<BorrowedFd<'_>> {
        self.directories.first().map(|(_, directory, _)| directory.as_fd())
    }

    /// What a name is, if it is there.
    ///
    /// # Errors
    /// File errors.
    pub fn find(&self, name: &CStr) -> Result<Option<Found>> {
        for (index, (_, directory, marks)) in self.directories.iter().enumerate() {
            if let Some(stat) = examine(directory, name)? {
                return Ok((!marks.is_whiteout(&stat)).then_some(Found { stat, index }));
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
        for (layer, directory, marks) in &self.directories[found.index..] {
            match crate::tree::open_directory(directory.as_fd(), name) {
                Ok(child) => {
                    layers.push(*layer);
                    if marks.is_opaque(child.as_fd())? {
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
        self.directories[found.index].1.as_fd()
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
                Ok(_) => return Ok(Some(value)),
                Err(Errno::RANGE) if value.capacity() < 1 << 16 => value.reserve_exact(1 << 16),
                Err(Errno::NODATA | Errno::NOTSUP | Errno::NOENT) => return Ok(None),
                Err(error) => return Err(Error::file("reading an attribute of", name.to_bytes(), error)),
            }
        }
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
