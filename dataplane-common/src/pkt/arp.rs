//! Address resolution for IPv4 on Ethernet (RFC 826).

use core::{mem::offset_of, net::Ipv4Addr};

use network_types::arp::ArpHdr;

use super::{
    error::{Header, ParseError},
    read::{array, octet, split, word},
};

/// An ARP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// 1: request, 2: reply.
    pub operation: u16,
    /// Hardware address of the sender.
    pub sender_mac: [u8; 6],
    /// Address of the sender.
    pub sender: Ipv4Addr,
    /// Hardware address of the target; without meaning in a request.
    pub target_mac: [u8; 6],
    /// Address that is asked for, or was.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Reads the message.
    pub fn read(payload: &[u8]) -> Result<Self, ParseError> {
        let (header, _) = split(payload, Header::Arp, ArpHdr::LEN)?;
        let lengths = (
            octet(header, offset_of!(ArpHdr, hlen)),
            octet(header, offset_of!(ArpHdr, plen)),
        );
        if lengths != (6, 4) {
            return Err(ParseError::Length {
                header: Header::Arp,
                found: usize::from(lengths.0) + usize::from(lengths.1),
            });
        }
        Ok(Self {
            operation: word(header, offset_of!(ArpHdr, oper)),
            sender_mac: array(header, offset_of!(ArpHdr, sha)),
            sender: array(header, offset_of!(ArpHdr, spa)).into(),
            target_mac: array(header, offset_of!(ArpHdr, tha)),
            target: array(header, offset_of!(ArpHdr, tpa)).into(),
        })
    }
}
