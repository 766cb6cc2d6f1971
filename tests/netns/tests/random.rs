//! A thousand random intents, with processes killed in the middle of some: what stands at the end is what a node makes
//! that begins from nothing with the same intents, and when all is taken back nothing remains.

#[path = "random/intent.rs"]
mod intent;
#[path = "random/world.rs"]
mod world;

use std::thread;

use anyhow::{Context as _, Result, ensure};
use proptest::{
    strategy::{Strategy, ValueTree as _},
    test_runner::{Config, RngSeed, TestRunner},
};
use tieline_tests_netns::seed;

use intent::{Kill, Step};
use world::World;

/// How many intents, and how many of them a process is killed in: each kill costs its restart.
const STEPS: usize = 1000;
const KILLS: usize = 40;
/// How many wires there are at least when the result is compared.
const WIRES: usize = 4;

#[test]
fn random_intents_and_kills_end_in_what_a_fresh_node_makes_and_leak_nothing() -> Result<()> {
    let mut runner = TestRunner::new(Config {
        rng_seed: RngSeed::Fixed(seed()),
        ..Config::default()
    });
    let mut world = World::new()?;
    let mut counts = Counts::default();
    let mut number = 0;
    // At the end there shall be something to compare.
    while number < STEPS || world.connections()?.len() < WIRES {
        let killing = number % (STEPS / KILLS) == STEPS / KILLS - 1;
        let step = intent::steps(killing).new_tree(&mut runner);
        let step = step
            .map_err(|reason| anyhow::anyhow!("draw a step: {reason}"))?
            .current();
        carry_out(&mut world, &step, &mut counts)
            .with_context(|| format!("step {number}: {step:?}\n{}", world.node.logs()))?;
        number += 1;
    }
    eprintln!("{counts:?}");
    ensure!(
        counts.granted > STEPS / 4,
        "hardly anything was granted: {counts:?}"
    );
    compare_with_a_fresh_node(&mut world).with_context(|| world.node.logs())?;
    world.take_everything_back()
}

/// What became of the intents.
#[derive(Debug, Default)]
struct Counts {
    granted: usize,
    refused: usize,
    cut_off: usize,
}

fn carry_out(world: &mut World, step: &Step, counts: &mut Counts) -> Result<()> {
    let Some(kill) = step.kill else {
        match world.intend(&step.intent) {
            Ok(()) => counts.granted += 1,
            Err(status) => {
                // Refused by a rule: anything else is ours to repair.
                ensure!(intent::is_a_rule(status.code()), "{status:?}");
                counts.refused += 1;
            }
        }
        return Ok(());
    };
    counts.cut_off += 1;
    let Kill {
        agent,
        control,
        after,
    } = kill;
    let (api, workloads, node) = (&world.api, &world.workloads, &mut world.node);
    thread::scope(|scope| {
        // Whatever it is answered: it holds, or it does not.
        scope.spawn(|| drop(step.intent.carry_out(api, workloads)));
        thread::sleep(after);
        if agent {
            node.kill_agent()?;
        }
        if control {
            node.kill_control()?;
        }
        anyhow::Ok(())
    })?;
    if control {
        node.start_control()?;
    }
    if agent {
        node.launch_agent()?;
    }
    node.wait_until_ready()
}

/// Takes everything away that the kernel has of the node, and lets it begin again from control's records.
fn compare_with_a_fresh_node(world: &mut World) -> Result<()> {
    let grown = world.settled()?;
    world.assert_carries()?;
    world.wipe()?;
    world.node.start_control()?;
    world.node.start_agent()?;
    let fresh = world.settled()?;
    let more: Vec<_> = grown.difference(&fresh).collect();
    let less: Vec<_> = fresh.difference(&grown).collect();
    ensure!(
        grown == fresh,
        "only in what grew: {more:#?}\nonly in what was made afresh: {less:#?}"
    );
    world.assert_carries()
}
