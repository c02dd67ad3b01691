//! The key sequence that ends an attached connection.

/// Looks for a sequence in input that comes in pieces. Bytes that may begin it are held back until that is decided.
#[derive(Debug)]
pub(super) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// `None` if there is no sequence to look for.
    pub(super) fn new(keys: Vec<u8>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self { keys, matched: 0 })
    }

    /// Appends to `out` what of `input` is to be passed on; true if the sequence is complete.
    pub(super) fn filter(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        for byte in input {
            if *byte != self.keys[self.matched] {
                // As Docker does: what was held back goes out, and the byte may begin the sequence anew.
                out.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
            }
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return true;
                }
            } else {
                out.push(*byte);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CTRL_P_CTRL_Q: [u8; 2] = [16, 17];

    fn run(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys = DetachKeys::new(CTRL_P_CTRL_Q.to_vec()).unwrap();
        let mut out = Vec::new();
        let found = pieces.iter().any(|piece| keys.filter(piece, &mut out));
        (out, found)
    }

    #[test]
    fn the_sequence_is_found_across_pieces() {
        assert_eq!(run(&[b"a\x10", b"\x11b"]), (b"a".to_vec(), true));
        assert_eq!(run(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
    }

    #[test]
    fn a_broken_sequence_is_passed_on() {
        assert_eq!(run(&[b"\x10", b"x"]), (b"\x10x".to_vec(), false));
        assert_eq!(run(&[b"\x11\x10"]), (b"\x11".to_vec(), false));
    }

    #[test]
    fn no_keys_no_filter() {
        assert!(DetachKeys::new(Vec::new()).is_none());
    }

    proptest! {
        #[test]
        fn nothing_else_is_lost(input in prop::collection::vec(0u8..20, 0..100)) {
            let (mut out, found) = run(&[&input]);
            prop_assert_eq!(found, input.windows(2).any(|pair| pair == CTRL_P_CTRL_Q));
            if !found {
                if input.last() == Some(&16) { out.push(16); }
                prop_assert_eq!(out, input);
            }
        }
    }
}
