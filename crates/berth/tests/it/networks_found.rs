//! Networks beside what administrators and other engines have made on the host: nothing of theirs is taken away.

use std::process::Command;

use crate::daemon::{Client, Daemon};
use crate::network_drivers::{ip, links};
use crate::output::{eventually, run};

const NAME: &str = "com.docker.network.bridge.name";

fn addresses(link: &str) -> String {
    run(Command::new("ip").args(["addr", "show", "dev", link])).ok()
}

fn reaches(daemon: &Daemon, name: &str, address: &str) {
    eventually(&format!("{name} reaches {address}"), || {
        (daemon.berth(&["exec", name, "ping", "-c", "1", "-W", "1", address]).code == 0).then_some(())
    });
}

with_both_clients! {
    fn a_link_that_is_no_bridge_is_refused_and_stays(daemon: &Daemon, client: Client) {
        ip(&["link", "add", "wg0", "type", "veth", "peer", "name", "wg1"]);
        for name in ["wg0", "lo"] {
            let create = ["network", "create", "-o", &format!("{NAME}={name}"), "mine"];
            daemon.with(client, &create).fails(1, &format!("existing interface {name} is not a bridge"));
            assert!(links().contains(name), "{:?}", links());
        }
        assert_eq!(daemon.with(client, &["network", "ls", "-qf", "type=custom"]).ok(), "");
        // Another time it is wanted for itself.
        ip(&["link", "del", "wg0"]);
        daemon.with(client, &["network", "create", "-o", &format!("{NAME}=wg0"), "mine"]).ok();
        daemon.with(client, &["network", "rm", "mine"]).ok();
        assert!(!links().contains("wg0"), "its own");
    }

    fn an_administrators_bridge_is_taken_as_it_is_and_left_so(daemon: &Daemon, client: Client) {
        ip(&["link", "add", "br7", "type", "bridge"]);
        ip(&["addr", "add", "10.97.0.9/24", "dev", "br7"]);
        ip(&["link", "set", "br7", "mtu", "1400", "up"]);
        let option = format!("{NAME}=br7");
        // With subnets of the network's own, and then with the administrator's.
        for (subnet, gateway) in [("10.98.0.0/24", "10.98.0.1"), ("10.97.0.0/24", "10.97.0.9")] {
            let create =
                ["network", "create", "-o", &option, "--subnet", subnet, "--gateway", gateway, "--ipv6", "mine"];
            daemon.with(client, &create).ok();
            let shown = addresses("br7");
            assert!(shown.contains("10.97.0.9/24") && shown.contains("mtu 1400"), "{shown}");
            assert!(shown.contains(gateway), "{shown}");
            daemon.with(client, &["run", "-d", "--name", "cc", "--network", "mine", "busybox", "sleep", "1000"]).ok();
            reaches(daemon, "cc", gateway);
            let twice = ["network", "create", "-o", &option, "other"];
            daemon.with(client, &twice).fails(1, "networks have same bridge name");
            daemon.with(client, &["rm", "-f", "cc"]).ok();
            daemon.with(client, &["network", "rm", "mine"]).ok();
            let shown = addresses("br7");
            assert!(shown.contains("10.97.0.9/24") && shown.contains("mtu 1400"), "{shown}");
            assert!(!shown.contains("10.98.0.1") && !shown.contains("inet6 fd"), "nothing is left on it: {shown}");
        }
    }
}

#[test]
fn an_administrators_bridge_is_his_over_restarts() {
    let mut daemon = Daemon::start();
    ip(&["link", "add", "br7", "type", "bridge"]);
    ip(&["addr", "add", "10.97.0.9/24", "dev", "br7"]);
    let option = format!("{NAME}=br7");
    daemon.berth(&["network", "create", "-o", &option, "--subnet", "10.98.0.0/24", "mine"]).ok();
    daemon.kill();
    daemon.launch();
    // One that went meanwhile is made again, as Docker does it; an administrator may then give it addresses.
    ip(&["link", "del", "br7"]);
    daemon.background(&["--name", "cc", "--network", "mine", "busybox", "sleep", "1000"]);
    reaches(&daemon, "cc", "10.98.0.1");
    daemon.berth(&["rm", "-f", "cc"]).ok();
    daemon.berth(&["network", "rm", "mine"]).ok();
    assert!(links().contains("br7"));
}

#[test]
fn without_a_default_bridge_anothers_stays() {
    let one = Daemon::start();
    one.background(&["--name", "cc", "busybox", "sleep", "1000"]);
    let gateway = one.inspect("cc", "{{.NetworkSettings.Networks.bridge.Gateway}}");
    reaches(&one, "cc", &gateway);
    let mut two = one.beside();
    two.stop();
    two.set_arguments(&["--bridge", "none"]);
    two.launch();
    two.berth(&["network", "create", "mine"]).ok();
    assert!(links().contains("berth0"), "{:?}", links());
    reaches(&one, "cc", &gateway);
}

/// A Docker that starts after an engine, and before its first container, takes what is free.
#[test]
fn a_subnet_that_others_took_meanwhile_is_not_the_default_bridges() {
    let mut daemon = Daemon::start();
    let shown = ["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "bridge"];
    let settled = daemon.berth(&shown).ok();
    let (base, length) = settled.split_once('/').unwrap();
    let theirs = format!("{}.1", base.rsplit_once('.').unwrap().0);
    ip(&["link", "add", "theirs", "type", "bridge"]);
    ip(&["addr", "add", &format!("{theirs}/{length}"), "dev", "theirs"]);
    ip(&["link", "set", "theirs", "up"]);
    daemon.background(&["--name", "cc", "busybox", "sleep", "1000"]);
    let now = daemon.berth(&shown).ok();
    assert_ne!(now, settled);
    let gateway = daemon.inspect("cc", "{{.NetworkSettings.Networks.bridge.Gateway}}");
    assert_ne!(gateway, theirs);
    reaches(&daemon, "cc", &gateway);
    let address = daemon.inspect("cc", "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    // It is what the next engine finds, with the container on it.
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.berth(&shown).ok(), now);
    assert_eq!(daemon.inspect("cc", "{{.NetworkSettings.Networks.bridge.IPAddress}}"), address);
    daemon.background(&["--name", "next", "busybox", "sleep", "1000"]);
    reaches(&daemon, "next", &address);
}
