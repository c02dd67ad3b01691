//! Random numbers that nobody outside can guess, a few hundred for each system call.

/// Bytes of getrandom(2), given out two at a time.
#[derive(Debug)]
pub(crate) struct Random {
    bytes: [u8; 512],
    left: usize,
}

impl Random {
    pub(crate) fn new() -> Random {
        Random { bytes: [0; 512], left: 0 }
    }

    /// The next number, or `None` if the kernel gives none: better no query than one whose id can be guessed.
    pub(crate) fn next(&mut self) -> Option<u16> {
        if self.left < 2 {
            let flags = rustix::rand::GetRandomFlags::empty();
            self.left =
                rustix::io::retry_on_intr(|| rustix::rand::getrandom(&mut self.bytes[..], flags)).ok()?;
        }
        self.left = self.left.checked_sub(2)?;
        let pair = self.bytes.get(self.left..self.left + 2)?;
        Some(u16::from_ne_bytes([pair[0], pair[1]]))
    }

    /// A number below `bound`, for the order of answers.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        if bound < 2 { 0 } else { usize::from(self.next().unwrap_or(0)) % bound }
    }
}
