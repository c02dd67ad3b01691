//! What is copied to where: Docker's rules (see `docker cp --help` and its documentation).

use berth_archive::copy::{Rename, path};

use crate::failure::{Failure, Outcome};

/// One end of a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource {
    /// Its path; a trailing slash or dot counts.
    pub path: Vec<u8>,
    /// Whether it is there.
    pub exists: bool,
    /// Whether it is a directory.
    pub directory: bool,
    /// What it is called, if not as its path has it; else empty.
    pub name: Vec<u8>,
}

/// How an archive is to be unpacked.
#[derive(Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The directory to unpack to.
    pub directory: Vec<u8>,
    /// What becomes of the archive's first name; `None` if it stays.
    pub name: Option<Rename>,
}

/// Settles what becomes of a source at a destination.
pub fn prepare(from: &Resource, to: &Resource) -> Outcome<Prepared> {
    if to.exists && to.directory {
        return Ok(Prepared { directory: to.path.clone(), name: None });
    }
    if to.exists && from.directory {
        return Err(Failure::new("cannot copy directory"));
    }
    if !to.exists && !from.directory && path::asserts_directory(&to.path) {
        return Err(Failure::new("no such directory"));
    }
    let (directory, base) = path::split_entry(&to.path);
    let own = path::split_entry(&from.path).1;
    let name = if from.name.is_empty() { own } else { from.name.clone() };
    Ok(Prepared { directory, name: Some(Rename { from: name, to: base }) })
}

/// A link's target in the link's place: the target's path as the link's is written, and the name if it differs.
pub fn rebased(link: &[u8], mut target: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    if path::is_current(link) && !path::is_current(&target) {
        target.extend_from_slice(b"/.");
    }
    if link.ends_with(b"/") && !target.ends_with(b"/") {
        target.push(b'/');
    }
    let name = if path::base(link) == path::base(&target) { Vec::new() } else { path::base(link).to_vec() };
    (target, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str, exists: bool, directory: bool) -> Resource {
        Resource { path: path.into(), exists, directory, name: Vec::new() }
    }

    fn outcome(from: &Resource, to: &Resource) -> String {
        match prepare(from, to) {
            Err(failure) => failure.message,
            Ok(Prepared { directory, name }) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let name = name.map(|name| format!(" {}>{}", text(&name.from), text(&name.to)));
                format!("{}{}", text(&directory), name.unwrap_or_default())
            }
        }
    }

    #[test]
    fn names_become_what_docker_makes_of_them() {
        let file = resource("/s/f", true, false);
        let tree = resource("/s/d", true, true);
        let held = resource("/s/d/.", true, true);
        for (from, to, expected) in [
            (&file, resource("/x", true, true), "/x"),
            (&file, resource("/x/y", true, false), "/x f>y"),
            (&file, resource("/x/y", false, false), "/x f>y"),
            (&file, resource("/x/y/", false, false), "no such directory"),
            (&file, resource("/x/.", false, false), "no such directory"),
            (&tree, resource("/x", true, true), "/x"),
            (&tree, resource("/x", true, false), "cannot copy directory"),
            (&tree, resource("/x/y", false, false), "/x d>y"),
            (&tree, resource("/x/y/", false, false), "/x d>y"),
            (&held, resource("/x", true, true), "/x"),
            (&held, resource("/x/y", false, false), "/x .>y"),
        ] {
            assert_eq!(outcome(from, &to), expected, "{from:?} {to:?}");
        }
    }

    #[test]
    fn a_followed_link_keeps_its_name() {
        let text = |link: &str, target: &str| {
            let (path, name) = rebased(link.as_bytes(), target.into());
            (String::from_utf8(path).unwrap(), String::from_utf8(name).unwrap())
        };
        assert_eq!(text("/a/link", "/b/file"), ("/b/file".into(), "link".into()));
        assert_eq!(text("/a/same", "/b/same"), ("/b/same".into(), String::new()));
        assert_eq!(text("/a/link/", "/b/dir"), ("/b/dir/".into(), "link".into()));
        assert_eq!(text("/a/link/.", "/b/dir"), ("/b/dir/.".into(), String::new()));
    }
}
