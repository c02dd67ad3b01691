//! One suite for all drivers of networks that have endpoints: `bridge` and `macvlan` here, `ipvlan` and parents of their
//! own in a virtual machine, whose kernel has them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::daemon::{Client, Daemon};
use crate::output::{eventually, run};
use crate::vm::{Extras, boot, program};

const NETWORK: [&str; 4] = ["--subnet", "10.66.0.0/24", "--ip-range", "10.66.0.128/25"];

pub fn links() -> BTreeSet<String> {
    let listing = run(Command::new("ip").args(["-o", "link"])).ok();
    listing.lines().filter_map(|line| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned())).collect()
}

pub fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments)).ok();
}

/// Two links of the host with a cable between them: `up0` is a parent, and what leaves it arrives at `up1`.
fn cable() {
    ip(&["link", "add", "up0", "type", "veth", "peer", "name", "up1"]);
    ip(&["link", "set", "up0", "up"]);
    ip(&["link", "set", "up1", "up"]);
}

fn field(daemon: &Daemon, name: &str, field: &str) -> String {
    daemon.inspect(name, &format!("{{{{.NetworkSettings.Networks.net.{field}}}}}"))
}

fn reaches(daemon: &Daemon, name: &str, address: &str) -> bool {
    // The first packet may be lost while a neighbour is looked for.
    daemon.berth(&["exec", name, "ping", "-c", "2", "-W", "1", address]).code == 0
}

fn sleeper(daemon: &Daemon, client: Client, name: &str, flags: &[&str]) {
    let arguments =
        [&["run", "-d", "--name", name, "--network", "net"], flags, &["busybox", "sleep", "1000"]].concat();
    daemon.with(client, &arguments).ok();
}

/// What every driver does. `create` are the flags by which the network is made.
pub fn suite(daemon: &mut Daemon, client: Client, create: &[&str]) {
    let made = [&["network", "create"], create, &NETWORK, &["net"]].concat();
    let before = links();
    daemon.with(client, &made).ok();
    let with_network = links();
    sleeper(daemon, client, "one", &["--ip", "10.66.0.7"]);
    sleeper(daemon, client, "two", &[]);
    assert_eq!(field(daemon, "one", "IPAddress"), "10.66.0.7");
    assert!(field(daemon, "two", "IPAddress").starts_with("10.66.0.1"), "of the range");
    assert!(reaches(daemon, "two", "10.66.0.7"));
    let taken = ["run", "--rm", "--network", "net", "--ip", "10.66.0.7", "busybox", "true"];
    daemon.with(client, &taken).fails(125, "Address already in use");
    // Away and back, while it runs.
    daemon.with(client, &["network", "disconnect", "net", "one"]).ok();
    let inside = daemon.berth(&["exec", "one", "ls", "/sys/class/net"]).ok();
    assert!(!inside.contains("eth"), "{inside}");
    assert!(!reaches(daemon, "two", "10.66.0.7"));
    daemon.with(client, &["network", "connect", "--ip", "10.66.0.7", "net", "one"]).ok();
    assert!(reaches(daemon, "two", "10.66.0.7"));
    // The same address at once, though the kernel may still know the link that had it.
    for _ in 0..3 {
        daemon.with(client, &["restart", "-t", "0", "one"]).ok();
    }
    assert_eq!(field(daemon, "one", "IPAddress"), "10.66.0.7");
    assert!(reaches(daemon, "two", "10.66.0.7"));
    // Another daemon knows it all, and gives nothing out twice.
    daemon.kill();
    daemon.launch();
    assert!(reaches(daemon, "two", "10.66.0.7"));
    daemon.with(client, &taken).fails(125, "Address already in use");
    daemon.with(client, &["restart", "-t", "0", "one"]).ok();
    assert!(reaches(daemon, "one", &field(daemon, "two", "IPAddress")));
    daemon.with(client, &["network", "rm", "net"]).fails(1, "has active endpoints");
    daemon.with(client, &["rm", "-f", "one", "two"]).ok();
    eventually("containers' links go", || (links() == with_network).then_some(()));
    daemon.with(client, &["network", "rm", "net"]).ok();
    let left: Vec<_> = links().difference(&before).cloned().collect();
    assert!(left.iter().all(|link| link == "berth0"), "{left:?}");
}

fn with_both(create: &[&str], prepare: fn()) {
    for client in [Client::Berth, Client::Docker] {
        let mut daemon = Daemon::start();
        prepare();
        suite(&mut daemon, client, create);
    }
}

#[test]
fn the_driver_bridge() {
    with_both(&["-d", "bridge"], || ());
}

#[test]
fn the_driver_macvlan() {
    with_both(&["-d", "macvlan", "-o", "parent=up0"], cable);
}

/// The kernel of the tests may have no `dummy` links.
#[test]
fn the_driver_macvlan_without_a_parent() {
    with_both(&["-d", "macvlan"], || ());
}

#[test]
fn macvlan_reaches_the_cable_and_modes_are_the_kernels() {
    let daemon = Daemon::start();
    cable();
    ip(&["addr", "add", "10.66.0.1/24", "dev", "up1"]);
    for (mode, each_other) in [("bridge", true), ("private", false), ("vepa", false)] {
        let mode = format!("macvlan_mode={mode}");
        let create =
            ["network", "create", "-d", "macvlan", "-o", "parent=up0", "-o", &mode, "--gateway", "10.66.0.1"];
        daemon.berth(&[&create[..], &NETWORK, &["net"]].concat()).ok();
        sleeper(&daemon, Client::Berth, "one", &["--ip", "10.66.0.7", "-p", "8066:80"]);
        sleeper(&daemon, Client::Berth, "two", &[]);
        assert!(reaches(&daemon, "one", "10.66.0.1"), "{mode}: the other end of the cable");
        assert_eq!(reaches(&daemon, "two", "10.66.0.7"), each_other, "{mode}");
        let routes = daemon.berth(&["exec", "one", "ip", "route"]).ok();
        assert!(routes.contains("default via 10.66.0.1 dev eth0"), "{routes}");
        // Nothing goes through the host: nothing is published.
        assert_eq!(daemon.berth(&["port", "one"]).ok(), "");
        assert_eq!(field(&daemon, "one", "MacAddress"), "02:42:0a:42:00:07");
        let shown = daemon.berth(&["exec", "one", "cat", "/sys/class/net/eth0/address"]).ok();
        assert_eq!(shown, "02:42:0a:42:00:07");
        daemon.berth(&["rm", "-f", "one", "two"]).ok();
        daemon.berth(&["network", "rm", "net"]).ok();
    }
    // Alone with its parent.
    let create = ["network", "create", "-d", "macvlan", "-o", "parent=up0", "-o", "macvlan_mode=passthru"];
    daemon.berth(&[&create[..], &NETWORK, &["net"]].concat()).ok();
    sleeper(&daemon, Client::Berth, "one", &["--ip", "10.66.0.7"]);
    assert!(reaches(&daemon, "one", "10.66.0.1"));
    daemon.berth(&["restart", "-t", "0", "one"]).ok();
    assert!(reaches(&daemon, "one", "10.66.0.1"));
    let second =
        ["network", "create", "-d", "macvlan", "-o", "parent=up0", "--subnet", "10.67.0.0/24", "second"];
    daemon.berth(&second).fails(1, "is already using parent interface up0 in mode passthru");
    assert!(links().contains("up0"), "an administrator's link stays");
}

/// Networks on a cable share the subnet that is on it, and give no address out twice.
#[test]
fn macvlan_networks_share_a_subnet() {
    let mut daemon = Daemon::start();
    cable();
    let create = |name: &str, flags: &[&str]| {
        let driver = ["network", "create", "-d", "macvlan", "-o", "parent=up0", "--subnet", "10.66.0.0/24"];
        daemon.berth(&[&driver[..], flags, &[name]].concat())
    };
    create("net", &["--ip-range", "10.66.0.128/25", "--gateway", "10.66.0.1"]).ok();
    create("low", &["--ip-range", "10.66.0.0/25", "--aux-address", "x=10.66.0.9"]).ok();
    let overlap = "Pool overlaps with other one on this address space";
    create("other", &["--ip-range", "10.66.0.128/25"]).fails(1, overlap);
    create("other", &[]).fails(1, overlap);
    create("other", &["--ip-range", "10.66.0.64/26", "--gateway", "10.66.0.1"])
        .fails(1, "Address already in use");
    let bridge = ["network", "create", "--subnet", "10.66.0.0/24", "--ip-range", "10.66.0.64/26", "other"];
    daemon.berth(&bridge).fails(1, overlap);
    sleeper(&daemon, Client::Berth, "one", &[]);
    daemon.background(&["--name", "two", "--network", "low", "busybox", "sleep", "1000"]);
    let of_two = daemon.inspect("two", "{{.NetworkSettings.Networks.low.IPAddress}}");
    assert_eq!((field(&daemon, "one", "IPAddress").as_str(), of_two.as_str()), ("10.66.0.128", "10.66.0.2"));
    assert!(reaches(&daemon, "one", &of_two) && reaches(&daemon, "two", "10.66.0.128"));
    daemon.kill();
    daemon.launch();
    for (network, address) in
        [("low", "10.66.0.128"), ("low", "10.66.0.1"), ("net", of_two.as_str()), ("net", "10.66.0.9")]
    {
        let taken = ["run", "--rm", "--network", network, "--ip", address, "busybox", "true"];
        daemon.berth(&taken).fails(125, "Address already in use");
    }
    // What a network had set aside is free when it is gone, and nothing else.
    daemon.berth(&["rm", "-f", "one"]).ok();
    daemon.berth(&["network", "rm", "net"]).ok();
    let free = ["run", "--rm", "--network", "low", "--ip", "10.66.0.1", "busybox", "true"];
    daemon.berth(&free).ok();
    let taken = ["run", "--rm", "--network", "low", "--ip", &of_two, "busybox", "true"];
    daemon.berth(&taken).fails(125, "Address already in use");
}

/// What others on the cable know of an address is set right when its next owner comes.
#[test]
fn macvlan_tells_the_cable_who_has_an_address() {
    let daemon = Daemon::start();
    cable();
    ip(&["addr", "add", "10.66.0.1/24", "dev", "up1"]);
    ip(&["-6", "addr", "add", "fd66::1/64", "dev", "up1", "nodad"]);
    for family in ["ipv4", "ipv6"] {
        // The kernel does not look by itself whether the first one is still there.
        std::fs::write(format!("/proc/sys/net/{family}/neigh/up1/delay_first_probe_time"), "1000").unwrap();
    }
    let create =
        ["network", "create", "-d", "macvlan", "-o", "parent=up0", "--ipv6", "--subnet", "fd66::/64"];
    daemon.berth(&[&create[..], &NETWORK, &["net"]].concat()).ok();
    for mac in ["02:00:00:00:00:01", "02:00:00:00:00:02"] {
        sleeper(
            &daemon,
            Client::Berth,
            "one",
            &["--ip", "10.66.0.7", "--ip6", "fd66::7", "--mac-address", mac],
        );
        let known = || {
            ["10.66.0.7", "fd66::7"].map(|address| {
                let shown = run(Command::new("ip").args(["neigh", "show", address, "dev", "up1"])).ok();
                shown.contains(mac)
            })
        };
        if mac.ends_with('1') {
            for address in ["10.66.0.1", "fd66::1"] {
                eventually(address, || reaches(&daemon, "one", address).then_some(()));
            }
        }
        // Nobody asks for the second: it says so itself.
        eventually(mac, || (known() == [true; 2]).then_some(()));
        daemon.berth(&["rm", "-f", "one"]).ok();
    }
}

#[test]
fn macvlan_has_both_families_several_subnets_and_no_way_out_if_internal() {
    let daemon = Daemon::start();
    cable();
    let create = [
        "network",
        "create",
        "-d",
        "macvlan",
        "-o",
        "parent=up0",
        "--internal",
        "--ipv6",
        "--subnet",
        "10.68.0.0/24",
        "--subnet",
        "10.69.0.0/24",
        "--gateway",
        "10.69.0.1",
        "--aux-address",
        "x=10.68.0.1",
        "--subnet",
        "fd66::/64",
        "--gateway",
        "fd66::1",
        "net",
    ];
    daemon.berth(&create).ok();
    sleeper(&daemon, Client::Berth, "one", &[]);
    sleeper(&daemon, Client::Berth, "two", &["--ip", "10.69.0.7", "--ip6", "fd66::7"]);
    sleeper(&daemon, Client::Berth, "three", &["--ip", "10.69.0.8"]);
    assert_eq!(field(&daemon, "one", "IPAddress"), "10.68.0.2", "past what is someone else's");
    assert!(reaches(&daemon, "three", "10.69.0.7") && reaches(&daemon, "three", "fd66::7"));
    let routes = daemon.berth(&["exec", "two", "sh", "-c", "ip route; ip -6 route"]).ok();
    assert!(!routes.contains("default"), "{routes}");
    let refused = ["run", "--rm", "--network", "net", "--ip", "10.70.0.7", "busybox", "true"];
    daemon.berth(&refused).fails(125, "no configured subnet contains IP address 10.70.0.7");
}

#[test]
fn parents_that_make_no_sense_are_refused() {
    let daemon = Daemon::empty(&[]);
    let create =
        |driver: &str, option: &str| daemon.berth(&["network", "create", "-d", driver, "-o", option, "net"]);
    for (driver, option, words) in [
        ("macvlan", "parent=lo", "loopback interface is not a valid macvlan parent link"),
        ("ipvlan", "parent=lo", "loopback interface is not a valid ipvlan parent link"),
        (
            "macvlan",
            "parent=nowhere",
            "invalid subinterface vlan name nowhere, example formatting is eth0.10",
        ),
        ("macvlan", "parent=nowhere.5", "-o parent interface was not found on the host: nowhere"),
        ("macvlan", "parent=lo.4095", "vlan id must be between 1-4094, received: 4095"),
        ("macvlan", "macvlan_mode=x", "requested macvlan mode 'x' is not valid"),
        ("ipvlan", "ipvlan_mode=x", "requested ipvlan mode 'x' is not valid"),
        ("ipvlan", "ipvlan_flag=x", "requested ipvlan flag 'x' is not valid"),
    ] {
        create(driver, option).fails(1, words);
    }
    assert_eq!(daemon.berth(&["network", "ls", "-qf", "type=custom"]).ok(), "");
}

/// The suite as a shell script, for a machine whose daemon runs already.
const SCRIPT: &str = r#"
links() { ls /sys/class/net | grep -v -e '^veth' -e '^berth0$' | sort; }
gone() { n=0; until [ "$(links)" = "$1" ] || [ $n -gt 100 ]; do n=$((n + 1)); sleep 0.1; done; [ "$(links)" = "$1" ]; }
suite() {
    kind=$1; shift
    before=$(links)
    step $kind-create berth network create "$@" --subnet 10.66.0.0/24 net
    berth run -d --name one --network net --ip 10.66.0.7 busybox sleep 1000
    berth run -d --name two --network net --ip 10.66.0.8 busybox sleep 1000
    step $kind-talk berth exec two ping -c 2 -W 5 10.66.0.7
    step $kind-routes berth exec two ip route
    berth network disconnect net one
    step $kind-away berth exec two ping -c 1 -W 1 10.66.0.7
    berth network connect --ip 10.66.0.7 net one
    step $kind-back berth exec two ping -c 2 -W 5 10.66.0.7
    step $kind-restart berth restart -t 0 one two
    step $kind-again berth exec two ping -c 2 -W 5 10.66.0.7
    step $kind-mac berth inspect -f '{{.NetworkSettings.Networks.net.MacAddress}}' one
    berth rm -f one two
    step $kind-remove berth network rm net
    step $kind-left gone "$before"
}
ip link add up0 type dummy; ip link set up0 up
suite bridge -d bridge
suite macvlan -d macvlan -o parent=up0
suite macvlan-alone -d macvlan
suite macvlan-vlan -d macvlan -o parent=up0.50
suite l2 -d ipvlan -o parent=up0
suite l2-gateway -d ipvlan -o parent=up0 --gateway 10.66.0.1
suite l3 -d ipvlan -o parent=up0 -o ipvlan_mode=l3
suite l3s -d ipvlan -o parent=up0 -o ipvlan_mode=l3s
suite l2-alone -d ipvlan
suite l3-vlan -d ipvlan -o parent=up0.60 -o ipvlan_mode=l3
step first berth network create -d ipvlan -o parent=up0 first
step second berth network create -d ipvlan -o parent=up0 second
berth network rm first
step shared1 berth network create -d macvlan -o parent=up0.70 first
step shared2 berth network create -d macvlan -o parent=up0.70 second
berth network rm first
step shared-stays test -e /sys/class/net/up0.70
berth network rm second
step shared-goes test -e /sys/class/net/up0.70
# A host at the other end of a cable. busybox's own `ip` knows neither.
ip() { /usr/sbin/ip "$@"; }
ip netns add far
ip link add up2 type veth peer name out; ip link set out netns far; ip link set up2 up
ip -n far link set out up; ip -n far addr add 10.67.0.1/24 dev out; ip -n far addr add fd67::1/64 dev out nodad
for flag in bridge private vepa; do
    berth network create -d ipvlan -o parent=up2 -o ipvlan_flag=$flag --ipv6 \
        --subnet 10.67.0.0/24 --gateway 10.67.0.1 --subnet fd67::/64 --gateway fd67::1 net
    berth run -d --name one --network net --ip 10.67.0.7 --ip6 fd67::7 busybox sleep 1000
    berth run -d --name two --network net --ip 10.67.0.8 --ip6 fd67::8 busybox sleep 1000
    step $flag-out berth exec one ping -c 2 -W 5 10.67.0.1
    step $flag-out6 berth exec one ping -c 2 -W 5 fd67::1
    step $flag-in /usr/sbin/ip netns exec far ping -c 2 -W 5 10.67.0.8
    step $flag-each-other berth exec two ping -c 1 -W 2 10.67.0.7
    step $flag-each-other6 berth exec two ping -c 1 -W 2 fd67::7
    berth rm -f one two
    berth network rm net
done
step mac-refused sh -c 'berth network create -d ipvlan -o parent=up0 net; berth run --rm --network net --mac-address 02:42:00:00:00:09 busybox true'
"#;

#[test]
fn ipvlan_and_parents_of_networks_own() {
    let files = program(Path::new("/"), "usr/sbin/ip");
    let steps = boot(SCRIPT, &Extras { files, ..Extras::default() });
    let names = [
        "bridge",
        "macvlan",
        "macvlan-alone",
        "macvlan-vlan",
        "l2",
        "l2-gateway",
        "l3",
        "l3s",
        "l2-alone",
        "l3-vlan",
    ];
    for name in names {
        for (step, good) in [
            ("create", true),
            ("talk", true),
            ("away", false),
            ("back", true),
            ("restart", true),
            ("again", true),
            ("remove", true),
            ("left", true),
        ] {
            let told = steps.step(&format!("{name}-{step}"));
            assert_eq!(told.ends_with("code 0"), good, "{name} {step}: {told}");
        }
        let routes = steps.step(&format!("{name}-routes"));
        let expected = match name {
            "bridge" => "default via 10.66.0.1 dev eth0",
            "l2-gateway" => "default via 10.66.0.1 dev eth0",
            "l3" | "l3s" | "l3-vlan" => "default dev eth0",
            _ => "",
        };
        assert!(
            routes.contains(expected) && (routes.contains("default") != expected.is_empty()),
            "{name}: {routes}"
        );
        let mac = steps.step(&format!("{name}-mac"));
        assert_eq!(mac.contains("02:42:0a:42:00:07"), !name.starts_with('l'), "{name}: {mac}");
    }
    assert!(
        steps.step("second").contains("is already using parent interface up0"),
        "{}",
        steps.step("second")
    );
    assert!(steps.step("shared2").ends_with("code 0"), "{}", steps.step("shared2"));
    assert_eq!((steps.step("shared-stays"), steps.step("shared-goes")), ("code 0", "code 1"));
    for flag in ["bridge", "private", "vepa"] {
        for way in ["out", "out6", "in", "each-other", "each-other6"] {
            let told = steps.step(&format!("{flag}-{way}"));
            let expected = flag == "bridge" || !way.starts_with("each");
            assert_eq!(told.ends_with("code 0"), expected, "{flag} {way}: {told}");
        }
    }
    let refused = steps.step("mac-refused");
    assert!(refused.contains("ipvlan interfaces do not support custom mac address assignment"), "{refused}");
}
