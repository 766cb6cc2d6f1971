//! Replies to probes: what is noted, and when.

use dataplane_common::abi::{Hop, Position, PositionFlags};
use tieline_tests_prog_run::{Loaded, REDIRECT, SHOT};

use crate::{
    bench::Bench,
    fixtures::{self, SLOT},
};

#[test]
fn a_reply_notes_the_time_at_its_own_slot_only() {
    let bench = Bench::new();
    let mut loaded = Loaded::new(0).unwrap();
    loaded.set_generation(1).unwrap();
    let flags = PositionFlags::IP_PAYLOAD.and(PositionFlags::PROBED);
    let position = Position::starting(1, Hop::peer(bench.to), SLOT, flags);
    loaded.set_position(bench.at, position).unwrap();
    let run = |loaded: &mut Loaded, slot| {
        bench
            .inside(|| loaded.run(bench.at, &fixtures::reply(true, slot)))
            .code
    };

    assert_eq!(run(&mut loaded, SLOT + 1), REDIRECT);
    assert_eq!(
        (loaded.alive(SLOT).unwrap(), loaded.alive(SLOT + 1).unwrap()),
        (0, 0)
    );
    let before = now();
    assert_eq!(run(&mut loaded, SLOT), SHOT);
    let first = loaded.alive(SLOT).unwrap();
    assert!((before..=now()).contains(&first), "{before} {first} {}", now());
    assert_eq!(run(&mut loaded, SLOT), SHOT);
    assert!(loaded.alive(SLOT).unwrap() > first);
    assert_eq!(loaded.alive(SLOT + 1).unwrap(), 0);
}

fn now() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    u64::try_from(time.tv_sec() * 1_000_000_000 + time.tv_nsec()).unwrap()
}
