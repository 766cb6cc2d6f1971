//! What a wire takes: time, and memory of the kernel, the maps and the process.

use std::{thread, time::Duration, time::Instant};

use anyhow::Result;

use super::{Plan, WIRE_BYTES, WIRE_TIME};
use crate::{
    report::Collector,
    stop,
    tieline::{Crowd, IN_FLIGHT, Node, memory},
};

/// Enough that what others on the machine do to its memory is small beside them.
const WIRES: u32 = 2000;
/// The kernel takes namespaces away in its own time, and what it frees shows in its memory.
const SETTLE: Duration = Duration::from_secs(2);

/// Each round has a node of its own: memory that a process gave back it takes again for nothing.
pub(super) fn run(plan: &Plan, collector: &mut Collector) -> Result<()> {
    let wires = plan.enough(WIRES, 100);
    for round in 0..plan.rounds {
        eprintln!("cost of a wire, round {} of {}", round + 1, plan.rounds);
        stop::check()?;
        let node = Node::start(&plan.attach)?;
        let crowd = Crowd::gather(&node, wires, &[])?;
        thread::sleep(SETTLE);
        let mut add = |path, metric, of_all: f64| {
            collector.add(path, metric, Some(wires), round, of_all / f64::from(wires));
        };
        let (kernel, process) = (memory::of_kernel()?, node.memory()?);
        let begun = Instant::now();
        let made = crowd.connect(&node)?;
        add("made", WIRE_TIME, begun.elapsed().as_secs_f64() * 1e3);
        add("kernel", WIRE_BYTES, memory::of_kernel()? - kernel);
        add("tieline up", WIRE_BYTES, node.memory()? - process);
        let begun = Instant::now();
        node.api().close_all(&made, IN_FLIGHT)?;
        add("closed", WIRE_TIME, begun.elapsed().as_secs_f64() * 1e3);
        let maps = node.map_bytes()? / f64::from(node.api().max_wires()?);
        collector.add("maps", WIRE_BYTES, Some(wires), round, maps);
        node.stop()?;
    }
    Ok(())
}
