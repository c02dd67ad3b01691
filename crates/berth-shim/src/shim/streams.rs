//! The standard streams of one process, its log, and the connections attached to it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;

use super::attachment::{Attachment, Received};
use super::delivery::Delivery;
use super::poller::{Interest, Poller, Token, Watched};
use crate::log::{Sink, Stream};
use crate::protocol::AttachOptions;

/// Input that the process does not take waits up to about this many bytes; then clients have to wait.
const INPUT_ROOM: usize = 16 * 1024;
/// After a process has ended, at most this much is taken from its pipes at once (a pipe holds 1 MiB at most).
const MAX_DRAIN: usize = 8 * 1024 * 1024;

/// The far ends of a process's standard streams.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    /// Instead of the three: the master of its terminal.
    pub(super) terminal: Option<OwnedFd>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Streams {
    process: u32,
    poller: Poller,
    terminal: bool,
    input: Input,
    outputs: [Option<Watched>; 2],
    attachments: BTreeMap<u32, Attachment>,
    next_attachment: u32,
    log: Option<Sink>,
    delivery: Option<Delivery>,
    /// Connections stay, even without output, until the process's end has been told.
    held: bool,
    /// Clients that left by the keys for that, and of whom nobody was told yet.
    detached: u32,
}

#[derive(Debug)]
struct Input {
    sink: Option<Watched>,
    pending: Vec<u8>,
    /// It is closed when the first client that sends input has ended it.
    once: bool,
    closing: bool,
}

impl Input {
    fn has_room(&self) -> bool {
        self.pending.len() < INPUT_ROOM
    }

    /// Writes what waits; closes if that was asked for.
    fn flush(&mut self) {
        while let Some(sink) = &self.sink
            && !self.pending.is_empty()
        {
            match rustix::io::write(sink, &self.pending) {
                Ok(count) => {
                    self.pending.drain(..count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The process has closed its input: what comes is thrown away.
                Err(_) => self.sink = None,
            }
        }
        self.pending = Vec::new();
        if self.closing {
            self.sink = None;
        }
    }
}

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

impl Streams {
    pub(super) fn new(process: u32, poller: &Poller, once: bool, log: Option<Sink>) -> Self {
        let input = Input { sink: None, pending: Vec::new(), once, closing: false };
        Self {
            process,
            poller: poller.clone(),
            terminal: false,
            input,
            outputs: [None, None],
            attachments: BTreeMap::new(),
            next_attachment: 0,
            log,
            delivery: None,
            held: false,
            detached: 0,
        }
    }

    /// Sends the outputs elsewhere as well.
    pub(super) fn deliver(&mut self, delivery: Delivery) {
        self.delivery = Some(delivery);
    }

    /// Something happened to the connection over which the outputs are sent elsewhere.
    pub(super) fn on_delivery(&mut self, flags: Interest) -> io::Result<()> {
        if let Some(delivery) = &mut self.delivery {
            delivery.on_event(flags);
        }
        self.watch()
    }

    /// The outputs are sent elsewhere as well.
    pub(super) fn is_logged_elsewhere(&self) -> bool {
        self.delivery.is_some()
    }

    /// All outputs have ended: returns when the log's files are complete, or it is given up.
    pub(super) fn complete_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.complete();
        }
    }

    /// Log messages that found no room or could not be sent, in all.
    pub(super) fn lost(&self) -> u64 {
        self.log.as_ref().map_or(0, Sink::lost) + self.delivery.as_ref().map_or(0, Delivery::lost)
    }

    /// Something is still to be sent elsewhere.
    pub(super) fn is_delivering(&self) -> bool {
        self.delivery.as_ref().is_some_and(Delivery::is_delivering)
    }

    /// Keeps connections until [`Streams::release`]: whoever sees one end may ask for the exit code, which has to be
    /// known by then.
    pub(super) fn hold(&mut self) {
        self.held = true;
    }

    /// Whether connections are kept.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// The process's end has been told.
    pub(super) fn release(&mut self) -> io::Result<()> {
        self.held = false;
        self.settle()
    }

    /// Connects the process's ends. Attachments that were made before stay.
    pub(super) fn connect(&mut self, ends: Ends) -> io::Result<()> {
        let output = |index: u32| Token::Output(self.process, index);
        if let Some(master) = ends.terminal {
            let sink = master.try_clone()?;
            self.terminal = true;
            self.input.sink = Some(self.poller.adopt(sink, Token::Input(self.process))?);
            self.outputs[0] = Some(self.poller.adopt(master, output(0))?);
        } else {
            for (index, end) in [ends.stdout, ends.stderr].into_iter().enumerate() {
                self.outputs[index] =
                    end.map(|end| self.poller.adopt(end, output(index as u32))).transpose()?;
            }
            self.input.sink =
                ends.stdin.map(|end| self.poller.adopt(end, Token::Input(self.process))).transpose()?;
        }
        Ok(())
    }

    /// From now on outputs are read.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.watch()
    }

    /// The terminal's master, while the process has one.
    pub(super) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.outputs[0].as_ref().filter(|_| self.terminal).map(AsFd::as_fd)
    }

    /// Attaches a connection. Standard input that the process does not have is not waited for.
    pub(super) fn attach(&mut self, connection: OwnedFd, mut options: AttachOptions) -> io::Result<()> {
        options.stdin &= self.input.sink.is_some();
        let id = self.next_attachment;
        let token = Token::Attachment(self.process, id);
        let mut attachment = Attachment::new(&self.poller, connection, token, options, self.terminal)?;
        self.next_attachment += 1;
        if attachment.take_prefix(&mut self.input.pending) == Received::Detach {
            self.detached += 1;
            self.input.flush();
            return self.watch();
        }
        if !self.has_output() && !self.held {
            attachment.finish();
        }
        self.attachments.insert(id, attachment);
        self.input.flush();
        self.watch()
    }

    /// An output may still come.
    pub(super) fn has_output(&self) -> bool {
        self.outputs.iter().any(Option::is_some)
    }

    /// Connections are still to be served.
    pub(super) fn is_attached(&self) -> bool {
        !self.attachments.is_empty()
    }

    /// How many clients have left by the keys for that since this was last asked.
    pub(super) fn take_detached(&mut self) -> u32 {
        std::mem::take(&mut self.detached)
    }

    /// When to look at connections again that do not take their last output.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let delivery = self.delivery.as_ref().and_then(Delivery::deadline);
        let log = self.log.as_ref().and_then(Sink::deadline);
        self.attachments.values().filter_map(Attachment::deadline).chain(delivery).chain(log).min()
    }

    /// Drops the connections that waited for too long, and goes on with what is sent elsewhere.
    pub(super) fn expire(&mut self, now: Instant) {
        let ended = !self.has_output();
        if let Some(log) = &mut self.log {
            log.expire();
        }
        if let Some(delivery) = &mut self.delivery {
            delivery.expire(now);
            if ended {
                delivery.end();
            }
        }
        self.attachments.retain(|_, attachment| attachment.deadline().is_none_or(|deadline| deadline > now));
    }

    /// Standard input takes more.
    pub(super) fn on_input(&mut self) -> io::Result<()> {
        self.input.flush();
        self.watch()
    }

    /// An output is readable: one chunk goes to the log and to every connection.
    pub(super) fn on_output(&mut self, index: u32, buffer: &mut [u8]) -> io::Result<()> {
        self.pump(index as usize, buffer);
        self.settle()
    }

    /// Takes everything that is in the outputs now, even if connections are blocked: the process has ended, and what
    /// is left is bounded by what a pipe holds.
    pub(super) fn drain(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for index in 0..self.outputs.len() {
            let mut total = 0;
            while total < MAX_DRAIN
                && let Some(count) = self.pump(index, buffer)
            {
                total += count;
            }
        }
        self.settle()
    }

    /// Closes the outputs, whoever else may hold them.
    pub(super) fn end_outputs(&mut self) -> io::Result<()> {
        for index in 0..self.outputs.len() {
            self.end_output(index);
        }
        self.settle()
    }

    /// Lets the attached connections go after what is pending, and reads outputs (of left-over processes that
    /// must not be hurt by a closed pipe) to throw them away.
    pub(super) fn finish_attachments(&mut self) -> io::Result<()> {
        self.attachments.values_mut().for_each(Attachment::finish);
        self.watch()
    }

    /// Reads one chunk and passes it on; `None` if there was none.
    fn pump(&mut self, index: usize, buffer: &mut [u8]) -> Option<usize> {
        let output = self.outputs[index].as_ref()?;
        match rustix::io::retry_on_intr(|| rustix::io::read(output, &mut *buffer)) {
            Ok(0) => {
                self.end_output(index);
                None
            }
            Ok(count) => {
                let chunk = &buffer[..count];
                if let Some(log) = &mut self.log {
                    log.write(STREAMS[index], chunk);
                }
                if let Some(delivery) = &mut self.delivery {
                    delivery.write(STREAMS[index], chunk);
                }
                for attachment in self.attachments.values_mut() {
                    attachment.send(STREAMS[index], chunk);
                }
                Some(count)
            }
            Err(Errno::AGAIN) => None,
            // A terminal that nobody has open any more answers EIO.
            Err(_) => {
                self.end_output(index);
                None
            }
        }
    }

    fn end_output(&mut self, index: usize) {
        if self.outputs[index].take().is_none() {
            return;
        }
        if let Some(log) = &mut self.log {
            log.finish(STREAMS[index]);
        }
        if let Some(delivery) = &mut self.delivery {
            delivery.finish(STREAMS[index]);
        }
    }

    /// Brings connections and interests in line with what has changed.
    fn settle(&mut self) -> io::Result<()> {
        if !self.has_output() && !self.held {
            self.attachments.values_mut().for_each(Attachment::finish);
        }
        self.watch()
    }

    /// Something happened to a connection.
    pub(super) fn on_attachment(&mut self, id: u32, flags: Interest, buffer: &mut [u8]) -> io::Result<()> {
        let Some(attachment) = self.attachments.get_mut(&id) else { return Ok(()) };
        if flags.intersects(Interest::HUP | Interest::ERR) {
            attachment.hang_up();
        }
        if flags.contains(Interest::OUT) {
            attachment.flush();
        }
        if flags.intersects(Interest::IN | Interest::HUP | Interest::ERR) {
            self.receive(id, buffer);
        }
        self.input.flush();
        self.settle()
    }

    fn receive(&mut self, id: u32, buffer: &mut [u8]) {
        let room = self.input.has_room();
        let Some(attachment) = self.attachments.get_mut(&id) else { return };
        if attachment.is_source() && !room {
            return;
        }
        let was_source = attachment.is_source();
        match attachment.receive(buffer, &mut self.input.pending) {
            Received::Input => {}
            Received::Detach => {
                self.attachments.remove(&id);
                self.detached += 1;
            }
            Received::End | Received::Broken if was_source => self.end_of_input(id),
            Received::End | Received::Broken => {}
        }
        if self.input.sink.is_none() {
            self.input.pending = Vec::new();
        }
    }

    /// As Docker does it: the end of a client's input closes the process's input if that is meant to be, and ends the
    /// connection otherwise.
    fn end_of_input(&mut self, id: u32) {
        if self.input.once && !self.terminal {
            self.input.closing = true;
        } else if let Some(attachment) = self.attachments.get_mut(&id) {
            attachment.finish();
        }
    }

    /// Tells the poller what can be dealt with now.
    fn watch(&mut self) -> io::Result<()> {
        let room = self.input.has_room();
        // A connection that cannot be watched cannot be served.
        self.attachments.retain(|_, attachment| !attachment.is_done() && attachment.watch(room).is_ok());
        let blocked = self.attachments.values().any(Attachment::is_blocked)
            || self.delivery.as_ref().is_some_and(Delivery::is_blocking);
        for output in self.outputs.iter_mut().flatten() {
            output.set((!blocked).then_some(Interest::IN))?;
        }
        if let Some(sink) = &mut self.input.sink {
            sink.set((!self.input.pending.is_empty()).then_some(Interest::OUT))?;
        }
        Ok(())
    }
}
