//! Mounts that a request asks for: binds, volumes and temporary file systems, in both of Docker's notations.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use berth_api::StringMap;
use berth_api::container::{Config, HostConfig};
use serde::{Deserialize, Serialize};

use super::idmap::IdMap;
use super::long_mount::parse_mount;
use crate::Error;

/// A mount of a container, settled at its creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// What is mounted.
    pub source: MountSource,
    /// The path in the container, absolute and normal.
    pub destination: String,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Whether what is mounted below it stays writable even so.
    #[serde(default)]
    pub read_only_top: bool,
    /// Options as the user gave them, for `inspect`.
    pub mode: String,
    /// Propagation: `rprivate`, `rslave`, ...; empty for what is no bind.
    pub propagation: String,
    /// What its volume is to be if there is none yet. Only until the container exists.
    #[serde(skip)]
    pub wish: VolumeWish,
}

/// What a volume is to be if it has to be made, and what becomes of an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeWish {
    /// Its driver; empty for whichever it has, or `local`.
    pub driver: String,
    /// Options of its driver.
    pub options: Option<StringMap>,
    /// Its labels.
    pub labels: Option<StringMap>,
    /// Whether what the image has there is copied into it while it is empty.
    pub copy: bool,
    /// Whether the image may have a file there, which runs into an error later.
    pub over_file: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A path of the host.
    Bind {
        /// The path.
        path: PathBuf,
        /// Whether a missing path is made, as a directory (`-v`), or refused (`--mount`).
        create: bool,
        /// Whether mounts below it come along.
        recursive: bool,
        /// Who owns its files in the container, if not who does on the host.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idmap: Option<IdMap>,
    },
    /// A directory that the engine keeps.
    Volume {
        /// Its name.
        name: String,
        /// Whether it was made for this container, and goes with it.
        anonymous: bool,
        /// The path within it that is mounted; empty for all of it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        subpath: String,
    },
    /// What an image holds, read-only.
    Image {
        /// The image as the user named it.
        name: String,
        /// Its ID; empty until it is known.
        id: String,
        /// The path within it that is mounted; empty for all of it.
        subpath: String,
    },
    /// What a build has mounted already, for one run: see [`crate::build::lent`].
    Lent {
        /// Its number among those of the container.
        number: usize,
    },
    /// A temporary file system with these mount options.
    Tmpfs {
        /// `size=64m`, `noexec`, ...
        options: Vec<String>,
    },
}

/// Settles all mounts of a container. `new_volume` names an anonymous volume.
pub fn plan(
    config: &Config,
    host: &HostConfig,
    new_volume: impl Fn() -> std::io::Result<String>,
) -> Result<Vec<MountPlan>, Error> {
    let mut plans: BTreeMap<String, MountPlan> = BTreeMap::new();
    let mut add = |plan: MountPlan| -> Result<(), Error> {
        match plans.entry(plan.destination.clone()) {
            Entry::Occupied(taken) => {
                let destination = taken.key().clone();
                let is_tmpfs = matches!(plan.source, MountSource::Tmpfs { .. });
                // Docker looks for these before it makes a volume.
                let earlier = if is_tmpfs { Vec::new() } else { plans.values().cloned().collect() };
                Err(Error::DuplicateMount { destination, earlier })
            }
            Entry::Vacant(place) => {
                place.insert(plan);
                Ok(())
            }
        }
    };
    let anonymous = || {
        let name = new_volume().map_err(|source| Error::Io { operation: "name a volume".into(), source })?;
        Ok::<_, Error>(MountSource::Volume { name, anonymous: true, subpath: String::new() })
    };
    for bind in host.binds.iter().flatten() {
        let mut plan = parse_bind(bind, anonymous)?;
        plan.wish.driver.clone_from(&host.volume_driver);
        add(plan)?;
    }
    for mount in host.mounts.iter().flatten() {
        add(parse_mount(mount, anonymous)?)?;
    }
    for (path, options) in host.tmpfs.iter().flatten() {
        let destination = destination(path).map_err(|why| {
            Error::InvalidParameter(format!("invalid tmpfs mount specification: '{path}': {why}"))
        })?;
        let options = options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        if let Some(bad) = options.iter().find(|option| !is_tmpfs_option(option)) {
            return Err(Error::InvalidParameter(format!("invalid tmpfs option \"{bad}\"")));
        }
        add(tmpfs(destination, options))?;
    }
    for path in config.volumes.iter().flatten().map(|(path, _)| path) {
        // As in Docker, an image's volume is a path whatever it looks like.
        let destination = destination(&format!("/{path}")).map_err(|why| {
            Error::InvalidParameter(format!("invalid volume specification: '{path}': {why}"))
        })?;
        // What the user mounts there takes the place of the image's volume.
        if let Entry::Vacant(place) = plans.entry(destination.clone()) {
            place.insert(MountPlan {
                source: anonymous()?,
                destination,
                read_only: false,
                read_only_top: false,
                mode: String::new(),
                propagation: String::new(),
                wish: VolumeWish { driver: host.volume_driver.clone(), copy: true, ..VolumeWish::default() },
            });
        }
    }
    // Sorted by destination: a parent is always mounted before what lies below it.
    Ok(plans.into_values().collect())
}

/// Adds mounts of other containers, of which the last one with a destination wins. What the container asks for itself comes
/// before all, but for the volumes of its image and of `-v PATH`.
pub fn inherit(plans: &mut Vec<MountPlan>, inherited: Vec<MountPlan>) {
    // These alone have no options.
    let yields = |own: &MountPlan| {
        matches!(own.source, MountSource::Volume { anonymous: true, .. }) && own.mode.is_empty()
    };
    let own: BTreeSet<String> =
        plans.iter().filter(|own| !yields(own)).map(|own| own.destination.clone()).collect();
    for plan in inherited.into_iter().filter(|plan| !own.contains(&plan.destination)) {
        match plans.iter_mut().find(|other| other.destination == plan.destination) {
            None => plans.push(plan),
            Some(other) => *other = plan,
        }
    }
    plans.sort_by(|a, b| a.destination.cmp(&b.destination));
}

/// Whether a temporary file system takes an option (tmpfs(5), mount(8)).
fn is_tmpfs_option(option: &str) -> bool {
    const SIZED: [&str; 8] = ["size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "mpol", "huge"];
    const FLAGS: [&str; 27] = [
        "defaults",
        "ro",
        "rw",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "sync",
        "async",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "mand",
        "nomand",
        "private",
        "rprivate",
        "slave",
        "rslave",
        "shared",
        "rshared",
    ];
    match option.split_once('=') {
        Some((name, _)) => SIZED.contains(&name),
        None => FLAGS.contains(&option),
    }
}

fn tmpfs(destination: String, options: Vec<String>) -> MountPlan {
    let read_only = options.iter().any(|o| o == "ro");
    let kinds = ["private", "slave", "shared"];
    let propagates = |option: &&String| kinds.contains(&option.strip_prefix('r').unwrap_or(option));
    let propagation = options.iter().rfind(propagates).cloned().unwrap_or_default();
    let source = MountSource::Tmpfs { options };
    let (mode, wish) = (String::new(), VolumeWish::default());
    MountPlan { source, destination, read_only, read_only_top: false, mode, propagation, wish }
}

/// `source:destination[:options]`, `volume:destination[:options]` or `destination`.
fn parse_bind(text: &str, anonymous: impl Fn() -> Result<MountSource, Error>) -> Result<MountPlan, Error> {
    let refuse = |why: &str| {
        let tail = if why.is_empty() { String::new() } else { format!(": {why}") };
        Error::InvalidParameter(format!("invalid volume specification: '{text}'{tail}"))
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, path, mode) = match parts[..] {
        [path] => (None, path, ""),
        // `/path:ro` is a mistake, `/a:/b` and `name:/b` are not.
        [_, mode] if BindMode::parse(mode).is_some() => return Err(refuse("")),
        [source, path] => (Some(source), path, ""),
        [source, path, mode] => (Some(source), path, mode),
        _ => return Err(refuse("")),
    };
    if source == Some("") {
        return Err(refuse(""));
    }
    let Some(options) = BindMode::parse(mode) else {
        return Err(Error::InvalidParameter(format!("invalid mode: {mode}")));
    };
    let is_bind = source.is_some_and(|source| source.starts_with('/'));
    let kind = if is_bind { "bind" } else { "volume" };
    let refuse_mount = |why: &str| refuse(&format!("invalid mount config for type \"{kind}\": {why}"));
    match (is_bind, options.propagation, options.no_copy) {
        (false, Some(_), _) => return Err(refuse_mount("field BindOptions must not be specified")),
        (true, _, true) => return Err(refuse_mount("field VolumeOptions must not be specified")),
        _ => {}
    }
    let destination = destination(path).map_err(|why| refuse_mount(&why))?;
    let source = match source {
        None => anonymous()?,
        Some(path) if is_bind => {
            MountSource::Bind { path: clean(path), create: true, recursive: options.recursive, idmap: None }
        }
        Some(name) => MountSource::Volume { name: name.to_owned(), anonymous: false, subpath: String::new() },
    };
    let propagation = if is_bind { options.propagation.unwrap_or("rprivate") } else { "" };
    Ok(MountPlan {
        source,
        destination,
        read_only: options.read_only,
        read_only_top: false,
        // As in Docker, which labels them for all containers.
        mode: if !is_bind && mode.is_empty() { "z".into() } else { mode.to_owned() },
        propagation: propagation.to_owned(),
        wish: VolumeWish { copy: !options.no_copy, over_file: true, ..VolumeWish::default() },
    })
}

/// Whether what `--volumes-from NAME:MODE` brings along cannot be written.
pub fn volumes_from_mode(mode: &str) -> Result<bool, Error> {
    match BindMode::parse(mode) {
        Some(options) if options.propagation.is_none() && !options.no_copy => Ok(options.read_only),
        _ => Err(Error::InvalidParameter(format!("invalid mode: {mode}"))),
    }
}

struct BindMode<'a> {
    read_only: bool,
    recursive: bool,
    no_copy: bool,
    propagation: Option<&'a str>,
}

impl<'a> BindMode<'a> {
    /// `None` if an option is unknown or contradicts another.
    fn parse(text: &'a str) -> Option<BindMode<'a>> {
        let mut mode = BindMode { read_only: false, recursive: true, no_copy: false, propagation: None };
        let (mut access, mut label, mut copy) = (false, false, false);
        for option in text.split(',').filter(|_| !text.is_empty()) {
            let repeated = match option {
                "ro" | "rw" => {
                    mode.read_only = option == "ro";
                    std::mem::replace(&mut access, true)
                }
                "z" | "Z" => std::mem::replace(&mut label, true),
                "nocopy" => {
                    mode.no_copy = true;
                    std::mem::replace(&mut copy, true)
                }
                "rbind" | "bind" => {
                    mode.recursive = option == "rbind";
                    false
                }
                // Docker Desktop's, without meaning on Linux.
                "consistent" | "cached" | "delegated" | "default" => false,
                "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" => {
                    mode.propagation.replace(option).is_some()
                }
                _ => return None,
            };
            if repeated {
                return None;
            }
        }
        Some(mode)
    }
}

/// A path in the container, normal and absolute, and not the root itself; or why it is none.
pub(super) fn destination(path: &str) -> Result<String, String> {
    if path.is_empty() {
        return Err("field Target must not be empty".into());
    }
    let cleaned = clean(path);
    if path.starts_with('/') && cleaned == Path::new("/") {
        return Err("invalid specification: destination can't be '/'".into());
    }
    if !path.starts_with('/') {
        return Err(format!("invalid mount path: '{path}' mount path must be absolute"));
    }
    Ok(cleaned.to_string_lossy().into_owned())
}

/// Resolves `.`, `..` and double slashes by their text, as Go's `filepath.Clean`.
pub fn clean(path: &str) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

/// What is to be said of `z` and `Z`, which set no labels: it matters on a host that `has_labels`.
pub fn label_warning(host: &HostConfig, has_labels: impl Fn() -> bool) -> Option<String> {
    let asks = |bind: &String| {
        let mode = bind.splitn(3, ':').nth(2).unwrap_or_default();
        mode.split(',').any(|option| matches!(option, "z" | "Z"))
    };
    let bind = host.binds.iter().flatten().find(|bind| asks(bind))?;
    has_labels().then(|| {
        format!(
            "SELinux labels are not changed: what is mounted by {bind:?} keeps its own, whatever \"z\" and \"Z\" ask for"
        )
    })
}

/// Checks the name of a volume of the local driver, in its words.
pub fn volume_name(name: &str) -> Result<String, Error> {
    let bytes = name.as_bytes();
    if bytes.len() == 1 {
        return Err(Error::InvalidParameter(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )));
    }
    if bytes.len() > 255 {
        return Err(Error::InvalidParameter(format!("create {name}: file name too long")));
    }
    let good = bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && bytes.len() >= 2;
    if good {
        return Ok(name.to_owned());
    }
    Err(Error::InvalidParameter(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

#[cfg(test)]
mod tests;
