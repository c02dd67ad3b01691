//! Users and groups by the container's own `/etc/passwd` and `/etc/group` (passwd(5), group(5)).
//!
//! The files belong to the image: they are opened in-root, only if regular, read up to a cap, and every
//! number is checked (R21, R26). An entry that does not parse is skipped, never read as 0.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::path::Path;

use berth_sys::beneath;

/// Largest `/etc/passwd` or `/etc/group` that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 << 20;

/// Largest user or group number, as in Docker.
pub const MAX_ID: u32 = i32::MAX as u32;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User ID.
    pub uid: u32,
    /// Primary group ID.
    pub gid: u32,
    /// Supplementary group IDs; the first is the primary one, as in Docker.
    pub groups: Vec<u32>,
    /// Home directory; `/` if no entry gives one.
    pub home: String,
}

/// Why a user could not be resolved; the words are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that `/etc/passwd` does not have.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// A name that `/etc/group` does not have.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A number outside the range, which would otherwise wrap around.
    #[error("uids and gids must be in range 0-{MAX_ID}: {0}")]
    Range(String),
    /// One of the two files could not be read.
    #[error("cannot read {path} of the container: {source}")]
    Read {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// One of the two files is larger than [`MAX_FILE_BYTES`].
    #[error("{0} of the container is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge(&'static str),
}

/// Resolves `user`, `uid`, `user:group` and so on, and the names or numbers of `extra_groups`, inside `root`.
///
/// An empty specification is root. The user's memberships become additional groups unless a group was given, as in
/// Docker. The primary group is the first of them: a file that refuses it (mode 0604) is not opened by dropping it.
pub fn resolve(root: BorrowedFd<'_>, spec: &str, extra_groups: &[String]) -> Result<User, Error> {
    let nothing_asked = spec.is_empty() && extra_groups.is_empty();
    let file = |path| match read(root, path) {
        // A damaged file is no reason not to run as root, which needs neither.
        Err(_) if nothing_asked => Ok(String::new()),
        other => other,
    };
    let (passwd, group_file) = (file("/etc/passwd")?, file("/etc/group")?);
    let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
    resolve_in(&passwd, &group_file, user, group, extra_groups)
}

/// The home directory of a user number: `/` if there is no entry.
pub fn home(root: BorrowedFd<'_>, uid: u32) -> Result<String, Error> {
    let passwd = read(root, "/etc/passwd")?;
    Ok(find_passwd(&passwd, |entry| entry.uid == uid).map_or_else(|| "/".to_owned(), |entry| entry.home()))
}

fn resolve_in(passwd: &str, groups: &str, user: &str, group: &str, extra: &[String]) -> Result<User, Error> {
    let entry = match number(user) {
        _ if user.is_empty() => find_passwd(passwd, |entry| entry.uid == 0),
        Number::Id(uid) => find_passwd(passwd, |entry| entry.uid == uid),
        Number::OutOfRange => return Err(Error::Range(user.to_owned())),
        Number::Name => find_passwd(passwd, |entry| entry.name == user),
    };
    let mut resolved = match (&entry, number(user)) {
        (Some(entry), _) => User { uid: entry.uid, gid: entry.gid, groups: Vec::new(), home: entry.home() },
        (None, _) if user.is_empty() => User { uid: 0, gid: 0, groups: Vec::new(), home: "/".to_owned() },
        (None, Number::Id(uid)) => User { uid, gid: 0, groups: Vec::new(), home: "/".to_owned() },
        (None, _) => return Err(Error::NoUser(user.to_owned())),
    };
    if !group.is_empty() {
        resolved.gid = find_group(groups, group)?;
    } else if let Some(entry) = entry {
        let mine = group_lines(groups)
            .filter(|line| line.members.split(',').any(|member| member == entry.name))
            .map(|line| line.gid);
        resolved.groups.extend(mine);
    }
    for name in extra {
        resolved.groups.push(find_group(groups, name)?);
    }
    // Without the primary group, a program that changes it would leave it altogether, and with it what it is denied.
    resolved.groups.insert(0, resolved.gid);
    let mut seen = std::collections::BTreeSet::new();
    resolved.groups.retain(|gid| seen.insert(*gid));
    Ok(resolved)
}

fn find_group(groups: &str, group: &str) -> Result<u32, Error> {
    match number(group) {
        Number::Id(gid) => Ok(gid),
        Number::OutOfRange => Err(Error::Range(group.to_owned())),
        Number::Name => group_lines(groups)
            .find(|line| line.name == group)
            .map(|line| line.gid)
            .ok_or_else(|| Error::NoGroup(group.to_owned())),
    }
}

enum Number {
    Id(u32),
    OutOfRange,
    Name,
}

/// Decimal digits, with or without a sign, are a number and must be in range; everything else is a name.
fn number(text: &str) -> Number {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Number::Name;
    }
    match text.parse::<u32>() {
        Ok(id) if id <= MAX_ID => Number::Id(id),
        _ => Number::OutOfRange,
    }
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl PasswdEntry<'_> {
    fn home(&self) -> String {
        if self.home.is_empty() { "/".to_owned() } else { self.home.to_owned() }
    }
}

fn checked_id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= MAX_ID)
}

fn find_passwd(passwd: &str, wanted: impl Fn(&PasswdEntry<'_>) -> bool) -> Option<PasswdEntry<'_>> {
    passwd.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let uid = checked_id(fields.nth(1)?)?;
        let gid = checked_id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(PasswdEntry { name, uid, gid, home }).filter(|entry| !entry.name.is_empty() && wanted(entry))
    })
}

struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn group_lines(groups: &str) -> impl Iterator<Item = GroupLine<'_>> {
    groups.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = checked_id(fields.nth(1)?)?;
        Some(GroupLine { name, gid, members: fields.next().unwrap_or_default() })
    })
}

/// The whole file, or nothing if there is none; bytes that are not UTF-8 match no name.
fn read(root: BorrowedFd<'_>, path: &'static str) -> Result<String, Error> {
    let file = match beneath::open_regular(root, Path::new(path)) {
        Ok(file) => File::from(file),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
            return Ok(String::new());
        }
        Err(source) => return Err(Error::Read { path, source }),
    };
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|source| Error::Read { path, source })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::TooLarge(path));
    }
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        bad:x:4294967296:0::/:/bin/sh\n\
        alice:x:1000:1001:Alice:/home/alice:/bin/sh\n\
        short:x\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:alice,bob\naudio:x:29:alice,root\nhuge:x:99999999999:alice\n";

    fn resolve(spec: &str, extra: &[&str]) -> Result<User, Error> {
        let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
        let extra: Vec<String> = extra.iter().map(|name| (*name).to_owned()).collect();
        resolve_in(PASSWD, GROUP, user, group, &extra)
    }

    #[test]
    fn names_and_numbers_find_the_entry() {
        let alice = resolve("alice", &[]).unwrap();
        assert_eq!((alice.uid, alice.gid, alice.groups.as_slice()), (1000, 1001, &[1001, 100, 29][..]));
        assert_eq!(alice.home, "/home/alice");
        assert_eq!(resolve("1000", &[]).unwrap(), alice);
        let root = resolve("", &[]).unwrap();
        assert_eq!((root.home.as_str(), root.groups), ("/root", vec![0, 29]));
    }

    #[test]
    fn a_given_group_replaces_the_memberships() {
        let alice = resolve("alice:audio", &[]).unwrap();
        assert_eq!((alice.gid, alice.groups.as_slice()), (29, &[29][..]));
        assert_eq!(resolve("alice:77", &["users", "77"]).unwrap().groups, [77, 100]);
        assert_eq!(
            resolve("4711:users", &[]).unwrap(),
            User { uid: 4711, gid: 100, groups: vec![100], home: "/".into() }
        );
    }

    #[test]
    fn root_has_its_memberships_too_even_if_nobody_asked_for_it() {
        let groups = "root:x:0:\nwheel:x:10:root\n";
        for user in ["", "root", "0"] {
            assert_eq!(resolve_in(PASSWD, groups, user, "", &[]).unwrap().groups, [0, 10], "{user}");
        }
        assert_eq!(resolve_in("", "", "", "", &[]).unwrap().groups, [0]);
    }

    #[test]
    fn unknown_names_are_dockers_errors() {
        let message = resolve("nobody", &[]).unwrap_err().to_string();
        assert_eq!(message, "unable to find user nobody: no matching entries in passwd file");
        let message = resolve("alice:nogroup", &[]).unwrap_err().to_string();
        assert_eq!(message, "unable to find group nogroup: no matching entries in group file");
    }

    #[test]
    fn r21_numbers_never_wrap_to_root() {
        for spec in ["4294967296", "2147483648", "-1", "18446744073709551616", "0:4294967296", "+99999999999"]
        {
            assert!(matches!(resolve(spec, &[]), Err(Error::Range(_))), "{spec}");
        }
        // The entry whose number overflows is skipped, so its name is unknown rather than root.
        assert!(matches!(resolve("bad", &[]), Err(Error::NoUser(_))));
        assert!(matches!(resolve("alice", &["4294967295"]), Err(Error::Range(_))));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_files_never_give_root_by_accident(passwd in "[a-z:0-9\n]{0,200}", user in "[a-z]{1,8}") {
            if let Ok(found) = resolve_in(&passwd, "", &user, "", &[]) {
                let is_root = found.uid == 0;
                let explicit = passwd.lines().any(|line| {
                    let fields: Vec<_> = line.split(':').collect();
                    fields.len() > 3 && fields[0] == user && fields[2].parse() == Ok(0u32)
                });
                assert!(!is_root || explicit);
            }
        }
    }
}
