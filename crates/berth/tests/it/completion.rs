//! Completion in the shells: what is offered, and how fast.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, binary};
use crate::output::run;
use crate::terminal::Terminal;

/// A folder with the program under its name, for a shell's path.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(std::path::absolute(binary()).unwrap(), folder.path().join("berth")).unwrap();
    folder
}

fn shell(name: &str, folder: &Path, host: &str) -> Command {
    let mut command = Command::new(name);
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    command.env("PATH", path).env("BERTH_HOST", host).env("HOME", folder).current_dir(folder);
    command
}

/// What the program offers for these words.
fn offered(daemon: &Daemon, words: &[&str]) -> Vec<String> {
    let mut command = Command::new(binary());
    command.arg("__complete").args(words).env("BERTH_HOST", daemon.host());
    let text = run(&mut command).ok();
    text.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

/// What bash completes a line to offer.
fn in_bash(folder: &Path, host: &str, line: &str) -> Vec<String> {
    // Bash's own way to split a line, for the variables that it would set.
    let script = r#"
        source <(berth completion bash)
        COMP_LINE=$1 COMP_POINT=${#1}
        mapfile -t COMP_WORDS < <(printf '%s' "$1" | grep -oE '[=:]|[^ =:]+')
        [[ $1 == *' ' ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _berth
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let text = run(shell("bash", folder, host).args(["-c", script, "bash", line])).ok();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn furnish(daemon: &Daemon) -> String {
    daemon.berth(&["create", "--name", "web-made", "busybox", "true"]).ok();
    let id = daemon.background(&["--name", "web-live", "busybox", "sleep", "1000"]);
    let paused = daemon.background(&["--name", "ice", "busybox", "sleep", "1000"]);
    daemon.berth(&["pause", &paused]).ok();
    daemon.berth(&["tag", "busybox", "127.0.0.1:5000/team/app:v1"]).ok();
    id
}

#[test]
fn names_come_from_the_daemon() {
    let daemon = Daemon::start();
    let id = furnish(&daemon);
    assert_eq!(offered(&daemon, &["stop", ""]), ["ice", "web-live"]);
    assert_eq!(offered(&daemon, &["stop", "ice", ""]), ["web-live"]);
    assert_eq!(offered(&daemon, &["start", ""]), ["web-made"]);
    assert_eq!(offered(&daemon, &["unpause", ""]), ["ice"]);
    assert_eq!(offered(&daemon, &["container", "rm", "-f", "web"]), ["web-live", "web-made"]);
    assert_eq!(offered(&daemon, &["logs", &id[..8]]), [&id[..12]]);
    assert_eq!(offered(&daemon, &["run", "-it", "127"]), ["127.0.0.1:5000/team/app:v1"]);
    assert_eq!(offered(&daemon, &["create", "busy"]), ["busybox", "busybox:latest"]);
    assert_eq!(offered(&daemon, &["run", "--network", "br"]), ["bridge"]);
    assert_eq!(offered(&daemon, &["run", "--network", "container:web"]), ["container:web-live"]);
    let runtimes =
        daemon.berth(&["info", "--format", "{{range $name, $_ := .Runtimes}}{{$name}} {{end}}"]).ok();
    let expected: Vec<_> = runtimes.split_whitespace().map(|name| format!("--runtime={name}")).collect();
    assert_eq!(offered(&daemon, &["run", "--runtime="]), expected);
    assert_eq!(offered(&daemon, &["-H", "unix:///nowhere", "stop", ""]), [""; 0]);
}

#[test]
fn it_is_fast_and_silent() {
    let daemon = Daemon::start();
    furnish(&daemon);
    let fastest = |host: &str| {
        let times = (0..10).map(|_| {
            let start = Instant::now();
            let output = run(Command::new(binary()).args(["__complete", "stop", ""]).env("BERTH_HOST", host));
            assert_eq!((output.code, output.stderr.as_str()), (0, ""));
            start.elapsed()
        });
        times.min().unwrap()
    };
    // Unoptimised builds and busy machines take longer than people wait for.
    assert!(fastest(&daemon.host()) < Duration::from_secs(1));
    assert!(fastest("unix:///nowhere/at.all") < Duration::from_secs(1));
    assert!(fastest("nonsense://") < Duration::from_secs(1));
    // One that takes connections and says nothing is given up.
    let folder = tempfile::tempdir().unwrap();
    let silent = folder.path().join("silent.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&silent).unwrap();
    assert!(fastest(&format!("unix://{}", silent.display())) < Duration::from_secs(2));
}

#[test]
fn bash_completes() {
    let daemon = Daemon::start();
    furnish(&daemon);
    let folder = folder();
    std::fs::write(folder.path().join("variables.env"), "").unwrap();
    for (line, expected) in [
        ("berth re", &["rename", "restart"][..]),
        ("berth container pau", &["pause"]),
        ("berth stop w", &["web-live"]),
        ("berth run --restart un", &["unless-stopped"]),
        ("berth run --restart=un", &["unless-stopped"]),
        ("berth ps --filter status=pa", &["paused"]),
        ("berth ps --filter=status=pa", &["paused"]),
        ("berth run 127.0.0.1:50", &["5000/team/app:v1"]),
        ("berth run --network container:web", &["web-live"]),
        ("berth run --env-file var", &["variables.env"]),
        ("berth run busybox cat var", &["variables.env"]),
        ("berth stop --sig", &["--signal"]),
    ] {
        assert_eq!(in_bash(folder.path(), &daemon.host(), line), expected, "{line}");
    }
}

#[test]
fn keys_complete_in_an_interactive_bash() {
    let daemon = Daemon::start();
    furnish(&daemon);
    let folder = folder();
    let mut command = shell("bash", folder.path(), &daemon.host());
    command.args(["--norc", "--noprofile", "-i"]).env("PS1", "ready> ").env("TERM", "dumb");
    let mut terminal = Terminal::run(command);
    terminal.expect("ready> ");
    terminal.send("source <(berth completion bash); bind 'set bell-style none'\n");
    terminal.expect("none'");
    terminal.expect("ready> ");
    for (typed, completed) in
        [("berth conta\t", "container "), ("ins\t", "inspect "), ("web-l\t", "web-live ")]
    {
        terminal.send(typed);
        terminal.expect(completed);
    }
    terminal.send("--format '{{.State.Status}}'\n");
    terminal.expect("running");
    terminal.expect("ready> ");
    for (typed, completed) in [("berth ps -a --filter sta\t", "status="), ("pau\t", "paused ")] {
        terminal.send(typed);
        terminal.expect(completed);
    }
    terminal.send("-q\n");
    terminal.expect("ready> ");
    terminal.send("exit\n");
    assert_eq!(terminal.end(), 0);
}

#[test]
fn zsh_and_fish_complete() {
    let daemon = Daemon::start();
    furnish(&daemon);
    let folder = folder();
    for (name, check) in [("bash", "bash -n"), ("zsh", "zsh -n"), ("fish", "fish --no-execute")] {
        let script = format!("berth completion {name} > script && {check} script");
        run(shell("sh", folder.path(), &daemon.host()).args(["-c", &script])).ok();
    }
    let script =
        "berth completion fish | source; complete -C 'berth stop w'; complete -C 'berth run --restart=un'";
    let text = run(shell("fish", folder.path(), &daemon.host()).args(["--no-config", "-c", script])).ok();
    let names: Vec<&str> = text.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(names, ["web-live", "--restart=unless-stopped"], "{text}");

    let mut command = shell("zsh", folder.path(), &daemon.host());
    command.args(["-f", "-i"]).env("PS1", "ready> ").env("TERM", "dumb");
    let mut terminal = Terminal::run(command);
    terminal.expect("ready> ");
    terminal.send("autoload -Uz compinit; compinit -u -D; source <(berth completion zsh); echo lo''aded\n");
    terminal.expect("loaded");
    terminal.expect("ready> ");
    terminal.send("berth container insp\tweb-l\t--format '{{.State.Status}}'\n");
    terminal.expect("running");
    terminal.expect("ready> ");
    terminal.send("exit\n");
    assert_eq!(terminal.end(), 0);
}

#[test]
fn an_unknown_shell_is_refused() {
    let daemon = Daemon::empty(&[]);
    daemon.berth(&["completion", "tcsh"]).fails(1, "must be one of bash, fish, zsh");
}
