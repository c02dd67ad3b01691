//! AppArmor: the default profile and those asked for, in a virtual machine with Debian's kernel; the kernel here may have
//! none.

use std::path::{Path, PathBuf};

use crate::vm::{Extras, boot, packages, program};

/// A profile that a user would write: everything but one file.
const MINE: &str = "profile mine flags=(attach_disconnected) {\n  file,\n  capability,\n  network,\n  signal,\n  \
                    ptrace,\n  mount,\n  deny /secret w,\n}\n";

/// What Debian's compiler assumes of the kernel if a profile does not say.
const FEATURES: &str = "usr/share/apparmor-features/features";

/// Debian's compiler of profiles, with what it needs to run.
fn compiler(work: &Path) -> Vec<(PathBuf, String)> {
    let package = packages(&["apparmor"]);
    let mut files = program(&package, "sbin/apparmor_parser");
    files.extend(
        ["etc/apparmor.d/abi/3.0", "etc/apparmor/parser.conf", FEATURES]
            .map(|path| (package.join(path), format!("/{path}"))),
    );
    let mine = work.join("mine");
    std::fs::write(&mine, MINE).unwrap();
    files.push((mine, "/mine".to_owned()));
    files
}

#[test]
fn containers_are_confined_r5_r27() {
    let work = tempfile::tempdir().unwrap();
    let script = r#"
        current='cat /proc/self/attr/current'
        step info sh -c 'berth info | grep -i apparmor'
        step default berth run --rm busybox $current
        step cat berth run -d --name cc busybox sleep 1000
        step exec berth exec cc $current
        step user berth exec -u 1000 cc $current
        step inspect berth inspect -f '{{.AppArmorProfile}}' cc
        step privileged berth run --rm --privileged busybox $current
        step unconfined berth run --rm --security-opt apparmor=unconfined busybox $current
        step absent berth run --rm --security-opt apparmor=absent busybox true
        sysctl='cat /proc/sys/kernel/hostname > /dev/null && echo read; echo changed > /proc/sys/kernel/domainname; cat /proc/sys/kernel/domainname'
        step free berth run --rm --security-opt systempaths=unconfined --security-opt apparmor=unconfined --cap-add SYS_ADMIN busybox sh -c "$sysctl"
        step write berth run --rm --security-opt systempaths=unconfined --cap-add SYS_ADMIN busybox sh -c "$sysctl"
        step mount berth run --rm --cap-add SYS_ADMIN --security-opt seccomp=unconfined busybox mount -t tmpfs none /tmp
        step mountfree berth run --rm --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined busybox mount -t tmpfs none /tmp
        step work berth run --rm busybox sh -c 'mkdir /a && echo x > /a/b && ln /a/b /a/c && mv /a/c /a/d && rm -r /a && mknod /n p && kill -0 1 && nc -w 1 127.0.0.1 1; ls /proc/1/fd > /dev/null && echo fine'
        step stop berth stop -t 5 cc
        step mine /sbin/apparmor_parser -r /mine
        step own berth run --rm --security-opt apparmor=mine busybox sh -c "$current; echo x > /other && echo y > /secret"
        step ownexec sh -c 'berth run -d --name own --security-opt apparmor=mine busybox sleep 100 > /dev/null && berth exec own cat /proc/self/attr/current; berth inspect -f "{{.AppArmorProfile}}" own'
        fake='mount -t tmpfs none /proc; for task in self thread-self; do mkdir -p /proc/$task/attr/apparmor; touch /proc/$task/attr/exec /proc/$task/attr/apparmor/exec; done; touch /proc/ready; sleep 100'
        step swallow berth run -d --name fake --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=mine busybox sh -c "$fake"
        pid=$(berth inspect -f '{{.State.Pid}}' fake)
        n=0; until [ -e /proc/$pid/root/proc/ready ] || [ $n -gt 100 ]; do n=$((n + 1)); sleep 0.1; done
        step swallowed berth exec fake echo unconfined
        step profiles cat /sys/kernel/security/apparmor/profiles
    "#;
    let extras =
        Extras { append: "apparmor=1 security=apparmor", files: compiler(work.path()), ..Extras::default() };
    let steps = boot(script, &extras);
    assert!(steps.step("profiles").contains("docker-default (enforce)"), "{}", steps.step("profiles"));
    assert!(steps.step("info").contains("apparmor"), "{}", steps.step("info"));
    let confined = "docker-default (enforce)\ncode 0";
    for step in ["default", "exec", "user"] {
        assert_eq!(steps.step(step), confined, "{step}");
    }
    assert_eq!(steps.step("inspect"), "docker-default\ncode 0");
    for step in ["privileged", "unconfined"] {
        assert_eq!(steps.step(step), "unconfined\ncode 0", "{step}");
    }
    let absent = steps.step("absent");
    assert!(absent.contains("unable to apply apparmor profile") && !absent.ends_with("code 0"), "{absent}");
    let free = steps.step("free");
    assert!(free.contains("read") && free.contains("changed\n"), "{free}");
    let write = steps.step("write");
    assert!(write.contains("read") && write.contains("Permission denied"), "{write}");
    assert!(steps.step("mount").contains("ermission denied"), "{}", steps.step("mount"));
    assert_eq!(steps.step("mountfree"), "code 0");
    assert!(steps.step("work").ends_with("fine\ncode 0"), "{}", steps.step("work"));
    assert_eq!(steps.step("stop"), "cc\ncode 0");
    let own = steps.step("own");
    assert!(own.starts_with("mine (enforce)") && own.contains("/secret: Permission denied"), "{own}");
    // R5, R27: a procfs that the container has replaced does not take the label in the kernel's place.
    let swallowed = steps.step("swallowed");
    assert!(swallowed.contains("expected a file system with magic 0x9fa0"), "{swallowed}");
    assert!(!swallowed.contains("\nunconfined") && !swallowed.ends_with("code 0"), "{swallowed}");
    assert_eq!(steps.step("ownexec"), "mine (enforce)\nmine\ncode 0");
}
