//! What developers of Docker look at, while the daemon runs with `--debug`.

use http::StatusCode;
use http::header::HeaderValue;

use super::Outcome;
use crate::answer;
use crate::body::Body;
use crate::call::Call;
use crate::failure::Failure;

/// Answers below `/debug`. Without debug mode there is nothing.
pub fn answer(call: &Call, segments: &[&str]) -> Outcome {
    if !call.engine.settings().debug {
        return Err(Failure::page_not_found());
    }
    match segments {
        ["vars"] => Ok(answer::ok(&variables())),
        ["pprof"] => {
            Ok(text("cmdline\nProfiles of Go programs do not exist here; use perf(1).\n".to_owned()))
        }
        ["pprof", "cmdline"] => Ok(text(command_line().join("\0"))),
        ["pprof", _] => Err(Failure::new(StatusCode::NOT_FOUND, "Unknown profile")),
        _ => Err(Failure::page_not_found()),
    }
}

/// Go's published variables, as far as they exist.
fn variables() -> serde_json::Value {
    let metrics = tokio::runtime::Handle::current().metrics();
    serde_json::json!({
        "cmdline": command_line(),
        "tasks": metrics.num_alive_tasks(),
        "workers": metrics.num_workers(),
    })
}

fn command_line() -> Vec<String> {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

fn text(body: String) -> http::Response<Body> {
    answer::with(
        StatusCode::OK,
        Some(HeaderValue::from_static("text/plain; charset=utf-8")),
        Body::from(body),
    )
}
