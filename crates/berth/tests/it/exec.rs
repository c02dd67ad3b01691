//! `exec`: further processes in a running container.

use crate::daemon::{Client, Daemon};
use crate::output::{feed, run};
use crate::terminal::Terminal;

with_both_clients! {
    fn output_input_and_exit_code(daemon: &Daemon, client: Client) {
        daemon.background(&["--name", "cc", "busybox", "sleep", "1000"]);
        let output = daemon.with(client, &["exec", "cc", "sh", "-c", "echo out; echo err >&2; exit 8"]);
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (8, "out\n", "err\n"));
        let output = feed(&mut daemon.client(client, &["exec", "-i", "cc", "cat"]), b"through");
        assert_eq!(output.stdout, "through");
    }

    fn shares_the_containers_namespaces_root_and_limits(daemon: &Daemon, client: Client) {
        daemon.background(&["--cgroupns", "private", "--name", "cc", "--hostname", "ship", "-e", "A=1", "busybox", "sleep", "1000"]);
        let script = "hostname; echo $A; ps -o pid,comm | grep -c sleep; cat /proc/self/cgroup | head -1";
        let text = daemon.with(client, &["exec", "cc", "sh", "-c", script]).ok();
        assert!(text.starts_with("ship\n1\n1\n"), "{text}");
        for line in daemon.with(client, &["exec", "cc", "cat", "/proc/self/cgroup"]).ok().lines() {
            assert!(line.ends_with(":/") || line.starts_with("0::"), "outside of the container's cgroup: {line}");
        }
    }

    fn user_environment_and_directory(daemon: &Daemon, client: Client) {
        daemon.background(&["--name", "cc", "busybox", "sleep", "1000"]);
        let script = "echo $(id -u) $X $(pwd)";
        let text = daemon.with(client, &["exec", "-u", "user", "-e", "X=y", "-w", "/tmp", "cc", "sh", "-c", script]).ok();
        assert_eq!(text, "1000 y /tmp");
    }

    fn on_a_terminal(daemon: &Daemon, client: Client) {
        daemon.background(&["--name", "cc", "busybox", "sleep", "1000"]);
        let mut terminal = Terminal::run(daemon.client(client, &["exec", "-it", "cc", "sh"]));
        terminal.expect("# ");
        terminal.send("tty; stty size; echo $TERM\n");
        terminal.expect("/dev/pts/");
        terminal.expect("24 80\r\nxterm");
        terminal.send("exit 4\n");
        assert_eq!(terminal.end(), 4);
    }

    fn in_the_background(daemon: &Daemon, client: Client) {
        daemon.background(&["--name", "cc", "busybox", "sleep", "1000"]);
        assert_eq!(daemon.with(client, &["exec", "-d", "cc", "sh", "-c", "echo done > /tmp/mark"]).ok(), "");
        crate::output::eventually("it ran", || {
            (daemon.berth(&["exec", "cc", "cat", "/tmp/mark"]).stdout == "done\n").then_some(())
        });
    }

    fn errors_have_their_exit_codes(daemon: &Daemon, client: Client) {
        daemon.background(&["--name", "cc", "busybox", "sleep", "1000"]);
        let output = daemon.with(client, &["exec", "cc", "no-such-command"]);
        assert_eq!(output.code, 127, "{output:?}");
        assert!((output.stdout + &output.stderr).contains("executable file not found in $PATH"));
        assert_eq!(daemon.with(client, &["exec", "cc", "/etc/passwd"]).code, 126);
        daemon.with(client, &["exec", "absent", "true"]).fails(1, "No such container: absent");
        daemon.berth(&["kill", "cc"]).ok();
        daemon.wait("cc");
        daemon.with(client, &["exec", "cc", "true"]).fails(1, "is not running");
    }
}

#[test]
fn many_at_once() {
    let daemon = Daemon::start();
    daemon.background(&["--name", "cc", "busybox", "sleep", "1000"]);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..40)
            .map(|n: usize| {
                let mut command = daemon.client(Client::Berth, &["exec", "cc", "echo", &n.to_string()]);
                scope.spawn(move || run(&mut command).ok())
            })
            .collect();
        for (n, one) in all.into_iter().enumerate() {
            assert_eq!(one.join().unwrap(), n.to_string());
        }
    });
}

#[test]
fn ends_with_its_container() {
    let daemon = Daemon::start();
    daemon.background(&["--name", "cc", "busybox", "sleep", "1000"]);
    let mut command = daemon.client(Client::Berth, &["exec", "cc", "sleep", "999"]);
    let mut child = command.spawn().unwrap();
    crate::output::eventually("the exec runs", || {
        daemon.berth(&["top", "cc"]).stdout.contains("sleep 999").then_some(())
    });
    daemon.berth(&["kill", "cc"]).ok();
    assert_eq!(child.wait().unwrap().code(), Some(137));
}
