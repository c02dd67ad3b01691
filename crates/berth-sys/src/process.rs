//! Processes: `clone3`, `execve`, descriptors, signals and namespaces of the calling process.
//!
//! The functions that copy the process refuse to run in a process with several threads: locks that another
//! thread holds would stay locked in the copy for ever. The check is one system call.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// `CLONE_NEW*` flags, in the 64-bit form that `clone3` takes.
pub mod flags {
    /// New mount namespace.
    pub const NEWNS: u64 = libc::CLONE_NEWNS as u64;
    /// New cgroup namespace, rooted at the cgroups of the caller at that moment.
    pub const NEWCGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
    /// New UTS (host name) namespace.
    pub const NEWUTS: u64 = libc::CLONE_NEWUTS as u64;
    /// New System V IPC and POSIX message queue namespace.
    pub const NEWIPC: u64 = libc::CLONE_NEWIPC as u64;
    /// New user namespace.
    pub const NEWUSER: u64 = libc::CLONE_NEWUSER as u64;
    /// New PID namespace, whose PID 1 is the child.
    pub const NEWPID: u64 = libc::CLONE_NEWPID as u64;
    /// New network namespace.
    pub const NEWNET: u64 = libc::CLONE_NEWNET as u64;
    /// New time namespace.
    pub const NEWTIME: u64 = 0x80;
    /// The child of `clone3` becomes a sibling: its parent is the caller's parent.
    pub const PARENT: u64 = libc::CLONE_PARENT as u64;
}

/// `CLONE_INTO_CGROUP` of `linux/sched.h`; libc's constant is too narrow on some targets.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of `linux/sched.h`, version 2.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Which of the two processes a copying call returned in.
#[derive(Debug)]
pub enum Fork {
    /// The caller.
    Parent {
        /// The child, in the caller's PID namespace.
        pid: i32,
        /// A close-on-exec descriptor of the child (pidfd_open(2)).
        pidfd: OwnedFd,
    },
    /// The new process.
    Child,
}

/// Whether the calling process has one thread only and shares its memory with no other process.
///
/// `unshare(CLONE_VM)` is defined to change nothing then, and to fail with `EINVAL` otherwise.
pub fn is_single_threaded() -> bool {
    // SAFETY: unshare with CLONE_VM alone never changes anything: the kernel only checks.
    unsafe { libc::unshare(libc::CLONE_VM) == 0 }
}

/// Copies the calling process into new namespaces (`clone3(2)`), as `fork` does.
///
/// `namespaces` are [`flags`]; with `cgroup`, a directory of a cgroup v2 hierarchy, the child is born in it. The child
/// signals its end with `SIGCHLD`. Fails with `EBUSY` in a process that has several threads.
pub fn clone3(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    if !is_single_threaded() {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let mut pidfd: libc::c_int = -1;
    let args = CloneArgs {
        flags: namespaces | libc::CLONE_PIDFD as u64 | cgroup.map_or(0, |_| CLONE_INTO_CGROUP),
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        // A sibling has the caller's own.
        exit_signal: if namespaces & flags::PARENT == 0 { libc::SIGCHLD as u64 } else { 0 },
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM the child gets its own copy of the memory and goes on with the caller's stack;
    // there is no other thread whose locks it could miss. `args` and `pidfd` outlive the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        // SAFETY: the kernel stored a new descriptor, owned by nobody else.
        pid => Ok(Fork::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Copies the calling process in its own namespaces and cgroup; see [`clone3`].
pub fn fork() -> io::Result<Fork> {
    clone3(0, None)
}

/// A child that runs a function.
#[derive(Debug)]
pub struct Child {
    pidfd: OwnedFd,
}

impl Child {
    /// Readable when the child has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits for the child's end and forgets it.
    pub fn reap(&self) {
        let id = rustix::process::WaitId::PidFd(self.pidfd.as_fd());
        // One that somebody else has reaped is as good as reaped.
        let _ = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
    }
}

/// Copies the calling process; the child runs `work` with `argument` and ends with the code that it returns. Of the
/// descriptors beyond 2 it has only `keep`, which the parent gives up. Fails with `EBUSY` in a process that has several
/// threads.
pub fn fork_with(keep: OwnedFd, work: fn(OwnedFd, &str) -> i32, argument: &str) -> io::Result<Child> {
    match fork()? {
        Fork::Parent { pidfd, .. } => Ok(Child { pidfd }),
        Fork::Child => {
            // SAFETY: the child ends without returning, and neither a plain function nor a text owns a descriptor: no
            // owner of a closed one is used or dropped.
            let closed = unsafe { close_all_but(&[keep.as_fd()]) };
            exit_now(if closed.is_ok() { work(keep, argument) } else { 1 })
        }
    }
}

/// A NULL-terminated array of C strings, as `execve` takes it; made before a clone, it costs the child nothing.
#[derive(Debug, Default)]
pub struct CStrings {
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

// SAFETY: the pointers point into the heap buffers of `strings`, which belong to the same value and move with it.
unsafe impl Send for CStrings {}
// SAFETY: nothing is changed through a shared reference.
unsafe impl Sync for CStrings {}

impl CStrings {
    /// Takes the strings in their order.
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { strings, pointers }
    }

    /// Converts strings; fails with `InvalidInput` if one contains a NUL byte.
    pub fn convert<S: AsRef<[u8]>>(strings: impl IntoIterator<Item = S>) -> io::Result<Self> {
        let strings: Result<Vec<_>, _> = strings.into_iter().map(|s| CString::new(s.as_ref())).collect();
        Ok(Self::new(strings?))
    }

    /// The strings.
    pub fn as_slice(&self) -> &[CString] {
        &self.strings
    }

    /// The strings, without the array.
    pub fn into_inner(self) -> Vec<CString> {
        self.strings
    }
}

/// Replaces the program of the calling process; returns only on failure.
pub fn execve(path: &CStr, argv: &CStrings, env: &CStrings) -> io::Error {
    // SAFETY: path is NUL-terminated; both arrays are NULL-terminated and alive (invariant of CStrings).
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces the program of the calling process by the file behind a descriptor; returns only on failure.
pub fn execve_fd(file: impl AsFd, argv: &CStrings, env: &CStrings) -> io::Error {
    // SAFETY: as for execve; the path is the empty string, which AT_EMPTY_PATH requires.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Ends the process at once: no destructors, no flushing, no exit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no precondition and does not return.
    unsafe { libc::_exit(code) }
}

/// Runs `work` while the calling thread makes and opens files as this user and group, with all the capabilities that it
/// may have (setfsuid(2)).
///
/// # Errors
/// Those of `work`; `EPERM` if the thread may not change its IDs.
pub fn with_file_ids<T>(uid: u32, gid: u32, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let capabilities = rustix::thread::capabilities(None)?;
    // An ID that no user can have changes nothing, and tells the present one.
    let present = (set_file_uid(u32::MAX), set_file_gid(u32::MAX));
    set_file_gid(gid);
    set_file_uid(uid);
    let result = if (set_file_uid(u32::MAX), set_file_gid(u32::MAX)) == (uid, gid) {
        // Leaving root takes the capabilities about files out of the effective set.
        rustix::thread::set_capabilities(None, capabilities).map_err(io::Error::from).and_then(|()| work())
    } else {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    };
    set_file_uid(present.0);
    set_file_gid(present.1);
    result
}

/// The one before.
fn set_file_uid(uid: u32) -> u32 {
    // SAFETY: the call concerns the calling thread alone and touches no memory.
    unsafe { libc::syscall(libc::SYS_setfsuid, uid) as u32 }
}

/// The one before.
fn set_file_gid(gid: u32) -> u32 {
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_setfsgid, gid) as u32 }
}

const CLOSE_RANGE_CLOEXEC: libc::c_uint = 1 << 2;

fn close_range(first: i32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: only called with the CLOEXEC flag, which closes nothing, or by `close_from`, whose contract
    // says that the descriptors are given up.
    if unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, last, flags) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Marks every descriptor from `first` on close-on-exec (`close_range(2)`).
pub fn set_cloexec_from(first: i32) -> io::Result<()> {
    close_range(first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor but 0, 1, 2 and those in `keep`.
///
/// # Safety
/// No value that owns one of the closed descriptors may be used or dropped afterwards: forget them. It is for a
/// freshly copied process that keeps nothing of its parent's.
pub unsafe fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<i32> = keep.iter().map(|fd| fd.as_raw_fd()).filter(|fd| *fd > 2).collect();
    kept.sort_unstable();
    kept.dedup();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            close_range(first, (fd - 1) as u32, 0)?;
        }
        first = fd + 1;
    }
    close_range(first, libc::c_uint::MAX, 0)
}

/// The kernel's `struct sigaction`, all zero: default action, no flags.
#[repr(C)]
#[derive(Default)]
struct KernelSigaction {
    words: [u64; 4],
}

/// Gives every signal its default disposition and empties the signal mask.
///
/// `execve` keeps ignored signals ignored, and Rust's start-up code ignores `SIGPIPE`.
pub fn reset_signals() {
    let default = KernelSigaction::default();
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: the structure is as large as the kernel's on every 64-bit target and SIG_DFL needs no handler.
        // The raw call reaches the two signals that libc keeps for itself.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, ptr::null::<u8>(), 8) };
    }
    let empty = 0u64;
    // SAFETY: an 8-byte set is what the kernel takes.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const empty, ptr::null::<u8>(), 8)
    };
}

/// Blocks `signals` for the calling thread, so that they can be read from a `signalfd`.
pub fn block_signals(signals: &[i32]) -> io::Result<()> {
    let set = signals.iter().fold(0u64, |set, signal| set | 1 << (signal - 1));
    // SAFETY: an 8-byte set is what the kernel takes.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, &raw const set, ptr::null::<u8>(), 8)
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A close-on-exec, non-blocking descriptor that becomes readable when one of `signals`, which must be blocked, is pending.
pub fn signalfd(signals: &[i32]) -> io::Result<OwnedFd> {
    let set = signals.iter().fold(0u64, |set, signal| set | 1 << (signal - 1));
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: an 8-byte set is what the kernel takes; -1 asks for a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const set, 8, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Moves the calling process into the namespaces `namespaces` ([`flags`]) of a process or namespace descriptor.
///
/// Meant for processes with one thread: with several, only the calling one moves, and user and mount namespaces
/// fail with `EINVAL`. A PID namespace applies to children made afterwards.
pub fn setns(target: impl AsFd, namespaces: u64) -> io::Result<()> {
    // SAFETY: namespaces decide what later calls see; memory and descriptors stay.
    if unsafe { libc::setns(target.as_fd().as_raw_fd(), namespaces as libc::c_int) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Moves the calling thread, alone, into an existing mount namespace: its root and working directory become the
/// namespace's, and are no longer those of the process's other threads. There is no way back.
pub fn enter_mount_namespace(target: impl AsFd) -> io::Result<()> {
    // SAFETY: CLONE_FS gives the thread a root, working directory and umask of its own; no memory is shared or freed.
    if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    setns(target, flags::NEWNS)
}

/// Moves the calling thread into new namespaces ([`flags`]); see unshare(2).
pub fn unshare(namespaces: u64) -> io::Result<()> {
    // SAFETY: the CLONE_NEW* flags share and free no memory; CLONE_FILES and CLONE_FS are not accepted here.
    if unsafe { libc::unshare((namespaces & ALL_NAMESPACES) as libc::c_int) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

const ALL_NAMESPACES: u64 = flags::NEWNS
    | flags::NEWCGROUP
    | flags::NEWUTS
    | flags::NEWIPC
    | flags::NEWUSER
    | flags::NEWPID
    | flags::NEWNET
    | flags::NEWTIME;

/// Copies `source` over the number `target`, not close-on-exec; what `target` was is closed.
///
/// # Safety
/// No value may own `target`. For 0, 1 and 2 use rustix's `dup2_stdin` and its like.
pub unsafe fn dup_to(source: impl AsFd, target: i32) -> io::Result<()> {
    // SAFETY: the caller promises that nobody owns `target`.
    if unsafe { libc::dup3(source.as_fd().as_raw_fd(), target, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Joins a new anonymous session keyring, so that the parent's keys do not leak into the child (keyctl(2)).
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is touched.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets the execution domain of the process (personality(2)).
pub fn personality(domain: u32) -> io::Result<()> {
    // SAFETY: no memory is touched.
    if unsafe { libc::personality(libc::c_ulong::from(domain)) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copying_a_threaded_process_is_refused() {
        // The test harness itself is threaded.
        let keep = std::thread::spawn(std::thread::park);
        assert_eq!(clone3(0, None).unwrap_err().raw_os_error(), Some(libc::EBUSY));
        keep.thread().unpark();
        keep.join().unwrap();
    }

    #[test]
    fn strings_with_nul_are_refused() {
        assert!(CStrings::convert(["a", "b\0c"]).is_err());
        assert_eq!(CStrings::convert(["a", "b"]).unwrap().as_slice().len(), 2);
    }
}
