//! Where a build's files come from, and which of them it gets.

use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::path::{Component, Path, PathBuf};

use berth_archive::context::Insert;
use berth_archive::decompress::Compression;
use berth_archive::ignore::Ignore;
use berth_archive::writer::Writer;

use crate::failure::{Failure, Outcome};

/// The Dockerfile where none is named.
const DOCKERFILE: &str = "Dockerfile";
/// What says which files are left out.
pub const IGNORE: &str = ".dockerignore";
/// The longest Dockerfile that is read, in bytes.
const LONGEST: u64 = 16 << 20;
/// Bytes that tell a tar from a Dockerfile.
const HEADER: usize = 512;

/// Where the files come from.
pub enum Source {
    /// A directory.
    Directory(Directory),
    /// An archive, as it comes.
    Archive {
        /// Its bytes.
        input: Box<dyn Read + Send>,
        /// The Dockerfile in it; empty: the daemon's usual one.
        dockerfile: String,
    },
    /// The daemon fetches it.
    Remote {
        /// From here.
        address: String,
        /// The Dockerfile in it; empty: the daemon's usual one.
        dockerfile: String,
    },
}

/// A directory of this machine.
#[derive(Debug)]
pub struct Directory {
    /// It, without symbolic links.
    pub path: PathBuf,
    /// What is left out.
    pub ignore: Ignore,
    /// What is not, or not like this, in the directory.
    pub inserts: Vec<Insert>,
    /// The Dockerfile in the archive.
    pub dockerfile: String,
}

impl Source {
    /// The Dockerfile within; empty: the daemon's usual one.
    pub fn dockerfile(&self) -> &str {
        match self {
            Self::Directory(directory) => &directory.dockerfile,
            Self::Archive { dockerfile, .. } | Self::Remote { dockerfile, .. } => dockerfile,
        }
    }
}

/// Finds out what a user means by a context and a Dockerfile, which is empty if none is named.
///
/// # Errors
/// There is no such thing; both would be standard input.
pub fn find(given: &str, file: &str) -> Outcome<Source> {
    if given == "-" && file == "-" {
        return Err(Failure::new("invalid argument: can't use stdin for both build context and dockerfile"));
    }
    let found = if given == "-" {
        from_input(Box::new(io::stdin()), file)
    } else if fs::metadata(given).is_ok() {
        directory(given, file, || read_whole(io::stdin())).map(Source::Directory)
    } else if !is_remote(given) {
        Err(Failure::new(format!("path {given:?} not found")))
    } else if file == "-" {
        Err(Failure::new("the Dockerfile of a context that the daemon fetches cannot come from stdin"))
    } else {
        Ok(Source::Remote { address: given.to_owned(), dockerfile: file.to_owned() })
    };
    found.map_err(|failure| Failure::new(format!("unable to prepare context: {}", failure.message)))
}

/// Whether a context is what daemons fetch: a Git repository or an address.
pub fn is_remote(given: &str) -> bool {
    ["http://", "https://", "git://", "github.com/", "git@"].iter().any(|start| given.starts_with(start))
}

/// A tar, compressed or not, or a Dockerfile alone.
fn from_input(mut input: Box<dyn Read + Send>, file: &str) -> Outcome<Source> {
    let mut start = Vec::with_capacity(HEADER);
    input
        .by_ref()
        .take(HEADER as u64)
        .read_to_end(&mut start)
        .map_err(|error| Failure::io("failed to peek context header from STDIN", &error))?;
    let is_archive = is_archive(&start);
    let whole = Cursor::new(start).chain(input);
    if is_archive {
        return Ok(Source::Archive { input: Box::new(whole), dockerfile: file.to_owned() });
    }
    if !file.is_empty() {
        return Err(Failure::new(
            "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
        ));
    }
    let mut writer = Writer::new(Vec::new());
    let tar = writer.file(DOCKERFILE, &read_whole(whole)?).and_then(|()| writer.finish())?;
    Ok(Source::Archive { input: Box::new(Cursor::new(tar)), dockerfile: DOCKERFILE.to_owned() })
}

fn is_archive(start: &[u8]) -> bool {
    if Compression::detect(start) != Compression::None {
        return true;
    }
    let Some(block) = start.get(..HEADER) else { return false };
    let header = tar::Header::from_byte_slice(block);
    // The checksum counts its own field as blanks.
    let sum = block.iter().enumerate().map(|(at, byte)| match at {
        148..156 => 32,
        _ => u32::from(*byte),
    });
    header.cksum().is_ok_and(|told| told == sum.sum::<u32>())
}

fn read_whole(input: impl Read) -> Outcome<Vec<u8>> {
    let mut content = Vec::new();
    input.take(LONGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LONGEST {
        return Err(Failure::new(format!("the Dockerfile is larger than {LONGEST} bytes")));
    }
    Ok(content)
}

fn directory(given: &str, file: &str, stdin: impl FnOnce() -> Outcome<Vec<u8>>) -> Outcome<Directory> {
    let path = fs::canonicalize(given)
        .map_err(|error| Failure::io("unable to evaluate symlinks in context path", &error))?;
    if !path.is_dir() {
        return Err(Failure::new(format!("context must be a directory: {}", path.display())));
    }
    if file == "-" {
        let patterns = read_patterns(&path.join(IGNORE))?;
        let content = stdin()?;
        return aside(path, patterns, content);
    }
    let found = dockerfile(&path, file)?;
    let mut name = found.clone().into_os_string();
    name.push(IGNORE);
    let own = read_patterns(Path::new(&name))?;
    let shared = || read_patterns(&path.join(IGNORE));
    match found.strip_prefix(&path) {
        Ok(inside) => {
            let dockerfile = inside.to_str().map(str::to_owned).ok_or_else(|| {
                Failure::new(format!("the name of the Dockerfile is not UTF-8: {}", found.display()))
            })?;
            let patterns = if own.is_some() { own } else { shared()? };
            let mut ignore = read(patterns.as_deref())?;
            // The daemon needs both, and takes them out again where patterns say so.
            for name in [IGNORE, dockerfile.as_str()] {
                if ignore.matches(name) {
                    ignore = ignore.except(name);
                }
            }
            // The whole directory, as Docker names it, is for the daemon to refuse.
            let dockerfile = if dockerfile.is_empty() { ".".to_owned() } else { dockerfile };
            Ok(Directory { path, ignore, inserts: Vec::new(), dockerfile })
        }
        Err(_) => {
            let open = File::open(&found).map_err(|error| {
                Failure::io(format!("unable to open Dockerfile: open {}", found.display()), &error)
            })?;
            let patterns = if own.is_some() { own } else { shared()? };
            let content = read_whole(open)?;
            aside(path, patterns, content)
        }
    }
}

/// A Dockerfile that does not lie in the context: under a name that nothing has, which `.dockerignore` keeps out of images.
fn aside(path: PathBuf, patterns: Option<Vec<u8>>, content: Vec<u8>) -> Outcome<Directory> {
    let mut ignore = read(patterns.as_deref())?;
    if ignore.matches(IGNORE) {
        ignore = ignore.except(IGNORE);
    }
    let dockerfile = format!(".dockerfile.{}", unique(&content));
    let mut listed = match patterns {
        Some(patterns) => patterns,
        None => IGNORE.as_bytes().to_vec(),
    };
    listed.extend_from_slice(format!("\n{dockerfile}\n").as_bytes());
    let insert = |name: &str, content| Insert { name: name.to_owned(), content };
    let inserts = vec![insert(&dockerfile, content), insert(IGNORE, listed)];
    Ok(Directory { path, ignore, inserts, dockerfile })
}

/// Twenty digits that no other file of a context begins with by chance. The same content gives the same ones, so that a
/// builder whose cache looks at names finds what it has.
fn unique(content: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(content).iter().take(10).map(|byte| format!("{byte:02x}")).collect()
}

/// The Dockerfile, without symbolic links.
fn dockerfile(context: &Path, file: &str) -> Outcome<PathBuf> {
    let given = if file.is_empty() { usual(context) } else { absolute(Path::new(file))? };
    fs::canonicalize(&given).map_err(|error| {
        let told = format!("unable to evaluate symlinks in Dockerfile path: lstat {}", given.display());
        Failure::io(told, &error)
    })
}

/// `Dockerfile`, or `dockerfile` where there is only that.
fn usual(context: &Path) -> PathBuf {
    let (usual, small) = (context.join(DOCKERFILE), context.join("dockerfile"));
    let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
    if !is_there(&usual) && is_there(&small) { small } else { usual }
}

fn absolute(path: &Path) -> Outcome<PathBuf> {
    let here = std::env::current_dir()
        .map_err(|error| Failure::io("unable to get absolute path to Dockerfile", &error))?;
    let mut clean = PathBuf::new();
    for part in here.join(path).components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    Ok(clean)
}

/// The patterns of a file; none if it is not there.
///
/// # Errors
/// It cannot be read.
pub fn read_patterns(path: &Path) -> Outcome<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(Failure::io(format!("open {}", path.display()), &error)),
    }
}

/// What patterns leave out.
///
/// # Errors
/// They cannot be used.
pub fn read(patterns: Option<&[u8]>) -> Outcome<Ignore> {
    Ignore::read(patterns.unwrap_or_default())
        .map_err(|error| Failure::new(format!("error checking context: {error}")))
}

#[cfg(test)]
mod tests;
