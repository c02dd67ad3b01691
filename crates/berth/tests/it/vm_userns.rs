//! `userns-remap` on Debian's kernel 6.1: idmapped layers need a place there, and a list instead of one by one; its tmpfs
//! has no idmapped mounts.

use std::process::Command;

use crate::vm::{Extras, boot};

#[test]
fn containers_have_users_of_their_own_on_an_older_kernel() {
    let work = tempfile::tempdir().unwrap();
    let image = work.path().join("disk.img");
    let made = Command::new("sh").arg("-c").arg("truncate -s 64M $0 && mkfs.ext4 -q $0").arg(&image).status();
    assert!(made.unwrap().success());
    let script = r#"
        u() { berth -H unix:///run/u.sock "$@"; }
        start() {
            berth daemon --data-root /u/data --exec-root /run/u -H unix:///run/u.sock --pidfile /run/u.pid --bip 172.30.0.1/24 --userns-remap default > /u.log 2>&1 &
            daemon=$!
            n=0; until u version > /dev/null 2>&1 || [ $n -gt 200 ]; do n=$((n + 1)); sleep 0.1; done
        }
        mkdir /u
        # Its disk has no idmapped mounts.
        berth daemon --data-root /other --exec-root /run/other -H unix:///run/other.sock --pidfile /run/other.pid --bip 172.31.0.1/24 --userns-remap default > /other.log 2>&1 &
        other=$!
        o() { berth -H unix:///run/other.sock "$@"; }
        n=0; until o version > /dev/null 2>&1 || [ $n -gt 200 ]; do n=$((n + 1)); sleep 0.1; done
        o load -q -i /busybox.tar
        step copied o run --rm -v kept:/v busybox sh -c 'id -u; touch /f /v/f; stat -c %u:%g /f /v/f /bin/busybox; cat /proc/self/uid_map'
        kill $other; wait $other
        step told cat /other.log
        step mount mount -t ext4 -o loop /disk.img /u
        start
        step load u load -q -i /busybox.tar
        step run u run --rm -v kept:/v busybox sh -c 'id -u; touch /f /v/f; stat -c %u:%g /f /v/f /bin/busybox /dev/null; awk "\$5 == \"/\"" /proc/self/mountinfo | wc -l'
        step cgroup u run --rm busybox sh -c 'grep -c cgroup2 /proc/mounts; cat /proc/self/cgroup'
        step background u run -d --name one busybox sleep 1000
        step exec u exec one sh -c 'id -u; touch /g; cat /proc/self/uid_map'
        step changes u diff one
        step image u run --rm --mount type=image,src=busybox,dst=/i busybox stat -c %u /i/bin/busybox
        u volume create -o type=tmpfs -o device=tmpfs mem
        step memory u run --rm -v mem:/m busybox sh -c 'stat -c %u:%g /m; touch /m/f && stat -c %u /m/f'
        step said grep -c 'no idmapped mounts: its files keep their owners' /u.log
        step again u restart -t 0 one
        step there u exec one stat -c %u /g
        u rm -f one
        kill $daemon; wait $daemon
    "#;
    let extras = Extras { files: vec![(image, "/disk.img".into())], ..Extras::default() };
    let steps = boot(script, &extras);
    let copied = steps.step("copied");
    assert!(
        copied.starts_with("0\n0:0\n0:0\n0:0\n") && copied.contains("100000") && copied.ends_with("code 0"),
        "{copied}"
    );
    let told = steps.step("told");
    assert!(told.contains("userns-remap without idmapped mounts"), "{told}");
    assert_eq!(steps.step("mount"), "code 0");
    assert_eq!(steps.step("run"), "0\n0:0\n0:0\n0:0\n0:0\n1\ncode 0");
    assert_eq!(steps.step("cgroup"), "1\n0::/\ncode 0");
    let exec = steps.step("exec");
    assert!(exec.starts_with("0\n") && exec.contains("100000") && exec.ends_with("code 0"), "{exec}");
    assert_eq!(steps.step("changes"), "A /g\ncode 0");
    assert_eq!(steps.step("image"), "0\ncode 0");
    assert_eq!(steps.step("there"), "0\ncode 0");
    assert_eq!(steps.step("memory"), "65534:65534\n0\ncode 0");
    assert_ne!(steps.step("said"), "0\ncode 1");
}
