//! The address translation in a container's namespace that leads its name server's port 53 to the real one.

use std::net::Ipv4Addr;

use super::expression::{Base, Expressions, Meta, R0, R1, Verdict};
use super::message::{Attributes, Kind, Transaction};
use crate::{Error, Protocol};

/// A table of its own: a container's firewall is the container's.
const TABLE: &str = "berth-names";
const CHAIN: &str = "output";

/// Leads `address`:53 to `udp` and `tcp` of the same address, in the caller's network namespace and in place of an earlier
/// redirection. The way back is conntrack's.
pub(crate) fn redirect_names(address: Ipv4Addr, udp: u16, tcp: u16) -> Result<(), Error> {
    let mut transaction = Transaction::new();
    let table = || Attributes::default().text(1, TABLE);
    transaction.push(Kind::NewTable, "add table", table());
    transaction.push(Kind::DelTable, "delete table", table());
    transaction.push(Kind::NewTable, "add table", table());
    let hook = Attributes::default().number(1, 3).number(2, -100i32 as u32);
    let chain = table().text(3, CHAIN).nested(4, hook).number(5, Verdict::Accept as u32).text(7, "nat");
    transaction.push(Kind::NewChain, format!("add chain {CHAIN}"), chain);
    for (protocol, port) in [(Protocol::Udp, udp), (Protocol::Tcp, tcp)] {
        let rule = Expressions::default().ipv4().payload(Base::Network, 16, 4, R0).equal(R0, &address.octets());
        let rule = rule.meta(Meta::TransportProtocol, R0).equal(R0, &[protocol.number()]);
        let rule = rule.payload(Base::Transport, 2, 2, R0).equal(R0, &53u16.to_be_bytes());
        let rule = rule.load(R0, &address.octets()).load(R1, &port.to_be_bytes()).dnat4(R0, R1);
        let rule = Attributes::default().text(1, TABLE).text(2, CHAIN).nested(4, rule.into_attributes());
        transaction.push(Kind::NewRule, format!("add rule to {CHAIN}"), rule);
    }
    transaction.commit()
}
