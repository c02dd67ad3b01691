//! Other limits for containers that exist: in the kernel, in the row, and over a restart of either side.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::{Client, Daemon};
use crate::output::eventually;

/// A limit as the kernel has it, by its file of version 1 or version 2.
#[track_caller]
fn limit(id: &str, v1: &str, v2: &str) -> String {
    let controller = v1.split('.').next().unwrap();
    let one = fs::read_to_string(format!("/sys/fs/cgroup/{controller}/berth/{id}/{v1}"));
    one.or_else(|_| fs::read_to_string(format!("/sys/fs/cgroup/berth/{id}/{v2}"))).unwrap().trim().to_owned()
}

fn memory(id: &str) -> String {
    limit(id, "memory.limit_in_bytes", "memory.max")
}

fn pids(id: &str) -> String {
    limit(id, "pids.max", "pids.max")
}

with_both_clients! {
    fn what_runs_has_its_limits_at_once(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["run", "-d", "--name", "cc", "-m", "64m", "--cpu-shares", "800", "busybox", "sleep", "1000"]).ok();
        let other = daemon.with(client, &["create", "--name", "other", "busybox"]).ok();
        let shares = limit(&id, "cpu.shares", "cpu.weight");
        assert_eq!(daemon.with(client, &["update", "-m", "128m", "--memory-swap", "256m", "--pids-limit", "40", "cc", "other"]).ok(), "cc\nother");
        assert_eq!((memory(&id), pids(&id)), ("134217728".into(), "40".into()));
        assert_eq!(daemon.inspect(&other, "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"), "134217728 40");
        assert_eq!(limit(&id, "cpu.shares", "cpu.weight"), shares, "what is not named stays");
        daemon.with(client, &["update", "--cpus", "0.5", "--cpuset-cpus", "0", "--pids-limit", "-1", "cc"]).ok();
        assert_eq!(limit(&id, "cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("50000"));
        assert_eq!((limit(&id, "cpuset.cpus", "cpuset.cpus"), pids(&id)), ("0".into(), "max".into()));
        let shown = daemon.inspect("cc", "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.CpusetCpus}} {{.HostConfig.CpuShares}} {{.HostConfig.PidsLimit}}");
        assert_eq!(shown, "134217728 268435456 500000000 0 800 0");
        let told = daemon.with(client, &["events", "--since", "1", "--until", &now(), "--filter", "event=update", "--format", "{{.Action}} {{.Actor.Attributes.name}}"]).ok();
        assert_eq!(told, "update cc\nupdate other\nupdate cc");
    }

    fn limits_outlive_a_restart(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["run", "-d", "--name", "cc", "-m", "64m", "busybox", "sleep", "1000"]).ok();
        daemon.with(client, &["update", "-m", "96m", "cc"]).ok();
        daemon.with(client, &["restart", "-t", "0", "cc"]).ok();
        assert_eq!(memory(&id), "100663296");
        daemon.with(client, &["stop", "-t", "0", "cc"]).ok();
        daemon.with(client, &["update", "-m", "32m", "--memory-swap", "64m", "cc"]).ok();
        daemon.with(client, &["start", "cc"]).ok();
        assert_eq!(memory(&id), "33554432");
        daemon.with(client, &["pause", "cc"]).ok();
        daemon.with(client, &["update", "--pids-limit", "9", "cc"]).ok();
        assert_eq!(pids(&id), "9");
    }

    fn nonsense_changes_nothing(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["run", "-d", "--name", "cc", "-m", "64m", "busybox", "sleep", "1000"]).ok();
        let fails = |arguments: &[&str], text: &str| {
            daemon.with(client, &[&["update"], arguments, &["cc"]].concat()).fails(1, text);
        };
        fails(&[], "you must provide one or more flags when using this command");
        fails(&["-m", "2m"], "Minimum memory limit allowed is 6MB");
        fails(&["-m", "800m"], "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time");
        fails(&["--memory-swap", "32m"], "Minimum memoryswap limit should be larger than memory limit");
        fails(&["--cpus", "100000"], "range of CPUs is from 0.01 to");
        fails(&["--cpuset-cpus", "9999"], "");
        fails(&["--restart", "sometimes"], "unknown policy");
        fails(&["--blkio-weight", "5"], "Range of blkio weight is from 10 to 1000");
        daemon.with(client, &["update", "--cpus", "0.5", "cc"]).ok();
        fails(&["--cpu-quota", "80000"], "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set");
        assert_eq!(daemon.inspect("cc", "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.CpuQuota}}"), "67108864 134217728 0");
        assert_eq!(memory(&id), "67108864");
        daemon.with(client, &["update", "-m", "64m", "absent"]).fails(1, "No such container: absent");
        daemon.with(client, &["run", "-d", "--rm", "--name", "brief", "busybox", "sleep", "1000"]).ok();
        daemon.with(client, &["update", "--restart", "always", "brief"]).fails(1, "Restart policy cannot be updated because AutoRemove is enabled for the container");
    }

    fn a_restart_policy_counts_from_then_on(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]).ok();
        daemon.with(client, &["container", "update", "--restart", "on-failure:2", "cc"]).ok();
        assert_eq!(daemon.inspect(&id, "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}"), "on-failure 2");
        kill_process(Pid::from_raw(daemon.init_pid(&id)).unwrap(), Signal::KILL).unwrap();
        eventually("its policy starts it again", || (daemon.inspect(&id, "{{.RestartCount}} {{.State.Running}}") == "1 true").then_some(()));
        daemon.with(client, &["update", "--restart", "no", "cc"]).ok();
        eventually("it runs", || (daemon.inspect(&id, "{{.State.Status}}") == "running").then_some(()));
        kill_process(Pid::from_raw(daemon.init_pid(&id)).unwrap(), Signal::KILL).unwrap();
        assert_eq!(daemon.wait(&id), 137);
        assert_eq!(daemon.inspect(&id, "{{.State.Status}} {{.RestartCount}}"), "exited 1");
    }
}

/// This moment as events take it.
fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
}

#[test]
fn what_the_kernel_refuses_leaves_kernel_and_row_as_they_were() {
    let daemon = Daemon::start();
    let script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=30 && echo full; sleep 1000";
    let id = daemon.background(&[
        "-m",
        "64m",
        "--memory-swap",
        "64m",
        "--pids-limit",
        "50",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    eventually("it uses memory", || daemon.berth(&["logs", &id]).stdout.contains("full").then_some(()));
    let arguments = ["update", "-m", "8m", "--memory-swap", "8m", "--pids-limit", "20", &id];
    // Version 2 kills rather than refuse.
    if fs::exists("/sys/fs/cgroup/memory").unwrap() {
        daemon.berth(&arguments).fails(1, &format!("Cannot update container {id}: "));
        assert_eq!((memory(&id), pids(&id)), ("67108864".into(), "50".into()));
        assert_eq!(daemon.inspect(&id, "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"), "67108864 50");
    }
}

#[test]
fn an_update_survives_the_daemon() {
    let mut daemon = Daemon::start();
    let id = daemon.background(&["-m", "64m", "busybox", "sleep", "1000"]);
    daemon.berth(&["update", "-m", "128m", "--memory-swap", "128m", "--restart", "always", &id]).ok();
    daemon.kill();
    // As if the engine had ended between the row and the cgroup.
    let file = format!("/sys/fs/cgroup/memory/berth/{id}/memory.limit_in_bytes");
    if fs::exists(&file).unwrap() {
        fs::write(&file, "33554432").unwrap();
    }
    daemon.launch();
    eventually("the limit is as it was asked for", || (memory(&id) == "134217728").then_some(()));
    assert_eq!(
        daemon.inspect(&id, "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}"),
        "134217728 always"
    );
}
