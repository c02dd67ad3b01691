//! Answers of upstreams, kept as long as they may be.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::wire::{self, Query, Response, Section, code, flag};

/// Most bytes of answers and questions that are kept.
const MAX_BYTES: usize = 1 << 20;
/// What an answer costs beside its bytes.
const OVERHEAD: usize = 160;
/// Longest time that an answer is kept, in seconds.
const MAX_LIFETIME: u32 = 3600;
/// Longest time that "there is nothing" is kept, in seconds.
const MAX_NEGATIVE: u32 = 60;

/// An upstream's message, ready to be given to clients.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// The message without its OPT record.
    pub(super) packet: Box<[u8]>,
    pub(super) response: Response,
    /// Seconds since it came.
    pub(super) age: u32,
}

#[derive(Debug)]
struct Entry {
    answer: Answer,
    came: Instant,
    expires: Instant,
    number: u64,
}

/// The cache: the oldest goes when there is no room.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Box<[u8]>, Entry>,
    order: VecDeque<(u64, Box<[u8]>)>,
    bytes: usize,
    number: u64,
}

/// What an answer depends on: who was asked, the question, and what the client wants of it.
pub(super) fn key(scope: u32, query: &Query) -> Box<[u8]> {
    let name = query.name.wire();
    let mut key = Vec::with_capacity(name.len() + 11);
    key.extend_from_slice(&scope.to_ne_bytes());
    key.extend_from_slice(&query.kind.to_ne_bytes());
    key.extend_from_slice(&query.class.to_ne_bytes());
    let wanted = flag::RECURSION_DESIRED | flag::AUTHENTIC | flag::CHECKING_DISABLED;
    key.extend_from_slice(&(query.flags & wanted).to_ne_bytes());
    key.push(query.edns.map_or(0, |edns| 1 + u8::from(edns.signatures)));
    key.extend_from_slice(name);
    key.into()
}

impl Cache {
    /// Keeps an answer, if it says that it may be.
    pub(super) fn insert(&mut self, key: Box<[u8]>, answer: &Answer, now: Instant) {
        let Some(lifetime) = lifetime(answer) else { return };
        let size = cost(&key, answer);
        if size > MAX_BYTES / 16 {
            return;
        }
        self.remove(&key);
        while self.bytes + size > MAX_BYTES {
            let Some((number, oldest)) = self.order.pop_front() else { break };
            if self.entries.get(&oldest).is_some_and(|entry| entry.number == number) {
                self.remove(&oldest);
            }
        }
        self.bytes += size;
        self.number += 1;
        self.order.push_back((self.number, key.clone()));
        let entry = Entry { answer: answer.clone(), came: now, expires: now + lifetime, number: self.number };
        self.entries.insert(key, entry);
        self.tidy(now);
    }

    /// The answer under `key` with its age, unless it has expired.
    pub(super) fn get(&mut self, key: &[u8], now: Instant) -> Option<Answer> {
        let entry = self.entries.get(key)?;
        if entry.expires <= now {
            self.remove(key);
            return None;
        }
        let age = now.duration_since(entry.came).as_secs() as u32;
        Some(Answer { age, ..entry.answer.clone() })
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some((key, entry)) = self.entries.remove_entry(key) {
            self.bytes -= cost(&key, &entry.answer);
        }
    }

    /// Drops what has expired at the old end, and the places of what was replaced.
    fn tidy(&mut self, now: Instant) {
        while let Some((number, key)) = self.order.front() {
            match self.entries.get(key) {
                Some(entry) if entry.number == *number && entry.expires > now => break,
                Some(entry) if entry.number == *number => {
                    let key = key.clone();
                    self.remove(&key);
                }
                _ => {}
            }
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            self.order.retain(|(number, key)| entries.get(key).is_some_and(|e| e.number == *number));
        }
    }
}

fn cost(key: &[u8], answer: &Answer) -> usize {
    // The key is kept twice.
    2 * key.len() + answer.packet.len() + size_of_val(answer.response.records.as_slice()) + OVERHEAD
}

fn lifetime(answer: &Answer) -> Option<Duration> {
    let response = &answer.response;
    if response.flags & flag::TRUNCATED != 0 {
        return None;
    }
    let positive = response.records.iter().any(|(section, _)| *section == Section::Answer);
    let most = match response.code() {
        code::NO_ERROR if positive => MAX_LIFETIME,
        code::NO_ERROR | code::NAME_ERROR => MAX_NEGATIVE,
        _ => return None,
    };
    let seconds = response.lifetime(&answer.packet).min(most);
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

/// Writes an upstream's answer as the client is to get it: its id, its question letter by letter, times to live less the age, no
/// more than `limit` bytes.
pub(super) fn give(out: &mut Vec<u8>, answer: &Answer, (query, packet): (&Query, &[u8]), limit: usize) {
    let response = &answer.response;
    out.clear();
    out.extend_from_slice(&query.id.to_be_bytes());
    let mut flags = response.flags | flag::RESPONSE | flag::RECURSION_AVAILABLE;
    flags = flags & !flag::RECURSION_DESIRED | query.flags & flag::RECURSION_DESIRED;
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(packet.get(wire::HEADER..query.question_end).unwrap_or_default());
    let room = limit.saturating_sub(if query.edns.is_some() { 11 } else { 0 });
    let mut counts = [0u16; 3];
    for (section, record) in &response.records {
        if record.end > room {
            // Additional records are a courtesy.
            if *section != Section::Additional {
                flags |= flag::TRUNCATED;
            }
            break;
        }
        out.extend_from_slice(answer.packet.get(record.start..record.end).unwrap_or_default());
        let ttl = record.ttl.saturating_sub(answer.age).to_be_bytes();
        if let Some(place) = out.get_mut(record.ttl_at..record.ttl_at + 4) {
            place.copy_from_slice(&ttl);
        }
        counts[*section as usize] += 1;
    }
    wire::set_word(out, 2, flags);
    for (section, count) in Section::ALL.into_iter().zip(counts) {
        wire::set_word(out, section.counter(), count);
    }
    super::answer::append_opt(out, query, response.extended_code);
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
