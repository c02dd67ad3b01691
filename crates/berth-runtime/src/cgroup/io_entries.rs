//! Block I/O as the kernel lists it: one counter for each device and kind of operation.

use super::directory::Directory;
use super::error::Result;
use super::layout::Version;

/// One counter of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoEntry {
    /// Major device number.
    pub major: u64,
    /// Minor device number.
    pub minor: u64,
    /// The kind: the kernel's word on version 1 (`Read`, `Sync`, `Total`, …), `read` or `write` on version 2.
    pub operation: String,
    /// The counter: bytes, or a number of operations.
    pub value: u64,
}

/// The counters of all devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoEntries {
    /// Bytes transferred.
    pub bytes: Vec<IoEntry>,
    /// Operations done.
    pub operations: Vec<IoEntry>,
}

/// Reads the counters.
pub(super) fn read(directory: &Directory) -> Result<IoEntries> {
    let text = |file: &str| Ok(directory.read_if_present(file)?.unwrap_or_default());
    match directory.version {
        Version::V2 => Ok(unified(&text("io.stat")?)),
        Version::V1 => {
            // The throttling counters begin with the first limit on newer kernels; BFQ, where it schedules, counts
            // by itself.
            for policy in ["throttle", "bfq"] {
                let entries = IoEntries {
                    bytes: legacy(&text(&format!("blkio.{policy}.io_service_bytes_recursive"))?),
                    operations: legacy(&text(&format!("blkio.{policy}.io_serviced_recursive"))?),
                };
                if entries != IoEntries::default() {
                    return Ok(entries);
                }
            }
            Ok(IoEntries::default())
        }
    }
}

fn number(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Lines such as `8:0 Read 4096`. The total of all devices, without a number, is left out.
fn legacy(text: &str) -> Vec<IoEntry> {
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let (major, minor) = number(fields.next()?)?;
        let operation = fields.next()?.to_owned();
        Some(IoEntry { major, minor, operation, value: fields.next()?.parse().ok()? })
    };
    text.lines().filter_map(entry).collect()
}

/// Lines such as `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn unified(text: &str) -> IoEntries {
    let mut entries = IoEntries::default();
    for line in text.lines() {
        let Some((device, figures)) = line.split_once(' ') else { continue };
        let Some((major, minor)) = number(device) else { continue };
        if figures.trim().is_empty() {
            continue;
        }
        let value = |key: &str| {
            let figure =
                figures.split_whitespace().find_map(|field| field.strip_prefix(key)?.strip_prefix('='));
            figure.and_then(|figure| figure.parse().ok()).unwrap_or(0)
        };
        let entry =
            |operation: &str, key| IoEntry { major, minor, operation: operation.into(), value: value(key) };
        entries.bytes.extend([entry("read", "rbytes"), entry("write", "wbytes")]);
        entries.operations.extend([entry("read", "rios"), entry("write", "wios")]);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(entries: &[IoEntry]) -> Vec<String> {
        let one = |e: &IoEntry| format!("{}:{} {} {}", e.major, e.minor, e.operation, e.value);
        entries.iter().map(one).collect()
    }

    fn directory(version: Version, files: &[(&str, &str)]) -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let directory = Directory { version, path: folder.path().to_path_buf() };
        (folder, directory)
    }

    #[test]
    fn version_1_keeps_the_kernels_words() {
        let (_keep, at) = directory(
            Version::V1,
            &[
                ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 10\n8:0 Total 10\nTotal 10\n"),
                ("blkio.throttle.io_serviced_recursive", "8:0 Read 1\nnonsense\n8:x Read 1\nTotal 1\n"),
                ("blkio.bfq.io_service_bytes_recursive", "8:0 Read 99\n"),
            ],
        );
        let found = read(&at).unwrap();
        assert_eq!(show(&found.bytes), ["8:0 Read 10", "8:0 Total 10"]);
        assert_eq!(show(&found.operations), ["8:0 Read 1"]);
    }

    #[test]
    fn bfq_is_asked_where_nothing_is_throttled() {
        let (_keep, at) = directory(
            Version::V1,
            &[
                ("blkio.throttle.io_service_bytes_recursive", "Total 0\n"),
                ("blkio.bfq.io_service_bytes_recursive", "8:0 Write 7\nTotal 7\n"),
            ],
        );
        assert_eq!(show(&read(&at).unwrap().bytes), ["8:0 Write 7"]);
    }

    #[test]
    fn version_2_has_reads_and_writes() {
        let text = "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:32 \nbroken\n";
        let (_keep, at) = directory(Version::V2, &[("io.stat", text)]);
        let found = read(&at).unwrap();
        assert_eq!(show(&found.bytes), ["8:16 read 1", "8:16 write 2"]);
        assert_eq!(show(&found.operations), ["8:16 read 3", "8:16 write 4"]);
        let (_keep, at) = directory(Version::V2, &[]);
        assert_eq!(read(&at).unwrap(), IoEntries::default());
    }
}
