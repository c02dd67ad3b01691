//! What `COPY` and `ADD` ask for.

use berth_archive::ignore::clean;

use super::Image;
use crate::dockerfile::{Add, Copy, CopySource};

/// Files to copy, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copying {
    /// `COPY` or `ADD`.
    pub keyword: &'static str,
    /// What is copied.
    pub sources: Vec<CopySource>,
    /// Where to, as it is written.
    pub written: String,
    /// Where to: an absolute path, which ends with a slash if it has to be a directory.
    pub destination: String,
    /// The image that files come from; none for the build's context.
    pub from: Option<Image>,
    /// The name by which that image was asked for.
    pub from_name: Option<String>,
    /// Owner of new files: names or numbers.
    pub chown: Option<String>,
    /// Permissions of new files.
    pub chmod: Option<String>,
    /// Whether the layer is one of its own, whatever lies below.
    pub link: bool,
    /// `ADD`: whether the repository itself comes along with the files of Git.
    pub keep_git_dir: bool,
    /// Whether the directories of the sources are kept.
    pub parents: bool,
    /// Patterns of files that stay out.
    pub exclude: Vec<String>,
    /// `ADD`: the digest that what an address gives must have.
    pub checksum: Option<String>,
    /// `ADD`: whether archives are unpacked; none for local ones only.
    pub unpack: Option<bool>,
}

impl Copying {
    /// What `COPY` asks for.
    pub fn copy(copy: &Copy, directory: &str, from: Option<Image>) -> Copying {
        Copying {
            keyword: "COPY",
            sources: copy.sources.clone(),
            written: copy.destination.clone(),
            destination: destination(directory, &copy.destination),
            from,
            from_name: copy.from.clone(),
            chown: copy.chown.clone(),
            chmod: copy.chmod.clone(),
            link: copy.link,
            keep_git_dir: false,
            parents: copy.parents,
            exclude: copy.exclude.clone(),
            checksum: None,
            unpack: Some(false),
        }
    }

    /// What `ADD` asks for.
    pub fn add(add: &Add, directory: &str) -> Copying {
        Copying {
            keyword: "ADD",
            sources: add.sources.clone(),
            written: add.destination.clone(),
            destination: destination(directory, &add.destination),
            from: None,
            from_name: None,
            chown: add.chown.clone(),
            chmod: add.chmod.clone(),
            link: add.link,
            keep_git_dir: add.keep_git_dir.unwrap_or(false),
            parents: false,
            exclude: add.exclude.clone(),
            checksum: add.checksum.clone(),
            unpack: add.unpack,
        }
    }

    /// What the history says of it; `digest` stands for the files.
    pub fn history(&self, digest: &str) -> String {
        let chown = self.chown.as_ref().map(|owner| format!("--chown={owner} ")).unwrap_or_default();
        let chmod = self.chmod.as_ref().map(|mode| format!("--chmod={mode} ")).unwrap_or_default();
        format!("{} {chown}{chmod}{digest} in {} ", self.keyword, self.written)
    }
}

/// A destination seen from a working directory: absolute and clean, with a slash at its end if it has to be a directory.
pub fn destination(directory: &str, path: &str) -> String {
    let must =
        path.ends_with('/') || matches!(path, "." | "..") || path.ends_with("/.") || path.ends_with("/..");
    let whole = if path.starts_with('/') { clean(path) } else { clean(&format!("/{directory}/{path}")) };
    if must && whole != "/" { whole + "/" } else { whole }
}
