//! Mirrors of registries: who is asked before the registry itself, and who is not asked any more.
//!
//! A mirror is a convenience: whatever is wrong with it must not keep a pull from what the registry has.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_oci::{Digest, Reference};
use http::Response;
use hyper::body::Incoming;
use url::Url;

use crate::client::{Source, Wanted, authority_of};
use crate::{Client, patience};

/// What one operation, such as a pull, knows of mirrors. Copies share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mirrors(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Which mirror gave something, by what was asked for.
    gave: HashMap<String, String>,
    /// Mirrors that are of no use.
    left_out: HashSet<String>,
}

impl Mirrors {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing is left half-changed under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Asks the mirrors of the registry of `reference`, one after the other, for what [`Client::get`] is to get.
    pub(crate) async fn get_mirrored(
        &self,
        reference: &Reference,
        rest: &str,
        wanted: &Wanted<'_>,
    ) -> Option<(Response<Incoming>, String)> {
        let config = self.config();
        for mirror in config.mirrors.iter().filter(|mirror| mirror.of == reference.domain()) {
            if self.mirrors.known().left_out.contains(&mirror.url) {
                continue;
            }
            let found = self.ask_mirror(&mirror.url, reference, rest, wanted).await;
            if found.is_some() {
                self.mirrors.known().gave.insert(rest.to_owned(), mirror.url.clone());
                return found;
            }
        }
        None
    }

    /// What a mirror has; none, and a note in the log, if it has not. One that fails is left out from now on.
    async fn ask_mirror(
        &self,
        mirror: &str,
        reference: &Reference,
        rest: &str,
        wanted: &Wanted<'_>,
    ) -> Option<(Response<Incoming>, String)> {
        let base = Url::parse(mirror).ok()?;
        let authority = authority_of(&base);
        self.look_up(&authority).await;
        // Credentials are the registry's, and not for its mirrors; and what is slow is no use as one.
        let from = Source { base, authority: &authority, credentials: None };
        let wanted = Wanted { hasty: true, ..wanted.clone() };
        match self.get_from(from, reference, rest, &wanted).await {
            Ok(found) if found.0.status().is_success() => return Some(found),
            Ok((answer, operation)) => {
                let status = answer.status();
                tracing::info!(operation, %status, "a mirror does not have it");
                if !patience::is_overload(status) && !status.is_server_error() {
                    return None;
                }
            }
            Err(error) => tracing::warn!(mirror, %error, "a mirror cannot be used"),
        }
        self.mirrors.known().left_out.insert(mirror.to_owned());
        None
    }

    /// Leaves a mirror out of all that this client, as it was made by [`Client::on_behalf`], still asks for, since the
    /// blob that it gave was cut or is wrong. Whether a mirror gave it: the registry itself can then be asked.
    pub fn distrust(&self, blob: &Digest) -> bool {
        let mut known = self.mirrors.known();
        let gave = known.gave.remove(&blob_path(blob));
        gave.is_some_and(|mirror| {
            known.left_out.insert(mirror);
            true
        })
    }

    /// As [`Client::distrust`], for all mirrors that have given anything since the last call.
    pub fn distrust_mirrors(&self) -> bool {
        let mut known = self.mirrors.known();
        let gave: Vec<String> = known.gave.drain().map(|(_, mirror)| mirror).collect();
        let is_any = !gave.is_empty();
        known.left_out.extend(gave);
        is_any
    }
}

/// What is asked for to get a blob.
pub(crate) fn blob_path(blob: &Digest) -> String {
    format!("blobs/{blob}")
}
