//! Project quotas: a limit of what a directory tree may take on its file system (quotactl_fd(2), ioctl_xfs(2)).
//!
//! Ext4 and XFS have them, if they are mounted with `prjquota` or `pquota`. Each file belongs to a project, which it
//! inherits from the directory that it is made in.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// `PRJQUOTA`: the kind of quota.
const PROJECT: u32 = 2;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
/// `Q_XGETQSTAT`, which the kernel answers for ext4 too.
const Q_XGETQSTAT: u32 = (b'X' as u32) << 8 | 5;
/// `FS_QUOTA_PDQ_ENFD`: limits of projects are enforced.
const PROJECTS_ENFORCED: u16 = 1 << 5;
/// `QIF_BLIMITS`: the limits of blocks are given.
const BLOCK_LIMITS: u32 = 1;
/// `QIF_DQBLKSIZE`: the unit of the limits, in bytes.
const LIMIT_UNIT: u64 = 1024;

const FS_IOC_FSGETXATTR: u64 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
/// `FS_XFLAG_PROJINHERIT`: what is made inside belongs to the same project.
const INHERIT: u32 = 0x200;

/// `struct if_dqblk`.
#[repr(C)]
#[derive(Default)]
struct Block {
    hard_limit: u64,
    soft_limit: u64,
    bytes: u64,
    inode_hard_limit: u64,
    inode_soft_limit: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}

/// The first fields of `struct fs_quota_stat`, and room for the rest.
#[repr(C)]
struct Stat {
    version: i8,
    flags: u16,
    rest: [u64; 16],
}

/// What a project takes, and may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
    /// The limit in bytes; 0 for none.
    pub limit: u64,
}

impl Usage {
    /// Whether nothing belongs to the project and nothing limits it.
    pub fn is_unused(self) -> bool {
        self == Usage::default()
    }
}

/// Whether the file system of a file or directory enforces limits of projects.
pub fn is_enforced(file: impl AsFd) -> io::Result<bool> {
    let mut stat = Stat { version: 1, flags: 0, rest: [0; 16] };
    // SAFETY: the structure is larger than what the kernel writes for this command.
    let result = unsafe { control(&file, Q_XGETQSTAT, 0, (&raw mut stat).cast()) };
    match result {
        Ok(()) => Ok(stat.flags & PROJECTS_ENFORCED != 0),
        // No quotas on this file system, or a kernel without them.
        Err(error)
            if [Errno::NOSYS, Errno::SRCH, Errno::INVAL, Errno::OPNOTSUPP, Errno::NODEV, Errno::NOTBLK]
                .iter()
                .any(|code| error.raw_os_error() == Some(code.raw_os_error())) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Puts an empty directory into a project, and with it everything that will be made inside.
pub fn assign(directory: impl AsFd, project: u32) -> io::Result<()> {
    let mut attributes = Attributes::default();
    let descriptor = directory.as_fd().as_raw_fd();
    // SAFETY: the request takes a pointer to this structure, which the kernel fills in.
    let result = unsafe { libc::ioctl(descriptor, FS_IOC_FSGETXATTR as _, &raw mut attributes) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    attributes.project = project;
    attributes.flags |= INHERIT;
    // SAFETY: as above; the kernel only reads.
    let result = unsafe { libc::ioctl(descriptor, FS_IOC_FSSETXATTR as _, &raw const attributes) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Limits a project to so many bytes, rounded up to the kernel's unit of 1,024; 0 takes the limit away.
pub fn limit(file: impl AsFd, project: u32, bytes: u64) -> io::Result<()> {
    let blocks = bytes.div_ceil(LIMIT_UNIT);
    let mut block = Block { hard_limit: blocks, soft_limit: blocks, valid: BLOCK_LIMITS, ..Block::default() };
    // SAFETY: the structure is the one that this command reads.
    unsafe { control(&file, Q_SETQUOTA, project, (&raw mut block).cast()) }
}

/// What a project takes on the file system of `file`.
pub fn usage(file: impl AsFd, project: u32) -> io::Result<Usage> {
    let mut block = Block::default();
    // SAFETY: the structure is the one that this command fills in.
    let result = unsafe { control(&file, Q_GETQUOTA, project, (&raw mut block).cast()) };
    match result {
        Ok(()) => Ok(Usage {
            bytes: block.bytes,
            inodes: block.inodes,
            limit: block.hard_limit.saturating_mul(LIMIT_UNIT),
        }),
        // XFS keeps nothing of a project that nobody has used.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Usage::default()),
        Err(error) => Err(error),
    }
}

/// `quotactl_fd(2)`, for project quotas.
///
/// # Safety
/// `data` points to what the command reads or writes.
unsafe fn control(file: &impl AsFd, command: u32, project: u32, data: *mut libc::c_void) -> io::Result<()> {
    let command = command << 8 | PROJECT;
    // SAFETY: the caller vouches for `data`.
    let result =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_fd().as_raw_fd(), command, project, data) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_quotas_enforces_none() {
        assert!(!is_enforced(std::fs::File::open("/proc").unwrap()).unwrap());
        assert!(!is_enforced(std::fs::File::open("/sys").unwrap()).unwrap());
    }

    #[test]
    fn the_structures_are_the_kernels() {
        assert_eq!((size_of::<Block>(), size_of::<Attributes>()), (72, 28));
        assert_eq!(std::mem::offset_of!(Stat, flags), 2);
    }
}
