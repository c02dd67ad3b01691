//! The ways into and out of networks that options and settings choose, with real packets from a second host and to it, over
//! both of the firewall's backends.

use std::io::Write;
use std::net::IpAddr;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use crate::daemon::{Client, Daemon};
use crate::files;
use crate::output::{eventually, run};
use crate::ports::Neighbour;

const BACKENDS: [&str; 2] = ["nftables", "iptables"];

fn start(backend: &str, arguments: &[&str]) -> Daemon {
    let daemon = Daemon::empty(&[&["--firewall-backend", backend], arguments].concat());
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    daemon
}

fn sleeper(daemon: &Daemon, name: &str, flags: &[&str]) {
    let arguments = [&["run", "-d", "--name", name], flags, &["busybox", "sleep", "1000"]].concat();
    daemon.berth(&arguments).ok();
}

fn field(daemon: &Daemon, name: &str, network: &str, field: &str) -> String {
    daemon.inspect(name, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").{field}}}}}"))
}

/// Serves the neighbour's port 99 at an address, and tells who has come.
fn visitors(neighbour: &Neighbour, address: &'static str) -> Receiver<IpAddr> {
    let listener = neighbour.listener(address);
    let (seen, all) = channel();
    std::thread::spawn(move || {
        while let Ok((mut connection, from)) = listener.accept() {
            // Before the visitor can tell that it was here.
            if seen.send(from.ip()).is_err() {
                return;
            }
            let _ = connection.write_all(b"told\n");
        }
    });
    all
}

/// The address by which a container comes to the neighbour.
fn comes_as(daemon: &Daemon, name: &str, address: &str, visitors: &Receiver<IpAddr>) -> String {
    let ask = ["exec", name, "nc", "-w", "2", address, "99"];
    eventually(&format!("{name} reaches {address}"), || {
        (daemon.berth(&ask).stdout.trim() == "told").then_some(())
    });
    // Of several attempts the last one is as good as any.
    visitors.try_iter().last().expect("a visitor").to_string()
}

#[test]
fn packets_leave_with_the_containers_address_if_nothing_masks_it() {
    for backend in BACKENDS {
        // Docker's chains drop what is sent to containers' own addresses, answers too.
        let daemon = start(backend, &["--ip-masq=false", "--ipv6", "--allow-direct-routing"]);
        let neighbour = Neighbour::new();
        let (four, six) = (visitors(&neighbour, "198.51.100.2:99"), visitors(&neighbour, "[fd99::2]:99"));
        let option = "com.docker.network.bridge.enable_ip_masquerade=false";
        daemon.berth(&["network", "create", "--ipv6", "-o", option, "plain"]).ok();
        daemon.berth(&["network", "create", "--ipv6", "masked"]).ok();
        for network in ["bridge", "plain", "masked"] {
            sleeper(&daemon, network, &["--network", network]);
            let own = |name: &str| field(&daemon, network, network, name);
            let expected = match network {
                "masked" => ["198.51.100.1".to_owned(), "fd99::1".to_owned()],
                _ => [own("IPAddress"), own("GlobalIPv6Address")],
            };
            let found = [
                comes_as(&daemon, network, "198.51.100.2", &four),
                comes_as(&daemon, network, "fd99::2", &six),
            ];
            assert_eq!(found, expected, "{backend} {network}");
        }
    }
}

with_both_backends! {
    fn unprotected_networks_are_reached_at_any_port(daemon: &mut Daemon) {
        let neighbour = Neighbour::new();
        let modes = ["4", "6"].map(|v| format!("com.docker.network.bridge.gateway_mode_ipv{v}=nat-unprotected"));
        daemon.berth(&["network", "create", "--ipv6", "-o", &modes[0], "-o", &modes[1], "open"]).ok();
        let serve = "nc -ll -p 81 -e cat & exec nc -ll -p 80 -e cat";
        let flags = ["--name", "cc", "--network", "open", "-p", "8080:80", "busybox", "sh", "-c", serve];
        daemon.background(&flags);
        let own = ["IPAddress", "GlobalIPv6Address"].map(|name| field(daemon, "cc", "open", name));
        let [four, six] = own.each_ref().map(String::as_str);
        for (address, port) in [
            (four, "80"), (four, "81"), (six, "80"), (six, "81"), ("198.51.100.1", "8080"), ("fd99::1", "8080"),
        ] {
            let answers = || (neighbour.ask(address, port).trim() == "hello").then_some(());
            eventually(&format!("{address} {port}"), answers);
        }
        assert_eq!(neighbour.ask("198.51.100.1", "81"), "", "not the host's");
    }

    fn an_internal_network_has_no_way_out_by_ipv6(daemon: &mut Daemon) {
        let neighbour = Neighbour::new();
        daemon.berth(&["network", "create", "--internal", "--ipv6", "--subnet", "fd82::/64", "inside"]).ok();
        sleeper(daemon, "one", &["--network", "inside", "--cap-add", "NET_ADMIN"]);
        sleeper(daemon, "two", &["--network", "inside", "-p", "8080:80"]);
        assert!(!daemon.berth(&["exec", "one", "ip", "-6", "route"]).ok().contains("default"));
        // Whoever makes a route for himself goes nowhere either, nor does anybody come in.
        daemon.berth(&["exec", "one", "ip", "-6", "route", "add", "default", "via", "fd82::1"]).ok();
        let two = field(daemon, "two", "inside", "GlobalIPv6Address");
        let pings = |address: &str| daemon.berth(&["exec", "one", "ping", "-c", "1", "-W", "1", address]).code == 0;
        eventually("within", || pings(&two).then_some(()));
        assert!(!pings("fd99::2"));
        assert_eq!(neighbour.run("busybox ping -c 1 -W 1 fd82::2").code, 1);
        assert_eq!(daemon.berth(&["port", "two"]).ok(), "", "nothing is published");
    }

    fn a_bridge_may_have_no_ipv4_address(daemon: &mut Daemon) {
        let options = ["com.docker.network.bridge.inhibit_ipv4=true", "com.docker.network.bridge.name=bare0"];
        let create = ["network", "create", "-o", options[0], "-o", options[1], "--subnet", "10.84.0.0/24", "bare"];
        daemon.berth(&create).ok();
        let shown = run(Command::new("ip").args(["-4", "addr", "show", "dev", "bare0"])).ok();
        assert!(!shown.contains("inet "), "{shown}");
        sleeper(daemon, "one", &["--network", "bare"]);
        sleeper(daemon, "two", &["--network", "bare"]);
        let two = field(daemon, "two", "bare", "IPAddress");
        let ping = ["exec", "one", "ping", "-c", "1", "-W", "1", &two];
        eventually("each other", || (daemon.berth(&ping).code == 0).then_some(()));
    }
}

#[test]
fn without_a_proxy_ports_are_reached_all_the_same() {
    for backend in BACKENDS {
        let daemon = start(backend, &["--userland-proxy=false"]);
        let neighbour = Neighbour::new();
        daemon.berth(&["network", "create", "--ipv6", "mine"]).ok();
        let serve = ["busybox", "nc", "-ll", "-p", "80", "-e", "cat"];
        daemon.background(&[&["--name", "cc", "--network", "mine", "-p", "8080:80"], &serve[..]].concat());
        for address in ["198.51.100.1", "fd99::1"] {
            let answers = || (neighbour.ask(address, "8080").trim() == "hello").then_some(());
            eventually(&format!("{backend} {address}"), answers);
        }
        let gateway = field(&daemon, "cc", "mine", "Gateway");
        let ask = |nc: &str, address: &str| format!("echo hello | {nc} -w 2 {address} 8080");
        for address in ["127.0.0.1", &gateway] {
            eventually(&format!("{backend} {address}"), || {
                let told = run(Command::new("sh").args(["-c", &ask("busybox nc", address)]));
                (told.stdout.trim() == "hello").then_some(())
            });
        }
        eventually(&format!("{backend}: itself"), || {
            let told = daemon.berth(&["exec", "cc", "sh", "-c", &ask("nc", &gateway)]);
            (told.stdout.trim() == "hello").then_some(())
        });
    }
}

#[test]
fn the_daemon_says_what_links_have_and_where_they_lead() {
    let six = ["--ipv6", "--bip6", "fd85::1/64", "--default-gateway-v6", "fd85::99"];
    let daemon = start("nftables", &[&["--mtu", "1380"], &six[..]].concat());
    let inside = ["run", "--rm", "busybox", "sh", "-c", "cat /sys/class/net/eth0/mtu; ip -6 route"];
    let inside = daemon.berth(&inside).ok();
    assert!(inside.starts_with("1380\n") && inside.contains("default via fd85::99 dev eth0"), "{inside}");
    let link = run(Command::new("ip").args(["link", "show", "dev", "berth0"])).ok();
    assert!(link.contains("mtu 1380"), "{link}");
}

with_both_clients! {
    fn a_network_that_is_joined_may_take_the_default_route(daemon: &Daemon, client: Client) {
        daemon.with(client, &["network", "create", "a"]).ok();
        daemon.with(client, &["network", "create", "z"]).ok();
        sleeper(daemon, "cc", &["--network", "a"]);
        let leads_by = |network: &str| {
            let routes = daemon.berth(&["exec", "cc", "ip", "route"]).ok();
            let gateway = field(daemon, "cc", network, "Gateway");
            assert!(routes.contains(&format!("default via {gateway} ")), "{network} {gateway}: {routes}");
        };
        leads_by("a");
        daemon.with(client, &["network", "connect", "--gw-priority", "1", "z", "cc"]).ok();
        leads_by("z");
        daemon.with(client, &["restart", "-t", "0", "cc"]).ok();
        leads_by("z");
        daemon.with(client, &["network", "disconnect", "z", "cc"]).ok();
        leads_by("a");
        daemon.with(client, &["network", "connect", "--gw-priority=-1", "z", "cc"]).ok();
        leads_by("a");
    }

    fn networks_are_pruned_by_age(daemon: &Daemon, client: Client) {
        daemon.with(client, &["network", "create", "old"]).ok();
        let made = daemon.with(client, &["network", "inspect", "-f", "{{json .Created}}", "old"]).ok();
        let made = made.trim_matches('"');
        daemon.with(client, &["network", "create", "new"]).ok();
        let none = daemon.with(client, &["network", "prune", "-f", "--filter", "until=1h"]).ok();
        assert_eq!(none.trim(), "", "both are younger");
        let said = daemon.with(client, &["network", "prune", "-f", "--filter", &format!("until={made}")]).ok();
        assert_eq!(said.trim_end(), "Deleted Networks:\nold");
        daemon.with(client, &["network", "prune", "-f", "--filter", "until=x"]).fails(1, "x");
        let left = daemon.with(client, &["network", "ls", "-f", "type=custom", "--format", "{{.Name}}"]).ok();
        assert_eq!(left, "new");
    }
}
