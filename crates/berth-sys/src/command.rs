//! Programs that are started as children.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal, setsid};

/// Gives the program that `command` starts a session of its own, so that keys of the user's terminal send it no
/// signals, and has it terminated (`SIGTERM`) when the thread that starts it ends.
pub fn detach_from_terminal(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes two system calls; it neither allocates nor locks.
    unsafe {
        command.pre_exec(|| {
            setsid()?;
            set_parent_process_death_signal(Some(Signal::TERM))?;
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_leads_a_session() {
        let mut command = Command::new("sh");
        // Fields of the status: process, command, state, parent, group, session.
        command.args(["-c", "read -r pid _ _ _ _ session _ < /proc/self/stat; test $pid = $session"]);
        assert!(!command.status().is_ok_and(|status| status.success()));
        detach_from_terminal(&mut command);
        assert!(command.status().is_ok_and(|status| status.success()));
    }
}
