//! Daemons at the other end of an `ssh` connection, for which a script of that name stands.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::daemon::{Client, Daemon, binary};
use crate::output::{Output, feed, run};

/// A machine elsewhere: programs, and the `ssh` that leads there.
struct Machine {
    folder: TempDir,
}

impl Machine {
    /// One whose shell finds these programs.
    fn with(daemon: &Daemon, programs: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (near, far) = (folder.path().join("near"), folder.path().join("far"));
        fs::create_dir(&near).unwrap();
        fs::create_dir(&far).unwrap();
        symlink("/bin/sh", far.join("sh")).unwrap();
        for program in programs {
            symlink(binary(), far.join(program)).unwrap();
        }
        // As ssh does: the words after the host are joined, and the other side's shell reads them.
        let script = format!(
            "#!/bin/bash\nprintf '%s\\n' \"$@\" > {log}\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\n\
             export PATH={far} DOCKER_HOST={host}\nexec sh -c \"$*\"\n",
            log = folder.path().join("arguments").display(),
            far = far.display(),
            host = daemon.host(),
        );
        let path = near.join("ssh");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn command(&self, client: Client, host: &str, arguments: &[&str]) -> Command {
        let mut command = match client {
            Client::Berth => Command::new(binary()),
            Client::Docker => Command::new("docker"),
        };
        let path = std::env::var("PATH").unwrap();
        let near = self.folder.path().join("near");
        command.env("PATH", format!("{}:{path}", near.display())).env("DOCKER_CONFIG", self.folder.path());
        command.env_remove("DOCKER_HOST").env_remove("BERTH_HOST").args(["-H", host]).args(arguments);
        command
    }

    #[track_caller]
    fn run(&self, client: Client, arguments: &[&str]) -> Output {
        run(&mut self.command(client, "ssh://me@far:2222", arguments))
    }

    /// What the script was called with last.
    fn arguments(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("arguments")).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

const CLIENTS: [Client; 2] = [Client::Berth, Client::Docker];

#[test]
fn streams_flow_both_ways() {
    let daemon = Daemon::start();
    let machine = Machine::with(&daemon, &["docker"]);
    for client in CLIENTS {
        let id = machine.run(client, &["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).ok();
        assert!(id.starts_with(&machine.run(client, &["ps", "-q"]).ok()));
        machine
            .run(client, &["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"])
            .fails(7, "err");
        // The input ends before the output does.
        let input = "line\n".repeat(40_000);
        let mut cat = machine.command(
            client,
            "ssh://far",
            &["run", "-i", "--rm", "busybox", "sh", "-c", "cat; echo end"],
        );
        let output = feed(&mut cat, input.as_bytes()).ok();
        assert!(output == format!("{input}end"), "{client:?}: {} bytes", output.len());
        let mut exec = machine.command(client, "ssh://far", &["exec", "-i", "up", "wc", "-c"]);
        assert_eq!(feed(&mut exec, input.as_bytes()).ok().trim(), "200000");
        machine
            .run(client, &["create", "-i", "--name", "reader", "busybox", "sh", "-c", "wc -c; echo end"])
            .ok();
        let mut start = machine.command(client, "ssh://far", &["start", "-ai", "reader"]);
        assert_eq!(feed(&mut start, input.as_bytes()).ok(), "200000\nend");
        machine.run(client, &["rm", "-f", "up", "reader"]).ok();
    }
}

#[test]
fn the_program_is_called_as_docker_calls_it() {
    let daemon = Daemon::start();
    let machine = Machine::with(&daemon, &["docker"]);
    machine.run(Client::Berth, &["ps"]).ok();
    let arguments = machine.arguments();
    assert_eq!(
        arguments[..arguments.len() - 1],
        ["-l", "me", "-p", "2222", "-o ConnectTimeout=30", "-T", "--", "far"]
    );
    assert!(arguments.last().unwrap().ends_with("exec docker system dial-stdio"), "{arguments:?}");
    // Under Docker's name it asks for nothing but Docker's.
    let alias = machine.folder.path().join("docker");
    symlink(binary(), &alias).unwrap();
    let mut command = Command::new(&alias);
    let near = format!("{}:/usr/bin:/bin", machine.folder.path().join("near").display());
    command.env("PATH", near).env("DOCKER_CONFIG", machine.folder.path()).env_remove("BERTH_HOST");
    command.env("DOCKER_HOST", "ssh://far").arg("ps");
    run(&mut command).ok();
    assert_eq!(machine.arguments(), ["-o ConnectTimeout=30", "-T", "--", "far", "docker system dial-stdio"]);
}

#[test]
fn sockets_over_there_can_be_named_also_in_contexts() {
    let daemon = Daemon::start();
    let elsewhere = Daemon::empty(&[]);
    // The environment over there leads to the wrong daemon.
    let machine = Machine::with(&elsewhere, &["docker"]);
    let host = format!("ssh://far{}", daemon.socket().display());
    for client in CLIENTS {
        assert_eq!(run(&mut machine.command(client, &host, &["images", "-q"])).ok().lines().count(), 1);
        assert_eq!(run(&mut machine.command(client, "ssh://far", &["images", "-q"])).ok(), "");
    }
    let context = |client: Client, arguments: &[&str]| {
        let mut command = machine.command(client, "", &[]);
        let mut plain = Command::new(command.get_program());
        plain.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        plain.env_remove("DOCKER_HOST").env_remove("BERTH_HOST").args(arguments);
        command = plain;
        run(&mut command).ok()
    };
    context(Client::Docker, &["context", "create", "far", "--docker", &format!("host={host}")]);
    for client in CLIENTS {
        assert_eq!(context(client, &["-c", "far", "images", "-q"]).lines().count(), 1, "{client:?}");
    }
}

#[test]
fn berth_is_found_without_docker_and_before_it() {
    let daemon = Daemon::start();
    let machine = Machine::with(&daemon, &["berth"]);
    machine.run(Client::Berth, &["ps"]).ok();
    machine.run(Client::Docker, &["ps"]).fails(1, "exit status 127");
    let both = Machine::with(&daemon, &["berth"]);
    let docker = both.folder.path().join("far/docker");
    fs::write(&docker, "#!/bin/sh\nexit 9\n").unwrap();
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
    both.run(Client::Berth, &["ps"]).ok();
}

#[test]
fn failures_say_what_ssh_says_and_what_helps() {
    let daemon = Daemon::empty(&[]);
    let machine = Machine::with(&daemon, &[]);
    let output = machine.run(Client::Berth, &["ps"]).fails(1, "install one of them there");
    assert!(
        output.stderr.contains("exit status 127") && output.stderr.contains("docker: not found"),
        "{output:?}"
    );
    let output = machine.run(Client::Berth, &["run", "busybox"]).fails(125, "install one of them there");
    assert!(output.stderr.starts_with("berth: error during connect: "), "{output:?}");
    // It ends after it was spoken to: a request that breaks on the way hides the end from the stock client.
    fs::write(
        machine.folder.path().join("near/ssh"),
        "#!/bin/sh\nread -r _\necho no route to far >&2\nexit 255\n",
    )
    .unwrap();
    for client in CLIENTS {
        let output = machine.run(client, &["ps"]).fails(1, "has exited with exit status 255");
        assert!(output.stderr.contains("stderr=no route to far"), "{output:?}");
        assert_eq!(output.stdout, "");
    }
    // Without any ssh.
    let mut command = machine.command(Client::Berth, "ssh://far", &["ps"]);
    run(command.env("PATH", "/nonexistent")).fails(1, "exec: \"ssh\": executable file not found in $PATH");
}

#[test]
fn a_stream_on_standard_input_and_output_is_the_api() {
    let daemon = Daemon::start();
    for client in CLIENTS {
        // It ends with the daemon's side, while its input stays open.
        let mut command = daemon.client(client, &["system", "dial-stdio"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"GET /_ping HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        child.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
        assert!(child.wait().unwrap().success());
        drop(input);
        assert!(answer.starts_with("HTTP/1.") && answer.ends_with("OK"), "{client:?}: {answer}");
    }
    let mut command = Command::new(binary());
    command.args(["-H", "unix:///nonexistent", "system", "dial-stdio"]);
    run(&mut command).fails(1, "failed to open the raw stream connection");
}
