//! Split positions: what a flow does next depends on what it did before.

use dataplane_common::{
    Reason,
    abi::{FlowPin, Hop, Position, PositionFlags, Split, SplitBranch, SplitFlags},
};
use tieline_lab::frame::Payload;
use tieline_tests_prog_run::{Counters, Loaded, REDIRECT, SHOT};

use crate::{
    bench::Bench,
    fixtures::{self, SLOT, SPLIT, fragment, split, split_at, tcp, unreachable, with_flags},
};

const REST: u32 = 6;
const WEB: u32 = 7;
const SYN: u8 = 0x02;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;

/// The client's end at `at` with the fixtures' split, the far end at `to`.
struct Wire {
    bench: Bench,
    loaded: Loaded,
    before: Counters,
}

impl Wire {
    fn new() -> Self {
        let bench = Bench::new();
        let mut loaded = Loaded::new(0).unwrap();
        loaded.set_generation(1).unwrap();
        loaded.set_split(SPLIT, split(bench.to)).unwrap();
        loaded.set_position(bench.at, split_at(SPLIT)).unwrap();
        let back = Split {
            flags: SplitFlags::FROM_FAR.bits(),
            ..split(bench.at)
        };
        loaded.set_split(SPLIT + 1, back).unwrap();
        loaded.set_position(bench.to, split_at(SPLIT + 1)).unwrap();
        Self {
            bench,
            loaded,
            before: Counters::default(),
        }
    }

    /// The branch by its counter slot, and the reason, of a frame that enters at `at`.
    fn enter(&mut self, at: u32, frame: &[u8]) -> (Option<u32>, Reason) {
        let run = self.bench.inside(|| self.loaded.run(at, frame));
        let now = self.loaded.counters().unwrap();
        let delta = now.since(&self.before);
        self.before = now;
        let (reason, count) = delta.reasons.first_key_value().unwrap();
        assert_eq!((delta.reasons.len(), *count), (1, 1), "one reason each");
        let branch = delta.wires.keys().copied().find(|slot| *slot != SLOT);
        assert_eq!(branch.is_some(), run.code == REDIRECT);
        (branch, *reason)
    }

    fn client_sends(&mut self, frame: &[u8]) -> (Option<u32>, Reason) {
        self.enter(self.bench.at, frame)
    }

    fn far_sends(&mut self, frame: &[u8]) -> (Option<u32>, Reason) {
        self.enter(self.bench.to, frame)
    }

    /// Puts another split in force at the client's end, as the agent does: a new number, staged, then the generation.
    fn change(&mut self, number: u32, generation: u64, to: Split) {
        self.loaded.set_split(number, to).unwrap();
        let now = split_at(SPLIT);
        let staged = now.staged(generation - 1, generation, Hop::split(number));
        self.loaded.set_position(self.bench.at, staged).unwrap();
    }
}

const WENT: fn(u32) -> (Option<u32>, Reason) = |slot| (Some(slot), Reason::Forwarded);

/// The frame that answers.
fn answer(frame: &[u8]) -> Vec<u8> {
    let mut back = frame.to_vec();
    back[26..30].copy_from_slice(&frame[30..34]);
    back[30..34].copy_from_slice(&frame[26..30]);
    back[34..36].copy_from_slice(&frame[36..38]);
    back[36..38].copy_from_slice(&frame[34..36]);
    back
}

#[test]
fn both_directions_and_errors_and_fragments_take_the_flows_branch_whatever_becomes_of_the_rules() {
    let mut wire = Wire::new();
    let web = tcp(5000, 80);
    assert_eq!(wire.client_sends(&web), WENT(WEB));
    assert_eq!(wire.client_sends(&fragment(web.clone(), 3, 0, true)), WENT(WEB));
    // Port 80 takes the other branch from here on; flows that are there stay.
    let mut changed = split(wire.bench.to);
    changed.rules[0].flags = 0;
    wire.change(SPLIT + 2, 2, changed);
    assert_eq!(
        wire.client_sends(&tcp(5001, 80)),
        WENT(WEB),
        "not before the flip"
    );
    wire.loaded.set_generation(2).unwrap();
    wire.loaded.remove_split(SPLIT).unwrap();
    assert_eq!(
        wire.client_sends(&tcp(5002, 80)),
        WENT(REST),
        "and at once after it"
    );
    assert_eq!(wire.client_sends(&web), WENT(WEB));
    assert_eq!(wire.far_sends(&answer(&web)), WENT(WEB));
    assert_eq!(wire.client_sends(&tcp(5001, 80)), WENT(WEB));
    assert_eq!(wire.client_sends(&fragment(web.clone(), 3, 2, true)), WENT(WEB));
    assert_eq!(
        wire.far_sends(&unreachable(&web)),
        WENT(WEB),
        "to the client about its own packet"
    );
    assert_eq!(
        wire.client_sends(&fragment(web, 4, 2, true)),
        (Some(REST), Reason::FragmentAlone)
    );
}

#[test]
fn a_flow_that_the_far_side_begins_comes_back_its_way() {
    let mut wire = Wire::new();
    // From port 80 of the far side: by the rule, seen from there.
    let call = answer(&tcp(6000, 80));
    assert_eq!(wire.far_sends(&with_flags(call.clone(), SYN)), WENT(WEB));
    assert_eq!(wire.client_sends(&answer(&call)), WENT(WEB));
}

#[test]
fn an_end_of_one_branch_pins_what_passes_it_for_the_way_back() {
    let mut wire = Wire::new();
    // The outer end of a function on the web branch, which has changed the client's port on the way.
    let mut outer = split(wire.bench.to);
    outer.flags = 0;
    outer.rules[0].flags = 0;
    outer.branches[0] = SplitBranch::default();
    outer.otherwise = [0, 1, 0, 0, 0, 0, 0, 0];
    outer.first = 1;
    wire.loaded.set_split(SPLIT + 3, outer).unwrap();
    wire.loaded
        .set_position(wire.bench.at, split_at(SPLIT + 3))
        .unwrap();
    let changed = tcp(40_000, 443);
    assert_eq!(wire.client_sends(&changed), WENT(WEB));
    assert_eq!(
        wire.far_sends(&answer(&changed)),
        WENT(WEB),
        "although no rule says so"
    );
    assert_eq!(wire.far_sends(&answer(&tcp(40_001, 443))), WENT(REST));
}

#[test]
fn while_draining_old_flows_stay_and_new_ones_go_on() {
    let mut wire = Wire::new();
    let mut draining = split(wire.bench.to);
    // New flows take the second branch, which takes over from the first.
    draining.rules[0].flags = 0;
    draining.otherwise = [0, 1, 0, 0, 0, 0, 0, 0];
    draining.branches[0].flags = SplitBranch::DRAINS;
    draining.branches[1].before = 1;
    draining.learn_until_ns = u64::MAX;
    wire.change(SPLIT + 2, 2, draining);
    wire.loaded.set_generation(2).unwrap();
    let (old, new) = (REST, WEB);
    assert_eq!(
        wire.client_sends(&tcp(1, 80)),
        WENT(old),
        "a connection of before"
    );
    assert_eq!(
        wire.client_sends(&with_flags(tcp(2, 80), SYN)),
        WENT(new),
        "one that begins"
    );
    assert_eq!(wire.client_sends(&tcp(2, 80)), WENT(new));
    assert_eq!(wire.client_sends(&fixtures::udp(60)), WENT(old), "while learning");
    wire.change(
        SPLIT + 3,
        3,
        Split {
            learn_until_ns: 1,
            ..draining
        },
    );
    wire.loaded.set_generation(3).unwrap();
    assert_eq!(wire.client_sends(&fixtures::udp(60)), WENT(old), "learnt");
    let dns = super::fixtures::ip("10.0.0.1", "10.0.0.2", Payload::Udp(7, 53, vec![0; 20]));
    assert_eq!(wire.client_sends(&dns), WENT(new), "first seen now");
    assert_eq!(
        wire.client_sends(&tcp(3, 80)),
        WENT(old),
        "an idle connection of before"
    );
    assert_eq!(
        wire.client_sends(&with_flags(tcp(1, 80), SYN)),
        WENT(new),
        "its ports again"
    );
}

#[test]
fn the_table_says_when_a_flow_was_seen_and_whether_it_is_over() {
    let mut wire = Wire::new();
    let web = tcp(5000, 80);
    let pin = |wire: &Wire| -> FlowPin {
        let flows = wire.loaded.flows().unwrap();
        assert_eq!(flows.len(), 1, "{flows:?}");
        *flows.values().next().unwrap()
    };
    wire.client_sends(&with_flags(web.clone(), SYN));
    let begun = pin(&wire);
    assert_eq!((begun.branch, begun.state), (0o11, 0));
    assert!(begun.seen_ns > 0);
    std::thread::sleep(std::time::Duration::from_nanos(
        FlowPin::SEEN_EVERY_NS + 20_000_000,
    ));
    wire.client_sends(&with_flags(web.clone(), FIN_ACK));
    assert!(pin(&wire).seen_ns > begun.seen_ns && !pin(&wire).is_closed());
    wire.far_sends(&with_flags(answer(&web), FIN_ACK));
    assert!(pin(&wire).is_closed());
    wire.client_sends(&with_flags(web.clone(), SYN));
    assert!(!pin(&wire).is_closed(), "begun again");
    wire.far_sends(&with_flags(answer(&web), RST));
    assert!(pin(&wire).is_closed());
}

#[test]
fn flows_of_two_wires_do_not_meet() {
    let mut wire = Wire::new();
    let web = tcp(5000, 80);
    assert_eq!(wire.client_sends(&web), WENT(WEB));
    let mut other = Split {
        scope: 2,
        ..split(wire.bench.to)
    };
    other.rules[0].flags = 0;
    wire.change(SPLIT + 2, 2, other);
    wire.loaded.set_generation(2).unwrap();
    assert_eq!(wire.client_sends(&web), WENT(REST));
    assert_eq!(wire.loaded.flows().unwrap().len(), 2);
}

#[test]
fn a_position_becomes_a_split_and_a_plain_one_again_without_a_loss() {
    let bench = Bench::new();
    let mut loaded = Loaded::new(0).unwrap();
    loaded.set_split(SPLIT, split(bench.to)).unwrap();
    let plain = Position::starting(1, Hop::peer(bench.to), SLOT, PositionFlags::IP_PAYLOAD);
    let becoming = plain.staged(1, 2, Hop::split(SPLIT));
    let ending = becoming.staged(2, 3, Hop::peer(bench.to));
    let mut slots = Vec::new();
    for (position, generation) in [(plain, 1), (becoming, 1), (becoming, 2), (ending, 2), (ending, 3)] {
        loaded.set_position(bench.at, position).unwrap();
        loaded.set_generation(generation).unwrap();
        let before = loaded.counters().unwrap();
        assert_eq!(
            bench.inside(|| loaded.run(bench.at, &tcp(5000, 80))).code,
            REDIRECT
        );
        let delta = loaded.counters().unwrap().since(&before);
        slots.push(delta.wires.contains_key(&WEB));
    }
    assert_eq!(slots, [false, false, true, true, false]);
    loaded.remove_split(SPLIT).unwrap();
    loaded.set_position(bench.at, becoming).unwrap();
    assert_eq!(bench.inside(|| loaded.run(bench.at, &tcp(5000, 80))).code, SHOT);
}
