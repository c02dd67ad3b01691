//! Which users and groups of a user namespace are which outside of it (user_namespaces(7)).

use std::fmt::Write as _;
use std::io;

/// Consecutive IDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first ID inside.
    pub inside: u32,
    /// The first ID outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

impl Range {
    fn shifted(id: u32, from: u32, to: u32, count: u32) -> Option<u32> {
        let offset = id.checked_sub(from).filter(|offset| *offset < count)?;
        to.checked_add(offset)
    }
}

/// The users and groups of a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mappings {
    /// Users.
    pub users: Vec<Range>,
    /// Groups.
    pub groups: Vec<Range>,
}

impl Mappings {
    /// The mappings of a process that is in another user namespace than the caller.
    ///
    /// # Errors
    /// The process has ended.
    pub fn of_process(pid: i32) -> io::Result<Option<Self>> {
        let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/user"));
        if namespace(&pid.to_string())? == namespace("self")? {
            return Ok(None);
        }
        let read = |name: &str| parse(&std::fs::read_to_string(format!("/proc/{pid}/{name}"))?);
        Ok(Some(Self { users: read("uid_map")?, groups: read("gid_map")? }))
    }

    /// The owner outside of a user and a group inside.
    pub fn outside(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        Some((outside(&self.users, uid)?, outside(&self.groups, gid)?))
    }

    /// A user's ID inside.
    pub fn user_inside(&self, uid: u32) -> Option<u32> {
        inside(&self.users, uid)
    }

    /// A group's ID inside.
    pub fn group_inside(&self, gid: u32) -> Option<u32> {
        inside(&self.groups, gid)
    }

    /// The same, seen from the other side.
    pub fn reversed(&self) -> Self {
        let turn = |range: &Range| Range { inside: range.outside, outside: range.inside, ..*range };
        Self { users: self.users.iter().map(turn).collect(), groups: self.groups.iter().map(turn).collect() }
    }

    /// All of it as a text, which [`Mappings::from_text`] reads.
    pub fn to_text(&self) -> String {
        let (users, groups) = self.lines();
        format!("{users}\n{groups}")
    }

    /// Reads what [`Mappings::to_text`] has written.
    ///
    /// # Errors
    /// `InvalidData` for anything else.
    pub fn from_text(text: &str) -> io::Result<Self> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "not two mappings of IDs");
        let (users, groups) = text.split_once("\n\n").ok_or_else(bad)?;
        Ok(Self { users: parse(users)?, groups: parse(groups)? })
    }

    /// What goes into `uid_map` and `gid_map`.
    pub fn lines(&self) -> (String, String) {
        (lines(&self.users), lines(&self.groups))
    }
}

fn outside(ranges: &[Range], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| Range::shifted(id, range.inside, range.outside, range.count))
}

fn inside(ranges: &[Range], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| Range::shifted(id, range.outside, range.inside, range.count))
}

fn lines(ranges: &[Range]) -> String {
    let mut text = String::new();
    for Range { inside, outside, count } in ranges {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{inside} {outside} {count}");
    }
    text
}

fn parse(text: &str) -> io::Result<Vec<Range>> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "not a mapping of IDs");
    let line = |line: &str| {
        let fields: Vec<u32> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
        match fields[..] {
            [inside, outside, count] => Ok(Range { inside, outside, count }),
            _ => Err(bad()),
        }
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mappings() -> Mappings {
        let ranges = vec![
            Range { inside: 0, outside: 100_000, count: 1000 },
            Range { inside: 1000, outside: 7000, count: 10 },
        ];
        Mappings { users: ranges, groups: vec![Range { inside: 0, outside: 5, count: 1 }] }
    }

    #[test]
    fn a_text_holds_all() {
        assert_eq!(Mappings::from_text(&mappings().to_text()).unwrap(), mappings());
        for text in ["", "0 1 2\n", "0 1\n\n0 1 2\n", "a b c\n\n0 1 2\n"] {
            Mappings::from_text(text).unwrap_err();
        }
    }

    #[test]
    fn ids_go_both_ways_or_nowhere() {
        let mappings = mappings();
        assert_eq!(mappings.outside(0, 0), Some((100_000, 5)));
        assert_eq!(mappings.outside(1009, 0), Some((7009, 5)));
        assert_eq!(mappings.outside(1010, 0), None);
        assert_eq!(mappings.outside(0, 1), None);
        assert_eq!(mappings.user_inside(100_999), Some(999));
        assert_eq!(mappings.user_inside(0), None);
        assert_eq!(mappings.group_inside(5), Some(0));
    }

    #[test]
    fn the_last_id_does_not_overflow() {
        let range = Range { inside: u32::MAX - 1, outside: u32::MAX - 1, count: 10 };
        let mappings = Mappings { users: vec![range], groups: vec![range] };
        assert_eq!(mappings.outside(u32::MAX, u32::MAX), Some((u32::MAX, u32::MAX)));
        let wide = Range { inside: 0, outside: u32::MAX, count: 2 };
        assert_eq!(outside(&[wide], 1), None);
    }

    #[test]
    fn the_kernels_form_is_read_and_written() {
        let (users, groups) = mappings().lines();
        assert_eq!(users, "0 100000 1000\n1000 7000 10\n");
        assert_eq!(parse(&users).unwrap(), mappings().users);
        assert_eq!(parse("         0     5          1\n").unwrap(), parse(&groups).unwrap());
        assert!(parse("0 1\n").is_err());
    }
}
