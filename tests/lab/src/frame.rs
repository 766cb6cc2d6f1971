//! Building frames of every kind, byte by byte and independently of the code that reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Gso, GsoKind, Mac};

/// EtherTypes by name.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// Customer VLAN tag.
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// MPLS unicast.
    pub const MPLS: u16 = 0x8847;
    /// Service VLAN tag.
    pub const QINQ: u16 = 0x88a8;
    /// LLDP.
    pub const LLDP: u16 = 0x88cc;
    /// For experiments (IEEE 802 local 1).
    pub const EXPERIMENT: u16 = 0x88b5;
}

/// IP protocol numbers by name.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// A number for experiments (RFC 3692).
    pub const EXPERIMENT: u8 = 253;
}

/// An Ethernet frame in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    /// A frame with this type field and payload.
    #[must_use]
    pub fn ethernet(src: Mac, dst: Mac, ethertype: u16, payload: &[u8]) -> Self {
        Self {
            bytes: [&dst.0[..], &src.0, &ethertype.to_be_bytes(), payload].concat(),
        }
    }

    /// An IEEE 802.3 frame: its type field is the length, an LLC header (spanning tree) follows.
    #[must_use]
    pub fn llc(src: Mac, dst: Mac, payload: &[u8]) -> Self {
        let llc = [0x42, 0x42, 0x03];
        let length = u16::try_from(llc.len() + payload.len()).unwrap_or(1500).min(1500);
        Self::ethernet(src, dst, length, &[&llc, payload].concat())
    }

    /// An IPv4 or IPv6 packet in a frame.
    #[must_use]
    pub fn ip(src: Mac, dst: Mac, packet: &IpPacket) -> Self {
        let ethertype = match packet.dst {
            IpAddr::V4(_) => ethertype::IPV4,
            IpAddr::V6(_) => ethertype::IPV6,
        };
        Self::ethernet(src, dst, ethertype, &packet.bytes())
    }

    /// An ARP request: who has `target`, tell `sender`.
    #[must_use]
    pub fn arp_request(src: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        let fixed = [0, 1, 8, 0, 6, 4, 0, 1];
        let arp = [&fixed[..], &src.0, &sender.octets(), &[0; 6], &target.octets()].concat();
        Self::ethernet(src, Mac::BROADCAST, ethertype::ARP, &arp)
    }

    /// Puts a VLAN tag in front of the type field; repeated for nested tags.
    #[must_use]
    pub fn tagged(mut self, tpid: u16, tci: u16) -> Self {
        self.bytes
            .splice(12..12, tpid.to_be_bytes().into_iter().chain(tci.to_be_bytes()));
        self
    }

    /// Cuts the frame to `length` octets.
    #[must_use]
    pub fn truncated(mut self, length: usize) -> Self {
        self.bytes.truncate(length);
        self
    }

    /// Appends `more`.
    #[must_use]
    pub fn followed_by(mut self, more: &[u8]) -> Self {
        self.bytes.extend_from_slice(more);
        self
    }

    /// The frame as it goes on the wire.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The frame as it goes on the wire.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// An IP packet in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpPacket {
    /// Source address; of the same family as `dst`.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IPv6 extension headers in front of the payload: number and whole header, whose first octet is overwritten.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// IPv4 options: a multiple of four octets, at most 40.
    pub options: Vec<u8>,
    /// Fragment offset in units of eight octets, and whether more fragments follow. IPv4 only; use an extension
    /// header for IPv6.
    pub fragment: (u16, bool),
    /// Hop limit.
    pub ttl: u8,
    /// What it carries.
    pub payload: Payload,
}

/// What an IP packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A UDP datagram: source port, destination port, data.
    Udp(u16, u16, Vec<u8>),
    /// A TCP segment with ACK set: source port, destination port, data.
    Tcp(u16, u16, Vec<u8>),
    /// ICMP or ICMPv6, by the family of the packet: type, code, the rest.
    Icmp(u8, u8, Vec<u8>),
    /// Another protocol: number and data.
    Other(u8, Vec<u8>),
}

impl IpPacket {
    /// A packet without options, extension headers or fragmentation. Both addresses must be of one family.
    #[must_use]
    pub fn new(src: IpAddr, dst: IpAddr, payload: Payload) -> Self {
        Self {
            src,
            dst,
            extensions: Vec::new(),
            options: Vec::new(),
            fragment: (0, false),
            ttl: 64,
            payload,
        }
    }

    /// The packet with right lengths and checksums.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let body = self.body(true);
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.ipv4(src, dst, &body),
            (src, dst) => self.ipv6(as_v6(src), as_v6(dst), &body),
        }
    }

    /// The packet as a super-packet in a frame: `segment` octets of payload each. TCP and UDP only.
    #[must_use]
    pub fn gso(&self, src: Mac, dst: Mac, segment: u16) -> Option<(Vec<u8>, Gso)> {
        let (kind, transport_len) = match (&self.payload, self.dst) {
            (Payload::Tcp(..), IpAddr::V4(_)) => (GsoKind::TcpIpv4, 20),
            (Payload::Tcp(..), IpAddr::V6(_)) => (GsoKind::TcpIpv6, 20),
            (Payload::Udp(..), _) => (GsoKind::Udp, 8),
            _ => return None,
        };
        let body = self.body(false);
        let (ethertype, packet) = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => (ethertype::IPV4, self.ipv4(src, dst, &body)),
            (src, dst) => (ethertype::IPV6, self.ipv6(as_v6(src), as_v6(dst), &body)),
        };
        let frame = Frame::ethernet(src, dst, ethertype, &packet);
        let transport_offset = u16::try_from(frame.bytes.len() - body.len()).ok()?;
        let header_len = transport_offset + transport_len;
        Some((
            frame.bytes,
            Gso {
                kind,
                segment,
                header_len,
                transport_offset,
            },
        ))
    }

    fn protocol(&self) -> u8 {
        match (&self.payload, self.dst) {
            (Payload::Udp(..), _) => protocol::UDP,
            (Payload::Tcp(..), _) => protocol::TCP,
            (Payload::Icmp(..), IpAddr::V4(_)) => protocol::ICMP,
            (Payload::Icmp(..), IpAddr::V6(_)) => protocol::ICMPV6,
            (Payload::Other(number, _), _) => *number,
        }
    }

    /// The transport header and data; its checksum whole, or only that of the pseudo-header.
    fn body(&self, whole_checksum: bool) -> Vec<u8> {
        let (mut body, checksum_at) = match &self.payload {
            Payload::Udp(from, to, data) => {
                let length = u16::try_from(8 + data.len()).unwrap_or(0);
                let header = [from.to_be_bytes(), to.to_be_bytes(), length.to_be_bytes(), [0; 2]].concat();
                ([header, data.clone()].concat(), 6)
            }
            Payload::Tcp(from, to, data) => {
                let mut header = [from.to_be_bytes(), to.to_be_bytes()].concat();
                header.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
                ([header, data.clone()].concat(), 16)
            }
            Payload::Icmp(kind, code, data) => ([&[*kind, *code, 0, 0], data.as_slice()].concat(), 2),
            Payload::Other(_, data) => return data.clone(),
        };
        let protocol = self.protocol();
        let pseudo = if protocol == protocol::ICMP {
            0
        } else {
            self.pseudo_header_sum(protocol, body.len())
        };
        let sum = if whole_checksum {
            !fold(pseudo + sum(&body))
        } else {
            fold(pseudo)
        };
        // UDP writes a sum of zero as its complement (RFC 768).
        let sum = if whole_checksum && protocol == protocol::UDP && sum == 0 {
            0xffff
        } else {
            sum
        };
        body[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        body
    }

    fn pseudo_header_sum(&self, protocol: u8, length: usize) -> u64 {
        let addresses = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => sum(&src.octets()) + sum(&dst.octets()),
            (src, dst) => sum(&as_v6(src).octets()) + sum(&as_v6(dst).octets()),
        };
        addresses + u64::from(protocol) + length as u64
    }

    fn ipv4(&self, src: Ipv4Addr, dst: Ipv4Addr, body: &[u8]) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let words = u8::try_from(header_len / 4).unwrap_or(15).min(15);
        let total = u16::try_from(header_len + body.len()).unwrap_or(u16::MAX);
        let more = u16::from(self.fragment.1) << 13;
        let offset = (self.fragment.0 & 0x1fff) | more;
        let mut header = vec![0x40 | words, 0];
        header.extend_from_slice(&total.to_be_bytes());
        header.extend_from_slice(&[0, 1]);
        header.extend_from_slice(&offset.to_be_bytes());
        header.extend_from_slice(&[self.ttl, self.protocol(), 0, 0]);
        header.extend_from_slice(&src.octets());
        header.extend_from_slice(&dst.octets());
        header.extend_from_slice(&self.options);
        let checksum = checksum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        [&header, body].concat()
    }

    fn ipv6(&self, src: Ipv6Addr, dst: Ipv6Addr, body: &[u8]) -> Vec<u8> {
        let mut numbers: Vec<u8> = self.extensions.iter().map(|(number, _)| *number).collect();
        numbers.push(self.protocol());
        let mut chain = Vec::new();
        for (header, next) in self
            .extensions
            .iter()
            .map(|(_, header)| header)
            .zip(&numbers[1..])
        {
            let begin = chain.len();
            chain.extend_from_slice(header);
            chain[begin] = *next;
        }
        let length = u16::try_from(chain.len() + body.len()).unwrap_or(0);
        let mut header = vec![0x60, 0, 0, 0];
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(&[numbers[0], self.ttl]);
        header.extend_from_slice(&src.octets());
        header.extend_from_slice(&dst.octets());
        [&header, &chain[..], body].concat()
    }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Sum of the 16-bit words (RFC 1071), an odd octet padded with zero.
fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}

/// Folds a sum into 16 bits with end-around carry.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// The Internet checksum (RFC 1071) of `bytes`; 0 when they hold their own right one.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}
