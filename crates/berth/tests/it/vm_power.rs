//! A machine that loses its power: what was in its memory only is gone, and the disk is as it was at that moment.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::output::run;
use crate::vm::{Extras, boot};

/// Starts a daemon on the disk.
const START: &str = r#"
    mkdir -p /q
    mount -t ext4 /dev/vda /q || echo 'no disk'
    q() { berth -H unix:///run/q.sock "$@"; }
    berth daemon --data-root /q/data --exec-root /run/q -H unix:///run/q.sock --pidfile /run/q.pid --bip 172.30.0.1/24 > /q.log 2>&1 &
    daemon=$!
    n=0; until q version > /dev/null 2>&1 || [ $n -gt 200 ]; do n=$((n + 1)); sleep 0.1; done
"#;

/// An archive of an image with a file of its own beside busybox.
fn archive(folder: &Path, name: &str) -> std::path::PathBuf {
    let root = folder.join(name);
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in ["sh", "sleep", "wc"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("content"), name.repeat(100_000)).unwrap();
    let path = folder.join(format!("{name}.tar"));
    run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&path).arg(".")).ok();
    path
}

#[test]
fn images_are_whole_or_gone_after_a_power_cut() {
    let work = tempfile::tempdir().unwrap();
    let disk = work.path().join("disk.img");
    let made = "truncate -s 256M $0 && mkfs.ext4 -q $0";
    run(Command::new("sh").arg("-c").arg(made).arg(&disk)).ok();
    let names = ["a", "b", "c", "d"];
    let files = names.map(|name| (archive(work.path(), name), format!("/{name}.tar"))).to_vec();
    // Imported one after the other, the housekeeper rests between syncs; each time the rows are forced to the disk
    // before the files, which is the order that must not hurt.
    let first = format!(
        "{START}
         for name in a b c d; do
             q import /$name.tar $name > /dev/null
             q run -d --name $name $name sh -c 'while :; do sleep 1000; done' > /dev/null
             fsync /q/data/berth.db-wal
         done
         step listed q images --format '{{{{.Repository}}}}'
         echo '<<<end'
         echo b > /proc/sysrq-trigger
         sleep 1000"
    );
    let extras = Extras { files, disk: Some(&disk), ..Extras::default() };
    let before = boot(&first, &extras);
    let listed = before.step("listed");
    assert!(names.iter().all(|name| listed.lines().any(|line| line == *name)), "{}", before.whole());
    let second = format!(
        "{START}
         for name in $(q images --format '{{{{.Repository}}}}'); do
             echo \"kept $name $(q run --rm $name sh -c 'wc -c < /content')\"
         done
         for name in a b c d; do
             q import /$name.tar $name > /dev/null
             echo \"again $name $(q run --rm $name sh -c 'wc -c < /content')\"
             q rm -f $name > /dev/null 2>&1
         done
         echo \"left $(q ps -aq | wc -l)\"
         step log cat /q.log"
    );
    let after = boot(&second, &extras);
    let text = after.whole();
    for line in text.lines().filter(|line| line.starts_with("kept ") || line.starts_with("again ")) {
        assert!(line.ends_with(" 100000"), "{line}\n{text}");
    }
    for name in names {
        assert!(text.contains(&format!("again {name} 100000")), "{text}");
    }
    assert!(text.contains("left 0"), "{text}");
}

#[test]
fn what_was_built_outlives_a_power_cut() {
    let work = tempfile::tempdir().unwrap();
    let disk = work.path().join("disk.img");
    let made = "truncate -s 256M $0 && mkfs.ext4 -q $0";
    run(Command::new("sh").arg("-c").arg(made).arg(&disk)).ok();
    let dockerfile = work.path().join("Dockerfile");
    let steps = "FROM base AS other\nRUN sh -c 'head -c 300000 /content > /half'\nFROM base\n\
        RUN sh -c 'cat /content /content > /twice'\nCOPY --from=other /half /half\nCOPY content /own/\n";
    fs::write(&dockerfile, steps).unwrap();
    let content = work.path().join("content");
    fs::write(&content, "x".repeat(200_000)).unwrap();
    let root = work.path().join("base");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "head", "wc"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("content"), "base".repeat(100_000)).unwrap();
    let base = work.path().join("base.tar");
    run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&base).arg(".")).ok();
    let place = |path: &Path, name: &str| (path.to_owned(), name.to_owned());
    let files =
        vec![place(&base, "/base.tar"), place(&dockerfile, "/c/Dockerfile"), place(&content, "/c/content")];
    let first = format!(
        "{START}
         q import /base.tar base > /dev/null
         echo '<<<end'
         q build -t built:1 -t built:2 /c && echo b > /proc/sysrq-trigger
         step log cat /q.log"
    );
    let extras = Extras { files, disk: Some(&disk), ..Extras::default() };
    let before = boot(&first, &extras);
    let second = format!(
        "{START}
         step names q images --format '{{{{.Repository}}}}:{{{{.Tag}}}}'
         step content q run --rm built:2 sh -c 'wc -c < /twice; wc -c < /half; wc -c < /own/content'
         step log cat /q.log"
    );
    let after = boot(&second, &extras);
    let names = after.step("names");
    assert!(
        ["built:1", "built:2"].iter().all(|name| names.lines().any(|line| line == *name)),
        "{}{}",
        before.whole(),
        after.whole()
    );
    assert_eq!(after.step("content"), "800000\n300000\n200000\ncode 0", "{}", after.whole());
}
