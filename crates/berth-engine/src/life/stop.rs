//! Stop, restart and kill.

use std::time::Duration;

use berth_shim::protocol::Target;
use tokio::time::Instant;

use super::owner::{Answer, Owner, Request, StopRequest, ask, reply};
use crate::container::Container;
use crate::container::state::{Exited, State};
use crate::event::ContainerEvent;
use crate::{Engine, Error, op, signal};

/// How long the kernel has to end what was killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// An end that is under way.
pub struct Ending {
    /// When SIGKILL is due; once it was sent, when to give up.
    due: Option<Instant>,
    killed: bool,
    /// Whether a client asked for it.
    pub by_client: bool,
    /// It outlived another engine, and is ended for that: its policy applies then as when an engine opens.
    pub survivor: bool,
    /// What happens then.
    pub after: Vec<After>,
}

/// What happens after an end.
pub enum After {
    /// A client is told.
    Stopped(Answer),
    /// A client that killed it is told.
    Killed(Answer),
    /// It is started again.
    Restart(Answer),
    /// It is removed.
    Removed(op::Remove, Answer),
}

impl Ending {
    /// When something is due.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }
}

impl After {
    fn into_answer(self) -> Answer {
        match self {
            After::Stopped(answer)
            | After::Killed(answer)
            | After::Restart(answer)
            | After::Removed(_, answer) => answer,
        }
    }
}

impl Engine {
    /// Stops a container; `NotModified` if it does not run.
    pub async fn stop(&self, name: &str, op: op::Stop) -> Result<(), Error> {
        let container = self.parts.containers.find(name)?;
        let stop = self.stop_request(&container, &op, false)?;
        container.gate.hurry();
        ask(&container, |answer| Request::Stop(stop, answer)).await
    }

    /// Stops and starts a container.
    pub async fn restart(&self, name: &str, op: op::Stop) -> Result<(), Error> {
        let container = self.parts.containers.find(name)?;
        let stop = self.stop_request(&container, &op, true)?;
        container.gate.hurry();
        ask(&container, |answer| Request::Stop(stop, answer)).await
    }

    /// Sends a signal, SIGKILL unless another is named.
    pub async fn kill(&self, name: &str, signal: Option<&str>) -> Result<(), Error> {
        let number = signal.filter(|s| !s.is_empty()).map_or(Ok(signal::KILL), signal::parse)?;
        let container = self.parts.containers.find(name)?;
        container.gate.hurry();
        match ask(&container, |answer| Request::Kill(number, answer)).await {
            Err(error @ Error::NotRunning(_)) => {
                Err(Error::Conflict(format!("cannot kill container: {name}: {error}")))
            }
            other => other,
        }
    }
}

impl Engine {
    fn stop_request(
        &self,
        container: &Container,
        op: &op::Stop,
        restart: bool,
    ) -> Result<StopRequest, Error> {
        let signal = match op.signal.as_deref().filter(|s| !s.is_empty()) {
            Some(text) => signal::parse(text)?,
            None => stop_signal(container),
        };
        let default = self.settings().defaults.stop_timeout;
        let timeout = op.timeout.map_or_else(|| stop_timeout(container, default), op::stop_timeout);
        Ok(StopRequest { signal, timeout, restart, by_client: true })
    }
}

/// The container's own stop signal; it was checked when the container was created.
pub fn stop_signal(container: &Container) -> i32 {
    match container.definition.config.stop_signal.as_str() {
        "" => signal::TERM,
        text => signal::parse(text).unwrap_or(signal::TERM),
    }
}

/// How long the container has from the stop signal to SIGKILL: its own patience, or the daemon's `default`.
pub fn stop_timeout(container: &Container, default: Duration) -> Option<Duration> {
    match container.definition.config.stop_timeout {
        Some(seconds) => op::stop_timeout(seconds),
        None => Some(default),
    }
}

impl Owner {
    pub(super) async fn stop(&mut self, stop: StopRequest, answer: Answer) {
        match self.container.state() {
            State::Running(_) => {
                let after = if stop.restart { After::Restart(answer) } else { After::Stopped(answer) };
                self.end(stop, Some(after)).await;
            }
            State::Restarting(exited) => {
                self.give_up_restart(&exited, stop.by_client);
                if stop.restart {
                    self.finish_restart(vec![answer]).await;
                } else {
                    self.tell(ContainerEvent::Stop);
                    reply(answer, Ok(()));
                }
            }
            State::Removing => reply(answer, Err(self.container.gone())),
            State::Created { .. } | State::Starting { .. } | State::Exited(_) if stop.restart => {
                self.finish_restart(vec![answer]).await;
            }
            State::Created { .. } | State::Starting { .. } | State::Exited(_) => {
                reply(answer, Err(Error::NotModified("container is already stopped".into())));
            }
        }
    }

    /// Sends the first signal, and keeps in mind what is due later.
    pub(super) async fn end(&mut self, stop: StopRequest, after: Option<After>) {
        if let Err(error) = self.signal(stop.signal).await {
            // It may have ended just now, which its shim will tell.
            tracing::debug!(container = self.container.id(), %error, "the stop signal was not sent");
        }
        let killed = stop.signal == signal::KILL;
        let patience = if killed { Some(PATIENCE) } else { stop.timeout };
        let due = patience.map(|patience| Instant::now() + patience);
        let ending = self.ending.get_or_insert_with(|| Ending {
            due,
            killed,
            by_client: stop.by_client,
            survivor: false,
            after: Vec::new(),
        });
        ending.by_client |= stop.by_client;
        ending.after.extend(after);
        if killed && !ending.killed {
            ending.killed = true;
            ending.due = due;
        } else if !ending.killed {
            // Of several stops, the least patient one counts.
            ending.due = ending.due.into_iter().chain(due).min();
        }
    }

    /// The stop's patience is over.
    pub(super) async fn on_impatience(&mut self) {
        let Some(ending) = &mut self.ending else { return };
        if !ending.killed {
            ending.killed = true;
            ending.due = Some(Instant::now() + PATIENCE);
            if let Err(error) = self.signal(signal::KILL).await {
                tracing::debug!(container = self.container.id(), %error, "SIGKILL was not sent");
            }
            return;
        }
        let id = self.container.id();
        for after in self.ending.take().map(|ending| ending.after).unwrap_or_default() {
            let text = format!(
                "cannot stop container: {id}: tried to kill container, but did not receive an exit event"
            );
            reply(after.into_answer(), Err(Error::Unavailable(text)));
        }
    }

    /// Starts it again for those who asked for a restart.
    pub(super) async fn finish_restart(&mut self, answers: Vec<Answer>) {
        if self.container.state().last_exit().is_some() {
            self.tell(ContainerEvent::Stop);
        }
        let outcome = self.start_by_client().await;
        if outcome.is_ok() {
            self.tell(ContainerEvent::Restart);
        }
        let text = outcome.as_ref().err().map(ToString::to_string);
        let mut first = Some(outcome);
        for answer in answers {
            let outcome =
                first.take().unwrap_or_else(|| text.clone().map_or(Ok(()), |t| Err(Error::Conflict(t))));
            reply(answer, outcome);
        }
    }

    /// Its policy does not start it again after all.
    fn give_up_restart(&mut self, exited: &Exited, by_client: bool) {
        self.restart_at = None;
        self.change_regardless(|kept| {
            kept.state = State::Exited(exited.clone());
            kept.stopped_by_client |= by_client;
        });
        self.container.live(|life| life.up = false);
    }

    /// Sends a signal; SIGKILL is answered when the container has ended.
    pub(super) async fn kill(&mut self, number: i32, answer: Answer) {
        let ends = number == signal::KILL || number == stop_signal(&self.container);
        match self.container.state() {
            State::Running(_) if number == signal::KILL => {
                let kill = StopRequest { signal: number, timeout: None, restart: false, by_client: true };
                self.end(kill, Some(After::Killed(answer))).await;
            }
            State::Restarting(exited) if ends => {
                self.give_up_restart(&exited, true);
                reply(answer, Ok(()));
            }
            _ => {
                let outcome = self.send(number).await;
                reply(answer, outcome);
            }
        }
    }

    async fn send(&mut self, number: i32) -> Result<(), Error> {
        self.require_running()?;
        if number == signal::KILL || number == stop_signal(&self.container) {
            // A client wants its end: no policy starts it again.
            self.change_regardless(|kept| kept.stopped_by_client = true);
        }
        self.signal(number).await
    }

    /// Sends a signal to init. A frozen container gets what ends it only once it goes on.
    pub(super) async fn signal(&mut self, number: i32) -> Result<(), Error> {
        let Some(client) = self.container.shim() else {
            return Err(Error::NotRunning(self.container.id().to_owned()));
        };
        self.wait_for_handler(number).await;
        client.kill(Target::Init, number).await?;
        self.tell(ContainerEvent::Kill { signal: number });
        let ends = number == signal::KILL || number == stop_signal(&self.container);
        if ends && self.container.state().running().is_some_and(|running| running.paused) {
            self.thaw().await?;
        }
        Ok(())
    }
}
