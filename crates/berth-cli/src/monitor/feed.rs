//! What the daemon tells: lists, events, figures, processes and logs.

use std::collections::HashMap;
use std::sync::Arc;

use berth_api::container::{Stats, Summary, TopResponse};
use berth_api::filter::Filters;
use berth_api::stream::{Decoder, MULTIPLEXED_STREAM};
use berth_client::{Client, Error, Query, segment};
use bytes::Bytes;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

use super::board::{Action, Board, Details, is_running};
use crate::container::Figures;

/// Most containers whose figures are followed at once: each is a connection.
const FOLLOWED: usize = 512;
/// Lines of a log that are asked for.
const LINES: usize = 100;
/// Most bytes of a log that are kept.
const LOG: usize = 64 << 10;

/// What has become known.
pub enum Change {
    /// All containers.
    List(Vec<Summary>),
    /// A container's figures.
    Figures(String, Figures),
    /// Something happened: the list is old.
    Happened,
    /// Processes and log of a container.
    Details(String, Details),
    /// What is to be told.
    Notice(String),
    /// The daemon does not answer any more.
    Lost,
}

/// Tasks that ask the daemon. Dropping it ends them.
pub struct Feed {
    client: Arc<Client>,
    changes: Sender<Change>,
    tasks: Vec<JoinHandle<()>>,
    readers: HashMap<String, JoinHandle<()>>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.tasks.iter().chain(self.readers.values()).for_each(JoinHandle::abort);
    }
}

impl Feed {
    /// Begins to listen.
    pub fn new(client: Client, changes: Sender<Change>) -> Self {
        let mut feed = Self { client: Arc::new(client), changes, tasks: Vec::new(), readers: HashMap::new() };
        let (client, changes) = (Arc::clone(&feed.client), feed.changes.clone());
        feed.spawn(async move {
            // However it ends, there is nothing more to be heard.
            let _ = listen(&client, &changes).await;
            let _ = changes.send(Change::Lost).await;
        });
        feed.refresh();
        feed
    }

    fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.retain(|task| !task.is_finished());
        self.tasks.push(tokio::spawn(work));
    }

    /// Asks for the list.
    pub fn refresh(&mut self) {
        let (client, changes) = (Arc::clone(&self.client), self.changes.clone());
        self.spawn(async move {
            let change = match client.get(&Query::new().flag("all", true).on("/containers/json")).await {
                Ok(list) => Change::List(list),
                Err(_) => Change::Lost,
            };
            let _ = changes.send(change).await;
        });
    }

    /// Follows the figures of the containers that run.
    pub fn follow(&mut self, board: &Board) {
        self.readers.retain(|id, reader| {
            let runs = board.find(id).is_some_and(is_running);
            if !runs {
                reader.abort();
            }
            runs && !reader.is_finished()
        });
        for container in board.containers.iter().filter(|container| is_running(container)) {
            if self.readers.len() >= FOLLOWED {
                break;
            }
            let id = container.id.clone();
            let (client, changes) = (Arc::clone(&self.client), self.changes.clone());
            self.readers.entry(id.clone()).or_insert_with(|| {
                tokio::spawn(async move {
                    // A container that has ended has no figures, and the list will tell.
                    let _ = figures(&client, &id, &changes).await;
                })
            });
        }
    }

    /// Asks for processes and log of a container.
    pub fn look(&mut self, id: &str) {
        let (client, changes, id) = (Arc::clone(&self.client), self.changes.clone(), id.to_owned());
        self.spawn(async move {
            let processes = match processes(&client, &id).await {
                Ok(rows) => rows,
                Err(error) => vec![error.to_string()],
            };
            let log = match log(&client, &id).await {
                Ok(lines) => lines,
                Err(error) => vec![error.to_string()],
            };
            let _ = changes.send(Change::Details(id, Details { processes, log })).await;
        });
    }

    /// Does something to a container.
    pub fn act(&mut self, action: Action, id: &str, name: &str) {
        let (client, changes) = (Arc::clone(&self.client), self.changes.clone());
        let path = format!("/containers/{}/{}", segment(id), action.name());
        let told = format!("{} {name}: ", action.name());
        self.spawn(async move {
            let outcome = match client.post_empty(&path).await {
                Ok(_) => "done".to_owned(),
                Err(error) => error.to_string(),
            };
            let _ = changes.send(Change::Notice(told + &outcome)).await;
        });
    }
}

async fn listen(client: &Client, changes: &Sender<Change>) -> Result<(), Error> {
    let mut filters = Filters::default();
    filters.add("type", "container");
    let mut lines = client.get_stream(&Query::new().filters(&filters).on("/events")).await?.lines();
    while let Some(line) = lines.next().await? {
        // What happens in containers all the time changes nothing in the list.
        let quiet = [&b"\"exec_"[..], b"\"top\""]
            .iter()
            .any(|word| line.windows(word.len()).any(|part| part == *word));
        if !quiet && changes.send(Change::Happened).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn figures(client: &Client, id: &str, changes: &Sender<Change>) -> Result<(), Error> {
    let path = Query::new().set("stream", "1").on(&format!("/containers/{}/stats", segment(id)));
    let mut lines = client.get_stream(&path).await?.lines();
    while let Some(line) = lines.next().await? {
        let stats: Stats = serde_json::from_slice(&line)
            .map_err(|source| Error::Decode { operation: format!("GET {path}"), source })?;
        if changes.send(Change::Figures(id.to_owned(), Figures::of(&stats))).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn processes(client: &Client, id: &str) -> Result<Vec<String>, Error> {
    let path = Query::new().set("ps_args", "-o pid,user,pcpu,rss,time,args");
    let found: TopResponse = client.get(&path.on(&format!("/containers/{}/top", segment(id)))).await?;
    Ok([&found.titles].into_iter().chain(&found.processes).map(|row| row.join("\t")).collect())
}

/// The last lines of a log.
async fn log(client: &Client, id: &str) -> Result<Vec<String>, Error> {
    let path = Query::new().flag("stdout", true).flag("stderr", true).set("tail", &LINES.to_string());
    let mut body = client.get_stream(&path.on(&format!("/containers/{}/logs", segment(id)))).await?;
    let mut decoder = (body.content_type() == MULTIPLEXED_STREAM).then(Decoder::new);
    let mut text = Vec::new();
    while let Some(mut chunk) = body.chunk().await? {
        take(&mut decoder, &mut chunk, &mut text);
        let surplus = text.len().saturating_sub(LOG);
        text.drain(..surplus);
    }
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().map(without_sequences).collect())
}

fn take(decoder: &mut Option<Decoder>, chunk: &mut Bytes, text: &mut Vec<u8>) {
    match decoder {
        None => text.extend_from_slice(chunk),
        Some(decoder) => {
            while let Ok(Some(part)) = decoder.next(chunk) {
                text.extend_from_slice(&part.data);
            }
        }
    }
}

/// A line without the sequences by which programs colour what they write, and with spaces for tabs.
fn without_sequences(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\x1b' => {
                if letters.as_str().starts_with('[') {
                    letters.next();
                    // Up to the letter that ends the sequence.
                    letters.by_ref().find(|letter| ('\x40'..='\x7e').contains(letter));
                }
            }
            '\t' => out.push_str("    "),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_of_others_are_left_out() {
        assert_eq!(without_sequences("\x1b[1;31mred\x1b[0m\tx"), "red    x");
        assert_eq!(without_sequences("\x1b[31"), "");
        assert_eq!(without_sequences("\x1b"), "");
    }
}
