//! The API as it is, without a client between.

use std::process::Command;

use serde_json::Value;

use crate::daemon::{Client, Daemon};
use crate::output::run;

/// Asks with a method; what is answered, `Null` if it is no JSON.
pub fn request(daemon: &Daemon, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let mut command = Command::new("curl");
    command.args(["-s", "-w", "\n%{http_code}", "-X", method, "--unix-socket"]).arg(daemon.socket());
    if let Some(body) = body {
        command.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
    }
    let text = run(command.arg(format!("http://localhost{path}"))).ok();
    let (body, code) = text.rsplit_once('\n').unwrap_or(("", &text));
    (code.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

/// Asks with GET, or with POST if there is a body.
pub fn ask(daemon: &Daemon, path: &str, body: Option<&Value>) -> (u16, Value) {
    request(daemon, if body.is_some() { "POST" } else { "GET" }, path, body)
}

/// The status and the message of an error.
#[track_caller]
pub fn refused(daemon: &Daemon, method: &str, path: &str) -> (u16, String) {
    let (code, answer) = request(daemon, method, path, None);
    (code, answer["message"].as_str().unwrap_or_else(|| panic!("{code} {answer}")).to_owned())
}

/// The events of a container so far: the action, and after it the attribute `exitCode` or `signal`.
pub fn events(daemon: &Daemon, container: &str) -> Vec<String> {
    let format = "{{.Action}}{{with .Actor.Attributes.exitCode}} {{.}}{{end}}{{with .Actor.Attributes.signal}} {{.}}{{end}}";
    let filter = format!("container={container}");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    let until = (now.as_secs() + 1).to_string();
    let arguments = ["events", "--since", "1", "--until", &until, "--filter", &filter, "--format", format];
    daemon.with(Client::Docker, &arguments).ok().lines().map(str::to_owned).collect()
}
