//! Shared memory that other containers may join: the one mount of a container that is in the host's table.
//!
//! It lies under the exec root, as clients of Docker expect of `--ipc shareable`. It is made at the start of its
//! container and goes with the end of it; what a killed engine left goes at the next start of the engine.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_sys::mount::{self, Parameter, attr};
use rustix::fs::{CWD, Mode, OFlags};

use crate::Error;
use crate::create::Definition;
use crate::engine::Parts;

/// Where the shared memory of shareable containers is mounted, below the exec root.
const DIRECTORY: &str = "shm";

/// Whether others may join the container's shared memory.
pub fn is_shareable(definition: &Definition) -> bool {
    definition.host.ipc_mode == "shareable"
}

impl Parts {
    /// Where a container's shared memory is mounted if others may join it.
    pub(super) fn shm_path(&self, id: &str) -> PathBuf {
        self.settings.exec_root.join(DIRECTORY).join(id)
    }

    /// Removes what is left of containers that `runs` does not know to run. Blocks.
    pub(super) fn sweep_shm(&self, runs: impl Fn(&str) -> bool) {
        let Ok(entries) = std::fs::read_dir(self.settings.exec_root.join(DIRECTORY)) else { return };
        for entry in entries.flatten() {
            if !runs(&entry.file_name().to_string_lossy())
                && let Err(error) = remove(&entry.path())
            {
                tracing::warn!(%error, "the shared memory of a container stays");
            }
        }
    }
}

/// Mounts shared memory of so many bytes at `path`, in place of what may be left there, and gives a detached copy of the
/// mount. Blocks.
pub fn make(path: &Path, bytes: u64) -> Result<OwnedFd, Error> {
    remove(path)?;
    attach(path, bytes).map_err(|source| failed("mount shared memory at", path, source))
}

fn attach(path: &Path, bytes: u64) -> io::Result<OwnedFd> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let parameters = [Parameter::value("size", bytes.to_string())?, Parameter::value("mode", "1777")?];
    let made = mount::new_filesystem("tmpfs", &parameters, attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    mount::attach(&made, rustix::fs::openat(CWD, path, flags, Mode::empty())?)?;
    mount::clone_tree(&made, false)
}

/// Unmounts shared memory and removes its directory; nothing there is fine. Blocks.
pub fn remove(path: &Path) -> Result<(), Error> {
    match mount::detach(path) {
        // Nothing is mounted there, or nothing is there at all.
        Err(error) if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => {
            return Err(failed("unmount", path, error));
        }
        _ => {}
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

fn failed(what: &str, path: &Path, source: io::Error) -> Error {
    Error::Io { operation: format!("{what} {}", path.display()), source }
}
