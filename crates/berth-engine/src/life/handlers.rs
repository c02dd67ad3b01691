//! Signals to programs that have only just been started.
//!
//! The kernel throws away what is sent to the first process of a pid namespace, unless the process handles the
//! signal. A program that was started a millisecond ago has not said so yet: a stop would wait for its time-out, and
//! a kill would do nothing.

use std::time::Duration;

use jiff::Timestamp;

use super::owner::Owner;
use crate::blocking::blocking;

/// How long after its start a program may take until it handles its signals.
const YOUTH: Duration = Duration::from_millis(100);
/// How often it is looked at until then.
const LOOK: Duration = Duration::from_millis(1);
/// Signals that no handler takes, and those that nobody who has no handler misses (signal(7)): SIGKILL, SIGCHLD,
/// SIGCONT, SIGSTOP, SIGURG and SIGWINCH.
const WITHOUT_HANDLER: [i32; 6] = [9, 17, 18, 19, 23, 28];

impl Owner {
    /// Waits until a container that was just started would not lose a signal, or is no longer young.
    pub(super) async fn wait_for_handler(&self, number: i32) {
        if WITHOUT_HANDLER.contains(&number) || !self.container.definition.host.pid_mode.is_empty() {
            return;
        }
        let Some(running) = self.container.state().running().filter(|running| !running.paused).cloned()
        else {
            return;
        };
        let young = || {
            // A clock that was set back meanwhile makes no container young.
            let age = Duration::try_from(Timestamp::now().duration_since(running.started_at));
            age.is_ok_and(|age| age < YOUTH)
        };
        let path = format!("/proc/{}/status", running.pid);
        while young() {
            let path = path.clone();
            let status = blocking(move || Ok(std::fs::read_to_string(path).unwrap_or_default())).await;
            match status.ok().and_then(|status| would_take(&status, number)) {
                Some(false) => tokio::time::sleep(LOOK).await,
                // It handles it, or has ended.
                Some(true) | None => return,
            }
        }
    }
}

/// Whether a process would not lose a signal, by its `/proc/PID/status`: it catches it, ignores it on purpose, or
/// keeps it for later. None if the text does not say.
fn would_take(status: &str, number: i32) -> Option<bool> {
    let bit = 1_u64.checked_shl(u32::try_from(number.checked_sub(1)?).ok()?)?;
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let taken = mask("SigCgt:")? | mask("SigIgn:")? | mask("SigBlk:")? | mask("ShdPnd:")?;
    Some(taken & bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_does_about_a_signal_is_read() {
        let status = "Name:\tsh\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000001\n\
                      SigIgn:\t0000000000000002\nSigCgt:\t8000000000004000\n";
        for (number, taken) in [(15, true), (1, true), (2, true), (64, true), (10, false)] {
            assert_eq!(would_take(status, number), Some(taken), "{number}");
        }
        assert_eq!(would_take(status, 65), None);
        assert_eq!(would_take(status, 0), None);
        assert_eq!(would_take("", 15), None);
    }
}
