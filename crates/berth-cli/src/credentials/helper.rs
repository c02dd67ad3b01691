//! Programs that keep credentials: `docker-credential-NAME get|list|store|erase`
//! (<https://github.com/docker/docker-credential-helpers>).

use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use crate::failure::{Failure, Outcome, plain};

/// How all of them begin.
const PREFIX: &str = "docker-credential-";
/// Longest answer, in bytes.
const LONGEST: u64 = 1 << 20;
/// Longest time for one; it may have to ask its user.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a helper keeps.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Secret {
    #[serde(rename = "ServerURL")]
    server: String,
    /// The account.
    pub username: String,
    /// Password or token.
    pub secret: String,
}

/// What a helper has for a server.
pub async fn get(helper: &str, server: &str) -> Outcome<Option<Secret>> {
    match run(helper, "get", server.as_bytes()).await? {
        Ok(output) => berth_api::json::from_slice(output.as_bytes()).map(Some).map_err(|error| {
            Failure::new(format!("error getting credentials - {PREFIX}{helper} gave something else: {error}"))
        }),
        Err((_, output)) if output.contains("credentials not found in native keychain") => Ok(None),
        Err((reason, output)) => Err(failure("getting", &reason, &output)),
    }
}

/// The servers for which a helper has something.
pub async fn list(helper: &str) -> Outcome<Vec<String>> {
    match run(helper, "list", b"").await? {
        Ok(output) => serde_json::from_str::<BTreeMap<String, String>>(&output)
            .map(|all| all.into_keys().collect())
            .map_err(|error| Failure::new(format!("{PREFIX}{helper} gave something else: {error}"))),
        Err((reason, output)) => Err(failure("listing", &reason, &output)),
    }
}

/// Gives something to a helper to keep.
pub async fn store(helper: &str, server: &str, username: &str, secret: &str) -> Outcome {
    let kept = Secret { server: server.to_owned(), username: username.to_owned(), secret: secret.to_owned() };
    let text = serde_json::to_vec(&kept).map_err(|error| Failure::new(error.to_string()))?;
    let outcome = run(helper, "store", &text).await?;
    outcome.map(drop).map_err(|(reason, output)| failure("storing", &reason, &output))
}

/// Lets a helper forget.
pub async fn erase(helper: &str, server: &str) -> Outcome {
    match run(helper, "erase", server.as_bytes()).await? {
        Err((_, output)) if output.contains("credentials not found in native keychain") => Ok(()),
        Err((reason, output)) => Err(failure("erasing", &reason, &output)),
        Ok(_) => Ok(()),
    }
}

fn failure(doing: &str, reason: &str, output: &str) -> Failure {
    Failure::new(format!("error {doing} credentials - err: {reason}, out: `{output}`"))
}

/// Runs a helper: its output, or why it failed with what it said.
async fn run(helper: &str, action: &str, input: &[u8]) -> Outcome<Result<String, (String, String)>> {
    let program = format!("{PREFIX}{helper}");
    // A name is looked for in PATH; anything else would be another program than it seems.
    if helper.contains('/') || helper.contains('\0') {
        return Err(Failure::new(format!("invalid name of a credential helper: {helper:?}")));
    }
    let mut command = Command::new(&program);
    command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let reason = format!("exec: {program:?}: executable file not found in $PATH");
            return Ok(Err((reason, String::new())));
        }
        Err(error) => return Ok(Err((format!("exec: {program:?}: {}", plain(&error)), String::new()))),
    };
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // One that does not read has its reasons, and says them.
            let _ = stdin.write_all(input).await;
        }
    };
    let read = async {
        let mut output = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(LONGEST).read_to_end(&mut output).await?;
        }
        io::Result::Ok(output)
    };
    let work = async {
        let ((), output) = tokio::join!(write, read);
        Ok::<_, io::Error>((output?, child.wait().await?))
    };
    let Ok(done) = timeout(PATIENCE, work).await else {
        let reason = format!("no answer from {program} for {} s", PATIENCE.as_secs());
        return Ok(Err((reason, String::new())));
    };
    let (output, status) = done.map_err(|error| Failure::io(&program, &error))?;
    let output = String::from_utf8_lossy(&output).trim().to_owned();
    if status.success() {
        return Ok(Ok(output));
    }
    let reason = status.code().map_or_else(|| status.to_string(), |code| format!("exit status {code}"));
    // A terminal shows this.
    let clean = output.chars().filter(|character| !character.is_control()).take(500).collect();
    Ok(Err((reason, clean)))
}
