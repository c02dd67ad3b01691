//! Clients of sessions that do what no client of ours would: they are refused, and nothing else suffers.

use std::fs;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use berth_session::protocol::fsutil::types::packet::PacketType;
use berth_session::protocol::fsutil::types::{Packet, Stat};
use berth_session::protocol::moby::filesync::v1::file_sync_server::{FileSync, FileSyncServer};
use futures_util::{Stream, StreamExt as _};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::codegen::Service as _;
use tonic::{Request, Response, Status, Streaming};

use crate::daemon::Daemon;
use crate::output::eventually;
use crate::raw;

type Packets = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;

/// Answers the one call with these packets, whatever it is asked.
struct Hostile(Mutex<Option<Packets>>);

#[tonic::async_trait]
impl FileSync for Hostile {
    type DiffCopyStream = Packets;

    async fn diff_copy(&self, _: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        let packets = self.0.lock().unwrap().take();
        packets.map(Response::new).ok_or_else(|| Status::unavailable("once only"))
    }
}

/// A build whose context these packets are: what the daemon answers.
fn build(daemon: &Daemon, packets: Packets) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let service = FileSyncServer::new(Hostile(Mutex::new(Some(packets))));
    let socket = daemon.socket();
    // A name may be taken for a while when its client has gone.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let id = format!("hostile-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let request = raw::request("POST", &format!("/build?session={id}&remote=client-session"), "", b"");
    let serving = async move {
        let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
        let head = format!(
            "POST /session HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\
             X-Docker-Expose-Session-Uuid: {id}\r\nX-Docker-Expose-Session-Sharedkey: hostile\r\n\
             X-Docker-Expose-Session-Grpc-Method: /moby.filesync.v1.FileSync/DiffCopy\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            service.clone().call(request)
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    };
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| raw::exchange(daemon, &request));
        runtime.block_on(async {
            let over = async {
                while !answer.is_finished() {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            };
            tokio::select! { () = serving => {}, () = over => {} }
        });
        drop(runtime);
        answer.join().unwrap()
    })
}

fn stat(path: &str, mode: u32, size: i64, link: &str) -> Packet {
    let stat = Stat { path: path.into(), mode, size, linkname: link.into(), mod_time: 1, ..Stat::default() };
    Packet { stat: Some(stat), ..Packet::default() }
}

fn data(id: u32, data: Vec<u8>) -> Packet {
    Packet { r#type: PacketType::PacketData.into(), id, data: data.into(), ..Packet::default() }
}

/// These packets, and then nothing, as if more were to come.
fn stalled(packets: Vec<Packet>) -> Packets {
    Box::pin(futures_util::stream::iter(packets.into_iter().map(Ok)).chain(futures_util::stream::pending()))
}

const DIRECTORY: u32 = 1 << 31 | 0o755;
const LINK: u32 = 1 << 27 | 0o777;

#[test]
fn hostile_contexts_are_refused() {
    let daemon = Daemon::empty(&[]);
    let outside = daemon.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let out = outside.to_str().unwrap();
    let cases = [
        ("impossible path \\\"../../x\\\"", stalled(vec![stat("../../x", 0o644, 1, "")])),
        ("absolute path", stalled(vec![stat(&format!("{out}/x"), 0o644, 0, "")])),
        ("impossible path", stalled(vec![stat("a/../../x", 0o644, 1, "")])),
        ("files out of order", stalled(vec![stat("l", LINK, 0, out), stat("l/x", 0o644, 0, "")])),
        ("files out of order", stalled(vec![stat("b", 0o644, 0, ""), stat("a", 0o644, 0, "")])),
        ("files out of order", stalled(vec![stat("a/b", 0o644, 0, "")])),
        ("to unknown path", stalled(vec![stat("a", 0o644, 0, "b")])),
        ("impossible path", stalled(vec![stat("a", 0o644, 0, "../../../../etc/shadow")])),
        ("unknown kind", stalled(vec![stat("a", 1 << 24, 0, "")])),
        ("negative size", stalled(vec![stat("a", 0o644, -1, "")])),
        ("not asked for", stalled(vec![stat("a", 0o644, 1, ""), data(7, vec![1])])),
        ("not asked for", stalled(vec![data(0, Vec::new())])),
        ("unknown packet 9", stalled(vec![Packet { r#type: 9, ..Packet::default() }])),
        ("out of turn", stalled(vec![Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() }])),
        (
            "error from sender: I",
            stalled(vec![Packet {
                r#type: PacketType::PacketErr.into(),
                data: "I cannot".into(),
                ..Packet::default()
            }]),
        ),
        ("decoded message length too large", stalled(vec![data(0, vec![0; 17 << 20])])),
        ("went away", Box::pin(futures_util::stream::iter([Ok(stat("a", 0o644, 5, ""))]))),
        // What is told has an end, whether or not it is believed.
        (
            "more than",
            Box::pin(futures_util::stream::iter(0..).map(|number: u64| {
                let mut packet = stat(&format!("{number:09}"), DIRECTORY, 0, "");
                if let Some(stat) = &mut packet.stat {
                    stat.xattrs.insert("user.x".into(), vec![0; 4 << 20]);
                }
                Ok(packet)
            })),
        ),
    ];
    for (expected, packets) in cases {
        let answer = build(&daemon, packets);
        assert!(answer.contains(expected), "{answer}: {expected}");
        assert_eq!(raw::status(&answer), 400, "{answer}");
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fs::read_dir(daemon.data_root().join("contexts")).unwrap().count(), 0);
    eventually("an empty staging directory", || {
        let names = fs::read_dir(daemon.data_root().join("staging")).unwrap().flatten();
        names.map(|entry| entry.file_name()).all(|name| name == "trash" || name == "partial").then_some(())
    });
    // Whatever came of it, the next one is served.
    let end = Packet::default();
    let fin = Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() };
    let packets = [stat("Dockerfile", 0o644, 0, ""), end];
    // An honest end answers the end of the other; here it comes without being asked, once all is told.
    let answer = build(&daemon, stalled(packets.into_iter().chain([fin]).collect()));
    assert!(answer.contains("the Dockerfile (Dockerfile) cannot be empty"), "{answer}");
}

#[test]
fn a_client_that_goes_away_ends_its_build() {
    let daemon = Daemon::empty(&[]);
    // It tells of a file, and is gone when it is asked for it.
    let packets = futures_util::stream::iter([Ok(stat("a", 0o644, 5, "")), Ok(Packet::default())]);
    let answer =
        build(&daemon, Box::pin(packets.chain(futures_util::stream::iter([Err(Status::aborted("gone"))]))));
    // Whichever end of the stream is seen first.
    assert!(answer.contains("gone") || answer.contains("went away"), "{answer}");
}
