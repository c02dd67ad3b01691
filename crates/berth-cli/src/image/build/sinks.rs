//! Where outputs of a build are written.

use std::fs::{self, File};
use std::io::{self, PipeWriter, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use berth_archive::copy::{self, Options, Owner};
use berth_session::Output;

use crate::failure::causes;

/// A place for an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
    /// A directory that an archive is unpacked into.
    Directory(PathBuf),
}

impl Sink {
    /// The file or directory.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Stdout => None,
            Self::File(path) | Self::Directory(path) => Some(path),
        }
    }

    /// Takes what comes. Nothing is made or changed before something comes.
    pub fn open(self) -> Output {
        match self {
            Self::Stdout => Box::new(io::stdout()),
            Self::File(path) => Box::new(Lazy { path, file: None }),
            Self::Directory(path) => Box::new(Unpacking { path, pipe: None, thread: None }),
        }
    }
}

/// A file that is made when its first bytes come.
struct Lazy {
    path: PathBuf,
    file: Option<File>,
}

impl Write for Lazy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = File::create(&self.path).map_err(|error| about(&self.path, &error))?;
                none.insert(file)
            }
        };
        file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), File::flush)
    }
}

/// An archive that a thread unpacks while it comes. Its end is told by a flush: without one it was not whole.
struct Unpacking {
    path: PathBuf,
    pipe: Option<PipeWriter>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Unpacking {
    fn pipe(&mut self) -> io::Result<&mut PipeWriter> {
        match &mut self.pipe {
            Some(pipe) => Ok(pipe),
            none => {
                let (reader, writer) = io::pipe()?;
                let path = self.path.clone();
                self.thread = Some(std::thread::spawn(move || unpack(&path, reader)));
                Ok(none.insert(writer))
            }
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.pipe = None;
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(io::Error::other("the thread that unpacks it ended")),
        }
    }
}

impl Write for Unpacking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.pipe()?.write(bytes) {
            // Whoever unpacks gave up, and knows why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(self.end().err().unwrap_or(error)),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.end()
    }
}

/// Unpacks beneath a directory, which is made if it is not there. Nothing in the archive leads out of it, nor does any link
/// that lies there. Owners are kept by root alone.
fn unpack(path: &Path, mut reader: io::PipeReader) -> io::Result<()> {
    fs::create_dir_all(path).map_err(|error| about(path, &error))?;
    let root = File::open(path).map_err(|error| about(path, &error))?;
    let owner = if rustix::process::geteuid().is_root() { Owner::Archive } else { Owner::Caller };
    let options = Options { replace: true, owner, ..Options::default() };
    copy::unpack(root.as_fd(), b"/", &options, &mut reader)
        .map_err(|error| io::Error::other(format!("{}: {}", path.display(), causes(&error))))?;
    // What follows an archive's end is no part of it, and has to be taken all the same.
    io::copy(&mut reader, &mut io::sink()).map(drop)
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            let content = if kind.is_symlink() {
                header.set_link_name(content).unwrap();
                ""
            } else {
                content
            };
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn write(path: &Path, archive: &[u8]) -> io::Result<()> {
        let mut output = Sink::Directory(path.to_owned()).open();
        output.write_all(archive)?;
        output.flush()
    }

    #[test]
    fn nothing_leads_out_of_a_directory() {
        let temp = tempfile::tempdir().unwrap();
        let (outside, dest) = (temp.path().join("outside"), temp.path().join("a/dest"));
        fs::create_dir_all(&outside).unwrap();
        fs::create_dir_all(&dest).unwrap();
        symlink(&outside, dest.join("old")).unwrap();
        let file = tar::EntryType::Regular;
        let link = tar::EntryType::Symlink;
        let out = outside.to_str().unwrap().to_owned();
        for hostile in [
            vec![("../../outside/x", file, "x")],
            vec![("new", link, out.as_str()), ("new/x", file, "x")],
            vec![("old/x", file, "x")],
            vec![("up", link, "../../outside"), ("up/x", file, "x")],
        ] {
            // It is refused, or ends inside.
            let _ = write(&dest, &archive(&hostile));
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{hostile:?}");
        }
        write(&dest, &archive(&[("good", file, "g")])).unwrap();
        assert_eq!(fs::read_to_string(dest.join("good")).unwrap(), "g");
    }

    #[test]
    fn what_does_not_come_changes_nothing_and_what_cannot_be_written_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        fs::write(&path, "old").unwrap();
        drop(Sink::File(path.clone()).open());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        let error = write(&path.join("below"), &archive(&[("x", tar::EntryType::Regular, "")])).unwrap_err();
        assert!(error.to_string().contains("file/below"), "{error}");
        let error = write(&temp.path().join("d"), b"no archive").unwrap_err();
        assert!(error.to_string().contains("/d: "), "{error}");
    }
}
