//! Mounts by descriptor: new file systems, detached copies, attributes, verification (mount_setattr(2), fsopen(2)).
//!
//! Nothing here takes a target path: what is mounted and where are both descriptors, so that no symlink can come
//! between the check and the mount.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    move_mount, open_tree, unmount,
};

/// Attributes of a mount, as `mount_setattr` takes them.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-ID bits and file capabilities have no effect.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes have no effect.
    pub const NODEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = 0x8;
    /// The field of access-time modes; set one, clear the field.
    pub const ATIME: u64 = 0x70;
    /// Access times are never updated.
    pub const NOATIME: u64 = 0x10;
    /// Access times are always updated.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories are never updated.
    pub const NODIRATIME: u64 = 0x80;
    /// IDs are mapped by a user namespace.
    pub const IDMAP: u64 = 0x10_0000;
    /// Symlinks on the mount are not followed.
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// Propagation types of a mount (mount_namespaces(7)).
pub mod propagation {
    /// Events go both ways between peers.
    pub const SHARED: u64 = libc::MS_SHARED;
    /// No events.
    pub const PRIVATE: u64 = libc::MS_PRIVATE;
    /// Events come from the master only.
    pub const SLAVE: u64 = libc::MS_SLAVE;
    /// No events, and it cannot be bound.
    pub const UNBINDABLE: u64 = libc::MS_UNBINDABLE;
}

/// `PROC_SUPER_MAGIC` of `linux/magic.h`.
pub const PROC_MAGIC: u64 = 0x9fa0;
/// `SYSFS_MAGIC`.
pub const SYSFS_MAGIC: u64 = 0x6265_6572;
/// `DEVPTS_SUPER_MAGIC`.
pub const DEVPTS_MAGIC: u64 = 0x1cd1;
/// `CGROUP2_SUPER_MAGIC`.
pub const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// `CGROUP_SUPER_MAGIC`.
pub const CGROUP_MAGIC: u64 = 0x27_e0eb;
/// `TMPFS_MAGIC`.
pub const TMPFS_MAGIC: u64 = 0x0102_1994;
/// `OVERLAYFS_SUPER_MAGIC`.
pub const OVERLAY_MAGIC: u64 = 0x794c_7630;

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// What [`set_attributes`] changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// [`attr`] bits to set.
    pub set: u64,
    /// [`attr`] bits to clear, before `set` is applied.
    pub clear: u64,
    /// A [`propagation`] type, or 0 to leave it.
    pub propagation: u64,
    /// The mount and everything below it.
    pub recursive: bool,
}

/// Changes attributes of the mount that a descriptor refers to (`mount_setattr(2)`).
///
/// `userns` is required with [`attr::IDMAP`]: a descriptor of the user namespace whose mapping applies.
pub fn set_attributes(
    mount: impl AsFd,
    change: Attributes,
    userns: Option<std::os::fd::BorrowedFd<'_>>,
) -> io::Result<()> {
    // The access-time modes are one field: the kernel wants it cleared whenever one is set.
    let clear = if change.set & attr::ATIME != 0 { change.clear | attr::ATIME } else { change.clear };
    let value = MountAttr {
        attr_set: change.set,
        attr_clr: clear,
        propagation: change.propagation,
        userns_fd: userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path is the empty string, the structure is as large as said; the kernel only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const value,
            size_of::<MountAttr>(),
        )
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// One parameter of a file system (`fsconfig(2)`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameter {
    /// A flag without a value.
    Flag(CString),
    /// A key with its value.
    Value(CString, CString),
}

impl Parameter {
    /// Parses `key` or `key=value`, as in the options of mount(8). A NUL byte is `InvalidInput`.
    pub fn parse(option: &str) -> io::Result<Self> {
        Ok(match option.split_once('=') {
            Some((key, value)) => Self::Value(CString::new(key)?, CString::new(value)?),
            None => Self::Flag(CString::new(option)?),
        })
    }

    /// A key with its value.
    pub fn value(key: &str, value: impl Into<Vec<u8>>) -> io::Result<Self> {
        Ok(Self::Value(CString::new(key)?, CString::new(value)?))
    }
}

/// Makes a new, detached mount of a file system with [`attr`] bits. Attach it with [`attach`].
pub fn new_filesystem(kind: &str, parameters: &[Parameter], attributes: u64) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for parameter in parameters {
        match parameter {
            Parameter::Flag(key) => fsconfig_set_flag(&context, key.as_c_str())?,
            Parameter::Value(key, value) => fsconfig_set_string(&context, key.as_c_str(), value.as_c_str())?,
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as _);
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Makes a detached copy of the mount (with everything below it if `recursive`) at which `source` points: a bind mount
/// that is not attached yet (`open_tree(2)`).
pub fn clone_tree(source: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    clone_at(source, Path::new(""), recursive)
}

/// As [`clone_tree`], of a path relative to `directory`; symlinks are followed: only for names the host chose.
pub fn clone_at(directory: impl AsFd, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(directory, path, flags)?)
}

/// Attaches a detached mount on what `target` refers to, file or directory alike.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}

/// `MS_BIND` of mount(2), for [`by_name`].
pub const BIND: u64 = libc::MS_BIND;
/// `MS_REC` of mount(2), for [`by_name`].
pub const RECURSIVE: u64 = libc::MS_REC;

/// Mounts `device` at `place` by mount(2), whose options every file system knows. What a bind is to be besides, such as
/// read-only, it becomes by a second call: the first one heeds nothing else. Only for paths that the host chose.
pub fn by_name(device: &str, place: &Path, kind: &str, flags: u64, data: &str) -> io::Result<()> {
    let data = CString::new(data)?;
    let bits = |flags: u64| MountFlags::from_bits_retain(flags as _);
    let data = Some(data.as_c_str()).filter(|data| !data.is_empty());
    rustix::mount::mount(device, place, kind, bits(flags), data)?;
    if flags & BIND != 0 && flags & !(BIND | RECURSIVE) != 0 {
        let again = rustix::mount::mount("", place, "", bits(flags | libc::MS_REMOUNT), None);
        if let Err(error) = again {
            // Better nothing than a mount that may do more.
            detach(place)?;
            return Err(error.into());
        }
    }
    Ok(())
}

/// Sets how mounts propagate at `place`, by the flags of mount(2).
pub fn change_propagation(place: &Path, flags: u64) -> io::Result<()> {
    Ok(rustix::mount::mount_change(place, MountPropagationFlags::from_bits_retain(flags as _))?)
}

/// Takes the mount at `path` out of the mount table at once; it ends when nobody uses it any more. `InvalidInput` if
/// nothing is mounted there. Only for paths that the host chose.
pub fn detach(path: &Path) -> io::Result<()> {
    Ok(unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

/// The magic number of the file system that a descriptor is on (`fstatfs(2)`).
pub fn magic(file: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstatfs(file)?.f_type as u64)
}

/// Fails with `InvalidData` unless the descriptor is on a file system with this magic number.
pub fn verify_magic(file: impl AsFd, expected: u64) -> io::Result<()> {
    let found = magic(file)?;
    if found == expected {
        return Ok(());
    }
    let message = format!("expected a file system with magic {expected:#x}, found {found:#x}");
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}
