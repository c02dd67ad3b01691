//! Files whose owners on the disk are those outside of a user namespace, read and written as they are inside.
//!
//! Users and groups stand in three places: the owner itself, the root for whom a file's capabilities hold (capabilities(7),
//! "Namespaced file capabilities"), and entries of access control lists (acl(5)).

use berth_sys::ids::Mappings;
use rustix::fs::Stat;

use crate::pack::Attributes;
use crate::{Error, Result};

/// Who is shown for an ID that is not in the namespace (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65534;
/// The attribute of capabilities.
const CAPABILITY: &[u8] = b"security.capability";
/// Attributes that are access control lists.
const LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
/// Where the revision is in the first word of capabilities, and the revisions (kernel, `linux/capability.h`).
const REVISION: u32 = 0xff00_0000;
const FOR_ALL: u32 = 0x0200_0000;
const FOR_ONE_ROOT: u32 = 0x0300_0000;
/// Bytes of capabilities before the root that they hold for.
const CAPABILITY_BYTES: usize = 20;
/// Bytes of a list's version, and of each entry: kind, permissions, ID (kernel, `linux/posix_acl_xattr.h`).
const LIST_HEAD: usize = 4;
const LIST_ENTRY: usize = 8;
/// Kinds of entries that name a user or a group.
const LIST_USER: u16 = 0x02;
const LIST_GROUP: u16 = 0x08;

/// What a file is inside.
pub(crate) fn stat_inside(ids: &Mappings, mut stat: Stat) -> Stat {
    stat.st_uid = ids.user_inside(stat.st_uid).unwrap_or(NOBODY);
    stat.st_gid = ids.group_inside(stat.st_gid).unwrap_or(NOBODY);
    stat
}

/// What a file is on the disk.
///
/// # Errors
/// An owner that is not in the namespace: on the disk it would be somebody else.
pub(crate) fn stat_outside(ids: &Mappings, mut stat: Stat, path: &[u8]) -> Result<Stat> {
    let owner = ids.outside(stat.st_uid, stat.st_gid);
    (stat.st_uid, stat.st_gid) =
        owner.ok_or_else(|| Error::refused(path, "its owner is not in the user namespace"))?;
    Ok(stat)
}

/// A value of an extended attribute inside.
pub(crate) fn value_inside(ids: &Mappings, name: &[u8], value: Vec<u8>) -> Vec<u8> {
    changed(name, value, |id| ids.user_inside(id), |id| ids.group_inside(id))
}

/// A value of an extended attribute on the disk.
pub(crate) fn value_outside(ids: &Mappings, name: &[u8], value: Vec<u8>) -> Vec<u8> {
    let reversed = ids.reversed();
    changed(name, value, |id| reversed.user_inside(id), |id| reversed.group_inside(id))
}

/// As [`value_inside`], for all.
pub(crate) fn inside(ids: &Mappings, attributes: Attributes) -> Attributes {
    let each = attributes.into_iter();
    each.map(|(name, value)| (name.clone(), value_inside(ids, &name, value))).collect()
}

/// As [`value_outside`], for all.
pub(crate) fn outside(ids: &Mappings, attributes: Attributes) -> Attributes {
    let each = attributes.into_iter();
    each.map(|(name, value)| (name.clone(), value_outside(ids, &name, value))).collect()
}

fn changed(
    name: &[u8],
    value: Vec<u8>,
    user: impl Fn(u32) -> Option<u32>,
    group: impl Fn(u32) -> Option<u32>,
) -> Vec<u8> {
    if name == CAPABILITY {
        capability(value, user)
    } else if LISTS.contains(&name) {
        list(value, user, group)
    } else {
        value
    }
}

/// Those that hold for every root, seen from the host, hold for the root of the host alone.
fn capability(value: Vec<u8>, user: impl Fn(u32) -> Option<u32>) -> Vec<u8> {
    let word = |at: usize| {
        let bytes = value.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes)
    };
    let Some(first) = word(0) else { return value };
    let root = match (first & REVISION, value.len()) {
        (FOR_ALL, CAPABILITY_BYTES) => Some(0),
        (FOR_ONE_ROOT, 24) => word(CAPABILITY_BYTES),
        _ => None,
    };
    let Some(root) = root.and_then(user) else { return value };
    let revision = if root == 0 { FOR_ALL } else { FOR_ONE_ROOT };
    let mut changed = ((first & !REVISION) | revision).to_le_bytes().to_vec();
    changed.extend_from_slice(&value[4..CAPABILITY_BYTES]);
    if root != 0 {
        changed.extend_from_slice(&root.to_le_bytes());
    }
    changed
}

fn list(
    mut value: Vec<u8>,
    user: impl Fn(u32) -> Option<u32>,
    group: impl Fn(u32) -> Option<u32>,
) -> Vec<u8> {
    let entries = value.get_mut(LIST_HEAD..).unwrap_or_default();
    for entry in entries.chunks_exact_mut(LIST_ENTRY) {
        let [kind, more, _, _, id @ ..] = entry else { continue };
        let [a, b, c, d] = id else { continue };
        let number = u32::from_le_bytes([*a, *b, *c, *d]);
        let found = match u16::from_le_bytes([*kind, *more]) {
            LIST_USER => user(number),
            LIST_GROUP => group(number),
            _ => None,
        };
        if let Some(found) = found {
            id.copy_from_slice(&found.to_le_bytes());
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use berth_sys::ids::Range;

    use super::*;

    fn ids() -> Mappings {
        let range = |outside| vec![Range { inside: 0, outside, count: 1000 }];
        Mappings { users: range(100_000), groups: range(200_000) }
    }

    #[test]
    fn capabilities_hold_for_the_root_inside() {
        let mut plain = (FOR_ALL | 1).to_le_bytes().to_vec();
        plain.extend_from_slice(&[7; 16]);
        let mapped = value_outside(&ids(), CAPABILITY, plain.clone());
        assert_eq!((mapped.len(), &mapped[20..]), (24, &100_000_u32.to_le_bytes()[..]));
        assert_eq!(mapped[..4], (FOR_ONE_ROOT | 1).to_le_bytes());
        assert_eq!(value_inside(&ids(), CAPABILITY, mapped), plain);
    }

    #[test]
    fn lists_name_others() {
        let entry = |kind: u16, id: u32| [&kind.to_le_bytes()[..], &[6, 0], &id.to_le_bytes()].concat();
        let list = |user: u32, group: u32| {
            [vec![2, 0, 0, 0], entry(1, u32::MAX), entry(2, user), entry(8, group)].concat()
        };
        let name = LISTS[0];
        assert_eq!(value_outside(&ids(), name, list(5, 6)), list(100_005, 200_006));
        assert_eq!(value_inside(&ids(), name, list(100_005, 200_006)), list(5, 6));
        assert_eq!(value_outside(&ids(), b"user.x", list(5, 6)), list(5, 6));
    }

    proptest::proptest! {
        #[test]
        fn no_value_is_too_odd(value in proptest::collection::vec(0_u8..4, 0..40)) {
            for name in [CAPABILITY, LISTS[0], LISTS[1]] {
                let length = value.len();
                let there = value_outside(&ids(), name, value.clone());
                proptest::prop_assert!(there.len().abs_diff(length) <= 4);
            }
        }
    }
}
