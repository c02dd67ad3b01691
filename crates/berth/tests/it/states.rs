//! What can be done in which state, and Docker's words for what cannot.

use std::time::{Duration, Instant};

use crate::api::{events, refused, request};
use crate::daemon::{Client, Daemon};
use crate::output::eventually;

with_both_clients! {
    fn a_container_gets_another_name(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["run", "-d", "--name", "one", "busybox", "sleep", "1000"]).ok();
        daemon.with(client, &["rename", "one", "two"]).ok();
        assert_eq!(daemon.inspect(&id, "{{.Name}}"), "/two");
        daemon.with(client, &["inspect", "one"]).fails(1, "No such");
        let other = daemon.with(client, &["create", "--name", "one", "busybox"]).ok();
        daemon.with(client, &["rename", "two", "one"]).fails(1, &format!("Error when allocating new name: Conflict. The container name \"/one\" is already in use by container \"{other}\""));
        daemon.with(client, &["rename", "two", "two"]).fails(1, "Renaming a container with the same name as its current name");
        daemon.with(client, &["rename", &id, "/two"]).fails(1, "Renaming a container with the same name as its current name");
        daemon.with(client, &["rename", "two", "new:invalid"]).fails(1, "Error when allocating new name: Invalid container name (/new:invalid), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
        daemon.with(client, &["rename", "absent", "x1"]).fails(1, "No such container: absent");
        assert_eq!(daemon.inspect(&id, "{{.Name}}"), "/two");
        daemon.with(client, &["rename", "one", "three"]).ok();
        daemon.with(client, &["rename", "two", "one"]).ok();
        assert_eq!(events(daemon, &id).iter().filter(|event| *event == "rename").count(), 2);
    }

    fn kill_is_over_when_it_returns(daemon: &Daemon, client: Client) {
        for n in 0..5 {
            let name = format!("c{n}");
            let id = daemon.with(client, &["run", "-d", "--name", &name, "busybox", "sleep", "1000"]).ok();
            daemon.with(client, &["kill", &name]).ok();
            daemon.with(client, &["rm", &name]).ok();
            let told = events(daemon, &id);
            assert!(told.iter().any(|event| event == "kill 9") && !told.iter().any(|event| event == "stop"), "{told:?}");
        }
    }

    fn stop_waits_for_as_long_as_it_is_told(daemon: &Daemon, client: Client) {
        for (seconds, needs, code) in [("0", 1000.0, "137"), ("1", 1000.0, "137"), ("20", 1.5, "42"), ("-1", 1.5, "42")] {
            let script = format!("trap '' TERM; echo ready; sleep {needs}; exit 42");
            daemon.with(client, &["run", "-d", "--name", "cc", "busybox", "sh", "-c", &script]).ok();
            eventually("it runs", || daemon.berth(&["logs", "cc"]).stdout.contains("ready").then_some(()));
            daemon.with(client, &["stop", "-t", seconds, "cc"]).ok();
            assert_eq!(daemon.inspect("cc", "{{.State.ExitCode}}"), code, "stop -t {seconds}");
            daemon.with(client, &["rm", "cc"]).ok();
        }
        let began = Instant::now();
        daemon.with(client, &["run", "-d", "--name", "cc", "--stop-signal", "USR1", "busybox", "sh", "-c", "trap 'exit 3' USR1; while :; do sleep 0.05; done"]).ok();
        daemon.with(client, &["stop", "cc"]).ok();
        daemon.with(client, &["stop", "cc"]).ok();
        assert!(began.elapsed() < Duration::from_secs(9), "its own signal ends it");
    }

    fn a_paused_container_is_left_alone(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]).ok();
        daemon.with(client, &["pause", "cc"]).ok();
        daemon.with(client, &["pause", "cc"]).fails(1, "is already paused");
        daemon.with(client, &["exec", "cc", "true"]).fails(1, "is paused, unpause the container before exec");
        daemon.with(client, &["start", "cc"]).fails(1, "cannot start a paused container, try unpause instead");
        daemon.with(client, &["rm", "cc"]).fails(1, "cannot remove container \"cc\": container is paused and must be unpaused first");
        daemon.with(client, &["restart", "-t", "0", "cc"]).ok();
        assert_eq!(daemon.inspect("cc", "{{.State.Status}}"), "running");
        daemon.with(client, &["pause", "cc"]).ok();
        daemon.with(client, &["stop", "-t", "0", "cc"]).ok();
        daemon.with(client, &["pause", "cc"]).fails(1, "is not running");
        daemon.with(client, &["unpause", "cc"]).fails(1, "is not paused");
    }

    fn top_takes_the_arguments_of_ps(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "-d", "--name", "cc", "busybox", "sh", "-c", "sleep 1000 & sleep 999; true"]).ok();
        let text = daemon.with(client, &["top", "cc", "-o", "pid,comm"]).ok();
        assert_eq!(text.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(), ["PID", "COMMAND"]);
        let sorted = daemon.with(client, &["top", "cc", "aux", "--sort=-pid"]).ok();
        let pids: Vec<i32> = sorted.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap()).collect();
        assert!(pids.len() == 3 && pids.is_sorted_by(|a, b| a > b), "{sorted}");
        daemon.with(client, &["top", "cc", "-o", "user"]).fails(1, "Couldn't find PID field in ps output");
        daemon.with(client, &["top", "cc", "-o", "pid,user=PID"]).fails(1, "specifying \"user=PID\" is not allowed");
        daemon.with(client, &["kill", "cc"]).ok();
        daemon.with(client, &["top", "cc"]).fails(1, "is not running");
    }
}

#[test]
fn statuses_and_words_are_dockers() {
    let daemon = Daemon::start();
    let id = daemon.berth(&["create", "--name", "cc", "busybox", "sleep", "1000"]).ok();
    let not_running = format!("container {id} is not running");
    for (path, code, message) in [
        ("/containers/cc/kill", 409, format!("cannot kill container: cc: {not_running}")),
        ("/containers/cc/kill?signal=0", 400, "invalid signal: 0".into()),
        ("/containers/cc/kill?signal=SIG42", 400, "invalid signal: SIG42".into()),
        ("/containers/cc/pause", 409, not_running.clone()),
        ("/containers/cc/unpause", 409, format!("Container {id} is not paused")),
        ("/containers/cc/resize?h=40&w=40", 409, not_running.clone()),
        ("/containers/cc/resize?h=40", 400, "invalid resize width \"\": invalid syntax".into()),
        (
            "/containers/cc/resize?h=-100&w=1",
            400,
            "invalid resize height \"-100\": value out of range".into(),
        ),
        ("/containers/cc/rename?name=", 400, "Neither old nor new names may be empty".into()),
        ("/containers/cc/rename?name=/", 400, "Neither old nor new names may be empty".into()),
        (
            "/containers/cc/start?checkpoint=first",
            400,
            "checkpoint is only supported in experimental mode".into(),
        ),
        ("/containers/cc/start?checkpoint-dir=/x", 403, "custom checkpointdir is not supported".into()),
        ("/containers/cc/wait?condition=later", 400, "invalid condition: \"later\"".into()),
        ("/containers/absent/stop", 404, "No such container: absent".into()),
    ] {
        assert_eq!(refused(&daemon, "POST", path), (code, message), "{path}");
    }
    assert_eq!(refused(&daemon, "GET", "/containers/cc/top"), (409, not_running));
    assert_eq!(request(&daemon, "POST", "/containers/cc/stop", None).0, 304);
    daemon.berth(&["start", "cc"]).ok();
    assert_eq!(request(&daemon, "POST", "/containers/cc/start", None).0, 304);
    let (code, message) = refused(&daemon, "DELETE", "/containers/cc");
    let words = "cannot remove container \"cc\": container is running: stop the container before removing or force remove";
    assert_eq!((code, message.as_str()), (409, words));
    let exec = serde_json::json!({"Cmd": ["sleep", "1000"], "Tty": true});
    let (_, made) = request(&daemon, "POST", "/containers/cc/exec", Some(&exec));
    let resize = format!("/exec/{}/resize?h=40&w=40", made["Id"].as_str().unwrap());
    assert_eq!(refused(&daemon, "POST", &resize), (400, "exec process is not started".into()));
    daemon.berth(&["kill", "cc"]).ok();
    let gone = format!("No such exec instance: {}", made["Id"].as_str().unwrap());
    assert_eq!(refused(&daemon, "POST", &resize), (404, gone), "what was not started goes with the run");
}
