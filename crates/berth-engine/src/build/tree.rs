//! Files of a tree that nobody else changes, with paths that are walked inside it.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use berth_archive::copy;
use berth_archive::decompress;
use berth_archive::pack::attributes;
use berth_oci::digest::{Algorithm, Hasher};
use rustix::fs::{FileType, Mode, OFlags};
use tokio_util::sync::CancellationToken;

use super::digests::{About, Digests, GoOn};
use crate::Error;

/// Files whose digests are taken together.
const TOGETHER: usize = 4096;

/// The file's content, links inside `root` followed; none if it is not there. More than `limit` bytes are cut off.
pub(super) fn read(root: BorrowedFd<'_>, path: &[u8], limit: u64) -> io::Result<Option<Vec<u8>>> {
    let real = match copy::follow(root, path) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let file = match open(root, &real) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        file => file?,
    };
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content)?;
    Ok(Some(content))
}

/// Opens a regular file at a path without links.
pub(super) fn open(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<File> {
    let (directory, name) = split(path);
    let directory = copy::opened(root, directory, OFlags::PATH | OFlags::DIRECTORY)?;
    let name = CString::new(name)?;
    let stat = rustix::fs::statat(&directory, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(rustix::io::Errno::ISDIR.into()),
        _ => return Err(rustix::io::Errno::INVAL.into()),
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(&directory, &name, flags, Mode::empty())?))
}

/// Removes a file, if it is there.
pub(super) fn remove(root: BorrowedFd<'_>, path: &[u8]) {
    let (directory, name) = split(path);
    let removed = copy::opened(root, directory, OFlags::PATH | OFlags::DIRECTORY).and_then(|directory| {
        Ok(rustix::fs::unlinkat(directory, OsStr::from_bytes(name), rustix::fs::AtFlags::empty())?)
    });
    if let Err(error) = removed {
        tracing::debug!(%error, "a file that is to be left out of a context stays");
    }
}

/// A path's directory and last part.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        None => (b"/", path),
        Some(0) => (b"/", &path[1..]),
        Some(at) => (&path[..at], &path[at + 1..]),
    }
}

/// A path without links, as one of this process.
fn here(root: BorrowedFd<'_>, path: &[u8]) -> PathBuf {
    let rest = path.iter().position(|byte| *byte != b'/').map_or(&b""[..], |start| &path[start..]);
    PathBuf::from(format!("/proc/self/fd/{}/", root.as_raw_fd())).join(OsStr::from_bytes(rest))
}

/// Names in a directory at a path without links, sorted.
pub(super) fn names(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(here(root, path))? {
        names.push(entry?.file_name().as_bytes().to_vec());
    }
    names.sort();
    Ok(names)
}

/// What is digested of files, and how.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    /// Whether owners count.
    pub owned: bool,
    /// What is left out below a directory.
    pub skip: &'a dyn Fn(&[u8]) -> bool,
    /// Whether to go on.
    pub go_on: GoOn<'a>,
    /// What is known of files.
    pub digests: &'a Digests,
}

/// Something below the path that is digested.
struct Item {
    /// Where it is.
    whole: PathBuf,
    /// Its path from there.
    relative: Vec<u8>,
    about: About,
}

/// What tells the files at a path without links apart from others: names, kinds, permissions, extended attributes, contents,
/// but not their owners. Times do not count, nor does the name of what stands at the path itself. Nothing once `cancelled`.
pub(super) fn digest(root: BorrowedFd<'_>, path: &[u8], cancelled: &CancellationToken) -> io::Result<String> {
    let (skip, go_on) = (|_: &[u8]| false, || !cancelled.is_cancelled());
    digest_by(root, path, Reading { owned: false, skip: &skip, go_on: &go_on, digests: &Digests::default() })
}

/// As [`digest`], of some files, of which some are known, and of their owners, too, if that is asked for.
pub(super) fn digest_by(root: BorrowedFd<'_>, path: &[u8], reading: Reading<'_>) -> io::Result<String> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut left = vec![(here(root, path), Vec::new())];
    let mut found = Vec::new();
    while let Some((whole, relative)) = left.pop() {
        if !(reading.go_on)() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let about = About::at(&whole)?;
        if about.kind() == FileType::Directory {
            let mut inside = Vec::new();
            for entry in std::fs::read_dir(&whole)? {
                inside.push(entry?.file_name());
            }
            inside.sort();
            for name in inside.into_iter().rev() {
                let below = [&relative, &b"/"[..], name.as_bytes()].concat();
                if !(reading.skip)(&below[1..]) {
                    left.push((whole.join(&name), below));
                }
            }
        }
        found.push(Item { whole, relative, about });
        if found.len() >= TOGETHER || left.is_empty() {
            add(&mut hasher, &found, reading)?;
            found.clear();
        }
    }
    Ok(hasher.finish().hex().to_owned())
}

/// Adds what is to be told of files; their contents are read several at once.
fn add(hasher: &mut Hasher, found: &[Item], reading: Reading<'_>) -> io::Result<()> {
    let files = found.iter().filter(|item| item.about.kind() == FileType::RegularFile);
    let files: Vec<_> = files.map(|item| (item.whole.as_path(), &item.about)).collect();
    reading.digests.learn(&files, reading.go_on)?;
    for Item { whole, relative, about } in found {
        let owner = if reading.owned { about.owner() } else { (0, 0) };
        let head = format!("{}:{:o}:{}:{}:", relative.len(), about.mode(), owner.0, owner.1);
        hasher.update(head.as_bytes());
        hasher.update(relative);
        let attributes = attributes::of(whole.as_os_str().as_bytes()).map_err(io::Error::other)?;
        hasher.update(format!("{}:", attributes.len()).as_bytes());
        for (name, value) in attributes {
            hasher.update(format!("{}:{}:", name.len(), value.len()).as_bytes());
            hasher.update(&name);
            hasher.update(&value);
        }
        match about.kind() {
            FileType::Symlink => {
                let target = std::fs::read_link(whole)?;
                hasher.update(format!("{}:", target.as_os_str().len()).as_bytes());
                hasher.update(target.as_os_str().as_bytes());
            }
            FileType::RegularFile => hasher.update(&reading.digests.of(whole, about, reading.go_on)?),
            FileType::CharacterDevice | FileType::BlockDevice => {
                hasher.update(format!("{}:", about.device()).as_bytes());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a file is an archive, compressed or not.
pub(super) fn is_archive(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<bool> {
    let file = open(root, path)?;
    let Ok(reader) = decompress::reader(file) else { return Ok(false) };
    let mut start = Vec::new();
    // What cannot be read is not what it seems.
    let read = reader.take(512).read_to_end(&mut start);
    Ok(read.is_ok() && is_tar_header(&start))
}

/// Whether these bytes begin a tar: the checksum of its first header is right.
pub(super) fn is_tar_header(start: &[u8]) -> bool {
    let Some(header) = start.get(..512) else { return false };
    let text: String = header[148..156].iter().map(|byte| char::from(*byte)).collect();
    let told = u32::from_str_radix(text.trim_matches([' ', '\0']), 8);
    let sum: u32 = (0..)
        .zip(header)
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    told == Ok(sum)
}

/// The kernel's words for an error, as Go has them.
pub(super) fn words(error: &io::Error) -> String {
    berth_runtime::launch::describe(error).to_string()
}

/// An error about a path, with the call that Go would have made.
pub(super) fn failed(call: &str, path: &[u8], error: &io::Error) -> Error {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "file does not exist".to_owned(),
        _ => words(error),
    };
    Error::Files(format!("{call} {}: {reason}", String::from_utf8_lossy(path)))
}

/// Makes a directory and all that lead to it; new ones belong to `owner`. Links are followed inside the root. Gives the
/// path without links, and whether it is new.
pub(super) fn make_directories(
    root: BorrowedFd<'_>,
    path: &[u8],
    owner: (u32, u32),
) -> io::Result<(Vec<u8>, bool)> {
    let real = copy::follow(root, path)?;
    let mut made = false;
    let mut done = b"/".to_vec();
    for part in real.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        let parent = copy::opened(root, &done, OFlags::PATH | OFlags::DIRECTORY)?;
        let name = OsStr::from_bytes(part);
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                made = true;
                let directory = rustix::fs::openat(
                    &parent,
                    name,
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                // The mask of this process must not count.
                rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o755))?;
                let (uid, gid) = (rustix::fs::Uid::from_raw(owner.0), rustix::fs::Gid::from_raw(owner.1));
                rustix::fs::fchown(directory.as_fd(), Some(uid), Some(gid))?;
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        done = copy::path::join(&done, part);
    }
    // What is there must be a directory.
    copy::opened(root, &done, OFlags::PATH | OFlags::DIRECTORY)?;
    Ok((done, made))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_differ_by_all_that_is_copied_of_them() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "content").unwrap();
        let root = File::open(temp.path()).unwrap();
        let wanted = CancellationToken::new();
        let told = |path: &[u8]| digest(root.as_fd(), path, &wanted).unwrap();
        let attribute = |value: &[u8]| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&file, "user.text", value, flags).unwrap();
        };
        let mut seen = vec![told(b"/file")];
        let mut other = |told: String| {
            assert!(!seen.contains(&told), "{told}");
            seen.push(told);
        };
        attribute(b"one");
        other(told(b"/file"));
        attribute(b"two");
        other(told(b"/file"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).unwrap();
        other(told(b"/file"));
        fs::write(&file, "contenu").unwrap();
        other(told(b"/file"));
        other(told(b"/"));
        fs::rename(&file, temp.path().join("another")).unwrap();
        other(told(b"/"));
        let digests = Digests::default();
        let reading = Reading { owned: false, skip: &|_| false, go_on: &|| false, digests: &digests };
        let ended = digest_by(root.as_fd(), b"/", reading).unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::Interrupted);
        // The name that is asked for is none of its own.
        assert!(seen.contains(&told(b"/another")));
    }
}
