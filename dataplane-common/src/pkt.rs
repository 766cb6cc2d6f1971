//! Reading packet headers out of a byte slice: what the frame says of itself, layer by layer.
//!
//! Any input gives an answer and none a panic. A frame that ends early (a sampled snapshot, a runt) or is malformed
//! yields every layer that could be read, and [`Packet::unread`] says where reading ended and why. Header layouts
//! are those of `network-types`; values are read by value, so nothing depends on alignment.

mod arp;
mod error;
mod eth;
mod ipv4;
mod ipv6;
mod l4;
mod read;
mod show;

pub use arp::Arp;
pub use error::{Header, ParseError};
pub use eth::{Ethernet, Kind, MAX_VLAN_TAGS, VlanTag, VlanTags};
pub use ipv4::Ipv4;
pub use ipv6::{Ipv6, MAX_EXTENSION_HEADERS};
pub use l4::{TcpFlags, Transport};
pub use show::MacAddress;

/// EtherTypes that are read further, in host order.
pub mod ethertype {
    use network_types::eth::EtherType;

    /// IPv4.
    pub const IPV4: u16 = u16::from_be(EtherType::Ipv4 as u16);
    /// IPv6.
    pub const IPV6: u16 = u16::from_be(EtherType::Ipv6 as u16);
    /// ARP.
    pub const ARP: u16 = u16::from_be(EtherType::Arp as u16);
    /// IEEE 802.1Q customer tag.
    pub const VLAN: u16 = u16::from_be(EtherType::Ieee8021q as u16);
    /// IEEE 802.1ad service tag.
    pub const SERVICE_VLAN: u16 = u16::from_be(EtherType::Ieee8021ad as u16);
}

/// What a frame says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Addresses, tags and type.
    pub ethernet: Ethernet,
    /// The network header; `None` for other types, or if it could not be read.
    pub network: Option<Network>,
    /// The transport header; `None` for ARP, for all fragments but the first, for IPv6 without next header, or
    /// if it could not be read.
    pub transport: Option<Transport>,
    /// Why a layer that should be there could not be read; `None`: all were.
    pub unread: Option<ParseError>,
}

/// A network header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// Address resolution for IPv4 on Ethernet.
    Arp(Arp),
    /// IPv4.
    Ipv4(Ipv4),
    /// IPv6 with its extension headers.
    Ipv6(Ipv6),
}

/// Which part of a fragmented packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Number common to all fragments of the packet.
    pub id: u32,
    /// Where its data belongs, in octets.
    pub offset: u32,
    /// Whether fragments with a higher offset exist.
    pub more: bool,
}

impl Fragment {
    /// Whether this is the fragment that holds the transport header.
    #[must_use]
    pub const fn is_first(&self) -> bool {
        self.offset == 0
    }
}

impl Packet {
    /// Reads a frame from its Ethernet header on. Fails only when that header cannot be read.
    pub fn parse(frame: &[u8]) -> Result<Self, ParseError> {
        let (ethernet, payload) = Ethernet::read(frame)?;
        let mut packet = Self {
            ethernet,
            network: None,
            transport: None,
            unread: None,
        };
        packet.unread = packet.read_network(payload).err();
        Ok(packet)
    }

    fn read_network(&mut self, payload: &[u8]) -> Result<(), ParseError> {
        match self.ethernet.kind {
            Kind::Type(ethertype::ARP) => {
                self.network = Some(Network::Arp(Arp::read(payload)?));
            }
            Kind::Type(ethertype::IPV4) => {
                let (ip, rest) = Ipv4::read(payload)?;
                self.network = Some(Network::Ipv4(ip));
                if ip.fragment.is_none_or(|fragment| fragment.is_first()) {
                    self.transport = Some(Transport::read(ip.protocol, rest)?);
                }
            }
            Kind::Type(ethertype::IPV6) => {
                let (mut ip, rest) = Ipv6::read(payload)?;
                let chain = ip.read_extensions(rest);
                self.network = Some(Network::Ipv6(ip));
                let rest = chain?;
                if ip.has_transport() {
                    self.transport = Some(Transport::read(ip.next_header, rest)?);
                }
            }
            Kind::Type(_) | Kind::Length(_) => {}
        }
        Ok(())
    }

    /// The IPv4 header, if there is one.
    #[must_use]
    pub const fn ipv4(&self) -> Option<&Ipv4> {
        match &self.network {
            Some(Network::Ipv4(ip)) => Some(ip),
            _ => None,
        }
    }

    /// The IPv6 header, if there is one.
    #[must_use]
    pub const fn ipv6(&self) -> Option<&Ipv6> {
        match &self.network {
            Some(Network::Ipv6(ip)) => Some(ip),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
