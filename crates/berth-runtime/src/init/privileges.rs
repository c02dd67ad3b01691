//! From a root process with everything to the process that the configuration describes.
//!
//! The order matters: what needs privileges first, then the filter if it needs them too, then the user, and
//! last the capabilities.

use std::path::Path;

use berth_sys::beneath;
use berth_sys::mount::PROC_MAGIC;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, CpuSet, Gid, Uid};

use crate::launch::error::{Context, Stage, StartError, describe};
use crate::launch::plan::{CapabilityMasks, ProcessPlan, Who};
use crate::user::{self, User};

/// Forgets what a process inherits from whoever started the engine: session, keyring, affinity, signals.
///
/// Until `execve` nothing in the container can trace the process or reach its descriptors.
pub(super) fn forget_ancestors() -> Result<(), StartError> {
    berth_sys::process::reset_signals();
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context(Stage::Privileges, || "make init non-dumpable")?;
    rustix::process::setsid().context(Stage::Privileges, || "setsid")?;
    match berth_sys::process::new_session_keyring() {
        // A kernel without keys, or a filter around the engine itself.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
        other => other.context(Stage::Privileges, || "make a session keyring")?,
    }
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    // The cgroup's set limits it; a refusal leaves the inherited one.
    let _ = rustix::thread::sched_setaffinity(None, &all);
    Ok(())
}

/// Becomes root of the user namespace that the process is in.
pub(super) fn become_root() -> Result<(), StartError> {
    let what = || "become root of the user namespace";
    rustix::thread::set_thread_groups(&[]).context(Stage::Namespaces, what)?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).context(Stage::Namespaces, what)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).context(Stage::Namespaces, what)?;
    // A change of users may have made it so again, by the host's settings.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context(Stage::Privileges, || "make init non-dumpable")
}

/// Resolves the user in the present root, `/`.
pub(super) fn resolve(plan: &ProcessPlan) -> Result<User, StartError> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(Stage::User, || "open /")?;
    let failed = |error: user::Error| StartError::new(Stage::User, error.to_string());
    let root = std::os::fd::AsFd::as_fd(&root);
    match &plan.who {
        Who::Named { spec, groups } => user::resolve(root, spec, groups).map_err(failed),
        Who::Numbers { uid, gid, groups } => {
            // A damaged passwd file is no reason not to run with numbers.
            let home = if !has_home(&plan.env) { user::home(root, *uid).ok() } else { None };
            let home = home.unwrap_or_else(|| "/".to_owned());
            Ok(User { uid: *uid, gid: *gid, groups: groups.clone(), home })
        }
    }
}

/// Sets the limits of the process, which may need privileges. After it no file may be opened: a container may have fewer
/// descriptors than there are open here, all of which close with `execve`.
pub(super) fn limit(plan: &ProcessPlan) -> Result<(), StartError> {
    for (resource, limit) in &plan.limits {
        rustix::process::setrlimit(*resource, *limit).context(Stage::Limits, || {
            format!("error setting rlimits for ready process: set {resource:?}")
        })?;
    }
    Ok(())
}

/// What needs privileges but concerns no other process: scores, labels, the bounding set.
pub(super) fn restrict(plan: &ProcessPlan) -> Result<(), StartError> {
    set_oom_score(plan)?;
    if let Some(profile) = &plan.apparmor {
        let names = ["thread-self/attr/apparmor/exec", "thread-self/attr/exec"];
        write_label(&names, &format!("exec {profile}")).map_err(|error| {
            let reason = describe(&error);
            let what = "unable to apply apparmor profile: apparmor failed to apply profile";
            StartError::new(
                Stage::Privileges,
                format!("{what} {profile:?}: write /proc/{}: {reason}", names[0]),
            )
        })?;
    }
    if let Some(label) = &plan.selinux {
        write_label(&["thread-self/attr/exec"], label).map_err(|error| {
            StartError::io(Stage::Privileges, format!("unable to apply SELinux label {label:?}"), &error)
        })?;
    }
    if plan.no_new_privileges {
        rustix::thread::set_no_new_privs(true).context(Stage::Privileges, || "set no_new_privs")?;
    }
    bound(plan.capabilities.bounding)
}

/// Sets the score of the plan, if it has one.
pub(super) fn set_oom_score(plan: &ProcessPlan) -> Result<(), StartError> {
    let Some(score) = plan.oom_score_adj else { return Ok(()) };
    let what = || format!("set oom_score_adj to {score}");
    let present = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    // Lowering it needs a privilege that the engine may lack, and which an equal value does not.
    if present.trim() == score.to_string() {
        return Ok(());
    }
    write_label(&["self/oom_score_adj"], &score.to_string()).context(Stage::Limits, what)
}

/// Writes to a file of a procfs that is really one, at its root, with nothing mounted over the file or on the way
/// (R5, R27): the first of `names` that exists.
fn write_label(names: &[&str], value: &str) -> std::io::Result<()> {
    /// `PROC_ROOT_INO`.
    const ROOT: u64 = 1;
    let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    berth_sys::mount::verify_magic(&proc, PROC_MAGIC)?;
    if rustix::fs::fstat(&proc)?.st_ino != ROOT {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "/proc is not the root of a procfs",
        ));
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    for name in names {
        match rustix::fs::openat2(&proc, Path::new(name), flags, Mode::empty(), resolve) {
            Ok(file) => {
                rustix::io::write(&file, value.as_bytes())?;
                return Ok(());
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::NOENT.into())
}

/// Reduces the bounding set to `mask`.
fn bound(mask: u64) -> Result<(), StartError> {
    for number in 0..63 {
        if mask & (1 << number) != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(
            1 << number,
        )) {
            // The first number that the kernel does not know.
            Err(Errno::INVAL) => break,
            other => other.context(Stage::Privileges, || format!("drop capability {number}"))?,
        }
    }
    Ok(())
}

/// Enters the working directory and makes sure that it is one of the container's (R2).
pub(super) fn enter(directory: &Path) -> Result<(), StartError> {
    let what = || format!("chdir to cwd ({:?}) set in config.json failed", directory.display().to_string());
    rustix::process::chdir(directory).context(Stage::WorkingDirectory, what)?;
    let path = rustix::process::getcwd(Vec::new()).context(Stage::WorkingDirectory, || "getcwd")?;
    if path.as_bytes().first() != Some(&b'/') {
        let message = "current working directory is outside of container mount namespace root";
        return Err(StartError::new(Stage::Privileges, message));
    }
    Ok(())
}

/// Becomes `user` with exactly the capabilities of the plan. The filter is loaded here if that needs privileges.
pub(super) fn drop_to(user: &User, plan: &ProcessPlan) -> Result<(), StartError> {
    if !plan.no_new_privileges {
        load_filter(plan)?;
    }
    let failed = |what: &'static str| move || what;
    rustix::thread::set_keep_capabilities(true).context(Stage::Privileges, failed("keep capabilities"))?;
    let groups: Vec<Gid> = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    rustix::thread::set_thread_groups(&groups).context(Stage::User, failed("setgroups"))?;
    let gid = Gid::from_raw(user.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).context(Stage::User, failed("setgid"))?;
    let uid = Uid::from_raw(user.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).context(Stage::User, failed("setuid"))?;
    set_capabilities(plan.capabilities)?;
    rustix::process::umask(Mode::from_raw_mode(plan.umask));
    if plan.die_with_parent {
        // A change of credentials clears it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .context(Stage::Privileges, failed("set the parent's death signal"))?;
    }
    Ok(())
}

/// Loads the filter of the plan, if it has one.
pub(super) fn load_filter(plan: &ProcessPlan) -> Result<(), StartError> {
    let Some(filter) = &plan.seccomp else { return Ok(()) };
    filter.load().map_err(|error| {
        StartError::new(Stage::Privileges, format!("load the seccomp filter: {}", describe(&error)))
    })
}

/// Whether the filter is loaded last, just before the program is executed.
pub(super) fn loads_filter_last(plan: &ProcessPlan) -> bool {
    plan.no_new_privileges
}

fn set_capabilities(masks: CapabilityMasks) -> Result<(), StartError> {
    let what = || "set capabilities";
    // What the engine itself does not have it cannot give: such an engine is confined, and so are its containers.
    let own = rustix::thread::capabilities(None).context(Stage::Privileges, what)?.permitted;
    let set = |mask: u64| CapabilitySet::from_bits_retain(mask) & own;
    let sets = CapabilitySets {
        effective: set(masks.effective),
        permitted: set(masks.permitted),
        inheritable: set(masks.inheritable),
    };
    rustix::thread::set_capabilities(None, sets).context(Stage::Privileges, what)?;
    for number in (0..64).filter(|number| masks.ambient & 1 << number != 0) {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        // As other runtimes: an ambient capability that is not inheritable is left out.
        let _ = rustix::thread::configure_capability_in_ambient_set(capability, true);
    }
    Ok(())
}

/// The environment with `HOME` of the user, unless it has one. As in other runtimes, an empty one is none.
pub(super) fn environment(plan: &ProcessPlan, user: &User) -> Vec<String> {
    let mut env = plan.env.clone();
    if !has_home(&env) {
        env.retain(|entry| !entry.starts_with("HOME="));
        env.push(format!("HOME={}", user.home));
    }
    env
}

fn has_home(env: &[String]) -> bool {
    env.iter().rev().find_map(|entry| entry.strip_prefix("HOME=")).is_some_and(|home| !home.is_empty())
}

/// Makes the working directory, as Docker does, while the root is still writable.
pub(super) fn make_working_directory(
    root: std::os::fd::BorrowedFd<'_>,
    path: &Path,
) -> Result<(), StartError> {
    if path == Path::new("/") || path.starts_with("/proc") {
        return Ok(());
    }
    let made = beneath::make_directories(root, path, Mode::from_raw_mode(0o755));
    made.map(drop).context(Stage::Rootfs, || format!("mkdir {}", path.display()))
}
