//! `--build-context`: names that mean something in a Dockerfile.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use berth_archive::ignore::Ignore;
use berth_oci::{Digest, Reference};

use super::context::{self, IGNORE};
use super::offer::Offered;
use crate::failure::{Failure, Outcome};

/// What a named context is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    /// The daemon finds it.
    Far(String),
    /// A directory.
    Directory(PathBuf),
    /// An OCI layout, and which of its images, as it is written behind its name.
    Layout(PathBuf, String),
}

/// Checks one as the command line does before anything is done.
pub fn check(text: &str) -> Result<String, String> {
    split(text).map(|_| text.to_owned()).map_err(|failure| failure.message)
}

fn split(text: &str) -> Outcome<(&str, &str)> {
    let bad = || Failure::new(format!("invalid context value: {text}, expected key=value"));
    let (name, value) = text.split_once('=').ok_or_else(bad)?;
    if name.is_empty() || value.is_empty() {
        return Err(bad());
    }
    if name.parse::<Reference>().is_err() && name.to_lowercase().parse::<Reference>().is_err() {
        return Err(Failure::new(format!("invalid context name {name}")));
    }
    Ok((name, value))
}

fn read(name: &str, value: &str) -> Outcome<Named> {
    let missing = |path: &str, error: &std::io::Error| {
        Failure::io(format!("failed to get build context {name}: stat {path}"), error)
    };
    if let Some(image) = value.strip_prefix("docker-image://") {
        let read = image.parse::<Reference>();
        let invalid = |error| Failure::new(format!("invalid image of the build context {name}: {error}"));
        return read.map(|_| Named::Far(value.to_owned())).map_err(invalid);
    }
    if let Some(layout) = value.strip_prefix("oci-layout://") {
        let (path, which) = layout_of(layout)?;
        let index = path.join("index.json");
        fs::metadata(&index).map_err(|error| missing(&index.to_string_lossy(), &error))?;
        let path = fs::canonicalize(&path).map_err(|error| missing(&path.to_string_lossy(), &error))?;
        return Ok(Named::Layout(path, which));
    }
    if context::is_remote(value) {
        return Ok(Named::Far(value.to_owned()));
    }
    let path = fs::canonicalize(value).map_err(|error| missing(value, &error))?;
    match path.is_dir() {
        true => Ok(Named::Directory(path)),
        false => Err(Failure::new(format!("the build context {name} is no directory: {value}"))),
    }
}

/// `PATH`, `PATH:TAG`, `PATH@DIGEST`: the path, and what follows it.
fn layout_of(text: &str) -> Outcome<(PathBuf, String)> {
    if let Some((path, digest)) = text.rsplit_once('@') {
        let read = digest.parse::<Digest>();
        let invalid = |error| Failure::new(format!("invalid digest of an OCI layout {digest:?}: {error}"));
        return read.map(|digest| (PathBuf::from(path), format!("@{digest}"))).map_err(invalid);
    }
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !Path::new(text).exists() => {
            Ok((PathBuf::from(path), format!(":{tag}")))
        }
        _ => Ok((PathBuf::from(text), String::new())),
    }
}

/// What the daemon is told of the contexts that `given` names; the directories among them are offered.
///
/// # Errors
/// There is no such directory; something cannot be read.
pub fn offer(given: &[String], offered: &mut Offered) -> Outcome<BTreeMap<String, String>> {
    let mut told = BTreeMap::new();
    for text in given {
        let (name, value) = split(text)?;
        let place = match read(name, value)? {
            Named::Far(address) => address,
            Named::Directory(path) => {
                // As with the build's own context, its patterns say what it lacks.
                let patterns = context::read_patterns(&path.join(IGNORE))?;
                let key = format!("context-{}", offered.directories.len());
                offered.directory(&key, path, context::read(patterns.as_deref())?);
                format!("local:{key}")
            }
            Named::Layout(path, which) => {
                let key = format!("layout-{}", offered.directories.len());
                offered.directory(&key, path, Ignore::default());
                format!("oci-layout:{key}{which}")
            }
        };
        if told.insert(name.to_owned(), place).is_some() {
            return Err(Failure::new(format!("duplicate context name {name}")));
        }
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_images_directories_layouts_and_addresses() {
        let temp = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(temp.path()).unwrap();
        fs::write(path.join("index.json"), "{}").unwrap();
        let text = path.to_str().unwrap();
        let far = |text: &str| Named::Far(text.to_owned());
        let digest = Digest::of(b"x");
        for (value, expected) in [
            ("docker-image://a:b".to_owned(), far("docker-image://a:b")),
            ("https://a.example/b.git#c".into(), far("https://a.example/b.git#c")),
            (text.into(), Named::Directory(path.clone())),
            (format!("oci-layout://{text}"), Named::Layout(path.clone(), String::new())),
            (format!("oci-layout://{text}:tag"), Named::Layout(path.clone(), ":tag".into())),
            (format!("oci-layout://{text}@{digest}"), Named::Layout(path.clone(), format!("@{digest}"))),
        ] {
            assert_eq!(read("n", &value).unwrap(), expected, "{value}");
        }
        for (value, words) in [
            ("/nonexistent".to_owned(), "failed to get build context n: stat /nonexistent"),
            (format!("{text}/index.json"), "is no directory"),
            ("docker-image://A".into(), "invalid image of the build context n"),
            ("oci-layout:///nonexistent".into(), "index.json"),
            (format!("oci-layout://{text}@sha256:1"), "invalid digest of an OCI layout"),
        ] {
            let told = read("n", &value).unwrap_err().message;
            assert!(told.contains(words), "{value}: {told}");
        }
        for text in ["x", "=x", "x=", "a b=c"] {
            assert!(check(text).is_err(), "{text}");
        }
    }
}
