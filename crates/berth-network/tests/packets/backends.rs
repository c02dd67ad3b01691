//! What each backend has to do, in packets: all of these run over both, and over Docker's rules without a proxy.

use berth_network::Reach;
use berth_network::firewall::Backend;

use super::*;

pub fn iptables() -> FirewallOptions {
    FirewallOptions { backend: Backend::Iptables, ..FirewallOptions::default() }
}

macro_rules! over_all_backends {
    ($(fn $name:ident($options:ident: FirewallOptions) $body:block)*) => {
        $(fn $name($options: FirewallOptions) $body)*

        mod nftables {
            $(#[test] fn $name() { super::$name(super::FirewallOptions::default()); })*
        }

        mod iptables {
            $(#[test] fn $name() { super::$name(super::iptables()); })*
        }

        mod iptables_without_proxy {
            $(#[test] fn $name() {
                super::$name(super::FirewallOptions { hairpin: true, ..super::iptables() });
            })*
        }
    };
}

/// A second network: `other0`, 172.31.0.0/16.
pub fn other(rules: Rules) -> Bridge {
    Bridge { name: "other0".into(), gateways: vec!["172.31.0.1/16".parse().unwrap()], rules, ..bridge() }
}

pub fn other_state(rules: Rules) -> FirewallState {
    FirewallState {
        bridges: vec![("other0".into(), rules)],
        subnets: vec![("other0".into(), "172.31.0.0/16".parse().unwrap())],
        ..FirewallState::default()
    }
}

pub fn add_other(host: &Guarded, rules: Rules) {
    host.guard(move |firewall| {
        Host::open().unwrap().ensure_bridge(&other(rules)).unwrap();
        firewall.add(&other_state(rules)).unwrap();
    });
}

pub fn on_other(host: &Guarded, address: &str, rules: Rules) -> Namespace {
    let container = Namespace::new();
    let netns = container.fd.try_clone().unwrap();
    let end = Endpoint {
        addresses: vec![format!("{address}/16").parse().unwrap()],
        gateways: vec!["172.31.0.1".parse().unwrap()],
        ..endpoint(address)
    };
    let config = end.link_config(end.gateways.clone());
    host.run(move || Host::open().unwrap().connect(&other(rules), netns.as_fd(), &end).unwrap());
    container.run(move || rtnetlink::configure(&[config]).unwrap());
    container
}

/// What `program` lists in a namespace.
pub fn output(namespace: &Namespace, command: &str) -> String {
    let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
    namespace.run(move || {
        let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
        let (out, error) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{words:?}: {out}{error}");
        out
    })
}

/// Waits for `found`, for ten seconds at most.
pub fn eventually(what: &str, mut found: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !found() {
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

over_all_backends! {
    fn published_ports_are_reached_and_others_are_not(options: FirewallOptions) {
        let ports = vec![published("0.0.0.0", 8080, "172.30.0.2"), published("127.0.0.1", 9090, "172.30.0.2")];
        let host = guarded_host(options, ports.clone());
        let mapped = ports.into_iter().map(|port| port.mapping).collect();
        let (inside, outside) = (publishing_container(&host, "172.30.0.2", mapped), neighbour(&host));
        let sibling = container(&host, "172.30.0.3");
        serve(&inside, 80);
        serve(&inside, 81);
        assert_eq!(ask(&outside, "198.51.100.1:8080"), ip("198.51.100.2"), "with the client's address");
        assert_eq!(ask(&host, "127.0.0.1:8080"), ip("172.30.0.1"), "on loopback");
        assert_eq!(ask(&host, "127.0.0.1:9090"), ip("172.30.0.1"), "published there only");
        assert!(ask(&host, "198.51.100.1:8080").is_some(), "the host by its own address");
        assert!(ask(&inside, "172.30.0.1:8080").is_some(), "its own published port");
        assert!(ask(&sibling, "172.30.0.1:8080").is_some(), "that of another on the network");
        assert_eq!(ask(&sibling, "172.30.0.2:81"), ip("172.30.0.3"), "directly on the network");
        assert_eq!(ask(&outside, "198.51.100.1:9090"), None, "published on loopback only");
        assert_eq!(ask(&outside, "172.30.0.2:81"), None, "not published");
        assert_eq!(ask(&outside, "172.30.0.2:80"), None, "past the host's port");
    }

    fn what_leaves_the_host_has_its_address(options: FirewallOptions) {
        let host = guarded_host(options, vec![]);
        let (inside, outside) = (container(&host, "172.30.0.2"), neighbour(&host));
        serve(&outside, 80);
        serve(&host, 7000);
        assert_eq!(ask(&inside, "198.51.100.2:80"), ip("198.51.100.1"));
        assert_eq!(ask(&inside, "172.30.0.1:7000"), ip("172.30.0.2"), "unless it goes to the host itself");
    }

    fn networks_are_apart_but_for_published_ports(options: FirewallOptions) {
        let host = guarded_host(options, vec![published("0.0.0.0", 8080, "172.30.0.2")]);
        add_other(&host, Rules::default());
        let (one, two) = (container(&host, "172.30.0.2"), on_other(&host, "172.31.0.2", Rules::default()));
        serve(&one, 80);
        serve(&one, 81);
        serve(&two, 80);
        assert!(ask(&two, "172.30.0.1:8080").is_some(), "by way of the host's port");
        assert_eq!(ask(&two, "172.30.0.2:81"), None);
        assert_eq!(ask(&one, "172.31.0.2:80"), None);
    }

    fn an_internal_network_has_no_way_out_and_a_silent_one_none_within(options: FirewallOptions) {
        let internal = Rules { outward: false, masquerade4: false, masquerade6: false, ..Rules::default() };
        let host = guarded_host(options, vec![published("0.0.0.0", 8080, "172.30.0.2")]);
        add_other(&host, internal);
        let (one, two) = (on_other(&host, "172.31.0.2", internal), on_other(&host, "172.31.0.3", internal));
        let (public, outside) = (container(&host, "172.30.0.2"), neighbour(&host));
        serve(&public, 80);
        serve(&outside, 80);
        serve(&two, 80);
        assert_eq!(ask(&one, "172.31.0.3:80"), ip("172.31.0.2"), "within");
        assert_eq!(ask(&one, "198.51.100.2:80"), None, "no way out");
        assert_eq!(ask(&one, "172.30.0.2:80"), None);
        assert_eq!(ask(&outside, "172.31.0.3:80"), None, "no way in");

        let silent = Rules { within: false, ..Rules::default() };
        host.guard(move |firewall| {
            firewall.remove(&other_state(internal)).unwrap();
            firewall.add(&other_state(silent)).unwrap();
        });
        let (three, four) = (on_other(&host, "172.31.0.4", silent), on_other(&host, "172.31.0.5", silent));
        serve(&four, 80);
        assert_eq!(ask(&three, "172.31.0.5:80"), None, "icc is off");
        assert!(ask(&three, "198.51.100.2:80").is_some(), "but there is a way out");
    }

    fn what_leaves_gets_the_address_that_was_chosen(options: FirewallOptions) {
        let chosen = Rules { source4: Some("198.51.100.9".parse().unwrap()), ..Rules::default() };
        let host = guarded_host(options, vec![]);
        add_other(&host, chosen);
        let (inside, outside) = (on_other(&host, "172.31.0.2", chosen), neighbour(&host));
        output(&host, "ip address add 198.51.100.9/32 dev lo");
        serve(&outside, 80);
        assert_eq!(ask(&inside, "198.51.100.2:80"), ip("198.51.100.9"));
        host.guard(move |firewall| firewall.remove(&other_state(chosen)).unwrap());
    }

    fn ports_come_and_go_and_repeat_themselves_harmlessly(options: FirewallOptions) {
        let host = guarded_host(options, vec![]);
        let (inside, outside) = (container(&host, "172.30.0.2"), neighbour(&host));
        serve(&inside, 80);
        let port = |number| FirewallState { bridges: vec![], subnets: vec![],
            ..state(vec![published("0.0.0.0", number, "172.30.0.2")]) };
        assert_eq!(ask(&outside, "198.51.100.1:8080"), None);
        host.guard(move |firewall| firewall.add(&port(8080)).unwrap());
        assert!(ask(&outside, "198.51.100.1:8080").is_some());
        host.guard(move |firewall| {
            firewall.reconcile(&state(vec![published("0.0.0.0", 8080, "172.30.0.2")])).unwrap();
            firewall.remove(&port(8080)).unwrap();
            firewall.remove(&port(8080)).unwrap();
        });
        assert_eq!(ask(&outside, "198.51.100.1:8080"), None);
        let before = output(&host, "iptables-save").lines().filter(|line| line.starts_with("-A")).count();
        host.guard(move |firewall| {
            firewall.reconcile(&state(vec![])).unwrap();
            firewall.reconcile(&state(vec![])).unwrap();
        });
        let after = output(&host, "iptables-save").lines().filter(|line| line.starts_with("-A")).count();
        assert_eq!(before, after);
    }

    fn rules_that_others_flush_come_back_and_open_connections_go_on(options: FirewallOptions) {
        let port = || vec![published("0.0.0.0", 8080, "172.30.0.2")];
        let host = guarded_host(options, port());
        let (inside, outside) = (container(&host, "172.30.0.2"), neighbour(&host));
        let listener = inside.run(|| TcpListener::bind("0.0.0.0:80").unwrap());
        let mut client = outside.run(|| TcpStream::connect("198.51.100.1:8080").unwrap());
        let mut server = listener.accept().unwrap().0;
        output(&host, "nft flush ruleset");
        // Nobody accepts it but the kernel's queue: a connection is enough.
        let reached = || outside.run(|| {
            let address = "198.51.100.1:8080".parse().unwrap();
            TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
        });
        eventually("the port is reached again", reached);
        assert_eq!(ask(&outside, "172.30.0.2:81"), None, "isolation is back too");
        eventually("the host knows", {
            let firewall = Arc::clone(&host.firewall);
            move || firewall.restored().is_some()
        });
        host.guard(move |firewall| firewall.reconcile(&state(port())).unwrap());
        server.write_all(b"still here").unwrap();
        drop(server);
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "still here");
    }

    fn containers_may_be_reached_at_their_own_addresses(options: FirewallOptions) {
        let host = guarded_host(options, vec![]);
        let routed = Rules { masquerade4: false, reach4: Reach::Published, ..Rules::default() };
        add_other(&host, routed);
        let (inside, outside) = (on_other(&host, "172.31.0.2", routed), neighbour(&host));
        let reached = berth_network::firewall::Reached {
            address: "172.31.0.2".parse().unwrap(), protocol: Protocol::Tcp, port: 80 };
        host.guard(move |firewall| firewall
            .add(&FirewallState { reached: vec![reached], ..FirewallState::default() }).unwrap());
        serve(&inside, 80);
        serve(&inside, 81);
        assert_eq!(ask(&outside, "172.31.0.2:80"), ip("198.51.100.2"));
        assert_eq!(ask(&outside, "172.31.0.2:81"), None);
    }
}

/// Without a proxy, whose rules translate what goes to loopback too, and then with one.
#[test]
fn the_jump_of_an_engine_with_other_settings_goes() {
    let host = guarded_host(FirewallOptions { hairpin: true, ..iptables() }, vec![]);
    let jumps = |listing: String| listing.lines().filter(|line| line.ends_with("LOCAL -j DOCKER")).count();
    assert!(output(&host, "iptables -t nat -S OUTPUT").contains("OUTPUT -m addrtype"));
    let root = tempfile::tempdir().unwrap();
    let next = Arc::new(Firewall::new(iptables(), root.path(), "tests"));
    host.run(move || next.reconcile(&state(vec![])).unwrap());
    for program in ["iptables", "ip6tables"] {
        let listing = output(&host, &format!("{program} -t nat -S OUTPUT"));
        assert!(listing.contains("OUTPUT ! -d"), "{listing}");
        assert_eq!(jumps(listing), 1);
    }
}

/// A container that asks at the host's port for a neighbour on its own network.
#[test]
fn a_neighbour_is_reached_at_its_published_port_without_a_proxy() {
    let port = published("0.0.0.0", 8080, "172.30.0.2");
    let setting = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    let options = FirewallOptions { hairpin: true, ..iptables() };
    let host = Guarded::new(options);
    if host.run(move || std::fs::write(setting, "0")).is_err() {
        // This kernel cannot filter bridges.
        return;
    }
    let ports = vec![port.clone()];
    host.guard(move |firewall| {
        Host::open().unwrap().ensure_bridge(&bridge()).unwrap();
        firewall.reconcile(&state(ports)).unwrap();
        Host::open().unwrap().forward(false).unwrap();
    });
    assert_eq!(host.run(move || std::fs::read_to_string(setting).unwrap()).trim(), "1");
    let inside = publishing_container(&host, "172.30.0.2", vec![port.mapping]);
    let sibling = container(&host, "172.30.0.3");
    serve(&inside, 80);
    assert!(ask(&sibling, "172.30.0.1:8080").is_some());
}
