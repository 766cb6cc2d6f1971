use proptest::prelude::*;

use super::*;
use crate::desired::{Branch, Circuit, Desired, End, IfName, InterfaceEnd, Payload};

fn wire(id: u8, mtu: u32) -> Wire {
    let end = |name: &str| {
        End::Interface(InterfaceEnd {
            name: IfName::new(name).unwrap(),
        })
    };
    Wire {
        id: WireId(format!("c{id}")),
        network_service: "s".into(),
        payload: Payload::Ip,
        mtu,
        client: end("a"),
        branches: vec![Branch::all(Circuit {
            hops: Vec::new(),
            endpoint_name: "e".into(),
            endpoint: end("b"),
        })],
        backup: None,
        draining: Vec::new(),
        probe: false,
    }
}

fn delta(parent: Generation, upsert: Vec<Wire>, remove: &[u8]) -> CheckedChange {
    let remove = remove.iter().map(|id| WireId(format!("c{id}"))).collect();
    CheckedChange {
        parent,
        change: Change {
            generation: parent + 1,
            upsert,
            remove,
        },
        invalid: Vec::new(),
    }
}

fn failure(id: u8) -> WireFailure {
    WireFailure {
        wire: WireId(format!("c{id}")),
        kind: FailureKind::NameTaken,
        message: "taken".into(),
        field: Some(("mechanism.parameters[name]".into(), "nsm-1".into())),
        workload: None,
    }
}

fn apply(plan: &mut Desired, change: Change) {
    plan.generation = change.generation;
    for id in change.remove {
        plan.wires.remove(&id);
    }
    for wire in change.upsert {
        plan.wires.insert(wire.id.clone(), wire);
    }
}

#[test]
fn a_gap_ends_a_batch() {
    let batch = Batch::new(delta(4, vec![wire(1, 1500)], &[]));
    assert!(batch.takes(&delta(5, vec![], &[1])));
    assert!(!batch.takes(&delta(6, vec![], &[1])));
    assert!(!batch.takes(&delta(4, vec![], &[1])));
    assert_eq!(batch.into_change().0.generation, 5);
}

#[test]
fn a_batch_stays_small_enough_to_answer_soon() {
    let many = (0..MAX_BATCH_WIRES)
        .map(|i| wire(u8::try_from(i).unwrap(), 1500))
        .collect();
    let batch = Batch::new(delta(0, many, &[]));
    assert!(!batch.takes(&delta(1, vec![wire(200, 1500)], &[])));
    assert!(batch.takes(&delta(1, vec![], &[])));
}

#[test]
fn every_delta_hears_of_its_own_wires_only() {
    let mut batch = Batch::new(delta(0, vec![wire(1, 1500), wire(2, 1500)], &[]));
    batch.push(delta(1, vec![wire(3, 1500)], &[]));
    let mut last = delta(2, vec![], &[2]);
    let bad = InvalidWire {
        wire: "bad".into(),
        field: "mtu".into(),
        value: "1".into(),
        rule: "too small",
    };
    last.invalid.push(bad);
    batch.push(last);
    let (change, parts) = batch.into_change();
    assert_eq!(change.generation, 3);
    let outcome = Outcome {
        generation: 3,
        operations: 9,
        failures: vec![failure(3)],
        ..Outcome::default()
    };
    let acks = acks(parts, &outcome);
    let ids = |ack: &proto::Ack| {
        ack.failures
            .iter()
            .map(|f| f.connection_id.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        acks.iter().map(|a| (a.generation, ids(a))).collect::<Vec<_>>(),
        [
            (1, vec![]),
            (2, vec!["c3".to_owned()]),
            (3, vec!["bad".to_owned()]),
        ]
    );
    assert_eq!(acks[1].failures[0].value, "nsm-1");
    assert_eq!(acks[1].failures[0].kind(), proto::FailureKind::NameTaken);
}

fn arbitrary_delta() -> impl Strategy<Value = (Vec<(u8, u32)>, Vec<u8>)> {
    (
        prop::collection::vec((0..6u8, 1280..1290u32), 0..4),
        prop::collection::vec(0..6u8, 0..4),
    )
}

proptest! {
    #[test]
    fn merging_changes_nothing_of_the_result(deltas in prop::collection::vec(arbitrary_delta(), 1..12)) {
        let mut one_by_one = Desired::default();
        let mut merged: Option<Batch> = None;
        for (parent, (upsert, remove)) in (0u64..).zip(deltas) {
            // As `convert::delta` does: an id occurs once, and an upsert outweighs a removal.
            let upsert: BTreeMap<u8, u32> = upsert.into_iter().collect();
            let remove: Vec<u8> = remove.into_iter().filter(|id| !upsert.contains_key(id)).collect();
            let wires = || upsert.iter().map(|(&id, &mtu)| wire(id, mtu)).collect::<Vec<_>>();
            apply(&mut one_by_one, delta(parent, wires(), &remove).change);
            let next = delta(parent, wires(), &remove);
            match &mut merged {
                None => merged = Some(Batch::new(next)),
                Some(batch) => {
                    prop_assert!(batch.takes(&next));
                    batch.push(next);
                }
            }
        }
        let mut at_once = Desired::default();
        apply(&mut at_once, merged.unwrap().into_change().0);
        prop_assert_eq!(at_once, one_by_one);
    }
}
