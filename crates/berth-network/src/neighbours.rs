//! The kernel's tables of neighbours: one for IPv4 and one for IPv6, whatever the number of network namespaces.

use crate::sysctl;

/// Entries that a container and those that it talks to may have at a time.
const ENTRIES_EACH: usize = 8;
/// More than this many containers need more than the kernel's own limit of 1,024 entries.
const FROM: usize = 128;
/// Entries take some 400 bytes each.
const MOST: usize = 1 << 18;

/// Makes room for so many containers' neighbours, where the kernel has less. Its limits are the whole machine's, and only
/// seen from its first network namespace: elsewhere nothing is done.
pub fn make_room(containers: usize) {
    if containers < FROM {
        return;
    }
    let wanted = (containers * ENTRIES_EACH).next_power_of_two().min(MOST);
    for family in ["ipv4", "ipv6"] {
        // From the hard limit down: below the first, nothing is ever thrown out.
        for (limit, part) in [("gc_thresh3", 1), ("gc_thresh2", 2), ("gc_thresh1", 4)] {
            let name = format!("net/{family}/neigh/default/{limit}");
            let Ok(now) = sysctl::get(&name) else { continue };
            let wanted = wanted / part;
            if now.parse::<usize>().is_ok_and(|now| now < wanted)
                && let Err(error) = sysctl::set(&name, &wanted.to_string())
            {
                tracing::warn!(%error, "neighbours of many containers may not find room");
            }
        }
    }
}
