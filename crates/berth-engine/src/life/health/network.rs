//! Checks over the network, from inside the container's network namespace and without a process there.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::address::{Address, Url};
use super::check::{Check, Test, go};
use super::output::Output;
use super::{Finding, TIMED_OUT, http};
use crate::Error;
use crate::blocking::blocking;

/// How long a body is waited for once the status is known.
const BODY_PATIENCE: Duration = Duration::from_millis(500);
/// Bytes of a body that are read.
const MAX_BODY: usize = 8 << 10;

/// The network namespace of a container, found through its init.
#[derive(Debug, Clone, Copy)]
pub struct Namespace {
    pid: i32,
    inode: u64,
}

impl Namespace {
    /// The namespace of a process that runs.
    pub fn of(pid: i32) -> io::Result<Namespace> {
        Ok(Namespace { pid, inode: inode(&open(pid)?)? })
    }

    /// Makes a socket there. Blocks briefly.
    fn socket(self, to: SocketAddr) -> io::Result<StdStream> {
        let namespace = open(self.pid)?;
        // The container may have ended, and its process ID be another's.
        if inode(&namespace)? != self.inode {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the container has ended"));
        }
        Ok(berth_sys::netns::tcp_socket(&namespace, to.is_ipv6())?.into())
    }
}

fn open(pid: i32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/ns/net"))
}

fn inode(namespace: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(namespace)?.st_ino)
}

/// Makes a check over the network.
pub async fn run(namespace: Namespace, check: &Check) -> Finding {
    let ask = async {
        match &check.test {
            Test::Http(url) => get(namespace, url).await,
            Test::Tcp(address) => match connect(namespace, address).await {
                Ok(_) => Finding { code: 0, output: format!("connected to {}", address.as_str()) },
                Err(error) => failed(address, &error),
            },
            Test::Command(_) => {
                Finding { code: 1, output: "a command is not a check over the network".into() }
            }
        }
    };
    timeout(check.timeout, ask).await.unwrap_or_else(|_| Finding {
        code: TIMED_OUT,
        output: format!("Health check exceeded timeout ({})", go(check.timeout)),
    })
}

fn failed(address: &Address, error: &dyn std::fmt::Display) -> Finding {
    Finding { code: 1, output: format!("{}: {error}", address.as_str()) }
}

/// Connects to the first address that answers.
async fn connect(namespace: Namespace, address: &Address) -> Result<TcpStream, io::Error> {
    let mut first = None;
    for to in address.candidates() {
        match connect_to(namespace, to).await {
            Ok(stream) => return Ok(stream),
            // What the first one says is worth more: `localhost` is mostly there.
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

async fn connect_to(namespace: Namespace, to: SocketAddr) -> io::Result<TcpStream> {
    let made = blocking(move || {
        let failed =
            |source| Error::Io { operation: "make a socket in the container's network".into(), source };
        namespace.socket(to).map_err(failed)
    });
    let socket = made.await.map_err(io::Error::other)?;
    TcpSocket::from_std_stream(socket).connect(to).await
}

async fn get(namespace: Namespace, url: &Url) -> Finding {
    match exchange(namespace, url).await {
        Ok(finding) => finding,
        Err(error) => failed(&url.address, &error),
    }
}

async fn exchange(namespace: Namespace, url: &Url) -> io::Result<Finding> {
    let mut stream = connect(namespace, &url.address).await?;
    stream.write_all(http::request(url).as_bytes()).await?;
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(head) = http::head(&bytes).map_err(io::Error::other)? {
            break head;
        }
        if more(&mut stream, &mut bytes).await? == 0 {
            return Err(io::Error::other("the server closed the connection before it answered"));
        }
    };
    let mut raw = bytes.split_off(head.body);
    let rest = async {
        // What is missing of a body changes nothing about the status.
        while !http::is_whole(head.framing, &raw) && raw.len() < MAX_BODY {
            if !matches!(more(&mut stream, &mut raw).await, Ok(1..)) {
                break;
            }
        }
    };
    let _ = timeout(BODY_PATIENCE, rest).await;
    let mut output = Output::default();
    output.push(head.line.as_bytes());
    let content = http::content(head.framing, &raw);
    if !content.is_empty() {
        output.push(b"\n");
        output.push(&content);
    }
    Ok(Finding { code: i32::from(!head.is_well()), output: output.text() })
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut buffer = [0; 1024];
    let read = stream.read(&mut buffer).await?;
    bytes.extend_from_slice(&buffer[..read]);
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Answers one connection, and leaves it open for as long as the test lasts.
    fn server(answer: &'static str) -> (u16, std::sync::mpsc::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (end, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let _ = connection.read(&mut [0; 1024]);
            let _ = connection.write_all(answer.as_bytes());
            let _ = ended.recv();
        });
        (port, end)
    }

    async fn check(test: Test, timeout: Duration) -> Finding {
        let check = Check {
            test,
            interval: timeout,
            timeout,
            start_period: timeout,
            start_interval: timeout,
            retries: 1,
        };
        run(Namespace::of(i32::try_from(std::process::id()).unwrap()).unwrap(), &check).await
    }

    fn url(port: u16) -> Test {
        Test::Http(Url::parse(&format!("http://localhost:{port}/")).unwrap())
    }

    #[tokio::test]
    async fn the_status_decides_and_the_body_is_shown() {
        for (answer, code, output) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 0, "HTTP/1.1 200 OK\nhi"),
            ("HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n", 0, "HTTP/1.1 301 Moved"),
            (
                "HTTP/1.1 503 Down\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
                1,
                "HTTP/1.1 503 Down\nx",
            ),
        ] {
            let (port, _end) = server(answer);
            let found = check(url(port), Duration::from_secs(20)).await;
            assert_eq!((found.code, found.output.as_str()), (code, output));
        }
        let (port, _end) = server("SSH-2.0-x\r\n");
        let found = check(url(port), Duration::from_secs(20)).await;
        assert!(found.code == 1 && found.output.contains("not HTTP"), "{found:?}");
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_given_up() {
        let (port, _end) = server("");
        let found = check(url(port), Duration::from_millis(50)).await;
        assert_eq!((found.code, found.output.as_str()), (-1, "Health check exceeded timeout (50ms)"));
    }

    #[tokio::test]
    async fn a_port_is_open_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = listener.local_addr().unwrap().to_string();
        let tcp = || Test::Tcp(Address::parse(&text).unwrap());
        assert_eq!(check(tcp(), Duration::from_secs(20)).await.code, 0);
        drop(listener);
        let found = check(tcp(), Duration::from_secs(20)).await;
        assert!(found.code == 1 && found.output.contains("refused"), "{found:?}");
    }
}
