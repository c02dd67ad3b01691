//! A real Docker on the same host, Debian's: each carries its own containers, whoever was there first.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::daemon::Daemon;
use crate::files;
use crate::network_settings::Neighbours;
use crate::output::{Output, eventually, eventually_within, run};

/// Docker starts a daemon of its own first.
const PATIENCE: Duration = Duration::from_secs(60);
const SERVE: &str = "while :; do echo $0 | nc -l -p 80; done";

/// Docker's daemon in the network namespace of the test.
pub struct Docker {
    root: PathBuf,
    daemon: Child,
}

impl Docker {
    /// Starts it with the image `busybox`; its files are below the test's folder.
    pub fn start(beside: &Daemon) -> Docker {
        let root = beside.root.path().join("docker");
        std::fs::create_dir(&root).unwrap();
        let below = |name: &str| root.join(name).into_os_string().into_string().unwrap();
        // What it has elsewhere, it has in a mount namespace of its own.
        let inside = "mount -t tmpfs tmpfs /run && exec dockerd \"$@\"";
        let log = std::fs::File::create(root.join("log")).unwrap();
        let daemon = Command::new("unshare")
            .args(["--mount", "sh", "-c", inside, "dockerd", "--storage-driver", "vfs"])
            .args(["--data-root", &below("data"), "--exec-root", &below("exec"), "--pidfile", &below("pid")])
            .args(["-H", &format!("unix://{}", below("socket"))])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let docker = Docker { root, daemon };
        eventually_within(PATIENCE, "Docker answers", || {
            (docker.client(&["version"]).code == 0).then_some(())
        });
        docker.client(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
        docker
    }

    /// What its client says.
    pub fn client(&self, arguments: &[&str]) -> Output {
        let host = format!("unix://{}", self.root.join("socket").display());
        run(Command::new("docker").args(["-H", &host]).args(arguments))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let containers = self.client(&["ps", "-aq"]).stdout;
        let all: Vec<&str> = containers.split_whitespace().collect();
        if !all.is_empty() {
            self.client(&[&["rm", "-f"], &all[..]].concat());
        }
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.daemon.wait();
    }
}

/// A server that says its own name, with its port 80 published.
fn server<'a>(name: &'a str, publish: &'a str) -> [&'a str; 11] {
    ["run", "-d", "--name", name, "-p", publish, "busybox", "sh", "-c", SERVE, name]
}

fn berth(daemon: &Daemon) {
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    daemon.berth(&server("berths", "8001:80")).ok();
}

fn docker(beside: &Daemon) -> Docker {
    let docker = Docker::start(beside);
    docker.client(&server("dockers", "8002:80")).ok();
    docker
}

fn check(daemon: &Daemon, docker: &Docker, neighbours: &Neighbours) {
    let ask = |port: &str| format!("echo | timeout 3 busybox nc -w 2 10.201.0.1 {port}");
    let told = |output: Output, word: &str| (output.stdout.trim() == word).then_some(());
    for (port, word) in [("8001", "berths"), ("8002", "dockers")] {
        eventually(&format!("a neighbour is told {word}"), || told(neighbours.run(0, &ask(port)), word));
    }
    let within = |port: &str| format!("echo | timeout 3 nc -w 2 10.201.0.1 {port}");
    eventually("Docker's reaches what Berth publishes", || {
        told(docker.client(&["exec", "dockers", "sh", "-c", &within("8001")]), "berths")
    });
    eventually("Berth's reaches what Docker publishes", || {
        told(daemon.berth(&["exec", "berths", "sh", "-c", &within("8002")]), "dockers")
    });
    let ping = ["ping", "-c", "1", "-W", "2", "10.202.0.2"];
    eventually("Docker's reaches the world", || {
        (docker.client(&[&["exec", "dockers"], &ping[..]].concat()).code == 0).then_some(())
    });
    eventually("Berth's reaches the world", || {
        (daemon.berth(&[&["exec", "berths"], &ping[..]].concat()).code == 0).then_some(())
    });
    let routed = neighbours.run(0, "busybox ping -c 2 -W 1 10.202.0.2");
    assert_ne!(
        routed.code,
        0,
        "the host became a router: {}",
        run(Command::new("nft").args(["list", "ruleset"])).stdout
    );
}

/// A host that does not forward yet: whoever is first turns it on.
fn host(backend: &str) -> Daemon {
    let mut daemon = Daemon::empty(&["--firewall-backend", backend]);
    daemon.stop();
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{setting}"), "0").unwrap();
    }
    daemon
}

fn berth_first(backend: &str) {
    let mut daemon = host(backend);
    let neighbours = Neighbours::new();
    daemon.launch();
    berth(&daemon);
    let docker = docker(&daemon);
    check(&daemon, &docker, &neighbours);
    daemon.kill();
    daemon.launch();
    check(&daemon, &docker, &neighbours);
}

fn docker_first(backend: &str) {
    let mut daemon = host(backend);
    let neighbours = Neighbours::new();
    let docker = docker(&daemon);
    daemon.launch();
    berth(&daemon);
    check(&daemon, &docker, &neighbours);
}

#[test]
fn berth_was_there_first() {
    berth_first("nftables");
}

#[test]
fn berth_was_there_first_with_dockers_chains() {
    berth_first("iptables");
}

#[test]
fn docker_was_there_first() {
    docker_first("nftables");
}

#[test]
fn docker_was_there_first_with_the_same_chains() {
    docker_first("iptables");
}
