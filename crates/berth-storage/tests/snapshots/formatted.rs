//! File systems in files, for as long as a test needs them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The file systems that share contents between files (reflinks).
pub const SHARING: [&str; 2] = ["btrfs", "xfs"];
/// Bytes of one; XFS takes no fewer than 300 MB.
const SIZE: u64 = 512 << 20;

/// A fresh file system, mounted until it is dropped.
pub struct Formatted {
    /// It is there for the mount alone.
    folder: TempDir,
}

impl Formatted {
    /// Makes and mounts one. Needs root, and the kernel's part of the file system.
    pub fn new(kind: &str) -> Formatted {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(SIZE).unwrap();
        run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image));
        let formatted = Formatted { folder };
        std::fs::create_dir(formatted.path()).unwrap();
        run(Command::new("mount").args(["-t", kind, "-o", "loop"]).arg(&image).arg(formatted.path()));
        formatted
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Bytes that are free once everything is written.
    pub fn free(&self) -> u64 {
        let directory = File::open(self.path()).unwrap();
        rustix::fs::syncfs(&directory).unwrap();
        let stat = rustix::fs::fstatvfs(&directory).unwrap();
        stat.f_bfree * stat.f_frsize
    }
}

impl Drop for Formatted {
    fn drop(&mut self) {
        // The loop device goes with its last user.
        let flags = rustix::mount::UnmountFlags::DETACH;
        if let Err(error) = rustix::mount::unmount(self.path(), flags) {
            eprintln!("{} stays mounted: {error}", self.path().display());
        }
    }
}

/// The flags of a file's extents, as `filefrag` shows them.
pub fn extents(path: &Path) -> Vec<String> {
    let output = Command::new("filefrag").args(["-s", "-v"]).arg(path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // Lines of extents begin with a number and a colon; their flags stand behind the last colon.
    let is_extent = |line: &&str| {
        let first = line.split(':').next().unwrap_or_default().trim();
        line.contains(':') && !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit())
    };
    text.lines()
        .filter(is_extent)
        .map(|line| line.rsplit(':').next().unwrap_or_default().trim().to_owned())
        .collect()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
