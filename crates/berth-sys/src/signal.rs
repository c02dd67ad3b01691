//! Signals by number, the real-time ones included, which rustix names only in part.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The first real-time signal: the C library keeps two for itself (signal(7)).
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Names without `SIG`, at the index of their numbers on x86 and ARM (signal(7)).
const NAMES: [&str; 32] = [
    "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The number of a signal given as `9`, `KILL`, `SIGKILL` or `sigkill`, `RTMIN+3`, `RTMAX-2`; `None` for what is none.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let alias = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    if let Some(number) = NAMES.iter().skip(1).position(|known| *known == alias) {
        return i32::try_from(number + 1).ok();
    }
    real_time(name)
}

fn real_time(name: &str) -> Option<i32> {
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN + offset(rest, '+')?
    } else {
        RTMAX - offset(name.strip_prefix("RTMAX")?, '-')?
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

fn offset(rest: &str, sign: char) -> Option<i32> {
    if rest.is_empty() {
        Some(0)
    } else {
        rest.strip_prefix(sign)?.parse().ok().filter(|n| (0..=30).contains(n))
    }
}

/// Sends signal number `signal` (0 only checks) to the process that `pidfd` refers to (`pidfd_send_signal(2)`).
pub fn send(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: no signal information is passed, no memory is touched; the kernel checks the number.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_real_time_signal_arrives() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        send(&pidfd, 0).unwrap();
        assert_eq!(send(&pidfd, 999).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        send(&pidfd, 40).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(40));
    }

    #[test]
    fn names_numbers_and_real_time_signals() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigkill", 9),
            ("term", 15),
            ("SIGHUP", 1),
            ("SYS", 31),
            ("WINCH", 28),
            ("IOT", 6),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX", 64),
            ("rtmax-2", 62),
            ("64", 64),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
    }

    #[test]
    fn nonsense_is_no_signal() {
        for text in ["", "0", "-1", "65", "SIG", "FOO", "SIGSIGKILL", "RTMIN+31", "RTMIN-1", "RTMAX+1", "9x"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
