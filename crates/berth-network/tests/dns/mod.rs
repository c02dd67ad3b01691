//! DNS for tests, written apart from the code under test: a client and servers that do as they are told.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::namespace::Namespace;

pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const MX: u16 = 15;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const HTTPS: u16 = 65;

pub const NAME_SERVER: &str = "127.0.0.11:53";
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub id: u16,
    pub flags: u16,
    /// The question's name, as it was written.
    pub name: String,
    /// Type, time to live and data of the records in the answer section.
    pub answers: Vec<(u16, u32, Vec<u8>)>,
    pub has_opt: bool,
    pub length: usize,
}

impl Reply {
    pub fn code(&self) -> u16 {
        self.flags & 15
    }

    pub fn truncated(&self) -> bool {
        self.flags & 0x200 != 0
    }

    /// The addresses in the answer.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let address = |data: &Vec<u8>| match data.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(&data[..]).unwrap()),
            _ => IpAddr::from(<[u8; 16]>::try_from(&data[..]).unwrap()),
        };
        self.answers.iter().map(|(_, _, data)| address(data)).collect()
    }

    pub fn read(packet: &[u8]) -> Reply {
        let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let mut at = 12;
        let mut labels = Vec::new();
        while packet[at] != 0 {
            let end = at + 1 + usize::from(packet[at]);
            labels.push(String::from_utf8(packet[at + 1..end].to_vec()).unwrap());
            at = end;
        }
        at += 5;
        let (mut answers, mut has_opt) = (Vec::new(), false);
        for number in 0..word(6) + word(8) + word(10) {
            while packet[at] != 0 && packet[at] < 0xc0 {
                at += usize::from(packet[at]) + 1;
            }
            at += if packet[at] == 0 { 1 } else { 2 };
            let (kind, length) = (word(at), usize::from(word(at + 8)));
            let ttl = u32::from(word(at + 4)) << 16 | u32::from(word(at + 6));
            let data = packet[at + 10..at + 10 + length].to_vec();
            has_opt |= kind == 41;
            if number < word(6) {
                answers.push((kind, ttl, data));
            }
            at += 10 + length;
        }
        assert_eq!(at, packet.len(), "bytes after the last record");
        Reply { id: word(0), flags: word(2), name: labels.join("."), answers, has_opt, length: packet.len() }
    }
}

/// A query as musl writes it; as glibc does with `edns`.
pub fn query(id: u16, name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())]);
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    if let Some(size) = edns {
        packet.extend_from_slice(&[0, 0, 41]);
        packet.extend_from_slice(&size.to_be_bytes());
        packet.extend_from_slice(&[0; 6]);
    }
    packet
}

/// Asks the name server of a namespace by UDP.
pub fn ask(namespace: &Namespace, name: &str, kind: u16) -> Reply {
    send(namespace, query(0x4242, name, kind, None))
}

/// Sends one packet and reads one.
pub fn send(namespace: &Namespace, packet: Vec<u8>) -> Reply {
    namespace.run(move || {
        let socket = socket();
        socket.send(&packet).unwrap();
        receive(&socket)
    })
}

/// A socket to the name server, in the calling thread's namespace.
pub fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(NAME_SERVER).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub fn receive(socket: &UdpSocket) -> Reply {
    let mut buffer = [0; 65535];
    let length = socket.recv(&mut buffer).expect("an answer");
    Reply::read(&buffer[..length])
}

/// A connection to the name server, in the calling thread's namespace.
pub fn connection() -> TcpStream {
    let stream = TcpStream::connect(NAME_SERVER).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub fn write_message(stream: &mut TcpStream, packet: &[u8]) -> std::io::Result<()> {
    stream.write_all(&[&(packet.len() as u16).to_be_bytes()[..], packet].concat())
}

pub fn read_message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut packet)?;
    Ok(packet)
}

/// What a server does with a query: the packets that it sends, first those of this function.
pub type Behaviour = fn(&[u8], bool) -> Vec<Vec<u8>>;

/// A server by UDP and TCP on a port of 127.0.0.1 of a namespace, until it is dropped.
pub struct Upstream {
    pub address: SocketAddr,
    queries: Arc<AtomicUsize>,
    stop: Option<mpsc::Sender<()>>,
}

impl Upstream {
    pub fn start(namespace: &Namespace, behaviour: Behaviour) -> Upstream {
        let (udp, tcp) = namespace.run(|| {
            loop {
                let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
                // The same port by TCP may be taken.
                if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                    return (udp, tcp);
                }
            }
        });
        let address = udp.local_addr().unwrap();
        let queries = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = mpsc::channel();
        let count = queries.clone();
        udp.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while stopped.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                let Ok((length, from)) = udp.recv_from(&mut buffer) else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                for packet in behaviour(&buffer[..length], false) {
                    udp.send_to(&packet, from).unwrap();
                }
            }
        });
        let count = queries.clone();
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                while let Ok(packet) = read_message(&mut stream) {
                    count.fetch_add(1, Ordering::SeqCst);
                    for packet in behaviour(&packet, true) {
                        let _ = write_message(&mut stream, &packet);
                    }
                }
            }
        });
        Upstream { address, queries, stop: Some(stop) }
    }

    /// How many queries have come.
    pub fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.take();
    }
}

/// The answer to a query, with these records.
pub fn answer(query: &[u8], code: u8, ttl: u32, records: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|b| *b == 0).unwrap() + 5;
    let mut packet = query[..end].to_vec();
    packet[2] = 0x81;
    packet[3] = 0x80 | code;
    packet[6..12].copy_from_slice(&[0, 0, 0, 0, 0, 0]);
    packet[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
    for (kind, data) in records {
        packet.extend_from_slice(&[0xc0, 12]);
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&[0, 1]);
        packet.extend_from_slice(&ttl.to_be_bytes());
        packet.extend_from_slice(&(data.len() as u16).to_be_bytes());
        packet.extend_from_slice(data);
    }
    packet
}

/// The answer with one address.
pub fn address(query: &[u8], address: Ipv4Addr) -> Vec<u8> {
    answer(query, 0, 60, &[(A, address.octets().to_vec())])
}
