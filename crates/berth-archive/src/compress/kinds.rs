//! What the bytes of a block are like, found out much faster than by compressing them.

use std::ops::Range;

/// Bytes that are looked at together.
const UNIT: usize = 1024;
/// Fewer are too few to tell what they are like.
const LEAST: usize = 512;
/// Bytes by which most of what is no noise is told.
const GLANCE: usize = 256;
/// Zeros that are a run of their own.
const ZEROS: usize = 1024;
/// Bytes for which it is worth to compress what follows without knowledge of what went before.
const WORTH: usize = 8 << 10;

/// What a compressor makes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// They are all zero.
    Zeros,
    /// They do not become fewer, as those of files that are compressed or encrypted.
    Noise,
    /// It has to be seen.
    Plain,
}

/// Bytes of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub kind: Kind,
    pub range: Range<usize>,
}

/// What a block consists of, in order and without gaps.
pub(super) fn runs(block: &[u8]) -> Vec<Run> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < block.len() {
        let zeros = leading_zeros(&block[at..]);
        let (kind, end) = if zeros >= ZEROS {
            (Kind::Zeros, at + zeros)
        } else {
            let end = end_of_unit(block, at);
            // A rest that is too short to tell is like what it follows.
            let follows = end - at < LEAST && found.last().is_some_and(|run: &Run| run.kind == Kind::Noise);
            (if follows || is_noise(&block[at..end]) { Kind::Noise } else { Kind::Plain }, end)
        };
        push(&mut found, kind, at..end);
        at = end;
    }
    if is_repeated(block, &found) {
        return vec![Run { kind: Kind::Plain, range: 0..block.len() }];
    }
    worthwhile(&found)
}

/// Adds bytes to the last run, if they are of its kind.
fn push(runs: &mut Vec<Run>, kind: Kind, range: Range<usize>) {
    match runs.last_mut() {
        Some(last) if last.kind == kind => last.range.end = range.end,
        _ => runs.push(Run { kind, range }),
    }
}

/// The same runs, but what is too short to be treated for itself is compressed with its neighbours.
fn worthwhile(found: &[Run]) -> Vec<Run> {
    let mut runs = Vec::with_capacity(found.len());
    for group in found.chunk_by(|one, next| (one.kind == Kind::Plain) == (next.kind == Kind::Plain)) {
        let length: usize = group.iter().map(|run| run.range.len()).sum();
        for run in group {
            let kind = if length < WORTH { Kind::Plain } else { run.kind };
            push(&mut runs, kind, run.range.clone());
        }
    }
    runs
}

fn leading_zeros(bytes: &[u8]) -> usize {
    const STEP: usize = 128;
    let is_zero = |step: &&[u8]| step.iter().fold(0, |all, byte| all | byte) == 0;
    let whole = STEP * bytes.chunks_exact(STEP).take_while(is_zero).count();
    whole + bytes[whole..].iter().take_while(|byte| **byte == 0).count()
}

/// Where the unit that begins at `at` ends: early where a run of zeros begins.
fn end_of_unit(block: &[u8], at: usize) -> usize {
    let end = block.len().min(at + UNIT);
    let last = block[at..end].iter().rposition(|byte| *byte != 0);
    match last.map(|last| at + last + 1) {
        Some(zeros) if zeros < end && leading_zeros(&block[zeros..]) >= ZEROS => zeros,
        _ => end,
    }
}

/// Whether all values are about as frequent as they are by chance. They are not more evenly spread either, as in a table of
/// all of them.
fn is_noise(unit: &[u8]) -> bool {
    if unit.len() < LEAST {
        return false;
    }
    let mut counts = [0_u16; 256];
    let mut pairs = 0_usize;
    let mut count = |bytes: &[u8]| {
        for byte in bytes {
            let count = &mut counts[usize::from(*byte)];
            pairs += usize::from(*count);
            *count += 1;
        }
        pairs
    };
    let (first, rest) = unit.split_at(GLANCE);
    // Chance gives 128, and hardly ever half as many again.
    if count(first) > 192 {
        return false;
    }
    let expected = unit.len() * (unit.len() - 1) / 2 / 256;
    count(rest).abs_diff(expected) <= expected / 16 + 3 * expected.isqrt()
}

/// Whether the noise of a block comes more than once in it: then it does compress.
fn is_repeated(block: &[u8], runs: &[Run]) -> bool {
    const WINDOW: usize = 8;
    let mut seen = [0_u32; 4096];
    let (mut samples, mut hits) = (0_usize, 0_usize);
    for run in runs.iter().filter(|run| run.kind == Kind::Noise) {
        for window in block[run.range.clone()].windows(WINDOW) {
            let Some(window) = window.first_chunk::<WINDOW>() else { continue };
            let mixed = u64::from_le_bytes(*window).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            // One of 32, and the same ones wherever they come.
            if mixed >> 59 == 0 {
                let (slot, tag) = ((mixed >> 47) as usize & 0xfff, mixed as u32 | 1);
                samples += 1;
                hits += usize::from(std::mem::replace(&mut seen[slot], tag) == tag);
            }
        }
    }
    hits * 8 > samples
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Bytes of no pattern.
    pub fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    fn kinds(block: &[u8]) -> Vec<(Kind, usize)> {
        let runs = runs(block);
        let ends = runs.iter().map(|run| run.range.end);
        let begins: Vec<_> = std::iter::once(0).chain(ends).collect();
        assert!(runs.iter().zip(&begins).all(|(run, begin)| run.range.start == *begin), "{runs:?}");
        assert_eq!(begins.last(), Some(&block.len()));
        runs.into_iter().map(|run| (run.kind, run.range.len())).collect()
    }

    #[test]
    fn zeros_and_noise_are_told_from_what_may_compress() {
        let text = "what may compress, or not; ".repeat(1000).into_bytes();
        assert_eq!(kinds(&[]), []);
        assert_eq!(kinds(&text), [(Kind::Plain, text.len())]);
        assert_eq!(kinds(&[0; 10_000]), [(Kind::Zeros, 10_000)]);
        assert_eq!(kinds(&noise(20_123, 1)), [(Kind::Noise, 20_123)]);
        let both = [noise(8_500, 1), vec![0; 16_500], noise(8_500, 2), vec![0; 9_000]].concat();
        let expected =
            [(Kind::Noise, 8_500), (Kind::Zeros, 16_500), (Kind::Noise, 8_500), (Kind::Zeros, 9_000)];
        assert_eq!(kinds(&both), expected);
        let all = [text.clone(), noise(16_384, 3), text.clone()].concat();
        let found = kinds(&all);
        assert_eq!(
            found.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
            [Kind::Plain, Kind::Noise, Kind::Plain]
        );
        assert!(found[1].1.abs_diff(16_384) < 2 * UNIT, "{found:?}");
    }

    #[test]
    fn little_of_it_stays_with_its_neighbours() {
        let text = "a line of text\n".repeat(500).into_bytes();
        let all = [text.clone(), noise(4_000, 3), vec![0; 3_000], text].concat();
        assert_eq!(kinds(&all), [(Kind::Plain, all.len())]);
    }

    #[test]
    fn noise_that_comes_again_is_none() {
        let once = noise(20_000, 7);
        assert_eq!(kinds(&[once.clone(), once].concat()), [(Kind::Plain, 40_000)]);
        let table: Vec<u8> = (0..=255).cycle().take(30_000).collect();
        assert_eq!(kinds(&table), [(Kind::Plain, 30_000)]);
    }
}
