//! Plans of one node, and what changes between them.

use std::collections::BTreeMap;

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
    pub remove: std::collections::BTreeSet<ConnectionId>,
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
