//! A container in a user namespace: what its init has no right to is made or opened before it is cloned, by its parent.
//!
//! Files keep the owners on the disk that they have inside: the layers, the engine's files and volumes come through
//! idmapped mounts (mount_setattr(2)), so that nothing is copied and everything else that reads them needs no mapping.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::mount::{self, Attributes, Parameter, attr, propagation};
use berth_sys::process::{self, Fork, flags};
use berth_sys::{socket, user_namespace};
use oci_spec::runtime::{LinuxDevice, Mount};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid};
use rustix::process::{Pid, Resource, Rlimit, WaitId, WaitIdOptions};

use super::channel;
use super::error::{Context, Stage, StartError};
use super::plan::ProcessPlan;
use super::{GeneratedFile, Launch, Rootfs, Stdio};
use crate::ids::{self, Mappings};
use crate::init::{self, DeviceNode};

/// What init is handed.
pub(crate) struct Remapped {
    /// Who is who.
    pub mappings: Mappings,
    /// An existing namespace, which is joined.
    pub joined: Option<OwnedFd>,
    /// The root, detached.
    pub root: OwnedFd,
    /// The engine's files, detached, in the order of [`Launch::generated`].
    pub generated: Vec<OwnedFd>,
    /// A detached file system with the device nodes, whose names are their indices in `nodes`.
    pub devices: OwnedFd,
    /// The device nodes, and where they go.
    pub nodes: Vec<DeviceNode>,
}

impl Remapped {
    /// Prepares a launch with a user namespace; none without.
    pub fn prepare(launch: &Launch, joined: Option<OwnedFd>) -> Result<Option<Self>, StartError> {
        let Some(mappings) = ids::of_spec(&launch.spec) else { return Ok(None) };
        check(&mappings)?;
        let root = mappings.outside(0, 0).ok_or_else(|| invalid("user namespaces need a mapping of root"))?;
        let namespace = match &joined {
            Some(joined) => joined.try_clone().context(Stage::Namespaces, || "copy a descriptor")?,
            None => namespace(&mappings)?,
        };
        let linux = launch.spec.linux().as_ref();
        let extra = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
        let (devices, nodes) = devices(extra, &mappings)?;
        Ok(Some(Self {
            root: make_root(launch, namespace.as_fd(), root)?,
            generated: generated(launch, namespace.as_fd())?,
            devices,
            nodes,
            joined,
            mappings,
        }))
    }

    /// Finishes the namespace of a process that was just cloned and waits for it: the mappings, and what only the
    /// parent may set.
    pub fn adopt(&self, pid: i32, plan: &ProcessPlan) -> Result<(), StartError> {
        if self.joined.is_none() {
            let (users, groups) = self.mappings.lines();
            for (file, text) in [("uid_map", users), ("gid_map", groups)] {
                std::fs::write(format!("/proc/{pid}/{file}"), text)
                    .context(Stage::Namespaces, || format!("write {file}"))?;
            }
        }
        if let Some(score) = plan.oom_score_adj {
            std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
                .context(Stage::Limits, || format!("set oom_score_adj to {score}"))?;
        }
        raise_limits(Pid::from_raw(pid), plan);
        Ok(())
    }
}

/// Raises the hard limits of a process to what it will set itself, to which it has no right in its namespace. Where even
/// the caller has none, the process says so.
pub(crate) fn raise_limits(process: Option<Pid>, plan: &ProcessPlan) {
    for (resource, wanted) in &plan.limits {
        let _ = raise(process, *resource, wanted.maximum);
    }
}

fn raise(process: Option<Pid>, resource: Resource, wanted: Option<u64>) -> rustix::io::Result<()> {
    // A process that was just cloned has its parent's.
    let present = rustix::process::getrlimit(resource);
    let is_higher = match (present.maximum, wanted) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(present), Some(wanted)) => wanted > present,
    };
    if is_higher {
        rustix::process::prlimit(process, resource, Rlimit { current: present.current, maximum: wanted })?;
    }
    Ok(())
}

/// Gives pipes at the standard descriptors to the root of the namespace, who could not open them again otherwise.
pub(crate) fn hand_over(stdio: &Stdio, mappings: &Mappings) {
    let Some((uid, gid)) = mappings.outside(0, 0) else { return };
    for fd in [&stdio.stdin, &stdio.stdout, &stdio.stderr] {
        let is_pipe = rustix::fs::fstat(fd).is_ok_and(|stat| {
            matches!(FileType::from_raw_mode(stat.st_mode), FileType::Fifo | FileType::Socket)
        });
        if is_pipe {
            // One that cannot be given away stays as it is.
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        }
    }
}

/// Maps the owners of detached mounts that ask for it with `idmap` or `ridmap`.
pub(crate) fn map_sources(
    launch: &Launch,
    sources: &[Option<OwnedFd>],
    joined: Option<&OwnedFd>,
) -> Result<(), StartError> {
    let container = ids::of_spec(&launch.spec);
    let mounts = launch.spec.mounts().as_deref().unwrap_or_default();
    for (mount, source) in mounts.iter().zip(sources) {
        let options = mount.options().as_deref().unwrap_or_default();
        let has = |name: &str| options.iter().any(|option| option == name);
        let recursive = has("ridmap");
        let Some(source) = source.as_ref().filter(|_| recursive || has("idmap")) else { continue };
        let what = || format!("map the owners of {}", mount.destination().display());
        let namespace = match (own_mappings(mount), joined, &container) {
            (Some(mappings), ..) => namespace(&mappings)?,
            (None, Some(joined), _) => joined.try_clone().context(Stage::Mount, what)?,
            (None, None, Some(mappings)) => namespace(mappings)?,
            (None, None, None) => return Err(invalid("idmap needs mappings, or a user namespace")),
        };
        map(source, namespace.as_fd(), recursive).context(Stage::Mount, what)?;
    }
    Ok(())
}

fn own_mappings(mount: &Mount) -> Option<Mappings> {
    let users = mount.uid_mappings().as_deref().filter(|mappings| !mappings.is_empty())?;
    let groups = mount.gid_mappings().as_deref().unwrap_or_default();
    Some(Mappings { users: ids::ranges(users), groups: ids::ranges(groups) })
}

fn invalid(message: &str) -> StartError {
    StartError::new(Stage::Configuration, message)
}

fn check(mappings: &Mappings) -> Result<(), StartError> {
    if mappings.users.is_empty() || mappings.groups.is_empty() {
        return Err(invalid("user namespaces enabled, but no uid or gid mappings found"));
    }
    Ok(())
}

/// A user namespace with these mappings, for mounts to take them from.
fn namespace(mappings: &Mappings) -> Result<OwnedFd, StartError> {
    let (users, groups) = mappings.lines();
    user_namespace::user_namespace(&users, &groups)
        .context(Stage::Namespaces, || "make a user namespace with the mappings")
}

fn map(tree: impl AsFd, namespace: BorrowedFd<'_>, recursive: bool) -> std::io::Result<()> {
    let change = Attributes { set: attr::IDMAP, recursive, ..Attributes::default() };
    mount::set_attributes(tree, change, Some(namespace))
}

fn make_root(launch: &Launch, namespace: BorrowedFd<'_>, root: (u32, u32)) -> Result<OwnedFd, StartError> {
    if !launch.idmap_root {
        return init::detached_root(&launch.rootfs);
    }
    let mapped = |path: &Path| -> Result<OwnedFd, StartError> {
        let what = || format!("map the owners of {}", path.display());
        let tree = mount::clone_at(CWD, path, false).context(Stage::Rootfs, what)?;
        map(&tree, namespace, false).context(Stage::Rootfs, what)?;
        Ok(tree)
    };
    match &launch.rootfs {
        Rootfs::Path(path) => {
            let tree = mapped(path)?;
            let private = Attributes { propagation: propagation::PRIVATE, ..Attributes::default() };
            mount::set_attributes(&tree, private, None).context(Stage::Rootfs, || "make the root private")?;
            Ok(tree)
        }
        Rootfs::Overlay { lower, upper, work, volatile } => {
            let layers: Vec<OwnedFd> = lower.iter().map(|path| mapped(path)).collect::<Result<_, _>>()?;
            // Both must be on one mount.
            let parent = upper.parent().filter(|parent| work.parent() == Some(parent));
            let parent = parent.ok_or_else(|| invalid("upper and work directory are apart"))?;
            let writable = mapped(parent)?;
            let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let overlay = init::MappedOverlay {
                lower: &layers,
                writable: &writable,
                upper: &name(upper),
                work: &name(work),
                host_work: work,
                volatile: *volatile,
            };
            overlay_elsewhere(&overlay, root)
        }
    }
}

/// Makes the overlay in a process with mounts of its own: before Linux 6.15 its layers need a place, which nobody else
/// is to see.
fn overlay_elsewhere(overlay: &init::MappedOverlay<'_>, root: (u32, u32)) -> Result<OwnedFd, StartError> {
    let what = || "make the overlay";
    let (ours, theirs) = socket::pair().context(Stage::Protocol, what)?;
    let maker = match process::clone3(flags::NEWNS, None).context(Stage::Namespaces, what)? {
        Fork::Parent { pidfd, .. } => pidfd,
        Fork::Child => {
            drop(ours);
            // The other end waits for it.
            let _ = match overlay.place_and_make(root) {
                Ok(made) => channel::send(&theirs, &Ok::<(), StartError>(()), &[made.as_fd()]),
                Err(error) => channel::send(&theirs, &Err::<(), StartError>(error), &[]),
            };
            process::exit_now(0)
        }
    };
    drop(theirs);
    let told = channel::receive::<Result<(), StartError>>(&ours).context(Stage::Protocol, what);
    let ended = || rustix::process::waitid(WaitId::PidFd(maker.as_fd()), WaitIdOptions::EXITED);
    let _ = rustix::io::retry_on_intr(ended);
    let lost = || StartError::new(Stage::Protocol, "the process that makes the overlay was killed");
    let (made, fds) = told?.ok_or_else(lost)?;
    made?;
    fds.into_iter().next().ok_or_else(lost)
}

fn generated(launch: &Launch, namespace: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, StartError> {
    let open = |file: &GeneratedFile| {
        let what = || format!("mount {} at {}", file.source.display(), file.target.display());
        let tree = init::clone_generated(file)?;
        if launch.idmap_root {
            map(&tree, namespace, false).context(Stage::Mount, what)?;
        }
        Ok(tree)
    };
    launch.generated.iter().map(open).collect()
}

/// Makes all device nodes in a file system of their own: in the namespace nobody can.
fn devices(extra: &[LinuxDevice], mappings: &Mappings) -> Result<(OwnedFd, Vec<DeviceNode>), StartError> {
    let nodes = init::device_nodes(extra)?;
    let what = || "make the device nodes";
    let mode = Parameter::value("mode", "0755").context(Stage::Device, what)?;
    let made = mount::new_filesystem("tmpfs", &[mode], attr::NOSUID | attr::NOEXEC);
    let made = made.context(Stage::Device, what)?;
    for (index, node) in nodes.iter().enumerate() {
        let what = || format!("error creating device node {}", node.path.display());
        let name = index.to_string();
        let (uid, gid) = mappings.outside(node.owner.0, node.owner.1).unwrap_or((0, 0));
        let mode = Mode::from_raw_mode(node.mode);
        let device = rustix::fs::makedev(node.major, node.minor);
        rustix::fs::mknodat(&made, &name, node.kind, mode, device).context(Stage::Device, what)?;
        rustix::fs::chmodat(&made, &name, mode, AtFlags::empty()).context(Stage::Device, what)?;
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(&made, &name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
            .context(Stage::Device, what)?;
    }
    Ok((made, nodes))
}
