//! Room for the next container: on a network's bridges, and in the kernel's tables of neighbours.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_network::firewall::FirewallState;
use berth_network::{Host, neighbours, trunk};

use super::segment::Segment;
use super::{Networks, lock};
use crate::blocking::blocking;

impl Networks {
    /// Makes room on a network that another container has joined. What fails is told, and tried again by the next.
    pub(super) async fn make_room(&self, segment: &Arc<Segment>) {
        let all = lock(&self.endpoints).len();
        if all.is_power_of_two() {
            neighbours::make_room(all * 2);
        }
        let made = match segment.link.make_room(&self.host, segment.count()) {
            Ok(None) => return,
            Ok(Some(name)) => name,
            Err(error) => {
                let network = &segment.object.name;
                tracing::warn!(network, %error, "there may be no room for more containers");
                return;
            }
        };
        let state = FirewallState { bridges: vec![(made, trunk::RULES)], ..FirewallState::default() };
        let firewall = Arc::clone(&self.firewall);
        if let Err(error) = blocking(move || Ok(firewall.add(&state)?)).await {
            tracing::warn!(network = segment.object.name, %error, "the firewall does not know a further bridge");
        }
    }
}

/// Bridges that continue those of networks, as the firewall has to know them.
pub fn continuations<'a>(host: &Host, segments: impl Iterator<Item = &'a Arc<Segment>>) -> FirewallState {
    let names = segments.filter_map(|segment| segment.link.firewall());
    // Several networks may be on one link.
    let names: BTreeMap<String, _> = names.collect();
    let further = names.keys().flat_map(|name| host.continuations(name));
    FirewallState { bridges: further.map(|name| (name, trunk::RULES)).collect(), ..FirewallState::default() }
}
