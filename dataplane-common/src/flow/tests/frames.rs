//! Frames for the tests of this module.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::super::{ACK, SYN};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const SCTP: u8 = 132;
pub(super) const ESP: u8 = 50;

/// A flow as people write it down; an ICMP echo has its identifier as both ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuple {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) tcp_flags: u8,
}

/// Which part of a packet a frame carries: number, offset in units of 8 octets, whether more follow.
pub(super) type Part = Option<(u32, u16, bool)>;

impl Tuple {
    /// From the client `10.0.0.1` to the far side `10.0.9.9`.
    pub(super) fn v4(protocol: u8, source_port: u16, destination_port: u16) -> Self {
        Self {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 9, 9].into(),
            protocol,
            source_port,
            destination_port,
            tcp_flags: ACK,
        }
    }

    /// From the client `fd00::1` to the far side `fd00:9::9`.
    pub(super) fn v6(protocol: u8, source_port: u16, destination_port: u16) -> Self {
        Self {
            source: "fd00::1".parse().unwrap(),
            destination: "fd00:9::9".parse().unwrap(),
            ..Self::v4(protocol, source_port, destination_port)
        }
    }

    pub(super) fn beginning(self) -> Self {
        Self {
            tcp_flags: SYN,
            ..self
        }
    }

    pub(super) fn flags(self, tcp_flags: u8) -> Self {
        Self { tcp_flags, ..self }
    }

    pub(super) fn returned(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }

    fn is_v4(self) -> bool {
        self.source.is_ipv4()
    }

    /// The transport header, and eight octets of data.
    fn transport(self) -> Vec<u8> {
        let ports = [
            self.source_port.to_be_bytes(),
            self.destination_port.to_be_bytes(),
        ]
        .concat();
        let mut header = match (self.protocol, self.is_v4()) {
            (TCP, _) => [&ports[..], &[0; 8], &[0x50, self.tcp_flags], &[0; 6]].concat(),
            (1, true) => [&[8, 0, 0, 0], &ports[..2], &[0, 0]].concat(),
            (58, false) => [&[128, 0, 0, 0], &ports[..2], &[0, 0]].concat(),
            (UDP, _) => [&ports[..], &[0, 16, 0, 0]].concat(),
            _ => [&ports[..], &[0; 8]].concat(),
        };
        header.extend([0x5a; 8]);
        header
    }

    fn packet(self, part: Part, extensions: &[u8]) -> Vec<u8> {
        let payload = match part {
            Some((_, offset, _)) if offset > 0 => vec![0x77; 64],
            _ => self.transport(),
        };
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(source, destination, part, &payload),
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.ipv6(source, destination, part, extensions, &payload)
            }
            _ => unreachable!("both of one family"),
        }
    }

    fn ipv4(self, source: Ipv4Addr, destination: Ipv4Addr, part: Part, payload: &[u8]) -> Vec<u8> {
        let (number, offset, more) = part.unwrap_or((7, 0, false));
        let length = u16::try_from(20 + payload.len()).unwrap();
        let number = u16::try_from(number).unwrap();
        let mut packet = vec![0x45, 0];
        packet.extend(length.to_be_bytes());
        packet.extend(number.to_be_bytes());
        packet.extend((offset | (u16::from(more) << 13)).to_be_bytes());
        packet.extend([64, self.protocol, 0, 0]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(payload);
        packet
    }

    /// `extensions`: numbers of extension headers of 8 octets each, which come before a fragment header.
    fn ipv6(
        self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        part: Part,
        extensions: &[u8],
        payload: &[u8],
    ) -> Vec<u8> {
        let mut numbers = extensions.to_vec();
        numbers.extend(part.map(|_| 44));
        numbers.push(self.protocol);
        let mut behind = Vec::new();
        for pair in numbers.windows(2) {
            match (pair[0], part) {
                (44, Some((number, offset, more))) => {
                    behind.extend([pair[1], 0]);
                    behind.extend(((offset << 3) | u16::from(more)).to_be_bytes());
                    behind.extend(number.to_be_bytes());
                }
                // Eight octets: its length field counts in units of four, less two.
                (51, _) => behind.extend([pair[1], 0, 0, 0, 0, 0, 0, 0]),
                _ => behind.extend([pair[1], 0, 1, 4, 0, 0, 0, 0]),
            }
        }
        behind.extend(payload);
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(u16::try_from(behind.len()).unwrap().to_be_bytes());
        packet.extend([numbers[0], 64]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(behind);
        packet
    }

    fn framed(self, packet: &[u8]) -> Vec<u8> {
        let kind: [u8; 2] = if self.is_v4() { [8, 0] } else { [0x86, 0xdd] };
        [&[2; 12][..], &kind, packet].concat()
    }

    pub(super) fn frame(self) -> Vec<u8> {
        self.framed(&self.packet(None, &[]))
    }

    pub(super) fn with_extensions(self, extensions: &[u8]) -> Vec<u8> {
        self.framed(&self.packet(None, extensions))
    }

    pub(super) fn fragment(self, number: u32, offset: u16, more: bool) -> Vec<u8> {
        self.framed(&self.packet(Some((number, offset, more)), &[]))
    }

    /// An error that a router on the way sends back about a packet of this flow.
    pub(super) fn error(self, part: Part) -> Vec<u8> {
        let quoted = self.packet(part, &[]);
        let (protocol, kind) = if self.is_v4() { (1, 3) } else { (58, 2) };
        let router = if self.is_v4() {
            IpAddr::from([192, 0, 2, 1])
        } else {
            "2001:db8::1".parse().unwrap()
        };
        let error = Self {
            source: router,
            destination: self.source,
            protocol,
            ..self
        };
        let header = [&[kind, 4, 0, 0, 0, 0, 5, 0][..], &quoted].concat();
        let packet = match (error.source, error.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => error.ipv4(from, to, None, &header),
            (IpAddr::V6(from), IpAddr::V6(to)) => error.ipv6(from, to, None, &[], &header),
            _ => unreachable!("both of one family"),
        };
        self.framed(&packet)
    }
}

/// Flows from small sets, so that random ones meet.
pub(super) fn tuple() -> impl Strategy<Value = Tuple> {
    let address = (any::<bool>(), 0..3u8, 0..3u8);
    (address, 0..5usize, 0..3u16, 0..3u16, any::<u8>()).prop_map(|((v4, a, b), protocol, p, q, flags)| {
        let icmp = if v4 { 1 } else { 58 };
        let protocol = [TCP, UDP, SCTP, ESP, icmp][protocol];
        let (source_port, destination_port) = match protocol {
            ESP => (0, 0),
            1 | 58 => (p, p),
            _ => (p, q),
        };
        let base = if v4 {
            Tuple::v4(protocol, source_port, destination_port)
        } else {
            Tuple::v6(protocol, source_port, destination_port)
        };
        let address = |n: u8| -> IpAddr {
            if v4 {
                [10, 0, 0, n].into()
            } else {
                Ipv6Addr::from([0xfd00, 0, 0, 0, 0, 0, u16::from(n), 7]).into()
            }
        };
        Tuple {
            source: address(a),
            destination: address(b),
            tcp_flags: flags,
            ..base
        }
    })
}
