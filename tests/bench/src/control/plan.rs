//! Planning for many nodes, in this process: what the registry and the planner take, without store and network.

use std::time::Instant;

use anyhow::Result;

use super::{PLAN_FULL, PLAN_ONE, Plan, REGISTRY_REQUEST, world::World};
use crate::{report::Collector, stop};

/// The whole plan of every node, from the connections as they are: what nodes are sent that begin a session.
pub(super) const SNAPSHOTS: &str = "the plan of every node";
/// A new connection: chosen, and planned at its node.
pub(super) const REQUEST: &str = "a Request";
/// A connection that goes.
pub(super) const CLOSE: &str = "a Close";
/// Changes of each kind in a round.
const EACH_ROUND: u32 = 20;

/// Measures everything by turns.
pub(super) fn run(plan: &Plan, world: &mut World, collector: &mut Collector) -> Result<()> {
    let wires = Some(plan.connections);
    for round in 0..plan.rounds {
        eprintln!("planning, round {} of {}", round + 1, plan.rounds);
        let begun = Instant::now();
        let planned = world.snapshots();
        anyhow::ensure!(planned == plan.connections, "{planned} wires are planned");
        collector.add(SNAPSHOTS, PLAN_FULL, wires, round, begun.elapsed().as_secs_f64());
        for n in 0..EACH_ROUND {
            stop::check()?;
            let mut add = |path, took: super::world::Took| {
                let ms = took.planned.as_secs_f64() * 1e3;
                collector.add(path, PLAN_ONE, wires, round * EACH_ROUND + n, ms);
            };
            add(REQUEST, world.connect(plan.connections)?);
            add(CLOSE, world.close(plan.connections)?);
        }
    }
    for n in 0..plan.connections / 10 {
        let us = world.connect(n)?.whole.as_secs_f64() * 1e6;
        collector.add("refresh", REGISTRY_REQUEST, wires, n, us);
    }
    Ok(())
}
