//! The address translation in a container's namespace that leads its name server's port 53 to the real one.

use std::io;
use std::net::Ipv4Addr;

use super::expression::{Base, Expressions, Meta, R0, R1, Verdict};
use super::message::{Attributes, Kind, Transaction};
use crate::{Error, Protocol};

/// A table of its own: a container's firewall is the container's.
const TABLE: &str = "berth-names";
const CHAIN: &str = "output";

/// Leads `address`:53 to `udp` and `tcp` of the same address, in the caller's network namespace and in place of an earlier
/// redirection. The way back is conntrack's.
///
/// Whoever deletes rules waits for an RCU grace period (some 10 ms) when the netfilter socket is closed: nothing is deleted in a
/// new container, nor where the same ports are redirected already.
pub(crate) fn redirect_names(address: Ipv4Addr, udp: u16, tcp: u16) -> Result<(), Error> {
    let mut first = Transaction::new();
    first.push_new(Kind::NewTable, "add table", table());
    add_redirection(&mut first, address, udp, tcp);
    if is_done(first.commit())? || is_redirected(udp, tcp)? {
        return Ok(());
    }
    let mut again = Transaction::new();
    again.push(Kind::NewTable, "add table", table());
    again.push(Kind::DelTable, "delete table", table());
    again.push(Kind::NewTable, "add table", table());
    add_redirection(&mut again, address, udp, tcp);
    again.commit()
}

/// Whether the table was made for these ports: a chain without rules says so by its name.
fn is_redirected(udp: u16, tcp: u16) -> Result<bool, Error> {
    let mut transaction = Transaction::new();
    transaction.push(Kind::NewTable, "add table", table());
    transaction.push_new(Kind::NewChain, "add chain", mark(udp, tcp));
    Ok(!is_done(transaction.commit())?)
}

/// Whether a transaction was made, and not refused because of what is there already.
fn is_done(result: Result<(), Error>) -> Result<bool, Error> {
    match result {
        Ok(()) => Ok(true),
        Err(Error::Firewall { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn table() -> Attributes {
    Attributes::default().text(1, TABLE)
}

fn mark(udp: u16, tcp: u16) -> Attributes {
    table().text(3, &format!("ports-{udp}-{tcp}"))
}

fn add_redirection(transaction: &mut Transaction, address: Ipv4Addr, udp: u16, tcp: u16) {
    transaction.push(Kind::NewChain, "add chain", mark(udp, tcp));
    let hook = Attributes::default().number(1, 3).number(2, -100i32 as u32);
    let chain = table().text(3, CHAIN).nested(4, hook).number(5, Verdict::Accept as u32).text(7, "nat");
    transaction.push(Kind::NewChain, format!("add chain {CHAIN}"), chain);
    for (protocol, port) in [(Protocol::Udp, udp), (Protocol::Tcp, tcp)] {
        let rule =
            Expressions::default().ipv4().payload(Base::Network, 16, 4, R0).equal(R0, &address.octets());
        let rule = rule.meta(Meta::TransportProtocol, R0).equal(R0, &[protocol.number()]);
        let rule = rule.payload(Base::Transport, 2, 2, R0).equal(R0, &53u16.to_be_bytes());
        let rule = rule.load(R0, &address.octets()).load(R1, &port.to_be_bytes()).dnat4(R0, R1);
        let rule = Attributes::default().text(1, TABLE).text(2, CHAIN).nested(4, rule.into_attributes());
        transaction.push(Kind::NewRule, format!("add rule to {CHAIN}"), rule);
    }
}
