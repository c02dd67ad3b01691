//! What Moby's integration packages look at and nothing else here does.

use std::io::Read;
use std::io::Write;

use crate::api::{ask, request};
use crate::daemon::Daemon;
use crate::output::eventually;
use crate::raw;

/// The number of tasks once it has stayed the same.
fn tasks(daemon: &Daemon) -> i64 {
    let count = || ask(daemon, "/info", None).1["NGoroutines"].as_i64().unwrap();
    eventually("the number of tasks stays the same", || {
        let first = count();
        (0..10).all(|_| count() == first).then_some(first)
    })
}

#[test]
fn an_attachment_without_a_stream_ends_and_is_counted_until_its_client_hangs_up() {
    let daemon = Daemon::start();
    daemon.background(&["--name", "cc", "busybox", "sh", "-c", "echo logged; sleep 1000"]);
    eventually("it wrote", || (daemon.berth(&["logs", "cc"]).ok() == "logged").then_some(()));
    let before = tasks(&daemon);
    let mut stream = raw::connect(&daemon);
    let head = "POST /containers/cc/attach?stdout=1&logs=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
                Upgrade: tcp\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&[b'x'; 1000]).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.ends_with("\x01\0\0\0\0\0\0\x07logged\n"), "{answer}");
    assert!(tasks(&daemon) > before);
    drop(stream);
    eventually("it is forgotten", || (tasks(&daemon) <= before).then_some(()));
}

#[test]
fn containers_that_do_not_run_are_not_counted_as_work() {
    let daemon = Daemon::start();
    let before = tasks(&daemon);
    for _ in 0..20 {
        daemon.berth(&["create", "busybox", "true"]).ok();
    }
    assert!(tasks(&daemon) < before + 10, "fewer than one for each");
    let port = ["-p", "127.0.0.1::80", "busybox", "sleep", "1000"];
    let id = daemon.background(&port);
    assert!(tasks(&daemon) > before);
    daemon.berth(&["rm", "-f", &id]).ok();
    eventually("what was done for it is over", || (tasks(&daemon) <= before).then_some(()));
}

#[test]
fn a_signal_right_after_the_start_is_not_lost() {
    let daemon = Daemon::start();
    let script = "trap 'exit 5' TERM; while :; do sleep 0.02; done";
    for round in 0..10 {
        let name = format!("c{round}");
        daemon.berth(&["create", "--name", &name, "busybox", "sh", "-c", script]).ok();
        // One after the other on one connection, with nothing between them.
        let start = format!("POST /containers/{name}/start HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let kill = raw::request("POST", &format!("/containers/{name}/kill?signal=TERM"), "", b"");
        let answer = raw::exchange(&daemon, &[start.as_bytes(), &kill].concat());
        assert_eq!(answer.matches("HTTP/1.1 204 ").count(), 2, "{answer}");
        let (_, ended) = request(&daemon, "POST", &format!("/containers/{name}/wait"), None);
        assert_eq!(ended["StatusCode"], 5, "round {round}");
    }
}

#[test]
fn a_signal_that_a_young_program_will_never_handle_is_sent_soon() {
    let daemon = Daemon::start();
    daemon.berth(&["create", "--name", "cc", "busybox", "sleep", "1000"]).ok();
    let start = "POST /containers/cc/start HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let kill = raw::request("POST", "/containers/cc/kill?signal=USR1", "", b"");
    let answer = raw::exchange(&daemon, &[start.as_bytes(), &kill].concat());
    assert_eq!(answer.matches("HTTP/1.1 204 ").count(), 2, "{answer}");
    assert_eq!(daemon.inspect("cc", "{{.State.Running}}"), "true");
}
