//! Mounts that a request asks for: binds, volumes and temporary file systems, in both of Docker's notations.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Component, Path, PathBuf};

use berth_api::container::{Config, HostConfig, Mount};
use serde::{Deserialize, Serialize};

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
    },
    /// A directory that the engine keeps.
    Volume {
        /// Its name.
        name: String,
        /// Whether it was made for this container, and goes with it.
        anonymous: bool,
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
        match plans.insert(plan.destination.clone(), plan) {
            Some(old) => Err(Error::InvalidParameter(format!("Duplicate mount point: {}", old.destination))),
            None => Ok(()),
        }
    };
    let anonymous = || {
        let name = new_volume().map_err(|source| Error::Io { operation: "name a volume".into(), source })?;
        Ok::<_, Error>(MountSource::Volume { name, anonymous: true })
    };
    for bind in host.binds.iter().flatten() {
        add(parse_bind(bind, anonymous)?)?;
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
        let destination = destination(path).map_err(|why| {
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
            });
        }
    }
    // Sorted by destination: a parent is always mounted before what lies below it.
    Ok(plans.into_values().collect())
}

/// Adds mounts of other containers. What the container asks for itself wins, but for a volume that has no name.
pub fn inherit(plans: &mut Vec<MountPlan>, inherited: Vec<MountPlan>) {
    for plan in inherited {
        let own = plans.iter_mut().find(|own| own.destination == plan.destination);
        match own {
            None => plans.push(plan),
            Some(own) if matches!(own.source, MountSource::Volume { anonymous: true, .. }) => *own = plan,
            Some(_) => {}
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
    MountPlan { source, destination, read_only, read_only_top: false, mode: String::new(), propagation }
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
        // `name:ro` is a mistake, `/a:/b` and `name:/b` are not.
        [source, path] => (Some(source), path, ""),
        [source, path, mode] => (Some(source), path, mode),
        _ => return Err(refuse("")),
    };
    let destination = destination(path).map_err(|why| refuse(&why))?;
    let options = BindMode::parse(mode).ok_or_else(|| refuse(&format!("invalid mode: {mode}")))?;
    let source = match source {
        None => anonymous()?,
        Some("") => return Err(refuse("")),
        Some(path) if path.starts_with('/') => {
            MountSource::Bind { path: clean(path), create: true, recursive: options.recursive }
        }
        Some(name) => MountSource::Volume { name: volume_name(name)?, anonymous: false },
    };
    let propagation = match &source {
        MountSource::Bind { .. } => options.propagation.unwrap_or("rprivate").to_owned(),
        _ if options.propagation.is_some() => {
            let why = "invalid mount config for type \"volume\": field BindOptions must not be specified";
            return Err(refuse(why));
        }
        _ => String::new(),
    };
    Ok(MountPlan {
        source,
        destination,
        read_only: options.read_only,
        read_only_top: false,
        mode: mode.to_owned(),
        propagation,
    })
}

struct BindMode<'a> {
    read_only: bool,
    recursive: bool,
    propagation: Option<&'a str>,
}

impl<'a> BindMode<'a> {
    /// `None` if an option is unknown or contradicts another.
    fn parse(text: &'a str) -> Option<BindMode<'a>> {
        let mut mode = BindMode { read_only: false, recursive: true, propagation: None };
        let (mut access, mut label, mut copy) = (false, false, false);
        for option in text.split(',').filter(|_| !text.is_empty()) {
            let repeated = match option {
                "ro" | "rw" => {
                    mode.read_only = option == "ro";
                    std::mem::replace(&mut access, true)
                }
                "z" | "Z" => std::mem::replace(&mut label, true),
                "nocopy" => std::mem::replace(&mut copy, true),
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

fn parse_mount(
    mount: &Mount,
    anonymous: impl Fn() -> Result<MountSource, Error>,
) -> Result<MountPlan, Error> {
    let refuse = |why: &str| {
        Error::InvalidParameter(format!("invalid mount config for type \"{}\": {why}", mount.kind))
    };
    if mount.target.is_empty() {
        return Err(refuse("field Target must not be empty"));
    }
    let destination = destination(&mount.target).map_err(|why| refuse(&why))?;
    let (mut propagation, mut read_only_top) = (String::new(), false);
    let source = match mount.kind.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return Err(refuse("field Source must not be empty"));
            }
            if !mount.source.starts_with('/') {
                return Err(refuse(&format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    mount.source
                )));
            }
            if mount.volume_options.is_some() {
                return Err(refuse("field VolumeOptions must not be specified"));
            }
            let options = mount.bind_options.clone().unwrap_or_default();
            read_only_top = options.read_only_non_recursive;
            if read_only_top && options.read_only_force_recursive {
                return Err(Error::InvalidParameter(
                    "mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive".into(),
                ));
            }
            propagation =
                if options.propagation.is_empty() { "rprivate".into() } else { options.propagation };
            MountSource::Bind {
                path: clean(&mount.source),
                create: options.create_mountpoint,
                recursive: !options.non_recursive,
            }
        }
        "volume" | "" if mount.source.is_empty() => anonymous()?,
        "volume" | "" => MountSource::Volume { name: volume_name(&mount.source)?, anonymous: false },
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(refuse("field Source must not be specified"));
            }
            MountSource::Tmpfs { options: tmpfs_options(mount) }
        }
        other => return Err(Error::InvalidParameter(format!("mount type unknown: \"{other}\""))),
    };
    let read_only = mount.read_only;
    Ok(MountPlan { source, destination, read_only, read_only_top, mode: String::new(), propagation })
}

fn tmpfs_options(mount: &Mount) -> Vec<String> {
    let wanted = mount.tmpfs_options.clone().unwrap_or_default();
    let mut options = Vec::new();
    if mount.read_only {
        options.push("ro".to_owned());
    }
    if wanted.mode != 0 {
        options.push(format!("mode={:o}", wanted.mode));
    }
    if wanted.size_bytes != 0 {
        options.push(format!("size={}", wanted.size_bytes));
    }
    options.extend(wanted.options.into_iter().flatten().map(|pair| pair.join("=")));
    options
}

/// A path in the container, normal and absolute, and not the root itself; or why it is none.
fn destination(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!("invalid mount path: '{path}' mount path must be absolute"));
    }
    let cleaned = clean(path);
    if cleaned == Path::new("/") {
        return Err("invalid specification: destination can't be '/'".into());
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

/// Checks a volume's name: it becomes a directory.
fn volume_name(name: &str) -> Result<String, Error> {
    let bytes = name.as_bytes();
    let good = bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && (2..=255).contains(&bytes.len());
    if good {
        return Ok(name.to_owned());
    }
    Err(Error::InvalidParameter(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::container::{BindOptions, TmpfsOptions};
    use proptest::prelude::*;

    fn binds(list: &[&str]) -> Result<Vec<MountPlan>, Error> {
        let host =
            HostConfig { binds: Some(list.iter().map(|b| (*b).to_owned()).collect()), ..Default::default() };
        plan(&Config::default(), &host, || Ok("anonymous".into()))
    }

    fn mount(mount: Mount) -> Result<MountPlan, Error> {
        let host = HostConfig { mounts: Some(vec![mount]), ..Default::default() };
        plan(&Config::default(), &host, || Ok("anonymous".into())).map(|mut plans| plans.remove(0))
    }

    #[test]
    fn mounts_of_other_containers_give_way() {
        let volume = |name: &str, anonymous, destination: &str| MountPlan {
            source: MountSource::Volume { name: name.into(), anonymous },
            destination: destination.into(),
            read_only: false,
            read_only_top: false,
            mode: String::new(),
            propagation: String::new(),
        };
        let mut own = vec![volume("mine", false, "/b"), volume("new", true, "/c")];
        inherit(&mut own, vec![volume("1", true, "/b"), volume("2", true, "/c"), volume("3", false, "/a")]);
        assert_eq!(own, [volume("3", false, "/a"), volume("mine", false, "/b"), volume("2", true, "/c")]);
    }

    #[test]
    fn the_short_notation() {
        let plans = binds(&["/a//b/../c:/x/:ro,rslave", "name:/y", "/z"]).unwrap();
        assert_eq!(plans[0].destination, "/x");
        assert_eq!(plans[0].source, MountSource::Bind { path: "/a/c".into(), create: true, recursive: true });
        assert!(plans[0].read_only);
        assert_eq!((plans[0].mode.as_str(), plans[0].propagation.as_str()), ("ro,rslave", "rslave"));
        assert_eq!(plans[1].source, MountSource::Volume { name: "name".into(), anonymous: false });
        assert_eq!(plans[2].source, MountSource::Volume { name: "anonymous".into(), anonymous: true });
    }

    #[test]
    fn malformed_binds_get_dockers_words() {
        for (bind, text) in [
            (
                "/a:b",
                "invalid volume specification: '/a:b': invalid mount path: 'b' mount path must be absolute",
            ),
            ("/a:/", "invalid volume specification: '/a:/': invalid specification: destination can't be '/'"),
            ("/a:/b:wo", "invalid volume specification: '/a:/b:wo': invalid mode: wo"),
            ("/a:/b:ro,rw", "invalid volume specification: '/a:/b:ro,rw': invalid mode: ro,rw"),
            ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
            (":/b", "invalid volume specification: ':/b'"),
        ] {
            assert_eq!(binds(&[bind]).unwrap_err().to_string(), text);
        }
        let text = binds(&["../up:/b"]).unwrap_err().to_string();
        assert!(text.contains("If you intended to pass a host directory, use absolute path"), "{text}");
        assert_eq!(binds(&["/a:/x", "/b:/x/"]).unwrap_err().to_string(), "Duplicate mount point: /x");
    }

    #[test]
    fn the_long_notation() {
        let bind =
            Mount { kind: "bind".into(), source: "/s".into(), target: "/t".into(), ..Default::default() };
        let source = MountSource::Bind { path: "/s".into(), create: false, recursive: true };
        assert_eq!(mount(bind.clone()).unwrap().source, source);
        let options =
            BindOptions { propagation: "rshared".into(), non_recursive: true, ..Default::default() };
        let plan = mount(Mount { bind_options: Some(options), read_only: true, ..bind.clone() }).unwrap();
        assert_eq!(plan.propagation, "rshared");
        assert!(plan.read_only && !plan.read_only_top);
        let mut options = BindOptions { read_only_non_recursive: true, ..Default::default() };
        let flat = Mount { bind_options: Some(options.clone()), read_only: true, ..bind.clone() };
        assert!(mount(flat.clone()).unwrap().read_only_top);
        options.read_only_force_recursive = true;
        assert!(mount(Mount { bind_options: Some(options), ..flat }).is_err());
        let size = TmpfsOptions { size_bytes: 4096, mode: 0o700, options: Some(vec![vec!["noexec".into()]]) };
        let plan = mount(Mount {
            kind: "tmpfs".into(),
            target: "/t".into(),
            tmpfs_options: Some(size),
            ..Default::default()
        });
        let options = ["mode=700", "size=4096", "noexec"].map(str::to_owned).to_vec();
        assert_eq!(plan.unwrap().source, MountSource::Tmpfs { options });
    }

    #[test]
    fn malformed_mounts_get_dockers_words() {
        let bind =
            Mount { kind: "bind".into(), source: "/s".into(), target: "/t".into(), ..Default::default() };
        for (bad, text) in [
            (Mount { target: String::new(), ..bind.clone() }, "field Target must not be empty"),
            (Mount { source: String::new(), ..bind.clone() }, "field Source must not be empty"),
            (
                Mount { source: "s".into(), ..bind.clone() },
                "invalid mount path: 's' mount path must be absolute",
            ),
        ] {
            let text = format!("invalid mount config for type \"bind\": {text}");
            assert_eq!(mount(bad).unwrap_err().to_string(), text);
        }
        let text = mount(Mount { kind: "floppy".into(), ..bind }).unwrap_err().to_string();
        assert_eq!(text, "mount type unknown: \"floppy\"");
    }

    #[test]
    fn parents_come_first_and_images_volumes_yield() {
        let config = Config {
            volumes: Some(
                [("/a/b".to_owned(), berth_api::Empty {}), ("/v".to_owned(), berth_api::Empty {})].into(),
            ),
            ..Default::default()
        };
        let host = HostConfig {
            binds: Some(vec!["/x:/a/b".into(), "/y:/a".into()]),
            tmpfs: Some([("/t".to_owned(), "size=1m,ro".to_owned())].into()),
            ..Default::default()
        };
        let plans = plan(&config, &host, || Ok("v".into())).unwrap();
        let order: Vec<_> = plans.iter().map(|p| p.destination.as_str()).collect();
        assert_eq!(order, ["/a", "/a/b", "/t", "/v"]);
        assert!(matches!(&plans[1].source, MountSource::Bind { path, .. } if path == Path::new("/x")));
        assert!(plans[2].read_only);
    }

    proptest! {
        #[test]
        fn destinations_never_climb(path in "[/.a-c]{0,24}") {
            if let Ok(text) = destination(&path) {
                prop_assert!(text.starts_with('/') && text != "/");
                prop_assert!(text.split('/').skip(1).all(|c| !c.is_empty() && c != "." && c != ".."));
            }
        }

        #[test]
        fn any_bind_is_taken_or_refused(bind in ".{0,40}") {
            let _ = binds(&[&bind]);
        }
    }
}
