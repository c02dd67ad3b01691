//! Restart policies, and what `stop`, `kill`, `rm`, `wait` and a daemon's restart have to do with them.

use std::time::{Duration, Instant};

use crate::api::events;
use crate::daemon::{Client, Daemon};
use crate::output::eventually;

fn count(daemon: &Daemon, name: &str) -> u32 {
    daemon.inspect(name, "{{.RestartCount}}").parse().unwrap()
}

fn status(daemon: &Daemon, name: &str) -> String {
    daemon.inspect(name, "{{.State.Status}}")
}

#[track_caller]
fn becomes(daemon: &Daemon, name: &str, wanted: &str) {
    eventually(wanted, || (status(daemon, name) == wanted).then_some(()));
}

/// Ends a container's program as if it had ended by itself.
fn crash(daemon: &Daemon, name: &str) {
    let pid = rustix::process::Pid::from_raw(daemon.init_pid(name)).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

with_both_clients! {
    fn on_failure_gives_up_after_so_many(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["run", "-d", "--name", "cc", "--restart", "on-failure:2", "busybox", "sh", "-c", "exit 3"]).ok();
        let told = eventually("it gives up", || {
            let told = events(daemon, &id);
            (told.iter().filter(|event| *event == "die 3").count() == 3).then_some(told)
        });
        assert_eq!(daemon.inspect("cc", "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}"), "2 exited 3");
        let counted = |wanted: &str| told.iter().filter(|event| *event == wanted).count();
        assert_eq!((counted("start"), counted("die 3"), counted("restart"), counted("stop")), (3, 3, 0, 0), "{told:?}");
        daemon.with(client, &["run", "-d", "--name", "well", "--restart", "on-failure", "busybox", "true"]).ok();
        assert_eq!(daemon.wait("well"), 0);
        assert_eq!((status(daemon, "well").as_str(), count(daemon, "well")), ("exited", 0));
    }

    fn between_two_runs_it_is_restarting(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "-d", "--name", "cc", "--restart", "always", "busybox", "false"]).ok();
        eventually("the fourth restart", || {
            // Also while the policy's start is under way.
            let seen = daemon.with(client, &["inspect", "-f", "{{.State.Status}} {{.State.Restarting}}", "cc"]).ok();
            assert!(matches!(seen.as_str(), "running false" | "restarting true"), "{seen}");
            (count(daemon, "cc") >= 4).then_some(())
        });
        assert!(!daemon.with(client, &["ps", "-a", "--format", "{{.Status}}"]).ok().starts_with("Exited"));
    }

    fn delays_grow_and_are_shown(daemon: &Daemon, client: Client) {
        let began = Instant::now();
        daemon.with(client, &["run", "-d", "--name", "cc", "--restart", "always", "busybox", "false"]).ok();
        eventually("the fourth restart", || (count(daemon, "cc") >= 5).then_some(()));
        // 100 + 200 + 400 + 800 milliseconds lie between the five.
        assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
        eventually("ps says so", || daemon.with(client, &["ps"]).ok().contains("Restarting (1) ").then_some(()));
        assert_eq!(daemon.inspect("cc", "{{.State.Running}} {{.State.Restarting}} {{.State.Pid}}"), "true true 0");
        daemon.with(client, &["exec", "cc", "true"]).fails(1, "is restarting, wait until the container is running");
        daemon.with(client, &["pause", "cc"]).fails(1, "is restarting");
        daemon.with(client, &["rm", "cc"]).fails(1, "cannot remove container \"cc\": container is restarting: stop the container before removing or force remove");
        daemon.with(client, &["stop", "cc"]).ok();
        assert_eq!(status(daemon, "cc"), "exited");
    }

    fn what_a_client_stops_or_kills_stays_so(daemon: &Daemon, client: Client) {
        for command in [&["stop", "-t", "0", "cc"][..], &["kill", "cc"]] {
            daemon.with(client, &["run", "-d", "--name", "cc", "--restart", "always", "busybox", "sleep", "1000"]).ok();
            crash(daemon, "cc");
            eventually("it runs again", || (count(daemon, "cc") == 1 && status(daemon, "cc") == "running").then_some(()));
            daemon.with(client, command).ok();
            assert_eq!(daemon.inspect("cc", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
            daemon.with(client, &["start", "cc"]).ok();
            assert_eq!(count(daemon, "cc"), 0, "a client began anew");
            daemon.with(client, &["rm", "-f", "cc"]).ok();
        }
    }

    fn the_end_of_restarting_can_be_forced(daemon: &Daemon, client: Client) {
        for command in [&["kill", "cc"][..], &["kill", "-s", "TERM", "cc"], &["stop", "cc"], &["rm", "-f", "cc"]] {
            daemon.with(client, &["run", "-d", "--name", "cc", "--restart", "always", "busybox", "false"]).ok();
            eventually("it is restarting", || (count(daemon, "cc") > 3 && status(daemon, "cc") == "restarting").then_some(()));
            daemon.with(client, command).ok();
            if command[0] == "rm" {
                assert_eq!(daemon.berth(&["ps", "-aq"]).ok(), "");
            } else {
                assert_eq!(status(daemon, "cc"), "exited", "{command:?}");
                let restarts = count(daemon, "cc");
                assert!(daemon.with(client, &["ps", "-a"]).ok().contains("Exited (1)"));
                assert_eq!(count(daemon, "cc"), restarts);
                daemon.with(client, &["rm", "cc"]).ok();
            }
        }
    }

    fn a_restart_by_a_client_is_told(daemon: &Daemon, client: Client) {
        let script = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done";
        let id = daemon.with(client, &["run", "-d", "--name", "cc", "busybox", "sh", "-c", script]).ok();
        eventually("the trap is set", || daemon.berth(&["logs", "cc"]).stdout.contains("ready").then_some(()));
        let mut waiting = daemon.client(client, &["wait", "cc"]);
        let waiting = waiting.stdout(std::process::Stdio::piped()).spawn().unwrap();
        // The wait counts once the daemon has it: its connection is there.
        std::thread::sleep(Duration::from_millis(300));
        daemon.with(client, &["restart", "--signal", "USR1", "-t", "20", "cc"]).ok();
        assert_eq!(status(daemon, "cc"), "running");
        let output = waiting.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "5", "a wait ends with the run that it saw");
        let told: Vec<_> = events(daemon, &id).into_iter().filter(|event| event != "create" && event != "attach").collect();
        assert_eq!(told, ["start", "kill 10", "die 5", "stop", "start", "restart"]);
        daemon.with(client, &["stop", "--signal", "KILL", "cc"]).ok();
        daemon.with(client, &["restart", "cc"]).ok();
        assert_eq!(status(daemon, "cc"), "running");
    }
}

#[test]
fn daemons_start_what_their_policies_say() {
    let mut daemon = Daemon::start();
    for policy in ["no", "always", "unless-stopped", "on-failure"] {
        daemon.background(&["--name", policy, "--restart", policy, "busybox", "sleep", "1000"]);
        daemon.background(&[
            "--name",
            &format!("{policy}-stopped"),
            "--restart",
            policy,
            "busybox",
            "sleep",
            "1000",
        ]);
        daemon.berth(&["stop", "-t", "0", &format!("{policy}-stopped")]).ok();
    }
    daemon.berth(&["create", "--name", "created", "--restart", "always", "busybox", "sleep", "1000"]).ok();
    daemon.background(&["--name", "failing", "--restart", "always", "busybox", "false"]);
    eventually("it is restarting", || {
        (count(&daemon, "failing") > 1 && status(&daemon, "failing") == "restarting").then_some(())
    });
    daemon.kill();
    // The host loses everything that runs but what is on the disk.
    let shims: Vec<i32> = daemon.processes();
    for pid in shims {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::Signal::KILL,
        );
    }
    eventually("all are gone", || daemon.processes().is_empty().then_some(()));
    daemon.launch();
    for running in ["always", "unless-stopped", "always-stopped", "on-failure"] {
        becomes(&daemon, running, "running");
    }
    assert_eq!(count(&daemon, "always-stopped"), 0, "it was started, not restarted");
    for (name, wanted) in [
        ("no", "exited"),
        ("no-stopped", "exited"),
        ("unless-stopped-stopped", "exited"),
        ("on-failure-stopped", "exited"),
        ("created", "created"),
    ] {
        assert_eq!(status(&daemon, name), wanted, "{name}");
    }
    eventually("it fails on", || (count(&daemon, "failing") > 1).then_some(()));
}

#[test]
fn waits_end_as_their_condition_says() {
    let daemon = Daemon::start();
    let wait = |name: &str, condition: &str| {
        let path = format!("/containers/{name}/wait?condition={condition}");
        let mut command = std::process::Command::new("curl");
        command.args(["-sN", "-X", "POST", "--max-time", "20", "--unix-socket"]).arg(daemon.socket());
        command.arg(format!("http://localhost{path}")).stdout(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let code = |child: std::process::Child| {
        let output = child.wait_with_output().unwrap();
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        value["StatusCode"].as_i64().unwrap()
    };
    daemon.background(&["--name", "cc", "--restart", "always", "busybox", "sleep", "1000"]);
    let (first, second, third) = (wait("cc", "not-running"), wait("cc", "next-exit"), wait("cc", "removed"));
    std::thread::sleep(Duration::from_millis(300));
    crash(&daemon, "cc");
    assert_eq!((code(first), code(second)), (137, 137), "an end counts also if a policy starts it again");
    eventually("it runs again", || (status(&daemon, "cc") == "running").then_some(()));
    daemon.berth(&["rm", "-f", "cc"]).ok();
    assert_eq!(code(third), 137);
    daemon.berth(&["create", "--name", "new", "busybox", "sh", "-c", "exit 7"]).ok();
    assert_eq!(code(wait("new", "not-running")), 0);
    let next = wait("new", "next-exit");
    std::thread::sleep(Duration::from_millis(300));
    daemon.berth(&["start", "new"]).ok();
    assert_eq!(code(next), 7);
}

#[test]
fn a_kill_for_want_of_memory_is_told() {
    let daemon = Daemon::start();
    let script = "x=a; while :; do x=$x$x$x$x; done";
    let id = daemon.background(&[
        "--name",
        "cc",
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(daemon.wait("cc"), 137);
    assert_eq!(daemon.inspect("cc", "{{.State.OOMKilled}}"), "true");
    let told = events(&daemon, &id);
    let oom = told.iter().position(|event| event == "oom");
    assert!(oom.is_some() && oom < told.iter().position(|event| event == "die 137"), "{told:?}");
    daemon.background(&["--name", "well", "--memory", "16m", "busybox", "true"]);
    daemon.wait("well");
    assert_eq!(daemon.inspect("well", "{{.State.OOMKilled}}"), "false");
}
