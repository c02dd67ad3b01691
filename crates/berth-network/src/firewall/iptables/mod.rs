//! The second backend: Docker's chains, as administrators and their tools know them, by way of `iptables-restore`.
//!
//! Each change is one run for each family, of the difference only: rules of others in the same chains stay, and
//! `DOCKER-USER` is never written to. What Docker has a proxy for, the table of the other backend does here
//! ([`super::Part::Companion`]), so that listings are Docker's.

mod listing;
mod record;
mod rules;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{FirewallOptions, FirewallState};
use crate::{Error, sysctl};
use listing::Listing;
use record::Record;
use rules::{CHAINS, Place, Rule};

/// Processes whose changes are remembered as our own.
const REMEMBERED: usize = 32;

/// One host's chains.
pub(super) struct Iptables {
    /// IPv4 and IPv6: whether they are ours to change.
    families: [bool; 2],
    options: FirewallOptions,
    record: Record,
    /// Rules in force, as far as is known.
    current: [Vec<Rule>; 2],
    /// By family: nothing but what rules let through is forwarded. As with Docker, that stays.
    drops: [bool; 2],
    /// Process IDs of the last programs that were run.
    ours: VecDeque<u32>,
    /// What an engine before this one left is gone; what comes now is another's beside it.
    looked: bool,
}

impl Iptables {
    pub(super) fn new(options: FirewallOptions, record: PathBuf) -> Iptables {
        let families = [options.ipv4, options.ipv6];
        let current = [Vec::new(), Vec::new()];
        let (record, drops) = (Record::new(record), [false; 2]);
        Iptables { families, options, record, current, drops, ours: VecDeque::new(), looked: false }
    }

    fn families(&self) -> impl Iterator<Item = usize> + use<> {
        let families = self.families;
        (0..2).filter(move |family| families[*family])
    }

    /// Whether a process was started here.
    pub(super) fn is_ours(&self, process: u32) -> bool {
        self.ours.contains(&process)
    }

    /// Goes from what is in force to `state`. If others have changed the rules meanwhile, all is looked at.
    pub(super) fn change(&mut self, state: &FirewallState) -> Result<(), Error> {
        for family in self.families() {
            let wanted = rules::rules(state, family == 1, &self.options);
            let have: BTreeSet<String> = self.current[family].iter().map(Rule::key).collect();
            let want: BTreeSet<String> = wanted.iter().map(Rule::key).collect();
            let mut script = Script::default();
            self.note_drops(family, state, &mut script);
            for rule in self.current[family].iter().filter(|rule| !want.contains(&rule.key())) {
                script.push(rule.table, format!("-D {} {}", rule.chain, rule.words));
            }
            let added: Vec<&Rule> = wanted.iter().filter(|rule| !have.contains(&rule.key())).collect();
            added.iter().for_each(|rule| script.add(rule));
            let lines: Vec<String> = added.iter().map(|rule| line(family, &rule.key())).collect();
            self.record.add(&lines).map_err(failed("note the rules"))?;
            if self.restore(family, &script).is_err() {
                return self.reconcile(state);
            }
            (self.current[family], self.drops[family]) = (wanted, state.drops[family]);
        }
        if self.record.is_stale(self.current.iter().map(Vec::len).sum()) {
            self.keep_record()?;
        }
        Ok(())
    }

    /// Makes the rules what `state` says, whatever they are; true if anything had to be done.
    pub(super) fn reconcile(&mut self, state: &FirewallState) -> Result<(), Error> {
        let recorded = self.record.read().map_err(failed("read the noted rules"))?;
        for family in self.families() {
            if self.options.hairpin {
                filter_bridged(BRIDGED[family])?;
            }
            let wanted = rules::rules(state, family == 1, &self.options);
            let listing = self.listing(family)?;
            let mut noted = of_family(&recorded, family);
            if !self.looked {
                noted.extend(rules::EARLIER.map(str::to_owned));
            }
            let mut script = difference(&listing, &wanted, &noted);
            self.drops[family] = false;
            self.note_drops(family, state, &mut script);
            let lines: Vec<String> = wanted.iter().map(|rule| line(family, &rule.key())).collect();
            self.record.add(&lines).map_err(failed("note the rules"))?;
            self.restore(family, &script)?;
            (self.current[family], self.drops[family]) = (wanted, state.drops[family]);
        }
        self.looked = true;
        self.keep_record()
    }

    fn note_drops(&self, family: usize, state: &FirewallState, script: &mut Script) {
        if state.drops[family] && !self.drops[family] {
            script.push("filter", ":FORWARD DROP [0:0]".into());
        }
    }

    /// Whether a rule or chain is missing, or the administrator's rules are passed by.
    pub(super) fn is_damaged(&mut self) -> Result<bool, Error> {
        for family in self.families() {
            let listing = self.listing(family)?;
            let there = |rule: &Rule| listing.count(&rule.key()) > 0;
            if !self.current[family].iter().all(there) || listing.is_out_of_order() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes away what was added, and the chains that nobody else uses. Without a note of any rule, no program is run.
    pub(super) fn remove(&mut self) -> Result<(), Error> {
        let recorded = self.record.read().map_err(failed("read the noted rules"))?;
        for family in 0..2 {
            let noted = of_family(&recorded, family);
            if noted.is_empty() {
                continue;
            }
            let mut listing = self.listing(family)?;
            // Whoever wrote rules for all containers keeps them.
            let kept = "filter FORWARD -j DOCKER-USER";
            let users = listing.is_filled("filter", "DOCKER-USER");
            let gone: BTreeSet<String> = noted.into_iter().filter(|key| !(users && key == kept)).collect();
            let mut script = difference_without_chains(&listing, &[], &gone);
            gone.iter().for_each(|key| listing.forget(key));
            for (table, chain) in CHAINS {
                let unused = !listing.is_filled(table, chain) && !listing.is_used(table, chain);
                if listing.has_chain(table, chain) && unused {
                    script.push(table, format!("-X {chain}"));
                }
            }
            self.restore(family, &script)?;
            self.current[family] = Vec::new();
        }
        self.record.replace(&BTreeSet::new()).map_err(failed("forget the noted rules"))
    }

    fn keep_record(&mut self) -> Result<(), Error> {
        let mut lines = BTreeSet::new();
        for (family, rules) in self.current.iter().enumerate() {
            lines.extend(rules.iter().map(|rule| line(family, &rule.key())));
        }
        self.record.replace(&lines).map_err(failed("note the rules"))
    }

    fn listing(&mut self, family: usize) -> Result<Listing, Error> {
        let program = ["iptables-save", "ip6tables-save"][family];
        Ok(Listing::parse(&self.run(program, &[], "")?))
    }

    fn restore(&mut self, family: usize, script: &Script) -> Result<(), Error> {
        if script.0.is_empty() {
            return Ok(());
        }
        let program = ["iptables-restore", "ip6tables-restore"][family];
        self.run(program, &["--noflush", "--wait"], &script.text()).map(drop)
    }

    fn run(&mut self, program: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
        let failed = failed(program);
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(&failed)?;
        self.ours.truncate(REMEMBERED - 1);
        self.ours.push_front(child.id());
        if let Some(mut stdin) = child.stdin.take()
            && let Err(error) = stdin.write_all(input.as_bytes())
            // It says why below.
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(failed(error));
        }
        let output = child.wait_with_output().map_err(&failed)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(io::Error::other(said.trim().replace('\n', "; "))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Whether the rules see packets from one port of a bridge to another, by family.
const BRIDGED: [&str; 2] = ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"];

/// Without a proxy, what a neighbour answers a container that asked at the host's port has to be translated back. A kernel
/// that cannot filter bridges lacks the setting, and nothing can be done.
fn filter_bridged(setting: &str) -> Result<(), Error> {
    match sysctl::get(setting) {
        Ok(value) if value != "1" => sysctl::set(setting, "1"),
        _ => Ok(()),
    }
}

fn failed(operation: &str) -> impl Fn(io::Error) -> Error {
    let operation = operation.to_owned();
    move |source| Error::Iptables { operation: operation.clone(), source }
}

fn line(family: usize, key: &str) -> String {
    format!("{} {key}", ["4", "6"][family])
}

fn of_family(lines: &BTreeSet<String>, family: usize) -> BTreeSet<String> {
    let start = ["4 ", "6 "][family];
    lines.iter().filter_map(|line| line.strip_prefix(start)).map(str::to_owned).collect()
}

/// What leads from a listing to the wanted rules: missing chains and rules are added, noted ones that are no longer
/// wanted removed. In a chain that has lost a rule, all are added again: they have an order.
fn difference(listing: &Listing, wanted: &[Rule], noted: &BTreeSet<String>) -> Script {
    let mut script = Script::default();
    for (table, chain) in CHAINS {
        if !listing.has_chain(table, chain) {
            script.push(table, format!("-N {chain}"));
        }
    }
    for (table, lines) in difference_without_chains(listing, wanted, noted).0 {
        lines.into_iter().for_each(|line| script.push(table, line));
    }
    script
}

fn difference_without_chains(listing: &Listing, wanted: &[Rule], noted: &BTreeSet<String>) -> Script {
    let mut script = Script::default();
    let want: BTreeSet<String> = wanted.iter().map(Rule::key).collect();
    for key in noted.iter().filter(|key| !want.contains(*key)) {
        let Some((table, rule)) = key.split_once(' ') else { continue };
        let Some(table) = ["raw", "filter", "nat"].into_iter().find(|known| *known == table) else {
            continue;
        };
        for _ in 0..listing.count(key) {
            script.push(table, format!("-D {rule}"));
        }
    }
    let lost = wanted.iter().filter(|rule| listing.count(&rule.key()) == 0);
    let mut torn: BTreeSet<_> = lost.map(|rule| (rule.table, rule.chain)).collect();
    if listing.is_out_of_order() {
        torn.insert(("filter", "FORWARD"));
    }
    let again = || wanted.iter().filter(|rule| torn.contains(&(rule.table, rule.chain)));
    for rule in again() {
        for _ in 0..listing.count(&rule.key()) {
            script.push(rule.table, format!("-D {} {}", rule.chain, rule.words));
        }
    }
    again().for_each(|rule| script.add(rule));
    script
}

/// Commands by table.
#[derive(Default)]
struct Script(HashMap<&'static str, Vec<String>>);

impl Script {
    fn push(&mut self, table: &'static str, line: String) {
        self.0.entry(table).or_default().push(line);
    }

    fn add(&mut self, rule: &Rule) {
        let verb = match rule.place {
            Place::Top => "-I",
            Place::End => "-A",
        };
        self.push(rule.table, format!("{verb} {} {}", rule.chain, rule.words));
    }

    /// The commands as `iptables-restore` reads them. What drops comes before what lets in.
    fn text(&self) -> String {
        let mut text = String::new();
        for table in ["raw", "filter", "nat"] {
            if let Some(lines) = self.0.get(table) {
                text.push_str(&format!("*{table}\n{}\nCOMMIT\n", lines.join("\n")));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests;
