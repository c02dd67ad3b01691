//! One directory of a cgroup file system: the few operations that everything here is made of.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::error::{Error, Result};
use super::layout::Version;

/// Most files have a few lines; `memory.stat` has some kilobytes, `cgroup.procs` a line for each process.
const MAX_FILE: u64 = 16 << 20;

/// The directory of a cgroup in one hierarchy. It need not exist.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    pub version: Version,
    pub path: PathBuf,
}

impl Directory {
    /// Makes the directory; false if it was there. Its parent must exist.
    pub(super) fn make(&self) -> io::Result<bool> {
        match rustix::fs::mkdir(&self.path, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn file(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    /// A descriptor of the directory, for CLONE_INTO_CGROUP and device programs.
    pub(super) fn open(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.path, flags, Mode::empty())
            .map_err(|errno| Error::file("open", &self.path)(errno.into()))
    }

    /// Opens a file for writing values.
    pub(super) fn open_write(&self, name: &str) -> Result<File> {
        let path = self.file(name);
        open_write(&path).map_err(Error::file("open", &path))
    }

    /// Writes `value` by one write(2).
    pub(super) fn write(&self, name: &str, value: &str) -> Result<()> {
        let path = self.file(name);
        open_write(&path)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|source| Error::Write { path, value: value.to_owned(), source })
    }

    /// The content of a file, trimmed at its end.
    pub(super) fn read(&self, name: &str) -> Result<String> {
        let path = self.file(name);
        let mut text = String::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
            .map_err(Error::file("read", &path))?;
        text.truncate(text.trim_end().len());
        Ok(text)
    }

    /// The content of a file, or none if the kernel does not have it or the cgroup is gone.
    pub(super) fn read_if_present(&self, name: &str) -> Result<Option<String>> {
        match self.read(name) {
            Ok(text) => Ok(Some(text)),
            // ENODEV: the cgroup went away between open and read. EOPNOTSUPP: built in, but switched off.
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The number after `key` and a blank, in files of such lines.
    pub(super) fn read_key(&self, name: &str, key: &str) -> Result<Option<u64>> {
        Ok(self.read_if_present(name)?.and_then(|text| value_of(&text, key)))
    }

    /// The cgroups directly below. A directory that is gone has none.
    pub(super) fn children(&self) -> Result<Vec<Directory>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::file("list", &self.path)(error)),
        };
        let mut children = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::file("list", &self.path))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                children.push(Directory { version: self.version, path: entry.path() });
            }
        }
        Ok(children)
    }

    /// Calls `visit` with the directory and all below, parents first. The walk has no recursion: a container
    /// that may make cgroups chooses the depth.
    pub(super) fn walk(&self, mut visit: impl FnMut(&Directory) -> Result<()>) -> Result<()> {
        let mut pending = vec![self.clone()];
        while let Some(directory) = pending.pop() {
            visit(&directory)?;
            pending.extend(directory.children()?);
        }
        Ok(())
    }

    /// Processes (thread group leaders) of this directory alone, as the caller's PID namespace numbers them.
    pub(super) fn processes(&self) -> Result<Vec<i32>> {
        let text = match self.read("cgroup.procs") {
            Ok(text) => text,
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        // Processes of other PID namespaces read as 0.
        Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid > 0).collect())
    }
}

fn open_write(path: &Path) -> io::Result<File> {
    File::options().write(true).open(path)
}

/// The number after `key` and a blank in a text of such lines.
pub(super) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_whole_words() {
        let text = "oom_kill_disable 1\nunder_oom 0\noom_kill 42\n";
        assert_eq!(value_of(text, "oom_kill"), Some(42));
        assert_eq!(value_of(text, "oom"), None);
        assert_eq!(value_of("oom_kill x", "oom_kill"), None);
    }

    #[test]
    fn what_is_gone_reads_as_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let gone = Directory { version: Version::V2, path: temporary.path().join("gone") };
        assert_eq!(gone.read_if_present("memory.stat").unwrap(), None);
        assert!(gone.children().unwrap().is_empty());
        assert!(gone.processes().unwrap().is_empty());
        assert!(gone.read("memory.stat").unwrap_err().to_string().contains("gone/memory.stat"));
    }

    #[test]
    fn walks_reach_every_depth() {
        let temporary = tempfile::tempdir().unwrap();
        fs::create_dir_all(temporary.path().join("a/b/c")).unwrap();
        fs::write(temporary.path().join("a/file"), "").unwrap();
        let root = Directory { version: Version::V1, path: temporary.path().to_path_buf() };
        let mut seen = Vec::new();
        root.walk(|directory| {
            seen.push(directory.path.strip_prefix(temporary.path()).unwrap().to_path_buf());
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, ["", "a", "a/b", "a/b/c"].map(PathBuf::from));
    }
}
