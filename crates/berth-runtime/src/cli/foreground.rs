//! Staying with a process: signals, the terminal, the exit code.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::error::{Context as _, Result};

const WINCH: i32 = 28;
/// Passed on to the process.
const PASSED: [i32; 8] = [1, 2, 3, 10, 12, 14, 15, WINCH];
/// Most bytes to copy at once.
const CHUNK: usize = 16 << 10;
/// Bytes of one `signalfd_siginfo`; its first four are the signal's number.
const INFORMATION: usize = 128;

/// Blocks the signals to pass on, and gives the descriptor to read them from.
pub(super) fn catch() -> Result<OwnedFd> {
    berth_sys::process::block_signals(&PASSED).context(|| "block signals".to_owned())?;
    berth_sys::process::signalfd(&PASSED).context(|| "catch signals".to_owned())
}

/// The own terminal in raw mode, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Passes signals and the terminal's bytes on until the process ends; gives its exit code.
pub(super) fn attend(pidfd: &OwnedFd, console: Option<OwnedFd>, signals: &OwnedFd) -> Result<u8> {
    let _raw = console.as_ref().and_then(|_| Raw::enter());
    if let Some(console) = &console {
        resize(console);
    }
    let mut terminal = console.map(Terminal::new).transpose()?;
    loop {
        let stdin = io::stdin();
        let mut ready = vec![PollFd::new(pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        let output = terminal.as_ref().is_some_and(|terminal| terminal.output);
        let input = terminal.as_ref().is_some_and(|terminal| terminal.input && terminal.typed.is_empty());
        if let Some(terminal) = terminal.as_ref().filter(|_| output) {
            ready.push(PollFd::new(&terminal.master, terminal.wanted()));
        }
        if input {
            ready.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match rustix::event::poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context(|| "wait for the container".to_owned()),
        }
        let is_ready: Vec<bool> = ready.iter().map(|ready| !ready.revents().is_empty()).collect();
        drop(ready);
        if is_ready[1] {
            pass_signal(signals, pidfd, terminal.as_ref().map(|terminal| &terminal.master));
        }
        if let Some(terminal) = &mut terminal {
            if output && is_ready[2] {
                terminal.show();
                terminal.hand_in();
            }
            if input && is_ready.last() == Some(&true) {
                terminal.type_in();
            }
        }
        // What it wrote last comes before its end.
        let done = terminal
            .as_ref()
            .is_none_or(|terminal| !terminal.output || !is_ready.get(2).copied().unwrap_or_default());
        if is_ready[0] && done {
            return reap(pidfd);
        }
    }
}

/// The container's terminal, relayed to the own one.
struct Terminal {
    /// Never blocks: a program that reads nothing must not keep its output and the signals waiting.
    master: OwnedFd,
    /// What has been read, but not taken by the container's terminal.
    typed: Vec<u8>,
    input: bool,
    output: bool,
}

impl Terminal {
    fn new(master: OwnedFd) -> Result<Self> {
        rustix::io::ioctl_fionbio(&master, true).context(|| "change the terminal's mode".to_owned())?;
        Ok(Self { master, typed: Vec::new(), input: true, output: true })
    }

    /// What to wait for at the container's terminal.
    fn wanted(&self) -> PollFlags {
        if self.typed.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
    }

    /// Copies output; at its end the other side of the terminal is closed.
    fn show(&mut self) {
        let mut buffer = [0; CHUNK];
        self.output = match rustix::io::read(&self.master, &mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                print(&buffer[..count]);
                true
            }
            Err(error) => matches!(error, Errno::INTR | Errno::AGAIN),
        };
    }

    /// Reads input.
    fn type_in(&mut self) {
        let mut buffer = [0; CHUNK];
        match rustix::io::read(io::stdin(), &mut buffer) {
            Ok(0) => self.input = false,
            Ok(count) => {
                self.typed.extend_from_slice(&buffer[..count]);
                self.hand_in();
            }
            Err(error) => self.input = matches!(error, Errno::INTR | Errno::AGAIN),
        }
    }

    /// Passes on as much of the input as the terminal takes now.
    fn hand_in(&mut self) {
        if self.typed.is_empty() {
            return;
        }
        match rustix::io::write(&self.master, &self.typed) {
            Ok(count) => drop(self.typed.drain(..count)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.typed.clear(),
        }
    }
}

/// Writes to standard output, also to one that does not block. The program goes on although nobody sees it.
fn print(mut bytes: &[u8]) {
    let stdout = io::stdout();
    while !bytes.is_empty() {
        match rustix::io::write(&stdout, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                // An error shows itself at the next write.
                let _ = rustix::event::poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], None);
            }
            Err(_) => return,
        }
    }
}

fn resize(console: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(io::stdin()) {
        // A terminal that has gone has no size.
        let _ = tcsetwinsize(console, size);
    }
}

fn pass_signal(signals: &OwnedFd, pidfd: &OwnedFd, console: Option<&OwnedFd>) {
    let mut information = [0; INFORMATION];
    if rustix::io::read(signals, &mut information) != Ok(INFORMATION) {
        return;
    }
    let [a, b, c, d, ..] = information;
    match (i32::from_ne_bytes([a, b, c, d]), console) {
        (WINCH, Some(console)) => resize(console),
        // One that has just ended needs no signal.
        (signal, _) => drop(berth_sys::signal::send(pidfd, signal)),
    }
}

/// The exit code of a child that has ended: its own, or 128 and the number of the signal.
fn reap(pidfd: &OwnedFd) -> Result<u8> {
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
        .context(|| "wait for the container".to_owned())?;
    let code = status.and_then(|status| {
        status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
    });
    Ok(code.and_then(|code| u8::try_from(code & 0xff).ok()).unwrap_or_default())
}
