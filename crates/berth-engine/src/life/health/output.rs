//! The beginning of a check's output.

/// Bytes that are kept.
const MOST: usize = 4096;

/// Output, of which the beginning is kept.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    cut: bool,
}

impl Output {
    /// Takes more, as long as there is room.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = MOST - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.cut |= bytes.len() > room;
    }

    /// What was kept, with dots where something is missing.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        if self.cut { format!("{text}...") } else { text.into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_kept_and_the_cut_is_shown() {
        let mut output = Output::default();
        output.push(&[b'a'; MOST - 1]);
        output.push(b"b");
        assert_eq!(output.text().len(), MOST);
        output.push(b"c");
        assert!(output.text().ends_with("ab...") && output.text().len() == MOST + 3);
    }
}
