//! Where a connection leads: its circuits, and the ends that they have at functions and endpoints.

use serde::{Deserialize, Serialize};

use crate::{
    Attachment, ConnectionId, EndpointName, IfName, Invalid, MacAddr, NetnsRef, NodeName, Plumbing,
    RegistryDomain, TrafficSelector, WiringName,
};

/// Which way an end of a segment faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// It is the segment's client: it faces the endpoint.
    Client,
    /// It is the segment's endpoint: it faces the client.
    Endpoint,
}

/// The hardware address that every end of `side` has on a connection's wire: a function of the connection alone, so
/// that what happens at the other end, or between, never shows. Locally administered and unicast (IEEE 802 §8.2); the
/// two of one connection always differ.
#[must_use]
pub fn derive_mac(id: &ConnectionId, side: Side) -> MacAddr {
    mac_from(fnv1a(FNV_OFFSET, id.as_str().as_bytes()), side)
}

/// The hardware address of a transparent function's interface, which is neither end of a segment.
#[must_use]
pub fn derive_hop_mac(id: &ConnectionId, endpoint: &EndpointName, side: Side) -> MacAddr {
    let wire = fnv1a(FNV_OFFSET, id.as_str().as_bytes());
    let hop = fnv1a(fnv1a(wire, &[0xff]), endpoint.as_str().as_bytes());
    mac_from(hop, side)
}

/// The name of an interface that a connection of `domain` has at an endpoint of another one, where it is not known which
/// numbers are free: `nse-` or `nsm-`, `x` and 40 bits.
pub fn derive_interface(
    domain: Option<&RegistryDomain>,
    id: &ConnectionId,
    endpoint: &EndpointName,
    side: Side,
) -> Result<IfName, Invalid> {
    const LETTERS: [u8; 32] = *b"abcdefghijklmnopqrstuvwxyz234567";
    let domain = domain.map_or("", RegistryDomain::as_str);
    let parts = [domain, id.as_str(), endpoint.as_str()];
    let hash = parts.iter().fold(FNV_OFFSET, |hash, part| {
        fnv1a(fnv1a(hash, part.as_bytes()), &[0xff])
    });
    let mut rest = mix(hash);
    let mut text = match side {
        Side::Client => String::from("nsm-x"),
        Side::Endpoint => String::from("nse-x"),
    };
    for _ in 0..8 {
        text.push(char::from(LETTERS[usize::try_from(rest % 32).unwrap_or(0)]));
        rest /= 32;
    }
    IfName::parse("interface", &text)
}

fn mac_from(hash: u64, side: Side) -> MacAddr {
    let [_, _, mut first, b, c, d, e, last] = mix(hash).to_be_bytes();
    first = (first & 0xfc) | 0x02;
    let last = match side {
        Side::Client => last & 0xfe,
        Side::Endpoint => last | 0x01,
    };
    MacAddr([first, b, c, d, e, last])
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bit (<http://www.isthe.com/chongo/tech/comp/fnv/>): fixed for ever, unlike the standard hasher.
fn fnv1a(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finaliser of SplitMix64: spreads the low bits, where FNV is good, over all.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// An interface that the agent makes for a hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopEnd {
    /// Its name in the function's namespace.
    pub interface: IfName,
    /// Its hardware address.
    pub mac: MacAddr,
}

/// A passthrough function on a circuit: what enters at one of its two ends leaves at the other, by its own doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopSide {
    /// The function, which is an endpoint too.
    pub endpoint: EndpointName,
    /// The node that it is on.
    pub node: NodeName,
    /// Its namespace.
    pub netns: NetnsRef,
    /// Whether it routes or carries frames.
    pub plumbing: Plumbing,
    /// The end that faces the client.
    pub inside: HopEnd,
    /// The end that faces the endpoint.
    pub outside: HopEnd,
}

/// The end at a circuit's terminating endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSide {
    /// The node that it is on.
    pub node: NodeName,
    /// What it is attached to.
    pub attachment: Attachment,
    /// The interface's name.
    pub interface: IfName,
    /// The interface's hardware address; of an existing interface it is not ours to know.
    pub mac: Option<MacAddr>,
}

/// A way from a client to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circuit {
    /// The passthrough functions, from the client's side on.
    pub hops: Vec<HopSide>,
    /// The endpoint that terminates.
    pub endpoint: EndpointName,
    /// The end there.
    pub server: EndpointSide,
}

impl Circuit {
    /// Every endpoint that packets pass from the client on, the terminating one last.
    pub fn path(&self) -> impl Iterator<Item = &EndpointName> {
        let hops = self.hops.iter().map(|hop| &hop.endpoint);
        hops.chain(std::iter::once(&self.endpoint))
    }

    /// Whether what sends into the circuit behind its first `passed` hops reaches an end whose hardware address comes
    /// from the connection: the next gateway's, or an endpoint's that the agent made.
    #[must_use]
    pub fn answers_behind(&self, passed: usize) -> bool {
        let routed = self
            .hops
            .iter()
            .skip(passed)
            .any(|hop| hop.plumbing == Plumbing::Gateway);
        routed || self.server.mac.is_some()
    }
}

/// A circuit and the flows that take it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// The NetworkServiceWiring that made it.
    pub wiring: Option<WiringName>,
    /// The flows; none: all that no other branch takes.
    pub traffic: Vec<TrafficSelector>,
    /// Share among the branches that match a flow.
    pub weight: u32,
    /// Where they go.
    pub circuit: Circuit,
}

impl Branch {
    /// Which of `branches` gets the new flows when this one drains: the one for the same part of the traffic, or for the rest.
    #[must_use]
    pub fn successor(&self, branches: &[Self]) -> Option<usize> {
        let same = |branch: &Self| branch.wiring == self.wiring && branch.traffic == self.traffic;
        let last = branches.len().checked_sub(1);
        branches.iter().position(same).or(last)
    }

    /// The only branch of a plain wire: all traffic takes `circuit`.
    #[must_use]
    pub fn all(circuit: Circuit) -> Self {
        Self {
            wiring: None,
            traffic: Vec::new(),
            weight: 1,
            circuit,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn hardware_addresses_are_local_unicast_and_differ_by_side_and_connection() {
        let mut seen = BTreeSet::new();
        let hop: EndpointName = "firewall-1".parse().unwrap();
        for i in 0..20_000 {
            let id: ConnectionId = format!("nsc-{i}").parse().unwrap();
            for side in [Side::Client, Side::Endpoint] {
                for mac in [derive_mac(&id, side), derive_hop_mac(&id, &hop, side)] {
                    assert_eq!(mac.0[0] & 0x03, 0x02, "{mac}");
                    assert!(seen.insert(mac), "{mac} twice");
                }
            }
        }
    }

    #[test]
    fn a_hardware_address_is_the_same_in_every_release() {
        let id: ConnectionId = "nsc-1".parse().unwrap();
        assert_eq!(derive_mac(&id, Side::Client).to_string(), "da:38:13:2f:0e:1e");
    }
}
