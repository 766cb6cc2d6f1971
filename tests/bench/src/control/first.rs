//! From a Request to the first packet at the endpoint.

use anyhow::{Context as _, Result};
use tieline_lab::NetNs;

use super::{FIRST_PACKET, ONE_HOP, Plan};
use crate::{
    report::Collector,
    stop,
    tieline::{Node, first_packet_ms},
};

const SERVICE: &str = "bench-first";
const PREFIX: &str = "10.202.0.0/16";
/// Requests in a round: each takes a moment only.
const EACH_ROUND: u32 = 10;

/// Measures both by turns on one node that has nothing else to do.
pub(super) fn run(plan: &Plan, collector: &mut Collector) -> Result<()> {
    let node = Node::start(&plan.attach)?;
    let (client, endpoint) = (NetNs::new("bench-c")?, NetNs::new("bench-s")?);
    node.control().declare_service(SERVICE, PREFIX)?;
    node.api().register(SERVICE, "bench-endpoint", &endpoint, &[])?;
    for attempt in 0..plan.rounds * plan.enough(EACH_ROUND, 2) {
        stop::check()?;
        let ends = [&client, &endpoint];
        let ms = first_packet_ms(&node, ends, SERVICE, &format!("bench-first-{attempt}"));
        collector.add(ONE_HOP, FIRST_PACKET, None, attempt, ms.context(ONE_HOP)?);
    }
    node.stop()
}
