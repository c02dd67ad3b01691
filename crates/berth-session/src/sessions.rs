//! All clients that are connected, by the names of their sessions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::Error;
use crate::session::{Offer, Session};

/// The most of them.
const MOST: usize = 1000;
/// How long a build waits for its client.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sessions by name.
#[derive(Debug, Default)]
pub struct Sessions {
    /// None while the connection is being made.
    open: Mutex<HashMap<String, Option<Arc<Session>>>>,
    changed: Notify,
}

/// A name that is taken for a connection to come.
#[derive(Debug)]
pub struct Claim {
    sessions: Arc<Sessions>,
    offer: Offer,
}

impl Sessions {
    /// Takes a name. It is free again when the connection ends.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::TooMany`].
    pub fn claim(self: &Arc<Self>, offer: Offer) -> Result<Claim, Error> {
        let mut open = self.lock();
        if open.contains_key(&offer.id) {
            return Err(Error::Exists(offer.id));
        }
        if open.len() >= MOST {
            return Err(Error::TooMany);
        }
        open.insert(offer.id.clone(), None);
        drop(open);
        Ok(Claim { sessions: Arc::clone(self), offer })
    }

    /// Whether a name is taken.
    pub fn has(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }

    /// The session of a build, which may come only after the build. What is before a colon in `id` only tells apart builds
    /// of one session.
    ///
    /// # Errors
    /// [`Error::Absent`] if it does not come.
    pub async fn get(&self, id: &str) -> Result<Arc<Session>, Error> {
        let id = id.split_once(':').map(|(_, rest)| rest).filter(|rest| !rest.is_empty()).unwrap_or(id);
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(Some(found)) = self.lock().get(id) {
                    return Arc::clone(found);
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.map_err(|_| Error::Absent(id.to_owned()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Option<Arc<Session>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Serves builds over a connection until it ends.
    ///
    /// # Errors
    /// [`Error::Connection`].
    pub async fn serve<I>(self, io: I) -> Result<(), Error>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let session = Session::begin(self.offer.clone(), io).await?;
        self.sessions.lock().insert(self.offer.id.clone(), Some(Arc::clone(&session)));
        self.sessions.changed.notify_waiters();
        session.ended().await;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.offer.id);
    }
}
