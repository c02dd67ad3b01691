//! Checks by a process in the container, which is an exec instance as any other.

use std::sync::Arc;
use std::time::Duration;

use berth_shim::client::ShimClient;
use berth_shim::protocol::Target;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::check::go;
use super::output::Output;
use super::{Finding, TIMED_OUT};
use crate::container::Container;
use crate::engine::Parts;
use crate::life::exec::{self, Exec};
use crate::{Error, op, signal};

/// How long what was killed may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a command in the container, and sees it to its end, or to the end of its time.
pub async fn run(
    parts: &Arc<Parts>,
    container: &Arc<Container>,
    command: &[String],
    limit: Duration,
) -> Result<Finding, Error> {
    if command.is_empty() {
        let text = format!("healthcheck for container {} has no command", container.id());
        return Err(Error::InvalidParameter(text));
    }
    let op = op::ExecCreate { command: command.to_vec(), stdout: true, stderr: true, ..Default::default() };
    let exec = exec::prepare(parts, container, container.id(), op, Vec::new())?;
    let finding = finish(parts, &exec, limit).await;
    // Unlike a client's, nobody asks for it later.
    parts.execs.remove(&exec.id);
    finding
}

/// Given up at any moment, also by the death of the daemon, it leaves nothing behind: the process ends with the
/// connection that takes its output.
async fn finish(parts: &Arc<Parts>, exec: &Arc<Exec>, limit: Duration) -> Result<Finding, Error> {
    let io = |source| Error::Io { operation: "make the streams of a health check".into(), source };
    let (mut ours, theirs) = UnixStream::pair().map_err(io)?;
    let theirs = theirs.into_std().map_err(io)?;
    let pending =
        exec::begin(parts, exec, &op::ExecStart { detach: false, tty: false, size: None })?.for_check();
    let shim = pending.shim();
    // The time that its start takes is not the check's.
    pending.run(Some((theirs.into(), Vec::new()))).await?;
    let mut output = Output::default();
    let end = async { tokio::join!(exec.ended(), drain(&mut ours, &mut output)) };
    if timeout(limit, end).await.is_ok() || exec.exit_code().is_some() {
        let code = exec.exit_code().unwrap_or(TIMED_OUT);
        return Ok(Finding { code, output: output.text() });
    }
    kill(&shim, &exec.id).await;
    if timeout(PATIENCE, exec.ended()).await.is_err() {
        tracing::warn!(container = exec.container_id(), "a health check could not be killed");
    }
    // What it wrote before is on its way, or here already.
    let _ = timeout(PATIENCE, drain(&mut ours, &mut output)).await;
    let said = match output.text() {
        text if text.is_empty() => text,
        text => format!(": {text}"),
    };
    let output = format!("Health check exceeded timeout ({}){said}", go(limit));
    Ok(Finding { code: TIMED_OUT, output })
}

async fn kill(shim: &ShimClient, id: &str) {
    if let Err(error) = shim.kill(Target::Exec(id.to_owned()), signal::KILL).await {
        // It has ended by itself.
        tracing::debug!(exec = id, %error, "a health check was not killed");
    }
}

/// Reads to the end; what is too much is read and forgotten, so that the check is not held up.
async fn drain(stream: &mut UnixStream, output: &mut Output) {
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        output.push(&buffer[..read]);
    }
}
