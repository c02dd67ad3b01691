//! Two daemons in one network namespace: each has what is its own, and nobody else's.

use std::io::Read;
use std::net::TcpStream;
use std::process::Command;

use crate::daemon::Daemon;
use crate::output::{eventually, run};

fn address(daemon: &Daemon, name: &str) -> String {
    daemon.inspect(name, "{{.NetworkSettings.Networks.bridge.IPAddress}}")
}

fn answers(port: u16) -> bool {
    let mut text = String::new();
    let asked = TcpStream::connect(("127.0.0.1", port))
        .and_then(|mut connection| connection.read_to_string(&mut text));
    asked.is_ok() && text == "served\n"
}

#[test]
fn daemons_do_not_take_each_others_networks() {
    // A name and a subnet are settled when an engine starts: the second finds what the first has made.
    let start = |daemon: Daemon, port: u16| {
        let serve = "while :; do echo served | nc -l -p 80; done";
        let publish = format!("{port}:80");
        daemon.berth(&["run", "-d", "--name", "cc", "-p", &publish, "busybox", "sh", "-c", serve]).ok();
        daemon.berth(&["run", "-d", "--name", "asks", "busybox", "sleep", "1000"]).ok();
        daemon
    };
    let one = start(Daemon::start(), 8001);
    let mut two = start(one.beside(), 8002);
    let both = || {
        eventually("both serve", || (answers(8001) && answers(8002)).then_some(()));
        for daemon in [&one, &two] {
            let ping = ["exec", "asks", "ping", "-c", "1", "-W", "2", &address(daemon, "cc")];
            eventually("its own network", || (daemon.berth(&ping).code == 0).then_some(()));
        }
    };
    both();
    assert_ne!(address(&one, "cc"), address(&two, "cc"), "subnets of their own");
    let links = run(Command::new("ip").args(["-br", "link", "show", "type", "bridge"])).ok();
    let names: Vec<&str> = links.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["berth0", "berth1"]);
    let other = one.berth(&["exec", "asks", "ping", "-c", "1", "-W", "1", &address(&two, "cc")]);
    assert_ne!(other.code, 0, "apart, as networks are");
    // The second finds its own again, and what others flush, both bring back.
    two.kill();
    two.launch();
    eventually("both serve", || (answers(8001) && answers(8002)).then_some(()));
    run(Command::new("nft").args(["flush", "ruleset"])).ok();
    eventually("both tables are back", || {
        let tables = run(Command::new("nft").args(["list", "tables"])).ok();
        (tables.lines().filter(|line| line.starts_with("table inet berth")).count() == 2).then_some(())
    });
    eventually("both serve", || (answers(8001) && answers(8002)).then_some(()));
    two.berth(&["rm", "-f", "cc", "asks"]).ok();
    two.stop();
    eventually("the first goes on", || answers(8001).then_some(()));
}
