//! Mappings of a bind's owners: who owns a file on the host's disk, and who in the container.

use berth_runtime::ids::Mappings;
use serde::{Deserialize, Serialize};

/// A mapping of users and groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// Of users.
    pub users: Vec<Range>,
    /// Of groups.
    pub groups: Vec<Range>,
}

/// IDs in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first one on the disk.
    pub disk: u32,
    /// The first one in the container.
    pub container: u32,
    /// How many.
    pub count: u32,
}

/// Most ranges that the kernel takes.
const MOST: usize = 340;

impl IdMap {
    /// Reads `uids=DISK-CONTAINER-COUNT[#…];gids=…`; groups are mapped as users are unless they are named, and the other
    /// way round. On failure, what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut users, mut groups) = (None, None);
        for part in text.split(';') {
            let (name, ranges) = part.split_once('=').ok_or_else(|| wrong(text))?;
            let place = match name {
                "uids" => &mut users,
                "gids" => &mut groups,
                _ => return Err(wrong(text)),
            };
            let ranges: Option<Vec<Range>> = ranges.split('#').map(Range::parse).collect();
            let ranges = ranges.ok_or_else(|| wrong(text))?;
            if ranges.len() > MOST || overlap(&ranges) || place.replace(ranges).is_some() {
                return Err(wrong(text));
            }
        }
        match (users, groups) {
            (Some(users), Some(groups)) => Ok(Self { users, groups }),
            (Some(both), None) | (None, Some(both)) => Ok(Self { users: both.clone(), groups: both }),
            (None, None) => Err(wrong(text)),
        }
    }

    /// The same for a container with a user namespace; none if it has no such users or groups.
    pub fn behind(&self, mappings: &Mappings) -> Option<Self> {
        let moved = |ranges: &[Range], outside: &dyn Fn(u32) -> Option<u32>| -> Option<Vec<Range>> {
            let one = |range: &Range| {
                let container = outside(range.container)?;
                // All of it lies in one range of the namespace.
                let last = range.container.checked_add(range.count.checked_sub(1)?)?;
                (outside(last)? == container.checked_add(range.count - 1)?)
                    .then_some(Range { container, ..*range })
            };
            ranges.iter().map(one).collect()
        };
        let user = |id| mappings.outside(id, 0).map(|(user, _)| user);
        let group = |id| mappings.outside(0, id).map(|(_, group)| group);
        Some(Self { users: moved(&self.users, &user)?, groups: moved(&self.groups, &group)? })
    }

    /// As the kernel takes them: users, groups.
    pub fn lines(&self) -> (String, String) {
        let lines = |ranges: &[Range]| {
            let line = |range: &Range| format!("{} {} {}\n", range.disk, range.container, range.count);
            ranges.iter().map(line).collect::<String>()
        };
        (lines(&self.users), lines(&self.groups))
    }
}

fn wrong(text: &str) -> String {
    format!("invalid idmap {text:?}: it has the form uids=HOST-CONTAINER-COUNT[#...];gids=...")
}

/// Whether two ranges have IDs in common.
fn overlap(ranges: &[Range]) -> bool {
    let common = |a: u32, b: u32, one: &Range, other: &Range| {
        u64::from(a) < u64::from(b) + u64::from(other.count)
            && u64::from(b) < u64::from(a) + u64::from(one.count)
    };
    ranges.iter().enumerate().any(|(index, one)| {
        ranges.iter().skip(index + 1).any(|other| {
            common(one.disk, other.disk, one, other) || common(one.container, other.container, one, other)
        })
    })
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let numbers: Vec<u32> = text.split('-').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        let [disk, container, count] = numbers[..] else { return None };
        // The last ID stands for nobody.
        let fits = |first: u32| u64::from(first) + u64::from(count) <= u64::from(u32::MAX);
        (count > 0 && fits(disk) && fits(container)).then_some(Self { disk, container, count })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mappings_have_ranges() {
        let map = IdMap::parse("uids=1000-0-1#2000-1-5;gids=100-0-1").unwrap();
        assert_eq!(map.lines(), ("1000 0 1\n2000 1 5\n".to_owned(), "100 0 1\n".to_owned()));
        let both = IdMap::parse("gids=5-0-1").unwrap();
        assert_eq!(both.users, both.groups);
    }

    #[test]
    fn mappings_lie_behind_those_of_a_user_namespace() {
        let range = |inside, outside, count| berth_runtime::ids::Range { inside, outside, count };
        let mappings =
            Mappings { users: vec![range(0, 100_000, 1000)], groups: vec![range(0, 200_000, 1000)] };
        let map = IdMap::parse("uids=7-0-10;gids=8-1-1").unwrap().behind(&mappings).unwrap();
        assert_eq!(map.lines(), ("7 100000 10\n".to_owned(), "8 200001 1\n".to_owned()));
        assert_eq!(IdMap::parse("uids=7-995-10").unwrap().behind(&mappings), None);
    }

    #[test]
    fn bad_mappings_are_refused() {
        for text in [
            "",
            "uids",
            "uids=",
            "uids=1-2",
            "uids=1-2-0",
            "uids=1-2-3-4",
            "uids=a-0-1",
            "colour=1-2-3",
            "uids=1-2-3;uids=1-2-3",
            "uids=1-10-2#2-20-2",
            "uids=1-10-2#5-11-2",
            "uids=4294967295-0-1",
        ] {
            assert!(IdMap::parse(text).unwrap_err().starts_with("invalid idmap"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ugids=0-9#;-]{0,40}") {
            if let Ok(map) = IdMap::parse(&text) {
                prop_assert!(map.lines().0.lines().count() == map.users.len());
            }
        }
    }
}
