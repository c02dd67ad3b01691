//! Namespaces of containers whose links do not go soon enough by themselves: held until the links are removed.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use berth_network::Endpoint;

use super::{Networks, lock};
use crate::Error;
use crate::blocking::blocking;

impl Networks {
    /// Remembers the network namespace of a container, if one of its links has to be removed from there when it ends.
    pub fn hold(&self, container: &str, netns: BorrowedFd<'_>, endpoints: &[Endpoint]) -> Result<(), Error> {
        let removes = |endpoint| self.segment_of(endpoint).is_some_and(|one| one.has_to_be_removed());
        if endpoints.iter().any(removes) && !lock(&self.namespaces).contains_key(container) {
            let netns = netns.try_clone_to_owned().map_err(|source| Error::Io {
                operation: "keep the container's network namespace".into(),
                source,
            })?;
            lock(&self.namespaces).insert(container.to_owned(), Arc::new(netns));
        }
        Ok(())
    }

    /// Removes those links of a container that ended which the kernel would keep for a moment.
    pub(super) async fn remove_links(&self, container: &str, endpoints: &[Endpoint]) -> Result<(), Error> {
        let Some(netns) = lock(&self.namespaces).remove(container) else { return Ok(()) };
        let mut links = Vec::new();
        for endpoint in endpoints {
            let segment = self.segment_of(endpoint).filter(|segment| segment.has_to_be_removed());
            links.extend(segment.map(|segment| (segment, endpoint.clone())));
        }
        let host = Arc::clone(&self.host);
        blocking(move || {
            links.iter().try_for_each(|(segment, endpoint)| {
                Ok(segment.link.disconnect(&host, Some(netns.as_fd()), endpoint)?)
            })
        })
        .await
    }
}
