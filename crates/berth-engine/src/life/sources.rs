//! The sources of a container's mounts, opened in the daemon's mount namespace: shims do not see the host's.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_storage::{Snapshot, VolumeRecord};
use berth_sys::mount::{self, Parameter};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::join::Shm;
use super::mounted_images;
use super::start::Opened;
use crate::Error;
use crate::blocking::blocking;
use crate::create::Definition;
use crate::create::idmap::IdMap;
use crate::create::mounts::{MountPlan, MountSource};
use crate::engine::Parts;
use crate::remap::{self, Remap};
use crate::volumes::is_the_hosts;

impl Parts {
    /// Where a volume's content is; empty for one of a plugin that has not said so.
    pub(crate) fn volume_dir(&self, name: &str) -> PathBuf {
        self.volumes.place(name)
    }
}

/// Where the files of a container with a user namespace are looked at from.
#[derive(Debug, Clone)]
pub enum Seen {
    /// The container itself.
    Inside(Remap),
    /// The host, which is to see what the container would.
    Outside(Remap),
}

/// What is to be cloned for one mount.
enum Source {
    Bind {
        path: PathBuf,
        create: bool,
        recursive: bool,
        idmap: Option<IdMap>,
    },
    Volume {
        path: PathBuf,
        record: Option<VolumeRecord>,
        subpath: String,
        /// Root's on the disk, where the owners there are those outside of a user namespace.
        root: Option<(u32, u32)>,
    },
    Image {
        snapshot: Snapshot,
        subpath: String,
    },
    Lent(OwnedFd),
}

/// Opens all sources of a container as detached mounts, in the name of `user`, who [`release`]s them when nothing needs them
/// any more.
pub async fn open(
    parts: &Arc<Parts>,
    container: &str,
    user: &str,
    planned: &[(usize, &MountPlan)],
    seen: Option<Seen>,
) -> Result<Opened, Error> {
    if planned.is_empty() {
        return Ok((BTreeMap::new(), Vec::new()));
    }
    let planned: Vec<(usize, MountSource)> =
        planned.iter().map(|(mount, plan)| (*mount, plan.source.clone())).collect();
    let (parts, container, user) = (Arc::clone(parts), container.to_owned(), user.to_owned());
    blocking(move || {
        let mut indices = BTreeMap::new();
        let mut fds = Vec::with_capacity(planned.len());
        for (mount, source) in planned {
            let Some(source) = resolved(&parts, &container, source)? else { continue };
            indices.insert(mount, fds.len());
            fds.push(clone(&parts, &user, source, seen.as_ref())?);
        }
        Ok((indices, fds))
    })
    .await
}

/// Lets go of the volumes that were mounted in the name of `user`.
pub async fn release(parts: &Arc<Parts>, user: &str) {
    if !parts.volumes.has_mounted(user) {
        return;
    }
    let (parts, user) = (Arc::clone(parts), user.to_owned());
    let released = blocking(move || {
        parts.volumes.release(&user);
        Ok(())
    });
    // Only an engine that is torn down has no threads left.
    let _ = released.await;
}

fn resolved(parts: &Parts, container: &str, source: MountSource) -> Result<Option<Source>, Error> {
    Ok(Some(match source {
        MountSource::Bind { path, create, recursive, idmap } => {
            Source::Bind { path, create, recursive, idmap }
        }
        MountSource::Volume { name, subpath, .. } => {
            let record = parts.storage.volumes().get(&name)?;
            let owners = parts.storage.volumes().owners(&name)?;
            let root = owners.and_then(|owners| owners.outside(0, 0));
            Source::Volume { path: parts.volume_dir(&name), record, subpath, root }
        }
        MountSource::Image { id, subpath, .. } => {
            let snapshot = parts.storage.snapshots().mounts(&mounted_images::snapshot_id(container, &id))?;
            Source::Image { snapshot, subpath }
        }
        MountSource::Lent { number } => match parts.lent.take(container, number) {
            Some(tree) => Source::Lent(tree),
            None => return Err(Error::Unavailable("what a build had mounted is gone".into())),
        },
        MountSource::Tmpfs { .. } => return Ok(None),
    }))
}

fn clone(parts: &Parts, user: &str, source: Source, seen: Option<&Seen>) -> Result<OwnedFd, Error> {
    let inside = match seen {
        Some(Seen::Inside(remap)) => Some(remap),
        _ => None,
    };
    match source {
        Source::Bind { path, create, recursive, idmap } => {
            let owner = match seen {
                Some(Seen::Inside(remap) | Seen::Outside(remap)) => remap.root(),
                None => None,
            };
            let tree = bind(&path, create, recursive, owner)?;
            match (idmap, seen) {
                (Some(idmap), _) => map_owners(&tree, &idmap, &path, inside)?,
                (None, Some(Seen::Outside(remap))) => {
                    tolerated(remap::map_back(&tree, &remap.mappings), &path)?;
                }
                _ => {}
            }
            Ok(tree)
        }
        Source::Volume { path, record, subpath, root } => {
            let path = match &record {
                Some(record) => parts.volumes.acquire(record, user)?,
                None => path,
            };
            let tree = volume(&path, &subpath, root)?;
            let is_the_hosts = record.as_ref().is_some_and(is_the_hosts);
            let is_mapped = match seen {
                // As a bind: where others look, nobody of the container must be the host's root.
                Some(Seen::Outside(remap)) if is_the_hosts => {
                    tolerated(remap::map_back(&tree, &remap.mappings), &path)?
                }
                Some(Seen::Inside(remap)) if root.is_none() && !is_the_hosts => {
                    tolerated(remap.map(&tree), &path)?
                }
                _ => true,
            };
            if !is_mapped {
                tracing::warn!(path = %path.display(), "no idmapped mounts: its files keep their owners");
            }
            Ok(tree)
        }
        Source::Lent(tree) => {
            if let Some(remap) = inside {
                tolerated(remap.map(&tree), Path::new("what a build lends"))?;
            }
            Ok(tree)
        }
        Source::Image { snapshot, subpath } => {
            let image = image_for(&snapshot, inside)?;
            if subpath.is_empty() { Ok(image) } else { beneath(&image, &subpath, "the image") }
        }
    }
}

/// Passes over that a file system has no idmapped mounts, where files are as those of a bind; whether it has.
fn tolerated(mapped: std::io::Result<()>, path: &Path) -> Result<bool, Error> {
    match mapped {
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(false),
        other => other.map(|()| true).map_err(failed("map the owners of", path)),
    }
}

/// Shared memory that is another's or shared with others.
pub fn shared_memory(shm: Shm, remap: Option<&Remap>) -> Result<OwnedFd, Error> {
    let is_own = matches!(shm, Shm::Shareable { .. });
    let tree = shm.open()?;
    if let Some(remap) = remap.filter(|_| is_own) {
        tolerated(remap.map(&tree), Path::new("/dev/shm"))?;
    }
    Ok(tree)
}

fn bind(path: &Path, create: bool, recursive: bool, owner: Option<(u32, u32)>) -> Result<OwnedFd, Error> {
    match mount::clone_at(rustix::fs::CWD, path, recursive) {
        Err(error) if is_missing(&error) && create => {
            make_owned(path, owner)?;
            mount::clone_at(rustix::fs::CWD, path, recursive).map_err(failed("mount", path))
        }
        Err(error) if is_missing(&error) => Err(Error::InvalidParameter(missing_bind(path))),
        other => other.map_err(failed("mount", path)),
    }
}

/// Makes the files of a detached mount, and of all below it, belong to others.
fn map_owners(tree: &OwnedFd, idmap: &IdMap, path: &Path, remap: Option<&Remap>) -> Result<(), Error> {
    let refused = |error: std::io::Error| {
        let why = berth_runtime::launch::describe(&error);
        Error::InvalidParameter(format!("cannot map the owners of {}: {why}", path.display()))
    };
    let seen = match remap {
        Some(remap) => idmap.behind(&remap.mappings).ok_or_else(|| {
            Error::InvalidParameter(format!(
                "cannot map the owners of {}: the container has no such users or groups",
                path.display()
            ))
        })?,
        None => idmap.clone(),
    };
    let (users, groups) = seen.lines();
    let namespace = berth_sys::user_namespace::user_namespace(&users, &groups).map_err(refused)?;
    let mapped = mount::Attributes { set: mount::attr::IDMAP, recursive: true, ..Default::default() };
    mount::set_attributes(tree, mapped, Some(namespace.as_fd())).map_err(|error| {
        match error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) {
            true => Error::InvalidParameter(format!(
                "cannot map the owners of {}: its file system, or one that is mounted below it, has no idmapped mounts",
                path.display()
            )),
            false => refused(error),
        }
    })
}

fn volume(path: &Path, subpath: &str, root: Option<(u32, u32)>) -> Result<OwnedFd, Error> {
    if !subpath.is_empty() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::open(path, flags, Mode::empty());
        let top = top.map_err(|error| failed("open", path)(error.into()))?;
        return beneath(&top, subpath, &path.display().to_string());
    }
    match mount::clone_at(rustix::fs::CWD, path, true) {
        Err(error) if is_missing(&error) => {
            make_volume(path, root).map_err(failed("make", path))?;
            mount::clone_at(rustix::fs::CWD, path, true).map_err(failed("mount", path))
        }
        other => other.map_err(failed("mount", path)),
    }
}

/// A detached mount of a path within `top`, which links cannot leave.
fn beneath(top: &OwnedFd, subpath: &str, what: &str) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let found =
        rustix::fs::openat2(top, subpath, flags, Mode::empty(), resolve).map_err(|error| match error {
            Errno::XDEV => Error::InvalidParameter(format!(
                "path concatenation escapes the base directory, base: {what}, subpath: {subpath}"
            )),
            error => {
                let why = berth_runtime::launch::describe(&error.into());
                Error::NoSuchSubpath(format!("cannot access path {what}/{subpath}: {why}"))
            }
        })?;
    let path = Path::new(subpath);
    mount::clone_tree(found, true).map_err(failed("mount", path))
}

/// A detached mount of an image's files, which cannot be written. Nothing has been written into `snapshot`.
pub(crate) fn image(snapshot: &Snapshot) -> Result<OwnedFd, Error> {
    image_for(snapshot, None)
}

/// The same for a container with a user namespace, whose mounts are still mapped: an overlay, which none can be, is made so
/// that it need not be.
pub(crate) fn image_to_lend(snapshot: &Snapshot, remap: Option<&Remap>) -> Result<OwnedFd, Error> {
    image_for(snapshot, remap.filter(|_| snapshot.work.is_some() && snapshot.lower.len() > 1))
}

fn image_for(snapshot: &Snapshot, remap: Option<&Remap>) -> Result<OwnedFd, Error> {
    let remap = remap.filter(|_| snapshot.owners.is_none());
    let layer = |directory: &PathBuf| -> std::io::Result<OwnedFd> {
        let tree = mount::clone_at(rustix::fs::CWD, directory, false)?;
        remap.map_or(Ok(()), |remap| remap.map(&tree))?;
        Ok(tree)
    };
    let mounted = match (&snapshot.work, &snapshot.lower[..]) {
        // A whole copy.
        (None, _) => layer(&snapshot.upper).and_then(read_only),
        // An overlay needs two at least.
        (Some(_), [only]) => layer(only).and_then(read_only),
        (Some(_), layers) if remap.is_some() => {
            let mapped = layers.iter().map(layer).collect::<Result<_, _>>().and_then(overlay);
            // Before Linux 6.15 mapped layers need a place: there the files are nobody's, for all to read that may.
            mapped.or_else(|_| opened(layers).and_then(overlay))
        }
        (Some(_), layers) => opened(layers).and_then(overlay),
    };
    mounted.map_err(|source| Error::Io { operation: "mount an image".into(), source })
}

fn read_only(tree: OwnedFd) -> std::io::Result<OwnedFd> {
    let read_only = mount::Attributes { set: mount::attr::RDONLY, ..Default::default() };
    mount::set_attributes(&tree, read_only, None)?;
    Ok(tree)
}

fn opened(layers: &[PathBuf]) -> std::io::Result<Vec<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |layer: &PathBuf| rustix::fs::open(layer, flags, Mode::empty());
    Ok(layers.iter().map(open).collect::<Result<_, _>>()?)
}

/// By descriptor: the kernel takes at most 255 bytes for one value.
fn overlay(held: Vec<OwnedFd>) -> std::io::Result<OwnedFd> {
    let names: Vec<String> =
        held.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).collect();
    let make = |lower: Vec<Parameter>| {
        let mut all = lower;
        for key in ["metacopy", "redirect_dir", "index", "xino"] {
            all.push(Parameter::value(key, "off")?);
        }
        mount::new_filesystem("overlay", &all, mount::attr::RDONLY)
    };
    let each = names.iter().map(|name| Parameter::value("lowerdir+", name.as_str()));
    match make(each.collect::<Result<_, _>>()?) {
        // Before Linux 6.8.
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
            make(vec![Parameter::value("lowerdir", names.join(":"))?])
        }
        other => other,
    }
}

/// A detached mount of a path of the host, which must exist.
pub fn host_path(path: &Path, recursive: bool) -> Result<OwnedFd, Error> {
    mount::clone_at(rustix::fs::CWD, path, recursive).map_err(|error| {
        let why = berth_runtime::launch::describe(&error);
        Error::InvalidParameter(format!("cannot mount {}: {why}", path.display()))
    })
}

/// Makes a directory and those above it, which belong to `owner`. On failure, Docker's words.
fn make_owned(path: &Path, owner: Option<(u32, u32)>) -> Result<(), Error> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    for made in missing.into_iter().rev() {
        let (what, done) = match (std::fs::create_dir(made), owner) {
            (Ok(()), Some((uid, gid))) => ("lchown", std::os::unix::fs::lchown(made, Some(uid), Some(gid))),
            // Somebody else was faster.
            (Err(_), _) if made.is_dir() => continue,
            (done, _) => ("mkdir", done),
        };
        done.map_err(|error| {
            let (path, made) = (path.display(), made.display());
            let why = berth_runtime::launch::describe(&error);
            Error::Volume(format!("error while creating mount source path '{path}': {what} {made}: {why}"))
        })?;
    }
    Ok(())
}

fn is_missing(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
}

fn failed(operation: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let operation = format!("{operation} {}", path.display());
    move |source| Error::Io { operation, source }
}

/// A volume's directory belongs to root and is open to all; what is above it is closed.
fn make_volume(path: &Path, root: Option<(u32, u32)>) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o701).create(parent)?;
    }
    std::fs::create_dir_all(path)?;
    if let Some((uid, gid)) = root {
        std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// Refuses a container whose bind sources must exist and do not.
pub fn check(definition: &Definition) -> Result<(), Error> {
    for plan in &definition.mounts {
        if let MountSource::Bind { path, create: false, .. } = &plan.source
            && !path.exists()
        {
            return Err(Error::InvalidParameter(missing_bind(path)));
        }
    }
    Ok(())
}

fn missing_bind(path: &Path) -> String {
    format!("invalid mount config for type \"bind\": bind source path does not exist: {}", path.display())
}
