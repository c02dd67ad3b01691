//! The daemon's side of the spawner.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use berth_sys::sealed::Sealed;
use berth_sys::socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

use super::{ARGUMENT, Attach, LaunchRequest, Setup};
use crate::channel::{self, Packed};
use crate::client::ShimControl;
use crate::protocol::{LaunchBody, LaunchHeader, VERSION};
use crate::readiness;

/// Why no shim could be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnerError {
    /// The binary could not be sealed.
    #[error("seal the own executable: {0}")]
    Seal(#[source] io::Error),
    /// The spawner could not be executed.
    #[error("execute the spawner: {0}")]
    Execute(#[source] io::Error),
    /// The launch of a container could not be handed over.
    #[error("hand container {id} to the spawner: {source}")]
    HandOver {
        /// The container.
        id: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The daemon's spawner. It is executed at [`Spawner::start`], and again by a launch that finds it dead.
#[derive(Debug)]
pub struct Spawner {
    sealed: Sealed,
    setup: Setup,
    current: Mutex<Arc<Process>>,
    launches: AtomicU64,
}

#[derive(Debug)]
struct Process {
    control: AsyncFd<OwnedFd>,
    pid: Option<u32>,
}

impl Spawner {
    /// Seals the own binary and executes it. Shims and containers will see the two directories (which must exist) and
    /// `/proc`, `/dev` and `/sys/fs/cgroup` of the host by name, and nothing else. To be called within a tokio runtime.
    ///
    /// # Errors
    /// When the binary can neither be sealed nor executed.
    pub fn start(exec_root: &Path, data_root: &Path) -> Result<Self, SpawnerError> {
        Self::start_in_cgroup(exec_root, data_root, None)
    }

    /// As [`Spawner::start`], and spawner and shims live in `cgroup` (absolute below each hierarchy), which is made:
    /// outside of the daemon's own, so that they do not end with it.
    ///
    /// # Errors
    /// As [`Spawner::start`]. A cgroup that cannot be entered is no error.
    pub fn start_in_cgroup(
        exec_root: &Path,
        data_root: &Path,
        cgroup: Option<String>,
    ) -> Result<Self, SpawnerError> {
        let sealed = Sealed::own_binary().map_err(SpawnerError::Seal)?;
        let directories = [exec_root, data_root].map(real_path).to_vec();
        let setup = Setup { directories, cgroup };
        let process = execute(&sealed, &setup).map_err(SpawnerError::Execute)?;
        Ok(Self { sealed, setup, current: Mutex::new(Arc::new(process)), launches: AtomicU64::new(0) })
    }

    /// Process ID of the spawner that runs now.
    pub fn pid(&self) -> Option<u32> {
        self.current().pid
    }

    fn current(&self) -> Arc<Process> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts a shim, which clones the container at once. What becomes of it is told by the events of the result.
    ///
    /// # Errors
    /// When the launch cannot be handed over, also to a new spawner.
    pub async fn launch(&self, request: LaunchRequest) -> Result<ShimControl, SpawnerError> {
        let id = request.launch.id.clone();
        let exec_dir = request.exec_dir.clone();
        let failed = |source| SpawnerError::HandOver { id: id.clone(), source };
        let (near, far) = socket::pair().map_err(failed)?;
        let fds = descriptors(request, far).map_err(failed)?;
        let control = ShimControl::launched(near, exec_dir).map_err(failed)?;
        let process = self.current();
        if let Err(error) = self.hand_over(&process, &fds).await {
            if !is_gone(&error) {
                return Err(failed(error));
            }
            tracing::warn!(%error, "the spawner has died and is executed again");
            let process = self.replace(&process)?;
            self.hand_over(&process, &fds).await.map_err(failed)?;
        }
        Ok(control)
    }

    /// Executes a new spawner, unless another launch has done so since.
    fn replace(&self, dead: &Arc<Process>) -> Result<Arc<Process>, SpawnerError> {
        let now = self.current();
        if !Arc::ptr_eq(&now, dead) {
            return Ok(now);
        }
        let process = Arc::new(execute(&self.sealed, &self.setup).map_err(SpawnerError::Execute)?);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Two launches may have come here at once: the later spawner ends when its handle is dropped.
        if Arc::ptr_eq(&current, dead) {
            *current = process;
        }
        Ok(current.clone())
    }

    /// Sends all descriptors, in as many messages as they need. Messages of several launches may alternate.
    async fn hand_over(&self, process: &Process, fds: &[OwnedFd]) -> io::Result<()> {
        let launch = self.launches.fetch_add(1, Ordering::Relaxed);
        let header = LaunchHeader { version: VERSION, launch, descriptors: fds.len() };
        let bytes = serde_json::to_vec(&header)?;
        for part in fds.chunks(socket::MAX_FDS) {
            let part: Vec<_> = part.iter().map(AsFd::as_fd).collect();
            process
                .control
                .async_io(Interest::WRITABLE, |control| socket::send(control, &bytes, &part))
                .await?;
        }
        Ok(())
    }
}

/// Mounts are found at the path without symlinks.
fn real_path(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

/// The descriptors of a launch, in the order in which the shim takes them.
fn descriptors(request: LaunchRequest, control: OwnedFd) -> io::Result<Vec<OwnedFd>> {
    let (connections, attach): (Vec<_>, Vec<_>) = request.attach.into_iter().map(Attach::split).unzip();
    let body = LaunchBody {
        launch: request.launch,
        exec_dir: request.exec_dir,
        log: request.log,
        log_fds: request.log_fds.len(),
        stdin_open: request.stdin_open,
        stdin_once: request.stdin_once,
        tty: request.tty,
        attach,
    };
    let memfd = channel::sealed_memfd(&serde_json::to_vec(&body)?)?;
    Ok([memfd, control].into_iter().chain(connections).chain(request.log_fds).chain(request.fds).collect())
}

/// Executes a spawner with one end of a new socket pair as descriptor 0.
fn execute(sealed: &Sealed, setup: &Setup) -> io::Result<Process> {
    let (near, far) = socket::pair()?;
    let mut child = Command::new(sealed.path())
        .arg0("berth")
        .arg(ARGUMENT)
        .env_clear()
        .current_dir("/")
        .stdin(far)
        .stdout(std::process::Stdio::null())
        .spawn()?;
    Packed::new(setup, Vec::new())?.send(&near)?;
    let pid = child.id();
    // Somebody has to wait for it, or it stays as a zombie. It ends when its socket closes.
    tokio::spawn(async move { child.wait().await });
    rustix::io::ioctl_fionbio(&near, true)?;
    Ok(Process { control: readiness::register(near)?, pid })
}
