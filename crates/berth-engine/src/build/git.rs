//! Git repositories as contexts, and as what `ADD` copies. The `git` program fetches them.

mod access;
mod address;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use berth_archive::copy;
use berth_storage::Scratch;
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::executor::Worker;
use super::tree;
use crate::Error;
use access::Access;
use address::Address;
pub(super) use address::{is_address, is_context};

/// The repository itself, among its files.
const REPOSITORY: &[u8] = b"/.git";
/// What was fetched last.
const FETCHED: &str = "FETCH_HEAD";
/// Most that is told of what the program says, in bytes.
const TOLD: u64 = 4096;

/// What a repository holds. The files go with it.
pub(super) struct Checkout {
    /// The directory that was asked for.
    pub root: OwnedFd,
    /// Where it is.
    pub scratch: Scratch,
}

/// How an instruction wants a repository, beside its address.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manner<'a> {
    /// Whether the repository itself comes along, unless the address says otherwise.
    pub keep_repository: bool,
    /// What the name of the commit begins with.
    pub checksum: Option<&'a str>,
}

/// Fetches what an address names. Blocks.
pub(super) fn check_out(worker: &Worker, text: &str, manner: Manner<'_>) -> Result<Checkout, Error> {
    let address = Address::read(text)?;
    let checksum = checksum(&address, manner.checksum)?;
    worker.parts().storage.check_space()?;
    let scratch = worker.parts().storage.scratch()?;
    let place = scratch.path();
    let access = Access::of(worker, &address.remote)?;
    let git = |arguments: &[&str]| run(worker, &place, &access, arguments);
    git(&["init", "--quiet"])?;
    git(&["remote", "add", "origin", "--", &address.remote])?;
    let wanted = if address.reference.is_empty() { "HEAD" } else { &address.reference };
    // Not every server gives a part of the history, or a commit by its name.
    let shallow = git(&["fetch", "--quiet", "--depth", "1", "origin", "--", wanted]);
    let commit = match shallow {
        Ok(()) => FETCHED.to_owned(),
        Err(_) => {
            worker.check()?;
            git(&["fetch", "--quiet", "--tags", "origin", "--", "+refs/heads/*:refs/remotes/origin/*"])?;
            match git(&["fetch", "--quiet", "origin", "--", wanted]) {
                Ok(()) => FETCHED.to_owned(),
                Err(_) => wanted.to_owned(),
            }
        }
    };
    git(&["checkout", "--quiet", "--force", "--detach", &commit, "--"])?;
    if let Some(wanted) = checksum {
        check_commit(&place.join(".git"), &commit, wanted)?;
    }
    if address.submodules && place.join(".gitmodules").symlink_metadata().is_ok() {
        git(&["submodule", "--quiet", "update", "--init", "--recursive"])?;
    }
    let top = scratch.open()?;
    if !address.keep_repository.unwrap_or(manner.keep_repository) {
        let gone = berth_archive::tree::remove(top.as_fd(), c".git");
        gone.map_err(|error| tree::failed("remove", REPOSITORY, &error))?;
    }
    // Links of the repository lead nowhere but into it (R18).
    let failed = |error| {
        let text = tree::failed("open", address.subdirectory.as_bytes(), &error);
        Error::InvalidParameter(format!("the subdirectory of the Git address {text:?}"))
    };
    let real = copy::follow(top.as_fd(), address.subdirectory.as_bytes()).map_err(failed)?;
    let root = copy::opened(top.as_fd(), &real, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
    let open = rustix::fs::Mode::from_raw_mode(0o755);
    rustix::fs::fchmod(&root, open).map_err(|error| failed(error.into()))?;
    Ok(Checkout { root, scratch })
}

/// What the commit's name has to begin with, by the address or by whoever names it.
fn checksum<'a>(address: &'a Address, given: Option<&'a str>) -> Result<Option<&'a str>, Error> {
    let refused = |text: String| Err(Error::InvalidParameter(text));
    match (address.checksum.as_deref(), given) {
        (_, Some(given)) if !address::is_checksum(given) => {
            refused(format!("invalid checksum {given} for Git URL, expected hex commit hash"))
        }
        (Some(own), Some(given)) if own != given => {
            refused(format!("checksum mismatch {given:?} != {own:?}"))
        }
        (own, given) => Ok(given.or(own)),
    }
}

/// Whether what is checked out, the commit or the annotated tag that led to it, is what is wanted.
fn check_commit(repository: &Path, commit: &str, wanted: &str) -> Result<(), Error> {
    let read = |name: &str| {
        let text = std::fs::read_to_string(repository.join(name)).unwrap_or_default();
        text.split_whitespace().next().unwrap_or_default().to_owned()
    };
    // The former holds the commit itself, since it is on no branch; the latter begins with what was asked for, if that was
    // fetched by its name.
    let names: &[&str] = if commit == FETCHED { &["HEAD", FETCHED] } else { &["HEAD"] };
    let found: Vec<String> = names.iter().map(|name| read(name)).collect();
    let wanted = wanted.to_ascii_lowercase();
    if found.iter().any(|name| name.starts_with(&wanted)) {
        return Ok(());
    }
    Err(Error::InvalidParameter(format!("expected checksum to match {wanted}, got {}", found.join(" or "))))
}

/// Runs `git` in a directory, without any setting of the host's. It ends with the build.
fn run(worker: &Worker, place: &Path, access: &Access, arguments: &[&str]) -> Result<(), Error> {
    let mut command = Command::new("git");
    command
        .args([
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "protocol.ext.allow=never",
            "-c",
            "protocol.file.allow=never",
        ])
        .args(["-c", "core.symlinks=true", "-c", "safe.directory=*"])
        .args(arguments)
        .current_dir(place)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| kept(&name.to_string_lossy())))
        .envs([
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ])
        .envs(access.0.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let ended = worker.wait(async {
        to_end(command).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::InvalidParameter("Git repositories need the program git, which is not there".into())
            }
            _ => Error::Io { operation: "run git".into(), source: error },
        })
    });
    let (status, told) = ended?;
    if status.success() {
        return Ok(());
    }
    let what = arguments.first().copied().unwrap_or_default();
    Err(Error::InvalidParameter(format!("git {what}: {}", String::from_utf8_lossy(&told).trim())))
}

/// Runs a program that leads a process group to its end. Gives its status, and the first [`TOLD`] bytes of what it says.
/// When the future is dropped, the whole group ends: `git` leaves most of its work to programs of its own.
async fn to_end(mut command: Command) -> io::Result<(ExitStatus, Vec<u8>)> {
    let mut child = command.spawn()?;
    // It goes before the child does, whose number may be another's afterwards.
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let mut told = Vec::new();
    if let Some(mut errors) = child.stderr.take() {
        (&mut errors).take(TOLD).read_to_end(&mut told).await?;
        tokio::io::copy(&mut errors, &mut tokio::io::sink()).await?;
    }
    let status = child.wait().await?;
    group.0 = None;
    Ok((status, told))
}

/// A process group, killed with this.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.take()
            && let Err(error) = rustix::process::kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(%error, "the programs of git cannot be ended");
        }
    }
}

/// Variables that the program needs to find others, and proxies.
fn kept(name: &str) -> bool {
    matches!(name, "PATH" | "SSL_CERT_FILE" | "SSL_CERT_DIR") || name.to_ascii_lowercase().ends_with("_proxy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_program_has_started_ends_with_it() {
        let (reader, writer) = io::pipe().unwrap();
        let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into()).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo begun; wait"]).stdout(writer);
        command.stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let running = tokio::spawn(to_end(command));
        pipe.read_exact(&mut [0; 6]).await.unwrap();
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        // It ends when nobody can write any more, the helper among them.
        assert_eq!(pipe.read_to_end(&mut Vec::new()).await.unwrap(), 0);

        let mut command = Command::new("sh");
        command.args(["-c", "echo why >&2; exit 3"]).stderr(Stdio::piped()).process_group(0);
        let (status, told) = to_end(command).await.unwrap();
        assert_eq!((status.code(), told.as_slice()), (Some(3), &b"why\n"[..]));
    }
}
