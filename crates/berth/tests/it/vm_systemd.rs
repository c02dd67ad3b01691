//! The units under systemd, in a virtual machine: containers survive the daemon's restart and end in order with the host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::daemon::binary;
use crate::files;
use crate::vm::{MODULES, copy_modules, kernel, pack, run};

/// Leaves the initial RAM file system, from which nothing can pivot, for a copy of it.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /new
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in $MODULES; do /bin/busybox modprobe $module; done
/bin/busybox mount -t tmpfs -o size=1100m tmpfs /new
for top in /*; do
    case $top in /proc|/sys|/dev|/new|/init) /bin/busybox mkdir -p /new$top ;; *) /bin/busybox cp -a $top /new/ ;; esac
done
/bin/busybox umount /proc
/bin/busybox mount --move /dev /new/dev
exec /bin/busybox switch_root /new /lib/systemd/systemd
";

const SERVICE: &str = "[Unit]
After=berth.socket berth.service
Wants=berth.socket
[Service]
Type=oneshot
ExecStart=/bin/sh /test
[Install]
WantedBy=multi-user.target
";

const SCRIPT: &str = r#"
exec > /dev/ttyS0 2>&1
berth load -q -i /busybox.tar
berth run -d --name cc --restart unless-stopped --device /dev/ttyS0 busybox sh -c \
    'trap "echo THE CONTAINER ENDS > /dev/ttyS0; exit 0" TERM; echo ready; while :; do sleep 0.1; done'
until berth logs cc | grep -q ready; do sleep 0.1; done
echo "before $(berth inspect -f '{{.State.Pid}} {{.RestartCount}}' cc) $(systemctl show -P MainPID berth)"
systemctl restart berth
echo "after $(berth inspect -f '{{.State.Pid}} {{.RestartCount}}' cc) $(systemctl show -P MainPID berth)"
echo THE HOST ENDS
systemctl poweroff --no-block
"#;

/// Debian's files and modules for its kernel, with a unit that runs `script` once the system is up.
pub fn unpack(root: &Path, script: &str) {
    fs::create_dir(root).unwrap();
    let unpack = Command::new("tar")
        .args(["--exclude=./usr/share/doc", "--exclude=./usr/share/locale", "--exclude=./var/cache"])
        .args(["--exclude=./usr/share/man", "--exclude=./var/lib/apt", "--exclude=./dev/*", "-xf"])
        .arg(files::systemd_root())
        .arg("-C")
        .arg(root)
        .status();
    assert!(unpack.unwrap().success());
    copy_modules(&kernel().join("lib/modules"), &root.join("lib/modules"));
    fs::copy(files::busybox_archive(), root.join("busybox.tar")).unwrap();
    fs::write(root.join("etc/systemd/system/test.service"), SERVICE).unwrap();
    fs::write(root.join("test"), script).unwrap();
    fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::write(root.join("init"), INIT.replace("$MODULES", MODULES)).unwrap();
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
    want(root, "test.service", "multi-user");
}

fn want(root: &Path, unit: &str, target: &str) {
    let wants = root.join(format!("etc/systemd/system/{target}.target.wants"));
    fs::create_dir_all(&wants).unwrap();
    std::os::unix::fs::symlink(format!("/etc/systemd/system/{unit}"), wants.join(unit)).unwrap();
}

/// Berth and its units, put there by hand.
fn install(root: &Path) {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/systemd");
    for unit in ["berth.service", "berth.socket"] {
        fs::copy(units.join(unit), root.join("etc/systemd/system").join(unit)).unwrap();
    }
    want(root, "berth.socket", "sockets");
    fs::copy(binary(), root.join("usr/bin/berth")).unwrap();
    let groups = fs::read_to_string(root.join("etc/group")).unwrap();
    fs::write(root.join("etc/group"), groups + "berth:x:998:\n").unwrap();
}

/// Boots such files until the machine switches itself off, and returns what it printed.
pub fn boot(root: &Path, work: &Path) -> String {
    let image = work.join("initramfs");
    pack(root, &image);
    run(
        &kernel(),
        &image,
        "systemd.show_status=0 systemd.mask=serial-getty@ttyS0.service systemd.mask=systemd-networkd-wait-online.service",
    )
}

#[test]
fn containers_survive_the_daemon_and_end_in_order_with_the_host() {
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().join("root");
    unpack(&folder, SCRIPT);
    install(&folder);
    let text = boot(&folder, work.path());
    let line = |word: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(word));
        let words: Vec<String> = found.unwrap_or_default().split(' ').map(str::to_owned).collect();
        <[String; 3]>::try_from(words).unwrap_or_else(|_| panic!("no line {word}:\n{text}"))
    };
    let ([pid, restarts, daemon], after) = (line("before "), line("after "));
    assert_eq!((&pid, &restarts), (&after[0], &after[1]), "the same run of the container");
    assert_ne!(daemon, after[2], "another daemon");
    let (before, after) = text.split_once("THE HOST ENDS").unwrap();
    assert!(!before.contains("THE CONTAINER ENDS") && after.contains("THE CONTAINER ENDS"), "{text}");
}
