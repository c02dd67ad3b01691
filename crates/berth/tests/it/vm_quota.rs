//! `--storage-opt size`: limits of what containers write, on file systems with project quotas.
//!
//! In a virtual machine with Debian's kernel: the kernel here may have no quotas.

use std::process::Command;

use crate::vm::{Extras, boot, packages, program};

#[test]
fn writable_layers_have_limits() {
    let work = tempfile::tempdir().unwrap();
    let image = work.path().join("quota.img");
    let made = Command::new("sh")
        .arg("-c")
        .arg("truncate -s 96M $0 && mkfs.ext4 -q -O quota,project -E quotatype=prjquota $0")
        .arg(&image)
        .status();
    assert!(made.unwrap().success());
    let script = r#"
        q() { berth -H unix:///run/q.sock "$@"; }
        start() {
            berth daemon --data-root /q/data --exec-root /run/q -H unix:///run/q.sock --pidfile /run/q.pid --bip 172.30.0.1/24 "$@" > /q.log 2>&1 &
            daemon=$!
            n=0; until q version > /dev/null 2>&1 || [ $n -gt 200 ]; do n=$((n + 1)); sleep 0.1; done
        }
        mkdir /q
        step mount mount -t ext4 -o loop,prjquota /quota.img /q
        start
        q load -q -i /busybox.tar
        write='dd if=/dev/zero of=/big bs=1M count=12; echo $?; rm /big; dd if=/dev/zero of=/small bs=1M count=6 2> /dev/null; echo $?'
        step limited q run --name one --storage-opt size=8M busybox sh -c "$write"
        step free q run --rm busybox sh -c "$write"
        step shown q inspect -f '{{.HostConfig.StorageOpt}}' one
        step df q run --rm --storage-opt size=8M busybox sh -c "df -k / | tail -1 | awk '{print \$2}'"
        step volume q volume create -o size=8M counted
        step large q run --rm -v counted:/v -w /v busybox sh -c 'dd if=/dev/zero of=/v/big bs=1M count=12; echo $?; rm /v/big; dd if=/dev/zero of=/v/small bs=1M count=6 2> /dev/null; echo $?'
        step room q run --rm -v counted:/v busybox sh -c "df -k /v | tail -1 | awk '{print \$2}'"
        step enormous q volume create -o size=big other
        step renamed q volume rename counted named
        step full q run --rm -v named:/v busybox dd if=/dev/zero of=/v/more bs=1M count=4
        step removed q volume rm named
        step wrong q run --rm --storage-opt size=big busybox true
        step second q create --name two --storage-opt size=4M busybox sh -c 'dd if=/dev/zero of=/x bs=1M count=3'
        kill -9 $daemon; wait $daemon
        start
        step again q start -a one
        step nowhere berth volume create -o size=8M counted
        step third q run --name three --storage-opt size=4M busybox sh -c 'dd if=/dev/zero of=/x bs=1M count=3; dd if=/dev/zero of=/y bs=1M count=3'
        step two q start -a two
        q rm -f one two three > /dev/null
        for i in 1 2 3 4 5; do q run --rm --storage-opt size=4M busybox sh -c 'dd if=/dev/zero of=/x bs=1M count=3' > /dev/null 2>&1 || echo refused $i; done
        kill $daemon; wait $daemon
        start --storage-opt overlay2.size=8M
        step default q run --rm busybox sh -c "$write"
        step larger q run --rm --storage-opt size=20M busybox sh -c "$write"
        step unsupported berth run --rm --storage-opt size=8M busybox true
        step refused timeout 20 berth daemon --data-root /other --exec-root /run/other -H unix:///run/other.sock --pidfile /run/other.pid --storage-opt overlay2.size=8M
        kill $daemon; wait $daemon
    "#;
    let extras = Extras { files: vec![(image, "/quota.img".into())], ..Extras::default() };
    let steps = boot(script, &extras);
    assert_eq!(steps.step("mount"), "code 0");
    let limited = steps.step("limited");
    assert!(limited.contains("quota exceeded") && limited.ends_with("\n1\n0\ncode 0"), "{limited}");
    assert!(steps.step("free").ends_with("\n0\n0\ncode 0"), "{}", steps.step("free"));
    assert_eq!(steps.step("shown"), "map[size:8M]\ncode 0");
    assert_eq!(steps.step("df"), "8192\ncode 0");
    // Volumes have limits of their own.
    let large = steps.step("large");
    assert!(large.contains("quota exceeded") && large.ends_with("\n1\n0\ncode 0"), "{large}");
    assert_eq!((steps.step("volume"), steps.step("room")), ("counted\ncode 0", "8192\ncode 0"));
    assert!(steps.step("enormous").contains("invalid size: 'big'"), "{}", steps.step("enormous"));
    assert!(steps.step("full").contains("quota exceeded"), "{}", steps.step("full"));
    assert!(steps.step("removed").ends_with("code 0"), "{}", steps.step("removed"));
    let nowhere = steps.step("nowhere");
    assert!(nowhere.contains("quota size requested but no quota support"), "{nowhere}");
    assert!(steps.step("wrong").contains("invalid size: 'big'"), "{}", steps.step("wrong"));
    // The limit holds for the container, not for the run, whoever is the daemon.
    let again = steps.step("again");
    assert!(again.contains("quota exceeded") && again.ends_with("code 0"), "{again}");
    // Two containers of which the killed daemon knew one have limits of their own.
    let third = steps.step("third");
    assert!(third.contains("quota exceeded") && third.ends_with("code 1"), "{third}");
    assert!(steps.step("two").ends_with("code 0"), "{}", steps.step("two"));
    assert!(!steps.whole().contains("\nrefused "), "a number was taken while files still belonged to it");
    assert!(steps.step("default").contains("quota exceeded"), "{}", steps.step("default"));
    assert!(steps.step("larger").ends_with("\n0\n0\ncode 0"), "{}", steps.step("larger"));
    let unsupported = steps.step("unsupported");
    let text = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option";
    assert!(unsupported.contains(text), "{unsupported}");
    assert!(steps.step("refused").contains("Storage option overlay2.size not supported"));
}

#[test]
fn xfs_has_limits_too() {
    let folder = packages(&["xfsprogs", "libinih1", "liburcu8"]);
    let script = r#"
        step make sh -c 'truncate -s 400M /xfs.img && LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu:/lib/x86_64-linux-gnu /sbin/mkfs.xfs -q /xfs.img'
        modprobe xfs
        mkdir /q
        step mount mount -t xfs -o loop,pquota /xfs.img /q
        berth daemon --data-root /q/data --exec-root /run/q -H unix:///run/q.sock --pidfile /run/q.pid --bip 172.30.0.1/24 > /q.log 2>&1 &
        q() { berth -H unix:///run/q.sock "$@"; }
        n=0; until q version > /dev/null 2>&1 || [ $n -gt 200 ]; do n=$((n + 1)); sleep 0.1; done
        q load -q -i /busybox.tar
        write='dd if=/dev/zero of=/big bs=1M count=12; echo $?; rm /big; dd if=/dev/zero of=/small bs=1M count=6 2> /dev/null; echo $?'
        step limited q run --rm --storage-opt size=8M busybox sh -c "$write"
        step free q run --rm busybox sh -c "$write"
        step volume q volume create -o size=8M counted
        step large q run --rm -v counted:/v busybox sh -c 'dd if=/dev/zero of=/v/big bs=1M count=12; echo $?; rm /v/big; dd if=/dev/zero of=/v/small bs=1M count=6 2> /dev/null; echo $?'
        step room q run --rm -v counted:/v busybox sh -c "df -k /v | tail -1 | awk '{print \$2}'"
        step snapshot q volume snapshot counted copy
        step copied q run --rm -v copy:/v busybox sh -c 'ls /v; dd if=/dev/zero of=/v/more bs=1M count=4'
        step first q run --rm -v counted:/v busybox sh -c 'ls /v; dd if=/dev/zero of=/v/little bs=1M count=1 2> /dev/null; echo $?'
        for i in 1 2 3; do q run --rm --storage-opt size=4M busybox sh -c 'dd if=/dev/zero of=/x bs=1M count=3' > /dev/null 2>&1 || echo refused $i; done
    "#;
    let extras = Extras { files: program(&folder, "sbin/mkfs.xfs"), ..Extras::default() };
    let steps = boot(script, &extras);
    assert_eq!((steps.step("make"), steps.step("mount")), ("code 0", "code 0"));
    let limited = steps.step("limited");
    assert!(limited.contains("o space left") && limited.ends_with("\n1\n0\ncode 0"), "{limited}");
    assert!(steps.step("free").ends_with("\n0\n0\ncode 0"), "{}", steps.step("free"));
    assert!(!steps.whole().contains("\nrefused "), "each container has its own limit");
    // So has a volume, and one that shares its contents a limit of its own.
    assert_eq!(steps.step("volume"), "counted\ncode 0");
    let large = steps.step("large");
    assert!(large.contains("o space left") && large.ends_with("\n1\n0\ncode 0"), "{large}");
    assert_eq!(steps.step("room"), "8192\ncode 0");
    assert_eq!(steps.step("snapshot"), "copy\ncode 0");
    let copied = steps.step("copied");
    assert!(copied.starts_with("small\n") && copied.contains("o space left"), "{copied}");
    assert_eq!(steps.step("first"), "small\n0\ncode 0");
}
