//! Where the shim puts what it reads.

use std::time::Instant;

use super::background::Background;
use super::{FilePlan, JsonWriter, LogError, Plan, Stream, Writer};

/// The log of a container as its shim has it.
#[derive(Debug)]
pub(crate) struct Sink {
    file: Option<Way>,
}

/// How files are written.
#[derive(Debug)]
enum Way {
    Direct(FileSink),
    Background(Box<Background>),
}

impl Sink {
    /// Opens what the plan names. Where the container does not wait for its files this forks: not from a PID namespace
    /// of the container's.
    ///
    /// # Errors
    /// When a file cannot be opened or read.
    pub(crate) fn open(plan: &Plan) -> Result<Self, LogError> {
        let file = match (&plan.file, plan.file_buffer) {
            (None, _) => None,
            (Some(file), None) => Some(Way::Direct(FileSink::open(file)?)),
            (Some(file), Some(bytes)) => Some(Way::Background(Box::new(Background::start(file, bytes)?))),
        };
        Ok(Self { file })
    }

    /// Takes a chunk that the container wrote to `stream`.
    pub(crate) fn write(&mut self, stream: Stream, chunk: &[u8]) {
        match &mut self.file {
            None => {}
            Some(Way::Direct(sink)) => sink.write(stream, chunk),
            Some(Way::Background(background)) => background.write(stream, chunk),
        }
    }

    /// The stream has ended.
    pub(crate) fn finish(&mut self, stream: Stream) {
        if let Some(Way::Direct(sink)) = &mut self.file {
            sink.finish(stream);
        }
    }

    /// When to look again without a chunk, see [`Sink::expire`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.file {
            Some(Way::Background(background)) => background.deadline(),
            _ => None,
        }
    }

    /// Goes on with what waits.
    pub(crate) fn expire(&mut self) {
        if let Some(Way::Background(background)) = &mut self.file {
            background.retry();
        }
    }

    /// All streams have ended: returns when the files are complete, or it is given up.
    pub(crate) fn complete(&mut self) {
        if let Some(Way::Background(background)) = &mut self.file {
            background.complete();
        }
    }

    /// Lines that found no room, in all.
    pub(crate) fn lost(&self) -> u64 {
        match &self.file {
            Some(Way::Background(background)) => background.total_lost(),
            _ => 0,
        }
    }
}

/// The files of a log.
#[derive(Debug)]
pub(super) enum FileSink {
    Segments(Writer),
    Json(Box<JsonWriter>),
}

impl FileSink {
    pub(super) fn open(plan: &FilePlan) -> Result<Self, LogError> {
        Ok(match plan {
            FilePlan::Segments { directory, settings } => Self::Segments(Writer::open(directory, *settings)?),
            FilePlan::JsonFile { path, settings, compress, attributes } => {
                Self::Json(Box::new(JsonWriter::open(path, *settings, *compress, attributes)?))
            }
        })
    }

    pub(super) fn write(&mut self, stream: Stream, chunk: &[u8]) {
        match self {
            Self::Segments(writer) => writer.write(stream, chunk),
            Self::Json(writer) => writer.write(stream, chunk),
        }
    }

    pub(super) fn finish(&mut self, stream: Stream) {
        match self {
            Self::Segments(writer) => writer.finish(stream),
            Self::Json(writer) => writer.finish(stream),
        }
    }

    /// So many lines, with so many bytes, never came here.
    pub(super) fn lose(&mut self, lines: u64, bytes: u64) {
        match self {
            Self::Segments(writer) => writer.lose(lines, bytes),
            Self::Json(writer) => writer.lose(lines, bytes),
        }
    }
}
