//! Volumes on another host: a kernel that serves NFS to itself, and then serves it no more.

use std::fs;
use std::path::{Path, PathBuf};

use crate::vm::{Extras, boot, kernel};

/// The modules of a file system, with their places in a machine.
fn modules(kernel: &Path, names: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for version in fs::read_dir(kernel.join("lib/modules")).unwrap().flatten() {
        for name in names {
            let folder = version.path().join("kernel/fs").join(name);
            let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            found.extend(files.filter(|path| path.is_file()).map(|path| {
                let place = path.strip_prefix(kernel).unwrap().display().to_string();
                (path, format!("/{place}"))
            }));
        }
    }
    found
}

#[test]
fn volumes_of_another_host() {
    // What answers the server's questions of who may have what is told beforehand, so that no program is needed.
    let script = r#"
        for module in nfsd nfs nfsv4; do modprobe $module || echo "no module $module"; done
        ip link set lo up
        echo '127.0.0.1 files' > /etc/hosts
        mount -t nfsd nfsd /proc/fs/nfsd
        mkdir -p /export /var/lib/nfs/v4recovery
        mount -t tmpfs export /export
        mkdir /export/below
        echo 'of the server' > /export/below/f
        echo '-2 -3 +4' > /proc/fs/nfsd/versions
        serve() {
            printf 'nfsd 127.0.0.1 2147483647 clients\n' > /proc/net/rpc/auth.unix.ip/channel
            printf 'clients /export 2147483647 9218 65534 65534 0\n' > /proc/net/rpc/nfsd.export/channel
            printf 'clients 1 \\x00000000 2147483647 /export\n' > /proc/net/rpc/nfsd.fh/channel
            echo 2 > /proc/fs/nfsd/threads
            echo Y > /proc/fs/nfsd/v4_end_grace
        }
        serve
        step served cat /proc/fs/nfsd/versions /proc/fs/nfsd/threads

        q() { berth -H unix:///run/q.sock "$@"; }
        start() {
            berth daemon --data-root /q --exec-root /run/q -H unix:///run/q.sock --pidfile /run/q.pid --bip 172.30.0.1/24 >> /q.log 2>&1 &
            daemon=$!
            n=0; until q version > /dev/null 2>&1 || [ $n -gt 600 ]; do n=$((n + 1)); sleep 0.1; done
        }
        start
        q load -q -i /busybox.tar
        for name in shared idle; do
            q volume create -o type=nfs -o device=:/below -o o=addr=files,nfsvers=4.0,soft,timeo=20,retrans=1 $name
        done
        q volume create -o type=nfs -o device=:/below -o o=addr=nobody.invalid,nfsvers=4.0 lost
        step one q run -d --name one -v shared:/v busybox sh -c 'echo of one > /v/one; sleep 1000'
        n=0; until [ -s /export/below/one ] || [ $n -gt 300 ]; do n=$((n + 1)); sleep 0.1; done
        step two q run --rm -v shared:/v busybox sh -c 'cat /v/f /v/one; echo of two > /v/two'
        step back cat /export/below/two
        step lost q run --rm -v lost:/v busybox true
        step copied sh -c 'berth -H unix:///run/q.sock cp one:/v/f - | tar -xO'
        step type sh -c 'grep -c " /q/volumes/shared/_data nfs4 " /proc/mounts; grep -c " /q/volumes/idle/_data nfs4 " /proc/mounts'
        # Somebody has it mounted when the daemon dies, and nobody else needs it.
        mount -t nfs4 -o addr=127.0.0.1,clientaddr=127.0.0.1,soft,timeo=20,retrans=1 127.0.0.1:/below /q/volumes/idle/_data
        kill -9 $daemon; wait $daemon
        start
        step still q exec one cat /v/two
        step three q run --rm -v shared:/v:ro busybox sh -c 'cat /v/two; touch /v/no'
        step swept grep -c ' /q/volumes/idle/_data ' /proc/mounts
        # The server goes; a daemon starts all the same.
        mount -t nfs4 -o addr=127.0.0.1,clientaddr=127.0.0.1,hard,actimeo=0 127.0.0.1:/below /q/volumes/idle/_data
        kill -9 $daemon; wait $daemon
        echo 0 > /proc/fs/nfsd/threads
        start
        step alive q run --rm busybox echo alive
        step running q inspect -f '{{.State.Running}}' one
        step gone grep -c ' /q/volumes/idle/_data ' /proc/mounts
        step removed timeout 60 berth -H unix:///run/q.sock rm -f one
        # It comes back, with all that was written.
        serve
        step again q run --rm -v idle:/v busybox sh -c 'cat /v/one /v/two'
        n=0; while grep -q ' /q/volumes/[a-z]*/_data ' /proc/mounts && [ $n -lt 300 ]; do n=$((n + 1)); sleep 0.1; done
        step unmounted grep -c ' /q/volumes/[a-z]*/_data ' /proc/mounts
        step free q volume rm shared idle lost
        step log cat /q.log
    "#;
    let files = modules(&kernel(), &["nfs", "nfsd", "lockd", "nfs_common", "netfs", "fscache"]);
    let steps = boot(script, &Extras { files, ..Extras::default() });
    assert_eq!(steps.step("two"), "of the server\nof one\ncode 0");
    assert_eq!(steps.step("back"), "of two\ncode 0");
    let lost = steps.step("lost");
    assert!(
        lost.contains("error resolving passed in network volume address") && lost.ends_with("code 125"),
        "{lost}"
    );
    assert_eq!(steps.step("copied"), "of the server\ncode 0");
    assert_eq!(steps.step("type"), "1\n0\ncode 1");
    assert_eq!(steps.step("still"), "of two\ncode 0");
    let three = steps.step("three");
    assert!(three.starts_with("of two\n") && three.contains("Read-only file system"), "{three}");
    assert_eq!(steps.step("swept"), "0\ncode 1");
    assert_eq!(steps.step("alive"), "alive\ncode 0");
    assert_eq!(steps.step("running"), "true\ncode 0");
    assert_eq!(steps.step("gone"), "0\ncode 1");
    assert!(steps.step("removed").ends_with("code 0"), "{}", steps.step("removed"));
    assert_eq!(steps.step("again"), "of one\nof two\ncode 0");
    assert_eq!(steps.step("unmounted"), "0\ncode 1");
    assert_eq!(steps.step("free"), "shared\nidle\nlost\ncode 0");
}
