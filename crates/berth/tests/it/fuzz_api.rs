//! Random requests for every route. Whatever a client sends: it gets an answer in Docker's form that blames the request
//! and not the daemon, which goes on.
//!
//! `BERTH_FUZZ_SEED` replays a run, `BERTH_FUZZ_SECONDS` makes it longer.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::fuzz_routes::Answer::{self, Stream, Whole};
use crate::fuzz_routes::{ROUTES, Route};
use crate::model::Random;
use crate::raw;

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
