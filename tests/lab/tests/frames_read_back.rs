//! The laboratory's frame builders and the dataplane's packet reader are written apart from each other: what one
//! writes, the other must read.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane_common::pkt::{Header, Kind, Network, Packet, ParseError, Transport};
use proptest::prelude::*;
use tieline_lab::{
    Mac,
    frame::{Frame, IpPacket, Payload, checksum, ethertype, protocol},
};

fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    let v4 = any::<(u32, u32)>().prop_map(|(a, b)| (Ipv4Addr::from(a).into(), Ipv4Addr::from(b).into()));
    let v6 = any::<(u128, u128)>().prop_map(|(a, b)| (Ipv6Addr::from(a).into(), Ipv6Addr::from(b).into()));
    prop_oneof![v4, v6]
}

fn payload() -> impl Strategy<Value = Payload> {
    let data = || prop::collection::vec(any::<u8>(), 0..64);
    let rest = prop::collection::vec(any::<u8>(), 4..64);
    prop_oneof![
        (any::<u16>(), any::<u16>(), data()).prop_map(|(a, b, d)| Payload::Udp(a, b, d)),
        (any::<u16>(), any::<u16>(), data()).prop_map(|(a, b, d)| Payload::Tcp(a, b, d)),
        (any::<u8>(), any::<u8>(), rest).prop_map(|(a, b, d)| Payload::Icmp(a, b, d)),
        data().prop_map(|d| Payload::Other(protocol::EXPERIMENT, d)),
    ]
}

fn packet() -> impl Strategy<Value = IpPacket> {
    // Extension headers of 8 and 16 octets; the builder writes the number of the next one.
    let extension = prop::sample::select(vec![
        (0, vec![0, 0, 1, 4, 0, 0, 0, 0]),
        (43, [vec![0, 1], vec![0; 14]].concat()),
        (60, vec![0, 0, 1, 4, 0, 0, 0, 0]),
    ]);
    let extensions = prop::collection::vec(extension, 0..5);
    let options = (0..=10usize).prop_map(|words| vec![1; words * 4]);
    (addresses(), payload(), extensions, options, any::<u8>()).prop_map(
        |((src, dst), payload, ext, opt, ttl)| {
            let mut packet = IpPacket::new(src, dst, payload);
            packet.ttl = ttl;
            if dst.is_ipv4() {
                packet.options = opt;
            } else {
                packet.extensions = ext;
            }
            packet
        },
    )
}

fn expected_transport(packet: &IpPacket) -> Transport {
    match &packet.payload {
        Payload::Udp(source, destination, data) => Transport::Udp {
            source: *source,
            destination: *destination,
            length: u16::try_from(8 + data.len()).unwrap(),
        },
        Payload::Tcp(source, destination, _) => Transport::Tcp {
            source: *source,
            destination: *destination,
            flags: dataplane_common::pkt::TcpFlags(0x10),
        },
        Payload::Icmp(kind, code, _) if packet.dst.is_ipv4() => Transport::Icmp {
            kind: *kind,
            code: *code,
        },
        Payload::Icmp(kind, code, _) => Transport::Icmpv6 {
            kind: *kind,
            code: *code,
        },
        Payload::Other(number, _) => Transport::Other(*number),
    }
}

proptest! {
    #[test]
    fn what_is_built_is_what_is_read(
        packet in packet(),
        macs in any::<([u8; 6], [u8; 6])>(),
        tags in prop::collection::vec((prop::sample::select(vec![ethertype::VLAN, ethertype::QINQ]), any::<u16>()), 0..4),
        padding in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let plain = Frame::ip(Mac(macs.0), Mac(macs.1), &packet);
        let frame = tags.iter().fold(plain, |frame, (tpid, tci)| frame.tagged(*tpid, *tci));
        // Without octets behind it, an empty IPv6 packet is not told from a jumbogram.
        let frame = if packet.bytes().len() > 40 { frame.followed_by(&padding) } else { frame };
        let read = Packet::parse(frame.bytes()).unwrap();
        prop_assert_eq!(read.unread, None);
        prop_assert_eq!((read.ethernet.source, read.ethernet.destination), macs);
        let read_tags: Vec<_> = read.ethernet.tags.as_slice().iter().map(|t| (t.protocol, t.control)).collect();
        prop_assert_eq!(read_tags, tags.into_iter().rev().collect::<Vec<_>>());
        match read.network {
            Some(Network::Ipv4(ip)) => {
                prop_assert_eq!((IpAddr::V4(ip.source), IpAddr::V4(ip.destination)), (packet.src, packet.dst));
                prop_assert_eq!((usize::from(ip.header_len), ip.ttl), (20 + packet.options.len(), packet.ttl));
            }
            Some(Network::Ipv6(ip)) => {
                prop_assert_eq!((IpAddr::V6(ip.source), IpAddr::V6(ip.destination)), (packet.src, packet.dst));
                prop_assert_eq!((usize::from(ip.extensions), ip.hop_limit), (packet.extensions.len(), packet.ttl));
            }
            other => prop_assert!(false, "{other:?}"),
        }
        prop_assert_eq!(read.transport, Some(expected_transport(&packet)));
    }

    #[test]
    fn the_builders_checksums_are_right(packet in packet()) {
        let bytes = packet.bytes();
        if packet.dst.is_ipv4() {
            prop_assert_eq!(checksum(&bytes[..20 + packet.options.len()]), 0);
        }
    }
}

#[test]
fn other_builders_read_back() {
    let (a, b) = (Mac::numbered(1), Mac::numbered(2));
    let llc = Packet::parse(Frame::llc(a, b, b"payload").bytes()).unwrap();
    assert_eq!(llc.ethernet.kind, Kind::Length(10));
    let asks = Frame::arp_request(a, Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let Some(Network::Arp(arp)) = Packet::parse(asks.bytes()).unwrap().network else {
        panic!("no ARP")
    };
    assert_eq!((arp.operation, arp.sender_mac), (1, a.0));
    assert_eq!(
        (arp.sender, arp.target),
        (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2))
    );
    let cut = Frame::ethernet(a, b, ethertype::IPV6, &[0x60; 39]);
    let error = ParseError::Truncated {
        header: Header::Ipv6,
        needed: 40,
        available: 39,
    };
    assert_eq!(Packet::parse(cut.bytes()).unwrap().unread, Some(error));
}

#[test]
fn a_super_packet_reads_as_one_packet() {
    let packet = IpPacket::new(
        "fd00::1".parse().unwrap(),
        "fd00::2".parse().unwrap(),
        Payload::Tcp(5, 6, vec![7; 60_000]),
    );
    let (frame, gso) = packet.gso(Mac::numbered(1), Mac::numbered(2), 1400).unwrap();
    assert_eq!((gso.transport_offset, gso.header_len), (54, 74));
    let read = Packet::parse(&frame).unwrap();
    assert_eq!(
        (read.transport, read.unread),
        (Some(expected_transport(&packet)), None)
    );
}
