//! `create`, `start` and `run`.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use oci_spec::runtime::{Linux, Spec};
use rustix::process::{Signal, WaitId, WaitIdOptions};

use super::arguments::{Create, Global, Run};
use super::error::{Context as _, Error, Result};
use super::state::{self, Directory, State, Status, replace_file, start_time};
use super::{foreground, inherited};
use crate::cgroup::Manager;
use crate::defaults;
use crate::hooks;
use crate::launch::{self, Launch, NetworkMode, Release, ReleaseMode, Rootfs, Stdio};

/// How long a container that failed to be made is waited for.
const REAP: Duration = Duration::from_secs(5);

/// A container that has been made, and its terminal.
struct Made {
    state: State,
    pidfd: OwnedFd,
    console: Option<OwnedFd>,
}

/// Makes a container whose program waits for `start`.
pub(super) fn create(global: &Global, create: &Create) -> Result<()> {
    let bundle = Bundle::read(create)?;
    if bundle.has_terminal() && create.console_socket.is_none() {
        return Err(Error::Invalid(
            "a terminal needs --console-socket, since this command does not stay".into(),
        ));
    }
    if !bundle.has_terminal() && create.console_socket.is_some() {
        return Err(Error::Invalid("--console-socket is of no use: process.terminal is not set".into()));
    }
    let directory = Directory::new(&global.root, &create.id)?;
    let made = make(global, &directory, create, bundle, true)?;
    hand_over(global, &directory, create, made).map(drop)
}

/// Gives the terminal away and writes the process ID down; a container for which that fails is taken back.
fn hand_over(global: &Global, directory: &Directory, create: &Create, made: Made) -> Result<Made> {
    let tell = || -> Result<()> {
        if let (Some(socket), Some(console)) = (&create.console_socket, &made.console) {
            send_console(socket, console)?;
        }
        match &create.pid_file {
            Some(path) => replace_file(path, made.state.pid.to_string().as_bytes()),
            None => Ok(()),
        }
    };
    match tell() {
        Ok(()) => Ok(made),
        Err(error) => {
            undo(global, directory, &made.state, &made.pidfd);
            Err(error)
        }
    }
}

/// Executes the program of a created container.
pub(super) fn start(global: &Global, id: &str) -> Result<()> {
    let directory = Directory::new(&global.root, id)?;
    let lock = directory.lock()?;
    let state = directory.read()?;
    match state.status(&directory)? {
        Status::Created => {}
        status => return Err(Error::Status { action: "start", id: id.to_owned(), status }),
    }
    launch::start(&directory.fifo()).map_err(|source| Error::Start { command: "start", source })?;
    fs::remove_file(directory.fifo()).at("remove", &directory.fifo())?;
    // A hook may want to change the container.
    drop(lock);
    after_start(global, &state);
    Ok(())
}

/// As the specification says, what fails after the start is only told.
fn after_start(global: &Global, state: &State) {
    if let Some(list) = state.config.hooks().as_ref().and_then(|all| all.poststart().as_ref()) {
        for error in hooks::run_all(list, &state.report_line("running")) {
            super::tell(global, "warning", &error.to_string());
        }
    }
}

/// Makes a container, runs its program, waits for its end and deletes it; gives its exit code.
pub(super) fn run(global: &Global, run: &Run) -> Result<u8> {
    let bundle = Bundle::read(&run.create)?;
    if run.detach && bundle.has_terminal() && run.create.console_socket.is_none() {
        return Err(Error::Invalid("a terminal needs --console-socket with --detach".into()));
    }
    let directory = Directory::new(&global.root, &run.create.id)?;
    // Blocked before there is anything to pass them to, so that none is lost.
    let signals = if run.detach { None } else { Some(foreground::catch()?) };
    let made = make(global, &directory, &run.create, bundle, false)?;
    let mut made = hand_over(global, &directory, &run.create, made)?;
    after_start(global, &made.state);
    let Some(signals) = signals else { return Ok(0) };
    let console = made.console.take().filter(|_| run.create.console_socket.is_none());
    let code = foreground::attend(&made.pidfd, console, &signals)?;
    if !run.keep {
        remove(global, &directory, &made.state)?;
    }
    Ok(code)
}

/// Removes what is left of a container that has ended.
pub(super) fn remove(global: &Global, directory: &Directory, state: &State) -> Result<()> {
    let cgroup = state.cgroup()?;
    // Those that were not in a PID namespace of the container's own live on.
    cgroup.kill()?;
    cgroup.remove()?;
    directory.remove()?;
    after_stop(global, state);
    Ok(())
}

/// As the specification says, what fails after the end is only told.
fn after_stop(global: &Global, state: &State) {
    if let Some(list) = state.config.hooks().as_ref().and_then(|all| all.poststop().as_ref()) {
        for error in hooks::run_all(list, &state.report_line("stopped")) {
            super::tell(global, "warning", &error.to_string());
        }
    }
}

/// A bundle's configuration.
struct Bundle {
    path: PathBuf,
    spec: Spec,
    /// Descriptors of the caller for the program, from 3 on.
    preserve_fds: u32,
}

impl Bundle {
    fn read(create: &Create) -> Result<Self> {
        let listening = inherited::listening();
        let preserve_fds = inherited::check(listening.saturating_add(create.preserve_fds))?;
        let path = create.bundle.canonicalize().at("open the bundle", &create.bundle)?;
        let file = path.join("config.json");
        let bytes = fs::read(&file).at("read", &file)?;
        let mut spec: Spec =
            serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: file, source })?;
        if let Some(mut process) = spec.process().clone().filter(|_| listening > 0) {
            let mut env = process.env().clone().unwrap_or_default();
            env.extend([format!("LISTEN_FDS={listening}"), "LISTEN_PID=1".to_owned()]);
            process.set_env(Some(env));
            spec.set_process(Some(process));
        }
        Ok(Self { path, spec, preserve_fds })
    }

    fn has_terminal(&self) -> bool {
        self.spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or_default()
    }

    /// The root, which a relative path puts into the bundle.
    fn rootfs(&self) -> Result<PathBuf> {
        let root =
            self.spec.root().as_ref().ok_or_else(|| Error::Invalid("config.json has no root".into()))?;
        let path = self.path.join(root.path());
        path.canonicalize().at("open the root", &path)
    }

    /// The cgroup, absolute below each hierarchy.
    fn cgroup(&self, id: &str) -> Result<PathBuf> {
        let given = self.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
        let Some(path) = given.filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(Path::new("/").join(id));
        };
        if path.to_string_lossy().contains(':') {
            return Err(Error::Unsupported("a cgroupsPath of systemd (slice:prefix:name)"));
        }
        Ok(Path::new("/").join(path))
    }
}

fn make(
    global: &Global,
    directory: &Directory,
    create: &Create,
    bundle: Bundle,
    two_phases: bool,
) -> Result<Made> {
    let (rootfs, cgroup_path) = (bundle.rootfs()?, bundle.cgroup(&create.id)?);
    let Bundle { path, mut spec, preserve_fds } = bundle;
    let mut linux = spec.linux().clone().unwrap_or_default();
    linux.set_cgroups_path(Some(cgroup_path.clone()));
    allow_default_devices(&mut linux);
    spec.set_linux(Some(linux));
    directory.make(two_phases)?;
    let launch = Launch {
        id: create.id.clone(),
        spec,
        rootfs: Rootfs::Path(rootfs.clone()),
        idmap_root: false,
        network: NetworkMode::FromSpec,
        mount_fds: Default::default(),
        init: false,
        terminal: None,
        generated: Vec::new(),
        release: if two_phases { ReleaseMode::ExecFifo(directory.fifo()) } else { ReleaseMode::Execute },
        bundle: Some(path.clone()),
        hook_view: None,
        die_with_parent: false,
        preserve_fds,
    };
    let failed = |source| Error::Start { command: if two_phases { "create" } else { "run" }, source };
    let cloned = refuse_occupied(&cgroup_path)
        .and_then(|()| Stdio::inherit().context(|| "copy the standard descriptors".to_owned()))
        .and_then(|stdio| launch::clone(&launch, Vec::new(), stdio).map_err(failed))
        .and_then(|init| {
            let pidfd = init.pidfd.try_clone().context(|| "copy a descriptor".to_owned())?;
            Ok((init, pidfd))
        });
    let (init, pidfd) = match cloned {
        Ok(cloned) => cloned,
        Err(error) => {
            // The clone has taken the cgroup back.
            let _ = directory.remove();
            return Err(error);
        }
    };
    let state = State {
        id: create.id.clone(),
        pid: init.pid,
        start_time: start_time(init.pid).unwrap_or_default(),
        bundle: path,
        rootfs,
        created: Timestamp::now().to_string(),
        cgroup_path,
        config: launch.spec,
    };
    // Hooks may ask for the state.
    let outcome = directory.write(&state).and_then(|()| init.release(Release::default()).map_err(failed));
    match outcome {
        Ok(started) => Ok(Made { state, pidfd, console: started.console }),
        Err(error) => {
            undo(global, directory, &state, &pidfd);
            Err(error)
        }
    }
}

/// Deleting a container kills all that is in its cgroup, so there must be nobody else.
fn refuse_occupied(path: &Path) -> Result<()> {
    let cgroup = Manager::for_path(&path.to_string_lossy())?;
    let count = if cgroup.exists() { cgroup.pids()?.len() } else { 0 };
    if count == 0 {
        return Ok(());
    }
    Err(Error::Invalid(format!("the cgroup {} is not empty: {count} processes are in it", path.display())))
}

/// Adds what every container may use, after the rules of a configuration that has any: callers of runc count on it.
fn allow_default_devices(linux: &mut Linux) {
    let Some(mut resources) = linux.resources().clone() else { return };
    let Some(mut rules) = resources.devices().clone().filter(|rules| !rules.is_empty()) else { return };
    rules.extend(defaults::device_rules().into_iter().filter(|rule| rule.allow()));
    resources.set_devices(Some(rules));
    linux.set_resources(Some(resources));
}

/// Takes back what was made of a container; the first failure is the one that counts.
fn undo(global: &Global, directory: &Directory, state: &State, pidfd: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    state::await_end(pidfd, REAP);
    let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    if let Ok(cgroup) = state.cgroup() {
        let _ = cgroup.remove();
    }
    let _ = directory.remove();
    // What hooks have made of the container before, such as a network, is theirs to take back.
    after_stop(global, state);
}

/// Sends the master of a terminal, as runc's callers expect it.
pub(super) fn send_console(path: &Path, console: &OwnedFd) -> Result<()> {
    let socket = UnixStream::connect(path).at("connect to the console socket", path)?;
    berth_sys::socket::send(&socket, b"/dev/ptmx", &[console.as_fd()]).at("send the terminal to", path)
}
