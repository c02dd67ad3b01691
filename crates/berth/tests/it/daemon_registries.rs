//! Mirrors of Docker Hub and proxies, as the daemon is told of them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use crate::daemon::{Client, Daemon};
use crate::files;
use crate::registry::{ADDRESS, Registry};

#[test]
fn a_mirror_is_asked_before_docker_hub() {
    let daemon = Daemon::empty(&[
        "--registry-mirror",
        "http://127.0.0.1:1",
        "--registry-mirror",
        "http://127.0.0.1:5000",
    ]);
    let registry = Registry::start(daemon.root.path());
    registry.push("docker-archive", files::busybox_archive().to_str().unwrap(), "library/mirrored:1");
    // The namespace has no way to Docker Hub: it can only be the mirror.
    daemon.with(Client::Docker, &["pull", "-q", "mirrored:1"]).ok();
    assert_eq!(daemon.berth(&["run", "--rm", "mirrored:1", "echo", "here"]).ok(), "here");
    assert!(daemon.log().contains("a mirror cannot be used"), "{}", daemon.log());
    assert_ne!(daemon.berth(&["pull", &format!("{ADDRESS}/absent:1")]).code, 0);
}

/// A proxy on `address` that refuses everything and says what it was asked: head lines of requests.
fn refusing_proxy(address: &str) -> mpsc::Receiver<Vec<String>> {
    let listener = TcpListener::bind(address).unwrap();
    let (asked, heads) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = |mut stream: TcpStream| -> std::io::Result<Vec<String>> {
                let lines = BufReader::new(stream.try_clone()?).lines();
                let head = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                stream
                    .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
                Ok(head)
            };
            let Ok(head) = answer(stream) else { continue };
            if asked.send(head).is_err() {
                return;
            }
        }
    });
    heads
}

#[test]
fn proxies_are_used_and_their_passwords_kept() {
    let daemon = Daemon::empty(&[
        "--http-proxy=http://user:secret@127.0.0.1:3128",
        "--https-proxy=http://user:secret@127.0.0.1:3128",
        "--no-proxy=spared.example",
    ]);
    let heads = refusing_proxy("127.0.0.1:3128");
    let patience = std::time::Duration::from_secs(30);
    daemon.berth(&["pull", "example.org:5000/some/image"]).fails(1, "the proxy refuses");
    let head = heads.recv_timeout(patience).unwrap();
    assert_eq!(head[0], "CONNECT example.org:5000 HTTP/1.1");
    // "user:secret" in base64.
    assert!(head.iter().any(|line| line == "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ="), "{head:?}");
    daemon.berth(&["pull", "spared.example/some/image"]).fails(1, "spared.example");
    assert!(heads.try_recv().is_err(), "this one goes without");
    let info =
        daemon.with(Client::Docker, &["info", "-f", "{{.HTTPProxy}} {{.HTTPSProxy}} {{.NoProxy}}"]).ok();
    let masked = "http://xxxxx:xxxxx@127.0.0.1:3128";
    assert_eq!(info, format!("{masked} {masked} spared.example"));
    assert!(!daemon.log().contains("secret"), "{}", daemon.log());
}
