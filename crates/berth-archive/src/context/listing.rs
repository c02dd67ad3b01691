//! The files of a context without their contents, in the order in which trees are told: names by their bytes, a directory
//! directly before all that it holds, and the directories on the way to a file that is not left out.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::vec::IntoIter;

use rustix::fs::{FileType, Stat};

use super::{Insert, Sink, walk};
use crate::ignore::Ignore;
use crate::overlay::{Found, Opened};
use crate::{Error, Result};

/// The attribute with a file's capabilities.
const CAPABILITY: &CStr = c"security.capability";

/// A file of a context, but for its content.
#[derive(Debug)]
pub struct Listed {
    /// Its path from the context's root.
    pub path: Vec<u8>,
    /// What it is.
    pub stat: Stat,
    /// The target of a symbolic link; the first name of a file that has several in the context. Empty for others.
    pub link: Vec<u8>,
    /// Its capabilities; empty for none.
    pub capability: Vec<u8>,
    /// Its content, if that is not what the directory has.
    pub content: Option<Vec<u8>>,
}

/// Tells of what is beneath `root` and not left out by `ignore`, and of `inserts`. Blocks. No symbolic link is followed. What
/// vanishes meanwhile, and sockets, are left out.
///
/// # Errors
/// File errors; those of `take`.
pub fn list(
    root: BorrowedFd<'_>,
    ignore: &Ignore,
    mut inserts: Vec<Insert>,
    take: &mut dyn FnMut(Listed) -> Result<()>,
) -> Result<()> {
    inserts.sort_by(|a, b| a.name.cmp(&b.name));
    let stat = rustix::fs::fstat(root).map_err(|error| Error::file("examining", b".", error))?;
    let mut lister =
        Lister { take, inserts: inserts.into_iter(), stat, passed: Vec::new(), links: HashMap::new() };
    walk(root, ignore, &mut Vec::new(), &mut lister)?;
    while let Some(insert) = lister.inserts.next() {
        lister.inserted(insert)?;
    }
    Ok(())
}

struct Lister<'a> {
    take: &'a mut dyn FnMut(Listed) -> Result<()>,
    inserts: IntoIter<Insert>,
    /// What is known of the root.
    stat: Stat,
    /// Directories that were left out, down to where the walk is.
    passed: Vec<Listed>,
    /// The first names of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Lister<'_> {
    /// Tells of a file, after the directories that it needs.
    fn tell(&mut self, listed: Listed) -> Result<()> {
        for directory in std::mem::take(&mut self.passed) {
            if holds(&directory.path, &listed.path) {
                (self.take)(directory)?;
            }
        }
        (self.take)(listed)
    }

    /// Tells of inserts that come before a name at the top. Gives the one that has its name.
    fn before(&mut self, path: &[u8]) -> Result<Option<Insert>> {
        if path.contains(&b'/') {
            return Ok(None);
        }
        while let Some(first) = self.inserts.as_slice().first() {
            match first.name.as_bytes().cmp(path) {
                std::cmp::Ordering::Less => {
                    if let Some(insert) = self.inserts.next() {
                        self.inserted(insert)?;
                    }
                }
                std::cmp::Ordering::Equal => return Ok(self.inserts.next()),
                std::cmp::Ordering::Greater => break,
            }
        }
        Ok(None)
    }

    /// An insert that nothing has the name of.
    fn inserted(&mut self, insert: Insert) -> Result<()> {
        let mut stat = self.stat;
        stat.st_mode = FileType::RegularFile.as_raw_mode() | 0o600;
        stat.st_mtime = 0;
        self.replaced(&stat, insert.name.as_bytes(), insert.content)
    }
}

/// Whether a directory is on the way to a path.
fn holds(directory: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

impl Sink for Lister<'_> {
    fn entry(&mut self, here: &Opened, name: &CStr, found: &Found, path: &[u8]) -> Result<()> {
        if let Some(insert) = self.before(path)?
            && found.kind() == FileType::RegularFile
        {
            return self.replaced(&found.stat, path, insert.content);
        }
        let (mut link, mut capability) = (Vec::new(), Vec::new());
        match found.kind() {
            FileType::Symlink => match here.link(found, name) {
                Ok(target) => link = target,
                Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            },
            FileType::RegularFile => {
                let stat = &found.stat;
                if stat.st_nlink > 1 {
                    let first = self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.to_vec());
                    if first != path {
                        first.clone_into(&mut link);
                    }
                }
                capability = here.attribute(found, name, CAPABILITY)?.unwrap_or_default();
            }
            FileType::Socket | FileType::Unknown => return Ok(()),
            _ => {}
        }
        self.tell(Listed { path: path.to_vec(), stat: found.stat, link, capability, content: None })
    }

    fn replaced(&mut self, stat: &Stat, path: &[u8], content: Vec<u8>) -> Result<()> {
        let mut stat = *stat;
        stat.st_size = i64::try_from(content.len()).unwrap_or(i64::MAX);
        // Other content has another time, whatever the file has whose place it takes.
        stat.st_mtime_nsec = (crc32(&content) % 1_000_000_000).into();
        let path = path.to_vec();
        self.tell(Listed { path, stat, link: Vec::new(), capability: Vec::new(), content: Some(content) })
    }

    fn passed(&mut self, _: &Opened, _: &CStr, found: &Found, path: &[u8]) -> Result<()> {
        self.before(path)?;
        self.passed.retain(|directory| holds(&directory.path, path));
        let (stat, path) = (found.stat, path.to_vec());
        self.passed.push(Listed { path, stat, link: Vec::new(), capability: Vec::new(), content: None });
        Ok(())
    }
}

/// A checksum that tells contents apart which nobody chose to be alike.
fn crc32(content: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(content);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::path::Path;

    use super::*;

    fn listed(root: &Path, patterns: &[&str], inserts: &[(&str, &str)]) -> Vec<Listed> {
        let root = fs::File::open(root).unwrap();
        let insert = |(name, content): &(&str, &str)| Insert {
            name: (*name).to_owned(),
            content: content.as_bytes().to_vec(),
        };
        let mut all = Vec::new();
        let mut take = |listed: Listed| {
            all.push(listed);
            Ok(())
        };
        let inserts = inserts.iter().map(insert).collect();
        list(root.as_fd(), &Ignore::new(patterns).unwrap(), inserts, &mut take).unwrap();
        all
    }

    fn names(all: &[Listed]) -> Vec<String> {
        all.iter().map(|listed| String::from_utf8_lossy(&listed.path).into_owned()).collect()
    }

    #[test]
    fn directories_on_the_way_are_told_and_others_not() {
        let temp = tempfile::tempdir().unwrap();
        for file in ["a/b/c", "a/b/keep", "a/x", "a-1", "n/m/o", "z/y"] {
            fs::create_dir_all(temp.path().join(file).parent().unwrap()).unwrap();
            fs::write(temp.path().join(file), file).unwrap();
        }
        assert_eq!(
            names(&listed(temp.path(), &[], &[])),
            ["a", "a/b", "a/b/c", "a/b/keep", "a/x", "a-1", "n", "n/m", "n/m/o", "z", "z/y"]
        );
        assert_eq!(names(&listed(temp.path(), &["*", "!a/b/keep", "!n/q"], &[])), ["a", "a/b", "a/b/keep"]);
        let inserts = [("a-0", "x"), ("a-1", "other"), ("zz", "last")];
        let all = listed(temp.path(), &["a", "!a/b/keep"], &inserts);
        assert_eq!(
            names(&all),
            ["a", "a/b", "a/b/keep", "a-0", "a-1", "n", "n/m", "n/m/o", "z", "z/y", "zz"]
        );
        assert_eq!((all[4].content.as_deref(), all[4].stat.st_size), (Some(&b"other"[..]), 5));
    }

    #[test]
    fn further_names_are_links_and_inserts_have_times_of_their_own() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("one"), "1").unwrap();
        fs::hard_link(temp.path().join("one"), temp.path().join("two")).unwrap();
        std::os::unix::fs::symlink("/nowhere", temp.path().join("way")).unwrap();
        let all = listed(temp.path(), &[], &[("i", "first")]);
        assert_eq!(names(&all), ["i", "one", "two", "way"]);
        assert_eq!((all[2].link.as_slice(), all[3].link.as_slice()), (&b"one"[..], &b"/nowhere"[..]));
        let other = listed(temp.path(), &[], &[("i", "other")]);
        assert_ne!(all[0].stat.st_mtime_nsec, other[0].stat.st_mtime_nsec);
        let again = listed(temp.path(), &[], &[("i", "first")]);
        assert_eq!(all[0].stat.st_mtime_nsec, again[0].stat.st_mtime_nsec);
    }
}
