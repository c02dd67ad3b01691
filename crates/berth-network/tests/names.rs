//! Name servers of containers with real packets: each container and the host is a namespace of its own, and the net process
//! lives in the host's.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod dns;
mod namespace;

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
fn other_names_go_to_the_hosts_upstream_and_are_remembered() {
    let (host, one, two) = (Host::new(), container(), container());
    let upstream = dns::Upstream::start(&host.namespace, echo);
    host.attach("c1", &one, forwarding(&[&upstream]));
    host.attach("c2", &two, forwarding(&[&upstream]));
    for (container, name) in [(&one, "Out.Example"), (&one, "out.example"), (&two, "OUT.example")] {
        let reply = ask(container, name, A);
        assert_eq!((reply.code(), reply.addresses()), (0, ips(&["192.0.2.1"])));
        assert_eq!((reply.name.as_str(), reply.id), (name, 0x4242));
        assert!(reply.answers[0].1 <= 60);
    }
    assert_eq!(upstream.queries(), 1, "the answer is kept for all who ask the same servers");
    assert_eq!(ask(&one, "other.example", A).code(), 0);
    assert_eq!(upstream.queries(), 2);
}

#[test]
fn an_internal_network_leaks_no_name() {
    // R15, CVE-2024-29018.
    let (host, one) = (Host::new(), container());
    let upstream = dns::Upstream::start(&host.namespace, echo);
    let open = forwarding(&[&upstream]);
    let inside = Config { forward: false, ..open.clone() };
    host.attach("c1", &one, inside.clone());
    host.join("n1", "c2", &["db"], &["10.5.0.3"]);
    assert_eq!(ask(&one, "secret.example", A).code(), 2);
    assert_eq!(ask(&one, "secret", AAAA).code(), 2);
    assert_eq!(upstream.queries(), 0);
    assert_eq!(ask(&one, "db", A).addresses(), ips(&["10.5.0.3"]));
    host.configure("c1", open);
    assert_eq!(ask(&one, "secret.example", A).code(), 0);
    host.configure("c1", inside);
    assert_eq!(ask(&one, "secret.example", A).code(), 2, "not even what is remembered");
    assert_eq!(upstream.queries(), 1);
}

#[test]
fn the_containers_own_servers_are_asked_in_its_namespace() {
    let (host, one, two) = (Host::new(), container(), container());
    let inside = dns::Upstream::start(&one, echo);
    let upstreams = vec![Upstream { address: inside.address, from_host: false }];
    let config = Config { upstreams, ..networks(&["n1"]) };
    host.attach("c1", &one, config.clone());
    host.attach("c2", &two, config);
    assert_eq!(ask(&one, "foo.example", A).addresses(), ips(&["192.0.2.1"]));
    assert_eq!(ask(&two, "foo.example", A).code(), 2, "neither reached nor remembered in another container");
    assert_eq!(inside.queries(), 1);
}

#[test]
fn a_slow_or_failing_upstream_is_not_waited_for() {
    let (host, one) = (Host::new(), container());
    let (dead, bad) =
        (dns::Upstream::start(&host.namespace, silent), dns::Upstream::start(&host.namespace, failing));
    let good = dns::Upstream::start(&host.namespace, echo);
    host.attach("c1", &one, forwarding(&[&dead, &bad, &good]));
    let start = Instant::now();
    assert_eq!(ask(&one, "out.example", A).addresses(), ips(&["192.0.2.1"]));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!((dead.queries(), bad.queries(), good.queries()), (1, 1, 1));

    host.configure("c1", forwarding(&[&bad, &good]));
    assert_eq!(ask(&one, "more.example", A).code(), 0);
    host.configure("c1", forwarding(&[&bad, &bad]));
    assert_eq!(ask(&one, "most.example", A).code(), 2);
    host.configure("c1", forwarding(&[&dead]));
    let start = Instant::now();
    assert_eq!(ask(&one, "last.example", A).code(), 2, "before the client gives up");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!(dead.queries(), 3, "once again, for what UDP loses");
}

#[test]
fn a_port_where_nobody_listens_is_noticed_at_once() {
    let (host, one) = (Host::new(), container());
    let good = dns::Upstream::start(&host.namespace, echo);
    let closed = host.namespace.run(|| UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let mut config = forwarding(&[&good]);
    config.upstreams.insert(0, Upstream { address: closed, from_host: true });
    host.attach("c1", &one, config.clone());
    assert_eq!(ask(&one, "out.example", A).code(), 0);
    config.upstreams.truncate(1);
    host.configure("c1", config);
    let start = Instant::now();
    assert_eq!(ask(&one, "more.example", A).code(), 2);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn forged_answers_are_passed_over() {
    fn forged(query: &[u8], _: bool) -> Vec<Vec<u8>> {
        let wrong = || dns::address(query, [6, 6, 6, 6].into());
        let (mut id, mut name, mut kind, mut not_an_answer) = (wrong(), wrong(), wrong(), wrong());
        id[0] ^= 1;
        name[13] ^= 1;
        let end = 12 + query[12..].iter().position(|b| *b == 0).unwrap();
        kind[end + 2] ^= 2;
        not_an_answer[2] &= 0x7f;
        vec![id, name, kind, not_an_answer, vec![1], dns::address(query, [192, 0, 2, 1].into())]
    }
    let (host, one) = (Host::new(), container());
    let upstream = dns::Upstream::start(&host.namespace, forged);
    host.attach("c1", &one, forwarding(&[&upstream]));
    assert_eq!(ask(&one, "out.example", A).addresses(), ips(&["192.0.2.1"]));
}

#[test]
fn ids_and_ports_of_questions_cannot_be_guessed() {
    fn tell(query: &[u8], _: bool) -> Vec<Vec<u8>> {
        vec![dns::answer(query, 0, 60, &[(A, vec![0, 0, query[0], query[1]])])]
    }
    let (host, one) = (Host::new(), container());
    let upstream = dns::Upstream::start(&host.namespace, tell);
    host.attach("c1", &one, forwarding(&[&upstream]));
    let ids: std::collections::BTreeSet<IpAddr> =
        (0..50).flat_map(|n| ask(&one, &format!("h{n}.example"), A).addresses()).collect();
    assert!(ids.len() > 45, "{ids:?}");
}

/// 100 addresses; truncated where they do not fit.
fn large(query: &[u8], tcp: bool) -> Vec<Vec<u8>> {
    let records: Vec<_> = (0..if tcp { 100 } else { 10 }).map(|n| (A, vec![192, 0, 2, n])).collect();
    let mut packet = dns::answer(query, 0, 60, &records);
    packet[2] |= if tcp { 0 } else { 2 };
    vec![packet]
}

#[test]
fn truncated_answers_are_fetched_whole_by_tcp() {
    let (host, one) = (Host::new(), container());
    let upstream = dns::Upstream::start(&host.namespace, large);
    host.attach("c1", &one, forwarding(&[&upstream]));
    let plain = ask(&one, "large.example", A);
    assert!(plain.truncated() && plain.length <= 512 && plain.answers.len() > 25, "{plain:?}");
    assert!(!plain.has_opt);
    let whole = one.run(|| {
        let mut stream = dns::connection();
        dns::write_message(&mut stream, &dns::query(3, "large.example", A, None)).unwrap();
        dns::Reply::read(&dns::read_message(&mut stream).unwrap())
    });
    assert_eq!((whole.truncated(), whole.answers.len()), (false, 100));
    assert_eq!(upstream.queries(), 2, "by UDP and TCP, then from memory");
    let edns = dns::send(&one, dns::query(4, "large.example", A, Some(4096)));
    assert_eq!((edns.truncated(), edns.answers.len(), edns.has_opt), (false, 100, true));
    let small = dns::send(&one, dns::query(5, "large.example", A, Some(1232)));
    assert!(
        small.truncated() && small.length <= 1232 && small.has_opt && small.answers.len() > 70,
        "{small:?}"
    );
}

#[test]
fn clients_by_tcp_are_asked_for_by_tcp() {
    fn only_tcp(query: &[u8], tcp: bool) -> Vec<Vec<u8>> {
        if tcp { echo(query, tcp) } else { vec![] }
    }
    let (host, one) = (Host::new(), container());
    let upstream = dns::Upstream::start(&host.namespace, only_tcp);
    host.attach("c1", &one, forwarding(&[&upstream]));
    let reply = one.run(|| {
        let mut stream = dns::connection();
        dns::write_message(&mut stream, &dns::query(3, "out.example", A, None)).unwrap();
        dns::Reply::read(&dns::read_message(&mut stream).unwrap())
    });
    assert_eq!(reply.addresses(), ips(&["192.0.2.1"]));
}

#[test]
fn names_of_one_label_stay_inside_if_the_client_searches() {
    let (host, one) = (Host::new(), container());
    let upstream = dns::Upstream::start(&host.namespace, echo);
    let config = forwarding(&[&upstream]);
    host.attach("c1", &one, Config { ndots_set: true, ..config.clone() });
    for kind in [A, AAAA] {
        let reply = ask(&one, "printer", kind);
        assert_eq!((reply.code(), reply.answers.len()), (0, 0));
    }
    assert_eq!(upstream.queries(), 0);
    assert_eq!(ask(&one, "printer.example", A).answers.len(), 1);
    host.configure("c1", config);
    assert_eq!(ask(&one, "printer", A).answers.len(), 1);
}

#[test]
fn a_question_asked_again_while_it_is_on_its_way_is_one_question() {
    let (host, one) = (Host::new(), container());
    let upstream = dns::Upstream::start(&host.namespace, |query, _| {
        std::thread::sleep(Duration::from_millis(200));
        echo(query, false)
    });
    host.attach("c1", &one, forwarding(&[&upstream]));
    one.run(|| {
        let (first, second) = (dns::socket(), dns::socket());
        for (socket, id) in [(&first, 1), (&first, 1), (&second, 2)] {
            socket.send(&dns::query(id, "out.example", A, None)).unwrap();
        }
        assert_eq!((dns::receive(&first).id, dns::receive(&second).id), (1, 2));
    });
    assert_eq!(upstream.queries(), 1);
}

#[test]
fn a_container_has_a_limit_and_takes_nothing_from_another() {
    let (host, one, two) = (Host::new(), container(), container());
    let upstream = dns::Upstream::start(&host.namespace, silent);
    host.join("n1", "c2", &["web"], &["10.5.0.2"]);
    host.attach("c1", &one, forwarding(&[&upstream]));
    host.attach("c2", &two, forwarding(&[&upstream]));
    let refused = one.run(|| {
        let socket = dns::socket();
        // In portions: what the socket's buffer cannot hold would be lost.
        for n in 0..1100u16 {
            socket.send(&dns::query(n, &format!("h{n}.example"), A, None)).unwrap();
            if n % 32 == 31 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        dns::receive(&socket)
    });
    assert_eq!(refused.code(), 5);
    assert_eq!(ask(&two, "web", A).answers.len(), 1);
}

#[test]
fn killed_it_is_filled_again_and_open_sockets_are_answered() {
    let (host, one) = (Host::new(), container());
    host.join("n1", "c1", &["web"], &["10.5.0.2"]);
    host.attach("c1", &one, networks(&["n1"]));
    let socket = one.run(|| {
        let socket = dns::socket();
        socket.send(&dns::query(1, "web", A, None)).unwrap();
        assert_eq!(dns::receive(&socket).answers.len(), 1);
        socket
    });
    host.kill();
    assert_eq!(host.names.holdings().unwrap(), Default::default());
    host.join("n1", "c1", &["web"], &["10.5.0.9"]);
    host.attach("c1", &one, networks(&["n1"]));
    let again = one.run(move || {
        socket.send(&dns::query(2, "web", A, None)).unwrap();
        dns::receive(&socket)
    });
    assert_eq!(again.addresses(), ips(&["10.5.0.9"]));
}

#[test]
fn a_daemons_successor_finds_and_fills_it_without_a_gap() {
    let (host, one, two) = (Host::new(), container(), container());
    host.join("n1", "c1", &["web"], &["10.5.0.2"]);
    host.attach("c1", &one, networks(&["n1"]));
    host.attach("c2", &two, networks(&["n1"]));
    let held = host.names.holdings().unwrap();
    assert_eq!(held.attached, [("c1".into(), networks(&["n1"])), ("c2".into(), networks(&["n1"]))]);
    assert_eq!((held.members[0].0.as_str(), held.members[0].1.owner.as_str()), ("n1", "c1"));
    host.net.stop_if_idle();
    assert!(host.net.is_running(), "it serves somebody");

    let mut stream = one.run(dns::connection);
    host.join("n1", "c1", &["web"], &["10.5.0.2"]);
    host.attach("c1", &one, networks(&["n1"]));
    host.client(|names| names.retain(&["c1".to_string()]).unwrap());
    dns::write_message(&mut stream, &dns::query(1, "web", A, None)).unwrap();
    let reply = dns::Reply::read(&dns::read_message(&mut stream).unwrap());
    assert_eq!(reply.addresses(), ips(&["10.5.0.2"]), "the connection went on");
    let gone = two.run(|| {
        let socket = dns::socket();
        let _ = socket.send(&dns::query(1, "web", A, None));
        socket.recv(&mut [0; 512]).unwrap_err().kind()
    });
    assert_eq!(gone, std::io::ErrorKind::ConnectionRefused);
    let error = host.names.configure("c2", &Config::default()).unwrap_err();
    assert_eq!(error.to_string(), "name server: configure c2: No such file or directory (os error 2)");
    host.names.detach("c1").unwrap();
    host.net.stop_if_idle();
    assert!(!host.net.is_running());
}

#[test]
fn a_namespace_is_let_go_when_its_container_ends() {
    let (host, one) = (Host::new(), container());
    let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&sleeper);
    let life = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    host.join("n1", "c1", &["web"], &["10.5.0.2"]);
    let (fd, sent) = (one.fd.try_clone().unwrap(), life.try_clone().unwrap());
    host.client(move |names| {
        names.attach("c1", fd.as_fd(), Some(sent.as_fd()), &networks(&["n1"])).unwrap();
        names.attach("c1", fd.as_fd(), Some(sent.as_fd()), &networks(&["n1"])).unwrap();
    });
    assert_eq!(ask(&one, "web", A).answers.len(), 1);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while host.names.holdings().unwrap() != Default::default() {
        assert!(Instant::now() < deadline, "still held");
        std::thread::yield_now();
    }
    // The daemon keeps its pidfd open; the net process must not turn in a circle for it.
    let before = processor_time(&host.net.process().unwrap());
    std::thread::sleep(Duration::from_millis(300));
    let spent = processor_time(&host.net.process().unwrap()) - before;
    assert!(spent < Duration::from_millis(100), "{spent:?}");
    drop(life);
}

/// What a process has computed so far.
fn processor_time(process: &OwnedFd) -> Duration {
    use std::os::fd::AsRawFd;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).unwrap();
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim().to_string();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn a_port_that_the_container_took_meanwhile_is_given_up() {
    let (host, one) = (Host::new(), container());
    host.join("n1", "c1", &["web"], &["10.5.0.2"]);
    host.attach("c1", &one, networks(&["n1"]));
    let port = || {
        let rules = one.run(|| Command::new("nft").args(["list", "ruleset"]).output().unwrap().stdout);
        let rules = String::from_utf8(rules).unwrap();
        let (_, port) = rules.split_once("udp dport 53 dnat ip to 127.0.0.11:").unwrap();
        port.split_whitespace().next().unwrap().parse::<u16>().unwrap()
    };
    let old = port();
    host.kill();
    let taken = one.run(move || UdpSocket::bind(("127.0.0.11", old)).unwrap());
    host.join("n1", "c1", &["web"], &["10.5.0.2"]);
    host.attach("c1", &one, networks(&["n1"]));
    assert_ne!(port(), old);
    assert_eq!(ask(&one, "web", A).answers.len(), 1);
    drop(taken);
}

#[test]
fn a_container_restarted_in_another_namespace_is_served_there() {
    let (host, old, new) = (Host::new(), container(), container());
    host.join("n1", "c1", &["web"], &["10.5.0.2"]);
    host.attach("c1", &old, networks(&["n1"]));
    host.attach("c1", &new, networks(&["n1"]));
    assert_eq!(ask(&new, "web", A).answers.len(), 1);
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
