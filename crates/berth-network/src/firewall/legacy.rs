//! The older kind of `iptables`, whose tables the kernel keeps apart from nftables and announces no change of: its own
//! program has to be asked. It is, only where such tables are in use.

use std::fs;
use std::io;
use std::process::Command;

use super::foreign::{Found, Wish};

/// Whether a filter table of the older kind is in use in this network namespace.
pub(super) fn is_used() -> bool {
    FAMILIES.iter().any(|(names, _)| has_filter(names))
}

const DROPS: &str = "-P FORWARD DROP";
const FAMILIES: [(&str, &str); 2] = [
    ("/proc/thread-self/net/ip_tables_names", "iptables-legacy"),
    ("/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy"),
];

fn has_filter(names: &str) -> bool {
    fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == "filter"))
}

/// Does in forward chains of the older kind what [`super::foreign`] does elsewhere.
pub(super) fn let_through(wish: Wish<'_>) -> Found {
    let mut found = Found::default();
    let used = FAMILIES.into_iter().enumerate().filter(|(_, (names, _))| has_filter(names));
    for (family, (_, program)) in used {
        match open(program, wish, wish.drops[family]) {
            Ok(closed) => found.others_drop[family] = closed,
            Err(error) => found.warnings.push(format!(
                "The forward chain of {program} may drop what containers send and receive, and could not be changed: {error}"
            )),
        }
    }
    found
}

/// Whether the chain drops what it does not know, or does from now on.
fn open(program: &str, wish: Wish<'_>, drops: bool) -> io::Result<bool> {
    let listing = run(program, &["-w", "-S", "FORWARD"])?;
    for change in changes(&listing, wish, drops) {
        let words: Vec<&str> = ["-w"].into_iter().chain(change.split(' ')).collect();
        run(program, &words)?;
    }
    Ok(drops || is_closed(&listing))
}

/// Whether what was listed lets nothing else through.
fn is_closed(listing: &str) -> bool {
    let last = listing.lines().filter_map(|line| line.strip_prefix("-A FORWARD ")).next_back();
    last.is_some_and(ends) || listing.lines().any(|line| line == DROPS)
}

fn ends(rule: &str) -> bool {
    rule.starts_with("-j DROP") || rule.starts_with("-j REJECT")
}

/// The commands that grant the wish in what `-S FORWARD` listed.
fn changes(listing: &str, wish: Wish<'_>, drops: bool) -> Vec<String> {
    let rules: Vec<&str> = listing.lines().filter_map(|line| line.strip_prefix("-A FORWARD ")).collect();
    // The backend's own chains know the bridges.
    if wish.own_iptables && rules.contains(&"-j DOCKER-FORWARD") {
        return Vec::new();
    }
    let closes = rules.last().is_some_and(|rule| ends(rule));
    let closed = drops || is_closed(listing);
    let both = |bridge: &String| [format!("-i {bridge} -j ACCEPT"), format!("-o {bridge} -j ACCEPT")];
    let there = |rule: &String| rules.contains(&rule.as_str());
    let mut changes = Vec::new();
    for rule in wish.bridges.iter().flat_map(both).filter(|rule| closed && !there(rule)) {
        changes.push(match closes {
            true => format!("-I FORWARD {} {rule}", rules.len()),
            false => format!("-A FORWARD {rule}"),
        });
    }
    if drops && !listing.lines().any(|line| line == DROPS) {
        changes.push(DROPS.into());
    }
    changes.extend(wish.gone.iter().flat_map(both).filter(there).map(|rule| format!("-D FORWARD {rule}")));
    changes
}

fn run(program: &str, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish<'a>(bridges: &'a [String], gone: &'a [String], own_iptables: bool) -> Wish<'a> {
        Wish { bridges, gone, drops: [false; 2], own_iptables }
    }

    #[test]
    fn only_a_chain_that_drops_is_changed() {
        let bridge = ["b0".to_owned()];
        let commands = |listing: &str| changes(listing, wish(&bridge, &[], false), false);
        assert!(commands("-P FORWARD ACCEPT\n-A FORWARD -i x -j DROP\n").is_empty());
        let both = ["-A FORWARD -i b0 -j ACCEPT", "-A FORWARD -o b0 -j ACCEPT"];
        assert_eq!(commands("-P FORWARD DROP\n"), both);
        assert_eq!(commands("-P FORWARD DROP\n-A FORWARD -i b0 -j ACCEPT\n"), both[1..]);
        let last = "-P FORWARD ACCEPT\n-A FORWARD -i x -j ACCEPT\n-A FORWARD -j REJECT --reject-with x\n";
        assert_eq!(commands(last)[0], "-I FORWARD 2 -i b0 -j ACCEPT");
        assert_eq!(
            changes("-P FORWARD DROP\n-A FORWARD -i b0 -j ACCEPT\n", wish(&[], &bridge, false), false),
            ["-D FORWARD -i b0 -j ACCEPT"]
        );
    }

    #[test]
    fn only_chains_of_our_own_know_the_bridges() {
        let (bridge, docker) = (["b0".to_owned()], "-P FORWARD DROP\n-A FORWARD -j DOCKER-FORWARD\n");
        assert!(changes(docker, wish(&bridge, &[], true), false).is_empty());
        assert_eq!(changes(docker, wish(&bridge, &[], false), false).len(), 2);
    }

    #[test]
    fn a_chain_that_is_closed_lets_bridges_through_before() {
        let bridge = ["b0".to_owned()];
        let all = changes("-P FORWARD ACCEPT\n", wish(&bridge, &[], false), true);
        assert_eq!(all, ["-A FORWARD -i b0 -j ACCEPT", "-A FORWARD -o b0 -j ACCEPT", "-P FORWARD DROP"]);
        let again = "-P FORWARD DROP\n-A FORWARD -i b0 -j ACCEPT\n-A FORWARD -o b0 -j ACCEPT\n";
        assert!(changes(again, wish(&bridge, &[], false), true).is_empty());
    }
}
