//! `events`: what is told, in which order, to whom, and how long it is remembered.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use serde_json::Value;

use crate::daemon::{Client, Daemon};
use crate::files::{self, Image, Layer};
use crate::output::eventually;
use crate::raw;

/// What has happened so far, as the client shows it in JSON.
fn past(daemon: &Daemon, client: Client, filters: &[&str]) -> Vec<Value> {
    // Docker's client cuts a duration to whole seconds, and with it the newest events.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let mut arguments = vec!["events", "--since", "1h", "--until", &until, "--format", "json"];
    filters.iter().for_each(|filter| arguments.extend(["--filter", filter]));
    let text = daemon.with(client, &arguments).ok();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn actions(events: &[Value]) -> Vec<String> {
    let text =
        |event: &Value| format!("{} {}", event["Type"].as_str().unwrap(), event["Action"].as_str().unwrap());
    events.iter().map(text).collect()
}

with_both_clients! {
    fn a_life_is_told_in_order(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "-d", "--name", "one", "--label", "tier=front", "busybox", "sleep", "1000"]).ok();
        daemon.with(client, &["exec", "one", "sh", "-c", "exit 3"]).fails(3, "");
        eventually("the exec's end", || (!past(daemon, client, &["event=exec_die"]).is_empty()).then_some(()));
        daemon.with(client, &["pause", "one"]).ok();
        daemon.with(client, &["unpause", "one"]).ok();
        daemon.with(client, &["top", "one"]).ok();
        daemon.with(client, &["rename", "one", "two"]).ok();
        daemon.with(client, &["restart", "-t", "0", "two"]).ok();
        daemon.with(client, &["rm", "-f", "two"]).ok();
        let events = past(daemon, client, &["type=container", "type=network"]);
        let expected = [
            "container create", "network connect", "container start", "container exec_create: sh -c exit 3",
            "container exec_start: sh -c exit 3", "container exec_die", "container pause", "container unpause",
            "container top", "container rename", "container kill", "container kill", "network disconnect", "container die",
            "container stop", "network connect", "container start", "container restart", "container kill",
            "network disconnect", "container die", "container destroy",
        ];
        let mut found = actions(&events);
        // The stop signal and SIGKILL may come as one if the first is enough.
        let kills = found.iter().skip(10).take_while(|action| *action == "container kill").count();
        if kills == 1 {
            found.insert(10, "container kill".into());
        }
        // An attachment is told by `docker exec` nowhere, but by `run` without `-d`.
        assert_eq!(found, expected);
        let attribute = |action: &str, name: &str| {
            let event = events.iter().find(|event| event["Action"].as_str().unwrap().starts_with(action)).unwrap();
            event["Actor"]["Attributes"][name].as_str().unwrap_or_default().to_owned()
        };
        assert_eq!(attribute("exec_die", "exitCode"), "3");
        assert_eq!(attribute("exec_create", "execID"), attribute("exec_die", "execID"));
        assert_eq!(attribute("rename", "oldName"), "/one");
        assert_eq!(attribute("rename", "name"), "two");
        assert_eq!(attribute("start", "tier"), "front");
        assert_eq!(attribute("die", "exitCode"), "137");
        assert!(attribute("die", "execDuration").parse::<u64>().is_ok());
        assert_eq!(attribute("connect", "type"), "bridge");
        let network = events.iter().find(|event| event["Type"] == "network").unwrap()["Actor"]["ID"].as_str().unwrap();
        let networks = daemon.with(Client::Docker, &["network", "ls", "-q", "--no-trunc", "--filter", "name=bridge"]).ok();
        assert_eq!(networks, network);
        let times: Vec<i64> = events.iter().map(|event| event["timeNano"].as_i64().unwrap()).collect();
        assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    }

    fn lack_of_memory_is_told_when_it_happens(daemon: &Daemon, client: Client) {
        // What lacks memory is a child: the container goes on.
        let script = "tail -c 200m /dev/zero >/dev/null; echo survived; exec sleep 1000";
        let id = daemon.with(client, &["run", "-d", "--memory", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", script]).ok();
        eventually("it goes on", || daemon.with(client, &["logs", &id]).stdout.contains("survived").then_some(()));
        eventually("it is told", || (!past(daemon, client, &["event=oom"]).is_empty()).then_some(()));
        assert_eq!(daemon.inspect(&id, "{{.State.Running}} {{.State.OOMKilled}}"), "true true");
        daemon.with(client, &["rm", "-f", &id]).ok();
        let told = actions(&past(daemon, client, &["type=container"]));
        assert_eq!(told[..3], ["create", "start", "oom"].map(|action| format!("container {action}")));
        let count = told.iter().filter(|action| *action == "container oom").count();
        assert!(count == 1, "told once more at the end: {told:?}");
    }

    fn images_are_told_with_their_labels(daemon: &Daemon, client: Client) {
        let image = Image::new(vec![Layer::new().file("x", 0o644, "x")])
            .configured(serde_json::json!({"Labels": {"kind": "small"}}));
        let path = files::write(daemon.root.path(), "image.tar", &image.docker_archive("small:v1"));
        daemon.with(client, &["load", "-q", "-i", &path]).ok();
        daemon.with(client, &["tag", "small:v1", "other"]).ok();
        daemon.with(client, &["rmi", "small:v1", "other"]).ok();
        let events = past(daemon, client, &["label=kind=small"]);
        assert_eq!(actions(&events), ["image load", "image tag", "image untag", "image untag"].map(String::from)[..events.len()]);
        assert_eq!(events[1]["Actor"]["Attributes"]["name"], "other:latest");
        let all = past(daemon, client, &["type=image", "event=delete"]);
        assert_eq!(all.len(), 1);
        assert_eq!(past(daemon, client, &["image=other"]).len(), 1);
    }

    fn a_stream_begins_at_once_and_ends_when_asked(daemon: &Daemon, client: Client) {
        let mut command = daemon.client(client, &["events", "--filter", "event=create", "--format", "{{.Action}} {{.Actor.Attributes.name}}"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        eventually("it listens", || {
            (daemon.berth(&["info", "--format", "{{.NEventsListener}}"]).ok() == "1").then_some(())
        });
        daemon.berth(&["create", "--name", "seen", "busybox"]).ok();
        assert_eq!(lines.next().unwrap().unwrap(), "create seen");
        child.kill().unwrap();
        child.wait().unwrap();
        let none = daemon.with(client, &["events", "--since", "1h", "--until", "30m", "--format", "json"]).ok();
        assert_eq!(none, "");
    }
}

/// Docker's client looks for the keys itself and sends none of them: others leave it to the daemon.
#[test]
fn those_who_leave_by_keys_are_told() {
    let daemon = Daemon::start();
    daemon.background(&["-it", "--name", "one", "busybox", "cat"]);
    let json = "Content-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n";
    let leave = |path: &str, body: &str, keys: &[u8]| {
        let request = raw::request("POST", path, json, body.as_bytes());
        let mut stream = raw::connect(&daemon);
        stream
            .write_all(&String::from_utf8(request).unwrap().replace("Connection: close\r\n", "").into_bytes())
            .unwrap();
        stream.write_all(keys).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(raw::status(&answer), 101, "{answer}");
    };
    leave("/containers/one/attach?stream=1&stdin=1&stdout=1", "", b"x\x10\x11");
    let exec = serde_json::json!({ "Cmd": ["cat"], "Tty": true, "AttachStdin": true, "AttachStdout": true, "DetachKeys": "ctrl-a" });
    let (_, made) = crate::api::ask(&daemon, "/containers/one/exec", Some(&exec));
    let id = made["Id"].as_str().unwrap();
    leave(&format!("/exec/{id}/start"), r#"{"Tty": true}"#, b"x\x01");
    eventually("it is told", || {
        (past(&daemon, Client::Berth, &["event=exec_detach"]).len() == 1).then_some(())
    });
    daemon.berth(&["rm", "-f", "one"]).ok();
    let events = past(&daemon, Client::Docker, &["type=container"]);
    let expected = [
        "create",
        "start",
        "attach",
        "detach",
        "exec_create: cat ",
        "exec_start: cat ",
        "exec_detach",
        "kill",
        "exec_die",
        "die",
        "destroy",
    ];
    assert_eq!(actions(&events), expected.map(|action| format!("container {action}")));
    assert_eq!(events[6]["Actor"]["Attributes"]["execID"], id);
}

#[test]
fn the_past_survives_the_daemon() {
    let mut daemon = Daemon::start();
    daemon.berth(&["create", "--name", "one", "busybox"]).ok();
    let before = past(&daemon, Client::Berth, &["container=one"]);
    assert_eq!(before.len(), 1);
    daemon.stop();
    daemon.launch();
    assert_eq!(past(&daemon, Client::Berth, &["container=one"]), before);
    // Killed, it loses no more than what it had no time to write.
    daemon.berth(&["rename", "one", "two"]).ok();
    let database = daemon.data_root().join("berth.db-wal");
    eventually("it is written", || {
        let log = std::fs::read(&database).unwrap();
        log.windows(9).any(|bytes| bytes == b"\"oldName\"").then_some(())
    });
    daemon.kill();
    daemon.launch();
    let after = past(&daemon, Client::Berth, &["type=container"]);
    assert_eq!(actions(&after), ["container create", "container rename"]);
    daemon.berth(&["rm", "two"]).ok();
    let times: Vec<i64> =
        past(&daemon, Client::Docker, &[]).iter().map(|event| event["timeNano"].as_i64().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
}

/// Whether a container's event has been told so many times by now.
fn is_told(daemon: &Daemon, id: &str, action: &str, times: usize) -> bool {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let path = format!("/events?since=1&until={}.{:09}", now.as_secs(), now.subsec_nanos());
    let answer = raw::exchange(daemon, &raw::request("GET", &path, "", b""));
    assert_eq!(raw::status(&answer), 200, "{answer}");
    let action = format!("\"Action\":\"{action}\"");
    answer.lines().filter(|line| line.contains(id) && line.contains(&action)).count() == times
}

#[test]
fn whoever_sees_a_state_finds_its_event() {
    let daemon = Daemon::start();
    // Each holds a port, which takes a moment to be given back.
    let made = |_| daemon.berth(&["create", "-p", "80", "busybox", "true"]).ok();
    let ids: Vec<String> = (0..16).map(made).collect();
    let ask = |method: &str, path: &str| raw::exchange(&daemon, &raw::request(method, path, "", b""));
    let lives = |id: &String| {
        for round in 1..=3 {
            let started = ask("POST", &format!("/containers/{id}/start"));
            assert_eq!(raw::status(&started), 204, "{started}");
            while !ask("GET", &format!("/containers/{id}/json")).contains("\"Status\":\"exited\"") {
                assert!(is_told(&daemon, id, "start", round), "round {round} of {id}");
            }
            assert!(is_told(&daemon, id, "die", round), "round {round} of {id}");
        }
    };
    std::thread::scope(|scope| ids.iter().for_each(|id| drop(scope.spawn(|| lives(id)))));
}
