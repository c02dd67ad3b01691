//! The files that a client sends.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use berth_api::build::Lint;
use berth_archive::copy::{self, Options};
use berth_archive::decompress::{self, Compression};
use berth_archive::ignore::{self, Ignore};
use berth_build::dockerfile::FILE_LIMIT;
use berth_storage::Scratch;
use url::Url;

use super::digests::Digests;
use super::executor::Worker;
use super::session::{self, Received};
use super::{fetched, git, tree};
use crate::Error;
use crate::engine::Parts;

/// What a Dockerfile is called.
const DOCKERFILE: &str = "Dockerfile";
/// The argument by which a Git context keeps the repository.
const KEEP_GIT: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
/// Bytes of a tar's header.
const HEADER: usize = 512;

/// The files of a context, beneath a directory of their own. They go with this.
pub(super) struct Context {
    root: OwnedFd,
    _scratch: Option<Scratch>,
    /// What came by the client's session, and is kept.
    received: Option<Received>,
    /// What is known of the files.
    digests: Arc<Digests>,
    /// A Dockerfile that came alone.
    alone: Option<Vec<u8>>,
}

impl Context {
    /// Files that nothing is known of.
    fn new(root: OwnedFd, scratch: Scratch) -> Context {
        Context { root, _scratch: Some(scratch), received: None, digests: Arc::default(), alone: None }
    }

    /// Unpacks an archive. Blocks.
    pub fn read(parts: &Parts, archive: impl Read) -> Result<Context, Error> {
        parts.storage.check_space()?;
        let scratch = parts.storage.scratch()?;
        let root = scratch.open()?;
        let options = Options { replace: true, ..Options::default() };
        let unpacked =
            decompress::reader(archive).and_then(|reader| copy::unpack(root.as_fd(), b"/", &options, reader));
        unpacked.map_err(|error| {
            Error::InvalidParameter(format!("Error processing tar file: {}", crate::error::chain(&error)))
        })?;
        // A step that sees it may not be root.
        rustix::fs::fchmod(&root, rustix::fs::Mode::from_raw_mode(0o755))
            .map_err(|error| Error::Io { operation: "open the context".into(), source: error.into() })?;
        Ok(Context::new(root, scratch))
    }

    /// Brings the build's context by its client's session; where it is only looked at the Dockerfile, no other files. Blocks.
    pub fn of_client(worker: &Worker) -> Result<Context, Error> {
        if worker.request.lint != Lint::Only {
            return Self::from_client(worker, session::CONTEXT);
        }
        let name =
            String::from_utf8_lossy(&copy::path::clean(worker.request.dockerfile.as_bytes())).into_owned();
        let (lower, own) = (name.to_lowercase(), format!("{name}.dockerignore"));
        let include = [name, lower, own, ".dockerignore".to_owned()].map(|name| ignore::literal(&name));
        let (root, scratch) = session::bring(worker, session::CONTEXT, include.into())?;
        Ok(Context::new(root, scratch))
    }

    /// Brings the files that the build's client offers by its session under a name. Blocks.
    pub fn from_client(worker: &Worker, name: &str) -> Result<Context, Error> {
        let (root, received) = session::receive(worker, name)?;
        let digests = received.digests();
        Ok(Context { root, _scratch: None, received: Some(received), digests, alone: None })
    }

    /// Whether there are files, and not a Dockerfile alone.
    pub fn has_files(&self) -> bool {
        self.alone.is_none()
    }

    /// What is known of the files.
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// The root of the files.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The Dockerfile's text, and what stays out of the context. What `.dockerignore` leaves out of it and of itself is removed:
    /// clients send both always.
    pub fn dockerfile(&self, name: &str) -> Result<(Vec<u8>, Ignore), Error> {
        if let Some(text) = &self.alone {
            return Ok((text.clone(), Ignore::default()));
        }
        let outside =
            || Error::InvalidParameter(format!("forbidden path outside the build context: {name} ()"));
        let cleaned = copy::path::clean(name.as_bytes());
        if cleaned == b".." || cleaned.starts_with(b"../") {
            return Err(outside());
        }
        let mut found = name.to_owned();
        let mut text = self.text(&found)?;
        if text.is_none() && name == DOCKERFILE {
            found = name.to_lowercase();
            text = self.text(&found)?;
        }
        let missing = || Error::Files(format!("Cannot locate specified Dockerfile: {name}"));
        let text = text.ok_or_else(missing)?;
        let own = self.ignore(&format!("{found}.dockerignore"))?;
        let shared = self.ignore(".dockerignore")?;
        if let Some(ignore) = &shared {
            self.leave_out(ignore, &found);
        }
        Ok((text, own.or(shared).unwrap_or_default()))
    }

    fn ignore(&self, name: &str) -> Result<Option<Ignore>, Error> {
        let Some(patterns) = self.text(name)? else { return Ok(None) };
        let ignore = Ignore::read(&patterns);
        ignore.map(Some).map_err(|error| Error::InvalidParameter(format!("error reading {name}: {error}")))
    }

    fn text(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        tree::read(self.root(), name.as_bytes(), FILE_LIMIT as u64 + 1).map_err(|source| {
            Error::Files(format!(
                "unexpected error reading Dockerfile: read {name}: {}",
                tree::words(&source)
            ))
        })
    }

    fn leave_out(&self, ignore: &Ignore, dockerfile: &str) {
        for name in [".dockerignore", dockerfile] {
            let relative = berth_archive::ignore::clean(name);
            match &self.received {
                _ if !ignore.matches(&relative) => {}
                Some(received) => received.set_aside(name.as_bytes()),
                None => tree::remove(self.root(), name.as_bytes()),
            }
        }
    }
}

/// Fetches a context: an archive, or a Dockerfile alone. Blocks.
pub(super) fn fetch(worker: &mut Worker, address: &str) -> Result<Context, Error> {
    if git::is_context(address) {
        let keep = worker.request.arguments.get(KEEP_GIT).is_some_and(|value| value.as_deref() == Some("1"));
        let git::Checkout { root, scratch } =
            git::check_out(worker, address, git::Manner { keep_repository: keep, checksum: None })?;
        return Ok(Context::new(root, scratch));
    }
    if !address.starts_with("http://") && !address.starts_with("https://") {
        let text = format!("remoteURL ({address}) could not be recognized as URL");
        return Err(Error::InvalidParameter(text));
    }
    let url = Url::parse(address)
        .map_err(|error| Error::InvalidParameter(format!("parse {address:?}: {error}")))?;
    let parts = Arc::clone(worker.parts());
    let fetched = worker.wait(async { Ok(parts.images.fetch(&url).await?) })?;
    let mut stream = fetched::reader(worker, fetched.parts);
    let mut start = Vec::new();
    (&mut stream)
        .take(HEADER as u64)
        .read_to_end(&mut start)
        .map_err(|source| Error::Io { operation: format!("download {address}"), source })?;
    let packed = Compression::detect(&start) != Compression::None || tree::is_tar_header(&start);
    let mut whole = io::Cursor::new(start).chain(stream);
    if packed {
        return Context::read(&parts, whole);
    }
    let mut text = Vec::new();
    (&mut whole)
        .take(FILE_LIMIT as u64 + 1)
        .read_to_end(&mut text)
        .map_err(|source| Error::Io { operation: format!("download {address}"), source })?;
    let scratch = parts.storage.scratch()?;
    let root = scratch.open()?;
    Ok(Context { alone: Some(text), ..Context::new(root, scratch) })
}
