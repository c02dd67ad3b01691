//! Bad input: Docker's message and exit code, or a better message.

use crate::daemon::{Client, Daemon};

with_both_clients! {
    fn unknown_images_names_and_containers(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "--pull", "never", "absent"]).fails(125, "No such image: absent:latest");
        daemon.with(client, &["run", "127.0.0.1:1/absent"]).fails(125, "127.0.0.1:1");
        daemon.with(client, &["create", "--name", "cc", "busybox"]).ok();
        daemon.with(client, &["run", "--name", "cc", "busybox"]).fails(125, "The container name \"/cc\" is already in use by container");
        daemon.with(client, &["run", "--name", "-bad", "busybox"]).fails(125, "Invalid container name (-bad)");
        daemon.with(client, &["run", "Upper"]).fails(125, "must be lowercase");
        daemon.with(client, &["start", "absent"]).fails(1, "No such container: absent");
        daemon.with(client, &["logs", "absent"]).fails(1, "No such container: absent");
    }

    fn commands_that_cannot_run(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "--rm", "busybox", "no-such"]).fails(127, "exec: \"no-such\": executable file not found in $PATH");
        daemon.with(client, &["run", "--rm", "busybox", "/no/such"]).fails(127, "no such file or directory");
        daemon.with(client, &["run", "--rm", "busybox", "/etc/passwd"]).fails(126, "permission denied");
        daemon.with(client, &["run", "--rm", "busybox", "/etc"]).fails(126, "");
        daemon.with(client, &["run", "--rm", "-u", "nobody-here", "busybox", "true"]).fails(125, "unable to find user nobody-here: no matching entries in passwd file");
        daemon.with(client, &["run", "--rm", "-u", "root:nogroup-here", "busybox", "true"]).fails(125, "unable to find group nogroup-here: no matching entries in group file");
        daemon.with(client, &["run", "--rm", "-w", "/etc/passwd", "busybox", "true"]).fails(125, "not a directory");
        assert_eq!(daemon.berth(&["ps", "-aq"]).ok(), "", "--rm cleans up what never ran");
        daemon.with(client, &["run", "--name", "kept", "busybox", "no-such"]).fails(127, "");
        assert_eq!(daemon.inspect("kept", "{{.State.ExitCode}}"), "127");
    }

    fn users_that_are_not_there_for_exec(daemon: &Daemon, client: Client) {
        daemon.background(&["--name", "cc", "busybox", "sleep", "1000"]);
        let refused = |user: &str, message: &str| {
            daemon.with(client, &["exec", "-u", user, "cc", "true"]).fails(1, message);
        };
        refused("nobody-here", "Error response from daemon: unable to find user nobody-here: no matching entries in passwd file");
        refused("1:nogroup-here", "Error response from daemon: unable to find group nogroup-here: no matching entries in group file");
        assert_eq!(daemon.with(client, &["exec", "-u", "7:8", "cc", "id", "-u"]).ok(), "7");
        daemon.berth(&["rm", "-f", "cc"]).ok();
    }

    fn malformed_values(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "--memory", "12q", "busybox"]).fails(125, "invalid suffix: 'q'");
        daemon.with(client, &["run", "--memory", "1m", "busybox"]).fails(125, "Minimum memory limit allowed is 6MB");
        daemon.with(client, &["run", "--cpus", "many", "busybox"]).fails(125, "many");
        daemon.with(client, &["run", "--cpus", "100000", "busybox"]).fails(125, "available");
        daemon.with(client, &["run", "-p", "http", "busybox"]).fails(125, "invalid containerPort: http");
        daemon.with(client, &["run", "-p", "99999:80", "busybox"]).fails(125, "invalid hostPort: 99999");
        daemon.with(client, &["run", "-v", "/a:relative", "busybox"]).fails(125, "mount path must be absolute");
        daemon.with(client, &["run", "-v", "/a:/b:wrong", "busybox"]).fails(125, "invalid mode");
        daemon.with(client, &["run", "-e", "=x", "busybox"]).fails(125, "invalid environment variable: =x");
        daemon.with(client, &["run", "--cap-add", "FLY", "busybox"]).fails(125, "FLY");
        daemon.with(client, &["run", "--stop-signal", "SIGWRONG", "busybox"]).fails(125, "SIGWRONG");
        daemon.with(client, &["run", "--mount", "type=bind,src=/absent/here,dst=/x", "busybox"]).fails(125, "bind source path does not exist: /absent/here");
        daemon.with(client, &["run", "--no-such-flag", "busybox"]).fails(125, "unknown flag: --no-such-flag");
        daemon.with(client, &["run", "--volumes-from", "absent", "busybox"]).fails(125, "No such container: absent");
        daemon.with(client, &["run", "--platform", "linux/s390x", "--pull", "never", "busybox"]).fails(125, "platform");
        daemon.with(client, &["logs", "--tail", "x", "absent"]).fails(1, "");
        assert_eq!(daemon.berth(&["ps", "-aq"]).ok().lines().count(), 0, "nothing was created");
        // As in Docker, a network is missed at the start: it may be made before.
        daemon.with(client, &["run", "--network", "absent", "busybox"]).fails(125, "network absent not found");
        assert_eq!(daemon.berth(&["ps", "-aq"]).ok().lines().count(), 1);
    }

    fn contradictory_flags(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "-d", "--rm", "--restart", "always", "busybox"]).fails(125, "conflicting options: cannot specify both --restart and --rm");
        let output = daemon.with(client, &["run", "-d", "-a", "stdout", "busybox"]);
        assert!(output.code != 0 && output.stderr.contains("conflicting options"), "{output:?}");
        daemon.with(client, &["run", "--network", "host", "--mac-address", "02:42:00:00:00:01", "busybox"]);
        daemon.with(client, &["run", "--memory", "64m", "--memory-swap", "32m", "busybox"]).fails(125, "memoryswap limit");
    }
}

#[test]
fn the_api_answers_nonsense_in_dockers_form() {
    let daemon = Daemon::empty(&[]);
    let ask = |method: &str, path: &str, body: &str| {
        let mut command = std::process::Command::new("curl");
        command
            .args(["-s", "-o", "-", "-w", "\n%{http_code}", "-X", method, "--unix-socket"])
            .arg(daemon.socket());
        command.args([
            "-H",
            "Content-Type: application/json",
            "-d",
            body,
            &format!("http://localhost{path}"),
        ]);
        let text = crate::output::run(&mut command).ok();
        let (body, code) = text.rsplit_once('\n').unwrap();
        (code.to_string(), body.trim_end().to_string())
    };
    assert_eq!(ask("GET", "/no/such/route", ""), ("404".into(), "{\"message\":\"page not found\"}".into()));
    let (code, body) = ask("POST", "/v1.55/containers/create", "{nonsense");
    assert_eq!(code, "400", "{body}");
    assert!(
        body.contains("invalid JSON: invalid character 'n' looking for beginning of object key string"),
        "{body}"
    );
    for (body, words) in [
        ("", "invalid JSON: EOF"),
        ("{}", "config cannot be empty in order to create a container"),
        (
            r#"{"Image": "i", "ExposedPorts": {"1;2": {}}}"#,
            "invalid JSON: invalid port '1;2': invalid syntax",
        ),
    ] {
        let (code, answer) = ask("POST", "/containers/create", body);
        assert!(code == "400" && answer.contains(words), "{code} {answer}");
    }
    let (code, body) = ask("POST", "/containers/absent/start?checkpoint=../outside", "");
    assert!(code == "400" && body.contains("invalid checkpoint ID"), "{code} {body}");
    let (code, body) = ask("POST", "/session", "");
    assert!(code == "400" && body.contains("no upgrade"), "{code} {body}");
    let (code, body) = ask("GET", "/v9.99/info", "");
    assert!(code == "400" && body.contains("client version 9.99 is too new"), "{code} {body}");
    let (code, body) = ask("GET", "/v1.10/info", "");
    assert!(code == "400" && body.contains("client version 1.10 is too old"), "{code} {body}");
    let (code, body) = ask("GET", "/containers/json?filters=nonsense", "");
    assert_eq!(code, "400", "{body}");
    assert_eq!(
        ask("GET", "/containers/absent/json", ""),
        ("404".into(), "{\"message\":\"No such container: absent\"}".into())
    );
}
