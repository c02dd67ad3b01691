//! Questions on a terminal, whose answers may be secret.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::failure::{Failure, Outcome};

/// Exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Asks for a line.
pub async fn line(question: &str) -> Outcome<String> {
    out!("{question}");
    io::stdout().flush()?;
    read().await
}

/// Asks for a line that is not shown.
pub async fn secret(question: &str) -> Outcome<String> {
    let _quiet = Quiet::enter()?;
    out!("{question}");
    io::stdout().flush()?;
    let answer = read().await;
    outln!();
    answer
}

/// Reads a line; Ctrl-C ends it, so that the terminal can be put in order first.
async fn read() -> Outcome<String> {
    let reading = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    tokio::select! {
        line = reading => {
            let line = line.map_err(|error| Failure::new(error.to_string()))??;
            Ok(line.trim().to_owned())
        }
        _ = tokio::signal::ctrl_c() => Err(Failure::silent(INTERRUPTED)),
    }
}

/// The terminal without echo, until this is dropped.
struct Quiet {
    before: Termios,
}

impl Quiet {
    fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &quiet)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
