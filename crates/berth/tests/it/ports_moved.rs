//! Published ports that move: to another container, to another of a container's networks, to one that runs already. With real
//! packets from a second host, over both of the firewall's backends.

use std::net::TcpListener;
use std::process::Command;

use crate::daemon::{Client, Daemon};
use crate::output::{eventually, run};
use crate::ports::{Neighbour, datagram_server, says};

/// Answers each connection with the connections that are there.
const WHO: &str = "nc -ll -p 80 -e sh -c 'cat >/dev/null; netstat -tn'";

fn server(daemon: &Daemon, name: &str, flags: &[&str]) {
    let run = [&["run", "-d", "--name", name], flags, &["busybox", "sh", "-c", WHO]].concat();
    daemon.berth(&run).ok();
}

/// Waits until what the server tells the neighbour has these words.
fn tells(neighbour: &Neighbour, address: &str, port: &str, words: &str) {
    eventually(&format!("{address} {port} tells of {words}"), || {
        neighbour.ask(address, port).contains(words).then_some(())
    });
}

with_both_backends! {
    fn each_family_is_published_by_the_network_that_has_its_default_route(daemon: &mut Daemon) {
        let neighbour = Neighbour::new();
        daemon.berth(&["network", "create", "four"]).ok();
        daemon.berth(&["network", "create", "--ipv4=false", "--ipv6", "six"]).ok();
        server(daemon, "cc", &["--network", "four", "-p", "8080:80"]);
        tells(&neighbour, "198.51.100.1", "8080", "198.51.100.2:");
        // To a container without IPv6 it is carried, with this host's address.
        let gateway = daemon.inspect("cc", "{{.NetworkSettings.Networks.four.Gateway}}");
        tells(&neighbour, "fd99::1", "8080", &format!("{gateway}:"));
        let others = ports_of(daemon);
        for client in [Client::Berth, Client::Docker] {
            daemon.with(client, &["network", "connect", "six", "cc"]).ok();
            tells(&neighbour, "fd99::1", "8080", "fd99::2");
            tells(&neighbour, "198.51.100.1", "8080", "198.51.100.2:");
            assert_eq!(ports_of(daemon), others, "the same ports of the host");
            // The net process may die with what it carries, and is told again of both.
            daemon.kill();
            daemon.launch();
            tells(&neighbour, "fd99::1", "8080", "fd99::2");
            tells(&neighbour, "198.51.100.1", "8080", "198.51.100.2:");
            assert!(TcpListener::bind("0.0.0.0:8080").is_err() && TcpListener::bind("[::]:8080").is_err());
            daemon.with(client, &["network", "disconnect", "six", "cc"]).ok();
            tells(&neighbour, "fd99::1", "8080", &format!("{gateway}:"));
        }
        daemon.berth(&["rm", "-f", "cc"]).ok();
        assert!(TcpListener::bind("0.0.0.0:8080").is_ok() && TcpListener::bind("[::]:8080").is_ok());
    }

    fn a_client_of_datagrams_follows_the_port_to_the_next_container(daemon: &mut Daemon) {
        let neighbour = Neighbour::new();
        let (four, six) = (neighbour.datagrams("0.0.0.0:0"), neighbour.datagrams("[::]:0"));
        daemon.berth(&["network", "create", "--ipv6", "mine"]).ok();
        for (word, network) in [("one", "mine"), ("two", "bridge"), ("three", "mine")] {
            let flags = ["--name", word, "--network", network, "-p", "5353:53/udp", "busybox", "sleep", "1000"];
            daemon.background(&flags);
            let server = datagram_server(daemon, word);
            says(&four, "198.51.100.1:5353", word);
            says(&six, "[fd99::1]:5353", word);
            server.join().unwrap();
            daemon.berth(&["rm", "-f", word]).ok();
        }
        // While it runs, and to a range.
        daemon.background(&["--name", "four", "busybox", "sleep", "1000"]);
        daemon.berth(&["update", "--publish", "5350-5352:53/udp", "four"]).ok();
        let port = daemon.berth(&["port", "four", "53/udp"]).ok();
        assert!(port.starts_with("0.0.0.0:5350"), "{port}");
        let server = datagram_server(daemon, "four");
        says(&four, "198.51.100.1:5350", "four");
        says(&six, "[fd99::1]:5350", "four");
        server.join().unwrap();
        daemon.berth(&["update", "--unpublish", "53/udp", "--publish", "53/udp", "four"]).ok();
        let port = daemon.berth(&["port", "four", "53/udp"]).ok();
        let port = port.lines().next().unwrap().trim_start_matches("0.0.0.0:").to_owned();
        let server = datagram_server(daemon, "four");
        says(&four, &format!("198.51.100.1:{port}"), "four");
        says(&six, &format!("[fd99::1]:{port}"), "four");
        server.join().unwrap();
    }

    fn who_gets_an_address_is_reached_by_its_own_ports_alone(daemon: &mut Daemon) {
        let neighbour = Neighbour::new();
        daemon.berth(&["network", "create", "--subnet", "10.83.0.0/24", "mine"]).ok();
        for round in 0..3 {
            let (own, others) = [("8080", "8081"), ("8081", "8080")][round % 2];
            let publish = format!("{own}:80");
            server(daemon, "cc", &["--network", "mine", "--ip", "10.83.0.7", "-p", &publish]);
            tells(&neighbour, "198.51.100.1", own, "198.51.100.2:");
            assert_eq!(neighbour.ask("198.51.100.1", others), "");
            daemon.berth(&["rm", "-f", "cc"]).ok();
        }
    }

    fn a_container_reaches_itself_by_a_port_that_was_published_later(daemon: &mut Daemon) {
        // Kernels without `br_netfilter` have nothing to set, and translate on the way in.
        let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "1");
        daemon.berth(&["network", "create", "mine"]).ok();
        server(daemon, "cc", &["--network", "mine"]);
        daemon.berth(&["update", "--publish", "8080:80", "cc"]).ok();
        let gateway = daemon.inspect("cc", "{{.NetworkSettings.Networks.mine.Gateway}}");
        let ask = format!("echo | nc -w 3 {gateway} 8080");
        eventually("it reaches itself", || {
            daemon.berth(&["exec", "cc", "sh", "-c", &ask]).stdout.contains("Foreign").then_some(())
        });
        assert!(hairpins().contains("hairpin on"), "{}", hairpins());
        daemon.berth(&["update", "--unpublish", "80", "cc"]).ok();
        assert!(!hairpins().contains("hairpin on"), "{}", hairpins());
    }
}

/// What the kernel says of the ports of bridges.
fn hairpins() -> String {
    run(Command::new("ip").args(["-d", "link", "show", "type", "bridge_slave"])).ok()
}

fn ports_of(daemon: &Daemon) -> Vec<String> {
    let mut lines: Vec<String> = daemon.berth(&["port", "cc"]).ok().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
