//! The two clients say the same: templates, tables, mistakes and exit codes.

use crate::daemon::{Client, Daemon};
use crate::output::{Output, run};

/// What a client prints, with our own called as the stock one.
fn said(daemon: &Daemon, client: Client, arguments: &[&str]) -> (i32, String, String) {
    let mut command = daemon.client(client, arguments);
    command.env("DOCKER_HOST", daemon.host()).env("BERTH_HOST", daemon.host());
    let Output { code, stdout, stderr, .. } = run(&mut command);
    let plain = |text: String| text.replace("berth", "docker").trim().to_owned();
    (code, plain(stdout), plain(stderr))
}

/// How the two clients differ, if they do.
fn difference(daemon: &Daemon, arguments: &[&str]) -> Option<String> {
    let both = || [Client::Docker, Client::Berth].map(|client| said(daemon, client, arguments));
    let [mut docker, mut berth] = both();
    for _ in 0..4 {
        // Seconds may have passed in between.
        if docker != berth {
            [docker, berth] = both();
        }
    }
    (docker != berth).then(|| format!("{arguments:?}\n  docker: {docker:?}\n  berth:  {berth:?}\n"))
}

fn furnish(daemon: &Daemon) -> String {
    daemon.berth(&["create", "--name", "made", "-l", "com.example.the-team=red", "busybox", "true"]).ok();
    let id = daemon.background(&[
        "--name",
        "web",
        "-l",
        "b=2",
        "-l",
        "a=1",
        "-v",
        "/tmp:/mnt",
        "busybox",
        "sleep",
        "1000",
    ]);
    daemon.berth(&["create", "--name", "stopped", "busybox", "true"]).ok();
    id
}

#[test]
fn lists_and_templates_are_the_same() {
    let daemon = Daemon::start();
    let id = furnish(&daemon);
    let mut wrong = Vec::new();
    for format in [
        "table",
        "table {{.Names}}\\t{{.Image}}\\t{{.State}}",
        "table {{lower .Names}}\\t{{.Label \"com.example.the-team\"}}\\t{{truncate .ID 4}}",
        "table {{.ID}}: {{.Command}} {{.Labels}} {{.Mounts}} {{.LocalVolumes}} {{.Networks}}",
        "{{.Names}}\\t{{.Label \"a\"}}\\n--",
        "{{json .Names}} {{json .Command}} {{.CreatedAt}} {{.Size}}",
        "{{if eq .State \"running\"}}{{upper .Names}}{{else}}{{pad .Names 2 2}}|{{end}}",
        "{{range split .Labels \",\"}}[{{title .}}]{{end}}",
        "{{with .Ports}}{{.}}{{else}}none{{end}} {{len .ID}} {{printf \"%-6s|%5.1f|%q\" .Names 1.25 .State}}",
        "{{- .Names -}} {{/* nothing */}} {{$x := .Image}}{{println $x}}",
        "{{and .Names (not .Ports)}} {{or .Ports \"x\"}} {{index (split .Names \"e\") 0}}",
        "raw",
    ] {
        wrong.extend(difference(&daemon, &["ps", "-a", "--format", format]));
    }
    for arguments in [
        &["ps", "-aq"][..],
        &["ps", "-a", "--no-trunc"],
        &["ps", "-as"],
        &["ps", "-l", "-q"],
        &["ps", "-n", "1", "--format", "{{.Names}}"],
        &["ps", "-aq", "--format", "raw"],
        &["container", "list", "-q"],
        &["images"],
        &["images", "--digests", "--no-trunc"],
        &["images", "-q"],
        &["images", "--format", "raw"],
        &["images", "--format", "table {{.Repository}}:{{.Tag}}\\t{{.Size}}"],
        &["image", "ls", "--format", "{{.ID}} {{.Repository}} {{.CreatedAt}} {{.Digest}}"],
        &["history", "busybox", "--format", "{{.ID}} {{.Size}} {{.CreatedBy}}"],
        &["history", "-q", "busybox"],
        &["diff", "web"],
        &["port", "web"],
        &["top", "web", "-o", "pid,comm"],
        &["system", "df", "--format", "raw"],
        &["inspect", "--type", "moon", "web"],
        &["inspect", "--type", "image", "web"],
        &["inspect", "--type", "container", "-s", "-f", "{{.SizeRw}}", "web"],
        &["inspect", "-f", "{{.Name}} {{json .State.Running}} {{len .Mounts}}", "web", "made"],
        &["inspect", "-f", "{{range .Mounts}}{{.Source}}:{{.Destination}}{{end}}", "web"],
        &[
            "inspect",
            "-f",
            "{{index .Config.Labels \"a\"}} {{join .Config.Cmd \"+\"}} {{.HostConfig.Memory}}",
            "web",
        ],
        &["inspect", "-f", "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "web"],
        // The whole differs by the version of the API, which is the client's.
        &[
            "image",
            "inspect",
            "-f",
            "{{.Id}} {{json .RepoTags}} {{.Os}}/{{.Architecture}} {{.Size}} {{json .RootFS}}",
            "busybox",
        ],
        &["container", "inspect", "busybox"],
    ] {
        wrong.extend(difference(&daemon, arguments));
    }
    wrong.extend(difference(&daemon, &["inspect", "-f", "{{.Id}}", &id[..12]]));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn mistakes_are_told_the_same() {
    let daemon = Daemon::start();
    furnish(&daemon);
    let mut wrong = Vec::new();
    for line in [
        "flarp",
        "container flarp",
        "run",
        "stop",
        "ps x",
        "rename a",
        "rename a b c",
        "attach",
        "attach a b",
        "port",
        "port a b c",
        "top",
        "exec",
        "exec a",
        "inspect",
        "help flarp",
        "help run x",
        "run --flarp x",
        "ps -Z",
        "ps --last x",
        "ps --format",
        "run --memory 12q x",
        "container ls -n",
        "info x",
        "system prune x",
        "--flarp",
        "stop -t x y",
        "ps --all=maybe",
        "diff",
        "logs",
        "tag a",
        "history",
        "version x",
        "pull",
        "load x",
        "ps -n5x",
        "run -dZ x",
        "stop --tim=3",
        "container ls -q --",
        "stop nothing",
        "rm nothing",
        "exec made true",
        "exec nothing true",
        "exec web flarp",
        "exec web /etc",
        "run --rm busybox sh -c false",
        "logs nothing",
        "wait nothing",
        "kill -s FLARP web",
        "kill made",
        "pause made",
        "update web",
        "top made",
        "create --name web busybox",
        "run --network name=x,ip=1.2.3.4 --ip 1.2.3.5 busybox",
        "ps --filter flarp",
        "ps --filter flarp=x",
        "inspect --type= web",
        "stats --no-stream nothing",
        "history nothing",
        "rmi nothing",
        "tag busybox UPPER",
        "system df -v --format table",
        "run --restart always --rm busybox",
    ] {
        wrong.extend(difference(&daemon, &line.split(' ').collect::<Vec<_>>()));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The next release of Docker's client words these as Berth does.
    for (line, code, text) in [
        ("start nothing made nothing2", 1, "failed to start containers: nothing, nothing2"),
        ("port made 80", 1, "no public port '80"),
        ("port web x", 1, "invalid syntax"),
        ("rename web made", 1, "Conflict. The container name \"/made\" is already in use"),
        ("attach web2", 1, "No such container: web2"),
        ("attach stopped", 1, "cannot attach to a stopped container, start it first"),
        ("inspect nothing", 1, "no such object: nothing"),
        ("run -d busybox flarp", 127, "executable file not found"),
        ("run --rm busybox flarp", 127, "executable file not found"),
        ("run --rm busybox /etc", 126, "is a directory"),
    ] {
        for client in [Client::Docker, Client::Berth] {
            daemon.with(client, &line.split(' ').collect::<Vec<_>>()).fails(code, text);
        }
    }
    daemon
        .berth(&["run", "--ip", "x", "busybox"])
        .fails(125, "invalid argument \"x\" for \"--ip\" flag: failed to parse IP");
    daemon
        .berth(&["start", "--checkpoint", "x", "made", "web"])
        .fails(1, "cannot restore multiple containers");
    for arguments in [
        &["ps", "-a", "--format", "{{.Nope}}"][..],
        &["inspect", "-f", "{{", "web"],
        &["ps", "--format", "{{.ID"],
        &["info", "--format", "{{"],
    ] {
        // Go and Berth word what is wrong with a template differently.
        let [docker, berth] = [Client::Docker, Client::Berth].map(|client| said(&daemon, client, arguments));
        assert_eq!(docker.0, berth.0, "{arguments:?}: {docker:?} {berth:?}");
        assert!(berth.2.contains("template"), "{berth:?}");
    }
}

/// Flags without an effect, or for what Berth does not have.
const HIDDEN: [&str; 6] =
    ["--platform", "--tree", "--disable-content-trust", "--help", "--isolation", "--kernel-memory"];

#[test]
fn helps_show_the_flags_of_both() {
    let daemon = Daemon::empty(&[]);
    let flags = |client, words: &[&str]| {
        let (code, text, _) = said(&daemon, client, words);
        assert_eq!(code, 0, "{words:?}");
        let line = text.lines().find(|line| line.starts_with("Usage:")).unwrap().to_owned();
        let names = text.lines().filter_map(|line| {
            let line = line.trim_start();
            line.split([' ', ','])
                .find(|word| word.starts_with("--"))
                .filter(|_| line.starts_with('-'))
                .map(str::to_owned)
        });
        (line, names.collect::<std::collections::BTreeSet<_>>())
    };
    for command in [
        "run", "create", "exec", "start", "stop", "restart", "kill", "rm", "ps", "logs", "top", "stats",
        "inspect", "port", "wait", "pause", "unpause", "rename", "attach", "update", "diff", "export",
        "events", "info", "version", "images", "history", "pull", "load", "tag", "rmi",
    ] {
        let (usage, docker) = flags(Client::Docker, &[command, "--help"]);
        let (same, berth) = flags(Client::Berth, &[command, "--help"]);
        assert_eq!(same, usage, "{command}");
        assert_eq!(flags(Client::Berth, &["help", command]).0, usage);
        let missing: Vec<_> =
            docker.difference(&berth).filter(|name| !HIDDEN.contains(&name.as_str())).collect();
        assert!(missing.is_empty(), "{command}: {missing:?}");
    }
}

#[test]
fn inspected_objects_are_shown_in_the_daemons_order() {
    let daemon = Daemon::start();
    let id = furnish(&daemon);
    let text = daemon.berth(&["inspect", "web"]).ok();
    assert!(
        text.starts_with(&format!("[\n    {{\n        \"Id\": \"{id}\",\n        \"Created\"")),
        "{text}"
    );
    let pretty: serde_json::Value = serde_json::from_str(&text).unwrap();
    let line = daemon.berth(&["inspect", "--format", "json", "web"]).ok();
    assert!(line.starts_with(&format!("[{{\"Id\":\"{id}\",\"Created\"")), "{line}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), pretty);
    let found = daemon.berth(&["inspect", "web", "nothing"]).fails(1, "no such object: nothing").stdout;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&found).unwrap(), pretty);
    assert_eq!(daemon.berth(&["inspect", "nothing"]).fails(1, "no such object: nothing").stdout, "[]\n");
}

// The stock client of today gives up at the first kind that the daemon does not have.
#[test]
fn system_prune_removes_what_it_says() {
    let daemon = Daemon::start();
    furnish(&daemon);
    let made = daemon.berth(&["inspect", "-f", "{{.Id}}", "made"]).ok();
    let question = crate::output::feed(&mut daemon.client(Client::Berth, &["system", "prune"]), b"n\n").ok();
    assert!(question.starts_with("WARNING! This will remove:\n  - all stopped containers\n"), "{question}");
    assert_eq!(daemon.berth(&["ps", "-aq"]).ok().lines().count(), 3);
    let text = daemon.berth(&["system", "prune", "-f", "--filter", "label=com.example.the-team"]).ok();
    assert_eq!(text, format!("Deleted Containers:\n{made}\n\nTotal reclaimed space: 0B"));
    daemon
        .berth(&["system", "prune", "-f", "--volumes", "--filter", "until=1h"])
        .fails(1, "not supported with");
    let text = daemon.berth(&["system", "prune", "-f"]).ok();
    assert!(text.starts_with("Deleted Containers:\n"), "{text}");
    assert_eq!(daemon.berth(&["ps", "-a", "--format", "{{.Names}}"]).ok(), "web");
}

#[test]
fn a_container_reaches_the_daemon_by_its_socket() {
    let daemon = Daemon::start();
    let text = daemon
        .berth(&["run", "--rm", "--use-api-socket", "busybox", "ls", "-l", "/var/run/docker.sock"])
        .ok();
    assert!(text.starts_with('s'), "{text}");
}
