//! `monitor`: all containers on the whole screen, as they change.

mod board;
mod draw;
mod feed;
mod keys;
mod screen;

use std::time::Duration;

use clap::{ArgMatches, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use board::{Board, Mode, Wish};
use feed::{Change, Feed};
use screen::Screen;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::session::{colour, signals, streams, terminal};

/// Time between two frames when nothing is typed.
const FRAME: Duration = Duration::from_secs(1);
/// Changes that wait to be seen.
const QUEUE: usize = 256;
/// Frames between two lists when nothing happens: ages and states in words grow old.
const LIST: u32 = 5;
/// Rows and columns of a terminal that does not say.
const SIZE: (u16, u16) = (24, 80);

/// The command.
pub fn command() -> Command {
    Command::new("monitor").about(
        "Shows all containers and what they use on the whole screen; keys stop, restart, kill and pause them",
    )
}

/// Runs it.
pub async fn run(context: &Context, _: &ArgMatches) -> Outcome {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if !terminal::is_input() || !terminal::is_output() || dumb {
        return Err(Failure::new(format!(
            "{0} monitor needs a terminal that can move its cursor: use '{0} stats' or '{0} ps' instead",
            context.program
        )));
    }
    let client = context.client().await?;
    let (sender, mut changes) = mpsc::channel(QUEUE);
    let mut monitor =
        Monitor { feed: Some(Feed::new(client, sender.clone())), board: Board::new(), stale: 0, busy: true };
    let failed = |error: std::io::Error| Failure::io("setting the terminal up", &error);
    let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
    // The signals are caught before the terminal is changed, so that none leaves it as it is then.
    let ending = signals::ending();
    tokio::pin!(ending);
    let mut typed = streams::read_stdin();
    let screen = Screen::enter().map_err(failed)?;
    let mut frames = tokio::time::interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let redraw = tokio::select! {
            biased;
            code = &mut ending => {
                drop(screen);
                return Err(Failure::silent(code));
            }
            bytes = typed.recv() => match bytes {
                Some(bytes) if monitor.type_in(&bytes) => true,
                _ => return Ok(()),
            },
            _ = resized.recv() => true,
            _ = frames.tick() => {
                if monitor.feed.is_none() && let Ok(client) = context.existing().await {
                    monitor.board.notice = "connected again".to_owned();
                    monitor.feed = Some(Feed::new(client, sender.clone()));
                }
                monitor.tick();
                true
            }
            Some(change) = changes.recv() => monitor.take(change),
        };
        if redraw && monitor.draw(&screen).is_err() {
            // The terminal has gone.
            return Ok(());
        }
    }
}

struct Monitor {
    /// None while the daemon does not answer.
    feed: Option<Feed>,
    board: Board,
    /// Frames since the last list.
    stale: u32,
    /// A list is on its way.
    busy: bool,
}

impl Monitor {
    fn draw(&self, screen: &Screen) -> std::io::Result<()> {
        let (rows, columns) = terminal::size().unwrap_or(SIZE);
        screen.show(&draw::screen(&self.board, rows.into(), columns.into(), colour::wanted()))
    }

    /// Does what keys mean; false to end.
    fn type_in(&mut self, bytes: &[u8]) -> bool {
        for key in keys::read(bytes) {
            match (self.board.press(key), &mut self.feed) {
                (Some(Wish::Quit), _) => return false,
                (Some(Wish::Do(action, id)), Some(feed)) => {
                    let name = self.board.find(&id).map_or("", Board::name).to_owned();
                    self.board.notice = format!("{} {name}...", action.name());
                    feed.act(action, &id, &name);
                }
                (Some(Wish::Look(id)), Some(feed)) => feed.look(&id),
                _ => {}
            }
        }
        true
    }

    fn tick(&mut self) {
        let Some(feed) = &mut self.feed else { return };
        if let Mode::Details(id) = &self.board.mode {
            feed.look(id);
        }
        self.stale += 1;
        if self.stale >= LIST && !self.busy {
            self.refresh();
        }
    }

    fn refresh(&mut self) {
        self.stale = 0;
        if let Some(feed) = &mut self.feed {
            self.busy = true;
            feed.refresh();
        }
    }

    /// Takes what became known; whether it is to be seen at once.
    fn take(&mut self, change: Change) -> bool {
        match change {
            Change::List(containers) => {
                self.busy = false;
                self.board.list(containers);
                if let Some(feed) = &mut self.feed {
                    feed.follow(&self.board);
                }
            }
            Change::Figures(id, figures) => {
                self.board.figures.insert(id, figures);
                return false;
            }
            Change::Happened => {
                // One list tells of all that happened until it was made; those after it need another.
                if self.busy {
                    self.stale = LIST
                } else {
                    self.refresh()
                }
                return false;
            }
            Change::Details(id, details) => {
                if self.board.mode == Mode::Details(id) {
                    self.board.details = details;
                }
            }
            Change::Notice(text) => self.board.notice = text,
            Change::Lost => {
                self.feed = None;
                self.busy = false;
                self.board.figures.clear();
                self.board.notice = "the daemon does not answer; trying again".to_owned();
            }
        }
        true
    }
}
