//! Pause and unpause.

use super::owner::{Owner, Request, ask};
use crate::blocking::blocking;
use crate::container::state::State;
use crate::event::ContainerEvent;
use crate::{Engine, Error};

impl Engine {
    /// Freezes all processes of a container.
    pub async fn pause(&self, name: &str) -> Result<(), Error> {
        let container = self.parts.containers.find(name)?;
        ask(&container, Request::Pause).await
    }

    /// Lets them go on.
    pub async fn unpause(&self, name: &str) -> Result<(), Error> {
        let container = self.parts.containers.find(name)?;
        ask(&container, Request::Unpause).await
    }
}

impl Owner {
    fn paused(&self) -> bool {
        self.container.state().running().is_some_and(|running| running.paused)
    }

    pub(super) async fn pause(&mut self) -> Result<(), Error> {
        self.require_running()?;
        if self.paused() {
            return Err(Error::Paused(format!("container {} is already paused", self.container.id())));
        }
        let cgroup = self.cgroup()?;
        let frozen = blocking(move || {
            cgroup.freeze().map_err(|error| {
                // Half frozen is worse than not at all; that this fails too is told by the first error.
                let _ = cgroup.thaw();
                error.into()
            })
        });
        frozen.await?;
        self.monitor = None;
        self.set_paused(true);
        self.tell(ContainerEvent::Pause);
        Ok(())
    }

    pub(super) async fn unpause(&mut self) -> Result<(), Error> {
        if !self.paused() {
            return Err(Error::Conflict(format!("Container {} is not paused", self.container.id())));
        }
        self.thaw().await?;
        self.tell(ContainerEvent::Unpause);
        Ok(())
    }

    /// Lets a frozen container go on.
    pub(super) async fn thaw(&mut self) -> Result<(), Error> {
        let cgroup = self.cgroup()?;
        blocking(move || Ok(cgroup.thaw()?)).await?;
        self.set_paused(false);
        if let State::Running(running) = self.container.state() {
            self.monitor(&running);
        }
        Ok(())
    }

    fn set_paused(&self, paused: bool) {
        self.change_regardless(|kept| {
            if let State::Running(running) = &mut kept.state {
                running.paused = paused;
            }
            if paused {
                kept.unchecked();
            }
        });
    }
}
