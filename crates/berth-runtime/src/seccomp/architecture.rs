//! The system call tables that the kernel may run a program by, and the numbers in them.

use oci_spec::runtime::Arch;

use super::table::{NO, Row, TABLE};

/// `__X32_SYSCALL_BIT`: set in the numbers of x32 calls, which else look like those of x86_64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// One of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    X86_64,
    X32,
    X86,
    Aarch64,
    Arm,
}

/// What the kernel shows as `arch` (`AUDIT_ARCH_*` of `linux/audit.h`), and the tables behind it in the order of their numbers.
pub(super) struct Machine {
    pub audit: u32,
    pub tables: &'static [Table],
}

const MACHINES: &[Machine] = if cfg!(target_arch = "x86_64") {
    &[
        Machine { audit: 0xc000_003e, tables: &[Table::X86_64, Table::X32] },
        Machine { audit: 0x4000_0003, tables: &[Table::X86] },
    ]
} else {
    &[
        Machine { audit: 0xc000_00b7, tables: &[Table::Aarch64] },
        Machine { audit: 0x4000_0028, tables: &[Table::Arm] },
    ]
};

/// What this machine's kernel can show; the native one first.
pub(super) fn machines() -> &'static [Machine] {
    MACHINES
}

impl Table {
    /// Whether a configuration that lists `architectures` is about this table. The native one always is.
    pub fn is_listed(self, architectures: &[Arch]) -> bool {
        let (native, name) = match self {
            Table::X86_64 => (true, Arch::ScmpArchX86_64),
            Table::X32 => (false, Arch::ScmpArchX32),
            Table::X86 => (false, Arch::ScmpArchX86),
            Table::Aarch64 => (true, Arch::ScmpArchAarch64),
            Table::Arm => (false, Arch::ScmpArchArm),
        };
        native || architectures.contains(&name)
    }

    /// Whether conditions are about 64 bits of an argument; those of x32 are about the lower half, though the kernel
    /// shows both.
    pub fn is_wide(self) -> bool {
        matches!(self, Table::X86_64 | Table::Aarch64)
    }

    /// The number of a call, if the table has it.
    pub fn number(self, row: &Row) -> Option<u32> {
        let number = match self {
            Table::X86_64 => row.1,
            Table::X32 => return x32(row),
            Table::X86 => row.2,
            Table::Aarch64 => row.3,
            Table::Arm => row.4,
        };
        u32::try_from(number).ok()
    }
}

/// x32 shares the numbers of x86_64, but for calls whose structures differ, and for the obsolete, which it lacks.
fn x32(row: &Row) -> Option<u32> {
    const OWN: [&str; 36] = [
        "rt_sigaction",
        "rt_sigreturn",
        "ioctl",
        "readv",
        "writev",
        "recvfrom",
        "sendmsg",
        "recvmsg",
        "execve",
        "ptrace",
        "rt_sigpending",
        "rt_sigtimedwait",
        "rt_sigqueueinfo",
        "sigaltstack",
        "timer_create",
        "mq_notify",
        "kexec_load",
        "waitid",
        "set_robust_list",
        "get_robust_list",
        "vmsplice",
        "move_pages",
        "preadv",
        "pwritev",
        "rt_tgsigqueueinfo",
        "recvmmsg",
        "sendmmsg",
        "process_vm_readv",
        "process_vm_writev",
        "setsockopt",
        "getsockopt",
        "io_setup",
        "io_submit",
        "execveat",
        "preadv2",
        "pwritev2",
    ];
    const MISSING: [&str; 11] = [
        "_sysctl",
        "create_module",
        "epoll_ctl_old",
        "epoll_wait_old",
        "get_kernel_syms",
        "get_thread_area",
        "nfsservctl",
        "query_module",
        "set_thread_area",
        "uselib",
        "vserver",
    ];
    /// The number of the first of [`OWN`].
    const FIRST_OWN: u32 = 512;
    if row.1 == NO || MISSING.contains(&row.0) {
        return None;
    }
    let own = OWN.iter().position(|name| *name == row.0);
    let number =
        own.map_or(u32::try_from(row.1).ok(), |index| u32::try_from(index).ok().map(|n| FIRST_OWN + n));
    number.map(|number| number | X32_BIT)
}

/// The row of a call; `None` if no architecture here has one of that name.
pub(super) fn row(name: &str) -> Option<&'static Row> {
    TABLE.binary_search_by(|row| row.0.cmp(name)).ok().and_then(|index| TABLE.get(index))
}

/// A call that x86 also reaches by the first argument of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Multiplexed {
    /// The number of the call that takes them all.
    pub by: u32,
    /// Its first argument, under `mask`.
    pub value: u64,
    /// Which bits of it count.
    pub mask: u64,
}

/// How x86 also reaches `name`: the socket calls by socketcall(2), System V IPC by ipc(2).
pub(super) fn multiplexed(name: &str) -> Option<Multiplexed> {
    const SOCKETCALL: u32 = 102;
    const IPC: u32 = 117;
    let socket = |value| Some(Multiplexed { by: SOCKETCALL, value, mask: 0xffff_ffff });
    // The upper half of ipc's argument is a version.
    let ipc = |value| Some(Multiplexed { by: IPC, value, mask: 0xffff });
    match name {
        "socket" => socket(1),
        "bind" => socket(2),
        "connect" => socket(3),
        "listen" => socket(4),
        "accept" => socket(5),
        "getsockname" => socket(6),
        "getpeername" => socket(7),
        "socketpair" => socket(8),
        "send" => socket(9),
        "recv" => socket(10),
        "sendto" => socket(11),
        "recvfrom" => socket(12),
        "shutdown" => socket(13),
        "setsockopt" => socket(14),
        "getsockopt" => socket(15),
        "sendmsg" => socket(16),
        "recvmsg" => socket(17),
        "accept4" => socket(18),
        "recvmmsg" => socket(19),
        "sendmmsg" => socket(20),
        "semop" => ipc(1),
        "semget" => ipc(2),
        "semctl" => ipc(3),
        "semtimedop" => ipc(4),
        "msgsnd" => ipc(11),
        "msgrcv" => ipc(12),
        "msgget" => ipc(13),
        "msgctl" => ipc(14),
        "shmat" => ipc(21),
        "shmdt" => ipc(22),
        "shmget" => ipc(23),
        "shmctl" => ipc(24),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        assert!(row("nope").is_none());
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn numbers_are_those_of_libc() {
        let number = |name: &str| row(name).and_then(|row| Table::X86_64.number(row)).map(i64::from);
        assert_eq!(number("read"), Some(libc::SYS_read));
        assert_eq!(number("clone3"), Some(libc::SYS_clone3));
        assert_eq!(number("openat2"), Some(libc::SYS_openat2));
        assert_eq!(number("socketcall"), None);
    }

    /// The C library's headers, which linking needs anyway, hold the same facts.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn numbers_are_those_of_the_headers() {
        let files =
            [(Table::X86_64, "unistd_64.h"), (Table::X86, "unistd_32.h"), (Table::X32, "unistd_x32.h")];
        for (table, file) in files {
            let path = format!("/usr/include/x86_64-linux-gnu/asm/{file}");
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            let mut seen = 0;
            for line in text.lines() {
                let Some((name, value)) =
                    line.strip_prefix("#define __NR_").and_then(|rest| rest.split_once(' '))
                else {
                    continue;
                };
                let digits: String = value.chars().filter(char::is_ascii_digit).collect();
                let x32 = value.contains("__X32_SYSCALL_BIT");
                let expected: u32 =
                    digits.strip_prefix("32").filter(|_| x32).unwrap_or(&digits).parse().unwrap();
                let expected = if x32 { expected | X32_BIT } else { expected };
                let row = row(name).unwrap_or_else(|| panic!("{name} is missing"));
                assert_eq!(table.number(row), Some(expected), "{name} of {file}");
                seen += 1;
            }
            assert!(seen > 300, "{seen} calls in {file}");
        }
    }
}
