//! The daemon as a process: sockets, files, one on each data root, and on demand.

use std::fs;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::daemon::{Client, Daemon, binary};
use crate::output::{eventually, run};
use crate::terminal::Terminal;

#[test]
fn refuses_to_start_twice_on_one_data_root() {
    let daemon = Daemon::empty(&[]);
    let mut second = daemon.command();
    second.arg("-H").arg(format!("unix://{}/second.sock", daemon.root.path().display()));
    run(&mut second).fails(1, &daemon.pid().to_string());
    daemon.berth(&["ps"]).ok();
}

#[test]
fn leaves_a_live_socket_alone_and_replaces_a_stale_one() {
    let mut daemon = Daemon::empty(&[]);
    let other = tempfile::tempdir().unwrap();
    let mut second = Command::new(binary());
    second
        .arg("daemon")
        .arg("--data-root")
        .arg(other.path().join("dd"))
        .arg("--exec-root")
        .arg(other.path().join("e"));
    second.args(["-H", &daemon.host()]);
    assert_ne!(run(&mut second).code, 0);
    daemon.berth(&["ps"]).ok();
    daemon.kill();
    assert!(daemon.socket().exists(), "a killed daemon leaves its socket");
    daemon.launch();
    daemon.berth(&["ps"]).ok();
}

#[test]
fn listens_on_tcp_of_both_families() {
    let daemon = Daemon::empty(&["-H", "tcp://127.0.0.1:23750", "-H", "tcp://[::1]:23750"]);
    for address in ["127.0.0.1:23750", "[::1]:23750"] {
        TcpStream::connect(address).unwrap();
        for program in [binary(), "docker".into()] {
            run(Command::new(program).args(["-H", &format!("tcp://{address}"), "ps"])).ok();
        }
    }
    assert!(daemon.log().to_lowercase().contains("tls"), "a warning: {}", daemon.log());
}

#[test]
fn takes_a_socket_that_is_passed_in() {
    let mut daemon = Daemon::empty(&[]);
    daemon.stop();
    let path = daemon.root.path().join("passed.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // As systemd does: descriptor 3, and variables that name the process.
    let script = format!("exec 3<&{}; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"", listener.as_raw_fd());
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash"]).arg(binary()).args(["daemon", "-H", "fd://"]);
    command.arg("--data-root").arg(daemon.data_root()).arg("--exec-root").arg(daemon.exec_root());
    let mut child = command.spawn().unwrap();
    let host = format!("unix://{}", path.display());
    run(Command::new(binary()).args(["-H", &host, "ps"])).ok();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn writes_a_pidfile_and_removes_it() {
    let folder = tempfile::tempdir().unwrap();
    let pidfile = folder.path().join("berth.pid");
    let mut daemon = Daemon::empty(&["--pidfile", pidfile.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&pidfile).unwrap().trim(), daemon.pid().to_string());
    assert_eq!(daemon.stop(), 0);
    assert!(!pidfile.exists());
    assert!(!daemon.socket().exists());
}

#[test]
fn debug_says_more() {
    let daemon = Daemon::empty(&["--debug"]);
    daemon.berth(&["ps"]).ok();
    assert!(daemon.log().contains("DEBUG"), "{}", daemon.log());
}

#[test]
fn unknown_flags_are_refused() {
    let output = run(Command::new(binary()).args(["daemon", "--no-such-flag"]));
    assert!(output.code != 0 && output.stderr.contains("--no-such-flag"), "{output:?}");
}

#[test]
fn r20_state_directories_are_for_root_alone() {
    let daemon = Daemon::start();
    daemon.background(&["busybox", "sleep", "1000"]);
    for folder in [daemon.data_root(), daemon.exec_root()] {
        let mode = fs::metadata(&folder).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", folder.display());
    }
}

#[test]
fn a_loose_data_root_is_tightened_at_start() {
    let mut daemon = Daemon::empty(&[]);
    daemon.stop();
    fs::set_permissions(daemon.data_root(), fs::Permissions::from_mode(0o755)).unwrap();
    daemon.launch();
    assert_eq!(fs::metadata(daemon.data_root()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_graceful_stop_leaves_containers_running() {
    let mut daemon = Daemon::start();
    let id = daemon.background(&["busybox", "sleep", "1000"]);
    let pid = daemon.init_pid(&id);
    assert_eq!(daemon.stop(), 0);
    assert!(fs::metadata(format!("/proc/{pid}")).is_ok());
    daemon.launch();
    assert_eq!(daemon.init_pid(&id), pid);
}

#[test]
fn the_command_line_starts_a_daemon_when_none_runs() {
    // The namespace and the clean-up of a daemon of the test's own, whose defaults live in a private mount namespace.
    let mut daemon = Daemon::empty(&[]);
    daemon.stop();
    let script = r#"
        mount -t tmpfs run /run && mkdir -p /var/lib && mount -t tmpfs lib /var/lib
        "$0" run --rm hello && "$0" ps -q && kill "$(cat /run/berth/daemon.pid)"
    "#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c", script]).arg(binary());
    let output = run(command.env_remove("DOCKER_HOST").env_remove("BERTH_HOST"));
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.to_lowercase().contains("hello"), "{output:?}");
    let notices: Vec<_> = output.stderr.lines().filter(|l| l.contains("daemon")).collect();
    assert_eq!(notices.len(), 1, "one line says so: {output:?}");
}

#[test]
fn many_requests_at_once_are_all_answered() {
    let daemon = Daemon::start();
    std::thread::scope(|scope| {
        for _ in 0..30 {
            let mut command = daemon.client(Client::Berth, &["images", "-q"]);
            scope.spawn(move || assert_eq!(run(&mut command).ok().len(), 12));
        }
    });
}

#[test]
fn idle_threads_and_descriptors_do_not_grow() {
    let daemon = Daemon::start();
    let count = || fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    daemon.berth(&["run", "--rm", "busybox", "true"]).ok();
    let before = count();
    for _ in 0..10 {
        daemon.berth(&["run", "--rm", "busybox", "true"]).ok();
    }
    eventually("descriptors are given back", || (count() <= before + 2).then_some(()));
}

#[test]
fn messages_on_a_terminal_are_coloured_unless_they_are_to_be_raw() {
    for (raw, expected) in [("false", "\x1b[36mINFO\x1b[0m["), ("true", "level=info msg=")] {
        let mut daemon = Daemon::empty(&["--log-format", "text", &format!("--raw-logs={raw}")]);
        daemon.stop();
        let mut terminal = Terminal::run(daemon.command());
        terminal.expect(expected);
        eventually("it answers", || (daemon.berth(&["ps"]).code == 0).then_some(()));
        terminal.send("\x03");
        assert_eq!(terminal.end(), 0);
    }
}
