//! The bus that tells events to clients, and the window of the last ones, which survives the daemon.
//!
//! Publishing is a matter of memory: a task of its own writes what is new to the disk, many events at once. A daemon
//! that is killed loses what it published in the last moments before ([`BATCH`]).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_api::event::Message;
use berth_api::filter::Filters;
use berth_storage::Storage;
use jiff::Timestamp;
use tokio::sync::{Notify, broadcast};

use super::Event;
use super::filter::{check, passes};
use crate::blocking::blocking;
use crate::{Error, op};

/// Events that are kept for `since`, and that a slow reader may lag behind.
pub(super) const KEPT: usize = 1024;
/// How long events are gathered before they are written.
const BATCH: Duration = Duration::from_millis(250);

/// Tells events to whoever listens, and keeps the last ones.
pub struct Bus {
    sender: broadcast::Sender<Arc<Message>>,
    window: Mutex<Window>,
    told: AtomicU64,
    /// There is something to write.
    unwritten: Notify,
}

/// The last events in their order.
#[derive(Default)]
struct Window {
    recent: VecDeque<Arc<Message>>,
    /// The number of the last event.
    last: u64,
    /// The number of the last event on the disk.
    written: u64,
    /// When the last event was, in nanoseconds since 1970.
    time: i64,
}

impl Window {
    fn push(&mut self, message: Arc<Message>) {
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        self.time = message.time_nano;
        self.last += 1;
        self.recent.push_back(message);
    }

    /// A moment after that of the last event, now if the clock allows: the order of times is that of events.
    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        let earliest = i128::from(self.time) + 1;
        if now.as_nanosecond() >= earliest {
            return now;
        }
        Timestamp::from_nanosecond(earliest).unwrap_or(now)
    }
}

impl Bus {
    /// A bus without listeners and without a past.
    pub fn new() -> Bus {
        Bus {
            sender: broadcast::Sender::new(KEPT),
            window: Mutex::default(),
            told: AtomicU64::new(0),
            unwritten: Notify::new(),
        }
    }

    /// A bus that remembers what the last daemon told. What cannot be read of that is forgotten.
    pub fn restore(storage: &Storage) -> Result<Bus, Error> {
        let bus = Bus::new();
        {
            let mut window = bus.window();
            for (sequence, text) in storage.events().last(KEPT)? {
                window.last = sequence - 1;
                match serde_json::from_str(&text) {
                    Ok(message) => window.push(Arc::new(message)),
                    Err(error) => {
                        window.last = sequence;
                        tracing::warn!(sequence, %error, "an event of the past cannot be read");
                    }
                }
            }
            window.written = window.last;
        }
        Ok(bus)
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        // What the lock guards is whole between any two statements.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells an event. Nobody listening is no error.
    pub fn publish(&self, event: Event) {
        // All under the lock: a reader that subscribes under it sees each event once, and in order.
        let mut window = self.window();
        let message = Arc::new(event.into_message(window.now()));
        window.push(Arc::clone(&message));
        let _ = self.sender.send(message);
        drop(window);
        self.told.fetch_add(1, Ordering::Relaxed);
        self.unwritten.notify_one();
    }

    /// How many events were told since the engine was opened.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.sender.receiver_count()
    }

    /// Events from now on, or from `since`.
    pub fn subscribe(&self, wanted: op::Events) -> Result<EventStream, Error> {
        check(&wanted.filters)?;
        let window = self.window();
        let receiver = self.sender.subscribe();
        // As in Docker, either bound asks for what is remembered.
        let past = wanted.since.is_some() || wanted.until.is_some();
        let after = wanted.since.map_or(i128::MIN, Timestamp::as_nanosecond);
        let replay = window
            .recent
            .iter()
            .filter(|message| past && i128::from(message.time_nano) >= after)
            .cloned()
            .collect();
        Ok(EventStream { receiver, replay, filters: wanted.filters, until: wanted.until })
    }

    /// Writes what happens to the disk, now and then, for as long as it is polled.
    pub async fn keep(&self, storage: &Arc<Storage>) {
        loop {
            self.unwritten.notified().await;
            tokio::time::sleep(BATCH).await;
            if let Err(error) = self.write(storage).await {
                tracing::warn!(%error, "the last events could not be written");
            }
        }
    }

    /// Writes what is not on the disk yet.
    pub async fn write(&self, storage: &Arc<Storage>) -> Result<(), Error> {
        let (messages, last) = {
            let window = self.window();
            let missing = usize::try_from(window.last - window.written).unwrap_or(usize::MAX);
            let missing = missing.min(window.recent.len());
            let messages: Vec<Arc<Message>> = window.recent.iter().rev().take(missing).cloned().collect();
            (messages, window.last)
        };
        let storage = Arc::clone(storage);
        blocking(move || {
            let text = |message: &Message| {
                serde_json::to_string(message)
                    .map_err(|source| Error::Record { what: "an event".into(), source })
            };
            let numbered = (0u64..).zip(&messages).map(|(back, message)| Ok((last - back, text(message)?)));
            let mut rows = numbered.collect::<Result<Vec<_>, Error>>()?;
            rows.reverse();
            Ok(storage.events().add(&rows, KEPT)?)
        })
        .await?;
        let mut window = self.window();
        window.written = window.written.max(last);
        Ok(())
    }
}

/// Events as they happen, after those that were asked for from the past.
pub struct EventStream {
    receiver: broadcast::Receiver<Arc<Message>>,
    replay: VecDeque<Arc<Message>>,
    filters: Filters,
    until: Option<Timestamp>,
}

impl EventStream {
    /// The next event; `None` at the end asked for. A reader that is too slow loses the oldest ones.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            let message = match self.replay.pop_front() {
                Some(message) => message,
                None => self.live().await?,
            };
            let past_end =
                self.until.is_some_and(|until| i128::from(message.time_nano) > until.as_nanosecond());
            if past_end {
                return None;
            }
            if passes(&self.filters, &message) {
                return Some((*message).clone());
            }
        }
    }

    async fn live(&mut self) -> Option<Arc<Message>> {
        loop {
            let received = match self.until {
                None => self.receiver.recv().await,
                Some(until) => {
                    let left = Duration::try_from(until.duration_since(Timestamp::now())).ok()?;
                    tokio::time::timeout(left, self.receiver.recv()).await.ok()?
                }
            };
            match received {
                Ok(message) => return Some(message),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::event::ContainerEvent;
    use crate::event::tests::container;

    fn everything() -> op::Events {
        let until = Some(Timestamp::now());
        op::Events { since: Some(Timestamp::UNIX_EPOCH), until, ..op::Events::default() }
    }

    async fn all(mut stream: EventStream) -> Vec<Message> {
        let mut seen = Vec::new();
        while let Some(message) = stream.next().await {
            seen.push(message);
        }
        seen
    }

    #[tokio::test]
    async fn the_past_is_replayed_and_the_end_kept() {
        let bus = Bus::new();
        for _ in 0..KEPT + 10 {
            bus.publish(container(ContainerEvent::Start));
        }
        assert_eq!(all(bus.subscribe(everything()).unwrap()).await.len(), KEPT, "bounded");
    }

    #[tokio::test]
    async fn a_slow_reader_loses_the_oldest_only() {
        let bus = Bus::new();
        let mut stream = bus.subscribe(op::Events::default()).unwrap();
        for signal in 0..(KEPT as i32 + 50) {
            bus.publish(container(ContainerEvent::Kill { signal }));
        }
        let first = stream.next().await.unwrap();
        assert_eq!(first.actor.attributes["signal"], "50");
    }

    #[tokio::test]
    async fn times_grow_with_every_event_whoever_tells_it() {
        let bus = Bus::new();
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    (0..200).for_each(|_| bus.publish(container(ContainerEvent::Start)));
                });
            }
        });
        let times: Vec<i64> =
            all(bus.subscribe(everything()).unwrap()).await.iter().map(|message| message.time_nano).collect();
        assert_eq!(times.len(), 800);
        assert!(times.is_sorted_by(|a, b| a < b));
    }

    #[tokio::test]
    async fn the_window_survives_and_stays_bounded() {
        let temp = tempfile::tempdir().unwrap();
        let storage = Storage::open(temp.path().join("root"), Default::default()).unwrap();
        let bus = Bus::restore(&storage).unwrap();
        for signal in 0..10 {
            bus.publish(container(ContainerEvent::Kill { signal }));
        }
        bus.write(&storage).await.unwrap();
        bus.write(&storage).await.unwrap();
        let before = all(bus.subscribe(everything()).unwrap()).await;
        let next = Bus::restore(&storage).unwrap();
        assert_eq!(all(next.subscribe(everything()).unwrap()).await, before);
        // More than a window between two writes: the oldest never reach the disk.
        for _ in 0..KEPT + 5 {
            next.publish(container(ContainerEvent::Start));
        }
        next.write(&storage).await.unwrap();
        next.publish(container(ContainerEvent::Stop));
        next.write(&storage).await.unwrap();
        let last = all(Bus::restore(&storage).unwrap().subscribe(everything()).unwrap()).await;
        assert_eq!(last.len(), KEPT);
        assert_eq!(last.last().unwrap().action, "stop");
        assert_eq!(last, all(next.subscribe(everything()).unwrap()).await);
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_changes_no_order() {
        let temp = tempfile::tempdir().unwrap();
        let storage = Storage::open(temp.path().join("root"), Default::default()).unwrap();
        let ahead = Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let message = container(ContainerEvent::Stop).into_message(ahead);
        storage.events().add(&[(7, serde_json::to_string(&message).unwrap())], KEPT).unwrap();
        let bus = Bus::restore(&storage).unwrap();
        bus.publish(container(ContainerEvent::Start));
        let until = Some(ahead + jiff::SignedDuration::from_secs(1));
        let mut stream = bus.subscribe(op::Events { until, ..everything() }).unwrap();
        assert_eq!(stream.next().await.unwrap().action, "stop");
        let second = stream.next().await.unwrap();
        assert_eq!((second.action.as_str(), second.time_nano), ("start", message.time_nano + 1));
    }
}
