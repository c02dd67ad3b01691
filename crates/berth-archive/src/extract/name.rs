//! Names of entries: what they mean beneath the root, and which of them are whiteouts.

use super::Limits;
use crate::{Error, Result};

/// A path beneath the root: components joined by single slashes; the root itself is empty.
pub(super) fn normalise(name: &[u8], limits: &Limits) -> Result<Vec<u8>> {
    if name.contains(&0) {
        return Err(Error::refused(name, "its name holds a NUL byte"));
    }
    let mut path = Vec::with_capacity(name.len());
    let mut depth = 0;
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(Error::refused(name, "its name leads upwards (\"..\")")),
            _ => {}
        }
        if component.len() > 255 {
            return Err(Error::refused(name, "a part of its name is longer than 255 bytes"));
        }
        depth += 1;
        if depth > limits.path_depth {
            return Err(Error::Limit { what: "the depth of a path", limit: limits.path_depth as u64 });
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    if path.len() > limits.path_bytes {
        return Err(Error::Limit { what: "the length of a path", limit: limits.path_bytes as u64 });
    }
    Ok(path)
}

/// Splits a path into its directory (empty: the root) and its last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// What a path says by the naming of the OCI image specification's layer format ("Whiteouts").
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A file.
    Plain,
    /// The named path of the lower layers is gone.
    Whiteout(Vec<u8>),
    /// All that lower layers have in this directory is gone.
    Opaque(Vec<u8>),
    /// Bookkeeping of AUFS.
    Ignored,
}

/// Tells whiteouts from files.
pub(super) fn meaning(path: &[u8]) -> Result<Meaning> {
    let (parent, last) = split(path);
    if last == b".wh..wh..opq" {
        return Ok(Meaning::Opaque(parent.to_vec()));
    }
    if path.split(|&byte| byte == b'/').any(|component| component.starts_with(b".wh..wh.")) {
        return Ok(Meaning::Ignored);
    }
    let Some(hidden) = last.strip_prefix(b".wh.") else { return Ok(Meaning::Plain) };
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(Error::refused(path, "it hides no file"));
    }
    let mut target = parent.to_vec();
    if !target.is_empty() {
        target.push(b'/');
    }
    target.extend_from_slice(hidden);
    Ok(Meaning::Whiteout(target))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_become_relative_and_plain() {
        let limits = Limits::default();
        for (name, path) in [
            (&b"./a//b/./c/"[..], &b"a/b/c"[..]),
            (b"/etc/passwd", b"etc/passwd"),
            (b"./", b""),
            (b"/", b""),
            (b"a..b", b"a..b"),
        ] {
            assert_eq!(normalise(name, &limits).unwrap(), path);
        }
        for name in [&b".."[..], b"a/../b", b"../etc", b"/..", b"a/..", b"a\0b"] {
            assert!(normalise(name, &limits).is_err(), "{name:?}");
        }
        assert!(normalise(&[b'x'; 256], &limits).is_err());
        assert!(normalise(&b"x/".repeat(513), &limits).is_err());
        assert!(normalise(&b"xxxxxxxxx/".repeat(410), &limits).is_err());
    }

    #[test]
    fn whiteouts_are_recognised() {
        assert_eq!(meaning(b"a/.wh.b").unwrap(), Meaning::Whiteout(b"a/b".to_vec()));
        assert_eq!(meaning(b".wh.b").unwrap(), Meaning::Whiteout(b"b".to_vec()));
        assert_eq!(meaning(b"a/.wh..wh..opq").unwrap(), Meaning::Opaque(b"a".to_vec()));
        assert_eq!(meaning(b".wh..wh..opq").unwrap(), Meaning::Opaque(Vec::new()));
        assert_eq!(meaning(b".wh..wh.plnk/1.2").unwrap(), Meaning::Ignored);
        assert_eq!(meaning(b".wh..wh.aufs").unwrap(), Meaning::Ignored);
        assert_eq!(meaning(b"a/wh.b").unwrap(), Meaning::Plain);
        for bad in [&b"a/.wh."[..], b".wh..", b"x/.wh..."] {
            assert!(meaning(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_name_leads_upwards(name in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'/'), any::<u8>()], 0..60)) {
            if let Ok(path) = normalise(&name, &Limits::default()) {
                prop_assert!(!path.starts_with(b"/") && !path.contains(&0));
                if !path.is_empty() {
                    prop_assert!(path.split(|&b| b == b'/').all(|part| !part.is_empty() && part != b"." && part != b".."));
                }
            }
        }
    }
}
