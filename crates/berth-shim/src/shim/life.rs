//! The container's way from its clone to its recorded end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use berth_runtime::cgroup;
use berth_runtime::launch::{Init, Release, StartError};
use jiff::Timestamp;

use super::connection::Connection;
use super::memory::Memory;
use super::poller::{Interest, Token};
use super::streams::{Ends, Streams};
use super::{LINGER, LOSS_INTERVAL, Phase, RECORDING, Shim, failed, process};
use crate::channel::Packed;
use crate::protocol::{EXIT, Event, ExitStatus, Outgoing, SOCKET, Target};

/// How long the log waits for those who hold the container's pipes after its end.
const DRAIN: Duration = Duration::from_secs(2);

/// Tells the daemon on its first connection that the namespaces exist.
pub(super) fn tell_cloned(control: &OwnedFd, init: &Init) -> Result<(), StartError> {
    let pidfd = init.pidfd.try_clone().map_err(failed("copy a descriptor"))?;
    let fds = [Some(pidfd), init.netns()?].into_iter().flatten().collect();
    let event = Event::Cloned { pid: init.pid };
    Packed::new(&Outgoing::Event(&event), fds)
        .and_then(|packed| packed.send(control))
        .map_err(failed("tell the daemon"))
}

impl Shim {
    /// Tells all subscribers; each gets its own copies of `fds`.
    pub(super) fn tell(&mut self, event: &Event, fds: &[BorrowedFd<'_>]) {
        for client in self.connections.values_mut().filter(|client| client.subscribed) {
            let copies: io::Result<Vec<OwnedFd>> = fds.iter().map(|fd| fd.try_clone_to_owned()).collect();
            client.tell(event, copies.unwrap_or_default());
        }
    }

    /// Tells of clients that left by the keys for that.
    pub(super) fn tell_detached(&mut self) {
        let mut left = vec![Target::Init; self.streams.take_detached() as usize];
        for exec in self.execs.values_mut() {
            for _ in 0..exec.streams.take_detached() {
                left.push(Target::Exec(exec.id.clone()));
            }
        }
        for target in left {
            self.tell(&Event::Detached { target }, &[]);
        }
    }

    /// Tells a new subscriber everything that it has missed.
    pub(super) fn tell_state(&mut self, connection: u32) {
        let Some(client) = self.connections.get_mut(&connection) else { return };
        match &self.phase {
            Phase::Cloned(init) => {
                if let (Ok(pidfd), Ok(netns)) = (init.pidfd.try_clone(), init.netns()) {
                    let fds = [Some(pidfd), netns].into_iter().flatten().collect();
                    client.tell(&Event::Cloned { pid: init.pid }, fds);
                }
            }
            Phase::Running { pid, at, process } => {
                let pidfd = process.as_fd().try_clone_to_owned().into_iter().collect();
                client.tell(&Event::Started { pid: *pid, at: *at }, pidfd);
            }
            Phase::Draining { .. } | Phase::Exited { .. } | Phase::Leaving { .. } => {}
        }
        for (exec, code) in &self.exec_exits {
            client.tell(&Event::ExecExited { exec: exec.clone(), code: *code }, Vec::new());
        }
        if let Phase::Exited { status, .. } = &self.phase {
            client.tell(&Event::Exited(status.clone()), Vec::new());
        }
    }

    /// Lets init go on. The outcome is told as an event.
    pub(super) fn release(&mut self, release: Release) {
        let leaving = Phase::Leaving { until: Instant::now() + LINGER };
        let init = match std::mem::replace(&mut self.phase, leaving) {
            Phase::Cloned(init) => init,
            other => {
                self.phase = other;
                return;
            }
        };
        let pid = init.pid;
        let pidfd = match init.pidfd.try_clone() {
            Ok(pidfd) => pidfd,
            Err(error) => {
                process::kill_and_reap(&init.pidfd);
                return self.fail(failed("copy a descriptor")(error));
            }
        };
        let outcome = init.release(release).and_then(|started| {
            self.run_program(pid, &pidfd, started.console).map_err(failed("watch the program"))
        });
        if let Err(error) = outcome {
            process::kill_and_reap(&pidfd);
            self.fail(error);
        }
    }

    fn run_program(&mut self, pid: i32, pidfd: &OwnedFd, console: Option<OwnedFd>) -> io::Result<()> {
        let at = Timestamp::now();
        let mut process = self.poller.adopt(pidfd.try_clone()?, Token::Process(0))?;
        process.set(Some(Interest::IN))?;
        if console.is_some() {
            self.streams.connect(Ends { terminal: console, ..Ends::default() })?;
        }
        for (connection, options) in std::mem::take(&mut self.waiting) {
            // A client that went away in the meantime is no reason to stop.
            let _ = self.streams.attach(connection, options);
        }
        self.streams.begin()?;
        self.phase = Phase::Running { pid, at, process };
        self.tell(&Event::Started { pid, at }, &[pidfd.as_fd()]);
        // After the news, which somebody waits for.
        self.memory = Memory::watch(&self.poller, self.settings.cgroup.as_deref());
        Ok(())
    }

    /// The container could not be started: there is nothing to be recorded.
    fn fail(&mut self, error: StartError) {
        self.tell(&Event::Failed(error), &[]);
        self.waiting.clear();
        self.leave();
    }

    /// Nobody would ever release the container: the daemon that wanted it is gone.
    pub(super) fn abandon_if_alone(&mut self) {
        if let Phase::Cloned(init) = &self.phase
            && !self.connections.values().any(|client| client.subscribed)
        {
            process::kill_and_reap(&init.pidfd);
            self.leave();
        }
    }

    /// Init's pidfd is readable.
    pub(super) fn on_init_ended(&mut self) {
        let Phase::Running { pid, process, .. } = &self.phase else { return };
        let Some((code, signal)) = process::reap(process) else { return };
        let at = Timestamp::now();
        let pid = *pid;
        // What is announced together with the end comes before it.
        self.on_memory();
        self.memory = None;
        let path = self.settings.cgroup.as_deref().and_then(Path::to_str);
        let cgroup = path.and_then(|path| cgroup::Manager::for_path(path).ok());
        if self.settings.shares_pids
            && let Some(cgroup) = &cgroup
        {
            // With a PID namespace of its own, the kernel has done it.
            let _ = cgroup.kill();
        }
        let oom_killed = cgroup.is_some_and(|cgroup| cgroup.oom_count().is_ok_and(|count| count > 0));
        let status = ExitStatus { pid, code, signal, oom_killed, at, error: None };
        self.phase = Phase::Draining { status, until: Instant::now() + DRAIN };
        self.with_streams(0, Streams::drain);
        self.on_outputs_ended(0);
    }

    /// Outputs of a process may have ended.
    pub(super) fn on_outputs_ended(&mut self, number: u32) {
        if number != 0 {
            self.forget_exec_if_over(number);
        } else if matches!(self.phase, Phase::Draining { .. }) && !self.streams.has_output() {
            self.conclude();
        }
    }

    /// The log is complete: writes the exit status down, then tells it.
    fn conclude(&mut self) {
        let Phase::Draining { status, .. } = &self.phase else { return };
        let mut status = status.clone();
        self.streams.complete_log();
        self.tell_lost(None);
        if let Err(error) = self.write_status(&status) {
            status.error = Some(format!("write the exit status: {error}"));
        }
        self.phase = Phase::Exited { status: status.clone(), until: Instant::now() + RECORDING };
        self.tell(&Event::Exited(status), &[]);
        self.end_attachments_if_alone();
    }

    /// Tells how much of the log was lost, if that is news; with `now`, only now and then.
    fn tell_lost(&mut self, now: Option<Instant>) {
        let (messages, (told, at)) = (self.streams.lost(), self.told_lost);
        let due = now.is_none_or(|now| at.is_none_or(|at| now >= at + LOSS_INTERVAL));
        if messages > told && due {
            self.told_lost = (messages, now.or(at));
            self.tell(&Event::LogLost { messages }, &[]);
        }
    }

    fn write_status(&self, status: &ExitStatus) -> io::Result<()> {
        let path = self.settings.exec_dir.join(EXIT);
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, serde_json::to_vec(status)?)?;
        std::fs::rename(temporary, path)
    }

    /// Connections end when the exit status is recorded, since their clients ask for it then; without a daemon, or with one
    /// that does not come to it, they do not wait.
    fn end_attachments_if_alone(&mut self) {
        let Phase::Exited { until, .. } = &self.phase else { return };
        let alone = !self.connections.values().any(|client| client.subscribed);
        if self.streams.is_held() && (alone || *until <= Instant::now()) {
            self.with_streams(0, |streams, _| streams.release());
        }
    }

    /// A daemon has recorded the exit status.
    pub(super) fn recorded(&mut self) -> bool {
        let exited = matches!(self.phase, Phase::Exited { .. });
        if exited {
            self.leave();
        }
        exited
    }

    /// Removes what names the shim; from now on it only delivers.
    fn leave(&mut self) {
        self.listener = None;
        for name in [SOCKET, EXIT] {
            // What cannot be removed is found by the next daemon's scan.
            let _ = process::remove(&self.settings.exec_dir.join(name));
        }
        self.phase = Phase::Leaving { until: Instant::now() + LINGER };
        self.with_streams(0, |streams, _| streams.release());
    }

    /// Does what is due without an event.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        self.streams.expire(now);
        self.tell_lost(Some(now));
        if self.streams.is_logged_elsewhere() && !matches!(self.phase, Phase::Cloned(_)) {
            // Output that was not read for want of room may be read again.
            self.with_streams(0, |streams, _| streams.begin());
        }
        self.expire_execs(now);
        self.end_attachments_if_alone();
        if let Phase::Draining { until, .. } = &self.phase
            && *until <= now
        {
            let _ = self.streams.end_outputs();
            self.conclude();
        }
    }

    /// The shim has nothing left to do.
    pub(super) fn is_finished(&self) -> bool {
        let Phase::Leaving { until } = &self.phase else { return false };
        let attached =
            self.streams.is_attached() || self.execs.values().any(|exec| exec.streams.is_attached());
        let telling = self.connections.values().any(Connection::is_waiting);
        let busy = telling || self.streams.is_delivering();
        !attached && (!busy || *until <= Instant::now())
    }
}
