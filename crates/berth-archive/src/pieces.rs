//! Archives in pieces of one size, on their way from a thread that writes them to whoever carries them on.

use std::io::{self, Write};

/// Bytes of a piece; only the last one may have fewer.
pub const PIECE: usize = 64 << 10;

/// Who takes the pieces.
pub trait Carry {
    /// Takes a piece, and waits where it has to.
    ///
    /// # Errors
    /// Nobody wants the archive any more.
    fn carry(&mut self, piece: Vec<u8>) -> io::Result<()>;
}

/// Gathers what is written, and gives it on in pieces.
#[derive(Debug)]
pub struct Pieces<C> {
    carrier: C,
    buffer: Vec<u8>,
}

impl<C: Carry> Pieces<C> {
    /// Nothing is written yet.
    pub fn new(carrier: C) -> Pieces<C> {
        Pieces { carrier, buffer: Vec::with_capacity(PIECE) }
    }

    /// Who takes the pieces.
    pub fn carrier(&self) -> &C {
        &self.carrier
    }

    /// Gives on what has been written so far.
    ///
    /// # Errors
    /// As [`Carry::carry`].
    pub fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.carrier.carry(std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE)))
    }
}

impl<C: Carry> Write for Pieces<C> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == PIECE {
            self.send()?;
        }
        let length = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    /// The last piece is sent once it is known that nothing is missing.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
