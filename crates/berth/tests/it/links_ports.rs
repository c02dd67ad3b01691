//! Links where containers else do not reach each other (`--icc=false`): each opens what its target exposes.

use std::process::Command;

use crate::daemon::{Client, Daemon};
use crate::files;
use crate::output::{eventually, run};

const SERVE: &str = "echo served > /tmp/index.html; httpd -p 80 -h /tmp; httpd -p 81 -h /tmp; sleep 1000";

fn daemon(backend: &str) -> Daemon {
    let daemon = Daemon::empty(&["--icc=false", "--ipv6", "--firewall-backend", backend]);
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    daemon
}

fn start(daemon: &Daemon, client: Client, name: &str, flags: &[&str]) {
    let arguments = [&["run", "-d", "--name", name], flags, &["busybox", "sh", "-c", SERVE]].concat();
    daemon.with(client, &arguments).ok();
    eventually("it serves", || (asked(daemon, name, "127.0.0.1:81")).then_some(()));
}

fn asked(daemon: &Daemon, from: &str, of: &str) -> bool {
    let url = format!("http://{of}/index.html");
    // Debian's busybox does not survive its own time limits.
    let wget = ["exec", from, "timeout", "1", "wget", "-q", "-O", "-", &url];
    daemon.berth(&wget).stdout.trim() == "served"
}

fn address(daemon: &Daemon, name: &str) -> String {
    daemon.inspect(name, "{{.NetworkSettings.Networks.bridge.IPAddress}}")
}

/// The IPv6 address, as URLs have it.
fn address6(daemon: &Daemon, name: &str) -> String {
    daemon.inspect(name, "[{{.NetworkSettings.Networks.bridge.GlobalIPv6Address}}]")
}

/// What each may ask of whom, as it is and a moment later.
fn check(daemon: &Daemon, linked: bool) {
    let (server, server6) = (address(daemon, "server"), address6(daemon, "server"));
    let pings =
        |from: &str, to: &str| daemon.berth(&["exec", from, "ping", "-c", "1", "-W", "1", to]).code == 0;
    // What is exposed, by address and by name.
    for of in [server.as_str(), &server6, "server"] {
        match linked {
            true => eventually(of, || asked(daemon, "client", of).then_some(())),
            false => assert!(!asked(daemon, "client", of), "{of}"),
        }
    }
    for of in [&server, &server6] {
        assert!(!asked(daemon, "client", &format!("{of}:81")), "what is not exposed of {of}");
        assert!(!asked(daemon, "other", of), "{of}");
    }
    for of in [address(daemon, "client"), address6(daemon, "client")] {
        assert!(!asked(daemon, "server", &of), "the other way");
    }
    assert!(!asked(daemon, "client", &address(daemon, "other")));
    assert!(!pings("client", &server) && !pings("client", server6.trim_matches(['[', ']'])));
    for field in ["Gateway", "IPv6Gateway"] {
        let gateway = daemon.inspect("client", &format!("{{{{.NetworkSettings.Networks.bridge.{field}}}}}"));
        eventually(field, || pings("client", &gateway).then_some(()));
    }
}

/// Links, on a host whose bridges filter by the rules of IP, too, or not.
fn try_links(backend: &str, filters: &str, client: Client) {
    let mut daemon = daemon(backend);
    // Kernels without `br_netfilter` have nothing to set.
    for rules in ["iptables", "ip6tables"] {
        let _ = std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{rules}"), filters);
    }
    start(&daemon, client, "server", &["--expose", "80"]);
    start(&daemon, client, "client", &["--link", "server", "--expose", "80"]);
    start(&daemon, client, "other", &["--expose", "80"]);
    check(&daemon, true);
    // The next engine finds them open.
    daemon.kill();
    daemon.launch();
    check(&daemon, true);
    // Whoever has a link follows its target.
    daemon.with(client, &["stop", "-t", "0", "server"]).ok();
    daemon.with(client, &["start", "server"]).ok();
    eventually("it serves", || asked(&daemon, "server", "127.0.0.1:81").then_some(()));
    check(&daemon, true);
    // What another tool takes away comes back, and nothing is open meanwhile for long.
    run(Command::new("nft").args(["flush", "ruleset"])).ok();
    eventually("closed again", || {
        (!asked(&daemon, "client", &format!("{}:81", address(&daemon, "server")))).then_some(())
    });
    eventually("and open", || asked(&daemon, "client", "server").then_some(()));
    check(&daemon, true);
    daemon.with(client, &["rm", "--link", "client/server"]).ok();
    check(&daemon, false);
    daemon.berth(&["rm", "-f", "client", "server", "other"]).ok();
    let table = run(Command::new("nft").args(["list", "table", "bridge", "berth"])).stdout;
    assert!(!table.contains("veth") && !table.contains("172."), "nothing is left: {table}");
}

#[test]
fn links_open_single_ports() {
    try_links("nftables", "0", Client::Berth);
}

#[test]
fn links_open_single_ports_where_bridges_filter() {
    try_links("nftables", "1", Client::Docker);
}

#[test]
fn links_open_single_ports_with_dockers_chains() {
    try_links("iptables", "1", Client::Berth);
}

#[test]
fn links_open_single_ports_beside_dockers_chains() {
    try_links("iptables", "0", Client::Docker);
}
