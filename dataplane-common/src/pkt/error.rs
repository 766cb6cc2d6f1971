//! Why a header could not be read.

use core::{error::Error, fmt};

/// A header that [`super::Packet::parse`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Addresses and type.
    Ethernet,
    /// A VLAN tag.
    Vlan,
    /// Address resolution.
    Arp,
    /// IPv4 with options.
    Ipv4,
    /// The fixed IPv6 header.
    Ipv6,
    /// An IPv6 extension header.
    Ipv6Extension,
    /// TCP with options.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP or ICMPv6.
    Icmp,
}

impl Header {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ethernet => "Ethernet",
            Self::Vlan => "VLAN",
            Self::Arp => "ARP",
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
            Self::Ipv6Extension => "IPv6 extension",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Icmp => "ICMP",
        }
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The frame ends within a header.
    Truncated {
        /// That header.
        header: Header,
        /// Octets the header has.
        needed: usize,
        /// Octets there are.
        available: usize,
    },
    /// A version field does not fit the type field in front of it.
    Version {
        /// The header that was expected.
        header: Header,
        /// The version found.
        found: u8,
    },
    /// A length field says less than the header itself has, or something its kind does not allow.
    Length {
        /// The header.
        header: Header,
        /// What the field says, in octets.
        found: usize,
    },
    /// More headers of one kind in a row than are read.
    TooMany {
        /// Their kind.
        header: Header,
        /// How many are read.
        limit: usize,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated {
                header,
                needed,
                available,
            } => write!(
                f,
                "the {header} header has {needed} octets, only {available} are there"
            ),
            Self::Version { header, found } => write!(f, "the {header} header has version {found}"),
            Self::Length { header, found } => {
                write!(f, "the {header} header gives a length of {found} octets")
            }
            Self::TooMany { header, limit } => write!(f, "more than {limit} {header} headers"),
        }
    }
}

impl Error for ParseError {}
