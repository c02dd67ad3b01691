//! Measures the name server: answers for each second of its processor time, and its memory.
//!
//! `names_load [seconds [program with arguments]]`, as root: starts the net process (the example `net` beside this one if no
//! other program is named, such as `berth __net`) in a network namespace of its own, serves a number of containers, and asks
//! from one of them as fast as answers come.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::OsString;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_network::names::{Client, Config, Member, Membership};
use berth_network::net::NetClient;

const CONTAINERS: usize = 100;
/// Queries on their way at a time.
const WINDOW: usize = 32;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let seconds = arguments.next().map_or(3, |text| text.to_str().unwrap().parse().unwrap());
    let mut program: Vec<OsString> = arguments.collect();
    if program.is_empty() {
        program = vec![std::env::current_exe().unwrap().with_file_name("net").into(), "__net".into()];
    }
    // A directory of its own: the process's arguments tell which one is meant.
    let root = std::env::temp_dir().join(format!("names-load-{}", std::process::id()));
    let host = berth_sys::netns::unshare().unwrap();
    berth_sys::rtnetlink::loopback_up().unwrap();
    let net = Arc::new(NetClient::new(&root, program));
    let names = Client::new(net.clone());
    println!("empty: {}", memory(&names, &net));
    let start = Instant::now();
    let namespaces: Vec<_> = (0..CONTAINERS).map(|_| berth_sys::netns::unshare().unwrap()).collect();
    println!("{CONTAINERS} namespaces made in {:?}", start.elapsed());
    let start = Instant::now();
    for (number, namespace) in namespaces.iter().enumerate() {
        let owner = format!("{number:064}");
        let addresses = vec![std::net::Ipv4Addr::from_bits(0x0a00_0001 + number as u32).into()];
        let names_of_it = vec![format!("container{number}"), owner[..12].to_string()];
        names
            .join("network", "net", &Member { owner: owner.clone(), names: names_of_it, addresses })
            .unwrap();
        let networks = vec![Membership { network: "network".into(), links: vec![] }];
        names.attach(&owner, namespace.as_fd(), None, &Config { networks, ..Config::default() }).unwrap();
    }
    println!("join and attach: {:?} each", start.elapsed() / CONTAINERS as u32);
    println!("{CONTAINERS} containers: {}", memory(&names, &net));
    // This thread is in the last container's namespace.
    berth_sys::rtnetlink::loopback_up().unwrap();
    load(&net, Duration::from_secs(seconds));
    println!("after it: {}", memory(&names, &net));
    drop(host);
    names.retain(&[]).unwrap();
    net.stop_if_idle();
    let _ = std::fs::remove_dir_all(&root);
}

fn load(net: &NetClient, time: Duration) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("127.0.0.11:53").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut sent, mut answered, mut lost) = (0usize, 0usize, 0usize);
    let mut buffer = [0; 512];
    let (start, busy) = (Instant::now(), processor_time(net));
    while start.elapsed() < time {
        while sent - answered - lost < WINDOW {
            socket.send(&query(sent)).unwrap();
            sent += 1;
        }
        match socket.recv(&mut buffer) {
            Ok(length) => {
                assert!(length > 12 && buffer[3] & 15 == 0 && buffer[7] == 1, "no answer with one address");
                answered += 1;
            }
            Err(_) => lost = sent - answered,
        }
    }
    let (elapsed, busy) = (start.elapsed().as_secs_f64(), (processor_time(net) - busy).as_secs_f64());
    println!("{answered} answers in {elapsed:.2} s ({:.0} a second), {lost} lost", answered as f64 / elapsed);
    println!(
        "{busy:.2} s of the server's processor: {:.0} answers a second on one core",
        answered as f64 / busy
    );
}

fn query(number: usize) -> Vec<u8> {
    let name = format!("container{}", number % CONTAINERS);
    let mut packet = vec![(number >> 8) as u8, number as u8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
    packet.extend_from_slice(name.as_bytes());
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

fn pid(net: &NetClient) -> String {
    use std::os::fd::AsRawFd;
    let process = net.process().unwrap();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).unwrap();
    info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim().to_string()
}

fn processor_time(net: &NetClient) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/schedstat", pid(net))).unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

fn memory(names: &Client, net: &NetClient) -> String {
    // Asking for a port of nobody starts the process.
    let member = Member { owner: "nobody".into(), names: vec![], addresses: vec![] };
    names.join("nothing", "nothing", &member).unwrap();
    names.leave("nothing", "nobody").unwrap();
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pid(net))).unwrap();
    let wanted = |line: &&str| {
        line.starts_with("Pss:") || line.starts_with("Pss_Anon") || line.starts_with("Pss_File")
    };
    let lines: Vec<String> = rollup
        .lines()
        .filter(wanted)
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    lines.join(", ")
}
