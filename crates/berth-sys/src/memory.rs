//! Memory that a process need not keep.

use std::io;

/// Lets go of the pages of the program's own code; those that are run again come back from the page cache.
///
/// Most of what a long-lived process has run when it begins to wait was for its start only. While they are mapped, the
/// kernel counts these pages as the process's memory, and parts with them late (madvise(2), `MADV_DONTNEED`).
///
/// # Errors
/// When the process's mappings cannot be read, or the kernel refuses.
pub fn release_code() -> io::Result<()> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    for range in maps.lines().filter_map(code_range) {
        let length = range.end.saturating_sub(range.start);
        // SAFETY: the pages are an unmodified private mapping of a file without write permission, as the kernel has just said:
        // dropping them changes no content, and whoever runs them, also this function, reads them from the file again.
        let result = unsafe { libc::madvise(range.start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The addresses of a line of `/proc/pid/maps` (proc_pid_maps(5)) that is a file's private, executable mapping.
fn code_range(line: &str) -> Option<std::ops::Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let inode = fields.nth(2)?;
    if permissions != "r-xp" || inode == "0" {
        return None;
    }
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_found() {
        let line = "7f0000001000-7f0000003000 r-xp 00001000 fe:00 1234                       /usr/bin/x y";
        assert_eq!(code_range(line), Some(0x7f00_0000_1000..0x7f00_0000_3000));
        for other in [
            "7f0000001000-7f0000003000 r--p 00001000 fe:00 1234                       /usr/bin/x",
            "7f0000001000-7f0000003000 rwxp 00001000 fe:00 1234                       /usr/bin/x",
            "7ffc00000000-7ffc00001000 r-xp 00000000 00:00 0                          [vdso]",
            "",
        ] {
            assert_eq!(code_range(other), None, "{other}");
        }
    }

    #[test]
    fn the_program_goes_on_with_fewer_pages() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let before = resident();
        release_code().unwrap();
        assert!(resident() < before);
        assert_eq!(format!("{:?}", vec![1, 2]), "[1, 2]");
    }
}
