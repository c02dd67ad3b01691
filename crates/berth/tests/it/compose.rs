//! Compose, version 1 and 2: a stack of nginx, redis and PostgreSQL, as Debian packages them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::compose_versions::{Compose, Stack};
use crate::daemon::{Client, Daemon};
use crate::files::{self, Image};
use crate::output::eventually;

const STACK: &str = include_str!("compose/stack.yaml");
const NGINX: &str = include_str!("compose/nginx.conf");
const HBA: &str = "local all all trust\nhost all all samenet trust\n";

/// One image with the three servers, as a `docker save` archive named `services:latest`.
fn services_archive() -> PathBuf {
    files::once("services.tar", |path| {
        let layer = path.with_extension("layer");
        let _ = fs::remove_file(&layer);
        files::debian(
            &layer,
            &[
                "--include=nginx-light,redis-server,postgresql,curl",
                "--dpkgopt=path-exclude=/usr/share/doc/*",
                "--dpkgopt=path-exclude=/usr/share/locale/*",
                // Of PostgreSQL's compiler of queries, which is off: a quarter of everything.
                "--dpkgopt=path-exclude=/usr/lib/x86_64-linux-gnu/libLLVM*",
            ],
        );
        let path_variable = "PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let image = Image {
            layers: vec![fs::read(&layer).unwrap()],
            config: json!({"Env": [path_variable], "Cmd": ["bash"]}),
        };
        fs::write(path, image.docker_archive("services:latest")).unwrap();
        fs::remove_file(layer).unwrap();
    })
}

/// What nginx answers on the published port.
fn page() -> Option<String> {
    let mut stream = TcpStream::connect("127.0.0.1:8080").ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.starts_with("HTTP/1.1 200").then(|| text.lines().last().unwrap_or_default().to_string())
}

/// Waits for what takes servers longer than other tests wait.
#[track_caller]
fn patiently(what: &str, mut probe: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(state) = probe() {
        assert!(Instant::now() < deadline, "never: {what}: {state}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until all servers of the stack are healthy.
#[track_caller]
fn healthy(daemon: &Daemon, stack: &Stack) {
    for service in ["db", "cache", "web"] {
        let id = stack.container(service);
        patiently(service, || match daemon.inspect(&id, "{{.State.Health.Status}}").as_str() {
            "healthy" => Ok(()),
            other => Err(other.to_string()),
        });
    }
}

fn sql(stack: &Stack, statement: &str) -> String {
    stack.exec("db", &["psql", "-qAtc", statement])
}

/// Names of the volumes or networks that the stack made.
fn made(daemon: &Daemon, client: Client, kind: &str) -> String {
    daemon
        .with(
            client,
            &[kind, "ls", "--format", "{{.Name}}", "--filter", "label=com.docker.compose.project=stack"],
        )
        .ok()
}

/// Brings the stack up, lets it live, and takes it down.
fn a_stack_lives(version: Compose, client: Client) {
    // Before the daemon: its namespace has no network to fetch packages from.
    let (archive, plugin) = (services_archive(), version.fetch());
    let mut daemon = Daemon::empty(&[]);
    daemon.berth(&["load", "-q", "-i", archive.to_str().unwrap()]).ok();
    let files = [
        ("compose.yaml", STACK),
        ("nginx.conf", NGINX),
        ("hba.conf", HBA),
        (".env", "GREETING=from the stack\n"),
    ];
    {
        let stack = Stack::new(&daemon, client, version, plugin.as_deref(), &files);
        stack.ok(&["config", "-q"]);
        stack.ok(&["up", "-d"]);
        comes_up(&daemon, client, &stack);
        is_looked_at(version, &stack);
        scales(&daemon, &stack);
        restarts(&daemon, &stack);
    }
    daemon.kill();
    daemon.launch();
    let stack = Stack::new(&daemon, client, version, plugin.as_deref(), &files);
    outlives_the_daemon(&stack);
    keeps_its_data(&daemon, client, &stack);
    stack.ok(&["down", "-v", "--remove-orphans"]);
    assert_eq!(stack.containers(None), [""; 0]);
    assert_eq!(made(&daemon, client, "volume"), "");
    assert_eq!(made(&daemon, client, "network"), "");
}

fn comes_up(daemon: &Daemon, client: Client, stack: &Stack) {
    healthy(daemon, stack);
    assert_eq!(eventually("nginx answers", page), "from the stack");
    assert_eq!(made(daemon, client, "volume"), "stack_cache\nstack_db");
    assert_eq!(made(daemon, client, "network"), "stack_back\nstack_front");
    // The table was made by a service that came after the health of another, through the network, by an alias.
    assert_eq!(daemon.inspect(&stack.container("schema"), "{{.State.ExitCode}}"), "0");
    sql(stack, "insert into visits values (42)");
    assert_eq!(stack.exec("cache", &["redis-cli", "set", "colour", "blue"]), "OK");
    assert_eq!(stack.exec("web", &["sh", "-c", "redis-cli -h cache get colour"]), "blue");
    // `web` is in both networks, `db` only in the internal one.
    assert_eq!(stack.exec("web", &["sh", "-c", "ls /sys/class/net | wc -l"]), "3");
    assert_eq!(
        stack.exec("db", &["sh", "-c", "getent ahostsv4 web | cut -d ' ' -f 1 | sort -u | wc -l"]),
        "1"
    );
    let settings = stack.exec(
        "cache",
        &["sh", "-c", "cat /proc/sys/net/core/somaxconn; ulimit -n; hostname; stat -c %a:%U /var/lib/redis; cat /proc/1/comm"],
    );
    assert_eq!(settings, "512\n2048\nstore\n750:redis\nredis-server");
    assert_eq!(stack.exec("web", &["cat", "/proc/1/comm"]), "docker-init");
}

fn is_looked_at(version: Compose, stack: &Stack) {
    let listing = stack.ok(&["ps"]);
    for service in ["db", "cache", "web"] {
        assert!(listing.contains(service), "{listing}");
    }
    // Version 1 breaks its lines.
    assert!(listing.contains("healthy") && listing.contains("0.0.0.0:8080->80"), "{listing}");
    assert_eq!(stack.ok(&["ps", "-q", "db"]), stack.container("db"));
    assert!(stack.ok(&["port", "web", "80"]).ends_with(":8080"));
    assert!(stack.ok(&["top", "web"]).contains("nginx: worker process"));
    assert!(stack.ok(&["images"]).contains("services"));
    let log = stack.run(&["logs", "--no-color", "db"]);
    assert!(!log.stderr.contains("Traceback"), "{log:?}");
    let log = log.ok();
    assert!(log.contains("ready to accept connections") && log.contains("db"), "{log}");
    let log = stack.ok(&["logs", "--no-color", "--tail", "1", "-t", "schema"]);
    assert!(log.contains("CREATE TABLE"), "{log}");
    assert!(
        stack
            .ok(&["run", "--rm", "-T", "--no-deps", "worker", "sh", "-c", "echo $GREETING"])
            .contains("from the stack")
    );
    stack.run(&["exec", "-T", "web", "sh", "-c", "exit 7"]).fails(7, "");
    if !version.is_one() {
        stack.ok(&["cp", "web:/srv/index.html", "copied"]);
        stack.ok(&["cp", "copied", "db:/tmp/copied"]);
        assert_eq!(stack.exec("db", &["cat", "/tmp/copied"]), "from the stack");
        assert!(stack.ok(&["ls"]).contains("stack"));
        assert!(stack.ok(&["ps", "--format", "json"]).contains(r#""Health":"healthy""#));
    }
}

fn scales(daemon: &Daemon, stack: &Stack) {
    let count = |expected: usize| {
        assert_eq!(stack.containers(Some("worker")).len(), expected);
        let addresses = "getent ahostsv4 worker | awk '{print $1}' | sort -u | wc -l";
        assert_eq!(stack.exec("web", &["sh", "-c", addresses]), expected.to_string());
    };
    let before = stack.containers(Some("db"));
    stack.ok(&["up", "-d", "--scale", "worker=3"]);
    count(3);
    patiently("all workers counted", || {
        let counted: u32 = stack.exec("cache", &["redis-cli", "scard", "workers"]).parse().unwrap();
        if counted == 3 { Ok(()) } else { Err(counted.to_string()) }
    });
    stack.ok(&["scale", "worker=2"]);
    count(2);
    stack.ok(&["up", "-d", "--scale", "worker=1"]);
    count(1);
    assert_eq!(stack.containers(Some("db")), before, "nothing else was made again");
    assert_eq!(daemon.inspect(&before[0], "{{.RestartCount}}"), "0");
}

fn restarts(daemon: &Daemon, stack: &Stack) {
    let web = stack.container("web");
    let pid = daemon.init_pid(&web);
    stack.ok(&["restart", "web"]);
    assert_ne!(daemon.init_pid(&web), pid);
    healthy(daemon, stack);
    assert_eq!(eventually("nginx answers again", page), "from the stack");
    stack.ok(&["pause", "cache"]);
    assert_eq!(daemon.inspect(&stack.container("cache"), "{{.State.Status}}"), "paused");
    stack.ok(&["unpause", "cache"]);
    // A server that ends is started again, by its policy.
    let cache = stack.container("cache");
    stack.run(&["exec", "-T", "cache", "redis-cli", "shutdown"]);
    patiently("redis was started again", || match daemon.inspect(&cache, "{{.RestartCount}}").as_str() {
        "0" => Err("not yet".into()),
        _ => Ok(()),
    });
    healthy(daemon, stack);
    assert_eq!(stack.exec("cache", &["redis-cli", "get", "colour"]), "blue");
    stack.ok(&["stop", "web"]);
    assert_eq!(page(), None);
    stack.ok(&["start", "web"]);
    assert_eq!(eventually("nginx answers once more", page), "from the stack");
}

fn outlives_the_daemon(stack: &Stack) {
    assert_eq!(eventually("nginx answers", page), "from the stack");
    let before = stack.containers(None);
    assert_eq!(sql(stack, "select n from visits"), "42");
    assert_eq!(stack.exec("web", &["redis-cli", "-h", "cache", "get", "colour"]), "blue");
    stack.ok(&["up", "-d"]);
    assert_eq!(stack.containers(None), before, "nothing is made again");
}

fn keeps_its_data(daemon: &Daemon, client: Client, stack: &Stack) {
    stack.ok(&["down"]);
    assert_eq!(stack.containers(None), [""; 0]);
    assert_eq!(page(), None);
    assert_eq!(made(daemon, client, "network"), "");
    assert_eq!(made(daemon, client, "volume"), "stack_cache\nstack_db");
    stack.ok(&["up", "-d"]);
    healthy(daemon, stack);
    assert_eq!(sql(stack, "select n from visits"), "42");
    assert_eq!(stack.exec("cache", &["redis-cli", "get", "colour"]), "blue");
}

#[test]
fn a_stack_of_servers_lives_with_version_1() {
    a_stack_lives(Compose::One, Client::Berth);
}

#[test]
fn a_stack_of_servers_lives_with_version_2() {
    a_stack_lives(Compose::Two, Client::Docker);
}

#[test]
fn a_stack_of_servers_lives_with_the_newest_version() {
    a_stack_lives(Compose::Newest, Client::Berth);
}
