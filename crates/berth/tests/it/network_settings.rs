//! The daemon's settings of networks, with their effects; each daemon in a namespace of the test's own.

use std::process::Command;

use serde_json::Value;

use crate::daemon::{Client, Daemon};
use crate::files;
use crate::output::{Output, eventually, run};

fn ip(arguments: &[&str]) -> String {
    run(Command::new("ip").args(arguments)).ok()
}

/// A daemon with images.
fn start(arguments: &[&str]) -> Daemon {
    let daemon = Daemon::empty(arguments);
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    daemon
}

/// Starts a daemon once more, with other arguments and whatever its namespace has by now.
fn again(daemon: &mut Daemon, arguments: &[&str]) {
    if daemon.runs() {
        daemon.stop();
    }
    daemon.set_arguments(arguments);
    daemon.launch();
}

/// What a daemon that must not start says.
fn refused(daemon: &mut Daemon, arguments: &[&str]) -> Output {
    if daemon.runs() {
        daemon.stop();
    }
    daemon.set_arguments(arguments);
    run(Command::new("timeout")
        .arg("20")
        .arg(daemon.command().get_program())
        .args(daemon.command().get_args()))
}

/// Subnet, range and gateway of each family on a network.
fn ipam(daemon: &Daemon, network: &str) -> Vec<String> {
    let text =
        daemon.with(Client::Docker, &["network", "inspect", "-f", "{{json .IPAM.Config}}", network]).ok();
    let configs: Vec<Value> = serde_json::from_str(&text).unwrap();
    let field = |config: &Value, name: &str| config[name].as_str().unwrap_or_default().to_owned();
    let shown = |config: &Value| ["Subnet", "IPRange", "Gateway"].map(|name| field(config, name)).join(" ");
    configs.iter().map(shown).collect()
}

fn sleeper(daemon: &Daemon, name: &str) {
    daemon.berth(&["run", "-d", "--name", name, "busybox", "sleep", "1000"]).ok();
}

fn address(daemon: &Daemon, name: &str) -> String {
    daemon.inspect(name, "{{.NetworkSettings.Networks.bridge.IPAddress}}")
}

fn reaches(daemon: &Daemon, name: &str, address: &str) -> bool {
    daemon.berth(&["exec", name, "ping", "-c", "2", "-W", "1", address]).code == 0
}

#[test]
fn the_default_bridge_follows_settings_and_what_its_link_has() {
    let mut daemon = start(&["--bip", "192.168.176.88/24", "--bip6", "fdd1:8161:2d2c::8888/64", "--ipv6"]);
    let both = ["192.168.176.0/24  192.168.176.88", "fdd1:8161:2d2c::/64  fdd1:8161:2d2c::8888"];
    assert_eq!(ipam(&daemon, "bridge"), both, "before there is a container");
    let link = ip(&["addr", "show", "dev", "berth0"]);
    assert!(link.contains("192.168.176.88/24") && link.contains("fdd1:8161:2d2c::8888/64"), "{link}");
    let inside = daemon.berth(&["run", "--rm", "busybox", "sh", "-c", "ip addr; ip route; ip -6 route"]).ok();
    for expected in
        ["192.168.176.", "fdd1:8161:2d2c::", "default via 192.168.176.88", "default via fdd1:8161:2d2c::8888"]
    {
        assert!(inside.contains(expected), "{expected}: {inside}");
    }
    // The link's address stays where nothing says otherwise.
    again(&mut daemon, &["--fixed-cidr", "192.168.176.64/26"]);
    assert_eq!(ipam(&daemon, "bridge"), ["192.168.176.0/24 192.168.176.64/26 192.168.176.88"]);
    sleeper(&daemon, "one");
    assert_eq!(address(&daemon, "one"), "192.168.176.64");
    // Containers that run keep theirs.
    again(&mut daemon, &["--bip", "10.77.0.1/24"]);
    assert_eq!(ipam(&daemon, "bridge"), ["192.168.176.0/24 192.168.176.64/26 192.168.176.88"]);
    assert!(reaches(&daemon, "one", "192.168.176.88"));
    daemon.berth(&["rm", "-f", "one"]).ok();
    again(&mut daemon, &["--bip", "10.77.0.1/24", "--default-gateway", "10.77.0.254"]);
    assert_eq!(ipam(&daemon, "bridge"), ["10.77.0.0/24  10.77.0.1"]);
    let link = ip(&["addr", "show", "dev", "berth0"]);
    assert!(link.contains("10.77.0.1/24") && !link.contains("192.168.176."), "{link}");
    let routes = daemon.berth(&["run", "--rm", "busybox", "ip", "route"]).ok();
    assert!(routes.contains("default via 10.77.0.254"), "{routes}");
}

#[test]
fn an_administrators_bridge_is_used_as_it_is() {
    let mut daemon = start(&["--bridge", "none"]);
    let listed = daemon.berth(&["network", "ls", "--format", "{{.Name}}"]).ok();
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["host", "none"]);
    let inside = daemon.berth(&["run", "--rm", "busybox", "ls", "/sys/class/net"]).ok();
    assert_eq!(inside, "lo");
    let mine = daemon.berth(&["network", "create", "mine"]);
    assert_eq!(mine.code, 0, "others are made all the same");
    let missing = refused(&mut daemon, &["--bridge", "br9"]);
    missing.fails(1, "bridge device with non default name br9 must be created manually");
    ip(&["link", "add", "br9", "type", "bridge"]);
    ip(&["addr", "add", "192.168.160.88/20", "dev", "br9"]);
    ip(&["addr", "add", "192.168.176.88/20", "dev", "br9"]);
    again(&mut daemon, &["--bridge", "br9", "--fixed-cidr", "192.168.177.0/24"]);
    assert_eq!(ipam(&daemon, "bridge"), ["192.168.176.0/20 192.168.177.0/24 192.168.176.88"]);
    sleeper(&daemon, "one");
    assert!(address(&daemon, "one").starts_with("192.168.177."));
    assert!(reaches(&daemon, "one", "192.168.176.88"));
    let link = ip(&["addr", "show", "dev", "br9"]);
    assert!(link.contains("192.168.160.88/20") && link.contains("192.168.176.88/20"), "{link}");
    daemon.berth(&["rm", "-f", "one"]).ok();
    ip(&["addr", "add", "fd98::1/64", "dev", "br9"]);
    let outside = refused(&mut daemon, &["--bridge", "br9", "--ipv6", "--fixed-cidr-v6", "fd99::/64"]);
    outside.fails(1, "is outside any subnet implied by addresses on the user-managed default bridge");
    again(&mut daemon, &["--bridge", "none"]);
    assert!(ip(&["link"]).contains("br9"), "it stays");
}

#[test]
fn contradictions_are_refused_in_dockers_words() {
    let mut daemon = Daemon::empty(&[]);
    for (arguments, words) in [
        (
            &["--bridge", "br9", "--bip", "10.1.0.1/24"][..],
            "You specified -b & --bip, mutually exclusive options",
        ),
        (
            &["--bridge", "br9", "--bip6", "fd00::1/64"],
            "You specified -b & --bip6, mutually exclusive options",
        ),
        (&["--icc=false", "--iptables=false"], "You specified --iptables=false with --icc=false"),
        (&["--icc=false", "--ipv6", "--ip6tables=false"], "You specified --ip6tables=false with --icc=false"),
        (&["--bip", "10.1.0.1"], "parse bip failed: invalid CIDR address: 10.1.0.1"),
        (&["--bip6", "10.1.0.1/24"], "parse bip6 failed: invalid CIDR address: 10.1.0.1/24"),
        (&["--fixed-cidr", "x"], "parse fixed-cidr failed: invalid CIDR address: x"),
        (&["--bip", "10.1.0.1/24", "--fixed-cidr", "10.2.0.0/24"], "invalid address subpool"),
        (
            &["--bip", "10.1.0.1/24", "--default-gateway", "10.2.0.1"],
            "must belong to the master pool: 10.1.0.0/24",
        ),
        (&["--default-gateway", "fd00::1"], "default-gateway"),
        (&["--default-address-pool", "base=10.1.0.0/16"], "base and size are needed"),
        (
            &["--default-address-pool", "base=10.1.0.0/16,size=8"],
            "has a smaller prefix (/16) than the target size",
        ),
        (&["--default-network-opt", "bridge=x"], "should be root-key=key=value"),
    ] {
        let output = refused(&mut daemon, arguments);
        assert!(output.code != 0 && output.code != 124, "{arguments:?}: {}", output.code);
        assert!(output.stderr.contains(words), "{arguments:?}: {}", output.stderr);
    }
}

#[test]
fn networks_get_subnets_of_the_pools_and_options_of_their_driver() {
    let mut daemon = start(&[
        "--default-address-pool",
        "base=10.91.0.0/16,size=24",
        "--default-address-pool",
        "base=fd91::/56,size=64",
        "--default-network-opt",
        "bridge=com.docker.network.driver.mtu=1400",
        "--ipv6",
    ]);
    assert_eq!(ipam(&daemon, "bridge"), ["10.91.0.0/24  10.91.0.1", "fd91::/64  fd91::1"]);
    daemon.berth(&["network", "create", "--ipv6", "mine"]).ok();
    assert_eq!(ipam(&daemon, "mine"), ["10.91.1.0/24  10.91.1.1", "fd91:0:0:1::/64  fd91:0:0:1::1"]);
    daemon.berth(&["network", "create", "-o", "com.docker.network.driver.mtu=1300", "own"]).ok();
    for (network, mtu) in [("mine", "1400"), ("own", "1300")] {
        let shown =
            ["network", "inspect", "-f", "{{index .Options \"com.docker.network.driver.mtu\"}}", network];
        assert_eq!(daemon.berth(&shown).ok(), mtu);
        let inside = ["run", "--rm", "--network", network, "busybox", "cat", "/sys/class/net/eth0/mtu"];
        assert_eq!(daemon.berth(&inside).ok(), mtu);
    }
    // Other pools, other subnets; networks that are there stay.
    again(&mut daemon, &["--default-address-pool", "base=10.92.0.0/16,size=24"]);
    assert_eq!(ipam(&daemon, "bridge"), ["10.92.0.0/24  10.92.0.1"]);
    assert_eq!(ipam(&daemon, "own"), ["10.91.2.0/24  10.91.2.1"]);
    // Whoever has containers outlive daemons has their bridge stay, too.
    again(&mut daemon, &["--live-restore", "--default-address-pool", "base=10.93.0.0/16,size=24"]);
    assert_eq!(ipam(&daemon, "bridge"), ["10.92.0.0/24  10.92.0.1"]);
}

#[test]
fn containers_reach_each_other_unless_told_otherwise() {
    let mut daemon = start(&[]);
    for (arguments, expected) in [(&[][..], true), (&["--icc=false"], false)] {
        again(&mut daemon, arguments);
        sleeper(&daemon, "one");
        sleeper(&daemon, "two");
        assert_eq!(reaches(&daemon, "one", &address(&daemon, "two")), expected, "{arguments:?}");
        let gateway = daemon.inspect("one", "{{.NetworkSettings.Networks.bridge.Gateway}}");
        assert!(reaches(&daemon, "one", &gateway));
        daemon.berth(&["rm", "-f", "one", "two"]).ok();
    }
    let shown =
        ["network", "inspect", "-f", "{{index .Options \"com.docker.network.bridge.enable_icc\"}}", "bridge"];
    assert_eq!(daemon.berth(&shown).ok(), "false");
}

/// A host on each of two links of the daemon's, which could only reach each other through it. The namespaces go with
/// what is returned.
pub struct Neighbours(Vec<std::process::Child>);

impl Neighbours {
    /// Joined to this host by links of their own: 10.201.0.2 and 10.202.0.2, where this one is .1.
    pub fn new() -> Neighbours {
        Neighbours([1, 2].iter().map(Neighbours::one).collect())
    }

    fn one(number: &u8) -> std::process::Child {
        let child = Command::new("unshare").args(["-n", "sleep", "1000"]).spawn().unwrap();
        let pid = child.id().to_string();
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        eventually("a namespace", || {
            (std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()? != own).then_some(())
        });
        let (here, there) = (format!("here{number}"), format!("10.20{number}.0"));
        ip(&["link", "add", &here, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        ip(&["addr", "add", &format!("{there}.1/24"), "dev", &here]);
        ip(&["link", "set", &here, "up"]);
        let inside = format!(
            "ip addr add {there}.2/24 dev eth0; ip link set eth0 up; ip route add default via {there}.1"
        );
        run(Command::new("nsenter").args(["-n", "-t", &pid, "sh", "-c", &inside])).ok();
        child
    }

    /// Runs a script on one of them.
    pub fn run(&self, index: usize, script: &str) -> Output {
        let pid = self.0[index].id().to_string();
        run(Command::new("nsenter").args(["-n", "-t", &pid, "sh", "-c", script]))
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn forwards() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim().to_owned()
}

#[test]
fn a_host_that_did_not_forward_forwards_for_containers_alone() {
    let mut daemon = start(&["--ip-forward=false"]);
    // A new namespace may forward because this machine does.
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    let neighbours = Neighbours::new();
    let ping = || neighbours.run(0, "busybox ping -c 2 -W 1 10.202.0.2").code == 0;
    sleeper(&daemon, "zero");
    assert_eq!(forwards(), "0", "it was told not to");
    assert!(!reaches(&daemon, "zero", "10.202.0.2"));
    again(&mut daemon, &[]);
    eventually("it forwards", || (forwards() == "1").then_some(()));
    sleeper(&daemon, "one");
    assert!(reaches(&daemon, "one", "10.202.0.2"));
    assert!(!ping(), "the host became a router");
    // The next daemon finds forwarding on, and knows by whom.
    daemon.kill();
    daemon.launch();
    daemon.berth(&["network", "create", "mine"]).ok();
    assert!(reaches(&daemon, "one", "10.202.0.2"));
    assert!(!ping());
    again(&mut daemon, &["--ip-forward-no-drop"]);
    daemon.berth(&["network", "create", "other"]).ok();
    assert!(ping());
    assert!(reaches(&daemon, "one", "10.202.0.2"));
}

#[test]
fn a_host_that_forwarded_before_goes_on() {
    let mut daemon = Daemon::empty(&[]);
    daemon.stop();
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    let neighbours = Neighbours::new();
    daemon.launch();
    daemon.berth(&["network", "create", "mine"]).ok();
    assert_eq!(neighbours.run(0, "busybox ping -c 2 -W 1 10.202.0.2").code, 0);
}

#[test]
fn published_ports_are_reached_directly_if_that_is_allowed() {
    let mut daemon = start(&["--bip", "10.93.0.1/24"]);
    let neighbours = Neighbours::new();
    for (arguments, expected) in
        [(&["--bip", "10.93.0.1/24"][..], ""), (&["--bip", "10.93.0.1/24", "--allow-direct-routing"], "told")]
    {
        again(&mut daemon, arguments);
        let serve = "while true; do echo told | nc -l -p 80; done";
        daemon.berth(&["run", "-d", "--name", "web", "-p", "8093:80", "busybox", "sh", "-c", serve]).ok();
        let ask = |address: &str, port: &str| {
            neighbours
                .run(0, &format!("echo | timeout 3 busybox nc -w 2 {address} {port}"))
                .stdout
                .trim()
                .to_owned()
        };
        eventually("the published port answers", || (ask("10.201.0.1", "8093") == "told").then_some(()));
        assert_eq!(ask(&address(&daemon, "web"), "80"), expected, "{arguments:?}");
        daemon.berth(&["rm", "-f", "web"]).ok();
    }
}
