//! How many Requests a node answers in a second.

use anyhow::{Context as _, Result};

use super::{ONE_CLIENT, Plan, REFRESHES, REQUESTS};
use crate::{
    report::Collector,
    stop,
    tieline::{Crowd, IN_FLIGHT, Node},
};

/// So many that nothing more is gained by more.
pub(super) const MOST_CLIENTS: &str = "64 clients";
/// Clients at once, each with a connection of its own to the agent and one Request at a time.
const CLIENTS: [(&str, usize); 3] = [(ONE_CLIENT, 1), ("8 clients", 8), (MOST_CLIENTS, 64)];
/// Wires that are made, refreshed and closed for one sample.
const WIRES: u32 = 400;

/// Measures with so many clients by turns on one node.
pub(super) fn run(plan: &Plan, collector: &mut Collector) -> Result<()> {
    let node = Node::start(&plan.attach)?;
    let wires = plan.enough(WIRES, 64);
    let crowd = Crowd::gather(&node, wires, &[])?;
    for round in 0..plan.rounds {
        eprintln!("Requests, round {} of {}", round + 1, plan.rounds);
        for (path, clients) in CLIENTS {
            stop::check()?;
            let (made, new) = crowd.connect_by(&node, clients).context(path)?;
            collector.add(path, REQUESTS, None, round, new);
            let (_, again) = crowd.connect_by(&node, clients).context(path)?;
            collector.add(path, REFRESHES, None, round, again);
            node.api().close_all(&made, IN_FLIGHT)?;
        }
    }
    node.stop()
}
