//! Buffers that are used again.

use std::sync::{Mutex, PoisonError};

/// As many are kept.
const MOST: usize = 16;

/// Large buffers that nobody uses at the moment. The allocator of a static program gives each that is freed back to the
/// kernel, and the next one has to be faulted in page by page.
#[derive(Debug, Default)]
pub struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    /// An empty buffer with room for so many bytes.
    pub fn take(&self, room: usize) -> Vec<u8> {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.clear();
        buffer.reserve_exact(room);
        buffer
    }

    /// Keeps a buffer for the next who wants one.
    pub fn give(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MOST && buffer.capacity() > 0 {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty() {
        let spare = Spare::default();
        let mut buffer = spare.take(100);
        buffer.extend([1; 50]);
        let place = buffer.as_ptr();
        spare.give(buffer);
        let again = spare.take(100);
        assert!(again.is_empty() && again.capacity() >= 100);
        assert_eq!(again.as_ptr(), place);
        spare.give(Vec::new());
        assert!(spare.take(1).capacity() >= 1);
    }
}
