//! `COPY` and `ADD`.

use super::document::{self, Document};
use super::flags::{self, Flags, Kind};
use super::lines::Raw;
use super::words;
use crate::error::{Result, wrong};

/// `COPY`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// What is copied; never empty.
    pub sources: Vec<CopySource>,
    /// Where to.
    pub destination: String,
    /// `--from`: a stage, an image or a named context; none for the build's context.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`: a layer of its own, whatever lies below.
    pub link: bool,
    /// `--parents`: with the directories of the sources.
    pub parents: bool,
    /// `--exclude`: patterns of files that stay out.
    pub exclude: Vec<String>,
}

/// `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Add {
    /// What is added: files of the context, addresses, Git repositories; never empty.
    pub sources: Vec<CopySource>,
    /// Where to.
    pub destination: String,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--checksum` of what an address gives.
    pub checksum: Option<String>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`: whether archives are unpacked; none for local ones only.
    pub unpack: Option<bool>,
    /// `--exclude`.
    pub exclude: Vec<String>,
}

/// Something to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path, a pattern of paths, or an address.
    Path(String),
    /// A here-document, which becomes a file.
    Document(Document),
}

const COPY: [(&str, Kind); 6] = [
    ("chown", Kind::Text),
    ("from", Kind::Text),
    ("chmod", Kind::Text),
    ("link", Kind::Switch),
    ("exclude", Kind::List),
    ("parents", Kind::Switch),
];

const ADD: [(&str, Kind); 7] = [
    ("chown", Kind::Text),
    ("chmod", Kind::Text),
    ("link", Kind::Switch),
    ("keep-git-dir", Kind::Switch),
    ("checksum", Kind::Text),
    ("unpack", Kind::Switch),
    ("exclude", Kind::List),
];

pub(super) fn copy(raw: Raw) -> Result<Copy> {
    let (flags, sources, destination) = parts(raw, "COPY", &COPY)?;
    Ok(Copy {
        sources,
        destination,
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or(false),
        parents: flags.switch("parents").unwrap_or(false),
        exclude: flags.list("exclude"),
    })
}

pub(super) fn add(raw: Raw) -> Result<Add> {
    let (flags, sources, destination) = parts(raw, "ADD", &ADD)?;
    Ok(Add {
        sources,
        destination,
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or(false),
        checksum: flags.text("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
        exclude: flags.list("exclude"),
    })
}

type Parts = (Flags, Vec<CopySource>, String);

fn parts(raw: Raw, keyword: &str, known: &[(&'static str, Kind)]) -> Result<Parts> {
    let listed = words::json(&raw.rest)?;
    let in_json = listed.is_some();
    let mut words = listed.unwrap_or_else(|| words::plain(&raw.rest));
    let destination = words.pop();
    let (Some(destination), false) = (destination, words.is_empty()) else {
        return wrong(format!(
            "{keyword} requires at least two arguments, but only one was provided. \
            Destination could not be determined"
        ));
    };
    let flags = flags::check(&raw.flags, known)?;
    if !in_json && document::opening(&destination).is_some() {
        return wrong(format!("{keyword} cannot accept a heredoc as a destination"));
    }
    let mut documents = raw.documents.into_iter().peekable();
    let source = |word: String| {
        let opened = if in_json { None } else { document::opening(&word) };
        match opened.and_then(|opened| documents.next_if(|next| next.name == opened.name)) {
            Some(document) => CopySource::Document(document),
            None => CopySource::Path(word),
        }
    };
    Ok((flags, words.into_iter().map(source).collect(), destination))
}
