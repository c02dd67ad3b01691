//! Name servers of containers with real packets: each container and the host is a namespace of its own, and the net process
//! lives in the host's.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod dns;
#[path = "names/lives.rs"]
mod lives;
mod namespace;
#[path = "names/upstreams.rs"]
mod upstreams;

use std::ffi::OsString;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_network::names::{Client, Config, Member, Membership, Upstream};
use berth_network::net::NetClient;
use berth_sys::rtnetlink;
use dns::{A, AAAA, HTTPS, MX, PTR, TXT, ask};
use namespace::Namespace;

/// A host with its net process.
struct Host {
    namespace: Namespace,
    net: Arc<NetClient>,
    names: Client,
    _root: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let root = tempfile::tempdir().unwrap();
        let net = Arc::new(NetClient::new(root.path(), program()));
        let namespace = Namespace::new();
        namespace.run(|| rtnetlink::loopback_up().unwrap());
        Host { namespace, names: Client::new(net.clone()), net, _root: root }
    }

    /// Asks the net process for something; where it has to be started, it is started in the host's namespace.
    fn client<T: Send + 'static>(&self, work: impl FnOnce(&Client) -> T + Send + 'static) -> T {
        let names = self.names.clone();
        self.namespace.run(move || work(&names))
    }

    fn attach(&self, owner: &'static str, container: &Namespace, config: Config) {
        let fd = container.fd.try_clone().unwrap();
        self.client(move |names| names.attach(owner, fd.as_fd(), None, &config).unwrap());
    }

    fn configure(&self, owner: &'static str, config: Config) {
        self.client(move |names| names.configure(owner, &config).unwrap());
    }

    fn join(&self, network: &'static str, owner: &str, names: &[&str], addresses: &[&str]) {
        let names = names.iter().map(|name| name.to_string()).collect();
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let member = Member { owner: owner.into(), names, addresses };
        self.client(move |client| client.join(network, &format!("{network}-net"), &member).unwrap());
    }

    fn kill(&self) {
        let process = self.net.process().unwrap();
        rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL).unwrap();
        wait_for_end(&process);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.names.retain(&[]);
        self.net.stop_if_idle();
    }
}

fn wait_for_end(process: &OwnedFd) {
    let mut interest = [rustix::event::PollFd::new(process, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut interest, None).unwrap();
}

fn program() -> Vec<OsString> {
    let test = std::env::current_exe().unwrap();
    let examples = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples/net");
    vec![examples.into(), "__net".into()]
}

/// A container with its loopback up.
fn container() -> Namespace {
    let container = Namespace::new();
    container.run(|| rtnetlink::loopback_up().unwrap());
    container
}

fn networks(ids: &[&str]) -> Config {
    let networks = ids.iter().map(|id| Membership { network: id.to_string(), links: vec![] });
    Config { networks: networks.collect(), ..Config::default() }
}

fn forwarding(upstreams: &[&dns::Upstream]) -> Config {
    let upstreams = upstreams.iter().map(|u| Upstream { address: u.address, from_host: true }).collect();
    Config { upstreams, forward: true, ..networks(&["n1"]) }
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|address| address.parse().unwrap()).collect()
}

fn sorted(mut list: Vec<IpAddr>) -> Vec<IpAddr> {
    list.sort();
    list
}

fn echo(query: &[u8], _: bool) -> Vec<Vec<u8>> {
    vec![dns::address(query, [192, 0, 2, 1].into())]
}

fn silent(_: &[u8], _: bool) -> Vec<Vec<u8>> {
    vec![]
}

fn failing(query: &[u8], _: bool) -> Vec<Vec<u8>> {
    vec![dns::answer(query, 2, 0, &[])]
}

#[test]
fn containers_find_each_other_by_every_name() {
    let (host, one) = (Host::new(), Namespace::new());
    host.join("n1", "c1", &["Web", "0123456789ab", "shop"], &["10.5.0.2", "fd00::2"]);
    host.join("n1", "c2", &["db", "shop"], &["10.5.0.3"]);
    host.join("n2", "c3", &["hidden"], &["10.6.0.2"]);
    // The name server is there before the container has anything, as at its start.
    host.attach("c1", &one, networks(&["n1"]));
    one.run(|| rtnetlink::loopback_up().unwrap());

    for name in ["web", "WEB", "0123456789ab", "web.n1-net"] {
        let reply = ask(&one, name, A);
        assert_eq!((reply.code(), reply.addresses()), (0, ips(&["10.5.0.2"])), "{name}");
        assert_eq!((reply.name.as_str(), reply.id), (name, 0x4242), "as it was asked");
        assert_eq!(reply.flags & 0x8180, 0x8180);
    }
    assert_eq!(ask(&one, "web", AAAA).addresses(), ips(&["fd00::2"]));
    for (name, kind) in [("db", AAAA), ("db", MX), ("db", TXT), ("db", HTTPS)] {
        let reply = ask(&one, name, kind);
        assert_eq!(
            (reply.code(), reply.answers.len()),
            (0, 0),
            "{name} {kind}: there, but nothing of that type"
        );
    }
    let reply = ask(&one, "3.0.5.10.in-addr.arpa", PTR);
    assert_eq!(reply.answers, [(PTR, 600, b"\x02db\x06n1-net\x00".to_vec())]);
    for name in ["hidden", "hidden.n2-net", "nobody", "2.0.6.10.in-addr.arpa"] {
        assert_eq!(ask(&one, name, if name.contains("arpa") { PTR } else { A }).code(), 2, "{name}");
    }

    host.configure("c1", networks(&["n2", "n1"]));
    assert_eq!(ask(&one, "hidden", A).addresses(), ips(&["10.6.0.2"]));
    host.client(|names| names.leave("n2", "c3").unwrap());
    assert_eq!(ask(&one, "hidden", A).code(), 2);
    host.join("n1", "c2", &["renamed"], &["10.5.0.3"]);
    assert_eq!((ask(&one, "db", A).code(), ask(&one, "renamed", A).addresses()), (2, ips(&["10.5.0.3"])));
}

#[test]
fn a_service_is_answered_in_changing_order() {
    let (host, one) = (Host::new(), container());
    for n in 2..6 {
        host.join("n1", &format!("c{n}"), &[&format!("web{n}"), "web"], &[&format!("10.5.0.{n}")]);
    }
    host.attach("c2", &one, networks(&["n1"]));
    let mut first = [0; 6];
    for _ in 0..200 {
        let addresses = ask(&one, "web", A).addresses();
        let IpAddr::V4(address) = addresses[0] else { panic!() };
        first[usize::from(address.octets()[3])] += 1;
        assert_eq!(sorted(addresses), ips(&["10.5.0.2", "10.5.0.3", "10.5.0.4", "10.5.0.5"]));
    }
    assert!(first[2..].iter().all(|count| *count > 20), "{first:?}");
}

#[test]
fn links_are_names_of_one_container_alone() {
    let (host, one, two) = (Host::new(), container(), container());
    host.join("n1", "c1", &["db"], &["10.5.0.2"]);
    let links = vec![("database".to_string(), "db".to_string())];
    let linked = Config { networks: vec![Membership { network: "n1".into(), links }], ..Config::default() };
    host.attach("c2", &one, linked);
    host.attach("c3", &two, networks(&["n1"]));
    assert_eq!(ask(&one, "DataBase", A).addresses(), ips(&["10.5.0.2"]));
    assert_eq!(ask(&two, "database", A).code(), 2);
}

#[test]
fn the_container_can_have_port_53_itself() {
    let (host, one) = (Host::new(), container());
    host.join("n1", "c1", &["web"], &["10.5.0.2"]);
    host.attach("c1", &one, networks(&["n1"]));
    let own = one.run(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    assert_eq!(ask(&one, "web", A).addresses(), ips(&["10.5.0.2"]));
    let listing = one.run(|| Command::new("nft").args(["list", "ruleset"]).output().unwrap().stdout);
    let listing = String::from_utf8(listing).unwrap();
    for protocol in ["udp", "tcp"] {
        let rule = format!("ip daddr 127.0.0.11 {protocol} dport 53 dnat ip to 127.0.0.11:");
        assert!(listing.contains(&rule), "no {rule:?} in:\n{listing}");
    }
    drop(own);
}

#[test]
fn queries_come_by_tcp_one_after_another() {
    let (host, one) = (Host::new(), container());
    let upstream = dns::Upstream::start(&host.namespace, echo);
    host.join("n1", "c1", &["web"], &["10.5.0.2"]);
    host.attach("c1", &one, forwarding(&[&upstream]));
    one.run(|| {
        let mut stream = dns::connection();
        for id in 1..=20 {
            let name = if id % 2 == 0 { "web" } else { "out.example" };
            dns::write_message(&mut stream, &dns::query(id, name, A, None)).unwrap();
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let replies = (1..=20).map(|_| dns::Reply::read(&dns::read_message(&mut stream).unwrap()));
        let mut ids: Vec<u16> =
            replies.inspect(|reply| assert_eq!(reply.answers.len(), 1)).map(|r| r.id).collect();
        ids.sort();
        assert_eq!(ids, (1..=20).collect::<Vec<_>>());
        assert!(dns::read_message(&mut stream).is_err(), "closed once all is answered");
    });
}

#[test]
fn what_no_query_is_harms_nobody() {
    let (host, one) = (Host::new(), container());
    host.join("n1", "c1", &["web"], &["10.5.0.2"]);
    host.attach("c1", &one, networks(&["n1"]));
    one.run(|| {
        let socket = dns::socket();
        for junk in [&[][..], &[1, 2, 3], &[0xff; 64], &[0; 11]] {
            socket.send(junk).unwrap();
        }
        let mut update = dns::query(7, "web", A, None);
        update[2] = 5 << 3;
        socket.send(&update).unwrap();
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!((length, buffer[3] & 15), (12, 4), "not implemented");
        socket.send(&dns::query(8, "web", A, None)).unwrap();
        assert_eq!(dns::receive(&socket).addresses(), ips(&["10.5.0.2"]));
    });
}

#[test]
fn musl_and_glibc_ask_for_both_families_over_one_socket() {
    let (host, one) = (Host::new(), container());
    host.join("n1", "c1", &["web"], &["10.5.0.2"]);
    host.attach("c1", &one, networks(&["n1"]));
    for edns in [None, Some(1232)] {
        one.run(move || {
            let socket = dns::socket();
            socket.send(&dns::query(1, "web", A, edns)).unwrap();
            socket.send(&dns::query(2, "web", AAAA, edns)).unwrap();
            let (four, six) = (dns::receive(&socket), dns::receive(&socket));
            assert_eq!((four.id, four.answers.len(), six.id, six.answers.len()), (1, 1, 2, 0));
            assert_eq!((six.code(), six.has_opt), (0, edns.is_some()), "known, without IPv6");
        });
    }
}

#[test]
fn programs_find_names() {
    let (host, one) = (Host::new(), container());
    host.join("n1", "c1", &["web"], &["10.5.0.2", "fd00::2"]);
    host.join("n1", "c2", &["db"], &["10.5.0.3"]);
    host.attach("c1", &one, networks(&["n1"]));
    let run = |program: &'static str, arguments: &'static [&str]| {
        let output = one.run(move || Command::new(program).args(arguments).output().unwrap());
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (well, output) = run("busybox", &["nslookup", "web", "127.0.0.11"]);
    assert!(well && output.contains("10.5.0.2") && output.contains("fd00::2"), "{output}");
    let (well, output) = run("busybox", &["nslookup", "10.5.0.3", "127.0.0.11"]);
    assert!(well && output.contains("db.n1-net"), "{output}");
    // glibc reads /etc/resolv.conf: one of its own, in a mount namespace of its own.
    let script = "f=$(mktemp) && printf 'nameserver 127.0.0.11\\noptions ndots:0 edns0\\n' >$f && \
                  mount --bind $f /etc/resolv.conf && rm $f && getent hosts db && getent hosts 10.5.0.3";
    let output = one.run(move || Command::new("unshare").args(["-m", "sh", "-ec", script]).output().unwrap());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("10.5.0.3") && text.contains("db.n1-net"), "{output:?}");
}
