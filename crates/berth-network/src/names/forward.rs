//! Asking upstreams: what the server does with its flights.

use std::time::Instant;

use super::cache::{self, Answer};
use super::connection::MAX_WAITING;
use super::flight::{self, Flight, MAX_WAITERS, Progress, Source, Waiter};
use super::server::{Server, Timer};
use super::wire::{Query, code, flag, kind};
use super::{Token, answer};
use crate::net::poller::{Interest, Kind};

/// Queries of one container that wait for upstreams, as many as Docker lets wait.
const MAX_WAITING_PER_CONTAINER: usize = 1024;
/// Questions to upstreams of all containers together: each has a socket or some.
const MAX_FLIGHTS: usize = 8192;

impl Server {
    /// Answers from the cache, or asks upstreams: then the answer comes later. True if `self.output` holds an answer now.
    pub(super) fn forward(&mut self, from: Token, source: Source, query: Query, packet: &[u8]) -> bool {
        let Some(attachment) = self.attachments.get(from) else { return false };
        let addresses = query.kind == kind::A || query.kind == kind::AAAA;
        if addresses && attachment.config.ndots_set && query.name.labels() < 2 {
            answer::empty(&mut self.output, &query, packet, code::NO_ERROR);
            return true;
        }
        if attachment.upstreams.is_empty() {
            answer::empty(&mut self.output, &query, packet, code::SERVER_FAILURE);
            return true;
        }
        let key = cache::key(attachment.scope, &query);
        let now = super::now();
        if let Some(found) = self.cache.get(&key, now) {
            cache::give(&mut self.output, &found, (&query, packet), limit(source, &query));
            return true;
        }
        if !self.may_wait(from, source, &key) {
            answer::empty(&mut self.output, &query, packet, code::REFUSED);
            return true;
        }
        self.count_waiting(from, source, true);
        let question = packet.get(..query.question_end).unwrap_or_default().into();
        let waiter = Waiter { attachment: from, source, query, packet: question };
        self.wait_for(key, waiter, now);
        false
    }

    fn may_wait(&self, from: Token, source: Source, key: &[u8]) -> bool {
        let few = self.attachments.get(from).is_some_and(|a| a.waiting < MAX_WAITING_PER_CONTAINER);
        let room = match self.by_key.get(key).and_then(|token| self.flights.get(*token)) {
            Some(flight) => flight.waiters.len() < MAX_WAITERS,
            None => self.flights.len() < MAX_FLIGHTS,
        };
        let few_of_connection = match source {
            Source::Tcp(token) => self.connections.get(token).is_some_and(|c| c.waiting < MAX_WAITING),
            Source::Udp(_) => true,
        };
        few && room && few_of_connection
    }

    fn count_waiting(&mut self, from: Token, source: Source, more: bool) {
        let change = |count: &mut usize| *count = if more { *count + 1 } else { count.saturating_sub(1) };
        if let Some(attachment) = self.attachments.get_mut(from) {
            change(&mut attachment.waiting);
        }
        if let Source::Tcp(token) = source
            && let Some(connection) = self.connections.get_mut(token)
        {
            change(&mut connection.waiting);
        }
    }

    /// Lets a client wait for the answer to a question; asks it unless that was done already.
    fn wait_for(&mut self, key: Box<[u8]>, waiter: Waiter, now: Instant) {
        if let Some(flight) = self.by_key.get(&key).and_then(|token| self.flights.get_mut(*token)) {
            // Many identical questions at once would make a forged answer likelier to fit one of them.
            let same = |w: &Waiter| {
                w.attachment == waiter.attachment
                    && w.source == waiter.source
                    && w.query.id == waiter.query.id
            };
            if flight.waiters.iter().any(same) {
                // The client asks again; one answer is enough.
                self.count_waiting(waiter.attachment, waiter.source, false);
            } else {
                flight.waiters.push(waiter);
            }
            return;
        }
        let Some(attachment) = self.attachments.get(waiter.attachment) else { return };
        let by_tcp = matches!(waiter.source, Source::Tcp(_));
        let flight = Flight::new(key.clone(), waiter, attachment.upstreams.clone(), by_tcp, now);
        let token = self.flights.insert(flight);
        self.by_key.insert(key, token);
        self.advance(token, false);
    }

    /// Asks whoever is due, ends the flight if nothing more can come, and sets its timer.
    pub(super) fn advance(&mut self, token: Token, mut at_once: bool) {
        let now = super::now();
        loop {
            let Some(flight) = self.flights.get_mut(token) else { return };
            let Some((upstream, by_tcp)) = flight.next_launch(now, at_once) else { break };
            at_once = !self.launch(token, upstream, by_tcp);
        }
        let Some(flight) = self.flights.get_mut(token) else { return };
        if flight.is_over(now) {
            let fallback = flight.fallback.take();
            return self.land(token, fallback);
        }
        let wake = flight.wake();
        self.timers.remove(&(flight.timer, Timer::Flight(token)));
        flight.timer = wake;
        self.timers.insert((wake, Timer::Flight(token)));
    }

    /// Asks one upstream; false if that cannot be done.
    fn launch(&mut self, token: Token, upstream: usize, by_tcp: bool) -> bool {
        let launched = self.try_launch(token, upstream, by_tcp);
        if launched.is_none()
            && let Some(flight) = self.flights.get_mut(token)
        {
            flight.fail(upstream);
        }
        launched.is_some()
    }

    fn try_launch(&mut self, token: Token, upstream: usize, by_tcp: bool) -> Option<()> {
        let flight = self.flights.get_mut(token)?;
        let server = *flight.upstreams.get(upstream)?;
        let socket = if server.from_host {
            flight::open(&server, by_tcp)
        } else {
            let namespace = &self.attachments.get(flight.attachment)?.namespace;
            berth_sys::netns::visit(&self.home, namespace, || flight::open(&server, by_tcp))
        };
        let id = self.random.next()?;
        let (number, fd) = flight.ask(upstream, socket.ok()?, by_tcp, id).ok()?;
        let kind = Kind::Attempt(u8::try_from(number).ok()?);
        if self.poller.add(fd, kind, token, Interest { read: true, write: by_tcp }).is_err() {
            flight.give_up(number);
            return None;
        }
        Some(())
    }

    /// A socket to an upstream has something to say.
    pub(super) fn attempt_ready(&mut self, token: Token, attempt: usize) {
        let Some(flight) = self.flights.get_mut(token) else { return };
        match flight.progress(attempt, &mut self.input) {
            Progress::Waiting => {
                if flight.is_sent(attempt)
                    && flight.uses_tcp(attempt)
                    && let Some(fd) = flight.fd(attempt)
                {
                    let kind = Kind::Attempt(attempt as u8);
                    // Without effect the socket is polled too often, no more.
                    let _ = self.poller.change(fd, kind, token, Interest { read: true, write: false });
                }
            }
            Progress::Failed => {
                if let Some(upstream) = flight.give_up(attempt) {
                    flight.fail(upstream);
                }
                self.advance(token, true);
            }
            Progress::Answered(answer) => self.answered(token, attempt, answer),
        }
    }

    fn answered(&mut self, token: Token, attempt: usize, answer: Answer) {
        let Some(flight) = self.flights.get_mut(token) else { return };
        let by_tcp = flight.uses_tcp(attempt);
        let Some(upstream) = flight.give_up(attempt) else { return };
        if matches!(answer.response.code(), code::SERVER_FAILURE | code::REFUSED) {
            flight.fail(upstream);
            return self.advance(token, true);
        }
        if answer.response.flags & flag::TRUNCATED != 0 && !by_tcp {
            flight.fallback = Some(answer);
            let launched = self.launch(token, upstream, true);
            return self.advance(token, !launched);
        }
        self.land(token, Some(answer));
    }

    /// Gives all who wait the answer, or tells them that there is none.
    fn land(&mut self, token: Token, answer: Option<Answer>) {
        let Some(flight) = self.remove_flight(token) else { return };
        if let Some(answer) = &answer {
            self.cache.insert(flight.key, answer, super::now());
        }
        for waiter in flight.waiters {
            self.count_waiting(waiter.attachment, waiter.source, false);
            let (query, packet) = (&waiter.query, &waiter.packet[..]);
            match &answer {
                Some(answer) => {
                    cache::give(&mut self.output, answer, (query, packet), limit(waiter.source, query));
                }
                None => answer::empty(&mut self.output, query, packet, code::SERVER_FAILURE),
            }
            self.send(waiter.attachment, waiter.source);
        }
    }

    fn remove_flight(&mut self, token: Token) -> Option<Flight> {
        let flight = self.flights.remove(token)?;
        self.timers.remove(&(flight.timer, Timer::Flight(token)));
        self.by_key.remove(&flight.key);
        Some(flight)
    }

    /// Lets nobody of a container wait any longer; questions that only it asked are given up.
    pub(super) fn ground(&mut self, attachment: Token) {
        let mut empty = Vec::new();
        let tokens: Vec<Token> = self.flights.iter().map(|(token, _)| token).collect();
        for token in tokens {
            let Some(flight) = self.flights.get_mut(token) else { continue };
            flight.waiters.retain(|waiter| waiter.attachment != attachment);
            if flight.waiters.is_empty() {
                empty.push(token);
            }
        }
        for token in empty {
            self.remove_flight(token);
        }
    }
}

/// Largest answer for a client.
pub(super) fn limit(source: Source, query: &Query) -> usize {
    match source {
        Source::Udp(_) => query.udp_limit(),
        Source::Tcp(_) => usize::from(u16::MAX),
    }
}
