//! What Moby's suites of networks found: endpoints that collide, links without IPv6, ends of streams, ports without rules.

use std::io::{Read, Write};
use std::process::Command;

use serde_json::json;

use crate::api;
use crate::daemon::{Client, Daemon};
use crate::files;
use crate::output::{eventually, run};
use crate::ports::{datagram_clients, datagram_server, says};
use crate::raw;

fn sleeper(daemon: &Daemon, client: Client, name: &str, flags: &[&str]) {
    let arguments = [&["run", "-d", "--name", name], flags, &["busybox", "sleep", "1000"]].concat();
    daemon.with(client, &arguments).ok();
}

fn networks_of(daemon: &Daemon, name: &str) -> String {
    daemon.inspect(name, "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}")
}

with_both_clients! {
    fn packets_too_small_for_ipv6_are_no_hindrance(daemon: &Daemon, client: Client) {
        daemon.with(client, &["network", "create", "-o", "com.docker.network.driver.mtu=1000", "small"]).ok();
        sleeper(daemon, client, "cc", &["--network", "small"]);
        let link = daemon.with(client, &["exec", "cc", "ip", "link", "show", "eth0"]).ok();
        assert!(link.contains(" mtu 1000 "), "{link}");
        sleeper(daemon, client, "late", &[]);
        daemon.with(client, &["network", "connect", "small", "late"]).ok();
        let link = daemon.with(client, &["exec", "late", "ip", "link", "show", "eth1"]).ok();
        assert!(link.contains(" mtu 1000 "), "{link}");
    }

    fn a_route_that_is_the_containers_own_is_left(daemon: &Daemon, client: Client) {
        daemon.with(client, &["network", "create", "--internal", "--subnet", "10.83.0.0/24", "inner"]).ok();
        daemon.with(client, &["network", "create", "outer"]).ok();
        sleeper(daemon, client, "cc", &["--network", "inner", "--cap-add", "NET_ADMIN"]);
        let route = ["exec", "cc", "ip", "route", "add", "default", "via", "10.83.0.1"];
        daemon.with(client, &route).ok();
        daemon.with(client, &["network", "connect", "outer", "cc"]).fails(1, "failed to set gateway: file exists");
        assert_eq!(networks_of(daemon, "cc"), "inner ");
        let members = daemon.with(client, &["network", "inspect", "-f", "{{len .Containers}}", "outer"]).ok();
        assert_eq!(members, "0");
        daemon.with(client, &["exec", "cc", "ip", "link", "show", "eth1"]).fails(2, "can't find device");
        daemon.with(client, &["exec", "cc", "ip", "route", "del", "default"]).ok();
        daemon.with(client, &["network", "connect", "outer", "cc"]).ok();
        assert_eq!(networks_of(daemon, "cc"), "inner outer ");
    }

    fn a_container_leaves_whatever_it_did_to_its_other_links(daemon: &Daemon, client: Client) {
        for network in ["one", "two"] {
            daemon.with(client, &["network", "create", network]).ok();
        }
        sleeper(daemon, client, "cc", &["--network", "one", "--cap-add", "NET_ADMIN"]);
        daemon.with(client, &["network", "connect", "two", "cc"]).ok();
        daemon.with(client, &["exec", "cc", "ip", "link", "set", "eth1", "down"]).ok();
        daemon.with(client, &["network", "disconnect", "one", "cc"]).ok();
        assert_eq!(networks_of(daemon, "cc"), "two ");
        daemon.with(client, &["network", "connect", "one", "cc"]).ok();
        daemon.with(client, &["restart", "-t", "0", "cc"]).ok();
        assert_eq!(networks_of(daemon, "cc"), "one two ");
    }

    fn whoever_comes_back_has_its_address_again(daemon: &Daemon, client: Client) {
        let inspected = "{{.NetworkSettings.Networks.mine.IPAddress}} {{.NetworkSettings.Networks.mine.GlobalIPv6Address}}";
        daemon.with(client, &["network", "create", "--ipv6", "mine"]).ok();
        sleeper(daemon, client, "cc", &["--network", "mine"]);
        let first = daemon.inspect("cc", inspected);
        daemon.with(client, &["network", "disconnect", "mine", "cc"]).ok();
        // Others get other addresses, as long as there are any.
        sleeper(daemon, client, "other", &["--network", "mine"]);
        daemon.with(client, &["network", "connect", "mine", "cc"]).ok();
        assert_eq!(daemon.inspect("cc", inspected), first);
        assert_ne!(daemon.inspect("other", inspected), first);
        // It may be asked for, and is another's then.
        daemon.with(client, &["network", "create", "--subnet", "10.84.0.0/24", "small"]).ok();
        daemon.with(client, &["network", "connect", "small", "cc"]).ok();
        daemon.with(client, &["network", "disconnect", "small", "cc"]).ok();
        sleeper(daemon, client, "takes", &["--network", "small", "--ip", "10.84.0.2"]);
        daemon.with(client, &["network", "connect", "small", "cc"]).ok();
        assert_eq!(daemon.inspect("cc", "{{.NetworkSettings.Networks.small.IPAddress}}"), "10.84.0.3");
    }

    fn a_subnet_without_an_address_is_a_wish_for_its_size(daemon: &Daemon, client: Client) {
        for network in ["one", "two"] {
            let create = ["network", "create", "--ipv6", "--subnet", "0.0.0.0/26", "--subnet", "::/120", network];
            daemon.with(client, &create).ok();
        }
        let subnets = ["network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", "one", "two"];
        let shown = daemon.with(client, &subnets).ok();
        let mut all: Vec<&str> = shown.split_whitespace().collect();
        assert!(all.iter().all(|net| !net.starts_with("0.0") && !net.starts_with("::")), "{shown}");
        assert_eq!(all.iter().filter(|net| net.ends_with("/26")).count(), 2, "{shown}");
        assert_eq!(all.iter().filter(|net| net.starts_with("fd") && net.ends_with("/120")).count(), 2, "{shown}");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 4, "{shown}");
    }
}

#[test]
fn a_link_name_that_is_taken_is_refused_and_one_that_is_asked_for_kept_free() {
    let daemon = Daemon::start();
    daemon.berth(&["network", "create", "mine"]).ok();
    sleeper(&daemon, Client::Berth, "cc", &[]);
    let body = json!({ "Container": "cc", "EndpointConfig": { "DriverOpts": {
        "com.docker.network.endpoint.ifname": "eth0" } } });
    let answer = api::ask(&daemon, "/networks/mine/connect", Some(&body));
    let said = format!("{answer:?}");
    assert!(said.contains("error renaming interface") && said.contains("file exists"), "{said}");
    assert_eq!(networks_of(&daemon, "cc"), "bridge ");
    let first = "name=mine,driver-opt=com.docker.network.endpoint.ifname=eth0";
    daemon.berth(&["network", "create", "other"]).ok();
    sleeper(&daemon, Client::Berth, "both", &["--network", "other", "--network", first]);
    let links = daemon.berth(&["exec", "both", "ls", "/sys/class/net"]).ok();
    assert_eq!(links.split_whitespace().collect::<Vec<_>>(), ["eth0", "eth1", "lo"]);
}

#[test]
fn whoever_sees_the_end_of_a_stream_knows_the_exit_code() {
    let daemon = Daemon::start();
    for round in 0..10 {
        let name = format!("cc{round}");
        daemon.berth(&["create", "--name", &name, "busybox", "sh", "-c", "echo said; exit 7"]).ok();
        let mut stream = raw::connect(&daemon);
        let head = format!(
            "POST /containers/{name}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
             Upgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 101");
        daemon.berth(&["start", &name]).ok();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        let state = daemon.inspect(&name, "{{.State.Status}} {{.State.ExitCode}}");
        assert_eq!(state, "exited 7", "after {}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn the_host_has_no_address_on_an_isolated_network() {
    let daemon = Daemon::start();
    let modes =
        ["ipv4", "ipv6"].map(|family| format!("com.docker.network.bridge.gateway_mode_{family}=isolated"));
    let name = "com.docker.network.bridge.name=alone0";
    daemon
        .berth(&[
            "network",
            "create",
            "--ipv6",
            "--internal",
            "-o",
            &modes[0],
            "-o",
            &modes[1],
            "-o",
            name,
            "alone",
        ])
        .ok();
    sleeper(&daemon, Client::Berth, "one", &["--network", "alone"]);
    let link = run(Command::new("ip").args(["address", "show", "dev", "alone0"])).ok();
    assert!(!link.contains("inet"), "{link}");
    for family in ["-4", "-6"] {
        daemon
            .berth(&["run", "--rm", "--network", "alone", "busybox", "ping", family, "-c1", "-W3", "one"])
            .ok();
    }
}

#[test]
fn an_empty_list_of_bindings_is_a_port_of_the_engines_choice() {
    let daemon = Daemon::start();
    let body = json!({ "Image": "busybox", "HostConfig": { "PortBindings": { "80/tcp": [] } } });
    let (code, said) = api::ask(&daemon, "/containers/create?name=cc", Some(&body));
    assert_eq!(code, 201, "{said}");
    assert_eq!(
        daemon.inspect("cc", "{{json .HostConfig.PortBindings}}"),
        r#"{"80/tcp":[{"HostIp":"","HostPort":""}]}"#
    );
}

/// Without rules there is nothing but what the engine carries itself.
#[test]
fn published_ports_are_carried_where_the_firewall_is_left_alone() {
    let daemon = Daemon::empty(&["--iptables=false", "--ip6tables=false"]);
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    let serve = "while :; do echo told | nc -l -p 80; done";
    daemon.berth(&["run", "-d", "--name", "cc", "-p", "127.0.0.1::80", "busybox", "sh", "-c", serve]).ok();
    let port = daemon.inspect("cc", "{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}");
    eventually("an answer", || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).ok()?;
        let mut told = String::new();
        stream.read_to_string(&mut told).ok()?;
        (told.trim() == "told").then_some(())
    });
    // Datagrams, too, with the address that was asked.
    daemon.berth(&["run", "-d", "--name", "uu", "-p", "5353:53/udp", "busybox", "sleep", "1000"]).ok();
    let server = datagram_server(&daemon, "uu");
    let [four, six] = datagram_clients();
    says(&four, "127.0.0.7:5353", "uu");
    says(&six, "[::1]:5353", "uu");
    server.join().unwrap();
    assert_eq!(run(Command::new("nft").args(["list", "ruleset"])).ok(), "");
}
