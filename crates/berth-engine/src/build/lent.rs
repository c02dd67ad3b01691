//! What a step's container gets for its one run, and what no record ever holds: mounts that are made already, and
//! variables.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::create::mounts::{MountPlan, MountSource};

/// A place where something is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LentMount {
    /// The path in the container.
    pub destination: String,
    /// Whether it cannot be written.
    pub read_only: bool,
}

/// Adds them to the mounts of a container, in their order by place. They win over others at the same place.
pub(crate) fn add(mounts: &mut Vec<MountPlan>, lent: Vec<LentMount>) {
    for (number, one) in lent.into_iter().enumerate() {
        mounts.retain(|plan| plan.destination != one.destination);
        mounts.push(MountPlan {
            source: MountSource::Lent { number },
            destination: one.destination,
            read_only: one.read_only,
            read_only_top: false,
            mode: String::new(),
            propagation: String::new(),
            wish: Default::default(),
        });
    }
    mounts.sort_by(|a, b| a.destination.cmp(&b.destination));
}

/// What one container gets.
#[derive(Debug, Default)]
pub(crate) struct Loan {
    /// Detached mounts by the numbers of [`MountSource::Lent`]; each is taken once.
    pub mounts: HashMap<usize, OwnedFd>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// Whether what the container writes need not outlive a crash of the host: it goes with its step.
    pub volatile: bool,
}

/// What all containers of builds get.
#[derive(Debug, Default)]
pub(crate) struct Lent(Mutex<HashMap<String, Loan>>);

impl Lent {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Loan>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps it for a container until that is over.
    pub fn put(&self, container: &str, loan: Loan) {
        self.lock().insert(container.to_owned(), loan);
    }

    /// Gives a mount away.
    pub fn take(&self, container: &str, number: usize) -> Option<OwnedFd> {
        self.lock().get_mut(container)?.mounts.remove(&number)
    }

    /// The variables of a container.
    pub fn environment(&self, container: &str) -> Vec<String> {
        self.lock().get(container).map(|loan| loan.environment.clone()).unwrap_or_default()
    }

    /// Whether what a container writes need not outlive a crash of the host.
    pub fn is_volatile(&self, container: &str) -> bool {
        self.lock().get(container).is_some_and(|loan| loan.volatile)
    }

    /// A container is over.
    pub fn forget(&self, container: &str) {
        self.lock().remove(container);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_stand_in_their_order() {
        let mut mounts = Vec::new();
        let lent = |path: &str| LentMount { destination: path.into(), read_only: false };
        add(&mut mounts, vec![lent("/b/c"), lent("/a")]);
        add(&mut mounts, vec![lent("/b"), lent("/a")]);
        let places: Vec<&str> = mounts.iter().map(|plan| plan.destination.as_str()).collect();
        assert_eq!(places, ["/a", "/b", "/b/c"]);
        assert!(matches!(mounts[0].source, MountSource::Lent { number: 1 }));
    }
}
