//! Ethernet II and IEEE 802.3, with VLAN tags (IEEE 802.1Q).

use core::mem::offset_of;

use network_types::{eth::EthHdr, vlan::VlanHdr};

use super::{
    error::{Header, ParseError},
    ethertype,
    read::{array, split, word},
};

/// How many VLAN tags are read; a frame with more is refused.
pub const MAX_VLAN_TAGS: usize = 4;
/// The lowest value of a type field; lower ones are lengths (IEEE 802.3 §3.2.6).
const FIRST_TYPE: u16 = 0x0600;

/// Addresses, tags and type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination hardware address.
    pub destination: [u8; 6],
    /// Source hardware address.
    pub source: [u8; 6],
    /// VLAN tags, outermost first.
    pub tags: VlanTags,
    /// What follows the tags.
    pub kind: Kind,
}

/// The type field behind all tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An EtherType, in host order.
    Type(u16),
    /// A length: an LLC header follows (IEEE 802.2).
    Length(u16),
}

/// One VLAN tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VlanTag {
    /// Tag protocol: 0x8100 or 0x88a8.
    pub protocol: u16,
    /// Priority, drop eligibility and VLAN number.
    pub control: u16,
}

impl VlanTag {
    /// The VLAN's number: 0 to 4095.
    #[must_use]
    pub const fn vlan(self) -> u16 {
        self.control & 0x0fff
    }

    /// Priority code point: 0 to 7.
    #[must_use]
    pub const fn priority(self) -> u8 {
        (self.control >> 13).to_be_bytes()[1]
    }
}

/// The tags of a frame, outermost first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VlanTags {
    tags: [VlanTag; MAX_VLAN_TAGS],
    count: usize,
}

impl VlanTags {
    /// The tags.
    #[must_use]
    pub fn as_slice(&self) -> &[VlanTag] {
        self.tags.get(..self.count).unwrap_or(&self.tags)
    }

    fn push(&mut self, tag: VlanTag) -> Result<(), ParseError> {
        let room = self.tags.get_mut(self.count).ok_or(ParseError::TooMany {
            header: Header::Vlan,
            limit: MAX_VLAN_TAGS,
        })?;
        *room = tag;
        self.count += 1;
        Ok(())
    }
}

impl Ethernet {
    /// Reads the header and gives what follows it.
    pub fn read(frame: &[u8]) -> Result<(Self, &[u8]), ParseError> {
        let (header, mut rest) = split(frame, Header::Ethernet, EthHdr::LEN)?;
        let mut protocol = word(header, offset_of!(EthHdr, ether_type));
        let mut tags = VlanTags::default();
        while matches!(protocol, ethertype::VLAN | ethertype::SERVICE_VLAN) {
            let (tag, behind) = split(rest, Header::Vlan, VlanHdr::LEN)?;
            let control = word(tag, offset_of!(VlanHdr, tci));
            tags.push(VlanTag { protocol, control })?;
            protocol = word(tag, offset_of!(VlanHdr, ether_type));
            rest = behind;
        }
        let kind = if protocol < FIRST_TYPE {
            Kind::Length(protocol)
        } else {
            Kind::Type(protocol)
        };
        let ethernet = Self {
            destination: array(header, offset_of!(EthHdr, dst_addr)),
            source: array(header, offset_of!(EthHdr, src_addr)),
            tags,
            kind,
        };
        Ok((ethernet, rest))
    }
}
