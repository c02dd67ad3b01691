//! DNS messages as bytes (RFC 1035 and 6891): strict reading of queries and answers.

/// Length of the header, and where the question begins.
pub(crate) const HEADER: usize = 12;
/// Largest UDP message of a peer that says nothing else.
pub(crate) const PLAIN_UDP: usize = 512;
/// What Berth says it takes over UDP when its client speaks EDNS: no fragments on any link that carries IPv6.
pub(crate) const EDNS_UDP: u16 = 1232;

/// Bits of the header's second word.
pub(crate) mod flag {
    pub(crate) const RESPONSE: u16 = 0x8000;
    pub(crate) const OPCODE: u16 = 0x7800;
    pub(crate) const TRUNCATED: u16 = 0x0200;
    pub(crate) const RECURSION_DESIRED: u16 = 0x0100;
    pub(crate) const RECURSION_AVAILABLE: u16 = 0x0080;
    pub(crate) const AUTHENTIC: u16 = 0x0020;
    pub(crate) const CHECKING_DISABLED: u16 = 0x0010;
    pub(crate) const CODE: u16 = 0x000f;
}

/// Response codes.
pub(crate) mod code {
    pub(crate) const NO_ERROR: u16 = 0;
    pub(crate) const FORMAT_ERROR: u16 = 1;
    pub(crate) const SERVER_FAILURE: u16 = 2;
    pub(crate) const NAME_ERROR: u16 = 3;
    pub(crate) const NOT_IMPLEMENTED: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
}

/// Types of records.
pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const OPT: u16 = 41;
}

/// The class of the Internet.
pub(crate) const INTERNET: u16 = 1;

/// The big-endian number of two bytes at `at`.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The big-endian number of four bytes at `at`.
pub(crate) fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Overwrites two bytes; without effect where there are none.
pub(crate) fn set_word(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// A domain name in lower case, as on the wire: labels with their lengths, and the root's empty one.
#[derive(Clone, Copy)]
pub(crate) struct Name {
    bytes: [u8; 255],
    length: u8,
}

impl Name {
    /// Reads an uncompressed name, as a question has one; returns where it ends.
    pub(crate) fn read(packet: &[u8], start: usize) -> Option<(Name, usize)> {
        let mut name = Name { bytes: [0; 255], length: 0 };
        let mut at = start;
        loop {
            let label = usize::from(*packet.get(at)?);
            if label > 63 {
                return None;
            }
            let from = usize::from(name.length);
            let source = packet.get(at..=at + label)?;
            let place = name.bytes.get_mut(from..from + label + 1)?;
            place.copy_from_slice(source);
            // The length is below every letter.
            place.make_ascii_lowercase();
            name.length = (from + label + 1) as u8;
            at += label + 1;
            if label == 0 {
                return Some((name, at));
            }
        }
    }

    /// The bytes on the wire.
    pub(crate) fn wire(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// How many labels, without the root.
    pub(crate) fn labels(&self) -> usize {
        let (mut count, mut at) = (0, 0);
        while let Some(&label) = self.wire().get(at).filter(|l| **l != 0) {
            count += 1;
            at += usize::from(label) + 1;
        }
        count
    }

    /// The name as people write it, without the final dot. `None` for the root, and for a name with a dot inside a label or
    /// that is not UTF-8: no container has one.
    pub(crate) fn text<'a>(&self, buffer: &'a mut [u8; 255]) -> Option<&'a str> {
        let (mut at, mut to) = (0, 0);
        while let Some(&label) = self.wire().get(at).filter(|l| **l != 0) {
            let label = self.wire().get(at + 1..at + 1 + usize::from(label))?;
            if label.contains(&b'.') {
                return None;
            }
            if to > 0 {
                *buffer.get_mut(to)? = b'.';
                to += 1;
            }
            buffer.get_mut(to..to + label.len())?.copy_from_slice(label);
            to += label.len();
            at += label.len() + 1;
        }
        if to == 0 { None } else { std::str::from_utf8(&buffer[..to]).ok() }
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text(&mut [0; 255]).unwrap_or("."))
    }
}

/// Appends a name to a message, uncompressed; false, and nothing appended, if `name` is no domain name.
pub(crate) fn write_name(out: &mut Vec<u8>, name: &str) -> bool {
    let start = out.len();
    for label in name.trim_end_matches('.').split('.') {
        if label.is_empty() || label.len() > 63 {
            out.truncate(start);
            return false;
        }
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    if out.len() - start > 255 {
        out.truncate(start);
        return false;
    }
    true
}

/// What a client says of EDNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edns {
    /// Largest UDP message that it takes.
    pub(crate) size: u16,
    /// Whether it wants signatures (`DO`).
    pub(crate) signatures: bool,
}

/// One question, and how to answer it.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) name: Name,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    /// The question lies from [`HEADER`] to here.
    pub(crate) question_end: usize,
    pub(crate) edns: Option<Edns>,
}

/// Why a message is no query that could be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not even a query: an answer to it might be answered in turn.
    Silent,
    /// This response code.
    Code(u16),
}

impl Query {
    /// Reads a client's message.
    pub(crate) fn read(packet: &[u8]) -> Result<Query, Refusal> {
        let (Some(id), Some(flags)) = (word(packet, 0), word(packet, 2)) else { return Err(Refusal::Silent) };
        if flags & flag::RESPONSE != 0 || packet.len() < HEADER {
            return Err(Refusal::Silent);
        }
        if flags & flag::OPCODE != 0 {
            return Err(Refusal::Code(code::NOT_IMPLEMENTED));
        }
        Query::read_body(packet, id, flags).ok_or(Refusal::Code(code::FORMAT_ERROR))
    }

    fn read_body(packet: &[u8], id: u16, flags: u16) -> Option<Query> {
        if word(packet, 4)? != 1 {
            return None;
        }
        let (name, end) = Name::read(packet, HEADER)?;
        let (kind, class) = (word(packet, end)?, word(packet, end + 2)?);
        let mut query = Query { id, flags, name, kind, class, question_end: end + 4, edns: None };
        let mut at = query.question_end;
        let records = Section::ALL.map(|section| section.count(packet));
        for _ in 0..records.iter().map(|n| u32::from(*n)).sum() {
            let record = Record::read(packet, at)?;
            at = record.end;
            if record.kind == kind::OPT {
                if query.edns.is_some() {
                    return None;
                }
                let signatures = record.ttl & 0x8000 != 0;
                query.edns = Some(Edns { size: record.class, signatures });
            }
        }
        Some(query)
    }

    /// Largest answer over UDP.
    pub(crate) fn udp_limit(&self) -> usize {
        self.edns.map_or(PLAIN_UDP, |edns| usize::from(edns.size).max(PLAIN_UDP))
    }
}

/// The sections after the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Answer,
    Authority,
    Additional,
}

impl Section {
    pub(crate) const ALL: [Section; 3] = [Section::Answer, Section::Authority, Section::Additional];

    /// Where the header counts the section's records.
    pub(crate) fn counter(self) -> usize {
        6 + 2 * self as usize
    }

    fn count(self, packet: &[u8]) -> u16 {
        word(packet, self.counter()).unwrap_or(0)
    }
}

/// A resource record's place in a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) start: usize,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    /// Where the time to live is written.
    pub(crate) ttl_at: usize,
    pub(crate) data: usize,
    pub(crate) end: usize,
}

impl Record {
    /// Reads the record at `start`.
    pub(crate) fn read(packet: &[u8], start: usize) -> Option<Record> {
        let at = skip_name(packet, start)?;
        let data = at + 10;
        let end = data + usize::from(word(packet, at + 8)?);
        let record = Record {
            start,
            kind: word(packet, at)?,
            class: word(packet, at + 2)?,
            ttl: long(packet, at + 4)?,
            ttl_at: at + 4,
            data,
            end,
        };
        // The OPT record belongs to the root, which is one byte.
        let misplaced = record.kind == kind::OPT && at != start + 1;
        (end <= packet.len() && !misplaced).then_some(record)
    }
}

/// Where the name at `start` ends. A pointer leads to what is before the name, so that following it comes to an end.
fn skip_name(packet: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let label = usize::from(*packet.get(at)?);
        match label >> 6 {
            0 if label == 0 => return Some(at + 1),
            0 => at += label + 1,
            3 => {
                let target = usize::from(word(packet, at)? & 0x3fff);
                return (HEADER..start).contains(&target).then_some(at + 2);
            }
            _ => return None,
        }
        if at - start > 255 {
            return None;
        }
    }
}

/// A message of an upstream that fits its question.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) flags: u16,
    /// The records with their sections, without OPT and what follows it.
    pub(crate) records: Vec<(Section, Record)>,
    /// Where the message ends without its OPT record.
    pub(crate) end: usize,
    /// Upper bits of the response code, which OPT carries.
    pub(crate) extended_code: u8,
}

impl Response {
    /// Reads a message as the answer to `query` that was asked as `id`; `None` if it is none, or malformed.
    pub(crate) fn read(packet: &[u8], id: u16, query: &Query) -> Option<Response> {
        let flags = word(packet, 2)?;
        let fits = word(packet, 0)? == id && flags & (flag::RESPONSE | flag::OPCODE) == flag::RESPONSE;
        if !fits || word(packet, 4)? != 1 {
            return None;
        }
        let (name, end) = Name::read(packet, HEADER)?;
        let same = name.wire() == query.name.wire();
        if !same || word(packet, end)? != query.kind || word(packet, end + 2)? != query.class {
            return None;
        }
        let mut response = Response { flags, records: Vec::new(), end: end + 4, extended_code: 0 };
        response.read_records(packet)?;
        Some(response)
    }

    fn read_records(&mut self, packet: &[u8]) -> Option<()> {
        let mut after_opt = false;
        let mut at = self.end;
        for section in Section::ALL {
            for _ in 0..section.count(packet) {
                // A truncated message may end before its counts say so.
                let record = match Record::read(packet, at) {
                    None if self.flags & flag::TRUNCATED != 0 => return Some(()),
                    other => other?,
                };
                at = record.end;
                if record.kind == kind::OPT {
                    self.extended_code = (record.ttl >> 24) as u8;
                    after_opt = true;
                }
                if !after_opt {
                    self.records.push((section, record));
                    self.end = at;
                }
            }
        }
        Some(())
    }

    /// The whole response code.
    pub(crate) fn code(&self) -> u16 {
        u16::from(self.extended_code) << 4 | self.flags & flag::CODE
    }

    /// How many seconds the answer may be kept: the least of its records; of one that says that there is nothing, what its SOA
    /// record says (RFC 2308), zero without one.
    pub(crate) fn lifetime(&self, packet: &[u8]) -> u32 {
        let negative = !self.records.iter().any(|(section, _)| *section == Section::Answer);
        let least = self.records.iter().map(|(_, record)| record.ttl).min().unwrap_or(0);
        if !negative {
            return least;
        }
        let soa = self.records.iter().find(|(s, r)| *s == Section::Authority && r.kind == kind::SOA);
        // The minimum is the last of the numbers in the record's data.
        let minimum = soa.and_then(|(_, r)| long(packet, r.end.checked_sub(4).filter(|at| *at >= r.data)?));
        minimum.map_or(0, |minimum| minimum.min(least))
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
