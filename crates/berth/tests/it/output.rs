//! What a command printed and how it ended.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longest that any single command of a test may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The end of a command.
#[derive(Debug)]
pub struct Output {
    /// Exit code, 128+n for a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    #[expect(dead_code, reason = "shown when an assertion fails")]
    command: String,
}

impl Output {
    /// The end of a command whose standard output went elsewhere.
    pub fn without_stdout(code: i32, stderr: String) -> Output {
        Output { code, stdout: String::new(), stderr, command: String::new() }
    }

    /// Asserts success and returns standard output without its last newline.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.stdout.trim_end_matches(['\n', '\r']).to_string()
    }

    /// Asserts the exit code and that standard error contains `text`.
    #[track_caller]
    pub fn fails(self, code: i32, text: &str) -> Output {
        assert_eq!(self.code, code, "{self:#?}");
        assert!(self.stderr.to_lowercase().contains(&text.to_lowercase()), "no {text:?} in {self:#?}");
        self
    }
}

/// Runs a command to its end with nothing on standard input.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    feed(command, b"")
}

/// Runs a command to its end with `input` on standard input.
#[track_caller]
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    let text = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{text}: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // The command may end without reading all of it.
        let _ = stdin.write_all(&input);
    });
    let pid = rustix::process::Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let watchdog = std::thread::spawn(move || {
        let timeout = rustix::event::Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let mut interest = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        if rustix::event::poll(&mut interest, Some(&timeout)) == Ok(0) {
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            return true;
        }
        false
    });
    let output = child.wait_with_output().unwrap();
    let _ = feeder.join();
    assert!(!watchdog.join().unwrap(), "{text} took longer than {PATIENCE:?}");
    let code = output.status.code().unwrap_or_else(|| {
        128 + std::os::unix::process::ExitStatusExt::signal(&output.status).unwrap_or_default()
    });
    Output {
        code,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        command: text,
    }
}

/// Asks again until `probe` gives something, for what has no event to wait for; fails after ten seconds.
#[track_caller]
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(Duration::from_secs(15), what, probe)
}

/// The same with a patience of its own: for programs of others, which take their time to start.
#[track_caller]
pub fn eventually_within<T>(patience: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + patience;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
