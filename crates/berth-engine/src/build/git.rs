//! Git repositories as contexts, and as what `ADD` copies. The `git` program fetches them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use berth_archive::copy;
use berth_storage::Scratch;
use rustix::fs::OFlags;
use tokio::process::Command;

use super::executor::Worker;
use super::tree;
use crate::Error;

/// The repository itself, among its files.
const REPOSITORY: &[u8] = b"/.git";
/// Most that is told of what the program says, in bytes.
const TOLD: usize = 4096;

/// What a repository holds. The files go with it.
pub(super) struct Checkout {
    /// The directory that was asked for.
    pub root: OwnedFd,
    /// Where it is.
    pub scratch: Scratch,
}

/// An address taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    /// What `git` is told.
    remote: String,
    /// A branch, a tag or a commit; empty for the repository's own choice.
    reference: String,
    /// A directory; empty for all of it.
    subdirectory: String,
}

/// Whether an address is that of a Git repository.
pub(super) fn is_address(text: &str) -> bool {
    let path = text.split('#').next().unwrap_or_default();
    let by_web = path.starts_with("http://") || path.starts_with("https://");
    by_web && path.ends_with(".git")
        || ["git://", "ssh://", "git@"].iter().any(|start| text.starts_with(start))
}

/// As [`is_address`]; a context may also be named as `github.com/` something.
pub(super) fn is_context(text: &str) -> bool {
    is_address(text) || text.starts_with("github.com/")
}

impl Address {
    fn read(text: &str) -> Result<Address, Error> {
        let (remote, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let remote = match remote.starts_with("github.com/") {
            true => format!("https://{remote}"),
            false => remote.to_owned(),
        };
        let bad = |what: &str| Error::InvalidParameter(format!("invalid {what} in the Git address {text:?}"));
        let odd = |part: &str| part.starts_with('-') || part.contains(|c: char| c.is_control());
        if odd(&remote) {
            return Err(bad("address"));
        }
        if odd(reference) || reference.contains(char::is_whitespace) {
            return Err(bad("reference"));
        }
        let outside = Path::new(subdirectory).components().any(|part| part.as_os_str() == "..");
        if outside || odd(subdirectory) {
            return Err(bad("subdirectory"));
        }
        Ok(Address { remote, reference: reference.to_owned(), subdirectory: subdirectory.to_owned() })
    }
}

/// Fetches what an address names. Blocks.
pub(super) fn check_out(worker: &Worker, text: &str, keep_repository: bool) -> Result<Checkout, Error> {
    let address = Address::read(text)?;
    worker.parts().storage.check_space()?;
    let scratch = worker.parts().storage.scratch()?;
    let place = scratch.path();
    let git = |arguments: &[&str]| run(worker, &place, arguments);
    git(&["init", "--quiet"])?;
    git(&["remote", "add", "origin", "--", &address.remote])?;
    let wanted = if address.reference.is_empty() { "HEAD" } else { &address.reference };
    // Not every server gives a part of the history, or a commit by its name.
    let shallow = git(&["fetch", "--quiet", "--depth", "1", "origin", "--", wanted]);
    let commit = match shallow {
        Ok(()) => "FETCH_HEAD".to_owned(),
        Err(_) => {
            worker.check()?;
            git(&["fetch", "--quiet", "--tags", "origin", "--", "+refs/heads/*:refs/remotes/origin/*"])?;
            match git(&["fetch", "--quiet", "origin", "--", wanted]) {
                Ok(()) => "FETCH_HEAD".to_owned(),
                Err(_) => wanted.to_owned(),
            }
        }
    };
    git(&["checkout", "--quiet", "--force", "--detach", &commit, "--"])?;
    if place.join(".gitmodules").symlink_metadata().is_ok() {
        git(&["submodule", "--quiet", "update", "--init", "--recursive"])?;
    }
    let top = scratch.open()?;
    if !keep_repository {
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

/// Runs `git` in a directory, without any setting of the host's. It ends with the build.
fn run(worker: &Worker, place: &Path, arguments: &[&str]) -> Result<(), Error> {
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
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = worker.wait(async {
        command.output().await.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::InvalidParameter("Git repositories need the program git, which is not there".into())
            }
            _ => Error::Io { operation: "run git".into(), source: error },
        })
    })?;
    if output.status.success() {
        return Ok(());
    }
    let told = output.stderr.get(..TOLD).unwrap_or(&output.stderr);
    let what = arguments.first().copied().unwrap_or_default();
    Err(Error::InvalidParameter(format!("git {what}: {}", String::from_utf8_lossy(told).trim())))
}

/// Variables that the program needs to find others, and proxies.
fn kept(name: &str) -> bool {
    matches!(name, "PATH" | "HOME" | "SSH_AUTH_SOCK" | "SSL_CERT_FILE" | "SSL_CERT_DIR")
        || name.to_ascii_lowercase().ends_with("_proxy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let read = |text: &str| {
            let address = Address::read(text).map_err(|error| error.to_string())?;
            Ok::<_, String>(format!("{} {} {}", address.remote, address.reference, address.subdirectory))
        };
        assert_eq!(read("https://h/r.git#main:a/b").unwrap(), "https://h/r.git main a/b");
        assert_eq!(read("github.com/a/b").unwrap(), "https://github.com/a/b  ");
        assert_eq!(read("git://h/r#:sub").unwrap(), "git://h/r  sub");
        for (text, words) in [
            ("https://h/r.git#main:../..", "invalid subdirectory"),
            ("https://h/r.git#main:a/../../b", "invalid subdirectory"),
            ("https://h/r.git#--upload-pack=x", "invalid reference"),
            ("https://h/r.git#a b", "invalid reference"),
            ("--upload-pack=x.git", "invalid address"),
        ] {
            assert!(read(text).unwrap_err().contains(words), "{text}");
        }
        for (text, expected) in [
            ("https://h/r.git", true),
            ("https://h/r.git#x", true),
            ("https://h/r", false),
            ("git@h:r", true),
            ("a.git", false),
        ] {
            assert_eq!(is_address(text), expected, "{text}");
        }
        assert!(is_context("github.com/a/b"));
    }
}
