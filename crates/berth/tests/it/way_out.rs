//! A way to the mirrors of packages for what is built in a test's network namespace.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

/// A proxy for HTTP. Clients reach it from the test's network namespace; what they ask for, it asks from that of the
/// threads that serve them, which is the one of whoever opened it.
pub struct WayOut {
    listener: Sender<TcpListener>,
    /// Methods and addresses of all requests.
    asked: Arc<Mutex<Vec<String>>>,
}

impl WayOut {
    /// For a way to the machine's network, to be called before the test has a daemon, and with it a network namespace.
    pub fn open() -> WayOut {
        let (listener, wanted) = mpsc::channel::<TcpListener>();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&asked);
        thread::spawn(move || {
            for listener in wanted {
                for client in listener.incoming().flatten() {
                    let seen = Arc::clone(&seen);
                    // A client that goes away is its own affair.
                    thread::spawn(move || drop(serve(client, &seen)));
                }
            }
        });
        WayOut { listener, asked }
    }

    /// Listens on every address of the test's network namespace, and gives the port.
    pub fn listen(&self) -> u16 {
        self.listen_at(0)
    }

    /// The same on a port.
    pub fn listen_at(&self, port: u16) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        self.listener.send(listener).unwrap();
        port
    }

    /// Methods and addresses of all requests since the last call.
    pub fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// Serves one request: a tunnel, or a page of a server without TLS.
fn serve(client: TcpStream, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            header => headers.push(header.to_owned()),
        }
    }
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    asked.lock().unwrap().push(format!("{method} {target}"));
    if method == "CONNECT" {
        let server = TcpStream::connect(target)?;
        (&client).write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        return tunnel(reader, client, server);
    }
    let (host, path) = target
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(|| io::Error::other(format!("not an address: {target}")))?;
    let mut server = match host.contains(':') {
        true => TcpStream::connect(host)?,
        false => TcpStream::connect((host, 80))?,
    };
    // One request for each connection: the answer's end is then the connection's.
    headers.retain(|header| {
        let name = header.split(':').next().unwrap_or_default().to_ascii_lowercase();
        !matches!(name.as_str(), "connection" | "proxy-connection" | "keep-alive")
    });
    headers.push("Connection: close".into());
    write!(server, "{method} /{path} HTTP/1.1\r\n{}\r\n\r\n", headers.join("\r\n"))?;
    tunnel(reader, client, server)
}

/// Passes on bytes both ways until both ends are done.
fn tunnel(mut from: impl Read + Send + 'static, client: TcpStream, server: TcpStream) -> io::Result<()> {
    let mut there = server.try_clone()?;
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut there);
        let _ = there.shutdown(Shutdown::Write);
    });
    io::copy(&mut &server, &mut &client)?;
    client.shutdown(Shutdown::Write)
}
