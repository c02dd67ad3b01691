//! Leases: what is in use by a task of this process. A task dies with the process, so leases are held in memory; what
//! must survive it (the layers of a container, the documents of an image) is held by rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_oci::Digest;

use crate::{Error, Result};

/// Something that a lease can hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Object {
    Layer(Digest),
    Blob(Digest),
}

/// Everything held at the moment.
#[derive(Debug, Default)]
pub(crate) struct LeaseTable {
    shared: Mutex<HashMap<Object, usize>>,
    /// Things with one owner at a time: kind and identifier to the owner's name.
    exclusive: Mutex<HashMap<(&'static str, String), String>>,
}

impl LeaseTable {
    pub(crate) fn holds(&self, object: &Object) -> bool {
        self.objects().contains_key(object)
    }

    /// Whether something has an owner.
    pub(crate) fn is_claimed(&self, kind: &'static str, id: &str) -> bool {
        let exclusive = self.exclusive.lock().unwrap_or_else(PoisonError::into_inner);
        exclusive.contains_key(&(kind, id.to_owned()))
    }

    fn objects(&self) -> MutexGuard<'_, HashMap<Object, usize>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes something for one owner.
    pub(crate) fn claim(self: &Arc<Self>, kind: &'static str, id: &str, owner: &str) -> Result<Claim> {
        let mut exclusive = self.exclusive.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (kind, id.to_owned());
        if let Some(owner) = exclusive.get(&key) {
            return Err(Error::Held { kind, id: id.to_owned(), owner: owner.clone() });
        }
        exclusive.insert(key.clone(), owner.to_owned());
        Ok(Claim { table: Arc::clone(self), key })
    }
}

/// Keeps layers and blobs from being collected until it is dropped. A pull holds one until its image is recorded.
#[derive(Debug)]
pub struct Lease {
    table: Arc<LeaseTable>,
    objects: Vec<Object>,
}

impl Lease {
    pub(crate) fn new(table: Arc<LeaseTable>) -> Self {
        Self { table, objects: Vec::new() }
    }

    /// Holds one more object. The caller holds the structure lock if the object exists already.
    pub(crate) fn add(&mut self, object: Object) {
        *self.table.objects().entry(object.clone()).or_default() += 1;
        self.objects.push(object);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut held = self.table.objects();
        for object in &self.objects {
            if let Some(count) = held.get_mut(object) {
                *count -= 1;
                if *count == 0 {
                    held.remove(object);
                }
            }
        }
    }
}

/// Exclusive possession, until dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    table: Arc<LeaseTable>,
    key: (&'static str, String),
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.table.exclusive.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// The right to mount a snapshot's upper directory. The kernel lets two overlays share one with no more than a log line;
/// this does not.
#[derive(Debug)]
pub struct SnapshotLease(#[expect(dead_code, reason = "held for its drop")] pub(crate) Claim);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_held_until_the_last_lease_ends() {
        let table = Arc::new(LeaseTable::default());
        let object = Object::Layer(Digest::of(b"x"));
        let mut one = Lease::new(Arc::clone(&table));
        one.add(object.clone());
        let mut two = Lease::new(Arc::clone(&table));
        two.add(object.clone());
        drop(one);
        assert!(table.holds(&object));
        drop(two);
        assert!(!table.holds(&object));
    }

    #[test]
    fn a_claim_names_its_holder() {
        let table = Arc::new(LeaseTable::default());
        let claim = table.claim("snapshot", "a", "container a").unwrap();
        let error = table.claim("snapshot", "a", "copy").unwrap_err();
        assert_eq!(error.to_string(), "snapshot a is held by container a");
        drop(claim);
        table.claim("snapshot", "a", "copy").unwrap();
    }
}
