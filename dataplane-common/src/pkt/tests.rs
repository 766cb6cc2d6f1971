//! What holds for every input, and each way in which a header can be wrong.

use proptest::prelude::*;

use super::*;

/// Ethernet with this type, from 02…02 to 02…01.
fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [
        &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2],
        &ethertype.to_be_bytes()[..],
        payload,
    ]
    .concat()
}

fn ipv4_header(protocol: u8, total_len: u16) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend_from_slice(&total_len.to_be_bytes());
    header.extend_from_slice(&[0, 9, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    header
}

fn ipv6_header(next: u8, payload_len: u16) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend_from_slice(&payload_len.to_be_bytes());
    header.extend_from_slice(&[next, 64]);
    header.extend_from_slice(&[0xfd; 16]);
    header.extend_from_slice(&[0xfe; 16]);
    header
}

fn parse(frame: &[u8]) -> Packet {
    Packet::parse(frame).unwrap()
}

#[test]
fn a_udp_datagram_is_read_whole_and_shown_in_a_line() {
    let udp = [0, 5, 0, 6, 0, 8, 0, 0];
    let packet = parse(&ethernet(0x0800, &[&ipv4_header(17, 28)[..], &udp].concat()));
    assert_eq!(packet.unread, None);
    let expected = Transport::Udp {
        source: 5,
        destination: 6,
        length: 8,
    };
    assert_eq!(packet.transport, Some(expected));
    let line = "02:00:00:00:00:02 > 02:00:00:00:00:01 type 0x0800 10.0.0.1 > 10.0.0.2 ttl 64 UDP 5 > 6";
    assert_eq!(packet.to_string(), line);
}

#[test]
fn padding_behind_the_packet_is_not_taken_for_a_transport_header() {
    let packet = parse(&ethernet(0x0800, &[&ipv4_header(17, 24)[..], &[0; 26]].concat()));
    let error = ParseError::Truncated {
        header: Header::Udp,
        needed: 8,
        available: 4,
    };
    assert_eq!((packet.transport, packet.unread), (None, Some(error)));
}

#[test]
fn a_frame_shorter_than_its_header_is_an_error() {
    let error = ParseError::Truncated {
        header: Header::Ethernet,
        needed: 14,
        available: 13,
    };
    assert_eq!(Packet::parse(&[0; 13]), Err(error));
    assert_eq!(
        error.to_string(),
        "the Ethernet header has 14 octets, only 13 are there"
    );
}

#[test]
fn tags_are_read_up_to_the_limit_and_refused_beyond() {
    let tags = |count: usize| [0x81, 0, 0x20, 7].repeat(count)[2..].to_vec();
    let frame = |count| ethernet(0x8100, &[tags(count), vec![0x88, 0xb5]].concat());
    let packet = parse(&frame(MAX_VLAN_TAGS));
    let slice = packet.ethernet.tags.as_slice();
    assert_eq!(slice.len(), MAX_VLAN_TAGS);
    assert_eq!(
        (slice[3].vlan(), slice[3].priority(), slice[3].protocol),
        (7, 1, 0x8100)
    );
    assert_eq!(packet.ethernet.kind, Kind::Type(0x88b5));
    let error = ParseError::TooMany {
        header: Header::Vlan,
        limit: MAX_VLAN_TAGS,
    };
    assert_eq!(Packet::parse(&frame(MAX_VLAN_TAGS + 1)), Err(error));
}

#[test]
fn a_small_type_field_is_a_length() {
    assert_eq!(parse(&ethernet(0x05ff, &[])).ethernet.kind, Kind::Length(0x05ff));
    assert_eq!(parse(&ethernet(0x0600, &[])).ethernet.kind, Kind::Type(0x0600));
}

#[test]
fn wrong_versions_and_lengths_are_named() {
    let with = |at: usize, value: u8| {
        let mut header = ipv4_header(6, 20);
        header[at] = value;
        parse(&ethernet(0x0800, &header)).unread
    };
    assert_eq!(
        with(0, 0x65),
        Some(ParseError::Version {
            header: Header::Ipv4,
            found: 6
        })
    );
    assert_eq!(
        with(0, 0x44),
        Some(ParseError::Length {
            header: Header::Ipv4,
            found: 16
        })
    );
    assert_eq!(
        with(3, 19),
        Some(ParseError::Length {
            header: Header::Ipv4,
            found: 19
        })
    );
    let options_missing = ParseError::Truncated {
        header: Header::Ipv4,
        needed: 60,
        available: 20,
    };
    let mut header = ipv4_header(6, 60);
    header[0] = 0x4f;
    assert_eq!(parse(&ethernet(0x0800, &header)).unread, Some(options_missing));
    let six = parse(&ethernet(0x86dd, &ipv4_header(6, 20).repeat(2)));
    assert_eq!(
        six.unread,
        Some(ParseError::Version {
            header: Header::Ipv6,
            found: 4
        })
    );
}

#[test]
fn wrong_transport_and_arp_lengths_are_named() {
    let mut tcp = [0; 20];
    tcp[12] = 0x40;
    let frame = ethernet(0x0800, &[&ipv4_header(6, 40)[..], &tcp].concat());
    assert_eq!(
        parse(&frame).unread,
        Some(ParseError::Length {
            header: Header::Tcp,
            found: 16
        })
    );
    let frame = ethernet(
        0x0800,
        &[&ipv4_header(17, 28)[..], &[0, 1, 0, 2, 0, 7, 0, 0]].concat(),
    );
    assert_eq!(
        parse(&frame).unread,
        Some(ParseError::Length {
            header: Header::Udp,
            found: 7
        })
    );
    let mut arp = [0; 28];
    arp[4..6].copy_from_slice(&[8, 4]);
    assert_eq!(
        parse(&ethernet(0x0806, &arp)).unread,
        Some(ParseError::Length {
            header: Header::Arp,
            found: 12
        })
    );
}

#[test]
fn only_the_first_fragment_has_a_transport_header() {
    let fragment = |field: u16| {
        let mut header = ipv4_header(17, 28);
        header[6..8].copy_from_slice(&field.to_be_bytes());
        parse(&ethernet(
            0x0800,
            &[&header[..], &[0, 5, 0, 6, 0, 8, 0, 0]].concat(),
        ))
    };
    let first = fragment(0x2000);
    assert_eq!(
        first.ipv4().unwrap().fragment,
        Some(Fragment {
            id: 9,
            offset: 0,
            more: true
        })
    );
    assert!(first.transport.is_some());
    let last = fragment(0x0003);
    assert_eq!(
        last.ipv4().unwrap().fragment,
        Some(Fragment {
            id: 9,
            offset: 24,
            more: false
        })
    );
    assert_eq!((last.transport, last.unread), (None, None));
    assert_eq!(
        fragment(0x4000).ipv4().unwrap().fragment,
        None,
        "don't-fragment is no fragment"
    );
}

#[test]
fn the_chain_of_extension_headers_is_followed() {
    let icmp = [128, 0, 0, 0, 0, 1, 0, 1];
    let chain = [
        &[43, 0, 1, 4, 0, 0, 0, 0][..], // hop-by-hop → routing
        &[51, 1, 0, 0, 0, 0, 0, 0],     // routing, 16 octets → authentication
        &[0; 8],
        &[60, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1], // authentication, 12 octets → destination options
        &[44, 0, 1, 4, 0, 0, 0, 0],             // destination options → fragment
        &[58, 0, 0, 1, 0, 0, 0, 5],             // first fragment → ICMPv6
        &icmp,
    ]
    .concat();
    let length = u16::try_from(chain.len()).unwrap();
    let packet = parse(&ethernet(0x86dd, &[&ipv6_header(0, length)[..], &chain].concat()));
    let ip = packet.ipv6().unwrap();
    assert_eq!((ip.extensions, ip.extensions_len, ip.next_header), (5, 52, 58));
    assert_eq!(
        ip.fragment,
        Some(Fragment {
            id: 5,
            offset: 0,
            more: true
        })
    );
    assert_eq!(packet.transport, Some(Transport::Icmpv6 { kind: 128, code: 0 }));
    assert_eq!(packet.unread, None);
}

#[test]
fn a_later_fragment_and_no_next_header_end_the_chain() {
    let later = [&ipv6_header(44, 16)[..], &[0, 0, 0, 9, 0, 0, 0, 5], &[0xff; 8]].concat();
    let packet = parse(&ethernet(0x86dd, &later));
    assert_eq!(
        packet.ipv6().unwrap().fragment,
        Some(Fragment {
            id: 5,
            offset: 8,
            more: true
        })
    );
    assert_eq!(
        (packet.ipv6().unwrap().extensions, packet.transport, packet.unread),
        (1, None, None)
    );
    let none = parse(&ethernet(0x86dd, &ipv6_header(59, 0)));
    assert_eq!((none.transport, none.unread), (None, None));
}

#[test]
fn too_long_and_truncated_chains_are_named() {
    let link = [60, 0, 1, 4, 0, 0, 0, 0];
    let chain = |count: usize| {
        let body = link.repeat(count);
        let length = u16::try_from(body.len()).unwrap();
        parse(&ethernet(0x86dd, &[&ipv6_header(60, length)[..], &body].concat()))
    };
    let too_many = ParseError::TooMany {
        header: Header::Ipv6Extension,
        limit: MAX_EXTENSION_HEADERS,
    };
    assert_eq!(chain(MAX_EXTENSION_HEADERS + 1).unread, Some(too_many));
    let cut = ParseError::Truncated {
        header: Header::Ipv6Extension,
        needed: 2,
        available: 0,
    };
    let packet = chain(3);
    assert_eq!((packet.ipv6().unwrap().extensions, packet.unread), (3, Some(cut)));
}

/// Frames that reach deep: right types and versions in front of arbitrary octets.
fn nearly_valid() -> impl Strategy<Value = Vec<u8>> {
    let types = prop::sample::select(vec![0x0800u16, 0x86dd, 0x0806, 0x8100, 0x88a8]);
    let protocols = prop::sample::select(vec![0u8, 1, 6, 17, 43, 44, 51, 58, 59, 60, 135, 139, 140]);
    (types, protocols, prop::collection::vec(any::<u8>(), 0..200)).prop_map(
        |(ethertype, protocol, mut body)| {
            if let Some(first) = body.first_mut() {
                *first = match ethertype {
                    0x0800 => 0x40 | (*first & 0x0f),
                    0x86dd => 0x60 | (*first & 0x0f),
                    _ => *first,
                };
            }
            let protocol_at = if ethertype == 0x0800 { 9 } else { 6 };
            if let Some(field) = body.get_mut(protocol_at) {
                *field = protocol;
            }
            ethernet(ethertype, &body)
        },
    )
}

proptest! {
    #[test]
    fn no_input_panics(frame in prop::collection::vec(any::<u8>(), 0..300)) {
        match Packet::parse(&frame) {
            Ok(packet) => prop_assert!(!packet.to_string().is_empty()),
            Err(ParseError::Truncated { needed, available, .. }) => prop_assert!(available < needed),
            Err(other) => prop_assert_eq!(other, ParseError::TooMany { header: Header::Vlan, limit: MAX_VLAN_TAGS }),
        }
    }

    #[test]
    fn no_nearly_valid_input_panics(frame in nearly_valid()) {
        let _ = Packet::parse(&frame).map(|packet| packet.to_string());
    }

    #[test]
    fn cutting_a_frame_never_changes_what_was_read_before_the_cut(frame in nearly_valid(), cut in 0..200usize) {
        let Ok(whole) = Packet::parse(&frame) else { return Ok(()) };
        let Ok(part) = Packet::parse(&frame[..cut.min(frame.len())]) else { return Ok(()) };
        prop_assert_eq!(part.ethernet, whole.ethernet);
        // An IPv6 header tells how far its chain was followed, so its fixed part is compared.
        match (&part.network, &whole.network) {
            (Some(Network::Ipv6(a)), Some(Network::Ipv6(b))) => prop_assert_eq!(
                (a.source, a.destination, a.hop_limit, a.payload_len),
                (b.source, b.destination, b.hop_limit, b.payload_len)
            ),
            (Some(a), b) => prop_assert_eq!(Some(a), b.as_ref()),
            (None, _) => {}
        }
        if part.transport.is_some() {
            prop_assert_eq!(part.transport, whole.transport);
        }
    }
}
