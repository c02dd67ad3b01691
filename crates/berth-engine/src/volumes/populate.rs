//! The volumes of a container that is being created: made, held, and filled with what the image has in their place.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_archive::copy::{self, Options as Unpacking};
use berth_storage::{Snapshot, VolumeRecord};
use berth_sys::ids::Mappings;
use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};

use super::{Held, LOCAL, Options, is_the_hosts};
use crate::Error;
use crate::create::Definition;
use crate::create::mounts::{MountPlan, MountSource};
use crate::engine::Parts;
use crate::event::VolumeEvent;
use crate::life::sources;

/// The name of what is filled before it becomes the volume; the storage's.
const STAGED: &str = "_staged";

/// The volumes of a container that is being created. Nobody removes them while this is held.
pub(crate) struct Preparation<'a> {
    parts: &'a Parts,
    volumes: BTreeMap<String, (VolumeRecord, Held<'a>)>,
    /// Those made for this container alone.
    anonymous: Vec<String>,
}

impl<'a> Preparation<'a> {
    /// Makes the volumes of a container that are not there yet, and fills those that are empty. `snapshot` is the
    /// container's, into which nothing has been written. Blocks.
    pub fn make(parts: &'a Parts, definition: &Definition, snapshot: &Snapshot) -> Result<Self, Error> {
        let mut made = Self { parts, volumes: BTreeMap::new(), anonymous: Vec::new() };
        match made.fill_in(definition, snapshot) {
            Ok(()) => Ok(made),
            Err(error) => {
                made.undo();
                Err(error)
            }
        }
    }

    /// The names of all.
    pub fn names(&self) -> Vec<String> {
        self.volumes.keys().cloned().collect()
    }

    /// Removes what was made for the container alone, which will not be there.
    pub fn undo(mut self) {
        self.volumes.clear();
        for name in &self.anonymous {
            match self.parts.volumes.remove(name, false) {
                Ok(driver) => self.parts.tell_volume(name, driver, VolumeEvent::Destroy),
                Err(error) => tracing::warn!(name, %error, "the volume of a failed creation stays"),
            }
        }
    }

    fn fill_in(&mut self, definition: &Definition, snapshot: &Snapshot) -> Result<(), Error> {
        for plan in &definition.mounts {
            self.make_one(plan)?;
        }
        let filled: Vec<&MountPlan> = definition.mounts.iter().filter(|plan| plan.wish.copy).collect();
        if filled.is_empty() {
            return Ok(());
        }
        let image = Image { tree: sources::image(snapshot)?, owners: snapshot.owners.as_deref() };
        filled.into_iter().try_for_each(|plan| self.fill(plan, definition, &image))
    }

    fn make_one(&mut self, plan: &MountPlan) -> Result<(), Error> {
        let MountSource::Volume { name, anonymous, .. } = &plan.source else { return Ok(()) };
        if self.volumes.contains_key(name) {
            return Ok(());
        }
        let volumes = &self.parts.volumes;
        let held = volumes.hold(name);
        let mut wish = plan.wish.clone();
        if *anonymous {
            wish.labels.get_or_insert_default().insert(super::ANONYMOUS.to_owned(), String::new());
        }
        let (record, made) = volumes.ensure(name, &wish)?;
        if made {
            self.parts.tell_volume(name, record.driver.clone(), VolumeEvent::Create);
            if *anonymous {
                self.anonymous.push(name.clone());
            }
        }
        self.volumes.insert(name.clone(), (record, held));
        Ok(())
    }

    /// Copies what the image has at a volume's place, if the volume is empty.
    fn fill(&self, plan: &MountPlan, definition: &Definition, image: &Image<'_>) -> Result<(), Error> {
        let MountSource::Volume { name, subpath, .. } = &plan.source else { return Ok(()) };
        let Some((record, held)) = self.volumes.get(name) else { return Ok(()) };
        let path = copy::follow(image.tree.as_fd(), plan.destination.as_bytes());
        let path = path.map_err(|error| failed("find", &plan.destination, error))?;
        let found = match copy::look(image.tree.as_fd(), &path) {
            Ok(found) if found.kind() == FileType::Directory => found,
            Ok(_) if plan.wish.over_file => return Ok(()),
            Ok(_) => {
                let path = &plan.destination;
                return Err(Error::InvalidParameter(format!(
                    "cannot mount volume over existing file, file exists {path}"
                )));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(failed("examine", &plan.destination, error)),
        };
        let options = Options::parse(record.options.as_ref(), true).unwrap_or_default();
        let is_mount = record.driver != LOCAL || options.needs_mount();
        let user = format!("fill-{}", definition.id);
        let place = match is_mount {
            true => self.parts.volumes.acquire(record, &user)?,
            false => self.parts.volume_dir(name),
        };
        let turn = self.parts.volumes.turn(name);
        let users = turn.lock();
        // Only what nobody sees yet can be replaced as a whole.
        let is_new = !is_mount
            && subpath.is_empty()
            && held.is_alone()
            // Whoever copies into it or out of it has it open.
            && users.is_empty()
            && !self.parts.storage.volumes().users()?.contains_key(name);
        let outside = || {
            let remap = self.parts.remap(&definition.host).filter(|_| is_the_hosts(record));
            remap.map(|remap| remap.mappings.clone())
        };
        let owners = self.parts.storage.volumes().owners(name)?.or_else(outside);
        let copy = TreeCopy { image, path: &path, owners };
        let filled = if is_new {
            self.fill_new(name, &copy)
        } else {
            copy.fill_in_place(&place, subpath, &found.stat)
        };
        drop(users);
        if is_mount {
            self.parts.volumes.release(&user);
        }
        filled
    }

    fn fill_new(&self, name: &str, copy: &TreeCopy<'_>) -> Result<(), Error> {
        let volumes = self.parts.storage.volumes();
        if !is_empty(&open(&volumes.directory(name))?)? {
            return Ok(());
        }
        let staged = volumes.stage(name)?;
        let above = open(staged.parent().unwrap_or(&staged))?;
        let copied = copy.run(STAGED.as_bytes(), above.as_fd());
        if copied.is_err() {
            volumes.discard(name)?;
        }
        copied?;
        Ok(volumes.publish(name)?)
    }
}

/// What a container has of its image.
struct Image<'a> {
    tree: OwnedFd,
    /// Set where the owners in it are those outside of a user namespace.
    owners: Option<&'a Mappings>,
}

/// A directory of an image that goes into a volume.
struct TreeCopy<'a> {
    image: &'a Image<'a>,
    path: &'a [u8],
    /// Set where the owners in the volume are those outside of a user namespace.
    owners: Option<Mappings>,
}

impl TreeCopy<'_> {
    /// Fills a volume that others may see, if it is empty. What a copy has left that fails is removed; that of one which a
    /// crash ends stays.
    fn fill_in_place(&self, directory: &Path, subpath: &str, like: &Stat) -> Result<(), Error> {
        let volume = open(directory)?;
        let place = if subpath.is_empty() {
            volume
        } else {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match rustix::fs::openat2(volume, subpath, flags, Mode::empty(), ResolveFlags::BENEATH) {
                Ok(place) => place,
                // What is missing there is told by the start.
                Err(_) => return Ok(()),
            }
        };
        if !is_empty(&place)? {
            return Ok(());
        }
        if let Err(error) = self.run(b".", place.as_fd()) {
            // A part is no content: the next container would take it for the whole.
            return Err(match self.remove_from(&place) {
                Ok(()) => error,
                Err(undo) => Error::Unwound { first: Box::new(error), undo: vec![undo.to_string()] },
            });
        }
        let (uid, gid) = self.owner(like);
        rustix::fs::fchown(&place, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .and_then(|()| rustix::fs::fchmod(&place, Mode::from_raw_mode(like.st_mode & 0o7777)))
            .map_err(|error| {
                failed("change the owner and mode of", &directory.display().to_string(), error.into())
            })
    }

    /// Removes what a copy has left that failed. What others have put there meanwhile stays.
    fn remove_from(&self, place: &OwnedFd) -> Result<(), Error> {
        let failed = |error| failed("clean", "the volume", error);
        let directory = copy::opened(self.image.tree.as_fd(), self.path, OFlags::RDONLY | OFlags::DIRECTORY);
        for entry in rustix::fs::Dir::read_from(directory.map_err(failed)?).map_err(|e| failed(e.into()))? {
            let entry = entry.map_err(|error| failed(error.into()))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                berth_archive::tree::remove(place.as_fd(), entry.file_name()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// To whom a file of the image belongs in the volume.
    fn owner(&self, like: &Stat) -> (u32, u32) {
        let (mut uid, mut gid) = (like.st_uid, like.st_gid);
        if let Some(ids) = self.image.owners {
            (uid, gid) = (ids.user_inside(uid).unwrap_or(uid), ids.group_inside(gid).unwrap_or(gid));
        }
        let outside = self.owners.as_ref().and_then(|ids| ids.outside(uid, gid));
        outside.unwrap_or((uid, gid))
    }

    /// Copies the directory with all that a tar can hold into `into`, under a name.
    fn run(&self, name: &[u8], into: BorrowedFd<'_>) -> Result<(), Error> {
        let pipe = io::pipe().map_err(|source| Error::Io { operation: "make a pipe".into(), source })?;
        let (reader, writer) = pipe;
        let (tree, path, owners) = (self.image.tree.as_fd(), self.path, self.image.owners);
        let options = Unpacking { ids: self.owners.clone(), ..Unpacking::default() };
        std::thread::scope(|scope| {
            let out = io::BufWriter::new(writer);
            let packing = scope.spawn(move || copy::pack_with_attributes(tree, path, name, out, owners));
            let unpacked = copy::unpack(into, b"/", &options, reader);
            let packed = packing.join().unwrap_or(Ok(()));
            // Whoever failed first made the other fail.
            match (packed, unpacked) {
                (_, Err(error)) | (Err(error), Ok(())) => {
                    let source = io::Error::other(Error::from(error));
                    Err(Error::Io { operation: "failed to populate volume".into(), source })
                }
                (Ok(()), Ok(())) => Ok(()),
            }
        })
    }
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| failed("open", &path.display().to_string(), error.into()))
}

fn is_empty(directory: &OwnedFd) -> Result<bool, Error> {
    let mut entries = rustix::fs::Dir::read_from(directory)
        .map_err(|error| failed("read", "the volume", error.into()))?
        .filter_map(Result::ok)
        .filter(|entry| !matches!(entry.file_name().to_bytes(), b"." | b".."));
    Ok(entries.next().is_none())
}

fn failed(what: &str, path: &str, source: io::Error) -> Error {
    Error::Io { operation: format!("failed to populate volume: {what} {path}"), source }
}
