//! Random frames, each one different from every other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use tieline_lab::{
    Gso, GsoKind, Mac,
    frame::{Frame, IpPacket, Payload, ethertype, protocol},
};

use super::world::{LiveWire, MARK, Side};

/// A frame to be sent into a wire.
#[derive(Clone, Debug)]
pub(crate) struct Injection {
    /// Which wire; taken modulo their number.
    pub(crate) wire: usize,
    pub(crate) from: Side,
    source: Source,
    destination: Destination,
    addresses: Addresses,
    body: Body,
    /// Octets of filling.
    filling: usize,
}

/// Whether a frame may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Exactly once.
    Must,
    /// At most once.
    May,
    /// Never.
    MustNot,
}

/// A frame ready to be sent.
pub(crate) struct Built {
    pub(crate) bytes: Vec<u8>,
    pub(crate) gso: Option<Gso>,
    pub(crate) rule: Rule,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Own,
    Foreign,
    FarEnd,
    OtherWire,
}

#[derive(Clone, Copy, Debug)]
enum Destination {
    FarEnd,
    Own,
    Foreign,
    OtherWire,
    Broadcast,
    Multicast,
    Zero,
}

#[derive(Clone, Copy, Debug)]
enum Addresses {
    Own,
    SpoofedSource,
    OtherWire,
    Nonsense,
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Udp4,
    Udp6,
    Tcp4,
    Tcp6,
    Icmp4,
    Icmp6,
    Fragment4,
    Extensions6,
    UnknownProtocol,
    Arp,
    GsoTcp4,
    GsoTcp6,
    GsoUdp4,
    Vlan,
    PriorityTag,
    DoubleTag,
    VlanNotIp,
    Experiment,
    Lldp,
    Mpls,
    Llc,
    RuntIp,
    RuntOther,
}

impl Body {
    const ALL: &[Self] = &[
        Self::Udp4,
        Self::Udp6,
        Self::Tcp4,
        Self::Tcp6,
        Self::Icmp4,
        Self::Icmp6,
        Self::Fragment4,
        Self::Extensions6,
        Self::UnknownProtocol,
        Self::Arp,
        Self::GsoTcp4,
        Self::GsoTcp6,
        Self::GsoUdp4,
        Self::Vlan,
        Self::PriorityTag,
        Self::DoubleTag,
        Self::VlanNotIp,
        Self::Experiment,
        Self::Lldp,
        Self::Mpls,
        Self::Llc,
        Self::RuntIp,
        Self::RuntOther,
    ];

    /// All that this kernel can send.
    pub(crate) fn sendable() -> Vec<Self> {
        let mut all = Self::ALL.to_vec();
        if !GsoKind::Udp.can_be_sent() {
            eprintln!("SKIPPED: UDP super-packets need Linux 6.2");
            all.retain(|body| *body != Self::GsoUdp4);
        }
        all
    }

    /// What an IP wire does with it.
    fn rule_on_ip(self) -> Rule {
        match self {
            Self::Vlan
            | Self::PriorityTag
            | Self::DoubleTag
            | Self::VlanNotIp
            | Self::Experiment
            | Self::Lldp
            | Self::Mpls
            | Self::Llc
            | Self::RuntOther => Rule::MustNot,
            Self::RuntIp => Rule::May,
            _ => Rule::Must,
        }
    }

    fn rule_on_ethernet(self) -> Rule {
        match self {
            Self::RuntIp | Self::RuntOther => Rule::May,
            _ => Rule::Must,
        }
    }

    fn is_ipv6(self) -> bool {
        matches!(
            self,
            Self::Udp6 | Self::Tcp6 | Self::Icmp6 | Self::Extensions6 | Self::GsoTcp6
        )
    }
}

pub(crate) fn injection() -> impl Strategy<Value = Injection> {
    let source = prop::sample::select(vec![
        Source::Own,
        Source::Foreign,
        Source::FarEnd,
        Source::OtherWire,
    ]);
    let destination = prop::sample::select(vec![
        Destination::FarEnd,
        Destination::Own,
        Destination::Foreign,
        Destination::OtherWire,
        Destination::Broadcast,
        Destination::Multicast,
        Destination::Zero,
    ]);
    let addresses = prop::sample::select(vec![
        Addresses::Own,
        Addresses::SpoofedSource,
        Addresses::OtherWire,
        Addresses::Nonsense,
    ]);
    let from = prop::sample::select(vec![Side::Client, Side::Endpoint]);
    let body = prop::sample::select(Body::sendable());
    (
        0..64usize,
        from,
        source,
        destination,
        addresses,
        body,
        0..1300usize,
    )
        .prop_map(
            |(wire, from, source, destination, addresses, body, filling)| Injection {
                wire,
                from,
                source,
                destination,
                addresses,
                body,
                filling,
            },
        )
}

impl Injection {
    /// An honest frame from one end to the other.
    pub(crate) fn plain(wire: usize, from: Side, body: Body) -> Self {
        Self {
            wire,
            from,
            source: Source::Own,
            destination: Destination::FarEnd,
            addresses: Addresses::Own,
            body,
            filling: 100,
        }
    }

    /// The frame with this number, for `wire`; `other` is another wire to impersonate.
    pub(crate) fn build(&self, number: u32, wire: &LiveWire, other: &LiveWire) -> Built {
        let (src, dst) = (
            self.source_mac(number, wire, other),
            self.destination_mac(wire, other),
        );
        let mark = [MARK, &number.to_be_bytes()].concat();
        let data = [mark.as_slice(), &vec![0x3c; self.filling]].concat();
        let ip = |payload| {
            IpPacket::new(
                self.addresses(wire, other).0,
                self.addresses(wire, other).1,
                payload,
            )
        };
        let (port, far_port) = (4000, 4001);
        let udp = || ip(Payload::Udp(port, far_port, data.clone()));
        let tcp = || ip(Payload::Tcp(port, far_port, data.clone()));
        let large = || [mark.as_slice(), &vec![0x3c; 20_000]].concat();
        let frame = |packet: IpPacket| Frame::ip(src, dst, &packet);
        let other_type = |ethertype| Frame::ethernet(src, dst, ethertype, &data);
        let mut gso = None;
        let mut super_packet = |packet: IpPacket| {
            let (bytes, cut) = packet.gso(src, dst, 1400).unwrap();
            gso = Some(cut);
            bytes
        };
        let bytes = match self.body {
            Body::Udp4 | Body::Udp6 => frame(udp()).into_bytes(),
            Body::Tcp4 | Body::Tcp6 => frame(tcp()).into_bytes(),
            Body::Icmp4 => frame(ip(Payload::Icmp(0, 0, [vec![0; 4], data.clone()].concat()))).into_bytes(),
            Body::Icmp6 => frame(ip(Payload::Icmp(129, 0, [vec![0; 4], data.clone()].concat()))).into_bytes(),
            Body::Fragment4 => frame(IpPacket {
                fragment: (9, true),
                ..udp()
            })
            .into_bytes(),
            Body::Extensions6 => {
                let extensions = vec![(60, vec![0, 0, 1, 4, 0, 0, 0, 0]); 2];
                frame(IpPacket { extensions, ..udp() }).into_bytes()
            }
            Body::UnknownProtocol => {
                frame(ip(Payload::Other(protocol::EXPERIMENT, data.clone()))).into_bytes()
            }
            Body::Arp => self.arp(src, dst, wire, other, &mark),
            Body::GsoTcp4 | Body::GsoTcp6 => super_packet(ip(Payload::Tcp(port, far_port, large()))),
            Body::GsoUdp4 => super_packet(ip(Payload::Udp(port, far_port, large()))),
            Body::Vlan => frame(udp()).tagged(ethertype::VLAN, 42).into_bytes(),
            Body::PriorityTag => frame(udp()).tagged(ethertype::VLAN, 0xe000).into_bytes(),
            Body::DoubleTag => frame(udp())
                .tagged(ethertype::VLAN, 7)
                .tagged(ethertype::QINQ, 8)
                .into_bytes(),
            Body::VlanNotIp => other_type(ethertype::EXPERIMENT)
                .tagged(ethertype::VLAN, 42)
                .into_bytes(),
            Body::Experiment => other_type(ethertype::EXPERIMENT).into_bytes(),
            Body::Lldp => other_type(ethertype::LLDP).into_bytes(),
            Body::Mpls => other_type(ethertype::MPLS).into_bytes(),
            Body::Llc => Frame::llc(src, dst, &data).into_bytes(),
            // Too short for a mark: the source address makes them different.
            Body::RuntIp => runt(number, dst, ethertype::IPV4),
            Body::RuntOther => runt(number, dst, ethertype::EXPERIMENT),
        };
        let rule = if wire.kind.is_ip_only() {
            self.body.rule_on_ip()
        } else {
            self.body.rule_on_ethernet()
        };
        Built { bytes, gso, rule }
    }

    fn source_mac(&self, number: u32, wire: &LiveWire, other: &LiveWire) -> Mac {
        match self.source {
            Source::Own => wire.mac(self.from),
            Source::Foreign => Mac::numbered(0x0bad_0000 | number),
            Source::FarEnd => wire.mac(self.from.other()),
            Source::OtherWire => other.mac(self.from),
        }
    }

    fn destination_mac(&self, wire: &LiveWire, other: &LiveWire) -> Mac {
        match self.destination {
            Destination::FarEnd => wire.mac(self.from.other()),
            Destination::Own => wire.mac(self.from),
            Destination::Foreign => Mac::numbered(0x0bad_cafe),
            Destination::OtherWire => other.mac(self.from.other()),
            Destination::Broadcast => Mac::BROADCAST,
            Destination::Multicast => Mac([0x01, 0x00, 0x5e, 0x00, 0x00, 0x01]),
            Destination::Zero => Mac([0; 6]),
        }
    }

    /// Source and destination address, both of the body's family.
    fn addresses(&self, wire: &LiveWire, other: &LiveWire) -> (IpAddr, IpAddr) {
        let six = self.body.is_ipv6();
        let nonsense: IpAddr = if six {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9).into()
        } else {
            Ipv4Addr::new(198, 51, 100, 9).into()
        };
        let pick = |wire: &LiveWire, side| {
            let all = match side {
                Side::Client => &wire.wire.client,
                Side::Endpoint => &wire.wire.endpoint,
            };
            all.iter()
                .copied()
                .find(|address| address.is_ipv6() == six)
                .unwrap_or(nonsense)
        };
        let (near, far) = (self.from, self.from.other());
        match self.addresses {
            Addresses::Own => (pick(wire, near), pick(wire, far)),
            Addresses::SpoofedSource => (nonsense, pick(wire, far)),
            Addresses::OtherWire => (pick(other, near), pick(other, far)),
            Addresses::Nonsense => (nonsense, nonsense),
        }
    }

    /// A request with the mark behind it, where the frame's padding would be.
    fn arp(&self, src: Mac, dst: Mac, wire: &LiveWire, other: &LiveWire, mark: &[u8]) -> Vec<u8> {
        let v4 = |address| match address {
            IpAddr::V4(v4) => v4,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        let (sender, target) = self.addresses(wire, other);
        let mut frame = Frame::arp_request(src, v4(sender), v4(target))
            .followed_by(mark)
            .into_bytes();
        frame[..6].copy_from_slice(&dst.0);
        frame
    }
}

fn runt(number: u32, dst: Mac, ethertype: u16) -> Vec<u8> {
    let octets = usize::try_from(number % 3).unwrap();
    Frame::ethernet(
        Mac::numbered(0x5407_0000 | number),
        dst,
        ethertype,
        &[0x3c; 3][..octets],
    )
    .into_bytes()
}
