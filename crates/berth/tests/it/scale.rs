//! Hundreds of containers on one daemon. How fast is measured by `bench/run --only scale`.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::daemon::Daemon;
use crate::output::eventually;

const COUNT: usize = 200;
/// Containers are made, and removed, by so many clients at once.
const CLIENTS: usize = 4;

/// KiB of memory of its own that a process holds.
fn anonymous(pid: u32) -> usize {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Does something for each number below `COUNT`.
fn for_all(act: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= COUNT {
                        break;
                    }
                    act(n);
                }
            });
        }
    });
}

#[test]
fn hundreds_of_containers_cost_little_and_leave_nothing() {
    let daemon = Daemon::start();
    daemon.berth(&["run", "--rm", "busybox", "true"]).ok();
    let (before, processes) = (anonymous(daemon.pid()), daemon.processes().len());
    for_all(|n| {
        daemon.background(&["--name", &format!("n{n}"), "busybox", "sleep", "1000"]);
    });
    assert_eq!(daemon.berth(&["ps", "-q"]).ok().lines().count(), COUNT);
    let addresses = daemon.berth(&["ps", "-q", "--no-trunc"]).ok();
    let mut arguments = vec!["inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}"];
    arguments.extend(addresses.lines());
    let mut addresses: Vec<String> = daemon.berth(&arguments).ok().lines().map(str::to_owned).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), COUNT, "each has an address of its own");
    let each = (anonymous(daemon.pid()) - before) / COUNT;
    assert!(each <= 64, "{each} KiB of the daemon's memory for each container");
    for_all(|n| {
        daemon.berth(&["rm", "-f", &format!("n{n}")]).ok();
    });
    assert_eq!(daemon.berth(&["ps", "-aq"]).ok(), "");
    assert_eq!(fs::read_dir(daemon.data_root().join("containers")).unwrap().count(), 0);
    eventually("their processes are gone", || (daemon.processes().len() <= processes).then_some(()));
}
