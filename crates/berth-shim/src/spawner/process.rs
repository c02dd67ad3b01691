//! The spawner itself.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use berth_runtime::{capability, seccomp};
use berth_sys::process::Fork;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit, WaitOptions};

use super::{Setup, namespace};
use crate::channel;
use crate::protocol::{Event, LaunchHeader, Outgoing, VERSION};
use crate::shim;

/// `SIGCHLD`.
const CHILD: i32 = 17;
/// More descriptors than this no launch has.
const MAX_DESCRIPTORS: usize = 4096;
/// Launches of which a part has arrived; more are a defect of the daemon.
const MAX_PARTIAL: usize = 64;

/// The face of the binary that the daemon executes as its spawner, with a connected message socket as descriptor 0.
pub fn main() -> ExitCode {
    match run() {
        Ok(None) => ExitCode::SUCCESS,
        // What the spawner had open is closed by now: a shim that kept the control socket would keep a dead spawner
        // looking alive.
        Ok(Some(fds)) => berth_sys::process::exit_now(shim::main(fds).into()),
        Err(error) => {
            eprintln!("berth spawner: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends with the daemon, or in a shim with the descriptors of its launch.
fn run() -> io::Result<Option<Vec<OwnedFd>>> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    drop(null);
    close_inherited()?;
    let Some(message) = channel::receive(&control)? else { return Ok(None) };
    let setup: Setup = serde_json::from_slice(&message.bytes)?;
    clean_slate();
    if let Some(cgroup) = &setup.cgroup
        && let Err(error) = enter_cgroup(cgroup)
    {
        eprintln!("berth spawner: stay in the daemon's cgroup: {error}");
    }
    // A larger namespace is slower, not wrong.
    if let Err(error) = namespace::enter_minimal(&setup.directories) {
        eprintln!("berth spawner: keep the host's mounts: {error}");
    }
    drop(setup);
    seccomp::prepare(&seccomp::default_profile(&capability::DEFAULT));
    // Pages that only the start needed; without /proc they stay.
    let _ = berth_sys::memory::release_code();
    berth_sys::process::block_signals(&[CHILD])?;
    serve(&control)
}

/// Closes what whoever started the daemon has left open: nothing of it may reach a shim.
fn close_inherited() -> io::Result<()> {
    let numbers: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // Those that are close-on-exec were opened here and are refused.
        drop(berth_sys::inherited::take(number));
    }
    Ok(())
}

/// What every container starts from, whatever the daemon was started from. Each step may be refused (a limit that only
/// `CAP_SYS_RESOURCE` may raise), and then stays as it is.
fn clean_slate() {
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    let _ = rustix::thread::set_name(c"berth-spawner");
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = rustix::process::setpriority_process(None, 0);
    let _ = berth_sys::process::new_session_keyring();
    let mut everywhere = rustix::thread::CpuSet::new();
    for cpu in 0..rustix::thread::CpuSet::MAX_CPU {
        everywhere.set(cpu);
    }
    let _ = rustix::thread::sched_setaffinity(None, &everywhere);
    for resource in [
        Resource::Cpu,
        Resource::Fsize,
        Resource::Data,
        Resource::Core,
        Resource::Rss,
        Resource::Nproc,
        Resource::As,
        Resource::Locks,
    ] {
        raise(resource, None);
    }
    raise(Resource::Nofile, Some(1 << 20));
    let stack = rustix::process::getrlimit(Resource::Stack);
    let soft = Rlimit { current: Some(STACK), maximum: stack.maximum };
    let _ = rustix::process::setrlimit(Resource::Stack, soft);
}

/// The kernel's default soft limit of the stack.
const STACK: u64 = 8 * 1024 * 1024;

/// Raises both limits to `wanted`, or as far as is permitted.
fn raise(resource: Resource, wanted: Option<u64>) {
    let all = Rlimit { current: wanted, maximum: wanted };
    if rustix::process::setrlimit(resource, all).is_err() {
        let maximum = rustix::process::getrlimit(resource).maximum;
        let _ = rustix::process::setrlimit(resource, Rlimit { current: maximum, maximum });
    }
}

fn enter_cgroup(path: &str) -> io::Result<()> {
    use berth_runtime::cgroup::Manager;
    let manager = Manager::for_path(path).map_err(io::Error::other)?;
    let join = manager.create(&oci_spec::runtime::LinuxResources::default()).map_err(io::Error::other)?;
    join.enter().map_err(io::Error::other)
}

/// Launches whose descriptors have not all arrived.
type Partial = HashMap<u64, Vec<OwnedFd>>;

/// Forks shims until the daemon is gone. Also returns in each shim, with its descriptors.
fn serve(control: &OwnedFd) -> io::Result<Option<Vec<OwnedFd>>> {
    let children = berth_sys::process::signalfd(&[CHILD])?;
    let mut partial = Partial::new();
    loop {
        let mut ready = [PollFd::new(control, PollFlags::IN), PollFd::new(&children, PollFlags::IN)];
        match rustix::event::poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [request, child] = ready.map(|ready| !ready.revents().is_empty());
        if child {
            reap(&children);
        }
        if request {
            let Some(message) = channel::receive(control)? else { return Ok(None) };
            let Ok(header) = serde_json::from_slice::<LaunchHeader>(&message.bytes) else { continue };
            if let Some(fds) = collect(&mut partial, &header, message.fds)
                && let Some(fds) = fork(fds)
            {
                return Ok(Some(fds));
            }
        }
    }
}

fn reap(children: &OwnedFd) {
    let mut information = [0; 128];
    while rustix::io::read(children, &mut information).is_ok_and(|count| count > 0) {}
    while rustix::process::wait(WaitOptions::NOHANG).is_ok_and(|child| child.is_some()) {}
}

/// Adds the descriptors of one message; returns all of the launch once they are complete.
fn collect(partial: &mut Partial, header: &LaunchHeader, fds: Vec<OwnedFd>) -> Option<Vec<OwnedFd>> {
    if header.version != VERSION || header.descriptors > MAX_DESCRIPTORS {
        return None;
    }
    let mut all = partial.remove(&header.launch).unwrap_or_default();
    all.extend(fds);
    if all.len() >= header.descriptors {
        return Some(all);
    }
    if partial.len() < MAX_PARTIAL {
        partial.insert(header.launch, all);
    }
    None
}

/// Forks; gives the descriptors back in the child, which is to be the shim.
fn fork(fds: Vec<OwnedFd>) -> Option<Vec<OwnedFd>> {
    match berth_sys::process::fork() {
        Ok(Fork::Child) => return Some(fds),
        Ok(Fork::Parent { .. }) => {}
        Err(error) => refuse(&fds, &error),
    }
    None
}

/// Tells the daemon on the launch's own connection.
fn refuse(fds: &[OwnedFd], error: &io::Error) {
    use berth_runtime::launch::{Stage, StartError};
    if let Some(control) = fds.get(1) {
        let event = Event::Failed(StartError::io(Stage::Protocol, "fork a shim", error));
        // A daemon that is gone need not be told.
        let _ = channel::Packed::new(&Outgoing::Event(&event), Vec::new())
            .and_then(|packed| packed.send(control));
    }
}
