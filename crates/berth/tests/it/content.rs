//! `diff` and `export`: what a container's file system holds.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::Command;

use crate::daemon::{Client, Daemon};
use crate::output::{eventually, run};
use crate::prune::api;

/// Names in a tar, with their kinds and contents.
fn entries(tar: &[u8]) -> BTreeMap<String, (tar::EntryType, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().trim_end_matches('/').to_owned();
        let kind = entry.header().entry_type();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert!(found.insert(name.clone(), (kind, content)).is_none(), "{name} comes twice");
    }
    found
}

const SCRIPT: &str = "mkdir /foo; echo xyzzy > /foo/bar; rm /etc/group; chmod 700 /root; \
                      echo more >> /etc/passwd; rm -r /home/user; mkdir /home/user; touch /home/user/new; \
                      echo x > /data/hidden; echo y > /tmp/t; ln -s /foo/bar /link; echo up; sleep 1000";

with_both_clients! {
    fn diff_tells_what_changed(daemon: &Daemon, client: Client) {
        let id = daemon.background(&["-v", "/data", "--tmpfs", "/mnt/deep/tmp", "busybox", "sh", "-c", SCRIPT]);
        eventually("it wrote", || daemon.berth(&["logs", &id]).stdout.contains("up").then_some(()));
        let expected = daemon.with(client, &["diff", &id]).ok();
        for line in ["A /foo", "A /foo/bar", "A /link", "D /etc/group", "C /etc/passwd", "C /etc", "A /home/user/new", "C /home"] {
            assert!(expected.lines().any(|found| found == line), "{line} in {expected}");
        }
        for path in ["/data", "/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/mnt/deep/tmp"] {
            assert!(!expected.lines().any(|found| found.ends_with(path)), "{path} in {expected}");
        }
        let position = |line: &str| expected.lines().position(|found| found == line).unwrap();
        assert!(position("A /foo") < position("A /foo/bar"), "{expected}");
        daemon.berth(&["kill", &id]).ok();
        daemon.wait(&id);
        assert_eq!(daemon.with(client, &["diff", &id]).ok(), expected, "stopped");
        daemon.with(client, &["diff", "absent"]).fails(1, "No such container: absent");
    }

    fn export_holds_all_of_the_root_and_nothing_that_is_mounted(daemon: &Daemon, client: Client) {
        let id = daemon.background(&["-v", "/data", "busybox", "sh", "-c", SCRIPT]);
        eventually("it wrote", || daemon.berth(&["logs", &id]).stdout.contains("up").then_some(()));
        let file = daemon.root.path().join("export.tar");
        for running in [true, false] {
            daemon.with(client, &["export", "-o", file.to_str().unwrap(), &id]).ok();
            let found = entries(&std::fs::read(&file).unwrap());
            assert_eq!(found["foo/bar"].1, b"xyzzy\n");
            assert_eq!(found["link"].0, tar::EntryType::Symlink);
            assert!(found["etc/passwd"].1.ends_with(b"more\n"));
            assert!(found["bin/busybox"].1.len() > 100_000);
            assert_eq!(found["proc"].0, tar::EntryType::Directory);
            for absent in ["etc/group", "data/hidden", "proc/1", "proc/self", ""] {
                assert!(!found.contains_key(absent), "{absent}");
            }
            if running {
                daemon.berth(&["kill", &id]).ok();
                daemon.wait(&id);
            }
        }
        let events = daemon.berth(&["events", "--since", "1h", "--until", "0s", "--filter", "event=export", "--format", "{{.Actor.ID}}"]).ok();
        assert_eq!(events, format!("{id}\n{id}"));
        daemon.with(client, &["export", "-o", "/absent/x.tar", &id]).fails(1, "invalid output path");
        daemon.with(client, &["export", "-o", file.to_str().unwrap(), "absent"]).fails(1, "No such container: absent");
        assert!(file.exists(), "a failure leaves the file that was there");
    }
}

#[test]
fn nothing_changed_is_null_and_kinds_are_numbers() {
    let daemon = Daemon::start();
    let id = daemon.background(&["busybox", "true"]);
    daemon.wait(&id);
    assert_eq!(api(&daemon, "GET", &format!("/v1.55/containers/{id}/changes")), (200, "null".to_owned()));
    let id = daemon.background(&["busybox", "sh", "-c", "mkdir /foo; echo xyzzy > /foo/bar"]);
    daemon.wait(&id);
    let text = r#"[{"Path":"/foo","Kind":1},{"Path":"/foo/bar","Kind":1}]"#;
    assert_eq!(api(&daemon, "GET", &format!("/v1.55/containers/{id}/changes")), (200, text.to_owned()));
}

#[test]
fn a_hostile_root_leads_nowhere() {
    let daemon = Daemon::start();
    let script = "rm -rf /etc /home; ln -s /../../../../../etc /home; ln -s / /etc2; ln -s loop /loop; mkfifo /fifo; true";
    let id = daemon.background(&["busybox", "sh", "-c", script]);
    daemon.wait(&id);
    let secret = std::fs::read("/etc/passwd").unwrap();
    let found = entries(&run_bytes(&mut daemon.client(Client::Berth, &["export", &id])));
    assert_eq!(found["home"].0, tar::EntryType::Symlink);
    assert_eq!(found["fifo"].0, tar::EntryType::Fifo);
    assert!(found.values().all(|(_, content)| *content != secret));
    assert!(daemon.berth(&["diff", &id]).ok().lines().any(|line| line == "C /home"));
}

fn run_bytes(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn a_client_that_stops_reading_holds_up_nobody_and_memory_stays_bounded() {
    let daemon = Daemon::start();
    let id = daemon.background(&["busybox", "sh", "-c", "head -c 300000000 /dev/zero > /big"]);
    daemon.wait(&id);
    let mut command = daemon.client(Client::Berth, &["export", &id]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut byte = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    assert_eq!(run(&mut daemon.client(Client::Berth, &["ps", "-q"])).ok(), "");
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 120_000, "{resident}");
    child.kill().unwrap();
    child.wait().unwrap();
    let size = run_bytes(&mut daemon.client(Client::Berth, &["export", &id])).len();
    assert!(size > 300_000_000, "{size}");
}
