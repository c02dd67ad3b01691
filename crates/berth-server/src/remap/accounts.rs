//! The host's accounts: found by name or number, and the one that is made.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;

use rustix::fs::{FlockOperation, fcntl_lock};

use super::list::{self, find};
use super::{ACCOUNT, DEFAULT, Error};

/// Largest list that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// Name and number of the account that `given` names by name or number. That of `default` is made.
pub fn user(etc: &Path, given: &str) -> Result<(String, u32), Error> {
    if given == DEFAULT {
        return ensure(etc);
    }
    let passwd = read(&etc.join("passwd"))?;
    match given.parse() {
        Ok(uid) => find(&passwd, |_, number| number == uid).ok_or(Error::NoUid(uid)),
        Err(_) => find(&passwd, |name, _| name == given).ok_or_else(|| Error::NoUser(given.to_owned())),
    }
}

/// Refuses groups that are not there; without one, it is called or numbered as the user is.
pub fn check_group(etc: &Path, user: &str, name: &str, group: Option<&str>) -> Result<(), Error> {
    let text = read(&etc.join("group"))?;
    let wanted = match (group, user.parse::<u32>()) {
        (Some(group), _) => group.to_owned(),
        (None, Ok(uid)) => uid.to_string(),
        (None, Err(_)) => name.to_owned(),
    };
    let found = match wanted.parse() {
        Ok(gid) => find(&text, |_, number| number == gid).ok_or(Error::NoGid(gid)),
        Err(_) => find(&text, |name, _| name == wanted).ok_or(Error::NoGroup(wanted)),
    };
    found.map(drop)
}

/// Reads a list; one that is not there is empty.
pub fn read(path: &Path) -> Result<String, Error> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        other => other.map_err(Error::file("open", path))?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(Error::file("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes the account of `default`, its group and its subordinate IDs, as far as they are missing.
fn ensure(etc: &Path) -> Result<(String, u32), Error> {
    // What useradd(8) and its like take, lckpwdf(3).
    let path = etc.join(".pwd.lock");
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = lock.map_err(Error::file("open", &path))?;
    fcntl_lock(&lock, FlockOperation::LockExclusive)
        .map_err(|error| Error::file("lock", &path)(error.into()))?;
    let (passwd, group) = (read(&etc.join("passwd"))?, read(&etc.join("group"))?);
    let free = || list::free_number(&passwd, &group).ok_or(Error::Full("user number"));
    let gid = match find(&group, |name, _| name == ACCOUNT) {
        Some((_, gid)) => gid,
        None => {
            let gid = free()?;
            replace(&etc.join("group"), &list::with_line(&group, &format!("{ACCOUNT}:x:{gid}:")))?;
            also(&etc.join("gshadow"), &format!("{ACCOUNT}:!::"))?;
            gid
        }
    };
    let uid = match find(&passwd, |name, _| name == ACCOUNT) {
        Some((_, uid)) => uid,
        None => {
            let uid = free()?;
            // Nobody can become it by a password.
            also(&etc.join("shadow"), &format!("{ACCOUNT}:!:{}::::::", days()))?;
            let line = format!("{ACCOUNT}:x:{uid}:{gid}::/home/{ACCOUNT}:/bin/false");
            replace(&etc.join("passwd"), &list::with_line(&passwd, &line))?;
            uid
        }
    };
    for file in ["subuid", "subgid"] {
        let path = etc.join(file);
        let changed = list::with_range(&read(&path)?, ACCOUNT, uid);
        if let Some(text) = changed.map_err(|()| Error::Full("subordinate IDs"))? {
            replace(&path, &text)?;
        }
    }
    drop(lock);
    Ok((ACCOUNT.to_owned(), uid))
}

/// Days since 1970, as shadow(5) counts them.
fn days() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() / 86400)
}

/// Adds a line to a list that not every host has.
fn also(path: &Path, line: &str) -> Result<(), Error> {
    if !path.exists() {
        return Ok(());
    }
    let text = read(path)?;
    let name = line.split(':').next().unwrap_or_default();
    if text.lines().any(|line| line.split(':').next() == Some(name)) {
        return Ok(());
    }
    replace(path, &list::with_line(&text, line))
}

/// Puts a new list in the place of an old one, with its owner and mode, so that every reader sees one or the other.
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let old = std::fs::metadata(path).ok();
    let mut name = path.as_os_str().to_owned();
    name.push(format!("+{}", std::process::id()));
    let new = Path::new(&name);
    let write = || {
        let mode = old.as_ref().map_or(0o644, |old| old.mode() & 0o7777);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
        if let Some(old) = &old {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        match std::fs::rename(new, path) {
            // It is a mount by itself, which nothing can take the place of.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                std::fs::remove_file(new)?;
                let mut present = OpenOptions::new().write(true).truncate(true).open(path)?;
                present.write_all(text.as_bytes())?;
                present.sync_all()
            }
            other => other,
        }
    };
    write().map_err(|source| {
        // Nothing else uses the name.
        let _ = std::fs::remove_file(new);
        Error::File { operation: "write", path: path.to_owned(), source }
    })
}
