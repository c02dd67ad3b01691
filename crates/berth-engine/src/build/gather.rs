//! Files to copy: found, fetched, and told apart from others.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use berth_archive::copy::{self, path};
use berth_build::dockerfile::CopySource;
use berth_build::solve::Copying;
use berth_oci::Digest;
use berth_oci::digest::{Algorithm, Hasher};
use berth_storage::Scratch;
use rustix::fs::FileType;
use url::Url;

use super::digests::Digests;
use super::exclude::Exclude;
use super::executor::Worker;
use super::fetched;
use super::git;
use super::mounted::Mounted;
use super::tree::{self, Reading};
use crate::Error;
use crate::images::pattern::Pattern;

/// The name of a file whose address has none.
const UNNAMED: &str = "__unnamed__";

/// Files that are to be copied. They stay as long as this does.
pub(super) struct Files {
    /// One after the other.
    pub sources: Vec<Source>,
    /// Where they are if an image has them.
    pub image: Option<Mounted>,
    /// Where they are if they were fetched, or are part of the Dockerfile.
    scratch: Vec<Scratch>,
}

/// One file or directory to copy.
pub(super) struct Source {
    /// The root in which it is; none for that of the context or the image.
    pub root: Option<OwnedFd>,
    /// Its path there, without links.
    pub path: Vec<u8>,
    /// The name that it gets in a directory.
    pub name: Vec<u8>,
    /// The directories that come along with it, if they do.
    pub parents: Option<Parents>,
    /// Whether it is one.
    pub directory: bool,
    /// Whether it is unpacked if it is an archive.
    pub unpack: bool,
    /// What it is: `file`, `dir` or `git`.
    kind: &'static str,
    /// The digest of its files, which its own name is no part of.
    content: String,
}

impl Source {
    /// What tells it apart from others that would be copied elsewhere, or otherwise.
    fn digest(&self) -> String {
        // A directory's own name goes nowhere: what it holds is copied.
        let name: &[u8] = if self.directory { b"" } else { &self.name };
        let below = self.parents.as_ref().map_or(&b""[..], |parents| &parents.below);
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for part in [name, below, &[u8::from(self.parents.is_some())], &[u8::from(self.unpack)]] {
            hasher.update(format!("{}:", part.len()).as_bytes());
            hasher.update(part);
        }
        hasher.update(self.content.as_bytes());
        format!("{}:{}", self.kind, hasher.finish().hex())
    }
}

/// Directories that are kept of a source's path.
pub(super) struct Parents {
    /// What stands before them, and is not kept.
    pub base: Vec<u8>,
    /// The directories; a source that is one is the last.
    pub below: Vec<u8>,
}

/// Finds what an instruction copies. Blocks.
pub(super) fn gather(worker: &mut Worker, copying: &Copying) -> Result<(Files, String), Error> {
    let image = match &copying.from {
        Some(image) => Some(Mounted::new(worker.parts(), Some(&image.config))?),
        None => None,
    };
    check_checksum(copying)?;
    let mut files = Files { sources: Vec::new(), image, scratch: Vec::new() };
    for source in &copying.sources {
        let found = match source {
            CopySource::Document(document) => {
                let made = made(worker, &document.name, |file| file.write_all(document.content.as_bytes()));
                made.map(|(source, scratch)| keep(&mut files, source, scratch))
            }
            CopySource::Path(address) if copying.keyword == "ADD" && git::is_address(address) => {
                repository(worker, copying, address)
                    .map(|(source, scratch)| keep(&mut files, source, scratch))
            }
            CopySource::Path(address) if is_address(address) => {
                remote(worker, copying, address).map(|(source, scratch)| keep(&mut files, source, scratch))
            }
            CopySource::Path(path) => local(worker, copying, &files, path),
        };
        let failed = |error: Error| match error {
            Error::Files(text) => Error::Files(format!("{} failed: {text}", copying.keyword)),
            other => other,
        };
        files.sources.extend(found.map_err(failed)?);
    }
    if files.sources.is_empty() {
        return Err(Error::Files(format!("{} failed: no source files were specified", copying.keyword)));
    }
    if files.sources.len() > 1 && !copying.destination.ends_with('/') {
        return Err(Error::InvalidParameter(format!(
            "When using {} with more than one source file, the destination must be a directory and end with a /",
            copying.keyword
        )));
    }
    let digest = together(&files.sources);
    Ok((files, digest))
}

/// A checksum is that of one thing from elsewhere.
fn check_checksum(copying: &Copying) -> Result<(), Error> {
    let refused = |text: &str| Err(Error::InvalidParameter(text.to_owned()));
    match (&copying.checksum, copying.sources.as_slice()) {
        (None, _) => Ok(()),
        (Some(_), [CopySource::Path(source)]) if is_address(source) || git::is_address(source) => Ok(()),
        (Some(_), [_]) => refused("checksum requires HTTP(S) or Git sources"),
        (Some(_), _) => refused("checksum can't be specified for multiple sources"),
    }
}

/// What tells sources apart from others, in their order.
fn together(sources: &[Source]) -> String {
    let all: Vec<String> = sources.iter().map(Source::digest).collect();
    match all.as_slice() {
        [one] => one.clone(),
        several => format!("multi:{}", Digest::of(several.join(",").as_bytes()).hex()),
    }
}

fn keep(files: &mut Files, source: Source, scratch: Scratch) -> Vec<Source> {
    files.scratch.push(scratch);
    vec![source]
}

fn is_address(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Whether a path is a pattern of paths.
fn is_pattern(path: &str) -> bool {
    let mut rest = path.chars();
    while let Some(character) = rest.next() {
        match character {
            '\\' => drop(rest.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// Files of the context or of an image.
fn local(worker: &Worker, copying: &Copying, files: &Files, written: &str) -> Result<Vec<Source>, Error> {
    let root = match &files.image {
        Some(image) => image.root()?,
        None => {
            let context = worker.context.as_deref().map(super::Context::root);
            context.ok_or_else(|| Error::Files("missing build context".into()))?
        }
    };
    let relative = written.trim_start_matches('/');
    let relative = relative.strip_prefix("./").unwrap_or(relative);
    let cleaned = path::clean(relative.as_bytes());
    if cleaned == b".." || cleaned.starts_with(b"../") {
        return Err(Error::Files(format!("forbidden path outside the build context: {written} ()")));
    }
    let finder = Finder {
        root,
        // Whom the archive names does not count, but who has them in the image.
        owned: copying.from.is_some() && copying.chown.is_none(),
        unpack: copying.unpack.unwrap_or(true),
        context: copying.from.is_none(),
        exclude: Exclude::new(&copying.exclude)?,
        worker,
        // What stands before `/./` is not kept.
        pivot: copying.parents.then(|| relative.split_once("/./").map_or(0, |(base, _)| depth(base))),
    };
    if !is_pattern(relative) {
        return Ok(vec![finder.found(&cleaned)?]);
    }
    let paths = expanded(root, &String::from_utf8_lossy(&cleaned), copying.parents);
    let paths = paths.map_err(|error| match error {
        Error::InvalidParameter(_) => Error::Files(format!("syntax error in pattern: {written}")),
        other => other,
    })?;
    let kept = paths.iter().filter(|path| !finder.exclude.skips(path::base(path)));
    kept.map(|path| finder.found(path)).collect()
}

/// The parts that a path has.
fn depth(path: &str) -> usize {
    path::clean(path.as_bytes())
        .split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .count()
}

/// The paths that a pattern stands for, in the order of their names. `**` stands for any directories where that is `deep`.
fn expanded(root: BorrowedFd<'_>, pattern: &str, deep: bool) -> Result<Vec<Vec<u8>>, Error> {
    let is_directory = |path: &[u8]| {
        copy::look(root, &absolute(path)).is_ok_and(|found| found.kind() == FileType::Directory)
    };
    let below = |directory: &[u8]| {
        let names = if is_directory(directory) { tree::names(root, directory) } else { Ok(Vec::new()) };
        let names = names.map_err(|error| tree::failed("open", directory, &error))?;
        let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
        let whole = names.into_iter().map(|name| ([directory, slash, &name].concat(), name));
        Ok::<Vec<(Vec<u8>, Vec<u8>)>, Error>(whole.collect())
    };
    let mut paths: Vec<Vec<u8>> = vec![Vec::new()];
    for part in pattern.split('/') {
        let mut next = Vec::new();
        if deep && part == "**" {
            while let Some(directory) = paths.pop() {
                let inside = below(&directory)?.into_iter().map(|(path, _)| path);
                paths.extend(inside.filter(|path| is_directory(path)));
                next.push(directory);
            }
        } else {
            let pattern = Pattern::read(part).ok_or_else(|| Error::InvalidParameter(part.to_owned()))?;
            for directory in paths {
                let inside = below(&directory)?.into_iter();
                let matching = inside.filter(|(_, name)| pattern.matches(&String::from_utf8_lossy(name)));
                next.extend(matching.map(|(path, _)| path));
            }
        }
        next.sort();
        next.dedup();
        paths = next;
    }
    paths.retain(|path| !path.is_empty());
    Ok(paths)
}

fn absolute(path: &[u8]) -> Vec<u8> {
    [b"/", path].concat()
}

/// How files of a tree are looked for.
struct Finder<'a> {
    root: BorrowedFd<'a>,
    owned: bool,
    unpack: bool,
    context: bool,
    exclude: Exclude,
    worker: &'a Worker,
    /// How many parts of a path are not kept; none if no directories are.
    pivot: Option<usize>,
}

impl Finder<'_> {
    /// A file or directory of the tree; a link at its end is followed.
    fn found(&self, path: &[u8]) -> Result<Source, Error> {
        let failed = |error: io::Error| {
            let text = tree::failed("stat", path, &error).to_string();
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if self.context => Error::Files(
                    format!("file not found in build context or excluded by .dockerignore: {text}"),
                ),
                _ => Error::Files(text),
            }
        };
        let real = copy::follow(self.root, &absolute(path)).map_err(failed)?;
        let stat = copy::look(self.root, &real).map_err(failed)?;
        let directory = stat.kind() == FileType::Directory;
        let skip = |path: &[u8]| self.exclude.skips(path);
        let (none, context) = (Digests::default(), self.worker.context.as_deref());
        let reading = Reading {
            owned: self.owned,
            skip: &skip,
            go_on: &|| !self.worker.cancelled.is_cancelled(),
            digests: context.filter(|_| self.context).map_or(&none, |context| context.digests()),
        };
        let content =
            tree::digest_by(self.root, &real, reading).map_err(|error| self.worker.reason(failed(error)))?;
        Ok(Source {
            root: None,
            name: copy::path::base(path).to_vec(),
            path: real,
            parents: self.pivot.map(|pivot| parents(path, pivot, directory)),
            directory,
            unpack: self.unpack,
            kind: if directory { "dir" } else { "file" },
            content,
        })
    }
}

/// The directories that are kept of a path without its first `pivot` parts.
fn parents(path: &[u8], pivot: usize, directory: bool) -> Parents {
    let parts: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    let end = if directory { parts.len() } else { parts.len().saturating_sub(1) };
    let pivot = pivot.min(end);
    Parents { base: absolute(&parts[..pivot].join(&b'/')), below: parts[pivot..end].join(&b'/') }
}

/// A file that is made here.
fn made(
    worker: &Worker,
    name: &str,
    write: impl FnOnce(&mut std::fs::File) -> io::Result<()>,
) -> Result<(Source, Scratch), Error> {
    let scratch = worker.parts().storage.scratch()?;
    let failed = |source| Error::Io { operation: format!("write {name}"), source };
    let path = scratch.path().join(name);
    if name.is_empty() || name.contains('/') || matches!(name, "." | "..") {
        return Err(Error::InvalidParameter(format!("invalid name of a file: {name:?}")));
    }
    let mut file = std::fs::File::create_new(&path).map_err(failed)?;
    write(&mut file).map_err(failed)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.set_permissions(mode).map_err(failed)?;
    let root = scratch.open()?;
    let path = absolute(name.as_bytes());
    let content = tree::digest(root.as_fd(), &path, &worker.cancelled).map_err(failed)?;
    let source = Source {
        root: Some(root),
        path,
        name: name.as_bytes().to_vec(),
        parents: None,
        directory: false,
        unpack: false,
        kind: "file",
        content,
    };
    Ok((source, scratch))
}

/// A file behind an address. Its permissions are Docker's for such.
fn remote(worker: &mut Worker, copying: &Copying, address: &str) -> Result<(Source, Scratch), Error> {
    if copying.keyword == "COPY" {
        return Err(Error::Files("source can't be a URL for COPY".into()));
    }
    let url = Url::parse(address).map_err(|error| Error::Files(format!("parse {address:?}: {error}")))?;
    let last = url.path().rsplit('/').next().unwrap_or_default();
    let name = match last {
        "" if copying.destination.ends_with('/') => {
            return Err(Error::Files(format!("cannot determine filename for source {address}")));
        }
        "" => UNNAMED.to_owned(),
        last => decoded(last),
    };
    let parts = Arc::clone(worker.parts());
    let fetched = worker.wait(async { Ok(parts.images.fetch(&url).await?) })?;
    let modified = fetched.modified.as_deref().and_then(moment);
    let mut stream = fetched::reader(worker, fetched.parts);
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let (mut source, scratch) = made(worker, &name, |file| {
        let mut piece = vec![0; 64 << 10];
        loop {
            match stream.read(&mut piece)? {
                0 => break,
                length => {
                    hasher.update(&piece[..length]);
                    file.write_all(&piece[..length])?;
                }
            }
        }
        Ok(())
    })
    .map_err(|error| worker.reason(error))?;
    worker.output.say("\n")?;
    let digest = hasher.finish();
    if let Some(wanted) = &copying.checksum
        && *wanted != digest.to_string()
    {
        return Err(Error::Files(format!("digest mismatch {digest}: {wanted}")));
    }
    private(&scratch, &name, modified)
        .map_err(|source| Error::Io { operation: format!("change {name}"), source })?;
    source.unpack = copying.unpack.unwrap_or(false);
    Ok((source, scratch))
}

/// What a Git repository holds.
fn repository(worker: &Worker, copying: &Copying, address: &str) -> Result<(Source, Scratch), Error> {
    let (keep_repository, checksum) = (copying.keep_git_dir, copying.checksum.as_deref());
    let checkout = git::check_out(worker, address, git::Manner { keep_repository, checksum })?;
    let failed = |error| tree::failed("read", address.as_bytes(), &error);
    let exclude = Exclude::new(&copying.exclude)?;
    let (skip, go_on) = (|path: &[u8]| exclude.skips(path), || !worker.cancelled.is_cancelled());
    let reading = Reading { owned: false, skip: &skip, go_on: &go_on, digests: &Digests::default() };
    let content = tree::digest_by(checkout.root.as_fd(), b"/", reading);
    let source = Source {
        path: b"/".to_vec(),
        name: Vec::new(),
        parents: None,
        directory: true,
        unpack: false,
        kind: "git",
        content: content.map_err(|error| worker.reason(failed(error)))?,
        root: Some(checkout.root),
    };
    Ok((source, checkout.scratch))
}

/// A time as web servers write it.
fn moment(text: &str) -> Option<std::time::SystemTime> {
    jiff::fmt::rfc2822::parse(text).ok().map(|moment| moment.timestamp().into())
}

/// What is fetched can be read by its owner alone; if the server does not say when it was changed, it never was.
fn private(scratch: &Scratch, name: &str, modified: Option<std::time::SystemTime>) -> io::Result<()> {
    let file = std::fs::File::options().write(true).open(scratch.path().join(name))?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    file.set_modified(modified.unwrap_or(std::time::UNIX_EPOCH))
}

/// `%20` and its like as what they stand for, if that is a name.
fn decoded(text: &str) -> String {
    let whole = format!("a={}", text.replace('+', "%2B"));
    let value = url::form_urlencoded::parse(whole.as_bytes()).next().map(|(_, value)| value.into_owned());
    value.filter(|name| !name.contains('/') && !name.contains('\0')).unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, directory: bool, below: Option<&str>) -> Source {
        let kind = if directory { "dir" } else { "file" };
        let below = below.map(|below| Parents { base: Vec::new(), below: below.as_bytes().to_vec() });
        let (name, path, content) = (name.as_bytes().to_vec(), b"/".to_vec(), "same".to_owned());
        Source { root: None, path, name, parents: below, directory, unpack: false, kind, content }
    }

    #[test]
    fn sources_differ_by_their_names_and_their_order() {
        let digest = |sources: &[Source]| together(sources);
        let one = |name| digest(&[source(name, false, None)]);
        assert_ne!(one("a"), one("b"));
        assert_eq!(one("a"), one("a"));
        assert!(one("a").starts_with("file:"), "{}", one("a"));
        // What a directory holds is copied, and not the directory.
        assert_eq!(digest(&[source("a", true, None)]), digest(&[source("b", true, None)]));
        let two = |first, second| digest(&[source(first, false, None), source(second, false, None)]);
        assert_ne!(two("a", "b"), two("b", "a"));
        let below = |name, below| digest(&[source(name, false, below)]);
        assert_ne!(below("a", Some("x")), below("a", Some("y")));
        assert_ne!(below("a", Some("")), below("a", None));
        assert_ne!(below("ab", Some("c")), below("a", Some("bc")));
        let unpacked = Source { unpack: true, ..source("a", false, None) };
        assert_ne!(digest(&[unpacked]), one("a"));
    }

    #[test]
    fn patterns_are_told_from_paths() {
        for (path, expected) in [("a*", true), ("a\\*", false), ("a/[b]", true), ("a", false), ("?", true)] {
            assert_eq!(is_pattern(path), expected, "{path}");
        }
        let kept = |path: &str, pivot, directory| {
            let parents = parents(path.as_bytes(), pivot, directory);
            String::from_utf8([parents.base, b"|".to_vec(), parents.below].concat()).unwrap()
        };
        assert_eq!(kept("a/b/c.txt", 0, false), "/|a/b");
        assert_eq!(kept("a/b/c.txt", 1, false), "/a|b");
        assert_eq!(kept("a/b", 0, true), "/|a/b");
        assert_eq!(kept(".", 3, true), "/|");
        assert_eq!((depth("./a//b/"), depth("")), (2, 0));
        assert_eq!(decoded("a%20b+c"), "a b+c");
        assert_eq!(decoded("a%2Fb"), "a%2Fb");
        let seconds = std::time::Duration::from_secs(784_111_777);
        assert_eq!(moment("Sun, 06 Nov 1994 08:49:37 GMT"), Some(std::time::UNIX_EPOCH + seconds));
    }
}
