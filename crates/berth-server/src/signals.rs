//! Signals, as what they ask for.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The end; the signal's name.
    End(&'static str),
    /// The settings read again.
    Reload,
    /// A line in the log.
    Report,
    /// The host goes down: the end that follows is that of the containers too.
    HostGoesDown,
}

/// The signals that a daemon understands.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: Signal,
    power: Signal,
}

/// `SIGPWR`.
const POWER: i32 = 30;

impl Signals {
    /// From here on, they do nothing by themselves.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
            power: signal(SignalKind::from_raw(POWER))?,
        })
    }

    /// What the next signal asks for.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            // Before the end, which service managers ask for right after it.
            _ = self.power.recv() => Asked::HostGoesDown,
            _ = self.terminate.recv() => Asked::End("SIGTERM"),
            _ = self.interrupt.recv() => Asked::End("SIGINT"),
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.user.recv() => Asked::Report,
        }
    }

    /// The next signal that asks for the end; others are dropped.
    pub async fn end(&mut self) -> &'static str {
        loop {
            if let Asked::End(name) = self.next().await {
                return name;
            }
        }
    }
}
