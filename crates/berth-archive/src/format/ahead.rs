//! A stream that is read and hashed while what came of it is used: three threads, between which blocks go round.

use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use sha2::{Digest as _, Sha256};

use super::input::{BUFFER, Source};
use crate::{Error, Result};

/// Blocks besides the first: as many as there are threads, so that none waits for another that is at work.
const BLOCKS: usize = 3;

/// A part of a stream.
pub(crate) struct Block {
    bytes: Box<[u8]>,
    length: usize,
}

impl Block {
    /// The next part of what `reader` gives. It is full, unless the stream ends in it.
    pub(crate) fn read(reader: &mut impl Read) -> Result<Self> {
        let mut block = Self { bytes: vec![0; BUFFER].into_boxed_slice(), length: 0 };
        block.length = reader.fill(&mut block.bytes)?;
        Ok(block)
    }

    /// Whether the stream ends in it.
    pub(crate) fn is_last(&self) -> bool {
        self.length < self.bytes.len()
    }

    /// What it holds.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The blocks as they come, hashed.
pub(crate) struct Ahead {
    full: Receiver<Result<Block>>,
    used: SyncSender<Box<[u8]>>,
}

/// The hash of a stream, once it has been read to its end, and how many bytes it had.
pub(crate) type Hashed<'scope> = ScopedJoinHandle<'scope, ([u8; 32], u64)>;

/// Reads `reader`, of which `first` has come already, in another thread, and hashes it in a third. They end with the
/// stream, at its first failure, or when what this gives is dropped.
///
/// # Errors
/// No thread can be had.
pub(crate) fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    reader: impl Read + Send + 'scope,
    first: Block,
) -> Result<(Ahead, Hashed<'scope>)> {
    // Channels hold all blocks there are and an error: who sends does not wait.
    let (read, unhashed) = sync_channel(BLOCKS + 2);
    let (hashed, full) = sync_channel(BLOCKS + 2);
    let (used, empty) = sync_channel(BLOCKS + 2);
    for _ in 0..BLOCKS {
        // Both ends are here.
        let _ = used.send(vec![0; BUFFER].into_boxed_slice());
    }
    let thread = |name: &str| Builder::new().name(name.to_owned());
    let hash = thread("layer-hash").spawn_scoped(scope, move || hash(&unhashed, &hashed));
    let hash = hash.map_err(Error::Read)?;
    let reading = thread("layer-read").spawn_scoped(scope, move || read_on(reader, first, &empty, &read));
    reading.map_err(Error::Read)?;
    Ok((Ahead { full, used }, hash))
}

fn read_on(
    mut reader: impl Read,
    first: Block,
    empty: &Receiver<Box<[u8]>>,
    read: &SyncSender<Result<Block>>,
) {
    if read.send(Ok(first)).is_err() {
        return;
    }
    while let Ok(mut bytes) = empty.recv() {
        let block = reader.fill(&mut bytes).map(|length| Block { bytes, length });
        let is_end = block.as_ref().map_or(true, Block::is_last);
        if read.send(block).is_err() || is_end {
            return;
        }
    }
}

fn hash(unhashed: &Receiver<Result<Block>>, hashed: &SyncSender<Result<Block>>) -> ([u8; 32], u64) {
    let (mut hash, mut count) = (Sha256::new(), 0);
    for block in unhashed {
        if let Ok(block) = &block {
            hash.update(block.filled());
            count += block.length as u64;
        }
        if hashed.send(block).is_err() {
            break;
        }
    }
    (hash.finalize().into(), count)
}

impl Source for Ahead {
    fn fill(&mut self, bytes: &mut Box<[u8]>) -> Result<usize> {
        match self.full.recv() {
            Ok(Ok(block)) => {
                let old = std::mem::replace(bytes, block.bytes);
                // Nobody wants it at the stream's end.
                let _ = self.used.send(old);
                Ok(block.length)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(0),
        }
    }
}
