//! `system dial-stdio`: the daemon's socket on standard input and output, for clients that come by ssh.

use clap::Command;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::session::streams::read_stdin;

/// Bytes read at once.
const PART: usize = 64 << 10;

/// The command.
pub fn command() -> Command {
    Command::new("dial-stdio").about("Connects standard input and output with the daemon").hide(true)
}

/// Runs it. It ends with the daemon's side; the end of input is passed on.
pub async fn run(context: &Context) -> Outcome {
    let connection = context
        .dial()
        .await
        .map_err(|failure| Failure::new(format!("failed to open the raw stream connection: {failure}")))?;
    let (mut from, mut to) = tokio::io::split(connection);
    let upwards = async {
        let mut input = read_stdin();
        while let Some(part) = input.recv().await {
            if to.write_all(&part).await.is_err() {
                // The other direction tells how it ended.
                break;
            }
        }
        // An error means that nobody reads.
        let _ = to.shutdown().await;
        std::future::pending::<()>().await;
    };
    let downwards = async {
        let mut output = tokio::io::stdout();
        let mut buffer = vec![0; PART];
        loop {
            match from.read(&mut buffer).await? {
                0 => return Ok(()),
                count => output.write_all(&buffer[..count]).await?,
            }
            output.flush().await?;
        }
    };
    let outcome: std::io::Result<()> = tokio::select! {
        outcome = downwards => outcome,
        () = upwards => Ok(()),
    };
    outcome.map_err(|error| Failure::io("error while copying the stream", &error))
}
