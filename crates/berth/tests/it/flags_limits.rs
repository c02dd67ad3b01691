//! Flags of `run` and `create` that limit: read back inside, and at the container's cgroup from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::{Client, Daemon};
use crate::files;
use crate::flags::{ask, inside, refused};
use crate::output::run;

/// A file of a running container's cgroup; where the host has cgroup version 1.
fn cgroup_file(controller: &str, parent: &str, id: &str, file: &str) -> PathBuf {
    PathBuf::from("/sys/fs/cgroup").join(controller).join(parent).join(id).join(file)
}

#[track_caller]
fn cgroup(controller: &str, id: &str, file: &str) -> String {
    let path = cgroup_file(controller, "berth", id, file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

/// Starts a container that sleeps.
#[track_caller]
fn sleeper(daemon: &Daemon, client: Client, flags: &[&str]) -> String {
    daemon.with(client, &[&["run", "-d"], flags, &["busybox", "sleep", "1000"]].concat()).ok()
}

/// A block device whose limits can be set, as path and number.
fn block_device() -> (String, String) {
    let entries = fs::read_dir("/sys/block").unwrap().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    let name =
        names.into_iter().find(|n| std::path::Path::new("/dev").join(n).exists()).expect("a block device");
    let number = fs::read_to_string(format!("/sys/block/{name}/dev")).unwrap().trim().to_owned();
    (format!("/dev/{name}"), number)
}

with_both_clients! {
    fn memory(daemon: &Daemon, client: Client) {
        let id = sleeper(daemon, client, &["-m", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "--memory-swappiness", "17"]);
        assert_eq!(cgroup("memory", &id, "memory.limit_in_bytes"), (64 << 20).to_string());
        assert_eq!(cgroup("memory", &id, "memory.memsw.limit_in_bytes"), (96 << 20).to_string());
        assert_eq!(cgroup("memory", &id, "memory.soft_limit_in_bytes"), (32 << 20).to_string());
        assert_eq!(cgroup("memory", &id, "memory.swappiness"), "17");
        assert_eq!(daemon.with(client, &["exec", &id, "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]).ok(), (64 << 20).to_string());
        let unlimited = sleeper(daemon, client, &["-m", "64m", "--memory-swap", "-1", "--memory-swappiness", "-1"]);
        assert!(cgroup("memory", &unlimited, "memory.memsw.limit_in_bytes").len() > 15);
        for (flags, words) in [
            (&["-m", "5m"][..], "Minimum memory limit allowed is 6MB"),
            (&["-m", "64m", "--memory-swap", "32m"], "Minimum memoryswap limit should be larger than memory limit, see usage"),
            (&["--memory-swap", "64m"], "You should always set the Memory limit when using Memoryswap limit, see usage"),
            (&["--memory-reservation", "5m"], "Minimum memory reservation allowed is 6MB"),
            (&["-m", "64m", "--memory-reservation", "65m"], "Minimum memory limit can not be less than memory reservation limit, see usage"),
            (&["--memory-swappiness", "101"], "valid memory swappiness range is 0-100"),
        ] {
            refused(daemon, client, flags, words);
        }
    }

    fn out_of_memory(daemon: &Daemon, client: Client) {
        let id = sleeper(daemon, client, &["-m", "64m", "--oom-kill-disable", "--oom-score-adj", "345"]);
        assert!(cgroup("memory", &id, "memory.oom_control").contains("oom_kill_disable 1"));
        assert_eq!(fs::read_to_string(format!("/proc/{}/oom_score_adj", daemon.init_pid(&id))).unwrap(), "345\n");
        let warned = daemon.with(client, &["create", "--oom-kill-disable", "busybox"]);
        assert!(warned.stderr.contains("OOM killer is disabled for the container, but no memory limit is set"), "{warned:?}");
        refused(daemon, client, &["--oom-score-adj", "1001"], "Invalid value 1001, range for oom score adj is [-1000, 1000]");
        refused(daemon, client, &["--oom-score-adj", "-1001"], "range for oom score adj");
    }

    fn processors(daemon: &Daemon, client: Client) {
        let id = sleeper(daemon, client, &["--cpu-shares", "512", "--cpu-period", "50000", "--cpu-quota", "20000", "--cpuset-cpus", "0", "--cpuset-mems", "0"]);
        assert_eq!(cgroup("cpu", &id, "cpu.shares"), "512");
        assert_eq!(cgroup("cpu", &id, "cpu.cfs_period_us"), "50000");
        assert_eq!(cgroup("cpu", &id, "cpu.cfs_quota_us"), "20000");
        assert_eq!(cgroup("cpuset", &id, "cpuset.cpus"), "0");
        assert_eq!(cgroup("cpuset", &id, "cpuset.mems"), "0");
        assert_eq!(daemon.with(client, &["exec", &id, "nproc"]).ok(), "1");
        let half = sleeper(daemon, client, &["--cpus", "0.5"]);
        assert_eq!(cgroup("cpu", &half, "cpu.cfs_quota_us"), "50000");
        for (flags, words) in [
            (&["--cpu-shares", "-1"][..], "value must be a positive integer"),
            (&["--cpu-period", "1"], "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"),
            (&["--cpu-quota", "1"], "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
            (&["--cpus", "1", "--cpu-quota", "2000"], "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
            (&["--cpus", "1", "--cpu-period", "2000"], "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
            (&["--cpuset-cpus", "0-8000"], "Requested CPUs are not available - requested 0-8000, available: 0"),
            (&["--cpuset-cpus", "1-0"], "Invalid value 1-0 for cpuset cpus"),
            (&["--cpuset-mems", "99"], "Requested memory nodes are not available - requested 99, available: 0"),
            (&["--cpuset-mems", "x"], "Invalid value x for cpuset mems"),
        ] {
            refused(daemon, client, flags, words);
        }
    }

    fn real_time(daemon: &Daemon, client: Client) {
        let flags = ["--cpu-rt-period", "1000000", "--cpu-rt-runtime", "10000"];
        if !std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
            refused(daemon, client, &flags, "kernel does not support CPU real-time scheduler");
        } else {
            refused(daemon, client, &["--cpu-rt-period", "1000", "--cpu-rt-runtime", "2000"], "cpu real-time runtime cannot be higher than cpu real-time period");
            let id = daemon.with(client, &[&["create"], &flags[..], &["busybox"]].concat()).ok();
            assert_eq!(daemon.inspect(&id, "{{.HostConfig.CpuRealtimePeriod}} {{.HostConfig.CpuRealtimeRuntime}}"), "1000000 10000");
        }
    }

    fn processes(daemon: &Daemon, client: Client) {
        let id = sleeper(daemon, client, &["--pids-limit", "9"]);
        assert_eq!(cgroup("pids", &id, "pids.max"), "9");
        assert_eq!(cgroup("pids", &sleeper(daemon, client, &["--pids-limit", "-1"]), "pids.max"), "max");
    }

    fn ulimits(daemon: &Daemon, client: Client) {
        let seen = inside(daemon, client, &["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--ulimit", "nproc=77"], "ulimit -Sn; ulimit -Hn; ulimit -c; grep processes /proc/self/limits | awk '{print $3, $4}'");
        assert_eq!(seen, "100\n200\n0\n77 77");
        let id = sleeper(daemon, client, &["--ulimit", "nofile=100:200"]);
        assert_eq!(daemon.with(client, &["exec", &id, "sh", "-c", "ulimit -n"]).ok(), "100");
        assert_eq!(inside(daemon, client, &["--ulimit", "memlock=4096:8192"], "grep 'locked memory' /proc/self/limits | awk '{print $4, $5}'"), "4096 8192");
        // Fewer descriptors than are open while the container is made.
        let few = ["--ulimit", "nofile=4:8", "--oom-score-adj", "100", "--init"];
        assert_eq!(inside(daemon, client, &few, "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj"), "4\n8\n100");
        refused(daemon, client, &["--ulimit", "nonsense=1"], "invalid ulimit type: nonsense");
        refused(daemon, client, &["--ulimit", "nofile=2:1"], "ulimit soft limit must be less than or equal to hard limit: 2 > 1");
        refused(daemon, client, &["--ulimit", "nofile"], "invalid ulimit argument: nofile");
    }

    fn block_devices(daemon: &Daemon, client: Client) {
        let (path, number) = block_device();
        let limit = |rate: &str| format!("{path}:{rate}");
        let id = sleeper(daemon, client, &["--device-read-bps", &limit("1mb"), "--device-write-bps", &limit("2mb"), "--device-read-iops", &limit("300"), "--device-write-iops", &limit("400")]);
        for (file, value) in [("read_bps", 1 << 20), ("write_bps", 2 << 20), ("read_iops", 300), ("write_iops", 400)] {
            assert_eq!(cgroup("blkio", &id, &format!("blkio.throttle.{file}_device")), format!("{number} {value}"));
        }
        let flags = ["--blkio-weight", "300", "--blkio-weight-device", &limit("200")];
        let weighed = daemon.with(client, &[&["run", "-d"], &flags[..], &["busybox", "sleep", "1000"]].concat());
        let id = weighed.stdout.trim().to_owned();
        if cgroup_file("blkio", "berth", &id, "blkio.bfq.weight").exists() {
            assert_eq!(cgroup("blkio", &id, "blkio.bfq.weight"), "300");
            assert_eq!(weighed.stderr, "");
        } else {
            assert_eq!(daemon.inspect(&id, "{{.HostConfig.BlkioWeight}}"), "0");
            assert!(weighed.stderr.contains("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."), "{weighed:?}");
            assert!(weighed.stderr.contains("Weight-device discarded."), "{weighed:?}");
        }
        // The code that clients give for these words.
        daemon.with(client, &["run", "--rm", "--device-read-bps", "/dev/absent:1mb", "busybox"]).fails(127, "stat /dev/absent: no such file or directory");
        refused(daemon, client, &["--device-read-bps", "relative:1mb"], "bad format for device path: relative:1mb");
        refused(daemon, client, &["--device-read-bps", &limit("much")], "invalid rate for device:");
        refused(daemon, client, &["--device-write-iops", &limit("-1")], "invalid rate for device:");
        refused(daemon, client, &["--blkio-weight-device", &limit("9")], "invalid weight for device:");
    }

    fn a_parent_of_the_cgroup(daemon: &Daemon, client: Client) {
        let parent = format!("berth-flags-{}", daemon.pid());
        for given in [format!("/{parent}"), parent.clone()] {
            let id = sleeper(daemon, client, &["--cgroup-parent", &given]);
            let below = cgroup_file("memory", &parent, &id, "cgroup.procs");
            assert!(below.exists() || cgroup_file("memory", &format!("berth/{parent}"), &id, "cgroup.procs").exists(), "{given}");
            daemon.berth(&["rm", "-f", &id]).ok();
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            // Made for the test, and empty again.
            let _ = fs::remove_dir(hierarchy.path().join(&parent));
        }
        let escape = sleeper(daemon, client, &["--cgroup-parent", "../../../../../berth-flags-up"]);
        let listing = fs::read_to_string(format!("/proc/{}/cgroup", daemon.init_pid(&escape))).unwrap();
        assert!(listing.contains(&format!("/berth-flags-up/{escape}")) && !listing.contains(".."), "{listing}");
        daemon.berth(&["rm", "-f", &escape]).ok();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join("berth-flags-up"));
        }
    }
}

#[test]
fn limits_of_windows_are_refused() {
    let daemon = Daemon::start();
    for host in [r#"{"IOMaximumBandwidth":1}"#, r#"{"IOMaximumIOps":1}"#] {
        let body = format!(r#"{{"Image":"busybox","HostConfig":{host}}}"#);
        let (code, text) = ask(&daemon, "POST", "/containers/create", &body);
        assert!(code == "400" && text.contains("invalid option: QoS maximum"), "{code} {text}");
    }
}

/// A cgroup of the host with one below, which go with the test.
struct Parent(String);

impl Parent {
    fn deep(&self) -> String {
        format!("{}/deep", self.0)
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            for group in [self.deep(), self.0.clone()] {
                // Not every hierarchy has it, and one may have two names.
                let _ = fs::remove_dir(hierarchy.path().join(group));
            }
        }
    }
}

/// What the kernel lets one container have of real-time CPU time is a part of what the daemon was told for all.
#[test]
fn real_time_is_given_to_the_parents_of_containers() {
    let flags = ["--cpu-rt-period", "1000000", "--cpu-rt-runtime", "20000"];
    if !Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        let mut daemon = Daemon::empty(&[]);
        daemon.stop();
        run(daemon.command().args(flags)).fails(1, "daemon-scoped cpu-rt-period and cpu-rt-runtime are not");
        return;
    }
    let parent = Parent(format!("berth-rt-{}", std::process::id()));
    let deep = parent.deep();
    let daemon = Daemon::empty(&[&flags[..], &["--cgroup-parent", &deep]].concat());
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    for client in [Client::Berth, Client::Docker] {
        let own = ["run", "-d", "--cpu-rt-runtime", "5000", "busybox", "sleep", "1000"];
        let id = daemon.with(client, &own).ok();
        let file = |group: &str, id: &str| {
            fs::read_to_string(cgroup_file("cpu", group, id, "cpu.rt_runtime_us")).unwrap().trim().to_owned()
        };
        assert_eq!([file(&deep, &id), file(&deep, ""), file(&parent.0, "")], ["5000", "20000", "20000"]);
        let none = daemon.background(&["busybox", "sleep", "1000"]);
        let real_time = |id: &str| {
            run(Command::new("chrt").args(["-f", "-p", "1", &daemon.init_pid(id).to_string()])).code
        };
        assert_eq!((real_time(&id), real_time(&none)), (0, 1));
        let much = ["run", "--rm", "--cpu-rt-runtime", "50000", "busybox", "true"];
        assert_ne!(daemon.with(client, &much).code, 0, "more than there is");
        daemon.berth(&["rm", "-f", &id, &none]).ok();
    }
}
