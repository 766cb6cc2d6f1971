//! TCP (RFC 9293), UDP (RFC 768), ICMP (RFC 792) and ICMPv6 (RFC 4443).

use core::mem::offset_of;

use network_types::{
    icmp::{Icmpv4Hdr, Icmpv6Hdr},
    ip::IpProto,
    tcp::TcpHdr,
    udp::UdpHdr,
};

use super::{
    error::{Header, ParseError},
    read::{octet, split, word},
};

const TCP: u8 = IpProto::Tcp as u8;
const UDP: u8 = IpProto::Udp as u8;
const ICMP: u8 = IpProto::Icmp as u8;
const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;

/// A transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// SYN, ACK and so on.
        flags: TcpFlags,
    },
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Octets of header and data; 0 in a super-packet or jumbogram.
        length: u16,
    },
    /// ICMP.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// ICMPv6.
    Icmpv6 {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// A protocol that is not read further.
    Other(u8),
}

/// The eight flags of TCP, from FIN (bit 0) to CWR (bit 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// Names in order of the bits.
    pub const NAMES: [&'static str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

    /// The names of the flags that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 & (1 << bit) != 0)
            .map(|(_, name)| name)
    }
}

impl Transport {
    /// Reads the header of protocol `number`.
    pub fn read(number: u8, payload: &[u8]) -> Result<Self, ParseError> {
        match number {
            TCP => read_tcp(payload),
            UDP => read_udp(payload),
            ICMP => {
                let (header, _) = split(payload, Header::Icmp, Icmpv4Hdr::LEN)?;
                Ok(Self::Icmp {
                    kind: octet(header, offset_of!(Icmpv4Hdr, type_)),
                    code: octet(header, offset_of!(Icmpv4Hdr, code)),
                })
            }
            ICMPV6 => {
                // Type, code and checksum; what follows depends on the type (RFC 4443 §2.1).
                let (header, _) = split(payload, Header::Icmp, offset_of!(Icmpv6Hdr, data))?;
                Ok(Self::Icmpv6 {
                    kind: octet(header, offset_of!(Icmpv6Hdr, type_)),
                    code: octet(header, offset_of!(Icmpv6Hdr, code)),
                })
            }
            other => Ok(Self::Other(other)),
        }
    }
}

fn read_tcp(payload: &[u8]) -> Result<Transport, ParseError> {
    let (fixed, _) = split(payload, Header::Tcp, TcpHdr::LEN)?;
    let offset_and_flags = word(fixed, offset_of!(TcpHdr, _bitfield_1));
    let header_len = usize::from(offset_and_flags >> 12) * 4;
    if header_len < TcpHdr::LEN {
        return Err(ParseError::Length {
            header: Header::Tcp,
            found: header_len,
        });
    }
    split(payload, Header::Tcp, header_len)?;
    Ok(Transport::Tcp {
        source: word(fixed, offset_of!(TcpHdr, source)),
        destination: word(fixed, offset_of!(TcpHdr, dest)),
        flags: TcpFlags(offset_and_flags.to_be_bytes()[1]),
    })
}

fn read_udp(payload: &[u8]) -> Result<Transport, ParseError> {
    let (header, _) = split(payload, Header::Udp, UdpHdr::LEN)?;
    let length = word(header, offset_of!(UdpHdr, len));
    if length != 0 && usize::from(length) < UdpHdr::LEN {
        return Err(ParseError::Length {
            header: Header::Udp,
            found: usize::from(length),
        });
    }
    Ok(Transport::Udp {
        source: word(header, offset_of!(UdpHdr, src)),
        destination: word(header, offset_of!(UdpHdr, dst)),
        length,
    })
}
