//! gzip, on all processors.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

use crate::Error;
use crate::spare::Spare;

mod kinds;
mod member;

use member::Members;

/// Bytes that become members of the gzip stream of their own. Blocks are compressed without knowledge of those before, which
/// makes the whole a hundredth larger.
const BLOCK: usize = 256 << 10;
/// Room for a block, and for what becomes of one that does not compress.
const ROOM: usize = BLOCK + (BLOCK >> 4);
/// Threads at most.
const THREADS: usize = 4;

/// Bytes to compress, and where the result is waited for.
struct Job {
    block: Vec<u8>,
    done: SyncSender<io::Result<Vec<u8>>>,
}

/// Takes what is to be compressed.
pub struct Blocks<'a> {
    block: Vec<u8>,
    spare: &'a Spare,
    jobs: SyncSender<Job>,
    order: SyncSender<Receiver<io::Result<Vec<u8>>>>,
    is_empty: bool,
}

/// Compresses what `write` writes to `out`, by several threads at once; the same bytes always give the same stream. Blocks.
/// Gives what `write` gave, which fails when writing to `out` fails.
///
/// # Errors
/// Those of `out`; no thread can be had.
pub fn gzip<T>(out: &mut (impl Write + Send), write: impl FnOnce(&mut Blocks) -> T) -> crate::Result<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let (jobs, waiting) = sync_channel(1);
    let (order, compressed) = sync_channel(threads);
    // It is shared by the threads alone: with the last of them it is gone, and nobody waits to give it more.
    let waiting = std::sync::Arc::new(Mutex::new(waiting));
    let spare = &Spare::default();
    let named = |name: &str| Builder::new().name(name.to_owned());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let waiting = std::sync::Arc::clone(&waiting);
            named("gzip").spawn_scoped(scope, move || work(&waiting, spare)).map_err(Error::Read)?;
        }
        drop(waiting);
        let collecting = named("gzip-out").spawn_scoped(scope, move || collect(&compressed, spare, out));
        let collecting = collecting.map_err(Error::Read)?;
        let mut blocks = Blocks { block: spare.take(ROOM), spare, jobs, order, is_empty: true };
        let given = write(&mut blocks);
        let ended = blocks.end();
        collecting
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .and(ended)
            .map_err(failed)?;
        Ok(given)
    })
}

fn failed(error: io::Error) -> Error {
    Error::file("writing", b"a compressed layer", error)
}

fn work(waiting: &Mutex<Receiver<Job>>, spare: &Spare) {
    let mut members: Option<Members> = None;
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { block, done }) = job else { return };
        let mut out = spare.take(ROOM);
        let outcome = members.get_or_insert_with(Members::new).compress(&block, &mut out);
        // Whoever has given it up wants no answer.
        let _ = done.send(outcome.map(|()| out));
        spare.give(block);
    }
}

fn collect(
    compressed: &Receiver<Receiver<io::Result<Vec<u8>>>>,
    spare: &Spare,
    out: &mut impl Write,
) -> io::Result<()> {
    for next in compressed {
        let members = next.recv().map_err(|_| io::Error::other("a thread that compresses has ended"))??;
        out.write_all(&members)?;
        spare.give(members);
    }
    out.flush()
}

impl Blocks<'_> {
    fn submit(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, self.spare.take(ROOM));
        let (done, result) = sync_channel(1);
        self.is_empty = false;
        // In this order there are never more jobs than results that are waited for.
        let sent = self.order.send(result).is_ok() && self.jobs.send(Job { block, done }).is_ok();
        if sent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn end(mut self) -> io::Result<()> {
        if self.is_empty || !self.block.is_empty() { self.submit() } else { Ok(()) }
    }
}

impl Write for Blocks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == BLOCK {
            self.submit()?;
        }
        Ok(count)
    }

    /// A part of a block waits for the rest of it.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Blocks<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Blocks").field("gathered", &self.block.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::bufread::MultiGzDecoder;

    use super::*;

    fn packed(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        // Parts of odd sizes: blocks do not depend on them.
        gzip(&mut out, |blocks| data.chunks(100_003).try_for_each(|part| blocks.write_all(part)))
            .unwrap()
            .unwrap();
        out
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let noise: Vec<u8> =
            (0..3 * BLOCK as u32 + 17).flat_map(|n| (n.wrapping_mul(n) >> 7).to_le_bytes()).collect();
        for data in [&b""[..], b"little", &noise[..BLOCK], &noise] {
            let compressed = packed(data);
            let mut back = Vec::new();
            MultiGzDecoder::new(&compressed[..]).read_to_end(&mut back).unwrap();
            assert!(back == data, "{} bytes", data.len());
            assert!(compressed == packed(data), "it depends on more than the {} bytes", data.len());
        }
    }

    /// Fails after some bytes.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 < bytes.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_ends_the_writing() {
        let mut out = Full(1000);
        let failure = gzip(&mut out, |blocks| {
            let mut noise = 1u64;
            loop {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if let Err(error) = blocks.write_all(&noise.to_le_bytes()) {
                    return error.kind();
                }
            }
        });
        let error = std::error::Error::source(&failure.unwrap_err()).unwrap().to_string();
        assert!(error.contains("no storage space") || error.contains("space"), "{error}");
    }
}
