//! The mounts of the configuration, each attached by descriptor to a target that was walked to inside the root.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use berth_sys::beneath;
use berth_sys::mount::{self, Attributes, attr, propagation};
use oci_spec::runtime::Mount;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use super::cgroupfs;
use super::options::Options;
use crate::cgroup::Layout;
use crate::launch::error::{Context, Stage, StartError};

/// What the mounts of a container need to know of it.
pub(super) struct Mounter<'a> {
    /// The container's root.
    pub root: BorrowedFd<'a>,
    /// Detached mounts by index of the mount: bind sources.
    pub sources: &'a [Option<OwnedFd>],
    /// The host's hierarchies, if a mount of type `cgroup` is wanted.
    pub hierarchies: Option<&'a Layout>,
    /// Whether the container has a cgroup namespace of its own.
    pub cgroup_namespace: bool,
    /// The cgroup's path, shown where there is no namespace.
    pub cgroup_path: Option<&'a Path>,
}

/// A mount that must not be read-only until something has been made in it.
pub(super) struct Deferred {
    mount: OwnedFd,
}

impl Deferred {
    pub fn make_read_only(&self) -> Result<(), StartError> {
        let change = Attributes { set: attr::RDONLY, ..Attributes::default() };
        mount::set_attributes(&self.mount, change, None).context(Stage::Mount, || "make /dev read-only")
    }
}

/// What the later steps need of the mounts.
#[derive(Default)]
pub(super) struct Mounted {
    /// The container's own procfs.
    pub proc: Option<OwnedFd>,
    /// The container's own devpts.
    pub devpts: Option<OwnedFd>,
    /// `/dev`, if it is to become read-only.
    pub dev: Option<Deferred>,
}

impl Mounter<'_> {
    /// Makes all mounts, in order.
    pub fn mount_all(&self, mounts: &[Mount]) -> Result<Mounted, StartError> {
        let mut mounted = Mounted::default();
        for (index, mount) in mounts.iter().enumerate() {
            let destination = mount.destination();
            self.mount(index, mount, &mut mounted).map_err(|error| {
                if error.stage == Stage::Configuration {
                    return error;
                }
                let source = mount.source().as_deref().unwrap_or(Path::new("none"));
                let message = format!(
                    "error mounting {:?} to rootfs at {:?}: {}",
                    source.display().to_string(),
                    destination.display().to_string(),
                    error.message
                );
                StartError { message, ..error }
            })?;
        }
        Ok(mounted)
    }

    fn mount(&self, index: usize, mount: &Mount, mounted: &mut Mounted) -> Result<(), StartError> {
        let options = mount.options().as_deref().unwrap_or_default();
        let options = Options::parse(options).context(Stage::Mount, || "options")?;
        let destination = mount.destination().as_path();
        let kind = mount.typ().as_deref().unwrap_or("bind");
        if options.bind.is_some() || kind == "bind" || kind == "none" {
            refuse_inside_proc(destination)?;
            let source = self.sources.get(index).and_then(Option::as_ref);
            let source =
                source.ok_or_else(|| StartError::new(Stage::Mount, "bind mount without a source"))?;
            return self.bind(source.as_fd(), destination, &options);
        }
        let source = mount.source().as_deref().unwrap_or(Path::new(kind));
        match kind {
            "proc" | "sysfs" => {
                let target = self.ordinary_directory(destination)?;
                let made = new_filesystem(kind, source, &options)?;
                attach(&made, &target)?;
                if kind == "proc" && destination == Path::new("/proc") {
                    mounted.proc = Some(made);
                }
                Ok(())
            }
            "cgroup" | "cgroup2" => {
                let target = self.directory(destination)?;
                cgroupfs::mount(self, &target, &options)
            }
            "devpts" => {
                refuse_inside_proc(destination)?;
                let target = self.directory(destination)?;
                let made = new_filesystem(kind, source, &options)?;
                attach(&made, &target)?;
                mounted.devpts = Some(made);
                Ok(())
            }
            _ => self.other(kind, source, destination, options, mounted),
        }
    }

    fn other(
        &self,
        kind: &str,
        source: &Path,
        destination: &Path,
        mut options: Options,
        mounted: &mut Mounted,
    ) -> Result<(), StartError> {
        refuse_inside_proc(destination)?;
        let existed = beneath::open_path(self.root, destination).is_ok();
        let target = self.directory(destination)?;
        let is_dev = destination == Path::new("/dev");
        let read_only = options.read_only();
        if is_dev || options.copy_up {
            options.set &= !attr::RDONLY;
            options.set_recursive &= !attr::RDONLY;
        }
        if kind == "tmpfs" && existed && !options.parameters.iter().any(is_mode) {
            // The mount keeps the mode and owner of the directory that it hides, where the image has one.
            options.parameters.extend(inherited_mode(&target).context(Stage::Mount, || "stat the target")?);
        }
        let made = new_filesystem(kind, source, &options)?;
        if options.copy_up {
            super::copy_up::copy(&target, &made).context(Stage::Mount, || "copy up")?;
        }
        attach(&made, &target)?;
        propagate(&made, &options)?;
        if is_dev && read_only {
            mounted.dev = Some(Deferred { mount: made });
        } else if read_only && options.copy_up {
            Deferred { mount: made }.make_read_only()?;
        }
        Ok(())
    }

    /// Attaches a detached tree; the target is made as what the source is, a file or a directory.
    pub fn bind(
        &self,
        source: BorrowedFd<'_>,
        destination: &Path,
        options: &Options,
    ) -> Result<(), StartError> {
        let kind = FileType::from_raw_mode(
            rustix::fs::fstat(source).context(Stage::Mount, || "stat the source")?.st_mode,
        );
        let target = if kind == FileType::Directory {
            self.directory(destination)?
        } else {
            let target = beneath::make_file(self.root, destination, Mode::from_raw_mode(0o755));
            target.context(Stage::Mount, || format!("create mount point {}", destination.display()))?
        };
        if kind != FileType::Directory {
            let stat = rustix::fs::fstat(&target).context(Stage::Mount, || "stat the mount point")?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let error = io::Error::from(rustix::io::Errno::NOTDIR);
                return Err(StartError::io(Stage::Mount, "mount a file", &error));
            }
        }
        let change = Attributes { set: options.set, clear: options.clear, ..Attributes::default() };
        if change != Attributes::default() {
            mount::set_attributes(source, change, None).context(Stage::Mount, || "set mount attributes")?;
        }
        let change = Attributes {
            set: options.set_recursive,
            clear: options.clear_recursive,
            propagation: 0,
            recursive: true,
        };
        if (change.set | change.clear) != 0 {
            mount::set_attributes(source, change, None)
                .context(Stage::Mount, || "set mount attributes recursively")?;
        }
        // A copy of a shared mount is its peer: without this, mounts in the container would appear on the host.
        let (propagation, recursive) = options.propagation.unwrap_or((propagation::SLAVE, true));
        let change = Attributes { propagation, recursive, ..Attributes::default() };
        mount::set_attributes(source, change, None).context(Stage::Mount, || "set propagation")?;
        attach(source, &target)
    }

    /// The directory at `destination`, made if missing, symlinks resolved inside the root.
    pub fn directory(&self, destination: &Path) -> Result<OwnedFd, StartError> {
        let target = beneath::make_directories(self.root, destination, Mode::from_raw_mode(0o755));
        target.context(Stage::Mount, || format!("create mount point {}", destination.display()))
    }

    /// As [`Mounter::directory`], but refuses symlinks: what is mounted here is trusted by name later (R27).
    fn ordinary_directory(&self, destination: &Path) -> Result<OwnedFd, StartError> {
        let open = || {
            let relative = destination.strip_prefix("/").unwrap_or(destination);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
            rustix::fs::openat2(self.root, relative, flags, Mode::empty(), resolve)
        };
        let refused = || format!("{} must be mounted on an ordinary directory", destination.display());
        match open() {
            Err(rustix::io::Errno::NOENT) => {
                self.directory(destination)?;
                open().context(Stage::Mount, refused)
            }
            other => other.context(Stage::Mount, refused),
        }
    }
}

/// Makes a detached mount with the attributes and parameters of `options`; `source` is only a name for the lists of mounts.
pub(super) fn new_filesystem(kind: &str, source: &Path, options: &Options) -> Result<OwnedFd, StartError> {
    let mut parameters = Vec::with_capacity(options.parameters.len() + 1);
    let source = mount::Parameter::value("source", source.as_os_str().as_bytes());
    parameters.push(source.context(Stage::Mount, || "source")?);
    parameters.extend_from_slice(&options.parameters);
    mount::new_filesystem(kind, &parameters, options.set | options.set_recursive)
        .context(Stage::Mount, || format!("make {kind}"))
}

pub(super) fn attach(mount: impl AsFd, target: &OwnedFd) -> Result<(), StartError> {
    mount::attach(mount, target).context(Stage::Mount, || "attach the mount")
}

fn propagate(mount: &OwnedFd, options: &Options) -> Result<(), StartError> {
    let Some((propagation, recursive)) = options.propagation else { return Ok(()) };
    let change = Attributes { propagation, recursive, ..Attributes::default() };
    mount::set_attributes(mount, change, None).context(Stage::Mount, || "set propagation")
}

fn is_mode(parameter: &mount::Parameter) -> bool {
    matches!(parameter, mount::Parameter::Value(key, _) if key.as_bytes() == b"mode")
}

fn inherited_mode(target: &OwnedFd) -> io::Result<Vec<mount::Parameter>> {
    let stat = rustix::fs::fstat(target)?;
    Ok(vec![mount::Parameter::value("mode", format!("{:o}", stat.st_mode & 0o7777))?])
}

/// Files in `/proc` that container managers replace by emulations. Everything else in it is the kernel's word.
const REPLACEABLE_IN_PROC: [&str; 12] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
    "version",
];

/// Nothing of the image or the user is mounted over or in `/proc`: labels and parameters are written there (R5).
fn refuse_inside_proc(destination: &Path) -> Result<(), StartError> {
    let mut clean = Vec::new();
    for component in destination.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if clean.first().is_none_or(|first| *first != "proc") {
        return Ok(());
    }
    let inside: std::path::PathBuf = clean[1..].iter().collect();
    if REPLACEABLE_IN_PROC.iter().any(|name| Path::new(name) == inside) {
        return Ok(());
    }
    let message =
        format!("{:?} cannot be mounted because it is inside /proc", destination.display().to_string());
    Err(StartError::new(Stage::Configuration, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r5_proc_is_not_for_others() {
        for path in ["/proc", "/proc/self/attr", "/x/../proc/sys", "proc"] {
            assert!(refuse_inside_proc(Path::new(path)).is_err(), "{path}");
        }
        for path in ["/procfs", "/proc/meminfo", "/srv/proc"] {
            assert!(refuse_inside_proc(Path::new(path)).is_ok(), "{path}");
        }
    }
}
