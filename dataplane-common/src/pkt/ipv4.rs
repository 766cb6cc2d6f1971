//! IPv4 (RFC 791).

use core::{mem::offset_of, net::Ipv4Addr};

use network_types::ip::Ipv4Hdr;

use super::{
    Fragment,
    error::{Header, ParseError},
    read::{array, octet, split, word},
};

const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// An IPv4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Number of the protocol that follows.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Octets of the header with its options.
    pub header_len: u8,
    /// Octets of the whole packet; 0 in a super-packet above 64 KiB.
    pub total_len: u16,
    /// Set if the packet was fragmented.
    pub fragment: Option<Fragment>,
}

impl Ipv4 {
    /// Reads the header and gives what follows it, without padding of the frame.
    pub fn read(payload: &[u8]) -> Result<(Self, &[u8]), ParseError> {
        let (fixed, _) = split(payload, Header::Ipv4, Ipv4Hdr::LEN)?;
        let version_and_words = octet(fixed, offset_of!(Ipv4Hdr, vihl));
        let version = version_and_words >> 4;
        if version != 4 {
            return Err(ParseError::Version {
                header: Header::Ipv4,
                found: version,
            });
        }
        let header_len = (version_and_words & 0x0f) * 4;
        let total_len = word(fixed, offset_of!(Ipv4Hdr, tot_len));
        let header_octets = check_lengths(header_len, total_len)?;
        let (_, rest) = split(payload, Header::Ipv4, header_octets)?;
        let frags = word(fixed, offset_of!(Ipv4Hdr, frags));
        let fragment = Fragment {
            id: u32::from(word(fixed, offset_of!(Ipv4Hdr, id))),
            offset: u32::from(frags & OFFSET) * 8,
            more: frags & MORE_FRAGMENTS != 0,
        };
        let ip = Self {
            source: array(fixed, offset_of!(Ipv4Hdr, src_addr)).into(),
            destination: array(fixed, offset_of!(Ipv4Hdr, dst_addr)).into(),
            protocol: octet(fixed, offset_of!(Ipv4Hdr, proto)),
            ttl: octet(fixed, offset_of!(Ipv4Hdr, ttl)),
            header_len,
            total_len,
            fragment: (fragment.more || fragment.offset != 0).then_some(fragment),
        };
        Ok((ip, ip.without_padding(rest)))
    }

    fn without_padding<'a>(&self, rest: &'a [u8]) -> &'a [u8] {
        let length = usize::from(self.total_len.saturating_sub(u16::from(self.header_len)));
        if self.total_len == 0 {
            rest
        } else {
            rest.get(..length).unwrap_or(rest)
        }
    }
}

/// The header's octets, if both length fields can be true.
fn check_lengths(header_len: u8, total_len: u16) -> Result<usize, ParseError> {
    let header_octets = usize::from(header_len);
    let too_short = |found| ParseError::Length {
        header: Header::Ipv4,
        found,
    };
    if header_octets < Ipv4Hdr::LEN {
        return Err(too_short(header_octets));
    }
    if total_len != 0 && usize::from(total_len) < header_octets {
        return Err(too_short(usize::from(total_len)));
    }
    Ok(header_octets)
}
