//! What the process inside sees is what Docker gives it.

use crate::daemon::Daemon;

fn inside(daemon: &Daemon, flags: &[&str], script: &str) -> String {
    daemon.berth(&[&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat()).ok()
}

#[test]
fn signal_dispositions_are_the_default_and_none_is_blocked() {
    let daemon = Daemon::start();
    for flags in [&[][..], &["-t"], &["--init"]] {
        // The process itself, not a shell, which would change what it inherits.
        let run =
            [&["run", "--rm"], flags, &["busybox", "grep", "-E", "Sig(Ign|Blk|Cgt)", "/proc/self/status"]]
                .concat();
        let status = daemon.berth(&run).ok();
        for line in status.lines() {
            let set = line.split_whitespace().nth(1).unwrap();
            assert_eq!(u64::from_str_radix(set.trim(), 16).unwrap(), 0, "{flags:?}: {status}");
        }
    }
    let exec = daemon.background(&["busybox", "sleep", "1000"]);
    let status = daemon.berth(&["exec", &exec, "grep", "SigIgn", "/proc/self/status"]).ok();
    assert!(status.ends_with("0000000000000000"), "{status}");
}

#[test]
fn a_broken_pipe_kills_its_writer() {
    let daemon = Daemon::start();
    assert_eq!(
        inside(&daemon, &[], "yes | head -1; sh -c 'yes; echo $? >&2' 2>&1 | head -1 >/dev/null; echo end"),
        "y\nend"
    );
}

#[test]
fn umask_limits_and_environment() {
    let daemon = Daemon::start();
    assert_eq!(inside(&daemon, &[], "umask"), "0022");
    let hard = std::fs::read_to_string("/proc/self/limits").unwrap();
    let hard = hard
        .lines()
        .find(|l| l.starts_with("Max open files"))
        .unwrap()
        .split_whitespace()
        .nth(4)
        .unwrap()
        .to_string();
    assert_eq!(inside(&daemon, &[], "ulimit -Hn"), hard);
    let environment =
        inside(&daemon, &["--hostname", "ship"], "env | grep -vE '^(PWD|SHLVL|OLDPWD|_)=' | sort");
    assert_eq!(environment, "HOME=/root\nHOSTNAME=ship\nPATH=/bin:/usr/bin");
    assert!(inside(&daemon, &["-t"], "echo $TERM").starts_with("xterm"));
}

#[test]
fn only_the_standard_descriptors_are_open() {
    let daemon = Daemon::start();
    for flags in [&[][..], &["-i"], &["--init"], &["-t"]] {
        let run = [&["run", "--rm"], flags, &["busybox", "ls", "/proc/self/fd"]].concat();
        let text = daemon.berth(&run).ok();
        // The fourth is that of the directory being listed.
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "{flags:?}");
    }
}

#[test]
fn devices_are_the_standard_ones() {
    let daemon = Daemon::start();
    let listing = inside(&daemon, &[], "ls /dev | tr '\\n' ' '");
    assert_eq!(
        listing.trim(),
        "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
    let numbers = inside(
        &daemon,
        &[],
        "stat -c '%n %t:%T %a' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty",
    );
    let expected = "/dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/full 1:7 666\n/dev/random 1:8 666\n/dev/urandom 1:9 666\n/dev/tty 5:0 666";
    assert_eq!(numbers, expected);
    assert_eq!(
        inside(&daemon, &[], "for link in fd stdin stdout stderr ptmx; do readlink /dev/$link; done"),
        "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx"
    );
    assert!(inside(&daemon, &["-t"], "ls /dev").contains("console"));
    daemon
        .berth(&["run", "--rm", "busybox", "sh", "-c", "mknod /x b 8 0 && head -c 1 /x"])
        .fails(1, "not permitted");
}

#[test]
fn proc_and_sys_are_masked_and_read_only() {
    let daemon = Daemon::start();
    assert_eq!(inside(&daemon, &[], "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c"), "0");
    assert_eq!(
        inside(&daemon, &[], "ls /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v : | wc -w"),
        "0"
    );
    for path in [
        "/proc/sys/kernel/domainname",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/sys/kernel/profiling",
    ] {
        let output = daemon.berth(&["run", "--rm", "busybox", "sh", "-c", &format!("echo 1 > {path}")]);
        assert_eq!(output.code, 1, "{path}: {output:?}");
    }
    let mounts = inside(&daemon, &[], "cat /proc/mounts");
    for line in [
        "proc /proc proc rw,nosuid,nodev,noexec",
        "sysfs /sys sysfs ro,nosuid,nodev,noexec",
        "/sys/fs/cgroup",
        "shm /dev/shm tmpfs rw,nosuid,nodev,noexec",
        "mqueue /dev/mqueue",
        "devpts /dev/pts devpts rw,nosuid,noexec",
    ] {
        assert!(mounts.contains(line), "no {line:?} in\n{mounts}");
    }
    assert!(mounts.lines().filter(|l| l.contains("cgroup")).all(|l| l.contains(" ro,")), "{mounts}");
    assert_eq!(
        inside(&daemon, &[], "stat -f -c %T /dev/shm; df -k /dev/shm | tail -1 | awk '{print $2}'"),
        "tmpfs\n65536"
    );
}

#[test]
fn low_ports_and_ping_are_for_everyone() {
    let daemon = Daemon::start();
    let text = inside(
        &daemon,
        &[],
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range",
    );
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "0", "2147483647"]);
}

#[test]
fn host_name_and_name_files() {
    let daemon = Daemon::start();
    let id = daemon.background(&["busybox", "sleep", "1000"]);
    let text = daemon.berth(&["exec", &id, "sh", "-c", "hostname; cat /etc/hostname"]).ok();
    assert_eq!(text, format!("{0}\n{0}", &id[..12]));
    let hosts = daemon.berth(&["exec", &id, "cat", "/etc/hosts"]).ok();
    for line in ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback", "fe00::\tip6-localnet"]
    {
        assert!(hosts.contains(line), "no {line:?} in\n{hosts}");
    }
    assert!(daemon.berth(&["exec", &id, "cat", "/etc/resolv.conf"]).code == 0);
    daemon.berth(&["exec", &id, "sh", "-c", "echo '1.2.3.4 added' >> /etc/hosts"]).ok();
}

#[test]
fn capabilities_are_dockers_and_flags_change_them() {
    let daemon = Daemon::start();
    let caps = |flags: &[&str]| {
        inside(
            &daemon,
            flags,
            "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | awk '{print $2}' | tr '\\n' ' '",
        )
    };
    let (none, docker) = ("0000000000000000", "00000000a80425fb");
    assert_eq!(caps(&[]).trim(), format!("{none} {docker} {docker} {docker} {none}"));
    assert_eq!(caps(&["--cap-drop", "ALL"]).trim(), [none; 5].join(" "));
    let chown = "0000000000000001";
    assert_eq!(
        caps(&["--cap-drop", "ALL", "--cap-add", "CHOWN"]).trim(),
        format!("{none} {chown} {chown} {chown} {none}")
    );
    let added = "00000000a80435fb";
    assert_eq!(caps(&["--cap-add", "NET_ADMIN"]).trim(), format!("{none} {added} {added} {added} {none}"));
    // An ordinary user has none, but keeps the bounding set.
    assert_eq!(caps(&["-u", "1000"]).trim(), format!("{none} {none} {none} {docker} {none}"));
}

#[test]
fn privileged_means_everything() {
    let daemon = Daemon::start();
    let text = inside(
        &daemon,
        &["--privileged"],
        "grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; mount -t tmpfs t /tmp && echo mounted; ls /dev | wc -l; grep ' /sys ' /proc/mounts",
    );
    let ours = std::fs::read_to_string("/proc/self/status").unwrap();
    let bound = ours.lines().find_map(|l| l.strip_prefix("CapBnd:\t")).unwrap().to_string();
    assert!(text.contains(&format!("CapEff:\t{bound}")), "{text}");
    assert!(text.contains("Seccomp:\t0") && text.contains("mounted") && text.contains("sysfs rw"), "{text}");
    let mine = inside(&daemon, &[], "grep Seccomp: /proc/self/status; mount -t tmpfs t /tmp 2>&1 | head -1");
    assert!(mine.contains("Seccomp:\t2") && mine.contains("permission denied"), "{mine}");
}

#[test]
fn every_namespace_is_its_own() {
    let daemon = Daemon::start();
    let list = "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done";
    let text = inside(&daemon, &["--cgroupns", "private"], list);
    for (line, name) in text.lines().zip(["cgroup", "ipc", "mnt", "net", "pid", "uts"]) {
        assert_ne!(
            line,
            std::fs::read_link(format!("/proc/thread-self/ns/{name}")).unwrap().to_str().unwrap()
        );
    }
    assert_eq!(inside(&daemon, &[], "echo $$"), "1");
}
