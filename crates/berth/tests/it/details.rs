//! What Moby's own command-line suites look at and nothing else here does.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::json;

use crate::api::{ask, refused, request};
use crate::daemon::{Client, Daemon};
use crate::output::eventually;

with_both_clients! {
    fn following_a_long_log_loses_no_line(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "-d", "--name", "cc", "busybox", "seq", "1", "50000"]).ok();
        daemon.wait("cc");
        let expected: Vec<String> = (1..=50_000).map(|number| number.to_string()).collect();
        let logs = daemon.with(client, &["logs", "-f", "cc"]).ok();
        let missing: Vec<_> = {
            let found: std::collections::BTreeSet<&str> = logs.lines().collect();
            expected.iter().filter(|line| !found.contains(line.as_str())).collect()
        };
        assert!(missing.is_empty(), "{missing:?}");
        assert!(logs.lines().eq(expected.iter().map(String::as_str)), "in order, each once");
    }

    fn an_empty_home_is_none(daemon: &Daemon, client: Client) {
        let show = ["busybox", "sh", "-c", "env | grep ^HOME="];
        let run = |options: &[&str]| {
            daemon.with(client, &[&["run", "--rm"], options, &show].concat()).ok()
        };
        assert_eq!(run(&["-e", "HOME="]), "HOME=/root");
        assert_eq!(run(&["-e", "HOME=/elsewhere"]), "HOME=/elsewhere");
    }

    fn the_primary_group_is_a_supplementary_one_too(daemon: &Daemon, client: Client) {
        let groups = |options: &[&str]| {
            let show = ["busybox", "grep", "^Groups:", "/proc/self/status"];
            let line = daemon.with(client, &[&["run", "--rm"], options, &show].concat()).ok();
            line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(groups(&[]).first().unwrap(), "0");
        assert_eq!(groups(&["-u", "7:8"]), ["8"]);
        assert_eq!(groups(&["-u", "7:8", "--group-add", "9", "--group-add", "8"]), ["8", "9"]);
        daemon.with(client, &["run", "-d", "--name", "cc", "-u", "7:8", "busybox", "sleep", "1000"]).ok();
        let later = daemon.with(client, &["exec", "cc", "grep", "^Groups:", "/proc/self/status"]).ok();
        assert_eq!(later.split_whitespace().collect::<Vec<_>>(), ["Groups:", "8"]);
    }

    fn a_read_only_container_cannot_write_the_generated_files(daemon: &Daemon, client: Client) {
        let script = "for name in hosts hostname resolv.conf; do cat /etc/$name > /dev/null || exit 1; \
                      (echo x >> /etc/$name) 2> /dev/null && echo wrote $name; done; true";
        let run = |options: &[&str]| {
            daemon.with(client, &[&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat()).ok()
        };
        assert_eq!(run(&["--read-only"]), "");
        assert_eq!(run(&[]), "wrote hosts\nwrote hostname\nwrote resolv.conf");
    }

    fn networks_are_joined_over_several_containers(daemon: &Daemon, client: Client) {
        let background = |name: &str, network: &str| {
            let arguments = ["run", "-d", "--name", name, "--network", network, "busybox", "sleep", "1000"];
            daemon.with(client, &arguments).ok();
        };
        background("first", "bridge");
        background("second", "container:first");
        background("third", "container:second");
        let hosts = |name: &str| daemon.with(client, &["exec", name, "cat", "/etc/hosts", "/etc/hostname"]).ok();
        assert_eq!(hosts("third"), hosts("first"));
        assert_eq!(hosts("second"), hosts("first"));
    }

    fn ps_filters_by_the_published_port_of_the_host(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "-d", "--name", "cc", "-p", "127.0.0.1:4711:90", "busybox", "sleep", "1000"]).ok();
        let names = |filter: &str| daemon.with(client, &["ps", "--format", "{{.Names}}", "--filter", filter]).ok();
        assert_eq!(names("publish=4711"), "cc");
        assert_eq!(names("publish=4700-4720/tcp"), "cc");
        assert_eq!(names("publish=90"), "");
        assert_eq!(names("expose=90"), "cc");
        assert_eq!(names("expose=4711"), "");
    }

    fn wrong_modes_are_refused_in_dockers_words(daemon: &Daemon, client: Client) {
        for (arguments, text) in [
            (["--network", "container"], "invalid container format container:<name|id>"),
            (["-v", "named:/x:shared"], "invalid mount config"),
            (["--volumes-from", "cc:bar"], "invalid mode: bar"),
        ] {
            let all = [&["run", "--rm"][..], &arguments, &["busybox", "true"]].concat();
            daemon.with(client, &all).fails(125, text);
        }
    }

    fn a_hardware_address_is_what_was_asked_for(daemon: &Daemon, client: Client) {
        let mac = "12:34:56:78:9a:bc";
        daemon.with(client, &["run", "-d", "--name", "cc", "--mac-address", mac, "busybox", "sleep", "1000"]).ok();
        let inside = || daemon.with(client, &["exec", "cc", "cat", "/sys/class/net/eth0/address"]).ok();
        assert_eq!(inside(), mac);
        assert_eq!(daemon.inspect("cc", "{{.NetworkSettings.Networks.bridge.MacAddress}}"), mac);
        daemon.with(client, &["restart", "-t", "0", "cc"]).ok();
        assert_eq!(inside(), mac);
        let host = ["run", "--rm", "--network", "host", "--mac-address", mac, "busybox", "true"];
        daemon.with(client, &host).fails(125, "conflicting options: mac-address and the network mode");
    }

    fn images_are_shown_by_the_names_that_were_asked_for(daemon: &Daemon, client: Client) {
        for name in ["other:v1", "other:v1v1", "other:v2"] {
            daemon.with(client, &["tag", "busybox", name]).ok();
        }
        let names = |reference: &str| {
            let format = "{{.Repository}}:{{.Tag}}";
            let shown = daemon.with(client, &["images", "--format", format, "--filter", reference]).ok();
            let mut names: Vec<String> = shown.lines().map(str::to_owned).collect();
            names.sort();
            names
        };
        assert_eq!(names("reference=other:v1"), ["other:v1"]);
        assert_eq!(names("reference=other"), ["other:v1", "other:v1v1", "other:v2"]);
        assert_eq!(names("reference=busy*"), ["busybox:latest"]);
        assert_eq!(names("reference=absent"), [""; 0]);
        daemon.with(client, &["rmi", " "]).fails(1, "image name cannot be blank");
    }

    fn a_temporary_file_system_propagates_as_it_was_told(daemon: &Daemon, client: Client) {
        let optional = |options: &str| {
            let show = ["busybox", "grep", " /scratch ", "/proc/self/mountinfo"];
            let line = daemon.with(client, &[&["run", "--rm", "--tmpfs", options][..], &show].concat()).ok();
            let fields = line.split_whitespace().skip(6).take_while(|field| *field != "-");
            fields.map(|field| field.split(':').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(optional("/scratch"), [""; 0]);
        assert_eq!(optional("/scratch:size=1m,shared"), ["shared"]);
        assert_eq!(optional("/scratch:rprivate"), [""; 0]);
    }

    fn a_container_without_volumes_has_none(daemon: &Daemon, client: Client) {
        daemon.with(client, &["create", "--name", "cc", "-v", "/tmp:/tmp", "busybox"]).ok();
        let shown = daemon.with(client, &["inspect", "-f", "{{json .Config.Volumes}}", "cc"]).ok();
        assert_eq!(shown, "null");
    }
}

#[test]
fn what_its_policy_starts_again_is_never_seen_as_ended() {
    let daemon = Daemon::start();
    daemon.background(&["--name", "cc", "--restart", "on-failure:3", "busybox", "false"]);
    let restarts = eventually("it gives up", || {
        let (_, shown) = ask(&daemon, "/containers/cc/json", None);
        (shown["State"]["Running"] == false).then(|| shown["RestartCount"].clone())
    });
    assert_eq!(restarts, 3);
}

#[test]
fn what_starts_with_the_daemon_runs_when_it_answers() {
    let mut daemon = Daemon::start();
    for name in ["one", "two", "three"] {
        daemon.background(&["--name", name, "--restart", "always", "busybox", "sleep", "1000"]);
    }
    daemon.berth(&["stop", "-t", "0", "one"]).ok();
    daemon.stop();
    daemon.launch();
    for name in ["one", "two", "three"] {
        assert_eq!(daemon.inspect(name, "{{.State.Status}}"), "running", "{name}");
    }
}

#[test]
fn an_exec_that_was_not_started_goes_with_the_run() {
    let daemon = Daemon::start();
    daemon.background(&["--name", "cc", "busybox", "sleep", "1000"]);
    let create = || {
        let (code, made) = ask(&daemon, "/containers/cc/exec", Some(&json!({"Cmd": ["true"]})));
        assert_eq!(code, 201);
        made["Id"].as_str().unwrap().to_owned()
    };
    let start =
        |id: &str| request(&daemon, "POST", &format!("/exec/{id}/start"), Some(&json!({"Detach": true})));
    let stale = create();
    daemon.berth(&["restart", "-t", "0", "cc"]).ok();
    let (code, answer) = start(&stale);
    assert_eq!(
        (code, answer["message"].as_str().unwrap()),
        (404, &*format!("No such exec instance: {stale}"))
    );
    let fresh = create();
    assert_eq!(start(&fresh).0, 200);
    daemon.berth(&["pause", "cc"]).ok();
    let (code, answer) = ask(&daemon, "/containers/cc/exec", Some(&json!({"Cmd": ["true"]})));
    let text = "Container cc is paused, unpause the container before exec";
    assert_eq!((code, answer["message"].as_str().unwrap()), (409, text));
    daemon.berth(&["unpause", "cc"]).ok();
}

#[test]
fn upgrade_alone_asks_for_a_stream_and_a_refusal_of_one_is_text() {
    let daemon = Daemon::start();
    daemon.background(&["-i", "--name", "cc", "busybox", "cat"]);
    let send = |path: &str| {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let mut stream = send("/containers/cc/attach?stream=1&stdin=1&stdout=1");
    stream.write_all(b"echo\n").unwrap();
    let mut seen = Vec::new();
    eventually("what it wrote comes back", || {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece).unwrap();
        assert_ne!(length, 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..length]);
        seen.ends_with(b"\x01\0\0\0\0\0\0\x05echo\n").then_some(())
    });
    assert!(seen.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&seen));

    let mut stream = send("/containers/absent/attach?stream=1");
    let mut answer = Vec::new();
    eventually("the refusal", || {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece).unwrap();
        assert_ne!(length, 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..length]);
        answer.ends_with(b"\r\n\r\nNo such container: absent\r\n").then_some(())
    });
    assert!(answer.starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&answer));
    let (code, message) = refused(&daemon, "GET", "/containers/cc/logs");
    assert_eq!((code, message.as_str()), (400, "must specify at least one of 'stdout' or 'stderr'"));
}
