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
use super::foreground;
use super::state::{self, Directory, State, Status, replace_file, start_time};
use crate::cgroup::Manager;
use crate::defaults;
use crate::hooks;
use crate::launch::{self, Init, Launch, NetworkMode, Release, ReleaseMode, Rootfs, Started, Stdio};

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
    let bundle = Bundle::read(&create.bundle)?;
    if bundle.has_terminal() && create.console_socket.is_none() {
        return Err(Error::Invalid(
            "a terminal needs --console-socket, since this command does not stay".into(),
        ));
    }
    if !bundle.has_terminal() && create.console_socket.is_some() {
        return Err(Error::Invalid("--console-socket is of no use: process.terminal is not set".into()));
    }
    let directory = Directory::new(&global.root, &create.id)?;
    let made = make(&directory, create, bundle, true)?;
    hand_over(&directory, create, made).map(drop)
}

/// Gives the terminal away and writes the process ID down; a container for which that fails is taken back.
fn hand_over(directory: &Directory, create: &Create, made: Made) -> Result<Made> {
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
            undo(directory, &made.state.cgroup_path, Some(&made.pidfd));
            Err(error)
        }
    }
}

/// Executes the program of a created container.
pub(super) fn start(global: &Global, id: &str) -> Result<()> {
    let directory = Directory::new(&global.root, id)?;
    let _lock = directory.lock()?;
    let state = directory.read()?;
    match state.status(&directory)? {
        Status::Created => {}
        status => return Err(Error::Status { action: "start", id: id.to_owned(), status }),
    }
    launch::start(&directory.fifo()).map_err(|source| Error::Start { command: "start", source })?;
    fs::remove_file(directory.fifo()).at("remove", &directory.fifo())?;
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
    let bundle = Bundle::read(&run.create.bundle)?;
    if run.detach && bundle.has_terminal() && run.create.console_socket.is_none() {
        return Err(Error::Invalid("a terminal needs --console-socket with --detach".into()));
    }
    let directory = Directory::new(&global.root, &run.create.id)?;
    // Blocked before there is anything to pass them to, so that none is lost.
    let signals = if run.detach { None } else { Some(foreground::catch()?) };
    let made = make(&directory, &run.create, bundle, false)?;
    let mut made = hand_over(&directory, &run.create, made)?;
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
    if let Some(list) = state.config.hooks().as_ref().and_then(|all| all.poststop().as_ref()) {
        for error in hooks::run_all(list, &state.report_line("stopped")) {
            super::tell(global, "warning", &error.to_string());
        }
    }
    Ok(())
}

/// A bundle's configuration.
struct Bundle {
    path: PathBuf,
    spec: Spec,
}

impl Bundle {
    fn read(path: &Path) -> Result<Self> {
        let path = path.canonicalize().at("open the bundle", path)?;
        let file = path.join("config.json");
        let bytes = fs::read(&file).at("read", &file)?;
        let spec = serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: file, source })?;
        Ok(Self { path, spec })
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

fn make(directory: &Directory, create: &Create, bundle: Bundle, two_phases: bool) -> Result<Made> {
    if create.preserve_fds > 0 {
        return Err(Error::Unsupported("--preserve-fds"));
    }
    let (rootfs, cgroup_path) = (bundle.rootfs()?, bundle.cgroup(&create.id)?);
    let Bundle { path, mut spec } = bundle;
    let mut linux = spec.linux().clone().unwrap_or_default();
    linux.set_cgroups_path(Some(cgroup_path.clone()));
    allow_default_devices(&mut linux);
    spec.set_linux(Some(linux));
    directory.make(two_phases)?;
    let command = if two_phases { "create" } else { "run" };
    let launch = Launch {
        id: create.id.clone(),
        spec,
        rootfs: Rootfs::Path(rootfs.clone()),
        network: NetworkMode::FromSpec,
        mount_fds: Default::default(),
        init: false,
        terminal: None,
        generated: Vec::new(),
        release: if two_phases { ReleaseMode::ExecFifo(directory.fifo()) } else { ReleaseMode::Execute },
        bundle: Some(path.clone()),
        die_with_parent: false,
    };
    let mut pidfd = None;
    let outcome = (|| {
        let stdio = Stdio::inherit().context(|| "copy the standard descriptors".to_owned())?;
        let failed = |source| Error::Start { command, source };
        let init = launch::clone(&launch, Vec::new(), stdio).map_err(failed)?;
        pidfd = Some(init.pidfd.try_clone().context(|| "copy a descriptor".to_owned())?);
        let state = State {
            id: create.id.clone(),
            pid: init.pid,
            start_time: start_time(init.pid).unwrap_or_default(),
            bundle: path,
            rootfs,
            created: Timestamp::now().to_string(),
            cgroup_path: cgroup_path.clone(),
            config: launch.spec.clone(),
        };
        let console = release(init).map_err(failed)?.console;
        directory.write(&state)?;
        Ok((state, console))
    })();
    match (outcome, pidfd) {
        (Ok((state, console)), Some(pidfd)) => Ok(Made { state, pidfd, console }),
        (Ok(_), None) => Err(Error::NotRunning),
        (Err(error), pidfd) => {
            undo(directory, &cgroup_path, pidfd.as_ref());
            Err(error)
        }
    }
}

/// Adds what every container may use, after the rules of a configuration that has any: callers of runc count on it.
fn allow_default_devices(linux: &mut Linux) {
    let Some(mut resources) = linux.resources().clone() else { return };
    let Some(mut rules) = resources.devices().clone().filter(|rules| !rules.is_empty()) else { return };
    rules.extend(defaults::device_rules().into_iter().filter(|rule| rule.allow()));
    resources.set_devices(Some(rules));
    linux.set_resources(Some(resources));
}

fn release(init: Init) -> std::result::Result<Started, launch::StartError> {
    init.release(Release::default())
}

/// Takes back what was made of a container; the first failure is the one that counts.
fn undo(directory: &Directory, cgroup_path: &Path, pidfd: Option<&OwnedFd>) {
    if let Some(pidfd) = pidfd {
        let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        state::await_end(pidfd, REAP);
        let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    }
    if let Ok(cgroup) = Manager::for_path(&cgroup_path.to_string_lossy()) {
        let _ = cgroup.remove();
    }
    let _ = directory.remove();
}

/// Sends the master of a terminal, as runc's callers expect it.
pub(super) fn send_console(path: &Path, console: &OwnedFd) -> Result<()> {
    let socket = UnixStream::connect(path).at("connect to the console socket", path)?;
    berth_sys::socket::send(&socket, b"/dev/ptmx", &[console.as_fd()]).at("send the terminal to", path)
}
