//! Writing the files of a log without ever waiting for them (`mode=non-blocking`): a process of its own does it.
//!
//! Between the shim and the writer is a pipe, whose size is the bound of what may wait. A chunk that finds no room is
//! lost and counted; the writer is told of the loss as soon as there is room again. The writer ends at the end of the
//! pipe, so also if the shim dies.

use std::io::{self, IoSlice, Read};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use berth_sys::process::{Child, fork_with};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::sink::FileSink;
use super::{FilePlan, LogError, Stream};

/// The least that may wait: one frame always has room.
const LEAST: usize = 64 * 1024;
/// The most that may wait.
const MOST: usize = 1 << 30;
/// How soon it is tried again to pass on what waits, if nothing more comes.
const AGAIN: Duration = Duration::from_millis(100);
/// How long the end of the log waits for a writer that does not get on.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes before each frame: its kind and its length.
const HEADER: usize = 5;
/// The kind of a frame that tells of a loss.
const LOSS: u8 = 2;
/// The largest frame that a writer takes.
const MAX_FRAME: usize = 1 << 20;

/// The shim's side.
#[derive(Debug)]
pub(super) struct Background {
    pipe: Option<OwnedFd>,
    /// `None` once it has ended.
    writer: Option<Child>,
    /// The rest of a frame of which the pipe took a part.
    rest: Vec<u8>,
    /// Lines and bytes that the writer has not been told of.
    lost: (u64, u64),
    /// The line that goes on in each stream has lost its beginning or middle: the rest of it is of no use.
    cut: [bool; 2],
    /// Lines that were ever lost.
    total_lost: u64,
}

impl Background {
    /// Starts the writer of files, which can be opened.
    pub(super) fn start(plan: &FilePlan, bytes: usize) -> Result<Self, LogError> {
        drop(FileSink::open(plan)?);
        let failed = |source: io::Error| LogError::io("start the writer of", plan.path(), source);
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        rustix::io::ioctl_fionbio(&write, true).map_err(|e| failed(e.into()))?;
        // As large as the kernel permits, if not as large as was asked for.
        let mut size = bytes.clamp(LEAST, MOST);
        while rustix::pipe::fcntl_setpipe_size(&write, size).is_err() && size > LEAST {
            size /= 2;
        }
        let argument = serde_json::to_string(plan).map_err(|error| failed(error.into()))?;
        let writer = fork_with(read, write_all, &argument).map_err(failed)?;
        Ok(Self {
            pipe: Some(write),
            writer: Some(writer),
            rest: Vec::new(),
            lost: (0, 0),
            cut: [false; 2],
            total_lost: 0,
        })
    }

    /// Lines that were lost, in all.
    pub(super) fn total_lost(&self) -> u64 {
        self.total_lost
    }

    /// When to try again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waits = self.pipe.is_some() && (!self.rest.is_empty() || self.lost.1 > 0);
        waits.then(|| Instant::now() + AGAIN)
    }

    /// Passes on what waits, as far as there is room.
    pub(super) fn retry(&mut self) {
        self.has_room();
    }

    pub(super) fn write(&mut self, stream: Stream, chunk: &[u8]) {
        let chunk = self.without_rest(stream, chunk);
        if !chunk.is_empty() && (!self.has_room() || !self.send(stream as u8, chunk)) {
            self.lose(stream, chunk);
        }
    }

    fn lose(&mut self, stream: Stream, chunk: &[u8]) {
        self.cut[stream as usize] = chunk.last() != Some(&b'\n');
        // A line counts where it ends.
        let lines = memchr::memchr_iter(b'\n', chunk).count() as u64;
        self.lost = (self.lost.0 + lines, self.lost.1 + chunk.len() as u64);
        self.total_lost += lines;
    }

    /// The chunk from the beginning of a line on.
    fn without_rest<'a>(&mut self, stream: Stream, chunk: &'a [u8]) -> &'a [u8] {
        if !self.cut[stream as usize] {
            return chunk;
        }
        let end = memchr::memchr(b'\n', chunk).map_or(chunk.len(), |at| at + 1);
        let (rest, chunk) = chunk.split_at(end);
        self.lose(stream, rest);
        chunk
    }

    /// What was there before is in the pipe, the loss included.
    fn has_room(&mut self) -> bool {
        if !self.flush() {
            return false;
        }
        if self.lost.1 > 0 {
            let body = [self.lost.0.to_le_bytes(), self.lost.1.to_le_bytes()].concat();
            if !self.send(LOSS, &body) {
                return false;
            }
            self.lost = (0, 0);
        }
        self.rest.is_empty()
    }

    fn flush(&mut self) -> bool {
        while let Some(pipe) = &self.pipe
            && !self.rest.is_empty()
        {
            match rustix::io::retry_on_intr(|| rustix::io::write(pipe, &self.rest)) {
                Ok(count) => drop(self.rest.drain(..count)),
                Err(Errno::AGAIN) => return false,
                Err(_) => self.pipe = None,
            }
        }
        self.rest = Vec::new();
        self.pipe.is_some()
    }

    /// Puts a frame into the pipe; false if there was no room for any of it. What finds no room of a frame that has
    /// begun waits for the next time.
    fn send(&mut self, kind: u8, body: &[u8]) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        let mut header = [kind; HEADER];
        header[1..].copy_from_slice(&(body.len() as u32).to_le_bytes());
        let parts = [IoSlice::new(&header), IoSlice::new(body)];
        match rustix::io::retry_on_intr(|| rustix::io::writev(pipe, &parts)) {
            Ok(count) => {
                self.rest.extend(header.iter().chain(body).skip(count));
                true
            }
            Err(Errno::AGAIN) => false,
            // The writer has died: nothing more can be logged.
            Err(_) => {
                self.pipe = None;
                false
            }
        }
    }

    /// Waits until everything is written, but not for ever.
    pub(super) fn complete(&mut self) {
        let until = Instant::now() + PATIENCE;
        while !self.has_room() && self.wait(until, PollFlags::OUT) {}
        self.pipe = None;
        if self.wait(until, PollFlags::IN)
            && let Some(writer) = self.writer.take()
        {
            writer.reap();
        }
    }

    /// Waits for room in the pipe, or for the writer's end.
    fn wait(&self, until: Instant, flags: PollFlags) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut poll = match (&self.pipe, &self.writer) {
            (Some(pipe), _) if flags == PollFlags::OUT => [PollFd::new(pipe, flags)],
            (_, Some(writer)) => [PollFd::from_borrowed_fd(writer.pidfd(), flags)],
            _ => return false,
        };
        match rustix::event::poll(&mut poll, Some(&timeout)) {
            Ok(count) => count > 0 && (flags == PollFlags::IN || self.pipe.is_some()),
            Err(Errno::INTR) => true,
            Err(_) => false,
        }
    }
}

/// The writer, in a process of its own.
fn write_all(pipe: OwnedFd, plan: &str) -> i32 {
    let _ = rustix::thread::set_name(c"berth-log");
    let Ok(plan) = serde_json::from_str::<FilePlan>(plan) else { return 1 };
    let Ok(mut sink) = FileSink::open(&plan) else { return 1 };
    let mut frames = std::fs::File::from(pipe);
    let mut body = Vec::new();
    while let Ok((kind, length)) = header(&mut frames) {
        body.resize(length, 0);
        if frames.read_exact(&mut body).is_err() {
            break;
        }
        match (kind, body.as_slice()) {
            (LOSS, numbers) => {
                let number = |at: usize| numbers.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
                sink.lose(number(0).unwrap_or(1), number(8).unwrap_or(0));
            }
            (kind, chunk) if kind == Stream::Stdout as u8 => sink.write(Stream::Stdout, chunk),
            (_, chunk) => sink.write(Stream::Stderr, chunk),
        }
    }
    sink.finish(Stream::Stdout);
    sink.finish(Stream::Stderr);
    0
}

fn header(frames: &mut impl Read) -> io::Result<(u8, usize)> {
    let mut header = [0; HEADER];
    frames.read_exact(&mut header)?;
    let [kind, length @ ..] = header;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME { Err(io::ErrorKind::InvalidData.into()) } else { Ok((kind, length)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As [`Background::start`], but nobody reads the pipe until the returned end is read.
    fn stuck(bytes: usize) -> (Background, OwnedFd) {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&write, true).unwrap();
        rustix::pipe::fcntl_setpipe_size(&write, bytes).unwrap();
        let background = Background {
            pipe: Some(write),
            writer: None,
            rest: Vec::new(),
            lost: (0, 0),
            cut: [false; 2],
            total_lost: 0,
        };
        (background, read)
    }

    fn frames(end: OwnedFd) -> Vec<(u8, Vec<u8>)> {
        let mut file = std::fs::File::from(end);
        let mut found = Vec::new();
        while let Ok((kind, length)) = header(&mut file) {
            let mut body = vec![0; length];
            file.read_exact(&mut body).unwrap();
            found.push((kind, body));
        }
        found
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told_in_its_place() {
        let (mut background, end) = stuck(64 * 1024);
        // It does not end where a line ends.
        let chunk = format!("{}li", "line\n".repeat(2000)).into_bytes();
        for _ in 0..20 {
            background.write(Stream::Stdout, &chunk);
        }
        let lost = background.total_lost();
        assert!(lost > 0 && lost < 40_000, "{lost}");
        let reader = std::thread::spawn(move || frames(end));
        while !background.has_room() {
            background.wait(Instant::now() + PATIENCE, PollFlags::OUT);
        }
        background.write(Stream::Stdout, b"ne\nafter\n");
        background.write(Stream::Stderr, b"other\n");
        background.complete();
        let found = reader.join().unwrap();
        let whole = found.iter().filter(|(kind, body)| *kind == 0 && *body == chunk).count() as u64;
        assert_eq!(whole * 2000 + lost, 40_000, "every chunk is there whole, or lost");
        let told: u64 = found
            .iter()
            .filter(|(kind, _)| *kind == LOSS)
            .map(|(_, body)| u64::from_le_bytes(body[..8].try_into().unwrap()))
            .sum();
        assert_eq!(told, lost + 1, "the rest of the line that was cut is lost too");
        assert_eq!(found[found.len() - 2..], [(0, b"after\n".to_vec()), (1, b"other\n".to_vec())]);
    }

    #[test]
    fn a_writer_that_is_gone_is_not_waited_for() {
        let (mut background, end) = stuck(64 * 1024);
        drop(end);
        background.write(Stream::Stdout, b"lost\n");
        assert_eq!(background.total_lost(), 1);
        let began = Instant::now();
        background.complete();
        assert!(began.elapsed() < PATIENCE);
    }
}
