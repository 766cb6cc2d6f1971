//! What a batch of commands does to the world, gathered until the store has it.

use std::collections::BTreeMap;

use tieline_model::NodeName;
use tieline_planner::Delta;
use tieline_registry::{Effects, RegistryEvent, Settled};
use tieline_store::Txn;

/// The effects of several commands as one: the last write of each key, one delta for each node, all events in order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    writes: BTreeMap<String, Option<Vec<u8>>>,
    pub(super) node_changes: BTreeMap<NodeName, Delta>,
    pub(super) events: Vec<RegistryEvent>,
}

impl Batch {
    /// Adds the effects of the next command. What it settles is handed back, for its place among the answers matters.
    pub(super) fn add(&mut self, effects: Effects) -> Vec<Settled> {
        for write in effects.writes {
            self.writes.insert(write.key, write.value);
        }
        for (node, delta) in effects.node_changes {
            match self.node_changes.get_mut(&node) {
                Some(merged) => merge(merged, delta),
                None => drop(self.node_changes.insert(node, delta)),
            }
        }
        self.events.extend(effects.events);
        effects.settled
    }

    /// Whether the store has nothing to do.
    pub(super) fn writes_nothing(&self) -> bool {
        self.writes.is_empty()
    }

    /// The store's transaction, with all keys below `prefix`.
    pub(super) fn take_txn(&mut self, prefix: &str) -> Txn {
        let mut txn = Txn::new();
        for (key, value) in std::mem::take(&mut self.writes) {
            let key = format!("{prefix}{key}");
            txn = match value {
                Some(value) => txn.put(key, value),
                None => txn.delete(key),
            };
        }
        txn
    }
}

/// Makes `first` the change that leads where `first` and then `second` lead.
fn merge(first: &mut Delta, second: Delta) {
    for id in second.upsert.keys() {
        first.remove.remove(id);
    }
    for id in &second.remove {
        first.upsert.remove(id);
    }
    first.upsert.extend(second.upsert);
    // A wire that came and went in between is removed too; removing what is not there is not an error.
    first.remove.extend(second.remove);
    first.generation = second.generation;
}

#[cfg(test)]
mod tests {
    use tieline_model::{ConnectionId, IfName, Mtu, NodeWire, Payload, ServiceName, WireEnd};
    use tieline_planner::Plan;
    use tieline_registry::Write;
    use tieline_store::Put;

    use super::*;

    fn id(name: &str) -> ConnectionId {
        ConnectionId::parse("id", name).unwrap()
    }

    fn wire(name: &str, mtu: u32) -> NodeWire {
        let end = || WireEnd::Interface(IfName::parse("name", "tap0").unwrap());
        NodeWire {
            connection: id(name),
            service: ServiceName::parse("service", "s").unwrap(),
            payload: Payload::Ip,
            mtu: Mtu::parse("mtu", mtu).unwrap(),
            client: end(),
            branches: Vec::new(),
            backup: None,
            draining: Vec::new(),
            probe: false,
        }
    }

    fn plan(generation: u64, wires: &[(&str, u32)]) -> Plan {
        let wires = wires
            .iter()
            .map(|(name, mtu)| (id(name), wire(name, *mtu)))
            .collect();
        Plan {
            generation,
            parent: generation.saturating_sub(1),
            wires,
        }
    }

    #[test]
    fn merged_deltas_lead_where_the_single_ones_lead() {
        let plans = [
            plan(
                1,
                &[("kept", 1500), ("changed", 1500), ("gone", 1500), ("back", 1500)],
            ),
            plan(
                2,
                &[("kept", 1500), ("changed", 1400), ("gone", 1500), ("brief", 1500)],
            ),
            plan(
                3,
                &[("kept", 1500), ("changed", 1300), ("back", 1300), ("new", 1500)],
            ),
        ];
        let mut merged = plans[1].delta(&plans[0]);
        merge(&mut merged, plans[2].delta(&plans[1]));
        assert_eq!((merged.parent, merged.generation), (1, 3));
        assert_eq!(plans[0].clone().apply(&merged).wires, plans[2].wires);
        assert!(!merged.upsert.contains_key(&id("kept")));
    }

    #[test]
    fn the_last_write_of_a_key_counts_and_keys_lie_below_the_prefix() {
        let mut batch = Batch::default();
        let write = |key: &str, value: Option<&[u8]>| Write {
            key: key.to_owned(),
            value: value.map(<[u8]>::to_vec),
        };
        let effects = |writes| Effects {
            writes,
            ..Effects::default()
        };
        assert!(batch.writes_nothing());
        batch.add(effects(vec![write("a", Some(b"1")), write("b", Some(b"1"))]));
        batch.add(effects(vec![write("a", None), write("b", Some(b"2"))]));
        let txn = batch.take_txn("x/");
        assert_eq!(txn.deletes, ["x/a"]);
        assert_eq!(
            txn.puts,
            [Put {
                key: "x/b".to_owned(),
                value: b"2"[..].into(),
                lease: None
            }]
        );
    }
}
