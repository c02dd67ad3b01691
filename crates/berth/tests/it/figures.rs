//! What containers use: over the API, and as the command lines show it.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::daemon::{Client, Daemon};
use crate::output::run;
use crate::terminal::Terminal;

/// A busy program: all of one CPU.
const BUSY: [&str; 4] = ["busybox", "sh", "-c", "while :; do :; done"];

fn curl(daemon: &Daemon, path: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["-s", "-S", "-N", "--unix-socket"]).arg(daemon.socket());
    command.arg(format!("http://localhost{path}"));
    command
}

/// One sample; `query` says how.
#[track_caller]
fn sample(daemon: &Daemon, name: &str, query: &str) -> Value {
    let text = run(&mut curl(daemon, &format!("/v1.55/containers/{name}/stats?{query}"))).ok();
    assert_eq!(text.lines().count(), 1, "one sample and nothing else: {text}");
    serde_json::from_str(&text).unwrap()
}

/// A stream of samples, as a client reads it.
struct Samples {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Samples {
    fn of(daemon: &Daemon, name: &str) -> Samples {
        let mut command = curl(daemon, &format!("/containers/{name}/stats"));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Samples { child, lines }
    }

    /// The next sample; none when the stream has ended.
    fn next(&mut self) -> Option<Value> {
        self.lines.next().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
    }

    /// Reads on until a sample is as wanted.
    #[track_caller]
    fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..15 {
            let sample = self.next().unwrap_or_else(|| panic!("the stream ended before {what}"));
            if wanted(&sample) {
                return sample;
            }
        }
        panic!("never: {what}");
    }
}

impl Drop for Samples {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn runs(sample: &Value) -> bool {
    number(&sample["pids_stats"]["current"]) > 0
}

with_both_clients! {
    fn a_table_is_shown_once(daemon: &Daemon, client: Client) {
        let arguments = [&["run", "-d", "--name", "busy", "--memory", "64m"], BUSY.as_slice()].concat();
        let id = daemon.with(client, &arguments).ok();
        daemon.with(client, &["create", "--name", "idle", "busybox"]).ok();
        let table = daemon.with(client, &["stats", "--no-stream"]).ok();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 2, "{table}");
        let heading: Vec<&str> = lines[0].split("  ").map(str::trim).filter(|part| !part.is_empty()).collect();
        assert_eq!(heading, ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"]);
        let row: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!((row[0], row[1], row[5], row.last().copied()), (&id[..12], "busy", "64MiB", Some("1")), "{table}");
        let percent: f64 = row[2].trim_end_matches('%').parse().unwrap();
        assert!(percent > 5.0, "a busy loop uses the processor: {table}");
    }

    fn rows_follow_the_template(daemon: &Daemon, client: Client) {
        let id = daemon.with(client, &["run", "-d", "--name", "cc", "--network", "none", "busybox", "sleep", "1000"]).ok();
        daemon.with(client, &["create", "--name", "idle", "busybox"]).ok();
        let shown = |arguments: &[&str]| daemon.with(client, &[&["stats", "--no-stream"], arguments].concat()).ok();
        assert_eq!(shown(&["--no-trunc", "--format", "{{.Name}} {{.ID}} {{.Container}} {{.NetIO}} {{.PIDs}}", "cc"]), format!("cc {id} cc 0B / 0B 1"));
        let line: Value = serde_json::from_str(&shown(&["--format", "json", "cc"])).unwrap();
        let mut names: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["BlockIO", "CPUPerc", "Container", "ID", "MemPerc", "MemUsage", "Name", "NetIO", "PIDs"]);
        assert_eq!((&line["Name"], &line["ID"]), (&json!("cc"), &json!(id[..12])));
        let mut all: Vec<String> = shown(&["--all", "--format", "{{.Name}} {{.PIDs}}"]).lines().map(str::to_owned).collect();
        all.sort_unstable();
        assert_eq!(all, ["cc 1", "idle 0"]);
        daemon.with(client, &["stats", "--no-stream", "absent"]).fails(1, "No such container: absent");
        daemon.with(client, &["container", "stats", "--no-stream", "idle"]).ok();
    }
}

#[test]
fn one_shot_is_one_sample_at_once() {
    let daemon = Daemon::start();
    let id = daemon.background(&["--name", "cc", "--pids-limit", "50", "busybox", "sleep", "1000"]);
    let found = sample(&daemon, "cc", "stream=false&one-shot=true");
    assert_eq!(
        (&found["id"], &found["name"], &found["os_type"]),
        (&json!(id), &json!("/cc"), &json!("linux"))
    );
    assert_eq!(found["preread"], "0001-01-01T00:00:00Z");
    assert_eq!(
        (
            &found["precpu_stats"]["system_cpu_usage"],
            number(&found["precpu_stats"]["cpu_usage"]["total_usage"])
        ),
        (&Value::Null, 0)
    );
    assert!(number(&found["cpu_stats"]["cpu_usage"]["total_usage"]) > 0, "{found:#}");
    assert!(
        number(&found["cpu_stats"]["system_cpu_usage"]) > 0 && number(&found["cpu_stats"]["online_cpus"]) > 0
    );
    assert_eq!(found["pids_stats"], json!({"current": 1, "limit": 50}));
    assert_eq!((&found["storage_stats"], &found["num_procs"]), (&json!({}), &json!(0)));
    let memory = daemon.berth(&["info", "--format", "{{.MemTotal}}"]).ok();
    assert_eq!(found["memory_stats"]["limit"].to_string(), memory, "no limit is the host's memory");
    assert!(number(&found["memory_stats"]["usage"]) > 0);
    let details = found["memory_stats"]["stats"].as_object().unwrap();
    assert!(details.contains_key("inactive_file") && details.len() > 30, "{details:?}");
    assert!(found["blkio_stats"].as_object().unwrap().contains_key("io_service_bytes_recursive"));
}

#[test]
fn two_samples_tell_how_busy_it_is() {
    let daemon = Daemon::start();
    let id = daemon.background(&[&["--memory", "64m", "--cpus", "0.5"], BUSY.as_slice()].concat());
    let found = sample(&daemon, &id, "stream=false");
    assert_ne!(found["preread"], "0001-01-01T00:00:00Z");
    let since = |path: &[&str]| {
        let of = |stats: &Value| number(path.iter().fold(stats, |value, key| &value[key]));
        of(&found["cpu_stats"]) - of(&found["precpu_stats"])
    };
    let (used, passed) = (since(&["cpu_usage", "total_usage"]), since(&["system_cpu_usage"]));
    assert!(used > 0 && passed > used, "{found:#}");
    assert!(since(&["throttling_data", "periods"]) > 0, "{found:#}");
    let parts = since(&["cpu_usage", "usage_in_usermode"]) + since(&["cpu_usage", "usage_in_kernelmode"]);
    assert!(parts > 0, "{found:#}");
    assert_eq!(found["memory_stats"]["limit"], 64 << 20);
}

#[test]
fn traffic_is_that_of_the_containers_own_interfaces() {
    let daemon = Daemon::start();
    let id = daemon.background(&["--name", "net", "busybox", "sleep", "1000"]);
    let packets = |name: &str| {
        let found = sample(&daemon, name, "stream=false&one-shot=1");
        let networks = found["networks"].as_object().unwrap();
        assert_eq!(networks.keys().collect::<Vec<_>>(), ["eth0"]);
        (number(&networks["eth0"]["tx_packets"]), number(&networks["eth0"]["tx_bytes"]))
    };
    let before = packets(&id);
    // Nobody need answer: that it asked is counted.
    let gateway = daemon.inspect(&id, "{{.NetworkSettings.Networks.bridge.Gateway}}");
    daemon.berth(&["exec", &id, "ping", "-c", "3", "-W", "1", &gateway]);
    let after = packets(&id);
    assert!(after.0 > before.0 && after.1 > before.1, "{before:?} {after:?}");
    daemon.background(&["--name", "joined", "--network", "container:net", "busybox", "sleep", "1000"]);
    assert!(packets("joined").0 >= after.0, "it is the same namespace");
    for network in ["host", "none"] {
        let id = daemon.background(&["--network", network, "busybox", "sleep", "1000"]);
        assert_eq!(sample(&daemon, &id, "stream=false&one-shot=1")["networks"], Value::Null, "{network}");
    }
}

#[test]
fn a_stopped_container_has_empty_figures_and_an_absent_one_none() {
    let daemon = Daemon::start();
    let id = daemon.berth(&["create", "--name", "cc", "busybox"]).ok();
    for query in ["stream=false", "stream=false&one-shot=true"] {
        let found = sample(&daemon, "cc", query);
        let expected = json!({
            "id": id, "name": "/cc", "os_type": "linux",
            "read": "0001-01-01T00:00:00Z", "preread": "0001-01-01T00:00:00Z",
            "cpu_stats": {
                "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
                "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
            },
            "precpu_stats": {
                "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
                "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
            },
            "blkio_stats": {
                "io_service_bytes_recursive": null, "io_serviced_recursive": null, "io_queue_recursive": null,
                "io_service_time_recursive": null, "io_wait_time_recursive": null,
                "io_merged_recursive": null, "io_time_recursive": null, "sectors_recursive": null,
            },
            "memory_stats": {}, "pids_stats": {}, "storage_stats": {}, "num_procs": 0,
        });
        assert_eq!(found, expected);
    }
    for query in ["", "?stream=false"] {
        let answer = run(&mut curl(&daemon, &format!("/containers/absent/stats{query}"))).ok();
        assert_eq!(answer, "{\"message\":\"No such container: absent\"}");
    }
}

#[test]
fn a_stream_goes_on_over_stop_and_start_and_ends_with_the_container() {
    let daemon = Daemon::start();
    let id = daemon.background(&["busybox", "sleep", "1000"]);
    let mut samples = Samples::of(&daemon, &id);
    let first = samples.next().unwrap();
    assert!(runs(&first) && first["preread"] == "0001-01-01T00:00:00Z", "{first:#}");
    let second = samples.next().unwrap();
    assert_eq!(second["preread"], first["read"]);
    assert_eq!(second["precpu_stats"], first["cpu_stats"]);
    daemon.berth(&["stop", "-t", "0", &id]).ok();
    let stopped = samples.until("it is stopped", |sample| !runs(sample));
    assert_eq!((&stopped["memory_stats"], &stopped["read"]), (&json!({}), &json!("0001-01-01T00:00:00Z")));
    daemon.berth(&["start", &id]).ok();
    samples.until("it runs again", runs);
    daemon.berth(&["rm", "-f", &id]).ok();
    while samples.next().is_some() {}
    assert!(samples.child.wait().unwrap().success(), "the stream ends as an answer does");
}

#[test]
fn a_client_that_does_not_read_delays_nobody() {
    let daemon = Daemon::start();
    let id = daemon.background(&["busybox", "sleep", "1000"]);
    let _asleep: Vec<Samples> = (0..20).map(|_| Samples::of(&daemon, &id)).collect();
    let mut reading = Samples::of(&daemon, &id);
    for _ in 0..3 {
        assert!(runs(&reading.next().unwrap()));
    }
    daemon.berth(&["rm", "-f", &id]).ok();
    while reading.next().is_some() {}
}

#[test]
fn the_live_table_follows_what_comes_and_goes() {
    let daemon = Daemon::start();
    daemon.background(&["--name", "first", "busybox", "sleep", "1000"]);
    let mut command = daemon.client(Client::Berth, &["stats", "--format", "{{.Name}}={{.PIDs}}"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = |wanted: &str| {
        let found = lines.by_ref().take(200).any(|line| line.unwrap() == wanted);
        assert!(found, "never shown: {wanted}");
    };
    seen("first=1");
    daemon.background(&["--name", "second", "busybox", "sleep", "1000"]);
    seen("second=1");
    daemon.berth(&["rm", "-f", "second"]).ok();
    seen("first=1");
    child.kill().unwrap();
    child.wait().unwrap();
    // Named containers end it with their removal.
    let mut command = daemon.client(Client::Berth, &["stats", "--format", "{{.Name}}={{.PIDs}}", "first"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().take(20).any(|line| line.unwrap() == "first=1"));
    daemon.berth(&["rm", "-f", "first"]).ok();
    while lines.next().is_some() {}
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_terminal_is_drawn_over() {
    let daemon = Daemon::start();
    daemon.background(&["--name", "cc", "busybox", "sleep", "1000"]);
    let mut terminal = Terminal::run(daemon.client(Client::Berth, &["stats"]));
    terminal.expect("\x1b[H\x1b[J");
    terminal.expect("CONTAINER ID");
    terminal.expect("cc ");
    // The next table begins in the corner again, and clears what it does not cover.
    terminal.expect("\x1b[J\x1b[H");
    terminal.expect("CONTAINER ID");
    terminal.expect("\x1b[K");
    terminal.send("\x03");
}
