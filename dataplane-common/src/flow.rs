//! Which branch of a split wire a packet takes: what its headers say of its flow ([`Seen`]), and the choice
//! ([`choose()`]).
//!
//! The same code runs in the kernel program and in tests on the host: the frame is read through [`Octets`], the table of
//! flows through [`FlowTable`]. Everything is inlined, without a panic and with bounded loops, for the verifier's sake.
//!
//! * A *flow* is a pair of addresses, a pair of ports and a protocol; both directions give one key. An ICMP echo has its
//!   identifier for ports. Other transport protocols are told apart by addresses and protocol number.
//! * An *ICMP error* belongs to the flow of the packet that it quotes, seen as if that packet came back this way.
//! * *Fragments* but the first carry no ports: the first one leaves a note under the packet's number, and the others
//!   follow it. One that comes before it is chosen for by its addresses and protocol alone.
//! * Everything else (ARP, neighbour discovery, other ICMP, frames that cannot be read) is no flow and takes the
//!   split's first branch.

mod choose;
mod read;

pub use choose::{FlowEntry, FlowTable, choose};

use crate::abi::{AddressWords, FlowKey};

/// Octets of a frame, from the Ethernet header on.
pub trait Octets {
    /// The `N` octets at `at`, or `None` if the frame ends before. `N` is a multiple of four.
    fn octets<const N: usize>(&self, at: u32) -> Option<[u8; N]>;
}

/// The network protocol of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What a frame is to a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No packet of a flow.
    Other,
    /// A packet of a flow.
    Flow,
    /// The first fragment of a packet of a flow.
    FirstFragment,
    /// A later fragment: ports are not known.
    LaterFragment,
    /// An ICMP error about a packet of a flow.
    Error,
    /// An ICMP error about a later fragment.
    FragmentError,
}

/// What a frame's headers say of its flow. Of an ICMP error: of the flow of the quoted packet, with source and
/// destination exchanged, so that the flow goes the way of the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it is.
    pub kind: Kind,
    /// Protocol number behind the network header.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// The flags of TCP; 0 of others and of errors.
    pub tcp_flags: u8,
    /// The same for rules, to which ICMP and ICMPv6 are one.
    pub rule_protocol: u8,
    /// [`PORTS`](crate::abi::SplitRule::PORTS) if the ports are ports, 0 if not.
    pub rule_ports: u64,
    /// In host order.
    pub source_port: u16,
    /// In host order.
    pub destination_port: u16,
    /// Number of the fragmented packet.
    pub fragment: u32,
    /// Source address.
    pub source: AddressWords,
    /// Destination address.
    pub destination: AddressWords,
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

impl Seen {
    /// No packet of a flow.
    pub const OTHER: Self = Self {
        kind: Kind::Other,
        protocol: 0,
        family: 0,
        tcp_flags: 0,
        rule_protocol: 0,
        rule_ports: 0,
        source_port: 0,
        destination_port: 0,
        fragment: 0,
        source: [0; 2],
        destination: [0; 2],
    };

    /// Reads a frame whose network header of `family` begins at `at`.
    #[must_use]
    #[inline(always)]
    pub fn read(frame: &impl Octets, family: Family, at: u32) -> Self {
        let mut seen = Self::OTHER;
        let quoted = seen.read_packet(frame, family, at, false);
        if quoted != 0 {
            seen.read_packet(frame, family, quoted, true);
        }
        seen
    }

    /// Makes it ready for another frame: [`Self::OTHER`] in all that is looked at before it is written.
    #[inline(always)]
    pub const fn reset(&mut self) {
        self.kind = Kind::Other;
        self.protocol = 0;
        self.tcp_flags = 0;
        self.rule_ports = 0;
        self.source_port = 0;
        self.destination_port = 0;
    }

    /// Reads one packet; where in the frame the packet begins that it quotes, which is to be read then, or 0. For callers
    /// who have to make a function of it ([`Self::read`] is the whole).
    #[inline(always)]
    pub fn read_packet(&mut self, frame: &impl Octets, family: Family, at: u32, quoted: bool) -> u32 {
        match read::packet(frame, family, at, quoted, self) {
            Some(quoted) => quoted,
            None => {
                self.kind = Kind::Other;
                0
            }
        }
    }

    /// Whether it begins a TCP connection.
    #[must_use]
    #[inline(always)]
    pub const fn begins(&self) -> bool {
        self.tcp_flags & (SYN | ACK) == SYN
    }

    /// Whether it is a fragment without ports, or about one.
    #[must_use]
    #[inline(always)]
    pub const fn is_part(&self) -> bool {
        matches!(self.kind, Kind::LaterFragment | Kind::FragmentError)
    }

    /// Whether the source is the lower end in the flow's key.
    #[must_use]
    #[inline(always)]
    pub const fn from_low(&self) -> bool {
        let (a, b) = (&self.source, &self.destination);
        if a[0] != b[0] {
            a[0] < b[0]
        } else if a[1] != b[1] {
            a[1] < b[1]
        } else {
            self.source_port <= self.destination_port
        }
    }

    /// The key in `scope` under which the table has what this packet follows: its flow, or the fragmented packet that it
    /// is a part of.
    #[must_use]
    #[inline(always)]
    pub const fn key(&self, scope: u64) -> FlowKey {
        if self.is_part() {
            return self.fragment_key(scope);
        }
        let from_low = self.from_low();
        let (low_port, high_port) = if from_low {
            (self.source_port, self.destination_port)
        } else {
            (self.destination_port, self.source_port)
        };
        FlowKey {
            low_port,
            high_port,
            protocol: self.protocol,
            ..self.ends(scope, from_low)
        }
    }

    /// The key in `scope` of the fragmented packet that it is a part of, or that it is an error about. Packets are
    /// numbered by their sender, so directions do not meet here; in IPv6 whatever their protocol, which only the first
    /// fragment names.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
    pub const fn fragment_key(&self, scope: u64) -> FlowKey {
        FlowKey {
            low_port: (self.fragment >> 16) as u16,
            high_port: self.fragment as u16,
            protocol: if self.family == 4 { self.protocol } else { 0 },
            kind: FlowKey::FRAGMENT,
            ..self.ends(scope, !matches!(self.kind, Kind::FragmentError))
        }
    }

    /// A key of these addresses, the source's first if it is `in_order`. Exchanged without a jump: one key is in one
    /// place, not in one of two.
    #[inline(always)]
    const fn ends(&self, scope: u64, in_order: bool) -> FlowKey {
        let ([a, b], [c, d]) = (self.source, self.destination);
        let swap = (in_order as u64).wrapping_sub(1);
        let (x, y) = ((a ^ c) & swap, (b ^ d) & swap);
        FlowKey {
            scope,
            low: [a ^ x, b ^ y],
            high: [c ^ x, d ^ y],
            low_port: 0,
            high_port: 0,
            protocol: 0,
            kind: 0,
            zero: 0,
        }
    }

    /// Exchanges source and destination.
    #[inline(always)]
    const fn turn(&mut self) {
        (self.source, self.destination) = (self.destination, self.source);
        (self.source_port, self.destination_port) = (self.destination_port, self.source_port);
    }
}

#[cfg(test)]
mod tests;
