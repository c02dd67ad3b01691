//! A daemon of a test's own, and the clients that talk to it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::files;
use crate::filesystems::{Disk, Kind};
use crate::output::{Output, eventually, run};

/// The binary under test.
pub fn binary() -> PathBuf {
    std::env::var_os("BERTH_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_berth").into(), PathBuf::from)
}

/// Which command line a test speaks through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Our own.
    Berth,
    /// The stock `docker` client.
    Docker,
}

/// A daemon with its own roots, in a network namespace of the test's own. Dropping it ends everything in that
/// namespace and removes its cgroups.
pub struct Daemon {
    /// What the data root is on, if not the file system of all else. It goes before the folder.
    disk: Option<Disk>,
    /// Data root, exec root and socket are below this folder.
    pub root: TempDir,
    netns: OwnedFd,
    child: Option<Child>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Daemon {
    /// Starts a daemon and loads the `busybox` image.
    pub fn start() -> Daemon {
        let daemon = Daemon::empty(&[]);
        daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
        daemon
    }

    /// The same with one of the firewall's backends.
    pub fn over(backend: &str) -> Daemon {
        let daemon = Daemon::empty(&["--firewall-backend", backend]);
        daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
        daemon
    }

    /// Starts a daemon with a variable in its environment, and loads the `busybox` image.
    pub fn start_with(name: &str, value: &str) -> Daemon {
        let daemon = Daemon::begin(&[], &[(name, value)]);
        daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
        daemon
    }

    /// Starts a daemon without images, with further arguments.
    pub fn empty(arguments: &[&str]) -> Daemon {
        Daemon::begin(arguments, &[])
    }

    fn begin(arguments: &[&str], environment: &[(&str, &str)]) -> Daemon {
        let netns = berth_sys::netns::unshare().expect("a network namespace: tests need root");
        berth_sys::rtnetlink::loopback_up().unwrap();
        Daemon::within(netns, None, arguments, environment)
    }

    /// Starts a daemon with its data root on a file system of its own, and loads the `busybox` image.
    pub fn on(kind: Kind, arguments: &[&str]) -> Daemon {
        let netns = berth_sys::netns::unshare().expect("a network namespace: tests need root");
        berth_sys::rtnetlink::loopback_up().unwrap();
        let daemon = Daemon::within(netns, Some(kind), arguments, &[]);
        daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
        daemon
    }

    /// Starts another daemon in this one's network namespace, and loads the `busybox` image.
    pub fn beside(&self) -> Daemon {
        let daemon = Daemon::within(self.netns.try_clone().unwrap(), None, &[], &[]);
        daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
        daemon
    }

    fn within(
        netns: OwnedFd,
        kind: Option<Kind>,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Daemon {
        let root = tempfile::Builder::new().prefix("berth-it-").tempdir().unwrap();
        let arguments = arguments.iter().map(|a| a.to_string()).collect();
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let environment = environment.collect();
        let mut daemon = Daemon { disk: None, root, netns, child: None, arguments, environment };
        daemon.disk = kind.map(|kind| Disk::new(kind, daemon.root.path(), &daemon.data_root()));
        daemon.launch();
        daemon
    }

    /// Other arguments for the next launch.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|a| a.to_string()).collect();
    }

    /// The command that starts this test's daemon.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command
            .arg("daemon")
            .arg("--data-root")
            .arg(self.data_root())
            .arg("--exec-root")
            .arg(self.exec_root());
        command.arg("-H").arg(self.host()).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Whether the daemon runs, as far as the test has to do with it.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Starts the daemon and waits until it serves.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "the daemon runs already");
        let (ready, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        rustix::io::fcntl_setfd(&tell, rustix::io::FdFlags::empty()).unwrap();
        let log =
            File::options().create(true).append(true).open(self.root.path().join("daemon.log")).unwrap();
        let mut command = self.command();
        command.arg("--ready-fd").arg(tell.as_raw_fd().to_string());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        drop(tell);
        let mut byte = [0];
        let read = File::from(ready).read(&mut byte).unwrap();
        assert_eq!(read, 1, "the daemon did not start:\n{}", self.log());
    }

    /// What the daemon wrote to standard error so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.root.path().join("daemon.log")).unwrap_or_default()
    }

    /// The daemon's data root.
    pub fn data_root(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// The daemon's exec root.
    pub fn exec_root(&self) -> PathBuf {
        self.root.path().join("exec")
    }

    /// The socket as clients name it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The socket's path.
    pub fn socket(&self) -> PathBuf {
        self.root.path().join("berth.sock")
    }

    /// The daemon's process ID.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// Kills the daemon as nothing can be prepared for.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops the daemon as a service manager does.
    pub fn stop(&mut self) -> i32 {
        let mut child = self.child.take().expect("the daemon runs");
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        child.wait().unwrap().code().unwrap_or(-1)
    }

    /// A command of one of the clients, ready to run.
    pub fn client<S: AsRef<OsStr>>(&self, client: Client, arguments: &[S]) -> Command {
        let mut command = match client {
            Client::Berth => Command::new(binary()),
            Client::Docker => Command::new("docker"),
        };
        command.env_remove("DOCKER_HOST").env_remove("BERTH_HOST").env("DOCKER_CONFIG", self.root.path());
        command.arg("-H").arg(self.host()).args(arguments);
        command
    }

    /// Runs `berth` with these arguments.
    #[track_caller]
    pub fn berth<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        run(&mut self.client(Client::Berth, arguments))
    }

    /// Runs one of the clients with these arguments.
    #[track_caller]
    pub fn with<S: AsRef<OsStr>>(&self, client: Client, arguments: &[S]) -> Output {
        run(&mut self.client(client, arguments))
    }

    /// Starts a container in the background with the arguments of `run -d` and returns its ID.
    #[track_caller]
    pub fn background(&self, arguments: &[&str]) -> String {
        self.berth(&[&["run", "-d"], arguments].concat()).ok()
    }

    /// What `inspect -f` makes of a container.
    #[track_caller]
    pub fn inspect(&self, name: &str, template: &str) -> String {
        self.berth(&["inspect", "-f", template, name]).ok()
    }

    /// The process ID of a container's init on the host.
    pub fn init_pid(&self, name: &str) -> i32 {
        self.inspect(name, "{{.State.Pid}}").parse().unwrap()
    }

    /// The parent of a container's init: its shim.
    pub fn shim_pid(&self, name: &str) -> i32 {
        parent_of(self.init_pid(name)).expect("the container runs")
    }

    /// Waits until the container has ended and returns its exit code.
    #[track_caller]
    pub fn wait(&self, name: &str) -> i32 {
        self.berth(&["wait", name]).ok().parse().unwrap()
    }

    /// All processes in the test's network namespace: daemon, spawner, shims, net process, registries.
    pub fn processes(&self) -> Vec<i32> {
        let ours = rustix::fs::fstat(&self.netns).unwrap().st_ino;
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
            let inside = fs::metadata(entry.path().join("ns/net")).is_ok_and(|m| m.ino() == ours);
            if inside && pid != std::process::id() as i32 {
                found.push(pid);
            }
        }
        found
    }

    /// The process of the test's namespace whose command line contains `argument`.
    #[track_caller]
    pub fn process_with(&self, argument: &str) -> i32 {
        eventually(argument, || {
            self.processes().into_iter().find(|pid| {
                fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.split(|b| *b == 0).any(|part| part == argument.as_bytes()))
            })
        })
    }
}

/// The parent of a process.
pub fn parent_of(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Kills a process and waits until it is gone or a zombie.
pub fn kill_and_see_it_gone(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    eventually("the killed process is gone", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let gone = status.is_empty() || status.contains("State:\tZ");
        gone.then_some(())
    });
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- daemon's log\n{}---", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for _ in 0..50 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for pid in left {
                // It may be gone by now.
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        unmount_below(self.root.path());
        remove_cgroups(&self.data_root());
        remove_cgroups(&self.data_root().join("vfs"));
    }
}

/// Takes away what a test that failed has left mounted, such as volumes: other tests look for mounts of any.
fn unmount_below(root: &Path) {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let places = table.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    for place in places.filter(|place| place.starts_with(root)) {
        let _ = rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Removes the cgroups of a data root's containers from every hierarchy.
fn remove_cgroups(data_root: &Path) {
    let Ok(containers) = fs::read_dir(data_root.join("containers")) else { return };
    let Ok(hierarchies) = fs::read_dir("/sys/fs/cgroup") else { return };
    let hierarchies: Vec<_> = hierarchies.flatten().map(|h| h.path()).collect();
    for container in containers.flatten() {
        for hierarchy in &hierarchies {
            let folder = hierarchy.join("berth").join(container.file_name());
            for _ in 0..100 {
                match fs::remove_dir(&folder) {
                    Err(error) if error.raw_os_error() == Some(16) => {
                        std::thread::sleep(std::time::Duration::from_millis(5));
                    }
                    _ => break,
                }
            }
        }
    }
}
