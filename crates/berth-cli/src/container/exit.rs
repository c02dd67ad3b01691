//! How a container ended.

use std::time::{Duration, Instant};

use berth_api::container::WaitResponse;
use berth_client::{Client, Error, Query, ResponseBody, segment};

use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// How long a daemon that went away is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(100);

/// A wait that counts from now on.
#[derive(Debug)]
pub struct Wait {
    body: ResponseBody,
}

impl Wait {
    /// Begins to wait. The condition is Docker's: `next-exit`, `removed`, or nothing for one that does not run.
    pub async fn begin(client: &Client, id: &str, condition: &str) -> Result<Self, Error> {
        let path = Query::new().set("condition", condition).on(&format!("/containers/{}/wait", segment(id)));
        Ok(Self { body: client.post_for_stream(&path).await? })
    }

    /// The container's exit code. A daemon that goes away is waited for: the container goes on without it.
    pub async fn code(self, (context, client): (&Context, &Client), id: &str) -> Outcome<u8> {
        let mut last = match self.body.all().await {
            Ok(bytes) => return read(&bytes),
            Err(error) => error,
        };
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            tokio::time::sleep(PAUSE).await;
            let outcome = async {
                let client = context.reconnect(client).await?;
                Self::begin(&client, id, "").await?.body.all().await
            };
            match outcome.await {
                Ok(bytes) => return read(&bytes),
                Err(error) if error.status().is_some() => return Err(error.into()),
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }
}

fn read(bytes: &[u8]) -> Outcome<u8> {
    let response: WaitResponse = serde_json::from_slice(bytes)
        .map_err(|error| Failure::with_code(125, format!("Error waiting for container: {error}")))?;
    if let Some(error) = response.error.filter(|error| !error.message.is_empty()) {
        return Err(Failure::with_code(125, format!("Error waiting for container: {}", error.message)));
    }
    Ok(clip(response.status_code))
}

/// An exit code as a process can have it.
pub fn clip(code: i64) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// Ends the program with a container's exit code.
pub fn with(code: u8) -> Outcome {
    if code == 0 { Ok(()) } else { Err(Failure::silent(code)) }
}

/// The exit code for a container that did not start, by the daemon's words, as Docker has it.
pub fn code_of(message: &str) -> u8 {
    let contains = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if contains(&[
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
    ]) {
        127
    } else if contains(&["permission denied", "is a directory", "exec format error"]) {
        126
    } else {
        125
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_to_start_have_dockers_codes() {
        assert_eq!(code_of("exec: \"x\": executable file not found in $PATH"), 127);
        assert_eq!(code_of("exec: \"/etc/passwd\": permission denied"), 126);
        assert_eq!(code_of("driver failed"), 125);
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(read(br#"{"StatusCode":137}"#), Ok(137));
        assert_eq!(read(br#"{"StatusCode":0,"Error":{"Message":"x"}}"#).unwrap_err().code, 125);
        assert_eq!(read(b"").unwrap_err().code, 125);
    }
}
