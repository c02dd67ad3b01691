//! Flags of `run` and `create` that concern what a container may do.

use std::fs;

use serde_json::json;

use crate::daemon::{Client, Daemon};
use crate::flags::{ask, inside, refused};

/// A line of `/proc/self/status` of a container with these flags.
#[track_caller]
fn status(daemon: &Daemon, client: Client, flags: &[&str], key: &str) -> String {
    let script = format!("grep ^{key}: /proc/self/status | cut -f 2");
    inside(daemon, client, flags, &script)
}

/// What this process, and so its daemon, can give at most.
fn own_bounding_set() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

with_both_clients! {
    fn capabilities(daemon: &Daemon, client: Client) {
        let bounding = |flags: &[&str]| u64::from_str_radix(&status(daemon, client, flags, "CapBnd"), 16).unwrap();
        let default = bounding(&[]);
        let all = own_bounding_set();
        assert_eq!(default, 0xa804_25fb);
        for name in ["NET_ADMIN", "net_admin", "CAP_NET_ADMIN", "cap_net_admin"] {
            assert_eq!(bounding(&["--cap-add", name]), default | 1 << 12, "{name}");
        }
        assert_eq!(bounding(&["--cap-drop", "all"]), 0);
        assert_eq!(bounding(&["--cap-drop", "ALL", "--cap-add", "chown"]), 1);
        assert_eq!(bounding(&["--cap-add", "ALL", "--cap-drop", "CHOWN"]) & 1, 0);
        assert_eq!(bounding(&["--cap-add", "ALL", "--cap-drop", "ALL"]), all, "as Docker has it");
        assert_eq!(bounding(&["--privileged", "--cap-drop", "ALL"]), all);
        for flag in ["--cap-add", "--cap-drop"] {
            let words = format!("invalid {}: unknown capability: \"CAP_FLY\"", if flag == "--cap-add" { "CapAdd" } else { "CapDrop" });
            refused(daemon, client, &[flag, "fly"], &words);
        }
    }

    fn no_new_privileges(daemon: &Daemon, client: Client) {
        for (option, value) in [("no-new-privileges", "1"), ("no-new-privileges=true", "1"), ("no-new-privileges:true", "1"), ("no-new-privileges=false", "0")] {
            assert_eq!(status(daemon, client, &["--security-opt", option], "NoNewPrivs"), value, "{option}");
        }
        assert_eq!(status(daemon, client, &[], "NoNewPrivs"), "0");
        refused(daemon, client, &["--security-opt", "no-new-privileges=maybe"], "no-new-privileges");
        let id = daemon.background(&["--security-opt", "no-new-privileges", "busybox", "sleep", "1000"]);
        assert!(daemon.with(client, &["exec", &id, "grep", "NoNewPrivs", "/proc/self/status"]).ok().ends_with('1'));
    }

    fn system_call_filters(daemon: &Daemon, client: Client) {
        assert_eq!(status(daemon, client, &[], "Seccomp"), "2");
        assert_eq!(status(daemon, client, &["--security-opt", "seccomp=builtin"], "Seccomp"), "2");
        assert_eq!(status(daemon, client, &["--security-opt", "seccomp=unconfined"], "Seccomp"), "0");
        let path = daemon.root.path().join("profile.json");
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]});
        fs::write(&path, profile.to_string()).unwrap();
        let option = format!("seccomp={}", path.display());
        let seen = inside(daemon, client, &["--security-opt", &option], "mkdir /x 2>&1; touch /y && echo made");
        assert!(seen.contains("No space left on device") && seen.ends_with("made"), "{seen}");
        fs::write(&path, "{").unwrap();
        refused(daemon, client, &["--security-opt", &option], "seccomp profile");
        fs::write(&path, r#"{"defaultAction":"SCMP_ACT_DANCE"}"#).unwrap();
        refused(daemon, client, &["--security-opt", &option], "seccomp profile");
        refused(daemon, client, &["--security-opt", "seccomp=/absent.json"], "opening seccomp profile (/absent.json) failed");
    }

    fn paths_of_the_system(daemon: &Daemon, client: Client) {
        let script = "head -c 1 /proc/kcore 2>/dev/null | wc -c; grep -c ' /proc/sys ' /proc/mounts || true; grep -c ' /sys/firmware ' /proc/mounts || true";
        assert_eq!(inside(daemon, client, &[], script), "0\n1\n1");
        let open = inside(daemon, client, &["--security-opt", "systempaths=unconfined"], &script[script.find("grep").unwrap()..]);
        assert_eq!(open, "0\n0");
        let id = daemon.with(client, &["create", "--security-opt", "systempaths=unconfined", "busybox"]).ok();
        assert_eq!(daemon.inspect(&id, "{{len .HostConfig.MaskedPaths}} {{len .HostConfig.ReadonlyPaths}}"), "0 0");
        refused(daemon, client, &["--security-opt", "systempaths=nonsense"], "systempaths=nonsense");
    }

    fn writable_cgroups(daemon: &Daemon, client: Client) {
        let script = "mkdir /sys/fs/cgroup/memory/mine 2>/dev/null && rmdir /sys/fs/cgroup/memory/mine && echo made || echo refused";
        assert_eq!(inside(daemon, client, &[], script), "refused");
        assert_eq!(inside(daemon, client, &["--security-opt", "writable-cgroups=true"], script), "made");
        assert_eq!(inside(daemon, client, &["--security-opt", "writable-cgroups=false"], script), "refused");
        assert_eq!(inside(daemon, client, &["--privileged", "--security-opt", "writable-cgroups=false"], script), "refused");
        refused(daemon, client, &["--security-opt", "writable-cgroups=maybe"], "writable-cgroups");
    }

    fn labels_and_profiles(daemon: &Daemon, client: Client) {
        for option in ["label=disable", "label=type:svirt_t", "label:disable", "apparmor=unconfined"] {
            assert_eq!(inside(daemon, client, &["--security-opt", option], "echo up"), "up", "{option}");
        }
        let mine = inside(daemon, client, &["--security-opt", "apparmor=unconfined"], "cat /proc/self/attr/current 2>/dev/null || echo none");
        assert!(mine.contains("unconfined") || mine.contains("none"), "{mine}");
        if !std::path::Path::new("/sys/module/apparmor/parameters/enabled").exists() {
            // Docker ignores a profile where the kernel knows none.
            assert_eq!(inside(daemon, client, &["--security-opt", "apparmor=docker-default"], "echo up"), "up");
        }
        refused(daemon, client, &["--security-opt", "nonsense=1"], "invalid --security-opt");
        refused(daemon, client, &["--security-opt", "nonsense"], "invalid --security-opt");
    }

    fn kernel_parameters(daemon: &Daemon, client: Client) {
        let flags = ["--sysctl", "net.ipv4.ip_forward=0", "--sysctl", "kernel.shmmax=123456", "--sysctl", "fs.mqueue.msg_max=15", "--sysctl", "kernel.msgmax=9000"];
        let seen = inside(daemon, client, &flags, "cd /proc/sys; cat net/ipv4/ip_forward kernel/shmmax fs/mqueue/msg_max kernel/msgmax");
        assert_eq!(seen, "0\n123456\n15\n9000");
        assert_ne!(fs::read_to_string("/proc/sys/kernel/shmmax").unwrap(), "123456\n");
        assert_eq!(inside(daemon, Client::Berth, &["--domainname", "", "--sysctl", "kernel.domainname=sea.test"], "cat /proc/sys/kernel/domainname"), "sea.test");
        refused(daemon, client, &["--sysctl", "vm.swappiness=1"], "vm.swappiness");
        refused(daemon, client, &["--sysctl", "kernel.panic=1"], "kernel.panic");
        refused(daemon, client, &["--sysctl", "net.ipv4.ip_forward=0", "--network", "host"], "sysctl \"net.ipv4.ip_forward\" not allowed in host network namespace");
        refused(daemon, client, &["--sysctl", "kernel.shmmax=1", "--ipc", "host"], "allowed in host ipc namespace");
        refused(daemon, Client::Berth, &["--sysctl", "kernel.domainname=x", "--uts", "host"], "sysctl \"kernel.domainname\" is not in a separate kernel namespace");
    }

    fn read_only_and_privileged(daemon: &Daemon, client: Client) {
        assert_eq!(inside(daemon, client, &["--read-only", "--tmpfs", "/t"], "touch /x 2>/dev/null || echo refused; touch /t/x && echo made"), "refused\nmade");
        let seen = inside(daemon, client, &["--privileged"], "grep ^Seccomp: /proc/self/status | cut -f 2; mount -t tmpfs none /mnt 2>/dev/null || mkdir -p /mnt && mount -t tmpfs none /mnt && echo mounted; grep ' /sys ' /proc/mounts | head -1 | cut -d ' ' -f 4 | cut -c 1-2");
        assert_eq!(seen.lines().collect::<Vec<_>>(), ["0", "mounted", "rw"]);
    }
}

/// Creates, starts and waits for a container through the API alone, and gives its log.
#[track_caller]
fn through_api(daemon: &Daemon, host: serde_json::Value, script: &str) -> String {
    let body = json!({"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": host}).to_string();
    let (code, text) = ask(daemon, "POST", "/containers/create", &body);
    assert_eq!(code, "201", "{text}");
    let made: serde_json::Value = serde_json::from_str(&text).unwrap();
    let id = made["Id"].as_str().unwrap().to_owned();
    daemon.berth(&["start", &id]).ok();
    daemon.wait(&id);
    daemon.berth(&["logs", &id]).ok()
}

#[test]
fn the_pressure_of_the_host_is_hidden_beside_dockers_list() {
    let daemon = Daemon::start();
    let script = "ls /proc/pressure | wc -l; wc -c < /proc/interrupts";
    let id = daemon.berth(&["create", "busybox", "sh", "-c", script]).ok();
    assert_eq!(daemon.berth(&["start", "-a", &id]).ok(), "0\n0");
    let listed = daemon.inspect(&id, "{{.HostConfig.MaskedPaths}}");
    assert!(listed.starts_with("[/proc/acpi ") && !listed.contains("/proc/pressure"), "{listed}");
}

#[test]
fn masked_and_readonly_paths_are_as_given() {
    let daemon = Daemon::start();
    let script = "for p in /proc/interrupts /proc/sys /proc/version; do grep -c \" $p \" /proc/mounts; done; wc -c < /proc/version";
    let own = through_api(&daemon, json!({"MaskedPaths": ["/proc/version"], "ReadonlyPaths": []}), script);
    assert_eq!(own.lines().collect::<Vec<_>>(), ["0", "0", "1", "0"]);
    let defaults = through_api(&daemon, json!({"MaskedPaths": null}), script);
    assert_eq!(defaults.lines().take(3).collect::<Vec<_>>(), ["1", "1", "0"]);
    let readonly = through_api(
        &daemon,
        json!({"ReadonlyPaths": ["/etc"]}),
        "touch /etc/x 2>/dev/null || echo refused; touch /tmpx && echo made",
    );
    assert_eq!(readonly, "refused\nmade");
    let privileged =
        through_api(&daemon, json!({"Privileged": true, "MaskedPaths": ["/proc/version"]}), script);
    assert_eq!(privileged.lines().last(), Some("0"), "what is asked for holds for privileged containers too");
}
