//! Copies need no program and no library of the container's (R11): what it has under the names of those that a host would use
//! leaves a mark when it is started or loaded.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::daemon::{Client, Daemon};
use crate::output::{eventually, run};
use crate::raw;

/// Puts the program and the library everywhere, and names a user that a host would look up by libraries.
const PLANT: &str =
    "mkdir -p $1 /lib /lib64 /usr/lib /lib/x86_64-linux-gnu /usr/bin /usr/sbin /tmp; cd /planted
    for name in xz unxz unpigz pigz gzip gunzip bzip2 bunzip2 zstd unzstd tar getent; do
        for place in /bin /sbin /usr/bin /usr/sbin; do rm -f $place/$name; cp program $place/$name; done
    done
    for name in libnss_files libnss_compat libnss_systemd libc liblzma libz libgcc_s; do
        for place in /lib /lib64 /usr/lib /lib/x86_64-linux-gnu; do
            for version in '' .1 .2 .5 .6; do cp library $place/$name.so$version; done
        done
    done
    echo 'passwd: files compat systemd' > /etc/nsswitch.conf
    cp library /library; echo /library > /etc/ld.so.preload
    echo own:x:77:88::/:/bin/sh >> /etc/passwd; echo own:x:88: >> /etc/group";

/// Makes the image `planted`, whose programs and libraries leave `mark`, both where their root is the host's and where it is
/// the container's.
fn plant(daemon: &Daemon, mark: &Path) {
    let folder = daemon.root.path().join("planted");
    fs::create_dir(&folder).unwrap();
    let code = format!(
        "#include <fcntl.h>\n__attribute__((constructor)) static void leave(void) {{ creat(\"{}\", 0644); }}\n",
        mark.display()
    );
    fs::write(folder.join("mark.c"), code).unwrap();
    run(Command::new("cc").args(["-shared", "-fPIC", "-o", "library", "mark.c"]).current_dir(&folder)).ok();
    let program = folder.join("program");
    fs::write(&program, format!("#!/bin/sh\n: > {}; exec cat\n", mark.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let bind = format!("{}:/planted:ro", folder.display());
    let above = mark.parent().unwrap().display().to_string();
    daemon.berth(&["run", "--name", "maker", "-v", &bind, "busybox", "sh", "-c", PLANT, "sh", &above]).ok();
    daemon.berth(&["commit", "maker", "planted"]).ok();
    daemon.berth(&["rm", "maker"]).ok();
}

#[test]
fn r11_nothing_of_the_container_is_run_or_loaded() {
    let daemon = Daemon::start();
    let mark = daemon.root.path().join("mark");
    plant(&daemon, &mark);
    let name = mark.display().to_string();
    // The marks are real.
    let tried = daemon
        .berth(&["run", "--rm", "planted", "sh", "-c", &format!("/usr/bin/xz < /dev/null; ls {name}")])
        .ok();
    assert_eq!(tried, name);
    let here = daemon.root.path().join("here");
    fs::create_dir(&here).unwrap();
    fs::write(here.join("file"), "content").unwrap();
    run(Command::new("tar").args(["-cf", "plain", "file"]).current_dir(&here)).ok();
    for program in ["gzip", "xz", "bzip2", "zstd"] {
        run(Command::new(program).args(["-kq", "plain"]).current_dir(&here)).ok();
    }
    let still = daemon.berth(&["create", "-u", "own", "planted", "sleep", "1000"]).ok();
    let runs = daemon.background(&["-u", "own", "planted", "sleep", "1000"]);
    eventually("it runs", || (daemon.inspect(&runs, "{{.State.Running}}") == "true").then_some(()));
    for id in [&still, &runs] {
        for name in ["plain", "plain.gz", "plain.xz", "plain.bz2", "plain.zst"] {
            let path = format!("/v1.44/containers/{id}/archive?path=/tmp");
            let request = raw::request("PUT", &path, "", &fs::read(here.join(name)).unwrap());
            assert_eq!(raw::status(&raw::exchange(&daemon, &request)), 200, "{name}");
            assert!(
                daemon.berth(&["cp", &format!("{id}:/tmp/file"), "-"]).ok().contains("content"),
                "{name}"
            );
        }
        for client in [Client::Berth, Client::Docker] {
            let cp = |from: &str, to: &str| {
                run(daemon.client(client, &["cp", "-a", from, to]).current_dir(&here)).ok()
            };
            cp("file", &format!("{id}:/tmp/kept"));
            cp(&format!("{id}:/tmp/kept"), "back");
        }
        let kept = daemon.berth(&["cp", &format!("{id}:/tmp/kept"), "-"]).stdout;
        let mut kept = tar::Archive::new(kept.as_bytes());
        let kept = kept.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(
            (kept.header().uid().unwrap(), kept.header().gid().unwrap()),
            (77, 88),
            "the user was looked up"
        );
        assert!(!mark.exists(), "on the host, for {id}");
        let changes = daemon.berth(&["diff", id]).ok();
        assert!(!changes.lines().any(|line| line.ends_with(&name)), "in the container: {changes}");
    }
}
