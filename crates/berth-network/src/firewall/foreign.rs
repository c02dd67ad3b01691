//! Other tables' drops: a packet goes on only if every forward chain of the host lets it.
//!
//! Where another table drops what it does not know, as of `nftables.conf`, ufw, firewalld or `iptables -P FORWARD DROP`,
//! the bridges are let through there too: one plain rule for each bridge and direction, of the kind that `iptables` itself
//! would write, after that table's own rules, so that what the administrator denies stays denied. Whether a container may
//! be reached is still for our own table to say.
//!
//! For the same reason a drop of our own, of what is no container's, would hit what others let through: a Docker on the
//! same host, or virtual machines. It is not needed where another chain drops what it does not know. Where `iptables` has a
//! forward chain, the drop is its policy, as it is with Docker, and what others let through there goes on. A Docker with
//! tables of nftables leaves forwarding to the administrator.

use super::message::{self, Attributes, Kind, Message, Transaction};
use super::table;
use crate::Error;

const FORWARD_HOOK: u32 = 2;
const POLICY_DROP: u32 = 0;
const VERDICT_DROP: u32 = 0;
const VERDICT_ACCEPT: u32 = 1;
const POLICY_ATTRIBUTE: u16 = 5;
/// The table of a Docker that does without `iptables`.
const DOCKERS_TABLE: &str = "docker-bridges";
const FIREWALLDS_TABLE: &str = "firewalld";
const FAMILY_INET: u8 = 1;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
const META_INPUT_NAME: u32 = 6;
const META_OUTPUT_NAME: u32 = 7;

/// A forward chain of another table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    family: u8,
    table: String,
    chain: String,
    drops: bool,
    /// The handle of the last rule, if that one drops or rejects everything.
    last: Option<u64>,
    accepts: Vec<Accept>,
}

/// A rule that lets all packets from or to a link through.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Accept {
    link: String,
    outward: bool,
    handle: u64,
}

/// What is to be let through, and what is not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    /// Bridges that are let through.
    pub bridges: &'a [String],
    /// Those that are no longer.
    pub gone: &'a [String],
    /// By family, IPv4 first: what nobody lets through is dropped.
    pub drops: [bool; 2],
    /// The chains of `iptables` are the backend's own, which writes its rules there itself.
    pub own_iptables: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What could not be done, in words.
    pub warnings: Vec<String>,
    /// By family: what nobody lets through is for others to drop.
    pub others_drop: [bool; 2],
    /// firewalld has rules here.
    pub firewalld: bool,
}

/// Lets bridges through all other tables' forward chains, and drops what nobody lets through.
pub(super) fn let_through(wish: Wish<'_>) -> Result<Found, Error> {
    let (mut found, chains) = (Found::default(), chains()?);
    let mut wish = wish;
    for chain in chains.iter().filter(|chain| chain.table == DOCKERS_TABLE) {
        for family in chain.families() {
            found.others_drop[family] = true;
            wish.drops[family] = false;
        }
    }
    for chain in chains {
        found.firewalld |= chain.table == FIREWALLDS_TABLE;
        if chain.is_of_iptables() && wish.own_iptables {
            continue;
        }
        let opened = chain.open(wish);
        if opened.is_ok() && chain.is_closed(wish) {
            chain.families().into_iter().for_each(|family| found.others_drop[family] = true);
        }
        if let Err(error) = opened {
            found.warnings.push(format!(
                "The forward chain {} of table {} drops what containers send and receive, and does not let itself be \
                 changed: {error}",
                chain.chain,
                chain.name()
            ));
        }
    }
    Ok(found)
}

impl Chain {
    fn is_of_iptables(&self) -> bool {
        self.table == "filter" && self.chain == "FORWARD" && self.family != FAMILY_INET
    }

    /// Families whose packets it sees: 0 is IPv4, 1 is IPv6.
    fn families(&self) -> Vec<usize> {
        match self.family {
            FAMILY_IPV4 => vec![0],
            FAMILY_IPV6 => vec![1],
            _ => vec![0, 1],
        }
    }

    /// Whether it drops what it does not know, or is to.
    fn is_closed(&self, wish: Wish<'_>) -> bool {
        let closes = self.is_of_iptables() && self.families().into_iter().any(|family| wish.drops[family]);
        closes || self.drops || self.last.is_some()
    }

    fn name(&self) -> String {
        let family = match self.family {
            FAMILY_IPV4 => "ip",
            FAMILY_IPV6 => "ip6",
            _ => "inet",
        };
        format!("{family} {}", self.table)
    }

    fn open(&self, wish: Wish<'_>) -> Result<(), Error> {
        let mut transaction = Transaction::new();
        let chain = || Attributes::default().text(1, &self.table).text(2, &self.chain);
        if self.is_of_iptables() && !self.drops && self.is_closed(wish) {
            let policy = Attributes::default().text(1, &self.table).text(3, &self.chain);
            let policy = policy.number(POLICY_ATTRIBUTE, POLICY_DROP);
            transaction.push_foreign(Kind::NewChain, self.family, false, policy);
        }
        for bridge in wish.bridges.iter().filter(|_| self.is_closed(wish)) {
            for outward in [false, true] {
                if self.accepts.iter().any(|rule| rule.link == *bridge && rule.outward == outward) {
                    continue;
                }
                let rule = chain().nested(4, accept(bridge, outward));
                let rule = match self.last {
                    Some(handle) => rule.bytes(6, &handle.to_be_bytes()),
                    None => rule,
                };
                transaction.push_foreign(Kind::NewRule, self.family, self.last.is_some(), rule);
            }
        }
        for rule in self.accepts.iter().filter(|rule| wish.gone.contains(&rule.link)) {
            let rule = chain().bytes(3, &rule.handle.to_be_bytes());
            transaction.push_foreign(Kind::DelRule, self.family, false, rule);
        }
        if transaction.is_empty() { Ok(()) } else { transaction.commit() }
    }
}

/// The expressions of `iptables -A FORWARD -i LINK -j ACCEPT`, or with `-o`.
fn accept(link: &str, outward: bool) -> Attributes {
    let key = if outward { META_OUTPUT_NAME } else { META_INPUT_NAME };
    let push = |list: Attributes, name: &str, data: Attributes| {
        list.nested(1, Attributes::default().text(1, name).nested(2, data))
    };
    // The name with its end mark, and no more, is how `iptables` compares.
    let mut name = link.as_bytes().to_vec();
    name.push(0);
    let list = push(Attributes::default(), "meta", Attributes::default().number(1, 1).number(2, key));
    let value = Attributes::default().bytes(1, &name);
    let list = push(list, "cmp", Attributes::default().number(1, 1).number(2, 0).nested(3, value));
    let list = push(list, "counter", Attributes::default());
    let verdict = Attributes::default().nested(2, Attributes::default().number(1, VERDICT_ACCEPT));
    push(list, "immediate", Attributes::default().number(1, 0).nested(2, verdict))
}

/// Other tables' forward chains.
fn chains() -> Result<Vec<Chain>, Error> {
    let mut found = Vec::new();
    for chain in message::dump(Kind::GetChain, 0, &Attributes::default())? {
        let Some((table, name, policy)) = forward_chain(&chain) else { continue };
        let wanted = Attributes::default().text(1, &table).text(2, &name);
        let mut rules = Vec::new();
        for rule in message::dump(Kind::GetRule, chain.family, &wanted)? {
            // Kernels that do not filter list the rules of all chains.
            let of = |kind: u16, name: &str| rule.attribute(kind).map(message::text) == Some(name);
            if of(1, &table) && of(2, &name) {
                rules.push(rule);
            }
        }
        let last = rules.last().filter(|rule| drops_everything(rule)).and_then(handle);
        let accepts = rules.iter().filter_map(accepted).collect();
        let drops = policy == POLICY_DROP;
        found.push(Chain { family: chain.family, table, chain: name, drops, last, accepts });
    }
    Ok(found)
}

/// Table, name and policy of a chain that sees forwarded IP packets.
fn forward_chain(chain: &Message) -> Option<(String, String, u32)> {
    if ![FAMILY_INET, FAMILY_IPV4, FAMILY_IPV6].contains(&chain.family) {
        return None;
    }
    let table = message::text(chain.attribute(1)?);
    let hook = number(message::find(chain.attribute(4)?, 1)?)?;
    let kind = message::text(chain.attribute(7)?);
    let ours = chain.family == FAMILY_INET && table::is_of_an_engine(table);
    if hook != FORWARD_HOOK || kind != "filter" || ours {
        return None;
    }
    let name = message::text(chain.attribute(3)?);
    Some((table.to_owned(), name.to_owned(), number(chain.attribute(5)?)?))
}

fn number(data: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(data.try_into().ok()?))
}

fn handle(rule: &Message) -> Option<u64> {
    Some(u64::from_be_bytes(rule.attribute(3)?.try_into().ok()?))
}

/// Names and data of a rule's expressions, without counters.
fn expressions(rule: &Message) -> Vec<(&str, &[u8])> {
    let list = rule.attribute(4).unwrap_or_default();
    let each = message::attributes(list).map(|(_, expression)| {
        let name = message::find(expression, 1).map(message::text).unwrap_or_default();
        (name, message::find(expression, 2).unwrap_or_default())
    });
    each.filter(|(name, _)| *name != "counter").collect()
}

fn verdict(data: &[u8]) -> Option<u32> {
    number(message::find(message::find(message::find(data, 2)?, 2)?, 1)?)
}

/// Whether a rule has no condition, and drops or rejects.
fn drops_everything(rule: &Message) -> bool {
    match expressions(rule).iter().filter(|(name, _)| *name != "log").collect::<Vec<_>>()[..] {
        [(name, data)] => match *name {
            "reject" => true,
            "immediate" => verdict(data) == Some(VERDICT_DROP),
            "target" => message::find(data, 1).map(message::text) == Some("REJECT"),
            _ => false,
        },
        _ => false,
    }
}

/// Reads a rule as [`accept`] writes it.
fn accepted(rule: &Message) -> Option<Accept> {
    let [("meta", meta), ("cmp", compare), ("immediate", end)] = expressions(rule)[..] else { return None };
    let outward = match number(message::find(meta, 2)?)? {
        META_INPUT_NAME => false,
        META_OUTPUT_NAME => true,
        _ => return None,
    };
    let value = message::find(message::find(compare, 3)?, 1)?;
    // Without its end mark, it is the beginning of names.
    let whole = value.contains(&0) && number(message::find(compare, 2)?)? == 0;
    let link = message::text(value).to_owned();
    (whole && verdict(end)? == VERDICT_ACCEPT).then_some(Accept { link, outward, handle: handle(rule)? })
}
