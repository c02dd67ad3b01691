//! A plugin as Docker's daemon knows them: it answers calls on a socket, and a file says where.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What a plugin replies that gives no answer, and ends the conversation.
pub const HANG_UP: &str = "hang up";

/// A plugin, found by its name until this is dropped.
pub struct PluginServer {
    pub name: String,
    pub folder: TempDir,
    specification: PathBuf,
}

impl PluginServer {
    /// One that `reply` answers for: called with a method and its question. Its threads are in the caller's network
    /// namespace.
    pub fn start(reply: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> PluginServer {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let folder = tempfile::tempdir().unwrap();
        let name = format!("berth-plugin-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        fs::create_dir_all("/etc/docker/plugins").unwrap();
        let specification = PathBuf::from(format!("/etc/docker/plugins/{name}.json"));
        let server = PluginServer { name, folder, specification };
        server.serve(reply);
        let document = json!({"Name": server.name, "Addr": format!("unix://{}", server.socket().display())});
        fs::write(&server.specification, document.to_string()).unwrap();
        server
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("plugin.sock")
    }

    /// Answers from now on, one call at a time.
    pub fn serve(&self, reply: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if let Some((method, question)) = receive(&mut stream) {
                    let reply = reply(&method, &question);
                    if reply == HANG_UP {
                        continue;
                    }
                    let text = reply.to_string();
                    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
                }
            }
        });
    }
}

impl Drop for PluginServer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.specification);
    }
}

/// Reads one call.
fn receive(stream: &mut UnixStream) -> Option<(String, Value)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let method = head.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
    let length =
        head.to_lowercase().split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse();
    let mut body = vec![0; length.unwrap()];
    stream.read_exact(&mut body).unwrap();
    Some((method, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// What a plugin was called for, in order.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<Vec<(String, Value)>>>);

impl Calls {
    pub fn note(&self, method: &str, question: &Value) {
        self.0.lock().unwrap().push((method.to_owned(), question.clone()));
    }

    /// The questions of one method.
    pub fn of(&self, method: &str) -> Vec<Value> {
        let calls = self.0.lock().unwrap();
        calls.iter().filter(|(called, _)| called == method).map(|(_, question)| question.clone()).collect()
    }

    pub fn count(&self, method: &str) -> usize {
        self.of(method).len()
    }
}
