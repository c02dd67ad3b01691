//! Making a container, and joining one: what the shim and the OCI command line call.
//!
//! Everything that can be computed or opened is, before the clone: the child shares the parent's memory until it
//! writes to it. The calling process must have one thread only.

pub(crate) mod channel;
pub(crate) mod error;
mod join;
pub(crate) mod plan;
pub(crate) mod remapped;
mod types;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::process::{self, Fork, flags};
use berth_sys::socket;
use oci_spec::runtime::{Hooks, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions};

use self::channel::{Order, Report};
use self::error::Context;
pub use self::error::{Stage, StartError, describe};
use self::plan::{Namespaces, ProcessPlan};
use self::remapped::Remapped;
pub use self::types::{
    ExecLaunch, GROUPS_ANNOTATION, GeneratedFile, HookView, Launch, NetworkMode, Release, ReleaseMode,
    Rootfs, Stdio, USER_ANNOTATION,
};
use crate::cgroup::{self, Join, Layout, Manager};
use crate::hooks;
use crate::ids::Mappings;
use crate::init::{self, ContainerPlan, JoinPlan};

/// A container's first process, cloned and busy with its set-up.
#[derive(Debug)]
pub struct Init {
    /// Process ID, in the caller's PID namespace.
    pub pid: i32,
    /// Descriptor of the process.
    pub pidfd: OwnedFd,
    sync: OwnedFd,
    awaits: bool,
    two_phases: bool,
    hooks: Option<Hooks>,
    state: String,
}

/// The container's program runs, or (with [`ReleaseMode::ExecFifo`]) waits only for [`start`].
#[derive(Debug)]
pub struct Started {
    /// Master of the pseudo-terminal, if the configuration asked for one.
    pub console: Option<OwnedFd>,
}

/// A process that joined a container runs its program.
#[derive(Debug)]
pub struct ExecStarted {
    /// Process ID, in the caller's PID namespace.
    pub pid: i32,
    /// Descriptor of the process.
    pub pidfd: OwnedFd,
    /// Master of the pseudo-terminal, if asked for.
    pub console: Option<OwnedFd>,
}

/// Clones a container's init, which sets itself up at once.
///
/// Makes the cgroup of `linux.cgroupsPath` with the configuration's resources first, if it does not exist; on failure it is removed
/// again. `fds` are the detached mounts that [`Launch::mount_fds`] counts. The caller is the parent: it must
/// wait for the process, also after an error of [`Init::release`]. Fails with `EBUSY` in a process with several threads.
pub fn clone(launch: &Launch, fds: Vec<OwnedFd>, stdio: Stdio) -> Result<Init, StartError> {
    plan::refuse_unsupported(&launch.spec)?;
    let spec = &launch.spec;
    let configured = spec.process().as_ref();
    let configured = configured.ok_or_else(|| StartError::new(Stage::Configuration, "process is missing"))?;
    let filter = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let user = plan::annotated_user(spec);
    let process = ProcessPlan::new(configured, user, filter, launch.terminal, launch.die_with_parent)?;
    let mut namespaces = Namespaces::new(spec)?;
    let host = plan::host_tree(launch, &fds)?;
    let sources = plan::bind_sources(launch, fds)?;
    remapped::map_sources(launch, &sources, namespaces.user.as_ref())?;
    let remapped = Remapped::prepare(launch, namespaces.user.take())?;
    if let Some(remapped) = &remapped {
        remapped::hand_over(&stdio, &remapped.mappings);
    }
    let fifo = match &launch.release {
        ReleaseMode::Execute => None,
        ReleaseMode::ExecFifo(path) => Some(open_fifo(path)?),
    };
    let (sync, theirs) = socket::pair().context(Stage::Protocol, || "make a socket pair")?;
    let mut cgroup = ContainerCgroup::enter(spec)?;
    let plan = ContainerPlan {
        launch,
        process,
        namespaces,
        remapped,
        sources,
        cgroup: cgroup.join.take(),
        layout: Layout::current().ok(),
        stdio,
        fifo,
        sync: theirs,
        host,
        state: state(launch, "created", None),
    };
    let (pid, pidfd, sync) = match clone_init(&plan, sync) {
        Ok(cloned) => cloned,
        Err(error) => {
            cgroup.undo();
            return Err(error);
        }
    };
    let hooks = if init::has_runtime_hooks(launch) { spec.hooks().clone() } else { None };
    let awaits = launch.network == NetworkMode::Await;
    let two_phases = launch.release != ReleaseMode::Execute;
    Ok(Init { pid, pidfd, sync, awaits, two_phases, hooks, state: state(launch, "creating", Some(pid)) })
}

/// Returns in the parent only.
fn clone_init(plan: &ContainerPlan<'_>, ours: OwnedFd) -> Result<(i32, OwnedFd, OwnedFd), StartError> {
    let cgroup = plan.cgroup.as_ref().and_then(Join::directory);
    let pid_namespace = plan.namespaces.pid.as_ref().map(AsFd::as_fd);
    let joined = plan.remapped.as_ref().and_then(|remapped| remapped.joined.as_ref());
    let forked = match joined {
        Some(user) => join::fork_into(user.as_fd(), pid_namespace, &plan.namespaces, cgroup),
        None => fork_into(pid_namespace, plan.namespaces.new, cgroup),
    };
    match forked? {
        Fork::Parent { pid, pidfd } => {
            if let Some(remapped) = &plan.remapped
                && let Err(error) = adopt(remapped, plan, pid, &ours)
            {
                reap(&pidfd);
                return Err(error);
            }
            Ok((pid, pidfd, ours))
        }
        Fork::Child => {
            // With a copy of the parent's end, init would never see its parent go.
            drop(ours);
            init::run(plan)
        }
    }
}

/// Finishes the user namespace of a new init, and lets it go on.
fn adopt(remapped: &Remapped, plan: &ContainerPlan<'_>, pid: i32, ours: &OwnedFd) -> Result<(), StartError> {
    remapped.adopt(pid, &plan.process)?;
    channel::send(ours, &Order::Mapped, &[]).context(Stage::Protocol, || "tell init of its namespace")
}

/// Clones; with `pid_namespace`, a descriptor of one or a pidfd of a process in it, the child is born there.
fn fork_into(
    pid_namespace: Option<BorrowedFd<'_>>,
    new: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Fork, StartError> {
    let what = || "clone";
    let Some(target) = pid_namespace else {
        return process::clone3(new, cgroup).context(Stage::Namespaces, what);
    };
    let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .context(Stage::Namespaces, || "open the own process")?;
    process::setns(target, flags::NEWPID).context(Stage::Namespaces, || "join the PID namespace")?;
    let forked = process::clone3(new, cgroup).context(Stage::Namespaces, what);
    if !matches!(forked, Ok(Fork::Child)) {
        // Later children of this process are not the container's.
        process::setns(&own, flags::NEWPID).context(Stage::Namespaces, || "leave the PID namespace")?;
    }
    forked
}

/// The container's cgroup, and whether this launch made it.
struct ContainerCgroup {
    manager: Option<Manager>,
    made: bool,
    join: Option<Join>,
}

impl ContainerCgroup {
    fn enter(spec: &Spec) -> Result<Self, StartError> {
        let failed = |error: cgroup::Error| cgroup_error(&error);
        let linux = spec.linux().as_ref();
        let Some(path) = linux.and_then(|linux| linux.cgroups_path().as_deref()) else {
            return Ok(Self { manager: None, made: false, join: None });
        };
        let manager = Manager::for_path(&path.to_string_lossy()).map_err(failed)?;
        if manager.exists() {
            let join = manager.join().map_err(failed)?;
            return Ok(Self { manager: Some(manager), made: false, join: Some(join) });
        }
        let resources = linux.and_then(|linux| linux.resources().clone()).unwrap_or_default();
        let join = manager.create(&resources).map_err(failed)?;
        Ok(Self { manager: Some(manager), made: true, join: Some(join) })
    }

    fn undo(self) {
        if let (Some(manager), true) = (self.manager, self.made)
            && let Err(error) = manager.remove()
        {
            tracing::warn!(%error, "a cgroup without a container stays");
        }
    }
}

fn cgroup_error(error: &cgroup::Error) -> StartError {
    StartError { errno: error.errno(), ..StartError::new(Stage::Cgroup, error.to_string()) }
}

/// The reading end of the FIFO that init waits at; there need not be a writer yet.
fn open_fifo(path: &Path) -> Result<OwnedFd, StartError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .context(Stage::Protocol, || format!("open {}", path.display()))
}

/// The container's state, as hooks read it (runtime specification, "State").
fn state(launch: &Launch, status: &str, pid: Option<i32>) -> String {
    let mut state = serde_json::json!({
        "ociVersion": launch.spec.version(),
        "id": launch.id,
        "status": status,
        "bundle": launch.bundle.as_deref().unwrap_or(Path::new("/")),
        "annotations": launch.spec.annotations().clone().unwrap_or_default(),
    });
    if let Some(pid) = pid {
        state["pid"] = pid.into();
    }
    state.to_string()
}

impl Init {
    /// The network namespace of the container, if init waits for its network ([`NetworkMode::Await`]); otherwise it may
    /// have run its program to the end by now.
    pub fn netns(&self) -> Result<Option<OwnedFd>, StartError> {
        if !self.awaits {
            return Ok(None);
        }
        let path = format!("/proc/{}/ns/net", self.pid);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&path, flags, Mode::empty());
        opened.map(Some).context(Stage::Network, || format!("open {path}"))
    }

    /// Kills init, and gives the reason if it had failed by itself before. Reap it then.
    pub fn abandon(self) -> Option<StartError> {
        // One that has ended already needs no signal.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        while let Ok(Some((report, _))) = channel::receive(&self.sync) {
            if let Report::Failed(error) = report {
                return Some(error);
            }
        }
        None
    }

    /// A descriptor that becomes readable when init has failed, started its program, or is ready for [`start`]:
    /// then [`Init::release`] does not block (with [`NetworkMode::FromSpec`]).
    pub fn progress(&self) -> BorrowedFd<'_> {
        self.sync.as_fd()
    }

    /// Lets init go on, and blocks until its program runs, or has failed to.
    ///
    /// With [`NetworkMode::Await`], init waits for this and configures the links; otherwise `links` is empty.
    /// After an error the process has ended or is about to; reap it.
    pub fn release(self, release: Release) -> Result<Started, StartError> {
        if self.awaits {
            // If init has failed already, its report says why.
            let _ = channel::send(&self.sync, &Order::Release(release), &[]);
        }
        let mut console = None;
        let mut ready = false;
        loop {
            match channel::receive(&self.sync).context(Stage::Protocol, || "wait for init")? {
                Some((Report::Failed(error), _)) => return Err(error),
                Some((Report::HooksDue, _)) => self.run_hooks()?,
                Some((Report::Ready, fds)) => {
                    ready = true;
                    console = fds.into_iter().next();
                    if self.two_phases {
                        return Ok(Started { console });
                    }
                }
                None if ready => return Ok(Started { console }),
                None => {
                    return Err(StartError::new(
                        Stage::Protocol,
                        "init was killed before its program started",
                    ));
                }
            }
        }
    }

    fn run_hooks(&self) -> Result<(), StartError> {
        let Some(configured) = &self.hooks else { return Ok(()) };
        #[allow(deprecated)]
        let prestart = configured.prestart();
        for list in [prestart, configured.create_runtime()].into_iter().flatten() {
            hooks::run(list, &self.state).map_err(|error| StartError::new(Stage::Hook, error.to_string()))?;
        }
        channel::send(&self.sync, &Order::Continue, &[]).context(Stage::Protocol, || "answer init")
    }
}

/// Lets a container that waits behind the FIFO of [`ReleaseMode::ExecFifo`] execute its program.
///
/// Fails if nothing waits there (`ENXIO`), or if the FIFO is gone.
pub fn start(fifo: &Path) -> Result<(), StartError> {
    let what = || format!("start by {}", fifo.display());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let end = rustix::fs::open(fifo, flags, Mode::empty()).context(Stage::Protocol, what)?;
    rustix::io::write(&end, b"0").map(drop).context(Stage::Protocol, what)
}

/// Starts another process in the container whose init `init_pidfd` refers to.
///
/// Blocks until its program runs or has failed to. The caller is the parent and must wait for the process; after an
/// error it has been reaped already.
pub fn exec(
    launch: &ExecLaunch,
    init_pidfd: BorrowedFd<'_>,
    stdio: Stdio,
) -> Result<ExecStarted, StartError> {
    exec_inner(launch, init_pidfd, stdio).map_err(StartError::during_exec)
}

fn exec_inner(
    launch: &ExecLaunch,
    init_pidfd: BorrowedFd<'_>,
    stdio: Stdio,
) -> Result<ExecStarted, StartError> {
    let filter = launch.seccomp.as_ref();
    let user = launch.user.clone().map(|user| plan::Named { user, groups: launch.groups.clone() });
    let process = ProcessPlan::new(&launch.process, user, filter, launch.terminal, launch.die_with_parent)?;
    let cgroup = match &launch.cgroups_path {
        Some(path) => {
            let manager = Manager::for_path(&path.to_string_lossy()).map_err(|error| cgroup_error(&error))?;
            Some(manager.join().map_err(|error| cgroup_error(&error))?)
        }
        None => None,
    };
    let (sync, theirs) = socket::pair().context(Stage::Protocol, || "make a socket pair")?;
    let mappings = process_of(init_pidfd).and_then(Mappings::of_process);
    let mappings = mappings.context(Stage::Namespaces, || "look at the container's user namespace")?;
    if let Some(mappings) = &mappings {
        remapped::hand_over(&stdio, mappings);
    }
    let remapped = mappings.is_some();
    let plan = JoinPlan { process, cgroup, stdio, sync: theirs, remapped, preserve_fds: launch.preserve_fds };
    let directory = plan.cgroup.as_ref().and_then(Join::directory);
    let (pid, pidfd) = match fork_into(Some(init_pidfd), 0, directory)? {
        Fork::Parent { pid, pidfd } => (pid, pidfd),
        Fork::Child => {
            drop(sync);
            init::join(&plan, init_pidfd)
        }
    };
    drop(plan);
    match await_exec(&sync) {
        Ok(console) => Ok(ExecStarted { pid, pidfd, console }),
        Err(error) => {
            reap(&pidfd);
            Err(error)
        }
    }
}

/// The process that a pidfd refers to, in the caller's PID namespace.
fn process_of(pidfd: BorrowedFd<'_>) -> std::io::Result<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.filter(|pid| *pid > 0).ok_or_else(|| rustix::io::Errno::SRCH.into())
}

fn await_exec(sync: &OwnedFd) -> Result<Option<OwnedFd>, StartError> {
    let mut console = None;
    let mut ready = false;
    loop {
        match channel::receive(sync).context(Stage::Protocol, || "wait for the process")? {
            Some((Report::Failed(error), _)) => return Err(error),
            Some((Report::Ready, fds)) => {
                ready = true;
                console = fds.into_iter().next();
            }
            Some((Report::HooksDue, _)) => {}
            None if ready => return Ok(console),
            None => {
                return Err(StartError::new(
                    Stage::Protocol,
                    "the process was killed before its program started",
                ));
            }
        }
    }
}

/// Makes sure that the process has ended, and takes its status.
fn reap(pidfd: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    let wait = || rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    let _ = rustix::io::retry_on_intr(wait);
}
