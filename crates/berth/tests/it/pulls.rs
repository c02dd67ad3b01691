//! Pulls from a registry that fails in every phase, and lies.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::daemon::{Client, Daemon};
use crate::files::{self, Image, Layer};
use crate::output::eventually;

/// What happens to the answers about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection closes before anything is answered.
    NoAnswer,
    /// The connection closes after half of the body.
    Half,
    /// As `Half`, but only for the first request.
    HalfOnce,
    /// Half of the body comes, and then nothing.
    Stall,
    /// Half of the body comes, and the rest when the fault is lifted.
    Late,
    /// Another body of the same length.
    Other,
    /// A server error.
    Status(u16),
}

#[derive(Default)]
struct State {
    /// By a part of the path.
    fault: Option<(String, Fault)>,
    /// First lines and `Range` headers of all requests.
    requests: Vec<(String, String)>,
}

/// A registry with one image, `x:y`, inside the test's namespace; it ends with the test.
pub struct Registry {
    address: String,
    state: Arc<Mutex<State>>,
    config: String,
    pub layers: Vec<String>,
}

impl Registry {
    pub fn serve(image: &Image, change: impl FnOnce(&mut Value)) -> Registry {
        let blobs = image.oci_blobs();
        let (manifest, rest) = blobs.split_last().unwrap();
        let mut manifest: Value = serde_json::from_slice(manifest).unwrap();
        let config = manifest["config"]["digest"].as_str().unwrap().to_owned();
        let layers = manifest["layers"].as_array().unwrap().iter();
        let layers = layers.map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect();
        change(&mut manifest);
        let mut bodies: HashMap<String, Vec<u8>> =
            rest.iter().map(|blob| (format!("/v2/x/blobs/{}", files::digest(blob)), blob.clone())).collect();
        bodies.insert("/v2/x/manifests/y".to_owned(), serde_json::to_vec(&manifest).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let bodies = Arc::new(bodies);
            for connection in listener.incoming().flatten() {
                let (state, bodies) = (Arc::clone(&shared), Arc::clone(&bodies));
                // A client that goes away ends its connection's thread.
                std::thread::spawn(move || drop(answer(connection, &state, &bodies)));
            }
        });
        Registry { address, state, config, layers }
    }

    pub fn name(&self) -> String {
        format!("{}/x:y", self.address)
    }

    pub fn fail(&self, part: &str, fault: Fault) {
        self.state.lock().unwrap().fault = Some((part.to_owned(), fault));
    }

    pub fn heal(&self) {
        let mut state = self.state.lock().unwrap();
        state.fault = None;
        state.requests.clear();
    }

    /// Whether a part of a blob was asked for.
    fn was_resumed(&self) -> bool {
        self.state.lock().unwrap().requests.iter().any(|(_, range)| !range.is_empty())
    }

    /// Lifts the fault; what was asked is remembered.
    pub fn release(&self) {
        self.state.lock().unwrap().fault = None;
    }

    /// How often a part of a path was asked for.
    pub fn count(&self, part: &str) -> usize {
        self.state.lock().unwrap().requests.iter().filter(|(line, _)| line.contains(part)).count()
    }

    fn was_asked_for(&self, part: &str) -> bool {
        self.state.lock().unwrap().requests.iter().any(|(line, _)| line.contains(part))
    }
}

fn answer(
    mut connection: TcpStream,
    state: &Mutex<State>,
    bodies: &HashMap<String, Vec<u8>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(connection.try_clone()?).lines();
    let Some(Ok(first)) = lines.next() else { return Ok(()) };
    let mut range = String::new();
    for line in lines {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("range: bytes=") {
            range = value.trim_end_matches('-').to_owned();
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let fault = {
        let mut state = state.lock().unwrap();
        state.requests.push((first, range.clone()));
        let found = state.fault.clone().filter(|(part, _)| path.contains(part.as_str()));
        if found.as_ref().is_some_and(|(_, fault)| *fault == Fault::HalfOnce) {
            state.fault = None;
        }
        found.map(|(_, fault)| fault)
    };
    let Some(body) = bodies.get(&path) else {
        return connection
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let from: usize = range.parse().unwrap_or(0);
    let mut body = body[from.min(body.len())..].to_vec();
    let status = match (&fault, from) {
        (Some(Fault::NoAnswer), _) => return Ok(()),
        (Some(Fault::Status(status)), _) => format!("{status} Broken"),
        (_, 0) => "200 OK".to_owned(),
        _ => "206 Partial Content".to_owned(),
    };
    if fault == Some(Fault::Other) {
        body.iter_mut().for_each(|byte| *byte ^= 0x55);
    }
    let range = format!("Content-Range: bytes {from}-{}/{}\r\n", from + body.len() - 1, from + body.len());
    let range = if from > 0 { range.as_str() } else { "" };
    let kind = if path.contains("manifests") {
        "application/vnd.oci.image.manifest.v1+json"
    } else {
        "application/octet-stream"
    };
    write!(
        connection,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{range}Connection: close\r\n\r\n",
        body.len()
    )?;
    match fault {
        Some(Fault::Half | Fault::HalfOnce) => connection.write_all(&body[..body.len() / 2]),
        Some(Fault::Late) => {
            connection.write_all(&body[..body.len() / 2])?;
            connection.flush()?;
            eventually("the fault is lifted", || state.lock().unwrap().fault.is_none().then_some(()));
            connection.write_all(&body[body.len() / 2..])
        }
        Some(Fault::Stall) => {
            connection.write_all(&body[..body.len() / 2])?;
            connection.flush()?;
            // Until the client goes away.
            let mut rest = [0];
            std::io::Read::read(&mut connection, &mut rest).map(drop)
        }
        _ => connection.write_all(&body),
    }
}

/// An image whose layers are large enough to be cut, with noise that does not compress away.
pub fn image() -> Image {
    let noise = |seed: u32| -> Vec<u8> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        std::iter::repeat_with(next).take(400_000).collect()
    };
    let mut layers = files::busybox().layers;
    layers.push(Layer::new().file("noise", 0o644, noise(1)).bytes());
    layers.push(Layer::new().file("more", 0o644, noise(2)).bytes());
    Image { layers, config: files::busybox().config }
}

#[track_caller]
fn nothing_is_stored(daemon: &Daemon) {
    assert_eq!(daemon.berth(&["images", "-aq"]).ok(), "");
    let layers = std::fs::read_dir(daemon.data_root().join("layers")).unwrap().flatten();
    assert_eq!(layers.filter(|layer| layer.file_name() != "empty").count(), 0);
}

#[track_caller]
fn pulls_and_runs(daemon: &Daemon, registry: &Registry) {
    registry.heal();
    daemon.berth(&["pull", "-q", &registry.name()]).ok();
    let count =
        daemon.berth(&["run", "--rm", "--network", "none", &registry.name(), "wc", "-c", "/more"]).ok();
    assert_eq!(count, "400000 /more");
}

#[test]
fn a_pull_that_is_cut_in_any_phase_leaves_nothing_and_the_next_one_works() {
    let daemon = Daemon::empty(&[]);
    let registry = Registry::serve(&image(), |_| {});
    let last = registry.layers.last().unwrap().clone();
    for part in ["manifests", registry.config.as_str(), last.as_str()] {
        for fault in [Fault::NoAnswer, Fault::Half, Fault::Status(500)] {
            registry.fail(part, fault.clone());
            let output = daemon.berth(&["pull", &registry.name()]);
            assert_eq!(output.code, 1, "{part} {fault:?}: {output:?}");
            assert!(output.stderr.contains(&registry.address), "it says whose fault it is: {output:?}");
            nothing_is_stored(&daemon);
        }
    }
    pulls_and_runs(&daemon, &registry);
}

#[test]
fn a_layer_that_is_cut_once_is_resumed_within_the_same_pull() {
    let daemon = Daemon::empty(&[]);
    let registry = Registry::serve(&image(), |_| {});
    registry.fail(&registry.layers[1], Fault::HalfOnce);
    daemon.berth(&["pull", &registry.name()]).ok();
    assert!(registry.was_resumed(), "the rest was asked for, not the whole");
    pulls_and_runs(&daemon, &registry);
}

#[test]
fn a_daemon_that_is_killed_in_a_pull_leaves_nothing_and_the_next_one_resumes() {
    let mut daemon = Daemon::empty(&[]);
    let registry = Registry::serve(&image(), |_| {});
    registry.fail(&registry.layers[2], Fault::Stall);
    let mut pull = daemon.client(Client::Berth, &["pull", &registry.name()]);
    let mut pull =
        pull.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let partial = daemon.data_root().join("staging/partial");
    eventually("a part of the layer is on the disk", || {
        // The layer in question: others may be on their way to their end.
        let hex = registry.layers[2].split_once(':')?.1;
        let mut files = std::fs::read_dir(&partial).ok()?.flatten();
        let file = files.find(|file| file.file_name().to_string_lossy().contains(hex))?;
        (file.metadata().ok()?.len() >= 150_000).then_some(())
    });
    daemon.kill();
    pull.wait().unwrap();
    daemon.launch();
    nothing_is_stored(&daemon);
    registry.heal();
    daemon.berth(&["pull", "-q", &registry.name()]).ok();
    assert!(registry.was_resumed());
    pulls_and_runs(&daemon, &registry);
}

#[test]
fn blobs_that_are_not_what_was_announced_are_refused() {
    let daemon = Daemon::empty(&[]);
    let registry = Registry::serve(&image(), |_| {});
    for part in [registry.config.clone(), registry.layers[1].clone()] {
        registry.fail(&part, Fault::Other);
        let output = daemon.berth(&["pull", &registry.name()]);
        assert!(output.code == 1 && output.stderr.contains("digest"), "{output:?}");
        assert!(output.stderr.contains(&part), "the digest is named: {output:?}");
        nothing_is_stored(&daemon);
        registry.heal();
    }
    pulls_and_runs(&daemon, &registry);
}

#[test]
fn sizes_that_are_not_what_was_announced_are_refused() {
    for difference in [-1, 1] {
        let daemon = Daemon::empty(&[]);
        let registry = Registry::serve(&image(), |manifest| {
            let size = manifest["layers"][1]["size"].as_i64().unwrap();
            manifest["layers"][1]["size"] = json!(size + difference);
        });
        let output = daemon.berth(&["pull", &registry.name()]);
        assert!(output.code == 1 && output.stderr.contains("bytes"), "{difference}: {output:?}");
        nothing_is_stored(&daemon);
        assert!(registry.was_asked_for(&registry.layers[1]));
    }
}

with_both_clients! {
    fn a_manifest_of_schema_1_is_refused_in_clear_words(daemon: &Daemon, client: Client) {
        let registry = Registry::serve(&image(), |manifest| {
            *manifest = json!({"schemaVersion": 1, "name": "x", "tag": "y", "fsLayers": [], "history": []});
        });
        daemon.with(client, &["pull", &registry.name()]).fails(1, "manifest schema 1 is not supported");
        assert!(!registry.was_asked_for("/blobs/"));
        assert_eq!(daemon.berth(&["images", "-q", &registry.name()]).ok(), "");
    }
}
