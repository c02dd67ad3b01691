//! The firewall's backends, as settings choose them, and what becomes of their rules.

use std::io::Read;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::daemon::{Client, Daemon};
use crate::files;
use crate::output::{eventually, run};
use crate::raw::{exchange, request};

const SERVE: &str = "while :; do echo served | nc -l -p 80; done";

fn daemon(arguments: &[&str]) -> Daemon {
    let daemon = Daemon::empty(arguments);
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    daemon
}

fn list(command: &str) -> String {
    let words: Vec<&str> = command.split(' ').collect();
    run(Command::new(words[0]).args(&words[1..])).ok()
}

/// What a server says that speaks first.
pub fn ask(address: &str) -> Option<String> {
    let mut text = String::new();
    let mut connection = TcpStream::connect(address).ok()?;
    // Where rules are missing, the socket that keeps the port lets connect and never answers.
    connection.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    connection.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

fn info(daemon: &Daemon) -> String {
    exchange(daemon, &request("GET", "/v1.51/info", "", b""))
}

#[test]
fn dockers_chains_follow_networks_and_containers_of_both_clients() {
    let daemon = daemon(&["--firewall-backend", "iptables"]);
    eventually("the chains are there from the start", || {
        list("iptables -S").contains("-A DOCKER-FORWARD -i berth0 -j ACCEPT").then_some(())
    });
    assert!(info(&daemon).contains("\"FirewallBackend\":{\"Driver\":\"iptables\"}"), "{}", info(&daemon));
    assert!(daemon.berth(&["info"]).ok().contains(" Firewall Backend: iptables"));
    for client in [Client::Berth, Client::Docker] {
        let before = list("iptables-save").lines().filter(|line| line.starts_with("-A")).count();
        let name = "com.docker.network.bridge.name=bridge1";
        let subnet = ["--subnet", "192.0.2.0/24", "--gateway", "192.0.2.1"];
        daemon.with(client, &[&["network", "create", "-o", name], &subnet[..], &["n1"]].concat()).ok();
        daemon.with(client, &["network", "create", "--internal", "--subnet", "198.18.0.0/24", "n2"]).ok();
        let ports = ["-p", "8080:80", "-p", "127.0.0.1:9090:80"];
        let run =
            [&["run", "-d", "--name", "c1", "--network", "n1"], &ports[..], &["busybox", "sh", "-c", SERVE]];
        daemon.with(client, &run.concat()).ok();
        let rules = list("iptables-save");
        for line in [
            "-A DOCKER -d 192.0.2.2/32 ! -i bridge1 -o bridge1 -p tcp -m tcp --dport 80 -j ACCEPT",
            "-A DOCKER ! -i bridge1 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.2:80",
            "-A PREROUTING -d 192.0.2.2/32 ! -i bridge1 -j DROP",
            "-A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 9090 -j DROP",
            "-A POSTROUTING -s 192.0.2.0/24 ! -o bridge1 -j MASQUERADE",
            "-A DOCKER-INTERNAL ! -s 198.18.0.0/24 -o br-",
        ] {
            assert!(rules.contains(line), "no {line:?} in:\n{rules}");
        }
        for address in ["127.0.0.1:8080", "127.0.0.1:9090", "192.0.2.1:8080"] {
            assert_eq!(eventually(address, || ask(address)), "served\n");
        }
        daemon.with(client, &["rm", "-f", "c1"]).ok();
        daemon.with(client, &["network", "rm", "n1"]).ok();
        daemon.with(client, &["network", "rm", "n2"]).ok();
        let after = list("iptables-save");
        assert_eq!(after.lines().filter(|line| line.starts_with("-A")).count(), before, "{after}");
    }
}

#[test]
fn rules_outlive_a_killed_daemon_and_a_flush() {
    for backend in ["nftables", "iptables"] {
        let mut daemon = daemon(&["--firewall-backend", backend]);
        daemon.background(&["--name", "c1", "-p", "8080:80", "busybox", "sh", "-c", SERVE]);
        eventually("it serves", || ask("127.0.0.1:8080"));
        daemon.kill();
        eventually("it serves without a daemon", || ask("127.0.0.1:8080"));
        let rules = || list("iptables-save").lines().filter(|line| line.starts_with("-A")).count();
        let before = rules();
        daemon.launch();
        eventually("it serves after a restart", || ask("127.0.0.1:8080"));
        // A daemon that has not looked at its rules yet makes them, and has nothing to tell.
        eventually("info says when", || {
            let told = info(&daemon).contains("ReloadedAt");
            if !told {
                list("nft flush ruleset");
            }
            told.then_some(())
        });
        eventually("it serves after a flush", || ask("127.0.0.1:8080"));
        // Without rules connections are carried, so that serving says nothing of these.
        eventually("no rule twice, none lost", || (rules() == before).then_some(()));
        daemon.berth(&["rm", "-f", "c1"]).ok();
    }
}

/// Whoever takes one of Docker's jumps away, or puts it elsewhere, does not open what an administrator drops.
#[test]
fn an_administrators_rules_stay_before_dockers() {
    let _daemon = daemon(&["--firewall-backend", "iptables"]);
    let in_order = || {
        let rules = list("iptables -S FORWARD");
        let jumps: Vec<&str> = rules.lines().filter_map(|line| line.strip_prefix("-A FORWARD -j ")).collect();
        (jumps == ["DOCKER-USER", "DOCKER-FORWARD"]).then_some(())
    };
    eventually("the chains are there from the start", in_order);
    for commands in [
        &["-D FORWARD -j DOCKER-FORWARD"][..],
        &["-D FORWARD -j DOCKER-USER"],
        &["-D FORWARD -j DOCKER-USER", "-A FORWARD -j DOCKER-USER"],
    ] {
        for command in commands {
            list(&format!("iptables {command}"));
        }
        eventually(&format!("in order after {commands:?}"), in_order);
    }
}

#[test]
fn a_daemon_without_iptables_makes_no_rules() {
    let daemon = daemon(&["--iptables=false", "--ip6tables=false"]);
    daemon.background(&["busybox", "sleep", "1000"]);
    assert_eq!(list("nft list ruleset"), "");
    let wrong = run(Command::new(crate::daemon::binary()).args(["daemon", "--firewall-backend", "pf"]));
    wrong.fails(1, "invalid firewall-backend \"pf\"");
}
