//! Compose with many containers at once, attached to them, and with a daemon that dies meanwhile.

use std::process::{Command, Stdio};

use crate::compose_versions::{Compose, Stack};
use crate::daemon::{Client, Daemon};
use crate::output::{eventually, run};

const MANY: (&str, &str) = ("compose.yaml", include_str!("compose/many.yaml"));
const ATTACHED: (&str, &str) = ("compose.yaml", include_str!("compose/attached.yaml"));

/// Names of the links in the test's network namespace that containers have, or bridges of their networks.
fn links() -> String {
    let all = run(Command::new("ip").args(["-o", "link"])).ok();
    all.lines().filter(|line| line.contains("br-") || line.contains("@if")).collect()
}

/// How many different ports of the host are published, by one family.
fn published(daemon: &Daemon) -> usize {
    let text = daemon.berth(&["ps", "--format", "{{.Ports}}"]).ok();
    let ports = text.split([',', '\n']).filter(|port| port.trim().starts_with("0.0.0.0:"));
    ports.map(str::trim).collect::<std::collections::HashSet<_>>().len()
}

fn many_come_and_go(version: Compose) {
    let plugin = version.fetch();
    let daemon = Daemon::start();
    let stack = Stack::new(&daemon, Client::Berth, version, plugin.as_deref(), &[MANY]);
    stack.ok(&["up", "-d", "--scale", "worker=20"]);
    assert_eq!(stack.containers(None).len(), 20);
    assert_eq!(published(&daemon), 20);
    // Each finds all, by their addresses in the network that comes first.
    for place in [&["exec", "-T", "--index", "1"], &["exec", "-T", "--index", "20"]] {
        let script = "nslookup worker | grep -c '^Address: [0-9]*[.]'";
        let command = ["worker", "sh", "-c", script];
        assert_eq!(stack.ok(&[&place[..], &command[..]].concat()), "20");
    }
    stack.ok(&["up", "-d", "--scale", "worker=2"]);
    assert_eq!(stack.containers(None).len(), 2);
    stack.ok(&["down", "-v"]);
    assert_eq!(stack.containers(None), [""; 0]);
    eventually("no link is left", || links().is_empty().then_some(()));
}

/// The end of a service ends all, and its code is that of the command.
fn stays_attached(version: Compose) {
    let plugin = version.fetch();
    let daemon = Daemon::start();
    let stack = Stack::new(&daemon, Client::Docker, version, plugin.as_deref(), &[ATTACHED]);
    // The second time with containers that are there.
    for _ in 0..2 {
        let output = stack.run(&["up", "--exit-code-from", "client"]);
        assert_eq!(output.code, 5, "{output:#?}");
        // What others wrote at the very end may not be shown any more: Compose stops reading with the first that ends.
        assert!(output.stdout.contains("served"), "{output:#?}");
        assert_eq!(daemon.inspect(&stack.container("server"), "{{.State.ExitCode}}"), "3");
    }
    for (service, word) in [("client", "served"), ("server", "serving")] {
        let log = stack.ok(&["logs", "--no-color", service]);
        assert_eq!(log.matches(word).count(), 2, "{log}");
    }
    stack.ok(&["down", "-v"]);
}

/// The daemon is killed while Compose makes a stack; with the next daemon it is completed, or goes without a trace.
fn a_daemon_dies_meanwhile(version: Compose) {
    let plugin = version.fetch();
    let mut daemon = Daemon::start();
    for (round, enough) in [1, 4, 8].into_iter().enumerate() {
        {
            let stack = Stack::new(&daemon, Client::Berth, version, plugin.as_deref(), &[MANY]);
            let mut command = stack.command(&["up", "-d", "--scale", "worker=10"]);
            let mut up =
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            eventually("some are made", || (stack.containers(None).len() >= enough).then_some(()));
            daemon.kill();
            up.wait().unwrap();
        }
        daemon.launch();
        let stack = Stack::new(&daemon, Client::Berth, version, plugin.as_deref(), &[MANY]);
        if round != 1 {
            stack.ok(&["up", "-d", "--scale", "worker=10"]);
            assert_eq!(stack.containers(None).len(), 10);
            assert_eq!(published(&daemon), 10);
        }
        stack.ok(&["down", "-v"]);
        assert_eq!(stack.containers(None), [""; 0]);
        assert_eq!(daemon.berth(&["volume", "ls", "-q"]).ok(), "");
        assert_eq!(daemon.berth(&["network", "ls", "-q", "--filter", "type=custom"]).ok(), "");
        eventually("no link is left", || links().is_empty().then_some(()));
    }
}

/// Makes one test for each version of Compose.
macro_rules! with_all_versions {
    ($($name:ident: $check:ident;)*) => {$(
        mod $name {
            use super::*;
            #[test]
            fn version_1() { $check(Compose::One); }
            #[test]
            fn version_2() { $check(Compose::Two); }
            #[test]
            fn newest() { $check(Compose::Newest); }
        }
    )*};
}

with_all_versions! {
    twenty_containers_come_and_go: many_come_and_go;
    up_stays_attached: stays_attached;
    a_stack_outlives_a_daemon_that_dies_early: a_daemon_dies_meanwhile;
}
