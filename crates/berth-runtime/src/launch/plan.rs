//! What a launch comes to once everything that can be computed or opened before the clone has been.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_sys::mount;
use berth_sys::process::flags;
use oci_spec::runtime::{Capabilities, LinuxNamespaceType, LinuxSeccomp, PosixRlimitType, Process, Spec};
use rustix::fs::CWD;
use rustix::process::{Resource, Rlimit};

use super::error::{Context, Stage, StartError};
use super::types::{GROUPS_ANNOTATION, Launch, USER_ANNOTATION};
use crate::{capability, seccomp};

/// Who a process is to run as.
#[derive(Debug)]
pub(crate) enum Who {
    /// Looked up in the container's files.
    Named { spec: String, groups: Vec<String> },
    /// Given by numbers.
    Numbers { uid: u32, gid: u32, groups: Vec<u32> },
}

/// Capability sets as the kernel's masks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CapabilityMasks {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// A process, whether it is a container's first or joins one.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: PathBuf,
    pub who: Who,
    pub umask: u32,
    pub limits: Vec<(Resource, Rlimit)>,
    pub no_new_privileges: bool,
    pub capabilities: CapabilityMasks,
    pub apparmor: Option<String>,
    pub selinux: Option<String>,
    pub oom_score_adj: Option<i32>,
    pub seccomp: Option<seccomp::Program>,
    /// Rows and columns, if a terminal is wanted; zeros leave its size.
    pub terminal: Option<(u16, u16)>,
    pub die_with_parent: bool,
}

impl ProcessPlan {
    pub fn new(
        process: &Process,
        user: Option<Named>,
        filter: Option<&LinuxSeccomp>,
        terminal: Option<(u16, u16)>,
        die_with_parent: bool,
    ) -> Result<Self, StartError> {
        let args = process.args().clone().unwrap_or_default();
        if args.is_empty() {
            return Err(StartError::new(Stage::Configuration, "process.args must not be empty"));
        }
        let cwd = process.cwd().clone();
        if !cwd.is_absolute() {
            let message = format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                cwd.display()
            );
            return Err(StartError::new(Stage::Configuration, message));
        }
        if process.scheduler().is_some()
            || process.io_priority().is_some()
            || process.exec_cpu_affinity().is_some()
        {
            let message = "process.scheduler, ioPriority and execCPUAffinity are not supported";
            return Err(StartError::new(Stage::Configuration, message));
        }
        Ok(Self {
            args,
            env: process.env().clone().unwrap_or_default(),
            cwd,
            who: who(process, user),
            umask: process.user().umask().unwrap_or(0o022) & 0o777,
            limits: limits(process)?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            capabilities: capabilities(process),
            apparmor: non_empty(process.apparmor_profile()),
            selinux: non_empty(process.selinux_label()),
            oom_score_adj: process.oom_score_adj(),
            seccomp: filter.map(compile).transpose()?,
            terminal: process.terminal().unwrap_or(false).then_some(terminal.unwrap_or_default()),
            die_with_parent,
        })
    }
}

fn non_empty(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

fn compile(filter: &LinuxSeccomp) -> Result<seccomp::Program, StartError> {
    seccomp::program(filter)
        .map_err(|error| StartError::new(Stage::Configuration, format!("seccomp: {error}")))
}

/// A user and further groups that init looks up in the container's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// `name`, `uid`, `user:group`; empty for root.
    pub user: String,
    /// Names or numbers.
    pub groups: Vec<String>,
}

fn who(process: &Process, user: Option<Named>) -> Who {
    let groups = process.user().additional_gids().clone().unwrap_or_default();
    match user {
        Some(Named { user, groups: mut named }) => {
            named.extend(groups.iter().map(ToString::to_string));
            Who::Named { spec: user, groups: named }
        }
        None => Who::Numbers { uid: process.user().uid(), gid: process.user().gid(), groups },
    }
}

fn capabilities(process: &Process) -> CapabilityMasks {
    let Some(sets) = process.capabilities() else { return CapabilityMasks::default() };
    let mask =
        |set: &Option<Capabilities>| set.as_ref().map_or(0, |set| capability::mask(set.iter().copied()));
    CapabilityMasks {
        bounding: mask(sets.bounding()),
        effective: mask(sets.effective()),
        permitted: mask(sets.permitted()),
        inheritable: mask(sets.inheritable()),
        ambient: mask(sets.ambient()),
    }
}

fn limits(process: &Process) -> Result<Vec<(Resource, Rlimit)>, StartError> {
    let mut limits: Vec<(Resource, Rlimit)> = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        let resource = resource(limit.typ());
        if limits.iter().any(|(given, _)| *given == resource) {
            let message = format!("process.rlimits has {} twice", limit.typ());
            return Err(StartError::new(Stage::Configuration, message));
        }
        let value = |value: u64| (value != u64::MAX).then_some(value);
        limits.push((resource, Rlimit { current: value(limit.soft()), maximum: value(limit.hard()) }));
    }
    Ok(limits)
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

/// The namespaces of a container.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    /// Flags of those made by the clone.
    pub new: u64,
    /// Made by init itself, once it is in its cgroups.
    pub cgroup: bool,
    /// Existing ones that init joins.
    pub joined: Vec<(u64, OwnedFd)>,
    /// An existing PID namespace: the parent joins it for its children.
    pub pid: Option<OwnedFd>,
    /// An existing user namespace, which is joined before any other is made or joined.
    pub user: Option<OwnedFd>,
}

impl Namespaces {
    pub fn new(spec: &Spec) -> Result<Self, StartError> {
        let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        let mut namespaces = Self::default();
        for namespace in listed.into_iter().flatten() {
            let kind = namespace.typ();
            let path = namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty());
            namespaces.add(kind, path)?;
        }
        let own_uts = namespaces.new & flags::NEWUTS != 0
            || namespaces.joined.iter().any(|(kind, _)| *kind == flags::NEWUTS);
        if !own_uts && (spec.hostname().is_some() || spec.domainname().is_some()) {
            // It would become the host's.
            let message = "unable to set hostname without a private UTS namespace";
            return Err(StartError::new(Stage::Configuration, message));
        }
        if namespaces.new & flags::NEWNS == 0 {
            let message = "a container needs a mount namespace of its own";
            return Err(StartError::new(Stage::Configuration, message));
        }
        Ok(namespaces)
    }

    fn add(&mut self, kind: LinuxNamespaceType, path: Option<&Path>) -> Result<(), StartError> {
        let flag = match kind {
            LinuxNamespaceType::Mount => flags::NEWNS,
            LinuxNamespaceType::Cgroup => flags::NEWCGROUP,
            LinuxNamespaceType::Uts => flags::NEWUTS,
            LinuxNamespaceType::Ipc => flags::NEWIPC,
            LinuxNamespaceType::Pid => flags::NEWPID,
            LinuxNamespaceType::Network => flags::NEWNET,
            LinuxNamespaceType::Time => flags::NEWTIME,
            LinuxNamespaceType::User => flags::NEWUSER,
        };
        if (self.new & flag) != 0 || self.joined.iter().any(|(joined, _)| *joined == flag) {
            return Err(StartError::new(Stage::Configuration, format!("namespace {kind} is listed twice")));
        }
        let Some(path) = path else {
            if kind == LinuxNamespaceType::Cgroup {
                self.cgroup = true;
            } else {
                self.new |= flag;
            }
            return Ok(());
        };
        if kind == LinuxNamespaceType::Mount {
            let message = "joining an existing mount namespace is not supported";
            return Err(StartError::new(Stage::Configuration, message));
        }
        let file =
            File::open(path).context(Stage::Namespaces, || format!("open namespace {}", path.display()))?;
        if kind == LinuxNamespaceType::Pid {
            self.pid = Some(file.into());
        } else if kind == LinuxNamespaceType::User {
            self.user = Some(file.into());
        } else {
            self.joined.push((flag, file.into()));
        }
        Ok(())
    }

    /// Whether the network namespace is the container's own, and new.
    pub fn own_network(&self) -> bool {
        self.new & flags::NEWNET != 0
    }

    /// Whether the host name is the container's own, to be set.
    pub fn own_uts(&self) -> bool {
        self.new & flags::NEWUTS != 0
    }
}

/// The host's mounts that [`super::HookView`] counts.
pub(crate) fn host_tree(launch: &Launch, given: &[OwnedFd]) -> Result<Option<OwnedFd>, StartError> {
    let Some(view) = &launch.hook_view else { return Ok(None) };
    let tree = given.get(view.tree);
    let tree = tree
        .ok_or_else(|| StartError::new(Stage::Protocol, "the descriptor of the host's mounts is missing"))?;
    tree.try_clone().map(Some).context(Stage::Protocol, || "copy a descriptor")
}

/// Detached mounts for the bind mounts of `launch`, by index of the mount: those given, and those opened here.
pub(crate) fn bind_sources(launch: &Launch, given: Vec<OwnedFd>) -> Result<Vec<Option<OwnedFd>>, StartError> {
    let mut given: Vec<Option<OwnedFd>> = given.into_iter().map(Some).collect();
    let mounts = launch.spec.mounts().as_deref().unwrap_or_default();
    let mut sources = Vec::with_capacity(mounts.len());
    for (index, entry) in mounts.iter().enumerate() {
        if let Some(position) = launch.mount_fds.get(&index) {
            let fd = given.get_mut(*position).and_then(Option::take);
            let fd =
                fd.ok_or_else(|| StartError::new(Stage::Protocol, "a descriptor of a mount is missing"))?;
            sources.push(Some(fd));
            continue;
        }
        let options = entry.options().as_deref().unwrap_or_default();
        let recursive = options.iter().any(|option| option == "rbind");
        let is_bind = recursive
            || options.iter().any(|option| option == "bind")
            || entry.typ().as_deref() == Some("bind");
        let source = entry.source().as_deref().filter(|_| is_bind);
        sources.push(
            source.map(|source| open_source(launch, source, entry.destination(), recursive)).transpose()?,
        );
    }
    Ok(sources)
}

fn open_source(
    launch: &Launch,
    source: &Path,
    destination: &Path,
    recursive: bool,
) -> Result<OwnedFd, StartError> {
    let path = match &launch.bundle {
        Some(bundle) => bundle.join(source),
        None => source.to_owned(),
    };
    mount::clone_at(CWD, &path, recursive).context(Stage::Mount, || {
        format!(
            "error mounting {:?} to rootfs at {:?}: open {}",
            path.display().to_string(),
            destination.display().to_string(),
            path.display()
        )
    })
}

/// The raw user of a container's first process, if the engine left it to init.
pub(crate) fn annotated_user(spec: &Spec) -> Option<Named> {
    let annotations = spec.annotations().as_ref()?;
    let user = annotations.get(USER_ANNOTATION)?.clone();
    let groups = annotations.get(GROUPS_ANNOTATION).map_or("", String::as_str);
    let groups = groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect();
    Some(Named { user, groups })
}

/// Refuses what the configuration asks for and this runtime does not do, rather than leave it out.
pub(crate) fn refuse_unsupported(spec: &Spec) -> Result<(), StartError> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let asked = [
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.netDevices", linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty())),
        ("linux.timeOffsets", linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty())),
        ("linux.mountLabel", linux.mount_label().as_ref().is_some_and(|label| !label.is_empty())),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        Some((name, _)) => Err(StartError::new(Stage::Configuration, format!("{name} is not supported"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxNamespace, PosixRlimitBuilder};

    use super::*;
    use crate::defaults;

    fn process() -> Process {
        defaults::spec(&["true"]).process().clone().unwrap()
    }

    fn refusal(process: &Process) -> String {
        ProcessPlan::new(process, None, None, None, false).unwrap_err().message
    }

    #[test]
    fn the_default_process_has_dockers_capabilities_and_none_to_inherit() {
        let plan = ProcessPlan::new(&process(), None, None, None, false).unwrap();
        assert_eq!(plan.capabilities.bounding, 0xa804_25fb);
        assert_eq!((plan.capabilities.inheritable, plan.capabilities.ambient), (0, 0));
        assert_eq!(plan.umask, 0o022);
        assert!(plan.terminal.is_none());
    }

    #[test]
    fn what_cannot_run_is_refused() {
        let mut empty = process();
        empty.set_args(Some(Vec::new()));
        assert_eq!(refusal(&empty), "process.args must not be empty");
        let mut relative = process();
        relative.set_cwd(PathBuf::from("tmp"));
        assert!(refusal(&relative).contains("'tmp' is invalid"));
        let limit = PosixRlimitBuilder::default();
        let limit = limit.typ(PosixRlimitType::RlimitNofile).soft(1_u64).hard(2_u64).build().unwrap();
        let mut twice = process();
        twice.set_rlimits(Some(vec![limit, limit]));
        assert!(refusal(&twice).contains("RLIMIT_NOFILE twice"));
    }

    #[test]
    fn the_largest_limit_is_none() {
        let limit = PosixRlimitBuilder::default();
        let limit = limit.typ(PosixRlimitType::RlimitCore).soft(0_u64).hard(u64::MAX).build().unwrap();
        let mut limited = process();
        limited.set_rlimits(Some(vec![limit]));
        let plan = ProcessPlan::new(&limited, None, None, None, false).unwrap();
        assert_eq!(plan.limits, [(Resource::Core, Rlimit { current: Some(0), maximum: None })]);
    }

    fn namespaces(kinds: &[(LinuxNamespaceType, Option<&str>)]) -> Result<Namespaces, StartError> {
        let listed = kinds.iter().map(|(kind, path)| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(*kind).set_path(path.map(PathBuf::from));
            namespace
        });
        let mut spec = defaults::spec(&["true"]);
        if let Some(linux) = spec.linux_mut() {
            linux.set_namespaces(Some(listed.collect()));
        }
        Namespaces::new(&spec)
    }

    #[test]
    fn namespaces_are_made_joined_or_refused() {
        use LinuxNamespaceType::{Cgroup, Mount, Network, Pid, User, Uts};
        let made =
            namespaces(&[(Mount, None), (Cgroup, None), (Network, Some("/proc/self/ns/net"))]).unwrap();
        assert_eq!(made.new, flags::NEWNS);
        assert!(made.cgroup && !made.own_network() && !made.own_uts());
        assert_eq!(made.joined.len(), 1);
        assert!(namespaces(&[(Mount, None), (Pid, Some("/proc/self/ns/pid"))]).unwrap().pid.is_some());
        assert!(namespaces(&[(Uts, None)]).unwrap_err().message.contains("mount namespace"));
        assert_eq!(namespaces(&[(Mount, None), (User, None)]).unwrap().new, flags::NEWNS | flags::NEWUSER);
        assert!(namespaces(&[(Mount, None), (User, Some("/proc/self/ns/user"))]).unwrap().user.is_some());
        assert!(
            namespaces(&[(Mount, None), (Uts, None), (Uts, None)]).unwrap_err().message.contains("twice")
        );
        let missing = namespaces(&[(Mount, None), (Network, Some("/nowhere"))]).unwrap_err();
        assert_eq!(missing.message, "open namespace /nowhere: no such file or directory");
    }

    #[test]
    fn a_mount_without_its_descriptor_is_refused() {
        let mut spec = defaults::spec(&["true"]);
        spec.set_mounts(Some(vec![defaults::mount("/x", "bind", "/nowhere", &["rbind"])]));
        let launch = Launch {
            id: "x".to_owned(),
            spec,
            rootfs: super::super::Rootfs::Path(PathBuf::from("/")),
            idmap_root: false,
            network: super::super::NetworkMode::FromSpec,
            mount_fds: [(0, 0)].into(),
            init: false,
            terminal: None,
            generated: Vec::new(),
            release: super::super::ReleaseMode::Execute,
            bundle: None,
            hook_view: None,
            die_with_parent: false,
            preserve_fds: 0,
        };
        assert!(bind_sources(&launch, Vec::new()).unwrap_err().message.contains("descriptor"));
        let launch = Launch { mount_fds: [].into(), ..launch };
        let error = bind_sources(&launch, Vec::new()).unwrap_err();
        assert!(error.message.contains("open /nowhere: no such file or directory"), "{error}");
    }
}
