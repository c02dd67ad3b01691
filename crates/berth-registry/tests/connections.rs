//! Which requests share a connection, against a server on loopback that ends none by itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use berth_registry::{Client, RegistryConfig};
use futures_util::StreamExt as _;
use url::Url;

/// Bytes of a body that no socket holds at once.
const LONG: usize = 64 << 20;

/// A server that answers with the path that it was asked for, and with zeros up to [`LONG`] bytes if that is `/long`.
struct Server {
    address: String,
    /// The numbers of connections, one for each request.
    seen: Arc<Mutex<Vec<usize>>>,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::<Mutex<Vec<usize>>>::default();
        let requests = Arc::clone(&seen);
        std::thread::spawn(move || {
            for (number, connection) in listener.incoming().flatten().enumerate() {
                let requests = Arc::clone(&requests);
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(&connection).lines();
                    while let Some(Ok(first)) = lines.next() {
                        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                        requests.lock().unwrap().push(number);
                        let mut body = first.split(' ').nth(1).unwrap_or_default().as_bytes().to_vec();
                        if body == b"/long" {
                            body.resize(LONG, 0);
                        }
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                        // A client that goes away ends it.
                        if (&connection).write_all(&[head.as_bytes(), &body].concat()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Server { address, seen }
    }

    async fn ask(&self, client: &Client, path: &str) -> Vec<u8> {
        let url = Url::parse(&format!("http://{}{path}", self.address)).unwrap();
        let parts = client.fetch(&url).await.unwrap().parts;
        parts.map(Result::unwrap).collect::<Vec<_>>().await.concat()
    }

    fn seen(&self) -> Vec<usize> {
        self.seen.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn requests_after_one_another_share_connections() {
    let (server, client) = (Server::start(), Client::new(RegistryConfig::default()));
    for number in 0..40 {
        let path = format!("/{number}");
        assert_eq!(server.ask(&client, &path).await, path.as_bytes());
    }
    let connections: HashSet<usize> = server.seen().into_iter().collect();
    assert!(connections.len() < 10, "{connections:?}");
    // Other settings, other connections.
    client.configure(RegistryConfig::default());
    server.ask(&client, "/again").await;
    assert!(!connections.contains(server.seen().last().unwrap()));
}

#[tokio::test]
async fn an_answer_that_is_not_read_to_its_end_ends_its_connection() {
    let (server, client) = (Server::start(), Client::new(RegistryConfig::default()));
    for _ in 0..3 {
        let url = Url::parse(&format!("http://{}/long", server.address)).unwrap();
        let mut parts = client.fetch(&url).await.unwrap().parts;
        assert!(parts.next().await.unwrap().unwrap().starts_with(b"/long"));
        drop(parts);
        assert_eq!(server.ask(&client, "/short").await, b"/short");
        let seen = server.seen();
        let (long, short) = (seen[seen.len() - 2], seen[seen.len() - 1]);
        assert_ne!(long, short, "{seen:?}");
    }
}

#[tokio::test]
async fn requests_at_the_same_time_have_connections_of_their_own() {
    let (server, client) = (Server::start(), Client::new(RegistryConfig::default()));
    let many = (0..20).map(|number| {
        let (server, client) = (&server, &client);
        async move {
            let path = format!("/{number}");
            assert_eq!(server.ask(client, &path).await, path.as_bytes());
        }
    });
    futures_util::future::join_all(many).await;
    assert_eq!(server.seen().len(), 20);
}
