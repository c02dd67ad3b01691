//! `berth monitor` on a terminal.

use std::process::Command;

use crate::daemon::{Client, Daemon};
use crate::output::{Output, eventually, run};
use crate::terminal::Terminal;

const LEAVE: &str = "\x1b[?1049l";

/// The monitor on a terminal whose settings are written to files before and after it.
fn start(daemon: &Daemon) -> Terminal {
    let folder = daemon.root.path().display();
    let client = daemon.client(Client::Berth, &["monitor"]);
    let words: Vec<_> = client.get_args().map(|word| word.to_str().unwrap().to_owned()).collect();
    let program = client.get_program().to_str().unwrap();
    let script = format!(
        "stty -a > {folder}/before; sh -c 'echo $$ > {folder}/pid; exec {program} {}'; echo \"code=$?\"; stty -a > {folder}/after",
        words.join(" ")
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env("TERM", "xterm").env_remove("NO_COLOR");
    Terminal::run(command)
}

#[track_caller]
fn ends(daemon: &Daemon, mut terminal: Terminal, code: i32) {
    terminal.expect(LEAVE);
    terminal.expect(&format!("code={code}"));
    terminal.end();
    // The first line tells the size, which is the window's.
    let [before, after] = ["before", "after"].map(|name| {
        let text = std::fs::read_to_string(daemon.root.path().join(name)).unwrap();
        text.split_once('\n').unwrap().1.to_owned()
    });
    assert!(before.contains(" icanon") && before == after, "{before}\n{after}");
}

fn state(daemon: &Daemon, name: &str) -> String {
    daemon.berth(&["inspect", "-f", "{{.State.Status}}", name]).ok()
}

#[test]
fn containers_are_shown_looked_at_and_changed() {
    let daemon = Daemon::start();
    daemon.background(&["--name", "web", "busybox", "sh", "-c", "echo hello from web; exec sleep 1000"]);
    daemon.background(&[
        "--name",
        "other",
        "--health-cmd",
        "true",
        "--health-interval",
        "1s",
        "busybox",
        "sleep",
        "1000",
    ]);
    let mut terminal = start(&daemon);
    terminal.expect("berth monitor: 2 containers, 2 running");
    // A figure of each, and the health.
    terminal.expect("other");
    terminal.expect("0.00%");
    terminal.expect("healthy");
    terminal.send("/WE");
    terminal.expect("filter: WE_");
    terminal.send("\r");
    terminal.expect("1 with \"WE\"");
    terminal.send("\r");
    terminal.expect("PROCESSES");
    terminal.expect("sleep 1000");
    terminal.expect("LOG");
    terminal.expect("hello from web");
    terminal.send("\x1b");
    terminal.expect("q quit");
    terminal.send("p");
    terminal.expect("pause web? [y/N]");
    terminal.send("n");
    terminal.expect("q quit");
    assert_eq!(state(&daemon, "web"), "running");
    terminal.send("p");
    terminal.expect("pause web? [y/N]");
    terminal.send("y");
    terminal.expect("\x1b[7mweb");
    eventually("it is paused", || (state(&daemon, "web") == "paused").then_some(()));
    terminal.expect("paused");
    terminal.send("p");
    terminal.expect("unpause web? [y/N]");
    terminal.send("y");
    eventually("it goes on", || (state(&daemon, "web") == "running").then_some(()));
    terminal.send("K");
    terminal.expect("kill web? [y/N]");
    terminal.send("y");
    eventually("it is killed", || (state(&daemon, "web") == "exited").then_some(()));
    terminal.expect("exited");
    terminal.send("r");
    terminal.expect("restart web? [y/N]");
    terminal.send("y");
    eventually("it runs again", || (state(&daemon, "web") == "running").then_some(()));
    // What comes and goes is seen without a key.
    terminal.send("\x1b");
    daemon.background(&["--name", "third", "busybox", "sleep", "1000"]);
    terminal.expect("3 containers, 3 running");
    terminal.expect("third");
    terminal.resize(30, 130);
    terminal.expect("IMAGE");
    terminal.expect("HEALTH");
    terminal.resize(5, 30);
    terminal.send("q");
    ends(&daemon, terminal, 0);
}

#[test]
fn signals_leave_the_terminal_in_order() {
    let daemon = Daemon::start();
    for (signal, code) in [("TERM", 143), ("HUP", 129), ("INT", 130), ("QUIT", 131)] {
        let mut terminal = start(&daemon);
        terminal.expect("berth monitor: 0 containers");
        let pid = std::fs::read_to_string(daemon.root.path().join("pid")).unwrap();
        run(Command::new("kill").args([&format!("-{signal}"), pid.trim()])).ok();
        ends(&daemon, terminal, code);
    }
    let mut terminal = start(&daemon);
    terminal.expect("berth monitor: 0 containers");
    terminal.send("\x03");
    ends(&daemon, terminal, 0);
}

#[test]
fn a_daemon_that_goes_away_is_waited_for() {
    let mut daemon = Daemon::start();
    daemon.background(&["--name", "web", "busybox", "sleep", "1000"]);
    let mut terminal = start(&daemon);
    terminal.expect("1 containers, 1 running");
    daemon.kill();
    terminal.expect("the daemon does not answer");
    daemon.launch();
    terminal.expect("connected again");
    terminal.expect("0.00%");
    terminal.send("q");
    ends(&daemon, terminal, 0);
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let daemon = Daemon::empty(&[]);
    let output: Output = daemon.berth(&["monitor"]);
    let output = output.fails(1, "needs a terminal");
    assert_eq!(output.stdout, "");
    let mut command = daemon.client(Client::Berth, &["monitor"]);
    command.env("TERM", "dumb");
    let mut terminal = Terminal::run(command);
    terminal.expect("needs a terminal");
    assert_eq!(terminal.end(), 1);
}

#[test]
fn colour_is_left_out_if_the_user_says_so() {
    let daemon = Daemon::start();
    daemon.background(&["--name", "web", "busybox", "sleep", "1000"]);
    daemon.background(&["--name", "web2", "busybox", "sleep", "1000"]);
    for (no_color, coloured) in [("", true), ("1", false)] {
        let mut command = daemon.client(Client::Berth, &["monitor"]);
        command.env("TERM", "xterm").env("NO_COLOR", no_color);
        let mut terminal = Terminal::run(command);
        terminal.expect("2 running");
        let mut shown = terminal.expect("q quit");
        terminal.send("q");
        shown += &terminal.expect(LEAVE);
        assert_eq!(shown.contains("\x1b[32m"), coloured, "{shown:?}");
        assert_eq!(terminal.end(), 0);
    }
}
