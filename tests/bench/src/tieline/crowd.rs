//! Many workloads with many wires.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tieline_lab::NetNs;

use super::{Node, Wire};
use crate::stop;

/// Unanswered Requests at a time.
pub(crate) const IN_FLIGHT: usize = 64;
/// Wires that end in the same workload: nobody has ten thousand interfaces.
const WIRES_PER_WORKLOAD: u32 = 100;
const SERVICE: &str = "bench-many";
const PREFIX: &str = "10.208.0.0/12";

/// Workloads enough for so many wires, clients and endpoints alike.
pub(crate) struct Crowd {
    count: u32,
    clients: Vec<Arc<NetNs>>,
    /// Kept until the wires are closed.
    _endpoints: Vec<Arc<NetNs>>,
}

impl Crowd {
    /// How many workloads so many wires have at either end.
    pub(crate) const fn workloads(wires: u32) -> u32 {
        wires.div_ceil(WIRES_PER_WORKLOAD)
    }

    /// Declares their service and registers the endpoints.
    pub(crate) fn gather(node: &Node, count: u32) -> Result<Self> {
        node.control().declare_service(SERVICE, PREFIX)?;
        let (mut clients, mut endpoints) = (Vec::new(), Vec::new());
        for n in 0..Self::workloads(count) {
            stop::check()?;
            clients.push(Arc::new(NetNs::new("bench-mc")?));
            let endpoint = Arc::new(NetNs::new("bench-ms")?);
            let name = format!("bench-endpoint-{n}");
            node.api().register(SERVICE, &name, &endpoint, &[])?;
            endpoints.push(endpoint);
        }
        Ok(Self {
            count,
            clients,
            _endpoints: endpoints,
        })
    }

    /// Requests all wires, many at a time. Those that are there are refreshed.
    pub(crate) fn connect(&self, node: &Node) -> Result<Vec<Wire>> {
        let made = node.api().request_all(SERVICE, self.wires(), IN_FLIGHT);
        made.with_context(|| format!("the node says: {}", node.log()))
    }

    /// The same by so many clients, each with a connection of its own and one Request at a time; and how many
    /// Requests a second that made.
    pub(crate) fn connect_by(&self, node: &Node, clients: usize) -> Result<(Vec<Wire>, f64)> {
        let clients = node.api().clients(clients)?;
        let start = std::time::Instant::now();
        let made = clients.request_all(SERVICE, self.wires());
        let elapsed = start.elapsed();
        let made = made.with_context(|| format!("the node says: {}", node.log()))?;
        Ok((made, f64::from(self.count) / elapsed.as_secs_f64()))
    }

    /// What is asked for; consecutive wires are different clients'.
    fn wires(&self) -> impl Iterator<Item = (String, &NetNs)> {
        let clients = self.clients.iter().cycle().map(AsRef::as_ref);
        (0..self.count)
            .zip(clients)
            .map(|(n, client)| (format!("bench-many-{n}"), client))
    }
}
