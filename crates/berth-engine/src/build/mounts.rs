//! `RUN --mount`: what a step's program sees beside its image's files.
//!
//! Every mount is made here, detached, from descriptors: no path of a Dockerfile or of a context is ever walked outside of the
//! tree that it belongs to, and nothing is cleaned up in the image's files afterwards.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use berth_archive::{copy, replica};
use berth_build::configure::Script;
use berth_build::dockerfile::{Mount, MountKind, Sharing};
use berth_build::solve::{Image, Program, destination};
use berth_build::variables::CACHES;
use berth_oci::Digest;
use berth_storage::{CacheLease, CacheUse, Scratch, Snapshot};
use berth_sys::mount::{self, Parameter, attr};
use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, Uid};

use super::borrowed::Borrowed;
use super::executor::Worker;
use super::lent::{LentMount, Loan};
use super::{cache, tree};
use crate::engine::Parts;
use crate::life::sources;
use crate::{Error, name};

/// Where secrets appear that have no place of their own.
const SECRETS: &str = "/run/secrets/";
/// The same of agents, followed by a number.
const AGENTS: &str = "/run/buildkit/ssh_agent.";
/// The agent that is meant if none is named.
const AGENT: &str = "default";

/// The mounts of one step. What they need stays as long as this does.
#[derive(Default)]
pub(super) struct Mounts {
    /// Where they appear.
    pub places: Vec<LentMount>,
    loan: Loan,
    _caches: Vec<CacheLease>,
    _images: Vec<Borrowed>,
    _scratch: Vec<Scratch>,
    _secrets: Vec<SecretFile>,
}

/// Begins the names of files with secrets, in the daemon's run-time directory.
const SECRET_FILE: &str = "secret-";

/// A file with a secret. It has to have a name while it is mounted: the kernel attaches nothing that was removed.
struct SecretFile(PathBuf);

/// Removes secrets that a killed engine lent.
pub(super) fn sweep(parts: &Parts) {
    let Ok(entries) = std::fs::read_dir(&parts.settings.exec_root) else { return };
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(SECRET_FILE.as_bytes()))
    {
        drop(SecretFile(entry.path()));
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, "a secret stays in the run-time directory until the next start");
        }
    }
}

impl Mounts {
    /// Makes the mounts of a program. `directory` is its working directory. Blocks.
    pub fn make(worker: &mut Worker, program: &Program, directory: &str) -> Result<Mounts, Error> {
        let mut mounts = Mounts::default();
        for (mount, from) in &program.mounts {
            let made = mounts.one(worker, mount, from.as_ref(), directory);
            made.map_err(|error| match worker.check() {
                Ok(()) => at(program.lines.first, error),
                Err(cancelled) => cancelled,
            })?;
        }
        if let Some(script) = &program.script {
            mounts.script(worker, script)?;
        }
        Ok(mounts)
    }

    /// A file that the program executes.
    fn script(&mut self, worker: &Worker, script: &Script) -> Result<(), Error> {
        let failed = |source| Error::Io { operation: "lend a script".into(), source };
        // The run-time directory may be one from which nothing can be executed.
        let scratch = worker.parts().storage.scratch()?;
        let path = scratch.path().join("script");
        std::fs::write(&path, &script.content).map_err(failed)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).map_err(failed)?;
        let tree = mount::clone_at(rustix::fs::CWD, &path, false).map_err(failed)?;
        self._scratch.push(scratch);
        self.put(tree, script.path.clone(), true);
        Ok(())
    }

    /// What is given to the container, once.
    pub fn loan(&mut self) -> Loan {
        std::mem::take(&mut self.loan)
    }

    fn one(
        &mut self,
        worker: &mut Worker,
        mount: &Mount,
        from: Option<&Image>,
        directory: &str,
    ) -> Result<(), Error> {
        match mount.kind {
            MountKind::Bind => {
                let target = target(mount, directory)?;
                let tree = self.bind(worker, mount, from)?;
                self.put(tree, target, mount.read_only);
            }
            MountKind::Cache => {
                let target = target(mount, directory)?;
                let tree = self.cache(worker, mount, from, &target)?;
                self.put(tree, target, mount.read_only);
            }
            MountKind::Tmpfs => {
                let target = target(mount, directory)?;
                self.put(tmpfs(mount.size)?, target, mount.read_only);
            }
            MountKind::Secret => self.secret(worker, mount, directory)?,
            MountKind::Ssh => self.ssh(worker, mount, directory)?,
        }
        Ok(())
    }

    fn put(&mut self, tree: OwnedFd, destination: String, read_only: bool) {
        self.loan.mounts.insert(self.places.len(), tree);
        self.places.push(LentMount { destination, read_only });
    }

    /// Files of the context or of an image. What is written to them goes to a layer that nobody keeps.
    fn bind(&mut self, worker: &Worker, mount: &Mount, from: Option<&Image>) -> Result<OwnedFd, Error> {
        let source = mount.source.as_deref().unwrap_or("/");
        let Some(image) = from else {
            let context = worker.context.as_deref().map(super::Context::root);
            let root = context.ok_or_else(|| Error::Files("missing build context".into()))?;
            if mount.read_only {
                return inside(root, source);
            }
            let scratch = worker.parts().storage.scratch()?;
            let tree = writable_copy(worker, root, &scratch)?;
            self._scratch.push(scratch);
            return inside(tree.as_fd(), source);
        };
        let remap = worker.parts().remap(&worker.request.host);
        let borrowed = Borrowed::for_step(worker.parts(), &image.config, is_owned(worker)?)?;
        let snapshot = borrowed.snapshot()?;
        self._images.push(borrowed);
        let tree = match (mount.read_only, &snapshot.work) {
            (true, _) => sources::image_to_lend(&snapshot, remap)?,
            // A whole copy.
            (false, None) => mount::clone_at(rustix::fs::CWD, &snapshot.upper, false).map_err(not_mounted)?,
            // No overlay can be mapped, but a copy can.
            (false, Some(_)) if remap.is_some() => {
                let scratch = worker.parts().storage.scratch()?;
                let tree = whole_copy(worker, &snapshot, &scratch)?;
                self._scratch.push(scratch);
                tree
            }
            (false, Some(work)) => overlay(&snapshot.lower, &snapshot.upper, work).map_err(not_mounted)?,
        };
        inside(tree.as_fd(), source)
    }

    fn cache(
        &mut self,
        worker: &mut Worker,
        mount: &Mount,
        from: Option<&Image>,
        target: &str,
    ) -> Result<OwnedFd, Error> {
        let named = mount.id.as_deref().unwrap_or(target);
        let id = match worker.request.argument(CACHES) {
            Some(namespace) => format!("{}/{named}", namespace.trim_end_matches('/')),
            None => named.to_owned(),
        };
        let base = from.map(|image| image.id.to_string()).unwrap_or_default();
        let source = mount.source.as_deref().unwrap_or_default();
        let key = Digest::of(format!("{}:{id}\n{base}\n{source}", id.len()).as_bytes());
        let way = match mount.sharing {
            Sharing::Shared => CacheUse::Shared,
            Sharing::Locked => CacheUse::Alone,
            Sharing::Private => CacheUse::Own,
        };
        let caches = worker.parts().storage.build_caches();
        let lease = caches.acquire(&key, way, || worker.check().is_ok())?;
        let mut lease = lease.ok_or_else(super::executor::cancelled)?;
        let directory = lease.open()?;
        worker.caches.mounted(&key);
        if lease.is_new() {
            if !cache::fill(worker, &key, directory.as_fd())? {
                fill(worker, mount, from, directory.as_fd())?;
            }
            lease.keep(&format!("cached mount {target} from exec with id {id:?}"))?;
        }
        self._caches.push(lease);
        mount::clone_tree(directory, false).map_err(not_mounted)
    }

    fn secret(&mut self, worker: &Worker, mount: &Mount, directory: &str) -> Result<(), Error> {
        let named = mount.id.as_deref().or(mount.source.as_deref()).or(mount.target.as_deref());
        let id = named.map(|text| text.rsplit('/').next().unwrap_or(text)).unwrap_or_default();
        // Only a target is a path whose last part is the name.
        let id = mount.id.as_deref().or(mount.source.as_deref()).unwrap_or(id);
        let Some(value) = worker.request.keys.0.secret(id)? else {
            return match mount.required {
                true => Err(Error::InvalidParameter(format!("secret {id}: not found"))),
                false => Ok(()),
            };
        };
        if let Some(variable) = &mount.environment {
            let variable = if variable.is_empty() { id } else { variable };
            let text = String::from_utf8(value.clone()).ok().filter(|text| !text.contains('\0'));
            let text = text.ok_or_else(|| {
                Error::InvalidParameter(format!("secret {id}: it cannot be the value of a variable"))
            })?;
            self.loan.environment.push(format!("{variable}={text}"));
            if mount.target.is_none() {
                return Ok(());
            }
        }
        let place = match &mount.target {
            Some(_) => target(mount, directory)?,
            None => format!("{SECRETS}{id}"),
        };
        let (tree, file) = secret_file(worker.parts(), &value, mount)?;
        self._secrets.push(file);
        self.put(tree, place, true);
        Ok(())
    }

    fn ssh(&mut self, worker: &Worker, mount: &Mount, directory: &str) -> Result<(), Error> {
        let id = mount.id.as_deref().unwrap_or(AGENT);
        let owner = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        let mode = mount.mode.unwrap_or(0o600) & 0o7777;
        let Some(socket) = worker.request.keys.0.ssh(id, owner, mode)? else {
            return match mount.required {
                true => Err(Error::InvalidParameter(format!("unset ssh forward key {id}"))),
                false => Ok(()),
            };
        };
        let place = match &mount.target {
            Some(_) => target(mount, directory)?,
            None => format!("{AGENTS}{}", self.places.len()),
        };
        let failed = |source| Error::Io { operation: format!("lend the ssh agent {id}"), source };
        let tree = mount::clone_at(rustix::fs::CWD, &socket, false).map_err(failed)?;
        if !self.loan.environment.iter().any(|one| one.starts_with("SSH_AUTH_SOCK=")) {
            self.loan.environment.push(format!("SSH_AUTH_SOCK={place}"));
        }
        self.put(tree, place, true);
        Ok(())
    }
}

/// What a new cache begins with.
fn fill(
    worker: &Worker,
    mount: &Mount,
    from: Option<&Image>,
    directory: BorrowedFd<'_>,
) -> Result<(), Error> {
    let failed =
        |error: rustix::io::Errno| Error::Io { operation: "make a cache".into(), source: error.into() };
    let mode = mount.mode.unwrap_or(0o755) & 0o7777;
    let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
    if let Some(image) = from {
        let borrowed = Borrowed::new(worker.parts(), &image.config)?;
        let files = sources::image(&borrowed.snapshot()?)?;
        let tree = inside(files.as_fd(), mount.source.as_deref().unwrap_or("/"))?;
        copy_all(worker, tree.as_fd(), directory)?;
    }
    rustix::fs::fchown(directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed)?;
    rustix::fs::fchmod(directory, Mode::from_raw_mode(mode)).map_err(failed)
}

/// The digest of what a bind of the context shows. Blocks.
pub(super) fn digest(worker: &Worker, mount: &Mount, line: usize) -> Result<String, Error> {
    let context = worker.context.as_deref();
    let context = context.ok_or_else(|| Error::Files("missing build context".into()))?;
    let root = context.root();
    let source = mount.source.as_deref().unwrap_or("/");
    let missing = |error: std::io::Error| at(line, not_found(source, &error));
    let real = copy::follow(root, source.as_bytes()).map_err(missing)?;
    let go_on = || !worker.cancelled.is_cancelled();
    let reading = tree::Reading { owned: false, skip: &|_| false, go_on: &go_on, digests: context.digests() };
    tree::digest_by(root, &real, reading)
        .map_err(|error| worker.check().err().unwrap_or_else(|| missing(error)))
}

/// An error with the line that it is about.
fn at(line: usize, error: Error) -> Error {
    match error {
        Error::InvalidParameter(text) | Error::Files(text) => {
            Error::InvalidParameter(format!("Dockerfile line {line}: {text}"))
        }
        other => other,
    }
}

fn not_found(source: &str, error: &std::io::Error) -> Error {
    let why = match error.kind() {
        std::io::ErrorKind::NotFound => "not found".to_owned(),
        _ => tree::words(error),
    };
    Error::Files(format!("the source of the mount: {source:?}: {why}"))
}

fn not_mounted(source: std::io::Error) -> Error {
    Error::Io { operation: "mount files of a build".into(), source }
}

/// Where a mount appears.
fn target(mount: &Mount, directory: &str) -> Result<String, Error> {
    let kind = mount.kind.name();
    let written = mount.target.as_deref();
    let written =
        written.ok_or_else(|| Error::InvalidParameter(format!("a mount of type {kind} has no target")))?;
    let whole = destination(directory, written);
    match whole.trim_end_matches('/') {
        "" => Err(Error::InvalidParameter(format!("invalid mount target {written:?}"))),
        path => Ok(path.to_owned()),
    }
}

/// A detached mount of a path inside a tree, links followed there.
fn inside(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { "." } else { path };
    let found = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve);
    let found = found.map_err(|error| not_found(path, &error.into()))?;
    let kind = rustix::fs::fstat(&found).map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode));
    match kind {
        Ok(rustix::fs::FileType::Directory | rustix::fs::FileType::RegularFile) => {}
        _ => return Err(Error::Files(format!("the source of the mount: {path:?}: no file or directory"))),
    }
    mount::clone_tree(found, false).map_err(not_mounted)
}

/// An overlay whose upper layer is written to. It is not written back for the sake of the next boot: it will be gone.
fn overlay(lower: &[PathBuf], upper: &Path, work: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &Path| rustix::fs::open(path, flags, Mode::empty());
    let held: Vec<OwnedFd> = lower.iter().map(|path| open(path)).collect::<Result<_, _>>()?;
    let (upper, work) = (open(upper)?, open(work)?);
    // By descriptor: the kernel takes at most 255 bytes for one value.
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let make = |mut all: Vec<Parameter>| {
        all.push(Parameter::value("upperdir", name(&upper))?);
        all.push(Parameter::value("workdir", name(&work))?);
        for key in ["metacopy", "redirect_dir", "index", "xino"] {
            all.push(Parameter::value(key, "off")?);
        }
        all.push(Parameter::parse("volatile")?);
        mount::new_filesystem("overlay", &all, 0)
    };
    let each = held.iter().map(|fd| Parameter::value("lowerdir+", name(fd)));
    match make(each.collect::<Result<_, _>>()?) {
        // Before Linux 6.8.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
            let names: Vec<String> = held.iter().map(name).collect();
            make(vec![Parameter::value("lowerdir", names.join(":"))?])
        }
        other => other,
    }
}

/// The context's files so that they can be written, and stay as they are for everyone else.
fn writable_copy(worker: &Worker, root: BorrowedFd<'_>, scratch: &Scratch) -> Result<OwnedFd, Error> {
    let failed = |source| Error::Io { operation: "make a directory".into(), source };
    let (upper, work) = (scratch.path().join("upper"), scratch.path().join("work"));
    for path in [&upper, &work] {
        std::fs::create_dir(path).map_err(failed)?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).map_err(failed)?;
    }
    let parts = worker.parts();
    // No overlay can be mapped, but a copy can.
    let is_mapped = parts.remap(&worker.request.host).is_some();
    if parts.storage.driver() == berth_storage::Driver::Overlay && !is_mapped {
        let lower = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
        return overlay(&[lower], &upper, &work).map_err(not_mounted);
    }
    let open = rustix::fs::open(&upper, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let directory = open.map_err(|error| failed(error.into()))?;
    let owner = match is_owned(worker)? {
        true => parts.owner_on_disk(&worker.request.host),
        false => None,
    };
    if let Some((uid, gid)) = owner {
        let changed = rustix::fs::fchown(&directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        changed.map_err(|error| failed(error.into()))?;
    }
    // A context is root's.
    let owner = owner.map_or(copy::Owner::Archive, |(uid, gid)| copy::Owner::Fixed(uid, gid));
    let options = copy::Options { replace: true, owner, ..copy::Options::default() };
    let to = (directory.as_fd(), &b"/"[..]);
    super::copy::pour(root, b"/", b".", to, &options, &|_| false, &worker.cancelled)?;
    mount::clone_tree(directory, false).map_err(not_mounted)
}

/// Whether files for a step's container have to belong on the disk to whom they belong outside of it: it has a user namespace,
/// and no mount can show them so. Blocks.
fn is_owned(worker: &Worker) -> Result<bool, Error> {
    let parts = worker.parts();
    match parts.remap(&worker.request.host) {
        Some(remap) if parts.storage.owners().is_some() => Ok(remap.problem(parts.storage.root())?.is_some()),
        _ => Ok(false),
    }
}

/// An image's files so that they can be written, in a directory. Blocks, as long as somebody wants the build.
fn whole_copy(worker: &Worker, snapshot: &Snapshot, scratch: &Scratch) -> Result<OwnedFd, Error> {
    let go_on = || !worker.cancelled.is_cancelled();
    let keep_free = worker.parts().storage.keep_free_bytes();
    let options = replica::Options { keep_free, go_on: Some(&go_on), ..replica::Options::default() };
    let directory = scratch.open()?;
    replica::copy(&snapshot.image()?, directory.as_fd(), &options)?;
    mount::clone_tree(directory, false).map_err(not_mounted)
}

/// Copies all that a directory holds. Blocks, as long as somebody wants the build.
pub(super) fn copy_all(worker: &Worker, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Error> {
    let options = copy::Options { replace: true, ..Default::default() };
    super::copy::pour(from, b"/", b".", (to, b"/"), &options, &|_| false, &worker.cancelled)
}

fn tmpfs(size: Option<u64>) -> Result<OwnedFd, Error> {
    let size = size.map(|bytes| Parameter::value("size", bytes.to_string())).transpose();
    let parameters: Vec<Parameter> = size.map_err(not_mounted)?.into_iter().collect();
    mount::new_filesystem("tmpfs", &parameters, attr::NOSUID | attr::NODEV).map_err(not_mounted)
}

/// A file beneath the exec root: no data root ever holds a secret.
fn secret_file(parts: &Parts, value: &[u8], mount: &Mount) -> Result<(OwnedFd, SecretFile), Error> {
    let failed = |source| Error::Io { operation: "lend a secret".into(), source };
    let name = name::new_id().map_err(failed)?;
    let path = parts.settings.exec_root.join(format!("{SECRET_FILE}{name}"));
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    let kept = SecretFile(path);
    let mut lend = || {
        file.write_all(value)?;
        rustix::fs::fchown(
            &file,
            Some(Uid::from_raw(mount.uid.unwrap_or(0))),
            Some(Gid::from_raw(mount.gid.unwrap_or(0))),
        )?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mount.mode.unwrap_or(0o400) & 0o7777))?;
        mount::clone_at(rustix::fs::CWD, &kept.0, false)
    };
    let tree = lend().map_err(failed)?;
    Ok((tree, kept))
}
