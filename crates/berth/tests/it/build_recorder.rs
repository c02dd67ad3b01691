//! A daemon that keeps what builds send it, and answers as it is told.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufReader, Read, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::{Client, binary};
use crate::files;
use crate::output::{Output, feed};

/// What a daemon says of a build that works.
pub const BUILT: &str = concat!(
    "{\"stream\":\"Step 1/1 : FROM x\"}\r\n{\"stream\":\"\\n\"}\r\n{\"stream\":\"par\"}\r\n{\"stream\":\"tial\\n\"}\r\n",
    "{\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"abc\"}\r\n",
    "{\"aux\":{\"ID\":\"sha256:0123\"}}\r\n{\"stream\":\"Successfully built 0123\\n\"}\r\n"
);

/// One request.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Method and path, without the version.
    pub line: String,
    pub query: Vec<(String, String)>,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// An entry of a tar: kind, mode, owner, time, link, attributes and content.
pub type Entry = (String, String);

impl Request {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The context. The stock client's lacks its end where a Dockerfile was put aside.
    pub fn tar(&self) -> tar::Archive<impl Read + '_> {
        tar::Archive::new(self.body.as_slice().chain(std::io::repeat(0).take(4096)))
    }

    /// The files of the context, in their order.
    pub fn entries(&self) -> Vec<Entry> {
        let mut found = Vec::new();
        for entry in self.tar().entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let attributes: Vec<(String, Vec<u8>)> = match entry.pax_extensions().unwrap() {
                Some(all) => {
                    let all = all.map(|one| one.unwrap());
                    let all = all.map(|one| (one.key().unwrap().to_owned(), one.value_bytes().to_vec()));
                    all.filter(|(key, _)| key.starts_with("SCHILY")).collect()
                }
                None => Vec::new(),
            };
            let header = entry.header();
            let owner = (header.uid().unwrap(), header.gid().unwrap());
            let link = entry.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned());
            let about = format!(
                "{:?} {:o} {owner:?} {} {link:?} {attributes:?} {}",
                header.entry_type(),
                header.mode().unwrap() & 0o7777,
                header.mtime().unwrap(),
                files::digest(&content)
            );
            found.push((String::from_utf8_lossy(&entry.path_bytes()).into_owned(), about));
        }
        found
    }

    pub fn names(&self) -> Vec<String> {
        self.entries().into_iter().map(|(name, _)| name).collect()
    }

    /// The content of one file.
    pub fn file(&self, name: &str) -> String {
        for entry in self.tar().entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.path_bytes().as_ref() == name.as_bytes() {
                let mut content = String::new();
                entry.read_to_string(&mut content).unwrap();
                return content;
            }
        }
        panic!("no {name} in {:?}", self.names());
    }
}

/// A daemon that keeps what it is sent.
pub struct Recorder {
    pub folder: TempDir,
    pub requests: Arc<Mutex<Vec<Request>>>,
    answer: Arc<Mutex<(u16, String)>>,
}

impl Recorder {
    pub fn start() -> Recorder {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("daemon.sock")).unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let answer = Arc::new(Mutex::new((200, BUILT.to_owned())));
        let (kept, told) = (Arc::clone(&requests), Arc::clone(&answer));
        // It ends with the test.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (kept, told) = (Arc::clone(&kept), Arc::clone(&told));
                std::thread::spawn(move || serve(stream.unwrap(), &kept, &told));
            }
        });
        fs::create_dir(folder.path().join("context")).unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        Recorder { folder, requests, answer }
    }

    pub fn answers(&self, status: u16, text: &str) {
        *self.answer.lock().unwrap() = (status, text.to_owned());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn command<S: AsRef<OsStr>>(&self, client: Client, arguments: &[S]) -> Command {
        let mut command = match client {
            Client::Berth => Command::new(binary()),
            Client::Docker => Command::new("docker"),
        };
        for name in ["DOCKER_HOST", "BERTH_HOST", "BUILDKIT_PROGRESS", "NO_COLOR"] {
            command.env_remove(name);
        }
        command.env("DOCKER_CONFIG", self.path("home"));
        command.env("DOCKER_BUILDKIT", "0").env("FROM_OUTSIDE", "a value").current_dir(self.folder.path());
        command.arg("-H").arg(format!("unix://{}", self.path("daemon.sock").display())).args(arguments);
        command
    }

    /// Runs `build`, and gives its end with what the daemon was sent, if it was sent anything.
    pub fn build(&self, client: Client, arguments: &[&str], input: &[u8]) -> (Output, Option<Request>) {
        self.requests.lock().unwrap().clear();
        let output = feed(&mut self.command(client, &[&["build"], arguments].concat()), input);
        let request =
            self.requests.lock().unwrap().iter().find(|request| request.line == "POST /build").cloned();
        (output, request)
    }

    /// What both clients send, the stock one first.
    pub fn both(&self, arguments: &[&str], input: &[u8]) -> [Request; 2] {
        [Client::Docker, Client::Berth].map(|client| {
            let (output, request) = self.build(client, arguments, input);
            assert_eq!(output.code, 0, "{client:?} {arguments:?}: {output:?}");
            request.unwrap()
        })
    }

    /// Asserts that both clients send the same, and gives it.
    #[track_caller]
    pub fn same(&self, arguments: &[&str], input: &[u8]) -> Request {
        let [docker, berth] = self.both(arguments, input).map(|mut request| {
            for (name, value) in &mut request.query {
                // The order of an object's members is no one's.
                if let Ok(json @ Value::Object(_)) = serde_json::from_str(value) {
                    *value = json.to_string();
                }
                assert!(!name.is_empty());
            }
            request.query.sort();
            request
        });
        assert_eq!(docker.query, berth.query, "{arguments:?}");
        for name in ["content-type", "x-registry-config"] {
            assert_eq!(docker.headers.get(name), berth.headers.get(name), "{name} of {arguments:?}");
        }
        assert_eq!(docker.entries(), berth.entries(), "{arguments:?}");
        berth
    }
}

/// Serves one connection: a ping, or a build.
fn serve(stream: UnixStream, kept: &Mutex<Vec<Request>>, told: &Mutex<(u16, String)>) {
    let mut input = BufReader::new(stream.try_clone().unwrap());
    let mut output = stream;
    while let Some(request) = read(&mut input) {
        let is_ping = request.line.ends_with("/_ping");
        let (status, text) = if is_ping { (200, "OK".to_owned()) } else { told.lock().unwrap().clone() };
        let head = request.line.starts_with("HEAD");
        kept.lock().unwrap().push(request);
        let head_text = format!(
            "HTTP/1.1 {status} X\r\nApi-Version: 1.48\r\nOstype: linux\r\nDocker-Experimental: true\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            text.len()
        );
        let body = if head { "" } else { &text };
        if output.write_all([head_text.as_bytes(), body.as_bytes()].concat().as_slice()).is_err() {
            return;
        }
    }
}

fn read(input: &mut impl std::io::BufRead) -> Option<Request> {
    let mut line = String::new();
    if input.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let path =
        path.strip_prefix("/v1.").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(path);
    let query = query.split('&').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (decoded(name), decoded(value)));
    let mut request = Request {
        line: format!("{method} {path}"),
        query: query.filter_map(pair).collect(),
        ..Request::default()
    };
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        request.headers.insert(name.to_lowercase(), value.to_owned());
    }
    if request.headers.get("transfer-encoding").is_some_and(|kind| kind == "chunked") {
        loop {
            let mut line = String::new();
            input.read_line(&mut line).ok()?;
            let mut chunk = vec![0; usize::from_str_radix(line.trim(), 16).ok()? + 2];
            input.read_exact(&mut chunk).ok()?;
            if chunk.len() == 2 {
                return Some(request);
            }
            request.body.extend_from_slice(&chunk[..chunk.len() - 2]);
        }
    }
    let length = request.headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    request.body = vec![0; length];
    input.read_exact(&mut request.body).ok()?;
    Some(request)
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}
