//! A pseudo-terminal with a program on it, as a person has it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A program on a terminal, and what it has shown so far.
pub struct Terminal {
    master: File,
    child: Child,
    shown: String,
}

impl Terminal {
    /// Runs a command on a new terminal of 24 rows and 80 columns, as its session's controlling terminal.
    pub fn run(command: Command) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave: OwnedFd =
            File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap().into();
        set_size(&master, 24, 80);
        // `setsid --ctty` gives the program a session with this terminal, as a login does.
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child = session.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Terminal { master: master.into(), child, shown: String::new() }
    }

    /// Types text.
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until the terminal shows `text` after what was waited for before.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(at) = self.shown.find(text) {
                let before = self.shown[..at].to_string();
                self.shown.drain(..at + text.len());
                return before;
            }
            assert!(self.read(deadline), "no {text:?} in {:?}", self.shown);
        }
    }

    /// Reads what comes; false when nothing can come any more or the time is up.
    fn read(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut interest = [PollFd::new(&self.master, PollFlags::IN)];
        if poll(&mut interest, Some(&timeout)) != Ok(1) {
            return false;
        }
        let mut buffer = [0; 4096];
        match self.master.read(&mut buffer) {
            Ok(n) if n > 0 => {
                self.shown.push_str(&String::from_utf8_lossy(&buffer[..n]));
                true
            }
            _ => false,
        }
    }

    /// Changes the terminal's size.
    pub fn resize(&self, rows: u16, columns: u16) {
        set_size(&self.master, rows, columns);
    }

    /// Waits for the program's end and returns its exit code.
    #[track_caller]
    pub fn end(mut self) -> i32 {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.read(deadline) {}
        assert!(Instant::now() < deadline, "the program goes on; shown: {:?}", self.shown);
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// Hangs up as a closed window does.
    pub fn hang_up(self) {
        let Terminal { master, mut child, .. } = self;
        drop(master);
        // The stock client survives its terminal, and waits for the container.
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn set_size(terminal: impl AsFd, rows: u16, columns: u16) {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}
