//! A container, client or check that is slow or floods delays no other.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::daemon::{Client, Daemon};
use crate::output::{eventually, run};

/// Sends a request and reads the head of its answer, and then nothing any more.
fn asked_and_never_read(daemon: &Daemon, line: &str, headers: &str) -> UnixStream {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    write!(stream, "{line} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").unwrap();
    let mut reader = BufReader::with_capacity(64, stream.try_clone().unwrap());
    let mut status = String::new();
    reader.read_line(&mut status).unwrap();
    assert!(status.contains(" 200 ") || status.contains(" 101 "), "{line}: {status}");
    stream
}

/// Sends a request with the beginning of a body, and nothing any more.
fn asked_and_never_sent(daemon: &Daemon, line: &str) -> UnixStream {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    let headers = "Host: x\r\nContent-Type: application/x-tar\r\nContent-Length: 1000000";
    write!(stream, "{line} HTTP/1.1\r\n{headers}\r\n\r\nx").unwrap();
    stream
}

/// What must go on whatever others do: the whole life of a container, and questions.
fn everything_else_works(daemon: &Daemon) {
    assert_eq!(daemon.berth(&["run", "--rm", "--network", "none", "busybox", "echo", "quick"]).ok(), "quick");
    assert_eq!(daemon.berth(&["exec", "other", "echo", "here"]).ok(), "here");
    assert_eq!(daemon.berth(&["logs", "--tail", "1", "other"]).ok(), "ready");
    assert!(daemon.with(Client::Docker, &["ps", "--format", "{{.Names}}"]).ok().contains("other"));
    daemon.berth(&["restart", "-t", "0", "other"]).ok();
    daemon.berth(&["stats", "--no-stream"]).ok();
}

#[test]
fn clients_that_stop_reading_delay_nobody() {
    let daemon = Daemon::start();
    daemon.background(&["--name", "other", "busybox", "sh", "-c", "echo ready; exec sleep 1000"]);
    daemon.background(&[
        "--name",
        "flood",
        // More than anyone reads, and yet not all of the machine.
        "--cpus",
        "0.2",
        "--log-opt",
        "max-size=1m",
        "busybox",
        "yes",
        "a line of the flood",
    ]);
    let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n";
    let mut deaf = Vec::new();
    for _ in 0..4 {
        deaf.push(asked_and_never_read(&daemon, "POST /containers/flood/attach?stream=1&stdout=1", upgrade));
        deaf.push(asked_and_never_read(&daemon, "GET /containers/flood/logs?follow=1&stdout=1", ""));
        deaf.push(asked_and_never_read(&daemon, "GET /containers/flood/stats", ""));
        deaf.push(asked_and_never_read(&daemon, "GET /containers/flood/export", ""));
        deaf.push(asked_and_never_read(&daemon, "GET /events?since=1", ""));
    }
    for _ in 0..3 {
        everything_else_works(&daemon);
    }
    // The container that they listen to is no worse off.
    assert_eq!(daemon.berth(&["exec", "flood", "echo", "here"]).ok(), "here");
    daemon.berth(&["stop", "-t", "0", "flood"]).ok();
    assert_eq!(daemon.inspect("flood", "{{.State.Status}}"), "exited");
    daemon.berth(&["rm", "flood"]).ok();
    assert!(!daemon.log().contains("panicked"));
}

#[test]
fn a_crowd_of_clients_that_stand_still_delays_nobody() {
    /// More of each than the daemon has threads for its own work.
    const CROWD: usize = 80;
    let daemon = Daemon::start();
    daemon.background(&["--name", "other", "busybox", "sh", "-c", "echo ready; exec sleep 1000"]);
    // More than all buffers on the way take.
    let script = "dd if=/dev/zero bs=1M count=2 | tr '\\0' x | fold -w 100; dd if=/dev/zero of=/tmp/large bs=1M count=4";
    daemon.with(Client::Berth, &["run", "--name", "long", "busybox", "sh", "-c", script]).ok();
    let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n";
    let mut still = Vec::new();
    for n in 0..CROWD {
        still.push(asked_and_never_read(&daemon, "GET /containers/long/logs?stdout=1", ""));
        still.push(asked_and_never_read(&daemon, "GET /containers/long/export", ""));
        if n % 4 != 0 {
            continue;
        }
        still.push(asked_and_never_read(&daemon, "POST /containers/long/attach?logs=1&stdout=1", upgrade));
        still.push(asked_and_never_read(&daemon, "GET /containers/long/archive?path=/tmp/large", ""));
        still.push(asked_and_never_sent(&daemon, "POST /images/load"));
        still.push(asked_and_never_sent(&daemon, "PUT /containers/long/archive?path=/tmp"));
    }
    everything_else_works(&daemon);
    drop(still);
    daemon.berth(&["rm", "long"]).ok();
    assert!(!daemon.log().contains("panicked"));
}

#[test]
fn who_does_not_read_a_log_holds_up_one_start_at_most() {
    const STARTS: usize = 30;
    let daemon = Daemon::start();
    let script = "[ -e /done ] || { touch /done; dd if=/dev/zero bs=1M count=2 | tr '\\0' x | fold -w 100; }";
    daemon.with(Client::Berth, &["run", "--name", "long", "busybox", "sh", "-c", script]).ok();
    let starts = || {
        let begun = Instant::now();
        for _ in 0..STARTS {
            daemon.berth(&["start", "long"]).ok();
            daemon.wait("long");
        }
        begun.elapsed()
    };
    let alone = starts();
    let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n";
    let _deaf: Vec<_> = (0..3)
        .map(|_| {
            asked_and_never_read(&daemon, "POST /containers/long/attach?logs=1&stream=1&stdout=1", upgrade)
        })
        .collect();
    let with_them = starts();
    // Each would wait for two seconds.
    assert!(with_them < alone * 2 + Duration::from_secs(STARTS as u64), "{with_them:?}, alone {alone:?}");
}

#[test]
fn a_flooded_log_delays_nobody_and_stays_bounded() {
    let daemon = Daemon::start();
    daemon.background(&["--name", "other", "busybox", "sh", "-c", "echo ready; exec sleep 1000"]);
    let drivers = ["json-file", "local"];
    for driver in drivers {
        // More than a log can take, and yet not all of the machine.
        let bound =
            ["--cpus", "0.2", "--log-driver", driver, "--log-opt", "max-size=1m", "--log-opt", "max-file=2"];
        daemon.background(
            &[&["--name", driver], &bound[..], &["busybox", "yes", "a line of the flood"]].concat(),
        );
    }
    for _ in 0..3 {
        everything_else_works(&daemon);
    }
    for driver in drivers {
        let last = eventually("a line", || {
            let text = daemon.berth(&["logs", "--tail", "1", driver]).ok();
            (!text.is_empty()).then_some(text)
        });
        assert_eq!(last, "a line of the flood");
        daemon.berth(&["rm", "-f", driver]).ok();
    }
}

#[test]
fn a_health_check_that_hangs_delays_nobody() {
    let daemon = Daemon::start();
    daemon.background(&["--name", "other", "busybox", "sh", "-c", "echo ready; exec sleep 1000"]);
    let hangs = ["--health-cmd", "sleep 1000", "--health-interval", "10ms", "--health-timeout", "1h"];
    daemon.background(&[&["--name", "hangs"], &hangs[..], &["busybox", "sleep", "1000"]].concat());
    eventually("its check runs", || {
        daemon.berth(&["top", "hangs"]).ok().contains("sleep 1000").then_some(())
    });
    let passes = ["--health-cmd", "true", "--health-interval", "10ms"];
    daemon.background(&[&["--name", "passes"], &passes[..], &["busybox", "sleep", "1000"]].concat());
    eventually("the other's check", || {
        (daemon.inspect("passes", "{{.State.Health.Status}}") == "healthy").then_some(())
    });
    everything_else_works(&daemon);
    assert_eq!(daemon.inspect("hangs", "{{.State.Health.Status}}"), "starting");
    daemon.berth(&["rm", "-f", "hangs"]).ok();
}

#[test]
fn two_hundred_execs_at_once() {
    const COUNT: usize = 200;
    let daemon = Daemon::start();
    daemon.background(&["--name", "other", "busybox", "sh", "-c", "echo ready; exec sleep 1000"]);
    daemon.background(&["--name", "cc", "busybox", "sleep", "1000"]);
    // Each says that it is there, and stays until its input ends: all of them are there at once.
    let mut all: Vec<_> = (0..COUNT)
        .map(|n| {
            let script = format!("echo {n}; cat; exit 3");
            let mut command = daemon.client(Client::Berth, &["exec", "-i", "cc", "sh", "-c", &script]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for (n, child) in all.iter_mut().enumerate() {
        let mut line = String::new();
        BufReader::with_capacity(16, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, format!("{n}\n"));
    }
    // The shell speaks before it has executed `cat`.
    eventually("all programs", || {
        let there = daemon.berth(&["top", "cc", "-o", "pid,args"]).ok();
        (there.lines().filter(|line| line.ends_with(" cat")).count() == COUNT).then_some(())
    });
    everything_else_works(&daemon);
    for mut child in all {
        drop(child.stdin.take());
        assert_eq!(child.wait().unwrap().code(), Some(3));
    }
    // Nothing of them is kept longer than what runs.
    let ids = daemon.inspect("cc", "{{json .ExecIDs}}");
    assert_eq!(ids, "null", "{ids}");
    let processes = run(&mut daemon.client(Client::Berth, &["top", "cc", "-o", "pid,args"])).ok();
    assert_eq!(processes.lines().count(), 2, "{processes}");
}
