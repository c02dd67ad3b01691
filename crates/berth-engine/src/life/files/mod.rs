//! Files into and out of containers: what `docker cp` asks for.
//!
//! A container's root is one descriptor, and every path is walked inside it by the kernel; see [`berth_archive::copy`].

mod gate;
mod lent;
mod stream;
pub(super) mod view;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use berth_api::container::PathStat;
use berth_archive::copy::{self, Options, Owner, path};
use berth_archive::decompress;
use berth_sys::process::with_file_ids;
use bytes::Bytes;
use futures_util::Stream;
use rustix::fs::{FileType, OFlags, StatVfsMountFlags};

use crate::blocking::blocking;
use crate::container::Container;
use crate::create::mounts::MountPlan;
use crate::event::ContainerEvent;
use crate::pieces::ArchiveStream;
use crate::{Engine, Error, op};

use gate::Copying;
pub use gate::Gate;
use lent::Lent;
use view::View;

impl Engine {
    /// What stands at a path of a container.
    pub async fn stat_path(&self, name: &str, path: &str) -> Result<PathStat, Error> {
        let container = self.parts.containers.find(name)?;
        let access = self.access(&container).await?;
        let place = Place { container: name.to_owned(), path: path.to_owned() };
        blocking(move || access.used(|view| place.stat(view, place.path.as_bytes()))).await
    }

    /// A tar of a path of a container, and what stands there. As Docker has it, the tar's names begin with the last
    /// part of the path, which is `.` for what a directory holds.
    pub async fn archive_path(&self, name: &str, path: &str) -> Result<(PathStat, ArchiveStream), Error> {
        let container = self.parts.containers.find(name)?;
        let access = self.access(&container).await?;
        let place = Place { container: name.to_owned(), path: path.to_owned() };
        let whole = path::preserved(path::absolute(path.as_bytes()), path.as_bytes());
        let (stat, access, whole) =
            blocking(move || Ok((place.stat(&access.view, &whole)?, access, whole))).await?;
        let thread = self.parts.paced.place().await?;
        let (mut out, archive) = stream::out(access.copying.link(), self.parts.ending.clone());
        let parts = Arc::clone(&self.parts);
        let name = match path::base(&whole) {
            b"/" => Vec::new(),
            base => base.to_vec(),
        };
        parts.events.publish(container.event(ContainerEvent::ArchivePath));
        thread.start(move || {
            let (root, ids) = (access.view.root.as_fd(), access.view.mappings.as_ref());
            let packed = copy::pack_inside(root, &whole, &name, &mut out, ids);
            if let Err(error) = packed.map_err(io::Error::other).and_then(|()| out.send()) {
                tracing::debug!(container = container.id(), %error, "a copy ended early");
                out.carrier().fail(error);
            }
            // The files are let go before the client sees the end.
            drop(access);
        })?;
        Ok((stat, archive))
    }

    /// Unpacks a tar, compressed or not, into a directory of a container.
    pub async fn extract_to_dir(
        &self,
        name: &str,
        extract: op::Extract,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
    ) -> Result<(), Error> {
        let container = self.parts.containers.find(name)?;
        let access = self.access(&container).await?;
        let place = Place { container: name.to_owned(), path: extract.path.clone() };
        let reader = stream::into(access.copying.link(), self.parts.ending.clone(), archive);
        let target = Arc::clone(&container);
        let unpack = move || access.used(|view| place.extract(view, &target, &extract, reader));
        self.parts.paced.run(unpack).await?;
        self.parts.events.publish(container.event(ContainerEvent::ExtractToDir));
        Ok(())
    }

    async fn access(&self, container: &Arc<Container>) -> Result<Access, Error> {
        let (parts, container) = (Arc::clone(&self.parts), Arc::clone(container));
        // What is being mounted for a client that goes away is given back.
        let opened = tokio::spawn(async move {
            let copying = container.gate.enter().await;
            let view = container.gate.view(view::open(&parts, &container)).await?;
            let lent = lent::lend(&parts, &container).await?;
            Ok(Access { view, _lent: lent, copying })
        });
        opened.await.unwrap_or_else(|_| Err(Error::Unavailable("the engine is ending".into())))
    }
}

/// A container's files while they are copied. They are let go before their volumes, and these before the gate is left.
struct Access {
    view: Arc<View>,
    _lent: Option<Lent>,
    copying: Copying,
}

impl Access {
    /// Looks at the files, and lets them go on the same thread.
    fn used<T>(self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.view)
    }
}

/// What a request names, in its own words.
struct Place {
    container: String,
    path: String,
}

impl Place {
    /// In Docker's words; `what` is the call that Go would have made.
    fn failed(&self, what: &str, path: &[u8], error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::NotFound {
            return Error::NoSuchFile { path: self.path.clone(), container: self.container.clone() };
        }
        let reason = berth_runtime::launch::describe(&error);
        Error::Files(format!("{what} {}: {reason}", String::from_utf8_lossy(path)))
    }

    fn stat(&self, view: &View, path: &[u8]) -> Result<PathStat, Error> {
        let root = view.root.as_fd();
        let found = copy::look(root, path).map_err(|error| self.failed("lstat", path, error))?;
        let target = if found.kind() == FileType::Symlink {
            copy::follow(root, path).map_err(|error| self.failed("readlink", path, error))?
        } else {
            Vec::new()
        };
        let stat = &found.stat;
        let (seconds, nanoseconds) = (stat.st_mtime, i32::try_from(stat.st_mtime_nsec).unwrap_or(0));
        Ok(PathStat {
            name: String::from_utf8_lossy(path::base(path)).into_owned(),
            size: stat.st_size,
            mode: PathStat::mode_of(stat.st_mode),
            mtime: jiff::Timestamp::new(seconds, nanoseconds).ok().into(),
            link_target: String::from_utf8_lossy(&target).into_owned(),
        })
    }

    fn extract(
        &self,
        view: &View,
        container: &Container,
        extract: &op::Extract,
        reader: impl io::Read,
    ) -> Result<(), Error> {
        let root = view.root.as_fd();
        let given = path::absolute(self.path.as_bytes());
        let resolved = copy::follow(root, &given).map_err(|error| self.failed("lstat", &given, error))?;
        let whole = path::preserved(resolved.clone(), self.path.as_bytes());
        let found = copy::look(root, &whole).map_err(|error| self.failed("lstat", &whole, error))?;
        if found.kind() != FileType::Directory {
            return Err(Error::InvalidParameter("extraction point is not a directory".into()));
        }
        let directory = copy::opened(found.location(), b".", OFlags::PATH | OFlags::DIRECTORY)
            .and_then(|directory| Ok(rustix::fs::fstatvfs(&directory)?))
            .map_err(|error| self.failed("statfs", &whole, error))?;
        if directory.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(Error::InvalidParameter(read_only(&container.definition.mounts, &resolved).into()));
        }
        let options = Options {
            replace: extract.replace,
            atomic: true,
            owner: owner(view, container, extract)?,
            ids: view.mappings.clone(),
            ..Options::default()
        };
        let reader = decompress::reader(reader)?;
        let Some((uid, gid)) = view.mappings.as_ref().and_then(|mappings| mappings.outside(0, 0)) else {
            return Ok(copy::unpack(root, &resolved, &options, reader)?);
        };
        // Nobody outside of the container's users can make anything in its root.
        let unpacked = with_file_ids(uid, gid, || Ok(copy::unpack(root, &resolved, &options, reader)));
        let refused = |error: io::Error| self.failed("setfsuid", &whole, error);
        Ok(unpacked.map_err(refused)??)
    }
}

/// To whom new files belong.
fn owner(view: &View, container: &Container, extract: &op::Extract) -> Result<Owner, Error> {
    let user = &container.definition.config.user;
    if !extract.own || user.is_empty() {
        return Ok(Owner::Archive);
    }
    let user = berth_runtime::user::resolve(view.root.as_fd(), user, &[])
        .map_err(|error| Error::InvalidParameter(error.to_string()))?;
    Ok(Owner::Fixed(user.uid, user.gid))
}

/// Docker's words for what cannot be written.
fn read_only(mounts: &[MountPlan], path: &[u8]) -> &'static str {
    let below = |plan: &&MountPlan| {
        let rest = path.strip_prefix(plan.destination.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    if mounts.iter().any(|plan| below(&plan)) {
        "mounted volume is marked read-only"
    } else {
        "container rootfs is marked read-only"
    }
}
