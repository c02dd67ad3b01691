//! Tar out: the merged view of an overlay as a stream, with the memory of the directories on the way to one file.
//!
//! Entries are POSIX.1-2001 (ustar, with PAX records for what does not fit): directories in the order of their names, each
//! directly before all that it holds (GNU tar sets a directory's time when it reads the first name outside it), the first
//! name of a file before its hard links. Sockets have no form in a tar and are left out, as tar does.

pub mod attributes;
pub mod layer;
mod sparse;

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;

use berth_sys::ids::Mappings;
use rustix::fs::{FileType, Stat};
use tar::EntryType;

use crate::format::header::BLOCK;
use crate::overlay::{Found, Opened, Overlay, Place, join};
use crate::{Error, Result, owned};

/// Bytes read from a file at a time.
const BUFFER: usize = 64 * 1024;
/// The largest numbers that a header's octal fields hold.
const SIZE_MAX: u64 = (1 << 33) - 1;
const ID_MAX: u32 = (1 << 21) - 1;
/// The attribute with a file's capabilities; others do not leave their host.
const CAPABILITY: &CStr = c"security.capability";

/// Writes everything in `overlay` but its root itself. Blocks. What vanishes meanwhile is left out; a file that shrinks
/// meanwhile is filled with zeros.
///
/// # Errors
/// File errors; a failed write. What was written is then no whole archive: it lacks its end.
pub fn pack(overlay: &Overlay, out: impl Write) -> Result<()> {
    let mut packer = Packer::new(out, false);
    let mut levels = vec![Level { place: overlay.root(), left: None }];
    while let Some(level) = levels.last_mut() {
        match level.advance(overlay, &mut packer)? {
            Some(inside) => levels.push(Level { place: inside, left: None }),
            None => drop(levels.pop()),
        }
    }
    packer.finish()
}

/// A directory on the way down. It is opened again after each one inside it: depth costs no descriptors.
struct Level {
    place: Place,
    /// What is not yet written of it; none before it was listed.
    left: Option<Entries>,
}

/// What a directory holds.
pub(crate) type Entries = std::vec::IntoIter<(CString, Found)>;

impl Level {
    /// Writes entries up to the first directory, which is returned, or to the end.
    fn advance(&mut self, overlay: &Overlay, packer: &mut Packer<impl Write>) -> Result<Option<Place>> {
        let here = overlay.enter(&self.place)?;
        let left = match &mut self.left {
            Some(left) => left,
            none => none.insert(here.entries()?.into_iter()),
        };
        for (name, found) in left {
            packer.entry(&here, &name, &found, &join(&self.place.path, name.to_bytes()))?;
            if let Some(inside) = here.below(&self.place, &name, &found)? {
                return Ok(Some(inside));
            }
        }
        Ok(None)
    }
}

pub(crate) struct Packer<W> {
    out: W,
    /// The first name of each file that has several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    /// Whether all extended attributes are kept, or capabilities alone.
    attributes: bool,
    /// Whether holes are kept, as a layer needs them.
    whole: bool,
    /// Whether everything is root's, whoever owns it here.
    of_root: bool,
    /// Whose the owners are in the user namespace that they are seen from outside of.
    ids: Option<Mappings>,
    /// The latest time of modification that is told, in seconds; later ones become this.
    latest: Option<i64>,
}

/// Extended attributes: names and values.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// What one entry's header says beside its name.
struct Head {
    kind: EntryType,
    link: Vec<u8>,
    size: u64,
}

impl<W: Write> Packer<W> {
    pub(crate) fn new(out: W, whole: bool) -> Self {
        Self {
            out,
            links: HashMap::new(),
            buffer: vec![0; BUFFER],
            attributes: whole,
            whole,
            of_root: false,
            ids: None,
            latest: None,
        }
    }

    /// Keeps all extended attributes.
    pub(crate) fn with_attributes(mut self) -> Self {
        self.attributes = true;
        self
    }

    /// Says whose everything is inside a user namespace.
    pub(crate) fn with_ids(mut self, ids: Option<Mappings>) -> Self {
        self.ids = ids;
        self
    }

    /// Tells no time of modification after `latest`, in seconds.
    pub(crate) fn until(mut self, latest: Option<i64>) -> Self {
        self.latest = latest;
        self
    }

    /// Says of everything that it is root's.
    pub(crate) fn of_root(mut self) -> Self {
        self.of_root = true;
        self
    }

    /// Writes a file with other content than it has.
    pub(crate) fn replaced(&mut self, stat: &Stat, path: &[u8], content: &[u8]) -> Result<()> {
        let size = content.len() as u64;
        self.head(stat, path, &Head { kind: EntryType::Regular, link: Vec::new(), size }, &[])?;
        self.write(content)?;
        self.pad(size)
    }

    /// Writes the end of the tar.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.write(&[0; 2 * BLOCK])?;
        self.out.flush().map_err(write_failed)
    }

    /// Writes a directory that has no name in an open one.
    pub(crate) fn directory(&mut self, stat: &Stat, path: &[u8]) -> Result<()> {
        let head = Head { kind: EntryType::Directory, link: Vec::new(), size: 0 };
        self.head(stat, path, &head, &[])
    }

    pub(crate) fn entry(&mut self, here: &Opened, name: &CStr, found: &Found, path: &[u8]) -> Result<()> {
        let mut head = Head { kind: EntryType::Regular, link: Vec::new(), size: 0 };
        match found.kind() {
            FileType::RegularFile => return self.file(here, name, found, path),
            FileType::Directory => head.kind = EntryType::Directory,
            FileType::Symlink => match here.link(found, name) {
                Ok(target) => (head.kind, head.link) = (EntryType::Symlink, target),
                Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            },
            FileType::CharacterDevice => head.kind = EntryType::Char,
            FileType::BlockDevice => head.kind = EntryType::Block,
            FileType::Fifo => head.kind = EntryType::Fifo,
            FileType::Socket | FileType::Unknown => return Ok(()),
        }
        let attributes = self.attributes(here, name, found)?;
        self.head(&found.stat, path, &head, &attributes)
    }

    /// What is kept of a file's extended attributes.
    fn attributes(&self, here: &Opened, name: &CStr, found: &Found) -> Result<Attributes> {
        let kept = if self.attributes {
            here.attributes(found, name)?
        } else if found.kind() == FileType::RegularFile {
            let value = here.attribute(found, name, CAPABILITY)?;
            value.into_iter().map(|value| (CAPABILITY.to_bytes().to_vec(), value)).collect()
        } else {
            Attributes::new()
        };
        Ok(match &self.ids {
            Some(ids) => owned::inside(ids, kept),
            None => kept,
        })
    }

    fn file(&mut self, here: &Opened, name: &CStr, found: &Found, path: &[u8]) -> Result<()> {
        let stat = &found.stat;
        if stat.st_nlink > 1 {
            let first = self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.to_vec());
            if first != path {
                let head = Head { kind: EntryType::Link, link: first.clone(), size: 0 };
                return self.head(stat, path, &head, &[]);
            }
        }
        let opened = crate::tree::open_regular(here.directory(found), name);
        // Gone, or something else took its name meanwhile.
        let Some((file, stat)) = opened.map_err(|error| Error::file("opening", path, error))? else {
            return Ok(());
        };
        let stat = here.shown(found, stat);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let attributes = self.attributes(here, name, found)?;
        if self.whole
            && let Some(segments) = sparse::segments(&file, &stat, path)?
        {
            return self.sparse(file, path, &stat, &segments, &attributes);
        }
        let head = Head { kind: EntryType::Regular, link: Vec::new(), size };
        self.head(&stat, path, &head, &attributes)?;
        self.content(file, path, size)?;
        self.pad(size)
    }

    /// Copies `size` bytes from where `file` stands.
    fn content(&mut self, mut file: impl Read, path: &[u8], size: u64) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let read = match file.read(&mut self.buffer[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(|error| Error::file("reading", path, error))?,
            };
            let length = if read == 0 {
                self.buffer[..most].fill(0);
                most
            } else {
                read
            };
            self.out.write_all(&self.buffer[..length]).map_err(write_failed)?;
            left -= length as u64;
        }
        Ok(())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if rest == 0 { Ok(()) } else { self.write(&[0; BLOCK][rest..]) }
    }

    fn head(
        &mut self,
        stat: &Stat,
        path: &[u8],
        head: &Head,
        attributes: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<()> {
        self.head_with(stat, path, head, attributes, Vec::new())
    }

    /// Writes an entry's header, after a PAX header with `first` and what does not fit.
    fn head_with(
        &mut self,
        stat: &Stat,
        path: &[u8],
        head: &Head,
        attributes: &[(Vec<u8>, Vec<u8>)],
        first: Vec<u8>,
    ) -> Result<()> {
        let mut stat = *stat;
        if self.of_root {
            (stat.st_uid, stat.st_gid) = (0, 0);
        }
        if let Some(ids) = &self.ids {
            stat = owned::stat_inside(ids, stat);
        }
        if let Some(latest) = self.latest {
            stat.st_mtime = stat.st_mtime.min(latest);
        }
        let stat = &stat;
        let mut path = path.to_vec();
        if head.kind == EntryType::Directory {
            path.push(b'/');
        }
        let mut records = first;
        add_records(&mut records, &path, head, stat, attributes);
        if !records.is_empty() {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(EntryType::XHeader);
            header.set_mode(0o644);
            header.set_size(records.len() as u64);
            self.seal(header, b"PaxHeaders/entry", b"")?;
            self.write(&records)?;
            self.pad(records.len() as u64)?;
        }
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(head.kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(u64::from(stat.st_uid.min(ID_MAX)));
        header.set_gid(u64::from(stat.st_gid.min(ID_MAX)));
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0).min(SIZE_MAX));
        header.set_size(head.size.min(SIZE_MAX));
        if matches!(head.kind, EntryType::Char | EntryType::Block) {
            let set = header
                .set_device_major(rustix::fs::major(stat.st_rdev))
                .and_then(|()| header.set_device_minor(rustix::fs::minor(stat.st_rdev)));
            set.map_err(|error| Error::file("packing", &path, error))?;
        }
        self.seal(header, &path, &head.link)
    }

    /// Writes a header with the beginnings of its names; longer ones stand in the records before it.
    fn seal(&mut self, mut header: tar::Header, path: &[u8], link: &[u8]) -> Result<()> {
        let fields = header.as_old_mut();
        copy(&mut fields.name, path);
        copy(&mut fields.linkname, link);
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(write_failed)
    }
}

/// PAX records for what a ustar header cannot say.
fn add_records(
    records: &mut Vec<u8>,
    path: &[u8],
    head: &Head,
    stat: &Stat,
    attributes: &[(Vec<u8>, Vec<u8>)],
) {
    if path.len() > 100 {
        record(records, b"path", path);
    }
    if head.link.len() > 100 {
        record(records, b"linkpath", &head.link);
    }
    let mut number = |name: &str, fits: bool, value: String| {
        if !fits {
            record(records, name.as_bytes(), value.as_bytes());
        }
    };
    number("size", head.size <= SIZE_MAX, head.size.to_string());
    number("uid", stat.st_uid <= ID_MAX, stat.st_uid.to_string());
    number("gid", stat.st_gid <= ID_MAX, stat.st_gid.to_string());
    let time = u64::try_from(stat.st_mtime);
    number("mtime", time.is_ok_and(|time| time <= SIZE_MAX), stat.st_mtime.to_string());
    for (name, value) in attributes {
        record(records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
}

/// Adds one record; its length counts itself.
pub(crate) fn record(records: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(name);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn copy(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

fn write_failed(error: io::Error) -> Error {
    Error::file("writing", OsStr::new("the tar").as_bytes(), error)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::path::Path;
    use std::process::Command;

    use proptest::prelude::*;
    use rustix::fs::{CWD, Mode};

    use super::*;

    fn packed(layers: &[&Path]) -> Vec<u8> {
        let mut tar = Vec::new();
        pack(&Overlay::open(layers).unwrap(), &mut tar).unwrap();
        tar
    }

    fn names(tar: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn layers_are_merged_as_the_kernel_does() {
        let temp = tempfile::tempdir().unwrap();
        let (upper, lower) = (temp.path().join("upper"), temp.path().join("lower"));
        for path in ["lower/a/b", "lower/opaque/old", "upper/a", "upper/opaque"] {
            fs::create_dir_all(temp.path().join(path)).unwrap();
        }
        for path in ["lower/a/one", "lower/a/two", "lower/opaque/old/x", "upper/a/one", "upper/opaque/new"] {
            fs::write(temp.path().join(path), path).unwrap();
        }
        let device = |path: &str| {
            let path = temp.path().join(path);
            rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        };
        device("upper/a/two");
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(upper.join("opaque"), c"trusted.overlay.opaque", b"y", flags).unwrap();
        let tar = packed(&[&upper, &lower]);
        assert_eq!(names(&tar), ["a/", "a/b/", "a/one", "opaque/", "opaque/new"]);
        let mut archive = tar::Archive::new(&tar[..]);
        let mut one = archive.entries().unwrap().map(Result::unwrap).find(|e| &*e.path_bytes() == b"a/one");
        let mut text = String::new();
        one.as_mut().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "upper/a/one");
    }

    #[test]
    fn a_directory_stands_directly_before_what_it_holds() {
        let temp = tempfile::tempdir().unwrap();
        for path in ["b/y/x", "a/z", "b-c", "a.d"] {
            fs::create_dir_all(temp.path().join(path)).unwrap();
            fs::write(temp.path().join(path).join("f"), "").unwrap();
        }
        fs::write(temp.path().join("b/n"), "").unwrap();
        let expected = [
            "a/", "a/z/", "a/z/f", "a.d/", "a.d/f", "b/", "b/n", "b/y/", "b/y/x/", "b/y/x/f", "b-c/", "b-c/f",
        ];
        assert_eq!(names(&packed(&[temp.path()])), expected);
        let mut copied = Vec::new();
        let root = rustix::fs::open(temp.path(), rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
        crate::copy::pack(std::os::fd::AsFd::as_fd(&root), b"b", b"b", &mut copied).unwrap();
        assert_eq!(names(&copied), expected[5..10]);
    }

    #[test]
    fn depth_costs_no_descriptors() {
        let temp = tempfile::tempdir().unwrap();
        let depth = 700;
        fs::create_dir_all(temp.path().join("d/".repeat(depth))).unwrap();
        assert_eq!(names(&packed(&[temp.path(), temp.path()])).len(), depth);
    }

    #[test]
    fn tar_reads_what_is_written() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        fs::create_dir_all(from.join("deep").join("d".repeat(120))).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("deep").join("d".repeat(120)).join("long"), vec![7; 100_000]).unwrap();
        fs::write(from.join("empty"), "").unwrap();
        fs::write(from.join("setuid"), "x").unwrap();
        fs::set_permissions(from.join("setuid"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(from.join("setuid"), from.join("twin")).unwrap();
        symlink("t".repeat(150), from.join("link")).unwrap();
        fs::write(from.join("owned"), "o").unwrap();
        chown(from.join("owned"), Some(3_000_000_000), Some(77)).unwrap();
        fs::create_dir(from.join("z")).unwrap();
        let dev = rustix::fs::makedev(1, 3);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(CWD, from.join("null"), FileType::CharacterDevice, mode, dev).unwrap();
        rustix::fs::mknodat(CWD, from.join("fifo"), FileType::Fifo, mode, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
        // Directories within directories, all older than what is made of them.
        for (path, seconds) in
            [("deep/".to_owned() + &"d".repeat(120), 5), ("deep".to_owned(), 6), ("z".to_owned(), 7)]
        {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            fs::File::open(from.join(path)).unwrap().set_modified(time).unwrap();
        }
        let archive = temp.path().join("a.tar");
        fs::write(&archive, packed(&[&from])).unwrap();
        let status =
            Command::new("tar").arg("-xpf").arg(&archive).arg("-C").arg(&to).arg("--numeric-owner").status();
        assert!(status.unwrap().success());
        fs::remove_file(from.join("socket")).unwrap();
        let listing = |root: &Path| {
            let script = "find . -printf '%P %M %U:%G %n %l %T@\\n' | sed 's/\\.[0-9]*$//' | sort; \
                          find . -type f | sort | xargs sha256sum; stat -c %t:%T null";
            let output = Command::new("sh").args(["-c", script]).current_dir(root).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        // The root itself is no entry.
        let strip = |text: String| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(strip(listing(&to)), strip(listing(&from)));
    }

    proptest! {
        #[test]
        fn records_are_read_back(value in proptest::collection::vec(any::<u8>(), 0..1200)) {
            let mut written = Vec::new();
            record(&mut written, b"path", &value);
            record(&mut written, b"uid", b"1");
            let read = crate::format::pax::records(&written).unwrap();
            prop_assert_eq!(&read, &vec![(&b"path"[..], &value[..]), (&b"uid"[..], &b"1"[..])]);
        }
    }
}
