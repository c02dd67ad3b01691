//! Which rules were added, so that they alone are taken away again: the chains are shared with the administrator, and
//! perhaps with a Docker. The file lies where it ends with the boot, as the rules do.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

/// Lines beyond those in force before the file is written anew.
const SLACK: usize = 2000;

/// A file with a line for each rule: family, table, chain, words.
pub(super) struct Record {
    path: PathBuf,
    lines: usize,
}

impl Record {
    pub(super) fn new(path: PathBuf) -> Record {
        Record { path, lines: 0 }
    }

    /// All that may be there.
    pub(super) fn read(&self) -> io::Result<BTreeSet<String>> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        }
    }

    /// Notes rules that are about to be added.
    pub(super) fn add(&mut self, lines: &[String]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        file.write_all(text.as_bytes())?;
        self.lines += lines.len();
        Ok(())
    }

    /// Whether the file holds much that is no longer so.
    pub(super) fn is_stale(&self, in_force: usize) -> bool {
        self.lines > 2 * in_force + SLACK
    }

    /// Makes the file just these.
    pub(super) fn replace(&mut self, lines: &BTreeSet<String>) -> io::Result<()> {
        if lines.is_empty() {
            self.lines = 0;
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let fresh = self.path.with_extension("new");
        let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        fs::write(&fresh, text)?;
        fs::rename(&fresh, &self.path)?;
        self.lines = lines.len();
        Ok(())
    }
}
