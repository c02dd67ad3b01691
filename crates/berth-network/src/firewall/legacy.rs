//! The older kind of `iptables`, whose tables the kernel keeps apart from nftables and announces no change of: its own
//! program has to be asked. It is, only where such tables are in use.

use std::fs;
use std::io;
use std::process::Command;

/// Whether a filter table of the older kind is in use in this network namespace.
pub(super) fn is_used() -> bool {
    FAMILIES.iter().any(|(names, _)| has_filter(names))
}

const FAMILIES: [(&str, &str); 2] = [
    ("/proc/thread-self/net/ip_tables_names", "iptables-legacy"),
    ("/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy"),
];

fn has_filter(names: &str) -> bool {
    fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == "filter"))
}

/// Lets the bridges through forward chains of the older kind that drop, as [`super::foreign`] does elsewhere. What could
/// not be done comes back in words.
pub(super) fn let_through(bridges: &[String], gone: &[String]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (names, program) in FAMILIES {
        if has_filter(names)
            && let Err(error) = open(program, bridges, gone)
        {
            warnings.push(format!(
                "The forward chain of {program} may drop what containers send and receive, and could not be changed: {error}"
            ));
        }
    }
    warnings
}

fn open(program: &str, bridges: &[String], gone: &[String]) -> io::Result<()> {
    let listing = run(program, &["-w", "-S", "FORWARD"])?;
    for change in changes(&listing, bridges, gone) {
        let words: Vec<&str> = ["-w"].into_iter().chain(change.split(' ')).collect();
        run(program, &words)?;
    }
    Ok(())
}

/// The commands that let the bridges through what `-S FORWARD` listed.
fn changes(listing: &str, bridges: &[String], gone: &[String]) -> Vec<String> {
    let rules: Vec<&str> = listing.lines().filter_map(|line| line.strip_prefix("-A FORWARD ")).collect();
    // Docker's chains are there: they know the bridges.
    if rules.contains(&"-j DOCKER-FORWARD") {
        return Vec::new();
    }
    let closes =
        rules.last().is_some_and(|rule| rule.starts_with("-j DROP") || rule.starts_with("-j REJECT"));
    let closed = closes || listing.lines().any(|line| line == "-P FORWARD DROP");
    let both = |bridge: &String| [format!("-i {bridge} -j ACCEPT"), format!("-o {bridge} -j ACCEPT")];
    let there = |rule: &String| rules.contains(&rule.as_str());
    let mut changes = Vec::new();
    for rule in bridges.iter().flat_map(both).filter(|rule| closed && !there(rule)) {
        changes.push(match closes {
            true => format!("-I FORWARD {} {rule}", rules.len()),
            false => format!("-A FORWARD {rule}"),
        });
    }
    changes.extend(gone.iter().flat_map(both).filter(there).map(|rule| format!("-D FORWARD {rule}")));
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

    #[test]
    fn only_a_chain_that_drops_is_changed() {
        let (bridge, none) = (vec!["b0".to_owned()], Vec::new());
        let commands = |listing: &str| changes(listing, &bridge, &none);
        assert!(commands("-P FORWARD ACCEPT\n-A FORWARD -i x -j DROP\n").is_empty());
        let both = ["-A FORWARD -i b0 -j ACCEPT", "-A FORWARD -o b0 -j ACCEPT"];
        assert_eq!(commands("-P FORWARD DROP\n"), both);
        assert_eq!(commands("-P FORWARD DROP\n-A FORWARD -i b0 -j ACCEPT\n"), both[1..]);
        let last = "-P FORWARD ACCEPT\n-A FORWARD -i x -j ACCEPT\n-A FORWARD -j REJECT --reject-with x\n";
        assert_eq!(commands(last)[0], "-I FORWARD 2 -i b0 -j ACCEPT");
        assert!(commands("-P FORWARD DROP\n-A FORWARD -j DOCKER-FORWARD\n").is_empty());
        assert_eq!(
            changes("-P FORWARD DROP\n-A FORWARD -i b0 -j ACCEPT\n", &none, &bridge),
            ["-D FORWARD -i b0 -j ACCEPT"]
        );
    }
}
