//! An engine with an image, and clients of it.

use std::future::Future;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_api::container::{Config, CreateRequest, HostConfig, Inspect};
use berth_api::stream::{Decoder, Stream};
use berth_engine::{Engine, Settings, op};
use berth_oci::{Digest, chain_ids};
use berth_storage::{ImageRecord, NewLayer, Options, Source, Storage, Tag};
use bytes::Bytes;
use tempfile::TempDir;

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Directories and settings of an engine.
pub struct World {
    root: TempDir,
    cgroup: String,
}

/// Runs a test with an engine.
pub fn with_engine<F: Future<Output = ()>>(test: impl FnOnce(Arc<World>) -> F) {
    berth_sys::rtnetlink::loopback_up().unwrap();
    if std::env::var_os("BERTH_LOG").is_some() {
        tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG).init();
    }
    let world = Arc::new(World::new());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let test = tokio::time::timeout(Duration::from_secs(100), test(Arc::clone(&world)));
        test.await.expect("the test comes to an end");
    });
}

impl World {
    fn new() -> World {
        let world = World {
            root: tempfile::tempdir().unwrap(),
            cgroup: format!("/berth-engine-test-{}", std::process::id()),
        };
        busybox(&world.root.path().join("data"));
        world
    }

    /// The exec root.
    pub fn exec_root(&self) -> std::path::PathBuf {
        self.root.path().join("exec")
    }

    /// The data root.
    pub fn data_root(&self) -> std::path::PathBuf {
        self.root.path().join("data")
    }

    /// The parent of all cgroups.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// An engine; call it again for the next one.
    pub async fn open(&self) -> Arc<Engine> {
        self.open_with(|_| ()).await
    }

    /// An engine with other settings.
    pub async fn open_with(&self, change: impl FnOnce(&mut Settings)) -> Arc<Engine> {
        let mut settings = Settings::new(self.data_root(), self.exec_root());
        settings.cgroup_parent.clone_from(&self.cgroup);
        settings.keep_free_bytes = 0;
        change(&mut settings);
        Engine::open(settings).await.unwrap()
    }

    /// Ends an engine without a word, as far as that can be done within a process.
    pub async fn lose(&self, engine: Arc<Engine>) {
        assert_eq!(Arc::strong_count(&engine), 1, "nobody else holds the engine");
        drop(engine);
        // Its lock goes when its last task has seen the end.
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            match Storage::open(self.data_root(), Options::default()) {
                Ok(_) => return,
                Err(error) if std::time::Instant::now() > deadline => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What a failed test has left running.
        for folder in std::fs::read_dir(self.exec_root().join("containers")).into_iter().flatten().flatten() {
            let path = format!("{}/{}", self.cgroup, folder.file_name().to_string_lossy());
            if let Ok(cgroup) = berth_runtime::cgroup::Manager::for_path(&path) {
                let _ = cgroup.kill();
                let _ = cgroup.remove();
            }
        }
        for path in [format!("{}/shims", self.cgroup), self.cgroup.clone()] {
            if let Ok(cgroup) = berth_runtime::cgroup::Manager::for_path(&path) {
                let _ = cgroup.kill();
                let _ = cgroup.remove();
            }
        }
    }
}

/// Stores the image `busybox` in a data root.
fn busybox(root: &Path) {
    let storage = Storage::open(root, Options::default()).unwrap();
    let mut lease = storage.lease();
    let staging = storage.layers().stage().unwrap();
    let files = staging.path();
    for directory in ["bin", "tmp", "etc", "proc", "sys", "dev"] {
        std::fs::create_dir(files.join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", files.join("bin/busybox")).expect("busybox-static is installed");
    let list = std::process::Command::new("/bin/busybox").arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|applet| *applet != "busybox") {
        std::os::unix::fs::symlink("busybox", files.join("bin").join(applet)).unwrap();
    }
    std::fs::write(files.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n").unwrap();
    std::fs::write(files.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
    let diff = Digest::of(b"the layer");
    let chain = chain_ids(std::slice::from_ref(&diff)).remove(0);
    let layer = NewLayer { chain: chain.clone(), parent: None, diff: diff.clone(), size: 1 };
    storage.layers().commit(staging, &layer, &mut lease).unwrap();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["PATH=/bin"],"Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":["{diff}"]}}}}"#
    );
    let manifest = b"{}".to_vec();
    for document in [config.as_bytes(), &manifest] {
        storage.blobs().put(&Digest::of(document), document, &mut lease).unwrap();
    }
    let target = Digest::of(&manifest);
    let image = ImageRecord { id: Digest::of(config.as_bytes()), chain: Some(chain), size: 1, created: None };
    let tag = Tag { name: "docker.io/library/busybox:latest".into(), target: target.clone() };
    storage.images().put(&image, &[Source { manifest: target, index: None }], &[tag]).unwrap();
}

/// A request for a container without a network.
pub fn request(command: &[&str]) -> CreateRequest {
    CreateRequest {
        config: Config {
            image: "busybox".into(),
            cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
            ..Default::default()
        },
        host_config: Some(HostConfig { network_mode: "none".into(), ..Default::default() }),
        networking_config: None,
    }
}

/// A request for a shell's script.
pub fn script(text: &str) -> CreateRequest {
    request(&["sh", "-c", text])
}

/// Creates a container.
pub async fn create(engine: &Arc<Engine>, name: &str, request: CreateRequest) -> String {
    let op = op::CreateContainer::parse(Some(name), None, request).unwrap();
    engine.create(op).await.unwrap().id
}

/// Creates and starts a container.
pub async fn start(engine: &Arc<Engine>, name: &str, request: CreateRequest) -> String {
    let id = create(engine, name, request).await;
    engine.start(name).await.unwrap();
    id
}

/// What a client sees of a container.
pub async fn inspect(engine: &Engine, name: &str) -> Inspect {
    engine.inspect(name, false).await.unwrap()
}

/// Its state and exit code in words.
pub async fn state(engine: &Engine, name: &str) -> String {
    let state = inspect(engine, name).await.state;
    format!("{} {}", state.status.as_str(), state.exit_code)
}

/// Waits until a container does not run.
pub async fn wait(engine: &Engine, name: &str) -> i64 {
    let waiting = engine.wait(name, op::WaitCondition::NotRunning).await.unwrap();
    tokio::time::timeout(PATIENCE, waiting.finish()).await.expect("it ends").unwrap().status_code
}

/// Asks again until `probe` gives something, for what has no event to wait for.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A whole log, standard output and error.
pub async fn log(engine: &Engine, name: &str) -> (String, String) {
    let op = op::Logs { stdout: true, stderr: true, ..Default::default() };
    collect(engine.logs(name, op).await.unwrap()).await
}

/// Reads a log to its end.
pub async fn collect(mut log: berth_engine::LogStream) -> (String, String) {
    let mut texts = (String::new(), String::new());
    while let Some(line) = log.lines.recv().await {
        let (stream, line) = line.unwrap();
        let text = String::from_utf8(line.to_vec()).unwrap();
        match stream {
            Stream::Stderr => texts.1.push_str(&text),
            _ => texts.0.push_str(&text),
        }
    }
    texts
}

/// A client's end of a connection, and the engine's.
pub fn connection() -> (UnixStream, OwnedFd) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    theirs.set_nonblocking(true).unwrap();
    (ours, theirs.into())
}

/// Reads a framed connection to its end: standard output and error.
pub async fn frames(mut connection: UnixStream) -> (String, String) {
    let bytes = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        connection.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let mut input = Bytes::from(bytes.await.unwrap());
    let mut decoder = Decoder::new();
    let mut texts = (Vec::new(), Vec::new());
    while let Some(chunk) = decoder.next(&mut input).unwrap() {
        match chunk.stream {
            Stream::Stderr => texts.1.extend_from_slice(&chunk.payload),
            _ => texts.0.extend_from_slice(&chunk.payload),
        }
    }
    (String::from_utf8(texts.0).unwrap(), String::from_utf8(texts.1).unwrap())
}
