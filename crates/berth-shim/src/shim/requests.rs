//! What clients ask of the shim.

use std::os::fd::OwnedFd;

use berth_sys::socket::Message;
use rustix::termios::Winsize;

use super::poller::Interest;
use super::streams::Streams;
use super::{Phase, Shim};
use crate::protocol::{AttachOptions, Fault, FaultKind, Hello, NumberedRaw, Reply, Request, Target, VERSION};

fn fault(kind: FaultKind, message: impl Into<String>) -> Reply {
    Reply::Fault(Fault { kind, message: message.into() })
}

fn outcome(result: std::io::Result<()>, what: &str) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(error) => fault(FaultKind::System, format!("{what}: {error}")),
    }
}

impl Shim {
    /// A connection is readable or writable.
    pub(super) fn serve(&mut self, id: u32, flags: Interest) {
        let Some(client) = self.connections.get_mut(&id) else { return };
        if flags.contains(Interest::OUT) {
            client.flush();
        }
        if !flags.intersects(Interest::IN | Interest::HUP | Interest::ERR) {
            return;
        }
        if let Some(message) = client.receive() {
            self.answer(id, message);
        }
    }

    fn answer(&mut self, id: u32, Message { bytes, fds }: Message) {
        let Ok(NumberedRaw { number, request }) = serde_json::from_slice(&bytes) else {
            // Without a number there is no answer.
            self.connections.remove(&id);
            return;
        };
        let (reply, subscribe) = match serde_json::from_str::<Request>(request.get()) {
            Ok(Request::Subscribe) => (Reply::Subscribed { execs: self.running_execs() }, true),
            Ok(request) => (self.perform(id, request, fds), false),
            Err(error) => (fault(FaultKind::UnknownRequest, format!("unknown request: {error}")), false),
        };
        if let Some(client) = self.connections.get_mut(&id) {
            client.reply(number, &reply);
            client.subscribed |= subscribe;
        }
        if subscribe {
            self.tell_state(id);
        }
    }

    fn perform(&mut self, id: u32, request: Request, fds: Vec<OwnedFd>) -> Reply {
        match request {
            Request::Hello { version } => self.hello(version),
            Request::Subscribe => Reply::Done,
            Request::Release(release) => {
                if !matches!(self.phase, Phase::Cloned(_)) {
                    return fault(FaultKind::WrongState, "the container has been released already");
                }
                self.release(release);
                Reply::Done
            }
            Request::Recorded => {
                if self.recorded() {
                    return Reply::Done;
                }
                fault(FaultKind::WrongState, "the container has not ended")
            }
            Request::Attach { target, options } => self.attach(&target, options, fds),
            Request::Exec(body) => self.exec(id, *body, fds),
            Request::Resize { target, rows, columns } => self.resize(&target, rows, columns),
            Request::Kill { target, signal } => self.kill(&target, signal),
        }
    }

    fn hello(&self, version: u32) -> Reply {
        Reply::Hello(Hello {
            version: version.min(VERSION),
            id: self.settings.id.clone(),
            pid: rustix::process::getpid().as_raw_nonzero().get(),
        })
    }

    /// The streams of a process that has not ended.
    fn streams_of(&mut self, target: &Target) -> Result<&mut Streams, Box<Reply>> {
        match target {
            Target::Init if matches!(self.phase, Phase::Cloned(_) | Phase::Running { .. }) => {
                Ok(&mut self.streams)
            }
            Target::Init => Err(Box::new(fault(FaultKind::NotFound, "the container has ended"))),
            Target::Exec(id) => match self.running_exec(id) {
                Some(exec) => Ok(&mut exec.streams),
                None => Err(Box::new(fault(FaultKind::NotFound, format!("exec {id} does not run")))),
            },
        }
    }

    fn attach(&mut self, target: &Target, options: AttachOptions, fds: Vec<OwnedFd>) -> Reply {
        let Some(connection) = fds.into_iter().next() else {
            return fault(FaultKind::UnknownRequest, "no connection to attach came with the request");
        };
        if *target == Target::Init && matches!(self.phase, Phase::Cloned(_)) {
            self.waiting.push((connection, options));
            return Reply::Done;
        }
        match self.streams_of(target) {
            Ok(streams) => outcome(streams.attach(connection, options), "attach"),
            Err(reply) => *reply,
        }
    }

    fn resize(&mut self, target: &Target, rows: u16, columns: u16) -> Reply {
        let streams = match self.streams_of(target) {
            Ok(streams) => streams,
            Err(reply) => return *reply,
        };
        let Some(terminal) = streams.terminal() else {
            return fault(FaultKind::WrongState, "the process has no terminal");
        };
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        outcome(rustix::termios::tcsetwinsize(terminal, size).map_err(Into::into), "resize the terminal")
    }

    fn kill(&mut self, target: &Target, signal: i32) -> Reply {
        let result = match (target, &self.phase) {
            (Target::Init, Phase::Cloned(init)) => berth_sys::signal::send(&init.pidfd, signal),
            (Target::Init, Phase::Running { process, .. }) => berth_sys::signal::send(process, signal),
            (Target::Init, _) => return fault(FaultKind::NotFound, "the container has ended"),
            (Target::Exec(id), _) => match self.running_exec(id) {
                Some(exec) => exec.signal(signal),
                None => return fault(FaultKind::NotFound, format!("exec {id} does not run")),
            },
        };
        outcome(result, &format!("send signal {signal}"))
    }
}
