//! Whether a container waits for the files of its log, on a file system that takes nothing for a while.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::files;
use crate::output::{eventually, run};

/// A file system in a file, for a data root that can be frozen.
struct Volume(TempDir);

impl Volume {
    fn make() -> Self {
        let volume = Self(tempfile::Builder::new().prefix("berth-volume-").tempdir().unwrap());
        let (image, mount) = (volume.0.path().join("image"), volume.path());
        std::fs::create_dir(&mount).unwrap();
        std::fs::File::create(&image).unwrap().set_len(128 << 20).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(&image)).ok();
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount)).ok();
        volume
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("mount")
    }

    fn freeze(&self, flag: &str) {
        run(Command::new("fsfreeze").arg(flag).arg(self.path())).ok();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(self.path()).output();
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

/// A daemon on the volume.
fn daemon(volume: &Volume) -> Daemon {
    let root = volume.path().join("data");
    let daemon = Daemon::empty(&["--data-root", root.to_str().unwrap()]);
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    daemon
}

/// Starts a container that writes for ever and says outside its log how far it is.
fn writer(daemon: &Daemon, driver: &str, options: &[&str]) -> impl Fn() -> u64 + use<> {
    let script = "i=0; while :; do i=$((i+1)); echo $i and a line that is not short at all, for the sake of bytes; echo $i > /dev/shm/n; done";
    let mut arguments = vec!["--name", "cc", "--log-driver", driver];
    for option in options {
        arguments.extend(["--log-opt", option]);
    }
    arguments.extend(["busybox", "sh", "-c", script]);
    daemon.background(&arguments);
    let path = format!("/proc/{}/root/dev/shm/n", daemon.init_pid("cc"));
    let count = move || {
        // It may be read while it is empty.
        eventually("a number", || std::fs::read_to_string(Path::new(&path)).ok()?.trim().parse().ok())
    };
    eventually("it writes", || (count() > 1000).then_some(()));
    count
}

fn goes_on_and_tells(driver: &str) {
    let volume = Volume::make();
    let daemon = daemon(&volume);
    let count = writer(&daemon, driver, &["mode=non-blocking", "max-buffer-size=64k"]);
    volume.freeze("-f");
    let frozen_at = count();
    // Far more than the buffer holds.
    eventually("it goes on", || (count() > frozen_at + 20_000).then_some(()));
    volume.freeze("-u");
    let lost = "log records";
    eventually("the log tells of it", || {
        let logs = daemon.berth(&["logs", "cc"]);
        (logs.stdout.contains(lost) || logs.stderr.contains(lost)).then_some(())
    });
    eventually("the daemon tells of it", || daemon.log().contains("log messages were lost").then_some(()));
    daemon.berth(&["kill", "cc"]).ok();
    daemon.wait("cc");
    let logs = daemon.berth(&["logs", "cc"]).ok();
    let number = |line: &str| line.split(' ').next().and_then(|word| word.parse::<u64>().ok());
    let whole = logs.lines().filter(|line| line.ends_with("for the sake of bytes")).filter_map(number);
    let whole: Vec<u64> = whole.collect();
    assert!(whole.len() > 1000 && whole.is_sorted(), "what is there is in order");
    assert!(daemon.processes().iter().all(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim() != "berth-log"
    }));
    daemon.berth(&["rm", "-f", "cc"]).ok();
}

#[test]
fn without_blocking_json_files_cost_lines_but_no_time() {
    goes_on_and_tells("json-file");
}

#[test]
fn without_blocking_segments_cost_lines_but_no_time() {
    goes_on_and_tells("local");
}

#[test]
fn in_blocking_mode_nothing_is_lost() {
    let volume = Volume::make();
    let daemon = daemon(&volume);
    let count = writer(&daemon, "json-file", &["max-file=2", "max-size=60m"]);
    volume.freeze("-f");
    let mut before = 0;
    eventually("it waits", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = count();
        (std::mem::replace(&mut before, now) == now).then_some(())
    });
    volume.freeze("-u");
    eventually("it goes on", || (count() > before + 1000).then_some(()));
    daemon.berth(&["kill", "cc"]).ok();
    daemon.wait("cc");
    let logs = daemon.berth(&["logs", "cc"]).ok();
    let numbers = logs.lines().map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap());
    assert!(numbers.eq(1..=logs.lines().count() as u64));
    daemon.berth(&["rm", "-f", "cc"]).ok();
}
