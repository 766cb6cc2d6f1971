//! IPv6 and the chain of its extension headers (RFC 8200 §4, RFC 4302).

use core::{mem::offset_of, net::Ipv6Addr};

use network_types::ip::{IpProto, Ipv6Hdr};

use super::{
    Fragment,
    error::{Header, ParseError},
    read::{array, long, octet, split, word},
};

/// How many extension headers are read; a packet with more is refused.
pub const MAX_EXTENSION_HEADERS: usize = 8;

const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
const ROUTING: u8 = IpProto::Ipv6Route as u8;
const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
const AUTHENTICATION: u8 = IpProto::Ah as u8;
const NO_NEXT_HEADER: u8 = IpProto::Ipv6NoNxt as u8;
const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;
const MOBILITY: u8 = IpProto::MobilityHeader as u8;
const HOST_IDENTITY: u8 = IpProto::Hip as u8;
const SHIM6: u8 = IpProto::Shim6 as u8;

/// The octets every extension header has at least: next header, length.
const EXTENSION_PREFIX: usize = 2;
/// Octets of the fragment header, which has no length field.
const FRAGMENT_LEN: usize = 8;

/// An IPv6 header and what its extension headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// Number of the protocol behind the extension headers that were read.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Octets behind the fixed header; 0 in a jumbogram.
    pub payload_len: u16,
    /// How many extension headers were read.
    pub extensions: u8,
    /// Octets of the extension headers that were read.
    pub extensions_len: u16,
    /// Set if the packet was fragmented.
    pub fragment: Option<Fragment>,
}

impl Ipv6 {
    /// Reads the fixed header and gives what follows it, without padding of the frame.
    pub fn read(payload: &[u8]) -> Result<(Self, &[u8]), ParseError> {
        let (fixed, rest) = split(payload, Header::Ipv6, Ipv6Hdr::LEN)?;
        let version = octet(fixed, offset_of!(Ipv6Hdr, vcf)) >> 4;
        if version != 6 {
            return Err(ParseError::Version {
                header: Header::Ipv6,
                found: version,
            });
        }
        let payload_len = word(fixed, offset_of!(Ipv6Hdr, payload_len));
        let ip = Self {
            source: array(fixed, offset_of!(Ipv6Hdr, src_addr)).into(),
            destination: array(fixed, offset_of!(Ipv6Hdr, dst_addr)).into(),
            next_header: octet(fixed, offset_of!(Ipv6Hdr, next_hdr)),
            hop_limit: octet(fixed, offset_of!(Ipv6Hdr, hop_limit)),
            payload_len,
            extensions: 0,
            extensions_len: 0,
            fragment: None,
        };
        let rest = if payload_len == 0 {
            rest
        } else {
            rest.get(..usize::from(payload_len)).unwrap_or(rest)
        };
        Ok((ip, rest))
    }

    /// Follows the chain of extension headers and gives what is behind it. On an error, the header tells how far
    /// it came.
    pub fn read_extensions<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], ParseError> {
        while is_extension(self.next_header) && self.has_transport() {
            if usize::from(self.extensions) == MAX_EXTENSION_HEADERS {
                return Err(ParseError::TooMany {
                    header: Header::Ipv6Extension,
                    limit: MAX_EXTENSION_HEADERS,
                });
            }
            let (prefix, _) = split(rest, Header::Ipv6Extension, EXTENSION_PREFIX)?;
            let length = extension_len(self.next_header, octet(prefix, 1));
            let (header, behind) = split(rest, Header::Ipv6Extension, length)?;
            if self.next_header == FRAGMENT {
                self.fragment = read_fragment(header);
            }
            self.next_header = octet(header, 0);
            self.extensions += 1;
            self.extensions_len = self
                .extensions_len
                .saturating_add(u16::try_from(length).unwrap_or(u16::MAX));
            rest = behind;
        }
        Ok(rest)
    }

    /// Whether a transport header follows the extension headers read so far.
    #[must_use]
    pub fn has_transport(&self) -> bool {
        self.next_header != NO_NEXT_HEADER && self.fragment.is_none_or(|fragment| fragment.is_first())
    }
}

const fn is_extension(number: u8) -> bool {
    matches!(
        number,
        HOP_BY_HOP
            | ROUTING
            | FRAGMENT
            | AUTHENTICATION
            | DESTINATION_OPTIONS
            | MOBILITY
            | HOST_IDENTITY
            | SHIM6
    )
}

/// Octets of an extension header of this kind, whose length field says `field`.
fn extension_len(kind: u8, field: u8) -> usize {
    match kind {
        FRAGMENT => FRAGMENT_LEN,
        // In units of four octets, not counting the first two units (RFC 4302 §2.2).
        AUTHENTICATION => (usize::from(field) + 2) * 4,
        // In units of eight octets, not counting the first.
        _ => (usize::from(field) + 1) * 8,
    }
}

/// `None` for an atomic fragment (RFC 6946), which is a whole packet.
fn read_fragment(header: &[u8]) -> Option<Fragment> {
    let field = word(header, 2);
    let fragment = Fragment {
        id: long(header, 4),
        offset: u32::from(field & 0xfff8),
        more: field & 1 != 0,
    };
    (fragment.more || fragment.offset != 0).then_some(fragment)
}
