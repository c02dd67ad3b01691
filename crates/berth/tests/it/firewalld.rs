//! A host with firewalld, on a message bus of the test's own.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::daemon::Daemon;
use crate::firewall::ask;
use crate::network_settings::Neighbours;
use crate::output::{Output, eventually, eventually_within, run};

const BUS: &str = "DBUS_SYSTEM_BUS_ADDRESS";
/// Both are programs that take their time to start.
const PATIENCE: Duration = Duration::from_secs(60);
const SERVE: &str = "while :; do echo served | nc -l -p 80; done";

/// The programs, which end with this value.
struct Firewalld {
    address: String,
    bus: Child,
    daemon: Child,
}

impl Firewalld {
    fn start(folder: &Path) -> Firewalld {
        let path = |name: &str| folder.join(name).into_os_string().into_string().unwrap();
        let address = format!("unix:path={}", path("bus"));
        let configuration = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n\
             <busconfig><listen>{address}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/>\
             </policy></busconfig>"
        );
        std::fs::write(folder.join("bus.conf"), configuration).unwrap();
        std::fs::create_dir(folder.join("system")).unwrap();
        let spawn = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).env(BUS, &address);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let bus = spawn(
            "dbus-daemon",
            &["--nofork", "--nopidfile", "--nosyslog", &format!("--config-file={}", path("bus.conf"))],
        );
        eventually_within(PATIENCE, "a bus", || folder.join("bus").exists().then_some(()));
        let (own, log) = (path("system"), path("firewalld.log"));
        let daemon = spawn(
            "firewalld",
            &["--nofork", "--nopid", "--system-config", &own, "--log-target", "file", "--log-file", &log],
        );
        let firewalld = Firewalld { address, bus, daemon };
        eventually_within(PATIENCE, "firewalld runs", || {
            (firewalld.client(&["--state"]).code == 0).then_some(())
        });
        firewalld
    }

    fn client(&self, arguments: &[&str]) -> Output {
        // It would wait for ever for one that has not begun to answer.
        run(Command::new("timeout").args(["20", "firewall-cmd"]).args(arguments).env(BUS, &self.address))
    }
}

impl Drop for Firewalld {
    fn drop(&mut self) {
        for child in [&mut self.daemon, &mut self.bus] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a server of the host says.
const GREETING: &str = "the host\n";

/// Serves as long as the test goes on.
fn greet(address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let _ = connection.and_then(|mut connection| connection.write_all(GREETING.as_bytes()));
        }
    });
}

fn zone(firewalld: &Firewalld, link: &str) -> String {
    firewalld.client(&[&format!("--get-zone-of-interface={link}")]).stdout.trim().to_owned()
}

fn try_reloads(backend: &str) {
    let folder = tempfile::Builder::new().prefix("berth-it-").tempdir().unwrap();
    let address = format!("unix:path={}", folder.path().join("bus").display());
    let mut daemon = Daemon::start_with(BUS, &address);
    daemon.stop();
    daemon.set_arguments(&["--firewall-backend", backend]);
    let neighbours = Neighbours::new();
    let firewalld = Firewalld::start(folder.path());
    daemon.launch();
    daemon.berth(&["run", "-d", "--name", "cc", "-p", "8080:80", "busybox", "sh", "-c", SERVE]).ok();
    greet("0.0.0.0:7070");
    let gateway = daemon.inspect("cc", "{{.NetworkSettings.Networks.bridge.Gateway}}");
    let check = || {
        eventually("a neighbour is served", || {
            let told = neighbours.run(0, "echo | timeout 3 busybox nc -w 2 10.201.0.1 8080").stdout;
            (told.trim() == "served").then_some(())
        });
        eventually("this host is served", || ask("127.0.0.1:8080"));
        eventually("the way out", || {
            (daemon.berth(&["exec", "cc", "ping", "-c", "1", "-W", "2", "10.202.0.2"]).code == 0)
                .then_some(())
        });
        // What of the host's listens for containers, such as a proxy.
        eventually("the host", || {
            let connect = format!("timeout 3 nc -w 2 {gateway} 7070 < /dev/null");
            (daemon.berth(&["exec", "cc", "sh", "-c", &connect]).stdout == GREETING).then_some(())
        });
        eventually("a zone", || (zone(&firewalld, "berth0") == "trusted").then_some(()));
        let other = neighbours.run(0, "timeout 3 busybox nc -w 2 10.201.0.1 7070 < /dev/null");
        assert_ne!(other.stdout, GREETING, "firewalld judges the rest");
    };
    check();
    for _ in 0..2 {
        firewalld.client(&["--reload"]).ok();
        check();
    }
    // Networks come and go with their bridges; a zone that an administrator chose is kept.
    daemon.berth(&["network", "create", "-o", "com.docker.network.bridge.name=mine0", "mine"]).ok();
    eventually("a zone", || (zone(&firewalld, "mine0") == "trusted").then_some(()));
    firewalld.client(&["--zone=internal", "--change-interface=mine0"]).ok();
    daemon.berth(&["network", "create", "-o", "com.docker.network.bridge.name=other0", "other"]).ok();
    eventually("a zone", || (zone(&firewalld, "other0") == "trusted").then_some(()));
    assert_eq!(zone(&firewalld, "mine0"), "internal");
    daemon.berth(&["network", "rm", "mine", "other"]).ok();
    eventually("no zone", || (zone(&firewalld, "other0") != "trusted").then_some(()));
}

#[test]
fn containers_are_reached_and_reach_out_after_reloads() {
    try_reloads("nftables");
}

#[test]
fn containers_are_reached_and_reach_out_after_reloads_with_dockers_chains() {
    try_reloads("iptables");
}
