//! What waits to be sent.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::log::remote::splunk::{MOST_BYTES, MOST_EVENTS};
use crate::log::remote::{Acknowledgement, Message, Packet, Piece, Protocol, random_name};
use crate::log::{Splitter, Stream};

/// What the container wrote before it could be stopped from writing goes beyond the bound, up to this many bytes.
const OVERFLOW: usize = 16 << 20;

/// Messages in order, bounded. What finds no room is counted, and a message tells of it as soon as there is room again.
#[derive(Debug)]
pub(super) struct Queue {
    protocol: Protocol,
    splitters: [Splitter; 2],
    /// Of each stream: the line that goes on, by name, and how many of its pieces there were.
    lines: [Option<(String, u32)>; 2],
    packets: VecDeque<Packet>,
    bytes: usize,
    bound: usize,
    ordinal: u64,
    lost: u64,
    /// All that was ever lost.
    total_lost: u64,
}

impl Queue {
    pub(super) fn new(protocol: Protocol, bound: usize) -> Self {
        Self {
            protocol,
            splitters: [Splitter::new(Stream::Stdout), Splitter::new(Stream::Stderr)],
            lines: [None, None],
            packets: VecDeque::new(),
            bytes: 0,
            bound,
            ordinal: 0,
            lost: 0,
            total_lost: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= self.bound
    }

    /// The packet at the front.
    pub(super) fn first(&self) -> Option<&Packet> {
        self.packets.front()
    }

    /// The packets from the front.
    pub(super) fn all(&self) -> impl Iterator<Item = &Packet> {
        self.packets.iter()
    }

    /// The packet at the front has been sent.
    pub(super) fn pop(&mut self) {
        if let Some(packet) = self.packets.pop_front() {
            self.bytes -= packet.bytes.len();
        }
        if self.packets.is_empty() {
            self.packets = VecDeque::new();
        }
    }

    /// Makes one request of the messages at the front, where requests are what is sent. One that was made stays as it
    /// is until it is answered.
    pub(super) fn gather(&mut self) {
        let Protocol::Splunk(splunk) = &self.protocol else { return };
        if self.first().is_none_or(|front| front.acknowledgement != Acknowledgement::None) {
            return;
        }
        let (mut events, mut count) = (Vec::new(), 0);
        while count < MOST_EVENTS
            && events.len() < MOST_BYTES
            && let Some(packet) = self.packets.pop_front()
        {
            events.extend(packet.bytes);
            count += 1;
        }
        self.bytes -= events.len();
        let bytes = splunk.request(events);
        self.bytes += bytes.len();
        let acknowledgement = Acknowledgement::Http(count as u64);
        self.packets.push_front(Packet { bytes, acknowledgement });
    }

    /// The packet at the front cannot be sent at all.
    pub(super) fn lose_front(&mut self) {
        let count = match self.first().map(|front| &front.acknowledgement) {
            Some(Acknowledgement::Http(count)) => *count,
            _ => 1,
        };
        self.pop();
        self.lose(count);
    }

    fn lose(&mut self, count: u64) {
        self.lost += count;
        self.total_lost += count;
    }

    /// Messages that were lost, in all.
    pub(super) fn total_lost(&self) -> u64 {
        self.total_lost
    }

    /// Takes a chunk of a stream. With `overflow`, the bound holds only for the next chunk: its reader stops.
    pub(super) fn write(&mut self, stream: Stream, chunk: &[u8], overflow: bool) {
        let time = Timestamp::now();
        self.with_splitter(stream, |splitter, queue| {
            splitter.push(chunk, |stream, partial, text| queue.add(time, stream, partial, text, overflow));
        });
    }

    /// The stream has ended.
    pub(super) fn finish(&mut self, stream: Stream) {
        let time = Timestamp::now();
        // The last line goes in whatever waits: nothing comes after it.
        self.with_splitter(stream, |splitter, queue| {
            splitter.finish(|stream, _, text| queue.add(time, stream, false, text, true));
        });
        self.tell_loss(time);
    }

    fn with_splitter(&mut self, stream: Stream, work: impl FnOnce(&mut Splitter, &mut Self)) {
        let index = stream as usize;
        let mut splitter = std::mem::replace(&mut self.splitters[index], Splitter::new(stream));
        work(&mut splitter, self);
        self.splitters[index] = splitter;
    }

    fn add(&mut self, time: Timestamp, stream: Stream, partial: bool, text: &[u8], overflow: bool) {
        let line = &mut self.lines[stream as usize];
        let (id, ordinal) = match line.take() {
            Some((id, ordinal)) => (id, ordinal + 1),
            None if partial => (random_name(64), 1),
            None => (String::new(), 0),
        };
        let piece = (ordinal > 0).then_some(Piece { id: &id, ordinal, last: !partial });
        self.ordinal += 1;
        let message = Message { time, stream, text, piece, ordinal: self.ordinal };
        let packets = self.protocol.encode(&message);
        if partial {
            *line = Some((id, ordinal));
        }
        let size: usize = packets.iter().map(|packet| packet.bytes.len()).sum();
        let bound = if overflow { self.bound + OVERFLOW } else { self.bound };
        if self.bytes + size > bound {
            self.lose(1);
            return;
        }
        self.tell_loss(time);
        self.push(packets);
    }

    fn tell_loss(&mut self, time: Timestamp) {
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            self.ordinal += 1;
            let text = format!("[berth: {lost} log messages could not be sent]");
            let message = Message {
                time,
                stream: Stream::Stderr,
                text: text.as_bytes(),
                piece: None,
                ordinal: self.ordinal,
            };
            self.push(self.protocol.encode(&message));
        }
    }

    fn push(&mut self, packets: Vec<Packet>) {
        self.bytes += packets.iter().map(|packet| packet.bytes.len()).sum::<usize>();
        self.packets.extend(packets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::remote::{Syslog, SyslogForm};

    fn queue(bound: usize) -> Queue {
        let form = SyslogForm::Rfc5424;
        let syslog = Syslog {
            form,
            facility: 3,
            tag: "t".into(),
            host: "h".into(),
            pid: 1,
            counted: false,
            zone: vec![],
        };
        Queue::new(Protocol::Syslog(syslog), bound)
    }

    fn texts(queue: &Queue) -> Vec<String> {
        let text = |packet: &Packet| {
            let text = String::from_utf8(packet.bytes.clone()).unwrap();
            text.split_once(" - ").unwrap().1.trim_end().to_owned()
        };
        queue.all().map(text).collect()
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told() {
        let mut queue = queue(150);
        for number in 0..20 {
            queue.write(Stream::Stdout, format!("{number}\n").as_bytes(), false);
        }
        let kept = texts(&queue).len();
        assert!(kept < 5 && queue.bytes <= 150);
        for _ in 0..kept {
            queue.pop();
        }
        queue.write(Stream::Stdout, b"after\n", false);
        let lost = format!("[berth: {} log messages could not be sent]", 20 - kept);
        assert_eq!(texts(&queue), [lost, "after".into()]);
        assert_eq!(queue.total_lost(), 20 - kept as u64);
    }

    #[test]
    fn a_request_takes_what_waits_and_is_lost_as_a_whole() {
        let splunk = crate::log::remote::splunk::tests::splunk(crate::log::remote::SplunkForm::Raw);
        let mut queue = Queue::new(Protocol::Splunk(splunk), 1 << 20);
        queue.gather();
        assert!(queue.is_empty());
        queue.write(Stream::Stdout, b"one\ntwo\n", false);
        queue.gather();
        queue.write(Stream::Stdout, b"three\n", false);
        queue.gather();
        assert_eq!(queue.all().count(), 2);
        let first = String::from_utf8(queue.first().unwrap().bytes.clone()).unwrap();
        assert!(first.contains("one") && first.contains("two") && !first.contains("three"), "{first}");
        assert_eq!(queue.bytes, queue.all().map(|packet| packet.bytes.len()).sum::<usize>());
        queue.lose_front();
        assert_eq!(queue.total_lost(), 2);
        queue.gather();
        queue.pop();
        assert_eq!((queue.bytes, queue.total_lost()), (0, 2));
    }

    #[test]
    fn a_chunk_may_overflow_where_the_container_waits() {
        let mut queue = queue(10);
        queue.write(Stream::Stdout, b"a\nb\nc", true);
        assert!(queue.is_full());
        queue.finish(Stream::Stdout);
        assert_eq!(texts(&queue), ["a", "b", "c"]);
    }
}
