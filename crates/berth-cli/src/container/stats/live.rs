//! The table that is redrawn as figures come.

use std::sync::Arc;
use std::time::Duration;

use berth_api::container::Stats;
use berth_api::event::Message;
use berth_api::filter::Filters;
use berth_client::{Client, Error, Lines, Query, segment};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::{View, list};
use crate::failure::{Failure, Outcome};
use crate::session::terminal;

/// Time between two drawings, as Docker's.
const FRAME: Duration = Duration::from_millis(500);
/// Samples and events on their way to the table.
const QUEUE: usize = 64;

/// What changes the table.
enum Change {
    /// A row's next sample.
    Sample(u64, Box<Stats>),
    /// A row's stream ended, perhaps with a failure.
    Ended(u64, Option<Error>),
    /// Something happened to a container.
    Event(Message),
    /// No further events come.
    NoEvents(Option<Error>),
}

/// A container in the table.
struct Row {
    number: u64,
    /// As the user, or the list, named it.
    container: String,
    last: Option<Stats>,
    reader: JoinHandle<()>,
}

impl Drop for Row {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The table.
struct Board {
    client: Arc<Client>,
    changes: mpsc::Sender<Change>,
    rows: Vec<Row>,
    next: u64,
}

/// Shows the containers named, or all, until there is nothing more to show or the user has seen enough.
pub async fn run(client: Client, names: Vec<String>, all: bool, view: &View) -> Outcome {
    let (sender, mut changes) = mpsc::channel(QUEUE);
    let mut board = Board { client: Arc::new(client), changes: sender, rows: Vec::new(), next: 0 };
    let every = names.is_empty();
    if every {
        // Events first: what begins between the two is seen twice rather than never.
        board.watch(all).await?;
        for id in list(&board.client, all).await? {
            board.add(id);
        }
    } else {
        names.into_iter().for_each(|name| board.add(name));
    }
    let mut screen = Screen::new();
    let mut frames = tokio::time::interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first frame is shown when there is something on it.
    frames.reset();
    loop {
        tokio::select! {
            change = changes.recv() => match change {
                Some(change) => board.apply(change, every)?,
                None => return Ok(()),
            },
            _ = frames.tick() => screen.draw(&board.show(view)?),
        }
        if !every && board.rows.is_empty() {
            return Ok(());
        }
    }
}

impl Board {
    /// Adds a container, and begins to read its figures.
    fn add(&mut self, container: String) {
        if self.rows.iter().any(|row| row.container == container) {
            return;
        }
        let number = self.next;
        self.next += 1;
        let (client, changes, name) = (Arc::clone(&self.client), self.changes.clone(), container.clone());
        let reader = tokio::spawn(async move {
            let error = read(&client, &name, number, &changes).await.err();
            // Without a table there is nobody to be told.
            let _ = changes.send(Change::Ended(number, error)).await;
        });
        self.rows.push(Row { number, container, last: None, reader });
    }

    fn remove(&mut self, id: &str) {
        self.rows.retain(|row| row.container != id);
    }

    /// Begins to listen to what comes and goes.
    async fn watch(&self, all: bool) -> Outcome {
        let (comes, goes) = if all { ("create", "destroy") } else { ("start", "die") };
        let mut filters = Filters::default();
        for (name, value) in [("type", "container"), ("event", comes), ("event", goes)] {
            filters.add(name, value);
        }
        let lines = self.client.get_stream(&Query::new().filters(&filters).on("/events")).await?.lines();
        let changes = self.changes.clone();
        tokio::spawn(async move {
            let error = forward(lines, &changes).await.err();
            let _ = changes.send(Change::NoEvents(error)).await;
        });
        Ok(())
    }

    fn apply(&mut self, change: Change, every: bool) -> Outcome {
        match change {
            Change::Sample(number, stats) => {
                if let Some(row) = self.rows.iter_mut().find(|row| row.number == number) {
                    row.last = Some(*stats);
                }
            }
            Change::Ended(number, error) => {
                self.rows.retain(|row| row.number != number);
                if let Some(error) = error.filter(|_| !every) {
                    return Err(error.into());
                }
            }
            Change::Event(event) => match event.action.as_str() {
                "create" | "start" => self.add(event.actor.id),
                _ => self.remove(&event.actor.id),
            },
            Change::NoEvents(Some(error)) => return Err(error.into()),
            Change::NoEvents(None) => return Err(Failure::new("the daemon has ended")),
        }
        Ok(())
    }

    fn show(&self, view: &View) -> Outcome<String> {
        let samples: Vec<_> =
            self.rows.iter().map(|row| (row.container.as_str(), row.last.as_ref())).collect();
        view.show(&samples)
    }
}

/// Reads one container's figures to their end.
async fn read(client: &Client, name: &str, number: u64, changes: &mpsc::Sender<Change>) -> Result<(), Error> {
    let path = Query::new().set("stream", "1").on(&format!("/containers/{}/stats", segment(name)));
    let mut lines = client.get_stream(&path).await?.lines();
    while let Some(line) = lines.next().await? {
        let stats = serde_json::from_slice(&line)
            .map_err(|source| Error::Decode { operation: format!("GET {path}"), source })?;
        if changes.send(Change::Sample(number, Box::new(stats))).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn forward(mut lines: Lines, changes: &mpsc::Sender<Change>) -> Result<(), Error> {
    while let Some(line) = lines.next().await? {
        let event = serde_json::from_slice(&line)
            .map_err(|source| Error::Decode { operation: "GET /events".to_owned(), source })?;
        if changes.send(Change::Event(event)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Where the table is drawn.
struct Screen {
    terminal: bool,
    /// Something is on it already.
    drawn: bool,
}

impl Screen {
    fn new() -> Screen {
        Screen { terminal: terminal::is_output(), drawn: false }
    }

    fn draw(&mut self, table: &str) {
        if !self.terminal {
            out!("{table}");
        } else {
            let rows = terminal::size().map(|(rows, _)| usize::from(rows)).filter(|rows| *rows > 1);
            out!("{}", frame(table, rows, !self.drawn));
        }
        // A reader that has gone is no failure; one that is there wants to see it now.
        let _ = std::io::Write::flush(&mut std::io::stdout());
        self.drawn = true;
    }
}

/// A table drawn over the one before: each line is cleared to its end, and all below the last. On a screen of so many
/// rows, what does not fit is left out, since the table would scroll otherwise.
fn frame(table: &str, rows: Option<usize>, first: bool) -> String {
    const HOME: &str = "\x1b[H";
    const CLEAR_LINE: &str = "\x1b[K";
    const CLEAR_BELOW: &str = "\x1b[J";
    let mut text = String::with_capacity(table.len() + 64);
    text.push_str(HOME);
    if first {
        text.push_str(CLEAR_BELOW);
    }
    for line in table.lines().take(rows.map_or(usize::MAX, |rows| rows - 1)) {
        text.extend([line, CLEAR_LINE, "\r\n"]);
    }
    text + CLEAR_BELOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_covers_the_one_before() {
        assert_eq!(frame("a\nb\n", None, true), "\x1b[H\x1b[Ja\x1b[K\r\nb\x1b[K\r\n\x1b[J");
        assert_eq!(frame("a\nb\nc\n", Some(3), false), "\x1b[Ha\x1b[K\r\nb\x1b[K\r\n\x1b[J");
    }
}
