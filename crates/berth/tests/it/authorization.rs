//! Authorization plugins: what they see, and that nothing gets past them.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::{Client, Daemon};
use crate::daemon_tls::Certificates;
use crate::files;
use crate::output::{eventually, run};
use crate::raw;

type Judge = fn(&str, &Value) -> (u16, Value);

/// A plugin on a socket of its own, which a file in `/etc/docker/plugins` names.
struct Plugin {
    name: String,
    specification: PathBuf,
    /// What it was shown, with the method.
    seen: Arc<Mutex<Vec<(String, Value)>>>,
    _folder: TempDir,
}

impl Plugin {
    fn start(judge: Judge) -> Plugin {
        Plugin::of_kind("authz", judge)
    }

    fn of_kind(kind: &'static str, judge: Judge) -> Plugin {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("plugin.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let name = format!("berth-it-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        fs::create_dir_all("/etc/docker/plugins").unwrap();
        let specification = PathBuf::from(format!("/etc/docker/plugins/{name}.spec"));
        fs::write(&specification, format!("unix://{}\n", socket.display())).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shown = Arc::clone(&shown);
                std::thread::spawn(move || serve(stream, kind, judge, &shown));
            }
        });
        Plugin { name, specification, seen, _folder: folder }
    }

    fn flag(&self) -> String {
        format!("--authorization-plugin={}", self.name)
    }

    /// What it was shown about this path, for requests or for answers.
    fn shown(&self, method: &str, path: &str) -> Vec<Value> {
        let seen = self.seen.lock().unwrap();
        let fits = |(called, message): &&(String, Value)| {
            called == method
                && message["RequestUri"].as_str().unwrap().split('?').next().unwrap().ends_with(path)
        };
        seen.iter().filter(fits).map(|(_, message)| message.clone()).collect()
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.specification);
    }
}

fn serve(mut stream: UnixStream, kind: &str, judge: Judge, seen: &Mutex<Vec<(String, Value)>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let method = head.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
    let length = head
        .to_lowercase()
        .split("content-length: ")
        .nth(1)
        .map(|rest| rest.lines().next().unwrap().parse::<usize>().unwrap());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    let (status, answer) = if method == "Plugin.Activate" {
        (200, json!({ "Implements": [kind] }))
    } else {
        let message: Value = serde_json::from_slice(&body).unwrap();
        seen.lock().unwrap().push((method.clone(), message.clone()));
        judge(&method, &message)
    };
    let text = answer.to_string();
    let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{text}", text.len());
}

const REQUEST: &str = "AuthZPlugin.AuthZReq";
const RESPONSE: &str = "AuthZPlugin.AuthZRes";

fn allow(_: &str, _: &Value) -> (u16, Value) {
    (200, json!({ "Allow": true }))
}

/// The bytes of a field in base64.
fn decoded(message: &Value, field: &str) -> String {
    let Some(text) = message[field].as_str() else { return String::new() };
    let output = crate::output::feed(Command::new("base64").arg("-d"), text.as_bytes());
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout
}

fn load(daemon: &Daemon) {
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
}

#[test]
fn plugins_see_requests_and_answers_in_turn() {
    let (first, second) = (Plugin::start(allow), Plugin::start(allow));
    // Named twice, it is asked once.
    let daemon = Daemon::empty(&[&first.flag(), &second.flag(), &first.flag()]);
    load(&daemon);
    for client in [Client::Berth, Client::Docker] {
        let arguments = ["run", "--rm", "-i", "--name", "told", "busybox", "sh", "-c", "cat; exit 3"];
        let output = crate::output::feed(&mut daemon.client(client, &arguments), b"streamed\n");
        assert_eq!((output.code, output.stdout.as_str()), (3, "streamed\n"), "{output:?}");
        let exec = daemon.background(&["--name", "ex", "busybox", "sleep", "1000"]);
        assert_eq!(daemon.with(client, &["exec", "ex", "echo", "hi"]).ok(), "hi");
        daemon.with(client, &["rm", "-f", &exec]).ok();
        daemon.with(client, &["logs", "absent"]).fails(1, "No such container: absent");
    }
    for plugin in [&first, &second] {
        let created = plugin.shown(REQUEST, "/containers/create");
        assert_eq!(created.len(), 4);
        for message in &created {
            let body: Value = serde_json::from_str(&decoded(message, "RequestBody")).unwrap();
            assert_eq!(body["Image"], "busybox");
            assert_eq!(message["RequestMethod"], "POST");
            assert_eq!(message["RequestHeaders"]["Content-Type"], "application/json");
            assert_eq!(message["User"], Value::Null);
        }
        let answered = plugin.shown(RESPONSE, "/containers/create");
        assert_eq!(answered.len(), 4);
        assert_eq!(answered[0]["ResponseStatusCode"], 201);
        assert!(decoded(&answered[0], "ResponseBody").contains("\"Id\""), "{}", answered[0]);
        // An archive is not shown.
        let loaded = plugin.shown(REQUEST, "/images/load");
        assert_eq!((loaded.len(), &loaded[0]["RequestBody"]), (1, &Value::Null));
    }
    assert_eq!(daemon.with(Client::Docker, &["info", "-f", "{{len .Plugins.Authorization}}"]).ok(), "2");
}

/// Denies containers with privileges, and secrets in answers.
fn careful(method: &str, message: &Value) -> (u16, Value) {
    let body = decoded(message, if method == REQUEST { "RequestBody" } else { "ResponseBody" });
    let uri = message["RequestUri"].as_str().unwrap();
    let create = method == REQUEST && uri.split('?').next().unwrap().ends_with("/containers/create");
    // As simple as real ones: what has no body is nothing to object to.
    if (create && body.contains("\"Privileged\":true")) || (method == RESPONSE && body.contains("secret")) {
        return (200, json!({ "Allow": false, "Msg": "not here" }));
    }
    if uri.ends_with("/broken/json") {
        return (500, json!({ "Err": "out of order" }));
    }
    (200, json!({ "Allow": true }))
}

#[test]
fn what_a_plugin_denies_is_refused_in_dockers_words() {
    let plugin = Plugin::start(careful);
    let daemon = Daemon::empty(&[&plugin.flag()]);
    load(&daemon);
    for client in [Client::Berth, Client::Docker] {
        let denied = format!("authorization denied by plugin {}: not here", plugin.name);
        daemon.with(client, &["run", "--privileged", "busybox"]).fails(125, &denied);
        daemon.with(client, &["create", "--name", "sec", "--label", "a=secret", "busybox"]).ok();
        daemon.with(client, &["inspect", "--type", "container", "sec"]).fails(1, &denied);
        daemon.with(client, &["rm", "sec"]).ok();
        let failed = format!("plugin {} failed with error: {REQUEST}: out of order", plugin.name);
        daemon.with(client, &["inspect", "--type", "container", "broken"]).fails(1, &failed);
    }
    let answer = raw::exchange(&daemon, &raw::request("GET", "/containers/broken/json", "", b""));
    assert_eq!(raw::status(&answer), 500, "{answer}");
    let body = br#"{"Image":"busybox","HostConfig":{"Privileged":true}}"#;
    let json = "Content-Type: application/json\r\n";
    let answer = raw::exchange(&daemon, &raw::request("POST", "/containers/create", json, body));
    assert_eq!(raw::status(&answer), 403, "{answer}");
}

/// R13: a body that the plugin does not see, or not whole, is never obeyed (CVE-2024-41110, CVE-2026-34040).
#[test]
fn r13_nothing_gets_past_a_plugin_unseen() {
    let plugin = Plugin::start(careful);
    let daemon = Daemon::empty(&[&plugin.flag()]);
    load(&daemon);
    let body = r#"{"Image":"busybox","HostConfig":{"Privileged":true}}"#;
    let json = "Content-Type: application/json\r\n";
    let post = |path: &str, lines: &str, body: &str| raw::request("POST", path, lines, body.as_bytes());
    let framed = |lines: &str, body: &str| {
        format!("POST /containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n{body}")
            .into_bytes()
    };
    let chunks = format!("5\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n", &body[..5], body.len() - 5, &body[5..]);
    let large = format!("{}{body}", " ".repeat(5 << 20));
    let chunked = format!("{json}Transfer-Encoding: chunked\r\n");
    let none = format!("{json}Content-Length: 0\r\n");
    let both = format!("{chunked}Content-Length: 0\r\n");
    let long = format!("{json}Content-Length: {}\r\n", body.len() + 1);
    let attempts = [
        ("as it should be", post("/containers/create", json, body), 403),
        ("in chunks", framed(&chunked, &chunks), 403),
        ("chunks and a length of nothing", framed(&both, &chunks), 403),
        ("a length of nothing", framed(&none, body), 400),
        ("no length at all", framed(json, body), 400),
        ("no type", post("/containers/create", "", body), 400),
        ("another type", post("/containers/create", "Content-Type: text/plain\r\n", body), 400),
        ("two types", post("/containers/create", &format!("Content-Type: text/plain\r\n{json}"), body), 400),
        ("a parameter", post("/containers/create", "Content-Type: application/json;x=y\r\n", body), 403),
        ("too large", post("/containers/create", json, &large), 413),
        ("slashes", post("//v1.55//containers///create", json, body), 403),
        ("escapes", post("/%63ontainers%2Fcreate", json, body), 403),
        ("an absolute address", post("http://auth/containers/create", json, body), 403),
        ("below auth", post("/auth/../containers/create", json, body), 404),
    ];
    for (what, request, expected) in attempts {
        // What is too large is not read to its end: the connection may break while it is written.
        let mut stream = raw::connect(&daemon);
        let written = stream.write_all(&request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(written.is_ok() || expected == 413, "{what}: {written:?}");
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(raw::status(&answer), expected, "{what}: {answer}");
    }
    // One that breaks off is not shown.
    let before = plugin.shown(REQUEST, "/containers/create").len();
    let mut stream = raw::connect(&daemon);
    stream.write_all(&framed(&long, body)).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert_eq!(plugin.shown(REQUEST, "/containers/create").len(), before, "{answer}");
    assert_eq!(daemon.berth(&["ps", "-aq"]).ok(), "", "nothing was created");
}

fn only_the_client(_: &str, message: &Value) -> (u16, Value) {
    let known = message["User"] == "client" && message["UserAuthNMethod"] == "TLS";
    let local = message["User"] == Value::Null;
    (200, json!({ "Allow": known || local, "Msg": "who are you" }))
}

#[test]
fn the_user_is_who_the_certificate_names() {
    let certificates = Certificates::make();
    certificates.signed("visitor", "ca", "extendedKeyUsage=clientAuth");
    let plugin = Plugin::start(only_the_client);
    let _daemon = certificates.daemon(&["--tlsverify", &plugin.flag()]);
    for client in [Client::Docker, Client::Berth] {
        certificates.run(client, "client", &["ps"]).ok();
        certificates.run(client, "visitor", &["ps"]).fails(1, "who are you");
    }
    let users: Vec<Value> =
        plugin.shown(REQUEST, "/containers/json").iter().map(|message| message["User"].clone()).collect();
    assert_eq!(users, ["client", "visitor", "client", "visitor"]);
    let message = &plugin.shown(RESPONSE, "/containers/json")[0];
    let seen = decoded(&json!({ "pem": message["RequestPeerCertificates"][0] }), "pem");
    assert_eq!(seen, fs::read_to_string(certificates.path("client.pem")).unwrap());
}

fn deny(_: &str, message: &Value) -> (u16, Value) {
    let allowed = message["RequestUri"].as_str().unwrap().ends_with("/_ping");
    (200, json!({ "Allow": allowed, "Msg": "closed" }))
}

#[test]
fn plugins_change_while_the_daemon_runs() {
    let plugin = Plugin::start(deny);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("daemon.json");
    fs::write(&file, "{}").unwrap();
    let daemon = Daemon::empty(&["--config-file", file.to_str().unwrap()]);
    let reload = |json: Value, told: &str| {
        let count = || daemon.log().matches(told).count();
        let before = count();
        fs::write(&file, json.to_string()).unwrap();
        kill_process(Pid::from_raw(daemon.pid().cast_signed()).unwrap(), Signal::HUP).unwrap();
        eventually(told, || (count() > before).then_some(()));
    };
    daemon.berth(&["ps"]).ok();
    reload(json!({ "authorization-plugins": [plugin.name] }), "Reloaded configuration");
    daemon.berth(&["ps"]).fails(1, "closed");
    // One that is not there opens no door.
    reload(json!({ "authorization-plugins": ["berth-it-absent"] }), "Error reloading configuration");
    daemon.with(Client::Docker, &["ps"]).fails(1, "closed");
    reload(json!({}), "Reloaded configuration");
    daemon.berth(&["ps"]).ok();
}

#[test]
fn a_daemon_without_its_plugin_does_not_start() {
    let plugin = Plugin::of_kind("VolumeDriver", allow);
    let mut daemon = Daemon::empty(&[]);
    daemon.stop();
    let output = run(daemon.command().arg(plugin.flag()));
    output
        .fails(1, "failed to validate authorization plugin: Plugin does not implement the requested driver");
}
