//! Where the daemon listens: whose its socket is, sockets that are passed in, and those that cannot be had.

use std::fs;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command};

use crate::daemon::{Daemon, binary};
use crate::output::run;

/// Number of a group that every Debian has.
fn number_of(group: &str) -> u32 {
    let groups = fs::read_to_string("/etc/group").unwrap();
    let line = groups.lines().find(|line| line.starts_with(&format!("{group}:"))).unwrap();
    line.split(':').nth(2).unwrap().parse().unwrap()
}

#[test]
fn the_sockets_group_is_a_name_or_a_number() {
    let named = number_of("daemon");
    for (group, number) in [("daemon", named), ("54321", 54321), ("0", 0)] {
        let daemon = Daemon::empty(&["--group", group]);
        let socket = fs::metadata(daemon.socket()).unwrap();
        assert_eq!((socket.uid(), socket.gid()), (0, number), "{group}");
        assert_eq!(socket.permissions().mode() & 0o777, 0o660, "{group}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("daemon.json");
    fs::write(&file, r#"{"group": "daemon"}"#).unwrap();
    let daemon = Daemon::empty(&["--config-file", file.to_str().unwrap()]);
    assert_eq!(fs::metadata(daemon.socket()).unwrap().gid(), named);
}

#[test]
fn a_group_that_does_not_exist_is_refused_and_leaves_nothing() {
    let mut daemon = Daemon::empty(&[]);
    daemon.stop();
    for group in ["no-such-group", "-1", "99999999999"] {
        let mut command = daemon.command();
        run(command.arg(format!("--group={group}"))).fails(1, &format!("group {group} not found"));
        assert!(!daemon.socket().exists(), "{group}");
    }
    daemon.launch();
}

#[test]
fn one_address_that_cannot_be_had_leaves_nothing_of_the_others() {
    let mut daemon = Daemon::empty(&[]);
    daemon.stop();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("tcp://{}", taken.local_addr().unwrap());
    let folder = daemon.root.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let second = daemon.root.path().join("second.sock");
    let pidfile = daemon.root.path().join("own.pid");
    for (address, words) in [
        (taken.clone(), format!("listen on {taken}: address")),
        // Of documentation, and so nobody's (RFC 5737).
        ("tcp://192.0.2.1:2375".into(), "listen on tcp://192.0.2.1:2375: ".into()),
        (format!("unix://{}", folder.display()), format!("{} exists and is not a socket", folder.display())),
        ("unix:///proc/no-such/berth.sock".into(), "create /proc/no-such".into()),
        ("fd://".into(), "no sockets found via socket activation".into()),
    ] {
        let mut command = daemon.command();
        command.env_remove("LISTEN_FDS").arg("--pidfile").arg(&pidfile);
        command.args(["--tls=false", "-H", &address, "-H", &format!("unix://{}", second.display())]);
        run(&mut command).fails(1, &words);
        for left in [&daemon.socket(), &second, &pidfile] {
            assert!(!left.exists(), "{address}: {}", left.display());
        }
    }
    // The same address twice is one.
    let host = daemon.host();
    daemon.set_arguments(&["-H", &host]);
    daemon.launch();
    daemon.berth(&["ps"]).ok();
}

/// Starts a daemon as systemd does: descriptors from 3 on, and variables that name the process.
fn activated(daemon: &Daemon, sockets: &[&dyn AsRawFd], arguments: &[&str]) -> Command {
    // From high numbers first: a socket's own number may be one of the wanted.
    let redirections: Vec<String> = sockets
        .iter()
        .enumerate()
        .map(|(at, socket)| format!("{}<&{}", at + 103, socket.as_raw_fd()))
        .chain((0..sockets.len()).map(|at| format!("{}<&{}", at + 3, at + 103)))
        .chain((0..sockets.len()).map(|at| format!("{}<&-", at + 103)))
        .collect();
    let count = sockets.len();
    let script = format!("exec {}; LISTEN_FDS={count} LISTEN_PID=$$ exec \"$@\"", redirections.join(" "));
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash"]).arg(binary()).args(["daemon", "-H", "fd://"]);
    command.arg("--data-root").arg(daemon.data_root()).arg("--exec-root").arg(daemon.exec_root());
    command.args(arguments);
    command
}

fn inheritable(socket: &impl std::os::fd::AsFd) {
    rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).unwrap();
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn sockets_of_several_kinds_are_taken_over() {
    let mut daemon = Daemon::empty(&[]);
    daemon.stop();
    let path = daemon.root.path().join("passed.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::1]:0").unwrap()];
    inheritable(&unix);
    tcp.iter().for_each(inheritable);
    let child = activated(&daemon, &[&tcp[0], &unix, &tcp[1]], &[]).spawn().unwrap();
    let mut hosts = vec![format!("unix://{}", path.display())];
    hosts.extend(tcp.iter().map(|socket| format!("tcp://{}", socket.local_addr().unwrap())));
    for host in &hosts {
        for program in [binary(), "docker".into()] {
            run(Command::new(program).args(["-H", host, "ps"])).ok();
        }
    }
    end(child);
    assert!(path.exists(), "it is not the daemon's to remove");
}

#[test]
fn an_open_tcp_socket_that_is_passed_in_is_refused() {
    let mut daemon = Daemon::empty(&[]);
    daemon.stop();
    let open = TcpListener::bind("0.0.0.0:0").unwrap();
    inheritable(&open);
    let refused = run(&mut activated(&daemon, &[&open], &[]));
    refused.fails(1, "refusing the passed-in TCP socket 0.0.0.0:");
    let child = activated(&daemon, &[&open], &["--tls=false"]).spawn().unwrap();
    let host = format!("tcp://127.0.0.1:{}", open.local_addr().unwrap().port());
    run(Command::new(binary()).args(["-H", &host, "ps"])).ok();
    end(child);
}

#[test]
fn what_is_no_listening_socket_is_refused() {
    let mut daemon = Daemon::empty(&[]);
    daemon.stop();
    let file = fs::File::open("/dev/null").unwrap();
    inheritable(&file);
    run(&mut activated(&daemon, &[&file], &[])).fails(1, "descriptor 3 is not a listening");
}
