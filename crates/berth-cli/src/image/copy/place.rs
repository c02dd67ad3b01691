//! Where an image is copied from or to.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use berth_oci::Reference;

/// What a place may be, for the command's help.
pub const HELP: &str = "NAME[:TAG|@DIGEST] in a registry, oci:DIR[:TAG] (an OCI image layout), oci-archive:FILE[:TAG] (such \
                        a layout as a tar), or docker-archive:FILE[:NAME:TAG] (what docker save writes)";

/// A place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a registry, with a tag or digest.
    Registry(Reference),
    /// In a directory.
    Layout {
        /// The directory.
        path: PathBuf,
        /// The name in its index.
        tag: Option<String>,
    },
    /// In a tar of such a directory.
    OciArchive {
        /// The tar.
        path: PathBuf,
        /// The name in its index.
        tag: Option<String>,
    },
    /// In an archive of `docker save`.
    DockerArchive {
        /// The tar.
        path: PathBuf,
        /// The image's name, with its tag.
        name: Option<Reference>,
    },
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let of = |path: &str, tag: Option<&str>| -> Result<(PathBuf, Option<String>), String> {
            if path.is_empty() {
                return Err(format!("invalid place {text:?}: it names no file"));
            }
            Ok((path.into(), tag.filter(|tag| !tag.is_empty()).map(str::to_owned)))
        };
        // A colon divides the tag off, unless a slash comes after it.
        let halves = |rest: &str| -> Result<(PathBuf, Option<String>), String> {
            match rest.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
                Some((_, "")) => Err(format!("invalid place {text:?}: its tag is empty")),
                Some((path, tag)) => of(path, Some(tag)),
                None => of(rest, None),
            }
        };
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, tag) = halves(rest)?;
            return Ok(Self::Layout { path, tag });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (path, tag) = halves(rest)?;
            return Ok(Self::OciArchive { path, tag });
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name)));
            let (path, name) = of(path, name)?;
            let name = name.map(|name| name.parse::<Reference>()).transpose();
            let name = name.map_err(|error| format!("invalid place {text:?}: {error}"))?;
            return Ok(Self::DockerArchive { path, name: name.map(Reference::with_default_tag) });
        }
        let reference: Reference =
            text.strip_prefix("docker://").unwrap_or(text).parse().map_err(|error| format!("{error}"))?;
        Ok(Self::Registry(reference.with_default_tag()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |tag: &Option<String>| tag.as_ref().map_or_else(String::new, |tag| format!(":{tag}"));
        match self {
            Self::Registry(reference) => formatter.write_str(&reference.canonical()),
            Self::Layout { path, tag } => write!(formatter, "oci:{}{}", path.display(), with(tag)),
            Self::OciArchive { path, tag } => {
                write!(formatter, "oci-archive:{}{}", path.display(), with(tag))
            }
            Self::DockerArchive { path, name } => {
                let name = name.as_ref().map(Reference::familiar);
                write!(formatter, "docker-archive:{}{}", path.display(), with(&name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_are_read() {
        for (text, shown) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("docker://r.example:5000/a/b:1", "r.example:5000/a/b:1"),
            ("[::1]:5000/a:1", "[::1]:5000/a:1"),
            ("oci:dir", "oci:dir"),
            ("oci:/a:b/dir", "oci:/a:b/dir"),
            ("oci:dir:v1", "oci:dir:v1"),
            ("oci-archive:a.tar:v1", "oci-archive:a.tar:v1"),
            ("docker-archive:a.tar", "docker-archive:a.tar"),
            ("docker-archive:a.tar:r.example:5000/x", "docker-archive:a.tar:r.example:5000/x:latest"),
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), shown, "{text}");
        }
        for text in ["", "oci:", "oci-archive::v1", "docker-archive:", "docker-archive:a:B", "https://x/y"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read(text in "(oci:|oci-archive:|docker-archive:)?[a-z0-9./:@-]{0,30}") {
            if let Ok(place) = text.parse::<Place>() {
                prop_assert_eq!(place.to_string().parse::<Place>(), Ok(place));
            }
        }
    }
}
