//! What the hooks of a container's devices need beside the container: the host's files, where their programs are, and a
//! bundle that tells them what the container is.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use berth_runtime::launch::HookView;
use berth_sys::mount;
use oci_spec::runtime::Spec;

use crate::Error;

/// The bundle's directory within that of the container.
const BUNDLE: &str = "bundle";

/// Prepared for hooks.
pub(super) struct Prepared {
    /// The bundle, which hooks are told of.
    pub bundle: PathBuf,
    /// The directory where they find the container's root.
    root: PathBuf,
    /// A detached copy of the host's mounts.
    tree: OwnedFd,
}

impl Prepared {
    /// Puts the descriptor among those that go to the runtime.
    pub fn hand_over(self, fds: &mut Vec<OwnedFd>) -> (PathBuf, HookView) {
        let view = HookView { tree: fds.len(), root: self.root };
        fds.push(self.tree);
        (self.bundle, view)
    }
}

/// Whether hooks run that are programs of the host.
pub(super) fn has_hooks(spec: &Spec) -> bool {
    let hooks = spec.hooks().as_ref().and_then(|hooks| hooks.create_container().as_ref());
    hooks.is_some_and(|list| !list.is_empty())
}

/// Makes what hooks need, in a container's `directory`. What an earlier start left there is replaced. Blocks.
pub(super) fn prepare(directory: &Path, spec: &Spec) -> Result<Prepared, Error> {
    let bundle = directory.join(BUNDLE);
    let root = match spec.root() {
        Some(root) => bundle.join(root.path()),
        None => bundle.join("rootfs"),
    };
    let failed = |source| Error::Io { operation: format!("make the bundle {}", bundle.display()), source };
    DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(failed)?;
    write(&bundle.join("config.json"), spec).map_err(failed)?;
    let tree = mount::clone_at(rustix::fs::CWD, Path::new("/"), true);
    let tree = tree.map_err(|source| Error::Io { operation: "copy the host's mounts".into(), source })?;
    Ok(Prepared { bundle, root, tree })
}

fn write(path: &Path, spec: &Spec) -> io::Result<()> {
    let text = serde_json::to_vec(spec)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&text)
}
