//! Files of another end, as far as they are not known.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;

use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendError;

use crate::descriptors::{Invitation, Taken, Taking};
use crate::protocol::fsutil::types::Packet;
use crate::tree::{Incoming, Sum, Tree};
use crate::{Entry, Error, Message};

/// Files that are asked for and did not come yet. They may all be open.
const ASKED: usize = 128;
/// Room that the requests need, so that asking never waits for the other end: it may be waiting for this one.
pub(crate) const REQUESTS: usize = ASKED + 2;
/// The most files of a tree.
const MOST: usize = 2_000_000;
/// The most bytes of what is told of them.
const MOST_TOLD: usize = 256 << 20;
/// Bytes written between two looks at the room that is left.
const BETWEEN: u64 = 32 << 20;

/// What came of it.
#[derive(Debug, Default)]
pub struct Received {
    /// What the tree holds now, in order.
    pub entries: Vec<Entry>,
    /// Files that were sent.
    pub sent: usize,
    /// Whether anything is not as it was.
    pub changed: bool,
    /// Bytes of all packets.
    pub moved: u64,
}

/// Bounds of what is received.
pub struct Bounds<'a> {
    /// The most files.
    pub files: usize,
    /// The most bytes of what is told of them.
    pub told: usize,
    /// Fails if there is no room for more.
    pub room: &'a mut (dyn FnMut() -> Result<(), Error> + Send),
}

/// Is told the digests of those files that were looked at while they were written.
pub type Learned<'a> = &'a mut (dyn FnMut(&File, Sum) + Send);

impl<'a> Bounds<'a> {
    /// The usual ones.
    pub fn new(room: &'a mut (dyn FnMut() -> Result<(), Error> + Send)) -> Self {
        Self { files: MOST, told: MOST_TOLD, room }
    }
}

/// Makes `tree` what the other end tells. Blocks the thread while files are written. `outgoing` has room for [`REQUESTS`].
/// Files are taken open where the other end invites to that.
///
/// # Errors
/// The other end fails, goes away or does what the protocol does not allow; files cannot be written. The tree is then
/// good for nothing.
pub(crate) async fn receive<S>(
    incoming: S,
    outgoing: &Sender<Packet>,
    invitation: Option<Invitation>,
    tree: Tree,
    bounds: Bounds<'_>,
    learned: Learned<'_>,
) -> Result<Received, Error>
where
    S: Stream<Item = Result<Packet, Error>>,
{
    let taking = match invitation {
        Some(invitation) => tokio::task::spawn_blocking(move || Taking::begin(&invitation, ASKED)).await,
        None => Ok(None),
    };
    let mut receiver = Receiver {
        tree,
        bounds,
        learned,
        // Without it they travel.
        taking: taking.ok().flatten(),
        told: 0,
        ended: false,
        wanted: VecDeque::new(),
        asked: HashSet::new(),
        open: HashMap::new(),
        unchecked: 0,
        received: Received::default(),
    };
    let outcome = receiver.all(incoming, outgoing).await;
    match outcome {
        Ok(()) => {
            let mut received = receiver.received;
            received.changed = receiver.tree.has_changed();
            received.entries = receiver.tree.finish()?;
            Ok(received)
        }
        Err(error) => {
            // The other end learns why, if it listens.
            let _ = outgoing.try_send(Message::Failed(error.to_string()).packet());
            Err(error)
        }
    }
}

struct Receiver<'a, 'b> {
    tree: Tree,
    bounds: Bounds<'a>,
    learned: Learned<'b>,
    /// What writes files that are handed over; none where they all travel.
    taking: Option<Taking>,
    /// Bytes of what was told of files.
    told: usize,
    /// All files were told.
    ended: bool,
    /// Numbers of files to be asked for.
    wanted: VecDeque<u32>,
    /// Those that were asked for, and have not begun to come.
    asked: HashSet<u32>,
    /// Those that have begun.
    open: HashMap<u32, Incoming>,
    /// Bytes written since the room was looked at.
    unchecked: u64,
    received: Received,
}

impl Receiver<'_, '_> {
    async fn all<S>(&mut self, incoming: S, outgoing: &Sender<Packet>) -> Result<(), Error>
    where
        S: Stream<Item = Result<Packet, Error>>,
    {
        let mut incoming = std::pin::pin!(incoming);
        let mut finished = false;
        loop {
            tokio::select! {
                packet = incoming.next() => {
                    let Some(packet) = packet else {
                        return Err(Error::Call("the client of the build went away before all files had come".into()));
                    };
                    let packet = packet?;
                    let length = packet.encoded_len();
                    self.received.moved += length as u64;
                    match Message::of(packet)? {
                        Message::Failed(text) => return Err(Error::Told(text)),
                        Message::Finished if finished => return Ok(()),
                        message => self.take(message, length)?,
                    }
                }
                taken = taken(&mut self.taking) => {
                    if let Some(number) = self.taken(taken)? {
                        request(outgoing, number).await?;
                    }
                }
            }
            self.ask(outgoing).await?;
            if self.is_whole() && !finished {
                finished = true;
                outgoing.send(Message::Finished.packet()).await.map_err(gone)?;
            }
        }
    }

    /// Files that were asked for and are not there.
    fn under_way(&self) -> usize {
        self.asked.len() + self.open.len() + self.taking.as_ref().map_or(0, Taking::under_way)
    }

    fn is_whole(&self) -> bool {
        self.ended && self.wanted.is_empty() && self.under_way() == 0
    }

    /// Asks for as many of the files that are wanted as may be under way.
    async fn ask(&mut self, outgoing: &Sender<Packet>) -> Result<(), Error> {
        while self.under_way() < ASKED
            && let Some(number) = self.wanted.pop_front()
        {
            let Some(taking) = &mut self.taking else {
                self.asked.insert(number);
                request(outgoing, number).await?;
                continue;
            };
            if let Err(incoming) = taking.want(self.tree.open(number as usize)?) {
                self.open.insert(number, incoming);
                request(outgoing, number).await?;
            }
        }
        Ok(())
    }

    /// What came of a file that was to be handed over. Gives its number if it is to be asked for.
    fn taken(&mut self, taken: Taken) -> Result<Option<u32>, Error> {
        match taken {
            Taken::Failed(error) => return Err(error),
            Taken::Part(bytes) => self.written(bytes)?,
            Taken::Whole(incoming) => {
                self.received.sent += 1;
                self.received.moved += incoming.length();
                self.written(incoming.length())?;
                self.close(incoming)?;
            }
            Taken::Absent(incoming) => {
                let number =
                    u32::try_from(incoming.number()).map_err(|_| Error::refused("too many files"))?;
                self.received.sent += 1;
                self.open.insert(number, incoming);
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    fn close(&mut self, incoming: Incoming) -> Result<(), Error> {
        if let Some((file, sum)) = self.tree.close(incoming)? {
            (self.learned)(&file, sum);
        }
        Ok(())
    }

    /// Looks at the room that is left now and then.
    fn written(&mut self, bytes: u64) -> Result<(), Error> {
        self.unchecked += bytes;
        if self.unchecked >= BETWEEN {
            self.unchecked = 0;
            (self.bounds.room)()?;
        }
        Ok(())
    }

    fn take(&mut self, message: Message, length: usize) -> Result<(), Error> {
        match message {
            Message::Entry(entry) if !self.ended => self.entry(*entry, length),
            Message::End if !self.ended => {
                self.ended = true;
                self.tree.end()
            }
            Message::Data(number, data) => self.data(number, &data),
            other => Err(Error::refused(format!("{} out of turn", kind(&other)))),
        }
    }

    fn entry(&mut self, entry: Entry, length: usize) -> Result<(), Error> {
        self.told += length;
        let number = self.tree.count();
        if number >= self.bounds.files || self.told > self.bounds.told {
            return Err(Error::refused(format!("more than {number} files")));
        }
        let is_empty = entry.size == 0;
        let wanted = self.tree.entry(entry)?;
        if wanted && is_empty {
            // Nothing has to be asked for where there is nothing.
            let made = self.tree.open(number)?;
            return self.close(made);
        }
        if wanted {
            let number = u32::try_from(number).map_err(|_| Error::refused("too many files"))?;
            self.wanted.push_back(number);
        }
        Ok(())
    }

    fn data(&mut self, number: u32, data: &[u8]) -> Result<(), Error> {
        if self.asked.remove(&number) {
            self.received.sent += 1;
            self.open.insert(number, self.tree.open(number as usize)?);
        }
        let unasked = || Error::refused(format!("content of file {number}, which was not asked for"));
        if data.is_empty() {
            let incoming = self.open.remove(&number).ok_or_else(unasked)?;
            return self.close(incoming);
        }
        let written = self.open.get_mut(&number).ok_or_else(unasked)?.write(data)?;
        self.written(written as u64)
    }
}

/// What comes next of what is handed over; nothing ever where nothing is.
async fn taken(taking: &mut Option<Taking>) -> Taken {
    match taking {
        Some(taking) => taking.next().await,
        None => std::future::pending().await,
    }
}

async fn request(outgoing: &Sender<Packet>, number: u32) -> Result<(), Error> {
    outgoing.send(Message::Request(number).packet()).await.map_err(gone)
}

fn gone<T>(_: SendError<T>) -> Error {
    Error::Call("the client of the build went away".into())
}

fn kind(message: &Message) -> &'static str {
    match message {
        Message::Entry(_) | Message::End => "a file's name",
        Message::Request(_) => "a request",
        Message::Data(..) => "a file's content",
        Message::Finished => "the end",
        Message::Failed(_) => "an error",
    }
}

#[cfg(test)]
mod tests;
