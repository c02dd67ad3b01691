//! Health checks: a task for each running container that has one, and for no other.
//!
//! The task waits, checks and hands what it found to the container's owner, which alone changes the container. A
//! check that hangs holds up its own task, and nobody else.

mod address;
pub mod check;
mod command;
mod http;
mod network;
mod output;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::owner::Owner;
use crate::container::Container;
use crate::container::health::{Health, HealthStatus, Probed, Tolerance};
use crate::container::state::{Running, State};
use crate::engine::Parts;
use crate::event::ContainerEvent;
use check::{Check, Test};
use network::Namespace;

/// Docker's code for a check that took too long.
const TIMED_OUT: i32 = -1;

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// 0 if all is well.
    code: i32,
    output: String,
}

/// A result, and whom to tell that it has been taken into account.
pub struct Told {
    probed: Probed,
    taken: oneshot::Sender<()>,
}

/// The task that checks a container. It ends when this is dropped.
pub struct Monitor {
    results: mpsc::Receiver<Told>,
    task: AbortHandle,
    tolerance: Tolerance,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The next result.
pub async fn next(monitor: &mut Option<Box<Monitor>>) -> Told {
    if let Some(told) = match monitor {
        Some(monitor) => monitor.results.recv().await,
        None => None,
    } {
        return told;
    }
    std::future::pending().await
}

impl Owner {
    /// Begins to check a container that has just started, or that goes on, if it has a check.
    pub(super) fn monitor(&mut self, running: &Running) {
        self.monitor = None;
        let container = &self.container;
        let Some(check) = Check::of(&container.definition.config).filter(|_| !running.paused) else { return };
        let started_at = running.started_at;
        let tolerance = Tolerance { retries: check.retries, start_period: check.start_period, started_at };
        let (sender, results) = mpsc::channel(1);
        let patrol = Patrol {
            parts: Arc::clone(&self.parts),
            container: Arc::clone(container),
            namespace: Namespace::of(running.pid).map_err(|error| error.to_string()),
            check,
            started_at,
        };
        let task = self.parts.owners.spawn(patrol.run(sender)).abort_handle();
        self.monitor = Some(Box::new(Monitor { results, task, tolerance }));
    }

    /// The health of a container that has just started.
    pub(super) fn fresh_health(&self) -> Option<Arc<Health>> {
        let before = self.container.kept().health;
        match Check::of(&self.container.definition.config) {
            Some(_) => Some(Arc::new(Health::anew(before.as_deref()))),
            None => before,
        }
    }

    /// Takes a result into account.
    pub(super) fn on_probe(&mut self, told: Told) {
        let Some(monitor) = &self.monitor else { return };
        let kept = self.container.kept();
        let before = kept.health.as_deref().cloned().unwrap_or_else(|| Health::anew(None));
        let after = before.after(told.probed, monitor.tolerance);
        let status = after.status;
        let health = Some(Arc::new(after));
        if status == before.status {
            // Single results are not worth a write each.
            self.container.set(crate::container::Kept { health, ..kept });
        } else {
            self.change_regardless(|kept| kept.health.clone_from(&health));
            self.tell(ContainerEvent::Health(status));
        }
        // The task may have been ended.
        let _ = told.taken.send(());
    }
}

/// What the task of a monitor works with.
struct Patrol {
    parts: Arc<Parts>,
    container: Arc<Container>,
    namespace: Result<Namespace, String>,
    check: Check,
    started_at: Timestamp,
}

impl Patrol {
    async fn run(self, results: mpsc::Sender<Told>) {
        loop {
            tokio::time::sleep(self.interval()).await;
            let start = Timestamp::now();
            let finding = self.probe().await;
            let probed = Probed { start, end: Timestamp::now(), code: finding.code, output: finding.output };
            let (taken, is_taken) = oneshot::channel();
            if results.send(Told { probed, taken }).await.is_err() {
                return;
            }
            // The owner decides how long the next wait is.
            let _ = is_taken.await;
        }
    }

    fn interval(&self) -> Duration {
        let age = Duration::try_from(Timestamp::now().duration_since(self.started_at)).unwrap_or_default();
        let starting = || match self.container.state() {
            State::Running(_) => {
                self.container.kept().health.is_some_and(|h| h.status == HealthStatus::Starting)
            }
            // It is about to be shown as running.
            _ => true,
        };
        if age < self.check.start_period && starting() {
            self.check.start_interval
        } else {
            self.check.interval
        }
    }

    async fn probe(&self) -> Finding {
        let Test::Command(command) = &self.check.test else {
            return match &self.namespace {
                Ok(namespace) => network::run(*namespace, &self.check).await,
                Err(error) => Finding { code: TIMED_OUT, output: error.clone() },
            };
        };
        let found = command::run(&self.parts, &self.container, command, self.check.timeout).await;
        found.unwrap_or_else(|error| {
            let container = self.container.id();
            tracing::warn!(container, %error, "a health check could not be made");
            Finding { code: TIMED_OUT, output: error.to_string() }
        })
    }
}
