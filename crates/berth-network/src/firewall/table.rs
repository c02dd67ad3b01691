//! Whose table it is: several engines in one network namespace have one each.

use super::message::{self, Attributes, FAMILY_INET, Kind, Transaction};
use crate::Error;

/// The table's name, where nobody else has one of it.
const NAME: &str = "berth";
/// `NFTA_TABLE_USERDATA`, and in it the type of what `nft` shows as a comment.
const USERDATA: u16 = 6;
const COMMENT: u8 = 0;
/// What `nft` takes for a comment, in bytes.
const LONGEST_COMMENT: usize = 127;

/// The name of an engine's tables, of all families, and what they say of their owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    name: String,
    owner: String,
}

impl Table {
    /// The tables of `owner`, some text that is the engine's own and stays the same.
    pub(super) fn of(owner: &str) -> Table {
        let mut end = owner.len().min(LONGEST_COMMENT);
        while !owner.is_char_boundary(end) {
            end -= 1;
        }
        Table { name: NAME.into(), owner: owner[..end].into() }
    }

    /// Settles the name: `berth`, or one that says whose it is if `berth` is another engine's. A table without a comment
    /// is of an engine from before comments: whoever comes takes it over.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        if self.owner.is_empty() {
            return Ok(());
        }
        let own = format!("{NAME}-{:08x}", checksum(self.owner.as_bytes()));
        let mut name = NAME;
        for table in message::dump(Kind::GetTable, FAMILY_INET, &Attributes::default())? {
            let Some(found) = table.attribute(1).map(message::text) else { continue };
            let owner = table.attribute(USERDATA).and_then(comment).unwrap_or_default();
            let anothers = !owner.is_empty() && owner != self.owner && crate::is_there(owner);
            if found == own || (found == NAME && anothers) {
                name = &own;
            }
        }
        self.name = name.into();
        Ok(())
    }

    /// Whether another engine was there first.
    pub(super) fn is_second(&self) -> bool {
        self.name != NAME
    }

    /// Whether a change tells of one of the tables.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// The beginning of all messages about it.
    pub(super) fn named(&self) -> Attributes {
        Attributes::default().text(1, &self.name)
    }

    /// The messages that make the table anew, without anything in it.
    pub(super) fn renew(&self, transaction: &mut Transaction) {
        let described = match self.owner.is_empty() {
            true => self.named(),
            false => {
                let mut data = vec![COMMENT, self.owner.len() as u8 + 1];
                data.extend_from_slice(self.owner.as_bytes());
                data.push(0);
                self.named().bytes(USERDATA, &data)
            }
        };
        self.remove(transaction);
        transaction.push(Kind::NewTable, "add table", described);
    }

    /// The messages that remove it, there or not.
    pub(super) fn remove(&self, transaction: &mut Transaction) {
        transaction.push(Kind::NewTable, "add table", self.named());
        transaction.push(Kind::DelTable, "delete table", self.named());
    }
}

/// Whether a table of this name is an engine's, this one's or another's.
pub(super) fn is_of_an_engine(name: &str) -> bool {
    let rest = name.strip_prefix(NAME);
    rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('-').is_some_and(is_checksum))
}

fn is_checksum(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// FNV-1a: short names that differ, and no more.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The comment in a table's user data.
fn comment(mut data: &[u8]) -> Option<&str> {
    loop {
        let (kind, length) = (*data.first()?, usize::from(*data.get(1)?));
        let value = data.get(2..2 + length)?;
        if kind == COMMENT {
            return Some(message::text(value));
        }
        data = data.get(2 + length..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_say_whose_they_are() {
        assert!(is_of_an_engine("berth") && is_of_an_engine("berth-0123abcd"));
        assert!(!is_of_an_engine("berth-names") && !is_of_an_engine("berths") && !is_of_an_engine("mine"));
        assert_ne!(checksum(b"/var/lib/berth"), checksum(b"/var/lib/docker"));
        let long = Table::of(&"ä".repeat(100));
        assert_eq!(long.owner.len(), 126);
    }

    #[test]
    fn a_comment_is_found() {
        assert_eq!(comment(&[7, 1, 9, 0, 3, b'a', b'b', 0]), Some("ab"));
        assert_eq!(comment(&[7, 1, 9]), None);
    }

    proptest! {
        #[test]
        fn any_user_data_is_read_without_harm(data in proptest::collection::vec(any::<u8>(), 0..40)) {
            comment(&data);
        }
    }
}
