//! Mounts in the long notation: `--mount`, and `HostConfig.Mounts`.

use std::path::{Component, Path};

use berth_api::container::{Mount, TmpfsOptions};

use super::idmap::IdMap;
use super::mounts::{MountPlan, MountSource, VolumeWish, clean, destination};
use crate::Error;

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

/// Settles a mount; `anonymous` makes the source of a volume without a name.
pub(super) fn parse_mount(
    mount: &Mount,
    anonymous: impl Fn() -> Result<MountSource, Error>,
) -> Result<MountPlan, Error> {
    let refuse = |why: &str| {
        Error::InvalidParameter(format!("invalid mount config for type \"{}\": {why}", mount.kind))
    };
    foreign_options(mount).map_err(|field| refuse(&format!("field {field} must not be specified")))?;
    let destination = destination(&mount.target).map_err(|why| refuse(&why))?;
    let mut plan = MountPlan {
        source: MountSource::Tmpfs { options: Vec::new() },
        destination,
        read_only: mount.read_only,
        read_only_top: false,
        mode: String::new(),
        propagation: String::new(),
        wish: VolumeWish::default(),
    };
    match mount.kind.as_str() {
        "bind" => bind(mount, &mut plan).map_err(|why| refuse(&why))?,
        "volume" => {
            check_volume(mount).map_err(|why| refuse(&why))?;
            volume(mount, &mut plan, anonymous)?;
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(refuse("field Source must not be specified"));
            }
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            let options = tmpfs_options(&options, mount.read_only).map_err(|why| refuse(&why))?;
            plan.source = MountSource::Tmpfs { options };
        }
        "image" => {
            if mount.source.is_empty() {
                return Err(refuse("field Source must not be empty"));
            }
            let subpath = mount.image_options.as_ref().map(|options| options.subpath.clone());
            let subpath = subpath.unwrap_or_default();
            check_subpath(&subpath).map_err(|why| refuse(&why))?;
            plan.source = MountSource::Image { name: mount.source.clone(), id: String::new(), subpath };
            plan.read_only = true;
            plan.propagation = "rprivate".into();
        }
        _ => return Err(refuse("mount type unknown")),
    }
    Ok(plan)
}

/// The field with options of another type of mount, if there is one.
fn foreign_options(mount: &Mount) -> Result<(), &'static str> {
    let options = [
        ("BindOptions", mount.bind_options.is_some(), "bind"),
        ("VolumeOptions", mount.volume_options.is_some(), "volume"),
        ("ImageOptions", mount.image_options.is_some(), "image"),
        ("TmpfsOptions", mount.tmpfs_options.is_some(), "tmpfs"),
    ];
    match options.into_iter().find(|(_, given, kind)| *given && mount.kind != *kind) {
        Some((field, ..)) => Err(field),
        None => Ok(()),
    }
}

fn bind(mount: &Mount, plan: &mut MountPlan) -> Result<(), String> {
    if mount.source.is_empty() {
        return Err("field Source must not be empty".into());
    }
    let options = mount.bind_options.clone().unwrap_or_default();
    if !options.propagation.is_empty() && !PROPAGATIONS.contains(&options.propagation.as_str()) {
        return Err(format!("invalid propagation mode: {}", options.propagation));
    }
    if !mount.source.starts_with('/') {
        return Err(format!("invalid mount path: '{}' mount path must be absolute", mount.source));
    }
    plan.read_only_top = options.read_only_non_recursive;
    let conflict = match (mount.read_only, options.read_only_non_recursive, options.read_only_force_recursive)
    {
        (false, true, _) => Some("!ReadOnly && BindOptions.ReadOnlyNonRecursive"),
        (false, _, true) => Some("!ReadOnly && BindOptions.ReadOnlyForceRecursive"),
        (_, true, true) => Some("ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive"),
        _ => None,
    };
    if let Some(conflict) = conflict {
        return Err(format!("mount options conflict: {conflict}"));
    }
    let idmap = Some(options.id_map.as_str()).filter(|text| !text.is_empty());
    let idmap = idmap.map(IdMap::parse).transpose()?;
    plan.propagation = if options.propagation.is_empty() { "rprivate".into() } else { options.propagation };
    plan.source = MountSource::Bind {
        path: clean(&mount.source),
        create: options.create_mountpoint,
        recursive: !options.non_recursive,
        idmap,
    };
    Ok(())
}

fn check_volume(mount: &Mount) -> Result<(), String> {
    let subpath = mount.volume_options.as_ref().map(|options| options.subpath.as_str()).unwrap_or_default();
    if !subpath.is_empty() && mount.source.is_empty() {
        return Err("must not set Subpath when using anonymous volumes".into());
    }
    check_subpath(subpath)
}

/// Refuses what leads out of a volume or an image by its text alone.
fn check_subpath(subpath: &str) -> Result<(), String> {
    let mut depth = 0i32;
    let inside = Path::new(subpath).components().all(|component| {
        depth += match component {
            Component::Normal(_) => 1,
            Component::CurDir => 0,
            Component::ParentDir => -1,
            Component::RootDir | Component::Prefix(_) => return false,
        };
        depth >= 0
    });
    if inside { Ok(()) } else { Err("subpath must be a relative path within the volume".into()) }
}

fn volume(
    mount: &Mount,
    plan: &mut MountPlan,
    anonymous: impl Fn() -> Result<MountSource, Error>,
) -> Result<(), Error> {
    let options = mount.volume_options.clone().unwrap_or_default();
    let driver = options.driver_config.unwrap_or_default();
    plan.source = if mount.source.is_empty() {
        anonymous()?
    } else {
        MountSource::Volume { name: mount.source.clone(), anonymous: false, subpath: options.subpath }
    };
    // As in Docker, which labels them for all containers.
    plan.mode = "z".into();
    plan.wish = VolumeWish {
        driver: driver.name,
        options: driver.options,
        labels: options.labels,
        copy: !options.no_copy,
        over_file: true,
    };
    Ok(())
}

/// Options as mount(8) has them.
fn tmpfs_options(wanted: &TmpfsOptions, read_only: bool) -> Result<Vec<String>, String> {
    let mut options = Vec::new();
    if read_only {
        options.push("ro".to_owned());
    }
    if wanted.mode != 0 {
        options.push(format!("mode={:o}", wanted.mode));
    }
    if wanted.size_bytes != 0 {
        // As Docker writes it: in the largest unit that divides it.
        let (mut size, mut unit) = (wanted.size_bytes, "");
        for next in ["k", "m", "g"] {
            if size % 1024 != 0 {
                break;
            }
            (size, unit) = (size / 1024, next);
        }
        options.push(format!("size={size}{unit}"));
    }
    for option in wanted.options.iter().flatten() {
        match option.as_slice() {
            [name] | [name, _] if !matches!(name.as_str(), "exec" | "noexec") => {
                return Err(format!("invalid option: {name}"));
            }
            [_] | [_, _] => options.push(option.join("=")),
            _ => return Err("invalid option array length".into()),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use berth_api::container::{DriverConfig, ImageOptions, VolumeOptions};
    use proptest::prelude::*;

    use super::*;

    fn parse(mount: &Mount) -> Result<MountPlan, String> {
        let anonymous =
            || Ok(MountSource::Volume { name: "new".into(), anonymous: true, subpath: String::new() });
        parse_mount(mount, anonymous).map_err(|error| error.to_string())
    }

    fn volume(source: &str, options: VolumeOptions) -> Mount {
        Mount {
            kind: "volume".into(),
            source: source.into(),
            target: "/t".into(),
            volume_options: Some(options),
            ..Mount::default()
        }
    }

    #[test]
    fn volumes_have_their_options() {
        let driver = DriverConfig {
            name: "local".into(),
            options: Some([("type".to_owned(), "tmpfs".to_owned())].into()),
        };
        let options = VolumeOptions {
            no_copy: true,
            labels: Some([("a".to_owned(), "b".to_owned())].into()),
            subpath: "in/side".into(),
            driver_config: Some(driver),
        };
        let plan = parse(&volume("vol", options.clone())).unwrap();
        let source = MountSource::Volume { name: "vol".into(), anonymous: false, subpath: "in/side".into() };
        assert_eq!(plan.source, source);
        assert_eq!((plan.mode.as_str(), plan.wish.driver.as_str(), plan.wish.copy), ("z", "local", false));
        assert_eq!((plan.wish.labels.is_some(), plan.wish.options.is_some()), (true, true));
        let error = parse(&volume("", options)).unwrap_err();
        assert!(error.ends_with("must not set Subpath when using anonymous volumes"), "{error}");
    }

    #[test]
    fn subpaths_stay_inside() {
        for (subpath, good) in
            [("a/../b", true), (".", true), ("../a", false), ("/a", false), ("a/../../b", false)]
        {
            let options = VolumeOptions { subpath: subpath.into(), ..VolumeOptions::default() };
            assert_eq!(parse(&volume("vol", options)).is_ok(), good, "{subpath}");
            let image = Mount {
                kind: "image".into(),
                source: "busybox".into(),
                target: "/t".into(),
                image_options: Some(ImageOptions { subpath: subpath.into() }),
                ..Mount::default()
            };
            assert_eq!(parse(&image).is_ok(), good, "{subpath}");
        }
    }

    #[test]
    fn options_belong_to_their_type() {
        let mut mount = volume("vol", VolumeOptions::default());
        mount.kind = "bind".into();
        let error = parse(&mount).unwrap_err();
        assert_eq!(
            error,
            "invalid mount config for type \"bind\": field VolumeOptions must not be specified"
        );
        let mount = Mount { kind: "image".into(), target: "/t".into(), ..Mount::default() };
        assert!(parse(&mount).unwrap_err().ends_with("field Source must not be empty"));
    }

    #[test]
    fn tmpfs_takes_what_docker_takes() {
        let options = |size_bytes, options| TmpfsOptions { size_bytes, mode: 0, options };
        assert_eq!(tmpfs_options(&options(3 << 20, None), true).unwrap(), ["ro", "size=3m"]);
        assert_eq!(tmpfs_options(&options(1000, None), false).unwrap(), ["size=1000"]);
        let bad = tmpfs_options(&options(0, Some(vec![vec!["uid".into(), "1".into()]])), false);
        assert_eq!(bad.unwrap_err(), "invalid option: uid");
        let bad = tmpfs_options(&options(0, Some(vec![vec![]])), false);
        assert_eq!(bad.unwrap_err(), "invalid option array length");
    }

    proptest! {
        #[test]
        fn no_subpath_climbs(subpath in "[./a]{0,16}") {
            if check_subpath(&subpath).is_ok() {
                prop_assert!(!subpath.starts_with('/'));
                let clean = Path::new("/base").join(&subpath);
                prop_assert!(super::clean(&clean.to_string_lossy()).starts_with("/base"));
            }
        }
    }
}
