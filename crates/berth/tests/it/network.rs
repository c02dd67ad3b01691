//! The default network, the host's, and none.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::daemon::{Client, Daemon};
use crate::output::eventually;

fn address(daemon: &Daemon, name: &str) -> String {
    daemon.inspect(name, "{{.NetworkSettings.Networks.bridge.IPAddress}}")
}

with_both_clients! {
    fn the_bridge_gives_an_address_a_route_and_names(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]).ok();
        let ip = address(daemon, "cc");
        let gateway = daemon.inspect("cc", "{{.NetworkSettings.Networks.bridge.Gateway}}");
        let inside = daemon.with(client, &["exec", "cc", "sh", "-c", "ip -4 addr show eth0; ip route; cat /etc/hosts"]).ok();
        assert!(inside.contains(&format!("inet {ip}/16")), "{inside}");
        assert!(inside.contains(&format!("default via {gateway} dev eth0")), "{inside}");
        assert!(inside.contains(&format!("{ip}\t{}", &id[..12])), "{inside}");
        assert!(inside.contains("127.0.0.1\tlocalhost"), "{inside}");
    }

    fn host_and_none(daemon: &Daemon, client: Client) {
        let none = daemon.with(client, &["run", "--rm", "--network", "none", "busybox", "ip", "-o", "link"]).ok();
        assert!(none.lines().count() == 1 && none.contains("lo:") && none.contains("UP"), "{none}");
        let ours = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let host = daemon.with(client, &["run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net"]).ok();
        assert_eq!(host, ours.to_str().unwrap());
    }

    fn a_published_port_answers_on_the_host(daemon: &Daemon, client: Client) {
        let serve = "while :; do echo served | nc -l -p 80; done";
        daemon.with(client, &["run", "-d", "--name", "cc", "-p", "127.0.0.1:8080:80", "busybox", "sh", "-c", serve]).ok();
        let text = eventually("it serves", || {
            let mut text = String::new();
            TcpStream::connect("127.0.0.1:8080").ok()?.read_to_string(&mut text).ok()?;
            (!text.is_empty()).then_some(text)
        });
        assert_eq!(text, "served\n");
        let taken = daemon.with(client, &["run", "-d", "-p", "127.0.0.1:8080:80", "busybox", "true"]);
        taken.fails(125, "port is already allocated");
    }
}

#[test]
fn containers_reach_the_host_and_each_other() {
    let daemon = Daemon::start();
    daemon.background(&["--name", "one", "busybox", "sleep", "1000"]);
    daemon.background(&["--name", "two", "busybox", "sleep", "1000"]);
    daemon.berth(&["exec", "one", "ping", "-c", "1", "-W", "5", &address(&daemon, "two")]).ok();
    let listener = TcpListener::bind("0.0.0.0:7777").unwrap();
    let server =
        std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"from the host\n").unwrap());
    let gateway = daemon.inspect("one", "{{.NetworkSettings.Networks.bridge.Gateway}}");
    assert_eq!(daemon.berth(&["exec", "one", "nc", &gateway, "7777"]).ok(), "from the host");
    server.join().unwrap();
}

#[test]
fn addresses_differ_and_are_given_out_again_only_when_free() {
    let daemon = Daemon::start();
    let ids: Vec<String> = (0..5).map(|_| daemon.background(&["busybox", "sleep", "1000"])).collect();
    let mut addresses: Vec<String> = ids.iter().map(|id| address(&daemon, id)).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 5);
    daemon.berth(&["rm", "-f", &ids[0]]).ok();
    let next = daemon.background(&["busybox", "sleep", "1000"]);
    assert!(!addresses.contains(&address(&daemon, &next)), "round robin: a fresh one first");
}

#[test]
fn the_firewall_masquerades_what_leaves_the_bridge() {
    let daemon = Daemon::start();
    daemon.background(&["busybox", "sleep", "1000"]);
    let rules =
        crate::output::run(std::process::Command::new("nft").args(["list", "table", "inet", "berth"])).ok();
    assert!(rules.contains("masquerade") && rules.contains("berth0"), "{rules}");
}
