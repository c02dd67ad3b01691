//! Control groups, version 1, version 2 and both beside each other: a container's cgroup from its path alone.
//!
//! A path such as `/berth/<id>` stands for one directory below the mount point of every hierarchy. Where version 1
//! and the unified hierarchy are both mounted, the controllers are where the host has put them, and the cgroup is
//! made in the unified hierarchy too, for its race-free kill and its events.
//!
//! Sources: cgroups(7), and `cgroup-v1/` and `cgroup-v2.rst` in the kernel's administrator guide. Nothing here talks
//! to systemd, and nothing here keeps state: two managers of one path are the same.

mod before;
mod creation;
mod delegation;
mod devices;
mod directory;
mod error;
mod io_entries;
mod layout;
mod oom;
mod processes;
mod real_time;
mod removal;
mod resources;
mod setting;
mod stats;

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;

use directory::Directory;
pub use error::{Error, Result};
pub use io_entries::{IoEntries, IoEntry};
pub use layout::{Hierarchy, Layout, Mode, Version};
pub use oom::OomEvents;
pub use real_time::RealTime;
use setting::Setting;
pub use stats::{CpuStats, IoStats, MemoryStats, PidsStats, Stats};

/// How long [`Manager::remove`] waits for processes that are about to end.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(1);

/// The cgroup of one path, in all hierarchies.
#[derive(Clone, Debug)]
pub struct Manager {
    layout: &'static Layout,
    /// Relative to the root of each hierarchy.
    path: String,
}

/// Open files by which a new process enters a cgroup; made before the clone, used by it or by the child.
#[derive(Debug)]
pub struct Join {
    /// The directory in the unified hierarchy, for `CLONE_INTO_CGROUP`.
    pub directory: Option<OwnedFd>,
    /// The `tasks` file in each version 1 hierarchy.
    pub tasks: Vec<OwnedFd>,
}

impl Join {
    /// The directory for `CLONE_INTO_CGROUP`, if there is a unified hierarchy.
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling thread into the version 1 cgroups. Its process must have no other thread, since they would
    /// stay where they are. For a process born by `CLONE_INTO_CGROUP` this is all that is left to do.
    ///
    /// # Errors
    /// The first write that the kernel refuses.
    pub fn enter_tasks(&self) -> Result<()> {
        for tasks in &self.tasks {
            rustix::io::write(tasks, b"0").map_err(|errno| Error::Write {
                path: PathBuf::from("tasks"),
                value: "0".to_owned(),
                source: errno.into(),
            })?;
        }
        Ok(())
    }

    /// Moves the calling process into all cgroups, for one that was not born there. In the unified hierarchy this
    /// may wait for an RCU grace period, some milliseconds.
    ///
    /// # Errors
    /// The first write that the kernel refuses.
    pub fn enter(&self) -> Result<()> {
        if let Some(directory) = &self.directory {
            let procs = PathBuf::from("cgroup.procs");
            let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
            let file = rustix::fs::openat(directory, &procs, flags, rustix::fs::Mode::empty())
                .map_err(|errno| Error::file("open", &procs)(errno.into()))?;
            File::from(file).write_all(b"0").map_err(|source| Error::Write {
                path: procs,
                value: "0".to_owned(),
                source,
            })?;
        }
        self.enter_tasks()
    }
}

impl Manager {
    /// The cgroup at `path` below the root of every hierarchy (as the caller's mount and cgroup namespaces show
    /// them). Touches only what tells which hierarchies are mounted, at the first call of the process.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] for the root itself and for `..`; [`Error::NotMounted`] without any hierarchy.
    pub fn for_path(path: &str) -> Result<Manager> {
        let components: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if components.is_empty() || components.contains(&"..") || path.contains(['\0', '\n']) {
            return Err(Error::InvalidPath(path.to_owned()));
        }
        Ok(Manager { layout: Layout::current()?, path: components.join("/") })
    }

    /// The path, absolute below each hierarchy.
    pub fn path(&self) -> String {
        format!("/{}", self.path)
    }

    /// Whether the host has cgroups v1, v2, or both.
    pub fn mode(&self) -> Mode {
        self.layout.mode()
    }

    /// Whether the cgroup exists (in the hierarchy that the kernel would list its processes from).
    pub fn exists(&self) -> bool {
        self.primary().path.exists()
    }

    /// Whether any hierarchy still has it, as after a removal that was interrupted.
    pub fn is_left(&self) -> bool {
        (0..self.layout.hierarchies.len()).any(|at| self.directory(at).path.exists())
    }

    /// The directories of the cgroup with the controllers of each, for bind mounts into a container that shares
    /// the host's cgroup namespace.
    pub fn directories(&self) -> Vec<(&'static Hierarchy, PathBuf)> {
        self.layout
            .hierarchies
            .iter()
            .map(|hierarchy| (hierarchy, hierarchy.mount.join(&self.path)))
            .collect()
    }

    /// Makes the cgroup in all hierarchies, sets `resources`, and returns the files by which the first process
    /// enters. A cgroup that exists is used as it is. On failure, what this call has made is removed again.
    ///
    /// # Errors
    /// A directory or a value that the kernel refuses, or a controller that it does not have.
    pub fn create(&self, resources: &LinuxResources) -> Result<Join> {
        let mut made = Vec::new();
        let result = self.create_inner(resources, &mut made);
        if result.is_err() {
            for directory in made.iter().rev() {
                if let Err(error) = removal::remove(directory, Instant::now()) {
                    tracing::warn!(%error, "a half-made cgroup stays");
                }
            }
        }
        result
    }

    fn create_inner(&self, resources: &LinuxResources, made: &mut Vec<Directory>) -> Result<Join> {
        let settings = resources::settings(self.layout, resources)?;
        for (at, hierarchy) in self.layout.hierarchies.iter().enumerate() {
            let directory = self.directory(at);
            let controllers = self.wanted_controllers(hierarchy, &settings);
            if creation::make(hierarchy, &self.path, &directory, &controllers)? {
                made.push(directory);
            }
        }
        creation::write(&settings, |setting| self.place(setting))?;
        self.set_devices(resources)?;
        self.join()
    }

    /// In a unified layout a cgroup gets all controllers, which its figures need. Beside version 1 only those that
    /// a setting needs, since handing them down changes the host's own cgroups.
    fn wanted_controllers(&self, hierarchy: &Hierarchy, settings: &[Setting]) -> Vec<&'static str> {
        if hierarchy.version == Version::V1 {
            return Vec::new();
        }
        let needed = |name: &str| {
            self.mode() == Mode::Unified || settings.iter().any(|setting| setting.controller == name)
        };
        delegation::WANTED.iter().copied().filter(|name| hierarchy.has(name) && needed(name)).collect()
    }

    fn set_devices(&self, resources: &LinuxResources) -> Result<()> {
        let Some(rules) = resources.devices().as_ref().filter(|rules| !rules.is_empty()) else {
            return Ok(());
        };
        let directory = self
            .controller("devices")
            .ok_or(Error::NoController { controller: "devices", setting: "a list of devices".to_owned() })?;
        devices::apply(&directory, rules)
    }

    /// Opens the files by which a further process enters.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the cgroup does not exist.
    pub fn join(&self) -> Result<Join> {
        let mut join = Join { directory: None, tasks: Vec::with_capacity(self.layout.hierarchies.len()) };
        for at in 0..self.layout.hierarchies.len() {
            let directory = self.directory(at);
            let opened = match directory.version {
                Version::V1 => directory.open_write("tasks").map(|file| join.tasks.push(file.into())),
                Version::V2 => directory.open().map(|directory| join.directory = Some(directory)),
            };
            match opened {
                Err(error) if error.errno() == Some(libc::ENOENT) => {
                    return Err(Error::NotFound(self.path()));
                }
                other => other?,
            }
        }
        Ok(join)
    }

    /// Changes the resources that `resources` names, and leaves the others.
    ///
    /// # Errors
    /// A value that the kernel refuses; the files then get back what they held. Devices stay as they were.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        if !self.exists() {
            return Err(Error::NotFound(self.path()));
        }
        self.check_usage(resources)?;
        let settings = resources::settings(self.layout, resources)?;
        before::write_all_or_none(&settings, |setting| self.place(setting))?;
        self.set_devices(resources)
    }

    /// `checkBeforeUpdate` of the OCI configuration: version 2 would kill rather than refuse a limit below usage.
    fn check_usage(&self, resources: &LinuxResources) -> Result<()> {
        let Some(memory) = resources.memory().filter(|memory| memory.check_before_update() == Some(true))
        else {
            return Ok(());
        };
        let (Some(limit), Some(directory)) = (memory.limit(), self.controller("memory")) else {
            return Ok(());
        };
        let usage = stats::memory(&directory)?.usage;
        if u64::try_from(limit).is_ok_and(|limit| limit > 0 && limit < usage) {
            return Err(Error::Unsupported(format!(
                "memory limit {limit} is below the usage of {usage} bytes"
            )));
        }
        Ok(())
    }

    /// Gives the cgroup, and those above it, CPU time for threads of real-time classes, of which those below may have a
    /// part. They are made where they are missing.
    ///
    /// # Errors
    /// [`Error::NoController`] without CPU controller, [`Error::Unsupported`] on version 2; a value that the kernel refuses.
    pub fn give_real_time(&self, time: RealTime) -> Result<()> {
        let at = self
            .layout
            .find("cpu")
            .ok_or(Error::NoController { controller: "cpu", setting: "real-time CPU time".to_owned() })?;
        real_time::give(&self.layout.hierarchies[at], &self.path, time)
    }

    /// Freezes all processes, and waits until they are.
    ///
    /// # Errors
    /// [`Error::Busy`] if a process does not freeze within two seconds.
    pub fn freeze(&self) -> Result<()> {
        processes::set_frozen(&self.freezer()?, true)
    }

    /// Lets frozen processes go on.
    ///
    /// # Errors
    /// A refusal of the kernel.
    pub fn thaw(&self) -> Result<()> {
        processes::set_frozen(&self.freezer()?, false)
    }

    /// Whether the cgroup is frozen.
    ///
    /// # Errors
    /// A refusal of the kernel.
    pub fn is_frozen(&self) -> Result<bool> {
        processes::is_frozen(&self.freezer()?)
    }

    fn freezer(&self) -> Result<Directory> {
        let directory = match self.layout.unified() {
            Some(at) => self.directory(at),
            None => self
                .controller("freezer")
                .ok_or(Error::NoController { controller: "freezer", setting: "pausing".to_owned() })?,
        };
        if directory.path.exists() { Ok(directory) } else { Err(Error::NotFound(self.path())) }
    }

    /// Sends SIGKILL to all processes, frozen ones included. They end soon after, not before the return. A cgroup
    /// that is gone has none.
    ///
    /// # Errors
    /// A refusal of the kernel, or processes that multiply without end where there is no freezer.
    pub fn kill(&self) -> Result<()> {
        let freezer = (self.layout.unified().is_none()).then(|| self.controller("freezer")).flatten();
        processes::kill(&self.primary(), freezer.as_ref().filter(|freezer| freezer.path.exists()))
    }

    /// All processes of the cgroup and those below it, in ascending order, as the caller's PID namespace numbers
    /// them.
    ///
    /// # Errors
    /// A refusal of the kernel; none if the cgroup is gone.
    pub fn pids(&self) -> Result<Vec<i32>> {
        processes::list(&self.primary())
    }

    /// How often the kernel has killed in the cgroup for lack of memory; 0 without a memory controller.
    ///
    /// # Errors
    /// A refusal of the kernel.
    pub fn oom_count(&self) -> Result<u64> {
        self.controller("memory").map_or(Ok(0), |directory| oom::count(&directory))
    }

    /// Events for lack of memory.
    ///
    /// # Errors
    /// [`Error::NoController`] without a memory controller, else a refusal of the kernel.
    pub fn oom_events(&self) -> Result<OomEvents> {
        let memory = self
            .controller("memory")
            .ok_or(Error::NoController { controller: "memory", setting: "memory events".to_owned() })?;
        oom::watch(&memory)
    }

    /// What the cgroup and those below it have used.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it does not exist, else a refusal of the kernel.
    pub fn stats(&self) -> Result<Stats> {
        if !self.exists() {
            return Err(Error::NotFound(self.path()));
        }
        let cpu = self.controller("cpu");
        Ok(Stats {
            cpu: stats::cpu(cpu.as_ref(), self.controller("cpuacct").as_ref())?,
            memory: self.controller("memory").map(|at| stats::memory(&at)).transpose()?.unwrap_or_default(),
            pids: self.controller("pids").map(|at| stats::pids(&at)).transpose()?.unwrap_or_default(),
            io: self.controller("blkio").map(|at| stats::io(&at)).transpose()?.unwrap_or_default(),
            io_entries: self
                .controller("blkio")
                .map(|at| io_entries::read(&at))
                .transpose()?
                .unwrap_or_default(),
        })
    }

    /// Removes the cgroup and those below it from all hierarchies, waiting up to a second for processes that are
    /// about to end. One that is gone is no error. All hierarchies are tried; the first error is returned.
    ///
    /// # Errors
    /// [`Error::Busy`] if a process stays.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + REMOVAL_TIMEOUT;
        let mut result = Ok(());
        // The unified hierarchy first: its event tells when the processes are gone from all.
        for at in (0..self.layout.hierarchies.len()).rev() {
            let removed = removal::remove(&self.directory(at), deadline);
            result = result.and(removed);
        }
        result
    }

    fn directory(&self, at: usize) -> Directory {
        let hierarchy = &self.layout.hierarchies[at];
        Directory { version: hierarchy.version, path: hierarchy.mount.join(&self.path) }
    }

    /// The directory in the hierarchy of a controller.
    fn controller(&self, name: &str) -> Option<Directory> {
        self.layout.find(name).map(|at| self.directory(at))
    }

    /// The directory that tells what is in the cgroup.
    fn primary(&self) -> Directory {
        let at = ["freezer", "pids", "memory"].into_iter().find_map(|name| self.layout.find(name));
        self.directory(self.layout.unified().or(at).unwrap_or(0))
    }

    fn place(&self, setting: &Setting) -> Result<Directory> {
        self.controller(setting.controller).ok_or_else(|| Error::NoController {
            controller: setting.controller,
            setting: setting.file.clone().into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        assert_eq!(Manager::for_path("/berth//x/./y/").unwrap().path(), "/berth/x/y");
        assert_eq!(Manager::for_path("berth/x").unwrap().path(), "/berth/x");
        for path in ["", "/", ".", "/berth/../x", "..", "a\nb"] {
            assert!(matches!(Manager::for_path(path), Err(Error::InvalidPath(_))), "{path:?}");
        }
    }

    #[test]
    fn a_cgroup_that_is_missing_is_quiet_where_that_is_fine() {
        let manager = Manager::for_path("/berth-test-missing/x").unwrap();
        assert!(!manager.exists());
        assert!(manager.pids().unwrap().is_empty());
        manager.kill().unwrap();
        manager.remove().unwrap();
        assert_eq!(manager.oom_count().unwrap(), 0);
        assert!(matches!(manager.join(), Err(Error::NotFound(_))));
        assert!(matches!(manager.stats(), Err(Error::NotFound(_))));
        assert!(matches!(manager.freeze(), Err(Error::NotFound(_))));
        assert!(matches!(manager.update(&LinuxResources::default()), Err(Error::NotFound(_))));
    }
}
