//! Names of containers: the rule, and random ones.

use crate::Error;

/// Checks a name against Docker's rule, `[a-zA-Z0-9][a-zA-Z0-9_.-]+`; one leading slash is dropped.
pub fn parse(name: &str) -> Result<String, Error> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let bytes = bare.as_bytes();
    let first = bytes.first().is_some_and(u8::is_ascii_alphanumeric);
    let rest = bytes.iter().skip(1).all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest && (2..=MAX_BYTES).contains(&bytes.len()) {
        Ok(bare.to_owned())
    } else {
        Err(Error::InvalidName(name.to_owned()))
    }
}

/// Far above any sensible name; the name becomes a row and a line of many outputs.
const MAX_BYTES: usize = 1024;

const ADJECTIVES: [&str; 64] = [
    "able", "agile", "amber", "ample", "apt", "balmy", "bold", "brave", "breezy", "bright", "brisk", "calm",
    "candid", "civil", "clear", "clever", "cosy", "crisp", "daring", "deft", "eager", "early", "earnest",
    "easy", "fair", "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "hale", "handy",
    "hardy", "hearty", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "merry",
    "mild", "modest", "neat", "nimble", "noble", "patient", "plucky", "polite", "proud", "quick", "quiet",
    "ready", "sage", "sharp", "steady", "sunny", "tidy", "witty",
];

/// Seafarers, shipbuilders and people who charted coasts.
const SURNAMES: [&str; 64] = [
    "amundsen",
    "anning",
    "baffin",
    "banks",
    "baret",
    "barents",
    "beaufort",
    "bering",
    "bligh",
    "bonny",
    "bowditch",
    "brunel",
    "cabot",
    "cartier",
    "champlain",
    "chichester",
    "cook",
    "cousteau",
    "dampier",
    "dana",
    "darwin",
    "davis",
    "drake",
    "eriksson",
    "fitzroy",
    "flinders",
    "franklin",
    "frobisher",
    "fulton",
    "gama",
    "gilbert",
    "grace",
    "hudson",
    "humboldt",
    "ibnbattuta",
    "kotzebue",
    "laperouse",
    "magellan",
    "malaspina",
    "maury",
    "mercator",
    "nansen",
    "nelson",
    "orellana",
    "parry",
    "piri",
    "polo",
    "purser",
    "pytheas",
    "ross",
    "scoresby",
    "shackleton",
    "slocum",
    "smeaton",
    "tasman",
    "torres",
    "tupaia",
    "vancouver",
    "vespucci",
    "wallis",
    "weddell",
    "wilkes",
    "zarco",
    "zheng",
];

/// A random name, `adjective_surname`; after some attempts that were taken, with a digit at its end.
pub fn random(attempt: u32) -> String {
    let mut seed = [0u8; 3];
    // Without entropy the names are merely less surprising.
    let _ = rustix::rand::getrandom(&mut seed[..], rustix::rand::GetRandomFlags::NONBLOCK);
    let pick = |list: &[&'static str; 64], byte: u8| list[usize::from(byte) % list.len()];
    let name = format!("{}_{}", pick(&ADJECTIVES, seed[0]), pick(&SURNAMES, seed[1]));
    if attempt < 3 { name } else { format!("{name}{}", seed[2] % 100) }
}

/// A new container or exec ID: 256 random bits in hexadecimal.
pub fn new_id() -> std::io::Result<String> {
    let mut bytes = [0u8; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    // As in Docker: the short form must not read as a number, since that is the default host name.
    let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if id[..12].bytes().all(|b| b.is_ascii_digit()) { new_id() } else { Ok(id) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rule_is_dockers() {
        for good in ["ab", "a1", "A.b_c-d", "/web", "0x", "a."] {
            assert_eq!(parse(good).unwrap(), good.trim_start_matches('/'));
        }
        for bad in ["", "a", "/", "//ab", "-ab", ".ab", "_ab", "a b", "a/b", "é1", "ab\n", "a:b"] {
            let error = parse(bad).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("Invalid container name ({bad}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
            );
        }
    }

    #[test]
    fn lists_hold_no_word_twice_and_make_valid_names() {
        for list in [ADJECTIVES, SURNAMES] {
            let unique: std::collections::BTreeSet<_> = list.iter().collect();
            assert_eq!(unique.len(), list.len());
        }
        for attempt in 0..20 {
            let name = random(attempt);
            assert_eq!(parse(&name).unwrap(), name);
        }
    }

    #[test]
    fn ids_are_64_lower_hexadecimal_digits() {
        let id = new_id().unwrap();
        assert!(
            id.len() == 64 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
            "{id}"
        );
        assert_ne!(id, new_id().unwrap());
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused_without_a_panic(text in ".{0,40}") {
            if let Ok(name) = parse(&text) {
                prop_assert!(name.is_ascii() && !name.contains('/'));
            }
        }
    }
}
