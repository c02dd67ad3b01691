//! Names of containers on networks, and where other names are asked for.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::daemon::{Client, Daemon, kill_and_see_it_gone};
use crate::output::eventually;

/// What the servers of these tests say of every name.
const ANSWER: &str = "192.0.2.77";

fn sleeper(daemon: &Daemon, client: Client, name: &str, flags: &[&str]) {
    let arguments = [&["run", "-d", "--name", name], flags, &["busybox", "sleep", "1000"]].concat();
    daemon.with(client, &arguments).ok();
}

fn inside(daemon: &Daemon, name: &str, script: &str) -> String {
    daemon.berth(&["exec", name, "sh", "-c", script]).stdout
}

fn address(daemon: &Daemon, name: &str, network: &str, field: &str) -> String {
    daemon.inspect(name, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").{field}}}}}"))
}

/// Whether a container reaches a name by ping, at the first try.
fn reaches(daemon: &Daemon, from: &str, name: &str) -> bool {
    daemon.berth(&["exec", from, "ping", "-c", "1", "-W", "1", name]).code == 0
}

/// What the name server says of a name.
fn lookup(daemon: &Daemon, from: &str, name: &str) -> String {
    inside(daemon, from, &format!("nslookup {name} 127.0.0.11 2>&1"))
}

/// A name server on the loopback of the test's namespace, and how often it was asked.
fn upstream(address: &str) -> Arc<AtomicUsize> {
    answering(UdpSocket::bind((address, 53)).unwrap())
}

/// Answers on a socket as long as the test runs.
fn answering(socket: UdpSocket) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            counter.fetch_add(1, Ordering::SeqCst);
            let end = 12 + buffer[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
            let is_address = buffer[end - 4..end - 2] == [0, 1];
            let mut reply = buffer[..end].to_vec();
            reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
            if is_address {
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 192, 0, 2, 77]);
            }
            let _ = socket.send_to(&reply, from);
        }
    });
    asked
}

with_both_clients! {
    fn containers_find_each_other(daemon: &Daemon, client: Client) {
        daemon.with(client, &["network", "create", "--ipv6", "mine"]).ok();
        daemon.with(client, &["network", "create", "other"]).ok();
        sleeper(daemon, client, "web", &["--network", "mine", "--network-alias", "shop", "--hostname", "shown"]);
        sleeper(daemon, client, "asks", &["--network", "mine"]);
        sleeper(daemon, client, "apart", &["--network", "other"]);
        let short = daemon.inspect("web", "{{.Id}}")[..12].to_owned();
        for name in ["web", "shop", "shown", &short, "WEB", "web.mine", "shop.mine"] {
            assert!(reaches(daemon, "asks", name), "{name}");
            assert!(!reaches(daemon, "apart", name), "{name}");
        }
        let found = lookup(daemon, "asks", "web");
        for field in ["IPAddress", "GlobalIPv6Address"] {
            assert!(found.contains(&address(daemon, "web", "mine", field)), "{field}: {found}");
        }
        let four = address(daemon, "web", "mine", "IPAddress");
        assert!(lookup(daemon, "asks", &four).contains("web.mine"), "{}", lookup(daemon, "asks", &four));
        // Another name, another network, none any more.
        daemon.with(client, &["rename", "web", "site"]).ok();
        assert!(reaches(daemon, "asks", "site") && !reaches(daemon, "asks", "web"));
        daemon.with(client, &["network", "connect", "--alias", "far", "other", "site"]).ok();
        assert!(reaches(daemon, "apart", "far") && reaches(daemon, "apart", "site"));
        assert!(!reaches(daemon, "asks", "far"), "an alias is of one network");
        daemon.with(client, &["network", "disconnect", "mine", "site"]).ok();
        assert!(reaches(daemon, "apart", "far") && !reaches(daemon, "asks", "site"));
        daemon.with(client, &["restart", "-t", "0", "site"]).ok();
        assert!(reaches(daemon, "apart", "far"));
        daemon.with(client, &["stop", "-t", "0", "site"]).ok();
        assert!(!lookup(daemon, "apart", "far").contains("Name:\tfar"), "{}", lookup(daemon, "apart", "far"));
    }

    fn several_of_one_alias_take_turns(daemon: &Daemon, client: Client) {
        daemon.with(client, &["network", "create", "mine"]).ok();
        for name in ["one", "two"] {
            sleeper(daemon, client, name, &["--network", "mine", "--network-alias", "both"]);
        }
        let found = lookup(daemon, "one", "both");
        for name in ["one", "two"] {
            assert!(found.contains(&address(daemon, name, "mine", "IPAddress")), "{found}");
        }
        daemon.with(client, &["network", "disconnect", "mine", "two"]).ok();
        let found = lookup(daemon, "one", "both");
        assert!(found.contains(&address(daemon, "one", "mine", "IPAddress")), "{found}");
    }

    fn the_default_bridge_has_the_hosts_servers_and_no_names(daemon: &Daemon, client: Client) {
        sleeper(daemon, client, "one", &[]);
        sleeper(daemon, client, "two", &["--dns", "192.0.2.1", "--dns-search", "a.test", "--dns-search", "b.test",
            "--dns-option", "ndots:9", "--dns-option", "timeout:3"]);
        assert!(!inside(daemon, "one", "cat /etc/resolv.conf").contains("127.0.0.11"));
        assert!(!reaches(daemon, "one", "two"));
        let plain = inside(daemon, "two", "grep -v ^# /etc/resolv.conf");
        assert_eq!(plain.trim(), "nameserver 192.0.2.1\nsearch a.test b.test\noptions ndots:9 timeout:3");
        let none = ["run", "--rm", "--network", "none", "--dns", "192.0.2.1", "--dns-search", ".", "busybox", "grep", "-v", "^#", "/etc/resolv.conf"];
        assert_eq!(daemon.with(client, &none).ok().trim(), "nameserver 192.0.2.1");
        // What is joined later brings the name server with it; what somebody wrote stays.
        daemon.with(client, &["network", "create", "mine"]).ok();
        sleeper(daemon, client, "three", &["--network", "mine"]);
        inside(daemon, "two", "echo '# by hand' >> /etc/resolv.conf");
        for name in ["one", "two"] {
            daemon.with(client, &["network", "connect", "mine", name]).ok();
        }
        assert!(inside(daemon, "one", "cat /etc/resolv.conf").contains("nameserver 127.0.0.11\n"));
        assert!(reaches(daemon, "one", "three") && reaches(daemon, "three", "one"));
        assert!(inside(daemon, "two", "cat /etc/resolv.conf").ends_with("# by hand\n"));
        assert!(!inside(daemon, "two", "cat /etc/resolv.conf").contains("nameserver 127.0.0.11"));
        assert!(lookup(daemon, "two", "three").contains(&address(daemon, "three", "mine", "IPAddress")));
    }

    fn hosts_files_have_the_addresses_of_all_networks(daemon: &Daemon, client: Client) {
        daemon.with(client, &["network", "create", "--ipv6", "mine"]).ok();
        sleeper(daemon, client, "web", &["--hostname", "shown", "--domainname", "sea.test", "--add-host", "gate:host-gateway",
            "--add-host", "six:fd00::9"]);
        let hosts = || inside(daemon, "web", "cat /etc/hosts");
        let gateway = address(daemon, "web", "bridge", "Gateway");
        let own = format!("{}\tshown.sea.test shown\n", address(daemon, "web", "bridge", "IPAddress"));
        assert!(hosts().ends_with(&format!("{gateway}\tgate\nfd00::9\tsix\n{own}")), "{}", hosts());
        inside(daemon, "web", "echo '10.9.9.9 by-hand' >> /etc/hosts");
        let before = hosts();
        daemon.with(client, &["network", "connect", "mine", "web"]).ok();
        let [four, six] = ["IPAddress", "GlobalIPv6Address"].map(|field| address(daemon, "web", "mine", field));
        assert_eq!(hosts(), format!("{before}{four}\tshown.sea.test shown\n{six}\tshown.sea.test shown\n"));
        daemon.with(client, &["network", "disconnect", "mine", "web"]).ok();
        assert_eq!(hosts(), before);
        // Also where nothing else needs the bridge.
        let host = ["run", "--rm", "--network", "host", "--add-host", "gate:host-gateway", "busybox", "grep", "gate", "/etc/hosts"];
        assert_eq!(daemon.with(client, &host).ok(), format!("{gateway}\tgate"));
        let host = ["run", "--rm", "--network", "host", "busybox", "cat", "/etc/hosts"];
        assert_eq!(daemon.with(client, &host).stdout, std::fs::read_to_string("/etc/hosts").unwrap());
        let without = ["run", "--rm", "--network", "mine", "--sysctl", "net.ipv6.conf.all.disable_ipv6=1", "busybox", "cat", "/etc/hosts"];
        let without = daemon.with(client, &without).ok();
        assert!(without.lines().all(|line| !line.contains("::")), "{without}");
    }
}

/// A daemon whose host names one server, on its loopback.
fn with_upstream(server: &str) -> (Daemon, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    std::fs::write(&path, format!("nameserver {server}\nsearch sea.test\n")).unwrap();
    (Daemon::start_with("DOCKER_TEST_RESOLV_CONF_PATH", path.to_str().unwrap()), folder)
}

fn nothing_leaves_an_internal_network(client: Client) {
    let (daemon, folder) = with_upstream("127.0.0.1");
    let asked = upstream("127.0.0.1");
    let daemon = &daemon;
    daemon.with(client, &["network", "create", "--internal", "inside"]).ok();
    daemon.with(client, &["network", "create", "outside"]).ok();
    sleeper(daemon, client, "cc", &["--network", "outside"]);
    let source = folder.path().join("resolv.conf").display().to_string();
    assert_eq!(
        inside(daemon, "cc", "cat /etc/resolv.conf"),
        format!(
            "# Generated by Docker Engine.\n# This file can be edited; Docker Engine will not make further changes once \
             it\n# has been modified.\n\nnameserver 127.0.0.11\nsearch sea.test\noptions ndots:0\n\n# Based on host file: \
             '{source}' (internal resolver)\n# ExtServers: [host(127.0.0.1)]\n# Overrides: []\n# Option ndots from: \
             internal\n"
        )
    );
    let answered = |name: &str| lookup(daemon, "cc", name).contains(ANSWER);
    assert!(answered("test.example"), "{}", lookup(daemon, "cc", "test.example"));
    daemon.with(client, &["network", "connect", "inside", "cc"]).ok();
    assert!(answered("next.example"));
    daemon.with(client, &["network", "disconnect", "outside", "cc"]).ok();
    sleeper(daemon, client, "never", &["--network", "inside"]);
    let before = asked.load(Ordering::SeqCst);
    for name in ["test.example", "next.example", "leak.example"] {
        for from in ["cc", "never"] {
            let refused = lookup(daemon, from, name);
            assert!(refused.contains("SERVFAIL") && !refused.contains(ANSWER), "{from} {name}: {refused}");
        }
    }
    assert_eq!(
        asked.load(Ordering::SeqCst),
        before,
        "nothing was asked of the host's server, not even what it knows"
    );
    assert!(lookup(daemon, "never", "cc").contains(&address(daemon, "cc", "inside", "IPAddress")));
    daemon.with(client, &["network", "connect", "outside", "cc"]).ok();
    assert!(answered("again.example") && asked.load(Ordering::SeqCst) > before);
    // A server of the user's own is asked from inside, where it may be.
    let server = address(daemon, "never", "inside", "IPAddress");
    let namespace = std::fs::File::open(format!("/proc/{}/ns/net", daemon.init_pid("never"))).unwrap();
    let socket = berth_sys::netns::within(&namespace, || UdpSocket::bind((server.as_str(), 53))).unwrap();
    let asked_inside = answering(socket);
    sleeper(daemon, client, "own", &["--network", "inside", "--dns", &server]);
    let told = lookup(daemon, "own", "foo.example");
    assert!(told.contains(ANSWER) && asked_inside.load(Ordering::SeqCst) > 0, "{told}");
    assert!(inside(daemon, "own", "cat /etc/resolv.conf").contains(&format!("# ExtServers: [{server}]\n")));
}

#[test]
fn nothing_leaves_an_internal_network_berth() {
    nothing_leaves_an_internal_network(Client::Berth);
}

#[test]
fn nothing_leaves_an_internal_network_docker() {
    nothing_leaves_an_internal_network(Client::Docker);
}

#[test]
fn names_are_answered_while_no_daemon_runs_and_after() {
    let mut daemon = Daemon::start();
    daemon.berth(&["network", "create", "mine"]).ok();
    sleeper(&daemon, Client::Berth, "web", &["--network", "mine"]);
    sleeper(&daemon, Client::Berth, "goes", &["--network", "mine"]);
    let script = "n=1; while true; do [ -e /ask$n ] && { nslookup $(cat /ask$n) > /answer 2>&1; mv /answer /told$n; n=$((n+1)); }; \
                  usleep 10000; done";
    daemon.background(&["--name", "asks", "--network", "mine", "busybox", "sh", "-c", script]);
    let root = format!("/proc/{}/root", daemon.init_pid("asks"));
    let ask = |turn: u32, name: &str| {
        std::fs::write(format!("{root}/asked"), name).unwrap();
        std::fs::rename(format!("{root}/asked"), format!("{root}/ask{turn}")).unwrap();
        eventually("an answer", || std::fs::read_to_string(format!("{root}/told{turn}")).ok())
    };
    let web = address(&daemon, "web", "mine", "IPAddress");
    let gone = address(&daemon, "goes", "mine", "IPAddress");
    assert!(ask(1, "web").contains(&web));
    let goes = daemon.init_pid("goes");
    daemon.kill();
    assert!(ask(2, "web").contains(&web), "while no daemon runs");
    kill_and_see_it_gone(goes);
    let answer = ask(3, "goes");
    assert!(!answer.contains(&gone), "who has ended has no name: {answer}");
    daemon.launch();
    assert!(ask(4, "web").contains(&web), "with the next daemon");
    // Changes go on from there.
    daemon.berth(&["rename", "web", "site"]).ok();
    assert!(ask(5, "site").contains(&web));
    assert!(!ask(6, "web").contains(&web));
    // A new net process knows what the last one knew.
    kill_and_see_it_gone(daemon.process_with("__net"));
    let mut turn = 7;
    eventually("names after the net process was killed", || {
        turn += 1;
        ask(turn - 1, "site").contains(&web).then_some(())
    });
    daemon.berth(&["rm", "-f", "asks", "site", "goes"]).ok();
}

#[test]
fn the_default_bridge_needs_no_net_process() {
    let daemon = Daemon::start();
    daemon.background(&["busybox", "sleep", "1000"]);
    let runs = || {
        daemon.processes().iter().any(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|part| part == b"__net")
        })
    };
    assert!(!runs());
    daemon.berth(&["network", "create", "mine"]).ok();
    daemon.background(&["--network", "mine", "busybox", "sleep", "1000"]);
    assert!(runs());
}
