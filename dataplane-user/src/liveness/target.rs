//! Where a path is asked: at a wire that leads over it.

use std::collections::BTreeSet;

use super::frame::{Ends, is_pair, request};
use crate::{
    apply::Place,
    circuit::Path,
    desired::{End, VethEnd, Wire, WireId},
};

/// One wire by which a path may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The endpoint that the path ends at.
    pub endpoint: String,
    /// The interface at which the probe is sent, and the answer comes in.
    pub index: u32,
    /// Counter slot of that interface's position.
    pub slot: u32,
    /// The probe.
    pub frame: Box<[u8]>,
}

/// By which paths a wire is watched from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchChange {
    /// The wire.
    pub wire: WireId,
    /// All of its paths; none: it is not watched.
    pub targets: Vec<(Path, Target)>,
    /// Slots that its ends had when the agent started: an answer that came in there before counts.
    pub found: BTreeSet<u32>,
}

/// The paths of a wire that can be asked, where its ends are at `places`. Of circuits with a common first end, a probe
/// takes the one that the kernel chooses, so only the first is asked; and so does the answer of a backup's end that a branch
/// has as well. A client whose addresses the agent does not know cannot be spoken for.
pub(crate) fn targets(
    wire: &Wire,
    chains: &[Vec<usize>],
    places: &[Option<Place>],
    cookie: u64,
) -> Vec<(Path, Target)> {
    let mut targets = Vec::new();
    let End::Veth(client) = &wire.client else {
        return targets;
    };
    let Some(ends) = ends(client).filter(|_| wire.probe) else {
        return targets;
    };
    let mut asked = Vec::new();
    let in_use = wire.branches.len() + wire.draining.len();
    for (number, (circuit, chain)) in wire.circuits().zip(chains).enumerate() {
        let Some(first) = chain.first().filter(|first| !asked.contains(first)) else {
            continue;
        };
        asked.push(first);
        if number >= in_use
            && chains
                .iter()
                .take(in_use)
                .any(|other| other.last() == chain.last())
        {
            continue;
        }
        let place = places.get(*first).copied().flatten();
        let Some((index, slot)) = place.and_then(|place| Some((place.index, place.slot?))) else {
            continue;
        };
        if let Some(frame) = request(ends, slot, cookie) {
            let target = Target {
                endpoint: circuit.endpoint_name.clone(),
                index,
                slot,
                frame,
            };
            targets.push((circuit.path(), target));
        }
    }
    targets
}

/// The client's first address, and the first of its neighbours on the wire that has one of the same family.
fn ends(client: &VethEnd) -> Option<Ends> {
    client.addresses.iter().find_map(|address| {
        let far = client.neighbours.iter();
        let far = far.clone().find(|far| is_pair(address.addr(), far.ip))?;
        Some(Ends {
            from: (client.mac, address.addr()),
            to: (far.mac, far.ip),
        })
    })
}
