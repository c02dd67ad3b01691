//! Requests byte by byte, as no client of ours would send them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::daemon::Daemon;

/// A connection whose sending side holds little, so that a server that does not read is noticed.
pub fn connect(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(daemon.socket()).unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&stream, 4 << 10).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends all of a request and gives all of what comes back until the connection ends.
pub fn exchange(daemon: &Daemon, request: &[u8]) -> String {
    let mut stream = connect(daemon);
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request that ends its connection, with a body of this length and these further lines in its head.
pub fn request(method: &str, path: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{lines}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The status of an answer.
#[track_caller]
pub fn status(answer: &str) -> u16 {
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    status.and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

#[test]
fn what_is_refused_is_read_to_its_end() {
    let daemon = Daemon::start();
    let body = vec![b' '; 200 << 10];
    let json = "Content-Type: application/json\r\n";
    for (method, path, lines, expected) in [
        ("POST", "/no/such/page", "", 404),
        ("POST", "/v1.99/containers/create", json, 400),
        ("POST", "/%zz", "", 400),
        ("POST", "/containers/absent/start", "", 400),
        ("POST", "/containers/absent/update", "Content-Type: text/plain\r\n", 400),
        ("POST", "/containers/absent/kill", json, 404),
        ("POST", "/containers/create", json, 400),
        ("POST", "/exec/absent/start", json, 400),
        ("POST", "/images/create", "", 400),
        ("POST", "/images/absent/tag?repo=x", "", 404),
        ("POST", "/swarm/init", json, 503),
        ("POST", "/services/create", json, 503),
        ("POST", "/build", "Content-Type: application/x-tar\r\n", 400),
        ("POST", "/containers/absent/attach?stream=1", "", 404),
        ("DELETE", "/containers/absent", "", 404),
        ("PUT", "/containers/absent/archive?path=/", "Content-Type: application/x-tar\r\n", 404),
        ("GET", "/containers/absent/json", "", 404),
    ] {
        let answer = exchange(&daemon, &request(method, path, lines, &body));
        assert_eq!(status(&answer), expected, "{method} {path}: {answer}");
        // As in Docker, an attachment is refused in plain words.
        let words = if path.contains("attach") { "No such container: absent" } else { "{\"message\":\"" };
        assert!(answer.contains(words), "{method} {path}: {answer}");
    }
}

#[test]
fn a_connection_goes_on_after_a_refusal() {
    let daemon = Daemon::empty(&[]);
    let refused = request("POST", "/no/such/page", "", &vec![b'x'; 200 << 10]);
    let first = String::from_utf8(refused).unwrap().replace("Connection: close\r\n", "");
    let both = [first.as_bytes(), &request("GET", "/_ping", "", b"")].concat();
    let answer = exchange(&daemon, &both);
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("\r\n\r\nOK"), "{answer}");
}
