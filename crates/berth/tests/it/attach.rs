//! Attach and terminals: detach, Ctrl-C, sizes, `stty`.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::daemon::{Client, Daemon};
use crate::output::eventually;
use crate::terminal::Terminal;

const DETACH: &str = "\x10\x11";

with_both_clients! {
    fn an_interactive_shell_behaves(daemon: &Daemon, client: Client) {
        let mut terminal = Terminal::run(daemon.client(client, &["run", "-it", "--rm", "busybox", "sh"]));
        terminal.expect("# ");
        terminal.send("tty; stty size\n");
        terminal.expect("/dev/pts/0\r\n24 80");
        terminal.resize(40, 132);
        eventually("the size reaches the container", || {
            // The shell draws its line anew when the size changes: only the output can be relied upon.
            terminal.send("stty size; echo en''d\n");
            terminal.expect("end\r\n").contains("40 132").then_some(())
        });
        // Once it says so, it is the terminal's foreground.
        terminal.send("sh -c 'echo rea\"\"dy; exec sleep 1000'\n");
        terminal.expect("ready\r\n");
        terminal.send("\x03");
        terminal.expect("# ");
        terminal.send("echo code $?\n");
        terminal.expect("code 130");
        terminal.send("stty -echo; echo hid''den; stty echo\n");
        terminal.expect("hidden\r\n");
        terminal.send("exit 9\n");
        assert_eq!(terminal.end(), 9);
    }

    fn detach_leaves_it_running_and_attach_returns(daemon: &Daemon, client: Client) {
        let mut terminal = Terminal::run(daemon.client(client, &["run", "-it", "--name", "cc", "busybox", "sh"]));
        terminal.expect("# ");
        terminal.send("VALUE=kept\n");
        terminal.expect("# ");
        terminal.send(DETACH);
        assert_eq!(terminal.end(), 0);
        assert_eq!(daemon.inspect("cc", "{{.State.Running}}"), "true");
        let mut terminal = Terminal::run(daemon.client(client, &["attach", "cc"]));
        terminal.send("echo $VALUE-still\n");
        terminal.expect("kept-still");
        terminal.send("exit 3\n");
        assert_eq!(terminal.end(), 3);
        assert_eq!(daemon.inspect("cc", "{{.State.ExitCode}}"), "3");
    }

    fn attach_without_a_terminal_follows_output_and_passes_signals_on(daemon: &Daemon, client: Client) {
        let script = "trap 'echo bye; exit 5' TERM; echo up; while :; do echo tick; sleep 0.02; done";
        daemon.with(client, &["run", "-d", "--name", "cc", "busybox", "sh", "-c", script]).ok();
        let mut command = daemon.client(client, &["attach", "--no-stdin", "cc"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "tick"));
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
        assert!(lines.any(|line| line.unwrap() == "bye"));
        assert_eq!(child.wait().unwrap().code(), Some(5));
    }

    fn closing_standard_input_ends_what_reads_it(daemon: &Daemon, client: Client) {
        let mut command = daemon.client(client, &["run", "-i", "--rm", "busybox", "cat"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"first\n").unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "first");
        stdin.write_all(b"second").unwrap();
        drop(stdin);
        assert_eq!(lines.next().unwrap().unwrap(), "second");
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }

    fn a_closed_window_does_not_end_the_container(daemon: &Daemon, client: Client) {
        let mut terminal = Terminal::run(daemon.client(client, &["run", "-it", "--name", "cc", "busybox", "sh"]));
        terminal.expect("# ");
        terminal.hang_up();
        assert_eq!(daemon.inspect("cc", "{{.State.Running}}"), "true");
    }

    fn two_attached_clients_see_the_same(daemon: &Daemon, client: Client) {
        daemon.with(client, &["run", "-dit", "--name", "cc", "busybox", "sh"]).ok();
        let mut one = Terminal::run(daemon.client(client, &["attach", "cc"]));
        let mut two = Terminal::run(daemon.client(client, &["attach", "cc"]));
        // Each is attached once what it types comes back.
        one.send("echo from-o''ne\n");
        one.expect("from-one");
        two.send("echo from-t''wo\n");
        two.expect("from-two");
        one.expect("from-two");
        one.send(DETACH);
        // The stock client calls a detached `attach` a failure.
        assert_eq!(one.end(), if client == Client::Docker { 1 } else { 0 });
        two.send("exit\n");
        assert_eq!(two.end(), 0);
    }

    fn start_attached_prints_and_returns_the_code(daemon: &Daemon, client: Client) {
        daemon.with(client, &["create", "--name", "cc", "-i", "busybox", "sh", "-c", "cat; exit 6"]).ok();
        let output = crate::output::feed(&mut daemon.client(client, &["start", "-ai", "cc"]), b"given\n");
        assert_eq!((output.code, output.stdout.as_str()), (6, "given\n"));
    }
}

#[test]
fn a_terminal_needs_a_terminal() {
    let daemon = Daemon::start();
    daemon.berth(&["run", "-it", "--rm", "busybox", "true"]).fails(1, "the input device is not a TTY");
}
