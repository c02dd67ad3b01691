//! `--cache-to` and `--cache-from`.

use std::fs;
use std::path::PathBuf;

use berth_api::build::{Cache, CacheKind, CacheMode};
use berth_archive::ignore::Ignore;
use berth_oci::Reference;

use super::offer::Offered;
use super::outputs::boolean;
use super::sinks::Sink;
use crate::failure::{Failure, Outcome};
use crate::values::csv;

/// What the flags say of caches.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Caches {
    /// Images, as classic builders take them.
    pub images: Vec<String>,
    /// Caches that steps are taken from.
    pub sources: Vec<Cache>,
    /// Caches that are written.
    pub targets: Vec<Cache>,
}

/// One cache as it is written.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// Images alone, without a type.
    Images(Vec<String>),
    /// The image itself.
    Inline,
    Registry(Cache),
    Directory(PathBuf, Cache),
}

/// Checks one as the command line does before anything is done.
pub fn check(text: &str) -> Result<String, String> {
    read(text).map(|_| text.to_owned()).map_err(|failure| failure.message)
}

/// `type=TYPE[,KEY=VALUE…]`, or names of images.
fn read(text: &str) -> Outcome<Wanted> {
    let fields = csv::record(text).ok_or_else(|| Failure::new("extraneous or missing \" in quoted-field"))?;
    if fields.iter().all(|field| !field.contains('=')) {
        return Ok(Wanted::Images(fields.into_iter().filter(|field| !field.is_empty()).collect()));
    }
    let (mut kind, mut place, mut directory) = (String::new(), None, None);
    let mut cache = Cache {
        kind: CacheKind::Registry,
        place: String::new(),
        mode: CacheMode::Min,
        mounts: false,
        ignore_error: false,
    };
    for field in &fields {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("invalid field '{field}' must be a key=value pair")))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "type" => value.clone_into(&mut kind),
            "ref" => place = Some(value.to_owned()).filter(|value| !value.is_empty()),
            "src" | "dest" => directory = Some(value.to_owned()).filter(|value| !value.is_empty()),
            "mode" => {
                cache.mode = match value {
                    "min" => CacheMode::Min,
                    "max" => CacheMode::Max,
                    _ => return Err(Failure::new(format!("unsupported cache mode {value:?}: min or max"))),
                }
            }
            "mounts" => cache.mounts = boolean(key, value)?,
            "ignore-error" => cache.ignore_error = boolean(key, value)?,
            key => return Err(Failure::new(format!("unexpected key '{key}' in '{field}'"))),
        }
    }
    let missing = |what: &str| Failure::new(format!("a cache of type {kind} needs {what}"));
    match kind.as_str() {
        "inline" => Ok(Wanted::Inline),
        "registry" => {
            let place = place.ok_or_else(|| missing("ref=NAME"))?;
            let invalid = |error| Failure::new(format!("invalid reference of a cache {place:?}: {error}"));
            place.parse::<Reference>().map_err(invalid)?;
            Ok(Wanted::Registry(Cache { place, ..cache }))
        }
        "local" => {
            let directory = directory.ok_or_else(|| missing("src=DIRECTORY or dest=DIRECTORY"))?;
            Ok(Wanted::Directory(PathBuf::from(directory), Cache { kind: CacheKind::Local, ..cache }))
        }
        "" => Err(Failure::new("a cache needs a type")),
        kind => Err(Failure::new(format!("unknown cache type {kind:?}"))),
    }
}

impl Caches {
    /// What the flags say; directories among it are offered.
    ///
    /// # Errors
    /// A directory that is not there.
    pub fn of(from: &[String], to: &[String], offered: &mut Offered) -> Outcome<Self> {
        let mut all = Self::default();
        for text in from {
            match read(text)? {
                Wanted::Images(images) => all.images.extend(images),
                Wanted::Inline => {
                    return Err(Failure::new("a cache of type inline is read by type=registry"));
                }
                Wanted::Registry(cache) => all.sources.push(cache),
                Wanted::Directory(path, cache) => {
                    let missing = |error: std::io::Error| {
                        Failure::io(format!("cache source {}", path.display()), &error)
                    };
                    // As with BuildKit, the first build finds nothing there.
                    let path = match fs::canonicalize(&path) {
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                            errln!("WARNING: local cache import at {} not found", path.display());
                            continue;
                        }
                        path => path.map_err(missing)?,
                    };
                    let place = format!("cache-{}", offered.directories.len());
                    offered.directory(&place, path, Ignore::default());
                    all.sources.push(Cache { place, ..cache });
                }
            }
        }
        for text in to {
            match read(text)? {
                Wanted::Images(images) => all.targets.extend(images.into_iter().map(|place| Cache {
                    kind: CacheKind::Registry,
                    place,
                    mode: CacheMode::Min,
                    mounts: false,
                    ignore_error: false,
                })),
                // Every image says of which steps it consists.
                Wanted::Inline => {}
                Wanted::Registry(cache) => all.targets.push(cache),
                Wanted::Directory(path, cache) => {
                    let path = std::path::absolute(path)
                        .map_err(|error| Failure::io("current directory", &error))?;
                    let place = offered.output(Sink::Directory(path)).to_string();
                    all.targets.push(Cache { place, ..cache });
                }
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_read() {
        let registry = Cache {
            kind: CacheKind::Registry,
            place: "r.example/c:1".into(),
            mode: CacheMode::Max,
            mounts: true,
            ignore_error: true,
        };
        let text = "type=registry,ref=r.example/c:1,mode=max,mounts=true,ignore-error=1";
        assert_eq!(read(text).unwrap(), Wanted::Registry(registry));
        assert_eq!(read("a,b").unwrap(), Wanted::Images(vec!["a".into(), "b".into()]));
        assert_eq!(read("type=inline").unwrap(), Wanted::Inline);
        for (text, words) in [
            ("type=registry", "needs ref=NAME"),
            ("type=registry,ref=A", "invalid reference of a cache"),
            ("type=local", "needs src=DIRECTORY or dest=DIRECTORY"),
            ("type=local,dest=", "needs src=DIRECTORY"),
            ("type=gha", "unknown cache type \"gha\""),
            ("ref=a", "a cache needs a type"),
            ("type=local,dest=x,mode=all", "unsupported cache mode \"all\""),
            ("type=local,x", "invalid field 'x'"),
            ("type=local,size=1", "unexpected key 'size'"),
            ("type=local,\"x", "quoted-field"),
        ] {
            let told = check(text).unwrap_err();
            assert!(told.contains(words), "{text}: {told}");
        }
    }
}
