//! The firewall as the engine sees it: one interface over both backends.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::foreign::{Found, Wish};
use super::iptables::Iptables;
use super::table::Table;
use super::watch::{self, Seen};
use super::{FirewallState, Mark, Part, firewalld, foreign, legacy, linked};
use crate::Error;

/// Name of the file below the exec root that notes the rules of the backend `iptables`.
const RECORD: &str = "iptables.rules";

/// What does the work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backend {
    /// A table of its own, over netlink.
    #[default]
    Nftables,
    /// Docker's chains, by `iptables-restore`.
    Iptables,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Nftables => "nftables",
            Backend::Iptables => "iptables",
        })
    }
}

/// The text is no backend.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid firewall-backend \"{0}\"")]
pub struct UnknownBackend(String);

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "nftables" => Ok(Backend::Nftables),
            "iptables" => Ok(Backend::Iptables),
            _ => Err(UnknownBackend(text.into())),
        }
    }
}

/// How the firewall is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirewallOptions {
    /// Who does the work.
    pub backend: Backend,
    /// Whether there are rules for IPv4.
    pub ipv4: bool,
    /// Whether there are rules for IPv6.
    pub ipv6: bool,
    /// With the backend `iptables`, connections that Docker has a proxy for are translated by rules in Docker's chains
    /// too, instead of a table beside.
    pub hairpin: bool,
    /// Packets with this mark reach containers.
    pub mark: Option<Mark>,
    /// With the backend `iptables`, whether there are rules in the table `raw`, which some kernels have not.
    pub raw: bool,
}

impl Default for FirewallOptions {
    fn default() -> Self {
        FirewallOptions {
            backend: Backend::Nftables,
            ipv4: true,
            ipv6: true,
            hairpin: false,
            mark: None,
            raw: true,
        }
    }
}

/// The firewall of the network namespace of the calling process. Its calls take some milliseconds, with `iptables` some
/// tens, and belong on threads that may block.
///
/// Once it was set up it watches over itself: rules that others take away come back within a second, where the tables
/// of the older kind of `iptables` are concerned within ten.
pub struct Firewall(Arc<Inner>);

struct Inner {
    options: FirewallOptions,
    // Held over a whole change: two would mix what they read with what the other writes.
    current: Mutex<Current>,
    /// What was said last, and when rules were last restored: behind a lock of their own, since `info` must not wait.
    report: Mutex<Report>,
}

#[derive(Default)]
struct Report {
    warnings: Vec<String>,
    restored: Option<SystemTime>,
}

struct Current {
    state: FirewallState,
    table: Table,
    /// The table of links is there.
    linked: bool,
    /// By family: what nobody lets through is for other tables to drop.
    others_drop: [bool; 2],
    iptables: Iptables,
    watched: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // After a panic the state may be ahead of the kernel, which the next change puts right.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Firewall {
    /// A firewall that is not set up yet; nothing is touched before [`Firewall::reconcile`]. `owner` is some text that is
    /// the engine's own and stays the same: another engine's table is left alone.
    pub fn new(options: FirewallOptions, exec_root: &Path, owner: &str) -> Firewall {
        let iptables = Iptables::new(options, exec_root.join(RECORD));
        let table = Table::of(owner);
        let (state, others_drop) = (FirewallState::default(), [false; 2]);
        let current = Current { state, table, linked: false, others_drop, iptables, watched: false };
        Firewall(Arc::new(Inner { options, current: Mutex::new(current), report: Mutex::default() }))
    }

    /// Makes the rules exactly what `state` says, whatever is there; connections that are open go on. What another
    /// backend left is taken away.
    pub fn reconcile(&self, state: &FirewallState) -> Result<(), Error> {
        let mut current = lock(&self.0.current);
        if self.0.is_off() {
            return Ok(());
        }
        current.table.settle()?;
        if !current.watched {
            // Before the rules: what is taken away from now on is noticed.
            current.watched = watch::start(Arc::clone(&self.0));
        }
        current.state = state.clone();
        self.0.put_right(&mut current)
    }

    /// Adds what is new. After an error, nothing of it is in force.
    pub fn add(&self, new: &FirewallState) -> Result<(), Error> {
        self.exchange(&FirewallState::default(), new)
    }

    /// Puts some of the state in the place of some other; what is in both stays as it is. After an error, all is as before.
    pub fn exchange(&self, old: &FirewallState, new: &FirewallState) -> Result<(), Error> {
        let mut current = lock(&self.0.current);
        let before = current.state.clone();
        current.state.subtract(old);
        current.state.extend(new);
        if self.0.change(&mut current, old, new).is_ok() {
            return Ok(());
        }
        // Others may have emptied it.
        let outcome = self.0.put_right(&mut current);
        if outcome.is_err() {
            current.state = before;
            if let Err(error) = self.0.put_right(&mut current) {
                tracing::warn!(%error, "the firewall could not be put right");
            }
        }
        outcome
    }

    /// Takes out what is gone.
    pub fn remove(&self, old: &FirewallState) -> Result<(), Error> {
        let mut current = lock(&self.0.current);
        current.state.subtract(old);
        match self.0.change(&mut current, old, &FirewallState::default()) {
            Ok(()) => Ok(()),
            // Others may have emptied it.
            Err(_) => self.0.put_right(&mut current),
        }
    }

    /// Takes away the tables of an engine that ends, and of which nothing runs, if another was there before it: what they
    /// say of links that both have, such as `docker0`, would hold for the other's containers, too.
    pub fn end(&self) -> Result<(), Error> {
        let mut current = lock(&self.0.current);
        if self.0.is_off() || !current.watched || !current.table.is_second() {
            return Ok(());
        }
        current.state = FirewallState::default();
        current.linked = linked::reconcile(&current.table, &current.state)?;
        super::remove(&current.table)
    }

    /// Says by family, IPv4 first, whether what is no container's is not forwarded ([`FirewallState::drops`]).
    pub fn set_drops(&self, drops: [bool; 2]) -> Result<(), Error> {
        let mut current = lock(&self.0.current);
        if current.state.drops == drops {
            return Ok(());
        }
        current.state.drops = drops;
        self.0.put_right(&mut current)
    }

    /// Whether there are no rules at all.
    pub fn is_off(&self) -> bool {
        self.0.is_off()
    }

    /// What keeps containers from being reached, in words for `info`.
    pub fn warnings(&self) -> Vec<String> {
        lock(&self.0.report).warnings.clone()
    }

    /// When rules were last put back that others had taken away.
    pub fn restored(&self) -> Option<SystemTime> {
        lock(&self.0.report).restored
    }

    /// Who does the work.
    pub fn backend(&self) -> Backend {
        self.0.options.backend
    }
}

impl Inner {
    fn is_off(&self) -> bool {
        !self.options.ipv4 && !self.options.ipv6
    }

    fn part(&self) -> Part {
        match self.options.backend {
            Backend::Nftables => Part::Whole,
            Backend::Iptables => Part::Companion,
        }
    }

    /// Whether the table of our own is needed.
    fn has_table(&self) -> bool {
        self.options.backend == Backend::Nftables || !self.options.hairpin
    }

    fn change(&self, current: &mut Current, old: &FirewallState, new: &FirewallState) -> Result<(), Error> {
        if self.is_off() {
            return Ok(());
        }
        if self.options.backend == Backend::Iptables {
            current.iptables.change(&current.state)?;
        }
        if self.has_table() {
            super::exchange(&current.table, old, new)?;
        }
        if !old.partners.is_empty()
            || !new.partners.is_empty()
            || !old.links.is_empty()
            || !new.links.is_empty()
        {
            self.change_links(current, old, new)?;
        }
        if !old.bridges.is_empty() || !new.bridges.is_empty() {
            self.let_through(current, &old.bridge_names())?;
        }
        Ok(())
    }

    fn put_right(&self, current: &mut Current) -> Result<(), Error> {
        if self.is_off() {
            return Ok(());
        }
        match self.options.backend {
            Backend::Iptables => current.iptables.reconcile(&current.state)?,
            // First the new rules: there is no moment without any.
            Backend::Nftables => {}
        }
        if self.has_table() {
            self.put_table(current)?;
        } else {
            super::remove(&current.table)?;
        }
        if self.options.backend == Backend::Nftables {
            current.iptables.remove()?;
        }
        current.linked = linked::reconcile(&current.table, &current.state)?;
        self.let_through(current, &[])
    }

    /// After an error, the table is made anew with the rest.
    fn change_links(
        &self,
        current: &mut Current,
        old: &FirewallState,
        new: &FirewallState,
    ) -> Result<(), Error> {
        if current.linked {
            return linked::exchange(&current.table, old, new);
        }
        current.linked = linked::reconcile(&current.table, &current.state)?;
        Ok(())
    }

    fn put_table(&self, current: &Current) -> Result<(), Error> {
        super::reconcile(&current.table, &current.state, current.own_drops(), self.part(), &self.options)
    }

    /// Lets bridges through other tables that drop, and leaves to them what they drop themselves.
    fn let_through(&self, current: &mut Current, gone: &[String]) -> Result<(), Error> {
        let own_iptables = self.options.backend == Backend::Iptables;
        let drops = if own_iptables { [false; 2] } else { current.state.drops };
        let wish = Wish { bridges: &current.state.bridge_names(), gone, drops, own_iptables };
        let mut found = foreign::let_through(wish).unwrap_or_else(|error| Found {
            warnings: vec![format!(
                "Whether another table drops what containers send could not be seen: {error}"
            )],
            others_drop: current.others_drop,
            firewalld: false,
        });
        if found.firewalld
            && let Err(error) = firewalld::join(wish.bridges, gone)
        {
            let warning = "firewalld was not told of bridges of containers, and may keep them from this host";
            found.warnings.push(format!("{warning}: {error}"));
        }
        let older = legacy::let_through(wish);
        found.warnings.extend(older.warnings);
        let others_drop = [0, 1].map(|family| found.others_drop[family] || older.others_drop[family]);
        self.report(found.warnings);
        let before = current.own_drops();
        current.others_drop = others_drop;
        if current.own_drops() != before && self.has_table() {
            self.put_table(current)?;
        }
        Ok(())
    }

    fn report(&self, warnings: Vec<String>) {
        let mut report = lock(&self.report);
        for warning in warnings.iter().filter(|warning| !report.warnings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        report.warnings = warnings;
    }
}

impl Current {
    /// By family: what is no container's is dropped by the table of our own.
    fn own_drops(&self) -> [bool; 2] {
        [0, 1].map(|family| self.state.drops[family] && !self.others_drop[family])
    }
}

impl watch::Watched for Inner {
    fn is_ours(&self, process: u32) -> bool {
        lock(&self.current).iptables.is_ours(process)
    }

    fn is_own_table(&self, name: &str) -> bool {
        lock(&self.current).table.is(name)
    }

    fn restore(&self, seen: Seen) -> Result<bool, Error> {
        let mut current = lock(&self.current);
        let mut damaged = false;
        if seen.own_table {
            if self.has_table() {
                self.put_table(&current)?;
                damaged = true;
            }
            let was = current.linked;
            current.linked = linked::reconcile(&current.table, &current.state)?;
            damaged |= was;
        }
        if self.options.backend == Backend::Iptables && current.iptables.is_damaged()? {
            let state = current.state.clone();
            current.iptables.reconcile(&state)?;
            damaged = true;
        }
        self.let_through(&mut current, &[])?;
        if damaged {
            lock(&self.report).restored = Some(SystemTime::now());
            tracing::info!("firewall rules that others had changed were put back");
        }
        Ok(damaged)
    }
}

impl FirewallState {
    fn bridge_names(&self) -> Vec<String> {
        self.bridges.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Adds what another has.
    fn extend(&mut self, other: &FirewallState) {
        self.bridges.extend_from_slice(&other.bridges);
        self.ports.extend_from_slice(&other.ports);
        self.reached.extend_from_slice(&other.reached);
        self.subnets.extend_from_slice(&other.subnets);
        self.addresses.extend_from_slice(&other.addresses);
        self.links.extend_from_slice(&other.links);
        self.pairs.extend_from_slice(&other.pairs);
        self.trusted.extend_from_slice(&other.trusted);
        self.offered.extend_from_slice(&other.offered);
        self.partners.extend_from_slice(&other.partners);
    }

    /// Takes out what another has.
    fn subtract(&mut self, other: &FirewallState) {
        self.bridges.retain(|one| !other.bridges.contains(one));
        self.ports.retain(|one| !other.ports.contains(one));
        self.reached.retain(|one| !other.reached.contains(one));
        self.subnets.retain(|one| !other.subnets.contains(one));
        self.addresses.retain(|one| !other.addresses.contains(one));
        self.links.retain(|one| !other.links.contains(one));
        self.pairs.retain(|one| !other.pairs.contains(one));
        self.trusted.retain(|one| !other.trusted.contains(one));
        self.offered.retain(|one| !other.offered.contains(one));
        self.partners.retain(|one| !other.partners.contains(one));
    }
}
