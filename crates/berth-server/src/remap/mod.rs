//! `userns-remap`: whose users containers have, by the host's own lists of accounts and of subordinate IDs (subuid(5)).

mod accounts;
mod list;

use std::io;
use std::path::{Path, PathBuf};

use berth_engine::{Mappings, Remap, Settings};

/// What stands for an account that is made if it is not there.
const DEFAULT: &str = "default";
/// The name of that account.
const ACCOUNT: &str = "dockremap";
/// The host's accounts.
const ETC: &str = "/etc";

/// Why containers cannot have these users; the words are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More than a user and a group.
    #[error("Invalid user/group specification in --userns-remap: {0:?}")]
    Form(String),
    /// A number without an account.
    #[error("Uid {0} has no entry in /etc/passwd: no matching entries in passwd file")]
    NoUid(u32),
    /// A number without a group.
    #[error("Gid {0} has no entry in /etc/group: no matching entries in group file")]
    NoGid(u32),
    /// A name without an account.
    #[error("Error during uid lookup for {0:?}: no matching entries in passwd file")]
    NoUser(String),
    /// A name without a group.
    #[error("Error during gid lookup for {0:?}: no matching entries in group file")]
    NoGroup(String),
    /// The account has no subordinate IDs, or none that can be used.
    #[error("error creating ID mappings: no usable entries for user {user} in {file}")]
    NoRanges {
        /// The account.
        user: String,
        /// The list.
        file: PathBuf,
    },
    /// No numbers are left for the account that is to be made.
    #[error("Error during {ACCOUNT:?} user creation: no free {0}")]
    Full(&'static str),
    /// One of the host's files.
    #[error("{operation} {}: {source}", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { operation, path, source }
    }
}

/// Refuses what is no user with or without a group, whoever that is.
///
/// # Errors
/// [`Error::Form`].
pub fn check(text: &str) -> Result<(), Error> {
    let parts: Vec<&str> = text.split(':').collect();
    let fits = matches!(parts[..], [user] | [user, _] if !user.is_empty());
    if fits { Ok(()) } else { Err(Error::Form(text.to_owned())) }
}

/// Gives containers the users that `text` names, and the engine a data root of its own for them, below the one that it has.
///
/// # Errors
/// Accounts that are not there; what the host's files refuse.
pub fn settle(settings: &mut Settings, text: &str) -> Result<(), Error> {
    let Some(mappings) = mappings(Path::new(ETC), text)? else {
        tracing::warn!("User namespaces: root cannot be remapped with itself; user namespaces are OFF");
        return Ok(());
    };
    let remap = Remap::new(mappings);
    let (uid, gid) = remap.root().unwrap_or_default();
    // The engine makes the directory, and closes it: containers get their files by mounts, and need no way to it.
    make_parent(&settings.data_root)?;
    settings.data_root.push(format!("{uid}.{gid}"));
    settings.remap = Some(remap);
    Ok(())
}

fn make_parent(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(path);
    made.map_err(Error::file("create", path))
}

/// The users and groups of the account that `text` names; none for root.
fn mappings(etc: &Path, text: &str) -> Result<Option<Mappings>, Error> {
    check(text)?;
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let (name, uid) = accounts::user(etc, user)?;
    accounts::check_group(etc, user, &name, group)?;
    if name == "root" {
        return Ok(None);
    }
    tracing::info!("User namespaces: ID ranges will be mapped to subuid/subgid ranges of: {name}");
    let ranges = |file: &str| {
        let path = etc.join(file);
        let text = accounts::read(&path)?;
        let ranges = list::ranges_of(&text, &name, uid);
        if ranges.is_empty() { Err(Error::NoRanges { user: name.clone(), file: path }) } else { Ok(ranges) }
    };
    Ok(Some(Mappings { users: ranges("subuid")?, groups: ranges("subgid")? }))
}

#[cfg(test)]
mod tests;
