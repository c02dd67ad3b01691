//! Random requests for every route. Whatever a client sends: it gets an answer in Docker's form that blames the request
//! and not the daemon, which goes on.
//!
//! `BERTH_FUZZ_SEED` replays a run, `BERTH_FUZZ_SECONDS` makes it longer.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::model::Random;
use crate::raw;

/// How a route's answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// At once and whole.
    Whole,
    /// In pieces, for as long as it likes.
    Stream,
}

use Answer::{Stream, Whole};

/// A route: `{}` is a name.
struct Route {
    method: &'static str,
    path: &'static str,
    parameters: &'static [&'static str],
    body: Option<&'static str>,
    answer: Answer,
}

const fn route(method: &'static str, path: &'static str, parameters: &'static [&'static str]) -> Route {
    Route { method, path, parameters, body: None, answer: Whole }
}

const fn stream(method: &'static str, path: &'static str, parameters: &'static [&'static str]) -> Route {
    Route { method, path, parameters, body: None, answer: Stream }
}

const fn document(
    method: &'static str,
    path: &'static str,
    parameters: &'static [&'static str],
    body: &'static str,
) -> Route {
    Route { method, path, parameters, body: Some(body), answer: Whole }
}

const CREATE: &str = r#"{
    "Hostname": "h", "Domainname": "d", "User": "1:1", "AttachStdin": false, "AttachStdout": true, "AttachStderr": true,
    "ExposedPorts": {"80/tcp": {}}, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": ["A=b"],
    "Cmd": ["true"], "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000, "Timeout": 1000000000,
    "StartPeriod": 0, "StartInterval": 0, "Retries": 3}, "ArgsEscaped": false, "Image": "busybox",
    "Volumes": {"/v": {}}, "WorkingDir": "/", "Entrypoint": ["sh"], "NetworkDisabled": false,
    "MacAddress": "02:42:ac:11:00:02", "OnBuild": null, "Labels": {"a": "b"}, "StopSignal": "SIGTERM", "StopTimeout": 1,
    "Shell": ["sh"],
    "HostConfig": {
        "Binds": ["/tmp:/x:ro"], "ContainerIDFile": "", "LogConfig": {"Type": "local", "Config": {"max-size": "1m"}},
        "NetworkMode": "none", "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]},
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 1}, "AutoRemove": false, "VolumeDriver": "",
        "VolumesFrom": [], "ConsoleSize": [24, 80], "Annotations": {"a": "b"}, "CapAdd": ["CHOWN"], "CapDrop": ["ALL"],
        "CgroupnsMode": "private", "Dns": ["192.0.2.1"], "DnsOptions": ["ndots:1"], "DnsSearch": ["x"],
        "ExtraHosts": ["a:192.0.2.1"], "GroupAdd": ["1"], "IpcMode": "private", "Cgroup": "", "Links": [],
        "OomScoreAdj": 0, "PidMode": "", "Privileged": false, "PublishAllPorts": false, "ReadonlyRootfs": true,
        "SecurityOpt": ["no-new-privileges"], "StorageOpt": {}, "Tmpfs": {"/t": "size=1m"}, "UTSMode": "",
        "UsernsMode": "", "ShmSize": 1048576, "Sysctls": {"net.ipv4.ip_forward": "0"}, "Runtime": "berth",
        "Isolation": "", "CpuShares": 2, "Memory": 67108864, "NanoCpus": 100000000, "CgroupParent": "",
        "BlkioWeight": 0, "BlkioWeightDevice": [{"Path": "/dev/null", "Weight": 10}],
        "BlkioDeviceReadBps": [{"Path": "/dev/null", "Rate": 1}], "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0, "CpusetCpus": "0", "CpusetMems": "0",
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/n", "CgroupPermissions": "r"}],
        "DeviceCgroupRules": ["c 1:3 r"], "DeviceRequests": [{"Driver": "cdi", "Count": 0, "DeviceIDs": ["a/b=c"],
        "Capabilities": [["gpu"]], "Options": {}}], "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": 0,
        "OomKillDisable": false, "PidsLimit": 10, "Ulimits": [{"Name": "nofile", "Hard": 9, "Soft": 9}],
        "Mounts": [{"Type": "tmpfs", "Target": "/m", "TmpfsOptions": {"SizeBytes": 1, "Mode": 511}}],
        "MaskedPaths": ["/proc/kcore"], "ReadonlyPaths": ["/proc/sys"], "Init": true
    },
    "NetworkingConfig": {"EndpointsConfig": {"none": {"IPAMConfig": {"IPv4Address": "192.0.2.9"}, "Links": [],
        "Aliases": ["a"], "DriverOpts": {}, "GwPriority": 1, "MacAddress": ""}}}
}"#;
const UPDATE: &str = r#"{"Memory": 67108864, "MemorySwap": -1, "CpuShares": 2, "NanoCpus": 100000000, "CpusetCpus": "0",
    "PidsLimit": 100, "BlkioWeight": 0, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "CpuPeriod": 0}"#;
const EXEC: &str = r#"{"AttachStdin": false, "AttachStdout": true, "Tty": false, "DetachKeys": "ctrl-p", "Cmd": ["true"],
    "Env": ["A=b"], "WorkingDir": "/", "User": "0", "Privileged": false, "ConsoleSize": [24, 80]}"#;
const START: &str = r#"{"Detach": true, "Tty": false, "ConsoleSize": [24, 80]}"#;
const NETWORK: &str = r#"{"Name": "n", "Driver": "bridge", "Scope": "local", "Internal": true, "Attachable": false,
    "Ingress": false, "EnableIPv6": false, "Options": {"a": "b"}, "Labels": {"a": "b"}, "IPAM": {"Driver": "default",
    "Config": [{"Subnet": "192.0.2.0/24", "IPRange": "192.0.2.0/25", "Gateway": "192.0.2.1"}], "Options": {}}}"#;

const ROUTES: &[Route] = &[
    route("GET", "/_ping", &["x"]),
    route("HEAD", "/_ping", &[]),
    route("GET", "/version", &[]),
    route("GET", "/info", &[]),
    route("GET", "/system/df", &["type", "verbose"]),
    stream("GET", "/events", &["since", "until", "filters"]),
    route("GET", "/containers/json", &["all", "limit", "size", "filters"]),
    document("POST", "/containers/create", &["name", "platform"], CREATE),
    route("GET", "/containers/{}/json", &["size"]),
    route("GET", "/containers/{}/top", &["ps_args"]),
    stream(
        "GET",
        "/containers/{}/logs",
        &["follow", "stdout", "stderr", "since", "until", "timestamps", "tail"],
    ),
    route("GET", "/containers/{}/changes", &[]),
    stream("GET", "/containers/{}/export", &[]),
    stream("GET", "/containers/{}/stats", &["stream", "one-shot"]),
    route("POST", "/containers/{}/resize", &["h", "w"]),
    route("POST", "/containers/{}/start", &["detachKeys", "checkpoint"]),
    route("POST", "/containers/{}/stop", &["signal", "t"]),
    route("POST", "/containers/{}/restart", &["signal", "t"]),
    route("POST", "/containers/{}/kill", &["signal"]),
    document("POST", "/containers/{}/update", &[], UPDATE),
    route("POST", "/containers/{}/rename", &["name"]),
    route("POST", "/containers/{}/pause", &[]),
    route("POST", "/containers/{}/unpause", &[]),
    stream("POST", "/containers/{}/attach", &["detachKeys", "logs", "stream", "stdin", "stdout", "stderr"]),
    stream("GET", "/containers/{}/attach/ws", &["detachKeys", "logs", "stream", "stdin", "stdout", "stderr"]),
    stream("POST", "/containers/{}/wait", &["condition"]),
    route("DELETE", "/containers/{}", &["v", "force", "link"]),
    route("HEAD", "/containers/{}/archive", &["path"]),
    stream("GET", "/containers/{}/archive", &["path"]),
    route("PUT", "/containers/{}/archive", &["path", "noOverwriteDirNonDir", "copyUIDGID"]),
    route("POST", "/containers/prune", &["filters"]),
    document("POST", "/containers/{}/exec", &[], EXEC),
    document("POST", "/exec/{}/start", &[], START),
    route("POST", "/exec/{}/resize", &["h", "w"]),
    route("GET", "/exec/{}/json", &[]),
    route("GET", "/images/json", &["all", "filters", "shared-size", "digests", "manifests"]),
    route("GET", "/images/{}/json", &["platform", "manifests"]),
    route("GET", "/images/{}/history", &["platform"]),
    route("POST", "/images/{}/tag", &["repo", "tag"]),
    route("POST", "/images/{}/push", &["tag", "platform"]),
    route("POST", "/images/create", &["fromSrc", "repo", "tag", "platform"]),
    route("POST", "/images/load", &["quiet"]),
    route("POST", "/images/prune", &["filters"]),
    route("GET", "/images/search", &["term", "limit", "filters"]),
    stream("GET", "/images/{}/get", &[]),
    stream("GET", "/images/get", &["names"]),
    route("DELETE", "/images/no-{}", &["force", "noprune"]),
    route("GET", "/networks", &["filters"]),
    route("GET", "/networks/{}", &["verbose", "scope"]),
    route("DELETE", "/networks/no-{}", &[]),
    document("POST", "/networks/create", &[], NETWORK),
    document(
        "POST",
        "/networks/{}/connect",
        &[],
        r#"{"Container": "made", "EndpointConfig": {"Aliases": ["a"]}}"#,
    ),
    document("POST", "/networks/{}/disconnect", &[], r#"{"Container": "made", "Force": true}"#),
    route("POST", "/networks/prune", &["filters"]),
    route("GET", "/volumes", &["filters"]),
    document(
        "POST",
        "/volumes/create",
        &[],
        r#"{"Name": "v", "Driver": "local", "DriverOpts": {}, "Labels": {"a": "b"}}"#,
    ),
    route("GET", "/volumes/{}", &[]),
    route("DELETE", "/volumes/{}", &["force"]),
    route("POST", "/volumes/prune", &["filters"]),
    document("POST", "/auth", &[], r#"{"username": "u", "password": "p", "serveraddress": "127.0.0.1:1"}"#),
    route("PUT", "/volumes/{}", &["version"]),
    route("POST", "/volumes/{}/rename", &["name"]),
    route("POST", "/volumes/{}/snapshot", &["name"]),
    stream("GET", "/volumes/{}/archive", &[]),
    route("PUT", "/volumes/{}/archive", &[]),
    document(
        "POST",
        "/containers/{}/ports",
        &[],
        r#"{"Publish": {"80/tcp": [{"HostPort": "0"}]}, "Unpublish": {}}"#,
    ),
    document(
        "POST",
        "/commit",
        &["container", "repo", "tag", "comment", "author", "pause", "changes"],
        r#"{"Cmd": ["true"], "Env": ["A=b"], "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}}}"#,
    ),
    stream(
        "POST",
        "/build",
        &[
            "dockerfile",
            "t",
            "q",
            "nocache",
            "rm",
            "memory",
            "cpuperiod",
            "shmsize",
            "buildargs",
            "labels",
            "cachefrom",
            "networkmode",
            "platform",
            "target",
            "outputs",
            "version",
        ],
    ),
    route("POST", "/build/prune", &["all", "keep-storage", "reserved-space", "max-used-space", "filters"]),
    // A registry that refuses at once: others would be looked for.
    route("GET", "/distribution/127.0.0.1:1/{}/json", &[]),
    route("GET", "/images/127.0.0.1:1/{}/estimate", &["platform"]),
    route("GET", "/berth/images/{}/layers", &[]),
    route("GET", "/plugins", &["filters"]),
    route("GET", "/plugins/{}/json", &[]),
    route("GET", "/plugins/privileges", &["remote"]),
    route("POST", "/plugins/pull", &["remote", "name"]),
    route("POST", "/plugins/{}/enable", &["timeout"]),
    route("DELETE", "/plugins/{}", &["force"]),
    route("GET", "/swarm", &[]),
    document("POST", "/swarm/init", &[], r#"{"ListenAddr": "127.0.0.1:1"}"#),
    route("POST", "/swarm/leave", &["force"]),
    route("GET", "/nodes", &["filters"]),
    route("GET", "/tasks", &["filters"]),
    document(
        "POST",
        "/services/create",
        &[],
        r#"{"Name": "s", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}}"#,
    ),
    route("DELETE", "/secrets/{}", &[]),
    document("POST", "/configs/create", &[], r#"{"Name": "c", "Data": "eA==", "Labels": {}}"#),
    route("POST", "/session", &[]),
    route("OPTIONS", "/info", &[]),
    route("PATCH", "/containers/{}", &["x"]),
    route("GET", "/{}", &["x"]),
];

const NAMES: [&str; 12] = [
    "run",
    "run",
    "made",
    "absent",
    "busybox",
    "none",
    "%2e%2e",
    "..%2f..%2fetc",
    "a%00b",
    "%ff",
    "%F0%9F%92%A9",
    "run%20",
];
const VALUES: [&str; 40] = [
    "",
    "0",
    "1",
    "-1",
    "true",
    "false",
    "all",
    "none",
    "x",
    "SIGTERM",
    "sigkill",
    "15",
    "999",
    "-9223372036854775808",
    "9223372036854775807",
    "99999999999999999999999",
    "1e9",
    "1.5",
    "1700000000.000000001",
    "2024-01-01T00:00:00Z",
    "%00",
    "%ff",
    "%0a%0d",
    "%F0%9F%92%A9",
    "{}",
    "[]",
    "{",
    "null",
    "%7B%22label%22%3A%5B%22a%22%5D%7D",
    "%7B%22label%22%3A%7B%22a%22%3Atrue%7D%7D",
    "%7B%22until%22%3A%5B%22x%22%5D%7D",
    "%7B%22id%22%3A%5B%22%5B%22%5D%7D",
    "linux/amd64",
    "linux/x/y/z/w",
    "/etc/..",
    "../..",
    "ctrl-p,ctrl-q",
    "ctrl-",
    "-ef",
    "not-running",
];
const ODD: [&str; 36] = [
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1",
    "1.5",
    "1e400",
    "9223372036854775807",
    "-9223372036854775809",
    "18446744073709551616",
    "4294967296",
    "65536",
    "\"\"",
    "\" \"",
    "\"x\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"a\\nb\"",
    "\"../../etc\"",
    "\"/\"",
    "\"-1\"",
    "\"99999999999999999999\"",
    "\"💩\"",
    "\":\"",
    "\"=\"",
    "\"a:b:c:d:e\"",
    "\"container:run\"",
    "\"container:\"",
    "[]",
    "[null]",
    "[[]]",
    "{}",
    "{\"\": null}",
    "[\"\"]",
    "{\"a\": \"b\"}",
];

/// A document like `model` in which parts were exchanged for odd ones.
fn changed(random: &mut Random, model: &Value, out: &mut String) {
    if random.below(40) == 0 {
        return match random.below(12) {
            0 => out.push_str(&format!("\"{}\"", "x".repeat(70_000))),
            1 => out.push_str(&format!("{}{}", "[".repeat(500), "]".repeat(500))),
            _ => out.push_str(random.of(&ODD)),
        };
    }
    match model {
        Value::Object(map) => {
            out.push('{');
            let mut first = true;
            for (name, value) in map {
                // Left out, or there twice.
                for _ in 0..[1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 2][random.below(12) as usize] {
                    out.push_str(if first { "" } else { "," });
                    first = false;
                    out.push_str(&Value::from(name.as_str()).to_string());
                    out.push(':');
                    changed(random, value, out);
                }
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for (index, value) in list.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                changed(random, value, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// One request, and what may come of it.
struct Drawn {
    bytes: Vec<u8>,
    /// It breaks off before its end.
    cut: bool,
    answer: Answer,
    text: String,
}

fn target(random: &mut Random, route: &Route) -> String {
    let versions = ["", "", "", "/v1.55", "/v1.44", "/v1.41", "/v1.24", "/v1.23", "/v9.9", "/v1.x", "/v1"];
    let version = random.of(&versions);
    // Before 1.30 nothing of a wait comes before its end.
    let version = if route.path.ends_with("/wait") && version == "/v1.24" { "" } else { version };
    let mut path = format!("{version}{}", route.path);
    while path.contains("{}") {
        path = path.replacen("{}", random.of(&NAMES), 1);
    }
    let mut separator = '?';
    for name in route.parameters {
        let value = match *name {
            // Nobody wants to wait as long as this could be.
            "t" => random.of(&["0", "1", "x", "99999999999999999999"]),
            "name" => random.of(&["made", "fz0", "fz1", "fz2", "", "/", "a", "-a", "%ff", "a%00b", "../x"]),
            _ => random.of(&VALUES),
        };
        if random.below(2) == 0 || *name == "t" {
            path.push_str(&format!("{separator}{name}={value}"));
            separator = '&';
        }
    }
    path
}

fn draw(random: &mut Random) -> Drawn {
    let route = &ROUTES[random.below(ROUTES.len() as u64) as usize];
    let mut body = Vec::new();
    if let Some(model) = route.body {
        let mut text = String::new();
        changed(random, &serde_json::from_str(model).unwrap(), &mut text);
        body = text.into_bytes();
    }
    match random.below(24) {
        0 => body = b"{nonsense".to_vec(),
        1 => body.truncate(body.len() / 2),
        2 => body = body.iter().flat_map(|byte| [*byte, 0]).collect(),
        3 => body.extend([0xff, 0xfe, 0]),
        4 => body.extend(b" {}"),
        5 => body = vec![b'['; 100_000],
        _ => {}
    }
    let kinds =
        ["application/json", "application/json; charset=utf-8", "text/plain", "application/x-tar", ";", ""];
    let kind = if random.below(8) == 0 { random.of(&kinds) } else { kinds[0] };
    let mut head = format!("{} {} HTTP/1.1\r\nHost: localhost\r\n", route.method, target(random, route));
    if random.below(16) != 0 {
        head.push_str(&format!("Content-Type: {kind}\r\n"));
    }
    for line in [
        "Content-Encoding: gzip\r\n",
        "X-Registry-Auth: !!!\r\n",
        "Connection: Upgrade\r\nUpgrade: tcp\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n",
    ] {
        if random.below(16) == 0 {
            head.push_str(line);
        }
    }
    let chunked = random.below(4) == 0;
    if chunked {
        head.push_str("Transfer-Encoding: chunked\r\n\r\n");
        let middle = random.below(body.len() as u64 + 1) as usize;
        let mut chunks = Vec::new();
        for part in [&body[..middle], &body[middle..]].into_iter().filter(|part| !part.is_empty()) {
            chunks.extend(format!("{:x}\r\n", part.len()).into_bytes());
            chunks.extend(part);
            chunks.extend(b"\r\n");
        }
        chunks.extend(b"0\r\n\r\n");
        body = chunks;
    } else {
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    }
    let cut = !body.is_empty() && random.below(12) == 0;
    if cut {
        body.truncate(random.below(body.len() as u64) as usize);
    }
    let shown = String::from_utf8_lossy(&body).chars().take(3000).collect::<String>();
    let text = format!("{head}{shown}");
    Drawn { bytes: [head.into_bytes(), body].concat(), cut, answer: route.answer, text }
}

/// The head of an answer and its body as far as it came.
fn send(daemon: &Daemon, drawn: &Drawn) -> Result<(String, String), String> {
    let mut stream = raw::connect(daemon);
    // A refusal may come before the end of a request that is too large to be read.
    let _ = stream.write_all(&drawn.bytes);
    if drawn.cut {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let mut chunk = [0; 64 << 10];
    let end = |answer: &[u8]| answer.windows(4).position(|four| four == b"\r\n\r\n");
    loop {
        let read = stream.read(&mut chunk).map_err(|error| format!("no answer: {error}"));
        let count = match read {
            Err(_) if drawn.cut => break,
            read => read?,
        };
        answer.extend(&chunk[..count]);
        let Some(end) = end(&answer) else {
            if count == 0 {
                break;
            }
            continue;
        };
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        let whole = length.is_some_and(|length: usize| answer.len() >= end + 4 + length)
            || answer.ends_with(b"\r\n0\r\n\r\n");
        let bodiless =
            [" 204 ", " 304 ", " 101 "].iter().any(|code| head.starts_with(&format!("http/1.1{code}")));
        if count == 0 || whole || bodiless || drawn.answer == Stream || drawn.text.starts_with("HEAD ") {
            break;
        }
    }
    match end(&answer) {
        Some(end) => {
            let (head, body) = answer.split_at(end);
            Ok((String::from_utf8_lossy(head).into(), String::from_utf8_lossy(&body[4..]).into()))
        }
        None if drawn.cut => Ok(("HTTP/1.1 000 cut off".into(), String::new())),
        None => Err(format!("the connection ended with {:?}", String::from_utf8_lossy(&answer))),
    }
}

/// Mistakes of a client that Docker answers with 500, and so does Berth.
const AS_DOCKER: [&str; 2] = ["is not connected to ", "Cannot locate specified Dockerfile"];

fn judge(drawn: &Drawn, answer: Result<(String, String), String>) -> Result<(), String> {
    let (head, body) = answer?;
    let status: u16 = head.get(9..12).and_then(|status| status.parse().ok()).ok_or(head.clone())?;
    // What another host does to the daemon's own request is no mistake of the client's.
    let elsewhere = ["/auth", "fromSrc=", "/images/search", "/distribution/", "/estimate"]
        .iter()
        .any(|part| drawn.text.contains(part));
    let excused =
        AS_DOCKER.iter().any(|text| body.contains(text)) || elsewhere && body.contains("failed to ");
    if status >= 500 && ![501, 503].contains(&status) && !excused {
        return Err(format!("{head}\n{body}"));
    }
    // A body may come later than the head of a stream that was refused.
    let form = !body.is_empty() || drawn.answer == Whole;
    // As in Docker, an attachment is refused in plain words.
    let form = form && !head.contains("application/vnd.docker.raw-stream");
    if status >= 400 && form && !drawn.text.starts_with("HEAD ") {
        let document: Value =
            serde_json::from_str(&body).map_err(|error| format!("{error}: {head}\n{body}"))?;
        if document["message"].as_str().is_none_or(str::is_empty) {
            return Err(format!("no message: {head}\n{body}"));
        }
    }
    Ok(())
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Makes the two containers that requests are about, if an earlier request took one away.
fn prepare(daemon: &Daemon) {
    let script = ["busybox", "sh", "-c", "trap exit TERM; sleep 1000 & wait"];
    for (name, running) in [("run", true), ("made", false)] {
        let body = json!({ "Image": script[0], "Cmd": script[1..], "HostConfig": { "NetworkMode": "none" } });
        let path = format!("/containers/create?name={name}");
        // There already, most of the time.
        crate::api::request(daemon, "POST", &path, Some(&body));
        if running {
            crate::api::request(daemon, "POST", &format!("/containers/{name}/start"), None);
        }
    }
}

#[test]
fn whatever_is_asked_the_daemon_answers() {
    let seed = number("BERTH_FUZZ_SEED", 20_261_121);
    let time = Duration::from_secs(number("BERTH_FUZZ_SECONDS", 10));
    eprintln!("BERTH_FUZZ_SEED={seed}");
    // Registries are refused at once: a name server that cannot be reached is waited for.
    let daemon = Daemon::start_with("HTTPS_PROXY", "http://127.0.0.1:1");
    let mut random = Random::new(seed);
    let (started, mut count, mut wrong) = (Instant::now(), 0, Vec::new());
    while started.elapsed() < time && wrong.len() < 10 {
        if count % 50 == 0 {
            prepare(&daemon);
        }
        count += 1;
        let drawn = draw(&mut random);
        let before = Instant::now();
        if let Err(why) = judge(&drawn, send(&daemon, &drawn)) {
            wrong.push(format!("--- request {count}\n{}\n--- answer\n{why}\n", drawn.text));
        }
        if before.elapsed() > Duration::from_secs(8) {
            wrong.push(format!("--- request {count} took {:?}\n{}\n", before.elapsed(), drawn.text));
        }
    }
    eprintln!("{count} requests");
    assert!(wrong.is_empty(), "{}", wrong.concat());
    assert!(count > 200, "only {count} requests");
    assert_eq!(crate::api::ask(&daemon, "/containers/json?all=1", None).0, 200);
    assert!(!daemon.log().to_lowercase().contains("panic"), "it panicked");
}
