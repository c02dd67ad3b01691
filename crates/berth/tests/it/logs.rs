//! `logs`: whole, in order, and as far as asked.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use crate::daemon::{Client, Daemon};
use crate::output::{eventually, run};

with_both_clients! {
    fn both_streams_come_back_as_they_were_written(daemon: &Daemon, client: Client) {
        let script = "echo one; echo two >&2; printf 'no newline'";
        daemon.with(client, &["run", "--name", "cc", "busybox", "sh", "-c", script]).ok();
        let logs = daemon.with(client, &["logs", "cc"]);
        assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("one\nno newline", "two\n"));
    }

    fn tail_takes_the_last_lines(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "--name", "cc", "busybox", "seq", "1", "5000"]).ok();
        assert_eq!(daemon.with(client, &["logs", "--tail", "3", "cc"]).ok(), "4998\n4999\n5000");
        assert_eq!(daemon.with(client, &["logs", "--tail", "0", "cc"]).ok(), "");
        assert_eq!(daemon.with(client, &["logs", "--tail", "all", "cc"]).ok().lines().count(), 5000);
        assert_eq!(daemon.with(client, &["logs", "cc"]).ok().lines().count(), 5000);
    }

    fn timestamps_are_rfc3339_and_ascend(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "--name", "cc", "busybox", "seq", "1", "3"]).ok();
        let logs = daemon.with(client, &["logs", "--timestamps", "cc"]).ok();
        let times: Vec<&str> = logs.lines().map(|line| line.split_once(' ').unwrap().0).collect();
        assert_eq!(times.len(), 3);
        assert!(times.is_sorted() && times.iter().all(|t| t.len() == 30 && t.ends_with('Z')), "{times:?}");
    }

    fn since_and_until_take_a_part_of_a_log(daemon: &Daemon, client: Client) {
        let script = "for i in 1 2 3 4 5; do echo $i; sleep 0.01; done";
        daemon.with(client, &["run", "--name", "cc", "busybox", "sh", "-c", script]).ok();
        let logs = daemon.with(client, &["logs", "-t", "cc"]).ok();
        let times: Vec<&str> = logs.lines().map(|line| line.split_once(' ').unwrap().0).collect();
        assert_eq!(daemon.with(client, &["logs", "--since", times[2], "cc"]).ok(), "3\n4\n5");
        assert_eq!(daemon.with(client, &["logs", "--until", times[2], "cc"]).ok(), "1\n2\n3");
        let both = ["logs", "--since", times[1], "--until", times[3], "cc"];
        assert_eq!(daemon.with(client, &both).ok(), "2\n3\n4");
        assert_eq!(daemon.with(client, &["logs", "--since", "10m", "--tail", "2", "cc"]).ok(), "4\n5");
        assert_eq!(daemon.with(client, &["logs", "--until", "10m", "cc"]).ok(), "");
        let followed = ["logs", "-f", "--since", times[3], "cc"];
        assert_eq!(daemon.with(client, &followed).ok(), "4\n5");
    }

    fn follow_goes_on_until_the_container_ends(daemon: &Daemon, client: Client) {
        let script = "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done";
        daemon.with(client, &["run", "-d", "--name", "cc", "busybox", "sh", "-c", script]).ok();
        assert_eq!(daemon.with(client, &["logs", "-f", "cc"]).ok(), "1\n2\n3\n4\n5");
    }

    fn a_terminal_s_log_is_raw(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "-d", "--name", "cc", "-t", "busybox", "sh", "-c", "test -t 1 && echo tty"]).ok();
        daemon.wait("cc");
        assert_eq!(daemon.with(client, &["logs", "cc"]).stdout, "tty\r\n");
    }

    fn lines_longer_than_any_buffer_come_back_whole(daemon: &Daemon, client: Client) {
        let script = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end";
        daemon.with(client, &["run", "-d", "--name", "cc", "busybox", "sh", "-c", script]).ok();
        daemon.wait("cc");
        let logs = daemon.with(client, &["logs", "cc"]).ok();
        assert_eq!(logs.len(), 100_000 + 4);
        assert!(logs.ends_with("x\nend"));
    }

    fn a_line_that_came_in_parts_is_one_line(daemon: &Daemon, client: Client) {
        // The second part is longer than what is read at once; the last one is no line.
        let wait = |file: &str| format!("while [ ! -e /{file} ]; do sleep 0.01; done");
        let script = format!(
            "printf begin; {}; head -c 40000 /dev/zero | tr '\\0' x; {}; echo end; {}; echo last; printf tail",
            wait("one"), wait("two"), wait("three")
        );
        for driver in ["local", "json-file"] {
            daemon.with(client, &["run", "-d", "--name", driver, "--log-driver", driver, "busybox", "sh", "-c", &script]).ok();
            let so_far = || daemon.with(client, &["logs", driver]).stdout;
            daemon.with(client, &["exec", driver, "touch", "/one"]).ok();
            eventually("most of the line is logged", || (so_far().len() > 32_000).then_some(()));
            daemon.with(client, &["exec", driver, "touch", "/two"]).ok();
            eventually("the line is logged", || so_far().ends_with("end\n").then_some(()));
            daemon.with(client, &["exec", driver, "touch", "/three"]).ok();
            daemon.wait(driver);
            let line = format!("begin{}end", "x".repeat(40_000));
            let logs = |arguments: &[&str]| daemon.with(client, &[&["logs"][..], arguments, &[driver]].concat()).ok();
            assert!(logs(&[]) == format!("{line}\nlast\ntail"), "{driver}");
            assert_eq!(logs(&["--tail", "2"]), "last\ntail", "{driver}");
            assert!(logs(&["--tail", "3"]) == format!("{line}\nlast\ntail"), "{driver}");
            let stamped = logs(&["--timestamps"]);
            let stamped: Vec<(&str, &str)> = stamped.lines().map(|line| line.split_once(' ').unwrap()).collect();
            let texts: Vec<&str> = stamped.iter().map(|(_, text)| *text).collect();
            assert!(texts == [&line, "last", "tail"], "{driver}: one time for each line");
            assert_eq!(logs(&["--since", stamped[1].0]), "last\ntail", "{driver}");
            assert!(logs(&["--until", stamped[1].0]).starts_with(&format!("{line}\nlast")), "{driver}");
        }
    }

    fn a_local_log_is_followed_while_it_rotates(daemon: &Daemon, client: Client) {
        let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; [ $((i % 50)) = 0 ] && sleep 0.02; done";
        let options = ["--log-driver=local", "--log-opt=max-size=10k", "--log-opt=max-file=1000", "--name=cc"];
        daemon.background(&[&options[..], &["busybox", "sh", "-c", script]].concat());
        let followed = daemon.with(client, &["logs", "-f", "cc"]).ok();
        assert_eq!(followed.lines().collect::<Vec<_>>(), numbers(3000));
        assert_eq!(daemon.with(client, &["logs", "cc"]).ok(), followed);
    }
}

fn numbers(last: usize) -> Vec<String> {
    (1..=last).map(|number| number.to_string()).collect()
}

/// Docker's client ends with the daemon, and asks the next one again.
#[test]
fn docker_s_client_follows_again_with_the_next_daemon() {
    let mut daemon = Daemon::start();
    let script = "i=0; while [ ! -e /stop ]; do i=$((i+1)); echo $i; sleep 0.002; done";
    let id = daemon.background(&[
        "--log-opt=max-size=10k",
        "--log-opt=max-file=1000",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    for graceful in [false, true] {
        let mut follower =
            daemon.client(Client::Docker, &["logs", "-f", &id]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
        let mut seen: Vec<String> = lines.by_ref().take(500).map(Result::unwrap).collect();
        if graceful {
            daemon.stop();
        } else {
            daemon.kill();
        }
        seen.extend(lines.map(Result::unwrap));
        follower.wait().unwrap();
        // The last one may have come in part.
        seen.pop();
        assert_eq!(seen, numbers(seen.len()));
        daemon.launch();
    }
    let follower =
        daemon.client(Client::Docker, &["logs", "-f", &id]).stdout(Stdio::piped()).spawn().unwrap();
    // The container may end, and this with it, before it has said how it went.
    let stopped = daemon.berth(&["exec", &id, "touch", "/stop"]);
    assert!(matches!(stopped.code, 0 | 137), "{stopped:?}");
    let seen = String::from_utf8(follower.wait_with_output().unwrap().stdout).unwrap();
    let seen: Vec<&str> = seen.lines().collect();
    assert!(seen.len() > 500);
    assert_eq!(seen, numbers(seen.len()));
}

#[test]
fn following_survives_a_daemon_that_dies_and_nothing_is_lost() {
    let mut daemon = Daemon::start();
    let script = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i; sleep 0.005; done";
    let id = daemon.background(&["busybox", "sh", "-c", script]);
    eventually("it wrote", || (daemon.berth(&["logs", &id]).stdout.lines().count() > 20).then_some(()));
    daemon.kill();
    daemon.launch();
    let logs = run(&mut daemon.client(Client::Berth, &["logs", "-f", &id])).ok();
    let expected: Vec<String> = (1..=400).map(|n| n.to_string()).collect();
    assert_eq!(logs.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_follower_goes_on_with_the_next_daemon() {
    let mut daemon = Daemon::start();
    // The second stream is now and then in the middle of a line of the first.
    let script = "i=0; while [ ! -e /stop ]; do i=$((i+1)); echo $i; echo e$i >&2; sleep 0.002; done";
    let id = daemon.background(&["busybox", "sh", "-c", script]);
    let mut follower = daemon.client(Client::Berth, &["logs", "-f", &id]);
    let mut follower = follower.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = follower.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).unwrap();
        text
    });
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut seen: Vec<String> = lines.by_ref().take(20).map(Result::unwrap).collect();
    for graceful in [false, false, true] {
        if graceful {
            daemon.stop();
        } else {
            daemon.kill();
        }
        daemon.launch();
        seen.extend(lines.by_ref().take(20).map(Result::unwrap));
    }
    daemon.berth(&["exec", &id, "touch", "/stop"]).ok();
    seen.extend(lines.map(Result::unwrap));
    assert!(follower.wait().unwrap().success());
    let logs = daemon.berth(&["logs", &id]);
    assert_eq!(seen, logs.stdout.lines().collect::<Vec<_>>());
    assert_eq!(errors.join().unwrap(), logs.stderr);
    assert_eq!(seen, (1..=seen.len()).map(|n| n.to_string()).collect::<Vec<_>>());
}
