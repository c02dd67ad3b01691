//! The values that say what to launch.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_sys::rtnetlink::LinkConfig;
use oci_spec::runtime::{LinuxSeccomp, Process, Spec};
use serde::{Deserialize, Serialize};

/// Annotation with the raw user (`name`, `uid`, `user:group`) that init resolves in the container's own files.
/// It wins over `process.user`, whose additional groups are kept.
pub const USER_ANNOTATION: &str = "dev.berth.user";

/// Annotation with further groups, names or numbers separated by commas, resolved like [`USER_ANNOTATION`], without which
/// it has no effect.
pub const GROUPS_ANNOTATION: &str = "dev.berth.groups";

/// Everything needed to make one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    /// The container's ID.
    pub id: String,
    /// The OCI configuration; `linux.cgroupsPath` is absolute below each hierarchy. `root.path` is not used.
    pub spec: Spec,
    /// What becomes `/`.
    pub rootfs: Rootfs,
    /// With a user namespace: the root's files and those of the engine belong on the disk to whom they belong inside
    /// (idmapped mounts), instead of to whom those are outside.
    #[serde(default)]
    pub idmap_root: bool,
    /// Whether init waits for its links.
    pub network: NetworkMode,
    /// Index in `spec.mounts` → index in the descriptors that are passed beside: detached mounts that replace the source.
    #[serde(default)]
    pub mount_fds: BTreeMap<usize, usize>,
    /// Runs the embedded tiny init as PID 1, as `/sbin/docker-init`, which starts the program.
    #[serde(default)]
    pub init: bool,
    /// Rows and columns of the terminal, when `spec.process.terminal`.
    #[serde(default)]
    pub terminal: Option<(u16, u16)>,
    /// Files of the host that are bound over names in the root, unless a mount of the spec has that destination.
    #[serde(default)]
    pub generated: Vec<GeneratedFile>,
    /// When the program is executed.
    #[serde(default)]
    pub release: ReleaseMode,
    /// The bundle directory: relative mount sources start here, and hooks read it in the container's state.
    #[serde(default)]
    pub bundle: Option<PathBuf>,
    /// What hooks of the container's namespace see, if that namespace is not made of the host's.
    #[serde(default)]
    pub hook_view: Option<HookView>,
    /// Kills the container when the cloning process ends (`PR_SET_PDEATHSIG`).
    #[serde(default)]
    pub die_with_parent: bool,
    /// How many of the caller's descriptors, from 3 on, the program gets under the same numbers. All must be open before
    /// anything else is: the engine's own would take their numbers.
    #[serde(default)]
    pub preserve_fds: u32,
}

/// The host's files as hooks see them that run in the container's mount namespace (`createContainer`): their programs
/// are the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookView {
    /// Index in the descriptors that are passed beside: a detached copy of the host's mounts.
    pub tree: usize,
    /// An existing directory of the host, absolute: the container's root is mounted there.
    pub root: PathBuf,
}

/// What becomes the container's `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// A directory, bound recursively.
    Path(PathBuf),
    /// An overlay made in the container's mount namespace.
    Overlay {
        /// Lower directories, the top one first.
        lower: Vec<PathBuf>,
        /// The writable directory.
        upper: PathBuf,
        /// The work directory, on the file system of `upper`.
        work: PathBuf,
        /// Never syncs: for what is thrown away after a crash.
        volatile: bool,
    },
}

/// Where the links of the network namespace come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The namespace is used as the spec says; only the loopback of a new one is brought up.
    #[default]
    FromSpec,
    /// Init waits for a [`Release`] before it configures links and executes.
    Await,
}

/// What init does when all but the execution of the program is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReleaseMode {
    /// It executes the program.
    #[default]
    Execute,
    /// The two phases of the OCI command line. The path is an existing FIFO of the caller (mode 0600, such as `exec.fifo`
    /// in the state directory). Init reports itself ready ([`super::Init::release`] returns) and blocks opening the FIFO for
    /// writing; [`super::start`] opens it for reading, from any process, and init executes. The program
    /// has been looked up by then, so that "not found" is an error of `create`.
    ExecFifo(PathBuf),
}

/// A file of the host bound over a name in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratedFile {
    /// The host's file.
    pub source: PathBuf,
    /// The name in the container, such as `/etc/hosts`; made if it is missing.
    pub target: PathBuf,
    /// Whether it cannot be written through that name.
    pub read_only: bool,
}

/// What init waits for with [`NetworkMode::Await`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Links that exist in the container's network namespace, to be configured from inside.
    pub links: Vec<LinkConfig>,
}

/// A process to start in a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecLaunch {
    /// Program, environment, directory, capabilities, limits. With `terminal`, a pty of the container's own devpts is made.
    pub process: Process,
    /// The container's cgroup, absolute below each hierarchy; `None` stays in the caller's.
    #[serde(default)]
    pub cgroups_path: Option<PathBuf>,
    /// The filter to load, normally the container's.
    #[serde(default)]
    pub seccomp: Option<LinuxSeccomp>,
    /// Rows and columns of the terminal, when `process.terminal`.
    #[serde(default)]
    pub terminal: Option<(u16, u16)>,
    /// The raw user (`name`, `uid`, `user:group`), resolved in the container; wins over `process.user`.
    #[serde(default)]
    pub user: Option<String>,
    /// Further groups, names or numbers, resolved with `user`, without which they have no effect.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Kills the process when the calling one ends (`PR_SET_PDEATHSIG`).
    #[serde(default)]
    pub die_with_parent: bool,
    /// As [`Launch::preserve_fds`].
    #[serde(default)]
    pub preserve_fds: u32,
}

/// The three standard descriptors of a process without a terminal; with one they are not used.
#[derive(Debug)]
pub struct Stdio {
    /// Descriptor 0.
    pub stdin: OwnedFd,
    /// Descriptor 1.
    pub stdout: OwnedFd,
    /// Descriptor 2.
    pub stderr: OwnedFd,
}

impl Stdio {
    /// All three on `/dev/null`.
    pub fn null() -> io::Result<Self> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        Ok(Self { stdin: null.try_clone()?.into(), stdout: null.try_clone()?.into(), stderr: null.into() })
    }

    /// The caller's own three.
    pub fn inherit() -> io::Result<Self> {
        let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned();
        use std::os::fd::AsFd;
        Ok(Self {
            stdin: copy(io::stdin().as_fd())?,
            stdout: copy(io::stdout().as_fd())?,
            stderr: copy(io::stderr().as_fd())?,
        })
    }
}
