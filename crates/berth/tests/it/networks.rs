//! Networks that users make: made, shown, joined, left and removed, with real packets.

use serde_json::json;

use crate::api;
use crate::daemon::{Client, Daemon};
use crate::output::eventually;

/// What a container has on a network.
fn endpoint(daemon: &Daemon, name: &str, network: &str, field: &str) -> String {
    daemon.inspect(name, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").{field}}}}}"))
}

/// Whether one container reaches an address by ping, at the first try.
fn reaches(daemon: &Daemon, name: &str, address: &str) -> bool {
    daemon.berth(&["exec", name, "ping", "-c", "1", "-W", "1", address]).code == 0
}

fn sleeper(daemon: &Daemon, client: Client, name: &str, flags: &[&str]) {
    let arguments = [&["run", "-d", "--name", name], flags, &["busybox", "sleep", "1000"]].concat();
    daemon.with(client, &arguments).ok();
}

with_both_clients! {
    fn made_shown_and_removed(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["network", "create", "--label", "a=1", "mine"]).ok();
        assert_eq!(id.len(), 64);
        let table = daemon.with(client, &["network", "ls"]).ok();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]);
        assert!(lines.contains(&vec![&id[..12], "mine", "bridge", "local"]), "{table}");
        for filter in ["label=a", "type=custom", "name=min", "dangling=true", &format!("id={}", &id[..6])] {
            let found = daemon.with(client, &["network", "ls", "-q", "--no-trunc", "-f", filter]).ok();
            assert_eq!(found, id, "{filter}");
        }
        let gateway = "{{.Name}} {{.Driver}} {{.EnableIPv6}} {{(index .IPAM.Config 0).Gateway}}";
        let shown = daemon.with(client, &["network", "inspect", "-f", gateway, &id[..10]]).ok();
        assert!(shown.starts_with("mine bridge false 1") && shown.ends_with(".0.1"), "{shown}");
        daemon.with(client, &["network", "create", "mine"]).fails(1, "network with name mine already exists");
        assert_eq!(daemon.with(client, &["network", "rm", "mine"]).ok(), "mine");
        daemon.with(client, &["network", "rm", "mine"]).fails(1, "network mine not found");
        let link = format!("/sys/class/net/br-{}", &id[..12]);
        assert!(!daemon.berth(&["run", "--rm", "--network", "host", "busybox", "ls", &link]).stdout.contains("br"));
    }

    fn link_local_addresses_reach_each_other(daemon: &Daemon, client: Client) {
        daemon.with(client, &["network", "create", "mine"]).ok();
        let (mine, own) = ("--network=mine", "--link-local-ip");
        sleeper(daemon, client, "one", &[mine, own, "169.254.7.7", own, "fe80::254:77"]);
        sleeper(daemon, client, "two", &[mine, own, "169.254.8.8"]);
        sleeper(daemon, client, "three", &[]);
        daemon.with(client, &["network", "connect", "--link-local-ip", "169.254.9.9", "mine", "three"]).ok();
        for (name, address) in [("one", "169.254.8.8"), ("two", "169.254.9.9"), ("three", "169.254.7.7")] {
            assert!(reaches(daemon, name, address), "{name} {address}");
        }
        daemon.with(client, &["restart", "-t", "0", "one"]).ok();
        assert!(reaches(daemon, "two", "169.254.7.7"));
        for bad in ["169.253.5.5", "2001:db8::89"] {
            let refused = daemon.with(client, &["run", "--rm", "--network", "mine", "--link-local-ip", bad, "busybox"]);
            refused.fails(125, &format!("invalid link-local IP address: {bad}"));
        }
    }

    fn what_makes_no_sense_is_refused(daemon: &Daemon, client: Client) {
        daemon.with(client, &["network", "create", "--subnet", "10.77.0.0/16", "one"]).ok();
        for (arguments, words) in [
            (&["create", "bridge"][..], "operation is not permitted on predefined bridge network"),
            (&["create", "--subnet", "10.77.5.0/24", "two"], "Pool overlaps with other one on this address space"),
            (&["create", "--subnet", "10.78.0.1/24", "two"], "invalid subnet 10.78.0.1/24: it should be 10.78.0.0/24"),
            (&["create", "--subnet", "10.78.0.0/24", "--gateway", "10.79.0.1", "two"], "no matching subnet for gateway 10.79.0.1"),
            (&["create", "-d", "nothing", "two"], "plugin not found"),
            (&["create", "-o", "com.docker.network.driver.mtu=x", "two"], "com.docker.network.driver.mtu"),
            (&["create", "--ipv4=false", "two"], "IPv4 or IPv6 must be enabled"),
            (&["rm", "host"], "host is a pre-defined network and cannot be removed"),
            (&["inspect", "absent"], "network absent not found"),
            (&["connect", "one", "absent"], "No such container: absent"),
        ] {
            // An older client has no --ipv4.
            if client == Client::Docker && arguments.contains(&"--ipv4=false") {
                continue;
            }
            let refused = daemon.with(client, &[&["network"], arguments].concat());
            assert_ne!(refused.code, 0, "{arguments:?}");
            assert!(refused.stderr.contains(words), "{arguments:?}: {}", refused.stderr);
        }
        assert_eq!(daemon.with(client, &["network", "ls", "-qf", "type=custom"]).ok().lines().count(), 1);
    }
}

with_both_clients_and_backends! {
    fn containers_reach_each_other_but_no_other_network(daemon: &Daemon, client: Client) {
        for network in ["a", "b"] {
            daemon.with(client, &["network", "create", "--ipv6", network]).ok();
        }
        sleeper(daemon, client, "a1", &["--network", "a"]);
        sleeper(daemon, client, "a2", &["--network", "a"]);
        sleeper(daemon, client, "b1", &["--network", "b"]);
        for field in ["IPAddress", "GlobalIPv6Address"] {
            assert!(reaches(daemon, "a1", &endpoint(daemon, "a2", "a", field)), "{field}");
            assert!(!reaches(daemon, "a1", &endpoint(daemon, "b1", "b", field)), "{field}");
        }
        assert!(endpoint(daemon, "a1", "a", "GlobalIPv6Address").starts_with("fd"));
        // TCP both ways, by a container that is on both.
        daemon.with(client, &["network", "connect", "b", "a1"]).ok();
        let serve = "echo told | nc -l -p 99";
        daemon.berth(&["exec", "-d", "b1", "sh", "-c", serve]).ok();
        let address = endpoint(daemon, "b1", "b", "IPAddress");
        eventually("b1 answers", || {
            (daemon.berth(&["exec", "a1", "nc", "-w", "1", &address, "99"]).stdout.trim() == "told").then_some(())
        });
        assert!(reaches(daemon, "a1", &endpoint(daemon, "b1", "b", "GlobalIPv6Address")));
        assert!(!reaches(daemon, "a2", &address));
        daemon.with(client, &["network", "disconnect", "b", "a1"]).ok();
        assert!(!reaches(daemon, "a1", &address));
        assert!(reaches(daemon, "a1", &endpoint(daemon, "a2", "a", "IPAddress")));
    }
}

with_both_clients! {
    fn endpoints_have_what_was_asked_for(daemon: &Daemon, client: Client) {
        let create = ["network", "create", "--subnet", "10.81.0.0/16", "--ip-range", "10.81.5.0/24", "--gateway", "10.81.0.9",
            "--aux-address", "r=10.81.5.0", "--ipv6", "--subnet", "fd81::/64", "mine"];
        daemon.with(client, &create).ok();
        let mac = "12:34:56:78:9a:bc";
        sleeper(daemon, client, "cc", &["--network", "mine", "--ip", "10.81.0.77", "--ip6", "fd81::77", "--mac-address", mac,
            "--network-alias", "db"]);
        let field = |name: &str| endpoint(daemon, "cc", "mine", name);
        assert_eq!((field("IPAddress"), field("GlobalIPv6Address")), ("10.81.0.77".into(), "fd81::77".into()));
        assert_eq!((field("Gateway"), field("IPv6Gateway")), ("10.81.0.9".into(), "fd81::1".into()));
        assert_eq!((field("Aliases"), field("MacAddress")), ("[db]".into(), mac.into()));
        assert!(field("DNSNames").starts_with("[cc db "), "{}", field("DNSNames"));
        let inside = daemon.berth(&["exec", "cc", "sh", "-c", "ip addr show eth0; ip route; ip -6 route; cat /etc/hosts"]).ok();
        for expected in [mac, "10.81.0.77/16", "fd81::77/64", "default via 10.81.0.9 dev eth0", "default via fd81::1 dev eth0", "10.81.0.77\t", "fd81::77\t"] {
            assert!(inside.contains(expected), "{expected}: {inside}");
        }
        sleeper(daemon, client, "next", &["--network", "mine"]);
        assert_eq!(endpoint(daemon, "next", "mine", "IPAddress"), "10.81.5.1", "the range, past what is someone else's");
        daemon.with(client, &["run", "--rm", "--network", "mine", "--ip", "10.81.0.77", "busybox", "true"]).fails(125, "Address already in use");
        daemon.with(client, &["run", "--rm", "--network", "mine", "--ip", "10.9.0.7", "busybox", "true"]).fails(125, "no configured subnet");
        daemon.with(client, &["run", "--rm", "--ip", "10.9.0.7", "busybox", "true"]).fails(125, "supported on user-defined networks only");
        daemon.with(client, &["restart", "-t", "0", "cc"]).ok();
        assert_eq!((field("IPAddress"), field("MacAddress")), ("10.81.0.77".into(), mac.into()));
    }

    fn joined_and_left_while_it_runs_and_while_not(daemon: &Daemon, client: Client) {
        let network = |arguments: &[&str]| daemon.with(client, &[&["network"], arguments].concat());
        network(&["create", "a"]).ok();
        network(&["create", "b"]).ok();
        sleeper(daemon, client, "cc", &["--network", "b"]);
        let links = || daemon.berth(&["exec", "cc", "sh", "-c", "ls /sys/class/net; ip route | grep default; grep -c cc-host /etc/hosts"]);
        network(&["connect", "--alias", "x", "a", "cc"]).ok();
        assert!(links().stdout.starts_with("eth0\neth1\nlo\ndefault via "), "{}", links().stdout);
        // Of equals, the first by name has the default route, as in Docker.
        let gateway = endpoint(daemon, "cc", "a", "Gateway");
        assert!(links().stdout.contains(&format!("default via {gateway} dev eth1")), "{}", links().stdout);
        assert_eq!(network(&["inspect", "-f", "{{len .Containers}}", "a"]).ok(), "1");
        network(&["connect", "a", "cc"]).fails(1, "endpoint with name cc already exists in network a");
        network(&["rm", "a"]).fails(1, "network a has active endpoints (name:\"cc\" id:");
        let address = endpoint(daemon, "cc", "a", "IPAddress");
        assert!(daemon.berth(&["exec", "cc", "cat", "/etc/hosts"]).ok().contains(&address));
        network(&["disconnect", "a", "cc"]).ok();
        let other = endpoint(daemon, "cc", "b", "Gateway");
        assert!(links().stdout.starts_with(&format!("eth0\nlo\ndefault via {other} dev eth0")), "{}", links().stdout);
        assert!(!daemon.berth(&["exec", "cc", "cat", "/etc/hosts"]).ok().contains(&address));
        network(&["disconnect", "a", "cc"]).fails(1, "is not connected to network a");
        // Recorded while it does not run.
        daemon.with(client, &["stop", "-t", "0", "cc"]).ok();
        network(&["connect", "a", "cc"]).ok();
        network(&["disconnect", "b", "cc"]).ok();
        network(&["disconnect", "b", "cc"]).fails(1, "is not connected to the network b");
        network(&["rm", "b"]).ok();
        daemon.with(client, &["start", "cc"]).ok();
        assert_eq!(daemon.inspect("cc", "{{range $name, $of := .NetworkSettings.Networks}}{{$name}}{{end}}"), "a");
        let gateway = endpoint(daemon, "cc", "a", "Gateway");
        assert!(links().stdout.contains(&format!("default via {gateway} dev eth0")));
        // A container may be made before its network.
        daemon.with(client, &["create", "--name", "early", "--network", "late", "busybox", "sleep", "1000"]).ok();
        daemon.with(client, &["start", "early"]).fails(1, "network late not found");
        network(&["create", "late"]).ok();
        daemon.with(client, &["start", "early"]).ok();
        assert_ne!(endpoint(daemon, "early", "late", "IPAddress"), "");
        for (arguments, words) in [
            (&["connect", "host", "cc"][..], "cannot connect container to host network - container must be created in host network mode"),
            (&["connect", "none", "cc"], "one of the networks in private (none) mode"),
        ] {
            network(arguments).fails(1, words);
        }
    }
}

with_both_clients_and_backends! {
    fn an_internal_network_has_no_way_out(daemon: &Daemon, client: Client) {
        daemon.with(client, &["network", "create", "--internal", "inside"]).ok();
        daemon.with(client, &["network", "create", "outside"]).ok();
        sleeper(daemon, client, "one", &["--network", "inside"]);
        sleeper(daemon, client, "two", &["--network", "inside"]);
        sleeper(daemon, client, "out", &["--network", "outside", "-p", "0.0.0.0:8099:99"]);
        assert!(reaches(daemon, "one", &endpoint(daemon, "two", "inside", "IPAddress")));
        assert_eq!(endpoint(daemon, "one", "inside", "Gateway"), "");
        assert!(!daemon.berth(&["exec", "one", "ip", "route"]).ok().contains("default"));
        // Not even with a route, nor through the host's published ports.
        daemon.berth(&["rm", "-f", "two"]).ok();
        let bridge = daemon.with(client, &["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "inside"]).ok();
        sleeper(daemon, client, "three", &["--network", "inside", "--cap-add", "NET_ADMIN"]);
        daemon.berth(&["exec", "three", "ip", "route", "add", "default", "via", &bridge]).ok();
        assert!(!reaches(daemon, "three", &endpoint(daemon, "out", "outside", "IPAddress")));
        daemon.berth(&["exec", "-d", "out", "sh", "-c", "while :; do echo told | nc -l -p 99; done"]).ok();
        sleeper(daemon, client, "asks", &["--network", "outside"]);
        let host = endpoint(daemon, "out", "outside", "Gateway");
        eventually("the port answers others", || {
            let asked = daemon.berth(&["exec", "asks", "nc", "-w", "1", &host, "8099"]);
            (asked.stdout.trim() == "told").then_some(())
        });
        let asked = daemon.berth(&["exec", "three", "nc", "-w", "1", &bridge, "8099"]);
        assert!(!asked.stdout.contains("told"), "{}", asked.stdout);
    }

    fn without_icc_containers_reach_only_what_is_published(daemon: &Daemon, client: Client) {
        let option = "com.docker.network.bridge.enable_icc=false";
        daemon.with(client, &["network", "create", "--ipv6", "-o", option, "apart"]).ok();
        sleeper(daemon, client, "one", &["--network", "apart"]);
        sleeper(daemon, client, "two", &["--network", "apart"]);
        for field in ["IPAddress", "GlobalIPv6Address"] {
            assert!(!reaches(daemon, "one", &endpoint(daemon, "two", "apart", field)), "{field}");
        }
        assert!(reaches(daemon, "one", &endpoint(daemon, "one", "apart", "Gateway")));
    }
}

with_both_clients! {
    fn bridges_have_what_their_options_say(daemon: &Daemon, client: Client) {
        let create = ["network", "create", "-o", "com.docker.network.bridge.name=mybridge", "-o", "com.docker.network.driver.mtu=1300",
            "-o", "com.docker.network.container_iface_prefix=lan", "mine"];
        daemon.with(client, &create).ok();
        let link = daemon.berth(&["run", "--rm", "--network", "host", "busybox", "ip", "link", "show", "mybridge"]).ok();
        assert!(link.contains("mtu 1300"), "{link}");
        let inside = daemon.with(client, &["run", "--rm", "--network", "mine", "busybox", "ip", "link"]).ok();
        assert!(inside.contains("lan0") && inside.contains("mtu 1300"), "{inside}");
        let twice = ["network", "create", "-o", "com.docker.network.bridge.name=mybridge", "other"];
        daemon.with(client, &twice).fails(1, "networks have same bridge name");
    }

    fn unused_networks_are_pruned(daemon: &Daemon, client: Client) {
        for (name, label) in [("used", "a"), ("kept", "keep"), ("gone", "a")] {
            daemon.with(client, &["network", "create", "--label", label, name]).ok();
        }
        sleeper(daemon, client, "cc", &["--network", "used"]);
        let said = daemon.with(client, &["network", "prune", "-f", "--filter", "label!=keep"]).ok();
        assert_eq!(said.trim_end(), "Deleted Networks:\ngone");
        let left = daemon.with(client, &["network", "ls", "-f", "type=custom", "--format", "{{.Name}}"]).ok();
        assert_eq!(left, "kept\nused");
        // Docker's client cuts a duration to whole seconds, and with it the newest events.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
        let events = daemon.with(client, &["events", "--since", "1h", "--until", &until, "-f", "type=network", "--format", "{{.Action}}"]).ok();
        let count = |action: &str| events.lines().filter(|line| *line == action).count();
        assert_eq!((count("create"), count("connect"), count("destroy"), count("prune")), (3, 1, 1, 1), "{events}");
    }
}

#[test]
fn several_networks_at_once_each_have_their_endpoint() {
    let daemon = Daemon::start();
    for network in ["a", "b", "c"] {
        daemon.berth(&["network", "create", network]).ok();
    }
    let long = "name=b,alias=db,gw-priority=7,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1";
    daemon.background(&[
        "--name",
        "cc",
        "--network",
        "c",
        "--network",
        long,
        "--network",
        "a",
        "busybox",
        "sleep",
        "1000",
    ]);
    let inside = daemon.berth(&[
        "exec",
        "cc",
        "sh",
        "-c",
        "ls /sys/class/net | tr '\\n' ' '; ip route | grep default; for n in eth0 eth1 eth2; do cat /proc/sys/net/ipv4/conf/$n/log_martians; done",
    ]);
    let gateway = endpoint(&daemon, "cc", "b", "Gateway");
    assert_eq!(inside.ok(), format!("eth0 eth1 eth2 lo default via {gateway} dev eth2 \n0\n0\n1"));
    let address = endpoint(&daemon, "cc", "c", "IPAddress");
    let first = daemon.berth(&["exec", "cc", "ip", "addr", "show", "eth0"]).ok();
    assert!(first.contains(&address), "the network that the mode names is the first: {first}");
}

#[test]
fn versions_see_what_they_know() {
    let daemon = Daemon::empty(&[]);
    let body = json!({ "Name": "mine", "EnableIPv4": false, "EnableIPv6": true });
    let (status, made) = api::request(&daemon, "POST", "/v1.47/networks/create", Some(&body));
    assert_eq!(status, 201, "{made}");
    let (_, shown) = api::ask(&daemon, "/v1.52/networks/mine", None);
    assert_eq!((&shown["EnableIPv4"], &shown["EnableIPv6"]), (&json!(true), &json!(true)));
    let subnets = shown["Status"]["IPAM"]["Subnets"].as_object().unwrap();
    assert!(
        subnets.len() == 2 && subnets.values().all(|subnet| subnet["IPsInUse"].as_u64() >= Some(2)),
        "{shown}"
    );
    let (_, shown) = api::ask(&daemon, "/v1.51/networks/mine", None);
    assert!(shown.get("Status").is_none() && shown.get("Services").is_none());
    let (_, shown) = api::ask(&daemon, "/v1.51/networks/mine?verbose=1", None);
    assert_eq!(shown["Services"], json!({}));
    assert_eq!(api::ask(&daemon, "/networks/mine?scope=swarm", None).0, 404);
    assert_eq!(api::ask(&daemon, "/networks/mine?verbose=maybe", None).0, 400);
    for (path, body, expected) in [
        ("/networks/create", json!({ "Name": "mine" }), 409),
        ("/networks/create", json!({ "Name": "host" }), 403),
        ("/networks/create", json!({ "Name": " " }), 400),
        ("/networks/create", json!({ "Name": "x", "Driver": "nothing" }), 404),
        ("/networks/create", json!({ "Name": "x", "Scope": "swarm" }), 403),
        ("/networks/create", json!({ "Name": "x", "ConfigFrom": { "Network": "absent" } }), 404),
        ("/networks/mine/connect", json!({ "Container": "absent" }), 404),
    ] {
        let (status, answer) = api::request(&daemon, "POST", path, Some(&body));
        assert_eq!(status, expected, "{path} {body}: {answer}");
    }
    let config =
        json!({ "Name": "base", "ConfigOnly": true, "IPAM": { "Config": [{ "Subnet": "10.44.0.0/16" }] } });
    assert_eq!(api::request(&daemon, "POST", "/networks/create", Some(&config)).0, 201);
    let user = json!({ "Name": "of-base", "ConfigFrom": { "Network": "base" } });
    assert_eq!(api::request(&daemon, "POST", "/networks/create", Some(&user)).0, 201);
    let (_, shown) = api::ask(&daemon, "/networks/of-base", None);
    assert_eq!(shown["IPAM"]["Config"][0]["Subnet"], "10.44.0.0/16");
    let (status, text) = api::refused(&daemon, "DELETE", "/networks/base");
    assert!(status == 403 && text.contains("configuration network \"base\" is in use"), "{text}");
    assert_eq!(api::request(&daemon, "DELETE", "/networks/of-base", None).0, 204);
    assert_eq!(api::request(&daemon, "DELETE", "/networks/base", None).0, 204);
}
