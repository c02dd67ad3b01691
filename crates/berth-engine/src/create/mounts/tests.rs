//! Notations of mounts, good and bad.

use super::*;
use berth_api::container::{BindOptions, Mount, TmpfsOptions};
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
        source: MountSource::Volume { name: name.into(), anonymous, subpath: String::new() },
        destination: destination.into(),
        read_only: false,
        read_only_top: false,
        mode: String::new(),
        propagation: String::new(),
        wish: VolumeWish::default(),
    };
    let mut own = vec![volume("mine", false, "/b"), volume("new", true, "/c")];
    inherit(&mut own, vec![volume("1", true, "/b"), volume("2", true, "/c"), volume("3", false, "/a")]);
    assert_eq!(own, [volume("3", false, "/a"), volume("mine", false, "/b"), volume("2", true, "/c")]);
}

#[test]
fn the_last_of_other_containers_wins() {
    let volume = |name: &str, mode: &str| MountPlan {
        source: MountSource::Volume { name: name.into(), anonymous: true, subpath: String::new() },
        destination: "/a".into(),
        read_only: false,
        read_only_top: false,
        mode: mode.into(),
        propagation: String::new(),
        wish: VolumeWish::default(),
    };
    for (own, winner) in
        [(vec![], "2"), (vec![volume("image", "")], "2"), (vec![volume("asked", "z")], "asked")]
    {
        let mut plans = own;
        inherit(&mut plans, vec![volume("1", ""), volume("2", "")]);
        let names: Vec<_> = plans
            .iter()
            .map(|plan| match &plan.source {
                MountSource::Volume { name, .. } => name.as_str(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(names, [winner]);
    }
}

#[test]
fn labels_are_not_set_without_a_word() {
    let warning = |bind: &str, has_labels| {
        let host = HostConfig { binds: Some(vec![bind.into()]), ..Default::default() };
        label_warning(&host, || has_labels)
    };
    assert!(warning("/a:/b:ro,Z", true).unwrap().contains("\"/a:/b:ro,Z\""));
    assert!(warning("name:/b:z", true).is_some());
    for (bind, has_labels) in [("/a:/b:ro,z", false), ("/a:/b:ro", true), ("/z:/Z", true), ("z", true)] {
        assert_eq!(warning(bind, has_labels), None, "{bind}");
    }
}

#[test]
fn the_short_notation() {
    let plans = binds(&["/a//b/../c:/x/:ro,rslave", "name:/y", "/z"]).unwrap();
    assert_eq!(plans[0].destination, "/x");
    assert_eq!(
        plans[0].source,
        MountSource::Bind { path: "/a/c".into(), create: true, recursive: true, idmap: None }
    );
    assert!(plans[0].read_only);
    assert_eq!((plans[0].mode.as_str(), plans[0].propagation.as_str()), ("ro,rslave", "rslave"));
    assert_eq!(
        plans[1].source,
        MountSource::Volume { name: "name".into(), anonymous: false, subpath: String::new() }
    );
    assert_eq!(
        plans[2].source,
        MountSource::Volume { name: "anonymous".into(), anonymous: true, subpath: String::new() }
    );
}

#[test]
fn malformed_binds_get_dockers_words() {
    for (bind, text) in [
        (
            "/a:b",
            "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute",
        ),
        (
            "/a:/",
            "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'",
        ),
        ("/a:/b:wo", "invalid mode: wo"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
        (":/b", "invalid volume specification: ':/b'"),
        ("/a:ro", "invalid volume specification: '/a:ro'"),
        (
            "/a:/b:nocopy",
            "invalid volume specification: '/a:/b:nocopy': invalid mount config for type \"bind\": field VolumeOptions must not be specified",
        ),
        (
            "name:/b:rslave",
            "invalid volume specification: 'name:/b:rslave': invalid mount config for type \"volume\": field BindOptions must not be specified",
        ),
    ] {
        assert_eq!(binds(&[bind]).unwrap_err().to_string(), text);
    }
    assert_eq!(binds(&["/a:/x", "/b:/x/"]).unwrap_err().to_string(), "Duplicate mount point: /x");
}

#[test]
fn the_long_notation() {
    let bind = Mount { kind: "bind".into(), source: "/s".into(), target: "/t".into(), ..Default::default() };
    let source = MountSource::Bind { path: "/s".into(), create: false, recursive: true, idmap: None };
    assert_eq!(mount(bind.clone()).unwrap().source, source);
    let options = BindOptions { propagation: "rshared".into(), non_recursive: true, ..Default::default() };
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
    let options = ["mode=700", "size=4k", "noexec"].map(str::to_owned).to_vec();
    assert_eq!(plan.unwrap().source, MountSource::Tmpfs { options });
}

#[test]
fn malformed_mounts_get_dockers_words() {
    let bind = Mount { kind: "bind".into(), source: "/s".into(), target: "/t".into(), ..Default::default() };
    for (bad, text) in [
        (Mount { target: String::new(), ..bind.clone() }, "field Target must not be empty"),
        (Mount { source: String::new(), ..bind.clone() }, "field Source must not be empty"),
        (Mount { source: "s".into(), ..bind.clone() }, "invalid mount path: 's' mount path must be absolute"),
    ] {
        let text = format!("invalid mount config for type \"bind\": {text}");
        assert_eq!(mount(bad).unwrap_err().to_string(), text);
    }
    let text = mount(Mount { kind: "floppy".into(), ..bind }).unwrap_err().to_string();
    assert_eq!(text, "invalid mount config for type \"floppy\": mount type unknown");
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
