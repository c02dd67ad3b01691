//! The sources of a container's mounts, opened in the daemon's mount namespace: shims do not see the host's.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::start::Opened;
use crate::Error;
use crate::blocking::blocking;
use crate::create::Definition;
use crate::create::mounts::{MountPlan, MountSource};
use crate::engine::Parts;

impl Parts {
    /// The directory of a volume's content.
    pub(crate) fn volume_dir(&self, name: &str) -> PathBuf {
        self.settings.data_root.join("volumes").join(name).join("_data")
    }
}

/// What is to be cloned for one mount.
struct Source {
    mount: usize,
    path: PathBuf,
    create: bool,
    volume: bool,
    recursive: bool,
}

/// Opens all sources as detached mounts.
pub async fn open(
    parts: &Parts,
    _definition: &Definition,
    planned: &[(usize, &MountPlan)],
) -> Result<Opened, Error> {
    if planned.is_empty() {
        return Ok((BTreeMap::new(), Vec::new()));
    }
    let sources: Vec<Source> =
        planned.iter().filter_map(|(mount, plan)| source(parts, *mount, plan)).collect();
    blocking(move || {
        let mut indices = BTreeMap::new();
        let mut fds = Vec::with_capacity(sources.len());
        for source in sources {
            indices.insert(source.mount, fds.len());
            fds.push(clone(&source)?);
        }
        Ok((indices, fds))
    })
    .await
}

fn source(parts: &Parts, mount: usize, plan: &MountPlan) -> Option<Source> {
    match &plan.source {
        MountSource::Bind { path, create, recursive } => {
            Some(Source { mount, path: path.clone(), create: *create, volume: false, recursive: *recursive })
        }
        MountSource::Volume { name, .. } => {
            Some(Source { mount, path: parts.volume_dir(name), create: true, volume: true, recursive: true })
        }
        MountSource::Tmpfs { .. } => None,
    }
}

fn clone(source: &Source) -> Result<OwnedFd, Error> {
    let missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let failed = |operation: &str| {
        let operation = format!("{operation} {}", source.path.display());
        move |source| Error::Io { operation, source }
    };
    match berth_sys::mount::clone_at(rustix::fs::CWD, &source.path, source.recursive) {
        Err(error) if missing(&error) && source.create => {
            let made =
                if source.volume { make_volume(&source.path) } else { std::fs::create_dir_all(&source.path) };
            made.map_err(failed("error while creating mount source path"))?;
            berth_sys::mount::clone_at(rustix::fs::CWD, &source.path, source.recursive)
                .map_err(failed("mount"))
        }
        Err(error) if missing(&error) => Err(Error::InvalidParameter(missing_bind(&source.path))),
        other => other.map_err(failed("mount")),
    }
}

/// A detached mount of a path of the host, which must exist.
pub fn host_path(path: &Path, recursive: bool) -> Result<OwnedFd, Error> {
    berth_sys::mount::clone_at(rustix::fs::CWD, path, recursive).map_err(|error| {
        let why = berth_runtime::launch::describe(&error);
        Error::InvalidParameter(format!("cannot mount {}: {why}", path.display()))
    })
}

/// A volume's directory belongs to root and is open to all; what is above it is closed.
fn make_volume(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o701).create(parent)?;
    }
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// Refuses a container whose bind sources must exist and do not.
pub fn check(definition: &Definition) -> Result<(), Error> {
    for plan in &definition.mounts {
        if let MountSource::Bind { path, create: false, .. } = &plan.source
            && !path.exists()
        {
            return Err(Error::InvalidParameter(missing_bind(path)));
        }
    }
    Ok(())
}

fn missing_bind(path: &Path) -> String {
    format!("invalid mount config for type \"bind\": bind source path does not exist: {}", path.display())
}
