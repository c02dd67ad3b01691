//! Paths by their letters alone, as Go's `path/filepath` and Docker's copying understand them.

/// Go's `Clean` of `path` below `/`: absolute, without `.`, `..` and double slashes.
#[must_use]
pub fn absolute(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    [b"/", parts.join(&b'/').as_slice()].concat()
}

/// Go's `Clean`: a relative path stays one, and may begin with `..`.
#[must_use]
pub fn clean(path: &[u8]) -> Vec<u8> {
    if path.starts_with(b"/") {
        return absolute(path);
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') }
}

/// The last part: `/` for the root, `.` for nothing.
#[must_use]
pub fn base(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    match (end, path.is_empty()) {
        (0, true) => b".",
        (0, false) => b"/",
        _ => path[..end].rsplit(|byte| *byte == b'/').next().unwrap_or_default(),
    }
}

/// Whether the path itself says that it is a directory's.
#[must_use]
pub fn asserts_directory(path: &[u8]) -> bool {
    path.ends_with(b"/") || is_current(path)
}

/// Whether it ends in `.`: what the directory holds is meant, not the directory.
#[must_use]
pub fn is_current(path: &[u8]) -> bool {
    base(path) == b"."
}

/// Gives a cleaned path the trailing `/` or `/.` of the original, since these mean something.
#[must_use]
pub fn preserved(mut cleaned: Vec<u8>, original: &[u8]) -> Vec<u8> {
    if is_current(original) && !is_current(&cleaned) {
        if !cleaned.ends_with(b"/") {
            cleaned.push(b'/');
        }
        cleaned.push(b'.');
    }
    if original.ends_with(b"/") && !cleaned.ends_with(b"/") {
        cleaned.push(b'/');
    }
    cleaned
}

/// The directory and the last part, which is `.` if the path ends so.
#[must_use]
pub fn split_entry(path: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let cleaned = clean(path);
    if is_current(path) {
        return (cleaned, b".".to_vec());
    }
    let base = base(&cleaned).to_vec();
    (directory(&cleaned), base)
}

/// All but the last part of a cleaned path.
#[must_use]
pub fn directory(cleaned: &[u8]) -> Vec<u8> {
    match cleaned.iter().rposition(|byte| *byte == b'/') {
        Some(0) => b"/".to_vec(),
        Some(slash) => cleaned[..slash].to_vec(),
        None => b".".to_vec(),
    }
}

/// Two paths, cleaned; the second is below the first even if it begins with a slash.
#[must_use]
pub fn join(first: &[u8], second: &[u8]) -> Vec<u8> {
    match (first, second) {
        (b"", second) => clean(second),
        (first, second) => clean(&[first, b"/", second].concat()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_read_as_docker_reads_them() {
        for (path, expected) in
            [("", "/"), ("/", "/"), ("a/../../b/./c//", "/b/c"), ("/..", "/"), (".", "/"), ("a..b", "/a..b")]
        {
            assert_eq!(absolute(path.as_bytes()), expected.as_bytes(), "{path}");
        }
        for (path, expected) in
            [("", "."), ("../a/..", ".."), ("a/../../b", "../b"), ("./x/", "x"), ("/../x", "/x")]
        {
            assert_eq!(clean(path.as_bytes()), expected.as_bytes(), "{path}");
        }
        for (path, expected) in [("", "."), ("/", "/"), ("//", "/"), ("a/b/", "b"), ("/a/.", "."), ("x", "x")]
        {
            assert_eq!(base(path.as_bytes()), expected.as_bytes(), "{path}");
        }
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/a/b/.", "/a/b/."),
            (".", "/."),
            ("/", "/"),
            ("a/../.", "/."),
        ] {
            assert_eq!(preserved(absolute(path.as_bytes()), path.as_bytes()), expected.as_bytes(), "{path}");
        }
        for (path, directory, last) in [
            ("/a/b", "/a", "b"),
            ("/a/b/", "/a", "b"),
            ("/a/b/.", "/a/b", "."),
            ("x", ".", "x"),
            ("/", "/", "/"),
        ] {
            let expected = (directory.as_bytes().to_vec(), last.as_bytes().to_vec());
            assert_eq!(split_entry(path.as_bytes()), expected, "{path}");
        }
        assert_eq!(join(b"/a", b"../b"), b"/b");
        assert_eq!(join(b"", b"b/"), b"b");
    }

    proptest! {
        #[test]
        fn absolute_paths_never_lead_upwards(path in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'/'), any::<u8>()], 0..60)) {
            let cleaned = absolute(&path);
            prop_assert!(cleaned.starts_with(b"/"));
            prop_assert!(cleaned[1..].split(|b| *b == b'/').all(|part| part != b".." && part != b"."));
            prop_assert_eq!(absolute(&cleaned), cleaned);
        }
    }
}
