//! Names that are none of the containers': who is asked for them, how, and what is believed.

use super::*;

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
