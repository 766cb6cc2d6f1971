//! Several deltas as one change: at high set-up rates the kernel is asked once for many of them, and control still
//! gets an answer for each.

use std::collections::{BTreeMap, BTreeSet};

use dataplane_common::abi::Generation;
use tieline_proto::tieline::agent::v1 as proto;

use super::convert::{CheckedChange, InvalidWire};
use crate::{
    desired::{Change, Wire, WireId},
    outcome::{FailureKind, Outcome, WireFailure},
};

/// The most wires one merged change may touch. The first of them waits for the last, so this bounds latency.
pub(crate) const MAX_BATCH_WIRES: usize = 128;

/// Deltas that follow one another without a gap, merged.
#[derive(Debug)]
pub(crate) struct Batch {
    generation: Generation,
    upsert: BTreeMap<WireId, Wire>,
    remove: BTreeSet<WireId>,
    parts: Vec<Part>,
}

/// What one delta of a batch must be told.
#[derive(Debug)]
pub(crate) struct Part {
    generation: Generation,
    upsert: BTreeSet<WireId>,
    invalid: Vec<InvalidWire>,
}

impl Batch {
    /// A batch of one.
    pub(crate) fn new(delta: CheckedChange) -> Self {
        let mut batch = Self {
            generation: delta.parent,
            upsert: BTreeMap::new(),
            remove: BTreeSet::new(),
            parts: Vec::new(),
        };
        batch.push(delta);
        batch
    }

    /// Whether `delta` follows on the batch's last one and there is room for it.
    pub(crate) fn takes(&self, delta: &CheckedChange) -> bool {
        let wires =
            self.upsert.len() + self.remove.len() + delta.change.upsert.len() + delta.change.remove.len();
        delta.parent == self.generation && delta.change.generation > delta.parent && wires <= MAX_BATCH_WIRES
    }

    /// Adds a delta; what it says about a wire replaces what earlier ones said.
    pub(crate) fn push(&mut self, delta: CheckedChange) {
        let change = delta.change;
        let upsert = change.upsert.iter().map(|wire| wire.id.clone()).collect();
        for id in change.remove {
            self.upsert.remove(&id);
            self.remove.insert(id);
        }
        for wire in change.upsert {
            self.remove.remove(&wire.id);
            self.upsert.insert(wire.id.clone(), wire);
        }
        self.generation = change.generation;
        self.parts.push(Part {
            generation: change.generation,
            upsert,
            invalid: delta.invalid,
        });
    }

    /// The change to make, and who is to be answered about it.
    pub(crate) fn into_change(self) -> (Change, Vec<Part>) {
        let change = Change {
            generation: self.generation,
            upsert: self.upsert.into_values().collect(),
            remove: self.remove.into_iter().collect(),
        };
        (change, self.parts)
    }
}

/// The answers to a batch's deltas, in their order.
pub(crate) fn acks(parts: Vec<Part>, outcome: &Outcome) -> Vec<proto::Ack> {
    let failures: BTreeMap<&WireId, &WireFailure> = outcome.failures.iter().map(|f| (&f.wire, f)).collect();
    let ack = |part: Part| {
        let made = part
            .upsert
            .iter()
            .filter_map(|id| failures.get(id))
            .map(|failure| failure_to_proto(failure));
        let invalid = part.invalid.into_iter().map(InvalidWire::into_proto);
        proto::Ack {
            generation: part.generation,
            failures: made.chain(invalid).collect(),
        }
    };
    parts.into_iter().map(ack).collect()
}

/// A failure as control reads it.
pub(crate) fn failure_to_proto(failure: &WireFailure) -> proto::WireFailure {
    let (field, value) = failure.field.clone().unwrap_or_default();
    proto::WireFailure {
        connection_id: failure.wire.0.clone(),
        kind: kind_to_proto(failure.kind).into(),
        message: failure.message.clone(),
        field,
        value,
    }
}

fn kind_to_proto(kind: FailureKind) -> proto::FailureKind {
    match kind {
        FailureKind::NetnsGone => proto::FailureKind::NetnsGone,
        FailureKind::NameTaken => proto::FailureKind::NameTaken,
        FailureKind::InterfaceGone => proto::FailureKind::InterfaceGone,
        FailureKind::AddressTaken => proto::FailureKind::AddressTaken,
        FailureKind::Capacity => proto::FailureKind::Capacity,
        FailureKind::Kernel => proto::FailureKind::Kernel,
    }
}

/// A kind of failure as metrics name it.
pub(crate) fn kind_name(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::NetnsGone => "netns_gone",
        FailureKind::NameTaken => "name_taken",
        FailureKind::InterfaceGone => "interface_gone",
        FailureKind::AddressTaken => "address_taken",
        FailureKind::Capacity => "capacity",
        FailureKind::Kernel => "kernel",
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
