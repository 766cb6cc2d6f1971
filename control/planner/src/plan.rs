//! Plans of one node, and what changes between them.

use std::collections::{BTreeMap, BTreeSet};

use tieline_model::{ConnectionId, NodeWire};

/// Everything that one node has to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Grows with every change.
    pub generation: u64,
    /// The generation that it came from.
    pub parent: u64,
    /// The wires, by connection.
    pub wires: BTreeMap<ConnectionId, NodeWire>,
}

/// What changes from one plan of a node to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// The plan that it leads to.
    pub generation: u64,
    /// The plan that it starts from.
    pub parent: u64,
    /// New or changed wires, by connection.
    pub upsert: BTreeMap<ConnectionId, NodeWire>,
    /// Connections whose wires go.
    pub remove: BTreeSet<ConnectionId>,
}

impl Delta {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.upsert.is_empty() && self.remove.is_empty()
    }
}

impl Plan {
    /// What leads from `old` to this plan.
    #[must_use]
    pub fn delta(&self, old: &Self) -> Delta {
        let changed = |(id, wire): &(&ConnectionId, &NodeWire)| old.wires.get(*id) != Some(*wire);
        Delta {
            generation: self.generation,
            parent: old.generation,
            upsert: self
                .wires
                .iter()
                .filter(changed)
                .map(|(id, wire)| (id.clone(), wire.clone()))
                .collect(),
            remove: old
                .wires
                .keys()
                .filter(|id| !self.wires.contains_key(*id))
                .cloned()
                .collect(),
        }
    }

    /// This plan changed by `delta`.
    #[must_use]
    pub fn apply(mut self, delta: &Delta) -> Self {
        self.wires.retain(|id, _| !delta.remove.contains(id));
        self.wires
            .extend(delta.upsert.iter().map(|(id, wire)| (id.clone(), wire.clone())));
        Self {
            generation: delta.generation,
            parent: delta.parent,
            wires: self.wires,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tieline_model::{IfName, Mtu, WireEnd};

    use super::*;

    fn plan(generation: u64, wires: &BTreeMap<u8, u32>) -> Plan {
        let wire = |(n, mtu): (&u8, &u32)| {
            let id: ConnectionId = format!("c{n}").parse().unwrap();
            let end = |name: &str| WireEnd::Interface(name.parse::<IfName>().unwrap());
            let wire = NodeWire {
                connection: id.clone(),
                service: "gold".parse().unwrap(),
                payload: tieline_model::Payload::Ip,
                mtu: Mtu::parse("m", *mtu).unwrap(),
                client: end("tap0"),
                branches: Vec::new(),
                draining: Vec::new(),
                backup: None,
                probe: false,
            };
            (id, wire)
        };
        Plan {
            generation,
            parent: generation,
            wires: wires.iter().map(wire).collect(),
        }
    }

    proptest! {
        #[test]
        fn a_delta_leads_from_one_plan_to_the_other_and_holds_nothing_else(
            old in prop::collection::btree_map(0_u8..12, 1300_u32..1303, 0..12),
            new in prop::collection::btree_map(0_u8..12, 1300_u32..1303, 0..12),
        ) {
            let (from, to) = (plan(7, &old), plan(8, &new));
            let delta = to.delta(&from);
            prop_assert_eq!(from.clone().apply(&delta).wires, to.wires.clone());
            let changed = new.iter().filter(|(n, mtu)| old.get(n) != Some(mtu)).count();
            let gone = old.keys().filter(|n| !new.contains_key(n)).count();
            prop_assert_eq!((delta.upsert.len(), delta.remove.len()), (changed, gone));
            prop_assert_eq!((delta.parent, delta.generation), (7, 8));
            prop_assert!(to.delta(&to).is_empty());
        }
    }
}
