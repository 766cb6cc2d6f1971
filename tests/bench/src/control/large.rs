//! What is measured with many connections in one process.

use std::thread;

use anyhow::{Context as _, Result};

use super::{Chosen, Plan, REGISTRY_REQUEST, plan, restore, world::World};
use crate::{
    cpu::{self, Cpu},
    report::Collector,
    stop,
};

/// Requests the connections one by one, and measures what is wanted of the whole.
pub(super) fn run(plan: &Plan, collector: &mut Collector) -> Result<()> {
    eprintln!("requesting {} connections", plan.connections);
    let mut world = World::new(plan.connections)?;
    let tenth = plan.connections / 10;
    for n in 0..plan.connections {
        if n % 1000 == 0 {
            stop::check()?;
        }
        let took = world.connect(n)?;
        // Among few and among many: a search costs twice as much, a scan ten times.
        for (path, wires, from) in [
            ("new", tenth, 0),
            ("new", plan.connections, plan.connections - tenth),
        ] {
            if (from..from + tenth).contains(&n) && plan.wants(Chosen::Plan) {
                let us = took.whole.as_secs_f64() * 1e6;
                collector.add(path, REGISTRY_REQUEST, Some(wires), n, us);
            }
        }
    }
    if plan.wants(Chosen::Restore) {
        restore::run(plan, &world, collector).context("restoring")?;
    }
    if plan.wants(Chosen::Plan) {
        let measure = || {
            cpu::claim(Cpu::First)?;
            plan::run(plan, &mut world, collector).context("planning")
        };
        thread::scope(|scope| scope.spawn(measure).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    }
    Ok(())
}
