//! `daemon.json`, flags, and settings that change while the daemon runs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::{Client, Daemon, binary};
use crate::files;
use crate::output::{Output, eventually, run};

/// A daemon with a configuration file, which is in a folder of its own.
struct Configured {
    daemon: Daemon,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Configured {
    fn start(json: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("daemon.json");
        fs::write(&file, json).unwrap();
        let daemon = Daemon::empty(&[&["--config-file", file.to_str().unwrap()], flags].concat());
        daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
        Self { daemon, file, _folder: folder }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.daemon.pid().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Changes the file and waits until the log says `text` once more.
    fn reload(&self, json: &str, text: &str) {
        let count = || self.daemon.log().matches(text).count();
        let before = count();
        fs::write(&self.file, json).unwrap();
        self.signal(Signal::HUP);
        eventually(text, || (count() > before).then_some(()));
    }

    fn info(&self, template: &str) -> String {
        self.daemon.with(Client::Docker, &["info", "-f", template]).ok()
    }
}

fn validate(json: Option<&str>, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("daemon.json");
    if let Some(json) = json {
        fs::write(&file, json).unwrap();
    }
    run(Command::new(binary()).args(["daemon", "--validate", "--config-file"]).arg(&file).args(arguments))
}

/// Whatever builds leave behind stays under its ceiling, without anyone's doing.
#[test]
fn the_cache_of_builds_has_a_ceiling() {
    let json = r#"{"builder": {"gc": {"policy": [{"all": true, "maxUsedSpace": "4MB"}]}}}"#;
    let configured = Configured::start(json, &[]);
    let daemon = &configured.daemon;
    let folder = tempfile::tempdir().unwrap();
    for number in 1..=3 {
        let text = format!(
            "FROM busybox AS tool\nRUN head -c 2500000 /dev/urandom > /{number}\nFROM busybox\nRUN --mount=from=tool,target=/t wc -c /t/{number}\n"
        );
        fs::write(folder.path().join("Dockerfile"), text).unwrap();
        daemon.berth(&["build", "-t", "made", folder.path().to_str().unwrap()]).ok();
    }
    let steps = || daemon.berth(&["builder", "du", "--filter", "type=regular", "--format", "{{.Size}}"]).ok();
    let large = || steps().lines().filter(|size| size.starts_with("2.5")).count();
    eventually("the oldest step goes", || (large() == 1).then_some(()));
    assert!(daemon.log().contains("to stay under its ceiling"), "{}", daemon.log());
    validate(Some(r#"{"builder": {"gc": {"defaultKeepStorage": "much"}}}"#), &[])
        .fails(1, "invalid value of defaultKeepStorage in the builder's settings");
}

#[test]
fn files_are_validated_as_dockerd_does() {
    for json in ["", "\n", "{}", r#"{"debug": true, "features": {"buildkit": true}}"#] {
        let output = validate(Some(json), &[]);
        assert!(output.code == 0 && output.stderr.contains("configuration OK"), "{json}: {output:?}");
    }
    let failed = "unable to configure the Docker daemon with file";
    for (json, text) in [
        (
            r#"{"unknown-option": true}"#,
            "the following directives don't match any configuration option: unknown-option",
        ),
        ("{", "invalid JSON"),
        (r#"{"debug": "yes"}"#, "debug"),
    ] {
        let output = validate(Some(json), &[]).fails(1, failed);
        assert!(output.stderr.contains(text), "{output:?}");
    }
    validate(None, &[]).fails(1, failed);
    validate(Some(r#"{"labels": ["a"]}"#), &[]).fails(1, "bad attribute format: a");
    let output = validate(Some(r#"{"hosts": ["fd://"], "debug": false}"#), &["-H", "unix:///x", "-D"]);
    output.fails(
        1,
        "the following directives are specified both as a flag and in the configuration file: hosts: (from flag: \
         [unix:///x], from file: [fd://]), debug: (from flag: true, from file: false)",
    );
}

#[test]
fn devices_by_name_can_be_turned_off() {
    for (json, flags, expected) in [
        ("{}", &[][..], "[/etc/cdi /var/run/cdi]"),
        (r#"{"features": {"cdi": true}}"#, &[], "[/etc/cdi /var/run/cdi]"),
        (r#"{"features": {"cdi": true}}"#, &["--cdi-spec-dir=/foo", "--cdi-spec-dir=/bar"], "[/foo /bar]"),
        (r#"{"features": {"cdi": false}}"#, &[], "[]"),
        (r#"{"cdi-spec-dirs": []}"#, &[], "[]"),
        ("{}", &["--cdi-spec-dir="], "[]"),
    ] {
        let configured = Configured::start(json, flags);
        assert_eq!(configured.info("{{.CDISpecDirs}}"), expected, "{json} {flags:?}");
    }
}

#[test]
fn defaults_of_the_file_reach_containers() {
    let json = r#"{
        "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 123, "Hard": 456}},
        "default-shm-size": "32M", "no-new-privileges": true, "init": true,
        "dns": ["192.0.2.53"], "dns-search": ["example.test"], "dns-opts": ["ndots:3"],
        "host-gateway-ips": ["192.0.2.1"], "labels": ["tier=test"], "containerd": "/run/containerd.sock"
    }"#;
    let configured = Configured::start(json, &["--default-ipc-mode=shareable"]);
    let daemon = &configured.daemon;
    let script = "ulimit -Sn; ulimit -Hn; df -k /dev/shm | tail -n 1 | awk '{print $2}'; \
                  grep NoNewPrivs /proc/self/status | cut -f2; cat /etc/resolv.conf; grep gw /etc/hosts; \
                  tr '\\0' ' ' < /proc/1/cmdline";
    let seen =
        daemon.berth(&["run", "--rm", "--add-host", "gw:host-gateway", "busybox", "sh", "-c", script]).ok();
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..4], ["123", "456", "32768", "1"], "{seen}");
    for line in ["nameserver 192.0.2.53", "search example.test", "options ndots:3", "192.0.2.1\tgw"] {
        assert!(lines.contains(&line), "{line:?} in {seen}");
    }
    assert!(!lines.last().unwrap().starts_with("sh -c"), "an init is the first process: {seen}");
    let own = ["run", "--rm", "--ulimit", "nofile=77", "--dns", "198.51.100.1", "busybox", "sh", "-c"];
    let own = daemon.berth(&[&own[..], &["ulimit -n; grep ^nameserver /etc/resolv.conf"]].concat()).ok();
    assert_eq!(own, "77\nnameserver 198.51.100.1", "what a container says itself wins");

    let id = daemon.background(&["busybox", "sleep", "1000"]);
    assert_eq!(daemon.inspect(&id, "{{.HostConfig.IpcMode}} {{.HostConfig.ShmSize}}"), "shareable 33554432");
    daemon.berth(&["rm", "-f", &id]).ok();
    assert_eq!(configured.info("{{.Labels}}"), "[tier=test]");
    assert!(configured.info("{{.SecurityOptions}}").contains("name=no-new-privileges"));
    assert_eq!(daemon.log().matches("no effect").count(), 1, "{}", daemon.log());
}

#[test]
fn the_default_filter_of_system_calls_can_be_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("profile.json");
    let deny = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}]}"#;
    fs::write(&profile, deny).unwrap();
    let configured = Configured::start("{}", &["--seccomp-profile", profile.to_str().unwrap()]);
    let daemon = &configured.daemon;
    assert!(
        configured
            .info("{{.SecurityOptions}}")
            .contains(&format!("name=seccomp,profile={}", profile.display()))
    );
    let change = ["busybox", "chmod", "700", "/tmp"];
    assert_ne!(daemon.berth(&[&["run", "--rm"], &change[..]].concat()).code, 0);
    daemon.berth(&[&["run", "--rm", "--security-opt", "seccomp=unconfined"], &change[..]].concat()).ok();
    let id = daemon.background(&["busybox", "sleep", "1000"]);
    assert_ne!(
        daemon.berth(&["exec", &id, "chmod", "700", "/tmp"]).code,
        0,
        "also for what is executed later"
    );
}

#[test]
fn settings_change_while_containers_run() {
    let configured = Configured::start(r#"{"labels": ["a=1"]}"#, &["--shutdown-timeout=7"]);
    let daemon = &configured.daemon;
    let id = daemon.background(&["busybox", "sleep", "1000"]);
    let pid = daemon.init_pid(&id);
    let new = r#"{
        "labels": ["bar=foo"], "debug": true, "live-restore": false, "max-concurrent-downloads": 1,
        "insecure-registries": ["r.example:5000"], "registry-mirrors": ["https://m.example"], "default-shm-size": 4096
    }"#;
    configured.reload(new, "Reloaded configuration");
    assert_eq!(configured.info("{{.Labels}} {{.Debug}} {{.LiveRestoreEnabled}}"), "[bar=foo] true false");
    assert_eq!(configured.info("{{.RegistryConfig.Mirrors}}"), "[https://m.example/]");
    assert!(configured.info("{{json .RegistryConfig.IndexConfigs}}").contains("r.example:5000"));
    assert_eq!(daemon.init_pid(&id), pid);
    eventually("debug messages", || daemon.log().contains("DEBUG").then_some(()));
    let shm = daemon.berth(&["create", "busybox", "true"]).ok();
    assert_eq!(daemon.inspect(&shm, "{{.HostConfig.ShmSize}}"), "4096");

    // The client cuts moments down to seconds: the end is in the future, so that this second is not left out.
    let events = ["events", "--since=1", "--until=-1s", "--filter=type=daemon"];
    let line = daemon.with(Client::Docker, &events).ok();
    let id = configured.info("{{.ID}}");
    for part in [
        format!("daemon reload {id} (").as_str(),
        "debug=true",
        "labels=[\"bar=foo\"]",
        "live-restore=false",
        "max-concurrent-downloads=1",
        "max-concurrent-uploads=5",
        "insecure-registries=[\"r.example:5000\"]",
        "shutdown-timeout=7",
        "default-runtime=berth",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing() {
    let configured = Configured::start(r#"{"labels": ["a=1"]}"#, &["--shutdown-timeout=7"]);
    configured.reload(r#"{"labels": ["a=2"], "nonsense": 1}"#, "nonsense");
    configured.reload("{", "invalid JSON");
    configured.reload(r#"{"labels": ["a=2"], "shutdown-timeout": 9}"#, "specified both as a flag");
    assert_eq!(configured.info("{{.Labels}}"), "[a=1]");
    configured.signal(Signal::USR1);
    configured.reload(r#"{"labels": ["a=3"]}"#, "Reloaded configuration");
    assert_eq!(configured.info("{{.Labels}}"), "[a=3]");
}

#[test]
fn live_restore_can_be_turned_off_while_the_daemon_runs() {
    let mut configured = Configured::start("{}", &[]);
    let id = configured.daemon.background(&["busybox", "sleep", "1000"]);
    let pid = configured.daemon.init_pid(&id);
    configured.reload(r#"{"live-restore": false}"#, "Reloaded configuration");
    assert_eq!(configured.daemon.stop(), 0);
    assert!(fs::metadata(format!("/proc/{pid}")).is_err(), "the container was stopped");
}

#[test]
fn without_live_restore_survivors_end_before_policies_apply() {
    let mut configured = Configured::start("{}", &["--live-restore=false", "--default-stop-timeout=2"]);
    let daemon = &mut configured.daemon;
    let plain = daemon.background(&["busybox", "sleep", "1000"]);
    let deaf = daemon.background(&["busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1; done"]);
    let always = daemon.background(&["--restart=always", "busybox", "sleep", "1000"]);
    let pids: Vec<i32> = [&plain, &deaf, &always].map(|id| daemon.init_pid(id)).into();
    daemon.kill();
    assert!(
        pids.iter().all(|pid| fs::metadata(format!("/proc/{pid}")).is_ok()),
        "they go on without a daemon"
    );
    daemon.launch();
    for id in [&plain, &deaf] {
        assert_eq!(daemon.inspect(id, "{{.State.Status}} {{.NetworkSettings.SandboxID}}").trim(), "exited");
    }
    eventually("its policy starts it", || {
        (daemon.inspect(&always, "{{.State.Running}}") == "true").then_some(())
    });
    assert!(!pids.contains(&daemon.init_pid(&always)));
    assert!(pids.iter().all(|pid| fs::metadata(format!("/proc/{pid}")).is_err()));
}

#[test]
fn containers_end_in_order_with_the_host() {
    let mut configured = Configured::start("{}", &[]);
    let script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let flags = ["--name", "cc", "--restart", "unless-stopped", "busybox", "sh", "-c", script];
    configured.daemon.background(&flags);
    let ready = |daemon: &Daemon, times| {
        let logs = || daemon.berth(&["logs", "cc"]).stdout;
        eventually("it is ready", || (logs().matches("ready").count() == times).then_some(()));
    };
    ready(&configured.daemon, 1);
    let pid = configured.daemon.init_pid("cc");
    assert_eq!(configured.daemon.stop(), 0);
    assert!(fs::metadata(format!("/proc/{pid}")).is_ok(), "the daemon's end is not the container's");
    configured.daemon.launch();
    configured.signal(Signal::POWER);
    eventually("it is understood", || configured.daemon.log().contains("the host goes down").then_some(()));
    assert_eq!(configured.daemon.inspect("cc", "{{.State.Running}}"), "true");
    assert_eq!(configured.daemon.stop(), 0);
    assert!(fs::metadata(format!("/proc/{pid}")).is_err(), "the container was stopped");
    configured.daemon.launch();
    // No client has stopped it: with the host it starts again.
    ready(&configured.daemon, 2);
    let logs = configured.daemon.berth(&["logs", "cc"]).ok();
    assert_eq!(logs, "ready\nbye\nready");
}

#[test]
fn containers_stop_side_by_side_and_a_second_signal_does_not_wait() {
    let configured = Configured::start("{}", &["--live-restore=false", "--default-stop-timeout=2"]);
    let daemon = &configured.daemon;
    // Deaf to the stop signal: each takes the whole time.
    let deaf = ["busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1; done"];
    let pids: Vec<i32> = (0..4).map(|_| daemon.init_pid(&daemon.background(&deaf))).collect();
    let started = std::time::Instant::now();
    let mut configured = configured;
    assert_eq!(configured.daemon.stop(), 0);
    assert!(started.elapsed() < std::time::Duration::from_secs(7), "{:?}", started.elapsed());
    assert!(pids.iter().all(|pid| fs::metadata(format!("/proc/{pid}")).is_err()));

    let mut patient = Configured::start("{}", &["--live-restore=false", "--default-stop-timeout=300"]);
    let pid = patient.daemon.init_pid(&patient.daemon.background(&deaf));
    patient.signal(Signal::TERM);
    eventually("the end begins", || patient.daemon.log().contains("stopping").then_some(()));
    let started = std::time::Instant::now();
    patient.daemon.stop();
    assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(fs::metadata(format!("/proc/{pid}")).is_ok(), "nobody killed it");
}

#[test]
fn messages_may_be_json() {
    let configured = Configured::start(r#"{"log-format": "json", "raw-logs": true}"#, &[]);
    for line in configured.daemon.log().lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(
            object["msg"].is_string() && object["level"].is_string() && object["time"].is_string(),
            "{line}"
        );
    }
}

#[test]
fn systemd_is_told_how_it_goes() {
    let mut daemon = Daemon::empty(&[]);
    daemon.stop();
    let path = daemon.root.path().join("notify.sock");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let next = || {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let mut child = daemon.command().env("NOTIFY_SOCKET", &path).spawn().unwrap();
    let pid = Pid::from_child(&child);
    assert_eq!(next(), "READY=1");
    daemon.berth(&["ps"]).ok();
    kill_process(pid, Signal::HUP).unwrap();
    let reloading = next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(next(), "READY=1");
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(next(), "STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_installation_has_an_id_that_can_be_chosen() {
    let mut configured = Configured::start("{}", &[]);
    let path = configured.daemon.data_root().join("engine-id");
    assert_eq!(configured.info("{{.ID}}"), fs::read_to_string(&path).unwrap());
    configured.daemon.stop();
    fs::write(&path, "this-is-the-engine-id").unwrap();
    configured.daemon.launch();
    assert_eq!(configured.info("{{.ID}}"), "this-is-the-engine-id");
}

#[test]
fn a_proxy_that_is_named_has_to_be_there() {
    for (arguments, why) in [
        (["--userland-proxy-path", "/does/not/exist"], "invalid userland-proxy-path"),
        (["--userland-proxy-path", "/etc/passwd"], "permission denied"),
        (["--userland-proxy-path", "docker-proxy"], "must be an absolute path: docker-proxy"),
    ] {
        validate(Some("{}"), &arguments).fails(1, why);
        let [flag, path] = arguments;
        assert_eq!(validate(Some("{}"), &["--userland-proxy=false", flag, path]).code, 0);
    }
    assert_eq!(validate(Some("{}"), &["--userland-proxy-path", "/bin/sh"]).code, 0);
}
