//! Files that are handed over open, where both ends are on one host: their content need not travel.
//!
//! Within the session the sender invites the receiver to an abstract socket (unix(7)). There each end shows the other a secret that
//! only the session told, and only root and the sender's own user are answered. The receiver then asks for files by their numbers, several at a
//! time, and gets a mark for each, with a descriptor for those that there are. What has none is asked for as ever, and so
//! is everything where the socket cannot be reached: on another host, or in another network namespace.

mod give;
mod take;

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;

pub(crate) use give::Giving;
pub(crate) use take::{Taken, Taking};

/// The most files that are asked for in one message.
const BATCH: usize = 32;
/// How long either end waits for the other's secret.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a receiver that takes open files says.
pub(crate) const WANTED: &str = "1";

/// Says that a file comes with the message, or does not.
const MARKS: [u8; 2] = [0, 1];

/// Bytes of a secret, and of what is random in the name.
const SECRET: usize = 16;

/// Where to ask for files, and what the ends know each other by.
pub(crate) struct Invitation([u8; 3 * SECRET]);

impl Invitation {
    fn new() -> io::Result<Invitation> {
        let mut bytes = [0; 3 * SECRET];
        // So few are never given in part (getrandom(2)).
        rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
        Ok(Invitation(bytes))
    }

    /// As it is written in a header.
    pub fn text(&self) -> String {
        BASE64.encode(self.0)
    }

    /// What a header says; none if that is no invitation.
    pub fn of(text: &str) -> Option<Invitation> {
        Some(Invitation(BASE64.decode(text).ok()?.try_into().ok()?))
    }

    fn name(&self) -> Vec<u8> {
        format!("berth-files-{}", BASE64.encode(&self.0[..SECRET])).into_bytes()
    }

    /// What the receiver shows.
    fn of_taker(&self) -> &[u8] {
        &self.0[SECRET..2 * SECRET]
    }

    /// What the sender shows.
    fn of_giver(&self) -> &[u8] {
        &self.0[2 * SECRET..]
    }
}

#[cfg(test)]
mod tests;
