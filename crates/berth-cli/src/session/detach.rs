//! Watching for the keys that detach.

/// Looks for a sequence of keys in what the user types.
#[derive(Debug)]
pub struct Watch {
    keys: Vec<u8>,
    matched: usize,
}

/// What became of some input.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// What is for the container.
    pub forward: Vec<u8>,
    /// The sequence is complete; what followed it is dropped.
    pub detach: bool,
}

impl Watch {
    /// Looks for `keys`; none never detach.
    pub fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Looks at some input. Keys that may begin the sequence are held back until it is clear.
    pub fn look(&mut self, input: &[u8]) -> Seen {
        let mut forward = Vec::with_capacity(input.len() + self.matched);
        for &byte in input {
            while self.matched > 0 && self.keys.get(self.matched) != Some(&byte) {
                self.fall_back(&mut forward);
            }
            if self.keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return Seen { forward, detach: true };
                }
            } else {
                forward.push(byte);
            }
        }
        Seen { forward, detach: false }
    }

    /// Gives up the first held key, and goes on with the longest end of the rest that may still begin the sequence.
    fn fall_back(&mut self, forward: &mut Vec<u8>) {
        let held = &self.keys[..self.matched];
        let keep = (0..self.matched).rev().find(|&length| held.ends_with(&self.keys[..length])).unwrap_or(0);
        forward.extend_from_slice(&held[..self.matched - keep]);
        self.matched = keep;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(keys: &[u8], parts: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut watch = Watch::new(keys.to_vec());
        let mut forwarded = Vec::new();
        for part in parts {
            let seen = watch.look(part);
            forwarded.extend(seen.forward);
            if seen.detach {
                return (forwarded, true);
            }
        }
        (forwarded, false)
    }

    #[test]
    fn the_sequence_detaches_wherever_it_is_split() {
        assert_eq!(whole(&[16, 17], &[b"abc\x10\x11def"]), (b"abc".to_vec(), true));
        assert_eq!(whole(&[16, 17], &[b"abc\x10", b"\x11"]), (b"abc".to_vec(), true));
        assert_eq!(whole(&[16, 17], &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(whole(&[16, 17], &[b"\x10", b"x"]), (b"\x10x".to_vec(), false));
        assert_eq!(whole(b"aab", &[b"aaab"]), (b"a".to_vec(), true));
        assert_eq!(whole(b"", &[b"x"]), (b"x".to_vec(), false));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_without_the_sequence(input in "[ab]{0,40}", split in 0_usize..40) {
            let split = split.min(input.len());
            let (forwarded, detached) = whole(b"aac", &[&input.as_bytes()[..split], &input.as_bytes()[split..]]);
            prop_assert!(!detached);
            // Only a beginning of the sequence may be held back at the end.
            prop_assert!(input.as_bytes().starts_with(&forwarded) && input.len() - forwarded.len() <= 2);
        }
    }
}
