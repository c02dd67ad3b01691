//! Health checks, by a process in the container and over its network.

use serde_json::{Value, json};

use crate::api::{ask, events};
use crate::daemon::{Client, Daemon};
use crate::files::{self, Image};
use crate::output::eventually;

fn status(daemon: &Daemon, name: &str) -> String {
    daemon.inspect(name, "{{.State.Health.Status}}")
}

#[track_caller]
fn becomes(daemon: &Daemon, name: &str, wanted: &str) {
    eventually(wanted, || (status(daemon, name) == wanted).then_some(()));
}

/// The results that are kept, the oldest first.
fn log(daemon: &Daemon, name: &str) -> Vec<Value> {
    let (_, shown) = ask(daemon, &format!("/containers/{name}/json"), None);
    shown["State"]["Health"]["Log"].as_array().cloned().unwrap_or_default()
}

fn last_output(daemon: &Daemon, name: &str) -> Option<String> {
    Some(log(daemon, name).last()?["Output"].as_str()?.to_owned())
}

const QUICK: [&str; 2] = ["--health-interval", "50ms"];

with_both_clients! {
    fn a_container_is_starting_then_healthy_then_unhealthy(daemon: &Daemon, client: Client) {
        let check = "test -e /tmp/well && echo fine || { echo ill; exit 3; }";
        let period = ["--health-start-period", "1h", "--health-start-interval", "50ms", "--health-retries", "2"];
        let arguments = [&["run", "-d", "--name", "cc", "--health-cmd", check][..], &QUICK, &period, &["busybox", "sleep", "1000"]].concat();
        let id = daemon.with(client, &arguments).ok();
        eventually("it was checked", || (log(daemon, "cc").len() == 5).then_some(()));
        assert_eq!(daemon.inspect("cc", "{{.State.Health.Status}} {{.State.Health.FailingStreak}}"), "starting 0");
        assert!(daemon.with(client, &["ps"]).ok().contains("(health: starting)"));
        daemon.berth(&["exec", "cc", "touch", "/tmp/well"]).ok();
        becomes(daemon, "cc", "healthy");
        assert!(daemon.with(client, &["ps"]).ok().contains("(healthy)"));
        eventually("its output", || (last_output(daemon, "cc")? == "fine\n").then_some(()));
        daemon.berth(&["exec", "cc", "rm", "/tmp/well"]).ok();
        becomes(daemon, "cc", "unhealthy");
        let last = log(daemon, "cc").pop().unwrap();
        assert_eq!((&last["ExitCode"], &last["Output"]), (&json!(3), &json!("ill\n")));
        assert!(last["Start"].as_str().unwrap() < last["End"].as_str().unwrap(), "{last}");
        assert!(daemon.with(client, &["ps", "--filter", "health=unhealthy"]).ok().contains("(unhealthy)"));
        assert_eq!(daemon.with(client, &["ps", "-q", "--filter", "health=healthy"]).ok(), "");
        let told = events(daemon, &id);
        let health: Vec<_> = told.iter().filter(|e| e.starts_with("health_status")).collect();
        assert_eq!(health, ["health_status: healthy", "health_status: unhealthy"]);
        for wanted in ["exec_create: /bin/sh -c test", "exec_start: /bin/sh -c test", "exec_die 3"] {
            assert!(told.iter().any(|event| event.starts_with(wanted)), "{wanted}: {told:?}");
        }
    }

    fn a_check_that_takes_too_long_is_killed_with_its_children(daemon: &Daemon, client: Client) {
        let check = "echo began; sleep 4242 & sleep 4242";
        let limits = ["--health-timeout", "150ms", "--health-retries", "1"];
        let arguments = [&["run", "-d", "--name", "cc", "--health-cmd", check][..], &QUICK, &limits, &["busybox", "sleep", "1000"]].concat();
        daemon.with(client, &arguments).ok();
        becomes(daemon, "cc", "unhealthy");
        let first = log(daemon, "cc").remove(0);
        assert_eq!((&first["ExitCode"], &first["Output"]), (&json!(-1), &json!("Health check exceeded timeout (150ms): began\n")));
        eventually("many were made", || (log(daemon, "cc").len() == 5).then_some(()));
        let left = daemon.berth(&["top", "cc"]).ok().matches("sleep 4242").count();
        assert!(left <= 2, "checks pile up: {left}");
    }

    fn the_images_check_is_used_changed_and_switched_off(daemon: &Daemon, client: Client) {
        let check = json!({"Test": ["CMD-SHELL", "echo $0 $PWD"], "Interval": 50_000_000});
        let image = files::busybox().configured(json!({
            "Env": ["PATH=/bin"], "Shell": ["/bin/sh", "-e", "-c"], "WorkingDir": "/tmp", "Healthcheck": check,
        }));
        load(daemon, &image, "checked");
        daemon.with(client, &["run", "-d", "--name", "own", "checked", "sleep", "1000"]).ok();
        becomes(daemon, "own", "healthy");
        assert_eq!(last_output(daemon, "own").unwrap(), "/bin/sh /tmp\n");
        assert_eq!(daemon.inspect("own", "{{index .Config.Shell 1}}"), "-e");
        daemon.with(client, &["run", "-d", "--name", "other", "--health-cmd", "exit 1", "--health-retries", "1", "checked", "sleep", "1000"]).ok();
        becomes(daemon, "other", "unhealthy");
        daemon.with(client, &["run", "-d", "--name", "off", "--no-healthcheck", "checked", "sleep", "1000"]).ok();
        assert_eq!(daemon.inspect("off", "{{with .State.Health}}checked{{end}}"), "");
        assert!(daemon.with(client, &["ps", "-q", "--filter", "health=none", "--no-trunc"]).ok() == daemon.inspect("off", "{{.Id}}"));
    }

    fn checks_end_with_the_container_and_begin_anew(daemon: &Daemon, client: Client) {
        let arguments = [&["run", "-d", "--name", "cc", "--health-cmd", "true"][..], &QUICK, &["busybox", "sleep", "1000"]].concat();
        daemon.with(client, &arguments).ok();
        becomes(daemon, "cc", "healthy");
        daemon.with(client, &["pause", "cc"]).ok();
        assert_eq!(status(daemon, "cc"), "unhealthy", "as in Docker, nobody knows");
        daemon.with(client, &["unpause", "cc"]).ok();
        becomes(daemon, "cc", "healthy");
        daemon.with(client, &["stop", "-t", "0", "cc"]).ok();
        assert_eq!(status(daemon, "cc"), "unhealthy");
        assert!(daemon.with(client, &["ps", "-a"]).ok().contains("Exited (137)"));
        let results = log(daemon, "cc");
        daemon.with(client, &["start", "cc"]).ok();
        becomes(daemon, "cc", "healthy");
        daemon.with(client, &["restart", "-t", "0", "cc"]).ok();
        becomes(daemon, "cc", "healthy");
        assert_ne!(log(daemon, "cc"), results, "it was checked again");
    }

    fn values_that_make_no_sense_are_refused(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "--health-cmd", "x", "--health-interval", "1us", "busybox"]).fails(125, "Interval in Healthcheck cannot be less than 1ms");
        daemon.with(client, &["run", "--no-healthcheck", "--health-cmd", "x", "busybox"]).fails(125, "--no-healthcheck conflicts with --health-* options");
        assert_eq!(daemon.berth(&["ps", "-aq"]).ok(), "");
    }
}

fn load(daemon: &Daemon, image: &Image, name: &str) {
    let bytes = image.docker_archive(&format!("{name}:latest"));
    let archive = files::write(daemon.root.path(), "image.tar", &bytes);
    daemon.berth(&["load", "-q", "-i", &archive]).ok();
}

/// A container that serves HTTP on port 80 and nothing but the files of `/www`.
fn server(daemon: &Daemon, check: &[&str]) -> String {
    let serve = "mkdir /www; echo all is well > /www/up; exec httpd -f -p 80 -h /www";
    let image = ["busybox", "sh", "-c", serve];
    daemon.background(&[&["--name", "cc"][..], check, &QUICK, &["--health-retries", "1"], &image].concat())
}

#[test]
fn http_is_asked_inside_the_containers_network_without_a_process() {
    let daemon = Daemon::start();
    let id = server(
        &daemon,
        &[
            "--health-http",
            "http://localhost/up",
            "--health-start-period",
            "1h",
            "--health-start-interval",
            "20ms",
        ],
    );
    becomes(&daemon, "cc", "healthy");
    let test = daemon.inspect("cc", "{{json .Config.Healthcheck.Test}}");
    assert_eq!(test, r#"["HTTP","http://localhost/up"]"#);
    let output = last_output(&daemon, "cc").unwrap();
    assert!(
        output.starts_with("HTTP/1.") && output.contains(" 200 ") && output.ends_with("\nall is well\n"),
        "{output}"
    );
    daemon.berth(&["exec", "cc", "rm", "/www/up"]).ok();
    becomes(&daemon, "cc", "unhealthy");
    let last = log(&daemon, "cc").pop().unwrap();
    assert!(last["ExitCode"] == 1 && last["Output"].as_str().unwrap().contains("404"), "{last}");
    let made_by_us = events(&daemon, &id).into_iter().filter(|e| e.starts_with("exec_create")).count();
    assert_eq!(made_by_us, 1, "the test's own exec is the only process that was added");
}

#[test]
fn a_port_is_tried_inside_the_containers_network() {
    let daemon = Daemon::start();
    // The test's own namespace, which is the daemon's, listens on the same port: it is not what is asked.
    let outside = std::net::TcpListener::bind("127.0.0.1:81").unwrap();
    server(&daemon, &["--health-tcp", "localhost:81"]);
    becomes(&daemon, "cc", "unhealthy");
    let output = last_output(&daemon, "cc").unwrap();
    assert!(output.contains("localhost:81") && output.contains("refused"), "{output}");
    daemon.berth(&["exec", "-d", "cc", "httpd", "-f", "-p", "81"]).ok();
    becomes(&daemon, "cc", "healthy");
    drop(outside);
}

#[test]
fn probes_need_no_program_and_have_a_json_form() {
    let daemon = Daemon::start();
    let body = |test: Value| json!({"Image": "busybox", "Cmd": ["sleep", "1000"], "Healthcheck": {"Test": test, "Interval": 50_000_000, "Retries": 1}});
    for (test, message) in [
        (json!(["HTTP", "https://localhost/"]), "must begin with http://"),
        (json!(["HTTP", "http://example.com/"]), "must be localhost or an IP address"),
        (json!(["HTTP"]), "must be [\"HTTP\", \"http://HOST:PORT/PATH\"]"),
        (json!(["TCP", "localhost"]), "the port is missing"),
    ] {
        let (code, answer) = ask(&daemon, "/containers/create", Some(&body(test)));
        assert!(code == 400 && answer["message"].as_str().unwrap().contains(message), "{code} {answer}");
    }
    let (code, made) = ask(&daemon, "/containers/create", Some(&body(json!(["TCP", "127.0.0.1:1"]))));
    assert_eq!(code, 201, "{made}");
    let id = made["Id"].as_str().unwrap();
    daemon.berth(&["start", id]).ok();
    becomes(&daemon, id, "unhealthy");
    assert_eq!(daemon.inspect(id, "{{.State.Running}}"), "true");
    // Versions before 1.52 do not know the field.
    let (_, list) = ask(&daemon, "/v1.52/containers/json", None);
    assert_eq!(list[0]["Health"]["Status"], "unhealthy", "{list}");
    let (_, list) = ask(&daemon, "/v1.51/containers/json", None);
    assert!(list[0].get("Health").is_none(), "{list}");
}

#[test]
fn checks_go_on_after_the_daemon_was_killed() {
    let mut daemon = Daemon::start();
    daemon.background(
        &[&["--name", "cc", "--health-cmd", "date +%s%N"][..], &QUICK, &["busybox", "sleep", "1000"]]
            .concat(),
    );
    becomes(&daemon, "cc", "healthy");
    daemon.kill();
    daemon.launch();
    // As in Docker, the new daemon knows nothing yet.
    let told = events(&daemon, "cc");
    becomes(&daemon, "cc", "healthy");
    assert!(!told.iter().any(|event| event == "die"), "{told:?}");
    assert!(!log(&daemon, "cc").is_empty());
}

#[test]
fn a_check_that_hangs_delays_nobody() {
    let daemon = Daemon::start();
    let hang = ["--health-cmd", "sleep 1000", "--health-interval", "1ms", "--health-timeout", "1h"];
    daemon.background(&[&["--name", "hangs"][..], &hang, &["busybox", "sleep", "1000"]].concat());
    eventually("the check hangs", || {
        daemon.berth(&["top", "hangs"]).ok().matches("sleep 1000").nth(1).map(|_| ())
    });
    daemon.background(
        &[&["--name", "cc", "--health-cmd", "true"][..], &QUICK, &["busybox", "sleep", "1000"]].concat(),
    );
    becomes(&daemon, "cc", "healthy");
    assert_eq!(daemon.berth(&["exec", "hangs", "echo", "here"]).ok(), "here");
    let began = std::time::Instant::now();
    daemon.berth(&["pause", "hangs"]).ok();
    daemon.berth(&["unpause", "hangs"]).ok();
    daemon.berth(&["rename", "hangs", "hung"]).ok();
    daemon.berth(&["rm", "-f", "hung"]).ok();
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_check_that_floods_its_output_is_cut() {
    let daemon = Daemon::start();
    daemon.background(
        &[
            &["--name", "cc", "--health-cmd", "yes | head -c 1000000"][..],
            &QUICK,
            &["busybox", "sleep", "1000"],
        ]
        .concat(),
    );
    becomes(&daemon, "cc", "healthy");
    let output = last_output(&daemon, "cc").unwrap();
    assert!(output.len() == 4096 + 3 && output.ends_with("..."), "{}", output.len());
}

#[test]
fn no_check_outlives_its_daemon() {
    let mut daemon = Daemon::start();
    let hang =
        ["--health-cmd", "sleep 4242 & sleep 4242", "--health-interval", "1ms", "--health-timeout", "1h"];
    let id = daemon.background(&[&["--name", "cc"][..], &hang, &["busybox", "sleep", "1000"]].concat());
    let hanging = |daemon: &Daemon| daemon.berth(&["top", &id]).ok().matches("sleep 4242").count();
    eventually("the check hangs", || (hanging(&daemon) >= 2).then_some(()));
    let before = daemon.berth(&["top", &id, "-o", "pid,args"]).ok();
    let old: Vec<&str> = before
        .lines()
        .filter(|line| line.contains("4242"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    daemon.kill();
    daemon.launch();
    eventually("the old processes are gone", || {
        let now = daemon.berth(&["top", &id, "-o", "pid,args"]).ok();
        let left =
            now.lines().filter(|line| old.iter().any(|pid| line.split_whitespace().next() == Some(pid)));
        (left.count() == 0).then_some(())
    });
    assert_eq!(daemon.inspect(&id, "{{.State.Running}}"), "true");
}

/// Runs `serve`, a script, under a check whose first failure counts.
fn serving(daemon: &Daemon, arguments: &[&str], serve: &str) -> String {
    let image = ["busybox", "sh", "-c", serve];
    daemon.background(&[arguments, &QUICK, &["--health-retries", "1"], &image].concat())
}

#[test]
fn probes_reach_loopback_of_both_families_without_any_network() {
    let daemon = Daemon::start();
    let httpd = |address: &str| format!("echo all is well > /up; exec httpd -f -p {address}:81 -h /");
    for (name, address, probe) in [
        ("http4", "127.0.0.1", ["--health-http", "http://127.0.0.1:81/up"]),
        ("http6", "[::1]", ["--health-http", "http://[::1]:81/up"]),
        // One that listens on IPv6 alone is found by name, too.
        ("name6", "[::1]", ["--health-http", "http://localhost:81/up"]),
        ("tcp6", "[::1]", ["--health-tcp", "[::1]:81"]),
        ("tcpname6", "[::1]", ["--health-tcp", "localhost:81"]),
    ] {
        let arguments = [&["--name", name, "--network", "none"][..], &probe].concat();
        serving(&daemon, &arguments, &httpd(address));
        becomes(&daemon, name, "healthy");
    }
    serving(&daemon, &["--name", "absent", "--network", "none", "--health-tcp", "[::1]:82"], &httpd("[::1]"));
    becomes(&daemon, "absent", "unhealthy");
    let output = last_output(&daemon, "absent").unwrap();
    assert!(output.contains("[::1]:82") && output.contains("refused"), "{output}");
}

#[test]
fn probes_go_to_the_network_that_a_container_shares() {
    let daemon = Daemon::start();
    daemon.background(&["--name", "base", "busybox", "sleep", "1000"]);
    let probe = ["--name", "cc", "--network", "container:base", "--health-http", "http://localhost:81/up"];
    serving(&daemon, &probe, "echo all is well > /up; exec httpd -f -p 81 -h /");
    becomes(&daemon, "cc", "healthy");
    // It is the other's server that answers, now.
    daemon.berth(&["exec", "-d", "base", "httpd", "-f", "-p", "82"]).ok();
    daemon.background(
        &[
            &["--name", "dd", "--network", "container:base", "--health-tcp", "127.0.0.1:82"][..],
            &QUICK,
            &["busybox", "sleep", "1000"],
        ]
        .concat(),
    );
    becomes(&daemon, "dd", "healthy");
}

#[test]
fn a_server_that_never_answers_runs_out_of_time() {
    let daemon = Daemon::start();
    let probe = ["--name", "cc", "--health-http", "http://localhost:81/", "--health-timeout", "300ms"];
    // It takes every connection, and reads nothing.
    serving(&daemon, &probe, "exec nc -ll -p 81 -e sleep 1000");
    let silent = || {
        let last = log(&daemon, "cc").pop()?;
        let output = last["Output"].as_str()?;
        // The first checks may come before the server.
        (last["ExitCode"] == -1 && output.contains("exceeded timeout (300ms)")).then_some(())
    };
    eventually("the check gives up", silent);
    becomes(&daemon, "cc", "unhealthy");
}

#[test]
fn an_answer_without_an_end_is_not_read_to_its_end() {
    let daemon = Daemon::start();
    let serve = |then: &str| {
        format!(
            "printf '#!/bin/sh\necho HTTP/1.1 200 OK\n{then}' > /serve; chmod +x /serve; exec nc -ll -p 81 -e /serve"
        )
    };
    let probe = |name| ["--name", name, "--health-http", "http://localhost:81/", "--health-timeout", "1h"];
    serving(&daemon, &probe("head"), &serve("while echo A: b; do :; done"));
    let refused = || last_output(&daemon, "head").filter(|output| output.contains("too long"));
    eventually("the head is too long", refused);
    becomes(&daemon, "head", "unhealthy");
    // The server is well: how much it says is its own business.
    serving(&daemon, &probe("body"), &serve("echo; yes"));
    becomes(&daemon, "body", "healthy");
    let output = last_output(&daemon, "body").unwrap();
    assert!(output.starts_with("HTTP/1.1 200 OK\ny\ny\n") && output.len() <= 4096 + 3, "{}", output.len());
}
