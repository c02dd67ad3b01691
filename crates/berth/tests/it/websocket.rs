//! Attaching by websocket, with a client of a few lines that knows frames (RFC 6455) and nothing else.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::daemon::Daemon;
use crate::output::eventually;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;

/// A websocket, or the answer of a server that would not have one.
struct WebSocket(BufReader<UnixStream>);

impl WebSocket {
    fn open(daemon: &Daemon, path: &str) -> Result<WebSocket, String> {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(head.lines().next().unwrap().to_owned());
        }
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        Ok(WebSocket(reader))
    }

    /// Sends one frame, masked as clients must.
    fn send(&mut self, kind: u8, payload: &[u8]) {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![0x80 | kind, 0x80 | u8::try_from(payload.len()).unwrap()];
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.0.get_mut().write_all(&frame).unwrap();
    }

    /// The next frame: its kind and what is in it.
    fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length).unwrap();
                usize::from(u16::from_be_bytes(length))
            }
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).unwrap();
        (head[0] & 0xf, payload)
    }

    /// What comes until there is so much of it.
    fn read(&mut self, kind: u8, length: usize) -> String {
        let mut all = Vec::new();
        while all.len() < length {
            let (got, payload) = self.receive();
            assert_eq!(got, kind, "{payload:?}");
            all.extend(payload);
        }
        String::from_utf8(all).unwrap()
    }
}

#[test]
fn input_goes_in_and_output_comes_out_in_frames() {
    let daemon = Daemon::start();
    let id = daemon.background(&["-i", "busybox", "cat"]);
    for (version, kind) in [("v1.55", BINARY), ("v1.27", TEXT)] {
        let path = format!("/{version}/containers/{id}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1");
        let mut socket = WebSocket::open(&daemon, &path).unwrap();
        for sent in [BINARY, TEXT] {
            socket.send(sent, b"hello\n");
            assert_eq!(socket.read(kind, 6), "hello\n", "bytes as they are, without a frame of Docker's");
        }
        socket.send(CLOSE, &[]);
        assert_eq!(socket.receive().0, CLOSE);
    }
    eventually("it goes on without them", || {
        (daemon.inspect(&id, "{{.State.Status}}") == "running").then_some(())
    });
}

#[test]
fn the_end_of_the_container_closes_the_websocket() {
    let daemon = Daemon::start();
    let script = "echo early; read line; echo got $line; echo wrong >&2";
    let id = daemon.background(&["-i", "busybox", "sh", "-c", script]);
    eventually("it has begun", || daemon.berth(&["logs", &id]).stdout.contains("early").then_some(()));
    let path = format!("/containers/{id}/attach/ws?logs=1&stream=1&stdin=1&stdout=1");
    let mut socket = WebSocket::open(&daemon, &path).unwrap();
    assert_eq!(socket.read(BINARY, 6), "early\n", "what was logged before");
    socket.send(BINARY, b"that\n");
    assert_eq!(socket.read(BINARY, 9), "got that\n", "the error output was not asked for");
    assert_eq!(socket.receive().0, CLOSE);
    assert_eq!(daemon.wait(&id), 0);
}

#[test]
fn what_is_no_websocket_or_no_container_is_refused() {
    let daemon = Daemon::start();
    let refused = WebSocket::open(&daemon, "/containers/absent/attach/ws?stream=1").err().unwrap();
    assert_eq!(refused, "HTTP/1.1 404 Not Found");
    daemon.background(&["--name", "cc", "busybox", "sleep", "1000"]);
    let mut command = std::process::Command::new("curl");
    command
        .args(["-s", "--unix-socket"])
        .arg(daemon.socket())
        .arg("http://localhost/containers/cc/attach/ws");
    assert_eq!(crate::output::run(&mut command).ok(), "{\"message\":\"not websocket protocol\"}");
    assert!(WebSocket::open(&daemon, "/containers/cc/attach/ws?detachKeys=nonsense").is_err());
    let told = crate::api::events(&daemon, "cc");
    assert!(!told.contains(&"attach".to_owned()), "nobody attached: {told:?}");
}
