//! From a Request to the first packet at the endpoint, with nothing between and through a chain of functions.

use anyhow::{Context as _, Result};
use tieline_lab::NetNs;
use tieline_proto::tieline::admin::v1::{NetworkService, OrderedSelector};

use super::{CHAIN, FIRST_PACKET, ONE_HOP, Plan};
use crate::{
    report::Collector,
    stop,
    tieline::{Node, first_packet_ms, service},
};

const PLAIN: &str = "bench-first";
const CHAINED: &str = "bench-chain";
/// The label whose values say in which order functions are passed.
const ROLE: &str = "role";
const FUNCTIONS: usize = 5;
/// Requests of each kind in a round: each takes a moment only.
const EACH_ROUND: u32 = 10;

/// Measures both by turns on one node that has nothing else to do.
pub(super) fn run(plan: &Plan, collector: &mut Collector) -> Result<()> {
    let node = Node::start(&plan.attach)?;
    let (client, endpoint) = (NetNs::new("bench-c")?, NetNs::new("bench-s")?);
    node.control().declare_service(PLAIN, "10.202.0.0/16")?;
    node.api().register(PLAIN, "bench-endpoint", &endpoint, &[])?;
    let (functions, last) = chain(&node)?;
    for attempt in 0..plan.rounds * plan.enough(EACH_ROUND, 2) {
        for (path, service, endpoint) in [(ONE_HOP, PLAIN, &endpoint), (CHAIN, CHAINED, &last)] {
            stop::check()?;
            let id = format!("{service}-{attempt}");
            let ms = first_packet_ms(&node, [&client, endpoint], service, &id);
            collector.add(path, FIRST_PACKET, None, attempt, ms.context(path)?);
        }
    }
    drop(functions);
    node.stop()
}

/// A service whose clients pass the functions in order: namespaces that route, with nothing in them but the kernel.
fn chain(node: &Node) -> Result<(Vec<NetNs>, NetNs)> {
    let mut roles: Vec<String> = (1..=FUNCTIONS).map(|n| format!("function-{n}")).collect();
    roles.push("server".to_owned());
    node.control().apply_service(NetworkService {
        ordered_selector: Some(OrderedSelector {
            key: ROLE.to_owned(),
            values: roles.clone(),
        }),
        ..service(CHAINED, "10.203.0.0/16")
    })?;
    let register = |role: &String| {
        let netns = NetNs::new("bench-f")?;
        let name = format!("bench-{role}");
        node.api().register(CHAINED, &name, &netns, &[(ROLE, role)])?;
        Ok(netns)
    };
    let mut namespaces = roles.iter().map(register).collect::<Result<Vec<_>>>()?;
    let last = namespaces.pop().context("a chain has an end")?;
    Ok((namespaces, last))
}
