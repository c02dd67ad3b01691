//! Log drivers that send elsewhere: what arrives, what `logs` still shows, and endpoints that die.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::daemon::{Client, Daemon};
use crate::output::eventually;

const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

/// A UDP socket, and its address.
fn udp() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(PATIENCE).unwrap();
    let address = format!("udp://{}", socket.local_addr().unwrap());
    (socket, address)
}

fn tcp() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    (listener, address)
}

fn datagram(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let length = socket.recv(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

/// Runs a container to its end with a driver and its options.
fn logged(daemon: &Daemon, client: Client, driver: &str, options: &[&str], script: &str) {
    let mut arguments = vec!["run", "-d", "--name", "cc", "--log-driver", driver];
    for option in options {
        arguments.extend(["--log-opt", option]);
    }
    arguments.extend(["busybox", "sh", "-c", script]);
    daemon.with(client, &arguments).ok();
}

with_both_clients! {
    fn syslog_over_tcp_in_order_and_readable_here(daemon: &Daemon, client: Client) {
        let (listener, address) = tcp();
        let address = format!("syslog-address={address}");
        let options = [&address, "syslog-format=rfc5424", "syslog-facility=local1", "tag=x/{{.Name}}"];
        logged(daemon, client, "syslog", &options, "for i in $(seq 1000); do echo $i; done; echo bad >&2");
        let lines: Vec<String> =
            BufReader::new(listener.accept().unwrap().0).lines().map(Result::unwrap).collect();
        let texts: Vec<_> = lines.iter().filter(|line| line.starts_with("<142>1 ")).collect();
        assert_eq!(texts.len(), 1000);
        assert!(texts.iter().zip(1..).all(|(line, n)| line.ends_with(&format!(" x/cc - {n}"))), "{:?}", texts[0]);
        assert!(lines.iter().any(|line| line.starts_with("<139>1 ") && line.ends_with(" - bad")));
        daemon.wait("cc");
        let logs = daemon.with(client, &["logs", "cc"]);
        assert_eq!((logs.stdout.lines().count(), logs.stderr.as_str()), (1000, "bad\n"));
    }

    fn syslog_over_udp(daemon: &Daemon, client: Client) {
        let (socket, address) = udp();
        let address = format!("syslog-address={address}");
        logged(daemon, client, "syslog", &[&address, "syslog-format=rfc3164", "cache-disabled=true"], "echo hi");
        let text = String::from_utf8(datagram(&socket)).unwrap();
        let id = &daemon.inspect("cc", "{{.Id}}")[..12];
        assert!(text.starts_with("<30>") && text.contains(&format!(" {id}[")) && text.ends_with("]: hi\n"), "{text}");
        daemon.with(client, &["logs", "cc"]).fails(1, "configured logging driver does not support reading");
    }

    fn syslog_to_a_socket_of_the_host_that_is_made_anew(daemon: &Daemon, client: Client) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let bind = || {
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_read_timeout(PATIENCE).unwrap();
            socket
        };
        let receive = |socket: &UnixDatagram| {
            let mut buffer = [0; 1000];
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        let first = bind();
        let address = format!("syslog-address=unixgram://{}", path.display());
        logged(daemon, client, "syslog", &[&address], "echo one; cat /proc/1/cmdline >/dev/null; while :; do echo more; sleep 0.2; done");
        assert!(receive(&first).ends_with(": one\n"));
        drop(first);
        std::fs::remove_file(&path).unwrap();
        let second = bind();
        assert!(receive(&second).ends_with(": more\n"));
    }

    fn gelf_over_udp(daemon: &Daemon, client: Client) {
        let (socket, address) = udp();
        let address = format!("gelf-address={address}");
        let options = [&address, "gelf-compression-type=none", "env=PATH", "tag=t"];
        logged(daemon, client, "gelf", &options, "echo hello >&2");
        let document: serde_json::Value = serde_json::from_slice(&datagram(&socket)).unwrap();
        assert_eq!((&document["short_message"], &document["level"]), (&"hello".into(), &3.into()));
        assert_eq!((&document["_container_name"], &document["_tag"]), (&"cc".into(), &"t".into()));
        assert!(document["_PATH"].as_str().unwrap().contains("/bin"), "{document}");
    }

    fn fluentd_with_acknowledgements(daemon: &Daemon, client: Client) {
        let (listener, address) = tcp();
        let address = format!("fluentd-address={address}");
        logged(daemon, client, "fluentd", &[&address, "fluentd-request-ack=true"], "echo first; echo second");
        let (mut connection, _) = listener.accept().unwrap();
        connection.set_read_timeout(PATIENCE).unwrap();
        for text in ["first", "second"] {
            let mut message = Vec::new();
            let chunk = loop {
                let mut buffer = [0; 4096];
                let count = connection.read(&mut buffer).unwrap();
                assert!(count > 0, "the connection ended");
                message.extend_from_slice(&buffer[..count]);
                let found = message.windows(6).position(|part| part == b"chunk\xb8");
                if let Some(chunk) = found.and_then(|at| message.get(at + 6..at + 30)) {
                    break chunk.to_vec();
                }
            };
            let has = |part: &[u8]| message.windows(part.len()).any(|window| window == part);
            assert!(has(text.as_bytes()) && has(b"container_name\xa3/cc") && has(b"source\xa6stdout"));
            assert_ne!(text == "first", has(b"second"), "one message waits for the acknowledgement of the other");
            connection.write_all(&[b"\x81\xa3ack\xb8", &chunk[..]].concat()).unwrap();
        }
    }
}

#[test]
fn a_container_does_not_start_without_the_endpoint_of_its_log() {
    let daemon = Daemon::start();
    let (listener, address) = tcp();
    drop(listener);
    let address = format!("syslog-address={address}");
    let output =
        daemon.berth(&["run", "-d", "--log-driver", "syslog", "--log-opt", &address, "busybox", "true"]);
    output.fails(125, "failed to initialize logging driver: dial");
}

#[test]
fn an_endpoint_that_takes_nothing_costs_messages_but_no_time_where_that_was_asked_for() {
    let daemon = Daemon::start();
    let (listener, address) = tcp();
    let address = format!("fluentd-address={address}");
    logged(
        &daemon,
        Client::Berth,
        "fluentd",
        &[&address, "mode=non-blocking", "max-buffer-size=64k"],
        "seq 1 500000",
    );
    let (connection, _) = listener.accept().unwrap();
    assert_eq!(daemon.wait("cc"), 0);
    assert_eq!(daemon.berth(&["logs", "cc"]).ok().lines().count(), 500_000);
    connection.set_read_timeout(PATIENCE).unwrap();
    let mut received = Vec::new();
    BufReader::new(connection).read_to_end(&mut received).unwrap();
    let text = String::from_utf8_lossy(&received);
    assert!(text.contains("log messages could not be sent]"), "the loss is told at the end");
}

#[test]
fn in_blocking_mode_the_container_waits_for_an_endpoint_that_takes_nothing() {
    let daemon = Daemon::start();
    let (listener, address) = tcp();
    let address = format!("syslog-address={address}");
    logged(&daemon, Client::Berth, "syslog", &[&address, "syslog-format=rfc5424"], "seq 1 300000");
    let (connection, _) = listener.accept().unwrap();
    let mut before = 0;
    eventually("a container that waits", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = daemon.berth(&["logs", "cc"]).stdout.len();
        (std::mem::replace(&mut before, now) == now && now > 0).then_some(())
    });
    assert_eq!(daemon.inspect("cc", "{{.State.Running}}"), "true");
    let lines: Vec<_> = BufReader::new(connection).lines().map(Result::unwrap).collect();
    assert_eq!(lines.len(), 300_000, "and nothing was lost");
    assert!(lines.iter().zip(1..).all(|(line, n)| line.ends_with(&format!(" - {n}"))));
    assert_eq!(daemon.wait("cc"), 0);
}

#[test]
fn a_connection_that_breaks_is_made_again() {
    let daemon = Daemon::start();
    let (listener, address) = tcp();
    let address = format!("syslog-address={address}");
    let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
    logged(&daemon, Client::Berth, "syslog", &[&address, "syslog-format=rfc5424"], script);
    for _ in 0..3 {
        let (connection, _) = listener.accept().unwrap();
        let line = BufReader::new(connection).lines().next().unwrap().unwrap();
        assert!(line.starts_with("<30>1 "), "{line}");
    }
    daemon.berth(&["rm", "-f", "cc"]).ok();
}

#[test]
fn journald_gets_its_fields() {
    const JOURNAL: &str = "/run/systemd/journal/socket";
    // The host may have a journal: the test, and the daemon that it starts, see another directory there.
    std::fs::create_dir_all("/run/systemd").unwrap();
    berth_sys::process::unshare(berth_sys::process::flags::NEWNS).unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
    rustix::mount::mount("tmpfs", "/run/systemd", "tmpfs", MountFlags::empty(), None).unwrap();
    std::fs::create_dir("/run/systemd/journal").unwrap();
    let socket = UnixDatagram::bind(JOURNAL).unwrap();
    socket.set_read_timeout(PATIENCE).unwrap();
    let daemon = Daemon::start();
    logged(&daemon, Client::Berth, "journald", &["labels=none", "tag={{.Name}}-tag"], "echo hello >&2");
    let mut buffer = [0; 10_000];
    let length = socket.recv(&mut buffer).unwrap();
    let text = String::from_utf8_lossy(&buffer[..length]);
    let id = daemon.inspect("cc", "{{.Id}}");
    for field in [
        "MESSAGE=hello".to_owned(),
        "PRIORITY=3".to_owned(),
        format!("CONTAINER_ID={}", &id[..12]),
        format!("CONTAINER_ID_FULL={id}"),
        "CONTAINER_NAME=cc".to_owned(),
        "CONTAINER_TAG=cc-tag".to_owned(),
        "SYSLOG_IDENTIFIER=cc-tag".to_owned(),
        "IMAGE_NAME=busybox".to_owned(),
    ] {
        assert!(text.lines().any(|line| line == field), "{field} in {text}");
    }
}
