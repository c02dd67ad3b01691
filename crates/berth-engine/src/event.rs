//! What happens in the engine, as a closed set, and the bus that tells it to clients.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_api::StringMap;
use berth_api::event::{Actor, Message};
use berth_api::filter::Filters;
use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::container::health::HealthStatus;
use crate::{Error, op};

/// Events that are kept for `since`, and that a slow reader may lag behind.
const KEPT: usize = 256;
const KNOWN_FILTERS: [&str; 11] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "plugin",
    "scope",
    "type",
    "volume",
];

/// What happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerEvent {
    /// It was created.
    Create,
    /// A client attached.
    Attach,
    /// Its program runs.
    Start,
    /// It ended.
    Die {
        /// Its exit code.
        code: i32,
        /// How long it ran.
        ran: Duration,
    },
    /// The kernel killed for want of memory.
    Oom,
    /// A signal was sent.
    Kill {
        /// Its number.
        signal: i32,
    },
    /// It was stopped by a client.
    Stop,
    /// It was stopped and started by a client.
    Restart,
    /// It was frozen.
    Pause,
    /// It goes on.
    Unpause,
    /// It is gone.
    Destroy,
    /// It has another name.
    Rename {
        /// The one before, with a slash.
        old: String,
    },
    /// Its terminal has another size.
    Resize {
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// Its health is another.
    Health(HealthStatus),
    /// Its processes were listed.
    Top,
    /// A process was prepared.
    ExecCreate {
        /// The instance.
        id: String,
        /// Program and arguments.
        command: String,
    },
    /// It runs.
    ExecStart {
        /// The instance.
        id: String,
        /// Program and arguments.
        command: String,
    },
    /// It ended.
    ExecDie {
        /// The instance.
        id: String,
        /// Its exit code.
        code: i32,
    },
}

/// What happened to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageEvent {
    /// It came from a registry.
    Pull,
    /// It came from an archive.
    Load,
    /// It got a name.
    Tag,
    /// It lost a name.
    Untag,
    /// It is gone.
    Delete,
}

/// What happened to an endpoint of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkEvent {
    /// A container joined.
    Connect,
    /// It left.
    Disconnect,
}

/// An event with what it happened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Of a container.
    Container {
        /// Its ID.
        id: String,
        /// Its name without a slash.
        name: String,
        /// The image as the user named it.
        image: String,
        /// Its labels.
        labels: StringMap,
        /// What happened.
        event: ContainerEvent,
    },
    /// Of an image.
    Image {
        /// Its ID or the name concerned.
        id: String,
        /// Its name.
        name: String,
        /// What happened.
        event: ImageEvent,
    },
    /// Of a network.
    Network {
        /// Its ID.
        id: String,
        /// Its name.
        name: String,
        /// The container.
        container: String,
        /// What happened.
        event: NetworkEvent,
    },
}

impl ContainerEvent {
    /// Docker's action and attributes.
    fn describe(&self) -> (String, Vec<(&'static str, String)>) {
        let plain = |action: &str| (action.to_owned(), Vec::new());
        match self {
            ContainerEvent::Create => plain("create"),
            ContainerEvent::Attach => plain("attach"),
            ContainerEvent::Start => plain("start"),
            ContainerEvent::Oom => plain("oom"),
            ContainerEvent::Stop => plain("stop"),
            ContainerEvent::Restart => plain("restart"),
            ContainerEvent::Pause => plain("pause"),
            ContainerEvent::Unpause => plain("unpause"),
            ContainerEvent::Destroy => plain("destroy"),
            ContainerEvent::Top => plain("top"),
            ContainerEvent::Health(status) => plain(&format!("health_status: {}", status.as_str())),
            ContainerEvent::Die { code, ran } => {
                let seconds = ran.as_secs().to_string();
                ("die".into(), vec![("exitCode", code.to_string()), ("execDuration", seconds)])
            }
            ContainerEvent::Kill { signal } => ("kill".into(), vec![("signal", signal.to_string())]),
            ContainerEvent::Rename { old } => ("rename".into(), vec![("oldName", old.clone())]),
            ContainerEvent::Resize { rows, columns } => {
                ("resize".into(), vec![("height", rows.to_string()), ("width", columns.to_string())])
            }
            ContainerEvent::ExecCreate { id, command } => {
                (format!("exec_create: {command}"), vec![("execID", id.clone())])
            }
            ContainerEvent::ExecStart { id, command } => {
                (format!("exec_start: {command}"), vec![("execID", id.clone())])
            }
            ContainerEvent::ExecDie { id, code } => {
                ("exec_die".into(), vec![("execID", id.clone()), ("exitCode", code.to_string())])
            }
        }
    }
}

impl Event {
    fn into_message(self, at: Timestamp) -> Message {
        let (kind, id, action, attributes, from) = match self {
            Event::Container { id, name, image, labels, event } => {
                let (action, more) = event.describe();
                let mut attributes = labels;
                attributes.insert("image".into(), image.clone());
                attributes.insert("name".into(), name);
                attributes.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
                ("container", id, action, attributes, image)
            }
            Event::Image { id, name, event } => {
                let action = match event {
                    ImageEvent::Pull => "pull",
                    ImageEvent::Load => "load",
                    ImageEvent::Tag => "tag",
                    ImageEvent::Untag => "untag",
                    ImageEvent::Delete => "delete",
                };
                ("image", id, action.to_owned(), StringMap::from([("name".into(), name)]), String::new())
            }
            Event::Network { id, name, container, event } => {
                let action = match event {
                    NetworkEvent::Connect => "connect",
                    NetworkEvent::Disconnect => "disconnect",
                };
                let attributes = StringMap::from([
                    ("container".into(), container),
                    ("name".into(), name),
                    ("type".into(), "bridge".into()),
                ]);
                ("network", id, action.to_owned(), attributes, String::new())
            }
        };
        // The old fields are for containers and images only, as in Docker.
        let legacy = kind != "network";
        Message {
            status: if legacy { action.clone() } else { String::new() },
            id: if legacy { id.clone() } else { String::new() },
            from,
            kind: kind.to_owned(),
            action,
            actor: Actor { id, attributes },
            scope: "local".into(),
            time: at.as_second(),
            time_nano: i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX),
        }
    }
}

/// Tells events to whoever listens, and keeps the last ones.
pub struct Bus {
    sender: broadcast::Sender<Arc<Message>>,
    recent: Mutex<VecDeque<Arc<Message>>>,
}

impl Bus {
    /// A bus without listeners.
    pub fn new() -> Bus {
        Bus { sender: broadcast::Sender::new(KEPT), recent: Mutex::default() }
    }

    /// Tells an event. Nobody listening is no error.
    pub fn publish(&self, event: Event) {
        let message = Arc::new(event.into_message(Timestamp::now()));
        // Both under the lock: a reader that subscribes under it sees each event once.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&message));
        let _ = self.sender.send(message);
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.sender.receiver_count()
    }

    /// Events from now on, or from `since`.
    pub fn subscribe(&self, wanted: op::Events) -> Result<EventStream, Error> {
        for name in wanted.filters.names() {
            if !KNOWN_FILTERS.contains(&name) {
                return Err(Error::InvalidParameter(format!("invalid filter '{name}'")));
            }
        }
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = self.sender.subscribe();
        // Without `since`, an `until` in the past asks for what is remembered.
        let past = wanted.since.is_some() || wanted.until.is_some_and(|until| until <= Timestamp::now());
        let after = wanted.since.map_or(i128::MIN, Timestamp::as_nanosecond);
        let replay =
            recent.iter().filter(|message| past && i128::from(message.time_nano) >= after).cloned().collect();
        Ok(EventStream { receiver, replay, filters: wanted.filters, until: wanted.until })
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

/// Whether a message satisfies Docker's event filters.
fn passes(filters: &Filters, message: &Message) -> bool {
    let any =
        |name: &str, matches: &dyn Fn(&str) -> bool| !filters.has(name) || filters.get(name).any(matches);
    let named = |kind: &'static str| {
        let actor = &message.actor;
        let name = actor.attributes.get("name");
        move |wanted: &str| {
            let named = name.is_some_and(|n| n == wanted || n.split(':').next() == Some(wanted));
            message.kind == kind && (actor.id == wanted || actor.id.starts_with(wanted) || named)
        }
    };
    any("type", &|wanted| message.kind == wanted)
        && any("scope", &|wanted| message.scope == wanted)
        && any("event", &|wanted| {
            message.action == wanted || message.action.split(':').next() == Some(wanted)
        })
        && any("container", &named("container"))
        && any("network", &named("network"))
        && any("volume", &named("volume"))
        && any("image", &|wanted| {
            let image = message.actor.attributes.get("image");
            let same = |i: &String| i == wanted || i.split(':').next() == Some(wanted);
            named("image")(wanted) || image.is_some_and(same)
        })
        && filters.get("label").all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => message.actor.attributes.get(key).is_some_and(|v| v == value),
            None => message.actor.attributes.contains_key(wanted),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(event: ContainerEvent) -> Event {
        Event::Container {
            id: "cafe".into(),
            name: "web".into(),
            image: "busybox:1".into(),
            labels: StringMap::from([("tier".into(), "front".into())]),
            event,
        }
    }

    fn filtered(filters: &str) -> op::Events {
        op::Events { filters: Filters::parse(filters).unwrap(), ..Default::default() }
    }

    #[tokio::test]
    async fn events_carry_dockers_actions_and_attributes() {
        let bus = Bus::new();
        let mut stream = bus.subscribe(op::Events::default()).unwrap();
        bus.publish(container(ContainerEvent::Die { code: 3, ran: Duration::from_secs(7) }));
        let message = stream.next().await.unwrap();
        assert_eq!((message.kind.as_str(), message.action.as_str()), ("container", "die"));
        for (key, value) in [
            ("exitCode", "3"),
            ("execDuration", "7"),
            ("name", "web"),
            ("image", "busybox:1"),
            ("tier", "front"),
        ] {
            assert_eq!(message.actor.attributes[key], value);
        }
        assert_eq!((message.status.as_str(), message.from.as_str()), ("die", "busybox:1"));
    }

    #[tokio::test]
    async fn filters_select() {
        let bus = Bus::new();
        let mut streams: Vec<_> = [
            r#"{"event":["start"]}"#,
            r#"{"container":["web"],"event":["exec_start"]}"#,
            r#"{"image":["busybox"],"label":["tier=front"],"event":["start"]}"#,
        ]
        .map(|filters| bus.subscribe(filtered(filters)).unwrap())
        .into();
        let exec = ContainerEvent::ExecStart { id: "e".into(), command: "ls -l".into() };
        bus.publish(Event::Image { id: "i".into(), name: "x".into(), event: ImageEvent::Pull });
        bus.publish(container(exec));
        bus.publish(container(ContainerEvent::Start));
        assert_eq!(streams[0].next().await.unwrap().action, "start");
        assert_eq!(streams[1].next().await.unwrap().action, "exec_start: ls -l");
        assert_eq!(streams[2].next().await.unwrap().action, "start");
        assert!(bus.subscribe(filtered(r#"{"colour":["red"]}"#)).is_err());
    }

    #[tokio::test]
    async fn the_past_is_replayed_and_the_end_kept() {
        let bus = Bus::new();
        for _ in 0..KEPT + 10 {
            bus.publish(container(ContainerEvent::Start));
        }
        let until = Some(Timestamp::now());
        let mut stream = bus
            .subscribe(op::Events { since: Some(Timestamp::UNIX_EPOCH), until, ..Default::default() })
            .unwrap();
        let mut seen = 0;
        while stream.next().await.is_some() {
            seen += 1;
        }
        assert_eq!(seen, KEPT, "bounded");
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
}
