//! The net process and the namespaces that it serves, as they come and go.

use super::*;

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
