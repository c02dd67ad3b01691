//! Contexts and the user's settings, which both command lines share on disk.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::daemon::{Client, Daemon, binary};
use crate::output::{Output, run};
use crate::terminal::Terminal;

/// A user's directory, and what the command lines do with it.
pub struct User(TempDir);

impl User {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A command that nothing tells where the daemon is.
    pub fn command(&self, client: Client, arguments: &[&str]) -> Command {
        let mut command = Command::new(match client {
            Client::Berth => binary(),
            Client::Docker => "docker".into(),
        });
        for name in ["DOCKER_HOST", "BERTH_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_API_VERSION"]
        {
            command.env_remove(name);
        }
        command.env("DOCKER_CONFIG", self.0.path()).current_dir(self.0.path()).args(arguments);
        command
    }

    #[track_caller]
    pub fn run(&self, client: Client, arguments: &[&str]) -> Output {
        run(&mut self.command(client, arguments))
    }

    fn settings(&self) -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(self.path("config.json")).unwrap()).unwrap()
    }
}

const OTHER: [(Client, Client); 2] = [(Client::Berth, Client::Docker), (Client::Docker, Client::Berth)];

#[test]
fn what_one_client_creates_the_other_uses() {
    let daemon = Daemon::start();
    let id = daemon.background(&["busybox", "sleep", "1000"]);
    let endpoint = format!("host={}", daemon.host());
    for (maker, user) in OTHER {
        let home = User::new();
        let made =
            home.run(maker, &["context", "create", "mine", "--docker", &endpoint, "--description", "a <b>"]);
        assert_eq!(made.stderr, "Successfully created context \"mine\"\n");
        assert_eq!(made.ok(), "mine");
        let listed = |output: Output| output.ok();
        assert!(id.starts_with(&listed(home.run(user, &["--context", "mine", "ps", "-q"]))), "{user:?}");
        let variable = run(home.command(user, &["ps", "-q"]).env("DOCKER_CONTEXT", "mine"));
        assert!(id.starts_with(&listed(variable)));
        // Both show the same, to the byte.
        for arguments in [
            &["context", "inspect", "mine"][..],
            &["context", "inspect", "-f", "{{.Name}} {{.Endpoints.docker.Host}}", "mine"],
            &["context", "ls", "-q"],
            &["--context", "mine", "context", "show"],
        ] {
            let shown = home.run(maker, arguments).ok();
            assert!(!shown.is_empty());
            assert_eq!(home.run(user, arguments).ok(), shown, "{arguments:?}");
        }
        assert_eq!(home.run(maker, &["context", "use", "mine"]).ok(), "mine");
        assert_eq!(home.run(user, &["context", "show"]).ok(), "mine");
        assert!(id.starts_with(&listed(home.run(user, &["ps", "-q"]))));
        assert_eq!(home.run(user, &["version", "--format", "{{.Client.Context}}"]).ok(), "mine");
        // A changed one is seen by the other.
        home.run(user, &["context", "update", "mine", "--description", "new"]).ok();
        assert!(home.run(maker, &["context", "inspect", "mine"]).ok().contains("\"Description\": \"new\""));
        // Archives are read by both.
        home.run(maker, &["context", "export", "mine", "archive"]).ok();
        assert_eq!(home.run(user, &["context", "import", "copy", "archive"]).ok(), "copy");
        assert!(id.starts_with(&listed(home.run(maker, &["-c", "copy", "ps", "-q"]))));
        home.run(user, &["context", "rm", "mine"])
            .fails(1, "context \"mine\" is in use, set -f flag to force remove");
        home.run(user, &["context", "rm", "-f", "mine", "copy"]).ok();
        assert_eq!(home.run(maker, &["context", "show"]).ok(), "default");
        assert_eq!(home.run(maker, &["context", "ls", "-q"]).ok(), "default");
        assert_eq!(fs::read_dir(home.path("contexts/meta")).unwrap().count(), 0);
    }
}

#[test]
fn both_clients_refuse_in_the_same_words() {
    let home = User::new();
    home.run(Client::Docker, &["context", "create", "there", "--docker", "host=tcp://h:1"]).ok();
    fs::write(home.path("junk"), "junk\n").unwrap();
    for arguments in [
        &["context", "create", "there"][..],
        &["context", "create", "x"],
        &["context", "create", "default"],
        &["context", "create", "new", "--docker", "bogus=1"],
        &["context", "create", "new", "--docker", "host=tcp://h,ca=/nope"],
        &["context", "create", "new", "--docker", "host=tcp://h,ca=junk"],
        &["context", "create", "new", "--docker", "host=tcp://h,skip-tls-verify=maybe"],
        &["context", "create", "new", "--docker", "host=nowhere"],
        &["context", "create", "new", "--docker", "host=ssh://u:p@h"],
        &["context", "create", "new", "--from", "nope"],
        &["context", "create", "new", "--from", "there", "--docker", "host=tcp://h"],
        &["context", "inspect", "nope"],
        &["context", "use", "nope"],
        &["context", "rm", "nope", "default"],
        &["context", "update", "nope"],
        &["context", "update", "default"],
        &["context", "export", "nope"],
        &["context", "import", "there", "junk"],
        &["context", "import", "new", "junk"],
        &["context", "import", "new", "/nope"],
        &["-c", "nope", "ps"],
        &["-H", "unix:///x", "-c", "there", "ps"],
        &["-H", "unix:///x", "-H", "unix:///y", "ps"],
        &["-H", "ssh://", "ps"],
        &["-H", "ssh://h?x=1", "ps"],
        &["-l", "bogus", "ps"],
    ] {
        let (ours, theirs) = (home.run(Client::Berth, arguments), home.run(Client::Docker, arguments));
        let words = |text: &str| text.replace("unable to resolve docker endpoint: ssh host", "ssh host");
        assert_eq!(
            (words(&ours.stderr), ours.stdout, ours.code),
            (theirs.stderr, theirs.stdout, theirs.code),
            "{arguments:?}"
        );
    }
    home.run(Client::Berth, &["context", "create", "new", "--docker", "host"])
        .fails(125, "invalid argument \"host\" for \"--docker\" flag: host must be formatted as key=value");
    // A failed import leaves nothing.
    assert_eq!(home.run(Client::Berth, &["context", "ls", "-q"]).ok(), "default\nthere");
}

#[test]
fn lists_and_warnings_are_those_of_docker() {
    let home = User::new();
    for (name, host) in
        [("a10", "host=tcp://h:1"), ("a2", "host=unix:///x"), ("secure", "host=tcp://h,skip-tls-verify=1")]
    {
        home.run(Client::Berth, &["context", "create", name, "--docker", host, "--description", "some text"])
            .ok();
    }
    let compare = |arguments: &[&str], variables: &[(&str, &str)]| {
        let [ours, theirs] = [Client::Berth, Client::Docker]
            .map(|client| run(home.command(client, arguments).envs(variables.iter().copied())));
        // The usual daemon is another one.
        let shown = |text: &str| {
            text.replace("unix:///run/berth.sock     ", "unix:///var/run/docker.sock")
                .replace("unix:///run/berth.sock", "unix:///var/run/docker.sock")
        };
        assert_eq!(
            shown(&ours.stdout).split_whitespace().collect::<Vec<_>>(),
            theirs.stdout.split_whitespace().collect::<Vec<_>>(),
            "{arguments:?}"
        );
        assert_eq!((ours.stderr, ours.code), (theirs.stderr, theirs.code), "{arguments:?}");
    };
    for arguments in [
        &["context", "ls"][..],
        &["context", "ls", "--format", "json"],
        &["context", "ls", "--format", "{{.Name}}:{{.Current}}"],
        &["context", "ls", "--format", "table {{.Name}}\\t{{.DockerEndpoint}}"],
        &["-c", "a2", "context", "ls"],
        &["-c", "absent", "context", "ls", "-q"],
        &["-c", "absent", "context", "show"],
        &["context", "inspect", "default", "secure"],
    ] {
        compare(arguments, &[]);
    }
    compare(&["context", "ls"], &[("DOCKER_HOST", "tcp://elsewhere")]);
    compare(&["context", "use", "a2"], &[("DOCKER_HOST", "tcp://elsewhere")]);
    compare(&["context", "show"], &[("DOCKER_HOST", "tcp://elsewhere")]);
    compare(&["context", "show"], &[("DOCKER_CONTEXT", "a10")]);
    compare(&["context", "show"], &[("DOCKER_CONTEXT", "a10"), ("DOCKER_HOST", "tcp://elsewhere")]);
    compare(&["-c", "secure", "context", "show"], &[("DOCKER_CONTEXT", "a10"), ("DOCKER_HOST", "tcp://x")]);
    compare(&["-H", "tcp://x", "context", "show"], &[("DOCKER_CONTEXT", "a10")]);
}

#[test]
fn hosts_beat_contexts() {
    let daemon = Daemon::start();
    let id = daemon.background(&["busybox", "sleep", "1000"]);
    let home = User::new();
    home.run(Client::Docker, &["context", "create", "wrong", "--docker", "host=unix:///nonexistent"]).ok();
    home.run(Client::Docker, &["context", "use", "wrong"]).ok();
    for client in [Client::Berth, Client::Docker] {
        home.run(client, &["ps", "-q"]).fails(1, "unix:///nonexistent");
        assert!(id.starts_with(&home.run(client, &["-H", &daemon.host(), "ps", "-q"]).ok()));
        assert!(
            id.starts_with(&run(home.command(client, &["ps", "-q"]).env("DOCKER_HOST", daemon.host())).ok())
        );
        run(home.command(client, &["-c", "wrong", "ps"]).env("DOCKER_HOST", daemon.host()))
            .fails(1, "unix:///nonexistent");
        // A directory of settings can be named.
        let other = User::new();
        let directory = home.path("");
        run(&mut other.command(client, &["--config", directory.to_str().unwrap(), "ps"]))
            .fails(1, "unix:///nonexistent");
    }
}

#[test]
fn broken_settings_warn_and_do_not_fail() {
    let home = User::new();
    let told = |client: Client| home.run(client, &["context", "show"]);
    for text in ["{\"auths\": {}, ", "{\"psFormat\": 5}", "{\"detachKeys\": [1]}"] {
        fs::write(home.path("config.json"), text).unwrap();
        let (ours, theirs) = (told(Client::Berth), told(Client::Docker));
        assert_eq!((ours.stderr.clone(), ours.stdout.as_str(), ours.code), (theirs.stderr, "default\n", 0));
        assert!(ours.stderr.starts_with("WARNING: Error parsing config file ("), "{}", ours.stderr);
    }
    fs::write(home.path("config.json"), "nonsense").unwrap();
    assert!(told(Client::Berth).stderr.starts_with("WARNING: Error parsing config file ("));
    home.run(Client::Berth, &["context", "create", "one", "--docker", "host=unix:///x"]).ok();
    home.run(Client::Berth, &["context", "use", "one"]).fails(1, "correct or remove it first");
    assert_eq!(fs::read_to_string(home.path("config.json")).unwrap(), "nonsense", "nothing is lost");
    // What is not known is kept.
    fs::write(home.path("config.json"), r#"{"future": [1], "credsStore": "x"}"#).unwrap();
    home.run(Client::Berth, &["context", "use", "one"]).ok();
    assert_eq!(
        home.settings(),
        serde_json::json!({"auths": {}, "future": [1], "credsStore": "x", "currentContext": "one"})
    );
    let mode = fs::metadata(home.path("config.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Whether another client waits.
fn more(listener: &UnixListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    let found = listener.accept().is_ok();
    listener.set_nonblocking(false).unwrap();
    found
}

#[test]
fn headers_of_the_settings_are_sent() {
    let home = User::new();
    fs::write(home.path("config.json"), r#"{"HttpHeaders": {"X-Mine": "one", "User-Agent": "me"}}"#).unwrap();
    let socket = home.path("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let host = format!("unix://{}", socket.display());
    // The head of the first request.
    let heard = |client: Client, variable: Option<&str>| {
        let mut command = home.command(client, &["-H", &host, "ps"]);
        variable.map(|value| command.env("DOCKER_CUSTOM_HEADERS", value));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            head.push(byte[0]);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(client == Client::Docker || !more(&listener), "one request needs one connection");
        String::from_utf8(head).unwrap().to_lowercase()
    };
    for client in [Client::Berth, Client::Docker] {
        let head = heard(client, None);
        assert!(head.contains("x-mine: one\r\n") && !head.contains("user-agent: me\r\n"), "{head}");
        let head = heard(client, Some("X-Yours=two,\"X-More=a,b\""));
        assert!(head.contains("x-yours: two\r\n") && head.contains("x-more: a,b\r\n"), "{head}");
        assert!(!head.contains("x-mine"), "the variable replaces the settings: {head}");
    }
}

with_both_clients! {
    fn settings_have_effect(daemon: &Daemon, client: Client) {
        let settings = serde_json::json!({
            "psFormat": "ps:{{.Names}}", "imagesFormat": "images:{{.Repository}}", "statsFormat": "stats:{{.Name}}",
            "HttpHeaders": {"X-Mine": "1"}, "pruneFilters": ["until=24h"], "detachKeys": "ctrl-x,x",
            "aliases": {"builder": "buildx"}, "experimental": "enabled",
            "proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "localhost"}, "tcp://other:1": {"ftpProxy": "x"}},
        });
        fs::write(daemon.root.path().join("config.json"), settings.to_string()).unwrap();
        let run = |arguments: &[&str]| daemon.with(client, arguments).ok();
        let id = run(&["run", "-d", "--name", "up", "busybox", "sleep", "1000"]);
        assert_eq!(run(&["ps"]), "ps:up");
        assert_eq!(run(&["ps", "-q"]), &id[..12]);
        assert!(run(&["ps", "--format", "table"]).contains("CONTAINER ID"));
        assert_eq!(run(&["images"]), "images:busybox");
        assert_eq!(run(&["stats", "--no-stream"]), "stats:up");
        let variables = run(&["run", "--rm", "-e", "HTTP_PROXY=mine", "-e", "no_proxy", "busybox", "env"]);
        let proxies: Vec<&str> = variables.lines().filter(|line| line.to_lowercase().contains("_proxy=")).collect();
        let mut expected = vec!["HTTP_PROXY=mine", "NO_PROXY=localhost", "http_proxy=http://p:1"];
        let mut found = proxies.clone();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{variables}");
        run(&["create", "--name", "made", "busybox"]);
        let variables = daemon.inspect("made", "{{json .Config.Env}}");
        assert!(variables.contains("http_proxy=http://p:1") && variables.contains("HTTP_PROXY"), "{variables}");
        run(&["container", "prune", "-f"]);
        assert_eq!(run(&["ps", "-a", "--format", "{{.Names}}"]).lines().collect::<Vec<_>>(), ["made", "up"], "too young");
        // Keys that the settings name detach; a flag names others.
        for (flag, keys) in [(None, "\u{18}x"), (Some("--detach-keys=ctrl-y"), "\u{19}")] {
            let mut arguments = vec!["run", "-it"];
            arguments.extend(flag);
            arguments.extend(["busybox", "sh", "-c", "echo here; exec sleep 1000"]);
            let mut terminal = Terminal::run(daemon.client(client, &arguments));
            terminal.expect("here");
            terminal.send(keys);
            assert_eq!(terminal.end(), 0, "detached");
        }
    }

    fn variables_have_effect(daemon: &Daemon, client: Client) {
        let with = |name: &str, value: &str, arguments: &[&str]| {
            run(daemon.client(client, arguments).env(name, value))
        };
        assert_eq!(with("DOCKER_API_VERSION", "1.40", &["version", "--format", "{{.Client.APIVersion}}"]).ok(), "1.40");
        with("DOCKER_CUSTOM_HEADERS", "X-Mine=1,X-Other=2", &["ps"]).ok();
        with("DOCKER_CUSTOM_HEADERS", "nonsense", &["ps"]).fails(1, "missing \"=\" in key=value pair: 'nonsense'");
        with("DOCKER_DEFAULT_PLATFORM", "linux/s390x", &["create", "--pull", "never", "busybox"]).fails(1, "linux/s390x");
        with("DOCKER_CONTENT_TRUST", "0", &["ps"]).ok();
        with("DOCKER_HIDE_LEGACY_COMMANDS", "1", &["ps"]).ok();
        daemon.with(client, &["-D", "-l", "debug", "ps"]).ok();
    }
}
