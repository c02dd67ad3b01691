//! Lists of accounts and of subordinate IDs, as text: passwd(5), group(5), subuid(5).

use berth_engine::IdRange;

/// The first subordinate ID that is given to an account.
const FIRST: u32 = 100_000;
/// How many an account gets.
const COUNT: u32 = 65536;
/// Numbers of system accounts.
const SYSTEM: std::ops::RangeInclusive<u32> = 100..=999;
/// Most ranges that the kernel takes.
const MOST: usize = 340;

/// A line of a list of accounts: name and number.
pub fn account(line: &str) -> Option<(&str, u32)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    Some((name, fields.nth(1)?.parse().ok()?))
}

/// The account with this name, or with this number.
pub fn find(text: &str, wanted: impl Fn(&str, u32) -> bool) -> Option<(String, u32)> {
    let found = text.lines().filter_map(account).find(|(name, number)| wanted(name, *number))?;
    Some((found.0.to_owned(), found.1))
}

/// A number of a system account that neither list has; the highest, as useradd(8).
pub fn free_number(passwd: &str, group: &str) -> Option<u32> {
    let taken = |number: u32| {
        [passwd, group].iter().any(|text| text.lines().filter_map(account).any(|(_, has)| has == number))
    };
    SYSTEM.rev().find(|number| !taken(*number))
}

/// A line of a list of subordinate IDs: owner, first one, count.
fn subordinate(line: &str) -> Option<(&str, u32, u32)> {
    let mut fields = line.trim().split(':');
    let (owner, first, count) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    // What would reach beyond all IDs is a mistake, and so are more fields.
    let fits = count > 0 && u32::checked_add(first, count).is_some() && fields.next().is_none();
    (fits && !owner.is_empty() && !owner.starts_with('#')).then_some((owner, first, count))
}

/// What a list has for an account, by its name or its number, one range after the other inside.
pub fn ranges_of(text: &str, name: &str, uid: u32) -> Vec<IdRange> {
    let number = uid.to_string();
    let mut inside = 0_u32;
    let mut ranges = Vec::new();
    let own = text.lines().filter_map(subordinate).filter(|(owner, ..)| *owner == name || *owner == number);
    for (_, outside, count) in own.take(MOST) {
        ranges.push(IdRange { inside, outside, count });
        let Some(next) = inside.checked_add(count) else { break };
        inside = next;
    }
    ranges
}

/// The first of [`COUNT`] IDs in a row that nobody has.
fn free_range(text: &str) -> Option<u32> {
    let mut taken: Vec<(u32, u32)> =
        text.lines().filter_map(subordinate).map(|(_, first, count)| (first, count)).collect();
    taken.sort_unstable();
    let mut next = FIRST;
    for (first, count) in taken {
        let overlaps = first < next.checked_add(COUNT)? && next < first + count;
        if overlaps {
            next = first + count;
        }
    }
    next.checked_add(COUNT).map(|_| next)
}

/// The list with a range for an account that has none; none if nothing is to change. `Err` if no IDs are left.
pub fn with_range(text: &str, name: &str, uid: u32) -> Result<Option<String>, ()> {
    if !ranges_of(text, name, uid).is_empty() {
        return Ok(None);
    }
    let first = free_range(text).ok_or(())?;
    Ok(Some(with_line(text, &format!("{name}:{first}:{COUNT}"))))
}

/// A list with one more line.
pub fn with_line(text: &str, line: &str) -> String {
    let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{separator}{line}\n")
}
