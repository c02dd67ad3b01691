//! The Debian package, in a virtual machine with systemd: installed before the first boot, upgraded, stopped and started,
//! removed, installed again and purged, while a container goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::output::run;
use crate::vm::Steps;
use crate::{packaging, vm_systemd};

const SCRIPT: &str = r#"
exec > /dev/ttyS0 2>&1
export DEBIAN_FRONTEND=noninteractive
step() { name=$1; shift; echo "<<<$name"; "$@" 2>&1; echo "code $?"; echo ">>>"; }
state() { systemctl is-enabled berth.socket berth.service; systemctl is-active berth.socket berth.service; }
# What stays the same for the container, and what does not for the daemon.
processes() { echo "$(berth inspect -f '{{.State.Pid}} {{.RestartCount}} {{.State.Status}}' cc) $(systemctl show -P MainPID berth)"; }
step booted state
step socket stat -c '%U:%G %a' /run/berth.sock
step status systemctl status berth.service --no-pager --full --lines=0
berth load -q -i /busybox.tar
berth run -d --name cc --restart unless-stopped busybox sleep 100000
step before processes
step upgrade dpkg -i /new.deb
step upgraded processes
step version dpkg-query -W -f '${Version} ${Status}\n' berth
step again dpkg -i /new.deb
step repeated processes
step reload systemctl reload berth
step reloaded processes
step restart systemctl restart berth
step restarted processes
step stop systemctl stop berth
step stopped state
step woken berth ps --format '{{.Names}} {{.State}}'
step answering state
step disable systemctl disable --now berth.socket berth.service
step disabled state
step enable systemctl enable --now berth.socket berth.service
step enabled state
step kept processes
pid=$(berth inspect -f '{{.State.Pid}}' cc)
step remove dpkg -r berth
step removed sh -c 'systemctl is-active berth.service berth.socket; systemctl --failed --no-legend | grep berth; ls /usr/bin/berth /usr/lib/systemd/system/berth.* 2> /dev/null; true'
step alive kill -0 $pid
step back dpkg -i /new.deb
step adopted processes
step working state
berth rm -f cc
step purge dpkg -P berth
step left sh -c 'find /etc /run /var/lib/systemd -name "berth*" -not -path "/run/berth*"; ls -d /usr/bin/berth /var/lib/berth 2> /dev/null'
echo '<<<end'
systemctl poweroff --no-block
"#;

/// The package again, as if it were older.
fn older(package: &Path, work: &Path) -> PathBuf {
    let tree = work.join("older");
    run(Command::new("dpkg-deb").arg("-R").arg(package).arg(&tree)).ok();
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap();
    let version = concat!("Version: ", env!("CARGO_PKG_VERSION"), "\n");
    assert!(text.contains(version), "{text}");
    fs::write(&control, text.replace(version, "Version: 0.0.1\n")).unwrap();
    let older = work.join("older.deb");
    run(Command::new("dpkg-deb").args(["--root-owner-group", "-Zzstd", "-z1", "-b"]).arg(&tree).arg(&older))
        .ok();
    fs::remove_dir_all(tree).unwrap();
    older
}

#[test]
fn containers_go_on_while_the_package_comes_and_goes() {
    let work = tempfile::tempdir().unwrap();
    let package = packaging::build(work.path());
    let root = work.path().join("root");
    vm_systemd::unpack(&root, SCRIPT);
    fs::copy(older(&package, work.path()), root.join("old.deb")).unwrap();
    fs::rename(&package, root.join("new.deb")).unwrap();
    // Where no systemd runs, as in the making of an image.
    let installed = run(Command::new("chroot").arg(&root).args(["dpkg", "-i", "/old.deb"]));
    installed.ok();
    fs::remove_file(root.join("old.deb")).unwrap();
    let text = vm_systemd::boot(&root, work.path());
    assert!(text.contains("<<<end"), "the machine did not come to its end:\n{text}");
    let steps = Steps::of(text);

    assert_eq!(steps.step("booted"), "enabled\nenabled\nactive\nactive\ncode 0");
    assert_eq!(steps.step("socket"), "root:berth 660\ncode 0");
    let status = steps.step("status");
    for part in ["; enabled;", "Active: active (running)", "/usr/bin/berth daemon -H fd://", "code 0"] {
        assert!(status.contains(part), "{part}: {status}");
    }
    the_container_goes_on(&steps);
    for step in
        ["upgrade", "again", "reload", "restart", "stop", "disable", "enable", "remove", "back", "purge"]
    {
        assert!(steps.step(step).ends_with("code 0"), "{step}: {}", steps.step(step));
    }
    assert_eq!(steps.step("version"), concat!(env!("CARGO_PKG_VERSION"), " install ok installed\ncode 0"));
    assert_eq!(steps.step("stopped"), "enabled\nenabled\nactive\ninactive\ncode 0");
    assert_eq!(steps.step("woken"), "cc running\ncode 0", "the socket starts the daemon");
    assert_eq!(steps.step("answering"), "enabled\nenabled\nactive\nactive\ncode 0");
    assert_eq!(steps.step("disabled"), "disabled\ndisabled\ninactive\ninactive\ncode 3");
    assert_eq!(steps.step("enabled"), "enabled\nenabled\nactive\nactive\ncode 0");
    assert_eq!(steps.step("removed"), "inactive\ninactive\ncode 0");
    assert_eq!(steps.step("alive"), "code 0");
    assert_eq!(steps.step("working"), "enabled\nenabled\nactive\nactive\ncode 0");
    assert_eq!(steps.step("left"), "/var/lib/berth\ncode 2", "nothing but what is the user's");
}

/// One run of the container, whatever happens to the daemon.
fn the_container_goes_on(steps: &Steps) {
    let processes = |step: &str| {
        let line = steps.step(step).lines().next().unwrap();
        line.rsplit_once(' ').map(|(container, daemon)| (container.to_owned(), daemon.to_owned())).unwrap()
    };
    let (container, mut daemon) = processes("before");
    assert!(container.ends_with(" 0 running"), "{container}");
    for (step, is_new) in [
        ("upgraded", true),
        ("repeated", true),
        ("reloaded", false),
        ("restarted", true),
        ("kept", true),
        ("adopted", true),
    ] {
        let (same, now) = processes(step);
        assert_eq!(same, container, "{step}");
        assert_eq!(now != daemon, is_new, "{step}: {now} after {daemon}");
        daemon = now;
    }
}
