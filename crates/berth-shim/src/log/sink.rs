//! Where the shim puts what it reads.

use super::{FilePlan, JsonWriter, LogError, Plan, Stream, Writer};

/// The log of a container as its shim has it.
#[derive(Debug)]
pub(crate) struct Sink {
    file: Option<FileSink>,
}

#[derive(Debug)]
enum FileSink {
    Segments(Writer),
    Json(Box<JsonWriter>),
}

impl Sink {
    /// Opens what the plan names.
    ///
    /// # Errors
    /// When a file cannot be opened or read.
    pub(crate) fn open(plan: &Plan) -> Result<Self, LogError> {
        let file = match &plan.file {
            None => None,
            Some(FilePlan::Segments { directory, settings }) => {
                Some(FileSink::Segments(Writer::open(directory, *settings)?))
            }
            Some(FilePlan::JsonFile { path, settings, compress, attributes }) => {
                let writer = JsonWriter::open(path, *settings, *compress, attributes)?;
                Some(FileSink::Json(Box::new(writer)))
            }
        };
        Ok(Self { file })
    }

    /// Takes a chunk that the container wrote to `stream`.
    pub(crate) fn write(&mut self, stream: Stream, chunk: &[u8]) {
        match &mut self.file {
            None => {}
            Some(FileSink::Segments(writer)) => writer.write(stream, chunk),
            Some(FileSink::Json(writer)) => writer.write(stream, chunk),
        }
    }

    /// The stream has ended.
    pub(crate) fn finish(&mut self, stream: Stream) {
        match &mut self.file {
            None => {}
            Some(FileSink::Segments(writer)) => writer.finish(stream),
            Some(FileSink::Json(writer)) => writer.finish(stream),
        }
    }
}
