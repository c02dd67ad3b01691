//! The process inside: from the clone to `execve`.
//!
//! It runs in the copy of a process with one thread, so it may allocate and use the standard library. Whatever
//! fails is sent to the parent as a [`StartError`]; the process then ends.

mod cgroupfs;
mod console;
mod copy_up;
mod devices;
mod mapped;
mod mounts;
mod options;
mod paths;
mod privileges;
mod program;
mod rootfs;
mod sysctl;
pub mod view;

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::beneath;
use berth_sys::mount::{self, Attributes, attr, propagation};
use berth_sys::process::{self, flags};
use oci_spec::runtime::{Hook, Hooks, Linux, LinuxPersonalityDomain};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, Mode};

use self::console::Console;
use self::mounts::Mounter;
use self::program::Program;
use crate::cgroup::{Join, Layout};
use crate::hooks;
use crate::launch::channel::{self, Order, Report};
use crate::launch::error::{Context, Stage, StartError};
use crate::launch::plan::{Namespaces, ProcessPlan};
use crate::launch::remapped::{Remapped, raise_limits};
use crate::launch::{GeneratedFile, Launch, NetworkMode, Release, Stdio};

pub(crate) use self::devices::{Node as DeviceNode, nodes as device_nodes};
pub(crate) use self::mapped::Overlay as MappedOverlay;
pub(crate) use self::rootfs::detached as detached_root;

/// What a container's first process works from; all of it was made before the clone.
pub(crate) struct ContainerPlan<'a> {
    pub launch: &'a Launch,
    pub process: ProcessPlan,
    pub namespaces: Namespaces,
    /// What was made for it beforehand, if it has a user namespace.
    pub remapped: Option<Remapped>,
    /// Detached bind sources by index of the mount.
    pub sources: Vec<Option<OwnedFd>>,
    pub cgroup: Option<Join>,
    pub layout: Option<&'static Layout>,
    pub stdio: Stdio,
    /// The reading end of the FIFO that start waits at.
    pub fifo: Option<OwnedFd>,
    pub sync: OwnedFd,
    /// The host's mounts, detached; see [`Launch::hook_view`].
    pub host: Option<OwnedFd>,
    /// The container's state as hooks read it.
    pub state: String,
}

/// What a process that joins a container works from.
pub(crate) struct JoinPlan {
    pub process: ProcessPlan,
    pub cgroup: Option<Join>,
    pub stdio: Stdio,
    pub sync: OwnedFd,
    /// Whether the container has a user namespace of its own.
    pub remapped: bool,
    /// See [`Launch::preserve_fds`].
    pub preserve_fds: u32,
}

/// Runs a container's first process.
pub(crate) fn run(plan: &ContainerPlan<'_>) -> ! {
    let Err(error) = start_container(plan);
    give_up(&plan.sync, error)
}

/// Runs a process that joins the namespaces of `target`, a pidfd.
pub(crate) fn join(plan: &JoinPlan, target: BorrowedFd<'_>) -> ! {
    let Err(error) = start_joined(plan, target);
    give_up(&plan.sync, error.during_exec())
}

fn give_up(sync: &OwnedFd, error: StartError) -> ! {
    let message = format!("{error}\n");
    if channel::send(sync, &Report::Failed(error), &[]).is_err() {
        // The parent has gone after `create`: the container's own stderr is all that is left.
        let _ = rustix::io::write(rustix::stdio::stderr(), message.as_bytes());
    }
    process::exit_now(1)
}

fn start_container(plan: &ContainerPlan<'_>) -> Result<Infallible, StartError> {
    if plan.remapped.is_some() {
        match channel::await_order(&plan.sync)? {
            Order::Mapped => privileges::become_root()?,
            Order::Release(_) | Order::Continue => {
                return Err(StartError::new(Stage::Protocol, "unexpected order before the mappings"));
            }
        }
    }
    enter_namespaces(plan)?;
    let Root { console, parameters } = make_root(plan)?;
    if plan.namespaces.own_network() || plan.launch.network == NetworkMode::Await {
        configure_network(plan, parameters)?;
    }
    let user = privileges::resolve(&plan.process)?;
    let command = Command { console, user, container: Some(plan) };
    execute(&plan.process, &plan.stdio, &plan.sync, command)
}

/// The cgroup first, since the cgroup namespace takes its root from it.
fn enter_namespaces(plan: &ContainerPlan<'_>) -> Result<(), StartError> {
    close_descriptors(plan.launch.preserve_fds)?;
    if let Some(cgroup) = &plan.cgroup {
        cgroup.enter_tasks().map_err(|error| StartError::new(Stage::Cgroup, error.to_string()))?;
    }
    if plan.namespaces.cgroup {
        process::unshare(flags::NEWCGROUP).context(Stage::Namespaces, || "make a cgroup namespace")?;
    }
    for (kind, namespace) in &plan.namespaces.joined {
        process::setns(namespace, *kind).context(Stage::Namespaces, || "join a namespace")?;
    }
    privileges::forget_ancestors()?;
    set_host_name(plan)
}

/// Keeps what this process has open from the program, but for the standard descriptors and the `preserved` ones after them.
fn close_descriptors(preserved: u32) -> Result<(), StartError> {
    let first = i32::try_from(preserved).ok().and_then(|count| count.checked_add(3)).unwrap_or(i32::MAX);
    process::set_cloexec_from(first).context(Stage::Namespaces, || "close descriptors")
}

fn set_host_name(plan: &ContainerPlan<'_>) -> Result<(), StartError> {
    let spec = &plan.launch.spec;
    if !plan.namespaces.own_uts() {
        return Ok(());
    }
    if let Some(name) = spec.hostname() {
        rustix::system::sethostname(name.as_bytes())
            .context(Stage::Namespaces, || format!("sethostname {name:?}"))?;
    }
    if let Some(name) = spec.domainname() {
        rustix::system::setdomainname(name.as_bytes())
            .context(Stage::Namespaces, || format!("setdomainname {name:?}"))?;
    }
    Ok(())
}

/// Everything about files, up to the change of root.
/// What is left to do with once the root is made.
struct Root {
    console: Option<Console>,
    /// Parameters of the network namespace, open since before `/proc/sys` became read-only; if links are awaited.
    parameters: Option<OwnedFd>,
}

fn make_root(plan: &ContainerPlan<'_>) -> Result<Root, StartError> {
    let spec = &plan.launch.spec;
    let linux = spec.linux().clone().unwrap_or_default();
    // Modes are as the configuration says, whatever mask the engine was started with.
    rustix::process::umask(Mode::empty());
    rootfs::isolate_propagation()?;
    let nodes = plan.remapped.as_ref().map(mapped::take_devices).transpose()?;
    let root = match &plan.remapped {
        Some(remapped) => rootfs::prepared(&remapped.root)?,
        None => rootfs::make(&plan.launch.rootfs)?,
    };
    match (&plan.host, &plan.launch.hook_view) {
        (Some(host), Some(view)) => rootfs::attach_within(&root, host.as_fd(), &view.root)?,
        _ => rootfs::attach(&root)?,
    }
    let root = root.mount.as_fd();
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let mounter = Mounter {
        root,
        sources: &plan.sources,
        hierarchies: plan.layout,
        cgroup_namespace: plan.namespaces.cgroup,
        cgroup_path: linux.cgroups_path().as_deref(),
    };
    let mounted = mounter.mount_all(mounts)?;
    for (index, file) in plan.launch.generated.iter().enumerate() {
        if mounts.iter().any(|mount| mount.destination() == &file.target) {
            continue;
        }
        match plan.remapped.as_ref().and_then(|remapped| remapped.generated.get(index)) {
            Some(tree) => attach_generated(root, file, tree)?,
            None => bind_generated(root, file)?,
        }
    }
    let own_dev = devices::is_own(mounts);
    if own_dev {
        let pts = mounted.devpts.is_some();
        match &nodes {
            Some(nodes) => devices::bind(root, nodes, pts)?,
            None => devices::make(root, linux.devices().as_deref().unwrap_or_default(), pts)?,
        }
    }
    let console = make_console(plan, root, mounted.devpts.as_ref(), own_dev)?;
    if let Some(dev) = &mounted.dev {
        dev.make_read_only()?;
    }
    write_sysctls(&linux, mounted.proc.as_ref())?;
    let parameters = match &mounted.proc {
        Some(proc) if plan.launch.network == NetworkMode::Await => Some(sysctl::of_network(proc.as_fd())?),
        _ => None,
    };
    runtime_hooks(plan)?;
    container_hooks(plan)?;
    privileges::make_working_directory(root, &plan.process.cwd)?;
    paths::make_read_only(root, linux.readonly_paths().as_deref().unwrap_or_default())?;
    paths::mask(root, linux.masked_paths().as_deref().unwrap_or_default())?;
    rootfs::pivot(root)?;
    let read_only = spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false);
    rootfs::finish(root, read_only, linux.rootfs_propagation().as_deref())?;
    set_personality(&linux)?;
    Ok(Root { console, parameters })
}

fn bind_generated(root: BorrowedFd<'_>, file: &GeneratedFile) -> Result<(), StartError> {
    attach_generated(root, file, &clone_generated(file)?)
}

/// A file of the engine's own as a detached mount.
pub(crate) fn clone_generated(file: &GeneratedFile) -> Result<OwnedFd, StartError> {
    let what = || format!("mount {} at {}", file.source.display(), file.target.display());
    let tree = mount::clone_at(CWD, &file.source, false).context(Stage::Mount, what)?;
    let set = if file.read_only { attr::RDONLY } else { 0 };
    let change = Attributes { set, propagation: propagation::PRIVATE, ..Attributes::default() };
    mount::set_attributes(&tree, change, None).context(Stage::Mount, what)?;
    Ok(tree)
}

fn attach_generated(root: BorrowedFd<'_>, file: &GeneratedFile, tree: &OwnedFd) -> Result<(), StartError> {
    let what = || format!("mount {} at {}", file.source.display(), file.target.display());
    let target =
        beneath::make_file(root, &file.target, Mode::from_raw_mode(0o644)).context(Stage::Mount, what)?;
    mount::attach(tree, &target).context(Stage::Mount, what)
}

fn make_console(
    plan: &ContainerPlan<'_>,
    root: BorrowedFd<'_>,
    devpts: Option<&OwnedFd>,
    bind: bool,
) -> Result<Option<Console>, StartError> {
    let Some(size) = plan.process.terminal else { return Ok(None) };
    let console = match devpts {
        Some(devpts) => Console::new(devpts.as_fd(), size)?,
        None => Console::new(Console::devpts(root)?.as_fd(), size)?,
    };
    if bind {
        console.bind(root)?;
    }
    Ok(Some(console))
}

fn write_sysctls(linux: &Linux, proc: Option<&OwnedFd>) -> Result<(), StartError> {
    let Some(parameters) = linux.sysctl().as_ref().filter(|parameters| !parameters.is_empty()) else {
        return Ok(());
    };
    match proc {
        Some(proc) => sysctl::write(proc.as_fd(), parameters),
        None => {
            let attributes = attr::NOSUID | attr::NODEV | attr::NOEXEC;
            let proc =
                mount::new_filesystem("proc", &[], attributes).context(Stage::Sysctl, || "make a procfs")?;
            sysctl::write(proc.as_fd(), parameters)
        }
    }
}

fn set_personality(linux: &Linux) -> Result<(), StartError> {
    /// `PER_LINUX32` of `linux/personality.h`.
    const LINUX32: u32 = 8;
    let Some(personality) = linux.personality() else { return Ok(()) };
    let domain = match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => LINUX32,
    };
    process::personality(domain).context(Stage::Privileges, || "set the execution domain")
}

/// Has the parent run the hooks that belong to its namespaces.
fn runtime_hooks(plan: &ContainerPlan<'_>) -> Result<(), StartError> {
    if !has_runtime_hooks(plan.launch) {
        return Ok(());
    }
    channel::send(&plan.sync, &Report::HooksDue, &[]).context(Stage::Protocol, || "report to the parent")?;
    match channel::await_order(&plan.sync)? {
        Order::Continue => Ok(()),
        Order::Release(_) | Order::Mapped => {
            Err(StartError::new(Stage::Protocol, "unexpected order before the hooks"))
        }
    }
}

/// Runs the hooks whose programs are the host's, in the container's namespaces.
fn container_hooks(plan: &ContainerPlan<'_>) -> Result<(), StartError> {
    /// What programs expect that do not set it themselves.
    const USUAL: Mode = Mode::from_raw_mode(0o022);
    let before = rustix::process::umask(USUAL);
    let run = || run_hooks(plan.launch.spec.hooks(), Hooks::create_container, &plan.state);
    let outcome = match &plan.host {
        Some(host) => rootfs::within(host.as_fd(), run),
        None => run(),
    };
    rustix::process::umask(before);
    outcome
}

/// Whether the parent has hooks to run while init waits.
pub(crate) fn has_runtime_hooks(launch: &Launch) -> bool {
    let Some(hooks) = launch.spec.hooks() else { return false };
    #[allow(deprecated)]
    let prestart = hooks.prestart();
    [prestart, hooks.create_runtime()].iter().any(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
}

fn run_hooks(
    hooks: &Option<Hooks>,
    kind: impl Fn(&Hooks) -> &Option<Vec<Hook>>,
    state: &str,
) -> Result<(), StartError> {
    match hooks.as_ref().and_then(|hooks| kind(hooks).as_ref()) {
        Some(list) => {
            hooks::run(list, state).map_err(|error| StartError::new(Stage::Hook, error.to_string()))
        }
        None => Ok(()),
    }
}

fn configure_network(plan: &ContainerPlan<'_>, parameters: Option<OwnedFd>) -> Result<(), StartError> {
    let release = match plan.launch.network {
        NetworkMode::FromSpec => Release::default(),
        NetworkMode::Await => match channel::await_order(&plan.sync)? {
            Order::Release(release) => release,
            Order::Continue | Order::Mapped => {
                return Err(StartError::new(Stage::Protocol, "unexpected order before the links"));
            }
        },
    };
    if !plan.namespaces.own_network() {
        return Ok(());
    }
    if let Some(parameters) = parameters {
        for (path, value) in release.links.iter().flat_map(|link| &link.sysctls) {
            // A link of less than 1280 bytes has no IPv6, and nothing to turn it off with.
            let is_off = path.ends_with("/disable_ipv6") && value == "1";
            if !is_off || sysctl::exists_beneath(parameters.as_fd(), path) {
                sysctl::write_beneath(parameters.as_fd(), path, value)?;
            }
        }
    }
    berth_sys::rtnetlink::configure(&release.links)
        .map_err(|error| StartError::new(Stage::Network, error.to_string()))
}

fn start_joined(plan: &JoinPlan, target: BorrowedFd<'_>) -> Result<Infallible, StartError> {
    close_descriptors(plan.preserve_fds)?;
    if let Some(cgroup) = &plan.cgroup {
        cgroup.enter_tasks().map_err(|error| StartError::new(Stage::Cgroup, error.to_string()))?;
    }
    privileges::forget_ancestors()?;
    let mut kinds = flags::NEWNS | flags::NEWUTS | flags::NEWIPC | flags::NEWNET | flags::NEWCGROUP;
    if plan.remapped {
        // What nobody inside may do to itself.
        privileges::set_oom_score(&plan.process)?;
        raise_limits(None, &plan.process);
        kinds |= flags::NEWUSER;
    }
    process::setns(target, kinds).context(Stage::Namespaces, || "join the container's namespaces")?;
    if plan.remapped {
        privileges::become_root()?;
    }
    let console = match plan.process.terminal {
        Some(size) => {
            let root = rootfs::open_directory(Path::new("/")).context(Stage::Console, || "open /")?;
            Some(Console::new(Console::devpts(root.as_fd())?.as_fd(), size)?)
        }
        None => None,
    };
    let user = privileges::resolve(&plan.process)?;
    execute(&plan.process, &plan.stdio, &plan.sync, Command { console, user, container: None })
}

/// What [`execute`] needs beside the plan.
struct Command<'a> {
    console: Option<Console>,
    user: crate::user::User,
    /// The container, if this is its first process.
    container: Option<&'a ContainerPlan<'a>>,
}

/// The last steps, the same for a container's first process and one that joins: standard descriptors, privileges, program.
fn execute(
    plan: &ProcessPlan,
    stdio: &Stdio,
    sync: &OwnedFd,
    command: Command<'_>,
) -> Result<Infallible, StartError> {
    match &command.console {
        Some(console) => console.adopt()?,
        None => console::standard(stdio.stdin.as_fd(), stdio.stdout.as_fd(), stdio.stderr.as_fd())?,
    }
    let user = &command.user;
    if user.uid != 0 {
        console::hand_over(user.uid);
    }
    privileges::restrict(plan)?;
    let entered = privileges::enter(&plan.cwd);
    let refused = entered.as_ref().is_err_and(|error| error.errno == Some(libc::EACCES));
    if !refused {
        entered?;
    }
    let env = privileges::environment(plan, user);
    let program = Program::find(&plan.args, &env, command.container.is_some_and(|plan| plan.launch.init))?;
    privileges::limit(plan)?;
    privileges::drop_to(user, plan)?;
    if refused {
        // A directory of the user's, on a file system that does not trust root.
        privileges::enter(&plan.cwd)?;
    }
    let master: Vec<BorrowedFd<'_>> = command.console.iter().map(|console| console.master.as_fd()).collect();
    channel::send(sync, &Report::Ready, &master).context(Stage::Protocol, || "report to the parent")?;
    if let Some(container) = command.container {
        if let Some(fifo) = &container.fifo {
            wait_for_start(fifo).context(Stage::Protocol, || "wait for start")?;
        }
        run_hooks(container.launch.spec.hooks(), Hooks::start_container, &container.state)?;
    }
    if privileges::loads_filter_last(plan) {
        privileges::load_filter(plan)?;
    }
    Err(program.execute())
}

/// Waits until somebody writes to the FIFO. A writer that went away without a byte is not enough.
fn wait_for_start(fifo: &OwnedFd) -> rustix::io::Result<()> {
    let mut byte = [0];
    loop {
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut [PollFd::new(fifo, PollFlags::IN)], None))?;
        match rustix::io::read(fifo, &mut byte) {
            Ok(0) => {
                // The FIFO hung up: a new opening resets that, which this descriptor sees as a hang-up until then.
                rustix::event::poll(&mut [PollFd::new(fifo, PollFlags::empty())], Some(&HANG_UP_PAUSE))?;
            }
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// How often a FIFO whose writer went away without a byte is looked at again.
const HANG_UP_PAUSE: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
