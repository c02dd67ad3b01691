//! Limits on cgroup v2, as what runs in the container feels them, and figures as the kernel's files have them.
//!
//! In a virtual machine: the host here may have version 1. Its disk is scheduled by BFQ, the only one with weights there,
//! and is swap.

use std::fs::File;

use serde_json::Value;

use crate::vm::{Extras, Steps, boot};

const SCRIPT: &str = r#"
modprobe bfq
echo bfq > /sys/block/vda/queue/scheduler
ip link set lo up
mkdir /q
berth daemon --data-root /q/data --exec-root /run/q -H unix:///run/q.sock -H tcp://127.0.0.1:2375 --pidfile /run/q.pid \
    --bip 172.30.0.1/24 > /q.log 2>&1 &
q() { berth -H unix:///run/q.sock "$@"; }
n=0; until q version > /dev/null 2>&1 || [ $n -gt 600 ]; do n=$((n + 1)); sleep 0.1; done
q load -q -i /busybox.tar > /dev/null
group() { echo /sys/fs/cgroup$(cut -d : -f 3 /proc/$(q inspect -f '{{.State.Pid}}' $1)/cgroup); }
usage() { awk '/^usage_usec/ { print $2 }' $(group $1)/cpu.stat; }
api() { wget -q -O - "http://127.0.0.1:2375/v1.47/containers/$1/stats?stream=false"; echo; }

# While nothing else is on the disk.
number=$((0x$(stat -c %t /dev/vda)))
try="mknod /d b $number 0; dd if=/d of=/dev/null bs=4k count=1 2> /dev/null && echo read; dd if=/dev/zero of=/d bs=4k count=1 2> /dev/null && echo written"
step devices_none q run --rm busybox sh -c "$try"
step devices_read q run --rm --device-cgroup-rule "b $number:0 r" busybox sh -c "$try"
step devices_all q run --rm --device-cgroup-rule "b $number:* rwm" busybox sh -c "$try"
step devices_other q run --rm --device-cgroup-rule "b $number:1 rwm" --device-cgroup-rule "c $number:0 rwm" busybox sh -c "$try"
step devices_shared q run --rm --device /dev/vda:/dev/x:r busybox sh -c "$try"
step devices_privileged q run --rm --privileged busybox sh -c "$try"
mkswap /dev/vda > /dev/null
swapon /dev/vda

files='cd /sys/fs/cgroup; for f in memory.max memory.low memory.swap.max cpu.max cpu.weight cpuset.cpus.effective cpuset.mems pids.max io.bfq.weight io.max; do echo $f $(cat $f); done; grep Cpus_allowed_list /proc/self/status'
q run -d --name all --memory 64m --memory-reservation 32m --memory-swap 96m --cpus 0.5 --cpu-shares 512 \
    --cpuset-cpus 1 --cpuset-mems 0 --pids-limit 30 --blkio-weight 300 --blkio-weight-device /dev/vda:200 \
    --device-read-bps /dev/vda:1mb --device-write-bps /dev/vda:2mb --device-read-iops /dev/vda:300 \
    --device-write-iops /dev/vda:50 busybox sleep 10000
step files q exec all sh -c "$files"
step update q update --memory 80m --memory-swap 100m --memory-reservation 16m --cpus 1.5 --cpu-shares 2048 --cpuset-cpus 0 \
    --pids-limit 20 --blkio-weight 400 all
step updated q exec all sh -c "$files"
step refused_memory q update --memory 200m all
step refused_cpus q update --cpuset-cpus 7 all
step unchanged q exec all sh -c "$files"
step devices_updated q exec all sh -c "$try"
q rm -f all > /dev/null
step refused_real_time timeout 60 berth daemon --data-root /other --exec-root /run/other -H unix:///run/other.sock \
    --pidfile /run/other.pid --cpu-rt-runtime 1000
step discarded q create --oom-kill-disable --memory-swappiness 10 busybox true

step unhurried q run --rm --device /dev/vda --device-read-bps /dev/vda:1mb busybox sh -c \
    'read a b < /proc/uptime; dd if=/dev/vda of=/dev/null bs=256k count=16 iflag=direct 2> /dev/null; read c b < /proc/uptime; echo $a $c'
nine='for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done'
step crowded q run --rm --pids-limit 6 busybox sh -c "$nine"
step roomy q run --rm --pids-limit 30 busybox sh -c "$nine"
step throttled q run --rm --cpus 0.2 busybox sh -c 'until grep -q "nr_throttled [1-9]" /sys/fs/cgroup/cpu.stat; do :; done'
fill='dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2> /dev/null'
step swapped q run --rm --memory 16m --memory-swap 80m busybox sh -c "$fill"
step child_killed q run --name child --memory 16m --memory-swap 16m busybox sh -c "$fill; exit 3"
step killed q run --name first --memory 16m --memory-swap 16m busybox sh -c "$fill"
step states q inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}}' child first
step events q events --since 1 --until "$(($(date +%s) + 2))" --filter event=oom --format '{{.Action}} {{.Actor.Attributes.name}}'

q run -d --name below --cgroup-parent /mine/deep --memory 32m busybox sleep 10000 > /dev/null
step parent_path group below
step parent_memory sh -c 'cat /sys/fs/cgroup/mine/deep/*/memory.max'
q rm -f below > /dev/null
echo 5 > /sys/fs/cgroup/mine/pids.max
step parent_pids q run --rm --cgroup-parent /mine/deep busybox sh -c "$nine"
step parent_left find /sys/fs/cgroup/mine/deep -mindepth 1 -type d

loop='while :; do :; done'
q run -d --name heavy --cpuset-cpus 0 --cpu-shares 8192 busybox sh -c "$loop" > /dev/null
q run -d --name light --cpuset-cpus 0 --cpu-shares 64 busybox sh -c "$loop" > /dev/null
h=$(usage heavy); l=$(usage light)
while more=$(($(usage heavy) - h)); less=$(($(usage light) - l)); [ $((more + less)) -lt 3000000 ]; do sleep 0.2; done
step weights echo $more $less
step cpu_before usage heavy
step cpu api heavy
step cpu_after usage heavy
step cpu_shown q stats --no-stream --format '{{.CPUPerc}}' heavy
q rm -f heavy light > /dev/null

q run -d --name full --memory 64m --device /dev/vda busybox sh -c 'dd if=/dev/zero of=/dev/shm/x bs=1M count=20
    dd if=/dev/vda of=/dev/null bs=256k count=16 iflag=direct; echo ready; exec sleep 10000' > /dev/null
n=0; until q logs full 2> /dev/null | grep -q ready || [ $n -gt 600 ]; do n=$((n + 1)); sleep 0.1; done
step memory api full
step memory_current cat $(group full)/memory.current
step memory_shown q stats --no-stream --format '{{.MemUsage}} {{.PIDs}} {{.BlockIO}}' full
q rm -f full > /dev/null
"#;

/// The document that a step printed.
fn document(steps: &Steps, name: &str) -> Value {
    let line = steps.step(name).lines().next().unwrap();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"))
}

/// The number that a step printed first.
fn number(steps: &Steps, name: &str) -> u64 {
    steps.step(name).lines().next().unwrap().parse().unwrap()
}

#[test]
fn limits_and_figures_of_version_2_are_the_kernels() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    File::create(&disk).unwrap().set_len(128 << 20).unwrap();
    let steps = boot(SCRIPT, &Extras { disk: Some(&disk), cpus: 2, ..Extras::default() });
    devices(&steps);
    files(&steps);
    effects(&steps);
    memory_that_is_out(&steps);
    parents(&steps);
    figures(&steps);
}

fn devices(steps: &Steps) {
    let cases = [
        ("devices_none", "code 1"),
        ("devices_read", "read\ncode 1"),
        ("devices_all", "read\nwritten\ncode 0"),
        ("devices_other", "code 1"),
        ("devices_shared", "read\ncode 1"),
        ("devices_privileged", "read\nwritten\ncode 0"),
        ("devices_updated", "code 1"),
    ];
    for (step, expected) in cases {
        assert_eq!(steps.step(step), expected, "{step}");
    }
}

fn files(steps: &Steps) {
    let made = "memory.max 67108864\nmemory.low 33554432\nmemory.swap.max 33554432\ncpu.max 50000 100000\n\
        cpu.weight 59\ncpuset.cpus.effective 1\ncpuset.mems 0\npids.max 30\nio.bfq.weight default 300 254:0 200\n\
        io.max 254:0 rbps=1048576 wbps=2097152 riops=300 wiops=50\nCpus_allowed_list:\t1\ncode 0";
    assert_eq!(steps.step("files"), made);
    assert_eq!(steps.step("update"), "all\ncode 0");
    let updated = "memory.max 83886080\nmemory.low 16777216\nmemory.swap.max 20971520\ncpu.max 150000 100000\n\
        cpu.weight 174\ncpuset.cpus.effective 0\ncpuset.mems 0\npids.max 20\nio.bfq.weight default 400 254:0 200\n\
        io.max 254:0 rbps=1048576 wbps=2097152 riops=300 wiops=50\nCpus_allowed_list:\t0\ncode 0";
    assert_eq!(steps.step("updated"), updated);
    assert!(steps.step("refused_memory").contains("smaller than already set memoryswap limit"));
    assert!(steps.step("refused_cpus").contains("requested 7, available: 0-1"));
    assert_eq!(steps.step("unchanged"), updated);
    let refused = steps.step("refused_real_time");
    assert!(refused.contains("cpu-rt-runtime are not implemented for cgroup v2"), "{refused}");
    let discarded = steps.step("discarded");
    assert_eq!(discarded.matches("discarded").count(), 2, "{discarded}");
    assert!(discarded.ends_with("code 0"), "{discarded}");
}

fn effects(steps: &Steps) {
    // 4 MiB, of which the kernel may let some through at once.
    let times: Vec<f64> =
        steps.step("unhurried").split_whitespace().take(2).map(|word| word.parse().unwrap()).collect();
    assert!(times[1] - times[0] > 2.0, "{times:?}");
    assert!(steps.step("crowded").contains("can't fork"), "{}", steps.step("crowded"));
    assert_eq!(steps.step("roomy"), "code 0");
    assert_eq!(steps.step("throttled"), "code 0");
    let line = steps.step("weights").lines().next().unwrap();
    let (more, less) = line.split_once(' ').unwrap();
    let (more, less): (u64, u64) = (more.parse().unwrap(), less.parse().unwrap());
    assert!(more > 2 * less, "{more} and {less} microseconds");
}

fn memory_that_is_out(steps: &Steps) {
    assert_eq!(steps.step("swapped"), "code 0");
    assert_eq!(steps.step("child_killed"), "code 3");
    assert_eq!(steps.step("killed"), "code 137");
    assert_eq!(steps.step("states"), "true 3\ntrue 137\ncode 0");
    let events = steps.step("events");
    assert!(events.contains("oom child\n") && events.contains("oom first\n"), "{events}");
}

fn parents(steps: &Steps) {
    let path = steps.step("parent_path");
    let id = path.lines().next().unwrap().strip_prefix("/sys/fs/cgroup/mine/deep/");
    assert!(id.is_some_and(|id| id.len() == 64), "{path}");
    assert_eq!(steps.step("parent_memory"), "33554432\ncode 0");
    assert!(steps.step("parent_pids").contains("can't fork"), "{}", steps.step("parent_pids"));
    assert_eq!(steps.step("parent_left"), "code 0");
}

fn figures(steps: &Steps) {
    let cpu = document(steps, "cpu");
    let total = |of: &str| cpu[of]["cpu_usage"]["total_usage"].as_u64().unwrap();
    let (before, after) = (number(steps, "cpu_before") * 1000, number(steps, "cpu_after") * 1000);
    let times = [before, total("precpu_stats"), total("cpu_stats"), after];
    assert!(times.is_sorted() && total("precpu_stats") < total("cpu_stats"), "{times:?}");
    assert_eq!(cpu["cpu_stats"]["online_cpus"], 2);
    assert!(cpu["cpu_stats"]["cpu_usage"].get("percpu_usage").is_none(), "version 2 has none: {cpu}");
    let shown = steps.step("cpu_shown");
    let percent: f64 = shown.split('%').next().unwrap().parse().unwrap();
    // One of two CPUs, however much of it the host takes away.
    assert!((5.0..150.0).contains(&percent), "{shown}");

    let memory = document(steps, "memory");
    let usage = memory["memory_stats"]["usage"].as_u64().unwrap();
    let current = number(steps, "memory_current");
    // The kernel charges in batches, one for each CPU.
    assert!(usage.abs_diff(current) <= 1 << 20 && usage >= 20 << 20, "{usage} and {current}");
    assert_eq!(memory["memory_stats"]["stats"]["shmem"], 20 << 20);
    assert_eq!(memory["memory_stats"]["limit"], 64 << 20);
    assert!(memory["memory_stats"].get("max_usage").is_none(), "version 2 has none: {memory}");
    assert_eq!(memory["pids_stats"]["current"], 1);
    let read = &memory["blkio_stats"]["io_service_bytes_recursive"][0];
    assert_eq!((&read["op"], &read["value"]), (&"read".into(), &(4 << 20).into()), "{memory}");
    let shown = steps.step("memory_shown");
    assert!(shown.starts_with("20.") && shown.ends_with("MiB / 64MiB 1 4.19MB / 0B\ncode 0"), "{shown}");
}
