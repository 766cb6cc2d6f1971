//! The question: an ICMP echo request in a frame of a fixed, unusual length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane_common::{pkt::ethertype, probe};

use crate::desired::Mac;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TTL: u8 = 64;
/// What the data is filled up with.
const FILLER: u8 = 0x5a;

/// From whom to whom a probe seems to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) from: (Mac, IpAddr),
    pub(super) to: (Mac, IpAddr),
}

/// The probe whose answer the position with this `slot` takes; `None` if the addresses are of two families.
pub(super) fn request(ends: Ends, slot: u32, cookie: u64) -> Option<Box<[u8]>> {
    let length = usize::try_from(probe::FRAME_LEN).ok()?;
    let mut frame = Vec::with_capacity(length);
    frame.extend(ends.to.0.0);
    frame.extend(ends.from.0.0);
    match (ends.from.1, ends.to.1) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let body = body(ECHO_REQUEST, length - ETHERNET_LEN - IPV4_LEN, slot, cookie);
            frame.extend(ethertype::IPV4.to_be_bytes());
            frame.extend(ipv4(from, to, body.len()));
            let check = checksum(&[&body]);
            frame.extend(with_checksum(body, check));
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let body = body(ECHO_REQUEST_V6, length - ETHERNET_LEN - IPV6_LEN, slot, cookie);
            let size = u16::try_from(body.len()).ok()?;
            frame.extend(ethertype::IPV6.to_be_bytes());
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(size.to_be_bytes());
            frame.extend([ICMPV6, TTL]);
            frame.extend(from.octets());
            frame.extend(to.octets());
            let pseudo = [&[0, 0], &size.to_be_bytes()[..], &[0, 0, 0, ICMPV6]].concat();
            let check = checksum(&[&from.octets(), &to.octets(), &pseudo, &body]);
            frame.extend(with_checksum(body, check));
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    }
    Some(frame.into_boxed_slice())
}

/// The ICMP header, checksum 0, and the data. Identifier and sequence number together are the slot.
fn body(kind: u8, length: usize, slot: u32, cookie: u64) -> Vec<u8> {
    let mut body = vec![kind, 0, 0, 0];
    body.extend(slot.to_be_bytes());
    body.extend(cookie.to_ne_bytes());
    body.resize(length, FILLER);
    body
}

fn with_checksum(mut body: Vec<u8>, check: u16) -> Vec<u8> {
    body.splice(2..4, check.to_be_bytes());
    body
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, payload: usize) -> Vec<u8> {
    let length = u16::try_from(IPV4_LEN + payload).unwrap_or(0).to_be_bytes();
    let mut header = vec![0x45, 0];
    header.extend(length);
    // Not a fragment, and never to be one.
    header.extend([0, 0, 0x40, 0, TTL, ICMP, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let check = checksum(&[&header]);
    header.splice(10..12, check.to_be_bytes());
    header
}

/// The Internet checksum (RFC 1071) over parts of even length, but for the last.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// The pair of addresses that a probe between these ends has.
pub(super) const fn is_pair(from: IpAddr, to: IpAddr) -> bool {
    match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => true,
        (IpAddr::V6(from), IpAddr::V6(to)) => is_plain(from) && is_plain(to),
        _ => false,
    }
}

/// Whether it is no address of one link.
const fn is_plain(address: Ipv6Addr) -> bool {
    !address.is_unicast_link_local() && !address.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane_common::{
        flow::Family,
        pkt::{Packet, Transport},
    };

    const COOKIE: u64 = 0x1122_3344_5566_7788;

    fn ends(from: &str, to: &str) -> Ends {
        Ends {
            from: (Mac([2, 0, 0, 0, 0, 1]), from.parse().unwrap()),
            to: (Mac([2, 0, 0, 0, 0, 2]), to.parse().unwrap()),
        }
    }

    #[test]
    fn a_probe_is_a_whole_packet_and_its_answer_is_known() {
        for (from, to, family, at, reply) in [
            ("10.0.0.1", "10.0.0.2", Family::V4, 34, 0),
            ("fd00::1", "fd00::2", Family::V6, 54, 129),
        ] {
            let mut frame = request(ends(from, to), 0x0001_0007, COOKIE).unwrap();
            assert_eq!(frame.len(), 113);
            let packet = Packet::parse(&frame).unwrap();
            assert_eq!(packet.unread, None);
            assert!(matches!(
                packet.transport,
                Some(Transport::Icmp { kind: 8, .. } | Transport::Icmpv6 { kind: 128, .. })
            ));
            frame[at] = reply;
            let window = frame[14..70].try_into().unwrap();
            assert!(probe::is_reply(family, &window, 0x0001_0007, COOKIE));
        }
        assert_eq!(request(ends("10.0.0.1", "fd00::2"), 1, COOKIE), None);
    }

    #[test]
    fn checksums_are_right() {
        // The example of RFC 1071 §3, and that a packet with its checksum adds up to nothing.
        assert_eq!(
            checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]),
            !0xddf2
        );
        let frame = request(ends("10.0.0.1", "10.0.0.2"), 7, COOKIE).unwrap();
        assert_eq!(checksum(&[&frame[14..34]]), 0);
        assert_eq!(checksum(&[&frame[34..]]), 0);
    }
}
