//! The log driver `splunk`: a collector that takes, refuses, fails and is asked for first.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::daemon::{Client, Daemon};
use crate::daemon_tls::Certificates;
use crate::log_tls::Server;
use crate::output::eventually;

/// A collector that answers events with these statuses, and then with 200; it gives the heads and bodies of requests.
fn collector(statuses: &'static [u16]) -> (String, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        let mut statuses = statuses.iter();
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            while let Some((head, body)) = request(&mut connection) {
                let asks = head.starts_with("OPTIONS /services/collector/event/1.0 HTTP/1.1\r\n");
                let status = if asks { 200 } else { *statuses.next().unwrap_or(&200) };
                let answer = format!("HTTP/1.1 {status} So\r\nContent-Length: 2\r\n\r\n{{}}");
                if sender.send((head, body)).is_err() || connection.write_all(answer.as_bytes()).is_err() {
                    return;
                }
                if asks {
                    break;
                }
            }
        }
    });
    (address, requests)
}

fn request(connection: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut received = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let count = connection.read(&mut buffer).ok().filter(|count| *count > 0)?;
        received.extend_from_slice(&buffer[..count]);
        let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(received[..end].to_vec()).unwrap();
        let length =
            head.split_once("Content-Length: ").map_or("0", |(_, rest)| rest.lines().next().unwrap());
        if received.len() >= end + 4 + length.parse::<usize>().unwrap() {
            return Some((head, received[end + 4..].to_vec()));
        }
    }
}

fn events(body: &[u8]) -> Vec<Value> {
    serde_json::Deserializer::from_slice(body).into_iter().map(|event| event.unwrap()).collect()
}

fn arguments<'a>(options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["run", "-d", "--name", "cc", "--log-driver", "splunk"];
    for option in options {
        arguments.extend(["--log-opt", option]);
    }
    arguments.extend(["busybox", "sh", "-c", script]);
    arguments
}

with_both_clients! {
    fn lines_become_events_of_requests(daemon: &Daemon, client: Client) {
        let (url, requests) = collector(&[]);
        let url = format!("splunk-url={url}");
        let options = [&url, "splunk-token=secret", "splunk-format=json", "splunk-index=main", "tag={{.Name}}"];
        daemon.with(client, &arguments(&options, "seq 1 3000; echo '{\"x\":1}' >&2")).ok();
        assert!(requests.recv().unwrap().0.starts_with("OPTIONS "), "the collector is asked first");
        let mut found = Vec::new();
        let mut count = 0;
        while found.len() < 3001 {
            let (head, body) = requests.recv_timeout(Duration::from_secs(20)).unwrap();
            assert!(head.starts_with("POST /services/collector/event/1.0 HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("\r\nAuthorization: Splunk secret"), "{head}");
            found.extend(events(&body));
            count += 1;
        }
        assert!(count < 1000, "{count} requests: events go together");
        let outputs: Vec<_> = found.iter().filter(|event| event["event"]["source"] == "stdout").collect();
        let numbers: Vec<_> = outputs.iter().map(|event| event["event"]["line"].as_i64().unwrap()).collect();
        assert!(numbers.iter().copied().eq(1..=3000), "each once, in order");
        let error = found.iter().find(|event| event["event"]["source"] == "stderr").unwrap();
        assert_eq!((&error["event"]["line"]["x"], &error["index"]), (&1.into(), &"main".into()));
        assert_eq!(error["event"]["tag"], "cc");
        // A copy is kept here.
        assert_eq!(daemon.with(client, &["logs", "cc"]).ok().lines().count(), 3000);
    }

    fn a_container_does_not_start_without_its_collector(daemon: &Daemon, client: Client) {
        let begin = "failed to initialize logging driver: ";
        let refused = |options: &[&str], words: &str| {
            daemon.with(client, &arguments(options, "true")).fails(125, &format!("{begin}{words}"));
            daemon.with(client, &["rm", "cc"]).ok();
        };
        refused(&[], "splunk: splunk-url is expected");
        refused(&["splunk-url=http://127.0.0.1:1/x"], "splunk: expected format scheme://dns_name_or_ip:port");
        refused(&["splunk-url=http://127.0.0.1:1"], "splunk: splunk-token is expected");
        refused(&["splunk-url=http://127.0.0.1:1", "splunk-token=t"], "dial 127.0.0.1:1: connect: connection refused");
        daemon.with(client, &arguments(&["splunk-nonsense=1"], "true"))
            .fails(125, "unknown log opt 'splunk-nonsense' for splunk log driver");
    }
}

#[test]
fn what_is_refused_is_lost_and_what_fails_is_sent_again() {
    let daemon = Daemon::start();
    let (url, requests) = collector(&[503, 403]);
    let url = format!("splunk-url={url}");
    let options =
        [url.as_str(), "splunk-token=t", "splunk-format=raw", "splunk-verify-connection=false", "tag="];
    let script = "echo one; until test -e /go; do sleep 0.02; done; echo two";
    daemon.berth(&arguments(&options, script)).ok();
    let next = || {
        let (_, body) = requests.recv_timeout(Duration::from_secs(20)).unwrap();
        events(&body).iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(next(), ["one"], "answered with 503");
    assert_eq!(next(), ["one"], "answered with 403");
    daemon.berth(&["exec", "cc", "touch", "/go"]).ok();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(next());
    }
    assert_eq!(seen, ["[berth: 1 log messages could not be sent]", "two"]);
}

#[test]
fn requests_are_hidden_by_tls_from_who_vouches_for_itself() {
    let daemon = Daemon::start();
    let certificates = Certificates::make();
    let server = Server::start(&certificates, &[]);
    let url = format!("splunk-url=https://127.0.0.1:{}", server.port);
    let path = format!("splunk-capath={}", certificates.path("ca.pem").display());
    let known = [url.as_str(), "splunk-token=t"];
    daemon.berth(&arguments(&known, "echo hidden")).fails(125, "certificate signed by unknown authority");
    daemon.berth(&["rm", "cc"]).ok();
    let known = [url.as_str(), "splunk-token=t", &path, "splunk-verify-connection=false"];
    daemon.berth(&arguments(&known, "echo hidden")).ok();
    eventually("it came", || server.received().contains("\"line\":\"hidden\"").then_some(()));
    assert!(server.received().contains("Authorization: Splunk t\r\n"));
}
