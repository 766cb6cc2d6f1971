//! Planning for many nodes, in this process: what the registry and the planner take, without store and network.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{
    PLAN_FULL, PLAN_ONE, Plan, REGISTRY_REQUEST,
    world::{COLORS, Took, World},
};
use crate::{report::Collector, stop};

/// The whole plan of every node, from the connections as they are: what nodes are sent that begin a session.
pub(super) const SNAPSHOTS: &str = "the plan of every node";
/// A wiring that leads every connection elsewhere: each is selected again, and every node planned.
pub(super) const ALL_MOVE: &str = "every connection moves";
/// A wiring that is about every connection and leaves it where it is.
pub(super) const ALL_STAY: &str = "every connection stays";
/// A new connection: chosen, and planned at its node.
pub(super) const REQUEST: &str = "a Request";
/// A connection that goes.
pub(super) const CLOSE: &str = "a Close";
/// An endpoint that all connections of a node are moved away from.
pub(super) const DRAIN: &str = "an endpoint is drained";
/// An endpoint that all connections of a node are moved away from at once.
pub(super) const DEATH: &str = "an endpoint dies";
/// A wiring that is about none of the connections.
pub(super) const OTHER: &str = "a wiring of another service";
/// Changes of each kind in a round.
const EACH_ROUND: u32 = 20;

/// Measures everything by turns.
pub(super) fn run(plan: &Plan, world: &mut World, collector: &mut Collector) -> Result<()> {
    let wires = Some(plan.connections);
    // Every connection is red from here on, so that all are moved by the first round.
    world.wire_all_to(COLORS[0], 0)?;
    for round in 0..plan.rounds {
        eprintln!("planning, round {} of {}", round + 1, plan.rounds);
        let [from, color] = [0, 1].map(|next| COLORS[(round as usize + next) % 2]);
        let mut add = |path, took: Took| {
            collector.add(path, PLAN_FULL, wires, round, took.planned.as_secs_f64());
        };
        let moved = world.wire_all_to(color, 0)?;
        ensure!(
            moved.moves == plan.connections,
            "{} connections are moved",
            moved.moves
        );
        add(ALL_MOVE, moved);
        let stayed = world.wire_all_to(color, 1)?;
        ensure!(stayed.moves == 0, "{} connections are moved", stayed.moves);
        add(ALL_STAY, stayed);
        add("a dry run", world.dry_run()?);
        let begun = Instant::now();
        let planned = world.snapshots();
        let took = begun.elapsed();
        ensure!(planned == plan.connections, "{planned} wires are planned");
        collector.add(SNAPSHOTS, PLAN_FULL, wires, round, took.as_secs_f64());
        single_changes(plan, world, round, [color, from], collector)?;
    }
    for n in 0..plan.connections / 10 {
        let us = world.connect(n)?.whole.as_secs_f64() * 1e6;
        collector.add("refresh", REGISTRY_REQUEST, wires, n, us);
    }
    Ok(())
}

/// Each kind of change by turns, on one node after the other, while every connection is of the first color. In the end it
/// is again.
fn single_changes(
    plan: &Plan,
    world: &mut World,
    round: u32,
    [color, other]: [&str; 2],
    collector: &mut Collector,
) -> Result<()> {
    world.unwire()?;
    for n in 0..EACH_ROUND.min(world.nodes() / 2) {
        stop::check()?;
        let mut add = |path, took: Took| {
            let (wires, sample) = (Some(plan.connections), round * EACH_ROUND + n);
            collector.add(path, PLAN_ONE, wires, sample, took.planned.as_secs_f64() * 1e3);
        };
        add(REQUEST, world.connect(plan.connections)?);
        add(CLOSE, world.close(plan.connections)?);
        add(OTHER, world.wire_another(n)?);
        let [drained, dying] = [2 * n, 2 * n + 1];
        let away = world.drain(drained, color, true)?;
        ensure!(away.moves > 0, "nothing was moved from a drained endpoint");
        add(DRAIN, away);
        world.drain(drained, color, false)?;
        add(DEATH, world.health(dying, color, false)?);
        world.health(dying, color, true)?;
        for node in [drained, dying] {
            world.drain(node, other, true)?;
            world.drain(node, other, false)?;
        }
    }
    Ok(())
}
