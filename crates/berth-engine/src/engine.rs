//! The engine: its parts, and what clients can ask of it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use berth_api::container::{CreateResponse, Inspect, Summary, TopResponse, WaitResponse};
use berth_api::{auth, event, exec, filter::Filters, image, network, progress, stream, system};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{Error, Settings, op};

/// The composition of storage, images, network, shims and runtime. One per daemon.
pub struct Engine {
    settings: Settings,
}

/// A wait that is registered: exits from now on count.
pub struct Waiting(());

impl Waiting {
    /// Resolves when the condition holds.
    pub async fn finish(self) -> Result<WaitResponse, Error> {
        unimplemented!()
    }
}

/// An attachment that was checked but has no connection yet, so that an answer can be sent on it first.
pub struct PendingAttach {
    /// Whether the streams are raw (a terminal) instead of framed.
    pub tty: bool,
}

impl PendingAttach {
    /// Gives the connection away: the shim talks on it from now on. `read` is what was read from it already
    /// beyond the request.
    pub async fn connect(self, connection: OwnedFd, read: Vec<u8>) -> Result<(), Error> {
        let _ = (connection, read);
        unimplemented!()
    }
}

/// An exec instance that may start, with no connection yet.
pub struct PendingExec {
    /// Whether the streams are raw (a terminal) instead of framed.
    pub tty: bool,
    /// Whether nothing is to be connected.
    pub detach: bool,
}

impl PendingExec {
    /// Starts the process. With a connection (and what was read from it beyond the request), a failure is also
    /// written to it, as Docker does.
    pub async fn start(self, connection: Option<(OwnedFd, Vec<u8>)>) -> Result<(), Error> {
        let _ = connection;
        unimplemented!()
    }
}

/// A container's log, as it is read.
pub struct LogStream {
    /// Whether the container has a terminal: then the lines are sent raw instead of framed.
    pub tty: bool,
    /// Lines (or parts of long ones), with the time in front if asked for. Ends with the log.
    pub lines: mpsc::Receiver<Result<(stream::Stream, Bytes), Error>>,
}

/// Events as they happen, after those that were asked for from the past.
pub struct EventStream(());

impl EventStream {
    /// The next event; `None` at the end asked for. A reader that is too slow loses the oldest ones.
    pub async fn next(&mut self) -> Option<event::Message> {
        unimplemented!()
    }
}

#[expect(clippy::unused_async, reason = "bodies follow")]
impl Engine {
    /// Opens data root and exec root, takes over the containers that run, and returns when clients can be
    /// answered. Fails if another daemon has the data root.
    pub async fn open(settings: Settings) -> Result<Arc<Engine>, Error> {
        Ok(Arc::new(Engine { settings }))
    }

    /// Ends gracefully: containers are stopped unless live restore is on.
    pub async fn shutdown(&self) {
        unimplemented!()
    }

    /// What the engine was opened with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Creates a container.
    pub async fn create(self: &Arc<Self>, op: op::CreateContainer) -> Result<CreateResponse, Error> {
        let _ = op;
        unimplemented!()
    }

    /// Starts a container; `NotModified` if it runs.
    pub async fn start(&self, name: &str) -> Result<(), Error> {
        let _ = name;
        unimplemented!()
    }

    /// Stops a container; `NotModified` if it does not run.
    pub async fn stop(&self, name: &str, op: op::Stop) -> Result<(), Error> {
        let _ = (name, op);
        unimplemented!()
    }

    /// Stops and starts a container.
    pub async fn restart(&self, name: &str, op: op::Stop) -> Result<(), Error> {
        let _ = (name, op);
        unimplemented!()
    }

    /// Sends a signal, SIGKILL unless another is named.
    pub async fn kill(&self, name: &str, signal: Option<&str>) -> Result<(), Error> {
        let _ = (name, signal);
        unimplemented!()
    }

    /// Freezes all processes of a container.
    pub async fn pause(&self, name: &str) -> Result<(), Error> {
        let _ = name;
        unimplemented!()
    }

    /// Lets them go on.
    pub async fn unpause(&self, name: &str) -> Result<(), Error> {
        let _ = name;
        unimplemented!()
    }

    /// Removes a container.
    pub async fn remove(&self, name: &str, op: op::Remove) -> Result<(), Error> {
        let _ = (name, op);
        unimplemented!()
    }

    /// Registers a wait; send the answer's head, then [`Waiting::finish`].
    pub async fn wait(&self, name: &str, condition: op::WaitCondition) -> Result<Waiting, Error> {
        let _ = (name, condition);
        unimplemented!()
    }

    /// Checks an attachment; send the answer's head, then [`PendingAttach::connect`].
    pub async fn attach(&self, name: &str, op: op::Attach) -> Result<PendingAttach, Error> {
        let _ = (name, op);
        unimplemented!()
    }

    /// Reads a container's log.
    pub async fn logs(&self, name: &str, op: op::Logs) -> Result<LogStream, Error> {
        let _ = (name, op);
        unimplemented!()
    }

    /// Sets the size of a container's terminal.
    pub async fn resize(&self, name: &str, rows: u16, columns: u16) -> Result<(), Error> {
        let _ = (name, rows, columns);
        unimplemented!()
    }

    /// The processes of a container; `ps_args` as for `ps`, empty for `-ef`.
    pub async fn top(&self, name: &str, ps_args: &str) -> Result<TopResponse, Error> {
        let _ = (name, ps_args);
        unimplemented!()
    }

    /// Everything about a container; with `size`, also the size of its writable layer.
    pub async fn inspect(&self, name: &str, size: bool) -> Result<Inspect, Error> {
        let _ = (name, size);
        unimplemented!()
    }

    /// Containers, the newest first.
    pub async fn list(&self, op: op::List) -> Result<Vec<Summary>, Error> {
        let _ = op;
        unimplemented!()
    }

    /// Gives a container another name.
    pub async fn rename(&self, name: &str, new_name: &str) -> Result<(), Error> {
        let _ = (name, new_name);
        unimplemented!()
    }

    /// Prepares a process in a running container.
    pub async fn exec_create(&self, name: &str, op: op::ExecCreate) -> Result<exec::CreateResponse, Error> {
        let _ = (name, op);
        unimplemented!()
    }

    /// Checks the start of an exec instance; send the answer's head, then [`PendingExec::start`].
    pub async fn exec_start(&self, id: &str, op: op::ExecStart) -> Result<PendingExec, Error> {
        let _ = (id, op);
        unimplemented!()
    }

    /// Everything about an exec instance.
    pub async fn exec_inspect(&self, id: &str) -> Result<exec::Inspect, Error> {
        let _ = id;
        unimplemented!()
    }

    /// Sets the size of an exec instance's terminal.
    pub async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), Error> {
        let _ = (id, rows, columns);
        unimplemented!()
    }

    /// Images; with `all` also those without a name that others need.
    pub async fn image_list(&self, all: bool, filters: Filters) -> Result<Vec<image::Summary>, Error> {
        let _ = (all, filters);
        unimplemented!()
    }

    /// Everything about an image.
    pub async fn image_inspect(&self, name: &str) -> Result<image::Inspect, Error> {
        let _ = name;
        unimplemented!()
    }

    /// The steps an image was built in, the newest first.
    pub async fn image_history(&self, name: &str) -> Result<Vec<image::HistoryItem>, Error> {
        let _ = name;
        unimplemented!()
    }

    /// Pulls an image by its reference, such as `debian:12`; errors after the first message are also returned.
    pub async fn image_pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        auth: Option<auth::AuthConfig>,
        progress: mpsc::Sender<progress::JsonMessage>,
    ) -> Result<(), Error> {
        let _ = (reference, platform, auth, progress);
        unimplemented!()
    }

    /// Loads the images of an archive, which is read by a blocking thread.
    pub async fn image_load(
        &self,
        archive: Box<dyn std::io::Read + Send>,
        progress: mpsc::Sender<progress::JsonMessage>,
    ) -> Result<(), Error> {
        let _ = (archive, progress);
        unimplemented!()
    }

    /// Removes a name of an image, and the image with its last one.
    pub async fn image_remove(&self, name: &str, force: bool) -> Result<Vec<image::DeleteItem>, Error> {
        let _ = (name, force);
        unimplemented!()
    }

    /// Gives an image one more name.
    pub async fn image_tag(&self, name: &str, repository: &str, tag: &str) -> Result<(), Error> {
        let _ = (name, repository, tag);
        unimplemented!()
    }

    /// What the engine says about itself and its host.
    pub async fn info(&self) -> Result<system::Info, Error> {
        unimplemented!()
    }

    /// Versions of the engine and its API.
    pub fn version(&self) -> system::Version {
        unimplemented!()
    }

    /// Events from now on, or from `since`.
    pub fn events(&self, op: op::Events) -> EventStream {
        let _ = op;
        unimplemented!()
    }

    /// Networks.
    pub async fn network_list(&self, filters: Filters) -> Result<Vec<network::Network>, Error> {
        let _ = filters;
        unimplemented!()
    }

    /// Everything about a network.
    pub async fn network_inspect(&self, name: &str) -> Result<network::Network, Error> {
        let _ = name;
        unimplemented!()
    }
}
