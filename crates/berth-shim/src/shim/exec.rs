//! Processes that are added to the container.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use berth_runtime::launch::{self, Stage, StartError};

use super::poller::{Interest, Token, Watched};
use super::streams::{Ends, Streams};
use super::{Phase, Shim, failed, process};
use crate::protocol::{Event, ExecBody, Fault, FaultKind, Reply};

/// How long the output of an ended process is passed on if others (its children) hold its pipes.
const GRACE: Duration = Duration::from_secs(2);
/// Exits that are kept for subscribers to come.
const MAX_EXITS: usize = 128;

/// An added process.
#[derive(Debug)]
pub(super) struct Exec {
    pub(super) id: String,
    pub(super) pid: i32,
    /// `None` once it has ended.
    pub(super) process: Option<Watched>,
    pub(super) streams: Streams,
    /// The connection that asked for it.
    requester: u32,
    /// Until when connections are served after its end.
    until: Option<Instant>,
    /// It is killed when nobody is attached any more.
    ends_with_client: bool,
}

impl Exec {
    /// When to look at it without an event.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until.into_iter().chain(self.streams.deadline()).min()
    }

    /// Sends a signal to the process. What ends it for certain also ends its children, as far as they stayed in its
    /// process group: it leads one, and until it is reaped the group's number is nobody else's.
    pub(super) fn signal(&self, signal: i32) -> std::io::Result<()> {
        let Some(process) = &self.process else { return Ok(()) };
        if signal == process::KILL
            && let Some(group) = rustix::process::Pid::from_raw(self.pid)
        {
            // A process that made no group of its own is reached by the next call.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        berth_sys::signal::send(process.as_fd(), signal)
    }

    /// Nothing of it is left.
    fn is_over(&self) -> bool {
        self.process.is_none() && !self.streams.has_output() && !self.streams.is_attached()
    }
}

impl Shim {
    /// The added process with this ID, if it has not ended.
    pub(super) fn running_exec(&mut self, id: &str) -> Option<&mut Exec> {
        self.execs.values_mut().find(|exec| exec.id == id && exec.process.is_some())
    }

    /// The added processes that run.
    pub(super) fn running_execs(&self) -> Vec<(String, i32)> {
        let running = self.execs.values().filter(|exec| exec.process.is_some());
        running.map(|exec| (exec.id.clone(), exec.pid)).collect()
    }

    pub(super) fn exec(&mut self, requester: u32, body: ExecBody, fds: Vec<OwnedFd>) -> Reply {
        let Phase::Running { process: init, .. } = &self.phase else {
            return Reply::Fault(Fault {
                kind: FaultKind::WrongState,
                message: format!("container {} is not running", self.settings.id),
            });
        };
        let Ok(init) = init.as_fd().try_clone_to_owned() else {
            return Reply::ExecFailed(StartError::new(Stage::Protocol, "too many open files"));
        };
        match self.start_exec(requester, body, &init, fds) {
            Ok(pid) => Reply::ExecStarted { pid },
            Err(error) => Reply::ExecFailed(error),
        }
    }

    fn start_exec(
        &mut self,
        requester: u32,
        mut body: ExecBody,
        init: &OwnedFd,
        fds: Vec<OwnedFd>,
    ) -> Result<i32, StartError> {
        if self.running_exec(&body.id).is_some() {
            return Err(StartError::new(Stage::Protocol, format!("exec {} runs already", body.id)));
        }
        let attach = body.attach.take();
        let attached = attach.is_some();
        let stdin = body.stdin_open || attach.as_ref().is_some_and(|attach| attach.stdin);
        let (stdio, mut ends) = if attached || stdin || body.tty {
            process::streams(body.tty, stdin).map_err(failed("make the streams"))?
        } else {
            // Nobody will ever read it.
            (launch::Stdio::null().map_err(failed("open /dev/null"))?, Ends::default())
        };
        body.launch.die_with_parent = true;
        let started = launch::exec(&body.launch, init.as_fd(), stdio)?;
        ends.terminal = started.console;
        let number = self.next_exec;
        let pid = started.pid;
        let mut exec = self
            .track_exec(number, requester, &body.id, (started.pidfd, pid), ends)
            .map_err(failed("watch the process"))?;
        self.next_exec += 1;
        exec.ends_with_client = body.ends_with_client;
        self.execs.insert(number, exec);
        if let (Some(options), Some(connection)) = (attach, fds.into_iter().next()) {
            self.with_streams(number, |streams, _| streams.attach(connection, options));
        }
        self.with_streams(number, |streams, _| streams.begin());
        Ok(pid)
    }

    fn track_exec(
        &self,
        number: u32,
        requester: u32,
        id: &str,
        (pidfd, pid): (OwnedFd, i32),
        ends: Ends,
    ) -> std::io::Result<Exec> {
        let mut streams = Streams::new(number, &self.poller, true, None);
        streams.hold();
        let watched = streams.connect(ends).and_then(|()| {
            let copy = pidfd.try_clone()?;
            let mut process = self.poller.adopt(copy, Token::Process(number))?;
            process.set(Some(Interest::IN))?;
            Ok(process)
        });
        match watched {
            Ok(process) => {
                let process = Some(process);
                let id = id.to_owned();
                Ok(Exec { id, pid, process, streams, requester, until: None, ends_with_client: false })
            }
            Err(error) => {
                process::kill_and_reap(&pidfd);
                Err(error)
            }
        }
    }

    /// A connection to an added process may be gone.
    pub(super) fn end_if_left(&mut self, number: u32) {
        if let Some(exec) = self.execs.get(&number)
            && exec.ends_with_client
            && !exec.streams.is_attached()
            // One that closed its outputs itself has left its client, not the other way round.
            && exec.streams.has_output()
        {
            // It has ended if that fails.
            let _ = exec.signal(process::KILL);
        }
    }

    /// The pidfd of an added process is readable.
    pub(super) fn on_exec_ended(&mut self, number: u32) {
        let Some(exec) = self.execs.get_mut(&number) else { return };
        let Some((code, _)) = exec.process.as_ref().and_then(process::reap) else { return };
        exec.process = None;
        let (id, requester) = (exec.id.clone(), exec.requester);
        exec.until = Some(Instant::now() + GRACE);
        self.with_streams(number, Streams::drain);
        if self.exec_exits.len() == MAX_EXITS {
            self.exec_exits.pop_front();
        }
        self.exec_exits.push_back((id.clone(), code));
        let event = Event::ExecExited { exec: id, code };
        for (connection, client) in &mut self.connections {
            if client.subscribed || *connection == requester {
                client.tell(&event, Vec::new());
            }
        }
        self.with_streams(number, |streams, _| streams.release());
        self.forget_exec_if_over(number);
    }

    /// Lets an added process be forgotten that has ended and whose output has been delivered.
    pub(super) fn forget_exec_if_over(&mut self, number: u32) {
        if self.execs.get(&number).is_some_and(Exec::is_over) {
            self.execs.remove(&number);
        }
    }

    /// Deals with ended processes whose connections have been served for long enough.
    pub(super) fn expire_execs(&mut self, now: Instant) {
        for exec in self.execs.values_mut() {
            exec.streams.expire(now);
            if exec.until.is_some_and(|until| until <= now) {
                exec.until = None;
                // The pipes are read on, so that those who hold them are not hurt.
                let _ = exec.streams.finish_attachments();
            }
        }
        self.execs.retain(|_, exec| !exec.is_over());
    }
}
