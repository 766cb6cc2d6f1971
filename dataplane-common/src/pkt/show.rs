//! A packet in one line, for people.

use core::fmt;

use super::{Ethernet, Fragment, Kind, Network, Packet, Transport};

/// A hardware address that prints as `xx:xx:xx:xx:xx:xx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ethernet)?;
        if let Some(network) = &self.network {
            write!(f, " {network}")?;
        }
        if let Some(transport) = &self.transport {
            write!(f, " {transport}")?;
        }
        if let Some(error) = &self.unread {
            write!(f, " ({error})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Ethernet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} > {}",
            MacAddress(self.source),
            MacAddress(self.destination)
        )?;
        for tag in self.tags.as_slice() {
            write!(f, " vlan {}", tag.vlan())?;
        }
        match self.kind {
            Kind::Type(number) => write!(f, " type {number:#06x}"),
            Kind::Length(octets) => write!(f, " LLC {octets} octets"),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arp(arp) if arp.operation == 1 => {
                write!(f, "ARP who has {} tell {}", arp.target, arp.sender)
            }
            Self::Arp(arp) => write!(f, "ARP {} is at {}", arp.sender, MacAddress(arp.sender_mac)),
            Self::Ipv4(ip) => {
                write!(f, "{} > {} ttl {}", ip.source, ip.destination, ip.ttl)?;
                show_fragment(f, ip.fragment)
            }
            Self::Ipv6(ip) => {
                write!(f, "{} > {} hop limit {}", ip.source, ip.destination, ip.hop_limit)?;
                show_fragment(f, ip.fragment)
            }
        }
    }
}

fn show_fragment(f: &mut fmt::Formatter<'_>, fragment: Option<Fragment>) -> fmt::Result {
    let Some(fragment) = fragment else { return Ok(()) };
    let more = if fragment.more { "+" } else { "" };
    write!(f, " fragment {}@{}{more}", fragment.id, fragment.offset)
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp {
                source,
                destination,
                flags,
            } => {
                write!(f, "TCP {source} > {destination}")?;
                flags.names().try_for_each(|name| write!(f, " {name}"))
            }
            Self::Udp {
                source, destination, ..
            } => write!(f, "UDP {source} > {destination}"),
            Self::Icmp { kind, code } => write!(f, "ICMP type {kind} code {code}"),
            Self::Icmpv6 { kind, code } => write!(f, "ICMPv6 type {kind} code {code}"),
            Self::Other(number) => write!(f, "protocol {number}"),
        }
    }
}
