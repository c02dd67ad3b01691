//! Registries with TLS, certificates of clients, IPv6 addresses and mirrors, each as the settings of its host say.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::daemon::{Client, Daemon, binary};
use crate::daemon_tls::Certificates;
use crate::faulty::{Asked, Faulty, Reply, contents, honest};
use crate::files;
use crate::output::{feed, run};
use crate::registry::Registry;
use crate::tls_front;

/// Addresses that no other test has: what is below `/etc` is for all of them.
pub fn addresses() -> (String, String) {
    let id = std::process::id();
    let (high, low) = ((id >> 8) & 0xff, id & 0xff);
    (format!("10.{}.{high}.{low}", 100 + (id >> 16) % 100), format!("fd00:be::{:x}", id))
}

/// A directory of certificates for a registry, which goes with the test.
pub struct Settings(PathBuf);

impl Settings {
    pub fn of(authority: &str) -> Settings {
        let folder = PathBuf::from("/etc/docker/certs.d").join(authority);
        fs::create_dir_all(&folder).unwrap();
        Settings(folder)
    }

    pub fn put(&self, certificates: &Certificates, from: &str, to: &str) {
        fs::copy(certificates.path(from), self.0.join(to)).unwrap();
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Gives loopback of the test's namespace these addresses.
pub fn add_addresses(v4: &str, v6: &str) {
    run(Command::new("ip").args(["address", "add", &format!("{v4}/32"), "dev", "lo"])).ok();
    run(Command::new("ip").args(["-6", "address", "add", &format!("{v6}/128"), "dev", "lo", "nodad"])).ok();
}

/// Files of a registry's certificate for both addresses, and the registry's settings with them.
pub fn certified(v4: &str, v6: &str, clients: bool) -> (Certificates, String) {
    let certificates = Certificates::make();
    certificates.signed("registry", "ca", &format!("subjectAltName=IP:{v4},IP:{v6},DNS:registry.test"));
    let path = |name: &str| certificates.path(name).display().to_string();
    let mut settings =
        format!("  tls:\n    certificate: {}\n    key: {}\n", path("registry.pem"), path("registry-key.pem"));
    if clients {
        settings.push_str(&format!("    clientcas:\n      - {}\n", path("ca.pem")));
    }
    (certificates, settings)
}

#[test]
fn an_authority_is_believed_for_its_host_alone() {
    let (v4, v6) = addresses();
    let daemon = Daemon::start();
    add_addresses(&v4, &v6);
    let (certificates, settings) = certified(&v4, &v6, false);
    let _registry = Registry::start_at(daemon.root.path(), &format!("{v4}:5443"), &settings);
    let _other = Registry::start_at(daemon.root.path(), &format!("[{v6}]:5444"), &settings);
    let (name, other) = (format!("{v4}:5443/a/b:1"), format!("[{v6}]:5444/a/b:1"));
    for name in [&name, &other] {
        daemon.berth(&["tag", "busybox", name]).ok();
        daemon.berth(&["push", name]).fails(1, "certs.d/");
    }
    let files = Settings::of(&format!("{v4}:5443"));
    files.put(&certificates, "ca.pem", "ca.crt");
    for client in [Client::Berth, Client::Docker] {
        daemon.with(client, &["push", &name]).ok();
        daemon.with(client, &["pull", &name]).ok();
        daemon.with(client, &["push", &other]).fails(1, "certificate");
    }
    // An IPv6 address in brackets, with its port, is a host as any other.
    let files = Settings::of(&format!("[{v6}]:5444"));
    files.put(&certificates, "ca.pem", "ca.crt");
    daemon.berth(&["push", &other]).ok();
    daemon.berth(&["rmi", &other]).ok();
    daemon.berth(&["pull", "-q", &other]).ok();
    assert_eq!(daemon.berth(&["run", "--rm", &other, "echo", "here"]).ok(), "here");
}

#[test]
fn a_client_shows_its_certificate_where_one_is_set_for_the_host() {
    let (v4, v6) = addresses();
    let daemon = Daemon::start();
    add_addresses(&v4, &v6);
    let (certificates, settings) = certified(&v4, &v6, true);
    let authority = format!("{v4}:5443");
    let _registry = Registry::start_at(daemon.root.path(), &authority, &settings);
    let name = format!("{authority}/mutual:1");
    daemon.berth(&["tag", "busybox", &name]).ok();
    let files = Settings::of(&authority);
    files.put(&certificates, "ca.pem", "ca.crt");
    assert_ne!(daemon.berth(&["push", &name]).code, 0, "it wants a certificate");
    files.put(&certificates, "stranger.pem", "client.cert");
    daemon.berth(&["push", &name]).fails(1, "missing key client.key for client certificate client.cert");
    files.put(&certificates, "stranger-key.pem", "client.key");
    assert_ne!(daemon.berth(&["push", &name]).code, 0, "and not just any");
    files.put(&certificates, "client.pem", "client.cert");
    files.put(&certificates, "client-key.pem", "client.key");
    for client in [Client::Berth, Client::Docker] {
        daemon.with(client, &["push", &name]).ok();
        daemon.with(client, &["pull", &name]).ok();
    }
    fs::remove_file(files.0.join("client.cert")).unwrap();
    daemon.berth(&["pull", &name]).fails(1, "missing client certificate client.cert for key client.key");
}

#[test]
fn registries_in_an_insecure_network_may_have_any_certificate_or_no_tls() {
    let (v4, v6) = addresses();
    // The whole of what the addresses are in; the other test's are in them too, but not its daemon.
    let file = tempfile::NamedTempFile::new().unwrap();
    let networks = serde_json::json!({"insecure-registries": [format!("{v4}/32"), "fd00:be::/32"]});
    fs::write(file.path(), networks.to_string()).unwrap();
    let daemon = Daemon::empty(&["--config-file", file.path().to_str().unwrap()]);
    daemon.berth(&["load", "-q", "-i", files::busybox_archive().to_str().unwrap()]).ok();
    add_addresses(&v4, &v6);
    let (_certificates, settings) = certified("192.0.2.1", "2001:db8::1", false);
    let _with = Registry::start_at(daemon.root.path(), &format!("{v4}:5443"), &settings);
    let _without = Registry::start_at(daemon.root.path(), &format!("[{v6}]:5444"), "");
    for name in [format!("{v4}:5443/x:1"), format!("[{v6}]:5444/x:1")] {
        daemon.berth(&["tag", "busybox", &name]).ok();
        for client in [Client::Berth, Client::Docker] {
            daemon.with(client, &["push", &name]).ok();
            daemon.with(client, &["pull", &name]).ok();
        }
    }
    let outside = format!("{}:5445", v4.replace("10.", "11."));
    run(Command::new("ip").args([
        "address",
        "add",
        &format!("{}/32", v4.replace("10.", "11.")),
        "dev",
        "lo",
    ]))
    .ok();
    let _outside = Registry::start_at(daemon.root.path(), &outside, "");
    daemon.berth(&["pull", &format!("{outside}/x:1")]).fails(1, "--insecure-registry");
}

#[test]
fn every_registry_may_have_mirrors() {
    let daemon = Daemon::empty(&[
        "--registry-mirror",
        "upstream.test:5000=http://127.0.0.1:5001",
        "--registry-mirror",
        "upstream.test:5000=http://127.0.0.1:5000",
    ]);
    let registry = Registry::start(daemon.root.path());
    registry.push("docker-archive", files::busybox_archive().to_str().unwrap(), "team/mirrored:1");
    for client in [Client::Berth, Client::Docker] {
        daemon.with(client, &["pull", "upstream.test:5000/team/mirrored:1"]).ok();
        daemon.with(client, &["rmi", "upstream.test:5000/team/mirrored:1"]).ok();
        // They are that registry's: neither its name without the port nor Docker Hub has one.
        assert_ne!(daemon.with(client, &["pull", "upstream.test/team/mirrored:1"]).code, 0);
        assert_ne!(daemon.with(client, &["pull", "team/mirrored:1"]).code, 0);
    }
    let shown = daemon.with(Client::Docker, &["info", "-f", "{{json .RegistryConfig}}"]).ok();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["IndexConfigs"]["upstream.test:5000"]["Mirrors"][1], "http://127.0.0.1:5000/");
    assert_eq!(shown["IndexConfigs"]["docker.io"]["Mirrors"].as_array().map_or(0, Vec::len), 0);
}

#[test]
fn r25_a_realm_in_the_clear_gets_no_credentials_of_a_registry_with_tls() {
    let (v4, v6) = addresses();
    let daemon = Daemon::start();
    add_addresses(&v4, &v6);
    let realm = Faulty::start(|_| Reply::new(200, r#"{"token": "t"}"#));
    let (certificates, tls) = certified(&v4, &v6, false);
    let bundle = certificates.path("ca.pem").display().to_string();
    let auth = format!(
        "auth:\n  token:\n    realm: http://{}/token\n    service: s\n    issuer: i\n    rootcertbundle: {bundle}\n",
        realm.address
    );
    let authority = format!("{v4}:5443");
    let _registry = Registry::start_at(daemon.root.path(), &authority, &format!("{tls}{auth}"));
    let files = Settings::of(&authority);
    files.put(&certificates, "ca.pem", "ca.crt");
    for client in [Client::Berth, Client::Docker] {
        let login = ["login", "-u", "someone", "--password-stdin", &authority];
        let output = feed(&mut daemon.client(client, &login), b"secret");
        output.fails(1, "refused, since it is not encrypted");
    }
    daemon.berth(&["pull", &format!("{authority}/x:1")]).fails(1, "refused, since it is not encrypted");
    assert_eq!(realm.asked().len(), 0, "nothing was sent there");
}

#[test]
fn a_registry_by_name_is_in_the_insecure_network_of_its_address() {
    let (v4, v6) = addresses();
    let daemon = Daemon::empty(&[]);
    add_addresses(&v4, &v6);
    let _registry = Registry::start_at(daemon.root.path(), &format!("{v4}:5445"), "");
    let hosts = files::write(daemon.root.path(), "hosts", format!("{v4} named.test\n").as_bytes());
    let archive = files::busybox_archive().display().to_string();
    let copy = |network: &str| {
        let mut command = Command::new("unshare");
        let script = "mount --bind \"$1\" /etc/hosts && exec \"$2\" image copy --insecure-registry \"$3\" \"docker-archive:$4\" named.test:5445/x:1";
        command.args(["-m", "sh", "-c", script, "sh", &hosts]).arg(binary()).args([network, &archive]);
        run(&mut command)
    };
    copy(&format!("{}/32", v4.replace("10.", "11."))).fails(1, "TLS with registry named.test:5445 failed");
    copy(&format!("{v4}/32")).ok();
}

#[test]
fn a_registry_may_begin_to_speak_tls_and_cease_to() {
    let daemon = Daemon::empty(&[]);
    let (_certificates, tls) = certified("192.0.2.1", "2001:db8::1", false);
    let name = "127.0.0.1:5007/switched:1";
    // Several layers: a push asks for all of them at once.
    let archive = files::write(daemon.root.path(), "l.tar", &files::layered().docker_archive(name));
    daemon.berth(&["load", "-q", "-i", &archive]).ok();
    for (round, settings) in ["", &tls, "", &tls].into_iter().enumerate() {
        let client = [Client::Berth, Client::Docker][round % 2];
        let _registry = Registry::start_at(daemon.root.path(), "127.0.0.1:5007", settings);
        // First one and then the other is who finds out.
        if round < 2 {
            daemon.with(client, &["push", name]).ok();
        }
        daemon.with(client, &["pull", name]).ok();
        daemon.with(client, &["push", name]).ok();
    }
}

/// A registry with TLS on `authority`, which the daemon believes, that answers as a test likes.
fn answering(
    authority: &str,
    certificates: &Certificates,
    answer: fn(&Asked) -> Reply,
) -> (Faulty, Settings) {
    let server = Faulty::start(answer);
    tls_front::open(authority, certificates, "registry", &server.address);
    let files = Settings::of(authority);
    files.put(certificates, "ca.pem", "ca.crt");
    (server, files)
}

#[test]
fn r25_nothing_that_began_with_tls_goes_on_without() {
    let (v4, v6) = addresses();
    let daemon = Daemon::start();
    add_addresses(&v4, &v6);
    let (certificates, _) = certified(&v4, &v6, false);
    let eavesdropper = Faulty::start_at("127.0.0.1:5009", |_| Reply::new(200, "{}"));
    let pulled = format!("{v4}:5443");
    let (_one, _files) = answering(&pulled, &certificates, |asked| {
        Reply::redirect(format!("http://127.0.0.1:5009{}", asked.path))
    });
    let pushed = format!("{v4}:5444");
    let (_two, _more) = answering(&pushed, &certificates, |asked| match asked.method.as_str() {
        "POST" => Reply::new(202, "").header("Location", "http://127.0.0.1:5009/upload"),
        _ => Reply::new(404, "{}"),
    });
    daemon.berth(&["tag", "busybox", &format!("{pushed}/x:1")]).ok();
    for client in [Client::Berth, Client::Docker] {
        daemon.with(client, &["pull", &format!("{pulled}/x:1")]).fails(1, "redirected away from TLS");
        let push = daemon.with(client, &["push", &format!("{pushed}/x:1")]);
        push.fails(1, "the upload is to go on without TLS");
    }
    assert_eq!(eavesdropper.asked().len(), 0, "nothing was sent there");
}

#[test]
fn a_mirror_that_cannot_be_reached_costs_a_pull_little() {
    let daemon = Daemon::empty(&["--registry-mirror", "127.0.0.1:5005=http://127.0.0.1:5006/"]);
    // A listener whose queue is full lets who knocks wait.
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 5006));
    let mirror = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
    let mirror = mirror.unwrap();
    rustix::net::bind(&mirror, &any).unwrap();
    rustix::net::listen(&mirror, 0).unwrap();
    let patience = std::time::Duration::from_millis(500);
    let mut waiting = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&any, patience) {
        waiting.push(stream);
    }
    let contents = contents(&files::busybox());
    let registry = Faulty::start_at("127.0.0.1:5005", move |asked| honest(&contents, asked));
    let begun = std::time::Instant::now();
    daemon.berth(&["pull", "-q", "127.0.0.1:5005/x:y"]).ok();
    // It was tried once, for five seconds, and not for half a minute for each thing that is asked for.
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(60), "{took:?}");
    assert_eq!(daemon.log().matches("a mirror cannot be used").count(), 1, "{}", daemon.log());
    assert!(registry.count("/v2/x/") >= 3);
}
