//! Binds whose owners are mapped, and what of an image's files a volume keeps.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use crate::daemon::Daemon;
use crate::files;
use crate::flags::inside;
use crate::{daemon::Client, output::run};

/// A directory of user 1234 and group 2345 with a file in it.
fn folder(daemon: &Daemon) -> String {
    let folder = daemon.root.path().join("theirs");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), "x").unwrap();
    for path in [&folder, &folder.join("file")] {
        std::os::unix::fs::chown(path, Some(1234), Some(2345)).unwrap();
    }
    folder.display().to_string()
}

#[test]
fn files_of_a_bind_belong_to_others_inside() {
    let daemon = Daemon::start();
    let folder = folder(&daemon);
    let mount = |more: &str| format!("type=bind,src={folder},dst=/m{more}");
    let script = "stat -c '%u %g' /m /m/file; touch /m/new; mkdir /m/dir; echo more >> /m/file";
    let plain = inside(&daemon, Client::Berth, &["--mount", &mount("")], "stat -c '%u %g' /m/file");
    assert_eq!(plain, "1234 2345");
    let mapped = ["--mount", &mount(",idmap=uids=1234-0-1;gids=2345-0-1")];
    assert_eq!(inside(&daemon, Client::Berth, &mapped, script), "0 0\n0 0");
    for name in ["new", "dir", "file"] {
        let found = fs::metadata(format!("{folder}/{name}")).unwrap();
        assert_eq!((found.uid(), found.gid()), (1234, 2345), "{name}");
    }
    // Whom the mapping leaves out owns nothing, and makes nothing.
    let output = daemon
        .berth(&[&["run", "--rm", "--user", "7:8"], &mapped[..], &["busybox", "touch", "/m/other"]].concat());
    output.fails(1, "");
    assert!(!std::path::Path::new(&folder).join("other").exists());
    // Ranges; for groups the same.
    let ranges = ["--mount", &mount(",ro,idmap=uids=1234-10-1#2345-20-1")];
    assert_eq!(inside(&daemon, Client::Berth, &ranges, "stat -c '%u %g' /m/file"), "10 20");
    // The mapping is the container's, and goes with it through a restart.
    let id =
        daemon.berth(&[&["create"], &mapped[..], &["busybox", "stat", "-c", "%u", "/m/file"]].concat()).ok();
    for _ in 0..2 {
        assert_eq!(daemon.berth(&["start", "-a", &id]).ok(), "0");
    }
    // Also for files that go in while nothing runs.
    let here = daemon.root.path().join("copied");
    fs::write(&here, "y").unwrap();
    daemon.berth(&["cp", here.to_str().unwrap(), &format!("{id}:/m/copied")]).ok();
    assert_eq!(fs::metadata(format!("{folder}/copied")).unwrap().uid(), 1234);
}

#[test]
fn a_mapping_without_ids_is_the_callers() {
    let daemon = Daemon::start();
    let folder = folder(&daemon);
    fs::set_permissions(daemon.root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = daemon.host().trim_start_matches("unix://").to_owned();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let program = std::env::var("BERTH_BINARY").unwrap();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "1234", "--regid", "2345", "--clear-groups", &program, "-H", &daemon.host()]);
    let mount = format!("type=bind,src={folder},dst=/m,idmap");
    command.args([
        "run",
        "--rm",
        "--mount",
        &mount,
        "busybox",
        "sh",
        "-c",
        "stat -c '%u %g' /m/file; touch /m/mine",
    ]);
    assert_eq!(run(&mut command).ok(), "0 0");
    let found = fs::metadata(format!("{folder}/mine")).unwrap();
    assert_eq!((found.uid(), found.gid()), (1234, 2345));
}

#[test]
fn bad_mappings_are_refused() {
    let daemon = Daemon::start();
    let folder = folder(&daemon);
    for idmap in ["uids=1", "people=1-2-3", "uids=1-2-3#2-9-1"] {
        let mount = format!("type=bind,src={folder},dst=/m,idmap={idmap}");
        daemon.berth(&["create", "--mount", &mount, "busybox"]).fails(1, "invalid idmap");
    }
    daemon
        .berth(&["create", "--mount", "src=vol,dst=/m,idmap", "busybox"])
        .fails(125, "cannot mix 'bind-*' options");
    // What cannot be mapped is told, and nothing starts.
    let mount = "type=bind,src=/proc,dst=/m,idmap=uids=0-5-1";
    daemon.berth(&["run", "--rm", "--mount", mount, "busybox", "true"]).fails(125, "has no idmapped mounts");
}

/// What a file has, by name.
fn attribute(path: &std::path::Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
    value.truncate(length);
    value
}

#[test]
fn a_volume_keeps_attributes_and_capabilities() {
    let daemon = Daemon::start();
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let layer = files::Layer::new()
        .dir("data", 0o755)
        .with_xattr("data/a", 0o600, "user.berth", b"value")
        .with_xattr("data/b", 0o755, "security.capability", capability)
        .hardlink("data/c", "data/a");
    let image = files::Image::new(vec![layer]);
    let path = files::write(daemon.root.path(), "attributes.tar", &image.docker_archive("attributes:v1"));
    daemon.berth(&["load", "-q", "-i", &path]).ok();
    daemon.berth(&["create", "-v", "kept:/data", "attributes:v1", "x"]).ok();
    let place = daemon.data_root().join("volumes/kept/_data");
    assert_eq!(attribute(&place.join("a"), "user.berth"), b"value");
    assert_eq!(attribute(&place.join("b"), "security.capability"), capability);
    let inode = |name: &str| fs::metadata(place.join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("c"));
}
