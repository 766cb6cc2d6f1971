//! Reading the headers of a flow.

use network_types::ip::IpProto;

use super::{Family, Kind, Octets, Seen};
use crate::abi::{SplitRule, address_words, mapped_words};

const TCP: u8 = IpProto::Tcp as u8;
const UDP: u8 = IpProto::Udp as u8;
const UDP_LITE: u8 = IpProto::UdpLite as u8;
const DCCP: u8 = IpProto::Dccp as u8;
const SCTP: u8 = IpProto::Sctp as u8;
const ICMP: u8 = IpProto::Icmp as u8;
const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;
const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
const AUTHENTICATION: u8 = IpProto::Ah as u8;

/// How many IPv6 extension headers are followed. What is behind more of them counts as a protocol without ports.
const MAX_EXTENSIONS: usize = 6;
const ICMP_HEADER: u32 = 8;
/// Where the word is of which the second octet is TCP's flags.
const TCP_FLAGS_AT: u32 = 12;

/// What ICMP says, as far as it concerns flows.
enum Icmp {
    /// A request or reply with an identifier.
    Query,
    /// About the packet that it quotes.
    Error,
    /// Neither.
    Other,
}

/// Reads a packet, which an ICMP error may quote; where the packet begins that it quotes itself, or 0. `None`: not a
/// packet of a flow, or a header cannot be read.
#[inline(always)]
pub(super) fn packet(
    frame: &impl Octets,
    family: Family,
    at: u32,
    quoted: bool,
    seen: &mut Seen,
) -> Option<u32> {
    let at = match family {
        Family::V4 => ipv4(frame, at, seen)?,
        Family::V6 => ipv6(frame, at, seen)?,
    };
    seen.rule_protocol = if seen.protocol == ICMPV6 {
        ICMP
    } else {
        seen.protocol
    };
    if !matches!(seen.kind, Kind::LaterFragment) {
        match seen.protocol {
            TCP | UDP | UDP_LITE | DCCP | SCTP => ports(frame, at, quoted, seen)?,
            ICMP | ICMPV6 => match icmp(frame, at, seen)? {
                Icmp::Query => {}
                Icmp::Error if !quoted => return Some(at + ICMP_HEADER),
                Icmp::Error | Icmp::Other => return None,
            },
            _ => {}
        }
    }
    if quoted {
        seen.kind = match seen.kind {
            Kind::LaterFragment => Kind::FragmentError,
            _ => Kind::Error,
        };
        seen.turn();
    }
    Some(0)
}

/// Reads an IPv4 header; where the transport header begins.
#[inline(always)]
fn ipv4(frame: &impl Octets, at: u32, seen: &mut Seen) -> Option<u32> {
    let header: [u8; 20] = frame.octets(at)?;
    let length = u32::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return None;
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    seen.family = 4;
    seen.protocol = header[9];
    seen.fragment = u32::from(u16::from_be_bytes([header[4], header[5]]));
    seen.kind = part(fragment & 0x1fff != 0, fragment & 0x2000 != 0);
    seen.source = mapped_words([header[12], header[13], header[14], header[15]]);
    seen.destination = mapped_words([header[16], header[17], header[18], header[19]]);
    Some(at + length)
}

/// Reads an IPv6 header and its extension headers; where the transport header begins.
#[inline(always)]
fn ipv6(frame: &impl Octets, at: u32, seen: &mut Seen) -> Option<u32> {
    let [version, _, _, _, _, _, next, _] = frame.octets(at)?;
    if version >> 4 != 6 {
        return None;
    }
    seen.source = address_words(&frame.octets(at + 8)?);
    seen.destination = address_words(&frame.octets(at + 24)?);
    seen.family = 6;
    seen.kind = Kind::Flow;
    let (mut next, mut at) = (next, at + 40);
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(next) {
            break;
        }
        let header: [u8; 8] = frame.octets(at)?;
        at += match next {
            FRAGMENT => {
                let fragment = u16::from_be_bytes([header[2], header[3]]);
                seen.fragment = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                seen.kind = part(fragment & 0xfff8 != 0, fragment & 1 != 0);
                8
            }
            AUTHENTICATION => (u32::from(header[1]) + 2) * 4,
            _ => (u32::from(header[1]) + 1) * 8,
        };
        next = header[0];
        if matches!(seen.kind, Kind::LaterFragment) {
            break;
        }
    }
    seen.protocol = next;
    Some(at)
}

/// Which part of a packet this is. One that is first and last was never cut (RFC 6946).
#[inline(always)]
const fn part(later: bool, more: bool) -> Kind {
    match (later, more) {
        (true, _) => Kind::LaterFragment,
        (false, true) => Kind::FirstFragment,
        (false, false) => Kind::Flow,
    }
}

/// Hop-by-hop options, routing, fragment, authentication, destination options.
#[inline(always)]
const fn is_extension(number: u8) -> bool {
    matches!(number, 0 | 43 | FRAGMENT | AUTHENTICATION | 60)
}

/// What an ICMP header says. `None`: cut short.
#[inline(always)]
fn icmp(frame: &impl Octets, at: u32, seen: &mut Seen) -> Option<Icmp> {
    let header: [u8; 8] = frame.octets(at)?;
    let identifier = u16::from_be_bytes([header[4], header[5]]);
    Some(match (seen.protocol, header[0]) {
        // Echo and timestamp; echo.
        (ICMP, 0 | 8 | 13 | 14) | (ICMPV6, 128 | 129) => {
            (seen.source_port, seen.destination_port) = (identifier, identifier);
            Icmp::Query
        }
        // Unreachable, quench, redirect, time exceeded, parameter problem; all of RFC 4443 §3.
        (ICMP, 3 | 4 | 5 | 11 | 12) | (ICMPV6, 1..=4) => Icmp::Error,
        _ => Icmp::Other,
    })
}

/// Reads the ports. A quoted packet has its first eight octets for certain, and its flags say nothing of this one.
#[inline(always)]
fn ports(frame: &impl Octets, at: u32, quoted: bool, seen: &mut Seen) -> Option<()> {
    let [a, b, c, d] = frame.octets(at)?;
    seen.rule_ports = SplitRule::PORTS;
    seen.source_port = u16::from_be_bytes([a, b]);
    seen.destination_port = u16::from_be_bytes([c, d]);
    if seen.protocol == TCP && !quoted {
        let [_, flags, _, _] = frame.octets(at + TCP_FLAGS_AT)?;
        seen.tcp_flags = flags;
    }
    Some(())
}
