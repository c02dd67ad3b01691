//! What a container uses, as clients ask for it.
//!
//! Each client has a stream of its own that takes a sample when the client is ready for one, and at most one each
//! second. Nothing is measured while nobody asks, and a client that does not read delays nobody.

use std::sync::Arc;
use std::time::Duration;

use berth_api::container::{CpuStats, Stats};
use berth_api::time::Time;
use tokio::time::Instant;

use super::sample;
use crate::blocking::blocking;
use crate::container::Container;
use crate::container::state::State;
use crate::engine::Parts;
use crate::{Engine, Error};

/// Least time between two samples of one client, as Docker's.
const INTERVAL: Duration = Duration::from_secs(1);

/// A container's figures, as one client reads them.
pub struct StatsStream {
    parts: Arc<Parts>,
    container: Arc<Container>,
    /// What the last sample said, for the next one.
    previous: Option<(Time, CpuStats)>,
    /// When the next sample may be taken.
    due: Option<Instant>,
}

impl StatsStream {
    /// The next sample. The first comes at once, later ones a second after each other. A container that does not
    /// run has empty ones. Ends when the container is removed or the engine ends.
    pub async fn next(&mut self) -> Option<Stats> {
        if !self.wait_until_due().await {
            return None;
        }
        let mut stats = self.sample().await.unwrap_or_else(|error| {
            tracing::warn!(container = self.container.id(), %error, "its figures could not be read");
            self.empty()
        });
        self.due = Some(Instant::now() + INTERVAL);
        let now = (stats.read, stats.cpu_stats.clone());
        if let Some((read, cpu)) = self.previous.replace(now) {
            (stats.preread, stats.precpu_stats) = (read, cpu);
        }
        Some(stats)
    }

    /// One sample with another a second before; of a container that does not run, an empty one at once. None if it
    /// is removed meanwhile.
    pub async fn with_previous(&mut self) -> Result<Option<Stats>, Error> {
        if !matches!(self.container.state(), State::Running(_)) {
            return Ok(Some(self.empty()));
        }
        let first = self.sample().await?;
        self.previous = Some((first.read, first.cpu_stats));
        self.due = Some(Instant::now() + INTERVAL);
        Ok(self.next().await)
    }

    /// One sample, at once; empty for a container that does not run.
    pub async fn once(&mut self) -> Result<Stats, Error> {
        self.sample().await
    }

    /// Waits; false if there will be no further sample.
    async fn wait_until_due(&self) -> bool {
        let mut life = self.container.life();
        if life.borrow().removed {
            return false;
        }
        let Some(due) = self.due else { return true };
        tokio::select! {
            biased;
            () = self.parts.ending.cancelled() => false,
            // The sender is this container's own: it is there.
            _ = life.wait_for(|life| life.removed) => false,
            () = tokio::time::sleep_until(due) => true,
        }
    }

    async fn sample(&self) -> Result<Stats, Error> {
        let State::Running(running) = self.container.state() else { return Ok(self.empty()) };
        let cgroup = self.parts.cgroup(&self.container)?;
        let networked = !self.container.definition.config.network_disabled;
        let taken = blocking(move || sample::take(&cgroup, networked.then_some(running.pid))).await;
        match taken {
            Ok(stats) => Ok(Stats { id: self.container.id().to_owned(), name: self.name(), ..stats }),
            // It ended meanwhile.
            Err(Error::Cgroup(berth_runtime::cgroup::Error::NotFound(_))) => Ok(self.empty()),
            Err(error) => Err(error),
        }
    }

    /// The figures of a container that does not run.
    fn empty(&self) -> Stats {
        Stats {
            id: self.container.id().to_owned(),
            name: self.name(),
            os_type: sample::OS_TYPE.into(),
            ..Stats::default()
        }
    }

    fn name(&self) -> String {
        format!("/{}", self.container.name())
    }
}

impl Engine {
    /// A container's figures. Nothing is measured before they are read.
    pub fn stats(&self, name: &str) -> Result<StatsStream, Error> {
        let container = self.parts.containers.find(name)?;
        Ok(StatsStream { parts: Arc::clone(&self.parts), container, previous: None, due: None })
    }
}
