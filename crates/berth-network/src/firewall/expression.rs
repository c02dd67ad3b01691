//! The expressions that Berth's rules are made of (`linux/netfilter/nf_tables.h`).

use super::Mark;
use super::message::Attributes;

const NAME: u16 = 1;
const DATA: u16 = 2;
const LIST_ELEMENT: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const REGISTER_VERDICT: u32 = 0;
const ICMPV6: u8 = 58;

/// `NFT_REG32_00` and some after it, four bytes each; an interface name takes four of them.
pub(super) const R0: u32 = 8;
pub(super) const R1: u32 = 9;
pub(super) const R2: u32 = 10;
pub(super) const R3: u32 = 11;
pub(super) const R4: u32 = 12;
pub(super) const R5: u32 = 13;
pub(super) const R8: u32 = 16;
pub(super) const R9: u32 = 17;

/// What a packet's fate is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    Drop = 0,
    Accept = 1,
}

/// Keys of the `meta` expression.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meta {
    /// What an Ethernet frame carries (`NFT_META_PROTOCOL`).
    EtherType = 1,
    Mark = 3,
    InputName = 6,
    OutputName = 7,
    NetworkProtocol = 15,
    InputGroup = 21,
    OutputGroup = 22,
    TransportProtocol = 16,
}

/// Header that a `payload` offset counts from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Base {
    Network = 1,
    Transport = 2,
}

/// A rule's expressions, in order.
#[derive(Debug, Default, Clone)]
pub(super) struct Expressions(Attributes);

impl Expressions {
    fn push(self, name: &str, data: Attributes) -> Self {
        let expression = Attributes::default().text(NAME, name).nested(DATA, data);
        Expressions(self.0.nested(LIST_ELEMENT, expression))
    }

    /// The list as an attribute's content.
    pub(super) fn into_attributes(self) -> Attributes {
        self.0
    }

    pub(super) fn meta(self, key: Meta, register: u32) -> Self {
        self.push("meta", Attributes::default().number(1, register).number(2, key as u32))
    }

    pub(super) fn payload(self, base: Base, offset: u32, length: u32, register: u32) -> Self {
        let data = Attributes::default().number(1, register).number(2, base as u32);
        self.push("payload", data.number(3, offset).number(4, length))
    }

    fn compare(self, register: u32, operation: u32, value: &[u8]) -> Self {
        let value = Attributes::default().bytes(DATA_VALUE, value);
        self.push("cmp", Attributes::default().number(1, register).number(2, operation).nested(3, value))
    }

    pub(super) fn equal(self, register: u32, value: &[u8]) -> Self {
        self.compare(register, 0, value)
    }

    pub(super) fn not_equal(self, register: u32, value: &[u8]) -> Self {
        self.compare(register, 1, value)
    }

    /// Goes on only if the register's bits under `mask` are not all zero.
    pub(super) fn any_bit(self, register: u32, mask: u32) -> Self {
        let value = |v: u32| Attributes::default().bytes(DATA_VALUE, &v.to_ne_bytes());
        let data = Attributes::default().number(1, register).number(2, register).number(3, 4);
        self.push("bitwise", data.nested(4, value(mask)).nested(5, value(0))).not_equal(register, &[0; 4])
    }

    pub(super) fn conntrack_state(self, bits: u32) -> Self {
        self.push("ct", Attributes::default().number(1, R0).number(2, 0)).any_bit(R0, bits)
    }

    /// Goes on only for connections whose destination was translated (`IPS_DST_NAT`).
    pub(super) fn destination_translated(self) -> Self {
        self.push("ct", Attributes::default().number(1, R0).number(2, 2)).any_bit(R0, 0x20)
    }

    /// Goes on only if the destination is an address of this host (`fib daddr type local`).
    pub(super) fn destination_is_local(self) -> Self {
        let data = Attributes::default().number(1, R0).number(2, 3).number(3, 2);
        self.push("fib", data).equal(R0, &2u32.to_ne_bytes())
    }

    pub(super) fn ipv4(self) -> Self {
        self.meta(Meta::NetworkProtocol, R0).equal(R0, &[2])
    }

    pub(super) fn ipv6(self) -> Self {
        self.meta(Meta::NetworkProtocol, R0).equal(R0, &[10])
    }

    /// Goes on only if the register's value is (or, inverted, is not) in the set.
    pub(super) fn in_set(self, set: &str, register: u32, inverted: bool) -> Self {
        let data = Attributes::default().text(1, set).number(2, register);
        self.push("lookup", if inverted { data.number(5, 1) } else { data })
    }

    /// Replaces the key in the register by the map's value; goes on only if there is one.
    pub(super) fn look_up(self, map: &str, register: u32) -> Self {
        self.push("lookup", Attributes::default().text(1, map).number(2, register).number(3, register))
    }

    /// Translates the destination to the IPv4 address and port in the registers.
    pub(super) fn dnat4(self, address: u32, port: u32) -> Self {
        self.dnat(2, address, port)
    }

    /// The same by IPv6.
    pub(super) fn dnat6(self, address: u32, port: u32) -> Self {
        self.dnat(10, address, port)
    }

    fn dnat(self, family: u32, address: u32, port: u32) -> Self {
        self.push(
            "nat",
            Attributes::default().number(1, 1).number(2, family).number(3, address).number(5, port),
        )
    }

    /// Translates the source to the address in the register.
    pub(super) fn snat(self, v6: bool, address: u32) -> Self {
        let data = Attributes::default().number(1, 0).number(2, if v6 { 10 } else { 2 });
        self.push("nat", data.number(3, address))
    }

    /// Goes on only if the bits under `mask` of the register (and those after it) are not `value`.
    pub(super) fn masked_not_equal(self, register: u32, mask: &[u8], value: &[u8]) -> Self {
        let bytes = |v: &[u8]| Attributes::default().bytes(DATA_VALUE, v);
        let length = mask.len() as u32;
        let data = Attributes::default().number(1, register).number(2, register).number(3, length);
        let masked = self.push("bitwise", data.nested(4, bytes(mask)).nested(5, bytes(&vec![0; mask.len()])));
        masked.not_equal(register, value)
    }

    /// Goes on only for packets that have the mark.
    pub(super) fn marked(self, mark: Mark) -> Self {
        let value = |v: u32| Attributes::default().bytes(DATA_VALUE, &v.to_ne_bytes());
        let data = Attributes::default().number(1, R0).number(2, R0).number(3, 4);
        let masked =
            self.meta(Meta::Mark, R0).push("bitwise", data.nested(4, value(mark.mask)).nested(5, value(0)));
        masked.equal(R0, &mark.value.to_ne_bytes())
    }

    /// Goes on only for messages of ICMPv6 of this type.
    pub(super) fn icmpv6(self, kind: u8) -> Self {
        let icmp = self.meta(Meta::TransportProtocol, R0).equal(R0, &[ICMPV6]);
        icmp.payload(Base::Transport, 0, 1, R0).equal(R0, &[kind])
    }

    /// Puts a constant into the register.
    pub(super) fn load(self, register: u32, value: &[u8]) -> Self {
        let value = Attributes::default().bytes(DATA_VALUE, value);
        self.push("immediate", Attributes::default().number(1, register).nested(2, value))
    }

    pub(super) fn masquerade(self) -> Self {
        self.push("masq", Attributes::default())
    }

    pub(super) fn verdict(self, verdict: Verdict) -> Self {
        let code = Attributes::default().number(VERDICT_CODE, verdict as u32);
        let data = Attributes::default().nested(DATA_VERDICT, code);
        self.push("immediate", Attributes::default().number(1, REGISTER_VERDICT).nested(2, data))
    }
}
