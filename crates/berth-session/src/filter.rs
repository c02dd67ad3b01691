//! Which files of a directory the other end wants to be told of.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use berth_archive::context::Listed;
use berth_archive::ignore::{Ignore, IgnoreError, clean, literal};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// Links that are followed from one path.
const LINKS: usize = 255;

/// What is wanted, as the other end says it.
pub(crate) struct Filter {
    /// Paths and patterns; none for all files.
    include: Option<Vec<String>>,
    exclude: Ignore,
    /// Paths that are wanted with what they lead to.
    follow: Vec<String>,
}

impl Filter {
    /// # Errors
    /// Patterns that cannot be used.
    pub fn new(include: &[String], exclude: &[String], follow: Vec<String>) -> Result<Self, IgnoreError> {
        // Whether they can be used does not show later.
        Ignore::new(include.iter().chain(&follow))?;
        let all = |path: &String| matches!(clean(path).trim_matches('/'), "" | ".");
        let everything = include.is_empty() && follow.is_empty() || follow.iter().any(all);
        let include = (!everything).then(|| include.to_vec());
        Ok(Self { include, exclude: Ignore::new(exclude)?, follow })
    }

    /// The same for the files beneath `root`. Blocks.
    pub fn beneath(self, root: BorrowedFd<'_>) -> Chosen {
        let include = self.include.map(|mut patterns| {
            for path in &self.follow {
                patterns.extend(followed(root, path));
            }
            // They were read before; those that were found are written so that they can be.
            Ignore::new(&patterns).unwrap_or_default()
        });
        Chosen { include, exclude: self.exclude, passed: Vec::new(), first: HashMap::new() }
    }
}

/// Chooses among files that come in order.
pub(crate) struct Chosen {
    include: Option<Ignore>,
    exclude: Ignore,
    /// Directories on the way to where the walk is, that are not wanted for their own sake.
    passed: Vec<Listed>,
    /// What became the first name of files whose own first name is not told.
    first: HashMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Chosen {
    /// The next file. Gives what is to be told now: the file if it is wanted, after the directories that it needs.
    pub fn take(&mut self, mut listed: Listed) -> Vec<Listed> {
        let path = String::from_utf8_lossy(&listed.path).into_owned();
        let is_directory = FileType::from_raw_mode(listed.stat.st_mode) == FileType::Directory;
        let is_file = FileType::from_raw_mode(listed.stat.st_mode) == FileType::RegularFile;
        self.passed.retain(|directory| holds(&directory.path, &listed.path));
        let excluded = self.exclude.matches(&path);
        let included = self.include.as_ref().is_none_or(|include| include.matches(&path));
        if excluded || !included {
            if is_directory && (!excluded || self.exclude.has_exceptions()) {
                self.passed.push(listed);
            } else if is_file && listed.link.is_empty() && listed.stat.st_nlink > 1 {
                self.first.insert(listed.path, None);
            }
            return Vec::new();
        }
        if is_file && let Some(first) = self.first.get_mut(&listed.link) {
            match first {
                Some(first) => listed.link.clone_from(first),
                // Its content comes with the first name that is told.
                none => {
                    *none = Some(listed.path.clone());
                    listed.link.clear();
                }
            }
        }
        let mut told = std::mem::take(&mut self.passed);
        told.push(listed);
        told
    }
}

/// Whether a directory is on the way to a path.
fn holds(directory: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

/// The paths that a path leads to: itself, the links on its way, and what they name; wildcards stand for all that they match.
/// Nothing outside of `root` is looked at. Blocks.
fn followed(root: BorrowedFd<'_>, path: &str) -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<(Vec<OsString>, Vec<String>, usize)> = vec![(Vec::new(), parts(&clean(path)), 0)];
    let mut seen = HashSet::new();
    while let Some((here, mut left, links)) = open.pop() {
        // Links may lead in circles.
        if !seen.insert((here.clone(), left.clone())) {
            continue;
        }
        let Some(next) = left.pop() else {
            found.insert(here);
            continue;
        };
        if next == ".." {
            let mut here = here;
            here.pop();
            open.push((here, left, links));
            continue;
        }
        for name in names(root, &here, &next) {
            let whole: Vec<OsString> = here.iter().cloned().chain([name]).collect();
            match target(root, &whole) {
                Some(target) if links < LINKS => {
                    found.insert(whole);
                    let base = if target.as_bytes().starts_with(b"/") { Vec::new() } else { here.clone() };
                    let mut rest = left.clone();
                    rest.extend(parts(&target.to_string_lossy()));
                    open.push((base, rest, links + 1));
                }
                Some(_) => {}
                None => open.push((whole, left.clone(), links)),
            }
        }
    }
    found.into_iter().map(|path| literal(&joined(&path).to_string_lossy())).collect()
}

/// The parts of a path, the last first.
fn parts(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !matches!(*part, "" | ".")).rev().map(str::to_owned).collect()
}

/// What a part of a path stands for in a directory.
fn names(root: BorrowedFd<'_>, directory: &[OsString], part: &str) -> Vec<OsString> {
    if !part.contains(['*', '?', '[', '\\']) {
        return vec![part.into()];
    }
    let Ok(matching) = Ignore::new([part]) else { return Vec::new() };
    let Ok(directory) = opened(root, &joined(directory), OFlags::RDONLY | OFlags::DIRECTORY) else {
        return Vec::new();
    };
    let Ok(entries) = rustix::fs::Dir::read_from(&directory) else { return Vec::new() };
    let names = entries.flatten().map(|entry| OsString::from_vec(entry.file_name().to_bytes().to_vec()));
    names.filter(|name| name != "." && name != ".." && matching.matches(&name.to_string_lossy())).collect()
}

/// Where a symbolic link leads; none for everything else.
fn target(root: BorrowedFd<'_>, path: &[OsString]) -> Option<OsString> {
    let (name, directory) = path.split_last()?;
    let directory = opened(root, &joined(directory), OFlags::PATH | OFlags::DIRECTORY).ok()?;
    let target = rustix::fs::readlinkat(directory, name.as_os_str(), Vec::new()).ok()?;
    Some(OsString::from_vec(target.into_bytes()))
}

fn opened(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<File> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve).map(File::from)
}

fn joined(parts: &[OsString]) -> PathBuf {
    parts.iter().collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn told(root: &Path, include: &[&str], exclude: &[&str], follow: &[&str]) -> Vec<(String, String)> {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let filter = Filter::new(&strings(include), &strings(exclude), strings(follow)).unwrap();
        let root = File::open(root).unwrap();
        let mut chosen = filter.beneath(root.as_fd());
        let mut all = Vec::new();
        let mut take = |listed: Listed| {
            all.extend(chosen.take(listed));
            Ok(())
        };
        berth_archive::context::list(root.as_fd(), &Ignore::default(), Vec::new(), &mut take).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        all.iter().map(|listed| (text(&listed.path), text(&listed.link))).collect()
    }

    fn names(told: &[(String, String)]) -> Vec<&str> {
        told.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for file in files {
            fs::create_dir_all(temp.path().join(file).parent().unwrap()).unwrap();
            fs::write(temp.path().join(file), file).unwrap();
        }
        temp
    }

    #[test]
    fn only_what_is_wanted_is_told_with_the_directories_on_its_way() {
        let temp = tree(&["a/b/c", "a/b/d", "a/x", "e/f", "g", "!odd"]);
        let root = temp.path();
        assert_eq!(names(&told(root, &["a/b"], &[], &[])), ["a", "a/b", "a/b/c", "a/b/d"]);
        assert_eq!(names(&told(root, &["a/*/c", "g"], &[], &[])), ["a", "a/b", "a/b/c", "g"]);
        assert_eq!(names(&told(root, &["a"], &["a/b/c", "a/x"], &[])), ["a", "a/b", "a/b/d"]);
        assert_eq!(names(&told(root, &["nothing"], &[], &[])), Vec::<&str>::new());
        assert_eq!(told(root, &[], &[], &["."]).len(), 9);
        assert_eq!(names(&told(root, &[], &["a", "e"], &[])), ["!odd", "g"]);
        assert_eq!(names(&told(root, &[], &["*", "!a/b/c"], &[])), ["a", "a/b", "a/b/c"]);
        assert_eq!(names(&told(root, &["\\!odd"], &[], &[])), ["!odd"]);
        let bad = ["[".to_owned()];
        assert!(Filter::new(&bad, &[], Vec::new()).is_err() && Filter::new(&[], &[], bad.to_vec()).is_err());
    }

    #[test]
    fn links_are_followed_inside_the_directory() {
        let temp = tree(&["real/file", "real/other", "z"]);
        let root = temp.path();
        symlink("real/file", root.join("one")).unwrap();
        symlink("/real", root.join("two")).unwrap();
        symlink("circle", root.join("circle")).unwrap();
        symlink("../../../../z", root.join("real/up")).unwrap();
        assert_eq!(names(&told(root, &[], &[], &["one"])), ["one", "real", "real/file"]);
        assert_eq!(names(&told(root, &[], &[], &["two/other"])), ["real", "real/other", "two"]);
        assert_eq!(names(&told(root, &[], &[], &["circle"])), ["circle"]);
        assert_eq!(names(&told(root, &[], &[], &["real/up"])), ["real", "real/up", "z"]);
        assert_eq!(
            names(&told(root, &[], &[], &["on?", "re*/o*"])),
            ["one", "real", "real/file", "real/other"]
        );
        assert_eq!(names(&told(root, &["z"], &[], &["/etc/passwd"])), ["z"]);
    }

    #[test]
    fn a_file_whose_first_name_is_left_out_comes_by_its_next() {
        let temp = tree(&["a/first"]);
        for name in ["second", "third"] {
            fs::hard_link(temp.path().join("a/first"), temp.path().join(name)).unwrap();
        }
        let pair = |name: &str, link: &str| (name.to_owned(), link.to_owned());
        assert_eq!(told(temp.path(), &[], &["a"], &[]), [pair("second", ""), pair("third", "second")]);
        assert_eq!(told(temp.path(), &["third"], &[], &[]), [pair("third", "")]);
    }
}
