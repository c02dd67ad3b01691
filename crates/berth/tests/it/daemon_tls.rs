//! The API over TLS, with and without certificates of clients, and the figures for Prometheus.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::daemon::{Client, Daemon, binary};
use crate::files;
use crate::output::{Output, feed, run};

const ADDRESS: &str = "127.0.0.1:23760";

/// An authority, and what it vouches for: `server`, `client`; `stranger` is another authority's.
pub struct Certificates(TempDir);

impl Certificates {
    /// Makes them.
    pub fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Self(folder);
        made.authority("ca");
        made.authority("other");
        made.signed("server", "ca", "subjectAltName=IP:127.0.0.1,DNS:localhost");
        made.signed("client", "ca", "extendedKeyUsage=clientAuth");
        made.signed("stranger", "other", "extendedKeyUsage=clientAuth");
        made
    }

    /// Where a file of that name is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, name: &str, more: &[&str]) {
        let (certificate, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}-key.pem")));
        let mut command = Command::new("openssl");
        command.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-noenc",
            "-days",
            "2",
        ]);
        command.args(["-subj", &format!("/CN={name}"), "-out"]).arg(certificate).arg("-keyout").arg(key);
        run(command.args(more)).ok();
    }

    fn authority(&self, name: &str) {
        self.openssl(name, &["-addext", "keyUsage=critical,keyCertSign"]);
    }

    /// Makes one more certificate that `authority` vouches for.
    pub fn signed(&self, name: &str, authority: &str, extension: &str) {
        let (certificate, key) =
            (self.path(&format!("{authority}.pem")), self.path(&format!("{authority}-key.pem")));
        let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
        let end = ["-CA", certificate, "-CAkey", key, "-addext", "basicConstraints=critical,CA:FALSE"];
        self.openssl(name, &[&end[..], &["-addext", extension]].concat());
    }

    /// A daemon on TCP, with these further flags.
    pub fn daemon(&self, flags: &[&str]) -> Daemon {
        let flag = |name: &str, file: &str| format!("--{name}={}", self.path(file).display());
        let files =
            [flag("tlscert", "server.pem"), flag("tlskey", "server-key.pem"), flag("tlscacert", "ca.pem")];
        let mut all = vec!["-H", "tcp://127.0.0.1:23760"];
        all.extend(files.iter().map(String::as_str));
        all.extend(flags);
        let daemon = Daemon::empty(&all);
        daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
        daemon
    }

    /// A client with the certificates called `name`.
    fn client(&self, client: Client, name: &str) -> Command {
        let program: PathBuf = if client == Client::Berth { binary() } else { "docker".into() };
        let mut command = Command::new(program);
        command.env_remove("DOCKER_HOST").env_remove("BERTH_HOST").env("DOCKER_CONFIG", self.0.path());
        command.args(["-H", &format!("tcp://{ADDRESS}"), "--tlsverify"]);
        command.arg("--tlscacert").arg(self.path("ca.pem"));
        command.arg("--tlscert").arg(self.path(&format!("{name}.pem")));
        command.arg("--tlskey").arg(self.path(&format!("{name}-key.pem")));
        command
    }

    /// Runs a client with the certificates called `name`.
    pub fn run(&self, client: Client, name: &str, arguments: &[&str]) -> Output {
        run(self.client(client, name).args(arguments))
    }
}

#[test]
fn r23_info_warns_of_addresses_without_certificates() {
    let warnings = |flags: &[&str]| {
        let daemon = Daemon::empty(flags);
        daemon.with(Client::Docker, &["info", "-f", "{{json .Warnings}}"]).ok()
    };
    let open = warnings(&["-H", "0.0.0.0:23756", "--tls=false"]);
    for part in ["http://0.0.0.0:23756 without encryption", "equivalent to root access on the host"] {
        assert!(open.contains(part), "{part:?} in {open}");
    }
    assert!(warnings(&["-H", "tcp://127.0.0.1:23756"]).contains("http://127.0.0.1:23756"));
    assert!(!warnings(&[]).contains("API is accessible"));
}

#[test]
fn clients_with_certificates_come_in_and_streams_flow_both_ways() {
    let certificates = Certificates::make();
    let _daemon = certificates.daemon(&["--tlsverify"]);
    for client in [Client::Docker, Client::Berth] {
        assert_eq!(certificates.run(client, "client", &["ps", "-q"]).ok(), "");
        // Hijacked, with input that ends before the output does.
        let mut cat = certificates.client(client, "client");
        cat.args(["run", "-i", "--rm", "busybox", "sh", "-c", "cat; echo end; echo complaint >&2; exit 7"]);
        let input = "line\n".repeat(20_000);
        let output = feed(&mut cat, input.as_bytes());
        assert_eq!((output.code, output.stderr.as_str()), (7, "complaint\n"), "{client:?}");
        assert!(output.stdout == format!("{input}end\n"), "{client:?}: {} bytes", output.stdout.len());
        let id = certificates.run(client, "client", &["run", "-d", "busybox", "sleep", "1000"]).ok();
        let mut exec = certificates.client(client, "client");
        exec.args(["exec", "-i", &id, "wc", "-c"]);
        assert_eq!(feed(&mut exec, input.as_bytes()).ok().trim(), "100000");
        certificates.run(client, "client", &["rm", "-f", &id]).ok();
    }
}

#[test]
fn nobody_else_comes_in() {
    let certificates = Certificates::make();
    let daemon = certificates.daemon(&["--tlsverify"]);
    for client in [Client::Docker, Client::Berth] {
        let output = certificates.run(client, "stranger", &["ps"]);
        assert_ne!(output.code, 0, "{client:?}: {output:?}");
        let program: PathBuf = if client == Client::Berth { binary() } else { "docker".into() };
        let plain = run(Command::new(program).args(["-H", &format!("tcp://{ADDRESS}"), "ps"]));
        assert_ne!(plain.code, 0, "{client:?}: {plain:?}");
    }
    assert!(
        !daemon.log().contains("is root on this host"),
        "verified clients need no warning: {}",
        daemon.log()
    );
    // A client that never says a word does not keep others out.
    let _silent = TcpStream::connect(ADDRESS).unwrap();
    certificates.run(Client::Berth, "client", &["ps"]).ok();
}

#[test]
fn a_client_believes_only_its_authority() {
    let certificates = Certificates::make();
    let _daemon = certificates.daemon(&["--tls", "--tlsverify=false"]);
    for client in [Client::Docker, Client::Berth] {
        let mut doubting = certificates.client(client, "client");
        doubting.arg("--tlscacert").arg(certificates.path("other.pem")).arg("ps");
        assert_ne!(run(&mut doubting).code, 0, "{client:?}");
    }
    // Without --tlsverify no client needs a certificate, and no server an authority.
    run(Command::new(binary()).env("DOCKER_CONFIG", "/nonexistent").args([
        "-H",
        &format!("tcp://{ADDRESS}"),
        "--tls",
        "ps",
    ]))
    .ok();
    // The variables say the same as the flags.
    fs::copy(certificates.path("client.pem"), certificates.path("cert.pem")).unwrap();
    fs::copy(certificates.path("client-key.pem"), certificates.path("key.pem")).unwrap();
    for program in [binary(), "docker".into()] {
        let mut command = Command::new(program);
        command.env_remove("BERTH_HOST").env("DOCKER_HOST", format!("tcp://{ADDRESS}"));
        command.env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", certificates.path(""));
        run(command.arg("ps")).ok();
    }
}

#[test]
fn contexts_bring_their_certificates() {
    let certificates = Certificates::make();
    let _daemon = certificates.daemon(&["--tlsverify"]);
    let path = |name: &str| certificates.path(name).display().to_string();
    let endpoint = |authority: &str| {
        let (certificate, key) = (path("client.pem"), path("client-key.pem"));
        format!("host=tcp://{ADDRESS},ca={},cert={certificate},key={key}", path(authority))
    };
    let plain = |client: Client, home: &tempfile::TempDir, arguments: &[&str]| {
        let program: PathBuf = if client == Client::Berth { binary() } else { "docker".into() };
        let mut command = Command::new(program);
        command.env_remove("DOCKER_HOST").env_remove("BERTH_HOST").env("DOCKER_CONFIG", home.path());
        run(command.current_dir(home.path()).args(arguments))
    };
    for (maker, user) in [(Client::Berth, Client::Docker), (Client::Docker, Client::Berth)] {
        let home = tempfile::tempdir().unwrap();
        plain(maker, &home, &["context", "create", "good", "--docker", &endpoint("ca.pem")]).ok();
        plain(maker, &home, &["context", "create", "bad", "--docker", &endpoint("other.pem")]).ok();
        for client in [maker, user] {
            assert_eq!(plain(client, &home, &["-c", "good", "ps", "-q"]).ok(), "", "{client:?}");
            assert_ne!(plain(client, &home, &["-c", "bad", "ps", "-q"]).code, 0, "{client:?}");
        }
        let shown = plain(maker, &home, &["context", "inspect", "good"]).ok();
        assert!(shown.contains("\"ca.pem\"") && shown.contains("\"key.pem\""), "{shown}");
        assert_eq!(plain(user, &home, &["context", "inspect", "good"]).ok(), shown);
        // Archives and copies bring them too; certificates stay private.
        plain(maker, &home, &["context", "export", "good", "archive"]).ok();
        plain(user, &home, &["context", "import", "moved", "archive"]).ok();
        plain(user, &home, &["context", "create", "copied", "--from", "moved"]).ok();
        assert_eq!(plain(maker, &home, &["-c", "copied", "ps", "-q"]).ok(), "");
        let folders = fs::read_dir(home.path().join("contexts/tls")).unwrap();
        for folder in folders {
            let folder = folder.unwrap().path().join("docker");
            let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(folder.clone()), mode(folder.join("key.pem"))), (0o700, 0o600));
        }
    }
}

#[test]
fn certificates_that_cannot_be_used_stop_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.pem");
    let output =
        run(Command::new(binary()).args(["daemon", "--validate", "--tls", "--tlscert"]).arg(&missing));
    let output = output.fails(1, "invalid TLS configuration");
    assert!(output.stderr.contains(missing.to_str().unwrap()), "{output:?}");
}

/// What `GET` of a path answers, with its head.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn figures_are_told_to_prometheus() {
    let daemon = Daemon::empty(&["--metrics-addr", "127.0.0.1:9323"]);
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    daemon.berth(&["run", "--rm", "busybox", "true"]).ok();
    daemon.background(&["busybox", "sleep", "1000"]);
    let answer = get("127.0.0.1:9323", "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for line in [
        "engine_daemon_container_states_containers{state=\"running\"} 1",
        "engine_daemon_container_states_containers{state=\"stopped\"} 0",
        "engine_daemon_container_actions_seconds_count{action=\"create\"} 2",
        "engine_daemon_container_actions_seconds_count{action=\"start\"} 2",
        "engine_daemon_container_actions_seconds_bucket{action=\"start\",le=\"+Inf\"} 2",
    ] {
        assert!(answer.lines().any(|other| other == line), "{line} in {answer}");
    }
    assert!(
        get("127.0.0.1:9323", "/containers/json").starts_with("HTTP/1.1 404 "),
        "figures and nothing else"
    );
}

#[test]
fn debug_pages_are_there_only_for_debugging() {
    let status = |daemon: &Daemon, path: &str| {
        let mut command = Command::new("curl");
        command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket"]).arg(daemon.socket());
        run(command.arg(format!("http://x{path}"))).ok()
    };
    let quiet = Daemon::empty(&[]);
    assert_eq!(status(&quiet, "/debug/vars"), "404");
    drop(quiet);
    let daemon = Daemon::empty(&["-D"]);
    for (path, code) in [
        ("/debug/vars", "200"),
        ("/debug/pprof/", "200"),
        ("/debug/pprof/cmdline", "200"),
        ("/v1.44/debug/vars", "200"),
        ("/debug/pprof/heap", "404"),
        ("/debug/else", "404"),
    ] {
        assert_eq!(status(&daemon, path), code, "{path}");
    }
}
