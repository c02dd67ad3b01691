//! Waiting for a container.

use std::sync::Arc;

use berth_api::container::{WaitError, WaitResponse};
use tokio::sync::watch;

use crate::container::{Container, Life};
use crate::op::WaitCondition;
use crate::{Engine, Error};

/// A wait that is registered: exits from now on count.
pub struct Waiting {
    container: Arc<Container>,
    condition: WaitCondition,
    seen: u64,
    life: watch::Receiver<Life>,
}

impl Waiting {
    /// Resolves when the condition holds.
    pub async fn finish(mut self) -> Result<WaitResponse, Error> {
        let (condition, seen) = (self.condition, self.seen);
        let life = self.life.wait_for(|life| holds(condition, seen, life)).await;
        let life = life.map_err(|_| self.container.gone())?;
        let error = Some(&life.error).filter(|error| !error.is_empty());
        Ok(WaitResponse {
            status_code: i64::from(life.code),
            error: error.map(|message| WaitError { message: message.clone() }),
        })
    }
}

fn holds(condition: WaitCondition, seen: u64, life: &Life) -> bool {
    let exited = life.exits > seen || life.removed;
    match condition {
        WaitCondition::NotRunning => !life.up || exited,
        WaitCondition::NextExit => exited,
        WaitCondition::Removed => life.removed,
    }
}

impl Engine {
    /// Registers a wait; send the answer's head, then [`Waiting::finish`].
    #[expect(clippy::unused_async, reason = "one of the operations, which are async")]
    pub async fn wait(&self, name: &str, condition: WaitCondition) -> Result<Waiting, Error> {
        let container = self.parts.containers.find(name)?;
        let life = container.life();
        let seen = life.borrow().exits;
        Ok(Waiting { container, condition, seen, life })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_dockers() {
        use WaitCondition::{NextExit, NotRunning, Removed};
        let life = |up, exits, removed| Life { up, exits, removed, ..Life::default() };
        for (condition, life, expected) in [
            (NotRunning, life(false, 1, false), true),
            (NotRunning, life(true, 1, false), false),
            // It ended, and its policy starts it again.
            (NotRunning, life(true, 2, false), true),
            (NextExit, life(false, 1, false), false),
            (NextExit, life(true, 2, false), true),
            (NextExit, life(false, 1, true), true),
            (Removed, life(false, 2, false), false),
            (Removed, life(false, 2, true), true),
        ] {
            assert_eq!(holds(condition, 1, &life), expected, "{condition:?} {life:?}");
        }
    }
}
