//! bzip2, read only: a few old archives of root file systems have it. One block, of at most 900,000 bytes, is in memory
//! at a time.
//!
//! The format has no specification but its programs; "BZIP2: Format Specification" by Joe Tsai describes it.

use std::io::{self, BufRead, Read};

/// What begins a block, and what ends a stream: the digits of π and of its square root.
const BLOCK: u64 = 0x3141_5926_5359;
const END: u64 = 0x1772_4538_5090;
/// Symbols that one table codes before another is chosen.
const GROUP: usize = 50;
/// The longest code in bits.
const LENGTH_MAX: usize = 20;
/// Bytes of a block for each step of the level.
const STEP: usize = 100_000;
/// Symbols at most: two for runs, 255 places, and the end.
const SYMBOLS_MAX: usize = 258;

/// An uncompressed view of one or several bzip2 streams. End of file means that all were complete and their checksums
/// right.
pub(super) struct Decoder<R> {
    bits: Bits<R>,
    /// Bytes of the largest block of this stream; none before its head was read.
    block_max: Option<usize>,
    /// Checksum of the stream's blocks so far.
    stream_sum: u32,
    first: bool,
    done: bool,
    block: Block,
}

/// A block that is being given out.
#[derive(Default)]
struct Block {
    /// Bytes in their low eight bits, and where the next one is above.
    chain: Vec<u32>,
    at: u32,
    left: usize,
    /// The last byte and how often it came in a row; after four, a count follows.
    last: Option<u8>,
    run: u8,
    /// How often it is still to be repeated.
    repeat: u32,
    sum: u32,
    expected: u32,
}

fn wrong<T>(what: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("bzip2: {what}")))
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            bits: Bits { input, buffer: 0, count: 0 },
            block_max: None,
            stream_sum: 0,
            first: true,
            done: false,
            block: Block::default(),
        }
    }

    /// Begins the next block; false at the end of all streams.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            let Some(block_max) = self.block_max else {
                if !self.first && self.bits.is_at_end()? {
                    return Ok(false);
                }
                self.head()?;
                continue;
            };
            match self.bits.take(48)? {
                BLOCK => {
                    self.block.read(&mut self.bits, block_max)?;
                    return Ok(true);
                }
                END => {
                    if self.bits.take(32)? != u64::from(self.stream_sum) {
                        return wrong("the checksum of a stream is wrong");
                    }
                    self.bits.align();
                    (self.block_max, self.stream_sum) = (None, 0);
                }
                _ => return wrong("a block begins with something else"),
            }
        }
    }

    fn head(&mut self) -> io::Result<()> {
        let (magic, level) = (self.bits.take(24)?, self.bits.take(8)?);
        if magic != 0x0042_5a68 {
            return wrong("something else follows the stream");
        }
        let level = match u8::try_from(level) {
            Ok(digit @ b'1'..=b'9') => usize::from(digit - b'0'),
            _ => return wrong("there is no such level"),
        };
        (self.block_max, self.first) = (Some(level * STEP), false);
        Ok(())
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.done && !out.is_empty() {
            let count = self.block.give(out);
            if count > 0 {
                return Ok(count);
            }
            if self.block_max.is_some() && !self.first && !self.block.chain.is_empty() {
                if !self.block.sum != self.block.expected {
                    return wrong("the checksum of a block is wrong");
                }
                self.stream_sum = self.stream_sum.rotate_left(1) ^ self.block.expected;
                self.block.chain.clear();
            }
            self.done = !self.begin()?;
        }
        Ok(0)
    }
}

impl Block {
    fn read<R: BufRead>(&mut self, bits: &mut Bits<R>, most: usize) -> io::Result<()> {
        let mut chain = std::mem::take(&mut self.chain);
        chain.clear();
        let expected = bits.number(32)?;
        if bits.take(1)? != 0 {
            return wrong("randomised blocks are not read any more");
        }
        let origin = bits.number(24)?;
        let used = used(bits)?;
        if used.is_empty() {
            return wrong("a block has no symbols");
        }
        let (tables, selectors) = tables(bits, used.len() + 2)?;
        symbols(bits, &used, &tables, &selectors, most, &mut chain)?;
        let mut starts = [0u32; 256];
        for entry in &chain {
            starts[(entry & 0xff) as usize] += 1;
        }
        let mut total = 0;
        for start in &mut starts {
            total += std::mem::replace(start, total);
        }
        for at in 0..chain.len() {
            let start = &mut starts[(chain[at] & 0xff) as usize];
            // Blocks are far smaller than 2²⁴.
            chain[*start as usize] |= (at as u32) << 8;
            *start += 1;
        }
        let Some(first) = chain.get(origin as usize) else {
            return wrong("a block begins outside of itself");
        };
        let (at, left) = (first >> 8, chain.len());
        *self = Self { chain, at, left, last: None, run: 0, repeat: 0, sum: !0, expected };
        Ok(())
    }

    /// Gives bytes out; none at the block's end.
    fn give(&mut self, out: &mut [u8]) -> usize {
        let mut count = 0;
        while count < out.len() {
            let byte = match self.last {
                Some(last) if self.repeat > 0 => {
                    self.repeat -= 1;
                    last
                }
                _ if self.left == 0 => break,
                _ => {
                    let entry = self.chain[self.at as usize];
                    self.at = entry >> 8;
                    self.left -= 1;
                    let byte = (entry & 0xff) as u8;
                    if self.run == 4 {
                        // It is a count.
                        (self.repeat, self.run) = (u32::from(byte), 0);
                        if self.repeat == 0 {
                            self.last = None;
                        }
                        continue;
                    }
                    self.run = if self.last == Some(byte) && self.run > 0 { self.run + 1 } else { 1 };
                    self.last = Some(byte);
                    byte
                }
            };
            self.sum = (self.sum << 8) ^ CHECKSUM[usize::from((self.sum >> 24) as u8 ^ byte)];
            out[count] = byte;
            count += 1;
        }
        count
    }
}

/// The bytes that occur in a block.
fn used<R: BufRead>(bits: &mut Bits<R>) -> io::Result<Vec<u8>> {
    let rows = bits.number(16)?;
    let mut found = Vec::with_capacity(256);
    for row in (0..16u8).filter(|row| rows >> (15 - row) & 1 == 1) {
        let columns = bits.number(16)?;
        found.extend(
            (0..16u8).filter(|column| columns >> (15 - column) & 1 == 1).map(|column| row * 16 + column),
        );
    }
    Ok(found)
}

/// A canonical code: for each length the largest code, and where its symbols begin.
struct Table {
    /// One past the last code of a length, aligned to [`LENGTH_MAX`] bits.
    limits: [u32; LENGTH_MAX + 1],
    /// What to add to a code of a length to get the place of its symbol.
    offsets: [i32; LENGTH_MAX + 1],
    symbols: Vec<u16>,
}

impl Table {
    fn new(lengths: &[u8]) -> Self {
        let mut table =
            Self { limits: [0; LENGTH_MAX + 1], offsets: [0; LENGTH_MAX + 1], symbols: Vec::new() };
        let mut code = 0u32;
        for length in 1..=LENGTH_MAX {
            let place = table.symbols.len();
            let with = lengths.iter().enumerate().filter(|(_, own)| usize::from(**own) == length);
            // There are at most 258.
            table.symbols.extend(with.map(|(symbol, _)| symbol as u16));
            table.offsets[length] = place as i32 - code as i32;
            code += (table.symbols.len() - place) as u32;
            table.limits[length] = code << (LENGTH_MAX - length);
            code <<= 1;
        }
        table
    }

    fn symbol<R: BufRead>(&self, bits: &mut Bits<R>) -> io::Result<u16> {
        let mut code = 0u32;
        for length in 1..=LENGTH_MAX {
            code = code << 1 | bits.number(1)?;
            if code << (LENGTH_MAX - length) < self.limits[length] {
                let place = usize::try_from(code as i32 + self.offsets[length]).ok();
                if let Some(symbol) = place.and_then(|place| self.symbols.get(place)) {
                    return Ok(*symbol);
                }
                break;
            }
        }
        wrong("a code stands for nothing")
    }
}

/// The tables of a block, and which of them is used for each group of symbols.
fn tables<R: BufRead>(bits: &mut Bits<R>, symbols: usize) -> io::Result<(Vec<Table>, Vec<u8>)> {
    let count = bits.number(3)?;
    if !(2..=6).contains(&count) {
        return wrong("a block has too few or too many tables");
    }
    let groups = bits.number(15)?;
    let mut order: Vec<u8> = (0..count as u8).collect();
    let mut selectors = Vec::new();
    for _ in 0..groups {
        let mut place = 0;
        while bits.take(1)? == 1 {
            place += 1;
            if place >= order.len() {
                return wrong("a group has no table");
            }
        }
        order[..=place].rotate_right(1);
        selectors.push(order[0]);
    }
    let mut tables = Vec::new();
    for _ in 0..count {
        let mut length = bits.number(5)?;
        let mut lengths = Vec::with_capacity(symbols);
        for _ in 0..symbols {
            loop {
                if length == 0 || length as usize > LENGTH_MAX {
                    return wrong("a code is too short or too long");
                }
                if bits.take(1)? == 0 {
                    break;
                }
                length = if bits.take(1)? == 0 { length + 1 } else { length - 1 };
            }
            lengths.push(length as u8);
        }
        tables.push(Table::new(&lengths));
    }
    Ok((tables, selectors))
}

/// Decodes the symbols of a block: runs, and places in the list of bytes that were used last.
fn symbols<R: BufRead>(
    bits: &mut Bits<R>,
    used: &[u8],
    tables: &[Table],
    selectors: &[u8],
    most: usize,
    out: &mut Vec<u32>,
) -> io::Result<()> {
    debug_assert!(used.len() + 2 <= SYMBOLS_MAX);
    let mut recent = used.to_vec();
    let (mut run, mut weight) = (0usize, 1usize);
    for selector in selectors {
        let table = &tables[usize::from(*selector)];
        for _ in 0..GROUP {
            let symbol = usize::from(table.symbol(bits)?);
            if symbol < 2 {
                // Bijective base two, the lowest digit first.
                run += weight << symbol;
                weight <<= 1;
                if run > most {
                    return wrong("a block is longer than its stream allows");
                }
                continue;
            }
            if out.len() + run + 1 > most + usize::from(symbol > used.len()) {
                return wrong("a block is longer than its stream allows");
            }
            out.resize(out.len() + run, u32::from(recent[0]));
            (run, weight) = (0, 1);
            if symbol > used.len() {
                return Ok(());
            }
            recent[..symbol].rotate_right(1);
            out.push(u32::from(recent[0]));
        }
    }
    wrong("a block has no end")
}

/// Bits, the highest of each byte first.
struct Bits<R> {
    input: R,
    buffer: u64,
    count: u32,
}

impl<R: BufRead> Bits<R> {
    /// The next `count` bits, 48 at most.
    fn take(&mut self, count: u32) -> io::Result<u64> {
        while self.count < count {
            let Some(byte) = self.byte()? else { return Err(io::ErrorKind::UnexpectedEof.into()) };
            self.buffer = self.buffer << 8 | u64::from(byte);
            self.count += 8;
        }
        self.count -= count;
        Ok(self.buffer >> self.count & ((1 << count) - 1))
    }

    /// The next `count` bits, 32 at most.
    fn number(&mut self, count: u32) -> io::Result<u32> {
        Ok(self.take(count)? as u32)
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.input.fill_buf() {
                Ok(bytes) => {
                    let byte = bytes.first().copied();
                    self.input.consume(usize::from(byte.is_some()));
                    return Ok(byte);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Drops the rest of a byte.
    fn align(&mut self) {
        self.count -= self.count % 8;
    }

    fn is_at_end(&mut self) -> io::Result<bool> {
        if self.count > 0 {
            return Ok(false);
        }
        match self.byte()? {
            None => Ok(true),
            Some(byte) => {
                (self.buffer, self.count) = (u64::from(byte), 8);
                Ok(false)
            }
        }
    }
}

/// CRC-32 with the highest bit first.
const CHECKSUM: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let (mut sum, mut bit) = ((index as u32) << 24, 0);
        while bit < 8 {
            sum = if sum >> 31 == 1 { sum << 1 ^ 0x04c1_1db7 } else { sum << 1 };
            bit += 1;
        }
        table[index] = sum;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    /// What `bzip2` makes of it.
    fn packed(level: &str, data: &[u8]) -> Vec<u8> {
        let mut child = Command::new("bzip2")
            .args(["-c", level])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bzip2 is installed");
        let mut input = child.stdin.take().unwrap();
        let data = data.to_vec();
        let writer = std::thread::spawn(move || input.write_all(&data).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output.stdout
    }

    fn unpacked(data: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decoder::new(BufReader::with_capacity(7, data)).read_to_end(&mut out)?;
        Ok(out)
    }

    /// Much text, with runs of all lengths.
    fn text() -> Vec<u8> {
        let mut text: Vec<u8> = (0..60_000u32).flat_map(|n| (n * n / 7).to_string().into_bytes()).collect();
        for run in 1..600 {
            text.extend(std::iter::repeat_n((run % 251) as u8, run));
        }
        text.extend(vec![0; 1_000_000]);
        text
    }

    #[test]
    fn what_bzip2_wrote_is_read() {
        let text = text();
        for level in ["-1", "-9"] {
            assert!(unpacked(&packed(level, &text)).unwrap() == text, "{level}");
        }
        assert_eq!(unpacked(&packed("-9", b"")).unwrap(), b"");
        let two = [packed("-1", b"first "), packed("-9", b"second")].concat();
        assert_eq!(unpacked(&two).unwrap(), b"first second");
    }

    #[test]
    fn damage_is_seen() {
        let whole = packed("-1", &text());
        for cut in [5, 20, whole.len() / 2, whole.len() - 1] {
            assert!(unpacked(&whole[..cut]).is_err(), "cut at {cut}");
        }
        let short = packed("-9", b"some text that is not long, not long, not long");
        for at in 0..short.len() * 8 {
            let mut bad = short.clone();
            bad[at / 8] ^= 1 << (at % 8);
            // The level, the padding, and bits that no code uses.
            let same =
                unpacked(&bad).map_or(true, |data| data == b"some text that is not long, not long, not long");
            assert!(same, "flip at {at}");
        }
        assert!(unpacked(&[&short[..], b"garbage"].concat()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn all_bytes_come_back(data in proptest::collection::vec(0u8..4, 0..3000), all in any::<Vec<u8>>()) {
            let data = [data, all].concat();
            prop_assert_eq!(unpacked(&packed("-1", &data)).unwrap(), data);
        }

        #[test]
        fn nothing_panics(data in any::<Vec<u8>>(), at in 0usize..60) {
            let mut bytes = packed("-1", b"abcabcabcabc");
            let at = at.min(bytes.len());
            bytes.truncate(at.max(4));
            bytes.extend(data);
            let _ = unpacked(&bytes);
        }
    }
}
