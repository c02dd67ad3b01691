//! Dockerfiles in the manner of known projects, of which the contexts lie in `projects/`: they are built from the mirrors
//! of packages, what comes of them runs, and podman's builder makes the same files of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::daemon::{Client, Daemon};
use crate::files::{self, Image};
use crate::output::eventually;
use crate::way_out::WayOut;

/// The moment that reproducible builds are made to have happened at.
const EPOCH: &str = "1760000000";

/// A daemon with images to build on, and a way to the mirrors.
struct Site {
    daemon: Daemon,
    port: u16,
    _way: WayOut,
}

impl Site {
    fn new(bases: &[PathBuf]) -> Site {
        let way = WayOut::open();
        let daemon = Daemon::empty(&[]);
        for archive in bases {
            daemon.berth(&["load", "-q", "-i", archive.to_str().unwrap()]).ok();
        }
        Site { port: way.listen(), daemon, _way: way }
    }

    /// The arguments that name the proxy at an address of this namespace.
    fn proxies(&self, host: &str) -> Vec<String> {
        let port = self.port;
        let of = |name: &str| ["--build-arg".to_owned(), format!("{name}_proxy=http://{host}:{port}")];
        [of("http"), of("https")].concat()
    }

    /// Builds a project, and gives the image's ID.
    #[track_caller]
    fn build(&self, client: Client, project: &str, more: &[&str]) -> String {
        let gateway = self.daemon.berth(&[
            "network",
            "inspect",
            "-f",
            "{{range .IPAM.Config}}{{.Gateway}}{{end}}",
            "bridge",
        ]);
        let file = self.daemon.root.path().join("iid");
        let mut command = self.daemon.client(client, &["build", "-t", project, "--iidfile"]);
        command.arg(&file).args(self.proxies(&gateway.ok())).args(more).arg(folder(project));
        patiently(command.env("DOCKER_BUILDKIT", "0"));
        fs::read_to_string(file).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.daemon.berth(&[&["run", "--rm"], arguments].concat()).ok()
    }

    /// Starts a container of the project's image, and waits until its health is well.
    fn healthy(&self, arguments: &[&str]) -> String {
        let id = self.daemon.background(arguments);
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.daemon.inspect(&id, "{{.State.Health.Status}}") != "healthy" {
            assert!(Instant::now() < deadline, "{}", self.daemon.berth(&["logs", &id]).ok());
            std::thread::sleep(Duration::from_millis(50));
        }
        id
    }

    /// All that there is to know of an image, to be compared with another's.
    fn about(&self, id: &str) -> String {
        let layers = self
            .daemon
            .berth(&["image", "inspect", "-f", "{{.Id}} {{json .Config}} {{.RootFS.Layers}}", id])
            .ok();
        layers + "\n" + &self.daemon.berth(&["history", "--no-trunc", id]).ok()
    }

    /// What a container answers to a command in it.
    fn exec(&self, id: &str, command: &[&str]) -> String {
        self.daemon.berth(&[&["exec", id], command].concat()).ok()
    }
}

fn folder(project: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/projects").join(project)
}

/// Runs a command that may take as long as the test may.
#[track_caller]
fn patiently(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:#?}");
}

/// The files of Debian, as a layer.
fn debian_layer() -> Vec<u8> {
    let archive = fs::File::open(files::debian_archive()).unwrap();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().ends_with("layer.tar") {
            let mut layer = Vec::new();
            entry.read_to_end(&mut layer).unwrap();
            return layer;
        }
    }
    panic!("an archive without a layer");
}

/// Debian, as `debian:bookworm-slim`.
fn debian_image() -> PathBuf {
    files::once("debian-slim.tar", |path| {
        image(path, "debian:bookworm-slim", vec![debian_layer()], json!([]))
    })
}

/// Python, as `python:3-slim`. It believes whom this machine believes.
fn python_image() -> PathBuf {
    files::once("python-slim.tar", |path| {
        let layer = path.with_extension("layer");
        let _ = fs::remove_file(&layer);
        files::debian(
            &layer,
            &[
                "--include=ca-certificates,python3-pip,python3-venv",
                "--dpkgopt=path-exclude=/usr/share/doc/*",
                "--customize-hook=rm \"$1\"/usr/lib/python3*/EXTERNALLY-MANAGED",
                "--customize-hook=ln -sf python3 \"$1\"/usr/bin/python",
                "--customize-hook=copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs",
            ],
        );
        image(path, "python:3-slim", vec![fs::read(&layer).unwrap()], json!([]));
        fs::remove_file(layer).unwrap();
    })
}

/// Rust, as `rust:1-slim`: this machine's, which makes static programs.
fn rust_image() -> PathBuf {
    files::once("rust-slim.tar", |path| {
        let found = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
        let root = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim());
        let mut tar = tar::Builder::new(Vec::new());
        tar.follow_symlinks(false);
        for part in ["bin/cargo", "bin/rustc"] {
            tar.append_path_with_name(root.join(part), Path::new("usr/local").join(part)).unwrap();
        }
        let libraries = fs::read_dir(root.join("lib")).unwrap().flatten();
        for file in libraries.filter(|entry| entry.file_type().unwrap().is_file()) {
            tar.append_path_with_name(file.path(), Path::new("usr/local/lib").join(file.file_name()))
                .unwrap();
        }
        for target in ["x86_64-unknown-linux-gnu/bin", TARGET] {
            let part = Path::new("lib/rustlib").join(target);
            tar.append_dir_all(Path::new("usr/local").join(&part), root.join(part)).unwrap();
        }
        let certificates = "etc/ssl/certs/ca-certificates.crt";
        tar.append_path_with_name(Path::new("/").join(certificates), certificates).unwrap();
        let layers = vec![debian_layer(), tar.into_inner().unwrap()];
        let flags = "-C linker=rust-lld -C linker-flavor=ld.lld -C link-self-contained=yes";
        let environment = json!([
            "CARGO_HOME=/usr/local/cargo",
            format!("CARGO_BUILD_TARGET={TARGET}"),
            format!("CARGO_BUILD_RUSTFLAGS={flags}"),
        ]);
        image(path, "rust:1-slim", layers, environment);
    })
}

/// What programs are made for: nothing but the compiler is needed for it.
const TARGET: &str = "x86_64-unknown-linux-musl";

/// Writes an archive of an image with further variables.
fn image(path: &Path, name: &str, layers: Vec<Vec<u8>>, variables: serde_json::Value) {
    let mut environment = vec![json!("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")];
    environment.extend(variables.as_array().unwrap().clone());
    let config = json!({"Env": environment, "Cmd": ["bash"]});
    fs::write(path, Image { layers, config }.docker_archive(name)).unwrap();
}

#[test]
fn nginx() {
    let site = Site::new(&[debian_image()]);
    site.build(Client::Docker, "nginx", &[]);
    let id = site.daemon.background(&["-p", "8088:80", "-e", "GREETING=hello from nginx", "nginx"]);
    let page = eventually("nginx answers", || {
        let mut stream = std::net::TcpStream::connect("127.0.0.1:8088").ok()?;
        std::io::Write::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.contains("200 OK").then_some(text)
    });
    assert!(page.ends_with("hello from nginx\n"), "{page}");
    eventually("the request is logged", || {
        site.daemon.berth(&["logs", &id]).ok().contains("GET / HTTP/1.0").then_some(())
    });
    assert_eq!(site.daemon.inspect(&id, "{{.Config.StopSignal}}"), "SIGQUIT");
    site.daemon.berth(&["stop", &id]).ok();
    assert_eq!(site.daemon.inspect(&id, "{{.State.ExitCode}}"), "0");
}

#[test]
fn redis() {
    let site = Site::new(&[debian_image()]);
    site.build(Client::Berth, "redis", &[]);
    let id = site.healthy(&["redis", "--save", ""]);
    assert_eq!(site.exec(&id, &["redis-cli", "set", "colour", "blue"]), "OK");
    assert_eq!(site.exec(&id, &["stat", "-c", "%U %a", "/data", "/proc/1"]), "redis 755\nredis 555");
    same_files(&site, "redis", &[]);
}

#[test]
fn postgres() {
    let site = Site::new(&[debian_image()]);
    site.build(Client::Docker, "postgres", &[]);
    assert_eq!(
        site.run(&["--entrypoint", "postgres", "postgres", "--version"]).split('.').next(),
        Some("postgres (PostgreSQL) 15")
    );
    let lacking = site.daemon.berth(&["run", "--rm", "postgres"]);
    lacking.fails(1, "a password is needed");
    let id = site.healthy(&[
        "-e",
        "POSTGRES_PASSWORD=sesame",
        "--shm-size=64m",
        "--health-cmd=pg_isready -h 127.0.0.1",
        "--health-interval=1s",
        "--health-retries=60",
        "postgres",
    ]);
    let query =
        "psql -qAt postgres://postgres:sesame@127.0.0.1 -c 'select number from visits; show lc_messages'";
    assert_eq!(site.exec(&id, &["bash", "-c", query]), "42\nen_US.utf8");
    site.daemon.berth(&["stop", &id]).ok();
    assert_eq!(site.daemon.inspect(&id, "{{.State.ExitCode}}"), "0");
}

#[test]
fn go() {
    let site = Site::new(&[python_image()]);
    let version = ["--build-arg", "VERSION=1.2", "--build-arg", &format!("SOURCE_DATE_EPOCH={EPOCH}")];
    let id = site.build(Client::Berth, "go", &version);
    assert_eq!(site.run(&["go"]), "go 1.2 as 65532");
    // The same once more, byte for byte.
    let again = site.build(Client::Docker, "go", &[&version[..], &["--no-cache"]].concat());
    assert_eq!(site.about(&again), site.about(&id));
    same_files(&site, "go", &version);
    site.build(Client::Berth, "go", &["--target", "test"]);
}

#[test]
fn rust() {
    let site = Site::new(&[rust_image()]);
    let epoch = format!("SOURCE_DATE_EPOCH={EPOCH}");
    let id = site.build(Client::Docker, "rust", &["--build-arg", &epoch]);
    assert_eq!(site.run(&["rust"]), "rust 20 listen = \"$ADDRESS\"");
    let again = site.build(Client::Berth, "rust", &["--build-arg", &epoch, "--no-cache"]);
    assert_eq!(site.about(&again), site.about(&id));
    same_files(&site, "rust", &["--build-arg", &epoch]);
}

#[test]
fn node() {
    let site = Site::new(&[python_image()]);
    site.build(Client::Berth, "node", &[]);
    let id = site.healthy(&["node"]);
    let ask =
        "fetch('http://127.0.0.1:3000').then(async (answer) => process.stdout.write(await answer.text()))";
    assert_eq!(site.exec(&id, &["node", "-e", ask]), "node, day of 86400000 ms");
    assert_eq!(
        site.exec(&id, &["stat", "-c", "%U:%G", ".", "node_modules", "server.js"]),
        "node:node\nnode:node\nnode:node"
    );
    assert_eq!(site.exec(&id, &["ls"]), "node_modules\npackage-lock.json\npackage.json\nserver.js");
}

#[test]
fn python() {
    let site = Site::new(&[python_image()]);
    let epoch = format!("SOURCE_DATE_EPOCH={EPOCH}");
    let id = site.build(Client::Docker, "python", &["--build-arg", &epoch]);
    assert_eq!(site.run(&["python"]), "python with bottle 0.13.4 as 900");
    let again = site.build(Client::Berth, "python", &["--build-arg", &epoch, "--no-cache"]);
    assert_eq!(site.about(&again), site.about(&id));
    same_files(&site, "python", &[]);
}

/// Those that take long. Run it with `./test --run-ignored only -E 'test(projects::)'`.
#[test]
#[ignore = "minutes"]
fn other_projects_have_the_same_files_as_podmans() {
    let site = Site::new(&[debian_image(), python_image()]);
    for project in ["nginx", "postgres", "node"] {
        site.build(Client::Berth, project, &[]);
        same_files(&site, project, &[]);
    }
}

/// What a file is, but for its times.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    kind: tar::EntryType,
    mode: u32,
    owner: (u64, u64),
    link: Option<PathBuf>,
    digest: String,
    attributes: Vec<(String, Vec<u8>)>,
}

/// Has podman build the same, and compares what comes of it with what came of ours.
#[track_caller]
fn same_files(site: &Site, project: &str, more: &[&str]) {
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        let of = |name: &str| site.daemon.root.path().join(name);
        // Its caches are not to stay either.
        command.env("TMPDIR", site.daemon.root.path());
        command.arg("--root").arg(of("podman")).arg("--runroot").arg(of("podman-run"));
        command.args(["--cgroup-manager", "cgroupfs", "--runtime", "runc", "--storage-driver", "overlay"]);
        command.args(arguments);
        command
    };
    let of = |name: &str| site.daemon.root.path().join(name).to_str().unwrap().to_owned();
    let base = match project {
        "nginx" | "redis" | "postgres" => debian_image(),
        "rust" => rust_image(),
        _ => python_image(),
    };
    patiently(&mut podman(&["load", "-q", "-i", base.to_str().unwrap()]));
    let mut build =
        podman(&["build", "--isolation", "chroot", "--network", "host", "--pull-never", "-t", project]);
    // An old builder has other words for the same.
    let plain = folder(project).join("Dockerfile.plain");
    if plain.exists() {
        build.arg("-f").arg(plain);
    }
    patiently(build.args(site.proxies("127.0.0.1")).args(more).arg(folder(project)));
    let theirs = of("theirs.tar");
    patiently(&mut podman(&["create", "--network", "none", "--name", "made", project, "x"]));
    patiently(&mut podman(&["export", "-o", &theirs, "made"]));
    patiently(&mut podman(&["rm", "made"]));
    let ours = of("ours.tar");
    site.daemon.berth(&["create", "--name", "made", project, "x"]).ok();
    site.daemon.berth(&["export", "-o", &ours, "made"]).ok();
    site.daemon.berth(&["rm", "made"]).ok();
    let (ours, theirs) = (entries(&ours), entries(&theirs));
    // Those of programs that come alone have little more than these.
    let least = if matches!(project, "go" | "rust") { 2 } else { 1000 };
    assert!(ours.len() >= least, "{}", ours.len());
    let mut wrong = Vec::new();
    for path in ours.keys().chain(theirs.keys().filter(|path| !ours.contains_key(*path))) {
        if ours.get(path) != theirs.get(path) {
            wrong.push(format!("{path}\n  ours:   {:?}\n  theirs: {:?}", ours.get(path), theirs.get(path)));
        }
    }
    assert!(wrong.is_empty(), "{} of {} files: {}", wrong.len(), ours.len(), wrong.join("\n"));
}

/// The files of an archive.
fn entries(archive: &str) -> BTreeMap<String, Entry> {
    let mut archive = tar::Archive::new(fs::File::open(archive).unwrap());
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().trim_matches('/').to_owned();
        let attributes = entry.pax_extensions().unwrap().map(|all| {
            let pairs = all.flatten().map(|one| (one.key().unwrap().to_owned(), one.value_bytes().to_vec()));
            pairs.filter(|(key, _)| key.starts_with("SCHILY.xattr.")).collect()
        });
        let attributes = attributes.unwrap_or_default();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        let what = Entry {
            kind: header.entry_type(),
            mode: header.mode().unwrap() & 0o7777,
            owner: (header.uid().unwrap(), header.gid().unwrap()),
            link: entry.link_name().unwrap().map(|link| link.into_owned()),
            digest: files::digest(&content),
            attributes,
        };
        if !is_engines(&path) {
            found.insert(path, what);
        }
    }
    found
}

/// Whether a file is an engine's own doing.
fn is_engines(path: &str) -> bool {
    matches!(path, "" | "." | "etc/hosts" | "etc/hostname" | "etc/resolv.conf" | "etc/mtab" | ".dockerenv")
        || ["dev", "proc", "sys", "run"]
            .iter()
            .any(|top| path == *top || path.starts_with(&format!("{top}/")))
}
