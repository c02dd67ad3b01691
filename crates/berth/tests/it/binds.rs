//! Binds of what has mounts below it, and of the daemon's own directory.

use std::fs;
use std::path::{Path, PathBuf};

use berth_sys::process::{flags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use serde_json::{Value, json};

use crate::api::ask;
use crate::daemon::{Client, Daemon};
use crate::flags::{inside, refused};

/// The attributes of what is mounted on the host's `/dev/pts`, where a container has it.
const BELOW: &str = "grep ' /host/pts ' /proc/self/mountinfo | cut -d ' ' -f 6";

with_both_clients! {
    fn read_only_goes_all_the_way_down(daemon: &Daemon, client: Client) {
        let mount = "type=bind,source=/dev,target=/host,readonly";
        assert!(inside(daemon, client, &["-v", "/dev:/host"], BELOW).starts_with("rw,"));
        assert!(inside(daemon, client, &["-v", "/dev:/host:ro"], BELOW).starts_with("ro,"));
        assert!(inside(daemon, client, &["--mount", mount], BELOW).starts_with("ro,"));
    }

    fn what_is_below_a_bind_is_bound_as_told(daemon: &Daemon, client: Client) {
        let below = |options: &str| inside(daemon, client, &["--mount", &format!("type=bind,source=/dev,target=/host{options}")], &format!("{BELOW}; grep -c ' /host ' /proc/self/mountinfo"));
        let first = |text: &str| text.split(&[',', '\n']).next().unwrap_or_default().to_owned();
        assert_eq!(below(",bind-recursive=disabled"), "1", "nothing is below");
        assert_eq!(first(&below(",bind-recursive=enabled")), "rw");
        assert_eq!(first(&below(",readonly,bind-recursive=enabled")), "ro");
        assert_eq!(first(&below(",readonly,bind-recursive=writable")), "rw");
        assert_eq!(first(&below(",readonly,bind-recursive=readonly,bind-propagation=rprivate")), "ro");
        for (options, words) in [
            (",bind-recursive=writable", "requires 'readonly' to be specified in conjunction"),
            (",readonly,bind-recursive=readonly", "requires 'bind-propagation=rprivate' to be specified in conjunction"),
            (",bind-recursive=sometimes", "invalid value for bind-recursive: sometimes"),
        ] {
            refused(daemon, client, &["--mount", &format!("type=bind,source=/dev,target=/host{options}")], words);
        }
    }

    fn binds_of_the_data_root_follow_the_host(daemon: &Daemon, client: Client) {
        let root = daemon.data_root().display().to_string();
        let shown = |bind: &str| {
            let id = daemon.with(client, &["create", "-v", bind, "busybox"]).ok();
            daemon.inspect(&id, "{{(index .Mounts 0).Propagation}}")
        };
        assert_eq!(shown(&format!("{root}:/m")), "rslave");
        assert_eq!(shown("/:/m:ro"), "rslave");
        assert_eq!(shown(&format!("{root}/x:/m:rshared")), "rshared");
        assert_eq!(shown("/usr:/m"), "rprivate");
        assert_eq!(inside(daemon, client, &["-v", &format!("{root}:/m:ro")], "test -d /m && echo there"), "there");
        refused(daemon, client, &["-v", &format!("{root}:/m:rprivate")], "within the daemon root");
        let mount = "type=bind,source=/,target=/m,bind-propagation=shared";
        refused(daemon, client, &["--mount", mount], "propagation: \"shared\"");
    }
}

/// Mounts an empty file system.
fn mount_at(place: &Path) {
    fs::create_dir_all(place).unwrap();
    mount("tmpfs", place, "tmpfs", MountFlags::empty(), None).unwrap();
}

/// A daemon, and a directory on a mount with this propagation; mounts of the test are its own.
fn with_a_mount(propagation: MountPropagationFlags) -> (Daemon, PathBuf) {
    unshare(flags::NEWNS).unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let daemon = Daemon::start();
    let place = daemon.root.path().join("passes");
    mount_at(&place);
    mount_change(&place, propagation).unwrap();
    (daemon, place)
}

#[test]
fn mounts_are_passed_on_as_told() {
    let (daemon, place) = with_a_mount(MountPropagationFlags::SHARED);
    let may_mount = [
        "--cap-add",
        "SYS_ADMIN",
        "--security-opt",
        "seccomp=unconfined",
        "--security-opt",
        "apparmor=unconfined",
    ];
    // Later mounts of the host are seen inside, and those from inside on the host.
    let cases = [
        ("private", false, false),
        ("rprivate", false, false),
        ("slave", true, false),
        ("rslave", true, false),
        ("shared", true, true),
        ("rshared", true, true),
    ];
    for (propagation, inwards, outwards) in cases {
        let bind = format!("{}:/m:{propagation}", place.display());
        let mut arguments = may_mount.to_vec();
        arguments.extend(["--name", "one", "-v", &bind, "busybox", "sleep", "1000"]);
        daemon.background(&arguments);
        let at = place.join(propagation);
        mount_at(&at);
        let seen = daemon.berth(&[
            "exec",
            "one",
            "grep",
            "-c",
            &format!(" /m/{propagation} "),
            "/proc/self/mountinfo",
        ]);
        assert_eq!(seen.stdout.trim() == "1", inwards, "{propagation}");
        let own = format!("mkdir /m/own-{propagation} && mount -t tmpfs own /m/own-{propagation}");
        daemon.berth(&["exec", "--privileged", "one", "sh", "-c", &own]).ok();
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let theirs = place.join(format!("own-{propagation}"));
        assert_eq!(table.contains(&format!(" {} ", theirs.display())), outwards, "{propagation}");
        daemon.berth(&["rm", "-f", "one"]).ok();
        if outwards {
            unmount(&theirs, UnmountFlags::DETACH).unwrap();
        }
        unmount(&at, UnmountFlags::DETACH).unwrap();
    }
    unmount(&place, UnmountFlags::DETACH).unwrap();
}

#[test]
fn what_passes_nothing_on_cannot_be_shared() {
    let (daemon, place) = with_a_mount(MountPropagationFlags::PRIVATE);
    let told = |kind: &str| format!("is mounted on {} but it is not a {kind} mount", place.display());
    for (propagation, words) in [
        ("rshared", told("shared")),
        ("shared", told("shared")),
        ("rslave", told("shared or slave")),
        ("slave", told("shared or slave")),
    ] {
        let bind = format!("{}/below:/m:{propagation}", place.display());
        refused(&daemon, Client::Berth, &["-v", &bind], &words);
        let mount = format!("type=bind,source={},target=/m,bind-propagation={propagation}", place.display());
        refused(&daemon, Client::Docker, &["--mount", &mount], &words);
    }
    inside(&daemon, Client::Berth, &["-v", &format!("{}:/m:rprivate", place.display())], "true");
    unmount(&place, UnmountFlags::DETACH).unwrap();
}

#[test]
fn a_read_only_bind_of_an_older_client_is_read_only_at_its_top_alone() {
    let daemon = Daemon::start();
    let below = |version: &str, host: Value| {
        let body = json!({ "Image": "busybox", "Cmd": ["sh", "-c", BELOW], "HostConfig": host });
        let (code, answer) = ask(&daemon, &format!("/v{version}/containers/create"), Some(&body));
        assert_eq!(code, 201, "{version}: {answer}");
        let shown = daemon.berth(&["start", "-a", answer["Id"].as_str().unwrap()]).ok();
        shown.split(',').next().unwrap_or_default().to_owned()
    };
    let short = json!({ "Binds": ["/dev:/host:ro"] });
    let mount = |options: Value| json!({ "Mounts": [{ "Type": "bind", "Source": "/dev", "Target": "/host", "ReadOnly": true, "BindOptions": options }] });
    for (version, host, expected) in [
        ("1.43", short.clone(), "rw"),
        ("1.43", mount(json!({})), "rw"),
        ("1.44", short, "ro"),
        ("1.44", mount(json!({})), "ro"),
        ("1.44", mount(json!({ "ReadOnlyNonRecursive": true })), "rw"),
        ("1.44", mount(json!({ "ReadOnlyForceRecursive": true })), "ro"),
    ] {
        assert_eq!(below(version, host.clone()), expected, "{version} {host}");
    }
    let both = mount(json!({ "ReadOnlyNonRecursive": true, "ReadOnlyForceRecursive": true }));
    let body = json!({ "Image": "busybox", "HostConfig": both });
    assert_eq!(ask(&daemon, "/v1.55/containers/create", Some(&body)).0, 400);
}
