//! Networks over killed daemons: nothing is lost, leaked, or given out twice.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use crate::daemon::Daemon;
use crate::output::{eventually, run};

fn links() -> Vec<String> {
    let listing = run(Command::new("ip").args(["-o", "link"])).ok();
    listing.lines().filter_map(|line| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned())).collect()
}

fn address(daemon: &Daemon, name: &str, network: &str) -> String {
    daemon.inspect(name, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"))
}

#[test]
fn networks_and_their_connections_outlive_a_killed_daemon() {
    let mut daemon = Daemon::start();
    daemon.berth(&["network", "create", "--internal", "inside"]).ok();
    daemon.berth(&["network", "create", "mine"]).ok();
    daemon.background(&["--name", "one", "--network", "mine", "-p", "8077:77", "busybox", "sleep", "1000"]);
    daemon.background(&["--name", "two", "--network", "mine", "busybox", "sleep", "1000"]);
    daemon.berth(&["network", "connect", "inside", "two"]).ok();
    let (one, two) = (address(&daemon, "one", "mine"), address(&daemon, "two", "mine"));
    // A connection that was open before goes on after.
    daemon.berth(&["exec", "-d", "one", "sh", "-c", "nc -l -p 99 > /got"]).ok();
    let feed = format!(
        "until [ -e /go ]; do sleep 0.05; done; (echo before; until [ -e /more ]; do sleep 0.05; done; echo after) | nc {one} 99"
    );
    daemon.berth(&["exec", "-d", "two", "sh", "-c", &feed]).ok();
    daemon.berth(&["exec", "two", "touch", "/go"]).ok();
    let got = |daemon: &Daemon| daemon.berth(&["exec", "one", "cat", "/got"]).stdout;
    eventually("the first word came", || got(&daemon).contains("before").then_some(()));
    let before = links();
    daemon.kill();
    daemon.launch();
    assert_eq!(links(), before, "links are left as they were");
    daemon.berth(&["exec", "two", "touch", "/more"]).ok();
    eventually("the second word came", || got(&daemon).contains("after").then_some(()));
    assert_eq!(
        (address(&daemon, "one", "mine"), address(&daemon, "two", "mine")),
        (one.clone(), two.clone())
    );
    daemon.background(&["--name", "three", "--network", "mine", "busybox", "sleep", "1000"]);
    let third = address(&daemon, "three", "mine");
    assert!(third != one && third != two, "{third}");
    daemon.berth(&["network", "rm", "mine"]).fails(1, "has active endpoints");
    daemon.berth(&["network", "disconnect", "inside", "two"]).ok();
    daemon.berth(&["network", "rm", "inside"]).ok();
    daemon.berth(&["rm", "-f", "one", "two", "three"]).ok();
    daemon.berth(&["network", "rm", "mine"]).ok();
    assert!(!links().iter().any(|link| link.starts_with("br-")), "{:?}", links());
}

#[test]
fn a_daemon_killed_while_networks_change_leaks_nothing() {
    let mut daemon = Daemon::start();
    daemon.berth(&["network", "create", "--subnet", "10.66.0.0/24", "mine"]).ok();
    daemon.background(&["--name", "cc", "busybox", "sleep", "1000"]);
    for step in 0..12u64 {
        let change = format!("made-{step}");
        let script =
            "b network connect mine cc; b network disconnect mine cc; b network create $N; b network rm $N";
        let script = script.replace("b network", "\"$B\" -H \"$H\" network").replace("$N", &change);
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .env("B", crate::daemon::binary())
            .env("H", daemon.host())
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Another moment each time: the daemon is anywhere in it.
        std::thread::sleep(Duration::from_millis(8 * step));
        daemon.kill();
        child.wait().unwrap();
        daemon.launch();
        settled(&daemon);
    }
    // No address is lost: the network has 253 for containers, and each is given out once.
    let taken: BTreeSet<String> = (0..3)
        .map(|index| {
            let name = format!("c{index}");
            daemon.background(&["--name", &name, "--network", "mine", "busybox", "sleep", "1000"]);
            address(&daemon, &name, "mine")
        })
        .collect();
    assert_eq!(taken.len(), 3);
    daemon.berth(&["rm", "-f", "cc", "c0", "c1", "c2"]).ok();
    let used = ["network", "inspect", "-f", "{{range .Status.IPAM.Subnets}}{{.IPsInUse}}{{end}}", "mine"];
    assert_eq!(daemon.berth(&used).ok(), "3", "the network's own, the broadcast's, and the gateway's");
}

/// Records, the container's links and the host's links are of one mind.
fn settled(daemon: &Daemon) {
    let names = daemon.berth(&["network", "ls", "-f", "type=custom", "--no-trunc", "-q"]).ok();
    let expected: BTreeSet<String> = names.lines().map(|id| format!("br-{}", &id[..12])).collect();
    eventually("bridges are those of networks", || {
        let found: BTreeSet<String> = links().into_iter().filter(|link| link.starts_with("br-")).collect();
        (found == expected).then_some(())
    });
    let on = daemon.inspect("cc", "{{range $name, $of := .NetworkSettings.Networks}}{{$name}} {{end}}");
    let inside = daemon.berth(&["exec", "cc", "ls", "/sys/class/net"]).ok();
    let ends = inside.lines().filter(|line| line.starts_with("eth")).count();
    assert_eq!(ends, on.split_whitespace().count(), "networks {on:?}, links {inside:?}");
    // A link left down, or without its address, would not be reached.
    for network in on.split_whitespace() {
        let address = address(daemon, "cc", network);
        assert!(!address.is_empty(), "{network}");
        let shown = daemon.berth(&["exec", "cc", "ip", "addr"]).ok();
        assert!(shown.contains(&address), "{network}: {shown}");
    }
}
