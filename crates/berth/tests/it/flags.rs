//! Flags of `run` and `create` that choose namespaces, names and files: each is seen inside, or on the host.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::daemon::{Client, Daemon};
use crate::output::{eventually, run};

/// The inode of a namespace of a process of the host.
fn namespace(pid: i32, kind: &str) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/{kind}")).unwrap().ino()
}

/// What a shell script prints in a new container with these flags.
#[track_caller]
pub fn inside(daemon: &Daemon, client: Client, flags: &[&str], script: &str) -> String {
    daemon.with(client, &[&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat()).ok()
}

/// The end of a container with these flags that is to be refused.
#[track_caller]
pub fn refused(daemon: &Daemon, client: Client, flags: &[&str], words: &str) {
    daemon.with(client, &[&["run", "--rm"], flags, &["busybox", "true"]].concat()).fails(125, words);
}

/// Asks the daemon over its socket; gives status and body.
pub fn ask(daemon: &Daemon, method: &str, path: &str, body: &str) -> (String, String) {
    let mut command = std::process::Command::new("curl");
    command.args(["-s", "-w", "\n%{http_code}", "-X", method, "--unix-socket"]).arg(daemon.socket());
    command.args(["-H", "Content-Type: application/json", "-d", body, &format!("http://localhost{path}")]);
    let text = run(&mut command).ok();
    let (body, code) = text.rsplit_once('\n').unwrap();
    (code.to_string(), body.trim_end().to_string())
}

with_both_clients! {
    fn pid_of_the_host_and_of_another(daemon: &Daemon, client: Client) {
        let own = std::process::id().to_string();
        let seen = inside(daemon, client, &["--pid", "host"], &format!("cat /proc/{own}/comm; readlink /proc/self/ns/pid"));
        let expected = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(seen, format!("{expected}pid:[{}]", namespace(std::process::id() as i32, "pid")));
        let other = daemon.background(&["--name", "other", "busybox", "sleep", "1234"]);
        let processes = inside(daemon, client, &["--pid", "container:other"], "ps; readlink /proc/self/ns/pid");
        assert!(processes.contains("sleep 1234"), "{processes}");
        assert!(processes.contains(&format!("pid:[{}]", namespace(daemon.init_pid(&other), "pid"))), "{processes}");
        refused(daemon, client, &["--pid", "container:absent"], "No such container: absent");
        refused(daemon, client, &["--pid", "nonsense"], "PID mode");
        daemon.berth(&["kill", "other"]).ok();
        daemon.wait("other");
        refused(daemon, client, &["--pid", "container:other"], "is not running");
        // The answer names the other by its ID, and blames the state of things, not the request.
        let joined = daemon.with(client, &["create", "--pid", "container:other", "busybox", "true"]).ok();
        assert_eq!(daemon.inspect(&joined, "{{.HostConfig.PidMode}}"), format!("container:{other}"));
        let (status, answer) = crate::api::request(daemon, "POST", &format!("/containers/{joined}/start"), None);
        assert_eq!(status, 500, "{answer}");
        let answer = answer.to_string();
        assert!(answer.contains("failed to join PID namespace") && answer.contains(&format!("{other} is not running")), "{answer}");
        daemon.berth(&["rename", "other", "another"]).ok();
        daemon.berth(&["start", "another"]).ok();
        daemon.with(client, &["start", &joined]).ok();
    }

    fn a_container_in_anothers_pid_namespace_lives_and_dies_alone(daemon: &Daemon, client: Client) {
        let other = daemon.background(&["--name", "other", "busybox", "sleep", "1000"]);
        let id = daemon.with(client, &["run", "-d", "--pid", "container:other", "busybox", "sh", "-c", "sleep 999 & exec sleep 998"]).ok();
        daemon.with(client, &["stop", "-t", "0", &id]).ok();
        assert_eq!(daemon.inspect(&other, "{{.State.Running}}"), "true");
        let listing = daemon.berth(&["exec", "other", "ps"]).ok();
        assert!(!listing.contains("sleep 99"), "{listing}");
    }

    fn ipc_modes(daemon: &Daemon, client: Client) {
        let share = daemon.with(client, &["run", "-d", "--name", "share", "--ipc", "shareable", "busybox", "sh", "-c", "echo hello > /dev/shm/note; sleep 1000"]).ok();
        daemon.with(client, &["run", "-d", "--name", "own", "--ipc", "private", "busybox", "sleep", "1000"]).ok();
        eventually("the note is written", || daemon.berth(&["exec", "share", "cat", "/dev/shm/note"]).stdout.contains("hello").then_some(()));
        let seen = inside(daemon, client, &["--ipc", "container:share"], "cat /dev/shm/note; echo back > /dev/shm/answer; readlink /proc/self/ns/ipc; grep -c ' /dev/mqueue ' /proc/mounts");
        assert_eq!(seen, format!("hello\nipc:[{}]\n1", namespace(daemon.init_pid(&share), "ipc")));
        assert_eq!(daemon.berth(&["exec", "share", "cat", "/dev/shm/answer"]).ok(), "back");
        refused(daemon, client, &["--ipc", "container:own"], "non-shareable IPC (hint: use IpcMode:shareable for the donor container)");
        refused(daemon, client, &["--ipc", "container:absent"], "No such container: absent");
        refused(daemon, client, &["--ipc", "nonsense"], "IPC mode");
        assert_eq!(inside(daemon, client, &["--ipc", "none"], "grep -c ' /dev/shm ' /proc/mounts || true"), "0");
        let host = inside(daemon, client, &["--ipc", "host"], "readlink /proc/self/ns/ipc; stat -c %d /dev/shm");
        let device = fs::metadata("/dev/shm").unwrap().dev();
        assert_eq!(host, format!("ipc:[{}]\n{device}", namespace(std::process::id() as i32, "ipc")));
        // What is shared is a mount of the host's too, as in Docker, and gone with its owner.
        let device = |name| daemon.berth(&["exec", name, "awk", "($5 == \"/dev/shm\") {printf $3}", "/proc/self/mountinfo"]).ok();
        let mounted = |device: &str| fs::read_to_string("/proc/self/mountinfo").unwrap().lines().any(|line| line.split(' ').nth(2) == Some(device));
        let (shared, private) = (device("share"), device("own"));
        assert!(mounted(&shared) && !mounted(&private), "{shared} {private}");
        daemon.berth(&["restart", "-t", "0", "share"]).ok();
        assert!(mounted(&device("share")));
        daemon.berth(&["rm", "-f", "share"]).ok();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&share), "{mounts}");
    }

    fn shared_memory_has_its_size(daemon: &Daemon, client: Client) {
        for mode in ["private", "shareable"] {
            let line = inside(daemon, client, &["--shm-size", "7m", "--ipc", mode], "df -k /dev/shm | tail -1 | awk '{print $2}'; stat -c %a /dev/shm");
            assert_eq!(line, "7168\n1777", "{mode}");
        }
        refused(daemon, client, &["--shm-size", "-1"], "");
        assert_eq!(inside(daemon, client, &["-v", "/tmp:/dev/shm", "--ipc", "shareable"], "stat -c %d /dev/shm"), fs::metadata("/tmp").unwrap().dev().to_string());
    }

    fn uts_of_the_host_and_names(daemon: &Daemon, client: Client) {
        let host = inside(daemon, client, &["--uts", "host"], "hostname; readlink /proc/self/ns/uts");
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        assert_eq!(host, format!("{name}\nuts:[{}]", namespace(std::process::id() as i32, "uts")));
        refused(daemon, client, &["--uts", "host", "--hostname", "x"], "conflicting options: hostname and the UTS mode");
        refused(daemon, client, &["--uts", "container:x"], "UTS mode");
        let named = inside(daemon, client, &["--hostname", "ship", "--domainname", "sea.test"], "hostname; cat /etc/hostname; cat /proc/sys/kernel/domainname; tail -1 /etc/hosts | cut -f 2");
        assert_eq!(named, "ship\nship\nsea.test\nship.sea.test ship");
        assert_eq!(inside(daemon, client, &["--hostname", "ship.sea.test"], "hostname; tail -1 /etc/hosts | cut -f 2"), "ship.sea.test\nship.sea.test ship");
        refused(daemon, client, &["--hostname", &"x".repeat(65)], "is too long (maximum 64 bytes)");
        assert_ne!(rustix::system::uname().domainname().to_string_lossy(), "sea.test");
    }

    fn cgroup_namespaces(daemon: &Daemon, client: Client) {
        let private = inside(daemon, client, &["--cgroupns", "private"], "cat /proc/self/cgroup; readlink /proc/self/ns/cgroup");
        assert!(private.lines().filter(|line| line.contains("::") || line.contains("memory")).all(|line| line.ends_with(":/")), "{private}");
        let host = inside(daemon, client, &["--cgroupns", "host", "--cidfile", daemon.root.path().join("cid").to_str().unwrap()], "cat /proc/self/cgroup; readlink /proc/self/ns/cgroup");
        let id = fs::read_to_string(daemon.root.path().join("cid")).unwrap();
        assert!(host.contains(&format!("memory:/berth/{id}")), "{host}");
        assert!(host.contains(&format!("cgroup:[{}]", namespace(std::process::id() as i32, "cgroup"))), "{host}");
        refused(daemon, client, &["--cgroupns", "nonsense"], "--cgroupns: invalid CGROUP mode");
    }

    fn networks_of_others(daemon: &Daemon, client: Client) {
        let other = daemon.background(&["--name", "other", "--hostname", "ship", "busybox", "sleep", "1000"]);
        let seen = inside(daemon, client, &["--network", "container:other"], "readlink /proc/self/ns/net; hostname; grep -c ship /etc/hosts");
        assert_eq!(seen, format!("net:[{}]\nship\n1", namespace(daemon.init_pid(&other), "net")));
        for (flags, words) in [
            (&["--hostname", "x"][..], "conflicting options: hostname and the network mode"),
            (&["--dns", "1.1.1.1"], "conflicting options: dns and the network mode"),
            (&["--add-host", "a:1.1.1.1"], "conflicting options: custom host-to-IP mapping and the network mode"),
            (&["-p", "80:80"], "conflicting options: port publishing and the container type network mode"),
            (&["--expose", "80"], "conflicting options: port exposing and the container type network mode"),
        ] {
            refused(daemon, client, &[&["--network", "container:other"], flags].concat(), words);
        }
        refused(daemon, client, &["--network", "container:absent"], "No such container: absent");
        daemon.berth(&["kill", "other"]).ok();
        daemon.wait("other");
        refused(daemon, client, &["--network", "container:other"], "cannot join network namespace of a non running container: container other is exited");
    }

    fn temporary_file_systems_with_options(daemon: &Daemon, client: Client) {
        let line = inside(daemon, client, &["--tmpfs", "/t:size=3m,mode=0750,uid=7,gid=8,exec"], "grep ' /t ' /proc/mounts; stat -c '%a %u %g' /t");
        assert!(line.contains("size=3072k") && line.contains("mode=750") && line.ends_with("\n750 7 8"), "{line}");
        assert!(line.contains("nosuid") && line.contains("nodev") && !line.contains("noexec"), "{line}");
        let plain = inside(daemon, client, &["--tmpfs", "/t"], "grep ' /t ' /proc/mounts; stat -c %a /t");
        assert!(plain.contains("noexec") && plain.ends_with("\n1777"), "{plain}");
        assert_eq!(inside(daemon, client, &["--tmpfs", "/t:ro"], "touch /t/x 2>/dev/null || echo refused"), "refused");
        refused(daemon, client, &["--tmpfs", "relative"], "invalid mount path: 'relative' mount path must be absolute");
        refused(daemon, client, &["--tmpfs", "/t:nonsense=1"], "invalid tmpfs option");
        assert_eq!(inside(daemon, client, &["--tmpfs", "/run:rw,noexec,nosuid,size=64k"], "df -k /run | tail -1 | awk '{print $2}'"), "64");
    }

    fn groups_by_name_and_number(daemon: &Daemon, client: Client) {
        assert_eq!(inside(daemon, client, &["--group-add", "1234", "-u", "5:6"], "id -G"), "6 1234");
        let named = inside(daemon, client, &["--group-add", "root", "--group-add", "777", "-u", "5:6"], "id -G");
        assert_eq!(named, "6 0 777");
        refused(daemon, client, &["--group-add", "nowhere"], "unable to find group nowhere: no matching entries in group file");
        let id = daemon.background(&["--group-add", "1234", "busybox", "sleep", "1000"]);
        assert!(daemon.with(client, &["exec", &id, "id", "-G"]).ok().split(' ').any(|g| g == "1234"));
    }

    fn an_init_of_its_own(daemon: &Daemon, client: Client) {
        let script = "(sleep 0.01 &); cat /proc/1/comm; echo $$; while ps -o stat | grep -q Z; do sleep 0.01; done; echo reaped";
        let seen = inside(daemon, client, &["--init"], script);
        let lines: Vec<_> = seen.lines().collect();
        assert!(lines[0].contains("init") && lines[1] != "1" && lines[2] == "reaped", "{seen}");
        assert_eq!(daemon.with(client, &["run", "--rm", "--init", "busybox", "sh", "-c", "kill -TERM $$"]).code, 143);
    }

    fn files_of_the_client(daemon: &Daemon, client: Client) {
        let file = |name: &str, text: &str| {
            let path = daemon.root.path().join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let labels = file("labels", "one=1\n# no label\ntwo\n");
        let cid = daemon.root.path().join("cid").to_str().unwrap().to_owned();
        let id = daemon.with(client, &["create", "--label-file", &labels, "--label", "two=2", "--cidfile", &cid, "busybox"]).ok();
        assert_eq!(fs::read_to_string(&cid).unwrap(), id);
        assert_eq!(daemon.inspect(&id, "{{.Config.Labels.one}} {{.Config.Labels.two}} {{len .Config.Labels}}"), "1 2 2");
        daemon.with(client, &["create", "--cidfile", &cid, "busybox"]).fails(1, "container ID file found");
        let env = file("env", "A=1\n");
        assert_eq!(inside(daemon, client, &["--env-file", &env], "echo $A"), "1");
    }

    fn what_only_inspect_shows(daemon: &Daemon, client: Client) {
        let flags = ["--stop-timeout", "7", "--stop-signal", "SIGINT", "--annotation", "a.b=c", "--health-cmd", "true", "--health-interval", "5s",
            "--health-retries", "4", "--health-start-period", "2s", "--health-start-interval", "1s", "--health-timeout", "3s"];
        let id = daemon.with(client, &[&["create"], &flags[..], &["busybox"]].concat()).ok();
        let shown = daemon.inspect(&id, "{{.Config.StopTimeout}} {{.Config.StopSignal}} {{json .HostConfig.Annotations}}");
        assert_eq!(shown, "7 SIGINT {\"a.b\":\"c\"}");
        let check: serde_json::Value = serde_json::from_str(&daemon.inspect(&id, "{{json .Config.Healthcheck}}")).unwrap();
        assert_eq!(check, serde_json::json!({"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_u64, "Timeout": 3_000_000_000_u64,
            "StartPeriod": 2_000_000_000_u64, "StartInterval": 1_000_000_000_u64, "Retries": 4}));
        let none = daemon.with(client, &["create", "--no-healthcheck", "busybox"]).ok();
        assert_eq!(daemon.inspect(&none, "{{json .Config.Healthcheck.Test}}"), "[\"NONE\"]");
        refused(daemon, client, &["--no-healthcheck", "--health-cmd", "x"], "--no-healthcheck conflicts with --health-* options");
        refused(daemon, client, &["--health-cmd", "x", "--health-interval", "1us"], "Interval in Healthcheck cannot be less than 1ms");
        refused(daemon, client, &["--health-interval=-1s"], "--health-interval cannot be negative");
    }

    fn runtimes_platforms_and_pulls(daemon: &Daemon, client: Client) {
        for name in ["runc", "io.containerd.runc.v2"] {
            assert_eq!(inside(daemon, client, &["--runtime", name], "echo up"), "up");
        }
        refused(daemon, client, &["--runtime", "nonsense"], "unknown or invalid runtime name: nonsense");
        assert_eq!(inside(daemon, client, &["--isolation", "default"], "echo up"), "up");
        refused(daemon, client, &["--isolation", "hyperv"], "invalid isolation");
        assert_eq!(inside(daemon, client, &["--platform", "linux/amd64", "--pull", "never"], "echo up"), "up");
        refused(daemon, client, &["--platform", "linux/s390x", "--pull", "never"], "does not provide the specified platform (linux/s390x)");
        refused(daemon, client, &["--platform", "a/b/c/d"], "\"a/b/c/d\": ");
        refused(daemon, client, &["--pull", "sometimes"], "invalid pull option: 'sometimes'");
        daemon.with(client, &["run", "--rm", "--pull", "never", "absent"]).fails(125, "No such image: absent");
        refused(daemon, client, &["--storage-opt", "size=10m"], "--storage-opt");
        refused(daemon, client, &["--userns", "nonsense"], "--userns: invalid USER mode");
    }
}

#[test]
fn modes_that_cannot_be_are_refused_by_the_daemon_too() {
    let daemon = Daemon::start();
    for (field, words) in [
        ("PidMode", "invalid PID mode: nonsense"),
        ("IpcMode", "invalid IPC mode: nonsense"),
        ("UTSMode", "invalid UTS mode: nonsense"),
        ("CgroupnsMode", "invalid cgroup namespace mode: nonsense"),
        ("UsernsMode", "invalid user namespace mode: nonsense"),
    ] {
        let body = format!(r#"{{"Image":"busybox","HostConfig":{{"{field}":"nonsense"}}}}"#);
        let (code, text) = ask(&daemon, "POST", "/containers/create", &body);
        assert!(code == "400" && text.contains(words), "{code} {text}");
    }
}
