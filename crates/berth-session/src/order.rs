//! The order in which the files of a tree are told: a directory directly before all that it holds, names by their bytes.

use std::cmp::Ordering;

use crate::Error;

/// Which of two paths comes first.
pub fn compare(one: &[u8], other: &[u8]) -> Ordering {
    let parts = |path| <[u8]>::split(path, |byte: &u8| *byte == b'/');
    parts(one).cmp(parts(other))
}

/// The directory of a path, empty for the root, and its last name.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        None => (b"", path),
        Some(at) => (&path[..at], &path[at + 1..]),
    }
}

/// Checks that files come in order, each after its directory.
#[derive(Debug, Default)]
pub struct Order {
    last: Vec<u8>,
    /// The directories that the last one was in, and that one if it is a directory.
    open: Vec<Vec<u8>>,
}

impl Order {
    /// Takes the next one.
    ///
    /// # Errors
    /// [`Error::Refused`] if it cannot follow the one before.
    pub fn next(&mut self, path: &[u8], is_directory: bool) -> Result<(), Error> {
        let out = || Error::refused(format!("files out of order: {:?}", String::from_utf8_lossy(path)));
        if !self.last.is_empty() && compare(&self.last, path) != Ordering::Less {
            return Err(out());
        }
        let parent = split(path).0;
        while self.open.last().is_some_and(|open| open != parent) {
            self.open.pop();
        }
        if !parent.is_empty() && self.open.is_empty() {
            return Err(out());
        }
        if is_directory {
            self.open.push(path.to_vec());
        }
        path.clone_into(&mut self.last);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(paths: &[&str]) -> bool {
        let mut order = Order::default();
        let take = |path: &&str| {
            let name = path.trim_end_matches('/');
            order.next(name.as_bytes(), name != *path).is_ok()
        };
        paths.iter().all(take)
    }

    #[test]
    fn a_directory_comes_before_what_it_holds() {
        assert!(ordered(&["a/", "a/b", "a/c/", "a/c/d", "a-b", "b"]));
        assert!(ordered(&["a/", "a/b/", "a/b/c", "a/d", "e"]));
        for wrong in [
            &["a/b"][..],
            &["a", "a/b"],
            &["b", "a"],
            &["a", "a"],
            &["a/", "a-b", "a/b"],
            &["a/", "a/b/", "c/", "a/b/c"],
            &["a/", "b/", "a/c"],
            &["a/", "b/c"],
        ] {
            assert!(!ordered(wrong), "{wrong:?}");
        }
    }
}
