//! `wire_ingress`: what enters at a position leaves by its hop or is counted with the reason why not.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bench;
mod fixtures;
mod probe;
mod split;

use std::{collections::BTreeSet, time::Duration};

use bench::Bench;
use dataplane_common::{
    Reason,
    abi::{EVENT_SNAPSHOT_LEN, Hop, Position, PositionFlags},
    limits::{DEFAULT_MAX_WIRES, OWN_INDEX_BASE, POSITIONS_PER_WIRE},
};
use fixtures::{Fixture, SLOT, Via, fixtures};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use tieline_lab::{BpfFs, eventually};
use tieline_tests_prog_run::{Loaded, REDIRECT, SHOT};

#[test]
fn each_fixture_gets_its_verdict_and_exactly_its_counts_at_an_existing_interface() {
    run_fixtures(&Bench::new());
}

#[test]
fn each_fixture_gets_its_verdict_and_exactly_its_counts_at_an_interface_of_the_agent() {
    run_fixtures(&Bench::at(Some(OWN_INDEX_BASE)));
    run_fixtures(&Bench::at(Some(
        OWN_INDEX_BASE + DEFAULT_MAX_WIRES * POSITIONS_PER_WIRE - 1,
    )));
}

#[test]
fn an_index_beyond_the_table_is_unwired() {
    let bench = Bench::at(Some(OWN_INDEX_BASE + DEFAULT_MAX_WIRES * POSITIONS_PER_WIRE));
    let mut loaded = Loaded::new(0).unwrap();
    let before = loaded.counters().unwrap();
    let run = bench.inside(|| loaded.run(bench.at, &fixtures::udp(100)));
    assert_eq!(run.code, SHOT);
    let delta = loaded.counters().unwrap().since(&before);
    assert_eq!(delta.reasons, [(Reason::Unwired, 1)].into());
}

fn run_fixtures(bench: &Bench) {
    let bpffs = BpfFs::new().unwrap();
    // Loading takes long on an emulated machine; only what is attached or has flows needs a copy of its own.
    let mut shared = Loaded::new(0).unwrap();
    for fixture in fixtures(bench.to) {
        let own = fixture.split.is_some() || matches!(fixture.via, Via::Wire);
        if fixture.full {
            let pin = bpffs.path().join("flows");
            run_fixture(
                bench,
                &fixture,
                &mut Loaded::without_room_for_flows(&pin).unwrap(),
            );
        } else if own {
            run_fixture(bench, &fixture, &mut Loaded::new(0).unwrap());
        } else {
            run_fixture(bench, &fixture, &mut shared);
        }
    }
}

fn run_fixture(bench: &Bench, fixture: &Fixture, loaded: &mut Loaded) {
    let about = fixture.about;
    if let Some(split) = fixture.split {
        loaded.set_split(fixtures::SPLIT, split).unwrap();
    }
    if let Some(position) = fixture.position {
        loaded.set_position(bench.at, position).unwrap();
    }
    loaded.set_generation(fixture.generation).unwrap();
    let before = loaded.counters().unwrap();
    match fixture.via {
        Via::TestRun => {
            let run = bench.inside(|| loaded.run(bench.at, &fixture.frame));
            assert_eq!(run.code, code(fixture.expect), "{about}: return code");
        }
        Via::Wire => {
            bench.inside(|| loaded.attach("at"));
            bench
                .outside
                .run(|| tieline_lab::FrameSocket::open_here("at-out")?.send(&fixture.frame))
                .unwrap();
            eventually(Duration::from_secs(2), about, || Ok(loaded.counters()? != before)).unwrap();
        }
    }
    assert_counts(fixture, &loaded.counters().unwrap().since(&before));
    assert!(
        loaded.events().unwrap().is_empty(),
        "{about}: an event although sampling is off"
    );
    if fixture.position.is_some() {
        loaded.remove_position(bench.at).unwrap();
    }
}

fn code(reason: Reason) -> u32 {
    match reason {
        Reason::Forwarded | Reason::Unpinned | Reason::FragmentAlone => REDIRECT,
        _ => SHOT,
    }
}

fn assert_counts(fixture: &Fixture, delta: &tieline_tests_prog_run::Counters) {
    let about = fixture.about;
    assert_eq!(delta.reasons, [(fixture.expect, 1)].into(), "{about}: reasons");
    // The kernel takes a tag out of the frame before the program sees it.
    let tag = matches!(fixture.via, Via::Wire) && fixture.frame[12..14] == [0x81, 0];
    let octets = fixture.frame.len() - if tag { 4 } else { 0 };
    let counted = (1, u64::try_from(octets).unwrap());
    let slots = if code(fixture.expect) == REDIRECT {
        [Some(SLOT), fixture.branch]
    } else {
        [None; 2]
    };
    let wires = slots.into_iter().flatten().map(|slot| (slot, counted)).collect();
    assert_eq!(delta.wires, wires, "{about}: the wire's frames and octets");
}

#[test]
fn every_reason_has_a_fixture() {
    let reached: BTreeSet<Reason> = fixtures(2).iter().map(|fixture| fixture.expect).collect();
    assert_eq!(reached, Reason::ALL.iter().copied().collect());
}

#[test]
fn a_staged_change_takes_effect_exactly_at_its_generation() {
    let bench = Bench::new();
    let mut loaded = Loaded::new(0).unwrap();
    let frame = fixtures::udp(100);
    let forwarding = Position::starting(5, Hop::peer(bench.to), SLOT, PositionFlags::IP_PAYLOAD);
    let ending = forwarding.staged(5, 9, Hop::NONE);
    for (position, generation, expected) in [
        (forwarding, 4, SHOT),
        (forwarding, 5, REDIRECT),
        (forwarding, u64::MAX, REDIRECT),
        (ending, 8, REDIRECT),
        (ending, 9, SHOT),
        (ending, 10, SHOT),
        (ending.staged(9, 12, Hop::egress(bench.to)), 11, SHOT),
        (ending.staged(9, 12, Hop::egress(bench.to)), 12, REDIRECT),
    ] {
        loaded.set_position(bench.at, position).unwrap();
        loaded.set_generation(generation).unwrap();
        let run = bench.inside(|| loaded.run(bench.at, &frame));
        assert_eq!(run.code, expected, "generation {generation} of {position:?}");
    }
}

#[test]
fn one_write_to_the_generation_moves_every_staged_position() {
    let bench = Bench::new();
    let mut loaded = Loaded::new(0).unwrap();
    let frame = fixtures::udp(100);
    let flags = PositionFlags::IP_PAYLOAD;
    let since = 3;
    loaded
        .set_position(bench.at, Position::starting(since, Hop::peer(bench.to), 1, flags))
        .unwrap();
    loaded
        .set_position(bench.to, Position::starting(since, Hop::peer(bench.at), 2, flags))
        .unwrap();
    let mut codes = |generation| {
        loaded.set_generation(generation).unwrap();
        [bench.at, bench.to].map(|at| bench.inside(|| loaded.run(at, &frame)).code)
    };
    assert_eq!(codes(2), [SHOT, SHOT]);
    assert_eq!(codes(3), [REDIRECT, REDIRECT]);
}

#[test]
fn each_position_counts_in_its_own_slot() {
    let bench = Bench::new();
    let mut loaded = Loaded::new(0).unwrap();
    loaded.set_generation(1).unwrap();
    for (ifindex, slot) in [(bench.at, 4), (bench.to, 7)] {
        let position = Position::starting(1, Hop::egress(bench.at), slot, PositionFlags::ETHERNET_PAYLOAD);
        loaded.set_position(ifindex, position).unwrap();
    }
    for length in [60, 61, 1514] {
        bench.inside(|| loaded.run(bench.at, &fixtures::udp(length)));
    }
    bench.inside(|| loaded.run(bench.to, &fixtures::udp(99)));
    assert_eq!(
        loaded.counters().unwrap().wires,
        [(4, (3, 60 + 61 + 1514)), (7, (1, 99))].into()
    );
}

#[test]
fn a_removed_position_is_unwired_at_once() {
    let bench = Bench::new();
    let mut loaded = Loaded::new(0).unwrap();
    loaded.set_generation(1).unwrap();
    let position = Position::starting(1, Hop::peer(bench.to), SLOT, PositionFlags::IP_PAYLOAD);
    loaded.set_position(bench.at, position).unwrap();
    assert_eq!(
        bench.inside(|| loaded.run(bench.at, &fixtures::udp(60))).code,
        REDIRECT
    );
    loaded.remove_position(bench.at).unwrap();
    assert_eq!(
        bench.inside(|| loaded.run(bench.at, &fixtures::udp(60))).code,
        SHOT
    );
    assert_eq!(
        loaded.counters().unwrap().reasons,
        [(Reason::Forwarded, 1), (Reason::Unwired, 1)].into()
    );
}

#[test]
fn events_carry_each_drop_and_every_nth_forwarded_frame() {
    let bench = Bench::new();
    let mut loaded = Loaded::new(4).unwrap();
    loaded.set_generation(1).unwrap();
    let position = Position::starting(1, Hop::peer(bench.to), SLOT, PositionFlags::IP_PAYLOAD);
    loaded.set_position(bench.at, position).unwrap();
    let frame = fixtures::udp(200);
    // The count that picks every fourth is per processor.
    bench.inside(|| {
        let mut first = CpuSet::new();
        first.set(0)?;
        sched_setaffinity(Pid::from_raw(0), &first)?;
        for _ in 0..12 {
            loaded.run(bench.at, &frame)?;
        }
        Ok(())
    });
    let events = loaded.events().unwrap();
    assert_eq!(events.len(), 3, "{events:?}");
    for event in &events {
        assert_eq!(
            (event.ifindex, event.reason(), event.frame_len),
            (bench.at, Some(Reason::Forwarded), 200)
        );
        assert_eq!(event.frame(), &frame[..EVENT_SNAPSHOT_LEN]);
    }
    let short = fixtures::not_ip();
    for _ in 0..2 {
        bench.inside(|| loaded.run(bench.at, &short));
    }
    bench.inside(|| loaded.run(bench.to, &frame));
    let events = loaded.events().unwrap();
    let reasons: Vec<_> = events
        .iter()
        .map(|event| (event.ifindex, event.reason()))
        .collect();
    let not_ip = (bench.at, Some(Reason::NotIp));
    assert_eq!(reasons, [not_ip, not_ip, (bench.to, Some(Reason::Unwired))]);
    assert_eq!(
        events[0].frame(),
        short,
        "a frame shorter than the snapshot is there whole"
    );
}
