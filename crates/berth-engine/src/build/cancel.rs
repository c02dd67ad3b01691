//! Bytes that move only as long as somebody wants the build.

use std::io::{self, Read, Write};

use tokio_util::sync::CancellationToken;

/// What is read from or written to, until the build is cancelled.
pub(crate) struct Cancelling<T> {
    inner: T,
    cancelled: CancellationToken,
}

impl<T> Cancelling<T> {
    pub fn new(inner: T, cancelled: &CancellationToken) -> Cancelling<T> {
        Cancelling { inner, cancelled: cancelled.clone() }
    }

    fn check(&self) -> io::Result<()> {
        match self.cancelled.is_cancelled() {
            true => Err(io::Error::other("the build was cancelled")),
            false => Ok(()),
        }
    }
}

impl<R: Read> Read for Cancelling<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        let length = self.inner.read(buffer)?;
        // What ends because of that is no end.
        self.check().map(|()| length)
    }
}

impl<W: Write> Write for Cancelling<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_move_until_the_end() {
        let cancelled = CancellationToken::new();
        let mut reader = Cancelling::new(&b"abc"[..], &cancelled);
        let mut writer = Cancelling::new(Vec::new(), &cancelled);
        let mut buffer = [0; 2];
        assert_eq!((reader.read(&mut buffer).unwrap(), writer.write(b"ab").unwrap()), (2, 2));
        cancelled.cancel();
        assert!(reader.read(&mut buffer).is_err() && writer.write(b"c").is_err());
        assert_eq!(writer.inner, b"ab");
    }
}
