//! What `iptables-save` says is there.

use std::collections::{HashMap, HashSet};

/// Chains and rules of one family.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// Tables and chains, such as `filter DOCKER`.
    chains: HashSet<String>,
    /// How often each rule is there, by table, chain and words, and where it is first: at that line of the listing.
    rules: HashMap<String, (usize, usize)>,
}

/// The administrator's rules for all that is forwarded, and Docker's.
const JUMPS: [&str; 2] = ["filter FORWARD -j DOCKER-USER", "filter FORWARD -j DOCKER-FORWARD"];

impl Listing {
    /// Reads a listing; lines that are none of a listing's are passed over.
    pub(super) fn parse(text: &str) -> Listing {
        let mut listing = Listing::default();
        let mut table = "";
        for (number, line) in text.lines().enumerate() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.trim();
            } else if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split(' ').next().unwrap_or_default();
                listing.chains.insert(format!("{table} {name}"));
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let key = format!("{table} {}", rule.trim_end());
                listing.rules.entry(key).or_insert((0, number)).0 += 1;
            }
        }
        listing
    }

    pub(super) fn has_chain(&self, table: &str, chain: &str) -> bool {
        self.chains.contains(&format!("{table} {chain}"))
    }

    /// How often a rule is there.
    pub(super) fn count(&self, key: &str) -> usize {
        self.rules.get(key).map_or(0, |(count, _)| *count)
    }

    /// Whether the administrator's rules are not asked before Docker's.
    pub(super) fn is_out_of_order(&self) -> bool {
        let [users, dockers] = JUMPS.map(|key| self.rules.get(key).map(|(_, line)| *line));
        matches!((users, dockers), (Some(users), Some(dockers)) if users > dockers)
    }

    /// Takes a rule out, wherever it is.
    pub(super) fn forget(&mut self, key: &str) {
        self.rules.remove(key);
    }

    /// Whether a chain has rules.
    pub(super) fn is_filled(&self, table: &str, chain: &str) -> bool {
        let start = format!("{table} {chain} ");
        self.rules.keys().any(|key| key.starts_with(&start))
    }

    /// Whether a rule of its table leads to a chain.
    pub(super) fn is_used(&self, table: &str, chain: &str) -> bool {
        let (start, ends) = (format!("{table} "), [format!(" -j {chain}"), format!(" -g {chain}")]);
        self.rules.keys().any(|key| key.starts_with(&start) && ends.iter().any(|end| key.ends_with(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_listing_is_read() {
        let text = "# Generated\n*filter\n:FORWARD DROP [3:180]\n:DOCKER - [0:0]\n-A FORWARD -j DOCKER\n\
            -A FORWARD -j DOCKER\nCOMMIT\n*nat\n:DOCKER - [0:0]\n-A DOCKER -j RETURN\nCOMMIT\n";
        let mut listing = Listing::parse(text);
        assert!(listing.has_chain("filter", "DOCKER") && !listing.has_chain("raw", "DOCKER"));
        assert_eq!(listing.count("filter FORWARD -j DOCKER"), 2);
        assert!(listing.is_used("filter", "DOCKER") && !listing.is_used("nat", "DOCKER"));
        assert!(listing.is_filled("nat", "DOCKER") && !listing.is_filled("filter", "DOCKER"));
        assert!(!listing.is_out_of_order());
        let jumps = |first: &str, second: &str| {
            Listing::parse(&format!("*filter\n-A FORWARD -j {first}\n-A FORWARD -j {second}\nCOMMIT\n"))
        };
        assert!(jumps("DOCKER-FORWARD", "DOCKER-USER").is_out_of_order());
        assert!(!jumps("DOCKER-USER", "DOCKER-FORWARD").is_out_of_order());
        listing.forget("filter FORWARD -j DOCKER");
        assert!(!listing.is_used("filter", "DOCKER"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in "[*:A-Z -]{0,80}(\n[-A *:]{0,20}){0,5}") {
            Listing::parse(&text);
        }
    }
}
