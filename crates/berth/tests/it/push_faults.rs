//! Pushes through a network that cuts, and to registries that lie.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::daemon::{Client, Daemon};
use crate::files::{self, Image, Layer};
use crate::output::feed;
use crate::registry::{ADDRESS, Registry};

const PROXY: &str = "127.0.0.1:5001";

/// What happens to requests on their way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The next upload ends after so many bytes of its body, and its connection with it.
    CutOnce(u64),
    /// Every upload does.
    Cut(u64),
    /// Every request of this method is answered with this status and nothing of the registry's.
    Refuse(&'static str, u16),
    /// So is every wish to mount a blob.
    RefuseMount(u16),
    /// Every request of these methods is sent with this status to the same place of this server once.
    Move(&'static [&'static str], &'static str, u16),
}

/// Between the daemon and a registry.
struct Proxy {
    fault: Arc<Mutex<Option<Fault>>>,
    /// Head lines of requests, and after a space their `Content-Range`.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(fault: Option<Fault>) -> Proxy {
        let listener = TcpListener::bind(PROXY).unwrap();
        let proxy = Proxy { fault: Arc::new(Mutex::new(fault)), requests: Arc::default() };
        let (fault, requests) = (Arc::clone(&proxy.fault), Arc::clone(&proxy.requests));
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (fault, requests) = (Arc::clone(&fault), Arc::clone(&requests));
                // A side that goes away ends its connection's thread.
                std::thread::spawn(move || drop(pass(connection, &fault, &requests)));
            }
        });
        proxy
    }

    fn asked(&self, part: &str) -> Vec<String> {
        self.requests.lock().unwrap().iter().filter(|line| line.contains(part)).cloned().collect()
    }
}

/// One request and its answer, after which the connection ends.
fn pass(
    mut near: TcpStream,
    fault: &Mutex<Option<Fault>>,
    requests: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(near.try_clone()?);
    let mut head = String::new();
    let (mut range, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let before = head.len();
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
        match head[before..].to_lowercase().split_once(':') {
            Some(("content-range", value)) => value.trim().clone_into(&mut range),
            Some(("content-length", value)) => length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    let first = head.lines().next().unwrap_or_default().to_owned();
    requests.lock().unwrap().push(format!("{first} {range}"));
    let method = first.split(' ').next().unwrap_or_default();
    let now = {
        let mut fault = fault.lock().unwrap();
        let now = *fault;
        if matches!(now, Some(Fault::CutOnce(bound)) if length > bound) && method == "PATCH" {
            *fault = None;
        }
        now
    };
    let is_mount = first.contains("?mount=");
    let bound = match now {
        Some(Fault::Move(methods, to, status)) if methods.contains(&method) && !first.contains("moved=1") => {
            // The body was for nothing, but it is sent all the same.
            std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
            let path = first.split(' ').nth(1).unwrap_or_default();
            let sign = if path.contains('?') { '&' } else { '?' };
            return write!(
                near,
                "HTTP/1.1 {status} Moved\r\nLocation: {to}{path}{sign}moved=1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        Some(Fault::RefuseMount(status)) if is_mount => {
            return write!(
                near,
                "HTTP/1.1 {status} No\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
            );
        }
        Some(Fault::Refuse(refused, status)) if refused == method => {
            let body =
                r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
            return write!(
                near,
                "HTTP/1.1 {status} No\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
        Some(Fault::CutOnce(bound) | Fault::Cut(bound)) if method == "PATCH" && length > bound => bound,
        _ => u64::MAX,
    };
    let mut far = TcpStream::connect(ADDRESS)?;
    // The registry tells the daemon that no more requests can come this way.
    far.write_all(head.trim_end().as_bytes())?;
    far.write_all(b"\r\nConnection: close\r\n\r\n")?;
    let (mut back, mut answer) = (near.try_clone()?, far.try_clone()?);
    let answering = std::thread::spawn(move || {
        // Until the registry has said everything; a cut upload has no answer that arrives.
        if bound == u64::MAX {
            let _ = std::io::copy(&mut answer, &mut back);
            let _ = back.shutdown(Shutdown::Both);
        }
    });
    let copied = std::io::copy(&mut (&mut reader).take(bound), &mut far);
    if bound != u64::MAX {
        let _ = far.shutdown(Shutdown::Both);
        let _ = near.shutdown(Shutdown::Both);
    }
    let _ = answering.join();
    copied.map(drop)
}

/// An image with noise that does not compress away.
fn image() -> Image {
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(6_000_000)
    .collect();
    let mut layers = files::busybox().layers;
    layers.push(Layer::new().file("noise", 0o644, noise).bytes());
    Image { layers, config: files::busybox().config }
}

/// A daemon with the image under a name that leads through the proxy.
fn daemon() -> (Daemon, String) {
    let daemon = Daemon::empty(&[]);
    let name = format!("{PROXY}/cut:1");
    let archive = files::write(daemon.root.path(), "cut.tar", &image().docker_archive(&name));
    daemon.berth(&["load", "-q", "-i", &archive]).ok();
    (daemon, name)
}

#[test]
fn an_upload_that_is_cut_succeeds_all_the_same() {
    let (daemon, _) = daemon();
    let _registry = Registry::start(daemon.root.path());
    let proxy = Proxy::start(None);
    for client in [Client::Berth, Client::Docker] {
        let name = format!("{PROXY}/{client:?}:1").to_lowercase();
        daemon.berth(&["tag", &format!("{PROXY}/cut:1"), &name]).ok();
        *proxy.fault.lock().unwrap() = Some(Fault::CutOnce(2_000_000));
        daemon.with(client, &["push", &name]).ok();
        daemon.berth(&["rmi", &name]).ok();
        daemon.with(client, &["pull", "-q", &name]).ok();
        let count = daemon.berth(&["run", "--rm", "--network", "none", &name, "wc", "-c", "/noise"]).ok();
        assert_eq!(count, "6000000 /noise");
    }
    // This registry forgets what is cut, and is asked all the same.
    assert!(!proxy.asked("GET /v2/berth/blobs/uploads/").is_empty(), "{:?}", proxy.asked(""));
}

/// A registry that keeps what arrived of an upload, and cuts the first long one.
#[derive(Default)]
struct Keeping {
    uploads: HashMap<String, Vec<u8>>,
    blobs: HashSet<String>,
    /// First bytes of all `Content-Range`s.
    resumed: Vec<usize>,
    has_cut: bool,
}

impl Keeping {
    fn start() -> Arc<Mutex<Keeping>> {
        let listener = TcpListener::bind(PROXY).unwrap();
        let state = Arc::<Mutex<Keeping>>::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || drop(keep(connection, &state)));
            }
        });
        state
    }

    /// The answer to a request whose body has arrived as far as it did; none: the connection is cut.
    fn answer(&mut self, method: &str, path: &str, range: &str, body: &[u8], whole: bool) -> Option<String> {
        let (place, query) = path.split_once('?').unwrap_or((path, ""));
        let held = self.uploads.get_mut(place);
        Some(match (method, held) {
            ("HEAD", _) if self.blobs.contains(place.rsplit('/').next()?) => reply("200 OK", "", ""),
            ("POST", _) => {
                let place = format!("/uploads/{}", self.uploads.len());
                self.uploads.insert(place.clone(), Vec::new());
                reply("202 Accepted", &format!("Location: {place}\r\n"), "")
            }
            ("GET", Some(held)) => {
                let range = format!("Range: 0-{}\r\nLocation: {place}?more\r\n", held.len().max(1) - 1);
                reply("204 No Content", &range, "")
            }
            ("PATCH", Some(held)) => {
                let first = range.split('-').next()?.parse().unwrap_or(0);
                if first != held.len() {
                    return Some(reply("416 Elsewhere", "", ""));
                }
                if first > 0 {
                    self.resumed.push(first);
                }
                held.extend_from_slice(body);
                if !whole {
                    return None;
                }
                reply("202 Accepted", &format!("Location: {place}?done\r\n"), "")
            }
            ("PUT", Some(held)) => {
                let digest = files::digest(held);
                let said = query.rsplit("digest=").next()?.replace("%3A", ":");
                assert_eq!(digest, said, "what arrived is what was announced");
                self.blobs.insert(digest);
                reply("201 Created", "", "")
            }
            ("PUT", None) if path.contains("/manifests/") => reply("201 Created", "", ""),
            ("GET", None) if path == "/v2/" => reply("200 OK", "", "{}"),
            _ => reply("404 No", "", ""),
        })
    }
}

fn keep(mut stream: TcpStream, state: &Mutex<Keeping>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let (mut first, mut range, mut length) = (String::new(), String::new(), 0_u64);
    lines.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? <= 2 {
            break;
        }
        match line.to_lowercase().split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse().unwrap_or(0),
            Some(("content-range", value)) => value.trim().clone_into(&mut range),
            _ => {}
        }
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let cut = {
        let mut state = state.lock().unwrap();
        let cut = method == "PATCH" && length > 3_000_000 && !state.has_cut;
        state.has_cut |= cut;
        cut
    };
    let mut body = Vec::new();
    lines.take(if cut { 2_000_000 } else { length }).read_to_end(&mut body)?;
    match state.lock().unwrap().answer(method, path, &range, &body, !cut) {
        Some(answer) => stream.write_all(answer.as_bytes()),
        None => stream.shutdown(Shutdown::Both),
    }
}

#[test]
fn an_upload_that_is_cut_goes_on_where_it_stopped() {
    let (daemon, name) = daemon();
    let registry = Keeping::start();
    for client in [Client::Berth, Client::Docker] {
        *registry.lock().unwrap() = Keeping::default();
        daemon.with(client, &["push", &name]).ok();
        assert_eq!(registry.lock().unwrap().resumed, [2_000_000]);
        let again = daemon.with(client, &["push", &name]).ok();
        assert!(again.contains("Layer already exists"), "{again}");
    }
}

#[test]
fn an_upload_that_is_always_cut_ends_and_a_later_one_succeeds() {
    let (daemon, name) = daemon();
    let _registry = Registry::start(daemon.root.path());
    let proxy = Proxy::start(Some(Fault::Cut(10)));
    let output = daemon.berth(&["push", &name]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains(PROXY), "it says whose fault it is: {output:?}");
    assert!(proxy.asked("manifests").is_empty(), "no manifest without its layers");
    *proxy.fault.lock().unwrap() = None;
    daemon.berth(&["push", &name]).ok();
    let manifests = proxy.asked("PUT /v2/cut/manifests/1");
    assert_eq!(manifests.len(), 1, "{manifests:?}");
}

#[test]
fn refusals_are_told_in_the_words_of_the_registry() {
    let (daemon, name) = daemon();
    let _registry = Registry::start(daemon.root.path());
    let proxy = Proxy::start(None);
    for (method, status) in [("POST", 403), ("PATCH", 403), ("PUT", 401), ("HEAD", 403)] {
        *proxy.fault.lock().unwrap() = Some(Fault::Refuse(method, status));
        for client in [Client::Berth, Client::Docker] {
            let output = daemon.with(client, &["push", &name]);
            assert_eq!(output.code, 1, "{method} {output:?}");
            assert!(output.stderr.contains("denied"), "{method} {status}: {output:?}");
        }
    }
    *proxy.fault.lock().unwrap() = None;
    daemon.berth(&["push", &name]).ok();
}

#[test]
fn requests_that_write_are_sent_on_within_their_server() {
    let (daemon, name) = daemon();
    let _registry = Registry::start(daemon.root.path());
    let proxy = Proxy::start(None);
    for (round, (to, status)) in
        [("", 307), ("http://127.0.0.1:5001", 308), ("", 308)].into_iter().enumerate()
    {
        let client = [Client::Berth, Client::Docker][round % 2];
        *proxy.fault.lock().unwrap() = Some(Fault::Move(&["POST", "PATCH", "PUT"], to, status));
        let moved = format!("{PROXY}/moved{round}:1");
        daemon.berth(&["tag", &name, &moved]).ok();
        daemon.with(client, &["push", &moved]).ok();
        let put = proxy.asked(&format!("PUT /v2/moved{round}/manifests/1"));
        assert!(put.len() == 2 && put[1].contains("moved=1"), "{put:?}");
        let patched = proxy.asked(&format!("PATCH /v2/moved{round}/blobs/uploads/"));
        let (moved_on, first): (Vec<_>, Vec<_>) = patched.iter().partition(|line| line.contains("moved=1"));
        assert!(!first.is_empty() && first.len() == moved_on.len(), "{patched:?}");
        daemon.with(client, &["pull", &moved]).ok();
    }
    // Another server is another matter.
    for (round, method) in ["POST", "PATCH", "PUT"].into_iter().enumerate() {
        let methods: &[_] = [&["POST"], &["PATCH"], &["PUT"]][round];
        *proxy.fault.lock().unwrap() = Some(Fault::Move(methods, "http://127.0.0.1:5000", 307));
        let other = format!("{PROXY}/other{round}:1");
        daemon.berth(&["tag", &name, &other]).ok();
        for client in [Client::Berth, Client::Docker] {
            let output = daemon.with(client, &["push", &other]).fails(1, "307 Temporary Redirect");
            assert!(output.stderr.contains(method), "{output:?}");
        }
        assert!(proxy.asked(&format!("PUT /v2/other{round}/manifests/1")).is_empty());
    }
}

#[test]
fn a_layer_that_may_not_be_mounted_is_uploaded() {
    let (daemon, name) = daemon();
    let _registry = Registry::start(daemon.root.path());
    let proxy = Proxy::start(None);
    daemon.berth(&["push", &name]).ok();
    for (round, status) in [401, 403, 404].into_iter().enumerate() {
        let client = [Client::Berth, Client::Docker][round % 2];
        *proxy.fault.lock().unwrap() = Some(Fault::RefuseMount(status));
        let target = format!("{PROXY}/again{status}:1");
        daemon.berth(&["tag", &name, &target]).ok();
        daemon.with(client, &["push", &target]).ok();
        assert!(!proxy.asked(&format!("POST /v2/again{status}/blobs/uploads/?mount=")).is_empty());
        assert!(!proxy.asked(&format!("PATCH /v2/again{status}/blobs/uploads/")).is_empty());
        daemon.berth(&["rmi", &target]).ok();
        daemon.with(client, &["pull", "-q", &target]).ok();
    }
}

/// A server that answers by the head of a request, and keeps all heads.
fn serve(address: &str, answer: impl Fn(&str) -> String + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let listener = TcpListener::bind(address).unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heads);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let Ok(reader) = stream.try_clone() else { continue };
            let mut reader = BufReader::new(reader);
            let (mut head, mut length) = (String::new(), 0_usize);
            while !head.ends_with("\r\n\r\n") {
                let before = head.len();
                if !matches!(reader.read_line(&mut head), Ok(1..)) {
                    break;
                }
                if let Some(value) = head[before..].to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
            }
            let mut body = vec![0; length];
            let _ = reader.read_exact(&mut body);
            let text =
                format!("{head}{}", if length < 10_000 { String::from_utf8_lossy(&body) } else { "".into() });
            kept.lock().unwrap().push(text.clone());
            let _ = stream.write_all(answer(&text).as_bytes());
        }
    });
    heads
}

fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[test]
fn credentials_stay_with_their_registry_when_uploads_go_elsewhere() {
    let elsewhere = "127.0.0.1:5003";
    let (daemon, _) = daemon();
    let main = serve(PROXY, move |request| {
        if !request.to_lowercase().contains("authorization: basic c29tzw9uztpzzwnyzxq=") {
            return reply("401 No", "WWW-Authenticate: Basic realm=\"x\"\r\n", "");
        }
        match request.split(' ').next().unwrap() {
            "GET" => reply("200 OK", "", "{}"),
            "HEAD" => reply("404 No", "", ""),
            "POST" => reply("202 Accepted", &format!("Location: http://{elsewhere}/upload?state=1\r\n"), ""),
            _ => reply("201 Created", "", ""),
        }
    });
    let other = serve(elsewhere, move |request| match request.split(' ').next().unwrap() {
        "PATCH" => reply("202 Accepted", &format!("Location: http://{elsewhere}/upload?state=2\r\n"), ""),
        _ => reply("201 Created", "", ""),
    });
    let login = ["login", "-u", "someone", "--password-stdin", PROXY];
    feed(&mut daemon.client(Client::Berth, &login), b"secret").ok();
    for client in [Client::Berth, Client::Docker] {
        other.lock().unwrap().clear();
        daemon.with(client, &["push", &format!("{PROXY}/cut:1")]).ok();
        let heads = other.lock().unwrap().clone();
        assert!(heads.iter().any(|head| head.starts_with("PATCH /upload?state=1 ")), "{heads:?}");
        assert!(
            heads.iter().any(|head| head.starts_with("PUT /upload?state=2&digest=sha256%3A")),
            "{heads:?}"
        );
        assert!(heads.iter().all(|head| !head.to_lowercase().contains("authorization")), "{heads:?}");
    }
    let heads = main.lock().unwrap().clone();
    assert!(heads.iter().any(|head| head.starts_with("PUT /v2/cut/manifests/1 ")), "{heads:?}");
}

#[test]
fn tokens_are_asked_for_pushes_and_logins_keep_what_they_are_given() {
    let (daemon, _) = daemon();
    let heads = serve(PROXY, move |request| {
        // The first one asks whether there is TLS, in TLS.
        let line = request.lines().next().unwrap_or_default();
        let lower = request.to_lowercase();
        if line.starts_with("GET /token?") {
            let allowed = lower.contains("authorization: basic c29tzw9uztpzzwnyzxq=");
            assert!(line.contains("service=s"), "{line}");
            let body = json!({"token": "t-login", "refresh_token": "t-refresh"}).to_string();
            return if allowed {
                reply("200 OK", "", &body)
            } else {
                reply("401 No", "", r#"{"details":"who?"}"#)
            };
        }
        if line.starts_with("POST /token") {
            let body = request.split("\r\n\r\n").nth(1).unwrap();
            let right = body.contains("grant_type=refresh_token")
                && body.contains("refresh_token=t-refresh")
                && body.contains("scope=repository%3Acut%3Apull%2Cpush");
            return if right {
                reply("200 OK", "", r#"{"access_token":"t-push"}"#)
            } else {
                reply("400 No", "", "{}")
            };
        }
        let wanted = if line.starts_with("GET /v2/ ") {
            "authorization: bearer t-login"
        } else {
            "authorization: bearer t-push"
        };
        if !lower.contains(wanted) {
            let realm = format!("WWW-Authenticate: Bearer realm=\"http://{PROXY}/token\",service=\"s\"\r\n");
            return reply("401 No", &realm, "");
        }
        match line.split(' ').next().unwrap() {
            "GET" => reply("200 OK", "", "{}"),
            "HEAD" => reply("404 No", "", ""),
            "POST" | "PATCH" => reply("202 Accepted", "Location: /upload\r\n", ""),
            _ => reply("201 Created", "", ""),
        }
    });
    for client in [Client::Berth, Client::Docker] {
        let login = ["login", "-u", "someone", "--password-stdin", PROXY];
        feed(&mut daemon.client(client, &login), b"wrong").fails(1, "unauthorized: who?");
        feed(&mut daemon.client(client, &login), b"secret").ok();
        let kept = std::fs::read_to_string(daemon.root.path().join("config.json")).unwrap();
        let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
        // "someone:" in base64: the token stands for the password.
        assert_eq!(kept["auths"][PROXY], json!({"auth": "c29tZW9uZTo=", "identitytoken": "t-refresh"}));
        heads.lock().unwrap().clear();
        daemon.with(client, &["push", &format!("{PROXY}/cut:1")]).ok();
        daemon.with(client, &["logout", PROXY]).ok();
        daemon.with(client, &["push", &format!("{PROXY}/cut:1")]).fails(1, "unauthorized: who?");
    }
}
