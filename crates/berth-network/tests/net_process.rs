//! The net process as the daemon uses it: started when needed, killed, started and filled again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::OsString;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;

use berth_network::net::NetClient;
use berth_network::{Error, Protocol, Wanted};
use rustix::process::{Pid, Signal, kill_process};

fn program() -> Vec<OsString> {
    let test = std::env::current_exe().unwrap();
    let examples = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples/net");
    vec![examples.into(), "__net".into()]
}

fn client(root: &tempfile::TempDir) -> NetClient {
    NetClient::new(root.path(), program())
}

fn port(protocol: Protocol, host_port: u16) -> Wanted {
    Wanted {
        protocol,
        addresses: vec!["127.0.0.1".parse().unwrap()],
        without_ipv6: false,
        first: host_port,
        last: host_port,
        container_port: 80,
        forward: None,
        forward4: None,
    }
}

/// The process that holds the lock below `root`.
fn net_pid(root: &tempfile::TempDir) -> Pid {
    let wanted = PathBuf::from(root.path());
    let found = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid = entry.ok()?.file_name().into_string().ok()?.parse::<i32>().ok()?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let last = line.split(|b| *b == 0).rfind(|part| !part.is_empty())?;
        (last == wanted.as_os_str().as_encoded_bytes()).then_some(pid)
    });
    Pid::from_raw(found.max().expect("a net process")).unwrap()
}

#[test]
fn ports_are_kept_from_others_until_they_are_released() {
    let root = tempfile::tempdir().unwrap();
    let client = client(&root);
    assert!(client.list().unwrap().is_empty(), "asking starts nothing");
    let settled = client.reserve("one", &[port(Protocol::Tcp, 0), port(Protocol::Udp, 0)]).unwrap();
    assert!(TcpListener::bind(("127.0.0.1", settled[0].host_port)).is_err());
    assert!(UdpSocket::bind(("127.0.0.1", settled[1].host_port)).is_err());
    let error = client.reserve("two", &[port(Protocol::Tcp, settled[0].host_port)]).unwrap_err();
    let text = format!("Bind for 127.0.0.1:{} failed: port is already allocated", settled[0].host_port);
    assert_eq!(error.to_string(), text);
    client.release("one").unwrap();
    TcpListener::bind(("127.0.0.1", settled[0].host_port)).unwrap();
    client.stop_if_idle();
}

#[test]
fn all_ports_of_a_request_or_none() {
    let root = tempfile::tempdir().unwrap();
    let client = client(&root);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = client.reserve("probe", &[port(Protocol::Tcp, 0)]).unwrap();
    client.release("probe").unwrap();
    let request =
        [port(Protocol::Tcp, free[0].host_port), port(Protocol::Tcp, taken.local_addr().unwrap().port())];
    assert!(matches!(client.reserve("one", &request), Err(Error::PortRefused { .. })));
    assert!(client.list().unwrap().is_empty());
    client.stop_if_idle();
}

#[test]
fn killed_it_is_started_and_filled_again() {
    let root = tempfile::tempdir().unwrap();
    let client = client(&root);
    let settled = client.reserve("one", &[port(Protocol::Tcp, 0)]).unwrap();
    let again = [Wanted::exactly(&settled[0], None)];
    let first = net_pid(&root);
    kill_process(first, Signal::KILL).unwrap();
    // The next daemon, or this one when it notices, asks for what it knows to be published.
    assert_eq!(client.reserve("one", &again).unwrap(), settled);
    assert_ne!(net_pid(&root), first);
    assert_eq!(client.reserve("one", &again).unwrap(), settled, "asking again changes nothing");
    client.release("one").unwrap();
    client.stop_if_idle();
    assert!(!client.is_running());
}

#[test]
fn outlives_the_client_and_serves_the_next() {
    let root = tempfile::tempdir().unwrap();
    let settled = client(&root).reserve("one", &[port(Protocol::Tcp, 0)]).unwrap();
    let next = client(&root);
    assert_eq!(next.list().unwrap(), [("one".to_string(), settled)]);
    next.release("one").unwrap();
    next.stop_if_idle();
}

/// Connections to `::1`, and datagrams, are carried to what listens by IPv4, with an end of its own each way.
#[test]
fn what_arrives_by_ipv6_is_carried() {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};
    let root = tempfile::tempdir().unwrap();
    let client = client(&root);
    let (stream, datagram) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let carried = |protocol, container_port| Wanted {
        addresses: vec!["::1".parse().unwrap()],
        container_port,
        forward: Some("127.0.0.1".parse().unwrap()),
        forward4: None,
        ..port(protocol, 0)
    };
    let wanted = [
        carried(Protocol::Tcp, stream.local_addr().unwrap().port()),
        carried(Protocol::Udp, datagram.local_addr().unwrap().port()),
    ];
    let settled = client.reserve("one", &wanted).unwrap();

    let server = std::thread::spawn(move || {
        let mut connection = stream.accept().unwrap().0;
        let mut got = Vec::new();
        connection.read_to_end(&mut got).unwrap();
        connection.write_all(&got).unwrap();
        (stream, got.len())
    });
    let mut connection = TcpStream::connect(("::1", settled[0].host_port)).unwrap();
    let sent: Vec<u8> = (0..5_000_000u32).map(|number| number as u8).collect();
    connection.write_all(&sent).unwrap();
    connection.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    connection.read_to_end(&mut got).unwrap();
    assert!(got == sent);
    let (stream, _) = server.join().unwrap();

    let asking = UdpSocket::bind("[::1]:0").unwrap();
    asking.send_to(b"question", ("::1", settled[1].host_port)).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = datagram.recv_from(&mut buffer).unwrap();
    datagram.send_to(&buffer[..length], from).unwrap();
    let (length, from) = asking.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.port()), (&b"question"[..], settled[1].host_port));

    // Nobody listens: the connection ends. A port that is given back ends those that are open.
    let open = TcpStream::connect(("::1", settled[0].host_port)).unwrap();
    let _accepted = stream.accept().unwrap();
    client.release("one").unwrap();
    assert_eq!((&open).read(&mut buffer).unwrap_or(0), 0);
    assert!(TcpStream::connect(("::1", settled[0].host_port)).is_err());
    client.stop_if_idle();
}
