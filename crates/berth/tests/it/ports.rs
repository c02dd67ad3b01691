//! Published ports: in every form, with real packets of both families, by TCP and UDP, from this host and from a second one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::daemon::{Client, Daemon};
use crate::files;
use crate::output::{Output, eventually, run};

/// Answers each connection with what it says, until it says no more.
const ECHO: [&str; 7] = ["busybox", "nc", "-ll", "-p", "80", "-e", "cat"];
/// Answers each connection with the connections that are there.
const WHO: [&str; 9] = ["busybox", "nc", "-ll", "-p", "80", "-e", "sh", "-c", "cat >/dev/null; netstat -tn"];

const PATIENCE: Duration = Duration::from_secs(5);

fn start(daemon: &Daemon, client: Client, flags: &[&str], command: &[&str]) {
    daemon.with(client, &[&["run", "-d"], flags, command].concat()).ok();
}

/// What a server says to `hello`, which is all that it gets.
fn talk(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"hello").ok()?;
    stream.shutdown(Shutdown::Write).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

fn echoes(address: &str) {
    assert_eq!(eventually(&format!("{address} answers"), || talk(address)), "hello");
}

fn listens(daemon: &Daemon, client: Client, name: &str) -> String {
    daemon.with(client, &["ps", "--filter", &format!("name={name}"), "--format", "{{.Ports}}"]).ok()
}

fn ports(daemon: &Daemon, name: &str) -> String {
    daemon.inspect(name, "{{json .NetworkSettings.Ports}}")
}

with_both_clients_and_backends! {
    fn all_addresses_of_both_families_are_the_default(daemon: &Daemon, client: Client) {
        start(daemon, client, &["--name", "cc", "-p", "8080:80"], &ECHO);
        let six = if client == Client::Docker { ":::8080" } else { "[::]:8080" };
        let shown = listens(daemon, client, "cc");
        assert!(shown == format!("0.0.0.0:8080->80/tcp, {six}->80/tcp") || shown == "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp", "{shown}");
        assert_eq!(ports(daemon, "cc"), r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}]}"#);
        assert_eq!(daemon.inspect("cc", "{{json .HostConfig.PortBindings}}"), r#"{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}"#);
        let told = daemon.with(client, &["port", "cc"]).ok();
        assert!(told.contains("80/tcp -> 0.0.0.0:8080") && (told.contains("-> [::]:8080") || told.contains("-> :::8080")), "{told}");
        assert!(daemon.with(client, &["port", "cc", "80"]).ok().starts_with("0.0.0.0:8080"));
        daemon.with(client, &["port", "cc", "81"]).fails(1, "published");
        let gateway = daemon.inspect("cc", "{{.NetworkSettings.Networks.bridge.Gateway}}");
        // ::1 is carried, with an end of its own each way.
        for address in ["127.0.0.1:8080", "127.0.0.9:8080", &format!("{gateway}:8080"), "[::1]:8080"] {
            echoes(address);
        }
        daemon.with(client, &["rm", "-f", "cc"]).ok();
        assert!(TcpListener::bind("[::]:8080").is_ok() && TcpListener::bind("0.0.0.0:8080").is_ok());
    }

    fn every_form_is_understood(daemon: &Daemon, client: Client) {
        let flags = ["--name", "cc", "-p", "127.0.0.1:8001:80", "-p", "[::1]:8002:80", "-p", "127.0.0.1::81", "-p", "127.0.0.1:9000-9002:9000-9002",
            "-p", "127.0.0.1:8003:53/udp", "-p", "127.0.0.1:7000-7009:70", "-p", "0.0.0.0:8004:80/sctp"];
        start(daemon, client, &flags, &ECHO);
        echoes("127.0.0.1:8001");
        echoes("[::1]:8002");
        let shown = ports(daemon, "cc");
        for expected in [r#""80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8001"},{"HostIp":"::1","HostPort":"8002"}]"#,
            r#""9000/tcp":[{"HostIp":"127.0.0.1","HostPort":"9000"}]"#, r#""9002/tcp":[{"HostIp":"127.0.0.1","HostPort":"9002"}]"#,
            r#""53/udp":[{"HostIp":"127.0.0.1","HostPort":"8003"}]"#, r#""70/tcp":[{"HostIp":"127.0.0.1","HostPort":"7000"}]"#,
            r#""80/sctp":[{"HostIp":"0.0.0.0","HostPort":"8004"}]"#] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        let list = listens(daemon, client, "cc");
        assert!(list.contains("127.0.0.1:9000-9002->9000-9002/tcp"), "{list}");
        let chosen = daemon.with(client, &["port", "cc", "81/tcp"]).ok();
        let port: u16 = chosen.trim_start_matches("127.0.0.1:").parse().unwrap();
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let range: Vec<u16> = range.split_whitespace().map(|word| word.parse().unwrap()).collect();
        assert!((range[0]..=range[1]).contains(&port), "{port}");
        // The next of a range, until there is none.
        start(daemon, client, &["--name", "next", "-p", "127.0.0.1:7000-7001:70"], &["busybox", "sleep", "1000"]);
        assert_eq!(daemon.with(client, &["port", "next", "70"]).ok(), "127.0.0.1:7001");
        let none = daemon.with(client, &["run", "-d", "-p", "127.0.0.1:7000-7001:70", "busybox", "true"]);
        none.fails(125, "failed: port is already allocated");
    }

    fn exposed_ports_are_published_all_at_once(daemon: &Daemon, client: Client) {
        start(daemon, client, &["--name", "cc", "-P", "--expose", "7000-7002", "--expose", "53/udp"], &["busybox", "sleep", "1000"]);
        let lines = daemon.with(client, &["port", "cc"]).ok();
        for port in ["7000/tcp", "7001/tcp", "7002/tcp", "53/udp"] {
            let both: Vec<&str> = lines.lines().filter(|line| line.starts_with(&format!("{port} -> "))).collect();
            assert_eq!(both.len(), 2, "{lines}");
            let number = |line: &str| line.rsplit(':').next().unwrap().to_owned();
            assert_eq!(number(both[0]), number(both[1]), "the same for both families");
        }
    }

    fn a_conflict_is_told_before_anything_starts(daemon: &Daemon, client: Client) {
        start(daemon, client, &["--name", "cc", "-p", "8080:80"], &ECHO);
        for (binding, address) in [("8080:80", "0.0.0.0"), ("127.0.0.1:8080:80", "127.0.0.1"), ("[::1]:8080:80", "::1")] {
            let taken = daemon.with(client, &["run", "--name", "second", "-p", binding, "busybox", "touch", "/started"]);
            taken.fails(125, &format!("Bind for {address}:8080 failed: port is already allocated"));
            assert_eq!(daemon.inspect("second", "{{.State.Status}}"), "created");
            daemon.with(client, &["rm", "second"]).ok();
        }
        let _mine = TcpListener::bind("127.0.0.1:8081").unwrap();
        let _datagrams = UdpSocket::bind("[::1]:8082").unwrap();
        daemon.with(client, &["run", "--rm", "-p", "8081:80", "busybox", "true"]).fails(125, "failed to bind host port 0.0.0.0:8081/tcp: address already in use");
        daemon.with(client, &["run", "--rm", "-p", "8082:80/udp", "busybox", "true"]).fails(125, "failed to bind host port [::]:8082/udp: address already in use");
        daemon.with(client, &["run", "--rm", "-p", "192.0.2.7:80:80", "busybox", "true"]).fails(125, "cannot assign requested address");
        let twice = daemon.with(client, &["run", "--rm", "-p", "8083:80", "-p", "8083:81", "busybox", "true"]);
        twice.fails(125, "Bind for 0.0.0.0:8083 failed: port is already allocated");
        // Whatever failed has left nothing.
        start(daemon, client, &["-p", "8083:80"], &ECHO);
        echoes("[::1]:8083");
    }

    fn datagrams_go_both_ways_and_follow_their_port(daemon: &Daemon, client: Client) {
        let [four, six] = datagram_clients();
        // Asked before there is anyone: that must not be remembered.
        four.send_to(b"?", "127.0.0.1:5353").unwrap();
        for word in ["one", "two"] {
            start(daemon, client, &["--name", word, "-p", "5353:53/udp"], &["busybox", "sleep", "1000"]);
            let server = datagram_server(daemon, word);
            says(&four, "127.0.0.1:5353", word);
            says(&six, "[::1]:5353", word);
            server.join().unwrap();
            daemon.with(client, &["rm", "-f", word]).ok();
        }
    }
}

/// One of each family.
pub fn datagram_clients() -> [UdpSocket; 2] {
    ["127.0.0.1:0", "[::1]:0"].map(|address| {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    })
}

/// Asks by datagrams until the answer is a word, which comes from the address that was asked.
pub fn says(socket: &UdpSocket, address: &str, word: &str) {
    eventually(&format!("{address} says {word}"), || {
        socket.send_to(b"?", address).ok()?;
        let mut buffer = [0; 64];
        let (length, from) = socket.recv_from(&mut buffer).ok()?;
        assert_eq!(from.to_string(), address);
        (buffer[..length].trim_ascii() == word.as_bytes()).then_some(())
    });
}

/// Answers datagrams at port 53 of a container with its name, until two clients have asked.
pub fn datagram_server(daemon: &Daemon, name: &str) -> std::thread::JoinHandle<()> {
    let namespace = std::fs::File::open(format!("/proc/{}/ns/net", daemon.init_pid(name))).unwrap();
    let bound = berth_sys::netns::within(namespace.as_fd(), || UdpSocket::bind("[::]:53"));
    let (socket, name) = (bound.unwrap(), name.to_owned());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    std::thread::spawn(move || {
        let mut clients = std::collections::BTreeSet::new();
        while clients.len() < 2 {
            let (_, from) = socket.recv_from(&mut [0; 64]).expect("two clients");
            socket.send_to(name.as_bytes(), from).unwrap();
            clients.insert(from);
        }
    })
}

/// A second host, joined to this one by a veth pair: 198.51.100.2 and fd99::2, where this one is .1 and ::1.
pub struct Neighbour(Child);

impl Neighbour {
    /// Joins it to this host.
    pub fn new() -> Neighbour {
        let child =
            Command::new("unshare").args(["-n", "sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap();
        let neighbour = Neighbour(child);
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        let ours = namespace("thread-self");
        eventually("it has left", || (namespace(&neighbour.0.id().to_string()) != ours).then_some(()));
        let pid = neighbour.0.id().to_string();
        let ip = |words: &str| run(Command::new("ip").args(words.split(' '))).ok();
        ip(&format!("link add outside type veth peer name eth0 netns {pid}"));
        for (address, family) in [("198.51.100.1/24", "-4"), ("fd99::1/64", "-6")] {
            let flags: &[&str] = if family == "-6" { &["nodad"] } else { &[] };
            run(Command::new("ip").args([family, "addr", "add", address, "dev", "outside"]).args(flags)).ok();
        }
        ip("link set outside up");
        neighbour.ok(&["ip", "link", "set", "lo", "up"]);
        neighbour.ok(&["ip", "addr", "add", "198.51.100.2/24", "dev", "eth0"]);
        neighbour.ok(&["ip", "-6", "addr", "add", "fd99::2/64", "dev", "eth0", "nodad"]);
        neighbour.ok(&["ip", "link", "set", "eth0", "up"]);
        neighbour.ok(&["ip", "route", "add", "default", "via", "198.51.100.1"]);
        neighbour.ok(&["ip", "-6", "route", "add", "default", "via", "fd99::1"]);
        neighbour
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-n", "-t", &self.0.id().to_string(), "--"]).args(words);
        command
    }

    fn ok(&self, words: &[&str]) -> String {
        run(&mut self.command(words)).ok()
    }

    /// Runs a script there.
    pub fn run(&self, script: &str) -> Output {
        run(&mut self.command(&["sh", "-c", script]))
    }

    /// A listening socket of its own.
    pub fn listener(&self, address: &'static str) -> TcpListener {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        berth_sys::netns::within(namespace.as_fd(), move || TcpListener::bind(address)).unwrap()
    }

    /// A socket of its own for datagrams.
    pub fn datagrams(&self, address: &'static str) -> UdpSocket {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        let socket = berth_sys::netns::within(namespace.as_fd(), move || UdpSocket::bind(address)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    }

    /// What a server says, asked from here; nothing if it is not reached.
    pub fn ask(&self, address: &str, port: &str) -> String {
        let script = "import socket,sys\ntry:\n  s=socket.create_connection((sys.argv[1],int(sys.argv[2])),2);s.sendall(b'hello');\
                      s.shutdown(1)\n  d=b''\n  while 1:\n    b=s.recv(9999)\n    if not b: break\n    d+=b\n  print(d.decode())\nexcept OSError: pass";
        self.ok(&["python3", "-c", script, address, port])
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

with_both_backends! {
    fn a_neighbour_reaches_what_is_published_and_nothing_else(daemon: &mut Daemon) {
        let neighbour = Neighbour::new();
        daemon.berth(&["network", "create", "--ipv6", "mine"]).ok();
        start(
            daemon,
            Client::Berth,
            &[
                "--name",
                "cc",
                "--network",
                "mine",
                "-p",
                "8080:80",
                "-p",
                "127.0.0.1:8081:80",
                "-p",
                "[::1]:8082:80",
            ],
            &WHO,
        );
        start(daemon, Client::Berth, &["--name", "four", "-p", "8090:80"], &ECHO);
        let field =
            |field: &str| daemon.inspect("cc", &format!("{{{{.NetworkSettings.Networks.mine.{field}}}}}"));
        // Until the servers listen, and once more after each answer.
        let answers = |address: &str, port: &str, words: &str| {
            eventually(words, || neighbour.ask(address, port).contains(words).then_some(()));
        };
        // The client's address is seen as it is.
        answers("198.51.100.1", "8080", "198.51.100.2:");
        answers("fd99::1", "8080", "fd99::2");
        answers("198.51.100.1", "8090", "hello");
        // IPv6 to a container that has none.
        answers("fd99::1", "8090", "hello");
        // On loopback only, by whatever address.
        for (address, port) in [("198.51.100.1", "8081"), ("fd99::1", "8082")] {
            assert_eq!(neighbour.ask(address, port), "");
        }
        run(Command::new("sysctl").args(["-qw", "net.ipv4.conf.outside.route_localnet=1"])).ok();
        neighbour.ok(&["ip", "addr", "del", "127.0.0.1/8", "dev", "lo"]);
        neighbour.ok(&["ip", "route", "add", "127.0.0.1", "via", "198.51.100.1", "src", "198.51.100.2"]);
        assert_eq!(neighbour.ask("127.0.0.1", "8081"), "");
        echoes_who("127.0.0.1:8081");
        echoes_who("[::1]:8082");
        // At the container's own addresses: neither what is published nor what is not.
        for address in [field("IPAddress"), field("GlobalIPv6Address")] {
            for port in ["80", "8080", "81"] {
                assert_eq!(neighbour.ask(&address, port), "", "{address} {port}");
            }
        }
        // Nor from another network, but for what is published.
        let from = |address: &str, port: &str| {
            daemon.berth(&["exec", "four", "sh", "-c", &format!("echo | nc -w 2 {address} {port}")]).stdout
        };
        assert_eq!(from(&field("IPAddress"), "80"), "");
        eventually("the gateway", || from(&field("Gateway"), "8080").contains("Foreign").then_some(()));
    }
}

fn echoes_who(address: &str) {
    eventually(&format!("{address} answers"), || talk(address)?.contains("Foreign").then_some(()));
}

with_both_backends! {
    fn containers_reach_their_own_and_each_others_ports_by_the_hosts_address(daemon: &mut Daemon) {
        daemon.berth(&["network", "create", "--ipv6", "mine"]).ok();
        start(daemon, Client::Berth, &["--name", "one", "--network", "mine", "-p", "8080:80"], &ECHO);
        start(daemon, Client::Berth, &["--name", "two", "--network", "mine"], &["busybox", "sleep", "1000"]);
        echoes("127.0.0.1:8080");
        for field in ["Gateway", "IPv6Gateway"] {
            let address = daemon.inspect("one", &format!("{{{{.NetworkSettings.Networks.mine.{field}}}}}"));
            for name in ["one", "two"] {
                let ask = format!("echo hello | nc -w 3 {address} 8080");
                eventually(&format!("{name} reaches {address}"), || {
                    (daemon.berth(&["exec", name, "sh", "-c", &ask]).stdout.trim() == "hello").then_some(())
                });
            }
        }
    }
}

with_both_backends! {
    fn transfers_go_on_while_the_daemon_is_killed(daemon: &mut Daemon) {
        start(daemon, Client::Berth, &["--name", "cc", "-p", "8080:80"], &ECHO);
        let addresses = ["127.0.0.1:8080", "[::1]:8080"];
        addresses.iter().for_each(|address| echoes(address));
        let mut streams: Vec<TcpStream> =
            addresses.iter().map(|address| TcpStream::connect(address).unwrap()).collect();
        let exchange = |streams: &mut Vec<TcpStream>| {
            for stream in streams.iter_mut() {
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                // More than sockets and the one between them hold.
                let block = vec![7u8; 8 << 20];
                let mut writer = stream.try_clone().unwrap();
                let sent = block.clone();
                let writes = std::thread::spawn(move || writer.write_all(&sent).unwrap());
                let mut got = vec![0; block.len()];
                stream.read_exact(&mut got).unwrap();
                writes.join().unwrap();
                assert_eq!(got, block);
            }
        };
        exchange(&mut streams);
        daemon.kill();
        exchange(&mut streams);
        // Nobody else can take the port meanwhile.
        assert!(TcpListener::bind("0.0.0.0:8080").is_err() && TcpListener::bind("[::]:8080").is_err());
        addresses.iter().for_each(|address| echoes(address));
        daemon.launch();
        exchange(&mut streams);
        addresses.iter().for_each(|address| echoes(address));
        daemon
            .berth(&["run", "--rm", "-p", "8080:80", "busybox", "true"])
            .fails(125, "port is already allocated");
        daemon.berth(&["rm", "-f", "cc"]).ok();
        daemon.berth(&["run", "--rm", "-p", "8080:80", "busybox", "true"]).ok();
    }
}

with_both_backends! {
    fn ports_are_published_and_taken_back_while_it_runs(daemon: &mut Daemon) {
        start(daemon, Client::Berth, &["--name", "cc", "-p", "8080:80"], &ECHO);
        echoes("127.0.0.1:8080");
        let mut open = TcpStream::connect("127.0.0.1:8080").unwrap();
        assert_eq!(
            daemon.berth(&["update", "--publish", "8081:80", "--publish", "127.0.0.1:8082:80", "cc"]).ok(),
            "cc"
        );
        for address in ["127.0.0.1:8080", "127.0.0.1:8081", "[::1]:8081", "127.0.0.1:8082"] {
            echoes(address);
        }
        // What was there before goes on.
        open.write_all(b"still").unwrap();
        let mut got = [0; 5];
        open.read_exact(&mut got).unwrap();
        daemon.kill();
        daemon.launch();
        echoes("127.0.0.1:8081");
        daemon.berth(&["update", "--unpublish", "8081:80", "--unpublish", "127.0.0.1:8082:80", "cc"]).ok();
        assert!(
            talk("127.0.0.1:8081").is_none() && talk("[::1]:8081").is_none() && talk("127.0.0.1:8082").is_none()
        );
        echoes("[::1]:8080");
        let _mine = TcpListener::bind("0.0.0.0:8081").unwrap();
        daemon.berth(&["update", "--publish", "8081:80", "cc"]).fails(1, "address already in use");
        echoes("127.0.0.1:8080");
        daemon.berth(&["update", "--unpublish", "99", "cc"]).fails(1, "port 99/tcp is not published");
        daemon.berth(&["update", "--unpublish", "80", "--publish", "8083:80", "cc"]).ok();
        assert_eq!(daemon.berth(&["port", "cc"]).ok(), "80/tcp -> 0.0.0.0:8083\n80/tcp -> [::]:8083");
        // And so it is at the next start.
        daemon.berth(&["restart", "-t", "0", "cc"]).ok();
        echoes("127.0.0.1:8083");
        assert_eq!(
            daemon.inspect("cc", "{{json .HostConfig.PortBindings}}"),
            r#"{"80/tcp":[{"HostIp":"","HostPort":"8083"}]}"#
        );
    }
}

#[test]
fn networks_and_the_daemon_say_where_ports_are_published() {
    let daemon = Daemon::empty(&["--ip", "127.0.0.1", "--userland-proxy=false"]);
    daemon.berth(&["load", "-q", "-i", crate::files::busybox_archive().to_str().unwrap()]).ok();
    start(&daemon, Client::Berth, &["--name", "cc", "-p", "8080:80"], &ECHO);
    assert_eq!(daemon.berth(&["port", "cc"]).ok(), "80/tcp -> 127.0.0.1:8080");
    daemon
        .berth(&["network", "create", "-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.5", "mine"])
        .ok();
    start(&daemon, Client::Berth, &["--name", "two", "--network", "mine", "-p", "8080:80"], &ECHO);
    assert_eq!(daemon.berth(&["port", "two"]).ok(), "80/tcp -> 127.0.0.5:8080");
    echoes("127.0.0.1:8080");
    echoes("127.0.0.5:8080");
}

with_both_backends! {
    fn routed_networks_open_ports_at_the_containers_own_address(daemon: &mut Daemon) {
        let neighbour = Neighbour::new();
        let create = ["network", "create", "-o", "com.docker.network.bridge.gateway_mode_ipv4=routed", "mine"];
        daemon.berth(&create).ok();
        start(daemon, Client::Berth, &["--name", "cc", "--network", "mine", "-p", "8080:80"], &ECHO);
        let address = daemon.inspect("cc", "{{.NetworkSettings.Networks.mine.IPAddress}}");
        eventually("it serves", || neighbour.ask(&address, "80").contains("hello").then_some(()));
        assert_eq!(neighbour.ask("198.51.100.1", "8080"), "");
        let shown = ports(daemon, "cc");
        assert!(shown.contains(r#"{"HostIp":"0.0.0.0","HostPort":""}"#), "{shown}");
        daemon.berth(&["update", "--unpublish", "80", "cc"]).ok();
        assert_eq!(neighbour.ask(&address, "80"), "");
    }
}

#[test]
fn the_daemons_own_port_is_allocated() {
    let daemon = Daemon::empty(&["-H", "tcp://127.0.0.1:23758", "--tls=false"]);
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    for (binding, address) in [("23758:80", "0.0.0.0"), ("127.0.0.1:23758:80", "127.0.0.1")] {
        let told = format!("Bind for {address}:23758 failed: port is already allocated");
        daemon.berth(&["run", "--rm", "-p", binding, "busybox", "true"]).fails(125, &told);
    }
    daemon.berth(&["run", "--rm", "-p", "23758:80/udp", "busybox", "true"]).ok();
    daemon.berth(&["run", "--rm", "-p", "[::1]:23758:80", "busybox", "true"]).ok();
}
