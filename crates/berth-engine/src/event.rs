//! What happens in the engine, as a closed set, in Docker's words.

mod bus;
mod filter;

use std::time::Duration;

use berth_api::StringMap;
use berth_api::event::{Actor, Message};
use jiff::Timestamp;

pub use bus::{Bus, EventStream};

use crate::container::health::HealthStatus;

/// What happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerEvent {
    /// It was created.
    Create,
    /// A client attached.
    Attach,
    /// A client left by the keys for that, while it goes on.
    Detach,
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
    /// Its file system was exported.
    Export,
    /// Files were copied out of it.
    ArchivePath,
    /// Files were copied into it.
    ExtractToDir,
    /// An image was made of it.
    Commit {
        /// What was said about it.
        comment: String,
        /// The image's ID.
        image: String,
        /// The image's name; empty without one.
        reference: String,
    },
    /// It has other limits, or another restart policy.
    Update,
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
    /// A client left it by the keys for that, while it goes on.
    ExecDetach {
        /// The instance.
        id: String,
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
    /// It went to a registry.
    Push,
    /// It came from an archive.
    Load,
    /// It was made of a container.
    Create,
    /// It was made of an archive of files.
    Import,
    /// It was written to an archive.
    Save,
    /// It got a name.
    Tag,
    /// It lost a name.
    Untag,
    /// It is gone.
    Delete,
}

/// What happened to a network, or to an endpoint of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkEvent {
    /// It was made.
    Create,
    /// It is gone.
    Destroy,
    /// A container joined.
    Connect,
    /// It left.
    Disconnect,
}

/// What happened to a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeEvent {
    /// It was made.
    Create,
    /// A container that starts has it.
    Mount {
        /// The container.
        container: String,
        /// Where in it.
        destination: String,
        /// Whether it can write there.
        writable: bool,
        /// How mounts propagate.
        propagation: String,
    },
    /// A container that ended had it.
    Unmount {
        /// The container.
        container: String,
    },
    /// It has another name.
    Rename {
        /// The one before.
        old: String,
    },
    /// It is gone.
    Destroy,
}

impl VolumeEvent {
    fn describe(self) -> (&'static str, Vec<(&'static str, String)>) {
        match self {
            VolumeEvent::Create => ("create", Vec::new()),
            VolumeEvent::Mount { container, destination, writable, propagation } => (
                "mount",
                vec![
                    ("container", container),
                    ("destination", destination),
                    ("read/write", writable.to_string()),
                    ("propagation", propagation),
                ],
            ),
            VolumeEvent::Unmount { container } => ("unmount", vec![("container", container)]),
            VolumeEvent::Rename { old } => ("rename", vec![("oldName", old)]),
            VolumeEvent::Destroy => ("destroy", Vec::new()),
        }
    }
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
    /// The daemon read its configuration again.
    DaemonReload {
        /// Its ID.
        id: String,
        /// The host's name.
        name: String,
        /// The settings as they are now, by name.
        settings: StringMap,
    },
    /// Unused containers were removed together.
    ContainersPruned {
        /// Bytes that this freed.
        reclaimed: u64,
    },
    /// Unused images were removed together.
    ImagesPruned {
        /// Bytes that this freed.
        reclaimed: u64,
    },
    /// Unused volumes were removed together.
    VolumesPruned {
        /// Bytes that this freed.
        reclaimed: u64,
    },
    /// What builders keep and nobody uses was removed together.
    CachePruned {
        /// Bytes that this freed.
        reclaimed: u64,
    },
    /// Of a volume.
    Volume {
        /// Its name.
        name: String,
        /// Its driver.
        driver: String,
        /// What happened.
        event: VolumeEvent,
    },
    /// Unused networks were removed together.
    NetworksPruned,
    /// Of an image.
    Image {
        /// Its ID or the name concerned.
        id: String,
        /// Its name.
        name: String,
        /// Its labels; none once it is gone.
        labels: StringMap,
        /// What happened.
        event: ImageEvent,
    },
    /// Of a network.
    Network {
        /// Its ID.
        id: String,
        /// Its name.
        name: String,
        /// Its driver.
        driver: String,
        /// The container, of an endpoint's event.
        container: Option<String>,
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
            ContainerEvent::Detach => plain("detach"),
            ContainerEvent::Start => plain("start"),
            ContainerEvent::Oom => plain("oom"),
            ContainerEvent::Stop => plain("stop"),
            ContainerEvent::Restart => plain("restart"),
            ContainerEvent::Pause => plain("pause"),
            ContainerEvent::Unpause => plain("unpause"),
            ContainerEvent::Destroy => plain("destroy"),
            ContainerEvent::Top => plain("top"),
            ContainerEvent::Export => plain("export"),
            ContainerEvent::ArchivePath => plain("archive-path"),
            ContainerEvent::ExtractToDir => plain("extract-to-dir"),
            ContainerEvent::Update => plain("update"),
            ContainerEvent::Health(status) => plain(&format!("health_status: {}", status.as_str())),
            ContainerEvent::Die { code, ran } => {
                let seconds = ran.as_secs().to_string();
                ("die".into(), vec![("exitCode", code.to_string()), ("execDuration", seconds)])
            }
            ContainerEvent::Commit { comment, image, reference } => (
                "commit".into(),
                vec![
                    ("comment", comment.clone()),
                    ("imageID", image.clone()),
                    ("imageRef", reference.clone()),
                ],
            ),
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
            ContainerEvent::ExecDetach { id } => ("exec_detach".into(), vec![("execID", id.clone())]),
            ContainerEvent::ExecDie { id, code } => {
                ("exec_die".into(), vec![("execID", id.clone()), ("exitCode", code.to_string())])
            }
        }
    }
}

/// Kind, ID, action, attributes and image of an event.
type Parts = (&'static str, String, String, StringMap, String);

/// That everything unused of a kind was removed.
fn pruned(kind: &'static str, reclaimed: u64) -> Parts {
    let attributes = StringMap::from([("reclaimed".into(), reclaimed.to_string())]);
    (kind, String::new(), "prune".to_owned(), attributes, String::new())
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
            Event::DaemonReload { id, name, settings } => {
                let mut attributes = settings;
                attributes.insert("name".into(), name);
                ("daemon", id, "reload".to_owned(), attributes, String::new())
            }
            Event::ContainersPruned { reclaimed } => pruned("container", reclaimed),
            Event::ImagesPruned { reclaimed } => pruned("image", reclaimed),
            Event::VolumesPruned { reclaimed } => pruned("volume", reclaimed),
            Event::Volume { name, driver, event } => {
                let (action, more) = event.describe();
                let mut attributes = StringMap::from([("driver".into(), driver)]);
                attributes.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
                ("volume", name, action.to_owned(), attributes, String::new())
            }
            Event::CachePruned { reclaimed } => pruned("builder", reclaimed),
            Event::NetworksPruned => pruned("network", 0),
            Event::Image { id, name, labels, event } => {
                let action = match event {
                    ImageEvent::Pull => "pull",
                    ImageEvent::Push => "push",
                    ImageEvent::Load => "load",
                    ImageEvent::Create => "create",
                    ImageEvent::Import => "import",
                    ImageEvent::Save => "save",
                    ImageEvent::Tag => "tag",
                    ImageEvent::Untag => "untag",
                    ImageEvent::Delete => "delete",
                };
                let mut attributes = labels;
                attributes.insert("name".into(), name);
                ("image", id, action.to_owned(), attributes, String::new())
            }
            Event::Network { id, name, driver, container, event } => {
                let action = match event {
                    NetworkEvent::Create => "create",
                    NetworkEvent::Destroy => "destroy",
                    NetworkEvent::Connect => "connect",
                    NetworkEvent::Disconnect => "disconnect",
                };
                let mut attributes = StringMap::from([("name".into(), name), ("type".into(), driver)]);
                attributes.extend(container.map(|id| ("container".to_owned(), id)));
                ("network", id, action.to_owned(), attributes, String::new())
            }
        };
        // The old fields are for containers and images only, as in Docker.
        let legacy = matches!(kind, "container" | "image");
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

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::op;

    /// An event of some container.
    pub fn container(event: ContainerEvent) -> Event {
        Event::Container {
            id: "cafe".into(),
            name: "web".into(),
            image: "busybox:1".into(),
            labels: StringMap::from([("tier".into(), "front".into())]),
            event,
        }
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

    #[test]
    fn each_kind_has_its_actor() {
        let describe = |event: Event| {
            let message = event.into_message(Timestamp::UNIX_EPOCH);
            (message.kind, message.action, message.actor.id, message.actor.attributes)
        };
        let map = |pairs: &[(&str, &str)]| -> StringMap {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let pruned = describe(Event::ContainersPruned { reclaimed: 7 });
        assert_eq!(pruned, ("container".into(), "prune".into(), String::new(), map(&[("reclaimed", "7")])));
        let (id, name, settings) = ("D1".to_owned(), "host".to_owned(), map(&[("debug", "true")]));
        let reload = describe(Event::DaemonReload { id, name, settings });
        let attributes = map(&[("debug", "true"), ("name", "host")]);
        assert_eq!(reload, ("daemon".into(), "reload".into(), "D1".into(), attributes));
        let (id, name, container) = ("n1".to_owned(), "host".to_owned(), "c1".to_owned());
        let joined = Event::Network {
            id,
            name,
            driver: "host".into(),
            container: Some(container),
            event: NetworkEvent::Connect,
        };
        let attributes = map(&[("container", "c1"), ("name", "host"), ("type", "host")]);
        assert_eq!(describe(joined), ("network".into(), "connect".into(), "n1".into(), attributes));
    }
}
