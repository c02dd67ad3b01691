//! The end of a run: what is recorded, told, given back, and what follows.

use std::time::Duration;

use berth_shim::protocol::{EXIT, ExitStatus};
use jiff::Timestamp;
use tokio::time::Instant;

use super::owner::Owner;
use super::policy;
use super::stop::{After, Ending};
use crate::container::Kept;
use crate::container::state::{Exited, Running, State};
use crate::event::{ContainerEvent, NetworkEvent};
use crate::op;

/// Docker's code for a container whose end nobody saw.
const UNSEEN: i32 = 255;
/// The code of a container that was killed because its shim died.
const KILLED: i32 = 137;

/// How a run ended.
#[derive(Debug, Clone)]
pub struct End {
    code: i32,
    oom_killed: bool,
    error: String,
    at: Timestamp,
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> End {
        End {
            code: status.code,
            oom_killed: status.oom_killed,
            error: status.error.unwrap_or_default(),
            at: status.at,
        }
    }
}

impl End {
    /// The host was started anew.
    pub fn unseen() -> End {
        End { code: UNSEEN, oom_killed: false, error: String::new(), at: Timestamp::now() }
    }

    fn shim_lost() -> End {
        let error = "the container's shim died, and the container was killed".to_owned();
        End { code: KILLED, oom_killed: false, error, at: Timestamp::now() }
    }
}

impl Owner {
    /// The run has ended: records it, gives back what it held, shows and tells it, and does what is due then.
    pub(super) async fn on_exit(&mut self, end: End) {
        let State::Running(running) = self.container.state() else { return };
        self.monitor = None;
        let ending = self.ending.take();
        let delay = self.restart_delay(&running, &end, ending.as_ref());
        let kept = self.ended(&running, &end, ending.as_ref(), delay.is_some());
        // What it held may be another's before anybody learns of the end, but not before that is written.
        self.write_regardless(&kept);
        self.container.set_shim(None);
        let shim = self.shim.take();
        for exec in self.parts.execs.end_all(self.container.id(), KILLED) {
            self.tell(ContainerEvent::ExecDie { id: exec.id.clone(), code: KILLED });
        }
        // Before anybody learns of the end: the ports are free by then.
        self.give_back_network().await;
        self.tell_end(kept, &running, &end, delay.is_some());
        // The streams of attached clients end with this, and they may look at once.
        if let Some(shim) = shim
            // One that has gone has nothing more to remove.
            && let Err(error) = shim.recorded().await
        {
            tracing::debug!(container = self.container.id(), %error, "the shim was not told");
        }
        self.clear_run().await;
        self.restart_at = delay.map(|delay| Instant::now() + delay);
        let survivor = ending.as_ref().is_some_and(|ending| ending.survivor && ending.after.is_empty());
        self.follow_up(ending).await;
        if survivor {
            self.apply_policy_after_adoption();
        }
    }

    /// After which delay its policy starts it again.
    fn restart_delay(&mut self, running: &Running, end: &End, ending: Option<&Ending>) -> Option<Duration> {
        if ending.is_some() || self.parts.is_closing() {
            return None;
        }
        let kept = self.container.kept();
        let ended =
            policy::Ended { code: end.code, by_client: kept.stopped_by_client, restarts: kept.restarts };
        let again = policy::restarts(&self.container.restart_policy(), ended);
        again.then(|| self.back_off.next(ran(running, end)))
    }

    /// What is kept of it from now on.
    fn ended(&self, running: &Running, end: &End, ending: Option<&Ending>, again: bool) -> Kept {
        let exited = Exited {
            code: end.code,
            oom_killed: end.oom_killed || running.oom_killed,
            error: end.error.clone(),
            started_at: Some(running.started_at),
            finished_at: end.at,
        };
        let mut kept = self.container.kept();
        kept.unchecked();
        kept.restarts = kept.restarts.saturating_add(u32::from(again));
        kept.stopped_by_client |= ending.is_some_and(|ending| ending.by_client);
        kept.state = if again { State::Restarting(exited) } else { State::Exited(exited) };
        kept
    }

    fn tell_end(&self, kept: Kept, running: &Running, end: &End, again: bool) {
        // Where the kernel did not announce it: of the whole system's memory, or just before the end.
        if end.oom_killed && !self.lack_told {
            self.tell(ContainerEvent::Oom);
        }
        self.tell_networks(NetworkEvent::Disconnect);
        self.tell_unmounts();
        self.show(kept, ContainerEvent::Die { code: end.code, ran: ran(running, end) });
        self.container.live(|life| {
            life.up = again;
            life.exits += 1;
            life.code = end.code;
            life.error.clone_from(&end.error);
        });
    }

    /// Answers those who wanted the end, and goes on as they wished.
    async fn follow_up(&mut self, ending: Option<Ending>) {
        let (mut restarts, mut removals) = (Vec::new(), Vec::new());
        for after in ending.map(|ending| ending.after).unwrap_or_default() {
            match after {
                After::Stopped(answer) => {
                    self.tell(ContainerEvent::Stop);
                    super::owner::reply(answer, Ok(()));
                }
                After::Killed(answer) => super::owner::reply(answer, Ok(())),
                After::Restart(answer) => restarts.push(answer),
                After::Removed(remove, answer) => removals.push((remove, answer)),
            }
        }
        if let Some((first, _)) = removals.first() {
            let remove = op::Remove { volumes: removals.iter().any(|(r, _)| r.volumes), ..*first };
            let mut outcome = self.delete(remove).await;
            for answer in removals.into_iter().map(|(_, answer)| answer).chain(restarts) {
                super::owner::reply(answer, std::mem::replace(&mut outcome, Err(self.container.gone())));
            }
            return;
        }
        if !restarts.is_empty() {
            return self.finish_restart(restarts).await;
        }
        let auto_remove = self.container.definition.host.auto_remove;
        if auto_remove && self.restart_at.is_none() {
            self.auto_remove().await;
        }
    }

    /// The shim has gone without a word.
    pub(super) async fn on_shim_lost(&mut self) {
        self.shim = None;
        let end = self.exit_file().unwrap_or_else(End::shim_lost);
        if let Ok(cgroup) = self.cgroup() {
            let killed = crate::blocking::blocking(move || Ok(cgroup.kill()?)).await;
            if let Err(error) = killed {
                tracing::warn!(container = self.container.id(), %error, "the rest of the container was not killed");
            }
        }
        self.on_exit(end).await;
    }

    /// What a shim wrote down before it went.
    pub(super) fn exit_file(&self) -> Option<End> {
        let path = self.parts.exec_dir(self.container.id()).join(EXIT);
        let status: ExitStatus = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        Some(status.into())
    }

    /// Its policy's delay has passed.
    pub(super) async fn restart_by_policy(&mut self) {
        self.restart_at = None;
        let restarts = self.container.kept().restarts;
        if let Err(error) = self.start(restarts).await {
            tracing::warn!(container = self.container.id(), %error, "the restart policy could not start it");
        }
    }
}

fn ran(running: &Running, end: &End) -> Duration {
    Duration::try_from(end.at.duration_since(running.started_at)).unwrap_or_default()
}
