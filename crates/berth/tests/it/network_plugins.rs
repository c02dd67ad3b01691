//! Networks and addresses of plugins: a driver of our own, on a socket, makes bridges, and gives out addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::daemon::{Client, Daemon};
use crate::network_drivers::{ip, links, suite};
use crate::plugin_server::{Calls, PluginServer};

/// A driver of both kinds.
struct Driver {
    server: PluginServer,
    name: String,
    calls: Calls,
    /// Answers by method that are to be given instead of those that make sense.
    instead: Arc<Mutex<BTreeMap<String, Value>>>,
    given: Arc<Mutex<BTreeSet<String>>>,
}

impl Driver {
    /// In the caller's network namespace.
    fn start() -> Driver {
        let server = PluginServer::start(|_, _| Value::Null);
        fs::remove_file(server.socket()).unwrap();
        let name = server.name.clone();
        let driver =
            Driver { server, name, calls: Calls::default(), instead: Arc::default(), given: Arc::default() };
        driver.serve();
        driver
    }

    fn serve(&self) {
        let (calls, instead, given) =
            (self.calls.clone(), Arc::clone(&self.instead), Arc::clone(&self.given));
        self.server.serve(move |method, question| {
            calls.note(method, question);
            let answer = instead.lock().unwrap().get(method).cloned();
            match method.split_once('.') {
                _ if answer.is_some() => answer.unwrap(),
                Some(("NetworkDriver", method)) => network(method, question),
                Some(("IpamDriver", method)) => addresses(method, question, &mut given.lock().unwrap()),
                _ => json!({"Implements": ["NetworkDriver", "IpamDriver"]}),
            }
        });
    }

    fn leave(&self) {
        fs::remove_file(self.server.socket()).unwrap();
    }

    fn says(&self, method: &str, answer: Value) {
        self.instead.lock().unwrap().insert(method.to_owned(), answer);
    }

    fn is_honest(&self) {
        self.instead.lock().unwrap().clear();
    }

    fn given(&self) -> Vec<String> {
        self.given.lock().unwrap().iter().cloned().collect()
    }
}

fn short(question: &Value, field: &str) -> String {
    question[field].as_str().unwrap()[..8].to_owned()
}

/// A hardware address that follows from the endpoint's own.
fn hardware(question: &Value) -> String {
    let address = question["Interface"]["Address"].as_str().unwrap_or_default();
    let address = address.split('/').next().unwrap_or_default().parse().unwrap_or(Ipv4Addr::UNSPECIFIED);
    let [a, b, c, d] = address.octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn network(method: &str, question: &Value) -> Value {
    let bridge = || format!("pb{}", short(question, "NetworkID"));
    let (outer, inner) = (
        || format!("po{}", short(question, "EndpointID")),
        || format!("pi{}", short(question, "EndpointID")),
    );
    match method {
        "GetCapabilities" => return json!({"Scope": "local"}),
        "CreateNetwork" => {
            // What passes a bridge that is none of Berth's, its firewall would drop if it was shown it.
            let _ = fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
            ip(&["link", "add", &bridge(), "type", "bridge"]);
            ip(&["link", "set", &bridge(), "up"]);
        }
        "DeleteNetwork" => ip(&["link", "del", &bridge()]),
        "Join" => {
            ip(&["link", "add", &outer(), "type", "veth", "peer", "name", &inner()]);
            ip(&["link", "set", &outer(), "master", &bridge(), "up"]);
            return json!({"InterfaceName": {"SrcName": inner(), "DstPrefix": "eth"}});
        }
        // What it was not told the end of, it still has.
        "CreateEndpoint" if links().contains(&inner()) => return json!({"Err": "endpoint exists"}),
        // So that neighbours need not learn who has an address that comes back.
        "CreateEndpoint" if question["Interface"]["MacAddress"] == "" => {
            return json!({"Interface": {"MacAddress": hardware(question)}});
        }
        // It has come back from the container, to whom it belongs.
        "DeleteEndpoint" if links().contains(&inner()) => ip(&["link", "del", &inner()]),
        _ => {}
    }
    json!({})
}

fn addresses(method: &str, question: &Value, given: &mut BTreeSet<String>) -> Value {
    let text = |field: &str| question[field].as_str().unwrap_or_default().to_owned();
    match method {
        "GetDefaultAddressSpaces" => {
            json!({"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "there"})
        }
        "RequestPool" => {
            let free =
                (70..).map(|number: u8| format!("10.{number}.0.0/24")).find(|pool| !given.contains(pool));
            let pool = if text("Pool").is_empty() { free.unwrap() } else { text("Pool") };
            given.insert(pool.clone());
            json!({"PoolID": pool, "Pool": pool, "Data": {}})
        }
        "RequestAddress" => {
            let (pool, wanted) = (text("PoolID"), text("Address"));
            let base = pool.rsplit_once('.').unwrap().0.to_owned();
            let mut free = (20..).map(|number: u8| format!("{base}.{number}"));
            let address =
                if wanted.is_empty() { free.find(|one| !given.contains(one)).unwrap() } else { wanted };
            if !given.insert(address.clone()) {
                return json!({"Error": "it is another's"});
            }
            json!({"Address": format!("{address}/24")})
        }
        "ReleasePool" => {
            given.remove(&text("PoolID"));
            json!({})
        }
        "ReleaseAddress" => {
            given.remove(&text("Address"));
            json!({})
        }
        _ => json!({"Error": "unknown"}),
    }
}

#[test]
fn the_driver_of_a_plugin() {
    for client in [Client::Berth, Client::Docker] {
        let mut daemon = Daemon::start();
        let driver = Driver::start();
        suite(&mut daemon, client, &["-d", &driver.name]);
        let [made] = driver.calls.of("NetworkDriver.CreateNetwork").try_into().unwrap();
        assert_eq!(
            made["IPv4Data"],
            json!([{"AddressSpace": "LocalDefault", "Pool": "10.66.0.0/24", "Gateway": "10.66.0.128/24"}])
        );
        let counts = ["CreateEndpoint", "Join", "Leave", "DeleteEndpoint"]
            .map(|method| driver.calls.count(&format!("NetworkDriver.{method}")));
        assert!(counts[0] > 0 && counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    }
}

with_both_clients! {
    fn what_a_plugin_says_an_endpoint_has(daemon: &Daemon, client: Client) {
        let driver = Driver::start();
        let with = |arguments: &[&str]| daemon.with(client, arguments);
        with(&["network", "create", "-d", &driver.name, "-o", "colour=red", "--internal", "--subnet", "10.66.0.0/24",
            "--subnet", "10.67.0.0/24", "--aux-address", "printer=10.66.0.9", "net"]).ok();
        let [made] = driver.calls.of("NetworkDriver.CreateNetwork").try_into().unwrap();
        assert_eq!(made["Options"]["com.docker.network.generic"], json!({"colour": "red"}));
        assert_eq!(made["Options"]["com.docker.network.internal"], true);
        // In the client's order.
        let pools = made["IPv4Data"].as_array().unwrap();
        let of = |net: &str| pools.iter().find(|pool| pool["Pool"] == net).unwrap();
        assert_eq!(of("10.66.0.0/24")["AuxAddresses"], json!({"printer": "10.66.0.9/24"}));
        assert_eq!(of("10.67.0.0/24")["Gateway"], "10.67.0.1/24");
        assert!(with(&["info", "--format", "{{.Plugins.Network}}"]).ok().contains(&driver.name));
        let link = |question: &Value| json!({"SrcName": format!("pi{}", short(question, "EndpointID")), "DstPrefix": "wire"});
        // A container that ends at once tells its endpoint's ID, which stays.
        with(&["create", "--name", "one", "--network", "net", "--ip", "10.66.0.7", "-p", "8080:80", "--network-alias", "uno",
            "busybox", "sleep", "1000"]).ok();
        with(&["start", "one"]).ok();
        let [asked] = driver.calls.of("NetworkDriver.CreateEndpoint").try_into().unwrap();
        assert_eq!(asked["Interface"], json!({"Address": "10.66.0.7/24", "AddressIPv6": "", "MacAddress": ""}));
        let [joined] = driver.calls.of("NetworkDriver.Join").try_into().unwrap();
        let port = json!({"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080});
        assert_eq!(joined["Options"]["com.docker.network.portmap"], json!([port]));
        assert_eq!(daemon.inspect("one", "{{.NetworkSettings.Networks.net.EndpointID}}"), joined["EndpointID"].as_str().unwrap());
        with(&["stop", "-t", "0", "one"]).ok();
        // The link that it makes is the same; what it says of it is another.
        driver.says("NetworkDriver.CreateEndpoint", json!({"Interface": {"MacAddress": "a0:b1:c2:d3:e4:f4"}}));
        ip(&["link", "add", "po0", "type", "veth", "peer", "name", link(&joined)["SrcName"].as_str().unwrap()]);
        ip(&["link", "set", "po0", "up"]);
        driver.says("NetworkDriver.Join", json!({
            "InterfaceName": link(&joined), "Gateway": "10.66.0.1", "StaticRoutes": [
                {"Destination": "198.51.100.0/24", "RouteType": 0, "NextHop": "192.0.2.9"},
                {"Destination": "192.0.2.0/24", "RouteType": 1},
            ],
        }));
        with(&["start", "one"]).ok();
        let shown = daemon.inspect("one", "{{with .NetworkSettings.Networks.net}}{{.MacAddress}} {{.Gateway}} {{.IPAddress}}{{end}}");
        assert_eq!(shown, "a0:b1:c2:d3:e4:f4 10.66.0.1 10.66.0.7");
        assert_eq!(with(&["exec", "one", "cat", "/sys/class/net/wire0/address"]).ok(), "a0:b1:c2:d3:e4:f4");
        let routes = with(&["exec", "one", "ip", "route"]).ok();
        for route in ["default via 10.66.0.1 dev wire0", "192.0.2.0/24 dev wire0", "198.51.100.0/24 via 192.0.2.9 dev wire0"] {
            assert!(routes.contains(route), "{routes}");
        }
        assert_eq!(driver.calls.count("NetworkDriver.ProgramExternalConnectivity"), 1);
        with(&["rm", "-f", "one"]).ok();
        assert_eq!(driver.calls.count("NetworkDriver.RevokeExternalConnectivity"), 1);
        // One that has other ways names no link.
        driver.says("NetworkDriver.Join", json!({}));
        assert_eq!(with(&["run", "--rm", "--network", "net", "busybox", "ls", "/sys/class/net"]).ok(), "lo");
        with(&["network", "rm", "net"]).ok();
    }

    fn a_plugin_gives_addresses(daemon: &Daemon, client: Client) {
        let driver = Driver::start();
        let with = |arguments: &[&str]| daemon.with(client, arguments);
        // The first that it offers is another's.
        with(&["network", "create", "--subnet", "10.70.0.0/16", "other"]).ok();
        with(&["network", "create", "--ipam-driver", &driver.name, "--ipam-opt", "floor=2", "net"]).ok();
        let shown: Value = serde_json::from_str(&with(&["network", "inspect", "net"]).ok()).unwrap();
        assert_eq!(shown[0]["IPAM"], json!({
            "Driver": driver.name, "Options": {"floor": "2"}, "Config": [{"Subnet": "10.71.0.0/24", "Gateway": "10.71.0.20"}],
        }));
        assert_eq!(driver.given(), ["10.71.0.0/24", "10.71.0.20"]);
        let asked = driver.calls.of("IpamDriver.RequestPool");
        assert_eq!(asked[0], json!({"AddressSpace": "here", "Pool": "", "SubPool": "", "Options": {"floor": "2"}, "V6": false}));
        with(&["run", "-d", "--name", "one", "--network", "net", "busybox", "sleep", "1000"]).ok();
        with(&["run", "-d", "--name", "two", "--network", "net", "--ip", "10.71.0.9", "busybox", "sleep", "1000"]).ok();
        assert_eq!(daemon.inspect("one", "{{.NetworkSettings.Networks.net.IPAddress}}"), "10.71.0.21");
        assert_eq!(with(&["exec", "one", "ping", "-c", "1", "-W", "10", "two"]).code, 0);
        with(&["run", "--rm", "--network", "net", "--ip", "10.71.0.9", "busybox"]).fails(125, "it is another's");
        assert_eq!(driver.given(), ["10.71.0.0/24", "10.71.0.20", "10.71.0.21", "10.71.0.9"]);
        with(&["network", "rm", "net"]).fails(1, "has active endpoints");
        with(&["network", "disconnect", "net", "two"]).ok();
        with(&["rm", "-f", "one", "two"]).ok();
        assert_eq!(driver.given(), ["10.71.0.0/24", "10.71.0.20"]);
        with(&["network", "rm", "net"]).ok();
        assert_eq!(driver.given(), Vec::<String>::new());
        // With a network's own subnet, and the plugin's links.
        with(&["network", "create", "-d", &driver.name, "--ipam-driver", &driver.name, "--subnet", "10.90.0.0/24",
            "--gateway", "10.90.0.3", "both"]).ok();
        with(&["run", "--rm", "--network", "both", "busybox", "ip", "-4", "addr", "show", "eth0"]).ok();
        with(&["network", "rm", "both"]).ok();
        assert_eq!(driver.given(), Vec::<String>::new());
    }

    fn networks_without_addresses(daemon: &Daemon, client: Client) {
        let driver = Driver::start();
        let with = |arguments: &[&str]| daemon.with(client, arguments);
        for name in ["bridge", &driver.name] {
            with(&["network", "create", "-d", name, "--ipam-driver", "null", "net"]).ok();
            assert_eq!(with(&["network", "inspect", "-f", "{{.IPAM.Driver}} {{len .IPAM.Config}} {{(index .IPAM.Config 0).Subnet}}", "net"]).ok(),
                "null 1 0.0.0.0/0");
            let shown = with(&["run", "--rm", "--network", "net", "busybox", "ip", "addr", "show", "eth0"]).ok();
            assert!(shown.contains("link/ether") && !shown.contains("inet "), "{shown}");
            with(&["network", "rm", "net"]).ok();
        }
        with(&["network", "create", "--ipam-driver", "null", "--subnet", "10.1.0.0/24", "net"])
            .fails(1, "null ipam driver does not handle specific address pool requests");
    }

    fn plugins_that_lie_or_refuse(daemon: &Daemon, client: Client) {
        let driver = Driver::start();
        let with = |arguments: &[&str]| daemon.with(client, arguments);
        let absent = "could not find plugin nobody in v1 plugin registry: plugin not found";
        with(&["network", "create", "-d", "nobody", "net"]).fails(1, absent);
        with(&["network", "create", "--ipam-driver", "nobody", "net"]).fails(1, absent);
        with(&["network", "create", "-d", "../../nobody", "net"]).fails(1, "plugin not found");
        driver.says("NetworkDriver.CreateNetwork", json!({"Err": "no room"}));
        with(&["network", "create", "-d", &driver.name, "net"]).fails(1, "NetworkDriver.CreateNetwork: no room");
        for (method, answer, text) in [
            ("RequestPool", json!({"PoolID": "x", "Pool": "nonsense"}), "\"nonsense\" is not the IPv4 pool"),
            ("RequestPool", json!({"PoolID": "x", "Pool": "fd00::/64"}), "\"fd00::/64\" is not the IPv4 pool"),
            ("RequestPool", json!({"PoolID": "x", "Pool": "10.70.0.0/24"}), "64 pools that it offered overlap"),
            ("RequestAddress", json!({"Address": "10.9.9.9/24"}), "\"10.9.9.9/24\" is not the address"),
            ("RequestAddress", json!({"Error": "none left"}), "IpamDriver.RequestAddress: none left"),
        ] {
            if text.contains("overlap") {
                with(&["network", "create", "--subnet", "10.70.0.0/16", "other"]).ok();
            }
            driver.says(&format!("IpamDriver.{method}"), answer);
            with(&["network", "create", "--ipam-driver", &driver.name, "net"]).fails(1, text);
            driver.is_honest();
        }
        let pools = driver.calls.of("IpamDriver.RequestPool").len();
        assert_eq!(driver.calls.count("IpamDriver.ReleasePool"), pools, "all were given back");
        assert_eq!(driver.given(), Vec::<String>::new());
        assert_eq!(with(&["network", "ls", "-q", "--filter", "name=net"]).ok(), "");
        // At a container's start.
        with(&["network", "create", "-d", &driver.name, "--subnet", "10.66.0.0/24", "net"]).ok();
        for (method, answer, text) in [
            ("CreateEndpoint", json!({"Err": "no room"}), "NetworkDriver.CreateEndpoint: no room"),
            ("CreateEndpoint", json!({"Interface": {"MacAddress": "ff:ff:ff:ff:ff:ff"}}), "no hardware address of a link"),
            ("CreateEndpoint", json!({"Interface": {"Address": "10.66.0.200/24"}}), "is to be the address"),
            ("CreateEndpoint", json!([1]), "invalid type"),
            ("Join", json!({"InterfaceName": {"SrcName": "../x", "DstPrefix": "eth"}}), "is no name of a link"),
            ("Join", json!({"InterfaceName": {"SrcName": "x", "DstPrefix": "much-too-long-for-it"}}), "cannot begin a name"),
            ("Join", json!({"InterfaceName": {"SrcName": "x", "DstPrefix": "eth"}, "Gateway": "::1"}), "\"::1\" is no next hop"),
            ("Join", json!({"InterfaceName": {"SrcName": "nothere", "DstPrefix": "eth"}}), "nothere"),
        ] {
            driver.says(&format!("NetworkDriver.{method}"), answer);
            with(&["run", "--rm", "--network", "net", "busybox"]).fails(125, text);
            driver.is_honest();
        }
        // Nothing is left of all this.
        let shown = with(&["run", "--rm", "--network", "net", "busybox", "ip", "-4", "addr", "show", "eth0"]).ok();
        assert!(shown.contains("inet 10.66.0."), "{shown}");
        with(&["network", "rm", "net"]).ok();
    }
}

#[test]
fn a_plugin_that_is_away_holds_no_end_up() {
    let mut daemon = Daemon::start();
    let driver = Driver::start();
    daemon.berth(&["network", "create", "-d", &driver.name, "--subnet", "10.66.0.0/24", "net"]).ok();
    let run =
        ["run", "-d", "--name", "one", "--network", "net", "--ip", "10.66.0.7", "busybox", "sleep", "1000"];
    daemon.berth(&run).ok();
    driver.leave();
    daemon.berth(&["stop", "-t", "0", "one"]).ok();
    assert_eq!(driver.calls.count("NetworkDriver.Leave"), 0);
    daemon.berth(&["network", "rm", "net"]).fails(1, "NetworkDriver.DeleteNetwork: dial unix");
    // A daemon that was killed finds the container ended, and the plugin still away.
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "exited");
    // Who waits for the plugin goes on when it is back, and it learns then that the first run is over.
    let mut waiting = daemon.client(Client::Berth, &["start", "one"]);
    let mut waiting = waiting.stdout(std::process::Stdio::null()).spawn().unwrap();
    daemon.berth(&["run", "--rm", "busybox", "true"]).ok();
    driver.serve();
    assert!(waiting.wait().unwrap().success());
    assert_eq!(driver.calls.count("NetworkDriver.CreateEndpoint"), 3);
    assert_eq!(daemon.inspect("one", "{{.NetworkSettings.Networks.net.IPAddress}}"), "10.66.0.7");
    daemon.berth(&["rm", "-f", "one"]).ok();
    daemon.berth(&["network", "rm", "net"]).ok();
    assert!(!links().iter().any(|link| link.starts_with("pb")), "its bridge is gone");
}
