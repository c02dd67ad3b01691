//! A container's root with all that is mounted in it, whether it runs or not.

use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_runtime::launch::GeneratedFile;
use berth_runtime::view::{self, Parts as Mounts, assemble};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::blocking::blocking;
use crate::container::Container;
use crate::container::state::State;
use crate::create::mounts::MountSource;
use crate::engine::Parts;
use crate::life::sources::{self, Seen};
use crate::life::start::{self, GENERATED};
use crate::{Error, spec};

use super::lent::Lent;

/// A container's files, and the volumes that are mounted for them alone.
pub struct View {
    files: view::View,
    _volumes: Option<Lent>,
}

impl Deref for View {
    type Target = view::View;

    fn deref(&self) -> &view::View {
        &self.files
    }
}

/// How long the end of a container is waited for that runs by name, but has no process any more.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the files of a container. The caller holds its gate, so that it cannot start meanwhile.
pub async fn open(parts: &Arc<Parts>, container: &Arc<Container>) -> Result<View, Error> {
    let mut life = container.life();
    loop {
        // Before the state is looked at: what changes after that is noticed.
        life.mark_unchanged();
        match container.state() {
            State::Removing => {
                let id = container.id();
                return Err(Error::Conflict(format!("container {id} is being removed")));
            }
            State::Running(running) => {
                if let Some(view) = of_process(parts, container, running.pid).await? {
                    return Ok(view);
                }
                // It has just ended, which its owner is about to notice.
                if tokio::time::timeout(PATIENCE, life.changed()).await.is_err() {
                    return Err(Error::NotRunning(container.id().to_owned()));
                }
            }
            _ => return at_rest(parts, container).await,
        }
    }
}

/// The files as a container's first process sees them; none if it has ended.
async fn of_process(parts: &Arc<Parts>, container: &Arc<Container>, pid: i32) -> Result<Option<View>, Error> {
    let cgroup = parts.cgroup(container)?;
    let mappings = parts.remap(&container.definition.host).map(|remap| remap.mappings.clone());
    blocking(move || {
        let Some(process) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        else {
            return Ok(None);
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty());
        let namespace =
            rustix::fs::open(format!("/proc/{pid}/ns/mnt"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        // A process that is in the cgroup now, and has had its number since before its root was opened, is the one.
        let is_its = cgroup.pids()?.contains(&pid) && is_alive(&process);
        match (root, namespace) {
            (Ok(root), Ok(namespace)) if is_its => {
                Ok(Some(View { files: view::View { root, namespace, mappings }, _volumes: None }))
            }
            // One that is ending has let go of its root before its end can be seen.
            (Err(Errno::NOENT | Errno::SRCH), _) | (_, Err(Errno::NOENT | Errno::SRCH)) => Ok(None),
            (Err(source), _) | (_, Err(source)) if is_its => {
                let operation = format!("open the root of process {pid}");
                Err(Error::Io { operation, source: source.into() })
            }
            _ => Ok(None),
        }
    })
    .await
}

/// A process that ended makes its descriptor readable.
fn is_alive(process: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

/// The files of a container that does not run, mounted for as long as the view is held.
async fn at_rest(parts: &Arc<Parts>, container: &Arc<Container>) -> Result<View, Error> {
    let definition = &container.definition;
    let all = spec::planned_mounts(definition)?;
    let mounts = all.mounts;
    // Each view is a user of its own: they end in any order.
    let lent = Lent::new(parts, "view")?;
    let (rootfs, owners) = start::rootfs(parts, container)?;
    // A copy with owners of its own is looked at from outside, as that of a running container.
    let place = if owners.is_some() { Seen::Inside } else { Seen::Outside };
    let seen = parts.remap(&definition.host).cloned().map(place);
    // What a build lends is there for the run alone.
    let kept = all.sources.iter().filter(|(_, plan)| !matches!(plan.source, MountSource::Lent { .. }));
    let planned: Vec<_> = kept.copied().collect();
    let (indices, fds) = sources::open(parts, container.id(), lent.user(), &planned, seen).await?;
    let directory = parts.storage.container_dir(container.id())?;
    let taken = |target: &str| mounts.iter().any(|mount| mount.destination() == Path::new(target));
    // Those that its last run had.
    let made = GENERATED.iter().filter(|(name, target)| directory.join(name).exists() && !taken(target));
    let read_only = definition.host.readonly_rootfs;
    // Docker makes it when the container is created, so that files can be put there before the first start.
    let created = matches!(container.state(), State::Created { .. });
    let working_directory = Some(PathBuf::from(&definition.config.working_dir)).filter(|_| created);
    let files: Vec<GeneratedFile> = made
        .map(|(name, target)| GeneratedFile {
            source: directory.join(name),
            target: target.into(),
            read_only,
        })
        .collect();
    blocking(move || {
        let mut fds: Vec<Option<OwnedFd>> = fds.into_iter().map(Some).collect();
        let binds =
            indices.iter().filter_map(|(mount, fd)| Some((mounts.get(*mount)?, fds.get_mut(*fd)?.take()?)));
        let binds = binds.collect();
        let working_directory = working_directory.as_deref().filter(|path| path.is_absolute());
        let owner = owners.as_ref().and_then(|owners| owners.outside(0, 0));
        let mounts = Mounts { rootfs: &rootfs, binds, working_directory, files: &files, read_only, owner };
        let files = assemble(&mounts).map_err(|error| Error::Io {
            operation: "mount the container's files".into(),
            source: std::io::Error::other(error.message),
        })?;
        let files = view::View { mappings: owners.as_deref().cloned(), ..files };
        Ok(View { files, _volumes: Some(lent) })
    })
    .await
}
