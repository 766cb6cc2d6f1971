//! What is read, and which packets have one key.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{
    Tuple,
    frames::{ESP, SCTP, TCP, UDP, tuple},
    seen,
};
use crate::{
    abi::{AddressWords, address_words, mapped_words},
    flow::Kind,
    pkt::{Network, Packet, Transport},
};

const SCOPE: u64 = 77;

fn words(address: IpAddr) -> AddressWords {
    match address {
        IpAddr::V4(v4) => mapped_words(v4.octets()),
        IpAddr::V6(v6) => address_words(&v6.octets()),
    }
}

/// Whether two packets belong to one flow, as people would say it.
fn same_flow(a: Tuple, b: Tuple) -> bool {
    let ends = |t: Tuple| [(t.source, t.source_port), (t.destination, t.destination_port)];
    let [x, y] = ends(b);
    a.protocol == b.protocol && (ends(a) == [x, y] || ends(a) == [y, x])
}

proptest! {
    #[test]
    fn packets_have_one_key_exactly_when_they_are_of_one_flow(a in tuple(), b in tuple()) {
        let equal = seen(&a.frame()).key(SCOPE) == seen(&b.frame()).key(SCOPE);
        prop_assert_eq!(equal, same_flow(a, b));
    }

    #[test]
    fn both_directions_have_one_key_and_each_wire_has_its_own(a in tuple()) {
        let key = seen(&a.frame()).key(SCOPE);
        prop_assert_eq!(key, seen(&a.returned().frame()).key(SCOPE));
        prop_assert_ne!(key, seen(&a.frame()).key(SCOPE + 1));
    }

    #[test]
    fn what_is_read_is_what_the_packet_parser_reads(a in tuple(), count in 0..6usize) {
        let extensions = &[0, 43, 60, 60, 60, 60][..count];
        let frame = if a.source.is_ipv4() { a.frame() } else { a.with_extensions(extensions) };
        let packet = Packet::parse(&frame).unwrap();
        let seen = seen(&frame);
        let (source, destination) = match packet.network.unwrap() {
            Network::Ipv4(ip) => (ip.source.into(), ip.destination.into()),
            Network::Ipv6(ip) => (ip.source.into(), ip.destination.into()),
            Network::Arp(_) => unreachable!("an IP frame"),
        };
        prop_assert_eq!(seen.kind, Kind::Flow);
        prop_assert_eq!((seen.source, seen.destination), (words(source), words(destination)));
        let ports = (seen.protocol, seen.source_port, seen.destination_port, seen.tcp_flags);
        match packet.transport.unwrap() {
            Transport::Tcp { source, destination, flags } => prop_assert_eq!(ports, (TCP, source, destination, flags.0)),
            Transport::Udp { source, destination, .. } => prop_assert_eq!(ports, (UDP, source, destination, 0)),
            Transport::Other(number) => prop_assert_eq!(seen.protocol, number),
            Transport::Icmp { .. } | Transport::Icmpv6 { .. } => prop_assert_eq!(ports.1, a.source_port),
        }
    }

    #[test]
    fn an_error_has_the_key_of_the_flow_it_is_about_and_goes_back_its_way(a in tuple()) {
        let error = seen(&a.error(None));
        prop_assert_eq!(error.kind, Kind::Error);
        prop_assert_eq!(error.key(SCOPE), seen(&a.frame()).key(SCOPE));
        prop_assert_eq!((error.source, error.destination), (words(a.destination), words(a.source)));
        prop_assert_eq!(error.tcp_flags, 0, "a quoted packet begins nothing");
    }

    #[test]
    fn all_fragments_of_a_packet_have_one_key(a in tuple(), number in 1..9u32, other in 1..9u32) {
        let [first, second, last] = [(0, true), (1, true), (2, false)]
            .map(|(offset, more)| seen(&a.fragment(number, offset, more)));
        prop_assert_eq!([first.kind, second.kind, last.kind], [Kind::FirstFragment, Kind::LaterFragment, Kind::LaterFragment]);
        prop_assert_eq!(first.key(SCOPE), seen(&a.frame()).key(SCOPE), "the first one has its ports");
        let key = first.fragment_key(SCOPE);
        prop_assert_eq!([second.fragment_key(SCOPE), last.fragment_key(SCOPE)], [key, key]);
        prop_assert_ne!(key, first.key(SCOPE), "the two kinds do not meet");
        let another = seen(&a.fragment(other, 1, true)).fragment_key(SCOPE);
        prop_assert_eq!(another == key, other == number);
        let back = seen(&a.returned().fragment(number, 1, true)).fragment_key(SCOPE);
        prop_assert_eq!(back == key, a.source == a.destination, "each sender counts by itself");
    }

    #[test]
    fn an_error_about_a_later_fragment_has_the_fragments_key(a in tuple()) {
        let error = seen(&a.error(Some((5, 3, true))));
        prop_assert_eq!(error.kind, Kind::FragmentError);
        prop_assert_eq!(error.fragment_key(SCOPE), seen(&a.fragment(5, 1, true)).fragment_key(SCOPE));
    }

    #[test]
    fn any_octets_are_read_without_a_panic(octets in prop::collection::vec(any::<u8>(), 0..200), v4 in any::<bool>()) {
        let kind: [u8; 2] = if v4 { [8, 0] } else { [0x86, 0xdd] };
        let version = if v4 { 0x45 } else { 0x60 };
        let read = seen(&[&[0; 12][..], &kind, &[version], &octets[..]].concat());
        let _ = (read.key(SCOPE), read.fragment_key(SCOPE));
    }

    #[test]
    fn a_frame_that_ends_within_its_headers_is_no_flow(a in tuple()) {
        let frame = a.frame();
        let headers = frame.len() - 8 - if a.protocol == TCP { 6 } else { 0 };
        for length in 14..headers {
            let cut = seen(&frame[..length]);
            // Beyond the ports, nothing is needed of a protocol without more.
            let enough = matches!(a.protocol, UDP | SCTP | ESP);
            prop_assert!(cut.kind == Kind::Other || enough, "{length} octets: {cut:?}");
        }
    }
}

#[test]
fn a_packet_with_an_atomic_fragment_header_is_whole() {
    let frame = Tuple::v6(UDP, 5, 6).fragment(9, 0, false);
    let read = seen(&frame);
    assert_eq!((read.kind, read.source_port), (Kind::Flow, 5));
}

#[test]
fn authentication_and_options_before_the_ports_are_passed_over() {
    for extensions in [&[0][..], &[60, 43], &[51], &[0, 43, 51, 60]] {
        let read = seen(&Tuple::v6(TCP, 5, 6).with_extensions(extensions));
        assert_eq!((read.protocol, read.destination_port), (TCP, 6), "{extensions:?}");
    }
}

#[test]
fn beyond_six_extension_headers_the_next_one_counts_as_a_protocol_without_ports() {
    let read = seen(&Tuple::v6(UDP, 5, 6).with_extensions(&[60; 7]));
    assert_eq!((read.kind, read.protocol, read.rule_ports), (Kind::Flow, 60, 0));
}

#[test]
fn an_error_about_an_error_is_no_flow() {
    let about = Tuple::v4(UDP, 5, 6);
    let frame = about.error(None);
    let outer = [
        &frame[..14],
        &[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0],
        &[10, 0, 0, 2, 10, 0, 0, 1],
    ]
    .concat();
    let nested = [&outer[..], &[3, 1, 0, 0, 0, 0, 0, 0], &frame[14..]].concat();
    assert_eq!(seen(&nested).kind, Kind::Other);
}

#[test]
fn neighbour_discovery_and_other_icmp_are_no_flow() {
    for (protocol, base, kinds) in [
        (58, Tuple::v6(58, 1, 1), &[133, 134, 135, 136, 137, 143][..]),
        (1, Tuple::v4(1, 1, 1), &[9, 10]),
    ] {
        for kind in kinds {
            let mut frame = base.frame();
            let at = if protocol == 1 { 34 } else { 54 };
            frame[at] = *kind;
            assert_eq!(seen(&frame).kind, Kind::Other, "protocol {protocol} type {kind}");
        }
    }
    assert_eq!(
        seen(&[&[2; 12][..], &[8, 6], &[0; 28]].concat()).kind,
        Kind::Other,
        "ARP"
    );
}
